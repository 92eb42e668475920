//! What holds at every moment of a [`Cluster`], beside what its ledger sees: causes come before effects (P2), what is
//! acknowledged is on the disk (P5), and a total is the sum of the commits that are seen (P6). Looked at after every step of a
//! world that is driven by hand.

use std::collections::{BTreeMap, BTreeSet};

use coheap_core::id::{SegmentId, Seq, Uid};
use coheap_core::log::LogEntry;

use crate::cluster::Cluster;
use crate::ledger::{Outcome, TOTAL, Written, total_of};
use crate::mirror::{Mirror, Node as Object};

/// What was seen when. Commits go by their uid: copies of a process have some in common.
#[derive(Debug, Default)]
pub struct Witness {
    /// Per commit: those that its author had seen, or made, when it made it.
    causes: BTreeMap<Uid, Vec<Uid>>,
    /// How everything stood at the last look: if nothing has changed, there is nothing to see.
    stood: (usize, u64, usize),
}

impl Witness {
    /// Looks at everything, and panics at what must not be.
    pub fn look(&mut self, cluster: &mut Cluster) {
        let changes = cluster.nodes.iter().map(|node| node.changes).sum();
        let stands = (cluster.nodes.len(), changes, cluster.disk.len());
        if std::mem::replace(&mut self.stood, stands) == stands {
            return;
        }
        cluster.look();
        self.learn(cluster);
        self.causes_come_first(cluster);
        if cluster.ledger.losses == 0 {
            acknowledged_is_durable(cluster);
        }
        totals_are_exact(cluster);
    }

    /// Commits that are new since the last look: they know of what their author sees now, for nothing else has happened.
    fn learn(&mut self, cluster: &Cluster) {
        for ((at, seq), written) in &cluster.ledger.commits {
            if self.causes.contains_key(&written.uid) {
                continue;
            }
            let own = cluster.ledger.commits.range((*at, Seq(0))..(*at, *seq));
            let mut causes = visible(cluster, *at);
            causes.extend(own.map(|(_, written)| written.uid));
            causes.remove(&written.uid);
            self.causes.insert(written.uid, causes.into_iter().collect());
        }
    }

    /// P2: whoever sees a commit sees all that its author saw, in the segments that it holds.
    fn causes_come_first(&self, cluster: &Cluster) {
        let commits = by_uid(cluster);
        let refused: BTreeSet<Uid> = cluster
            .ledger
            .commits
            .values()
            .filter(|written| matches!(written.fate, Outcome::Refused(_)))
            .map(|written| written.uid)
            .collect();
        for at in 0..cluster.nodes.len() {
            let shown: BTreeMap<SegmentId, &Mirror> =
                cluster.nodes[at].resident().map(|(id, _, mirror)| (id, mirror)).collect();
            let hides = |written: &Written| {
                let mut ids = written.places.iter().map(|(id, _)| *id);
                ids.find(|id| shown.get(id).is_some_and(|mirror| !has(mirror, &written.marker)))
            };
            for effect in &visible(cluster, at) {
                for cause in self.causes.get(effect).into_iter().flatten().filter(|cause| !refused.contains(cause)) {
                    let hidden = commits.get(cause).and_then(|written| hides(written));
                    assert!(
                        hidden.is_none(),
                        "P2: replica {at} sees {}, and not what it follows: {}, in {hidden:?}",
                        commits[effect].marker,
                        commits[cause].marker
                    );
                }
            }
        }
    }
}

fn by_uid(cluster: &Cluster) -> BTreeMap<Uid, &Written> {
    cluster.ledger.commits.values().map(|written| (written.uid, written)).collect()
}

/// P5: a program is told that a commit is saved only when it is.
fn acknowledged_is_durable(cluster: &Cluster) {
    let log = cluster.disk.history();
    let durable: BTreeSet<Uid> = log
        .iter()
        .filter_map(|entry| if let LogEntry::Commit(commit) = entry { Some(commit.uid) } else { None })
        .collect();
    for ((at, seq), written) in &cluster.ledger.commits {
        let told = written.fate == Outcome::Stands;
        assert!(!told || durable.contains(&written.uid), "P5: commit {} of replica {at} is saved nowhere", seq.0);
    }
}

/// P6: a total is what the commits that are seen have added to it, each once.
fn totals_are_exact(cluster: &Cluster) {
    let commits = by_uid(cluster);
    for (at, node) in cluster.nodes.iter().enumerate() {
        for (id, index, mirror) in node.resident().filter(|(_, index, _)| !node.rebuilding.contains(index)) {
            let Some(handle) = total_of(mirror) else { continue };
            let Object::Counter(total) = mirror.node(handle) else { panic!("{TOTAL} of {index:?} is no counter") };
            let seen = commits.values().filter(|written| has(mirror, &written.marker));
            let added: f64 =
                seen.flat_map(|written| &written.places).filter(|(of, _)| *of == id).map(|(_, by)| by).sum();
            assert!(
                *total == added,
                "P6: the total of {id} at replica {at} is {total}, and the commits seen add {added}"
            );
        }
    }
}

fn has(mirror: &Mirror, marker: &str) -> bool {
    matches!(mirror.node(coheap_core::edit::Handle(0)), Object::Map(entries) if entries.contains_key(marker))
}

/// The commits that a program sees anything of.
fn visible(cluster: &Cluster, at: usize) -> BTreeSet<Uid> {
    let shown: BTreeMap<SegmentId, &Mirror> =
        cluster.nodes[at].resident().map(|(id, _, mirror)| (id, mirror)).collect();
    let is_seen = |written: &&Written| {
        written.places.iter().any(|(id, _)| shown.get(id).is_some_and(|mirror| has(mirror, &written.marker)))
    };
    cluster.ledger.commits.values().filter(is_seen).map(|written| written.uid).collect()
}
