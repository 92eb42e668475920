//! The layout of an automerge delta of ours, and the walk that judges it.
//!
//! ```text
//! delta   = count(objects) key* change?
//! key     = length ('q' | 't') name            an object that the change speaks of; strictly ascending
//! change  = 85 6f 4a 83  checksum:4  01  length  body        the rest: one chunk
//! body    = count(deps) hash:32*  actor  seq  start_op  time  message  count(actors) actor*  columns  data
//! actor   = length bytes                       'w' and a writer's number in 8 bytes, or the key of an object
//! columns = count ( specification length )*    ascending; data holds them one after the other
//! ```
//!
//! Objects travel as keys alone: the change that makes one is a function of its key ([`canonical`]), so there is nothing to
//! forge and nothing to compare. Of a change, time is 0 and message empty; it is not compressed; its checksum is right, which
//! automerge itself does not look at. It names no actor that is neither a writer nor one of its objects: automerge panics
//! over actors that it does not know, and the table knows which writers there are.

use std::fmt;

use sha2::{Digest, Sha256};

use super::read::Cursor;
use super::space::{Claim, Space};
use super::{CLIENT_END, CLOCK_END, GuardError, OwnRange, ROOT_NAME_MAX, Summary};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHANGE: u8 = 1;
const WRITER: u8 = b'w';
const HASH: usize = 32;
/// What automerge counts operations in.
const OP_END: u64 = 1 << 31;

/// A delta, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delta<'a> {
    /// The root keys of the objects that the change speaks of.
    pub objects: Vec<&'a str>,
    /// One change chunk, or nothing.
    pub change: &'a [u8],
}

impl<'a> Delta<'a> {
    /// Takes a delta apart, up to the chunk, which is not looked into.
    pub fn parse(bytes: &'a [u8]) -> Result<Delta<'a>, GuardError> {
        let mut cursor = Cursor::new(bytes);
        let count = cursor.count(2)?;
        let mut objects = Vec::new();
        for _ in 0..count {
            let key = cursor.string()?;
            if !is_object(key) {
                return Err(GuardError::BadRoot);
            }
            if objects.last().is_some_and(|last| *last >= key) {
                return Err(GuardError::BadRange);
            }
            objects.push(key);
        }
        Ok(Delta { objects, change: cursor.rest() })
    }

    /// Puts it together.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.change.len() + 1);
        number(&mut out, self.objects.len() as u64);
        for key in &self.objects {
            string(&mut out, key.as_bytes());
        }
        out.extend_from_slice(self.change);
        out
    }
}

/// Whether a root key is an object's: a sequence's or a text's.
fn is_object(key: &str) -> bool {
    key.starts_with(['q', 't']) && key.len() <= ROOT_NAME_MAX
}

/// The actor that a writer's changes bear.
pub fn writer_actor(writer: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = writer.to_be_bytes();
    [WRITER, a, b, c, d, e, f, g, h]
}

/// The writer of an actor.
fn writer_of(actor: &[u8]) -> Option<u64> {
    let (tag, number) = actor.split_first()?;
    let writer = u64::from_be_bytes(number.try_into().ok()?);
    (*tag == WRITER && writer < CLIENT_END).then_some(writer)
}

/// The change that makes the object at a root key: a list for `q…`, a text for `t…`. The same at every replica.
pub fn canonical(key: &str) -> Vec<u8> {
    let make = if key.starts_with('q') { 2 } else { 4 };
    // One row. Keys and numbers are runs: −1 stands for one that is not repeated; `insert` counts: one that is not.
    let mut name = vec![0x7f];
    string(&mut name, key.as_bytes());
    let columns: [(u8, &[u8]); 5] =
        [(0x15, &name), (0x34, &[1]), (0x42, &[0x7f, make]), (0x56, &[0x7f, 0]), (0x70, &[0x7f, 0])];
    // No dependencies; the key is the actor; seq 1, start 1, time 0, no message, no other actors.
    let mut body = vec![0];
    string(&mut body, key.as_bytes());
    body.extend_from_slice(&[1, 1, 0, 0, 0, columns.len() as u8]);
    for (specification, data) in columns {
        number(&mut body, specification.into());
        number(&mut body, data.len() as u64);
    }
    for (_, data) in columns {
        body.extend_from_slice(data);
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&checksum(&body));
    out.push(CHANGE);
    string(&mut out, &body);
    out
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let mut head = vec![CHANGE];
    number(&mut head, body.len() as u64);
    let hash = Sha256::new().chain_update(&head).chain_update(body).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A change's head.
struct Head<'a> {
    actor: &'a [u8],
    seq: u64,
    start_op: u64,
    others: Vec<&'a [u8]>,
}

impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("seq", &self.seq).field("start_op", &self.start_op).finish_non_exhaustive()
    }
}

/// Judges a delta.
pub(super) fn delta(bytes: &[u8]) -> Result<Summary, GuardError> {
    let delta = Delta::parse(bytes)?;
    if delta.change.is_empty() {
        return Ok(Summary::default());
    }
    let head = change(delta.change)?;
    let client = writer_of(head.actor).ok_or(GuardError::BadClient)?;
    let end = u32::try_from(head.seq).ok().filter(|end| *end <= CLOCK_END).ok_or(GuardError::ClockOverflow)?;
    let start = end.checked_sub(1).ok_or(GuardError::ClockGap)?;
    let mut named = Vec::new();
    for other in head.others {
        match writer_of(other) {
            Some(writer) => named.push((writer, 1)),
            None if delta.objects.iter().any(|key| key.as_bytes() == other) => {}
            None => return Err(GuardError::UnknownClock),
        }
    }
    let mut summary = Summary { own: Some(OwnRange { client, start, end }), named, ..Summary::default() };
    summary.spaces.tell(start, Claim::Is(Space::Registers));
    Ok(summary)
}

fn change(chunk: &[u8]) -> Result<Head<'_>, GuardError> {
    let mut cursor = Cursor::new(chunk);
    if cursor.take(4)? != MAGIC {
        return Err(GuardError::BadContent);
    }
    let sum = cursor.take(4)?;
    if cursor.u8()? != CHANGE {
        return Err(GuardError::BadContent);
    }
    let body = cursor.buffer()?;
    cursor.end()?;
    if sum != checksum(body) {
        return Err(GuardError::BadSum);
    }

    let mut cursor = Cursor::new(body);
    let deps = cursor.count(HASH)?;
    let mut last: Option<&[u8]> = None;
    for _ in 0..deps {
        let hash = cursor.take(HASH)?;
        if last.is_some_and(|last| last >= hash) {
            return Err(GuardError::BadRange);
        }
        last = Some(hash);
    }
    let actor = cursor.buffer()?;
    let seq = cursor.var_u64()?;
    let start_op = cursor.var_u64()?;
    // Time 0, no message.
    if cursor.u8()? != 0 || cursor.u8()? != 0 {
        return Err(GuardError::BadContent);
    }
    let mut others: Vec<&[u8]> = Vec::new();
    for _ in 0..cursor.count(2)? {
        let other = cursor.buffer()?;
        if other == actor || others.last().is_some_and(|last| *last >= other) {
            return Err(GuardError::RepeatedClient);
        }
        others.push(other);
    }
    if start_op == 0 || start_op >= OP_END {
        return Err(GuardError::ClockOverflow);
    }
    columns(&mut cursor)?;
    Ok(Head { actor, seq, start_op, others })
}

/// The columns that our changes have: known ones, not compressed, as long as they say.
fn columns(cursor: &mut Cursor<'_>) -> Result<(), GuardError> {
    const KNOWN: [u64; 12] = [0x01, 0x02, 0x11, 0x13, 0x15, 0x34, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73];
    let (mut last, mut total) = (None, 0_usize);
    for _ in 0..cursor.count(2)? {
        let specification = cursor.var_u64()?;
        let length = usize::try_from(cursor.var_u64()?).map_err(|_| GuardError::TooMany)?;
        if !KNOWN.contains(&specification) || last.is_some_and(|last| last >= specification) {
            return Err(GuardError::BadContent);
        }
        last = Some(specification);
        total = total.checked_add(length).ok_or(GuardError::TooMany)?;
    }
    cursor.take(total)?;
    cursor.end()
}
