//! A relay among replicas that send what they like. Pieces of an input: what happens, the tag says what and to which connection.
//! Its disk is always well, but for the appends that an input lets fail. Stage: how much of the conversation comes before.

use std::collections::VecDeque;

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::id::{GenId, SegmentId};
use coheap_core::relay::{
    Config, ConnId, Examined, Input, Merge, NotRolled, Output, REFUSES_AFTER, Recovered, Relay, Roll, StoredState,
};
use coheap_core::segment::merge::{MergeError, Merged, adopt, merge};
use coheap_core::segment::roll::{Unrollable, check_roll, roll_unchecked};
use coheap_core::time::{Millis, Time};
use coheap_tests::disk::PlainDisk;

use crate::contained::forgiving;
use crate::count::{applies, elsewhere};
use crate::input::{Piece, parse};
use crate::talk::talk;

/// Who may be connected.
const CONNS: u64 = 3;

/// A relay machine, its disk, and what it says to whom.
#[derive(Debug)]
pub struct Desk {
    relay: Relay,
    disk: PlainDisk,
    now: Time,
    /// Appends are not synced until something else happens to fail them.
    failing: bool,
    /// What was sent, to whom.
    pub sent: Vec<(Vec<usize>, Bytes)>,
    /// Whose connection was closed.
    pub closed: Vec<usize>,
}

impl Desk {
    /// A connection begins.
    pub const OPEN: u8 = 0;
    /// A message comes.
    pub const MESSAGE: u8 = 1;
    /// A connection ends.
    pub const CLOSE: u8 = 2;
    /// Time passes: as many steps of 100 ms as there are bytes.
    pub const WAKE: u8 = 3;
    /// The next appends fail, for want of room if there is a byte.
    pub const FAIL: u8 = 4;
    /// A connection may only read.
    pub const OPEN_TO_READ: u8 = 5;
    /// The process dies and starts anew.
    pub const CRASH: u8 = 6;
    /// It stops in good order; if there is a byte, the first segment gets a new generation instead.
    pub const STOP: u8 = 7;

    /// The tag of something that happens to a connection.
    pub fn tag(who: usize, what: u8) -> u8 {
        what | (who as u8) << 3
    }

    /// An empty heap.
    pub fn new() -> Desk {
        let (now, disk) = (Time(0), PlainDisk::default());
        let relay = Relay::new(config(1), Recovered::default(), now);
        let mut desk = Desk { relay, disk, now, failing: false, sent: Vec::new(), closed: Vec::new() };
        desk.perform();
        desk
    }

    /// Something happens.
    pub fn event(&mut self, piece: &Piece) {
        let conn = ConnId(u64::from(piece.tag >> 3) % CONNS);
        let opened = |can_write| Input::Opened { conn, subject: "s".into(), can_write };
        match piece.tag & 7 {
            Desk::OPEN | Desk::OPEN_TO_READ => {
                // One that is connected hangs up first, as a driver numbers connections anew.
                self.input(Input::Closed { conn });
                self.input(opened(piece.tag & 7 == Desk::OPEN));
            }
            Desk::MESSAGE => self.input(Input::Message { conn, bytes: Bytes::copy_from_slice(&piece.bytes) }),
            Desk::CLOSE => self.input(Input::Closed { conn }),
            Desk::WAKE => {
                self.now = self.now + Millis(100 * piece.bytes.len() as u64);
                self.input(Input::Wake);
            }
            Desk::FAIL => {
                let attempt = self.relay.attempt();
                self.failing = !self.failing;
                if !self.failing && self.disk.is_dirty() {
                    self.disk.crash(0);
                    self.input(Input::AppendFailed { attempt, full: !piece.bytes.is_empty() });
                }
            }
            Desk::CRASH => {
                self.disk.crash(piece.bytes.len());
                self.failing = false;
                self.relay = Relay::new(config(self.now.0 + 2), self.disk.recover(), self.now);
                self.perform();
            }
            Desk::STOP if piece.bytes.is_empty() => self.input(Input::Stop),
            _ => self.input(Input::Roll { segment: SegmentId::ROOT }),
        }
    }

    fn input(&mut self, input: Input) {
        self.relay.handle(self.now, input);
        self.perform();
    }

    /// What the relay wants done, until it wants nothing more.
    fn perform(&mut self) {
        let mut answers = VecDeque::new();
        loop {
            while let Some(output) = self.relay.poll() {
                match output {
                    Output::Send { to, frames } => {
                        for conn in &to {
                            answers.push_back(Input::Written { conn: *conn, bytes: frames.len() });
                        }
                        self.sent.push((to.iter().map(|conn| conn.0 as usize).collect(), frames));
                    }
                    Output::Close { conn, .. } => self.closed.push(conn.0 as usize),
                    Output::Append(append) => self.disk.append(append),
                    Output::ReadLog { ticket, from, upto, bytes_max } => {
                        answers.push_back(Input::Log { ticket, entries: self.disk.log(from, upto, bytes_max) });
                    }
                    Output::ReadStates { ticket, position, segments, .. } => {
                        answers.push_back(Input::States { ticket, states: self.disk.states(position, &segments) });
                    }
                    Output::Merge { ticket, engine, segment, position, given, adopts } => {
                        let (snapshot, deltas) = match self.disk.states(position, segment.as_slice()).into_iter().next()
                        {
                            Some(StoredState::At { snapshot, deltas, .. }) => (snapshot, deltas),
                            _ => (Bytes::new(), Vec::new()),
                        };
                        let merge = worker_merges(engine, || match adopts {
                            true => adopt(engine, &given),
                            false => merge(engine, &snapshot, &deltas, &given),
                        });
                        answers.push_back(Input::Merged { ticket, merge });
                    }
                    Output::Examine { ticket, segment, engine, upto, position } => {
                        let work = || self.disk.examine(segment, engine, upto, position);
                        let examined = elsewhere(|| forgiving(crate_of(engine), work)).unwrap_or(Examined::Unknown);
                        answers.push_back(Input::Examined { ticket, examined });
                    }
                    Output::MakeRoll { ticket, segment, id, engine, position, generation } => {
                        let states = self.disk.states(position, &[segment]);
                        let work = || worker_rolls(engine, id, states, generation);
                        let roll = elsewhere(|| forgiving(crate_of(engine), work)).unwrap_or(Roll::Failed);
                        answers.push_back(Input::RollMade { ticket, roll });
                    }
                    Output::Recover => answers.push_back(Input::Recovered(self.disk.recover())),
                    Output::Fold { .. } | Output::Rolled { .. } | Output::Idle | Output::Stopped => {}
                }
            }
            if !self.failing
                && let Some(upto) = self.disk.sync()
            {
                answers.push_back(Input::Durable { upto });
            }
            let Some(answer) = answers.pop_front() else { return };
            self.relay.handle(self.now, answer);
        }
    }
}

impl Default for Desk {
    fn default() -> Self {
        Desk::new()
    }
}

/// The worker process merges: it dies of what the engine panics over, and what it has is its own.
fn worker_merges(engine: EngineKind, work: impl FnOnce() -> Result<Merged, MergeError>) -> Merge {
    match elsewhere(|| forgiving(crate_of(engine), work)) {
        Some(Ok(Merged::Nothing)) => Merge::Nothing,
        Some(Ok(Merged::Adds { state, clocks })) => Merge::Adds { state, clocks },
        Some(Err(MergeError::Guard(_))) => Merge::Refused,
        Some(Err(MergeError::Clashes(_))) => Merge::Clashes,
        Some(Err(_)) | None => Merge::Failed,
    }
}

/// The same for a new generation; a document that is not proved to show the same is none.
fn worker_rolls(engine: EngineKind, id: SegmentId, states: Vec<StoredState>, generation: GenId) -> Roll {
    let Some(StoredState::At { snapshot, deltas, .. }) = states.into_iter().next() else { return Roll::Failed };
    match roll_unchecked(engine, id, &snapshot, &deltas, generation) {
        Ok(Ok(made)) => match check_roll(engine, id, &snapshot, &deltas, generation, &made) {
            Ok(clocks) => Roll::Made { snapshot: made, clocks },
            Err(_) => Roll::Failed,
        },
        Ok(Err(Unrollable::Sequences)) => Roll::Declined(NotRolled::Sequences),
        Ok(Err(Unrollable::History)) => Roll::Declined(NotRolled::History),
        Err(_) => Roll::Failed,
    }
}

fn crate_of(engine: EngineKind) -> &'static str {
    match engine {
        EngineKind::Yrs => "yrs",
        EngineKind::Automerge => "automerge",
    }
}

fn config(life: u64) -> Config {
    Config {
        heap: "h".into(),
        life,
        entropy: life * 7919,
        unix_ms: 1,
        idle: Millis(30_000),
        fold_bytes: Some(1 << 18),
        refuses_after: REFUSES_AFTER,
        admits_from: Time(0),
        rolls_from: Time(0),
        retention: Some(Millis(60_000)),
    }
}

/// The target.
pub fn relay(data: &[u8]) {
    let Some((stage, pieces)) = parse(data) else { return };
    let talk = &talk().relay;
    let mut desk = Desk::new();
    for piece in talk.iter().take(usize::from(stage) % (talk.len() + 1)) {
        desk.event(piece);
    }
    let mut total = 0;
    for piece in &pieces {
        desk.sent.clear();
        desk.closed.clear();
        // A small request may ask for all that was written before.
        total += piece.bytes.len();
        applies("what happens to a relay", total, || desk.event(piece));
    }
    // It comes back from its disk, and says the same of its log.
    let head = desk.relay.durable();
    desk.failing = false;
    desk.event(&Piece { tag: Desk::CRASH, bytes: Vec::new() });
    assert!(desk.relay.durable() >= head, "what was durable is there");
}
