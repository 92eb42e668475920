//! One task owns the relay machines of all heaps: feeds them inputs, performs their outputs in the order given, opens a heap
//! when somebody comes and drops it when nobody has been there for a while. It decides nothing about a heap.
//!
//! Next: `driver/commit.rs`, the thread that writes; `core/src/relay.rs`, the machine.

mod commit;
mod heaps;
mod scrub;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use coheap_core::id::Offset;
use coheap_core::log::LogEntry;
use coheap_core::relay::{ConnId, Examined, Merge, Recovered, Roll, StoredState, Ticket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::auth::Grant;
use crate::config::Config;
use crate::store::{Store, StoreError};
use crate::worker;
use heaps::Driver;

/// Bytes of messages that have come and are not handled.
const INBOX_BYTES: usize = 32 << 20;
/// Messages that have come and are not handled.
const INBOX_MESSAGES: usize = 1024;

/// What a connection is told.
#[derive(Debug)]
pub(crate) enum ToConn {
    /// Frames to send.
    Frames(Bytes),
    /// Close, with this code and reason.
    Close(u16, &'static str),
}

/// What connections say. Bounded: they wait while the driver is behind.
#[derive(Debug)]
enum Command {
    Open { conn: ConnId, heap: Arc<str>, grant: Grant, to: mpsc::UnboundedSender<ToConn> },
    Message { conn: ConnId, bytes: Bytes, _room: OwnedSemaphorePermit },
    Closed { conn: ConnId },
}

/// One time that a heap is open. It goes with all that is asked for a heap and comes back with the answer: tickets, attempts
/// and positions of a machine mean nothing to the next one of the same heap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Opening {
    /// The heap.
    pub heap: Arc<str>,
    /// Counts the openings of all heaps.
    pub number: u64,
}

/// What the store and the writers report. Bounded by what was asked of them.
#[derive(Debug)]
enum Event {
    Written { conn: ConnId, bytes: usize },
    Opened { of: Opening, recovered: Result<Recovered, StoreError> },
    Recovered { of: Opening, recovered: Result<Recovered, StoreError> },
    Committed { of: Opening, attempt: u32, upto: Offset, bytes: usize },
    NotCommitted { of: Opening, attempt: u32, why: NotWritten, bytes: usize },
    Log { of: Opening, ticket: Ticket, entries: Result<Vec<(Offset, LogEntry)>, StoreError> },
    States { of: Opening, ticket: Ticket, states: Result<Vec<StoredState>, StoreError> },
    Folded(worker::Folded),
    Merged { of: Opening, ticket: Ticket, merge: Merge },
    Examined { of: Opening, ticket: Ticket, examined: Examined },
    RollMade { of: Opening, ticket: Ticket, roll: Roll },
    Scrubbed { heap: Arc<str>, error: StoreError },
    Stop,
}

/// Why appends were not written.
#[derive(Clone, PartialEq, Eq, Debug)]
enum NotWritten {
    /// No room, or they follow some for which there was none.
    Full,
    /// The store failed.
    Failed,
    /// The heap is damaged on the disk.
    Damaged(String),
}

/// The way to the driver, for connections.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    events: mpsc::UnboundedSender<Event>,
    room: Arc<Semaphore>,
    conns: Arc<AtomicU64>,
    suspect: Arc<AtomicBool>,
}

impl Handle {
    /// The scrub has found pages of the store damaged, which need not be any heap's.
    pub fn is_store_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// A connection whose token was accepted. `None`: the relay is stopping.
    pub async fn open(&self, heap: Arc<str>, grant: Grant, to: mpsc::UnboundedSender<ToConn>) -> Option<ConnId> {
        let conn = ConnId(self.conns.fetch_add(1, Ordering::Relaxed));
        self.commands.send(Command::Open { conn, heap, grant, to }).await.ok().map(|()| conn)
    }

    /// A message; waits while too many are not handled.
    pub async fn message(&self, conn: ConnId, bytes: Bytes) {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(INBOX_BYTES as u32);
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(size).await else { return };
        let _ = self.commands.send(Command::Message { conn, bytes, _room: room }).await;
    }

    /// So many bytes of frames have left.
    pub fn written(&self, conn: ConnId, bytes: usize) {
        let _ = self.events.send(Event::Written { conn, bytes });
    }

    /// The connection is gone.
    pub async fn closed(&self, conn: ConnId) {
        let _ = self.commands.send(Command::Closed { conn }).await;
    }

    /// Done when the driver takes no more commands.
    pub async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// Finish what is under way and close every connection.
    pub async fn shut_down(&self) {
        let _ = self.events.send(Event::Stop);
        self.stopped().await;
    }
}

/// A running driver.
#[derive(Debug)]
pub(crate) struct Running {
    handle: Handle,
    task: JoinHandle<()>,
    /// What asks workers; ended, it takes them with it.
    folder: Option<JoinHandle<()>>,
    writer: Option<std::thread::JoinHandle<()>>,
    /// Ends with the driver.
    scrub: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until all is written. The driver has been told to stop.
    pub async fn stop(mut self) {
        let _ = self.handle.events.send(Event::Stop);
        let _ = self.task.await;
        if let Some(folder) = self.folder.take() {
            folder.abort();
            let _ = folder.await;
        }
        for thread in [self.writer.take(), self.scrub.take()].into_iter().flatten() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Starts the driver and its writing thread.
pub(crate) fn start(store: Arc<Store>, config: &Config) -> Running {
    let (commands, inbox) = mpsc::channel(INBOX_MESSAGES);
    let (events, reports) = mpsc::unbounded_channel();
    let (appends, queue) = std::sync::mpsc::channel();
    let writer = std::thread::Builder::new().name("commit".to_owned());
    let writer = writer.spawn({
        let (store, events) = (Arc::clone(&store), events.clone());
        move || commit::run(&store, &queue, &events)
    });
    let suspect = Arc::new(AtomicBool::new(false));
    let handle = Handle {
        commands,
        events: events.clone(),
        room: Arc::new(Semaphore::new(INBOX_BYTES)),
        conns: Arc::default(),
        suspect: Arc::clone(&suspect),
    };
    let (folds, folder) = match config.worker.clone() {
        None => (None, None),
        Some(worker) => {
            let (folds, jobs) = mpsc::unbounded_channel();
            let events = events.clone();
            let done = move |done| {
                let event = match done {
                    worker::Done::Folded(folded) => Event::Folded(folded),
                    worker::Done::Merged { of, ticket, merge } => Event::Merged { of, ticket, merge },
                    worker::Done::Examined { of, ticket, examined } => Event::Examined { of, ticket, examined },
                    worker::Done::Rolled { of, ticket, roll } => Event::RollMade { of, ticket, roll },
                };
                drop(events.send(event));
            };
            (Some(folds), Some(tokio::spawn(worker::run(worker, Arc::clone(&store), jobs, done))))
        }
    };
    let (opened, first) = std::sync::mpsc::channel();
    let scrub = config.scrub.and_then(|scrub| {
        let (store, events) = (Arc::clone(&store), events.clone());
        let thread = std::thread::Builder::new().name("scrub".to_owned());
        thread.spawn(move || scrub::run(&store, scrub, &suspect, &first, &events)).ok()
    });
    let driver = Driver::new(store, events, appends, (folds, opened), config.restored);
    let task = tokio::spawn(driver.run(inbox, reports));
    Running { handle, task, folder, writer: writer.ok(), scrub }
}
