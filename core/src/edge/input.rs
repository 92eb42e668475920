//! Calls: from bytes to [`Input`]. JavaScript is trusted to mean well, not to be right: everything is checked.

use bytes::Bytes;

use crate::commit::{ClaimOf, EngineKind};
use crate::edit::{Handle, Literal, Wish};
use crate::heap::Index;
use crate::id::{Nonce, ObjectId, SegmentId};
use crate::limits;
use crate::replica::{Input, Options, Section, Target, WaitKind};
use crate::value::{Kind, Ref, Value};
use crate::wire::codec::{Malformed, Reader};
use crate::wire::frame::Up;

/// A call that cannot be understood: the package's two halves do not match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operation {op}: {why}")]
pub struct BadCall {
    /// Which.
    pub op: u32,
    /// Why.
    pub why: Malformed,
}

const TEXT: usize = limits::LONG_BYTES_MAX;
const COUNT: usize = 1 << 24;

/// Reads the options of `new Replica`.
pub fn options(bytes: &[u8]) -> Result<Options, Malformed> {
    let mut r = Reader::new(bytes);
    let seed = r.array()?;
    let heap = r.str(limits::HEAP_NAME_BYTES_MAX, "heap")?.to_owned();
    let name = r.str(limits::NAME_BYTES_MAX, "name")?.to_owned();
    let must_exist = r.varint()? & 1 != 0;
    let max_unsaved = r.length(usize::MAX, "max unsaved")?;
    r.end()?;
    Ok(Options { seed, heap, name, must_exist, max_unsaved })
}

/// Reads a call: its time and what it asks for.
pub fn read(op: u32, bytes: &[u8]) -> Result<(u64, Input), BadCall> {
    call(op, bytes).map_err(|why| BadCall { op, why })
}

fn call(op: u32, bytes: &[u8]) -> Result<(u64, Input), Malformed> {
    let mut reader = Reader::new(bytes);
    let r = &mut reader;
    let now = r.varint()?;
    let input = match op {
        0 => Input::Tick,
        1 => {
            let entropy = r.u64()?;
            let size = r.remaining();
            let label = r.str(limits::LABEL_BYTES_MAX, "label")?.to_owned();
            let count = r.count(COUNT, 1, "sections")?;
            let mut sections = Vec::with_capacity(count.min(limits::PARTS_MAX));
            for _ in 0..count {
                sections.push(section(r)?);
            }
            Input::Commit { label, sections, size, entropy }
        }
        2 => Input::Receive(Bytes::copy_from_slice(r.take_rest())),
        3 => {
            let entropy = [r.u64()?, r.u64()?, r.u64()?, r.u64()?];
            Input::Connected { token: r.str(limits::TOKEN_BYTES_MAX, "token")?.to_owned(), entropy }
        }
        4 => Input::Disconnected,
        5 => {
            let count = r.count(COUNT, 1, "segments")?;
            let mut segments = Vec::with_capacity(count.min(limits::FOLLOWS_MAX));
            for _ in 0..count {
                segments.push((SegmentId(r.array()?), r.u8()? != 0));
            }
            Input::Load(segments)
        }
        6 => Input::Evict(index(r)?),
        7 => {
            let ticket = r.varint()?;
            let kind = match r.u8()? {
                0 => WaitKind::Flush,
                1 => WaitKind::Sync,
                2 => WaitKind::Version,
                3 => WaitKind::Reach(r.str(TEXT, "version")?.to_owned()),
                _ => return Err(Malformed::Field("wait")),
            };
            Input::Wait { ticket, kind }
        }
        8 => Input::Cancel { ticket: r.varint()? },
        9 => Input::Dump(index(r)?),
        10 => {
            let parent = SegmentId(r.array()?);
            Input::Derive { parent, count: r.varint()?, name: r.str(limits::KEY_BYTES_MAX, "name")?.to_owned() }
        }
        11 => {
            let nonce = Nonce(r.varint()?);
            let (group, run, total) = (name(r)?, name(r)?, r.varint()?);
            let mut held = Vec::new();
            for _ in 0..r.count(limits::CLAIMS_MAX, 1, "held")? {
                held.push((name(r)?, r.varint()?));
            }
            let mut done = Vec::new();
            for _ in 0..r.count(limits::CLAIMS_MAX, 1, "done")? {
                done.push(name(r)?);
            }
            let (held, done) = (held.into(), done.into());
            Input::Forward(Up::Join { nonce, group, run, total, held, done })
        }
        12 => Input::Forward(Up::Leave { group: name(r)?, run: name(r)? }),
        13 => Input::Forward(Up::Claim { nonce: Nonce(r.varint()?), group: name(r)?, run: name(r)?, key: name(r)? }),
        14 => Input::Forward(Up::Release { group: name(r)?, run: name(r)?, key: name(r)?, grant: r.varint()? }),
        15 => {
            let group = name(r)?;
            let clear = r.u8()? != 0;
            let state = Bytes::copy_from_slice(r.bytes(limits::PRESENCE_BYTES_MAX, "presence")?);
            Input::Forward(Up::Presence { group, clear, state })
        }
        16 => Input::Object { segment: index(r)?, handle: handle(r)? },
        17 => Input::Find { segment: index(r)?, object: ObjectId(r.array()?) },
        18 => Input::Stats,
        19 => Input::Export,
        20 => Input::Import(Bytes::copy_from_slice(r.take_rest())),
        21 => Input::Replaced,
        22 => Input::Resume(Bytes::copy_from_slice(r.take_rest())),
        23 => Input::Restore { segment: index(r)?, kept: Bytes::copy_from_slice(r.take_rest()) },
        24 => Input::Keep(index(r)?),
        25 => Input::Pack { segment: index(r)?, mirrored: r.u8()? != 0 },
        _ => return Err(Malformed::Kind(u8::try_from(op).unwrap_or(u8::MAX))),
    };
    reader.end()?;
    Ok((now, input))
}

fn name(r: &mut Reader<'_>) -> Result<String, Malformed> {
    r.str(limits::CLAIM_NAME_BYTES_MAX, "name").map(str::to_owned)
}

fn index(r: &mut Reader<'_>) -> Result<Index, Malformed> {
    small(r).map(Index)
}

fn handle(r: &mut Reader<'_>) -> Result<Handle, Malformed> {
    small(r).map(Handle)
}

fn small(r: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(r.varint()?).map_err(|_| Malformed::Limit("number"))
}

fn section(r: &mut Reader<'_>) -> Result<Section, Malformed> {
    let target = match small(r)? {
        0 => {
            let id = SegmentId(r.array()?);
            Target::New(id, EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?)
        }
        n => Target::Here(Index(n - 1)),
    };
    let claim = match r.u8()? {
        0 => None,
        _ => Some(ClaimOf { group: name(r)?, run: name(r)?, key: name(r)?, grant: r.varint()? }),
    };
    let mut edits = Reader::new(r.bytes(TEXT, "edits")?);
    let mut wishes = Vec::new();
    while !edits.is_empty() {
        wishes.push(wish(&mut edits)?);
    }
    Ok(Section { target, claim, wishes })
}

fn key(r: &mut Reader<'_>) -> Result<String, Malformed> {
    r.str(limits::KEY_BYTES_MAX, "key").map(str::to_owned)
}

fn wish(r: &mut Reader<'_>) -> Result<Wish, Malformed> {
    Ok(match r.u8()? {
        1 => Wish::Set { object: handle(r)?, key: key(r)?, value: value(r, 0)? },
        2 => Wish::Delete { object: handle(r)?, key: key(r)? },
        4 => Wish::Insert { object: handle(r)?, index: small(r)?, values: values(r, 0)? },
        5 => Wish::Remove { object: handle(r)?, index: small(r)?, count: small(r)? },
        6 => Wish::Put { object: handle(r)?, index: small(r)?, value: value(r, 0)? },
        7 => Wish::Move { object: handle(r)?, from: small(r)?, to: small(r)? },
        8 => Wish::Splice {
            object: handle(r)?,
            index: small(r)?,
            removed: small(r)?,
            inserted: r.str(TEXT, "text")?.to_owned(),
        },
        9 => Wish::Add { object: handle(r)?, by: r.f64()? },
        10 => Wish::Include { object: handle(r)?, member: scalar(r)? },
        11 => Wish::Exclude { object: handle(r)?, member: scalar(r)? },
        12 => Wish::Root { value: value(r, 0)? },
        14 => Wish::Default { object: handle(r)?, key: key(r)?, value: value(r, 0)? },
        15 => Wish::Mark { group: name(r)?, run: name(r)? },
        16 => Wish::Near { object: ObjectId(r.array()?), value: value(r, 0)? },
        other => return Err(Malformed::Kind(other)),
    })
}

fn values(r: &mut Reader<'_>, depth: usize) -> Result<Vec<Literal>, Malformed> {
    let count = r.count(COUNT, 1, "values")?;
    let mut out = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        out.push(value(r, depth)?);
    }
    Ok(out)
}

fn scalar(r: &mut Reader<'_>) -> Result<Value, Malformed> {
    match value(r, limits::VALUE_DEPTH_MAX)? {
        Literal::Scalar(value) => Ok(value),
        _ => Err(Malformed::Field("scalar")),
    }
}

fn value(r: &mut Reader<'_>, depth: usize) -> Result<Literal, Malformed> {
    Ok(Literal::Scalar(match r.u8()? {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::Number(r.f64()?),
        4 => Value::Number(r.signed()? as f64),
        5 => Value::Str(r.str(TEXT, "string")?.to_owned()),
        6 => Value::BigInt(r.signed()?),
        7 => Value::Date(r.f64()?),
        8 => Value::Bytes(r.bytes(TEXT, "bytes")?.to_vec()),
        9 => {
            let segment = SegmentId(r.array()?);
            let object = if r.u8()? == 0 { segment.first() } else { ObjectId(r.array()?) };
            Value::Ref(Ref { segment, object })
        }
        10 => return container(r, depth + 1),
        other => return Err(Malformed::Kind(other)),
    }))
}

fn container(r: &mut Reader<'_>, depth: usize) -> Result<Literal, Malformed> {
    if depth > limits::VALUE_DEPTH_MAX {
        return Err(Malformed::Limit("depth"));
    }
    let kind = Kind::from_code(r.u8()?).ok_or(Malformed::Field("kind"))?;
    Ok(match kind {
        Kind::Map => {
            let count = r.count(COUNT, 1, "entries")?;
            let mut entries = Vec::with_capacity(count.min(4096));
            for _ in 0..count {
                entries.push((key(r)?, value(r, depth)?));
            }
            Literal::Map(entries)
        }
        Kind::List => Literal::List(values(r, depth)?),
        Kind::Text => Literal::Text(r.str(TEXT, "text")?.to_owned()),
        Kind::Counter => Literal::Counter(r.f64()?),
        Kind::Set => {
            let count = r.count(COUNT, 1, "members")?;
            let mut members = Vec::with_capacity(count.min(4096));
            for _ in 0..count {
                members.push(scalar(r)?);
            }
            Literal::Set(members)
        }
    })
}
