//! Dumps, which tests and debugging processes compare mirrors with after every change: what they say, what they leave as it is,
//! and what they cost.

use std::time::{Duration, Instant};

use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Patch, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{ObjectId, SegmentId};
use coheap_core::replica::{Input, Output, Replica, Section, Target};
use coheap_core::segment::Segment;
use coheap_core::value::Value;

use crate::desk::{give, replica};

const ENGINES: &[EngineKind] = &[
    EngineKind::Yrs,
    #[cfg(feature = "automerge")]
    EngineKind::Automerge,
];
const ONE: SegmentId = SegmentId([1; 16]);

fn number(n: usize) -> Literal {
    Literal::Scalar(Value::Number(n as f64))
}

fn set(object: u32, key: &str, value: Literal) -> Wish {
    Wish::Set { object: Handle(object), key: key.into(), value }
}

fn commit(replica: &mut Replica, target: Target, wishes: Vec<Wish>) -> Vec<Output> {
    let sections = vec![Section { target, claim: None, wishes }];
    give(replica, Input::Commit { label: String::new(), sections, size: 1000, entropy: 0 })
}

/// A replica with one segment, a map of all kinds, of which some has gone again.
fn begin(engine: EngineKind) -> (Replica, Index) {
    let mut replica = replica();
    let kinds = vec![
        ("gone".into(), Literal::List(vec![Literal::Map(Vec::new())])),
        ("list".into(), Literal::List(vec![number(1), Literal::Map(vec![("in".into(), number(2))]), number(3)])),
        ("text".into(), Literal::Text("text".into())),
        ("counter".into(), Literal::Counter(5.0)),
        ("set".into(), Literal::Set(vec![Value::Number(1.0)])),
    ];
    let made = commit(&mut replica, Target::New(ONE, engine), vec![Wish::Root { value: Literal::Map(kinds) }]);
    let index = made.iter().find_map(|output| match output {
        Output::Indexed { index, .. } => Some(*index),
        _ => None,
    });
    let index = index.expect("it has an index");
    let near = Wish::Near { object: ObjectId([7; 16]), value: Literal::Map(vec![("near".into(), number(1))]) };
    commit(&mut replica, Target::Here(index), vec![Wish::Delete { object: Handle(0), key: "gone".into() }, near]);
    (replica, index)
}

fn dump(replica: &mut Replica, index: Index) -> Vec<Patch> {
    match give(replica, Input::Dump(index)).as_slice() {
        [Output::Loaded { patches, .. }] => patches.clone(),
        other => panic!("{other:?}"),
    }
}

/// What a copy of the document shows.
fn of_a_copy(replica: &mut Replica, engine: EngineKind) -> Vec<Patch> {
    let bytes = replica.document(ONE).unwrap().encode();
    Segment::decode(ONE, engine, engine.generation_zero(), 1, &bytes, &[]).unwrap().show()
}

#[test]
fn a_dump_says_what_a_copy_would_however_large_the_segment_and_disturbs_nothing() {
    for engine in ENGINES {
        let (mut replica, index) = begin(*engine);
        let (mut undisturbed, _) = begin(*engine);
        for round in 0..40 {
            let wishes = vec![
                set(0, &format!("k{round}"), Literal::Scalar(Value::Str("v".repeat(1000)))),
                set(0, "map", Literal::Map(vec![("in".into(), number(round))])),
            ];
            let came = commit(&mut replica, Target::Here(index), wishes.clone());
            let expected = commit(&mut undisturbed, Target::Here(index), wishes);
            assert_eq!(format!("{came:?}"), format!("{expected:?}"), "{engine:?}: round {round}");
            assert_eq!(dump(&mut replica, index), of_a_copy(&mut replica, *engine), "{engine:?}: round {round}");
        }
        let size = replica.document(ONE).unwrap().size();
        assert!(size > 40_000, "small ones and large ones were dumped: {size}");
        assert_eq!(replica.books(), undisturbed.books());
    }
}

/// The shortest of some tries: what else runs on the machine only adds.
fn shortest(mut what: impl FnMut()) -> Duration {
    let tries = (0..5).map(|_| {
        let began = Instant::now();
        what();
        began.elapsed()
    });
    tries.min().unwrap()
}

#[test]
fn a_dump_takes_as_long_as_what_is_shown_not_as_what_has_been() {
    for engine in ENGINES {
        let (mut replica, index) = begin(*engine);
        let rounds = if *engine == EngineKind::Yrs { 10_000 } else { 1000 };
        for n in 0..rounds {
            commit(&mut replica, Target::Here(index), vec![set(0, "a", number(n)), set(0, "b", number(n))]);
        }
        let dumping = shortest(|| drop(dump(&mut replica, index)));
        let copying = shortest(|| drop(of_a_copy(&mut replica, *engine)));
        assert!(dumping * 4 < copying, "{engine:?}: a dump takes {dumping:?}, a copy {copying:?}");
    }
}
