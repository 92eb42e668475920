//! A relay that has lost part of its log, or all of it, gets back what this replica holds (CORE-PROTOCOL D1–D5).
//!
//! ```text
//!   Ok{restore} ──► restoring, frozen ──Restore: all that is resident──► … ──own Restored──► at its position, in one step
//!                     │  ▲                                                     │
//!      disconnected ──┘  └── the next Hello says so (D3)                       └──► pending, loads, waits go on
//! ```
//!
//! While frozen, the cut and the epochs stay those of the lost log: what is shown is what they cover. The program reads and
//! writes; nothing it writes is sent, no token is given out, nothing is evicted.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::cut::Answered;
use super::pending::Unsaved;
use super::session::{Session, in_pieces};
use super::{Author, Output, Replica};
use crate::commit::LAYOUT;
use crate::heap::{Buffered, Index, Slot, State};
use crate::id::{EpochId, GenId, Offset, SegmentId, Seq};
use crate::limits;
use crate::segment::Segment;
use crate::wire::codec::Malformed;
use crate::wire::frame::down::{Fate, Welcome};
use crate::wire::frame::restore::{Content, HeldSegment, Place, Restore, Restored, RestoredFrame, Verdict};
use crate::wire::frame::{SegmentState, SegmentStatus, Up};

/// The stream of a Restore's pieces; a Hello's is 1.
const STREAM: u64 = 2;

/// A document that holds nothing takes fewer bytes than this.
const EMPTY_BYTES_MAX: usize = 256;

/// What has to wait for the own Restored.
#[derive(Debug, Default)]
pub(super) struct Frozen {
    /// The lives of the log as the Ok told them: they count from the verdict on.
    epochs: Vec<(EpochId, Offset)>,
    lineage: EpochId,
    /// The Restore is under way.
    sent: bool,
    /// Segments that are here and that it leaves out: they show a refused commit, or a version that does not count, until they are
    /// made anew.
    left_out: BTreeSet<SegmentId>,
    /// What it holds: segments with their generations, and commits up to this number.
    held: (BTreeSet<(SegmentId, GenId)>, Seq),
    /// Of these it has nothing but that they are here.
    empty: BTreeSet<SegmentId>,
    /// Answers to loads, in order.
    snapshots: Vec<(Answered, Bytes)>,
}

impl Replica {
    /// Ok{restore}: this replica holds what the log has lost.
    pub(super) fn freeze(&mut self, welcome: &mut Welcome) {
        let epochs = std::mem::take(&mut welcome.epochs);
        let frozen = Frozen { epochs, lineage: welcome.lineage, sent: true, ..Frozen::default() };
        if let Session::Online(online) = &mut self.session {
            online.frozen = Some(Box::new(frozen));
        }
        // D1: what is given back are documents, and the verdict brings others.
        self.unpack_all();
        if !std::mem::replace(&mut self.restoring, true) {
            self.keep_lives();
            self.out.push_back(Output::Restoring { begins: true });
        }
        // What the log had may have gone.
        for one in self.pending.iter_mut() {
            (one.admitted, one.settled) = (None, false);
        }
        // R11: what the ring has as void is refused, and is not given back. A relay that asks for a restore shows only what is
        // durable of these lines.
        for (owner, rows) in &welcome.ring {
            let Some(owner) = self.lines.owner(*owner) else { continue };
            for row in rows {
                if let Fate::Void(code) = row.fate
                    && self
                        .pending
                        .iter()
                        .find(|one| one.commit.owner == owner)
                        .is_some_and(|one| one.commit.seq == row.seq)
                {
                    self.refused(owner, row.seq, row.uid, code);
                }
            }
        }
        // Behind commits that are not acknowledged it is told when it comes again: were it to end before them, the line would
        // have a hole at a relay that loses this log, too [X13].
        for one in self.pending.iter_mut() {
            let commit = &one.commit;
            let own = welcome.ring.iter().filter(|(of, _)| self.lines.owner(*of) == Some(commit.owner));
            let row = own.flat_map(|(_, rows)| rows).find(|row| (row.seq, row.uid) == (commit.seq, commit.uid));
            one.void = row.is_some_and(|row| matches!(row.fate, Fate::Void(_)));
        }
        self.restore_again();
        self.send_restore();
    }

    /// True until the own Restored is here.
    pub(super) fn is_frozen(&self) -> bool {
        matches!(&self.session, Session::Online(online) if online.frozen.is_some())
    }

    /// D1: everything resident, own pending parts included. What shows a refused commit until it is made anew is left out:
    /// giving it back would make the refused take effect.
    pub(super) fn send_restore(&mut self) {
        let Session::Online(online) = &mut self.session else { return };
        let Some(frozen) = online.frozen.as_mut().filter(|frozen| !frozen.sent) else { return };
        frozen.sent = true;
        let void = self.pending.iter().filter(|one| one.void).flat_map(Unsaved::segments);
        let void: BTreeSet<SegmentId> = void.collect();
        let mut segments = Vec::new();
        frozen.left_out.clear();
        frozen.empty.clear();
        for (_, slot) in self.heap.iter() {
            let (document, undone) = match &slot.state {
                State::Live(document) => (document, false),
                State::Loading { before: Some(document), redo, .. } => (document, *redo),
                State::Loading { .. } | State::Away | State::Packed(_) => continue,
            };
            if undone || void.contains(&slot.id) {
                frozen.left_out.insert(slot.id);
                continue;
            }
            let state = document.whole();
            if state.len() < EMPTY_BYTES_MAX && document.holds_nothing() {
                frozen.empty.insert(slot.id);
            }
            segments.push(HeldSegment {
                id: slot.id,
                engine: document.engine(),
                layout: LAYOUT,
                generation: document.generation(),
                header: document.header().clone(),
                state: state.into(),
            });
        }
        frozen.held = (segments.iter().map(|held| (held.id, held.generation)).collect(), self.number);
        let place = |(owner, seq, uid)| self.lines.place(owner).map(|at| (at, seq, uid));
        // Those of which another version counts (F3) are in the states, too.
        let here: BTreeSet<SegmentId> = segments.iter().map(|held| held.id).collect();
        let held = |one: &&Unsaved| one.segments().all(|id| here.contains(&id));
        let standing = self.pending.iter().filter(|one| !one.void).filter(held).take(limits::RESTORE_PENDING_MAX);
        let (mut pending, mut known): (Vec<Place<u64>>, Vec<Content<u64>>) = (Vec::new(), Vec::new());
        for one in standing {
            let Some((of, seq, uid)) = place((one.commit.owner, one.commit.seq, one.commit.uid)) else { continue };
            pending.push((of, seq, uid));
            known.extend(one.hash_in_the_log().map(|hash| (of, seq, uid, hash)));
        }
        let acked: Vec<Place<u64>> = self.own_lines().into_iter().filter_map(place).collect();
        for ended in self.lines.made().filter(|ended| ended.hash != 0) {
            let Some(of) = self.lines.place(ended.of.unwrap_or(self.id)) else { continue };
            if acked.iter().any(|(line, upto, _)| *line == of && ended.seq <= *upto) {
                known.push((of, ended.seq, ended.uid, ended.hash));
            }
        }
        let restore = Restore { acked, pending, segments: segments.into(), known };
        let bulk = Bytes::from(restore.encode());
        if bulk.len() > limits::LONG_BYTES_MAX {
            return self
                .problem("ERR_TOO_LARGE", "what is here is too large to give it back to a relay that has lost it");
        }
        let (bulk, chunks) = in_pieces(bulk, STREAM);
        self.forward(&Up::Restore(bulk));
        for chunk in chunks {
            self.forward(&Up::Chunk(chunk));
        }
    }

    /// The Restore is to be sent, for the first time or again.
    pub(super) fn restore_again(&mut self) {
        if let Session::Online(online) = &mut self.session
            && let Some(frozen) = &mut online.frozen
        {
            frozen.sent = false;
        }
    }

    /// D2: an answer to a load waits for the verdict. Gives it back if nothing is waited for.
    pub(super) fn put_aside(&mut self, answered: Answered, bulk: Bytes) -> Option<Bytes> {
        if let Session::Online(online) = &mut self.session
            && let Some(frozen) = &mut online.frozen
        {
            frozen.snapshots.push((answered, bulk));
            return None;
        }
        Some(bulk)
    }

    /// A Restored is whole.
    pub(super) fn restored(&mut self, frame: &RestoredFrame, bulk: &Bytes) -> Result<(), Malformed> {
        let restored = Restored::decode(bulk)?;
        if !frame.yours {
            self.apply_restored(frame.offset, &restored);
            return Ok(());
        }
        let Session::Online(online) = &mut self.session else { return Ok(()) };
        let frozen = online.frozen.take().ok_or(Malformed::Field("a verdict that nobody waits for"))?;
        self.restoring = false;
        self.goes_on_with(frozen.epochs, frozen.lineage);
        self.keep_lives();
        self.waits.new_log();
        let mut states = Vec::with_capacity(restored.segments.len());
        let (held, upto) = frozen.held;
        for (verdict, state) in &restored.segments {
            if matches!(verdict, Verdict::Merged | Verdict::Nothing) && held.contains(&(state.id, state.generation)) {
                // Whatever becomes of a commit of which other parts were not taken, these are there.
                for one in self.pending.iter_mut().filter(|one| one.number <= upto) {
                    one.is_given(state.id, state.generation);
                }
            }
            match verdict {
                Verdict::Conflict => self.given_up(&state, frozen.empty.contains(&state.id)),
                // What had to leave it (F2, F3, R11) would have been given back with it; what else the relay has lost of it is
                // nowhere else, either.
                Verdict::NotGiven if frozen.left_out.contains(&state.id) => self.tell_given_up(state.id),
                Verdict::NotGiven | Verdict::Merged | Verdict::Nothing => {}
            }
            states.push(state);
        }
        self.doubtful.extend(self.pending.still_forgotten());
        self.catch_up_with(frame.position, states);
        self.out.push_back(Output::Restoring { begins: false });
        for (answered, bulk) in frozen.snapshots {
            self.loaded(answered, &bulk)?;
        }
        self.ask_for_the_missing();
        self.send_reports();
        self.send_pending();
        self.ask_heads();
        Ok(())
    }

    /// D4: what is here of a segment does not go with what the relay has, which counts. What is not acknowledged is made anew on
    /// that, as another writer: the identities of what is here may be those of something else there. With `nothing` that is all there
    /// is: what was written since this was given back.
    fn given_up(&mut self, state: &SegmentState, nothing: bool) {
        let id = state.id;
        if !nothing {
            self.tell_given_up(id);
        }
        let Some((index, slot)) = self.heap.by_id_mut(id) else { return };
        let same = slot.peek().is_some_and(|document| {
            state.status == SegmentStatus::Unknown || document.generation() == state.generation
        });
        // Of another generation it is made anew anyway (G3).
        if !same {
            return;
        }
        if let State::Live(_) = &slot.state
            && let State::Live(before) = std::mem::replace(&mut slot.state, State::Away)
        {
            slot.state =
                State::Loading { nonce: None, buffer: Vec::new(), before: Some(before), redo: true, copy: None };
        } else if let State::Loading { redo, .. } = &mut slot.state {
            *redo = true;
        }
        self.heap.undo(index);
        self.pending.spoil_all(id);
    }

    /// The program gets what it is shown of it, if it is shown anything: that is nowhere else from here on. Of a document that holds
    /// nothing, since no log knew the segment (C10), nothing is given up.
    fn tell_given_up(&mut self, id: SegmentId) {
        let index = self.heap.index(id);
        let document = index.and_then(|index| self.heap.slot(index)).and_then(Slot::peek);
        if document.is_some_and(Segment::holds_nothing) {
            return;
        }
        match index.filter(|_| document.is_some()) {
            Some(index) => self.out.push_back(Output::Conflict(index)),
            None => {
                let what = format!("what was here of segment {id} does not go with what the relay has, which stays");
                self.problem("ERR_CONFLICT", what);
            }
        }
    }

    /// D5: to everybody else a Restored is an entry, whose states are merged, all in one step.
    fn apply_restored(&mut self, offset: Offset, restored: &Restored) {
        let frozen = self.is_frozen();
        let (mut shown, mut failed, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut switching = Vec::new();
        let witness = self.witness;
        for (_, state) in &restored.segments {
            self.unpack_id(state.id);
            let Some((index, slot)) = self.heap.by_id_mut(state.id) else { continue };
            if state.status != SegmentStatus::Alive {
                continue;
            }
            let deltas = state.deltas.to_vec();
            match &mut slot.state {
                State::Away | State::Packed(_) => {}
                // D5: another generation is switched to, not merged. Only one that is adopted comes with a document.
                _ if !frozen && !state.snapshot.is_empty() => switching.push(state),
                State::Live(document) if !frozen && document.generation() != state.generation => {
                    failed.push((state.id, "it is of another generation".into()));
                }
                State::Loading { before, buffer, .. } => {
                    witness(Some(index));
                    if let Some(before) = before.as_deref_mut().filter(|_| !frozen)
                        && let Ok(patches) = before.apply(&deltas)
                    {
                        if !patches.is_empty() {
                            shown.push((index, patches));
                        }
                        kept.push((index, deltas.clone()));
                    }
                    witness(None);
                    buffer.push(Buffered { at: offset, by: None, deltas });
                }
                // The own verdict has all of it (D2).
                State::Live(_) if frozen => {}
                State::Live(segment) => {
                    segment.set_unborn(false);
                    witness(Some(index));
                    let merged = segment.apply(&deltas).map_err(|error| error.to_string());
                    witness(None);
                    match merged {
                        Ok(patches) => {
                            if !patches.is_empty() {
                                shown.push((index, patches));
                            }
                            kept.push((index, deltas));
                        }
                        Err(error) => failed.push((state.id, error)),
                    }
                }
            }
        }
        if !frozen {
            self.cut = self.cut.max(offset.next());
        }
        for (index, deltas) in kept {
            self.keep_applied(index, &deltas);
        }
        if !shown.is_empty() {
            let touched: Vec<Index> = shown.iter().map(|(index, _)| *index).collect();
            let (author, label) = (Author::default(), String::new());
            self.out.push_back(Output::Apply { offset, author, label, segments: shown });
            for index in touched {
                self.tell_overruled(index);
            }
        }
        for state in switching {
            let deltas = state.deltas.to_vec();
            self.switch_to(&state, &deltas, offset);
        }
        self.send_pending();
        for (id, error) in failed {
            self.quarantine(id, offset, &error);
        }
    }
}
