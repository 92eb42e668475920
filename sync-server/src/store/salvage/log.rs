//! The longest whole beginning of a damaged heap's log, and what its entries say: segments, generations, lines, clock tables, and
//! parts that are left out.

use std::collections::{BTreeMap, BTreeSet};

use coheap_core::admit::{AdmitRow, raised};
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::guard::{self, Clocks};
use coheap_core::id::{GenId, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::limits;
use coheap_core::log::{AuthorInfo, LogEntry, StoredCommit};
use coheap_core::relay::{SegmentRow, SegmentTail};
use coheap_core::wire::codec::{Malformed, Write};
use coheap_core::wire::frame::down::{Fate, Row};
use coheap_core::wire::frame::{PART_CREATE, PART_DELTA};

use super::super::StoreError;
use super::super::handle::Store;
use super::super::read::Run;
use super::super::record::Record;
use super::super::recover::{decode_clocks, decode_segment};
use super::super::tables::{ADMIT, CLOCKS, LOG, Meta, SEGMENTS, damaged, failed, read_row};
use super::whole_rows;

/// The longest whole beginning of a log.
#[derive(Debug)]
pub(super) struct WholeLog {
    pub begin: Offset,
    pub end: Offset,
    pub chain: u64,
    /// What each of its segments' first entries say of it.
    created: BTreeMap<u64, SegmentRow>,
    /// The last commits of each line, and what its author said.
    lines: BTreeMap<ReplicaId, (AuthorInfo, Vec<LineRow>)>,
    tables: BTreeMap<u64, Clocks>,
    /// The last generations that it tells of, and the positions at which they begin.
    pub told: BTreeMap<u64, GenId>,
    pub rolled: BTreeMap<u64, Offset>,
    /// Parts that its entries leave out.
    pub skipped: BTreeSet<(u64, Offset)>,
    /// Commits without an entry that its Restoreds hold (D4): whose, its number, and the hash of what is held.
    listed: BTreeMap<Uid, (ReplicaId, Seq, u64)>,
}

/// A commit as its line remembers it; its parts are hashed when the segments' ids are known.
#[derive(Debug)]
struct LineRow {
    row: Row,
    parts: Vec<(SegmentNumber, GenId, bytes::Bytes)>,
    /// The log knows it by what was given back alone (D4).
    hollow: bool,
}

impl WholeLog {
    pub fn read(old: &Store, heap: u64, meta: Option<&Meta>) -> Result<WholeLog, StoreError> {
        let mut first = None;
        whole_rows(old, LOG, (heap, 0)..=(heap, u64::MAX), |key, _| {
            first = Some(first.map_or(key.1, |first: u64| first.min(key.1)));
        })?;
        // Without a floor, and with a log that does not begin at 0, what lies before it is in snapshots.
        let begin = meta.map_or(Offset(first.unwrap_or(0)), |meta| meta.floor);
        let (created, lines, tables, skipped, told, rolled, listed) = Default::default();
        let mut log = WholeLog { begin, end: begin, chain: 0, created, lines, tables, skipped, told, rolled, listed };
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
        for (offset, entry) in entries.map_err(damaged)? {
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
                    self.line(commit.owner, commit.author, LineRow { row, parts: parts.collect(), hollow: false });
                }
                LogEntry::Void { owner, seq, uid, code } => {
                    let row = Row { seq, uid, fate: Fate::Void(code) };
                    self.line(owner, None, LineRow { row, parts: Vec::new(), hollow: false });
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
                LogEntry::Roll(roll) => self.begins(roll.segment.0, roll.generation, offset.next()),
                LogEntry::Restored(restore) => {
                    for part in &restore.segments {
                        if let Some(created) = part.creates {
                            let (id, engine, layout) = (created.id, created.engine, created.layout);
                            let (generation, tail) = (part.generation, SegmentTail::default());
                            let row = SegmentRow { id, engine, layout, generation, born: offset, tail };
                            self.created.insert(part.segment.0, row);
                        }
                        if part.adopts {
                            self.begins(part.segment.0, part.generation, offset.next());
                        } else if !part.state.is_empty()
                            && let Ok(table) = guard::whole(self.engine(part.segment.0), &part.state)
                        {
                            self.tables.entry(part.segment.0).or_default().merge(table);
                        }
                    }
                    // D4: the lines go on from there, as `Admit::raise` has it.
                    for (owner, seq, uid) in restore.acked {
                        let (_, rows) = self.lines.entry(owner).or_default();
                        let has = rows.last().map_or(Seq(0), |last| last.row.seq);
                        if seq > has {
                            let known = restore.known.iter().filter(|(of, ..)| *of == owner);
                            let (raised, hollow) = raised(has, (seq, uid), known);
                            if raised.front().is_none_or(|first| first.seq != has.next()) {
                                rows.clear();
                            }
                            let row = |row: Row| LineRow { row, parts: Vec::new(), hollow: hollow.contains(&row.seq) };
                            rows.extend(raised.into_iter().map(row));
                            rows.drain(..rows.len().saturating_sub(limits::WINDOW));
                            self.listed.retain(|_, (of, listed, _)| *of != owner || *listed > seq);
                        }
                    }
                    // As `Admit::list` has it.
                    let hashes: BTreeMap<Uid, u64> = restore.known.iter().map(|known| (known.2, known.3)).collect();
                    for (owner, seq, uid) in restore.pending {
                        let rows = self.lines.get(&owner).map_or(&[][..], |(_, rows)| rows);
                        if rows.last().is_none_or(|last| last.row.seq < seq) {
                            let held = (owner, seq, hashes.get(&uid).copied().unwrap_or(0));
                            self.listed.entry(uid).or_insert(held);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A segment is of another generation from here on. Clocks of the old one mean nothing in it; what was left out of entries stays
    /// left out.
    fn begins(&mut self, segment: u64, generation: GenId, position: Offset) {
        self.told.insert(segment, generation);
        self.rolled.insert(segment, position);
        let before = self.tables.remove(&segment).unwrap_or_default();
        for at in before.skipped() {
            self.tables.entry(segment).or_default().skip(at);
        }
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
        if self.listed.get(&row.row.uid).is_some_and(|(of, ..)| *of == owner) {
            self.listed.remove(&row.row.uid);
        }
        let (known, rows) = self.lines.entry(owner).or_default();
        *known = author.unwrap_or_else(|| std::mem::take(known));
        // D4: what the log had lost came again, in its old place.
        if let Some(hollow) = rows.iter_mut().find(|known| known.hollow && known.row.seq == row.row.seq) {
            hollow.hollow = false;
            return;
        }
        rows.push(row);
        if rows.len() > limits::WINDOW {
            rows.remove(0);
        }
    }

    /// The segments, dense; one of which nothing is known any more is a place that nobody asks for.
    pub fn segments(
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
    pub fn clocks(
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
    pub fn lines(
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
        let listing = self.listed.values().map(|(owner, ..)| owner);
        let replicas: BTreeSet<ReplicaId> = self.lines.keys().chain(listing).copied().collect();
        let nobody = (AuthorInfo::default(), Vec::new());
        for replica in &replicas {
            let (author, rows) = self.lines.get(replica).unwrap_or(&nobody);
            let last = rows.last().map_or(Seq(0), |last| last.row.seq);
            // With what was told of it by entries that are folded away.
            if complete && stored.get(replica).is_some_and(|before| before.last() >= last) {
                continue;
            }
            let before = stored.remove(replica);
            let author = before.as_ref().map_or(author, |before| &before.author);
            let seen_ms = before.as_ref().map_or(0, |before| before.seen_ms);
            let known = before.iter().flat_map(AdmitRow::rows).copied().filter(|row| row.seq <= last);
            let mut rows_kept: Vec<Row> = known.collect();
            if rows_kept.last().map_or(Seq(0), |row| row.seq) != last {
                rows_kept = rows.iter().map(|line| line.hashed(segments)).collect();
            }
            let mut hollow: BTreeSet<Seq> = rows.iter().filter(|line| line.hollow).map(|line| line.row.seq).collect();
            // What has no entry at the end of all had none before.
            hollow.extend(before.iter().flat_map(AdmitRow::hollow));
            hollow.retain(|seq| rows_kept.iter().any(|row| row.seq == *seq));
            let listed = self.listed.iter().filter(|(_, (of, ..))| of == replica);
            let listed = listed.map(|(uid, (_, seq, hash))| (*uid, *seq, *hash));
            let listed: Vec<_> = listed.take(limits::RESTORE_PENDING_MAX).collect();
            let newest = Offset(self.end.0.saturating_sub(1));
            let same = before.as_ref().filter(|before| before.last() == last);
            let at = same.map_or(newest, |before| before.at().min(newest));
            lines.insert(*replica, encode_line(author, (seen_ms, at), &rows_kept, &hollow, &listed)?);
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

/// A line of these rows, in its stored form; its entries are all there or earlier. What is listed is ascending by uid.
fn encode_line(
    author: &AuthorInfo,
    (seen_ms, at): (u64, Offset),
    rows: &[Row],
    hollow: &BTreeSet<Seq>,
    listed: &[(Uid, Seq, u64)],
) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::new();
    out.varint(seen_ms);
    out.varint(at.0);
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
    if !hollow.is_empty() || !listed.is_empty() {
        out.varint(listed.len() as u64);
        for (uid, seq, _) in listed {
            out.varint(seq.0);
            Write::u64(&mut out, uid.0);
        }
        out.varint(hollow.len() as u64);
        for seq in hollow {
            out.varint(seq.0);
        }
        for (_, _, hash) in listed {
            Write::u64(&mut out, *hash);
        }
    }
    let read: Result<AdmitRow, Malformed> = AdmitRow::decode(&out);
    read.map_err(|_| damaged("a line cannot be made again"))?;
    Ok(out)
}
