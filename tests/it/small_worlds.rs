//! Small worlds, exhaustively (`tests/sim/small_worlds.rs`). Goal: P1 to P6 in every order that the links allow, and after every single
//! failure at every place. Here ranges are played at their ends; `cargo xtask soak --world small` plays all, and CI does.

use coheap_tests::small_worlds::FAMILIES;

fn plays(name: &str) {
    FAMILIES.iter().find(|family| family.name == name).expect("there is such a family").play(false);
}

#[test]
fn p1_to_p6_in_every_order_with_everything_that_can_be_seen_a_first() {
    plays("order, A first");
}

#[test]
fn p1_to_p6_in_every_order_with_everything_that_can_be_seen_b_first() {
    plays("order, B first");
}

#[test]
fn p1_to_p6_in_every_order_with_everything_that_can_be_seen_c_first() {
    plays("order, C first");
}

#[test]
fn p1_to_p6_in_every_order_and_wherever_the_disk_follows() {
    plays("disk");
}

#[test]
fn p1_to_p6_after_every_crash_of_the_relay_early() {
    plays("crash, early");
}

#[test]
fn p1_to_p6_after_every_crash_of_the_relay_in_the_end() {
    plays("crash, in the end");
}

#[test]
fn p1_to_p6_after_every_crash_that_finds_a_replica_behind() {
    plays("crash, one is behind");
}

#[test]
fn p1_to_p6_after_every_broken_connection() {
    plays("broken connection");
}

#[test]
fn p1_to_p6_after_every_death_of_a_replica() {
    plays("death");
}

#[test]
fn every_family_of_worlds_is_played() {
    let here = include_str!("small_worlds.rs");
    for family in FAMILIES {
        assert!(here.contains(&format!("plays(\"{}\")", family.name)), "{}", family.name);
    }
}
