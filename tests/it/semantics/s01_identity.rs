//! S1, S2: objects keep their ids, and creation by several at once meets in one object.

use super::*;

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
