//! Doors for the fuzz targets (`tests/fuzz`), which are built with `--cfg fuzzing`: rows without their seals, and sealed rows
//! that no store would write. In every other build this file does not exist.

use coheap_core::admit::AdmitRow;
use coheap_core::id::Offset;
use redb::{Key, ReadableTable, WriteTransaction};

use super::StoreError;
use super::append::{decode_epoch, meta_of};
use super::handle::{Store, number};
use super::record::{Record, checksum};
use super::recover::{decode_clocks, decode_segment};
use super::tables::{
    ADMIT, CLOCKS, EPOCHS, HEAPS, LOG, META, Meta, Place, Rows, SEGIDX, SEGMENTS, SNAPS, Sealed, SnapHead, TOTALS,
    Totals, failed, unseal,
};

/// How many kinds of rows [`read`] knows.
pub const KINDS: u8 = 10;

/// Reads what stands behind the seal of a row of this kind, or a record as it is; whether that worked.
pub fn read(kind: u8, bytes: &[u8]) -> bool {
    match kind % KINDS {
        0 => Record::read(&sum(bytes)).is_ok_and(|record| record.entries(Offset(0)).all(|entry| entry.is_ok())),
        1 => Meta::decode(bytes).is_ok(),
        2 => Totals::decode(bytes).is_ok(),
        3 => SnapHead::decode(bytes).is_ok(),
        4 => Place::decode(bytes).is_ok(),
        5 => decode_epoch(bytes).is_ok(),
        6 => AdmitRow::decode(bytes).is_ok(),
        7 => decode_segment(bytes).is_ok(),
        8 => decode_clocks(bytes).is_ok(),
        _ => number(bytes).is_ok(),
    }
}

/// The bytes with their checksum behind them.
fn sum(covered: &[u8]) -> Vec<u8> {
    let mut out = covered.to_vec();
    out.extend_from_slice(&checksum(covered).to_le_bytes());
    out
}

/// Changes the `nth` row of a kind in a store, and makes its seal and its heap's digest right again. For a record the
/// change concerns what its checksum covers; if it is its heap's last one, the heap's `meta` row follows.
pub fn put(store: &Store, kind: u8, nth: usize, change: &mut dyn FnMut(&mut Vec<u8>)) -> Result<(), StoreError> {
    let change = std::cell::RefCell::new(change);
    store.write(|transaction| put_in(transaction, kind, nth, &mut |row| (change.borrow_mut())(row)))
}

fn put_in(
    transaction: &WriteTransaction,
    kind: u8,
    nth: usize,
    change: &mut dyn FnMut(&mut Vec<u8>),
) -> Result<(), StoreError> {
    match kind % KINDS {
        0 => put_record(transaction, nth, change),
        1 => put_row(transaction, META, nth, change, |_| None),
        2 => put_row(transaction, TOTALS, nth, change, |_| None),
        3 => put_row(transaction, SNAPS, nth, change, |key| Some(key.0)),
        4 => put_row(transaction, SEGIDX, nth, change, |key| Some(key.0)),
        5 => put_row(transaction, EPOCHS, nth, change, |key| Some(key.0)),
        6 => put_row(transaction, ADMIT, nth, change, |key| Some(key.0)),
        7 => put_row(transaction, SEGMENTS, nth, change, |key| Some(key.0)),
        8 => put_row(transaction, CLOCKS, nth, change, |key| Some(key.0)),
        _ => put_row(transaction, HEAPS, nth, change, |_| None),
    }
}

fn put_row<K: Key + 'static>(
    transaction: &WriteTransaction,
    definition: Rows<K>,
    nth: usize,
    change: &mut dyn FnMut(&mut Vec<u8>),
    heap: impl Fn(&K::SelfType<'_>) -> Option<u64>,
) -> Result<(), StoreError> {
    let mut sealed = Sealed::open(transaction, definition)?;
    let mut rows = Vec::new();
    for row in sealed.table.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        let rest = unseal(definition, &key.value(), value.value())?.0.to_vec();
        rows.push((K::as_bytes(&key.value()).as_ref().to_vec(), rest));
    }
    let count = rows.len().max(1);
    let Some((key, mut rest)) = rows.into_iter().nth(nth % count) else { return Ok(()) };
    change(&mut rest);
    let (mut digest, of) = (0, heap(&K::from_bytes(&key)));
    sealed.put(&mut digest, K::from_bytes(&key), &rest)?;
    drop(sealed);
    let Some(heap) = of else { return Ok(()) };
    let mut metas = Sealed::open(transaction, META)?;
    let mut meta = meta_of(&metas, heap)?;
    meta.digest = meta.digest.wrapping_add(digest);
    metas.put(&mut 0, heap, &meta.encode())
}

fn put_record(
    transaction: &WriteTransaction,
    nth: usize,
    change: &mut dyn FnMut(&mut Vec<u8>),
) -> Result<(), StoreError> {
    let mut log = transaction.open_table(LOG).map_err(failed)?;
    let mut rows = Vec::new();
    for row in log.iter().map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        rows.push((key.value(), value.value().to_vec()));
    }
    let count = rows.len().max(1);
    let Some((key, old)) = rows.into_iter().nth(nth % count) else { return Ok(()) };
    let (covered, before) = old.split_last_chunk::<8>().unwrap_or((&[], &[0; 8]));
    let mut covered = covered.to_vec();
    change(&mut covered);
    let new = sum(&covered);
    log.insert(key, new.as_slice()).map_err(failed)?;
    let mut metas = Sealed::open(transaction, META)?;
    let mut meta = meta_of(&metas, key.0)?;
    if meta.chain == u64::from_le_bytes(*before) {
        meta.chain = checksum(&covered);
        metas.put(&mut 0, key.0, &meta.encode())?;
    }
    Ok(())
}
