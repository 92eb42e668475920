//! A module without automerge meets segments of it: it says NeedsFull, does nothing else, and everything else goes on.
//! Built only where the engine is missing: `cargo test -p coheap-core --test replica`.

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::replica::{Input, LoadStatus, Output, Replica, Section, Target, WaitKind};
use coheap_core::value::Value;
use coheap_core::wire::frame::down::EntryFrame;
use coheap_core::wire::frame::{Down, PART_CREATE, PartFrame, SegRef, SegmentState, SegmentStatus, Up};

use crate::desk::{connect, give, loads, options, replica, snapshot, tell, ups};

const HISTORY: SegmentId = SegmentId(*b"keeps a history!");

fn answer(replica: &mut Replica, nonce: Nonce, id: SegmentId, engine: Option<EngineKind>) -> Vec<Output> {
    let kind = engine.unwrap_or(EngineKind::Yrs);
    let state = SegmentState {
        id,
        number: engine.map(|_| SegmentNumber(0)),
        status: if engine.is_some() { SegmentStatus::Alive } else { SegmentStatus::Unknown },
        engine: kind,
        layout: LAYOUT,
        generation: kind.generation_zero(),
        header: Bytes::new(),
        snapshot: Bytes::new(),
        deltas: engine.map(|_| Bytes::from_static(b"what only automerge reads")).into_iter().collect(),
    };
    tell(replica, &snapshot(nonce, 0, &state))
}

/// A replica with its root here, online.
fn with_root() -> Replica {
    let mut replica = replica();
    connect(&mut replica);
    let asked = give(&mut replica, Input::Load(vec![(SegmentId::ROOT, true)]));
    answer(&mut replica, loads(&asked)[0], SegmentId::ROOT, None);
    replica
}

fn set(key: &str) -> Input {
    let value = Literal::Scalar(Value::Bool(true));
    let wishes = vec![Wish::Set { object: Handle(0), key: key.into(), value }];
    let sections = vec![Section { target: Target::Here(Index(0)), claim: None, wishes }];
    Input::Commit { label: String::new(), sections, size: 10, entropy: 0 }
}

fn needs(outputs: &[Output]) -> Vec<Index> {
    outputs.iter().filter_map(|o| if let Output::NeedsFull(index) = o { Some(*index) } else { None }).collect()
}

fn is_loaded(outputs: &[Output], of: Index) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Loaded { segment, .. } if *segment == of))
}

#[test]
fn a_history_segment_that_is_loaded_stays_as_loading_and_all_else_goes_on() {
    let mut replica = with_root();
    give(&mut replica, set("before"));
    give(&mut replica, Input::Wait { ticket: 5, kind: WaitKind::Flush });
    let asked = give(&mut replica, Input::Load(vec![(HISTORY, false)]));
    let outputs = answer(&mut replica, loads(&asked)[0], HISTORY, Some(EngineKind::Automerge));
    assert_eq!(needs(&outputs), [Index(1)]);
    assert!(!is_loaded(&outputs, Index(1)), "nothing is shown of it: {outputs:?}");
    assert!(ups(&outputs).iter().any(|up| matches!(up, Up::Unfollow { .. })), "it hears nothing of it until then");
    // The rest goes on: edits, and waits.
    let outputs = give(&mut replica, set("after"));
    assert!(outputs.iter().any(|output| matches!(output, Output::Committed { seq: Seq(2), .. })), "{outputs:?}");
    let outputs = tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    assert!(outputs.iter().any(|output| matches!(output, Output::Done { ticket: 5, .. })), "{outputs:?}");
    assert_eq!(replica.unsaved(), 1);
    // A program that asks again does not disturb it.
    assert!(give(&mut replica, Input::Load(vec![(HISTORY, false)])).is_empty());
}

#[test]
fn on_the_way_to_another_instance_it_is_still_loading() {
    let mut replica = with_root();
    give(&mut replica, set("unsaved"));
    give(&mut replica, Input::Wait { ticket: 9, kind: WaitKind::Flush });
    let asked = give(&mut replica, Input::Load(vec![(HISTORY, false)]));
    answer(&mut replica, loads(&asked)[0], HISTORY, Some(EngineKind::Automerge));
    give(&mut replica, Input::Disconnected);
    let packed = replica.export();
    let mut other = Replica::import(options(8), &packed).unwrap();
    let shown: Vec<Output> = std::iter::from_fn(|| other.poll()).collect();
    assert!(is_loaded(&shown, Index(0)) && !is_loaded(&shown, Index(1)), "{shown:?}");
    assert_eq!((other.id(), other.unsaved()), (replica.id(), 1));
    let outputs = connect(&mut other);
    assert!(ups(&outputs).iter().any(|up| matches!(up, Up::Commit(commit) if commit.seq == Seq(1))), "{outputs:?}");
    // Asked for again, under the same index; this module cannot read it either.
    let outputs = answer(&mut other, loads(&outputs)[0], HISTORY, Some(EngineKind::Automerge));
    assert_eq!(needs(&outputs), [Index(1)]);
    let outputs = tell(&mut other, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    assert!(outputs.iter().any(|output| matches!(output, Output::Done { ticket: 9, .. })), "{outputs:?}");
}

#[test]
fn a_followed_segment_that_another_replica_makes_with_history_is_loaded_and_waits() {
    let mut replica = with_root();
    let asked = give(&mut replica, Input::Load(vec![(HISTORY, true)]));
    let outputs = answer(&mut replica, loads(&asked)[0], HISTORY, None);
    assert!(outputs.iter().any(|o| matches!(o, Output::Loaded { status: LoadStatus::There, .. })), "{outputs:?}");
    let author = Down::Author { number: 3, replica: ReplicaId([3; 16]), name: String::new(), subject: String::new() };
    tell(&mut replica, &author);
    tell(&mut replica, &Down::Names(vec![(SegmentNumber(0), HISTORY)]));
    let part = PartFrame {
        kind: PART_CREATE,
        segment: SegRef::Number(SegmentNumber(0)),
        generation: EngineKind::Automerge.generation_zero(),
        create: Some((EngineKind::Automerge, LAYOUT)),
        bytes: Bytes::from_static(b"what only automerge reads"),
    };
    let entry = EntryFrame {
        offset: Offset(0),
        yours: false,
        void: false,
        author: 3,
        seq: Seq(1),
        uid: Uid(11),
        label: None,
        parts: vec![part].into(),
    };
    let outputs = tell(&mut replica, &Down::Entry(entry));
    let outputs = answer(&mut replica, loads(&outputs)[0], HISTORY, Some(EngineKind::Automerge));
    assert_eq!(needs(&outputs), [Index(1)]);
    assert_eq!(replica.cut(), Offset(1), "the log goes on");
    let outputs = give(&mut replica, set("after"));
    assert!(outputs.iter().any(|output| matches!(output, Output::Committed { .. })), "{outputs:?}");
}

#[test]
fn a_commit_that_makes_a_history_segment_does_nothing() {
    let mut replica = with_root();
    let value = || Literal::Scalar(Value::Bool(true));
    let here = vec![Wish::Set { object: Handle(0), key: "half".into(), value: value() }];
    let make = vec![Wish::Root { value: Literal::Map(vec![("x".into(), value())]) }];
    let sections = vec![
        Section { target: Target::Here(Index(0)), claim: None, wishes: here },
        Section { target: Target::New(HISTORY, EngineKind::Automerge), claim: None, wishes: make },
    ];
    let before = replica.document(SegmentId::ROOT).unwrap().show();
    let outputs = give(&mut replica, Input::Commit { label: String::new(), sections, size: 20, entropy: 0 });
    assert_eq!(needs(&outputs), [Index(1)]);
    assert!(matches!(outputs.last(), Some(Output::Error { code: "ERR_ENGINE", .. })), "{outputs:?}");
    assert!(ups(&outputs).is_empty(), "nothing is sent");
    assert_eq!(replica.unsaved(), 0);
    assert_eq!(replica.document(SegmentId::ROOT).unwrap().show(), before, "no section of it was done");
    // The next commit is the first of the line.
    let outputs = give(&mut replica, set("next"));
    assert!(outputs.iter().any(|output| matches!(output, Output::Committed { seq: Seq(1), .. })), "{outputs:?}");
}
