//! What a program asks for, and how it is asked of the relay: again on every connection, under a new nonce (L2, C3). What comes of the
//! answer is `cut.rs`'s; what is evicted, and kept for a later load, `kept.rs`'s.

use std::collections::BTreeSet;

use super::{LoadStatus, Output, Replica};
use crate::heap::{Index, State};
use crate::id::SegmentId;
use crate::limits;
use crate::segment::Segment;
use crate::segment::copy::SegmentCopy;

impl Replica {
    /// The program needs these segments.
    pub(super) fn load(&mut self, segments: &[(SegmentId, bool)]) {
        let away = |id: &SegmentId| {
            let slot = self.heap.index(*id).and_then(|index| self.heap.slot(index));
            slot.is_none_or(|slot| matches!(slot.state, State::Away))
        };
        let more: BTreeSet<SegmentId> = segments.iter().map(|(id, _)| *id).filter(away).collect();
        if !more.is_empty() && !self.has_room_for(more.len()) {
            return self
                .error("ERR_OVER_BUDGET", format!("at most {} segments can be here", limits::FOLLOWS_MAX_REPLICA));
        }
        for (id, derived) in segments {
            let (index, new) = self.heap.enter(*id, *derived);
            if new {
                self.out.push_back(Output::Indexed { segment: *id, index });
            }
            let Some(slot) = self.heap.slot(index) else { continue };
            match &slot.state {
                State::Loading { .. } => {}
                State::Packed(packed) => {
                    let mirrored = packed.mirrored;
                    self.unpack(index);
                    if mirrored {
                        self.show(index, true);
                    }
                }
                State::Live(_) => {
                    // The mirror of somebody who forgot: it gets everything again.
                    self.show(index, true);
                }
                State::Away if slot.stopped => {
                    self.stats.quarantined += 1;
                    self.absent(index, LoadStatus::Quarantined);
                }
                State::Away => self.wait_for(index, None, false, None),
            }
        }
    }

    /// From here on it waits for an answer of the relay, and for what comes behind that.
    pub(super) fn wait_for(
        &mut self,
        index: Index,
        before: Option<Box<Segment>>,
        redo: bool,
        copy: Option<Box<SegmentCopy>>,
    ) {
        let Some(slot) = self.heap.slot_mut(index) else { return };
        let id = slot.id;
        slot.state = State::Loading { nonce: None, buffer: Vec::new(), before, redo, copy };
        let asked = self.ask(id);
        if let Some(State::Loading { nonce, .. }) = self.heap.slot_mut(index).map(|slot| &mut slot.state) {
            *nonce = asked;
        }
        if redo {
            self.heap.undo(index);
        }
    }

    /// Loads a resident segment anew; what it shows stays until then, and is still followed. `redo`: own commits that `pending`
    /// calls stale are made anew.
    pub(super) fn reload(&mut self, id: SegmentId, redo: bool) {
        let Some((index, slot)) = self.heap.by_id_mut(id) else { return };
        let (before, redo) = match std::mem::replace(&mut slot.state, State::Away) {
            State::Live(segment) => (Some(segment), redo),
            State::Loading { before, redo: already, .. } => (before, already || redo),
            // What is queued may be why. No own commit has to be made anew in it, and nobody has a mirror of it.
            State::Packed(packed) if !packed.mirrored => (None, redo),
            packed @ State::Packed(_) => {
                slot.state = packed;
                self.unpack(index);
                return self.reload(id, redo);
            }
            State::Away => return,
        };
        self.stats.rebuilds += 1;
        if !self.reloading.contains(&index) {
            self.reloading.push(index);
        }
        self.wait_for(index, before, redo, None);
    }

    /// A new connection: every load under way is asked again, with a new nonce.
    pub(super) fn ask_for_the_missing(&mut self) {
        let missing: Vec<(Index, SegmentId)> = self
            .heap
            .iter()
            .filter(|(_, slot)| matches!(slot.state, State::Loading { nonce: None, .. }))
            .map(|(index, slot)| (index, slot.id))
            .collect();
        for (index, id) in missing {
            let asked = self.ask(id);
            if let Some(State::Loading { nonce, .. }) = self.heap.slot_mut(index).map(|slot| &mut slot.state) {
                *nonce = asked;
            }
        }
    }
}
