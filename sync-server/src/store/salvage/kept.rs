//! What is kept of a damaged heap, and how it is written to the new file: its log as far as that is whole, whole snapshots, and the
//! rows that agree with them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::guard::Clocks;
use coheap_core::id::{EpochId, GenId, Offset, ReplicaId, SegmentNumber};
use coheap_core::log::LogEntry;
use coheap_core::relay::{ROLL_HOLD_MS, SegmentRow};
use coheap_core::wire::codec::Write;
use coheap_core::wire::frame::roll::GenerationHeader;
use redb::{ReadTransaction, WriteTransaction};

use super::super::StoreError;
use super::super::append::{decode_epoch, encode_epoch};
use super::super::handle::Store;
use super::super::read::{Run, snapshot_of};
use super::super::recover::encode_segment;
use super::super::tables::{
    ADMIT, CLOCKS, EPOCHS, LOG, META, Meta, Place, SEGIDX, SEGMENTS, SNAP, SNAPS, Sealed, SnapHead, Snapshot, damaged,
    failed, read_row,
};
use super::log::WholeLog;
use super::whole_rows;

/// What is kept of a damaged heap; its records are read twice, to hold one at a time.
#[derive(Debug)]
pub(super) struct Kept {
    heap: u64,
    /// Of the new heap; the digest is made when it is written.
    pub meta: Meta,
    epochs: Vec<(EpochId, Offset)>,
    epoch_counter: u32,
    lines: BTreeMap<ReplicaId, Vec<u8>>,
    segments: Vec<SegmentRow>,
    clocks: BTreeMap<u64, (GenId, Vec<u8>)>,
    /// Positions of the snapshots that are whole.
    snapshots: BTreeMap<u64, Offset>,
    /// Where a generation began whose snapshot is lost, and whose Roll is in the log.
    rolled: BTreeMap<u64, Offset>,
    /// Parts that no state has, by segment and entry (R12).
    skipped: BTreeSet<(u64, Offset)>,
    pub lost: Vec<String>,
}

impl Kept {
    pub fn read(old: &Store, heap: u64, name: &str) -> Result<Kept, StoreError> {
        let mut lost = Vec::new();
        let mut meta_before = None;
        whole_rows(old, META, heap..=heap, |key, value| {
            meta_before = read_row(META, key, value, Meta::decode).ok().map(|(meta, _)| meta);
        })?;
        let (snapshots, generations, gone) = whole_snapshots(old, heap)?;
        lost.extend(gone.iter().map(|number| format!("the snapshot of segment {number}")));
        let log = WholeLog::read(old, heap, meta_before.as_ref())?;
        let complete = meta_before.as_ref().is_some_and(|meta| meta.head == log.end && meta.floor == log.begin);
        match &meta_before {
            Some(meta) if !complete => lost.push(format!("entries {} to {}", log.end.0, meta.head.0)),
            Some(_) => {}
            None => lost.push(format!("entries from {} on, if there were any, and the heap's own row", log.end.0)),
        }
        let (mut epochs, epoch_counter) = whole_epochs(old, heap, meta_before.as_ref(), log.end, &mut lost)?;
        // Whoever resumed would neither get what a snapshot has of the lost end of the log, nor give back what a lost one had.
        let has_more = snapshots.values().any(|position| *position > log.end);
        let has_less = gone.iter().any(|number| log.begin > Offset(0) && !log.rolled.contains_key(number));
        if !epochs.is_empty() && (has_more || has_less) {
            epochs.clear();
            lost.push(
                "what tells which replicas have more or less than is kept: all restore what they have".to_owned(),
            );
        }
        let mut segments = log.segments(old, heap, &snapshots, &mut lost)?;
        // A generation is kept with its document: a whole snapshot's own, or the last that the log tells of.
        for (number, row) in (0..).zip(&mut segments) {
            let told = if snapshots.contains_key(&number) { generations.get(&number) } else { log.told.get(&number) };
            row.generation = told.copied().unwrap_or(row.engine.generation_zero());
        }
        let clocks = log.clocks(old, heap, &segments, &snapshots, &mut lost)?;
        // An entry that says so may be lost, and the table that follows from it is not.
        let tables = clocks.iter().filter_map(|(number, (_, table))| Some((*number, Clocks::decode(table).ok()?)));
        let mut skipped: BTreeSet<_> =
            tables.flat_map(|(number, table)| table.skipped().map(|at| (number, at)).collect::<Vec<_>>()).collect();
        skipped.extend(log.skipped.iter().copied());
        let lines = log.lines(old, heap, complete, &segments, &mut lost)?;
        // D6: when the last restore was, if any, only that row has told.
        let seen = lines.values().filter_map(|line| AdmitRow::decode(line).ok()).map(|line| line.seen_ms).max();
        let held_at_most = || seen.unwrap_or(0).saturating_add(ROLL_HOLD_MS);
        let roll_hold_ms = meta_before.as_ref().map_or_else(held_at_most, |meta| meta.roll_hold_ms);
        // Of a line that is not kept, and of one whose row cannot be read, nobody tells that there was one.
        let forgotten = log.end;
        let lineage = meta_before.as_ref().map(|meta| meta.lineage).unwrap_or_default();
        let (head, floor) = (log.end, log.begin);
        let (chain, name) = (log.chain, name.to_owned());
        let meta = Meta { head, chain, floor, lineage, lives: 0, digest: 0, roll_hold_ms, forgotten, name };
        let snapshots: BTreeMap<u64, Offset> =
            snapshots.into_iter().filter(|(number, _)| *number < segments.len() as u64).collect();
        let rolled = log.rolled.into_iter().filter(|(number, _)| !snapshots.contains_key(number)).collect();
        Ok(Kept { heap, meta, epochs, epoch_counter, lines, segments, clocks, snapshots, skipped, rolled, lost })
    }

    pub fn write(&self, old: &Store, new: &Store, random: u64) -> Result<(), StoreError> {
        old.read(|from| new.write(|to| self.put(from, to, random)))
    }

    fn put(&self, from: &ReadTransaction, to: &WriteTransaction, random: u64) -> Result<(), StoreError> {
        let (heap, mut meta) = (self.heap, self.meta.clone());
        let begins = EpochId { counter: self.epoch_counter.saturating_add(1), random };
        let mut epochs = Sealed::open(to, EPOCHS)?;
        for (epoch, start) in self.epochs.iter().copied().chain([(begins, meta.head)]) {
            epochs.put(&mut meta.digest, (heap, meta.lives), &encode_epoch(epoch, start))?;
            meta.lives += 1;
        }
        if meta.lineage == EpochId::default() {
            meta.lineage = begins;
        }
        let mut admit = Sealed::open(to, ADMIT)?;
        for (replica, line) in &self.lines {
            admit.put(&mut meta.digest, (heap, replica.0), line)?;
        }
        let mut segments = Sealed::open(to, SEGMENTS)?;
        for (number, row) in (0..).zip(&self.segments) {
            segments.put(&mut meta.digest, (heap, number), &encode_segment(row))?;
        }
        let mut clocks = Sealed::open(to, CLOCKS)?;
        for (number, (generation, table)) in &self.clocks {
            let mut row = Vec::with_capacity(table.len() + 17);
            row.generation(*generation);
            row.extend_from_slice(table);
            clocks.put(&mut meta.digest, (heap, *number), &row)?;
        }
        let (mut snaps, mut snap) = (Sealed::open(to, SNAPS)?, to.open_table(SNAP).map_err(failed)?);
        for (number, position) in &self.snapshots {
            let Some(Snapshot { header, bytes, .. }) = snapshot_of(from, heap, *number)? else { continue };
            let whole = [&header[..], &bytes[..]].concat();
            let head = SnapHead::of((*position).min(meta.head), header.len(), &whole);
            snaps.put(&mut meta.digest, (heap, *number), &head.encode())?;
            snap.insert((heap, *number), &whole[..]).map_err(failed)?;
        }
        let (source, mut log) = (from.open_table(LOG).map_err(failed)?, to.open_table(LOG).map_err(failed)?);
        let mut index = Sealed::open(to, SEGIDX)?;
        let mut run = Run::default();
        for row in source.range((heap, meta.floor.0)..(heap, meta.head.0)).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let record = run.next(heap, key.value().1, value.value())?;
            log.insert(key.value(), value.value()).map_err(failed)?;
            for entry in record.entries(record.first) {
                let (offset, entry) = entry.map_err(damaged)?;
                for begins in documents(&entry) {
                    if self.rolled.get(&begins.segment.0) != Some(&offset.next()) {
                        continue;
                    }
                    let (of, whole) = ((heap, begins.segment.0), [&begins.header[..], &begins.snapshot[..]].concat());
                    let head = SnapHead::of(offset.next(), begins.header.len(), &whole);
                    snaps.put(&mut meta.digest, of, &head.encode())?;
                    snap.insert(of, &whole[..]).map_err(failed)?;
                }
                for (segment, delta) in entry.deltas() {
                    let begun = self.snapshots.get(&segment.0).or_else(|| self.rolled.get(&segment.0));
                    let covered = begun.is_some_and(|position| offset < *position);
                    let skipped = self.skipped.contains(&(segment.0, offset));
                    if covered || skipped || segment.0 >= self.segments.len() as u64 {
                        continue;
                    }
                    let at = delta.as_ptr().addr().saturating_sub(record.body.as_ptr().addr());
                    let at = if delta.is_empty() { 0 } else { at };
                    let place = Place { first: record.first, at, len: delta.len() };
                    index.put(&mut meta.digest, (heap, segment.0, offset.0), &place.encode())?;
                }
            }
        }
        Sealed::open(to, META)?.put(&mut 0, heap, &meta.encode())
    }
}

/// The documents that generations begin with in this entry: of a Roll, or adopted by a Restored.
fn documents(entry: &LogEntry) -> Vec<Begins> {
    match entry {
        LogEntry::Roll(roll) => {
            vec![Begins { segment: roll.segment, header: roll.header.clone(), snapshot: roll.snapshot.clone() }]
        }
        LogEntry::Restored(restore) => {
            let adopted = restore.segments.iter().filter(|part| part.adopts);
            adopted.map(|part| Begins { segment: part.segment, header: part.header, snapshot: part.state }).collect()
        }
        LogEntry::Commit(_) | LogEntry::Void { .. } | LogEntry::Quarantine(_) => Vec::new(),
    }
}

#[derive(Debug)]
struct Begins {
    segment: SegmentNumber,
    header: Bytes,
    snapshot: Bytes,
}

/// By segment: the positions of the snapshots that are whole, and the generations of those that have a header; and which are not whole.
type Snapshots = (BTreeMap<u64, Offset>, BTreeMap<u64, GenId>, Vec<u64>);

fn whole_snapshots(old: &Store, heap: u64) -> Result<Snapshots, StoreError> {
    let mut numbers = BTreeSet::new();
    whole_rows(old, SNAPS, (heap, 0)..=(heap, u64::MAX), |key, _| {
        numbers.insert(key.1);
    })?;
    whole_rows(old, SNAP, (heap, 0)..=(heap, u64::MAX), |key, _| {
        numbers.insert(key.1);
    })?;
    let (mut whole, mut generations, mut gone) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for number in numbers {
        match old.read(|transaction| snapshot_of(transaction, heap, number)) {
            Ok(Some(Snapshot { position, header, .. })) => {
                whole.insert(number, position);
                let header = GenerationHeader::decode(&header).ok();
                generations.extend(header.map(|header| (number, header.generation)));
            }
            Ok(None) | Err(StoreError::Damaged(_)) => gone.push(number),
            Err(other) => return Err(other),
        }
    }
    Ok((whole, generations, gone))
}

/// The lives that the log still tells apart: the newest ones without a gap, as far as they began within it. If one is missing,
/// those before it go too: where the life after them began is what tells what they may have lost.
fn whole_epochs(
    old: &Store,
    heap: u64,
    meta: Option<&Meta>,
    end: Offset,
    lost: &mut Vec<String>,
) -> Result<(Vec<(EpochId, Offset)>, u32), StoreError> {
    let mut rows = BTreeMap::new();
    let mut counter = 0;
    whole_rows(old, EPOCHS, (heap, 0)..=(heap, u64::MAX), |key, value| {
        if let Ok((row, _)) = read_row(EPOCHS, key, value, decode_epoch) {
            counter = counter.max(row.0.counter);
            rows.insert(key.1, row);
        }
    })?;
    let lives = meta.map_or(0, |meta| meta.lives);
    let mut epochs: Vec<_> = (0..lives).rev().map_while(|index| rows.get(&index).copied()).collect();
    epochs.reverse();
    if (epochs.len() as u64) < lives || meta.is_none() {
        lost.push("lives of the log: replicas of that time restore all they have".to_owned());
    }
    epochs.retain(|(_, start)| *start <= end);
    Ok((epochs, counter))
}
