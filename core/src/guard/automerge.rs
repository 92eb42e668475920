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
//! A whole state is all its deltas, each after those it builds on; it begins as no delta does, with a padded number:
//!
//! ```text
//! state   = 80 00  ( length delta )*
//! ```
//!
//! Objects travel as keys alone: the change that makes one is a function of its key ([`canonical`]), so there is nothing to
//! forge and nothing to compare. Of a change, time is 0 and message empty; it is not compressed; its checksum is right, which
//! automerge itself does not look at. It names no actor that is neither a writer nor one of its objects: automerge panics
//! over actors that it does not know, and the table knows which writers there are. `columns.rs` walks the operations.
//!
//! Not judged, for want of a table of them: whether the changes that it depends on, and the elements and values that its
//! operations name, exist. The engine refuses missing changes; it panics over an element that is not there.

mod columns;

use sha2::{Digest, Sha256};

use self::columns::Named;

use super::read::Cursor;
use super::space::{Claim, Space};
use super::{CLIENT_END, CLOCK_END, GuardError, OwnRange, Summary};
use crate::id::decode_id;

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

/// How a whole state begins.
const STATE: [u8; 2] = [0x80, 0];

/// All deltas of a document, each behind those it builds on, as one.
pub fn whole_of(deltas: &[Vec<u8>]) -> Vec<u8> {
    let mut out = STATE.to_vec();
    for delta in deltas {
        string(&mut out, delta);
    }
    out
}

/// The deltas of a whole state; of a delta, itself.
pub fn deltas_of(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], GuardError>> {
    let (mut delta, mut rest) = match bytes.strip_prefix(&STATE) {
        Some(list) => (None, list),
        None => (Some(bytes), &[][..]),
    };
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return delta.take().map(Ok);
        }
        let mut cursor = Cursor::new(rest);
        let next = cursor.buffer();
        // Behind an error there is nothing.
        rest = if next.is_ok() { cursor.rest() } else { &[] };
        Some(next)
    })
}

/// The object that an actor stands for; `None` for a writer.
pub fn object_key(actor: &[u8]) -> Option<&str> {
    std::str::from_utf8(actor).ok().filter(|key| is_object(key))
}

/// Whether a root key is an object's: a sequence's or a text's. A register's name has its sign where these go on or end.
fn is_object(key: &str) -> bool {
    let name = key.strip_prefix(['q', 't']);
    name.is_some_and(|name| name.is_empty() || decode_id(name.as_bytes()).is_some())
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

/// A change, taken apart.
struct Change<'a> {
    actor: &'a [u8],
    seq: u64,
    start_op: u64,
    /// The other actors: how many, and each behind its length. Writers and keys of objects, ascending.
    others: (usize, &'a [u8]),
    /// By specification.
    columns: Vec<(u64, &'a [u8])>,
}

/// Judges a delta.
pub(super) fn delta(bytes: &[u8]) -> Result<Summary, GuardError> {
    let delta = Delta::parse(bytes)?;
    if delta.change.is_empty() {
        return Ok(Summary::default());
    }
    let change = change(delta.change)?;
    let client = writer_of(change.actor).ok_or(GuardError::BadClient)?;
    let end = u32::try_from(change.seq).ok().filter(|end| *end <= CLOCK_END).ok_or(GuardError::ClockOverflow)?;
    let start = end.checked_sub(1).ok_or(GuardError::ClockGap)?;
    let (count, others) = change.others;
    // A writer takes ten bytes in the change, and forty in these.
    let (mut named, mut actors) = (Vec::with_capacity(count), Vec::with_capacity(count + 1));
    actors.push(Named::Writer(change.actor));
    let mut others = Cursor::new(others);
    for _ in 0..count {
        let other = others.buffer()?;
        if let Some(writer) = writer_of(other) {
            named.push((writer, 1));
            actors.push(Named::Writer(other));
        } else {
            let object = object_key(other).filter(|key| delta.objects.binary_search(key).is_ok());
            actors.push(Named::Object(object.ok_or(GuardError::UnknownClock)?));
        }
    }
    let column = |specification| {
        let found = change.columns.iter().find(|(other, _)| *other == specification);
        found.map_or(&[][..], |(_, data)| *data)
    };
    let rows = columns::rows(column, &actors, change.start_op)?;
    if change.start_op + rows > OP_END {
        return Err(GuardError::ClockOverflow);
    }
    let mut summary = Summary { own: Some(OwnRange { client, start, end }), named, ..Summary::default() };
    summary.spaces.tell(start, Claim::is(Space::Registers));
    Ok(summary)
}

fn change(chunk: &[u8]) -> Result<Change<'_>, GuardError> {
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
    let count = cursor.count(2)?;
    let (from, mut last) = (cursor.rest(), None);
    for _ in 0..count {
        let other = cursor.buffer()?;
        if other == actor || last.is_some_and(|last| last >= other) {
            return Err(GuardError::RepeatedClient);
        }
        if writer_of(other).is_none() && object_key(other).is_none() {
            return Err(GuardError::UnknownClock);
        }
        last = Some(other);
    }
    let list = from.get(..from.len() - cursor.remaining()).ok_or(GuardError::Truncated)?;
    let others = (usize::try_from(count).map_err(|_| GuardError::TooMany)?, list);
    if start_op == 0 || start_op >= OP_END {
        return Err(GuardError::ClockOverflow);
    }
    let columns = columns(&mut cursor)?;
    Ok(Change { actor, seq, start_op, others, columns })
}

/// The columns that our changes have: known ones, not compressed, as long as they say.
fn columns<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<(u64, &'a [u8])>, GuardError> {
    const KNOWN: [u64; 12] = [0x01, 0x02, 0x11, 0x13, 0x15, 0x34, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73];
    let mut found: Vec<(u64, usize)> = Vec::new();
    for _ in 0..cursor.count(2)? {
        let specification = cursor.var_u64()?;
        let length = usize::try_from(cursor.var_u64()?).map_err(|_| GuardError::TooMany)?;
        if !KNOWN.contains(&specification) || found.last().is_some_and(|(last, _)| *last >= specification) {
            return Err(GuardError::BadContent);
        }
        found.push((specification, length));
    }
    let mut columns = Vec::with_capacity(found.len());
    for (specification, length) in found {
        columns.push((specification, cursor.take(length)?));
    }
    cursor.end()?;
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::super::Clocks;
    use super::*;
    use crate::id::ReplicaId;

    /// A delta of writer 7, seq 1: `columns` as they are, no dependencies.
    fn made(objects: &[&str], others: &[&[u8]], start_op: u8, columns: &[(u8, &[u8])]) -> Vec<u8> {
        let mut body = vec![0];
        string(&mut body, &writer_actor(7));
        body.extend_from_slice(&[1, start_op, 0, 0, others.len() as u8]);
        for other in others {
            string(&mut body, other);
        }
        body.push(columns.len() as u8);
        for (specification, data) in columns {
            number(&mut body, u64::from(*specification));
            number(&mut body, data.len() as u64);
        }
        for (_, data) in columns {
            body.extend_from_slice(data);
        }
        let mut chunk = MAGIC.to_vec();
        chunk.extend_from_slice(&checksum(&body));
        chunk.push(CHANGE);
        string(&mut chunk, &body);
        Delta { objects: objects.to_vec(), change: &chunk }.encode()
    }

    /// Register `.k` = true.
    const REGISTER: [(u8, &[u8]); 5] =
        [(0x15, &[0x7f, 2, b'.', b'k']), (0x34, &[1]), (0x42, &[0x7f, 1]), (0x56, &[0x7f, 2]), (0x70, &[0x7f, 0])];

    fn with<'a>(columns: &[(u8, &'a [u8])], specification: u8, data: &'a [u8]) -> Vec<(u8, &'a [u8])> {
        let mut columns = columns.to_vec();
        columns.retain(|(other, _)| *other != specification);
        columns.push((specification, data));
        columns.sort_by_key(|(specification, _)| *specification);
        columns
    }

    fn refused(columns: &[(u8, &[u8])]) -> GuardError {
        delta(&made(&[], &[], 5, columns)).expect_err("refused")
    }

    #[test]
    fn a_register_passes_and_each_rule_has_a_twin_that_breaks_it() {
        let summary = delta(&made(&[], &[], 5, &REGISTER)).unwrap();
        assert_eq!(summary.own, Some(OwnRange { client: 7, start: 0, end: 1 }));
        assert_eq!(refused(&with(&REGISTER, 0x15, &[0x7f, 1, b'q'])), GuardError::TornItem, "an object's key");
        assert_eq!(refused(&with(&REGISTER, 0x34, &[0, 1])), GuardError::TornItem, "inserted at the root");
        assert_eq!(refused(&with(&REGISTER, 0x42, &[0x7f, 0])), GuardError::BadContent, "makes a map");
        assert_eq!(refused(&with(&REGISTER, 0x56, &[0x7f, 8])), GuardError::BadContent, "a counter");
        assert_eq!(refused(&with(&REGISTER, 0x56, &[0x7f, 0x26])), GuardError::Truncated, "a string without bytes");
        assert_eq!(refused(&with(&REGISTER, 0x57, &[0])), GuardError::Trailing, "bytes of no value");
        assert_eq!(refused(&with(&REGISTER, 0x15, &[2, 2, b'.', b'k'])), GuardError::Trailing, "a key of no row");
        let many = with(&with(&REGISTER, 0x42, &[0xff, 0xff, 0xff, 0xff, 0x07, 1]), 0x34, &[0xff, 0xff, 0xff, 0xff, 7]);
        assert!(delta(&made(&[], &[], 5, &many)).is_err(), "a bomb of rows");
        assert_eq!(refused(&with(&REGISTER, 0x5f, &[])), GuardError::BadContent, "a compressed column");
        // It replaces 4 of the writer itself, but not 5, which it is.
        let replaces =
            |counter: &'static [u8]| with(&with(&with(&REGISTER, 0x70, &[0x7f, 1]), 0x71, &[0x7f, 0]), 0x73, counter);
        assert!(delta(&made(&[], &[], 5, &replaces(&[0x7f, 4]))).is_ok());
        assert_eq!(refused(&replaces(&[0x7f, 5])), GuardError::UnknownClock);
        assert_eq!(refused(&replaces(&[])), GuardError::Truncated);
    }

    #[test]
    fn elements_lie_in_objects_of_the_delta() {
        // An anchor at the head of `q`.
        let anchor: [(u8, &[u8]); 8] = [
            (0x01, &[0x7f, 1]),
            (0x02, &[0x7f, 1]),
            (0x13, &[0x7f, 0]),
            (0x34, &[0, 1]),
            (0x42, &[0x7f, 1]),
            (0x56, &[0x7f, 0x13]),
            (0x57, &[0]),
            (0x70, &[0x7f, 0]),
        ];
        assert!(delta(&made(&["q"], &[b"q"], 2, &anchor)).is_ok());
        assert_eq!(delta(&made(&[], &[b"q"], 2, &anchor)), Err(GuardError::UnknownClock), "an object not named");
        assert_eq!(delta(&made(&["t"], &[b"t"], 2, &anchor)), Err(GuardError::BadContent), "no character");
        let mapped = made(&["q"], &[b"q"], 2, &with(&anchor, 0x15, &[0x7f, 1, b'k']));
        assert_eq!(delta(&mapped), Err(GuardError::TornItem), "a key in a list");
        let foreign = made(&["q"], &[b"q"], 2, &with(&anchor, 0x02, &[0x7f, 2]));
        assert_eq!(delta(&foreign), Err(GuardError::Nested), "an object that a writer made");
    }

    #[test]
    fn actors_belong_to_owners_and_go_on() {
        let (a, b) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let summary = delta(&made(&[], &[], 5, &REGISTER)).unwrap();
        let mut clocks = Clocks::default();
        assert!(clocks.check(a, &summary).is_ok());
        clocks.record(a, &summary);
        assert_eq!(clocks.check(b, &summary), Err(GuardError::ForeignClient));
        let later = Summary { own: Some(OwnRange { client: 7, start: 2, end: 3 }), ..summary.clone() };
        assert_eq!(clocks.check(a, &later), Err(GuardError::ClockGap));
        let other = writer_actor(9);
        let named = delta(&made(&[], &[&other], 5, &REGISTER)).unwrap();
        assert_eq!(named.named, [(9, 1)], "a writer that has to be known");
        let mut stored = Vec::new();
        clocks.encode(&mut stored);
        assert_eq!(Clocks::decode(&stored), Ok(clocks));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_gets_an_answer_and_is_refused() {
        let whole = made(&[], &[], 5, &REGISTER);
        for end in 1..whole.len() {
            assert!(delta(&whole[..end]).is_err() || end == 1, "cut at {end}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert!(delta(&bytes).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}
