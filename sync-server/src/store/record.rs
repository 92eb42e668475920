//! Log records: length, checksum, chain. `STORE.md` §3. Pure functions over bytes.

use bytes::Bytes;
use coheap_core::id::Offset;
use coheap_core::log::LogEntry;
use coheap_core::mutate::{self, Mutation};
use coheap_core::wire::codec::Reader;
use twox_hash::XxHash3_64;

const VERSION: u8 = 1;
const HEADER: usize = 1 + 8 + 8 + 4 + 4 + 8;

/// The checksum used everywhere in the store.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// A record that was read and found whole.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub heap: u64,
    pub first: Offset,
    pub count: u32,
    pub prev: u64,
    pub chain: u64,
    pub body: Bytes,
}

/// A record under construction.
#[derive(Debug)]
pub(super) struct RecordWriter {
    bytes: Vec<u8>,
    count: u32,
}

impl RecordWriter {
    pub fn new(heap: u64, first: Offset, prev: u64) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(VERSION);
        bytes.extend_from_slice(&heap.to_le_bytes());
        bytes.extend_from_slice(&first.0.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&prev.to_le_bytes());
        RecordWriter { bytes, count: 0 }
    }

    /// Adds an entry; where in the body it begins.
    pub fn push(&mut self, entry: &[u8]) -> usize {
        // Entries are at most a commit long (limits.rs), far below u32.
        self.bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        let at = self.bytes.len() - HEADER;
        self.bytes.extend_from_slice(entry);
        self.count += 1;
        at
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The record and its chain value.
    pub fn finish(mut self) -> (Vec<u8>, u64) {
        let body_len = (self.bytes.len() - HEADER) as u32;
        let (count, len) = (self.count.to_le_bytes(), body_len.to_le_bytes());
        self.bytes.splice(17..25, count.into_iter().chain(len));
        let chain = checksum(&self.bytes);
        self.bytes.extend_from_slice(&chain.to_le_bytes());
        (self.bytes, chain)
    }
}

impl Record {
    /// Reads one; what is wrong with it otherwise.
    pub fn read(bytes: &[u8]) -> Result<Record, &'static str> {
        let (covered, chain) = bytes.split_last_chunk::<8>().ok_or("a record is cut off")?;
        let chain = u64::from_le_bytes(*chain);
        if checksum(covered) != chain && !mutate::on(Mutation::SkipChecksum) {
            return Err("a record's checksum does not hold");
        }
        let (version, rest) = covered.split_first().ok_or("a record is cut off")?;
        if *version != VERSION {
            return Err("a record of another version");
        }
        let (heap, rest) = rest.split_first_chunk::<8>().ok_or("a record is cut off")?;
        let (first, rest) = rest.split_first_chunk::<8>().ok_or("a record is cut off")?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or("a record is cut off")?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or("a record is cut off")?;
        let (prev, body) = rest.split_first_chunk::<8>().ok_or("a record is cut off")?;
        if u32::from_le_bytes(*len) as usize != body.len() {
            return Err("a record is cut off");
        }
        let (first, count) = (u64::from_le_bytes(*first), u32::from_le_bytes(*count));
        if first.checked_add(u64::from(count)).is_none() {
            return Err("a record reaches beyond the last position");
        }
        Ok(Record {
            heap: u64::from_le_bytes(*heap),
            first: Offset(first),
            count,
            prev: u64::from_le_bytes(*prev),
            chain,
            body: Bytes::copy_from_slice(body),
        })
    }

    /// The position after its last entry.
    pub fn end(&self) -> Offset {
        Offset(self.first.0 + u64::from(self.count))
    }

    /// Its entries from an offset on; nothing comes behind one that cannot be read.
    pub fn entries(&self, from: Offset) -> impl Iterator<Item = Result<(Offset, LogEntry), &'static str>> + '_ {
        let mut entries =
            Entries { body: &self.body, reader: Reader::new(&self.body), offsets: self.first.0..self.end().0 };
        std::iter::from_fn(move || {
            loop {
                match entries.next()? {
                    Ok((offset, _)) if offset < from => {}
                    Ok((offset, bytes)) => {
                        let entry = LogEntry::decode(&bytes, &mut Reader::new(&bytes));
                        return Some(
                            entry.map(|entry| (offset, entry)).map_err(|_| entries.ends("an entry does not parse")),
                        );
                    }
                    Err(why) => return Some(Err(entries.ends(why))),
                }
            }
        })
    }
}

/// A walk along the entries of a record.
struct Entries<'a> {
    body: &'a Bytes,
    reader: Reader<'a>,
    offsets: std::ops::Range<u64>,
}

impl Entries<'_> {
    fn next(&mut self) -> Option<Result<(Offset, Bytes), &'static str>> {
        let offset = self.offsets.next()?;
        let len = self.reader.array::<4>().map(u32::from_le_bytes);
        let bytes = len.and_then(|len| self.reader.raw(len as usize));
        Some(
            bytes
                .map(|bytes| (Offset(offset), self.body.slice_ref(bytes)))
                .map_err(|_| "a record's entries do not fit"),
        )
    }

    fn ends(&mut self, why: &'static str) -> &'static str {
        self.offsets = 0..0;
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_no_log_has_room_for_is_refused() {
        let mut writer = RecordWriter::new(7, Offset(u64::MAX), 99);
        writer.push(b"entry");
        assert!(Record::read(&writer.finish().0).is_err());
    }

    #[test]
    fn a_record_comes_back_and_any_flipped_bit_is_noticed() {
        let mut writer = RecordWriter::new(7, Offset(40), 99);
        let at = writer.push(b"first");
        writer.push(b"second");
        let (bytes, chain) = writer.finish();
        let record = Record::read(&bytes).unwrap();
        assert_eq!((record.heap, record.first, record.count), (7, Offset(40), 2));
        assert_eq!((record.prev, record.chain, record.end()), (99, chain, Offset(42)));
        assert_eq!(&record.body[at..at + 5], b"first");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::read(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Record::read(&bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
