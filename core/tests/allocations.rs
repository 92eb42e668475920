//! What decoders allocate: never more than four times the input and 64 KiB, whatever the smallest items of a list are.
//! The fuzz targets look for other inputs (`tests/fuzz`); these are the ones that are worst by what the formats say.

#[path = "../../tests/fuzz/src/count.rs"]
#[allow(dead_code, unsafe_code, missing_docs, reason = "shared with the fuzz targets")]
mod count;

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::guard::{self, GuardError};
use coheap_core::log::LogEntry;
use coheap_core::wire::codec::{Reader, Write};
use coheap_core::wire::frame::restore::{Restore, Restored};
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Down, SegmentState, Up, split};

use count::reads;

/// A head, a count, so many times the smallest item, and what comes behind.
fn list(head: &[u8], count: usize, item: &[u8], tail: &[u8]) -> Bytes {
    let mut out = head.to_vec();
    out.varint(count as u64);
    out.extend(item.repeat(count));
    out.extend_from_slice(tail);
    out.into()
}

fn zeros(len: usize) -> Vec<u8> {
    vec![0; len]
}

#[test]
fn a_message_of_empty_frames() {
    let message = Bytes::from([&[0][..], &[0x80, 0].repeat(1 << 19)].concat());
    let count = reads("a message", message.len(), || split(&message).map(Iterator::count));
    assert_eq!(count, Ok(1 << 19));
}

#[test]
fn frames_of_the_smallest_items() {
    let up = |kind: u8, body: &Bytes| {
        let frame = reads("a frame", body.len(), || Up::decode(kind, body));
        assert!(matches!(frame, Ok(Some(_))), "{kind}: {frame:?}");
    };
    let down = |kind: u8, body: &Bytes| {
        let frame = reads("a frame", body.len(), || Down::decode(kind, body));
        assert!(matches!(frame, Ok(Some(_))), "{kind:#x}: {frame:?}");
    };
    // Parts of kind 2: kind, segment number, generation, length.
    let part = [2, 1, 0, 0];
    let commit = [&[0, 0, 1][..], &[1; 8]].concat();
    up(0x02, &list(&commit, 4096, &part, &[]));
    // Claims that are held, and keys that are done, without a name.
    up(0x09, &list(&[0, 0, 0, 0], 65_536, &[0, 0], &list(&[], 65_536, &[0], &[])));
    // An entry, names, a group, an answer to a Hello with epochs.
    let entry = [&[0, 0, 0, 1][..], &[1; 8]].concat();
    down(0x42, &list(&entry, 4096, &part, &[]));
    down(0x4f, &list(&[], 65_536, &zeros(17), &[]));
    let held = list(&[], 65_536, &[0, 0], &[]);
    let done = list(&[], 65_536, &[0], &held);
    down(0x52, &list(&[0, 0], 65_536, &zeros(16), &done));
    down(0x41, &list(&[&[1, 0, 0, 0][..], &zeros(9)].concat(), 4096, &zeros(10), &[0, 0, 0, 0, 0]));
}

#[test]
fn bulks_of_the_smallest_items() {
    let bulk = list(&[], 65_536, &zeros(17), &[]);
    assert_eq!(reads("residents", bulk.len(), || Hello::decode_residents(&bulk)).map(|all| all.len()), Ok(65_536));

    // A segment of 23 bytes, and one with very many deltas.
    let bulk = list(&[], 65_536, &zeros(23), &[]);
    assert_eq!(reads("states", bulk.len(), || SegmentState::decode_list(&bulk)).map(|all| all.len()), Ok(65_536));
    let state = list(&zeros(22), 1 << 20, &[0], &[]);
    let read = reads("a state", state.len(), || SegmentState::decode(&state, &mut Reader::new(&state)));
    assert_eq!(read.map(|state| state.deltas.len()), Ok(1 << 20));

    let places = list(&[0], 65_536, &zeros(10), &[]);
    let bulk = list(&places, 65_536, &zeros(21), &[]);
    let read = reads("a Restore", bulk.len(), || Restore::decode(&bulk)).expect("it reads");
    assert_eq!((read.pending.len(), read.segments.len()), (65_536, 65_536));

    let places = list(&[], 65_536, &zeros(25), &[0]);
    let bulk = list(&places, 65_536, &zeros(24), &[]);
    let read = reads("a Restored", bulk.len(), || Restored::decode(&bulk)).expect("it reads");
    assert_eq!((read.pending.len(), read.segments.len()), (65_536, 65_536));
}

#[test]
fn what_is_stored_of_the_smallest_items() {
    let entry = |bytes: &Bytes| reads("an entry", bytes.len(), || LogEntry::decode(bytes, &mut Reader::new(bytes)));
    let commit = list(&[&zeros(17)[..], &[1], &[1; 8], &[0]].concat(), 4096, &zeros(5), &[]);
    assert!(matches!(entry(&commit), Ok(LogEntry::Commit(commit)) if commit.parts.len() == 4096));
    let places = list(&[&[2][..], &zeros(16)].concat(), 65_536, &zeros(25), &[0]);
    let restored = list(&places, 65_536, &zeros(5), &[]);
    assert!(matches!(entry(&restored), Ok(LogEntry::Restored(restore)) if restore.segments.len() == 65_536));
    let later = list(&[4, 0, 0, 0, 0], 65_536, &[1], &[]);
    assert!(matches!(entry(&later), Ok(LogEntry::Quarantine(quarantine)) if quarantine.later().count() == 65_536));
    let row = list(&[0, 0, 0, 0, 0], 65_536, &zeros(9), &[]);
    assert!(reads("a line", row.len(), || AdmitRow::decode(&row)).is_ok());
}

/// A delta of one client whose items, texts and list elements by turns, lie between two of others: clients from `first` on,
/// no two alike if `step` is 1. All of them are deleted, too.
fn torn(count: u64, first: u64, step: u64) -> Vec<u8> {
    let client = |n: u64| first + n * step;
    let mut out = vec![1];
    out.varint(count);
    out.varint(1 << 52);
    out.push(0);
    for n in 0..count {
        let (kind, content): (u8, &[u8]) = if n % 2 == 0 { (4, &[1, b'x']) } else { (8, &[1, 126]) };
        out.push(0xc0 | kind);
        for neighbour in [2 * n, 2 * n + 1] {
            out.varint(client(neighbour));
            out.push(0);
        }
        out.extend_from_slice(content);
    }
    let deleted = if step == 0 { 1 } else { 2 * count };
    out.varint(deleted);
    for n in 0..deleted {
        out.varint(client(n));
        out.extend_from_slice(&[1, 0, 1]);
    }
    out
}

#[test]
fn a_delta_that_remembers_as_much_as_it_can() {
    let structure = |bytes: &[u8]| reads("a delta", bytes.len(), || guard::structure(guard::Engine::Yrs, bytes));
    // Ids of eight bytes, as replicas draw them: such a delta passes however long it is.
    for step in [0, 1] {
        let summary = structure(&torn(60_000, 1 << 51, step)).expect("a valid delta");
        assert_eq!((summary.beside.len(), summary.spaces.len()), (120_000, 60_000));
    }
    // Ids of a byte: a long one needs more room than it may have.
    assert!(structure(&torn(1000, 1, 0)).is_ok());
    assert_eq!(structure(&torn(60_000, 1, 0)), Err(GuardError::TooMany));
}
