//! R10, C4: what a commit of somebody else does is judged by the clocks of the document here before an engine has it.

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::guard::{Engine, structure};
use coheap_core::heap::Index;
use coheap_core::id::{GenId, Nonce, Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::replica::{Input, Output, Replica, Section, Target};
use coheap_core::segment::Segment;
use coheap_core::segment::write::Draw;
use coheap_core::value::Value;
use coheap_core::wire::frame::down::EntryFrame;
use coheap_core::wire::frame::restore::{Restored, RestoredFrame, Verdict};
use coheap_core::wire::frame::{Bulk, Down, PART_DELTA, PartFrame, SegRef, Up};

use crate::desk::{alive, connect_at, give, loads, options, problems, replica, snapshot, tell, ups};

const ONE: SegmentId = SegmentId([1; 16]);
/// Who writes what honest replicas write, and somebody else.
const AUTHORS: [ReplicaId; 2] = [ReplicaId([5; 16]), ReplicaId([6; 16])];
const NEW: Target = Target::New(ONE, EngineKind::Yrs);
const HERE: Target = Target::Here(Index(1));

struct Zero;

impl Draw for Zero {
    fn draw(&mut self) -> u64 {
        0
    }
}

fn set(n: u32) -> Wish {
    Wish::Set { object: Handle(0), key: "n".into(), value: Literal::Scalar(Value::Number(f64::from(n))) }
}

/// Commits; the delta.
fn write(replica: &mut Replica, target: Target, wish: Wish) -> Bytes {
    let sections = vec![Section { target, claim: None, wishes: vec![wish] }];
    let told = give(replica, Input::Commit { label: String::new(), sections, size: 100, entropy: 0 });
    let Some(Up::Commit(commit)) = ups(&told).pop() else { panic!("{told:?}") };
    commit.parts.iter().next().unwrap().bytes.clone()
}

/// The segment is made, and set to 1, 2 and 3; and all of that at once.
fn made() -> (Vec<Bytes>, Bytes) {
    let mut author = replica();
    connect_at(&mut author, 0, &[]);
    let mut deltas = vec![write(&mut author, NEW, Wish::Root { value: Literal::Map(Vec::new()) })];
    deltas.extend((1..=3).map(|n| write(&mut author, HERE, set(n))));
    let whole = author.document(ONE).unwrap().whole().into();
    (deltas, whole)
}

/// A replica at position 2 that has asked for the segment.
fn asking(seed: u8) -> (Replica, Nonce) {
    let mut replica = Replica::new(options(seed));
    connect_at(&mut replica, 2, &[]);
    for (number, author) in (1..).zip(AUTHORS) {
        tell(&mut replica, &Down::Author { number, replica: author, name: String::new(), subject: String::new() });
    }
    let nonce = loads(&give(&mut replica, Input::Load(vec![(ONE, false)])))[0];
    (replica, nonce)
}

/// One that has it, of these deltas.
fn with(seed: u8, deltas: &[Bytes]) -> Replica {
    let (mut replica, nonce) = asking(seed);
    tell(&mut replica, &snapshot(nonce, 2, &alive(ONE, deltas.to_vec())));
    replica
}

fn entry(offset: u64, author: u64, delta: &Bytes) -> Down {
    let (segment, generation, bytes) = (SegRef::Id(ONE), GenId::ZERO_YRS, delta.clone());
    let parts = vec![PartFrame { kind: PART_DELTA, segment, generation, create: None, bytes }];
    let (offset, seq, uid) = (Offset(offset), Seq(offset), Uid(offset));
    Down::Entry(EntryFrame { offset, yours: false, void: false, author, seq, uid, label: None, parts: parts.into() })
}

fn reports(told: &[Output]) -> Vec<Offset> {
    let report = |up| if let Up::Report { offset, .. } = up { Some(offset) } else { None };
    ups(told).into_iter().filter_map(report).collect()
}

fn said(told: &[Output]) -> String {
    let messages = told.iter().filter_map(|output| match output {
        Output::Problem { message, .. } => Some(message.as_str()),
        _ => None,
    });
    messages.collect::<Vec<_>>().join("; ")
}

/// The relay finds nothing wrong: the segment is loaded anew, of these deltas.
fn reloaded(replica: &mut Replica, at: u64, deltas: &[Bytes]) -> Vec<Output> {
    let told = tell(replica, &Down::Reload { segment: SegRef::Id(ONE), at: Offset(at) });
    let nonce = loads(&told)[0];
    tell(replica, &snapshot(nonce, at + 1, &alive(ONE, deltas.to_vec())))
}

fn shows(replica: &mut Replica, n: u32) -> bool {
    let patches = replica.document(ONE).unwrap().dump();
    format!("{patches:?}").contains(&format!("Number({n}.0)"))
}

/// A list element in the chain of the register that the first of these deltas writes: `yrs` would link it into both.
fn torn(delta: &Bytes) -> Bytes {
    let register = structure(Engine::Yrs, delta).unwrap().own.unwrap();
    let mut out = vec![1, 1, 77, 0, 0x80 | 8];
    for mut number in [register.client, register.start.into()] {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }
    out.extend_from_slice(&[1, 125, 1, 0]);
    out.into()
}

/// What does not fit, by what is said of it, behind the first two deltas: whose it is said to be, and its bytes.
fn unfit() -> (Vec<Bytes>, Vec<(&'static str, u64, Bytes)>) {
    let (deltas, whole) = made();
    let mut other = with(8, &deltas[..3]);
    let builds_on_what_is_not_here = write(&mut other, HERE, set(9));
    let unfit = vec![
        ("belongs to another owner", 2, deltas[2].clone()),
        ("do not continue", 1, deltas[3].clone()),
        // It begins below what is known and goes beyond it.
        ("do not continue", 1, whole),
        ("a clock that nobody has used", 2, builds_on_what_is_not_here),
        ("two name spaces", 2, torn(&deltas[1])),
    ];
    (deltas, unfit)
}

#[test]
fn r10_what_does_not_fit_the_clocks_reaches_no_engine_and_is_reported() {
    let (deltas, unfit) = unfit();
    for (what, author, delta) in unfit {
        let mut replica = with(9, &deltas[..1]);
        // First use binds the client.
        assert!(problems(&tell(&mut replica, &entry(2, 1, &deltas[1]))).is_empty());
        let told = tell(&mut replica, &entry(3, author, &delta));
        assert_eq!((problems(&told), reports(&told)), (vec!["ERR_QUARANTINED"], vec![Offset(3)]), "{what}");
        assert!(said(&told).contains(what), "{what}: {}", said(&told));
        assert!(!told.iter().any(|output| matches!(output, Output::Apply { .. })), "{what}: {told:?}");
        // It is to be had again as the relay has it, and what fits goes on.
        assert!(problems(&reloaded(&mut replica, 3, &deltas[..2])).is_empty());
        assert!(problems(&tell(&mut replica, &entry(4, 1, &deltas[2]))).is_empty());
        assert!(shows(&mut replica, 2), "{what}");
    }
}

#[test]
fn r10_what_comes_while_a_segment_loads_is_judged_when_it_is_there() {
    let (deltas, unfit) = unfit();
    for (what, author, delta) in unfit {
        let (mut replica, nonce) = asking(9);
        for told in [tell(&mut replica, &entry(2, 1, &deltas[1])), tell(&mut replica, &entry(3, author, &delta))] {
            assert!(told.is_empty(), "{what}: {told:?}");
        }
        let told = tell(&mut replica, &snapshot(nonce, 2, &alive(ONE, deltas[..1].to_vec())));
        assert!(reports(&told) == [Offset(3)] && said(&told).contains(what), "{what}: {told:?}");
        assert!(problems(&reloaded(&mut replica, 3, &deltas[..2])).is_empty());
    }
    // What fits is shown.
    let (mut replica, nonce) = asking(9);
    for (offset, delta) in (2..).zip(&deltas[1..]) {
        tell(&mut replica, &entry(offset, 1, delta));
    }
    assert!(problems(&tell(&mut replica, &snapshot(nonce, 2, &alive(ONE, deltas[..1].to_vec())))).is_empty());
    assert!(shows(&mut replica, 3));
}

/// Nobody else writes as this replica: neither what it has written so far nor what it would write next.
#[test]
fn r10_nobody_goes_on_as_the_client_that_writes_here() {
    let (deltas, _) = made();
    let mut replica = with(9, &deltas[..1]);
    let own = write(&mut replica, HERE, set(5));
    let mut copy = Segment::decode(
        ONE,
        EngineKind::Yrs,
        GenId::ZERO_YRS,
        replica.document(ONE).unwrap().writer(),
        &[],
        &[deltas[0].clone(), own.clone()],
    )
    .unwrap();
    copy.show();
    let next = copy.edit(vec![set(6)], Uid(1), &mut Zero).unwrap().delta;
    // A copy changes nothing, whoever brings it.
    assert!(problems(&tell(&mut replica, &entry(2, 1, &own))).is_empty());
    let told = tell(&mut replica, &entry(3, 1, &next));
    assert!(said(&told).contains("belongs to another owner"), "{}", said(&told));
}

/// Others may name what is written here as soon as the log has it, which may be before its Ack is here.
#[test]
fn r10_others_build_on_own_commits_and_on_copies() {
    let (deltas, _) = made();
    let mut replica = with(9, &deltas[..1]);
    // From here on there is a table.
    assert!(problems(&tell(&mut replica, &entry(2, 1, &deltas[1]))).is_empty());
    assert!(replica.document(ONE).unwrap().clocks().is_some());
    let own = write(&mut replica, HERE, set(5));
    let mut other = with(8, &[deltas[0].clone(), deltas[1].clone(), own.clone()]);
    let on_own = write(&mut other, HERE, set(6));
    let summary = structure(Engine::Yrs, &own).unwrap().own.unwrap();
    let names = structure(Engine::Yrs, &on_own).unwrap().named;
    assert_eq!(names.iter().find(|(client, _)| *client == summary.client), Some(&(summary.client, summary.end)));
    assert!(problems(&tell(&mut replica, &entry(4, 2, &on_own))).is_empty());
    // Everything once more.
    for (offset, (author, delta)) in (5..).zip([(1, &deltas[1]), (2, &on_own), (2, &own)]) {
        assert!(problems(&tell(&mut replica, &entry(offset, author, delta))).is_empty());
    }
    assert!(shows(&mut replica, 6));
    let clocks = replica.document(ONE).unwrap().clocks().unwrap();
    assert_eq!(clocks.next(summary.client), summary.end);
    assert!(clocks.iter().any(|(_, owner, _)| owner == AUTHORS[1]));
}

/// The relay finds nothing wrong, again and again: what comes next may be no better, and one day nobody asks any more.
#[test]
fn r12_what_only_this_replica_refuses_is_given_up_after_a_bounded_number_of_times() {
    let (deltas, _) = made();
    let foreign = torn(&deltas[1]);
    let mut replica = with(9, &deltas[..2]);
    for offset in 2..10 {
        assert_eq!(reports(&tell(&mut replica, &entry(offset, 2, &foreign))), [Offset(offset)]);
        assert!(problems(&reloaded(&mut replica, offset, &deltas[..2])).is_empty(), "at {offset}");
    }
    let told = tell(&mut replica, &entry(10, 2, &foreign));
    assert_eq!((problems(&told), reports(&told)), (vec!["ERR_QUARANTINED"], vec![]));
    assert!(tell(&mut replica, &Down::Reload { segment: SegRef::Id(ONE), at: Offset(10) }).is_empty());

    // One that is taken in between begins the count anew, and so does one that the relay leaves out.
    let left_out = |at| Down::Quarantine { offset: Offset(at), segment: SegRef::Id(ONE), at: Offset(at), client: None };
    for between in [entry(2, 1, &deltas[2]), left_out(2)] {
        let mut replica = with(9, &deltas[..2]);
        for offset in (10..190).step_by(10) {
            tell(&mut replica, &entry(offset, 2, &foreign));
            assert!(problems(&reloaded(&mut replica, offset, &deltas[..2])).is_empty(), "at {offset}");
            let told = tell(&mut replica, &between);
            for nonce in loads(&told) {
                tell(&mut replica, &snapshot(nonce, offset + 2, &alive(ONE, deltas[..2].to_vec())));
            }
        }
    }
}

/// A log that was lost and restored has clients that come further in a state than in entries.
#[test]
fn r10_what_a_restored_brings_is_gone_on_from() {
    let (deltas, whole) = made();
    let mut replica = with(9, &deltas[..1]);
    assert!(problems(&tell(&mut replica, &entry(2, 1, &deltas[1]))).is_empty());
    let segments = vec![(Verdict::Merged, alive(ONE, vec![whole]))];
    let bulk = Bulk::whole(Restored { segments: segments.into(), ..Restored::default() }.encode().into());
    let restored = RestoredFrame { offset: Offset(3), yours: false, position: Offset(4), bulk };
    assert!(problems(&tell(&mut replica, &Down::Restored(restored))).is_empty());
    let next = write(&mut with(8, &deltas), HERE, set(4));
    for (offset, (author, delta)) in (4..).zip([(2, &next), (1, &deltas[2]), (1, &deltas[3])]) {
        assert!(problems(&tell(&mut replica, &entry(offset, author, delta))).is_empty());
    }
    assert!(shows(&mut replica, 4));
}

/// What is written here is judged when somebody names it, or when much has come together; or the document is read anew.
#[test]
fn r10_what_is_written_here_is_counted_when_it_is_named() {
    let text = |key: &str, length: usize| {
        let value = Literal::Scalar(Value::Str("x".repeat(length)));
        Wish::Set { object: Handle(0), key: key.into(), value }
    };
    // How large the document is, what is written here at once, and whether that is counted at once; `None`: it is read anew.
    for (large, own, counted) in [(1_000, 10, Some(false)), (1_000, 2_000, None), (900_000, 300_000, Some(true))] {
        let mut author = replica();
        connect_at(&mut author, 0, &[]);
        let first = vec![
            write(&mut author, NEW, Wish::Root { value: Literal::Map(Vec::new()) }),
            write(&mut author, HERE, text("large", large)),
        ];
        let second = write(&mut author, HERE, set(1));
        let mut replica = with(9, &first);
        tell(&mut replica, &entry(2, 1, &second));
        let mine = write(&mut replica, HERE, text("n", own));
        let at = structure(Engine::Yrs, &mine).unwrap().own.unwrap();
        let table = replica.document(ONE).unwrap().clocks().map(|clocks| clocks.next(at.client) == at.end);
        assert_eq!(table, counted, "{large} and {own}");
        let mut other = with(8, &[first, vec![second, mine]].concat());
        let on_mine = write(&mut other, HERE, set(6));
        assert!(problems(&tell(&mut replica, &entry(4, 2, &on_mine))).is_empty());
        assert_eq!(replica.document(ONE).unwrap().clocks().unwrap().next(at.client), at.end);
    }
}
