//! What holds at every moment of a [`Cluster`], beside what its ledger sees: causes come before effects (P2), what is
//! acknowledged is on the disk (P5), and a total is the sum of the commits that are seen (P6). Looked at after every step of a
//! world that is driven by hand.

use std::collections::{BTreeMap, BTreeSet};

use coheap_core::id::{SegmentId, Seq};

use crate::cluster::Cluster;
use crate::ledger::{Outcome, TOTAL, Written, total_of};
use crate::mirror::{Mirror, Node as Object};

/// A commit, by process and number.
type Name = (usize, Seq);

/// What was seen when.
#[derive(Debug, Default)]
pub struct Witness {
    /// Per commit: those that its author had seen, or made, when it made it.
    causes: BTreeMap<Name, Vec<Name>>,
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
        acknowledged_is_durable(cluster);
        totals_are_exact(cluster);
    }

    /// Commits that are new since the last look: they know of what their author sees now, for nothing else has happened.
    fn learn(&mut self, cluster: &Cluster) {
        let new: Vec<Name> =
            cluster.ledger.commits.keys().filter(|name| !self.causes.contains_key(name)).copied().collect();
        for (at, seq) in new {
            let seen = visible(cluster, at);
            let causes = seen.into_iter().filter(|name| *name != (at, seq));
            let own = cluster.ledger.commits.range((at, Seq(0))..(at, seq)).map(|(name, _)| *name);
            let causes: BTreeSet<Name> = causes.chain(own).collect();
            self.causes.insert((at, seq), causes.into_iter().collect());
        }
    }

    /// P2: whoever sees a commit sees all that its author saw, in the segments that it holds.
    fn causes_come_first(&self, cluster: &Cluster) {
        for at in 0..cluster.nodes.len() {
            let shown: BTreeMap<SegmentId, &Mirror> =
                cluster.nodes[at].resident().map(|(id, _, mirror)| (id, mirror)).collect();
            let seen = visible(cluster, at);
            for effect in &seen {
                for cause in self.causes.get(effect).into_iter().flatten() {
                    let Some(written) = cluster.ledger.commits.get(cause) else { continue };
                    let hidden = written
                        .places
                        .iter()
                        .map(|(id, _)| id)
                        .find(|id| shown.get(id).is_some_and(|mirror| !has(mirror, &written.marker)));
                    let refused = matches!(written.fate, Outcome::Refused(_));
                    assert!(
                        refused || hidden.is_none(),
                        "P2: replica {at} sees commit {} of replica {}, and not what it follows: commit {} of replica {}, \
                         in {hidden:?}",
                        effect.1.0,
                        effect.0,
                        cause.1.0,
                        cause.0
                    );
                }
            }
        }
    }
}

/// P5: a program is told that a commit is saved only when it is.
fn acknowledged_is_durable(cluster: &Cluster) {
    let durable = cluster.durable();
    for ((at, seq), written) in &cluster.ledger.commits {
        let told = written.fate == Outcome::Stands;
        assert!(!told || durable.contains(&(*at, *seq)), "P5: commit {} of replica {at} is saved nowhere", seq.0);
    }
}

/// P6: a total is what the commits that are seen have added to it, each once.
fn totals_are_exact(cluster: &Cluster) {
    for (at, node) in cluster.nodes.iter().enumerate() {
        for (id, index, mirror) in node.resident().filter(|(_, index, _)| !node.rebuilding.contains(index)) {
            let Some(handle) = total_of(mirror) else { continue };
            let Object::Counter(total) = mirror.node(handle) else { panic!("{TOTAL} of {index:?} is no counter") };
            let seen = cluster.ledger.commits.values().filter(|written| has(mirror, &written.marker));
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
fn visible(cluster: &Cluster, at: usize) -> BTreeSet<Name> {
    let shown: BTreeMap<SegmentId, &Mirror> =
        cluster.nodes[at].resident().map(|(id, _, mirror)| (id, mirror)).collect();
    let is_seen = |written: &Written| {
        written.places.iter().any(|(id, _)| shown.get(id).is_some_and(|mirror| has(mirror, &written.marker)))
    };
    cluster.ledger.commits.iter().filter(|(_, written)| is_seen(written)).map(|(name, _)| *name).collect()
}
