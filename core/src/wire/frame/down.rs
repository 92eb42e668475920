//! Frames from relay to replica (`WIRE.md` §5).

mod entry;
mod welcome;

use bytes::Bytes;

pub use self::entry::EntryFrame;
pub use self::welcome::{Fate, Row, Welcome};
use super::restore::RestoredFrame;
use super::roll::RollFrame;
use super::{Bulk, Chunk, SegRef, flag, push_frame, slice};
use crate::id::{GenId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::list::List;

/// A frame from the relay.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Down {
    /// The answer to a Hello.
    Ok(Welcome),
    /// An entry of the log.
    Entry(EntryFrame),
    /// A segment goes over to another generation.
    Roll(RollFrame),
    /// An entry that was made of what a replica held, for a log that had lost it.
    Restored(RestoredFrame),
    /// Entries below this position that were not sent hold nothing for this connection.
    Advance {
        /// The position.
        position: Offset,
    },
    /// Commits up to `seq` of this owner are durable.
    Ack {
        /// Index into the Hello's own ids.
        owner: u64,
        /// The newest one.
        seq: Seq,
        /// A durable position that covers it.
        position: Offset,
    },
    /// The answer to a Load: the state exactly at `position`.
    Snapshot {
        /// Of the Load.
        nonce: Nonce,
        /// Where it stands.
        position: Offset,
        /// One [`super::SegmentState`].
        bulk: Bulk,
        /// L5: it has no snapshot, and its deltas are those since the position of the copy that the Load named. Both together
        /// are the state.
        onto_copy: bool,
    },
    /// Not admitted: made against an old generation.
    Rebase {
        /// Whose.
        owner: u64,
        /// Which.
        seq: Seq,
        /// The segment.
        segment: SegRef,
        /// Its current generation.
        generation: GenId,
    },
    /// Not admitted: another commit has this number.
    Conflict {
        /// Whose.
        owner: u64,
        /// Which.
        seq: Seq,
        /// The uid that the log has at the line's last number.
        uid: Uid,
    },
    /// Refused for good; its place in the line is void.
    Refused {
        /// Whose.
        owner: u64,
        /// Which.
        seq: Seq,
        /// Its uid.
        uid: Uid,
        /// Why.
        code: u64,
        /// A durable position that covers the void entry.
        position: Offset,
    },
    /// Not now.
    Busy {
        /// Whose.
        owner: u64,
        /// From this number on.
        seq: Seq,
        /// Why.
        code: u64,
        /// When to send again.
        retry_ms: u64,
    },
    /// The relay knows nothing of this id, but it has sent commits before.
    Unknown {
        /// Which own id.
        owner: u64,
    },
    /// The head of the log when the Sync came.
    SyncAt {
        /// Of the Sync.
        nonce: Nonce,
        /// The head.
        position: Offset,
    },
    /// A piece of a long message.
    Chunk(Chunk),
    /// From here on these numbers name these segments.
    Names(Vec<(SegmentNumber, SegmentId)>),
    /// From here on this number names this author.
    Author {
        /// The number.
        number: u64,
        /// The replica.
        replica: ReplicaId,
        /// Its display name.
        name: String,
        /// The subject of its token.
        subject: String,
    },
    /// The answer to a Join.
    Joined {
        /// Of the Join.
        nonce: Nonce,
        /// The group.
        group: String,
        /// The run that was joined.
        run: String,
        /// Index of the joining replica among the members.
        member: u64,
    },
    /// A group as it is now; sent when it changes.
    Group {
        /// The group.
        group: String,
        /// The run.
        run: String,
        /// Its members.
        members: Vec<ReplicaId>,
        /// Keys that are done.
        done: List<String>,
        /// Claimed keys and the index of the member that holds each.
        held: List<(String, u64)>,
    },
    /// The answer to a Claim.
    Claimed {
        /// Of the Claim.
        nonce: Nonce,
        /// The group.
        group: String,
        /// The run.
        run: String,
        /// The key.
        key: String,
        /// The grant, if it was granted.
        grant: u64,
        /// How it stands.
        state: ClaimState,
    },
    /// A claim is no longer this replica's.
    Lost {
        /// The group.
        group: String,
        /// The run.
        run: String,
        /// The key.
        key: String,
        /// The grant that ended.
        grant: u64,
    },
    /// A member's presence.
    Member {
        /// The group.
        group: String,
        /// Who.
        replica: ReplicaId,
        /// It is no longer there.
        gone: bool,
        /// How long it has been there.
        since_ms: u64,
        /// Its display name.
        name: String,
        /// The subject of its token.
        subject: String,
        /// Its state.
        state: Bytes,
    },
    /// Here I am.
    Pong {
        /// Of the Ping.
        nonce: Nonce,
    },
    /// An entry of the log: a part that no engine can take in is left out from here on (CORE-PROTOCOL R12).
    Quarantine {
        /// Its place in the log.
        offset: Offset,
        /// The segment.
        segment: SegRef,
        /// The entry that has the part.
        at: Offset,
        /// The client id that wrote it, and from which of its clocks on nothing of it counts.
        client: Option<(u64, u32)>,
    },
    /// The answer to a Report: the segment is to be loaded anew. What was reported is left out now, or the relay's engine takes it in.
    Reload {
        /// The segment.
        segment: SegRef,
        /// As it was reported.
        at: Offset,
    },
    /// What was asked for is not done, and nothing has changed.
    Declined {
        /// What it was.
        asked: Asked,
        /// Of the frame that asked.
        nonce: Nonce,
        /// Why.
        code: u64,
    },
}

/// What a replica may be told a Declined for; on the wire the kind of the frame that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A Load: the segment is not followed.
    Load,
    /// A Join: the replica is no member.
    Join,
    /// A Claim: nothing is granted.
    Claim,
    /// A Presence, which has no nonce (0): it is not shown.
    Presence,
    /// A Report, whose nonce is its offset: nobody looks at it now. The segment stays as it is with the replica.
    Report,
}

/// How a claim stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimState {
    /// It is yours.
    Granted,
    /// It is another's.
    Held,
    /// It is done.
    Done,
}

const OK: u8 = 0x41;
const ENTRY: u8 = 0x42;
const ROLL: u8 = 0x43;
const RESTORED: u8 = 0x44;
const ADVANCE: u8 = 0x45;
const ACK: u8 = 0x46;
const SNAPSHOT: u8 = 0x47;
const REBASE: u8 = 0x48;
const CONFLICT: u8 = 0x49;
const REFUSED: u8 = 0x4a;
const BUSY: u8 = 0x4b;
const UNKNOWN: u8 = 0x4c;
const SYNC_AT: u8 = 0x4d;
const CHUNK: u8 = 0x4e;
const NAMES: u8 = 0x4f;
const AUTHOR: u8 = 0x50;
const JOINED: u8 = 0x51;
const GROUP: u8 = 0x52;
const CLAIMED: u8 = 0x53;
const LOST: u8 = 0x54;
const MEMBER: u8 = 0x55;
const PONG: u8 = 0x56;
const QUARANTINE: u8 = 0x57;
const RELOAD: u8 = 0x58;
/// Optional: who does not know it waits for an answer that does not come, as before there was one.
const DECLINED: u8 = 0xc0;

impl Down {
    /// Appends the frame to a message (or to frames that will be sent in one).
    pub fn encode(&self, message: &mut Vec<u8>) {
        let mut out = Vec::new();
        let kind = self.encode_body(&mut out);
        push_frame(message, kind, &out);
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Down::Ok(welcome) => {
                welcome.encode(out);
                OK
            }
            Down::Entry(entry) => {
                entry.encode(out);
                ENTRY
            }
            Down::Roll(roll) => {
                roll.encode(out);
                ROLL
            }
            Down::Restored(restored) => {
                restored.encode(out);
                RESTORED
            }
            Down::Advance { position } => {
                out.varint(position.0);
                ADVANCE
            }
            Down::Ack { owner, seq, position } => {
                out.varint(*owner);
                out.varint(seq.0);
                out.varint(position.0);
                ACK
            }
            Down::Snapshot { nonce, position, bulk, onto_copy } => {
                out.varint(nonce.0);
                out.varint(position.0);
                bulk.encode(out);
                if *onto_copy {
                    out.push(1);
                }
                SNAPSHOT
            }
            Down::Rebase { owner, seq, segment, generation } => {
                out.varint(*owner);
                out.varint(seq.0);
                segment.encode(out);
                out.generation(*generation);
                REBASE
            }
            Down::Conflict { owner, seq, uid } => {
                out.varint(*owner);
                out.varint(seq.0);
                Write::u64(out, uid.0);
                CONFLICT
            }
            Down::Refused { owner, seq, uid, code, position } => {
                out.varint(*owner);
                out.varint(seq.0);
                Write::u64(out, uid.0);
                out.varint(*code);
                out.varint(position.0);
                REFUSED
            }
            Down::Busy { owner, seq, code, retry_ms } => {
                for value in [*owner, seq.0, *code, *retry_ms] {
                    out.varint(value);
                }
                BUSY
            }
            Down::Unknown { owner } => {
                out.varint(*owner);
                UNKNOWN
            }
            Down::SyncAt { nonce, position } => {
                out.varint(nonce.0);
                out.varint(position.0);
                SYNC_AT
            }
            Down::Chunk(chunk) => {
                chunk.encode(out);
                CHUNK
            }
            Down::Names(names) => {
                out.varint(names.len() as u64);
                for (number, id) in names {
                    out.varint(number.0);
                    out.extend_from_slice(&id.0);
                }
                NAMES
            }
            Down::Author { number, replica, name, subject } => {
                out.varint(*number);
                out.extend_from_slice(&replica.0);
                out.str(name);
                out.str(subject);
                AUTHOR
            }
            Down::Joined { nonce, group, run, member } => {
                out.varint(nonce.0);
                out.str(group);
                out.str(run);
                out.varint(*member);
                JOINED
            }
            Down::Group { group, run, members, done, held } => {
                out.str(group);
                out.str(run);
                out.varint(members.len() as u64);
                for member in members {
                    out.extend_from_slice(&member.0);
                }
                done.encode(out);
                held.encode(out);
                GROUP
            }
            Down::Claimed { nonce, group, run, key, grant, state } => {
                out.varint(nonce.0);
                out.str(group);
                out.str(run);
                out.str(key);
                out.varint(*grant);
                out.push(match state {
                    ClaimState::Granted => 0,
                    ClaimState::Held => 1,
                    ClaimState::Done => 2,
                });
                CLAIMED
            }
            Down::Lost { group, run, key, grant } => {
                out.str(group);
                out.str(run);
                out.str(key);
                out.varint(*grant);
                LOST
            }
            Down::Member { group, replica, gone, since_ms, name, subject, state } => {
                out.str(group);
                out.extend_from_slice(&replica.0);
                out.push(u8::from(*gone));
                out.varint(*since_ms);
                out.str(name);
                out.str(subject);
                Write::bytes(out, state);
                MEMBER
            }
            Down::Pong { nonce } => {
                out.varint(nonce.0);
                PONG
            }
            Down::Quarantine { offset, segment, at, client } => {
                out.varint(offset.0);
                segment.encode(out);
                out.varint(at.0);
                out.push(u8::from(client.is_some()));
                if let Some((client, clock)) = client {
                    out.varint(*client);
                    out.varint(u64::from(*clock));
                }
                QUARANTINE
            }
            Down::Reload { segment, at } => {
                segment.encode(out);
                out.varint(at.0);
                RELOAD
            }
            Down::Declined { asked, nonce, code } => {
                out.push(match asked {
                    Asked::Load => 0x03,
                    Asked::Join => 0x09,
                    Asked::Claim => 0x0b,
                    Asked::Presence => 0x0d,
                    Asked::Report => 0x07,
                });
                out.varint(nonce.0);
                out.varint(*code);
                DECLINED
            }
        }
    }

    /// Reads one frame; `None` for an optional kind that this version does not know.
    pub fn decode(kind: u8, body: &Bytes) -> Result<Option<Down>, Malformed> {
        let mut r = Reader::new(body);
        let name = |r: &mut Reader<'_>| r.str(limits::CLAIM_NAME_BYTES_MAX, "name").map(str::to_owned);
        let down = match kind {
            OK => Down::Ok(Welcome::decode(body, &mut r)?),
            ENTRY => Down::Entry(EntryFrame::decode(body, &mut r)?),
            ROLL => Down::Roll(RollFrame::decode(body, &mut r)?),
            RESTORED => Down::Restored(RestoredFrame::decode(body, &mut r)?),
            ADVANCE => Down::Advance { position: Offset(r.varint()?) },
            ACK => Down::Ack { owner: r.varint()?, seq: Seq(r.varint()?), position: Offset(r.varint()?) },
            SNAPSHOT => {
                let (nonce, position) = (Nonce(r.varint()?), Offset(r.varint()?));
                let bulk = Bulk::decode(body, &mut r)?;
                // A copy that is not used is not mentioned.
                let onto_copy = !r.is_empty();
                if onto_copy && !flag(r.u8()?)? {
                    return Err(Malformed::Field("onto a copy"));
                }
                Down::Snapshot { nonce, position, bulk, onto_copy }
            }
            REBASE => Down::Rebase {
                owner: r.varint()?,
                seq: Seq(r.varint()?),
                segment: SegRef::decode(&mut r)?,
                generation: r.generation()?,
            },
            CONFLICT => Down::Conflict { owner: r.varint()?, seq: Seq(r.varint()?), uid: Uid(r.u64()?) },
            REFUSED => Down::Refused {
                owner: r.varint()?,
                seq: Seq(r.varint()?),
                uid: Uid(r.u64()?),
                code: r.varint()?,
                position: Offset(r.varint()?),
            },
            BUSY => Down::Busy { owner: r.varint()?, seq: Seq(r.varint()?), code: r.varint()?, retry_ms: r.varint()? },
            UNKNOWN => Down::Unknown { owner: r.varint()? },
            SYNC_AT => Down::SyncAt { nonce: Nonce(r.varint()?), position: Offset(r.varint()?) },
            CHUNK => Down::Chunk(Chunk::decode(body, &mut r)?),
            NAMES => {
                let count = r.count(limits::FOLLOWS_MAX, 17, "names")?;
                let mut names = Vec::with_capacity(count);
                for _ in 0..count {
                    names.push((SegmentNumber(r.varint()?), SegmentId(r.array()?)));
                }
                Down::Names(names)
            }
            AUTHOR => Down::Author {
                number: r.varint()?,
                replica: ReplicaId(r.array()?),
                name: r.str(limits::NAME_BYTES_MAX, "name")?.to_owned(),
                subject: r.str(limits::NAME_BYTES_MAX, "subject")?.to_owned(),
            },
            JOINED => Down::Joined {
                nonce: Nonce(r.varint()?),
                group: name(&mut r)?,
                run: name(&mut r)?,
                member: r.varint()?,
            },
            GROUP => {
                let (group, run) = (name(&mut r)?, name(&mut r)?);
                let count = r.count(limits::CLAIMS_MAX, 16, "members")?;
                let mut members = Vec::with_capacity(count);
                for _ in 0..count {
                    members.push(ReplicaId(r.array()?));
                }
                let done = List::decode(body, &mut r, limits::CLAIMS_MAX, "done")?;
                let held = List::decode(body, &mut r, limits::CLAIMS_MAX, "held")?;
                Down::Group { group, run, members, done, held }
            }
            CLAIMED => Down::Claimed {
                nonce: Nonce(r.varint()?),
                group: name(&mut r)?,
                run: name(&mut r)?,
                key: name(&mut r)?,
                grant: r.varint()?,
                state: match r.u8()? {
                    0 => ClaimState::Granted,
                    1 => ClaimState::Held,
                    2 => ClaimState::Done,
                    _ => return Err(Malformed::Field("state")),
                },
            },
            LOST => Down::Lost { group: name(&mut r)?, run: name(&mut r)?, key: name(&mut r)?, grant: r.varint()? },
            MEMBER => Down::Member {
                group: name(&mut r)?,
                replica: ReplicaId(r.array()?),
                gone: flag(r.u8()?)?,
                since_ms: r.varint()?,
                name: r.str(limits::NAME_BYTES_MAX, "name")?.to_owned(),
                subject: r.str(limits::NAME_BYTES_MAX, "subject")?.to_owned(),
                state: slice(body, r.bytes(limits::PRESENCE_BYTES_MAX, "presence")?),
            },
            PONG => Down::Pong { nonce: Nonce(r.varint()?) },
            QUARANTINE => {
                let (offset, segment, at) = (Offset(r.varint()?), SegRef::decode(&mut r)?, Offset(r.varint()?));
                let client = if flag(r.u8()?)? {
                    let client = r.varint()?;
                    Some((client, u32::try_from(r.varint()?).map_err(|_| Malformed::Limit("clock"))?))
                } else {
                    None
                };
                Down::Quarantine { offset, segment, at, client }
            }
            RELOAD => Down::Reload { segment: SegRef::decode(&mut r)?, at: Offset(r.varint()?) },
            DECLINED => Down::Declined {
                asked: match r.u8()? {
                    0x03 => Asked::Load,
                    0x09 => Asked::Join,
                    0x0b => Asked::Claim,
                    0x0d => Asked::Presence,
                    0x07 => Asked::Report,
                    // The frame is optional, so what it says of a frame that is not known here is passed over too.
                    _ => return Ok(None),
                },
                nonce: Nonce(r.varint()?),
                code: r.varint()?,
            },
            0x80.. => return Ok(None),
            _ => return Err(Malformed::Kind(kind)),
        };
        r.end()?;
        Ok(Some(down))
    }
}
