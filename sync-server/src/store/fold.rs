//! A verified snapshot takes the place of the deltas below it, and of log that nothing needs any more. `STORE.md` §4.

use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::relay::Folded;
use redb::{ReadableTable, WriteTransaction};

use super::append::{last_key, meta_of, number_of};
use super::handle::Store;
use super::tables::{LOG, META, Place, SEGIDX, SEGMENTS, SNAP, SNAPS, Sealed, SnapHead, damaged, failed};
use super::{FoldResult, StoreError};

impl Store {
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
            let heap = number_of(transaction, heap)?.ok_or(StoreError::Gone)?;
            fold(transaction, heap, segment, position, keep, snapshot)
        })
    }
}

fn fold(
    transaction: &WriteTransaction,
    heap: u64,
    segment: SegmentNumber,
    position: Offset,
    keep: Offset,
    snapshot: &[u8],
) -> Result<FoldResult, StoreError> {
    let mut metas = Sealed::open(transaction, META)?;
    let mut meta = meta_of(&metas, heap)?;
    let mut folded = Folded { snapshot_bytes: snapshot.len() as u64, ..Folded::default() };
    let mut snaps = Sealed::open(transaction, SNAPS)?;
    snaps.put(&mut meta.digest, (heap, segment.0), &SnapHead::of(position, snapshot).encode())?;
    transaction.open_table(SNAP).map_err(failed)?.insert((heap, segment.0), snapshot).map_err(failed)?;

    let mut index = Sealed::open(transaction, SEGIDX)?;
    index.remove(&mut meta.digest, (heap, segment.0, 0)..(heap, segment.0, position.0), |_, rest| {
        let place = Place::decode(rest).map_err(|_| damaged("an index row does not parse"))?;
        folded.deltas += 1;
        folded.bytes += place.len as u64;
        Ok(())
    })?;

    // R8: the floor is the first entry that some segment still needs.
    let (mut floor, mut holder) = (meta.head, None);
    let segments = transaction.open_table(SEGMENTS).map_err(failed)?;
    for row in segments.range((heap, 0)..=(heap, u64::MAX)).map_err(failed)? {
        let number = row.map_err(failed)?.0.value().1;
        let mut rest = index.table.range((heap, number, 0)..=(heap, number, u64::MAX)).map_err(failed)?;
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
        if let Some((_, first)) = last_key(&log, (heap, 0)..=(heap, floor.0))? {
            log.retain_in((heap, 0)..(heap, first), |_, _| false).map_err(failed)?;
            meta.floor = meta.floor.max(Offset(first));
        }
    }
    metas.put(&mut 0, heap, &meta.encode())?;
    Ok(FoldResult { folded, floor: meta.floor, holder })
}
