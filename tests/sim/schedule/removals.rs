//! Commits that take something away and put nothing in its place: they have no identity of their own in a document, so nothing there
//! counts them (a register that is written over, or a key that goes, is a mark of what was there).
//!
//! A commit may leave a *spare* beside its mark, a key that means nothing. Another one later takes that away, and is seen by it: it is
//! shown where the mark of the first one is there and the spare is not. Nobody takes away what may yet be refused, and no
//! two commits the same one, so who is shown both marks is shown what a list of the log would show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::history::{CommitNo, SegmentNo};
use super::process::View;

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
        for ((_, spare), by) in self.0.borrow().range((segment, 0)..(segment + 1, 0)) {
            if view.marks.contains(*spare) && !view.spares.contains(*spare) {
                view.marks.insert(*by);
            } else {
                view.marks.remove(*by);
            }
        }
    }
}

/// The key of the spare that a commit leaves.
pub fn spare(commit: CommitNo) -> String {
    format!("d{commit}")
}

/// The commit of a spare's key.
pub fn spare_of(key: &str) -> Option<CommitNo> {
    key.strip_prefix('d')?.parse().ok()
}
