//! A segment as part of a packed replica (`replica/packed.rs` has the format): its document, and the handles that JavaScript
//! knows its objects by. What else is known of the objects follows from the document when it is shown.

use bytes::Bytes;

use super::creations::Creations;
use super::engine::EngineError;
use super::objects::Sight;
use super::{Segment, is_built_in};
use crate::commit::EngineKind;
use crate::edit::Handle;
use crate::id::{GenId, ObjectId, SegmentId};
use crate::limits;
use crate::value::Kind;
use crate::wire::codec::{Malformed, Reader, Write};

const OBJECTS_MAX: usize = 1 << 24;

/// Why a replica could not be made of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// They are no packed replica, or one of another format.
    #[error("not a packed replica: {0}")]
    Malformed(#[from] Malformed),
    /// A segment cannot be read here.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A generation and its header, which generation 0 does not have.
pub(super) fn read_generation(r: &mut Reader<'_>) -> Result<(GenId, Bytes), Malformed> {
    let generation = r.generation()?;
    if generation.is_zero() {
        return Ok((generation, Bytes::new()));
    }
    let header = r.bytes(limits::GENERATION_HEADER_BYTES_MAX, "header")?;
    Ok((generation, Bytes::copy_from_slice(header)))
}

impl Segment {
    pub(super) fn pack_generation(&self, out: &mut Vec<u8>) {
        out.generation(self.generation);
        if !self.generation.is_zero() {
            Write::bytes(out, &self.header);
        }
    }

    /// Appends `document`.
    pub(crate) fn pack(&self, out: &mut Vec<u8>) {
        self.pack_around(&self.encode(), out);
    }

    /// The same, of one that is without its document, which is in these bytes (L6).
    pub(crate) fn pack_around(&self, snapshot: &[u8], out: &mut Vec<u8>) {
        out.push(self.engine().code());
        self.pack_generation(out);
        out.push(u8::from(self.unborn));
        // Handles above these are borrowed by a redo.
        let handles = self.objects.redo.as_ref().map_or(self.objects.table.len(), |redo| redo.handles);
        out.varint(handles as u64);
        for (handle, object) in self.objects.table.iter().take(handles).enumerate() {
            out.extend_from_slice(&object.id.0);
            out.push(object.kind.code());
            let current = self.objects.by_id.get(&(object.id, object.kind)) == Some(&Handle(handle as u32));
            out.push(u8::from(current));
        }
        self.objects.creations.pack(out);
        Write::bytes(out, snapshot);
    }

    /// Reads `document`. [`Segment::show`] comes next.
    pub(crate) fn unpack(id: SegmentId, writer: u64, r: &mut Reader<'_>) -> Result<Segment, ImportError> {
        Segment::unpack_as(id, writer, r, false).map(|(segment, _)| segment)
    }

    /// The same, without putting the document into it (L6); its bytes.
    pub(crate) fn unpack_shell(
        id: SegmentId,
        writer: u64,
        r: &mut Reader<'_>,
    ) -> Result<(Segment, Bytes), ImportError> {
        Segment::unpack_as(id, writer, r, true)
    }

    fn unpack_as(id: SegmentId, writer: u64, r: &mut Reader<'_>, shell: bool) -> Result<(Segment, Bytes), ImportError> {
        let kind = EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?;
        if !is_built_in(kind) {
            return Err(EngineError::Decode(format!("this module has no engine {kind:?}")).into());
        }
        let (generation, header) = read_generation(r)?;
        let unborn = r.u8()? != 0;
        let mut objects = Vec::new();
        for _ in 0..r.count(OBJECTS_MAX, 1, "objects")? {
            let object = ObjectId(r.array()?);
            let kind = Kind::from_code(r.u8()?).ok_or(Malformed::Field("kind"))?;
            objects.push((object, kind, r.u8()? != 0));
        }
        let creations = Creations::unpack(r)?;
        let snapshot = r.bytes(limits::LONG_BYTES_MAX, "snapshot")?;
        let mut segment = Segment::decode(id, kind, generation, writer, if shell { &[] } else { snapshot }, &[])?;
        let aside = if shell { Bytes::copy_from_slice(snapshot) } else { Bytes::new() };
        segment.grow(aside.len());
        (segment.unborn, segment.header) = (unborn, header);
        segment.objects.creations = creations;
        match objects.first() {
            Some((first, kind, _)) if *first == id.first() => {
                segment.objects.set_first_kind(*kind);
            }
            _ => return Err(Malformed::Field("first object").into()),
        }
        for (object, kind, current) in objects.into_iter().skip(1) {
            let handle = segment.objects.enter(object, kind, Sight::Stale);
            if current {
                segment.objects.by_id.insert((object, kind), handle);
            }
        }
        segment.told = segment.objects.table.len();
        Ok((segment, aside))
    }
}
