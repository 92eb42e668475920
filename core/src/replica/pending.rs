//! What is not acknowledged yet: every own commit both as the deltas that were sent and as anchored edits (CORE-PROTOCOL C1–C3,
//! C7). The deltas are sent again after a reconnect; the edits are what a redo works from. What is resent is decided here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::commit::{After, Commit, Part, PartBody, content_hash};
use crate::edit::Edit;
use crate::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::mutate::{self, Mutation};

/// One unacknowledged commit.
#[derive(Debug)]
pub struct Unsaved {
    /// As it was (or will be) sent. Its owner may be an older id of this replica (`lines.rs`).
    pub commit: Commit,
    /// How the program knows it: counts this replica's commits, whatever line each is in.
    pub number: Seq,
    /// What it means, segment by segment, in the order of its parts.
    pub edits: Vec<Vec<Edit>>,
    /// Its place in the log, once its entry came by on the stream.
    pub admitted: Option<Offset>,
    /// It went out on this connection.
    pub sent: bool,
    /// It went out on some connection: a relay may have it.
    pub offered: bool,
    /// If it ever went out, or may have, whoever sent it and in whatever line: nowhere before this position of the log. So its entry, if
    /// there is one, is here or later. Positions are those of the log that this replica knows; of one that has lost something, what
    /// lies behind the loss counts as lying where it begins.
    pub offered_at: Option<Offset>,
    /// The life of the log in which it first did, as far as this instance knows.
    pub offered_in: Option<EpochId>,
    /// G5: the log that is being given back may have had it, in a line that it has dropped. What of it was not given is in doubt.
    pub forgotten: bool,
    /// By part: its delta counts for nothing, it is made anew from the edits when the segment has been loaded anew.
    pub stale: Vec<bool>,
    /// By part: the log has what it does, in what this replica gave back of the segment (D4), whatever becomes of the commit: it
    /// is not made anew.
    pub given: Vec<bool>,
    /// F3: the log has it with other bytes, which count. Its own are in no document, or are on their way out.
    pub outdone: bool,
    /// The log has it for good, and as it is here: whatever is made anew, this is not.
    pub settled: bool,
    /// The log of this connection has it, as far as it has told.
    pub logged: bool,
    /// The log has it with parts that are in the documents of later generations, and are in it no more (G3): its hash with those.
    pub was: Option<u64>,
    /// The log has it as refused (R11): nothing behind it goes out before that is told and handled.
    pub void: bool,
    /// What is kept of it outside (`outside.rs`) says what it is.
    pub told: bool,
    /// Bytes of its deltas.
    pub bytes: usize,
}

/// The list of them, oldest first, and so by number; the commits of one line stand together, those of the replica's own id last.
/// A replica without a connection may hold very many: what every commit and every Ack asks does not look through all of them.
#[derive(Debug, Default)]
pub struct Pending {
    list: VecDeque<Unsaved>,
    bytes: usize,
    /// Any of them may be untold.
    untold: bool,
    /// These are, whatever the others are.
    changed: BTreeSet<Seq>,
}

impl Unsaved {
    /// A commit that has just been made.
    pub fn new(commit: Commit, edits: Vec<Vec<Edit>>, number: Seq, stale: Vec<bool>) -> Unsaved {
        let bytes = commit.parts.iter().filter_map(|part| part.body.delta()).map(bytes::Bytes::len).sum();
        let given = vec![false; commit.parts.len()];
        Unsaved {
            commit,
            edits,
            number,
            admitted: None,
            sent: false,
            offered: false,
            offered_at: None,
            offered_in: None,
            forgotten: false,
            stale,
            given,
            outdone: false,
            settled: false,
            logged: false,
            was: None,
            void: false,
            told: false,
            bytes,
        }
    }

    /// Its content, as a relay would name it.
    pub fn hash(&self) -> u64 {
        content_hash(self.commit.parts.iter().map(|part| {
            let bytes: &[u8] = match &part.body {
                PartBody::Delta(bytes) | PartBody::Create { delta: bytes, .. } | PartBody::Opaque { bytes, .. } => {
                    bytes
                }
                PartBody::Delete => &[],
            };
            (part.segment, part.generation, bytes)
        }))
    }

    /// Whether the log's commit of this content is this one.
    pub fn has_hash(&self, hash: u64) -> bool {
        hash == self.hash() || self.was == Some(hash)
    }

    /// What the log of a new connection has of it: a commit of this content, one of which it does not say what is in it (0), or
    /// nothing. That will have it as it is here, whatever a log that was lost had of it.
    pub fn meets(&mut self, content: Option<u64>) {
        self.logged = content.is_some();
        if self.was.is_some() && content.is_none_or(|hash| hash == self.hash()) {
            (self.was, self.told) = (None, false);
        }
    }

    /// Its hash in the log that has acknowledged it, or will, if that has it as it is here.
    pub fn hash_in_the_log(&self) -> Option<u64> {
        let same = !self.outdone && !self.stale.contains(&true);
        same.then(|| self.was.unwrap_or_else(|| self.hash()))
    }

    /// §2: it went out before a position below which lines were dropped, so that the log lacks its line says nothing. `agreed`: up to
    /// where that log is the one that this replica knows.
    pub fn may_be_forgotten(&self, forgotten: Offset, agreed: Offset) -> bool {
        self.offered_at.is_some_and(|at| at.min(agreed) < forgotten)
    }

    /// The segments it touches.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.commit.parts.iter().map(|part| part.segment)
    }

    /// Those in which it is to be made anew.
    pub fn to_redo(&self) -> impl Iterator<Item = SegmentId> {
        let stale = self.commit.parts.iter().zip(&self.stale).filter(|(_, stale)| **stale && !self.outdone);
        stale.map(|(part, _)| part.segment)
    }

    /// Its parts in these segments are to be made anew; if the log has it, in its version or as it is, there is nothing to make.
    fn spoil(&mut self, segments: &BTreeSet<SegmentId>) {
        if self.outdone || self.settled {
            return;
        }
        for ((part, stale), given) in self.commit.parts.iter().zip(&mut self.stale).zip(&self.given) {
            if !*stale && !given && segments.contains(&part.segment) {
                (*stale, self.told) = (true, false);
            }
        }
    }

    /// A part is nothing of this commit any more: what it does is there without it.
    fn remove(&mut self, at: usize) {
        self.commit.parts.remove(at);
        self.edits.remove(at);
        self.stale.remove(at);
        self.given.remove(at);
        self.told = false;
    }

    /// Another life of the log may have lost what was given back to this one.
    pub fn is_not_given(&mut self) {
        if self.given.contains(&true) {
            self.given.fill(false);
            self.told = false;
        }
    }

    /// D4: the log has what of it was given back of a segment, at this generation.
    pub fn is_given(&mut self, segment: SegmentId, generation: GenId) {
        if self.outdone {
            return;
        }
        for ((part, stale), given) in self.commit.parts.iter().zip(&self.stale).zip(&mut self.given) {
            if part.segment == segment && part.generation == generation && !stale && !*given {
                (*given, self.told) = (true, false);
            }
        }
    }
}

impl Pending {
    /// Appends a commit.
    pub fn push(&mut self, unsaved: Unsaved) {
        self.bytes += unsaved.bytes;
        if !unsaved.told {
            self.changed.insert(unsaved.number);
        }
        self.list.push_back(unsaved);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when everything is saved.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of their deltas.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Unsaved> {
        self.list.iter()
    }

    /// Oldest first. Who changes what is kept outside says so (`told`).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Unsaved> {
        self.untold = true;
        self.list.iter_mut()
    }

    /// The oldest, as many as may be under way. Who changes what is kept outside says so (`changed`).
    pub fn window_mut(&mut self, most: u64) -> impl Iterator<Item = &mut Unsaved> {
        self.list.iter_mut().take(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// What is kept of these outside is to be told anew.
    pub fn changed(&mut self, numbers: impl IntoIterator<Item = Seq>) {
        for number in numbers {
            if let Some(one) = self.place(number).and_then(|at| self.list.get_mut(at)) {
                one.told = false;
                self.changed.insert(number);
            }
        }
    }

    /// Those that changed since they were last told; they are told now.
    pub fn untold(&mut self) -> impl Iterator<Item = &Unsaved> {
        let changed = std::mem::take(&mut self.changed);
        let mut places: Vec<usize> = match std::mem::take(&mut self.untold) {
            true => (0..self.list.len()).collect(),
            false => changed.into_iter().filter_map(|number| self.place(number)).collect(),
        };
        places.retain(|at| self.list.get_mut(*at).is_some_and(|one| !std::mem::replace(&mut one.told, true)));
        places.into_iter().filter_map(|at| self.list.get(at))
    }

    fn place(&self, number: Seq) -> Option<usize> {
        self.list.binary_search_by_key(&number, |one| one.number).ok()
    }

    /// The newest that is not in this line, which is the replica's own.
    pub fn newest_but(&self, own: ReplicaId) -> Option<&Unsaved> {
        let others = self.list.partition_point(|one| one.commit.owner != own);
        let newest = others.checked_sub(1)?;
        self.list.get(if mutate::on(Mutation::AfterOldest) { 0 } else { newest })
    }

    /// One commit.
    pub fn find(&self, owner: ReplicaId, seq: Seq) -> Option<&Unsaved> {
        self.list.iter().find(|one| one.commit.owner == owner && one.commit.seq == seq)
    }

    /// Forgets what an Ack covers (C2: only on an Ack), and gives it.
    pub fn acknowledged(&mut self, owner: ReplicaId, seq: Seq) -> Vec<Unsaved> {
        let is_of = |of: ReplicaId| of == owner || mutate::on(Mutation::AckOfAnyLine);
        let covered = |one: &Unsaved| is_of(one.commit.owner) && one.commit.seq <= seq;
        let several = self.list.front().is_some_and(|one| one.commit.owner != owner) || self.has_several_lines();
        let mut ended = Vec::new();
        while let Some(one) = self.list.pop_front_if(|one| covered(one)) {
            ended.push(one);
        }
        if several && !mutate::on(Mutation::AckAtFront) {
            let (gone, left): (VecDeque<_>, _) = std::mem::take(&mut self.list).into_iter().partition(covered);
            self.list = left;
            ended.extend(gone);
            self.is_in_the_log(owner, seq);
        }
        self.bytes -= ended.iter().map(|one| one.bytes).sum::<usize>();
        ended
    }

    /// Takes a refused commit out and lets the line go on from its voided uid (R11). What lies behind it has to be sent again
    /// (C7), and made anew where it touches the same segments.
    pub fn refused(&mut self, owner: ReplicaId, seq: Seq, uid: Uid) -> Option<Unsaved> {
        let is = |one: &Unsaved| (one.commit.owner, one.commit.seq, one.commit.uid) == (owner, seq, uid);
        let at = self.list.iter().position(is)?;
        let refused = self.take_out(at)?;
        if let Some(next) = self.list.iter_mut().find(|one| one.commit.owner == owner && one.commit.seq > seq) {
            if !mutate::on(Mutation::KeepPrev) {
                next.commit.prev = uid.voided();
            }
            (next.told, self.untold) = (false, true);
        }
        self.is_in_the_log(owner, seq);
        Some(refused)
    }

    /// Takes one out. What lies behind it depends on it where both touch a segment, and was not admitted.
    fn take_out(&mut self, at: usize) -> Option<Unsaved> {
        let gone = self.list.remove(at)?;
        self.bytes -= gone.bytes;
        self.spoil_behind(at, &gone.segments().collect());
        Some(gone)
    }

    /// Everything from this place on is made anew in these segments, and sent again.
    fn spoil_behind(&mut self, at: usize, segments: &BTreeSet<SegmentId>) {
        self.untold = true;
        for later in self.list.iter_mut().skip(at) {
            later.spoil(segments);
            later.sent = false;
            later.admitted = None;
        }
    }

    fn has_several_lines(&self) -> bool {
        let owner = |one: &Unsaved| one.commit.owner;
        self.list.front().map(owner) != self.list.back().map(owner)
    }

    /// That commit has its place in the log for good: nothing has to name it any more, and its id need not be declared for it.
    fn is_in_the_log(&mut self, owner: ReplicaId, seq: Seq) {
        for one in &mut self.list {
            if one.commit.after.is_some_and(|after| after.owner == owner && after.seq <= seq) {
                one.commit.after = None;
                (one.told, self.untold) = (false, true);
            }
        }
    }

    /// From this commit on, and whatever comes behind it in any line: not now (R2c, R2d ignore it).
    pub fn unsent_from(&mut self, owner: ReplicaId, seq: Seq) {
        let from = self.list.iter().position(|one| one.commit.owner == owner && one.commit.seq >= seq);
        let most = if mutate::on(Mutation::BusyAlone) { 1 } else { usize::MAX };
        for one in self.list.iter_mut().skip(from.unwrap_or(usize::MAX)).take(most) {
            one.sent = false;
        }
    }

    /// F2: the commits of a line from this number on go to another id ([`ReplicaId::moved`]): same uids, numbers 1, 2, …, all
    /// their parts to be made anew, with those of later commits in the same segments. Gives how many there are, and the segments.
    /// Parts that were given back are in the log under the old id, and stay there: the commits go on without them [X25].
    pub fn move_line(&mut self, owner: ReplicaId, from: Seq) -> (u64, BTreeSet<SegmentId>) {
        let first = self.list.iter().find(|one| one.commit.owner == owner && one.commit.seq >= from);
        let Some(to) = first.map(|one| owner.moved(one.commit.uid)) else { return (0, BTreeSet::new()) };
        let (mut count, mut last) = (0, Uid::NONE);
        let mut moved: BTreeMap<Seq, Seq> = BTreeMap::new();
        let mut segments = BTreeSet::new();
        let mut before: Option<After> = None;
        self.untold = true;
        for one in &mut self.list {
            let commit = &mut one.commit;
            if commit.owner == owner && commit.seq >= from {
                count += 1;
                moved.insert(commit.seq, Seq(count));
                (commit.owner, commit.seq, commit.prev) = (to, Seq(count), last);
                commit.after = before.filter(|before| before.owner != to);
                last = commit.uid;
                while let Some(at) = one.given.iter().position(|given| *given) {
                    one.remove(at);
                }
                segments.extend(one.segments());
                one.stale.fill(true);
                (one.sent, one.offered, one.admitted) = (false, false, None);
                (one.outdone, one.settled, one.void) = (false, false, false);
                // What the log will have of it is what it is from here on.
                (one.logged, one.was) = (false, None);
                one.told = false;
            } else {
                if let Some(after) = &mut commit.after
                    && after.owner == owner
                    && let Some(seq) = moved.get(&after.seq)
                {
                    (after.owner, after.seq) = (to, *seq);
                    one.told = false;
                }
                one.spoil(&segments);
            }
            let commit = &one.commit;
            before = Some(After { owner: commit.owner, seq: commit.seq, uid: commit.uid });
        }
        self.recount();
        (count, segments)
    }

    /// F3: the log's version of a commit counts. What lies behind it is made anew where it touches the same segments; those
    /// are given.
    pub fn give_way(&mut self, owner: ReplicaId, seq: Seq) -> BTreeSet<SegmentId> {
        let at = self.list.iter().position(|one| one.commit.owner == owner && one.commit.seq == seq);
        let Some((at, one)) = at.and_then(|at| Some((at, self.list.get_mut(at)?))) else { return BTreeSet::new() };
        (one.outdone, one.told) = (true, false);
        one.stale.fill(false);
        let segments = one.segments().collect();
        self.spoil_behind(at + 1, &segments);
        segments
    }

    /// R12: parts of a segment that build on what the log leaves out. What has its place in the log is left out with it; the rest, and
    /// what lies behind it, is made anew and sent again.
    pub fn left_out(&mut self, segment: SegmentId, builds_on_it: impl Fn(&bytes::Bytes) -> bool) {
        let mut from = None;
        for (at, one) in self.list.iter_mut().enumerate() {
            let mut parts = one.commit.parts.iter().zip(&mut one.stale).filter(|(part, _)| part.segment == segment);
            let Some((_, stale)) = parts.find(|(part, _)| part.body.delta().is_some_and(&builds_on_it)) else {
                continue;
            };
            if one.admitted.is_some() {
                // Stale says so to the ring of the next connection, which has it as it was sent.
                (*stale, one.outdone, one.told, self.untold) = (true, true, false, true);
            } else if from.is_none() {
                from = Some(at);
            }
        }
        if let Some(at) = from {
            self.spoil_behind(at, &BTreeSet::from([segment]));
        }
    }

    /// Whether an unacknowledged commit has a delta of this segment that counts as it is.
    pub fn has_counting(&self, segment: SegmentId) -> bool {
        let counts = |one: &Unsaved| {
            one.commit.parts.iter().zip(&one.stale).any(|(part, stale)| part.segment == segment && !stale)
        };
        self.list.iter().any(|one| !one.outdone && counts(one))
    }

    /// R12: what is here of a segment cannot be put on what the relay has of it. It is made anew.
    pub fn spoil_all(&mut self, segment: SegmentId) {
        self.spoil_behind(0, &BTreeSet::from([segment]));
    }

    /// G3: the segment is of another generation now. A part of an older one goes where `in_base` says that the new document has
    /// it, and is to be made anew otherwise; true: some are. From the first of those on everything is sent again (C7). Of a
    /// generation that is not this log's own (D4), the document may have what this log does not.
    pub fn switch(&mut self, segment: SegmentId, to: GenId, own: bool, in_base: impl Fn(&Unsaved) -> bool) -> bool {
        let mut first = None;
        for (at, one) in self.list.iter_mut().enumerate() {
            let old = |part: &Part| part.segment == segment && part.generation != to;
            // F3: the log's version of it counts, in whatever generation that is.
            let place = one.commit.parts.iter().position(old).filter(|_| !one.outdone);
            let Some(place) = place else { continue };
            (one.told, self.untold) = (false, true);
            if in_base(one) {
                // What only a log that is lost had of it is nothing that this one will have.
                if own || one.logged {
                    let hash = one.hash();
                    one.was.get_or_insert(hash);
                }
                one.remove(place);
            } else {
                // It is not in that document, whoever gave it back.
                if let (Some(stale), Some(given)) = (one.stale.get_mut(place), one.given.get_mut(place)) {
                    (*stale, *given) = (true, false);
                }
                first.get_or_insert(at);
            }
        }
        if let Some(first) = first {
            let again = |one: &Unsaved| !mutate::on(Mutation::ResendRedoneOnly) || one.stale.contains(&true);
            for later in self.list.iter_mut().skip(first).filter(|one| again(one)) {
                later.sent = false;
                later.admitted = None;
            }
        }
        self.recount();
        first.is_some()
    }

    /// G5: takes out what `may_be_there` of a line, from this number on.
    pub fn in_doubt(&mut self, owner: ReplicaId, from: Seq, may_be_there: impl Fn(&Unsaved) -> bool) -> Vec<Unsaved> {
        let mut out = Vec::new();
        let of_line = |one: &Unsaved| one.commit.owner == owner && one.commit.seq >= from;
        let doubtful = |one: &Unsaved| of_line(one) && may_be_there(one);
        while let Some(at) = self.list.iter().position(doubtful) {
            let Some(gone) = self.take_out(at) else { break };
            self.is_in_the_log(owner, gone.commit.seq);
            out.push(gone);
        }
        out
    }

    /// A new connection: everything goes out again (C3).
    pub fn reconnected(&mut self) {
        if mutate::on(Mutation::NoResend) {
            return;
        }
        if mutate::on(Mutation::ForgetUnacknowledged) {
            self.list.clear();
            self.bytes = 0;
        }
        for one in &mut self.list {
            one.sent = false;
        }
    }

    /// G5: what was ever sent of these lines may have been in a log that has dropped them.
    pub fn is_forgotten(&mut self, lines: &[ReplicaId]) {
        for one in &mut self.list {
            if lines.contains(&one.commit.owner) && one.offered_at.is_some() && !one.forgotten {
                (one.forgotten, one.told, self.untold) = (true, false, true);
            }
        }
    }

    /// G5: those of them that the log has not been given whole.
    pub fn still_forgotten(&mut self) -> Vec<(ReplicaId, Seq)> {
        let mut still = Vec::new();
        for one in &mut self.list {
            if std::mem::take(&mut one.forgotten) {
                // Also one that was moved to a line in which it never did.
                (one.offered, one.told, self.untold) = (true, false, true);
                still.extend(one.given.contains(&false).then_some((one.commit.owner, one.commit.seq)));
            }
        }
        still
    }

    /// The log that goes on is the one that this replica knew up to this position.
    pub fn known_up_to(&mut self, agreed: Offset) {
        for one in &mut self.list {
            if one.offered_at.is_some_and(|at| at > agreed) {
                (one.offered_at, one.told, self.untold) = (Some(agreed), false, true);
            }
        }
    }

    /// True while an unacknowledged commit touches the segment (L4: it is not evicted).
    pub fn touches(&self, segment: SegmentId) -> bool {
        self.list.iter().any(|one| one.commit.parts.iter().any(|part| part.segment == segment))
    }

    /// Replaces a delta that was made anew, keeping the bytes right.
    pub fn recount(&mut self) {
        self.bytes = 0;
        for one in &mut self.list {
            one.bytes = one.commit.parts.iter().filter_map(|part| part.body.delta()).map(bytes::Bytes::len).sum();
            self.bytes += one.bytes;
        }
    }
}
