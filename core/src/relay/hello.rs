//! A connection begins: the Hello, who else has its ids, where its stream starts, and what it needs to get there (R1).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::port::{ConnId, StateOf, StoredState};
use super::session::{CatchUp, Greeted, LongOut, OwnId, Phase};
use super::timers::Timer;
use super::{Output, Relay, Standing};
use crate::commit::{EngineKind, LAYOUT};
use crate::guard::RELAY;
use crate::id::{GenId, Offset, SegmentId, SegmentNumber};
use crate::limits;
use crate::log::AuthorInfo;
use crate::mutate::{self, Mutation};
use crate::wire::code::Code;
use crate::wire::codec::{Malformed, Write};
use crate::wire::frame::down::Welcome;
use crate::wire::frame::roll::GenerationHeader;
use crate::wire::frame::up::Hello;
use crate::wire::frame::{Bulk, Chunk, Down, SegmentState, SegmentStatus, VERSION};
use crate::wire::list::List;

/// Bytes of states read for a catch-up in one go.
const CATCH_UP_READ_BYTES: usize = 4 << 20;

/// Where a replica's stream can start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    /// From this position on, by entries.
    Replay(Offset),
    /// By states of its resident segments.
    CatchUp,
    /// Where the replica has given back what the log has lost: all that both have is below this position.
    Restore(Offset),
    /// Nowhere: it says that it was told by this very life what this life never had.
    Nowhere,
}

impl Relay {
    /// The Hello, or its first piece, is here.
    pub(super) fn hello(&mut self, id: ConnId, hello: Hello) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !matches!(conn.phase, Phase::Greeting) || !conn.own.is_empty() {
            return self.close(id, Code::BadFrame);
        }
        let bulk = hello.bulk.clone();
        match conn.assembly.head(hello, bulk) {
            Ok(None) => {}
            Ok(Some((hello, bulk))) => self.hello_whole(id, hello, &bulk),
            Err(_) => self.close(id, Code::BadFrame),
        }
    }

    /// A further piece of it.
    pub(super) fn hello_chunk(&mut self, id: ConnId, chunk: &Chunk) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.assembly.chunk(chunk) {
            Ok(None) => {}
            Ok(Some((hello, bulk))) => self.hello_whole(id, hello, &bulk),
            Err(_) => self.close(id, Code::BadFrame),
        }
    }

    fn hello_whole(&mut self, id: ConnId, hello: Hello, bulk: &[u8]) {
        let residents = if bulk.is_empty() { Ok(Vec::new()) } else { Hello::decode_residents(bulk) };
        let Ok(residents) = residents else { return self.close(id, Code::BadFrame) };
        // The id under which relays write is nobody's (G1).
        if hello.own.iter().any(|(own, _)| *own == RELAY) {
            return self.close(id, Code::BadFrame);
        }
        self.timers.clear(Timer::Hello(id));
        // R1: from here on no frame of an earlier connection that declares one of these ids is looked at.
        for (own, _) in &hello.own {
            if let Some(other) = self.ids.get(own).copied().filter(|_| !mutate::on(Mutation::NoFence)) {
                self.close(other, Code::Replaced);
            }
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.author = AuthorInfo { name: hello.name.clone(), subject: conn.subject.clone() };
        for (own, _) in &hello.own {
            conn.own.push(OwnId { id: *own, sent: None, refused: false, busy_from: None, passed_over: None });
            self.ids.insert(*own, id);
        }
        conn.phase = Phase::Waiting(Box::new(Greeted { hello, residents, settled: None }));
        self.release_waiting();
    }

    /// Answers the Hellos that waited for the log, if it is ready: its epoch is on the disk (R6), and it is not being read
    /// again.
    pub(super) fn release_waiting(&mut self) {
        if !self.log.ready() || self.standing != Standing::Running {
            return;
        }
        let waiting: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| matches!(conn.phase, Phase::Waiting(_))).map(|(id, _)| *id).collect();
        for id in waiting {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if let Phase::Waiting(greeted) = std::mem::replace(&mut conn.phase, Phase::Greeting) {
                self.start(id, *greeted);
            }
        }
    }

    /// Decides where the stream starts.
    fn start(&mut self, id: ConnId, mut greeted: Greeted) {
        let hello = &greeted.hello;
        if hello.must_exist && !self.log.exists() {
            return self.close(id, Code::NotFound);
        }
        // What the rings say of its lines must be durable to count: a replica takes another id for it, undoes what is void, and
        // moves commits to lines where they are admitted (R11, F1–F3). From here on nobody else can add to these lines (R1).
        let settled = *greeted.settled.get_or_insert_with(|| {
            let own: BTreeSet<_> = hello.own.iter().map(|(own, _)| *own).collect();
            self.log.settles(&own)
        });
        if self.log.durable < settled.min(self.log.head) && !mutate::on(Mutation::DuplicateAtOnce) {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.phase = Phase::Waiting(Box::new(greeted));
            }
            return;
        }
        let start = self.start_of(id, &greeted);
        for (segment, _) in &greeted.residents {
            self.interest.follow(id, *segment, self.log.number(*segment));
        }
        match start {
            Start::Nowhere => self.close(id, Code::StoreFailed),
            Start::Restore(shared) => self.begin_restore(id, &greeted, shared),
            Start::Replay(position) => self.welcome(id, &greeted, position, None),
            _ if greeted.residents.is_empty() => self.welcome(id, &greeted, self.log.durable, None),
            _ => self.catch_up(id, greeted),
        }
    }

    fn start_of(&self, id: ConnId, greeted: &Greeted) -> Start {
        let hello = &greeted.hello;
        // P: up to where the replica's numbers mean what ours mean.
        let end = self.log.end_of(hello.epoch);
        let position = end.map_or(Offset(0), |end| hello.cut.min(end));
        if !hello.fresh && (hello.cut > position || hello.restoring) {
            // Who may not write may not give anything back: it goes on from what there is.
            let can_write = self.conns.get(&id).is_some_and(|conn| conn.can_write);
            // R4, C6: nobody is told of a position before it is durable, and a life of which the disk loses anything ends with
            // that (R6). So this log has lost nothing that could be given back to it. If it has, somebody put an old disk, or an old
            // machine, under a relay that runs: the next life can tell.
            let of_this_life = self.log.epochs.last().is_some_and(|(epoch, _)| *epoch == hello.epoch);
            if can_write && of_this_life && hello.cut > position {
                return Start::Nowhere;
            }
            return if can_write { Start::Restore(position) } else { Start::CatchUp };
        }
        // A generation that is not the current one: states instead of the Roll that made it, which may have been folded away.
        // A replica that is to make a document anew names one that there never was, of a segment without commits too.
        let stale = greeted.residents.iter().any(|(segment, generation)| {
            let row = self.log.number(*segment).and_then(|number| self.log.segment(number));
            *generation == GenId::NONE || row.is_some_and(|row| row.generation != *generation)
        });
        // A fold that is under way may be about to raise the floor.
        let floor = self.folding.map_or(self.log.floor, |(_, keep)| keep.max(self.log.floor));
        if hello.fresh || end.is_none() || position < floor || stale {
            return Start::CatchUp;
        }
        Start::Replay(position)
    }

    /// Reads the states of its resident segments, all at one position: what is durable now.
    fn catch_up(&mut self, id: ConnId, greeted: Greeted) {
        let position = if mutate::on(Mutation::CatchUpAtHead) { self.log.head } else { self.log.durable };
        let mut catch_up = CatchUp { greeted, position, wanted: VecDeque::new(), states: Vec::new(), count: 0 };
        for (segment, _) in &catch_up.greeted.residents {
            match self.log.number(*segment) {
                Some(number) if self.log.segment(number).is_some_and(|row| row.born < position) => {
                    catch_up.wanted.push_back(number);
                }
                _ => {
                    unknown_state(*segment).encode(&mut catch_up.states);
                    catch_up.count += 1;
                }
            }
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Catching(Box::new(catch_up));
        self.catch_up_next(id);
    }

    fn catch_up_next(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Phase::Catching(catch_up) = &conn.phase else { return };
        if !catch_up.wanted.is_empty() {
            let (position, segments) =
                (catch_up.position, catch_up.wanted.iter().copied().map(StateOf::from).collect());
            let ticket = self.ticket(id);
            let bytes_max = CATCH_UP_READ_BYTES;
            return self.out.push_back(Output::ReadStates { ticket, position, segments, bytes_max });
        }
        let Phase::Catching(catch_up) = std::mem::replace(&mut conn.phase, Phase::Greeting) else { return };
        let mut bulk = Vec::with_capacity(catch_up.states.len() + 4);
        bulk.varint(catch_up.count);
        bulk.extend_from_slice(&catch_up.states);
        self.welcome(id, &catch_up.greeted, catch_up.position, Some(Bytes::from(bulk)));
    }

    /// States for a catch-up have been read.
    pub(super) fn catch_up_read(&mut self, id: ConnId, states: Vec<StoredState>) {
        for state in states {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let Phase::Catching(catch_up) = &mut conn.phase else { return };
            match state {
                StoredState::At { segment, header, snapshot, deltas } if catch_up.wanted.front() == Some(&segment) => {
                    catch_up.wanted.pop_front();
                    let row = self.log.segment(segment);
                    let state =
                        row.and_then(|row| stored_state(segment, row, &header, &conn.own, snapshot, deltas).ok());
                    let Some(state) = state else { return self.close(id, Code::StoreFailed) };
                    state.encode(&mut catch_up.states);
                    catch_up.count += 1;
                    // And how many there are.
                    if catch_up.states.len() + 10 > limits::LONG_BYTES_MAX {
                        return self.close_too_long(id);
                    }
                }
                StoredState::At { .. } | StoredState::Since { .. } => return self.close(id, Code::StoreFailed),
                // A fold overtook the position: once more, at a later one.
                StoredState::NotBefore { .. } if mutate::on(Mutation::CatchUpInParts) => {
                    catch_up.position = self.log.durable;
                    break;
                }
                StoredState::NotBefore { .. } => {
                    let Phase::Catching(catch_up) = std::mem::replace(&mut conn.phase, Phase::Greeting) else { return };
                    return self.catch_up(id, catch_up.greeted);
                }
            }
        }
        self.catch_up_next(id);
    }

    /// The Ok for a stream that goes on from `position`.
    pub(super) fn answer_to(&self, greeted: &Greeted, position: Offset) -> Welcome {
        // Rings reach up to the head (R5): a clone is seen by its uids.
        let ring = (0..)
            .zip(&greeted.hello.own)
            .filter_map(|(at, (own, _))| Some((at, self.log.line(*own)?.rows().copied().collect())))
            .collect();
        let epochs = &self.log.epochs;
        Welcome {
            features: 0,
            exists: self.log.exists(),
            restore: false,
            catchup: false,
            time_ms: self.config.unix_ms + self.now.0,
            lineage: self.log.lineage,
            epochs: epochs.iter().skip(epochs.len().saturating_sub(limits::EPOCHS_MAX)).copied().collect(),
            position,
            forgotten: self.log.forgotten,
            window: limits::WINDOW as u64,
            ring,
            bulk: Bulk::default(),
        }
    }

    /// Sends the Ok; the stream goes on from `position`.
    fn welcome(&mut self, id: ConnId, greeted: &Greeted, position: Offset, catch_up: Option<Bytes>) {
        let welcome = Welcome { catchup: catch_up.is_some(), ..self.answer_to(greeted, position) };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Streaming;
        conn.cursor = position;
        conn.told = position;
        self.send_long(id, catch_up.unwrap_or_default(), true, |bulk| Down::Ok(Welcome { bulk, ..welcome }));
        self.pump(id);
    }

    /// Sends a long message: the head with the first piece now, the rest as there is room.
    pub(super) fn send_long(&mut self, id: ConnId, bytes: Bytes, holds_entries: bool, head: impl FnOnce(Bulk) -> Down) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut rest = bytes;
        let bulk = if rest.len() <= limits::CHUNK_BYTES_MAX {
            Bulk::whole(rest)
        } else {
            conn.streams += 1;
            let first = rest.split_to(limits::CHUNK_BYTES_MAX);
            conn.long.push_back(LongOut { stream: conn.streams, rest, holds_entries });
            Bulk { stream: conn.streams, bytes: first }
        };
        self.send(id, &head(bulk));
    }
}

/// What a replica is told of a segment that the log does not know at that position.
pub(super) fn unknown_state(id: SegmentId) -> SegmentState {
    SegmentState {
        id,
        number: None,
        status: SegmentStatus::Unknown,
        engine: EngineKind::Yrs,
        layout: LAYOUT,
        generation: EngineKind::Yrs.generation_zero(),
        header: Bytes::new(),
        snapshot: Bytes::new(),
        deltas: List::new(),
    }
}

/// A generation's header, as stored, with the lines of a connection's own ids (G4); `None`: generation 0.
pub(super) fn header_for(stored: &[u8], own: &[OwnId]) -> Result<Option<GenerationHeader>, Malformed> {
    if stored.is_empty() {
        return Ok(None);
    }
    let is_own = |line| own.iter().any(|own| own.id == line);
    GenerationHeader::decode(stored).map(|header| Some(header.of_lines(is_own)))
}

/// What a connection with these own ids is told of a segment, as read from the store with its header.
pub(super) fn stored_state(
    number: SegmentNumber,
    row: &super::SegmentRow,
    header: &[u8],
    own: &[OwnId],
    snapshot: Bytes,
    deltas: Vec<Bytes>,
) -> Result<SegmentState, Malformed> {
    Ok(alive_state(number, row, header_for(header, own)?.as_ref(), snapshot, deltas))
}

/// What a replica is told of a segment, as read from the store. The generation is that of the state, which is at a position
/// that is durable; the row may be ahead of it.
pub(super) fn alive_state<'a>(
    number: SegmentNumber,
    row: &super::SegmentRow,
    header: impl Into<Option<&'a GenerationHeader>>,
    snapshot: Bytes,
    deltas: Vec<Bytes>,
) -> SegmentState {
    let header = header.into();
    SegmentState {
        id: row.id,
        number: Some(number),
        status: SegmentStatus::Alive,
        engine: row.engine,
        layout: row.layout,
        generation: header.map_or(row.engine.generation_zero(), |header| header.generation),
        header: header.map(|header| header.encode().into()).unwrap_or_default(),
        snapshot,
        deltas: deltas.into(),
    }
}

/// The code a frame earns that does not parse: a Hello of another version is told so.
pub(super) fn why_malformed(kind: u8, body: &[u8]) -> Code {
    const HELLO: u8 = 0x01;
    match kind {
        HELLO if Hello::version_of(body).is_some_and(|version| version != VERSION) => Code::Version,
        _ => Code::BadFrame,
    }
}
