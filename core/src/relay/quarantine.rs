//! Segments that somebody's engine could not take in (CORE-PROTOCOL R12): a replica's, or the worker's own while it folds or
//! merges. The worker replays what the log has of one, delta by delta, in a process of its own, and says on which it fails, if it does.
//!
//! ```text
//!   Report ──┐                                   ┌─ well ───────────────────────────────► Reload to who reported
//!   Fold   ──┼─► wanted ──Examine──► the worker ─┤
//!   Merge  ──┘   ▲ (one at a time,               └─ fails ─► Quarantine appended ─durable─► to followers, as an entry
//!                │  with rests)                               (its client id is barred)          │
//!                └──────────────────────── once more, until nothing is found ────────────────────┘
//! ```
//!
//! What a replay took is rested before the next one of the heap begins, four times over if it found nothing, so reports cost the worker
//! at most a fifth of its time, whoever sends them, and whoever writes what is found at most half. What was replayed without a failure is not replayed again. No segment is folded meanwhile,
//! nor until the Quarantine is on the disk: a snapshot must not hold what is left out.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::port::{ConnId, Examined, Ticket};
use super::timers::Timer;
use super::{Output, Relay, Standing};
use crate::id::{Nonce, Offset, SegmentId, SegmentNumber};
use crate::limits;
use crate::log::StoredQuarantine;
use crate::time::{Millis, Time};
use crate::wire::code::Code;
use crate::wire::frame::down::Asked;
use crate::wire::frame::{Down, SegRef};

/// The shortest rest after a replay that found nothing.
const REST: Millis = Millis(1_000);
/// Such a rest is as many times as long as the replay before it.
const REST_TIMES: u64 = 4;

/// What is to be looked at, and what was.
#[derive(Debug, Default)]
pub(super) struct Reports {
    wanted: BTreeMap<SegmentNumber, Wanted>,
    under_way: Option<UnderWay>,
    /// The worker's engine takes in what the log has of a segment below here.
    well: BTreeMap<SegmentNumber, Offset>,
    /// No replay begins before.
    next_at: Time,
    /// The segment that was replayed last. The next one is that with the next number, so that what is reported again and again
    /// keeps no other waiting for ever.
    last: SegmentNumber,
}

/// A segment that is to be replayed.
#[derive(Debug, Default)]
struct Wanted {
    /// Up to here.
    upto: Offset,
    /// Who reported it, and as of which entry.
    by: Vec<(ConnId, Offset)>,
}

#[derive(Debug)]
enum UnderWay {
    /// The worker has it.
    Asked { ticket: Ticket, segment: SegmentNumber, wanted: Wanted, since: Time },
    /// The Quarantine is in the log, here; the disk has to follow.
    Logged { at: Offset, segment: SegmentNumber, wanted: Wanted },
}

impl Reports {
    /// Whether no segment may be folded.
    pub fn are_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    fn waiting(&self, conn: ConnId) -> usize {
        let under_way = self.under_way.iter().map(|under_way| match under_way {
            UnderWay::Asked { wanted, .. } | UnderWay::Logged { wanted, .. } => wanted,
        });
        let all = self.wanted.values().chain(under_way);
        all.flat_map(|wanted| &wanted.by).filter(|(by, _)| *by == conn).count()
    }

    /// Waits for what is under way, if that says enough.
    fn join(&mut self, number: SegmentNumber, upto: Offset, by: (ConnId, Offset)) -> bool {
        let Some(UnderWay::Asked { segment, wanted, .. } | UnderWay::Logged { segment, wanted, .. }) =
            &mut self.under_way
        else {
            return false;
        };
        let enough = *segment == number && wanted.upto >= upto;
        if enough {
            wanted.by.push(by);
        }
        enough
    }

    /// The next segment in turn.
    fn pop(&mut self) -> Option<(SegmentNumber, Wanted)> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let next = self.wanted.range(behind).chain(&self.wanted).map(|(segment, _)| *segment).next()?;
        self.last = next;
        Some((next, self.wanted.remove(&next)?))
    }

    /// A connection is gone: nobody answers it any more.
    pub fn closed(&mut self, conn: ConnId) {
        let under_way = self.under_way.iter_mut().map(|under_way| match under_way {
            UnderWay::Asked { wanted, .. } | UnderWay::Logged { wanted, .. } => wanted,
        });
        for wanted in self.wanted.values_mut().chain(under_way) {
            wanted.by.retain(|(by, _)| *by != conn);
        }
    }

    /// It is to be looked at, with what is wanted of it already.
    fn want(&mut self, segment: SegmentNumber, upto: Offset, by: impl IntoIterator<Item = (ConnId, Offset)>) {
        let wanted = self.wanted.entry(segment).or_default();
        wanted.upto = wanted.upto.max(upto);
        wanted.by.extend(by);
    }
}

impl Relay {
    /// A replica's engine failed by the time it had taken in that entry, or on one before.
    pub(super) fn report(&mut self, id: ConnId, segment: SegmentId, at: Offset) {
        let Some(number) = self.log.number(segment) else { return self.reload(id, segment, at) };
        let upto = Offset(at.0.saturating_add(1)).min(self.log.durable);
        // G1: what lies below the generation of now is in no document any more.
        let below = upto <= self.log.begun(number) && self.log.begun(number) <= self.log.durable;
        let well = below || self.reports.well.get(&number).is_some_and(|well| *well >= upto);
        if well || self.log.skips(number, at) {
            return self.reload(id, segment, at);
        }
        let refusal = if self.config.fold_bytes.is_none() {
            Some(Code::Unsupported)
        } else if self.reports.waiting(id) >= limits::REPORTS_MAX {
            Some(Code::Rate)
        } else {
            None
        };
        if let Some(code) = refusal {
            return self.decline(id, Asked::Report, Nonce(at.0), code);
        }
        if !self.reports.join(number, upto, (id, at)) {
            self.reports.want(number, upto, [(id, at)]);
            self.next_report();
        }
    }

    /// The worker has failed over a segment: what on is to be found out.
    pub(super) fn suspect(&mut self, segment: SegmentNumber) {
        let upto = self.log.durable;
        if self.reports.well.get(&segment).is_none_or(|well| *well < upto) {
            self.reports.want(segment, upto, []);
        }
    }

    /// Whether the worker has taken in what the log has of a segment below here.
    pub(super) fn is_well(&self, segment: SegmentNumber, upto: Offset) -> bool {
        self.reports.well.get(&segment).is_some_and(|well| *well >= upto)
    }

    /// Begins with the next replay, if it may.
    pub(super) fn next_report(&mut self) {
        if self.reports.under_way.is_some() || self.folding.is_some() || self.standing != Standing::Running {
            return;
        }
        if self.reports.wanted.is_empty() {
            return;
        }
        if self.now < self.reports.next_at {
            return self.timers.set(Timer::Report, self.reports.next_at);
        }
        while let Some((segment, wanted)) = self.reports.pop() {
            let Some(row) = self.log.segment(segment) else { continue };
            let (engine, upto, position) = (row.engine, wanted.upto, self.log.durable);
            self.log.watch(segment);
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            self.reports.under_way = Some(UnderWay::Asked { ticket, segment, wanted, since: self.now });
            return self.out.push_back(Output::Examine { ticket, segment, engine, upto, position });
        }
    }

    /// The worker has replayed it.
    pub(super) fn examined(&mut self, of: Ticket, examined: Examined) {
        let Some(UnderWay::Asked { ticket, segment, wanted, since }) =
            self.reports.under_way.take_if(|one| matches!(one, UnderWay::Asked { ticket, .. } if *ticket == of))
        else {
            return;
        };
        debug_assert!(ticket == of);
        let took = self.now.0.saturating_sub(since.0);
        let rest = match examined {
            Examined::Fails(_) => took,
            Examined::Well | Examined::Unknown => REST.0.max(took.saturating_mul(REST_TIMES)),
        };
        self.reports.next_at = self.now + Millis(rest);
        let watched = self.log.unwatch();
        match examined {
            // What was read of the log is not what it is now: once more.
            _ if self.standing != Standing::Running || watched.is_none() => {
                self.reports.want(segment, wanted.upto, wanted.by);
            }
            Examined::Well => {
                self.reports.well.insert(segment, wanted.upto);
                self.answer_reports(segment, &wanted);
            }
            Examined::Fails(failing) => match self.log.quarantine(segment, &failing, watched.unwrap_or_default()) {
                Some(at) => self.reports.under_way = Some(UnderWay::Logged { at, segment, wanted }),
                None => self.answer_reports(segment, &wanted),
            },
            Examined::Unknown => {
                for (conn, at) in wanted.by {
                    self.decline(conn, Asked::Report, Nonce(at.0), Code::Rate);
                }
                self.flush_answers();
            }
        }
        self.next_report();
        self.next_fold();
    }

    /// The disk has followed. What comes behind may be no better: who reported is told when the rest is taken in.
    pub(super) fn reports_durable(&mut self) {
        let durable = self.log.durable;
        let logged = |one: &mut UnderWay| matches!(one, UnderWay::Logged { at, .. } if *at < durable);
        if let Some(UnderWay::Logged { segment, wanted, .. }) = self.reports.under_way.take_if(logged) {
            self.reports.want(segment, durable, wanted.by);
            // A merge that failed may have failed over what is left out from here on.
            let id = self.log.segment(segment).map(|row| row.id);
            for conn in self.conns.values_mut() {
                conn.failed_merges.retain(|failed, _| Some(*failed) != id);
            }
            self.next_report();
        }
    }

    /// The log is being read again: what was not written never was.
    pub(super) fn reports_undone(&mut self) {
        if let Some(UnderWay::Logged { segment, wanted, .. }) =
            self.reports.under_way.take_if(|one| matches!(one, UnderWay::Logged { .. }))
        {
            self.reports.want(segment, wanted.upto, wanted.by);
        }
        self.reports.well.clear();
    }

    fn answer_reports(&mut self, segment: SegmentNumber, wanted: &Wanted) {
        let Some(id) = self.log.segment(segment).map(|row| row.id) else { return };
        for (conn, at) in &wanted.by {
            if self.conns.contains_key(conn) {
                self.reload(*conn, id, *at);
            }
        }
        self.flush_answers();
    }

    fn reload(&mut self, id: ConnId, segment: SegmentId, at: Offset) {
        self.answer(id, &Down::Reload { segment: SegRef::Id(segment), at });
    }

    /// Sends a Quarantine to one connection that follows its segment.
    pub(super) fn send_quarantine(&mut self, id: ConnId, offset: Offset, entry: &StoredQuarantine) {
        let Some(row) = self.log.segment(entry.segment) else { return };
        let (segment, at, client) = (SegRef::Id(row.id), entry.offset, entry.client);
        if !self.interest.follows(id, entry.segment) {
            return;
        }
        self.send(id, &Down::Quarantine { offset, segment, at, client });
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.told = offset.next();
        }
    }
}
