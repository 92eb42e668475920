//! Reading entries and states. What is read is checked by itself, whatever was checked before. `STORE.md` §5.

use bytes::Bytes;
use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::log::LogEntry;
use coheap_core::mutate::{self, Mutation};
use coheap_core::relay::{StateOf, StoredState};
use redb::ReadTransaction;

use super::StoreError;
use super::append::last_key;
use super::handle::{Store, number};
use super::record::Record;
use super::tables::{
    HEAPS, LOG, META, Meta, Place, SEGIDX, SNAP, SNAPS, SnapHead, Snapshot, damaged, failed, get_row, read_row,
};

impl Store {
    /// Entries from a position on, at least one, until `bytes_max` is reached.
    pub fn read_log(
        &self,
        heap: &str,
        from: Offset,
        upto: Offset,
        bytes_max: usize,
    ) -> Result<Vec<(Offset, LogEntry)>, StoreError> {
        self.read(|transaction| {
            let heap = number_of(transaction, heap)?.ok_or(StoreError::Gone)?;
            let meta = meta_of(transaction, heap)?;
            if from < meta.floor || from >= meta.head {
                return Err(StoreError::Gone);
            }
            let log = transaction.open_table(LOG).map_err(failed)?;
            let before = last_key(&log, (heap, 0)..=(heap, from.0))?;
            let (_, start) = before.ok_or_else(|| damaged("the log has lost its beginning"))?;
            let mut run = Run::default();
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for row in log.range((heap, start)..(heap, upto.0)).map_err(failed)? {
                let (key, value) = row.map_err(failed)?;
                let record = run.next(heap, key.value().1, value.value())?;
                bytes += record.body.len();
                for entry in record.entries(from) {
                    entries.push(entry.map_err(damaged)?);
                }
                if bytes >= bytes_max {
                    break;
                }
            }
            if bytes < bytes_max && run.end < upto.min(meta.head) {
                return Err(damaged("the log has a hole"));
            }
            entries.retain(|(offset, _)| *offset < upto);
            if entries.first().is_none_or(|(offset, _)| *offset != from) {
                return Err(damaged("the log has a hole"));
            }
            Ok(entries)
        })
    }

    /// States of segments at a position, at least one, until `bytes_max` is reached.
    pub fn read_states<S: Copy + Into<StateOf>>(
        &self,
        heap: &str,
        position: Offset,
        segments: &[S],
        bytes_max: usize,
    ) -> Result<Vec<StoredState>, StoreError> {
        self.read(|transaction| {
            let heap = number_of(transaction, heap)?.ok_or(StoreError::Gone)?;
            let (mut states, mut bytes) = (Vec::new(), 0);
            for segment in segments {
                let StateOf { segment, since } = (*segment).into();
                let state = match since.map(|since| read_since(transaction, heap, segment, since, position)) {
                    Some(state) => state?,
                    None => None,
                };
                let state = match state {
                    Some(state) => state,
                    None => read_state(transaction, heap, segment, position)?,
                };
                bytes += match &state {
                    StoredState::At { snapshot, deltas, .. } => snapshot.len() + bytes_of(deltas),
                    StoredState::Since { deltas, .. } => bytes_of(deltas),
                    StoredState::NotBefore { .. } => 0,
                };
                states.push(state);
                if bytes >= bytes_max {
                    break;
                }
            }
            Ok(states)
        })
    }
}

impl Store {
    /// The snapshot of a segment and the deltas behind it below a position, each with its entry.
    pub fn read_tail(
        &self,
        heap: &str,
        segment: SegmentNumber,
        position: Offset,
    ) -> Result<(Bytes, Vec<(Offset, Bytes)>), StoreError> {
        self.read(|transaction| {
            let heap = number_of(transaction, heap)?.ok_or(StoreError::Gone)?;
            let Snapshot { position: from, bytes: snapshot, .. } =
                snapshot_of(transaction, heap, segment.0)?.unwrap_or_default();
            Ok((snapshot, tail(transaction, heap, segment, from, position.max(from))?))
        })
    }
}

/// Records read one after the other: each whole, in its place, and the next of the one before.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The position after the last one.
    pub end: Offset,
    /// Its chain value; `None`: there was none yet.
    pub chain: Option<u64>,
}

impl Run {
    pub fn next(&mut self, heap: u64, first: u64, bytes: &[u8]) -> Result<Record, StoreError> {
        let record = Record::read(bytes).map_err(damaged)?;
        if record.heap != heap || record.first.0 != first || record.count == 0 {
            return Err(damaged("a record stands in another's place"));
        }
        let chained = |chain: u64| chain == record.prev || mutate::on(Mutation::SkipChain);
        if self.chain.is_some_and(|chain| !chained(chain) || self.end != record.first) {
            return Err(damaged("the log has a hole"));
        }
        (self.end, self.chain) = (record.end(), Some(record.chain));
        Ok(record)
    }
}

pub(super) fn number_of(transaction: &ReadTransaction, heap: &str) -> Result<Option<u64>, StoreError> {
    get_row(transaction, HEAPS, heap, number)
}

pub(super) fn meta_of(transaction: &ReadTransaction, heap: u64) -> Result<Meta, StoreError> {
    get_row(transaction, META, heap, Meta::decode)?.ok_or_else(|| damaged("a heap has no meta row"))
}

/// The stored snapshot of a segment, if it has one.
pub(super) fn snapshot_of(
    transaction: &ReadTransaction,
    heap: u64,
    segment: u64,
) -> Result<Option<Snapshot>, StoreError> {
    let Some(head) = get_row(transaction, SNAPS, (heap, segment), SnapHead::decode)? else { return Ok(None) };
    let snaps = transaction.open_table(SNAP).map_err(failed)?;
    let bytes = snaps.get((heap, segment)).map_err(failed)?.ok_or_else(|| damaged("a snapshot is missing"))?;
    head.check(bytes.value()).map(Some)
}

pub(super) fn read_state(
    transaction: &ReadTransaction,
    heap: u64,
    segment: SegmentNumber,
    position: Offset,
) -> Result<StoredState, StoreError> {
    let Snapshot { position: from, header, bytes: snapshot } =
        snapshot_of(transaction, heap, segment.0)?.unwrap_or_default();
    if from > position && !mutate::on(Mutation::StateOfFold) {
        return Ok(StoredState::NotBefore { segment, position: from });
    }
    let deltas = tail(transaction, heap, segment, from, position.max(from))?;
    let deltas = deltas.into_iter().map(|(_, delta)| delta).collect();
    Ok(StoredState::At { segment, header, snapshot, deltas })
}

/// What came to a segment since a position, if its snapshot, and so its generation, is of no later one. The snapshot is read only
/// where it has the generation's header.
fn read_since(
    transaction: &ReadTransaction,
    heap: u64,
    segment: SegmentNumber,
    since: Offset,
    position: Offset,
) -> Result<Option<StoredState>, StoreError> {
    let head = get_row(transaction, SNAPS, (heap, segment.0), SnapHead::decode)?;
    let folded = head.is_some_and(|head| head.position > since) && !mutate::on(Mutation::SinceOverFold);
    if since > position || folded {
        return Ok(None);
    }
    let header = match head.filter(|head| head.header_len > 0) {
        Some(_) => snapshot_of(transaction, heap, segment.0)?.map(|snapshot| Bytes::copy_from_slice(&snapshot.header)),
        None => None,
    };
    let deltas = tail(transaction, heap, segment, since, position)?.into_iter().map(|(_, delta)| delta).collect();
    Ok(Some(StoredState::Since { segment, header: header.unwrap_or_default(), deltas }))
}

fn bytes_of(deltas: &[Bytes]) -> usize {
    deltas.iter().map(Bytes::len).sum()
}

/// The deltas of a segment between two positions, each with its entry.
fn tail(
    transaction: &ReadTransaction,
    heap: u64,
    segment: SegmentNumber,
    from: Offset,
    position: Offset,
) -> Result<Vec<(Offset, Bytes)>, StoreError> {
    let index = transaction.open_table(SEGIDX).map_err(failed)?;
    let log = transaction.open_table(LOG).map_err(failed)?;
    let mut deltas = Vec::new();
    let mut record: Option<Record> = None;
    for row in index.range((heap, segment.0, from.0)..(heap, segment.0, position.0)).map_err(failed)? {
        let (key, place) = row.map_err(failed)?;
        let (place, _) = read_row(SEGIDX, &key.value(), place.value(), Place::decode)?;
        if record.as_ref().is_none_or(|record| record.first != place.first) {
            let bytes = log.get((heap, place.first.0)).map_err(failed)?;
            let bytes = bytes.ok_or_else(|| damaged("a delta's record is missing"))?;
            record = Some(Run::default().next(heap, place.first.0, bytes.value())?);
        }
        let Some(record) = &record else { continue };
        deltas.push((Offset(key.value().2), delta_of(record, place)?));
    }
    Ok(deltas)
}

/// The bytes that an index row points to.
pub(super) fn delta_of(record: &Record, place: Place) -> Result<Bytes, StoreError> {
    let end = place.at.checked_add(place.len).filter(|end| *end <= record.body.len());
    let end = end.ok_or_else(|| damaged("a delta lies outside its record"))?;
    Ok(Bytes::copy_from_slice(&record.body.slice(place.at..end)))
}
