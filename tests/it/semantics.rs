//! The decided sentences of SEMANTICS S1–S12, as far as segments decide them: one test each, named after it.
//!
//! Every test runs on every engine of [`ENGINES`] with the same expected value, and with several seeds: which replica has the
//! higher id, in which order commits reach the log and how they are batched is different each time. Whoever loads the log
//! afresh, folded or not, is asked too (`World::meet`).

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
    for engine in ENGINES {
        for seed in 0..SEEDS {
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

// S1

#[test]
fn s01_an_object_keeps_its_id_through_moves_folds_and_reloads() {
    check(2, |w| {
        w.peers[0].set("", "items", l([o([("name", s("first"))]), o([]), o([])]));
        w.meet();
        let id = w.peers[0].id("items/0");
        assert_eq!(w.peers[1].id("items/0"), id);
        w.peers[1].shift("items", 0, 2);
        w.meet();
        assert_eq!(w.peers[0].id("items/2"), id);
        w.reload(0, true);
        assert_eq!(w.peers[0].id("items/2"), id);
        w.restart(1, true);
        assert_eq!(w.peers[1].id("items/2"), id);
        assert_eq!(w.peers[1].segment.find(id).map(|(handle, _)| handle), Some(w.peers[1].find("items/2")));
    });
}

#[test]
fn s01_the_first_object_has_the_segments_id() {
    check(1, |w| assert_eq!(w.peers[0].id(""), w.id.first()));
}

// S2

#[test]
fn s02_creation_meets_in_a_map() {
    check(10, |w| {
        for i in 0..10 {
            w.peers[i].ensure("", "a", o([]));
            for j in 0..10 {
                w.peers[i].set("a", &format!("{i}-{j}"), n(j));
            }
        }
        let value = w.meet();
        assert_eq!(value.at("a").map(|a| a.keys().len()), Some(100));
    });
}

#[test]
fn s02_creation_meets_in_a_counter() {
    check(10, |w| {
        for peer in &mut w.peers {
            peer.ensure("", "a", c(0));
            peer.add("a", 1.0);
        }
        assert_eq!(w.meet(), map([("a", counter(10))]));
    });
}

#[test]
fn s02_creation_meets_in_a_list() {
    check(10, |w| {
        for (i, peer) in (0..).zip(&mut w.peers) {
            peer.ensure("", "a", l([]));
            peer.push("a", vec![n(i)]);
        }
        let value = w.meet();
        let mut elements = value.at("a").map(|a| a.elements().to_vec()).unwrap_or_default();
        elements.sort_by_key(|e| format!("{e:?}"));
        assert_eq!(elements, (0..10).map(num).collect::<Vec<Tree>>());
    });
}

#[test]
fn s02_creation_meets_in_a_text() {
    check(10, |w| {
        for peer in &mut w.peers {
            peer.ensure("", "a", t(""));
            peer.splice("a", 0, 0, "xyz");
        }
        assert_eq!(w.meet(), map([("a", text(&"xyz".repeat(10)))]));
    });
}

#[test]
fn s02_creation_meets_in_a_set() {
    check(10, |w| {
        for (i, peer) in w.peers.iter_mut().enumerate() {
            peer.ensure("", "a", m([]));
            peer.include("a", &i.to_string());
        }
        assert_eq!(w.meet(), map([("a", set(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]))]));
    });
}

#[test]
fn s02_creation_meets_one_level_deeper() {
    check(10, |w| {
        for (i, peer) in w.peers.iter_mut().enumerate() {
            peer.ensure("", "deep", o([]));
            peer.ensure("deep", "map", o([]));
            peer.ensure("deep", "count", c(0));
            peer.ensure("deep", "list", l([]));
            for j in 0..10 {
                peer.set("deep/map", &format!("{i}-{j}"), n(j));
            }
            peer.add("deep/count", 1.0);
            peer.push("deep/list", vec![n(i as u32)]);
        }
        let value = w.meet();
        assert_eq!(value.at("deep/map").map(|map| map.keys().len()), Some(100));
        assert_eq!(value.at("deep/count"), Some(&counter(10)));
        assert_eq!(value.at("deep/list").map(|list| list.elements().len()), Some(10));
    });
}

#[test]
fn s02_creation_meets_when_one_of_them_has_already_sent_its_own() {
    check(3, |w| {
        w.peers[0].ensure("", "a", o([]));
        w.peers[0].set("a", "x", n(1));
        w.send(0, 9);
        w.receive(1, 9, 1, 0);
        w.peers[1].ensure("", "a", o([]));
        w.peers[1].set("a", "y", n(2));
        w.peers[2].ensure("", "a", o([]));
        w.peers[2].set("a", "z", n(3));
        assert_eq!(w.meet(), map([("a", map([("x", num(1)), ("y", num(2)), ("z", num(3))]))]));
    });
}

#[test]
fn s02_creation_meets_again_after_a_deletion_all_have_seen() {
    check(3, |w| {
        w.peers[0].set("", "a", o([("old", n(1))]));
        w.meet();
        w.peers[1].delete("", "a");
        w.meet();
        for (i, peer) in w.peers.iter_mut().enumerate() {
            peer.ensure("", "a", o([]));
            peer.set("a", &i.to_string(), n(i as u32));
        }
        assert_eq!(w.meet(), map([("a", map([("0", num(0)), ("1", num(1)), ("2", num(2))]))]));
    });
}

#[test]
fn s02_deletions_at_once_are_one_so_creation_after_them_meets() {
    check(2, |w| {
        w.peers[0].set("", "a", o([("old", n(1))]));
        w.meet();
        for (i, peer) in w.peers.iter_mut().enumerate() {
            peer.delete("", "a");
            peer.ensure("", "a", c(0));
            peer.add("a", 1.0 + i as f64);
        }
        assert_eq!(w.meet(), map([("a", counter(3))]));
    });
}

#[test]
fn s02_a_recreated_object_has_only_new_content() {
    for (first, again) in
        [(o([("old", n(1))]), o([])), (l([n(1)]), l([])), (t("old"), t("")), (c(7), c(0)), (m(["old"]), m([]))]
    {
        check(2, |w| {
            w.peers[0].set("", "a", first.clone());
            w.meet();
            w.peers[0].delete("", "a");
            w.peers[0].set("", "a", again.clone());
            let value = w.meet();
            let expected = Mirror::of(&[]).value();
            assert_ne!(value, expected);
            let fresh = w.peers[0].at("a");
            w.peers[1].set("", "b", again.clone());
            assert_eq!(fresh, w.peers[1].at("b"));
        });
    }
}

#[test]
fn s02_assigning_over_a_present_value_makes_a_fresh_object() {
    check(2, |w| {
        w.peers[0].set("", "a", o([("old", n(1))]));
        w.meet();
        let old = w.peers[0].id("a");
        w.peers[0].set("", "a", o([("new", n(2))]));
        w.peers[1].set("a", "late", n(3));
        assert_eq!(w.meet(), map([("a", map([("new", num(2))]))]), "what was written into the old one is gone with it");
        assert_ne!(w.peers[0].id("a"), old);
        assert_eq!(w.peers[0].id("a"), w.peers[1].id("a"));
    });
}

#[test]
fn s02_of_kinds_that_differ_one_wins_everywhere() {
    check(4, |w| {
        w.peers[0].ensure("", "a", o([("x", n(1))]));
        w.peers[1].ensure("", "a", l([n(1)]));
        w.peers[2].ensure("", "a", t("x"));
        w.peers[3].ensure("", "a", c(4));
        let value = w.meet();
        let kinds = [map([("x", num(1))]), list([num(1)]), text("x"), counter(4)];
        assert!(kinds.contains(value.at("a").expect("one of them")), "{value:?}");
        w.peers[0].delete("", "a");
        w.meet();
        w.peers[1].ensure("", "a", o([]));
        w.peers[2].ensure("", "a", o([("y", n(2))]));
        assert_eq!(w.meet(), map([("a", map([("y", num(2))]))]));
    });
}

// S3

#[test]
fn s03_a_default_shows_until_something_is_written() {
    check_root(2, |w| {
        w.peers[0].default("", "a", n(1));
        assert_eq!(w.meet(), map([("a", num(1))]));
        w.peers[1].set("", "a", n(2));
        assert_eq!(w.meet(), map([("a", num(2))]));
    });
}

#[test]
fn s03_doing_it_twice_changes_nothing() {
    check_root(5, |w| {
        let everything = o([
            ("n", n(1)),
            ("map", o([("x", n(1)), ("inner", o([("y", l([n(1)]))]))])),
            ("list", l([n(1), o([("z", n(2))]), l([s("deep")])])),
            ("text", t("")),
            ("count", c(5)),
            ("set", m(["a", "b"])),
        ]);
        let Literal::Map(entries) = &everything else { unreachable!() };
        for peer in &mut w.peers {
            for (key, value) in entries {
                peer.default("", key, value.clone());
            }
        }
        let expected = w.peers[0].value();
        assert_eq!(w.meet(), expected);
        w.peers[3].push("list/2", vec![s("more")]);
        w.peers[4].push("list/2", vec![s("and more")]);
        w.peers[1].add("count", 1.0);
        w.peers[2].add("count", 2.0);
        w.peers[2].splice("text", 0, 0, "t");
        let value = w.meet();
        assert_eq!(value.at("count"), Some(&counter(8)));
        assert_eq!(value.at("list/2").map(|inner| inner.elements().len()), Some(3));
        assert_eq!(value.at("list").map(|list| list.elements().len()), Some(3));
        assert_eq!(value.at("text"), Some(&text("t")));
    });
}

#[test]
fn s03_a_real_write_wins_even_if_the_default_arrives_later() {
    check_root(3, |w| {
        w.peers[0].set("", "n", s("real"));
        w.peers[0].set("", "map", o([("x", s("real"))]));
        w.peers[1].default("", "n", s("default"));
        w.peers[1].default("", "map", o([("x", s("default")), ("y", s("default"))]));
        w.send(0, 9);
        w.receive(2, 9, 1, 0);
        w.send(1, 9);
        let value = w.meet();
        assert_eq!(value.at("n"), Some(&tree::str("real")));
        assert_eq!(value.at("map/x"), Some(&tree::str("real")));
    });
}

#[test]
fn s03_a_real_write_wins_though_the_writer_had_seen_no_default() {
    check_root(2, |w| {
        w.peers[1].default("", "n", s("default"));
        w.send(1, 1);
        w.peers[0].set("", "n", s("real"));
        assert_eq!(w.meet(), map([("n", tree::str("real"))]));
    });
}

#[test]
fn s03_a_delete_wins_even_if_the_default_arrives_later() {
    check_root(2, |w| {
        w.peers[0].set("", "a", n(1));
        w.peers[0].delete("", "a");
        w.peers[1].default("", "a", s("default"));
        assert_eq!(w.meet(), map([]));
    });
}

#[test]
fn s03_a_deleted_default_stays_away() {
    check_root(3, |w| {
        w.peers[0].default("", "a", o([("x", n(1))]));
        w.meet();
        w.peers[0].delete("", "a");
        w.peers[1].default("", "b", n(1));
        assert_eq!(w.meet(), map([("b", num(1))]));
        w.peers[2].default("", "a", o([("x", n(1))]));
        assert_eq!(w.peers[2].value(), map([("b", num(1))]), "it is not wanted any more");
        assert_eq!(w.meet(), map([("b", num(1))]));
    });
}

#[test]
fn s03_a_removed_element_of_a_default_list_stays_away() {
    check_root(3, |w| {
        w.peers[0].default("", "a", l([n(1), n(2), n(3)]));
        w.peers[1].default("", "a", l([n(1), n(2), n(3)]));
        w.peers[2].default("", "a", l([n(1), n(2), n(3)]));
        w.peers[0].remove("a", 1, 1);
        assert_eq!(w.meet(), map([("a", list([num(1), num(3)]))]));
    });
}

#[test]
fn s03_changes_to_default_lists_meet_before_their_owners_do() {
    check_root(3, |w| {
        for peer in &mut w.peers {
            peer.default("", "a", l([s("x"), s("y"), s("z")]));
        }
        w.peers[0].put("a", 0, s("X"));
        w.peers[1].shift("a", 0, 2);
        w.peers[2].push("a", vec![s("!")]);
        let value = w.meet();
        let elements = value.at("a").expect("a list").elements().to_vec();
        assert_eq!(elements.len(), 4);
        for element in ["X", "y", "z", "!"] {
            assert_eq!(elements.iter().filter(|e| **e == tree::str(element)).count(), 1, "{value:?}");
        }
    });
}

#[test]
fn s03_of_different_defaults_one_wins() {
    check_root(2, |w| {
        w.peers[0].default("", "a", n(1));
        w.peers[0].default("", "c", c(1));
        w.peers[0].default("", "l", l([n(1)]));
        w.peers[1].default("", "a", n(2));
        w.peers[1].default("", "c", c(2));
        w.peers[1].default("", "l", l([n(2)]));
        let value = w.meet();
        assert!([num(1), num(2)].contains(value.at("a").expect("a")));
        assert!([counter(1), counter(2)].contains(value.at("c").expect("c")));
        assert!([list([num(1)]), list([num(2)])].contains(value.at("l").expect("l")));
    });
}

#[test]
fn s03_a_text_in_a_default_is_empty() {
    check_root(1, |w| {
        let peer = &mut w.peers[0];
        let wish = Wish::Default { object: Handle(0), key: "a".into(), value: t("x") };
        let mut draws = Draws(1);
        assert!(peer.segment.edit(vec![wish], coheap_core::id::Uid(1), &mut draws).is_err());
    });
}

#[test]
fn s03_maps_assigned_to_an_absent_key_by_two_merge_by_key() {
    check(2, |w| {
        w.peers[0].ensure("", "a", o([("x", n(1)), ("in", o([("p", n(1))]))]));
        w.peers[1].ensure("", "a", o([("y", n(2)), ("in", o([("q", n(2))]))]));
        let inner = map([("p", num(1)), ("q", num(2))]);
        assert_eq!(w.meet(), map([("a", map([("x", num(1)), ("y", num(2)), ("in", inner)]))]));
    });
}

#[test]
fn s03_large_maps_assigned_to_an_absent_key_by_two_merge_by_key() {
    check(2, |w| {
        let large = |letter: &str| {
            let entries = (0..200).map(|i| (format!("{letter}{i}"), s(&"v".repeat(600))));
            Literal::Map(entries.collect())
        };
        w.peers[0].ensure("", "a", large("p"));
        w.peers[1].ensure("", "a", large("q"));
        assert_eq!(w.meet().at("a").map(|a| a.keys().len()), Some(400));
    });
}

#[test]
fn s03_sets_assigned_to_an_absent_key_by_two_merge_by_union() {
    check(2, |w| {
        w.peers[0].ensure("", "a", m(["x", "y"]));
        w.peers[1].ensure("", "a", m(["y", "z"]));
        assert_eq!(w.meet(), map([("a", set(["x", "y", "z"]))]));
    });
}

#[test]
fn s03_counters_assigned_to_an_absent_key_by_two_start_at_one_base() {
    check(2, |w| {
        w.peers[0].ensure("", "a", c(5));
        w.peers[1].ensure("", "a", c(5));
        w.peers[0].add("a", 1.0);
        w.peers[1].add("a", 2.0);
        assert_eq!(w.meet(), map([("a", counter(8))]));
    });
}

#[test]
fn s03_lists_and_texts_assigned_to_an_absent_key_by_two_hold_both() {
    check(2, |w| {
        w.peers[0].ensure("", "l", l([n(1), n(2)]));
        w.peers[1].ensure("", "l", l([n(3), n(4)]));
        w.peers[0].ensure("", "t", t("ab"));
        w.peers[1].ensure("", "t", t("cd"));
        let value = w.meet();
        let orders = [list([1, 2, 3, 4].map(num)), list([3, 4, 1, 2].map(num))];
        assert!(orders.contains(value.at("l").expect("a list")), "{value:?}");
        assert!([text("abcd"), text("cdab")].contains(value.at("t").expect("a text")), "{value:?}");
    });
}

// S4

#[test]
fn s04_of_two_writes_at_once_one_wins_and_no_replica_wins_always() {
    for engine in ENGINES {
        let mut winners = [0; 2];
        for seed in 0..40 {
            let mut w = World::new(*engine, SegmentId::ROOT, 2, seed);
            w.peers[0].set("", "a", n(0));
            w.peers[1].set("", "a", n(1));
            let value = w.meet();
            winners[usize::from(value == map([("a", num(1))]))] += 1;
        }
        assert!(winners[0] >= 5 && winners[1] >= 5, "{winners:?}");
    }
}

#[test]
fn s04_a_write_that_had_seen_the_other_wins() {
    check(3, |w| {
        w.peers[0].set("", "a", n(0));
        w.meet();
        for round in 1..12_u32 {
            w.peers[round as usize % 3].set("", "a", n(round));
            assert_eq!(w.meet(), map([("a", num(round))]));
        }
    });
}

#[test]
fn s04_a_write_wins_against_all_it_had_seen_and_nothing_older_comes_back() {
    check(3, |w| {
        w.peers[0].set("", "a", n(0));
        w.peers[1].set("", "a", n(1));
        w.send(0, 1);
        w.send(1, 1);
        w.receive(2, 2, 1, 0);
        w.peers[2].set("", "a", n(2));
        assert_eq!(w.meet(), map([("a", num(2))]));
    });
}

// S5

#[test]
fn s05_a_write_wins_against_a_delete_at_once() {
    check(2, |w| {
        w.peers[0].set("", "a", n(0));
        w.peers[0].set("", "b", o([("x", n(0))]));
        w.meet();
        w.peers[0].delete("", "a");
        w.peers[1].set("", "a", n(1));
        w.peers[0].delete("", "b");
        w.peers[1].set("", "b", s("new"));
        assert_eq!(w.meet(), map([("a", num(1)), ("b", tree::str("new"))]));
    });
}

#[test]
fn s05_a_value_that_won_against_a_write_takes_it_along_when_it_is_deleted() {
    // The first replica's own write won or lost against the second's (S4); its delete had seen its own.
    check(2, |w| {
        w.peers[0].set("", "a", n(0));
        w.meet();
        w.peers[0].set("", "a", n(1));
        w.peers[0].delete("", "a");
        w.peers[1].set("", "a", n(2));
        let value = w.meet();
        assert!([map([]), map([("a", num(2))])].contains(&value), "{value:?}");
        w.peers[0].set("", "a", n(3));
        assert_eq!(w.meet(), map([("a", num(3))]));
    });
}

#[test]
fn s05_a_write_wins_against_a_delete_at_once_in_a_literal() {
    check(2, |w| {
        w.peers[0].set("", "o", o([("a", n(0)), ("b", o([]))]));
        w.meet();
        w.peers[0].delete("o", "a");
        w.peers[0].delete("o", "b");
        w.peers[1].set("o", "a", n(1));
        w.peers[1].set("o", "b", n(2));
        assert_eq!(w.meet(), map([("o", map([("a", num(1)), ("b", num(2))]))]));
    });
}

#[test]
fn s05_a_delete_of_an_object_wins_against_edits_inside() {
    check(2, |w| {
        w.peers[0].set(
            "",
            "o",
            o([("m", o([("x", n(1))])), ("l", l([n(1)])), ("t", t("x")), ("c", c(1)), ("s", m(["x"]))]),
        );
        w.meet();
        w.peers[0].delete("", "o");
        w.peers[1].set("o/m", "y", n(2));
        w.peers[1].push("o/l", vec![n(2)]);
        w.peers[1].splice("o/t", 0, 0, "y");
        w.peers[1].add("o/c", 1.0);
        w.peers[1].include("o/s", "y");
        assert_eq!(w.meet(), map([]));
        w.peers[1].set("", "o", o([]));
        assert_eq!(w.meet(), map([("o", map([]))]), "and nothing of it is in a new one");
    });
}

#[test]
fn s05_an_object_deleted_and_made_again_while_another_edits_the_old_has_only_new_content() {
    check(2, |w| {
        w.peers[0].set("", "o", o([("old", n(1)), ("in", o([("deep", n(1))]))]));
        w.meet();
        w.peers[0].delete("", "o");
        w.peers[0].set("", "o", o([("new", n(2))]));
        w.peers[1].set("o", "lost", n(3));
        w.peers[1].set("o/in", "lost", n(3));
        assert_eq!(w.meet(), map([("o", map([("new", num(2))]))]));
    });
}

#[test]
fn s05_a_list_element_removed_while_another_replaces_it_is_gone() {
    check(2, |w| {
        w.peers[0].set("", "l", l([n(0), n(1), n(2)]));
        w.meet();
        w.peers[0].remove("l", 1, 1);
        w.peers[1].put("l", 1, n(9));
        assert_eq!(w.meet(), map([("l", list([num(0), num(2)]))]));
    });
}

#[test]
fn s05_a_member_included_wins_against_its_exclusion_at_once() {
    check(2, |w| {
        w.peers[0].set("", "s", m(["x", "y"]));
        w.meet();
        w.peers[0].exclude("s", "x");
        w.peers[1].include("s", "x");
        w.peers[1].exclude("s", "y");
        assert_eq!(w.meet(), map([("s", set(["x"]))]));
    });
}

#[test]
fn s05_a_detached_object_takes_edits_and_shows_nothing_of_them() {
    // JavaScript throws ERR_DELETED where it knows; where it does not know yet, the edit comes to nothing.
    check(2, |w| {
        w.peers[0].set("", "o", o([("l", l([n(1)])), ("t", t("x"))]));
        w.meet();
        let (inner, characters) = (w.peers[1].find("o/l"), w.peers[1].find("o/t"));
        w.peers[0].set("", "o", n(0));
        w.meet();
        w.peers[1].wish(Wish::Insert { object: inner, index: 1, values: vec![n(2)] });
        w.peers[1].wish(Wish::Splice { object: characters, index: 1, removed: 0, inserted: "y".into() });
        assert_eq!(w.meet(), map([("o", num(0))]));
    });
}

// S6

#[test]
fn s06_keys_stand_in_one_order() {
    let keys = ["b", "10", "9", "a", "4294967294", "4294967295", "01", "", "😀", "\u{fffd}", "é", "-1", "1.5"];
    let order = ["9", "10", "4294967294", "", "-1", "01", "1.5", "4294967295", "a", "b", "é", "😀", "\u{fffd}"];
    check(keys.len(), |w| {
        for (peer, key) in w.peers.iter_mut().zip(keys) {
            peer.set("", key, n(1));
        }
        assert_eq!(w.meet().keys(), order);
    });
}

#[test]
fn s06_names_of_the_prototype_are_ordinary_keys() {
    check(2, |w| {
        for key in ["__proto__", "constructor", "toString", "hasOwnProperty"] {
            w.peers[0].set("", key, o([("x", n(1))]));
            w.peers[1].set("", key, o([("y", n(2))]));
        }
        let both = || map([("x", num(1)), ("y", num(2))]);
        let expected =
            map([("__proto__", both()), ("constructor", both()), ("hasOwnProperty", both()), ("toString", both())]);
        assert_eq!(w.meet(), expected);
        w.peers[0].delete("", "__proto__");
        assert_eq!(w.meet().keys(), ["constructor", "hasOwnProperty", "toString"]);
    });
}

#[test]
fn s06_keys_that_look_like_the_layouts_own_names_are_ordinary_keys() {
    let id = SegmentId([1; 16]).to_string();
    let keys =
        [".", "!", "=", "~1~a", "@", "+", "%", "?", ".a", "", "~", "a~1~", &id, &format!("{id}.a"), &format!("{id}=")];
    check(2, |w| {
        for (i, key) in keys.iter().enumerate() {
            w.peers[i % 2].set("", key, o([(key, n(1))]));
        }
        let value = w.meet();
        assert_eq!(value.keys().len(), keys.len());
        for (i, key) in keys.iter().enumerate() {
            w.peers[i % 2].delete("", key);
        }
        assert_eq!(w.meet(), map([]));
        for key in keys {
            w.peers[0].set("", key, n(2));
        }
        assert_eq!(w.meet().keys().len(), keys.len());
    });
}

// S8

fn every_scalar() -> Vec<Value> {
    let mut values = vec![Value::Null, Value::Bool(true), Value::Bool(false)];
    let p53 = 9_007_199_254_740_992.0;
    for number in [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        -0.1,
        1.5,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        f64::EPSILON,
        127.0,
        128.0,
        -64.0,
        -65.0,
        2_147_483_647.0,
        2_147_483_648.0,
        -2_147_483_648.0,
        -2_147_483_649.0,
        4_294_967_295.0,
        4_294_967_296.0,
        p53 - 1.0,
        p53,
        p53 + 2.0,
        -p53,
        -p53 - 2.0,
        1e21,
        f64::from(f32::MAX),
        f64::from(0.1_f32),
    ] {
        values.push(Value::Number(number));
    }
    for integer in [0, 5, -5, 63, 64, -65, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN] {
        values.push(Value::BigInt(integer));
    }
    for ms in [0.0, -0.0, 1.0, 1_700_000_000_000.0, -62_135_596_800_000.0, 8.64e15, -8.64e15, f64::NAN, 0.5] {
        values.push(Value::Date(ms));
    }
    for bytes in [vec![], vec![0], vec![0x10], vec![0x06, 0], (0..=255).collect(), vec![0xff; 20_000]] {
        values.push(Value::Bytes(bytes));
    }
    let segment = SegmentId([3; 16]);
    values.push(Value::Ref(Ref { segment, object: segment.first() }));
    values.push(Value::Ref(Ref { segment, object: ObjectId([4; 16]) }));
    let long = "长".repeat(10_000);
    for text in [
        "",
        "a",
        "\0",
        "\u{1}\u{2}\n",
        "é",
        "e\u{301}",
        "漢字",
        "😀",
        "👩‍👩‍👧‍👦",
        "\u{feff}",
        "\u{fffd}",
        "\u{10ffff}",
        "\u{e000}",
        &long,
    ] {
        values.push(Value::Str(text.to_owned()));
    }
    values
}

#[test]
fn s08_every_value_comes_back_as_it_went_in() {
    check(2, |w| {
        let values = every_scalar();
        let shown: Vec<Tree> = values.iter().cloned().map(scalar).collect();
        let literals: Vec<Literal> = values.into_iter().map(Literal::Scalar).collect();
        let peer = &mut w.peers[0];
        // As values of keys, in a literal's base, in a list, and as what replaces an element.
        let entries = || literals.iter().enumerate().map(|(i, value)| (format!("k{i}"), value.clone()));
        peer.set("", "literal", Literal::Map(entries().collect()));
        peer.set("", "keys", o([]));
        for (key, value) in entries() {
            peer.set("keys", &key, value);
        }
        peer.set("", "list", Literal::List(literals.clone()));
        peer.set("", "put", Literal::List(vec![n(0); literals.len()]));
        for (index, value) in literals.iter().enumerate() {
            peer.put("put", index as u32, value.clone());
        }
        let value = w.meet();
        for (i, expected) in shown.iter().enumerate() {
            for place in [format!("literal/k{i}"), format!("keys/k{i}"), format!("list/{i}"), format!("put/{i}")] {
                assert_eq!(value.at(&place), Some(expected), "{place}");
            }
        }
    });
}

#[test]
fn s08_a_number_stays_a_number_and_a_bigint_a_bigint() {
    check(2, |w| {
        w.peers[0].set("", "number", n(5));
        w.peers[0].set("", "bigint", Literal::Scalar(Value::BigInt(5)));
        assert_eq!(w.meet(), map([("number", num(5)), ("bigint", scalar(Value::BigInt(5)))]));
    });
}

#[test]
fn s08_defaults_hold_every_value_too() {
    check_root(2, |w| {
        for (i, value) in every_scalar().into_iter().enumerate() {
            w.peers[i % 2].default("", &format!("k{i}"), Literal::Scalar(value));
        }
        let all = every_scalar();
        let list = Literal::List(all.iter().cloned().map(Literal::Scalar).collect());
        w.peers[0].default("", "list", list);
        let value = w.meet();
        for (i, expected) in all.into_iter().enumerate() {
            assert_eq!(value.at(&format!("k{i}")), Some(&scalar(expected.clone())));
            assert_eq!(value.at(&format!("list/{i}")), Some(&scalar(expected)));
        }
    });
}

#[test]
fn s08_keys_are_any_strings() {
    check(2, |w| {
        let long = "k".repeat(4096);
        let wide = "漢".repeat(1365);
        let keys = ["", " ", "\0", "a\0b", "/", "é", "e\u{301}", "😀", "\u{fffd}", &long, &wide];
        for (i, key) in keys.iter().enumerate() {
            w.peers[i % 2].set("", key, n(1));
            w.peers[0].ensure("", "inner", o([]));
        }
        w.meet();
        for key in keys {
            w.peers[0].set("inner", key, c(0));
        }
        let value = w.meet();
        assert_eq!(value.keys().len(), keys.len() + 1);
        assert_eq!(value.at("inner").map(|inner| inner.keys().len()), Some(keys.len()));
    });
}

#[test]
fn s08_sets_hold_strings_numbers_and_truth_values_each_once() {
    check(2, |w| {
        let members =
            [Value::Number(0.0), Value::Number(-0.0), Value::Number(1.0), Value::Number(f64::NAN), Value::Bool(true)];
        w.peers[0].set("", "s", Literal::Set(members.to_vec()));
        w.peers[1].ensure("", "s", m(["1", "true", ""]));
        let Some(Tree::Set(found)) = w.meet().at("s").cloned() else { panic!("a set") };
        assert_eq!(found.len(), 7, "{found:?}");
    });
}

#[test]
fn s08_what_cannot_stand_in_a_place_is_refused() {
    check(1, |w| {
        let peer = &mut w.peers[0];
        let container = Value::Container(coheap_core::value::Kind::Map, coheap_core::value::Identity::Derived(0));
        let wishes = [
            Wish::Set { object: Handle(0), key: "a".into(), value: Literal::Scalar(container) },
            Wish::Set { object: Handle(0), key: "a".into(), value: Literal::Set(vec![Value::Null]) },
            Wish::Set { object: Handle(7), key: "a".into(), value: n(1) },
            Wish::Add { object: Handle(0), by: 1.0 },
            Wish::Insert { object: Handle(0), index: 0, values: vec![] },
        ];
        for wish in wishes {
            let outcome = peer.segment.edit(vec![wish], coheap_core::id::Uid(1), &mut Draws(1));
            assert!(outcome.is_err());
        }
    });
}

// S10

#[test]
fn s10_indexes_of_texts_are_utf16() {
    check(2, |w| {
        w.peers[0].set("", "t", t("a😀é漢"));
        w.meet();
        w.peers[1].splice("t", 3, 1, "e");
        assert_eq!(w.meet(), map([("t", text("a😀e漢"))]));
        w.peers[0].splice("t", 1, 2, "");
        assert_eq!(w.meet(), map([("t", text("ae漢"))]));
        w.peers[0].splice("t", 0, 0, "😀😀");
        w.peers[1].splice("t", 3, 0, "😀");
        assert_eq!(w.meet(), map([("t", text("😀😀ae漢😀"))]));
    });
}

#[test]
fn s10_edits_of_a_text_by_two_at_once_both_hold() {
    check(2, |w| {
        w.peers[0].set("", "t", t("hello world"));
        w.meet();
        w.peers[0].splice("t", 0, 5, "HELLO");
        w.peers[1].splice("t", 6, 5, "😀");
        assert_eq!(w.meet(), map([("t", text("HELLO 😀"))]));
        w.peers[0].splice("t", 0, 8, "");
        w.peers[1].splice("t", 4, 2, "");
        assert_eq!(w.meet(), map([("t", text(""))]));
    });
}

#[test]
fn s10_typed_runs_of_two_at_one_place_stay_unbroken() {
    check(2, |w| {
        w.peers[0].set("", "t", t("[]"));
        w.meet();
        for (peer, letter) in [(0, "a"), (1, "b")] {
            for i in 0..6 {
                w.peers[peer].splice("t", 1 + i, 0, letter);
            }
        }
        let value = w.meet();
        assert!([text("[aaaaaabbbbbb]"), text("[bbbbbbaaaaaa]")].contains(value.at("t").expect("t")), "{value:?}");
    });
}

#[test]
fn s10_a_cut_inside_a_surrogate_pair_moves_to_its_start_when_an_edit_is_redone() {
    check(2, |w| {
        w.peers[0].set("", "t", t("ab"));
        w.meet();
        // What the first replica has not sent speaks of offsets 1..2; there is half a character in what it meets.
        w.peers[0].splice("t", 1, 1, "X");
        w.peers[1].splice("t", 0, 2, "😀😀");
        w.send(1, 1);
        w.reload(0, false);
        let redone = w.peers[0].value();
        assert_eq!(redone, map([("t", text("X😀"))]));
        assert_eq!(w.meet(), redone);
    });
}

#[test]
fn s10_indexes_outside_a_text_are_refused() {
    check(1, |w| {
        w.peers[0].set("", "t", t("ab"));
        let object = w.peers[0].find("t");
        for (index, removed) in [(3, 0), (2, 1), (0, 3), (u32::MAX, 1)] {
            let wish = Wish::Splice { object, index, removed, inserted: String::new() };
            let outcome = w.peers[0].segment.edit(vec![wish], coheap_core::id::Uid(1), &mut Draws(1));
            assert!(outcome.is_err(), "{index} {removed}");
        }
    });
}

// S11

#[test]
fn s11_inserts_at_one_place_all_survive_runs_unbroken() {
    check(4, |w| {
        w.peers[0].set("", "l", l([s("<"), s(">")]));
        w.meet();
        for (i, peer) in (0..).zip(&mut w.peers) {
            // A run is what is written from its first element to its last, one by one or at once.
            match i % 2 {
                0 => (0..5).for_each(|j| peer.insert("l", 1 + j, vec![n(10 * i + j)])),
                _ => peer.insert("l", 1, (0..5).map(|j| n(10 * i + j)).collect()),
            }
        }
        let value = w.meet();
        let elements = value.at("l").expect("a list").elements();
        assert_eq!(elements.len(), 22);
        for i in 0..4_u32 {
            let run: Vec<Tree> = (0..5).map(|j| num(10 * i + j)).collect();
            assert!(elements.windows(5).any(|window| window == run), "run {i} is broken: {value:?}");
        }
    });
}

#[test]
fn s11_inserts_before_one_another_all_survive_in_the_order_each_writer_saw() {
    check(3, |w| {
        w.peers[0].set("", "l", l([]));
        w.meet();
        for (i, peer) in (0..).zip(&mut w.peers) {
            (0..5).rev().for_each(|j| peer.insert("l", 0, vec![n(10 * i + j)]));
        }
        let value = w.meet();
        let elements = value.at("l").expect("a list").elements();
        assert_eq!(elements.len(), 15);
        for i in 0..3_u32 {
            let own: Vec<Tree> = (0..5).map(|j| num(10 * i + j)).collect();
            let seen: Vec<Tree> = elements.iter().filter(|e| own.contains(e)).cloned().collect();
            assert_eq!(seen, own);
        }
    });
}

#[test]
fn s11_an_index_means_the_element_seen_there() {
    check(2, |w| {
        w.peers[0].set("", "l", l([s("a"), s("b"), s("c")]));
        w.meet();
        w.peers[0].insert("l", 0, vec![s("new")]);
        w.peers[1].put("l", 1, s("B"));
        assert_eq!(w.meet(), map([("l", list(["new", "a", "B", "c"].map(tree::str)))]));
        w.peers[0].remove("l", 0, 2);
        w.peers[1].remove("l", 3, 1);
        assert_eq!(w.meet(), map([("l", list([tree::str("B")]))]));
    });
}

#[test]
fn s11_an_element_replaced_by_two_at_once_is_one_element() {
    check(2, |w| {
        w.peers[0].set("", "l", l([n(0), n(1), n(2)]));
        w.meet();
        w.peers[0].put("l", 1, s("x"));
        w.peers[1].put("l", 1, o([("y", n(1))]));
        let value = w.meet();
        let elements = value.at("l").expect("a list").elements();
        assert_eq!(elements.len(), 3);
        assert!([tree::str("x"), map([("y", num(1))])].contains(&elements[1]), "{value:?}");
    });
}

#[test]
fn s11_an_element_moved_by_two_at_once_is_once_in_the_list() {
    check(3, |w| {
        w.peers[0].set("", "l", l([o([("id", n(0))]), n(1), n(2), n(3)]));
        w.meet();
        w.peers[0].shift("l", 0, 3);
        w.peers[1].shift("l", 0, 2);
        w.peers[2].set("l/0", "seen", n(1));
        let value = w.meet();
        let elements = value.at("l").expect("a list").elements();
        assert_eq!(elements.len(), 4, "{value:?}");
        let moved = map([("id", num(0)), ("seen", num(1))]);
        assert_eq!(elements.iter().filter(|e| **e == moved).count(), 1, "{value:?}");
        assert!(elements[2] == moved || elements[3] == moved, "{value:?}");
    });
}

#[test]
fn s11_a_move_and_a_replacement_at_once_both_hold() {
    check(2, |w| {
        w.peers[0].set("", "l", l([n(0), n(1), n(2)]));
        w.meet();
        w.peers[0].shift("l", 0, 2);
        w.peers[1].put("l", 0, s("x"));
        assert_eq!(w.meet(), map([("l", list([num(1), num(2), tree::str("x")]))]));
        w.peers[0].put("l", 2, s("y"));
        assert_eq!(w.meet(), map([("l", list([num(1), num(2), tree::str("y")]))]));
    });
}

#[test]
fn s11_a_moved_element_can_be_moved_and_removed_again() {
    check(2, |w| {
        w.peers[0].set("", "l", l([n(0), n(1), n(2)]));
        w.meet();
        for (from, to) in [(0, 2), (2, 0), (1, 1), (0, 1), (1, 0)] {
            w.peers[0].shift("l", from, to);
            let expected = w.peers[0].value();
            assert_eq!(w.meet(), expected);
        }
        w.peers[1].shift("l", 2, 0);
        w.peers[1].remove("l", 0, 1);
        assert_eq!(w.meet(), map([("l", list([num(0), num(1)]))]));
    });
}

#[test]
fn s11_moves_of_different_elements_at_once_all_hold() {
    check(2, |w| {
        w.peers[0].set("", "l", l([0, 1, 2, 3, 4, 5].map(n)));
        w.meet();
        w.peers[0].shift("l", 0, 5);
        w.peers[1].shift("l", 5, 0);
        assert_eq!(w.meet(), map([("l", list([5, 1, 2, 3, 4, 0].map(num)))]));
    });
}

#[test]
fn s11_indexes_outside_a_list_are_refused() {
    check(1, |w| {
        w.peers[0].set("", "l", l([n(0), n(1)]));
        let object = w.peers[0].find("l");
        let wishes = [
            Wish::Insert { object, index: 3, values: vec![n(1)] },
            Wish::Remove { object, index: 1, count: 2 },
            Wish::Remove { object, index: 2, count: 1 },
            Wish::Put { object, index: 2, value: n(1) },
            Wish::Move { object, from: 2, to: 0 },
            Wish::Move { object, from: 0, to: 2 },
        ];
        for wish in wishes {
            let outcome = w.peers[0].segment.edit(vec![wish.clone()], coheap_core::id::Uid(1), &mut Draws(1));
            assert!(outcome.is_err(), "{wish:?}");
        }
    });
}

#[test]
fn s11_lists_as_first_object_work_as_any_other() {
    for first in [l([n(1), o([("x", n(1))])]), t("abc"), c(3), m(["x"]), o([("x", n(1))])] {
        check(3, |w| {
            w.peers[0].mirror = Mirror::of(&w.peers[0].segment.show());
            w.peers[0].wish(Wish::Root { value: first.clone() });
            w.send(0, 1);
            let shown = w.peers[0].value();
            w.receive(1, 1, 1, 0);
            assert_eq!(w.peers[1].value(), shown, "it came by an application");
            match &first {
                Literal::List(_) => w.peers[1].push("", vec![n(5)]),
                Literal::Text(_) => w.peers[1].splice("", 1, 1, "😀"),
                Literal::Counter(_) => w.peers[1].add("", 4.0),
                Literal::Set(_) => w.peers[1].include("", "y"),
                _ => w.peers[1].set("", "y", n(1)),
            }
            w.meet();
            w.restart(2, true);
            w.reload(1, true);
            w.agree();
        });
    }
}

// S12

#[test]
fn s12_counters_are_exact_under_any_concurrency() {
    check(5, |w| {
        w.peers[0].set("", "c", c(100));
        w.meet();
        let mut expected = 100.0;
        for round in 0..10 {
            for i in 0..5 {
                let by = f64::from(round * 7 - 20) + i as f64;
                if by != 0.0 {
                    w.peers[i].add("c", by);
                }
                expected += by;
            }
            if round % 3 == 0 {
                w.meet();
            }
            if round % 4 == 1 {
                w.reload(round as usize % 5, true);
            }
        }
        assert_eq!(w.meet(), map([("c", counter(expected))]));
    });
}

#[test]
fn s12_sums_of_fractions_are_the_same_everywhere() {
    check(4, |w| {
        w.peers[0].set("", "c", c(0.1));
        w.meet();
        for round in 0..6 {
            for i in 0..4 {
                w.peers[i].add("c", 0.1 * f64::from(round + 1) + i as f64 / 3.0);
            }
            w.meet();
        }
    });
}

#[test]
fn s12_increments_of_a_plain_number_are_writes_of_a_register() {
    check(2, |w| {
        w.peers[0].set("", "n", n(0));
        w.meet();
        for peer in &mut w.peers {
            peer.set("", "n", n(1));
        }
        assert_eq!(w.meet(), map([("n", num(1))]));
    });
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
