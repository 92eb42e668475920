//! Which fault struck whom in which phase, counted when it strikes.

use std::fmt;
use std::ops::AddAssign;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            /// In a table.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
    };
}

names! {
    /// What goes wrong.
    Fault {
        /// A connection breaks, for both ends, at some byte of what is under way in each direction.
        Cut = "link cut",
        /// A connection breaks for its replica alone; what it had sent still arrives, perhaps behind its next Hello.
        Late = "late frames",
        /// A connection goes silent: nothing arrives any more, and neither end knows.
        Silent = "half-open link",
        /// The relay process dies; what was not synced is lost.
        RelayCrash = "relay crash",
        /// The same, and a part of what was not synced had reached the disk.
        RelayTorn = "relay crash, torn write",
        /// A sync fails: nobody knows what of it is on the disk.
        SyncFails = "sync fails",
        /// The disk is full: what was to be written is not.
        Full = "disk full",
        /// The disk is an old copy of itself when the relay starts again.
        RolledBack = "old disk",
        /// The disk is empty when the relay starts again.
        Wiped = "wiped disk",
        /// A process dies with its memory; another one opens the heap in its place.
        ReplicaCrash = "replica crash",
        /// A process dies, and another one goes on with what it had stored, which may be old.
        Restart = "replica restart",
        /// A process does nothing for a while.
        Pause = "replica pause",
        /// A process's memory is copied, and both go on.
        Clone = "replica clone",
        /// A replica goes on in another instance, as after a trap.
        Move = "instance move",
    }
}

names! {
    /// What the struck party is at.
    Phase {
        /// No connection, or its Hello has not arrived.
        Connecting = "connecting",
        /// Entries that it missed are on their way.
        Resuming = "resuming",
        /// Whole states in the place of entries that the log has no longer are on their way.
        CatchingUp = "catching up",
        /// It waits for a segment.
        Loading = "loading",
        /// A segment of its heap is being folded.
        Folding = "folding",
        /// Its relay is not ready: its new epoch is not on the disk yet, or it reads its log again.
        Recovering = "recovering",
        /// Nothing of that.
        Idle = "idle",
    }
}

/// Phases at one moment; several can hold.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Phases(u8);

impl Phases {
    /// Adds one.
    pub fn insert(&mut self, phase: Phase) {
        self.0 |= 1 << phase as u8;
    }

    /// Whether it holds.
    pub fn contains(self, phase: Phase) -> bool {
        self.0 & (1 << phase as u8) != 0
    }

    /// All of another, too.
    pub fn extend(&mut self, other: Phases) {
        self.0 |= other.0;
    }

    /// If none of the others holds, it is idle.
    #[must_use]
    pub fn or_idle(mut self) -> Phases {
        if self.0 == 0 {
            self.insert(Phase::Idle);
        }
        self
    }
}

/// So often each cell is to be struck, in so many schedules.
const CELL_MIN: (u64, u64) = (1_000, 200_000);
/// Schedules below which chance alone decides a cell.
const SCHEDULES_MIN: u64 = 10_000;

/// The table.
#[derive(Clone, Default)]
pub struct Coverage([[u64; 7]; 14]);

impl Coverage {
    /// A fault strikes somebody in these phases.
    pub fn strike(&mut self, fault: Fault, phases: Phases) {
        for phase in Phase::ALL {
            if phases.contains(*phase) {
                self.0[fault as usize][*phase as usize] += 1;
            }
        }
    }

    /// Cells that too few of so many schedules have struck, with how many did and should. Of a few schedules nothing is asked.
    pub fn thin(&self, schedules: u64) -> Vec<(Fault, Phase, u64, u64)> {
        if schedules < SCHEDULES_MIN {
            return Vec::new();
        }
        let least = schedules * CELL_MIN.0 / CELL_MIN.1;
        let cells = Fault::ALL.iter().flat_map(|fault| Phase::ALL.iter().map(|phase| (*fault, *phase)));
        let cells = cells.filter(|(fault, phase)| impossible(*fault, *phase).is_none());
        let counted = cells.map(|(fault, phase)| (fault, phase, self.count(fault, phase), least));
        counted.filter(|(_, _, count, least)| count < least).collect()
    }

    /// How often it did.
    pub fn count(&self, fault: Fault, phase: Phase) -> u64 {
        self.0[fault as usize][phase as usize]
    }
}

impl AddAssign<&Coverage> for Coverage {
    fn add_assign(&mut self, other: &Coverage) {
        for (row, more) in self.0.iter_mut().zip(other.0) {
            for (cell, more) in row.iter_mut().zip(more) {
                *cell += more;
            }
        }
    }
}

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0).finish()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24}", "fault \\ phase")?;
        for phase in Phase::ALL {
            write!(f, "{:>13}", phase.name())?;
        }
        for fault in Fault::ALL {
            write!(f, "\n{:<24}", fault.name())?;
            for phase in Phase::ALL {
                match impossible(*fault, *phase) {
                    Some(_) => write!(f, "{:>13}", "-")?,
                    None => write!(f, "{:>13}", self.count(*fault, *phase))?,
                }
            }
        }
        Ok(())
    }
}

/// Why a fault cannot strike in a phase, if it cannot. There is no such cell: a process without a connection, which is
/// connecting, can be copied or begin anew over its store all the same, and what strikes the relay strikes it in every phase of
/// its processes. A relay that does not run has nothing to recover; its disk can be lost then, while it connects nobody.
pub fn impossible(_: Fault, _: Phase) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_is_struck_too_rarely_is_named() {
        let mut coverage = Coverage::default();
        let all = Fault::ALL.len() * Phase::ALL.len();
        assert_eq!(coverage.thin(SCHEDULES_MIN).len(), all);
        assert_eq!(coverage.thin(SCHEDULES_MIN - 1), []);
        let mut phases = Phases::default();
        phases.insert(Phase::Loading);
        for _ in 0..50 {
            coverage.strike(Fault::Clone, phases);
        }
        assert_eq!(coverage.thin(SCHEDULES_MIN).len(), all - 1);
        assert!(coverage.thin(2 * SCHEDULES_MIN).contains(&(Fault::Clone, Phase::Loading, 50, 100)));
    }
}
