//! One random life of a [`Cluster`], by seed: programs, faults, rest, and then the invariants. The suites and the soak run it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::segment::write::Draw;
use coheap_core::value::{Kind, Value};
use coheap_core::wire::code::Code;

use crate::cluster::Cluster;
use crate::disk::PlainDisk;
use crate::ledger::{Outcome, is_kept, total_of};
use crate::mirror::Mirror;
use crate::program::{Act, OPS, Op, Seed, wish_of};
use crate::sharer::{KEYS, is_partition};
use crate::tree::Tree;
use crate::{Draws, ENGINES};

/// What happens in a life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// How many processes.
    pub replicas: usize,
    /// How many things happen before the world comes to rest.
    pub steps: usize,
    /// Connections break, the relay dies, segments are evicted, replicas move to other instances, time jumps.
    pub faults: bool,
    /// The right to write comes and goes with the connection, so commits are refused.
    pub rights: bool,
    /// The processes share work: joins, claims, `done()`s.
    pub shares: bool,
    /// Processes are copied, and start again over their stores. Not where work is shared: a claim belongs to one id.
    pub copies: bool,
    /// Programs count on counters of their own. Without, all that would be added to the ledger's totals is left out.
    pub counters: bool,
    /// Segments get new generations. Most have neither lists nor texts then, which are not rolled.
    pub rolls: bool,
    /// The relay loses its disk, or gets an older one. Nothing is evicted then: what nobody holds would be gone.
    pub losses: bool,
    /// Somebody commits what no engine takes in (R12). In a soak neither where the right to write comes and goes, nor where
    /// processes are copied.
    pub harm: bool,
}

impl Plan {
    /// The plan of a seed in a soak, so that every kind of world comes up.
    pub fn of(seed: u64) -> Plan {
        let replicas = 2 + (seed % 4) as usize;
        Plan {
            replicas,
            steps: 300,
            faults: !seed.is_multiple_of(5),
            rights: seed % 3 == 1,
            shares: seed % 7 < 3,
            copies: seed % 7 > 4 && !seed.is_multiple_of(5),
            counters: true,
            // Not with copies: about one in a hundred of those is not whole yet.
            rolls: seed.is_multiple_of(4) && seed % 7 <= 4,
            losses: false,
            harm: seed % 11 == 5 && seed % 3 != 1 && seed % 7 <= 4,
        }
    }

    /// Faults, and what a list of names says; `None`: one of them is no name.
    pub fn with(names: &str) -> Option<Plan> {
        let mut plan = Plan { faults: true, rights: false, shares: false, copies: false, rolls: false, ..Plan::of(0) };
        for name in names.split(',').filter(|name| !name.is_empty()) {
            let of = match name {
                "rights" => &mut plan.rights,
                "shares" => &mut plan.shares,
                "copies" => &mut plan.copies,
                "rolls" => &mut plan.rolls,
                "losses" => &mut plan.losses,
                "harm" => &mut plan.harm,
                _ => return None,
            };
            *of = true;
        }
        Some(plan)
    }

    /// The same with as many processes as worlds of this seed have.
    #[must_use]
    pub fn sized(self, seed: u64) -> Plan {
        Plan { replicas: 2 + (seed % 4) as usize, ..self }
    }
}

/// What a life came to.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    /// Entries of the log.
    pub entries: usize,
    /// Commits.
    pub commits: usize,
    /// Those of them that were refused.
    pub refused: usize,
    /// Segments made anew after a refusal.
    pub rebuilds: usize,
    /// Flushes that a refusal failed.
    pub flushes_failed: usize,
    /// Replicas that went on in another instance.
    pub moves: usize,
    /// Those whose instance could not be asked any more.
    pub losses: usize,
    /// Processes that were copied.
    pub copied: usize,
    /// Processes that went on from a store.
    pub restarts: usize,
    /// How often a process took another id.
    pub forks: usize,
    /// Grants.
    pub grants: usize,
    /// How often a replica gave back what the log had lost.
    pub restores: usize,
    /// Commits of which nobody could say what became of them.
    pub in_doubt: usize,
    /// How often what was durable on a lost disk had no place where it was given back.
    pub parted: usize,
    /// Parts that no engine takes in, left out of the log, and how often a segment stood still for one.
    pub left_out: usize,
    pub quarantines: usize,
    /// New generations of segments.
    pub rolled: usize,
    /// Segments that got none, by why.
    pub not_rolled: BTreeMap<String, usize>,
    /// Keys of shared work that were done.
    pub done: usize,
    /// `done()`s that came too late.
    pub stale: usize,
    /// Commits made while another process had commits that their author had not seen.
    pub concurrent: usize,
    /// What the programs did, without the ledger's markers and totals.
    pub ops: BTreeMap<Op, usize>,
    /// How many values all documents of a life held in the end, without the ledger's, one number a life.
    pub values: Sizes,
}

/// Numbers of values, one a life.
#[derive(Clone, Default)]
pub struct Sizes(Vec<usize>);

impl Sizes {
    /// The one in the middle; 0 if there is none.
    pub fn median(&self) -> usize {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the middle of {}, at most {}", self.median(), self.0.len(), self.0.iter().max().unwrap_or(&0))
    }
}

impl Tally {
    /// How many of a hundred commits were concurrent with another process's.
    pub fn concurrent_percent(&self) -> usize {
        100 * self.concurrent / self.commits.max(1)
    }

    /// The operations that are less than a hundredth of what the programs did.
    pub fn rare_ops(&self) -> Vec<Op> {
        let wishes: usize = self.ops.values().sum();
        let rare = |op: &Op| self.ops.get(op).copied().unwrap_or(0) * 100 < wishes.max(1);
        OPS.iter().copied().filter(rare).collect()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.entries += other.entries;
        self.commits += other.commits;
        self.refused += other.refused;
        self.rebuilds += other.rebuilds;
        self.flushes_failed += other.flushes_failed;
        self.moves += other.moves;
        self.losses += other.losses;
        self.copied += other.copied;
        self.restarts += other.restarts;
        self.forks += other.forks;
        self.grants += other.grants;
        self.restores += other.restores;
        self.in_doubt += other.in_doubt;
        self.parted += other.parted;
        self.left_out += other.left_out;
        self.quarantines += other.quarantines;
        self.rolled += other.rolled;
        for (why, count) in other.not_rolled {
            *self.not_rolled.entry(why).or_default() += count;
        }
        self.done += other.done;
        self.stale += other.stale;
        self.concurrent += other.concurrent;
        for (op, count) in other.ops {
            *self.ops.entry(op).or_default() += count;
        }
        self.values.0.extend(other.values.0);
    }
}

/// A random life of a world, and everything at rest.
pub fn live(seed: u64, plan: Plan) -> Cluster {
    let mut cluster = Cluster::new(seed, plan.replicas);
    cluster.settle();
    cluster.begin_total(0);
    cluster.settle();
    cluster.rights_change = plan.rights;
    cluster.copies = plan.copies && !plan.shares;
    cluster.keeps = plan.losses;
    cluster.harms = plan.harm;
    (cluster.rolls, cluster.ledger.rolls) = (plan.rolls, plan.rolls);
    let mut copy = PlainDisk::default();
    // A run that the relay names lives as long as its group, so it is for worlds where the group does.
    let run = if plan.faults || seed.is_multiple_of(2) { "first run" } else { "" };
    for at in 0..plan.replicas {
        // Most from the start; the others join later.
        if plan.shares && cluster.draws.below(4) > 0 {
            cluster.enter(at, run);
        }
    }
    for step in 0..plan.steps {
        let at = cluster.draws.below(cluster.nodes.len());
        if plan.shares && cluster.draws.below(4) == 0 {
            match cluster.draws.below(30) {
                0..3 => cluster.enter(at, run),
                3 if plan.faults => cluster.leave(at),
                4..8 if plan.faults => cluster.sleep(),
                // Grants wait for the end of the grace time.
                8..14 if plan.faults => {
                    let ms = cluster.draws.below(2_000) as u64;
                    cluster.pass(ms);
                }
                _ => drop(cluster.work(at)),
            }
        } else if cluster.draws.below(4) == 0 {
            // Often several in a row, so that some lie behind one that is refused.
            for _ in 0..=cluster.draws.below(3) {
                program(&mut cluster, at, plan);
            }
        } else if plan.rights && !plan.faults && cluster.draws.below(20) == 0 {
            cluster.disconnect(at);
        } else {
            cluster.step(plan.faults);
        }
        if plan.losses {
            match cluster.draws.below(60) {
                0 | 1 => copy = cluster.disk.clone(),
                2 => cluster.lose_disk(copy.clone()),
                3 => cluster.lose_disk(PlainDisk::default()),
                _ => {}
            }
        }
        // Now and then the world is quick, so that there is something to lose.
        if plan.faults && cluster.draws.below(if plan.shares { 10 } else { 40 }) == 0 {
            cluster.round();
        }
        if step % 8 == 0 {
            cluster.look();
        }
    }
    if plan.shares {
        // Who may not write would ask for its key, and be refused, for ever.
        cluster.rights_change = false;
        for at in 0..plan.replicas {
            cluster.disconnect(at);
            cluster.enter(at, run);
        }
    }
    cluster.settle();
    // Everybody has everything in the end.
    for at in 0..cluster.nodes.len() {
        for id in cluster.segments.clone() {
            if cluster.nodes[at].mirror(id).is_none() {
                cluster.load(at, id);
            }
        }
    }
    cluster.settle();
    cluster
}

/// Lives and checks. A failure names its seed.
pub fn check(seed: u64, plan: Plan) -> Tally {
    let outcome = std::panic::catch_unwind(|| {
        let mut cluster = live(seed, plan);
        cluster.check();
        if !plan.rights && !plan.shares {
            assert_eq!(cluster.ledger.refused(), 0, "nothing here is to be refused");
        }
        let done = if plan.shares { check_work(&cluster) } else { 0 };
        tally(&mut cluster, done)
    });
    match outcome {
        Ok(tally) => tally,
        Err(panic) => {
            eprintln!("seed {seed} fails: {plan:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn tally(cluster: &mut Cluster, done: usize) -> Tally {
    let rebuilds = cluster.stats().iter().map(|stats| stats.rebuilds as usize).sum();
    let lost = u64::from(Code::ClaimLost.number());
    Tally {
        entries: cluster.disk.len(),
        commits: cluster.ledger.commits.len(),
        refused: cluster.ledger.refused(),
        rebuilds,
        flushes_failed: cluster.ledger.flushes_failed,
        moves: cluster.moves,
        losses: cluster.losses,
        copied: cluster.copied,
        restarts: cluster.restarts,
        forks: cluster.nodes.iter().map(|node| node.forks).sum(),
        grants: cluster.grants.given,
        restores: cluster.restores,
        in_doubt: cluster.ledger.in_doubt(),
        parted: cluster.ledger.parted(),
        left_out: cluster.left_out,
        quarantines: cluster.nodes.iter().map(|node| node.quarantines).sum(),
        rolled: cluster.rolled,
        not_rolled: std::mem::take(&mut cluster.not_rolled),
        done,
        stale: cluster.ledger.commits.values().filter(|written| written.fate == Outcome::Refused(lost)).count(),
        concurrent: cluster.concurrent,
        ops: std::mem::take(&mut cluster.ops),
        values: Sizes(vec![cluster.nodes[0].mirrors.values().map(values_of).sum()]),
    }
}

/// How many values a document holds, without the ledger's.
fn values_of(mirror: &Mirror) -> usize {
    let first = match mirror.value() {
        Tree::Map(entries) => {
            entries.iter().filter(|(key, _)| !key.starts_with('#')).map(|(_, value)| value.values()).sum()
        }
        other => other.values(),
    };
    first + mirror.nears().values().map(Tree::values).sum::<usize>()
}

/// Shared work at its end: every key was done exactly once, and everybody knows it and the same of the group.
fn check_work(cluster: &Cluster) -> usize {
    let mut ends: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for written in cluster.ledger.commits.values().filter(|written| written.fate == Outcome::Stands) {
        if let Some(ended) = &written.ended {
            *ends.entry((&ended.run, &ended.key)).or_default() += 1;
        }
    }
    let mut groups = BTreeMap::new();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let sharer = node.sharer.as_ref().expect("everybody takes part in the end");
        assert!(sharer.is_finished(), "replica {at} is not through: {sharer:?}");
        for key in KEYS {
            assert_eq!(ends.get(&(&*sharer.run, key)), Some(&1), "key {key} of run {} is done once", sharer.run);
        }
        let view = (&sharer.members, &sharer.done, &sharer.taken);
        let first = groups.entry(&sharer.run).or_insert(view);
        assert_eq!(*first, view, "the group as replica {at} sees it");
        assert!(sharer.members.contains(&node.replica.id()), "replica {at} is a member");
    }
    ends.len()
}

/// A program does something.
fn program(cluster: &mut Cluster, at: usize, plan: Plan) {
    if cluster.draws.below(12) == 0 {
        let key = format!("seg{}", cluster.draws.below(5));
        // Heaps are mixed: a segment may be of any engine.
        let engine = ENGINES[cluster.draws.below(ENGINES.len())];
        cluster.alloc(at, engine, &key, vec![("n".into(), Literal::Scalar(Value::Number(1.0)))]);
    } else {
        let sections = random_wishes(cluster, at, plan);
        cluster.commit(at, sections);
    }
}

fn random_wishes(cluster: &mut Cluster, at: usize, plan: Plan) -> Vec<(Index, Vec<Wish>)> {
    // Partitions of shared work are left to the work.
    let here: Vec<Index> =
        cluster.nodes[at].resident().filter(|(id, _, _)| !is_partition(*id)).map(|(_, index, _)| index).collect();
    let mut sections = Vec::new();
    let count = 1 + cluster.draws.below(2);
    for _ in 0..count.min(here.len()) {
        let index = here[cluster.draws.below(here.len())];
        if sections.iter().any(|(other, _)| *other == index) {
            continue;
        }
        let act = act(&mut cluster.draws);
        let mirror = &cluster.nodes[at].mirrors[&index];
        let (mut op, mut wish) = wish_of(mirror, &act);
        if plan.counters && op == Op::Add && is_kept(mirror, &wish) {
            (op, wish) = count_on(mirror, &act);
        }
        // Every fifth segment has them all the same, and is not rolled.
        if plan.rolls && index.0 % 5 != 4 && makes_a_sequence(&wish) {
            (op, wish) = count_on(mirror, &act);
        }
        if !is_kept(mirror, &wish) {
            *cluster.ops.entry(op).or_default() += 1;
        }
        if let Wish::Near { object, .. } = &mut wish {
            *object = cluster.draws.object();
        }
        sections.push((index, vec![wish]));
    }
    sections
}

/// Whether a list or a text comes to be.
fn makes_a_sequence(wish: &Wish) -> bool {
    fn is_one(value: &Literal) -> bool {
        match value {
            Literal::List(_) | Literal::Text(_) => true,
            Literal::Map(entries) => entries.iter().any(|(_, value)| is_one(value)),
            Literal::Scalar(_) | Literal::Counter(_) | Literal::Set(_) => false,
        }
    }
    match wish {
        Wish::Set { value, .. } | Wish::Put { value, .. } | Wish::Default { value, .. } | Wish::Near { value, .. } => {
            is_one(value)
        }
        _ => false,
    }
}

/// Adds to a counter that is not the ledger's, or makes one: at a key that others may make one at, at the same time.
fn count_on(mirror: &Mirror, act: &Act) -> (Op, Wish) {
    let own = |handle: &Handle| mirror.node(*handle).kind() == Kind::Counter && Some(*handle) != total_of(mirror);
    let counters: Vec<Handle> = mirror.reachable().into_iter().filter(own).collect();
    match counters.get(act.target as usize % counters.len().max(1)) {
        Some(counter) => (Op::Add, Wish::Add { object: *counter, by: f64::from(act.a) - f64::from(act.b) }),
        None => {
            let (object, key) = (Handle(0), "counted".to_owned());
            (Op::Set, Wish::Set { object, key, value: Literal::Counter(f64::from(act.a)) })
        }
    }
}

fn act(draws: &mut Draws) -> Act {
    let op = OPS[draws.below(OPS.len())];
    let value = seed_value(draws, 0);
    Act {
        op,
        target: draws.below(1 << 16) as u16,
        a: draws.below(1 << 16) as u16,
        b: draws.below(1 << 16) as u16,
        value,
    }
}

fn seed_value(draws: &mut Draws, depth: usize) -> Seed {
    match draws.below(if depth > 1 { 4 } else { 6 }) {
        4 => Seed::Map((0..draws.below(3)).map(|_| (draws.below(8) as u8, seed_value(draws, depth + 1))).collect()),
        5 => Seed::List((0..draws.below(3)).map(|_| seed_value(draws, depth + 1)).collect()),
        _ => Seed::Scalar(draws.below(1 << 16) as u16),
    }
}
