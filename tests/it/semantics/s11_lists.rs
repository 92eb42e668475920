//! S11: lists.

use super::*;

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
