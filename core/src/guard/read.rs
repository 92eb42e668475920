//! A cursor over untrusted bytes: lib0 primitives, read strictly.
//!
//! yrs reads varints of up to eleven bytes and lets the surplus bits wrap around, so a guard that computed another value
//! than the engine would be no guard. Hence a number must be in the one form that yrs writes: as short as possible, and
//! within its width. Nothing here allocates; every read moves forward or fails.

use super::GuardError;

/// The bytes that remain.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes }
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless every byte has been read.
    pub fn end(&self) -> Result<(), GuardError> {
        if self.rest.is_empty() { Ok(()) } else { Err(GuardError::Trailing) }
    }

    pub fn u8(&mut self) -> Result<u8, GuardError> {
        let (first, rest) = self.rest.split_first().ok_or(GuardError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], GuardError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(GuardError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// An unsigned varint: seven bits a byte, low ones first.
    pub fn var_u64(&mut self) -> Result<u64, GuardError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(GuardError::BadNumber);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero is padding, except for the number 0 itself.
                return if byte == 0 && shift > 0 { Err(GuardError::BadNumber) } else { Ok(value) };
            }
        }
        Err(GuardError::BadNumber)
    }

    pub fn var_u32(&mut self) -> Result<u32, GuardError> {
        u32::try_from(self.var_u64()?).map_err(|_| GuardError::BadNumber)
    }

    /// How many things follow, each of which takes at least `size` bytes.
    pub fn count(&mut self, size: usize) -> Result<u32, GuardError> {
        let count = self.var_u32()?;
        let bytes = usize::try_from(count).ok().and_then(|n| n.checked_mul(size)).ok_or(GuardError::TooMany)?;
        if bytes > self.remaining() { Err(GuardError::TooMany) } else { Ok(count) }
    }

    /// Bytes behind their length.
    pub fn buffer(&mut self) -> Result<&'a [u8], GuardError> {
        let len = self.var_u32()?;
        self.take(usize::try_from(len).map_err(|_| GuardError::Truncated)?)
    }

    /// A string behind its length in bytes.
    pub fn string(&mut self) -> Result<&'a str, GuardError> {
        std::str::from_utf8(self.buffer()?).map_err(|_| GuardError::BadString)
    }

    /// Passes over a signed varint (six bits and a sign in the first byte) of at most 31 bits, which is all that yrs
    /// writes in this form; bigger integers come as floats or big integers.
    pub fn skip_int(&mut self) -> Result<(), GuardError> {
        let mut byte = self.u8()?;
        let mut value = u64::from(byte & 0x3f);
        let mut shift = 6;
        while byte & 0x80 != 0 {
            byte = self.u8()?;
            if byte == 0 || shift > 27 {
                return Err(GuardError::BadNumber);
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        if value > 0x7fff_ffff { Err(GuardError::BadNumber) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_their_shortest_form_only() {
        let read = |bytes: &[u8]| Cursor::new(bytes).var_u64();
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0x80, 1]), Ok(128));
        assert_eq!(read(&[0xff; 9]), Err(GuardError::Truncated));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(read(&max), Ok(u64::MAX));
        assert_eq!(read(&[0x80, 0]), Err(GuardError::BadNumber), "padded");
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(GuardError::BadNumber));
        assert_eq!(read(&[0x80; 11]), Err(GuardError::BadNumber));
        assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).var_u32(), Ok(u32::MAX));
        assert_eq!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).var_u32(), Err(GuardError::BadNumber));
    }

    #[test]
    fn signed_numbers_stay_within_31_bits() {
        let skip = |bytes: &[u8]| Cursor::new(bytes).skip_int();
        assert_eq!(skip(&[0x3f]), Ok(()));
        assert_eq!(skip(&[0xc1, 1]), Ok(()), "-65");
        // 0x7fffffff: six bits, then 7 + 7 + 7 + 4.
        assert_eq!(skip(&[0xbf, 0xff, 0xff, 0xff, 0x0f]), Ok(()));
        assert_eq!(skip(&[0xbf, 0xff, 0xff, 0xff, 0x1f]), Err(GuardError::BadNumber));
        assert_eq!(skip(&[0xbf, 0xff, 0xff, 0xff, 0xff, 1]), Err(GuardError::BadNumber));
        assert_eq!(skip(&[0x80]), Err(GuardError::Truncated));
    }

    #[test]
    fn a_count_must_fit_into_what_remains() {
        assert_eq!(Cursor::new(&[2, 0, 0, 0, 0]).count(2), Ok(2));
        assert_eq!(Cursor::new(&[3, 0, 0, 0, 0]).count(2), Err(GuardError::TooMany));
    }
}
