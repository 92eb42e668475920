//! What a transaction of appends writes. `STORE.md` §4.

use std::collections::BTreeMap;

use coheap_core::id::{EpochId, Offset};
use coheap_core::mutate::{self, Mutation};
use coheap_core::relay::Append;
use coheap_core::wire::codec::{Malformed, Reader, Write};
use redb::{Table, WriteTransaction};

use super::fold::put_snapshot;
use super::handle::{Store, number};
use super::record::RecordWriter;
use super::tables::{
    ADMIT, CLOCKS, EPOCHS, HEAPS, LOG, META, Meta, Place, SEGIDX, SEGMENTS, SNAPS, Sealed, TOTALS, Totals, damaged,
    failed,
};
use super::{Appended, HeapAppend, StoreError, recover};

/// A record grows to about this: a load reads whole records to get at its deltas.
const RECORD_BYTES: usize = 64 * 1024;

impl Store {
    /// Writes what several heaps have appended, in one transaction; what has become of each. When this returns, it has been
    /// synced. An error: nothing is known to be written.
    pub fn append(&self, heaps: &[HeapAppend]) -> Result<Vec<Appended>, StoreError> {
        self.check_room(heaps)?;
        match self.write(|transaction| heaps.iter().map(|heap| append_heap(transaction, heap)).collect()) {
            Err(StoreError::Full) if mutate::on(Mutation::FullIsWritten) => {
                Ok(heaps.iter().map(|_| Appended::Written).collect())
            }
            // One of them: the others are not to wait for it.
            Err(StoreError::Damaged(_)) => {
                let alone = |heap| match self.write(|transaction| append_heap(transaction, heap)) {
                    Err(StoreError::Damaged(what)) => Ok(Appended::Damaged(what)),
                    other => other,
                };
                heaps.iter().map(alone).collect()
            }
            other => other,
        }
    }

    /// Refuses beforehand what may not fit: nothing is touched then.
    fn check_room(&self, heaps: &[HeapAppend]) -> Result<(), StoreError> {
        let bytes: usize = heaps.iter().flat_map(|heap| &heap.appends).map(Append::bytes).sum();
        let Some(free) = self.disk.free_bytes() else { return Ok(()) };
        // A transaction also rewrites the pages it touches.
        if free < self.min_free_bytes.saturating_add(bytes as u64 * 4) { Err(StoreError::Full) } else { Ok(()) }
    }
}

fn append_heap(transaction: &WriteTransaction, append: &HeapAppend) -> Result<Appended, StoreError> {
    let known = number_of(transaction, &append.heap)?;
    let mut metas = Sealed::open(transaction, META)?;
    let mut meta = match known {
        None => Meta { name: append.heap.to_string(), ..Meta::default() },
        Some(heap) => meta_of(&metas, heap)?,
    };
    let mut head = meta.head;
    for part in &append.appends {
        if part.first != head {
            return Ok(Appended::Gap);
        }
        head = part.end();
    }
    let heap = match known {
        Some(heap) => heap,
        None => create_heap(transaction, &append.heap)?,
    };
    meta.roll_hold_ms = append.appends.iter().rev().find_map(|part| part.roll_hold_ms).unwrap_or(meta.roll_hold_ms);
    let dropped = append.appends.iter().filter_map(|part| part.dropped.as_deref());
    meta.forgotten = dropped.map(|dropped| dropped.below).fold(meta.forgotten, Offset::max);
    put_rows(transaction, heap, &mut meta, &append.appends)?;
    put_records(transaction, heap, &mut meta, &append.appends)?;
    put_generations(transaction, heap, &mut meta, &append.appends)?;
    metas.put(&mut 0, heap, &meta.encode())?;
    Ok(Appended::Written)
}

pub(super) fn number_of(transaction: &WriteTransaction, heap: &str) -> Result<Option<u64>, StoreError> {
    Sealed::open(transaction, HEAPS)?.get(&heap, number)
}

pub(super) fn meta_of(metas: &Sealed<'_, u64>, heap: u64) -> Result<Meta, StoreError> {
    metas.get(&heap, Meta::decode)?.ok_or_else(|| damaged("a heap has no meta row"))
}

/// Gives a heap its number.
pub(super) fn create_heap(transaction: &WriteTransaction, name: &str) -> Result<u64, StoreError> {
    let mut table = Sealed::open(transaction, TOTALS)?;
    let totals = table.get(&0, Totals::decode)?;
    let mut totals = totals.ok_or_else(|| damaged("the store's totals are missing"))?;
    let heap = totals.heaps;
    totals.heaps += 1;
    Sealed::open(transaction, HEAPS)?.put(&mut totals.digest, name, &heap.to_le_bytes())?;
    table.put(&mut 0, 0, &totals.encode())?;
    Ok(heap)
}

/// The rows that go with entries: epoch, lines, segments, clock tables. Each once, as it is after the last of them.
fn put_rows(transaction: &WriteTransaction, heap: u64, meta: &mut Meta, appends: &[Append]) -> Result<(), StoreError> {
    for (epoch, start) in appends.iter().filter_map(|part| part.epoch) {
        let mut epochs = Sealed::open(transaction, EPOCHS)?;
        if meta.lives == 0 || mutate::on(Mutation::LineageOfNewest) {
            meta.lineage = epoch;
        }
        epochs.put(&mut meta.digest, (heap, meta.lives), &encode_epoch(epoch, start))?;
        meta.lives += 1;
    }
    let mut admit = Sealed::open(transaction, ADMIT)?;
    let mut lines = BTreeMap::new();
    for part in appends {
        // What a part drops was there before its entries.
        lines.extend(part.dropped.iter().flat_map(|dropped| &dropped.lines).map(|id| (id, None)));
        for (id, row) in &part.admit {
            if !mutate::on(Mutation::OldestRow) || !lines.contains_key(id) {
                lines.insert(id, Some(row));
            }
        }
    }
    for (replica, row) in lines {
        match row {
            Some(row) => admit.put(&mut meta.digest, (heap, replica.0), row)?,
            None => admit.take(&mut meta.digest, (heap, replica.0))?,
        }
    }
    let mut segments = Sealed::open(transaction, SEGMENTS)?;
    for (number, row) in appends.iter().flat_map(|part| &part.segments) {
        segments.put(&mut meta.digest, (heap, number.0), &recover::encode_segment(row))?;
    }
    let mut clocks = Sealed::open(transaction, CLOCKS)?;
    let newest = if mutate::on(Mutation::NewestClocks) { appends.len().saturating_sub(1) } else { 0 };
    let tables: BTreeMap<_, _> = appends
        .iter()
        .skip(newest)
        .flat_map(|part| &part.clocks)
        .map(|(number, of, table)| (number, (of, table)))
        .collect();
    for (number, (generation, table)) in tables {
        let mut row = Vec::with_capacity(table.len() + 17);
        row.generation(*generation);
        row.extend_from_slice(table);
        clocks.put(&mut meta.digest, (heap, number.0), &row)?;
    }
    Ok(())
}

pub(super) fn encode_epoch(epoch: EpochId, start: Offset) -> Vec<u8> {
    let mut row = Vec::with_capacity(22);
    row.epoch(epoch);
    row.varint(start.0);
    row
}

pub(super) fn decode_epoch(rest: &[u8]) -> Result<(EpochId, Offset), Malformed> {
    let mut r = Reader::new(rest);
    let row = (r.epoch()?, Offset(r.varint()?));
    r.end()?;
    Ok(row)
}

/// The entries themselves, in as few records as their size allows, and the index of their deltas.
fn put_records(
    transaction: &WriteTransaction,
    heap: u64,
    meta: &mut Meta,
    appends: &[Append],
) -> Result<(), StoreError> {
    let mut log = transaction.open_table(LOG).map_err(failed)?;
    let mut index = Sealed::open(transaction, SEGIDX)?;
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
                let place = Place { first, at: at + delta.at, len: delta.len };
                index.put(&mut meta.digest, (heap, delta.segment.0, offset), &place.encode())?;
            }
            meta.head = Offset(offset + 1);
        }
    }
    if let Some(writer) = writer {
        meta.chain = put_record(&mut log, heap, first, writer)?;
    }
    // R12: no state has them any more. The log does, until it is folded away.
    for (segment, offset) in appends.iter().flat_map(|append| &append.skipped) {
        let row = (heap, segment.0, offset.0)..(heap, segment.0, offset.0 + 1);
        index.remove(&mut meta.digest, row, |_, _| Ok(()))?;
    }
    Ok(())
}

/// The documents that generations begin with: each takes the place of the snapshot, and of the deltas below its position,
/// which are of an older generation and are read by nobody any more.
fn put_generations(
    transaction: &WriteTransaction,
    heap: u64,
    meta: &mut Meta,
    appends: &[Append],
) -> Result<(), StoreError> {
    for begins in appends.iter().flat_map(|append| &append.generations) {
        let of = (heap, begins.segment.0);
        let bytes = [&begins.header[..], &begins.snapshot[..]].concat();
        let mut snaps = Sealed::open(transaction, SNAPS)?;
        put_snapshot(transaction, &mut snaps, &mut meta.digest, of, begins.position, begins.header.len(), &bytes)?;
        let below = (of.0, of.1, 0)..(of.0, of.1, begins.position.0);
        Sealed::open(transaction, SEGIDX)?.remove(&mut meta.digest, below, |_, _| Ok(()))?;
    }
    Ok(())
}

fn put_record(
    log: &mut Table<'_, (u64, u64), &'static [u8]>,
    heap: u64,
    first: Offset,
    writer: RecordWriter,
) -> Result<u64, StoreError> {
    let (bytes, chain) = writer.finish();
    log.insert((heap, first.0), bytes.as_slice()).map_err(failed)?;
    Ok(chain)
}

/// The last key of a range.
pub(super) fn last_key(
    table: &impl redb::ReadableTable<(u64, u64), &'static [u8]>,
    range: std::ops::RangeInclusive<(u64, u64)>,
) -> Result<Option<(u64, u64)>, StoreError> {
    Ok(match table.range(range).map_err(failed)?.next_back() {
        Some(row) => Some(row.map_err(failed)?.0.value()),
        None => None,
    })
}
