//! A lost log is repaired by whole segments (CORE-PROTOCOL D4): what a replica holds of one is merged with what the log has of
//! it, in the relay's worker process, and proved like a fold.

use bytes::Bytes;

use super::engine::EngineError;
use super::{Segment, seal_snapshot};
use crate::commit::EngineKind;
use crate::guard::{self, Clocks, GuardError};
use crate::id::SegmentId;
use crate::mutate::{self, Mutation};

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
    /// What the log has cannot be read: nothing is said of what was given.
    #[error(transparent)]
    Stored(EngineError),
    /// What the log has can be read, and not together with what was given: both hold different things under one identity, as
    /// copies of one process can. Or what was given, and is to be adopted, cannot be read by itself.
    #[error("what was given does not go with what the log has: {0}")]
    Clashes(EngineError),
}

/// A whole segment that takes the place of what the log has of it, since it is of a later generation: in the stored form, and its
/// clock table.
pub fn adopt(kind: EngineKind, given: &Bytes) -> Result<Merged, MergeError> {
    let clocks = guard::whole(guarded(kind), given)?;
    let (id, generation) = (SegmentId::default(), kind.generation_zero());
    let given = Segment::decode(id, kind, generation, 0, &[], std::slice::from_ref(given));
    let given = given.map_err(MergeError::Clashes)?;
    let state = Bytes::from(seal_snapshot(&given.engine.encode()));
    let after = Segment::decode(id, kind, generation, 0, &state, &[]).map_err(MergeError::Clashes)?;
    let holds = after.engine.holds() == given.engine.holds();
    let same = guard::whole(guarded(kind), &after.whole()).is_ok_and(|after| after == clocks);
    if after.values() != given.values() || !holds || !same {
        let differs = EngineError::Failed("an adopted segment does not say what was given".into());
        return Err(MergeError::Clashes(differs));
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

/// Merges a whole segment with what the log has of it: a stored snapshot and the deltas behind it, in either order. The result is
/// decoded again and compared, value by value, with what was merged; its clock table is that of its bytes.
pub fn merge(kind: EngineKind, snapshot: &[u8], deltas: &[Bytes], given: &Bytes) -> Result<Merged, MergeError> {
    guard::whole(guarded(kind), given)?;
    let (id, generation) = (SegmentId::default(), kind.generation_zero());
    let mut merged = Segment::decode(id, kind, generation, 0, snapshot, deltas).map_err(MergeError::Stored)?;
    let reached = mutate::on(Mutation::MergeWithoutRemovals).then(|| merged.engine.clocks()).flatten();
    let (before, stored) = (merged.engine.holds(), Bytes::from(merged.whole()));
    let differs = |what: &str| MergeError::Clashes(EngineError::Failed(format!("a merged segment {what}")));
    // What was given is well formed: only of the other one nothing can be said.
    if !guard::agree(guarded(kind), &stored, given).map_err(|error| MergeError::Stored(error.into()))? {
        return Err(differs("has two things under one identity"));
    }
    merged.engine.apply(std::slice::from_ref(given)).map_err(MergeError::Clashes)?;
    // The order makes no difference, unless there are different things under one identity: an engine keeps what came first, and
    // says nothing. There are two documents at one time, not three.
    {
        let turned = Segment::decode(id, kind, generation, 0, &[], std::slice::from_ref(given));
        let mut turned = turned.map_err(MergeError::Clashes)?;
        turned.engine.apply(std::slice::from_ref(&stored)).map_err(MergeError::Clashes)?;
        if turned.values() != merged.values() {
            return Err(differs("depends on which half came first"));
        }
    }
    drop(stored);
    if merged.engine.holds() == before || reached.is_some() && reached == merged.engine.clocks() {
        return Ok(Merged::Nothing);
    }
    let state = Bytes::from(merged.whole());
    let clocks = guard::whole(guarded(kind), &state).map_err(|error| differs(&format!("is not taken: {error}")))?;
    let after = Segment::decode(id, kind, generation, 0, &[], std::slice::from_ref(&state));
    let after = after.map_err(MergeError::Clashes)?;
    if after.values() != merged.values() || after.engine.holds() != merged.engine.holds() {
        return Err(differs("does not say what was merged"));
    }
    Ok(Merged::Adds { state, clocks })
}
