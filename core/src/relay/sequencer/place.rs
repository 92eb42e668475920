//! A commit gets its place in the log, or not (CORE-PROTOCOL R2, R10, R11): which of the verdicts on its line (`admit.rs`), its
//! bytes (`guard.rs`) and its clocks counts, in which order, and what an admitted one changes.

use bytes::Bytes;

use super::{Sequencer, engine_for_guard};
use crate::admit::{self, Candidate, Ignored, PartGeneration, Verdict};
use crate::commit::{EngineKind, LAYOUT, content_hash};
use crate::guard::{self, Clocks, GuardError, Summary};
use crate::id::{GenId, Offset, ReplicaId, SegmentId, SegmentNumber};
use crate::limits;
use crate::log::{AuthorInfo, Created, LogEntry, StoredCommit, StoredPart};
use crate::mutate::{self, Mutation};
use crate::wire::code::Code;
use crate::wire::frame::down::{Fate, Row};
use crate::wire::frame::{PART_CREATE, PART_DELTA};

/// A part on its way in, its segment looked up.
#[derive(Clone, Debug)]
pub(in crate::relay) struct IncomingPart {
    pub segment: SegmentId,
    pub kind: u8,
    pub generation: GenId,
    /// What the part says of its segment, for the case that it creates it.
    pub create: Option<(EngineKind, u8)>,
    pub bytes: Bytes,
}

/// A commit on its way in.
#[derive(Clone, Debug)]
pub(in crate::relay) struct Incoming {
    pub line: Candidate,
    pub label: Option<String>,
    pub parts: Vec<IncomingPart>,
}

/// What became of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::relay) enum Placed {
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

impl Sequencer {
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
            // A commit that is too large by itself was so before.
            Err(code) if held && depends_on_the_log(code) && refusal != Some(Code::TooLarge) => return Placed::Held,
            Err(code) => return self.void(&commit.line, author, code, unix_ms),
        };
        // D4: a Restored holds it otherwise, as a copy of its process made it anew. That version counts.
        let parts = commit.parts.iter().map(|part| (part.segment, part.generation, &part.bytes[..]));
        if self.admit.held(commit.line.uid).is_some_and(|hash| hash != content_hash(parts)) && !self.has_generations() {
            return self.bare(commit, author, unix_ms);
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
            // D4: a Restored shows what it does, so it is in the log. Its clocks are counted there, and it is a copy then, which passes;
            // of one that is none only its author says so.
            Err(_) if self.lists(&commit.line) => self.bare(commit, author, unix_ms),
            Err(_) if held => Placed::Held,
            Err(code) => self.void(&commit.line, author, code, unix_ms),
        }
    }

    /// D4: the log's states have what it does, or nothing has.
    fn bare(&mut self, commit: Incoming, author: &AuthorInfo, unix_ms: u64) -> Placed {
        let (offset, bare) = (self.head, Incoming { parts: Vec::new(), ..commit });
        self.append(bare, author, &[], unix_ms);
        Placed::Bared { offset }
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
            // C10: of another engine. It gets Rebase, and is made anew, whatever this engine would say of it.
            let foreign = known.is_some() && part.generation.is_zero() && part.generation != engine.generation_zero();
            summaries.push(match part.kind {
                PART_DELTA | PART_CREATE if foreign => None,
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
            let fits = clocks.check(owner, summary).map_err(|error| match error {
                GuardError::Quarantined => Code::Quarantined,
                _ => Code::GuardClocks,
            });
            if !mutate::on(Mutation::RelayTakesAnyClock) {
                fits?;
            }
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
        if self.admit.fill(line.owner, line.seq, offset, unix_ms).is_some() {
            self.touched_lines.insert(line.owner);
        } else {
            let row = Row { seq: line.seq, uid: line.uid, fate: Fate::Admitted(hash) };
            self.record_line(line.owner, row, author, offset, unix_ms);
        }
        self.touched_segments.extend(touched);
        self.note_created(&created_now);
        Placed::Appended { offset, created: created_now }
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

    /// R11: a refused commit keeps its place in its line, with no effect.
    fn void(&mut self, line: &Candidate, author: &AuthorInfo, code: Code, unix_ms: u64) -> Placed {
        let offset = self.head;
        let number = u64::from(code.number());
        self.push(&LogEntry::Void { owner: line.owner, seq: line.seq, uid: line.uid, code: number });
        let row = Row { seq: line.seq, uid: line.uid, fate: Fate::Void(number) };
        self.record_line(line.owner, row, author, offset, unix_ms);
        Placed::Voided { offset, code }
    }

    fn record_line(&mut self, owner: ReplicaId, row: Row, author: &AuthorInfo, at: Offset, unix_ms: u64) {
        let line = self.admit.record(owner, row, at, unix_ms);
        line.author.clone_from(author);
        if !(mutate::on(Mutation::VoidUnwritten) && matches!(row.fate, Fate::Void(_))) {
            self.touched_lines.insert(owner);
        }
    }
}

/// Whether a commit that is refused so may have been admitted to a log that was lost since: by other rights, before its claim
/// was lost, beside clocks that are not back yet, or to a segment that is there twice until what was given back of it is folded.
fn depends_on_the_log(code: Code) -> bool {
    matches!(code, Code::NoRight | Code::ClaimLost | Code::TooMany | Code::TooLarge | Code::GuardClocks)
}

fn engine_of(part: &IncomingPart) -> EngineKind {
    part.create.map_or(EngineKind::Yrs, |(engine, _)| engine)
}
