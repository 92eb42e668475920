//! R1, R6 and where a stream begins.

use coheap_core::id::*;
use coheap_core::relay::Input;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Bulk, Chunk, SegRef, SegmentStatus, Up};

use crate::world::*;

#[test]
fn r1_a_new_connection_of_a_replica_closes_the_older_one_and_shuts_its_frames_out() {
    let mut world = World::new();
    let old = world.join(1);
    let new = world.join(1);
    assert_eq!(world.closed(old), Some(4009));
    let commit = Writer::new(1).commit(&[seg(0)]);
    world.send(old, std::slice::from_ref(&commit));
    assert_eq!(world.relay.head(), Offset(0));
    world.send(new, &[commit]);
    assert_eq!(world.relay.head(), Offset(1));
}

#[test]
fn r1_a_fresh_replica_starts_at_what_is_durable() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    world.prompt = false;
    let a = world.join(2);
    let commit = Writer::new(2).commit(&[seg(0)]);
    world.send(a, &[commit]);
    let b = world.join(3);
    let (welcome, states) = world.welcome(b);
    assert_eq!((welcome.position, welcome.catchup, states.len()), (Offset(3), false, 0));
    assert!(welcome.exists);
}

#[test]
fn r1_a_known_epoch_is_replayed_from_its_cut() {
    let mut world = World::new();
    let mut writer = world.fill(1, seg(0), 5);
    let epoch = world.disk.recovered.epochs[0].0;
    let b = world.open();
    world.send(b, &[Up::Hello(back(2, epoch, 2, &[seg(0)]))]);
    let (welcome, _) = world.welcome(b);
    assert_eq!((welcome.position, welcome.catchup), (Offset(2), false));
    assert_eq!(offsets(&world.take(b)), [2, 3, 4]);
    // And it is live from there on.
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, epoch, 5, &[]))]);
    let next = writer.commit(&[seg(0)]);
    world.send(a, &[next]);
    assert_eq!(offsets(&world.take(b)), [5]);
}

#[test]
fn r1_a_cut_of_an_earlier_life_counts_up_to_where_the_next_one_began() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let first = world.disk.recovered.epochs[0].0;
    world.crash();
    world.fill(2, seg(0), 2);
    let b = world.open();
    world.send(b, &[Up::Hello(back(3, first, 3, &[seg(0)]))]);
    assert_eq!(world.welcome(b).0.position, Offset(3));
    assert_eq!(offsets(&world.take(b)), [3, 4]);
    // A cut above that holds what this log has lost.
    let c = world.open();
    world.send(c, &[Up::Hello(back(4, first, 4, &[seg(0)]))]);
    assert!(world.welcome(c).0.restore);
}

#[test]
fn r1_who_comes_from_an_unknown_epoch_with_something_is_asked_for_it() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let unknown = EpochId { counter: 0, random: 999 };
    let b = world.open();
    world.send(b, &[Up::Hello(back(2, unknown, 1, &[seg(0)]))]);
    let (welcome, states) = world.welcome(b);
    assert_eq!((welcome.restore, welcome.catchup, welcome.position, states.len()), (true, false, Offset(3), 0));
    let c = world.open();
    world.send(c, &[Up::Hello(Hello { restoring: true, ..back(3, unknown, 0, &[]) })]);
    assert!(world.welcome(c).0.restore);
    // With nothing to lose it is as good as fresh.
    let d = world.open();
    world.send(d, &[Up::Hello(back(4, unknown, 0, &[seg(0)]))]);
    assert!(world.welcome(d).0.catchup);
}

/// R4: what it would give back takes the place of what the log has (D4), of which nothing is lost.
#[test]
fn r1_who_says_it_was_told_what_this_life_never_had_is_not_asked_for_it() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let life = world.relay_epoch();
    // The heap may have been unloaded, and the disk full, in between.
    for again in 0..3 {
        match again {
            0 => {}
            1 => world.unload(),
            _ => {
                world.prompt = false;
                let a = world.join(3);
                let commit = Writer::new(3).commit(&[seg(0)]);
                world.send(a, &[commit]);
                world.fail(true);
                world.pass(5_000);
                world.prompt = true;
            }
        }
        for (cut, restoring) in [(4, false), (1_000_000, false), (u64::MAX, true)] {
            let liar = world.open();
            world.send(liar, &[Up::Hello(Hello { restoring, ..back(9, life, cut, &[seg(0)]) })]);
            assert_eq!(world.closed(liar), Some(4011), "at {cut}, {again}");
        }
        // It never was told more than that, and goes on.
        let b = world.open();
        world.send(b, &[Up::Hello(back(2, life, 3, &[seg(0)]))]);
        assert!(!world.welcome(b).0.restore);
        // A replica that was to give something back to this life, and has not been told that it did, has lost nothing of it.
        let c = world.open();
        world.send(c, &[Up::Hello(Hello { restoring: true, ..back(4, life, 3, &[seg(0)]) })]);
        assert!(world.welcome(c).0.restore);
    }
    assert_eq!(world.disk.recovered.roll_hold_ms, 0);
    // What the disk has lost, the next life can tell.
    world.roll_back(2);
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, life, 3, &[seg(0)]))]);
    assert!(world.welcome(a).0.restore);
}

#[test]
fn r1_a_floor_that_somebody_else_raised_counts() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    let epoch = world.disk.recovered.epochs[0].0;
    let starts = |world: &mut World, id: u8| {
        let conn = world.open();
        world.send(conn, &[Up::Hello(back(id, epoch, 1, &[seg(0)]))]);
        world.welcome(conn).0.catchup
    };
    assert!(!starts(&mut world, 2));
    world.input(Input::Floor { floor: Offset(2) });
    assert!(starts(&mut world, 3));
}

#[test]
fn r1_below_the_floor_the_whole_state_comes_as_one_catch_up() {
    let mut world = World::new();
    world.fill(1, seg(0), 3);
    world.fill(2, seg(1), 2);
    let epoch = world.disk.recovered.epochs[0].0;
    world.disk.recovered.floor = Offset(4);
    world.unload();
    let b = world.open();
    world.send(b, &[Up::Hello(back(3, epoch, 2, &[seg(0), seg(1), seg(9)]))]);
    let (welcome, mut states) = world.welcome(b);
    assert_eq!((welcome.position, welcome.catchup), (Offset(5), true));
    states.sort_by_key(|state| state.id);
    let seen: Vec<_> = states.iter().map(|state| (state.id, state.status, state.deltas.len())).collect();
    let mut expected =
        [(seg(0), SegmentStatus::Alive, 3), (seg(1), SegmentStatus::Alive, 2), (seg(9), SegmentStatus::Unknown, 0)];
    expected.sort_by_key(|(id, _, _)| *id);
    assert_eq!(seen, expected);
    // It follows them all, the unknown one too.
    world.take(b);
    world.fill(4, seg(9), 1);
    assert_eq!(offsets(&world.take(b)), [5]);
}

#[test]
fn r1_a_large_catch_up_comes_in_chunks_and_entries_wait_for_the_last() {
    let mut world = World::new();
    let a = world.join(1);
    let mut writer = Writer::new(1);
    for n in 1..=2 {
        let delta = writer.delta_with(seg(0), &"x".repeat(900_000));
        let big = writer.frame_of(vec![part(seg(0), delta)]);
        world.send(a, &[Up::Commit(big)]);
        assert_eq!(acked(&world.take(a)), Some(n));
    }
    world.reads = false;
    let b = world.open();
    let residents = Hello::encode_residents(&[(seg(0), GenId::ZERO_YRS)]);
    world.send(b, &[Up::Hello(Hello { bulk: Bulk::whole(residents.into()), ..hello(2) })]);
    let mut next = Writer::new(3);
    let c = world.join(3);
    let commit = next.commit(&[seg(0)]);
    world.send(c, &[commit]);
    assert!(offsets(&world.links[&b].frames).is_empty());
    // It reads on.
    while world.links[&b].written > 0 {
        let bytes = std::mem::take(&mut world.links.get_mut(&b).unwrap().written);
        world.input(Input::Written { conn: b, bytes });
    }
    let (welcome, states) = world.welcome(b);
    assert_eq!((welcome.position, states[0].deltas.len()), (Offset(2), 2));
    assert_eq!(offsets(&world.take(b)), [2]);
}

#[test]
fn r1_a_hello_may_come_in_pieces() {
    let mut world = World::new();
    world.fill(1, seg(0), 1);
    let conn = world.open();
    let residents: Vec<_> = (1..=60).map(|n| (seg(n), GenId::ZERO_YRS)).collect();
    let bytes = Hello::encode_residents(&residents);
    let (head, tail) = bytes.split_at(100);
    let bulk = Bulk { stream: 1, bytes: head.to_vec().into() };
    world.send(conn, &[Up::Hello(Hello { bulk, ..hello(2) })]);
    assert!(world.take(conn).is_empty());
    let chunk = Chunk { stream: 1, last: true, bytes: tail.to_vec().into() };
    world.send(conn, &[Up::Chunk(chunk)]);
    assert_eq!(world.welcome(conn).1.len(), 60);
}

#[test]
fn r6_the_epoch_is_on_the_disk_before_a_hello_is_answered() {
    let mut world = World::new();
    world.fill(1, seg(0), 1);
    world.prompt = false;
    world.crash();
    let b = world.join(2);
    assert!(world.take(b).is_empty());
    world.write_one();
    let (welcome, _) = world.welcome(b);
    assert_eq!(welcome.epochs, world.disk.recovered.epochs);
    assert_eq!(welcome.epochs.len(), 2);
    assert_eq!(welcome.epochs[1].1, Offset(1));
    assert_eq!(welcome.lineage, welcome.epochs[0].0);
    assert_ne!(welcome.epochs[0].0.random, welcome.epochs[1].0.random);
}

#[test]
fn r6_a_heap_that_was_only_unloaded_goes_on_in_its_epoch() {
    let mut world = World::new();
    world.fill(1, seg(0), 1);
    world.unload();
    world.fill(2, seg(0), 1);
    assert_eq!(world.disk.recovered.epochs.len(), 1);
}

#[test]
fn s17_a_heap_that_nobody_writes_to_leaves_nothing_behind() {
    let mut world = World::new();
    let a = world.join(1);
    let (welcome, _) = world.welcome(a);
    assert!(!welcome.exists);
    world.send(a, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    assert!(world.disk.recovered.epochs.is_empty() && world.disk.entries.is_empty());
    let b = world.open();
    world.send(b, &[Up::Hello(Hello { must_exist: true, ..hello(2) })]);
    assert_eq!(world.closed(b), Some(4007));
}

/// R1, R5: a replica moves commits, or undoes them, for what a ring says. A row that a crash can take back would have them moved
/// here, and admitted in their old place when a copy of the replica comes.
#[test]
fn r1_a_hello_is_answered_when_all_that_the_log_has_of_its_own_ids_is_durable() {
    for survives in [true, false] {
        let mut world = World::new();
        world.fill(1, seg(0), 3);
        world.prompt = false;
        let epoch = world.disk.recovered.epochs[0].0;
        let a = world.open();
        world.send(a, &[Up::Hello(back(1, epoch, 3, &[]))]);
        assert_eq!(world.welcome(a).0.ring[0].1.len(), 3);
        let mut writer = Writer::new(1);
        for _ in 0..3 {
            writer.frame(&[seg(0)]);
        }
        let fourth = writer.commit(&[seg(0)]);
        world.send(a, &[fourth]);
        let again = world.open();
        world.send(again, &[Up::Hello(back(1, epoch, 3, &[]))]);
        assert!(world.take(again).is_empty(), "its fourth commit may still be lost");
        // What nobody else has to do with keeps nobody waiting.
        let other = world.open();
        world.send(other, &[Up::Hello(back(2, epoch, 3, &[]))]);
        assert!(world.welcome(other).0.ring.is_empty());
        if survives {
            world.write_all();
        } else {
            world.fail(true);
        }
        let (welcome, _) = world.welcome(again);
        let seqs: Vec<u64> = welcome.ring[0].1.iter().map(|row| row.seq.0).collect();
        assert_eq!(seqs, if survives { vec![1, 2, 3, 4] } else { vec![1, 2, 3] });
    }
}

#[test]
fn who_does_not_say_a_whole_hello_is_closed_and_so_is_who_speaks_before_it() {
    let mut world = World::new();
    let silent = world.open();
    world.pass(31_000);
    assert_eq!(world.closed(silent), Some(4008));
    let rude = world.open();
    world.send(rude, &[Up::Sync { nonce: Nonce(1) }]);
    assert_eq!(world.closed(rude), Some(4002));
    let garbage = world.open();
    world.input(Input::Message { conn: garbage, bytes: vec![7, 7, 7].into() });
    assert!(world.closed(garbage).is_some());
    let other = world.open();
    world.input(Input::Message { conn: other, bytes: vec![0, 1, 5, b'c', b'h', b'p', 9, 0].into() });
    assert_eq!(world.closed(other), Some(4003));
}

#[test]
fn a_machine_that_nobody_uses_says_so() {
    let mut world = World::new();
    let a = world.join(1);
    world.pass(60_000);
    assert!(!world.idle);
    world.input(Input::Closed { conn: a });
    world.pass(29_000);
    assert!(!world.idle);
    world.pass(2_000);
    assert!(world.idle);
}
