//! The decided sentences of SEMANTICS S1–S12, as far as segments decide them: one test each, named after it.
//!
//! Every test runs on every engine of [`ENGINES`] with the same expected value, and with several seeds: which replica has the
//! higher id, in which order commits reach the log and how they are batched is different each time. Whoever loads the log
//! afresh, folded or not, is asked too (`World::meet`).

mod near;
mod overruled;
mod s01_identity;
mod s03_initial;
mod s04_registers;
mod s08_values;
mod s10_text;
mod s11_lists;

use bytes::Bytes;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{ObjectId, SegmentId};
use coheap_core::segment::{Segment, fold};
use coheap_core::value::{Ref, Value};
use coheap_tests::mirror::Mirror;
use coheap_tests::peer::Peer;
use coheap_tests::tree::{self, Tree, counter, list, map, num, scalar, set, text};
use coheap_tests::world::World;
use coheap_tests::{Draws, ENGINES};

const SEEDS: u64 = 4;

/// Runs a scenario of `count` replicas on every engine, with every seed, in the root and in another segment.
fn check(count: usize, scenario: impl Fn(&mut World)) {
    check_seeds(SEEDS, count, scenario);
}

/// As [`check`], with as many seeds.
fn check_seeds(seeds: u64, count: usize, scenario: impl Fn(&mut World)) {
    for engine in ENGINES {
        for seed in 0..seeds {
            let id = if seed % 2 == 0 { SegmentId::ROOT } else { SegmentId([0x5a; 16]) };
            println!("{engine:?}, seed {seed}");
            scenario(&mut World::new(*engine, id, count, seed));
        }
    }
}

/// As [`check`], in the root alone: only there are defaults.
fn check_root(count: usize, scenario: impl Fn(&mut World)) {
    for engine in ENGINES {
        for seed in 0..SEEDS {
            println!("{engine:?}, seed {seed}");
            scenario(&mut World::new(*engine, SegmentId::ROOT, count, seed));
        }
    }
}

fn n(number: impl Into<f64>) -> Literal {
    Literal::Scalar(Value::Number(number.into()))
}

fn s(text: &str) -> Literal {
    Literal::Scalar(Value::Str(text.to_owned()))
}

fn o<const N: usize>(entries: [(&str, Literal); N]) -> Literal {
    Literal::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn l<const N: usize>(values: [Literal; N]) -> Literal {
    Literal::List(values.into())
}

fn t(text: &str) -> Literal {
    Literal::Text(text.to_owned())
}

fn c(base: impl Into<f64>) -> Literal {
    Literal::Counter(base.into())
}

fn m<const N: usize>(members: [&str; N]) -> Literal {
    Literal::Set(members.into_iter().map(|member| Value::Str(member.to_owned())).collect())
}

// What all of them stand on

#[test]
fn a_fold_says_what_was_folded_and_refuses_what_it_does_not_know() {
    for engine in ENGINES {
        let mut peer = Peer::new(*engine, SegmentId::ROOT, 5);
        peer.set("", "n", Literal::Scalar(Value::Number(f64::NAN)));
        peer.set("", "l", l([n(1), o([("x", l([n(2)]))])]));
        peer.set("", "t", t("text"));
        let deltas: Vec<Bytes> = peer.unsent.iter().map(|commit| commit.delta.clone()).collect();
        let folded = fold(*engine, &[], &deltas).expect("a fold");
        let again = fold(*engine, &folded, &[]).expect("a fold of a fold");
        assert_eq!(folded.len(), again.len());
        for at in 0..folded.len() {
            let mut damaged = folded.clone();
            damaged[at] ^= 0x40;
            assert!(fold(*engine, &damaged, &[]).is_err(), "byte {at}");
        }
        assert!(fold(*engine, &folded[..folded.len() - 1], &[]).is_err());
    }
}

#[test]
fn an_edit_that_fails_leaves_no_handles_behind() {
    for engine in ENGINES {
        let mut peer = Peer::new(*engine, SegmentId::ROOT, 5);
        peer.set("", "a", o([("x", l([n(1)]))]));
        let snapshot = peer.stored();
        let bad = vec![
            Wish::Set { object: Handle(0), key: "b".into(), value: o([("y", l([n(1)]))]) },
            Wish::Delete { object: Handle(99), key: "b".into() },
        ];
        assert!(peer.segment.edit(bad, coheap_core::id::Uid(9), &mut Draws(3)).is_err());
        let generation = peer.segment.generation();
        peer.segment.replace(generation, 77, &snapshot, &[]).expect("rebuilt");
        let patches = peer.segment.show();
        peer.mirror.apply(&patches);
        peer.check();
        peer.set("", "c", o([("z", l([n(1)]))]));
        peer.push("c/z", vec![n(2)]);
        peer.push("a/x", vec![n(2)]);
        peer.dump();
    }
}

#[test]
fn a_segment_shown_to_a_new_mirror_is_what_the_old_one_shows() {
    for engine in ENGINES {
        let mut peer = Peer::new(*engine, SegmentId::ROOT, 5);
        peer.set("", "a", o([("x", l([o([]), t("abc"), c(4), m(["q"])]))]));
        peer.dump();
        let mut copy = Segment::decode(SegmentId::ROOT, *engine, engine.generation_zero(), 9, &peer.stored(), &[])
            .expect("decodes");
        assert_eq!(Mirror::of(&copy.show()).value(), peer.value());
        assert_eq!(Mirror::of(&copy.show()).value(), peer.value(), "as often as one likes");
    }
}
