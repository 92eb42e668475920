//! S2's last sentence: of kinds that differ under one key at once one wins, and the replicas that made another one are told what
//! they lost, once. The seeds also decide who wins.
//! `Peer` asserts for every loss that it is told once, and that the mirror shows what won.

use std::collections::BTreeSet;

use coheap_core::value::Kind;
use coheap_tests::life::{Plan, live};

use super::*;

/// Enough that each of two kinds wins now and then.
const SEEDS: u64 = 6;

fn check(count: usize, scenario: impl Fn(&mut World)) {
    check_seeds(SEEDS, count, scenario);
}

/// What a peer was told to have lost: under which key, to which kind, and what it held.
fn told(peer: &Peer) -> Vec<(String, Kind, Tree)> {
    peer.overruled.iter().map(|told| (told.key.clone(), told.kept, peer.last(told.lost))).collect()
}

fn is_map(tree: &Tree) -> bool {
    matches!(tree, Tree::Map(_))
}

#[test]
fn s02_of_kinds_that_differ_the_replicas_that_made_the_loser_are_told_what_it_held() {
    let mut winners = BTreeSet::new();
    for engine in ENGINES {
        for seed in 0..SEEDS {
            let mut w = World::new(*engine, SegmentId::ROOT, 4, seed);
            w.peers[0].ensure("", "k", o([("x", n(1)), ("deep", o([("y", n(2))]))]));
            w.peers[1].ensure("", "k", o([]));
            w.peers[1].set("k", "z", n(3));
            w.peers[2].ensure("", "k", l([n(1), n(2)]));
            let value = w.meet();
            let map_wins = is_map(value.at("k").expect("one of them"));
            winners.insert(map_wins);
            assert_eq!(told(&w.peers[3]), [], "one that looked on");
            if map_wins {
                assert_eq!(told(&w.peers[2]), [("k".to_owned(), Kind::Map, list([num(1), num(2)]))]);
                assert_eq!((told(&w.peers[0]), told(&w.peers[1])), (vec![], vec![]), "the map is theirs");
            } else {
                assert_eq!(told(&w.peers[2]), []);
                for (peer, key) in [(0, "x"), (1, "z")] {
                    let [(at, kept, lost)] = &told(&w.peers[peer])[..] else { panic!("one loss") };
                    assert_eq!((at.as_str(), *kept), ("k", Kind::List));
                    assert!(lost.at(key).is_some(), "what peer {peer} wrote is in {lost:?}");
                }
            }
        }
    }
    assert_eq!(winners.len(), 2, "sometimes one wins, sometimes the other");
}

#[test]
fn s02_of_kinds_that_differ_inside_literals_that_meet_the_inner_loser_is_told() {
    check(2, |w| {
        w.peers[0].ensure("", "k", o([("both", o([("x", n(1))])), ("one", n(1))]));
        w.peers[1].ensure("", "k", o([("both", l([n(1)])), ("two", n(2))]));
        let value = w.meet();
        assert_eq!(value.at("k").map(|k| k.keys().len()), Some(3), "the literals met");
        let (winner, loser) = if is_map(value.at("k/both").expect("one")) { (0, 1) } else { (1, 0) };
        assert_eq!(told(&w.peers[winner]), []);
        let kept = if winner == 0 { Kind::Map } else { Kind::List };
        let lost = if winner == 0 { list([num(1)]) } else { map([("x", num(1))]) };
        assert_eq!(told(&w.peers[loser]), [("both".to_owned(), kept, lost)]);
    });
}

#[test]
fn s02_a_loss_is_told_after_a_catch_up_and_after_a_reload_too() {
    check(2, |w| {
        w.peers[0].ensure("", "k", o([("x", n(1))]));
        w.peers[1].ensure("", "k", l([n(1)]));
        w.send(0, 1);
        w.send(1, 1);
        // Both creations are in the log; peers hear of the other one by a new document instead of its delta.
        w.reload(0, true);
        w.reload(1, false);
        let map_wins = is_map(w.meet().at("k").expect("one"));
        let (winner, loser) = if map_wins { (0, 1) } else { (1, 0) };
        assert_eq!(told(&w.peers[winner]), []);
        assert_eq!(told(&w.peers[loser]).len(), 1);
        w.reload(loser, true);
        assert_eq!(told(&w.peers[loser]).len(), 1, "once");
    });
}

#[test]
fn s02_what_a_redo_writes_over_is_told_where_it_was_made() {
    check(2, |w| {
        w.peers[0].ensure("", "k", o([("x", n(1))]));
        w.peers[1].ensure("", "k", l([n(1)]));
        w.send(1, 1);
        // The map is made anew on a document that has the list.
        w.reload(0, false);
        assert_eq!(told(&w.peers[0]), []);
        let value = w.meet();
        assert_eq!(value.at("k"), Some(&map([("x", num(1))])));
        assert_eq!(told(&w.peers[0]), []);
        assert_eq!(told(&w.peers[1]), [("k".to_owned(), Kind::Map, list([num(1)]))]);
    });
}

#[test]
fn s02_nothing_is_told_where_nothing_was_lost_that_way() {
    check(3, |w| {
        // The same kind, everywhere.
        w.peers[0].ensure("", "same", o([("x", n(1))]));
        w.peers[1].ensure("", "same", o([("y", n(1))]));
        // A container against a scalar: two writes to one register (S4).
        w.peers[0].ensure("", "scalar", o([]));
        w.peers[1].ensure("", "scalar", n(1));
        w.peers[2].ensure("", "over", o([]));
        w.peers[2].ensure("", "gone", o([]));
        w.peers[2].ensure("", "mine", o([]));
        w.meet();
        // Written over, deleted and made again by who had seen it; replaced by its own maker.
        w.peers[0].set("", "over", l([]));
        w.peers[0].delete("", "gone");
        w.peers[0].ensure("", "gone", l([n(1)]));
        w.peers[2].set("", "mine", l([]));
        w.peers[2].delete("", "mine");
        w.peers[2].ensure("", "mine", Literal::Counter(1.0));
        w.meet();
        assert!(w.peers.iter().all(|peer| peer.overruled.is_empty()), "{:?}", told(&w.peers[2]));
    });
}

#[test]
fn s03_of_different_defaults_nothing_is_told() {
    for engine in ENGINES {
        for seed in 0..SEEDS {
            let mut w = World::new(*engine, SegmentId::ROOT, 3, seed);
            w.peers[0].default("", "k", o([("x", n(1))]));
            w.peers[1].default("", "k", l([n(1)]));
            w.peers[0].default("", "real", o([]));
            w.peers[2].ensure("", "real", l([]));
            w.meet();
            assert!(w.peers.iter().all(|peer| peer.overruled.is_empty()));
        }
    }
}

#[test]
fn s05_in_a_map_that_was_deleted_at_once_nothing_is_lost_to_another_kind() {
    check(3, |w| {
        w.peers[0].ensure("", "box", o([("in", o([]))]));
        w.meet();
        w.peers[0].ensure("box/in", "k", o([]));
        w.peers[1].ensure("box/in", "k", l([]));
        w.peers[2].delete("", "box");
        for author in 0..3 {
            w.send(author, 1);
        }
        for reader in 0..3 {
            w.reload(reader, reader == 1);
        }
        assert_eq!(w.meet(), map([]));
        assert!(w.peers.iter().all(|peer| peer.overruled.is_empty()));
    });
}

#[test]
fn s02_a_creation_that_was_undone_is_no_loss() {
    check(2, |w| {
        w.peers[0].ensure("", "k", o([("x", n(1))]));
        let undone = w.peers[0].unsent.remove(0);
        w.peers[0].segment.undone(undone.uid);
        w.reload(0, false);
        w.peers[1].ensure("", "k", l([]));
        w.meet();
        assert_eq!(told(&w.peers[0]), []);
    });
}

/// Replicas around a relay, with broken connections, catch-ups, refusals and moves to other instances: the world asserts of every
/// loss that is told that the mirror of its replica knows it.
#[test]
fn s02_losses_are_told_by_replicas_around_a_relay() {
    let told: usize = (0..12)
        .flat_map(|seed| {
            live(
                seed,
                Plan {
                    replicas: 3,
                    steps: 300,
                    faults: true,
                    rights: false,
                    shares: false,
                    copies: false,
                    counters: false,
                    losses: false,
                    rolls: false,
                    harm: false,
                },
            )
            .nodes
        })
        .map(|node| node.overruled)
        .sum();
    println!("{told} losses");
    assert!(told > 0, "no replica lost a creation");
}

/// R11: edits that lay behind a refused creation stay, and are there again when somebody makes the object again.
#[test]
fn s02_what_is_made_again_shows_what_a_refused_creation_left_behind() {
    type Fill = fn(&mut Peer);
    let kinds: [(Literal, Fill, Literal, Tree); 5] = [
        (l([n(1)]), |p| p.push("k", vec![n(2), n(3)]), l([n(4)]), list([num(4), num(2), num(3)])),
        (o([("a", n(1))]), |p| p.set("k", "b", n(2)), o([("c", n(3))]), map([("b", num(2)), ("c", num(3))])),
        (t("a"), |p| p.splice("k", 1, 0, "b"), t("c"), text("cb")),
        (c(1), |p| p.add("k", 2.0), c(5), counter(7)),
        (m(["a"]), |p| p.include("k", "b"), m(["c"]), set(["b", "c"])),
    ];
    for (made, edit, again, left) in kinds {
        for maker in 0..2 {
            check(2, |w| {
                let empty = w.peers[0].stored();
                w.peers[0].ensure("", "k", made.clone());
                edit(&mut w.peers[0]);
                // The relay refuses the creation; what lies behind it is redone.
                w.peers[0].unsent.remove(0);
                w.peers[0].reload(&empty, &[]);
                assert_eq!(w.peers[0].at("k"), None);
                w.meet();
                w.peers[maker].ensure("", "k", again.clone());
                // What was made, and what was left: at once, and by everybody.
                assert_eq!(w.peers[maker].at("k").as_ref(), Some(&left), "{made:?}");
                w.peers[maker].check();
                assert_eq!(w.meet(), map([("k", left.clone())]), "{made:?}");
            });
        }
    }
}
