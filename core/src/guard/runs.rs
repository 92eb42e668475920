//! Which clocks of a client are entries under a key: a set of clocks, kept as runs.
//!
//! Most clients write maps only, or long stretches of one list, so a set is a handful of numbers: the clocks at which
//! it turns from "not keyed" (which it is at 0) to "keyed", and back. `[0]` is all keyed, `[]` none, `[3, 5]` is 3 and 4.

/// A set of clocks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Runs {
    /// Strictly ascending.
    turns: Vec<u32>,
}

impl Runs {
    /// Whether `clock` is keyed. Beyond the last clock that was told, the answer means nothing.
    pub fn keyed(&self, clock: u32) -> bool {
        self.turns.partition_point(|turn| *turn <= clock) % 2 == 1
    }

    /// Tells what all clocks from `clock` on are. Clocks must not go backwards from call to call.
    pub(super) fn tell(&mut self, clock: u32, keyed: bool) {
        if (self.turns.len() % 2 == 1) != keyed {
            // A run of no clocks joins its neighbours again.
            if self.turns.last() == Some(&clock) {
                self.turns.pop();
            } else {
                self.turns.push(clock);
            }
        }
    }

    /// Continues with what `later` says of the clocks from `start` on.
    pub(super) fn extend(&mut self, start: u32, later: &Runs) {
        self.tell(start, later.keyed(start));
        for (n, turn) in later.turns.iter().enumerate() {
            if *turn > start {
                self.tell(*turn, n % 2 == 0);
            }
        }
    }

    pub(super) fn turns(&self) -> &[u32] {
        &self.turns
    }

    /// From stored turns; `None` if they do not ascend below `end`.
    pub(super) fn of_turns(turns: Vec<u32>, end: u32) -> Option<Runs> {
        let ascending = turns.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        let below = turns.last().is_none_or(|last| *last < end);
        (ascending && below).then_some(Runs { turns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(clocks: &[bool]) -> Runs {
        let mut runs = Runs::default();
        for (clock, keyed) in clocks.iter().enumerate() {
            runs.tell(clock as u32, *keyed);
        }
        runs
    }

    #[test]
    fn a_set_of_clocks_answers_as_it_was_told() {
        for bits in 0..256_u32 {
            let clocks: Vec<bool> = (0..8).map(|n| bits >> n & 1 == 1).collect();
            let whole = of(&clocks);
            for (clock, keyed) in clocks.iter().enumerate() {
                assert_eq!(whole.keyed(clock as u32), *keyed, "{clocks:?} at {clock}");
            }
            for cut in 0..8 {
                let mut head = of(&clocks[..cut]);
                let mut tail = Runs::default();
                for (clock, keyed) in clocks.iter().enumerate().skip(cut) {
                    tail.tell(clock as u32, *keyed);
                }
                head.extend(cut as u32, &tail);
                assert_eq!(head, whole, "{clocks:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn stored_turns_must_ascend_below_the_end() {
        assert!(Runs::of_turns(vec![0, 3, 9], 10).is_some());
        assert!(Runs::of_turns(vec![0, 3, 10], 10).is_none());
        assert!(Runs::of_turns(vec![3, 3], 10).is_none());
    }
}
