//! What this replica made under absent keys, remembered so that it can say what it has lost: of containers of different kinds that
//! are put under one key at once, one wins everywhere, and each replica that made another one tells its program (SEMANTICS S2).
//!
//! That two creations did not know of each other follows from their identities (`SEGMENT.md` §5). Whoever sees a value puts a
//! *fresh* container over it, and whoever has seen it deleted begins a later life. So a *derived* container of another kind and
//! of no later life, found where this replica put one, was made at once with it, whichever of them came first.

use std::collections::BTreeMap;

use super::engine::{Engine, Read};
use super::layout;
use super::objects::Objects;
use super::show::Report;
use crate::edit::{Content, Edit, Handle, New};
use crate::id::{ObjectId, Uid};
use crate::limits;
use crate::value::{Identity, Kind, Value};
use crate::wire::codec::{Malformed, Reader, Write};

/// A container that this replica made, and that another one of another kind won over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overruled {
    /// The map it was put into.
    pub parent: Handle,
    /// Its key there.
    pub key: String,
    /// The container itself; a mirror's node of it shows what it held.
    pub lost: Handle,
    /// The kind of what is there instead.
    pub kept: Kind,
}

#[derive(Clone, Copy, Debug)]
struct Creation {
    kind: Kind,
    life: u64,
    /// The commit that made it.
    uid: Uid,
    /// Its number: the lowest is the oldest.
    number: u64,
}

/// The newest creations of this replica in one segment, by map and key.
#[derive(Debug, Default)]
pub(super) struct Creations {
    by_place: BTreeMap<ObjectId, BTreeMap<String, Creation>>,
    by_age: BTreeMap<u64, (ObjectId, String)>,
    next: u64,
}

impl Creations {
    fn remember(&mut self, parent: ObjectId, key: &str, kind: Kind, life: u64, uid: Uid) {
        self.forget(parent, key);
        if self.by_age.len() >= limits::CREATIONS_MAX
            && let Some((_, (parent, key))) = self.by_age.pop_first()
        {
            self.forget(parent, &key);
        }
        let number = self.next;
        self.next += 1;
        let creation = Creation { kind, life, uid, number };
        self.by_place.entry(parent).or_default().insert(key.to_owned(), creation);
        self.by_age.insert(number, (parent, key.to_owned()));
    }

    fn forget(&mut self, parent: ObjectId, key: &str) {
        let Some(keys) = self.by_place.get_mut(&parent) else { return };
        if let Some(creation) = keys.remove(key) {
            self.by_age.remove(&creation.number);
        }
        if keys.is_empty() {
            self.by_place.remove(&parent);
        }
    }

    /// The commit did not happen.
    pub(super) fn undone(&mut self, uid: Uid) {
        let mut gone = Vec::new();
        for (parent, keys) in &self.by_place {
            gone.extend(keys.iter().filter(|(_, creation)| creation.uid == uid).map(|(key, _)| (*parent, key.clone())));
        }
        for (parent, key) in gone {
            self.forget(parent, &key);
        }
    }

    /// Takes in what an edit of this replica put under keys that were absent.
    pub(super) fn note(&mut self, edit: &Edit, uid: Uid) {
        match edit {
            Edit::Set { object, key, value } => {
                self.forget(*object, key);
                self.note_new(*object, key, value, uid);
            }
            Edit::Delete { object, key } => self.forget(*object, key),
            _ => {}
        }
    }

    fn note_new(&mut self, parent: ObjectId, key: &str, value: &New, uid: Uid) {
        // What is in a container with an id of its own was put there by nobody else.
        let New::Container(Identity::Derived(life), content) = value else { return };
        self.remember(parent, key, content.kind(), *life, uid);
        if let Content::Map(entries) = content {
            let id = ObjectId::derive(parent, key.as_bytes(), content.kind().code(), *life);
            for (key, value) in entries {
                self.note_new(id, key, value, uid);
            }
        }
    }

    /// The creations where something changed; all of them without a report.
    fn places(&self, report: Option<&Report>) -> Vec<(ObjectId, String, Creation)> {
        let mut places = Vec::new();
        let Some(report) = report else {
            for (parent, keys) in &self.by_place {
                places.extend(keys.iter().map(|(key, creation)| (*parent, key.clone(), *creation)));
            }
            return places;
        };
        if self.by_place.is_empty() {
            return places;
        }
        for (parent, touched) in report {
            let Some(keys) = self.by_place.get(parent) else { continue };
            match touched.changed_keys() {
                None => places.extend(keys.iter().map(|(key, creation)| (*parent, key.clone(), *creation))),
                Some(changed) => places.extend(
                    changed.iter().filter_map(|key| keys.get(key).map(|creation| (*parent, key.clone(), *creation))),
                ),
            }
        }
        places
    }

    /// Appends `creations` (`replica/packed.rs`), the oldest first.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        out.varint(self.by_age.len() as u64);
        for (parent, key) in self.by_age.values() {
            let Some(creation) = self.by_place.get(parent).and_then(|keys| keys.get(key)) else { continue };
            out.extend_from_slice(&parent.0);
            out.str(key);
            out.push(creation.kind.code());
            out.varint(creation.life);
            Write::u64(out, creation.uid.0);
        }
    }

    /// Reads `creations`.
    pub(super) fn unpack(r: &mut Reader<'_>) -> Result<Creations, Malformed> {
        let mut creations = Creations::default();
        for _ in 0..r.count(limits::CREATIONS_MAX, "creations")? {
            let parent = ObjectId(r.array()?);
            let key = r.str(limits::LONG_BYTES_MAX, "key")?.to_owned();
            let kind = Kind::from_code(r.u8()?).ok_or(Malformed::Field("kind"))?;
            creations.remember(parent, &key, kind, r.varint()?, Uid(r.u64()?));
        }
        Ok(creations)
    }
}

impl Objects {
    /// Finds the own creations that others won over, and forgets those that are no longer what their keys show. `report`: where
    /// something changed; all of them without it.
    pub(super) fn check_creations(&mut self, engine: &dyn Engine, report: Option<&Report>) {
        let places = self.creations.places(report);
        if places.is_empty() {
            return;
        }
        let mut shown = Vec::with_capacity(places.len());
        engine.read(&mut |tx: &dyn Read| {
            shown = places.iter().map(|(id, key, _)| self.effective(tx, *id, &self.prefix(*id), key)).collect();
        });
        for ((parent, key, own), shown) in places.into_iter().zip(shown) {
            let Some(Value::Container(kept, Identity::Derived(life))) = shown else {
                self.creations.forget(parent, &key);
                continue;
            };
            if kept == own.kind && life == own.life {
                continue;
            }
            self.creations.forget(parent, &key);
            let lost = layout::identify(parent, key.as_bytes(), own.kind.code(), Identity::Derived(own.life));
            let lost = self.by_id.get(&(lost, own.kind)).copied();
            if let (true, Some(parent), Some(lost)) =
                (kept != own.kind && life <= own.life, self.by_id.get(&(parent, Kind::Map)).copied(), lost)
            {
                self.overruled.push(Overruled { parent, key, lost, kept });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: ObjectId = ObjectId([3; 16]);

    fn set(key: &str, content: Content) -> Edit {
        Edit::Set { object: PARENT, key: key.to_owned(), value: New::Container(Identity::Derived(0), content) }
    }

    fn keys(creations: &Creations) -> Vec<&str> {
        creations.by_age.values().map(|(_, key)| key.as_str()).collect()
    }

    #[test]
    fn the_newest_creations_are_remembered() {
        let mut creations = Creations::default();
        for i in 0..limits::CREATIONS_MAX + 2 {
            creations.note(&set(&i.to_string(), Content::Set(Vec::new())), Uid(7));
        }
        assert_eq!(creations.by_age.len(), limits::CREATIONS_MAX);
        assert_eq!(keys(&creations).first(), Some(&"2"));
        assert_eq!(creations.by_place.values().map(BTreeMap::len).sum::<usize>(), limits::CREATIONS_MAX);
    }

    #[test]
    fn what_is_in_literals_counts_and_what_is_written_over_or_undone_does_not() {
        let mut creations = Creations::default();
        let inner = |life| New::Container(Identity::Derived(life), Content::List(Vec::new()));
        creations.note(&set("a", Content::Map(vec![("in".into(), inner(0))])), Uid(1));
        creations.note(&set("b", Content::Counter(0.0)), Uid(2));
        creations.note(&set("c", Content::Counter(0.0)), Uid(2));
        creations.note(&set("d", Content::Counter(0.0)), Uid(3));
        assert_eq!(keys(&creations), ["a", "in", "b", "c", "d"]);
        creations.note(&Edit::Delete { object: PARENT, key: "d".into() }, Uid(4));
        let fresh = New::Container(Identity::Fresh(PARENT), Content::Map(vec![("no".into(), inner(0))]));
        creations.note(&Edit::Set { object: PARENT, key: "a".into(), value: fresh }, Uid(4));
        assert_eq!(keys(&creations), ["in", "b", "c"]);
        creations.undone(Uid(2));
        assert_eq!(keys(&creations), ["in"]);
        assert_eq!(creations.by_place.len(), 1);
    }

    #[test]
    fn creations_come_back_as_they_were_and_shorter_bytes_are_refused() {
        let mut creations = Creations::default();
        for key in ["x", "", "é"] {
            creations.note(&set(key, Content::Text(String::new())), Uid(u64::MAX));
        }
        let mut bytes = Vec::new();
        creations.pack(&mut bytes);
        let again = Creations::unpack(&mut Reader::new(&bytes)).expect("it reads what it wrote");
        assert_eq!(keys(&again), keys(&creations));
        assert_eq!(format!("{:?}", again.by_place), format!("{:?}", creations.by_place));
        for end in 0..bytes.len() {
            assert!(Creations::unpack(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
        }
    }
}
