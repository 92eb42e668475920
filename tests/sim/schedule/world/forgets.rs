//! Lines that nobody goes by are dropped (CORE-PROTOCOL §2), and what that leaves in doubt (G5).

use coheap_core::time::Millis;

use super::{Failure, World, fails};

/// How long the relay keeps the line of an id that nobody goes by.
pub(super) const RETENTION: Millis = Millis(24 * 3_600_000);

impl World {
    /// So long a time passes that lines are dropped; a machine looks for them once a day.
    pub(super) fn age(&mut self) -> Result<(), Failure> {
        for heap in &mut self.heaps {
            heap.oracle.idle_below = heap.oracle.head();
        }
        self.pass(2 * RETENTION.0)
    }

    /// Whether a process waits for answers, and has no connection.
    pub fn has_somebody_away(&self) -> bool {
        self.processes.iter().any(|process| process.link.is_none() && !process.open.is_empty())
    }

    /// What a process was told is in doubt must be so: it went out, and lines were dropped whose entries reach further than where the
    /// first of what is in doubt was made; what went out behind that shares its line, and its fate. What may have been there can also be still there: who asks cannot know that.
    pub(super) fn look_into_doubts(&mut self, at: usize) -> Result<(), Failure> {
        let doubted = std::mem::take(&mut self.processes[at].doubted);
        let heap = self.heap_of(at);
        let first = doubted.iter().map(|commit| self.heaps[heap].cuts[*commit]).min();
        for commit in doubted {
            let (process, of) = (&self.processes[at], &mut self.heaps[heap]);
            let forgotten = process.link.as_ref().map_or_else(Default::default, |link| link.forgotten);
            if !process.offered.contains(commit) {
                return fails("G5", format!("commit {commit} of process {at} is in doubt, and was never sent"));
            }
            if first.is_none_or(|made_at| made_at >= forgotten) {
                let what = format!("commit {commit} of process {at} is in doubt, and none was made before {first:?}");
                return fails("G5", format!("{what}; lines were dropped below {forgotten:?}"));
            }
            of.oracle.give_up(commit);
            self.tally.doubted += 1;
        }
        Ok(())
    }
}
