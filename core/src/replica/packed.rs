//! A replica as bytes, so that it goes on in another instance: in the full module, or in one without the memory that this one
//! has grown. (After a trap there is nobody to ask for them: `outside.rs`.) Everything that JavaScript knows of it stays true: segments keep their indexes, objects their
//! handles, waits their tickets, and what is not acknowledged is sent again under the same numbers.
//!
//! What does not go along: the connection (the driver opens another), what was buffered for loads under way (they are asked
//! again), and every engine identity: the other instance draws its own. Primitives are those of `WIRE.md` §2.
//!
//! ```text
//! packed   := "coheap" format:u8=4 replica:16 flags:u8 cut:varint lineage:epoch epochs:list(epoch start:varint)
//!             seq:varint last_uid:u64 number:varint made:list(seq:varint uid:u64) nonce:varint stats:list(varint)
//!             slots:list(slot) unsaved:list(unsaved) acked:varint waits:list(wait)
//!             flags: 1 fresh · 2 what is here has to be given back to the relay
//!             made: commits of the replica's own line that have ended, the newest, oldest first
//! slot     := segment:16 flags:u8 [at:varint] [document] [queue:list(at:varint owner:16 deltas:list(delta:bytes))]
//!             flags: 1 derived · 2 loading · 4 stale parts of own commits are to be made anew on it · 8 a document follows ·
//!             16 it is not to be had · 32 and the relay is to look at it, at:varint follows: the entry with which the engine failed ·
//!             64 it was
//!             128 it is here as bytes, and without a mirror: the document has no objects but the first one, and the queue follows
//! document := engine:u8 generation [header:bytes] unborn:u8 objects:list(object:16 kind:u8 current:u8) creations:list(creation) snapshot:bytes
//!             objects: by handle; current 1: this is the handle to speak of, where an object has had several
//! creation := parent:16 key:str kind:u8 life:varint uid:u64     what this replica put under an absent key, the oldest first
//! unsaved  := owner:16 seq:varint uid:u64 prev:u64 after:u8 [owner:16 seq:varint uid:u64] number:varint
//!             admitted:varint (offset+1; 0: not yet) flags:u8 offered_at:varint [was:u64] claim:u8 [group:str run:str key:str grant:varint]
//!             label:u8 [str] parts:list(segment:16 generation part flags:u8 edits:list(edit)); of a part:
//!             1 stale · 2 given back
//!             flags: 1 it was sent, once · 2 the log has it with other bytes · 4 parts of it are in later generations (G3) ·
//!             8 a log that is being given back may have had it in a line that it dropped;
//!             was: its hash with those; offered_at (offset+1; 0: never): it went out nowhere before that position of the log
//! part     := 0 delta:bytes · 1 engine:u8 layout:u8 delta:bytes · 2 (deleted) · 3 kind:u8 bytes
//! wait     := ticket:varint kind:u8 …                 0 saved number:varint · 1 clean · 2 head · 3 version:str
//! ```
//!
//! [`Replica::import`] is the same replica in another instance; [`Replica::reopen`] is another process that opened what the
//! first one stored: another replica, which takes over the commits that are not acknowledged (C9).
//! Edits: `packed/edits.rs`. Bytes come from our own other half, yet are read as if they came from anywhere.

mod edits;

use std::collections::VecDeque;

use bytes::Bytes;

use super::lines::Ended;
use super::pending::Unsaved;
use super::{Keep, LoadStatus, Options, Output, Replica};
use crate::commit::{After, ClaimOf, Commit, EngineKind, Part, PartBody};
use crate::heap::{Broken, Packed, State};
use crate::id::{Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::segment::Segment;
pub use crate::segment::packed::ImportError;
use crate::wire::codec::{Malformed, Reader, Write};

const MAGIC: &[u8; 6] = b"coheap";
const FORMAT: u8 = 4;
const COUNT: usize = 1 << 24;

const DERIVED: u8 = 1;
const LOADING: u8 = 2;
const REDO: u8 = 4;
const DOCUMENT: u8 = 8;
const STOPPED: u8 = 16;
const BROKEN: u8 = 32;
const THAWING: u8 = 64;
const PACKED: u8 = 128;

const OFFERED: u8 = 1;
const OUTDONE: u8 = 2;
const REDUCED: u8 = 4;
const FORGOTTEN: u8 = 8;

impl Replica {
    /// Everything that another instance needs to go on from here.
    pub fn export(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(FORMAT);
        out.extend_from_slice(&self.id.0);
        out.push(self.flags());
        out.varint(self.cut.0);
        out.epoch(self.lineage);
        out.varint(self.epochs.len() as u64);
        for (epoch, start) in &self.epochs {
            out.epoch(*epoch);
            out.varint(start.0);
        }
        out.varint(self.seq.0);
        Write::u64(&mut out, self.last_uid.0);
        out.varint(self.number.0);
        out.varint(self.lines.made().len() as u64);
        for ended in self.lines.made() {
            ended.encode(&mut out);
        }
        out.varint(self.nonce);
        let stats = self.stats.to_list();
        out.varint(stats.len() as u64);
        for value in stats {
            out.varint(value);
        }
        out.varint(self.heap.iter().count() as u64);
        for (_, slot) in self.heap.iter() {
            out.extend_from_slice(&slot.id.0);
            let (mut flags, document) = match &slot.state {
                State::Away => (0, None),
                State::Packed(packed) => (DOCUMENT | if packed.mirrored { 0 } else { PACKED }, None),
                State::Loading { before, redo, .. } => {
                    (if *redo { LOADING | REDO } else { LOADING }, before.as_deref())
                }
                State::Live(segment) => (0, Some(&**segment)),
            };
            flags |= if slot.derived { DERIVED } else { 0 };
            flags |= if document.is_some() { DOCUMENT } else { 0 };
            flags |= if slot.stopped { STOPPED } else { 0 };
            flags |= if slot.broken.is_some() { BROKEN } else { 0 };
            flags |= if slot.thawing { THAWING } else { 0 };
            out.push(flags);
            if let Some(broken) = &slot.broken {
                out.varint(broken.at.0);
            }
            if let Some(document) = document {
                document.pack(&mut out);
            }
            if let State::Packed(packed) = &slot.state {
                packed.shell.pack_around(&packed.snapshot, &mut out);
                if !packed.mirrored {
                    packed.pack_queue(&mut out);
                }
            }
        }
        out.varint(self.pending.len() as u64);
        for unsaved in self.pending.iter() {
            pack_commit(unsaved, &mut out);
        }
        self.waits.pack(&mut out);
        out
    }

    /// `flags` of a packed replica.
    pub(super) fn flags(&self) -> u8 {
        u8::from(self.fresh) | u8::from(self.restoring) << 1
    }

    pub(super) fn set_flags(&mut self, flags: u8) {
        (self.fresh, self.restoring) = (flags & 1 != 0, flags & 2 != 0);
    }

    /// A replica that goes on from [`Replica::export`]. Outputs show every segment anew, onto the mirrors that are there.
    pub fn import(options: Options, bytes: &[u8]) -> Result<Replica, ImportError> {
        let mut replica = Replica::new(options);
        let r = &mut Reader::new(bytes);
        if &r.array::<6>()? != MAGIC {
            return Err(Malformed::Field("packed replica").into());
        }
        match r.u8()? {
            FORMAT => {}
            other => return Err(Malformed::Kind(other).into()),
        }
        replica.id = ReplicaId(r.array()?);
        let flags = r.u8()?;
        replica.set_flags(flags);
        replica.cut = Offset(r.varint()?);
        replica.lineage = r.epoch()?;
        for _ in 0..r.count(limits::EPOCHS_MAX, 1, "epochs")? {
            replica.epochs.push((r.epoch()?, Offset(r.varint()?)));
        }
        replica.seq = Seq(r.varint()?);
        replica.last_uid = Uid(r.u64()?);
        replica.number = Seq(r.varint()?);
        let mut made = VecDeque::new();
        for _ in 0..r.count(limits::ENDED_MAX, 1, "made")? {
            made.push_back(Ended::decode(r)?);
        }
        replica.lines.recall(made);
        replica.nonce = r.varint()?;
        let mut stats = Vec::new();
        for _ in 0..r.count(256, 1, "stats")? {
            stats.push(r.varint()?);
        }
        replica.stats.set_list(&stats);
        for _ in 0..r.count(COUNT, 1, "segments")? {
            replica.unpack_slot(r)?;
        }
        for _ in 0..r.count(COUNT, 1, "unsaved commits")? {
            replica.pending.push(unpack_commit(r)?);
        }
        replica.waits.unpack(r)?;
        r.end()?;
        Ok(replica)
    }

    /// C9: another process opens what a replica stored with [`Replica::export`], at any time before it ended. It is a replica
    /// of its own, with the id that its options' entropy gives it; unacknowledged commits stay in the line of the one that made
    /// them, and go out again under their numbers. Waits end with the process that waited. Outputs show every segment to a
    /// program that knows nothing of them yet. What was stored may have gone out afterwards, behind the place where the store was made: so
    /// of one from before the first connection all is in doubt in a log that has ever dropped lines (G5, §14.5).
    pub fn reopen(options: Options, bytes: &[u8]) -> Result<Replica, ImportError> {
        let mut replica = Replica::import(options.clone(), bytes)?;
        replica.out.clear();
        let fresh = Replica::new(options);
        // D4: of the lines that it takes over it knows what the other knew.
        let mut lines = fresh.lines;
        let old = replica.id;
        for ended in replica.lines.made() {
            lines.ended(Ended { of: Some(ended.of.unwrap_or(old)), ..*ended });
        }
        // The id that the seed gives; `import` drew engine identities behind it.
        (replica.id, replica.seq, replica.last_uid) = (fresh.id, fresh.seq, fresh.last_uid);
        (replica.lines, replica.waits, replica.stats) = (lines, fresh.waits, fresh.stats);
        replica.number = Seq(0);
        for one in replica.pending.iter_mut() {
            replica.number = replica.number.next();
            one.number = replica.number;
            if mutate::on(Mutation::StoredAsOwn) {
                (one.commit.owner, one.commit.seq, one.commit.prev) = (replica.id, replica.number, replica.last_uid);
                (replica.seq, replica.last_uid) = (replica.number, one.commit.uid);
            }
            // It may have gone out after it was stored. Nothing is kept of it outside of this process.
            one.offered_at.get_or_insert(replica.cut);
            (one.offered, one.told) = (true, false);
        }
        let (mut out, mut shown) = (Vec::new(), Vec::new());
        for (index, slot) in replica.heap.iter_mut() {
            out.push(Output::Indexed { segment: slot.id, index });
            if let State::Packed(packed) = &mut slot.state {
                let kept = packed.keep();
                shown.push(Output::Keep(Keep::Segment { segment: index, anew: true, kept }));
            }
            let Some(document) = slot.document() else { continue };
            let (id, engine, generation) = (document.id(), document.engine(), document.generation());
            let (unborn, header, snapshot) = (document.is_unborn(), document.header().clone(), document.encode());
            // Its handles are those of a mirror that is no more.
            let writer = replica.entropy.writer();
            let mut anew = Segment::decode(id, engine, generation, writer, &snapshot, &[])?;
            anew.set_unborn(unborn);
            anew.set_header(header);
            let (patches, bytes) = (anew.show(), anew.size());
            let kept = anew.keep_made(&snapshot, &[]);
            *document = anew;
            let status = LoadStatus::There;
            shown.push(Output::Loaded { segment: index, status, bytes, reset: false, patches });
            shown.push(Output::Keep(Keep::Segment { segment: index, anew: true, kept }));
        }
        replica.out.extend(out.into_iter().chain(shown));
        replica.keep_lives();
        Ok(replica)
    }

    fn unpack_slot(&mut self, r: &mut Reader<'_>) -> Result<(), ImportError> {
        let id = SegmentId(r.array()?);
        let flags = r.u8()?;
        let (index, _) = self.heap.enter(id, flags & DERIVED != 0);
        let redo = flags & REDO != 0;
        let at = if flags & BROKEN != 0 { Some(Offset(r.varint()?)) } else { None };
        let (mut document, mut packed) = (None, None);
        if flags & PACKED != 0 {
            let writer = self.entropy.writer();
            let (shell, snapshot) = Segment::unpack_shell(id, writer, r)?;
            packed = Some(Box::new(Packed::unpack(shell, snapshot, r)?));
        } else if flags & DOCUMENT != 0 {
            let writer = self.entropy.writer();
            let mut segment = Segment::unpack(id, writer, r)?;
            let (patches, bytes) = (segment.show(), segment.size());
            let status = LoadStatus::There;
            self.out.push_back(Output::Loaded { segment: index, status, bytes, reset: true, patches });
            document = Some(Box::new(segment));
        }
        if let Some(slot) = self.heap.slot_mut(index) {
            slot.stopped = flags & STOPPED != 0;
            slot.thawing = flags & THAWING != 0;
            slot.broken = at.map(|at| Broken { at, told: false, before: None });
            if flags & LOADING != 0 {
                self.reloading.push(index);
            }
            slot.state = match document {
                before if flags & LOADING != 0 => {
                    State::Loading { nonce: None, buffer: Vec::new(), before, redo, copy: None }
                }
                Some(segment) => State::Live(segment),
                None => packed.map_or(State::Away, State::Packed),
            };
        }
        if redo {
            self.heap.undo(index);
        }
        Ok(())
    }

    /// As [`Replica::import`], into this replica, which has done nothing yet.
    pub(super) fn import_here(&mut self, bytes: &[u8]) {
        if self.seq != Seq(0) || !self.fresh || self.heap.iter().any(|(_, slot)| !matches!(slot.state, State::Away)) {
            return self.error("ERR_ENGINE", "a replica that has begun cannot become another");
        }
        match Replica::import(self.options.clone(), bytes) {
            Ok(mut replica) => {
                replica.now_ms = self.now_ms;
                replica.witness = self.witness;
                *self = replica;
            }
            Err(error) => self.error("ERR_ENGINE", error.to_string()),
        }
    }
}

pub(super) fn pack_commit(unsaved: &Unsaved, out: &mut Vec<u8>) {
    let commit = &unsaved.commit;
    out.extend_from_slice(&commit.owner.0);
    out.varint(commit.seq.0);
    Write::u64(out, commit.uid.0);
    Write::u64(out, commit.prev.0);
    out.push(u8::from(commit.after.is_some()));
    if let Some(after) = &commit.after {
        out.extend_from_slice(&after.owner.0);
        out.varint(after.seq.0);
        Write::u64(out, after.uid.0);
    }
    out.varint(unsaved.number.0);
    out.varint(unsaved.admitted.map_or(0, |offset| offset.0 + 1));
    let reduced = if unsaved.was.is_some() { REDUCED } else { 0 };
    let forgotten = if unsaved.forgotten { FORGOTTEN } else { 0 };
    out.push(
        if unsaved.offered { OFFERED } else { 0 } | if unsaved.outdone { OUTDONE } else { 0 } | reduced | forgotten,
    );
    out.varint(unsaved.offered_at.map_or(0, |at| at.0.saturating_add(1)));
    if let Some(was) = unsaved.was {
        Write::u64(out, was);
    }
    out.push(u8::from(commit.claim.is_some()));
    if let Some(claim) = &commit.claim {
        out.str(&claim.group);
        out.str(&claim.run);
        out.str(&claim.key);
        out.varint(claim.grant);
    }
    out.push(u8::from(commit.label.is_some()));
    if let Some(label) = &commit.label {
        out.str(label);
    }
    out.varint(commit.parts.len() as u64);
    let marks = unsaved.stale.iter().zip(&unsaved.given);
    for ((part, edits), (stale, given)) in commit.parts.iter().zip(&unsaved.edits).zip(marks) {
        out.extend_from_slice(&part.segment.0);
        out.generation(part.generation);
        match &part.body {
            PartBody::Delta(delta) => {
                out.push(0);
                Write::bytes(out, delta);
            }
            PartBody::Create { engine, layout, delta } => {
                out.extend_from_slice(&[1, engine.code(), *layout]);
                Write::bytes(out, delta);
            }
            PartBody::Delete => out.push(2),
            PartBody::Opaque { kind, bytes } => {
                out.extend_from_slice(&[3, *kind]);
                Write::bytes(out, bytes);
            }
        }
        out.push(u8::from(*stale) | u8::from(*given) << 1);
        out.varint(edits.len() as u64);
        for edit in edits {
            edits::pack(edit, out);
        }
    }
}

pub(super) fn unpack_commit(r: &mut Reader<'_>) -> Result<Unsaved, Malformed> {
    let owner = ReplicaId(r.array()?);
    let seq = Seq(r.varint()?);
    let uid = Uid(r.u64()?);
    let prev = Uid(r.u64()?);
    let after = match r.u8()? {
        0 => None,
        _ => Some(After { owner: ReplicaId(r.array()?), seq: Seq(r.varint()?), uid: Uid(r.u64()?) }),
    };
    let number = Seq(r.varint()?);
    let admitted = r.varint()?.checked_sub(1).map(Offset);
    let flags = r.u8()?;
    let offered_at = r.varint()?.checked_sub(1).map(Offset);
    let was = if flags & REDUCED != 0 { Some(r.u64()?) } else { None };
    let name = |r: &mut Reader<'_>| r.str(limits::CLAIM_NAME_BYTES_MAX, "name").map(str::to_owned);
    let claim = match r.u8()? {
        0 => None,
        _ => Some(ClaimOf { group: name(r)?, run: name(r)?, key: name(r)?, grant: r.varint()? }),
    };
    let label = match r.u8()? {
        0 => None,
        _ => Some(r.str(limits::LABEL_BYTES_MAX, "label")?.to_owned()),
    };
    let (mut parts, mut all, mut anew, mut given) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..r.count(limits::PARTS_MAX, 1, "parts")? {
        let segment = SegmentId(r.array()?);
        let generation = r.generation()?;
        let bytes = |r: &mut Reader<'_>| r.bytes(limits::LONG_BYTES_MAX, "delta").map(Bytes::copy_from_slice);
        let body = match r.u8()? {
            0 => PartBody::Delta(bytes(r)?),
            1 => {
                let engine = EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?;
                PartBody::Create { engine, layout: r.u8()?, delta: bytes(r)? }
            }
            2 => PartBody::Delete,
            3 => PartBody::Opaque { kind: r.u8()?, bytes: bytes(r)? },
            other => return Err(Malformed::Kind(other)),
        };
        parts.push(Part { segment, generation, body });
        let marks = r.u8()?;
        anew.push(marks & 1 != 0);
        given.push(marks & 2 != 0);
        let mut edits = Vec::new();
        for _ in 0..r.count(COUNT, 1, "edits")? {
            edits.push(edits::unpack(r)?);
        }
        all.push(edits);
    }
    let commit = Commit { owner, seq, uid, prev, after, claim, label, parts };
    let unsaved = Unsaved::new(commit, all, number, anew);
    // It comes from another instance, which has told it.
    let told = true;
    let (offered, outdone, forgotten) = (flags & OFFERED != 0, flags & OUTDONE != 0, flags & FORGOTTEN != 0);
    Ok(Unsaved { admitted, told, offered, offered_at, forgotten, outdone, was, given, ..unsaved })
}

impl Packed {
    fn pack_queue(&self, out: &mut Vec<u8>) {
        out.varint(self.queue.len() as u64);
        for (at, owner, deltas) in &self.queue {
            out.varint(at.0);
            out.extend_from_slice(&owner.0);
            out.varint(deltas.len() as u64);
            for delta in deltas {
                Write::bytes(out, delta);
            }
        }
    }

    /// The same, read back: a segment without a mirror.
    fn unpack(shell: Segment, snapshot: Bytes, r: &mut Reader<'_>) -> Result<Packed, Malformed> {
        let mut packed = Packed { shell, snapshot, queue: Vec::new(), queued: 0, mirrored: false };
        for _ in 0..r.count(limits::PACKED_QUEUE_MAX, 18, "queue")? {
            let (at, owner) = (Offset(r.varint()?), ReplicaId(r.array()?));
            let mut deltas = Vec::new();
            for _ in 0..r.count(limits::PARTS_MAX, 1, "deltas")? {
                deltas.push(Bytes::copy_from_slice(r.bytes(limits::COMMIT_BYTES_MAX, "delta")?));
            }
            packed.push(at, owner, deltas);
        }
        Ok(packed)
    }
}
