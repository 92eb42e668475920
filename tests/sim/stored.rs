//! Made-up heaps for the store: appends that are whole and consistent, of bytes that mean nothing to any engine, and the
//! picture of everything that a store says of its heaps, for comparing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use coheap_core::admit::AdmitTable;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::log::{
    AuthorInfo, Created, LogEntry, RestoredSegment, StoredCommit, StoredPart, StoredQuarantine, StoredRestore,
    StoredRoll,
};
use coheap_core::relay::{
    Append, DeltaPlace, Dropped, GenerationBegins, Recovered, SegmentRow, SegmentTail, StoredState,
};
use coheap_core::segment::write::Draw;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::down::{Fate, Row};
use coheap_core::wire::frame::roll::{GenerationHeader, Included};
use coheap_sync_server::{HeapAppend, Store, StoreError};

use crate::Draws;

/// A heap that grows by made-up commits of three authors.
#[derive(Clone, Debug)]
pub struct Grower {
    name: Arc<str>,
    draws: Draws,
    head: u64,
    begun: bool,
    lines: AdmitTable,
    segments: Vec<SegmentId>,
    segments_max: u64,
    turned: u8,
    /// The entries of lines that were dropped are all below.
    forgotten: Offset,
}

impl Grower {
    /// An empty heap of at most this many segments.
    pub fn new(name: &str, seed: u64, segments_max: u64) -> Grower {
        let (lines, draws, segments, forgotten) = (AdmitTable::default(), Draws(seed), Vec::new(), Offset(0));
        Grower { name: name.into(), draws, head: 0, begun: false, lines, segments, segments_max, turned: 0, forgotten }
    }

    /// From here on its deltas are other ones, of the same lengths.
    pub fn turn(&mut self, by: u8) {
        self.turned = by;
    }

    /// The position after its last entry.
    pub fn head(&self) -> Offset {
        Offset(self.head)
    }

    /// Its segments so far.
    pub fn segments(&self) -> u64 {
        self.segments.len() as u64
    }

    /// The next commits, each of one or two segments, as one append.
    pub fn grow(&mut self, commits: usize) -> HeapAppend {
        let mut append = Append { first: self.head(), ..Append::default() };
        if !self.begun {
            self.begun = true;
            append.epoch = Some((EpochId { counter: 1, random: self.draws.draw() }, self.head()));
        }
        for _ in 0..commits {
            self.commit(&mut append);
        }
        HeapAppend { heap: Arc::clone(&self.name), appends: vec![append] }
    }

    /// The same, when a line has been dropped, if there is one.
    pub fn drop_and_grow(&mut self, commits: usize) -> HeapAppend {
        let owner = ReplicaId([1 + (self.head % 3) as u8; 16]);
        let dropped = self.lines.drop_idle(1, |of, _| of == owner);
        let mut grown = self.grow(commits);
        for (owner, at) in dropped {
            self.forgotten = self.forgotten.max(at.next());
            let dropped = Dropped { lines: vec![owner], below: self.forgotten };
            grown.appends[0].dropped = Some(Box::new(dropped));
        }
        grown
    }

    /// A segment gets another generation, with this document.
    pub fn roll(&mut self, segment: SegmentNumber, snapshot: &[u8]) -> HeapAppend {
        self.begin(segment, snapshot, false)
    }

    /// A segment gets another generation, since a replica has given this document back.
    pub fn adopt(&mut self, segment: SegmentNumber, snapshot: &[u8]) -> HeapAppend {
        self.begin(segment, snapshot, true)
    }

    /// A replica gives nothing back but what it knows of its lines: where they were (of one so many last commits by their content),
    /// and commits that were not acknowledged. No generation is made before that time.
    pub fn give_back(&mut self, known: u64, pending: u64, hold_ms: u64) -> HeapAppend {
        let mut append = Append { first: self.head(), roll_hold_ms: Some(hold_ms), ..Append::default() };
        let owner = ReplicaId([1 + self.draws.below(3) as u8; 16]);
        let last = self.lines.get(owner).map_or(0, |line| line.last().0) + known;
        let mut place = |seq| (owner, Seq(seq), Uid(self.draws.draw()));
        let contents: Vec<_> = (last - known + 1..=last).map(&mut place).collect();
        let pending: Vec<_> = (last + 1..=last + pending).map(&mut place).collect();
        let acked: Vec<_> = contents.last().copied().into_iter().collect();
        let named = contents.iter().chain(&pending);
        let known: Vec<_> = named.map(|(owner, seq, uid)| (*owner, *seq, *uid, uid.0 ^ 1)).collect();
        for (owner, seq, uid) in &acked {
            self.lines.raise(*owner, (*seq, *uid), &known, append.first, 7);
        }
        for (owner, seq, uid) in &pending {
            self.lines.list(*owner, (*seq, *uid), uid.0 ^ 1);
        }
        let mut row = Vec::new();
        self.lines.get(owner).expect("a line that was given back").encode(&mut row);
        append.admit.push((owner, row.into()));
        let (by, segments) = (ReplicaId([9; 16]), Vec::new().into());
        let mut entry = Vec::new();
        LogEntry::Restored(StoredRestore { by, pending, acked, segments, known }).encode(&mut entry);
        append.entries.push(entry.into());
        self.head += 1;
        HeapAppend { heap: Arc::clone(&self.name), appends: vec![append] }
    }

    /// The parts of these entries count for nothing from here on; the first of them is what engines do not take in.
    pub fn leave_out(&mut self, segment: SegmentNumber, parts: &[Offset]) -> HeapAppend {
        let (first, generation) = (self.head(), GenId::default());
        let later = StoredQuarantine::behind(parts[0], parts[1..].iter().copied());
        let entry = StoredQuarantine { segment, generation, offset: parts[0], client: None, later };
        let mut bytes = Vec::new();
        LogEntry::Quarantine(entry).encode(&mut bytes);
        self.head += 1;
        let skipped = parts.iter().map(|offset| (segment, *offset)).collect();
        let append = Append { first, entries: vec![bytes.into()], skipped, ..Append::default() };
        HeapAppend { heap: Arc::clone(&self.name), appends: vec![append] }
    }

    fn begin(&mut self, segment: SegmentNumber, snapshot: &[u8], adopts: bool) -> HeapAppend {
        let offset = self.head();
        let id = self.segments[segment.0 as usize];
        let generation = GenId::drawn(id, [self.draws.draw(), 0, 0]);
        let lines = self.lines.iter().map(|(owner, line)| (owner, Included { last: line.last(), voids: Vec::new() }));
        let (parent, included) = (GenId::default(), lines.collect::<BTreeMap<_, _>>().into());
        let header = Bytes::from(GenerationHeader { generation, parent, partial: false, included }.encode());
        let snapshot = Bytes::copy_from_slice(snapshot);
        let mut entry = Vec::new();
        let (of, state) = (header.clone(), snapshot.clone());
        match adopts {
            true => {
                let part = RestoredSegment { segment, generation, adopts, creates: None, header: of, state };
                let (by, pending, acked) = (ReplicaId([9; 16]), Vec::new(), Vec::new());
                let (segments, known) = (vec![part].into(), Vec::new());
                LogEntry::Restored(StoredRestore { by, pending, acked, segments, known }).encode(&mut entry);
            }
            false => {
                let roll = StoredRoll { segment, generation, parent, header: of, snapshot: state };
                LogEntry::Roll(roll).encode(&mut entry);
            }
        }
        self.head += 1;
        let (engine, layout, tail) = (EngineKind::Yrs, 1, SegmentTail::default());
        let append = Append {
            first: offset,
            entries: vec![entry.into()],
            segments: vec![(segment, SegmentRow { id, engine, layout, generation, born: Offset(0), tail })],
            generations: vec![GenerationBegins { segment, position: self.head(), header, snapshot }],
            clocks: vec![(segment, generation, Bytes::from_static(b"clocks"))],
            ..Append::default()
        };
        HeapAppend { heap: Arc::clone(&self.name), appends: vec![append] }
    }

    fn commit(&mut self, append: &mut Append) {
        let offset = self.head();
        let owner = ReplicaId([1 + self.draws.below(3) as u8; 16]);
        let seq = self.lines.get(owner).map_or(Seq(1), |line| line.last().next());
        let mut parts = Vec::new();
        for _ in 0..=self.draws.below(2) {
            let number = SegmentNumber(self.draws.draw() % self.segments_max);
            let number = SegmentNumber(number.0.min(self.segments()));
            if parts.iter().any(|part: &StoredPart| part.segment == number) {
                continue;
            }
            let creates = (number.0 == self.segments()).then(|| self.create(append, number, offset));
            let len = 1 + self.draws.below(60);
            let bytes: Vec<u8> = (0..len).map(|_| self.draws.draw() as u8 ^ self.turned).collect();
            let generation = GenId::default();
            parts.push(StoredPart { segment: number, generation, kind: 0, creates, bytes: bytes.into() });
        }
        let author = (seq == Seq(1)).then(|| AuthorInfo { name: "somebody".into(), subject: String::new() });
        let uid = Uid(self.draws.draw());
        let hash = content_hash(parts.iter().map(|part| {
            let id = self.segments[part.segment.0 as usize];
            (id, part.generation, &part.bytes[..])
        }));
        let line = self.lines.record(owner, Row { seq, uid, fate: Fate::Admitted(hash) }, offset, 7);
        let mut row = Vec::new();
        line.encode(&mut row);
        append.admit.push((owner, row.into()));
        let commit = StoredCommit { owner, author, seq, uid, label: None, parts: parts.into() };
        let mut entry = Vec::new();
        LogEntry::Commit(commit).encode(&mut entry);
        let entry = Bytes::from(entry);
        let read = LogEntry::decode(&entry, &mut Reader::new(&entry)).expect("what was encoded");
        if let LogEntry::Commit(read) = read {
            for part in &read.parts {
                // What was read shares the entry's bytes.
                let at = part.bytes.as_ptr() as usize - entry.as_ptr() as usize;
                append.deltas.push(DeltaPlace { segment: part.segment, offset, at, len: part.bytes.len() });
                let table: Vec<u8> = (0..20).map(|_| self.draws.draw() as u8).collect();
                append.clocks.push((part.segment, GenId::default(), table.into()));
            }
        }
        append.entries.push(entry);
        self.head += 1;
    }

    fn create(&mut self, append: &mut Append, number: SegmentNumber, born: Offset) -> Created {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.draws.draw().to_le_bytes());
        let (id, engine, layout) = (SegmentId(id), EngineKind::Yrs, 1);
        self.segments.push(id);
        let tail = SegmentTail::default();
        append.segments.push((number, SegmentRow { id, engine, layout, generation: GenId::default(), born, tail }));
        Created { id, engine, layout }
    }
}

/// All that a store says of a heap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    /// Its rows.
    pub recovered: Recovered,
    /// Its log, from the floor to the head.
    pub log: Vec<(Offset, LogEntry)>,
    /// The states of its segments at the head.
    pub states: Vec<StoredState>,
}

/// Reads everything there is of a heap.
pub fn picture(store: &Store, heap: &str) -> Result<Picture, StoreError> {
    let recovered = store.recover(heap)?;
    let (mut log, mut at) = (Vec::new(), recovered.floor);
    while at < recovered.head {
        let piece = store.read_log(heap, at, recovered.head, 1 << 13)?;
        at = Offset(piece.last().map_or(recovered.head.0, |(offset, _)| offset.0 + 1));
        log.extend(piece);
    }
    let (mut states, count) = (Vec::new(), recovered.segments.len() as u64);
    while (states.len() as u64) < count {
        let rest: Vec<_> = (states.len() as u64..count).map(SegmentNumber).collect();
        states.extend(store.read_states(heap, recovered.head, &rest, 1 << 10)?);
    }
    Ok(Picture { recovered, log, states })
}
