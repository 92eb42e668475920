//! D1 to D7 at the relay: a log that was lost, or rolled back, is repaired by those who hold what it lacks.

use bytes::Bytes;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::id::*;
use coheap_core::limits;
use coheap_core::log::{LogEntry, StoredRestore};
use coheap_core::relay::{Config, Input, NotRolled};
use coheap_core::time::{Millis, Time};
use coheap_core::wire::code::Code;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::restore::{HeldSegment, Restore, Restored, RestoredFrame, Verdict};
use coheap_core::wire::frame::up::{CommitFrame, Have, Hello};
use coheap_core::wire::frame::{Bulk, Chunk, Down, SegRef, SegmentState, SegmentStatus, Up};

use crate::world::*;

const RESTORING: u64 = 15;

pub fn held(segment: SegmentId, state: Bytes) -> HeldSegment {
    let (engine, generation) = (EngineKind::Yrs, GenId::ZERO_YRS);
    HeldSegment { id: segment, engine, layout: 1, generation, header: Bytes::new(), state }
}

/// All that a writer holds of these segments, and its line.
pub fn restore_of(writer: &Writer, segments: &[SegmentId]) -> Restore {
    Restore {
        acked: vec![(0, Seq(writer.seq), writer.prev)],
        pending: Vec::new(),
        segments: segments.iter().map(|segment| held(*segment, writer.whole(*segment))).collect(),
        known: Vec::new(),
    }
}

pub fn up(restore: &Restore) -> Up {
    Up::Restore(Bulk::whole(restore.encode().into()))
}

/// A replica comes that was at this cut of a life that is gone or rolled back, and is asked for what it holds.
pub fn come(world: &mut World, id: u8, epoch: EpochId, cut: u64, segments: &[SegmentId]) -> ConnIdOf {
    let conn = world.open();
    world.send(conn, &[Up::Hello(back(id, epoch, cut, segments))]);
    assert!(world.welcome(conn).0.restore, "it is asked for what it holds");
    conn
}

pub type ConnIdOf = coheap_core::relay::ConnId;

pub fn restored(frames: &[Down]) -> Vec<(RestoredFrame, Restored)> {
    let frames = frames.iter().filter_map(|frame| match frame {
        Down::Restored(frame) => Some((frame.clone(), Restored::decode(&frame.bulk.bytes).unwrap())),
        _ => None,
    });
    frames.collect()
}

fn busy(frames: &[Down]) -> Vec<(u64, u64)> {
    let busy = frames.iter().filter_map(|frame| match frame {
        Down::Busy { seq, code, .. } => Some((seq.0, *code)),
        _ => None,
    });
    busy.collect()
}

fn entry(world: &World, offset: u64) -> StoredRestore {
    match world.disk.entry(offset) {
        LogEntry::Restored(restore) => restore,
        other => panic!("{other:?}"),
    }
}

/// A heap with three commits of replica 1, whose disk was then wiped.
fn wiped() -> (World, Writer, EpochId) {
    let mut world = World::new();
    let writer = world.fill(1, seg(0), 3);
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(0);
    (world, writer, epoch)
}

#[test]
fn d4_a_wiped_log_gets_back_what_a_replica_holds_and_its_line_goes_on() {
    let (mut world, mut writer, epoch) = wiped();
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    let (frame, verdict) = restored(&world.take(a)).remove(0);
    assert_eq!((frame.offset, frame.yours, frame.position), (Offset(0), true, Offset(1)));
    let (what, state) = &verdict.segments.get(0).unwrap();
    assert_eq!((*what, state.id, state.status, state.deltas.len()), (Verdict::Merged, seg(0), SegmentStatus::Alive, 1));
    // X13: the next of its line is the fourth, and is admitted.
    let next = writer.commit(&[seg(0)]);
    world.send(a, &[next]);
    assert_eq!(acked(&world.take(a)), Some(4));
    // Whoever loads it gets it all.
    let b = world.join(2);
    world.take(b);
    world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    let frames = world.take(b);
    let Some(Down::Snapshot { bulk, .. }) = frames.first() else { panic!("{frames:?}") };
    assert!(bulk.bytes.len() > state.deltas.to_vec()[0].len());
}

/// D6, G5: a header has no line of what the lost log had of others. When one may be made all the same, what was sent before counts as
/// forgotten, in the same transaction.
#[test]
fn d6_when_the_hold_is_over_what_was_sent_before_the_restore_is_forgotten() {
    const HOLD: u64 = limits::ROW_RETENTION_MS;
    for crashes in [false, true] {
        let (mut world, writer, epoch) = wiped();
        let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
        world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
        restored(&world.take(a));
        world.fill(2, seg(0), 2);
        world.input(Input::Roll { segment: seg(0) });
        assert_eq!(world.rolled, [Err(NotRolled::Held)]);
        if crashes {
            world.crash();
        }
        world.pass(HOLD + 1000);
        world.input(Input::Roll { segment: seg(0) });
        assert!(world.rolled.last().is_some_and(Result::is_ok), "{:?}", world.rolled);
        // Another machine does not know where in the log it was given back.
        let below = Offset(if crashes { 3 } else { 1 });
        let stored = world.disk.recover();
        assert_eq!((stored.forgotten, stored.roll_hold_ms), (below, 0));
        assert_eq!(world.disk.drops(), [(0, 1, below)], "with the entry of the roll");
        // It is no news with the next one.
        world.input(Input::Roll { segment: seg(0) });
        assert_eq!((world.rolled.last().is_some_and(Result::is_ok), world.disk.drops().len()), (true, 1));
    }
}

/// L5: what a replica gives back to a log that has lost it comes to whoever kept something from before the loss like any entry; what was
/// kept of the lost end itself is not gone on from.
#[test]
fn l5_what_was_given_back_came_since_a_copy_from_before_it() {
    let mut world = World::new();
    let writer = world.fill(1, seg(0), 3);
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(2);
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    assert_eq!(restored(&world.take(a))[0].0.offset, Offset(2));
    world.fill(2, seg(0), 1);
    let b = world.join(3);
    for (position, told) in [(1, (true, 3)), (2, (true, 2)), (3, (false, 4))] {
        let have = Some(Have { epoch, position: Offset(position), generation: GenId::ZERO_YRS });
        world.take(b);
        world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(position), have }]);
        let frames = world.take(b);
        let Some(Down::Snapshot { bulk, onto_copy, .. }) = frames.first() else { panic!("{frames:?}") };
        let state = SegmentState::decode(&bulk.bytes, &mut Reader::new(&bulk.bytes)).unwrap();
        assert_eq!((*onto_copy, state.deltas.len()), told, "at {position}");
    }
}

/// C10: a segment that was made after the Hello is given back, too.
#[test]
fn d4_what_is_given_back_is_followed_whether_the_hello_named_it_or_not() {
    let (mut world, writer, epoch) = wiped();
    let a = come(&mut world, 1, epoch, 3, &[]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    let (_, verdict) = restored(&world.take(a)).remove(0);
    let told: Vec<_> = verdict.segments.iter().map(|(what, state)| (state.id, what)).collect();
    assert_eq!(told, [(seg(0), Verdict::Merged)]);
    world.fill(2, seg(0), 1);
    assert_eq!(offsets(&world.take(a)), [1], "what others make of it comes");
}

#[test]
fn x13_the_line_and_the_states_are_one_transaction() {
    let (mut world, writer, epoch) = wiped();
    world.prompt = false;
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    assert_eq!(world.unwritten.len(), 1);
    let append = &world.unwritten[0];
    assert_eq!((append.entries.len(), append.admit.len(), append.segments.len(), append.clocks.len()), (1, 1, 1, 1));
    assert!(append.roll_hold_ms.is_some_and(|at| at > 1_000_000));
    // Nobody is told before it is durable.
    assert!(restored(&world.take(a)).is_empty());
    world.write_all();
    assert_eq!(restored(&world.take(a)).len(), 1);
    world.prompt = true;
    world.crash();
    let again = world.open();
    world.send(again, &[Up::Hello(back(1, epoch, 0, &[]))]);
    assert_eq!(world.welcome(again).0.ring[0].1.last().map(|row| (row.seq, row.uid)), Some((Seq(3), writer.prev)));
}

#[test]
fn d2_a_restoring_connection_hears_nothing_before_its_verdict_and_everything_by_it() {
    let mut world = World::new();
    let writer = world.fill(1, seg(0), 3);
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(2);
    let a = come(&mut world, 1, epoch, 3, &[seg(0), seg(1)]);
    // Others go on meanwhile, and it loads something.
    world.fill(2, seg(1), 2);
    world.send(a, &[Up::Load { segment: SegRef::Id(seg(2)), nonce: Nonce(9), have: None }]);
    assert!(world.take(a).is_empty());
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    let frames = world.take(a);
    let (frame, verdict) = restored(&frames).remove(0);
    assert_eq!((frame.offset, frame.position), (Offset(4), Offset(5)));
    let mut told: Vec<_> = verdict.segments.iter().map(|(what, state)| (state.id, what, state.deltas.len())).collect();
    told.sort_by_key(|(id, _, deltas)| (*deltas, id.0));
    // What it follows is all there: its own, that of others, and what is on its way.
    assert_eq!(told, [(seg(2), Verdict::NotGiven, 0), (seg(1), Verdict::NotGiven, 2), (seg(0), Verdict::Merged, 3)]);
    // The load is answered behind it, and the stream goes on there.
    assert!(matches!(frames.last(), Some(Down::Snapshot { nonce: Nonce(9), .. })), "{frames:?}");
    world.fill(3, seg(1), 1);
    assert_eq!(offsets(&world.take(a)), [5]);
}

#[test]
fn x14_a_commit_before_the_restore_is_put_off() {
    let (mut world, mut writer, epoch) = wiped();
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    let restore = restore_of(&writer, &[seg(0)]);
    let next = writer.commit(&[seg(0)]);
    world.send(a, std::slice::from_ref(&next));
    assert_eq!((busy(&world.take(a)), world.relay.head()), (vec![(4, RESTORING)], Offset(0)));
    world.send(a, &[up(&restore), next]);
    let frames = world.take(a);
    assert_eq!(restored(&frames).len(), 1);
    assert_eq!(world.relay.head(), Offset(1), "it came before the restore was in the log");
}

#[test]
fn d4_a_restore_is_taken_only_from_who_was_asked_and_may_write() {
    let (mut world, writer, epoch) = wiped();
    let b = world.join(2);
    world.send(b, &[up(&restore_of(&writer, &[seg(0)]))]);
    assert_eq!(world.closed(b), Some(4002));
    // Who may not write is not asked; it goes on from what there is.
    let reader = world.open_as("", false);
    world.send(reader, &[Up::Hello(back(1, epoch, 3, &[seg(0)]))]);
    let (welcome, states) = world.welcome(reader);
    assert_eq!((welcome.restore, welcome.catchup, states.len()), (false, true, 1));
    world.send(reader, &[up(&restore_of(&writer, &[seg(0)]))]);
    assert_eq!((world.closed(reader), world.relay.head()), (Some(4002), Offset(0)));
}

#[test]
fn d4_what_no_replica_of_ours_sends_closes_its_connection_and_leaves_nothing() {
    let (mut world, writer, epoch) = wiped();
    for (at, restore) in [
        Restore { segments: vec![held(seg(0), Bytes::from_static(b"rubbish"))].into(), ..Restore::default() },
        Restore { acked: vec![(7, Seq(1), Uid(1))], ..Restore::default() },
        Restore {
            segments: vec![held(seg(0), writer.whole(seg(0))), held(seg(0), writer.whole(seg(0)))].into(),
            ..Restore::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
        world.send(a, &[up(&restore)]);
        assert_eq!((world.closed(a), world.relay.head()), (Some(4002), Offset(0)), "case {at}");
    }
}

#[test]
fn d4_a_restore_with_a_commit_that_the_log_has_as_void_is_not_taken() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 1);
    let epoch = world.disk.recovered.epochs[0].0;
    // Its second is refused: it may not write then.
    let reader = world.open_as("", false);
    world.send(reader, &[Up::Hello(back(1, epoch, 1, &[seg(0)]))]);
    let refused = writer.frame(&[seg(0)]);
    world.send(reader, &[Up::Commit(refused.clone())]);
    world.fill(2, seg(0), 1);
    world.roll_back(2);
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    let pending = vec![(0, refused.seq, refused.uid)];
    let restore =
        Restore { acked: vec![(0, Seq(1), refused.prev.unwrap())], pending, ..restore_of(&writer, &[seg(0)]) };
    world.send(a, &[up(&restore)]);
    assert_eq!((world.closed(a), world.relay.head()), (Some(4015), Offset(2)));
}

#[test]
fn r11_who_is_to_restore_is_answered_when_its_lines_are_durable() {
    let mut world = World::new();
    world.fill(1, seg(0), 2);
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(1);
    world.prompt = false;
    let reader = world.open_as("", false);
    world.send(reader, &[Up::Hello(back(1, epoch, 1, &[seg(0)]))]);
    let mut again = Writer::new(1);
    again.frame(&[seg(0)]);
    let void = again.commit(&[seg(0)]);
    world.send(reader, &[void]);
    // The second of its line is void, and not on the disk.
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, epoch, 2, &[seg(0)]))]);
    assert!(world.take(a).is_empty());
    world.write_all();
    let (welcome, _) = world.welcome(a);
    assert!(welcome.restore && welcome.ring[0].1.len() == 2, "{welcome:?}");
}

#[test]
fn d4_a_commit_that_a_restored_holds_is_not_refused_afterwards() {
    let (mut world, mut writer, epoch) = wiped();
    let listed = writer.frame(&[seg(0)]);
    let mut restore = restore_of(&writer, &[seg(0)]);
    restore.acked = vec![(0, Seq(3), listed.prev.unwrap())];
    restore.pending = vec![(0, listed.seq, listed.uid)];
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    world.send(a, &[up(&restore)]);
    // It outlives the relay, and the time for which all refusals are held.
    world.crash();
    world.pass(120_000);
    let epoch = world.disk.recovered.epochs[0].0;
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, epoch, 1, &[seg(0)]))]);
    world.welcome(a);
    let claim = coheap_core::commit::ClaimOf { group: "g".into(), run: "r".into(), key: "k".into(), grant: 1 };
    world.send(a, &[Up::Commit(coheap_core::wire::frame::up::CommitFrame { claim: Some(claim.clone()), ..listed })]);
    assert_eq!(acked(&world.take(a)), Some(4), "a claim that is long lost");
    // One that it does not hold is.
    let other = writer.frame(&[seg(0)]);
    world.send(a, &[Up::Commit(coheap_core::wire::frame::up::CommitFrame { claim: Some(claim), ..other })]);
    assert!(matches!(world.disk.entry(2), LogEntry::Void { code: 35, .. }));
}

#[test]
fn w9_what_adds_nothing_is_listed_without_bytes() {
    let (mut world, writer, epoch) = wiped();
    let mut bytes = Vec::new();
    for id in 1..=3 {
        let a = come(&mut world, id, epoch, 3, &[seg(0)]);
        let restore = Restore { acked: Vec::new(), ..restore_of(&writer, &[seg(0)]) };
        world.send(a, &[up(&restore)]);
        let (_, verdict) = restored(&world.take(a)).remove(0);
        bytes.push(world.disk.entries.last().unwrap().len());
        assert_eq!(verdict.segments.to_vec()[0].0, if id == 1 { Verdict::Merged } else { Verdict::Nothing });
        assert_eq!(verdict.segments.to_vec()[0].1.deltas.len(), 1, "the whole state comes with it all the same");
    }
    assert!(bytes[1] < 64 && bytes[2] < 64, "{bytes:?}");
    assert_eq!(entry(&world, 1).segments.to_vec()[0].state.len(), 0);
}

#[test]
fn w9_who_gives_back_the_same_at_once_is_merged_one_after_the_other() {
    let (mut world, writer, epoch) = wiped();
    world.prompt = false;
    let conns: Vec<_> = (1..=3).map(|id| come(&mut world, id, epoch, 3, &[seg(0)])).collect();
    for conn in &conns {
        let restore = Restore { acked: Vec::new(), ..restore_of(&writer, &[seg(0)]) };
        world.send(*conn, &[up(&restore)]);
    }
    assert_eq!(world.relay.head(), Offset(1), "the others wait for the disk");
    // One that waits, and the one whose turn comes, may go.
    world.input(Input::Closed { conn: conns[1] });
    world.write_all();
    assert_eq!((restored(&world.take(conns[0])).len(), restored(&world.take(conns[2])).len()), (1, 1));
    assert_eq!(entry(&world, 1).segments.to_vec()[0].state.len(), 0);
}

#[test]
fn d5_others_get_it_as_an_entry_filtered_to_what_they_follow() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 1);
    let conn = world.open();
    let epoch = world.disk.recovered.epochs[0].0;
    world.send(conn, &[Up::Hello(back(1, epoch, 1, &[]))]);
    let more = writer.commit(&[seg(0), seg(1)]);
    world.send(conn, &[more]);
    world.roll_back(1);
    let b = world.join(2);
    world.send(b, &[Up::Load { segment: SegRef::Id(seg(1)), nonce: Nonce(1), have: None }]);
    let c = world.join(3);
    world.take(b);
    world.take(c);
    let a = come(&mut world, 1, epoch, 2, &[seg(0), seg(1)]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0), seg(1)]))]);
    let (frame, seen) = restored(&world.take(b)).remove(0);
    assert_eq!((frame.offset, frame.yours, seen.segments.len()), (Offset(1), false, 1));
    assert_eq!(seen.segments.to_vec()[0].1.id, seg(1));
    assert!(seen.acked.is_empty(), "the lines of others are nobody's business");
    assert!(restored(&world.take(c)).is_empty());
    // The stream goes on behind it, for both.
    let again = writer.commit(&[seg(1)]);
    world.send(a, &[again]);
    assert_eq!(offsets(&world.take(b)), [2]);
    assert!(world.take(c).iter().any(|frame| matches!(frame, Down::Advance { position: Offset(3) })));
}

#[test]
fn d5_entries_wait_behind_a_restored_that_comes_in_pieces() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let delta = writer.delta_with(seg(0), &"x".repeat(900_000));
    let big = writer.frame_of(vec![part(seg(0), delta)]);
    world.send(a, &[Up::Commit(big)]);
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(0);
    let b = world.join(2);
    world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    world.take(b);
    let a = come(&mut world, 1, epoch, 1, &[seg(0)]);
    let bulk: Bytes = restore_of(&writer, &[seg(0)]).encode().into();
    let (head, tail) = (bulk.slice(..200_000), bulk.slice(200_000..));
    world.reads = false;
    world.send(a, &[Up::Restore(Bulk { stream: 4, bytes: head })]);
    let pieces: Vec<Bytes> = tail.chunks(200_000).map(Bytes::copy_from_slice).collect();
    for (at, bytes) in pieces.iter().cloned().enumerate() {
        assert_eq!(world.relay.head(), Offset(0));
        world.send(a, &[Up::Chunk(Chunk { stream: 4, last: at + 1 == pieces.len(), bytes })]);
    }
    assert_eq!(world.relay.head(), Offset(1));
    let next = writer.commit(&[seg(0)]);
    while world.links[&a].written > 0 {
        world.read(a);
    }
    world.send(a, &[next]);
    while world.links[&b].written > 0 {
        world.read(b);
    }
    let frames = world.take(b);
    let last_piece = frames.iter().position(|frame| matches!(frame, Down::Chunk(chunk) if chunk.last)).unwrap();
    let entry = frames.iter().position(|frame| matches!(frame, Down::Entry(_))).unwrap();
    assert!(matches!(frames[0], Down::Restored(_)) && last_piece < entry, "{last_piece} {entry}");
}

#[test]
fn x24_a_restore_that_was_not_finished_is_asked_for_again() {
    let (mut world, writer, epoch) = wiped();
    world.merges = Merges::Never;
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    world.input(Input::Closed { conn: a });
    assert_eq!(world.relay.head(), Offset(0));
    world.merges = Merges::Now;
    // It has the new life by now, and a cut that is not above it.
    let current = world.disk.recovered.epochs.last().map(|(epoch, _)| *epoch).unwrap_or_default();
    let again = world.open();
    world.send(again, &[Up::Hello(Hello { restoring: true, ..back(1, current, 0, &[seg(0)]) })]);
    assert!(world.welcome(again).0.restore);
    world.send(again, &[up(&restore_of(&writer, &[seg(0)]))]);
    assert_eq!(restored(&world.take(again)).len(), 1);
}

#[test]
fn d4_a_worker_that_fails_and_a_disk_that_is_full_mean_busy() {
    let (mut world, writer, epoch) = wiped();
    world.merges = Merges::Fail;
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    let restore = up(&restore_of(&writer, &[seg(0)]));
    world.send(a, std::slice::from_ref(&restore));
    assert_eq!(busy(&world.take(a)), [(0, RESTORING)]);
    world.merges = Merges::Now;
    world.prompt = false;
    world.send(a, std::slice::from_ref(&restore));
    world.fail(true);
    assert_eq!(busy(&world.take(a)), [(0, RESTORING)]);
    world.prompt = true;
    world.pass(1_000);
    world.send(a, &[restore]);
    assert_eq!((restored(&world.take(a)).len(), world.relay.head()), (1, Offset(1)));
}

#[test]
fn d6_for_a_while_after_a_restore_what_would_be_refused_is_put_off() {
    let (mut world, writer, epoch) = wiped();
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    let reader = world.open_as("", false);
    world.send(reader, &[Up::Hello(hello(2))]);
    world.welcome(reader);
    let commit = Writer::new(2).commit(&[seg(1)]);
    world.send(reader, std::slice::from_ref(&commit));
    assert_eq!((busy(&world.take(reader)), world.relay.head()), (vec![(1, RESTORING)], Offset(1)));
    world.pass(59_000);
    world.send(reader, std::slice::from_ref(&commit));
    assert_eq!(busy(&world.take(reader)).len(), 1);
    world.pass(1_000);
    world.send(reader, &[commit]);
    assert!(
        world
            .take(reader)
            .iter()
            .any(|frame| matches!(frame, Down::Refused { code, .. } if *code == u64::from(Code::NoRight.number())))
    );
}

#[test]
fn d7_a_relay_over_a_backup_takes_restores_and_no_commits_for_a_while() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 3);
    let epoch = world.disk.recovered.epochs[0].0;
    world.config = |config: Config| Config { admits_from: Time(60_000), ..config };
    world.roll_back(2);
    let b = world.join(2);
    world.welcome(b);
    let mut other = Writer::new(2);
    let (first, second) = (other.commit(&[seg(1)]), other.commit(&[seg(1)]));
    world.send(b, &[first.clone(), second.clone()]);
    assert_eq!((busy(&world.take(b)), world.relay.head()), (vec![(1, RESTORING)], Offset(2)));
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    world.send(a, &[up(&restore_of(&writer, &[seg(0)]))]);
    assert_eq!((restored(&world.take(a)).len(), world.relay.head()), (1, Offset(3)));
    let next = writer.commit(&[seg(0)]);
    world.send(a, std::slice::from_ref(&next));
    assert_eq!(busy(&world.take(a)), [(4, RESTORING)]);
    world.now = world.now + Millis(60_000);
    world.send(a, &[next]);
    world.send(b, &[first, second]);
    assert_eq!((acked(&world.take(a)), acked(&world.take(b))), (Some(4), Some(2)));
}

#[test]
fn s3_restores_that_are_put_aside_have_a_bound_and_the_next_one_waits() {
    let (mut world, _, epoch) = wiped();
    let piece = Bytes::from(vec![0; 256 * 1024]);
    let mut conns = Vec::new();
    let max = coheap_core::limits::RESTORE_BYTES_MAX;
    let one = coheap_core::limits::LONG_BYTES_MAX / piece.len() - 1;
    for id in 1..=4 {
        let conn = come(&mut world, id, epoch, 3, &[seg(0)]);
        world.send(conn, &[Up::Restore(Bulk { stream: 1, bytes: Bytes::new() })]);
        for _ in 0..one {
            world.send(conn, &[Up::Chunk(Chunk { stream: 1, last: false, bytes: piece.clone() })]);
        }
        conns.push(conn);
    }
    assert!(4 * one * piece.len() > max);
    let last = conns.pop().unwrap();
    assert_eq!(busy(&world.take(last)), [(0, RESTORING)]);
    assert!(conns.iter().all(|conn| busy(&world.links[conn].frames).is_empty()));
    // One that is longer than any may be is not waited for.
    let conn = conns[0];
    for _ in 0..2 {
        world.send(conn, &[Up::Chunk(Chunk { stream: 1, last: false, bytes: piece.clone() })]);
    }
    assert_eq!(world.closed(conn), Some(4004));
}

/// What a replica of this id knows of a commit of its line: Restore's `known`.
pub fn known(frame: &CommitFrame) -> (u64, Seq, Uid, u64) {
    let parts = frame.parts.to_vec();
    let parts = parts.iter().map(|part| match part.segment {
        SegRef::Id(id) => (id, part.generation, &part.bytes[..]),
        SegRef::Number(_) => panic!("a part names its segment"),
    });
    (0, frame.seq, frame.uid, content_hash(parts))
}

/// P4: of a commit to two segments one was evicted when the disk was lost. Who still has the commit has both.
#[test]
fn d4_what_was_acknowledged_by_a_lost_log_is_taken_in_again_once_with_the_same_bytes_and_with_no_others() {
    for (changed, twice) in [(false, false), (false, true), (true, false)] {
        let mut world = World::new();
        let mut writer = Writer::new(1);
        let (first, second) = (writer.frame(&[seg(0), seg(1)]), writer.frame(&[seg(0)]));
        let a = world.join(1);
        world.send(a, &[Up::Commit(first.clone()), Up::Commit(second.clone())]);
        assert_eq!(acked(&world.take(a)), Some(2));
        let epoch = world.disk.recovered.epochs[0].0;
        world.roll_back(0);
        let a = come(&mut world, 1, epoch, 2, &[seg(0)]);
        let mut rows = vec![known(&first), known(&second)];
        rows[0].3 ^= u64::from(changed);
        world.send(a, &[up(&Restore { known: rows, ..restore_of(&writer, &[seg(0)]) })]);
        world.take(a);
        assert_eq!(world.disk.entries.len(), 1);
        // The rows are on the disk.
        world.crash();
        let again = world.open();
        world.send(again, &[Up::Hello(Hello { own: vec![(replica(1), Seq(0))], ..hello(2) })]);
        let ring = world.welcome(again).0.ring;
        assert_eq!(ring[0].1.iter().map(|row| row.seq.0).collect::<Vec<_>>(), [1, 2]);
        for _ in 0..=usize::from(twice) {
            world.send(again, &[Up::Commit(first.clone())]);
            assert_eq!(acked(&world.take(again)), Some(1), "it was acknowledged, and is");
        }
        if changed {
            assert_eq!(world.disk.entries.len(), 1, "other bytes would count beside those that were given back");
            continue;
        }
        let LogEntry::Commit(commit) = world.disk.entry(1) else { panic!("{:?}", world.disk.entry(1)) };
        assert_eq!((commit.seq, commit.parts.len(), world.disk.entries.len()), (Seq(1), 2, 2));
        // The line goes on where it was.
        let third = writer.frame(&[seg(0)]);
        world.send(again, &[Up::Commit(third)]);
        assert_eq!(acked(&world.take(again)), Some(3));
    }
}

/// P6: of what a rolled back log still has by itself nothing is lost, though its author names it beside what is (schedule 1702).
#[test]
fn d4_what_the_log_still_has_is_not_taken_in_again_beside_what_it_has_lost() {
    let mut world = World::new();
    let mut writer = Writer::new(1);
    let (first, second) = (writer.frame(&[seg(0)]), writer.frame(&[seg(0)]));
    let a = world.join(1);
    world.send(a, &[Up::Commit(first.clone())]);
    world.send(a, &[Up::Commit(second.clone())]);
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(1);
    let a = come(&mut world, 1, epoch, 2, &[seg(0)]);
    world.send(a, &[up(&Restore { known: vec![known(&first), known(&second)], ..restore_of(&writer, &[seg(0)]) })]);
    world.crash();
    let again = world.open();
    world.send(again, &[Up::Hello(Hello { own: vec![(replica(1), Seq(0))], ..hello(2) })]);
    let ring = world.welcome(again).0.ring;
    assert_eq!(ring[0].1.iter().map(|row| row.seq.0).collect::<Vec<_>>(), [1, 2], "both are known by their uids");
    world.send(again, &[Up::Commit(first)]);
    assert_eq!((acked(&world.take(again)), world.disk.entries.len()), (Some(1), 2), "the log has its entry");
    world.send(again, &[Up::Commit(second)]);
    assert_eq!((acked(&world.take(again)), world.disk.entries.len()), (Some(2), 3), "this one had been lost");
    let next = writer.frame(&[seg(0)]);
    world.send(again, &[Up::Commit(next)]);
    assert_eq!(acked(&world.take(again)), Some(3));
}

/// §10: two processes have written different things under one engine identity, and the log that would have shown that was lost.
#[test]
fn d4_what_does_not_go_with_what_the_log_has_is_a_conflict_and_not_put_off_for_ever() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 1);
    writer.commit(&[seg(1)]);
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(0);
    // The copy: other values under the same clocks.
    let conn = world.join(1);
    let mut copy = Writer::new(1);
    let other = copy.delta_with(seg(0), " of the copy");
    let frame = copy.frame_of(vec![part(seg(0), other)]);
    world.send(conn, &[Up::Commit(frame)]);
    assert_eq!(acked(&world.take(conn)), Some(1));
    let before = world.disk.entries.len();
    let a = come(&mut world, 9, epoch, 1, &[seg(0), seg(1)]);
    let pending = vec![(0, Seq(7), Uid(7))];
    let restore = Restore { acked: Vec::new(), pending, ..restore_of(&writer, &[seg(0), seg(1)]) };
    world.send(a, &[up(&restore)]);
    let (_, verdict) = restored(&world.take(a)).remove(0);
    let told: Vec<_> = verdict.segments.iter().map(|(what, state)| (state.id, what)).collect();
    assert!(told.len() == 2 && told.iter().all(|(_, what)| *what == Verdict::Conflict), "all or none: {told:?}");
    let stored = entry(&world, before as u64);
    assert_eq!((stored.segments.len(), stored.pending), (0, Vec::new()), "the log's state stays");
}

/// §10: two copies made one commit anew, each in its own way. One gave its version back; the other's would count beside it.
#[test]
fn d4_another_version_of_what_is_held_takes_its_place_without_its_parts_in_whatever_line_it_comes() {
    for moved in [false, true] {
        let (mut world, mut writer, epoch) = wiped();
        let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
        let acked_at = (writer.seq, writer.prev);
        let fourth = writer.frame(&[seg(0)]);
        let mut restore = restore_of(&writer, &[seg(0)]);
        restore.acked = vec![(0, Seq(acked_at.0), acked_at.1)];
        (restore.pending, restore.known) = (vec![(0, fourth.seq, fourth.uid)], vec![known(&fourth)]);
        world.send(a, &[up(&restore)]);
        assert_eq!(entry(&world, 0).pending.len(), 1);
        world.crash();
        let copy = world.open();
        let id = if moved { 2 } else { 1 };
        world.send(copy, &[Up::Hello(Hello { own: vec![(replica(id), Seq(0))], ..hello(id) })]);
        world.send(copy, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
        world.take(copy);
        let delta = Writer::new(7).delta(seg(0));
        let mut anew = CommitFrame { parts: vec![part(seg(0), delta)].into(), ..fourth.clone() };
        if moved {
            (anew.seq, anew.prev) = (Seq(1), Some(Uid::NONE));
        }
        world.send(copy, &[Up::Commit(anew.clone())]);
        let LogEntry::Commit(commit) = world.disk.entry(1) else { panic!("{:?}", world.disk.entry(1)) };
        assert_eq!((commit.uid, commit.parts.len()), (fourth.uid, 0), "the version that was given back counts");
        let frames = world.take(copy);
        assert_eq!(acked(&frames), Some(anew.seq.0));
        assert!(entries(&frames).iter().all(|entry| !entry.yours), "its author learns that its version does not count");
    }
}

/// R10: who says that what it holds of a segment has a commit, and does not hold that, is not believed where the commit writes as another
/// replica does: both would be under one identity, and an engine keeps what came first.
#[test]
fn r10_a_commit_that_a_restore_lists_takes_nobodys_identity() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 1);
    let mut forger = Writer::new(1);
    forger.delta(seg(0));
    forger.seq = 1;
    let forged = forger.delta_with(seg(0), " forged");
    let mut liar = Writer::new(2);
    let commit = liar.frame_of(vec![part(seg(0), forged)]);
    let conn = come(&mut world, 2, EpochId { counter: 9, random: 99 }, 3, &[seg(0)]);
    let (pending, known) = (vec![(0, commit.seq, commit.uid)], vec![known(&commit)]);
    let restore = Restore { pending, known, ..Restore::default() };
    world.send(conn, &[up(&restore)]);
    world.send(conn, &[Up::Commit(commit.clone())]);
    assert_eq!(acked(&world.take(conn)), Some(1), "it is in the log, as was said");
    let LogEntry::Commit(logged) = world.disk.entry(2) else { panic!("{:?}", world.disk.entry(2)) };
    assert_eq!(
        (logged.uid, logged.parts.len()),
        (commit.uid, 0),
        "with what it does, if it does anything, in the state"
    );
    let a = world.open();
    world.send(a, &[Up::Hello(Hello { own: vec![(replica(1), Seq(1))], ..hello(1) })]);
    world.welcome(a);
    let honest = writer.commit(&[seg(0)]);
    world.send(a, &[honest]);
    assert_eq!(acked(&world.take(a)), Some(2));
    let LogEntry::Commit(logged) = world.disk.entry(3) else { panic!("{:?}", world.disk.entry(3)) };
    assert_eq!(logged.parts.len(), 1);
}
