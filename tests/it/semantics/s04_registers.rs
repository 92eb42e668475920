//! S4–S6: writes and deletes that meet, and the order of keys.

use super::*;

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
