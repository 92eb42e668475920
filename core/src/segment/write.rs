//! From wishes to edits, and from edits to registers. `SEGMENT.md` §4 and §5.
//!
//! [`Objects::resolve`] anchors a wish in the state that its program saw; [`Objects::perform`] writes an edit into whatever
//! state the segment is in now. A redo calls only the second.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::{Raw, Read, Write};
use super::layout::{self, Slot};
use super::list::{List, Place};
use super::objects::{Objects, Sight, lives};
use crate::edit::{Content, Edit, ElementId, Handle, Literal, New, Wish};
use crate::id::{ObjectId, SegmentId, Uid};
use crate::mutate::{self, Mutation};
use crate::value::{Identity, Kind, Value};

/// Where fresh ids come from: entropy that the driver gave.
pub trait Draw {
    /// 64 fresh random bits.
    fn draw(&mut self) -> u64;

    /// A fresh object id.
    fn object(&mut self) -> ObjectId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.draw().to_be_bytes());
        bytes[8..].copy_from_slice(&self.draw().to_be_bytes());
        ObjectId(bytes)
    }
}

/// Why a wish means nothing here. The mirror in JavaScript checks before it writes, so these say that it is out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WishError {
    /// No such handle, or an object of another kind.
    #[error("no such object")]
    Object,
    /// An index outside the list or text.
    #[error("index out of range")]
    Range,
    /// A value that cannot stand there.
    #[error("not a value for this place")]
    Value,
}

/// What comes of the containers in a literal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Makes {
    /// They are made, with ids of their own where they are inside a list.
    Own,
    /// They are made, as `initial` makes them everywhere.
    Initial,
    /// Nothing: the default is not wanted here.
    Nothing,
}

/// A base larger than this is not one register: the rest of its entries get their own.
const BASE_BYTES: usize = 64 * 1024;

impl Objects {
    fn of_kind(&self, handle: Handle, kind: Kind) -> Result<(ObjectId, String), WishError> {
        let object = self.object(handle).filter(|o| o.kind == kind).ok_or(WishError::Object)?;
        Ok((object.id, object.prefix.clone()))
    }

    fn list(&self, handle: Handle) -> Result<(ObjectId, &List), WishError> {
        let object = self.canonical(handle).ok_or(WishError::Object)?;
        Ok((object.id, object.list.as_deref().ok_or(WishError::Object)?))
    }

    /// Anchors a wish in the state it was made in. Containers get identities and handles in the order they are written.
    pub fn resolve(&mut self, tx: &dyn Read, wish: Wish, draw: &mut dyn Draw) -> Result<Edit, WishError> {
        Ok(match wish {
            Wish::Set { object, key, value } => {
                let (id, prefix) = self.of_kind(object, Kind::Map)?;
                let identity = if value.kind().is_none() {
                    Identity::Derived(0)
                } else if self.effective(tx, id, &prefix, &key).is_some() {
                    Identity::Fresh(draw.object())
                } else {
                    Identity::Derived(lives(tx, &prefix, &key))
                };
                let value = self.anchor(id, key.as_bytes(), identity, value, draw)?;
                Edit::Set { object: id, key, value }
            }
            Wish::Delete { object, key } => Edit::Delete { object: self.of_kind(object, Kind::Map)?.0, key },
            Wish::Insert { object, index, values } => {
                let (list, slots) = self.list(object)?;
                let after = match index.checked_sub(1) {
                    None => None,
                    Some(before) => Some(slots.element(before as usize).ok_or(WishError::Range)?),
                };
                let mut elements = Vec::with_capacity(values.len());
                for value in values {
                    let element = ElementId(draw.draw());
                    let identity = Identity::Fresh(draw.object());
                    elements.push((element, self.anchor(list, &element.0.to_be_bytes(), identity, value, draw)?));
                }
                Edit::Insert { list, after, values: elements }
            }
            Wish::Remove { object, index, count } => {
                let (list, slots) = self.list(object)?;
                let range = index as usize..(index as usize).saturating_add(count as usize);
                let elements: Option<Vec<ElementId>> = range.map(|index| slots.element(index)).collect();
                Edit::Remove { list, elements: elements.ok_or(WishError::Range)? }
            }
            Wish::Put { object, index, value } => {
                let (list, slots) = self.list(object)?;
                let element = slots.element(index as usize).ok_or(WishError::Range)?;
                let identity = Identity::Fresh(draw.object());
                let value = self.anchor(list, &element.0.to_be_bytes(), identity, value, draw)?;
                Edit::Put { list, element, value }
            }
            Wish::Move { object, from, to } => {
                let (list, slots) = self.list(object)?;
                let element = slots.element(from as usize).ok_or(WishError::Range)?;
                if to as usize >= slots.length() {
                    return Err(WishError::Range);
                }
                // The element that will stand before it: among the others, the one at `to` − 1.
                let after = to.checked_sub(1).and_then(|before| {
                    let before = before as usize;
                    slots.element(if before >= from as usize { before + 1 } else { before })
                });
                Edit::Move { list, element, after, slot: draw.draw() }
            }
            Wish::Splice { object, index, removed, inserted } => {
                let object = self.canonical(object).filter(|o| o.kind == Kind::Text).ok_or(WishError::Object)?;
                if u64::from(index) + u64::from(removed) > u64::from(object.length) {
                    return Err(WishError::Range);
                }
                Edit::Splice { text: object.id, index, removed, inserted }
            }
            Wish::Add { object, by } => Edit::Add { counter: self.of_kind(object, Kind::Counter)?.0, by },
            Wish::Include { object, member } => {
                layout::member_code(&member).ok_or(WishError::Value)?;
                Edit::Include { set: self.of_kind(object, Kind::Set)?.0, member }
            }
            Wish::Exclude { object, member } => {
                layout::member_code(&member).ok_or(WishError::Value)?;
                Edit::Exclude { set: self.of_kind(object, Kind::Set)?.0, member }
            }
            Wish::Root { value } => {
                let kind = value.kind().ok_or(WishError::Value)?;
                self.set_first_kind(kind);
                self.unwatched.push(Handle(0));
                let first = self.segment.first();
                Edit::Root { content: self.content(first, value, Makes::Own, draw)? }
            }
            Wish::Default { object, key, value } => {
                let (id, prefix) = self.of_kind(object, Kind::Map)?;
                let identity = Identity::Derived(lives(tx, &prefix, &key));
                let makes = if self.is_taken(tx, id, &prefix, &key) { Makes::Nothing } else { Makes::Initial };
                let value = self.anchored(id, key.as_bytes(), identity, value, makes, draw)?;
                Edit::Default { object: id, key, value }
            }
            Wish::Mark { group, run } => Edit::Mark { group, run },
            Wish::Near { object, value } => {
                let kind = value.kind().ok_or(WishError::Value)?;
                if object == self.segment.first() || self.find(object).is_some() {
                    return Err(WishError::Object);
                }
                self.make(object, kind);
                Edit::Near { object, content: self.content(object, value, Makes::Own, draw)? }
            }
        })
    }

    fn anchor(
        &mut self,
        parent: ObjectId,
        key: &[u8],
        identity: Identity,
        value: Literal,
        draw: &mut dyn Draw,
    ) -> Result<New, WishError> {
        self.anchored(parent, key, identity, value, Makes::Own, draw)
    }

    fn anchored(
        &mut self,
        parent: ObjectId,
        key: &[u8],
        identity: Identity,
        value: Literal,
        makes: Makes,
        draw: &mut dyn Draw,
    ) -> Result<New, WishError> {
        match (value.kind(), value) {
            (None, Literal::Scalar(Value::Container(..))) => Err(WishError::Value),
            (None, Literal::Scalar(value)) => Ok(New::Scalar(value)),
            (Some(kind), value) => {
                let id = layout::identify(parent, key, kind.code(), identity);
                if makes == Makes::Nothing {
                    // The mirror has taken a handle for it, so it is counted, and that is all.
                    self.enter(id, kind, Sight::Stale);
                } else {
                    self.make(id, kind);
                }
                Ok(New::Container(identity, self.content(id, value, makes, draw)?))
            }
            (None, _) => Err(WishError::Value),
        }
    }

    fn content(
        &mut self,
        id: ObjectId,
        value: Literal,
        makes: Makes,
        draw: &mut dyn Draw,
    ) -> Result<Content, WishError> {
        let initial = makes != Makes::Own;
        Ok(match value {
            Literal::Scalar(_) => return Err(WishError::Value),
            Literal::Map(entries) => {
                let mut out = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let value = self.anchored(id, key.as_bytes(), Identity::Derived(0), value, makes, draw)?;
                    out.push((key, value));
                }
                Content::Map(out)
            }
            Literal::List(values) => {
                let mut out = Vec::with_capacity(values.len());
                for (index, value) in values.into_iter().enumerate() {
                    let (element, identity) = if initial {
                        (initial_element(id, index as u64), Identity::Derived(0))
                    } else {
                        (ElementId(draw.draw()), Identity::Fresh(draw.object()))
                    };
                    let value = self.anchored(id, &element.0.to_be_bytes(), identity, value, makes, draw)?;
                    out.push((element, value));
                }
                Content::List(out)
            }
            Literal::Text(text) if initial && !text.is_empty() => return Err(WishError::Value),
            Literal::Text(text) => Content::Text(text),
            Literal::Counter(base) => Content::Counter(base),
            Literal::Set(members) => {
                if members.iter().any(|member| layout::member_code(member).is_none()) {
                    return Err(WishError::Value);
                }
                Content::Set(members)
            }
        })
    }

    /// Writes an edit. Whatever it speaks of that is gone, it leaves alone.
    pub fn perform(&mut self, tx: &mut dyn Write, edit: &Edit, uid: Uid) {
        match edit {
            Edit::Set { object, key, value } => {
                let prefix = self.prefix(*object);
                if let Some(Value::Container(kind, old @ Identity::Derived(_))) =
                    self.effective(tx, *object, &prefix, key)
                {
                    let same = matches!(value, New::Container(new, content) if *new == old && content.kind() == kind);
                    if !same {
                        self.end_life(tx, &prefix, key);
                    }
                }
                let suffix = match value {
                    New::Container(Identity::Derived(_), _) => layout::short(uid.0),
                    _ => String::new(),
                };
                self.write(tx, *object, &prefix, layout::VALUE, key, key.as_bytes(), value, &suffix);
            }
            Edit::Delete { object, key } => {
                let prefix = self.prefix(*object);
                if self.effective(tx, *object, &prefix, key).is_some() {
                    tx.remove(&layout::name(&prefix, layout::VALUE, key));
                    self.end_life(tx, &prefix, key);
                }
            }
            Edit::Insert { list, after, values } => self.insert(tx, *list, *after, values, false),
            Edit::Remove { list, elements } => self.remove(tx, *list, elements),
            Edit::Put { list, element, value } => {
                let prefix = self.prefix(*list);
                let (key, bytes) = (layout::short(element.0), element.0.to_be_bytes());
                self.write(tx, *list, &prefix, layout::VALUE, &key, &bytes, value, "");
                if let Some(slots) = self.slots(*list) {
                    slots.replace(*element, Some(value_of(value)));
                }
            }
            Edit::Move { list, element, after, slot } => self.shift(tx, *list, *element, *after, *slot),
            Edit::Splice { text, index, removed, inserted } => self.splice(tx, *text, *index, *removed, inserted),
            Edit::Add { counter, by } => {
                let name = layout::name(&self.prefix(*counter), layout::SUM, &self.writer);
                let known = tx.get(&name).filter(|_| self.redo.is_none() || !mutate::on(Mutation::RedoAddsOnce));
                let sum = known.as_ref().and_then(layout::number_of).unwrap_or(0.0);
                tx.put(&name, layout::raw_number(sum + by));
                if !mutate::on(Mutation::OwnSumUncounted) {
                    self.writers.entry(*counter).or_default().insert(self.writer.clone());
                }
            }
            Edit::Include { set, member } => {
                if let Some(code) = layout::member_code(member) {
                    tx.put(&layout::name(&self.prefix(*set), layout::VALUE, &code), Raw::Bool(true));
                }
            }
            Edit::Exclude { set, member } => {
                let (Some(code), prefix) = (layout::member_code(member), self.prefix(*set)) else { return };
                let inherits = self.inherits(tx, *set, &prefix, &code) || self.segment == SegmentId::ROOT;
                tx.remove(&layout::name(&prefix, layout::VALUE, &code));
                if inherits {
                    self.end_life(tx, &prefix, &code);
                }
            }
            Edit::Root { content } => {
                let first = self.segment.first();
                if content.kind() != Kind::Map {
                    let kind = Value::Container(content.kind(), Identity::Fresh(first));
                    tx.put(&layout::name("", layout::KIND, ""), layout::raw_of(&kind));
                }
                self.fill(tx, first, "", content, "", false);
            }
            Edit::Default { object, key, value } => {
                let prefix = self.prefix(*object);
                if !self.is_taken(tx, *object, &prefix, key) {
                    self.write_default(tx, *object, &prefix, key, value);
                }
            }
            Edit::Mark { group, run } => {
                tx.put(&layout::name("", layout::MARK, group), Raw::Str(run.clone()));
            }
            Edit::Near { object, content } => {
                let prefix = self.prefix(*object);
                // Its id is in the register's name already.
                let kind = Value::Container(content.kind(), Identity::Derived(0));
                tx.put(&layout::name(&prefix, layout::KIND, ""), layout::raw_of(&kind));
                self.fill(tx, *object, &prefix, content, "", false);
            }
        }
    }

    /// A key that takes no default: it has a value, or had one, or has a default already.
    fn is_taken(&self, tx: &dyn Read, object: ObjectId, prefix: &str, key: &str) -> bool {
        self.effective(tx, object, prefix, key).is_some()
            || lives(tx, prefix, key) > 0
            || tx.get(&layout::name(prefix, layout::DEFAULT, key)).is_some()
    }

    fn inherits(&self, tx: &dyn Read, object: ObjectId, prefix: &str, key: &str) -> bool {
        let mut found = tx.get(&layout::name(prefix, layout::DEFAULT, key)).is_some();
        for base in self.bases_of(tx, object, prefix) {
            layout::each_base_entry(&base, &mut |entry, _| {
                found |= entry == key;
                !found
            });
        }
        found
    }

    fn end_life(&self, tx: &mut dyn Write, prefix: &str, key: &str) {
        let n = lives(tx, prefix, key) + 1;
        tx.put(&layout::life_name(prefix, n, key), Raw::Bool(true));
    }

    /// Puts a value into a register and fills the container it makes.
    #[expect(clippy::too_many_arguments, reason = "a register's name in its parts")]
    fn write(
        &mut self,
        tx: &mut dyn Write,
        parent: ObjectId,
        prefix: &str,
        sign: char,
        rest: &str,
        key: &[u8],
        value: &New,
        suffix: &str,
    ) {
        tx.put(&layout::name(prefix, sign, rest), layout::raw_of(&value_of(value)));
        if let New::Container(identity, content) = value {
            let id = layout::identify(parent, key, content.kind().code(), *identity);
            let prefix = self.prefix(id);
            self.fill(tx, id, &prefix, content, suffix, false);
        }
    }

    /// Writes what a container is created with.
    fn fill(&mut self, tx: &mut dyn Write, id: ObjectId, prefix: &str, content: &Content, suffix: &str, initial: bool) {
        match content {
            Content::Map(entries) => {
                let (mut base, mut size) = (Vec::new(), 0);
                for (key, value) in entries {
                    let shown = value_of(value);
                    size += key.len() + weight(&shown);
                    if size <= BASE_BYTES {
                        base.push((key.as_str(), shown));
                    } else {
                        tx.put(&layout::name(prefix, layout::VALUE, key), layout::raw_of(&shown));
                    }
                    if let New::Container(identity, content) = value {
                        let inner = layout::identify(id, key.as_bytes(), content.kind().code(), *identity);
                        let inner_prefix = self.prefix(inner);
                        self.fill(tx, inner, &inner_prefix, content, suffix, initial);
                    }
                }
                if !base.is_empty() {
                    tx.put(&layout::name(prefix, layout::BASE, suffix), layout::encode_base(&base));
                    self.has_base(id, suffix);
                }
            }
            Content::List(values) => {
                self.new_list(id);
                self.insert(tx, id, None, values, initial);
            }
            Content::Text(text) => self.splice(tx, id, 0, 0, text),
            Content::Counter(base) => {
                if *base != 0.0 {
                    tx.put(&layout::name(prefix, layout::BASE, suffix), layout::raw_number(*base));
                    self.has_base(id, suffix);
                }
            }
            Content::Set(members) => {
                for code in members.iter().filter_map(layout::member_code) {
                    tx.put(&layout::name(prefix, layout::VALUE, &code), Raw::Bool(true));
                }
            }
        }
    }

    fn has_base(&mut self, id: ObjectId, suffix: &str) {
        self.forget_base();
        if !suffix.is_empty() {
            self.bases.entry(id).or_default().insert(suffix.to_owned());
        }
    }

    /// Puts a default, and defaults into the container it makes.
    fn write_default(&mut self, tx: &mut dyn Write, parent: ObjectId, prefix: &str, key: &str, value: &New) {
        tx.put(&layout::name(prefix, layout::DEFAULT, key), layout::raw_of(&value_of(value)));
        let New::Container(identity, content) = value else { return };
        let id = layout::identify(parent, key.as_bytes(), content.kind().code(), *identity);
        let inner = self.prefix(id);
        match content {
            Content::Map(entries) => {
                for (key, value) in entries {
                    self.write_default(tx, id, &inner, key, value);
                }
            }
            Content::Counter(base) => {
                tx.put(&layout::name(&inner, layout::DEFAULT, ""), layout::raw_number(*base));
            }
            Content::Set(members) => {
                for code in members.iter().filter_map(layout::member_code) {
                    tx.put(&layout::name(&inner, layout::DEFAULT, &code), Raw::Bool(true));
                }
            }
            Content::List(_) | Content::Text(_) => self.fill(tx, id, &inner, content, "", true),
        }
    }

    fn slots(&mut self, list: ObjectId) -> Option<&mut List> {
        let handle = *self.by_id.get(&(list, Kind::List))?;
        self.object_mut(handle)?.list.as_deref_mut()
    }

    fn new_list(&mut self, list: ObjectId) {
        let Some(handle) = self.by_id.get(&(list, Kind::List)).copied() else { return };
        if let Some(object) = self.object_mut(handle).filter(|object| object.list.is_none()) {
            object.list = Some(Box::new(List::new(&[], BTreeMap::new(), BTreeMap::new())));
        }
    }

    fn insert(
        &mut self,
        tx: &mut dyn Write,
        list: ObjectId,
        after: Option<ElementId>,
        values: &[(ElementId, New)],
        initial: bool,
    ) {
        let prefix = self.prefix(list);
        let slots: Vec<Slot> = values
            .iter()
            .map(|(element, value)| Slot { element: *element, number: None, initial, value: value_of(value) })
            .collect();
        let Some(index) = self.slots(list) else { return };
        let raw = index.raw_behind(after);
        tx.insert(&prefix, raw as u32, slots.iter().map(Slot::encode).collect());
        index.inserted(raw, slots);
        for (element, value) in values {
            if let New::Container(identity, content) = value {
                let id = layout::identify(list, &element.0.to_be_bytes(), content.kind().code(), *identity);
                let inner = self.prefix(id);
                if initial {
                    self.fill_default(tx, id, &inner, content);
                } else {
                    self.fill(tx, id, &inner, content, "", false);
                }
            }
        }
    }

    fn fill_default(&mut self, tx: &mut dyn Write, id: ObjectId, prefix: &str, content: &Content) {
        match content {
            Content::Map(entries) => {
                for (key, value) in entries {
                    self.write_default(tx, id, prefix, key, value);
                }
            }
            Content::Counter(base) => {
                tx.put(&layout::name(prefix, layout::DEFAULT, ""), layout::raw_number(*base));
            }
            Content::Set(members) => {
                for code in members.iter().filter_map(layout::member_code) {
                    tx.put(&layout::name(prefix, layout::DEFAULT, &code), Raw::Bool(true));
                }
            }
            Content::List(_) | Content::Text(_) => self.fill(tx, id, prefix, content, "", true),
        }
    }

    fn remove(&mut self, tx: &mut dyn Write, list: ObjectId, elements: &[ElementId]) {
        let prefix = self.prefix(list);
        let Some(index) = self.slots(list) else { return };
        let gone: BTreeSet<ElementId> = elements.iter().copied().collect();
        let (ranges, initial) = index.slots_of(&gone);
        for (raw, count) in ranges {
            tx.cut(&prefix, raw as u32, count as u32);
            index.removed(raw, count);
        }
        for element in initial {
            tx.put(&layout::name(&prefix, layout::PLACE, &layout::short(element.0)), Raw::Null);
            index.place(element, Some(Place::Deleted));
        }
    }

    fn shift(&mut self, tx: &mut dyn Write, list: ObjectId, element: ElementId, after: Option<ElementId>, slot: u64) {
        let prefix = self.prefix(list);
        let Some(index) = self.slots(list) else { return };
        // Where it was deleted or never was, a move moves nothing.
        if index.index_of(element).is_none() {
            return;
        }
        let (ranges, initial) = index.slots_of(&BTreeSet::from([element]));
        let Some(value) = index.inline_value(element).cloned() else { return };
        for (raw, count) in ranges {
            tx.cut(&prefix, raw as u32, count as u32);
            index.removed(raw, count);
        }
        let moved = Slot { element, number: Some(slot), initial: initial.contains(&element), value };
        let raw = index.raw_behind(after);
        tx.insert(&prefix, raw as u32, vec![moved.encode()]);
        index.inserted(raw, vec![moved]);
        let place = Raw::Bytes(slot.to_be_bytes().to_vec());
        tx.put(&layout::name(&prefix, layout::PLACE, &layout::short(element.0)), place);
        index.place(element, Some(Place::Slot(slot)));
    }

    fn splice(&mut self, tx: &mut dyn Write, text: ObjectId, index: u32, removed: u32, inserted: &str) {
        let prefix = self.prefix(text);
        let Some(handle) = self.by_id.get(&(text, Kind::Text)).copied() else { return };
        let Some(object) = self.object(handle) else { return };
        // A redo may find a shorter text, and other characters at these indexes.
        let length = object.length;
        let (mut index, mut end) = (index.min(length), index.saturating_add(removed).min(length));
        if let Some(units) = self.redo.as_mut().and_then(|redo| redo.texts.get_mut(&text)) {
            (index, end) = (boundary(units, index), boundary(units, end));
            units.splice(index as usize..end as usize, inserted.encode_utf16());
        }
        // After the cuts have moved: a length of its own would lead the next redo outside the text.
        if let Some(object) = self.object_mut(handle) {
            object.length = length - (end - index) + inserted.encode_utf16().count() as u32;
        }
        tx.splice(&prefix, index, end - index, inserted);
    }
}

fn value_of(new: &New) -> Value {
    match new {
        New::Scalar(value) => value.clone(),
        New::Container(identity, content) => Value::Container(content.kind(), *identity),
    }
}

/// The start of the character that a cut falls into (S10).
fn boundary(units: &[u16], index: u32) -> u32 {
    let before = (index as usize).checked_sub(1).and_then(|before| units.get(before));
    let inside = before.is_some_and(|unit| (0xd800..0xdc00).contains(unit));
    if inside && (index as usize) < units.len() { index - 1 } else { index }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len() + 8,
        Value::Bytes(bytes) => bytes.len() + 8,
        _ => 40,
    }
}

/// The element that every replica makes at this index of a list of `initial`.
fn initial_element(list: ObjectId, index: u64) -> ElementId {
    let id = ObjectId::derive(list, &index.to_be_bytes(), b'E', 0);
    let (head, _) = id.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    ElementId(u64::from_be_bytes(*head))
}
