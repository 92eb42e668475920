//! What a program sees of a segment: whose marks are there, the counter, the register, and the set of spares.

use std::collections::BTreeMap;

use coheap_core::edit::{Handle, Patch, Shown, Wish};
use coheap_core::value::{Kind, Value};

use super::history::{CommitNo, Touch};
use super::marks::Marks;
use super::oracle::commit_of;
use super::removals::SPARES;

/// The key of every segment's counter.
pub const COUNTER: &str = "n";
/// The key that everybody writes to.
pub const REGISTER: &str = "r";
/// What a program sees of one segment, kept by its own wishes and the patches that come.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct View {
    /// Whose marks are there, and who took spares away.
    pub marks: Marks,
    /// The register.
    pub register: Option<f64>,
    counter: Option<Handle>,
    totals: BTreeMap<Handle, f64>,
    set: Option<Handle>,
    members: BTreeMap<Handle, Marks>,
}

impl View {
    /// The counter's handle.
    pub fn counter(&self) -> Option<Handle> {
        self.counter
    }

    /// The counter's value, if there is a counter.
    pub fn sum(&self) -> Option<i64> {
        self.counter.map(|handle| self.totals.get(&handle).copied().unwrap_or(0.0) as i64)
    }

    /// Whose spares are there.
    pub fn spares(&self) -> Marks {
        self.set.and_then(|set| self.members.get(&set)).copied().unwrap_or_default()
    }

    /// The handle of the set of spares.
    pub fn set(&self) -> Option<Handle> {
        self.set
    }

    /// An own commit wrote here: it left its mark, added to the counter or made it (the first container of its segment), and
    /// perhaps wrote to the register and left a spare, or took one away.
    pub fn wrote(&mut self, commit: CommitNo, place: &Touch, wishes: &[Wish]) {
        let sets = |of: &str| wishes.iter().any(|wish| matches!(wish, Wish::Set { key, .. } if key == of));
        if let Some(members) = self.set.map(|set| self.members.entry(set).or_default()) {
            if wishes.iter().any(|wish| matches!(wish, Wish::Include { .. })) {
                members.insert(commit);
            }
            if let Some(spare) = place.removes {
                members.remove(spare);
            }
        }
        if place.makes_counter {
            (self.counter, self.set) = (Some(Handle(1)), Some(Handle(2)));
        }
        self.marks.insert(commit);
        if let Some(counter) = self.counter {
            *self.totals.entry(counter).or_default() += place.adds as f64;
        }
        if sets(REGISTER) {
            self.register = Some(commit as f64);
        }
    }

    /// What a replica says has changed.
    pub fn apply(&mut self, patches: &[Patch]) {
        for patch in patches {
            match patch {
                Patch::Set { object: Handle(0), key, value } => match (key.as_str(), value) {
                    (COUNTER, Shown::Object(Kind::Counter, handle)) => self.counter = Some(*handle),
                    (SPARES, Shown::Object(Kind::Set, handle)) => self.set = Some(*handle),
                    (REGISTER, Shown::Scalar(Value::Number(number))) => self.register = Some(*number),
                    (mark, _) => {
                        if let Some(commit) = commit_of(mark) {
                            self.marks.insert(commit);
                        }
                    }
                },
                Patch::Delete { object: Handle(0), key } => match key.as_str() {
                    COUNTER => self.counter = None,
                    SPARES => self.set = None,
                    REGISTER => self.register = None,
                    mark => {
                        if let Some(commit) = commit_of(mark) {
                            self.marks.remove(commit);
                        }
                    }
                },
                Patch::Total { object, value } => drop(self.totals.insert(*object, *value)),
                Patch::Include { object, member: Value::Number(commit) } => {
                    self.members.entry(*object).or_default().insert(*commit as usize);
                }
                Patch::Exclude { object, member: Value::Number(commit) } => {
                    self.members.entry(*object).or_default().remove(*commit as usize);
                }
                Patch::Clear { object: Handle(0) } => *self = View::default(),
                _ => {}
            }
        }
    }

    /// What patches that show all of a segment come to.
    pub fn of(patches: &[Patch]) -> View {
        let mut view = View::default();
        view.apply(patches);
        view
    }
}
