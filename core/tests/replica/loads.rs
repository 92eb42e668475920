//! L3: what comes to a segment between the request for its state and the answer; and that nothing of it outlasts its connection.

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{GenId, Nonce, Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::replica::{Input, Output, Replica, Section, Target};
use coheap_core::value::Value;
use coheap_core::wire::frame::down::{EntryFrame, Welcome};
use coheap_core::wire::frame::restore::{Restored, RestoredFrame};
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Bulk, Down, PART_DELTA, PartFrame, SegRef, Up};

use crate::desk::{alive, connect_at, give, loads, ok, options, problems, replica, snapshot, tell, ups};

const ONE: SegmentId = SegmentId([1; 16]);
const NEW: Target = Target::New(ONE, EngineKind::Yrs);
const HERE: Target = Target::Here(Index(1));

fn set(n: u32) -> Wish {
    Wish::Set { object: Handle(0), key: "n".into(), value: Literal::Scalar(Value::Number(f64::from(n))) }
}

/// Commits; what was sent.
fn write(replica: &mut Replica, target: Target, wish: Wish) -> CommitFrame {
    let sections = vec![Section { target, claim: None, wishes: vec![wish] }];
    let told = give(replica, Input::Commit { label: String::new(), sections, size: 100, entropy: 0 });
    let Some(Up::Commit(commit)) = ups(&told).pop() else { panic!("{told:?}") };
    commit
}

/// The segment is made, and set to 1.
fn made() -> [Bytes; 2] {
    let mut author = replica();
    connect_at(&mut author, 0, &[]);
    let root = Wish::Root { value: Literal::Map(Vec::new()) };
    [(NEW, root), (HERE, set(1))].map(|(target, wish)| write(&mut author, target, wish).parts.to_vec()[0].bytes.clone())
}

/// A replica at position 1 that has asked for the segment, on a connection that knows an author.
fn asking() -> (Replica, Nonce) {
    let mut replica = Replica::new(options(9));
    connect_at(&mut replica, 1, &[]);
    let (name, subject) = (String::new(), String::new());
    tell(&mut replica, &Down::Author { number: 1, replica: ReplicaId([5; 16]), name, subject });
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ONE, false)])))[0];
    (replica, nonce)
}

fn entry(offset: u64, generation: GenId, delta: &Bytes) -> EntryFrame {
    let segment = SegRef::Id(ONE);
    let parts = vec![PartFrame { kind: PART_DELTA, segment, generation, create: None, bytes: delta.clone() }].into();
    let (offset, seq, uid) = (Offset(offset), Seq(offset), Uid(offset));
    EntryFrame { offset, yours: false, void: false, author: 1, seq, uid, label: None, parts }
}

fn shows(replica: &mut Replica, n: u32) -> bool {
    format!("{:?}", replica.document(ONE).unwrap().dump()).contains(&format!("Number({n}.0)"))
}

/// The parts of an own commit are not sent back: one whose Ack comes while its segment is loaded anew is in it all the same.
#[test]
fn l3_an_own_commit_that_is_acknowledged_while_its_segment_loads_is_not_missing_from_it() {
    let (mut replica, nonce) = asking();
    let [root, _] = made();
    tell(&mut replica, &snapshot(nonce, 1, &alive(ONE, vec![root.clone()])));
    let own = write(&mut replica, HERE, set(5));
    // What cannot be applied: the segment is loaded anew.
    let told = tell(&mut replica, &Down::Entry(entry(1, GenId([7; 16]), &root)));
    assert_eq!((problems(&told), loads(&told).len()), (vec!["ERR_ENGINE"], 1));
    let (id, name, subject) = (replica.id(), String::new(), String::new());
    tell(&mut replica, &Down::Author { number: 2, replica: id, name, subject });
    let (seq, uid, parts) = (own.seq, own.uid, Vec::new().into());
    let mine = EntryFrame { yours: true, author: 2, seq, uid, parts, ..entry(2, GenId::ZERO_YRS, &root) };
    tell(&mut replica, &Down::Entry(mine));
    tell(&mut replica, &Down::Ack { owner: 0, seq, position: Offset(3) });
    assert_eq!(replica.unsaved(), 0);
    // The state is that of where the stream was when it was asked for.
    tell(&mut replica, &snapshot(loads(&told)[0], 2, &alive(ONE, vec![root])));
    assert!(shows(&mut replica, 5));
}

/// D2: the offsets of what was buffered mean something else in a log that has lost its end.
#[test]
fn l3_what_came_on_an_earlier_connection_is_not_put_behind_the_state_of_another_log() {
    let (mut replica, _) = asking();
    let [root, one] = made();
    tell(&mut replica, &Down::Entry(entry(1, GenId::ZERO_YRS, &one)));
    assert_eq!(replica.cut(), Offset(2));
    give(&mut replica, Input::Disconnected);
    // A disk of before that entry, and nothing here that it could be given back from.
    give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let Down::Ok(welcome) = ok(1, Vec::new(), &[]) else { panic!() };
    let told = tell(&mut replica, &Down::Ok(Welcome { restore: true, ..welcome }));
    tell(&mut replica, &snapshot(loads(&told)[0], 1, &alive(ONE, vec![root])));
    let bulk = Bulk::whole(Restored::default().encode().into());
    let verdict = RestoredFrame { offset: Offset(1), yours: true, position: Offset(2), bulk };
    let told = tell(&mut replica, &Down::Restored(verdict));
    assert!(told.iter().any(|output| matches!(output, Output::Loaded { .. })), "{told:?}");
    assert!(!shows(&mut replica, 1));
}
