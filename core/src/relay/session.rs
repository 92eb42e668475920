//! What the relay knows of one connection: its phase, its own ids, how far its stream is, what it is owed.
//!
//! ```text
//!   Greeting ──Hello whole──► Waiting ──epoch on disk──► Catching ──states read──► Streaming
//!                                ├────────────── no catch-up needed ──────────────────┤
//!                                └── it holds what the log lacks ──► Restoring ────────┘
//! ```
//!
//! Next: `hello.rs` (from one phase to the next), `deliver.rs` (what a streaming connection is sent).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::load::Loads;
use super::port::{ConnId, Ticket};
use super::restore::Restoring;
use crate::id::{EpochId, GenId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use crate::limits;
use crate::log::{AuthorInfo, LogEntry};
use crate::time::Time;
use crate::wire::frame::Assembly;
use crate::wire::frame::up::{Have, Hello};

/// Bytes of frames on their way to one connection before its stream waits: a slow reader costs a cursor and this much.
const IN_FLIGHT_BYTES: usize = limits::QUEUED_BYTES_MAX / 16;

#[derive(Debug)]
pub(super) enum Phase {
    /// Only a Hello, and its chunks, may come.
    Greeting,
    /// The Hello is whole; the answer waits until the log is ready (R6).
    Waiting(Box<Greeted>),
    /// The states of its resident segments are being read.
    Catching(Box<CatchUp>),
    /// It has its Ok, and gives back what the log lacks before anything else (`restore.rs`).
    Restoring(Restoring),
    /// It has its Ok.
    Streaming,
}

/// A whole Hello.
#[derive(Debug)]
pub(super) struct Greeted {
    pub hello: Hello,
    pub residents: Vec<(SegmentId, GenId)>,
    /// Its lines are durable, as its rings will have them, from here on.
    pub settled: Option<Offset>,
}

/// A catch-up under way: all of it becomes one message.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub greeted: Greeted,
    pub position: Offset,
    /// What is still to be read.
    pub wanted: VecDeque<SegmentNumber>,
    /// States so far, encoded.
    pub states: Vec<u8>,
    pub count: u64,
}

/// One of the ids a connection may commit under.
#[derive(Debug)]
pub(super) struct OwnId {
    pub id: ReplicaId,
    /// The uid of the commit this connection sent last for it; what a commit without `prev` follows.
    pub sent: Option<Uid>,
    /// A commit of it was not admitted: those behind it are ignored, which is no protocol error (R2c).
    pub refused: bool,
    /// It was told Busy from this number on; while the log is being read again, all behind it is passed over.
    pub busy_from: Option<Seq>,
    /// The first that was passed over without a word since.
    pub passed_over: Option<Seq>,
}

/// What is sent when the stream has reached a position (R3, R11). If that is never written: the answer to a Sync with the
/// position up to which the log is, for all others a Busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    Ack {
        owner: u64,
        seq: Seq,
    },
    Refused {
        owner: u64,
        seq: Seq,
        uid: Uid,
        code: u64,
    },
    /// Its sender waits for the Roll, which may not be durable yet [X5].
    Rebase {
        owner: u64,
        seq: Seq,
        segment: SegmentId,
        generation: GenId,
    },
    /// The answer to a Sync (T5).
    Head {
        nonce: Nonce,
    },
}

/// A long message that is being sent piece by piece.
#[derive(Debug)]
pub(super) struct LongOut {
    pub stream: u64,
    pub rest: Bytes,
    /// Entries wait for its last piece.
    pub holds_entries: bool,
}

/// A Load that has not been answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub nonce: Nonce,
    pub id: SegmentId,
    /// A copy that the replica has of it (L5).
    pub have: Option<Have>,
    /// The store can give the state from this position on only.
    pub not_before: Offset,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub subject: String,
    pub can_write: bool,
    pub phase: Phase,
    pub own: Vec<OwnId>,
    pub author: AuthorInfo,
    pub assembly: Assembly<Hello>,
    /// Of a Restore.
    pub pieces: Assembly<()>,
    /// Bytes of a Restore that is not in the log yet.
    pub put_aside: usize,
    /// When its first piece came.
    pub restores_since: Time,
    /// The segments of its Restore that the worker could not merge: how often in a row, and up to where the log had the segment when it
    /// first did not.
    pub failed_merges: BTreeMap<SegmentId, (u32, Offset)>,
    /// The life of a log that is lost in which its replica is, and up to where that life's log is this one, if it is to give back
    /// what it holds.
    pub lost: (EpochId, Offset),
    /// The stream's position: all below is sent, or held nothing for it.
    pub cursor: Offset,
    /// The position the replica can know of.
    pub told: Offset,
    /// By position, in order.
    pub owed: VecDeque<(Offset, Owed)>,
    /// Entries admitted on this connection and not yet passed by its stream (R5).
    pub mine: BTreeSet<Offset>,
    /// Segment numbers and authors declared to it.
    pub named: BTreeSet<SegmentNumber>,
    pub authors: BTreeSet<u64>,
    /// Sent, and not yet reported as written.
    pub in_flight: usize,
    pub slow_since: Option<Time>,
    pub long: VecDeque<LongOut>,
    pub streams: u64,
    pub loads: Loads,
    pub loading: Option<(Ticket, Offset, Vec<Wanted>)>,
    /// A piece of the log that was read for it.
    pub replay: VecDeque<(Offset, LogEntry)>,
    pub replaying: Option<Ticket>,
}

impl Conn {
    pub fn new(subject: String, can_write: bool) -> Conn {
        Conn {
            author: AuthorInfo { name: String::new(), subject: subject.clone() },
            subject,
            can_write,
            phase: Phase::Greeting,
            own: Vec::new(),
            assembly: Assembly::new(),
            pieces: Assembly::new(),
            put_aside: 0,
            restores_since: Time(0),
            failed_merges: BTreeMap::new(),
            lost: Default::default(),
            cursor: Offset(0),
            told: Offset(0),
            owed: VecDeque::new(),
            mine: BTreeSet::new(),
            named: BTreeSet::new(),
            authors: BTreeSet::new(),
            in_flight: 0,
            slow_since: None,
            long: VecDeque::new(),
            streams: 0,
            loads: Loads::default(),
            loading: None,
            replay: VecDeque::new(),
            replaying: None,
        }
    }

    /// Its replica's id; known once the Hello is whole.
    pub fn replica(&self) -> Option<ReplicaId> {
        self.own.first().map(|own| own.id)
    }

    /// Whether this line is one of its own.
    pub fn owns(&self, id: ReplicaId) -> bool {
        self.own.iter().any(|own| own.id == id)
    }

    /// The first entry that its stream may still need from the log.
    pub fn needs_log_from(&self) -> Option<Offset> {
        match &self.phase {
            Phase::Streaming => Some(self.cursor),
            Phase::Catching(catch_up) => Some(catch_up.position),
            Phase::Restoring(Restoring::Reading(_, _, reading)) => Some(reading.position),
            Phase::Greeting | Phase::Waiting(_) | Phase::Restoring(_) => None,
        }
    }

    /// Whether it has its Ok.
    pub fn welcomed(&self) -> bool {
        matches!(self.phase, Phase::Streaming | Phase::Restoring(_))
    }

    pub fn streaming(&self) -> bool {
        matches!(self.phase, Phase::Streaming)
    }

    /// Whether more may be sent to it now.
    pub fn has_room(&self) -> bool {
        self.in_flight < IN_FLIGHT_BYTES
    }

    /// Whether an entry may be sent to it now.
    pub fn takes_entries(&self) -> bool {
        self.streaming() && self.has_room() && !self.long.iter().any(|long| long.holds_entries)
    }
}

/// Who has room for what is about to be sent, counting what the same round has given them.
#[derive(Debug)]
pub(super) struct Room<'a> {
    conns: &'a BTreeMap<ConnId, Conn>,
    given: BTreeMap<ConnId, usize>,
}

impl<'a> Room<'a> {
    pub fn of(conns: &'a BTreeMap<ConnId, Conn>) -> Room<'a> {
        Room { conns, given: BTreeMap::new() }
    }

    /// Whether this may be sent to a connection; it counts as sent then.
    pub fn take(&mut self, id: ConnId, bytes: usize) -> bool {
        let Some(conn) = self.conns.get(&id) else { return false };
        let given = self.given.entry(id).or_default();
        let room = conn.in_flight + *given < IN_FLIGHT_BYTES;
        if room {
            *given += bytes;
        }
        room
    }
}
