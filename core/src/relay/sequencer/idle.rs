//! Lines that nobody goes on with are dropped (CORE-PROTOCOL §2), and the log says how far its memory of lines may have a gap: all
//! entries of dropped lines are below `forgotten`. Both go to the disk together. When lines are idle is `relay/retention.rs`'s to say.

use super::{Sequencer, Written};
use crate::admit::AdmitRow;
use crate::id::ReplicaId;

impl Sequencer {
    /// Drops the lines that `is_idle` names, of those whose entries are all on the disk. True: there were some.
    ///
    /// From here on everybody is told `forgotten` with them in it, which the disk may not have yet. If it never has, they are back,
    /// and who was told has been too careful.
    pub fn drop_lines(&mut self, is_idle: impl Fn(ReplicaId, &AdmitRow) -> bool) -> bool {
        let durable = self.durable;
        let dropped = self.admit.drop_idle(|owner, line| line.at() < durable && is_idle(owner, line));
        for (owner, at) in &dropped {
            self.forgotten = self.forgotten.max(at.next());
            self.touched_lines.remove(owner);
            self.dropped.insert(*owner);
        }
        if !dropped.is_empty() {
            self.drop_written = Written::No;
        }
        !dropped.is_empty()
    }

    /// Whether all that was dropped is gone from the disk, too.
    pub fn is_drop_written(&self) -> bool {
        self.drop_written == Written::Yes
    }
}
