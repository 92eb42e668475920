//! A disk under a relay machine: what was appended is durable after [`PlainDisk::sync`], and gone at a crash before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::commit::EngineKind;
use coheap_core::guard;
use coheap_core::id::{EpochId, GenId, Offset, ReplicaId, SegmentNumber};
use coheap_core::log::LogEntry;
use coheap_core::relay::{
    Append, DeltaPlace, Examined, Failing, GenerationBegins, Recovered, SegmentRow, SegmentTail, StateOf, StoredState,
};
use coheap_core::segment::replay::replay;
use coheap_core::wire::codec::Reader;

/// One heap's store.
#[derive(Clone, Debug, Default)]
pub struct PlainDisk {
    epochs: Vec<(EpochId, Offset)>,
    entries: Vec<Bytes>,
    admit: BTreeMap<ReplicaId, Bytes>,
    segments: BTreeMap<SegmentNumber, SegmentRow>,
    deltas: Vec<DeltaPlace>,
    clocks: BTreeMap<(SegmentNumber, GenId), Bytes>,
    unsynced: Vec<Append>,
    /// The documents that generations began with, the oldest first.
    generations: Vec<GenerationBegins>,
    /// Entries below are not to be had any more, only the states that they led to.
    floor: Offset,
    roll_hold_ms: u64,
    forgotten: Offset,
    /// A reading of the log gives one entry, as one of large entries does.
    pub one_by_one: bool,
}

impl PlainDisk {
    /// Takes an append; it is not durable yet.
    pub fn append(&mut self, append: Append) {
        self.unsynced.push(append);
    }

    /// True while something is not durable.
    pub fn is_dirty(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// How many appends are not durable.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Makes everything durable; the position it reaches.
    pub fn sync(&mut self) -> Option<Offset> {
        self.sync_some(usize::MAX)
    }

    /// Makes the first appends durable, at most so many; the position they reach.
    pub fn sync_some(&mut self, most: usize) -> Option<Offset> {
        let mut upto = None;
        for append in self.unsynced.drain(..most.min(self.unsynced.len())).collect::<Vec<_>>() {
            upto = Some(append.end());
            self.write(append);
        }
        upto
    }

    /// The process dies: the first `kept` appends had reached the disk.
    pub fn crash(&mut self, kept: usize) {
        for (at, append) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            if at < kept {
                self.write(append);
            }
        }
    }

    fn write(&mut self, append: Append) {
        assert_eq!(append.first.0 as usize, self.entries.len(), "appends come without a gap");
        self.epochs.extend(append.epoch);
        self.roll_hold_ms = append.roll_hold_ms.unwrap_or(self.roll_hold_ms);
        if let Some(dropped) = append.dropped {
            self.forgotten = dropped.below;
            self.admit.retain(|id, _| !dropped.lines.contains(id));
        }
        self.entries.extend(append.entries);
        self.admit.extend(append.admit);
        self.segments.extend(append.segments);
        self.deltas.extend(append.deltas);
        self.deltas.retain(|place| !append.skipped.contains(&(place.segment, place.offset)));
        self.generations.extend(append.generations);
        self.clocks.extend(append.clocks.into_iter().map(|(number, generation, table)| ((number, generation), table)));
    }

    /// What a relay finds at its start.
    pub fn recover(&self) -> Recovered {
        Recovered {
            lineage: self.epochs.first().map(|(epoch, _)| *epoch).unwrap_or_default(),
            epochs: self.epochs.clone(),
            head: Offset(self.entries.len() as u64),
            floor: self.floor,
            admit: self.admit.iter().map(|(id, row)| (*id, AdmitRow::decode(row).expect("a stored row"))).collect(),
            segments: self.segments.iter().map(|(number, row)| self.with_end(*number, *row)).collect(),
            clocks: self
                .clocks
                .iter()
                .map(|((number, generation), table)| (*number, *generation, table.clone()))
                .collect(),
            roll_hold_ms: self.roll_hold_ms,
            forgotten: self.forgotten,
        }
    }

    fn with_end(&self, number: SegmentNumber, row: SegmentRow) -> SegmentRow {
        let deltas = self.deltas.iter().filter(|place| place.segment == number).map(|place| place.offset.next());
        let begins = self.generations.iter().filter(|begins| begins.segment == number).map(|begins| begins.position);
        SegmentRow { tail: SegmentTail { end: deltas.chain(begins).max(), ..row.tail }, ..row }
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(Bytes::len).sum()
    }

    /// Entries of the log.
    pub fn log(&self, from: Offset, upto: Offset, bytes_max: usize) -> Vec<(Offset, LogEntry)> {
        assert!(from >= self.floor, "the log is read below its floor");
        let (mut out, mut size) = (Vec::new(), 0);
        for at in from.0..upto.0 {
            let Some(bytes) = self.entries.get(at as usize) else { break };
            let entry = LogEntry::decode(bytes, &mut Reader::new(bytes)).expect("a stored entry");
            out.push((Offset(at), entry));
            size += bytes.len();
            if size >= bytes_max || self.one_by_one {
                break;
            }
        }
        out
    }

    /// Deltas of segments below a position: what was written, synced or not, for a store reads what it has written.
    pub fn states<S: Copy + Into<StateOf>>(&self, position: Offset, segments: &[S]) -> Vec<StoredState> {
        let mut written = self.clone();
        written.sync();
        let wanted: Vec<StateOf> = segments.iter().map(|segment| (*segment).into()).collect();
        let segments: Vec<SegmentNumber> = wanted.iter().map(|of| of.segment).collect();
        let states = written.states_written(position, &segments);
        // A store has nothing of a generation before the one it has written last.
        let later = |state: &StoredState| {
            let StoredState::At { segment, .. } = state else { return None };
            let last = self.generations.iter().rfind(|begins| begins.segment == *segment)?;
            (last.position > position).then_some((*segment, last.position))
        };
        let state = |state| match later(&state) {
            Some((segment, position)) => StoredState::NotBefore { segment, position },
            None => state,
        };
        let states = states.into_iter().map(state).zip(&wanted);
        states.map(|(state, of)| written.since(of.since, position, state)).collect()
    }

    /// Only what came since a position, if it is to be had one by one.
    fn since(&self, since: Option<Offset>, position: Offset, state: StoredState) -> StoredState {
        let Some(since) = since.filter(|since| *since >= self.floor && *since <= position) else { return state };
        let StoredState::At { segment, header, deltas, .. } = &state else { return state };
        let (segment, header) = (*segment, header.clone());
        let begins = self.generations.iter().rfind(|of| of.segment == segment && of.position <= position);
        if begins.is_some_and(|begins| begins.position > since) {
            return state;
        }
        let is_behind = |place: &&DeltaPlace| place.segment == segment && (since..position).contains(&place.offset);
        let behind = self.deltas.iter().filter(is_behind).count();
        StoredState::Since { segment, header, deltas: deltas[deltas.len() - behind..].to_vec() }
    }

    fn states_written(&self, position: Offset, segments: &[SegmentNumber]) -> Vec<StoredState> {
        segments
            .iter()
            .map(|segment| {
                let generation = self.generations.iter().rfind(|of| of.segment == *segment && of.position <= position);
                let from = generation.map_or(Offset(0), |begins| begins.position);
                let (header, snapshot) =
                    generation.map(|begins| (begins.header.clone(), begins.snapshot.clone())).unwrap_or_default();
                let behind = from..position;
                let places =
                    self.deltas.iter().filter(|place| place.segment == *segment && behind.contains(&place.offset));
                let deltas = places
                    .filter_map(|place| {
                        self.entries
                            .get(place.offset.0 as usize)
                            .map(|entry| entry.slice(place.at..place.at + place.len))
                    })
                    .collect();
                StoredState::At { segment: *segment, header, snapshot, deltas }
            })
            .collect()
    }

    /// A segment replayed with the engine that it is merged by, as the worker does it.
    pub fn examine(&self, segment: SegmentNumber, engine: EngineKind, upto: Offset, position: Offset) -> Examined {
        let mut written = self.clone();
        written.sync();
        let begins = written.generations.iter().rfind(|begins| begins.segment == segment);
        let (from, snapshot) = begins.map(|begins| (begins.position, begins.snapshot.clone())).unwrap_or_default();
        let behind = from..position;
        let places = written.deltas.iter().filter(|place| place.segment == segment && behind.contains(&place.offset));
        let deltas: Vec<(Offset, Bytes)> = places
            .filter_map(|place| {
                let entry = written.entries.get(place.offset.0 as usize)?;
                Some((place.offset, entry.slice(place.at..place.at + place.len)))
            })
            .collect();
        let wanted: Vec<Bytes> =
            deltas.iter().filter(|(offset, _)| *offset < upto).map(|(_, delta)| delta.clone()).collect();
        let Err((at, _)) = replay(engine, &snapshot, &wanted, |_| {}) else { return Examined::Well };
        let Some((_, failing)) = deltas.get(at).filter(|_| at < wanted.len()) else { return Examined::Unknown };
        let of = match engine {
            EngineKind::Yrs => guard::Engine::Yrs,
            EngineKind::Automerge => guard::Engine::Automerge,
        };
        let own = |bytes: &[u8]| guard::structure(of, bytes).ok().and_then(|summary| summary.own);
        let first = own(failing);
        let of_it = |bytes: &[u8]| first.is_some_and(|first| own(bytes).is_some_and(|own| own.client == first.client));
        let parts = deltas.iter().enumerate().skip(at).filter(|(n, (_, delta))| *n == at || of_it(delta));
        let parts = parts.map(|(_, (offset, delta))| (*offset, delta.len() as u64)).collect();
        Examined::Fails(Failing { client: first.map(|own| (own.client, own.start)), parts })
    }

    /// Gives up the log below a position; what its entries say of segments and lines stays.
    pub fn fold(&mut self, upto: Offset) {
        self.floor = self.floor.max(upto);
    }

    /// Every entry that ever became durable, whatever the relay can still have of it.
    pub fn history(&self) -> Vec<LogEntry> {
        self.entries
            .iter()
            .map(|bytes| LogEntry::decode(bytes, &mut Reader::new(bytes)).expect("a stored entry"))
            .collect()
    }

    /// How many entries are durable.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if nothing is durable.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
