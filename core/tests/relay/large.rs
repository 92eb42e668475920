//! Restores at their bounds: what many lines, many segments and large states cost a relay, and that nothing of it is lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::id::*;
use coheap_core::limits;
use coheap_core::log::{LogEntry, StoredRestore};
use coheap_core::relay::{ConnId, Input, Merge, Output};
use coheap_core::segment::merge::{Merged, merge};
use coheap_core::wire::frame::restore::{HeldSegment, Restore, Restored, Verdict};
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Bulk, Chunk, Down, Up};

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
fn verdicts(frames: &[Down]) -> Vec<Verdict> {
    let own = frames.iter().find_map(|frame| match frame {
        Down::Restored(frame) if frame.yours => Some(Restored::decode(&frame.bulk.bytes).unwrap()),
        _ => None,
    });
    own.expect("a verdict").segments.iter().map(|(verdict, _)| verdict).collect()
}

fn stored(world: &World, offset: usize) -> StoredRestore {
    match world.disk.entry(offset as u64) {
        LogEntry::Restored(restore) => restore,
        other => panic!("{other:?}"),
    }
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
        assert!(verdicts(&world.take(giver)).iter().all(|verdict| *verdict == Verdict::Conflict));
        took
    };
    let (few, many) = (cost(1).max(Duration::from_millis(20)), cost(300));
    assert!(many < few * 8, "{many:?} with 300 segments, and {few:?} with one");
}
