//! Schedules: the protocol under every fault, very many times, small documents. Replicas, relays and a disk in one process,
//! and one number decides all that happens.
//!
//! ```text
//!   seed ─► plan ─► generator ──Deed──► world ──events──► history ──at the end──► checker
//!                                        │  ▲
//!                        after every step▼  │ what each program must see, by the log alone
//!                                       oracle
//! ```
//!
//! A schedule is a list of [`plan::Deed`]s; the generator (`generate.rs`) chooses them with an eye on the world, and a list
//! that failed is replayed and shortened without it (`shrink.rs`). `world.rs` performs a step and, after it, holds what every
//! touched program sees against the oracle and everything the relay says against what is on the disk. `life.rs` has the other
//! kind of world: rich values, claims, and far fewer lives.

pub mod checker;
pub mod coverage;
pub mod disk;
pub mod generate;
pub mod history;
pub mod marks;
pub mod oracle;
pub mod plan;
pub mod process;
pub mod removals;
pub mod shrink;
pub mod view;
pub mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::coverage::Coverage;
use self::plan::{Deed, Plan};
use self::world::World;

/// An invariant does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its name: a promise (P1–P8) or a rule of the protocol; `panic` for an assertion of the machines themselves.
    pub invariant: &'static str,
    /// In words.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Says that an invariant does not hold.
pub fn fails<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { invariant, what: what.into() })
}

/// What schedules came to.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// How many.
    pub schedules: u64,
    /// Steps, those in which the worlds come to rest not counted.
    pub steps: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Commits that programs made.
    pub commits: u64,
    /// Commits of more than one segment.
    pub wide: u64,
    /// Commits that only took something away.
    pub removals: u64,
    /// Commits that were refused.
    pub refused: u64,
    /// Commits of honest processes that had other bytes on their way.
    pub forged: u64,
    /// Changes of strangers.
    pub harmed: u64,
    /// Those that were left out of the log's states.
    pub left_out: u64,
    /// Segments that stood still at a process until somebody had looked at them.
    pub frozen: u64,
    /// Pieces of shared work that were ended.
    pub ended: u64,
    /// Connections that ended between two pieces of a long message, by its kind (`core/WIRE.md`).
    pub torn: BTreeMap<u8, u64>,
    /// Frames that the network had twice.
    pub repeated: u64,
    /// Folds that succeeded.
    pub folds: u64,
    /// New generations of segments.
    pub rolls: u64,
    /// Those that D6 forbade.
    pub rolls_held: u64,
    /// Generations that were given back to a log that had lost them.
    pub adopted: u64,
    /// Schedules, not counted among the others, that ended with somebody who was told that what it held is not what the relay goes on with (§14.3), or that
    /// something is in doubt: what holds from there on is between programs.
    pub parted: u64,
    /// Lines that were dropped, being idle.
    pub dropped: u64,
    /// Commits that are in doubt for that.
    pub doubted: u64,
    /// Hellos that were answered with a catch-up.
    pub catch_ups: u64,
    /// Loads that named a copy.
    pub from_copies: u64,
    /// Answers to loads that went on from one.
    pub onto_copies: u64,
    /// Lives of relay processes.
    pub lives: u64,
    /// What struck whom when.
    pub coverage: Coverage,
}

impl std::ops::AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.faults += other.faults;
        self.commits += other.commits;
        self.wide += other.wide;
        self.removals += other.removals;
        self.refused += other.refused;
        self.forged += other.forged;
        self.harmed += other.harmed;
        self.left_out += other.left_out;
        self.frozen += other.frozen;
        self.ended += other.ended;
        for (kind, count) in &other.torn {
            *self.torn.entry(*kind).or_default() += count;
        }
        self.repeated += other.repeated;
        self.folds += other.folds;
        self.rolls += other.rolls;
        self.rolls_held += other.rolls_held;
        self.adopted += other.adopted;
        self.parted += other.parted;
        self.dropped += other.dropped;
        self.doubted += other.doubted;
        self.catch_ups += other.catch_ups;
        self.from_copies += other.from_copies;
        self.onto_copies += other.onto_copies;
        self.lives += other.lives;
        self.coverage += &other.coverage;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { schedules, steps, faults, commits, wide, removals, refused, repeated, folds, .. } = self;
        let Tally { rolls, rolls_held, adopted, parted, catch_ups, from_copies, onto_copies, lives, coverage, .. } =
            self;
        let Tally { dropped, doubted, .. } = self;
        let each = |sum: u64| sum as f64 / (schedules + parted).max(1) as f64;
        writeln!(f, "{coverage}")?;
        write!(f, "{schedules} schedules, each on average: {:.0} steps, {:.1} faults, ", each(*steps), each(*faults))?;
        write!(
            f,
            "{:.1} commits ({:.1} of several segments, {:.1} that only removed, {:.1} refused), ",
            each(*commits),
            each(*wide),
            each(*removals),
            each(*refused)
        )?;
        write!(f, "{:.1} repeated frames, ", each(*repeated))?;
        let Tally { forged, harmed, left_out, frozen, ended, .. } = self;
        write!(
            f,
            "{forged} forged commits, {harmed} changes of strangers ({left_out} left out, {frozen} freezes), {ended} pieces of shared work in all, "
        )?;
        write!(f, "connections that ended inside a long message, by its kind: {:x?}; ", self.torn)?;
        write!(f, "{:.1} folds, {:.1} catch-ups, {:.1} restarts, ", each(*folds), each(*catch_ups), each(*lives))?;
        write!(f, "{:.1} loads from copies ({:.1} went on from there), ", each(*from_copies), each(*onto_copies))?;
        write!(f, "{:.1} new generations ({:.1} held); ", each(*rolls), each(*rolls_held))?;
        write!(f, "{dropped} lines were dropped, {doubted} commits in doubt for that; ")?;
        write!(
            f,
            "{adopted} generations were given back; {parted} more ended early, with a conflict of generations or something in doubt"
        )
    }
}

/// What a schedule was, and how it ended.
#[derive(Debug)]
pub struct Run {
    /// All that happened.
    pub steps: Vec<Deed>,
    /// What it came to.
    pub outcome: Result<Tally, Failure>,
}

/// One schedule, by seed.
pub fn run(seed: u64) -> Run {
    run_in(&Plan::of(seed))
}

/// One schedule of a plan that no seed gives.
pub fn run_in(plan: &Plan) -> Run {
    let mut steps = Vec::new();
    let outcome = guarded(|| {
        let mut world = World::new(plan)?;
        let mut generator = generate::Generator::new(plan);
        while let Some(step) = generator.next(&world) {
            steps.push(step);
            world.step(step)?;
        }
        world.end()
    });
    Run { steps, outcome }
}

/// The same steps, or some of them, in the same world.
pub fn replay(plan: &Plan, steps: &[Deed]) -> Result<Tally, Failure> {
    guarded(|| {
        let mut world = World::new(plan)?;
        for step in steps {
            world.step(*step)?;
        }
        world.end()
    })
}

/// Every step of a schedule with what it did, as text, and how it ended.
pub fn trace(plan: &Plan, steps: &[Deed], mut line: impl FnMut(String)) -> Result<Tally, Failure> {
    guarded(|| {
        let mut world = World::new(plan)?;
        for (at, step) in steps.iter().enumerate() {
            world.note_on();
            let done = world.step(*step);
            line(format!("{at:>4} {step:?}"));
            for note in world.notes() {
                line(format!("       {note}"));
            }
            done?;
        }
        line("     the world comes to rest".into());
        world.note_on();
        let ended = world.rest();
        for note in world.notes() {
            line(format!("       {note}"));
        }
        ended.map(|()| world.tally())
    })
}

/// An assertion of the machines that fails is a failure like any other.
pub(crate) fn guarded<T>(act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        fails("panic", text.unwrap_or_default())
    })
}
