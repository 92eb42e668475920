//! Lines that nobody goes on with are dropped (CORE-PROTOCOL §2), and the log says how far its memory of lines may have a gap: all
//! entries of dropped lines are below `forgotten`. Both go to the disk together. When lines are idle is `relay/retention.rs`'s to say.

use super::{Sequencer, Written};
use crate::admit::AdmitRow;
use crate::id::ReplicaId;
use crate::limits;

impl Sequencer {
    /// Drops lines that `is_idle` names, of those whose entries are all on the disk, so many at most as are dropped at once. How many
    /// these were; none before the last ones are gone from the disk, too.
    ///
    /// From here on everybody is told `forgotten` with them in it, which the disk may not have yet. If it never has, they are back,
    /// and who was told has been too careful.
    pub fn drop_lines(&mut self, is_idle: impl Fn(ReplicaId, &AdmitRow) -> bool) -> usize {
        if !self.is_drop_written() {
            return 0;
        }
        let durable = self.durable;
        let is_idle = |owner, line: &AdmitRow| line.at() < durable && is_idle(owner, line);
        let dropped = self.admit.drop_idle(limits::LINES_DROPPED_MAX, is_idle);
        for (owner, at) in &dropped {
            self.forgotten = self.forgotten.max(at.next());
            self.touched_lines.remove(owner);
            self.dropped.insert(*owner);
        }
        if !dropped.is_empty() {
            self.drop_written = Written::No;
        }
        dropped.len()
    }

    /// D6: the time is over in which no generation is made since replicas hold commits that a lost log had and this one has no rows
    /// of. Whoever comes with one of these from here on has been away for as long as lines are kept (§14.5), and would find it in no
    /// `included`: so what was sent before they were given back counts as forgotten.
    pub fn end_roll_hold(&mut self) {
        if self.roll_hold_ms > 0 {
            self.forgotten = self.forgotten.max(self.restored_below);
            self.drop_written = Written::No;
            self.roll_hold_ms = 0;
            self.batch.roll_hold_ms = Some(0);
        }
    }

    /// Whether all that was dropped is gone from the disk, too.
    pub fn is_drop_written(&self) -> bool {
        self.drop_written == Written::Yes
    }
}
