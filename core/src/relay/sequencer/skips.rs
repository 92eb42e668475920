//! What the log leaves out (CORE-PROTOCOL R12): parts that no engine can take in, and what was written behind them under the same
//! client ids. A Quarantine is an entry like any other; the clock table of its segment has what it says as of the head, and
//! `skips` as of the disk.

use super::{Sequencer, TailEntry, engine_for_guard};
use crate::commit::EngineKind;
use crate::guard;
use crate::id::{Offset, SegmentNumber};
use crate::limits;
use crate::log::{LogEntry, StoredQuarantine};
use crate::mutate::{self, Mutation};
use crate::relay::port::Failing;

/// A part of a segment that is being replayed: where it is, its client id if it adds anything, its bytes.
pub(in crate::relay) type Watched = (Offset, Option<u64>, u64);

impl Sequencer {
    /// A segment is going to be replayed as it is on the disk: what the log has of it behind that is noted.
    pub fn watch(&mut self, number: SegmentNumber) {
        let engine = self.segment(number).map_or(EngineKind::Yrs, |row| row.engine);
        let mut noted = Vec::new();
        for TailEntry { offset, entry, .. } in self.tail.iter().filter(|entry| entry.offset >= self.durable) {
            let LogEntry::Commit(commit) = &**entry else { continue };
            for part in commit.parts.iter().filter(|part| part.segment == number) {
                if let Ok(summary) = guard::structure(engine_for_guard(engine), &part.bytes) {
                    noted.push((*offset, summary.own.map(|own| own.client), part.bytes.len() as u64));
                }
            }
        }
        self.watched = Some((number, noted));
    }

    /// What was noted; `None` if the log was read again meanwhile.
    pub fn unwatch(&mut self) -> Option<Vec<Watched>> {
        self.watched.take().map(|(_, parts)| parts)
    }

    /// R12: a part on which the worker's engine fails is left out, and so is whatever its client id wrote behind it, up to here;
    /// from here on nobody writes as it. `None`: it is left out already.
    pub fn quarantine(&mut self, number: SegmentNumber, failing: &Failing, watched: Vec<Watched>) -> Option<Offset> {
        let (at, floor) = (self.head, self.floor);
        let (client, (offset, _)) = (failing.client, *failing.parts.first()?);
        // Ascending, as the entry has them.
        let mut parts: Vec<(Offset, u64)> = Vec::with_capacity(failing.parts.len());
        for part in &failing.parts {
            if parts.last().is_none_or(|last| last.0 < part.0) {
                parts.push(*part);
            }
        }
        for (offset, of, bytes) in watched {
            if of.is_some() && of == client.map(|(client, _)| client) && parts.last().is_none_or(|last| last.0 < offset)
            {
                parts.push((offset, bytes));
            }
        }
        parts.truncate(limits::QUARANTINE_LATER_MAX);
        let segment = self.segment_mut(number)?;
        if segment.clocks.skips(offset) {
            return None;
        }
        let generation = segment.row.generation;
        segment.clocks.forget_below(floor);
        if let Some((client, clock)) = client.filter(|_| !mutate::on(Mutation::BarNobody)) {
            segment.clocks.bar(client, clock);
        }
        for (offset, bytes) in &parts {
            segment.clocks.skip(*offset);
            segment.row.tail.deltas = segment.row.tail.deltas.saturating_sub(1);
            segment.row.tail.bytes = segment.row.tail.bytes.saturating_sub(*bytes);
        }
        segment.failed_folds = 0;
        // G1: a generation that is being made has it.
        segment.write(at);
        self.touched_segments.insert(number);
        self.batch.skipped.extend(parts.iter().map(|(offset, _)| (number, *offset)));
        let later = StoredQuarantine::behind(offset, parts.iter().skip(1).map(|(offset, _)| *offset));
        self.push(&LogEntry::Quarantine(StoredQuarantine { segment: number, generation, offset, client, later }));
        Some(at)
    }

    /// A Quarantine is on the disk: what it leaves out is not sent from here on.
    pub fn skip(&mut self, entry: &StoredQuarantine) {
        let floor = self.floor;
        let skips = self.skips.entry(entry.segment).or_default();
        skips.extend(entry.skipped());
        *skips = skips.split_off(&floor);
    }

    /// Whether something is left out of a segment's generation, so that what somebody kept of it earlier may still have that. What was
    /// left out of earlier generations counts as well after a start: that makes a copy useless that need not be.
    pub fn leaves_out(&self, number: SegmentNumber) -> bool {
        let begun = self.begun(number);
        let segment = usize::try_from(number.0).ok().and_then(|at| self.segments.get(at));
        segment.is_some_and(|segment| segment.clocks.skipped().any(|at| at >= begun))
    }

    /// Whether an entry's part of a segment is left out.
    pub fn skips(&self, number: SegmentNumber, offset: Offset) -> bool {
        self.skips.get(&number).is_some_and(|skips| skips.contains(&offset))
    }
}
