//! A heap as the disk has it, checked. `STORE.md` §5.

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::commit::EngineKind;
use coheap_core::id::{Offset, ReplicaId, SegmentId, SegmentNumber};
use coheap_core::relay::{Recovered, SegmentRow, SegmentTail};
use coheap_core::wire::codec::{Malformed, Reader, Write};
use redb::ReadTransaction;

use super::StoreError;
use super::record::Record;
use super::redb::{ADMIT, CLOCKS, EPOCHS, HEAPS, LOG, META, Meta, SEGIDX, SEGMENTS, SNAP, damaged, failed, read_place};

/// Records walked back from the head.
const WALK_RECORDS: usize = 256;
/// Bytes walked back from the head.
const WALK_BYTES: usize = 4 << 20;

/// Reads a heap; one that has no rows is empty.
pub(super) fn heap(transaction: &ReadTransaction, name: &str) -> Result<Recovered, StoreError> {
    let heaps = transaction.open_table(HEAPS).map_err(failed)?;
    let Some(heap) = heaps.get(name).map_err(failed)?.map(|number| number.value()) else {
        return Ok(Recovered::default());
    };
    let metas = transaction.open_table(META).map_err(failed)?;
    let meta = metas.get(heap).map_err(failed)?.ok_or_else(|| damaged("a heap has no meta row"))?;
    let meta = Meta::decode(meta.value())?;
    check_chain(transaction, heap, &meta)?;
    Ok(Recovered {
        lineage: meta.lineage,
        epochs: epochs(transaction, heap)?,
        head: meta.head,
        floor: meta.floor,
        admit: admit(transaction, heap)?,
        segments: segments(transaction, heap)?,
        clocks: clocks(transaction, heap)?,
        roll_hold_ms: meta.roll_hold_ms,
    })
}

/// The newest records are whole, follow one another, and end at the head.
fn check_chain(transaction: &ReadTransaction, heap: u64, meta: &Meta) -> Result<(), StoreError> {
    let log = transaction.open_table(LOG).map_err(failed)?;
    let (mut end, mut chain, mut bytes) = (meta.head, meta.chain, 0);
    for row in log.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)?.rev().take(WALK_RECORDS) {
        let (key, value) = row.map_err(failed)?;
        let record = Record::read(value.value()).map_err(damaged)?;
        if record.heap != heap || record.first.0 != key.value().1 {
            return Err(damaged("a record stands in another's place"));
        }
        if record.end() != end || record.chain != chain {
            return Err(damaged("the log has a hole"));
        }
        (end, chain) = (record.first, record.prev);
        bytes += record.body.len();
        if bytes >= WALK_BYTES {
            return Ok(());
        }
    }
    if end == meta.head && meta.head > meta.floor {
        return Err(damaged("the log has lost its end"));
    }
    Ok(())
}

fn epochs(transaction: &ReadTransaction, heap: u64) -> Result<Vec<(coheap_core::id::EpochId, Offset)>, StoreError> {
    let table = transaction.open_table(EPOCHS).map_err(failed)?;
    let mut epochs = Vec::new();
    for row in table.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)? {
        let row = row.map_err(failed)?;
        let mut r = Reader::new(row.1.value());
        let epoch = r.epoch().and_then(|epoch| Ok((epoch, Offset(r.varint()?))));
        epochs.push(epoch.map_err(|_| damaged("an epoch does not parse"))?);
    }
    Ok(epochs)
}

fn admit(transaction: &ReadTransaction, heap: u64) -> Result<Vec<(ReplicaId, AdmitRow)>, StoreError> {
    let table = transaction.open_table(ADMIT).map_err(failed)?;
    let mut rows = Vec::new();
    for row in table.range((heap, [0; 16])..=(heap, [0xff; 16])).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let line = AdmitRow::decode(value.value()).map_err(|_| damaged("a line does not parse"))?;
        rows.push((ReplicaId(key.value().1), line));
    }
    Ok(rows)
}

fn segments(transaction: &ReadTransaction, heap: u64) -> Result<Vec<SegmentRow>, StoreError> {
    let table = transaction.open_table(SEGMENTS).map_err(failed)?;
    let index = transaction.open_table(SEGIDX).map_err(failed)?;
    let snaps = transaction.open_table(SNAP).map_err(failed)?;
    let mut rows = Vec::new();
    for row in table.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let number = key.value().1;
        if number != rows.len() as u64 {
            return Err(damaged("segment numbers have a gap"));
        }
        let mut segment = decode_segment(value.value()).map_err(|_| damaged("a segment does not parse"))?;
        for delta in index.range((heap, number, 0)..=(heap, number, u64::MAX)).map_err(failed)? {
            segment.tail.deltas += 1;
            segment.tail.bytes += read_place(delta.map_err(failed)?.1.value())?.2 as u64;
        }
        let snapshot = snaps.get((heap, number)).map_err(failed)?;
        segment.tail.snapshot_bytes = snapshot.map_or(0, |bytes| bytes.value().len() as u64);
        rows.push(segment);
    }
    Ok(rows)
}

fn clocks(
    transaction: &ReadTransaction,
    heap: u64,
) -> Result<Vec<(SegmentNumber, coheap_core::id::GenId, Bytes)>, StoreError> {
    let table = transaction.open_table(CLOCKS).map_err(failed)?;
    let mut rows = Vec::new();
    for row in table.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let mut r = Reader::new(value.value());
        let generation = r.generation().map_err(|_| damaged("a clock table does not parse"))?;
        rows.push((SegmentNumber(key.value().1), generation, Bytes::copy_from_slice(r.take_rest())));
    }
    Ok(rows)
}

/// The stored form of a segment; its tail is counted, not stored.
pub(super) fn encode_segment(row: &SegmentRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    out.extend_from_slice(&row.id.0);
    out.push(row.engine.code());
    out.push(row.layout);
    out.generation(row.generation);
    out.varint(row.born.0);
    out
}

fn decode_segment(bytes: &[u8]) -> Result<SegmentRow, Malformed> {
    let mut r = Reader::new(bytes);
    let id = SegmentId(r.array()?);
    let engine = EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?;
    let layout = r.u8()?;
    let generation = r.generation()?;
    let born = Offset(r.varint()?);
    r.end()?;
    Ok(SegmentRow { id, engine, layout, generation, born, tail: SegmentTail::default() })
}
