//! Commits that turn out too large, or fail half way: nothing of them is seen, sent or left behind, wherever their segments are
//! in their lives, and what is committed next is whole (S14, C1).

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::guard::{self, Clocks, Continuity};
use coheap_core::heap::Index;
use coheap_core::id::{Offset, ReplicaId, SegmentId, SegmentNumber, Seq};
use coheap_core::limits::COMMIT_BYTES_MAX;
use coheap_core::replica::{Input, Output, Replica, Section, Target};
use coheap_core::segment::Segment;
use coheap_core::value::Value;
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Down, SegRef, SegmentState, SegmentStatus, Up};

use crate::desk::{connect, errors, give, loads, replica, snapshot, tell, ups};

const ENGINES: &[EngineKind] = &[
    EngineKind::Yrs,
    #[cfg(feature = "automerge")]
    EngineKind::Automerge,
];
const ONE: SegmentId = SegmentId([1; 16]);
const TWO: SegmentId = SegmentId([2; 16]);
const THREE: SegmentId = SegmentId([3; 16]);
const LIST: Handle = Handle(1);

fn commits(outputs: &[Output]) -> Vec<CommitFrame> {
    ups(outputs).into_iter().filter_map(|up| if let Up::Commit(commit) = up { Some(commit) } else { None }).collect()
}

/// What the log would hold of a segment.
fn deltas(commits: &[CommitFrame], id: SegmentId) -> Vec<Bytes> {
    let parts = commits.iter().flat_map(|commit| &commit.parts);
    parts.filter(|part| part.segment == SegRef::Id(id)).map(|part| part.bytes.clone()).collect()
}

/// ONE, as a relay has it.
fn alive(engine: EngineKind, deltas: Vec<Bytes>) -> SegmentState {
    SegmentState {
        id: ONE,
        number: Some(SegmentNumber(0)),
        status: SegmentStatus::Alive,
        engine,
        layout: LAYOUT,
        generation: engine.generation_zero(),
        header: Bytes::new(),
        snapshot: Bytes::new(),
        deltas: deltas.into(),
    }
}

fn section(target: Target, wishes: Vec<Wish>) -> Section {
    Section { target, claim: None, wishes }
}

fn commit(replica: &mut Replica, sections: Vec<Section>) -> Vec<Output> {
    give(replica, Input::Commit { label: String::new(), sections, size: 1000, entropy: 0 })
}

/// The error of a commit that did nothing else.
fn refusal(replica: &mut Replica, sections: Vec<Section>) -> &'static str {
    let unsaved = replica.unsaved();
    let outputs = commit(replica, sections);
    let quiet = |output: &Output| matches!(output, Output::Error { .. } | Output::Indexed { .. });
    assert!(outputs.iter().all(quiet), "{outputs:?}");
    assert_eq!(replica.unsaved(), unsaved);
    errors(&outputs).first().expect("it is refused")
}

fn number(n: u32) -> Literal {
    Literal::Scalar(Value::Number(f64::from(n)))
}

/// A new map with a list.
fn create(id: SegmentId, engine: EngineKind) -> Section {
    let value = Literal::Map(vec![("list".into(), Literal::List(vec![number(1)])), ("n".into(), number(0))]);
    section(Target::New(id, engine), vec![Wish::Root { value }])
}

fn set(index: Index, key: &str, value: Literal) -> Section {
    section(Target::Here(index), vec![Wish::Set { object: Handle(0), key: key.into(), value }])
}

/// Far more than the limit, from few bytes of the program.
fn large(index: Index) -> Section {
    let values = vec![Literal::Map(Vec::new()); 75_000];
    section(Target::Here(index), vec![Wish::Insert { object: LIST, index: 0, values }])
}

/// A map comes into the list and gets an entry: it needs the handle that it is given, and the list as it is.
fn fill(index: Index, handle: u32) -> Section {
    let values = vec![Literal::Map(Vec::new())];
    let inner = Wish::Set { object: Handle(handle), key: "in".into(), value: number(handle) };
    section(Target::Here(index), vec![Wish::Insert { object: LIST, index: 1, values }, inner])
}

fn index_of(outputs: &[Output], id: SegmentId) -> Index {
    let found = outputs.iter().find_map(|output| match output {
        Output::Indexed { segment, index } if *segment == id => Some(*index),
        _ => None,
    });
    found.expect("it has an index")
}

/// The document that others make of what was sent is the one that is here, which `check` looks at.
fn assert_whole(replica: &mut Replica, id: SegmentId, engine: EngineKind, sent: &[CommitFrame]) {
    let generation = engine.generation_zero();
    let theirs = Segment::decode(id, engine, generation, 9, &[], &deltas(sent, id)).unwrap();
    assert_eq!(theirs.values(), replica.document(id).unwrap().values(), "{engine:?}");
}

#[test]
fn a_commit_that_turns_out_too_large_does_nothing_and_the_next_is_whole() {
    for engine in ENGINES {
        let mut replica = replica();
        let made = commit(&mut replica, vec![create(ONE, *engine)]);
        let one = index_of(&made, ONE);
        commit(&mut replica, vec![fill(one, 2)]);
        // Offline, in a segment that no log knows, behind own commits that are not acknowledged.
        let before = replica.document(ONE).unwrap().values();
        let size = replica.document(ONE).unwrap().size();
        let sections = vec![set(one, "gone", Literal::List(Vec::new())), create(TWO, *engine)];
        let too_large = [sections, vec![large(one)]].concat();
        assert_eq!(refusal(&mut replica, too_large), "ERR_TOO_LARGE", "{engine:?}");
        assert_eq!(replica.document(ONE).unwrap().values(), before, "{engine:?}");
        assert_eq!(replica.document(ONE).unwrap().size(), size);
        assert!(replica.document(TWO).is_none(), "what the commit made is gone with it");
        commit(&mut replica, vec![fill(one, 3)]);
        // All the same with a connection.
        let mut sent = commits(&connect(&mut replica));
        assert_eq!(sent.iter().map(|commit| commit.seq.0).collect::<Vec<_>>(), [1, 2, 3], "no number is used up");
        let members = Literal::Set((0..100_000).map(|n| Value::Number(f64::from(n) + 0.5)).collect());
        assert_eq!(refusal(&mut replica, vec![set(one, "set", members)]), "ERR_TOO_LARGE", "{engine:?}");
        sent.extend(commits(&commit(&mut replica, vec![fill(one, 4), create(TWO, *engine)])));
        assert_eq!(sent.len(), 4);
        assert_whole(&mut replica, ONE, *engine, &sent);
        assert_whole(&mut replica, TWO, *engine, &sent);
        for one in &sent {
            assert!(one.parts.iter().map(|part| part.bytes.len()).sum::<usize>() <= COMMIT_BYTES_MAX);
        }
    }
}

#[test]
fn the_limit_is_for_what_is_encoded() {
    for engine in ENGINES {
        let mut replica = replica();
        let one = index_of(&commit(&mut replica, vec![create(ONE, *engine)]), ONE);
        // Neither of two parts is too large by itself.
        let text = |n: u32| {
            Literal::Text((0..n).map(|at| char::from(b'a' + (at.wrapping_mul(0x9e37_79b1) >> 28) as u8)).collect())
        };
        let two = index_of(&commit(&mut replica, vec![create(TWO, *engine)]), TWO);
        let sized = |replica: &mut Replica, sections: Vec<Section>, size| {
            give(replica, Input::Commit { label: String::new(), sections, size, entropy: 0 })
        };
        if *engine == EngineKind::Yrs {
            let sections = vec![set(one, "a", text(600_000)), set(two, "b", text(600_000))];
            assert_eq!(errors(&sized(&mut replica, sections, 1_200_000)), ["ERR_TOO_LARGE"]);
        }
        let sections = vec![set(one, "a", text(500_000)), set(two, "b", text(500_000))];
        assert!(errors(&sized(&mut replica, sections, 1_000_000)).is_empty(), "{engine:?}");
        let sent = commits(&connect(&mut replica));
        assert_whole(&mut replica, ONE, *engine, &sent);
        assert_whole(&mut replica, TWO, *engine, &sent);
    }
}

#[test]
fn a_large_commit_that_fails_half_way_leaves_nothing() {
    for engine in ENGINES {
        let mut replica = replica();
        let one = index_of(&commit(&mut replica, vec![create(ONE, *engine)]), ONE);
        let two = index_of(&commit(&mut replica, vec![create(TWO, *engine)]), TWO);
        let (first, second) = (replica.document(ONE).unwrap().values(), replica.document(TWO).unwrap().values());
        let many = |index| set(index, "many", Literal::List(vec![number(7); 5_000]));
        let wrong = Wish::Set { object: Handle(99), key: "k".into(), value: number(1) };
        let mut bad = many(two);
        bad.wishes.push(wrong);
        assert_eq!(refusal(&mut replica, vec![many(one), create(THREE, *engine), bad]), "ERR_ENGINE");
        // A segment that is there already cannot be made.
        assert_eq!(refusal(&mut replica, vec![many(one), create(TWO, *engine)]), "ERR_ENGINE");
        assert_eq!(replica.document(ONE).unwrap().values(), first, "{engine:?}");
        assert_eq!(replica.document(TWO).unwrap().values(), second, "{engine:?}");
        assert!(replica.document(THREE).is_none());
        commit(&mut replica, vec![fill(one, 2), fill(two, 2), create(THREE, *engine)]);
        let sent = commits(&connect(&mut replica));
        assert_eq!(sent.len(), 3);
        for id in [ONE, TWO, THREE] {
            assert_whole(&mut replica, id, *engine, &sent);
        }
    }
}

#[test]
fn a_commit_that_is_too_large_while_its_segment_is_made_anew_does_nothing() {
    for engine in ENGINES {
        let mut replica = replica();
        let one = index_of(&commit(&mut replica, vec![create(ONE, *engine)]), ONE);
        let mut sent = commits(&connect(&mut replica));
        tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
        let refused = commits(&commit(&mut replica, vec![set(one, "refused", number(1))])).remove(0);
        commit(&mut replica, vec![set(one, "behind", number(2))]);
        let (seq, uid, position) = (refused.seq, refused.uid, Offset(1));
        let nonce = loads(&tell(&mut replica, &Down::Refused { owner: 0, seq, uid, code: 6, position }))[0];
        assert_eq!(refusal(&mut replica, vec![large(one)]), "ERR_TOO_LARGE", "{engine:?}");
        commit(&mut replica, vec![fill(one, 2)]);
        let state = alive(*engine, deltas(&sent, ONE));
        sent.extend(commits(&tell(&mut replica, &snapshot(nonce, 1, &state))));
        assert_eq!(sent.len(), 3);
        assert_whole(&mut replica, ONE, *engine, &sent);
        sent.extend(commits(&commit(&mut replica, vec![fill(one, 3)])));
        assert_whole(&mut replica, ONE, *engine, &sent);
    }
}

/// Half of it takes clocks of its writer in a document that no copy was kept of: what is written there before another one has come
/// would not continue what is in the log.
#[test]
fn what_is_written_behind_a_small_commit_that_failed_half_way_is_made_anew() {
    for engine in ENGINES {
        let mut replica = replica();
        let one = index_of(&commit(&mut replica, vec![create(ONE, *engine)]), ONE);
        let mut sent = commits(&connect(&mut replica));
        tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
        sent.extend(commits(&commit(&mut replica, vec![set(one, "a", number(1))])));
        let mut bad = set(one, "b", number(2));
        bad.wishes.push(Wish::Set { object: Handle(99), key: "k".into(), value: number(1) });
        let outputs = commit(&mut replica, vec![bad]);
        assert_eq!(errors(&outputs), ["ERR_ENGINE"]);
        let nonce = loads(&outputs)[0];
        assert!(commits(&commit(&mut replica, vec![set(one, "c", number(3))])).is_empty(), "{engine:?}: it waits");
        let state = alive(*engine, deltas(&sent[..1], ONE));
        sent.extend(commits(&tell(&mut replica, &snapshot(nonce, 1, &state))));
        assert_eq!(sent.iter().map(|commit| commit.seq.0).collect::<Vec<_>>(), [1, 2, 3], "{engine:?}");
        assert_whole(&mut replica, ONE, *engine, &sent);
        // As the relay judges them.
        let of = if *engine == EngineKind::Yrs { guard::Engine::Yrs } else { guard::Engine::Automerge };
        let (owner, mut clocks) = (ReplicaId([9; 16]), Clocks::default());
        for delta in deltas(&sent, ONE) {
            let summary = guard::structure(of, &delta).unwrap();
            assert_eq!(clocks.check(owner, &summary), Ok(Continuity::New), "{engine:?}");
            clocks.record(owner, &summary);
        }
    }
}
