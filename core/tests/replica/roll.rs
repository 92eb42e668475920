//! G3, C4, C7, C8 at the replica: a segment goes over to another generation, and what is pending goes along.

use std::collections::BTreeMap;

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT, content_hash};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{GenId, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::replica::{Input, Keep, LoadStatus, Output, Replica, Section, Target};
use coheap_core::segment::roll::roll_unchecked;
use coheap_core::value::Value;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::down::{EntryFrame, Fate, Row};
use coheap_core::wire::frame::roll::{GenerationHeader, Included, RollFrame};
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{
    Bulk, Chunk, Down, PART_DELTA, PartFrame, SegRef, SegmentState, SegmentStatus, Up, message_of,
};

use crate::desk::{connect, connect_after, give, loads, options, problems, replica, snapshot, tell, ups};

const ROOT: SegmentId = SegmentId::ROOT;
const YRS: EngineKind = EngineKind::Yrs;

fn unknown() -> SegmentState {
    SegmentState {
        id: ROOT,
        number: None,
        status: SegmentStatus::Unknown,
        engine: YRS,
        layout: LAYOUT,
        generation: YRS.generation_zero(),
        header: Bytes::new(),
        snapshot: Bytes::new(),
        deltas: Vec::new().into(),
    }
}

/// A replica with an empty root here.
fn here() -> Replica {
    let mut replica = replica();
    connect(&mut replica);
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
    tell(&mut replica, &snapshot(nonce, 0, &unknown()));
    replica
}

fn set(key: &str) -> Input {
    let wish = Wish::Set { object: Handle(0), key: key.into(), value: Literal::Scalar(Value::Bool(true)) };
    let sections = vec![Section { target: Target::Here(Index(0)), claim: None, wishes: vec![wish] }];
    Input::Commit { label: String::new(), sections, size: 10, entropy: 0 }
}

fn commits(outputs: &[Output]) -> Vec<CommitFrame> {
    ups(outputs).into_iter().filter_map(|up| if let Up::Commit(frame) = up { Some(frame) } else { None }).collect()
}

/// A commit that sets a key, as it went out.
fn made(replica: &mut Replica, key: &str) -> CommitFrame {
    commits(&give(replica, set(key))).remove(0)
}

/// What the log remembers of a commit to segments that are named by id.
fn hash_of(frame: &CommitFrame) -> u64 {
    let parts = frame.parts.to_vec();
    let parts = parts.iter().map(|part| {
        let SegRef::Id(id) = part.segment else { panic!("{part:?}") };
        (id, part.generation, &part.bytes[..])
    });
    content_hash(parts)
}

fn generation() -> GenId {
    GenId::drawn(ROOT, [1, 2, 3])
}

/// The Roll at this offset, of these commits and of a line up to here.
fn roll(of: &[&CommitFrame], offset: u64, line: ReplicaId, last: u64, voids: &[Uid]) -> RollFrame {
    let deltas: Vec<Bytes> = of.iter().map(|frame| frame.parts.to_vec()[0].bytes.clone()).collect();
    let snapshot = roll_unchecked(YRS, ROOT, &[], &deltas, generation()).unwrap().unwrap();
    let included = BTreeMap::from([(line, Included { last: Seq(last), voids: voids.to_vec() })]).into();
    let (generation, parent) = (generation(), YRS.generation_zero());
    let header = GenerationHeader { generation, parent, partial: false, included }.encode().into();
    let (number, status) = (Some(SegmentNumber(0)), SegmentStatus::Alive);
    let state = SegmentState { number, status, generation, snapshot, ..unknown() };
    let mut bulk = Vec::new();
    state.encode(&mut bulk);
    RollFrame { offset: Offset(offset), header, bulk: Bulk::whole(bulk.into()) }
}

fn shows(replica: &mut Replica) -> Vec<&'static str> {
    let values = format!("{:?}", replica.document(ROOT).unwrap().values());
    ["one", "two", "three", "foreign"].into_iter().filter(|key| values.contains(&format!(".{key}\""))).collect()
}

#[test]
fn g3_what_the_generation_has_goes_and_the_rest_is_made_anew_in_one_step() {
    let mut replica = here();
    let (one, two) = (made(&mut replica, "one"), made(&mut replica, "two"));
    let id = replica.id();
    let outputs = tell(&mut replica, &Down::Roll(roll(&[&one], 1, id, 1, &[])));
    assert_eq!((replica.cut(), replica.unsaved()), (Offset(2), 2), "both stay until they are acknowledged");
    assert_eq!(shows(&mut replica), ["one", "two"]);
    let loaded: Vec<_> = outputs.iter().filter(|output| matches!(output, Output::Loaded { .. })).collect();
    assert!(matches!(loaded[..], [Output::Loaded { status: LoadStatus::There, reset: true, .. }]), "{outputs:?}");
    // C7: from the first that was made anew on.
    let sent = commits(&outputs);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].seq, sent[0].uid, sent[0].prev), (Seq(2), two.uid, Some(one.uid)));
    assert_eq!(sent[0].parts.to_vec()[0].generation, generation());
    assert_ne!(sent[0].parts.to_vec()[0].bytes, two.parts.to_vec()[0].bytes);
    // R10: a redo has an engine identity of its own.
    let client = |delta: &[u8]| {
        let own = coheap_core::guard::structure(coheap_core::guard::Engine::Yrs, delta).unwrap().own;
        own.map(|own| (own.client, own.start))
    };
    let (before, after) = (client(&two.parts.to_vec()[0].bytes), client(&sent[0].parts.to_vec()[0].bytes));
    assert_ne!(before.map(|own| own.0), after.map(|own| own.0));
    assert_eq!(after.map(|own| own.1), Some(0));
    // X25: on a new connection the first goes out with nothing left in it, and its hash is held against nothing.
    give(&mut replica, Input::Disconnected);
    let row = Row { seq: Seq(1), uid: one.uid, fate: Fate::Admitted(hash_of(&one)) };
    let outputs = connect_after(&mut replica, 2, &[], vec![row]);
    let again = commits(&outputs);
    assert_eq!(again.iter().map(|frame| (frame.seq.0, frame.parts.len())).collect::<Vec<_>>(), [(1, 0), (2, 1)]);
    assert_eq!(again[1].parts.to_vec()[0].bytes, sent[0].parts.to_vec()[0].bytes);
    assert!(problems(&outputs).is_empty());
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(2), position: Offset(3) });
    assert_eq!(replica.unsaved(), 0);
    assert_eq!(shows(&mut replica), ["one", "two"]);
}

/// A commit to two segments, of which one goes over to a generation that has it.
fn reduced() -> (Replica, CommitFrame) {
    let mut replica = here();
    let wish = |key: &str| Wish::Set { object: Handle(0), key: key.into(), value: Literal::Scalar(Value::Bool(true)) };
    let new = Wish::Root { value: Literal::Map(Vec::new()) };
    let sections = vec![
        Section { target: Target::Here(Index(0)), claim: None, wishes: vec![wish("one")] },
        Section { target: Target::New(SegmentId([9; 16]), YRS), claim: None, wishes: vec![new] },
    ];
    let one =
        commits(&give(&mut replica, Input::Commit { label: String::new(), sections, size: 10, entropy: 0 })).remove(0);
    let id = replica.id();
    tell(&mut replica, &Down::Roll(roll(&[&one], 1, id, 1, &[])));
    give(&mut replica, Input::Disconnected);
    (replica, one)
}

#[test]
fn f3_what_is_left_of_a_commit_is_known_by_what_it_was() {
    let (mut replica, one) = reduced();
    let mut moved = Replica::import(options(8), &replica.export()).unwrap();
    while moved.poll().is_some() {}
    // The log has the commit as it was sent.
    let row = |hash| vec![Row { seq: Seq(1), uid: one.uid, fate: Fate::Admitted(hash) }];
    let outputs = connect_after(&mut replica, 2, &[], row(hash_of(&one)));
    assert!(loads(&outputs).is_empty(), "{outputs:?}");
    assert_eq!(commits(&outputs)[0].parts.len(), 1, "X25: the other part is there until it is acknowledged");
    // A copy of the process has brought it there with other bytes: those of the other segment count.
    let outputs = connect_after(&mut moved, 2, &[], row(12_345));
    assert!(matches!(outputs[..], [Output::Reconnect]), "{outputs:?}");
    let outputs = connect_after(&mut moved, 3, &[], row(12_345));
    assert_eq!(loads(&outputs).len(), 1, "{outputs:?}");
}

#[test]
fn g3_a_refused_commit_is_in_no_generation_whatever_its_number() {
    let mut replica = here();
    let one = made(&mut replica, "one");
    let id = replica.id();
    // Its Refused is still on its way.
    let sent = commits(&tell(&mut replica, &Down::Roll(roll(&[], 1, id, 1, &[one.uid]))));
    assert_eq!(sent.iter().map(|frame| frame.uid).collect::<Vec<_>>(), [one.uid]);
    let refused = Down::Refused { owner: 0, seq: Seq(1), uid: one.uid, code: 36, position: Offset(2) };
    let outputs = tell(&mut replica, &refused);
    assert!(outputs.iter().any(|output| matches!(output, Output::Refused { .. })));
    assert_eq!(replica.unsaved(), 0);
}

#[test]
fn x5_a_rebase_alone_changes_nothing() {
    let mut replica = here();
    made(&mut replica, "one");
    let books = replica.books();
    let (owner, seq, segment) = (0, Seq(1), SegRef::Id(ROOT));
    let outputs = tell(&mut replica, &Down::Rebase { owner, seq, segment, generation: generation() });
    assert!(outputs.is_empty(), "{outputs:?}");
    let without_bytes = |books: &str| books.lines().filter(|line| !line.contains("Stats")).count();
    assert_eq!(without_bytes(&replica.books()), without_bytes(&books));
    assert_eq!(replica.unsaved(), 1);
}

/// The answer to a commit for a segment that somebody else has made with another engine.
fn rebase(of: &CommitFrame, generation: GenId) -> Down {
    Down::Rebase { owner: 0, seq: of.seq, segment: of.parts.to_vec()[0].segment, generation }
}

#[test]
fn c10_a_segment_that_another_engine_has_made_is_loaded_and_nobody_is_told_of_a_problem() {
    let mut replica = here();
    let one = made(&mut replica, "one");
    let outputs = tell(&mut replica, &rebase(&one, GenId::ZERO_AUTOMERGE));
    assert_eq!((loads(&outputs).len(), problems(&outputs)), (1, vec![]));
    assert_eq!((shows(&mut replica), replica.unsaved()), (vec!["one"], 1));
    // Once: the answer to it is on its way.
    assert!(tell(&mut replica, &rebase(&one, GenId::ZERO_AUTOMERGE)).is_empty());
}

/// Whoever comes second, and whether or not it had asked for the segment.
#[cfg(feature = "automerge")]
#[test]
fn c10_what_was_made_with_one_engine_is_made_anew_in_that_of_the_log() {
    let make = |key: &str, engine: EngineKind| {
        let wish = Wish::Set { object: Handle(0), key: key.into(), value: Literal::Scalar(Value::Bool(true)) };
        let sections = vec![Section { target: Target::New(ROOT, engine), claim: None, wishes: vec![wish] }];
        Input::Commit { label: String::new(), sections, size: 10, entropy: 0 }
    };
    for (first, second) in [(YRS, EngineKind::Automerge), (EngineKind::Automerge, YRS)] {
        let mut other = Replica::new(options(9));
        connect(&mut other);
        let foreign = commits(&give(&mut other, make("foreign", first))).remove(0);
        let mut replica = replica();
        connect(&mut replica);
        let one = commits(&give(&mut replica, make("one", second))).remove(0);
        let outputs = tell(&mut replica, &rebase(&one, first.generation_zero()));
        assert!(problems(&outputs).is_empty(), "{outputs:?}");
        let state = SegmentState {
            number: Some(SegmentNumber(0)),
            status: SegmentStatus::Alive,
            engine: first,
            generation: first.generation_zero(),
            deltas: vec![foreign.parts.to_vec()[0].bytes.clone()].into(),
            ..unknown()
        };
        let outputs = tell(&mut replica, &snapshot(loads(&outputs)[0], 1, &state));
        assert_eq!((shows(&mut replica), problems(&outputs)), (vec!["one", "foreign"], vec![]));
        let again = commits(&outputs).remove(0);
        assert_eq!((again.seq, again.uid, again.prev), (one.seq, one.uid, one.prev));
        let part = again.parts.to_vec().remove(0);
        assert_eq!((part.generation, part.create), (first.generation_zero(), Some((first, LAYOUT))));
        assert_ne!(part.bytes, one.parts.to_vec()[0].bytes);
        tell(&mut replica, &Down::Ack { owner: 0, seq: one.seq, position: Offset(2) });
        assert_eq!((shows(&mut replica), replica.unsaved()), (vec!["one", "foreign"], 0));
    }
}

#[test]
fn c8_what_was_made_anew_is_told_outside_before_it_is_sent() {
    let mut replica = here();
    made(&mut replica, "one");
    let id = replica.id();
    let mut frames = Vec::new();
    Down::Roll(roll(&[], 0, id, 0, &[])).encode(&mut frames);
    replica.handle(1, Input::Receive(Bytes::from(message_of(&frames))));
    let outputs: Vec<Output> = std::iter::from_fn(|| replica.poll()).collect();
    let told = outputs.iter().position(|output| matches!(output, Output::Keep(Keep::Commit(Seq(1), _))));
    let sent = outputs.iter().position(|output| matches!(output, Output::Send(_)));
    assert!(told.is_some() && told < sent, "{told:?} {sent:?}");
    let again = outputs.iter().filter(|output| matches!(output, Output::Keep(Keep::Commit(..))));
    assert_eq!(again.count(), 1, "once");
}

#[test]
fn l3_a_load_that_is_under_way_ends_with_the_roll_and_its_answer_means_nothing_then() {
    let mut other = here();
    let one = made(&mut other, "one");
    let mut replica = replica();
    connect(&mut replica);
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
    let outputs = tell(&mut replica, &Down::Roll(roll(&[&one], 1, other.id(), 1, &[])));
    assert!(outputs.iter().any(|output| matches!(output, Output::Loaded { reset: false, .. })), "{outputs:?}");
    assert_eq!((shows(&mut replica), replica.cut()), (vec!["one"], Offset(2)));
    let outputs = tell(&mut replica, &snapshot(nonce, 2, &unknown()));
    assert!(outputs.is_empty(), "{outputs:?}");
    assert_eq!(shows(&mut replica), ["one"]);
}

/// The Roll was on its way when the segment was given up: the relay sends nothing of it until it meets the load.
#[test]
fn l3_a_roll_from_before_a_segment_was_given_up_does_not_end_the_load_that_came_after() {
    let mut other = here();
    let (one, two) = (made(&mut other, "one"), made(&mut other, "two"));
    let mut replica = here();
    give(&mut replica, Input::Evict(Index(0)));
    let first = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
    let roll_of = |frames: &[&CommitFrame], last: u64| roll(frames, 1, other.id(), last, &[]);
    let outputs = tell(&mut replica, &Down::Roll(roll_of(&[&one], 1)));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Loaded { .. })), "{outputs:?}");
    let again = loads(&outputs);
    assert_eq!((again.len(), replica.cut()), (1, Offset(2)));
    // What was asked for first may be of the old generation.
    assert!(
        tell(&mut replica, &snapshot(first, 1, &SegmentState { status: SegmentStatus::Alive, ..unknown() })).is_empty()
    );
    let whole = roll_of(&[&one, &two], 2);
    let mut reader = Reader::new(&whole.bulk.bytes);
    let state = SegmentState::decode(&whole.bulk.bytes, &mut reader).unwrap();
    let state = SegmentState { header: whole.header.clone(), ..state };
    tell(&mut replica, &snapshot(again[0], 3, &state));
    assert_eq!(shows(&mut replica), ["one", "two"]);
    // From here on the stream has it again.
    tell(&mut replica, &Down::Roll(RollFrame { offset: Offset(3), ..whole }));
    assert_eq!((shows(&mut replica), replica.cut()), (vec!["one", "two"], Offset(4)));
}

#[test]
fn a_roll_takes_its_place_with_its_last_piece() {
    let mut replica = here();
    let one = made(&mut replica, "one");
    let id = replica.id();
    let whole = roll(&[&one], 1, id, 1, &[]);
    let (head, rest) = (whole.bulk.bytes.slice(..10), whole.bulk.bytes.slice(10..));
    let outputs = tell(&mut replica, &Down::Roll(RollFrame { bulk: Bulk { stream: 3, bytes: head }, ..whole }));
    assert!(outputs.is_empty() && replica.cut() == Offset(0));
    tell(&mut replica, &Down::Chunk(Chunk { stream: 3, last: true, bytes: rest }));
    assert_eq!((replica.cut(), shows(&mut replica)), (Offset(2), vec!["one"]));
    // What is no Roll ends the connection, and nothing else.
    let outputs = tell(&mut replica, &Down::Roll(RollFrame { header: Bytes::new(), ..roll(&[&one], 2, id, 1, &[]) }));
    assert_eq!(problems(&outputs), ["ERR_PROTOCOL"]);
    assert_eq!(shows(&mut replica), ["one"]);
}

#[test]
fn c4_a_delta_of_another_generation_is_reported_and_never_applied() {
    let mut replica = here();
    let id = replica.id();
    let one = made(&mut replica, "one");
    tell(&mut replica, &Down::Roll(roll(&[&one], 1, id, 1, &[])));
    let mut other = here();
    let foreign = made(&mut other, "foreign");
    tell(&mut replica, &Down::Names(vec![(SegmentNumber(0), ROOT)]));
    let author = Down::Author { number: 1, replica: ReplicaId([3; 16]), name: "o".into(), subject: String::new() };
    tell(&mut replica, &author);
    let part = PartFrame {
        kind: PART_DELTA,
        segment: SegRef::Number(SegmentNumber(0)),
        generation: YRS.generation_zero(),
        create: None,
        bytes: foreign.parts.to_vec()[0].bytes.clone(),
    };
    let (offset, yours, void, seq, uid) = (Offset(2), false, false, Seq(1), Uid(5));
    let entry = EntryFrame { offset, yours, void, author: 1, seq, uid, label: None, parts: vec![part].into() };
    let outputs = tell(&mut replica, &Down::Entry(entry));
    assert_eq!(problems(&outputs), ["ERR_ENGINE"]);
    assert_eq!(loads(&outputs).len(), 1, "it is loaded anew");
    assert_eq!(shows(&mut replica), ["one"]);
}

#[test]
fn g4_the_header_goes_along_to_other_instances_and_back_to_a_relay() {
    let mut replica = here();
    let id = replica.id();
    let (one, _) = (made(&mut replica, "one"), made(&mut replica, "two"));
    tell(&mut replica, &Down::Roll(roll(&[&one], 1, id, 1, &[])));
    let (packed, header) = (replica.export(), replica.document(ROOT).unwrap().header().clone());
    assert!(!header.is_empty());
    let mut moved = Replica::import(options(8), &packed).unwrap();
    let mut opened = Replica::reopen(options(9), &packed).unwrap();
    for other in [&mut moved, &mut opened] {
        while other.poll().is_some() {}
        let document = other.document(ROOT).unwrap();
        assert_eq!((document.generation(), document.header()), (generation(), &header));
        assert_eq!(other.unsaved(), 2);
    }
    // The first has nothing left that could be sent twice.
    let row = Row { seq: Seq(1), uid: one.uid, fate: Fate::Admitted(hash_of(&one)) };
    let outputs = connect_after(&mut moved, 2, &[], vec![row]);
    let parts: Vec<_> = commits(&outputs).iter().map(|frame| frame.parts.len()).collect();
    assert_eq!(parts, [0, 1]);
}
