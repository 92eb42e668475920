//! A plain-value model of one segment, kept only by wishes and patches, as `js/src/mirror.ts` keeps it.
//!
//! It trusts nothing: a patch for an object it does not know, of another kind, or outside a list is a failure, as it is in
//! JavaScript. Handles of new containers continue where the last one ended, outer before inner.

use std::collections::{BTreeMap, BTreeSet};

use coheap_core::edit::{Handle, Literal, Patch, Shown, Wish};
use coheap_core::id::ObjectId;
use coheap_core::segment::layout::{member_code, member_of};
use coheap_core::value::{Kind, Value};

use crate::tree::{Exact, Tree, by_key};

/// One object.
#[derive(Clone, PartialEq, Debug)]
pub enum Node {
    /// Keys.
    Map(BTreeMap<String, Shown>),
    /// Elements.
    List(Vec<Shown>),
    /// UTF-16 units.
    Text(Vec<u16>),
    /// A sum.
    Counter(f64),
    /// Members by code.
    Set(BTreeMap<String, Value>),
}

impl Node {
    fn new(kind: Kind) -> Node {
        match kind {
            Kind::Map => Node::Map(BTreeMap::new()),
            Kind::List => Node::List(Vec::new()),
            Kind::Text => Node::Text(Vec::new()),
            Kind::Counter => Node::Counter(0.0),
            Kind::Set => Node::Set(BTreeMap::new()),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Node::Map(_) => Kind::Map,
            Node::List(_) => Kind::List,
            Node::Text(_) => Kind::Text,
            Node::Counter(_) => Kind::Counter,
            Node::Set(_) => Kind::Set,
        }
    }
}

/// A segment as plain values.
#[derive(Clone, Debug)]
pub struct Mirror {
    nodes: Vec<Option<Node>>,
    /// Runs that are done, by group.
    pub marks: BTreeMap<String, String>,
    /// Objects that are there although nothing holds them.
    pub near: BTreeMap<ObjectId, Handle>,
}

impl Default for Mirror {
    fn default() -> Self {
        Mirror { nodes: vec![Some(Node::new(Kind::Map))], marks: BTreeMap::new(), near: BTreeMap::new() }
    }
}

impl Mirror {
    /// A mirror of an empty segment.
    pub fn new() -> Self {
        Mirror::default()
    }

    /// A mirror of what patches say.
    pub fn of(patches: &[Patch]) -> Self {
        let mut mirror = Mirror::new();
        mirror.apply(patches);
        mirror
    }

    /// How many handles it knows of.
    pub fn handles(&self) -> usize {
        self.nodes.len()
    }

    /// The object of a handle.
    pub fn node(&self, handle: Handle) -> &Node {
        self.nodes
            .get(handle.0 as usize)
            .and_then(Option::as_ref)
            .unwrap_or_else(|| panic!("the mirror knows no object {}", handle.0))
    }

    fn node_mut(&mut self, handle: Handle) -> &mut Node {
        self.nodes
            .get_mut(handle.0 as usize)
            .and_then(Option::as_mut)
            .unwrap_or_else(|| panic!("the mirror knows no object {}", handle.0))
    }

    fn map(&mut self, handle: Handle) -> &mut BTreeMap<String, Shown> {
        match self.node_mut(handle) {
            Node::Map(entries) => entries,
            other => panic!("object {} is no map: {other:?}", handle.0),
        }
    }

    fn list(&mut self, handle: Handle) -> &mut Vec<Shown> {
        match self.node_mut(handle) {
            Node::List(values) => values,
            other => panic!("object {} is no list: {other:?}", handle.0),
        }
    }

    fn text(&mut self, handle: Handle) -> &mut Vec<u16> {
        match self.node_mut(handle) {
            Node::Text(units) => units,
            other => panic!("object {} is no text: {other:?}", handle.0),
        }
    }

    fn counter(&mut self, handle: Handle) -> &mut f64 {
        match self.node_mut(handle) {
            Node::Counter(value) => value,
            other => panic!("object {} is no counter: {other:?}", handle.0),
        }
    }

    fn set(&mut self, handle: Handle) -> &mut BTreeMap<String, Value> {
        match self.node_mut(handle) {
            Node::Set(members) => members,
            other => panic!("object {} is no set: {other:?}", handle.0),
        }
    }

    /// As a JavaScript `Set` takes a member: −0 is 0.
    fn include(&mut self, handle: Handle, member: &Value) {
        let code = member_code(member).expect("a member");
        let member = member_of(&code).expect("a member");
        self.set(handle).insert(code, member);
    }

    /// Takes in what a patch shows: a handle that is new makes a node.
    fn shown(&mut self, value: &Shown) -> Shown {
        if let Shown::Object(kind, handle) = value {
            let at = handle.0 as usize;
            if self.nodes.len() <= at {
                self.nodes.resize(at + 1, None);
            }
            match &self.nodes[at] {
                None => self.nodes[at] = Some(Node::new(*kind)),
                Some(node) => assert_eq!(node.kind(), *kind, "object {at} changes its kind"),
            }
        }
        value.clone()
    }

    /// Takes in all that a segment holds now, in the place of what it held: handles stay.
    pub fn reset(&mut self, patches: &[Patch]) {
        self.marks.clear();
        // What nothing holds is there only if it is said to be.
        self.near.clear();
        self.apply(patches);
    }

    /// Does what the core says.
    pub fn apply(&mut self, patches: &[Patch]) {
        for patch in patches {
            self.apply_one(patch);
        }
    }

    fn apply_one(&mut self, patch: &Patch) {
        match patch {
            Patch::Set { object, key, value } => {
                let value = self.shown(value);
                self.map(*object).insert(key.clone(), value);
            }
            Patch::Delete { object, key } => {
                self.map(*object).remove(key);
            }
            Patch::Insert { object, index, values } => {
                let values: Vec<Shown> = values.iter().map(|value| self.shown(value)).collect();
                let list = self.list(*object);
                assert!(*index as usize <= list.len(), "{patch:?} in a list of {}", list.len());
                list.splice(*index as usize..*index as usize, values);
            }
            Patch::Remove { object, index, count } => {
                let list = self.list(*object);
                let end = (*index + *count) as usize;
                assert!(end <= list.len(), "{patch:?} in a list of {}", list.len());
                list.drain(*index as usize..end);
            }
            Patch::Put { object, index, value } => {
                let value = self.shown(value);
                let list = self.list(*object);
                assert!((*index as usize) < list.len(), "{patch:?} in a list of {}", list.len());
                list[*index as usize] = value;
            }
            Patch::Move { object, from, to } => {
                let list = self.list(*object);
                assert!((*from.max(to) as usize) < list.len(), "{patch:?} in a list of {}", list.len());
                let moved = list.remove(*from as usize);
                list.insert(*to as usize, moved);
            }
            Patch::Splice { object, index, removed, inserted } => {
                let text = self.text(*object);
                let end = (*index + *removed) as usize;
                assert!(end <= text.len(), "{patch:?} in a text of {}", text.len());
                text.splice(*index as usize..end, inserted.encode_utf16());
            }
            Patch::Total { object, value } => *self.counter(*object) = *value,
            Patch::Include { object, member } => {
                self.include(*object, member);
            }
            Patch::Exclude { object, member } => {
                self.set(*object).remove(&member_code(member).expect("a member"));
            }
            Patch::Root { kind } => {
                if self.node(Handle(0)).kind() != *kind {
                    self.nodes[0] = Some(Node::new(*kind));
                }
            }
            Patch::Clear { object } => {
                let kind = self.node(*object).kind();
                *self.node_mut(*object) = Node::new(kind);
            }
            Patch::Mark { group, run } => {
                self.marks.insert(group.clone(), run.clone());
            }
            Patch::Near { id, kind, object } => {
                self.shown(&Shown::Object(*kind, *object));
                self.near.insert(*id, *object);
            }
        }
    }

    /// Makes the nodes of a literal, outer before inner.
    fn make(&mut self, literal: &Literal) -> Shown {
        let Some(kind) = literal.kind() else {
            let Literal::Scalar(value) = literal else { unreachable!("only scalars have no kind") };
            return Shown::Scalar(value.clone());
        };
        let handle = Handle(self.nodes.len() as u32);
        self.nodes.push(Some(Node::new(kind)));
        self.fill(handle, literal);
        Shown::Object(kind, handle)
    }

    fn fill(&mut self, handle: Handle, literal: &Literal) {
        match literal {
            Literal::Scalar(_) => {}
            Literal::Map(entries) => {
                for (key, value) in entries {
                    let value = self.make(value);
                    self.map(handle).insert(key.clone(), value);
                }
            }
            Literal::List(values) => {
                for value in values {
                    let value = self.make(value);
                    self.list(handle).push(value);
                }
            }
            Literal::Text(text) => *self.text(handle) = text.encode_utf16().collect(),
            Literal::Counter(base) => *self.counter(handle) = *base,
            Literal::Set(members) => {
                for member in members {
                    self.include(handle, member);
                }
            }
        }
    }

    /// Does what a program does, before the core has heard of it.
    pub fn wish(&mut self, wish: &Wish) {
        match wish {
            Wish::Set { object, key, value } => {
                let value = self.make(value);
                self.map(*object).insert(key.clone(), value);
            }
            Wish::Default { object, key, value } => {
                assert!(!self.map(*object).contains_key(key), "a default for a key that is there");
                let value = self.make(value);
                self.map(*object).insert(key.clone(), value);
            }
            Wish::Delete { object, key } => {
                self.map(*object).remove(key);
            }
            Wish::Insert { object, index, values } => {
                let values: Vec<Shown> = values.iter().map(|value| self.make(value)).collect();
                self.list(*object).splice(*index as usize..*index as usize, values);
            }
            Wish::Remove { object, index, count } => {
                self.list(*object).drain(*index as usize..(*index + *count) as usize);
            }
            Wish::Put { object, index, value } => {
                let value = self.make(value);
                self.list(*object)[*index as usize] = value;
            }
            Wish::Move { object, from, to } => {
                let list = self.list(*object);
                let moved = list.remove(*from as usize);
                list.insert(*to as usize, moved);
            }
            Wish::Splice { object, index, removed, inserted } => {
                let range = *index as usize..(*index + *removed) as usize;
                self.text(*object).splice(range, inserted.encode_utf16());
            }
            Wish::Add { object, by } => *self.counter(*object) += by,
            Wish::Include { object, member } => {
                self.include(*object, member);
            }
            Wish::Exclude { object, member } => {
                self.set(*object).remove(&member_code(member).expect("a member"));
            }
            Wish::Root { value } => {
                self.nodes[0] = Some(Node::new(value.kind().expect("a container")));
                self.fill(Handle(0), value);
            }
            Wish::Mark { group, run } => {
                self.marks.insert(group.clone(), run.clone());
            }
            Wish::Near { object, value } => {
                let Shown::Object(_, handle) = self.make(value) else { panic!("a container") };
                self.near.insert(*object, handle);
            }
        }
    }

    /// Everything from the first object on.
    pub fn value(&self) -> Tree {
        self.tree(Handle(0), &mut BTreeSet::new())
    }

    /// Everything from an object on.
    pub fn tree_at(&self, handle: Handle) -> Tree {
        self.tree(handle, &mut BTreeSet::new())
    }

    /// Everything from the objects on that nothing holds.
    pub fn nears(&self) -> BTreeMap<ObjectId, Tree> {
        self.near.iter().map(|(id, handle)| (*id, self.tree_at(*handle))).collect()
    }

    fn tree(&self, handle: Handle, within: &mut BTreeSet<Handle>) -> Tree {
        if !within.insert(handle) {
            return Tree::Loop;
        }
        let tree = match self.node(handle) {
            Node::Map(entries) => {
                let mut entries: Vec<(String, Tree)> =
                    entries.iter().map(|(key, value)| (key.clone(), self.tree_of(value, within))).collect();
                entries.sort_by(|(a, _), (b, _)| by_key(a, b));
                Tree::Map(entries)
            }
            Node::List(values) => Tree::List(values.iter().map(|value| self.tree_of(value, within)).collect()),
            Node::Text(units) => Tree::Text(String::from_utf16(units).expect("no half characters")),
            Node::Counter(value) => Tree::Counter(Exact(Value::Number(if *value == 0.0 { 0.0 } else { *value }))),
            Node::Set(members) => Tree::Set(members.values().cloned().map(Exact).collect()),
        };
        within.remove(&handle);
        tree
    }

    fn tree_of(&self, value: &Shown, within: &mut BTreeSet<Handle>) -> Tree {
        match value {
            Shown::Scalar(value) => Tree::Scalar(Exact(value.clone())),
            Shown::Object(_, handle) => self.tree(*handle, within),
        }
    }

    /// The objects that the first object leads to, and those that are there without it, in the order of a walk.
    pub fn reachable(&self) -> Vec<Handle> {
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        let mut open: Vec<Handle> = self.near.values().copied().chain([Handle(0)]).collect();
        while let Some(handle) = open.pop() {
            if !seen.insert(handle) {
                continue;
            }
            order.push(handle);
            let children: Vec<&Shown> = match self.node(handle) {
                Node::Map(entries) => entries.values().collect(),
                Node::List(values) => values.iter().collect(),
                _ => Vec::new(),
            };
            open.extend(children.into_iter().filter_map(|child| match child {
                Shown::Object(_, handle) => Some(*handle),
                Shown::Scalar(_) => None,
            }));
        }
        order
    }

    /// The object under a path of keys and indexes separated by `/`.
    pub fn find(&self, path: &str) -> Handle {
        let mut handle = Handle(0);
        for step in path.split('/').filter(|step| !step.is_empty()) {
            let shown = match self.node(handle) {
                Node::Map(entries) => entries.get(step),
                Node::List(values) => step.parse::<usize>().ok().and_then(|index| values.get(index)),
                _ => None,
            };
            handle = match shown {
                Some(Shown::Object(_, handle)) => *handle,
                other => panic!("no object under {path}: {other:?}"),
            };
        }
        handle
    }
}
