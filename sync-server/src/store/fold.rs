//! A verified snapshot takes the place of the deltas below it, and of log that nothing needs any more. `STORE.md` §4.

use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::mutate::{self, Mutation};
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

/// Puts the header of a generation and the snapshot behind it.
pub(super) fn put_snapshot(
    transaction: &WriteTransaction,
    snaps: &mut Sealed<'_, (u64, u64)>,
    digest: &mut u64,
    of: (u64, u64),
    position: Offset,
    header_len: usize,
    bytes: &[u8],
) -> Result<(), StoreError> {
    snaps.put(digest, of, &SnapHead::of(position, header_len, bytes).encode())?;
    transaction.open_table(SNAP).map_err(failed)?.insert(of, bytes).map_err(failed)?;
    Ok(())
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
    let before = snaps.get(&(heap, segment.0), SnapHead::decode)?;
    // What was made of an older state than the stored one: of another generation, or by a fold that was asked for twice.
    if let Some(head) = before.filter(|head| head.position > position) {
        folded.snapshot_bytes = head.len;
        return Ok(FoldResult { folded, floor: meta.floor, holder: None });
    }
    // The header of the generation stays.
    let mut bytes = match before {
        Some(head) if head.header_len > 0 && !mutate::on(Mutation::FoldWithoutHeader) => {
            let table = transaction.open_table(SNAP).map_err(failed)?;
            let stored = table.get((heap, segment.0)).map_err(failed)?;
            let stored = stored.ok_or_else(|| damaged("a snapshot is missing"))?;
            head.check(stored.value())?.header.to_vec()
        }
        _ => Vec::new(),
    };
    let header_len = bytes.len();
    bytes.extend_from_slice(snapshot);
    put_snapshot(transaction, &mut snaps, &mut meta.digest, (heap, segment.0), position, header_len, &bytes)?;

    let mut index = Sealed::open(transaction, SEGIDX)?;
    let below = position.0 + u64::from(mutate::on(Mutation::FoldOneMore));
    index.remove(&mut meta.digest, (heap, segment.0, 0)..(heap, segment.0, below), |_, rest| {
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
        if mutate::on(Mutation::FloorOfOne) && number != segment.0 {
            continue;
        }
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
