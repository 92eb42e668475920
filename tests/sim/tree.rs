//! What a program sees: one comparable value for a whole segment.
//!
//! Equality is exact (−0 is not 0, NaN is NaN, 5 is not 5n). Maps stand in the order of S6, sets in one order.

use std::cmp::Ordering;

use coheap_core::value::{Ref, Value};

/// A value as a program sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tree {
    /// A scalar.
    Scalar(Exact),
    /// Entries in the order of S6.
    Map(Vec<(String, Tree)>),
    /// Elements.
    List(Vec<Tree>),
    /// Characters.
    Text(String),
    /// A number, compared bit by bit.
    Counter(Exact),
    /// Members.
    Set(Vec<Exact>),
    /// A container inside itself.
    Loop,
}

/// A scalar that is equal only to what is stored the same way.
#[derive(Clone)]
pub struct Exact(pub Value);

impl Exact {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.encode_tagged(&mut out);
        out
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Exact {}

impl std::fmt::Debug for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Tree {
    /// How many scalars, characters runs, counters and members it holds.
    pub fn values(&self) -> usize {
        match self {
            Tree::Scalar(_) | Tree::Text(_) | Tree::Counter(_) | Tree::Loop => 1,
            Tree::Map(entries) => entries.iter().map(|(_, value)| value.values()).sum(),
            Tree::List(values) => values.iter().map(Tree::values).sum(),
            Tree::Set(members) => members.len(),
        }
    }

    /// What lies under a path of keys and indexes separated by `/`; `None` if nothing does.
    pub fn at(&self, path: &str) -> Option<&Tree> {
        let mut tree = self;
        for step in path.split('/').filter(|step| !step.is_empty()) {
            tree = match tree {
                Tree::Map(entries) => &entries.iter().find(|(key, _)| key == step)?.1,
                Tree::List(values) => values.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(tree)
    }

    /// The keys of a map.
    pub fn keys(&self) -> Vec<&str> {
        match self {
            Tree::Map(entries) => entries.iter().map(|(key, _)| key.as_str()).collect(),
            _ => panic!("{self:?} is no map"),
        }
    }

    /// The elements of a list.
    pub fn elements(&self) -> &[Tree] {
        match self {
            Tree::List(values) => values,
            _ => panic!("{self:?} is no list"),
        }
    }

    /// The characters of a text.
    pub fn text(&self) -> &str {
        match self {
            Tree::Text(text) => text,
            _ => panic!("{self:?} is no text"),
        }
    }
}

/// The order of keys (S6): integer-like ones ascending, then the rest by UTF-16 code units.
pub fn by_key(a: &str, b: &str) -> Ordering {
    match (index_of(a), index_of(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.encode_utf16().cmp(b.encode_utf16()),
    }
}

fn index_of(key: &str) -> Option<u32> {
    let index = key.parse::<u32>().ok().filter(|index| *index < u32::MAX)?;
    if index.to_string() == key { Some(index) } else { None }
}

/// A map.
pub fn map<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    let mut entries: Vec<(String, Tree)> = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    entries.sort_by(|(a, _), (b, _)| by_key(a, b));
    Tree::Map(entries)
}

/// A list.
pub fn list<const N: usize>(values: [Tree; N]) -> Tree {
    Tree::List(values.into())
}

/// A number.
pub fn num(number: impl Into<f64>) -> Tree {
    Tree::Scalar(Exact(Value::Number(number.into())))
}

/// A string.
pub fn str(text: &str) -> Tree {
    Tree::Scalar(Exact(Value::Str(text.to_owned())))
}

/// Any scalar.
pub fn scalar(value: Value) -> Tree {
    Tree::Scalar(Exact(value))
}

/// A pointer.
pub fn pointer(target: Ref) -> Tree {
    Tree::Scalar(Exact(Value::Ref(target)))
}

/// A text.
pub fn text(text: &str) -> Tree {
    Tree::Text(text.to_owned())
}

/// A counter.
pub fn counter(value: impl Into<f64>) -> Tree {
    Tree::Counter(Exact(Value::Number(value.into())))
}

/// A set of strings.
pub fn set<const N: usize>(members: [&str; N]) -> Tree {
    let mut members: Vec<&str> = members.into();
    members.sort_unstable();
    Tree::Set(members.into_iter().map(|member| Exact(Value::Str(member.to_owned()))).collect())
}
