//! What is kept of a replica outside of its instance, as `js/src/keeper.ts` keeps it: enough to go on when the instance is lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coheap_core::heap::Index;
use coheap_core::id::{ReplicaId, SegmentId, Seq};
use coheap_core::replica::{Input, Keep, LoadStatus, Options, Output, Replica, WaitKind};
use coheap_core::wire::codec::Write;

const DERIVED: u8 = 1;
const LOADING: u8 = 2;
/// Not to be had, and the relay is to look at it.
const BROKEN: u8 = 4 | 8;

/// Everything that a replica said is to be kept, and what its program knows itself.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    lives: Vec<u8>,
    place: Vec<u8>,
    commits: BTreeMap<Seq, Vec<u8>>,
    segments: BTreeMap<Index, Vec<u8>>,
    made: Vec<u8>,
    seq: Seq,
    waits: BTreeMap<u64, (WaitKind, Seq)>,
    /// Segments that were asked for and did not come yet.
    asked: BTreeSet<SegmentId>,
    /// Segments that are empty maps if nobody made them.
    derived: BTreeSet<SegmentId>,
    /// Segments that are quarantined here.
    broken: BTreeSet<Index>,
    /// A commit was told anew since somebody asked.
    anew: bool,
}

impl Keeper {
    /// What a program asks for.
    pub fn ask(&mut self, input: &Input) {
        match input {
            Input::Wait { ticket, kind } => drop(self.waits.insert(*ticket, (kind.clone(), self.seq))),
            Input::LoadFrom { segment, derived, .. } => self.ask(&Input::Load(vec![(*segment, *derived)])),
            Input::Load(segments) => {
                self.asked.extend(segments.iter().map(|(id, _)| *id));
                self.derived.extend(segments.iter().filter(|(_, derived)| *derived).map(|(id, _)| *id));
            }
            _ => {}
        }
    }

    /// What the program of another process knows that goes on from a store of this one: which segments may be empty maps, and
    /// how many commits it has taken over.
    pub fn stored(&self, commits: usize) -> Keeper {
        Keeper { derived: self.derived.clone(), seq: Seq(commits as u64), ..Keeper::default() }
    }

    /// What the replica puts out.
    pub fn hear(&mut self, output: &Output, ids: &BTreeMap<Index, SegmentId>) {
        match output {
            Output::Keep(Keep::Lives(kept)) => self.lives.clone_from(kept),
            Output::Keep(Keep::Place(kept)) => self.place.clone_from(kept),
            Output::Keep(Keep::Commit(seq, kept)) if kept.is_empty() => drop(self.commits.remove(seq)),
            Output::Keep(Keep::Commit(seq, kept)) => self.anew |= self.commits.insert(*seq, kept.clone()).is_some(),
            Output::Keep(Keep::Made { anew, kept }) => {
                if *anew {
                    self.made.clear();
                }
                self.made.extend_from_slice(kept);
            }
            Output::Keep(Keep::Segment { segment, anew, kept }) => {
                let all = self.segments.entry(*segment).or_default();
                if *anew {
                    all.clear();
                }
                all.extend_from_slice(kept);
            }
            Output::Committed { seq, .. } => self.seq = *seq,
            Output::Acked { seq, .. } => self.commits.retain(|kept, _| kept > seq),
            Output::Refused { seq, .. } => drop(self.commits.remove(seq)),
            Output::InDoubt(commits) => self.commits.retain(|kept, _| commits.iter().all(|one| one.seq != *kept)),
            Output::Evicted(segment) => drop(self.segments.remove(segment)),
            Output::Loaded { segment, status, .. } => {
                if let Some(id) = ids.get(segment) {
                    self.asked.remove(id);
                }
                if *status != LoadStatus::There {
                    self.segments.remove(segment);
                }
                if *status == LoadStatus::Quarantined {
                    self.broken.insert(*segment);
                } else {
                    self.broken.remove(segment);
                }
            }
            Output::Done { ticket, .. } | Output::Failed { ticket, .. } => drop(self.waits.remove(ticket)),
            _ => {}
        }
    }

    /// Whether commits that were told of before are something else now: what goes out of them is to be stored first (C8).
    pub fn made_anew(&mut self) -> bool {
        std::mem::take(&mut self.anew)
    }

    /// A replica in another instance, and what it puts out on the way.
    pub fn rebuild(&self, id: ReplicaId, ids: &BTreeMap<Index, SegmentId>, options: Options) -> (Replica, Vec<Output>) {
        let mut replica = Replica::new(options);
        let mut told = Vec::new();
        let mut give = |input| {
            replica.handle(0, input);
            told.extend(std::iter::from_fn(|| replica.poll()));
        };
        give(Input::Resume(Bytes::from(self.resume(id, ids))));
        for (segment, kept) in &self.segments {
            give(Input::Restore { segment: *segment, kept: Bytes::from(kept.clone()) });
        }
        (replica, told)
    }

    fn resume(&self, id: ReplicaId, ids: &BTreeMap<Index, SegmentId>) -> Vec<u8> {
        let mut out = id.0.to_vec();
        Write::bytes(&mut out, &self.lives);
        Write::bytes(&mut out, &self.place);
        Write::bytes(&mut out, &self.made);
        out.varint(ids.len() as u64);
        for (at, (index, segment)) in ids.iter().enumerate() {
            assert_eq!(index.0 as usize, at, "every index is told");
            let here = self.segments.contains_key(index);
            let asked = !here && self.asked.contains(segment);
            let derived = *segment == SegmentId::ROOT || self.derived.contains(segment);
            out.extend_from_slice(&segment.0);
            let broken = self.broken.contains(index);
            let flags = if derived { DERIVED } else { 0 } | if asked { LOADING } else { 0 };
            out.push(flags | if broken { BROKEN } else { 0 });
        }
        out.varint(self.commits.len() as u64);
        for kept in self.commits.values() {
            Write::bytes(&mut out, kept);
        }
        out.varint(self.waits.len() as u64);
        for (ticket, (kind, seq)) in &self.waits {
            out.varint(*ticket);
            match kind {
                WaitKind::Flush => {
                    out.push(0);
                    out.varint(seq.0);
                }
                WaitKind::Version => out.push(1),
                WaitKind::Sync => out.push(2),
                WaitKind::Reach(version) => {
                    out.push(3);
                    out.str(version);
                }
            }
        }
        out
    }
}
