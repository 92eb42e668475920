//! What a seed decides before anything happens, and what can happen: a schedule is a list of [`Deed`]s, which mean something
//! in every world (numbers are taken modulo what is there), so that any list of them can be replayed and shortened.

use super::coverage::{Fault, Phase};
use crate::Draws;

/// What goes wrong in schedules; of which of them a plan draws, [`Plan::faults`] says.
pub const FAULTS: &[Fault] = &[
    Fault::Cut,
    Fault::Late,
    Fault::Silent,
    Fault::RelayCrash,
    Fault::RelayTorn,
    Fault::SyncFails,
    Fault::Full,
    Fault::RolledBack,
    Fault::Wiped,
    Fault::ReplicaCrash,
    Fault::Restart,
    Fault::Pause,
    Fault::Clone,
    Fault::Move,
];

/// The fewest steps of a schedule.
pub const STEPS_MIN: usize = 200;
/// The fewest faults.
pub const FAULTS_MIN: usize = 3;

/// The world of a schedule.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Which heap each process has open.
    pub heaps_of: Vec<usize>,
    /// How many heaps one relay process serves from one disk.
    pub heaps: usize,
    /// How many steps there are before the world is left to come to rest.
    pub steps: usize,
    /// Bytes of deltas after which a segment is folded.
    pub fold_bytes: Option<u64>,
    /// Some connections are opened without the right to write, so commits are refused.
    pub rights: bool,
    /// Processes are copied. Not where commits are refused: both together have not been run yet (`tests/README.md`).
    pub clones: bool,
    /// The disk is lost, or replaced by an old one. Not where commits are refused (§14.4: what a lost log had admitted, and the
    /// one that took its place refused, takes effect with whoever gives it back), and not where processes are copied:
    /// both together are known to fail (`tests/README.md`).
    pub losses: bool,
    /// Segments get new generations. Where the disk is lost, too, a schedule ends as soon as somebody is told that a generation does not
    /// go with what it holds, or that something is in doubt (`Tally::parted`).
    pub rolls: bool,
    /// Some segments keep their history.
    pub automerge: bool,
    /// Some commits are so large that states go in pieces.
    pub long: bool,
    /// Lines are dropped when they were idle for a while (`world/forgets.rs`). Not where processes are copied (a copy that was never
    /// connected cannot know that the other one was), not where disks are lost, not beside strangers, who go on in their lines
    /// whatever they are told, and not where work is shared: a run is over seconds after the last who knows what is done of it has gone.
    pub forgets: bool,
    /// Commits that the guard refuses, and what no engine takes in (R10–R12). Not where the disk is lost, or processes are copied.
    pub hostile: bool,
    /// Programs share work, and end it by commits that stand on claims (S27). Not where the disk is lost, or processes are copied.
    pub claims: bool,
    /// The store answers no read with more than one entry, or one segment's state.
    pub pieces: bool,
    /// Some commits take something away, and do nothing else. Not where there is something that no engine takes in: what is taken
    /// away may be left out.
    pub removes: bool,
    /// What is to strike whom, when it can.
    pub targets: Vec<(Fault, Phase)>,
}

impl Plan {
    /// How many processes there are at a time.
    pub fn processes(&self) -> usize {
        self.heaps_of.len()
    }

    /// What can go wrong in it.
    pub fn faults(&self) -> Vec<Fault> {
        let strikes = |fault: &Fault| match fault {
            Fault::Clone => self.clones,
            Fault::RolledBack | Fault::Wiped => self.losses,
            _ => true,
        };
        FAULTS.iter().copied().filter(strikes).collect()
    }

    /// The plan of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut draws = Draws(seed ^ 0x5eed_0000_5eed_0000);
        let heaps = if draws.below(4) == 0 { 2 } else { 1 };
        let processes = 3 + draws.below(4);
        let heaps_of = (0..processes).map(|at| if at < heaps * 2 { at % heaps } else { draws.below(heaps) }).collect();
        let kind = draws.below(8);
        let mut plan = Plan {
            seed,
            heaps,
            heaps_of,
            targets: Vec::new(),
            steps: STEPS_MIN + 10 + draws.below(80),
            fold_bytes: (draws.below(5) > 0).then(|| [32, 100, 400][draws.below(3)]),
            rights: kind < 2,
            clones: (2..4).contains(&kind),
            losses: (4..6).contains(&kind),
            rolls: Draws(seed ^ 0x7011_7011).below(2) == 0,
            automerge: draws.below(8) == 0,
            long: draws.below(32) == 0,
            forgets: false,
            hostile: false,
            claims: false,
            pieces: Draws(seed ^ 0x91ec_e500).below(3) == 0,
            removes: false,
        };
        if plan.losses && plan.fold_bytes.is_none() {
            // Without a worker nothing can be given back; with this one nothing is folded.
            plan.fold_bytes = Some(1 << 40);
        }
        let faults = plan.faults();
        let target = |_| (faults[draws.below(faults.len())], Phase::ALL[draws.below(Phase::ALL.len())]);
        plan.targets = (0..5).map(target).collect();
        // By draws of its own, so that all other plans are what they are without these.
        plan.hostile = !plan.losses && !plan.clones && Draws(seed ^ 0x0b57_11e0).below(3) == 0;
        plan.claims = !plan.losses && !plan.clones && Draws(seed ^ 0xc1a1_0000).below(4) == 0;
        let alone = !plan.clones && !plan.losses && !plan.hostile && !plan.claims;
        plan.forgets = alone && Draws(seed ^ 0x1d1e_1d1e).below(3) == 0;
        // Only there is something that a guard passes and an engine does not take.
        plan.automerge |= plan.hostile;
        plan.removes = !plan.hostile && Draws(seed ^ 0x2e30_7e5d).below(2) == 0;
        if plan.hostile && plan.fold_bytes.is_none() {
            // Without a worker nobody can say what is wrong with it.
            plan.fold_bytes = Some(1 << 40);
        }
        plan
    }
}

/// What a program waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitFor {
    /// All it wrote.
    Flush,
    /// All that the relay has.
    Sync,
    /// A version.
    Version,
    /// A version that somebody was given.
    Reach,
}

/// Something happens. `at` is a process, `pick` chooses among what there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "fields are said above")]
pub enum Deed {
    /// A program makes a commit that touches up to `segments` segments, and perhaps makes one.
    Edit { at: u8, segments: u8, pick: u16, alloc: bool, large: bool },
    /// Messages of a replica arrive.
    Up { at: u8, count: u8 },
    /// A message of commits of a replica is under way twice: the copy is right behind it. What no connection does, and what the
    /// relay takes for a duplicate (R2a).
    Repeat { at: u8, pick: u16 },
    /// A message of commits of a replica has other bytes on its way, which no guard takes.
    Forge { at: u8, pick: u16 },
    /// A stranger writes what no engine takes in.
    Harm { pick: u16 },
    /// A member of the group that shares work does its next small step.
    Work { at: u8, pick: u16 },
    /// Messages of an earlier connection arrive.
    LateUp { pick: u16 },
    /// Messages of the relay arrive.
    Down { at: u8, count: u8 },
    /// The disk has synced some of what was handed over.
    Sync { count: u8 },
    /// The store answers a read.
    Read { pick: u16 },
    /// A fold goes on by one stage.
    Fold { pick: u16 },
    /// A relay is asked for a new generation of a segment.
    Roll { pick: u16 },
    /// A connection opens.
    Connect { at: u8, can_write: bool },
    /// A program needs a segment.
    Load { at: u8, pick: u16 },
    /// A segment may go.
    Evict { at: u8, pick: u16 },
    /// A segment may be here as bytes.
    Pack { at: u8, pick: u16 },
    /// The same, and what was here of it is kept where every process of the heap finds it (L5).
    EvictKeeping { at: u8, pick: u16 },
    /// A program needs a segment of which something was kept, then or earlier.
    LoadFrom { at: u8, pick: u16 },
    /// A program waits.
    Wait { at: u8, kind: WaitFor, pick: u16 },
    /// Time passes.
    Pass { ms: u16 },
    /// So much time passes that lines are dropped which nobody goes by.
    Age,
    /// The end of a connection that is silent is noticed by its replica.
    Notice { at: u8 },
    /// The relay process starts again.
    Start,
    /// A process stores what it is.
    Store { at: u8 },
    /// The disk is copied, as for a backup.
    Backup,
    /// Something goes wrong.
    Fault { fault: Fault, at: u8, pick: u16 },
}
