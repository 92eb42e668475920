//! D4, D5 at the replica: generations that are given back to a log that has lost them, or stay what they are.

use std::collections::BTreeMap;

use bytes::Bytes;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{EpochId, GenId, Offset, SegmentId, SegmentNumber, Seq};
use coheap_core::replica::{Input, Output, Replica, Section, Target, WaitKind};
use coheap_core::segment::roll::roll_unchecked;
use coheap_core::value::Value;
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::down::{Fate, Row, Welcome};
use coheap_core::wire::frame::restore::{Restore, Restored, RestoredFrame, Verdict};
use coheap_core::wire::frame::roll::{GenerationHeader, Included, RollFrame};
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Bulk, Down, SegRef, SegmentState, SegmentStatus, Up};

use crate::desk::{alive, connect, connect_at, give, loads, ok, replica, snapshot, tell, unknown, ups};

const ROOT: SegmentId = SegmentId::ROOT;
const YRS: EngineKind = EngineKind::Yrs;

fn set(key: &str) -> Input {
    let wish = Wish::Set { object: Handle(0), key: key.into(), value: Literal::Scalar(Value::Bool(true)) };
    let sections = vec![Section { target: Target::Here(Index(0)), claim: None, wishes: vec![wish] }];
    Input::Commit { label: String::new(), sections, size: 10, entropy: 0 }
}

/// A replica with an empty root here.
fn here() -> Replica {
    let mut replica = replica();
    connect(&mut replica);
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ROOT, true)])))[0];
    tell(&mut replica, &snapshot(nonce, 0, &unknown(ROOT)));
    replica
}

fn commits(outputs: &[Output]) -> Vec<CommitFrame> {
    ups(outputs).into_iter().filter_map(|up| if let Up::Commit(frame) = up { Some(frame) } else { None }).collect()
}

fn generation() -> GenId {
    GenId::drawn(ROOT, [1, 2, 3])
}

/// A generation of these commits that was given back by somebody who knew this of the lines.
fn adopted(of: &[&CommitFrame], partial: bool, lines: &[(&Replica, u64)]) -> SegmentState {
    let deltas: Vec<Bytes> = of.iter().map(|frame| frame.parts.to_vec()[0].bytes.clone()).collect();
    let snapshot = roll_unchecked(YRS, ROOT, &[], &deltas, generation()).unwrap().unwrap();
    let line = |(replica, last): &(&Replica, u64)| (replica.id(), Included { last: Seq(*last), voids: Vec::new() });
    let included = lines.iter().map(line).collect::<BTreeMap<_, _>>().into();
    let (generation, parent) = (generation(), YRS.generation_zero());
    let header = GenerationHeader { generation, parent, partial, included }.encode().into();
    let (number, status) = (Some(SegmentNumber(0)), SegmentStatus::Alive);
    SegmentState { number, status, generation, header, snapshot, ..unknown(ROOT) }
}

fn restored(verdict: Verdict, state: SegmentState, yours: bool, offset: u64) -> Down {
    restored_all(vec![(verdict, state)], yours, offset)
}

fn restored_all(segments: Vec<(Verdict, SegmentState)>, yours: bool, offset: u64) -> Down {
    let bulk = Bulk::whole(Restored { segments: segments.into(), ..Restored::default() }.encode().into());
    Down::Restored(RestoredFrame { offset: Offset(offset), yours, position: Offset(offset + 1), bulk })
}

fn shows(replica: &mut Replica) -> Vec<&'static str> {
    let values = format!("{:?}", replica.document(ROOT).unwrap().values());
    ["one", "two", "three"].into_iter().filter(|key| values.contains(&format!(".{key}\""))).collect()
}

fn in_doubt(outputs: &[Output]) -> Vec<u64> {
    let told = outputs.iter().filter_map(|output| if let Output::InDoubt(told) = output { Some(told) } else { None });
    told.flatten().map(|one| one.seq.0).collect()
}

#[test]
fn d5_others_go_over_to_a_generation_that_was_adopted_as_by_a_roll() {
    let mut replica = here();
    let (one, two) =
        (commits(&give(&mut replica, set("one"))).remove(0), commits(&give(&mut replica, set("two"))).remove(0));
    let state = adopted(&[&one, &two], true, &[(&replica, 2)]);
    let outputs = tell(&mut replica, &restored(Verdict::Merged, state, false, 0));
    assert_eq!((in_doubt(&outputs), commits(&outputs).len()), (vec![], 0), "both are in");
    assert_eq!((replica.cut(), replica.unsaved(), shows(&mut replica)), (Offset(1), 2, vec!["one", "two"]));
    assert_eq!(replica.document(ROOT).unwrap().generation(), generation());
    // A load that is under way ends with it.
    let mut loading = crate::desk::replica();
    connect(&mut loading);
    give(&mut loading, Input::Load(vec![(ROOT, true)]));
    let state = adopted(&[&one], true, &[]);
    tell(&mut loading, &restored(Verdict::Merged, state, false, 0));
    assert_eq!(shows(&mut loading), ["one"]);
}

/// G4 and D4: the relay lost the lines, and who gave the generation back had only its own.
#[test]
fn d4_of_what_was_sent_and_is_in_no_line_nobody_can_say_whether_it_is_in() {
    for (partial, row, doubtful, again) in [(true, 1, vec![2, 3, 4], 0), (false, 1, vec![], 3), (true, 3, vec![], 1)] {
        let mut replica = here();
        let one = commits(&give(&mut replica, set("one"))).remove(0);
        let two = commits(&give(&mut replica, set("two"))).remove(0);
        give(&mut replica, set("three"));
        let waits = give(&mut replica, Input::Wait { ticket: 5, kind: WaitKind::Flush });
        assert!(waits.is_empty());
        // The relay has lost all of that, and goes on; somebody who has it comes later.
        give(&mut replica, Input::Disconnected);
        later(&mut replica);
        // It first went out in the new life: in no log that is lost.
        assert_eq!(commits(&give(&mut replica, set("fresh"))).len(), 1);
        let state = adopted(&[&one, &two], partial, &[(&replica, row)]);
        let outputs = tell(&mut replica, &restored(Verdict::Merged, state.clone(), false, 0));
        assert_eq!((in_doubt(&outputs), commits(&outputs).len()), (doubtful.clone(), again));
        let forked = outputs.iter().any(|output| matches!(output, Output::Forked { .. }));
        let failed = outputs.iter().any(|output| matches!(output, Output::Failed { ticket: 5, .. }));
        assert_eq!((forked, failed), (!doubtful.is_empty(), !doubtful.is_empty()));
        if doubtful.is_empty() {
            continue;
        }
        // The first stays what it was, in its line. What was in doubt is shown if the generation has it.
        let outputs = connect_at(&mut replica, 1, std::slice::from_ref(&state));
        let sent: Vec<_> =
            commits(&outputs).iter().map(|frame| (frame.owner, frame.seq.0, frame.parts.len())).collect();
        assert_eq!((sent, replica.unsaved()), (vec![(1, 1, 0)], 1));
        assert_eq!(shows(&mut replica), ["one", "two"]);
    }
}

/// A connection to the log's next life, whose relay asks for nothing.
fn later(replica: &mut Replica) {
    give(replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let Down::Ok(welcome) = ok(0, Vec::new(), &[]) else { panic!() };
    let epochs = vec![(EpochId::default(), Offset(0)), (EpochId { counter: 7, random: 77 }, Offset(0))];
    tell(replica, &Down::Ok(Welcome { epochs, ..welcome }));
}

#[test]
fn g3_what_never_went_out_is_in_no_generation_whoever_gave_it_back() {
    let mut replica = here();
    give(&mut replica, Input::Disconnected);
    give(&mut replica, set("one"));
    let state = adopted(&[], true, &[]);
    let outputs = connect_at(&mut replica, 1, &[state]);
    assert_eq!(in_doubt(&outputs), [0; 0]);
    let sent = commits(&outputs);
    assert_eq!((sent.len(), sent[0].parts.to_vec()[0].generation), (1, generation()));
    assert_eq!(shows(&mut replica), ["one"]);
}

/// It comes to a relay that has lost everything; what it gives back.
fn asked(replica: &mut Replica) -> Restore {
    asked_with(replica, EpochId { counter: 7, random: 77 }, Vec::new())
}

/// It comes to a relay that has lost some of its log, and has these commits of the replica; what it gives back.
fn asked_after(replica: &mut Replica, own: Vec<Row>) -> Restore {
    asked_with(replica, EpochId { counter: 7, random: 77 }, own)
}

fn asked_in(replica: &mut Replica, new: EpochId) -> Restore {
    asked_with(replica, new, Vec::new())
}

fn asked_with(replica: &mut Replica, new: EpochId, own: Vec<Row>) -> Restore {
    let said = ups(&give(replica, Input::Connected { token: String::new(), entropy: [0; 4] }));
    assert!(matches!(said[..], [Up::Hello(_)]), "{said:?}");
    let ring = if own.is_empty() { Vec::new() } else { vec![(0, own)] };
    let Down::Ok(welcome) = ok(0, ring, &[]) else { panic!() };
    let epochs = vec![(new, Offset(0))];
    let frames = ups(&tell(replica, &Down::Ok(Welcome { restore: true, lineage: new, epochs, ..welcome })));
    let Some(Up::Restore(bulk)) = frames.iter().find(|up| matches!(up, Up::Restore(_))) else { panic!("{frames:?}") };
    Restore::decode(&bulk.bytes).unwrap()
}

/// A replica that went over to a generation with its first commit, whose second is not acknowledged.
fn rolled() -> (Replica, CommitFrame) {
    let mut replica = here();
    let one = commits(&give(&mut replica, set("one"))).remove(0);
    tell(&mut replica, &Down::Advance { position: Offset(1) });
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    let state = adopted(&[&one], false, &[(&replica, 1)]);
    let mut bulk = Vec::new();
    SegmentState { header: Bytes::new(), ..state.clone() }.encode(&mut bulk);
    tell(
        &mut replica,
        &Down::Roll(RollFrame { offset: Offset(1), header: state.header, bulk: Bulk::whole(bulk.into()) }),
    );
    give(&mut replica, set("two"));
    give(&mut replica, Input::Disconnected);
    assert_eq!((replica.cut(), replica.unsaved()), (Offset(2), 1));
    (replica, one)
}

#[test]
fn d4_a_generation_is_given_back_with_its_header_and_the_verdict_changes_nothing() {
    let (mut replica, one) = rolled();
    let given = asked(&mut replica).segments.to_vec().remove(0);
    let header = GenerationHeader::decode(&given.header).unwrap();
    assert_eq!((given.generation, header.generation), (generation(), generation()));
    assert!(header.includes(replica.id(), Seq(1), one.uid));
    let state = SegmentState { deltas: vec![given.state].into(), ..adopted(&[&one], true, &[(&replica, 1)]) };
    let outputs = tell(&mut replica, &restored(Verdict::Merged, state, true, 0));
    assert!(!outputs.iter().any(|output| matches!(output, Output::Conflict(_) | Output::InDoubt(_))), "{outputs:?}");
    let sent = commits(&outputs);
    assert_eq!((sent.len(), sent[0].seq, sent[0].parts.to_vec()[0].generation), (1, Seq(2), generation()));
    assert_eq!(shows(&mut replica), ["one", "two"]);
}

fn hash_of(frame: &CommitFrame) -> u64 {
    content_hash(frame.parts.to_vec().iter().map(|part| (ROOT, part.generation, &part.bytes[..])))
}

/// What only the lost log had of a commit is not what this log has: it takes in what is left of it.
#[test]
fn d4_a_commit_that_an_adopted_generation_has_is_given_back_as_the_log_has_taken_it_in() {
    let mut replica = here();
    let one = commits(&give(&mut replica, set("one"))).remove(0);
    let state = adopted(&[&one], true, &[(&replica, 1)]);
    tell(&mut replica, &restored(Verdict::Merged, state.clone(), false, 0));
    give(&mut replica, Input::Disconnected);
    let sent = commits(&connect_at(&mut replica, 1, std::slice::from_ref(&state)));
    assert_eq!((sent.len(), sent[0].parts.len()), (1, 0));
    tell(&mut replica, &Down::Advance { position: Offset(2) });
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(2) });
    give(&mut replica, Input::Disconnected);
    assert_eq!(asked(&mut replica).known, [(0, Seq(1), one.uid, hash_of(&sent[0]))]);
}

#[test]
fn d4_a_commit_with_parts_in_a_generation_is_given_back_as_the_log_has_it_or_will() {
    for (logged, acked) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut replica = here();
        let one = commits(&give(&mut replica, set("one"))).remove(0);
        // The Roll that has it came, its Ack did not.
        let state = adopted(&[&one], false, &[(&replica, 1)]);
        let mut bulk = Vec::new();
        SegmentState { header: Bytes::new(), ..state.clone() }.encode(&mut bulk);
        let bulk = Bulk::whole(bulk.into());
        tell(&mut replica, &Down::Roll(RollFrame { offset: Offset(1), header: state.header.clone(), bulk }));
        give(&mut replica, Input::Disconnected);
        // What the relay still has of the lost log reaches to the commit, or not.
        let row = Row { seq: Seq(1), uid: one.uid, fate: Fate::Admitted(hash_of(&one)) };
        let row = || if logged { vec![row] } else { Vec::new() };
        let nothing = CommitFrame { parts: Vec::new().into(), ..one.clone() };
        let has = if logged { hash_of(&one) } else { hash_of(&nothing) };
        let mut restore = asked_after(&mut replica, row());
        if acked {
            let outputs = tell(&mut replica, &restored(Verdict::Merged, state, true, 0));
            assert_eq!(commits(&outputs).iter().map(|frame| frame.parts.len()).collect::<Vec<_>>(), [0]);
            tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(2) });
            assert_eq!(replica.unsaved(), 0);
            give(&mut replica, Input::Disconnected);
            restore = asked(&mut replica);
        }
        assert_eq!(restore.known, [(0, Seq(1), one.uid, has)], "logged {logged}, acknowledged {acked}");
    }
}

/// §14.3: one side loses its place, and the program gets it as a copy.
#[test]
fn d4_what_stays_different_at_the_relay_is_told_before_it_takes_the_place() {
    let (mut replica, _) = rolled();
    asked(&mut replica);
    let outputs = tell(&mut replica, &restored(Verdict::Conflict, alive(ROOT, Vec::new()), true, 0));
    let place = |of: fn(&Output) -> bool| outputs.iter().position(of);
    let told = place(|output| matches!(output, Output::Conflict(Index(0))));
    let loaded = place(|output| matches!(output, Output::Loaded { reset: true, .. }));
    assert!(told.is_some() && told < loaded, "{outputs:?}");
    // What nobody had acknowledged is made anew on what the relay has.
    let sent = commits(&outputs);
    assert_eq!((sent.len(), sent[0].parts.to_vec()[0].generation), (1, YRS.generation_zero()));
    assert_eq!(shows(&mut replica), ["two"]);
}

const OTHER: SegmentId = SegmentId([4; 16]);

/// A replica with two segments, whose first commit is acknowledged, the second sent, and the third, to both, never sent.
fn with_two_segments() -> (Replica, CommitFrame) {
    let mut replica = here();
    let nonce = loads(&give(&mut replica, Input::Load(vec![(OTHER, true)])))[0];
    tell(&mut replica, &snapshot(nonce, 0, &unknown(OTHER)));
    let one = commits(&give(&mut replica, set("one"))).remove(0);
    tell(&mut replica, &Down::Advance { position: Offset(1) });
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    assert_eq!(commits(&give(&mut replica, set("two"))).len(), 1);
    give(&mut replica, Input::Disconnected);
    let wish = Wish::Set { object: Handle(0), key: "three".into(), value: Literal::Scalar(Value::Bool(true)) };
    let section = |index| Section { target: Target::Here(Index(index)), claim: None, wishes: vec![wish.clone()] };
    give(
        &mut replica,
        Input::Commit { label: String::new(), sections: vec![section(0), section(1)], size: 10, entropy: 0 },
    );
    (replica, one)
}

/// What it gave back of the other segment, as the relay has it then.
fn taken(given: &Restore) -> SegmentState {
    let held = given.segments.to_vec().into_iter().find(|held| held.id == OTHER).unwrap();
    SegmentState { number: Some(SegmentNumber(1)), ..alive(OTHER, vec![held.state]) }
}

/// The segments that each commit touches that it sends on its next connection.
fn sent_again(replica: &mut Replica, states: &[SegmentState]) -> Vec<(u64, u64, Vec<SegRef>)> {
    let outputs = connect_at(replica, 1, states);
    let touched = |frame: &CommitFrame| frame.parts.to_vec().iter().map(|part| part.segment).collect();
    commits(&outputs).iter().map(|frame| (frame.owner, frame.seq.0, touched(frame))).collect()
}

/// D4, P6, X25: the relay takes a Restore segment by segment. What it has taken of a commit that has to go to another line, since
/// one before it is in doubt, is there already.
#[test]
fn d4_what_was_taken_of_a_commit_is_not_made_anew_in_another_line() {
    for moves in [false, true] {
        let (mut replica, one) = with_two_segments();
        let there = taken(&asked(&mut replica));
        // Another one's generation came first, and knows the first commit.
        let root = adopted(&[&one], true, &[(&replica, 1)]);
        let verdicts = vec![(Verdict::Merged, there.clone()), (Verdict::Conflict, root.clone())];
        let outputs = tell(&mut replica, &restored_all(verdicts, true, 0));
        assert_eq!(in_doubt(&outputs), [2]);
        if moves {
            replica = Replica::import(crate::desk::options(9), &replica.export()).unwrap();
            while replica.poll().is_some() {}
        }
        let sent = sent_again(&mut replica, &[root, there]);
        assert_eq!(sent, [(1, 1, vec![SegRef::Id(ROOT)])]);
        assert_eq!(shows(&mut replica), ["one", "three"]);
        let values = format!("{:?}", replica.document(OTHER).unwrap().values());
        assert!(values.contains(".three\""), "{values}");
    }
}

/// The next instance of the process knows it, too: the log goes on, and no longer knows the line (G5).
#[test]
fn d4_what_was_taken_of_a_commit_is_not_made_anew_by_another_instance() {
    let (mut replica, _) = with_two_segments();
    let given = asked(&mut replica);
    let (there, root) = (taken(&given), given.segments.to_vec().into_iter().find(|held| held.id == ROOT).unwrap());
    let root = SegmentState { number: Some(SegmentNumber(0)), ..alive(ROOT, vec![root.state]) };
    is_busy(&mut replica);
    let verdicts = vec![(Verdict::NotGiven, root.clone()), (Verdict::Merged, there.clone())];
    assert_eq!(commits(&tell(&mut replica, &restored_all(verdicts, true, 0))).len(), 0);
    give(&mut replica, Input::Disconnected);
    replica = Replica::import(crate::desk::options(9), &replica.export()).unwrap();
    while replica.poll().is_some() {}
    give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let Down::Ok(welcome) = ok(1, Vec::new(), &[root.clone(), there.clone()]) else { panic!() };
    let epochs = vec![(EpochId { counter: 7, random: 77 }, Offset(0))];
    let outputs = tell(&mut replica, &Down::Ok(Welcome { epochs, ..welcome }));
    assert_eq!(in_doubt(&outputs), [2]);
    assert_eq!(sent_again(&mut replica, &[root, there]), [(1, 1, vec![SegRef::Id(ROOT)])]);
}

/// Nothing goes out yet.
fn is_busy(replica: &mut Replica) {
    let code = u64::from(Code::Restoring.number());
    tell(replica, &Down::Busy { owner: 0, seq: Seq(2), code, retry_ms: 500 });
}

/// The log that took it is lost as well. The next one takes nothing, or asks for nothing, since the replica may not write now.
#[test]
fn d4_what_was_taken_by_a_log_that_is_lost_is_made_anew() {
    for asks in [true, false] {
        what_was_taken_is_lost(asks);
    }
}

fn what_was_taken_is_lost(asks: bool) {
    let (mut replica, one) = with_two_segments();
    let given = asked(&mut replica);
    let (there, held) = (taken(&given), given.segments.to_vec());
    let root = held.into_iter().find(|held| held.id == ROOT).unwrap();
    let root = SegmentState { number: Some(SegmentNumber(0)), ..alive(ROOT, vec![root.state]) };
    is_busy(&mut replica);
    let outputs = tell(&mut replica, &restored_all(vec![(Verdict::Merged, root), (Verdict::Merged, there)], true, 0));
    assert_eq!(commits(&outputs).len(), 0);
    give(&mut replica, Input::Disconnected);
    let (root, empty) = (adopted(&[&one], true, &[(&replica, 1)]), unknown(OTHER));
    let epoch = EpochId { counter: 8, random: 88 };
    let outputs = if asks {
        asked_in(&mut replica, epoch);
        let verdicts = vec![(Verdict::Conflict, empty.clone()), (Verdict::Conflict, root.clone())];
        tell(&mut replica, &restored_all(verdicts, true, 0))
    } else {
        give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
        let Down::Ok(welcome) = ok(1, Vec::new(), &[root.clone(), empty.clone()]) else { panic!() };
        tell(&mut replica, &Down::Ok(Welcome { epochs: vec![(epoch, Offset(0))], ..welcome }))
    };
    assert_eq!(in_doubt(&outputs), [2]);
    let sent = sent_again(&mut replica, &[root, empty]);
    assert_eq!(sent, [(1, 1, vec![SegRef::Id(ROOT), SegRef::Id(OTHER)])]);
}
