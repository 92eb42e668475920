//! Every timer of a relay machine, by the reason it exists.

use std::collections::{BTreeMap, BTreeSet};

use super::port::ConnId;
use crate::time::Time;

/// Why the machine wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// A connection has not said its whole Hello.
    Hello(ConnId),
    /// A connection does not read.
    Slow(ConnId),
    /// Nobody is connected.
    Idle,
    /// The disk was full.
    Retry,
    /// A segment was reported while the worker rests.
    Report,
    /// Lines may have been idle for as long as they are kept.
    Lines,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Time>,
    queue: BTreeSet<(Time, Timer)>,
}

impl Timers {
    pub fn set(&mut self, timer: Timer, at: Time) {
        self.clear(timer);
        self.at.insert(timer, at);
        self.queue.insert((at, timer));
    }

    pub fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    /// The next timer that is due; it is cleared.
    pub fn due(&mut self, now: Time) -> Option<Timer> {
        let (at, timer) = self.queue.first().copied()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    pub fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }
}
