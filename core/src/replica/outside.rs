//! What is kept of a replica outside of its instance, so that it goes on in another one when the memory of this one is not to be
//! trusted any more: after a trap. Nothing can be asked of an instance then, so everything is handed out as it comes about, in
//! the same answer that tells JavaScript what it means, and JavaScript keeps it as bytes it does not understand.
//!
//! ```text
//! handle() ─► Committed, Apply, Loaded …           shown by mirrors
//!         └─► Keep: place, lives, commits, segments ─► js/src/keeper.ts ─► Resume, Restore … ─► another instance
//! ```
//!
//! The other instance stands where this one stood when its last answer came out: at the same cut, with the same documents,
//! handles, waits and unacknowledged commits. What lay in the call that trapped never left the instance: the relay sends it
//! again, and a commit of the program was not made. Unacknowledged commits are sent again as the bytes they were, as they may be
//! in the log; every document has a fresh writer (R10).
//!
//! ```text
//! place   := cut:varint seq:varint last_uid:u64 number:varint nonce:varint acked:varint stats:list(varint)
//!            reloading:list(segment:varint flags:u8)                  flags: 1 with redo · 2 it was broken
//! lives   := flags:u8 lineage:epoch epochs:list(epoch start:varint)            flags: those of a packed replica (`packed.rs`)
//! commit  := unsaved                              (`packed.rs`); nothing: it has ended before an older one of another line
//! segment := kept                                 (`segment/outside.rs`)
//! made    := ended, up to the end: commits that have ended (`lines.rs`), the oldest first
//! ended   := seq:varint uid:u64 hash:u64 other:u8 [owner:16]               hash 0: refused, or not as it was here
//! resume  := replica:16 lives:bytes place:bytes made:bytes slots:list(segment:16 flags:u8) commits:list(bytes) waits:list(wait)
//!            replica: as it was last Forked; commits: ascending
//!            flags: 1 derived · 2 loading · 4 not to be had · 8 and the relay is to look at it;
//!            lives and place may be empty: there were none yet
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::lines::Ended;
use super::packed::{ImportError, pack_commit, unpack_commit};
use super::pending::Unsaved;
use super::{LoadStatus, Output, Replica};
use crate::heap::{Broken, Index, State};
use crate::id::{Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::segment::Segment;
use crate::wire::codec::{Malformed, Reader, Write};

const COUNT: usize = 1 << 24;

const DERIVED: u8 = 1;
const LOADING: u8 = 2;
const STOPPED: u8 = 4;
const BROKEN: u8 = 8;

/// Something to be kept outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// In the place of the last one: what is known of the log's lives.
    Lives(Vec<u8>),
    /// In the place of the last one: where the replica stands.
    Place(Vec<u8>),
    /// An unacknowledged commit, by its number, new or changed; nothing: not any more. It goes with its Acked, Refused or InDoubt.
    Commit(Seq, Vec<u8>),
    /// A document, or what came to it. It goes when the segment does.
    Segment {
        /// Whose.
        segment: Index,
        /// In the place of all that was kept of it.
        anew: bool,
        /// What.
        kept: Vec<u8>,
    },
    /// Commits that have ended.
    Made {
        /// In the place of all that was kept of them.
        anew: bool,
        /// What.
        kept: Vec<u8>,
    },
}

/// Is told which segment's engine is about to be called, and `None` when that is over: what a trap is blamed on.
pub type Witness = fn(Option<Index>);

impl Replica {
    /// Who is told before an engine is given what came from elsewhere.
    pub fn set_witness(&mut self, witness: Witness) {
        self.witness = witness;
    }

    fn keep(&mut self, keep: Keep) {
        self.out.push_back(Output::Keep(keep));
    }

    /// After every call: where the replica stands, if that is news.
    pub(super) fn keep_place(&mut self) {
        let heap = &self.heap;
        self.reloading.retain(|index| {
            let state = heap.slot(*index).map(|slot| &slot.state);
            matches!(state, Some(State::Loading { .. }))
        });
        let place = self.place();
        if place != self.placed {
            self.placed.clone_from(&place);
            self.keep(Keep::Place(place));
        }
        if let Some((anew, made)) = self.lines.tell() {
            let mut kept = Vec::with_capacity(made.len() * 24);
            for ended in made {
                ended.encode(&mut kept);
            }
            self.out.push_back(Output::Keep(Keep::Made { anew, kept }));
        }
    }

    pub(super) fn place(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.varint(self.cut.0);
        out.varint(self.seq.0);
        Write::u64(&mut out, self.last_uid.0);
        out.varint(self.number.0);
        out.varint(self.nonce);
        out.varint(self.waits.position().0);
        let stats = self.stats.to_list();
        out.varint(stats.len() as u64);
        for value in stats {
            out.varint(value);
        }
        out.varint(self.reloading.len() as u64);
        for index in &self.reloading {
            out.varint(u64::from(index.0));
            let slot = self.heap.slot(*index);
            let redo = matches!(slot.map(|slot| &slot.state), Some(State::Loading { redo: true, .. }));
            out.push(u8::from(redo) | u8::from(slot.is_some_and(|slot| slot.thawing)) << 1);
        }
        out
    }

    pub(super) fn keep_lives(&mut self) {
        let mut out = vec![self.flags()];
        out.epoch(self.lineage);
        out.varint(self.epochs.len() as u64);
        for (epoch, start) in &self.epochs {
            out.epoch(*epoch);
            out.varint(start.0);
        }
        self.keep(Keep::Lives(out));
    }

    /// After every call: the unacknowledged commits that are new, or other than they were told.
    pub(super) fn keep_commits(&mut self) {
        for one in self.pending.untold() {
            let mut kept = Vec::with_capacity(one.bytes + 64);
            pack_commit(one, &mut kept);
            self.out.push_back(Output::Keep(Keep::Commit(one.number, kept)));
        }
    }

    /// A commit has ended, and no Acked says so before an older one has.
    pub(super) fn keep_no_more(&mut self, number: Seq) {
        self.keep(Keep::Commit(number, Vec::new()));
    }

    /// A document that was made of this snapshot and these deltas.
    pub(super) fn keep_made(&mut self, segment: Index, snapshot: &[u8], deltas: &[Bytes]) {
        if let Some(document) = self.heap.slot_mut(segment).and_then(|slot| slot.document()) {
            let kept = document.keep_made(snapshot, deltas);
            self.keep(Keep::Segment { segment, anew: true, kept });
        }
    }

    /// What deltas of others did to a document.
    pub(super) fn keep_applied(&mut self, segment: Index, deltas: &[Bytes]) {
        if let Some(document) = self.heap.slot_mut(segment).and_then(|slot| slot.document()) {
            let kept = document.keep_applied(deltas);
            self.keep(Keep::Segment { segment, anew: false, kept });
        }
    }

    /// What a commit made in a document is not told of when it is lost: it was undone.
    pub(super) fn keep_undone(&mut self, segment: Index, uid: Uid) {
        self.keep(Keep::Segment { segment, anew: false, kept: Segment::keep_undone(uid) });
    }

    /// What the newest own commit did to its documents; it made these new.
    pub(super) fn keep_edited(&mut self, created: &[Index]) {
        let Some(newest) = self.pending.iter().next_back() else { return };
        let uid: Uid = newest.commit.uid;
        let parts = newest.commit.parts.iter();
        let edited: Vec<(SegmentId, Bytes)> =
            parts.filter_map(|part| Some((part.segment, part.body.delta()?.clone()))).collect();
        for (id, delta) in edited {
            let Some((segment, slot)) = self.heap.by_id_mut(id) else { continue };
            let Some(document) = slot.document() else { continue };
            let anew = created.contains(&segment);
            let kept = if anew { document.keep_made(&[], &[delta]) } else { document.keep_edited(&delta, uid) };
            self.keep(Keep::Segment { segment, anew, kept });
        }
    }

    /// A log knows the segment from now on.
    pub(super) fn is_born(&mut self, id: SegmentId) {
        let Some((segment, slot)) = self.heap.by_id_mut(id) else { return };
        let Some(document) = slot.document().filter(|document| document.is_unborn()) else { return };
        document.set_unborn(false);
        // What of a delta of others counts here is that it came.
        let kept = document.keep_applied(&[]);
        self.keep(Keep::Segment { segment, anew: false, kept });
    }

    /// Much has come to what is kept of a document: it is kept in fewer bytes from now on.
    pub(super) fn keep_whole(&mut self, segment: Index) {
        if let Some(document) = self.heap.slot_mut(segment).and_then(|slot| slot.document()) {
            let kept = document.keep_whole();
            self.keep(Keep::Segment { segment, anew: true, kept });
        }
    }

    /// A segment is packed, and kept as it is then. What is kept of one with a mirror stays: it has the handles, and goes on decoded.
    pub(super) fn keep_at_rest(&mut self, segment: Index) {
        let Some(State::Packed(packed)) = self.heap.slot_mut(segment).map(|slot| &mut slot.state) else { return };
        let kept = packed.shell.keep_packed(&packed.snapshot, !packed.mirrored);
        self.keep(Keep::Segment { segment, anew: true, kept });
    }

    /// What an entry did to a packed one.
    pub(super) fn keep_queued(&mut self, segment: Index, at: Offset, owner: ReplicaId, deltas: &[Bytes]) {
        let kept = Segment::keep_queued(at, owner, deltas);
        self.keep(Keep::Segment { segment, anew: false, kept });
    }

    /// Goes on from what was kept of another instance; the segments follow, each in a call of its own ([`Replica::restore`]).
    pub(super) fn resume(&mut self, bytes: &[u8]) {
        if self.number != Seq(0) || !self.fresh || self.heap.iter().any(|(_, slot)| !matches!(slot.state, State::Away))
        {
            return self.error("ERR_ENGINE", "a replica that has begun cannot become another");
        }
        let mut replica = Replica::new(self.options.clone());
        match replica.take_up(bytes) {
            Ok(()) => {
                replica.now_ms = self.now_ms;
                replica.witness = self.witness;
                *self = replica;
            }
            Err(error) => self.error("ERR_ENGINE", error.to_string()),
        }
    }

    fn take_up(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        let r = &mut Reader::new(bytes);
        self.id = ReplicaId(r.array()?);
        let lives = r.bytes(limits::LONG_BYTES_MAX, "lives")?;
        if !lives.is_empty() {
            let r = &mut Reader::new(lives);
            let flags = r.u8()?;
            self.set_flags(flags);
            self.lineage = r.epoch()?;
            for _ in 0..r.count(limits::EPOCHS_MAX, 1, "epochs")? {
                self.epochs.push((r.epoch()?, Offset(r.varint()?)));
            }
            r.end()?;
        }
        let place = r.bytes(limits::LONG_BYTES_MAX, "place")?;
        let ended = &mut Reader::new(r.bytes(limits::LONG_BYTES_MAX, "made")?);
        let mut made = VecDeque::new();
        while ended.remaining() > 0 {
            if made.len() == limits::ENDED_MAX {
                made.pop_front();
            }
            made.push_back(Ended::decode(ended)?);
        }
        self.lines.recall(made);
        for _ in 0..r.count(COUNT, 1, "segments")? {
            let id = SegmentId(r.array()?);
            let flags = r.u8()?;
            let (index, _) = self.heap.enter(id, flags & DERIVED != 0);
            if let Some(slot) = self.heap.slot_mut(index) {
                slot.stopped = flags & STOPPED != 0;
                // R12: what trapped twice is frozen. Over which entry went with the instance: any up to the newest.
                let last = Offset(u64::MAX);
                slot.broken = (flags & BROKEN != 0).then_some(Broken { at: last, told: false, before: None });
                if flags & LOADING != 0 {
                    slot.state =
                        State::Loading { nonce: None, buffer: Vec::new(), before: None, redo: false, copy: None };
                }
            }
        }
        if !place.is_empty() {
            self.take_place(place)?;
        }
        for _ in 0..r.count(COUNT, 1, "unsaved commits")? {
            let kept = &mut Reader::new(r.bytes(limits::LONG_BYTES_MAX, "unsaved commit")?);
            self.pending.push(unpack_commit(kept)?);
            kept.end()?;
        }
        self.waits.unpack_list(r)?;
        r.end()?;
        Ok(())
    }

    fn take_place(&mut self, place: &[u8]) -> Result<(), ImportError> {
        let r = &mut Reader::new(place);
        self.cut = Offset(r.varint()?);
        self.seq = Seq(r.varint()?);
        self.last_uid = Uid(r.u64()?);
        self.number = Seq(r.varint()?);
        self.nonce = r.varint()?;
        self.waits.acked(Offset(r.varint()?));
        let mut stats = Vec::new();
        for _ in 0..r.count(256, 1, "stats")? {
            stats.push(r.varint()?);
        }
        self.stats.set_list(&stats);
        for _ in 0..r.count(COUNT, 1, "segments")? {
            let number = u32::try_from(r.varint()?).map_err(|_| Malformed::Limit("number"))?;
            let flags = r.u8()?;
            let (redo, thawing) = (flags & 1 != 0, flags & 2 != 0);
            if let Some(slot) = self.heap.slot_mut(Index(number)).filter(|slot| slot.broken.is_some() && thawing) {
                // The relay had answered, and nobody outside knows yet.
                (slot.stopped, slot.thawing, slot.broken) = (false, true, None);
            }
            if let Some(slot) = self.heap.slot_mut(Index(number)).filter(|slot| !slot.stopped) {
                slot.state = State::Loading { nonce: None, buffer: Vec::new(), before: None, redo, copy: None };
                self.reloading.push(Index(number));
                if redo {
                    self.heap.undo(Index(number));
                }
            }
        }
        r.end()?;
        Ok(())
    }

    /// All that another instance has to know, in words, for comparisons in tests: where the replica stands, its lines and
    /// unacknowledged commits, and how each segment is here.
    pub fn books(&self) -> String {
        let mut books = format!("{} flags {} cut {:?} {:?} ", self.id, self.flags(), self.cut, self.epochs);
        let (made, acked) = (self.lines.made().collect::<Vec<_>>(), self.waits.position());
        books += &format!("{:?} {:?} {:?} {acked:?} made {made:?}\n", self.seq, self.last_uid, self.number);
        books += &format!("{} {:?}\n", self.nonce, self.stats);
        for one in self.pending.iter() {
            let Unsaved {
                commit,
                number,
                edits,
                offered,
                offered_at,
                forgotten,
                stale,
                given,
                outdone,
                was,
                bytes,
                ..
            } = one;
            let how = format!("{offered} {offered_at:?} {forgotten} {stale:?} {given:?} {outdone} {was:?}");
            books += &format!("{number:?} {how} {bytes} {commit:?} {edits:?}\n");
        }
        for (index, slot) in self.heap.iter() {
            let state = match &slot.state {
                State::Away => "away",
                // One that goes on from what was kept is decoded.
                State::Live(_) | State::Packed(_) => "here",
                State::Loading { before: None, .. } => "loading",
                State::Loading { redo: false, .. } => "loading anew",
                State::Loading { redo: true, .. } => "loading anew, redo",
            };
            let unborn = slot.peek().is_some_and(Segment::is_unborn);
            let of = match &slot.state {
                State::Packed(packed) => Some(&packed.shell),
                _ => slot.peek(),
            };
            let of = of.map(|document| (document.generation(), document.header().clone()));
            books += &format!("{} {} {state} {unborn} {} {of:?}\n", index.0, slot.id, slot.derived);
        }
        books
    }

    /// A segment is here again, as it was.
    pub(super) fn restore(&mut self, index: Index, kept: &Bytes) {
        let writer = self.entropy.writer();
        let Some(slot) = self.heap.slot_mut(index) else { return self.error("ERR_ENGINE", "no such segment") };
        let made = Segment::recover(slot.id, writer, kept);
        if let Ok((segment, Some(queue))) = made {
            // One that is loading has nothing to show until then.
            if matches!(slot.state, State::Away) {
                slot.state = State::Live(Box::new(segment));
                self.lay_down(index, false);
                self.queue_again(index, queue);
            }
            return;
        }
        let made = made.and_then(|(mut segment, _)| {
            let patches = segment.show();
            segment.recovered()?;
            Ok((segment, patches))
        });
        match made {
            Ok((segment, patches)) => {
                let (bytes, status) = (segment.size(), LoadStatus::There);
                match &mut slot.state {
                    State::Loading { before, .. } => *before = Some(Box::new(segment)),
                    state => *state = State::Live(Box::new(segment)),
                }
                self.out.push_back(Output::Loaded { segment: index, status, bytes, reset: true, patches });
            }
            Err(error) => self.error("ERR_ENGINE", error.to_string()),
        }
    }
}
