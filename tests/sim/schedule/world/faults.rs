//! What goes wrong, when a step says so. A fault that has nothing to strike does nothing, and is not counted.

use coheap_core::replica::Replica;

use super::super::coverage::{Fault, Phases};
use super::super::disk::Written;
use super::super::history::Event;
use super::super::process::{Process, cut};
use super::{Failure, OnDisk, World, fails, links::cut_both, options};

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
            Fault::RolledBack => self.backup.is_some(),
            Fault::Wiped => true,
            Fault::Restart => self.processes[at].stored.is_some(),
            Fault::Clone => self.beside(at).next().is_some(),
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
                self.ends(at, pick);
                self.processes[at] = self.open(heap);
                self.load(at, 0)?;
            }
            Fault::Pause => self.processes[at].paused_until = self.at + 1 + usize::from(pick) % PAUSE_MAX,
            Fault::Move => self.go_on(at)?,
            Fault::RolledBack => {
                let Some(found) = self.backup.clone() else { return Ok(()) };
                self.relay_dies(None, pick);
                self.platter.roll_back();
                self.loses(found);
            }
            Fault::Wiped => {
                self.relay_dies(None, pick);
                self.platter.wipe();
                self.loses(vec![OnDisk::default(); self.heaps.len()]);
            }
            Fault::Restart => self.restart(at, pick)?,
            Fault::Clone => {
                let count = self.beside(at).count().max(1);
                let Some(to) = self.beside(at).nth(usize::from(pick) % count) else { return Ok(()) };
                self.copy(at, to, pick)?;
            }
        }
        Ok(())
    }

    /// The places whose processes have the same heap open.
    fn beside(&self, at: usize) -> impl Iterator<Item = usize> {
        let heap = self.heap_of(at);
        (0..self.processes.len()).filter(move |other| *other != at && self.heap_of(*other) == heap)
    }

    /// A process is gone. What it had sent still arrives.
    fn ends(&mut self, at: usize, pick: u16) {
        let heap = self.heap_of(at);
        if let Some(mut link) = self.processes[at].link.take() {
            cut(&mut link.up, pick);
            link.down.clear();
            self.late.push((heap, link));
        }
        let number = self.processes[at].number;
        self.heaps[heap].history.push(Event::Ended { process: number });
        self.heaps[heap].waits.retain(|(process, _), _| *process != number);
    }

    /// Another process begins in the place of one, over what that had stored.
    fn restart(&mut self, at: usize, pick: u16) -> Result<(), Failure> {
        let Some(stored) = self.processes[at].stored.take() else { return Ok(()) };
        self.ends(at, pick);
        let options = options(&mut self.draws);
        let of = &mut self.heaps[self.plan.heaps_of[at]];
        of.processes += 1;
        let by_uid = |uid| of.oracle.by_uid(uid);
        let process =
            Process::reopen(options, of.processes - 1, &of.removals, &stored, by_uid, &of.segments, &mut of.history)?;
        self.processes[at] = process;
        self.after(at)?;
        self.load(at, 0)
    }

    /// A process is copied, as when the snapshot of a machine is started beside it: all that it remembers, the state of its
    /// randomness too. The copy goes on in the place of another process, which ends; neither has a connection.
    fn copy(&mut self, at: usize, to: usize, pick: u16) -> Result<(), Failure> {
        let heap = self.heap_of(at);
        if let Some(link) = self.hang_up(at)? {
            self.closed(heap, &link)?;
        }
        self.ends(to, pick);
        let number = self.heaps[heap].processes;
        self.heaps[heap].processes += 1;
        let from = self.processes[at].number;
        // Both are made of the same bytes and the same seed: no two processes could be more alike.
        let (packed, options) = (self.processes[at].replica.export(), options(&mut self.draws));
        let unpack = || {
            let replica = Replica::import(options.clone(), &packed);
            replica.or_else(|error| fails("P4", format!("a packed replica does not read back: {error:?}")))
        };
        let of = &mut self.heaps[heap];
        of.history.push(Event::Copied { from, process: number });
        let waits: Vec<_> = of.waits.iter().filter(|((process, _), _)| *process == from).collect();
        let waits: Vec<_> = waits.into_iter().map(|((_, ticket), wait)| ((number, *ticket), wait.clone())).collect();
        of.waits.extend(waits);
        of.copies = true;
        self.processes[to] = self.processes[at].copy(number, unpack()?);
        self.moves_into(at, unpack()?)?;
        self.moves_into(to, unpack()?)
    }

    /// The disk is another one.
    fn loses(&mut self, found: Vec<OnDisk>) {
        self.losses += 1;
        for (heap, found) in self.heaps.iter_mut().zip(found) {
            heap.oracle.lose(found.log, heap.synced, found.synced);
            (heap.synced, heap.epochs_synced) = (found.synced, found.epochs_synced);
            heap.given.clear();
            heap.history.push(Event::Lost { commits: heap.oracle.lost });
        }
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
        self.moves_into(at, replica)
    }

    fn moves_into(&mut self, at: usize, replica: Replica) -> Result<(), Failure> {
        let before = self.processes[at].views.clone();
        let of = &mut self.heaps[self.plan.heaps_of[at]];
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
