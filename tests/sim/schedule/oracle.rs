//! The naive oracle: what a program must see of a heap, from the headers of its log alone.
//!
//! It keeps the log as a list and, per segment, what all commits below each offset come to. So at any cut it can say exactly
//! which marks a segment shows and what its counter is. It knows no engine and no segment: what a commit did is what its
//! program noted before it was made; which commit an entry is says its label. What a Restored gives back is what the program
//! that gave it was shown when it did.
//!
//! A disk that is an older one, or empty, begins another life of the log: the [`Log`]s before it stay, since those who have
//! read them show them until they have given back what the new one lacks (D2).

use std::collections::{BTreeMap, BTreeSet};

use coheap_core::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::log::{LogEntry, StoredCommit, StoredQuarantine, StoredRestore, StoredRoll};
use coheap_core::wire::frame::roll::GenerationHeader;

use super::history::{CommitNo, SegmentNo, Touch};
pub use super::history::{commit_of, label};
use super::marks::Marks;
use super::{Failure, fails};

/// A commit as its program noted it.
#[derive(Clone, Debug)]
pub struct Made {
    /// What it is known by, whoever sends it.
    pub uid: Uid,
    /// What it does.
    pub places: Vec<Touch>,
    /// A stranger's: it has a part of this segment, of this client. Where it does nothing, no engine takes that in.
    pub strange: Option<(SegmentNo, u64)>,
}

impl Made {
    /// The segment and the client of what no engine takes in.
    fn poison(&self) -> Option<(SegmentNo, u64)> {
        self.strange.filter(|_| self.places.is_empty())
    }
}

/// Commits by segment: what a program is shown.
pub type Sight = BTreeMap<SegmentNo, Marks>;

/// One entry of the log.
#[derive(Clone, Debug)]
enum Entry {
    /// A commit, or the refusal of one.
    Of { uid: Uid, void: bool },
    /// What somebody gave back.
    Restored,
    /// A new generation: of the same values.
    Roll,
    /// From here on these are left out, and this client is barred there (R12).
    Quarantine { segment: SegmentNo, client: u64 },
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

/// How a line stands from an offset on.
#[derive(Clone, Copy, Debug)]
struct Stand {
    at: u64,
    seq: Seq,
    /// By which it goes on: of a refused commit the complement (R11).
    uid: Uid,
}

/// One life of a log, and what follows from it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    /// Per segment: content from this offset on, by offset.
    contents: Vec<Vec<(u64, Amount)>>,
    /// Where each commit is.
    places: BTreeMap<CommitNo, u64>,
    lines: BTreeMap<ReplicaId, Vec<Stand>>,
    /// Lines of which nothing is known but that a Restored holds commits of them, and since where.
    listed: BTreeMap<ReplicaId, u64>,
    /// Commits that a Restored holds, and whose authors send them again: since where.
    held: Vec<(u64, CommitNo)>,
    /// Lines that go on behind commits that were lost: from this offset on, these numbers are taken, and the log need not have
    /// entries of them.
    hollow: Vec<(u64, ReplicaId, Seq, Seq)>,
    /// Segments by the log's numbers.
    numbers: Vec<SegmentNo>,
    /// The generations that segments have gone over to, and where.
    generations: BTreeMap<SegmentNo, Vec<(u64, GenId)>>,
    epochs: Vec<(EpochId, Offset)>,
}

/// All that programs made in one heap, and the lives of its log.
#[derive(Debug)]
pub struct Oracle {
    /// Every commit that a program made, by number.
    pub made: Vec<Made>,
    by_uid: BTreeMap<Uid, CommitNo>,
    /// The last one is that of the disk.
    logs: Vec<Log>,
    /// Segments whose counter was to be made by a commit that is void: nothing can be counted there.
    uncounted: Vec<SegmentNo>,
    /// Lines that the relay has dropped (§2): nobody may go on in them.
    pub dropped: BTreeSet<ReplicaId>,
    /// All their entries are below this.
    pub forgotten: Offset,
    /// What lies below has been there for as long as lines are kept.
    pub idle_below: Offset,
    /// Commits that had other bytes on their way, and these bytes.
    forged: BTreeMap<Uid, Vec<Vec<u8>>>,
    /// Commits that stand on a claim.
    pub claimed: Marks,
    /// Segments get new generations.
    pub rolls: bool,
    /// Something of what somebody gave back was not taken, being of another generation; so a commit that was not acknowledged may be
    /// there in part until its author sends it.
    pub parted: bool,
    /// Commits that were durable in a life of the log that was lost, and were not in the next one when that began.
    pub lost: Marks,
    /// Commits that nobody was told of as durable, and whose part a generation that came back has not: their authors make it anew.
    pub superseded: Marks,
}

impl Default for Oracle {
    fn default() -> Oracle {
        Oracle {
            made: Vec::new(),
            by_uid: BTreeMap::new(),
            logs: vec![Log::default()],
            uncounted: Vec::new(),
            dropped: BTreeSet::new(),
            forgotten: Offset(0),
            idle_below: Offset(0),
            forged: BTreeMap::new(),
            claimed: Marks::default(),
            rolls: false,
            parted: false,
            lost: Marks::default(),
            superseded: Marks::default(),
        }
    }
}

impl Log {
    /// How many entries there are.
    pub fn head(&self) -> Offset {
        Offset(self.entries.len() as u64)
    }

    /// What a segment shows at a cut.
    pub fn content(&self, segment: SegmentNo, cut: Offset) -> Amount {
        let Some(contents) = self.contents.get(segment) else { return Amount::default() };
        let at = contents.partition_point(|(offset, _)| *offset < cut.0);
        contents.get(at.wrapping_sub(1)).map_or(Amount::default(), |(_, content)| *content)
    }

    /// All commits that are here below a cut, by themselves or by what was given back, in any of their segments.
    pub fn commits(&self, cut: Offset) -> Marks {
        let mut all = Marks::default();
        for segment in 0..self.contents.len() {
            all.extend(&self.content(segment, cut).marks);
        }
        all
    }

    fn line(&self, owner: ReplicaId) -> Option<(Seq, Uid)> {
        self.lines.get(&owner)?.last().map(|stand| (stand.seq, stand.uid))
    }

    fn stand(&mut self, at: u64, owner: ReplicaId, seq: Seq, uid: Uid) {
        self.lines.entry(owner).or_default().push(Stand { at, seq, uid });
    }

    fn contain(&mut self, at: u64, segment: SegmentNo, content: Amount) {
        if self.contents.len() <= segment {
            self.contents.resize_with(segment + 1, Vec::new);
        }
        self.contents[segment].push((at, content));
    }

    /// Whether a segment is of this generation at the end.
    fn is_of(&self, segment: SegmentNo, generation: GenId) -> bool {
        match self.generations.get(&segment).and_then(|all| all.last()) {
            Some((_, current)) => *current == generation,
            None => generation.is_zero(),
        }
    }

    fn truncate(&mut self, head: Offset, segments: usize) {
        self.entries.truncate(head.0 as usize);
        self.places.retain(|_, at| *at < head.0);
        self.listed.retain(|_, at| *at < head.0);
        self.held.retain(|(at, _)| *at < head.0);
        self.hollow.retain(|(at, ..)| *at < head.0);
        for line in self.lines.values_mut() {
            line.retain(|stand| stand.at < head.0);
        }
        for contents in &mut self.contents {
            contents.retain(|(at, _)| *at < head.0);
        }
        for generations in self.generations.values_mut() {
            generations.retain(|(at, _)| *at < head.0);
        }
        self.numbers.truncate(segments);
    }
}

impl Oracle {
    /// A program has made a commit.
    pub fn make(&mut self, uid: Uid, places: Vec<Touch>) -> CommitNo {
        self.by_uid.insert(uid, self.made.len());
        self.made.push(Made { uid, places, strange: None });
        self.made.len() - 1
    }

    /// A stranger has made one: a part of this segment, of this client, whatever it does.
    pub fn make_strange(&mut self, uid: Uid, places: Vec<Touch>, part: (SegmentNo, u64)) {
        let commit = self.make(uid, places);
        self.made[commit].strange = Some(part);
    }

    /// A commit has these bytes on its way, which no guard takes.
    pub fn forge(&mut self, uid: Uid, bytes: &[u8]) {
        self.forged.entry(uid).or_default().push(bytes.to_vec());
    }

    /// Whether the log has what no engine takes in, in the segment of this number.
    pub fn is_poisoned(&self, number: SegmentNumber) -> bool {
        self.segments().get(number.0 as usize).is_some_and(|segment| self.poison(*segment).next().is_some())
    }

    /// Whether somebody ever sent such a thing to a segment: a log that was not written may have shown it.
    pub fn was_poisoned(&self, segment: SegmentNo) -> bool {
        self.made.iter().any(|made| made.poison().is_some_and(|(of, _)| of == segment))
    }

    /// What no engine takes in of a segment: where, and whose.
    fn poison(&self, segment: SegmentNo) -> impl Iterator<Item = (u64, u64)> {
        let of = |(at, entry): (usize, &Entry)| match entry {
            Entry::Of { uid, void: false } => Some((at as u64, self.made[self.by_uid(*uid)?].poison()?)),
            _ => None,
        };
        let all = self.log().entries.iter().enumerate().filter_map(of);
        all.filter(move |(_, (on, _))| *on == segment).map(|(at, (_, client))| (at, client))
    }

    /// Whether a client of a segment is barred.
    pub fn is_barred(&self, of: (SegmentNo, u64)) -> bool {
        let mut entries = self.log().entries.iter();
        entries.any(|entry| matches!(entry, Entry::Quarantine { segment, client } if (*segment, *client) == of))
    }

    /// Whether a commit had other bytes on its way.
    pub fn is_forged(&self, commit: CommitNo) -> bool {
        self.forged.contains_key(&self.made[commit].uid)
    }

    /// The life of the log that the disk has.
    pub fn log(&self) -> &Log {
        &self.logs[self.logs.len() - 1]
    }

    fn log_mut(&mut self) -> &mut Log {
        let last = self.logs.len() - 1;
        &mut self.logs[last]
    }

    /// An earlier life of it, by number from 0.
    pub fn life(&self, life: usize) -> &Log {
        &self.logs[life.min(self.logs.len() - 1)]
    }

    /// The disk is another one, with this log, which is durable up to `has`. Up to `had` the other one was.
    pub fn lose(&mut self, found: Log, had: Offset, has: Offset) {
        let lost = self.log().commits(had);
        self.logs.push(found);
        self.lost.extend(&lost.without(&self.log().commits(has)));
    }

    /// The commit that is known by this.
    pub fn by_uid(&self, uid: Uid) -> Option<CommitNo> {
        self.by_uid.get(&uid).copied()
    }

    /// How many entries there are.
    pub fn head(&self) -> Offset {
        self.log().head()
    }

    /// How many segments the log has created.
    pub fn segments(&self) -> &[SegmentNo] {
        &self.log().numbers
    }

    /// The offset of a commit; `None`: it is not in the log by itself.
    pub fn place(&self, commit: CommitNo) -> Option<u64> {
        self.log().places.get(&commit).copied()
    }

    /// Whether a commit is void in the log.
    pub fn is_void(&self, commit: CommitNo) -> bool {
        let entry = self.place(commit).and_then(|at| self.log().entries.get(at as usize));
        matches!(entry, Some(Entry::Of { void: true, .. }))
    }

    /// Whether sums mean something in a segment.
    pub fn counts_in(&self, segment: SegmentNo) -> bool {
        !self.uncounted.contains(&segment)
    }

    /// The uid at an offset.
    pub fn uid(&self, offset: Offset) -> Option<Uid> {
        match self.log().entries.get(usize::try_from(offset.0).ok()?)? {
            Entry::Of { uid, .. } => Some(*uid),
            Entry::Restored | Entry::Roll | Entry::Quarantine { .. } => None,
        }
    }

    /// The number and uid of a line's newest entry; a refused one goes on from the complement of its uid (R11).
    pub fn line(&self, owner: ReplicaId) -> Option<(Seq, Uid)> {
        self.log().line(owner)
    }

    /// How far the log has to be durable for a line to be so up to a number; `None`: the line does not reach that far.
    pub fn reaches(&self, owner: ReplicaId, seq: Seq) -> Option<Offset> {
        let stand = self.log().lines.get(&owner)?.iter().find(|stand| stand.seq >= seq)?;
        Some(Offset(stand.at + 1))
    }

    /// Behind the newest entry of a line.
    fn end_of(&self, owner: ReplicaId) -> Option<Offset> {
        self.log().lines.get(&owner)?.last().map(|stand| Offset(stand.at).next())
    }

    /// §2: the relay drops lines, and says below which position.
    pub fn drop_lines(&mut self, lines: &[ReplicaId], forgotten: Offset, synced: Offset) -> Result<(), Failure> {
        for owner in lines {
            match self.end_of(*owner) {
                Some(end) if end <= synced && end <= forgotten => {}
                end => return fails("P6", format!("{owner:?} is dropped below {forgotten:?}, and ends at {end:?}")),
            }
            self.dropped.insert(*owner);
        }
        let ends = self.dropped.iter().filter_map(|owner| self.end_of(*owner)).max().unwrap_or_default();
        if ends != forgotten {
            return fails("G5", format!("lines are dropped below {forgotten:?}, and theirs end at {ends:?}"));
        }
        self.forgotten = forgotten;
        Ok(())
    }

    /// The relay says below which position it has dropped lines; the newest of them it may still have to write down.
    pub fn forgets_up_to(&self, told: Offset) -> Result<(), Failure> {
        let ends_there = || self.log().lines.keys().any(|owner| self.end_of(*owner) == Some(told));
        if told == self.forgotten || told > self.forgotten && ends_there() {
            return Ok(());
        }
        fails("G5", format!("lines are said to be dropped below {told:?}, and are below {:?}", self.forgotten))
    }

    /// Whether a line is dropped, or may be as far as the relay has said: it does so before anything of that is written, and says
    /// nothing new if one that ends behind this one was dropped before.
    pub fn is_dropped(&self, owner: ReplicaId, told: Offset) -> bool {
        let soon = self.end_of(owner).is_some_and(|end| end <= told.min(self.idle_below));
        soon || self.dropped.contains(&owner)
    }

    /// A line that was being dropped when the relay died is there, or is not: then the disk says below which position.
    pub fn finds(&mut self, owner: ReplicaId, is_there: bool, forgotten: Offset) -> Result<(), Failure> {
        if is_there {
            self.dropped.remove(&owner);
        } else if self.end_of(owner).is_some_and(|end| end > forgotten) {
            return fails(
                "P6",
                format!("{owner:?} is not on the disk, which has forgotten what is below {forgotten:?}"),
            );
        }
        Ok(())
    }

    /// Nobody goes on with a commit, and it is not in the log: what it was to make is not there.
    pub fn give_up(&mut self, commit: CommitNo) {
        if self.place(commit).is_none() {
            let places = &self.made[commit].places;
            self.uncounted.extend(places.iter().filter(|place| place.makes_counter).map(|place| place.segment));
        }
    }

    /// Somebody has given back what an earlier life of the log had.
    pub fn was_restored(&self) -> bool {
        self.log().entries.iter().any(|entry| matches!(entry, Entry::Restored))
    }

    /// Every line that the log speaks of.
    pub fn owners(&self) -> BTreeSet<ReplicaId> {
        let lines = self.log().lines.iter().filter(|(_, stands)| !stands.is_empty()).map(|(owner, _)| *owner);
        lines.chain(self.log().listed.keys().copied()).collect()
    }

    /// The relay has begun a life of the log.
    pub fn begin(&mut self, epoch: EpochId, start: Offset) -> Result<(), Failure> {
        if self.logs.iter().any(|log| log.epochs.iter().any(|(known, _)| *known == epoch)) {
            return fails("R6", format!("epoch {epoch:?} begins twice"));
        }
        if start != self.head() {
            return fails("R6", format!("epoch {epoch:?} begins at {start:?}, the log ends at {:?}", self.head()));
        }
        self.log_mut().epochs.push((epoch, start));
        Ok(())
    }

    /// The lives of the log.
    pub fn epochs(&self) -> &[(EpochId, Offset)] {
        &self.log().epochs
    }

    /// The relay has given an entry its place. `number`: of a segment that it creates. `given`: what a replica was shown of the
    /// segments that it gave back last.
    pub fn append(
        &mut self,
        offset: Offset,
        entry: &LogEntry,
        number: impl Fn(SegmentId) -> Option<SegmentNo>,
        given: impl Fn(ReplicaId) -> Option<Sight>,
    ) -> Result<(), Failure> {
        if offset != self.head() {
            return fails("P5", format!("an entry is put at {offset:?}, the log ends at {:?}", self.head()));
        }
        match entry {
            LogEntry::Commit(commit) => self.commit(offset, commit, number),
            LogEntry::Void { owner, seq, uid, .. } => {
                let commit = self.by_uid.get(uid).copied();
                self.admit(offset, *owner, (*seq, *uid), commit, true)?;
                let places = &self.made[commit.unwrap_or_default()].places;
                self.uncounted.extend(places.iter().filter(|place| place.makes_counter).map(|place| place.segment));
                Ok(())
            }
            LogEntry::Restored(restored) => match given(restored.by) {
                Some(sight) => self.restored(offset, restored, number, &sight),
                None => fails("R1", format!("{:?} gives something back at {offset:?}, and sent nothing", restored.by)),
            },
            LogEntry::Quarantine(quarantine) => self.quarantine(offset, quarantine),
            LogEntry::Roll(roll) => self.roll(offset, roll),
        }
    }

    /// A commit, or its refusal, has the next place of its line.
    fn admit(
        &mut self,
        offset: Offset,
        owner: ReplicaId,
        (seq, uid): (Seq, Uid),
        commit: Option<CommitNo>,
        void: bool,
    ) -> Result<(), Failure> {
        if self.dropped.contains(&owner) {
            return fails("P6", format!("{owner:?} {seq:?} is admitted, and its line was dropped"));
        }
        let before = self.line(owner).map_or(Seq(0), |(seq, _)| seq);
        // D4: what was lost and comes again from a store takes the place that its line has kept.
        let hollow = |(_, of, from, upto): &(u64, ReplicaId, Seq, Seq)| *of == owner && (*from..=*upto).contains(&seq);
        let again = !void && self.log().hollow.iter().any(hollow);
        if seq != before.next() && !again {
            return fails("P2", format!("{owner:?} {seq:?} is admitted behind {before:?} of its line"));
        }
        let Some(commit) = commit.filter(|commit| self.made.get(*commit).is_some_and(|made| made.uid == uid)) else {
            return fails("P5", format!("{owner:?} {seq:?} is in the log, and nobody made it"));
        };
        if let Some(place) = self.place(commit) {
            return fails("P6", format!("commit {commit} is admitted at {} and again at {}", place, offset.0));
        }
        let log = self.log_mut();
        if !again {
            log.stand(offset.0, owner, seq, if void { uid.voided() } else { uid });
        }
        log.places.insert(commit, offset.0);
        log.entries.push(Entry::Of { uid, void });
        Ok(())
    }

    fn commit(
        &mut self,
        offset: Offset,
        stored: &StoredCommit,
        number: impl Fn(SegmentId) -> Option<SegmentNo>,
    ) -> Result<(), Failure> {
        let known = stored.label.as_deref().and_then(commit_of);
        self.admit(offset, stored.owner, (stored.seq, stored.uid), known, false)?;
        let commit = known.unwrap_or_default();
        let places = self.made[commit].places.clone();
        let mut parts: Vec<SegmentNo> = Vec::new();
        for part in &stored.parts {
            if let Some(created) = part.creates {
                self.create(offset, part.segment, number(created.id))?;
            }
            let Some(segment) = self.segments().get(part.segment.0 as usize).copied() else { continue };
            if !self.log().is_of(segment, part.generation) {
                let what = format!("commit {commit} is admitted against {:?} of segment {segment}", part.generation);
                return fails("G3", what);
            }
            parts.push(segment);
        }
        parts.sort_unstable();
        let made = &self.made[commit];
        let mut expected: Vec<SegmentNo> = match made.strange {
            Some((segment, _)) => vec![segment],
            None => places.iter().map(|place| place.segment).collect(),
        };
        expected.sort_unstable();
        if made.poison().is_some_and(|of| self.is_barred(of)) {
            return fails("R12", format!("commit {commit} is admitted, whose client is barred"));
        }
        let forged = self.forged.get(&stored.uid).map_or(&[][..], Vec::as_slice);
        if stored.parts.iter().any(|part| forged.iter().any(|bytes| part.bytes[..] == bytes[..])) {
            return fails("R10", format!("commit {commit} is admitted as it was forged"));
        }
        // X25: what is in a generation that was given back, or that its author was in before the log was lost, is not in the commit
        // any more; somebody has given it back, then.
        let in_base = |segment: &SegmentNo| self.log().content(*segment, Offset(u64::MAX)).marks.contains(commit);
        let lacks = expected.iter().filter(|segment| !parts.contains(segment));
        // Or what it was in has no place any more, and its author was told (§14.3).
        let there = self.was_restored() && (self.parted || lacks.into_iter().all(in_base));
        let reduced = there && parts.iter().all(|part| expected.contains(part));
        if parts != expected && !reduced {
            return fails("P3", format!("commit {commit} is admitted with {parts:?} of its parts {expected:?}"));
        }
        let log = self.log_mut();
        for place in &places {
            let mut content = log.content(place.segment, Offset(u64::MAX));
            content.add(commit, place);
            log.contain(offset.0, place.segment, content);
        }
        Ok(())
    }

    fn create(&mut self, offset: Offset, as_number: SegmentNumber, segment: Option<SegmentNo>) -> Result<(), Failure> {
        match segment {
            Some(segment) if as_number == SegmentNumber(self.segments().len() as u64) => {
                self.log_mut().numbers.push(segment);
                Ok(())
            }
            _ => fails("P5", format!("entry {offset:?} creates {segment:?} as {as_number:?}")),
        }
    }

    /// R12: what is left out is what no engine takes in, all that its client has written of it.
    fn quarantine(&mut self, offset: Offset, quarantine: &StoredQuarantine) -> Result<(), Failure> {
        let Some(segment) = self.segments().get(quarantine.segment.0 as usize).copied() else {
            return fails("R12", format!("{:?} is left out at {offset:?}, which is not there", quarantine.segment));
        };
        let client = quarantine.client.map_or(0, |(client, _)| client);
        let skipped: Vec<u64> = quarantine.skipped().map(|at| at.0).collect();
        let poison: Vec<u64> = self.poison(segment).filter(|(_, of)| *of == client).map(|(at, _)| at).collect();
        if skipped != poison || poison.is_empty() || !self.log().is_of(segment, quarantine.generation) {
            let what = format!("of segment {segment} {skipped:?} are left out at {offset:?}");
            return fails("R12", format!("{what}; client {client} has {poison:?} that no engine takes in"));
        }
        self.log_mut().entries.push(Entry::Quarantine { segment, client });
        Ok(())
    }

    /// G1: the values are what they were, and the header says of every line how far it has come.
    fn roll(&mut self, offset: Offset, roll: &StoredRoll) -> Result<(), Failure> {
        let Some(segment) = self.segments().get(roll.segment.0 as usize).copied() else {
            return fails("G1", format!("a generation of {:?} at {offset:?}, which is not there", roll.segment));
        };
        let Ok(header) = GenerationHeader::decode(&roll.header) else { return fails("G1", "a header does not parse") };
        let known = self.log().generations.values().flatten().any(|(_, known)| *known == roll.generation);
        if known || !self.log().is_of(segment, roll.parent) || header.generation != roll.generation {
            return fails("G1", format!("segment {segment} goes over from {:?} to {:?}", roll.parent, roll.generation));
        }
        if self.was_restored() {
            return fails("D6", "a generation of a log that was given back");
        }
        let included: BTreeMap<_, _> = header.included.iter().map(|(owner, line)| (owner, line.last)).collect();
        let kept = self.owners().into_iter().filter(|owner| !self.dropped.contains(owner));
        let lines = kept.filter_map(|owner| Some((owner, self.line(owner)?.0))).collect();
        if header.partial || included != lines {
            return fails("G1", format!("a generation at {offset:?} has the lines {included:?}, the log {lines:?}"));
        }
        let log = self.log_mut();
        log.generations.entry(segment).or_default().push((offset.0, roll.generation));
        log.entries.push(Entry::Roll);
        Ok(())
    }

    /// D4: all that the sender was shown of what it gave is in the log from here on, and its lines go on from where it knows.
    fn restored(
        &mut self,
        offset: Offset,
        restored: &StoredRestore,
        number: impl Fn(SegmentId) -> Option<SegmentNo>,
        given: &Sight,
    ) -> Result<(), Failure> {
        let mut taken = BTreeSet::new();
        for part in &restored.segments {
            if let Some(created) = part.creates {
                self.create(offset, part.segment, number(created.id))?;
            }
            let Some(segment) = self.segments().get(part.segment.0 as usize).copied() else {
                return fails("P5", format!("what is given back at {offset:?} names {:?}", part.segment));
            };
            let Some(marks) = given.get(&segment) else {
                return fails(
                    "P5",
                    format!("segment {segment} is given back at {offset:?}, and its sender has it not"),
                );
            };
            taken.insert(segment);
            let mut content = self.log().content(segment, Offset(u64::MAX));
            let adds = marks.without(&content.marks);
            if part.adopts {
                // What was made of all that the log has; not of what others gave back and have not been acknowledged.
                let lacks = content.marks.without(marks);
                let held = |commit: CommitNo| self.log().held.iter().any(|(_, held)| *held == commit);
                let was_durable = |commit: CommitNo| self.lost.contains(commit) && !held(commit);
                let known = |commit: &CommitNo| self.place(*commit).is_some() || was_durable(*commit);
                if let Some(commit) = lacks.iter().find(known) {
                    let what = format!("segment {segment} goes over at {offset:?} to a generation without {commit}");
                    return fails("D4", what);
                }
                self.superseded.extend(&lacks);
                content = Amount::default();
                self.log_mut().generations.entry(segment).or_default().push((offset.0, part.generation));
            } else if !self.log().is_of(segment, part.generation) {
                return fails("D4", format!("segment {segment} is given back at {offset:?} of another generation"));
            }
            let adds = if part.adopts { *marks } else { adds };
            if !adds.is_empty() && part.state.is_empty() {
                return fails(
                    "P5",
                    format!("{adds:?} of segment {segment} are given back at {offset:?}, and not taken"),
                );
            }
            for commit in adds.iter() {
                for place in self.made[commit].places.iter().filter(|place| place.segment == segment) {
                    content.add(commit, place);
                }
            }
            self.log_mut().contain(offset.0, segment, content);
        }
        let left = given.iter().find(|(segment, marks)| !taken.contains(*segment) && !marks.is_empty());
        // What the log knows nothing of is taken, whatever its generation.
        let all = given.iter().filter(|(segment, marks)| !taken.contains(*segment) && !marks.is_empty());
        if let Some((segment, marks)) = all.into_iter().find(|(segment, _)| !self.segments().contains(segment)) {
            let what =
                format!("{marks:?} of segment {segment} are given back at {offset:?} to a log that has none of it");
            return fails("D4", format!("{what}, and not taken"));
        }
        // What is of another generation stays with its sender, which is told.
        self.parted |= left.is_some();
        if let Some((segment, marks)) = left.filter(|_| !self.rolls) {
            return fails("P5", format!("{marks:?} of segment {segment} are given back at {offset:?}, and not listed"));
        }
        for (owner, seq, uid) in &restored.acked {
            let before = self.line(*owner).map_or(Seq(0), |(seq, _)| seq);
            if *seq > before {
                self.log_mut().hollow.push((offset.0, *owner, before.next(), *seq));
                self.log_mut().stand(offset.0, *owner, *seq, *uid);
            }
        }
        let held: Vec<_> = restored.pending.iter().filter_map(|(.., uid)| self.by_uid(*uid)).collect();
        let log = self.log_mut();
        log.held.extend(held.into_iter().map(|commit| (offset.0, commit)));
        for (owner, seq, _) in &restored.pending {
            if log.line(*owner).is_none_or(|(last, _)| last < *seq) {
                log.listed.entry(*owner).or_insert(offset.0);
            }
        }
        log.entries.push(Entry::Restored);
        Ok(())
    }

    /// The log ends here now: what lay behind was lost before it was durable, or could not be written.
    pub fn truncate(&mut self, head: Offset, segments: usize) {
        self.log_mut().truncate(head, segments);
    }

    /// An epoch that was begun and is not on the disk was never told to anybody.
    pub fn forget_epochs(&mut self, known: usize) {
        self.log_mut().epochs.truncate(known);
    }
}
