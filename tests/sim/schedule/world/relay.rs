//! The relay's half of the world: its machines' outputs, the store's answers, folds, and the lives of its process.

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::commit::EngineKind;
use coheap_core::id::{Offset, SegmentNumber, Seq, Uid};
use coheap_core::log::LogEntry;
use coheap_core::relay::{
    Append, Config, Input as RelayInput, Merge, Output as RelayOutput, REFUSES_AFTER, Recovered, Relay, StoredState,
};
use coheap_core::segment::fold;
use coheap_core::segment::merge::{MergeError, Merged, adopt, merge};
use coheap_core::segment::write::Draw;
use coheap_core::time::{Millis, Time};
use coheap_core::wire::code::Code;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::{Down, split};

use super::super::process::cut;
use super::{Failure, Job, World, fails, message};
use crate::schedule::disk::Written;
use crate::schedule::history::Event;

/// One of so many merges fails.
pub(super) const WORKER_DIES: usize = 9;
/// How long a machine without connections stays loaded.
const IDLE: Millis = Millis(4_000);
/// Codes with which a relay may close an honest connection.
const HONEST: [Code; 4] = [Code::Replaced, Code::HelloTimeout, Code::SlowReader, Code::StoreFailed];

impl World {
    /// Gives an input to a heap's machine, if it is loaded, and performs what comes of it.
    pub(super) fn relay(&mut self, heap: usize, input: RelayInput) -> Result<(), Failure> {
        if let Some(relay) = &mut self.heaps[heap].relay {
            relay.handle(Time(self.now), input);
        }
        self.drain(heap)
    }

    fn drain(&mut self, heap: usize) -> Result<(), Failure> {
        while let Some(output) = self.heaps[heap].relay.as_mut().and_then(Relay::poll) {
            match output {
                RelayOutput::Send { to, frames } => {
                    let message = message(&frames);
                    let frames = split(&message).or_else(|error| fails("P8", format!("the relay says {error}")))?;
                    for (kind, body) in frames {
                        match Down::decode(kind, &body) {
                            Ok(Some(frame)) => self.said(heap, &to, &frame)?,
                            other => return fails("P8", format!("the relay says {other:?}")),
                        }
                    }
                    let links = self.processes.iter_mut().filter_map(|process| process.link.as_mut());
                    for link in links.filter(|link| link.relay_open && to.contains(&link.conn)) {
                        link.down.push_back(message.clone());
                    }
                }
                RelayOutput::Close { conn, code, reason } => {
                    self.note(|| format!("the relay closes {conn:?}: {code} {reason}"));
                    self.heaps[heap].grants.closed(self.now, conn);
                    let late = self.late.iter_mut().map(|(_, link)| link);
                    let links = self.processes.iter_mut().filter_map(|process| process.link.as_mut()).chain(late);
                    for link in links.filter(|link| link.conn == conn) {
                        (link.relay_open, link.code) = (false, Some(code));
                    }
                    // Codes of 4000 and more say what is wrong with the other side.
                    if code >= 4000 && !HONEST.iter().any(|known| known.close_code() == code) {
                        return fails("P8", format!("the relay closes an honest connection: {code} {reason}"));
                    }
                }
                RelayOutput::Append(append) => {
                    self.appended(heap, &append)?;
                    self.platter.append(heap, append);
                }
                RelayOutput::ReadLog { .. }
                | RelayOutput::ReadStates { .. }
                | RelayOutput::Recover
                | RelayOutput::Examine { .. }
                | RelayOutput::Merge { .. } => {
                    self.note(|| format!("heap {heap} asks for {output:?}"));
                    self.heaps[heap].reads.push_back(output);
                }
                RelayOutput::Fold { segment, engine, upto, keep } => {
                    self.note(|| format!("heap {heap} asks for {output:?}"));
                    let opening = self.heaps[heap].opening;
                    self.heaps[heap].folds.push(Job { opening, segment, engine, upto, keep, made: None });
                }
                RelayOutput::Idle | RelayOutput::Stopped => self.unload(heap),
                RelayOutput::MakeRoll { .. } => self.wants_roll(heap, output)?,
                RelayOutput::Rolled { outcome, .. } => self.rolled(heap, &outcome),
            }
        }
        Ok(())
    }

    /// A machine is dropped. Its connections are closed by then; reads of it are of no use any more, folds go on.
    fn unload(&mut self, heap: usize) {
        self.heaps[heap].relay = None;
        self.heaps[heap].grants.forget();
        self.heaps[heap].reads.clear();
        self.heaps[heap].beginning = false;
    }

    /// A heap is read from the disk, if it is not loaded; what is found must be what was written.
    pub(super) fn load_heap(&mut self, heap: usize) -> Result<(), Failure> {
        if self.heaps[heap].relay.is_some() {
            return Ok(());
        }
        let recovered = self.platter.recover(heap)?;
        self.found_on_disk(heap, &recovered)?;
        let recovered = self.above_folds(heap, recovered);
        let begins = recovered.epochs.last().is_some_and(|(epoch, _)| epoch.random != self.life);
        let config = Config {
            heap: format!("heap{heap}"),
            life: self.life,
            entropy: self.draws.draw(),
            unix_ms: 0,
            idle: IDLE,
            fold_bytes: self.plan.fold_bytes,
            refuses_after: REFUSES_AFTER,
            admits_from: Time(0),
            rolls_from: self.rolls_from,
            retention: self.plan.forgets.then_some(super::forgets::RETENTION),
        };
        let of = &mut self.heaps[heap];
        of.opening += 1;
        of.beginning = begins;
        of.relay = Some(Relay::new(config, recovered, Time(self.now)));
        self.drain(heap)
    }

    /// As sync-server's driver does: no stream starts where a fold that an earlier machine asked for is about to drop the log.
    fn above_folds(&self, heap: usize, recovered: Recovered) -> Recovered {
        let keep = self.heaps[heap].folds.iter().map(|job| job.keep).max().unwrap_or_default();
        Recovered { floor: recovered.floor.max(keep), ..recovered }
    }

    /// An append has been handed over: the log has grown, and the rows that go with it say the same.
    fn appended(&mut self, heap: usize, append: &Append) -> Result<(), Failure> {
        let of = &mut self.heaps[heap];
        let before = of.oracle.head();
        if append.first != before {
            return fails("P5", format!("an append begins at {:?}, the log ended at {before:?}", append.first));
        }
        if let Some((epoch, start)) = append.epoch {
            of.oracle.begin(epoch, start)?;
        }
        if let Some(dropped) = &append.dropped {
            of.oracle.drop_lines(&dropped.lines, dropped.below, of.synced)?;
            self.tally.dropped += dropped.lines.len() as u64;
        }
        for (offset, bytes) in (append.first.0..).zip(&append.entries) {
            let entry = LogEntry::decode(bytes, &mut Reader::new(bytes));
            let entry = entry.or_else(|error| fails("P5", format!("an entry does not read back: {error}")))?;
            let of = &mut self.heaps[heap];
            let segments = &of.segments;
            let number = |id| segments.iter().position(|known| *known == id);
            of.oracle.append(Offset(offset), &entry, number, |by| of.given.get(&by).cloned())?;
            self.tally.refused += u64::from(matches!(entry, LogEntry::Void { .. }));
            match &entry {
                LogEntry::Commit(commit) => self.stands(heap, commit.owner, commit.uid, false)?,
                LogEntry::Void { owner, uid, code, .. } => {
                    self.may_refuse(heap, *uid, *code)?;
                    if Code::from_number(*code) == Some(Code::ClaimLost) {
                        self.stands(heap, *owner, *uid, true)?;
                    }
                }
                _ => {}
            }
            if let LogEntry::Quarantine(quarantine) = &entry {
                self.tally.left_out += quarantine.skipped().count() as u64;
            }
            let of = &mut self.heaps[heap];
            self.tally.parted |= u64::from(of.oracle.parted);
            if let LogEntry::Restored(restored) = &entry {
                self.tally.adopted += restored.segments.iter().filter(|part| part.adopts).count() as u64;
                of.history.push(Event::Superseded { commits: of.oracle.superseded });
            }
        }
        let of = &mut self.heaps[heap];
        for (owner, row) in &append.admit {
            let row = AdmitRow::decode(row).or_else(|error| fails("P5", format!("a line does not parse: {error}")))?;
            let line = of.oracle.line(*owner).unwrap_or((Seq(0), Uid::NONE));
            if line != (row.last(), row.line_uid()) {
                return fails("P6", format!("the line of {owner:?} says {:?}, the log {line:?}", row.last()));
            }
        }
        self.note(|| format!("heap {heap} appends {append:?}"));
        Ok(())
    }

    /// A transaction of what was handed over succeeds.
    pub(super) fn sync(&mut self, count: usize) -> Result<(), Failure> {
        if !self.is_up || self.platter.queued() == 0 {
            return Ok(());
        }
        match self.platter.write(count.max(1))? {
            Written::Yes(done) => self.durable(&done),
            other => fails("P5", format!("a healthy disk does not take a write: {other:?}")),
        }
    }

    /// These appends are on the disk.
    pub(super) fn durable(&mut self, done: &[(usize, Append)]) -> Result<(), Failure> {
        for heap in 0..self.heaps.len() {
            let Some((_, last)) = done.iter().rev().find(|(of, _)| *of == heap) else { continue };
            let epochs = done.iter().filter(|(of, append)| *of == heap && append.epoch.is_some()).count();
            let of = &mut self.heaps[heap];
            of.synced = of.synced.max(last.end());
            of.epochs_synced += epochs;
            of.beginning &= epochs == 0;
            self.relay(heap, RelayInput::Durable { upto: last.end() })?;
        }
        Ok(())
    }

    /// These appends failed: `full`, and nothing else is wrong; otherwise the store has been opened again, and nobody knows
    /// what of them is there.
    pub(super) fn not_durable(&mut self, appends: &[(usize, Append)], full: bool) -> Result<(), Failure> {
        self.filled |= full;
        if !full {
            // What a reopened store shows may not have been synced: heaps begin a new life of the log, which syncs it (R6).
            self.life = self.draws.draw();
        }
        for (heap, append) in appends {
            let attempt = append.attempt;
            self.relay(*heap, RelayInput::AppendFailed { attempt, full })?;
        }
        Ok(())
    }

    /// The store answers one of the reads.
    pub(super) fn answer(&mut self, pick: usize) -> Result<(), Failure> {
        let waiting: Vec<usize> = (0..self.heaps.len()).filter(|heap| !self.heaps[*heap].reads.is_empty()).collect();
        if !self.is_up || waiting.is_empty() {
            return Ok(());
        }
        let heap = waiting[pick % waiting.len()];
        let at = pick / 2 % self.heaps[heap].reads.len();
        let Some(read) = self.heaps[heap].reads.remove(at) else { return Ok(()) };
        let input = match read {
            RelayOutput::ReadLog { ticket, from, upto, bytes_max } => {
                let bytes_max = self.at_once(bytes_max);
                match self.platter.log(heap, from, upto, bytes_max) {
                    Some(entries) => RelayInput::Log { ticket, entries },
                    // The log stays for a stream as long as there is the stream.
                    None if self.heaps[heap].relay.as_ref().is_some_and(|relay| relay.awaits(ticket)) => {
                        return fails("R8", format!("the log is read from {from:?}, which has been dropped"));
                    }
                    None => RelayInput::ReadFailed { ticket },
                }
            }
            RelayOutput::ReadStates { ticket, position, segments, bytes_max } => {
                match self.platter.states(heap, position, &segments, self.at_once(bytes_max)) {
                    Some(states) => RelayInput::States { ticket, states },
                    None => return fails("P5", "states cannot be read"),
                }
            }
            RelayOutput::Merge { ticket, engine, segment, position, given, adopts } => {
                let merge = self.merge(heap, engine, segment, position, (&given, adopts), pick)?;
                RelayInput::Merged { ticket, merge }
            }
            wish @ RelayOutput::MakeRoll { .. } => self.make_roll(heap, &wish, pick)?,
            RelayOutput::Examine { ticket, segment, engine, upto, position } => {
                let examined = self.examine(heap, (segment, engine), (upto, position), pick);
                RelayInput::Examined { ticket, examined }
            }
            _ => {
                let recovered = self.platter.recover(heap)?;
                self.found_on_disk(heap, &recovered)?;
                RelayInput::Recovered(self.above_folds(heap, recovered))
            }
        };
        self.relay(heap, input)
    }

    /// How much the store answers at once, of what it may.
    fn at_once(&self, bytes_max: usize) -> usize {
        if self.plan.pieces { 1 } else { bytes_max }
    }

    /// What the worker makes of a segment that was given back. Now and then it dies over it.
    fn merge(
        &self,
        heap: usize,
        engine: EngineKind,
        segment: Option<SegmentNumber>,
        position: Offset,
        (given, adopts): (&Bytes, bool),
        pick: usize,
    ) -> Result<Merge, Failure> {
        let (mut snapshot, mut deltas) = (Bytes::new(), Vec::new());
        if let Some(segment) = segment {
            let states = self.platter.states(heap, position, &[segment], 1);
            let Some(StoredState::At { snapshot: stored, deltas: behind, .. }) = states.and_then(|mut all| all.pop())
            else {
                // Folded beyond that meanwhile: it is asked for again.
                return Ok(Merge::Failed);
            };
            (snapshot, deltas) = (stored, behind);
        }
        if pick % WORKER_DIES == 1 {
            return Ok(Merge::Failed);
        }
        let made = if adopts { adopt(engine, given) } else { merge(engine, &snapshot, &deltas, given) };
        match made {
            Ok(Merged::Nothing) => Ok(Merge::Nothing),
            Ok(Merged::Adds { state, clocks }) => Ok(Merge::Adds { state, clocks }),
            Err(MergeError::Clashes(_)) if self.plan.clones => Ok(Merge::Clashes),
            Err(error) => fails("P7", format!("what a replica gives back is not merged: {error}")),
        }
    }

    /// A fold goes on: first the worker makes the snapshot, then the store takes it.
    pub(super) fn fold(&mut self, pick: usize) -> Result<(), Failure> {
        let waiting: Vec<usize> = (0..self.heaps.len()).filter(|heap| !self.heaps[*heap].folds.is_empty()).collect();
        if !self.is_up || waiting.is_empty() {
            return Ok(());
        }
        let heap = waiting[pick % waiting.len()];
        let job = &mut self.heaps[heap].folds[0];
        let number = job.segment;
        if job.made.is_none() {
            let state = self.platter.states(heap, job.upto, &[job.segment], 1).and_then(|mut states| states.pop());
            if let Some(StoredState::At { snapshot, deltas, .. }) = state {
                match fold(job.engine, &snapshot, &deltas) {
                    Ok(made) => {
                        job.made = Some(made);
                        return Ok(());
                    }
                    // What it is to take in, no engine can (R12).
                    Err(_) if self.heaps[heap].oracle.is_poisoned(number) => {}
                    Err(error) => return fails("P7", format!("a fold fails: {error}")),
                }
            }
            // Or a fold of an earlier machine has gone further.
        }
        let job = self.heaps[heap].folds.remove(0);
        let loaded = self.heaps[heap].relay.is_some() && self.heaps[heap].opening == job.opening;
        let made = job.made.as_deref();
        let result = made.and_then(|made| self.platter.fold(heap, job.segment, job.upto, job.keep, made));
        let segment = job.segment;
        self.note(|| format!("heap {heap}: a fold of {segment:?} ends: {result:?}"));
        let input = match result {
            Some(result) => {
                self.tally.folds += 1;
                if loaded {
                    let (folded, floor, holder) = (Some(result.folded), result.floor, result.holder);
                    RelayInput::Folded { segment, folded, floor, holder }
                } else {
                    RelayInput::Floor { floor: result.floor }
                }
            }
            None if loaded => RelayInput::Folded { segment, folded: None, floor: Offset(0), holder: None },
            None => return Ok(()),
        };
        self.relay(heap, input)
    }

    /// The relay process is gone, and with it all that it had not written.
    pub(super) fn relay_dies(&mut self, in_a_write: Option<u64>, pick: u16) {
        self.is_up = false;
        self.platter.crash(in_a_write);
        for heap in 0..self.heaps.len() {
            self.unload(heap);
            self.heaps[heap].folds.clear();
        }
        self.late.clear();
        for link in self.processes.iter_mut().filter_map(|process| process.link.as_mut()) {
            link.relay_open = false;
            link.up.clear();
            // What the system had been given is still sent.
            cut(&mut link.down, pick);
        }
    }

    /// The relay process starts again. Heaps are loaded when somebody connects.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        if self.is_up {
            return Ok(());
        }
        self.is_up = true;
        self.life = self.draws.draw();
        self.rolls_from = self.rolls_from();
        self.tally.lives += 1;
        self.platter.open()
    }
}
