//! New generations of segments in the log (CORE-PROTOCOL G1): where one begins, of what it is made, and what it ends. When one is
//! made is `relay/roll.rs`'s to say; one that a replica gave back begins in `given.rs`.

use std::collections::BTreeMap;

use super::Sequencer;
use crate::guard::Clocks;
use crate::id::{GenId, Offset, ReplicaId, SegmentNumber, Seq};
use crate::log::{LogEntry, StoredRoll};
use crate::mutate::{self, Mutation};
use crate::relay::port::{GenerationBegins, SegmentTail};
use crate::wire::frame::down::Fate;
use crate::wire::frame::roll::Included;

impl Sequencer {
    /// Whether a commit that is held may come again with other parts without there being two versions of it (G3): without those
    /// that a generation has, or made anew in one that was adopted in the place of what is held.
    pub(super) fn has_generations(&self) -> bool {
        self.segments.iter().any(|segment| !segment.row.generation.is_zero())
    }

    /// The position at which a segment's generation begins; 0 if that was before this machine.
    pub fn begun(&self, number: SegmentNumber) -> Offset {
        let at = usize::try_from(number.0).ok();
        at.and_then(|at| self.segments.get(at)).map_or(Offset(0), |segment| segment.begun)
    }

    /// Every line as it is at the head, for the header of a generation that is made there (G1).
    pub fn included(&self) -> BTreeMap<ReplicaId, Included> {
        let lines = self.admit.iter().filter(|(_, line)| line.last() > Seq(0));
        let included = lines.map(|(owner, line)| {
            let voids = line.rows().filter(|row| matches!(row.fate, Fate::Void(_))).map(|row| row.uid).collect();
            (owner, Included { last: line.last(), voids })
        });
        included.collect()
    }

    /// G1: from here on the segment is of another generation. Its place. Nobody's clocks of the old one are barred any more;
    /// what was left out of entries stays left out of them.
    pub fn roll(&mut self, roll: StoredRoll, clocks: Clocks) -> Offset {
        let offset = self.head;
        let (number, generation) = (roll.segment, roll.generation);
        self.push(&LogEntry::Roll(roll));
        // The bytes that stay in memory, not those that came from the worker.
        if let Some(LogEntry::Roll(roll)) = self.tail.back().map(|last| &*last.entry) {
            let (header, snapshot) = (roll.header.clone(), roll.snapshot.clone());
            let position = offset.next();
            self.batch.generations.push(GenerationBegins { segment: number, position, header, snapshot });
        }
        let snapshot_bytes = self.batch.generations.last().map_or(0, |begins| begins.snapshot.len() as u64);
        self.begin_generation(number, generation, snapshot_bytes, clocks);
        if let Some(segment) = self.segment_mut(number) {
            (segment.begun, segment.adopted) = (offset.next(), None);
            segment.write(offset);
        }
        self.touched_segments.insert(number);
        if !mutate::on(Mutation::GenerationUnwritten) {
            self.note_created(&[number]);
        }
        offset
    }

    /// The segment is of this generation, of so many bytes. What was left out of entries stays left out of them.
    pub(super) fn begin_generation(
        &mut self,
        number: SegmentNumber,
        generation: GenId,
        snapshot_bytes: u64,
        mut clocks: Clocks,
    ) {
        let floor = self.floor;
        if let Some(segment) = self.segment_mut(number) {
            for at in segment.clocks.skipped().filter(|at| *at >= floor) {
                clocks.skip(at);
            }
            segment.row.generation = generation;
            segment.row.tail = SegmentTail { snapshot_bytes, ..SegmentTail::default() };
            (segment.clocks, segment.failed_folds) = (clocks, 0);
        }
        // R12: what is being replayed is of the old one.
        self.watched.take_if(|(watched, _)| *watched == number);
    }
}
