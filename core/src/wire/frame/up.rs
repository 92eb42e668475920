//! Frames from replica to relay (`WIRE.md` §4).

use bytes::Bytes;

use super::{Bulk, Chunk, PartFrame, SegRef, VERSION, flag, push_frame, slice};
use crate::id::{EpochId, GenId, Nonce, Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::list::List;

/// A frame from a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Up {
    /// The first frame of a connection.
    Hello(Hello),
    /// A commit.
    Commit(CommitFrame),
    /// Follow a segment and send what it holds.
    Load {
        /// The segment.
        segment: SegRef,
        /// Tells this answer from an earlier one.
        nonce: Nonce,
        /// A stored copy of it that the replica has (L5): what came since is enough, if the copy is usable.
        have: Option<Have>,
    },
    /// All that is held here, for a log that has lost some of it: a [`super::restore::Restore`].
    Restore(Bulk),
    /// Stop following a segment.
    Unfollow {
        /// The segment.
        segment: SegRef,
    },
    /// Ask for the head of the log.
    Sync {
        /// Comes back with the answer.
        nonce: Nonce,
    },
    /// A delta the replica's engine failed on.
    Report {
        /// The segment.
        segment: SegRef,
        /// The entry.
        offset: Offset,
    },
    /// A piece of a long message.
    Chunk(Chunk),
    /// Become a member of a group of workers.
    Join {
        /// Comes back with the answer.
        nonce: Nonce,
        /// The group.
        group: String,
        /// The run; empty: the group's current default run.
        run: String,
        /// How many keys the run has; it has ended when all are done.
        total: u64,
        /// Claims held from before a reconnect, asserted again.
        held: List<(String, u64)>,
        /// Keys known to be done: a relay that was restarted has forgotten them.
        done: List<String>,
    },
    /// Leave a group.
    Leave {
        /// The group.
        group: String,
        /// The run.
        run: String,
    },
    /// Ask for a claim.
    Claim {
        /// Comes back with the answer.
        nonce: Nonce,
        /// The group.
        group: String,
        /// The run.
        run: String,
        /// What is claimed.
        key: String,
    },
    /// Give a claim back, not done.
    Release {
        /// The group.
        group: String,
        /// The run.
        run: String,
        /// What was claimed.
        key: String,
        /// The grant.
        grant: u64,
    },
    /// Tell a group one's state.
    Presence {
        /// The group.
        group: String,
        /// True: forget me.
        clear: bool,
        /// The state, opaque to the relay.
        state: Bytes,
    },
    /// Are you there?
    Ping {
        /// Comes back.
        nonce: Nonce,
    },
}

/// A stored copy of a segment: all that the log has of it below a position, in one of the log's lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Have {
    /// The life of the log that the position is of.
    pub epoch: EpochId,
    /// Everything below it is in the copy, and nothing else.
    pub position: Offset,
    /// The generation of the copy.
    pub generation: GenId,
}

/// The first frame of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Feature bits of the replica.
    pub features: u64,
    /// It holds nothing of this heap yet.
    pub fresh: bool,
    /// It still has to restore what a relay lost.
    pub restoring: bool,
    /// It does not want the heap to be created.
    pub must_exist: bool,
    /// Its token; empty if it has none.
    pub token: String,
    /// Its display name.
    pub name: String,
    /// The heap, as in the URL.
    pub heap: String,
    /// Own ids with the seq acknowledged last; the first one is the replica's.
    pub own: Vec<(ReplicaId, Seq)>,
    /// The epoch of its cut.
    pub epoch: EpochId,
    /// Up to where it has applied.
    pub cut: Offset,
    /// The resident segments, or their first piece: `list(id gen)`.
    pub bulk: Bulk,
}

/// A commit in a frame: ids are indexes into what the Hello declared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitFrame {
    /// Index into the Hello's own ids.
    pub owner: u64,
    /// Its number in that line.
    pub seq: Seq,
    /// Its identity.
    pub uid: Uid,
    /// The uid before it; `None`: of the commit sent before it for this owner on this connection.
    pub prev: Option<Uid>,
    /// A commit of another own id that must come first: index, seq, uid.
    pub after: Option<(u64, Seq, Uid)>,
    /// The claim it stands on.
    pub claim: Option<crate::commit::ClaimOf>,
    /// What the program called it.
    pub label: Option<String>,
    /// What it does.
    pub parts: List<PartFrame>,
}

impl Hello {
    /// Reads the whole bulk: the resident segments.
    pub fn decode_residents(bulk: &[u8]) -> Result<Vec<(SegmentId, GenId)>, Malformed> {
        let mut reader = Reader::new(bulk);
        let count = reader.count(limits::FOLLOWS_MAX, 17, "follows")?;
        let mut residents = Vec::with_capacity(count);
        for _ in 0..count {
            let id = SegmentId(reader.array()?);
            residents.push((id, reader.generation()?));
        }
        reader.end()?;
        Ok(residents)
    }

    /// Writes the whole bulk.
    pub fn encode_residents(residents: &[(SegmentId, GenId)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(residents.len() * 17 + 4);
        out.varint(residents.len() as u64);
        for (id, generation) in residents {
            out.extend_from_slice(&id.0);
            out.generation(*generation);
        }
        out
    }
}

const HELLO: u8 = 0x01;
const COMMIT: u8 = 0x02;
const LOAD: u8 = 0x03;
const UNFOLLOW: u8 = 0x04;
const RESTORE: u8 = 0x05;
const SYNC: u8 = 0x06;
const REPORT: u8 = 0x07;
const CHUNK: u8 = 0x08;
const JOIN: u8 = 0x09;
const LEAVE: u8 = 0x0a;
const CLAIM: u8 = 0x0b;
const RELEASE: u8 = 0x0c;
const PRESENCE: u8 = 0x0d;
const PING: u8 = 0x0e;

impl Up {
    /// Appends the frame to a message.
    pub fn encode(&self, message: &mut Vec<u8>) {
        let mut out = Vec::new();
        let kind = match self {
            Up::Hello(hello) => {
                hello.encode(&mut out);
                HELLO
            }
            Up::Commit(commit) => {
                commit.encode(&mut out);
                COMMIT
            }
            Up::Load { segment, nonce, have } => {
                segment.encode(&mut out);
                out.varint(nonce.0);
                if let Some(have) = have {
                    have.encode(&mut out);
                }
                LOAD
            }
            Up::Unfollow { segment } => {
                segment.encode(&mut out);
                UNFOLLOW
            }
            Up::Restore(bulk) => {
                bulk.encode(&mut out);
                RESTORE
            }
            Up::Sync { nonce } => {
                out.varint(nonce.0);
                SYNC
            }
            Up::Report { segment, offset } => {
                segment.encode(&mut out);
                out.varint(offset.0);
                REPORT
            }
            Up::Chunk(chunk) => {
                chunk.encode(&mut out);
                CHUNK
            }
            Up::Join { nonce, group, run, total, held, done } => {
                out.varint(nonce.0);
                out.str(group);
                out.str(run);
                out.varint(*total);
                held.encode(&mut out);
                done.encode(&mut out);
                JOIN
            }
            Up::Leave { group, run } => {
                out.str(group);
                out.str(run);
                LEAVE
            }
            Up::Claim { nonce, group, run, key } => {
                out.varint(nonce.0);
                out.str(group);
                out.str(run);
                out.str(key);
                CLAIM
            }
            Up::Release { group, run, key, grant } => {
                out.str(group);
                out.str(run);
                out.str(key);
                out.varint(*grant);
                RELEASE
            }
            Up::Presence { group, clear, state } => {
                out.str(group);
                out.push(u8::from(*clear));
                Write::bytes(&mut out, state);
                PRESENCE
            }
            Up::Ping { nonce } => {
                out.varint(nonce.0);
                PING
            }
        };
        push_frame(message, kind, &out);
    }

    /// Reads one frame; `None` for an optional kind that this version does not know.
    pub fn decode(kind: u8, body: &Bytes) -> Result<Option<Up>, Malformed> {
        let mut r = Reader::new(body);
        let name = |r: &mut Reader<'_>| r.str(limits::CLAIM_NAME_BYTES_MAX, "name").map(str::to_owned);
        let up = match kind {
            HELLO => Up::Hello(Hello::decode(body, &mut r)?),
            COMMIT => Up::Commit(CommitFrame::decode(body, &mut r)?),
            LOAD => {
                let (segment, nonce) = (SegRef::decode(&mut r)?, Nonce(r.varint()?));
                Up::Load { segment, nonce, have: if r.is_empty() { None } else { Some(Have::decode(&mut r)?) } }
            }
            UNFOLLOW => Up::Unfollow { segment: SegRef::decode(&mut r)? },
            SYNC => Up::Sync { nonce: Nonce(r.varint()?) },
            REPORT => Up::Report { segment: SegRef::decode(&mut r)?, offset: Offset(r.varint()?) },
            CHUNK => Up::Chunk(Chunk::decode(body, &mut r)?),
            JOIN => {
                let nonce = Nonce(r.varint()?);
                let (group, run, total) = (name(&mut r)?, name(&mut r)?, r.varint()?);
                let held = List::decode(body, &mut r, limits::CLAIMS_MAX, "claims")?;
                let done = List::decode(body, &mut r, limits::CLAIMS_MAX, "done")?;
                Up::Join { nonce, group, run, total, held, done }
            }
            LEAVE => Up::Leave { group: name(&mut r)?, run: name(&mut r)? },
            CLAIM => {
                Up::Claim { nonce: Nonce(r.varint()?), group: name(&mut r)?, run: name(&mut r)?, key: name(&mut r)? }
            }
            RELEASE => Up::Release { group: name(&mut r)?, run: name(&mut r)?, key: name(&mut r)?, grant: r.varint()? },
            PRESENCE => {
                let group = name(&mut r)?;
                let clear = flag(r.u8()?)?;
                Up::Presence { group, clear, state: slice(body, r.bytes(limits::PRESENCE_BYTES_MAX, "presence")?) }
            }
            PING => Up::Ping { nonce: Nonce(r.varint()?) },
            0x80.. => return Ok(None),
            RESTORE => Up::Restore(Bulk::decode(body, &mut r)?),
            _ => return Err(Malformed::Kind(kind)),
        };
        r.end()?;
        Ok(Some(up))
    }
}

impl Have {
    fn encode(&self, out: &mut Vec<u8>) {
        out.epoch(self.epoch);
        out.varint(self.position.0);
        out.generation(self.generation);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Have, Malformed> {
        Ok(Have { epoch: r.epoch()?, position: Offset(r.varint()?), generation: r.generation()? })
    }
}

impl Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"chp");
        out.push(VERSION);
        out.varint(self.features);
        out.varint(u64::from(self.fresh) | u64::from(self.restoring) << 1 | u64::from(self.must_exist) << 2);
        out.str(&self.token);
        out.str(&self.name);
        out.str(&self.heap);
        out.varint(self.own.len() as u64);
        for (id, acked) in &self.own {
            out.extend_from_slice(&id.0);
            out.varint(acked.0);
        }
        out.epoch(self.epoch);
        out.varint(self.cut.0);
        self.bulk.encode(out);
    }

    /// The version a Hello asks for, if the body is a Hello at all; a Hello of another version need not parse further.
    pub fn version_of(body: &[u8]) -> Option<u8> {
        body.strip_prefix(b"chp").and_then(|rest| rest.first().copied())
    }

    fn decode(body: &Bytes, r: &mut Reader<'_>) -> Result<Hello, Malformed> {
        if r.raw(3)? != b"chp" || r.u8()? != VERSION {
            return Err(Malformed::Field("version"));
        }
        let features = r.varint()?;
        let flags = r.varint()?;
        let token = r.str(limits::TOKEN_BYTES_MAX, "token")?.to_owned();
        let name = r.str(limits::NAME_BYTES_MAX, "name")?.to_owned();
        let heap = r.str(limits::HEAP_NAME_BYTES_MAX, "heap")?.to_owned();
        let count = r.count(limits::OWN_IDS_MAX, 17, "own ids")?;
        if count == 0 {
            return Err(Malformed::Field("own ids"));
        }
        let mut own = Vec::with_capacity(count);
        for _ in 0..count {
            let id = ReplicaId(r.array()?);
            if own.iter().any(|(other, _)| *other == id) {
                return Err(Malformed::Field("own ids"));
            }
            own.push((id, Seq(r.varint()?)));
        }
        let epoch = r.epoch()?;
        let cut = Offset(r.varint()?);
        let bulk = Bulk::decode(body, r)?;
        Ok(Hello {
            features,
            fresh: flags & 1 != 0,
            restoring: flags & 2 != 0,
            must_exist: flags & 4 != 0,
            token,
            name,
            heap,
            own,
            epoch,
            cut,
            bulk,
        })
    }
}

impl CommitFrame {
    fn encode(&self, out: &mut Vec<u8>) {
        let flags = u64::from(self.prev.is_some())
            | u64::from(self.after.is_some()) << 1
            | u64::from(self.claim.is_some()) << 2
            | u64::from(self.label.is_some()) << 3;
        out.varint(flags);
        out.varint(self.owner);
        out.varint(self.seq.0);
        Write::u64(out, self.uid.0);
        if let Some(prev) = self.prev {
            Write::u64(out, prev.0);
        }
        if let Some((owner, seq, uid)) = self.after {
            out.varint(owner);
            out.varint(seq.0);
            Write::u64(out, uid.0);
        }
        if let Some(claim) = &self.claim {
            out.str(&claim.group);
            out.str(&claim.run);
            out.str(&claim.key);
            out.varint(claim.grant);
        }
        if let Some(label) = &self.label {
            out.str(label);
        }
        self.parts.encode(out);
    }

    fn decode(body: &Bytes, r: &mut Reader<'_>) -> Result<CommitFrame, Malformed> {
        let flags = r.varint()?;
        if flags > 15 {
            return Err(Malformed::Field("flags"));
        }
        let owner = r.varint()?;
        let seq = Seq(r.varint()?);
        let uid = Uid(r.u64()?);
        if seq.0 == 0 || uid == Uid::NONE {
            return Err(Malformed::Field("seq"));
        }
        let prev = if flags & 1 != 0 { Some(Uid(r.u64()?)) } else { None };
        let after = if flags & 2 != 0 { Some((r.varint()?, Seq(r.varint()?), Uid(r.u64()?))) } else { None };
        let claim = if flags & 4 != 0 {
            let mut name = || r.str(limits::CLAIM_NAME_BYTES_MAX, "claim").map(str::to_owned);
            let (group, run, key) = (name()?, name()?, name()?);
            Some(crate::commit::ClaimOf { group, run, key, grant: r.varint()? })
        } else {
            None
        };
        let label = if flags & 8 != 0 { Some(r.str(limits::LABEL_BYTES_MAX, "label")?.to_owned()) } else { None };
        let parts = List::decode(body, r, limits::PARTS_MAX, "parts")?;
        Ok(CommitFrame { owner, seq, uid, prev, after, claim, label, parts })
    }
}
