//! The driver's state: which heaps are open, which connections are theirs, and what is on its way to the disk and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use coheap_core::id::Offset;
use coheap_core::limits;
use coheap_core::relay::{
    Append, Config as RelayConfig, ConnId, Examined, Input, Merge, Output, REFUSES_AFTER, Recovered, Relay, Roll,
    Ticket,
};
use coheap_core::time::{Millis, Time};
use coheap_core::wire::code::Code;
use tokio::sync::mpsc;

use super::{Command, Event, NotWritten, Opening, ToConn};
use crate::store::{FoldResult, Store, StoreError};
use crate::worker::{ExamineJob, FoldError, FoldJob, Folded, Job, MergeJob, RollJob};

/// Bytes of entries on their way to the disk, and of messages for heaps that are being read, over which no more are taken.
const UNWRITTEN_BYTES_MAX: usize = 64 << 20;
/// How long a heap without connections stays open.
const IDLE: Millis = Millis(30_000);
/// How long a stop may take; what was acknowledged is on the disk anyway.
const STOP_WITHIN: Duration = Duration::from_secs(8);
/// Deltas of one segment, in bytes, after which it is folded.
const FOLD_BYTES: u64 = 256 * 1024;
/// How long a relay over a backup admits no commits (D7).
const ADMITS_AFTER_MS: u64 = 60_000;
/// How long after its start a relay makes no generation: if its disk was rolled back, a replica comes and says so (D6).
const ROLLS_AFTER_MS: u64 = 10 * 60_000;
/// Damaged heaps that are remembered; of more, each is read again when somebody comes.
const HALTED_MAX: usize = 4_096;
/// Handled in one go before timers are looked at.
const TURN: usize = 256;

#[derive(Debug)]
enum Heap {
    /// Being read from the store; what has come for it meanwhile, and how many bytes that is.
    Opening(Vec<Input>, usize),
    /// Open. Boxed: a machine is large, and the map moves its values.
    Open(Box<Relay>),
}

#[derive(Debug)]
pub(super) struct Driver {
    store: Arc<Store>,
    events: mpsc::UnboundedSender<Event>,
    appends: Sender<(Opening, Append)>,
    heaps: BTreeMap<Arc<str>, (Opening, Heap)>,
    openings: u64,
    conns: BTreeMap<ConnId, (Arc<str>, mpsc::UnboundedSender<ToConn>)>,
    deadlines: BTreeMap<Arc<str>, Time>,
    queue: BTreeSet<(Time, Arc<str>)>,
    unwritten: usize,
    /// Bytes of messages for heaps that are being read.
    waiting: usize,
    begun: Instant,
    unix_ms: u64,
    life: u64,
    /// Before that, no commit is admitted (D7).
    admits_from: Time,
    /// Before that, no generation is made (D6).
    rolls_from: Time,
    /// The way to the worker; `None`: nothing is folded.
    folds: Option<mpsc::UnboundedSender<Job>>,
    /// The scrub, which reads what is opened for the first time.
    scrub: Sender<Arc<str>>,
    /// Folds under way, at most one of each opening of a heap: below these places the log may go at any moment.
    folding: BTreeMap<Opening, Offset>,
    stopping: Option<Instant>,
    /// Heaps that were found damaged: closed until the next start, after `store salvage`.
    halted: BTreeSet<Arc<str>>,
}

impl Driver {
    pub fn new(
        store: Arc<Store>,
        events: mpsc::UnboundedSender<Event>,
        appends: Sender<(Opening, Append)>,
        (folds, scrub): (Option<mpsc::UnboundedSender<Job>>, Sender<Arc<str>>),
        restored: bool,
    ) -> Driver {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Driver {
            store,
            events,
            appends,
            heaps: BTreeMap::new(),
            openings: 0,
            conns: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            queue: BTreeSet::new(),
            unwritten: 0,
            waiting: 0,
            begun: Instant::now(),
            unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
            life: random(),
            admits_from: if restored { Time(ADMITS_AFTER_MS) } else { Time(0) },
            rolls_from: Time(ROLLS_AFTER_MS),
            folds,
            scrub,
            folding: BTreeMap::new(),
            stopping: None,
            halted: BTreeSet::new(),
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Until it was told to stop and everything is written and closed.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>, mut reports: mpsc::UnboundedReceiver<Event>) {
        loop {
            let wake = self.next_wake();
            let takes_messages = self.takes_messages();
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
                        if !self.takes_messages() {
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

    fn takes_messages(&self) -> bool {
        self.unwritten + self.waiting < UNWRITTEN_BYTES_MAX
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
                if self.halted.contains(&heap) {
                    let _ = to.send(ToConn::Close(Code::Corrupt.close_code(), Code::Corrupt.text()));
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
            Event::Opened { of, recovered } => self.opened(&of, recovered),
            Event::Recovered { of, recovered } => match recovered {
                Ok(recovered) => {
                    let recovered = self.above_folds(&of.heap, recovered);
                    self.feed_opening(&of, Input::Recovered(recovered));
                }
                Err(error) if self.is_current(&of) => self.give_up(&of.heap, &error),
                Err(_) => {}
            },
            Event::Committed { of, attempt, upto, bytes } => {
                self.unwritten = self.unwritten.saturating_sub(bytes);
                // What another attempt left in the queue is in the log now; the next append finds that, and reads it again.
                let current = self.is_current(&of) && self.attempt(&of.heap) == Some(attempt);
                if current {
                    self.feed(&of.heap, Input::Durable { upto });
                }
            }
            Event::NotCommitted { of, attempt, why, bytes } => {
                self.unwritten = self.unwritten.saturating_sub(bytes);
                match why {
                    NotWritten::Full => self.feed_opening(&of, Input::AppendFailed { attempt, full: true }),
                    NotWritten::Failed => {
                        // What a reopened store shows may not have been synced: heaps begin a new epoch, which syncs it (R6).
                        self.life = random();
                        self.feed_opening(&of, Input::AppendFailed { attempt, full: false });
                    }
                    NotWritten::Damaged(what) if self.is_current(&of) => {
                        self.give_up(&of.heap, &StoreError::Damaged(what));
                    }
                    NotWritten::Damaged(_) => {}
                }
            }
            Event::Log { of, ticket, entries } => {
                let input = entries.map(|entries| Input::Log { ticket, entries });
                self.read(&of, ticket, input);
            }
            Event::States { of, ticket, states } => {
                let input = states.map(|states| Input::States { ticket, states });
                self.read(&of, ticket, input);
            }
            Event::Folded(folded) => self.folded(folded),
            Event::Merged { of, ticket, merge } => self.feed_opening(&of, Input::Merged { ticket, merge }),
            Event::Examined { of, ticket, examined } => self.feed_opening(&of, Input::Examined { ticket, examined }),
            Event::RollMade { of, ticket, roll } => self.feed_opening(&of, Input::RollMade { ticket, roll }),
            Event::Scrubbed { heap, error } if !self.halted.contains(&heap) => self.give_up(&heap, &error),
            Event::Scrubbed { .. } => {}
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

    /// The answer to a read.
    fn read(&mut self, of: &Opening, ticket: Ticket, input: Result<Input, StoreError>) {
        match input {
            Ok(input) => self.feed_opening(of, input),
            Err(error @ StoreError::Damaged(_)) if self.is_current(of) => self.give_up(&of.heap, &error),
            Err(error) => {
                // The log that a stream needed stays as long as there is the stream (R8), and no longer.
                if self.is_current(of) && self.machine(&of.heap).is_some_and(|relay| relay.awaits(ticket)) {
                    complain(&of.heap, &error);
                }
                self.feed_opening(of, Input::ReadFailed { ticket });
            }
        }
    }

    /// What was read of a heap, no stream of which may start where a fold that an earlier machine asked for is about to drop
    /// the log: that machine spared its own streams, and knew nothing of these (R8).
    fn above_folds(&self, heap: &Arc<str>, recovered: Recovered) -> Recovered {
        let first = Opening { heap: Arc::clone(heap), number: 0 };
        let last = Opening { heap: Arc::clone(heap), number: u64::MAX };
        let keep = self.folding.range(first..=last).map(|(_, keep)| *keep).max().unwrap_or_default();
        Recovered { floor: recovered.floor.max(keep), ..recovered }
    }

    fn fold(&mut self, job: FoldJob) {
        if let Some(folds) = &self.folds {
            self.folding.insert(job.of.clone(), job.keep);
            let _ = folds.send(Job::Fold(job));
        }
    }

    /// A fold of an earlier opening has raised the floor like any other.
    fn folded(&mut self, folded: Folded) {
        let Folded { job, result } = folded;
        self.folding.remove(&job.of);
        let (segment, current) = (job.segment, self.is_current(&job.of));
        let input = match result {
            Ok(FoldResult { folded, floor, holder }) if current => {
                Input::Folded { segment, folded: Some(folded), floor, holder }
            }
            Ok(FoldResult { floor, .. }) => Input::Floor { floor },
            Err(FoldError::Store(error @ StoreError::Damaged(_))) if current => {
                return self.give_up(&job.of.heap, &error);
            }
            Err(_) if current => Input::Folded { segment, folded: None, floor: Offset(0), holder: None },
            Err(_) => return,
        };
        self.feed(&job.of.heap, input);
    }

    /// Whether a heap is open, or being opened, for the very time that something was asked for.
    fn is_current(&self, of: &Opening) -> bool {
        self.heaps.get(&of.heap).is_some_and(|(current, _)| current == of)
    }

    /// An input that answers what was asked for; one that comes too late is dropped.
    fn feed_opening(&mut self, of: &Opening, input: Input) {
        if self.is_current(of) {
            self.feed(&of.heap, input);
        }
    }

    /// Reads a heap from the store, if it is not open.
    fn open(&mut self, heap: &Arc<str>) {
        if self.heaps.contains_key(heap) {
            return;
        }
        self.openings += 1;
        let of = Opening { heap: Arc::clone(heap), number: self.openings };
        self.heaps.insert(Arc::clone(heap), (of.clone(), Heap::Opening(Vec::new(), 0)));
        self.on_disk(of, |store, of, events| {
            let recovered = store.recover(&of.heap);
            let _ = events.send(Event::Opened { of, recovered });
        });
    }

    fn opened(&mut self, of: &Opening, recovered: Result<Recovered, StoreError>) {
        let heap = &of.heap;
        // Given up meanwhile.
        if !self.is_current(of) {
            return;
        }
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(error) => return self.give_up(heap, &error),
        };
        let _ = self.scrub.send(Arc::clone(heap));
        let config = RelayConfig {
            heap: heap.to_string(),
            life: self.life,
            entropy: random(),
            unix_ms: self.unix_ms,
            idle: IDLE,
            fold_bytes: self.folds.is_some().then_some(FOLD_BYTES),
            refuses_after: REFUSES_AFTER,
            admits_from: self.admits_from,
            rolls_from: self.rolls_from,
            retention: Some(Millis(limits::ROW_RETENTION_MS)),
        };
        let recovered = self.above_folds(heap, recovered);
        let relay = Box::new(Relay::new(config, recovered, self.now()));
        let before = self.heaps.insert(Arc::clone(heap), (of.clone(), Heap::Open(relay)));
        let Some((_, Heap::Opening(waiting, bytes))) = before else { return };
        self.waiting -= bytes;
        self.perform(heap);
        for input in waiting {
            self.feed(heap, input);
        }
    }

    /// A heap that cannot be read: its connections are closed, the others are not affected. A damaged one stays closed.
    fn give_up(&mut self, heap: &Arc<str>, error: &StoreError) {
        complain(heap, error);
        let code = match error {
            StoreError::Damaged(_) => Code::Corrupt,
            _ => Code::StoreFailed,
        };
        if code == Code::Corrupt && self.halted.len() < HALTED_MAX {
            self.halted.insert(Arc::clone(heap));
        }
        self.drop_heap(heap);
        let theirs: Vec<ConnId> = self.conns.iter().filter(|(_, (of, _))| of == heap).map(|(conn, _)| *conn).collect();
        for conn in theirs {
            self.close(conn, code.close_code(), code.text());
        }
    }

    fn drop_heap(&mut self, heap: &Arc<str>) {
        if let Some((_, Heap::Opening(_, bytes))) = self.heaps.remove(heap) {
            self.waiting -= bytes;
        }
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
            Some((_, Heap::Opening(waiting, bytes))) => {
                match &input {
                    // Nothing of it is under way.
                    Input::Stop => return self.give_up_quietly(heap),
                    Input::Message { bytes: message, .. } => {
                        *bytes += message.len();
                        self.waiting += message.len();
                    }
                    _ => {}
                }
                return waiting.push(input);
            }
            Some((_, Heap::Open(relay))) => relay.handle(now, input),
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
        let Some(of) = self.heaps.get(heap).map(|(of, _)| of.clone()) else { return };
        while let Some(output) = self.poll(heap) {
            let of = of.clone();
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
                    let _ = self.appends.send((of, append));
                }
                Output::ReadLog { ticket, from, upto, bytes_max } => self.on_disk(of, move |store, of, events| {
                    let entries = store.read_log(&of.heap, from, upto, bytes_max);
                    let _ = events.send(Event::Log { of, ticket, entries });
                }),
                Output::ReadStates { ticket, position, segments, bytes_max } => {
                    self.on_disk(of, move |store, of, events| {
                        let states = store.read_states(&of.heap, position, &segments, bytes_max);
                        let _ = events.send(Event::States { of, ticket, states });
                    });
                }
                Output::Recover => self.on_disk(of, |store, of, events| {
                    let recovered = store.recover(&of.heap);
                    let _ = events.send(Event::Recovered { of, recovered });
                }),
                Output::Fold { segment, engine, upto, keep } => {
                    self.fold(FoldJob { of, segment, engine, upto, keep });
                }
                Output::Merge { ticket, engine, segment, position, given, adopts } => {
                    let job = Job::Merge(MergeJob { of: of.clone(), ticket, engine, segment, position, given, adopts });
                    if self.folds.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
                        let _ = self.events.send(Event::Merged { of, ticket, merge: Merge::Failed });
                    }
                }
                Output::Examine { ticket, segment, engine, upto, position } => {
                    let job = Job::Examine(ExamineJob { of: of.clone(), ticket, segment, engine, upto, position });
                    if self.folds.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
                        let _ = self.events.send(Event::Examined { of, ticket, examined: Examined::Unknown });
                    }
                }
                Output::MakeRoll { ticket, segment, id, engine, position, generation } => {
                    let job = RollJob { of: of.clone(), ticket, segment, id, engine, position, generation };
                    if self.folds.as_ref().is_none_or(|jobs| jobs.send(Job::Roll(job)).is_err()) {
                        let _ = self.events.send(Event::RollMade { of, ticket, roll: Roll::Failed });
                    }
                }
                Output::Rolled { segment, outcome: Err(why) } => {
                    eprintln!("coheap-relay: heap {heap:?}: segment {segment} has no new generation: {why:?}");
                }
                Output::Rolled { outcome: Ok(_), .. } => {}
                Output::Idle | Output::Stopped => {
                    self.drop_heap(heap);
                    return;
                }
            }
        }
        let deadline = match self.heaps.get(heap) {
            Some((_, Heap::Open(relay))) => relay.deadline(),
            _ => None,
        };
        self.set_deadline(heap, deadline);
    }

    fn attempt(&self, heap: &str) -> Option<u32> {
        self.machine(heap).map(Relay::attempt)
    }

    fn machine(&self, heap: &str) -> Option<&Relay> {
        match self.heaps.get(heap) {
            Some((_, Heap::Open(relay))) => Some(relay),
            _ => None,
        }
    }

    fn poll(&mut self, heap: &Arc<str>) -> Option<Output> {
        match self.heaps.get_mut(heap) {
            Some((_, Heap::Open(relay))) => relay.poll(),
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
    fn on_disk(&self, of: Opening, read: impl FnOnce(&Store, Opening, &mpsc::UnboundedSender<Event>) + Send + 'static) {
        let (store, events) = (Arc::clone(&self.store), self.events.clone());
        tokio::task::spawn_blocking(move || read(&store, of, &events));
    }
}

fn complain(heap: &str, error: &StoreError) {
    eprintln!("coheap-relay: heap {heap:?}: {error}");
}

/// Random bits of the operating system; without them no id would be safe, so there is nothing to go on with.
fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random bits")
}

#[cfg(test)]
mod tests;
