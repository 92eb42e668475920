//! R12: segments that engines fail on, what the worker makes of them, and what is left out of the log from then on.

use coheap_core::id::*;
use coheap_core::limits::REPORTS_MAX;
use coheap_core::log::{LogEntry, StoredQuarantine};
use coheap_core::relay::{ConnId, Examined, Failing, Input, Output};
use coheap_core::wire::code::Code;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::down::Asked;
use coheap_core::wire::frame::{Down, SegRef, SegmentState, Up};

use crate::world::*;

fn load(n: u8, nonce: u64) -> Up {
    Up::Load { segment: SegRef::Id(seg(n)), nonce: Nonce(nonce), have: None }
}

fn report(n: u8, offset: u64) -> Up {
    Up::Report { segment: SegRef::Id(seg(n)), offset: Offset(offset) }
}

fn reload(n: u8, at: u64) -> Down {
    Down::Reload { segment: SegRef::Id(seg(n)), at: Offset(at) }
}

/// The entries whose part was left out, as frames say it: the place of the entry that says so, and of the part.
fn quarantines(frames: &[Down]) -> Vec<(u64, u64)> {
    let told = frames.iter().filter_map(|frame| match frame {
        Down::Quarantine { offset, at, .. } => Some((offset.0, at.0)),
        _ => None,
    });
    told.collect()
}

/// The deltas that a load gives.
fn deltas(world: &mut World, conn: ConnId, n: u8) -> usize {
    world.take(conn);
    world.send(conn, &[load(n, 99)]);
    let frames = world.take(conn);
    let [Down::Snapshot { bulk, .. }] = &frames[..] else { panic!("{frames:?}") };
    SegmentState::decode(&bulk.bytes, &mut Reader::new(&bulk.bytes)).unwrap().deltas.len()
}

/// A writes, B writes, A writes: entries 0, 1, 2 of the root, all durable; C follows it.
fn begun() -> (World, [ConnId; 3], [Writer; 2]) {
    let mut world = World::new();
    let (a, b, c) = (world.join(1), world.join(2), world.join(3));
    world.send(c, &[load(0, 1)]);
    world.send(b, &[load(0, 1)]);
    let (mut wa, mut wb) = (Writer::new(1), Writer::new(2));
    for (conn, writer) in [(a, 0), (b, 1), (a, 0)] {
        let commit = [&mut wa, &mut wb][writer].commit(&[seg(0)]);
        world.send(conn, &[commit]);
    }
    for conn in [a, b, c] {
        world.take(conn);
    }
    (world, [a, b, c], [wa, wb])
}

#[test]
fn r12_what_the_worker_fails_on_too_is_left_out_with_what_its_client_id_wrote_behind_it() {
    let (mut world, [a, b, c], [mut wa, mut wb]) = begun();
    world.replays = Replays::FailsAt(0);
    world.send(c, &[report(0, 0)]);
    let whole = (SegmentNumber(0), Offset(4));
    assert_eq!(world.examined, [(SegmentNumber(0), Offset(1)), whole], "up to that entry; then whether that was all");
    let LogEntry::Quarantine(entry) = world.disk.entry(3) else { panic!("{:?}", world.disk.entry(3)) };
    let generation = GenId::ZERO_YRS;
    let (segment, client) = (SegmentNumber(0), Some((1112, 0)));
    assert_eq!(
        entry,
        StoredQuarantine {
            segment,
            generation,
            offset: Offset(0),
            client,
            later: StoredQuarantine::behind(Offset(0), [Offset(2)])
        }
    );
    // To followers it is an entry, its author among them; who reported it is answered.
    let told = world.take(c);
    assert_eq!((quarantines(&told), told.contains(&reload(0, 0))), (vec![(3, 0)], true));
    assert_eq!(quarantines(&world.take(a)), [(3, 0)]);
    assert_eq!(quarantines(&world.take(b)), [(3, 0)]);
    assert_eq!(deltas(&mut world, c, 0), 1, "what B wrote");
    // Nobody goes on as that client id; as another one its author does.
    let next = wa.commit(&[seg(0)]);
    world.send(a, &[next]);
    let refused = world.take(a);
    assert!(matches!(refused[..], [.., Down::Refused { seq: Seq(3), code: 37, .. }]), "{refused:?}");
    let mut other = Writer::new(4);
    (other.id, other.seq, other.prev) = (1, 3, Uid(1_000_003).voided());
    let mut fresh = other.frame(&[seg(0)]);
    fresh.uid = Uid(5);
    change_part(&mut fresh, |part| part.bytes = Writer::new(7).delta(seg(0)));
    world.send(a, &[Up::Commit(fresh)]);
    assert_eq!(acked(&world.take(a)), Some(4));
    let more = wb.commit(&[seg(0)]);
    world.send(b, &[more]);
    assert_eq!(acked(&world.take(b)), Some(2), "others are not concerned");
    assert_eq!(deltas(&mut world, c, 0), 3);
}

#[test]
fn r12_nobody_hears_of_a_quarantine_before_it_is_on_the_disk() {
    let (mut world, [_, b, c], _) = begun();
    world.replays = Replays::FailsAt(1);
    world.prompt = false;
    world.send(c, &[report(0, 1)]);
    assert_eq!((world.take(c), world.take(b)), (vec![], vec![]));
    world.write_all();
    let told = world.take(c);
    assert_eq!((quarantines(&told), told.contains(&reload(0, 1))), (vec![(3, 1)], true));
    assert_eq!(quarantines(&world.take(b)), [(3, 1)]);
}

#[test]
fn r12_what_the_worker_takes_in_is_loaded_anew_and_not_replayed_again() {
    let (mut world, [_, b, c], _) = begun();
    world.send(c, &[report(0, 1)]);
    assert_eq!(world.take(c), [reload(0, 1)]);
    world.send(c, &[report(0, 1), report(0, 0)]);
    world.send(b, &[report(0, 1)]);
    assert_eq!((world.take(c), world.take(b)), (vec![reload(0, 1), reload(0, 0)], vec![reload(0, 1)]));
    assert_eq!((world.examined.len(), world.relay.head()), (1, Offset(3)));
    // What the log does not know at all may be asked for again, too.
    world.send(c, &[report(9, 5)]);
    assert_eq!(world.take(c), [reload(9, 5)]);
}

#[test]
fn r12_who_reported_is_answered_when_all_of_it_is_taken_in() {
    let (mut world, [_, _, c], _) = begun();
    world.replays = Replays::Waits;
    world.send(c, &[report(0, 0)]);
    world.now = world.now + coheap_core::time::Millis(2_000);
    world.answer_examine(Replays::FailsAt(0));
    assert_eq!(quarantines(&world.take(c)), [(3, 0)]);
    world.pass(2_000);
    world.answer_examine(Replays::FailsAt(1));
    assert_eq!(
        world.take(c),
        [Down::Quarantine { offset: Offset(4), segment: SegRef::Id(seg(0)), at: Offset(1), client: Some((2112, 0)) }]
    );
    world.answer_examine(Replays::Well);
    assert_eq!(world.take(c), [reload(0, 0)]);
    assert_eq!(deltas(&mut world, c, 0), 0);
}

#[test]
fn r12_one_replay_at_a_time_and_rests_between_them_whoever_reports() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    let mut writer = Writer::new(1);
    let commits = [1, 2, 3].map(|n| writer.commit(&[seg(n)]));
    world.send(a, &commits);
    world.take(a);
    world.take(b);
    world.replays = Replays::Waits;
    world.send(a, &[report(1, 0), report(2, 1)]);
    world.send(b, &[report(1, 0), report(3, 2)]);
    assert_eq!(world.examined.len(), 1);
    world.now = world.now + coheap_core::time::Millis(10_000);
    world.answer_examine(Replays::Well);
    assert_eq!((world.take(a), world.take(b)), (vec![reload(1, 0)], vec![reload(1, 0)]), "both who reported it");
    // It took ten seconds: the next one comes forty seconds later.
    world.pass(39_000);
    assert_eq!(world.examined.len(), 1);
    world.pass(1_000);
    assert_eq!(world.examined.len(), 2);
    world.answer_examine(Replays::Well);
    world.pass(1_000);
    assert_eq!(world.examined.len(), 3);
    // Nobody can say: it stays as it is there.
    world.answer_examine(Replays::Dies);
    let code = u64::from(Code::Rate.number());
    assert_eq!(world.take(b), [Down::Declined { asked: Asked::Report, nonce: Nonce(2), code }]);
}

#[test]
fn r12_what_is_reported_again_and_again_keeps_no_other_waiting_for_ever() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let commits = [1, 2].map(|n| writer.commit(&[seg(n)]));
    world.send(a, &commits);
    world.take(a);
    world.replays = Replays::Waits;
    world.send(a, &[report(1, 0), report(2, 1)]);
    world.answer_examine(Replays::Dies);
    world.send(a, &[report(1, 0)]);
    world.pass(1_000);
    let examined: Vec<SegmentNumber> = world.examined.iter().map(|(segment, _)| *segment).collect();
    assert_eq!(examined, [SegmentNumber(0), SegmentNumber(1)]);
    world.answer_examine(Replays::Well);
    world.pass(1_000);
    assert_eq!(world.examined.len(), 3, "and then the first one");
}

#[test]
fn r12_reports_of_one_connection_that_wait_are_bounded() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    for n in 0..=REPORTS_MAX as u8 {
        let commit = writer.commit(&[seg(n)]);
        world.send(a, &[commit]);
    }
    world.take(a);
    world.replays = Replays::Waits;
    let reports: Vec<_> = (0..=REPORTS_MAX as u8).map(|n| report(n, u64::MAX)).collect();
    world.send(a, &reports);
    let code = u64::from(Code::Rate.number());
    assert_eq!(world.take(a), [Down::Declined { asked: Asked::Report, nonce: Nonce(u64::MAX), code }]);
    assert_eq!(world.examined, [(SegmentNumber(0), Offset(REPORTS_MAX as u64 + 1))], "up to what is durable");
    // Who is gone is not answered.
    world.input(Input::Closed { conn: a });
    world.answer_examine(Replays::Well);
    assert_eq!(world.take(a), []);
}

#[test]
fn r12_parts_that_are_admitted_while_the_worker_is_at_it_are_left_out_too() {
    let (mut world, [a, _, c], [mut wa, _]) = begun();
    world.prompt = false;
    let (under_way, later) = (wa.commit(&[seg(0), seg(1)]), wa.commit(&[seg(0)]));
    world.send(a, &[under_way]);
    world.replays = Replays::Waits;
    world.send(c, &[report(0, 2)]);
    world.send(a, &[later]);
    world.write_all();
    world.answer_examine(Replays::FailsAt(2));
    world.write_all();
    let LogEntry::Quarantine(entry) = world.disk.entry(5) else { panic!("{:?}", world.disk.entry(5)) };
    assert_eq!((entry.client, entry.skipped().collect()), (Some((1112, 1)), vec![Offset(2), Offset(3), Offset(4)]));
    assert_eq!((deltas(&mut world, c, 0), deltas(&mut world, c, 1)), (2, 1));
}

#[test]
fn r12_what_is_left_out_is_not_sent_from_the_log_either_and_survives_the_relay() {
    let (mut world, [a, ..], [mut wa, _]) = begun();
    let both = wa.commit(&[seg(0), seg(1)]);
    world.send(a, &[both]);
    world.replays = Replays::FailsAt(2);
    world.send(a, &[report(0, 2)]);
    world.take(a);
    for crash in [false, true] {
        if crash {
            world.crash();
        }
        let epoch = world.relay_epoch();
        // It was away from before the bad part on.
        let d = world.open();
        world.send(d, &[Up::Hello(back(9, epoch, 1, &[seg(0), seg(1)]))]);
        world.welcome(d);
        let told = world.take(d);
        let parts: Vec<(u64, usize)> = entries(&told).iter().map(|entry| (entry.offset.0, entry.parts.len())).collect();
        assert_eq!(parts, [(1, 1), (3, 1)], "of entry 2 nothing is left, of 3 the other part");
        assert_eq!(quarantines(&told), [(4, 2)]);
        assert_eq!(deltas(&mut world, d, 0), 2);
        // The same is not looked at again.
        let before = world.examined.len();
        world.send(d, &[report(0, 2)]);
        assert_eq!((world.take(d), world.examined.len()), (vec![reload(0, 2)], before));
    }
    let back = world.join(1);
    let next = wa.commit(&[seg(0)]);
    world.send(back, &[next]);
    assert!(matches!(world.take(back)[..], [.., Down::Refused { code: 37, .. }]));
}

#[test]
fn r12_a_fold_that_fails_is_looked_into_and_no_segment_is_folded_meanwhile() {
    let (mut world, [a, b, c], [mut wa, mut wb]) = begun();
    world.replays = Replays::Waits;
    for _ in 0..260 {
        let commit = wa.commit(&[seg(0)]);
        world.send(a, &[commit]);
    }
    let [(segment, _)] = world.folds[..] else { panic!("{:?}", world.folds) };
    for _ in 0..300 {
        let commit = wb.commit(&[seg(2)]);
        world.send(b, &[commit]);
    }
    assert_eq!((world.folds.len(), world.examined.len()), (1, 0));
    world.input(Input::Folded { segment, folded: None, floor: Offset(0), holder: None });
    assert_eq!(world.examined, [(segment, world.relay.durable())]);
    assert_eq!(world.folds.len(), 1, "not while it is looked into");
    world.take(c);
    world.prompt = false;
    world.answer_examine(Replays::FailsAt(1));
    assert_eq!(world.folds.len(), 1, "nor before that is on the disk");
    world.write_all();
    assert_eq!(quarantines(&world.take(c)).len(), 1);
    assert_eq!(world.folds.len(), 1, "nor before the rest is known to be well");
    world.answer_examine(Replays::Well);
    assert_eq!(world.folds.len(), 2);
}

#[test]
fn r12_a_quarantine_that_the_disk_did_not_take_is_found_again() {
    let (mut world, [_, _, c], _) = begun();
    world.replays = Replays::FailsAt(1);
    world.prompt = false;
    world.send(c, &[report(0, 1)]);
    world.fail(true);
    world.pass(10_000);
    assert_eq!(world.take(c), []);
    world.write_all();
    let told = world.take(c);
    assert_eq!((quarantines(&told), told.contains(&reload(0, 1))), (vec![(3, 1)], true));
    assert_eq!(deltas(&mut world, c, 0), 2);
}

/// What the worker's side says of parts becomes an entry that reads back, whatever it says.
#[test]
fn r12_parts_that_are_named_twice_or_out_of_order_are_left_out_once() {
    let (mut world, [_, _, c], _) = begun();
    world.replays = Replays::Waits;
    world.send(c, &[report(0, 2)]);
    let Some(Output::Examine { ticket, .. }) = world.waiting.take() else { panic!("it is replayed") };
    let parts = [1, 2, 2, 0].map(|at| (Offset(at), 10)).to_vec();
    world.input(Input::Examined { ticket, examined: Examined::Fails(Failing { client: Some((1112, 0)), parts }) });
    let LogEntry::Quarantine(entry) = world.disk.entry(3) else { panic!("{:?}", world.disk.entry(3)) };
    assert_eq!(entry.skipped().collect::<Vec<_>>(), [Offset(1), Offset(2)]);
}
