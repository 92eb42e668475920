//! What a lost log is repaired with (CORE-PROTOCOL D1, D4): the bulks of Restore and Restored. Both are long messages.

use bytes::Bytes;

use super::{Bulk, SegmentState, slice};
use crate::commit::EngineKind;
use crate::id::{GenId, Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::list::{Item, List};

/// One commit of a line: whose, its number, its uid.
pub type Place<O> = (O, Seq, Uid);
/// The same, and the hash of its content.
pub type Content<O> = (O, Seq, Uid, u64);

/// The bulk of a Restore: all that a replica holds resident. Lines are named by their index in the Hello.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restore {
    /// Of each own id the last commit that was acknowledged or refused; the uid by which its line goes on.
    pub acked: Vec<Place<u64>>,
    /// The own commits that are not acknowledged and whose parts the states hold.
    pub pending: Vec<Place<u64>>,
    /// The segments.
    pub segments: List<HeldSegment>,
    /// Of the same lines, what is in the pending commits, and was in those up to the acknowledged one that were admitted.
    pub known: Vec<Content<u64>>,
}

/// A whole segment as a replica holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldSegment {
    /// Its id.
    pub id: SegmentId,
    /// What merges it.
    pub engine: EngineKind,
    /// Its layout version.
    pub layout: u8,
    /// The generation it is of.
    pub generation: GenId,
    /// The generation's header; empty for generation 0.
    pub header: Bytes,
    /// Everything it holds, as a delta.
    pub state: Bytes,
}

/// The frame Restored: an entry of the log that was repaired with what some replica held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoredFrame {
    /// Its place in the log.
    pub offset: Offset,
    /// It is this connection's own: its bulk has the state of every segment that the connection follows.
    pub yours: bool,
    /// Where the states stand, and the stream goes on; behind the entry if it is not `yours`.
    pub position: Offset,
    /// A [`Restored`].
    pub bulk: Bulk,
}

/// The bulk of a Restored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Commits that are not in the log by themselves, and whose parts the states hold.
    pub pending: Vec<Place<ReplicaId>>,
    /// Lines that go on from here at the earliest.
    pub acked: Vec<Place<ReplicaId>>,
    /// The segments.
    pub segments: List<(Verdict, SegmentState)>,
}

/// What became of what a replica held of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It was merged.
    Merged,
    /// The log has all of it.
    Nothing,
    /// It is of another generation: the log's state stays.
    Conflict,
    /// It was not given.
    NotGiven,
}

impl Verdict {
    /// The log has what was given.
    pub fn is_taken(self) -> bool {
        matches!(self, Verdict::Merged | Verdict::Nothing)
    }
}

fn encode_places<O: Copy>(places: &[Place<O>], owner: impl Fn(O, &mut Vec<u8>), out: &mut Vec<u8>) {
    out.varint(places.len() as u64);
    for (of, seq, uid) in places {
        owner(*of, out);
        out.varint(seq.0);
        Write::u64(out, uid.0);
    }
}

fn decode_places<O>(
    r: &mut Reader<'_>,
    max: usize,
    each: usize,
    owner: impl Fn(&mut Reader<'_>) -> Result<O, Malformed>,
) -> Result<Vec<Place<O>>, Malformed> {
    let count = r.count(max, each, "commits")?;
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        places.push((owner(r)?, Seq(r.varint()?), Uid(r.u64()?)));
    }
    Ok(places)
}

fn encode_contents<O: Copy>(contents: &[Content<O>], owner: impl Fn(O, &mut Vec<u8>), out: &mut Vec<u8>) {
    out.varint(contents.len() as u64);
    for (of, seq, uid, hash) in contents {
        owner(*of, out);
        out.varint(seq.0);
        Write::u64(out, uid.0);
        Write::u64(out, *hash);
    }
}

fn decode_contents<O>(
    r: &mut Reader<'_>,
    each: usize,
    owner: impl Fn(&mut Reader<'_>) -> Result<O, Malformed>,
) -> Result<Vec<Content<O>>, Malformed> {
    let count = r.count(limits::RESTORE_KNOWN_MAX, each, "known")?;
    // Where there are none, there is no list.
    if count == 0 {
        return Err(Malformed::Field("known"));
    }
    let mut contents = Vec::with_capacity(count);
    for _ in 0..count {
        contents.push((owner(r)?, Seq(r.varint()?), Uid(r.u64()?), r.u64()?));
    }
    Ok(contents)
}

/// A line as its index in the Hello.
fn index(r: &mut Reader<'_>) -> Result<u64, Malformed> {
    r.varint()
}

/// Appends a list of commits of lines that are named by id.
pub(crate) fn encode_lines(places: &[Place<ReplicaId>], out: &mut Vec<u8>) {
    encode_places(places, |id, out| out.extend_from_slice(&id.0), out);
}

/// Reads one.
pub(crate) fn decode_lines(r: &mut Reader<'_>, max: usize) -> Result<Vec<Place<ReplicaId>>, Malformed> {
    decode_places(r, max, 25, |r| r.array().map(ReplicaId))
}

/// Appends a list of commits, with what is in them, of lines that are named by id.
pub(crate) fn encode_known(known: &[Content<ReplicaId>], out: &mut Vec<u8>) {
    encode_contents(known, |id, out| out.extend_from_slice(&id.0), out);
}

/// Reads one.
pub(crate) fn decode_known(r: &mut Reader<'_>) -> Result<Vec<Content<ReplicaId>>, Malformed> {
    decode_contents(r, 33, |r| r.array().map(ReplicaId))
}

impl Restore {
    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode_places(&self.acked, |of, out| out.varint(of), &mut out);
        encode_places(&self.pending, |of, out| out.varint(of), &mut out);
        self.segments.encode(&mut out);
        if !self.known.is_empty() {
            encode_contents(&self.known, |of, out| out.varint(of), &mut out);
        }
        out
    }

    /// Reads one that fills `whole`; its states share it.
    pub fn decode(whole: &Bytes) -> Result<Restore, Malformed> {
        let r = &mut Reader::new(whole);
        let acked = decode_places(r, limits::OWN_IDS_MAX, 10, index)?;
        let pending = decode_places(r, limits::RESTORE_PENDING_MAX, 10, index)?;
        let segments = List::decode(whole, r, limits::FOLLOWS_MAX, "segments")?;
        let known = if r.is_empty() { Vec::new() } else { decode_contents(r, 18, index)? };
        r.end()?;
        Ok(Restore { acked, pending, segments, known })
    }
}

impl Item for HeldSegment {
    /// Id, engine, layout, generation, two lengths.
    const BYTES_MIN: usize = 21;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.push(self.engine.code());
        out.push(self.layout);
        out.generation(self.generation);
        Write::bytes(out, &self.header);
        Write::bytes(out, &self.state);
    }

    fn take(whole: &Bytes, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = SegmentId(r.array()?);
        let engine = EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?;
        let layout = r.u8()?;
        let generation = r.generation()?;
        let header = slice(whole, r.bytes(limits::GENERATION_HEADER_BYTES_MAX, "header")?);
        let state = slice(whole, r.bytes(limits::LONG_BYTES_MAX, "state")?);
        Ok(HeldSegment { id, engine, layout, generation, header, state })
    }
}

impl RestoredFrame {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.offset.0);
        out.varint(u64::from(self.yours));
        out.varint(self.position.0);
        self.bulk.encode(out);
    }

    pub(super) fn decode(body: &Bytes, r: &mut Reader<'_>) -> Result<RestoredFrame, Malformed> {
        let offset = Offset(r.varint()?);
        let yours = match r.varint()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed::Field("flags")),
        };
        let position = Offset(r.varint()?);
        Ok(RestoredFrame { offset, yours, position, bulk: Bulk::decode(body, r)? })
    }
}

impl Restored {
    /// Its encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode_lines(&self.pending, &mut out);
        encode_lines(&self.acked, &mut out);
        self.segments.encode(&mut out);
        out
    }

    /// Reads one that fills `whole`; its states share it.
    pub fn decode(whole: &Bytes) -> Result<Restored, Malformed> {
        let r = &mut Reader::new(whole);
        let pending = decode_lines(r, limits::RESTORE_PENDING_MAX)?;
        let acked = decode_lines(r, limits::OWN_IDS_MAX)?;
        let segments = List::decode(whole, r, limits::FOLLOWS_MAX, "segments")?;
        r.end()?;
        Ok(Restored { pending, acked, segments })
    }
}

impl Item for (Verdict, SegmentState) {
    const BYTES_MIN: usize = 1 + SegmentState::BYTES_MIN;

    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self.0 {
            Verdict::Merged => 0,
            Verdict::Nothing => 1,
            Verdict::Conflict => 2,
            Verdict::NotGiven => 3,
        });
        self.1.encode(out);
    }

    fn take(whole: &Bytes, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let verdict = match r.u8()? {
            0 => Verdict::Merged,
            1 => Verdict::Nothing,
            2 => Verdict::Conflict,
            3 => Verdict::NotGiven,
            _ => return Err(Malformed::Field("verdict")),
        };
        Ok((verdict, SegmentState::decode(whole, r)?))
    }
}
