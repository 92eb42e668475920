//! Whole states: snapshots, rolled and restored segments.
//!
//! A state has many clients, and its structs may name one another across sections, so the order in which an engine can
//! take them in must exist: structs that wait for one another stay *pending* in yrs and break every later encode. As
//! the whole document is at hand, one more thing can be decided here that a delta cannot show: that the neighbours an
//! item names lie in one list, or under one key. (An engine that links an item into two chains at once corrupts memory.)
//!
//! The walk: read all sections into a flat list of items, then take each section as far as its items' neighbours are
//! known; a section that must wait is parked at the one it waits for. Memory is about 50 bytes for an item (each takes
//! at least 4 in the input, rarely under 10), time `n log n`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::read::Cursor;
use super::yrs::{Id, Item, Place, deletes, section, sections};
use super::{GuardError, OwnRange, StateSummary};

/// A list, or one key of a map: items lie in one chain each.
type Chain = u32;

/// One client's items and how far they have been taken in.
struct Section<'a> {
    own: OwnRange,
    items: Vec<Item<'a>>,
    chains: Vec<Chain>,
    /// Sections parked here, by the clock they wait for.
    parked: BinaryHeap<Reverse<(u32, usize)>>,
}

/// Judges a whole state.
pub(super) fn state(bytes: &[u8]) -> Result<StateSummary, GuardError> {
    let mut cursor = Cursor::new(bytes);
    let mut all = Vec::new();
    for _ in 0..sections(&mut cursor)? {
        let mut items = Vec::new();
        let own = section(&mut cursor, &mut |_, item| {
            items.push(item);
            Ok(())
        })?;
        if own.start != 0 {
            return Err(GuardError::ClockGap);
        }
        all.push(Section { own, items, chains: Vec::new(), parked: BinaryHeap::new() });
    }
    all.sort_by_key(|section| section.own.client);
    if all.windows(2).any(|pair| matches!(pair, [a, b] if a.own.client == b.own.client)) {
        return Err(GuardError::RepeatedClient);
    }
    deletes(&mut cursor, &mut |client, end| match find(&all, client).and_then(|n| all.get(n)) {
        Some(section) if end <= section.own.end => Ok(()),
        _ => Err(GuardError::UnknownClock),
    })?;
    cursor.end()?;
    let clients = all.iter().map(|section| section.own).collect();
    Walk { all, roots: BTreeMap::new() }.run()?;
    Ok(StateSummary { clients })
}

fn find(all: &[Section<'_>], client: u64) -> Option<usize> {
    all.binary_search_by_key(&client, |section| section.own.client).ok()
}

struct Walk<'a> {
    all: Vec<Section<'a>>,
    /// Chains by root name and key, and whether the chain has a key.
    roots: BTreeMap<(&'a str, Option<&'a str>), Chain>,
}

/// What one look at a neighbour gave.
enum Look {
    In(Chain),
    Wait { section: usize, clock: u32 },
}

impl<'a> Walk<'a> {
    fn run(mut self) -> Result<(), GuardError> {
        let mut ready: Vec<usize> = (0..self.all.len()).collect();
        while let Some(n) = ready.pop() {
            self.advance(n, &mut ready)?;
        }
        let done = self.all.iter().all(|section| section.chains.len() == section.items.len());
        if done { Ok(()) } else { Err(GuardError::Cycle) }
    }

    /// Takes in section `n` until it ends or must wait, then frees those that waited for what is now known.
    fn advance(&mut self, n: usize, ready: &mut Vec<usize>) -> Result<(), GuardError> {
        while let Some(item) = self.all.get(n).and_then(|s| s.items.get(s.chains.len()).copied()) {
            match self.chain(item)? {
                Look::In(chain) => {
                    if let Some(section) = self.all.get_mut(n) {
                        section.chains.push(chain);
                    }
                }
                // An item that waits for its own section, for itself or what follows, waits for ever.
                Look::Wait { section, .. } if section == n => return Err(GuardError::Cycle),
                Look::Wait { section, clock } => {
                    if let Some(section) = self.all.get_mut(section) {
                        section.parked.push(Reverse((clock, n)));
                    }
                    break;
                }
            }
        }
        if let Some(section) = self.all.get_mut(n) {
            let known = section.known();
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

    /// The chain an item lies in, or what must be known first.
    fn chain(&mut self, item: Item<'a>) -> Result<Look, GuardError> {
        match item.place {
            Place::Root(root, key) => {
                let fresh = u32::try_from(self.roots.len()).map_err(|_| GuardError::TooMany)?;
                Ok(Look::In(*self.roots.entry((root, key)).or_insert(fresh)))
            }
            Place::Beside { left, right, .. } => {
                let mut found = None;
                for id in left.into_iter().chain(right) {
                    match (self.look(id)?, found) {
                        (Look::In(chain), Some(other)) if chain != other => return Err(GuardError::TornItem),
                        (Look::In(chain), _) => found = Some(chain),
                        (wait, _) => return Ok(wait),
                    }
                }
                found.map(Look::In).ok_or(GuardError::BadContent)
            }
        }
    }

    fn look(&self, id: Id) -> Result<Look, GuardError> {
        let n = find(&self.all, id.client).ok_or(GuardError::UnknownClock)?;
        let section = self.all.get(n).ok_or(GuardError::UnknownClock)?;
        if id.clock >= section.own.end {
            return Err(GuardError::UnknownClock);
        }
        if id.clock >= section.known() {
            return Ok(Look::Wait { section: n, clock: id.clock });
        }
        let at = section.items.partition_point(|item| item.end <= id.clock);
        section.chains.get(at).copied().map(Look::In).ok_or(GuardError::UnknownClock)
    }
}

impl Section<'_> {
    /// One past the last clock taken in.
    fn known(&self) -> u32 {
        match self.chains.len().checked_sub(1).and_then(|last| self.items.get(last)) {
            Some(item) => item.end,
            None => self.own.start,
        }
    }
}
