//! Objects over registers: what a key shows, how an edit is written, what a change means to a mirror. `SEGMENT.md` §4.
//!
//! Engine-neutral: it sees only the name spaces of [`super::engine`]. What it keeps are indexes of things that registers
//! cannot be asked for by name (which bases, writers, list slots an object has), and the handles that JavaScript knows.
//! `write.rs` beside this file turns wishes into edits and edits into registers; `show.rs` turns changes into patches.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::creations::{Creations, Overruled};
use super::engine::{Raw, Read};
use super::layout;
use super::list::List;
use super::show::Report;
use crate::edit::Handle;
use crate::id::{ObjectId, SegmentId};
use crate::value::{Identity, Kind, Value, exact_integer};

/// What a mirror's node of an object is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// It shows what the object holds.
    Shown,
    /// A new, empty node; what the object holds is about to follow.
    Due,
    /// A node with what the object once held; it is about to be cleared and filled.
    DueAnew,
    /// A node with what the object once held, or was meant to hold.
    Stale,
}

/// An object that a mirror knows.
#[derive(Debug)]
pub struct Object {
    /// Its id.
    pub id: ObjectId,
    /// Its kind.
    pub kind: Kind,
    /// The prefix of its registers.
    pub prefix: String,
    /// Its slots, if it is a list.
    pub list: Option<Box<List>>,
    /// Its length in UTF-16 units, if it is a text.
    pub length: u32,
    /// What the mirror knows of it.
    pub sight: Sight,
}

/// What is needed while edits are redone in a document that no mirror has seen yet.
#[derive(Debug)]
pub(super) struct Redo {
    /// Handles above these are borrowed until the document is shown.
    pub handles: usize,
    /// The document's registers.
    pub report: Report,
    /// The texts that edits speak of, in UTF-16.
    pub texts: BTreeMap<ObjectId, Vec<u16>>,
}

/// What is known of a segment's objects.
#[derive(Debug)]
pub struct Objects {
    pub(super) segment: SegmentId,
    /// The writer, as counters name it.
    pub(super) writer: String,
    pub(super) table: Vec<Object>,
    pub(super) by_id: BTreeMap<(ObjectId, Kind), Handle>,
    /// Suffixes of the bases of objects whose creation met.
    pub(super) bases: BTreeMap<ObjectId, BTreeSet<String>>,
    /// Who has added to a counter.
    pub(super) writers: BTreeMap<ObjectId, BTreeSet<String>>,
    /// Objects that have registers but are not shown anywhere yet.
    pub(super) orphans: BTreeSet<ObjectId>,
    /// Lists and texts that this replica has just made.
    pub(super) unwatched: Vec<Handle>,
    /// Set while edits are redone.
    pub(super) redo: Option<Redo>,
    /// What this replica put under absent keys.
    pub(super) creations: Creations,
    /// Those of them that others won over, until somebody asks.
    pub(super) overruled: Vec<Overruled>,
    last_base: RefCell<Option<(ObjectId, BTreeMap<String, Value>)>>,
}

/// Bases from this size on are worth keeping as a map for a while.
const LARGE_BASE: usize = 1024;

impl Objects {
    /// Nothing but the first object, a map until told otherwise.
    pub fn new(segment: SegmentId, writer: u64) -> Self {
        let mut objects = Objects {
            segment,
            writer: layout::short(writer),
            table: Vec::new(),
            by_id: BTreeMap::new(),
            bases: BTreeMap::new(),
            writers: BTreeMap::new(),
            orphans: BTreeSet::new(),
            unwatched: Vec::new(),
            redo: None,
            creations: Creations::default(),
            overruled: Vec::new(),
            last_base: RefCell::new(None),
        };
        let first = objects.enter(segment.first(), Kind::Map, Sight::Stale);
        objects.by_id.insert((segment.first(), Kind::Map), first);
        objects
    }

    /// The next handle, for an object. Nothing is found under it unless `by_id` says so too.
    pub(super) fn enter(&mut self, id: ObjectId, kind: Kind, sight: Sight) -> Handle {
        let handle = Handle(u32::try_from(self.table.len()).unwrap_or(u32::MAX));
        let prefix = layout::prefix(self.segment, id);
        self.table.push(Object { id, kind, prefix, list: None, length: 0, sight });
        handle
    }

    /// A container that this replica makes. The mirror has made its node already, so an older node of this object (its
    /// creation was undone, and now happens again) is no longer the one to speak of.
    pub(super) fn make(&mut self, id: ObjectId, kind: Kind) {
        let handle = self.enter(id, kind, Sight::Shown);
        if let Some(old) = self.by_id.insert((id, kind), handle).and_then(|old| self.object_mut(old)) {
            old.sight = Sight::Stale;
            old.list = None;
        }
        if matches!(kind, Kind::List | Kind::Text) {
            self.unwatched.push(handle);
        }
    }

    /// Takes handles back: what they were given for did not happen.
    pub(super) fn truncate(&mut self, handles: usize) {
        self.table.truncate(handles);
        self.unwatched.clear();
        self.by_id.retain(|_, handle| (handle.0 as usize) < handles);
        // The newest of those that an object has is the one to speak of.
        for (handle, object) in self.table.iter().enumerate().rev() {
            self.by_id.entry((object.id, object.kind)).or_insert(Handle(handle as u32));
        }
    }

    /// The object of a handle.
    pub fn object(&self, handle: Handle) -> Option<&Object> {
        self.table.get(handle.0 as usize)
    }

    pub(super) fn object_mut(&mut self, handle: Handle) -> Option<&mut Object> {
        self.table.get_mut(handle.0 as usize)
    }

    /// The object of a handle, where two handles may have been given to one object.
    pub(super) fn canonical(&self, handle: Handle) -> Option<&Object> {
        let object = self.object(handle)?;
        self.by_id.get(&(object.id, object.kind)).and_then(|handle| self.object(*handle))
    }

    /// The handle of an object, whatever its kind.
    pub fn find(&self, id: ObjectId) -> Option<Handle> {
        let kinds = [Kind::Map, Kind::List, Kind::Text, Kind::Counter, Kind::Set];
        kinds.iter().find_map(|kind| self.by_id.get(&(id, *kind))).copied()
    }

    /// How many handles have been given out.
    pub fn handles(&self) -> usize {
        self.table.len()
    }

    /// The kind of the first object.
    pub fn first_kind(&self) -> Kind {
        self.table.first().map_or(Kind::Map, |first| first.kind)
    }

    /// The first object turns out to be of this kind; `true` if that is news.
    pub(super) fn set_first_kind(&mut self, kind: Kind) -> bool {
        let Some(first) = self.table.first_mut().filter(|first| first.kind != kind) else { return false };
        self.by_id.remove(&(first.id, first.kind));
        first.kind = kind;
        first.list = None;
        first.length = 0;
        self.by_id.insert((first.id, kind), Handle(0));
        true
    }

    /// The first object is as a mirror has it that knows nothing: empty.
    pub(super) fn nothing_to_show(&mut self) {
        if let Some(first) = self.table.first_mut() {
            first.sight = Sight::Shown;
        }
    }

    pub(super) fn prefix(&self, id: ObjectId) -> String {
        layout::prefix(self.segment, id)
    }
}

/// How many lives of a key have ended. The marks are contiguous, so doubling and halving find the last one.
pub fn lives(tx: &dyn Read, prefix: &str, key: &str) -> u64 {
    let ended = |n: u64| tx.get(&layout::life_name(prefix, n, key)).is_some();
    if !ended(1) {
        return 0;
    }
    let mut low = 1;
    while low < u64::MAX / 2 && ended(low * 2) {
        low *= 2;
    }
    let mut high = low * 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if ended(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

impl Objects {
    /// The bases of an object, the strongest first.
    pub(super) fn bases_of(&self, tx: &dyn Read, id: ObjectId, prefix: &str) -> Vec<Raw> {
        let mut bases = Vec::new();
        if let Some(suffixes) = self.bases.get(&id) {
            for suffix in suffixes.iter().rev() {
                bases.extend(tx.get(&layout::name(prefix, layout::BASE, suffix)));
            }
        }
        bases.extend(tx.get(&layout::name(prefix, layout::BASE, "")));
        bases
    }

    /// What a key of a map (or a member of a set) shows.
    pub(super) fn effective(&self, tx: &dyn Read, id: ObjectId, prefix: &str, key: &str) -> Option<Value> {
        if let Some(value) = tx.get(&layout::name(prefix, layout::VALUE, key)).and_then(layout::value_of) {
            return Some(value);
        }
        if tx.get(&layout::life_name(prefix, 1, key)).is_some() {
            return None;
        }
        self.base_entry(tx, id, prefix, key)
            .or_else(|| tx.get(&layout::name(prefix, layout::DEFAULT, key)).and_then(layout::value_of))
    }

    /// What an object was created with under a key. The last large base is kept as a map: edits of one object, and its
    /// showing, ask for many keys.
    fn base_entry(&self, tx: &dyn Read, id: ObjectId, prefix: &str, key: &str) -> Option<Value> {
        if let Some((_, entries)) = self.last_base.borrow().as_ref().filter(|(of, _)| *of == id) {
            return entries.get(key).cloned();
        }
        let bases = self.bases_of(tx, id, prefix);
        let size: usize = bases.iter().map(|base| if let Raw::Bytes(bytes) = base { bytes.len() } else { 0 }).sum();
        if size < LARGE_BASE {
            let mut found = None;
            for base in &bases {
                layout::each_base_entry(base, &mut |entry, bytes| {
                    if entry == key {
                        found = Value::decode_tagged(bytes).ok();
                    }
                    found.is_none()
                });
                if found.is_some() {
                    break;
                }
            }
            return found;
        }
        let mut entries: BTreeMap<String, Value> = BTreeMap::new();
        for base in &bases {
            layout::each_base_entry(base, &mut |entry, bytes| {
                if let Ok(value) = Value::decode_tagged(bytes) {
                    entries.entry(entry.to_owned()).or_insert(value);
                }
                true
            });
        }
        let found = entries.get(key).cloned();
        *self.last_base.borrow_mut() = Some((id, entries));
        found
    }

    /// A base came: none that is kept says all any more.
    pub(super) fn forget_base(&self) {
        *self.last_base.borrow_mut() = None;
    }

    /// A counter's value, and whether it is the same in whatever order its parts are added: they are whole numbers, and so few
    /// and small that every sum of some of them is exact.
    pub(super) fn total(&self, tx: &dyn Read, id: ObjectId, prefix: &str) -> (f64, bool) {
        let base = self.bases_of(tx, id, prefix).iter().find_map(layout::number_of);
        let default = || tx.get(&layout::name(prefix, layout::DEFAULT, "")).as_ref().and_then(layout::number_of);
        let mut total = base.or_else(default).unwrap_or(0.0);
        let (mut whole, mut reach) = (total.trunc() == total, total.abs());
        for writer in self.writers.get(&id).into_iter().flatten() {
            let sum = tx.get(&layout::name(prefix, layout::SUM, writer));
            let sum = sum.as_ref().and_then(layout::number_of).unwrap_or(0.0);
            whole &= sum.trunc() == sum;
            (total, reach) = (total + sum, reach + sum.abs());
        }
        (total, whole && exact_integer(reach).is_some())
    }

    /// The handle of the container that a value shows under a parent; `true` if its content has to be shown too.
    pub(super) fn handle_of(&mut self, parent: ObjectId, key: &[u8], kind: Kind, identity: Identity) -> (Handle, bool) {
        let id = layout::identify(parent, key, kind.code(), identity);
        if let Some(handle) = self.by_id.get(&(id, kind)).copied() {
            let stale = self.object_mut(handle).filter(|object| object.sight == Sight::Stale);
            let due = stale.map(|object| object.sight = Sight::DueAnew).is_some();
            return (handle, due);
        }
        let handle = self.enter(id, kind, Sight::Due);
        self.by_id.insert((id, kind), handle);
        (handle, true)
    }

    /// Forgets everything about the document but not the handles: another document of the same segment takes its place.
    pub(super) fn forget(&mut self) {
        if let Some(redo) = self.redo.take() {
            self.truncate(redo.handles);
        }
        self.forget_base();
        self.bases.clear();
        self.writers.clear();
        self.orphans.clear();
        self.unwatched.clear();
        for object in &mut self.table {
            object.list = None;
            object.length = 0;
            object.sight = Sight::Stale;
        }
    }

    /// From here on another writer edits.
    pub(super) fn set_writer(&mut self, writer: u64) {
        self.writer = layout::short(writer);
    }
}
