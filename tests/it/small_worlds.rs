//! Three replicas and six commits, two each, over two segments: not a sample of what can happen, but all of it. Goal: P1 to P6 in
//! every order that the links allow, and after every single failure at every place. Method: [`Choices`] counts through the
//! worlds; after each step `tests/sim/witness.rs` looks at everything, and in the end the cluster's own check.
//!
//! What is the same is not played twice. A replica that only listens changes nothing for the others, so it matters what it has
//! received where it does something: at its second commit, and where its connection or the relay ends. Its first commit is made
//! in the beginning, the second when it goes out. A failure shows the answers that lead to it; `COHEAP_WORLD=1,0,2,…` with the
//! test's name plays that world alone. A build with debug assertions plays the extremes only where there is a range
//! ([`FULL`]): `cargo test --release -p coheap-tests small_worlds` plays all.

use coheap_core::heap::Index;
use coheap_tests::choices::Choices;
use coheap_tests::stage::Stage;

/// Every world, or the first and the last of a range.
const FULL: bool = !cfg!(debug_assertions);

const NAMES: [&str; 3] = ["A", "B", "C"];

/// Which segments the two commits of each replica touch.
const PROGRAMS: [[&[&str]; 2]; 3] = [[&["s", "t"], &["t"]], [&["s"], &["s", "t"]], [&["t"], &["s"]]];

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
fn orders(first: usize) -> usize {
    every("orders", |choices| {
        let mut world = World::new();
        for step in 0..6 {
            let at = if step == 0 { first } else { world.next(choices) };
            if world.sent[at] == 1 {
                let behind = world.behind(at);
                let seen = if FULL { choices.below(behind + 1) } else { behind * choices.below(2) };
                world.receive(at, seen);
            }
            world.admit(at);
            world.stage.sync(usize::MAX);
        }
        world.end();
    })
}

#[test]
fn p1_to_p6_in_every_order_with_everything_that_can_be_seen_a_first() {
    assert!(orders(0) >= if FULL { 2784 } else { 240 });
}

#[test]
fn p1_to_p6_in_every_order_with_everything_that_can_be_seen_b_first() {
    assert!(orders(1) >= if FULL { 2784 } else { 240 });
}

#[test]
fn p1_to_p6_in_every_order_with_everything_that_can_be_seen_c_first() {
    assert!(orders(2) >= if FULL { 2784 } else { 240 });
}

#[test]
fn p1_to_p6_in_every_order_and_wherever_the_disk_follows() {
    let count = every("disk", |choices| {
        let mut world = World::new();
        let once = if FULL { 0 } else { choices.below(6) };
        for step in 0..6 {
            let at = world.next(choices);
            world.admit(at);
            if step < 5 && if FULL { choices.below(2) == 1 } else { once == step } {
                world.stage.sync(usize::MAX);
                world.down_all();
            }
        }
        world.end();
    });
    assert_eq!(count, 90 * if FULL { 32 } else { 6 });
}

/// Admits the first commits of some order, so many; after some of them the disk follows, and all replicas but one. How many those
/// were.
fn begin(world: &mut World, choices: &mut Choices, admitted: usize, lags: Option<usize>) -> usize {
    let synced = if FULL { choices.below(admitted + 1) } else { admitted * choices.below(3) / 2 };
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
fn crashes(admitted: &[usize], lags: &[Option<usize>]) -> usize {
    every("crashes", |choices| {
        let mut world = World::new();
        let admitted = admitted[choices.below(admitted.len())];
        let lags = lags[choices.below(lags.len())];
        let synced = begin(&mut world, choices, admitted, lags);
        let open = admitted - synced;
        let kept = if FULL || open == 0 { choices.below(open + 1) } else { open * choices.below(2) };
        // Who comes back first and second: by turns, for the one that matters is who comes before whom it waits for.
        let turn: usize = choices.answers().iter().sum();
        world.stage.crash(kept);
        world.stage.start();
        world.stage.sync(usize::MAX);
        come_back(&mut world, turn % 3, 1 + turn / 3 % 2);
        world.end();
    })
}

#[test]
fn p1_to_p6_after_every_crash_of_the_relay_early() {
    let admitted: &[usize] = if FULL { &[0, 1, 2, 3, 4] } else { &[2, 4] };
    assert!(crashes(admitted, &[None]) >= 300);
}

#[test]
fn p1_to_p6_after_every_crash_of_the_relay_in_the_end() {
    let admitted: &[usize] = if FULL { &[5, 6] } else { &[6] };
    assert!(crashes(admitted, &[None]) >= 300);
}

#[test]
fn p1_to_p6_after_every_crash_that_finds_a_replica_behind() {
    let admitted: &[usize] = if FULL { &[2, 3, 4, 5, 6] } else { &[3] };
    assert!(crashes(admitted, &[Some(0), Some(1), Some(2)]) >= 300);
}

#[test]
fn p1_to_p6_after_every_broken_connection() {
    let count = every("cuts", |choices| {
        let mut world = World::new();
        let admitted = if FULL { choices.below(7) } else { 2 + 2 * choices.below(2) };
        let cut = choices.below(3);
        // Before the disk follows, behind that with the answers under way, or behind all.
        let moment = choices.below(3);
        for _ in 0..admitted {
            let at = world.next(choices);
            world.admit(at);
        }
        if moment > 0 {
            world.stage.sync(usize::MAX);
        }
        if moment > 1 {
            world.down_all();
        }
        world.stage.cut(NAMES[cut]);
        world.stage.sync(usize::MAX);
        world.down_all();
        come_back(&mut world, cut, 1);
        world.end();
    });
    assert_eq!(count, 9 * if FULL { 1 + 3 + 9 + 24 + 54 + 90 + 90 } else { 9 + 54 });
}

/// A replica's process dies after so many commits of every order, and another begins over what it had stored: before anything went
/// out, or just then.
#[test]
fn p1_to_p6_after_every_death_of_a_replica() {
    let count = every("deaths", |choices| {
        let mut world = World::new();
        let admitted = if FULL { choices.below(7) } else { 2 + 2 * choices.below(2) };
        let (dies, stores_late, moment) = (choices.below(3), choices.below(2) == 1, choices.below(3));
        world.stage.store(NAMES[dies]);
        for _ in 0..admitted {
            let at = world.next(choices);
            world.admit(at);
        }
        if moment > 0 {
            world.stage.sync(usize::MAX);
        }
        if moment > 1 {
            world.down_all();
        }
        if stores_late {
            world.stage.store(NAMES[dies]);
        }
        world.stage.reopen(NAMES[dies]);
        world.stage.sync(usize::MAX);
        world.down_all_but(Some(dies));
        come_back(&mut world, dies, 1);
        world.end();
    });
    assert_eq!(count, 18 * if FULL { 1 + 3 + 9 + 24 + 54 + 90 + 90 } else { 9 + 54 });
}
