//! The commit, the atomic unit: deltas to one or more segments, made by one replica, numbered by it.
//!
//! A commit's `uid` never changes; its parts do when it is redone. To everything but a segment a delta is opaque bytes.
//! Next: `wire.rs` (how it travels), `log.rs` (how it is stored), `admit.rs` (when it counts).

use bytes::Bytes;

use crate::id::{GenId, ReplicaId, SegmentId, Seq, Uid};

/// What merges a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EngineKind {
    /// Compact, keeps no values of the past.
    Yrs,
    /// Keeps full history.
    Automerge,
}

impl EngineKind {
    /// Its number on the wire and on disk.
    pub fn code(self) -> u8 {
        match self {
            EngineKind::Yrs => 0,
            EngineKind::Automerge => 1,
        }
    }

    /// The engine of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(EngineKind::Yrs),
            1 => Some(EngineKind::Automerge),
            _ => None,
        }
    }

    /// The id of generation 0 of a segment of this engine (CORE-PROTOCOL C10).
    pub fn generation_zero(self) -> GenId {
        match self {
            EngineKind::Yrs => GenId::ZERO_YRS,
            EngineKind::Automerge => GenId::ZERO_AUTOMERGE,
        }
    }
}

/// The layout of our objects in an engine's document that this version writes (`SEGMENT.md`).
pub const LAYOUT: u8 = 1;

/// What one commit does to one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which segment.
    pub segment: SegmentId,
    /// The generation the delta was made against.
    pub generation: GenId,
    /// What happens to it.
    pub body: PartBody,
}

/// The kinds of parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartBody {
    /// Engine bytes: one change.
    Delta(Bytes),
    /// The first change of a new segment.
    Create {
        /// What merges it.
        engine: EngineKind,
        /// Its layout version.
        layout: u8,
        /// The change.
        delta: Bytes,
    },
    /// The segment goes, for good.
    Delete,
    /// An optional kind (≥ 0x80) that this version does not know: kept, stored, forwarded.
    Opaque {
        /// Its kind.
        kind: u8,
        /// Its bytes.
        bytes: Bytes,
    },
}

impl PartBody {
    /// The engine bytes, if it has any.
    pub fn delta(&self) -> Option<&Bytes> {
        match self {
            PartBody::Delta(delta) | PartBody::Create { delta, .. } => Some(delta),
            PartBody::Delete | PartBody::Opaque { .. } => None,
        }
    }
}

/// A commit of another line that must be admitted before this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// Whose line.
    pub owner: ReplicaId,
    /// Its number there.
    pub seq: Seq,
    /// Its identity.
    pub uid: Uid,
}

/// The claim that a commit with a `done()` stands on (`SEMANTICS` S27).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClaimOf {
    /// The group of workers.
    pub group: String,
    /// The run of the job.
    pub run: String,
    /// What was claimed.
    pub key: String,
    /// The relay's grant.
    pub grant: u64,
}

/// A commit as its author made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Whose line it is in.
    pub owner: ReplicaId,
    /// Its number there.
    pub seq: Seq,
    /// Its own identity, kept when it is redone.
    pub uid: Uid,
    /// The uid of the commit before it in its line; `Uid::NONE` for the first.
    pub prev: Uid,
    /// A commit of an older own id that must come before it.
    pub after: Option<After>,
    /// Set when it carries a `done()`.
    pub claim: Option<ClaimOf>,
    /// What the program called it; shown to listeners.
    pub label: Option<String>,
    /// At most one part per segment.
    pub parts: Vec<Part>,
}

/// Identity of the contents of a commit's parts: FNV-1a over their encoding, so that two redos of one commit can be told apart.
/// Not cryptographic: it compares copies of one author's own work.
pub fn content_hash<'a>(parts: impl Iterator<Item = (SegmentId, GenId, &'a [u8])>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (segment, generation, bytes) in parts {
        eat(&segment.0);
        eat(&generation.0);
        eat(&(bytes.len() as u64).to_le_bytes());
        eat(bytes);
    }
    hash
}
