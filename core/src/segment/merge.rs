//! A lost log is repaired by whole segments (CORE-PROTOCOL D4): what a replica holds of one is merged with what the log has of
//! it, in the relay's worker process, and proved like a fold.

use bytes::Bytes;

use super::engine::EngineError;
use super::{Segment, seal_snapshot};
use crate::commit::EngineKind;
use crate::guard::{self, Clocks, GuardError};
use crate::id::SegmentId;

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// The log has all of it already.
    Nothing,
    /// Both together, as a delta, and the clock table of that.
    Adds {
        /// `Engine::whole` of the merged document; of an adopted one, its stored form.
        state: Bytes,
        /// Its clock table; its clients are bound to nobody.
        clocks: Clocks,
    },
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// What was given is not what a replica of ours sends.
    #[error("what is to be merged: {0}")]
    Guard(#[from] GuardError),
    /// The engine could not.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A whole segment that takes the place of what the log has of it, since it is of a later generation: in the stored form, and its
/// clock table.
pub fn adopt(kind: EngineKind, given: &Bytes) -> Result<Merged, MergeError> {
    let clocks = guard::whole(guarded(kind), given)?;
    let (id, generation) = (SegmentId::default(), kind.generation_zero());
    let given = Segment::decode(id, kind, generation, 0, &[], std::slice::from_ref(given))?;
    let state = Bytes::from(seal_snapshot(&given.engine.encode()));
    let after = Segment::decode(id, kind, generation, 0, &state, &[])?;
    let holds = after.engine.holds() == given.engine.holds();
    let same = guard::whole(guarded(kind), &after.whole()).is_ok_and(|after| after == clocks);
    if after.values() != given.values() || !holds || !same {
        return Err(EngineError::Failed("an adopted segment does not say what was given".into()).into());
    }
    Ok(Merged::Adds { state, clocks })
}

/// The engine as the guard names it.
pub(crate) fn guarded(kind: EngineKind) -> guard::Engine {
    match kind {
        EngineKind::Yrs => guard::Engine::Yrs,
        EngineKind::Automerge => guard::Engine::Automerge,
    }
}

impl Segment {
    /// The whole document as a delta (`Engine::whole`).
    pub fn whole(&self) -> Vec<u8> {
        self.engine.whole()
    }
}

/// Merges a whole segment with what the log has of it: a stored snapshot and the deltas behind it. The result is decoded
/// again and compared, value by value, with what was merged; its clock table is that of its bytes.
pub fn merge(kind: EngineKind, snapshot: &[u8], deltas: &[Bytes], given: &Bytes) -> Result<Merged, MergeError> {
    guard::whole(guarded(kind), given)?;
    let (id, generation) = (SegmentId::default(), kind.generation_zero());
    let mut merged = Segment::decode(id, kind, generation, 0, snapshot, deltas)?;
    let before = merged.engine.holds();
    merged.engine.apply(std::slice::from_ref(given))?;
    if merged.engine.holds() == before {
        return Ok(Merged::Nothing);
    }
    let state = Bytes::from(merged.whole());
    let differs = |what: &str| EngineError::Failed(format!("a merged segment {what}"));
    let clocks = guard::whole(guarded(kind), &state).map_err(|error| differs(&format!("is not taken: {error}")))?;
    let after = Segment::decode(id, kind, generation, 0, &[], std::slice::from_ref(&state))?;
    if after.values() != merged.values() || after.engine.holds() != merged.engine.holds() {
        return Err(differs("does not say what was merged").into());
    }
    Ok(Merged::Adds { state, clocks })
}
