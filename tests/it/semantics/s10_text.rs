//! S10, S12: texts and counters.

use super::*;

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

/// The fractions come to 1 in the document, and to 0.9999999999999999 where each is added as it comes: who added the last one
/// is told, though the total is whole.
#[test]
fn s12_a_sum_of_fractions_may_be_a_whole_number() {
    check(2, |w| {
        w.peers[0].set("", "c", c(0));
        w.meet();
        w.peers[0].add("c", 0.6);
        w.peers[1].add("c", 0.3);
        w.meet();
        w.peers[0].add("c", 0.1);
        assert_eq!(w.meet(), map([("c", counter(1.0))]));
        // Whole steps on top of fractions, too.
        w.peers[1].add("c", 0.1);
        w.peers[1].add("c", 3.0);
        w.meet();
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
