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
//! Randomness is a seed, and what a connection and a commit bring of it; time comes with each input. Files: `commit.rs` (C1: edits of the program), `session.rs` (the
//! connection), `lines.rs` (the ids it commits under), `fork.rs` (when another process uses them), `pending.rs` (what is resent or redone), `packed.rs` (on to another instance), `outside.rs` (the same when this one is lost), `rest.rs` (segments as bytes), `restore.rs` (a relay has lost its log), `roll.rs` (a segment goes over to another generation), `quarantine.rs` (an engine fails), `cut.rs` (how entries, loads and catch-ups become visible), `loads.rs` (what is asked for), `kept.rs` (what is evicted, and kept for a later load), `waits.rs` (flush, sync, version, reach).

mod commit;
mod cut;
mod fork;
mod kept;
mod lines;
mod loads;
mod outside;
pub mod packed;
pub mod pending;
mod quarantine;
mod rest;
mod restore;
mod roll;
mod session;
mod waits;

use std::collections::VecDeque;

use bytes::Bytes;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

use self::lines::Lines;
pub use self::outside::{Keep, Witness};
use self::pending::Pending;
use self::session::Session;
pub use self::session::js_code;
use self::waits::Waits;
pub use self::waits::{WaitError, WaitKind};
use crate::commit::{ClaimOf, EngineKind};
use crate::edit::{Edit, Handle, Patch, Wish};
use crate::heap::{Heap, Index};
use crate::id::{EpochId, ObjectId, Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::segment::write::Draw;
use crate::segment::{Overruled, Segment};
use crate::value::Kind;
use crate::wire::frame::Up;
use crate::wire::frame::down::ClaimState;

/// A segment up to this size is dumped by way of its encoding.
const DUMP_BYTES_ENCODED: usize = 16 * 1024;

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
    /// A transaction of the program; `size` is its encoded size. `entropy` is the operating system's, fresh: what the commit
    /// draws is unlike what a copy of this process draws.
    Commit { label: String, sections: Vec<Section>, size: usize, entropy: u64 },
    /// A message of the relay.
    Receive(Bytes),
    /// There is a connection.
    Connected { token: String, entropy: [u64; 4] },
    /// There is none any more.
    Disconnected,
    /// As Disconnected: the relay closed it, because another connection declares the same id (code 9).
    Replaced,
    /// The program needs these segments.
    Load(Vec<(SegmentId, bool)>),
    /// This segment may go.
    Evict(Index),
    /// This segment may go, and what is here of it is given out (Copied): a later [`Input::LoadFrom`] goes on from there (L5). What the
    /// face to JavaScript (`edge`) does not have yet.
    EvictKeeping(Index),
    /// The program needs this segment, and has kept this copy of it, from this process or another. What came since is asked for; all
    /// of it, if the relay finds that the copy is not what its log has, or it is damaged.
    LoadFrom { segment: SegmentId, derived: bool, copy: Bytes },
    /// This segment is not needed for now: it may be here as bytes (L6). Without `mirrored` the program forgets what it shows of it, also
    /// where it is here as bytes already.
    Pack { segment: Index, mirrored: bool },
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
    /// Go on from what was kept of another instance; only as the first thing. Restores follow.
    Resume(Bytes),
    /// This segment is as it was kept.
    Restore { segment: Index, kept: Bytes },
    /// What is kept of this segment is to be told anew, in few bytes.
    Keep(Index),
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
    /// What is here is being given back to a relay that has lost it, or that is over.
    Restoring {
        begins: bool,
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
    /// Another process makes commits under this replica's id (`copied`), or the relay knows that no longer (G5), so it has another one
    /// from now on, and `moved` commits with it. Where there is a connection, it is over: the driver opens another.
    Forked {
        id: ReplicaId,
        moved: usize,
        copied: bool,
    },
    /// The relay no longer knows the line of these commits, so whether it has them is in doubt; they are no longer shown unless
    /// it has (Loaded records follow). Never made again.
    InDoubt(Vec<Doubtful>),
    /// The relay has lost part of its log, and what it has of this segment cannot be put together with what is here: that of the
    /// relay stays, and takes the place of this one behind this output (Loaded, reset). What is shown until then is the only copy.
    Conflict(Index),
    /// The connection has to be opened anew.
    Reconnect,
    /// A container that this replica made was won over by one of another kind that was made at once (S2).
    Overruled(Index, Overruled),
    Deadline(u64),
    Indexed {
        segment: SegmentId,
        index: Index,
    },
    Evicted(Index),
    /// It is here as bytes. A program without a mirror of it loads it to read, and gets it at once; it also gets one (Loaded) when
    /// the document is needed otherwise.
    AtRest(Index),
    /// It was here as bytes, has a mirror, and is decoded again.
    Awake(Index),
    /// What was here of a segment that is evicted next: a [`crate::segment::copy::SegmentCopy`], encoded. There is none of one that no
    /// log knows, nor of one that is too large to be loaded in one piece.
    Copied(Index, Bytes),
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
    /// To be kept outside of the instance: what another one goes on from if this one is lost.
    Keep(Keep),
    Error {
        code: &'static str,
        message: String,
    },
}

/// A commit whose fate nobody knows (G5).
#[derive(Debug, Clone)]
pub struct Doubtful {
    /// Its number.
    pub seq: Seq,
    /// What the program called it.
    pub label: String,
    /// What it did, segment by segment.
    pub edits: Vec<(SegmentId, Vec<Edit>)>,
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
    /// Mixes fresh entropy in: a copy of this process, which has the same state, draws other numbers from here on.
    fn stir(&mut self, fresh: [u64; 4]) {
        let mut seed = [0; 32];
        for (at, (bytes, fresh)) in (1_u64..).zip(seed.chunks_mut(8).zip(fresh)) {
            // SplitMix64's output function: every bit of the input reaches every bit.
            let mut word = fresh.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.copy_from_slice(&(self.0.next_u64() ^ word ^ (word >> 31)).to_le_bytes());
        }
        self.0 = Xoshiro256PlusPlus::from_seed(seed);
    }

    /// An id for a replica.
    fn replica(&mut self) -> ReplicaId {
        let mut id = [0; 16];
        self.0.fill_bytes(&mut id);
        ReplicaId(id)
    }

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
    /// What is here still has to be given back to a relay that has lost it (D3).
    restoring: bool,
    /// Commits of which a generation that a segment has gone over to does not say whether they are in it (D4).
    doubtful: Vec<(ReplicaId, Seq)>,
    /// Of the newest commit under `id`.
    seq: Seq,
    last_uid: Uid,
    lines: Lines,
    /// How many commits there have been, under whatever id.
    number: Seq,
    nonce: u64,
    stats: Stats,
    now_ms: u64,
    out: VecDeque<Output>,
    witness: Witness,
    /// Segments that are loaded anew, and perhaps some that were.
    reloading: Vec<Index>,
    /// Where it stands, as it was last told.
    placed: Vec<u8>,
}

impl Replica {
    /// Opens a heap: nothing is resident, nothing is connected.
    pub fn new(options: Options) -> Replica {
        let mut entropy = Entropy(Xoshiro256PlusPlus::from_seed(options.seed));
        let mut replica = Replica {
            id: entropy.replica(),
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
            restoring: false,
            doubtful: Vec::new(),
            seq: Seq(0),
            last_uid: Uid::NONE,
            lines: Lines::default(),
            number: Seq(0),
            nonce: 0,
            stats: Stats::default(),
            now_ms: 0,
            out: VecDeque::new(),
            witness: |_| {},
            reloading: Vec::new(),
            placed: Vec::new(),
        };
        replica.placed = replica.place();
        replica
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
            // What a Busy put off goes out again (R11).
            Input::Tick => {
                self.send_pending();
                self.report_again();
                // A timer may fire a little early, by what its clock and ours are rounded to: it was too soon, not in vain.
                if let Some(at) = self.deadline() {
                    self.out.push_back(Output::Deadline(at));
                }
            }
            Input::Commit { label, sections, size, entropy } => self.commit(label, sections, size, entropy),
            Input::Receive(message) => self.receive(&message),
            Input::Connected { token, entropy } => self.connected(token, entropy),
            Input::Disconnected => self.disconnected(),
            Input::Replaced => self.replaced(),
            Input::Load(segments) => self.load(&segments),
            Input::Evict(index) => self.evict(index, false),
            Input::EvictKeeping(index) => self.evict(index, true),
            Input::LoadFrom { segment, derived, copy } => self.load_from(segment, derived, &copy),
            Input::Pack { segment, mirrored } => self.pack(segment, mirrored),
            Input::Wait { ticket, kind } => self.wait(ticket, kind),
            Input::Cancel { ticket } => self.waits.cancel(ticket),
            Input::Dump(index) => self.dump(index),
            Input::Derive { parent, count, name } => self.derive(parent, count, &name),
            Input::Forward(frame) => self.forward(&frame),
            Input::Object { segment, handle } => self.object(segment, handle),
            Input::Find { segment, object } => self.find(segment, object),
            Input::Stats => self.tell_stats(),
            Input::Export => {
                self.unpack_all();
                let packed = Bytes::from(self.export());
                self.out.push_back(Output::Packed(packed));
            }
            Input::Import(packed) => self.import_here(&packed),
            Input::Resume(kept) => self.resume(&kept),
            Input::Restore { segment, kept } => self.restore(segment, &kept),
            Input::Keep(index) => {
                self.keep_whole(index);
                self.pack_anew(index);
            }
        }
        self.settle_waits();
        self.keep_commits();
        self.keep_place();
    }

    /// The next output, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When `handle` wants to be called again at the latest.
    pub fn deadline(&self) -> Option<u64> {
        self.session.again_at()
    }

    fn error(&mut self, code: &'static str, message: impl Into<String>) {
        self.out.push_back(Output::Error { code, message: message.into() });
    }

    fn problem(&mut self, code: &'static str, message: impl Into<String>) {
        self.out.push_back(Output::Problem { code, message: message.into() });
    }

    fn dump(&mut self, index: Index) {
        self.unpack(index);
        let Some(document) = self.heap.slot_mut(index).and_then(|slot| slot.document()) else {
            return self.error("ERR_NOT_LOADED", "not loaded");
        };
        let size = document.size();
        // The bytes of a small one are looked at with it. Those of a large one would take as long, with each call that changes a
        // register, as all the changes before.
        let patches = if size > DUMP_BYTES_ENCODED {
            Ok(document.dump())
        } else {
            let (bytes, id) = (document.encode(), document.id());
            let copy = Segment::decode(id, document.engine(), document.generation(), 1, &bytes, &[]);
            copy.map(|mut copy| copy.show())
        };
        match patches {
            Ok(patches) => self.out.push_back(Output::Loaded {
                segment: index,
                status: LoadStatus::There,
                bytes: size,
                reset: true,
                patches,
            }),
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
        self.unpack(segment);
        let found = self.heap.slot(segment).and_then(|slot| slot.peek()).and_then(|doc| doc.object(handle));
        let (object, kind) = found.unwrap_or((ObjectId::default(), Kind::Map));
        self.out.push_back(Output::Object { handle: found.map(|_| handle), object, kind });
    }

    fn find(&mut self, segment: Index, object: ObjectId) {
        self.unpack(segment);
        let found = self.heap.slot(segment).and_then(|slot| slot.peek()).and_then(|doc| doc.find(object));
        let kind = found.map_or(Kind::Map, |(_, kind)| kind);
        self.out.push_back(Output::Object { handle: found.map(|(handle, _)| handle), object, kind });
    }

    fn tell_stats(&mut self) {
        let (mut segments, mut bytes) = (0, 0);
        for (_, slot) in self.heap.iter() {
            segments += u64::from(slot.generation().is_some());
            bytes += slot.peek().map_or(0, |document| document.size() as u64);
        }
        self.stats.segments = segments;
        self.stats.live_bytes = bytes;
        self.out.push_back(Output::Stats(self.stats));
    }
}
