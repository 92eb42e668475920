//! The world of a schedule: processes, one relay process with a machine per heap, and its disk. It performs steps, and after
//! each one holds what every touched program sees, and all that the relay said, against the oracle.
//!
//! Next: `world/programs.rs` (what programs do), `claims.rs`, `links.rs` (connections), `relay.rs` (the relay process and its disk), `judge.rs` (what
//! must be seen), `faults.rs`, `hostile.rs`, `forgets.rs`, `rolls.rs`, `rest.rs` (how it ends).

mod claims;
mod faults;
mod forgets;
mod hostile;
mod judge;
mod links;
mod programs;
mod relay;
mod rest;
mod rolls;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{Offset, ReplicaId, SegmentId};
use coheap_core::relay::{ConnId, Input as RelayInput, Output as RelayOutput, Relay};
use coheap_core::replica::{Input, Target};
use coheap_core::segment::write::Draw;
use coheap_core::time::Time;

use self::claims::Grants;
pub use self::claims::Labour;
use self::hostile::Stranger;
use self::programs::Waiting;
use super::coverage::{Coverage, Phase, Phases};
use super::disk::Platter;
use super::history::{Event, ProcessNo, SegmentNo, Touch};
use super::oracle::{Log, Oracle, Sight};
use super::plan::{Deed, Plan};
use super::process::{COUNTER, Link, Process};
use super::removals::{Removals, SPARES};
use super::{Failure, Tally, fails};
use crate::Draws;
use crate::node::options;

/// A fold that the relay asked for.
#[derive(Debug)]
pub struct Job {
    opening: u64,
    segment: coheap_core::id::SegmentNumber,
    engine: EngineKind,
    upto: Offset,
    keep: Offset,
    made: Option<Vec<u8>>,
}

/// A version that was given.
#[derive(Clone, Debug)]
pub struct Given {
    token: String,
    /// In this life of the log.
    life: usize,
    /// Where its giver was.
    cut: Offset,
}

/// What is known of a heap that is on a disk.
#[derive(Clone, Debug, Default)]
struct OnDisk {
    log: Log,
    synced: Offset,
    epochs_synced: usize,
}

/// One heap.
#[derive(Debug, Default)]
pub struct OneHeap {
    /// Its machine, while it is loaded.
    pub relay: Option<Relay>,
    opening: u64,
    /// What must be seen.
    pub oracle: Oracle,
    /// What was done and seen.
    pub history: Vec<Event>,
    /// Its segments, the root first, whether the log knows them or not.
    pub segments: Vec<SegmentId>,
    /// Up to here the log is durable.
    pub synced: Offset,
    epochs_synced: usize,
    /// Reads that the store has not answered.
    pub reads: VecDeque<RelayOutput>,
    /// Folds under way.
    pub folds: Vec<Job>,
    /// The machine began a life of the log that is not on the disk yet.
    beginning: bool,
    processes: ProcessNo,
    /// What replicas were shown of what they gave back last, as it reached the relay.
    given: BTreeMap<ReplicaId, Sight>,
    /// Processes were copied.
    copies: bool,
    /// Who holds what of the work, and what ends it.
    grants: Grants,
    /// Segments that keep their history.
    with_history: BTreeSet<SegmentNo>,
    /// Who came last and wrote what no engine takes in.
    stranger: Option<Stranger>,
    /// Which commits take what away.
    removals: Removals,
    /// Copies of segments, some of them old: on a disk that no process and no relay loses.
    kept: BTreeMap<SegmentNo, Vec<Bytes>>,
    /// Versions that were given.
    pub versions: Vec<Given>,
    waits: BTreeMap<(ProcessNo, u64), Waiting>,
    /// Where their authors were when they made commits.
    cuts: Vec<Offset>,
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// Its plan.
    pub plan: Plan,
    draws: Draws,
    now: u64,
    /// How many steps there have been.
    pub at: usize,
    /// The relay process runs.
    pub is_up: bool,
    life: u64,
    /// Before this time the relay process makes no generation (D6).
    rolls_from: Time,
    /// The disk.
    pub platter: Platter,
    /// How often the disk was lost.
    losses: usize,
    /// The disk has had no room: programs are told that.
    filled: bool,
    /// A copy of the disk: what is known of each heap on it.
    backup: Option<Vec<OnDisk>>,
    /// The heaps.
    pub heaps: Vec<OneHeap>,
    /// One process per place; a place whose process died has another one.
    pub processes: Vec<Process>,
    /// Connections that their replicas have given up, and the relay has not.
    pub late: Vec<(usize, Link)>,
    conns: u64,
    tickets: u64,
    /// Faults that struck.
    pub faults: u64,
    tally: Tally,
    notes: Option<Vec<String>>,
}

impl World {
    /// The world at the beginning: every heap has a root with a counter, made by the first process; the others are not
    /// connected, and want the root.
    pub fn new(plan: &Plan) -> Result<World, Failure> {
        let mut draws = Draws(plan.seed);
        let platter = Platter::new(draws.draw(), plan.heaps)?;
        let heap = || OneHeap { segments: vec![SegmentId::ROOT], ..OneHeap::default() };
        let mut world = World {
            plan: plan.clone(),
            draws,
            now: 1,
            at: 0,
            is_up: true,
            life: 0,
            rolls_from: Time(0),
            losses: 0,
            filled: false,
            backup: None,
            platter,
            heaps: (0..plan.heaps).map(|_| heap()).collect(),
            processes: Vec::new(),
            late: Vec::new(),
            conns: 0,
            tickets: 0,
            faults: 0,
            tally: Tally::default(),
            notes: None,
        };
        world.life = world.draws.draw();
        for heap in &plan.heaps_of {
            let process = world.open(*heap);
            world.processes.push(process);
        }
        for at in 0..plan.processes() {
            world.load(at, 0)?;
        }
        for heap in 0..plan.heaps {
            world.heaps[heap].oracle.rolls = plan.rolls;
            world.found(heap)?;
        }
        Ok(world)
    }

    /// The first process of a heap makes the root's counter.
    fn found(&mut self, heap: usize) -> Result<(), Failure> {
        let Some(at) = self.plan.heaps_of.iter().position(|of| *of == heap) else { return Ok(()) };
        self.connect(at, true)?;
        self.flow(&[at])?;
        let places = vec![Touch { makes_counter: true, ..Touch::default() }];
        let wish = Wish::Set { object: Handle(0), key: COUNTER.to_owned(), value: Literal::Counter(0.0) };
        let set = Wish::Set { object: Handle(0), key: SPARES.to_owned(), value: Literal::Set(Vec::new()) };
        let wishes = std::iter::once(wish).chain(self.plan.removes.then_some(set)).collect();
        self.commit(at, vec![(Target::Here(Index(0)), wishes)], places)?;
        self.flow(&[at])
    }

    /// A process opens a heap.
    fn open(&mut self, heap: usize) -> Process {
        let of = &mut self.heaps[heap];
        of.processes += 1;
        Process::new(options(&mut self.draws), of.processes - 1, of.removals.clone())
    }

    /// From here on notes are taken of what happens.
    pub fn note_on(&mut self) {
        self.notes = Some(Vec::new());
    }

    /// The notes since then.
    pub fn notes(&mut self) -> Vec<String> {
        self.notes.take().unwrap_or_default()
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.push(text());
        }
    }

    /// Which heap a process has open.
    pub fn heap_of(&self, at: usize) -> usize {
        self.plan.heaps_of[at]
    }

    /// Whether a process does nothing for now.
    pub fn is_paused(&self, at: usize) -> bool {
        self.processes[at].paused_until > self.at
    }

    /// The next thing happens.
    pub fn step(&mut self, step: Deed) -> Result<(), Failure> {
        self.at += 1;
        self.now += 1;
        if self.tally.parted > 0 {
            return Ok(());
        }
        self.tally.steps += 1;
        let place = |at: u8| usize::from(at) % self.plan.processes();
        match step {
            Deed::Edit { at, segments, pick, alloc, large } => self.edit(place(at), segments, pick, alloc, large),
            Deed::Up { at, count } => self.up(place(at), count),
            Deed::Repeat { at, pick } => {
                self.repeat(place(at), usize::from(pick));
                Ok(())
            }
            Deed::Forge { at, pick } => self.forge(place(at), usize::from(pick)),
            Deed::Harm { pick } => self.harm(pick),
            Deed::Work { at, pick } => self.work(place(at), usize::from(pick)),
            Deed::LateUp { pick } => self.late_up(pick),
            Deed::Down { at, count } => self.down(place(at), count),
            Deed::Sync { count } => self.sync(usize::from(count)),
            Deed::Read { pick } => self.answer(usize::from(pick)),
            Deed::Fold { pick } => self.fold(usize::from(pick)),
            Deed::Roll { pick } => self.roll(usize::from(pick)),
            Deed::Connect { at, can_write } => self.connect(place(at), can_write),
            Deed::Load { at, pick } => self.load_one(place(at), usize::from(pick)),
            Deed::Evict { at, pick } => self.evict(place(at), usize::from(pick)),
            Deed::Pack { at, pick } => self.pack(place(at), usize::from(pick)),
            Deed::EvictKeeping { at, pick } => self.evict_keeping(place(at), usize::from(pick)),
            Deed::LoadFrom { at, pick } => self.load_one_from(place(at), usize::from(pick)),
            Deed::Wait { at, kind, pick } => self.wait(place(at), kind, usize::from(pick)),
            Deed::Pass { ms } => self.pass(u64::from(ms)),
            Deed::Age => self.age(),
            Deed::Notice { at } => self.notice(place(at)),
            Deed::Start => self.start(),
            Deed::Store { at } => {
                let at = place(at);
                if !self.is_paused(at) {
                    self.processes[at].store();
                }
                Ok(())
            }
            Deed::Backup => {
                self.back_up();
                Ok(())
            }
            Deed::Fault { fault, at, pick } => self.strike(fault, place(at), pick),
        }
    }

    /// Gives an input to a replica, performs what comes of it, and judges what its program sees then.
    fn input(&mut self, at: usize, input: Input) -> Result<(), Failure> {
        let heap = &mut self.heaps[self.plan.heaps_of[at]];
        let process = &mut self.processes[at];
        process.copied |= heap.copies;
        process.may_doubt = self.losses > 0 && self.plan.rolls;
        process.stores_first = self.plan.losses;
        process.loses_lines = self.plan.forgets;
        let own = process.link.iter().flat_map(|link| &link.own);
        let told = process.link.as_ref().map_or(Offset(0), |link| link.forgotten);
        process.dropped = own.into_iter().any(|id| heap.oracle.is_dropped(*id, told));
        process.input(self.now, input, &heap.segments, &mut heap.history);
        self.after(at)
    }

    /// A step of a process is over.
    fn after(&mut self, at: usize) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        if process.parted && self.plan.rolls && self.losses > 0 {
            if let Some(what) = &process.misled {
                return fails("P5", format!("process {at}: {what}"));
            }
            if process.conflicts && !self.heaps[self.plan.heaps_of[at]].oracle.parted {
                return fails(
                    "D4",
                    format!("process {at} is told a conflict, and the log took all that was given back"),
                );
            }
            self.tally.parted = 1;
        }
        if self.tally.parted > 0 {
            return Ok(());
        }
        if let (Some(link), true, false) = (&process.link, process.online, process.restoring) {
            process.life = link.life;
        }
        self.tally.frozen += std::mem::take(&mut process.freezes);
        self.look_into_doubts(at)?;
        let heap = &mut self.heaps[self.plan.heaps_of[at]];
        let process = &mut self.processes[at];
        process.stores_anew();
        process.look(&mut heap.history);
        self.hear(at)?;
        self.told_durable(at)?;
        self.judge(at)?;
        self.announce(at)?;
        if std::mem::take(&mut self.processes[at].hangs_up)
            && let Some(link) = self.hang_up(at)?
        {
            let heap = self.heap_of(at);
            self.closed(heap, &link)?;
        }
        Ok(())
    }

    /// Time passes, and wakes whom it is to wake.
    fn pass(&mut self, ms: u64) -> Result<(), Failure> {
        self.now += ms;
        for heap in 0..self.heaps.len() {
            self.heaps[heap].grants.woken = self.now;
            if self.heaps[heap].relay.as_ref().and_then(Relay::deadline).is_some_and(|at| at.0 <= self.now) {
                self.relay(heap, RelayInput::Wake)?;
            }
        }
        for at in 0..self.processes.len() {
            if !self.is_paused(at) && self.processes[at].replica.deadline().is_some_and(|at| at <= self.now) {
                self.input(at, Input::Tick)?;
            }
        }
        Ok(())
    }

    /// The disk is copied.
    fn back_up(&mut self) {
        self.platter.keep_copy();
        let of = |heap: &OneHeap| OnDisk {
            log: heap.oracle.log().clone(),
            synced: heap.synced,
            epochs_synced: heap.epochs_synced,
        };
        self.backup = Some(self.heaps.iter().map(of).collect());
    }

    /// What a process is at.
    pub fn phases(&self, at: usize) -> Phases {
        let (process, heap) = (&self.processes[at], &self.heaps[self.heap_of(at)]);
        let mut phases = Phases::default();
        let recovers = heap.beginning || heap.reads.iter().any(|read| matches!(read, RelayOutput::Recover));
        if !heap.folds.is_empty() {
            phases.insert(Phase::Folding);
        }
        if recovers {
            phases.insert(Phase::Recovering);
        }
        match &process.link {
            None => phases.insert(Phase::Connecting),
            Some(link) => match link.answered {
                _ if !link.greeted => phases.insert(Phase::Connecting),
                // A Hello waits for nothing else than for the log to be ready, or for states.
                None if !recovers => phases.insert(Phase::CatchingUp),
                Some((true, _)) if !process.online => phases.insert(Phase::CatchingUp),
                Some((false, _)) if !process.online => phases.insert(Phase::Resuming),
                Some((_, goal)) if process.replica.cut() < goal => phases.insert(Phase::Resuming),
                _ => {}
            },
        }
        if process.restoring && process.online {
            // It waits for the states of all that is here.
            phases.insert(Phase::CatchingUp);
        }
        if !process.loading.is_empty() && process.link.is_some() {
            phases.insert(Phase::Loading);
        }
        phases.or_idle()
    }

    /// What the relay is at: all that its processes are at.
    pub fn relay_phases(&self) -> Phases {
        let mut phases = Phases::default();
        for at in 0..self.processes.len() {
            phases.extend(self.phases(at));
        }
        phases
    }

    /// What struck whom so far.
    pub fn coverage(&self) -> &Coverage {
        &self.tally.coverage
    }
}

fn message(frames: &[u8]) -> Bytes {
    Bytes::from(coheap_core::wire::frame::message_of(frames))
}
