//! Name spaces of items: registers, sequences, texts; and runs of clocks that have one in common.
//!
//! Most clients write one space only, or long stretches of one, so a client's clocks are a handful of runs. A delta
//! cannot always tell by itself where its items lie: a deleted item has lost its content, and if its neighbours lie
//! outside the delta it is whatever they are. Hence a [`Claim`], settled by the table, which keeps what it knows as [`Spaces`].

use super::read::Cursor;

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

/// Appends to a list that grows by an eighth at a time: twice its size would be more than a guard may have.
pub(super) fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 1);
    }
    list.push(item);
}

/// The name spaces of all clocks of one client below its next, run by run, in the form in which tables are stored
/// (`guard/clocks.rs`): a run that took a byte to say takes little more to keep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Spaces {
    /// So many bytes of runs. Most clients have one or two.
    Few(u8, [u8; FEW_BYTES]),
    /// More than fit there.
    Many(Box<Many>),
}

/// As many as fit beside their number in the place of a pointer to more.
const FEW_BYTES: usize = 14;
/// A mark stands at the first run behind so many bytes.
const MARK_BYTES: usize = 32;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Many {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    last: (u32, Space),
}

/// A run that can be found without reading those before it: its first clock, and where it begins in the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Mark {
    clock: u32,
    at: u32,
}

impl Default for Spaces {
    fn default() -> Spaces {
        Spaces::Few(0, [0; FEW_BYTES])
    }
}

impl Spaces {
    /// These runs: first clocks, ascending, and spaces, of which neighbours differ.
    pub fn of(runs: impl Iterator<Item = (u32, Space)> + Clone) -> Spaces {
        let bytes = bytes_of(runs.clone());
        let mut spaces = Spaces::default();
        if bytes > FEW_BYTES {
            let (bytes, marks) = (Vec::with_capacity(bytes), Vec::with_capacity(bytes / MARK_BYTES));
            spaces = Spaces::Many(Box::new(Many { bytes, marks, last: (0, Space::Registers) }));
        }
        runs.for_each(|(clock, space)| spaces.tell(clock, space));
        spaces
    }

    /// Runs in their stored form, which is sound.
    pub fn read(bytes: &[u8]) -> Spaces {
        Spaces::of(told(bytes, 0))
    }

    /// What [`Spaces::of`] asks for beside itself for these runs, in bytes.
    pub fn memory(runs: impl Iterator<Item = (u32, Space)>) -> usize {
        match bytes_of(runs) {
            ..=FEW_BYTES => 0,
            bytes => size_of::<Many>() + bytes + bytes / MARK_BYTES * size_of::<Mark>(),
        }
    }

    /// The runs as they are stored.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Spaces::Few(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Spaces::Many(many) => &many.bytes,
        }
    }

    /// The runs: first clock and space.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Space)> + Clone + '_ {
        told(self.bytes(), 0)
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.bytes().iter().filter(|byte| **byte < 0x80).count()
    }

    /// What `clock` is. `None` if nothing was told; beyond the last clock told, the answer means nothing.
    pub fn at(&self, clock: u32) -> Option<Space> {
        let mark = match self {
            Spaces::Few(..) => Mark::default(),
            Spaces::Many(many) => {
                let before = many.marks.partition_point(|mark| mark.clock <= clock);
                before.checked_sub(1).and_then(|last| many.marks.get(last)).copied().unwrap_or_default()
            }
        };
        let mut bytes = Cursor::new(self.bytes().get(mark.at as usize..)?);
        // What lies between it and the run before is in the mark.
        let (_, first) = run(&mut bytes)?;
        let later = told(bytes.rest(), mark.clock).take_while(|(start, _)| *start <= clock);
        Some(later.last().map_or(first, |(_, space)| space))
    }

    /// Tells what the clocks from `clock` on are. Clocks must ascend from call to call.
    pub fn tell(&mut self, clock: u32, space: Space) {
        let last = match self {
            Spaces::Few(..) => self.iter().last(),
            Spaces::Many(many) => Some(many.last).filter(|_| !many.bytes.is_empty()),
        };
        if last.is_some_and(|(_, last)| last == space) {
            return;
        }
        let number = u64::from(clock.saturating_sub(last.map_or(0, |(clock, _)| clock))) << 2 | space.code();
        if let Spaces::Few(len, bytes) = self {
            let from = usize::from(*len);
            if let Some(free) = bytes.get_mut(from..from + length(number)) {
                *len += free.len() as u8;
                return write(number, |n, byte| {
                    if let Some(to) = free.get_mut(n) {
                        *to = byte;
                    }
                });
            }
            let (bytes, marks) = (self.bytes().to_vec(), Vec::new());
            *self = Spaces::Many(Box::new(Many { bytes, marks, last: (clock, space) }));
        }
        if let Spaces::Many(many) = self {
            let at = many.bytes.len();
            if at >= many.marks.last().map_or(0, |mark| mark.at as usize) + MARK_BYTES {
                // More bytes than four of these numbers count are nowhere.
                many.marks.push(Mark { clock, at: at as u32 });
            }
            write(number, |_, byte| many.bytes.push(byte));
            many.last = (clock, space);
        }
    }

    /// Forgets the clocks from this one on.
    pub fn cut(&mut self, clock: u32) {
        *self = Spaces::of(self.iter().take_while(|(start, _)| *start < clock));
    }
}

/// Runs from their stored form, behind one that begins at `clock`.
fn told(bytes: &[u8], clock: u32) -> impl Iterator<Item = (u32, Space)> + Clone + '_ {
    let (mut rest, mut clock) = (bytes, clock);
    std::iter::from_fn(move || {
        let mut cursor = Cursor::new(rest);
        let (distance, space) = run(&mut cursor)?;
        rest = cursor.rest();
        clock = clock.checked_add(distance)?;
        Some((clock, space))
    })
}

fn run(bytes: &mut Cursor<'_>) -> Option<(u32, Space)> {
    let number = bytes.var_u64().ok()?;
    Some((u32::try_from(number >> 2).ok()?, Space::of_code(number & 3)?))
}

/// How many bytes these runs are in their stored form.
fn bytes_of(runs: impl Iterator<Item = (u32, Space)>) -> usize {
    let mut last = 0;
    let bytes = runs.map(|(clock, space)| {
        let distance = clock.saturating_sub(last);
        last = clock;
        length(u64::from(distance) << 2 | space.code())
    });
    bytes.sum()
}

/// The bytes of a number, low ones first, seven bits each, by their places.
fn write(mut number: u64, mut put: impl FnMut(usize, u8)) {
    for n in 0..length(number) {
        let more = number >= 0x80;
        put(n, (number & 0x7f) as u8 | if more { 0x80 } else { 0 });
        number >>= 7;
    }
}

fn length(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
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

    #[test]
    fn spaces_answer_as_they_were_told_however_many_there_are() {
        let space = |n: u32| Space::of_code(u64::from(n % 3)).unwrap();
        for count in [0, 1, 2, 13, 14, 15, 16, 40, 1000] {
            // Distances of one, two and three bytes.
            let distance = |n: u32| [1, 1, 31, 32, 5000, 2][n as usize % 6];
            let (mut spaces, mut runs, mut clock) = (Spaces::default(), Vec::new(), 0);
            for n in 0..count {
                spaces.tell(clock, space(n));
                spaces.tell(clock, space(n));
                runs.push((clock, space(n)));
                clock += distance(n);
            }
            assert_eq!((spaces.iter().collect::<Vec<_>>(), spaces.len()), (runs.clone(), runs.len()));
            assert_eq!(spaces, Spaces::of(runs.iter().copied()));
            assert_eq!(matches!(spaces, Spaces::Few(..)), spaces.bytes().len() <= FEW_BYTES);
            for pair in runs.windows(2) {
                let [(from, space), (upto, _)] = pair else { unreachable!("two of them") };
                assert_eq!(
                    [*from, upto - 1].map(|clock| spaces.at(clock)),
                    [Some(*space); 2],
                    "{count} runs, at {from}"
                );
            }
            assert_eq!(spaces.at(clock), runs.last().map(|(_, space)| *space));
            for cut in [0, clock / 3, clock] {
                let mut less = spaces.clone();
                less.cut(cut);
                assert_eq!(
                    less,
                    Spaces::of(runs.iter().copied().filter(|(start, _)| *start < cut)),
                    "{count}, cut at {cut}"
                );
            }
        }
    }
}
