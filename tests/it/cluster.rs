//! Replicas and a relay through every fault the world has, by seed. Goal: P1–P6 for the machines that ship.
//! Replay one: `COHEAP_SEED=n cargo test -p coheap-tests cluster`.

use coheap_core::edit::{Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::value::Value;
use coheap_tests::cluster::Cluster;
use coheap_tests::program::{Act, OPS, wish_of};
use coheap_tests::{Draws, ENGINES};

fn seeds(default: u64) -> Vec<u64> {
    match std::env::var("COHEAP_SEED") {
        Ok(seed) => vec![seed.parse().expect("COHEAP_SEED is a number")],
        Err(_) => (0..default).collect(),
    }
}

fn random_wishes(cluster: &mut Cluster, at: usize) -> Vec<(Index, Vec<Wish>)> {
    let here: Vec<Index> = cluster.nodes[at].mirrors.keys().copied().collect();
    let mut sections = Vec::new();
    let count = 1 + cluster.draws.below(2);
    for _ in 0..count.min(here.len()) {
        let index = here[cluster.draws.below(here.len())];
        if sections.iter().any(|(other, _)| *other == index) {
            continue;
        }
        let act = act(&mut cluster.draws);
        let (_, wish) = wish_of(&cluster.nodes[at].mirrors[&index], &act);
        sections.push((index, vec![wish]));
    }
    sections
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

fn seed_value(draws: &mut Draws, depth: usize) -> coheap_tests::program::Seed {
    use coheap_tests::program::Seed;
    match draws.below(if depth > 1 { 4 } else { 6 }) {
        4 => Seed::Map((0..draws.below(3)).map(|_| (draws.below(8) as u8, seed_value(draws, depth + 1))).collect()),
        5 => Seed::List((0..draws.below(3)).map(|_| seed_value(draws, depth + 1)).collect()),
        _ => Seed::Scalar(draws.below(1 << 16) as u16),
    }
}

/// One world: a random life, then rest, then the invariants.
fn live(seed: u64, replicas: usize, steps: usize, faults: bool) -> Cluster {
    let mut cluster = Cluster::new(seed, replicas);
    cluster.settle();
    for _ in 0..steps {
        if cluster.draws.below(4) == 0 {
            let at = cluster.draws.below(replicas);
            if cluster.draws.below(12) == 0 {
                let key = format!("seg{}", cluster.draws.below(5));
                // Heaps are mixed: a segment may be of any engine.
                let engine = ENGINES[cluster.draws.below(ENGINES.len())];
                cluster.alloc(at, engine, &key, Literal::Map(vec![("n".into(), Literal::Scalar(Value::Number(1.0)))]));
            } else {
                let sections = random_wishes(&mut cluster, at);
                cluster.commit(at, sections);
            }
        } else {
            cluster.step(faults);
        }
    }
    cluster.settle();
    // Everybody has everything in the end.
    for at in 0..replicas {
        for id in cluster.segments.clone() {
            let here = cluster.nodes[at].index(id).is_some_and(|i| cluster.nodes[at].mirrors.contains_key(&i));
            if !here {
                cluster.input(at, coheap_core::replica::Input::Load(vec![(id, id == cluster.segments[0])]));
            }
        }
    }
    cluster.settle();
    cluster
}

fn check(seed: u64, replicas: usize, steps: usize, faults: bool) -> (usize, usize) {
    let outcome = std::panic::catch_unwind(|| {
        let mut cluster = live(seed, replicas, steps, faults);
        cluster.check();
        (cluster.disk.len(), cluster.moves)
    });
    match outcome {
        Ok(counts) => counts,
        Err(panic) => {
            eprintln!("seed {seed} fails ({replicas} replicas, {steps} steps, faults {faults})");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn p1_replicas_converge_without_faults() {
    let entries: usize = seeds(60).into_iter().map(|seed| check(seed, 2 + (seed % 4) as usize, 200, false).0).sum();
    assert!(entries > 1000 || std::env::var("COHEAP_SEED").is_ok(), "the worlds did nothing: {entries} entries");
}

#[test]
fn p1_to_p6_hold_through_broken_connections_crashes_and_evictions() {
    let worlds = seeds(150).into_iter().map(|seed| check(seed, 2 + (seed % 4) as usize, 300, true));
    let (entries, moves) = worlds.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(moves > 100 || std::env::var("COHEAP_SEED").is_ok(), "replicas moved {moves} times only");
    assert!(entries > 3000 || std::env::var("COHEAP_SEED").is_ok(), "the worlds did nothing: {entries} entries");
}
