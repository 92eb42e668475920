//! The naive oracle: what a program must see of a heap, from the headers of its log alone.
//!
//! It keeps the log as a list and, per segment, what all commits below each offset come to. So at any cut it can say exactly
//! which marks a segment shows and what its counter is. It knows no engine and no segment: what a commit did is what its
//! program noted before it was made; which commit an entry is says its label.

use std::collections::BTreeMap;

use coheap_core::id::{EpochId, Offset, ReplicaId, SegmentNumber, Seq, Uid};
use coheap_core::log::LogEntry;

use super::history::{CommitNo, SegmentNo, Touch};
use super::marks::Marks;
use super::{Failure, fails};

/// A commit as its program noted it.
#[derive(Clone, Debug)]
pub struct Made {
    /// The line it was made in.
    pub owner: ReplicaId,
    /// Its number there.
    pub seq: Seq,
    /// What it does.
    pub places: Vec<Touch>,
}

/// One entry of the log.
#[derive(Clone, Debug)]
struct Entry {
    seq: Seq,
    uid: Uid,
    /// The commit, or the one that is void here.
    commit: CommitNo,
    void: bool,
}

/// What the commits below an offset come to, in one segment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Whose marks are there.
    pub marks: Marks,
    /// The sum of what they added.
    pub sum: i64,
    /// The counter has been made.
    pub counts: bool,
}

impl Amount {
    /// As it is with one more commit.
    pub fn add(&mut self, commit: CommitNo, place: &Touch) {
        if self.marks.insert(commit) {
            self.sum += place.adds;
            self.counts |= place.makes_counter;
        }
    }
}

/// The log of one heap, and what follows from it.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Every commit that a program made, by number.
    pub made: Vec<Made>,
    by_line: BTreeMap<(ReplicaId, Seq), CommitNo>,
    log: Vec<Entry>,
    /// Per segment: content from this offset on, by offset.
    contents: Vec<Vec<(u64, Amount)>>,
    /// Where each commit is.
    places: BTreeMap<CommitNo, u64>,
    /// Where each line is: the entries of an owner.
    lines: BTreeMap<ReplicaId, Vec<u64>>,
    /// Segments by the log's numbers.
    numbers: Vec<SegmentNo>,
    epochs: Vec<(EpochId, Offset)>,
    /// Segments whose counter was to be made by a commit that is void: nothing can be counted there.
    uncounted: Vec<SegmentNo>,
}

impl Oracle {
    /// A program is about to make a commit.
    pub fn make(&mut self, owner: ReplicaId, seq: Seq, places: Vec<Touch>) -> CommitNo {
        self.by_line.insert((owner, seq), self.made.len());
        self.made.push(Made { owner, seq, places });
        self.made.len() - 1
    }

    /// How many entries there are.
    pub fn head(&self) -> Offset {
        Offset(self.log.len() as u64)
    }

    /// How many segments the log has created.
    pub fn segments(&self) -> &[SegmentNo] {
        &self.numbers
    }

    /// The offset of a commit; `None`: it is not in the log.
    pub fn place(&self, commit: CommitNo) -> Option<u64> {
        self.places.get(&commit).copied()
    }

    /// Whether a commit is void in the log.
    pub fn is_void(&self, commit: CommitNo) -> bool {
        self.place(commit).and_then(|at| self.log.get(at as usize)).is_some_and(|entry| entry.void)
    }

    /// Whether sums mean something in a segment.
    pub fn counts_in(&self, segment: SegmentNo) -> bool {
        !self.uncounted.contains(&segment)
    }

    /// What a segment shows at a cut.
    pub fn content(&self, segment: SegmentNo, cut: Offset) -> Amount {
        let Some(contents) = self.contents.get(segment) else { return Amount::default() };
        let at = contents.partition_point(|(offset, _)| *offset < cut.0);
        contents.get(at.wrapping_sub(1)).map_or(Amount::default(), |(_, content)| *content)
    }

    /// All commits in the log.
    pub fn commits(&self) -> Marks {
        self.log.iter().filter(|entry| !entry.void).map(|entry| entry.commit).collect()
    }

    /// The uid at an offset.
    pub fn uid(&self, offset: Offset) -> Option<Uid> {
        self.log.get(usize::try_from(offset.0).ok()?).map(|entry| entry.uid)
    }

    /// The number and uid of a line's newest entry; a refused one goes on from the complement of its uid (R11).
    pub fn line(&self, owner: ReplicaId) -> Option<(Seq, Uid)> {
        let at = *self.lines.get(&owner)?.last()?;
        let entry = self.log.get(at as usize)?;
        Some((entry.seq, if entry.void { entry.uid.voided() } else { entry.uid }))
    }

    /// Every line that has an entry.
    pub fn owners(&self) -> impl Iterator<Item = ReplicaId> {
        self.lines.iter().filter(|(_, entries)| !entries.is_empty()).map(|(owner, _)| *owner)
    }

    /// The relay has begun a life of the log.
    pub fn begin(&mut self, epoch: EpochId, start: Offset) -> Result<(), Failure> {
        if self.epochs.iter().any(|(known, _)| *known == epoch) {
            return fails("R6", format!("epoch {epoch:?} begins twice"));
        }
        if start != self.head() {
            return fails("R6", format!("epoch {epoch:?} begins at {start:?}, the log ends at {:?}", self.head()));
        }
        self.epochs.push((epoch, start));
        Ok(())
    }

    /// The lives of the log.
    pub fn epochs(&self) -> &[(EpochId, Offset)] {
        &self.epochs
    }

    /// The relay has given an entry its place. `segment`: the number of a segment that it creates.
    pub fn append(
        &mut self,
        offset: Offset,
        entry: &LogEntry,
        segment: impl Fn(coheap_core::id::SegmentId) -> Option<SegmentNo>,
    ) -> Result<(), Failure> {
        if offset != self.head() {
            return fails("P5", format!("an entry is put at {offset:?}, the log ends at {:?}", self.head()));
        }
        let (owner, seq, uid, void) = match entry {
            LogEntry::Commit(commit) => (commit.owner, commit.seq, commit.uid, false),
            LogEntry::Void { owner, seq, uid, .. } => (*owner, *seq, *uid, true),
            LogEntry::Roll(_) => return fails("G1", "a roll, and nobody asked for one".to_owned()),
            LogEntry::Restored(_) => return fails("R1", "something is given back, and nothing was lost".to_owned()),
        };
        let before = self.line(owner).map_or(Seq(0), |(seq, _)| seq);
        if seq != before.next() {
            return fails("P2", format!("{owner:?} {seq:?} is admitted behind {before:?} of its line"));
        }
        let known = match entry {
            LogEntry::Commit(commit) => commit.label.as_deref().and_then(commit_of),
            LogEntry::Void { .. } | LogEntry::Restored(_) | LogEntry::Roll(_) => {
                self.by_line.get(&(owner, seq)).copied()
            }
        };
        let Some((commit, made)) = known.and_then(|commit| Some((commit, self.made.get(commit)?))) else {
            return fails("P5", format!("{owner:?} {seq:?} is in the log, and nobody made it"));
        };
        if let Some(place) = self.places.get(&commit) {
            return fails("P6", format!("commit {commit} is admitted at {} and again at {}", place, offset.0));
        }
        let places = made.places.clone();
        if let LogEntry::Commit(stored) = entry {
            let mut parts: Vec<SegmentNo> = Vec::new();
            for part in &stored.parts {
                if let Some(created) = part.creates {
                    let number = segment(created.id);
                    let (Some(number), true) = (number, part.segment == SegmentNumber(self.numbers.len() as u64))
                    else {
                        return fails("P5", format!("entry {offset:?} creates {created:?} as {:?}", part.segment));
                    };
                    self.numbers.push(number);
                }
                parts.extend(self.numbers.get(part.segment.0 as usize));
            }
            parts.sort_unstable();
            let mut expected: Vec<SegmentNo> = places.iter().map(|place| place.segment).collect();
            expected.sort_unstable();
            if parts != expected {
                return fails("P3", format!("commit {commit} is admitted with {parts:?} of its parts {expected:?}"));
            }
            for place in &places {
                if self.contents.len() <= place.segment {
                    self.contents.resize_with(place.segment + 1, Vec::new);
                }
                let mut content = self.content(place.segment, Offset(u64::MAX));
                content.add(commit, place);
                self.contents[place.segment].push((offset.0, content));
            }
        } else {
            self.uncounted.extend(places.iter().filter(|place| place.makes_counter).map(|place| place.segment));
        }
        self.places.insert(commit, offset.0);
        self.lines.entry(owner).or_default().push(offset.0);
        self.log.push(Entry { seq, uid, commit, void });
        Ok(())
    }

    /// The log ends here now: what lay behind was lost before it was durable, or could not be written.
    pub fn truncate(&mut self, head: Offset, segments: usize) {
        self.log.truncate(head.0 as usize);
        self.places.retain(|_, at| *at < head.0);
        for line in self.lines.values_mut() {
            line.retain(|at| *at < head.0);
        }
        for contents in &mut self.contents {
            contents.retain(|(at, _)| *at < head.0);
        }
        self.numbers.truncate(segments);
    }

    /// An epoch that was begun and is not on the disk was never told to anybody.
    pub fn forget_epochs(&mut self, known: usize) {
        self.epochs.truncate(known);
    }
}

/// The label of a commit.
pub fn label(commit: CommitNo) -> String {
    format!("c{commit}")
}

/// The commit of a label, or of the key of its mark.
pub fn commit_of(label: &str) -> Option<CommitNo> {
    label.strip_prefix('c')?.parse().ok()
}
