//! Restores at their bounds: what many lines, many segments and large states cost a relay, and that nothing of it is lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::guard::Clocks;
use coheap_core::id::*;
use coheap_core::limits;
use coheap_core::log::{LogEntry, StoredRestore};
use coheap_core::relay::{ConnId, Folded, Input, Merge, Output};
use coheap_core::wire::frame::restore::{HeldSegment, Restore, Restored, Verdict};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Assembly, Bulk, Chunk, Down, SegRef, Up};

use crate::world::*;

/// A life of the log that the relay knows nothing of.
const LOST: EpochId = EpochId { counter: 5, random: 55 };

/// The id of a replica of which there are many.
fn one_of(n: u64) -> ReplicaId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    ReplicaId(id)
}

/// A replica of these ids comes from the life that is lost, and is asked for what it holds.
fn come(world: &mut World, own: impl IntoIterator<Item = ReplicaId>, segments: &[SegmentId]) -> ConnId {
    let conn = world.open();
    let own = own.into_iter().map(|id| (id, Seq(0))).collect();
    world.send(conn, &[Up::Hello(Hello { own, ..back(7, LOST, 9, segments) })]);
    assert!(world.welcome(conn).0.restore, "it is asked for what it holds");
    conn
}

/// Sends a Restore of any length.
fn give(world: &mut World, conn: ConnId, restore: &Restore) {
    let piece = limits::CHUNK_BYTES_MAX;
    let mut rest = Bytes::from(restore.encode());
    if rest.len() <= piece {
        return world.send(conn, &[Up::Restore(Bulk::whole(rest))]);
    }
    world.send(conn, &[Up::Restore(Bulk { stream: 2, bytes: rest.split_to(piece) })]);
    while !rest.is_empty() {
        let bytes = rest.split_to(rest.len().min(piece));
        world.send(conn, &[Up::Chunk(Chunk { stream: 2, last: rest.is_empty(), bytes })]);
    }
}

fn held(id: SegmentId, state: Bytes) -> HeldSegment {
    let (engine, generation) = (EngineKind::Yrs, GenId::ZERO_YRS);
    HeldSegment { id, engine, layout: 1, generation, header: Bytes::new(), state }
}

/// What became of each segment that was given back, by the own Restored.
fn verdicts(frames: Vec<Down>) -> Vec<Verdict> {
    let all = assembled(frames);
    assert_eq!(all.len(), 1, "one verdict");
    all[0].segments.iter().map(|(verdict, _)| verdict).collect()
}

fn stored(world: &World, offset: usize) -> StoredRestore {
    match world.disk.entry(offset as u64) {
        LogEntry::Restored(restore) => restore,
        other => panic!("{other:?}"),
    }
}

/// The worker says what each segment adds, in turn: so many bytes, or nothing. What they are, a relay does not look at.
fn merged(world: &mut World, adds: &[usize]) {
    for bytes in adds {
        let Some(Output::Merge { ticket, .. }) = world.waiting.take() else { panic!("it is merged") };
        let state = Bytes::from(vec![0; *bytes]);
        let adds = Merge::Adds { state, clocks: Clocks::default() };
        let merge = if *bytes == 0 { Merge::Nothing } else { adds };
        world.input(Input::Merged { ticket, merge });
    }
    assert!(world.waiting.is_none(), "that was all");
}

/// What a connection was sent of Restoreds, put together as a replica does it.
fn assembled(frames: Vec<Down>) -> Vec<Restored> {
    let (mut assembly, mut all) = (Assembly::new(), Vec::new());
    for frame in frames {
        let whole = match frame {
            Down::Restored(frame) => assembly.head((), frame.bulk).expect("it has room"),
            Down::Chunk(chunk) => assembly.chunk(&chunk).expect("it has room"),
            _ => None,
        };
        all.extend(whole.map(|((), bulk)| Restored::decode(&bulk).expect("it reads")));
    }
    all
}

fn is_busy(frames: &[Down]) -> bool {
    matches!(frames, [Down::Busy { owner: 0, seq: Seq(0), code: 15, .. }])
}

/// So many lines of which a Restored holds a commit.
fn list_lines(world: &mut World, lines: u64) {
    for first in (0..lines).step_by(64) {
        let ids = first..lines.min(first + 64);
        let conn = come(world, ids.clone().map(one_of), &[]);
        let pending = (0..).zip(ids).map(|(of, n)| (of, Seq(1), Uid(77_000_000 + n))).collect();
        give(world, conn, &Restore { pending, ..Restore::default() });
        world.input(Input::Closed { conn });
    }
}

/// D4, R2: whether a commit is held is asked for each that comes, and no line is looked at for it but the one that holds it.
#[test]
fn d4_a_commit_costs_no_more_for_what_is_held_of_other_lines() {
    let cost = |lines: u64| {
        let mut world = World::new();
        world.fill(1, seg(0), 1);
        list_lines(&mut world, lines);
        let (conn, mut writer) = (world.join(3), Writer::new(3));
        let commits: Vec<_> = (0..200).map(|_| writer.commit(&[seg(2)])).collect();
        let begun = Instant::now();
        for commit in commits {
            world.send(conn, &[commit]);
        }
        let took = begun.elapsed();
        assert_eq!(acked(&world.take(conn)), Some(200));
        took
    };
    // It was fifty times as much.
    let (few, many) = (cost(0).max(Duration::from_millis(20)), cost(10_000));
    assert!(many < few * 10, "{many:?} for 200 commits, and {few:?} where nothing is held");
}

/// D4: as many commits as a Restore can name are compared with the log once, not once for each segment that it has.
#[test]
fn d4_a_restore_of_many_segments_costs_no_more_for_the_commits_that_it_knows() {
    let cost = |segments: u32| {
        let mut world = World::new();
        let (conn, mut writer) = (world.join(1), Writer::new(1));
        let id = |n: u32| SegmentId([9, 9, (n >> 8) as u8, n as u8, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        let delta = Writer::new(3).delta(seg(0));
        let frame = writer.frame_of((0..segments).map(|n| part(id(n), delta.clone())).collect());
        world.send(conn, &[Up::Commit(frame)]);
        let giver = come(&mut world, [one_of(0)], &[]);
        let known = (0..limits::RESTORE_KNOWN_MAX as u64).map(|n| (0, Seq(1000 + n), Uid(1_000_000_000 + n), 5));
        // Of another engine than the log's: nothing is merged.
        let (engine, generation) = (EngineKind::Automerge, GenId::ZERO_AUTOMERGE);
        let segments = (0..segments).map(|n| HeldSegment { engine, generation, ..held(id(n), Bytes::new()) });
        let restore = Restore { known: known.collect(), segments: segments.collect(), ..Restore::default() };
        let begun = Instant::now();
        give(&mut world, giver, &restore);
        let took = begun.elapsed();
        assert!(verdicts(world.take(giver)).iter().all(|verdict| *verdict == Verdict::Conflict));
        took
    };
    let (few, many) = (cost(1).max(Duration::from_millis(20)), cost(300));
    assert!(many < few * 8, "{many:?} with 300 segments, and {few:?} with one");
}

/// D4: two halves that are each within bounds need not be together. What the log has stays, and of the rest nothing is lost.
#[test]
fn d4_a_segment_that_would_be_too_large_is_not_merged_and_its_giver_is_told() {
    for (bytes, verdict) in [
        (limits::LONG_BYTES_MAX + 1, Verdict::Conflict),
        (limits::SEGMENT_BYTES_HARD + 1, Verdict::Conflict),
        (limits::SEGMENT_BYTES_HARD, Verdict::Merged),
    ] {
        let mut world = World::new();
        let writer = world.fill(1, seg(0), 1);
        let giver = come(&mut world, [replica(2)], &[]);
        world.merges = Merges::Never;
        let segments = [0, 1].map(|n| held(seg(n), writer.whole(seg(0))));
        let pending = vec![(0, Seq(1), Uid(1))];
        give(&mut world, giver, &Restore { pending, segments: segments.into_iter().collect(), ..Restore::default() });
        merged(&mut world, &[bytes, 100]);
        let restore = stored(&world, 1);
        let given: Vec<_> = restore.segments.iter().map(|part| (part.segment, part.state.len())).collect();
        let both = [(SegmentNumber(0), bytes), (SegmentNumber(1), 100)];
        let taken = verdict == Verdict::Merged;
        assert_eq!(given, if taken { &both[..] } else { &both[1..] });
        // It may be a part of that commit that is not there.
        assert_eq!(restore.pending.len(), usize::from(taken));
        assert_eq!(verdicts(world.take(giver)), [verdict, Verdict::Merged]);
    }
}

/// D4, D5: a Restored is one message to who follows all of it. What has no room in it is given again, and then the lines go on.
#[test]
fn d4_states_that_are_too_large_together_come_in_several_entries() {
    const SIZE: usize = 30 << 20;
    let mut world = World::new();
    let (follower, mut writer) = (world.join(1), Writer::new(1));
    let three = [seg(0), seg(1), seg(2)];
    let commit = writer.commit(&three);
    world.send(follower, &[commit]);
    world.take(follower);
    world.merges = Merges::Never;
    let restore = Restore {
        acked: vec![(0, Seq(5), Uid(5))],
        pending: vec![(0, Seq(6), Uid(6))],
        segments: three.iter().map(|id| held(*id, writer.whole(*id))).collect(),
        known: vec![(0, Seq(6), Uid(6), 6)],
    };
    let giver = come(&mut world, [replica(2)], &[]);
    give(&mut world, giver, &restore);
    merged(&mut world, &[SIZE; 3]);
    assert!(is_busy(&world.take(giver)), "once more");
    let first = stored(&world, 1);
    assert_eq!(first.segments.iter().map(|part| part.state.len()).collect::<Vec<_>>(), [SIZE; 2]);
    let lists = |restore: &StoredRestore| (restore.acked.len(), restore.pending.len(), restore.known.len());
    assert_eq!(lists(&first), (0, 0, 0), "not all of it is here");
    give(&mut world, giver, &restore);
    merged(&mut world, &[0, 0, SIZE]);
    let second = stored(&world, 2);
    assert_eq!(second.segments.iter().map(|part| part.state.len()).collect::<Vec<_>>(), [0, 0, SIZE]);
    assert_eq!(lists(&second), (1, 1, 1));
    let told = assembled(world.take(follower));
    assert_eq!(told.iter().map(|restored| restored.segments.len()).collect::<Vec<_>>(), [2, 1]);
    // Its own has all that it follows, and beside it what the log had before: that is to be folded.
    assert_eq!((world.closed(giver), world.folds.len()), (Some(4015), 1));
}

/// D4: one of the segments does not go with what the log has, and it comes behind those that there is room for.
#[test]
fn d4_nothing_is_taken_if_one_clashes_though_there_is_no_room_for_all() {
    let mut world = World::new();
    let writer = world.fill(1, seg(0), 1);
    world.merges = Merges::Never;
    let giver = come(&mut world, [replica(2)], &[]);
    let segments = (0..4).map(|n| held(seg(n), writer.whole(seg(0)))).collect();
    give(&mut world, giver, &Restore { segments, ..Restore::default() });
    for _ in 0..3 {
        let Some(Output::Merge { ticket, .. }) = world.waiting.take() else { panic!("it is merged") };
        let state = Bytes::from(vec![0; 40 << 20]);
        world.input(Input::Merged { ticket, merge: Merge::Adds { state, clocks: Clocks::default() } });
    }
    let Some(Output::Merge { ticket, .. }) = world.waiting.take() else { panic!("it is merged") };
    world.input(Input::Merged { ticket, merge: Merge::Clashes });
    assert_eq!(stored(&world, 1).segments.len(), 0);
    assert_eq!(verdicts(world.take(giver)), [Verdict::Conflict; 4]);
}

/// D4: the header of a generation that is adopted has all lines of the log, and so has that of the next one.
#[test]
fn d4_generations_with_long_headers_come_in_several_entries() {
    const SEGMENTS: u8 = 12;
    let mut world = World::new();
    world.fill(1, seg(30), 1);
    let lines: Vec<_> = (0..45_000).map(|n| (one_of(n), coheap_core::wire::frame::roll::Included::default())).collect();
    let mut writer = Writer::new(2);
    let segments = (0..SEGMENTS).map(|n| {
        writer.frame(&[seg(n)]);
        let generation = GenId([n + 1; 16]);
        let included = lines.iter().cloned().collect::<std::collections::BTreeMap<_, _>>().into();
        let header = GenerationHeader { generation, parent: GenId::ZERO_YRS, partial: false, included }.encode();
        assert!(header.len() > 700_000, "{}", header.len());
        HeldSegment { generation, header: header.into(), ..held(seg(n), writer.whole(seg(n))) }
    });
    let segments = segments.collect();
    let restore = Restore { acked: vec![(0, Seq(writer.seq), writer.prev)], segments, ..Restore::default() };
    let giver = come(&mut world, [replica(2)], &[]);
    give(&mut world, giver, &restore);
    assert!(is_busy(&world.take(giver)), "once more");
    give(&mut world, giver, &restore);
    assert_eq!(verdicts(world.take(giver)).len(), usize::from(SEGMENTS));
    assert_eq!(world.disk.entries.len(), 3);
    for (entry, many) in [(1, 6..=11), (2, 1..=6)] {
        let (adopted, bytes): (Vec<_>, Vec<_>) = stored(&world, entry)
            .segments
            .iter()
            .filter(|part| part.adopts)
            .map(|part| (part.segment, part.header.len()))
            .unzip();
        assert!(many.contains(&adopted.len()), "{adopted:?}");
        assert!(bytes.iter().sum::<usize>() <= 9 << 20, "{bytes:?}");
    }
    let generations: Vec<_> = world.disk.recover().segments.iter().skip(1).map(|row| row.generation).collect();
    assert_eq!(generations, (0..SEGMENTS).map(|n| GenId([n + 1; 16])).collect::<Vec<_>>());
}

/// D6: what was given back of a segment lies beside what the log had of it until it is folded. It is not full for that.
#[test]
fn d6_a_segment_that_is_there_twice_until_it_is_folded_refuses_nothing() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 1);
    for id in [2, 3] {
        world.merges = Merges::Never;
        let giver = come(&mut world, [replica(id)], &[]);
        let segments = [held(seg(0), writer.whole(seg(0)))].into_iter().collect();
        give(&mut world, giver, &Restore { segments, ..Restore::default() });
        merged(&mut world, &[40 << 20]);
        world.input(Input::Closed { conn: giver });
    }
    let conn = world.open();
    world.send(conn, &[Up::Hello(Hello { own: vec![(replica(1), Seq(1))], ..hello(1) })]);
    world.take(conn);
    let commit = writer.commit(&[seg(0)]);
    world.send(conn, std::slice::from_ref(&commit));
    let frames = world.take(conn);
    assert!(matches!(frames[..], [Down::Busy { owner: 0, seq: Seq(2), .. }]), "{frames:?}");
    let number = SegmentNumber(0);
    let folded = Folded { deltas: 3, bytes: 80 << 20, snapshot_bytes: 40 << 20 };
    world.input(Input::Folded { segment: number, folded: Some(folded), floor: Offset(0), holder: None });
    world.send(conn, &[commit]);
    assert_eq!(acked(&world.take(conn)), Some(2));
}

/// L1, R1: what is there twice until it is folded is in no message that is too long. Who asks for it comes again.
#[test]
fn d4_what_is_there_twice_is_not_sent_before_it_is_folded() {
    let mut world = World::new();
    let writer = world.fill(1, seg(0), 1);
    for id in [2, 3] {
        world.merges = Merges::Never;
        let giver = come(&mut world, [replica(id)], &[]);
        let segments = [held(seg(0), writer.whole(seg(0)))].into_iter().collect();
        give(&mut world, giver, &Restore { segments, ..Restore::default() });
        merged(&mut world, &[42 << 20]);
        world.input(Input::Closed { conn: giver });
    }
    for (folded, code) in [(false, 4015), (true, 4004)] {
        if folded {
            // The worker fails at it, and there are not enough deltas for it to be tried again.
            world.input(Input::Folded { segment: SegmentNumber(0), folded: None, floor: Offset(0), holder: None });
            world.input(Input::Folded { segment: SegmentNumber(0), folded: None, floor: Offset(0), holder: None });
        }
        let loads = world.join(4);
        world.send(loads, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
        assert_eq!(world.closed(loads), Some(code));
        let catches_up = world.open();
        world.send(catches_up, &[Up::Hello(back(5, LOST, 0, &[seg(0)]))]);
        assert_eq!(world.closed(catches_up), Some(code));
    }
}

/// The worker takes in what the log has, and dies over that with what one replica gives: an engine may not come to an end over two
/// things under one identity. The replica is told, and the rest of what it gives is taken.
#[test]
fn d4_what_the_worker_dies_over_again_and_again_is_a_conflict_and_not_a_wait_without_end() {
    for (replays, known, tries) in [(Replays::Well, true, 10), (Replays::Dies, true, 15), (Replays::Well, false, 15)] {
        let mut world = World::new();
        // A log that has nothing of it cannot have something else.
        world.fill(1, seg(if known { 0 } else { 2 }), 1);
        world.replays = replays;
        let writer = {
            let mut writer = Writer::new(2);
            writer.frame(&[seg(0), seg(1)]);
            writer
        };
        let conn = come(&mut world, [one_of(1)], &[seg(0), seg(1)]);
        let segments = vec![held(seg(0), writer.whole(seg(0))), held(seg(1), writer.whole(seg(1)))];
        let restore = Restore { segments: segments.into(), ..Restore::default() };
        let mut frames = Vec::new();
        for tried in 1..=tries {
            world.merges = Merges::Never;
            give(&mut world, conn, &restore);
            let Some(Output::Merge { ticket, .. }) = world.waiting.take() else { panic!("it is merged") };
            world.merges = Merges::Now;
            world.input(Input::Merged { ticket, merge: Merge::Failed });
            frames = world.take(conn);
            let again = matches!(frames[..], [Down::Busy { .. }]);
            assert_eq!(again, tried < 10 || replays == Replays::Dies || !known, "{tried}: {frames:?}");
            world.pass(60_000);
        }
        if replays == Replays::Well && known {
            assert_eq!(verdicts(frames), [Verdict::Conflict, Verdict::Merged]);
        }
        assert_eq!(world.closed(conn), None);
    }
}
