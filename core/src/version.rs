//! Versions: durable positions of a heap's log as strings, which one process can hand to another (CORE-PROTOCOL §8, T1).

use crate::id::{EpochId, Offset};

/// A durable position in one life of one heap's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// The first epoch of the heap's log.
    pub lineage: EpochId,
    /// The life in which the position was reached.
    pub epoch: EpochId,
    /// The position.
    pub position: Offset,
}

const FORMAT: u8 = 1;

impl Version {
    /// As a string: base64url of the format byte and the three.
    pub fn to_text(self) -> String {
        let mut bytes = vec![FORMAT];
        for epoch in [self.lineage, self.epoch] {
            bytes.extend_from_slice(&epoch.counter.to_be_bytes());
            bytes.extend_from_slice(&epoch.random.to_be_bytes());
        }
        bytes.extend_from_slice(&self.position.0.to_be_bytes());
        encode(&bytes)
    }

    /// The inverse; `None` for what no coheap made.
    pub fn parse(text: &str) -> Option<Version> {
        let bytes: [u8; 33] = decode(text)?.try_into().ok()?;
        let (format, rest) = bytes.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let (lineage, rest) = epoch(rest)?;
        let (epoch, rest) = epoch(rest)?;
        let position = Offset(u64::from_be_bytes(rest.try_into().ok()?));
        Some(Version { lineage, epoch, position })
    }
}

fn epoch(bytes: &[u8]) -> Option<(EpochId, &[u8])> {
    let (counter, rest) = bytes.split_first_chunk::<4>()?;
    let (random, rest) = rest.split_first_chunk::<8>()?;
    Some((EpochId { counter: u32::from_be_bytes(*counter), random: u64::from_be_bytes(*random) }, rest))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64url of a multiple of three bytes, so without padding.
fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() / 3 * 4);
    for three in bytes.chunks_exact(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for shift in [18, 12, 6, 0] {
            let six = (bits >> shift) & 63;
            out.push(char::from(ALPHABET[six as usize]));
        }
    }
    out
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() > 64 || !text.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::new();
    for four in text.as_bytes().chunks_exact(4) {
        let mut bits = 0_u32;
        for char in four {
            let six = ALPHABET.iter().position(|c| c == char)?;
            bits = bits << 6 | six as u32;
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_back_from_their_text() {
        let version = Version {
            lineage: EpochId { counter: 1, random: 77 },
            epoch: EpochId { counter: 9, random: u64::MAX },
            position: Offset(123_456_789),
        };
        assert_eq!(Version::parse(&version.to_text()), Some(version));
        for bad in ["", "x", "AAAA", "????", &version.to_text()[1..]] {
            assert_eq!(Version::parse(bad), None);
        }
    }
}
