//! The world of a schedule: processes, one relay process with a machine per heap, and its disk. It performs steps, and after
//! each one holds what every touched program sees, and all that the relay said, against the oracle.

mod faults;
mod judge;
mod relay;
mod rest;
mod rolls;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{ObjectId, Offset, ReplicaId, SegmentId};
use coheap_core::relay::{ConnId, Input as RelayInput, Output as RelayOutput, Relay};
use coheap_core::replica::{Input, Section, Target, WaitError, WaitKind};
use coheap_core::segment::write::Draw;
use coheap_core::time::Time;
use coheap_core::value::Value;
use coheap_core::wire::code::Code;

use super::coverage::{Coverage, Phase, Phases};
use super::disk::Platter;
use super::history::{CommitNo, Event, ProcessNo, SegmentNo, Touch};
use super::marks::MARKS_MAX;
use super::oracle::{Log, Oracle, Sight, label};
use super::plan::{Deed, Plan, WaitFor};
use super::process::{COUNTER, Link, Process, REGISTER, Told, cut};
use super::{Failure, Tally, fails};
use crate::Draws;
use crate::node::options;

/// Segments that one heap of a schedule can have.
const SEGMENTS_MAX: usize = 6;
/// How long a process waits at most before it comes again that another connection displaced, while the world comes to rest.
const DISPLACED_RESTS_MS: usize = 60;
/// Characters of one of the three strings of a large commit: together they are more than one piece of a long message.
const LARGE: usize = 100_000;

/// What a wait was asked for.
#[derive(Clone, PartialEq, Debug)]
enum Waiting {
    Flush(Option<CommitNo>),
    /// The log reached to here when it was asked for, in that life of it.
    Sync(usize, Offset),
    Version,
    Reach(usize),
}

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
    /// Versions that were given.
    pub versions: Vec<Given>,
    waits: BTreeMap<(ProcessNo, u64), Waiting>,
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
        let places = vec![Touch { segment: 0, adds: 0, makes_counter: true }];
        let wish = Wish::Set { object: Handle(0), key: COUNTER.to_owned(), value: Literal::Counter(0.0) };
        self.commit(at, vec![(Target::Here(Index(0)), vec![wish])], places)?;
        self.flow(&[at])
    }

    /// A process opens a heap.
    fn open(&mut self, heap: usize) -> Process {
        let of = &mut self.heaps[heap];
        of.processes += 1;
        Process::new(options(&mut self.draws), of.processes - 1)
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
            Deed::LateUp { pick } => self.late_up(pick),
            Deed::Down { at, count } => self.down(place(at), count),
            Deed::Sync { count } => self.sync(usize::from(count)),
            Deed::Read { pick } => self.answer(usize::from(pick)),
            Deed::Fold { pick } => self.fold(usize::from(pick)),
            Deed::Roll { pick } => self.roll(usize::from(pick)),
            Deed::Connect { at, can_write } => self.connect(place(at), can_write),
            Deed::Load { at, pick } => self.load_one(place(at), usize::from(pick)),
            Deed::Evict { at, pick } => self.evict(place(at), usize::from(pick)),
            Deed::Wait { at, kind, pick } => self.wait(place(at), kind, usize::from(pick)),
            Deed::Pass { ms } => self.pass(u64::from(ms)),
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
        process.input(self.now, input, &heap.segments, &mut heap.history);
        self.after(at)
    }

    /// A step of a process is over.
    fn after(&mut self, at: usize) -> Result<(), Failure> {
        let heap = &mut self.heaps[self.plan.heaps_of[at]];
        let process = &mut self.processes[at];
        if process.parted && self.plan.rolls && self.losses > 0 {
            self.tally.parted = 1;
        }
        if self.tally.parted > 0 {
            return Ok(());
        }
        if let (Some(link), true, false) = (&process.link, process.online, process.restoring) {
            process.life = link.life;
        }
        process.look(&mut heap.history);
        self.hear(at)?;
        self.told_durable(at)?;
        self.judge(at)?;
        if std::mem::take(&mut self.processes[at].hangs_up)
            && let Some(link) = self.hang_up(at)?
        {
            let heap = self.heap_of(at);
            self.closed(heap, &link)?;
        }
        Ok(())
    }

    /// A program makes a commit.
    fn commit(&mut self, at: usize, sections: Vec<(Target, Vec<Wish>)>, places: Vec<Touch>) -> Result<(), Failure> {
        let heap = self.heap_of(at);
        let commit = self.heaps[heap].oracle.made.len();
        if commit >= MARKS_MAX || sections.is_empty() {
            return Ok(());
        }
        let marked = sections.into_iter().zip(&places).map(|((target, mut wishes), place)| {
            if !matches!(target, Target::New(..)) {
                let (key, value) = (label(commit), Literal::Scalar(Value::Bool(true)));
                wishes.push(Wish::Set { object: Handle(0), key, value });
            }
            // As a mirror does: own wishes at once, corrections behind them.
            if let Target::Here(index) = target
                && let Some(view) = self.processes[at].views.get_mut(&index)
            {
                let counter = view.counter().filter(|_| place.adds != 0);
                wishes.extend(counter.map(|object| Wish::Add { object, by: place.adds as f64 }));
                view.wrote(commit, place, wishes.iter().any(is_register));
            }
            Section { target, claim: None, wishes }
        });
        let sections = marked.collect();
        let entropy = self.draws.draw();
        let process = &mut self.processes[at];
        process.committed = None;
        process.making = places.iter().find(|place| place.makes_counter).map(|place| (commit, *place));
        let of = &mut self.heaps[heap];
        process.input(
            self.now,
            Input::Commit { label: label(commit), sections, size: 0, entropy },
            &of.segments,
            &mut of.history,
        );
        process.making = None;
        let uid = process.replica.unsaved_uids().pop();
        let (Some(uid), Some(_)) = (uid, process.committed) else {
            return fails("P9", format!("a program cannot commit: {:?}", process.problems));
        };
        of.oracle.make(uid, places.clone());
        process.line.push(commit);
        process.open.push(commit);
        for place in &places {
            let index = process.segments.iter().find(|(_, segment)| **segment == place.segment);
            let Some(index) = index.map(|(index, _)| *index) else { continue };
            process.wrote(index);
        }
        self.tally.commits += 1;
        self.tally.wide += u64::from(places.len() > 1);
        of.history.push(Event::Made { process: process.number, commit, places });
        self.after(at)
    }

    fn edit(&mut self, at: usize, segments: u8, pick: u16, alloc: bool, large: bool) -> Result<(), Failure> {
        if self.is_paused(at) {
            return Ok(());
        }
        let heap = self.heap_of(at);
        let (mut sections, mut places) = (Vec::new(), Vec::new());
        let commit = self.heaps[heap].oracle.made.len();
        let here: Vec<Index> = self.processes[at].views.keys().copied().collect();
        for nth in 0..usize::from(segments).min(here.len()) {
            // A stride that visits every one, from a start of chance.
            let index = here[(usize::from(pick) + nth) % here.len()];
            let view = &self.processes[at].views[&index];
            let adds = if view.counter().is_some() { 1 + i64::from(pick % 9) } else { 0 };
            let segment = self.processes[at].segments[&index];
            let mut wishes = Vec::new();
            if pick.is_multiple_of(3) {
                let (key, value) = (REGISTER.to_owned(), Literal::Scalar(Value::Number(commit as f64)));
                wishes.push(Wish::Set { object: Handle(0), key, value });
            }
            if large && nth == 0 {
                for part in 0..3 {
                    let value = Literal::Scalar(Value::Str("x".repeat(LARGE)));
                    wishes.push(Wish::Set { object: Handle(0), key: format!("large{part}"), value });
                }
            }
            sections.push((Target::Here(index), wishes));
            places.push(Touch { segment, adds, makes_counter: false });
        }
        if alloc && self.heaps[heap].segments.len() < SEGMENTS_MAX {
            let ObjectId(id) = self.draws.object();
            let engine =
                if self.plan.automerge && pick.is_multiple_of(2) { EngineKind::Automerge } else { EngineKind::Yrs };
            let mark = (label(commit), Literal::Scalar(Value::Bool(true)));
            let entries = vec![mark, (COUNTER.to_owned(), Literal::Counter(0.0))];
            sections.push((Target::New(SegmentId(id), engine), vec![Wish::Root { value: Literal::Map(entries) }]));
            let segment: SegmentNo = self.heaps[heap].segments.len();
            self.heaps[heap].segments.push(SegmentId(id));
            places.push(Touch { segment, adds: 0, makes_counter: true });
        }
        self.commit(at, sections, places)
    }

    /// A connection opens, if there is a relay.
    fn connect(&mut self, at: usize, can_write: bool) -> Result<(), Failure> {
        if !self.is_up || self.processes[at].link.is_some() || self.is_paused(at) {
            return Ok(());
        }
        self.conns += 1;
        let (conn, heap) = (ConnId(self.conns), self.heap_of(at));
        self.load_heap(heap)?;
        let process = &mut self.processes[at];
        process.link = Some(Link::new(conn, self.losses));
        self.relay(heap, RelayInput::Opened { conn, subject: String::new(), can_write })?;
        let entropy = [0; 4].map(|_: u64| self.draws.draw());
        self.input(at, Input::Connected { token: String::new(), entropy })
    }

    /// The replica's end of a connection is closed. Its messages that are still under way stay with the relay's end.
    fn hang_up(&mut self, at: usize) -> Result<Option<Link>, Failure> {
        let process = &mut self.processes[at];
        process.online = false;
        let link = process.link.take();
        if let Some(link) = &link {
            // As the npm package does (code 9, F4).
            let replaced = !link.relay_open && link.code == Some(Code::Replaced.close_code());
            process.displaced += u32::from(replaced);
            // Two that go by one id, and come again at the same time whenever they displaced each other, would do so for ever.
            process.rests_until = if replaced { self.now + self.draws.below(DISPLACED_RESTS_MS) as u64 } else { 0 };
            self.input(at, if replaced { Input::Replaced } else { Input::Disconnected })?;
        }
        Ok(link)
    }

    /// The relay's end of a connection learns that it is over.
    fn closed(&mut self, heap: usize, link: &Link) -> Result<(), Failure> {
        if link.relay_open { self.relay(heap, RelayInput::Closed { conn: link.conn }) } else { Ok(()) }
    }

    fn up(&mut self, at: usize, count: u8) -> Result<(), Failure> {
        for _ in 0..count {
            let heap = self.heap_of(at);
            let Some(link) = &mut self.processes[at].link else { break };
            if link.silent || !link.relay_open {
                break;
            }
            let Some(bytes) = link.up.pop_front() else { break };
            link.greeted = true;
            let conn = link.conn;
            if let Some((by, sight)) = link.arrives(&bytes) {
                self.heaps[heap].given.insert(by, sight);
            }
            self.relay(heap, RelayInput::Message { conn, bytes })?;
        }
        Ok(())
    }

    /// What a replica had sent on a connection that it has given up arrives; behind the last of it, its end does.
    fn late_up(&mut self, pick: u16) -> Result<(), Failure> {
        if self.late.is_empty() {
            return Ok(());
        }
        let at = usize::from(pick) % self.late.len();
        let (heap, link) = &mut self.late[at];
        let (heap, conn) = (*heap, link.conn);
        if let (true, Some(bytes)) = (link.relay_open, link.up.pop_front()) {
            if let Some((by, sight)) = link.arrives(&bytes) {
                self.heaps[heap].given.insert(by, sight);
            }
            return self.relay(heap, RelayInput::Message { conn, bytes });
        }
        let (heap, link) = self.late.remove(at);
        self.closed(heap, &link)
    }

    fn down(&mut self, at: usize, count: u8) -> Result<(), Failure> {
        for _ in 0..count {
            if self.is_paused(at) {
                break;
            }
            let heap = self.heap_of(at);
            let Some(link) = &mut self.processes[at].link else { break };
            if link.silent {
                break;
            }
            let (conn, relay_open) = (link.conn, link.relay_open);
            let Some(message) = link.down.pop_front() else {
                // The relay closed it, and this is the end of it.
                if !relay_open {
                    self.hang_up(at)?;
                }
                break;
            };
            let bytes = message.len() - 1;
            self.input(at, Input::Receive(message))?;
            if relay_open {
                self.relay(heap, RelayInput::Written { conn, bytes })?;
            }
        }
        Ok(())
    }

    fn load_one(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let count = self.heaps[self.heap_of(at)].segments.len();
        if self.is_paused(at) || self.processes[at].shown(pick % count).is_some() {
            return Ok(());
        }
        self.load(at, pick % count)
    }

    /// A program needs a segment.
    fn load(&mut self, at: usize, segment: SegmentNo) -> Result<(), Failure> {
        let id = self.heaps[self.heap_of(at)].segments[segment];
        self.input(at, Input::Load(vec![(id, id == SegmentId::ROOT)]))?;
        let process = &mut self.processes[at];
        let index = process.segments.iter().find(|(_, of)| **of == segment).map(|(index, _)| *index);
        process.loading.extend(index.filter(|index| !process.views.contains_key(index)));
        Ok(())
    }

    fn evict(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let here: Vec<Index> = self.processes[at].views.keys().copied().collect();
        if self.is_paused(at) || here.len() < 2 {
            return Ok(());
        }
        self.input(at, Input::Evict(here[pick % here.len()]))
    }

    fn wait(&mut self, at: usize, kind: WaitFor, pick: usize) -> Result<(), Failure> {
        if self.is_paused(at) {
            return Ok(());
        }
        let heap = self.heap_of(at);
        let (of, process) = (&mut self.heaps[heap], &self.processes[at]);
        let (kind, waiting) = match kind {
            WaitFor::Flush => (WaitKind::Flush, Waiting::Flush(process.line.last().copied())),
            WaitFor::Sync => (WaitKind::Sync, Waiting::Sync(self.losses, of.synced)),
            WaitFor::Version => (WaitKind::Version, Waiting::Version),
            WaitFor::Reach if of.versions.is_empty() => return Ok(()),
            WaitFor::Reach => {
                let version = pick % of.versions.len();
                (WaitKind::Reach(of.versions[version].token.clone()), Waiting::Reach(version))
            }
        };
        self.tickets += 1;
        of.waits.insert((process.number, self.tickets), waiting);
        self.input(at, Input::Wait { ticket: self.tickets, kind })
    }

    /// What a program was told of its waits is noted, and held against what it waited for.
    fn hear(&mut self, at: usize) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        let of = &mut self.heaps[self.plan.heaps_of[at]];
        let cut = process.replica.cut();
        for told in std::mem::take(&mut process.told) {
            let (Told::Done(ticket, _) | Told::Failed(ticket, _)) = &told;
            let Some(waiting) = of.waits.remove(&(process.number, *ticket)) else {
                return fails(
                    "P4",
                    format!("wait {ticket} ends twice, or at process {}, which did not ask", process.number),
                );
            };
            let (process, life) = (process.number, process.life);
            match (told, waiting) {
                (Told::Done(..), Waiting::Flush(upto)) => of.history.push(Event::Flushed { process, upto }),
                (Told::Done(_, version), Waiting::Version) => {
                    of.history.push(Event::Version { process, version: of.versions.len() });
                    of.versions.push(Given { token: version, life, cut });
                }
                (Told::Done(..), Waiting::Reach(version)) => of.history.push(Event::Reached { process, version }),
                (Told::Done(..), Waiting::Sync(asked_in, upto)) => {
                    if asked_in == life && cut < upto {
                        return fails("P4", format!("a sync ends at {cut:?}, and was to see up to {upto:?}"));
                    }
                }
                (Told::Failed(_, error), Waiting::Flush(_)) => {
                    if !matches!(error, WaitError::Refused(_)) {
                        return fails("P4", format!("a flush fails: {error:?}"));
                    }
                }
                // T3: it is of another life of the log than the one that is known here. Or a heap that was empty again gave
                // it, or is all that is known here: its lineage is not on the disk before its first entry is, and another
                // process may begin another.
                (Told::Failed(_, WaitError::VersionLost), Waiting::Reach(version))
                    if of.versions[version].life != life
                        || (self.losses > 0 && of.versions[version].cut.min(cut) == Offset(0)) => {}
                (Told::Failed(_, error), waiting) => {
                    return fails("P4", format!("a wait for {waiting:?} fails: {error:?}"));
                }
            }
        }
        Ok(())
    }

    /// Time passes, and wakes whom it is to wake.
    fn pass(&mut self, ms: u64) -> Result<(), Failure> {
        self.now += ms;
        for heap in 0..self.heaps.len() {
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

    /// A replica finds that its connection is silent.
    fn notice(&mut self, at: usize) -> Result<(), Failure> {
        if self.processes[at].link.as_ref().is_some_and(|link| link.silent) {
            let heap = self.heap_of(at);
            if let Some(mut link) = self.hang_up(at)? {
                link.up.clear();
                self.late.push((heap, link));
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

/// Cuts a link at a byte in each direction.
fn cut_both(link: &mut Link, pick: u16) {
    cut(&mut link.up, pick);
    cut(&mut link.down, pick.rotate_left(7));
}

fn is_register(wish: &Wish) -> bool {
    matches!(wish, Wish::Set { key, .. } if key == REGISTER)
}

fn message(frames: &[u8]) -> Bytes {
    Bytes::from(coheap_core::wire::frame::message_of(frames))
}
