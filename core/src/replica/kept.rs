//! What is evicted, and what may be kept of it for a later load (CORE-PROTOCOL L4, L5).
//!
//! ```text
//!   here ──EvictKeeping──► Copied(bytes), Evicted          the program keeps the bytes where it likes, for as long as it likes
//!   LoadFrom(bytes) ──► Load{have: epoch, position, gen}   in this process or another, any number of times
//!     ◄── Snapshot, onto the copy: what came since         the copy and that are the document
//!     ◄── Snapshot, whole                                  the copy is dropped
//! ```
//!
//! A copy is a cache and nothing else: nothing is lost with it, and whether it is a beginning of what the log has, only the relay
//! says, each time. For embedders of this crate, and for stores of clients; the package for JavaScript keeps none.

use bytes::Bytes;

use super::{Output, Replica};
use crate::heap::{Index, State};
use crate::id::SegmentId;
use crate::mutate::{self, Mutation};
use crate::segment::copy::SegmentCopy;

impl Replica {
    /// L4. Without own pending commits, a document at the cut has what the log has below the cut, and nothing else: that, and no later
    /// position, is what a copy of it says (C6, [X26]).
    pub(super) fn evict(&mut self, index: Index, keep: bool) {
        if keep {
            self.unpack(index);
        }
        let Some(slot) = self.heap.slot_mut(index) else { return };
        let id = slot.id;
        let touched = self.pending.touches(id);
        let document = match &slot.state {
            State::Live(document) => Some(document),
            State::Packed(_) => None,
            State::Away | State::Loading { .. } => return,
        };
        if touched && !mutate::on(Mutation::EvictPending) || self.restoring {
            return;
        }
        let epoch = self.epochs.last().filter(|_| keep && !touched);
        let copy = epoch.zip(document).and_then(|((epoch, _), document)| SegmentCopy::of(document, *epoch, self.cut));
        slot.state = State::Away;
        if let Some(copy) = copy {
            self.out.push_back(Output::Copied(index, copy.encode().into()));
        }
        self.unfollow(id);
        self.out.push_back(Output::Evicted(index));
        self.ask_for_the_declined();
    }

    /// L5: the program needs a segment, and has kept this of it. Bytes that are no copy of it are told, and all of it is asked for.
    pub(super) fn load_from(&mut self, id: SegmentId, derived: bool, kept: &Bytes) {
        let (why, copy) = match SegmentCopy::decode(kept) {
            Ok(copy) if copy.id != id => (Some("it is of another segment".to_owned()), None),
            Ok(copy) if !crate::segment::is_built_in(copy.engine) => (None, None),
            Ok(copy) => (None, Some(Box::new(copy))),
            Err(error) => (Some(error.to_string()), None),
        };
        if let Some(why) = why {
            self.tell_useless(id, &why);
        }
        let slot = self.heap.index(id).and_then(|index| self.heap.slot(index));
        let is_away = slot.is_none_or(|slot| matches!(slot.state, State::Away) && !slot.stopped);
        if copy.is_none() || !is_away || !self.has_room_for(1) {
            return self.load(&[(id, derived)]);
        }
        let (index, new) = self.heap.enter(id, derived);
        if new {
            self.out.push_back(Output::Indexed { segment: id, index });
        }
        self.wait_for(index, None, false, copy);
    }

    /// What the program kept is not what it was given.
    pub(super) fn tell_useless(&mut self, id: SegmentId, why: &str) {
        self.problem("ERR_CORRUPT", format!("what was kept of segment {id} is of no use: {why}"));
    }
}
