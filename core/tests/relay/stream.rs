//! R3, R4, R5, R7: what connections are sent, and when.

use coheap_core::id::*;
use coheap_core::limits::OWED_MAX;
use coheap_core::relay::{Folded, Input};
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::{Assembly, Down, SegRef, SegmentState, SegmentStatus, Up};

use crate::world::*;

fn load(n: u8, nonce: u64) -> Up {
    Up::Load { segment: SegRef::Id(seg(n)), nonce: Nonce(nonce), have: None }
}

fn snapshots(frames: &[Down]) -> Vec<(Nonce, Offset, SegmentState)> {
    let mut assembly = Assembly::new();
    let mut found = Vec::new();
    for frame in frames {
        let whole = match frame {
            Down::Snapshot { nonce, position, bulk, .. } => assembly.head((*nonce, *position), bulk.clone()).unwrap(),
            Down::Chunk(chunk) => assembly.chunk(chunk).unwrap(),
            _ => None,
        };
        if let Some(((nonce, position), bulk)) = whole {
            found.push((nonce, position, SegmentState::decode(&bulk, &mut Reader::new(&bulk)).unwrap()));
        }
    }
    found
}

#[test]
fn r3_r4_nothing_is_acknowledged_or_shown_before_it_is_on_the_disk() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    world.send(b, &[load(0, 1)]);
    world.prompt = false;
    let mut writer = Writer::new(1);
    let (first, second) = (writer.commit(&[seg(0)]), writer.commit(&[seg(0)]));
    world.take(a);
    world.take(b);
    world.send(a, std::slice::from_ref(&first));
    world.send(a, &[second]);
    // A duplicate of what is under way is acknowledged no earlier.
    world.send(a, &[first]);
    assert!(world.take(a).is_empty() && world.take(b).is_empty());
    world.write_one();
    let frames = world.take(a);
    assert_eq!((offsets(&frames), acked(&frames)), (vec![0], Some(1)));
    assert_eq!(offsets(&world.take(b)), [0]);
    world.write_one();
    let frames = world.take(a);
    let acks = frames.iter().filter(|frame| matches!(frame, Down::Ack { .. })).count();
    assert_eq!((offsets(&frames), acked(&frames), acks), (vec![1], Some(2), 1));
}

#[test]
fn r3_an_ack_comes_behind_every_entry_up_to_its_position() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    world.send(a, &[load(0, 1)]);
    world.prompt = false;
    let (mut wa, mut wb) = (Writer::new(1), Writer::new(2));
    for _ in 0..3 {
        let (x, y) = (wa.commit(&[seg(0)]), wb.commit(&[seg(0)]));
        world.send(b, &[y]);
        world.send(a, &[x]);
    }
    world.take(a);
    world.write_all();
    let mut reached = Offset(0);
    for frame in world.take(a) {
        match frame {
            Down::Entry(entry) => {
                assert_eq!(entry.offset, reached);
                reached = entry.offset.next();
            }
            Down::Advance { position } => reached = position,
            Down::Ack { position, .. } => {
                assert!(position <= reached, "acknowledged at {position:?}, sent {reached:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reached, Offset(6));
}

#[test]
fn r4_a_connection_sees_the_parts_it_follows_and_one_advance_for_the_rest() {
    let mut world = World::new();
    let (a, b, c) = (world.join(1), world.join(2), world.join(3));
    world.send(b, &[load(1, 1)]);
    world.prompt = false;
    let mut writer = Writer::new(1);
    for segments in [&[seg(0)][..], &[seg(0), seg(1)], &[seg(2)], &[seg(2)]] {
        let commit = writer.commit(segments);
        world.send(a, &[commit]);
    }
    world.take(b);
    world.take(c);
    let upto = Offset(4);
    world.write_all();
    let frames = world.take(b);
    let seen = entries(&frames);
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].offset, seen[0].parts.len()), (Offset(1), 1));
    assert_eq!(world.name(b, seen[0].parts.to_vec()[0].segment), seg(1));
    assert_eq!(frames.last(), Some(&Down::Advance { position: upto }));
    let frames = world.take(c);
    assert!(frames.iter().all(|frame| matches!(frame, Down::Advance { .. })));
    assert_eq!(frames.last(), Some(&Down::Advance { position: upto }));
}

#[test]
fn r4_one_group_commit_moves_an_idle_connection_by_one_advance() {
    let mut world = World::new();
    let (a, c) = (world.join(1), world.join(3));
    world.take(c);
    let mut writer = Writer::new(1);
    let commits: Vec<_> = (0..5).map(|_| writer.commit(&[seg(0)])).collect();
    world.send(a, &commits);
    assert_eq!(world.take(c), [Down::Advance { position: Offset(5) }]);
}

#[test]
fn r4_frames_are_shared_by_all_who_see_the_same() {
    let mut world = World::new();
    let a = world.join(1);
    let readers: Vec<_> = (2..10).map(|id| world.join(id)).collect();
    for reader in &readers {
        world.send(*reader, &[load(0, 1)]);
    }
    world.shared = 0;
    let commit = Writer::new(1).commit(&[seg(0)]);
    world.send(a, &[commit]);
    assert_eq!(world.shared, 1);
    for reader in readers {
        assert_eq!(offsets(&world.take(reader)), [0]);
    }
}

#[test]
fn r5_own_parts_are_left_out_only_on_the_connection_that_sent_them() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let commit = writer.commit(&[seg(0)]);
    world.send(a, &[commit]);
    let frames = world.take(a);
    assert!(entries(&frames)[0].yours && entries(&frames)[0].parts.is_empty());
    // After a reconnect they come in full.
    let epoch = world.disk.recovered.epochs[0].0;
    let again = world.open();
    world.send(again, &[Up::Hello(back(1, epoch, 0, &[seg(0)]))]);
    world.welcome(again);
    let frames = world.take(again);
    assert!(!entries(&frames)[0].yours);
    assert_eq!(entries(&frames)[0].parts.len(), 1);
}

#[test]
fn r5_an_entry_of_an_own_id_is_sent_even_when_nothing_of_it_is_followed() {
    let mut world = World::new();
    world.fill(1, seg(0), 2);
    let epoch = world.disk.recovered.epochs[0].0;
    let again = world.open();
    world.send(again, &[Up::Hello(back(1, epoch, 0, &[]))]);
    world.welcome(again);
    let frames = world.take(again);
    assert_eq!(offsets(&frames), [0, 1]);
    assert!(entries(&frames).iter().all(|entry| entry.parts.is_empty() && !entry.yours));
}

#[test]
fn r7_a_load_is_the_state_exactly_at_its_position() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 3);
    let epoch = world.disk.recovered.epochs[0].0;
    let (a, b) = (world.open(), world.join(2));
    world.send(a, &[Up::Hello(back(1, epoch, 3, &[]))]);
    world.take(b);
    world.prompt = false;
    let next = writer.commit(&[seg(0)]);
    world.send(a, &[next]);
    world.send(b, &[load(0, 7)]);
    world.write_all();
    let frames = world.take(b);
    let (nonce, position, state) = snapshots(&frames).remove(0);
    assert_eq!((nonce, position, state.deltas.len()), (Nonce(7), Offset(3), 3));
    assert_eq!((state.status, state.number), (SegmentStatus::Alive, Some(SegmentNumber(0))));
    assert_eq!(offsets(&frames), [3]);
}

#[test]
fn r7_a_segment_that_the_log_does_not_know_is_followed_all_the_same() {
    let mut world = World::new();
    let b = world.join(2);
    world.take(b);
    world.send(b, &[load(5, 1)]);
    let frames = world.take(b);
    assert_eq!(snapshots(&frames)[0].2.status, SegmentStatus::Unknown);
    world.fill(1, seg(5), 1);
    let frames = world.take(b);
    assert_eq!(offsets(&frames), [0]);
    assert!(entries(&frames)[0].parts.to_vec()[0].create.is_some());
}

#[test]
fn r7_many_loads_are_answered_in_order_and_a_fold_in_between_does_no_harm() {
    let mut world = World::new();
    for n in 0..6 {
        world.fill(n + 1, seg(n), 2);
    }
    let b = world.join(20);
    world.take(b);
    // Segment 3 was folded at the head: its state below is gone.
    world.disk.snaps.insert(SegmentNumber(3), (Offset(12), vec![1, 2, 3].into()));
    let loads: Vec<_> = (0..6).map(|n| load(n, 100 + u64::from(n))).collect();
    world.send(b, &loads);
    let frames = world.take(b);
    let seen: Vec<_> = snapshots(&frames).iter().map(|(nonce, _, state)| (nonce.0, state.deltas.len())).collect();
    assert_eq!(seen, [(100, 2), (101, 2), (102, 2), (103, 0), (104, 2), (105, 2)]);
}

#[test]
fn an_unfollowed_segment_is_no_longer_sent() {
    let mut world = World::new();
    let b = world.join(2);
    world.send(b, &[load(0, 1)]);
    world.send(b, &[Up::Unfollow { segment: SegRef::Id(seg(0)) }]);
    world.fill(1, seg(0), 1);
    assert_eq!(offsets(&world.take(b)), [] as [u64; 0]);
}

#[test]
fn a_slow_reader_costs_a_cursor_holds_up_nobody_and_is_closed_in_the_end() {
    let mut world = World::new();
    let (a, slow, quick) = (world.join(1), world.join(2), world.join(3));
    for conn in [slow, quick] {
        world.send(conn, &[load(0, 1)]);
        world.take(conn);
    }
    world.reads = false;
    let sent = 40;
    let mut writer = LargeWriter::new(9);
    let author = world.join(9);
    for _ in 0..sent {
        let commit = writer.commit(seg(0), 100_000);
        world.send(author, &[commit]);
        for conn in [author, quick, a] {
            world.read(conn);
        }
    }
    assert_eq!(offsets(&world.take(quick)).len(), sent);
    let held = world.links[&slow].written;
    assert!(held < (1 << 20) + 200_000, "{held} bytes wait for the slow one");
    // It reads again: everything comes, from the log, in order, in bounded pieces.
    let mut seen = Vec::new();
    loop {
        seen.extend(offsets(&world.take(slow)));
        let bytes = world.read(slow);
        if bytes == 0 {
            break;
        }
        assert!(bytes < (1 << 20) + 200_000);
    }
    assert_eq!(seen, (0..sent as u64).collect::<Vec<_>>());
    // And one that never reads is closed.
    for _ in 0..20 {
        let commit = writer.commit(seg(0), 100_000);
        world.send(author, &[commit]);
        for conn in [author, quick, a] {
            world.read(conn);
        }
    }
    world.pass(31_000);
    assert_eq!(world.closed(slow), Some(4013));
    assert_eq!(world.closed(quick), None);
}

#[test]
fn sync_is_answered_with_the_head_and_ping_with_pong() {
    let mut world = World::new();
    let a = world.join(1);
    world.take(a);
    world.prompt = false;
    let commit = Writer::new(1).commit(&[seg(0)]);
    world.send(a, &[commit, Up::Sync { nonce: Nonce(4) }, Up::Ping { nonce: Nonce(5) }]);
    assert_eq!(world.take(a), [Down::Pong { nonce: Nonce(5) }]);
    // Another's, behind that: it is no part of the head that was asked for, and the same on a stream that has it all.
    let b = world.join(2);
    let commit = Writer::new(2).commit(&[seg(1)]);
    world.send(b, &[commit]);
    world.write_one();
    let at = |nonce, position| Down::SyncAt { nonce: Nonce(nonce), position: Offset(position) };
    assert_eq!(world.take(a).last(), Some(&at(4, 1)));
    world.write_all();
    world.take(a);
    world.send(a, &[Up::Sync { nonce: Nonce(6) }]);
    assert_eq!(world.take(a), [at(6, 2)]);
}

/// T5: a head that is never written would be waited for until somebody else writes.
#[test]
fn t5_a_sync_asked_behind_what_a_full_disk_does_not_take_is_answered_with_what_is_there() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    let mut writer = Writer::new(1);
    let (first, second) = (writer.commit(&[seg(0)]), writer.commit(&[seg(0)]));
    world.send(a, &[first]);
    world.prompt = false;
    world.recovers = false;
    world.send(a, &[second]);
    world.take(b);
    world.send(b, &[Up::Sync { nonce: Nonce(1) }, Up::Sync { nonce: Nonce(2) }]);
    assert_eq!(world.take(b), []);
    world.fail(true);
    let at = |nonce| Down::SyncAt { nonce: Nonce(nonce), position: Offset(1) };
    assert_eq!(world.take(b), [at(1), at(2)]);
    // And while the log is being read again.
    world.send(b, &[Up::Sync { nonce: Nonce(3) }]);
    assert_eq!(world.take(b), [at(3)]);
}

/// R4, P1. The store says what it has: a write that failed may be on the disk.
#[test]
fn r4_what_a_disk_wrote_that_said_it_was_full_goes_to_those_who_are_there() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    let mut writer = Writer::new(1);
    let (first, second) = (writer.commit(&[seg(0)]), writer.commit(&[seg(0)]));
    world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    world.send(a, &[first]);
    assert_eq!(offsets(&world.take(b)), [0]);
    world.prompt = false;
    world.send(a, std::slice::from_ref(&second));
    let append = world.unwritten.pop_front().unwrap();
    let attempt = append.attempt;
    world.disk.write(append);
    world.input(Input::AppendFailed { attempt, full: true });
    assert_eq!((world.relay.head(), offsets(&world.take(b))), (Offset(2), vec![1]));
    // And its author, which was told that it is not.
    world.send(a, &[second, Up::Sync { nonce: Nonce(3) }]);
    let told = world.take(a);
    assert_eq!((offsets(&told), acked(&told)), (vec![0, 1], Some(2)));
    assert_eq!(told.last(), Some(&Down::SyncAt { nonce: Nonce(3), position: Offset(2) }));
    // What comes then is not lost on anybody.
    world.prompt = true;
    let third = writer.commit(&[seg(0)]);
    world.pass(1000);
    world.send(a, &[third]);
    assert_eq!((offsets(&world.take(b)), acked(&world.take(a))), (vec![2], Some(3)));
}

#[test]
fn who_asks_for_heads_without_end_while_nothing_is_written_is_closed() {
    let mut world = World::new();
    let a = world.join(1);
    world.prompt = false;
    let commit = Writer::new(1).commit(&[seg(0)]);
    world.send(a, &[commit]);
    world.send(a, &vec![Up::Sync { nonce: Nonce(1) }; OWED_MAX - 1]);
    assert_eq!(world.closed(a), None);
    world.send(a, &[Up::Sync { nonce: Nonce(1) }]);
    assert_eq!(world.closed(a), Some(4013));
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged_and_a_resend_is_admitted_once() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let first = writer.commit(&[seg(0)]);
    world.send(a, std::slice::from_ref(&first));
    world.prompt = false;
    let second = writer.commit(&[seg(0)]);
    world.send(a, std::slice::from_ref(&second));
    world.crash();
    world.prompt = true;
    world.write_all();
    let epoch = world.disk.recovered.epochs[0].0;
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, epoch, 1, &[seg(0)]))]);
    world.welcome(a);
    // Its author cannot know what arrived: it sends both.
    world.send(a, &[first, second]);
    assert_eq!(acked(&world.take(a)), Some(2));
    assert_eq!(world.relay.head(), Offset(2));
}

#[test]
fn r8_a_segment_with_many_deltas_is_folded_one_at_a_time() {
    let mut world = World::new();
    world.fill(1, seg(0), 300);
    assert_eq!(world.folds.len(), 1);
    let (segment, upto) = world.folds[0];
    assert_eq!((segment, upto), (SegmentNumber(0), Offset(257)));
    let folded = Folded { deltas: 257, bytes: 1000, snapshot_bytes: 100 };
    world.input(Input::Folded { segment, folded: Some(folded), floor: Offset(257), holder: None });
    world.fill(2, seg(0), 100);
    assert_eq!(world.folds.len(), 1);
    world.fill(3, seg(0), 150);
    assert_eq!(world.folds.len(), 2);
}

#[test]
fn r8_a_segment_that_cannot_be_folded_is_tried_again_much_later() {
    let mut world = World::new();
    world.fill(1, seg(0), 258);
    let segment = SegmentNumber(0);
    world.input(Input::Folded { segment, folded: None, floor: Offset(0), holder: None });
    world.fill(2, seg(0), 200);
    assert_eq!(world.folds.len(), 1);
    world.fill(3, seg(0), 100);
    assert_eq!(world.folds.len(), 2);
}

#[test]
fn r8_an_idle_segment_does_not_keep_the_whole_log() {
    let mut world = World::new();
    world.fill(1, seg(1), 1);
    world.fill(2, seg(0), 4200);
    let folded = Folded { deltas: 257, bytes: 1000, snapshot_bytes: 100 };
    let holder = Some(SegmentNumber(0));
    world.folds.clear();
    world.input(Input::Folded { segment: SegmentNumber(1), folded: Some(folded), floor: Offset(0), holder });
    assert_eq!(world.folds[0].0, SegmentNumber(0));
}

#[test]
fn a_stop_waits_for_the_disk_and_closes_with_1012() {
    let mut world = World::new();
    let a = world.join(1);
    world.prompt = false;
    let commit = Writer::new(1).commit(&[seg(0)]);
    world.send(a, &[commit]);
    world.take(a);
    world.input(Input::Stop);
    assert!(!world.stopped);
    world.write_all();
    assert_eq!(acked(&world.take(a)), Some(1));
    assert_eq!((world.closed(a), world.stopped), (Some(1012), true));
}

/// Commits with large deltas that continue one another.
struct LargeWriter {
    writer: Writer,
}

impl LargeWriter {
    fn new(id: u8) -> Self {
        LargeWriter { writer: Writer::new(id) }
    }

    fn commit(&mut self, segment: SegmentId, bytes: usize) -> Up {
        let delta = self.writer.delta_with(segment, &"x".repeat(bytes));
        Up::Commit(self.writer.frame_of(vec![part(segment, delta)]))
    }
}
