//! A list that was read from bytes and stays in them: its items are checked once and made when they are looked at.
//!
//! An item may be many times as large in memory as on the wire: a part of four bytes makes a struct of eighty. Who sends a
//! list must not decide how much is allocated for it, so reading one allocates nothing.

use std::fmt;

use bytes::Bytes;

use super::codec::{Malformed, Reader, Write};

/// What can stand in a [`List`].
pub trait Item: Clone + PartialEq + fmt::Debug {
    /// The fewest bytes that one takes.
    const BYTES_MIN: usize;

    /// Appends its encoding.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads one; its bytes share `whole`, which `reader` walks.
    fn take(whole: &Bytes, reader: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// A list of items: made by a program, or read.
#[derive(Clone)]
pub struct List<T>(Form<T>);

#[derive(Clone)]
enum Form<T> {
    Made(Vec<T>),
    /// So many encoded items, which have been read once; behind the last one nothing.
    Read {
        count: usize,
        bytes: Bytes,
    },
}

impl<T: Item> List<T> {
    /// Nothing.
    pub const fn new() -> Self {
        List(Form::Made(Vec::new()))
    }

    /// Appends how many there are, and the items.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.len() as u64);
        match &self.0 {
            Form::Made(items) => items.iter().for_each(|item| item.put(out)),
            Form::Read { bytes, .. } => out.extend_from_slice(bytes),
        }
    }

    /// Reads what [`List::encode`] wrote, at most `max` items.
    pub fn decode(whole: &Bytes, reader: &mut Reader<'_>, max: usize, what: &'static str) -> Result<Self, Malformed> {
        let count = reader.count(max, T::BYTES_MIN, what)?;
        let before = *reader;
        for _ in 0..count {
            T::take(whole, reader)?;
        }
        let bytes = whole.slice_ref(before.upto(reader));
        Ok(List(Form::Read { count, bytes }))
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Made(items) => items.len(),
            Form::Read { count, .. } => *count,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items, one after the other.
    pub fn iter(&self) -> Iter<'_, T> {
        match &self.0 {
            Form::Made(items) => Iter(Items::Made(items.iter())),
            Form::Read { count, bytes } => Iter(Items::Read { left: *count, whole: bytes, at: Reader::new(bytes) }),
        }
    }

    /// The item at an index; it takes a walk to it.
    pub fn get(&self, index: usize) -> Option<T> {
        self.iter().nth(index)
    }

    /// The same list with bytes of its own: it does not keep those that it was read from.
    pub fn alone(self) -> Self {
        match self.0 {
            Form::Read { count, bytes } => List(Form::Read { count, bytes: Bytes::copy_from_slice(&bytes) }),
            made @ Form::Made(_) => List(made),
        }
    }

    /// All of them, in memory.
    pub fn to_vec(&self) -> Vec<T> {
        self.iter().collect()
    }
}

/// The items of a [`List`].
#[derive(Clone, Debug)]
pub struct Iter<'a, T>(Items<'a, T>);

#[derive(Clone, Debug)]
enum Items<'a, T> {
    Made(std::slice::Iter<'a, T>),
    Read { left: usize, whole: &'a Bytes, at: Reader<'a> },
}

impl<T: Item> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Items::Made(items) => items.next().cloned(),
            Items::Read { left, whole, at } => {
                *left = left.checked_sub(1)?;
                // All of them have been read before.
                T::take(whole, at).ok()
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Items::Made(items) => items.len(),
            Items::Read { left, .. } => *left,
        };
        (left, Some(left))
    }
}

impl<T: Item> ExactSizeIterator for Iter<'_, T> {}

impl<'a, T: Item> IntoIterator for &'a List<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        List(Form::Made(items))
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        List(Form::Made(items.into_iter().collect()))
    }
}

impl<T: Item> Default for List<T> {
    fn default() -> Self {
        List::new()
    }
}

impl<T: Item> PartialEq for List<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other)
    }
}

impl<T: Item + Eq> Eq for List<T> {}

impl<T: Item> PartialEq<Vec<T>> for List<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter().cloned())
    }
}

impl<T: Item> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}
