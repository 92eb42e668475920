//! What every commit of a [`crate::cluster::Cluster`] has to come to, kept apart from the machines.
//!
//! Every commit leaves a marker of its own under the first object of each segment it touches, and adds to a total there that
//! nobody else touches. So the ledger can say at any time what a program may see: markers of one commit appear together at
//! others (P3) and never go (P4), an author sees its own, a refused commit is seen by nobody else, and in the end every
//! marker and every total is exactly that of the commits that stand (P5, P6, R11). What waits promise is checked on the way.

use std::collections::{BTreeMap, BTreeSet};

use coheap_core::edit::{Handle, Literal, Shown, Wish};
use coheap_core::id::{SegmentId, Seq, Uid};
use coheap_core::log::LogEntry;
use coheap_core::replica::{WaitError, WaitKind};
use coheap_core::value::{Kind, Value};

use crate::mirror::{Mirror, Node as Object};
use crate::node::{Node, Told};

/// The key of a segment's total.
pub const TOTAL: &str = "#total";

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Not known yet.
    Open,
    /// It is durable.
    Stands,
    /// It is undone.
    Refused(u64),
    /// It ended with its author.
    Gone,
    /// The same, and it was durable on a disk that was lost, or was given back to one that had lost others: it is there where
    /// somebody who showed it has given it back (CORE-PROTOCOL §14.2).
    Lost,
    /// Its author was told that nobody can say whether it is there (G4, G5), and has not made it again. It is there for everybody,
    /// and counts once, or for nobody.
    InDoubt,
}

fn fate_of(entry: &LogEntry, of: Uid) -> Option<Outcome> {
    match entry {
        LogEntry::Commit(commit) if commit.uid == of => Some(Outcome::Stands),
        LogEntry::Void { uid, code, .. } if *uid == of => Some(Outcome::Refused(*code)),
        _ => None,
    }
}

/// Whether somebody has given back the parts of a commit that is not in the log by itself.
fn is_given(log: &[LogEntry], of: Uid) -> bool {
    let mut given = log.iter().filter_map(|entry| match entry {
        LogEntry::Restored(restore) => Some(&restore.pending),
        _ => None,
    });
    given.any(|pending| pending.iter().any(|(_, _, uid)| *uid == of))
}

/// The claim that a commit stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The run.
    pub run: String,
    /// What it says is done.
    pub key: String,
    /// By which grant.
    pub grant: u64,
}

/// In which segments the log has which commits by themselves: what they do there is to be seen, whoever was told what.
fn parts_of(log: &[LogEntry]) -> BTreeSet<(SegmentId, Uid)> {
    let (mut ids, mut parts) = (BTreeMap::new(), BTreeSet::new());
    for entry in log {
        match entry {
            LogEntry::Commit(commit) => {
                for part in &commit.parts {
                    ids.extend(part.creates.map(|made| (part.segment, made.id)));
                    parts.extend(ids.get(&part.segment).map(|id| (*id, commit.uid)));
                }
            }
            LogEntry::Restored(restore) => {
                let made = restore.segments.iter().filter_map(|part| Some((part.segment, part.creates?.id)));
                ids.extend(made);
            }
            LogEntry::Void { .. } | LogEntry::Roll(_) | LogEntry::Quarantine(_) => {}
        }
    }
    parts
}

/// What one commit left where.
#[derive(Clone, Debug)]
pub struct Written {
    /// What it is known by, whoever sends it.
    pub uid: Uid,
    /// The key of its marker.
    pub marker: String,
    /// Segments with its marker, and what it added to the total of each.
    pub places: Vec<(SegmentId, f64)>,
    /// Segments whose total it made.
    pub totals: Vec<SegmentId>,
    /// Set when it carries a `done()`.
    pub ended: Option<Ended>,
    /// What became of it.
    pub fate: Outcome,
    /// How many disks were lost before it was made.
    pub losses: usize,
}

/// What a wait was asked for.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// Everything up to this commit.
    Flush(Seq),
    /// Everything.
    Version,
    /// What the relay had.
    Sync,
    /// A position of somebody.
    Reach,
}

/// Commits and waits by process.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Every commit.
    pub commits: BTreeMap<(usize, Seq), Written>,
    markers: u64,
    writing: Option<Written>,
    waits: BTreeMap<(usize, u64), Waiting>,
    /// Flushes that failed, until the refusal is told that they failed for, with its code, or what is in doubt.
    failing: Vec<(usize, Seq, Option<u64>)>,
    /// Whose process has seen which foreign commit.
    seen: BTreeSet<(usize, usize, Seq)>,
    /// How many flushes a refusal has failed, or a doubt.
    pub flushes_failed: usize,
    /// Processes that ended, with commits in their names: the first such number.
    ghosts: usize,
    /// It keeps no book: for worlds in which a replica id is no name of one process (clones).
    pub off: bool,
    /// Commits of nobody here: what they do is to be seen nowhere.
    pub hostile: BTreeSet<Uid>,
    /// How often the relay has lost commits that were acknowledged. Those that different replicas give back come in any order, and
    /// what was not resident where the rest of its commit was comes later, so P3 is not promised among them (CORE-PROTOCOL §14.2).
    pub losses: usize,
    /// Segments get new generations: of one that the relay has lost, replicas may be told that theirs has no place (§14.3), and of
    /// commits that they are in doubt (G4).
    pub rolls: bool,
    /// Who may not see any more what of a segment was durable on a disk that is lost: the program was told of a conflict. True: it
    /// has gone, and may come once more, to stay.
    parted: BTreeMap<(usize, SegmentId, Uid), bool>,
    /// Who was told of a conflict.
    conflicts: BTreeSet<usize>,
    /// Commits that had no answer when lines were dropped.
    aged: BTreeSet<(usize, Seq)>,
    /// What was durable on a disk that was lost, by itself or as a part of what was given back.
    pub durable: BTreeSet<Uid>,
}

/// Authors from here on are processes that have ended.
const GHOSTS: usize = 1 << 32;

/// The handle of a segment's total, if its program sees one.
pub fn total_of(mirror: &Mirror) -> Option<Handle> {
    let Object::Map(entries) = mirror.node(Handle(0)) else { return None };
    match entries.get(TOTAL) {
        Some(Shown::Object(Kind::Counter, handle)) => Some(*handle),
        _ => None,
    }
}

/// True if a random wish would change what only the ledger may change.
pub fn is_kept(mirror: &Mirror, wish: &Wish) -> bool {
    match wish {
        Wish::Delete { object: Handle(0), key } => key.starts_with('#'),
        Wish::Add { object, .. } => Some(*object) == total_of(mirror),
        _ => false,
    }
}

impl Ledger {
    /// A commit begins.
    pub fn begin(&mut self, at: usize) {
        if self.off {
            return;
        }
        self.markers += 1;
        let marker = format!("#{at}.{}", self.markers);
        let fate = Outcome::Open;
        let (uid, losses) = (Uid::NONE, self.losses);
        let (places, totals, ended) = (Vec::new(), Vec::new(), None);
        self.writing = Some(Written { uid, marker, places, totals, ended, fate, losses });
    }

    /// The wishes by which the commit leaves its marker in a segment and adds to its total, if there is one.
    pub fn mark(&mut self, id: SegmentId, mirror: &Mirror, by: f64) -> Vec<Wish> {
        let Some(writing) = &mut self.writing else { return Vec::new() };
        if !matches!(mirror.node(Handle(0)), Object::Map(_)) {
            return Vec::new();
        }
        let (key, value) = (writing.marker.clone(), Literal::Scalar(Value::Bool(true)));
        let mut wishes = vec![Wish::Set { object: Handle(0), key, value }];
        let total = total_of(mirror);
        wishes.extend(total.map(|object| Wish::Add { object, by }));
        writing.places.push((id, if total.is_some() { by } else { 0.0 }));
        wishes
    }

    /// The content of a new segment, its marker and total included.
    pub fn born(&mut self, id: SegmentId, mut entries: Vec<(String, Literal)>) -> Literal {
        if let Some(writing) = &mut self.writing {
            entries.push((writing.marker.clone(), Literal::Scalar(Value::Bool(true))));
            entries.push((TOTAL.to_owned(), Literal::Counter(0.0)));
            writing.places.push((id, 0.0));
            writing.totals.push(id);
        }
        Literal::Map(entries)
    }

    /// The commit makes a segment's total.
    pub fn makes_total(&mut self, id: SegmentId) {
        if let Some(writing) = &mut self.writing {
            writing.totals.push(id);
        }
    }

    /// The commit carries a `done()`.
    pub fn ends(&mut self, ended: Ended) {
        if let Some(writing) = &mut self.writing {
            writing.ended = Some(ended);
        }
    }

    /// A program waits for something.
    pub fn wait(&mut self, at: usize, ticket: u64, kind: &WaitKind) {
        if self.off {
            return;
        }
        let newest =
            self.commits.range((at, Seq(0))..(at + 1, Seq(0))).next_back().map_or(Seq(0), |((_, seq), _)| *seq);
        let waiting = match kind {
            WaitKind::Flush => Waiting::Flush(newest),
            WaitKind::Version => Waiting::Version,
            WaitKind::Sync => Waiting::Sync,
            WaitKind::Reach(_) => Waiting::Reach,
        };
        self.waits.insert((at, ticket), waiting);
    }

    fn of(&self, at: usize) -> impl Iterator<Item = (Seq, &Written)> {
        self.commits.range((at, Seq(0))..(at + 1, Seq(0))).map(|((_, seq), written)| (*seq, written))
    }

    /// A program is told something.
    pub fn hear(&mut self, at: usize, told: Told) {
        if self.off {
            return;
        }
        match told {
            Told::Committed(seq, uid) => {
                let mut writing = self.writing.take().expect("a program commits what it began");
                writing.uid = uid;
                assert!(self.commits.insert((at, seq), writing).is_none(), "a number is given once");
            }
            Told::Acked(upto) => {
                for (_, written) in self.commits.range_mut((at, Seq(0))..=(at, upto)) {
                    if written.fate == Outcome::Open {
                        written.fate = Outcome::Stands;
                    }
                }
            }
            Told::Refused(seq, code) => {
                let written = self.commits.get_mut(&(at, seq)).expect("what is refused was committed");
                assert_eq!(written.fate, Outcome::Open, "a commit is refused once, and not after its Ack");
                written.fate = Outcome::Refused(code);
                for (of, upto, because) in self.failing.drain(..) {
                    assert!(of == at && upto >= seq && because == Some(code), "a flush fails by what it waited for");
                }
                for ((of, ticket), waiting) in &self.waits {
                    let behind = *of == at && matches!(waiting, Waiting::Flush(upto) if *upto >= seq);
                    assert!(!behind, "flush {ticket} of replica {at} goes on after the refusal of {}", seq.0);
                }
            }
            Told::InDoubt(told) => {
                let first = *told.first().expect("something is in doubt");
                // A line was dropped, being idle (§2); or else only a log that is lost could say it: what was made since is in none, and lies behind what was made before.
                let oldest = self.commits.get(&(at, first)).expect("what is in doubt was committed");
                let may = self.rolls && oldest.losses < self.losses || self.aged.contains(&(at, first));
                assert!(may, "commit {} of replica {at} is in doubt: {oldest:?}", first.0);
                for seq in told {
                    let written = self.commits.get_mut(&(at, seq)).expect("what is in doubt was committed");
                    assert_eq!(written.fate, Outcome::Open, "what has ended is not in doubt");
                    assert!(seq >= first, "the oldest is told first");
                    written.fate = Outcome::InDoubt;
                }
                for (of, upto, because) in self.failing.drain(..) {
                    assert!(of == at && upto >= first && because.is_none(), "a flush fails by what it waited for");
                }
            }
            Told::Conflict(id, shown) => {
                let durable = |written: &&Written| self.durable.contains(&written.uid);
                let gone = self.commits.values().filter(durable).filter(|written| shown.contains(&written.marker));
                let gone: Vec<Uid> = gone.filter(|_| self.rolls).map(|written| written.uid).collect();
                self.parted.extend(gone.into_iter().map(|uid| ((at, id, uid), false)));
                self.conflicts.insert(at);
            }
            Told::Done(ticket) => {
                let waiting = self.waits.remove(&(at, ticket)).expect("a wait ends once");
                let upto = match waiting {
                    Waiting::Flush(upto) => upto,
                    Waiting::Version => Seq(u64::MAX),
                    Waiting::Sync | Waiting::Reach => Seq(0),
                };
                let open = self.of(at).find(|(seq, written)| *seq <= upto && written.fate == Outcome::Open);
                assert!(open.is_none(), "wait {ticket} of replica {at} ends before {open:?} is durable");
            }
            Told::Failed(ticket, error) => {
                let waiting = self.waits.remove(&(at, ticket)).expect("a wait ends once");
                match (waiting, error) {
                    (Waiting::Reach, WaitError::VersionLost) => return,
                    (Waiting::Flush(upto), WaitError::Refused(code)) => self.failing.push((at, upto, Some(code))),
                    (Waiting::Flush(upto), WaitError::InDoubt) => self.failing.push((at, upto, None)),
                    other => panic!("wait {ticket} of replica {at} fails: {other:?}"),
                }
                self.flushes_failed += 1;
            }
        }
    }

    /// A commit by its identity.
    pub fn by_uid(&self, uid: Uid) -> Option<(usize, &Written)> {
        self.commits.iter().find(|(_, written)| written.uid == uid).map(|((at, _), written)| (*at, written))
    }

    /// Lines that nobody goes by are dropped: what has no answer may be in doubt from here on.
    pub fn age(&mut self) {
        let open = self.commits.iter().filter(|(_, written)| written.fate == Outcome::Open);
        self.aged.extend(open.map(|(commit, _)| *commit));
    }

    /// A process was copied: what is not known yet of its commits, both copies will be told. Each counts once.
    pub fn copied(&mut self, from: usize, to: usize) {
        let own: Vec<_> = self.of(from).map(|(seq, written)| ((to, seq), written.clone())).collect();
        self.commits.extend(own);
        let waits: Vec<_> =
            self.waits.iter().filter(|((at, _), _)| *at == from).map(|((_, t), w)| ((to, *t), *w)).collect();
        self.waits.extend(waits);
        let seen: Vec<_> =
            self.seen.iter().filter(|(at, _, _)| *at == from).map(|(_, of, seq)| (to, *of, *seq)).collect();
        self.seen.extend(seen);
    }

    /// A process ended, and another one goes on from its store, which held these commits. What was not in it is as good as
    /// lost, unless the relay has it.
    pub fn restarted(&mut self, at: usize, stored: &[Uid]) {
        let ghost = GHOSTS + self.ghosts;
        self.ghosts += 1;
        self.waits.retain(|(of, _), _| *of != at);
        self.seen.retain(|(of, _, _)| *of != at);
        let own: Vec<_> = self.of(at).map(|(seq, written)| (seq, written.clone())).collect();
        self.commits.retain(|(of, _), _| *of != at);
        for (number, uid) in (1..).zip(stored) {
            let written = own.iter().map(|(_, written)| written).find(|written| written.uid == *uid);
            let written = written.expect("what is stored was committed").clone();
            self.commits.insert((at, Seq(number)), Written { fate: Outcome::Open, ..written });
        }
        self.seen = std::mem::take(&mut self.seen)
            .into_iter()
            .map(|(by, of, seq)| (by, if of == at { ghost } else { of }, seq))
            .collect();
        for (seq, written) in own {
            self.commits.insert((ghost, seq), written);
        }
    }

    /// Of what ended processes left, the log knows.
    pub fn bury(&mut self, log: &[LogEntry]) {
        for ((_, _), written) in self.commits.range_mut((GHOSTS, Seq(0))..) {
            if written.fate == Outcome::Open {
                let given = self.durable.contains(&written.uid) || is_given(log, written.uid);
                let ended = if given { Outcome::Lost } else { Outcome::Gone };
                written.fate = log.iter().find_map(|entry| fate_of(entry, written.uid)).unwrap_or(ended);
            }
        }
    }

    /// Whether a process has a `done()` of this key under way.
    pub fn is_ending(&self, at: usize, of_run: &str, of_key: &str) -> bool {
        self.of(at).any(|(_, written)| {
            written.fate == Outcome::Open
                && written.ended.as_ref().is_some_and(|Ended { run, key, .. }| run == of_run && key == of_key)
        })
    }

    /// How many commits were refused.
    pub fn refused(&self) -> usize {
        self.commits.values().filter(|written| matches!(written.fate, Outcome::Refused(_))).count()
    }

    /// How many commits are in doubt.
    pub fn in_doubt(&self) -> usize {
        self.commits.values().filter(|written| written.fate == Outcome::InDoubt).count()
    }

    /// For how many commits, by segment and viewer, a program was told that they may have lost their place.
    pub fn parted(&self) -> usize {
        self.parted.len()
    }

    /// Whether a program was told of a conflict.
    pub fn has_conflicts(&self, at: usize) -> bool {
        self.conflicts.contains(&at)
    }

    /// What every program sees now, against what it may see.
    pub fn look(&mut self, nodes: &[Node]) {
        let refused: BTreeSet<Uid> =
            self.commits.values().filter(|of| matches!(of.fate, Outcome::Refused(_))).map(|of| of.uid).collect();
        for (at, node) in nodes.iter().enumerate() {
            let shown = shown(node);
            for ((author, seq), written) in &self.commits {
                // What an ended process left refused in its store goes with the document that it is in. A copy that was made of
                // that process has the same commit in its own name, and may have ended before it was told.
                let undoing = |id: &SegmentId| {
                    let mut ended = self.commits.range((GHOSTS, Seq(0))..);
                    let left = refused.contains(&written.uid)
                        && *author != at
                        && ended.any(|(_, other)| other.uid == written.uid);
                    left && node.index(*id).is_some_and(|index| node.rebuilding.contains(&index))
                };
                let mut parted = BTreeSet::new();
                for (id, _) in &written.places {
                    let Some(gone) = self.parted.get_mut(&(at, *id, written.uid)) else { continue };
                    match shown.get(id).is_some_and(|markers| markers.contains(&written.marker)) {
                        true if *gone => drop(self.parted.remove(&(at, *id, written.uid))),
                        true => {}
                        false => {
                            *gone = true;
                            parted.insert(*id);
                        }
                    }
                }
                let here = written
                    .places
                    .iter()
                    .filter(|(id, _)| shown.contains_key(id) && !undoing(id) && !parted.contains(id));
                let (visible, hidden): (Vec<_>, Vec<_>) =
                    here.map(|(id, _)| id).partition(|id| shown[id].contains(&written.marker));
                let what = format!(
                    "commit {} of replica {author} ({:?}, {}, {:?}) at replica {at} ({})",
                    seq.0,
                    written.fate,
                    written.marker,
                    written.uid,
                    node.replica.id()
                );
                // Copies of a process, and those who took its commits over, are authors too; each is told for itself.
                let also = *author != at && self.of(at).any(|(_, own)| own.uid == written.uid);
                if also {
                    continue;
                }
                if *author == at {
                    match written.fate {
                        Outcome::Refused(_) => {
                            let rebuilt =
                                |id: &&&SegmentId| node.index(***id).is_none_or(|i| !node.rebuilding.contains(&i));
                            let left = visible.iter().find(rebuilt);
                            assert!(left.is_none(), "{what} is still seen in {left:?}");
                        }
                        Outcome::InDoubt => {}
                        Outcome::Open | Outcome::Stands | Outcome::Gone | Outcome::Lost => {
                            assert!(hidden.is_empty(), "{what} is not seen in {hidden:?}");
                        }
                    }
                    continue;
                }
                assert!(
                    self.losses > 0 || visible.is_empty() || hidden.is_empty(),
                    "P3: {what}: seen in {visible:?}, not in {hidden:?}"
                );
                if !visible.is_empty() {
                    assert!(!matches!(written.fate, Outcome::Refused(_) | Outcome::Gone), "{what} is seen");
                    self.seen.insert((at, *author, *seq));
                } else if !hidden.is_empty() {
                    assert!(!self.seen.contains(&(at, *author, *seq)), "P4: {what} has gone");
                }
            }
        }
    }

    /// A process is gone: of what was open, what the log has counts, and the rest was never seen by another (§14).
    pub fn died(&mut self, at: usize, log: &[LogEntry]) {
        self.waits.retain(|(of, _), _| *of != at);
        for (_, written) in self.commits.range_mut((at, Seq(0))..(at + 1, Seq(0))) {
            if written.fate == Outcome::Open {
                written.fate = log.iter().find_map(|entry| fate_of(entry, written.uid)).unwrap_or(Outcome::Gone);
            }
        }
    }

    /// What is left in the end: exactly the commits that stand, everywhere, and in the log.
    pub fn check(&self, nodes: &[Node], log: &[LogEntry]) {
        if self.off {
            return;
        }
        assert!(self.waits.is_empty(), "waits have not ended: {:?}", self.waits);
        assert!(self.failing.is_empty(), "flushes failed without a refusal: {:?}", self.failing);
        let mut expected: BTreeMap<SegmentId, (BTreeSet<&str>, Option<f64>)> = BTreeMap::new();
        // Each once, whoever was told of it.
        let mut standing = BTreeMap::new();
        let (mut lost, mut given) = (Vec::new(), BTreeMap::new());
        for ((author, seq), written) in &self.commits {
            match written.fate {
                Outcome::Open => panic!("commit {} of replica {author} is open", seq.0),
                Outcome::Refused(_) | Outcome::Gone => {
                    let seen = self.seen.iter().find(|(_, of, number)| of == author && number == seq);
                    assert!(seen.is_none(), "undone commit {} of replica {author} was seen: {seen:?}", seq.0);
                }
                Outcome::Stands => drop(standing.insert(written.uid, written)),
                Outcome::Lost | Outcome::InDoubt => lost.push(written),
            }
        }
        // Of what was lost with its author's process, is in doubt, or had no place where it was given back: what one process shows
        // of it, everybody shows, and counts once.
        let logged = parts_of(log);
        let parted = self.parted.keys().map(|(_, id, uid)| (*id, *uid));
        let parted: BTreeSet<(SegmentId, Uid)> = parted.filter(|part| !logged.contains(part)).collect();
        lost.retain(|written| !standing.contains_key(&written.uid));
        let lost = lost.into_iter().flat_map(|written| written.places.iter().map(move |place| (written, place)));
        let placeless = standing.values().flat_map(|written| {
            let places = written.places.iter().filter(|(id, _)| parted.contains(&(*id, written.uid)));
            places.map(|place| (*written, place))
        });
        for (written, (id, by)) in lost.chain(placeless) {
            let here = nodes.iter().any(|node| shown(node).get(id).is_some_and(|all| all.contains(&written.marker)));
            if here || logged.contains(&(*id, written.uid)) {
                given.insert((*id, written.uid), (written, *by));
            }
        }
        for ((id, _), (written, _)) in &given {
            let (markers, total) = expected.entry(*id).or_default();
            markers.insert(&written.marker);
            if written.totals.contains(id) {
                *total = Some(0.0);
            }
        }
        let stands = |written: &Written, id: SegmentId| !parted.contains(&(id, written.uid));
        for written in standing.values() {
            for (id, _) in written.places.iter().filter(|(id, _)| stands(written, *id)) {
                expected.entry(*id).or_default().0.insert(&written.marker);
            }
            for id in written.totals.iter().filter(|id| stands(written, **id)) {
                expected.entry(*id).or_default().1 = Some(0.0);
            }
        }
        for written in standing.values() {
            for (id, by) in written.places.iter().filter(|(id, _)| stands(written, *id)) {
                if let Some(total) = expected.get_mut(id).and_then(|(_, total)| total.as_mut()) {
                    *total += by;
                }
            }
        }
        for ((id, _), (_, by)) in &given {
            if let Some(total) = expected.get_mut(id).and_then(|(_, total)| total.as_mut()) {
                *total += by;
            }
        }
        for (at, node) in nodes.iter().enumerate() {
            for (id, _, mirror) in node.resident() {
                let (markers, total) = expected.get(&id).cloned().unwrap_or_default();
                let shown = markers_of(mirror);
                assert_eq!(shown.iter().map(String::as_str).collect::<BTreeSet<_>>(), markers, "{id} at replica {at}");
                let sum = total_of(mirror).map(|handle| match mirror.node(handle) {
                    Object::Counter(sum) => *sum,
                    other => panic!("a total is a counter, not {other:?}"),
                });
                assert_eq!(sum, total, "P6: the total of {id} at replica {at}");
            }
        }
        self.check_log(log);
    }

    fn check_log(&self, log: &[LogEntry]) {
        let mut logged = BTreeMap::new();
        for entry in log {
            let (uid, fate) = match entry {
                LogEntry::Commit(commit) => (commit.uid, Outcome::Stands),
                LogEntry::Void { uid, code, .. } => (*uid, Outcome::Refused(*code)),
                LogEntry::Restored(_) | LogEntry::Roll(_) | LogEntry::Quarantine(_) => continue,
            };
            if self.hostile.contains(&uid) {
                continue;
            }
            assert!(logged.insert(uid, fate).is_none(), "P6: commit {uid:?} is twice in the log");
        }
        let mut known: BTreeMap<_, _> =
            self.commits.values().filter(|one| one.fate != Outcome::Gone).map(|one| (one.uid, one.fate)).collect();
        for written in self.commits.values() {
            if self.losses > 0 && !logged.contains_key(&written.uid) || written.fate == Outcome::InDoubt {
                continue;
            }
            let fate = logged.get(&written.uid).copied().unwrap_or(Outcome::Gone);
            assert_eq!(fate, written.fate, "the log (left) and what an author was told of {written:?}");
        }
        if self.losses > 0 {
            // What was given back has no entry of its own any more.
            known.retain(|uid, _| logged.contains_key(uid));
            for (uid, fate) in known.iter_mut().filter(|(_, fate)| **fate == Outcome::InDoubt) {
                *fate = logged.get(uid).copied().filter(|fate| *fate == Outcome::Stands).unwrap_or(Outcome::Gone);
            }
        }
        // What is in doubt for an idle line is there, or is not.
        known.retain(|uid, fate| *fate != Outcome::InDoubt || logged.contains_key(uid));
        for (uid, fate) in known.iter_mut().filter(|(_, fate)| **fate == Outcome::InDoubt) {
            *fate = logged.get(uid).copied().unwrap_or(Outcome::Gone);
        }
        assert_eq!(logged, known, "the log (left) and what the authors were told");
    }
}

pub(crate) fn markers_of(mirror: &Mirror) -> BTreeSet<String> {
    let Object::Map(entries) = mirror.node(Handle(0)) else { return BTreeSet::new() };
    entries.keys().filter(|key| key.starts_with('#') && *key != TOTAL).cloned().collect()
}

fn shown(node: &Node) -> BTreeMap<SegmentId, BTreeSet<String>> {
    node.resident().map(|(id, _, mirror)| (id, markers_of(mirror))).collect()
}
