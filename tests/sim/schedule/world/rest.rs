//! The world comes to rest: everything that can go on goes on, and then everybody must have everything, once.

use coheap_core::heap::Index;
use coheap_core::id::Offset;
use coheap_core::relay::Relay;
use coheap_core::replica::{Input, LoadStatus, Output};

use super::super::checker;
use super::super::history::Event;
use super::super::process::{Process, View};
use super::{Failure, Tally, World, fails};

/// Rounds in which a world comes to rest, or is wedged.
const ROUNDS_MAX: usize = 400;
/// Stages of folds in one round.
const FOLDS_MAX: usize = 200;
/// Timers further off than this are nobody's to wait for.
const FAR_MS: u64 = 600_000;

impl World {
    /// The schedule is over: what it came to, if all is well.
    pub fn end(mut self) -> Result<Tally, Failure> {
        self.rest()?;
        Ok(self.tally())
    }

    /// What came of the schedule.
    pub fn tally(self) -> Tally {
        Tally { schedules: 1 - self.tally.parted, faults: self.faults, ..self.tally }
    }

    /// All that can go on goes on, and then all must be whole.
    pub fn rest(&mut self) -> Result<(), Failure> {
        if self.tally.parted > 0 {
            return Ok(());
        }
        self.start()?;
        let everybody: Vec<usize> = (0..self.processes.len()).collect();
        for at in &everybody {
            self.processes[*at].paused_until = 0;
            self.notice(*at)?;
            // Who may not write could not be answered.
            if self.plan.rights
                && let Some(link) = self.hang_up(*at)?
            {
                let heap = self.heap_of(*at);
                self.closed(heap, &link)?;
            }
        }
        self.settle(&everybody)?;
        if self.tally.parted > 0 {
            return Ok(());
        }
        for at in &everybody {
            for segment in 0..self.heaps[self.heap_of(*at)].segments.len() {
                if self.processes[*at].shown(segment).is_none() {
                    self.load_from(*at, segment, at + segment)?;
                }
            }
        }
        self.settle(&everybody)?;
        if self.tally.parted > 0 {
            return Ok(());
        }
        for at in &everybody {
            self.rests(*at)?;
        }
        for heap in 0..self.heaps.len() {
            self.heap_rests(heap)?;
        }
        Ok(())
    }

    /// Everything that is under way for these processes arrives; time stands still.
    pub(super) fn flow(&mut self, who: &[usize]) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            if !self.round(who)? {
                return Ok(());
            }
        }
        fails("P8", "the world does not come to rest")
    }

    /// Everybody connects, and all goes on until nothing is left to do, time included.
    fn settle(&mut self, who: &[usize]) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            for at in who {
                if self.processes[*at].rests_until <= self.now {
                    self.connect(*at, true)?;
                }
            }
            let rests = who.iter().filter(|at| self.processes[**at].link.is_none());
            let rests = rests.map(|at| self.processes[*at].rests_until).min();
            if !self.round(who)? && !self.pass_to_the_next_deadline()? {
                match rests {
                    Some(until) => self.now = self.now.max(until),
                    None => return Ok(()),
                }
            }
        }
        let left = self.processes.iter().map(|process| (process.open.len(), &process.loading));
        fails("P8", format!("the world does not come to rest: {:?}", left.collect::<Vec<_>>()))
    }

    /// What is under way arrives. False: nothing was.
    fn round(&mut self, who: &[usize]) -> Result<bool, Failure> {
        self.now += 1;
        let mut moved = false;
        while let Some(next) = self.late.iter().position(|(_, link)| !link.awaits_an_answer()) {
            self.late_up(next as u16)?;
            moved = true;
        }
        for at in who {
            if self.processes[*at].link.as_ref().is_some_and(|link| link.relay_open && !link.up.is_empty()) {
                self.up(*at, u8::MAX)?;
                moved = true;
            }
            if self.processes[*at].link.as_ref().is_some_and(|link| !link.relay_open || !link.down.is_empty()) {
                self.down(*at, u8::MAX)?;
                moved = true;
            }
        }
        if self.platter.queued() > 0 {
            self.sync(usize::MAX)?;
            moved = true;
        }
        while self.heaps.iter().any(|heap| !heap.reads.is_empty()) {
            self.answer(0)?;
            moved = true;
        }
        let mut folds = 0;
        while self.heaps.iter().any(|heap| !heap.folds.is_empty()) {
            self.fold(0)?;
            moved = true;
            folds += 1;
            if folds > FOLDS_MAX {
                return fails("P7", "folds without end");
            }
        }
        Ok(moved)
    }

    fn pass_to_the_next_deadline(&mut self) -> Result<bool, Failure> {
        let replicas = self.processes.iter().filter_map(|process| process.replica.deadline());
        // What is left to a machine that serves somebody is to say that nothing is left.
        let waits =
            |process: &Process| !process.open.is_empty() || !process.loading.is_empty() || !process.frozen.is_empty();
        let is_waited_for = self.processes.iter().any(waits);
        let relays = self.heaps.iter().filter_map(|heap| heap.relay.as_ref().and_then(Relay::deadline));
        let relays = relays.map(|time| time.0).filter(|_| is_waited_for);
        match replicas.chain(relays).min().filter(|at| *at < self.now + FAR_MS) {
            Some(at) => {
                self.pass(at.saturating_sub(self.now))?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// A process at the end: nothing is open, and it sees all, by its patches and by its documents.
    fn rests(&mut self, at: usize) -> Result<(), Failure> {
        self.judge(at)?;
        let heap = self.heap_of(at);
        let head = self.heaps[heap].oracle.head();
        let process = &mut self.processes[at];
        let who = format!("process {} in place {at}", process.number);
        if !process.open.is_empty() || process.replica.unsaved() != 0 {
            return fails("P5", format!("{who}: {:?} were never answered", process.open));
        }
        if process.replica.cut() != head {
            return fails("P1", format!("{who} rests at {:?}, the log ends at {head:?}", process.replica.cut()));
        }
        if !process.loading.is_empty() || !process.undone.is_empty() {
            return fails("P8", format!("{who} still waits for {:?} and {:?}", process.loading, process.undone));
        }
        if !process.frozen.is_empty() {
            return fails("P8", format!("segments {:?} of {who} stand still for ever", process.frozen));
        }
        // A document takes as long to decode as many steps: every second one is looked into.
        let even = |index: &Index| (self.plan.seed as usize + at + index.0 as usize).is_multiple_of(2);
        for index in process.views.keys().copied().filter(even).collect::<Vec<Index>>() {
            process.replica.handle(self.now, Input::Dump(index));
            while let Some(output) = process.replica.poll() {
                // It was packed, and what it holds comes next.
                if matches!(output, Output::Awake(_)) {
                    continue;
                }
                let Output::Loaded { status: LoadStatus::There, patches, .. } = output else {
                    return fails("P1", format!("{who} does not show its segment {index:?}: {output:?}"));
                };
                let (mut held, seen) = (View::of(&patches), &process.views[&index]);
                self.heaps[heap].removals.settle(process.segments[&index], &mut held);
                if (held.marks, held.spares(), held.sum(), held.register)
                    != (seen.marks, seen.spares(), seen.sum(), seen.register)
                {
                    return fails("P1", format!("{who} sees {seen:?} in segment {index:?}, and holds {held:?}"));
                }
            }
        }
        let born = self.heaps[heap].oracle.segments().to_vec();
        let absent = born.iter().find(|segment| self.processes[at].shown(**segment).is_none());
        if let Some(segment) = absent {
            return fails("P5", format!("{who} does not get segment {segment}"));
        }
        Ok(())
    }

    /// A heap at the end: everybody agrees, the disk has the log, and the history tells of nothing that may not be.
    fn heap_rests(&mut self, heap: usize) -> Result<(), Failure> {
        let mut registers = std::collections::BTreeMap::new();
        for (at, process) in self.processes.iter().enumerate().filter(|(at, _)| self.plan.heaps_of[*at] == heap) {
            for (index, view) in &process.views {
                let segment = process.segments[index];
                let first = registers.entry(segment).or_insert(view.register);
                if *first != view.register {
                    let what = format!("segment {segment} holds {first:?} and, in place {at}, {:?}", view.register);
                    return fails("P1", what);
                }
            }
        }
        let of = &mut self.heaps[heap];
        if !of.waits.is_empty() {
            return fails("P4", format!("waits have not ended: {:?}", of.waits));
        }
        if of.synced != of.oracle.head() {
            return fails("P5", format!("the log ends at {:?}, and {:?} is durable", of.oracle.head(), of.synced));
        }
        let recovered = self.platter.recover(heap)?;
        self.found_on_disk(heap, &recovered)?;
        let of = &mut self.heaps[heap];
        let (oracle, grants) = (&of.oracle, &of.grants);
        self.tally.ended += grants.rest(|commit| oracle.place(commit).is_some() && !oracle.is_void(commit))?;
        let all = |segment| of.oracle.log().content(segment, Offset(u64::MAX)).marks;
        let log = (0..of.segments.len()).map(all).collect();
        of.history.push(Event::Rest { log });
        checker::check(&of.history).or_else(|complaint| {
            fails(
                complaint.promise,
                format!("the history of heap {heap}: {} (event {})", complaint.what, complaint.event),
            )
        })
    }
}
