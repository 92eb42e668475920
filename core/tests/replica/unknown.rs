//! What a newer relay may send: a segment that this version cannot follow stops, and the heap goes on (`WIRE.md` §4).

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{GenId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::replica::{Input, LoadStatus, Options, Output, Replica, Section, Target};
use coheap_core::value::Value;
use coheap_core::wire::frame::down::EntryFrame;
use coheap_core::wire::frame::{
    Down, PART_CREATE, PART_DELETE, PART_DELTA, PartFrame, SegRef, SegmentState, SegmentStatus, Up, message_of,
    push_frame,
};

use crate::desk::{connect, connect_at, give, loads, options, replica, snapshot, tell, ups};

const ONE: SegmentId = SegmentId([1; 16]);
const TWO: SegmentId = SegmentId([2; 16]);
const UNKNOWN: u8 = 3;

fn commit(replica: &mut Replica, target: Target, wish: Wish) -> Vec<Output> {
    let sections = vec![Section { target, claim: None, wishes: vec![wish] }];
    give(replica, Input::Commit { label: String::new(), sections, size: 100, entropy: 0 })
}

fn set(n: u32) -> Wish {
    Wish::Set { object: Handle(0), key: "n".into(), value: Literal::Scalar(Value::Number(f64::from(n))) }
}

fn create(replica: &mut Replica, id: SegmentId) -> Vec<Output> {
    commit(replica, Target::New(id, EngineKind::Yrs), Wish::Root { value: Literal::Map(Vec::new()) })
}

/// What another replica makes of an empty heap: the deltas of its commits, one for each segment.
fn others() -> [Bytes; 2] {
    let mut other = replica();
    connect(&mut other);
    [ONE, TWO].map(|id| {
        let Some(Up::Commit(commit)) = ups(&create(&mut other, id)).pop() else { panic!("it is sent") };
        commit.parts.to_vec()[0].bytes.clone()
    })
}

fn part(id: SegmentId, kind: u8, bytes: &Bytes) -> PartFrame {
    let create = (kind == PART_CREATE).then_some((EngineKind::Yrs, LAYOUT));
    PartFrame { kind, segment: SegRef::Id(id), generation: GenId::ZERO_YRS, create, bytes: bytes.clone() }
}

fn entry(offset: u64, parts: Vec<PartFrame>) -> Down {
    let (seq, uid) = (Seq(offset + 1), Uid(offset + 1));
    Down::Entry(EntryFrame {
        offset: Offset(offset),
        yours: false,
        void: false,
        author: 1,
        seq,
        uid,
        label: None,
        parts: parts.into(),
    })
}

fn state(id: SegmentId, status: SegmentStatus, layout: u8, deltas: Vec<Bytes>) -> SegmentState {
    let (engine, generation) = (EngineKind::Yrs, GenId::ZERO_YRS);
    SegmentState {
        id,
        number: Some(SegmentNumber(0)),
        status,
        engine,
        layout,
        generation,
        header: Bytes::new(),
        snapshot: Bytes::new(),
        deltas: deltas.into(),
    }
}

/// Asks for a segment.
fn load(replica: &mut Replica, id: SegmentId) -> (Vec<Output>, Option<Nonce>) {
    let outputs = give(replica, Input::Load(vec![(id, false)]));
    let nonce = loads(&outputs).first().copied();
    (outputs, nonce)
}

/// A replica that shows two segments of somebody else; `TWO`'s index.
fn with_two() -> (Replica, [Bytes; 2]) {
    with_two_at(replica())
}

fn with_two_at(mut replica: Replica) -> (Replica, [Bytes; 2]) {
    let deltas = others();
    connect(&mut replica);
    tell(
        &mut replica,
        &Down::Author { number: 1, replica: ReplicaId([8; 16]), name: "o".into(), subject: String::new() },
    );
    for (id, delta) in [ONE, TWO].iter().zip(&deltas) {
        let (_, nonce) = load(&mut replica, *id);
        let shown = state(*id, SegmentStatus::Alive, LAYOUT, vec![delta.clone()]);
        tell(&mut replica, &snapshot(nonce.unwrap(), 0, &shown));
        assert!(replica.document(*id).is_some());
    }
    (replica, deltas)
}

/// How loads ended, problems, and which segments are not followed any more.
fn told(outputs: &[Output]) -> (Vec<LoadStatus>, Vec<&'static str>, Vec<SegRef>) {
    let loaded =
        outputs.iter().filter_map(|o| if let Output::Loaded { status, .. } = o { Some(*status) } else { None });
    let codes = outputs.iter().filter_map(|o| if let Output::Problem { code, .. } = o { Some(*code) } else { None });
    let left = ups(outputs).into_iter();
    let left = left.filter_map(|up| if let Up::Unfollow { segment } = up { Some(segment) } else { None });
    (loaded.collect(), codes.collect(), left.collect())
}

#[test]
fn a_part_of_an_unknown_kind_stops_its_segment_and_the_rest_of_the_entry_counts() {
    let (mut replica, deltas) = with_two();
    let delta = {
        // Somebody else writes to the segment that goes on.
        let (mut other, _) = with_two_at(Replica::new(options(9)));
        let sent = commit(&mut other, Target::Here(Index(2)), set(7));
        let Some(Up::Commit(commit)) = ups(&sent).pop() else { panic!("{sent:?}") };
        commit.parts.to_vec()[0].bytes.clone()
    };
    let parts = vec![part(ONE, UNKNOWN, &deltas[0]), part(ONE, PART_DELTA, &deltas[0]), part(TWO, PART_DELTA, &delta)];
    let outputs = tell(&mut replica, &entry(0, parts));
    let quarantined = (vec![LoadStatus::Quarantined], vec!["ERR_QUARANTINED"], vec![SegRef::Id(ONE)]);
    assert_eq!(told(&outputs), quarantined);
    let named = |o: &Output| matches!(o, Output::Problem { message, .. } if message.contains(&ONE.to_string()));
    assert!(outputs.iter().any(named), "{outputs:?}");
    assert!(outputs.iter().any(|o| matches!(o, Output::Apply { segments, .. } if segments[0].0 == Index(2))));
    assert_eq!((replica.document(ONE).is_none(), replica.cut()), (true, Offset(1)));
    // What follows it is nothing; the other goes on; who asks for it hears the same, also in another instance.
    assert_eq!(told(&tell(&mut replica, &entry(1, vec![part(ONE, UNKNOWN, &deltas[0])]))), (vec![], vec![], vec![]));
    assert_eq!(ups(&commit(&mut replica, Target::Here(Index(2)), set(1))).len(), 1);
    let again = Options { seed: [6; 32], heap: "h".into(), name: "r".into(), must_exist: false, max_unsaved: 0 };
    let mut moved = Replica::import(again, &replica.export()).unwrap();
    while moved.poll().is_some() {}
    for replica in [&mut replica, &mut moved] {
        let (outputs, nonce) = load(replica, ONE);
        assert_eq!((told(&outputs).0, nonce), (vec![LoadStatus::Quarantined], None));
    }
}

#[test]
fn a_loading_segment_stops_too_and_an_optional_part_stops_nothing() {
    let (deltas, mut replica) = (others(), replica());
    connect(&mut replica);
    let (_, nonce) = load(&mut replica, ONE);
    let outputs = tell(&mut replica, &entry(0, vec![part(ONE, 0x80, &deltas[0])]));
    assert_eq!(told(&outputs), (vec![], vec![], vec![]));
    let outputs = tell(&mut replica, &entry(1, vec![part(ONE, 0x7f, &deltas[0])]));
    assert_eq!(told(&outputs).0, [LoadStatus::Quarantined]);
    let late = snapshot(nonce.unwrap(), 0, &state(ONE, SegmentStatus::Alive, LAYOUT, vec![deltas[0].clone()]));
    assert_eq!(told(&tell(&mut replica, &late)), (vec![], vec![], vec![]));
    assert!(replica.document(ONE).is_none());
}

#[test]
fn a_deletion_takes_the_segment_away() {
    let (mut replica, _) = with_two();
    let outputs = tell(&mut replica, &entry(0, vec![part(ONE, PART_DELETE, &Bytes::new())]));
    assert_eq!(told(&outputs), (vec![LoadStatus::Deleted], vec![], vec![SegRef::Id(ONE)]));
    assert!(replica.document(ONE).is_none() && replica.document(TWO).is_some());
}

#[test]
fn a_layout_that_is_not_known_stops_its_segment_wherever_it_is_met() {
    let quarantined = (vec![LoadStatus::Quarantined], vec!["ERR_QUARANTINED"], vec![SegRef::Id(ONE)]);
    // In the answer to a load.
    let (deltas, mut replica) = (others(), replica());
    connect(&mut replica);
    let (_, nonce) = load(&mut replica, ONE);
    let newer = state(ONE, SegmentStatus::Alive, LAYOUT + 1, vec![deltas[0].clone()]);
    assert_eq!(told(&tell(&mut replica, &snapshot(nonce.unwrap(), 0, &newer))), quarantined);
    // In an entry.
    let (mut replica, _) = with_two();
    let mut created = part(ONE, PART_CREATE, &deltas[0]);
    created.create = Some((EngineKind::Yrs, LAYOUT + 1));
    assert_eq!(told(&tell(&mut replica, &entry(0, vec![created]))), quarantined);
    // In a catch-up, as what is gone since.
    let (mut replica, _) = with_two();
    give(&mut replica, Input::Disconnected);
    let outputs = connect_at(&mut replica, 9, &[newer, state(TWO, SegmentStatus::Deleted, LAYOUT, Vec::new())]);
    let (loaded, codes, _) = told(&outputs);
    assert_eq!((loaded, codes), (vec![LoadStatus::Quarantined, LoadStatus::Deleted], vec!["ERR_QUARANTINED"]));
    assert!(replica.document(ONE).is_none() && replica.document(TWO).is_none());
    assert_eq!(replica.cut(), Offset(9));
}

/// A list under a name that the layout does not have: yrs reads it, the guard refuses it.
fn of_a_foreign_root() -> Bytes {
    use yrs::updates::decoder::Decode;
    let delta = [&[1, 1, 5, 0, 0x08, 1, 4][..], b"list", &[1, 126, 0]].concat();
    assert!(yrs::Update::decode_v1(&delta).is_ok());
    Bytes::from(delta)
}

#[test]
fn bytes_that_the_guard_refuses_stop_the_segment_they_come_for() {
    let stopped = (vec![LoadStatus::Quarantined], vec!["ERR_QUARANTINED"], vec![]);
    // In the answer to a load.
    let (deltas, mut replica) = (others(), replica());
    connect(&mut replica);
    let (_, nonce) = load(&mut replica, ONE);
    let foreign = state(ONE, SegmentStatus::Alive, LAYOUT, vec![deltas[0].clone(), of_a_foreign_root()]);
    assert_eq!(told(&tell(&mut replica, &snapshot(nonce.unwrap(), 0, &foreign))), stopped);
    assert!(replica.document(ONE).is_none());
    // In a catch-up.
    let (mut replica, _) = with_two();
    give(&mut replica, Input::Disconnected);
    assert_eq!(told(&connect_at(&mut replica, 9, &[foreign])), stopped);
    assert!(replica.document(ONE).is_none() && replica.document(TWO).is_some());
}

#[test]
fn a_refused_request_that_is_not_known_is_passed_over() {
    let (mut replica, _) = with_two();
    let mut frames = Vec::new();
    push_frame(&mut frames, 0xc0, &[0x2f, 1, 1, 5, 5]);
    assert_eq!(give(&mut replica, Input::Receive(Bytes::from(message_of(&frames)))).len(), 0);
    assert_eq!(ups(&commit(&mut replica, Target::Here(Index(1)), set(1))).len(), 1, "the connection is there");
}
