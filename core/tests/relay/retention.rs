//! §2, G4: the lines of ids that nobody goes by are dropped after the retention time, and the log says what it has forgotten.

use coheap_core::admit::AdmitTable;
use coheap_core::id::*;
use coheap_core::limits;
use coheap_core::log::LogEntry;
use coheap_core::relay::{Config, Input};
use coheap_core::time::Millis;
use coheap_core::wire::frame::Up;
use coheap_core::wire::frame::down::{Fate, Row};
use coheap_core::wire::frame::roll::GenerationHeader;

use crate::world::*;

const DAY: u64 = 24 * 3_600_000;

fn keeping() -> World {
    let mut world = World::new();
    world.config = |config| Config { retention: Some(Millis(limits::ROW_RETENTION_MS)), ..config };
    world.crash();
    world
}

/// The lines on the disk, by the digits of their ids.
fn lines(world: &World) -> Vec<u8> {
    world.disk.recover().admit.iter().map(|(id, _)| id.0[0]).collect()
}

/// What a replica that was here is told of its line, and what the log has forgotten.
fn comes_back(world: &mut World, id: u8) -> (usize, Offset) {
    let conn = world.open();
    let epoch = world.relay_epoch();
    world.send(conn, &[Up::Hello(back(id, epoch, 0, &[]))]);
    let (welcome, _) = world.welcome(conn);
    world.input(Input::Closed { conn });
    (welcome.ring.first().map_or(0, |(_, rows)| rows.len()), welcome.forgotten)
}

#[test]
fn s2_a_line_that_nobody_goes_by_is_dropped_after_thirty_days_and_the_log_says_so() {
    let mut world = keeping();
    world.fill(1, seg(0), 3);
    world.pass(20 * DAY);
    world.fill(2, seg(0), 2);
    world.pass(9 * DAY);
    assert_eq!((lines(&world), comes_back(&mut world, 1)), (vec![1, 2], (3, Offset(0))));
    world.pass(3 * DAY);
    assert_eq!((lines(&world), world.disk.recover().forgotten), (vec![2], Offset(3)));
    assert_eq!(comes_back(&mut world, 1), (0, Offset(3)));
    assert_eq!(comes_back(&mut world, 2), (2, Offset(3)));
    // Another machine knows it from the disk.
    world.crash();
    assert_eq!(comes_back(&mut world, 1), (0, Offset(3)));
    world.pass(40 * DAY);
    assert_eq!((lines(&world), world.disk.recover().forgotten), (vec![], Offset(5)));
}

#[test]
fn s2_a_line_stays_as_long_as_somebody_is_connected_under_its_id_and_is_in_headers() {
    let mut world = keeping();
    world.fill(1, seg(0), 1);
    let mut writer = Writer::new(2);
    let conn = world.join(2);
    let commit = writer.commit(&[seg(0)]);
    world.send(conn, &[commit]);
    world.fill(3, seg(0), 1);
    world.pass(40 * DAY);
    assert_eq!((lines(&world), world.closed(conn)), (vec![2], None));
    // G4: a header is of the lines that there are.
    world.input(Input::Roll { segment: seg(0) });
    assert!(world.rolled[0].is_ok());
    let LogEntry::Roll(roll) = world.disk.entry(3) else { panic!("no roll") };
    let header = GenerationHeader::decode(&roll.header).unwrap();
    assert_eq!(header.included.iter().map(|(owner, _)| owner).collect::<Vec<_>>(), [replica(2)]);
    // All are gone for a moment, and it does not come back first.
    world.crash();
    world.join(9);
    world.pass(60_000);
    assert_eq!((lines(&world), comes_back(&mut world, 2).0), (vec![2], 1));
}

#[test]
fn s2_many_idle_lines_are_dropped_a_few_at_a_time() {
    let mut world = keeping();
    let max = limits::LINES_DROPPED_MAX;
    world.fill(1, seg(0), 1);
    for n in 0..=2 * max as u64 {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let mut table = AdmitTable::default();
        let row = Row { seq: Seq(1), uid: Uid(n), fate: Fate::Admitted(1) };
        world.disk.keep_line(ReplicaId(id), table.record(ReplicaId(id), row, Offset(0), 0));
    }
    world.crash();
    world.pass(31 * DAY);
    let sizes: Vec<_> = world.disk.drops().iter().map(|(lines, ..)| *lines).collect();
    assert_eq!((sizes, lines(&world)), (vec![max, max, 2], vec![]));
}

#[test]
fn s2_rows_go_from_the_disk_with_the_position_that_says_so_or_not_at_all() {
    let mut world = keeping();
    world.fill(1, seg(0), 2);
    world.prompt = false;
    world.pass(40 * DAY);
    let append = world.unwritten.front().expect("it is to be written");
    let dropped = append.dropped.as_deref().unwrap();
    assert_eq!((append.entries.len(), &dropped.lines[..], dropped.below), (0, &[replica(1)][..], Offset(2)));
    assert_eq!(world.unwritten.len(), 1, "once a day at most");
    // Until it is, nobody unloads the heap: what would be read then is as it was before.
    world.idle = false;
    world.pass(60_000);
    assert!(!world.idle);
    // Whoever comes is told already.
    assert_eq!(comes_back(&mut world, 1), (0, Offset(2)));
    world.crash();
    world.write_all();
    assert_eq!(comes_back(&mut world, 1), (2, Offset(0)), "it was not written");
    world.pass(2 * DAY);
    world.write_all();
    world.crash();
    world.write_all();
    assert_eq!(comes_back(&mut world, 1), (0, Offset(2)));
}

#[test]
fn s2_a_drop_that_the_disk_has_no_room_for_never_was_and_is_not_tried_again_at_once() {
    let mut world = keeping();
    world.fill(1, seg(0), 1);
    world.prompt = false;
    world.pass(40 * DAY);
    world.fail(true);
    assert_eq!(comes_back(&mut world, 1), (1, Offset(0)));
    world.pass(60_000);
    assert!(world.unwritten.is_empty() && world.idle, "it is unloaded all the same");
    world.pass(2 * DAY);
    world.write_all();
    assert_eq!(comes_back(&mut world, 1), (0, Offset(1)));
}

#[test]
fn s2_a_clock_that_goes_back_drops_nothing() {
    let mut world = keeping();
    world.config = |config| Config { unix_ms: 1 << 50, retention: Some(Millis(1)), ..config };
    world.crash();
    let conn = world.join(1);
    let mut writer = Writer::new(1);
    let commit = writer.commit(&[seg(0)]);
    world.send(conn, &[commit]);
    world.config = |config| Config { unix_ms: 0, retention: Some(Millis(1)), ..config };
    world.crash();
    world.pass(100 * DAY);
    assert_eq!((lines(&world), comes_back(&mut world, 1)), (vec![1], (1, Offset(0))));
    world.config = |config| Config { unix_ms: u64::MAX, retention: Some(Millis(u64::MAX)), ..config };
    world.crash();
    world.pass(3 * DAY);
    assert_eq!(lines(&world), [1], "times have an end");
}

#[test]
fn s2_a_line_is_not_dropped_before_all_of_it_is_on_the_disk() {
    let mut world = keeping();
    world.config = |config| Config { retention: Some(Millis(1)), ..config };
    world.crash();
    world.fill(1, seg(0), 1);
    world.prompt = false;
    world.fill(2, seg(0), 1);
    world.pass(DAY);
    // The first is dropped in memory, and written with what comes next, or when all else is written.
    assert_eq!(world.unwritten.len(), 1);
    assert_eq!(comes_back_told(&mut world), Offset(1));
    world.write_all();
    assert_eq!((lines(&world), world.disk.recover().forgotten), (vec![2], Offset(1)));
}

/// What somebody new is told.
fn comes_back_told(world: &mut World) -> Offset {
    let conn = world.join(9);
    let (welcome, _) = world.welcome(conn);
    world.input(Input::Closed { conn });
    welcome.forgotten
}
