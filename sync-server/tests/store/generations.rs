//! G1, G4 in the store: a Roll's document takes the place of what lies below it, in the transaction of its entry, and its header
//! stays with the segment's bytes. L5: what came since a position is to be had alone as long as no snapshot is of a later one.

use bytes::Bytes;
use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::relay::{StateOf, StoredState};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_sync_server::{Appended, Store};
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::{Grower, picture};

use crate::world::open;

const HEAP: &str = "rolled";
const SEGMENT: SegmentNumber = SegmentNumber(0);

fn state(store: &Store, position: u64) -> StoredState {
    store.read_states(HEAP, Offset(position), &[SEGMENT], 1).unwrap().remove(0)
}

fn at(store: &Store, position: u64) -> (Bytes, Bytes, usize) {
    match state(store, position) {
        StoredState::At { header, snapshot, deltas, .. } => (header, snapshot, deltas.len()),
        other => panic!("{other:?}"),
    }
}

/// Ten commits to one segment, its Roll, and so many behind it.
fn rolled(disk: &SimDisk, behind: usize) -> (Store, Grower) {
    let store = open(disk).unwrap();
    let mut grower = Grower::new(HEAP, 5, 1);
    let mut appends = grower.grow(10).appends;
    appends.extend(grower.roll(SEGMENT, b"a fresh document").appends);
    if behind > 0 {
        appends.extend(grower.grow(behind).appends);
    }
    let all = coheap_sync_server::HeapAppend { heap: HEAP.into(), appends };
    assert_eq!(store.append(&[all]).unwrap(), [Appended::Written]);
    (store, grower)
}

#[test]
fn g1_a_generation_begins_behind_its_entry_and_the_old_one_is_not_to_be_had_any_more() {
    let disk = SimDisk::new(1);
    let (store, grower) = rolled(&disk, 3);
    assert_eq!(state(&store, 10), StoredState::NotBefore { segment: SEGMENT, position: Offset(11) });
    let (header, snapshot, deltas) = at(&store, 11);
    assert_eq!((&snapshot[..], deltas), (&b"a fresh document"[..], 0));
    assert_eq!(at(&store, 14), (header.clone(), snapshot, 3));
    let recovered = store.recover(HEAP).unwrap();
    let generation = GenerationHeader::decode(&header).unwrap().generation;
    assert_eq!(recovered.segments[0].generation, generation);
    assert_eq!(recovered.segments[0].tail.deltas, 3);
    // The clock table is of the generation, too.
    let (alone, _) = rolled(&SimDisk::new(3), 0);
    let recovered = alone.recover(HEAP).unwrap();
    assert_eq!(recovered.clocks[0].1, recovered.segments[0].generation);
    // The log has it, and says so.
    let mut lines = Vec::new();
    assert_eq!(store.dump(HEAP, &mut lines).unwrap(), grower.head());
    let text = String::from_utf8(lines).unwrap();
    assert!(text.lines().nth(10).unwrap().contains("\"kind\":\"roll\""), "{text}");
    store.verify_heap(HEAP, |_| true).unwrap();
}

#[test]
fn g4_the_header_stays_when_what_lies_behind_is_folded_and_an_older_fold_changes_nothing() {
    let disk = SimDisk::new(2);
    let (store, grower) = rolled(&disk, 3);
    let (header, before, _) = at(&store, 14);
    // It was begun before the Roll, and ends after it.
    let folded = store.fold(HEAP, SEGMENT, Offset(8), Offset(u64::MAX), b"of the old generation").unwrap();
    assert_eq!(folded.folded.deltas, 0);
    assert_eq!(at(&store, 14), (header.clone(), before, 3));
    let folded = store.fold(HEAP, SEGMENT, grower.head(), Offset(u64::MAX), b"folded").unwrap();
    assert_eq!(folded.folded.deltas, 3);
    assert_eq!(at(&store, 14), (header.clone(), Bytes::from_static(b"folded"), 0));
    store.verify_heap(HEAP, |_| true).unwrap();
    drop(store);
    let again = open(&disk).unwrap();
    assert_eq!(at(&again, 14), (header, Bytes::from_static(b"folded"), 0));
    assert!(picture(&again, HEAP).is_ok());
}

/// How many deltas are read for somebody who has all below a position, and the header; `None`: all of it is.
fn since(store: &Store, since: u64, position: u64) -> Option<(Bytes, usize)> {
    let of = StateOf { segment: SEGMENT, since: Some(Offset(since)) };
    match store.read_states(HEAP, Offset(position), &[of], 1).unwrap().remove(0) {
        StoredState::Since { header, deltas, .. } => Some((header, deltas.len())),
        StoredState::At { .. } => None,
        StoredState::NotBefore { .. } => panic!("it is of an earlier generation at {position}"),
    }
}

#[test]
fn l5_what_came_since_a_position_is_read_alone_in_one_generation_and_above_the_snapshot() {
    let disk = SimDisk::new(4);
    let (store, _) = rolled(&disk, 3);
    let (header, ..) = at(&store, 14);
    for (from, deltas) in [(11, 3), (12, 2), (13, 1), (14, 0)] {
        assert_eq!(since(&store, from, 14), Some((header.clone(), deltas)), "since {from}");
    }
    assert_eq!(since(&store, 12, 13), Some((header.clone(), 1)), "and not what came later");
    assert_eq!(since(&store, 10, 14), None, "the generation begins at 11");
    assert_eq!(since(&store, 14, 13), None, "that is beyond what is asked for");
    store.fold(HEAP, SEGMENT, Offset(13), Offset(u64::MAX), b"folded").unwrap();
    assert_eq!(since(&store, 12, 14), None, "it is in the snapshot");
    assert_eq!(since(&store, 13, 14), Some((header, 1)), "and has its header still");
    // A segment without a snapshot has all of its deltas, and no header.
    let (disk, mut grower) = (SimDisk::new(5), Grower::new(HEAP, 6, 1));
    let store = open(&disk).unwrap();
    assert_eq!(store.append(&[grower.grow(5)]).unwrap(), [Appended::Written]);
    assert_eq!(since(&store, 2, 5), Some((Bytes::new(), 3)));
}
