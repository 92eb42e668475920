//! A copy of a segment as it can be kept anywhere: the whole document, and of which place of which life of the log it is
//! (CORE-PROTOCOL L5). A later load goes on from it, if the relay finds that it is a beginning of what the log has.
//!
//! ```text
//! copy := "chcopy" format:u8=1 segment:16 engine:u8 layout:u8 generation epoch position:varint state:bytes sum:u64
//!         state: as in a Restore (`WIRE.md` §4); sum: of all that is before it
//! ```
//!
//! Primitives are those of `WIRE.md` §2. Neither the header of the generation nor a clock table is in it: the header comes with
//! the answer to the load, with the lines of who asks; the table is made of the document when it is needed, as after any load.
//! The bytes may have been anywhere. The checksum finds damage, the guard judges the state before an engine gets it (R10), as it
//! does what replicas give back; what is wrong all the same, the relay's whole state takes the place of.

use bytes::Bytes;

use super::{Segment, checksum};
use crate::commit::{EngineKind, LAYOUT};
use crate::id::{EpochId, GenId, Offset, SegmentId};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::frame::up::Have;

const MAGIC: &[u8; 6] = b"chcopy";
const FORMAT: u8 = 1;
const SUM_BYTES: usize = 8;

/// A segment as it was at a cut: all that the log has of it below a position, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentCopy {
    /// Which segment.
    pub id: SegmentId,
    /// What merges it.
    pub engine: EngineKind,
    /// Its generation.
    pub generation: GenId,
    /// The life of the log that the position is of.
    pub epoch: EpochId,
    /// Everything below it is in the document.
    pub position: Offset,
    /// The document (`Engine::whole`).
    pub state: Bytes,
}

/// Why bytes are not used as a copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// They are no copy, or one of another format.
    #[error("not a copy of a segment: {0}")]
    Malformed(#[from] Malformed),
    /// They are not as they were written.
    #[error("the checksum of a copy differs")]
    Damaged,
    /// The document is laid out in a way that this version does not know.
    #[error("a copy of layout {0}")]
    Layout(u8),
}

impl SegmentCopy {
    /// Of a document that has all below this position, and nothing else. `None` if it is too large to be loaded in one piece, or if no
    /// log knows it: then there is nothing that a relay would not say in fewer bytes.
    pub fn of(document: &Segment, epoch: EpochId, position: Offset) -> Option<SegmentCopy> {
        if document.is_unborn() {
            return None;
        }
        let state = Bytes::from(document.whole());
        let (id, engine, generation) = (document.id(), document.engine(), document.generation());
        let copy = SegmentCopy { id, engine, generation, epoch, position, state };
        (copy.state.len() <= limits::LONG_BYTES_MAX).then_some(copy)
    }

    /// What a Load says of it.
    pub fn have(&self) -> Have {
        Have { epoch: self.epoch, position: self.position, generation: self.generation }
    }

    /// As it is kept.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.state.len() + 96);
        out.extend_from_slice(MAGIC);
        out.push(FORMAT);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&[self.engine.code(), LAYOUT]);
        out.generation(self.generation);
        out.epoch(self.epoch);
        out.varint(self.position.0);
        Write::bytes(&mut out, &self.state);
        let sum = checksum(&out);
        Write::u64(&mut out, sum);
        out
    }

    /// Reads one; its state shares `bytes`. It is whole then, and nothing is known of what it says.
    pub fn decode(bytes: &Bytes) -> Result<SegmentCopy, CopyError> {
        let end = bytes.len().checked_sub(SUM_BYTES).ok_or(Malformed::Truncated)?;
        let (told, sum) = bytes.split_at_checked(end).ok_or(Malformed::Truncated)?;
        let r = &mut Reader::new(told);
        if &r.array::<6>()? != MAGIC {
            return Err(Malformed::Field("copy").into());
        }
        match r.u8()? {
            FORMAT => {}
            other => return Err(Malformed::Kind(other).into()),
        }
        if Reader::new(sum).u64()? != checksum(told) {
            return Err(CopyError::Damaged);
        }
        let id = SegmentId(r.array()?);
        let engine = EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?;
        match r.u8()? {
            LAYOUT => {}
            other => return Err(CopyError::Layout(other)),
        }
        let generation = r.generation()?;
        let (epoch, position) = (r.epoch()?, Offset(r.varint()?));
        let state = bytes.slice_ref(r.bytes(limits::LONG_BYTES_MAX, "state")?);
        r.end()?;
        Ok(SegmentCopy { id, engine, generation, epoch, position, state })
    }
}
