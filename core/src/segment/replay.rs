//! A segment as its log makes it, delta by delta, to find the one that an engine cannot take in (CORE-PROTOCOL R12). For the
//! relay's worker process: what traps, hangs or eats memory there costs that process, and what it had said last tells where.

use bytes::Bytes;

use super::clocks::Reached;
use super::engine::EngineError;
use super::{Segment, check_fold};
use crate::commit::EngineKind;
use crate::id::SegmentId;

/// Applies the deltas one by one, as replicas do, each shown as it would be shown to a program; then encodes what came of them, and
/// reads that back. `begins` hears of each before it is applied, by its place, and of the end by the number of deltas. The error
/// comes with the same number.
pub fn replay(
    kind: EngineKind,
    snapshot: &[u8],
    deltas: &[Bytes],
    mut begins: impl FnMut(usize),
) -> Result<(), (usize, EngineError)> {
    let decode = || Segment::decode(SegmentId::default(), kind, kind.generation_zero(), 0, snapshot, &[]);
    // A snapshot was verified when it was made: that it cannot be read is no delta's fault.
    let mut segment = decode().map_err(|error| (deltas.len(), error))?;
    segment.show();
    let mut reached = Reached::default();
    for (at, delta) in deltas.iter().map(std::slice::from_ref).enumerate() {
        begins(at);
        segment
            .judge_vouched(&mut reached, delta)
            .and_then(|()| segment.apply_judged(delta))
            .map_err(|error| (at, error))?;
    }
    begins(deltas.len());
    let encoded = segment.encode();
    check_fold(kind, snapshot, deltas, &encoded).map_err(|error| (deltas.len(), error))
}
