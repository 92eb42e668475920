//! C1: a commit of the program takes effect here and enters `pending` in one step, or nothing of it does. Its size is known when
//! the engines have written it; one that may turn out too large leaves a copy of each document that it touches.

use super::pending::Unsaved;
use super::{Output, Replica, Section, Target};
use crate::commit::{Commit, EngineKind, LAYOUT, Part, PartBody};
use crate::edit::{Literal, Wish};
use crate::heap::{Index, State};
use crate::id::{SegmentId, Uid};
use crate::limits;
use crate::segment::{Kept, Segment, is_built_in};

/// Why a commit was not made: code and text of its `Error`.
type Refusal = (&'static str, String);

/// About how many bytes an engine writes for an edit, a container, a scalar or a removed element beside what the program wrote.
/// Measured: up to a few times this, so it is compared with a fraction of the limit.
const PIECE_BYTES: usize = 64;

/// How a segment that a commit touched was before it.
enum Was {
    /// A document; without a copy of it the relay has to send it again.
    Here(Option<Kept>),
    /// No document: this commit makes it.
    New(State),
}

impl Replica {
    /// C1: a commit takes effect here and enters `pending` in one step.
    pub(super) fn commit(&mut self, label: String, sections: Vec<Section>, size: usize, entropy: u64) {
        self.entropy.stir([entropy; 4]);
        if let Err((code, message)) = self.may_commit(&sections, size) {
            return self.error(code, message);
        }
        let keep = weight(&sections, size) > limits::COMMIT_BYTES_MAX / 4;
        let uid = self.entropy.uid();
        let claim = sections.iter().find_map(|section| section.claim.clone());
        let (mut parts, mut edits, mut corrections) = (Vec::new(), Vec::new(), Vec::new());
        let (mut touched, mut refusal) = (Vec::new(), None);
        for section in sections {
            match self.edit_section(section, uid, keep, &mut touched) {
                Ok(Some((part, edited, corrected))) => {
                    parts.push(part);
                    edits.push(edited);
                    corrections.extend(corrected);
                }
                Ok(None) => {}
                Err(message) => {
                    refusal = Some(("ERR_ENGINE", format!("the commit was not made: {message}")));
                    break;
                }
            }
        }
        let bytes: usize = parts.iter().filter_map(|part| part.body.delta()).map(bytes::Bytes::len).sum();
        if refusal.is_none() && bytes > limits::COMMIT_BYTES_MAX {
            let limit = limits::COMMIT_BYTES_MAX;
            refusal = Some(("ERR_TOO_LARGE", format!("the commit has {bytes} bytes encoded; the limit is {limit}")));
        }
        if refusal.is_none() && parts.is_empty() {
            refusal = Some(("ERR_ENGINE", "a commit needs a part".into()));
        }
        if let Some((code, message)) = refusal {
            self.take_back(touched, uid);
            return self.error(code, message);
        }
        let prev = self.last_uid;
        self.seq = self.seq.next();
        self.last_uid = uid;
        self.stats.commits += 1;
        self.stats.deltas_out += parts.len() as u64;
        let label = if label.is_empty() { None } else { Some(label) };
        let commit =
            Commit { owner: self.id, seq: self.seq, uid, prev, after: self.comes_after(), claim, label, parts };
        // It was made on a document that is on its way out.
        let anew = |part: &Part| {
            let slot = self.heap.index(part.segment).and_then(|index| self.heap.slot(index));
            slot.is_some_and(|slot| matches!(slot.state, State::Loading { redo: true, .. }))
        };
        let stale = commit.parts.iter().map(anew).collect();
        self.number = self.number.next();
        self.pending.push(Unsaved::new(commit, edits, self.number, stale));
        let made_new = touched.iter().filter(|(_, was)| matches!(was, Was::New(_)));
        let created: Vec<Index> = made_new.map(|(index, _)| *index).collect();
        self.keep_edited(&created);
        self.out.push_back(Output::Committed {
            seq: self.number,
            unsaved: self.pending.len(),
            unsaved_bytes: self.pending.bytes(),
            corrections,
        });
        self.send_pending();
    }

    /// What can be said before anything is edited.
    fn may_commit(&mut self, sections: &[Section], size: usize) -> Result<(), Refusal> {
        for section in sections {
            if let Target::Here(index) = section.target {
                self.unpack(index);
            }
        }
        // What a program wrote is within a few dozen bytes per edit of what the engines will make of it; more than this is not
        // even tried.
        let edits: usize = sections.iter().map(|section| section.wishes.len()).sum();
        if size + 48 * edits > limits::COMMIT_BYTES_MAX + limits::COMMIT_BYTES_MAX / 4 {
            return Err(("ERR_TOO_LARGE", format!("the commit has {size} bytes; the limit is 1 MiB")));
        }
        if sections.len() > limits::PARTS_MAX {
            return Err(("ERR_TOO_LARGE", format!("a commit touches at most {} segments", limits::PARTS_MAX)));
        }
        let limit = self.options.max_unsaved;
        if limit > 0 && self.pending.bytes() + size > limit {
            return Err(("ERR_UNSAVED_LIMIT", format!("over {limit} bytes are not acknowledged yet")));
        }
        for section in sections {
            if let Target::Here(index) = section.target
                && let slot = self.heap.slot(index)
                && slot.and_then(|slot| slot.peek()).is_none()
            {
                return Err(match slot.is_some_and(|slot| slot.stopped) {
                    true => ("ERR_QUARANTINED", "a segment of the commit is quarantined".into()),
                    false => ("ERR_NOT_LOADED", "a segment of the commit is not loaded".into()),
                });
            }
        }
        let created = sections.iter().filter(|section| matches!(section.target, Target::New(..))).count();
        if created > 0 && !self.has_room_for(created) {
            return Err(("ERR_OVER_BUDGET", format!("at most {} segments can be here", limits::FOLLOWS_MAX_REPLICA)));
        }
        if let Some((id, engine)) = not_built_in(sections) {
            // The call is repeated when the replica has gone on in a module that has the engine.
            let (index, new) = self.heap.enter(id, false);
            if new {
                self.out.push_back(Output::Indexed { segment: id, index });
            }
            self.out.push_back(Output::NeedsFull(index));
            return Err(("ERR_ENGINE", format!("this module has no engine {engine:?}")));
        }
        Ok(())
    }

    /// Edits one segment. How it was before goes to `touched` before anything changes.
    #[expect(clippy::type_complexity, reason = "the three lists of a commit, one entry each")]
    fn edit_section(
        &mut self,
        section: Section,
        uid: Uid,
        keep: bool,
        touched: &mut Vec<(Index, Was)>,
    ) -> Result<Option<(Part, Vec<crate::edit::Edit>, Option<(Index, Vec<crate::edit::Patch>)>)>, String> {
        let (index, created) = match section.target {
            Target::Here(index) => (index, false),
            Target::New(id, engine) => {
                let (index, was) = self.create(id, engine)?;
                touched.push((index, Was::New(was)));
                (index, true)
            }
        };
        let Some(slot) = self.heap.slot_mut(index) else { return Ok(None) };
        let id = slot.id;
        let Some(document) = slot.document() else { return Ok(None) };
        if !touched.iter().any(|(other, _)| *other == index) {
            touched.push((index, Was::Here(keep.then(|| document.keep()))));
        }
        let edited = document.edit(section.wishes, uid, &mut self.entropy).map_err(|error| error.to_string())?;
        let (delta, engine) = (edited.delta, document.engine());
        let body = if created || document.is_unborn() {
            PartBody::Create { engine, layout: LAYOUT, delta }
        } else {
            PartBody::Delta(delta)
        };
        let part = Part { segment: id, generation: document.generation(), body };
        let corrected = if edited.corrections.is_empty() { None } else { Some((index, edited.corrections)) };
        Ok(Some((part, edited.edits, corrected)))
    }

    /// Nothing of the commit was sent, and nothing of it stays. A document that has no copy is loaded anew.
    fn take_back(&mut self, touched: Vec<(Index, Was)>, uid: Uid) {
        for (index, was) in touched.into_iter().rev() {
            let writer = self.entropy.writer();
            let Some(slot) = self.heap.slot_mut(index) else { continue };
            let id = slot.id;
            match was {
                Was::New(state) => slot.state = state,
                Was::Here(kept) => {
                    let restored = match (kept, slot.document()) {
                        (Some(kept), Some(document)) => document.restore(kept, writer).is_ok(),
                        _ => false,
                    };
                    if !restored {
                        self.forget_creations(id, uid);
                        // Half of it has taken clocks that nobody will ever see: what is written here until then is made anew (C8).
                        self.reload(id, true);
                    }
                }
            }
        }
    }

    /// Whether so many more segments can be here: a relay sends one connection the entries of a bounded number of them, and
    /// all that is here, or asked for, is one of those.
    pub(super) fn has_room_for(&self, more: usize) -> bool {
        if self.heap.indexes() + more <= limits::FOLLOWS_MAX_REPLICA {
            return true;
        }
        let here = self.heap.iter().filter(|(_, slot)| !matches!(slot.state, State::Away)).count();
        here + more <= limits::FOLLOWS_MAX_REPLICA
    }

    /// An empty document for a new segment, and how its slot was.
    fn create(&mut self, id: SegmentId, engine: EngineKind) -> Result<(Index, State), String> {
        let (index, new) = self.heap.enter(id, false);
        if !new && self.heap.slot(index).is_some_and(|slot| slot.generation().is_some()) {
            return Err("that segment exists already".into());
        }
        let writer = self.entropy.writer();
        let segment = Segment::new(id, engine, writer).map_err(|e| e.to_string())?;
        let mut was = State::Away;
        if let Some(slot) = self.heap.slot_mut(index) {
            was = std::mem::replace(&mut slot.state, State::Live(Box::new(segment)));
        }
        self.out.push_back(Output::Indexed { segment: id, index });
        Ok((index, was))
    }
}

/// About what the engines will write for a commit whose wishes have this encoded size, or a quarter of that.
fn weight(sections: &[Section], size: usize) -> usize {
    let pieces: usize = sections.iter().flat_map(|section| &section.wishes).map(pieces_of).sum();
    size + PIECE_BYTES * pieces
}

/// How many things an engine writes for a wish.
fn pieces_of(wish: &Wish) -> usize {
    match wish {
        Wish::Set { value, .. }
        | Wish::Put { value, .. }
        | Wish::Root { value }
        | Wish::Default { value, .. }
        | Wish::Near { value, .. } => 1 + literals_in(value),
        Wish::Insert { values, .. } => 1 + values.iter().map(literals_in).sum::<usize>(),
        Wish::Remove { count, .. } => 1 + *count as usize,
        _ => 1,
    }
}

/// How many literals a literal is, itself included. Depth is bounded where it was read ([`limits::VALUE_DEPTH_MAX`]).
fn literals_in(literal: &Literal) -> usize {
    match literal {
        Literal::Map(entries) => 1 + entries.iter().map(|(_, value)| literals_in(value)).sum::<usize>(),
        Literal::List(values) => 1 + values.iter().map(literals_in).sum::<usize>(),
        Literal::Set(members) => 1 + members.len(),
        Literal::Scalar(_) | Literal::Text(_) | Literal::Counter(_) => 1,
    }
}

/// The first new segment of a commit whose engine this module does not have.
fn not_built_in(sections: &[Section]) -> Option<(SegmentId, EngineKind)> {
    sections.iter().find_map(|section| match section.target {
        Target::New(id, engine) if !is_built_in(engine) => Some((id, engine)),
        _ => None,
    })
}
