//! A new generation of a segment (CORE-PROTOCOL G1, G2): its state goes to the worker, which makes a fresh document of equal
//! values; that is appended where it was read, or made again if an entry for the segment came first.
//!
//! ```text
//!   Input::Roll ──may it be?──► waiting ──► MakeRoll ──worker──► RollMade ──nothing slipped in──► appended ──durable──► Rolled
//!                     │            ▲ a fold of it, or what is          │ an entry of the segment
//!                     └─ Rolled    └──── not on the disk yet ◄─────────┘
//! ```
//!
//! From its offset on, commits are judged by the new generation, and one that was made against the old one gets Rebase (R2e).
//! Everybody who follows the segment is sent the Roll when it is durable, like any entry [W6], with the lines of its own ids.
//!
//! Nobody but tests asks for one: when a relay rolls a segment by itself is not decided yet.

use bytes::Bytes;

use super::port::{ConnId, NotRolled, Roll, Ticket};
use super::session::Phase;
use super::{Output, Relay, Standing};
use crate::commit::EngineKind;
use crate::guard::Clocks;
use crate::id::{GenId, Offset, SegmentId, SegmentNumber};
use crate::limits;
use crate::log::StoredRoll;
use crate::mutate::{self, Mutation};
use crate::wire::frame::roll::{GenerationHeader, RollFrame};
use crate::wire::frame::{Down, SegmentState};

/// How often a document is made again because the segment was written to meanwhile. One that is written to all the time is
/// rolled at another time.
const TRIES_MAX: u32 = 8;

/// A roll that is under way: one at a time.
#[derive(Debug)]
pub(super) struct Rolling {
    id: SegmentId,
    segment: SegmentNumber,
    generation: GenId,
    tries: u32,
    doing: Doing,
}

#[derive(Debug)]
enum Doing {
    /// For a fold of the segment, or for what was appended to it and is not on the disk.
    Waiting,
    /// The worker has the state at this position.
    Making(Ticket, Offset),
    /// It is in the log, here; the disk has to follow.
    Logged(Offset),
}

impl Relay {
    /// Somebody wants a new generation. Rolled says what came of it, now or when it is durable.
    pub(super) fn roll(&mut self, id: SegmentId) {
        match self.may_roll(id) {
            Err(why) => self.out.push_back(Output::Rolled { segment: id, outcome: Err(why) }),
            Ok(segment) => {
                self.tickets += 1;
                let drawn = [self.config.life, self.config.entropy, self.tickets];
                let generation = GenId::drawn(id, drawn);
                self.rolling = Some(Rolling { id, segment, generation, tries: 0, doing: Doing::Waiting });
                self.next_roll();
            }
        }
    }

    fn may_roll(&self, id: SegmentId) -> Result<SegmentNumber, NotRolled> {
        if self.standing != Standing::Running || self.rolling.is_some() {
            return Err(NotRolled::Busy);
        }
        if self.config.fold_bytes.is_none() {
            return Err(NotRolled::NoWorker);
        }
        let segment = self.log.number(id).ok_or(NotRolled::Unknown)?;
        if self.log.segment(segment).is_none_or(|row| row.engine != EngineKind::Yrs) {
            return Err(NotRolled::History);
        }
        if self.is_roll_held() { Err(NotRolled::Held) } else { Ok(segment) }
    }

    /// D6: what a lost log had admitted may survive in what replicas hold, and be in none of our lines [X15]; that the disk was
    /// rolled back, only they can tell.
    fn is_roll_held(&self) -> bool {
        if mutate::on(Mutation::RollWhileHeld) {
            return false;
        }
        let unix_ms = self.config.unix_ms + self.now.0;
        let restores = |phase: &Phase| match phase {
            Phase::Restoring(_) => true,
            Phase::Waiting(greeted) => greeted.settled.is_some(),
            _ => false,
        };
        self.now < self.config.rolls_from
            || unix_ms < self.log.roll_hold_ms
            || self.conns.values().any(|conn| restores(&conn.phase))
    }

    /// Asks for the document of a roll that waits, if it can be asked for.
    pub(super) fn next_roll(&mut self) {
        let Some(rolling) = &self.rolling else { return };
        if let Doing::Logged(at) = rolling.doing
            && at < self.log.durable
        {
            return self.end_roll(Ok(rolling.generation));
        }
        let (id, segment, generation) = (rolling.id, rolling.segment, rolling.generation);
        let folding = self.folding.is_some_and(|(folding, _)| folding == segment);
        let position = self.log.durable;
        let waits = folding || self.standing != Standing::Running || self.log.changed(segment) > position;
        if waits || !matches!(rolling.doing, Doing::Waiting) {
            return;
        }
        let Some(engine) = self.log.segment(segment).map(|row| row.engine) else { return };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if let Some(rolling) = &mut self.rolling {
            rolling.doing = Doing::Making(ticket, position);
        }
        self.out.push_back(Output::MakeRoll { ticket, segment, id, engine, position, generation });
    }

    /// Whether the worker makes a new generation of this segment: a fold of it would be of the old one.
    pub(super) fn is_rolling(&self, segment: SegmentNumber) -> bool {
        self.rolling.as_ref().is_some_and(|rolling| {
            rolling.segment == segment && matches!(rolling.doing, Doing::Making(..) | Doing::Logged(_))
        })
    }

    /// The worker has answered.
    pub(super) fn roll_made(&mut self, ticket: Ticket, roll: Roll) {
        let Some(rolling) = &mut self.rolling else { return };
        let Doing::Making(asked, position) = rolling.doing else { return };
        if asked != ticket {
            return;
        }
        let (snapshot, clocks) = match roll {
            Roll::Made { snapshot, clocks } => (snapshot, clocks),
            Roll::Declined(why) => return self.end_roll(Err(why)),
            Roll::Failed => {
                // R12: it may be for a part that no engine takes in.
                let segment = rolling.segment;
                self.suspect(segment);
                self.end_roll(Err(NotRolled::Failed));
                return self.next_report();
            }
        };
        // G1: exactly at k. What came to the segment since it was read is not in the document.
        if self.log.changed(rolling.segment) > position && !mutate::on(Mutation::RollOverEntries) {
            rolling.tries += 1;
            rolling.doing = Doing::Waiting;
            if rolling.tries >= TRIES_MAX {
                return self.end_roll(Err(NotRolled::Busy));
            }
            return self.next_roll();
        }
        if self.standing != Standing::Running {
            return self.end_roll(Err(NotRolled::Busy));
        }
        if self.is_roll_held() {
            return self.end_roll(Err(NotRolled::Held));
        }
        self.log_roll(snapshot, clocks);
    }

    fn log_roll(&mut self, snapshot: Bytes, clocks: Clocks) {
        let Some(rolling) = &mut self.rolling else { return };
        let (segment, generation) = (rolling.segment, rolling.generation);
        let Some(parent) = self.log.segment(segment).map(|row| row.generation) else { return };
        if self.config.unix_ms.saturating_add(self.now.0) >= self.log.roll_hold_ms {
            self.log.end_roll_hold();
        }
        let mut included = self.log.included();
        if mutate::on(Mutation::StaleIncluded) {
            included.values_mut().for_each(|line| line.last.0 -= 1);
        }
        let header = GenerationHeader { generation, parent, partial: false, included: included.into() }.encode();
        if header.len() > limits::GENERATION_HEADER_BYTES_MAX || snapshot.len() > limits::SEGMENT_BYTES_HARD {
            return self.end_roll(Err(NotRolled::TooLarge));
        }
        let roll = StoredRoll { segment, generation, parent, header: header.into(), snapshot };
        rolling.doing = Doing::Logged(self.log.roll(roll, clocks));
    }

    fn end_roll(&mut self, outcome: Result<GenId, NotRolled>) {
        if let Some(Rolling { id, segment, .. }) = self.rolling.take() {
            self.out.push_back(Output::Rolled { segment: id, outcome });
            // What was put off meanwhile.
            let bytes_max = self.config.fold_bytes.unwrap_or(u64::MAX);
            if self.log.wants_fold(segment, bytes_max, super::FOLD_DELTAS) {
                self.fold_wanted.insert(segment);
            }
            self.next_fold();
        }
    }

    /// An append was not written, or nothing more will be: numbers of segments may mean others from here on.
    pub(super) fn roll_undone(&mut self) {
        self.end_roll(Err(NotRolled::Failed));
    }

    /// Sends a Roll to who follows the segment; entries wait until it is whole there. False: it has nothing for this connection.
    pub(super) fn send_roll(&mut self, id: ConnId, offset: Offset, roll: &StoredRoll) -> bool {
        if !self.interest.follows(id, roll.segment) {
            return false;
        }
        // Those who follow it share the bytes of the document.
        if self.rolled.as_ref().is_none_or(|(of, _, _)| *of != offset) {
            let (Some(row), Ok(header)) = (self.log.segment(roll.segment), GenerationHeader::decode(&roll.header))
            else {
                self.close(id, crate::wire::code::Code::StoreFailed);
                return false;
            };
            let state = SegmentState {
                generation: roll.generation,
                header: Bytes::new(),
                ..super::hello::alive_state(roll.segment, row, &header, roll.snapshot.clone(), Vec::new())
            };
            let mut bulk = Vec::with_capacity(roll.snapshot.len() + 64);
            state.encode(&mut bulk);
            self.rolled = Some((offset, header, bulk.into()));
        }
        let (Some((_, header, bulk)), Some(conn)) = (&self.rolled, self.conns.get_mut(&id)) else { return false };
        let header = Bytes::from(header.of_lines(|line| conn.owns(line)).encode());
        conn.told = offset.next();
        let bulk = bulk.clone();
        self.send_long(id, bulk, true, |bulk| Down::Roll(RollFrame { offset, header, bulk }));
        true
    }
}
