//! What programs do: commits, loads, evictions, waits; and what they are told of their waits.

use coheap_core::commit::{ClaimOf, EngineKind};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{ObjectId, Offset, SegmentId};
use coheap_core::replica::{Input, Section, Target, WaitError, WaitKind};
use coheap_core::segment::write::Draw;
use coheap_core::value::Value;
use coheap_core::version::Version;

use super::super::history::{CommitNo, Event, SegmentNo, Touch};
use super::super::marks::{MARKS_MAX, Marks};
use super::super::oracle::label;
use super::super::plan::WaitFor;
use super::super::process::{COUNTER, REGISTER, Told};
use super::super::removals::SPARES;
use super::{Failure, Given, World, fails};

/// Segments that one heap of a schedule can have.
const SEGMENTS_MAX: usize = 6;
/// Characters of one of the three strings of a large commit: together they are more than one piece of a long message.
const LARGE: usize = 100_000;

/// Copies that are kept of one segment.
const COPIES_MAX: usize = 4;

/// What a wait was asked for.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Waiting {
    /// Its last commit, and those that had no answer.
    Flush(Option<CommitNo>, Marks),
    /// The log reached to here when it was asked for, in that life of it.
    Sync(usize, Offset),
    Version,
    Reach(usize),
}

impl World {
    /// A program makes a commit.
    pub(super) fn commit(
        &mut self,
        at: usize,
        sections: Vec<(Target, Vec<Wish>)>,
        places: Vec<Touch>,
    ) -> Result<(), Failure> {
        self.commit_on(at, sections, places, None)
    }

    /// The same, on a claim that it ends.
    pub(super) fn commit_on(
        &mut self,
        at: usize,
        sections: Vec<(Target, Vec<Wish>)>,
        places: Vec<Touch>,
        claim: Option<&ClaimOf>,
    ) -> Result<(), Failure> {
        let heap = self.heap_of(at);
        let commit = self.heaps[heap].oracle.made.len();
        if commit >= MARKS_MAX || sections.is_empty() {
            return Ok(());
        }
        let marked = sections.into_iter().zip(&places).map(|((target, mut wishes), place)| {
            if !matches!(target, Target::New(..)) && place.removes.is_none() {
                let (key, value) = (label(commit), Literal::Scalar(Value::Bool(true)));
                wishes.push(Wish::Set { object: Handle(0), key, value });
            }
            // As a mirror does: own wishes at once, corrections behind them.
            if let Target::Here(index) = target
                && let Some(view) = self.processes[at].views.get_mut(&index)
            {
                let counter = view.counter().filter(|_| place.adds != 0);
                wishes.extend(counter.map(|object| Wish::Add { object, by: place.adds as f64 }));
                view.wrote(commit, place, &wishes);
            }
            Section { target, claim: claim.cloned(), wishes }
        });
        let sections = marked.collect();
        let entropy = self.draws.draw();
        let process = &mut self.processes[at];
        process.committed = None;
        let made_at = process.replica.cut();
        process.making = places.iter().find(|place| place.makes_counter).map(|place| (commit, *place));
        let of = &mut self.heaps[heap];
        process.input(
            self.now,
            Input::Commit { label: label(commit), sections, size: 0, entropy },
            &of.segments,
            &mut of.history,
        );
        process.making = None;
        let uid = process.replica.unsaved_uids().pop();
        let (Some(uid), Some(_)) = (uid, process.committed) else {
            return fails("P9", format!("a program cannot commit: {:?}", process.problems));
        };
        of.oracle.make(uid, places.clone());
        of.cuts.push(made_at);
        if claim.is_some() {
            of.oracle.claimed.insert(commit);
        }
        process.line.push(commit);
        process.open.push(commit);
        for place in &places {
            let index = process.segments.iter().find(|(_, segment)| **segment == place.segment);
            let Some(index) = index.map(|(index, _)| *index) else { continue };
            process.wrote(index);
        }
        self.tally.commits += 1;
        self.tally.wide += u64::from(places.len() > 1);
        of.history.push(Event::Made { process: process.number, commit, places });
        self.after(at)
    }

    pub(super) fn edit(&mut self, at: usize, segments: u8, pick: u16, alloc: bool, large: bool) -> Result<(), Failure> {
        if self.is_paused(at) {
            return Ok(());
        }
        let heap = self.heap_of(at);
        // L6: what is here as bytes is there for a program that reads it.
        let bare = std::mem::take(&mut self.processes[at].bare);
        let ids = bare.iter().filter_map(|index| self.processes[at].segments.get(index));
        let bare: Vec<_> = ids.map(|segment| (self.heaps[heap].segments[*segment], false)).collect();
        if !bare.is_empty() {
            self.input(at, Input::Load(bare))?;
        }
        let (mut sections, mut places) = (Vec::new(), Vec::new());
        let commit = self.heaps[heap].oracle.made.len();
        let here: Vec<Index> = self.processes[at].views.keys().copied().collect();
        if self.plan.removes && matches!(pick % 8, 3 | 6 | 7) && self.remove(at, usize::from(pick) / 8, &here)? {
            return Ok(());
        }
        for nth in 0..usize::from(segments).min(here.len()) {
            // A stride that visits every one, from a start of chance.
            let index = here[(usize::from(pick) + nth) % here.len()];
            let view = &self.processes[at].views[&index];
            let adds = if view.counter().is_some() { 1 + i64::from(pick % 9) } else { 0 };
            let segment = self.processes[at].segments[&index];
            let mut wishes = Vec::new();
            if pick.is_multiple_of(3) {
                let (key, value) = (REGISTER.to_owned(), Literal::Scalar(Value::Number(commit as f64)));
                wishes.push(Wish::Set { object: Handle(0), key, value });
            }
            let spares = view.set().filter(|_| self.plan.removes && pick % 2 == 1);
            wishes.extend(spares.map(|object| Wish::Include { object, member: Value::Number(commit as f64) }));
            if large && nth == 0 {
                for part in 0..3 {
                    let value = Literal::Scalar(Value::Str("x".repeat(LARGE)));
                    wishes.push(Wish::Set { object: Handle(0), key: format!("large{part}"), value });
                }
            }
            sections.push((Target::Here(index), wishes));
            places.push(Touch { segment, adds, ..Touch::default() });
        }
        if alloc && self.heaps[heap].segments.len() < SEGMENTS_MAX {
            let ObjectId(id) = self.draws.object();
            let engine =
                if self.plan.automerge && pick.is_multiple_of(2) { EngineKind::Automerge } else { EngineKind::Yrs };
            let mark = (label(commit), Literal::Scalar(Value::Bool(true)));
            let mut entries = vec![mark, (COUNTER.to_owned(), Literal::Counter(0.0))];
            if self.plan.removes {
                entries.push((SPARES.to_owned(), Literal::Set(Vec::new())));
            }
            sections.push((Target::New(SegmentId(id), engine), vec![Wish::Root { value: Literal::Map(entries) }]));
            let segment: SegmentNo = self.heaps[heap].segments.len();
            self.heaps[heap].segments.push(SegmentId(id));
            if engine == EngineKind::Automerge {
                self.heaps[heap].with_history.insert(segment);
            }
            places.push(Touch { segment, makes_counter: true, ..Touch::default() });
        }
        self.commit(at, sections, places)
    }

    /// A program makes a commit that does nothing but take something away. False: there is nothing that it may.
    fn remove(&mut self, at: usize, pick: usize, here: &[Index]) -> Result<bool, Failure> {
        let (process, heap) = (&self.processes[at], &self.heaps[self.heap_of(at)]);
        let commit = heap.oracle.made.len();
        let found = (0..here.len()).map(|nth| here[(pick + nth) % here.len()]).find_map(|index| {
            let spare = process.spare_in(index)?;
            Some((index, process.segments[&index], spare))
        });
        let Some((index, segment, removed)) = found else { return Ok(false) };
        if commit >= MARKS_MAX || !heap.removals.note(segment, removed, commit) {
            return Ok(false);
        }
        let Some(object) = process.views[&index].set() else { return Ok(false) };
        let wish = Wish::Exclude { object, member: Value::Number(removed as f64) };
        let place = Touch { segment, removes: Some(removed), ..Touch::default() };
        self.commit(at, vec![(Target::Here(index), vec![wish])], vec![place])?;
        self.tally.removals += 1;
        Ok(true)
    }

    pub(super) fn load_one(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let count = self.heaps[self.heap_of(at)].segments.len();
        if self.is_paused(at) || self.processes[at].shown(pick % count).is_some() {
            return Ok(());
        }
        self.load(at, pick % count)
    }

    pub(super) fn load_one_from(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let count = self.heaps[self.heap_of(at)].segments.len();
        if self.is_paused(at) || self.processes[at].shown(pick % count).is_some() {
            return Ok(());
        }
        self.load_from(at, pick % count, pick / count)
    }

    /// A program needs a segment, and goes on from one of the copies that there are of it (L5), if there is any.
    pub(super) fn load_from(&mut self, at: usize, segment: SegmentNo, pick: usize) -> Result<(), Failure> {
        let of = &self.heaps[self.heap_of(at)];
        let copies = of.kept.get(&segment).map_or(&[][..], Vec::as_slice);
        let Some(copy) = copies.get(pick % copies.len().max(1)).cloned() else { return self.load(at, segment) };
        let id = of.segments[segment];
        self.tally.from_copies += 1;
        self.load_as(at, segment, Input::LoadFrom { segment: id, derived: id == SegmentId::ROOT, copy })
    }

    /// A program needs a segment.
    pub(super) fn load(&mut self, at: usize, segment: SegmentNo) -> Result<(), Failure> {
        let id = self.heaps[self.heap_of(at)].segments[segment];
        self.load_as(at, segment, Input::Load(vec![(id, id == SegmentId::ROOT)]))
    }

    fn load_as(&mut self, at: usize, segment: SegmentNo, input: Input) -> Result<(), Failure> {
        self.input(at, input)?;
        let process = &mut self.processes[at];
        let index = process.segments.iter().find(|(_, of)| **of == segment).map(|(index, _)| *index);
        process.loading.extend(index.filter(|index| !process.views.contains_key(index)));
        Ok(())
    }

    pub(super) fn evict(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let here: Vec<Index> = self.processes[at].views.keys().copied().collect();
        if self.is_paused(at) || here.len() < 2 {
            return Ok(());
        }
        self.input(at, Input::Evict(here[pick % here.len()]))
    }

    /// A program does not need a segment for now. It forgets every other one, and keeps what it shows of the others.
    pub(super) fn pack(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let here: Vec<Index> = self.processes[at].views.keys().copied().collect();
        if self.is_paused(at) || here.is_empty() {
            return Ok(());
        }
        let (segment, mirrored) = (here[pick / 2 % here.len()], pick % 2 == 1);
        self.processes[at].forgets = !mirrored;
        self.input(at, Input::Pack { segment, mirrored })
    }

    /// A segment may go; its copy is kept, in the place of another one if there are many.
    pub(super) fn evict_keeping(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let here: Vec<Index> = self.processes[at].views.keys().copied().collect();
        if self.is_paused(at) || here.len() < 2 {
            return Ok(());
        }
        self.input(at, Input::EvictKeeping(here[pick % here.len()]))?;
        let heap = self.heap_of(at);
        for (segment, copy) in std::mem::take(&mut self.processes[at].kept) {
            let copies = self.heaps[heap].kept.entry(segment).or_default();
            if copies.len() >= COPIES_MAX {
                copies.remove(pick / here.len() % COPIES_MAX);
            }
            copies.push(copy);
        }
        Ok(())
    }

    pub(super) fn wait(&mut self, at: usize, kind: WaitFor, pick: usize) -> Result<(), Failure> {
        if self.is_paused(at) {
            return Ok(());
        }
        let heap = self.heap_of(at);
        let (of, process) = (&mut self.heaps[heap], &self.processes[at]);
        let (kind, waiting) = match kind {
            WaitFor::Flush => {
                let open = process.open.iter().copied().collect();
                (WaitKind::Flush, Waiting::Flush(process.line.last().copied(), open))
            }
            WaitFor::Sync => (WaitKind::Sync, Waiting::Sync(self.losses, of.synced)),
            WaitFor::Version => (WaitKind::Version, Waiting::Version),
            WaitFor::Reach if of.versions.is_empty() => return Ok(()),
            WaitFor::Reach => {
                let version = pick % of.versions.len();
                (WaitKind::Reach(of.versions[version].token.clone()), Waiting::Reach(version))
            }
        };
        self.tickets += 1;
        of.waits.insert((process.number, self.tickets), waiting);
        self.input(at, Input::Wait { ticket: self.tickets, kind })
    }

    /// What a program was told of its waits is noted, and held against what it waited for.
    pub(super) fn hear(&mut self, at: usize) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        let of = &mut self.heaps[self.plan.heaps_of[at]];
        let cut = process.replica.cut();
        for told in std::mem::take(&mut process.told) {
            if matches!(told, Told::Failed(ticket, _) if process.worker.declined(ticket)) {
                continue;
            }
            let (Told::Done(ticket, _) | Told::Failed(ticket, _)) = &told;
            let Some(waiting) = of.waits.remove(&(process.number, *ticket)) else {
                return fails(
                    "P4",
                    format!("wait {ticket} ends twice, or at process {}, which did not ask", process.number),
                );
            };
            // What it was told so far is of the log that there is.
            let online = process.online && process.link.as_ref().is_some_and(|link| link.life == self.losses);
            let (process, life) = (process.number, process.life);
            match (told, waiting) {
                (Told::Done(..), Waiting::Flush(upto, waited)) => {
                    let refused = waited.iter().find(|commit| self.losses == 0 && of.oracle.is_void(*commit));
                    if let Some(commit) = refused {
                        return fails(
                            "P5",
                            format!("a flush ends well, and waited for commit {commit}, which is void"),
                        );
                    }
                    of.history.push(Event::Flushed { process, upto });
                }
                (Told::Done(_, version), Waiting::Version) => {
                    // T1: durable, in the life of the log that it names.
                    let known = Version::parse(&version).and_then(|version| {
                        let epochs = of.oracle.epochs();
                        let at = epochs.iter().position(|(epoch, _)| *epoch == version.epoch)?;
                        Some((version.position, epochs.get(at + 1).map_or(of.synced, |(_, start)| *start)))
                    });
                    if let Some((position, end)) = known.filter(|(position, end)| online && position > end) {
                        return fails(
                            "P4",
                            format!("a version says {position:?} of a log that is durable up to {end:?}"),
                        );
                    }
                    of.history.push(Event::Version { process, version: of.versions.len() });
                    of.versions.push(Given { token: version, life, cut });
                }
                (Told::Done(..), Waiting::Reach(version)) => {
                    // T3, by the log that it knows.
                    let asked = Version::parse(&of.versions[version].token).filter(|asked| asked.position > Offset(0));
                    let ends = |asked: &Version| {
                        let epochs = of.oracle.epochs();
                        let at = epochs.iter().position(|(epoch, _)| *epoch == asked.epoch)?;
                        Some(epochs.get(at + 1).map_or(Offset(u64::MAX), |(_, start)| *start))
                    };
                    if let Some(asked) =
                        asked.filter(|asked| online && ends(asked).is_none_or(|end| asked.position > end))
                    {
                        return fails("P4", format!("{asked:?} is said to be reached, and is of a log that was lost"));
                    }
                    of.history.push(Event::Reached { process, version });
                }
                (Told::Done(..), Waiting::Sync(asked_in, upto)) => {
                    if asked_in == life && cut < upto {
                        return fails("P4", format!("a sync ends at {cut:?}, and was to see up to {upto:?}"));
                    }
                }
                (Told::Failed(_, error), Waiting::Flush(..)) => {
                    let in_doubt = self.plan.forgets && error == WaitError::InDoubt;
                    if !in_doubt && !matches!(error, WaitError::Refused(_)) {
                        return fails("P4", format!("a flush fails: {error:?}"));
                    }
                }
                // T3: it is of another life of the log than the one that is known here. Or a heap that was empty again gave
                // it, or is all that is known here: its lineage is not on the disk before its first entry is, and another
                // process may begin another.
                (Told::Failed(_, WaitError::VersionLost), Waiting::Reach(version))
                    if of.versions[version].life != life
                        || (self.losses > 0 && of.versions[version].cut.min(cut) == Offset(0)) => {}
                (Told::Failed(_, error), waiting) => {
                    return fails("P4", format!("a wait for {waiting:?} fails: {error:?}"));
                }
            }
        }
        Ok(())
    }
}
