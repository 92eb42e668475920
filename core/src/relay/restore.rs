//! A log that was lost, in part or whole, is repaired by those who hold what it lacks (CORE-PROTOCOL D1–D7).
//!
//! ```text
//!   Hello above what the log has ──Ok{restore}──► Wanted ──Restore whole──► Merging ──segment by segment──► Logged
//!                                                   ▲ Busy                    │ the worker failed             │ durable
//!                                                   └─────────────────────────┘                               ▼
//!                        Streaming ◄──Restored{yours}: the state of all it follows, at one position──────── Reading
//! ```
//!
//! Until its Restored is sent, such a connection gets nothing of the stream, and none of its commits is admitted: they may
//! build on what the log lacks [X14]. To everybody else, and to every reader of the log, a Restored is an entry whose states
//! are deltas. At generation 0 merging them in at a later place than they were merged for changes nothing, so commits that
//! slip in between do not matter; another generation does, and that is looked at again when the entry is appended. Restores
//! of one heap take turns, from the first merge until the entry is durable: those who hold the same would otherwise all be
//! merged with a log that has none of it, and all be written. An entry brings what has room in one message; who held more is told
//! Busy when it is durable and gives everything again, of which that adds nothing then. The last such entry has the lines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::adopt::Fit;
use super::hello::{alive_state, header_for, stored_state, unknown_state};
use super::port::{ConnId, Merge, StateOf, StoredState};
use super::sequencer::{GivenBack, Giver};
use super::session::{Greeted, Phase};
use super::{Output, Relay, Standing, Ticket};
use crate::commit::LAYOUT;
use crate::guard::Clocks;
use crate::id::{Offset, ReplicaId, SegmentId, SegmentNumber, Seq};
use crate::limits;
use crate::log::{LogEntry, StoredRestore};
use crate::mutate::{self, Mutation};
use crate::time::Millis;
use crate::wire::code::Code;
use crate::wire::frame::down::Welcome;
use crate::wire::frame::restore::{Content, HeldSegment, Place, Restore, Restored, RestoredFrame, Verdict};
use crate::wire::frame::{Bulk, Chunk, Down, SegmentState};

/// When a Restore, or a commit, that was put off may be sent again.
pub(super) const RETRY_MS: u64 = 1_000;
/// How long the pieces of a Restore may take to come while another one has no room.
const GIVEN_WITHIN: Millis = Millis(60_000);
/// How often in a row the worker fails over what one connection gives of a segment until that is a conflict.
///
/// A worker also dies for reasons of its machine: few tries would take an honest process for a copy.
const MERGE_TRIES: u32 = 10;
/// Bytes of states read for a verdict in one go.
const READ_BYTES: usize = 4 << 20;
/// What it may take to make the headers of the generations that one entry adopts: each has all lines of the log, if there is room.
const HEADERS_BYTES: usize = 8 << 20;
/// How long after a restore no generation is made (D6), in milliseconds: as long as lines are kept.
pub const ROLL_HOLD_MS: u64 = limits::ROW_RETENTION_MS;

/// A connection that has to give back what the log lacks.
#[derive(Debug)]
pub(super) enum Restoring {
    /// Its Restore is not here, or not whole.
    Wanted,
    /// What it gave is being merged.
    Merging(Box<Merging>),
    /// It is in the log, here; the disk has to follow.
    Logged(Offset, Box<Given>),
    /// The states of what it follows are being read, for its verdict.
    Reading(Offset, Box<Given>, Box<Reading>),
}

/// What a replica gave, without the states.
#[derive(Debug, Default)]
pub(super) struct Given {
    pending: Vec<Place<ReplicaId>>,
    acked: Vec<Place<ReplicaId>>,
    known: Vec<Content<ReplicaId>>,
    verdicts: BTreeMap<SegmentId, Verdict>,
    /// Not all of it was taken in: it is to be given again.
    again: bool,
}

/// What a segment adds to the log.
#[derive(Debug)]
enum Added {
    /// The log has all of it.
    Nothing,
    /// This, and the clock table of that.
    State(Bytes, Clocks),
    /// Something that has no room in the same entry.
    Later,
}

#[derive(Debug)]
pub(super) struct Merging {
    given: Given,
    /// It is its turn.
    begun: bool,
    /// Still to be merged; the first one is with the worker if there is a ticket.
    todo: VecDeque<HeldSegment>,
    asked: Option<Ticket>,
    /// That one is adopted.
    adopts: bool,
    /// Those that are adopted say so.
    done: Vec<(HeldSegment, bool, Added)>,
    /// What those that are in memory come to.
    bytes: usize,
}

impl Given {
    fn verdict(&self, id: SegmentId) -> Verdict {
        self.verdicts.get(&id).copied().unwrap_or(Verdict::NotGiven)
    }
}

impl Merging {
    /// A copy of its process has written other things under the same identities. In which segments, what the log lacks of them shows
    /// nobody; and what is pending is made anew in all of them or in none. So none is taken.
    fn clashes(&mut self) {
        let held = self.todo.drain(..).chain(self.done.drain(..).map(|(held, ..)| held));
        self.given.verdicts.extend(held.map(|held| (held.id, Verdict::Conflict)));
        (self.given.pending, self.given.known) = (Vec::new(), Vec::new());
    }
}

#[derive(Debug)]
pub(super) struct Reading {
    pub position: Offset,
    wanted: VecDeque<SegmentNumber>,
    states: Vec<(Verdict, SegmentState)>,
    bytes: usize,
}

impl Relay {
    /// Tells a replica that it holds what the log has lost. Its stream stands still until it has given that back (D2).
    pub(super) fn begin_restore(&mut self, id: ConnId, greeted: &Greeted, shared: Offset) {
        self.hold_refusals();
        let position = self.log.durable;
        let welcome = self.answer_to(greeted, position);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Restoring(Restoring::Wanted);
        conn.lost = (greeted.hello.epoch, shared);
        conn.cursor = position;
        conn.told = position;
        self.send(id, &Down::Ok(Welcome { restore: true, ..welcome }));
    }

    /// D6: from here on refusals wait.
    fn hold_refusals(&mut self) {
        self.refuses_from = self.now + self.config.refuses_after;
    }

    /// A Restore, or its first piece.
    pub(super) fn restore(&mut self, id: ConnId, bulk: Bulk) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        // Only from a connection that was told to, and once at a time.
        if !matches!(conn.phase, Phase::Restoring(Restoring::Wanted)) || conn.pieces.is_open() {
            return self.close(id, Code::BadFrame);
        }
        (conn.put_aside, conn.restores_since) = (bulk.bytes.len(), self.now);
        if self.restores_too_much(id) {
            return self.restore_later(id);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.pieces.head((), bulk) {
            Ok(None) => {}
            Ok(Some(((), bulk))) => self.restore_whole(id, &bulk),
            Err(_) => self.close(id, Code::BadFrame),
        }
    }

    /// A further piece. One of a Restore that was put off is ignored.
    pub(super) fn restore_chunk(&mut self, id: ConnId, chunk: &Chunk) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.pieces.is_open() {
            conn.put_aside += chunk.bytes.len();
            if self.restores_too_much(id) {
                return self.restore_later(id);
            }
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.pieces.chunk(chunk) {
            Ok(None) => {}
            Ok(Some(((), bulk))) => self.restore_whole(id, &bulk),
            Err(_) => self.close(id, Code::MessageTooLarge),
        }
    }

    /// Whether all that connections have given, and that is not in the log yet, is more than is kept at one time. Before it is, who has
    /// been at it for long, and is not this one, has to begin again.
    fn restores_too_much(&mut self, id: ConnId) -> bool {
        loop {
            if self.conns.values().map(|conn| conn.put_aside).sum::<usize>() <= limits::RESTORE_BYTES_MAX {
                return false;
            }
            let others = self.conns.iter().filter(|(of, conn)| **of != id && conn.pieces.is_open());
            let oldest = others.map(|(of, conn)| (conn.restores_since, *of)).min();
            match oldest.filter(|(since, _)| *since + GIVEN_WITHIN <= self.now) {
                Some((_, slow)) => self.restore_later(slow),
                None => return true,
            }
        }
    }

    /// Not now: the whole Restore is to be sent again.
    fn restore_later(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Restoring(Restoring::Wanted);
        conn.pieces = Default::default();
        conn.put_aside = 0;
        // A restore has no number: 0 stands for it.
        let code = u64::from(Code::Restoring.number());
        self.send(id, &Down::Busy { owner: 0, seq: Seq(0), code, retry_ms: RETRY_MS });
        self.next_restore();
    }

    fn restore_whole(&mut self, id: ConnId, bulk: &Bytes) {
        let Ok(restore) = Restore::decode(bulk) else { return self.close(id, Code::BadFrame) };
        let Some(conn) = self.conns.get(&id) else { return };
        if !conn.can_write {
            return self.close(id, Code::Forbidden);
        }
        let named = |places: Vec<Place<u64>>| -> Option<Vec<Place<ReplicaId>>> {
            let own = |of: u64| usize::try_from(of).ok().and_then(|at| conn.own.get(at)).map(|own| own.id);
            places.into_iter().map(|(of, seq, uid)| Some((own(of)?, seq, uid))).collect()
        };
        let (Some(acked), Some(pending)) = (named(restore.acked), named(restore.pending)) else {
            return self.close(id, Code::BadFrame);
        };
        let own = |of: u64| usize::try_from(of).ok().and_then(|at| conn.own.get(at)).map(|own| own.id);
        let known = restore.known.into_iter().map(|(of, seq, uid, hash)| Some((own(of)?, seq, uid, hash)));
        let Some(known) = known.collect::<Option<Vec<_>>>() else { return self.close(id, Code::BadFrame) };
        let mut seen = BTreeSet::new();
        if !restore.segments.iter().all(|held| seen.insert(held.id)) {
            return self.close(id, Code::BadFrame);
        }
        if !restore.segments.iter().all(|held| super::adopt::has_its_header(&held)) {
            return self.close(id, Code::BadFrame);
        }
        if restore.segments.iter().any(|held| held.layout != LAYOUT) {
            return self.close(id, Code::Unsupported);
        }
        // D4: what was refused must not take effect after all. The replica learns it from the ring when it comes again.
        if pending.iter().any(|(owner, seq, uid)| self.log.line(*owner).is_some_and(|line| line.is_void(*seq, *uid))) {
            return self.close(id, Code::Restoring);
        }
        if self.standing != Standing::Running || self.config.fold_bytes.is_none() {
            return self.restore_later(id);
        }
        // Its Hello may not have named all of them: a segment can have been made since. What is given back is what is here, so
        // its verdict has it, and entries of it follow (C10).
        let held: Vec<_> = restore.segments.iter().map(|held| (held.id, self.log.number(held.id))).collect();
        let more = held.iter().filter(|(segment, number)| !self.interest.follows_id(id, *segment, *number)).count();
        if more > 0 && self.interest.count(id) + more > limits::FOLLOWS_MAX {
            return self.close(id, Code::BadFrame);
        }
        for (segment, number) in held {
            self.interest.follow(id, segment, number);
        }
        let given = Given { pending, acked, known, ..Given::default() };
        let merging = Merging {
            given,
            begun: false,
            todo: restore.segments.iter().collect(),
            asked: None,
            adopts: false,
            done: Vec::new(),
            bytes: 0,
        };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.failed_merges.retain(|segment, _| seen.contains(segment));
        conn.phase = Phase::Restoring(Restoring::Merging(Box::new(merging)));
        self.next_restore();
    }

    /// Begins with the next Restore, if none is under way.
    pub(super) fn next_restore(&mut self) {
        let under_way = |phase: &Phase| match phase {
            Phase::Restoring(Restoring::Merging(merging)) => merging.begun,
            Phase::Restoring(Restoring::Logged(..)) => true,
            _ => false,
        };
        if self.standing != Standing::Running || self.conns.values().any(|conn| under_way(&conn.phase)) {
            return;
        }
        let next = self.conns.iter_mut().find_map(|(id, conn)| match &mut conn.phase {
            Phase::Restoring(Restoring::Merging(merging)) => Some((*id, merging)),
            _ => None,
        });
        if let Some((id, merging)) = next {
            merging.begun = true;
            // Another version of a commit of it counts, and is in the log's states: both would count. There may be very many, and
            // until it is logged, that stays as it is: nobody else writes to its lines (R1), it does not yet itself, and
            // what is held of commits comes by Restores, which take turns.
            if self.log.has_otherwise(&merging.given.known) {
                merging.clashes();
            }
            self.merge_next(id);
        }
    }

    fn merge_next(&mut self, id: ConnId) {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let Phase::Restoring(Restoring::Merging(merging)) = &mut conn.phase else { return };
            let Some(held) = merging.todo.front().cloned() else { break };
            let lost = conn.lost;
            if self.is_deadly(id, held.id) {
                self.stays(id, &held, Verdict::Conflict);
                continue;
            }
            let adopts = match self.fit(&held, lost) {
                Fit::Merges => false,
                Fit::Adopts => true,
                Fit::No(verdict) => {
                    self.stays(id, &held, verdict);
                    continue;
                }
            };
            let position = self.log.durable;
            let number = self.log.number(held.id);
            // What the store does not have yet is merged by whoever reads the entry.
            let segment =
                number.filter(|number| !adopts && self.log.segment(*number).is_some_and(|row| row.born < position));
            let ticket = self.ticket(id);
            if let Some(Phase::Restoring(Restoring::Merging(merging))) =
                self.conns.get_mut(&id).map(|conn| &mut conn.phase)
            {
                (merging.asked, merging.adopts) = (Some(ticket), adopts);
            }
            let (engine, given) = (held.engine, held.state);
            return self.out.push_back(Output::Merge { ticket, engine, segment, position, given, adopts });
        }
        self.log_restore(id);
    }

    /// Nothing is taken of the first segment that is to be merged.
    fn stays(&mut self, id: ConnId, held: &HeldSegment, verdict: Verdict) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Phase::Restoring(Restoring::Merging(merging)) = &mut conn.phase {
            merging.todo.pop_front();
            merging.given.verdicts.insert(held.id, verdict);
        }
    }

    /// The worker died over a merge, or took too long. What the log has of the segment may be what no engine takes in (R12). If the
    /// worker takes that in, and fails with what is given again and again, what is given does not go with it: an engine that meets
    /// different things under one identity need not come to an end (D4). Where the log has nothing there is nothing to differ from.
    fn merge_failed(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Phase::Restoring(Restoring::Merging(merging)) = &conn.phase else { return };
        let Some(held) = merging.todo.front().map(|held| held.id) else { return };
        let number = self.log.number(held);
        let upto = number.map_or(Offset(0), |number| self.log.changed(number).min(self.log.durable));
        conn.failed_merges.entry(held).or_insert((0, upto)).0 += 1;
        if self.is_deadly(id, held) {
            return self.merge_next(id);
        }
        if let Some(segment) = number {
            self.suspect(segment);
            self.next_report();
        }
        self.restore_later(id);
    }

    /// Whether the worker has died so often over what a connection gives of a segment, and takes in what the log had of that when it
    /// first did. What came to the log since is not why; and where the log has nothing there is nothing to differ from.
    fn is_deadly(&self, id: ConnId, segment: SegmentId) -> bool {
        let failed = self.conns.get(&id).and_then(|conn| conn.failed_merges.get(&segment));
        let number = self.log.number(segment);
        failed.is_some_and(|(times, upto)| {
            *times >= MERGE_TRIES && number.is_some_and(|number| self.is_well(number, *upto))
        })
    }

    /// The worker has answered.
    pub(super) fn merged(&mut self, ticket: Ticket, merge: Merge) {
        let Some(id) = self.reads.remove(&ticket) else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Phase::Restoring(Restoring::Merging(merging)) = &mut conn.phase else { return };
        if merging.asked.take_if(|asked| *asked == ticket).is_none() {
            return;
        }
        let mut added = match merge {
            Merge::Nothing => Added::Nothing,
            Merge::Adds { state, clocks } => Added::State(state, clocks),
            Merge::Refused => return self.close(id, Code::BadFrame),
            // D4: the log's state stays. Put off, it would be put off for ever.
            Merge::Clashes => {
                merging.clashes();
                return self.merge_next(id);
            }
            Merge::Failed => return self.merge_failed(id),
        };
        if let Some(mut held) = merging.todo.pop_front() {
            conn.failed_merges.remove(&held.id);
            held.state = Bytes::new();
            let mut verdict = Verdict::Nothing;
            if let Added::State(state, _) = &added {
                verdict = Verdict::Merged;
                if state.len() > limits::SEGMENT_BYTES_HARD {
                    // Nobody could write to it any more, nor be sent all of it.
                    (verdict, added) = (Verdict::Conflict, Added::Nothing);
                } else if merging.bytes + room_for(&held.header, state) > limits::RESTORED_BYTES_MAX {
                    // All are merged, since one that clashes is to keep all out.
                    added = Added::Later;
                } else {
                    merging.bytes += room_for(&held.header, state);
                }
            }
            merging.given.verdicts.insert(held.id, verdict);
            if verdict != Verdict::Conflict {
                merging.done.push((held, merging.adopts, added));
            }
        }
        self.merge_next(id);
    }

    /// All is merged: it becomes an entry.
    fn log_restore(&mut self, id: ConnId) {
        if self.standing != Standing::Running {
            return self.restore_later(id);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (author, lost, Some(by)) = (conn.author.clone(), conn.lost, conn.replica()) else { return };
        let wanted = Phase::Restoring(Restoring::Wanted);
        let Phase::Restoring(Restoring::Merging(merging)) = std::mem::replace(&mut conn.phase, wanted) else { return };
        conn.put_aside = 0;
        let Merging { mut given, done, .. } = *merging;
        let mut segments = Vec::with_capacity(done.len());
        let lines = if done.iter().any(|(_, adopts, _)| *adopts) { self.lines_for_headers() } else { None };
        let (mut room, mut for_headers) = (limits::RESTORED_BYTES_MAX, HEADERS_BYTES);
        for (held, adopts, added) in done {
            // An entry came first, and it is something else now.
            if self.fit(&held, lost) != (if adopts { Fit::Adopts } else { Fit::Merges }) {
                given.verdicts.insert(held.id, Verdict::Conflict);
                continue;
            }
            // Of one that is merged, the log has it.
            let (mut header, mut adds) = (Bytes::new(), None);
            match added {
                Added::Nothing => {}
                Added::State(state, mut clocks) if !adopts || for_headers > 0 => {
                    if adopts {
                        let made;
                        (header, made) = self.adopted_header(&held, lines.as_ref(), &mut clocks);
                        for_headers = for_headers.saturating_sub(made.max(header.len()));
                    }
                    let needs = room_for(&header, &state);
                    if needs <= room {
                        room -= needs;
                        adds = Some((state, clocks));
                    } else {
                        given.again = true;
                    }
                }
                Added::State(..) | Added::Later => given.again = true,
            }
            let HeldSegment { id, engine, layout, generation, .. } = held;
            segments.push(GivenBack { id, engine, layout, generation, header, adds, adopts });
        }
        let unix_ms = self.config.unix_ms + self.now.0;
        // What is not taken in of a segment may be a part of any of its commits: they are not said to be held.
        if given.verdicts.values().any(|verdict| *verdict == Verdict::Conflict) {
            (given.pending, given.known) = (Vec::new(), Vec::new());
        }
        let holds = given.pending.iter().map(|(owner, ..)| *owner).collect();
        let (pending, acked, known) = (given.pending.clone(), given.acked.clone(), std::mem::take(&mut given.known));
        let (pending, acked, known) = match given.again {
            false => (pending, acked, known),
            // Its lines go on when all is there; a commit that is said to be held is held in all segments.
            true => {
                segments.retain(|held| held.adds.is_some());
                Default::default()
            }
        };
        let giver = Giver { by, life: lost.0, pending, acked, known, holds };
        let (offset, created) = self.log.restore(giver, segments, &author, unix_ms, unix_ms + ROLL_HOLD_MS);
        for number in created {
            if let Some(row) = self.log.segment(number).filter(|_| !mutate::on(Mutation::RestoredUnborn)) {
                self.interest.born(row.id, number);
            }
        }
        self.hold_refusals();
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.phase = Phase::Restoring(Restoring::Logged(offset, Box::new(given)));
        }
    }

    /// The disk has followed: who gave back what it holds is told what became of it.
    pub(super) fn restored_durable(&mut self) {
        let durable = self.log.durable;
        let logged = |phase: &Phase| matches!(phase, Phase::Restoring(Restoring::Logged(at, _)) if *at < durable);
        let ids: Vec<ConnId> = self.conns.iter().filter(|(_, conn)| logged(&conn.phase)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            let wanted = Phase::Restoring(Restoring::Wanted);
            match std::mem::replace(&mut conn.phase, wanted) {
                // The rest: of what is in the log now, it adds nothing any more.
                Phase::Restoring(Restoring::Logged(_, given)) if given.again => self.restore_later(id),
                Phase::Restoring(Restoring::Logged(at, given)) => self.read_verdict(id, at, given),
                _ => {}
            }
        }
        self.next_restore();
    }

    /// An append was not written: what was given is to be given again.
    pub(super) fn restores_undone(&mut self) {
        let durable = self.log.durable;
        let undone = |phase: &Phase| match phase {
            Phase::Restoring(Restoring::Logged(at, _)) => *at >= durable,
            // Numbers of segments may mean others from here on.
            Phase::Restoring(Restoring::Merging(_)) => true,
            _ => false,
        };
        let ids: Vec<ConnId> = self.conns.iter().filter(|(_, conn)| undone(&conn.phase)).map(|(id, _)| *id).collect();
        for id in ids {
            self.restore_later(id);
        }
    }

    /// D2: the state, at one position behind the entry, of every segment that the connection follows.
    fn read_verdict(&mut self, id: ConnId, at: Offset, given: Box<Given>) {
        let position = self.log.durable;
        let mut reading = Reading { position, wanted: VecDeque::new(), states: Vec::new(), bytes: 0 };
        for segment in self.interest.followed(id) {
            match segment {
                Ok(number) if self.log.segment(number).is_some_and(|row| row.born < position) => {
                    reading.wanted.push_back(number);
                }
                Ok(number) => {
                    let unknown = self.log.segment(number).map(|row| row.id);
                    reading.states.extend(unknown.map(|id| (given.verdict(id), unknown_state(id))));
                }
                Err(unborn) => reading.states.push((given.verdict(unborn), unknown_state(unborn))),
            }
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.phase = Phase::Restoring(Restoring::Reading(at, given, Box::new(reading)));
        self.verdict_next(id);
    }

    fn verdict_next(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Phase::Restoring(Restoring::Reading(_, _, reading)) = &conn.phase else { return };
        if !reading.wanted.is_empty() {
            let (position, segments) = (reading.position, reading.wanted.iter().copied().map(StateOf::from).collect());
            let ticket = self.ticket(id);
            return self.out.push_back(Output::ReadStates { ticket, position, segments, bytes_max: READ_BYTES });
        }
        let Phase::Restoring(Restoring::Reading(offset, given, reading)) =
            std::mem::replace(&mut conn.phase, Phase::Streaming)
        else {
            return;
        };
        let (Given { pending, acked, .. }, Reading { position, states, .. }) = (*given, *reading);
        conn.cursor = position;
        conn.told = position;
        let bulk = Bytes::from(Restored { pending, acked, segments: states.into() }.encode());
        if bulk.len() > limits::LONG_BYTES_MAX {
            return self.close_too_long(id);
        }
        self.send_long(id, bulk, true, |bulk| Down::Restored(RestoredFrame { offset, yours: true, position, bulk }));
        self.pump(id);
    }

    /// States for a verdict have been read.
    pub(super) fn verdict_read(&mut self, id: ConnId, read: Vec<StoredState>) {
        for state in read {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let Phase::Restoring(Restoring::Reading(_, given, reading)) = &mut conn.phase else { return };
            match state {
                StoredState::At { segment, header, snapshot, deltas } if reading.wanted.front() == Some(&segment) => {
                    reading.wanted.pop_front();
                    let bytes = snapshot.len() + deltas.iter().map(Bytes::len).sum::<usize>();
                    let row = self.log.segment(segment);
                    let state =
                        row.and_then(|row| stored_state(segment, row, &header, &conn.own, snapshot, deltas).ok());
                    let Some(state) = state else { return self.close(id, Code::StoreFailed) };
                    reading.bytes += bytes;
                    reading.states.push((given.verdict(state.id), state));
                    if reading.bytes > limits::LONG_BYTES_MAX {
                        return self.close_too_long(id);
                    }
                }
                StoredState::At { .. } | StoredState::Since { .. } => return self.close(id, Code::StoreFailed),
                // A fold overtook the position: once more, at a later one.
                StoredState::NotBefore { .. } => {
                    let wanted = Phase::Restoring(Restoring::Wanted);
                    let phase = std::mem::replace(&mut conn.phase, wanted);
                    let Phase::Restoring(Restoring::Reading(at, given, _)) = phase else { return };
                    return self.read_verdict(id, at, given);
                }
            }
        }
        self.verdict_next(id);
    }

    /// All that a connection is to be told at once is more than a long message may have. What was given back lies beside what the
    /// log had until it is folded: as long as that is to come, it may be less when the replica comes again.
    pub(super) fn close_too_long(&mut self, id: ConnId) {
        let folds = |number: SegmentNumber| {
            self.folding.is_some_and(|(folding, _)| folding == number) || self.fold_wanted.contains(&number)
        };
        let soon = self.interest.followed(id).into_iter().flatten().any(folds);
        self.close(id, if soon { Code::Restoring } else { Code::MessageTooLarge });
    }

    /// A commit that cannot be looked at yet: of a connection that has not given back what it holds, or before a relay over a
    /// backup admits any (D7). True: it was told so.
    pub(super) fn puts_off(&mut self, id: ConnId, line: &crate::admit::Candidate, owner: u64) -> bool {
        let restoring = self.conns.get(&id).is_some_and(|conn| matches!(conn.phase, Phase::Restoring(_)));
        if !restoring && (self.now >= self.config.admits_from || !self.log.is_next(line)) {
            return false;
        }
        self.busy_for(id, owner, line.seq, Code::Restoring, RETRY_MS);
        true
    }

    /// Says: not now, from this number on, and why.
    pub(super) fn busy_for(&mut self, id: ConnId, owner: u64, seq: Seq, why: Code, retry_ms: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Some(own) = usize::try_from(owner).ok().and_then(|at| conn.own.get_mut(at)) {
            own.refused = true;
        }
        let code = u64::from(why.number());
        self.answer(id, &Down::Busy { owner, seq, code, retry_ms });
    }

    /// Sends a Restored of another, with the segments that this connection follows; entries wait until it is whole there.
    pub(super) fn send_restored(&mut self, id: ConnId, offset: Offset, entry: &StoredRestore) {
        let seen: Vec<usize> = (0..)
            .zip(&entry.segments)
            .filter(|(_, part)| !part.state.is_empty() && self.interest.follows(id, part.segment))
            .filter(|(_, part)| !self.log.skips(part.segment, offset))
            .map(|(at, _)| at)
            .collect();
        if seen.is_empty() {
            return;
        }
        // Those that see the same share the bytes, unless there is something of their own lines in them (G4).
        let parts =
            || (0..).zip(&entry.segments).filter(|(at, _)| seen.binary_search(at).is_ok()).map(|(_, part)| part);
        let shared = parts().all(|part| !part.adopts);
        let known = self.restored.as_ref().filter(|(of, parts, _)| shared && *of == offset && *parts == seen);
        let bulk = known.map(|(_, _, bulk)| bulk.clone()).unwrap_or_else(|| {
            let own = self.conns.get(&id).map_or(&[][..], |conn| &conn.own);
            let segments = parts().filter_map(|part| {
                let row = self.log.segment(part.segment)?;
                let header = header_for(&part.header, own).ok().flatten().filter(|_| part.adopts);
                let (snapshot, deltas) = match part.adopts {
                    true => (part.state, Vec::new()),
                    false => (Bytes::new(), vec![part.state]),
                };
                let state = alive_state(part.segment, row, header.as_ref(), snapshot, deltas);
                Some((Verdict::Merged, SegmentState { generation: part.generation, ..state }))
            });
            let restored = Restored { pending: Vec::new(), acked: Vec::new(), segments: segments.collect() };
            Bytes::from(restored.encode())
        });
        if shared {
            self.restored = Some((offset, seen, bulk.clone()));
        }
        let position = offset.next();
        self.send_long(id, bulk, true, |bulk| Down::Restored(RestoredFrame { offset, yours: false, position, bulk }));
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.told = position;
        }
    }
}

/// What a segment takes of an entry, and of the message about it: its header, its state, and what is said of it besides.
fn room_for(header: &Bytes, state: &Bytes) -> usize {
    const BESIDES: usize = 64;
    header.len() + state.len() + BESIDES
}

/// Those segments that an entry brings whole, and so may be long for: a Restored adds to them, a Roll replaces one.
pub(super) fn added_to(entry: &LogEntry) -> impl Iterator<Item = SegmentNumber> + '_ {
    let (segments, rolled) = match entry {
        LogEntry::Restored(restore) => (Some(&restore.segments), None),
        LogEntry::Roll(roll) => (None, Some(roll.segment)),
        LogEntry::Commit(_) | LogEntry::Void { .. } | LogEntry::Quarantine(_) => (None, None),
    };
    let segments = segments.into_iter().flatten().filter(|part| !part.state.is_empty());
    segments.map(|part| part.segment).chain(rolled)
}

/// The time for which refusals are held after a restore, where nobody says otherwise.
pub const REFUSES_AFTER: Millis = Millis(60_000);
