//! D4, D5, X25 at the relay: a generation that was made in a log that is lost comes back by a replica.

use bytes::Bytes;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::guard::{Clocks, RELAY};
use coheap_core::id::*;
use coheap_core::log::{LogEntry, RestoredSegment};
use coheap_core::relay::{ConnId, Input, Merge, NotRolled, Output};
use coheap_core::segment::Segment;
use coheap_core::segment::merge::{Merged, adopt};
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::restore::{HeldSegment, Restore, Restored, Verdict};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Bulk, Down, PartFrame, SegRef, SegmentState, Up};

use crate::world::*;

/// What replicas held of a segment before its log was lost.
pub struct Lost {
    /// The life that they were in.
    pub life: EpochId,
    /// As it was before the generation was made.
    pub before: HeldSegment,
    /// The generation, with the lines of replica 1.
    pub rolled: HeldSegment,
}

fn held(generation: GenId, header: Bytes, state: Bytes) -> HeldSegment {
    HeldSegment { id: seg(0), engine: EngineKind::Yrs, layout: 1, generation, header, state }
}

/// Replica 1 has written three commits to a segment, of which a generation was made.
pub fn rolled() -> (World, Writer, Lost) {
    let mut world = World::new();
    let writer = world.fill(1, seg(0), 3);
    let life = world.disk.recovered.epochs[0].0;
    let before = held(GenId::ZERO_YRS, Bytes::new(), writer.whole(seg(0)));
    let rolled = roll(&mut world);
    (world, writer, Lost { life, before, rolled })
}

/// Makes a generation; what a replica with the lines of replica 1 holds of it.
fn roll(world: &mut World) -> HeldSegment {
    world.input(Input::Roll { segment: seg(0) });
    let generation = world.rolled.pop().unwrap().unwrap();
    let LogEntry::Roll(entry) = world.disk.entry(world.disk.entries.len() as u64 - 1) else { panic!("no roll") };
    let document = Segment::decode(seg(0), EngineKind::Yrs, generation, 1, &entry.snapshot, &[]).unwrap();
    let header = GenerationHeader::decode(&entry.header).unwrap().of_lines(|id| id == replica(1));
    held(generation, header.encode().into(), document.whole().into())
}

/// A replica of that life gives back what it holds.
pub fn gives_back(world: &mut World, id: u8, life: EpochId, held: &HeldSegment) -> (ConnId, Verdict, SegmentState) {
    let conn = comes(world, id, life, held);
    let (verdict, state) = verdict(world, conn);
    (conn, verdict, state)
}

fn comes(world: &mut World, id: u8, life: EpochId, held: &HeldSegment) -> ConnId {
    let conn = world.open();
    world.send(conn, &[Up::Hello(back(id, life, 9, &[seg(0)]))]);
    assert!(world.welcome(conn).0.restore, "it is asked for what it holds");
    let restore =
        Restore { acked: Vec::new(), pending: Vec::new(), segments: vec![held.clone()].into(), known: Vec::new() };
    world.send(conn, &[Up::Restore(Bulk::whole(restore.encode().into()))]);
    conn
}

fn verdict(world: &mut World, conn: ConnId) -> (Verdict, SegmentState) {
    let frames = world.take(conn);
    let own = frames.iter().find_map(|frame| match frame {
        Down::Restored(frame) if frame.yours => Some(Restored::decode(&frame.bulk.bytes).unwrap()),
        _ => None,
    });
    own.unwrap_or_else(|| panic!("{frames:?}")).segments.get(0).unwrap()
}

/// The newest entry's part of the segment.
fn entry(world: &World) -> RestoredSegment {
    match world.disk.entry(world.disk.entries.len() as u64 - 1) {
        LogEntry::Restored(restore) => restore.segments.get(0).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn shows(snapshot: &[u8], deltas: &[Bytes]) -> String {
    let document = Segment::decode(seg(0), EngineKind::Yrs, GenId::ZERO_YRS, 1, snapshot, deltas).unwrap();
    format!("{:?}", document.values())
}

#[test]
fn d4_a_wiped_log_adopts_the_generation_that_a_replica_holds_with_its_header_and_clocks() {
    let (mut world, writer, lost) = rolled();
    let generation = lost.rolled.generation;
    world.roll_back(0);
    let (_, verdict, state) = gives_back(&mut world, 1, lost.life, &lost.rolled);
    assert_eq!((verdict, state.generation, state.deltas.len()), (Verdict::Merged, generation, 0));
    assert_eq!(shows(&state.snapshot, &[]), shows(&[], std::slice::from_ref(&lost.before.state)));
    let part = entry(&world);
    assert!(part.adopts && part.creates.is_some() && part.generation == generation);
    let header = GenerationHeader::decode(&part.header).unwrap();
    assert!(header.partial && header.includes(replica(1), Seq(3), writer.prev));
    assert_eq!(header.parent, GenId::ZERO_YRS);
    // R10: the relay's own writer stays the relay's.
    let (_, of, table) = world.disk.recover().clocks.remove(0);
    let clocks = Clocks::decode(&table).unwrap();
    let clients: Vec<_> = clocks.iter().map(|(client, owner, _)| (client, owner)).collect();
    assert_eq!((of, clients), (generation, vec![(generation.writer(), RELAY)]));
    // Commits are judged by it, in this life and in the next.
    for again in [false, true] {
        if again {
            world.crash();
        }
        let b = world.join(7);
        let mut other = Writer::new(7);
        let stale = other.commit(&[seg(0)]);
        world.send(b, &[stale]);
        let frames = world.take(b);
        assert!(frames.iter().any(|frame| matches!(frame, Down::Rebase { generation: of, .. } if *of == generation)));
        world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
        let frames = world.take(b);
        let Some(Down::Snapshot { bulk, .. }) = frames.first() else { panic!("{frames:?}") };
        let loaded =
            SegmentState::decode(&bulk.bytes, &mut coheap_core::wire::codec::Reader::new(&bulk.bytes)).unwrap();
        assert_eq!((loaded.generation, shows(&loaded.snapshot, &[])), (generation, shows(&state.snapshot, &[])));
    }
}

#[test]
fn x25_the_lines_of_others_are_not_raised_by_a_header_that_has_them() {
    let (mut world, _, lost) = rolled();
    world.roll_back(0);
    // Replica 2 gives it back: the header has a line of replica 1, of which this log has nothing.
    gives_back(&mut world, 2, lost.life, &lost.rolled);
    let a = world.join(1);
    let mut first = Writer::new(1);
    let one = first.commit(&[seg(1)]);
    world.send(a, &[one]);
    assert_eq!(acked(&world.take(a)), Some(1), "its line begins where this log has it");
}

#[test]
fn d4_a_log_that_was_rolled_back_adopts_what_was_made_of_all_it_has_and_its_own_lines_are_in() {
    let (mut world, _, mut lost) = rolled();
    // A replica that has none of these lines holds it.
    let header = GenerationHeader::decode(&lost.rolled.header).unwrap().of_lines(|_| false);
    lost.rolled.header = header.encode().into();
    world.roll_back(2);
    let (_, verdict, state) = gives_back(&mut world, 2, lost.life, &lost.rolled);
    assert_eq!((verdict, state.generation), (Verdict::Merged, lost.rolled.generation));
    let header = GenerationHeader::decode(&entry(&world).header).unwrap();
    assert!(header.partial && entry(&world).adopts && entry(&world).creates.is_none());
    // Two commits of replica 1 are in this log, and so in the document; of the third nobody can say.
    assert!(
        header.includes(replica(1), Seq(2), Uid(1_000_002)) && !header.includes(replica(1), Seq(3), Uid(1_000_003))
    );
    assert!(header.is_in_doubt(replica(1), Seq(3)) && !header.is_in_doubt(replica(1), Seq(2)));
    assert_eq!(GenerationHeader::decode(&state.header).unwrap().included.len(), 0, "G4");
    // X15: with what is in no line, no further generation is made.
    world.input(Input::Roll { segment: seg(0) });
    assert_eq!(world.rolled, [Err(NotRolled::Held)]);
}

#[test]
fn d4_what_was_written_since_the_rollback_stays_and_the_replica_is_told() {
    for before_it_is_merged in [true, false] {
        let (mut world, _, lost) = rolled();
        world.roll_back(2);
        // Somebody goes on in the old generation.
        let commit = Writer::new(3).commit(&[seg(0)]);
        let conn = world.join(3);
        let (verdict, state) = if before_it_is_merged {
            world.send(conn, &[commit]);
            let (_, verdict, state) = gives_back(&mut world, 2, lost.life, &lost.rolled);
            (verdict, state)
        } else {
            world.merges = Merges::Never;
            let giver = comes(&mut world, 2, lost.life, &lost.rolled);
            let Some(Output::Merge { ticket, engine, given, adopts, .. }) = world.waiting.take() else { panic!() };
            assert!(adopts);
            world.send(conn, &[commit]);
            let Merged::Adds { state, clocks } = adopt(engine, &given).unwrap() else { panic!() };
            world.input(Input::Merged { ticket, merge: Merge::Adds { state, clocks } });
            verdict(&mut world, giver)
        };
        assert_eq!((verdict, state.generation, state.deltas.len()), (Verdict::Conflict, GenId::ZERO_YRS, 3));
        assert_eq!(world.disk.recover().segments[0].generation, GenId::ZERO_YRS);
    }
}

/// What came to other segments is not in the way, however often the heap was opened in between.
#[test]
fn d4_what_was_written_to_a_segment_since_the_rollback_is_known_to_a_relay_that_opens_its_log_again() {
    // Who writes where, and whether a replica of the same life gave the segment back before.
    for (written, given, adopted) in
        [(None, false, true), (Some(seg(5)), false, true), (Some(seg(0)), false, false), (None, true, false)]
    {
        for unloads in [true, false] {
            let (mut world, _, lost) = rolled();
            world.roll_back(2);
            if let Some(segment) = written {
                world.fill(9, segment, 1);
            }
            if given {
                // From the log's entry nobody can tell in which life that was.
                assert_eq!(gives_back(&mut world, 3, lost.life, &lost.before).1, Verdict::Merged);
            }
            if unloads {
                world.unload();
            } else {
                world.crash();
            }
            let (_, verdict, state) = gives_back(&mut world, 2, lost.life, &lost.rolled);
            let expected = match adopted {
                true => (Verdict::Merged, lost.rolled.generation),
                false => (Verdict::Conflict, GenId::ZERO_YRS),
            };
            assert_eq!((verdict, state.generation), expected, "{written:?} {given} {unloads}");
        }
    }
}

#[test]
fn d4_who_was_still_in_the_earlier_generation_loses_nothing_whoever_comes_first() {
    let (mut world, _, lost) = rolled();
    world.roll_back(2);
    // What is given back of the same life, the generation was made of.
    let (_, verdict, _) = gives_back(&mut world, 3, lost.life, &lost.before);
    assert_eq!(verdict, Verdict::Merged);
    let (_, verdict, state) = gives_back(&mut world, 2, lost.life, &lost.rolled);
    assert_eq!((verdict, state.generation), (Verdict::Merged, lost.rolled.generation));
    // And the other way about.
    let (_, verdict, state) = gives_back(&mut world, 4, lost.life, &lost.before);
    assert_eq!((verdict, state.generation), (Verdict::Nothing, lost.rolled.generation));
    // Of another life of that log, nobody can say which had what.
    let other = EpochId { counter: 9, random: 99 };
    let (_, verdict, _) = gives_back(&mut world, 5, other, &lost.before);
    assert_eq!(verdict, Verdict::Conflict);
    // A second replica with the same generation is merged.
    let (_, verdict, _) = gives_back(&mut world, 6, lost.life, &lost.rolled);
    assert_eq!(verdict, Verdict::Nothing);
}

#[test]
fn d4_two_generations_were_lost_and_the_later_one_counts() {
    let (mut world, _, lost) = rolled();
    let later = roll(&mut world);
    world.roll_back(2);
    assert_eq!(gives_back(&mut world, 3, lost.life, &lost.rolled).1, Verdict::Merged);
    let (_, verdict, state) = gives_back(&mut world, 2, lost.life, &later);
    assert_eq!((verdict, state.generation), (Verdict::Merged, later.generation));
    assert_eq!(gives_back(&mut world, 4, lost.life, &lost.rolled).1, Verdict::Nothing);
    assert_eq!(gives_back(&mut world, 5, lost.life, &lost.before).1, Verdict::Nothing);
}

/// G3: what was given back with the earlier generation comes again, made anew in the one that took its place. There are not two
/// versions of it, whoever came first.
#[test]
fn d4_what_is_held_in_an_earlier_generation_is_admitted_as_it_is_made_anew_in_the_one_that_was_adopted() {
    for (adopted_first, again) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut world, _, lost) = rolled();
        world.roll_back(2);
        let mut writer = Writer::new(5);
        let first = writer.frame(&[seg(0), seg(1)]);
        let parts = first.parts.to_vec();
        let named = [seg(0), seg(1)].into_iter().zip(&parts);
        let hash = content_hash(named.map(|(id, part)| (id, part.generation, &part.bytes[..])));
        let other = HeldSegment { id: seg(1), state: writer.whole(seg(1)), ..lost.before.clone() };
        let restore = Restore {
            acked: Vec::new(),
            pending: vec![(0, first.seq, first.uid)],
            segments: vec![lost.before.clone(), other].into(),
            known: vec![(0, first.seq, first.uid, hash)],
        };
        if adopted_first {
            assert_eq!(gives_back(&mut world, 2, lost.life, &lost.rolled).1, Verdict::Merged);
        }
        let conn = world.open();
        world.send(conn, &[Up::Hello(back(5, lost.life, 9, &[seg(0), seg(1)]))]);
        assert!(world.welcome(conn).0.restore);
        world.send(conn, &[Up::Restore(Bulk::whole(restore.encode().into()))]);
        world.take(conn);
        if !adopted_first {
            assert_eq!(gives_back(&mut world, 2, lost.life, &lost.rolled).1, Verdict::Merged);
        }
        let conn = if again {
            world.crash();
            world.join(5)
        } else {
            world.take(conn);
            conn
        };
        let anew = PartFrame { generation: lost.rolled.generation, ..part(seg(0), Writer::new(6).delta(seg(0))) };
        let parts = vec![anew, parts[1].clone()];
        world.send(conn, &[Up::Commit(CommitFrame { parts: parts.into(), ..first.clone() })]);
        assert_eq!(acked(&world.take(conn)), Some(1));
        let LogEntry::Commit(commit) = world.disk.entry(world.disk.entries.len() as u64 - 1) else { panic!() };
        assert_eq!((commit.uid, commit.parts.len()), (first.uid, 2), "none of it is left out");
    }
}

#[test]
fn d5_others_get_the_generation_in_the_restored_with_their_own_lines() {
    let (mut world, writer, lost) = rolled();
    world.roll_back(2);
    let follower = |world: &mut World, id: u8| {
        let conn = world.join(id);
        world.send(conn, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
        world.take(conn);
        conn
    };
    let (a, b) = (follower(&mut world, 1), follower(&mut world, 5));
    gives_back(&mut world, 2, lost.life, &lost.rolled);
    let told = |world: &mut World, conn| {
        let frames = world.take(conn);
        let restored = frames.iter().find_map(|frame| match frame {
            Down::Restored(frame) => Some(Restored::decode(&frame.bulk.bytes).unwrap()),
            _ => None,
        });
        let (_, state) = restored.unwrap_or_else(|| panic!("{frames:?}")).segments.get(0).unwrap();
        assert_eq!((state.generation, state.deltas.len()), (lost.rolled.generation, 0));
        assert_eq!(shows(&state.snapshot, &[]), shows(&[], std::slice::from_ref(&lost.before.state)));
        GenerationHeader::decode(&state.header).unwrap()
    };
    let (to_a, to_b) = (told(&mut world, a), told(&mut world, b));
    assert!(to_a.partial && to_a.includes(replica(1), Seq(3), writer.prev));
    assert!(to_b.partial && to_b.included.is_empty(), "G4");
}

#[test]
fn d4_a_generation_without_its_header_or_with_anothers_ends_the_connection() {
    let (_, _, lost) = rolled();
    let other =
        GenerationHeader { generation: GenId([7; 16]), ..GenerationHeader::decode(&lost.rolled.header).unwrap() };
    for held in [
        HeldSegment { header: Bytes::new(), ..lost.rolled.clone() },
        HeldSegment { header: other.encode().into(), ..lost.rolled.clone() },
        HeldSegment { header: lost.rolled.header.clone(), ..lost.before.clone() },
        HeldSegment { engine: EngineKind::Automerge, ..lost.rolled.clone() },
    ] {
        let (mut world, ..) = rolled();
        world.roll_back(0);
        let conn = comes(&mut world, 2, lost.life, &held);
        assert_eq!(world.closed(conn), Some(Code::BadFrame.close_code()));
        assert_eq!(world.relay.head(), Offset(0));
    }
}
