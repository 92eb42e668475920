//! The code of `SEGMENT.md` §2–§5: names of registers, forms of values, slots and bases. Pure functions; the only place that
//! knows the signs and tags. Next: `objects.rs`, which gives them meaning.

use super::engine::Raw;
use crate::edit::ElementId;
use crate::id::{ObjectId, SegmentId, decode_id, encode_id};
use crate::limits;
use crate::value::{Identity, Value, exact_integer};
use crate::wire::codec::{Reader, Write};

/// The value of a key, member or element.
pub const VALUE: char = '.';
/// A default.
pub const DEFAULT: char = '!';
/// A base.
pub const BASE: char = '=';
/// An ended life.
pub const LIFE: char = '~';
/// A moved or deleted element.
pub const PLACE: char = '@';
/// A writer's sum.
pub const SUM: char = '+';
/// A finished run.
pub const MARK: char = '%';
/// The kind of an object that no other holds.
pub const KIND: char = '?';

/// The prefix of an object's registers.
pub fn prefix(segment: SegmentId, object: ObjectId) -> String {
    if object == segment.first() { String::new() } else { encode_id(&object.0) }
}

/// A register's name.
pub fn name(prefix: &str, sign: char, rest: &str) -> String {
    let mut out = String::with_capacity(prefix.len() + 1 + rest.len());
    out.push_str(prefix);
    out.push(sign);
    out.push_str(rest);
    out
}

/// The name of the mark that life `n` of `key` has ended.
pub fn life_name(prefix: &str, n: u64, key: &str) -> String {
    format!("{prefix}{LIFE}{n}{LIFE}{key}")
}

/// Takes a register's name apart: object, sign, rest. `None` for names that this layout does not have.
pub fn parse_name(segment: SegmentId, name: &str) -> Option<(ObjectId, char, &str)> {
    let first = name.chars().next()?;
    let is_sign = |c: char| matches!(c, VALUE | DEFAULT | BASE | LIFE | PLACE | SUM | MARK | KIND);
    if is_sign(first) {
        return Some((segment.first(), first, name.get(1..)?));
    }
    let id = decode_id(name.as_bytes().get(..22)?)?;
    let rest = name.get(22..)?;
    let sign = rest.chars().next()?;
    if is_sign(sign) { Some((ObjectId(id), sign, rest.get(1..)?)) } else { None }
}

/// The key of a life mark's rest (`n~key`).
pub fn life_key(rest: &str) -> Option<&str> {
    rest.split_once(LIFE).map(|(_, key)| key)
}

/// 11 base64url characters of a 64-bit number.
pub fn short(number: u64) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    let mut text = encode_id(&bytes);
    text.truncate(11);
    text
}

/// The number of 11 such characters.
pub fn parse_short(text: &str) -> Option<u64> {
    if text.len() != 11 {
        return None;
    }
    let padded = format!("{text}AAAAAAAAAAA");
    let bytes = decode_id(padded.as_bytes())?;
    let (head, tail) = bytes.split_first_chunk::<8>()?;
    if tail.iter().any(|b| *b != 0) { None } else { Some(u64::from_be_bytes(*head)) }
}

/// A value as a register keeps it.
pub fn raw_of(value: &Value) -> Raw {
    match value {
        Value::Null => Raw::Null,
        Value::Bool(value) => Raw::Bool(*value),
        Value::Number(number) => match exact_integer(*number) {
            Some(integer) => Raw::Int(integer),
            None if *number == 0.0 => tagged(value),
            None => Raw::Float(*number),
        },
        Value::Str(text) => Raw::Str(text.clone()),
        _ => tagged(value),
    }
}

fn tagged(value: &Value) -> Raw {
    let mut out = Vec::new();
    value.encode_tagged(&mut out);
    Raw::Bytes(out)
}

/// The value a register holds; `None`: as if absent.
pub fn value_of(raw: Raw) -> Option<Value> {
    match raw {
        Raw::Null => Some(Value::Null),
        Raw::Bool(value) => Some(Value::Bool(value)),
        Raw::Int(value) => Some(Value::Number(value as f64)),
        Raw::Float(value) => Some(Value::Number(value)),
        Raw::Str(text) => Some(Value::Str(text)),
        Raw::Bytes(bytes) => Value::decode_tagged(&bytes).ok(),
    }
}

/// A number as a register keeps it.
pub fn raw_number(number: f64) -> Raw {
    raw_of(&Value::Number(if number == 0.0 { 0.0 } else { number }))
}

/// The number a register holds.
pub fn number_of(raw: &Raw) -> Option<f64> {
    match raw {
        Raw::Int(value) => Some(*value as f64),
        Raw::Float(value) => Some(*value),
        _ => None,
    }
}

/// A map's base.
pub fn encode_base(entries: &[(&str, Value)]) -> Raw {
    let mut out = Vec::new();
    out.varint(entries.len() as u64);
    let mut one = Vec::new();
    for (key, value) in entries {
        out.str(key);
        one.clear();
        value.encode_tagged(&mut one);
        Write::bytes(&mut out, &one);
    }
    Raw::Bytes(out)
}

/// Reads a map's base, entry by entry, as far as it parses.
pub fn each_base_entry(raw: &Raw, each: &mut dyn FnMut(&str, &[u8]) -> bool) {
    let Raw::Bytes(bytes) = raw else { return };
    let mut r = Reader::new(bytes);
    let Ok(count) = r.count(usize::MAX, 1, "base") else { return };
    for _ in 0..count {
        let Ok(key) = r.str(limits::LONG_BYTES_MAX, "key") else { return };
        let Ok(value) = r.bytes(limits::LONG_BYTES_MAX, "value") else { return };
        if !each(key, value) {
            return;
        }
    }
}

/// A set member as part of a register's name.
pub fn member_code(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(format!("s{text}")),
        Value::Number(number) => {
            let number = if *number == 0.0 { 0.0 } else { *number };
            Some(format!("n{:016x}", number.to_bits()))
        }
        Value::Bool(true) => Some("t".to_owned()),
        Value::Bool(false) => Some("f".to_owned()),
        _ => None,
    }
}

/// The set member of a code.
pub fn member_of(code: &str) -> Option<Value> {
    let rest = code.get(1..)?;
    match code.as_bytes().first()? {
        b's' => Some(Value::Str(rest.to_owned())),
        b'n' if rest.len() == 16 => u64::from_str_radix(rest, 16).ok().map(|bits| Value::Number(f64::from_bits(bits))),
        b't' if rest.is_empty() => Some(Value::Bool(true)),
        b'f' if rest.is_empty() => Some(Value::Bool(false)),
        _ => None,
    }
}

/// One slot of a list's sequence.
#[derive(Clone, PartialEq, Debug)]
pub struct Slot {
    /// Which element stands here.
    pub element: ElementId,
    /// The slot's number, for an element that was moved here.
    pub number: Option<u64>,
    /// The element came from `initial`.
    pub initial: bool,
    /// The element's value, unless it was replaced.
    pub value: Value,
}

impl Slot {
    /// The slot as a sequence keeps it.
    pub fn encode(&self) -> Raw {
        let mut out = vec![u8::from(self.number.is_some()) | u8::from(self.initial) << 1];
        out.extend_from_slice(&self.element.0.to_be_bytes());
        if let Some(number) = self.number {
            out.extend_from_slice(&number.to_be_bytes());
        }
        self.value.encode_tagged(&mut out);
        Raw::Bytes(out)
    }

    /// Reads a slot; `None` for what is no slot (it keeps its place and is never shown).
    pub fn decode(raw: &Raw) -> Option<Slot> {
        let Raw::Bytes(bytes) = raw else { return None };
        let mut r = Reader::new(bytes);
        let flags = r.u8().ok().filter(|flags| *flags < 4)?;
        let element = ElementId(u64::from_be_bytes(r.array().ok()?));
        let number = if flags & 1 != 0 { Some(u64::from_be_bytes(r.array().ok()?)) } else { None };
        let value = Value::decode_tagged(r.take_rest()).ok()?;
        Some(Slot { element, number, initial: flags & 2 != 0, value })
    }
}

/// The id of the container that a value shows in this place.
pub fn identify(parent: ObjectId, key: &[u8], kind: u8, identity: Identity) -> ObjectId {
    match identity {
        Identity::Fresh(id) => id,
        Identity::Derived(life) => ObjectId::derive(parent, key, kind, life),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_bytes_can_hold_is_a_value_and_one_raw() {
        for number in [f64::NAN, -f64::NAN, f64::from_bits(u64::MAX), f64::INFINITY, -0.0, 0.0, 0.1, 9e15, 1e300] {
            let tagged = tagged(&Value::Number(number));
            let value = value_of(tagged).expect("a number");
            assert_eq!(value, Value::Number(number));
            let raw = raw_of(&value);
            assert_eq!(value_of(raw.clone()), Some(value.clone()));
            assert_eq!(raw_of(&value), raw, "NaN is NaN");
        }
    }

    #[test]
    fn names_come_apart_as_they_were_put_together() {
        let segment = SegmentId::ROOT;
        let other = ObjectId([7; 16]);
        for object in [segment.first(), other] {
            for rest in ["", "a", "~x~", "__proto__", "é.=!", "AAAAAAAAAAAAAAAAAAAAAA.x"] {
                let text = name(&prefix(segment, object), VALUE, rest);
                assert_eq!(parse_name(segment, &text), Some((object, VALUE, rest)));
            }
        }
        assert_eq!(parse_name(segment, "zz.x"), None);
        assert_eq!(parse_short(&short(u64::MAX)), Some(u64::MAX));
        assert_eq!(parse_short(&short(12345)), Some(12345));
    }
}
