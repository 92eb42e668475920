//! Every way that a test can go: a test that asks [`Choices::below`] wherever something could be otherwise is run once for each
//! sequence of answers, the way an odometer counts. (After `exhaustigen` of TigerBeetle.)
//!
//! ```
//! let mut choices = coheap_tests::choices::Choices::default();
//! let mut seen = Vec::new();
//! while choices.next() {
//!     let first = choices.below(2);
//!     let second = if first == 0 { 0 } else { choices.below(3) };
//!     seen.push((first, second));
//! }
//! assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2)]);
//! ```

/// What was answered in this run, and how many answers there were.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    begun: bool,
    /// Answer and bound, in the order of the questions.
    path: Vec<(usize, usize)>,
    /// The next question.
    at: usize,
}

impl Choices {
    /// One run alone, with these answers first.
    pub fn of(answers: Vec<usize>) -> Choices {
        Choices { begun: false, path: answers.into_iter().map(|answer| (answer, usize::MAX)).collect(), at: 0 }
    }

    /// Goes on to the next run; false when there is none left. Each run must ask the same after the same answers.
    #[allow(clippy::should_implement_trait, reason = "it gives no items: the runs ask it")]
    pub fn next(&mut self) -> bool {
        self.at = 0;
        if !std::mem::replace(&mut self.begun, true) {
            return true;
        }
        while let Some((answer, bound)) = self.path.pop() {
            if answer + 1 < bound {
                self.path.push((answer + 1, bound));
                return true;
            }
        }
        false
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is always something to choose");
        if self.at == self.path.len() {
            self.path.push((0, bound));
        }
        let (answer, of) = &mut self.path[self.at];
        if *of == usize::MAX {
            *of = bound;
        }
        assert!(*of == bound && *answer < bound, "a run asks the same after the same answers");
        let answer = *answer;
        self.at += 1;
        answer
    }

    /// The answers of this run, for the message of a failure.
    pub fn answers(&self) -> Vec<usize> {
        self.path.iter().take(self.at).map(|(answer, _)| *answer).collect()
    }
}
