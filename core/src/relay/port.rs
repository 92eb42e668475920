//! What goes into a relay machine and what comes out: its whole surface, as values. The driver performs the outputs in the
//! order given; their order is meaning. Nothing here decides anything. Next: `../relay.rs`.

use std::fmt;

use bytes::Bytes;

use crate::admit::AdmitRow;
use crate::commit::EngineKind;
use crate::guard::Clocks;
use crate::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber};
use crate::log::LogEntry;
use crate::time::{Millis, Time};

/// One connection, as the driver counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct ConnId(pub u64);

/// Tells the answer to one read from the answer to another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticket(pub u64);

/// What a machine is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The heap's name, decoded.
    pub heap: String,
    /// Random bits of this relay process: the random half of the epochs it begins (R6). A heap that was idle, unloaded and
    /// opened again by one process goes on in its epoch: nothing can have been lost.
    pub life: u64,
    /// Random bits of this machine: run ids and grants are drawn from them.
    pub entropy: u64,
    /// Unix milliseconds at [`crate::time::Time`] 0; told to replicas, decides nothing.
    pub unix_ms: u64,
    /// How long a machine without connections stays loaded.
    pub idle: Millis,
    /// Deltas of one segment, in bytes, after which it is folded; `None`: never (there is no worker).
    pub fold_bytes: Option<u64>,
    /// How long after a restore a commit is told Busy that would otherwise be refused (D6): it may have been admitted to the
    /// log that was lost.
    pub refuses_after: Millis,
    /// Before this time no commit is admitted: whoever holds what a restored backup lacks comes first (D7).
    pub admits_from: Time,
    /// Before this time no generation is made: only a replica that comes can say that the disk was rolled back (D6).
    pub rolls_from: Time,
    /// How long the line of an id is kept after its last entry (CORE-PROTOCOL §2); `None`: for ever.
    pub retention: Option<Millis>,
}

/// A heap as the store has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The lives of the log, oldest first; empty for a heap without a commit. The first one ever is the lineage.
    pub lineage: EpochId,
    /// Where each began.
    pub epochs: Vec<(EpochId, Offset)>,
    /// The position after the last whole record.
    pub head: Offset,
    /// Below it, the log has been dropped, or a fold under way may be about to drop it: no stream starts there.
    pub floor: Offset,
    /// Every line.
    pub admit: Vec<(ReplicaId, AdmitRow)>,
    /// Every segment, by number from 0 without a gap.
    pub segments: Vec<SegmentRow>,
    /// The clock table of every segment that has one, encoded, and the generation it is of.
    pub clocks: Vec<(SegmentNumber, GenId, Bytes)>,
    /// No generation is made before this time, in Unix milliseconds (D6).
    pub roll_hold_ms: u64,
    /// The entries of lines that were dropped are all below this position; 0: none was.
    pub forgotten: Offset,
}

/// A segment as the log knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentRow {
    /// Its id.
    pub id: SegmentId,
    /// What merges it.
    pub engine: EngineKind,
    /// Its layout version.
    pub layout: u8,
    /// Its current generation.
    pub generation: GenId,
    /// The entry that created it.
    pub born: Offset,
    /// What lies in the log behind its snapshot.
    pub tail: SegmentTail,
}

/// The deltas of a segment that its snapshot does not cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentTail {
    /// How many.
    pub deltas: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the snapshot before them.
    pub snapshot_bytes: u64,
    /// As recovered: the position after the last of them, or that of the snapshot; `None`: there is neither.
    pub end: Option<Offset>,
}

/// What a fold took out of a segment's tail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Folded {
    /// Deltas that the new snapshot covers.
    pub deltas: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the new snapshot.
    pub snapshot_bytes: u64,
}

/// What can happen to a relay machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A connection whose token was accepted; its first message follows.
    Opened {
        /// The connection.
        conn: ConnId,
        /// What the token proved; empty without tokens.
        subject: String,
        /// Whether it may commit.
        can_write: bool,
    },
    /// A message came.
    Message {
        /// The connection.
        conn: ConnId,
        /// The whole message.
        bytes: Bytes,
    },
    /// So many bytes of frames were handed to the network.
    Written {
        /// The connection.
        conn: ConnId,
        /// How many.
        bytes: usize,
    },
    /// The connection is gone.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// Everything appended up to this position is on the disk.
    Durable {
        /// The position.
        upto: Offset,
    },
    /// An append, and all after it with the same `attempt`, were not written.
    AppendFailed {
        /// Of the appends.
        attempt: u32,
        /// True: for want of room; the store is otherwise well.
        full: bool,
    },
    /// The answer to [`Output::Recover`].
    Recovered(Recovered),
    /// A piece of the log.
    Log {
        /// Of the read.
        ticket: Ticket,
        /// Entries in order without a gap, the first at the position asked for; at least one.
        entries: Vec<(Offset, LogEntry)>,
    },
    /// States of segments.
    States {
        /// Of the read.
        ticket: Ticket,
        /// In the order asked for; at least one, perhaps not all.
        states: Vec<StoredState>,
    },
    /// A merge is over.
    Merged {
        /// Of the merge.
        ticket: Ticket,
        /// What it came to.
        merge: Merge,
    },
    /// A replay is over.
    Examined {
        /// Of the replay.
        ticket: Ticket,
        /// What it came to.
        examined: Examined,
    },
    /// Make a new generation of this segment (G1); answered with [`Output::Rolled`]. No shell sends it yet: when a relay rolls by
    /// itself is not decided.
    Roll {
        /// The segment.
        segment: SegmentId,
    },
    /// The answer to [`Output::MakeRoll`].
    RollMade {
        /// Of that.
        ticket: Ticket,
        /// What it came to.
        roll: Roll,
    },
    /// A read failed: the store is damaged or gone.
    ReadFailed {
        /// Of the read.
        ticket: Ticket,
    },
    /// A fold is over.
    Folded {
        /// The segment.
        segment: SegmentNumber,
        /// What its new snapshot covers; `None`: there is none.
        folded: Option<Folded>,
        /// The log's floor.
        floor: Offset,
        /// The segment whose oldest delta keeps the floor from rising, if one does.
        holder: Option<SegmentNumber>,
    },
    /// The log's floor was raised by what an earlier machine of this heap had asked for.
    Floor {
        /// Where it is now.
        floor: Offset,
    },
    /// Finish what is under way, close everything.
    Stop,
    /// The deadline has come.
    Wake,
}

/// What came of merging a segment that a replica gave back with what the log has of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merge {
    /// The log has all of it.
    Nothing,
    /// Both together, as a delta, verified.
    Adds {
        /// The whole segment; in the stored form if it is to be adopted, else as a delta.
        state: Bytes,
        /// Its clock table; the clients are bound to nobody.
        clocks: Clocks,
    },
    /// It is not what a replica sends.
    Refused,
    /// It does not go with what the log has, which the engine takes in by itself: asked again it would not either.
    Clashes,
    /// The worker did not do it; it may be asked again.
    Failed,
}

/// What came of replaying a segment (CORE-PROTOCOL R12).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Examined {
    /// The engine takes in all of it.
    Well,
    /// It does not.
    Fails(Failing),
    /// The worker, or the store, did not do it.
    Unknown,
}

/// A delta on which the engine fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failing {
    /// The client id that wrote it and its first clock, if it adds anything.
    pub client: Option<(u64, u32)>,
    /// Its entry and how many bytes it has, then the same of the later deltas of that client id below the position, ascending.
    pub parts: Vec<(Offset, u64)>,
}

/// What came of making a new generation's document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Roll {
    /// One of equal values, verified.
    Made {
        /// In the stored form of a segment.
        snapshot: Bytes,
        /// Its clock table.
        clocks: Clocks,
    },
    /// The segment is not one that is rolled.
    Declined(NotRolled),
    /// The worker did not do it; it may be asked again.
    Failed,
}

/// Why a segment has no new generation. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotRolled {
    /// The log does not know it.
    Unknown,
    /// It shows a list or a text (G2).
    Sequences,
    /// It keeps its history (G2).
    History,
    /// Too soon after a start, or after a lost log was given back (D6).
    Held,
    /// Another roll is under way, the segment is written to all the time, or the relay reads its log again or stops.
    Busy,
    /// There is no worker.
    NoWorker,
    /// The document, or the list of all lines, is over its bound.
    TooLarge,
    /// The worker, or the disk, failed.
    Failed,
}

/// Which state of a segment is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateOf {
    /// The segment.
    pub segment: SegmentNumber,
    /// What lies below this position is there already (CORE-PROTOCOL L5): only the deltas since are wanted, if they are still there
    /// one by one. At most the position of the state.
    pub since: Option<Offset>,
}

impl From<SegmentNumber> for StateOf {
    /// All of it.
    fn from(segment: SegmentNumber) -> StateOf {
        StateOf { segment, since: None }
    }
}

/// A segment's state, exactly at the position asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoredState {
    /// Its snapshot (empty: none) and the deltas behind it, below the position.
    At {
        /// The segment.
        segment: SegmentNumber,
        /// The header of its generation at that position; empty: generation 0.
        header: Bytes,
        /// The snapshot.
        snapshot: Bytes,
        /// The deltas, in log order.
        deltas: Vec<Bytes>,
    },
    /// What came since the position that was named: its snapshot is not of a later one, nor of a later generation.
    Since {
        /// The segment.
        segment: SegmentNumber,
        /// The header of its generation at the position of the state; empty: generation 0.
        header: Bytes,
        /// The deltas from that position on, in log order.
        deltas: Vec<Bytes>,
    },
    /// It has been folded up to a later position, or is of a later generation; ask again from there on.
    NotBefore {
        /// The segment.
        segment: SegmentNumber,
        /// The position of its snapshot.
        position: Offset,
    },
}

/// What a relay machine wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send these frames, whole and in order, to each of these connections.
    Send {
        /// The connections.
        to: Vec<ConnId>,
        /// Encoded frames, shared.
        frames: Bytes,
    },
    /// Send what is queued, then close. The machine has forgotten the connection.
    Close {
        /// The connection.
        conn: ConnId,
        /// The WebSocket close code.
        code: u16,
        /// One line for people.
        reason: &'static str,
    },
    /// Write, and say so when it is on the disk.
    Append(Append),
    /// Read the log.
    ReadLog {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The first entry.
        from: Offset,
        /// The position to stop at.
        upto: Offset,
        /// Stop after an entry that reaches this.
        bytes_max: usize,
    },
    /// Read states of segments.
    ReadStates {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The position of the states.
        position: Offset,
        /// The segments.
        segments: Vec<StateOf>,
        /// Stop after a state that reaches this.
        bytes_max: usize,
    },
    /// Merge a segment that a replica gave back with what the log has of it. The result is verified as a fold is.
    Merge {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What merges it.
        engine: EngineKind,
        /// The segment, if the store knows it.
        segment: Option<SegmentNumber>,
        /// The position of the log's state.
        position: Offset,
        /// What the replica gave.
        given: Bytes,
        /// What it gave is of a later generation than the log's and takes its place: it is merged with nothing.
        adopts: bool,
    },
    /// Replay a segment, delta by delta, and say on which its engine fails, if it does.
    Examine {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The segment.
        segment: SegmentNumber,
        /// What merges it.
        engine: EngineKind,
        /// The deltas below here.
        upto: Offset,
        /// The deltas below here that go with one that it fails on are named.
        position: Offset,
    },
    /// Make a fresh document of equal values of this segment (G1). The result is verified as a fold is.
    MakeRoll {
        /// Comes back with the answer.
        ticket: Ticket,
        /// The segment, as the store knows it.
        segment: SegmentNumber,
        /// Its id.
        id: SegmentId,
        /// What merges it.
        engine: EngineKind,
        /// The position of the state.
        position: Offset,
        /// The generation that it will be.
        generation: GenId,
    },
    /// What came of [`Input::Roll`]: the new generation, durable, or why there is none.
    Rolled {
        /// The segment.
        segment: SegmentId,
        /// What came of it.
        outcome: Result<GenId, NotRolled>,
    },
    /// Read the heap again: what was appended and not written is forgotten.
    Recover,
    /// Fold this segment up to this position.
    Fold {
        /// The segment.
        segment: SegmentNumber,
        /// What merges it.
        engine: EngineKind,
        /// The position.
        upto: Offset,
        /// The log from here on is still needed: somebody's stream is there.
        keep: Offset,
    },
    /// Nobody is connected and nothing is under way: the machine may be dropped.
    Idle,
    /// The answer to [`Input::Stop`]: all is written, all connections are closed.
    Stopped,
}

/// What belongs together on the disk: all of it or nothing, in one transaction (CORE-PROTOCOL §2).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Append {
    /// Counts the failures before it.
    pub attempt: u32,
    /// A life of the log that begins here.
    pub epoch: Option<(EpochId, Offset)>,
    /// The offset of the first entry.
    pub first: Offset,
    /// The entries, encoded.
    pub entries: Vec<Bytes>,
    /// Lines as they are after the entries, encoded.
    pub admit: Vec<(ReplicaId, Bytes)>,
    /// Segments that the entries create, or give another generation.
    pub segments: Vec<(SegmentNumber, SegmentRow)>,
    /// The documents that generations begin with.
    pub generations: Vec<GenerationBegins>,
    /// Where the deltas of a segment lie: entry, and the place of the bytes in the encoded entry.
    pub deltas: Vec<DeltaPlace>,
    /// Deltas that no state has any more, of these or of earlier entries (CORE-PROTOCOL R12).
    pub skipped: Vec<(SegmentNumber, Offset)>,
    /// Clock tables as they are after the entries, encoded, and the generation each is of.
    pub clocks: Vec<(SegmentNumber, GenId, Bytes)>,
    /// No generation is made before this time from here on, in Unix milliseconds (D6).
    pub roll_hold_ms: Option<u64>,
    /// Lines that went before the entries.
    pub dropped: Option<Box<Dropped>>,
}

/// Lines that the log does not know any more (CORE-PROTOCOL §2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// Whose. Perhaps none: of a line that was given back at once the position is told all the same.
    pub lines: Vec<ReplicaId>,
    /// All entries of lines that were ever dropped are below this position.
    pub below: Offset,
}

/// A segment's state as of a new generation's first position. What came before it in the log is not of this generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GenerationBegins {
    /// The segment.
    pub segment: SegmentNumber,
    /// The position of the document: entries from here on are behind it.
    pub position: Offset,
    /// The generation's header.
    pub header: Bytes,
    /// The document, in stored form; empty: it is in the deltas from that position on.
    pub snapshot: Bytes,
}

/// Where a delta lies in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeltaPlace {
    /// Its segment.
    pub segment: SegmentNumber,
    /// Its entry.
    pub offset: Offset,
    /// The first byte within the encoded entry.
    pub at: usize,
    /// How many bytes.
    pub len: usize,
}

impl Append {
    /// The position after the last entry.
    pub fn end(&self) -> Offset {
        Offset(self.first.0 + self.entries.len() as u64)
    }

    /// The bytes of the entries.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(Bytes::len).sum()
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Append({}..{}, epoch {:?})", self.first.0, self.end().0, self.epoch)
    }
}
