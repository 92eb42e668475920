//! What this replica made under absent keys, remembered so that it can say what it has lost: of containers of different kinds that
//! are put under one key at once, one wins everywhere, and each replica that made another one tells its program (SEMANTICS S2).
//!
//! That two creations did not know of each other follows from their identities (`SEGMENT.md` §5). Whoever sees a value puts a
//! *fresh* container over it, and whoever has seen it deleted begins a later life. So a *derived* container of another kind and
//! of no later life, found where this replica put one, was made at once with it, whichever of them came first.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::{Engine, Read};
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

#[derive(Clone, PartialEq, Debug)]
struct Creation {
    parent: ObjectId,
    key: String,
    kind: Kind,
    life: u64,
    /// The commit that made it.
    uid: Uid,
}

/// The newest creations of this replica in one segment, the oldest first; at most one a place.
#[derive(Clone, Debug, Default)]
pub(super) struct Creations {
    list: Vec<Creation>,
    /// Their places.
    places: BTreeMap<ObjectId, BTreeSet<String>>,
}

impl Creations {
    fn remember(&mut self, creation: Creation) {
        self.forget(creation.parent, &creation.key);
        if self.list.len() >= limits::CREATIONS_MAX {
            // Many at a time: each move of the list is paid by as many creations.
            let old: Vec<Creation> = self.list.drain(..limits::CREATIONS_MAX / 4).collect();
            for creation in old {
                self.leave(creation.parent, &creation.key);
            }
        }
        self.places.entry(creation.parent).or_default().insert(creation.key.clone());
        self.list.push(creation);
    }

    fn forget(&mut self, parent: ObjectId, key: &str) {
        if !self.leave(parent, key) {
            return;
        }
        if let Some(at) = self.list.iter().rposition(|creation| creation.parent == parent && creation.key == key) {
            self.list.remove(at);
        }
    }

    fn leave(&mut self, parent: ObjectId, key: &str) -> bool {
        let Some(keys) = self.places.get_mut(&parent) else { return false };
        let there = keys.remove(key);
        if keys.is_empty() {
            self.places.remove(&parent);
        }
        there
    }

    /// The commit did not happen.
    pub(super) fn undone(&mut self, uid: Uid) {
        for creation in std::mem::take(&mut self.list) {
            if creation.uid == uid {
                self.leave(creation.parent, &creation.key);
            } else {
                self.list.push(creation);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Those of the newest commit, if this is it.
    pub(super) fn made_by(&self, uid: Uid) -> Creations {
        let from = self.list.iter().rposition(|creation| creation.uid != uid).map_or(0, |at| at + 1);
        let mut made = Creations::default();
        for creation in self.list.iter().skip(from) {
            made.remember(creation.clone());
        }
        made
    }

    /// These came after them.
    pub(super) fn extend(&mut self, newer: Creations) {
        for creation in newer.list {
            self.remember(creation);
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
        self.remember(Creation { parent, key: key.to_owned(), kind: content.kind(), life: *life, uid });
        if let Content::Map(entries) = content {
            let id = ObjectId::derive(parent, key.as_bytes(), content.kind().code(), *life);
            for (key, value) in entries {
                self.note_new(id, key, value, uid);
            }
        }
    }

    /// The creations where something changed; all of them without a report.
    fn changed(&self, report: Option<&Report>) -> Vec<Creation> {
        let Some(report) = report else { return self.list.clone() };
        let mut changed = Vec::new();
        if self.list.is_empty() {
            return changed;
        }
        for (parent, touched) in report {
            let Some(keys) = self.places.get(parent) else { continue };
            let hit = |key: &String| touched.changed_keys().is_none_or(|touched| touched.contains(key));
            let any = touched.changed_keys().is_none_or(|touched| touched.iter().any(|key| keys.contains(key)));
            if any {
                changed.extend(self.list.iter().filter(|own| own.parent == *parent && hit(&own.key)).cloned());
            }
        }
        changed
    }

    /// Appends `creations` (`replica/packed.rs`).
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        out.varint(self.list.len() as u64);
        for creation in &self.list {
            out.extend_from_slice(&creation.parent.0);
            out.str(&creation.key);
            out.push(creation.kind.code());
            out.varint(creation.life);
            Write::u64(out, creation.uid.0);
        }
    }

    /// Reads `creations`.
    pub(super) fn unpack(r: &mut Reader<'_>) -> Result<Creations, Malformed> {
        let mut creations = Creations::default();
        for _ in 0..r.count(limits::CREATIONS_MAX, 1, "creations")? {
            let parent = ObjectId(r.array()?);
            let key = r.str(limits::LONG_BYTES_MAX, "key")?.to_owned();
            let kind = Kind::from_code(r.u8()?).ok_or(Malformed::Field("kind"))?;
            creations.remember(Creation { parent, key, kind, life: r.varint()?, uid: Uid(r.u64()?) });
        }
        Ok(creations)
    }
}

impl Objects {
    /// Finds the own creations that others won over, and forgets those that are no longer what their keys show. `report`: where
    /// something changed; all of them without it.
    pub(super) fn check_creations(&mut self, engine: &dyn Engine, report: Option<&Report>) {
        let changed = self.creations.changed(report);
        if changed.is_empty() {
            return;
        }
        let mut shown = Vec::with_capacity(changed.len());
        engine.read(&mut |tx: &dyn Read| {
            for own in &changed {
                shown.push(self.effective(tx, own.parent, &self.prefix(own.parent), &own.key));
            }
        });
        for (own, shown) in changed.into_iter().zip(shown) {
            // In a map that is gone nothing is lost to another kind: the deletion took it (S5).
            let parent = self.by_id.get(&(own.parent, Kind::Map)).copied();
            let Some(parent) = parent.filter(|parent| self.is_shown(*parent)) else { continue };
            let other = match shown {
                Some(Value::Container(kind, Identity::Derived(life))) => Some((kind, life)),
                _ => None,
            };
            if other == Some((own.kind, own.life)) {
                continue;
            }
            self.creations.forget(own.parent, &own.key);
            let Some((kept, _)) = other.filter(|(kind, life)| *kind != own.kind && *life <= own.life) else { continue };
            let lost = ObjectId::derive(own.parent, own.key.as_bytes(), own.kind.code(), own.life);
            if let Some(lost) = self.by_id.get(&(lost, own.kind)).copied() {
                self.overruled.push(Overruled { parent, key: own.key, lost, kept });
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
        let placed: usize = creations.places.values().map(BTreeSet::len).sum();
        assert_eq!(placed, creations.list.len());
        creations.list.iter().map(|creation| creation.key.as_str()).collect()
    }

    #[test]
    fn the_newest_creations_are_remembered() {
        let mut creations = Creations::default();
        for i in 0..limits::CREATIONS_MAX + 2 {
            creations.note(&set(&i.to_string(), Content::Set(Vec::new())), Uid(7));
            assert!(creations.list.len() <= limits::CREATIONS_MAX);
        }
        let oldest = (limits::CREATIONS_MAX / 4).to_string();
        assert_eq!(keys(&creations).first(), Some(&oldest.as_str()));
        assert_eq!(creations.list.len(), limits::CREATIONS_MAX * 3 / 4 + 2);
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
        assert_eq!(creations.places.len(), 1);
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
        assert_eq!(again.list, creations.list);
        for end in 0..bytes.len() {
            assert!(Creations::unpack(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
        }
    }
}
