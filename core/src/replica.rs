//! A replica: one open heap in one process, as a machine without I/O. It turns a program's wishes into commits, keeps what is
//! not acknowledged, and applies the log at its cut.
//!
//! ```text
//!  JavaScript / tests              Replica                         relay
//!  handle(Input::Commit) ──► edit segments, pending ──► Send(Commit) ──►
//!  ◄── Apply / Loaded ◄──── one step per entry (cut.rs) ◄──── Input::Receive(message)
//! ```
//!
//! Contract: `handle` one input, then `poll` until `None`, in this order; outputs are performed in the order given.
//! Randomness is a seed, time comes with each input. Files: `commit.rs` (C1: edits of the program), `session.rs` (the
//! connection), `pending.rs` (what is resent or redone), `packed.rs` (on to another instance), `cut.rs` (how entries, loads and catch-ups become visible), `waits.rs` (flush, sync, version, reach).

mod commit;
mod cut;
pub mod packed;
pub mod pending;
mod session;
mod waits;

use std::collections::VecDeque;

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

use self::pending::Pending;
use self::session::Session;
pub use self::session::js_code;
use self::waits::Waits;
pub use self::waits::{WaitError, WaitKind};
use crate::commit::{ClaimOf, EngineKind};
use crate::edit::{Handle, Patch, Wish};
use crate::heap::{Heap, Index, State};
use crate::id::{EpochId, ObjectId, Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::segment::write::Draw;
use crate::segment::{Overruled, Segment};
use crate::value::Kind;
use crate::wire::frame::Up;
use crate::wire::frame::down::ClaimState;

/// How a replica is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Entropy of the operating system; the replica's id and everything it draws comes from it.
    pub seed: [u8; 32],
    /// The heap's name, as in the URL.
    pub heap: String,
    /// Shown to others as the author's name.
    pub name: String,
    /// Refuse to create the heap.
    pub must_exist: bool,
    /// Bytes of unacknowledged deltas over which commits are refused; 0: no limit.
    pub max_unsaved: usize,
}

/// What one commit does to one segment.
#[derive(Debug, Clone)]
pub struct Section {
    /// Which segment.
    pub target: Target,
    /// Set when it carries a `done()`.
    pub claim: Option<ClaimOf>,
    /// In the order they were made.
    pub wishes: Vec<Wish>,
}

/// Which segment a section changes.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// One that is here.
    Here(Index),
    /// A new one, merged by this engine.
    New(SegmentId, EngineKind),
}

/// What happens to a replica.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of `edge`, which documents them")]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A transaction of the program; `size` is its encoded size.
    Commit { label: String, sections: Vec<Section>, size: usize },
    /// A message of the relay.
    Receive(Bytes),
    /// There is a connection.
    Connected { token: String },
    /// There is none any more.
    Disconnected,
    /// The program needs these segments.
    Load(Vec<(SegmentId, bool)>),
    /// This segment may go.
    Evict(Index),
    /// Tell me when.
    Wait { ticket: u64, kind: WaitKind },
    /// No longer wanted.
    Cancel { ticket: u64 },
    /// Everything a segment shows.
    Dump(Index),
    /// Ids of the segments of a partitioned map.
    Derive { parent: SegmentId, count: u64, name: String },
    /// To the relay, as it is: claims, presence.
    Forward(Up),
    /// The id of a handle's object.
    Object { segment: Index, handle: Handle },
    /// The handle of an object.
    Find { segment: Index, object: ObjectId },
    /// Counters.
    Stats,
    /// All of it as bytes.
    Export,
    /// Go on from those bytes; only as the first thing.
    Import(Bytes),
}

/// How a load ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStatus {
    /// It is here.
    There,
    /// Nobody ever made it.
    Missing,
    /// It was deleted.
    Deleted,
    /// It is quarantined.
    Quarantined,
}

/// Who made a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Author {
    /// The replica.
    pub replica: ReplicaId,
    /// Its display name.
    pub name: String,
    /// The subject of its token.
    pub subject: String,
}

/// What a replica wants done or told.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of `edge`, which documents them")]
pub enum Output {
    Send(Bytes),
    Apply {
        offset: Offset,
        author: Author,
        label: String,
        segments: Vec<(Index, Vec<Patch>)>,
    },
    Loaded {
        segment: Index,
        status: LoadStatus,
        bytes: usize,
        reset: bool,
        patches: Vec<Patch>,
    },
    Committed {
        seq: Seq,
        unsaved: usize,
        unsaved_bytes: usize,
        corrections: Vec<(Index, Vec<Patch>)>,
    },
    Acked {
        seq: Seq,
        unsaved: usize,
        unsaved_bytes: usize,
    },
    Online {
        exists: bool,
        time_ms: u64,
        epoch: EpochId,
    },
    Done {
        ticket: u64,
        version: String,
    },
    Failed {
        ticket: u64,
        error: WaitError,
    },
    Refused {
        seq: Seq,
        code: u64,
        label: String,
        segments: Vec<Index>,
    },
    Problem {
        code: &'static str,
        message: String,
    },
    /// A container that this replica made was won over by one of another kind that was made at once (S2).
    Overruled(Index, Overruled),
    Deadline(u64),
    Indexed {
        segment: SegmentId,
        index: Index,
    },
    Evicted(Index),
    Derived(Vec<SegmentId>),
    Object {
        handle: Option<Handle>,
        object: ObjectId,
        kind: Kind,
    },
    Joined {
        group: String,
        run: String,
        member: u64,
    },
    Group {
        group: String,
        run: String,
        members: Vec<ReplicaId>,
        done: Vec<String>,
        held: Vec<(String, u64)>,
    },
    Claimed {
        ticket: u64,
        group: String,
        run: String,
        key: String,
        grant: u64,
        state: ClaimState,
    },
    Lost {
        group: String,
        run: String,
        key: String,
        grant: u64,
    },
    Member {
        group: String,
        replica: ReplicaId,
        gone: bool,
        since_ms: u64,
        name: String,
        subject: String,
        state: Bytes,
    },
    Stats(Stats),
    /// The segment's engine is not built in. One that was loaded stays as loading until the replica goes on in a module that
    /// has it; a commit that was to make it did nothing, and an Error follows.
    NeedsFull(Index),
    Packed(Bytes),
    Error {
        code: &'static str,
        message: String,
    },
}

/// Counters since the replica was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Own commits.
    pub commits: u64,
    /// Own commits that were refused.
    pub refused: u64,
    /// Loads that ended at a segment that is quarantined, or that could not be decoded here.
    pub quarantined: u64,
    /// Deltas of others applied.
    pub deltas_in: u64,
    /// Own deltas.
    pub deltas_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Segments whose document was made anew.
    pub rebuilds: u64,
    /// Segments here.
    pub segments: u64,
    /// Their encoded bytes.
    pub live_bytes: u64,
}

impl Stats {
    /// In the order of `edge`.
    pub fn to_list(&self) -> [u64; 10] {
        [
            self.commits,
            self.refused,
            self.quarantined,
            self.deltas_in,
            self.deltas_out,
            self.bytes_in,
            self.bytes_out,
            self.rebuilds,
            self.segments,
            self.live_bytes,
        ]
    }

    /// The inverse; what is missing stays.
    fn set_list(&mut self, list: &[u64]) {
        let fields = [
            &mut self.commits,
            &mut self.refused,
            &mut self.quarantined,
            &mut self.deltas_in,
            &mut self.deltas_out,
            &mut self.bytes_in,
            &mut self.bytes_out,
            &mut self.rebuilds,
            &mut self.segments,
            &mut self.live_bytes,
        ];
        for (field, value) in fields.into_iter().zip(list) {
            *field = *value;
        }
    }
}

/// Randomness from the seed.
#[derive(Debug)]
struct Entropy(Xoshiro256PlusPlus);

impl Draw for Entropy {
    fn draw(&mut self) -> u64 {
        self.0.next_u64()
    }
}

impl Entropy {
    /// A client id for an engine: 53 bits, never 0.
    fn writer(&mut self) -> u64 {
        (self.draw() >> 11).max(1)
    }

    fn uid(&mut self) -> Uid {
        loop {
            let uid = self.draw();
            // Neither none nor its complement, which a refusal would make of it.
            if uid != 0 && uid != u64::MAX {
                return Uid(uid);
            }
        }
    }
}

/// One open heap.
#[derive(Debug)]
pub struct Replica {
    id: ReplicaId,
    options: Options,
    entropy: Entropy,
    heap: Heap,
    session: Session,
    pending: Pending,
    waits: Waits,
    /// Up to where everything that concerns the resident segments is applied (C6).
    cut: Offset,
    /// The lives of the log as of the last Ok; the last one is the current one.
    epochs: Vec<(EpochId, Offset)>,
    lineage: EpochId,
    /// There has never been an Ok.
    fresh: bool,
    seq: Seq,
    last_uid: Uid,
    nonce: u64,
    stats: Stats,
    now_ms: u64,
    out: VecDeque<Output>,
}

impl Replica {
    /// Opens a heap: nothing is resident, nothing is connected.
    pub fn new(options: Options) -> Replica {
        let mut entropy = Entropy(Xoshiro256PlusPlus::from_seed(options.seed));
        let mut id = [0; 16];
        entropy.0.fill_bytes(&mut id);
        Replica {
            id: ReplicaId(id),
            options,
            entropy,
            heap: Heap::new(),
            session: Session::Offline,
            pending: Pending::default(),
            waits: Waits::default(),
            cut: Offset(0),
            epochs: Vec::new(),
            lineage: EpochId::default(),
            fresh: true,
            seq: Seq(0),
            last_uid: Uid::NONE,
            nonce: 0,
            stats: Stats::default(),
            now_ms: 0,
            out: VecDeque::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Up to where it has applied.
    pub fn cut(&self) -> Offset {
        self.cut
    }

    /// How many commits are not acknowledged.
    pub fn unsaved(&self) -> usize {
        self.pending.len()
    }

    /// A segment's document, for comparisons in tests.
    pub fn document(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.heap.by_id_mut(id).and_then(|(_, slot)| slot.document())
    }

    /// Takes an input. `poll` until `None` comes next.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        debug_assert!(self.out.is_empty(), "every output has to be taken before the next input");
        self.now_ms = now_ms;
        match input {
            // The only deadline is the end of a Busy: what was not taken goes out again.
            Input::Tick => self.send_pending(),
            Input::Commit { label, sections, size } => self.commit(label, sections, size),
            Input::Receive(message) => self.receive(&message),
            Input::Connected { token } => self.connected(token),
            Input::Disconnected => self.disconnected(),
            Input::Load(segments) => self.load(&segments),
            Input::Evict(index) => self.evict(index),
            Input::Wait { ticket, kind } => self.wait(ticket, kind),
            Input::Cancel { ticket } => self.waits.cancel(ticket),
            Input::Dump(index) => self.dump(index),
            Input::Derive { parent, count, name } => self.derive(parent, count, &name),
            Input::Forward(frame) => self.forward(&frame),
            Input::Object { segment, handle } => self.object(segment, handle),
            Input::Find { segment, object } => self.find(segment, object),
            Input::Stats => self.tell_stats(),
            Input::Export => {
                let packed = Bytes::from(self.export());
                self.out.push_back(Output::Packed(packed));
            }
            Input::Import(packed) => self.import_here(&packed),
        }
        self.settle_waits();
    }

    /// The next output, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When `handle` wants to be called again at the latest.
    pub fn deadline(&self) -> Option<u64> {
        self.session.retry_at()
    }

    fn error(&mut self, code: &'static str, message: impl Into<String>) {
        self.out.push_back(Output::Error { code, message: message.into() });
    }

    fn problem(&mut self, code: &'static str, message: impl Into<String>) {
        self.out.push_back(Output::Problem { code, message: message.into() });
    }

    fn evict(&mut self, index: Index) {
        let Some(slot) = self.heap.slot_mut(index) else { return };
        let id = slot.id;
        if !matches!(slot.state, State::Live(_)) || self.pending.touches(id) {
            return;
        }
        slot.state = State::Away;
        self.unfollow(id);
        self.out.push_back(Output::Evicted(index));
        self.ask_for_the_declined();
    }

    fn dump(&mut self, index: Index) {
        let Some(document) = self.heap.slot(index).and_then(|slot| slot.peek()) else {
            return self.error("ERR_NOT_LOADED", "not loaded");
        };
        // A copy shows itself, so that nothing is disturbed; its handles are its own.
        let (bytes, id) = (document.encode(), document.id());
        let copy = Segment::decode(id, document.engine(), document.generation(), 1, &bytes, &[]);
        match copy {
            Ok(mut copy) => {
                let patches = copy.show();
                self.out.push_back(Output::Loaded {
                    segment: index,
                    status: LoadStatus::There,
                    bytes: bytes.len(),
                    reset: true,
                    patches,
                });
            }
            Err(error) => self.error("ERR_ENGINE", error.to_string()),
        }
    }

    fn derive(&mut self, parent: SegmentId, count: u64, name: &str) {
        let count = count.min(limits::FOLLOWS_MAX as u64);
        let ids = (0..count).map(|number| {
            let mut part = name.as_bytes().to_vec();
            part.push(0);
            part.extend_from_slice(&number.to_be_bytes());
            SegmentId::derive(parent, &part)
        });
        self.out.push_back(Output::Derived(ids.collect()));
    }

    fn object(&mut self, segment: Index, handle: Handle) {
        let found = self.heap.slot(segment).and_then(|slot| slot.peek()).and_then(|doc| doc.object(handle));
        let (object, kind) = found.unwrap_or((ObjectId::default(), Kind::Map));
        self.out.push_back(Output::Object { handle: found.map(|_| handle), object, kind });
    }

    fn find(&mut self, segment: Index, object: ObjectId) {
        let found = self.heap.slot(segment).and_then(|slot| slot.peek()).and_then(|doc| doc.find(object));
        let kind = found.map_or(Kind::Map, |(_, kind)| kind);
        self.out.push_back(Output::Object { handle: found.map(|(handle, _)| handle), object, kind });
    }

    fn tell_stats(&mut self) {
        let (mut segments, mut bytes) = (0, 0);
        for (_, slot) in self.heap.iter() {
            if let Some(document) = slot.peek() {
                segments += 1;
                bytes += document.size() as u64;
            }
        }
        self.stats.segments = segments;
        self.stats.live_bytes = bytes;
        self.out.push_back(Output::Stats(self.stats));
    }
}
