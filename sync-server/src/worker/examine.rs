//! Which delta an engine cannot take in (CORE-PROTOCOL R12): a segment is replayed in a process that does nothing else, which says
//! of each delta that it begins with it. An error, a crash, a hang or too much memory is that delta's then; a failure at the end,
//! over the whole, is of the first delta with which there is one.
//!
//! Nothing is blamed on a delta because of one process: the next two must fail with it, and not without it. A worker that
//! always fails, or says nothing, so never costs a delta.

use std::sync::Arc;

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::guard;
use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::relay::{Examined, Failing, Ticket};
use tokio::time::timeout;

use super::{FoldError, Process, REPLAY, Workers, blocking, encode_segment};
use crate::driver::Opening;
use crate::store::Store;

/// A segment that somebody's engine failed on.
#[derive(Debug)]
pub(crate) struct ExamineJob {
    /// Of this heap, while it was open this time.
    pub of: Opening,
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// The segment.
    pub segment: SegmentNumber,
    /// Merged by this engine.
    pub engine: EngineKind,
    /// Its deltas below here are replayed.
    pub upto: Offset,
    /// Its deltas below here are left out with one that fails, if they are of its client id.
    pub position: Offset,
}

/// What a process came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replayed {
    Well,
    /// On the delta of this place; on all of them together if there is none.
    Fails(usize),
}

/// Finds the delta, if there is one.
pub(super) async fn examine(workers: &Workers, store: &Arc<Store>, job: &ExamineJob) -> Result<Examined, FoldError> {
    let (snapshot, deltas) = {
        let (store, heap, segment, position) = (Arc::clone(store), Arc::clone(&job.of.heap), job.segment, job.position);
        blocking(move || store.read_tail(&heap, segment, position)).await?
    };
    let wanted = deltas.partition_point(|(offset, _)| *offset < job.upto);
    let bytes: Vec<Bytes> = deltas.iter().take(wanted).map(|(_, bytes)| bytes.clone()).collect();
    let replay = |count: usize| replay(workers, job.engine, &snapshot, bytes.get(..count).unwrap_or_default());
    let at = match replay(wanted).await? {
        Replayed::Well => return Ok(Examined::Well),
        Replayed::Fails(at) if at < wanted => at,
        // All of them are taken in, and nothing comes of it.
        Replayed::Fails(_) => {
            let (mut well, mut fails) = (0, wanted);
            while well + 1 < fails {
                let middle = usize::midpoint(well, fails);
                match replay(middle).await? {
                    Replayed::Well => well = middle,
                    Replayed::Fails(_) => fails = middle,
                }
            }
            well
        }
    };
    if replay(at).await? != Replayed::Well || replay(at + 1).await? == Replayed::Well {
        return Err("an engine failed, and no delta is to blame".to_owned().into());
    }
    Ok(Examined::Fails(failing(job.engine, deltas.get(at..).unwrap_or_default())))
}

/// The first of these deltas, and those of its client id behind it.
fn failing(engine: EngineKind, deltas: &[(Offset, Bytes)]) -> Failing {
    let engine = match engine {
        EngineKind::Yrs => guard::Engine::Yrs,
        EngineKind::Automerge => guard::Engine::Automerge,
    };
    let own = |bytes: &[u8]| guard::structure(engine, bytes).ok().and_then(|summary| summary.own);
    let first = deltas.first().and_then(|(_, bytes)| own(bytes));
    let of_it = |(n, (_, bytes)): &(usize, &(Offset, Bytes))| {
        *n == 0 || first.is_some_and(|first| own(bytes).is_some_and(|own| own.client == first.client))
    };
    let parts = deltas.iter().enumerate().filter(of_it).map(|(_, (offset, bytes))| (*offset, bytes.len() as u64));
    Failing { client: first.map(|own| (own.client, own.start)), parts: parts.collect() }
}

/// Replays so many deltas in a process of its own.
async fn replay(
    workers: &Workers,
    engine: EngineKind,
    snapshot: &Bytes,
    deltas: &[Bytes],
) -> Result<Replayed, FoldError> {
    let bounds = &workers.bounds;
    let mut process = Process::start(bounds).map_err(|error| format!("the worker does not start: {error}"))?;
    let request = encode_segment(REPLAY, engine, snapshot, deltas);
    let mut begun = None;
    let ended = timeout(bounds.within, async {
        process.request(&request).await?;
        loop {
            let answer = process.answer().await?;
            let number = answer.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
            match (answer.first(), number.and_then(|at| usize::try_from(at).ok())) {
                (Some(0), _) => return Ok(None),
                (Some(5), Some(at)) if at <= deltas.len() => begun = Some(at),
                (Some(6), Some(at)) if at <= deltas.len() => return Ok(Some(at)),
                _ => return Err(std::io::Error::other("it answers something else")),
            }
        }
    })
    .await;
    match (ended, begun) {
        (Ok(Ok(None)), _) => Ok(Replayed::Well),
        (Ok(Ok(Some(at))), _) => Ok(Replayed::Fails(at)),
        // It died, or took too long, over what it had begun with.
        (_, Some(at)) => Ok(Replayed::Fails(at)),
        (Ok(Err(error)), None) => Err(format!("the worker died: {error}").into()),
        (Err(_), None) => Err("the worker took too long".to_owned().into()),
    }
}
