//! The log of one heap: gives every admitted commit its offset, at receipt, and knows how far the disk has followed.
//!
//! ```text
//!   0 ────── floor ─────────────── durable ──────── head
//!     folded       │ in the store          │ appended, │ next offset
//!     away         │     (newest: tail)    │ not yet   │
//!                  │                       │ on disk   │
//! ```
//!
//! Everything in memory (lines, segments, clock tables) is the state at `head`; nobody but an author is told of anything at
//! or above `durable` (DESIGN §3). It never sends anything: `deliver.rs` does.

mod skips;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use self::skips::Watched;
use super::port::{Append, DeltaPlace, Folded, GenerationBegins, Recovered, SegmentRow, SegmentTail};
use crate::admit::{self, AdmitRow, AdmitTable, Candidate, Ignored, PartGeneration, Verdict};
use crate::commit::{EngineKind, LAYOUT, content_hash};
use crate::guard::{self, Clocks, GuardError, Summary};
use crate::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use crate::limits;
use crate::log::{AuthorInfo, Created, LogEntry, RestoredSegment, StoredCommit, StoredPart, StoredRestore, StoredRoll};
use crate::mutate::{self, Mutation};
use crate::wire::code::Code;
use crate::wire::codec::Reader;
use crate::wire::frame::down::{Fate, Row};
use crate::wire::frame::restore::{Content, Place};
use crate::wire::frame::roll::{GenerationHeader, Included};
use crate::wire::frame::{PART_CREATE, PART_DELTA};

/// Durable entries kept in memory, so that connections at the live edge never read the disk.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// An entry in memory.
#[derive(Clone, Debug)]
pub(super) struct TailEntry {
    pub offset: Offset,
    pub entry: Arc<LogEntry>,
    bytes: usize,
}

/// A part on its way in, its segment looked up.
#[derive(Clone, Debug)]
pub(super) struct IncomingPart {
    pub segment: SegmentId,
    pub kind: u8,
    pub generation: GenId,
    /// What the part says of its segment, for the case that it creates it.
    pub create: Option<(EngineKind, u8)>,
    pub bytes: Bytes,
}

/// A commit on its way in.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub line: Candidate,
    pub label: Option<String>,
    pub parts: Vec<IncomingPart>,
}

/// What became of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Placed {
    /// It is in the log, and created these segments.
    Appended { offset: Offset, created: Vec<SegmentNumber> },
    /// It is in the log without its parts: the log's states hold another version of it.
    Bared { offset: Offset },
    /// It was refused; its place is void.
    Voided { offset: Offset, code: Code },
    /// The log has it already.
    Duplicate,
    /// The log has its refusal already.
    Refused { code: u64 },
    /// Another one has its number.
    Conflict { uid: crate::id::Uid },
    /// Nothing is known of its line.
    Unknown,
    /// To be sent again: it is not refused yet (D6).
    Held,
    /// Passed over.
    Ignored(Ignored),
    /// Made against an old generation.
    Rebase { segment: SegmentId, generation: GenId },
}

/// How far something is on its way to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    /// To be put into the next batch.
    No,
    /// In a batch.
    Under,
    /// On the disk.
    Yes,
}

#[derive(Debug)]
struct Segment {
    row: SegmentRow,
    clocks: Clocks,
    /// How often folding it has failed since it last went well.
    failed_folds: u32,
    /// The position after the last entry that it is in, as far as this machine has appended them.
    changed: Offset,
    /// Where its generation begins, if this machine has appended that.
    begun: Offset,
    /// The position after the last entry with something that a replica of the life `given` may lack: any but a Restored of that
    /// life's replicas (D4).
    written: Offset,
    /// The life of the lost log from which replicas have given it back since.
    given: Option<EpochId>,
    /// Its generation was adopted from a replica of that life, and this one is its parent.
    adopted: Option<GenId>,
}

impl Segment {
    /// An entry changes it.
    fn write(&mut self, at: Offset) {
        (self.changed, self.written) = (at.next(), at.next());
    }

    /// A Restored of a replica of that life changes it.
    fn give_back(&mut self, at: Offset, life: EpochId, parent: Option<GenId>) {
        if self.given.is_some_and(|given| given != life) {
            // Of what another life had, this one's replicas know nothing.
            (self.written, self.adopted) = (self.changed, None);
        }
        self.given = Some(life);
        self.changed = at.next();
        if parent.is_some() {
            (self.begun, self.adopted) = (at.next(), parent);
        }
    }
}

#[derive(Debug)]
pub(super) struct Sequencer {
    pub head: Offset,
    pub durable: Offset,
    pub floor: Offset,
    pub lineage: EpochId,
    pub epochs: Vec<(EpochId, Offset)>,
    /// Where the newest epoch is on its way to the disk.
    epoch_written: Written,
    /// The log had entries when it was opened.
    opened_with_entries: bool,
    admit: AdmitTable,
    segments: Vec<Segment>,
    by_id: BTreeMap<SegmentId, SegmentNumber>,
    tail: VecDeque<TailEntry>,
    tail_bytes: usize,
    /// What [`Sequencer::take_batch`] will give; lines and clock tables are encoded then.
    batch: Append,
    touched_lines: BTreeSet<ReplicaId>,
    touched_segments: BTreeSet<SegmentNumber>,
    pub attempt: u32,
    /// No generation is made before this time, in Unix milliseconds (D6).
    pub roll_hold_ms: u64,
    /// Parts that are left out, as the disk has it: what is sent follows these. The clock tables have them as of the head.
    skips: BTreeMap<SegmentNumber, BTreeSet<Offset>>,
    /// A segment that is being replayed, and the parts of it that the store may not have given for that.
    watched: Option<(SegmentNumber, Vec<Watched>)>,
}

/// A segment that a replica gave back, looked at: it is of the current generation, and what the log has of it was merged
/// with it.
#[derive(Debug)]
pub(super) struct GivenBack {
    pub id: SegmentId,
    pub engine: EngineKind,
    pub layout: u8,
    pub generation: GenId,
    pub header: Bytes,
    /// What it adds; `None` if the log has all of it.
    pub adds: Option<(Bytes, Clocks)>,
    /// It takes the place of what the log has.
    pub adopts: bool,
}

/// Who gives something back, and what it says of its lines (`StoredRestore`).
#[derive(Debug)]
pub(super) struct Giver {
    pub by: ReplicaId,
    /// The life of the log that it comes from.
    pub life: EpochId,
    pub pending: Vec<Place<ReplicaId>>,
    pub acked: Vec<Place<ReplicaId>>,
    pub known: Vec<Content<ReplicaId>>,
}

/// What is known of a segment for who gives it back (D4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub engine: EngineKind,
    pub generation: GenId,
    /// The position after the last entry with something that a replica of that life may lack.
    pub written: Offset,
    /// Its generation was adopted from a replica of that life, and this one is its parent.
    pub adopted: Option<GenId>,
}

impl Sequencer {
    /// The log as recovered, in a life of its own (R6).
    pub fn new(recovered: Recovered, life: u64) -> Sequencer {
        let head = recovered.head;
        let mut segments: Vec<Segment> = recovered
            .segments
            .iter()
            .map(|row| Segment {
                row: *row,
                clocks: Clocks::default(),
                failed_folds: 0,
                changed: head,
                begun: Offset(0),
                written: head,
                given: None,
                adopted: None,
            })
            .collect();
        for (number, generation, bytes) in &recovered.clocks {
            let segment = usize::try_from(number.0).ok().and_then(|at| segments.get_mut(at));
            // A table that does not read back is a damaged store: an empty one refuses what continues, and admits nothing false.
            let segment = segment.filter(|segment| segment.row.generation == *generation);
            if let (Some(segment), Ok(clocks)) = (segment, Clocks::decode(bytes)) {
                segment.clocks = clocks;
            }
        }
        let skips = (0..).map(SegmentNumber).zip(&segments).filter(|(_, segment)| segment.clocks.skipped().len() > 0);
        let skips = skips.map(|(number, segment)| (number, segment.clocks.skipped().collect())).collect();
        let by_id = segments.iter().zip(0..).map(|(segment, n)| (segment.row.id, SegmentNumber(n))).collect();
        let mut sequencer = Sequencer {
            head,
            durable: head,
            floor: recovered.floor,
            lineage: recovered.lineage,
            epochs: recovered.epochs,
            epoch_written: Written::Yes,
            opened_with_entries: head.0 > 0,
            admit: AdmitTable::from_rows(recovered.admit),
            segments,
            by_id,
            tail: VecDeque::new(),
            tail_bytes: 0,
            batch: Append::default(),
            touched_lines: BTreeSet::new(),
            touched_segments: BTreeSet::new(),
            attempt: 0,
            roll_hold_ms: recovered.roll_hold_ms,
            skips,
            watched: None,
        };
        sequencer.begin_epoch(life);
        sequencer
    }

    /// Goes back to what the store has, in the same life: what was appended and not written never was (R6 needs no new
    /// epoch, since nobody has seen it).
    pub fn recover(&mut self, recovered: Recovered, life: u64) {
        let attempt = self.attempt + 1;
        *self = Sequencer::new(recovered, life);
        self.attempt = attempt;
    }

    fn begin_epoch(&mut self, life: u64) {
        if self.epochs.last().is_some_and(|(epoch, _)| epoch.random == life || mutate::on(Mutation::SameEpoch)) {
            return;
        }
        let counter = self.epochs.last().map_or(0, |(epoch, _)| epoch.counter.saturating_add(1));
        let epoch = EpochId { counter, random: life };
        if self.epochs.is_empty() {
            self.lineage = epoch;
        }
        self.epochs.push((epoch, self.head));
        self.epoch_written = Written::No;
    }

    /// True when a Hello may be answered: the epoch it will be told is on the disk (R6). A heap without an entry
    /// has nothing that a number could mean, so its epoch is written with its first entry, and opening a name that nobody
    /// writes to leaves nothing behind (`SEMANTICS` S17).
    pub fn ready(&self) -> bool {
        !self.opened_with_entries || self.epoch_written == Written::Yes || mutate::on(Mutation::HelloBeforeEpoch)
    }

    /// The heap has had a commit.
    pub fn exists(&self) -> bool {
        !self.segments.is_empty()
    }

    /// A line.
    pub fn line(&self, owner: ReplicaId) -> Option<&AdmitRow> {
        self.admit.get(owner)
    }

    /// Where all that the log has of these lines is durable.
    pub fn settles(&self, lines: &BTreeSet<ReplicaId>) -> Offset {
        let concerns = |entry: &LogEntry| match entry {
            LogEntry::Commit(StoredCommit { owner, .. }) | LogEntry::Void { owner, .. } => lines.contains(owner),
            LogEntry::Restored(StoredRestore { pending, acked, .. }) => {
                pending.iter().chain(acked).any(|(owner, _, _)| lines.contains(owner))
            }
            // They leave out parts, or bring another document, and concern no commit.
            LogEntry::Quarantine(_) | LogEntry::Roll(_) => false,
        };
        let undurable = self.tail.iter().rev().take_while(|held| held.offset >= self.durable);
        let newest = undurable.into_iter().find(|held| concerns(&held.entry));
        newest.map_or(self.durable, |held| held.offset.next())
    }

    /// A segment's number.
    pub fn number(&self, id: SegmentId) -> Option<SegmentNumber> {
        self.by_id.get(&id).copied()
    }

    /// A segment, as of `head`.
    pub fn segment(&self, number: SegmentNumber) -> Option<&SegmentRow> {
        self.segments.get(usize::try_from(number.0).ok()?).map(|segment| &segment.row)
    }

    fn segment_mut(&mut self, number: SegmentNumber) -> Option<&mut Segment> {
        self.segments.get_mut(usize::try_from(number.0).ok()?)
    }

    /// All segments by number.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentNumber, &SegmentRow)> {
        (0..).map(SegmentNumber).zip(self.segments.iter().map(|segment| &segment.row))
    }

    /// A segment was folded, or could not be.
    pub fn folded(&mut self, number: SegmentNumber, folded: Option<Folded>, floor: Offset) {
        if let Some(segment) = self.segment_mut(number) {
            let tail = &mut segment.row.tail;
            match folded {
                Some(folded) => {
                    tail.deltas = tail.deltas.saturating_sub(folded.deltas);
                    tail.bytes = tail.bytes.saturating_sub(folded.bytes);
                    if folded.deltas == 0 {
                        // What was counted here when the log was read, a fold that an earlier machine had asked for has
                        // covered since. It must not be asked for again without end.
                        (tail.deltas, tail.bytes) = (0, 0);
                    }
                    tail.snapshot_bytes = folded.snapshot_bytes;
                    segment.failed_folds = 0;
                }
                None => segment.failed_folds += 1,
            }
        }
        self.floor = self.floor.max(floor);
    }

    /// Whether the deltas behind a segment's snapshot have become too many. Twice as many each time folding them fails, so
    /// that a segment no engine can read does not keep the worker busy.
    pub fn wants_fold(&self, number: SegmentNumber, bytes_max: u64, deltas_max: u64) -> bool {
        let at = usize::try_from(number.0).ok();
        let Some(segment) = at.and_then(|at| self.segments.get(at)) else { return false };
        let tail = segment.row.tail;
        let times = 1_u64 << segment.failed_folds.min(32);
        let bytes_max = bytes_max.max(tail.snapshot_bytes / 2);
        tail.bytes > bytes_max.saturating_mul(times) || tail.deltas > deltas_max.saturating_mul(times)
    }

    /// Judges a commit by the state at the head and gives it its place, if it gets one: R2, R10, R11. `refusal` is what
    /// stands against it apart from the log: rights, limits, a claim that is no longer current.
    ///
    /// While refusals are `held` (D6), one that need not have been made of this commit before the log was lost is put off.
    pub fn place(
        &mut self,
        commit: Incoming,
        author: &AuthorInfo,
        refusal: Option<Code>,
        held: bool,
        unix_ms: u64,
    ) -> Placed {
        match self.admit.line(&commit.line) {
            Verdict::Admit => {}
            Verdict::Duplicate => return Placed::Duplicate,
            Verdict::Hollow { hash } => return self.fill(commit, hash, author, refusal, held, unix_ms),
            Verdict::Refused { code } => return Placed::Refused { code },
            Verdict::Conflict { uid } => return Placed::Conflict { uid },
            Verdict::Unknown => return Placed::Unknown,
            Verdict::Ignored(why) => return Placed::Ignored(why),
            Verdict::Rebase { segment, generation } => return Placed::Rebase { segment, generation },
        }
        // R10, structure half, and the other refusals, which do not depend on the generation.
        let summaries = match refusal.map_or_else(|| self.structure(&commit.parts), Err) {
            Ok(summaries) => summaries,
            Err(code) if held && depends_on_the_log(code) => return Placed::Held,
            Err(code) => return self.void(&commit.line, author, code, unix_ms),
        };
        // D4: a Restored holds it otherwise, as a copy of its process made it anew. That version counts.
        let parts = commit.parts.iter().map(|part| (part.segment, part.generation, &part.bytes[..]));
        if self.admit.held(commit.line.uid).is_some_and(|hash| hash != content_hash(parts)) && !self.has_generations() {
            let (offset, bare) = (self.head, Incoming { parts: Vec::new(), ..commit });
            self.append(bare, author, &[], unix_ms);
            return Placed::Bared { offset };
        }
        let generations = commit.parts.iter().map(|part| PartGeneration {
            segment: part.segment,
            given: part.generation,
            current: self.generation_for(part),
        });
        if let Verdict::Rebase { segment, generation } = admit::generations(generations)
            && !mutate::on(Mutation::AnyGeneration)
        {
            return Placed::Rebase { segment, generation };
        }
        // R10, clocks half: after R2a–e, before f.
        match self.check_clocks(commit.line.owner, &commit.parts, &summaries) {
            Ok(()) => self.append(commit, author, &summaries, unix_ms),
            // D4: a Restored shows what it does, so it is in the log; its clocks are counted there.
            Err(_) if self.lists(&commit.line) => {
                let none = vec![None; commit.parts.len()];
                self.append(commit, author, &none, unix_ms)
            }
            Err(_) if held => Placed::Held,
            Err(code) => self.void(&commit.line, author, code, unix_ms),
        }
    }

    /// D4: what was acknowledged by a log that was lost, and comes again with the bytes that it had then. What of it was given back
    /// is there twice, which changes nothing; the rest is there again. It cannot be refused: where it has no place any more it is
    /// what it would be anyway, a duplicate.
    fn fill(
        &mut self,
        commit: Incoming,
        hash: u64,
        author: &AuthorInfo,
        refusal: Option<Code>,
        held: bool,
        unix_ms: u64,
    ) -> Placed {
        let parts = commit.parts.iter().map(|part| (part.segment, part.generation, &part.bytes[..]));
        let current = commit.parts.iter().all(|part| part.generation == self.generation_for(part));
        if refusal.is_some() || !current || content_hash(parts) != hash {
            return Placed::Duplicate;
        }
        let Ok(summaries) = self.structure(&commit.parts) else { return Placed::Duplicate };
        match self.check_clocks(commit.line.owner, &commit.parts, &summaries) {
            Ok(()) => self.append(commit, author, &summaries, unix_ms),
            // What it builds on may be given back yet.
            Err(Code::GuardClocks) if held => Placed::Held,
            Err(_) => Placed::Duplicate,
        }
    }

    /// The generation a part must be against. A segment that the log does not know is an empty one of generation 0 (C10).
    fn generation_for(&self, part: &IncomingPart) -> GenId {
        match self.number(part.segment).and_then(|number| self.segment(number)) {
            Some(row) => row.generation,
            None => engine_of(part).generation_zero(),
        }
    }

    fn structure(&self, parts: &[IncomingPart]) -> Result<Vec<Option<Summary>>, Code> {
        let mut summaries = Vec::with_capacity(parts.len());
        for part in parts {
            let known = self.number(part.segment).and_then(|number| self.segment(number));
            if let Some(row) = known {
                let size = row.tail.snapshot_bytes + row.tail.bytes + part.bytes.len() as u64;
                if size > limits::SEGMENT_BYTES_HARD as u64 {
                    return Err(Code::TooLarge);
                }
            }
            let engine = known.map_or_else(|| engine_of(part), |row| row.engine);
            summaries.push(match part.kind {
                PART_DELTA | PART_CREATE => {
                    Some(guard::structure(engine_for_guard(engine), &part.bytes).map_err(|_| Code::GuardStructure)?)
                }
                _ => None,
            });
        }
        Ok(summaries)
    }

    fn check_clocks(
        &self,
        owner: ReplicaId,
        parts: &[IncomingPart],
        summaries: &[Option<Summary>],
    ) -> Result<(), Code> {
        let empty = Clocks::default();
        for (part, summary) in parts.iter().zip(summaries) {
            let Some(summary) = summary else { continue };
            let at = self.number(part.segment).and_then(|number| usize::try_from(number.0).ok());
            let clocks = at.and_then(|at| self.segments.get(at)).map_or(&empty, |segment| &segment.clocks);
            clocks.check(owner, summary).map_err(|error| match error {
                GuardError::Quarantined => Code::Quarantined,
                _ => Code::GuardClocks,
            })?;
        }
        Ok(())
    }

    /// R2f. The segments that the log does not know are created, numbered densely.
    fn append(&mut self, commit: Incoming, author: &AuthorInfo, summaries: &[Option<Summary>], unix_ms: u64) -> Placed {
        let offset = self.head;
        let hash = content_hash(commit.parts.iter().map(|part| (part.segment, part.generation, &part.bytes[..])));
        let mut created_now = Vec::new();
        let mut parts = Vec::with_capacity(commit.parts.len());
        for (part, summary) in commit.parts.into_iter().zip(summaries) {
            let (number, creates) = match self.number(part.segment) {
                Some(number) => (number, None),
                None => {
                    let (engine, layout) = (engine_of(&part), part.create.map_or(LAYOUT, |(_, layout)| layout));
                    let number = self.create(part.segment, engine, layout, offset);
                    created_now.push(number);
                    (number, Some(Created { id: part.segment, engine, layout }))
                }
            };
            if let (Some(summary), Some(segment)) = (summary, self.segment_mut(number)) {
                segment.clocks.record(commit.line.owner, summary);
                segment.row.tail.deltas += 1;
                segment.row.tail.bytes += part.bytes.len() as u64;
                if let Some((_, parts)) = self.watched.as_mut().filter(|(watched, _)| *watched == number) {
                    parts.push((offset, summary.own.map(|own| own.client), part.bytes.len() as u64));
                }
            }
            if let Some(segment) = self.segment_mut(number) {
                segment.write(offset);
            }
            parts.push(StoredPart {
                segment: number,
                generation: part.generation,
                kind: part.kind,
                creates,
                bytes: part.bytes,
            });
        }
        let line = commit.line;
        let first_of_line = self.admit.get(line.owner).is_none();
        let touched: Vec<SegmentNumber> = parts.iter().map(|part| part.segment).collect();
        self.push(&LogEntry::Commit(StoredCommit {
            owner: line.owner,
            author: first_of_line.then(|| author.clone()),
            seq: line.seq,
            uid: line.uid,
            label: commit.label,
            parts: parts.into(),
        }));
        if self.admit.fill(line.owner, line.seq).is_some() {
            self.touched_lines.insert(line.owner);
        } else {
            let row = Row { seq: line.seq, uid: line.uid, fate: Fate::Admitted(hash) };
            self.record_line(line.owner, row, author, unix_ms);
        }
        self.touched_segments.extend(touched);
        self.note_created(&created_now);
        Placed::Appended { offset, created: created_now }
    }

    fn create(&mut self, id: SegmentId, engine: EngineKind, layout: u8, born: Offset) -> SegmentNumber {
        let number = SegmentNumber(self.segments.len() as u64);
        let generation = engine.generation_zero();
        let row = SegmentRow { id, engine, layout, generation, born, tail: SegmentTail::default() };
        let (clocks, begun) = (Clocks::default(), Offset(0));
        let (changed, written) = (born.next(), Offset(0));
        let segment = Segment { row, clocks, failed_folds: 0, changed, begun, written, given: None, adopted: None };
        self.segments.push(segment);
        self.by_id.insert(id, number);
        number
    }

    /// Whether a commit would be appended if nothing but what is yet to be judged (R2a–d) stands against it.
    pub fn is_next(&self, line: &Candidate) -> bool {
        matches!(self.admit.line(line), Verdict::Admit | Verdict::Hollow { .. })
    }

    /// The same, and no log that was lost had it either.
    pub fn is_new(&self, line: &Candidate) -> bool {
        matches!(self.admit.line(line), Verdict::Admit) && !self.lists(line)
    }

    /// Whether a Restored holds a commit that is not in the log by itself.
    pub fn lists(&self, line: &Candidate) -> bool {
        self.admit.get(line.owner).is_some_and(|row| row.lists(line.seq, line.uid))
    }

    /// D4: what a replica gave back becomes an entry; its lines go on from where it knows them to be, in the same batch [X13].
    /// The segments that it creates.
    pub fn restore(
        &mut self,
        giver: Giver,
        given: Vec<GivenBack>,
        author: &AuthorInfo,
        unix_ms: u64,
        roll_hold_ms: u64,
    ) -> (Offset, Vec<SegmentNumber>) {
        let offset = self.head;
        let Giver { by, life, pending, acked, known } = giver;
        let (mut created, mut segments, mut begins) = (Vec::new(), Vec::new(), Vec::new());
        for held in given {
            let (number, creates) = match (self.number(held.id), &held.adds) {
                (Some(number), _) => (number, None),
                // Nobody ever wrote to it.
                (None, None) => continue,
                (None, Some(_)) => {
                    let number = self.create(held.id, held.engine, held.layout, offset);
                    created.push(number);
                    (number, Some(Created { id: held.id, engine: held.engine, layout: held.layout }))
                }
            };
            let (generation, header, adopts) = (held.generation, held.header, held.adopts);
            let parent = GenerationHeader::decode(&header).ok().filter(|_| adopts).map(|header| header.parent);
            let mut state = Bytes::new();
            if let Some((bytes, clocks)) = held.adds {
                if adopts {
                    self.begin_generation(number, generation, bytes.len() as u64, clocks);
                    begins.push(segments.len());
                } else if let Some(segment) = self.segment_mut(number) {
                    segment.clocks.merge(clocks);
                    segment.row.tail.deltas += 1;
                    segment.row.tail.bytes += bytes.len() as u64;
                }
                if let Some(segment) = self.segment_mut(number) {
                    segment.give_back(offset, life, parent);
                }
                self.touched_segments.insert(number);
                state = bytes;
            }
            segments.push(RestoredSegment { segment: number, generation, creates, adopts, header, state });
        }
        for (owner, seq, uid) in &acked {
            if let Some(line) = self.admit.raise(*owner, (*seq, *uid), &known, unix_ms) {
                line.author.clone_from(author);
                self.touched_lines.insert(*owner);
            }
        }
        let contents: BTreeMap<Uid, u64> = known.iter().map(|(_, _, uid, hash)| (*uid, *hash)).collect();
        for (owner, seq, uid) in &pending {
            if let Some(line) = self.admit.list(*owner, (*seq, *uid), contents.get(uid).copied().unwrap_or(0)) {
                line.author.clone_from(author);
                self.touched_lines.insert(*owner);
            }
        }
        self.push(&LogEntry::Restored(StoredRestore { by, pending, acked, segments: segments.into(), known }));
        // The bytes that stay in memory, not those that came from the worker.
        if let Some(LogEntry::Restored(restore)) = self.tail.back().map(|last| &*last.entry) {
            let parts = begins.iter().filter_map(|at| restore.segments.get(*at));
            self.batch.generations.extend(parts.map(|part| GenerationBegins {
                segment: part.segment,
                position: offset.next(),
                header: part.header,
                snapshot: part.state,
            }));
        }
        let adopted: Vec<SegmentNumber> = self.batch.generations.iter().map(|begins| begins.segment).collect();
        self.note_created(&created);
        self.note_created(&adopted);
        self.roll_hold_ms = self.roll_hold_ms.max(roll_hold_ms);
        self.batch.roll_hold_ms = Some(self.roll_hold_ms);
        (offset, created)
    }

    /// A segment as it stands to what replicas of this life give back.
    pub fn standing(&self, id: SegmentId, life: EpochId) -> Option<Standing> {
        let number = usize::try_from(self.number(id)?.0).ok()?;
        let segment = self.segments.get(number)?;
        let same = segment.given.is_none_or(|given| given == life);
        Some(Standing {
            engine: segment.row.engine,
            generation: segment.row.generation,
            written: if same { segment.written } else { segment.changed },
            adopted: segment.adopted.filter(|_| same),
        })
    }

    /// Whether the log has one of these commits with other content.
    pub fn has_otherwise(&self, known: &[Content<ReplicaId>]) -> bool {
        known.iter().any(|content| self.admit.has_otherwise(content))
    }

    /// Whether a commit that is held may come again with other parts without there being two versions of it (G3): without those
    /// that a generation has, or made anew in one that was adopted in the place of what is held.
    fn has_generations(&self) -> bool {
        self.segments.iter().any(|segment| !segment.row.generation.is_zero())
    }

    /// The position after the last entry that a segment is in.
    pub fn changed(&self, number: SegmentNumber) -> Offset {
        let at = usize::try_from(number.0).ok();
        at.and_then(|at| self.segments.get(at)).map_or(self.head, |segment| segment.changed)
    }

    /// The position at which a segment's generation begins; 0 if that was before this machine.
    pub fn begun(&self, number: SegmentNumber) -> Offset {
        let at = usize::try_from(number.0).ok();
        at.and_then(|at| self.segments.get(at)).map_or(Offset(0), |segment| segment.begun)
    }

    /// Every line as it is at the head, for the header of a generation that is made there (G1).
    pub fn included(&self) -> BTreeMap<ReplicaId, Included> {
        let lines = self.admit.iter().filter(|(_, line)| line.last() > Seq(0));
        let included = lines.map(|(owner, line)| {
            let voids = line.rows().filter(|row| matches!(row.fate, Fate::Void(_))).map(|row| row.uid).collect();
            (owner, Included { last: line.last(), voids })
        });
        included.collect()
    }

    /// G1: from here on the segment is of another generation. Its place. Nobody's clocks of the old one are barred any more;
    /// what was left out of entries stays left out of them.
    pub fn roll(&mut self, roll: StoredRoll, clocks: Clocks) -> Offset {
        let offset = self.head;
        let (number, generation) = (roll.segment, roll.generation);
        self.push(&LogEntry::Roll(roll));
        // The bytes that stay in memory, not those that came from the worker.
        if let Some(LogEntry::Roll(roll)) = self.tail.back().map(|last| &*last.entry) {
            let (header, snapshot) = (roll.header.clone(), roll.snapshot.clone());
            let position = offset.next();
            self.batch.generations.push(GenerationBegins { segment: number, position, header, snapshot });
        }
        let snapshot_bytes = self.batch.generations.last().map_or(0, |begins| begins.snapshot.len() as u64);
        self.begin_generation(number, generation, snapshot_bytes, clocks);
        if let Some(segment) = self.segment_mut(number) {
            (segment.begun, segment.adopted) = (offset.next(), None);
            segment.write(offset);
        }
        self.touched_segments.insert(number);
        self.note_created(&[number]);
        offset
    }

    /// The segment is of this generation, of so many bytes. What was left out of entries stays left out of them.
    fn begin_generation(&mut self, number: SegmentNumber, generation: GenId, snapshot_bytes: u64, mut clocks: Clocks) {
        let floor = self.floor;
        if let Some(segment) = self.segment_mut(number) {
            for at in segment.clocks.skipped().filter(|at| *at >= floor) {
                clocks.skip(at);
            }
            segment.row.generation = generation;
            segment.row.tail = SegmentTail { deltas: 0, bytes: 0, snapshot_bytes };
            (segment.clocks, segment.failed_folds) = (clocks, 0);
        }
        // R12: what is being replayed is of the old one.
        self.watched.take_if(|(watched, _)| *watched == number);
    }

    fn note_created(&mut self, created: &[SegmentNumber]) {
        for number in created {
            if let Some(row) = self.segment(*number).copied() {
                self.batch.segments.push((*number, row));
            }
        }
    }

    /// R11: a refused commit keeps its place in its line, with no effect.
    fn void(&mut self, line: &Candidate, author: &AuthorInfo, code: Code, unix_ms: u64) -> Placed {
        let offset = self.head;
        let number = u64::from(code.number());
        self.push(&LogEntry::Void { owner: line.owner, seq: line.seq, uid: line.uid, code: number });
        self.record_line(line.owner, Row { seq: line.seq, uid: line.uid, fate: Fate::Void(number) }, author, unix_ms);
        Placed::Voided { offset, code }
    }

    fn record_line(&mut self, owner: ReplicaId, row: Row, author: &AuthorInfo, unix_ms: u64) {
        let line = self.admit.record(owner, row, unix_ms);
        line.author.clone_from(author);
        self.touched_lines.insert(owner);
    }

    /// Encodes the entry, notes where its deltas lie, and keeps it in memory as slices of the encoded bytes, so that
    /// nothing holds on to the message it came in.
    fn push(&mut self, entry: &LogEntry) {
        let offset = self.head;
        let mut out = Vec::new();
        entry.encode(&mut out);
        let bytes = Bytes::from(out);
        let entry = LogEntry::decode(&bytes, &mut Reader::new(&bytes)).expect("an entry just encoded reads back");
        for (segment, delta) in entry.deltas() {
            let at = if delta.is_empty() { 0 } else { delta.as_ptr().addr() - bytes.as_ptr().addr() };
            self.batch.deltas.push(DeltaPlace { segment, offset, at, len: delta.len() });
        }
        if self.batch.entries.is_empty() {
            self.batch.first = offset;
        }
        self.tail_bytes += bytes.len();
        self.tail.push_back(TailEntry { offset, entry: Arc::new(entry), bytes: bytes.len() });
        self.batch.entries.push(bytes);
        self.head = offset.next();
    }

    /// What has to be written since the last call. With `bare` also an epoch that no entry goes with.
    pub fn take_batch(&mut self, bare: bool) -> Option<Append> {
        let with_epoch = self.epoch_written == Written::No && self.head.0 > 0;
        if self.batch.entries.is_empty() && !(with_epoch && bare) {
            return None;
        }
        let mut batch = std::mem::take(&mut self.batch);
        for owner in std::mem::take(&mut self.touched_lines) {
            let Some(line) = self.admit.get(owner) else { continue };
            let mut row = Vec::new();
            line.encode(&mut row);
            batch.admit.push((owner, Bytes::from(row)));
        }
        for number in std::mem::take(&mut self.touched_segments) {
            let Some(segment) = self.segment_mut(number) else { continue };
            let mut table = Vec::new();
            segment.clocks.encode(&mut table);
            batch.clocks.push((number, segment.row.generation, Bytes::from(table)));
        }
        batch.attempt = self.attempt;
        if batch.entries.is_empty() {
            batch.first = self.head;
        }
        if with_epoch {
            batch.epoch = self.epochs.last().copied();
            self.epoch_written = Written::Under;
        }
        Some(batch)
    }

    /// The disk has followed up to here. The entries that became durable stay in memory until [`Sequencer::trim`].
    pub fn set_durable(&mut self, upto: Offset) {
        assert!(upto <= self.head, "nothing is durable that was not appended");
        self.durable = self.durable.max(upto);
        // Batches become durable in order, so one that is durable shows that those before it are.
        if self.epoch_written == Written::Under {
            self.epoch_written = Written::Yes;
        }
    }

    /// Forgets durable entries over the bound of the tail.
    pub fn trim(&mut self) {
        while self.tail_bytes > TAIL_BYTES_MAX {
            match self.tail.front() {
                Some(front) if front.offset < self.durable => {
                    self.tail_bytes -= front.bytes;
                    self.tail.pop_front();
                }
                _ => return,
            }
        }
    }

    /// The entry at an offset, if it is in memory.
    pub fn entry(&self, offset: Offset) -> Option<&Arc<LogEntry>> {
        let first = self.tail.front()?.offset;
        let at = usize::try_from(offset.0.checked_sub(first.0)?).ok()?;
        self.tail.get(at).map(|entry| &entry.entry)
    }
}

/// Whether a commit that is refused so may have been admitted to a log that was lost since: by other rights, before its claim
/// was lost, or beside clocks that are not back yet.
fn depends_on_the_log(code: Code) -> bool {
    matches!(code, Code::NoRight | Code::ClaimLost | Code::TooMany | Code::GuardClocks)
}

fn engine_of(part: &IncomingPart) -> EngineKind {
    part.create.map_or(EngineKind::Yrs, |(engine, _)| engine)
}

fn engine_for_guard(engine: EngineKind) -> guard::Engine {
    match engine {
        EngineKind::Yrs => guard::Engine::Yrs,
        EngineKind::Automerge => guard::Engine::Automerge,
    }
}
