//! The relay of one heap: gives commits their one order, knows who follows what and what is on the disk. No I/O, no clock,
//! no randomness, and no engine: to it a delta is opaque bytes that the guard has judged.
//!
//! ```text
//!   Message ─► session ─► admit + guard ─► Append ──────► store
//!                         (sequencer: offset = head)        │
//!   Send ◄── deliver ◄──────────────── Durable{upto} ◄──────┘
//!            entries below `durable`, in order, filtered; then what is owed: Ack, Refused
//! ```
//!
//! Calling it: [`Relay::handle`] one input, then [`Relay::poll`] until there is nothing left, and perform the outputs in that
//! order; only then the next input. Send [`Input::Wake`] at [`Relay::deadline`]. A commit is acknowledged, and shown to
//! others, on the input that says its append is durable, and nowhere else (`deliver.rs`).
//!
//! Reading order: `relay/port.rs` (inputs and outputs), `sequencer.rs` (the log), `session.rs` and `hello.rs` (a connection
//! begins), `restore.rs` (it gives back what the log has lost), `roll.rs` (a new generation of a segment), `quarantine.rs` (what engines fail on), `retention.rs` (what is forgotten), `deliver.rs` (what it is sent), `interest.rs`, `load.rs`; `claims.rs` and `presence.rs` are not in the log.

mod adopt;
mod claims;
mod deliver;
mod hello;
mod interest;
mod load;
mod port;
mod presence;
mod quarantine;
mod restore;
mod retention;
mod roll;
mod sequencer;
mod session;
mod timers;
mod uplink;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::id::{Nonce, Offset, ReplicaId, SegmentNumber};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::time::{Millis, Time};
use crate::wire::code::Code;
use crate::wire::frame::down::Asked;
use crate::wire::frame::roll::GenerationHeader;
use crate::wire::frame::{Down, Up, split};
use claims::Claims;
use interest::Interest;
use presence::Presence;
use quarantine::Reports;
use sequencer::Sequencer;
use session::{Conn, Owed, Room};
use timers::{Timer, Timers};

pub use restore::{REFUSES_AFTER, ROLL_HOLD_MS};

pub use port::{
    Append, Config, ConnId, DeltaPlace, Dropped, Examined, Failing, Folded, GenerationBegins, Input, Merge, NotRolled,
    Output, Recovered, Roll, SegmentRow, SegmentTail, StateOf, StoredState, Ticket,
};

/// How long a connection may take over a Hello that came in pieces.
const HELLO_WITHIN: Millis = Millis(30_000);
/// How long a connection may be over its budget of bytes in flight.
const SLOW_FOR: Millis = Millis(30_000);
/// When a commit that the disk has no room for may be sent again.
const BUSY_RETRY_MS: u64 = 1_000;
/// Deltas of one segment after which it is folded, whatever their size.
const FOLD_DELTAS: u64 = 256;
/// Entries of log above the floor that are kept without a reason.
const KEPT_ENTRIES: u64 = 4_096;
/// WebSocket close code for a relay that stops.
const GOING_AWAY: u16 = 1012;

/// How the log stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// Well.
    Running,
    /// Being read again after a failed append; nothing is admitted, reading goes on.
    Recovering,
    /// Finishing what is under way; nothing is admitted.
    Stopping,
    /// Over; every input is ignored.
    Over,
}

/// The relay machine of one heap.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    now: Time,
    standing: Standing,
    out: VecDeque<Output>,
    /// Answers to one connection that are not in `out` yet.
    answers: (ConnId, Vec<u8>),
    log: Sequencer,
    conns: BTreeMap<ConnId, Conn>,
    /// Which connection declares which own id (R1: at most one).
    ids: BTreeMap<ReplicaId, ConnId>,
    /// Connections whose cursor is at `durable`.
    live: BTreeSet<ConnId>,
    interest: Interest,
    /// Numbers given to authors, the same on all connections so that frames can be shared; declared on each.
    authors: BTreeMap<ReplicaId, u64>,
    claims: Claims,
    presence: Presence,
    timers: Timers,
    /// Which connection a read is for.
    reads: BTreeMap<Ticket, ConnId>,
    tickets: u64,
    /// After a failure for want of room: when to try again without a commit that asks for it.
    retry_at: Option<Time>,
    /// The segment that is being folded, and from where on the log will be there afterwards.
    folding: Option<(SegmentNumber, Offset)>,
    fold_wanted: BTreeSet<SegmentNumber>,
    reports: Reports,
    /// D6: until then, what would be refused is put off.
    refuses_from: Time,
    /// When idle lines were dropped last.
    lines_dropped: Option<Time>,
    /// The Restored that was sent last: its place, which of its segments, and the bytes.
    restored: Option<(Offset, Vec<usize>, Bytes)>,
    /// A generation that is being made.
    rolling: Option<roll::Rolling>,
    /// The Roll that was sent last: its place, all of its header, and its document's bytes.
    rolled: Option<(Offset, GenerationHeader, Bytes)>,
}

impl Relay {
    /// A machine over a recovered log. Poll it before the first input: a log that has entries begins its new epoch first.
    pub fn new(config: Config, recovered: Recovered, now: Time) -> Relay {
        let restarted = recovered.epochs.last().is_some_and(|(epoch, _)| epoch.random != config.life);
        let mut relay = Relay {
            now,
            standing: Standing::Running,
            out: VecDeque::new(),
            answers: (ConnId::default(), Vec::new()),
            log: Sequencer::new(recovered, config.life),
            conns: BTreeMap::new(),
            ids: BTreeMap::new(),
            live: BTreeSet::new(),
            interest: Interest::default(),
            authors: BTreeMap::new(),
            claims: Claims::new(config.entropy, now, restarted),
            presence: Presence::default(),
            timers: Timers::default(),
            reads: BTreeMap::new(),
            tickets: 0,
            retry_at: None,
            folding: None,
            fold_wanted: BTreeSet::new(),
            reports: Reports::default(),
            refuses_from: now,
            lines_dropped: None,
            restored: None,
            rolling: None,
            rolled: None,
            config,
        };
        relay.timers.set(Timer::Idle, now + relay.config.idle);
        relay.watch_lines();
        relay.flush_appends();
        relay
    }

    /// Takes one input. All outputs of the one before must have been polled.
    pub fn handle(&mut self, now: Time, input: Input) {
        assert!(self.out.is_empty(), "poll until there is nothing left before the next input");
        debug_assert!(now >= self.now, "time does not go back");
        self.now = now.max(self.now);
        if self.standing == Standing::Over {
            return;
        }
        self.dispatch(input);
        self.flush_appends();
        self.flush_volatile();
        self.finish_stop();
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to send [`Input::Wake`].
    pub fn deadline(&self) -> Option<Time> {
        [self.timers.next(), self.claims.deadline(), self.presence.deadline()].into_iter().flatten().min()
    }

    /// The position up to which everything is on the disk.
    pub fn durable(&self) -> Offset {
        self.log.durable
    }

    /// The position below which no stream starts any more: the log there is dropped, or about to be.
    pub fn floor(&self) -> Offset {
        self.log.floor
    }

    /// Counts the failed appends; goes with every [`Append`].
    pub fn attempt(&self) -> u32 {
        self.log.attempt
    }

    /// The position after the last commit.
    pub fn head(&self) -> Offset {
        self.log.head
    }

    /// Whether somebody still waits for this read. One whose connection has gone reads what nobody keeps any more.
    pub fn awaits(&self, ticket: Ticket) -> bool {
        self.reads.contains_key(&ticket)
    }

    fn dispatch(&mut self, input: Input) {
        match input {
            Input::Opened { conn, subject, can_write } => {
                self.conns.insert(conn, Conn::new(subject, can_write));
                self.timers.set(Timer::Hello(conn), self.now + HELLO_WITHIN);
                self.timers.clear(Timer::Idle);
            }
            Input::Message { conn, bytes } => self.message(conn, &bytes),
            Input::Written { conn, bytes } => self.written(conn, bytes),
            Input::Closed { conn } => self.forget(conn),
            Input::Durable { upto } => self.now_durable(upto),
            Input::AppendFailed { attempt, full } => self.append_failed(attempt, full),
            Input::Recovered(recovered) => self.recovered(recovered),
            Input::Log { ticket, entries } => self.log_read(ticket, entries),
            Input::States { ticket, states } => self.states_read(ticket, states),
            Input::Merged { ticket, merge } => self.merged(ticket, merge),
            Input::Examined { ticket, examined } => self.examined(ticket, examined),
            Input::Roll { segment } => self.roll(segment),
            Input::RollMade { ticket, roll } => self.roll_made(ticket, roll),
            Input::ReadFailed { ticket } => {
                if let Some(conn) = self.reads.remove(&ticket) {
                    self.close(conn, Code::StoreFailed);
                }
            }
            Input::Folded { segment, folded, floor, holder } => self.folded(segment, folded, floor, holder),
            Input::Floor { floor } => self.log.floor = self.log.floor.max(floor),
            Input::Stop => {
                // What the disk had no room for never was, and its authors know.
                if self.standing == Standing::Recovering {
                    self.log.durable = self.log.head;
                }
                self.standing = Standing::Stopping;
            }
            Input::Wake => self.wake(),
        }
    }

    fn message(&mut self, conn: ConnId, bytes: &Bytes) {
        if !self.conns.contains_key(&conn) {
            return;
        }
        let Ok(frames) = split(bytes) else { return self.close(conn, Code::BadFrame) };
        for (kind, body) in frames {
            // A frame may have closed its connection: what lies behind it is not looked at (R1's fence).
            if !self.conns.contains_key(&conn) {
                return;
            }
            match Up::decode(kind, &body) {
                Ok(Some(frame)) => self.frame(conn, frame),
                Ok(None) => {}
                Err(_) => return self.close(conn, hello::why_malformed(kind, &body)),
            }
        }
        self.flush_answers();
        self.settle(conn);
    }

    fn wake(&mut self) {
        while let Some(timer) = self.timers.due(self.now) {
            match timer {
                Timer::Hello(conn) => self.close(conn, Code::HelloTimeout),
                Timer::Slow(conn) => self.close(conn, Code::SlowReader),
                Timer::Idle => self.idle(),
                // `flush_appends` follows every input.
                Timer::Retry => self.retry_at = None,
                Timer::Report => self.next_report(),
                Timer::Lines => self.lines_are_due(),
            }
        }
    }

    fn idle(&mut self) {
        // A new epoch on its way to the disk would begin there once more with the next machine of this process, and lines that are
        // being dropped would be there.
        let written = self.log.head == self.log.durable && self.log.ready() && self.log.is_drop_written();
        let working = self.folding.is_some() || self.rolling.is_some() || self.reports.are_under_way();
        let quiet = self.conns.is_empty() && written && !working;
        if quiet && self.claims.is_empty() && self.standing == Standing::Running && !self.drop_idle_lines() {
            self.out.push_back(Output::Idle);
        }
        self.timers.set(Timer::Idle, self.now + self.config.idle);
    }

    /// Sends one frame to one connection.
    fn send(&mut self, conn: ConnId, frame: &Down) {
        let mut frames = Vec::new();
        frame.encode(&mut frames);
        self.send_bytes(conn, Bytes::from(frames));
    }

    /// Says something small that this connection has just asked for. Whatever else is sent comes behind it; what is asked
    /// for in one message is answered in one piece, so that a message of tiny frames costs no more than its bytes.
    fn answer(&mut self, conn: ConnId, frame: &Down) {
        if self.answers.0 != conn || self.answers.1.len() > limits::CHUNK_BYTES_MAX {
            self.flush_answers();
            self.answers.0 = conn;
        }
        frame.encode(&mut self.answers.1);
    }

    fn flush_answers(&mut self) {
        if !self.answers.1.is_empty() {
            let (conn, frames) = (self.answers.0, std::mem::take(&mut self.answers.1));
            self.send_bytes(conn, Bytes::from(frames));
        }
    }

    /// Tells a connection that what it asked for is not done.
    fn decline(&mut self, conn: ConnId, asked: Asked, nonce: Nonce, code: Code) {
        self.answer(conn, &Down::Declined { asked, nonce, code: u64::from(code.number()) });
    }

    fn send_bytes(&mut self, conn: ConnId, frames: Bytes) {
        self.send_all(vec![conn], frames);
    }

    /// Sends frames to several connections and counts them as in flight. Who has let too many bytes wait is closed.
    fn send_all(&mut self, mut to: Vec<ConnId>, frames: Bytes) {
        self.flush_answers();
        to.retain(|conn| self.conns.contains_key(conn));
        if frames.is_empty() || to.is_empty() {
            return;
        }
        let mut over = Vec::new();
        for id in &to {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.in_flight += frames.len();
            if !conn.has_room() && conn.slow_since.is_none() {
                conn.slow_since = Some(self.now);
                self.timers.set(Timer::Slow(*id), self.now + SLOW_FOR);
            }
            if conn.in_flight > limits::QUEUED_BYTES_MAX {
                over.push(*id);
            }
        }
        self.out.push_back(Output::Send { to, frames });
        for id in over {
            self.close(id, Code::SlowReader);
        }
    }

    fn close(&mut self, conn: ConnId, code: Code) {
        self.close_with(conn, code.close_code(), code.text());
    }

    fn close_with(&mut self, conn: ConnId, code: u16, reason: &'static str) {
        self.flush_answers();
        if self.conns.contains_key(&conn) {
            self.out.push_back(Output::Close { conn, code, reason });
            self.forget(conn);
        }
    }

    /// A connection is gone: nothing of it is left but what it appended, and its claims for a while.
    fn forget(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        for own in &conn.own {
            if self.ids.get(&own.id) == Some(&id) {
                self.ids.remove(&own.id);
            }
        }
        self.live.remove(&id);
        self.interest.forget(id);
        self.timers.clear(Timer::Hello(id));
        self.timers.clear(Timer::Slow(id));
        self.reads.retain(|_, of| *of != id);
        self.claims.closed(id, self.now);
        self.presence.closed(id);
        self.reports.closed(id);
        self.next_restore();
        if self.conns.is_empty() {
            self.timers.set(Timer::Idle, self.now + self.config.idle);
        }
    }

    fn ticket(&mut self, conn: ConnId) -> Ticket {
        self.tickets += 1;
        self.reads.insert(Ticket(self.tickets), conn);
        Ticket(self.tickets)
    }

    fn flush_appends(&mut self) {
        if self.standing == Standing::Recovering {
            return;
        }
        let bare = self.retry_at.is_none_or(|at| at <= self.now);
        if let Some(batch) = self.log.take_batch(bare) {
            let head = batch.end();
            self.out.push_back(Output::Append(batch));
            if mutate::on(Mutation::DeliverUndurable) {
                self.now_durable(head);
            }
        }
    }

    /// Claims and presence speak last, after what the log had to say, and to who has room for it.
    fn flush_volatile(&mut self) {
        self.claims.settle(self.now, &mut Room::of(&self.conns));
        self.tell_claims();
        self.presence.settle(self.now, &mut Room::of(&self.conns));
        for (to, frame) in self.presence.take_sends() {
            self.send_frame_to(to, &frame);
        }
    }

    fn tell_claims(&mut self) {
        for (to, frame) in self.claims.take_sends() {
            match to[..] {
                [conn] if !matches!(frame, Down::Group { .. }) => self.answer(conn, &frame),
                _ => self.send_frame_to(to, &frame),
            }
        }
        self.flush_answers();
    }

    fn send_frame_to(&mut self, to: Vec<ConnId>, frame: &Down) {
        let mut frames = Vec::new();
        frame.encode(&mut frames);
        self.send_all(to, Bytes::from(frames));
    }

    /// The disk did not take what was appended. For want of room: it never was, its authors are told to come again, and
    /// reading goes on. Otherwise the store is not to be trusted: everybody reconnects.
    fn append_failed(&mut self, attempt: u32, full: bool) {
        if attempt != self.log.attempt || self.standing == Standing::Recovering {
            return;
        }
        if self.standing == Standing::Stopping {
            self.log.durable = self.log.head;
            return;
        }
        if !full {
            for conn in self.conns.keys().copied().collect::<Vec<_>>() {
                self.close(conn, Code::StoreFailed);
            }
            self.standing = Standing::Over;
            self.out.push_back(Output::Stopped);
            return;
        }
        let durable = self.log.durable;
        self.claims.undo(durable);
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            let (mut lowest, mut heads) = (BTreeMap::new(), Vec::new());
            while let Some((position, owed)) = conn.owed.back().copied()
                && position > durable
                && !mutate::on(Mutation::OwedWhenFull)
            {
                conn.owed.pop_back();
                match owed {
                    Owed::Ack { owner, seq } | Owed::Refused { owner, seq, .. } | Owed::Rebase { owner, seq, .. } => {
                        lowest.insert(owner, seq);
                    }
                    Owed::Head { .. } => heads.push((durable, owed)),
                }
            }
            conn.owed.extend(heads.into_iter().rev());
            conn.mine.retain(|offset| *offset < durable || mutate::on(Mutation::MineWhenFull));
            for (owner, seq) in lowest {
                self.busy(id, owner, seq);
            }
            self.settle(id);
        }
        self.standing = Standing::Recovering;
        self.restores_undone();
        self.reports_undone();
        self.roll_undone();
        self.out.push_back(Output::Recover);
    }

    fn recovered(&mut self, recovered: Recovered) {
        if self.standing != Standing::Recovering {
            return;
        }
        let lost: Vec<_> =
            self.log.segments().skip(recovered.segments.len()).map(|(number, row)| (row.id, number)).collect();
        for (id, number) in lost {
            self.interest.unborn(id, number);
        }
        self.log.recover(recovered, self.config.life);
        let retry_at = self.now + Millis(BUSY_RETRY_MS);
        self.retry_at = Some(retry_at);
        self.timers.set(Timer::Retry, retry_at);
        self.standing = Standing::Running;
        let mut again = Vec::new();
        for (id, conn) in &mut self.conns {
            for (owner, own) in (0..).zip(&mut conn.own) {
                own.busy_from = None;
                again.extend(own.passed_over.take().map(|seq| (*id, owner, seq)));
            }
        }
        for (id, owner, seq) in again {
            self.busy_for(id, owner, seq, Code::DiskFull, BUSY_RETRY_MS);
        }
        // A write that fails for want of room may be on the disk all the same.
        let durable = self.log.durable;
        self.live.retain(|id| self.conns.get(id).is_some_and(|conn| conn.cursor >= durable));
        self.pump_behind();
        self.release_waiting();
        self.next_report();
    }

    fn folded(&mut self, segment: SegmentNumber, folded: Option<Folded>, floor: Offset, holder: Option<SegmentNumber>) {
        self.folding = None;
        self.log.folded(segment, folded, floor);
        if folded.is_none() {
            self.suspect(segment);
        }
        self.next_report();
        // A segment that nobody writes to any more must not keep the whole log: it is folded for the floor's sake.
        let kept = self.log.durable.0.saturating_sub(self.log.floor.0);
        if folded.is_some() && kept > KEPT_ENTRIES {
            self.fold_wanted.extend(holder);
        }
        // What came while the worker was busy may be as much again.
        let bytes_max = self.config.fold_bytes.unwrap_or(u64::MAX);
        if folded.is_some() && self.log.wants_fold(segment, bytes_max, FOLD_DELTAS) {
            self.fold_wanted.insert(segment);
        }
        self.next_roll();
        self.next_fold();
    }

    /// R8: a segment is folded up to what is durable; its offsets, generation and the rows of `admit` stay as they are, and the
    /// floor moves when the store says that nothing below it is needed.
    fn next_fold(&mut self) {
        if self.folding.is_some() || self.reports.are_under_way() || self.standing != Standing::Running {
            return;
        }
        while let Some(segment) = self.fold_wanted.pop_first() {
            // It is looked at again when the roll is over.
            if self.is_rolling(segment) {
                continue;
            }
            let Some(row) = self.log.segment(segment) else { continue };
            let (engine, upto) = (row.engine, self.log.durable);
            let keep =
                self.conns.values().filter_map(Conn::needs_log_from).min().map_or(upto, |needed| needed.min(upto));
            let keep = if mutate::on(Mutation::FoldPastStreams) { upto } else { keep };
            self.folding = Some((segment, keep));
            return self.out.push_back(Output::Fold { segment, engine, upto, keep });
        }
    }

    /// Once all is written and told: close everybody.
    fn finish_stop(&mut self) {
        if self.standing != Standing::Stopping || self.log.head != self.log.durable {
            return;
        }
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            self.close_with(conn, GOING_AWAY, "the relay is stopping");
        }
        self.standing = Standing::Over;
        self.out.push_back(Output::Stopped);
    }
}
