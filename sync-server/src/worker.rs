//! Engines run here and nowhere else in a relay: in a process of its own, `coheap-relay worker`, with a bound on memory and
//! time. A segment that makes an engine ask for terabytes, loop or crash costs that process, and a fold that is tried again
//! much later; the relay goes on.
//!
//! ```text
//!   driver ──Job──► task ──fold────► a worker      message := length:u32 body
//!                    │ ◄──snapshot──               body    := 0 segment | 1 segment snapshot:bytes
//!                    ├─────check───► another       segment := engine:u8 snapshot:bytes list(delta:bytes)
//!                    │ ◄──it is so──               answer  := 0 snapshot | 1 error:str
//!                    └─► store.fold
//! ```
//!
//! A snapshot takes the place of log only when another process has decoded it and compared it, value by value, with its own
//! replay of what was folded (`coheap_core::segment::check_fold`).

use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::limits;
use coheap_core::relay::StoredState;
use coheap_core::segment;
use coheap_core::wire::codec::{Malformed, Reader, Write as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::Worker;
use crate::driver::Opening;
use crate::store::{FoldResult, Store, StoreError};

/// A whole message: one segment at its hard limit with its deltas, and what they fold to.
const MESSAGE_BYTES_MAX: usize = limits::LONG_BYTES_MAX + 2 * limits::SEGMENT_BYTES_HARD;
/// Requests: make a snapshot; say whether one is right.
const FOLD: u8 = 0;
const CHECK: u8 = 1;

/// A segment to fold.
#[derive(Debug)]
pub(crate) struct Job {
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
    pub job: Job,
    /// What is stored now.
    pub result: Result<FoldResult, FoldError>,
}

/// Why a segment was not folded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldError {
    /// The store did not give its state, or did not take the snapshot.
    #[error("{0}")]
    Store(StoreError),
    /// The worker did not make a snapshot; one line.
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
    done: impl Fn(Folded),
) {
    let mut workers = Workers { bounds, folder: None, checker: None };
    while let Some(job) = jobs.recv().await {
        let result = fold(&mut workers, &store, &job).await;
        // While the relay stops, reads of the store are given up.
        if let Err(error) = &result
            && !jobs.is_closed()
        {
            eprintln!("coheap-relay: heap {:?}: segment {} was not folded: {error}", job.of.heap, job.segment.0);
        }
        done(Folded { job, result });
    }
}

async fn fold(workers: &mut Workers, store: &Arc<Store>, job: &Job) -> Result<FoldResult, FoldError> {
    let state = {
        let (store, heap, segment, upto) = (Arc::clone(store), Arc::clone(&job.of.heap), job.segment, job.upto);
        blocking(move || store.read_states(&heap, upto, &[segment], 1)).await?
    };
    let Some(StoredState::At { snapshot, deltas, .. }) = state.into_iter().next() else {
        return Err("its state cannot be read".to_owned().into());
    };
    let mut request = encode_segment(FOLD, job.engine, &snapshot, &deltas);
    drop((snapshot, deltas));
    let snapshot = ask(&workers.bounds, &mut workers.folder, &request).await?;
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

/// Asks a worker, starting one if there is none; what it made.
async fn ask(bounds: &Worker, slot: &mut Option<Process>, request: &[u8]) -> Result<Bytes, FoldError> {
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
        Some((0, _)) => Ok(answer.slice(1..)),
        Some((_, error)) => Err(String::from_utf8_lossy(error).into_owned().into()),
        None => Err("the worker said nothing".to_owned().into()),
    }
}

/// What folds, and what checks it.
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
        let length = u32::try_from(request.len()).map_err(std::io::Error::other)?;
        self.requests.write_all(&length.to_le_bytes()).await?;
        self.requests.write_all(request).await?;
        self.requests.flush().await?;
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
    /// The snapshot to check; `None`: one is to be made.
    folded: Option<Bytes>,
}

fn decode_request(body: &Bytes) -> Result<Request, Malformed> {
    let mut reader = Reader::new(body);
    let what = reader.u8()?;
    let engine = EngineKind::from_code(reader.u8()?).ok_or(Malformed::Field("engine"))?;
    let snapshot = body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "snapshot")?);
    let count = reader.count(usize::MAX, "deltas")?;
    let mut deltas = Vec::with_capacity(count);
    for _ in 0..count {
        deltas.push(body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "delta")?));
    }
    let folded = match what {
        FOLD => None,
        CHECK => Some(body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "folded")?)),
        _ => return Err(Malformed::Field("request")),
    };
    reader.end()?;
    Ok(Request { engine, snapshot, deltas, folded })
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
        let answer = answer(&Bytes::from(body));
        let length = u32::try_from(answer.len()).map_err(std::io::Error::other)?;
        answers.write_all(&length.to_le_bytes())?;
        answers.write_all(&answer)?;
        answers.flush()?;
    }
}

/// The answer to one request, as [`serve`] gives it.
pub fn answer(request: &Bytes) -> Vec<u8> {
    let made = match decode_request(request) {
        Ok(Request { engine, snapshot, deltas, folded }) => match folded {
            None => segment::fold_unchecked(engine, &snapshot, &deltas),
            Some(folded) => segment::check_fold(engine, &snapshot, &deltas, &folded).map(|()| Vec::new()),
        }
        .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match made {
        Ok(bytes) => [&[0], bytes.as_slice()].concat(),
        Err(error) => [&[1], error.as_bytes()].concat(),
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
        assert_eq!(read.folded, None);
        assert_eq!(answer(&request).first(), Some(&1));
        assert_eq!(answer(&Bytes::from_static(b"\x00\x00\xff")).first(), Some(&1));
        assert_eq!(answer(&Bytes::from_static(b"\x07\x00\x00\x00")).first(), Some(&1));
    }

    #[test]
    fn no_deltas_fold_to_an_empty_document_and_another_snapshot_is_not_taken_for_it() {
        let mut request = encode_segment(FOLD, EngineKind::Yrs, b"", &[]);
        let made = answer(&request.clone().into());
        let (0, snapshot) = made.split_first().map(|(code, rest)| (*code, rest)).unwrap() else { panic!("{made:?}") };
        request[0] = CHECK;
        let with = |snapshot: &[u8]| {
            let mut request = request.clone();
            request.bytes(snapshot);
            answer(&request.into()).first().copied()
        };
        assert_eq!(with(snapshot), Some(0));
        assert_eq!(with(b"rubbish"), Some(1));
    }
}
