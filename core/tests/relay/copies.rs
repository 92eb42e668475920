//! L5: a stored copy that a Load names is gone on from where it is a beginning of what the log has, and nowhere else.

use coheap_core::id::*;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::up::Have;
use coheap_core::wire::frame::{Down, SegRef, SegmentState, SegmentStatus, Up};

use crate::world::*;

/// What the relay answers to a load of segment 0 by somebody who has this of it: whether it goes on from that, and how many deltas.
fn answer(world: &mut World, have: Have) -> (bool, usize) {
    let conn = world.join(200);
    let answer = answer_on(world, conn, have);
    world.input(coheap_core::relay::Input::Closed { conn });
    answer
}

fn answer_on(world: &mut World, conn: coheap_core::relay::ConnId, have: Have) -> (bool, usize) {
    world.take(conn);
    world.send(conn, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: Some(have) }]);
    let frames = world.take(conn);
    let found = frames.iter().find_map(|frame| match frame {
        Down::Snapshot { bulk, onto_copy, .. } => Some((bulk.clone(), *onto_copy)),
        _ => None,
    });
    let (bulk, onto_copy) = found.expect("a load is answered");
    let state = SegmentState::decode(&bulk.bytes, &mut Reader::new(&bulk.bytes)).unwrap();
    assert!(!onto_copy || state.status == SegmentStatus::Alive && state.snapshot.is_empty());
    (onto_copy, state.deltas.len())
}

fn have(world: &World, position: u64) -> Have {
    let epoch = world.disk.recovered.epochs.last().unwrap().0;
    Have { epoch, position: Offset(position), generation: GenId::ZERO_YRS }
}

#[test]
fn l5_only_what_came_since_a_copy_is_sent() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    world.fill(2, seg(1), 2);
    world.fill(3, seg(0), 2);
    for (position, since) in [(0, 5), (2, 3), (3, 2), (5, 2), (6, 1), (7, 0)] {
        let have = have(&world, position);
        assert_eq!(answer(&mut world, have), (true, since), "at {position}");
    }
}

#[test]
fn l5_a_copy_from_beyond_the_answer_is_not_gone_on_from() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let beyond = have(&world, 4);
    assert_eq!(answer(&mut world, beyond), (false, 3));
}

/// A stream that is behind gets the state as of where it is; a copy of another process may be from beyond that.
#[test]
fn l5_a_copy_from_beyond_the_stream_is_not_gone_on_from() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let beyond = have(&world, 3);
    world.crash();
    let conn = world.open();
    let load = Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: Some(beyond) };
    // The log has to be read for it, and the load comes before that.
    world.send(conn, &[Up::Hello(back(9, beyond.epoch, 1, &[])), load]);
    let frames = world.take(conn);
    let told = frames.iter().find_map(|frame| match frame {
        Down::Snapshot { position, onto_copy, .. } => Some((*position, *onto_copy)),
        _ => None,
    });
    assert_eq!(told, Some((Offset(1), false)));
    assert_eq!(offsets(&frames), [1, 2]);
}

/// [X26], [X10]: what a copy from a lost log has above the common beginning is something else in this log.
#[test]
fn l5_a_copy_is_of_a_life_of_the_log_that_is_known_and_of_what_the_next_one_began_with() {
    let mut world = World::new();
    world.fill(1, seg(0), 5);
    let first = have(&world, 5);
    world.crash();
    world.fill(2, seg(0), 1);
    let second = have(&world, 6);
    assert_ne!(first.epoch, second.epoch);
    assert_eq!(answer(&mut world, first), (true, 1), "of the life before, all up to its end");
    // The disk is as it was in the first life, and others write other things.
    world.roll_back(3);
    world.fill(3, seg(0), 4);
    let epochs: Vec<_> = world.disk.recovered.epochs.clone();
    assert_eq!((epochs.len(), epochs[0].0, epochs[1].1), (2, first.epoch, Offset(3)));
    assert_eq!(answer(&mut world, Have { position: Offset(3), ..first }), (true, 4));
    assert_eq!(answer(&mut world, Have { position: Offset(2), ..first }), (true, 5));
    assert_eq!(
        answer(&mut world, Have { position: Offset(4), ..first }),
        (false, 7),
        "past the start of the next life"
    );
    assert_eq!(answer(&mut world, first), (false, 7));
    assert_eq!(answer(&mut world, second), (false, 7), "that life is not known");
    assert_eq!(answer(&mut world, Have { position: Offset(2), ..second }), (false, 7));
}

#[test]
fn l5_a_copy_of_another_generation_is_not_gone_on_from() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let copy = have(&world, 2);
    assert_eq!(answer(&mut world, Have { generation: GenId(*b"generation89abcd"), ..copy }), (false, 3));
    assert_eq!(answer(&mut world, Have { generation: GenId::ZERO_AUTOMERGE, ..copy }), (false, 3));
    assert_eq!(answer(&mut world, copy), (true, 1));
}

/// The row is of the generation that is being written; the state that is read, of the one before.
#[test]
fn l5_a_copy_of_a_generation_that_begins_behind_the_answer_is_not_gone_on_from() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let conn = world.join(2);
    world.prompt = false;
    world.input(coheap_core::relay::Input::Roll { segment: seg(0) });
    let generation = world.unwritten.back().unwrap().segments[0].1.generation;
    assert_ne!(generation, GenId::ZERO_YRS);
    let copy = Have { generation, ..have(&world, 2) };
    assert_eq!(answer_on(&mut world, conn, copy), (false, 3));
}

#[test]
fn l5_what_is_folded_is_not_to_be_had_by_itself() {
    let mut world = World::new();
    world.fill(1, seg(0), 5);
    world.disk.snaps.insert(SegmentNumber(0), (Offset(3), vec![1, 2, 3].into()));
    let (before, at) = (have(&world, 2), have(&world, 3));
    assert_eq!(answer(&mut world, before), (false, 2));
    assert_eq!(answer(&mut world, at), (true, 2));
}

#[test]
fn l5_a_copy_of_a_segment_that_the_log_does_not_know_is_of_no_use() {
    let mut world = World::new();
    world.fill(1, seg(1), 2);
    let copy = have(&world, 1);
    assert_eq!(answer(&mut world, copy), (false, 0));
}

/// R12: a part that is left out from here on may be in a copy from before, and after a start the relay still knows that.
#[test]
fn l5_a_copy_may_have_what_was_left_out_since() {
    let mut world = World::new();
    let c = world.join(3);
    world.fill(1, seg(0), 1);
    world.fill(2, seg(0), 1);
    world.send(c, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    let copy = have(&world, 2);
    assert_eq!(answer(&mut world, copy), (true, 0));
    world.replays = Replays::FailsAt(0);
    world.send(c, &[Up::Report { segment: SegRef::Id(seg(0)), offset: Offset(0) }]);
    assert!(matches!(world.disk.entry(2), coheap_core::log::LogEntry::Quarantine(_)));
    assert_eq!(answer(&mut world, copy), (false, 1), "what is left");
    world.crash();
    assert_eq!(answer(&mut world, copy), (false, 1));
}

/// L1: from the Load on, everything that comes to the segment is in the answer or behind it, whoever has what.
#[test]
fn l5_what_comes_behind_the_answer_follows_in_the_stream() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 3);
    let (a, b) = (world.join(1), world.join(2));
    world.take(a);
    let copy = have(&world, 2);
    world.prompt = false;
    let commit = writer.commit(&[seg(0)]);
    world.send(a, &[commit]);
    assert_eq!(answer_on(&mut world, b, copy), (true, 1), "as at the cursor, not as at the head");
    world.write_all();
    assert_eq!(offsets(&world.take(b)), [3]);
}
