//! Primitives of the wire format: a bounded reader that is total over all byte strings, and a writer. `WIRE.md` §2.

use crate::id::{EpochId, GenId};

/// Why bytes are not what they should be. The reader never panics and never allocates more than the input is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The bytes end inside a field.
    #[error("ends early")]
    Truncated,
    /// A field holds a value that its type does not have.
    #[error("field out of range: {0}")]
    Field(&'static str),
    /// A length or count is over its limit.
    #[error("over a limit: {0}")]
    Limit(&'static str),
    /// A required kind that this version does not know.
    #[error("unknown kind {0:#x}")]
    Kind(u8),
    /// Bytes are left over where nothing may follow.
    #[error("bytes left over")]
    Trailing,
}

/// Reads fields from the front of a byte string.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What has not been read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True when everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that has not been read.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `n` bytes.
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (first, tail) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(*first)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A double.
    pub fn f64(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// LEB128, shortest form only.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for i in 0..10_u32 {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                return Err(Malformed::Field("varint"));
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                if byte == 0 && i > 0 {
                    return Err(Malformed::Field("varint"));
                }
                return Ok(value);
            }
        }
        Err(Malformed::Field("varint"))
    }

    /// A zigzag varint.
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let raw = self.varint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// A varint that is a length or count, at most `max`.
    pub fn length(&mut self, max: usize, what: &'static str) -> Result<usize, Malformed> {
        let n = usize::try_from(self.varint()?).map_err(|_| Malformed::Limit(what))?;
        if n > max { Err(Malformed::Limit(what)) } else { Ok(n) }
    }

    /// The count of a list whose items take at least `each` bytes: so many are there, and room may be made for them.
    pub fn count(&mut self, max: usize, each: usize, what: &'static str) -> Result<usize, Malformed> {
        let n = self.length(max, what)?;
        if n.checked_mul(each).is_none_or(|bytes| bytes > self.remaining()) { Err(Malformed::Truncated) } else { Ok(n) }
    }

    /// What was read between this place and a later one of the same bytes.
    pub fn upto(&self, later: &Reader<'a>) -> &'a [u8] {
        let read = self.rest.len().saturating_sub(later.rest.len());
        self.rest.get(..read).unwrap_or_default()
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let n = self.length(max, what)?;
        self.raw(n)
    }

    /// UTF-8 with its length.
    pub fn str(&mut self, max: usize, what: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(max, what)?).map_err(|_| Malformed::Field(what))
    }

    /// An epoch's identity.
    pub fn epoch(&mut self) -> Result<EpochId, Malformed> {
        let counter = u32::try_from(self.varint()?).map_err(|_| Malformed::Field("epoch"))?;
        Ok(EpochId { counter, random: self.u64()? })
    }

    /// A generation.
    pub fn generation(&mut self) -> Result<GenId, Malformed> {
        match self.u8()? {
            0 => Ok(GenId::ZERO_YRS),
            1 => Ok(GenId::ZERO_AUTOMERGE),
            // One form for each: a generation 0 has a number of its own.
            2 => Ok(GenId(self.array()?))
                .and_then(|id: GenId| if id.is_zero() { Err(Malformed::Field("generation")) } else { Ok(id) }),
            _ => Err(Malformed::Field("generation")),
        }
    }

    /// Refuses bytes left over.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

/// Writes fields; a thin face over `Vec<u8>`.
pub trait Write {
    /// LEB128.
    fn varint(&mut self, value: u64);
    /// A zigzag varint.
    fn signed(&mut self, value: i64);
    /// Eight bytes, little-endian.
    fn u64(&mut self, value: u64);
    /// A double.
    fn f64(&mut self, value: f64);
    /// A length and the bytes.
    fn bytes(&mut self, value: &[u8]);
    /// UTF-8 with its length.
    fn str(&mut self, value: &str);
    /// An epoch's identity.
    fn epoch(&mut self, value: EpochId);
    /// A generation.
    fn generation(&mut self, value: GenId);
}

impl Write for Vec<u8> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn f64(&mut self, value: f64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.extend_from_slice(value);
    }

    fn str(&mut self, value: &str) {
        Write::bytes(self, value.as_bytes());
    }

    fn epoch(&mut self, value: EpochId) {
        self.varint(u64::from(value.counter));
        Write::u64(self, value.random);
    }

    fn generation(&mut self, value: GenId) {
        match value {
            GenId::ZERO_YRS => self.push(0),
            GenId::ZERO_AUTOMERGE => self.push(1),
            GenId(id) => {
                self.push(2);
                self.extend_from_slice(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_long_forms_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            out.varint(value);
            assert_eq!(Reader::new(&out).varint(), Ok(value));
        }
        for value in [0, -1, 1, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            out.signed(value);
            assert_eq!(Reader::new(&out).signed(), Ok(value));
        }
        assert_eq!(Reader::new(&[0x80, 0]).varint(), Err(Malformed::Field("varint")));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Malformed::Field("varint")));
    }
}
