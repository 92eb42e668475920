//! A replica whose relay does not keep to the rules. Goal: R10 at the replica (C4), on every engine: what does not fit is reported,
//! and nothing else is.

use coheap_tests::liar;

#[test]
fn r10_a_replica_finds_the_one_commit_whose_clocks_do_not_fit() {
    for seed in 0..200 {
        if let Err(failure) = liar::trial(seed) {
            panic!("seed {seed}: {failure}");
        }
    }
}
