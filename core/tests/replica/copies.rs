//! L5: what is kept of a segment when it is evicted, and how a load goes on from it.

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{EpochId, GenId, Nonce, Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::replica::{Input, LoadStatus, Output, Replica, Section, Target};
use coheap_core::segment::copy::{CopyError, SegmentCopy};
use coheap_core::segment::roll::roll_unchecked;
use coheap_core::value::Value;
use coheap_core::wire::frame::down::{EntryFrame, Welcome};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::up::Have;
use coheap_core::wire::frame::{Bulk, Down, PART_DELTA, PartFrame, SegRef, SegmentState, Up};

use crate::desk::{alive, connect_at, give, ok, options, problems, replica, snapshot, tell, unknown, ups};

const ONE: SegmentId = SegmentId([1; 16]);
const YRS: EngineKind = EngineKind::Yrs;

fn set(replica: &mut Replica, target: Target, wish: Wish) -> Vec<Output> {
    let sections = vec![Section { target, claim: None, wishes: vec![wish] }];
    give(replica, Input::Commit { label: String::new(), sections, size: 100, entropy: 0 })
}

/// What an author makes of ONE: entry 0 creates it, entries 1 to 3 set `n` to their numbers.
fn made() -> Vec<Bytes> {
    made_by(YRS)
}

fn made_by(engine: EngineKind) -> Vec<Bytes> {
    let mut author = replica();
    connect_at(&mut author, 0, &[]);
    let mut outputs = set(&mut author, Target::New(ONE, engine), Wish::Root { value: Literal::Map(Vec::new()) });
    for n in 1..=3 {
        let value = Literal::Scalar(Value::Number(f64::from(n)));
        outputs.extend(set(
            &mut author,
            Target::Here(Index(1)),
            Wish::Set { object: Handle(0), key: "n".into(), value },
        ));
    }
    let commits =
        ups(&outputs).into_iter().filter_map(|up| if let Up::Commit(frame) = up { Some(frame) } else { None });
    commits.map(|frame| frame.parts.to_vec()[0].bytes.clone()).collect()
}

/// What was asked for: under which nonce, and from which copy on.
fn asked(outputs: &[Output]) -> Vec<(Nonce, Option<Have>)> {
    let loads = ups(outputs).into_iter();
    loads.filter_map(|up| if let Up::Load { nonce, have, .. } = up { Some((nonce, have)) } else { None }).collect()
}

fn entry(offset: u64, delta: &Bytes) -> Down {
    let (segment, generation, bytes) = (SegRef::Id(ONE), GenId::ZERO_YRS, delta.clone());
    let parts = vec![PartFrame { kind: PART_DELTA, segment, generation, create: None, bytes }].into();
    let (offset, seq, uid) = (Offset(offset), Seq(offset + 1), Uid(offset + 1));
    Down::Entry(EntryFrame { offset, yours: false, void: false, author: 1, seq, uid, label: None, parts })
}

fn author() -> Down {
    Down::Author { number: 1, replica: ReplicaId([5; 16]), name: String::new(), subject: String::new() }
}

/// An answer that goes on from the copy.
fn onto(nonce: Nonce, position: u64, state: &SegmentState) -> Down {
    let Down::Snapshot { nonce, position, bulk, .. } = snapshot(nonce, position, state) else { panic!() };
    Down::Snapshot { nonce, position, bulk, onto_copy: true }
}

/// A replica that has ONE as it is at position 2.
fn with_it(made: &[Bytes]) -> Replica {
    let mut replica = Replica::new(options(9));
    connect_at(&mut replica, 2, &[]);
    tell(&mut replica, &author());
    let loads = asked(&give(&mut replica, Input::Load(vec![(ONE, false)])));
    assert_eq!(loads[0].1, None);
    tell(&mut replica, &snapshot(loads[0].0, 2, &alive(ONE, made[..2].to_vec())));
    assert_eq!(shows(&mut replica), Some(1));
    replica
}

/// What it shows under `n`.
fn shows(replica: &mut Replica) -> Option<u64> {
    let values = format!("{:?}", replica.document(ONE)?.values());
    (0..9).find(|n| values.contains(&format!("Int({n})")))
}

fn copied(outputs: &[Output]) -> Option<Bytes> {
    outputs.iter().find_map(|output| if let Output::Copied(_, copy) = output { Some(copy.clone()) } else { None })
}

/// The same, after it has gone; and its copy.
fn without_it(made: &[Bytes]) -> (Replica, Bytes) {
    let mut replica = with_it(made);
    let outputs = give(&mut replica, Input::EvictKeeping(Index(1)));
    let copy = copied(&outputs).unwrap();
    assert!(outputs.iter().any(|output| matches!(output, Output::Evicted(Index(1)))));
    (replica, copy)
}

fn load_from(replica: &mut Replica, copy: &Bytes) -> Vec<Output> {
    give(replica, Input::LoadFrom { segment: ONE, derived: false, copy: copy.clone() })
}

fn is_there(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Loaded { status: LoadStatus::There, .. }))
}

fn have(position: u64) -> Have {
    Have { epoch: EpochId::default(), position: Offset(position), generation: GenId::ZERO_YRS }
}

#[test]
fn l5_a_load_goes_on_from_what_was_kept() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    assert_eq!(SegmentCopy::decode(&copy).unwrap().have(), have(2));
    let loads = asked(&load_from(&mut replica, &copy));
    let &[(nonce, Some(named))] = &loads[..] else { panic!("{loads:?}") };
    assert_eq!(named, have(2));
    // Entry 3 comes before the answer, which is as at position 3 (L3); it is shown with it.
    assert!(!is_there(&tell(&mut replica, &entry(3, &made[3]))));
    let outputs = tell(&mut replica, &onto(nonce, 3, &alive(ONE, made[2..3].to_vec())));
    assert!(is_there(&outputs));
    assert_eq!((shows(&mut replica), problems(&outputs)), (Some(3), vec![]));
    // The copy that is made of that says so, and of no later position than what is in it [X26].
    let copy = copied(&give(&mut replica, Input::EvictKeeping(Index(1)))).unwrap();
    assert_eq!(SegmentCopy::decode(&copy).unwrap().have(), have(4));
}

#[test]
#[cfg(feature = "automerge")]
fn l5_a_load_of_the_engine_that_keeps_history_goes_on_from_what_was_kept() {
    let engine = EngineKind::Automerge;
    let made = made_by(engine);
    let state =
        |deltas: &[Bytes]| SegmentState { engine, generation: engine.generation_zero(), ..alive(ONE, deltas.to_vec()) };
    let mut replica = Replica::new(options(9));
    connect_at(&mut replica, 2, &[]);
    let (nonce, _) = asked(&give(&mut replica, Input::Load(vec![(ONE, false)])))[0];
    tell(&mut replica, &snapshot(nonce, 2, &state(&made[..2])));
    let copy = copied(&give(&mut replica, Input::EvictKeeping(Index(1)))).unwrap();
    let (nonce, named) = asked(&load_from(&mut replica, &copy))[0];
    assert_eq!(named, Some(Have { generation: engine.generation_zero(), ..have(2) }));
    let outputs = tell(&mut replica, &onto(nonce, 4, &state(&made[2..])));
    assert_eq!((shows(&mut replica), problems(&outputs)), (Some(3), vec![]));
    // Own commits go on from there, under clocks that fit.
    let value = Literal::Scalar(Value::Number(7.0));
    let outputs = set(&mut replica, Target::Here(Index(1)), Wish::Set { object: Handle(0), key: "n".into(), value });
    assert_eq!((shows(&mut replica), problems(&outputs)), (Some(7), vec![]));
}

#[test]
fn l5_another_process_goes_on_from_it_before_it_knows_any_log() {
    let made = made();
    let (_, copy) = without_it(&made);
    let mut other = Replica::new(options(3));
    assert_eq!(asked(&load_from(&mut other, &copy)), []);
    let loads = asked(&connect_at(&mut other, 4, &[]));
    assert_eq!(loads[0].1, Some(have(2)));
    tell(&mut other, &onto(loads[0].0, 4, &alive(ONE, made[2..].to_vec())));
    assert_eq!(shows(&mut other), Some(3));
}

#[test]
fn l5_what_the_relay_sends_whole_counts_by_itself() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    let loads = asked(&load_from(&mut replica, &copy));
    // Of a log that never had what the copy has.
    assert!(is_there(&tell(&mut replica, &snapshot(loads[0].0, 2, &alive(ONE, made[..1].to_vec())))));
    assert_eq!(shows(&mut replica), None);
    // And one that knows nothing of it.
    let copy = copied(&give(&mut replica, Input::EvictKeeping(Index(1)))).unwrap();
    let loads = asked(&load_from(&mut replica, &copy));
    let outputs = tell(&mut replica, &snapshot(loads[0].0, 2, &unknown(ONE)));
    assert!(outputs.iter().any(|output| matches!(output, Output::Loaded { status: LoadStatus::Missing, .. })));
    assert!(replica.document(ONE).is_none());
}

#[test]
fn l4_l5_there_is_no_copy_of_what_the_log_does_not_have_yet() {
    let made = made();
    let mut replica = with_it(&made);
    let value = Literal::Scalar(Value::Number(5.0));
    set(&mut replica, Target::Here(Index(1)), Wish::Set { object: Handle(0), key: "n".into(), value });
    assert_eq!(give(&mut replica, Input::EvictKeeping(Index(1))).len(), 0, "it is not acknowledged");
    // A derived segment that nobody wrote to may go, and there is nothing to keep.
    let loads = asked(&give(&mut replica, Input::Load(vec![(SegmentId::ROOT, true)])));
    tell(&mut replica, &snapshot(loads[0].0, 2, &unknown(SegmentId::ROOT)));
    let outputs = give(&mut replica, Input::EvictKeeping(Index(0)));
    assert!(outputs.iter().any(|output| matches!(output, Output::Evicted(Index(0)))));
    assert_eq!(copied(&outputs), None);
    // Nor is there one where none is asked for.
    let mut replica = with_it(&made);
    assert_eq!(copied(&give(&mut replica, Input::Evict(Index(1)))), None);
}

#[test]
fn l5_a_new_connection_is_asked_anew_from_the_copy_on() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    let first = asked(&load_from(&mut replica, &copy));
    give(&mut replica, Input::Disconnected);
    let again = asked(&connect_at(&mut replica, 3, &[]));
    assert_eq!((again.len(), again[0].1), (1, Some(have(2))));
    assert_ne!(first[0].0, again[0].0);
    // L2: an answer to the first means nothing.
    assert!(tell(&mut replica, &onto(first[0].0, 2, &alive(ONE, Vec::new()))).is_empty());
    tell(&mut replica, &onto(again[0].0, 3, &alive(ONE, made[2..3].to_vec())));
    assert_eq!(shows(&mut replica), Some(2));
}

#[test]
fn l5_an_answer_in_pieces_is_acted_on_with_its_last_one() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    let (nonce, _) = asked(&load_from(&mut replica, &copy))[0];
    let Down::Snapshot { bulk, .. } = snapshot(nonce, 3, &alive(ONE, made[2..3].to_vec())) else { panic!() };
    let (head, rest) = (bulk.bytes.slice(..10), bulk.bytes.slice(10..));
    let bulk = Bulk { stream: 4, bytes: head };
    assert!(tell(&mut replica, &Down::Snapshot { nonce, position: Offset(3), bulk, onto_copy: true }).is_empty());
    assert!(!is_there(&tell(&mut replica, &entry(3, &made[3]))));
    let last = coheap_core::wire::frame::Chunk { stream: 4, last: true, bytes: rest };
    assert!(is_there(&tell(&mut replica, &Down::Chunk(last))));
    assert_eq!(shows(&mut replica), Some(3));
}

/// D2: what was kept may be of what is lost.
#[test]
fn d2_l5_a_relay_that_has_lost_its_log_is_told_of_no_copy() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    load_from(&mut replica, &copy);
    give(&mut replica, Input::Disconnected);
    give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let Down::Ok(welcome) = ok(0, Vec::new(), &[]) else { panic!() };
    let new = EpochId { counter: 7, random: 77 };
    let restore = Welcome { restore: true, lineage: new, epochs: vec![(new, Offset(0))], ..welcome };
    let loads = asked(&tell(&mut replica, &Down::Ok(restore)));
    assert_eq!((loads.len(), loads[0].1), (1, None));
    // It stays so: what is asked for on the next connection is whole, too.
    give(&mut replica, Input::Disconnected);
    assert_eq!(asked(&connect_at(&mut replica, 0, &[]))[0].1, None);
}

#[test]
fn l5_damaged_bytes_are_told_and_all_of_it_is_loaded() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    for at in 0..copy.len() {
        let mut bytes = copy.to_vec();
        bytes[at] ^= 1 << (at % 8);
        assert!(SegmentCopy::decode(&bytes.into()).is_err(), "byte {at}");
        assert!(SegmentCopy::decode(&copy.slice(..at)).is_err(), "{at} bytes");
    }
    assert_eq!(SegmentCopy::decode(&[&copy[..], &[0]].concat().into()), Err(CopyError::Damaged));
    let mut damaged = copy.to_vec();
    damaged[60] ^= 1;
    let outputs = load_from(&mut replica, &damaged.into());
    let loads = asked(&outputs);
    assert_eq!((problems(&outputs), loads.len(), loads[0].1), (vec!["ERR_CORRUPT"], 1, None));
    tell(&mut replica, &snapshot(loads[0].0, 2, &alive(ONE, made[..2].to_vec())));
    assert_eq!(shows(&mut replica), Some(1));
}

#[test]
fn l5_a_copy_of_another_segment_is_of_no_use() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    let segment = SegmentId([3; 16]);
    let outputs = give(&mut replica, Input::LoadFrom { segment, derived: false, copy });
    let loads = asked(&outputs);
    assert_eq!((problems(&outputs), loads.len(), loads[0].1), (vec!["ERR_CORRUPT"], 1, None));
}

/// R10: a copy whose checksum holds, and whose bytes no replica of ours has written. The relay cannot know.
#[test]
fn l5_r10_a_document_that_the_guard_or_the_engine_does_not_take_is_asked_for_whole() {
    let made = made();
    let (_, copy) = without_it(&made);
    let copy = SegmentCopy::decode(&copy).unwrap();
    let states: [&[u8]; 4] = [b"", b"no update at all", &[1, 1, 0, 0, 255, 255], &made[3]];
    for state in states {
        let (mut replica, _) = without_it(&made);
        let foreign = SegmentCopy { state: Bytes::copy_from_slice(state), ..copy.clone() };
        let (nonce, named) = asked(&load_from(&mut replica, &foreign.encode().into()))[0];
        assert_eq!(named, Some(have(2)));
        let outputs = tell(&mut replica, &onto(nonce, 3, &alive(ONE, made[2..3].to_vec())));
        let loads = asked(&outputs);
        assert_eq!((problems(&outputs), loads.len()), (vec!["ERR_CORRUPT"], 1), "{state:?}");
        assert_eq!(loads[0].1, None);
        assert!(!ups(&outputs).iter().any(|up| matches!(up, Up::Report { .. })), "the log is not to blame");
        tell(&mut replica, &snapshot(loads[0].0, 3, &alive(ONE, made[..3].to_vec())));
        assert_eq!(shows(&mut replica), Some(2));
    }
}

#[test]
fn l5_an_answer_onto_what_was_not_named_ends_the_connection() {
    let made = made();
    let state = alive(ONE, made[2..3].to_vec());
    let other = SegmentState { generation: GenId::drawn(ONE, [1, 2, 3]), ..state.clone() };
    let snapshot = SegmentState { snapshot: Bytes::from_static(b"snapshot"), ..state.clone() };
    let engine = SegmentState { engine: EngineKind::Automerge, ..state.clone() };
    let gone = unknown(ONE);
    for (n, (position, state)) in
        [(3, other), (3, snapshot), (3, engine), (3, gone), (1, state.clone())].iter().enumerate()
    {
        if !cfg!(feature = "automerge") && state.engine == EngineKind::Automerge {
            continue;
        }
        let (mut replica, copy) = without_it(&made);
        let (nonce, _) = asked(&load_from(&mut replica, &copy))[0];
        assert_eq!(problems(&tell(&mut replica, &onto(nonce, *position, state))), ["ERR_PROTOCOL"], "{n}");
        // The next one is asked for all of it.
        assert_eq!(asked(&connect_at(&mut replica, 3, &[]))[0].1, None);
    }
    let (mut replica, _) = without_it(&made);
    let (nonce, _) = asked(&give(&mut replica, Input::Load(vec![(ONE, false)])))[0];
    assert_eq!(problems(&tell(&mut replica, &onto(nonce, 3, &state))), ["ERR_PROTOCOL"]);
}

/// R12: what is left out from here on may be in the copy.
#[test]
fn l5_r12_a_segment_of_which_something_is_left_out_meanwhile_is_asked_for_whole() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    load_from(&mut replica, &copy);
    let (offset, segment, at, client) = (Offset(2), SegRef::Id(ONE), Offset(1), None);
    let loads = asked(&tell(&mut replica, &Down::Quarantine { offset, segment, at, client }));
    assert_eq!((loads.len(), loads[0].1), (1, None));
}

#[test]
fn l5_g4_a_generation_keeps_the_header_that_comes_with_the_answer() {
    let made = made();
    let generation = GenId::drawn(ONE, [1, 2, 3]);
    let snapshot_of = roll_unchecked(YRS, ONE, &[], &made[..2], generation).unwrap().unwrap();
    let (parent, partial, included) = (YRS.generation_zero(), false, Default::default());
    let header = Bytes::from(GenerationHeader { generation, parent, partial, included }.encode());
    let state = SegmentState { generation, header: header.clone(), ..alive(ONE, Vec::new()) };
    let mut replica = Replica::new(options(9));
    connect_at(&mut replica, 3, &[]);
    let (nonce, _) = asked(&give(&mut replica, Input::Load(vec![(ONE, false)])))[0];
    tell(&mut replica, &snapshot(nonce, 3, &SegmentState { snapshot: snapshot_of, ..state.clone() }));
    let copy = copied(&give(&mut replica, Input::EvictKeeping(Index(1)))).unwrap();
    let (nonce, named) = asked(&load_from(&mut replica, &copy))[0];
    assert_eq!(named, Some(Have { generation, ..have(3) }));
    tell(&mut replica, &onto(nonce, 3, &state));
    let document = replica.document(ONE).unwrap();
    assert_eq!((document.generation(), document.header()), (generation, &header));
    assert_eq!(shows(&mut replica), Some(1));
}

/// As with every load under way: what is packed is what is asked for, not what is there for it.
#[test]
fn l5_a_move_to_another_instance_drops_the_copy() {
    let made = made();
    let (mut replica, copy) = without_it(&made);
    load_from(&mut replica, &copy);
    let mut moved = Replica::import(options(8), &replica.export()).unwrap();
    while moved.poll().is_some() {}
    assert_eq!(asked(&connect_at(&mut moved, 3, &[]))[0].1, None);
}
