//! The driver's state: which heaps are open, which connections are theirs, and what is on its way to the disk and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use coheap_core::id::Offset;
use coheap_core::relay::{Append, Config as RelayConfig, ConnId, Input, Output, Recovered, Relay};
use coheap_core::time::{Millis, Time};
use coheap_core::wire::code::Code;
use tokio::sync::mpsc;

use super::{Command, Event, ToConn};
use crate::store::{Store, StoreError};
use crate::worker::{Folded, Job};

/// Bytes of entries on their way to the disk, over which no more messages are taken.
const UNWRITTEN_BYTES_MAX: usize = 64 << 20;
/// How long a heap without connections stays open.
const IDLE: Millis = Millis(30_000);
/// How long a stop may take; what was acknowledged is on the disk anyway.
const STOP_WITHIN: Duration = Duration::from_secs(8);
/// Deltas of one segment, in bytes, after which it is folded.
const FOLD_BYTES: u64 = 256 * 1024;
/// Handled in one go before timers are looked at.
const TURN: usize = 256;

#[derive(Debug)]
enum Heap {
    /// Being read from the store; what has come for it meanwhile.
    Opening(Vec<Input>),
    /// Open. Boxed: a machine is large, and the map moves its values.
    Open(Box<Relay>),
}

#[derive(Debug)]
pub(super) struct Driver {
    store: Arc<Store>,
    events: mpsc::UnboundedSender<Event>,
    appends: Sender<(Arc<str>, Append)>,
    heaps: BTreeMap<Arc<str>, Heap>,
    conns: BTreeMap<ConnId, (Arc<str>, mpsc::UnboundedSender<ToConn>)>,
    deadlines: BTreeMap<Arc<str>, Time>,
    queue: BTreeSet<(Time, Arc<str>)>,
    unwritten: usize,
    begun: Instant,
    unix_ms: u64,
    life: u64,
    /// The way to the worker; `None`: nothing is folded.
    folds: Option<mpsc::UnboundedSender<Job>>,
    stopping: Option<Instant>,
}

impl Driver {
    pub fn new(
        store: Arc<Store>,
        events: mpsc::UnboundedSender<Event>,
        appends: Sender<(Arc<str>, Append)>,
        folds: Option<mpsc::UnboundedSender<Job>>,
    ) -> Driver {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Driver {
            store,
            events,
            appends,
            heaps: BTreeMap::new(),
            conns: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            queue: BTreeSet::new(),
            unwritten: 0,
            begun: Instant::now(),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
            life: random(),
            folds,
            stopping: None,
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Until it was told to stop and everything is written and closed.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>, mut reports: mpsc::UnboundedReceiver<Event>) {
        loop {
            let wake = self.next_wake();
            let takes_messages = self.unwritten < UNWRITTEN_BYTES_MAX;
            tokio::select! {
                biased;
                Some(event) = reports.recv() => {
                    self.event(event);
                    for _ in 0..TURN {
                        let Ok(event) = reports.try_recv() else { break };
                        self.event(event);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
                command = inbox.recv(), if takes_messages => {
                    let Some(command) = command else { return };
                    self.command(command);
                    for _ in 0..TURN {
                        if self.unwritten >= UNWRITTEN_BYTES_MAX {
                            break;
                        }
                        let Ok(command) = inbox.try_recv() else { break };
                        self.command(command);
                    }
                }
            }
            self.wake_due();
            if let Some(since) = self.stopping
                && (self.heaps.is_empty() || since.elapsed() > STOP_WITHIN)
            {
                return;
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let next = self.queue.first().map_or(Time(u64::MAX), |(at, _)| *at);
        let limit = if self.stopping.is_some() { Duration::from_millis(100) } else { Duration::from_secs(3600) };
        let from_begin = Duration::from_millis(next.0.min(u64::from(u32::MAX) * 1000));
        (self.begun + from_begin).min(Instant::now() + limit)
    }

    fn wake_due(&mut self) {
        let now = self.now();
        while let Some((at, heap)) = self.queue.first().cloned() {
            if at > now {
                return;
            }
            self.queue.pop_first();
            self.deadlines.remove(&heap);
            self.feed(&heap, Input::Wake);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open { conn, heap, grant, to } => {
                if self.stopping.is_some() {
                    let _ = to.send(ToConn::Close(1012, "the relay is stopping"));
                    return;
                }
                self.conns.insert(conn, (Arc::clone(&heap), to));
                self.open(&heap);
                self.feed(&heap, Input::Opened { conn, subject: grant.subject, can_write: grant.can_write });
            }
            Command::Message { conn, bytes, _room } => {
                if let Some((heap, _)) = self.conns.get(&conn).cloned() {
                    self.feed(&heap, Input::Message { conn, bytes });
                }
            }
            Command::Closed { conn } => {
                if let Some((heap, _)) = self.conns.remove(&conn) {
                    self.feed(&heap, Input::Closed { conn });
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Written { conn, bytes } => {
                if let Some((heap, _)) = self.conns.get(&conn).cloned() {
                    self.feed(&heap, Input::Written { conn, bytes });
                }
            }
            Event::Opened { heap, recovered } => self.opened(&heap, recovered),
            Event::Recovered { heap, recovered } => match recovered {
                Ok(recovered) => self.feed(&heap, Input::Recovered(recovered)),
                Err(error) => self.give_up(&heap, &error),
            },
            Event::Committed { heap, upto, bytes } => {
                self.unwritten = self.unwritten.saturating_sub(bytes);
                self.feed(&heap, Input::Durable { upto });
            }
            Event::NotCommitted { heap, attempt, full, bytes } => {
                self.unwritten = self.unwritten.saturating_sub(bytes);
                self.feed(&heap, Input::AppendFailed { attempt, full });
            }
            Event::Log { heap, ticket, entries } => match entries {
                Ok(entries) => self.feed(&heap, Input::Log { ticket, entries }),
                Err(error) => {
                    complain(&heap, &error);
                    self.feed(&heap, Input::ReadFailed { ticket });
                }
            },
            Event::States { heap, ticket, states } => match states {
                Ok(states) => self.feed(&heap, Input::States { ticket, states }),
                Err(error) => {
                    complain(&heap, &error);
                    self.feed(&heap, Input::ReadFailed { ticket });
                }
            },
            Event::Folded(Folded { job, result }) => {
                let input = match result {
                    Ok(done) => Input::Folded {
                        segment: job.segment,
                        folded: Some(done.folded),
                        floor: done.floor,
                        holder: done.holder,
                    },
                    Err(_) => Input::Folded { segment: job.segment, folded: None, floor: Offset(0), holder: None },
                };
                self.feed(&job.heap, input);
            }
            Event::Stop => {
                if self.stopping.is_none() {
                    self.stopping = Some(Instant::now());
                    for heap in self.heaps.keys().cloned().collect::<Vec<_>>() {
                        self.feed(&heap, Input::Stop);
                    }
                }
            }
        }
    }

    /// Reads a heap from the store, if it is not open.
    fn open(&mut self, heap: &Arc<str>) {
        if self.heaps.contains_key(heap) {
            return;
        }
        self.heaps.insert(Arc::clone(heap), Heap::Opening(Vec::new()));
        self.on_disk(heap, |store, heap, events| {
            let recovered = store.recover(&heap);
            let _ = events.send(Event::Opened { heap, recovered });
        });
    }

    fn opened(&mut self, heap: &Arc<str>, recovered: Result<Recovered, StoreError>) {
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(error) => return self.give_up(heap, &error),
        };
        let config = RelayConfig {
            heap: heap.to_string(),
            life: self.life,
            entropy: random(),
            unix_ms: self.unix_ms,
            idle: IDLE,
            fold_bytes: self.folds.is_some().then_some(FOLD_BYTES),
        };
        let relay = Box::new(Relay::new(config, recovered, self.now()));
        let Some(Heap::Opening(waiting)) = self.heaps.insert(Arc::clone(heap), Heap::Open(relay)) else { return };
        self.perform(heap);
        for input in waiting {
            self.feed(heap, input);
        }
    }

    /// A heap that cannot be read: its connections are closed, the others are not affected.
    fn give_up(&mut self, heap: &Arc<str>, error: &StoreError) {
        complain(heap, error);
        self.drop_heap(heap);
        let theirs: Vec<ConnId> = self.conns.iter().filter(|(_, (of, _))| of == heap).map(|(conn, _)| *conn).collect();
        for conn in theirs {
            self.close(conn, Code::StoreFailed.close_code(), Code::StoreFailed.text());
        }
    }

    fn drop_heap(&mut self, heap: &Arc<str>) {
        self.heaps.remove(heap);
        if let Some(at) = self.deadlines.remove(heap) {
            self.queue.remove(&(at, Arc::clone(heap)));
        }
    }

    fn close(&mut self, conn: ConnId, code: u16, reason: &'static str) {
        if let Some((_, to)) = self.conns.remove(&conn) {
            let _ = to.send(ToConn::Close(code, reason));
        }
    }

    /// One input, and everything that comes of it.
    fn feed(&mut self, heap: &Arc<str>, input: Input) {
        let now = self.now();
        match self.heaps.get_mut(heap) {
            None => return,
            Some(Heap::Opening(waiting)) => {
                if matches!(input, Input::Stop) {
                    // Nothing of it is under way.
                    return self.give_up_quietly(heap);
                }
                return waiting.push(input);
            }
            Some(Heap::Open(relay)) => relay.handle(now, input),
        }
        self.perform(heap);
    }

    fn give_up_quietly(&mut self, heap: &Arc<str>) {
        self.drop_heap(heap);
        let theirs: Vec<ConnId> = self.conns.iter().filter(|(_, (of, _))| of == heap).map(|(conn, _)| *conn).collect();
        for conn in theirs {
            self.close(conn, 1012, "the relay is stopping");
        }
    }

    fn perform(&mut self, heap: &Arc<str>) {
        while let Some(output) = self.poll(heap) {
            match output {
                Output::Send { to, frames } => {
                    for conn in to {
                        if let Some((_, queue)) = self.conns.get(&conn) {
                            let _ = queue.send(ToConn::Frames(frames.clone()));
                        }
                    }
                }
                Output::Close { conn, code, reason } => self.close(conn, code, reason),
                Output::Append(append) => {
                    self.unwritten += append.bytes();
                    let _ = self.appends.send((Arc::clone(heap), append));
                }
                Output::ReadLog { ticket, from, upto, bytes_max } => self.on_disk(heap, move |store, heap, events| {
                    let entries = store.read_log(&heap, from, upto, bytes_max);
                    let _ = events.send(Event::Log { heap, ticket, entries });
                }),
                Output::ReadStates { ticket, position, segments, bytes_max } => {
                    self.on_disk(heap, move |store, heap, events| {
                        let states = store.read_states(&heap, position, &segments, bytes_max);
                        let _ = events.send(Event::States { heap, ticket, states });
                    });
                }
                Output::Recover => self.on_disk(heap, |store, heap, events| {
                    let recovered = store.recover(&heap);
                    let _ = events.send(Event::Recovered { heap, recovered });
                }),
                Output::Fold { segment, engine, upto, keep } => {
                    if let Some(folds) = &self.folds {
                        let _ = folds.send(Job { heap: Arc::clone(heap), segment, engine, upto, keep });
                    }
                }
                Output::Idle | Output::Stopped => {
                    self.drop_heap(heap);
                    return;
                }
            }
        }
        let deadline = match self.heaps.get(heap) {
            Some(Heap::Open(relay)) => relay.deadline(),
            _ => None,
        };
        self.set_deadline(heap, deadline);
    }

    fn poll(&mut self, heap: &Arc<str>) -> Option<Output> {
        match self.heaps.get_mut(heap) {
            Some(Heap::Open(relay)) => relay.poll(),
            _ => None,
        }
    }

    fn set_deadline(&mut self, heap: &Arc<str>, deadline: Option<Time>) {
        if self.deadlines.get(heap).copied() == deadline {
            return;
        }
        if let Some(at) = self.deadlines.remove(heap) {
            self.queue.remove(&(at, Arc::clone(heap)));
        }
        if let Some(at) = deadline {
            self.deadlines.insert(Arc::clone(heap), at);
            self.queue.insert((at, Arc::clone(heap)));
        }
    }

    /// Reads on a thread that may block.
    fn on_disk(
        &self,
        heap: &Arc<str>,
        read: impl FnOnce(&Store, Arc<str>, &mpsc::UnboundedSender<Event>) + Send + 'static,
    ) {
        let (store, heap, events) = (Arc::clone(&self.store), Arc::clone(heap), self.events.clone());
        tokio::task::spawn_blocking(move || read(&store, heap, &events));
    }
}

fn complain(heap: &str, error: &StoreError) {
    eprintln!("coheap-relay: heap {heap:?}: {error}");
}

/// Random bits of the operating system; without them no id would be safe, so there is nothing to go on with.
fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random bits")
}
