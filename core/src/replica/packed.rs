//! A replica as bytes, so that it goes on in another instance: in the full module, or in one without the memory that this one
//! has grown. (After a trap there is nobody to ask for them: `outside.rs`.) Everything that JavaScript knows of it stays true: segments keep their indexes, objects their
//! handles, waits their tickets, and what is not acknowledged is sent again under the same numbers.
//!
//! What does not go along: the connection (the driver opens another), what was buffered for loads under way (they are asked
//! again), and every engine identity: the other instance draws its own. Primitives are those of `WIRE.md` §2.
//!
//! ```text
//! packed   := "coheap" format:u8=1 replica:16 fresh:u8 cut:varint lineage:epoch epochs:list(epoch start:varint)
//!             seq:varint last_uid:u64 nonce:varint stats:list(varint) slots:list(slot) unsaved:list(unsaved)
//!             acked:varint waits:list(wait)
//! slot     := segment:16 flags:u8 [refused seq:varint] [document]
//!             flags: 1 derived · 2 loading · 4 own commits behind the refused one are to be redone · 8 a document follows ·
//!             16 the log did something to it that is not known here
//! document := engine:u8 generation unborn:u8 objects:list(object:16 kind:u8 current:u8) creations:list(creation) snapshot:bytes
//!             objects: by handle; current 1: this is the handle to speak of, where an object has had several
//! creation := parent:16 key:str kind:u8 life:varint uid:u64     what this replica put under an absent key, the oldest first
//! unsaved  := seq:varint uid:u64 prev:u64 admitted:varint (offset+1; 0: not yet) claim:u8 [group:str run:str key:str grant:varint]
//!             label:u8 [str] parts:list(segment:16 generation part edits:list(edit))
//! part     := 0 delta:bytes · 1 engine:u8 layout:u8 delta:bytes · 2 (deleted) · 3 kind:u8 bytes
//! wait     := ticket:varint kind:u8 …                 0 saved seq:varint · 1 clean · 2 head · 3 version:str
//! ```
//!
//! Edits: `packed/edits.rs`. Bytes come from our own other half, yet are read as if they came from anywhere.

mod edits;

use bytes::Bytes;

use super::{LoadStatus, Options, Output, Replica};
use crate::commit::{ClaimOf, Commit, EngineKind, Part, PartBody};
use crate::heap::State;
use crate::id::{Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::segment::Segment;
pub use crate::segment::packed::ImportError;
use crate::wire::codec::{Malformed, Reader, Write};

const MAGIC: &[u8; 6] = b"coheap";
const FORMAT: u8 = 1;
const COUNT: usize = 1 << 24;

const DERIVED: u8 = 1;
const LOADING: u8 = 2;
const REDO: u8 = 4;
const DOCUMENT: u8 = 8;
const STOPPED: u8 = 16;

impl Replica {
    /// Everything that another instance needs to go on from here.
    pub fn export(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(FORMAT);
        out.extend_from_slice(&self.id.0);
        out.push(u8::from(self.fresh));
        out.varint(self.cut.0);
        out.epoch(self.lineage);
        out.varint(self.epochs.len() as u64);
        for (epoch, start) in &self.epochs {
            out.epoch(*epoch);
            out.varint(start.0);
        }
        out.varint(self.seq.0);
        Write::u64(&mut out, self.last_uid.0);
        out.varint(self.nonce);
        let stats = self.stats.to_list();
        out.varint(stats.len() as u64);
        for value in stats {
            out.varint(value);
        }
        out.varint(self.heap.iter().count() as u64);
        for (_, slot) in self.heap.iter() {
            out.extend_from_slice(&slot.id.0);
            let mut redone = None;
            let (mut flags, document) = match &slot.state {
                State::Away => (0, None),
                State::Loading { before, redo, .. } => {
                    redone = *redo;
                    (if redo.is_some() { LOADING | REDO } else { LOADING }, before.as_deref())
                }
                State::Live(segment) => (0, Some(&**segment)),
            };
            flags |= if slot.derived { DERIVED } else { 0 };
            flags |= if document.is_some() { DOCUMENT } else { 0 };
            flags |= if slot.stopped { STOPPED } else { 0 };
            out.push(flags);
            if let Some(refused) = redone {
                out.varint(refused.0);
            }
            if let Some(document) = document {
                document.pack(&mut out);
            }
        }
        out.varint(self.pending.len() as u64);
        for unsaved in self.pending.iter() {
            pack_commit(&unsaved.commit, unsaved.admitted, &unsaved.edits, &mut out);
        }
        self.waits.pack(&mut out);
        out
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
        replica.fresh = r.u8()? != 0;
        replica.cut = Offset(r.varint()?);
        replica.lineage = r.epoch()?;
        for _ in 0..r.count(limits::EPOCHS_MAX, "epochs")? {
            replica.epochs.push((r.epoch()?, Offset(r.varint()?)));
        }
        replica.seq = Seq(r.varint()?);
        replica.last_uid = Uid(r.u64()?);
        replica.nonce = r.varint()?;
        let mut stats = Vec::new();
        for _ in 0..r.count(256, "stats")? {
            stats.push(r.varint()?);
        }
        replica.stats.set_list(&stats);
        for _ in 0..r.count(COUNT, "segments")? {
            replica.unpack_slot(r)?;
        }
        for _ in 0..r.count(COUNT, "unsaved commits")? {
            let owner = replica.id;
            let (commit, admitted, edits) = unpack_commit(owner, r)?;
            replica.pending.push(commit, edits);
            if let Some(unsaved) = replica.pending.iter_mut().last() {
                unsaved.admitted = admitted;
            }
        }
        replica.waits.unpack(r)?;
        r.end()?;
        Ok(replica)
    }

    fn unpack_slot(&mut self, r: &mut Reader<'_>) -> Result<(), ImportError> {
        let id = SegmentId(r.array()?);
        let flags = r.u8()?;
        let (index, _) = self.heap.enter(id, flags & DERIVED != 0);
        let redo = if flags & REDO != 0 { Some(Seq(r.varint()?)) } else { None };
        let mut document = None;
        if flags & DOCUMENT != 0 {
            let writer = self.entropy.writer();
            let mut segment = Segment::unpack(id, writer, r)?;
            let (patches, bytes) = (segment.show(), segment.size());
            let status = LoadStatus::There;
            self.out.push_back(Output::Loaded { segment: index, status, bytes, reset: true, patches });
            document = Some(Box::new(segment));
        }
        if let Some(slot) = self.heap.slot_mut(index) {
            slot.stopped = flags & STOPPED != 0;
            if document.is_some() && flags & LOADING != 0 {
                self.reloading.push(index);
            }
            slot.state = match document {
                before if flags & LOADING != 0 => State::Loading { nonce: None, buffer: Vec::new(), before, redo },
                Some(segment) => State::Live(segment),
                None => State::Away,
            };
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

pub(super) fn pack_commit(
    commit: &Commit,
    admitted: Option<Offset>,
    edits: &[Vec<crate::edit::Edit>],
    out: &mut Vec<u8>,
) {
    out.varint(commit.seq.0);
    Write::u64(out, commit.uid.0);
    Write::u64(out, commit.prev.0);
    out.varint(admitted.map_or(0, |offset| offset.0 + 1));
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
    for (part, edits) in commit.parts.iter().zip(edits) {
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
        out.varint(edits.len() as u64);
        for edit in edits {
            edits::pack(edit, out);
        }
    }
}

type Unpacked = (Commit, Option<Offset>, Vec<Vec<crate::edit::Edit>>);

pub(super) fn unpack_commit(owner: ReplicaId, r: &mut Reader<'_>) -> Result<Unpacked, Malformed> {
    let seq = Seq(r.varint()?);
    let uid = Uid(r.u64()?);
    let prev = Uid(r.u64()?);
    let admitted = r.varint()?.checked_sub(1).map(Offset);
    let name = |r: &mut Reader<'_>| r.str(limits::CLAIM_NAME_BYTES_MAX, "name").map(str::to_owned);
    let claim = match r.u8()? {
        0 => None,
        _ => Some(ClaimOf { group: name(r)?, run: name(r)?, key: name(r)?, grant: r.varint()? }),
    };
    let label = match r.u8()? {
        0 => None,
        _ => Some(r.str(limits::LABEL_BYTES_MAX, "label")?.to_owned()),
    };
    let (mut parts, mut all) = (Vec::new(), Vec::new());
    for _ in 0..r.count(limits::PARTS_MAX, "parts")? {
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
        let mut edits = Vec::new();
        for _ in 0..r.count(COUNT, "edits")? {
            edits.push(edits::unpack(r)?);
        }
        all.push(edits);
    }
    Ok((Commit { owner, seq, uid, prev, after: None, claim, label, parts }, admitted, all))
}
