//! Loads: a connection follows a segment from the moment it asks, and gets the state at its stream's position (L1, R7).
//!
//! The position is taken when the state is read, not when the Load came: entries of the segment flow in between, and the
//! replica puts them aside until the snapshot is there, then drops those below its position (L3). It is at the cursor or past
//! it, so what is loaded after a version was reached is not older than that version (T4). So a slow connection
//! holds a place in a queue, never a state in memory.
//!
//! A replica that has a copy of the segment from before may say so (L5). Whether that is a beginning of the state is asked when the state
//! is read, of the same log and for the same position: then the store reads only what came since. If not, the copy is not spoken of.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::port::{ConnId, StateOf, StoredState};
use super::sequencer::Sequencer;
use super::session::{Phase, Wanted};
use super::{Output, Relay, Ticket, hello};
use crate::id::{Nonce, Offset, SegmentId, SegmentNumber};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::wire::code::Code;
use crate::wire::frame::down::Asked;
use crate::wire::frame::up::Have;
use crate::wire::frame::{Down, SegmentState};

/// Bytes of states read for one connection in one go.
const LOAD_READ_BYTES: usize = 1 << 20;
/// Segments read, or answered as unknown, for one connection in one go.
const LOAD_READ_SEGMENTS: usize = 64;

/// The loads that a connection waits for, in their order. There may be very many, and to give one up does not look through the others.
#[derive(Debug, Default)]
pub(super) struct Loads {
    queue: BTreeMap<i64, Wanted>,
    places: BTreeSet<(SegmentId, i64)>,
}

impl Loads {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    fn put(&mut self, place: i64, wanted: Wanted) {
        self.places.insert((wanted.id, place));
        self.queue.insert(place, wanted);
    }

    fn push_back(&mut self, wanted: Wanted) {
        self.put(self.queue.last_key_value().map_or(0, |(last, _)| last + 1), wanted);
    }

    fn push_front(&mut self, wanted: Wanted) {
        self.put(self.queue.first_key_value().map_or(0, |(first, _)| first - 1), wanted);
    }

    fn pop_front(&mut self) -> Option<Wanted> {
        let (place, wanted) = self.queue.pop_first()?;
        self.places.remove(&(wanted.id, place));
        Some(wanted)
    }

    /// Those of this segment are wanted no more.
    fn give_up(&mut self, id: SegmentId) {
        while let Some((of, place)) = self.places.range((id, i64::MIN)..).next().copied().filter(|(of, _)| *of == id) {
            self.places.remove(&(of, place));
            self.queue.remove(&place);
        }
    }
}

impl Relay {
    /// L1: the connection follows the segment from this step on; the state comes at a position of its stream, entries behind it.
    pub(super) fn load(&mut self, id: ConnId, segment: SegmentId, nonce: Nonce, have: Option<Have>) {
        let number = self.log.number(segment);
        let follows = self.interest.follows_id(id, segment, number);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.loads.len() >= limits::FOLLOWS_MAX || (!follows && self.interest.count(id) >= limits::FOLLOWS_MAX) {
            return self.decline(id, Asked::Load, nonce, Code::TooMany);
        }
        if !mutate::on(Mutation::FollowLate) {
            self.interest.follow(id, segment, number);
        }
        conn.loads.push_back(Wanted { nonce, id: segment, have, not_before: Offset(0) });
        self.pump_loads(id);
    }

    pub(super) fn unfollow(&mut self, id: ConnId, segment: SegmentId) {
        self.interest.unfollow(id, segment, self.log.number(segment));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.loads.give_up(segment);
        }
    }

    /// Reads the next states a connection waits for, if it has room for them.
    pub(super) fn pump_loads(&mut self, id: ConnId) {
        while self.pump_some_loads(id) {}
    }

    /// R7: the state is that of the stream's position; T4: which no version that was reached here is ahead of. True: some were
    /// answered without a read, and there may be more.
    fn pump_some_loads(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        if !conn.streaming() || !conn.has_room() || !conn.long.is_empty() || conn.loading.is_some() {
            return false;
        }
        let position = conn.cursor;
        let (mut wanted, mut segments, mut unknown, mut later) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        while wanted.len() + unknown.len() < LOAD_READ_SEGMENTS
            && let Some(next) = conn.loads.pop_front()
        {
            if next.not_before > position {
                later.push(next);
                continue;
            }
            match self.log.number(next.id) {
                Some(number) if self.log.segment(number).is_some_and(|row| row.born < position) => {
                    wanted.push(next);
                    let since = next.have.filter(|have| is_usable(&self.log, number, have, position));
                    segments.push(StateOf { segment: number, since: since.map(|have| have.position) });
                }
                _ => unknown.push(next),
            }
        }
        later.into_iter().for_each(|wanted| conn.loads.push_back(wanted));
        let more = wanted.is_empty() && !unknown.is_empty();
        if !wanted.is_empty() {
            let ticket = self.ticket(id);
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.loading = Some((ticket, position, wanted));
            }
            let position = if mutate::on(Mutation::SnapshotAtDurable) { self.log.durable } else { position };
            self.out.push_back(Output::ReadStates { ticket, position, segments, bytes_max: LOAD_READ_BYTES });
        }
        for next in unknown {
            self.snapshot(id, next, position, &hello::unknown_state(next.id), false);
        }
        more
    }

    /// States have been read, for loads or for a catch-up.
    pub(super) fn states_read(&mut self, ticket: Ticket, states: Vec<StoredState>) {
        let Some(id) = self.reads.remove(&ticket) else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if matches!(conn.phase, Phase::Catching(_)) {
            return self.catch_up_read(id, states);
        }
        if matches!(conn.phase, Phase::Restoring(_)) {
            return self.verdict_read(id, states);
        }
        let Some((_, position, wanted)) = conn.loading.take_if(|(of, _, _)| *of == ticket) else { return };
        let position = if mutate::on(Mutation::SnapshotDatedLate) { conn.cursor } else { position };
        let mut wanted = wanted.into_iter();
        for (state, next) in states.into_iter().zip(wanted.by_ref()) {
            let (segment, header, snapshot, deltas, onto_copy) = match state {
                StoredState::At { segment, header, snapshot, deltas } => (segment, header, snapshot, deltas, false),
                StoredState::Since { segment, header, deltas } => (segment, header, Bytes::new(), deltas, true),
                // A fold overtook the position: once more, when the stream has passed the fold.
                StoredState::NotBefore { position, .. } => {
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.loads.push_back(Wanted { not_before: position, ..next });
                    }
                    continue;
                }
            };
            let Some(row) = self.log.segment(segment).filter(|row| row.id == next.id).copied() else {
                return self.close(id, Code::StoreFailed);
            };
            // Given up meanwhile: nobody waits for it.
            if !self.interest.follows(id, segment) && !mutate::on(Mutation::FollowLate) {
                continue;
            }
            let own = self.conns.get(&id).map_or(&[][..], |conn| &conn.own);
            let Ok(state) = hello::stored_state(segment, &row, &header, own, snapshot, deltas) else {
                return self.close(id, Code::StoreFailed);
            };
            // The row was ahead of the state: no honest copy is of a generation that begins behind it. All of it, then.
            if onto_copy && next.have.is_some_and(|have| have.generation != state.generation) {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.loads.push_back(Wanted { have: None, ..next });
                }
                continue;
            }
            self.snapshot(id, next, position, &state, onto_copy);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            for rest in wanted.rev() {
                conn.loads.push_front(rest);
            }
        }
        self.pump(id);
    }

    fn snapshot(&mut self, id: ConnId, wanted: Wanted, position: Offset, state: &SegmentState, onto_copy: bool) {
        // The replica makes the segment visible at its cut, which must not be below the snapshot's position (L3).
        if !mutate::on(Mutation::SnapshotUntold) {
            self.tell_position(id);
        }
        if mutate::on(Mutation::FollowLate) {
            self.interest.follow(id, wanted.id, self.log.number(wanted.id));
        }
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        if bytes.len() > limits::LONG_BYTES_MAX {
            return self.close_too_long(id);
        }
        let nonce = wanted.nonce;
        self.send_long(id, bytes.into(), false, |bulk| Down::Snapshot { nonce, position, bulk, onto_copy });
    }
}

/// L5: whether a copy is what the log has of the segment below the copy's position, which is not past this one. Its epoch is known,
/// and its position not past where the next one begins: beyond, a log was lost, and the numbers mean something else [X10]. Its generation is
/// the current one. And nothing has been left out since that it may have (R12). Whether the deltas since are there, the store says.
fn is_usable(log: &Sequencer, number: SegmentNumber, have: &Have, position: Offset) -> bool {
    let in_reach = have.position <= position;
    if mutate::on(Mutation::AnyCopy) {
        return in_reach;
    }
    let is_prefix = log.end_of(have.epoch).is_some_and(|end| have.position <= end);
    let is_current = log.segment(number).is_some_and(|row| row.generation == have.generation);
    in_reach && is_prefix && is_current && !log.leaves_out(number)
}
