//! One type per frame of `WIRE.md`: what they hold, how they are read and written. [`up`] goes from replica to relay,
//! [`down`] from relay to replica. Reading is total: bytes in, frames or [`Malformed`] out. Next: `../relay.rs`, `../replica.rs`.

pub mod down;
pub mod restore;
pub mod roll;
pub mod up;

use bytes::Bytes;

use super::codec::{Malformed, Reader, Write};
use super::list::{Item, List};
use crate::commit::EngineKind;
use crate::id::{GenId, SegmentId, SegmentNumber};
use crate::limits;

pub use down::Down;
pub use up::Up;

/// Protocol version of this build.
pub const VERSION: u8 = 1;

/// How a frame names a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SegRef {
    /// By its id.
    Id(SegmentId),
    /// By its number in the log, once the relay has declared it on this connection.
    Number(SegmentNumber),
}

/// The bulk of a long message: all of it (`stream` 0) or its first piece.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bulk {
    /// 0: complete. Otherwise chunks with this number follow.
    pub stream: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// A further piece of a long message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Which long message.
    pub stream: u64,
    /// True for the last piece.
    pub last: bool,
    /// The piece.
    pub bytes: Bytes,
}

/// A part as it stands in a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartFrame {
    /// 0 delta, 1 create, 2 delete, ≥ 0x80 optional. Others are read too: a relay refuses the commit, a replica stops
    /// showing the segment.
    pub kind: u8,
    /// The segment.
    pub segment: SegRef,
    /// The generation.
    pub generation: GenId,
    /// Engine and layout, for kind 1.
    pub create: Option<(EngineKind, u8)>,
    /// The delta.
    pub bytes: Bytes,
}

/// A part that changes a segment.
pub const PART_DELTA: u8 = 0;
/// A part that creates a segment.
pub const PART_CREATE: u8 = 1;
/// A part that deletes a segment.
pub const PART_DELETE: u8 = 2;
/// From here on a part may be passed over by who does not know its kind.
pub const PART_OPTIONAL: u8 = 0x80;

/// A message taken apart: (kind, body) pairs, each body a slice of the message. The whole of it has been looked through, and
/// nothing is allocated for frames of two bytes each.
pub fn split(message: &Bytes) -> Result<Frames, Malformed> {
    if message.len() > limits::FRAME_BYTES_MAX {
        return Err(Malformed::Limit("message"));
    }
    let mut reader = Reader::new(message);
    if reader.varint()? != 0 {
        return Err(Malformed::Field("channel"));
    }
    let rest = message.slice_ref(reader.take_rest());
    let mut reader = Reader::new(&rest);
    while !reader.is_empty() {
        reader.u8()?;
        reader.bytes(limits::FRAME_BYTES_MAX, "frame")?;
    }
    if rest.is_empty() { Err(Malformed::Truncated) } else { Ok(Frames { rest }) }
}

/// The frames of a message, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frames {
    rest: Bytes,
}

impl Iterator for Frames {
    type Item = (u8, Bytes);

    fn next(&mut self) -> Option<(u8, Bytes)> {
        let mut reader = Reader::new(&self.rest);
        let kind = reader.u8().ok()?;
        let body = self.rest.slice_ref(reader.bytes(limits::FRAME_BYTES_MAX, "frame").ok()?);
        self.rest = self.rest.slice_ref(reader.take_rest());
        Some((kind, body))
    }
}

/// Appends a frame to a message under construction.
pub fn push_frame(message: &mut Vec<u8>, kind: u8, body: &[u8]) {
    message.push(kind);
    Write::bytes(message, body);
}

/// A message of channel 0 without frames yet.
pub fn new_message() -> Vec<u8> {
    vec![0]
}

/// One whole message around encoded frames (each as [`Down::encode`] or [`Up::encode`] appends them).
pub fn message_of(frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len() + 1);
    out.push(0);
    out.extend_from_slice(frames);
    out
}

fn slice(whole: &Bytes, part: &[u8]) -> Bytes {
    whole.slice_ref(part)
}

fn flag(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Field("flag")),
    }
}

impl SegRef {
    fn encode(self, out: &mut Vec<u8>) {
        match self {
            SegRef::Id(id) => {
                out.push(0);
                out.extend_from_slice(&id.0);
            }
            SegRef::Number(number) => out.varint(number.0 + 1),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.varint()? {
            0 => Ok(SegRef::Id(SegmentId(reader.array()?))),
            n => Ok(SegRef::Number(SegmentNumber(n - 1))),
        }
    }
}

impl Bulk {
    /// A bulk in one piece.
    pub fn whole(bytes: Bytes) -> Self {
        Bulk { stream: 0, bytes }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.stream);
        Write::bytes(out, &self.bytes);
    }

    fn decode(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let stream = reader.varint()?;
        Ok(Bulk { stream, bytes: slice(whole, reader.bytes(limits::FRAME_BYTES_MAX, "bulk")?) })
    }
}

impl Chunk {
    fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.stream);
        out.push(u8::from(self.last));
        Write::bytes(out, &self.bytes);
    }

    fn decode(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let stream = reader.varint()?;
        let last = flag(reader.u8()?)?;
        Ok(Chunk { stream, last, bytes: slice(whole, reader.bytes(limits::CHUNK_BYTES_MAX, "chunk")?) })
    }
}

impl Item for PartFrame {
    /// Kind, segment, generation, length.
    const BYTES_MIN: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        self.segment.encode(out);
        out.generation(self.generation);
        if let Some((engine, layout)) = self.create {
            out.push(engine.code());
            out.push(layout);
        }
        Write::bytes(out, &self.bytes);
    }

    fn take(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = reader.u8()?;
        let segment = SegRef::decode(reader)?;
        let generation = reader.generation()?;
        let create = if kind == PART_CREATE {
            let engine = EngineKind::from_code(reader.u8()?).ok_or(Malformed::Field("engine"))?;
            Some((engine, reader.u8()?))
        } else {
            None
        };
        let bytes = slice(whole, reader.bytes(limits::COMMIT_BYTES_MAX_RELAY, "delta")?);
        Ok(PartFrame { kind, segment, generation, create, bytes })
    }
}

/// A delta.
impl Item for Bytes {
    const BYTES_MIN: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        Write::bytes(out, self);
    }

    fn take(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(slice(whole, reader.bytes(limits::LONG_BYTES_MAX, "delta")?))
    }
}

/// A key that is done.
impl Item for String {
    const BYTES_MIN: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        out.str(self);
    }

    fn take(_: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.str(limits::CLAIM_NAME_BYTES_MAX, "name").map(str::to_owned)
    }
}

/// A key that is held: with its grant, or the index of the member that holds it.
impl Item for (String, u64) {
    const BYTES_MIN: usize = 2;

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        out.varint(self.1);
    }

    fn take(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((String::take(whole, reader)?, reader.varint()?))
    }
}

/// What the relay holds of a segment, as a load or catch-up carries it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentState {
    /// Its id.
    pub id: SegmentId,
    /// Its number in the log; `None` if the log does not know it.
    pub number: Option<SegmentNumber>,
    /// Whether it is there.
    pub status: SegmentStatus,
    /// What merges it.
    pub engine: EngineKind,
    /// Its layout version.
    pub layout: u8,
    /// Its current generation.
    pub generation: GenId,
    /// The header of that generation ([`roll::GenerationHeader`]), with the lines of the connection's own ids; empty for
    /// generation 0, which has none.
    pub header: Bytes,
    /// The stored snapshot; empty if there is none yet.
    pub snapshot: Bytes,
    /// Deltas since the snapshot, in log order.
    pub deltas: List<Bytes>,
}

/// The outcomes of looking for a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentStatus {
    /// The log does not know it: an empty segment of generation 0.
    Unknown,
    /// It is there.
    Alive,
    /// It was deleted.
    Deleted,
    /// It cannot be read until its bad delta is skipped.
    Quarantined,
}

impl SegmentState {
    /// Appends its encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.varint(self.number.map_or(0, |n| n.0 + 1));
        out.push(match self.status {
            SegmentStatus::Unknown => 0,
            SegmentStatus::Alive => 1,
            SegmentStatus::Deleted => 2,
            SegmentStatus::Quarantined => 3,
        });
        out.push(self.engine.code());
        out.push(self.layout);
        out.generation(self.generation);
        if !self.generation.is_zero() {
            Write::bytes(out, &self.header);
        }
        Write::bytes(out, &self.snapshot);
        self.deltas.encode(out);
    }

    /// Reads one; its bytes share `whole`.
    pub fn decode(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = SegmentId(reader.array()?);
        let number = reader.varint()?.checked_sub(1).map(SegmentNumber);
        let status = match reader.u8()? {
            0 => SegmentStatus::Unknown,
            1 => SegmentStatus::Alive,
            2 => SegmentStatus::Deleted,
            3 => SegmentStatus::Quarantined,
            _ => return Err(Malformed::Field("status")),
        };
        let engine = EngineKind::from_code(reader.u8()?).ok_or(Malformed::Field("engine"))?;
        let layout = reader.u8()?;
        let generation = reader.generation()?;
        let header = match generation.is_zero() {
            true => Bytes::new(),
            false => slice(whole, reader.bytes(limits::GENERATION_HEADER_BYTES_MAX, "header")?),
        };
        let snapshot = slice(whole, reader.bytes(limits::LONG_BYTES_MAX, "snapshot")?);
        let deltas = List::decode(whole, reader, usize::MAX, "deltas")?;
        Ok(SegmentState { id, number, status, engine, layout, generation, header, snapshot, deltas })
    }

    /// Reads a catch-up: a list of states that fills `whole`.
    pub fn decode_list(whole: &Bytes) -> Result<List<Self>, Malformed> {
        let mut reader = Reader::new(whole);
        let states = List::decode(whole, &mut reader, limits::FOLLOWS_MAX, "segments")?;
        reader.end()?;
        Ok(states)
    }
}

impl Item for SegmentState {
    /// Id, number, status, engine, layout, generation, two lengths.
    const BYTES_MIN: usize = 23;

    fn put(&self, out: &mut Vec<u8>) {
        self.encode(out);
    }

    fn take(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        SegmentState::decode(whole, reader)
    }
}

/// Puts the pieces of long messages together, within bounds. One per direction of a connection.
#[derive(Debug)]
pub struct Assembly<H> {
    streams: std::collections::BTreeMap<u64, (H, Vec<u8>)>,
}

impl<H> Default for Assembly<H> {
    fn default() -> Self {
        Assembly::new()
    }
}

impl<H> Assembly<H> {
    /// Nothing under way.
    pub fn new() -> Self {
        Assembly { streams: std::collections::BTreeMap::new() }
    }

    /// Whether something is under way.
    pub fn is_open(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Takes a head: gives it back with its bulk if that is complete, else waits for chunks.
    pub fn head(&mut self, head: H, bulk: Bulk) -> Result<Option<(H, Bytes)>, Malformed> {
        if bulk.stream == 0 {
            return Ok(Some((head, bulk.bytes)));
        }
        if self.streams.len() >= limits::LONG_STREAMS_MAX {
            return Err(Malformed::Limit("streams"));
        }
        if self.streams.insert(bulk.stream, (head, bulk.bytes.to_vec())).is_some() {
            return Err(Malformed::Field("stream"));
        }
        Ok(None)
    }

    /// Takes a chunk: gives head and whole bulk with the last one. A stream that is not open was given up: ignored.
    pub fn chunk(&mut self, chunk: &Chunk) -> Result<Option<(H, Bytes)>, Malformed> {
        let Some((_, pieces)) = self.streams.get_mut(&chunk.stream) else { return Ok(None) };
        if pieces.len() + chunk.bytes.len() > limits::LONG_BYTES_MAX {
            return Err(Malformed::Limit("long message"));
        }
        pieces.extend_from_slice(&chunk.bytes);
        if !chunk.last {
            return Ok(None);
        }
        Ok(self.streams.remove(&chunk.stream).map(|(head, bytes)| (head, Bytes::from(bytes))))
    }
}
