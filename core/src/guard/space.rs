//! Name spaces of items: registers, sequences, texts; and runs of clocks that have one in common.
//!
//! Most clients write one space only, or long stretches of one, so a client's clocks are a handful of runs. A delta
//! cannot always tell by itself where its items lie: a deleted item has lost its content, and if its neighbours lie
//! outside the delta it is whatever they are. Hence a [`Claim`], settled by the table.

/// A name space of `SEGMENT.md`: the root it is under says which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Root `r`: values under keys.
    Registers,
    /// Roots `q…`: values in order.
    Sequences,
    /// Roots `t…`: text.
    Texts,
}

/// Where an item says it lies: a [`Says`] in four bytes, as a delta may have very many of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim(u32);

/// What a [`Claim`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Says {
    /// By its own key, content or root.
    Is(Space),
    /// Where `beside[n]` of its summary lies, which is not in the registers: those say so themselves.
    Like(usize),
}

impl Claim {
    const SPACES: [Space; 3] = [Space::Registers, Space::Sequences, Space::Texts];

    /// In this space.
    pub(super) fn is(space: Space) -> Claim {
        Claim(space as u32)
    }

    /// Where `beside[n]` lies; `None` if there cannot be so many.
    pub(super) fn like(n: usize) -> Option<Claim> {
        u32::try_from(n).ok()?.checked_add(Claim::SPACES.len() as u32).map(Claim)
    }

    /// What it says.
    pub fn says(self) -> Says {
        let n = self.0 as usize;
        Claim::SPACES.get(n).map_or(Says::Like(n.saturating_sub(Claim::SPACES.len())), |space| Says::Is(*space))
    }
}

/// An item outside a delta that one inside names as its neighbour, and so must lie where that one claims to lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beside {
    /// The neighbour's client.
    pub client: u64,
    /// The neighbour's clock.
    pub clock: u32,
    /// What it must be; `Like` its own index leaves that open.
    pub claim: Claim,
}

/// What the clocks of one client are, run by run: the first clock of each run, ascending; neighbours differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runs<T>(Vec<(u32, T)>);

impl<T> Default for Runs<T> {
    fn default() -> Runs<T> {
        Runs(Vec::new())
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    /// What `clock` is. `None` before the first run; beyond the last clock told, the answer means nothing.
    pub fn at(&self, clock: u32) -> Option<T> {
        let runs_before = self.0.partition_point(|(start, _)| *start <= clock);
        self.0.get(runs_before.checked_sub(1)?).map(|(_, what)| *what)
    }

    /// The runs: first clock and what they are.
    pub fn iter(&self) -> impl Iterator<Item = (u32, T)> + '_ {
        self.0.iter().copied()
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was told.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells what the clocks from `clock` on are. Clocks must ascend from call to call.
    /// True: there is one run more.
    pub(super) fn tell(&mut self, clock: u32, what: T) -> bool {
        let more = self.0.last().is_none_or(|(_, last)| *last != what);
        if more {
            push(&mut self.0, (clock, what));
        }
        more
    }
}

impl<T> Runs<T> {
    /// Forgets the clocks from this one on.
    pub(super) fn cut(&mut self, clock: u32) {
        self.0.retain(|(start, _)| *start < clock);
    }
}

/// Appends to a list that grows by an eighth at a time: twice its size would be more than a guard may have.
pub(super) fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 1);
    }
    list.push(item);
}

impl Space {
    /// The space's number in stored tables.
    pub(super) fn code(self) -> u64 {
        match self {
            Space::Registers => 0,
            Space::Sequences => 1,
            Space::Texts => 2,
        }
    }

    pub(super) fn of_code(code: u64) -> Option<Space> {
        [Space::Registers, Space::Sequences, Space::Texts].into_iter().find(|space| space.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_answer_as_they_were_told() {
        for bits in 0..256_u32 {
            let mut runs = Runs::default();
            for clock in 3..11 {
                runs.tell(clock, bits >> (clock - 3) & 1);
            }
            assert_eq!(runs.at(2), None);
            for clock in 3..11 {
                assert_eq!(runs.at(clock), Some(bits >> (clock - 3) & 1));
            }
            assert_eq!(runs.len() as u32, 1 + ((bits ^ (bits >> 1)) & 0x7f).count_ones());
        }
    }
}
