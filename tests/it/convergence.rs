//! Convergence: random programs on 2–5 replicas of one segment, around one log, with replicas that are offline, get entries
//! twice, several at a time, are reloaded with work unsent, or die. At the end everybody sees the same, whoever loads afresh
//! too; and after every single step each mirror shows what its document holds.
//!
//! `COHEAP_PROGRAMS=n` sets how many programs are run; a failing one is shrunk and printed by proptest.

use std::cell::RefCell;

use coheap_core::commit::EngineKind;
use coheap_core::id::SegmentId;
use coheap_tests::ENGINES;
use coheap_tests::program::{Act, OPS, Op, Seed, Statistics, Turn, run};
use coheap_tests::world::World;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn seed() -> impl Strategy<Value = Seed> {
    let leaf = prop_oneof![
        6 => any::<u16>().prop_map(Seed::Scalar),
        1 => any::<u16>().prop_map(Seed::Text),
        1 => any::<i8>().prop_map(Seed::Counter),
        1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Seed::Set),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec((any::<u8>(), inner.clone()), 0..4).prop_map(Seed::Map),
            prop::collection::vec(inner, 0..4).prop_map(Seed::List),
        ]
    })
}

fn act() -> impl Strategy<Value = Act> {
    let op = prop_oneof![
        3 => Just(Op::Set),
        4 => Just(Op::Ensure),
        2 => Just(Op::Delete),
        2 => Just(Op::Insert),
        2 => Just(Op::Push),
        1 => Just(Op::Remove),
        2 => Just(Op::Put),
        3 => Just(Op::Move),
        2 => Just(Op::Splice),
        2 => Just(Op::Add),
        1 => Just(Op::Include),
        1 => Just(Op::Exclude),
        1 => Just(Op::Default),
        1 => Just(Op::Mark),
        1 => Just(Op::Near),
    ];
    // Few places, so that replicas meet in them.
    (op, 0..40_u16, 0..12_u16, any::<u16>(), seed()).prop_map(|(op, target, a, b, value)| Act {
        op,
        target,
        a,
        b,
        value,
    })
}

fn step() -> impl Strategy<Value = Turn> {
    prop_oneof![
        10 => (any::<u8>(), prop::collection::vec(act(), 1..5)).prop_map(|(peer, acts)| Turn::Edit(peer, acts)),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(peer, n)| Turn::Send(peer, n)),
        4 => (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>())
            .prop_map(|(peer, count, batch, again)| Turn::Receive { peer, count, batch, again }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(peer, folded)| Turn::Reload(peer, folded)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(peer, folded)| Turn::Restart(peer, folded)),
        1 => any::<u8>().prop_map(Turn::Dump),
    ]
}

#[test]
fn replicas_that_have_seen_the_same_log_see_the_same() {
    std::thread::scope(|scope| {
        let engines: Vec<_> = ENGINES.iter().map(|engine| scope.spawn(|| converge(*engine))).collect();
        for (statistics, engine) in engines.into_iter().zip(ENGINES) {
            let mut statistics = statistics.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            println!("{engine:?}");
            say(&mut statistics);
        }
    });
}

fn converge(engine: EngineKind) -> Statistics {
    let programs = std::env::var("COHEAP_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let statistics = RefCell::new(Statistics::default());
    let mut runner = TestRunner::new(Config { cases: programs, failure_persistence: None, ..Config::default() });
    let programs = (2..6_usize, any::<u64>(), any::<bool>(), prop::collection::vec(step(), 45..90));
    let outcome = runner.run(&programs, |(count, seed, root, steps)| {
        let id = if root { SegmentId::ROOT } else { SegmentId([7; 16]) };
        let mut world = World::new(engine, id, count, seed);
        run(&mut world, &steps, &mut statistics.borrow_mut());
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{engine:?}: {error}");
    }
    statistics.into_inner()
}

/// Prints what the programs were made of, and asserts that they were worth running.
fn say(statistics: &mut Statistics) {
    statistics.values.sort_unstable();
    let median = statistics.values[statistics.values.len() / 2];
    let wishes: usize = statistics.ops.values().sum();
    let concurrent = 100 * statistics.concurrent / statistics.commits;
    println!(
        "{} programs: {} commits, {concurrent} % concurrent, {} redone; {wishes} wishes; values at the end: median {median}, most {}",
        statistics.values.len(),
        statistics.commits,
        statistics.redone,
        statistics.values.last().unwrap_or(&0)
    );
    for op in OPS {
        let count = statistics.ops.get(op).copied().unwrap_or(0);
        println!("  {op:?}: {count} ({:.1} %)", 100.0 * count as f64 / wishes as f64);
        assert!(count * 100 >= wishes, "{op:?} is rare");
    }
    assert!(concurrent >= 30, "programs are too orderly");
    assert!(median >= 30, "documents are too small");
}
