//! A heap as the disk has it, checked. `STORE.md` §5.

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::commit::EngineKind;
use coheap_core::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber};
use coheap_core::mutate::{self, Mutation};
use coheap_core::relay::{Recovered, SegmentRow, SegmentTail};
use coheap_core::wire::codec::{Malformed, Reader, Write};
use redb::{Key, ReadTransaction};

use super::StoreError;
use super::append::decode_epoch;
use super::handle::Store;
use super::read::{meta_of, number_of};
use super::record::Record;
use super::tables::{
    ADMIT, CLOCKS, EPOCHS, LOG, Meta, Place, Rows, SEGIDX, SEGMENTS, SNAPS, SnapHead, damaged, failed, read_row,
};

/// Records walked back from the head.
const WALK_RECORDS: usize = 256;
/// Bytes walked back from the head.
const WALK_BYTES: usize = 4 << 20;

impl Store {
    /// A heap as it is on the disk; one that has no rows is empty.
    pub fn recover(&self, heap: &str) -> Result<Recovered, StoreError> {
        self.read(|transaction| recover(transaction, heap))
    }
}

pub(super) fn recover(transaction: &ReadTransaction, name: &str) -> Result<Recovered, StoreError> {
    let Some(heap) = number_of(transaction, name)? else { return Ok(Recovered::default()) };
    let meta = meta_of(transaction, heap)?;
    if meta.name != name {
        return Err(damaged("a heap's meta row is another's"));
    }
    check_tail(transaction, heap, &meta)?;
    let mut digest = 0;
    let recovered = Recovered {
        lineage: meta.lineage,
        epochs: epochs(transaction, heap, &mut digest)?,
        head: meta.head,
        floor: if mutate::on(Mutation::FloorForgotten) { Offset(0) } else { meta.floor },
        admit: admit(transaction, heap, &mut digest)?,
        segments: segments(transaction, heap, &mut digest)?,
        clocks: clocks(transaction, heap, &mut digest)?,
        roll_hold_ms: meta.roll_hold_ms,
        forgotten: meta.forgotten,
    };
    if digest != meta.digest {
        return Err(damaged("rows are missing, or from an earlier day"));
    }
    Ok(recovered)
}

/// The newest records are whole, follow one another, and end at the head; the oldest begins at the floor.
fn check_tail(transaction: &ReadTransaction, heap: u64, meta: &Meta) -> Result<(), StoreError> {
    let log = transaction.open_table(LOG).map_err(failed)?;
    let (mut end, mut chain, mut bytes) = (meta.head, meta.chain, 0);
    for row in log.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)?.rev().take(WALK_RECORDS) {
        let (key, value) = row.map_err(failed)?;
        let record = Record::read(value.value()).map_err(damaged)?;
        if record.heap != heap || record.first.0 != key.value().1 || record.count == 0 {
            return Err(damaged("a record stands in another's place"));
        }
        if record.end() != end || (record.chain != chain && !mutate::on(Mutation::SkipChain)) {
            return Err(damaged("the log has a hole"));
        }
        (end, chain) = (record.first, record.prev);
        bytes += record.body.len();
        if bytes >= WALK_BYTES {
            break;
        }
    }
    if end == meta.head && meta.head > meta.floor {
        return Err(damaged("the log has lost its end"));
    }
    let begin = match log.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)?.next() {
        Some(row) => Offset(row.map_err(failed)?.0.value().1),
        None => meta.head,
    };
    if begin != meta.floor { Err(damaged("the log has lost its beginning")) } else { Ok(()) }
}

/// The rows of one heap in one table, each shown; their seals go into the digest.
fn each<K: Key + 'static, T>(
    transaction: &ReadTransaction,
    definition: Rows<K>,
    range: std::ops::RangeInclusive<K::SelfType<'static>>,
    digest: &mut u64,
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    mut show: impl FnMut(&K::SelfType<'_>, T) -> Result<(), StoreError>,
) -> Result<(), StoreError>
where
    K::SelfType<'static>: Clone,
{
    let table = transaction.open_table(definition).map_err(failed)?;
    for row in table.range::<K::SelfType<'static>>(range).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let key = key.value();
        let (row, seal) = read_row(definition, &key, value.value(), &decode)?;
        *digest = digest.wrapping_add(seal);
        show(&key, row)?;
    }
    Ok(())
}

fn epochs(transaction: &ReadTransaction, heap: u64, digest: &mut u64) -> Result<Vec<(EpochId, Offset)>, StoreError> {
    let mut epochs = Vec::new();
    each(transaction, EPOCHS, (heap, 0)..=(heap, u64::MAX), digest, decode_epoch, |_, epoch| {
        if mutate::on(Mutation::OneEpoch) {
            epochs.clear();
        }
        epochs.push(epoch);
        Ok(())
    })?;
    Ok(epochs)
}

fn admit(transaction: &ReadTransaction, heap: u64, digest: &mut u64) -> Result<Vec<(ReplicaId, AdmitRow)>, StoreError> {
    let mut rows = Vec::new();
    each(transaction, ADMIT, (heap, [0; 16])..=(heap, [0xff; 16]), digest, AdmitRow::decode, |key, row| {
        rows.push((ReplicaId(key.1), row));
        Ok(())
    })?;
    Ok(rows)
}

fn segments(transaction: &ReadTransaction, heap: u64, digest: &mut u64) -> Result<Vec<SegmentRow>, StoreError> {
    let mut rows = Vec::new();
    each(transaction, SEGMENTS, (heap, 0)..=(heap, u64::MAX), digest, decode_segment, |key, row| {
        if key.1 != rows.len() as u64 {
            return Err(damaged("segment numbers have a gap"));
        }
        rows.push(row);
        Ok(())
    })?;
    let of = |rows: &mut Vec<SegmentRow>, number: u64| match usize::try_from(number).ok().filter(|n| *n < rows.len()) {
        Some(number) => Ok(number),
        None => Err(damaged("a row of a segment that is not there")),
    };
    each(transaction, SEGIDX, (heap, 0, 0)..=(heap, u64::MAX, u64::MAX), digest, Place::decode, |key, place| {
        let number = of(&mut rows, key.1)?;
        let tail = &mut rows[number].tail;
        tail.deltas += 1;
        tail.bytes += place.len as u64;
        tail.end = tail.end.max(Some(Offset(key.2).next()));
        Ok(())
    })?;
    each(transaction, SNAPS, (heap, 0)..=(heap, u64::MAX), digest, SnapHead::decode, |key, head| {
        let number = of(&mut rows, key.1)?;
        let tail = &mut rows[number].tail;
        tail.snapshot_bytes = head.len;
        tail.end = tail.end.max(Some(head.position));
        Ok(())
    })?;
    Ok(rows)
}

fn clocks(
    transaction: &ReadTransaction,
    heap: u64,
    digest: &mut u64,
) -> Result<Vec<(SegmentNumber, GenId, Bytes)>, StoreError> {
    let mut rows = Vec::new();
    each(transaction, CLOCKS, (heap, 0)..=(heap, u64::MAX), digest, decode_clocks, |key, (generation, table)| {
        rows.push((SegmentNumber(key.1), generation, table));
        Ok(())
    })?;
    Ok(rows)
}

pub(super) fn decode_clocks(rest: &[u8]) -> Result<(GenId, Bytes), Malformed> {
    let mut r = Reader::new(rest);
    let generation = r.generation()?;
    Ok((generation, Bytes::copy_from_slice(r.take_rest())))
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

pub(super) fn decode_segment(bytes: &[u8]) -> Result<SegmentRow, Malformed> {
    let mut r = Reader::new(bytes);
    let id = SegmentId(r.array()?);
    let engine = EngineKind::from_code(r.u8()?).ok_or(Malformed::Field("engine"))?;
    let layout = r.u8()?;
    let generation = r.generation()?;
    let born = Offset(r.varint()?);
    r.end()?;
    Ok(SegmentRow { id, engine, layout, generation, born, tail: SegmentTail::default() })
}
