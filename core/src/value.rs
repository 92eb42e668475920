//! The value model: what a property can hold, and the kinds of objects. `SEGMENT.md` §3 says how values lie in a document,
//! [`crate::edge`] how they cross to JavaScript. Next: `edit.rs`.

use crate::id::{ObjectId, SegmentId};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};

/// The kinds of objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Keys to values, merged by key.
    Map,
    /// Elements in an order.
    List,
    /// Characters in an order.
    Text,
    /// A number that everybody may add to.
    Counter,
    /// Scalars, each at most once.
    Set,
}

impl Kind {
    /// Its number in every format.
    pub fn code(self) -> u8 {
        match self {
            Kind::Map => 0,
            Kind::List => 1,
            Kind::Text => 2,
            Kind::Counter => 3,
            Kind::Set => 4,
        }
    }

    /// The kind of a number.
    pub fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            0 => Kind::Map,
            1 => Kind::List,
            2 => Kind::Text,
            3 => Kind::Counter,
            4 => Kind::Set,
            _ => return None,
        })
    }
}

/// A pointer to an object anywhere in the heap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ref {
    /// Its segment.
    pub segment: SegmentId,
    /// The object in it.
    pub object: ObjectId,
}

/// Which object a container value shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Identity {
    /// An id of its own.
    Fresh(ObjectId),
    /// The id that follows from its place and this life of its key.
    Derived(u64),
}

/// What one register holds. Equal is what is stored alike: NaN is NaN, −0 is not 0.
#[derive(Clone, Debug)]
pub enum Value {
    /// null
    Null,
    /// true or false
    Bool(bool),
    /// A number; integers, −0, NaN and infinities included.
    Number(f64),
    /// A bigint within i64.
    BigInt(i64),
    /// A string.
    Str(String),
    /// A Date, in milliseconds.
    Date(f64),
    /// A Uint8Array.
    Bytes(Vec<u8>),
    /// A pointer.
    Ref(Ref),
    /// An object of this segment.
    Container(Kind, Identity),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) | (Value::Date(a), Value::Date(b)) => a.to_bits() == b.to_bits(),
            (Value::BigInt(a), Value::BigInt(b)) => a == b,
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Ref(a), Value::Ref(b)) => a == b,
            (Value::Container(a, x), Value::Container(b, y)) => a == b && x == y,
            _ => false,
        }
    }
}

impl Eq for Value {}

/// Integers up to here are exact as f64.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The integer that a number is exactly, if it is one (−0 is not).
pub fn exact_integer(number: f64) -> Option<i64> {
    if number.trunc() == number && number.abs() <= EXACT && !(number == 0.0 && number.is_sign_negative()) {
        Some(number as i64)
    } else {
        None
    }
}

impl Value {
    /// Appends the tagged form (`SEGMENT.md` §3).
    pub fn encode_tagged(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.push(0x10),
            Value::Bool(false) => out.push(0x11),
            Value::Bool(true) => out.push(0x12),
            Value::Number(number) => match exact_integer(*number) {
                Some(integer) => {
                    out.push(0x14);
                    out.signed(integer);
                }
                None if *number == 0.0 => out.push(0x02),
                None => {
                    out.push(0x13);
                    Write::f64(out, *number);
                }
            },
            Value::BigInt(integer) => {
                out.push(0x01);
                out.signed(*integer);
            }
            Value::Str(text) => {
                out.push(0x15);
                out.extend_from_slice(text.as_bytes());
            }
            Value::Date(ms) => {
                out.push(0x03);
                Write::f64(out, *ms);
            }
            Value::Bytes(bytes) => {
                out.push(0x04);
                out.extend_from_slice(bytes);
            }
            Value::Ref(target) => {
                out.push(0x05);
                out.extend_from_slice(&target.segment.0);
                if target.object != target.segment.first() {
                    out.extend_from_slice(&target.object.0);
                }
            }
            Value::Container(kind, Identity::Fresh(id)) => {
                out.extend_from_slice(&[0x06, kind.code()]);
                out.extend_from_slice(&id.0);
            }
            Value::Container(kind, Identity::Derived(life)) => {
                out.extend_from_slice(&[0x07, kind.code()]);
                out.varint(*life);
            }
        }
    }

    /// Reads a tagged value that fills `bytes`.
    pub fn decode_tagged(bytes: &[u8]) -> Result<Value, Malformed> {
        let mut r = Reader::new(bytes);
        let value = match r.u8()? {
            0x01 => Value::BigInt(r.signed()?),
            0x02 => Value::Number(-0.0),
            0x03 => Value::Date(r.f64()?),
            0x04 => Value::Bytes(r.take_rest().to_vec()),
            0x05 => {
                let segment = SegmentId(r.array()?);
                let object = if r.is_empty() { segment.first() } else { ObjectId(r.array()?) };
                Value::Ref(Ref { segment, object })
            }
            0x06 => Value::Container(kind(&mut r)?, Identity::Fresh(ObjectId(r.array()?))),
            0x07 => Value::Container(kind(&mut r)?, Identity::Derived(r.varint()?)),
            0x10 => Value::Null,
            0x11 => Value::Bool(false),
            0x12 => Value::Bool(true),
            0x13 => Value::Number(r.f64()?),
            0x14 => Value::Number(r.signed()? as f64),
            0x15 => Value::Str(utf8(r.take_rest())?),
            _ => return Err(Malformed::Field("tag")),
        };
        r.end()?;
        Ok(value)
    }
}

fn kind(r: &mut Reader<'_>) -> Result<Kind, Malformed> {
    Kind::from_code(r.u8()?).ok_or(Malformed::Field("kind"))
}

fn utf8(bytes: &[u8]) -> Result<String, Malformed> {
    if bytes.len() > limits::LONG_BYTES_MAX {
        return Err(Malformed::Limit("string"));
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Field("string"))
}
