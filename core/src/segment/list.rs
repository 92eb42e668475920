//! One list: its slots as the sequence has them, which of them are shown, and what changed (`SEGMENT.md` §4, List).
//!
//! The index of slots follows the sequence; `shown` lists the slots that show an element, in order. Edits speak of elements,
//! programs of shown indexes, engines of raw indexes: the three meet here.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::{Raw, Step};
use super::layout::Slot;
use crate::edit::ElementId;
use crate::value::Value;

/// Where a moved or deleted element stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the slot with this number.
    Slot(u64),
    /// Nowhere.
    Deleted,
}

/// The index of one list.
#[derive(Debug, Default)]
pub struct List {
    slots: Vec<Option<Slot>>,
    /// `@` registers.
    places: BTreeMap<ElementId, Place>,
    /// `.` registers.
    replaced: BTreeMap<ElementId, Value>,
    /// Raw indexes of the slots that show their element.
    shown: Vec<usize>,
    /// How many slots each element has: more than one after moves at once, and where `initial` was made by several.
    counts: BTreeMap<ElementId, usize>,
}

/// How the shown elements changed.
#[derive(Debug, PartialEq)]
pub enum ListChange {
    /// These elements come at this index, and are found there after all changes.
    Insert(usize, Vec<ElementId>),
    /// Elements go.
    Remove(usize, usize),
    /// One moves; the second index is the one it has afterwards.
    Move(usize, usize),
}

impl List {
    /// Starts from the sequence's elements and the list's registers.
    pub fn new(sequence: &[Raw], places: BTreeMap<ElementId, Place>, replaced: BTreeMap<ElementId, Value>) -> Self {
        let slots: Vec<Option<Slot>> = sequence.iter().map(Slot::decode).collect();
        let mut counts = BTreeMap::new();
        for slot in slots.iter().flatten() {
            *counts.entry(slot.element).or_insert(0) += 1;
        }
        let mut list = List { slots, places, replaced, shown: Vec::new(), counts };
        list.shown = list.show();
        list
    }

    /// How many slots its sequence has, shown or not.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many elements are shown.
    pub fn length(&self) -> usize {
        self.shown.len()
    }

    /// The element shown at an index.
    pub fn element(&self, index: usize) -> Option<ElementId> {
        self.slot_at(index).map(|slot| slot.element)
    }

    fn slot_at(&self, index: usize) -> Option<&Slot> {
        self.shown.get(index).and_then(|raw| self.slots.get(*raw)).and_then(Option::as_ref)
    }

    /// Every shown element with its value.
    pub fn values(&self) -> impl Iterator<Item = (ElementId, &Value)> {
        (0..self.shown.len()).filter_map(|index| self.slot_at(index)).map(|slot| (slot.element, self.value_of(slot)))
    }

    fn value_of<'a>(&'a self, slot: &'a Slot) -> &'a Value {
        self.replaced.get(&slot.element).unwrap_or(&slot.value)
    }

    /// The value shown at an index.
    pub fn value_at(&self, index: usize) -> Option<&Value> {
        self.slot_at(index).map(|slot| self.value_of(slot))
    }

    /// The value in an element's slot, whether or not a register replaces it.
    pub fn inline_value(&self, element: ElementId) -> Option<&Value> {
        self.index_of(element).and_then(|index| self.slot_at(index)).map(|slot| &slot.value)
    }

    /// The index at which an element is shown.
    pub fn index_of(&self, element: ElementId) -> Option<usize> {
        (0..self.shown.len()).find(|index| self.element(*index) == Some(element))
    }

    /// The raw index right behind an element's shown slot; 0 for none, the end if it is not shown any more.
    pub fn raw_behind(&self, after: Option<ElementId>) -> usize {
        match after {
            None => 0,
            Some(element) => match self.index_of_from_end(element) {
                Some(index) => self.shown.get(index).map_or(self.slots.len(), |raw| raw + 1),
                None => self.slots.len(),
            },
        }
    }

    fn index_of_from_end(&self, element: ElementId) -> Option<usize> {
        (0..self.shown.len()).rev().find(|index| self.element(*index) == Some(element))
    }

    /// Takes in slots that were inserted into the sequence.
    pub fn inserted(&mut self, raw: usize, slots: Vec<Slot>) {
        let count = slots.len();
        let at = self.shown.partition_point(|shown| *shown < raw);
        if let Some(behind) = self.shown.get_mut(at..) {
            for shown in behind {
                *shown += count;
            }
        }
        for slot in &slots {
            *self.counts.entry(slot.element).or_insert(0) += 1;
        }
        // This replica's own slots show their elements; a moved one's register is set right after.
        let fresh: Vec<usize> = (raw..raw + count).collect();
        self.slots.splice(raw..raw, slots.into_iter().map(Some));
        self.shown.splice(at..at, fresh);
    }

    /// The raw ranges (from the end) of all slots of these elements, and whether one of each came from `initial`.
    pub fn slots_of(&self, elements: &BTreeSet<ElementId>) -> (Vec<(usize, usize)>, BTreeSet<ElementId>) {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        let mut initial = BTreeSet::new();
        let raws = self.only_slots_of(elements).unwrap_or_else(|| {
            let slots = self.slots.iter().enumerate().rev();
            slots
                .filter(|(_, s)| s.as_ref().is_some_and(|s| elements.contains(&s.element)))
                .map(|(raw, _)| raw)
                .collect()
        });
        for raw in raws {
            let Some(Some(slot)) = self.slots.get(raw) else { continue };
            if slot.initial {
                initial.insert(slot.element);
            }
            match ranges.last_mut() {
                Some((start, count)) if *start == raw + 1 => {
                    *start = raw;
                    *count += 1;
                }
                _ => ranges.push((raw, 1)),
            }
        }
        (ranges, initial)
    }

    /// The raw indexes of a few elements' slots, from the end, if each has one slot and that is shown.
    fn only_slots_of(&self, elements: &BTreeSet<ElementId>) -> Option<Vec<usize>> {
        if elements.len() > 4 || elements.iter().any(|element| self.counts.get(element) != Some(&1)) {
            return None;
        }
        let indexes = elements.iter().map(|element| self.index_of(*element));
        let raws = indexes.map(|index| index.and_then(|index| self.shown.get(index)).copied());
        let mut raws: Vec<usize> = raws.collect::<Option<_>>()?;
        raws.sort_unstable_by(|a, b| b.cmp(a));
        Some(raws)
    }

    /// Takes in that a raw range left the sequence; gives the range of shown indexes that left with it.
    pub fn removed(&mut self, raw: usize, count: usize) -> std::ops::Range<usize> {
        let end = (raw + count).min(self.slots.len());
        let raw = raw.min(end);
        for slot in self.slots.drain(raw..end).flatten() {
            if let Some(left) = self.counts.get_mut(&slot.element) {
                *left -= 1;
                if *left == 0 {
                    self.counts.remove(&slot.element);
                }
            }
        }
        let gone = self.shown.partition_point(|shown| *shown < raw)..self.shown.partition_point(|shown| *shown < end);
        self.shown.drain(gone.clone());
        if let Some(behind) = self.shown.get_mut(gone.start..) {
            for shown in behind {
                *shown -= end - raw;
            }
        }
        gone
    }

    /// Takes in an element's place register.
    pub fn place(&mut self, element: ElementId, place: Option<Place>) {
        match place {
            Some(place) => self.places.insert(element, place),
            None => self.places.remove(&element),
        };
    }

    /// Takes in an element's value register.
    pub fn replace(&mut self, element: ElementId, value: Option<Value>) {
        match value {
            Some(value) => self.replaced.insert(element, value),
            None => self.replaced.remove(&element),
        };
    }

    /// Follows a change of the sequence; `refresh` has to be called after it.
    pub fn follow(&mut self, steps: &[Step<Vec<Raw>>]) {
        let mut at = 0;
        for step in steps {
            match step {
                Step::Keep(count) => at += *count as usize,
                Step::Remove(count) => drop(self.removed(at, *count as usize)),
                Step::Insert(values) => {
                    let at_most = at.min(self.slots.len());
                    let slots: Vec<Option<Slot>> = values.iter().map(Slot::decode).collect();
                    for slot in slots.iter().flatten() {
                        *self.counts.entry(slot.element).or_insert(0) += 1;
                    }
                    self.slots.splice(at_most..at_most, slots);
                    at += values.len();
                }
            }
        }
    }

    /// Follows a change of the sequence that neither moves elements nor touches one with several slots, without looking at
    /// the rest of the list; `None`, with nothing done, if it is not such a change. No place register changes with it.
    pub fn follow_plainly(&mut self, steps: &[Step<Vec<Raw>>]) -> Option<Vec<ListChange>> {
        let mut decoded = Vec::with_capacity(steps.len());
        let (mut at, mut coming) = (0, BTreeSet::new());
        for step in steps {
            match step {
                Step::Keep(count) => {
                    at += *count as usize;
                    decoded.push(Step::Keep(*count));
                }
                Step::Remove(count) => {
                    let going = self.slots.get(at..at + *count as usize)?;
                    if going.iter().flatten().any(|slot| self.counts.get(&slot.element) != Some(&1)) {
                        return None;
                    }
                    at += *count as usize;
                    decoded.push(Step::Remove(*count));
                }
                Step::Insert(values) => {
                    let slots: Vec<Slot> = values.iter().map(Slot::decode).collect::<Option<_>>()?;
                    for slot in &slots {
                        let known = self.counts.contains_key(&slot.element) || self.places.contains_key(&slot.element);
                        if slot.number.is_some() || known || !coming.insert(slot.element) {
                            return None;
                        }
                    }
                    decoded.push(Step::Insert(slots));
                }
            }
        }
        let (mut at, mut changes) = (0, Vec::new());
        for step in decoded {
            match step {
                Step::Keep(count) => at += count as usize,
                Step::Remove(count) => {
                    let gone = self.removed(at, count as usize);
                    if !gone.is_empty() {
                        changes.push(ListChange::Remove(gone.start, gone.len()));
                    }
                }
                Step::Insert(slots) => {
                    let at_most = at.min(self.slots.len());
                    let index = self.shown.partition_point(|shown| *shown < at_most);
                    changes.push(ListChange::Insert(index, slots.iter().map(|slot| slot.element).collect()));
                    at = at_most + slots.len();
                    self.inserted(at_most, slots);
                }
            }
        }
        Some(changes)
    }

    /// Which elements are shown now, by the rules.
    fn show(&self) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let mut shown = Vec::with_capacity(self.slots.len());
        for (raw, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let stands_here = match self.places.get(&slot.element) {
                None => slot.number.is_none(),
                Some(Place::Slot(number)) => slot.number == Some(*number),
                Some(Place::Deleted) => false,
            };
            let only = self.counts.get(&slot.element) == Some(&1);
            if stands_here && (only || seen.insert(slot.element)) {
                shown.push(raw);
            }
        }
        shown
    }

    /// The shown elements, in order.
    pub fn elements(&self) -> Vec<ElementId> {
        (0..self.shown.len()).filter_map(|index| self.element(index)).collect()
    }

    /// Shows anew after `follow` and registers came in, and tells how the shown elements changed from `before`.
    pub fn refresh(&mut self, before: &[ElementId]) -> Vec<ListChange> {
        self.shown = self.show();
        difference(before, &self.elements())
    }

    /// The values in the slots of elements of `initial`: another replica's slot of the same element may hold another one.
    pub fn initial_values(&self) -> BTreeMap<ElementId, Value> {
        let slots = (0..self.shown.len()).filter_map(|index| self.slot_at(index));
        slots.filter(|slot| slot.initial).map(|slot| (slot.element, slot.value.clone())).collect()
    }
}

/// The steps that turn one order of unique elements into another: removals from the end, then moves and insertions from the start.
pub fn difference(before: &[ElementId], after: &[ElementId]) -> Vec<ListChange> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (old, new) = (before.get(head..).unwrap_or_default(), after.get(head..).unwrap_or_default());
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let old = old.get(..old.len() - tail).unwrap_or_default();
    let new = new.get(..new.len() - tail).unwrap_or_default();

    let in_new: BTreeSet<ElementId> = new.iter().copied().collect();
    let mut changes = Vec::new();
    // What is gone, from the end, runs together.
    let mut current: Vec<ElementId> = Vec::with_capacity(old.len());
    let mut index = old.len();
    while index > 0 {
        let end = index;
        while index > 0 && old.get(index - 1).is_some_and(|e| !in_new.contains(e)) {
            index -= 1;
        }
        if index < end {
            changes.push(ListChange::Remove(head + index, end - index));
        }
        while index > 0 && old.get(index - 1).is_some_and(|e| in_new.contains(e)) {
            index -= 1;
        }
    }
    current.extend(old.iter().filter(|e| in_new.contains(e)));
    let known: BTreeSet<ElementId> = current.iter().copied().collect();
    let stay = increasing(&current, new);
    let mut at = 0;
    while let Some(element) = new.get(at) {
        if !known.contains(element) {
            let run = new.get(at..).unwrap_or_default().iter().take_while(|e| !known.contains(e)).count();
            let fresh = new.get(at..at + run).unwrap_or_default().to_vec();
            current.splice(at..at, fresh.iter().copied());
            changes.push(ListChange::Insert(head + at, fresh));
            at += run;
            continue;
        }
        if current.get(at) != Some(element) {
            // Bring it here, unless it stays and others have yet to move away from before it.
            let blocker = current.get(at).copied();
            match blocker {
                Some(blocker) if stay.contains(element) && !stay.contains(&blocker) => {
                    let target = new.iter().position(|e| *e == blocker).unwrap_or(at);
                    let to = target.min(current.len() - 1).max(at);
                    let moved = current.remove(at);
                    current.insert(to, moved);
                    changes.push(ListChange::Move(head + at, head + to));
                    if to == at {
                        at += 1;
                    }
                    continue;
                }
                _ => {
                    let from = current.iter().position(|e| e == element).unwrap_or(at);
                    let moved = current.remove(from);
                    current.insert(at, moved);
                    changes.push(ListChange::Move(head + from, head + at));
                }
            }
        }
        at += 1;
    }
    changes
}

/// A longest set of elements that stand in the same order in both.
fn increasing(current: &[ElementId], new: &[ElementId]) -> BTreeSet<ElementId> {
    let position: BTreeMap<ElementId, usize> = new.iter().enumerate().map(|(i, e)| (*e, i)).collect();
    // Patience: tails[k] is the index in `current` that ends the best run of length k + 1.
    let rank = |i: usize| current.get(i).and_then(|e| position.get(e)).copied().unwrap_or(usize::MAX);
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; current.len()];
    for i in 0..current.len() {
        let k = tails.partition_point(|t| rank(*t) < rank(i));
        if let Some(slot) = before.get_mut(i) {
            *slot = k.checked_sub(1).and_then(|k| tails.get(k)).copied();
        }
        match tails.get_mut(k) {
            Some(tail) => *tail = i,
            None => tails.push(i),
        }
    }
    let mut stay = BTreeSet::new();
    let mut at = tails.last().copied();
    while let Some(i) = at {
        if let Some(element) = current.get(i) {
            stay.insert(*element);
        }
        at = before.get(i).copied().flatten();
    }
    stay
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(ids: &[u64]) -> Vec<ElementId> {
        ids.iter().map(|id| ElementId(*id)).collect()
    }

    fn check(before: &[u64], after: &[u64]) -> usize {
        let (before, after) = (elements(before), elements(after));
        let mut list = before.clone();
        let changes = difference(&before, &after);
        for change in &changes {
            match change {
                ListChange::Insert(at, fresh) => {
                    list.splice(at..at, fresh.iter().copied());
                }
                ListChange::Remove(at, count) => {
                    list.drain(*at..at + count);
                }
                ListChange::Move(from, to) => {
                    let moved = list.remove(*from);
                    list.insert(*to, moved);
                }
            }
        }
        assert_eq!(list, after);
        changes.len()
    }

    #[test]
    fn differences_lead_from_one_order_to_the_other() {
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3, 4, 5]), 1);
        assert_eq!(check(&[1, 2, 3, 4], &[4, 1, 2, 3]), 1, "one element moved to the front is one move");
        assert_eq!(check(&[1, 2, 3, 4], &[2, 3, 4, 1]), 1, "one element moved to the end is one move");
        assert_eq!(check(&[], &[1, 2]), 1);
        assert_eq!(check(&[1, 2, 3, 4, 5, 6], &[6, 4, 9, 2]), check(&[1, 2, 3, 4, 5, 6], &[6, 4, 9, 2]));
        let mut state = 7_u64;
        for _ in 0..2000 {
            let mut draw = |n: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % n
            };
            let pool: Vec<u64> = (0..draw(9)).collect();
            let mut shuffled = |count: u64| {
                let mut from = pool.clone();
                let mut out = Vec::new();
                for _ in 0..count.min(from.len() as u64) {
                    out.push(from.remove(draw(from.len() as u64) as usize));
                }
                out
            };
            let (before, after) = (shuffled(6), shuffled(7));
            check(&before, &after);
        }
    }
}
