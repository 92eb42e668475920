//! A segment whose content the engine here could not take in, or the guard did not let through to it (CORE-PROTOCOL R12, R10): it
//! stands still, its program keeps the last good values, and the relay is asked to look at it. The rest of the heap goes on.
//!
//! ```text
//!   here ──the engine fails──► frozen ──Report──► … ──Reload, or the Quarantine entry──► loading ──► here
//!     │                          ▲ │ new connection: reported again                         │
//!     │                          │ │ Declined, Rate: reported again after AGAIN_MS           │
//!     │                          │ └──────────────────────────────────────────────────────  │ fails again: FAILURES_MAX times
//!     └──Quarantine entry──► loading anew, without the part                                 ▼
//!                                                                                  not to be had any more here
//! ```
//!
//! Who took the bad part in, its author for one, learns of it by the entry. What that replica has not yet saved and builds on what
//! is left out is made anew from its edits, as another client id.

use super::session::Session;
use super::{LoadStatus, Output, Replica};
use crate::guard;
use crate::heap::{Broken, Index, State};
use crate::id::{Offset, SegmentId};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::segment::Segment;
use crate::segment::merge::guarded;
use crate::wire::frame::{SegRef, Up};

/// So many times in a row what the relay sends of a segment may fail here: a state of it, or the first entry behind one. The relay says
/// each time that it finds nothing wrong. An entry that is taken in begins the count anew, and so does a part that the relay leaves
/// out, or a new generation.
const FAILURES_MAX: u32 = 8;

/// After so long what the relay had no time for, or its worker failed over, is reported again: several times what the relay rests
/// after a replay (`relay/quarantine.rs`). The entry that would say what is left out need not come by: on a connection that came
/// later nobody has followed what stands still.
const AGAIN_MS: u64 = 5_000;

impl Replica {
    /// The engine failed on a resident segment, with that entry at the latest.
    pub(super) fn quarantine(&mut self, id: SegmentId, at: Offset, why: &str) {
        let Some((index, slot)) = self.heap.by_id_mut(id) else { return };
        match std::mem::replace(&mut slot.state, State::Away) {
            State::Live(document) => self.quarantine_with(index, Some(document), at, why),
            State::Loading { before, .. } => self.quarantine_with(index, before, at, why),
            State::Packed(packed) => self.quarantine_with(index, Some(Box::new(packed.shell)), at, why),
            State::Away => {}
        }
    }

    /// The same of one that is in no document; `before` has the handles that its mirror knows.
    pub(super) fn quarantine_with(&mut self, index: Index, before: Option<Box<Segment>>, at: Offset, why: &str) {
        let Some(slot) = self.heap.slot_mut(index) else { return };
        let id = slot.id;
        slot.failures += 1;
        slot.stopped = true;
        // It is followed on: the entry that says what is left out comes by.
        let hopeless = slot.failures > FAILURES_MAX;
        slot.broken = (!hopeless).then_some(Broken { at, told: false, before });
        self.stats.quarantined += 1;
        self.problem(
            "ERR_QUARANTINED",
            format!("the engine cannot take in segment {id}, which is not shown any more: {why}"),
        );
        self.out.push_back(Output::Loaded {
            segment: index,
            status: LoadStatus::Quarantined,
            bytes: 0,
            reset: false,
            patches: Vec::new(),
        });
        if hopeless {
            self.unfollow(id);
            self.ask_for_the_declined();
        }
        self.send_reports();
    }

    /// Asks the relay to look at what is frozen, if it was not asked on this connection.
    pub(super) fn send_reports(&mut self) {
        if !self.is_online() || self.is_frozen() {
            return;
        }
        let (mut asked, mut reports) = (0, Vec::new());
        for (_, slot) in self.heap.iter_mut() {
            let id = slot.id;
            let Some(broken) = &mut slot.broken else { continue };
            asked += 1;
            if asked > limits::REPORTS_MAX {
                break;
            }
            if !std::mem::replace(&mut broken.told, true) {
                reports.push((id, broken.at));
            }
        }
        for (id, offset) in reports {
            self.forward(&Up::Report { segment: SegRef::Id(id), offset });
        }
    }

    /// The relay has not looked at what failed with that entry: it is asked again, later.
    pub(super) fn report_later(&mut self, at: Offset) {
        if mutate::on(Mutation::ReportOnce) {
            return;
        }
        let at = self.heap.iter_mut().filter_map(|(_, slot)| slot.broken.as_mut()).filter(|broken| broken.at == at);
        at.for_each(|broken| broken.told = false);
        if let Session::Online(online) = &mut self.session {
            online.report_at = Some(self.now_ms.saturating_add(AGAIN_MS));
        }
        self.out.extend(self.deadline().map(Output::Deadline));
    }

    /// What was put off, if it is time.
    pub(super) fn report_again(&mut self) {
        if let Session::Online(online) = &mut self.session
            && online.report_at.take_if(|at| *at <= self.now_ms).is_some()
        {
            self.send_reports();
        }
    }

    /// The relay has looked at it: it is to be had.
    pub(super) fn thaw(&mut self, id: SegmentId) {
        let Some((index, slot)) = self.heap.by_id_mut(id) else { return };
        let Some(broken) = slot.broken.take() else { return };
        slot.stopped = false;
        slot.thawing = true;
        slot.known = broken.before;
        let nonce = self.ask(id);
        if let Some(slot) = self.heap.slot_mut(index) {
            // Stale parts of own commits are made anew, whatever made them so.
            slot.state = State::Loading { nonce, buffer: Vec::new(), before: None, redo: true, copy: None };
            self.heap.undo(index);
            self.reloading.push(index);
        }
        self.send_reports();
    }

    /// R12: from this entry on a part is left out, and all that its client id wrote behind it.
    pub(super) fn quarantined(&mut self, offset: Offset, segment: SegRef, client: Option<(u64, u32)>) {
        if !self.is_frozen() {
            self.cut = self.cut.max(offset.next());
        }
        let Some(id) = self.resolve(segment) else { return };
        let Some((_, slot)) = self.heap.by_id_mut(id) else { return };
        // The relay failed on it, too: what comes next is no failure of this replica alone.
        slot.failures = 0;
        let engine =
            slot.peek().or(slot.broken.as_ref().and_then(|broken| broken.before.as_deref())).map(Segment::engine);
        let writes = slot.peek().map(Segment::writer);
        let (broken, away) = (slot.broken.is_some(), matches!(slot.state, State::Away));
        if let (Some(engine), Some((client, from))) = (engine, client) {
            self.pending.left_out(id, |delta| {
                let Ok(summary) = guard::structure(guarded(engine), delta) else { return true };
                let own = summary.own.is_some_and(|own| own.client == client && own.end > from);
                own || summary.named.iter().any(|(named, end)| *named == client && *end > from)
            });
        }
        if client.is_some_and(|(client, _)| writes == Some(client)) {
            self.problem(
                "ERR_QUARANTINED",
                format!("what was written here to segment {id} is left out: no engine can take it in"),
            );
        }
        if broken {
            self.thaw(id);
        } else if !away {
            self.reload(id, true);
        }
    }
}
