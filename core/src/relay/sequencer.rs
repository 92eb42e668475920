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
//!
//! What it takes in: commits (`sequencer/place.rs`), what replicas give back (`given.rs`), generations (`rolls.rs`), and what is
//! left out from there on (`skips.rs`). What it drops: lines that nobody goes on with (`idle.rs`).

mod given;
mod idle;
mod place;
mod rolls;
mod skips;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

pub(super) use self::given::{GivenBack, Giver};
pub(super) use self::place::{Incoming, IncomingPart, Placed};
use self::skips::Watched;
use super::port::{Append, DeltaPlace, Dropped, Folded, Recovered, SegmentRow, SegmentTail};
use crate::admit::{AdmitRow, AdmitTable};
use crate::commit::EngineKind;
use crate::guard::{self, Clocks};
use crate::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber};
use crate::log::{LogEntry, StoredCommit, StoredRestore};
use crate::mutate::{self, Mutation};
use crate::wire::codec::Reader;

/// Durable entries kept in memory, so that connections at the live edge never read the disk.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// Restoreds of one segment of which it is remembered whose commits they list.
const HOLDS_MAX: usize = 16;

/// An entry in memory.
#[derive(Clone, Debug)]
pub(super) struct TailEntry {
    pub offset: Offset,
    pub entry: Arc<LogEntry>,
    bytes: usize,
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
    /// life's replicas (D4). Of entries that an earlier machine appended, any.
    written: Offset,
    /// The life of the lost log from which replicas have given it back since.
    given: Option<EpochId>,
    /// Its generation was adopted from a replica of that life, and this one is its parent.
    adopted: Option<GenId>,
    /// The lines of commits that have no entry, and which what was given back of it holds: of each Restored those that it lists.
    holds: Vec<Arc<[ReplicaId]>>,
}

impl Segment {
    /// An entry changes it.
    fn write(&mut self, at: Offset) {
        (self.changed, self.written) = (at.next(), at.next());
    }

    /// A Restored of a replica of that life changes it, which lists commits of these lines.
    fn give_back(&mut self, at: Offset, life: EpochId, parent: Option<GenId>, lists: &Arc<[ReplicaId]>) {
        if parent.is_some() {
            self.holds.clear();
        }
        if !lists.is_empty() && self.holds.len() < HOLDS_MAX {
            self.holds.push(lists.clone());
        } else if !lists.is_empty() {
            // As if they had their entries.
            self.written = at.next();
        }
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
    /// What was given back last is below this position, as far as it is known; as long as there is such a time.
    restored_below: Offset,
    /// The entries of lines that were dropped are all below this position.
    pub forgotten: Offset,
    /// Lines that were dropped since the last batch.
    dropped: BTreeSet<ReplicaId>,
    /// Where the newest drop is on its way to the disk; and the end of the batch that it is in.
    drop_written: Written,
    drop_end: Offset,
    /// Parts that are left out, as the disk has it: what is sent follows these. The clock tables have them as of the head.
    skips: BTreeMap<SegmentNumber, BTreeSet<Offset>>,
    /// A segment that is being replayed, and the parts of it that the store may not have given for that.
    watched: Option<(SegmentNumber, Vec<Watched>)>,
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
                written: row.tail.end.unwrap_or(head),
                given: None,
                adopted: None,
                holds: Vec::new(),
            })
            .collect();
        for (number, generation, bytes) in &recovered.clocks {
            let segment = usize::try_from(number.0).ok().and_then(|at| segments.get_mut(at));
            // A table that does not read back is a damaged store: an empty one refuses what continues, and admits nothing false.
            let segment = segment.filter(|segment| segment.row.generation == *generation);
            if let (Some(segment), Ok(clocks)) = (segment, Clocks::decode(bytes)) {
                segment.clocks = clocks;
                // Where the Quarantine is that left them out, no table says.
                if segment.clocks.skipped().len() > 0 {
                    segment.written = head;
                }
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
            restored_below: recovered.head,
            forgotten: recovered.forgotten,
            dropped: BTreeSet::new(),
            drop_written: Written::Yes,
            drop_end: Offset(0),
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

    /// Up to where positions of this life of the log mean what they mean in this one, of what is durable: where the next life begins
    /// (R1, L5). `None`: it is not known.
    pub fn end_of(&self, epoch: EpochId) -> Option<Offset> {
        let at = self.epochs.iter().position(|(known, _)| {
            *known == epoch || mutate::on(Mutation::EpochByCounter) && known.counter == epoch.counter
        })?;
        let next = self.epochs.get(at + 1).filter(|_| !mutate::on(Mutation::EndlessEpoch));
        Some(next.map_or(self.durable, |(_, start)| *start).min(self.durable))
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

    fn create(&mut self, id: SegmentId, engine: EngineKind, layout: u8, born: Offset) -> SegmentNumber {
        let number = SegmentNumber(self.segments.len() as u64);
        let generation = engine.generation_zero();
        let row = SegmentRow { id, engine, layout, generation, born, tail: SegmentTail::default() };
        let (clocks, begun) = (Clocks::default(), Offset(0));
        let (changed, written) = (born.next(), Offset(0));
        let (given, adopted, holds) = (None, None, Vec::new());
        let segment = Segment { row, clocks, failed_folds: 0, changed, begun, written, given, adopted, holds };
        self.segments.push(segment);
        self.by_id.insert(id, number);
        number
    }

    /// The position after the last entry that a segment is in.
    pub fn changed(&self, number: SegmentNumber) -> Offset {
        let at = usize::try_from(number.0).ok();
        at.and_then(|at| self.segments.get(at)).map_or(self.head, |segment| segment.changed)
    }

    fn note_created(&mut self, created: &[SegmentNumber]) {
        for number in created {
            if let Some(row) = self.segment(*number).copied() {
                self.batch.segments.push((*number, row));
            }
        }
    }

    /// Encodes the entry, notes where its deltas lie, and keeps it in memory as slices of the encoded bytes, so that
    /// nothing holds on to the message it came in.
    ///
    /// It reads back, whatever was sent: the parts, the label and the name of a commit, and the lists of a Restore, have been read
    /// within the bounds that an entry has for them, and a subject when the relay's tokens were; a Restored's states and
    /// headers (`relay/restore.rs`), a Roll's (`relay/roll.rs`) and the parts of a Quarantine (`skips.rs`) are bounded where
    /// they are made.
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

    /// What has to be written since the last call. With `bare` also an epoch, or dropped lines, that no entry goes with.
    pub fn take_batch(&mut self, bare: bool) -> Option<Append> {
        let with_epoch = self.epoch_written == Written::No && self.head.0 > 0;
        let with_drop = self.drop_written == Written::No;
        // By itself only when nothing is under way: then whatever becomes durable next shows that this has.
        let alone = with_drop && self.head == self.durable && self.epoch_written == Written::Yes;
        if self.batch.entries.is_empty() && !((with_epoch || alone) && bare) {
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
        if with_drop {
            // One that was given back since has its row.
            let gone = std::mem::take(&mut self.dropped).into_iter().filter(|owner| self.admit.get(*owner).is_none());
            batch.dropped = Some(Box::new(Dropped { lines: gone.collect(), below: self.forgotten }));
            (self.drop_written, self.drop_end) = (Written::Under, self.head);
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
        if self.drop_written == Written::Under && self.drop_end <= upto {
            self.drop_written = Written::Yes;
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

fn engine_for_guard(engine: EngineKind) -> guard::Engine {
    match engine {
        EngineKind::Yrs => guard::Engine::Yrs,
        EngineKind::Automerge => guard::Engine::Automerge,
    }
}
