//! Reading everything there is of a heap, and checking it: `store verify`, and the scrub of a running relay.

use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::relay::Recovered;
use redb::{Database, ReadTransaction};

use super::StoreError;
use super::handle::{Store, check_heaps, number};
use super::read::{Run, meta_of, number_of, read_state};
use super::recover::recover;
use super::tables::{HEAPS, LOG, damaged, failed, read_row};

/// Bytes of log that are read in one transaction: a long one would keep old pages from being used again.
const STEP_BYTES: usize = 1 << 20;

/// What was read of a heap and found whole.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Verified {
    /// The position after its last entry.
    pub head: Offset,
    /// Below it, the log has been folded away.
    pub floor: Offset,
    /// The entries of lines that were dropped are all below this position; 0: none was.
    pub forgotten: Offset,
    /// Records of its log.
    pub records: u64,
    /// Its segments.
    pub segments: u64,
    /// Bytes of its records, snapshots and deltas.
    pub bytes: u64,
}

impl Store {
    /// The name of the heap after this one, in the order of their bytes; the first after `None`.
    pub fn next_heap(&self, after: Option<&str>) -> Result<Option<String>, StoreError> {
        self.read(|transaction| {
            let heaps = transaction.open_table(HEAPS).map_err(failed)?;
            let from = match after {
                Some(name) => std::ops::Bound::Excluded(name),
                None => std::ops::Bound::Unbounded,
            };
            let mut rows = heaps.range::<&str>((from, std::ops::Bound::Unbounded)).map_err(failed)?;
            let Some(row) = rows.next() else { return Ok(None) };
            let (name, value) = row.map_err(failed)?;
            read_row(HEAPS, &name.value(), value.value(), number)?;
            Ok(Some(name.value().to_owned()))
        })
    }

    /// The number of a heap in this store, which is the next one for each that is new; `None`: nothing is stored of it.
    pub fn number_of_heap(&self, heap: &str) -> Result<Option<u64>, StoreError> {
        self.read(|transaction| number_of(transaction, heap))
    }

    /// Checks that no heap's name is missing.
    pub fn verify_names(&self) -> Result<(), StoreError> {
        self.read(check_heaps)
    }

    /// Reads all of a heap: rows, records, chain, index, snapshots. `read` hears how many bytes were read since the last time,
    /// and may take its time; false: stop.
    pub fn verify_heap(&self, heap: &str, mut read: impl FnMut(u64) -> bool) -> Result<Verified, StoreError> {
        let recovered = self.read(|transaction| match number_of(transaction, heap)? {
            Some(_) => recover(transaction, heap),
            None => Err(StoreError::Gone),
        })?;
        let segments = recovered.segments.len() as u64;
        let Recovered { head, floor, forgotten, .. } = recovered;
        let mut verified = Verified { head, floor, forgotten, segments, ..Verified::default() };
        let (mut at, mut chain) = (recovered.floor, None);
        while at < recovered.head {
            let step = self.read(|transaction| step(transaction, heap, at, chain))?;
            (at, chain) = (step.run.end, step.run.chain);
            verified.records += step.records;
            verified.bytes += step.bytes;
            if !read(step.bytes) {
                return Ok(verified);
            }
        }
        for segment in 0..segments {
            // The head now: a fold may have gone beyond the one from before.
            let bytes = self.read(|transaction| {
                let heap = number_of(transaction, heap)?.ok_or(StoreError::Gone)?;
                let head = meta_of(transaction, heap)?.head;
                match read_state(transaction, heap, SegmentNumber(segment), head)? {
                    coheap_core::relay::StoredState::At { snapshot, deltas, .. } => {
                        Ok((snapshot.len() + deltas.iter().map(bytes::Bytes::len).sum::<usize>()) as u64)
                    }
                    coheap_core::relay::StoredState::Since { .. }
                    | coheap_core::relay::StoredState::NotBefore { .. } => {
                        Err(damaged("a snapshot is of a position that the log has not reached"))
                    }
                }
            })?;
            verified.bytes += bytes;
            if !read(bytes) {
                break;
            }
        }
        Ok(verified)
    }

    /// The library's own check of the whole file, which also repairs what it can. False: it has repaired something.
    pub fn check_file(&self) -> Result<bool, StoreError> {
        self.alone(|database: &mut Database| database.check_integrity().map_err(failed))
    }

    /// Gives pages that are not used back to the file system. True: there were some.
    pub fn compact(&self) -> Result<bool, StoreError> {
        self.alone(|database: &mut Database| database.compact().map_err(failed))
    }
}

#[derive(Debug)]
struct Step {
    run: Run,
    records: u64,
    bytes: u64,
}

/// Reads records from a position on, which follow the chain value if there is one.
fn step(transaction: &ReadTransaction, name: &str, at: Offset, chain: Option<u64>) -> Result<Step, StoreError> {
    let heap = number_of(transaction, name)?.ok_or(StoreError::Gone)?;
    let meta = meta_of(transaction, heap)?;
    // Folded away meanwhile: what is left begins at the floor.
    let run = if at < meta.floor { Run { end: meta.floor, chain: None } } else { Run { end: at, chain } };
    let mut step = Step { run, records: 0, bytes: 0 };
    let log = transaction.open_table(LOG).map_err(failed)?;
    for row in log.range((heap, step.run.end.0)..=(heap, u64::MAX)).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        if key.value().1 != step.run.end.0 {
            return Err(damaged("the log has a hole"));
        }
        let record = step.run.next(heap, key.value().1, value.value())?;
        record.entries(record.first).try_for_each(|entry| entry.map(drop)).map_err(damaged)?;
        step.records += 1;
        step.bytes += record.body.len() as u64;
        if step.bytes >= STEP_BYTES as u64 {
            return Ok(step);
        }
    }
    let reached = step.run.end == meta.head && step.run.chain.is_none_or(|chain| chain == meta.chain);
    if reached { Ok(step) } else { Err(damaged("the log has a hole")) }
}

#[cfg(test)]
impl Store {
    /// What no append does: the name of a heap goes missing, and the `meta` row of another.
    pub(crate) fn lose(&self, name_of: &str, meta_of: &str) -> Result<(), StoreError> {
        use redb::ReadableTable;
        self.write(|transaction| {
            let mut heaps = transaction.open_table(HEAPS).map_err(failed)?;
            heaps.remove(name_of).map_err(failed)?.ok_or(StoreError::Gone)?;
            let row = heaps.get(meta_of).map_err(failed)?.ok_or(StoreError::Gone)?;
            let heap = read_row(HEAPS, &meta_of, row.value(), number)?.0;
            transaction
                .open_table(super::tables::META)
                .map_err(failed)?
                .remove(heap)
                .map_err(failed)?
                .ok_or(StoreError::Gone)?;
            Ok(())
        })
    }
}
