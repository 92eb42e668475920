//! Every identity in coheap, one type each, so that no bare number crosses a module.
//!
//! Nothing here draws randomness: ids come in as values (from the driver's entropy) or are derived. `core/SEGMENT.md`
//! says how derived ids are made, `core/WIRE.md` how ids travel. Next: `value.rs`.

use std::fmt;

use uuid::Uuid;

/// Namespace of every id that coheap derives: UUIDv5 of the name "coheap" in the nil namespace.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::nil(), b"coheap")
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id's bytes as one number, for hashing and maps.
            pub fn to_u128(self) -> u128 {
                u128::from_be_bytes(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode_id(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id128! {
    /// One open heap in one process. Fresh from OS entropy at every `open()`; makes no commit after it closes.
    ReplicaId
}
id128! {
    /// A unit of loading and replication. UUIDv7 when fresh, UUIDv5 when derived.
    SegmentId
}
id128! {
    /// A map, list, text, counter or set inside a segment. The first object of a segment has the segment's id.
    ObjectId
}
id128! {
    /// A generation of a segment: what a roll replaces.
    GenId
}

impl SegmentId {
    /// The well-known segment of every heap.
    pub const ROOT: SegmentId = SegmentId(*b"coheap root seg.");

    /// The segment two replicas must meet in: a `part` (for example a map's name and a partition's number) under a parent.
    pub fn derive(parent: SegmentId, part: &[u8]) -> SegmentId {
        let mut name = Vec::with_capacity(17 + part.len());
        name.push(b'S');
        name.extend_from_slice(&parent.0);
        name.extend_from_slice(part);
        SegmentId(*Uuid::new_v5(&namespace(), &name).as_bytes())
    }

    /// The segment's first object, which a Ref names by the segment alone.
    pub fn first(self) -> ObjectId {
        ObjectId(self.0)
    }
}

impl ReplicaId {
    /// The line to which commits of this one go, from the one with this uid on, when another process has the line (F2). Whoever
    /// holds the same commits, a further copy or the process that opens an older store, derives the same, and each commit
    /// keeps a single place: were the id random, both would be admitted.
    pub fn moved(self, first: Uid) -> ReplicaId {
        let mut name = Vec::with_capacity(25);
        name.push(b'L');
        name.extend_from_slice(&self.0);
        name.extend_from_slice(&first.0.to_be_bytes());
        ReplicaId(*Uuid::new_v5(&namespace(), &name).as_bytes())
    }
}

impl ObjectId {
    /// The object that every replica creates under `key` of `parent` in that key's life number `life`
    /// (`SEMANTICS` S2): creation at once by several replicas meets in one object.
    pub fn derive(parent: ObjectId, key: &[u8], kind: u8, life: u64) -> ObjectId {
        let mut name = Vec::with_capacity(26 + key.len());
        name.push(b'O');
        name.extend_from_slice(&parent.0);
        name.push(kind);
        name.extend_from_slice(&life.to_be_bytes());
        name.extend_from_slice(key);
        ObjectId(*Uuid::new_v5(&namespace(), &name).as_bytes())
    }
}

impl GenId {
    /// No generation of anything: declared in a Hello for a document that is to be made anew from the relay's state.
    pub const NONE: GenId = GenId([0xff; 16]);
    /// Generation 0 of a segment of engine `yrs`.
    pub const ZERO_YRS: GenId = GenId([0; 16]);
    /// Generation 0 of a segment of engine `automerge`.
    pub const ZERO_AUTOMERGE: GenId = GenId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// Whether it is the first of a segment, which nothing came before.
    pub fn is_zero(self) -> bool {
        self == GenId::ZERO_YRS || self == GenId::ZERO_AUTOMERGE
    }

    /// One that a relay makes (CORE-PROTOCOL G1): as unlike all others as what it draws for it.
    pub fn drawn(segment: SegmentId, drawn: [u64; 3]) -> GenId {
        let mut name = Vec::with_capacity(41);
        name.push(b'G');
        name.extend_from_slice(&segment.0);
        name.extend(drawn.iter().flat_map(|word| word.to_be_bytes()));
        GenId(*Uuid::new_v5(&namespace(), &name).as_bytes())
    }

    /// The engine identity under which the generation's first document is written: 53 bits, never 0. No other generation has it.
    pub fn writer(self) -> u64 {
        let (high, low) = ((self.to_u128() >> 64) as u64, self.to_u128() as u64);
        ((high ^ low) >> 11).max(1)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> $name {
                $name(self.0 + 1)
            }
        }
    };
}

counter! {
    /// Number of a commit in its replica's line: 1, 2, 3 …; 0 means none.
    Seq
}
counter! {
    /// A place in a heap's log: entry `n`, or as a position the entries `0 … n−1`.
    Offset
}
counter! {
    /// The number the log gave a segment at its creation; names it on the wire.
    SegmentNumber
}
counter! {
    /// Tells the answer to one load request from the answer to an earlier one.
    Nonce
}

/// A commit's own random identity, kept when it is redone. 0 is never drawn: it means none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Uid(pub u64);

impl Uid {
    /// "No commit": the `prev` of a line's first commit.
    pub const NONE: Uid = Uid(0);

    /// What the log remembers of a refused commit (CORE-PROTOCOL R11).
    #[must_use]
    pub fn voided(self) -> Uid {
        Uid(!self.0)
    }
}

/// One life of a heap's log. Counter and random bits together are the identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct EpochId {
    /// Counts the relay's starts over this log.
    pub counter: u32,
    /// Tells two lives with one number apart, after a disk was rolled back.
    pub random: u64,
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64url without padding of 16 bytes: 22 characters.
pub fn encode_id(bytes: &[u8; 16]) -> String {
    let mut out = String::with_capacity(22);
    let bits = u128::from_be_bytes(*bytes);
    // 22 characters carry 132 bits; the last one's low 4 bits are zero.
    for i in 0..22 {
        let shift = 122_i32 - 6 * i;
        let six = if shift >= 0 { (bits >> shift) & 63 } else { (bits << -shift) & 63 };
        out.push(char::from(ALPHABET[six as usize]));
    }
    out
}

/// The inverse of [`encode_id`]; `None` for anything it could not have made.
pub fn decode_id(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut value: u128 = 0;
    for (i, c) in text.iter().enumerate() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        if i == 21 {
            if six & 0x0f != 0 {
                return None;
            }
            value = (value << 2) | u128::from(six >> 4);
        } else {
            value = (value << 6) | u128::from(six);
        }
    }
    Some(value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_back() {
        for seed in 0..200_u128 {
            let id = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834)).to_be_bytes();
            assert_eq!(decode_id(encode_id(&id).as_bytes()), Some(id));
        }
        assert_eq!(decode_id(b"tooshort"), None);
        assert_eq!(decode_id(b"AAAAAAAAAAAAAAAAAAAAAB"), None, "bits that no id has");
    }
}
