//! Segments that are here as bytes (CORE-PROTOCOL L6): a document takes ten times its bytes in memory and more, and most of what
//! is here is neither read nor written for long.
//!
//! ```text
//!            Pack ─── AtRest ──►               an entry's deltas ─► queue ─► more than its bound: decoded, and packed anew
//!   live                         packed
//!            ◄─── Loaded ─── read, written, another generation, a state, a conflict, …
//! ```
//!
//! A packed segment is followed and at the cut: what is queued counts as visible, and is there when it is decoded. Whoever has no
//! mirror of it gets one then (Loaded), at the cut of that moment. One whose mirror stays is decoded to take a delta in, since only
//! the engine knows the patches. What an own commit that is not acknowledged touches is not packed, so nothing is ever made anew in
//! one. Deltas are judged (R10) when they are decoded; what the engine does not take in then is quarantined by its own entry (R12).

use bytes::Bytes;

use super::{Output, Replica};
use crate::heap::{Index, Packed, State};
use crate::id::{Offset, ReplicaId, SegmentId};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::segment::Segment;
use crate::segment::outside::Queue;
use crate::wire::frame::PART_DELTA;
use crate::wire::frame::down::EntryFrame;

impl Replica {
    /// The segment is to be here as bytes from now on. Without `mirrored` the program forgets what it has of it, and loads it when
    /// it wants to read. Nothing happens where it is not decoded, or may not be packed.
    pub(super) fn pack(&mut self, index: Index, mirrored: bool) {
        let restoring = self.restoring;
        let Some(slot) = self.heap.slot_mut(index) else { return };
        let laid = match &mut slot.state {
            State::Packed(packed) => packed.forget_mirror(mirrored || restoring),
            // Nobody sends anything of one that no log knows.
            State::Live(document) if !restoring && !document.is_unborn() => {
                let id = slot.id;
                !self.pending.touches(id) && self.lay_down(index, mirrored)
            }
            _ => false,
        };
        if laid {
            self.out.push_back(Output::AtRest(index));
            self.keep_at_rest(index);
        }
    }

    /// Whether a decoded segment is packed now.
    pub(super) fn lay_down(&mut self, index: Index, mirrored: bool) -> bool {
        let Some(slot) = self.heap.slot_mut(index) else { return false };
        let State::Live(document) = &mut slot.state else { return false };
        let Ok(snapshot) = document.lay_down(mirrored) else { return false };
        if let State::Live(shell) = std::mem::replace(&mut slot.state, State::Away) {
            let packed = Packed { shell: *shell, snapshot, queue: Vec::new(), queued: 0, mirrored };
            slot.state = State::Packed(Box::new(packed));
        }
        true
    }

    /// What was queued for a packed segment in another instance.
    pub(super) fn queue_again(&mut self, index: Index, queue: Queue) {
        if let Some(State::Packed(packed)) = self.heap.slot_mut(index).map(|slot| &mut slot.state) {
            for (at, owner, deltas) in queue {
                packed.push(at, owner, deltas);
            }
        }
    }

    /// The queue of a packed segment is within its bounds, or is one no more: decoded with all that is in it, and packed again.
    pub(super) fn check_queue(&mut self, index: Index) {
        let Some(State::Packed(packed)) = self.heap.slot(index).map(|slot| &slot.state) else { return };
        if packed.queued > limits::PACKED_QUEUE_BYTES_MAX || packed.queue.len() > limits::PACKED_QUEUE_MAX {
            self.pack_anew(index);
        }
    }

    /// As few bytes as it takes, nothing queued.
    pub(super) fn pack_anew(&mut self, index: Index) {
        if let Some(mirrored) = self.stand_up(index) {
            self.lay_down(index, mirrored);
            self.keep_at_rest(index);
        }
    }

    /// A packed segment is decoded; who has no mirror of it gets one. What was not packed stays as it is.
    pub(super) fn unpack(&mut self, index: Index) {
        match self.stand_up(index) {
            Some(true) => self.out.push_back(Output::Awake(index)),
            Some(false) => {
                self.show(index, false);
                self.keep_whole(index);
            }
            None => {}
        }
    }

    /// L6: packed segments that cannot take what an entry does to them as bytes alone: they have a mirror, which patches keep current, or
    /// what comes is not of the document that is here.
    pub(super) fn unpack_for(&mut self, entry: &EntryFrame) {
        for part in &entry.parts {
            let Some(index) = self.resolve(part.segment).and_then(|id| self.heap.index(id)) else { continue };
            let Some(State::Packed(packed)) = self.heap.slot(index).map(|slot| &slot.state) else { continue };
            let other = part.kind != PART_DELTA || part.generation != packed.shell.generation();
            if packed.mirrored || other {
                self.unpack(index);
            }
        }
    }

    /// The same, by id.
    pub(super) fn unpack_id(&mut self, id: SegmentId) {
        if let Some(index) = self.heap.index(id) {
            self.unpack(index);
        }
    }

    /// Everything is decoded.
    pub(super) fn unpack_all(&mut self) {
        let packed = self.heap.iter().filter(|(_, slot)| matches!(slot.state, State::Packed(_)));
        let packed: Vec<Index> = packed.map(|(index, _)| index).collect();
        for index in packed {
            self.unpack(index);
        }
    }

    /// Whether a packed segment has a mirror. From here on it is live, and nobody was shown anything; `None`: it was not packed, or
    /// what it is made of is not taken in.
    fn stand_up(&mut self, index: Index) -> Option<bool> {
        let slot = self.heap.slot_mut(index)?;
        if !matches!(slot.state, State::Packed(_)) {
            return None;
        }
        let State::Packed(packed) = std::mem::replace(&mut slot.state, State::Away) else { return None };
        let Packed { mut shell, snapshot, queue, mirrored, .. } = *packed;
        let (writer, witness) = (self.entropy.writer(), self.witness);
        let before = Offset(self.cut.0.saturating_sub(1));
        witness(Some(index));
        let took_in = !queue.is_empty();
        let made = decode(&mut shell, writer, &snapshot, queue, mirrored);
        witness(None);
        match made {
            Ok(()) => {
                if let Some(slot) = self.heap.slot_mut(index) {
                    slot.state = State::Live(Box::new(shell));
                    slot.failures *= u32::from(!took_in);
                }
                Some(mirrored)
            }
            Err((at, why)) => {
                let shown = mirrored.then(|| Box::new(shell));
                self.quarantine_with(index, shown, at.unwrap_or(before), &why);
                None
            }
        }
    }
}

/// Puts the document of a packed segment back into it, with what is queued. An error names the entry that was not taken in, if it is
/// one's.
fn decode(
    shell: &mut Segment,
    writer: u64,
    snapshot: &[u8],
    queue: Queue,
    mirrored: bool,
) -> Result<(), (Option<Offset>, String)> {
    shell.stand_up(writer, snapshot).map_err(|error| (None, error.to_string()))?;
    if mirrored {
        shell.show_as_before().map_err(|error| (None, error.to_string()))?;
    }
    for (at, owner, deltas) in queue {
        shell.go_on(owner, &deltas).map_err(|error| (Some(at), error.to_string()))?;
    }
    Ok(())
}

impl Packed {
    /// The program forgets what it shows of it, unless it `stays`. Whether it did.
    fn forget_mirror(&mut self, stays: bool) -> bool {
        let forgets = self.mirrored && !stays;
        if forgets {
            self.shell.forget_handles();
            self.mirrored = false;
        }
        forgets
    }

    /// An entry did this to it.
    pub(super) fn push(&mut self, at: Offset, owner: ReplicaId, deltas: Vec<Bytes>) {
        let bytes: usize = deltas.iter().map(Bytes::len).sum();
        self.queued += bytes;
        self.shell.grow(bytes);
        if !mutate::on(Mutation::PackedWithoutQueue) {
            self.queue.push((at, owner, deltas));
        }
    }

    /// What is kept outside of one without a mirror, all of it.
    pub(super) fn keep(&mut self) -> Vec<u8> {
        let mut kept = self.shell.keep_packed(&self.snapshot, true);
        kept.extend(self.queue.iter().flat_map(|(at, owner, deltas)| Segment::keep_queued(*at, *owner, deltas)));
        kept
    }
}
