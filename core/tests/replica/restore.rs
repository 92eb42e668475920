//! D1 to D5 at the replica: what it gives back, and what it does and does not while that is under way.

use bytes::Bytes;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{EpochId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::replica::{Input, LoadStatus, Output, Replica, Section, Target, WaitKind};
use coheap_core::segment::Segment;
use coheap_core::segment::write::Draw;
use coheap_core::value::Value;
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::down::{EntryFrame, Fate, Row, Welcome};
use coheap_core::wire::frame::restore::{Restore, Restored, RestoredFrame, Verdict};
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Bulk, Down, PART_DELTA, PartFrame, SegRef, SegmentState, Up};

use crate::desk::{alive, connect, give, loads, options, problems, replica, snapshot, tell, unknown, ups};

const NEW: EpochId = EpochId { counter: 7, random: 77 };
const ROOT: SegmentId = SegmentId::ROOT;

fn set(key: &str) -> Input {
    let wish = Wish::Set { object: Handle(0), key: key.into(), value: Literal::Scalar(Value::Bool(true)) };
    let sections = vec![Section { target: Target::Here(Index(0)), claim: None, wishes: vec![wish] }];
    Input::Commit { label: String::new(), sections, size: 10, entropy: 0 }
}

/// A replica that holds the root, with two commits, the first acknowledged at position 1, and is connected no more.
fn holder() -> Replica {
    let mut replica = replica();
    connect(&mut replica);
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
    tell(&mut replica, &snapshot(nonce, 0, &unknown(ROOT)));
    give(&mut replica, set("acked"));
    tell(&mut replica, &Down::Advance { position: Offset(1) });
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    give(&mut replica, set("pending"));
    give(&mut replica, Input::Disconnected);
    assert_eq!((replica.cut(), replica.unsaved()), (Offset(1), 1));
    replica
}

/// What a relay that has kept its log knows of its line.
fn line(replica: &Replica) -> Vec<(u64, Vec<Row>)> {
    let (_, seq, uid) = replica.own_lines()[0];
    vec![(0, vec![Row { seq, uid, fate: Fate::Admitted(0) }])]
}

fn welcome(restore: bool, ring: Vec<(u64, Vec<Row>)>) -> Down {
    Down::Ok(Welcome {
        features: 0,
        exists: true,
        restore,
        catchup: false,
        time_ms: 0,
        lineage: NEW,
        epochs: vec![(NEW, Offset(0))],
        position: Offset(0),
        forgotten: Offset(0),
        window: 256,
        ring,
        bulk: Bulk::default(),
    })
}

/// It comes to a relay that has lost everything: what it said first, and what it did when it was asked.
fn asked(replica: &mut Replica, ring: Vec<(u64, Vec<Row>)>) -> (Hello, Vec<Output>) {
    let said = ups(&give(replica, Input::Connected { token: String::new(), entropy: [0; 4] }));
    let [Up::Hello(hello)] = &said[..] else { panic!("{said:?}") };
    (hello.clone(), tell(replica, &welcome(true, ring)))
}

fn restore(outputs: &[Output]) -> Restore {
    let frames = ups(outputs);
    let Some(Up::Restore(bulk)) = frames.iter().find(|up| matches!(up, Up::Restore(_))) else { panic!("{frames:?}") };
    Restore::decode(&bulk.bytes).unwrap()
}

fn commits(outputs: &[Output]) -> usize {
    ups(outputs).iter().filter(|up| matches!(up, Up::Commit(_))).count()
}

fn verdict(states: Vec<SegmentState>, offset: u64, position: u64) -> Down {
    let segments = states.into_iter().map(|state| (Verdict::Merged, state)).collect();
    let bulk = Bulk::whole(Restored { segments, ..Restored::default() }.encode().into());
    Down::Restored(RestoredFrame { offset: Offset(offset), yours: true, position: Offset(position), bulk })
}

/// The keys that a whole segment holds.
fn keys(state: &Bytes) -> Vec<String> {
    let segment =
        Segment::decode(ROOT, EngineKind::Yrs, EngineKind::Yrs.generation_zero(), 1, &[], std::slice::from_ref(state));
    let text = format!("{:?}", segment.unwrap().values());
    ["acked", "pending", "later", "foreign"]
        .iter()
        .filter(|key| text.contains(**key))
        .map(|key| (*key).into())
        .collect()
}

/// What another replica wrote to the root.
fn foreign() -> Bytes {
    let mut other = Segment::new(ROOT, EngineKind::Yrs, 99).unwrap();
    let key = "foreign".to_owned();
    let wish = Wish::Set { object: Handle(0), key, value: Literal::Scalar(Value::Bool(true)) };
    let mut draws = Draws(5);
    other.edit(vec![wish], Uid(5), &mut draws).unwrap().delta
}

/// Numbers that differ.
struct Draws(u64);

impl Draw for Draws {
    fn draw(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

fn entry(replica: &mut Replica, offset: u64) -> Vec<Output> {
    tell(replica, &Down::Names(vec![(SegmentNumber(0), ROOT)]));
    let author = Down::Author { number: 1, replica: ReplicaId([3; 16]), name: "o".into(), subject: String::new() };
    tell(replica, &author);
    let part = PartFrame {
        kind: PART_DELTA,
        segment: SegRef::Number(SegmentNumber(0)),
        generation: EngineKind::Yrs.generation_zero(),
        create: None,
        bytes: foreign(),
    };
    let (seq, uid) = (Seq(1), Uid(5));
    let frame = EntryFrame {
        offset: Offset(offset),
        yours: false,
        void: false,
        author: 1,
        seq,
        uid,
        label: None,
        parts: vec![part].into(),
    };
    tell(replica, &Down::Entry(frame))
}

#[test]
fn d1_the_restore_comes_first_and_holds_all_that_is_resident_with_pending_parts() {
    let mut replica = holder();
    let (hello, outputs) = asked(&mut replica, Vec::new());
    assert_eq!((hello.cut, hello.restoring), (Offset(1), false));
    let given = restore(&outputs);
    assert_eq!(given.segments.len(), 1);
    // X35: what is not acknowledged is in it too; X13: and where the line goes on.
    assert_eq!(keys(&given.segments.to_vec()[0].state), ["acked", "pending"]);
    assert_eq!((given.acked[0].0, given.acked[0].1), (0, Seq(1)));
    assert_eq!(given.pending.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>(), [Seq(2)]);
    assert!(outputs.iter().any(|output| matches!(output, Output::Restoring { begins: true })));
    // X14: the pending commit comes behind it.
    assert_eq!(commits(&outputs), 0);
    let state = given.segments.to_vec()[0].state.clone();
    let outputs = tell(&mut replica, &verdict(vec![alive(ROOT, vec![state])], 0, 1));
    let sent = ups(&outputs);
    let Some(Up::Commit(commit)) = sent.iter().find(|up| matches!(up, Up::Commit(_))) else { panic!("{sent:?}") };
    assert_eq!((commit.seq, commit.prev), (Seq(2), Some(given.acked[0].2)));
}

#[test]
fn d2_nothing_of_the_stream_counts_before_the_verdict_and_own_writes_go_on() {
    let mut replica = holder();
    let (_, outputs) = asked(&mut replica, Vec::new());
    let given = restore(&outputs);
    let outputs = entry(&mut replica, 0);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Apply { .. })), "{outputs:?}");
    tell(&mut replica, &Down::Advance { position: Offset(9) });
    assert_eq!(replica.cut(), Offset(1), "the cut is still that of the lost log");
    let outputs = give(&mut replica, set("later"));
    assert!(outputs.iter().any(|output| matches!(output, Output::Committed { .. })));
    assert_eq!(commits(&outputs), 0);
    // A load is answered while it waits: its answer is put aside.
    let other = SegmentId([4; 16]);
    let nonce = loads(&give(&mut replica, Input::Load(vec![(other, true)])))[0];
    let loaded = |outputs: &[Output], of: u32| {
        let there = |output: &&Output| matches!(output, Output::Loaded { segment: Index(at), status: LoadStatus::There, .. } if *at == of);
        outputs.iter().filter(there).count()
    };
    assert_eq!(loaded(&tell(&mut replica, &snapshot(nonce, 1, &unknown(other))), 1), 0);
    // All of it in one step.
    let deltas = vec![given.segments.to_vec()[0].state.clone(), foreign()];
    let outputs = tell(&mut replica, &verdict(vec![alive(ROOT, deltas)], 1, 2));
    assert_eq!((loaded(&outputs, 0), loaded(&outputs, 1), replica.cut()), (1, 1, Offset(2)));
    assert_eq!(commits(&outputs), 2, "what is pending goes out now");
    let whole = Bytes::from(replica.document(ROOT).unwrap().whole());
    assert_eq!(keys(&whole), ["acked", "pending", "later", "foreign"]);
    assert!(outputs.iter().any(|output| matches!(output, Output::Restoring { begins: false })));
}

#[test]
fn d3_the_duty_survives_a_disconnect_and_a_move_to_another_instance() {
    let mut replica = holder();
    asked(&mut replica, Vec::new());
    give(&mut replica, Input::Disconnected);
    let (hello, outputs) = asked(&mut replica, Vec::new());
    assert!(hello.restoring, "X24");
    assert!(!outputs.iter().any(|output| matches!(output, Output::Restoring { .. })), "it has begun before");
    give(&mut replica, Input::Disconnected);
    let mut moved = Replica::import(options(9), &replica.export()).unwrap();
    while moved.poll().is_some() {}
    let (hello, outputs) = asked(&mut moved, Vec::new());
    assert!(hello.restoring);
    let state = restore(&outputs).segments.to_vec()[0].state.clone();
    tell(&mut moved, &verdict(vec![alive(ROOT, vec![state])], 0, 1));
    give(&mut moved, Input::Disconnected);
    let said = ups(&give(&mut moved, Input::Connected { token: String::new(), entropy: [0; 4] }));
    assert!(matches!(&said[0], Up::Hello(hello) if !hello.restoring && hello.epoch == NEW), "{said:?}");
}

#[test]
fn d5_a_restored_of_another_is_an_entry() {
    let mut replica = replica();
    connect(&mut replica);
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
    tell(&mut replica, &snapshot(nonce, 0, &unknown(ROOT)));
    let frame = |bytes: Bytes, offset: u64| {
        let segments = vec![(Verdict::Merged, alive(ROOT, vec![bytes]))];
        let bulk = Bulk::whole(Restored { segments: segments.into(), ..Restored::default() }.encode().into());
        Down::Restored(RestoredFrame { offset: Offset(offset), yours: false, position: Offset(offset + 1), bulk })
    };
    let outputs = tell(&mut replica, &frame(foreign(), 0));
    assert!(outputs.iter().any(|output| matches!(output, Output::Apply { offset: Offset(0), .. })), "{outputs:?}");
    assert_eq!(replica.cut(), Offset(1));
    // What the guard does not pass reaches no engine.
    let outputs = tell(&mut replica, &frame(Bytes::from_static(&[1, 2, 3]), 1));
    assert_eq!((problems(&outputs), replica.cut()), (vec!["ERR_QUARANTINED"], Offset(2)));
}

#[test]
fn t2_no_token_counts_and_nothing_is_evicted_while_restoring() {
    let mut replica = holder();
    let version = {
        give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
        let line = line(&replica);
        tell(
            &mut replica,
            &Down::Ok(match welcome(false, line) {
                Down::Ok(welcome) => Welcome {
                    epochs: vec![(EpochId::default(), Offset(0))],
                    position: Offset(1),
                    lineage: EpochId::default(),
                    ..welcome
                },
                other => panic!("{other:?}"),
            }),
        );
        tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(2), position: Offset(2) });
        tell(&mut replica, &Down::Advance { position: Offset(2) });
        let outputs = give(&mut replica, Input::Wait { ticket: 1, kind: WaitKind::Version });
        let Some(Output::Done { version, .. }) = outputs.first() else { panic!("{outputs:?}") };
        version.clone()
    };
    give(&mut replica, Input::Disconnected);
    let (_, outputs) = asked(&mut replica, Vec::new());
    let given = restore(&outputs);
    for (ticket, kind) in
        [(2, WaitKind::Flush), (3, WaitKind::Version), (4, WaitKind::Sync), (5, WaitKind::Reach(version))]
    {
        assert_eq!(give(&mut replica, Input::Wait { ticket, kind }).len(), 0);
    }
    assert_eq!(give(&mut replica, Input::Evict(Index(0))).len(), 0, "L4");
    let state = given.segments.to_vec()[0].state.clone();
    let outputs = tell(&mut replica, &verdict(vec![alive(ROOT, vec![state])], 0, 1));
    let done: Vec<u64> =
        outputs.iter().filter_map(|o| if let Output::Done { ticket, .. } = o { Some(*ticket) } else { None }).collect();
    assert_eq!(done, [2, 3]);
    // T3: the log that it was of is gone.
    let lost = outputs.iter().any(|output| matches!(output, Output::Failed { ticket: 5, .. }));
    assert!(lost, "{outputs:?}");
    assert!(
        ups(&outputs).iter().any(|up| matches!(up, Up::Sync { nonce: Nonce(4) })),
        "the head is asked of the new log"
    );
    assert!(give(&mut replica, Input::Evict(Index(0))).iter().any(|output| matches!(output, Output::Evicted(_))));
}

#[test]
fn d4_a_relay_that_is_busy_is_given_the_whole_of_it_again() {
    let mut replica = holder();
    asked(&mut replica, Vec::new());
    let code = u64::from(Code::Restoring.number());
    let outputs = tell(&mut replica, &Down::Busy { owner: 0, seq: Seq(0), code, retry_ms: 500 });
    assert!(ups(&outputs).is_empty());
    give(&mut replica, set("later"));
    assert_eq!(replica.deadline(), Some(501));
    replica.handle(501, Input::Tick);
    let outputs: Vec<Output> = std::iter::from_fn(|| replica.poll()).collect();
    let given = restore(&outputs);
    assert_eq!(keys(&given.segments.to_vec()[0].state), ["acked", "pending", "later"]);
    assert_eq!((given.pending.len(), commits(&outputs)), (2, 0));
}

#[test]
fn r11_what_the_ring_has_as_void_is_refused_before_and_not_given_back() {
    let mut replica = holder();
    let uid = {
        let outputs = give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
        drop(outputs);
        let line = line(&replica);
        let outputs = tell(&mut replica, &welcome(false, line));
        let Some(Up::Commit(commit)) = ups(&outputs).into_iter().find(|up| matches!(up, Up::Commit(_))) else {
            panic!("{outputs:?}")
        };
        tell(&mut replica, &Down::Advance { position: Offset(3) });
        give(&mut replica, Input::Disconnected);
        commit.uid
    };
    let row = Row { seq: Seq(2), uid, fate: Fate::Void(36) };
    let (_, outputs) = asked(&mut replica, vec![(0, vec![row])]);
    assert!(outputs.iter().any(|output| matches!(output, Output::Refused { seq: Seq(2), .. })), "{outputs:?}");
    let given = restore(&outputs);
    // Its segment shows it until it is made anew, and is left to others.
    assert_eq!((given.segments.len(), given.pending.len()), (0, 0));
    assert_eq!(given.acked, [(0, Seq(2), uid.voided())]);
    // If the relay has lost something of it, nobody else may have that: the program gets what it was shown, before that goes.
    let segments = vec![(Verdict::NotGiven, alive(ROOT, vec![foreign()]))].into();
    let bulk = Bulk::whole(Restored { segments, ..Restored::default() }.encode().into());
    let frame = RestoredFrame { offset: Offset(0), yours: true, position: Offset(1), bulk };
    let outputs = tell(&mut replica, &Down::Restored(frame));
    let place = |of: fn(&Output) -> bool| outputs.iter().position(of);
    let told = place(|output| matches!(output, Output::Conflict(Index(0))));
    let loaded = place(|output| matches!(output, Output::Loaded { reset: true, .. }));
    assert!(told.is_some() && told < loaded, "{outputs:?}");
}

/// D4, C10: a segment that no log knew when it was loaded, and in which nothing was written, has nothing to lose to what the relay has.
#[test]
fn d4_of_a_segment_that_holds_nothing_nothing_is_given_up() {
    for writes in [false, true] {
        let mut replica = replica();
        connect(&mut replica);
        let nonce = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
        tell(&mut replica, &snapshot(nonce, 0, &unknown(ROOT)));
        if writes {
            give(&mut replica, set("pending"));
        }
        tell(&mut replica, &Down::Advance { position: Offset(1) });
        give(&mut replica, Input::Disconnected);
        let (_, outputs) = asked(&mut replica, Vec::new());
        assert_eq!(restore(&outputs).segments.len(), 1);
        let segments = vec![(Verdict::Conflict, alive(ROOT, vec![foreign()]))].into();
        let bulk = Bulk::whole(Restored { segments, ..Restored::default() }.encode().into());
        let frame = RestoredFrame { offset: Offset(0), yours: true, position: Offset(1), bulk };
        let outputs = tell(&mut replica, &Down::Restored(frame));
        let told = outputs.iter().any(|output| matches!(output, Output::Conflict(Index(0))));
        assert_eq!((told, problems(&outputs).len()), (writes, 0), "{outputs:?}");
        assert!(format!("{:?}", replica.document(ROOT).unwrap().values()).contains("foreign"));
    }
}

#[test]
fn d4_of_a_segment_that_held_nothing_when_it_was_given_back_nothing_is_given_up() {
    let mut replica = replica();
    connect(&mut replica);
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
    tell(&mut replica, &snapshot(nonce, 0, &unknown(ROOT)));
    tell(&mut replica, &Down::Advance { position: Offset(1) });
    give(&mut replica, Input::Disconnected);
    let (_, outputs) = asked(&mut replica, Vec::new());
    assert_eq!(restore(&outputs).segments.len(), 1);
    // It goes out behind the verdict, made anew on what the log has.
    give(&mut replica, set("since"));
    let segments = vec![(Verdict::Conflict, alive(ROOT, vec![foreign()]))].into();
    let bulk = Bulk::whole(Restored { segments, ..Restored::default() }.encode().into());
    let outputs = tell(
        &mut replica,
        &Down::Restored(RestoredFrame { offset: Offset(0), yours: true, position: Offset(1), bulk }),
    );
    assert!(!outputs.iter().any(|output| matches!(output, Output::Conflict(_))), "{outputs:?}");
    let shown = format!("{:?}", replica.document(ROOT).unwrap().values());
    assert!(shown.contains("foreign") && shown.contains("since"), "{shown}");
}

/// F3 while it is given back: the log has another version of one commit, and the next one as it is here. That is not made anew behind
/// it: the relay would take it for the duplicate it is, and what follows would build on what nobody has.
#[test]
fn d4_what_the_log_has_as_it_is_here_is_not_made_anew_behind_what_gives_way() {
    let mut replica = holder();
    give(&mut replica, set("as the log has it"));
    give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let kept = line(&replica);
    let outputs = tell(&mut replica, &welcome(false, kept.clone()));
    let sent: Vec<_> =
        ups(&outputs).into_iter().filter_map(|up| if let Up::Commit(one) = up { Some(one) } else { None }).collect();
    let [other, same] = &sent[..] else { panic!("{sent:?}") };
    let delta = same.parts.to_vec()[0].bytes.clone();
    // The other version takes the same clocks as the one here, or the next one could not stand behind it.
    let logged = Bytes::from(replica.document(ROOT).unwrap().whole());
    let hash = content_hash(same.parts.to_vec().iter().map(|part| (ROOT, part.generation, &part.bytes[..])));
    tell(&mut replica, &Down::Advance { position: Offset(3) });
    give(&mut replica, Input::Disconnected);
    let mut ring = kept[0].1.clone();
    ring.push(Row { seq: other.seq, uid: other.uid, fate: Fate::Admitted(hash ^ 1) });
    ring.push(Row { seq: same.seq, uid: same.uid, fate: Fate::Admitted(hash) });
    asked(&mut replica, vec![(0, ring)]);
    give(&mut replica, set("behind"));
    let segments = vec![(Verdict::NotGiven, alive(ROOT, vec![foreign(), logged]))].into();
    let bulk = Bulk::whole(Restored { segments, ..Restored::default() }.encode().into());
    let outputs = tell(
        &mut replica,
        &Down::Restored(RestoredFrame { offset: Offset(0), yours: true, position: Offset(4), bulk }),
    );
    let again = ups(&outputs).into_iter().filter_map(|up| if let Up::Commit(one) = up { Some(one) } else { None });
    let again: Vec<_> = again.map(|one| (one.seq, one.parts.to_vec()[0].bytes.clone())).collect();
    assert_eq!(again.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(again[1].1, delta);
    assert_ne!(again[2].1, delta);
}
