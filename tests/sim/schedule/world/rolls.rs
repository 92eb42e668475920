//! New generations of segments in a schedule: a relay is asked for one, its workers make it, and it may not be where D6 says so.

use coheap_core::id::SegmentNumber;
use coheap_core::relay::{Input as RelayInput, NotRolled, Output as RelayOutput, Roll, StoredState};
use coheap_core::segment::roll::{Unrollable, check_roll, roll_unchecked};
use coheap_core::time::Time;

use super::relay::WORKER_DIES;
use super::{Failure, World, fails};

/// How long after it started over an honest disk a relay makes no generation here: a few commits.
const HOLD_MS: u64 = 1_500;

impl World {
    /// When the relay process that starts now makes its first generation. Where a disk was lost, never: what holders have not
    /// given back is in none of its lines, and it cannot know (§14.4).
    pub(super) fn rolls_from(&self) -> Time {
        match self.losses {
            0 => Time(self.now + HOLD_MS),
            _ => Time(u64::MAX),
        }
    }

    /// A relay is asked for a new generation of one of the segments that its log knows.
    pub(super) fn roll(&mut self, pick: usize) -> Result<(), Failure> {
        let heap = pick % self.heaps.len();
        let of = &self.heaps[heap];
        let known = of.oracle.segments();
        if !self.is_up || of.relay.is_none() || known.is_empty() {
            return Ok(());
        }
        let segment = of.segments[known[pick / 2 % known.len()]];
        self.relay(heap, RelayInput::Roll { segment })
    }

    /// A relay wants a generation made.
    pub(super) fn wants_roll(&mut self, heap: usize, wish: RelayOutput) -> Result<(), Failure> {
        self.note(|| format!("heap {heap} asks for {wish:?}"));
        if Time(self.now) < self.rolls_from {
            return fails("D6", "a generation is made right after a start");
        }
        if self.heaps[heap].oracle.was_restored() {
            return fails("D6", "a generation is made of a log that was given back");
        }
        self.heaps[heap].reads.push_back(wish);
        Ok(())
    }

    /// What came of it.
    pub(super) fn rolled<T>(&mut self, heap: usize, outcome: &Result<T, NotRolled>) {
        self.note(|| format!("heap {heap}: a generation: {:?}", outcome.as_ref().map(|_| ())));
        match outcome {
            Ok(_) => self.tally.rolls += 1,
            Err(NotRolled::Held) => self.tally.rolls_held += 1,
            Err(_) => {}
        }
    }

    /// What two workers make of it. Now and then one dies.
    pub(super) fn make_roll(&self, heap: usize, wish: &RelayOutput, pick: usize) -> Result<RelayInput, Failure> {
        let RelayOutput::MakeRoll { ticket, segment, id, engine, position, generation } = wish else {
            return fails("G1", "what is no roll is made");
        };
        let segments: &[SegmentNumber] = &[*segment];
        let state = self.platter.states(heap, *position, segments, 1).and_then(|mut states| states.pop());
        let roll = match state {
            Some(StoredState::At { snapshot, deltas, .. }) if pick % WORKER_DIES != 1 => {
                match roll_unchecked(*engine, *id, &snapshot, &deltas, *generation) {
                    Ok(Ok(made)) => match check_roll(*engine, *id, &snapshot, &deltas, *generation, &made) {
                        Ok(clocks) => Roll::Made { snapshot: made, clocks },
                        Err(error) => return fails("G1", format!("a generation is not proved: {error}")),
                    },
                    Ok(Err(Unrollable::Sequences)) => Roll::Declined(NotRolled::Sequences),
                    Ok(Err(Unrollable::History)) => Roll::Declined(NotRolled::History),
                    Err(_) if self.heaps[heap].oracle.is_poisoned(*segment) => Roll::Failed,
                    Err(error) => return fails("G1", format!("a generation is not made: {error}")),
                }
            }
            // Folded beyond that meanwhile, or the worker died: it may be asked again.
            _ => Roll::Failed,
        };
        Ok(RelayInput::RollMade { ticket: *ticket, roll })
    }
}
