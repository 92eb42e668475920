//! R12: a segment that the engine here cannot take in stands still until the relay has looked at it; the rest goes on.

use std::collections::BTreeMap;

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT, content_hash};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::guard;
use coheap_core::heap::Index;
use coheap_core::id::{GenId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::replica::{Input, LoadStatus, Output, Replica, Section, Target};
use coheap_core::segment::Segment;
use coheap_core::segment::roll::roll_unchecked;
use coheap_core::value::Value;
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::down::{Asked, EntryFrame, Fate, Row};
use coheap_core::wire::frame::roll::{GenerationHeader, Included, RollFrame};
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Bulk, Down, PART_DELTA, PartFrame, SegRef, SegmentState, SegmentStatus, Up};

use crate::desk::{
    connect_after, connect_at, errors, give, give_at, loads, options, problems, replica, snapshot, tell, ups,
};

pub(crate) const ONE: SegmentId = SegmentId([1; 16]);
pub(crate) const TWO: SegmentId = SegmentId([2; 16]);

pub(crate) fn set(n: u32) -> Wish {
    Wish::Set { object: Handle(0), key: "n".into(), value: Literal::Scalar(Value::Number(f64::from(n))) }
}

pub(crate) fn commit(replica: &mut Replica, target: Target, wish: Wish) -> Vec<Output> {
    let sections = vec![Section { target, claim: None, wishes: vec![wish] }];
    give(replica, Input::Commit { label: String::new(), sections, size: 100, entropy: 0 })
}

pub(crate) fn commits(outputs: &[Output]) -> Vec<CommitFrame> {
    ups(outputs).into_iter().filter_map(|up| if let Up::Commit(commit) = up { Some(commit) } else { None }).collect()
}

pub(crate) fn reports(outputs: &[Output]) -> Vec<(SegRef, Offset)> {
    let reports = ups(outputs).into_iter().filter_map(|up| match up {
        Up::Report { segment, offset } => Some((segment, offset)),
        _ => None,
    });
    reports.collect()
}

/// How each segment that was told of is here now, and whether its mirror is to forget what it shows.
pub(crate) fn loaded(outputs: &[Output]) -> Vec<(Index, LoadStatus, bool)> {
    let loaded = outputs.iter().filter_map(|output| match output {
        Output::Loaded { segment, status, reset, .. } => Some((*segment, *status, *reset)),
        _ => None,
    });
    loaded.collect()
}

/// What an author makes of each segment: it is created, then set to 1, 2 and 3.
pub(crate) fn made() -> [Vec<Bytes>; 2] {
    let mut author = replica();
    connect_at(&mut author, 0, &[]);
    [(ONE, Index(1)), (TWO, Index(2))].map(|(id, index)| {
        let root = Wish::Root { value: Literal::Map(Vec::new()) };
        let mut sent = commits(&commit(&mut author, Target::New(id, EngineKind::Yrs), root));
        for n in 1..=3 {
            sent.extend(commits(&commit(&mut author, Target::Here(index), set(n))));
        }
        sent.iter().map(|frame| frame.parts.to_vec()[0].bytes.clone()).collect()
    })
}

pub(crate) fn state(id: SegmentId, deltas: &[Bytes]) -> SegmentState {
    SegmentState {
        id,
        number: Some(SegmentNumber(u64::from(id.0[0]))),
        status: SegmentStatus::Alive,
        engine: EngineKind::Yrs,
        layout: LAYOUT,
        generation: GenId::ZERO_YRS,
        header: Bytes::new(),
        snapshot: Bytes::new(),
        deltas: deltas.to_vec().into(),
    }
}

pub(crate) fn entry(offset: u64, parts: &[(SegmentId, &Bytes)]) -> Down {
    let part = |(id, bytes): &(SegmentId, &Bytes)| PartFrame {
        kind: PART_DELTA,
        segment: SegRef::Id(*id),
        generation: GenId::ZERO_YRS,
        create: None,
        bytes: (*bytes).clone(),
    };
    let parts = parts.iter().map(part).collect();
    let (offset, seq, uid) = (Offset(offset), Seq(offset + 1), Uid(offset + 1));
    Down::Entry(EntryFrame { offset, yours: false, void: false, author: 1, seq, uid, label: None, parts })
}

fn quarantine(offset: u64, at: u64, client: Option<(u64, u32)>) -> Down {
    Down::Quarantine { offset: Offset(offset), segment: SegRef::Id(ONE), at: Offset(at), client }
}

fn reload(at: u64) -> Down {
    Down::Reload { segment: SegRef::Id(ONE), at: Offset(at) }
}

/// Answers every load with what the relay has.
pub(crate) fn answer(
    replica: &mut Replica,
    asked: &[Output],
    position: u64,
    has: &[(SegmentId, &[Bytes])],
) -> Vec<Output> {
    let mut out = Vec::new();
    for up in ups(asked) {
        let Up::Load { segment: SegRef::Id(id), nonce, .. } = up else { continue };
        let deltas = has.iter().find(|(of, _)| *of == id).map(|(_, deltas)| *deltas).unwrap_or_default();
        out.extend(tell(replica, &snapshot(nonce, position, &state(id, deltas))));
    }
    out
}

fn client_of(delta: &[u8]) -> u64 {
    guard::structure(guard::Engine::Yrs, delta).unwrap().own.unwrap().client
}

/// A replica that has both segments as they were created, at position 2.
pub(crate) fn with_both(made: &[Vec<Bytes>; 2]) -> Replica {
    let mut replica = Replica::new(options(9));
    connect_at(&mut replica, 2, &[]);
    tell(
        &mut replica,
        &Down::Author { number: 1, replica: ReplicaId([5; 16]), name: String::new(), subject: String::new() },
    );
    let asked = give(&mut replica, Input::Load(vec![(ONE, false), (TWO, false)]));
    let told = answer(&mut replica, &asked, 2, &[(ONE, &made[0][..1]), (TWO, &made[1][..1])]);
    assert_eq!(loaded(&told), [(Index(1), LoadStatus::There, false), (Index(2), LoadStatus::There, false)]);
    replica
}

/// The same, frozen by entry 2: its part of ONE builds on what nobody has.
fn frozen(made: &[Vec<Bytes>; 2]) -> Replica {
    let mut replica = with_both(made);
    tell(&mut replica, &entry(2, &[(ONE, &made[0][2]), (TWO, &made[1][1])]));
    replica
}

pub(crate) fn value(replica: &mut Replica, id: SegmentId) -> Option<String> {
    let bytes = replica.document(id)?.encode();
    let mut copy = Segment::decode(id, EngineKind::Yrs, GenId::ZERO_YRS, 1, &bytes, &[]).unwrap();
    Some(format!("{:?}", copy.show()))
}

#[test]
fn r12_a_part_that_the_engine_cannot_take_in_stops_its_segment_and_nothing_else() {
    let made = made();
    let mut replica = with_both(&made);
    let told = tell(&mut replica, &entry(2, &[(ONE, &made[0][2]), (TWO, &made[1][1])]));
    // The rest of the commit is shown in its one step, and the cut goes on.
    let shown = told.iter().filter_map(|output| match output {
        Output::Apply { offset, segments, .. } => Some((offset.0, segments.iter().map(|(index, _)| *index).collect())),
        _ => None,
    });
    assert_eq!(shown.collect::<Vec<(u64, Vec<Index>)>>(), [(2, vec![Index(2)])]);
    assert_eq!(replica.cut(), Offset(3));
    assert_eq!(
        (problems(&told), loaded(&told)),
        (vec!["ERR_QUARANTINED"], vec![(Index(1), LoadStatus::Quarantined, false)])
    );
    assert_eq!(reports(&told), [(SegRef::Id(ONE), Offset(2))]);
    // What comes for it is passed over; the other one goes on.
    let told = tell(&mut replica, &entry(3, &[(ONE, &made[0][3]), (TWO, &made[1][2])]));
    assert!(matches!(told[..], [Output::Apply { .. }]), "{told:?}");
    assert_eq!(errors(&commit(&mut replica, Target::Here(Index(1)), set(7))), ["ERR_QUARANTINED"]);
    assert_eq!(errors(&commit(&mut replica, Target::Here(Index(2)), set(7))), [] as [&str; 0]);
    assert_eq!(loaded(&give(&mut replica, Input::Load(vec![(ONE, false)])))[0].1, LoadStatus::Quarantined);
}

#[test]
fn r12_it_is_reported_again_on_every_connection_until_the_relay_answers() {
    let made = made();
    let mut replica = frozen(&made);
    for _ in 0..2 {
        give(&mut replica, Input::Disconnected);
        assert_eq!(reports(&connect_at(&mut replica, 3, &[])), [(SegRef::Id(ONE), Offset(2))]);
    }
    // In another instance, too.
    give(&mut replica, Input::Disconnected);
    let mut replica = Replica::import(options(8), &replica.export()).unwrap();
    while replica.poll().is_some() {}
    assert_eq!(reports(&connect_at(&mut replica, 3, &[])), [(SegRef::Id(ONE), Offset(2))]);
    let told = tell(&mut replica, &reload(2));
    let told = answer(&mut replica, &told, 3, &[(ONE, &made[0][..3])]);
    assert_eq!(loaded(&told), [(Index(1), LoadStatus::There, false)]);
    give(&mut replica, Input::Disconnected);
    assert_eq!(reports(&connect_at(&mut replica, 3, &[])), []);
}

/// On this connection, which came later, nobody follows it: the entry that says what is left out does not come by.
#[test]
fn r12_what_the_relay_had_no_time_for_is_reported_again_later() {
    let mut replica = frozen(&made());
    give(&mut replica, Input::Disconnected);
    connect_at(&mut replica, 3, &[]);
    for code in [Code::Unsupported, Code::Rate] {
        let code = u64::from(code.number());
        tell(&mut replica, &Down::Declined { asked: Asked::Report, nonce: Nonce(2), code });
    }
    let at = replica.deadline().expect("it is to be asked again");
    assert_eq!(reports(&give_at(&mut replica, at - 1, Input::Tick)), []);
    assert_eq!(reports(&give_at(&mut replica, at, Input::Tick)), [(SegRef::Id(ONE), Offset(2))]);
    assert_eq!(replica.deadline(), None);
    let code = u64::from(Code::Unsupported.number());
    tell(&mut replica, &Down::Declined { asked: Asked::Report, nonce: Nonce(2), code });
    assert_eq!(replica.deadline(), None, "without a worker it waits for the next connection");
}

/// A program has one timer: whatever is put off last, it is set to what comes first.
#[test]
fn r12_r11_what_is_put_off_later_does_not_put_off_what_comes_first() {
    let code = u64::from(Code::Rate.number());
    let busy = Down::Busy { owner: 0, seq: Seq(1), code, retry_ms: 1_000 };
    let declined = Down::Declined { asked: Asked::Report, nonce: Nonce(2), code };
    for frames in [[&busy, &declined], [&declined, &busy]] {
        let mut replica = frozen(&made());
        let outputs = frames.map(|frame| tell(&mut replica, frame)).concat();
        let set =
            outputs.iter().rev().find_map(|output| if let Output::Deadline(at) = output { Some(*at) } else { None });
        assert!(set.is_some() && set == replica.deadline(), "{outputs:?}");
        assert_eq!(reports(&give_at(&mut replica, set.unwrap_or_default(), Input::Tick)), [], "that is the Busy's");
        assert!(replica.deadline() > set, "the other one is still to come");
    }
}

#[test]
fn r12_when_the_relay_takes_it_in_or_leaves_it_out_the_segment_is_loaded_anew_under_its_old_handles() {
    let made = made();
    for answered in [reload(2), quarantine(3, 2, Some((client_of(&made[0][1]), 0)))] {
        let mut replica = frozen(&made);
        let before = replica.document(TWO).map(|document| document.encode());
        let told = tell(&mut replica, &answered);
        assert_eq!(loaded(&told), []);
        let left = if matches!(answered, Down::Reload { .. }) { &made[0][..3] } else { &made[0][..1] };
        let told = answer(&mut replica, &told, 4, &[(ONE, left)]);
        assert_eq!(loaded(&told), [(Index(1), LoadStatus::There, true)], "onto the mirror that is there");
        assert_eq!(problems(&told), [] as [&str; 0]);
        let value = value(&mut replica, ONE).unwrap();
        assert_eq!(value.contains("Number(2.0)"), left.len() == 3, "{value}");
        assert_eq!(replica.document(TWO).map(|document| document.encode()), before);
        // It is written to again.
        assert_eq!(errors(&commit(&mut replica, Target::Here(Index(1)), set(9))), [] as [&str; 0]);
    }
}

#[test]
fn r12_who_took_in_what_is_left_out_loads_the_segment_anew_and_shows_it_until_then() {
    let made = made();
    let mut replica = with_both(&made);
    tell(&mut replica, &entry(2, &[(ONE, &made[0][1])]));
    let told = tell(&mut replica, &quarantine(3, 2, Some((client_of(&made[0][1]), 0))));
    assert_eq!((loaded(&told), replica.cut()), (vec![], Offset(4)));
    assert!(
        value(&mut replica, ONE).unwrap().contains("Number(1.0)"),
        "what was shown is shown until the other one is here"
    );
    let told = answer(&mut replica, &told, 4, &[(ONE, &made[0][..1])]);
    assert_eq!(loaded(&told), [(Index(1), LoadStatus::There, true)]);
    assert!(!value(&mut replica, ONE).unwrap().contains("Number(1.0)"));
}

/// Its author took it in: what it has not saved and builds on that is made anew as another client id, and goes on in its line.
#[test]
fn r12_its_author_makes_anew_what_is_not_saved_and_goes_on_as_another_client_id() {
    let mut author = replica();
    let id = author.id();
    connect_at(&mut author, 0, &[]);
    let root = Wish::Root { value: Literal::Map(Vec::new()) };
    let first = commits(&commit(&mut author, Target::New(ONE, EngineKind::Yrs), root)).remove(0);
    tell(&mut author, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    let second = commits(&commit(&mut author, Target::Here(Index(1)), set(1))).remove(0);
    let own = Down::Entry(EntryFrame {
        offset: Offset(1),
        yours: true,
        void: false,
        author: 1,
        seq: second.seq,
        uid: second.uid,
        label: None,
        parts: Vec::new().into(),
    });
    tell(&mut author, &Down::Author { number: 1, replica: id, name: String::new(), subject: String::new() });
    // In the log, and not acknowledged yet; the next one is not in the log.
    tell(&mut author, &own);
    let third = commits(&commit(&mut author, Target::Here(Index(1)), set(2))).remove(0);
    let client = client_of(&second.parts.to_vec()[0].bytes);
    assert_eq!(client_of(&third.parts.to_vec()[0].bytes), client);
    let told = tell(&mut author, &quarantine(2, 1, Some((client, 0))));
    assert_eq!((problems(&told), commits(&told)), (vec!["ERR_QUARANTINED"], vec![]));
    let told = answer(&mut author, &told, 3, &[(ONE, &[first.parts.to_vec()[0].bytes.clone()])]);
    let again = commits(&told);
    assert_eq!(again.iter().map(|frame| (frame.seq, frame.uid)).collect::<Vec<_>>(), [(third.seq, third.uid)]);
    let summary = guard::structure(guard::Engine::Yrs, &again[0].parts.to_vec()[0].bytes).unwrap();
    assert!(
        summary.own.unwrap().client != client && summary.named.is_empty(),
        "it builds on nothing of it: {summary:?}"
    );
    // What was left out is in no document of its own either; it is acknowledged like any other.
    let value = value(&mut author, ONE).unwrap();
    assert!(value.contains("Number(2.0)") && !value.contains("Number(1.0)"), "{value}");
    // A new connection, whose ring has it as it was sent, changes nothing.
    give(&mut author, Input::Disconnected);
    let hash = |frame: &CommitFrame| {
        content_hash([(ONE, frame.parts.to_vec()[0].generation, &frame.parts.to_vec()[0].bytes[..])].into_iter())
    };
    let row = |frame: &CommitFrame| Row { seq: frame.seq, uid: frame.uid, fate: Fate::Admitted(hash(frame)) };
    let told = connect_after(&mut author, 3, &[], vec![row(&first), row(&second)]);
    assert_eq!((loads(&told), commits(&told).len()), (vec![], 2));
    assert!(!self::value(&mut author, ONE).unwrap().contains("Number(1.0)"));
    tell(&mut author, &Down::Ack { owner: 0, seq: second.seq, position: Offset(3) });
    assert_eq!(author.unsaved(), 1);
}

#[test]
fn r12_what_fails_again_and_again_here_alone_is_given_up() {
    let made = made();
    let mut replica = frozen(&made);
    for tries in 1..=8 {
        let asked = tell(&mut replica, &reload(2));
        // The relay takes it in, it says; what it sends still builds on what is not there.
        let told = answer(&mut replica, &asked, 4, &[(ONE, &[made[0][0].clone(), made[0][2].clone()])]);
        assert_eq!(loaded(&told), [(Index(1), LoadStatus::Quarantined, false)]);
        let expected = if tries < 8 { vec![(SegRef::Id(ONE), Offset(3))] } else { Vec::new() };
        assert_eq!(reports(&told), expected, "try {tries}");
    }
    assert_eq!(tell(&mut replica, &reload(2)).len(), 0);
    give(&mut replica, Input::Disconnected);
    assert_eq!(reports(&connect_at(&mut replica, 4, &[])), []);
}

/// What is not saved does not stand on what the relay has any more, and why passed this replica by: it is made anew.
#[test]
fn r12_what_is_not_saved_and_fits_nowhere_any_more_is_made_anew() {
    let made = made();
    let mut replica = with_both(&made);
    let mine = commits(&commit(&mut replica, Target::Here(Index(1)), set(5))).remove(0);
    let next = commits(&commit(&mut replica, Target::Here(Index(1)), set(6))).remove(0);
    tell(&mut replica, &Down::Ack { owner: 0, seq: mine.seq, position: Offset(3) });
    tell(&mut replica, &entry(3, &[(ONE, &made[0][2])]));
    let told = tell(&mut replica, &reload(3));
    let told = answer(&mut replica, &told, 5, &[(ONE, &made[0][..1])]);
    assert_eq!(loaded(&told), [(Index(1), LoadStatus::There, true)]);
    let again = commits(&told).remove(0);
    assert_eq!((again.seq, again.uid), (next.seq, next.uid));
    assert_ne!(again.parts.to_vec()[0].bytes, next.parts.to_vec()[0].bytes);
    assert!(value(&mut replica, ONE).unwrap().contains("Number(6.0)"));
}

#[test]
fn r11_what_lies_behind_a_refused_commit_waits_for_a_segment_that_stands_still() {
    let made = made();
    let mut replica = with_both(&made);
    let mine = commits(&commit(&mut replica, Target::Here(Index(1)), set(5))).remove(0);
    let next = commits(&commit(&mut replica, Target::Here(Index(1)), set(6))).remove(0);
    let last = commits(&commit(&mut replica, Target::Here(Index(2)), set(7))).remove(0);
    tell(&mut replica, &entry(2, &[(ONE, &made[0][2])]));
    let code = u64::from(Code::NoRight.number());
    let told = tell(&mut replica, &Down::Refused { owner: 0, seq: mine.seq, uid: mine.uid, position: Offset(3), code });
    assert_eq!(commits(&told), [], "it would go out as it was, on what was undone");
    assert_eq!(commits(&tell(&mut replica, &entry(3, &[(TWO, &made[1][1])]))), []);
    let told = tell(&mut replica, &reload(2));
    assert_eq!(commits(&told), []);
    let told = answer(&mut replica, &told, 4, &[(ONE, &made[0][..1])]);
    let again = commits(&told);
    let uids: Vec<Uid> = again.iter().map(|frame| frame.uid).collect();
    assert_eq!(uids, [next.uid, last.uid]);
    assert_eq!(again[0].prev, Some(mine.uid.voided()));
    let delta = |frame: &CommitFrame| frame.parts.to_vec()[0].bytes.clone();
    assert_ne!(client_of(&delta(&again[0])), client_of(&delta(&next)), "made anew, as another client");
    assert_eq!(delta(&again[1]), delta(&last));
}

/// A new generation of ONE, of these deltas; of the line nothing is in it.
fn rolled(offset: u64, deltas: &[Bytes], line: ReplicaId) -> Down {
    let (generation, parent) = (GenId::drawn(ONE, [1, 2, 3]), GenId::ZERO_YRS);
    let snapshot = roll_unchecked(EngineKind::Yrs, ONE, &[], deltas, generation).unwrap().unwrap();
    let included = BTreeMap::from([(line, Included { last: Seq(0), voids: Vec::new() })]).into();
    let header = GenerationHeader { generation, parent, partial: false, included }.encode().into();
    let mut bulk = Vec::new();
    SegmentState { generation, snapshot, ..state(ONE, &[]) }.encode(&mut bulk);
    Down::Roll(RollFrame { offset: Offset(offset), header, bulk: Bulk::whole(bulk.into()) })
}

#[test]
fn g3_what_is_frozen_is_to_be_had_again_with_the_next_generation() {
    let made = made();
    for thaws in [false, true] {
        let mut replica = with_both(&made);
        let own = commits(&commit(&mut replica, Target::Here(Index(1)), set(7))).remove(0);
        tell(&mut replica, &entry(2, &[(ONE, &made[0][2])]));
        assert!(value(&mut replica, ONE).is_none());
        let asked = if thaws { loads(&tell(&mut replica, &reload(2))) } else { Vec::new() };
        assert_eq!(asked.len(), usize::from(thaws));
        let id = replica.id();
        let told = tell(&mut replica, &rolled(3, &made[0][..1], id));
        assert_eq!(loaded(&told), [(Index(1), LoadStatus::There, true)], "onto the mirror that is there");
        assert_eq!(problems(&told), [] as [&str; 0]);
        assert_eq!(replica.cut(), Offset(4));
        // What was not saved goes along.
        let sent = commits(&told);
        assert_eq!(sent.iter().map(|frame| frame.uid).collect::<Vec<_>>(), [own.uid]);
        assert_eq!(sent[0].parts.to_vec()[0].generation, GenId::drawn(ONE, [1, 2, 3]));
        assert_eq!(errors(&commit(&mut replica, Target::Here(Index(1)), set(9))), [] as [&str; 0]);
        // The answer to what was asked for before means nothing.
        for nonce in asked {
            let late = tell(&mut replica, &snapshot(nonce, 3, &state(ONE, &made[0][..1])));
            assert!(late.is_empty(), "{late:?}");
        }
        // It may go and come like any other.
        tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(2), position: Offset(6) });
        give(&mut replica, Input::Evict(Index(1)));
        assert_eq!(loads(&give(&mut replica, Input::Load(vec![(ONE, false)]))).len(), 1);
        give(&mut replica, Input::Disconnected);
        assert_eq!(reports(&connect_at(&mut replica, 4, &[])), []);
    }
}
