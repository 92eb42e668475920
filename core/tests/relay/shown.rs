//! D4 at the relay: what was acknowledged, or shown, before a log was lost is not dropped afterwards by what comes next.

use coheap_core::commit::{ClaimOf, EngineKind};
use coheap_core::id::*;
use coheap_core::log::LogEntry;
use coheap_core::relay::Input;
use coheap_core::segment::Segment;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::down::ClaimState;
use coheap_core::wire::frame::restore::{HeldSegment, Restore, Verdict};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::up::{CommitFrame, Hello};
use coheap_core::wire::frame::{Down, SegRef, SegmentState, Up};

use crate::adopt::{gives_back, rolled};
use crate::restore::{come, known, restore_of, restored, up};
use crate::world::*;

fn claim() -> ClaimOf {
    ClaimOf { group: "g".into(), run: "r".into(), key: "k".into(), grant: 5 }
}

/// What somebody hears who claims that key.
fn claimed(world: &mut World) -> ClaimState {
    let conn = world.join(9);
    let (group, run, total) = ("g".to_owned(), "r".to_owned(), 1);
    let (held, done) = (Vec::new().into(), Vec::new().into());
    world.send(conn, &[Up::Join { nonce: Nonce(1), group: group.clone(), run: run.clone(), total, held, done }]);
    world.send(conn, &[Up::Claim { nonce: Nonce(2), group, run, key: "k".into() }]);
    world.pass(3_100);
    let frames = world.take(conn);
    let states = frames.iter().filter_map(|frame| match frame {
        Down::Claimed { state, .. } => Some(*state),
        _ => None,
    });
    states.last().unwrap_or_else(|| panic!("{frames:?}"))
}

/// S27, P4: the lost log had acknowledged it, on a claim that was current then.
#[test]
fn d4_what_was_acknowledged_on_a_claim_is_taken_in_again_and_ends_it_whenever_it_comes() {
    for (claims, later) in [(false, true), (true, false), (true, true)] {
        let mut world = World::new();
        let mut writer = Writer::new(1);
        let (first, second) = (writer.frame(&[seg(0), seg(1)]), writer.frame(&[seg(0)]));
        let a = world.join(1);
        world.send(a, &[Up::Commit(first.clone()), Up::Commit(second.clone())]);
        assert_eq!(acked(&world.take(a)), Some(2));
        let epoch = world.relay_epoch();
        world.roll_back(0);
        let a = come(&mut world, 1, epoch, 2, &[seg(0)]);
        world.send(a, &[up(&Restore { known: vec![known(&first), known(&second)], ..restore_of(&writer, &[seg(0)]) })]);
        world.crash();
        let again = world.open();
        world.send(again, &[Up::Hello(Hello { own: vec![(replica(1), Seq(0))], ..hello(2) })]);
        world.welcome(again);
        if later {
            // Nobody's claims are waited for any more.
            world.pass(3_100);
        }
        world.send(again, &[Up::Commit(CommitFrame { claim: claims.then(claim), ..first.clone() })]);
        assert_eq!(acked(&world.take(again)), Some(1));
        let LogEntry::Commit(commit) = world.disk.entry(1) else { panic!("{:?}", world.disk.entry(1)) };
        assert_eq!((commit.uid, commit.parts.len()), (first.uid, 2), "claims {claims}, later {later}");
        assert_eq!(claimed(&mut world), if claims { ClaimState::Done } else { ClaimState::Granted });
    }
}

/// S27: its author has another version of what is there. What it ends is ended.
#[test]
fn d4_what_becomes_an_entry_without_its_parts_ends_its_claim() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 3);
    let epoch = world.relay_epoch();
    world.roll_back(0);
    let (seq, prev) = (writer.seq, writer.prev);
    let fourth = writer.frame(&[seg(0)]);
    let a = come(&mut world, 1, epoch, 3, &[seg(0)]);
    let pending = vec![(0, fourth.seq, fourth.uid)];
    let acked_at = vec![(0, Seq(seq), prev)];
    let given = restore_of(&writer, &[seg(0)]);
    world.send(a, &[up(&Restore { acked: acked_at, pending, known: vec![known(&fourth)], ..given })]);
    let copy = world.open();
    world.send(copy, &[Up::Hello(Hello { own: vec![(replica(1), Seq(0))], ..hello(1) })]);
    world.welcome(copy);
    let parts = vec![part(seg(0), Writer::new(7).delta(seg(0)))].into();
    world.send(copy, &[Up::Commit(CommitFrame { parts, claim: Some(claim()), ..fourth })]);
    assert_eq!(acked(&world.take(copy)), Some(4));
    let LogEntry::Commit(commit) = world.disk.entry(1) else { panic!("{:?}", world.disk.entry(1)) };
    assert_eq!(commit.parts.len(), 0);
    assert_eq!(claimed(&mut world), ClaimState::Done);
}

/// A value of that author, in what who loads the segment now is shown.
fn shows(world: &mut World, n: u8) -> bool {
    let conn = world.join(100 + n);
    world.take(conn);
    world.send(conn, &[Up::Load { segment: SegRef::Id(seg(n)), nonce: Nonce(1), have: None }]);
    let frames = world.take(conn);
    let Some(Down::Snapshot { bulk, .. }) = frames.first() else { panic!("{frames:?}") };
    let state = SegmentState::decode(&bulk.bytes, &mut Reader::new(&bulk.bytes)).unwrap();
    let deltas = state.deltas.to_vec();
    let document = Segment::decode(seg(n), EngineKind::Yrs, state.generation, 1, &state.snapshot, &deltas).unwrap();
    world.input(Input::Closed { conn });
    format!("{:?}", document.values()).contains("of A")
}

/// P3, P4: what of a commit was given back, and is on the disk, others have seen. No part of it goes if nobody is there who would
/// make it anew.
#[test]
fn d4_what_was_given_back_of_an_unacknowledged_commit_stays_whole_when_its_author_is_gone() {
    for (gone, acknowledged) in [(true, false), (false, false), (true, true)] {
        let (mut world, _, lost) = rolled();
        world.roll_back(2);
        // A comes first, with a commit to two segments.
        let mut a = Writer::new(5);
        a.seq = 40;
        let parts = vec![part(seg(0), a.delta_with(seg(0), " of A")), part(seg(1), a.delta_with(seg(1), " of A"))];
        a.seq = 0;
        let commit = a.frame_of(parts);
        let conn = come(&mut world, 5, lost.life, 9, &[seg(0), seg(1)]);
        let (acked, pending) = match acknowledged {
            true => (vec![(0, commit.seq, commit.uid)], Vec::new()),
            false => (Vec::new(), vec![(0, commit.seq, commit.uid)]),
        };
        let given = restore_of(&a, &[seg(0), seg(1)]);
        world.send(conn, &[up(&Restore { acked, pending, ..given })]);
        world.take(conn);
        assert!(shows(&mut world, 0) && shows(&mut world, 1));
        if gone {
            world.input(Input::Closed { conn });
        }
        // B had gone over to a generation that was made before the disk was lost.
        let (_, verdict, _) = gives_back(&mut world, 2, lost.life, &lost.rolled);
        // What the lost log had acknowledged, its own generation has.
        let adopts = !gone || acknowledged;
        assert_eq!(verdict, if adopts { Verdict::Merged } else { Verdict::Conflict });
        assert_eq!((shows(&mut world, 0), shows(&mut world, 1)), (!adopts, true));
        if !gone {
            // It is told, and makes it anew.
            let frames = world.take(conn);
            assert!(frames.iter().any(|frame| matches!(frame, Down::Restored(frame) if !frame.yours)), "{frames:?}");
        }
    }
}

/// R4: no generation takes the place of what a log has that has lost nothing, whoever says that it was to give one back.
#[test]
fn d4_nothing_is_adopted_from_the_life_that_goes_on() {
    // One that the log has, and one that it does not know.
    for n in [0, 7] {
        let mut world = World::new();
        world.fill(1, seg(0), 3);
        let life = world.relay_epoch();
        let mut writer = Writer::new(9);
        writer.frame(&[seg(n)]);
        let generation = GenId([7; 16]);
        let included = Default::default();
        let header = GenerationHeader { generation, parent: GenId::ZERO_YRS, partial: false, included };
        let (state, header) = (writer.whole(seg(n)), header.encode().into());
        let forged = HeldSegment { id: seg(n), engine: EngineKind::Yrs, layout: 1, generation, header, state };
        let conn = world.open();
        world.send(conn, &[Up::Hello(Hello { restoring: true, ..back(9, life, 3, &[seg(n)]) })]);
        assert!(world.welcome(conn).0.restore);
        world.send(conn, &[up(&Restore { segments: vec![forged].into(), ..Restore::default() })]);
        let (_, verdict) = restored(&world.take(conn)).remove(0);
        assert_eq!(verdict.segments.get(0).unwrap().0, Verdict::Conflict);
        let rows = world.disk.recover().segments;
        assert_eq!((rows.len(), rows[0].generation), (1, GenId::ZERO_YRS));
    }
}
