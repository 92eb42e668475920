//! Engines run here and nowhere else in a relay: in a process of its own, `coheap-relay worker`, with a bound on memory and
//! time. A segment that makes an engine ask for terabytes, loop or crash costs that process, and a fold that is tried again
//! much later; the relay goes on.
//!
//! ```text
//!   driver ──Job──► Folder task ──request──► worker's stdin      message := length:u32 body
//!                     │    ◄────── answer ── worker's stdout     request := engine:u8 snapshot:bytes list(delta:bytes)
//!                     └─► store.fold                             answer  := 0 snapshot | 1 error:str
//! ```
//!
//! What the worker makes it has verified: decoded again and compared, value by value, with what was folded
//! (`coheap_core::segment::fold`).

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

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

use crate::driver::Opening;
use crate::store::{FoldResult, Store, StoreError};

/// Address space of the worker.
const MEMORY_BYTES: u64 = 2 << 30;
/// How long one fold may take.
const FOLD_WITHIN: Duration = Duration::from_secs(30);
/// A whole message: one segment at its hard limit with its deltas.
const MESSAGE_BYTES_MAX: usize = limits::LONG_BYTES_MAX + limits::SEGMENT_BYTES_HARD;

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
    program: PathBuf,
    store: Arc<Store>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    done: impl Fn(Folded),
) {
    let mut worker = None;
    while let Some(job) = jobs.recv().await {
        let result = fold(&program, &mut worker, &store, &job).await;
        // While the relay stops, reads of the store are given up.
        if let Err(error) = &result
            && !jobs.is_closed()
        {
            eprintln!("coheap-relay: heap {:?}: segment {} was not folded: {error}", job.of.heap, job.segment.0);
        }
        done(Folded { job, result });
    }
}

async fn fold(
    program: &PathBuf,
    slot: &mut Option<Process>,
    store: &Arc<Store>,
    job: &Job,
) -> Result<FoldResult, FoldError> {
    let state = {
        let (store, heap, segment, upto) = (Arc::clone(store), Arc::clone(&job.of.heap), job.segment, job.upto);
        blocking(move || store.read_states(&heap, upto, &[segment], 1)).await?
    };
    let Some(StoredState::At { snapshot, deltas, .. }) = state.into_iter().next() else {
        return Err("its state cannot be read".to_owned().into());
    };
    let request = encode_request(job.engine, &snapshot, &deltas);
    drop((snapshot, deltas));
    let mut process = match slot.take() {
        Some(process) => process,
        None => Process::start(program).map_err(|error| format!("the worker does not start: {error}"))?,
    };
    let answer = match timeout(FOLD_WITHIN, process.ask(&request)).await {
        Ok(Ok(answer)) => answer,
        // Dropped, the process is killed; the next job gets a new one.
        Ok(Err(error)) => return Err(format!("the worker died: {error}").into()),
        Err(_) => return Err("the worker took too long".to_owned().into()),
    };
    *slot = Some(process);
    let snapshot = match answer.split_first() {
        Some((0, _)) => answer.slice(1..),
        Some((_, error)) => return Err(String::from_utf8_lossy(error).into_owned().into()),
        None => return Err("the worker said nothing".to_owned().into()),
    };
    let (store, heap, segment) = (Arc::clone(store), Arc::clone(&job.of.heap), job.segment);
    let (upto, keep) = (job.upto, job.keep);
    blocking(move || store.fold(&heap, segment, upto, keep, &snapshot)).await
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
    fn start(program: &PathBuf) -> std::io::Result<Process> {
        let mut command = Command::new(program);
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
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

fn encode_request(engine: EngineKind, snapshot: &[u8], deltas: &[Bytes]) -> Vec<u8> {
    let bytes: usize = deltas.iter().map(Bytes::len).sum();
    let mut out = Vec::with_capacity(snapshot.len() + bytes + 8 * deltas.len() + 16);
    out.push(engine.code());
    out.bytes(snapshot);
    out.varint(deltas.len() as u64);
    for delta in deltas {
        out.bytes(delta);
    }
    out
}

fn decode_request(body: &Bytes) -> Result<(EngineKind, Bytes, Vec<Bytes>), Malformed> {
    let mut reader = Reader::new(body);
    let engine = EngineKind::from_code(reader.u8()?).ok_or(Malformed::Field("engine"))?;
    let snapshot = body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "snapshot")?);
    let count = reader.count(usize::MAX, "deltas")?;
    let mut deltas = Vec::with_capacity(count);
    for _ in 0..count {
        deltas.push(body.slice_ref(reader.bytes(MESSAGE_BYTES_MAX, "delta")?));
    }
    reader.end()?;
    Ok((engine, snapshot, deltas))
}

/// The worker itself: answers requests until the relay is gone.
pub fn serve() -> std::io::Result<()> {
    match answer_all() {
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => Ok(()),
        other => other,
    }
}

fn answer_all() -> std::io::Result<()> {
    let limit = rustix::process::Rlimit { current: Some(MEMORY_BYTES), maximum: Some(MEMORY_BYTES) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit)?;
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

fn answer(request: &Bytes) -> Vec<u8> {
    let folded = match decode_request(request) {
        Ok((engine, snapshot, deltas)) => segment::fold(engine, &snapshot, &deltas).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match folded {
        Ok(snapshot) => [&[0], snapshot.as_slice()].concat(),
        Err(error) => [&[1], error.as_bytes()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_and_rubbish_is_answered_with_an_error() {
        let deltas = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let request = Bytes::from(encode_request(EngineKind::Yrs, b"snap", &deltas));
        let (engine, snapshot, read) = decode_request(&request).unwrap();
        assert_eq!((engine, &snapshot[..], &read[..]), (EngineKind::Yrs, &b"snap"[..], &deltas[..]));
        assert_eq!(answer(&request).first(), Some(&1));
        assert_eq!(answer(&Bytes::from_static(b"\x00\xff")).first(), Some(&1));
    }

    #[test]
    fn no_deltas_fold_to_an_empty_document() {
        let request = Bytes::from(encode_request(EngineKind::Yrs, b"", &[]));
        assert_eq!(answer(&request).first(), Some(&0));
    }
}
