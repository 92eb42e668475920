//! R2, R10, R11: what becomes of a commit, decided at receipt.

use bytes::Bytes;
use coheap_core::commit::{ClaimOf, EngineKind};
use coheap_core::id::*;
use coheap_core::limits::{COMMIT_BYTES_MAX_RELAY, SEGMENT_BYTES_HARD};
use coheap_core::log::LogEntry;
use coheap_core::relay::{ConnId, Folded, Input};
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::down::{Fate, Row};
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Down, PART_CREATE, PART_DELETE, PART_OPTIONAL, SegRef, Up};

use crate::world::*;

fn code(code: Code) -> u64 {
    u64::from(code.number())
}

/// A world in which replica 1 is connected and has one commit in the log.
fn begun() -> (World, ConnId, Writer) {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let first = writer.commit(&[seg(0)]);
    world.send(a, &[first]);
    world.take(a);
    (world, a, writer)
}

#[test]
fn r2a_a_resent_commit_is_acknowledged_again_and_not_forwarded_again() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    let mut writer = Writer::new(1);
    let commit = writer.commit(&[seg(0)]);
    world.send(a, std::slice::from_ref(&commit));
    assert_eq!(acked(&world.take(a)), Some(1));
    assert_eq!(offsets(&world.take(b)), [0]);
    world.send(a, &[commit]);
    assert_eq!(acked(&world.take(a)), Some(1));
    assert_eq!(offsets(&world.take(b)), [] as [u64; 0]);
    assert_eq!(world.relay.head(), Offset(1));
}

#[test]
fn r2a_another_commit_under_a_used_number_is_a_conflict() {
    let mut world = World::new();
    let a = world.join(1);
    let first = Writer::new(1).commit(&[seg(0)]);
    world.send(a, &[first]);
    world.take(a);
    let mut clone = Writer::new(1).frame(&[seg(0)]);
    clone.uid = Uid(77);
    world.send(a, &[Up::Commit(clone)]);
    assert_eq!(world.take(a), [Down::Conflict { owner: 0, seq: Seq(1), uid: Uid(1_000_001) }]);
    assert_eq!(world.relay.head(), Offset(1));
}

#[test]
fn r2b_a_commit_of_another_line_is_a_conflict() {
    let (mut world, a, mut writer) = begun();
    let mut second = writer.frame(&[seg(0)]);
    second.prev = Some(Uid(77));
    world.send(a, &[Up::Commit(second)]);
    assert!(matches!(world.take(a)[..], [Down::Conflict { seq: Seq(2), .. }]));
    assert_eq!(world.relay.head(), Offset(1));
}

#[test]
fn r2c_an_id_that_the_log_does_not_know_must_begin_with_its_first_commit() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    writer.frame(&[seg(0)]);
    let second = writer.commit(&[seg(0)]);
    world.take(a);
    world.send(a, &[second]);
    assert_eq!(world.take(a), [Down::Unknown { owner: 0 }]);
    assert_eq!(world.relay.head(), Offset(0));
}

#[test]
fn r2c_what_lies_behind_a_commit_that_was_not_admitted_is_ignored() {
    let (mut world, a, mut writer) = begun();
    let mut stale = writer.frame(&[seg(0)]);
    change_part(&mut stale, |part| part.generation = GenId([9; 16]));
    let behind = writer.commit(&[seg(1)]);
    world.send(a, &[Up::Commit(stale), behind]);
    assert!(matches!(world.take(a)[..], [Down::Rebase { seq: Seq(2), .. }]));
    assert_eq!((world.relay.head(), world.closed(a)), (Offset(1), None));
}

#[test]
fn r2c_a_gap_without_a_refusal_before_it_is_a_protocol_error() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let first = writer.commit(&[seg(0)]);
    writer.frame(&[seg(0)]);
    let third = writer.commit(&[seg(0)]);
    world.send(a, &[first, third]);
    assert_eq!(world.closed(a), Some(4002));
    assert_eq!(world.relay.head(), Offset(1));
}

#[test]
fn r2d_a_commit_waits_for_the_one_it_comes_after() {
    let mut world = World::new();
    let conn = world.open();
    let mut greeting = hello(1);
    greeting.own.push((replica(2), Seq(0)));
    world.send(conn, &[Up::Hello(greeting)]);
    world.take(conn);
    let (mut new, mut old) = (Writer::new(1), Writer::new(2));
    old.owner = 1;
    let old_commit = old.frame(&[seg(0)]);
    let mut commit = new.frame(&[seg(1)]);
    commit.after = Some((1, old_commit.seq, old_commit.uid));
    // Not there yet; then there under another uid; then the very one.
    world.send(conn, &[Up::Commit(commit.clone())]);
    assert_eq!((world.take(conn).len(), world.relay.head()), (0, Offset(0)));
    world.send(conn, &[Up::Commit(old_commit)]);
    let mut wrong = commit.clone();
    wrong.after = Some((1, Seq(1), Uid(5)));
    world.send(conn, &[Up::Commit(wrong)]);
    assert_eq!(world.relay.head(), Offset(1));
    world.send(conn, &[Up::Commit(commit)]);
    assert_eq!(world.relay.head(), Offset(2));
}

#[test]
fn r2c_a_line_whose_first_commit_was_passed_over_is_not_unknown() {
    let mut world = World::new();
    let conn = world.open();
    let mut greeting = hello(1);
    greeting.own.push((replica(2), Seq(0)));
    world.send(conn, &[Up::Hello(greeting)]);
    world.take(conn);
    let mut new = Writer::new(1);
    let mut first = new.frame(&[seg(1)]);
    first.after = Some((1, Seq(1), Uid(5)));
    let second = new.commit(&[seg(1)]);
    world.send(conn, &[Up::Commit(first), second]);
    // Unknown would put in doubt what was never admitted (G5).
    assert_eq!((world.take(conn), world.closed(conn), world.relay.head()), (Vec::new(), None, Offset(0)));
}

#[test]
fn r2e_a_part_of_another_generation_is_answered_with_rebase() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let mut commit = writer.frame(&[seg(3)]);
    change_part(&mut commit, |part| part.generation = GenId::ZERO_AUTOMERGE);
    world.send(a, &[Up::Commit(commit)]);
    let rebase = Down::Rebase { owner: 0, seq: Seq(1), segment: SegRef::Id(seg(3)), generation: GenId::ZERO_YRS };
    assert!(world.take(a).contains(&rebase));
    assert_eq!(world.relay.head(), Offset(0));
}

/// Whatever the other engine's guard would say of it.
#[test]
fn c10_a_part_of_another_engine_is_answered_with_rebase_and_not_refused() {
    let (mut world, a, mut writer) = begun();
    let mut commit = writer.frame(&[seg(0)]);
    change_part(&mut commit, |part| {
        part.generation = GenId::ZERO_AUTOMERGE;
        (part.kind, part.create) = (PART_CREATE, Some((EngineKind::Automerge, 1)));
        part.bytes = Bytes::from_static(b"what yrs cannot read");
    });
    world.send(a, &[Up::Commit(commit.clone())]);
    let rebase = Down::Rebase { owner: 0, seq: Seq(2), segment: SegRef::Id(seg(0)), generation: GenId::ZERO_YRS };
    assert_eq!((world.take(a), world.relay.head()), (vec![rebase], Offset(1)));
    // Of the segment's own engine it has to be.
    change_part(&mut commit, |part| part.generation = GenId::ZERO_YRS);
    world.send(a, &[Up::Commit(commit)]);
    let refused = |frame: &Down| matches!(frame, Down::Refused { code: of, .. } if *of == code(Code::GuardStructure));
    assert!(world.take(a).iter().any(refused));
}

#[test]
fn r2_dedup_comes_before_the_generation_check() {
    let mut world = World::new();
    let a = world.join(1);
    let mut commit = Writer::new(1).frame(&[seg(0)]);
    world.send(a, &[Up::Commit(commit.clone())]);
    world.take(a);
    change_part(&mut commit, |part| part.generation = GenId([9; 16]));
    world.send(a, &[Up::Commit(commit)]);
    assert_eq!(acked(&world.take(a)), Some(1));
}

#[test]
fn r10_a_client_id_belongs_to_the_owner_that_used_it_first() {
    let mut world = World::new();
    world.fill(1, seg(0), 1);
    let b = world.join(2);
    let mut forged = Writer::new(1).frame(&[seg(0)]);
    forged.uid = Uid(5);
    world.send(b, &[Up::Commit(forged)]);
    assert!(matches!(world.take(b).last(), Some(Down::Refused { code: 33, .. })));
}

#[test]
fn r10_clock_tables_are_those_of_the_log_after_a_restart() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 3);
    world.crash();
    let epoch = world.disk.recovered.epochs[0].0;
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, epoch, 3, &[seg(0)]))]);
    let next = writer.commit(&[seg(0)]);
    world.send(a, &[next]);
    assert_eq!(acked(&world.take(a)), Some(4));
}

#[test]
fn r11_a_line_goes_on_from_the_complement_of_a_refused_commit() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let bad = writer.frame_of(vec![part(seg(0), vec![1].into())]);
    // In flight behind it, naming the old uid: ignored, not a conflict.
    let behind = writer.frame(&[seg(1)]);
    world.send(a, &[Up::Commit(bad.clone()), Up::Commit(behind.clone())]);
    assert!(!world.take(a).iter().any(|frame| matches!(frame, Down::Conflict { .. })));
    assert_eq!(world.relay.head(), Offset(1));
    let mut redone = behind;
    redone.prev = Some(bad.uid.voided());
    world.send(a, &[Up::Commit(redone)]);
    assert_eq!(acked(&world.take(a)), Some(2));
    assert_eq!(world.relay.head(), Offset(2));
}

#[test]
fn r11_a_refused_commit_that_is_sent_again_is_refused_again() {
    let mut world = World::new();
    let a = world.join(1);
    let bad = Writer::new(1).frame_of(vec![part(seg(0), vec![1].into())]);
    world.send(a, &[Up::Commit(bad.clone())]);
    world.take(a);
    world.crash();
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, EpochId::default(), 0, &[]))]);
    world.take(a);
    world.send(a, &[Up::Commit(bad)]);
    assert!(matches!(world.take(a)[..], [Down::Refused { code: 32, .. }]));
    assert_eq!(world.relay.head(), Offset(1));
}

#[test]
fn r11_a_full_disk_logs_nothing_and_reading_goes_on() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    let mut writer = Writer::new(1);
    let first = writer.commit(&[seg(0)]);
    world.send(a, &[first]);
    world.take(a);
    world.prompt = false;
    let (second, third) = (writer.commit(&[seg(0)]), writer.commit(&[seg(5)]));
    world.send(a, std::slice::from_ref(&second));
    world.send(a, std::slice::from_ref(&third));
    assert_eq!(world.relay.head(), Offset(3));
    world.fail(true);
    assert_eq!(world.relay.head(), Offset(1));
    let busy = Down::Busy { owner: 0, seq: Seq(2), code: code(Code::DiskFull), retry_ms: 1000 };
    assert_eq!(world.take(a), [busy]);
    world.take(b);
    world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    assert!(matches!(world.take(b)[..], [Down::Snapshot { .. }]));
    // There is room again.
    world.prompt = true;
    world.pass(1000);
    world.send(a, &[second, third]);
    assert_eq!(acked(&world.take(a)), Some(3));
    assert_eq!(offsets(&world.take(b)), [1]);
    assert_eq!(world.closed(a), None);
}

/// The commit that was told Busy may be acknowledged meanwhile, by what another connection had sent of it; what its author then
/// sends again begins behind it.
#[test]
fn r11_what_is_passed_over_while_the_log_is_read_again_is_told_once_it_has_been_read() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let commits = [(); 3].map(|()| writer.commit(&[seg(0)]));
    world.prompt = false;
    world.recovers = false;
    world.send(a, &commits[..1]);
    world.fail(true);
    let busy = |seq| Down::Busy { owner: 0, seq: Seq(seq), code: code(Code::DiskFull), retry_ms: 1000 };
    assert_eq!(world.take(a).last(), Some(&busy(1)));
    world.send(a, &commits[1..]);
    assert_eq!(world.take(a), []);
    let recovered = world.disk.recover();
    world.input(Input::Recovered(recovered));
    assert_eq!(world.take(a), [busy(2)]);
    // What was told is not told again.
    world.prompt = true;
    world.pass(1000);
    world.send(a, &commits);
    assert_eq!(acked(&world.take(a)), Some(3));
}

#[test]
fn r11_a_failed_disk_closes_everybody_and_acknowledges_nothing() {
    let mut world = World::new();
    let a = world.join(1);
    world.take(a);
    world.prompt = false;
    let commit = Writer::new(1).commit(&[seg(0)]);
    world.send(a, &[commit]);
    world.fail(false);
    assert_eq!((world.take(a).len(), world.closed(a), world.stopped), (0, Some(4011), true));
}

#[test]
fn c10_who_creates_a_segment_follows_it_and_numbers_are_dense() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    let (mut wa, mut wb) = (Writer::new(1), Writer::new(2));
    let delta = wa.delta(seg(4));
    let creating = wa.frame_of(vec![create(seg(4), delta)]);
    world.send(a, &[Up::Commit(creating)]);
    // Two write a derived segment at once: the second one's is an ordinary delta.
    let delta = wb.delta(seg(4));
    let creating = wb.frame_of(vec![create(seg(4), delta)]);
    world.take(a);
    world.send(b, &[Up::Commit(creating)]);
    let frames = world.take(a);
    assert_eq!(offsets(&frames), [1]);
    assert_eq!(entries(&frames)[0].parts.to_vec()[0].create, None);
    assert_eq!(world.disk.recovered.segments.len(), 1);
    assert_eq!(world.disk.recovered.segments[0].id, seg(4));
}

/// What a refusal of the first commit of replica 1 has to look like, at its author, at others and in the log.
fn check_refused(world: &mut World, conn: ConnId, commit: CommitFrame, expected: Code) {
    let b = world.join(99);
    world.take(b);
    world.take(conn);
    let head = world.relay.head();
    world.prompt = false;
    world.send(conn, &[Up::Commit(commit.clone())]);
    assert!(world.take(conn).is_empty(), "not told before it is on the disk");
    world.prompt = true;
    world.write_all();
    let (owner, seq, uid, code, position) = (0, commit.seq, commit.uid, code(expected), head.next());
    let refused = Down::Refused { owner, seq, uid, code, position };
    let frames = world.take(conn);
    assert_eq!(frames.last(), Some(&refused));
    assert!(entries(&frames)[0].void);
    assert_eq!(offsets(&world.take(b)), [] as [u64; 0]);
    let row = Row { seq, uid, fate: Fate::Void(code) };
    let void = LogEntry::Void { owner: replica(1), seq, uid, code };
    assert_eq!((world.disk.entry(head.0), world.relay.head()), (void, head.next()));
    // Its author learns it again where the answer was lost: by the ring, and by sending it once more.
    let again = world.join(1);
    assert_eq!(world.welcome(again).0.ring[0].1.last(), Some(&row));
    world.send(again, &[Up::Commit(commit)]);
    assert_eq!(world.take(again).last(), Some(&refused));
    assert_eq!((world.closed(again), world.closed(b)), (None, None));
}

#[test]
fn r11_without_the_right_to_write() {
    let mut world = World::new();
    let conn = world.open_as("reader", false);
    world.send(conn, &[Up::Hello(hello(1))]);
    check_refused(&mut world, conn, Writer::new(1).frame(&[seg(0)]), Code::NoRight);
}

#[test]
fn r11_more_bytes_than_a_commit_may_have() {
    let mut world = World::new();
    let conn = world.join(1);
    let half = "x".repeat(200_000);
    let mut writer = Writer::new(1);
    let parts: Vec<_> = (0..8).map(|n| part(seg(n), writer.delta_with(seg(n), &half))).collect();
    assert!(parts.iter().map(|part| part.bytes.len()).sum::<usize>() > COMMIT_BYTES_MAX_RELAY);
    check_refused(&mut world, conn, writer.frame_of(parts), Code::TooLarge);
}

#[test]
fn r11_a_segment_that_is_full() {
    let mut world = World::new();
    world.fill(2, seg(0), 1);
    let folded = Folded { deltas: 1, bytes: 1, snapshot_bytes: SEGMENT_BYTES_HARD as u64 };
    let segment = SegmentNumber(0);
    world.input(Input::Folded { segment, folded: Some(folded), floor: Offset(0), holder: None });
    let conn = world.join(1);
    check_refused(&mut world, conn, Writer::new(1).frame(&[seg(0)]), Code::TooLarge);
}

#[test]
fn r11_a_claim_that_is_nobodys() {
    let mut world = World::new();
    let conn = world.join(1);
    let mut commit = Writer::new(1).frame(&[seg(0)]);
    commit.claim = Some(ClaimOf { group: "g".into(), run: "r".into(), key: "k".into(), grant: 1 });
    check_refused(&mut world, conn, commit, Code::ClaimLost);
}

#[test]
fn r11_the_structure_half_of_the_guard() {
    let mut world = World::new();
    let conn = world.join(1);
    let commit = Writer::new(1).frame_of(vec![part(seg(0), vec![0xff; 21].into())]);
    check_refused(&mut world, conn, commit, Code::GuardStructure);
}

#[test]
fn r11_the_clocks_half_of_the_guard() {
    let mut world = World::new();
    let conn = world.join(1);
    let mut writer = Writer::new(1);
    writer.delta(seg(0));
    check_refused(&mut world, conn, writer.frame(&[seg(0)]), Code::GuardClocks);
}

#[test]
fn r11_a_required_kind_that_this_relay_does_not_know() {
    for kind in [PART_DELETE, 3, 0x7f] {
        let mut world = World::new();
        let conn = world.join(1);
        let mut commit = Writer::new(1).frame(&[seg(0)]);
        change_part(&mut commit, |part| part.kind = kind);
        check_refused(&mut world, conn, commit, Code::Unsupported);
    }
}

#[test]
fn r11_a_layout_that_this_relay_does_not_know() {
    let mut world = World::new();
    let conn = world.join(1);
    let mut commit = Writer::new(1).frame(&[seg(0)]);
    change_part(&mut commit, |part| (part.kind, part.create) = (PART_CREATE, Some((EngineKind::Yrs, 2))));
    check_refused(&mut world, conn, commit, Code::Unsupported);
}

#[test]
fn r11_an_optional_kind_is_taken_as_it_is() {
    let mut world = World::new();
    world.fill(2, seg(0), 1);
    let conn = world.join(1);
    world.take(conn);
    let mut commit = Writer::new(1).frame(&[seg(0)]);
    change_part(&mut commit, |part| (part.kind, part.bytes) = (PART_OPTIONAL, vec![1, 2, 3].into()));
    world.send(conn, &[Up::Commit(commit)]);
    assert_eq!(acked(&world.take(conn)), Some(1));
}

#[test]
fn r11_a_stop_does_not_wait_for_a_disk_that_was_full() {
    let mut world = World::new();
    let a = world.join(1);
    world.prompt = false;
    world.recovers = false;
    let commit = Writer::new(1).commit(&[seg(0)]);
    world.send(a, &[commit]);
    world.fail(true);
    world.take(a);
    world.input(Input::Stop);
    assert_eq!((world.closed(a), world.stopped), (Some(1012), true));
}

#[test]
fn one_segment_twice_in_a_commit_is_malformed() {
    let mut world = World::new();
    let a = world.join(1);
    let commit = Writer::new(1).frame(&[seg(0), seg(0)]);
    world.send(a, &[Up::Commit(commit)]);
    assert_eq!(world.closed(a), Some(4002));
}
