//! S3: defaults, and non-empty literals that several assign to an absent key.

use super::*;

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
