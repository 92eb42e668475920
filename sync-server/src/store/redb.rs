//! The tables, and the transactions over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coheap_core::id::{EpochId, Offset, SegmentNumber};
use coheap_core::log::LogEntry;
use coheap_core::relay::{Append, Folded, Recovered, StoredState};
use coheap_core::wire::codec::{Reader, Write};
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use super::record::{Record, RecordWriter, checksum};
use super::{FoldResult, HeapAppend, StoreError, recover};

/// The newest format this build writes and reads.
pub(super) const FORMAT: u64 = 1;
/// redb's cache: enough for the leaves that appends touch; states are read seldom.
const CACHE_BYTES: usize = 32 << 20;
/// How long the lock of a killed relay may outlive it.
const LOCK_WITHIN: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// A record grows to about this: a load reads whole records to get at its deltas.
const RECORD_BYTES: usize = 64 * 1024;

pub(super) const STORE: TableDefinition<&str, u64> = TableDefinition::new("store");
pub(super) const HEAPS: TableDefinition<&str, u64> = TableDefinition::new("heaps");
pub(super) const META: TableDefinition<u64, &[u8]> = TableDefinition::new("meta");
pub(super) const EPOCHS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("epochs");
pub(super) const LOG: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("log");
pub(super) const ADMIT: TableDefinition<(u64, [u8; 16]), &[u8]> = TableDefinition::new("admit");
pub(super) const SEGMENTS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("segments");
pub(super) const CLOCKS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("clocks");
pub(super) const SEGIDX: TableDefinition<(u64, u64, u64), &[u8]> = TableDefinition::new("segidx");
pub(super) const SNAP: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("snap");

/// A heap's `meta` row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Meta {
    pub head: Offset,
    pub chain: u64,
    pub floor: Offset,
    pub lineage: EpochId,
    /// Unix milliseconds.
    pub roll_hold_ms: u64,
}

impl Meta {
    pub fn decode(bytes: &[u8]) -> Result<Meta, StoreError> {
        let mut r = Reader::new(bytes);
        let mut read = || {
            let (head, chain, floor) = (Offset(r.u64()?), r.u64()?, Offset(r.u64()?));
            let lineage = r.epoch()?;
            // Rows of heaps to which nothing was given back end here.
            let roll_hold_ms = if r.is_empty() { 0 } else { r.u64()? };
            Ok(Meta { head, chain, floor, lineage, roll_hold_ms })
        };
        read().map_err(|_: coheap_core::wire::codec::Malformed| damaged("a heap's meta row does not parse"))
    }

    fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.head.0, self.chain, self.floor.0] {
            Write::u64(&mut out, number);
        }
        out.epoch(self.lineage);
        if self.roll_hold_ms > 0 {
            Write::u64(&mut out, self.roll_hold_ms);
        }
        out
    }
}

/// The store, opened. Shared by the commit thread and by readers.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    min_free_bytes: u64,
    /// `None` while it is being opened again after a failed write.
    database: RwLock<Option<Database>>,
}

impl Store {
    /// Opens or creates the store of a data directory.
    pub fn open(directory: &Path, min_free_bytes: u64) -> Result<Store, StoreError> {
        std::fs::create_dir_all(directory).map_err(|error| StoreError::Failed(error.to_string()))?;
        let path = directory.join("relay.redb");
        let begun = Instant::now();
        let database = loop {
            match open_database(&path) {
                // A relay that was killed while it started its worker leaves the lock to it for a moment.
                Err(StoreError::InUse) if begun.elapsed() < LOCK_WITHIN => std::thread::sleep(LOCK_RETRY),
                other => break other?,
            }
        };
        Ok(Store { path, min_free_bytes, database: RwLock::new(Some(database)) })
    }

    /// After a failed write: gives the handle up and opens the file again.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        *slot = Some(open_database(&self.path)?);
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| StoreError::Failed("the store is closed".into()))?;
        read(&database.begin_read().map_err(failed)?)
    }

    fn write<T>(&self, write: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| StoreError::Failed("the store is closed".into()))?;
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        // Dropped without a commit, the transaction never was.
        let result = write(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(result)
    }

    /// A heap as it is on the disk.
    pub fn recover(&self, heap: &str) -> Result<Recovered, StoreError> {
        self.read(|transaction| recover::heap(transaction, heap))
    }

    /// Writes what several heaps have appended, in one transaction. For each: whether it was written; an append that does
    /// not begin at its heap's head follows one that failed, and is not.
    pub fn append(&self, heaps: &[HeapAppend]) -> Result<Vec<bool>, StoreError> {
        self.check_room(heaps)?;
        self.write(|transaction| heaps.iter().map(|heap| append_heap(transaction, heap)).collect())
    }

    fn check_room(&self, heaps: &[HeapAppend]) -> Result<(), StoreError> {
        let bytes: usize = heaps.iter().flat_map(|heap| &heap.appends).map(Append::bytes).sum();
        let Ok(stat) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        // A transaction also rewrites the pages it touches.
        if free < self.min_free_bytes.saturating_add(bytes as u64 * 4) { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Entries from a position on, at least one, until `bytes_max` is reached.
    pub fn read_log(
        &self,
        heap: &str,
        from: Offset,
        upto: Offset,
        bytes_max: usize,
    ) -> Result<Vec<(Offset, LogEntry)>, StoreError> {
        self.read(|transaction| {
            let heap = number_of(transaction, heap)?;
            let log = transaction.open_table(LOG).map_err(failed)?;
            let before = last_key(log.range((heap, 0)..=(heap, from.0)).map_err(failed)?)?;
            let (_, start) = before.ok_or(StoreError::Gone)?;
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for row in log.range((heap, start)..(heap, upto.0)).map_err(failed)? {
                let (_, value) = row.map_err(failed)?;
                let record = Record::read(value.value()).map_err(damaged)?;
                if record.heap != heap {
                    return Err(damaged("a record stands in another heap's log"));
                }
                bytes += record.body.len();
                entries.extend(record.entries(from).map_err(damaged)?);
                if bytes >= bytes_max {
                    break;
                }
            }
            entries.retain(|(offset, _)| *offset < upto);
            if entries.first().is_none_or(|(offset, _)| *offset != from) {
                return Err(StoreError::Gone);
            }
            Ok(entries)
        })
    }

    /// States of segments at a position, at least one, until `bytes_max` is reached.
    pub fn read_states(
        &self,
        heap: &str,
        position: Offset,
        segments: &[SegmentNumber],
        bytes_max: usize,
    ) -> Result<Vec<StoredState>, StoreError> {
        self.read(|transaction| {
            let heap = number_of(transaction, heap)?;
            let (mut states, mut bytes) = (Vec::new(), 0);
            for segment in segments {
                let state = read_state(transaction, heap, *segment, position)?;
                if let StoredState::At { snapshot, deltas, .. } = &state {
                    bytes += snapshot.len() + deltas.iter().map(Bytes::len).sum::<usize>();
                }
                states.push(state);
                if bytes >= bytes_max {
                    break;
                }
            }
            Ok(states)
        })
    }

    /// Puts a verified snapshot in the place of the deltas below its position, and drops the log that no segment needs any
    /// more, and no stream: it stays from `keep` on.
    pub fn fold(
        &self,
        heap: &str,
        segment: SegmentNumber,
        position: Offset,
        keep: Offset,
        snapshot: &[u8],
    ) -> Result<FoldResult, StoreError> {
        self.write(|transaction| {
            let heap = number_of_writing(transaction, heap)?.ok_or(StoreError::Gone)?;
            fold(transaction, heap, segment, position, keep, snapshot)
        })
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
        other => failed(other),
    })?;
    let format = {
        let transaction = database.begin_read().map_err(failed)?;
        match transaction.open_table(STORE) {
            Ok(table) => table.get("format").map_err(failed)?.map(|value| value.value()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(failed(error)),
        }
    };
    match format {
        Some(FORMAT) => {}
        Some(newer) => return Err(StoreError::Newer(newer)),
        None => {
            let transaction = database.begin_write().map_err(failed)?;
            {
                let mut store = transaction.open_table(STORE).map_err(failed)?;
                store.insert("format", FORMAT).map_err(failed)?;
                store.insert("heaps", 0).map_err(failed)?;
                transaction.open_table(META).map_err(failed)?;
                transaction.open_table(HEAPS).map_err(failed)?;
                transaction.open_table(EPOCHS).map_err(failed)?;
                transaction.open_table(LOG).map_err(failed)?;
                transaction.open_table(ADMIT).map_err(failed)?;
                transaction.open_table(SEGMENTS).map_err(failed)?;
                transaction.open_table(CLOCKS).map_err(failed)?;
                transaction.open_table(SEGIDX).map_err(failed)?;
                transaction.open_table(SNAP).map_err(failed)?;
            }
            transaction.commit().map_err(failed)?;
        }
    }
    Ok(database)
}

pub(super) fn number_of(transaction: &ReadTransaction, heap: &str) -> Result<u64, StoreError> {
    let heaps = transaction.open_table(HEAPS).map_err(failed)?;
    heaps.get(heap).map_err(failed)?.map(|number| number.value()).ok_or(StoreError::Gone)
}

fn number_of_writing(transaction: &WriteTransaction, heap: &str) -> Result<Option<u64>, StoreError> {
    let heaps = transaction.open_table(HEAPS).map_err(failed)?;
    Ok(heaps.get(heap).map_err(failed)?.map(|number| number.value()))
}

fn append_heap(transaction: &WriteTransaction, append: &HeapAppend) -> Result<bool, StoreError> {
    let known = number_of_writing(transaction, &append.heap)?;
    let mut metas = transaction.open_table(META).map_err(failed)?;
    let mut meta = match known {
        None => Meta::default(),
        Some(heap) => match metas.get(heap).map_err(failed)? {
            Some(row) => Meta::decode(row.value())?,
            None => return Err(damaged("a heap has no meta row")),
        },
    };
    let mut head = meta.head;
    for part in &append.appends {
        if part.first != head {
            return Ok(false);
        }
        head = part.end();
    }
    let heap = match known {
        Some(heap) => heap,
        None => create_heap(transaction, &append.heap)?,
    };
    meta.roll_hold_ms = append.appends.iter().filter_map(|part| part.roll_hold_ms).fold(meta.roll_hold_ms, u64::max);
    put_rows(transaction, heap, &mut meta, &append.appends)?;
    put_records(transaction, heap, &mut meta, &append.appends)?;
    metas.insert(heap, meta.encode().as_slice()).map_err(failed)?;
    Ok(true)
}

fn create_heap(transaction: &WriteTransaction, name: &str) -> Result<u64, StoreError> {
    let mut store = transaction.open_table(STORE).map_err(failed)?;
    let number = store.get("heaps").map_err(failed)?.map_or(0, |value| value.value());
    store.insert("heaps", number + 1).map_err(failed)?;
    transaction.open_table(HEAPS).map_err(failed)?.insert(name, number).map_err(failed)?;
    Ok(number)
}

/// The rows that go with entries: epoch, lines, segments, clock tables. Each once, as it is after the last of them.
fn put_rows(transaction: &WriteTransaction, heap: u64, meta: &mut Meta, appends: &[Append]) -> Result<(), StoreError> {
    for (epoch, start) in appends.iter().filter_map(|part| part.epoch) {
        let mut epochs = transaction.open_table(EPOCHS).map_err(failed)?;
        let last = last_key(epochs.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)?)?;
        if last.is_none() {
            meta.lineage = epoch;
        }
        let index = last.map_or(0, |(_, index)| index + 1);
        let mut value = Vec::new();
        value.epoch(epoch);
        value.varint(start.0);
        epochs.insert((heap, index), value.as_slice()).map_err(failed)?;
    }
    let mut admit = transaction.open_table(ADMIT).map_err(failed)?;
    let lines: BTreeMap<_, _> = appends.iter().flat_map(|part| &part.admit).map(|(id, row)| (id, row)).collect();
    for (replica, row) in lines {
        admit.insert((heap, replica.0), &row[..]).map_err(failed)?;
    }
    let mut segments = transaction.open_table(SEGMENTS).map_err(failed)?;
    for (number, row) in appends.iter().flat_map(|part| &part.segments) {
        segments.insert((heap, number.0), recover::encode_segment(row).as_slice()).map_err(failed)?;
    }
    let mut clocks = transaction.open_table(CLOCKS).map_err(failed)?;
    let tables: BTreeMap<_, _> =
        appends.iter().flat_map(|part| &part.clocks).map(|(number, of, table)| (number, (of, table))).collect();
    for (number, (generation, table)) in tables {
        let mut value = Vec::with_capacity(table.len() + 17);
        value.generation(*generation);
        value.extend_from_slice(table);
        clocks.insert((heap, number.0), value.as_slice()).map_err(failed)?;
    }
    Ok(())
}

/// The entries themselves, in as few records as their size allows, and the index of their deltas.
fn put_records(
    transaction: &WriteTransaction,
    heap: u64,
    meta: &mut Meta,
    appends: &[Append],
) -> Result<(), StoreError> {
    let mut log = transaction.open_table(LOG).map_err(failed)?;
    let mut index = transaction.open_table(SEGIDX).map_err(failed)?;
    let mut first = meta.head;
    let mut writer: Option<RecordWriter> = None;
    for append in appends {
        let mut deltas = append.deltas.iter().peekable();
        for (offset, entry) in (append.first.0..).zip(&append.entries) {
            if let Some(full) = writer.take_if(|writer| writer.len() + entry.len() > RECORD_BYTES) {
                meta.chain = put_record(&mut log, heap, first, full)?;
                first = Offset(offset);
            }
            let writer = writer.get_or_insert_with(|| RecordWriter::new(heap, first, meta.chain));
            let at = writer.push(entry);
            while let Some(delta) = deltas.next_if(|delta| delta.offset.0 == offset) {
                let mut value = Vec::new();
                value.varint(first.0);
                value.varint((at + delta.at) as u64);
                value.varint(delta.len as u64);
                index.insert((heap, delta.segment.0, offset), value.as_slice()).map_err(failed)?;
            }
            meta.head = Offset(offset + 1);
        }
    }
    if let Some(writer) = writer {
        meta.chain = put_record(&mut log, heap, first, writer)?;
    }
    Ok(())
}

fn put_record(
    log: &mut redb::Table<'_, (u64, u64), &[u8]>,
    heap: u64,
    first: Offset,
    writer: RecordWriter,
) -> Result<u64, StoreError> {
    let (bytes, chain) = writer.finish();
    log.insert((heap, first.0), bytes.as_slice()).map_err(failed)?;
    Ok(chain)
}

fn read_state(
    transaction: &ReadTransaction,
    heap: u64,
    segment: SegmentNumber,
    position: Offset,
) -> Result<StoredState, StoreError> {
    let snaps = transaction.open_table(SNAP).map_err(failed)?;
    let (mut from, mut snapshot) = (Offset(0), Bytes::new());
    if let Some(row) = snaps.get((heap, segment.0)).map_err(failed)? {
        (from, snapshot) = read_snapshot(row.value())?;
        if from > position {
            return Ok(StoredState::NotBefore { segment, position: from });
        }
    }
    let index = transaction.open_table(SEGIDX).map_err(failed)?;
    let log = transaction.open_table(LOG).map_err(failed)?;
    let mut deltas = Vec::new();
    let mut record: Option<Record> = None;
    let rows = index.range((heap, segment.0, from.0)..(heap, segment.0, position.0)).map_err(failed)?;
    for row in rows {
        let (_, place) = row.map_err(failed)?;
        let (first, at, len) = read_place(place.value())?;
        if record.as_ref().is_none_or(|record| record.first != first) {
            let bytes = log.get((heap, first.0)).map_err(failed)?;
            let bytes = bytes.ok_or_else(|| damaged("a delta's record is missing"))?;
            record = Some(Record::read(bytes.value()).map_err(damaged)?);
        }
        let Some(record) = &record else { continue };
        let end = at.checked_add(len).filter(|end| *end <= record.body.len());
        let end = end.ok_or_else(|| damaged("a delta lies outside its record"))?;
        deltas.push(Bytes::copy_from_slice(&record.body.slice(at..end)));
    }
    Ok(StoredState::At { segment, snapshot, deltas })
}

fn read_snapshot(bytes: &[u8]) -> Result<(Offset, Bytes), StoreError> {
    let mut r = Reader::new(bytes);
    let header = r.varint().and_then(|position| Ok((Offset(position), r.u64()?)));
    let (position, sum) = header.map_err(|_| damaged("a snapshot does not parse"))?;
    let snapshot = r.take_rest();
    if checksum(snapshot) != sum {
        return Err(damaged("a snapshot's checksum does not hold"));
    }
    Ok((position, Bytes::copy_from_slice(snapshot)))
}

pub(super) fn read_place(bytes: &[u8]) -> Result<(Offset, usize, usize), StoreError> {
    let mut r = Reader::new(bytes);
    let mut read =
        || Ok((Offset(r.varint()?), r.length(u32::MAX as usize, "at")?, r.length(u32::MAX as usize, "len")?));
    read().map_err(|_: coheap_core::wire::codec::Malformed| damaged("an index row does not parse"))
}

fn fold(
    transaction: &WriteTransaction,
    heap: u64,
    segment: SegmentNumber,
    position: Offset,
    keep: Offset,
    snapshot: &[u8],
) -> Result<FoldResult, StoreError> {
    let mut folded = Folded { snapshot_bytes: snapshot.len() as u64, ..Folded::default() };
    let mut value = Vec::with_capacity(snapshot.len() + 18);
    value.varint(position.0);
    Write::u64(&mut value, checksum(snapshot));
    value.extend_from_slice(snapshot);
    transaction.open_table(SNAP).map_err(failed)?.insert((heap, segment.0), value.as_slice()).map_err(failed)?;

    let mut index = transaction.open_table(SEGIDX).map_err(failed)?;
    let covered = (heap, segment.0, 0)..(heap, segment.0, position.0);
    for row in index.range(covered.clone()).map_err(failed)? {
        folded.deltas += 1;
        folded.bytes += read_place(row.map_err(failed)?.1.value())?.2 as u64;
    }
    index.retain_in(covered, |_, _| false).map_err(failed)?;

    let mut metas = transaction.open_table(META).map_err(failed)?;
    let mut meta = match metas.get(heap).map_err(failed)? {
        Some(row) => Meta::decode(row.value())?,
        None => return Err(damaged("a heap has no meta row")),
    };
    // R8: the floor is the first entry that some segment still needs.
    let (mut floor, mut holder) = (meta.head, None);
    let segments = transaction.open_table(SEGMENTS).map_err(failed)?;
    for row in segments.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)? {
        let number = row.map_err(failed)?.0.value().1;
        let mut rest = index.range((heap, number, 0)..=(heap, number, u64::MAX)).map_err(failed)?;
        if let Some(first) = rest.next() {
            let first = Offset(first.map_err(failed)?.0.value().2);
            if first < floor {
                (floor, holder) = (first, Some(SegmentNumber(number)));
            }
        }
    }
    let floor = floor.min(keep);
    if floor > meta.floor {
        // The record that holds the floor stays whole, and so do those above it.
        let mut log = transaction.open_table(LOG).map_err(failed)?;
        let holds = last_key(log.range((heap, 0)..=(heap, floor.0)).map_err(failed)?)?;
        if let Some((_, first)) = holds {
            log.retain_in((heap, 0)..(heap, first), |_, _| false).map_err(failed)?;
            meta.floor = meta.floor.max(Offset(first));
        }
        metas.insert(heap, meta.encode().as_slice()).map_err(failed)?;
    }
    Ok(FoldResult { folded, floor: meta.floor, holder })
}

/// The last key of a range.
fn last_key(mut range: redb::Range<'_, (u64, u64), &[u8]>) -> Result<Option<(u64, u64)>, StoreError> {
    Ok(match range.next_back() {
        Some(row) => Some(row.map_err(failed)?.0.value()),
        None => None,
    })
}

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => StoreError::Full,
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        other => StoreError::Failed(other.to_string()),
    }
}
