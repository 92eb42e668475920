//! A [`Cluster`] driven by hand: named replicas and segments, and a test that says every step. Nothing happens by itself: a
//! message arrives, the disk follows, a connection opens when the test says so.
//!
//! After every step everything is looked at ([`Witness`]): P2, P3, P4, P5 and P6 hold at each moment, not only in the end.
//! Scripts for it: [`crate::trace`].

use std::collections::BTreeMap;

use bytes::Bytes;
use coheap_core::commit::{ClaimOf, EngineKind};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{SegmentId, Seq, Uid};
use coheap_core::replica::{Input, Section, Target, WaitError, WaitKind};
use coheap_core::value::Value;

use crate::cluster::Cluster;
use crate::disk::PlainDisk;
use crate::mirror::Mirror;
use crate::sharer::{KEYS, is_partition, partition};
use crate::tree::Tree;
use crate::witness::Witness;

/// The key of the counter that every segment of a stage is made with.
pub const COUNTER: &str = "n";

/// Replicas and segments by name, around one relay.
#[derive(Debug)]
pub struct Stage {
    /// The world.
    pub cluster: Cluster,
    witness: Witness,
    replicas: BTreeMap<String, usize>,
    segments: BTreeMap<String, SegmentId>,
    commits: BTreeMap<String, Commit>,
    waits: BTreeMap<String, (usize, u64)>,
    kept: BTreeMap<String, Bytes>,
    copy: Option<PlainDisk>,
}

/// A commit that a script speaks of: whose, its number there, and its identity.
#[derive(Clone, Copy, Debug)]
struct Commit {
    at: usize,
    seq: Seq,
    uid: Uid,
}

/// What became of a wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Nothing yet.
    Waiting,
    /// It has what it wanted, at this version.
    Done(String),
    /// It will never have it.
    Failed(WaitError),
}

impl Stage {
    /// A relay without a log, and replicas that are not connected.
    pub fn new(replicas: &[&str]) -> Stage {
        let cluster = Cluster::new(1, replicas.len());
        let replicas = replicas.iter().map(|name| (*name).to_owned()).zip(0..).collect();
        let segments = BTreeMap::from([("root".to_owned(), SegmentId::ROOT)]);
        let (commits, waits, kept) = Default::default();
        Stage { cluster, witness: Witness::default(), replicas, segments, commits, waits, kept, copy: None }
    }

    /// Looks at everything.
    pub fn look(&mut self) {
        self.witness.look(&mut self.cluster);
    }

    /// The number of a replica.
    pub fn at(&self, name: &str) -> usize {
        *self.replicas.get(name).unwrap_or_else(|| panic!("no replica is called {name}"))
    }

    fn id(&self, segment: &str) -> SegmentId {
        *self.segments.get(segment).unwrap_or_else(|| panic!("no segment is called {segment}"))
    }

    /// The segment and its mirror at a replica that has it here.
    fn here(&self, at: usize, segment: &str) -> (Index, &Mirror) {
        let node = &self.cluster.nodes[at];
        let index = node.index(self.id(segment));
        let found = index.and_then(|index| Some((index, node.mirrors.get(&index)?)));
        found.unwrap_or_else(|| panic!("{segment} is not here"))
    }

    /// The index of a segment that is here.
    pub fn index(&self, name: &str, segment: &str) -> Index {
        self.here(self.at(name), segment).0
    }

    /// Something is under way to this replica.
    pub fn is_under_way(&self, name: &str) -> bool {
        !self.cluster.nodes[self.at(name)].down.is_empty()
    }

    /// What a program sees of a segment, if it is here.
    pub fn mirror(&self, name: &str, segment: &str) -> Option<&Mirror> {
        self.cluster.nodes[self.at(name)].mirror(self.id(segment))
    }

    /// A replica makes a segment with a counter in it, and points to it from the root, in one commit. The others do not load it.
    pub fn create(&mut self, name: &str, segment: &str, engine: EngineKind) {
        let entries = vec![(COUNTER.to_owned(), Literal::Counter(0.0))];
        let id = self.cluster.alloc(self.at(name), engine, segment, entries);
        self.segments.insert(segment.to_owned(), id);
        self.look();
    }

    /// The name of a segment that nobody has to make: its id is derived.
    pub fn derived(&mut self, segment: &str) {
        let taken = self.segments.values().filter(|id| is_partition(**id)).count();
        self.segments.insert(segment.to_owned(), partition(KEYS[taken]));
    }

    /// A replica makes a segment under a name that there is, with an engine of its choice, and these are its first values.
    pub fn make(&mut self, name: &str, label: &str, engine: EngineKind, changes: &[(String, Change)]) {
        let (at, id) = (self.at(name), self.id(&changes[0].0));
        let object = Handle(0);
        let wishes = changes.iter().map(|(segment, change)| {
            assert_eq!(self.id(segment), id, "one segment is made at a time");
            match change.clone() {
                Change::Set(key, value) => Wish::Set { object, key, value },
                other => panic!("a new segment has nothing yet: {other:?}"),
            }
        });
        let wishes = wishes.collect();
        let before = self.cluster.nodes[at].committed;
        self.cluster.make(at, id, engine, wishes);
        self.name_newest(at, label, before);
    }

    /// Segments that everybody has, and everything at rest: where a trace begins.
    pub fn prepare(&mut self, segments: &[&str], engine: EngineKind) {
        self.settle();
        let first = self.replicas.iter().find(|(_, at)| **at == 0).map(|(name, _)| name.clone()).unwrap_or_default();
        for segment in segments {
            self.create(&first, segment, engine);
        }
        self.settle();
        for name in self.replicas.keys().cloned().collect::<Vec<_>>() {
            for segment in segments {
                if self.mirror(&name, segment).is_none() {
                    self.load(&name, segment);
                }
            }
        }
        self.settle();
    }

    /// What a program's commit does: to a segment, a key gets a value or goes, or a counter counts.
    pub fn commit(&mut self, name: &str, label: &str, changes: &[(String, Change)]) {
        self.commit_on(name, label, changes, None);
    }

    /// A commit with a `done()` on a claim that nobody holds: the relay refuses it, whoever sends it.
    pub fn commit_stale(&mut self, name: &str, label: &str, changes: &[(String, Change)]) {
        let (group, run, key) = ("work".to_owned(), "1".to_owned(), label.to_owned());
        self.commit_on(name, label, changes, Some(&ClaimOf { group, run, key, grant: 1 }));
    }

    fn commit_on(&mut self, name: &str, label: &str, changes: &[(String, Change)], claim: Option<&ClaimOf>) {
        let at = self.at(name);
        let mut sections: Vec<(Index, Vec<Wish>)> = Vec::new();
        for (segment, change) in changes {
            let (index, mirror) = self.here(at, segment);
            let object = Handle(0);
            let wish = match change.clone() {
                Change::Set(key, value) => Wish::Set { object, key, value },
                Change::Delete(key) => Wish::Delete { object, key },
                Change::Add(path, by) => Wish::Add { object: mirror.find(&path), by },
            };
            match sections.iter_mut().find(|(of, _)| *of == index) {
                Some((_, wishes)) => wishes.push(wish),
                None => sections.push((index, vec![wish])),
            }
        }
        let before = self.cluster.nodes[at].committed;
        self.cluster.commit_on(at, sections, claim);
        self.name_newest(at, label, before);
    }

    /// What a replica has committed since this number gets its name.
    fn name_newest(&mut self, at: usize, label: &str, before: Seq) {
        let seq = self.cluster.nodes[at].committed;
        assert!(seq > before, "the commit was not made: {:?}", self.cluster.nodes[at].problems);
        let uid = self.cluster.nodes[at].replica.unsaved_uids().pop().expect("a new commit is not acknowledged");
        self.commits.insert(label.to_owned(), Commit { at, seq, uid });
        self.look();
    }

    /// A commit that cannot be made when half of it is done: nothing of it stays, and the relay is asked for the segment, since
    /// only it has the state of before.
    pub fn commit_in_vain(&mut self, name: &str, segment: &str) {
        let at = self.at(name);
        let (index, _) = self.here(at, segment);
        let wish = |object| Wish::Set { object, key: "half".into(), value: Literal::Scalar(Value::Bool(true)) };
        let wishes = vec![wish(Handle(0)), wish(Handle(u32::MAX))];
        let sections = vec![Section { target: Target::Here(index), claim: None, wishes }];
        self.cluster.input(at, Input::Commit { label: String::new(), sections, size: 0, entropy: 0 });
        let problem = self.cluster.nodes[at].problems.pop().expect("it was not made");
        assert!(problem.starts_with("error ERR_ENGINE: the commit was not made"), "{problem}");
        self.look();
    }

    /// A replica's messages reach the relay, at most so many.
    pub fn up(&mut self, name: &str, most: usize) {
        let at = self.at(name);
        for _ in 0..most {
            if self.cluster.nodes[at].up.is_empty() {
                break;
            }
            self.cluster.deliver_up(at);
            self.look();
        }
    }

    /// The relay's messages reach a replica, at most so many; further ones that come of it as well.
    pub fn down(&mut self, name: &str, most: usize) {
        let at = self.at(name);
        for _ in 0..most {
            if self.cluster.nodes[at].down.is_empty() {
                break;
            }
            self.cluster.deliver_down(at);
            self.look();
        }
    }

    /// The oldest message under way to the relay, or from it, arrives twice. No link does that; a rule must not need that.
    pub fn repeat_up(&mut self, name: &str) {
        let at = self.at(name);
        let message = self.cluster.nodes[at].up.front().cloned().expect("a message is under way");
        self.cluster.nodes[at].up.push_front(message);
        self.up(name, 2);
    }

    /// The oldest message to the relay is lost, and the connection goes on. No link does that either.
    pub fn drop_up(&mut self, name: &str) {
        let at = self.at(name);
        self.cluster.nodes[at].up.pop_front().expect("a message is under way");
    }

    /// The oldest message to the replica is lost, and the connection goes on.
    pub fn drop_down(&mut self, name: &str) {
        let at = self.at(name);
        self.cluster.nodes[at].down.pop_front().expect("a message is under way");
    }

    /// All that is under way to the replica is lost, and the connection goes on.
    pub fn drop_all_down(&mut self, name: &str) {
        let at = self.at(name);
        assert!(!self.cluster.nodes[at].down.is_empty(), "nothing is under way");
        self.cluster.nodes[at].down.clear();
    }

    /// Somebody who is no replica commits so many changes to a segment that no engine takes in (R12).
    pub fn stranger(&mut self, segment: &str, changes: usize) {
        self.cluster.harms = true;
        self.cluster.harm_again(self.id(segment), changes);
        self.look();
    }

    /// The relay is to make a new generation of a segment.
    pub fn roll(&mut self, segment: &str) {
        self.cluster.roll(self.id(segment));
        self.look();
    }

    /// The disk follows, by at most so many appends.
    pub fn sync(&mut self, most: usize) {
        self.cluster.sync_some(most);
        self.look();
    }

    /// The store answers what the relay asked it, at most so many.
    pub fn read(&mut self, most: usize) {
        for _ in 0..most {
            if self.cluster.reads.is_empty() {
                break;
            }
            self.cluster.answer_read();
            self.look();
        }
    }

    /// The disk has no room for what is not synced.
    pub fn fill_disk(&mut self) {
        self.cluster.fill_disk();
        self.look();
    }

    /// All that is durable is folded.
    pub fn fold(&mut self) {
        self.cluster.fold();
        self.look();
    }

    /// A connection opens; its Hello is under way.
    pub fn connect(&mut self, name: &str) {
        self.cluster.connect(self.at(name));
        self.look();
    }

    /// A connection opens, and everything that the Hello leads to arrives: another connection, where the answer makes it say more.
    pub fn join(&mut self, name: &str) {
        let at = self.at(name);
        let mut still = 0;
        while still < 2 {
            still += 1;
            self.cluster.connect(at);
            // The Hello alone: what comes behind it is under way.
            if !self.cluster.nodes[at].online {
                self.up(name, 1);
            }
            self.read(usize::MAX);
            while !self.cluster.nodes[at].online && !self.cluster.nodes[at].down.is_empty() {
                self.down(name, 1);
                still = 0;
            }
        }
        assert!(self.cluster.nodes[at].online, "the Hello is not answered");
    }

    /// A connection breaks, and what was under way is lost.
    pub fn cut(&mut self, name: &str) {
        self.cluster.disconnect(self.at(name));
        self.look();
    }

    /// The relay's process dies; the first appends that were not synced had reached the disk all the same.
    pub fn crash(&mut self, kept: usize) {
        self.cluster.kill_relay(kept);
        self.look();
    }

    /// A relay begins over what is on the disk.
    pub fn start(&mut self) {
        self.cluster.start_relay();
        self.look();
    }

    /// A relay begins over what is known to be a backup: for so long it admits nothing.
    pub fn start_over_a_backup(&mut self, ms: u64) {
        self.cluster.start_relay_over_a_backup(ms);
        self.look();
    }

    /// A program needs a segment.
    pub fn load(&mut self, name: &str, segment: &str) {
        self.cluster.load(self.at(name), self.id(segment));
        self.look();
    }

    /// A program no longer needs a segment.
    pub fn evict(&mut self, name: &str, segment: &str) {
        let at = self.at(name);
        let (index, _) = self.here(at, segment);
        self.cluster.input(at, Input::Evict(index));
        self.look();
    }

    /// A program does not need a segment for now.
    pub fn pack(&mut self, name: &str, segment: &str, mirrored: bool) {
        let at = self.at(name);
        let (segment, _) = self.here(at, segment);
        self.cluster.nodes[at].forgets = !mirrored;
        self.cluster.input(at, Input::Pack { segment, mirrored });
        self.look();
    }

    /// A program no longer needs a segment, and keeps what is here of it under a name.
    pub fn evict_keeping(&mut self, name: &str, segment: &str, copy: &str) {
        let at = self.at(name);
        let (index, _) = self.here(at, segment);
        self.cluster.input(at, Input::EvictKeeping(index));
        let bytes = self.cluster.nodes[at].copied.pop().expect("there is a copy of what the log knows");
        self.kept.insert(copy.to_owned(), bytes);
        self.look();
    }

    /// A program needs a segment, and somebody has kept this of it.
    pub fn load_from(&mut self, name: &str, segment: &str, copy: &str) {
        let at = self.at(name);
        let copy = self.kept.get(copy).unwrap_or_else(|| panic!("nothing is kept as {copy}")).clone();
        self.cluster.nodes[at].onto_copies.get_or_insert(0);
        self.cluster.input(at, Input::LoadFrom { segment: self.id(segment), derived: false, copy });
        self.look();
    }

    /// How many answers that reached a replica went on from what it had kept.
    pub fn onto_copies(&self, name: &str) -> usize {
        self.cluster.nodes[self.at(name)].onto_copies.unwrap_or(0)
    }

    /// Connections of this replica have the right to write, or not, from the next one on.
    pub fn rights(&mut self, name: &str, can_write: bool) {
        let at = self.at(name);
        self.cluster.nodes[at].can_write = can_write;
    }

    /// The replica goes on in another instance, by its bytes: its connection is lost, nothing else.
    pub fn moves(&mut self, name: &str) {
        self.cluster.move_replica(self.at(name));
        self.look();
    }

    /// The process dies, without a store, and another one opens the heap under its name.
    pub fn restart(&mut self, name: &str) {
        self.kill(name);
        let at = self.cluster.open();
        self.replicas.insert(name.to_owned(), at);
        self.look();
    }

    /// The process dies, without a store.
    pub fn kill(&mut self, name: &str) {
        let at = self.at(name);
        self.cluster.kill(at);
        self.replicas.remove(name);
        self.look();
    }

    /// A copy of the process comes to be, under the same replica id. What it holds is the same, the state of its randomness too;
    /// neither of the two has a connection. What becomes of a commit `c` at the copy is `c@copy`.
    pub fn clone_of(&mut self, name: &str, copy: &str) {
        let of = self.at(name);
        let at = self.cluster.copy_process(of);
        let own = self.commits.iter().filter(|(_, commit)| commit.at == of);
        let too: Vec<_> = own.map(|(label, commit)| (format!("{label}@{copy}"), Commit { at, ..*commit })).collect();
        self.commits.extend(too);
        self.replicas.insert(copy.to_owned(), at);
        self.look();
    }

    /// The replica stores what it is.
    pub fn store(&mut self, name: &str) {
        self.cluster.store(self.at(name));
    }

    /// The process ends, and another one under its name opens its store, which is as it was when it was stored. A commit that is
    /// not in the store as unacknowledged is nobody's any more.
    pub fn reopen(&mut self, name: &str) {
        let at = self.at(name);
        assert!(self.cluster.nodes[at].stored.is_some(), "{name} has stored nothing");
        self.cluster.restart(at);
        let stored: BTreeMap<Uid, Seq> =
            self.cluster.nodes[at].replica.unsaved_uids().into_iter().zip((1..).map(Seq)).collect();
        self.commits.retain(|_, commit| commit.at != at || stored.contains_key(&commit.uid));
        for commit in self.commits.values_mut().filter(|commit| commit.at == at) {
            commit.seq = stored[&commit.uid];
        }
        self.look();
    }

    /// Somebody copies the disk as it is, without what is not synced.
    pub fn copy_disk(&mut self) {
        self.copy = Some(self.cluster.disk.clone());
    }

    /// The relay is down, and its disk is as it was when it was copied. [`Stage::start`] comes next.
    pub fn roll_back(&mut self) {
        let copy = self.copy.clone().expect("the disk was copied");
        self.cluster.change_disk(copy);
    }

    /// The relay is down, and its disk is empty. [`Stage::start`] comes next.
    pub fn wipe(&mut self) {
        self.cluster.change_disk(PlainDisk::default());
    }

    /// A program waits for something.
    pub fn wait(&mut self, name: &str, label: &str, kind: WaitKind) {
        let at = self.at(name);
        self.cluster.wait(at, kind);
        self.waits.insert(label.to_owned(), (at, self.cluster.tickets));
        self.look();
    }

    /// What became of a wait.
    pub fn ended(&self, label: &str) -> Ended {
        let (at, ticket) = *self.waits.get(label).unwrap_or_else(|| panic!("no wait is called {label}"));
        match self.cluster.nodes[at].ended.get(&ticket) {
            None => Ended::Waiting,
            Some(Ok(version)) => Ended::Done(version.clone()),
            Some(Err(error)) => Ended::Failed(*error),
        }
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        self.cluster.pass(ms);
        self.look();
    }

    /// So many days pass that lines which nobody goes by are dropped (§2).
    pub fn age(&mut self) {
        self.cluster.ledger.age();
        self.pass(40 * 24 * 3_600_000);
    }

    /// Everything arrives.
    pub fn settle(&mut self) {
        self.cluster.settle();
        self.look();
    }

    /// What a program sees of a segment, as text: `{"n":0,"x":1}`, keys in order, the marks of the ledger left out.
    pub fn shows(&self, name: &str, segment: &str) -> Option<String> {
        let mirror = self.mirror(name, segment)?;
        let tree = match mirror.value() {
            Tree::Map(entries) => Tree::Map(
                entries.into_iter().filter(|(key, _)| !key.starts_with('#') && !self.is_segment(key)).collect(),
            ),
            other => other,
        };
        Some(text_of(&tree))
    }

    /// The root holds its segments under their names.
    fn is_segment(&self, key: &str) -> bool {
        self.segments.contains_key(key)
    }

    /// How many commits of a replica are not acknowledged.
    pub fn pending(&self, name: &str) -> usize {
        self.cluster.nodes[self.at(name)].replica.unsaved()
    }

    /// What the author was told of a commit: `open`, `saved`, `refused` or `doubt`.
    pub fn fate(&self, label: &str) -> &'static str {
        let Commit { at, seq, .. } = *self.commits.get(label).unwrap_or_else(|| panic!("no commit is called {label}"));
        let node = &self.cluster.nodes[at];
        if node.doubted.contains(&seq) {
            return "doubt";
        }
        match (node.refused.contains_key(&seq), node.acked >= seq) {
            (true, _) => "refused",
            (_, true) => "saved",
            _ => "open",
        }
    }
}

/// What a commit changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// A key of the segment's first object gets a value.
    Set(String, Literal),
    /// A key of it goes.
    Delete(String),
    /// A counter under a path counts.
    Add(String, f64),
}

fn text_of(tree: &Tree) -> String {
    match tree {
        Tree::Scalar(value) | Tree::Counter(value) => scalar(&value.0),
        Tree::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key:?}:{}", text_of(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Tree::List(values) => format!("[{}]", values.iter().map(text_of).collect::<Vec<_>>().join(",")),
        Tree::Text(text) => format!("{text:?}"),
        Tree::Set(members) => {
            format!("<{}>", members.iter().map(|member| scalar(&member.0)).collect::<Vec<_>>().join(","))
        }
        Tree::Loop => "loop".to_owned(),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Str(text) => format!("{text:?}"),
        other => format!("{other:?}"),
    }
}
