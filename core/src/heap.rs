//! What a replica holds: its segments by index and id, and in which state each is. Next: `replica.rs`, which changes it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::id::{GenId, Nonce, Offset, ReplicaId, SegmentId};
use crate::segment::Segment;
use crate::segment::copy::SegmentCopy;
use crate::segment::outside::Queue;

/// Names a segment towards JavaScript, for the life of the replica; 0 is the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Index(pub u32);

/// How a segment is here.
#[derive(Debug)]
pub enum State {
    /// Not here.
    Away,
    /// Asked for. `buffer` holds what was committed to it meanwhile (L3); `before` is the document it had, where it is
    /// loaded anew: it stays at the cut.
    Loading {
        /// Of the newest request; `None` until there is a connection to send it on.
        nonce: Option<Nonce>,
        /// Entries that came while it was under way.
        buffer: Vec<Buffered>,
        /// The document it had: readable, writable and at the cut until the new one is here.
        before: Option<Box<Segment>>,
        /// What `before` shows is to be undone in part (a refusal, another id): own commits that depend on that are made anew
        /// from their edits, as `pending` says. The others are, or will be, in the log as they were sent.
        redo: bool,
        /// L5: what was kept of it, if it was not here since. Every request names it; the answer may go on from it.
        copy: Option<Box<SegmentCopy>>,
    },
    /// Here, decoded.
    Live(Box<Segment>),
    /// Here, as bytes (L6): as visible as any other, and decoded before it is read or written.
    Packed(Box<Packed>),
}

/// A segment that is here as bytes (CORE-PROTOCOL L6). No own commit that is not acknowledged touches it. Made, and unmade, by
/// `replica/rest.rs`.
#[derive(Debug)]
pub struct Packed {
    /// All but its document, which is empty: its generation, what this replica has created in it, and the handles of its mirror.
    pub shell: Segment,
    /// The document (`Segment::encode`).
    pub snapshot: Bytes,
    /// What entries did to it since, in their order: their places, whose they are, deltas.
    pub(crate) queue: Queue,
    /// Bytes of that.
    pub queued: usize,
    /// The program has a mirror of it, which patches keep current: it is decoded to take a delta in.
    pub mirrored: bool,
}

/// What an entry did to a segment while it was loading.
#[derive(Debug)]
pub struct Buffered {
    /// Its place.
    pub at: Offset,
    /// Whose commit it is; `None` for whole states, which are judged as that.
    pub by: Option<ReplicaId>,
    /// What it did.
    pub deltas: Vec<Bytes>,
}

/// One segment that this replica has to do with.
#[derive(Debug)]
pub struct Slot {
    /// Its id.
    pub id: SegmentId,
    /// Its id is derived: if nobody made it yet, it is an empty map.
    pub derived: bool,
    /// How it is here.
    pub state: State,
    /// The log did something to it that this version does not know, or that the engine cannot take in: it is not to be had.
    pub stopped: bool,
    /// The relay is to look at it, and it may be to be had again.
    pub broken: Option<Broken>,
    /// It was broken, and is loading because the relay has answered.
    pub thawing: bool,
    /// How often in a row what the relay sent of it was not taken in, and the relay found nothing wrong with it.
    pub failures: u32,
    /// What its mirror knows of it while there is no document: handles.
    pub known: Option<Box<Segment>>,
}

/// A segment that the engine could not take in (CORE-PROTOCOL R12).
#[derive(Debug)]
pub struct Broken {
    /// With this entry at the latest.
    pub at: Offset,
    /// The relay was told so on this connection.
    pub told: bool,
    /// The document it had. What the engine failed on may be in it, in part: only its handles count.
    pub before: Option<Box<Segment>>,
}

impl Slot {
    /// The document that can be read and written now.
    pub fn document(&mut self) -> Option<&mut Segment> {
        match &mut self.state {
            State::Live(segment) => Some(segment),
            State::Loading { before, .. } => before.as_deref_mut(),
            State::Away | State::Packed(_) => None,
        }
    }

    /// Of which generation it is, if it is here.
    pub fn generation(&self) -> Option<GenId> {
        match &self.state {
            State::Packed(packed) => Some(packed.shell.generation()),
            _ => self.peek().map(Segment::generation),
        }
    }

    /// True while it stands still (R12).
    pub fn is_frozen(&self) -> bool {
        self.broken.is_some()
    }

    /// As [`Slot::document`], to look at.
    pub fn peek(&self) -> Option<&Segment> {
        match &self.state {
            State::Live(segment) => Some(segment),
            State::Loading { before, .. } => before.as_deref(),
            State::Away | State::Packed(_) => None,
        }
    }
}

/// All segments by index.
#[derive(Debug, Default)]
pub struct Heap {
    slots: Vec<Slot>,
    by_id: BTreeMap<SegmentId, Index>,
    /// Every segment that is being made anew without a refused commit, and some that were: who asks takes these out.
    undoing: BTreeSet<Index>,
}

impl Heap {
    /// Nothing but the root, which is away.
    pub fn new() -> Self {
        let mut heap = Heap::default();
        heap.enter(SegmentId::ROOT, true);
        heap
    }

    /// The index of a segment, given now if it has none; `true` if it is new.
    pub fn enter(&mut self, id: SegmentId, derived: bool) -> (Index, bool) {
        if let Some(index) = self.by_id.get(&id).copied() {
            if let Some(slot) = self.slot_mut(index) {
                slot.derived |= derived;
            }
            return (index, false);
        }
        let index = Index(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        let state = State::Away;
        self.slots.push(Slot {
            id,
            derived,
            state,
            stopped: false,
            broken: None,
            thawing: false,
            failures: 0,
            known: None,
        });
        self.by_id.insert(id, index);
        (index, true)
    }

    /// The index of a segment that has one.
    pub fn index(&self, id: SegmentId) -> Option<Index> {
        self.by_id.get(&id).copied()
    }

    /// A segment's slot.
    pub fn slot(&self, index: Index) -> Option<&Slot> {
        self.slots.get(index.0 as usize)
    }

    /// A segment's slot.
    pub fn slot_mut(&mut self, index: Index) -> Option<&mut Slot> {
        self.slots.get_mut(index.0 as usize)
    }

    /// A segment's slot, by id.
    pub fn by_id_mut(&mut self, id: SegmentId) -> Option<(Index, &mut Slot)> {
        let index = self.index(id)?;
        self.slot_mut(index).map(|slot| (index, slot))
    }

    /// Every slot with its index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Index, &mut Slot)> {
        self.slots.iter_mut().enumerate().map(|(i, slot)| (Index(i as u32), slot))
    }

    /// This segment loads with `redo` from now on.
    pub fn undo(&mut self, index: Index) {
        self.undoing.insert(index);
    }

    /// True while a segment is being made anew without a refused commit: it loads with `redo`. Asked with every Ack, so it does
    /// not look through all slots.
    pub fn is_undoing(&mut self) -> bool {
        let redoes = |slot: &Slot| matches!(slot.state, State::Loading { redo: true, .. });
        while let Some(index) = self.undoing.first().copied() {
            if self.slot(index).is_some_and(redoes) {
                return true;
            }
            self.undoing.pop_first();
        }
        debug_assert!(!self.slots.iter().any(redoes), "every segment that loads with `redo` was entered");
        false
    }

    /// How many segments have an index.
    pub fn indexes(&self) -> usize {
        self.slots.len()
    }

    /// Every slot with its index.
    pub fn iter(&self) -> impl Iterator<Item = (Index, &Slot)> {
        self.slots.iter().enumerate().map(|(i, slot)| (Index(i as u32), slot))
    }
}
