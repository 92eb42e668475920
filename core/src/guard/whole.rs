//! Whole states: snapshots, rolled and restored segments.
//!
//! A state has many clients, and its structs may name one another across sections, so the order in which an engine can
//! take them in must exist: structs that wait for one another stay *pending* in yrs and break every later encode.
//! Otherwise the rules are those that deltas go by, so a state made of accepted deltas is accepted.
//!
//! The walk: note where each item begins, then take in each section as far as its items' neighbours are known; a section
//! that must wait is parked at the one it waits for. Time is `n log n`.
//!
//! Memory is eight bytes for an item, and for a section its place and what its client takes in the table: 72. Sections of one item
//! of four bytes would need more than four times the input, if client ids are numbers of one digit. Drawn at random they take eight
//! bytes: what honest replicas write has 21 bytes or more for a section, and is never refused for its size.

use std::collections::BTreeSet;

use super::clocks::{Client, Clocks, UNBOUND};
use super::read::Cursor;
use super::space::{Space, Spaces, push};
use super::yrs::{Id, deletes, head, section, sections};
use super::{CLOCK_END, GuardError};

/// What a state of no bytes may need. Parked sections, of which each had to be written, lie within what the table takes later;
/// the rest of 64 KiB is for what is on its way between lists.
const ROOM: usize = 56 << 10;
/// Bytes of a state: where an item begins is kept in two bits less than a number has.
const BYTES_END: usize = 1 << 30;

/// One client's items and how far they have been taken in.
struct Section {
    client: u64,
    /// Its items among all: the first, the next one to be taken in, and the one behind the last.
    first: u32,
    next: u32,
    behind: u32,
    /// It has a list of what is deleted.
    deletes: bool,
}

/// Where an item begins in the bytes, times four, and the code of its space, or [`UNKNOWN`]; and the clock behind it.
struct Item {
    place: u32,
    end: u32,
}

/// The code of an item that has not been taken in.
const UNKNOWN: u32 = 3;

/// Judges a whole state; the table that it comes to.
pub(super) fn state(bytes: &[u8]) -> Result<Clocks, GuardError> {
    let mut walk = Walk::of(bytes)?;
    let mut ready = Vec::new();
    for n in 0..walk.sections.len() {
        walk.take_in(n, &mut ready)?;
        while let Some(n) = ready.pop() {
            walk.take_in(n as usize, &mut ready)?;
        }
    }
    if walk.sections.iter().any(|section| section.next < section.behind) {
        return Err(GuardError::Cycle);
    }
    drop(ready);
    walk.table()
}

struct Walk<'a> {
    bytes: &'a [u8],
    /// By client.
    sections: Vec<Section>,
    items: Vec<Item>,
    /// Sections that wait: for which section, up to which clock, which one.
    parked: BTreeSet<(u32, u32, u32)>,
}

impl<'a> Walk<'a> {
    /// Reads all of a state but how its items lie to one another.
    fn of(bytes: &'a [u8]) -> Result<Walk<'a>, GuardError> {
        if bytes.len() >= BYTES_END {
            return Err(GuardError::TooMany);
        }
        // How much there is, is counted before there is room for it.
        let (mut cursor, mut count) = (Cursor::new(bytes), 0_usize);
        let sections = sections(&mut cursor)? as usize;
        for _ in 0..sections {
            section(&mut cursor, &mut |_, _| {
                count += 1;
                Ok(())
            })?;
        }
        let mut walk = Walk { bytes, sections: Vec::new(), items: Vec::new(), parked: BTreeSet::new() };
        walk.fits(sections, count, 0)?;
        walk.sections.reserve_exact(sections);
        walk.items.reserve_exact(count);
        let mut cursor = Cursor::new(bytes);
        for _ in 0..self::sections(&mut cursor)? {
            let first = walk.items.len() as u32;
            let own = section(&mut cursor, &mut |_, item| {
                // The casts lose nothing: an item takes bytes, and the number of these is bounded.
                let place = ((bytes.len() - item.bytes.len()) as u32) << 2 | UNKNOWN;
                walk.items.push(Item { place, end: item.end });
                Ok(())
            })?;
            if own.start != 0 {
                return Err(GuardError::ClockGap);
            }
            let behind = walk.items.len() as u32;
            walk.sections.push(Section { client: own.client, first, next: first, behind, deletes: false });
        }
        walk.sections.sort_unstable_by_key(|section| section.client);
        if walk.sections.windows(2).any(|pair| matches!(pair, [a, b] if a.client == b.client)) {
            return Err(GuardError::RepeatedClient);
        }
        deletes(&mut cursor, &mut |client, end| {
            let n = walk.find(client).ok_or(GuardError::UnknownClock)?;
            if end > walk.end(n) {
                return Err(GuardError::UnknownClock);
            }
            let twice = walk.sections.get_mut(n).is_some_and(|section| std::mem::replace(&mut section.deletes, true));
            if twice { Err(GuardError::RepeatedClient) } else { Ok(()) }
        })?;
        cursor.end()?;
        Ok(walk)
    }

    /// Whether there may be so many sections and items, and so much for what clients' spaces need beside the table.
    fn fits(&self, sections: usize, items: usize, beside: usize) -> Result<(), GuardError> {
        let section = size_of::<Section>() + size_of::<(u64, Client)>();
        let all = sections * section + items * size_of::<Item>() + beside;
        if all > 4 * self.bytes.len() + ROOM { Err(GuardError::TooMany) } else { Ok(()) }
    }

    fn find(&self, client: u64) -> Option<usize> {
        self.sections.binary_search_by_key(&client, |section| section.client).ok()
    }

    /// One past the last clock of the items before this one in a section.
    fn behind(&self, section: &Section, item: u32) -> u32 {
        let before = if item > section.first { self.items.get(item as usize - 1) } else { None };
        before.map_or(0, |item| item.end)
    }

    /// One past the last clock of a section.
    fn end(&self, n: usize) -> u32 {
        self.sections.get(n).map_or(0, |section| self.behind(section, section.behind))
    }

    /// One past the last clock of a section that was taken in.
    fn known(&self, n: usize) -> u32 {
        self.sections.get(n).map_or(0, |section| self.behind(section, section.next))
    }

    /// The space of a clock that was taken in.
    fn space(&self, n: usize, clock: u32) -> Option<Space> {
        let section = self.sections.get(n)?;
        let items = self.items.get(section.first as usize..section.next as usize)?;
        items.get(items.partition_point(|item| item.end <= clock))?.space()
    }

    /// Takes in section `n` until it ends or must wait, then frees those that waited for what is now known.
    fn take_in(&mut self, n: usize, ready: &mut Vec<u32>) -> Result<(), GuardError> {
        while let Some(section) = self.sections.get(n).filter(|section| section.next < section.behind) {
            let next = section.next as usize;
            match self.look(next)? {
                Look::Lies(space) => {
                    if let (Some(item), Some(section)) = (self.items.get_mut(next), self.sections.get_mut(n)) {
                        item.place = item.place & !UNKNOWN | space.code() as u32;
                        section.next += 1;
                    }
                }
                // An item that waits for its own section, for itself or what follows, waits for ever.
                Look::Waits { section, .. } if section == n => return Err(GuardError::Cycle),
                Look::Waits { section, clock } => {
                    self.parked.insert((section as u32, clock, n as u32));
                    break;
                }
            }
        }
        let known = self.known(n);
        let here = (n as u32, 0, 0)..(n as u32, known, 0);
        while let Some(waiting) = self.parked.range(here.clone()).next().copied() {
            self.parked.remove(&waiting);
            push(ready, waiting.2);
        }
        Ok(())
    }

    fn look(&self, item: usize) -> Result<Look, GuardError> {
        let at = self.items.get(item).map_or(self.bytes.len(), |item| (item.place >> 2) as usize);
        let head = head(&mut Cursor::new(self.bytes.get(at..).ok_or(GuardError::Truncated)?))?;
        let mut space = head.space;
        for Id { client, clock } in [head.left, head.right].into_iter().flatten() {
            let n = self.find(client).ok_or(GuardError::UnknownClock)?;
            if clock >= self.end(n) {
                return Err(GuardError::UnknownClock);
            }
            if clock >= self.known(n) {
                return Ok(Look::Waits { section: n, clock });
            }
            let found = self.space(n, clock).ok_or(GuardError::UnknownClock)?;
            // Registers say so themselves.
            let torn = head.space.is_none() && found == Space::Registers;
            if torn || *space.get_or_insert(found) != found {
                return Err(GuardError::TornItem);
            }
        }
        space.map(Look::Lies).ok_or(GuardError::BadContent)
    }

    /// The runs of a section that was taken in.
    fn runs(&self, section: &Section) -> impl Iterator<Item = (u32, Space)> + Clone + '_ {
        let (mut clock, mut last) = (0, None);
        let items = self.items.get(section.first as usize..section.next as usize).unwrap_or_default();
        items.iter().filter_map(move |item| {
            let (start, space) = (std::mem::replace(&mut clock, item.end), item.space()?);
            (last.replace(space) != Some(space)).then_some((start, space))
        })
    }

    /// The table, when all is taken in.
    fn table(self) -> Result<Clocks, GuardError> {
        let beside = self.sections.iter().map(|section| Spaces::memory(self.runs(section))).sum();
        self.fits(self.sections.len(), self.items.len(), beside)?;
        let mut clients = Vec::with_capacity(self.sections.len());
        for section in &self.sections {
            let (next, spaces) = (self.behind(section, section.behind), Spaces::of(self.runs(section)));
            debug_assert!(0 < next && next <= CLOCK_END, "the walk of a section checks this");
            clients.push((section.client, Client { owner: UNBOUND, next, spaces }));
        }
        Ok(Clocks::of(clients))
    }
}

/// Where an item lies, or what must be taken in before that can be said.
enum Look {
    Lies(Space),
    Waits { section: usize, clock: u32 },
}

impl Item {
    fn space(&self) -> Option<Space> {
        Space::of_code(u64::from(self.place & UNKNOWN))
    }
}
