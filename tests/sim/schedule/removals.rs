//! Commits that take something away and put nothing in its place: no clock of a document counts them, which is how it is with members
//! of sets and elements of lists (a key that goes leaves a mark).
//!
//! A commit may leave a *spare* beside its mark: its number, in a set. Another one later takes that out, and is seen by it: it is shown where the mark of the first one is there and the spare is not. Nobody takes away what may yet be refused, and no
//! two commits the same one, so who is shown both marks is shown what a list of the log would show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::history::{CommitNo, SegmentNo};
use super::process::View;

/// The key of every segment's set of spares.
pub const SPARES: &str = "g";

/// Which commit takes which spare away: that of one heap, known to all of its processes.
#[derive(Clone, Debug, Default)]
pub struct Removals(Rc<RefCell<BTreeMap<(SegmentNo, CommitNo), CommitNo>>>);

impl Removals {
    /// Notes that a commit takes a spare away. False: another one does.
    pub fn note(&self, segment: SegmentNo, spare: CommitNo, by: CommitNo) -> bool {
        let mut by_spare = self.0.borrow_mut();
        !by_spare.contains_key(&(segment, spare)) && by_spare.insert((segment, spare), by).is_none()
    }

    /// Whether some commit takes it away, or is to.
    pub fn has(&self, segment: SegmentNo, spare: CommitNo) -> bool {
        self.0.borrow().contains_key(&(segment, spare))
    }

    /// What a program sees of a segment has changed: the commits that only took something away are there, or are not.
    pub fn settle(&self, segment: SegmentNo, view: &mut View) {
        let spares = view.spares();
        for ((_, spare), by) in self.0.borrow().range((segment, 0)..(segment + 1, 0)) {
            if view.marks.contains(*spare) && !spares.contains(*spare) {
                view.marks.insert(*by);
            } else {
                view.marks.remove(*by);
            }
        }
    }
}
