//! Engines run here and nowhere else in a relay: in a process of its own, `coheap-relay worker`, with a bound on memory and
//! time. A segment that makes an engine ask for terabytes, loop or crash costs that process, and a fold that is tried again
//! much later; the relay goes on.
//!
//! ```text
//!   driver ──Job──► task ──fold────► a worker      message := length:u32 body
//!                    │ ◄──snapshot──               body    := 0 segment | 1 segment snapshot:bytes | 2 segment given:bytes
//!                    ├─────check───► another       segment := engine:u8 snapshot:bytes list(delta:bytes)
//!                    │ ◄──it is so──               answer  := 0 snapshot | 1 error:str | 2 nothing is added
//!                    └─► store.fold                           | 3 clocks:bytes state | 4 error:str (what was given is wrong)
//!
//!   body    := … | 3 segment: replay it           answer  := (5 place:u64)* and then 0, or 6 place:u64 error:str
//!                                                            place: of the delta it begins with, or fails on
//!   body    := … | 4 segment id:16 gen            answer  := 0 snapshot | 8 it shows a list or a text | 9 it keeps history
//!              | 5 segment id:16 gen snapshot:bytes          | 7 clocks:bytes
//!              | 6 segment given:bytes                        | 3 clocks:bytes snapshot
//! ```
//!
//! A snapshot takes the place of log only when another process has decoded it and compared it, value by value, with its own
//! replay of what was folded (`coheap_core::segment::check_fold`); so does the document of a new generation become one
//! (4 and 5, CORE-PROTOCOL G1, `coheap_core::segment::roll`). Merging puts what a replica gave back together with what
//! the log has, or makes a document of it that takes the place of that (6), for an entry of its own (CORE-PROTOCOL D4,
//! `coheap_core::segment::merge`, which decodes and compares too).

mod examine;

use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::guard::Clocks;
use coheap_core::id::{GenId, Offset, SegmentId, SegmentNumber};
use coheap_core::limits;
use coheap_core::relay::{Examined, Merge, NotRolled, Roll, StoredState, Ticket};
use coheap_core::segment;
use coheap_core::segment::merge::{self as merging, MergeError, Merged};
use coheap_core::segment::replay;
use coheap_core::segment::roll::{Unrollable, check_roll, roll_unchecked};
use coheap_core::wire::codec::{Malformed, Reader, Write as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) use self::examine::ExamineJob;
use crate::config::Worker;
use crate::driver::Opening;
use crate::store::{FoldResult, Store, StoreError};

/// A whole message: one segment at its hard limit with its deltas, and what they fold to.
const MESSAGE_BYTES_MAX: usize = limits::LONG_BYTES_MAX + 2 * limits::SEGMENT_BYTES_HARD;
/// Requests: make a snapshot; say whether one is right; merge what was given; take in delta by delta, and say so; make a new
/// generation's document; say whether one is right; make a document of what was given.
const FOLD: u8 = 0;
const CHECK: u8 = 1;
const MERGE: u8 = 2;
const REPLAY: u8 = 3;
const ROLL: u8 = 4;
const CHECK_ROLL: u8 = 5;
const ADOPT: u8 = 6;

/// What there is to do.
#[derive(Debug)]
pub(crate) enum Job {
    Fold(FoldJob),
    Merge(MergeJob),
    Examine(ExamineJob),
    Roll(RollJob),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Done {
    Folded(Folded),
    Merged { of: Opening, ticket: Ticket, merge: Merge },
    Examined { of: Opening, ticket: Ticket, examined: Examined },
    Rolled { of: Opening, ticket: Ticket, roll: Roll },
}

/// A segment that is to have a new generation.
#[derive(Debug)]
pub(crate) struct RollJob {
    /// Of this heap, while it was open this time.
    pub of: Opening,
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// What the store knows it by.
    pub segment: SegmentNumber,
    /// Its id.
    pub id: SegmentId,
    /// Merged by this engine.
    pub engine: EngineKind,
    /// As it is below here.
    pub position: Offset,
    /// Which generation it will be.
    pub generation: GenId,
}

/// A segment that a replica gave back.
#[derive(Debug)]
pub(crate) struct MergeJob {
    /// To this heap, while it was open this time.
    pub of: Opening,
    /// Comes back with the answer.
    pub ticket: Ticket,
    /// Merged by this engine.
    pub engine: EngineKind,
    /// What the store knows it by, if it does.
    pub segment: Option<SegmentNumber>,
    /// With what the log has of it below here.
    pub position: Offset,
    /// What was given.
    pub given: Bytes,
    /// It is to be a document by itself, merged with nothing.
    pub adopts: bool,
}

/// A segment to fold.
#[derive(Debug)]
pub(crate) struct FoldJob {
    /// Of this heap, and asked for while it was open this time.
    pub of: Opening,
    /// This one.
    pub segment: SegmentNumber,
    /// Merged by this engine.
    pub engine: EngineKind,
    /// Up to here.
    pub upto: Offset,
    /// The log from here on stays.
    pub keep: Offset,
}

/// What a job came to.
#[derive(Debug)]
pub(crate) struct Folded {
    /// Which one it was.
    pub job: FoldJob,
    /// What is stored now.
    pub result: Result<FoldResult, FoldError>,
}

/// Why a segment was not folded, or not merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    /// The store did not give its state, or did not take the snapshot.
    #[error("{0}")]
    Store(StoreError),
    /// The worker did not do it; one line.
    #[error("{0}")]
    Worker(String),
}

impl From<String> for FoldError {
    fn from(what: String) -> FoldError {
        FoldError::Worker(what)
    }
}

/// Takes jobs one by one until there is nobody left to tell.
pub(crate) async fn run(
    bounds: Worker,
    store: Arc<Store>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    done: impl Fn(Done),
) {
    let mut workers = Workers { bounds, folder: None, checker: None };
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Fold(job) => {
                let result = fold(&mut workers, &store, &job).await;
                // While the relay stops, reads of the store are given up.
                if let Err(error) = &result
                    && !jobs.is_closed()
                {
                    let (heap, segment) = (&job.of.heap, job.segment.0);
                    eprintln!("coheap-relay: heap {heap:?}: segment {segment} was not folded: {error}");
                }
                done(Done::Folded(Folded { job, result }));
            }
            Job::Merge(job) => {
                let merge = merge(&mut workers, &store, &job).await.unwrap_or_else(|error| {
                    eprintln!("coheap-relay: heap {:?}: what was given back was not merged: {error}", job.of.heap);
                    Merge::Failed
                });
                done(Done::Merged { of: job.of, ticket: job.ticket, merge });
            }
            Job::Examine(job) => {
                let examined = examine::examine(&workers, &store, &job).await;
                let (heap, segment) = (&job.of.heap, job.segment.0);
                match &examined {
                    Ok(Examined::Fails(failing)) => {
                        let offset = failing.parts.first().map_or(0, |(offset, _)| offset.0);
                        eprintln!("coheap-relay: heap {heap:?}: segment {segment}: entry {offset} is quarantined");
                    }
                    Ok(_) => {}
                    Err(error) => {
                        eprintln!("coheap-relay: heap {heap:?}: segment {segment} was not examined: {error}");
                    }
                }
                let examined = examined.unwrap_or(Examined::Unknown);
                done(Done::Examined { of: job.of, ticket: job.ticket, examined });
            }
            Job::Roll(job) => {
                let roll = roll(&mut workers, &store, &job).await.unwrap_or_else(|error| {
                    let (heap, segment) = (&job.of.heap, job.id);
                    eprintln!("coheap-relay: heap {heap:?}: no new generation of segment {segment}: {error}");
                    Roll::Failed
                });
                done(Done::Rolled { of: job.of, ticket: job.ticket, roll });
            }
        }
    }
}

async fn merge(workers: &mut Workers, store: &Arc<Store>, job: &MergeJob) -> Result<Merge, FoldError> {
    let (mut snapshot, mut deltas) = (Bytes::new(), Vec::new());
    if let Some(segment) = job.segment {
        let state = {
            let (store, heap, position) = (Arc::clone(store), Arc::clone(&job.of.heap), job.position);
            blocking(move || store.read_states(&heap, position, &[segment], 1)).await?
        };
        match state.into_iter().next() {
            Some(StoredState::At { snapshot: stored, deltas: behind, .. }) => (snapshot, deltas) = (stored, behind),
            // Folded beyond that meanwhile: it is asked for again.
            _ => return Err("its state cannot be read".to_owned().into()),
        }
    }
    let what = if job.adopts { ADOPT } else { MERGE };
    let mut request = encode_segment(what, job.engine, &snapshot, &deltas);
    drop((snapshot, deltas));
    request.bytes(&job.given);
    match ask(&workers.bounds, &mut workers.folder, &request).await? {
        (2, _) => Ok(Merge::Nothing),
        (3, answer) => {
            let mut reader = Reader::new(&answer);
            let table = reader.bytes(MESSAGE_BYTES_MAX, "clocks").map_err(|error| error.to_string())?;
            let clocks = Clocks::decode(table).map_err(|error| error.to_string())?;
            Ok(Merge::Adds { state: answer.slice_ref(reader.take_rest()), clocks })
        }
        (4, error) => {
            eprintln!("coheap-relay: heap {:?}: {}", job.of.heap, String::from_utf8_lossy(&error));
            Ok(Merge::Refused)
        }
        (10, error) => {
            eprintln!("coheap-relay: heap {:?}: {}", job.of.heap, String::from_utf8_lossy(&error));
            Ok(Merge::Clashes)
        }
        _ => Err("the worker answers something else".to_owned().into()),
    }
}

async fn roll(workers: &mut Workers, store: &Arc<Store>, job: &RollJob) -> Result<Roll, FoldError> {
    let state = {
        let (store, heap, segment, position) = (Arc::clone(store), Arc::clone(&job.of.heap), job.segment, job.position);
        blocking(move || store.read_states(&heap, position, &[segment], 1)).await?
    };
    let Some(StoredState::At { snapshot, deltas, .. }) = state.into_iter().next() else {
        return Err("its state cannot be read".to_owned().into());
    };
    let mut request = encode_segment(ROLL, job.engine, &snapshot, &deltas);
    drop((snapshot, deltas));
    request.extend_from_slice(&job.id.0);
    request.generation(job.generation);
    let snapshot = match ask(&workers.bounds, &mut workers.folder, &request).await? {
        (0, snapshot) => snapshot,
        (8, _) => return Ok(Roll::Declined(NotRolled::Sequences)),
        (9, _) => return Ok(Roll::Declined(NotRolled::History)),
        _ => return Err("the worker answers something else".to_owned().into()),
    };
    if let Some(what) = request.first_mut() {
        *what = CHECK_ROLL;
    }
    request.bytes(&snapshot);
    let (7, table) = ask(&workers.bounds, &mut workers.checker, &request).await? else {
        return Err("the checking worker answers something else".to_owned().into());
    };
    let clocks = Clocks::decode(&table).map_err(|error| error.to_string())?;
    Ok(Roll::Made { snapshot, clocks })
}

async fn fold(workers: &mut Workers, store: &Arc<Store>, job: &FoldJob) -> Result<FoldResult, FoldError> {
    let state = {
        let (store, heap, segment, upto) = (Arc::clone(store), Arc::clone(&job.of.heap), job.segment, job.upto);
        blocking(move || store.read_states(&heap, upto, &[segment], 1)).await?
    };
    let Some(StoredState::At { snapshot, deltas, .. }) = state.into_iter().next() else {
        return Err("its state cannot be read".to_owned().into());
    };
    let mut request = encode_segment(FOLD, job.engine, &snapshot, &deltas);
    drop((snapshot, deltas));
    let (0, snapshot) = ask(&workers.bounds, &mut workers.folder, &request).await? else {
        return Err("the worker answers something else".to_owned().into());
    };
    if let Some(what) = request.first_mut() {
        *what = CHECK;
    }
    request.bytes(&snapshot);
    ask(&workers.bounds, &mut workers.checker, &request).await?;
    drop(request);
    let (store, heap, segment) = (Arc::clone(store), Arc::clone(&job.of.heap), job.segment);
    let (upto, keep) = (job.upto, job.keep);
    blocking(move || store.fold(&heap, segment, upto, keep, &snapshot)).await
}

/// Asks a worker, starting one if there is none; the answer's first byte and the rest.
async fn ask(bounds: &Worker, slot: &mut Option<Process>, request: &[u8]) -> Result<(u8, Bytes), FoldError> {
    let mut process = match slot.take() {
        Some(process) => process,
        None => Process::start(bounds).map_err(|error| format!("the worker does not start: {error}"))?,
    };
    let answer = match timeout(bounds.within, process.ask(request)).await {
        Ok(Ok(answer)) => answer,
        // Dropped, the process is killed; the next job gets a new one.
        Ok(Err(error)) => return Err(format!("the worker died: {error}").into()),
        Err(_) => return Err("the worker took too long".to_owned().into()),
    };
    *slot = Some(process);
    match answer.split_first() {
        Some((1, error)) => Err(String::from_utf8_lossy(error).into_owned().into()),
        Some((kind, _)) => Ok((*kind, answer.slice(1..))),
        None => Err("the worker said nothing".to_owned().into()),
    }
}

/// What folds and merges, and what checks what was folded.
#[derive(Debug)]
struct Workers {
    bounds: Worker,
    folder: Option<Process>,
    checker: Option<Process>,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FoldError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(FoldError::Store),
        Err(_) => Err("the store failed".to_owned().into()),
    }
}

/// A running worker; killed when dropped.
#[derive(Debug)]
struct Process {
    _child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Process {
    fn start(bounds: &Worker) -> std::io::Result<Process> {
        let mut command = Command::new(&bounds.program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        bound_memory(&child, bounds.memory_bytes)?;
        let missing = || std::io::Error::other("no pipe");
        let requests = child.stdin.take().ok_or_else(missing)?;
        let answers = child.stdout.take().ok_or_else(missing)?;
        Ok(Process { _child: child, requests, answers })
    }

    async fn ask(&mut self, request: &[u8]) -> std::io::Result<Bytes> {
        self.request(request).await?;
        self.answer().await
    }

    async fn request(&mut self, request: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(request.len()).map_err(std::io::Error::other)?;
        self.requests.write_all(&length.to_le_bytes()).await?;
        self.requests.write_all(request).await?;
        self.requests.flush().await
    }

    async fn answer(&mut self) -> std::io::Result<Bytes> {
        let length = self.answers.read_u32_le().await? as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(std::io::Error::other("an answer that long cannot be"));
        }
        let mut answer = vec![0; length];
        self.answers.read_exact(&mut answer).await?;
        Ok(answer.into())
    }
}

/// Bounds the address space of a worker before it has read a byte.
fn bound_memory(child: &Child, bytes: u64) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
        let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
        match rustix::process::prlimit(Some(pid), rustix::process::Resource::As, limit) {
            // It is gone already; asking it says so.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (child, bytes);
    Ok(())
}

fn encode_segment(what: u8, engine: EngineKind, snapshot: &[u8], deltas: &[Bytes]) -> Vec<u8> {
    let bytes: usize = deltas.iter().map(Bytes::len).sum();
    let mut out = Vec::with_capacity(snapshot.len() + bytes + 8 * deltas.len() + 16);
    out.push(what);
    out.push(engine.code());
    out.bytes(snapshot);
    out.varint(deltas.len() as u64);
    for delta in deltas {
        out.bytes(delta);
    }
    out
}

/// What a worker is asked.
#[derive(Debug)]
struct Request {
    engine: EngineKind,
    snapshot: Bytes,
    deltas: Vec<Bytes>,
    wanted: Wanted,
}

#[derive(PartialEq, Eq, Debug)]
enum Wanted {
    /// A snapshot.
    Snapshot,
    /// Whether this snapshot is right.
    Check(Bytes),
    /// What this adds.
    Merge(Bytes),
    /// This in stored form, alone.
    Adopt(Bytes),
    /// Whether it can be taken in.
    Replay,
    /// A new generation's document.
    Roll(SegmentId, GenId),
    /// Whether this one is right.
    CheckRoll(SegmentId, GenId, Bytes),
}

fn decode_request(body: &Bytes) -> Result<Request, Malformed> {
    let mut reader = Reader::new(body);
    let what = reader.u8()?;
    let engine = EngineKind::from_code(reader.u8()?).ok_or(Malformed::Field("engine"))?;
    let snapshot = body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "snapshot")?);
    let count = reader.count(limits::WORKER_DELTAS_MAX, 1, "deltas")?;
    let mut deltas = Vec::with_capacity(count);
    for _ in 0..count {
        deltas.push(body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "delta")?));
    }
    let wanted = match what {
        FOLD => Wanted::Snapshot,
        CHECK => Wanted::Check(body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "folded")?)),
        MERGE => Wanted::Merge(body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "given")?)),
        ADOPT => Wanted::Adopt(body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "given")?)),
        REPLAY => Wanted::Replay,
        ROLL => Wanted::Roll(SegmentId(reader.array()?), reader.generation()?),
        CHECK_ROLL => {
            let (id, generation) = (SegmentId(reader.array()?), reader.generation()?);
            Wanted::CheckRoll(id, generation, body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "rolled")?))
        }
        _ => return Err(Malformed::Field("request")),
    };
    reader.end()?;
    Ok(Request { engine, snapshot, deltas, wanted })
}

/// The worker itself: answers requests until the relay is gone.
pub fn serve() -> std::io::Result<()> {
    match answer_all() {
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => Ok(()),
        other => other,
    }
}

fn answer_all() -> std::io::Result<()> {
    // Folding waits for everything else.
    let _ = rustix::process::nice(10);
    let (mut requests, mut answers) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        let mut length = [0; 4];
        requests.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(std::io::Error::other("a request that long cannot be"));
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let mut say = |answer: &[u8]| -> std::io::Result<()> {
            let length = u32::try_from(answer.len()).map_err(std::io::Error::other)?;
            answers.write_all(&length.to_le_bytes())?;
            answers.write_all(answer)?;
            answers.flush()
        };
        let mut lost = None;
        let answer = answer(&Bytes::from(body), |said| lost = lost.take().or(say(said).err()));
        match lost {
            Some(error) => return Err(error),
            None => say(&answer)?,
        }
    }
}

/// The answer to one request, as [`serve`] gives it, and what it says before.
pub fn answer(request: &Bytes, mut say: impl FnMut(&[u8])) -> Vec<u8> {
    let place = |kind: u8, at: usize| [&[kind][..], &(at as u64).to_le_bytes()].concat();
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let failed = |error: String| with(1, error.as_bytes());
    let Request { engine, snapshot, deltas, wanted } = match decode_request(request) {
        Ok(request) => request,
        Err(error) => return failed(error.to_string()),
    };
    match wanted {
        Wanted::Snapshot => segment::fold_unchecked(engine, &snapshot, &deltas)
            .map_or_else(|error| failed(error.to_string()), |snapshot| with(0, &snapshot)),
        Wanted::Check(folded) => segment::check_fold(engine, &snapshot, &deltas, &folded)
            .map_or_else(|error| failed(error.to_string()), |()| vec![0]),
        Wanted::Merge(given) => merged(merging::merge(engine, &snapshot, &deltas, &given)),
        Wanted::Adopt(given) => merged(merging::adopt(engine, &given)),
        Wanted::Replay => match replay::replay(engine, &snapshot, &deltas, |at| say(&place(5, at))) {
            Ok(()) => vec![0],
            Err((at, error)) => [&place(6, at), error.to_string().as_bytes()].concat(),
        },
        Wanted::Roll(id, generation) => match roll_unchecked(engine, id, &snapshot, &deltas, generation) {
            Ok(Ok(snapshot)) => with(0, &snapshot),
            Ok(Err(Unrollable::Sequences)) => vec![8],
            Ok(Err(Unrollable::History)) => vec![9],
            Err(error) => failed(error.to_string()),
        },
        Wanted::CheckRoll(id, generation, rolled) => {
            match check_roll(engine, id, &snapshot, &deltas, generation, &rolled) {
                Ok(clocks) => {
                    let mut table = Vec::new();
                    clocks.encode(&mut table);
                    with(7, &table)
                }
                Err(error) => failed(error.to_string()),
            }
        }
    }
}

/// The answer that says what a segment came to that was given back.
fn merged(merged: Result<Merged, MergeError>) -> Vec<u8> {
    let with = |kind: u8, error: MergeError| [&[kind], error.to_string().as_bytes()].concat();
    match merged {
        Ok(Merged::Nothing) => vec![2],
        Ok(Merged::Adds { state, clocks }) => {
            let (mut out, mut table) = (vec![3], Vec::new());
            clocks.encode(&mut table);
            out.bytes(&table);
            out.extend_from_slice(&state);
            out
        }
        Err(error @ MergeError::Guard(_)) => with(4, error),
        Err(error @ MergeError::Clashes(_)) => with(10, error),
        Err(error) => with(1, error),
    }
}

/// A request for less than was asked for: what a worker that lies answers instead. For tests.
#[doc(hidden)]
pub fn without_last_delta(request: &Bytes) -> Vec<u8> {
    match decode_request(request) {
        Ok(Request { engine, snapshot, deltas, .. }) => {
            encode_segment(FOLD, engine, &snapshot, &deltas[..deltas.len().saturating_sub(1)])
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_and_rubbish_is_answered_with_an_error() {
        let deltas = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let request = Bytes::from(encode_segment(FOLD, EngineKind::Yrs, b"snap", &deltas));
        let read = decode_request(&request).unwrap();
        assert_eq!((read.engine, &read.snapshot[..], &read.deltas[..]), (EngineKind::Yrs, &b"snap"[..], &deltas[..]));
        assert_eq!(read.wanted, Wanted::Snapshot);
        assert_eq!(answer(&request, |_| ()).first(), Some(&1));
        assert_eq!(answer(&Bytes::from_static(b"\x00\x00\xff"), |_| ()).first(), Some(&1));
        assert_eq!(answer(&Bytes::from_static(b"\x07\x00\x00\x00"), |_| ()).first(), Some(&1));
        let mut merge = encode_segment(MERGE, EngineKind::Yrs, b"", &[]);
        merge.bytes(b"rubbish");
        assert_eq!(answer(&Bytes::from(merge), |_| ()).first(), Some(&4));
    }

    #[test]
    fn a_request_of_more_deltas_than_a_worker_takes_is_answered_with_an_error() {
        let request = |count: usize| {
            let mut request = vec![FOLD, EngineKind::Yrs.code(), 0];
            request.varint(count as u64);
            request.resize(request.len() + count, 0);
            decode_request(&request.into()).map(|request| request.deltas.len())
        };
        assert_eq!(request(limits::WORKER_DELTAS_MAX), Ok(limits::WORKER_DELTAS_MAX));
        assert_eq!(request(limits::WORKER_DELTAS_MAX + 1), Err(Malformed::Limit("deltas")));
    }

    #[test]
    fn g1_a_new_generation_is_made_by_one_process_and_proved_by_another() {
        let (id, generation) = (SegmentId::ROOT, GenId::drawn(SegmentId::ROOT, [1, 2, 3]));
        let mut request = encode_segment(ROLL, EngineKind::Yrs, b"", &[]);
        request.extend_from_slice(&id.0);
        request.generation(generation);
        let made = answer(&request.clone().into(), |_| ());
        let (Some(0), snapshot) = (made.first(), made.get(1..).unwrap()) else { panic!("{made:?}") };
        request[0] = CHECK_ROLL;
        let with = |snapshot: &[u8]| {
            let mut request = request.clone();
            request.bytes(snapshot);
            answer(&request.into(), |_| ()).first().copied()
        };
        assert_eq!(with(snapshot), Some(7));
        assert_eq!(with(b"rubbish"), Some(1));
        request[0] = ROLL;
        request[1] = EngineKind::Automerge.code();
        assert_eq!(answer(&request.clone().into(), |_| ()), [9]);
        request.pop();
        assert_eq!(answer(&request.into(), |_| ()).first(), Some(&1), "cut off");
    }

    #[test]
    fn no_deltas_fold_to_an_empty_document_and_another_snapshot_is_not_taken_for_it() {
        let mut request = encode_segment(FOLD, EngineKind::Yrs, b"", &[]);
        let made = answer(&request.clone().into(), |_| ());
        let (0, snapshot) = made.split_first().map(|(code, rest)| (*code, rest)).unwrap() else { panic!("{made:?}") };
        request[0] = CHECK;
        let with = |snapshot: &[u8]| {
            let mut request = request.clone();
            request.bytes(snapshot);
            answer(&request.into(), |_| ()).first().copied()
        };
        assert_eq!(with(snapshot), Some(0));
        assert_eq!(with(b"rubbish"), Some(1));
    }
}
