//! How the log becomes visible: entries at the cut, each in one step (C4); loads that appear at the cut (L1–L3); catch-ups
//! (C5); documents that are made anew after a refusal (R11) or a failure. Nothing else moves `cut`.

use bytes::Bytes;

use super::lines::Ended;
use super::{Author, LoadStatus, Output, Replica, WaitError};
use crate::commit::{EngineKind, LAYOUT, PartBody};
use crate::heap::{Buffered, Index, State};
use crate::id::{GenId, Nonce, Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::mutate::{self, Mutation};
use crate::segment::Segment;
use crate::segment::copy::SegmentCopy;
use crate::segment::engine::EngineError;
use crate::wire::codec::{Malformed, Reader};
use crate::wire::frame::down::{EntryFrame, Welcome};
use crate::wire::frame::restore::RestoredFrame;
use crate::wire::frame::roll::GenerationHeader;
use crate::wire::frame::{PART_CREATE, PART_DELETE, PART_DELTA, PART_OPTIONAL, SegmentState, SegmentStatus};

/// Heads of long messages while their pieces come.
#[derive(Debug)]
pub(super) enum Long {
    Ok(Box<Welcome>),
    Snapshot(Answered),
    Restored(RestoredFrame),
    Roll(Offset, Bytes),
}

/// The head of an answer to a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub nonce: Nonce,
    pub position: Offset,
    /// It goes on from the copy that the load named.
    pub onto_copy: bool,
}

/// What a segment's document is made of besides its snapshot.
pub(super) struct Since<'a> {
    /// What the relay sent with the snapshot.
    pub deltas: &'a [Bytes],
    /// What entries of the stream did to it behind that.
    pub behind: Vec<Buffered>,
    /// The newest entry that is in all this.
    pub last: Offset,
    /// The first delta is what the program had kept (L5). If no document comes of it, that says nothing of the log.
    pub onto_copy: bool,
}

impl Since<'_> {
    /// Everything, in the order of the log.
    fn all(&self) -> impl Iterator<Item = Bytes> {
        self.deltas.iter().chain(self.behind.iter().flat_map(|buffered| &buffered.deltas)).cloned()
    }

    /// The document, with own deltas at its end. R10: of what the relay sent as a state the structure half is judged, of entries both.
    fn document(
        &self,
        state: &SegmentState,
        (engine, generation): (EngineKind, GenId),
        writer: u64,
        own: &[Bytes],
    ) -> Result<Segment, String> {
        let text = |error: EngineError| error.to_string();
        let together = if self.behind.is_empty() { own } else { &[] };
        let deltas: Vec<Bytes> = self.deltas.iter().chain(together).cloned().collect();
        let mut made = Segment::decode(state.id, engine, generation, writer, &state.snapshot, &[]).map_err(text)?;
        made.extend(&deltas).map_err(text)?;
        for Buffered { by, deltas, .. } in &self.behind {
            match by {
                Some(owner) => made.go_on(*owner, deltas).map_err(text)?,
                None => made.extend(deltas).map_err(text)?,
            }
        }
        if !self.behind.is_empty() && !own.is_empty() {
            made.extend(own).map_err(text)?;
        }
        Ok(made)
    }
}

impl Replica {
    /// C4: one entry, one step: every visible segment, every loading one's buffer, then the cut.
    pub(super) fn apply_entry(&mut self, entry: EntryFrame, author: Author) {
        if !self.own_entry(author.replica, &entry) {
            return;
        }
        let frozen = self.is_frozen();
        self.unpack_for(&entry);
        let mut by_segment: Vec<(SegmentId, Vec<Bytes>)> = Vec::new();
        let (mut stopped, mut other) = (Vec::new(), Vec::new());
        for part in &entry.parts {
            let Some(id) = self.resolve(part.segment) else { continue };
            let known = part.create.is_none_or(|(_, layout)| layout == LAYOUT);
            match part.kind {
                PART_DELTA | PART_CREATE if known => {}
                PART_OPTIONAL.. => continue,
                PART_DELETE => {
                    stopped.push((id, LoadStatus::Deleted, String::new()));
                    continue;
                }
                kind => {
                    let why = match part.create {
                        Some((_, layout)) => format!("this version does not know layout {layout}"),
                        None => format!("this version does not know parts of kind {kind}"),
                    };
                    stopped.push((id, LoadStatus::Quarantined, why));
                    continue;
                }
            }
            // What was taken for an empty one of another engine until somebody made it.
            if let (Some((engine, _)), Some((_, slot))) = (part.create, self.heap.by_id_mut(id))
                && matches!(&slot.state, State::Live(segment) if segment.engine() != engine)
            {
                other.push((id, None));
                continue;
            }
            // C4: never a delta of another generation.
            let slot = self.heap.index(id).and_then(|index| self.heap.slot(index));
            if let Some(State::Live(document)) = slot.map(|slot| &slot.state)
                && !frozen
                && document.generation() != part.generation
            {
                other.push((id, Some("it is of another generation")));
                continue;
            }
            match by_segment.iter_mut().find(|(other, _)| *other == id) {
                Some((_, deltas)) => deltas.push(part.bytes),
                None => by_segment.push((id, vec![part.bytes])),
            }
        }
        if mutate::on(Mutation::ApplyOneSegment) {
            by_segment.truncate(1);
        }
        if mutate::on(Mutation::LoseDelta) && entry.offset.0 % 16 == 15 {
            by_segment.clear();
        }
        let (mut shown, mut failed, mut kept, mut queued) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let witness = self.witness;
        for (id, deltas) in by_segment {
            let Some((index, slot)) = self.heap.by_id_mut(id) else { continue };
            match &mut slot.state {
                State::Away => {}
                State::Loading { buffer, before, .. } => {
                    // What is shown meanwhile goes on with the rest of the commit (P3). If it cannot, it is on its way out.
                    witness(Some(index));
                    let goes_on = !frozen && !mutate::on(Mutation::LoadingStandsStill);
                    if let Some(Ok(patches)) =
                        before.as_deref_mut().filter(|_| goes_on).map(|before| apply(before, author.replica, &deltas))
                    {
                        if !patches.is_empty() {
                            shown.push((index, patches));
                        }
                        kept.push((index, deltas.clone()));
                    }
                    witness(None);
                    buffer.push(Buffered { at: entry.offset, by: Some(author.replica), deltas });
                }
                // D2: the verdict that is waited for has it.
                State::Live(_) | State::Packed(_) if frozen => {}
                // L6: it counts as visible, and is there for who looks.
                State::Packed(packed) => {
                    self.stats.deltas_in += deltas.len() as u64;
                    packed.push(entry.offset, author.replica, deltas.clone());
                    queued.push((index, deltas));
                }
                State::Live(segment) => {
                    self.stats.deltas_in += deltas.len() as u64;
                    witness(Some(index));
                    match apply(segment, author.replica, &deltas) {
                        Ok(patches) => {
                            if !patches.is_empty() {
                                shown.push((index, patches));
                            }
                            kept.push((index, deltas));
                            slot.failures = 0;
                        }
                        Err(error) => failed.push((id, error)),
                    }
                    witness(None);
                }
            }
        }
        if entry.yours && !entry.void {
            self.buffer_own(author.replica, entry.seq, entry.offset);
        }
        if !frozen {
            self.cut = self.cut.max(entry.offset.next());
            if mutate::on(Mutation::CutAhead) {
                self.cut = self.cut.next();
            }
        }
        for (index, deltas) in kept {
            self.keep_applied(index, &deltas);
        }
        for (index, deltas) in queued {
            self.keep_queued(index, entry.offset, author.replica, &deltas);
            self.check_queue(index);
        }
        if !shown.is_empty() {
            let label = entry.label.unwrap_or_default();
            let touched: Vec<Index> = shown.iter().map(|(index, _)| *index).collect();
            while mutate::on(Mutation::TellBySegment) && shown.len() > 1 {
                let (author, label, segments) = (author.clone(), label.clone(), shown.drain(..1).collect());
                self.out.push_back(Output::Apply { offset: entry.offset, author, label, segments });
            }
            self.out.push_back(Output::Apply { offset: entry.offset, author, label, segments: shown });
            for index in touched {
                self.tell_overruled(index);
            }
        }
        for (id, why) in other {
            if let Some(why) = why {
                self.problem("ERR_ENGINE", format!("a delta of segment {id} is not applied: {why}"));
            }
            self.reload(id, false);
        }
        // R12: each by itself; the rest of the commit is shown.
        for (id, error) in failed {
            self.quarantine(id, entry.offset, &error);
        }
        if stopped.is_empty() {
            return;
        }
        for (id, status, why) in stopped {
            if let Some((_, slot)) = self.heap.by_id_mut(id) {
                // The relay's state of it need not say what it is that is not known here.
                slot.stopped |= status == LoadStatus::Quarantined;
            }
            self.stop(id, status, &why);
        }
        self.send_pending();
    }

    /// A segment that was deleted or quarantined, or of which this version does not know a part (`WIRE.md` §4), is here no
    /// longer. The rest of the heap goes on.
    pub(super) fn stop(&mut self, id: SegmentId, status: LoadStatus, why: &str) {
        let Some((index, slot)) = self.heap.by_id_mut(id) else { return };
        if matches!(std::mem::replace(&mut slot.state, State::Away), State::Away) {
            return;
        }
        self.unfollow(id);
        if status == LoadStatus::Quarantined {
            self.stats.quarantined += 1;
            self.problem("ERR_QUARANTINED", format!("segment {id} is not shown any more: {why}"));
        }
        self.absent(index, status);
        self.ask_for_the_declined();
    }

    pub(super) fn absent(&mut self, index: Index, status: LoadStatus) {
        self.out.push_back(Output::Loaded { segment: index, status, bytes: 0, reset: false, patches: Vec::new() });
    }

    /// An own commit has its place in the log, and its Ack may come before the state that a segment of it waits for.
    fn buffer_own(&mut self, owner: ReplicaId, seq: Seq, offset: Offset) {
        let Some(own) = self.pending.find(owner, seq) else { return };
        for part in &own.commit.parts {
            let Some((_, slot)) = self.heap.by_id_mut(part.segment) else { continue };
            if let (State::Loading { buffer, .. }, Some(delta)) = (&mut slot.state, part.body.delta()) {
                buffer.push(Buffered { at: offset, by: Some(owner), deltas: vec![delta.clone()] });
            }
        }
    }

    /// L2, L3: the newest answer; snapshot, then what was buffered behind it, then own pending parts; then visible.
    pub(super) fn loaded(
        &mut self,
        Answered { nonce, position, onto_copy }: Answered,
        bulk: &Bytes,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(bulk);
        let state = SegmentState::decode(bulk, &mut reader)?;
        reader.end()?;
        let Some((index, slot)) = self.heap.by_id_mut(state.id) else { return Ok(()) };
        let derived = slot.derived;
        if state.status == SegmentStatus::Alive && !crate::segment::is_built_in(state.engine) {
            return self.needs_full(index, nonce);
        }
        let copy = match &mut slot.state {
            State::Loading { nonce: Some(newest), copy, .. } if *newest == nonce || mutate::on(Mutation::AnyNonce) => {
                copy.take()
            }
            _ => return Ok(()),
        };
        let mut deltas = state.deltas.to_vec();
        if onto_copy {
            let fits = |copy: &SegmentCopy| {
                let alike = (copy.engine, copy.generation) == (state.engine, state.generation);
                alike && copy.position <= position && state.status == SegmentStatus::Alive && state.snapshot.is_empty()
            };
            let copy = copy.filter(|copy| fits(copy)).ok_or(Malformed::Field("an answer onto another copy"))?;
            deltas.insert(0, copy.state);
        }
        self.is_followed_again(state.id);
        if let Some(layout) = unknown_layout(&state) {
            self.stop(state.id, LoadStatus::Quarantined, &layout);
            self.send_pending();
            return Ok(());
        }
        let Some(slot) = self.heap.slot_mut(index) else { return Ok(()) };
        let State::Loading { buffer, before, redo, .. } = std::mem::replace(&mut slot.state, State::Away) else {
            return Ok(());
        };
        slot.thawing = false;
        let absent = match state.status {
            SegmentStatus::Alive => None,
            // An own new segment that the relay has not admitted yet is an empty one, as a derived one is.
            SegmentStatus::Unknown if derived || before.is_some() => None,
            SegmentStatus::Unknown => Some(LoadStatus::Missing),
            SegmentStatus::Deleted => Some(LoadStatus::Deleted),
            SegmentStatus::Quarantined => Some(LoadStatus::Quarantined),
        };
        if let Some(status) = absent {
            slot.known = None;
            self.stats.quarantined += u64::from(status == LoadStatus::Quarantined);
            self.unfollow(state.id);
            self.absent(index, status);
            self.send_pending();
            return Ok(());
        }
        let last = buffer.last().map_or(Offset(0), |buffered| buffered.at);
        let last = last.max(Offset(position.0.saturating_sub(1)));
        let before = before.or_else(|| slot.known.take());
        let mut behind = buffer;
        behind.retain(|buffered| buffered.at >= position && !mutate::on(Mutation::LoadWithoutBuffer));
        self.install(index, &state, &Since { deltas: &deltas, behind, last, onto_copy }, before, redo);
        self.send_pending();
        Ok(())
    }

    /// The segment waits for a module that has its engine, and hears nothing until then.
    fn needs_full(&mut self, index: Index, answered: Nonce) -> Result<(), Malformed> {
        let Some(slot) = self.heap.slot_mut(index) else { return Ok(()) };
        let id = slot.id;
        match &mut slot.state {
            State::Loading { nonce, buffer, .. } if *nonce == Some(answered) => {
                *nonce = None;
                buffer.clear();
            }
            _ => return Ok(()),
        }
        self.unfollow(id);
        self.out.push_back(Output::NeedsFull(index));
        Ok(())
    }

    /// C5: all segments of a catch-up become visible in one step. `alone`: this process was never connected, and the log has
    /// nothing of its lines. What is here it made itself, and what the relay does not know of it is as it is; what the relay
    /// does know came by a copy of this process, or by one that had its store.
    pub(super) fn catch_up(&mut self, position: Offset, bulk: &Bytes, alone: bool) -> Result<(), Malformed> {
        let left_out = alone && !self.heap.is_undoing();
        let states = SegmentState::decode_list(bulk)?;
        let states = states.iter().filter(|state| !left_out || state.status != SegmentStatus::Unknown);
        self.catch_up_with(position, states);
        Ok(())
    }

    /// The same, of a catch-up or of a verdict (D2).
    pub(super) fn catch_up_with(&mut self, position: Offset, states: impl IntoIterator<Item = SegmentState>) {
        for state in states {
            self.unpack_id(state.id);
            let Some((index, slot)) = self.heap.by_id_mut(state.id) else { continue };
            if state.status == SegmentStatus::Alive && !crate::segment::is_built_in(state.engine) {
                // It is asked for behind this, and the answer says what it needs.
                let (before, redo) = match std::mem::replace(&mut slot.state, State::Away) {
                    State::Live(before) => (Some(before), false),
                    State::Loading { before, redo, .. } => (before, redo),
                    State::Away | State::Packed(_) => continue,
                };
                slot.state = State::Loading { nonce: None, buffer: Vec::new(), before, redo, copy: None };
                self.reloading.push(index);
                continue;
            }
            if let Some(slot) = slot.peek() {
                let stopped = match state.status {
                    SegmentStatus::Deleted => Some((LoadStatus::Deleted, String::new())),
                    SegmentStatus::Alive => unknown_layout(&state).map(|layout| (LoadStatus::Quarantined, layout)),
                    SegmentStatus::Quarantined => Some((LoadStatus::Quarantined, "the relay quarantined it".into())),
                    SegmentStatus::Unknown => None,
                };
                let id = slot.id();
                if let Some((status, why)) = stopped {
                    self.stop(id, status, &why);
                    continue;
                }
            }
            let (before, redo) = match std::mem::replace(&mut slot.state, State::Away) {
                State::Live(before) => (before, false),
                State::Loading { before: Some(before), redo, .. } => (before, redo),
                // What the program does not see is asked for after this, or not wanted any more.
                other => {
                    slot.state = other;
                    continue;
                }
            };
            let deltas = state.deltas.to_vec();
            let last = Offset(position.0.saturating_sub(1));
            let since = Since { deltas: &deltas, behind: Vec::new(), last, onto_copy: false };
            self.install(index, &state, &since, Some(before), redo);
        }
        self.cut = position;
    }

    /// Makes a document of what the relay sent and of own pending parts, and shows it. Parts of another generation are dealt with
    /// first (G3).
    pub(super) fn install(
        &mut self,
        index: Index,
        state: &SegmentState,
        since: &Since<'_>,
        mut before: Option<Box<Segment>>,
        mut redo: bool,
    ) {
        let writer = self.entropy.writer();
        let reset = before.is_some();
        // The relay cannot know what an own segment is that it has not admitted yet.
        let (engine, generation) = match &before {
            Some(before) if state.status == SegmentStatus::Unknown => {
                (before.engine(), before.engine().generation_zero())
            }
            _ => (state.engine, state.generation),
        };
        let header = match generation.is_zero() {
            true => Ok(None),
            false => GenerationHeader::decode(&state.header).map(Some),
        };
        redo |= matches!(&header, Ok(header) if self.switch(state.id, generation, header.as_ref()));
        // All in one: a document that showed itself in between would give handles that no mirror hears of.
        let mut own: Vec<Bytes> = self.own_deltas(state.id).collect();
        let witness = self.witness;
        witness(Some(index));
        let header = header.err().map(|error| error.to_string());
        let mut make = |own: &[Bytes]| -> Result<Box<Segment>, String> {
            header.clone().map_or(Ok(()), Err)?;
            let made = since.document(state, (engine, generation), writer, own)?;
            Ok(match before.take() {
                Some(mut segment) => {
                    segment.take_over(made);
                    segment
                }
                None => Box::new(made),
            })
        };
        let mut made = make(&own);
        if made.is_err() && !since.onto_copy && self.pending.has_counting(state.id) {
            // R12: own parts that build on what the relay left out meanwhile. What of it is in the log after all, F3 finds.
            made = make(&[]);
            if made.is_ok() {
                self.pending.spoil_all(state.id);
                own.clear();
                redo = true;
            }
        }
        let mut segment = match made {
            Ok(segment) => segment,
            Err(error) if since.onto_copy => {
                witness(None);
                self.tell_useless(state.id, &error);
                return self.wait_for(index, before, redo, None);
            }
            Err(error) => {
                witness(None);
                return self.quarantine_with(index, before, since.last, &error);
            }
        };
        segment.set_unborn(state.status == SegmentStatus::Unknown);
        segment.set_header(state.header.clone());
        let redone = if redo { self.redo_into(&mut segment) } else { Vec::new() };
        if let Some(slot) = self.heap.slot_mut(index) {
            slot.state = State::Live(segment);
        }
        self.show(index, reset);
        witness(None);
        let deltas: Vec<Bytes> = since.all().chain(own).chain(redone).collect();
        self.keep_made(index, &state.snapshot, &deltas);
    }

    /// Own unacknowledged deltas that count as they were sent: the log will hold these bytes, so the document has to. What the
    /// log has already is there twice then, which changes nothing.
    fn own_deltas(&self, id: SegmentId) -> impl Iterator<Item = Bytes> {
        let counting = self.pending.iter().filter(|one| !one.outdone && !mutate::on(Mutation::LoadWithoutOwn));
        counting
            .flat_map(|one| one.commit.parts.iter().zip(&one.stale))
            .filter(move |(part, stale)| part.segment == id && (!**stale || mutate::on(Mutation::RedoBeside)))
            .filter_map(|(part, _)| part.body.delta().cloned())
    }

    /// The one redo from edits (G3, F2, R11): stale parts of own commits are made anew on this document, uids unchanged. One
    /// that was to create the segment may have gone: whichever is the first in the log does it. Gives the new deltas.
    fn redo_into(&mut self, segment: &mut Segment) -> Vec<Bytes> {
        let mut deltas = Vec::new();
        let id = segment.id();
        let (engine, unborn) = (segment.engine(), segment.is_unborn());
        let mut writes_for = None;
        for one in self.pending.iter_mut() {
            let owner = one.commit.owner;
            for ((part, edits), stale) in one.commit.parts.iter_mut().zip(&one.edits).zip(&mut one.stale) {
                if part.segment != id || one.outdone || !std::mem::take(stale) {
                    continue;
                }
                one.told = false;
                // An engine identity belongs to one id (R10).
                let shared = writes_for.replace(owner).is_some_and(|other| other != owner);
                let renewed = if shared { segment.redo_as(self.entropy.writer()) } else { Ok(()) };
                let Ok(delta) = renewed.and_then(|()| segment.redo(edits, one.commit.uid)) else { continue };
                deltas.push(delta.clone());
                if !mutate::on(Mutation::RedoNamesOld) {
                    part.generation = segment.generation();
                }
                match &mut part.body {
                    body @ PartBody::Delta(_) if unborn => *body = PartBody::Create { engine, layout: LAYOUT, delta },
                    PartBody::Delta(old) => *old = delta,
                    PartBody::Create { engine: of, delta: old, .. } => (*of, *old) = (engine, delta),
                    PartBody::Delete | PartBody::Opaque { .. } => {}
                }
            }
        }
        if writes_for.is_some_and(|owner| owner != self.id)
            && let Err(error) = segment.redo_as(self.entropy.writer())
        {
            self.problem("ERR_ENGINE", format!("a document cannot go on under another identity: {error}"));
        }
        self.pending.recount();
        deltas
    }

    pub(super) fn show(&mut self, index: Index, reset: bool) {
        let Some(slot) = self.heap.slot_mut(index) else { return };
        let State::Live(segment) = &mut slot.state else { return };
        let patches = segment.show();
        segment.check_creations();
        let bytes = segment.size();
        self.out.push_back(Output::Loaded { segment: index, status: LoadStatus::There, bytes, reset, patches });
        self.tell_overruled(index);
    }

    /// S2: what this replica made and another kind won over, once its mirror shows that.
    pub(super) fn tell_overruled(&mut self, index: Index) {
        let Some(document) = self.heap.slot_mut(index).and_then(|slot| slot.document()) else { return };
        for overruled in document.take_overruled() {
            self.out.push_back(Output::Overruled(index, overruled));
        }
    }

    /// An own commit was undone: what it made is not lost to anybody.
    pub(super) fn forget_creations(&mut self, id: SegmentId, uid: Uid) {
        if let Some((index, slot)) = self.heap.by_id_mut(id)
            && let Some(document) = slot.document()
        {
            document.undone(uid);
            self.keep_undone(index, uid);
        }
    }

    /// R11: the commit is undone: its segments are made anew without it, and what lies behind it is redone.
    pub(super) fn refused(&mut self, owner: ReplicaId, seq: Seq, uid: Uid, code: u64) {
        let Some(refused) = self.pending.refused(owner, seq, uid) else { return };
        self.stats.refused += 1;
        let of = Some(owner).filter(|owner| *owner != self.id);
        self.lines.ended(Ended { of, seq, uid, hash: 0 });
        if owner == self.id && self.last_uid == uid {
            self.last_uid = uid.voided();
        }
        self.fail_flushes(refused.number, WaitError::Refused(code));
        let mut segments = Vec::new();
        for part in &refused.commit.parts {
            segments.extend(self.heap.index(part.segment));
        }
        let label = refused.commit.label.clone().unwrap_or_default();
        self.out.push_back(Output::Refused { seq: refused.number, code, label, segments });
        for part in &refused.commit.parts {
            self.forget_creations(part.segment, uid);
            if !mutate::on(Mutation::KeepRefused) {
                self.reload(part.segment, true);
            }
        }
        self.send_pending();
    }
}

/// The layout of a state's document, if this version cannot read it.
pub(super) fn unknown_layout(state: &SegmentState) -> Option<String> {
    let unknown = state.status == SegmentStatus::Alive && state.layout != LAYOUT;
    unknown.then(|| format!("this version does not know layout {}", state.layout))
}

/// C4: what the commit of this owner does to a segment. Nothing reaches an engine that the guard has not passed (R10).
fn apply(segment: &mut Segment, owner: ReplicaId, deltas: &[Bytes]) -> Result<Vec<crate::edit::Patch>, String> {
    let patches = segment.apply_commit(owner, deltas).map_err(|e| e.to_string())?;
    segment.set_unborn(false);
    Ok(patches)
}
