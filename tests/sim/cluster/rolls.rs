//! New generations of segments in a [`Cluster`]: what the worker makes of one, and that it is of all that lies below it.

use std::collections::BTreeMap;

use coheap_core::commit::EngineKind;
use coheap_core::id::{GenId, Offset, ReplicaId, SegmentId, Seq};
use coheap_core::log::{LogEntry, StoredCommit};
use coheap_core::relay::{Input as RelayInput, NotRolled, Roll, StoredState};
use coheap_core::segment::roll::{Unrollable, check_roll, roll_unchecked};
use coheap_core::wire::frame::roll::GenerationHeader;

use super::Cluster;

impl Cluster {
    /// The relay is to make a new generation of a segment.
    pub fn roll(&mut self, id: SegmentId) {
        self.relay_input(RelayInput::Roll { segment: id });
    }

    /// G1: a generation is made of all that lies below it in the log, and its header says so of every line.
    pub(super) fn is_of_now(&self, entry: &LogEntry, place: Offset) {
        let LogEntry::Roll(roll) = entry else { return };
        let header = GenerationHeader::decode(&roll.header).expect("a header reads back");
        assert_eq!((header.generation, header.parent), (roll.generation, roll.parent));
        let mut written = self.disk.clone();
        written.sync();
        let mut last: BTreeMap<ReplicaId, Seq> = BTreeMap::new();
        for entry in written.history().iter().chain(&self.appending).take(place.0 as usize) {
            match entry {
                LogEntry::Commit(StoredCommit { owner, seq, .. }) | LogEntry::Void { owner, seq, .. } => {
                    last.insert(*owner, *seq);
                }
                LogEntry::Restored(restore) => {
                    for (owner, seq, _) in &restore.acked {
                        let line = last.entry(*owner).or_default();
                        *line = (*line).max(*seq);
                    }
                }
                LogEntry::Roll(_) | LogEntry::Quarantine(_) => {}
            }
        }
        let included: BTreeMap<ReplicaId, Seq> = header.included.iter().map(|(id, line)| (id, line.last)).collect();
        assert_eq!(included, last, "G1: the lines of a generation (left) and those of the log below it");
    }
}

/// What two workers make of a roll: the document, and the proof that it is right.
pub(super) fn made(engine: EngineKind, id: SegmentId, states: Vec<StoredState>, generation: GenId) -> Roll {
    let Some(StoredState::At { snapshot, deltas, .. }) = states.into_iter().next() else { return Roll::Failed };
    match roll_unchecked(engine, id, &snapshot, &deltas, generation).expect("what is stored is read") {
        Ok(made) => {
            let proved = check_roll(engine, id, &snapshot, &deltas, generation, &made);
            Roll::Made { snapshot: made, clocks: proved.expect("G1: it shows the same") }
        }
        Err(Unrollable::Sequences) => Roll::Declined(NotRolled::Sequences),
        Err(Unrollable::History) => Roll::Declined(NotRolled::History),
    }
}
