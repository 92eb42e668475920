//! A relay machine, a store that can delay, refuse and crash, and connections driven by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::commit::EngineKind;
use coheap_core::id::*;
use coheap_core::log::LogEntry;
use coheap_core::relay::*;
use coheap_core::segment::merge::{MergeError, Merged, adopt, merge};
use coheap_core::segment::roll::{Unrollable, check_roll, roll_unchecked};
use coheap_core::time::{Millis, Time};
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::down::Welcome;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Assembly, Bulk, Down, SegRef, SegmentState, Up, message_of, split};

pub use crate::writer::{Writer, acked, change_part, create, entries, offsets, part};

/// What would be on the disk.
#[derive(Default)]
pub struct Disk {
    pub recovered: Recovered,
    pub entries: Vec<Bytes>,
    admit: BTreeMap<ReplicaId, Bytes>,
    clocks: BTreeMap<SegmentNumber, (GenId, Bytes)>,
    /// Per segment: position and bytes of its snapshot.
    pub snaps: BTreeMap<SegmentNumber, (Offset, Bytes)>,
    /// Per segment: the header of its generation.
    headers: BTreeMap<SegmentNumber, Bytes>,
    /// Everything that was written, to be written again up to some place.
    appends: Vec<Append>,
    /// Parts that no state has any more.
    skipped: BTreeSet<(SegmentNumber, Offset)>,
}

impl Disk {
    pub fn write(&mut self, append: Append) {
        assert_eq!(append.first, self.recovered.head, "appends come in order");
        self.appends.push(append.clone());
        if let Some(dropped) = append.dropped {
            self.recovered.forgotten = dropped.below;
            self.admit.retain(|id, _| !dropped.lines.contains(id));
        }
        self.recovered.roll_hold_ms = append.roll_hold_ms.unwrap_or(self.recovered.roll_hold_ms);
        if let Some((epoch, start)) = append.epoch {
            if self.recovered.epochs.is_empty() {
                self.recovered.lineage = epoch;
            }
            self.recovered.epochs.push((epoch, start));
        }
        for delta in &append.deltas {
            let entry = &append.entries[(delta.offset.0 - append.first.0) as usize];
            assert!(delta.at + delta.len <= entry.len());
        }
        for (number, row) in append.segments {
            match self.recovered.segments.get_mut(number.0 as usize) {
                Some(known) => *known = row,
                None => {
                    assert_eq!(number.0, self.recovered.segments.len() as u64, "numbers are dense");
                    self.recovered.segments.push(row);
                }
            }
        }
        for begins in append.generations {
            self.headers.insert(begins.segment, begins.header);
            self.snaps.insert(begins.segment, (begins.position, begins.snapshot));
        }
        self.entries.extend(append.entries);
        self.skipped.extend(append.skipped);
        self.admit.extend(append.admit);
        self.clocks.extend(append.clocks.into_iter().map(|(number, generation, table)| (number, (generation, table))));
        self.recovered.head = Offset(self.entries.len() as u64);
    }

    /// A line that is on the disk as well.
    pub fn keep_line(&mut self, owner: ReplicaId, line: &AdmitRow) {
        let mut row = Vec::new();
        line.encode(&mut row);
        self.admit.insert(owner, row.into());
    }

    /// How many lines each append dropped, where any did, or told what is forgotten: with how many entries, and below which position.
    pub fn drops(&self) -> Vec<(usize, usize, Offset)> {
        let drops = self.appends.iter().filter_map(|append| append.dropped.as_ref().map(|dropped| (append, dropped)));
        drops.map(|(append, dropped)| (dropped.lines.len(), append.entries.len(), dropped.below)).collect()
    }

    pub fn recover(&self) -> Recovered {
        let mut recovered = self.recovered.clone();
        for (row, number) in recovered.segments.iter_mut().zip(0..) {
            row.tail.end = self.end_of(SegmentNumber(number));
        }
        recovered.admit = self.admit.iter().map(|(id, row)| (*id, AdmitRow::decode(row).unwrap())).collect();
        recovered.clocks =
            self.clocks.iter().map(|(n, (generation, table))| (*n, *generation, table.clone())).collect();
        recovered
    }

    /// Where the newest delta of a segment ends, or its snapshot.
    fn end_of(&self, number: SegmentNumber) -> Option<Offset> {
        let has = |offset: &u64| {
            let deltas = self.entry(*offset).deltas();
            deltas.iter().any(|(of, _)| *of == number) && !self.skipped.contains(&(number, Offset(*offset)))
        };
        let last = (0..self.entries.len() as u64).rfind(has).map(|offset| Offset(offset).next());
        last.max(self.snaps.get(&number).map(|(position, _)| *position))
    }

    pub fn entry(&self, offset: u64) -> LogEntry {
        let bytes = &self.entries[offset as usize];
        LogEntry::decode(bytes, &mut Reader::new(bytes)).unwrap()
    }

    /// What a worker makes of a segment, and another one has checked.
    fn roll(
        &self,
        segment: SegmentNumber,
        id: SegmentId,
        engine: EngineKind,
        position: Offset,
        generation: GenId,
    ) -> Roll {
        let StoredState::At { snapshot, deltas, .. } = self.state(segment, position) else { return Roll::Failed };
        match roll_unchecked(engine, id, &snapshot, &deltas, generation).unwrap() {
            Ok(made) => {
                let clocks = check_roll(engine, id, &snapshot, &deltas, generation, &made).unwrap();
                Roll::Made { snapshot: made, clocks }
            }
            Err(Unrollable::Sequences) => Roll::Declined(NotRolled::Sequences),
            Err(Unrollable::History) => Roll::Declined(NotRolled::History),
        }
    }

    /// Only what came since a position, if that is wanted and to be had.
    fn state_of(&self, of: StateOf, position: Offset) -> StoredState {
        let state = self.state(of.segment, position);
        let folded = self.snaps.get(&of.segment).map_or(Offset(0), |(folded, _)| *folded);
        let Some(since) = of.since.filter(|since| *since >= folded) else { return state };
        let (StoredState::At { segment, header, deltas, .. }, StoredState::At { deltas: before, .. }) =
            (state, self.state(of.segment, since))
        else {
            panic!("{of:?} at {position:?}")
        };
        StoredState::Since { segment, header, deltas: deltas[before.len()..].to_vec() }
    }

    fn state(&self, segment: SegmentNumber, position: Offset) -> StoredState {
        let (from, snapshot) = self.snaps.get(&segment).cloned().unwrap_or_default();
        if from > position {
            return StoredState::NotBefore { segment, position: from };
        }
        let mut deltas = Vec::new();
        for offset in from.0..position.0 {
            if self.skipped.contains(&(segment, Offset(offset))) {
                continue;
            }
            match self.entry(offset) {
                LogEntry::Commit(commit) => {
                    deltas
                        .extend(commit.parts.into_iter().filter(|part| part.segment == segment).map(|part| part.bytes));
                }
                LogEntry::Restored(restore) => {
                    let added = restore.segments.into_iter().filter(|part| !part.state.is_empty() && !part.adopts);
                    deltas.extend(added.filter(|part| part.segment == segment).map(|part| part.state));
                }
                LogEntry::Void { .. } | LogEntry::Roll(_) | LogEntry::Quarantine(_) => {}
            }
        }
        let header = self.headers.get(&segment).cloned().unwrap_or_default();
        StoredState::At { segment, header, snapshot, deltas }
    }
}

/// One connection as its replica sees it.
#[derive(Default)]
pub struct Link {
    pub frames: Vec<Down>,
    pub closed: Option<u16>,
    pub names: BTreeMap<SegmentNumber, SegmentId>,
    pub authors: BTreeMap<u64, ReplicaId>,
    pub written: usize,
    /// Nobody looks at what comes: it is only counted.
    pub deaf: bool,
}

/// What the worker does with what is to be replayed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Replays {
    /// It takes in everything.
    Well,
    /// It fails on the part of this entry, whatever that is, if it is to be replayed.
    FailsAt(u64),
    /// It dies over anything.
    Dies,
    /// It is at it until [`World::answer_examine`].
    Waits,
}

/// What the worker does with what is to be merged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Merges {
    /// Its work, at once.
    Now,
    /// It dies over it.
    Fail,
    /// It is at it for ever.
    Never,
}

pub struct World {
    pub merges: Merges,
    pub replays: Replays,
    /// Replays that were asked for: the segment and up to where.
    pub examined: Vec<(SegmentNumber, Offset)>,
    pub waiting: Option<Output>,
    /// The machine of the next start.
    pub config: fn(Config) -> Config,
    pub relay: Relay,
    pub now: Time,
    pub disk: Disk,
    /// Appends that were asked for and are not on the disk.
    pub unwritten: VecDeque<Append>,
    /// Appends reach the disk at once.
    pub prompt: bool,
    /// A heap that is to be read again is, at once.
    pub recovers: bool,
    /// What is sent is read at once.
    pub reads: bool,
    pub links: BTreeMap<ConnId, Link>,
    pub folds: Vec<(SegmentNumber, Offset)>,
    /// What came of rolls.
    pub rolled: Vec<Result<GenId, NotRolled>>,
    /// What the worker has made waits here until a test gives it.
    pub slow: bool,
    pub made: Vec<(Ticket, Roll)>,
    pub stopped: bool,
    pub idle: bool,
    /// Sends that went to more than one connection.
    pub shared: usize,
    /// Sends.
    pub sends: usize,
    life: u64,
    conns: u64,
}

pub fn config(life: u64) -> Config {
    Config {
        heap: "h".into(),
        life,
        entropy: life * 7919,
        unix_ms: 1_000_000,
        idle: Millis(30_000),
        fold_bytes: Some(1 << 18),
        refuses_after: REFUSES_AFTER,
        admits_from: Time(0),
        rolls_from: Time(0),
        retention: None,
    }
}

impl World {
    pub fn new() -> World {
        let mut world = World {
            merges: Merges::Now,
            replays: Replays::Well,
            examined: Vec::new(),
            waiting: None,
            config: |config| config,
            relay: Relay::new(config(1), Recovered::default(), Time(0)),
            now: Time(0),
            disk: Disk::default(),
            unwritten: VecDeque::new(),
            prompt: true,
            recovers: true,
            reads: true,
            links: BTreeMap::new(),
            folds: Vec::new(),
            rolled: Vec::new(),
            slow: false,
            made: Vec::new(),
            stopped: false,
            idle: false,
            shared: 0,
            sends: 0,
            life: 1,
            conns: 0,
        };
        world.drain();
        world
    }

    /// The relay dies with everything that was not written, and starts again.
    pub fn crash(&mut self) {
        self.unwritten.clear();
        self.links.clear();
        self.life += 1;
        self.relay = Relay::new((self.config)(config(self.life)), self.disk.recover(), self.now);
        self.drain();
    }

    /// The relay dies, and its disk is as it was after so many entries; 0: empty.
    pub fn roll_back(&mut self, entries: u64) {
        let mut old = Disk::default();
        for append in self.disk.appends.iter().filter(|append| append.end().0 <= entries).cloned().collect::<Vec<_>>() {
            old.write(append);
        }
        assert_eq!(old.entries.len() as u64, entries, "an append ends there");
        self.disk = old;
        self.crash();
    }

    /// The heap is unloaded and opened again by the same process.
    pub fn unload(&mut self) {
        assert!(self.unwritten.is_empty());
        self.links.clear();
        self.relay = Relay::new(config(self.life), self.disk.recover(), self.now);
        self.drain();
    }

    pub fn input(&mut self, input: Input) {
        self.relay.handle(self.now, input);
        self.drain();
    }

    /// Time passes, with every wake on the way.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + Millis(ms);
        while let Some(at) = self.relay.deadline()
            && at <= end
        {
            self.now = self.now.max(at);
            self.input(Input::Wake);
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut answers = VecDeque::new();
        while let Some(output) = self.relay.poll() {
            match output {
                Output::Send { to, frames } => {
                    self.shared += usize::from(to.len() > 1);
                    self.sends += 1;
                    for conn in to {
                        self.deliver(conn, &frames);
                        if self.reads {
                            answers.push_back(Input::Written { conn, bytes: frames.len() });
                        }
                    }
                }
                Output::Close { conn, code, .. } => self.links.entry(conn).or_default().closed = Some(code),
                Output::Append(append) => {
                    if self.prompt {
                        let upto = append.end();
                        self.disk.write(append);
                        answers.push_back(Input::Durable { upto });
                    } else {
                        self.unwritten.push_back(append);
                    }
                }
                Output::ReadLog { ticket, from, upto, bytes_max } => {
                    let (mut entries, mut bytes) = (Vec::new(), 0);
                    for offset in from.0..upto.0 {
                        bytes += self.disk.entries[offset as usize].len();
                        entries.push((Offset(offset), self.disk.entry(offset)));
                        if bytes >= bytes_max {
                            break;
                        }
                    }
                    answers.push_back(Input::Log { ticket, entries });
                }
                Output::ReadStates { ticket, position, segments, .. } => {
                    // Two at a time, as a store that has reached its bound would.
                    let states = segments.iter().take(2).map(|of| self.disk.state_of(*of, position)).collect();
                    answers.push_back(Input::States { ticket, states });
                }
                Output::Merge { .. } if self.merges == Merges::Never => self.waiting = Some(output),
                Output::Merge { ticket, .. } if self.merges == Merges::Fail => {
                    answers.push_back(Input::Merged { ticket, merge: Merge::Failed });
                }
                Output::Merge { ticket, engine, segment, position, given, adopts } => {
                    let state = segment.map(|segment| self.disk.state(segment, position));
                    let (snapshot, deltas) = match state {
                        Some(StoredState::At { snapshot, deltas, .. }) => (snapshot, deltas),
                        _ => (Bytes::new(), Vec::new()),
                    };
                    let made = if adopts { adopt(engine, &given) } else { merge(engine, &snapshot, &deltas, &given) };
                    let merge = match made {
                        Ok(Merged::Nothing) => Merge::Nothing,
                        Ok(Merged::Adds { state, clocks }) => Merge::Adds { state, clocks },
                        Err(MergeError::Clashes(_)) => Merge::Clashes,
                        Err(_) => Merge::Refused,
                    };
                    answers.push_back(Input::Merged { ticket, merge });
                }
                Output::Examine { segment, upto, .. } if self.replays == Replays::Waits => {
                    self.examined.push((segment, upto));
                    self.waiting = Some(output);
                }
                Output::Examine { ticket, segment, upto, position, .. } => {
                    self.examined.push((segment, upto));
                    answers.push_back(self.examine(ticket, segment, upto, position));
                }
                Output::MakeRoll { .. } if self.merges == Merges::Never => {}
                Output::MakeRoll { ticket, .. } if self.merges == Merges::Fail => {
                    answers.push_back(Input::RollMade { ticket, roll: Roll::Failed });
                }
                Output::MakeRoll { ticket, segment, id, engine, position, generation } => {
                    let roll = self.disk.roll(segment, id, engine, position, generation);
                    match self.slow {
                        true => self.made.push((ticket, roll)),
                        false => answers.push_back(Input::RollMade { ticket, roll }),
                    }
                }
                Output::Rolled { outcome, .. } => self.rolled.push(outcome),
                Output::Recover if self.recovers => answers.push_back(Input::Recovered(self.disk.recover())),
                Output::Recover => {}
                Output::Fold { segment, upto, .. } => self.folds.push((segment, upto)),
                Output::Idle => self.idle = true,
                Output::Stopped => self.stopped = true,
            }
        }
        for answer in answers {
            self.input(answer);
        }
    }

    /// The worker says what came of the replay that it was at.
    pub fn answer_examine(&mut self, replays: Replays) {
        let Some(Output::Examine { ticket, segment, upto, position, .. }) = self.waiting.take() else {
            panic!("nothing is replayed")
        };
        let waits = std::mem::replace(&mut self.replays, replays);
        let answer = self.examine(ticket, segment, upto, position);
        self.replays = waits;
        self.input(answer);
    }

    /// The same as of the worker that ships, but for the engine: who wrote what is read from the bytes.
    fn examine(&self, ticket: Ticket, segment: SegmentNumber, upto: Offset, position: Offset) -> Input {
        let from = self.disk.snaps.get(&segment).map_or(0, |(from, _)| from.0);
        let parts = (from..position.0).filter(|offset| !self.disk.skipped.contains(&(segment, Offset(*offset))));
        let parts: Vec<(Offset, Bytes)> = parts
            .filter_map(|offset| match self.disk.entry(offset) {
                LogEntry::Commit(commit) => commit
                    .parts
                    .into_iter()
                    .find(|part| part.segment == segment)
                    .map(|part| (Offset(offset), part.bytes)),
                _ => None,
            })
            .collect();
        let own = |bytes: &[u8]| coheap_core::guard::structure(coheap_core::guard::Engine::Yrs, bytes).unwrap().own;
        let examined = match self.replays {
            Replays::Dies => Examined::Unknown,
            Replays::FailsAt(at) if at < upto.0 && parts.iter().any(|(offset, _)| offset.0 == at) => {
                let from = parts.iter().position(|(offset, _)| offset.0 == at).unwrap();
                let first = own(&parts[from].1);
                let later = parts[from..].iter().enumerate();
                let of_it = later.filter(|(n, (_, bytes))| {
                    *n == 0 || own(bytes).is_some_and(|own| first.is_some_and(|first| first.client == own.client))
                });
                let parts = of_it.map(|(_, (offset, bytes))| (*offset, bytes.len() as u64)).collect();
                Examined::Fails(Failing { client: first.map(|own| (own.client, own.start)), parts })
            }
            _ => Examined::Well,
        };
        Input::Examined { ticket, examined }
    }

    fn deliver(&mut self, conn: ConnId, frames: &Bytes) {
        let link = self.links.entry(conn).or_default();
        link.written += frames.len();
        if link.deaf {
            return;
        }
        for (kind, body) in split(&Bytes::from(message_of(frames))).unwrap() {
            let frame = Down::decode(kind, &body).unwrap().unwrap();
            match &frame {
                Down::Names(names) => link.names.extend(names.iter().copied()),
                Down::Author { number, replica, .. } => {
                    link.authors.insert(*number, *replica);
                }
                Down::Entry(entry) => {
                    assert!(link.authors.contains_key(&entry.author), "an author is declared before its first entry");
                    for part in &entry.parts {
                        let SegRef::Number(number) = part.segment else { panic!("entries name numbers") };
                        assert!(link.names.contains_key(&number), "a number is declared before its first use");
                    }
                }
                _ => {}
            }
            link.frames.push(frame);
        }
    }

    /// The oldest append reaches the disk.
    pub fn write_one(&mut self) {
        let append = self.unwritten.pop_front().expect("an append is under way");
        let upto = append.end();
        self.disk.write(append);
        self.input(Input::Durable { upto });
    }

    pub fn write_all(&mut self) {
        while !self.unwritten.is_empty() {
            self.write_one();
        }
    }

    /// The disk refuses everything that is under way.
    pub fn fail(&mut self, full: bool) {
        let attempt = self.unwritten.front().expect("an append is under way").attempt;
        self.unwritten.clear();
        self.input(Input::AppendFailed { attempt, full });
    }

    pub fn open(&mut self) -> ConnId {
        self.open_as("", true)
    }

    pub fn open_as(&mut self, subject: &str, can_write: bool) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.links.insert(conn, Link::default());
        self.input(Input::Opened { conn, subject: subject.into(), can_write });
        conn
    }

    pub fn send(&mut self, conn: ConnId, frames: &[Up]) {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        self.input(Input::Message { conn, bytes: message_of(&bytes).into() });
    }

    /// A fresh replica comes, with nothing.
    pub fn join(&mut self, id: u8) -> ConnId {
        let conn = self.open();
        self.send(conn, &[Up::Hello(hello(id))]);
        conn
    }

    /// A connection reads what waits for it: so many bytes. Where [`World::reads`] is off.
    pub fn read(&mut self, conn: ConnId) -> usize {
        let bytes = std::mem::take(&mut self.links.get_mut(&conn).expect("the connection was opened").written);
        self.input(Input::Written { conn, bytes });
        bytes
    }

    /// What has been sent to a connection since the last call, without declarations.
    pub fn take(&mut self, conn: ConnId) -> Vec<Down> {
        let link = self.links.get_mut(&conn).expect("the connection was opened");
        let frames = std::mem::take(&mut link.frames);
        frames.into_iter().filter(|frame| !matches!(frame, Down::Names(_) | Down::Author { .. })).collect()
    }

    pub fn welcome(&mut self, conn: ConnId) -> (Welcome, Vec<SegmentState>) {
        let mut assembly = Assembly::new();
        let link = self.links.get_mut(&conn).unwrap();
        let mut at = 0;
        while at < link.frames.len() {
            let whole = match link.frames[at].clone() {
                Down::Ok(welcome) => {
                    let bulk = welcome.bulk.clone();
                    assembly.head(welcome, bulk).unwrap()
                }
                Down::Chunk(chunk) => assembly.chunk(&chunk).unwrap(),
                other => panic!("before the Ok came {other:?}"),
            };
            at += 1;
            if let Some((welcome, bulk)) = whole {
                link.frames.drain(..at);
                let states =
                    if bulk.is_empty() { Vec::new() } else { SegmentState::decode_list(&bulk).unwrap().to_vec() };
                return (welcome, states);
            }
        }
        panic!("no Ok; closed: {:?}", link.closed);
    }

    /// The life of the log that a replica which was here would name.
    pub fn relay_epoch(&self) -> EpochId {
        self.disk.recovered.epochs.last().unwrap().0
    }

    pub fn closed(&self, conn: ConnId) -> Option<u16> {
        self.links.get(&conn).and_then(|link| link.closed)
    }

    /// The names that the replica has been told.
    pub fn name(&self, conn: ConnId, segment: SegRef) -> SegmentId {
        match segment {
            SegRef::Id(id) => id,
            SegRef::Number(number) => self.links[&conn].names[&number],
        }
    }

    /// Writes `n` commits of a fresh replica to a segment, all durable.
    pub fn fill(&mut self, id: u8, segment: SegmentId, n: usize) -> Writer {
        let conn = self.join(id);
        let mut writer = Writer::new(id);
        for _ in 0..n {
            let commit = writer.commit(&[segment]);
            self.send(conn, &[commit]);
        }
        self.input(Input::Closed { conn });
        self.links.remove(&conn);
        writer
    }
}

pub fn replica(id: u8) -> ReplicaId {
    ReplicaId([id; 16])
}

pub fn seg(n: u8) -> SegmentId {
    if n == 0 { SegmentId::ROOT } else { SegmentId([n; 16]) }
}

pub fn hello(id: u8) -> Hello {
    Hello {
        features: 0,
        fresh: true,
        restoring: false,
        must_exist: false,
        token: String::new(),
        name: format!("replica {id}"),
        heap: "h".into(),
        own: vec![(replica(id), Seq(0))],
        epoch: EpochId::default(),
        cut: Offset(0),
        bulk: Bulk::default(),
    }
}

/// The Hello of a replica that was here before.
pub fn back(id: u8, epoch: EpochId, cut: u64, residents: &[SegmentId]) -> Hello {
    let residents: Vec<_> = residents.iter().map(|segment| (*segment, GenId::ZERO_YRS)).collect();
    let bulk = Bulk::whole(Hello::encode_residents(&residents).into());
    Hello { fresh: false, epoch, cut: Offset(cut), bulk, ..hello(id) }
}
