//! One replica's segment with its mirror: the pair that has to agree after every step.

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Edit, Handle, Literal, Shown, Wish};
use coheap_core::id::{ObjectId, SegmentId, Uid};
use coheap_core::segment::write::Draw;
use coheap_core::segment::{Overruled, Segment};
use coheap_core::value::Value;

use crate::Draws;
use crate::mirror::{Mirror, Node};
use crate::tree::Tree;

/// A commit that has not been sent yet.
#[derive(Clone, Debug)]
pub struct Unsent {
    /// Its identity, kept when it is redone.
    pub uid: Uid,
    /// What it does.
    pub edits: Vec<Edit>,
    /// Its change, by the writer of now.
    pub delta: Bytes,
}

/// A segment, its mirror, and what it has not sent.
#[derive(Debug)]
pub struct Peer {
    /// The segment.
    pub segment: Segment,
    /// What its program sees.
    pub mirror: Mirror,
    /// Commits the others have not heard of.
    pub unsent: Vec<Unsent>,
    /// What it was told to have lost to another kind (S2).
    pub overruled: Vec<Overruled>,
    /// Where its ids come from.
    pub draws: Draws,
    /// The writer it edits as.
    pub writer: u64,
    /// [`Peer::check`] does something. Off for those who want many commits: comparing takes most of the time.
    pub is_checked: bool,
    engine: EngineKind,
    steps: usize,
}

/// Mirrors of larger segments, and those that have been compared often, are compared at every sixteenth step, and whenever
/// replicas meet.
const LARGE: usize = 20_000;
const OFTEN: usize = 24;

/// A writer as the replica draws them: 53 bits.
pub fn draw_writer(draws: &mut Draws) -> u64 {
    draws.draw() >> 11
}

impl Peer {
    /// A replica that holds an empty segment.
    pub fn new(engine: EngineKind, id: SegmentId, seed: u64) -> Self {
        let mut draws = Draws(seed);
        let writer = draw_writer(&mut draws);
        let segment = Segment::new(id, engine, writer).expect("an empty segment");
        Peer {
            segment,
            mirror: Mirror::new(),
            unsent: Vec::new(),
            overruled: Vec::new(),
            draws,
            writer,
            is_checked: true,
            engine,
            steps: 0,
        }
    }

    /// One commit.
    pub fn edit(&mut self, wishes: Vec<Wish>) -> Bytes {
        for wish in &wishes {
            self.mirror.wish(wish);
        }
        let uid = Uid(self.draws.draw() | 1);
        let edited = self.segment.edit(wishes, uid, &mut self.draws).expect("a valid edit");
        self.mirror.apply(&edited.corrections);
        self.unsent.push(Unsent { uid, edits: edited.edits, delta: edited.delta.clone() });
        self.check_often();
        edited.delta
    }

    /// One commit of one wish.
    pub fn wish(&mut self, wish: Wish) -> Bytes {
        self.edit(vec![wish])
    }

    /// Deltas of others.
    pub fn apply(&mut self, deltas: &[Bytes]) {
        let patches = self.segment.apply(deltas).expect("a valid delta");
        self.mirror.apply(&patches);
        self.take_overruled();
        self.check_often();
    }

    /// What was lost is told once, and the mirror still shows it where nothing holds it any more.
    fn take_overruled(&mut self) {
        for told in self.segment.take_overruled() {
            assert!(!self.overruled.contains(&told), "told twice: {told:?}");
            assert_ne!(self.mirror.node(told.lost).kind(), told.kept);
            let shown = match self.mirror.node(told.parent) {
                Node::Map(entries) => entries.get(&told.key),
                other => panic!("{told:?} in {other:?}"),
            };
            assert!(matches!(shown, Some(Shown::Object(kind, _)) if *kind == told.kept), "{told:?}, shown {shown:?}");
            self.overruled.push(told);
        }
    }

    /// The document as stored.
    pub fn stored(&self) -> Vec<u8> {
        self.segment.encode()
    }

    /// A segment made of stored bytes and deltas, as another process would.
    pub fn load(&mut self, snapshot: &[u8], deltas: &[Bytes]) -> Segment {
        let (id, generation) = (self.segment.id(), self.segment.generation());
        let writer = draw_writer(&mut self.draws);
        Segment::decode(id, self.engine, generation, writer, snapshot, deltas).expect("stored bytes decode")
    }

    fn check_often(&mut self) {
        self.steps += 1;
        if (self.segment.size() < LARGE && self.steps <= OFTEN) || self.steps.is_multiple_of(16) {
            self.check();
        }
    }

    /// The mirror is never a second truth: it shows what a copy of the document shows.
    pub fn check(&mut self) {
        if !self.is_checked {
            return;
        }
        let snapshot = self.stored();
        let mut copy = self.load(&snapshot, &[]);
        let fresh = Mirror::of(&copy.show());
        assert_eq!(self.mirror.value(), fresh.value(), "a mirror (left) that its document (right) does not know");
        assert_eq!(self.mirror.nears(), fresh.nears(), "objects near others");
        assert_eq!(self.mirror.marks, fresh.marks);
    }

    /// The live segment shows all it holds, onto the mirror that is there: nothing changes, not even a handle.
    pub fn dump(&mut self) {
        let patches = self.segment.show();
        let fresh = Mirror::of(&patches);
        assert_eq!(self.mirror.reachable(), fresh.reachable(), "the handles of what is shown");
        let before = (self.mirror.value(), self.mirror.nears());
        self.mirror.apply(&patches);
        assert_eq!(before, (self.mirror.value(), self.mirror.nears()));
    }

    /// The segment gets another document under its handles, and what is unsent is redone in it.
    pub fn reload(&mut self, snapshot: &[u8], deltas: &[Bytes]) {
        let generation = self.segment.generation();
        self.writer = draw_writer(&mut self.draws);
        self.segment.replace(generation, self.writer, snapshot, deltas).expect("stored bytes decode");
        self.redo();
        let patches = self.segment.show();
        self.mirror.reset(&patches);
        self.segment.check_creations();
        self.take_overruled();
        self.check();
    }

    /// A new process: nothing is known but the stored document and the unsent edits.
    pub fn restart(&mut self, snapshot: &[u8], deltas: &[Bytes]) {
        self.segment = self.load(snapshot, deltas);
        self.redo();
        self.mirror = Mirror::of(&self.segment.show());
        self.check();
    }

    fn redo(&mut self) {
        for unsent in &mut self.unsent {
            unsent.delta = self.segment.redo(&unsent.edits, unsent.uid).expect("a redo");
        }
    }

    /// What its program sees.
    pub fn value(&self) -> Tree {
        self.mirror.value()
    }

    /// What an object last showed, whether or not it still has a place.
    pub fn last(&self, object: Handle) -> Tree {
        self.mirror.tree_at(object)
    }

    /// What its program sees under a path.
    pub fn at(&self, path: &str) -> Option<Tree> {
        self.value().at(path).cloned()
    }

    /// The object under a path.
    pub fn find(&self, path: &str) -> Handle {
        self.mirror.find(path)
    }

    /// The id of the object under a path.
    pub fn id(&self, path: &str) -> ObjectId {
        self.segment.object(self.find(path)).expect("an object").0
    }

    /// `path[key] = value`
    pub fn set(&mut self, path: &str, key: &str, value: Literal) {
        let object = self.find(path);
        self.wish(Wish::Set { object, key: key.to_owned(), value });
    }

    /// `path[key] ??= value`, as JavaScript does it.
    pub fn ensure(&mut self, path: &str, key: &str, value: Literal) {
        let step = if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") };
        if self.at(&step).is_none() {
            self.set(path, key, value);
        }
    }

    /// `alloc(value, { near })`
    pub fn near(&mut self, value: Literal) -> ObjectId {
        let object = self.draws.object();
        self.wish(Wish::Near { object, value });
        object
    }

    /// `initial: { key: value }`
    pub fn default(&mut self, path: &str, key: &str, value: Literal) {
        let object = self.find(path);
        self.wish(Wish::Default { object, key: key.to_owned(), value });
    }

    /// `delete path[key]`
    pub fn delete(&mut self, path: &str, key: &str) {
        let object = self.find(path);
        self.wish(Wish::Delete { object, key: key.to_owned() });
    }

    /// `path.splice(index, 0, ...values)`
    pub fn insert(&mut self, path: &str, index: u32, values: Vec<Literal>) {
        let object = self.find(path);
        self.wish(Wish::Insert { object, index, values });
    }

    /// `path.push(...values)`
    pub fn push(&mut self, path: &str, values: Vec<Literal>) {
        let index = self.at(path).map_or(0, |tree| tree.elements().len() as u32);
        self.insert(path, index, values);
    }

    /// `path.splice(index, count)`
    pub fn remove(&mut self, path: &str, index: u32, count: u32) {
        let object = self.find(path);
        self.wish(Wish::Remove { object, index, count });
    }

    /// `path[index] = value`
    pub fn put(&mut self, path: &str, index: u32, value: Literal) {
        let object = self.find(path);
        self.wish(Wish::Put { object, index, value });
    }

    /// `move(path, from, to)`
    pub fn shift(&mut self, path: &str, from: u32, to: u32) {
        let object = self.find(path);
        self.wish(Wish::Move { object, from, to });
    }

    /// `path.splice(index, removed, inserted)` of a text.
    pub fn splice(&mut self, path: &str, index: u32, removed: u32, inserted: &str) {
        let object = self.find(path);
        self.wish(Wish::Splice { object, index, removed, inserted: inserted.to_owned() });
    }

    /// `path.add(by)`
    pub fn add(&mut self, path: &str, by: f64) {
        let object = self.find(path);
        self.wish(Wish::Add { object, by });
    }

    /// `path.add(member)` of a set.
    pub fn include(&mut self, path: &str, member: &str) {
        let object = self.find(path);
        self.wish(Wish::Include { object, member: Value::Str(member.to_owned()) });
    }

    /// `path.delete(member)` of a set.
    pub fn exclude(&mut self, path: &str, member: &str) {
        let object = self.find(path);
        self.wish(Wish::Exclude { object, member: Value::Str(member.to_owned()) });
    }
}
