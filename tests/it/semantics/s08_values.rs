//! S8: every value comes back as it went in.

use super::*;

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
