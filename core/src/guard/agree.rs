//! Whether two whole states hold the same under every identity that both have (CORE-PROTOCOL D4).
//!
//! An engine takes for granted that a client and a clock mean one thing: of two it keeps what came first, and yrs need not even
//! come to an end over a document in which they were joined. Copies of one process write such things, and where the log that showed
//! it was lost nobody else tells. So whole states are compared before they are merged.
//!
//! Both are read client by client, struct by struct. They may be cut in other places: what follows inside of a struct lies
//! behind its predecessor, and has the right neighbour of the whole. What lost its content may have had any.
//!
//! automerge names a change by the hash of what it says, and refuses another one in its place by itself.

use std::str::EncodeUtf16;

use super::GuardError;
use super::read::Cursor;
use super::space::Space;
use super::yrs::{DELETED, Head, Id, Item, TEXT, root_of, section, sections, structs, value};

/// Whether two states that the guard has passed agree.
pub(super) fn states(one: &[u8], other: &[u8]) -> Result<bool, GuardError> {
    let (ours, theirs) = (by_client(one)?, by_client(other)?);
    let mut rest = theirs.iter().peekable();
    for (client, ours) in ours {
        while rest.next_if(|(other, _)| *other < client).is_some() {}
        if let Some((_, theirs)) = rest.next_if(|(other, _)| *other == client)
            && !clients_agree(client, ours, theirs)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The sections of a state, from their first byte on, in the order of their clients.
fn by_client(state: &[u8]) -> Result<Vec<(u64, &[u8])>, GuardError> {
    let mut cursor = Cursor::new(state);
    let count = sections(&mut cursor)?;
    let mut all = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let bytes = cursor.rest();
        all.push((section(&mut cursor, &mut |_, _| Ok(()))?.client, bytes));
    }
    all.sort_unstable_by_key(|(client, _)| *client);
    Ok(all)
}

/// What one client has in two states, as far as both go.
fn clients_agree(client: u64, ours: &[u8], theirs: &[u8]) -> Result<bool, GuardError> {
    let mut ours = structs(ours)?.map(|item| Piece::of(item?));
    let mut theirs = structs(theirs)?.map(|item| Piece::of(item?));
    let (mut a, mut b) = (ours.next().transpose()?, theirs.next().transpose()?);
    while let (Some(one), Some(other)) = (&mut a, &mut b) {
        // Both stand at the same clock, and one of them at least begins there.
        let count = one.left().min(other.left());
        if !one.lies_like(other, client)? || !one.says_like(other, count)? {
            return Ok(false);
        }
        if one.left() == 0 {
            a = ours.next().transpose()?;
        }
        if other.left() == 0 {
            b = theirs.next().transpose()?;
        }
    }
    Ok(true)
}

/// What is left of a struct.
struct Piece<'a> {
    item: Item<'a>,
    head: Head,
    clock: u32,
    content: Content<'a>,
}

enum Content<'a> {
    Lost,
    Text(EncodeUtf16<'a>),
    Values(Cursor<'a>),
}

impl<'a> Piece<'a> {
    fn of(item: Item<'a>) -> Result<Piece<'a>, GuardError> {
        let mut cursor = Cursor::new(item.bytes);
        let head = super::yrs::head(&mut cursor)?;
        let content = match head.kind() {
            DELETED => Content::Lost,
            TEXT => Content::Text(cursor.string()?.encode_utf16()),
            _ => {
                cursor.count(1)?;
                Content::Values(cursor)
            }
        };
        Ok(Piece { item, head, clock: item.start, content })
    }

    /// Clocks that have not been compared.
    fn left(&self) -> u32 {
        self.item.end - self.clock
    }

    /// What lies to the left of where this stands.
    fn before(&self, client: u64) -> Option<Id> {
        let inside = self.clock.checked_sub(1).filter(|_| self.clock > self.item.start);
        inside.map_or(self.head.left, |clock| Some(Id { client, clock }))
    }

    /// Whether both were put into the same place.
    fn lies_like(&self, other: &Piece<'_>, client: u64) -> Result<bool, GuardError> {
        let keyed = |piece: &Piece<'_>| piece.head.space == Some(Space::Registers);
        let (ours, theirs) = ((self.before(client), self.head.right), (other.before(client), other.head.right));
        if ours != theirs || keyed(self) != keyed(other) {
            return Ok(false);
        }
        Ok(ours != (None, None) || root_of(self.item.bytes)? == root_of(other.item.bytes)?)
    }

    /// Whether both say the same for so many clocks, which are behind them then.
    fn says_like(&mut self, other: &mut Piece<'a>, count: u32) -> Result<bool, GuardError> {
        (self.clock, other.clock) = (self.clock + count, other.clock + count);
        for _ in 0..count {
            match (&mut self.content, &mut other.content) {
                (Content::Lost, Content::Lost) => break,
                (Content::Lost, content) | (content, Content::Lost) => content.pass()?,
                (Content::Text(ours), Content::Text(theirs)) => {
                    let units = (ours.next(), theirs.next());
                    // The half of a character that lost its other half is replaced.
                    let torn = [units.0, units.1].contains(&Some(u16::from_be_bytes([0xff, 0xfd])));
                    if units.0 != units.1 && !torn {
                        return Ok(false);
                    }
                }
                (Content::Values(ours), Content::Values(theirs)) => {
                    if !same(one_value(ours)?, one_value(theirs)?)? {
                        return Ok(false);
                    }
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Content<'_> {
    fn pass(&mut self) -> Result<(), GuardError> {
        match self {
            Content::Lost => {}
            Content::Text(units) => _ = units.next(),
            Content::Values(values) => _ = one_value(values)?,
        }
        Ok(())
    }
}

/// The bytes of the next value.
fn one_value<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], GuardError> {
    let bytes = cursor.rest();
    value(cursor, 0)?;
    Ok(bytes.get(..bytes.len() - cursor.remaining()).unwrap_or_default())
}

/// Whether two values are the same: yrs writes the keys of a map in any order, and a number that it has read in another form than
/// it was given it. How deep they lie was looked at.
fn same(one: &[u8], other: &[u8]) -> Result<bool, GuardError> {
    if one == other {
        return Ok(true);
    }
    if let (Some(one), Some(other)) = (number(one)?, number(other)?) {
        return Ok(one == other || one.is_nan() && other.is_nan());
    }
    let (mut a, mut b) = (Cursor::new(one), Cursor::new(other));
    let tag = a.u8()?;
    if tag != b.u8()? || !matches!(tag, 117 | 118) {
        return Ok(false);
    }
    let keyed = tag == 118;
    let count = a.count(1)?;
    if count != b.count(1)? {
        return Ok(false);
    }
    if !keyed {
        for _ in 0..count {
            if !same(one_value(&mut a)?, one_value(&mut b)?)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let (ours, theirs) = (entries(&mut a, count)?, entries(&mut b, count)?);
    for ((key, one), (name, other)) in ours.into_iter().zip(theirs) {
        if key != name || !same(one, other)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A value that is a number.
fn number(bytes: &[u8]) -> Result<Option<f64>, GuardError> {
    let mut cursor = Cursor::new(bytes);
    Ok(match cursor.u8()? {
        125 => {
            // Six bits and a sign, then seven and seven, low ones first.
            let first = cursor.u8()?;
            let size = f64::from(first & 0x3f);
            let further = |(sum, place): (f64, f64), byte: &u8| (sum + f64::from(byte & 0x7f) * place, place * 128.0);
            let (size, _) = cursor.rest().iter().fold((size, 64.0), further);
            Some(if first & 0x40 == 0 { size } else { -size })
        }
        124 => cursor.rest().first_chunk().map(|bytes| f64::from(f32::from_be_bytes(*bytes))),
        123 => cursor.rest().first_chunk().map(|bytes| f64::from_be_bytes(*bytes)),
        _ => None,
    })
}

/// The entries of a map, by key.
fn entries<'a>(cursor: &mut Cursor<'a>, count: u32) -> Result<Vec<(&'a str, &'a [u8])>, GuardError> {
    let mut all = Vec::with_capacity(count as usize);
    for _ in 0..count {
        all.push((cursor.string()?, one_value(cursor)?));
    }
    all.sort_unstable_by_key(|(key, _)| *key);
    Ok(all)
}
