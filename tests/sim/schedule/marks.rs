//! Sets of commits: every commit of a heap has a number, and leaves a mark with that number where it writes.

use std::fmt;

const WORDS: usize = 6;

/// Commits that one heap of a schedule can have.
pub const MARKS_MAX: usize = WORDS * 64;

/// A set of commits of one heap.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks([u64; WORDS]);

impl Marks {
    /// Adds one; false: it was there.
    pub fn insert(&mut self, commit: usize) -> bool {
        let Some(word) = self.0.get_mut(commit / 64) else { return false };
        let bit = 1 << (commit % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Takes one out.
    pub fn remove(&mut self, commit: usize) {
        if let Some(word) = self.0.get_mut(commit / 64) {
            *word &= !(1 << (commit % 64));
        }
    }

    /// Takes out all of another.
    pub fn take_out(&mut self, other: &Marks) {
        *self = self.without(other);
    }

    /// Whether it holds one.
    pub fn contains(&self, commit: usize) -> bool {
        self.0.get(commit / 64).is_some_and(|word| word & (1 << (commit % 64)) != 0)
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: &Marks) {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
    }

    /// Those that another has not.
    #[must_use]
    pub fn without(&self, other: &Marks) -> Marks {
        let mut out = *self;
        for (word, less) in out.0.iter_mut().zip(other.0) {
            *word &= !less;
        }
        out
    }

    /// Those that another has too.
    #[must_use]
    pub fn common(&self, other: &Marks) -> Marks {
        let mut out = *self;
        for (word, also) in out.0.iter_mut().zip(other.0) {
            *word &= also;
        }
        out
    }

    /// True if it holds none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.0;
        words.into_iter().enumerate().flat_map(|(at, word)| {
            std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)))
                .take_while(|rest| *rest != 0)
                .map(move |rest| at * 64 + rest.trailing_zeros() as usize)
        })
    }
}

impl FromIterator<usize> for Marks {
    fn from_iter<I: IntoIterator<Item = usize>>(commits: I) -> Marks {
        let mut marks = Marks::default();
        for commit in commits {
            marks.insert(commit);
        }
        marks
    }
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let marks: Marks = [0, 63, 64, 200].into_iter().collect();
        assert_eq!(marks.iter().collect::<Vec<_>>(), [0, 63, 64, 200]);
        let other: Marks = [63, 200, 383].into_iter().collect();
        assert_eq!(marks.common(&other).iter().collect::<Vec<_>>(), [63, 200]);
        assert_eq!(marks.without(&other).iter().collect::<Vec<_>>(), [0, 64]);
        let mut both = marks;
        both.extend(&other);
        both.remove(0);
        assert_eq!(both.iter().collect::<Vec<_>>(), [63, 64, 200, 383]);
        assert!(both.contains(383) && !both.contains(0) && !both.insert(64) && both.insert(1));
        assert!(!both.insert(MARKS_MAX), "what has no place is not there");
    }
}
