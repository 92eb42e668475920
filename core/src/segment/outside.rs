//! What is kept of a segment outside of its instance (`replica/outside.rs` has the picture): the bytes its document was made of,
//! the objects that JavaScript knows by handle, and what this replica put under absent keys. All of it is handed out as it
//! comes about, so that a document can be made again when nothing in this memory is to be trusted any more.
//!
//! ```text
//! kept := list of item, up to the end; the first is a document
//! item := 1 engine:u8 generation [header:bytes] unborn:u8 snapshot:bytes list(delta:bytes)    the document as it was made;
//!                                                                      header: not of generation 0
//!       | 2 own:u8 list(delta:bytes)                                         changes since, in order; own 1: of this replica
//!       | 3 list(object:16 kind:u8)       the next handles, from 1 on; of several that an object has the last is current
//!       | 4 creations                     (`replica/packed.rs`)
//!       | 5 uid:u64                       this commit was undone: what it created is no more
//!       | 6                               it is packed, and has no mirror (L6)
//!       | 7 at:varint owner:16 list(delta:bytes)    an entry behind that, which nobody has looked at yet
//! ```

use bytes::Bytes;

use super::creations::Creations;
use super::engine::EngineError;
use super::objects::Sight;
use super::packed::ImportError;
use super::{Segment, is_built_in};
use crate::commit::EngineKind;
use crate::id::{ObjectId, Offset, ReplicaId, SegmentId, Uid};
use crate::limits;
use crate::value::Kind;
use crate::wire::codec::{Malformed, Reader, Write};

const DOCUMENT: u8 = 1;
const DELTAS: u8 = 2;
const OBJECTS: u8 = 3;
const CREATIONS: u8 = 4;
const UNDONE: u8 = 5;
const AT_REST: u8 = 6;
const QUEUED: u8 = 7;

/// What entries did to a packed segment: their places, whose they are, deltas.
pub(crate) type Queue = Vec<(Offset, ReplicaId, Vec<Bytes>)>;

const COUNT: usize = 1 << 24;

impl Segment {
    /// Everything, where the document was made of this snapshot and these deltas.
    pub(crate) fn keep_made(&mut self, snapshot: &[u8], deltas: &[Bytes]) -> Vec<u8> {
        let size = snapshot.len() + deltas.iter().map(Bytes::len).sum::<usize>();
        let mut out = Vec::with_capacity(size + 64);
        out.push(DOCUMENT);
        out.push(self.engine().code());
        self.pack_generation(&mut out);
        out.push(u8::from(self.unborn));
        Write::bytes(&mut out, snapshot);
        list(deltas, &mut out);
        self.told = 1;
        self.keep_objects(&mut out);
        if !self.objects.creations.is_empty() {
            out.push(CREATIONS);
            self.objects.creations.pack(&mut out);
        }
        out
    }

    /// Everything, in few bytes.
    pub(crate) fn keep_whole(&mut self) -> Vec<u8> {
        let snapshot = self.encode();
        self.keep_made(&snapshot, &[])
    }

    /// Everything, of one without its document, which is in these bytes.
    pub(crate) fn keep_packed(&mut self, snapshot: &[u8], at_rest: bool) -> Vec<u8> {
        let mut out = self.keep_made(snapshot, &[]);
        out.extend(at_rest.then_some(AT_REST));
        out
    }

    /// What an entry did to one that is packed.
    pub(crate) fn keep_queued(at: Offset, owner: ReplicaId, deltas: &[Bytes]) -> Vec<u8> {
        let mut out = vec![QUEUED];
        out.varint(at.0);
        out.extend_from_slice(&owner.0);
        list(deltas, &mut out);
        out
    }

    /// What deltas of others did.
    pub(crate) fn keep_applied(&mut self, deltas: &[Bytes]) -> Vec<u8> {
        let mut out = vec![DELTAS, 0];
        list(deltas, &mut out);
        self.keep_objects(&mut out);
        out
    }

    /// What a commit of this replica did.
    pub(crate) fn keep_edited(&mut self, delta: &Bytes, uid: Uid) -> Vec<u8> {
        let mut out = Vec::with_capacity(delta.len() + 16);
        out.extend_from_slice(&[DELTAS, 1]);
        list(std::slice::from_ref(delta), &mut out);
        self.keep_objects(&mut out);
        let made = self.objects.creations.made_by(uid);
        if !made.is_empty() {
            out.push(CREATIONS);
            made.pack(&mut out);
        }
        out
    }

    /// What this commit of this replica did is over.
    pub(crate) fn keep_undone(uid: Uid) -> Vec<u8> {
        let mut out = vec![UNDONE];
        Write::u64(&mut out, uid.0);
        out
    }

    /// The objects that got handles since this was last asked.
    fn keep_objects(&mut self, out: &mut Vec<u8>) {
        let new = self.objects.table.get(self.told..).unwrap_or_default();
        if new.is_empty() {
            return;
        }
        out.push(OBJECTS);
        out.varint(new.len() as u64);
        for object in new {
            out.extend_from_slice(&object.id.0);
            out.push(object.kind.code());
        }
        self.told = self.objects.table.len();
    }

    /// A segment of what was kept. [`Segment::show`] comes next, and tells a mirror nothing that it does not hold. With a queue it is
    /// to be packed, and has no mirror.
    pub(crate) fn recover(id: SegmentId, writer: u64, kept: &Bytes) -> Result<(Segment, Option<Queue>), ImportError> {
        let r = &mut Reader::new(kept);
        if r.u8()? != DOCUMENT {
            return Err(Malformed::Field("kept segment").into());
        }
        let engine = EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?;
        if !is_built_in(engine) {
            return Err(EngineError::Decode(format!("this module has no engine {engine:?}")).into());
        }
        let (generation, header) = super::packed::read_generation(r)?;
        let mut unborn = r.u8()? != 0;
        let snapshot = r.bytes(limits::LONG_BYTES_MAX, "snapshot")?;
        let mut deltas = read_list(kept, r)?;
        let (mut objects, mut creations, mut at_rest) = (Vec::new(), Creations::default(), None);
        while r.remaining() > 0 {
            match r.u8()? {
                DELTAS => {
                    unborn &= r.u8()? != 0;
                    deltas.extend(read_list(kept, r)?);
                }
                OBJECTS => {
                    for _ in 0..r.count(COUNT, 1, "objects")? {
                        let object = ObjectId(r.array()?);
                        objects.push((object, Kind::from_code(r.u8()?).ok_or(Malformed::Field("kind"))?));
                    }
                }
                CREATIONS => creations.extend(Creations::unpack(r)?),
                AT_REST => at_rest = Some(Queue::new()),
                QUEUED => {
                    let (at, owner) = (Offset(r.varint()?), ReplicaId(r.array()?));
                    let queue = at_rest.as_mut().ok_or(Malformed::Field("queue"))?;
                    queue.push((at, owner, read_list(kept, r)?));
                }
                UNDONE => creations.undone(Uid(r.u64()?)),
                other => return Err(Malformed::Kind(other).into()),
            }
        }
        let mut segment = Segment::decode(id, engine, generation, writer, snapshot, &deltas)?;
        (segment.unborn, segment.header) = (unborn, header);
        for (object, kind) in objects {
            let handle = segment.objects.enter(object, kind, Sight::Stale);
            segment.objects.by_id.insert((object, kind), handle);
        }
        segment.objects.creations.extend(creations);
        segment.told = segment.objects.table.len();
        Ok((segment, at_rest))
    }

    /// After [`Segment::show`]: forgets the creations that are over, whose loss was told before.
    pub(crate) fn recovered(&mut self) -> Result<(), EngineError> {
        self.check_creations();
        self.take_overruled();
        // What a mirror shows has a handle; a new one here would be one that it never hears of.
        if self.told != self.objects.table.len() {
            return Err(EngineError::Failed("a segment that was made again shows what it did not show before".into()));
        }
        Ok(())
    }
}

fn list(deltas: &[Bytes], out: &mut Vec<u8>) {
    out.varint(deltas.len() as u64);
    for delta in deltas {
        Write::bytes(out, delta);
    }
}

fn read_list(kept: &Bytes, r: &mut Reader<'_>) -> Result<Vec<Bytes>, Malformed> {
    let mut deltas = Vec::new();
    for _ in 0..r.count(COUNT, 1, "deltas")? {
        deltas.push(kept.slice_ref(r.bytes(limits::LONG_BYTES_MAX, "delta")?));
    }
    Ok(deltas)
}
