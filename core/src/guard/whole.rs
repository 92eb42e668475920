//! Whole states: snapshots, rolled and restored segments.
//!
//! A state has many clients, and its structs may name one another across sections, so the order in which an engine can
//! take them in must exist: structs that wait for one another stay *pending* in yrs and break every later encode.
//! Otherwise the rules are those that deltas go by, so a state made of accepted deltas is accepted.
//!
//! The walk: note where each item begins, then take in each section as far as its items' neighbours are known; a section
//! that must wait is parked at the one it waits for. Memory is eight bytes for an item, each of which takes at least
//! four in the input; time is `n log n`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::read::Cursor;
use super::space::{Runs, Space, push};
use super::yrs::{Id, deletes, head, once_each, section, sections};
use super::{GuardError, OwnRange, StateSummary};

/// One client's items and how far they have been taken in.
struct Section {
    own: OwnRange,
    /// Where each item begins in the bytes, and the clock behind it.
    items: Vec<(u32, u32)>,
    taken: usize,
    /// The name spaces of the items taken in.
    spaces: Runs<Space>,
    /// Sections parked here, by the clock they wait for.
    parked: BinaryHeap<Reverse<(u32, usize)>>,
}

/// Judges a whole state.
pub(super) fn state(bytes: &[u8]) -> Result<StateSummary, GuardError> {
    u32::try_from(bytes.len()).map_err(|_| GuardError::TooMany)?;
    let mut cursor = Cursor::new(bytes);
    let mut all = Vec::new();
    for _ in 0..sections(&mut cursor)? {
        let mut items = Vec::new();
        let own = section(&mut cursor, &mut |_, item| {
            // The cast loses nothing: the length of all bytes fits.
            items.push(((bytes.len() - item.bytes.len()) as u32, item.end));
            Ok(())
        })?;
        if own.start != 0 {
            return Err(GuardError::ClockGap);
        }
        all.push(Section { own, items, taken: 0, spaces: Runs::default(), parked: BinaryHeap::new() });
    }
    all.sort_by_key(|section| section.own.client);
    if all.windows(2).any(|pair| matches!(pair, [a, b] if a.own.client == b.own.client)) {
        return Err(GuardError::RepeatedClient);
    }
    let mut deleted = Vec::new();
    deletes(&mut cursor, &mut |client, end| match find(&all, client).and_then(|n| all.get(n)) {
        Some(section) if end <= section.own.end => {
            push(&mut deleted, (client, end));
            Ok(())
        }
        _ => Err(GuardError::UnknownClock),
    })?;
    once_each(&mut deleted)?;
    drop(deleted);
    cursor.end()?;

    let mut ready: Vec<usize> = (0..all.len()).collect();
    while let Some(n) = ready.pop() {
        take_in(bytes, &mut all, n, &mut ready)?;
    }
    if all.iter().any(|section| section.taken < section.items.len()) {
        return Err(GuardError::Cycle);
    }
    let (clients, spaces) = all.into_iter().map(|section| (section.own, section.spaces)).unzip();
    Ok(StateSummary { clients, spaces })
}

fn find(all: &[Section], client: u64) -> Option<usize> {
    all.binary_search_by_key(&client, |section| section.own.client).ok()
}

/// Takes in section `n` until it ends or must wait, then frees those that waited for what is now known.
fn take_in(bytes: &[u8], all: &mut [Section], n: usize, ready: &mut Vec<usize>) -> Result<(), GuardError> {
    let mut known = 0;
    while let Some((at, end, so_far)) = all.get(n).and_then(Section::next) {
        known = so_far;
        let item = bytes.get(at..).ok_or(GuardError::Truncated)?;
        match look(all, item)? {
            Look::Lies(space) => {
                if let Some(section) = all.get_mut(n) {
                    section.spaces.tell(known, space);
                    section.taken += 1;
                }
                known = end;
            }
            // An item that waits for its own section, for itself or what follows, waits for ever.
            Look::Waits { section, .. } if section == n => return Err(GuardError::Cycle),
            Look::Waits { section, clock } => {
                if let Some(section) = all.get_mut(section) {
                    section.parked.push(Reverse((clock, n)));
                }
                break;
            }
        }
    }
    if let Some(section) = all.get_mut(n) {
        while let Some(Reverse((clock, waiting))) = section.parked.peek().copied() {
            if clock >= known {
                break;
            }
            section.parked.pop();
            ready.push(waiting);
        }
    }
    Ok(())
}

/// Where an item lies, or what must be taken in before that can be said.
enum Look {
    Lies(Space),
    Waits { section: usize, clock: u32 },
}

fn look(all: &[Section], item: &[u8]) -> Result<Look, GuardError> {
    let head = head(&mut Cursor::new(item))?;
    let mut space = head.space;
    for Id { client, clock } in [head.left, head.right].into_iter().flatten() {
        let n = find(all, client).ok_or(GuardError::UnknownClock)?;
        let section = all.get(n).ok_or(GuardError::UnknownClock)?;
        if clock >= section.own.end {
            return Err(GuardError::UnknownClock);
        }
        if clock >= section.known() {
            return Ok(Look::Waits { section: n, clock });
        }
        let found = section.spaces.at(clock).ok_or(GuardError::UnknownClock)?;
        // Registers say so themselves.
        let torn = head.space.is_none() && found == Space::Registers;
        if torn || *space.get_or_insert(found) != found {
            return Err(GuardError::TornItem);
        }
    }
    space.map(Look::Lies).ok_or(GuardError::BadContent)
}

impl Section {
    /// One past the last clock taken in.
    fn known(&self) -> u32 {
        self.taken.checked_sub(1).and_then(|last| self.items.get(last)).map_or(0, |(_, end)| *end)
    }

    /// The next item to take in: where it begins, the clock behind it, and what is known before it.
    fn next(&self) -> Option<(usize, u32, u32)> {
        let (at, end) = self.items.get(self.taken)?;
        Some((*at as usize, *end, self.known()))
    }
}
