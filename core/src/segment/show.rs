//! From changes to patches: what a mirror has to do after deltas of others were applied, or to hold the whole segment.
//!
//! Only objects that a mirror knows are spoken of. One that comes into view brings all its content; its registers are mostly
//! among the changes at hand, and only for an *orphan* (one whose registers came earlier) the document is searched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::engine::{Changes, Engine, Raw, Read, Step};
use super::layout;
use super::list::{List, ListChange, Place};
use super::objects::{Objects, Redo, Sight};
use crate::edit::{Content, Edit, ElementId, Handle, New, Patch, Shown};
use crate::id::ObjectId;
use crate::mutate::{self, Mutation};
use crate::value::{Identity, Kind, Value};

/// What changed about one object.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Keys, members or elements whose shown value may be another.
    keys: BTreeSet<String>,
    /// All keys of its bases may show another value.
    base: bool,
    /// A sum changed.
    sum: bool,
    places: BTreeSet<String>,
    marks: BTreeMap<String, String>,
    /// It is there although nothing holds it.
    near: Option<Kind>,
}

impl Touched {
    /// The keys that may show another value; `None`: any may.
    pub(super) fn changed_keys(&self) -> Option<&BTreeSet<String>> {
        if self.base { None } else { Some(&self.keys) }
    }
}

/// What an application of deltas touched, by object.
pub(super) type Report = BTreeMap<ObjectId, Touched>;

impl Objects {
    /// The patches of the whole segment, for a mirror that holds nothing of it.
    pub fn show_all(&mut self, engine: &mut dyn Engine) -> Vec<Patch> {
        self.forget();
        let report = self.survey(engine, None);
        self.orphans = report.keys().copied().collect();
        let mut patches = vec![Patch::Root { kind: self.first_kind() }];
        self.marks(&report, &mut patches);
        self.due(Handle(0));
        let mut fresh = VecDeque::from([Handle(0)]);
        self.nears(&report, &mut fresh, &mut patches);
        self.reveal(engine, &report, fresh, true, &mut patches);
        patches
    }

    /// The patches of an application.
    pub fn show_changes(&mut self, engine: &mut dyn Engine, changes: &Changes) -> Vec<Patch> {
        if !self.is_shown(Handle(0)) {
            return self.show_all(engine);
        }
        let mut report = Report::new();
        let kind_before = self.table.first().map(|o| o.kind);
        for (name, value) in &changes.registers {
            self.note(name, value.as_ref(), &mut report);
        }
        let mut patches = Vec::new();
        self.marks(&report, &mut patches);
        let mut fresh = VecDeque::new();
        if kind_before != self.table.first().map(|o| o.kind) {
            patches.push(Patch::Root { kind: self.first_kind() });
            self.due(Handle(0));
            self.orphans.insert(self.segment.first());
            fresh.push_back(Handle(0));
        }
        self.nears(&report, &mut fresh, &mut patches);
        let mut known: VecDeque<Handle> = VecDeque::new();
        for id in report.keys() {
            known.extend(self.all_of(*id));
        }
        known.retain(|handle| self.is_shown(*handle));
        // Sequences and texts are watched only for objects that are known.
        let mut follow: BTreeMap<Handle, Followed> = BTreeMap::new();
        for (name, steps) in &changes.sequences {
            let Some(handle) = self.named(name, Kind::List).filter(|handle| self.is_shown(*handle)) else { continue };
            let Some(object) = self.object_mut(handle) else { continue };
            let moves = report.get(&object.id).is_some_and(|touched| !touched.places.is_empty());
            if let Some(list) = object.list.as_mut() {
                let plain = if moves { None } else { list.follow_plainly(steps) };
                let followed = plain.map(Followed::Plainly).unwrap_or_else(|| {
                    let before = Before::of(list);
                    list.follow(steps);
                    Followed::From(before)
                });
                follow.insert(handle, followed);
                if !known.contains(&handle) {
                    known.push_back(handle);
                }
            }
        }
        for (name, steps) in &changes.texts {
            if let Some(handle) = self.named(name, Kind::Text).filter(|handle| self.is_shown(*handle)) {
                self.splices(handle, steps, &mut patches);
            }
        }
        for handle in known {
            let followed = follow.remove(&handle);
            self.update(engine, &report, handle, followed, &mut patches);
        }
        self.reveal(engine, &report, fresh, false, &mut patches);
        self.check_creations(engine, Some(&report));
        // What is still not shown has registers that a mirror may ask for later.
        for id in report.keys() {
            if !self.all_of(*id).iter().any(|handle| self.is_shown(*handle)) {
                self.orphans.insert(*id);
            }
        }
        patches
    }

    pub(super) fn is_shown(&self, handle: Handle) -> bool {
        self.object(handle).is_some_and(|object| object.sight == Sight::Shown)
    }

    /// All that an object holds is about to be shown, to a mirror that has a node of it.
    fn due(&mut self, handle: Handle) {
        if let Some(object) = self.object_mut(handle) {
            object.sight = Sight::DueAnew;
        }
    }

    /// Patches of single keys, for a mirror that may have guessed wrong.
    pub fn show_keys(&mut self, engine: &mut dyn Engine, keys: &[(Handle, String)]) -> Vec<Patch> {
        let mut patches = Vec::new();
        for (handle, key) in keys {
            let touched = Touched { keys: BTreeSet::from([key.clone()]), ..Touched::default() };
            let mut fresh = VecDeque::new();
            self.entries(engine, *handle, &touched, &mut fresh, &mut patches);
            self.reveal(engine, &Report::new(), fresh, false, &mut patches);
        }
        patches
    }

    /// Takes in what this replica itself has just made, the objects from this handle on: lists and texts are watched from now
    /// on. Gives the patches of those that held something before they were made: a creation that was refused leaves the
    /// edits that lay behind it, and the next creation under its id meets them.
    pub fn adopt(&mut self, engine: &mut dyn Engine, from: usize) -> Vec<Patch> {
        let mut met = BTreeSet::new();
        for handle in std::mem::take(&mut self.unwatched) {
            let Some(object) = self.object(handle) else { continue };
            let more = match object.kind {
                Kind::List => {
                    let slots = engine.watch_sequence(&object.prefix).len();
                    object.list.as_ref().is_none_or(|list| list.slots() != slots)
                }
                Kind::Text => engine.watch_text(&object.prefix).encode_utf16().count() as u32 != object.length,
                _ => false,
            };
            if more {
                met.insert(handle);
            }
        }
        for (at, object) in self.table.iter().enumerate().skip(from) {
            if self.orphans.contains(&object.id) {
                met.insert(Handle(at as u32));
            }
        }
        met.retain(|handle| {
            let object = self.object(*handle);
            self.is_shown(*handle) && object.is_some_and(|o| self.by_id.get(&(o.id, o.kind)) == Some(handle))
        });
        let mut patches = Vec::new();
        for handle in &met {
            self.due(*handle);
            let id = self.object(*handle).map(|object| object.id);
            self.orphans.extend(id);
        }
        self.reveal(engine, &Report::new(), met.into_iter().collect(), false, &mut patches);
        patches
    }

    /// Totals of counters that were added to: a sum of fractions depends on its order, and a mirror has added in its own. One
    /// that nothing but whole numbers were ever added to (`false`: by this commit) it has right.
    pub fn show_totals(&mut self, engine: &dyn Engine, counters: &BTreeMap<ObjectId, bool>) -> Vec<Patch> {
        let mut patches = Vec::new();
        for (id, fractions) in counters {
            if let Some(handle) = self.by_id.get(&(*id, Kind::Counter)).copied() {
                let is_exact = self.count(engine, handle, &mut patches);
                if is_exact && !fractions {
                    patches.pop();
                }
            }
        }
        patches
    }

    /// Makes ready for edits to be redone: finds all that they speak of in the document. Until it is shown, handles that
    /// this takes are borrowed: a mirror does not know of them.
    pub fn prepare(&mut self, engine: &mut dyn Engine, edits: &[Edit]) {
        if self.redo.is_none() {
            let report = self.survey(engine, None);
            self.redo = Some(Redo { handles: self.table.len(), report, texts: BTreeMap::new() });
        }
        for edit in edits {
            match edit {
                Edit::Insert { list, values, .. } => {
                    self.hold(engine, *list, Kind::List);
                    for (element, value) in values {
                        self.hold_new(engine, *list, &element.0.to_be_bytes(), value);
                    }
                }
                Edit::Put { list, element, value } => {
                    self.hold(engine, *list, Kind::List);
                    self.hold_new(engine, *list, &element.0.to_be_bytes(), value);
                }
                Edit::Remove { list, .. } | Edit::Move { list, .. } => self.hold(engine, *list, Kind::List),
                Edit::Splice { text, .. } => self.hold(engine, *text, Kind::Text),
                Edit::Set { object, key, value } | Edit::Default { object, key, value } => {
                    self.hold_new(engine, *object, key.as_bytes(), value);
                }
                Edit::Root { content } => {
                    self.set_first_kind(content.kind());
                    self.hold_content(engine, self.segment.first(), content);
                }
                Edit::Near { object, content } => self.hold_content(engine, *object, content),
                _ => {}
            }
        }
    }

    fn hold_new(&mut self, engine: &mut dyn Engine, parent: ObjectId, key: &[u8], value: &New) {
        if let New::Container(identity, content) = value {
            let id = layout::identify(parent, key, content.kind().code(), *identity);
            self.hold_content(engine, id, content);
        }
    }

    fn hold_content(&mut self, engine: &mut dyn Engine, id: ObjectId, content: &Content) {
        match content {
            Content::Map(entries) => {
                for (key, value) in entries {
                    self.hold_new(engine, id, key.as_bytes(), value);
                }
            }
            Content::List(values) => {
                self.hold(engine, id, Kind::List);
                for (element, value) in values {
                    self.hold_new(engine, id, &element.0.to_be_bytes(), value);
                }
            }
            Content::Text(_) => self.hold(engine, id, Kind::Text),
            Content::Counter(_) | Content::Set(_) => {}
        }
    }

    /// Finds a list's slots or a text's characters, for edits to be redone.
    fn hold(&mut self, engine: &mut dyn Engine, id: ObjectId, kind: Kind) {
        let handle = match self.by_id.get(&(id, kind)) {
            Some(handle) => *handle,
            None => {
                let handle = self.enter(id, kind, Sight::Stale);
                self.by_id.insert((id, kind), handle);
                handle
            }
        };
        let Some(object) = self.object(handle) else { return };
        let (prefix, known) = (object.prefix.clone(), object.list.is_some());
        let Some(redo) = self.redo.as_mut() else { return };
        if kind == Kind::Text && !redo.texts.contains_key(&id) {
            let units: Vec<u16> = engine.watch_text(&prefix).encode_utf16().collect();
            let length = units.len() as u32;
            redo.texts.insert(id, units);
            if let Some(object) = self.object_mut(handle) {
                object.length = length;
            }
        } else if kind == Kind::List && !known {
            let nothing = Touched::default();
            let list = list_of(engine, &prefix, redo.report.get(&id).unwrap_or(&nothing));
            if let Some(object) = self.object_mut(handle) {
                object.list = Some(Box::new(list));
            }
        }
    }

    /// Every known object with this id (a hostile peer may show one id as two kinds).
    fn all_of(&self, id: ObjectId) -> Vec<Handle> {
        let kinds = [Kind::Map, Kind::List, Kind::Text, Kind::Counter, Kind::Set];
        kinds.iter().filter_map(|kind| self.by_id.get(&(id, *kind)).copied()).collect()
    }

    /// The object whose sequence or text has this name.
    fn named(&self, name: &str, kind: Kind) -> Option<Handle> {
        let id = if name.is_empty() { self.segment.first() } else { ObjectId(crate::id::decode_id(name.as_bytes())?) };
        self.by_id.get(&(id, kind)).copied()
    }

    /// Takes every register into a report; `only`: those of one object.
    fn survey(&mut self, engine: &dyn Engine, only: Option<ObjectId>) -> Report {
        let mut names = Vec::new();
        let prefix = only.map(|id| self.prefix(id));
        engine.scan(&mut |name, raw| {
            if prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix.as_str())) {
                names.push((name.to_owned(), raw));
            }
        });
        let mut report = Report::new();
        for (name, raw) in &names {
            self.note(name, Some(raw), &mut report);
        }
        if let Some(only) = only {
            report.retain(|id, _| *id == only);
        }
        report
    }

    /// Takes one register into a report and into the indexes.
    fn note(&mut self, name: &str, value: Option<&Raw>, report: &mut Report) {
        let Some((id, sign, rest)) = layout::parse_name(self.segment, name) else { return };
        let touched = report.entry(id).or_default();
        match sign {
            layout::VALUE => {
                touched.keys.insert(rest.to_owned());
            }
            layout::DEFAULT => {
                touched.keys.insert(rest.to_owned());
                touched.sum |= rest.is_empty();
            }
            layout::LIFE => {
                let key = layout::life_key(rest).filter(|_| !mutate::on(Mutation::DeletionUnseen));
                touched.keys.extend(key.map(str::to_owned));
            }
            layout::BASE => {
                touched.base = true;
                self.forget_base();
                if !rest.is_empty() {
                    self.bases.entry(id).or_default().insert(rest.to_owned());
                }
            }
            layout::SUM => {
                touched.sum = true;
                self.writers.entry(id).or_default().insert(rest.to_owned());
            }
            layout::PLACE => {
                touched.places.insert(rest.to_owned());
            }
            layout::MARK => {
                if let Some(Raw::Str(run)) = value {
                    touched.marks.insert(rest.to_owned(), run.clone());
                }
            }
            layout::KIND if rest.is_empty() => {
                if let Some(Value::Container(kind, _)) = value.cloned().and_then(layout::value_of) {
                    if id == self.segment.first() {
                        self.set_first_kind(kind);
                    } else {
                        touched.near = Some(kind);
                    }
                }
            }
            _ => {}
        }
    }

    fn marks(&self, report: &Report, patches: &mut Vec<Patch>) {
        if let Some(touched) = report.get(&self.segment.first()) {
            for (group, run) in &touched.marks {
                patches.push(Patch::Mark { group: group.clone(), run: run.clone() });
            }
        }
    }

    /// The objects that are there although nothing holds them.
    fn nears(&mut self, report: &Report, fresh: &mut VecDeque<Handle>, patches: &mut Vec<Patch>) {
        for (id, touched) in report {
            let Some(kind) = touched.near else { continue };
            let (object, new) = self.handle_of(self.segment.first(), b"", kind, Identity::Fresh(*id));
            patches.push(Patch::Near { id: *id, kind, object });
            if new {
                fresh.push_back(object);
            }
        }
    }

    /// Patches one known object, and shows what comes into view with it.
    fn update(
        &mut self,
        engine: &mut dyn Engine,
        report: &Report,
        handle: Handle,
        followed: Option<Followed>,
        patches: &mut Vec<Patch>,
    ) {
        let Some(object) = self.object(handle) else { return };
        let (id, kind) = (object.id, object.kind);
        let nothing = Touched::default();
        let touched = report.get(&id).unwrap_or(&nothing);
        let mut fresh = VecDeque::new();
        match kind {
            Kind::Map | Kind::Set => self.entries(engine, handle, touched, &mut fresh, patches),
            Kind::Counter => {
                if touched.sum || touched.base {
                    self.count(engine, handle, patches);
                }
            }
            Kind::List => self.elements_changed(engine, handle, touched, followed, &mut fresh, patches),
            Kind::Text => {}
        }
        self.reveal(engine, report, fresh, false, patches);
    }

    /// Shows the content of objects that came into view, and of what they bring into view.
    fn reveal(
        &mut self,
        engine: &mut dyn Engine,
        report: &Report,
        mut fresh: VecDeque<Handle>,
        whole: bool,
        patches: &mut Vec<Patch>,
    ) {
        while let Some(handle) = fresh.pop_front() {
            let Some(object) = self.object_mut(handle) else { continue };
            let (id, kind, prefix) = (object.id, object.kind, object.prefix.clone());
            if object.sight == Sight::DueAnew {
                patches.push(Patch::Clear { object: handle });
            }
            object.sight = Sight::Shown;
            let searched;
            let report = if self.orphans.remove(&id) && !whole {
                searched = self.survey(engine, Some(id));
                &searched
            } else {
                report
            };
            let nothing = Touched::default();
            let touched = report.get(&id).unwrap_or(&nothing);
            match kind {
                Kind::Map | Kind::Set => self.entries(engine, handle, touched, &mut fresh, patches),
                Kind::Counter => drop(self.count(engine, handle, patches)),
                Kind::Text => {
                    let text = engine.watch_text(&prefix);
                    let length = text.encode_utf16().count() as u32;
                    if let Some(object) = self.object_mut(handle) {
                        object.length = length;
                    }
                    if length > 0 {
                        patches.push(Patch::Splice { object: handle, index: 0, removed: 0, inserted: text });
                    }
                }
                Kind::List => self.whole_list(engine, handle, touched, &mut fresh, patches),
            }
        }
    }

    fn shown(&mut self, parent: ObjectId, key: &[u8], value: Value, fresh: &mut VecDeque<Handle>) -> Shown {
        match value {
            Value::Container(kind, identity) => {
                let (handle, new) = self.handle_of(parent, key, kind, identity);
                if new {
                    fresh.push_back(handle);
                }
                Shown::Object(kind, handle)
            }
            value => Shown::Scalar(value),
        }
    }

    /// Keys of a map, members of a set.
    fn entries(
        &mut self,
        engine: &dyn Engine,
        handle: Handle,
        touched: &Touched,
        fresh: &mut VecDeque<Handle>,
        patches: &mut Vec<Patch>,
    ) {
        let Some(object) = self.object(handle) else { return };
        let (id, kind, prefix) = (object.id, object.kind, object.prefix.clone());
        let mut shown = Vec::new();
        engine.read(&mut |tx| {
            let mut keys = touched.keys.clone();
            if touched.base {
                for base in self.bases_of(tx, id, &prefix) {
                    layout::each_base_entry(&base, &mut |key, _| {
                        keys.insert(key.to_owned());
                        true
                    });
                }
            }
            for key in keys {
                let value = self.effective(tx, id, &prefix, &key);
                shown.push((key, value));
            }
        });
        for (key, value) in shown {
            let patch = match (kind, value) {
                (Kind::Set, value) => {
                    let Some(member) = layout::member_of(&key) else { continue };
                    match value {
                        Some(_) => Patch::Include { object: handle, member },
                        None => Patch::Exclude { object: handle, member },
                    }
                }
                (_, Some(value)) => {
                    let value = self.shown(id, key.as_bytes(), value, fresh);
                    Patch::Set { object: handle, key, value }
                }
                (_, None) => Patch::Delete { object: handle, key },
            };
            patches.push(patch);
        }
    }

    /// Shows a counter's value; whether its parts come to it in every order.
    fn count(&mut self, engine: &dyn Engine, handle: Handle, patches: &mut Vec<Patch>) -> bool {
        let Some(object) = self.object(handle) else { return false };
        let (mut value, mut is_exact) = (0.0, false);
        engine.read(&mut |tx| (value, is_exact) = self.total(tx, object.id, &object.prefix));
        patches.push(Patch::Total { object: handle, value });
        is_exact
    }

    fn splices(&mut self, handle: Handle, steps: &[Step<String>], patches: &mut Vec<Patch>) {
        let Some(object) = self.object_mut(handle) else { return };
        let mut at = 0;
        for step in steps {
            match step {
                Step::Keep(count) => at += count,
                Step::Remove(count) => {
                    object.length = object.length.saturating_sub(*count);
                    patches.push(Patch::Splice { object: handle, index: at, removed: *count, inserted: String::new() });
                }
                Step::Insert(text) => {
                    let length = text.encode_utf16().count() as u32;
                    object.length += length;
                    patches.push(Patch::Splice { object: handle, index: at, removed: 0, inserted: text.clone() });
                    at += length;
                }
            }
        }
    }

    fn whole_list(
        &mut self,
        engine: &mut dyn Engine,
        handle: Handle,
        touched: &Touched,
        fresh: &mut VecDeque<Handle>,
        patches: &mut Vec<Patch>,
    ) {
        let Some(object) = self.object(handle) else { return };
        let (id, prefix) = (object.id, object.prefix.clone());
        let list = list_of(engine, &prefix, touched);
        let values: Vec<(ElementId, Value)> = list.values().map(|(e, v)| (e, v.clone())).collect();
        let shown: Vec<Shown> = values.into_iter().map(|(e, v)| self.shown(id, &e.0.to_be_bytes(), v, fresh)).collect();
        if !shown.is_empty() {
            patches.push(Patch::Insert { object: handle, index: 0, values: shown });
        }
        if let Some(object) = self.object_mut(handle) {
            object.list = Some(Box::new(list));
        }
    }

    fn elements_changed(
        &mut self,
        engine: &dyn Engine,
        handle: Handle,
        touched: &Touched,
        followed: Option<Followed>,
        fresh: &mut VecDeque<Handle>,
        patches: &mut Vec<Patch>,
    ) {
        let Some(object) = self.object_mut(handle) else { return };
        let (id, prefix) = (object.id, object.prefix.clone());
        let Some(mut list) = object.list.take() else { return };
        let followed = followed.unwrap_or_else(|| {
            if touched.places.is_empty() { Followed::Plainly(Vec::new()) } else { Followed::From(Before::of(&list)) }
        });
        engine.read(&mut |tx| take_registers(tx, &prefix, touched, &mut list));
        let (changes, before) = match followed {
            Followed::Plainly(changes) => (changes, None),
            Followed::From(before) => (list.refresh(&before.elements), Some(before.initial)),
        };
        let mut brought = BTreeSet::new();
        let mut inserted = Vec::new();
        for change in changes {
            patches.push(match change {
                ListChange::Remove(index, count) => {
                    Patch::Remove { object: handle, index: index as u32, count: count as u32 }
                }
                ListChange::Move(from, to) => Patch::Move { object: handle, from: from as u32, to: to as u32 },
                ListChange::Insert(index, elements) => {
                    brought.extend(elements.iter().copied());
                    inserted.push((patches.len(), index, elements));
                    Patch::Insert { object: handle, index: index as u32, values: Vec::new() }
                }
            });
        }
        for (at, index, elements) in inserted {
            let shown = elements.iter().zip(index..).map(|(element, index)| {
                debug_assert_eq!(list.element(index), Some(*element), "changes go from the start to the end");
                let value = list.value_at(index).cloned();
                self.shown(id, &element.0.to_be_bytes(), value.unwrap_or(Value::Null), fresh)
            });
            if let Some(Patch::Insert { values, .. }) = patches.get_mut(at) {
                *values = shown.collect();
            }
        }
        let mut changed: BTreeSet<ElementId> =
            touched.keys.iter().filter_map(|key| layout::parse_short(key)).map(ElementId).collect();
        for (element, old) in before.into_iter().flatten() {
            if list.inline_value(element).is_some_and(|value| *value != old) {
                changed.insert(element);
            }
        }
        for element in changed {
            if brought.contains(&element) {
                continue;
            }
            let Some(index) = list.index_of(element) else { continue };
            let value = list.value_at(index).cloned().unwrap_or(Value::Null);
            let value = self.shown(id, &element.0.to_be_bytes(), value, fresh);
            patches.push(Patch::Put { object: handle, index: index as u32, value });
        }
        if let Some(object) = self.object_mut(handle) {
            object.list = Some(list);
        }
    }
}

/// How a list's index followed its sequence.
enum Followed {
    /// Step by step.
    Plainly(Vec<ListChange>),
    /// At once: it is to be compared with what it showed.
    From(Before),
}

/// What a list showed.
struct Before {
    elements: Vec<ElementId>,
    initial: BTreeMap<ElementId, Value>,
}

impl Before {
    fn of(list: &List) -> Self {
        Before { elements: list.elements(), initial: list.initial_values() }
    }
}

/// A list as the document has it.
fn list_of(engine: &mut dyn Engine, prefix: &str, touched: &Touched) -> List {
    let sequence = engine.watch_sequence(prefix);
    let mut list = List::new(&sequence, BTreeMap::new(), BTreeMap::new());
    engine.read(&mut |tx| take_registers(tx, prefix, touched, &mut list));
    list.refresh(&[]);
    list
}

/// Takes the registers of a list's elements into its index.
fn take_registers(tx: &dyn Read, prefix: &str, touched: &Touched, list: &mut List) {
    for key in &touched.keys {
        if let Some(element) = layout::parse_short(key).map(ElementId) {
            list.replace(element, tx.get(&layout::name(prefix, layout::VALUE, key)).and_then(layout::value_of));
        }
    }
    for key in &touched.places {
        if let Some(element) = layout::parse_short(key).map(ElementId) {
            let place = match tx.get(&layout::name(prefix, layout::PLACE, key)) {
                Some(Raw::Null) => Some(Place::Deleted),
                Some(Raw::Bytes(bytes)) => bytes.first_chunk::<8>().map(|b| Place::Slot(u64::from_be_bytes(*b))),
                _ => None,
            };
            list.place(element, place);
        }
    }
}
