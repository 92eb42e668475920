//! Three replicas and six commits, two each, over two segments: not a sample of what can happen, but all of it. Goal: P1 to P6 in
//! every order that the links allow, and after every single failure at every place. Method: [`Choices`] counts through the
//! worlds; after each step `tests/sim/witness.rs` looks at everything, and in the end the cluster's own check.
//!
//! What is the same is not played twice. A replica that only listens changes nothing for the others, so it matters what it has
//! received where it does something: at its second commit, and where its connection or the relay ends. Its first commit is made
//! in the beginning, the second when it goes out. A failure shows the answers that lead to it; `COHEAP_WORLD=1,0,2,…` with the
//! test's name (`tests/it/small_worlds.rs`) plays that world alone. Where there is a range the tests play its first and its last;
//! `cargo xtask soak --world small` plays all.
#![allow(clippy::print_stdout, reason = "how many there were is worth seeing")]

use coheap_core::heap::Index;

use crate::choices::Choices;
use crate::stage::Stage;

const NAMES: [&str; 3] = ["A", "B", "C"];

/// Which segments the two commits of each replica touch.
const PROGRAMS: [[&[&str]; 2]; 3] = [[&["s", "t"], &["t"]], [&["s"], &["s", "t"]], [&["t"], &["s"]]];

/// A family of worlds: what happens in them, and how many there are, all of them and those at the ends of ranges.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// By which it is known.
    pub name: &'static str,
    play: fn(bool) -> usize,
    all: usize,
    ends: usize,
}

/// The ways to admit the first 0 to 6 of the commits, each before the disk follows, or behind that with none to all of them
/// received by one replica, and with all that the relay has to say.
const RECEIVED: usize = 3 + 4 * 3 + 5 * 9 + 6 * 24 + 7 * 54 + 8 * 90 + 9 * 90;

/// So many ways there are for three replicas to come back one after the other.
const RETURNS: usize = 6;

/// All of them.
pub const FAMILIES: &[Family] = &[
    Family { name: "order, A first", play: |full| orders(0, full), all: 2784, ends: 240 },
    Family { name: "order, B first", play: |full| orders(1, full), all: 2784, ends: 240 },
    Family { name: "order, C first", play: |full| orders(2, full), all: 2784, ends: 240 },
    Family { name: "disk", play: disk, all: 90 * 32, ends: 90 * 6 },
    Family { name: "crash, early", play: early, all: RETURNS * 1114, ends: 315 },
    Family { name: "crash, in the end", play: in_the_end, all: RETURNS * 4410, ends: 450 },
    Family { name: "crash, one is behind", play: behind, all: RETURNS * 16542, ends: 360 },
    Family { name: "broken connection", play: cuts, all: 3 * RECEIVED, ends: 9 * (9 + 54) },
    Family { name: "death", play: deaths, all: 6 * RECEIVED, ends: 18 * (9 + 54) },
];

impl Family {
    /// Plays all of its worlds, or those at the ends of ranges. Whether there were as many as there have to be is part of it.
    pub fn play(&self, full: bool) {
        let (count, due) = ((self.play)(full), if full { self.all } else { self.ends });
        assert!(count == due || std::env::var("COHEAP_WORLD").is_ok(), "{}: {count} worlds, not {due}", self.name);
    }
}

/// A world under way.
struct World {
    stage: Stage,
    /// How many commits each replica has sent to the relay.
    sent: [usize; 3],
}

impl World {
    /// Everybody has both segments, and has made the first commit.
    fn new() -> World {
        let mut stage = Stage::new(&NAMES);
        stage.prepare(&["s", "t"], coheap_core::commit::EngineKind::Yrs);
        let mut world = World { stage, sent: [0; 3] };
        for at in 0..3 {
            world.commit(at, 0);
        }
        world
    }

    /// A commit that leaves its mark in each segment and adds to its total there, and does nothing else.
    fn commit(&mut self, at: usize, which: usize) {
        let node = &self.stage.cluster.nodes[at];
        let sections: Vec<(Index, Vec<_>)> =
            PROGRAMS[at][which].iter().map(|name| (self.stage.index(NAMES[at], name), Vec::new())).collect();
        let before = node.committed;
        self.stage.cluster.commit(at, sections);
        assert!(self.stage.cluster.nodes[at].committed > before, "the commit was not made");
        self.stage.look();
    }

    /// Which replica's commit is admitted next, among those that have one left.
    fn next(&self, choices: &mut Choices) -> usize {
        let left: Vec<usize> = (0..3).filter(|at| self.sent[*at] < 2).collect();
        left[choices.below(left.len())]
    }

    /// The next commit of a replica reaches the relay; the second one is made just before.
    fn admit(&mut self, at: usize) {
        if self.sent[at] == 1 {
            self.commit(at, 1);
        }
        self.stage.up(NAMES[at], 1);
        self.sent[at] += 1;
    }

    /// Nothing more, or the disk follows and all others hear of it, and this one of some.
    fn answered(&mut self, choices: &mut Choices, at: usize, full: bool) {
        if choices.below(2) == 0 {
            return;
        }
        self.stage.sync(usize::MAX);
        self.down_all_but(Some(at));
        let behind = self.behind(at);
        match if full { choices.below(behind + 2) } else { (behind + 1) * choices.below(2) } {
            seen if seen <= behind => self.receive(at, seen),
            _ => self.down_all(),
        }
    }

    fn down_all(&mut self) {
        self.down_all_but(None);
    }

    fn down_all_but(&mut self, lags: Option<usize>) {
        for (at, name) in NAMES.iter().enumerate() {
            if Some(at) != lags {
                self.stage.down(name, usize::MAX);
            }
        }
    }

    /// How many durable entries a replica has not received.
    fn behind(&self, at: usize) -> usize {
        self.stage.cluster.disk.len() - self.stage.cluster.nodes[at].replica.cut().0 as usize
    }

    /// A replica receives so many of them.
    fn receive(&mut self, at: usize, entries: usize) {
        let upto = self.stage.cluster.nodes[at].replica.cut().0 + entries as u64;
        while self.stage.cluster.nodes[at].replica.cut().0 < upto {
            let before = self.stage.cluster.nodes[at].replica.cut();
            self.stage.down(NAMES[at], 1);
            let after = self.stage.cluster.nodes[at].replica.cut();
            assert!(after > before || self.stage.is_under_way(NAMES[at]), "what is durable is under way");
        }
    }

    /// Commits that a failure kept from being made are made, and everything comes to rest.
    fn end(mut self) {
        for at in 0..3 {
            if self.sent[at] == 0 {
                self.sent[at] = 1;
            }
            if self.sent[at] == 1 {
                self.commit(at, 1);
            }
        }
        self.stage.settle();
        self.stage.cluster.check();
        assert_eq!(self.stage.cluster.disk.len(), 2 + 6, "each commit is in the log once");
    }
}

/// Plays every world; how many there are.
fn every(name: &str, mut world: impl FnMut(&mut Choices)) -> usize {
    let (mut choices, mut count) = (Choices::default(), 0);
    if let Ok(answers) = std::env::var("COHEAP_WORLD") {
        choices = Choices::of(answers.split(',').map(|answer| answer.trim().parse().expect("a number")).collect());
        choices.next();
        world(&mut choices);
        return 1;
    }
    let begun = std::time::Instant::now();
    while choices.next() {
        let at = std::panic::AssertUnwindSafe((&mut choices, &mut world));
        let result = std::panic::catch_unwind(move || {
            let at = at;
            (at.0.1)(at.0.0);
        });
        if let Err(panic) = result {
            println!(
                "{name}: COHEAP_WORLD={}",
                choices.answers().iter().map(usize::to_string).collect::<Vec<_>>().join(",")
            );
            std::panic::resume_unwind(panic);
        }
        count += 1;
    }
    println!("{name}: {count} worlds in {:?}", begun.elapsed());
    count
}

/// Every order of admission in which this replica is first, and everything that the authors of the second commits can have seen.
fn orders(first: usize, full: bool) -> usize {
    every("orders", |choices| {
        let mut world = World::new();
        for step in 0..6 {
            let at = if step == 0 { first } else { world.next(choices) };
            if world.sent[at] == 1 {
                let behind = world.behind(at);
                let seen = if full { choices.below(behind + 1) } else { behind * choices.below(2) };
                world.receive(at, seen);
            }
            world.admit(at);
            world.stage.sync(usize::MAX);
        }
        world.end();
    })
}

/// The disk follows, and everybody hears of it, after some of the commits.
fn disk(full: bool) -> usize {
    every("disk", |choices| {
        let mut world = World::new();
        let once = if full { 0 } else { choices.below(6) };
        for step in 0..6 {
            let at = world.next(choices);
            world.admit(at);
            if step < 5 && if full { choices.below(2) == 1 } else { once == step } {
                world.stage.sync(usize::MAX);
                world.down_all();
            }
        }
        world.end();
    })
}

/// Admits the first commits of some order, so many; after some of them the disk follows, and all replicas but one. How many those
/// were.
fn begin(world: &mut World, choices: &mut Choices, admitted: usize, lags: Option<usize>, full: bool) -> usize {
    let synced = if full { choices.below(admitted + 1) } else { admitted * choices.below(3) / 2 };
    for step in 0..=admitted {
        if step == synced {
            world.stage.sync(usize::MAX);
        }
        // Whatever the relay sends arrives, and it should not send more than what is durable.
        world.down_all_but(lags);
        if step < admitted {
            let at = world.next(choices);
            world.admit(at);
        }
    }
    world.down_all_but(lags);
    synced
}

/// Everybody comes back, this one first, and says what it has to say before the next one comes.
fn come_back(world: &mut World, first: usize, turn: usize) {
    for step in 0..3 {
        let name = NAMES[(first + step * turn) % 3];
        world.stage.connect(name);
        world.stage.up(name, usize::MAX);
        world.stage.sync(usize::MAX);
        world.stage.read(usize::MAX);
        world.stage.down(name, usize::MAX);
        world.stage.up(name, usize::MAX);
        world.stage.sync(usize::MAX);
    }
}

/// The relay dies after so many commits of every order, with everything that the disk can have kept. One replica, or none, has
/// heard nothing of what was durable.
fn crashes(admitted: &[usize], lags: &[Option<usize>], full: bool) -> usize {
    every("crashes", |choices| {
        let mut world = World::new();
        let admitted = admitted[choices.below(admitted.len())];
        let lags = lags[choices.below(lags.len())];
        let synced = begin(&mut world, choices, admitted, lags, full);
        let open = admitted - synced;
        let kept = if full || open == 0 { choices.below(open + 1) } else { open * choices.below(2) };
        // Who comes back first and second; in some of the worlds, by turns.
        let turn = if full { choices.below(RETURNS) } else { choices.answers().iter().sum() };
        world.stage.crash(kept);
        world.stage.start();
        world.stage.sync(usize::MAX);
        come_back(&mut world, turn % 3, 1 + turn / 3 % 2);
        world.end();
    })
}

fn early(full: bool) -> usize {
    crashes(if full { &[0, 1, 2, 3, 4] } else { &[2, 4] }, &[None], full)
}

fn in_the_end(full: bool) -> usize {
    crashes(if full { &[5, 6] } else { &[6] }, &[None], full)
}

fn behind(full: bool) -> usize {
    crashes(if full { &[2, 3, 4, 5, 6] } else { &[3] }, &[Some(0), Some(1), Some(2)], full)
}

/// A connection breaks after so many commits of every order.
fn cuts(full: bool) -> usize {
    every("cuts", |choices| {
        let mut world = World::new();
        let admitted = if full { choices.below(7) } else { 2 + 2 * choices.below(2) };
        let cut = choices.below(3);
        for _ in 0..admitted {
            let at = world.next(choices);
            world.admit(at);
        }
        world.answered(choices, cut, full);
        world.stage.cut(NAMES[cut]);
        world.stage.sync(usize::MAX);
        world.down_all();
        come_back(&mut world, cut, 1);
        world.end();
    })
}

/// A replica's process dies after so many commits of every order, and another begins over what it had stored: before anything went
/// out, or just then.
fn deaths(full: bool) -> usize {
    every("deaths", |choices| {
        let mut world = World::new();
        let admitted = if full { choices.below(7) } else { 2 + 2 * choices.below(2) };
        let (dies, stores_late) = (choices.below(3), choices.below(2) == 1);
        world.stage.store(NAMES[dies]);
        for _ in 0..admitted {
            let at = world.next(choices);
            world.admit(at);
        }
        world.answered(choices, dies, full);
        if stores_late {
            world.stage.store(NAMES[dies]);
        }
        world.stage.reopen(NAMES[dies]);
        world.stage.sync(usize::MAX);
        world.down_all_but(Some(dies));
        come_back(&mut world, dies, 1);
        world.end();
    })
}
