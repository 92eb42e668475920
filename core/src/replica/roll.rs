//! A segment goes over to another generation (CORE-PROTOCOL G3): by a Roll of the stream, or because a catch-up, a load or a
//! verdict has another one. One step, with the cut: own writes stay visible, and count once.
//!
//! ```text
//!   a pending commit has a part of the old generation
//!     its line's row in the header reaches it, and it was not refused ──► it is in the new document: the part goes, the
//!                                                                         commit stays until it is acknowledged [X25]
//!     else ──► it was not admitted, and never can be as it is: the part is made anew from its edits, number and uid stay
//! ```
//!
//! A generation that came back by another replica after its log was lost has only that one's lines and those that the relay still
//! had (D4): of an own commit that was sent and is not among them nobody can say whether it is in the document. It is in doubt, as
//! one of a line that the relay no longer knows (G5): told, and not made again.
//!
//! From the first commit that was made anew on, everything is sent again (C7), after it was told outside (C8). A Rebase alone
//! changes nothing: it says that a Roll is on its way [X5].

use bytes::Bytes;

use super::cut::{Since, unknown_layout};
use super::pending::Unsaved;
use super::{LoadStatus, Replica};
use crate::commit::Part;
use crate::heap::State;
use crate::id::{GenId, Offset, SegmentId};
use crate::mutate::{self, Mutation};
use crate::wire::codec::{Malformed, Reader};
use crate::wire::frame::SegmentState;
use crate::wire::frame::roll::GenerationHeader;

impl Replica {
    /// A Roll is whole. What it brings is all that lies below it, so a load that is under way ends with it, too.
    pub(super) fn rolled(&mut self, offset: Offset, header: Bytes, bulk: &Bytes) -> Result<(), Malformed> {
        let mut reader = Reader::new(bulk);
        let state = SegmentState { header, ..SegmentState::decode(bulk, &mut reader)? };
        reader.end()?;
        if GenerationHeader::decode(&state.header)?.generation != state.generation {
            return Err(Malformed::Field("generation"));
        }
        // D2: the verdict that is waited for has it.
        if self.is_frozen() {
            return Ok(());
        }
        self.switch_to(&state, &[], offset);
        self.cut = self.cut.max(offset.next());
        self.send_pending();
        Ok(())
    }

    /// The segment, if it is here or asked for, has this document from now on. `last`: the newest entry that is in it. One that
    /// the engine could not take in, and that the relay was to look at, is to be had again (R12): nothing of that is left.
    pub(super) fn switch_to(&mut self, state: &SegmentState, deltas: &[Bytes], last: Offset) {
        if self.was_given_up(state.id) {
            return self.ask_behind(state.id);
        }
        self.unpack_id(state.id);
        let Some((index, slot)) = self.heap.by_id_mut(state.id) else { return };
        if let Some(layout) = unknown_layout(state) {
            return self.stop(state.id, LoadStatus::Quarantined, &layout);
        }
        let before = match std::mem::replace(&mut slot.state, State::Away) {
            State::Live(before) => Some(before),
            State::Loading { before, .. } => before.or_else(|| slot.known.take()),
            State::Away | State::Packed(_) => match slot.broken.take() {
                Some(broken) => broken.before,
                None => return,
            },
        };
        (slot.stopped, slot.thawing, slot.failures) = (false, false, 0);
        self.install(index, state, &Since { deltas, behind: Vec::new(), last, onto_copy: false }, before, true);
        self.send_reports();
    }

    /// L3: a generation has come of a segment that was given up and is loading again. The relay may have sent it before it was told
    /// either, and then sends nothing of the segment until it meets the load: the document would miss that. The answer to the load
    /// may be of the old generation. One that is asked for from here on is neither.
    fn ask_behind(&mut self, id: SegmentId) {
        let slot = self.heap.index(id).and_then(|index| self.heap.slot(index));
        if !slot.is_some_and(|slot| matches!(slot.state, State::Loading { nonce: Some(_), .. })) {
            return;
        }
        let asked = self.ask(id);
        if let Some((_, slot)) = self.heap.by_id_mut(id)
            && let State::Loading { nonce, .. } = &mut slot.state
        {
            *nonce = asked;
        }
    }

    /// G3 for the commits that are not acknowledged. True: some have to be made anew in the document that takes the place.
    pub(super) fn switch(&mut self, id: SegmentId, generation: GenId, header: Option<&GenerationHeader>) -> bool {
        let lines = &self.lines;
        // What first went out in this life of the log was in no log that is lost.
        let life = self.epochs.last().map(|(epoch, _)| *epoch);
        let doubtful = |one: &&Unsaved| {
            let (is_old, commit) = (|part: &Part| part.segment == id && part.generation != generation, &one.commit);
            let known = header.is_none_or(|header| !header.is_in_doubt(commit.owner, commit.seq));
            let in_log = one.settled || one.outdone || lines.is_settled(commit.owner, commit.seq);
            one.offered
                && (one.offered_in.is_none() || one.offered_in != life)
                && !known
                && !in_log
                && commit.parts.iter().any(is_old)
        };
        let doubtful = self.pending.iter().filter(doubtful).map(|one| (one.commit.owner, one.commit.seq));
        self.doubtful.extend(doubtful);
        let own = header.is_some_and(|header| !header.partial);
        self.pending.switch(id, generation, own, |Unsaved { commit, settled, .. }| {
            let in_base = header.is_some_and(|header| header.includes(commit.owner, commit.seq, commit.uid))
                && !mutate::on(Mutation::RedoIncluded);
            // What the log has byte for byte as it is here is never made anew. X34: nor what it has so far back that the ring does
            // not name it any more.
            in_base || *settled || lines.is_settled(commit.owner, commit.seq)
        })
    }
}
