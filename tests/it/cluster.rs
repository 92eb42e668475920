//! Replicas and a relay through every fault the world has, by seed. Goal: P1–P6 for the machines that ship.
//! Replay one: `COHEAP_SEED=n cargo test -p coheap-tests cluster`.

use coheap_tests::life::{check, live};

fn seeds(default: u64) -> Vec<u64> {
    match std::env::var("COHEAP_SEED") {
        Ok(seed) => vec![seed.parse().expect("COHEAP_SEED is a number")],
        Err(_) => (0..default).collect(),
    }
}

#[test]
fn p1_replicas_converge_without_faults() {
    let entries: usize = seeds(60).into_iter().map(|seed| check(seed, 2 + (seed % 4) as usize, 200, false)).sum();
    assert!(entries > 1000 || std::env::var("COHEAP_SEED").is_ok(), "the worlds did nothing: {entries} entries");
}

#[test]
fn p1_to_p6_hold_through_broken_connections_crashes_and_evictions() {
    let entries: usize = seeds(150).into_iter().map(|seed| check(seed, 2 + (seed % 4) as usize, 300, true)).sum();
    assert!(entries > 3000 || std::env::var("COHEAP_SEED").is_ok(), "the worlds did nothing: {entries} entries");
}

#[test]
fn worlds_with_faults_move_replicas_to_other_instances() {
    let moves: usize = (0..10).map(|seed| live(seed, 3, 300, true).moves).sum();
    assert!(moves > 10, "replicas moved {moves} times only");
}
