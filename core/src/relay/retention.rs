//! How long the line of an id that nobody goes by any more is kept (CORE-PROTOCOL §2, §14.5): every process takes a fresh id, so
//! without an end to it there would be a row for every process that ever wrote.
//!
//! ```text
//!   last entry of the line ──── retention ────┐ nobody is connected under the id
//!                                             ▼
//!        row dropped, `forgotten` raised above its entries ──► one transaction
//!                                             │
//!                                             └─► every Ok from here on ─► `replica/fork.rs`: what was offered below
//!                                                 `forgotten`, in a line that the log lacks, is in doubt (G5)
//! ```
//!
//! Time decides only when a row goes. What that means is decided by positions: were a clock wrong, and rows gone too soon, some
//! process would be told of a doubt, and nothing would count twice. A clock that goes back drops nothing.
//!
//! While somebody is connected, not right after a start: who is connected, and has not written for long, comes back first, and keeps
//! its line.

use super::timers::Timer;
use super::{Relay, Standing};
use crate::limits;
use crate::time::Millis;

/// From when on a machine drops lines: whoever was connected to the one before it is connected again.
const FIRST_AFTER: Millis = Millis(3_600_000);
/// So often at most.
const EVERY: Millis = Millis(24 * 3_600_000);
/// Where there are more than are dropped at once.
const NEXT: Millis = Millis(60_000);

impl Relay {
    /// Lines may be idle by and by.
    pub(super) fn watch_lines(&mut self) {
        if self.config.retention.is_some() {
            self.timers.set(Timer::Lines, self.now + FIRST_AFTER);
        }
    }

    /// It is time to look for idle lines, and will be again.
    pub(super) fn lines_are_due(&mut self) {
        self.drop_idle_lines();
        let next = if self.lines_dropped.is_some() { EVERY } else { NEXT };
        self.timers.set(Timer::Lines, self.now + next);
    }

    /// Drops lines that are idle, unless that was done not long ago. True: there were some. Also before a heap is unloaded, however
    /// short it was open: one that is open for minutes at a time would keep the line of every process that ever wrote to it. Who lost
    /// its connection a moment ago, and has not written for so long, may find its line gone, and goes on under another id.
    pub(super) fn drop_idle_lines(&mut self) -> bool {
        let Some(retention) = self.config.retention else { return false };
        let soon = self.lines_dropped.is_some_and(|at| self.now < at + EVERY);
        if soon || self.standing != Standing::Running {
            return false;
        }
        let unix_ms = self.config.unix_ms.saturating_add(self.now.0);
        let ids = &self.ids;
        let dropped = self
            .log
            .drop_lines(|owner, line| line.seen_ms.saturating_add(retention.0) < unix_ms && !ids.contains_key(&owner));
        self.lines_dropped = Some(self.now).filter(|_| dropped < limits::LINES_DROPPED_MAX);
        dropped > 0
    }
}
