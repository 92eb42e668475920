//! One process of a schedule: a replica, its end of a connection, and the little its program keeps of what it is shown: per
//! segment whose marks are there, and the counter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coheap_core::edit::Patch;
use coheap_core::heap::Index;
use coheap_core::id::{Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::relay::ConnId;
use coheap_core::replica::{Input, Keep, LoadStatus, Options, Output, Replica, WaitError};
use coheap_core::wire::codec::Malformed;
use coheap_core::wire::frame::restore::Restore;
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Bulk, Down, Up, split};

use super::history::{CommitNo, Event, ProcessNo, SegmentNo, Touch};
use super::marks::Marks;
use super::oracle::{Sight, commit_of, label};
use super::removals::Removals;
pub use super::view::{COUNTER, REGISTER, View};
use super::world::Labour;
use super::{Failure, fails};

/// Kinds of frames (`core/WIRE.md`).
const HELLO: u8 = 0x01;
const COMMIT: u8 = 0x02;
const RESTORE: u8 = 0x05;
const CHUNK: u8 = 0x08;
/// After so many connections that another one displaced, a replica takes another id (F4).
const DISPLACED_MAX: u32 = 2;

/// A connection, and what is under way on it.
#[derive(Debug)]
pub struct Link {
    /// What the relay calls it.
    pub conn: ConnId,
    /// Messages to the relay.
    pub up: VecDeque<Bytes>,
    /// Messages to the replica.
    pub down: VecDeque<Bytes>,
    /// The relay's end is open.
    pub relay_open: bool,
    /// Nothing arrives any more, and nobody knows.
    pub silent: bool,
    /// The relay has its Hello.
    pub greeted: bool,
    /// A stranger's: it sends nothing behind its Hello before that is answered.
    pub strange: bool,
    /// The Hello is answered: with a catch-up or without, and how far the log went then.
    pub answered: Option<(bool, Offset)>,
    /// The code that the relay closed it with.
    pub code: Option<u16>,
    /// The life of the log that is at its other end.
    pub life: usize,
    /// The lines that the Hello declares.
    pub own: Vec<ReplicaId>,
    /// Below this position lines were dropped, as its Hello was answered.
    pub forgotten: Offset,
    /// What was shown of that which was given back, for each time that has not arrived.
    pub giving: VecDeque<Sight>,
    pieces: Option<Vec<u8>>,
    /// The kinds of long messages of which some pieces have arrived, and not the last one: at the relay, and at the replica.
    pub between: [Option<u8>; 2],
}

impl Link {
    /// A new one.
    pub fn new(conn: ConnId, life: usize) -> Link {
        Link {
            conn,
            life,
            code: None,
            own: Vec::new(),
            forgotten: Offset(0),
            giving: VecDeque::new(),
            pieces: None,
            between: [None, None],
            up: VecDeque::new(),
            down: VecDeque::new(),
            relay_open: true,
            silent: false,
            greeted: false,
            strange: false,
            answered: None,
        }
    }
}

/// Cuts what is under way at a byte, a fraction of 65,536 of all its bytes: a message that is not whole does not arrive.
pub fn cut(queue: &mut VecDeque<Bytes>, fraction: u16) {
    let bytes: usize = queue.iter().map(Bytes::len).sum();
    let mut left = bytes * usize::from(fraction) / 65_536;
    let whole = queue.iter().take_while(|message| {
        let arrives = message.len() <= left;
        left = left.saturating_sub(message.len());
        arrives
    });
    let whole = whole.count();
    queue.truncate(whole);
}

impl Link {
    /// Which of the messages that are under way to the relay have commits and nothing else.
    pub fn commits(&self) -> impl Iterator<Item = usize> + '_ {
        let alone = |message: &Bytes| split(message).is_ok_and(|mut frames| frames.all(|(kind, _)| kind == COMMIT));
        self.up.iter().enumerate().filter(move |(_, message)| alone(message)).map(|(nth, _)| nth)
    }

    /// Whether what is under way to the relay was not sent yet: a stranger has had no answer to its Hello.
    pub fn awaits_an_answer(&self) -> bool {
        self.strange && self.relay_open && self.greeted && self.answered.is_none()
    }

    /// A message arrives, at the relay or at the replica: it may be a piece of a long one.
    pub fn gets(&mut self, to_replica: bool, message: &Bytes) {
        for (kind, body) in split(message).into_iter().flatten() {
            let begins = |bulk: &Bulk| (bulk.stream != 0).then_some(kind);
            let begun = match (to_replica, Up::decode(kind, &body), Down::decode(kind, &body)) {
                (false, Ok(Some(Up::Hello(hello))), _) => begins(&hello.bulk),
                (false, Ok(Some(Up::Restore(bulk))), _) => begins(&bulk),
                (true, _, Ok(Some(Down::Ok(welcome)))) => begins(&welcome.bulk),
                (true, _, Ok(Some(Down::Snapshot { bulk, .. }))) => begins(&bulk),
                (true, _, Ok(Some(Down::Roll(roll)))) => begins(&roll.bulk),
                (true, _, Ok(Some(Down::Restored(restored)))) => begins(&restored.bulk),
                (false, Ok(Some(Up::Chunk(chunk))), _) | (true, _, Ok(Some(Down::Chunk(chunk)))) if chunk.last => None,
                _ => continue,
            };
            self.between[usize::from(to_replica)] = begun;
        }
    }

    /// A message arrives at the relay: what was shown of what it gives back, and by whom it is given.
    pub fn arrives(&mut self, message: &Bytes) -> Option<(ReplicaId, Sight)> {
        if message.get(1) != Some(&RESTORE) {
            return None;
        }
        Some((*self.own.first()?, self.giving.pop_front()?))
    }
}

/// What a program is told of its waits.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    /// It ended with what it waited for, at this version.
    Done(u64, String),
    /// It ended without.
    Failed(u64, WaitError),
}

/// One process that has the heap open.
#[derive(Debug)]
pub struct Process {
    /// The machine.
    pub replica: Replica,
    /// Which one of the heap's.
    pub number: ProcessNo,
    /// Its end of a connection.
    pub link: Option<Link>,
    /// What its program sees.
    pub views: BTreeMap<Index, View>,
    /// It keeps nothing of the segment that it packs.
    pub forgets: bool,
    /// Segments that are here as bytes, and of which it has forgotten what it showed.
    pub bare: BTreeSet<Index>,
    /// Which segment an index is.
    pub segments: BTreeMap<Index, SegmentNo>,
    /// Segments that it waits for.
    pub loading: BTreeSet<Index>,
    /// Segments that stand still, since its engine cannot take in what they hold (R12).
    pub frozen: BTreeSet<Index>,
    /// How often one has begun to.
    pub freezes: u64,
    /// Its commits, by number in its line from 1.
    pub line: Vec<CommitNo>,
    /// Those of them that it has no answer for.
    pub open: Vec<CommitNo>,
    /// Those of them that were refused, and the segments that show them still: until they are made anew.
    pub undone: Vec<(CommitNo, Index)>,
    /// Its part of the shared work.
    pub worker: Labour,
    /// The Hello of this connection was answered.
    pub online: bool,
    /// It does nothing until this step.
    pub paused_until: usize,
    /// Everything that went wrong.
    pub problems: Vec<String>,
    /// A log that was lost had generations: what it had acknowledged, or not, may be in doubt.
    pub may_doubt: bool,
    /// It has been told that what it held is not what the relay goes on with.
    pub parted: bool,
    /// One of its segments is of another generation there.
    pub conflicts: bool,
    /// What it was told is in doubt, and cannot be.
    pub misled: Option<String>,
    /// Lines are dropped (§2), so it may be told of a doubt.
    pub loses_lines: bool,
    /// A line that its Hello declares was dropped.
    pub dropped: bool,
    /// Commits that went out on some connection, or may have.
    pub offered: Marks,
    /// Commits that it was told are in doubt, and nobody has looked into that yet.
    pub doubted: Vec<CommitNo>,
    /// News of waits that nobody has heard yet.
    pub told: Vec<Told>,
    /// The number that its newest commit got.
    pub committed: Option<Seq>,
    /// The life of the log that its cut is in.
    pub life: usize,
    /// It is giving back what a lost log had, and shows what it showed before.
    pub restoring: bool,
    /// What its store holds.
    pub stored: Option<Box<Stored>>,
    /// What it makes anew is in its store before it goes out (C8). Where no disk is lost, a store that is behind does (F3).
    pub stores_first: bool,
    /// Commits that its replica has told of, and whether it told of one again since they were stored.
    told_of: BTreeSet<Seq>,
    anew: bool,
    /// It wants another connection.
    pub hangs_up: bool,
    /// It comes again at that time, while the world comes to rest.
    pub rests_until: u64,
    /// Another connection had its place so often since it took its id.
    pub displaced: u32,
    /// Somebody else may go by one of its ids, so it may have to take another one.
    pub copied: bool,
    /// What the commit that is being made makes: shown from the moment that it has an index.
    pub making: Option<(CommitNo, Touch)>,
    /// Commits that it was told are durable, and nobody has looked into that yet.
    pub news: Vec<CommitNo>,
    /// What was here of segments that it has evicted, not yet put where it is kept.
    pub kept: Vec<(SegmentNo, Bytes)>,
    /// An entry that its program is told of in two steps, and not in one (C4).
    pub told_twice: Option<Offset>,
    /// The last entry that its program is told of in this step of the replica.
    last: Option<Offset>,
    /// Commits of the heap that only take something away.
    removals: Removals,
    changed: BTreeSet<Index>,
}

/// What a process has stored, and what the world knows of that.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The replica.
    pub bytes: Vec<u8>,
    life: usize,
    restoring: bool,
    undone: Vec<(CommitNo, Index)>,
}

impl Process {
    /// A process that has just opened the heap, and wants the root.
    pub fn new(options: Options, number: ProcessNo, removals: Removals) -> Process {
        Process::of(Replica::new(options), number, removals)
    }

    fn of(replica: Replica, number: ProcessNo, removals: Removals) -> Process {
        Process {
            replica,
            number,
            removals,
            told_twice: None,
            last: None,
            life: 0,
            restoring: false,
            stored: None,
            stores_first: false,
            told_of: BTreeSet::new(),
            anew: false,
            hangs_up: false,
            displaced: 0,
            rests_until: 0,
            copied: false,
            making: None,
            news: Vec::new(),
            kept: Vec::new(),
            link: None,
            views: BTreeMap::new(),
            forgets: false,
            bare: BTreeSet::new(),
            segments: BTreeMap::from([(Index(0), 0)]),
            loading: BTreeSet::new(),
            frozen: BTreeSet::new(),
            freezes: 0,
            line: Vec::new(),
            open: Vec::new(),
            undone: Vec::new(),
            worker: Labour::default(),
            online: false,
            paused_until: 0,
            problems: Vec::new(),
            may_doubt: false,
            parted: false,
            conflicts: false,
            misled: None,
            loses_lines: false,
            dropped: false,
            offered: Marks::default(),
            doubted: Vec::new(),
            told: Vec::new(),
            committed: None,
            changed: BTreeSet::new(),
        }
    }

    /// It stores what it is.
    pub fn store(&mut self) {
        let (bytes, undone) = (self.replica.export(), self.undone.clone());
        self.stored = Some(Box::new(Stored { bytes, life: self.life, restoring: self.restoring, undone }));
    }

    /// Another process that opens what one had stored (C9). `commits`: by their uids.
    pub fn reopen(
        options: Options,
        number: ProcessNo,
        removals: &Removals,
        stored: &Stored,
        commits: impl Fn(Uid) -> Option<CommitNo>,
        ids: &[SegmentId],
        history: &mut Vec<Event>,
    ) -> Result<Process, Failure> {
        let replica = Replica::reopen(options, &stored.bytes);
        let replica = replica.or_else(|error| fails("P4", format!("a store does not read back: {error:?}")))?;
        let mut process = Process::of(replica, number, removals.clone());
        (process.life, process.restoring) = (stored.life, stored.restoring);
        process.line = process.replica.unsaved_uids().into_iter().filter_map(commits).collect();
        process.open.clone_from(&process.line);
        process.offered = process.line.iter().copied().collect();
        let undone = stored.undone.iter().map(|(commit, _)| *commit);
        history.push(Event::Reopened { process: number, made: process.line.iter().copied().chain(undone).collect() });
        process.perform(ids, history);
        process.undone.clone_from(&stored.undone);
        process.stored = Some(Box::new(stored.clone()));
        Ok(process)
    }

    /// A copy of it that goes on in another instance.
    pub fn copy(&self, number: ProcessNo, replica: Replica) -> Process {
        Process {
            views: self.views.clone(),
            segments: self.segments.clone(),
            loading: self.loading.clone(),
            line: self.line.clone(),
            open: self.open.clone(),
            undone: self.undone.clone(),
            life: self.life,
            restoring: self.restoring,
            displaced: self.displaced,
            ..Process::of(replica, number, self.removals.clone())
        }
    }

    /// What it is shown of these segments.
    fn sight(&self, ids: &[SegmentId], of: &[SegmentId]) -> Sight {
        let here = self.views.iter().filter_map(|(index, view)| Some((*self.segments.get(index)?, view.marks)));
        here.filter(|(segment, _)| ids.get(*segment).is_some_and(|id| of.contains(id))).collect()
    }

    /// What goes out says which lines are its own, and what it gives back.
    fn sends(&mut self, message: &Bytes, ids: &[SegmentId]) -> Result<(), Malformed> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.up.push_back(message.clone());
        if self.loses_lines && message.get(1) == Some(&COMMIT) {
            for (kind, body) in split(message)? {
                if let Some(Up::Commit(CommitFrame { label: Some(label), .. })) = Up::decode(kind, &body)? {
                    commit_of(&label).map(|commit| self.offered.insert(commit));
                }
            }
        }
        // The kind of the first frame: what is looked for goes alone.
        let Some(HELLO | RESTORE | CHUNK) = message.get(1).copied() else { return Ok(()) };
        for (kind, body) in split(message)? {
            match Up::decode(kind, &body)? {
                Some(Up::Hello(hello)) => link.own = hello.own.into_iter().map(|(id, _)| id).collect(),
                Some(Up::Restore(bulk)) => {
                    link.pieces = Some(bulk.bytes.to_vec());
                    if bulk.stream == 0 {
                        return self.gives(ids);
                    }
                }
                Some(Up::Chunk(chunk)) => {
                    let Some(pieces) = &mut link.pieces else { continue };
                    pieces.extend_from_slice(&chunk.bytes);
                    if chunk.last {
                        return self.gives(ids);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All that it gives back is on its way.
    fn gives(&mut self, ids: &[SegmentId]) -> Result<(), Malformed> {
        let pieces = self.link.as_mut().and_then(|link| link.pieces.take()).unwrap_or_default();
        let restore = Restore::decode(&pieces.into())?;
        let held: Vec<SegmentId> = restore.segments.iter().map(|held| held.id).collect();
        let sight = self.sight(ids, &held);
        if let Some(link) = &mut self.link {
            link.giving.push_back(sight);
        }
        Ok(())
    }

    /// The index of a segment that is here.
    pub fn shown(&self, segment: SegmentNo) -> Option<Index> {
        self.views.keys().copied().find(|index| self.segments.get(index) == Some(&segment))
    }

    /// Gives the replica an input, performs what comes of it, and notes what its program is shown and told.
    pub fn input(&mut self, now: u64, input: Input, ids: &[SegmentId], history: &mut Vec<Event>) {
        self.replica.handle(now, input);
        self.perform(ids, history);
    }

    /// Another instance has taken over: all that it says at once.
    pub fn go_on_in(&mut self, replica: Replica, ids: &[SegmentId], history: &mut Vec<Event>) {
        self.replica = replica;
        // It shows what was shown: what is to be made anew is so still.
        let undone = self.undone.clone();
        self.perform(ids, history);
        self.undone = undone;
    }

    fn perform(&mut self, ids: &[SegmentId], history: &mut Vec<Event>) {
        self.last = None;
        while let Some(output) = self.replica.poll() {
            self.output(output, ids, history);
        }
    }

    /// A step is over: what was made anew is stored before it goes out.
    pub fn stores_anew(&mut self) {
        if std::mem::take(&mut self.anew) && self.stores_first && self.stored.is_some() {
            self.store();
        }
    }

    /// What has changed is shown, and the program looks.
    pub fn look(&mut self, history: &mut Vec<Event>) {
        let process = self.number;
        for index in std::mem::take(&mut self.changed) {
            let Some(segment) = self.segments.get(&index).copied() else { continue };
            history.push(match self.views.get(&index) {
                Some(view) => Event::Shown { process, segment, marks: view.marks, sum: view.sum() },
                None => Event::Hidden { process, segment },
            });
        }
        history.push(Event::Looks { process });
    }

    fn settle(&mut self, index: Index) {
        if let (Some(segment), Some(view)) = (self.segments.get(&index), self.views.get_mut(&index)) {
            self.removals.settle(*segment, view);
        }
    }

    /// Something that a commit left in a segment, and another may take away: nobody does yet, and it will not be refused.
    pub fn spare_in(&self, index: Index) -> Option<CommitNo> {
        let (segment, view) = (self.segments.get(&index)?, self.views.get(&index)?);
        let undone = |commit: &CommitNo| self.undone.iter().any(|(of, _)| of == commit);
        let stays = |commit: &CommitNo| !self.open.contains(commit) && !undone(commit);
        view.spares().iter().filter(stays).find(|commit| !self.removals.has(*segment, *commit))
    }

    /// An own commit is shown where it wrote.
    pub fn wrote(&mut self, index: Index) {
        self.changed.insert(index);
    }

    fn output(&mut self, output: Output, ids: &[SegmentId], history: &mut Vec<Event>) {
        let process = self.number;
        self.worker.hear(&output);
        match output {
            Output::Send(message) => {
                if let Err(error) = self.sends(&message, ids) {
                    self.problems.push(format!("it says what does not parse: {error}"));
                }
            }
            Output::Indexed { segment, index } => {
                let number = ids.iter().position(|id| *id == segment).expect("segments are known to the world");
                self.segments.insert(index, number);
                if let Some((commit, place)) = self.making.take_if(|(_, place)| place.segment == number) {
                    self.views.entry(index).or_default().wrote(commit, &place, &[]);
                }
            }
            Output::Apply { offset, segments, .. } => {
                if self.last.replace(offset) == Some(offset) {
                    self.told_twice = Some(offset);
                }
                self.patch(&segments);
            }
            Output::Committed { seq, corrections, .. } => {
                self.committed = Some(seq);
                self.patch(&corrections);
            }
            Output::Loaded { segment, status, patches, .. } => {
                self.loading.remove(&segment);
                self.bare.remove(&segment);
                self.undone.retain(|(_, index)| *index != segment);
                self.changed.insert(segment);
                self.frozen.remove(&segment);
                match status {
                    LoadStatus::There => {
                        self.views.insert(segment, View::of(&patches));
                        self.settle(segment);
                    }
                    LoadStatus::Missing => drop(self.views.remove(&segment)),
                    // Its program keeps what it holds; it is told why, too.
                    LoadStatus::Quarantined => {
                        self.views.remove(&segment);
                        self.freezes += u64::from(self.frozen.insert(segment));
                    }
                    other => {
                        self.problems.push(format!("segment {segment:?} is {other:?}"));
                        self.views.remove(&segment);
                    }
                }
            }
            Output::Copied(index, copy) => {
                self.kept.extend(self.segments.get(&index).map(|segment| (*segment, copy)));
            }
            Output::Evicted(index) => {
                self.bare.remove(&index);
                self.views.remove(&index);
                self.changed.insert(index);
            }
            Output::AtRest(index) if self.forgets => {
                self.bare.insert(index);
                self.views.remove(&index);
                self.changed.insert(index);
            }
            Output::Acked { seq, .. } => {
                let acked = self.line.iter().take(seq.0 as usize).copied();
                let acked: Marks = acked.collect();
                self.open.retain(|commit| {
                    if acked.contains(*commit) {
                        history.push(Event::Acked { process, commit: *commit });
                        self.news.push(*commit);
                    }
                    !acked.contains(*commit)
                });
            }
            Output::Refused { seq, segments, .. } => {
                let Some(commit) = self.line.get((seq.0 as usize).wrapping_sub(1)).copied() else {
                    return self.problems.push(format!("{seq:?} is refused, and was never made"));
                };
                history.push(Event::Refused { process, commit });
                self.open.retain(|open| *open != commit);
                self.undone.extend(segments.into_iter().map(|index| (commit, index)));
            }
            Output::Online { .. } => self.online = true,
            Output::Done { ticket, version } => self.told.push(Told::Done(ticket, version)),
            Output::Failed { ticket, error } => self.told.push(Told::Failed(ticket, error)),
            Output::Restoring { begins } => self.restoring = begins,
            // G5: an id whose line was dropped is of no use any more.
            Output::Forked { .. } if self.dropped || !self.doubted.is_empty() => self.hangs_up = true,
            Output::Forked { .. } if self.copied || self.displaced >= DISPLACED_MAX => {
                (self.displaced, self.hangs_up) = (0, true);
            }
            Output::Reconnect => self.hangs_up = true,
            Output::Keep(Keep::Commit(number, kept)) => {
                let known = if kept.is_empty() { !self.told_of.remove(&number) } else { !self.told_of.insert(number) };
                self.anew |= known && !kept.is_empty();
            }
            // G5: it is looked into when the step is over.
            Output::InDoubt(told) if self.loses_lines => {
                for doubtful in told {
                    let commit = self.line.get((doubtful.seq.0 as usize).wrapping_sub(1)).copied();
                    let Some(commit) = commit.filter(|commit| self.open.contains(commit)) else {
                        self.problems.push(format!("{doubtful:?} is in doubt, and was answered or never made"));
                        continue;
                    };
                    history.push(Event::Doubted { process, commit });
                    self.open.retain(|open| *open != commit);
                    self.doubted.push(commit);
                    let here = self.segments.iter().filter(|(index, _)| self.views.contains_key(index));
                    let of = |segment: &SegmentNo| doubtful.edits.iter().any(|(id, _)| ids.get(*segment) == Some(id));
                    let shows = here.filter(|(_, segment)| of(segment)).map(|(index, _)| (commit, *index));
                    self.undone.extend(shows.collect::<Vec<_>>());
                }
            }
            // D4, §14.3: one side loses its place, or nobody can say what is in.
            Output::Conflict(_) if self.may_doubt => (self.parted, self.conflicts) = (true, true),
            Output::InDoubt(told) if self.may_doubt => {
                self.parted = true;
                for doubtful in told {
                    let commit = self.line.get((doubtful.seq.0 as usize).wrapping_sub(1)).copied();
                    if !commit.is_some_and(|commit| self.open.contains(&commit) && label(commit) == doubtful.label) {
                        self.misled = Some(format!("{doubtful:?} is in doubt, and was answered or never made"));
                    }
                }
            }
            // No line is forgotten here, and nobody else goes by this one's ids.
            output @ (Output::Forked { .. } | Output::InDoubt(_) | Output::Conflict(_)) => {
                self.problems.push(format!("{output:?}"));
            }
            Output::Problem { code, message } => self.problems.push(format!("{code}: {message}")),
            Output::Error { code, message } => self.problems.push(format!("error {code}: {message}")),
            _ => {}
        }
    }

    fn patch(&mut self, segments: &[(Index, Vec<Patch>)]) {
        for (index, patches) in segments {
            if let Some(view) = self.views.get_mut(index) {
                view.apply(patches);
                self.changed.insert(*index);
                self.settle(*index);
            }
        }
    }
}
