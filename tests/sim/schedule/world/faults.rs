//! What goes wrong, when a step says so. A fault that has nothing to strike does nothing, and is not counted.

use coheap_core::replica::Replica;

use super::super::coverage::{Fault, Phases};
use super::super::disk::Written;
use super::super::history::Event;
use super::super::process::cut;
use super::{Failure, World, cut_both, fails, options};

/// Steps that a pause lasts at most.
const PAUSE_MAX: usize = 40;
/// Operations of the disk in a transaction, about.
const OPERATIONS: u64 = 30;

impl World {
    /// Whether a fault has something to strike.
    pub fn can_strike(&self, fault: Fault, at: usize) -> bool {
        let linked = self.processes[at].link.as_ref().is_some_and(|link| !link.silent);
        match fault {
            Fault::Cut | Fault::Late | Fault::Silent => linked,
            Fault::RelayCrash => self.is_up,
            Fault::RelayTorn | Fault::SyncFails | Fault::Full => self.is_up && self.platter.queued() > 0,
            Fault::ReplicaCrash | Fault::Move => true,
            Fault::Pause => !self.is_paused(at),
            Fault::RolledBack | Fault::Wiped | Fault::Restart | Fault::Clone => false,
        }
    }

    /// Whom a fault strikes: one process, or the relay with all of them.
    pub fn struck(&self, fault: Fault, at: usize) -> Phases {
        match fault {
            Fault::RelayCrash
            | Fault::RelayTorn
            | Fault::SyncFails
            | Fault::Full
            | Fault::RolledBack
            | Fault::Wiped => self.relay_phases(),
            _ => self.phases(at),
        }
    }

    pub(super) fn strike(&mut self, fault: Fault, at: usize, pick: u16) -> Result<(), Failure> {
        if !self.can_strike(fault, at) {
            return Ok(());
        }
        self.faults += 1;
        let phases = self.struck(fault, at);
        self.tally.coverage.strike(fault, phases);
        let heap = self.heap_of(at);
        match fault {
            Fault::Cut => {
                let Some(link) = &mut self.processes[at].link else { return Ok(()) };
                cut_both(link, pick);
                // What arrives arrives before the end does.
                let (ups, downs) = (link.up.len().min(200) as u8, link.down.len().min(200) as u8);
                self.up(at, ups)?;
                self.down(at, downs)?;
                if let Some(link) = self.hang_up(at)? {
                    self.closed(heap, &link)?;
                }
            }
            Fault::Late => {
                if let Some(mut link) = self.hang_up(at)? {
                    cut(&mut link.up, pick);
                    link.down.clear();
                    self.late.push((heap, link));
                }
            }
            Fault::Silent => {
                if let Some(link) = &mut self.processes[at].link {
                    link.silent = true;
                }
            }
            Fault::RelayCrash => self.relay_dies(None, pick),
            Fault::RelayTorn => self.relay_dies(Some(1 + u64::from(pick) % OPERATIONS), pick),
            Fault::SyncFails => match self.platter.write_with_failing_sync(1 + u64::from(pick % 2))? {
                Written::Yes(done) => self.durable(&done)?,
                Written::Failed(appends) => self.not_durable(&appends, false)?,
                Written::Full(_) => return fails("P5", "a disk with room is full"),
            },
            Fault::Full => match self.platter.write_on_full(pick.is_multiple_of(2))? {
                Written::Yes(done) => self.durable(&done)?,
                Written::Full(appends) => self.not_durable(&appends, true)?,
                Written::Failed(_) => return fails("P5", "a full disk fails in another way"),
            },
            Fault::ReplicaCrash => {
                if let Some(mut link) = self.processes[at].link.take() {
                    cut(&mut link.up, pick);
                    link.down.clear();
                    self.late.push((heap, link));
                }
                self.heaps[heap].history.push(Event::Ended { process: self.processes[at].number });
                let number = self.processes[at].number;
                self.heaps[heap].waits.retain(|_, (process, _)| *process != number);
                self.processes[at] = self.open(heap);
                self.load(at, 0)?;
            }
            Fault::Pause => self.processes[at].paused_until = self.at + 1 + usize::from(pick) % PAUSE_MAX,
            Fault::Move => self.go_on(at)?,
            Fault::RolledBack | Fault::Wiped | Fault::Restart | Fault::Clone => {}
        }
        Ok(())
    }

    /// A replica goes on in another instance; its program notices nothing.
    fn go_on(&mut self, at: usize) -> Result<(), Failure> {
        let heap = self.heap_of(at);
        if let Some(link) = self.hang_up(at)? {
            self.closed(heap, &link)?;
        }
        let packed = self.processes[at].replica.export();
        let replica = Replica::import(options(&mut self.draws), &packed);
        let replica =
            replica.or_else(|error| fails("P4", format!("a packed replica does not read back: {error:?}")))?;
        let before = self.processes[at].views.clone();
        let of = &mut self.heaps[heap];
        self.processes[at].go_on_in(replica, &of.segments, &mut of.history);
        let marks = |views: &std::collections::BTreeMap<_, super::super::process::View>| -> Vec<_> {
            views.iter().map(|(index, view)| (*index, view.marks, view.sum(), view.register)).collect()
        };
        if marks(&before) != marks(&self.processes[at].views) {
            return fails("P4", format!("what process {} sees changes by its move", self.processes[at].number));
        }
        self.after(at)
    }
}
