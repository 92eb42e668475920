//! The store against the plain model of one (`tests/sim/disk.rs`): what is read is what was written.

use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::relay::SegmentTail;
use coheap_sync_server::{Appended, HeapAppend, StoreError};
use coheap_tests::disk::PlainDisk;
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::{Grower, picture};

use crate::world::open;

#[test]
fn what_is_read_is_what_was_written_before_and_after_opening_it_again() {
    let (disk, mut model, mut grower) = (SimDisk::new(1), PlainDisk::default(), Grower::new("h", 1, 5));
    let store = open(&disk).unwrap();
    for n in 0..40 {
        let append = grower.grow(n % 7 + 1);
        model.append(append.appends[0].clone());
        model.sync();
        assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
    }
    let shown = picture(&store, "h").unwrap();
    let mut expected = model.recover();
    for (segment, of_store) in expected.segments.iter_mut().zip(&shown.recovered.segments) {
        // The model does not count; the deltas themselves are compared below.
        segment.tail = SegmentTail { end: segment.tail.end, ..of_store.tail };
    }
    assert_eq!(shown.recovered, expected);
    assert_eq!(shown.log, model.log(Offset(0), expected.head, usize::MAX));
    let numbers: Vec<_> = (0..grower.segments()).map(SegmentNumber).collect();
    assert_eq!(shown.states, model.states(expected.head, &numbers));
    for position in [0, 1, 17, 60] {
        let states = store.read_states("h", Offset(position), &numbers, usize::MAX).unwrap();
        assert_eq!(states, model.states(Offset(position), &numbers), "at {position}");
    }
    drop(store);
    assert_eq!(picture(&open(&disk).unwrap(), "h").unwrap(), shown);
}

#[test]
fn appends_that_do_not_begin_at_the_head_are_not_written() {
    let (disk, mut grower) = (SimDisk::new(2), Grower::new("h", 2, 2));
    let store = open(&disk).unwrap();
    let lost = grower.grow(2);
    let behind = grower.grow(1);
    assert_eq!(store.append(&[behind]).unwrap(), [Appended::Gap]);
    assert_eq!(store.append(&[lost]).unwrap(), [Appended::Written]);
    assert_eq!(store.recover("h").unwrap().head, Offset(2));
    assert!(matches!(store.read_log("h", Offset(2), Offset(9), 1), Err(StoreError::Gone)));
    assert!(matches!(store.read_log("nobody", Offset(0), Offset(9), 1), Err(StoreError::Gone)));
    assert_eq!(store.append(&[HeapAppend { heap: "none".into(), appends: Vec::new() }]).unwrap(), [Appended::Written]);
}

#[test]
fn s2_lines_that_were_dropped_are_gone_with_the_position_that_says_so() {
    let (disk, mut model, mut grower) = (SimDisk::new(4), PlainDisk::default(), Grower::new("h", 4, 3));
    let store = open(&disk).unwrap();
    let mut dropped = 0;
    for n in 0..30 {
        // Several in one transaction: what is dropped and begins again, or the other way about, is as it was last.
        let grown = [grower.grow(n % 3), grower.drop_and_grow(n % 4), grower.drop_and_grow(0)];
        let appends: Vec<_> = grown.into_iter().flat_map(|grown| grown.appends).collect();
        dropped +=
            appends.iter().filter_map(|append| append.dropped.as_ref()).map(|gone| gone.lines.len()).sum::<usize>();
        for append in &appends {
            model.append(append.clone());
        }
        model.sync();
        assert_eq!(store.append(&[HeapAppend { heap: "h".into(), appends }]).unwrap(), [Appended::Written]);
        let (shown, expected) = (store.recover("h").unwrap(), model.recover());
        assert_eq!((shown.admit, shown.forgotten), (expected.admit, expected.forgotten), "{n}");
    }
    assert!(dropped > 10, "{dropped} lines were dropped");
    let before = store.recover("h").unwrap();
    assert!(before.forgotten > Offset(0) && before.forgotten <= before.head);
    drop(store);
    let store = open(&disk).unwrap();
    assert_eq!(store.recover("h").unwrap(), before);
    let verified = store.verify_heap("h", |_| true).unwrap();
    assert_eq!(verified.forgotten, before.forgotten);
    let mut out = Vec::new();
    store.dump("h", &mut out).unwrap();
    let first = String::from_utf8(out).unwrap().lines().next().map(str::to_owned);
    let expected = format!("{{\"heap\":\"h\",\"kind\":\"forgotten\",\"below\":{}}}", before.forgotten.0);
    assert_eq!(first, Some(expected));
}

#[test]
fn a_store_of_another_format_is_refused_untouched() {
    let disk = SimDisk::new(3);
    drop(open(&disk).unwrap());
    let path =
        std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("format-{}.redb", std::process::id()));
    std::fs::write(&path, disk.medium()).unwrap();
    {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(redb::TableDefinition::<&str, u64>::new("store")).unwrap().insert("format", 77).unwrap();
        transaction.commit().unwrap();
    }
    let other = SimDisk::of(3, std::fs::read(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(open(&other), Err(StoreError::Format(77))));
}
