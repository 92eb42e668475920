//! What can be saved of a damaged store: written to a new file, heap by heap, which then takes the old one's place. The old
//! file stays beside it, so nothing that was taken out is lost.
//!
//! ```text
//!   heap that is whole ──── copied, row by row
//!   damaged heap ────────── longest whole beginning of its log, whole snapshots, lines as that log has them
//!                           + a new epoch at its end: replicas that have more put it back (CORE-PROTOCOL §9)
//! ```
//!
//! What a salvaged heap shows until its replicas come back may hold half of a later commit: a snapshot that was taken later
//! than the log now ends is kept, since nothing else has what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use coheap_core::admit::AdmitRow;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::guard::{self, Clocks};
use coheap_core::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber};
use coheap_core::limits;
use coheap_core::log::{AuthorInfo, LogEntry, StoredCommit};
use coheap_core::relay::{SegmentRow, SegmentTail};
use coheap_core::wire::codec::{Malformed, Write};
use coheap_core::wire::frame::down::{Fate, Row};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::{PART_CREATE, PART_DELTA};
use redb::{Key, ReadTransaction, WriteTransaction};

use super::StoreError;
use super::append::{decode_epoch, encode_epoch};
use super::disk::FileDisk;
use super::handle::{FILE, Store, contained, number};
use super::read::{Run, number_of, snapshot_of};
use super::record::Record;
use super::recover::{decode_clocks, decode_segment, encode_segment};
use super::tables::{
    ADMIT, CLOCKS, EPOCHS, HEAPS, LOG, META, Meta, Place, Rows, SEGIDX, SEGMENTS, SNAP, SNAPS, Sealed, SnapHead,
    Snapshot, TOTALS, Totals, failed, read_row,
};

/// What became of one heap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Salvaged {
    /// Its name.
    pub heap: String,
    /// What was wrong with it.
    pub damage: String,
    /// The position after the last entry that was kept.
    pub head: Offset,
    /// What could not be kept, a line each.
    pub lost: Vec<String>,
}

/// Salvages the store of a directory: what became of each damaged heap, and where the old file is now. Nothing is touched if
/// no heap is damaged, or if one is that was not asked for. `random` makes the new epochs' bits.
pub fn salvage(
    directory: &Path,
    only: Option<&str>,
    mut random: impl FnMut() -> u64,
) -> Result<(Vec<Salvaged>, Option<PathBuf>), StoreError> {
    let path = directory.join(FILE);
    let old = Store::open_to_read(directory)?;
    let heaps = names(&old)?;
    let mut damage = BTreeMap::new();
    for (number, name) in &heaps {
        let known = old.read(|transaction| number_of(transaction, name));
        if !known.is_ok_and(|known| known == Some(*number)) {
            damage.insert(*number, "its name was lost".to_owned());
        } else if let Err(error) = old.verify_heap(name, |_| true) {
            damage.insert(*number, error.to_string());
        }
    }
    let names_lost = old.verify_names().is_err();
    if let Some(other) = only.and_then(|only| damage.keys().map(|number| &heaps[number]).find(|name| *name != only)) {
        return Err(StoreError::Damaged(format!("heap {other:?} too; salvage without --heap")));
    }
    // A file that its library does not open is written anew, even if all heaps in it are whole.
    if damage.is_empty() && !names_lost && !old.is_as_it_is() {
        return Ok((Vec::new(), None));
    }
    let beside = directory.join(format!("{FILE}.salvage"));
    let _ = std::fs::remove_file(&beside);
    let new = Store::open_on(Box::new(FileDisk::new(beside.clone())), 0)?;
    let mut salvaged = Vec::new();
    for (heap, name) in &heaps {
        match damage.remove(heap) {
            None => copy(&old, &new, *heap)?,
            Some(what) => {
                let kept = Kept::read(&old, *heap, name)?;
                kept.write(&old, &new, random())?;
                salvaged.push(Salvaged { heap: name.clone(), damage: what, head: kept.meta.head, lost: kept.lost });
            }
        }
    }
    put_names(&new, &heaps)?;
    for name in heaps.values() {
        new.verify_heap(name, |_| true)?;
    }
    drop(new);
    let aside = (1_u32..).map(|n| directory.join(format!("{FILE}.damaged-{n}"))).find(|path| !path.exists());
    let aside = aside.unwrap_or_default();
    // The old file has a second name before it loses its first, which is never missing.
    std::fs::hard_link(&path, &aside).map_err(StoreError::io)?;
    std::fs::rename(&beside, &path).map_err(StoreError::io)?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(StoreError::io)?;
    drop(old);
    Ok((salvaged, Some(aside)))
}

/// The heaps that there are, by number: of `heaps`, and where a row there is damaged, of `meta`. A number whose name nobody
/// knows any more gets one.
fn names(old: &Store) -> Result<BTreeMap<u64, String>, StoreError> {
    let mut names = BTreeMap::new();
    // Of the least trustworthy source first.
    let mut numbers = BTreeSet::new();
    whole_rows(old, LOG, (0, 0)..=(u64::MAX, u64::MAX), |key, _| {
        numbers.insert(key.0);
    })?;
    for heap in numbers {
        names.insert(heap, format!("lost-{heap}"));
    }
    whole_rows(old, META, 0..=u64::MAX, |heap, value| {
        if let Ok((meta, _)) = read_row(META, heap, value, Meta::decode) {
            names.insert(*heap, meta.name);
        }
    })?;
    let mut seen = BTreeMap::new();
    old.read(|transaction| {
        let heaps = transaction.open_table(HEAPS).map_err(failed)?;
        let mut rows = BTreeMap::new();
        for row in heaps.range::<&str>(..).map_err(failed)? {
            let Ok((name, value)) = row else { break };
            if let Ok((heap, _)) = read_row(HEAPS, &name.value(), value.value(), number) {
                rows.insert(heap, name.value().to_owned());
            }
        }
        Ok(rows)
    })
    .map(|rows| seen = rows)
    .unwrap_or_default();
    names.extend(seen);
    Ok(names)
}

/// The rows of a range that can be read at all, from its beginning and then from its end.
fn whole_rows<K: Key + 'static>(
    old: &Store,
    definition: Rows<K>,
    range: RangeInclusive<K::SelfType<'static>>,
    mut show: impl FnMut(&K::SelfType<'_>, &[u8]),
) -> Result<(), StoreError>
where
    K::SelfType<'static>: Clone,
{
    let show = std::cell::RefCell::new(&mut show);
    for backwards in [false, true] {
        let all = old.read(|transaction| {
            let table = transaction.open_table(definition).map_err(failed)?;
            let mut rows = table.range::<K::SelfType<'static>>(range.clone()).map_err(failed)?;
            loop {
                // A row that cannot be read ends this direction, and so does a panic of the library.
                match contained(|| if backwards { rows.next_back() } else { rows.next() }) {
                    Ok(Some(Ok((key, value)))) => show.borrow_mut()(&key.value(), value.value()),
                    Ok(None) => return Ok(true),
                    Ok(Some(Err(_))) | Err(_) => return Ok(false),
                }
            }
        });
        match all {
            Ok(true) => return Ok(()),
            Ok(false) | Err(StoreError::Damaged(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Copies a heap that is whole.
fn copy(old: &Store, new: &Store, heap: u64) -> Result<(), StoreError> {
    old.read(|from| {
        new.write(|to| {
            let (all, two) = ((heap, 0)..=(heap, u64::MAX), (heap, 0, 0)..=(heap, u64::MAX, u64::MAX));
            copy_rows(from, to, META, heap..=heap)?;
            copy_rows(from, to, EPOCHS, all.clone())?;
            copy_rows(from, to, ADMIT, (heap, [0; 16])..=(heap, [0xff; 16]))?;
            copy_rows(from, to, SEGMENTS, all.clone())?;
            copy_rows(from, to, CLOCKS, all.clone())?;
            copy_rows(from, to, SEGIDX, two)?;
            copy_rows(from, to, SNAPS, all.clone())?;
            copy_rows(from, to, SNAP, all.clone())?;
            copy_rows(from, to, LOG, all)
        })
    })
}

fn copy_rows<K: Key + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    definition: Rows<K>,
    range: RangeInclusive<K::SelfType<'static>>,
) -> Result<(), StoreError>
where
    K::SelfType<'static>: Clone,
{
    let table = from.open_table(definition).map_err(failed)?;
    let mut target = to.open_table(definition).map_err(failed)?;
    for row in table.range::<K::SelfType<'static>>(range).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        target.insert(key.value(), value.value()).map_err(failed)?;
    }
    Ok(())
}

fn put_names(new: &Store, heaps: &BTreeMap<u64, String>) -> Result<(), StoreError> {
    new.write(|transaction| {
        let count = heaps.last_key_value().map_or(0, |(last, _)| last + 1);
        let mut totals = Totals { heaps: count, digest: 0 };
        let mut table = Sealed::open(transaction, HEAPS)?;
        for (heap, name) in heaps {
            table.put(&mut totals.digest, name.as_str(), &heap.to_le_bytes())?;
        }
        Sealed::open(transaction, TOTALS)?.put(&mut 0, 0, &totals.encode())
    })
}

/// What is kept of a damaged heap; its records are read twice, to hold one at a time.
#[derive(Debug)]
struct Kept {
    heap: u64,
    /// Of the new heap; the digest is made when it is written.
    meta: Meta,
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
    lost: Vec<String>,
}

impl Kept {
    fn read(old: &Store, heap: u64, name: &str) -> Result<Kept, StoreError> {
        let mut lost = Vec::new();
        let mut meta_before = None;
        whole_rows(old, META, heap..=heap, |key, value| {
            meta_before = read_row(META, key, value, Meta::decode).ok().map(|(meta, _)| meta);
        })?;
        let (snapshots, generations) = whole_snapshots(old, heap, &mut lost)?;
        let log = WholeLog::read(old, heap, meta_before.as_ref())?;
        let complete = meta_before.as_ref().is_some_and(|meta| meta.head == log.end && meta.floor == log.begin);
        match &meta_before {
            Some(meta) if !complete => lost.push(format!("entries {} to {}", log.end.0, meta.head.0)),
            Some(_) => {}
            None => lost.push(format!("entries from {} on, if there were any, and the heap's own row", log.end.0)),
        }
        let (epochs, epoch_counter) = whole_epochs(old, heap, meta_before.as_ref(), log.end, &mut lost)?;
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
        let lineage = meta_before.as_ref().map(|meta| meta.lineage).unwrap_or_default();
        let (head, floor) = (log.end, log.begin);
        let meta = Meta {
            head,
            chain: log.chain,
            floor,
            lineage,
            lives: 0,
            digest: 0,
            roll_hold_ms: 0,
            name: name.to_owned(),
        };
        let snapshots: BTreeMap<u64, Offset> =
            snapshots.into_iter().filter(|(number, _)| *number < segments.len() as u64).collect();
        let rolled = log.rolled.into_iter().filter(|(number, _)| !snapshots.contains_key(number)).collect();
        Ok(Kept { heap, meta, epochs, epoch_counter, lines, segments, clocks, snapshots, skipped, rolled, lost })
    }

    fn write(&self, old: &Store, new: &Store, random: u64) -> Result<(), StoreError> {
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
                let (offset, entry) = entry.map_err(super::tables::damaged)?;
                if let LogEntry::Roll(roll) = &entry
                    && self.rolled.get(&roll.segment.0) == Some(&offset.next())
                {
                    let (of, whole) = ((heap, roll.segment.0), [&roll.header[..], &roll.snapshot[..]].concat());
                    let head = SnapHead::of(offset.next(), roll.header.len(), &whole);
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

/// Positions of the snapshots that are whole, and the generations of those that have a header.
#[expect(clippy::type_complexity, reason = "two maps by segment")]
fn whole_snapshots(
    old: &Store,
    heap: u64,
    lost: &mut Vec<String>,
) -> Result<(BTreeMap<u64, Offset>, BTreeMap<u64, GenId>), StoreError> {
    let mut numbers = BTreeSet::new();
    whole_rows(old, SNAPS, (heap, 0)..=(heap, u64::MAX), |key, _| {
        numbers.insert(key.1);
    })?;
    whole_rows(old, SNAP, (heap, 0)..=(heap, u64::MAX), |key, _| {
        numbers.insert(key.1);
    })?;
    let (mut whole, mut generations) = (BTreeMap::new(), BTreeMap::new());
    for number in numbers {
        match old.read(|transaction| snapshot_of(transaction, heap, number)) {
            Ok(Some(Snapshot { position, header, .. })) => {
                whole.insert(number, position);
                let header = GenerationHeader::decode(&header).ok();
                generations.extend(header.map(|header| (number, header.generation)));
            }
            Ok(None) | Err(StoreError::Damaged(_)) => lost.push(format!("the snapshot of segment {number}")),
            Err(other) => return Err(other),
        }
    }
    Ok((whole, generations))
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

/// The longest whole beginning of a log.
#[derive(Debug)]
struct WholeLog {
    begin: Offset,
    end: Offset,
    chain: u64,
    /// What each of its segments' first entries say of it.
    created: BTreeMap<u64, SegmentRow>,
    /// The last commits of each line, and what its author said.
    lines: BTreeMap<ReplicaId, (AuthorInfo, Vec<LineRow>)>,
    tables: BTreeMap<u64, Clocks>,
    /// The last generations that it tells of, and the positions at which they begin.
    told: BTreeMap<u64, GenId>,
    rolled: BTreeMap<u64, Offset>,
    /// Parts that its entries leave out.
    skipped: BTreeSet<(u64, Offset)>,
}

/// A commit as its line remembers it; its parts are hashed when the segments' ids are known.
#[derive(Debug)]
struct LineRow {
    row: Row,
    parts: Vec<(SegmentNumber, GenId, bytes::Bytes)>,
}

impl WholeLog {
    fn read(old: &Store, heap: u64, meta: Option<&Meta>) -> Result<WholeLog, StoreError> {
        let mut first = None;
        whole_rows(old, LOG, (heap, 0)..=(heap, u64::MAX), |key, _| {
            first = Some(first.map_or(key.1, |first: u64| first.min(key.1)));
        })?;
        // Without a floor, and with a log that does not begin at 0, what lies before it is in snapshots.
        let begin = meta.map_or(Offset(first.unwrap_or(0)), |meta| meta.floor);
        let (created, lines, tables, skipped, told, rolled) = Default::default();
        let mut log = WholeLog { begin, end: begin, chain: 0, created, lines, tables, skipped, told, rolled };
        let mut run = Run { end: begin, chain: None };
        let mut at = begin;
        loop {
            let record = old.read(|transaction| {
                let table = transaction.open_table(LOG).map_err(failed)?;
                let Some(value) = table.get((heap, at.0)).map_err(failed)? else { return Ok(None) };
                Ok(Record::read(value.value()).ok().map(|_| value.value().to_vec()))
            });
            let bytes = match record {
                Ok(Some(bytes)) => bytes,
                Ok(None) | Err(StoreError::Damaged(_)) => break,
                Err(other) => return Err(other),
            };
            let Ok(record) = run.next(heap, at.0, &bytes) else { break };
            let beyond = meta.is_some_and(|meta| record.end() > meta.head);
            if beyond || log.take(&record).is_err() {
                break;
            }
            (at, log.end, log.chain) = (record.end(), record.end(), record.chain);
        }
        Ok(log)
    }

    /// Notes what a record says.
    fn take(&mut self, record: &Record) -> Result<(), StoreError> {
        // All of them can be read, or none of them is counted.
        let entries: Result<Vec<_>, _> = record.entries(record.first).collect();
        for (offset, entry) in entries.map_err(super::tables::damaged)? {
            match entry {
                LogEntry::Commit(commit) => {
                    for part in &commit.parts {
                        if let Some(created) = part.creates {
                            let (id, engine, layout) = (created.id, created.engine, created.layout);
                            let (generation, tail) = (part.generation, SegmentTail::default());
                            let row = SegmentRow { id, engine, layout, generation, born: offset, tail };
                            self.created.insert(part.segment.0, row);
                        }
                        if matches!(part.kind, PART_DELTA | PART_CREATE) {
                            self.count(&commit, part.segment.0, &part.bytes);
                        }
                    }
                    let row = Row { seq: commit.seq, uid: commit.uid, fate: Fate::Admitted(0) };
                    // Copies: the record they lie in is not kept.
                    let copy = |bytes: &bytes::Bytes| bytes::Bytes::copy_from_slice(bytes);
                    let parts = commit.parts.iter().map(|part| (part.segment, part.generation, copy(&part.bytes)));
                    self.line(commit.owner, commit.author, LineRow { row, parts: parts.collect() });
                }
                LogEntry::Void { owner, seq, uid, code } => {
                    let row = Row { seq, uid, fate: Fate::Void(code) };
                    self.line(owner, None, LineRow { row, parts: Vec::new() });
                }
                LogEntry::Quarantine(quarantine) => {
                    let segment = quarantine.segment.0;
                    let table = self.tables.entry(segment).or_default();
                    if let Some((client, clock)) = quarantine.client {
                        table.bar(client, clock);
                    }
                    for at in quarantine.skipped() {
                        table.skip(at);
                        self.skipped.insert((segment, at));
                    }
                }
                LogEntry::Roll(roll) => {
                    self.told.insert(roll.segment.0, roll.generation);
                    self.rolled.insert(roll.segment.0, offset.next());
                    // Clocks of the old generation mean nothing in the new one; what was left out of entries stays left out.
                    let before = self.tables.remove(&roll.segment.0).unwrap_or_default();
                    for at in before.skipped() {
                        self.tables.entry(roll.segment.0).or_default().skip(at);
                    }
                }
                LogEntry::Restored(restore) => {
                    for part in &restore.segments {
                        if let Some(created) = part.creates {
                            let (id, engine, layout) = (created.id, created.engine, created.layout);
                            let (generation, tail) = (part.generation, SegmentTail::default());
                            let row = SegmentRow { id, engine, layout, generation, born: offset, tail };
                            self.created.insert(part.segment.0, row);
                        }
                        if !part.state.is_empty()
                            && let Ok(table) = guard::whole(self.engine(part.segment.0), &part.state)
                        {
                            self.tables.entry(part.segment.0).or_default().merge(table);
                        }
                    }
                    // D4: the lines go on from there; what was before is forgotten.
                    for (owner, seq, uid) in restore.acked {
                        let (_, rows) = self.lines.entry(owner).or_default();
                        if rows.last().is_none_or(|last| last.row.seq < seq) {
                            rows.clear();
                            rows.push(LineRow { row: Row { seq, uid, fate: Fate::Admitted(0) }, parts: Vec::new() });
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, commit: &StoredCommit, segment: u64, bytes: &[u8]) {
        if let Ok(summary) = guard::structure(self.engine(segment), bytes) {
            self.tables.entry(segment).or_default().record(commit.owner, &summary);
        }
    }

    fn engine(&self, segment: u64) -> guard::Engine {
        match self.created.get(&segment).map(|row| row.engine) {
            Some(EngineKind::Automerge) => guard::Engine::Automerge,
            _ => guard::Engine::Yrs,
        }
    }

    fn line(&mut self, owner: ReplicaId, author: Option<AuthorInfo>, row: LineRow) {
        let (known, rows) = self.lines.entry(owner).or_default();
        *known = author.unwrap_or_else(|| std::mem::take(known));
        rows.push(row);
        if rows.len() > limits::WINDOW {
            rows.remove(0);
        }
    }

    /// The segments, dense; one of which nothing is known any more is a place that nobody asks for.
    fn segments(
        &self,
        old: &Store,
        heap: u64,
        snapshots: &BTreeMap<u64, Offset>,
        lost: &mut Vec<String>,
    ) -> Result<Vec<SegmentRow>, StoreError> {
        let mut rows = self.created.clone();
        whole_rows(old, SEGMENTS, (heap, 0)..=(heap, u64::MAX), |key, value| {
            if let Ok((row, _)) = read_row(SEGMENTS, key, value, decode_segment)
                && (row.born < self.end || snapshots.contains_key(&key.1))
            {
                rows.insert(key.1, SegmentRow { born: row.born.min(self.end), ..row });
            }
        })?;
        let count = rows.last_key_value().map_or(0, |(last, _)| last + 1);
        let row = |number| {
            rows.get(&number).copied().unwrap_or_else(|| {
                lost.push(format!("segment {number}: its id"));
                let mut id = [0xff; 16];
                id[..8].copy_from_slice(&number.to_le_bytes());
                let (id, engine, tail) = (SegmentId(id), EngineKind::Yrs, SegmentTail::default());
                SegmentRow { id, engine, layout: 1, generation: engine.generation_zero(), born: self.begin, tail }
            })
        };
        Ok((0..count).map(row).collect())
    }

    /// Clock tables as they were, or made anew from what the log has.
    fn clocks(
        &self,
        old: &Store,
        heap: u64,
        segments: &[SegmentRow],
        snapshots: &BTreeMap<u64, Offset>,
        lost: &mut Vec<String>,
    ) -> Result<BTreeMap<u64, (GenId, Vec<u8>)>, StoreError> {
        let mut tables = BTreeMap::new();
        whole_rows(old, CLOCKS, (heap, 0)..=(heap, u64::MAX), |key, value| {
            if let Ok(((generation, table), _)) = read_row(CLOCKS, key, value, decode_clocks)
                && key.1 < segments.len() as u64
            {
                tables.insert(key.1, (generation, table.to_vec()));
            }
        })?;
        for (number, clocks) in &self.tables {
            let Some(row) = segments.get(usize::try_from(*number).unwrap_or(usize::MAX)) else { continue };
            if !tables.contains_key(number) {
                let mut table = Vec::new();
                clocks.encode(&mut table);
                tables.insert(*number, (row.generation, table));
                if snapshots.contains_key(number) || self.rolled.contains_key(number) {
                    lost.push(format!(
                        "segment {number}: the clocks of its snapshot; edits of what is in it are refused"
                    ));
                }
            }
        }
        Ok(tables)
    }

    /// Lines as they were at the end of this log. Of an author of whom it has no commit, that is known only if nothing is
    /// lost: otherwise the line goes, and the author is told so when it comes back (G5).
    fn lines(
        &self,
        old: &Store,
        heap: u64,
        complete: bool,
        segments: &[SegmentRow],
        lost: &mut Vec<String>,
    ) -> Result<BTreeMap<ReplicaId, Vec<u8>>, StoreError> {
        let mut stored = BTreeMap::new();
        whole_rows(old, ADMIT, (heap, [0; 16])..=(heap, [0xff; 16]), |key, value| {
            if let Ok((row, _)) = read_row(ADMIT, key, value, AdmitRow::decode) {
                stored.insert(ReplicaId(key.1), row);
            }
        })?;
        let mut lines = BTreeMap::new();
        for (replica, (author, rows)) in &self.lines {
            let Some(last) = rows.last().map(|last| last.row.seq) else { continue };
            let before = stored.remove(replica);
            let author = before.as_ref().map_or(author, |before| &before.author);
            let seen_ms = before.as_ref().map_or(0, |before| before.seen_ms);
            let known = before.iter().flat_map(AdmitRow::rows).copied().filter(|row| row.seq <= last);
            let mut rows_kept: Vec<Row> = known.collect();
            if rows_kept.last().map(|row| row.seq) != Some(last) {
                rows_kept = rows.iter().map(|line| line.hashed(segments)).collect();
            }
            lines.insert(*replica, encode_line(author, seen_ms, &rows_kept)?);
        }
        for (replica, before) in stored {
            if complete {
                let mut row = Vec::new();
                before.encode(&mut row);
                lines.insert(replica, row);
            } else {
                lost.push(format!("the line of {replica:?}"));
            }
        }
        Ok(lines)
    }
}

impl LineRow {
    fn hashed(&self, segments: &[SegmentRow]) -> Row {
        // A refused one, or one whose content the log has lost.
        if self.parts.is_empty() {
            return self.row;
        }
        let id = |number: SegmentNumber| {
            let row = usize::try_from(number.0).ok().and_then(|number| segments.get(number));
            row.map(|row| row.id).unwrap_or_default()
        };
        let parts = self.parts.iter().map(|(number, generation, bytes)| (id(*number), *generation, &bytes[..]));
        Row { fate: Fate::Admitted(content_hash(parts)), ..self.row }
    }
}

/// A line of these rows, in its stored form.
fn encode_line(author: &AuthorInfo, seen_ms: u64, rows: &[Row]) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::new();
    out.varint(seen_ms);
    out.str(&author.name);
    out.str(&author.subject);
    out.varint(rows.last().map_or(0, |row| row.seq.0));
    out.varint(rows.len() as u64);
    for row in rows {
        Write::u64(&mut out, row.uid.0);
        let (kind, value) = match row.fate {
            Fate::Admitted(hash) => (0, hash),
            Fate::Void(code) => (1, code),
        };
        out.push(kind);
        Write::u64(&mut out, value);
    }
    let read: Result<AdmitRow, Malformed> = AdmitRow::decode(&out);
    read.map_err(|_| super::tables::damaged("a line cannot be made again"))?;
    Ok(out)
}
