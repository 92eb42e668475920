//! Log entries as they are stored: what the relay's order is made of. Every reader of a log (relay, replay, fold, checker)
//! reads these. The store wraps a batch of them in a record with length, checksum and chain (`sync-server/STORE.md`).

use bytes::Bytes;

use crate::commit::EngineKind;
use crate::id::{GenId, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::frame::restore::{Content, Place, decode_known, decode_lines, encode_known, encode_lines};
use crate::wire::frame::{PART_CREATE, PART_DELTA};
use crate::wire::list::{Item, List};

/// One entry of a heap's log; its place in the log is its offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogEntry {
    /// An admitted commit.
    Commit(StoredCommit),
    /// A refused one: it keeps its place in its line, with no effect (CORE-PROTOCOL R11).
    Void {
        /// Whose line.
        owner: ReplicaId,
        /// Its number.
        seq: Seq,
        /// The uid of the refused commit; the line goes on from its complement.
        uid: Uid,
        /// Why (`WIRE.md` §7).
        code: u64,
    },
    /// What a replica still held of a log that was lost (CORE-PROTOCOL D4).
    Restored(StoredRestore),
    /// From here on a segment is of another generation (CORE-PROTOCOL G1).
    Roll(StoredRoll),
    /// A part that no engine can take in: it counts for nothing from here on, as if it had never been (CORE-PROTOCOL R12).
    Quarantine(StoredQuarantine),
}

/// A generation as it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRoll {
    /// The segment's number in this log.
    pub segment: SegmentNumber,
    /// The new generation.
    pub generation: GenId,
    /// The one that it follows.
    pub parent: GenId,
    /// Its [`crate::wire::frame::roll::GenerationHeader`], which says both again, and whose commits are in the snapshot.
    pub header: Bytes,
    /// Its first document, in the stored form of a segment: everything below this entry.
    pub snapshot: Bytes,
}

/// A part that is left out, and what goes with it. All of it follows from the log before this entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredQuarantine {
    /// The segment's number in this log.
    pub segment: SegmentNumber,
    /// The generation of the part.
    pub generation: GenId,
    /// The entry that has it.
    pub offset: Offset,
    /// The client id that it was written as and its first clock, if it adds anything: from there on nothing of that id counts.
    pub client: Option<(u64, u32)>,
    /// The later parts of that client id, ascending: these entries' parts of the segment are left out too. There are none behind
    /// this entry.
    pub later: List<Distance>,
}

/// What a replica has given back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRestore {
    /// The replica.
    pub by: ReplicaId,
    /// Commits that are not in the log by themselves, and whose parts the states hold.
    pub pending: Vec<Place<ReplicaId>>,
    /// Lines that go on from here at the earliest.
    pub acked: Vec<Place<ReplicaId>>,
    /// Its segments, those that the log had whole included.
    pub segments: List<RestoredSegment>,
    /// What is in the pending commits, as far as it is known, and was in commits of those lines that the replica knows to have been
    /// admitted: one of those is taken in again from who still has it.
    pub known: Vec<Content<ReplicaId>>,
}

/// One segment of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoredSegment {
    /// The segment's number in this log.
    pub segment: SegmentNumber,
    /// The generation of the state.
    pub generation: GenId,
    /// Set when this entry creates the segment in this log.
    pub creates: Option<Created>,
    /// True: from here on the segment is of that generation, which was made in a log that is lost (CORE-PROTOCOL D4). Like a
    /// [`StoredRoll`], it takes the place of all deltas before it.
    pub adopts: bool,
    /// The header of a generation that is adopted; else empty.
    pub header: Bytes,
    /// The whole segment, merged with what the log had of it, as a delta; empty if that added nothing. Where it is adopted: the
    /// whole segment in the stored form.
    pub state: Bytes,
}

/// An admitted commit: headers resolved to ids and log numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredCommit {
    /// Whose line.
    pub owner: ReplicaId,
    /// Name and subject, stored with an author's first commit in this log.
    pub author: Option<AuthorInfo>,
    /// Its number in its line.
    pub seq: Seq,
    /// Its identity.
    pub uid: Uid,
    /// What the program called it.
    pub label: Option<String>,
    /// What it does.
    pub parts: List<StoredPart>,
}

/// Who a replica says it is, and what its token proved.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuthorInfo {
    /// The display name given to `open()`.
    pub name: String,
    /// The subject of its token; empty without one.
    pub subject: String,
}

/// One part in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredPart {
    /// The segment's number in this log.
    pub segment: SegmentNumber,
    /// The generation it was admitted against.
    pub generation: GenId,
    /// 0 delta, 1 create, ≥ 0x80 opaque: as on the wire.
    pub kind: u8,
    /// Set when this entry creates the segment in this log (whatever the part's kind).
    pub creates: Option<Created>,
    /// Engine bytes.
    pub bytes: Bytes,
}

/// A segment's birth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Created {
    /// Its id.
    pub id: SegmentId,
    /// What merges it.
    pub engine: EngineKind,
    /// Its layout version.
    pub layout: u8,
}

impl Created {
    /// Appends the stored form: 0 where nothing is created.
    fn encode(creates: Option<Created>, out: &mut Vec<u8>) {
        out.push(u8::from(creates.is_some()));
        if let Some(created) = creates {
            out.extend_from_slice(&created.id.0);
            out.push(created.engine.code());
            out.push(created.layout);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Option<Created>, Malformed> {
        match reader.u8()? {
            0 => Ok(None),
            1 => Created::read(true, reader),
            _ => Err(Malformed::Field("creates")),
        }
    }

    fn read(is_there: bool, reader: &mut Reader<'_>) -> Result<Option<Created>, Malformed> {
        if !is_there {
            return Ok(None);
        }
        let id = SegmentId(reader.array()?);
        let engine = EngineKind::from_code(reader.u8()?).ok_or(Malformed::Field("engine"))?;
        Ok(Some(Created { id, engine, layout: reader.u8()? }))
    }
}

impl LogEntry {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            LogEntry::Commit(commit) => {
                out.push(0);
                out.extend_from_slice(&commit.owner.0);
                out.varint(commit.seq.0);
                Write::u64(out, commit.uid.0);
                out.push(u8::from(commit.author.is_some()) | u8::from(commit.label.is_some()) << 1);
                if let Some(author) = &commit.author {
                    out.str(&author.name);
                    out.str(&author.subject);
                }
                if let Some(label) = &commit.label {
                    out.str(label);
                }
                commit.parts.encode(out);
            }
            LogEntry::Void { owner, seq, uid, code } => {
                out.push(1);
                out.extend_from_slice(&owner.0);
                out.varint(seq.0);
                Write::u64(out, uid.0);
                out.varint(*code);
            }
            LogEntry::Restored(restore) => {
                out.push(if restore.known.is_empty() { 2 } else { 5 });
                restore.encode(out);
                if !restore.known.is_empty() {
                    encode_known(&restore.known, out);
                }
            }
            LogEntry::Quarantine(quarantine) => {
                out.push(4);
                quarantine.encode(out);
            }
            LogEntry::Roll(roll) => {
                out.push(3);
                out.varint(roll.segment.0);
                out.generation(roll.generation);
                out.generation(roll.parent);
                Write::bytes(out, &roll.header);
                Write::bytes(out, &roll.snapshot);
            }
        }
    }

    /// The deltas in it, each with its segment; a whole segment is one more delta of it, to whoever reads its state. Not the
    /// document of a new generation: it takes the place of all deltas before it.
    pub fn deltas(&self) -> Vec<(SegmentNumber, Bytes)> {
        match self {
            LogEntry::Commit(commit) => {
                let deltas = commit.parts.iter().filter(|part| matches!(part.kind, PART_DELTA | PART_CREATE));
                deltas.map(|part| (part.segment, part.bytes)).collect()
            }
            LogEntry::Void { .. } | LogEntry::Roll(_) | LogEntry::Quarantine(_) => Vec::new(),
            LogEntry::Restored(restore) => {
                let added = restore.segments.iter().filter(|part| !part.state.is_empty() && !part.adopts);
                added.map(|part| (part.segment, part.state)).collect()
            }
        }
    }

    /// Reads one entry; `whole` is the buffer that `reader` walks, so that deltas share it.
    pub fn decode(whole: &Bytes, reader: &mut Reader<'_>) -> Result<LogEntry, Malformed> {
        match reader.u8()? {
            0 => {
                let owner = ReplicaId(reader.array()?);
                let seq = Seq(reader.varint()?);
                let uid = Uid(reader.u64()?);
                let flags = reader.u8()?;
                if flags > 3 {
                    return Err(Malformed::Field("flags"));
                }
                let author = if flags & 1 != 0 {
                    let name = reader.str(limits::NAME_BYTES_MAX, "name")?.to_owned();
                    let subject = reader.str(limits::NAME_BYTES_MAX, "subject")?.to_owned();
                    Some(AuthorInfo { name, subject })
                } else {
                    None
                };
                let label =
                    if flags & 2 != 0 { Some(reader.str(limits::LABEL_BYTES_MAX, "label")?.to_owned()) } else { None };
                let parts = List::decode(whole, reader, limits::PARTS_MAX, "parts")?;
                Ok(LogEntry::Commit(StoredCommit { owner, author, seq, uid, label, parts }))
            }
            1 => Ok(LogEntry::Void {
                owner: ReplicaId(reader.array()?),
                seq: Seq(reader.varint()?),
                uid: Uid(reader.u64()?),
                code: reader.varint()?,
            }),
            2 => Ok(LogEntry::Restored(StoredRestore::decode(whole, reader)?)),
            3 => Ok(LogEntry::Roll(StoredRoll {
                segment: SegmentNumber(reader.varint()?),
                generation: reader.generation()?,
                parent: reader.generation()?,
                header: whole.slice_ref(reader.bytes(limits::GENERATION_HEADER_BYTES_MAX, "header")?),
                snapshot: whole.slice_ref(reader.bytes(limits::LONG_BYTES_MAX, "snapshot")?),
            })),
            4 => Ok(LogEntry::Quarantine(StoredQuarantine::decode(whole, reader)?)),
            5 => {
                let restore = StoredRestore::decode(whole, reader)?;
                Ok(LogEntry::Restored(StoredRestore { known: decode_known(reader)?, ..restore }))
            }
            kind => Err(Malformed::Kind(kind)),
        }
    }
}

impl Item for StoredPart {
    /// Number, generation, kind, whether it creates, length.
    const BYTES_MIN: usize = 5;

    fn put(&self, out: &mut Vec<u8>) {
        out.varint(self.segment.0);
        out.generation(self.generation);
        out.push(self.kind);
        Created::encode(self.creates, out);
        Write::bytes(out, &self.bytes);
    }

    fn take(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let segment = SegmentNumber(reader.varint()?);
        let generation = reader.generation()?;
        let kind = reader.u8()?;
        let creates = Created::decode(reader)?;
        let bytes = whole.slice_ref(reader.bytes(limits::LONG_BYTES_MAX, "delta")?);
        Ok(StoredPart { segment, generation, kind, creates, bytes })
    }
}

impl Item for RestoredSegment {
    /// Number, generation, flags, two lengths.
    const BYTES_MIN: usize = 5;

    fn put(&self, out: &mut Vec<u8>) {
        out.varint(self.segment.0);
        out.generation(self.generation);
        // Bit 0: it creates the segment, as in a commit. Bit 1: it is adopted.
        let at = out.len();
        Created::encode(self.creates, out);
        if let Some(flags) = out.get_mut(at) {
            *flags |= u8::from(self.adopts) << 1;
        }
        Write::bytes(out, &self.header);
        Write::bytes(out, &self.state);
    }

    fn take(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let segment = SegmentNumber(reader.varint()?);
        let generation = reader.generation()?;
        let flags = reader.u8()?;
        if flags > 3 {
            return Err(Malformed::Field("flags"));
        }
        let (creates, adopts) = (Created::read(flags & 1 != 0, reader)?, flags & 2 != 0);
        let header = whole.slice_ref(reader.bytes(limits::GENERATION_HEADER_BYTES_MAX, "header")?);
        let state = whole.slice_ref(reader.bytes(limits::LONG_BYTES_MAX, "state")?);
        Ok(RestoredSegment { segment, generation, creates, adopts, header, state })
    }
}

/// What an entry lies behind the one before it in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Distance(u64);

impl Item for Distance {
    const BYTES_MIN: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        out.varint(self.0);
    }

    fn take(_: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.varint().map(Distance)
    }
}

impl StoredQuarantine {
    /// The entries whose part of the segment is left out.
    pub fn skipped(&self) -> impl Iterator<Item = Offset> + '_ {
        std::iter::once(self.offset).chain(self.later())
    }

    /// The later parts.
    pub fn later(&self) -> impl Iterator<Item = Offset> + '_ {
        self.later.iter().scan(self.offset, |last, distance| {
            *last = Offset(last.0.saturating_add(distance.0));
            Some(*last)
        })
    }

    /// Later parts, ascending, as they are kept: each by its distance.
    pub fn behind(offset: Offset, later: impl IntoIterator<Item = Offset>) -> List<Distance> {
        let distances = later.into_iter().scan(offset, |last, next| {
            let distance = Distance(next.0.saturating_sub(last.0));
            *last = next;
            Some(distance)
        });
        distances.collect()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.segment.0);
        out.generation(self.generation);
        out.varint(self.offset.0);
        match self.client {
            None => out.push(0),
            Some((client, clock)) => {
                out.push(1);
                out.varint(client);
                out.varint(u64::from(clock));
            }
        }
        self.later.encode(out);
    }

    fn decode(whole: &Bytes, reader: &mut Reader<'_>) -> Result<StoredQuarantine, Malformed> {
        let segment = SegmentNumber(reader.varint()?);
        let generation = reader.generation()?;
        let offset = Offset(reader.varint()?);
        let client = match reader.u8()? {
            0 => None,
            1 => {
                let client = reader.varint()?;
                let clock = u32::try_from(reader.varint()?).map_err(|_| Malformed::Limit("clock"))?;
                Some((client, clock))
            }
            _ => return Err(Malformed::Field("client")),
        };
        let later: List<Distance> = List::decode(whole, reader, limits::QUARANTINE_LATER_MAX, "later")?;
        let mut last = offset.0;
        for Distance(distance) in &later {
            last = last.checked_add(distance).filter(|_| distance > 0).ok_or(Malformed::Field("later"))?;
        }
        Ok(StoredQuarantine { segment, generation, offset, client, later })
    }
}

impl StoredRestore {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.by.0);
        encode_lines(&self.pending, out);
        encode_lines(&self.acked, out);
        self.segments.encode(out);
    }

    fn decode(whole: &Bytes, reader: &mut Reader<'_>) -> Result<StoredRestore, Malformed> {
        let by = ReplicaId(reader.array()?);
        let pending = decode_lines(reader, limits::RESTORE_PENDING_MAX)?;
        let acked = decode_lines(reader, limits::OWN_IDS_MAX)?;
        let segments = List::decode(whole, reader, limits::FOLLOWS_MAX, "segments")?;
        Ok(StoredRestore { by, pending, acked, segments, known: Vec::new() })
    }
}
