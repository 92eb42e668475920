//! The tables and their rows. Every row is sealed: its value begins with a checksum of the table's name, the key and the rest
//! of the value, so that neither a changed row nor one that stands in another's place passes. That none is missing, and none
//! is from an earlier day, is what a heap's digest says: the sum of the seals of its rows, in its `meta` row. `STORE.md` §2.

use std::borrow::Borrow;

use bytes::Bytes;
use coheap_core::id::{EpochId, Offset};
use coheap_core::limits;
use coheap_core::wire::codec::{Malformed, Reader, Write};
use redb::{Key, ReadTransaction, ReadableTable, Table, TableDefinition, TableHandle, WriteTransaction};

use super::StoreError;
use super::record::checksum;

/// The format that this build writes and reads.
pub(super) const FORMAT: u64 = 3;

pub(super) type Rows<K> = TableDefinition<'static, K, &'static [u8]>;

pub(super) const STORE: TableDefinition<&str, u64> = TableDefinition::new("store");
pub(super) const TOTALS: Rows<u64> = TableDefinition::new("totals");
pub(super) const HEAPS: Rows<&'static str> = TableDefinition::new("heaps");
pub(super) const META: Rows<u64> = TableDefinition::new("meta");
pub(super) const EPOCHS: Rows<(u64, u64)> = TableDefinition::new("epochs");
pub(super) const LOG: Rows<(u64, u64)> = TableDefinition::new("log");
pub(super) const ADMIT: Rows<(u64, [u8; 16])> = TableDefinition::new("admit");
pub(super) const SEGMENTS: Rows<(u64, u64)> = TableDefinition::new("segments");
pub(super) const CLOCKS: Rows<(u64, u64)> = TableDefinition::new("clocks");
pub(super) const SEGIDX: Rows<(u64, u64, u64)> = TableDefinition::new("segidx");
pub(super) const SNAPS: Rows<(u64, u64)> = TableDefinition::new("snaps");
pub(super) const SNAP: Rows<(u64, u64)> = TableDefinition::new("snap");

/// Every table's name: a store that lacks one is damaged.
pub(super) const NAMES: [&str; 12] =
    ["store", "totals", "heaps", "meta", "epochs", "log", "admit", "segments", "clocks", "segidx", "snaps", "snap"];

/// A heap's `meta` row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Meta {
    pub head: Offset,
    pub chain: u64,
    pub floor: Offset,
    pub lineage: EpochId,
    /// Rows in `epochs`.
    pub lives: u64,
    /// The sum of the seals of its rows in `epochs`, `admit`, `segments`, `clocks`, `segidx` and `snaps`.
    pub digest: u64,
    /// No rolls before this time, Unix milliseconds (CORE-PROTOCOL D6).
    pub roll_hold_ms: u64,
    /// The entries of lines that were dropped are all below this position (CORE-PROTOCOL §2).
    pub forgotten: Offset,
    pub name: String,
}

impl Meta {
    pub fn decode(bytes: &[u8]) -> Result<Meta, Malformed> {
        let mut r = Reader::new(bytes);
        let (head, chain, floor) = (Offset(r.u64()?), r.u64()?, Offset(r.u64()?));
        let (lineage, lives, digest, roll_hold_ms) = (r.epoch()?, r.u64()?, r.u64()?, r.u64()?);
        let forgotten = Offset(r.u64()?);
        let name = r.str(limits::HEAP_NAME_BYTES_MAX, "name")?.to_owned();
        r.end()?;
        Ok(Meta { head, chain, floor, lineage, lives, digest, roll_hold_ms, forgotten, name })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(72 + self.name.len());
        for number in [self.head.0, self.chain, self.floor.0] {
            Write::u64(&mut out, number);
        }
        out.epoch(self.lineage);
        Write::u64(&mut out, self.lives);
        Write::u64(&mut out, self.digest);
        Write::u64(&mut out, self.roll_hold_ms);
        Write::u64(&mut out, self.forgotten.0);
        out.str(&self.name);
        out
    }
}

/// What the store has in all: the one row of `totals`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    /// Numbers given to heaps.
    pub heaps: u64,
    /// The sum of the seals of `heaps`.
    pub digest: u64,
}

impl Totals {
    pub fn decode(bytes: &[u8]) -> Result<Totals, Malformed> {
        let mut r = Reader::new(bytes);
        let totals = Totals { heaps: r.u64()?, digest: r.u64()? };
        r.end()?;
        Ok(totals)
    }

    pub fn encode(self) -> Vec<u8> {
        [self.heaps.to_le_bytes(), self.digest.to_le_bytes()].concat()
    }
}

/// A segment's row in `snaps`: what its bytes in `snap` are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SnapHead {
    pub position: Offset,
    pub len: u64,
    /// Of the bytes.
    pub checksum: u64,
    /// So many of them, the first, are the header of the segment's generation; 0: generation 0.
    pub header_len: u64,
}

/// A segment's snapshot as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Snapshot {
    pub position: Offset,
    /// Of its generation; empty for generation 0.
    pub header: Bytes,
    pub bytes: Bytes,
}

impl SnapHead {
    /// Of a header and the bytes behind it, together.
    pub fn of(position: Offset, header_len: usize, bytes: &[u8]) -> SnapHead {
        let header_len = header_len as u64;
        SnapHead { position, len: bytes.len() as u64, checksum: checksum(bytes), header_len }
    }

    pub fn decode(bytes: &[u8]) -> Result<SnapHead, Malformed> {
        let mut r = Reader::new(bytes);
        let (position, len, checksum) = (Offset(r.varint()?), r.varint()?, r.u64()?);
        let header_len = if r.is_empty() { 0 } else { r.varint()? };
        r.end()?;
        if header_len > len || header_len > limits::GENERATION_HEADER_BYTES_MAX as u64 {
            return Err(Malformed::Limit("header"));
        }
        Ok(SnapHead { position, len, checksum, header_len })
    }

    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20);
        out.varint(self.position.0);
        out.varint(self.len);
        Write::u64(&mut out, self.checksum);
        if self.header_len > 0 {
            out.varint(self.header_len);
        }
        out
    }

    /// The bytes it is about.
    pub fn check(self, bytes: &[u8]) -> Result<Snapshot, StoreError> {
        if bytes.len() as u64 != self.len || checksum(bytes) != self.checksum {
            return Err(damaged("a snapshot's checksum does not hold"));
        }
        let mut bytes = Bytes::copy_from_slice(bytes);
        let header = bytes.split_to(usize::try_from(self.header_len).unwrap_or(0).min(bytes.len()));
        Ok(Snapshot { position: self.position, header, bytes })
    }
}

/// Where a delta lies: a row of `segidx`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The first offset of its record.
    pub first: Offset,
    /// The first byte in the record's body.
    pub at: usize,
    /// How many bytes.
    pub len: usize,
}

impl Place {
    pub fn decode(bytes: &[u8]) -> Result<Place, Malformed> {
        let mut r = Reader::new(bytes);
        let first = Offset(r.varint()?);
        let place = Place { first, at: r.length(u32::MAX as usize, "at")?, len: r.length(u32::MAX as usize, "len")? };
        r.end()?;
        Ok(place)
    }

    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12);
        out.varint(self.first.0);
        out.varint(self.at as u64);
        out.varint(self.len as u64);
        out
    }
}

/// The rest of a row's value, and its seal; damage if the seal does not hold.
pub(super) fn unseal<'v, K: Key>(
    table: Rows<K>,
    key: &K::SelfType<'_>,
    value: &'v [u8],
) -> Result<(&'v [u8], u64), StoreError> {
    let (stored, rest) = value.split_first_chunk::<8>().ok_or_else(|| damaged_row(table.name(), "is cut off"))?;
    let seal = u64::from_le_bytes(*stored);
    if seal != seal_of(table.name(), K::as_bytes(key).as_ref(), rest) {
        return Err(damaged_row(table.name(), "does not hold its checksum"));
    }
    Ok((rest, seal))
}

/// A whole row, read.
pub(super) fn read_row<K: Key, T>(
    table: Rows<K>,
    key: &K::SelfType<'_>,
    value: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<(T, u64), StoreError> {
    let (rest, seal) = unseal(table, key, value)?;
    let row = decode(rest).map_err(|_| damaged_row(table.name(), "does not parse"))?;
    Ok((row, seal))
}

/// The row of a key, if there is one.
#[allow(clippy::needless_pass_by_value, reason = "a key is a few numbers")]
pub(super) fn get_row<'k, K: Key + 'static, T>(
    transaction: &ReadTransaction,
    definition: Rows<K>,
    key: K::SelfType<'k>,
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, StoreError> {
    let table = transaction.open_table(definition).map_err(failed)?;
    let Some(value) = table.get(&key).map_err(failed)? else { return Ok(None) };
    Ok(Some(read_row(definition, &key, value.value(), decode)?.0))
}

/// A table of sealed rows, open for writing.
pub(super) struct Sealed<'t, K: Key + 'static> {
    pub table: Table<'t, K, &'static [u8]>,
    definition: Rows<K>,
}

impl<'t, K: Key + 'static> Sealed<'t, K> {
    pub fn open(transaction: &'t WriteTransaction, definition: Rows<K>) -> Result<Sealed<'t, K>, StoreError> {
        Ok(Sealed { table: transaction.open_table(definition).map_err(failed)?, definition })
    }

    pub fn get<T>(
        &self,
        key: &K::SelfType<'_>,
        decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, StoreError> {
        let Some(value) = self.table.get(key).map_err(failed)? else { return Ok(None) };
        Ok(Some(read_row(self.definition, key, value.value(), decode)?.0))
    }

    /// Puts a row, and says in the digest what has changed.
    #[allow(clippy::needless_pass_by_value, reason = "a key is a few numbers")]
    pub fn put<'k>(&mut self, digest: &mut u64, key: K::SelfType<'k>, rest: &[u8]) -> Result<(), StoreError> {
        let seal = seal_of(self.definition.name(), K::as_bytes(&key).as_ref(), rest);
        let mut value = Vec::with_capacity(8 + rest.len());
        value.extend_from_slice(&seal.to_le_bytes());
        value.extend_from_slice(rest);
        let before = self.table.insert(&key, value.as_slice()).map_err(failed)?;
        // A row that is written over is checked first: damage must not vanish into the digest.
        if let Some(before) = before {
            *digest = digest.wrapping_sub(unseal(self.definition, &key, before.value())?.1);
        }
        *digest = digest.wrapping_add(seal);
        Ok(())
    }

    /// Takes a row out, if it is there.
    #[allow(clippy::needless_pass_by_value, reason = "a key is a few numbers")]
    pub fn take<'k>(&mut self, digest: &mut u64, key: K::SelfType<'k>) -> Result<(), StoreError> {
        if let Some(before) = self.table.remove(&key).map_err(failed)? {
            *digest = digest.wrapping_sub(unseal(self.definition, &key, before.value())?.1);
        }
        Ok(())
    }

    /// Takes the rows of a range out; each is shown first.
    pub fn remove<'k, KR: Borrow<K::SelfType<'k>> + Clone + 'k>(
        &mut self,
        digest: &mut u64,
        range: std::ops::Range<KR>,
        mut show: impl FnMut(&K::SelfType<'_>, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.table.range::<KR>(range.clone()).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let key = key.value();
            let (rest, seal) = unseal(self.definition, &key, value.value())?;
            *digest = digest.wrapping_sub(seal);
            show(&key, rest)?;
        }
        self.table.retain_in::<KR, _>(range, |_, _| false).map_err(failed)
    }
}

fn seal_of(table: &str, key: &[u8], rest: &[u8]) -> u64 {
    let mut bytes = Vec::with_capacity(table.len() + key.len() + rest.len() + 2);
    // A table's name and a key's length keep the three apart.
    bytes.extend_from_slice(table.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(rest);
    checksum(&bytes)
}

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

fn damaged_row(table: &str, what: &str) -> StoreError {
    StoreError::Damaged(format!("a row of {table:?} {what}"))
}

pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => StoreError::io(error),
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        // All tables are there once a store is open (`handle.rs`), and of these types.
        error @ (redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)) => StoreError::Damaged(error.to_string()),
        other => StoreError::Failed(other.to_string()),
    }
}
