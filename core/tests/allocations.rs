//! What decoders allocate: never more than four times the input and 64 KiB, whatever the smallest items of a list are.
//! The fuzz targets look for other inputs (`tests/fuzz`); these are the ones that are worst by what the formats say.

#[path = "../../tests/fuzz/src/count.rs"]
#[allow(dead_code, unsafe_code, missing_docs, reason = "shared with the fuzz targets")]
mod count;

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::commit::EngineKind;
use coheap_core::guard::{self, Clocks, GuardError};
use coheap_core::id::{EpochId, GenId, Offset, SegmentId, Seq, Uid};
use coheap_core::limits;
use coheap_core::log::LogEntry;
use coheap_core::segment::copy::SegmentCopy;
use coheap_core::wire::codec::{Reader, Write};
use coheap_core::wire::frame::restore::{Restore, Restored};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Down, SegmentState, Up, split};

use coheap_core::segment::Segment;
use coheap_core::segment::merge::{Merged, merge};
use count::{counted, reads};
use yrs::block::ClientID;
use yrs::{Doc, Map, OffsetKind, Options, ReadTxn, StateVector, Transact};

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
    // Commits that are held, as they are stored, ascending by their uids; before there were hashes, and with them.
    for (count, with_hashes) in [(100, false), (6000, false), (65_536, false), (65_536, true)] {
        let mut row = vec![0, 0, 0, 0, 0, 0];
        row.varint(count);
        for n in 0..count {
            row.push(1);
            Write::u64(&mut row, n << 32);
        }
        if with_hashes {
            row.push(0);
            row.extend(zeros(8 * count as usize));
        }
        let line = reads("a line", row.len(), || AdmitRow::decode(&row)).expect("it reads");
        assert!((0..count).all(|n| line.lists(Seq(1), Uid(n << 32))));
    }
}

/// Nothing of it is looked at before an engine is to have it.
#[test]
fn what_was_kept_of_a_segment() {
    let (id, engine, generation) = (SegmentId([1; 16]), EngineKind::Yrs, GenId::ZERO_YRS);
    let (epoch, position, state) = (EpochId::default(), Offset(7), Bytes::from(zeros(1 << 20)));
    let copy = SegmentCopy { id, engine, generation, epoch, position, state };
    let kept = Bytes::from(copy.encode());
    assert_eq!(reads("a copy", kept.len(), || SegmentCopy::decode(&kept)), Ok(copy));
    let claims_more = [&kept[..46], &[0xff, 0xff, 0xff, 0x7f], &kept[50..]].concat();
    let claims_more = Bytes::from(claims_more);
    assert!(reads("a copy", claims_more.len(), || SegmentCopy::decode(&claims_more)).is_err());
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

/// A clock table: so many clients from `first` on, each of this owner and with this behind it.
fn table(count: u64, first: u64, owner: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.varint(count);
    for n in 0..count {
        out.varint(first + n);
        out.extend_from_slice(&[owner; 16]);
        out.extend_from_slice(rest);
    }
    out
}

/// A next clock and runs of one clock each, by turns of two spaces.
fn runs(count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.varint(count as u64);
    out.varint(count as u64);
    out.extend((0..count).map(|n| if n == 0 { 0 } else { 4 + (n % 2) as u8 }));
    out
}

#[test]
fn clock_tables_of_the_smallest_entries_and_of_very_many_runs() {
    let decode = |bytes: &[u8]| reads("a clock table", bytes.len(), || Clocks::decode(bytes));
    // Barred clients, which have no runs; one run; as many as just need a list of their own; very many.
    for (count, owner, rest) in [
        (100, 0xff, vec![0, 0]),
        (10_000, 0xff, vec![0, 0]),
        (10_000, 1, runs(1)),
        (10_000, 1, runs(14)),
        (10_000, 1, runs(15)),
        (4_000, 1, runs(40)),
        (1, 1, runs(1 << 17)),
    ] {
        let bytes = table(count, 1, owner, &rest);
        assert_eq!(decode(&bytes).map(|clocks| clocks.len() as u64), Ok(count));
        // One that ends too early, and one that says that it is longer.
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        let mut long = Vec::new();
        long.varint(bytes.len() as u64 / 20);
        assert!(decode(&[&long[..], &table(count, 1, owner, &rest)[1..]].concat()).is_err());
    }
    // Parts that are left out: the most there may be, and more.
    let skipped = |count: usize| list(&[0], count, &[1], &[]);
    assert_eq!(decode(&skipped(4096)).map(|clocks| clocks.skipped().count()), Ok(4096));
    assert_eq!(decode(&skipped(1 << 17)), Err(GuardError::BadTable));
}

#[test]
fn headers_of_generations_of_the_smallest_lines() {
    let head = [&[1, 0, 2][..], &[3; 16], &[0]].concat();
    for voids in [0_usize, 1, 256] {
        let mut line = vec![0];
        line.varint(voids as u64);
        line.extend(vec![7; 8 * voids]);
        let count = (limits::GENERATION_HEADER_BYTES_MAX - 64) / (16 + line.len());
        let mut bytes = head.clone();
        bytes.varint(count as u64);
        for n in 0..count {
            bytes.extend_from_slice(&(n as u128).to_be_bytes());
            bytes.extend_from_slice(&line);
        }
        let decode = |bytes: &[u8]| reads("a header", bytes.len(), || GenerationHeader::decode(bytes));
        assert_eq!(decode(&bytes).map(|header| header.included.len()), Ok(count));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
}

/// A whole state: sections, and nothing deleted.
fn state(sections: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let (mut out, sections) = (Vec::new(), sections.collect::<Vec<_>>());
    out.varint(sections.len() as u64);
    out.extend(sections.concat());
    out.push(0);
    out
}

/// Items of one client from clock 0 on.
fn section(client: u64, count: u64, items: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.varint(count);
    out.varint(client);
    out.push(0);
    out.extend_from_slice(items);
    out
}

/// An item that has lost its content beside the first one of a client: the shortest there is.
fn beside(client: u64, clock: u8) -> Vec<u8> {
    let mut out = vec![0x81];
    out.varint(client);
    out.extend_from_slice(&[clock, 1]);
    out
}

/// The first element of a list.
const FIRST: [u8; 6] = [8, 1, 1, b'q', 1, 126];

#[test]
fn states_of_the_smallest_sections_and_items() {
    let whole = |bytes: &[u8]| reads("a state", bytes.len(), || guard::whole(guard::Engine::Yrs, bytes));
    let table = |bytes: &[u8]| whole(bytes).map(|clocks| clocks.len());
    // Ids of eight bytes, as replicas draw them: each client made one item, beside that of the last one, of the first one, of the
    // next one, so that all wait. Such a state passes however many clients it has.
    let (id, count) = (|n: u64| (1 << 51) + n, 10_000);
    for neighbour in [|_: u64| 10_000 - 1, |_| 0, |n| n + 1, |n: u64| n.saturating_sub(1)] {
        let sections = (0..count).map(|n| match neighbour(n) {
            of if of == n || of == count => section(id(n), 1, &FIRST),
            of => section(id(n), 1, &beside(id(of), 0)),
        });
        assert_eq!(table(&state(sections)), Ok(10_000));
    }
    // The smallest that honest replicas can make: all of them put something into an empty list at once.
    let sections = (0..count).map(|n| section(id(n), 1, &FIRST));
    assert_eq!(table(&state(sections)), Ok(10_000));
    // Ids of a byte or a few: many of them need more room than they may have.
    let few =
        |count: u64| state((0..count).map(|n| section(n, 1, &if n == 0 { FIRST.to_vec() } else { beside(0, 0) })));
    assert_eq!(table(&few(1000)), Ok(1000));
    assert_eq!(table(&few(10_000)), Err(GuardError::TooMany));
    // Two roots, and items beside the one and the other by turns.
    let turns = |count: u64| {
        let pair = [beside(1, 0), beside(1, 1)].concat().repeat(count as usize);
        [&FIRST[..], &[4, 1, 1, b't', 1, b'x'], &pair].concat()
    };
    assert_eq!(table(&state([section(1, 2 + 100_000, &turns(50_000))].into_iter())), Ok(1));
    for count in [1, 7, 8, 20, 50] {
        // The same of many clients, of which none waits.
        let all = (0..4_000).map(|n| {
            let pair = [beside(id(n), 0), beside(id(n), 1)].concat().repeat(count);
            section(id(n), 2 + 2 * count as u64, &[&FIRST[..], &[4, 1, 1, b't', 1, b'x'], &pair].concat())
        });
        assert_eq!(table(&state(all)), Ok(4_000));
    }
    // A head that promises more than comes.
    let mut promise = Vec::new();
    promise.varint(100_000);
    promise.extend(vec![0; 700_000]);
    assert!(table(&promise).is_err());
    // Everybody's deletions, and somebody's twice.
    let mut deleted = state((0..count).map(|n| section(id(n), 1, &FIRST)));
    deleted.pop();
    deleted.varint(count);
    (0..count).for_each(|n| {
        deleted.varint(id(n));
        deleted.push(0);
    });
    assert_eq!(table(&deleted), Ok(10_000));
}

#[test]
#[cfg(feature = "guard-automerge")]
fn states_of_automerge_of_the_smallest_deltas() {
    let whole = |bytes: &[u8]| reads("a state", bytes.len(), || guard::whole(guard::Engine::Automerge, bytes));
    let deltas = |delta: &[u8]| [&[0x80, 0][..], &delta.repeat(1 << 17)].concat();
    assert!(whole(&deltas(&[0])).is_err());
    assert_eq!(whole(&deltas(&[1, 0])), Ok(Clocks::default()));
}

/// A change of writer 1 that names these other actors, ascending.
#[cfg(feature = "guard-automerge")]
fn naming(others: &[Vec<u8>]) -> Vec<u8> {
    use sha2::{Digest, Sha256};

    let mut body = vec![0, 9, b'w', 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0];
    body.varint(others.len() as u64);
    others.iter().for_each(|other| body.bytes(other));
    // Register `.k` = true, by columns.
    let columns: [(u8, &[u8]); 5] =
        [(0x15, &[0x7f, 2, b'.', b'k']), (0x34, &[1]), (0x42, &[0x7f, 1]), (0x56, &[0x7f, 2]), (0x70, &[0x7f, 0])];
    body.push(columns.len() as u8);
    columns.iter().for_each(|(column, data)| body.extend_from_slice(&[*column, data.len() as u8]));
    columns.iter().for_each(|(_, data)| body.extend_from_slice(data));
    let mut chunk = vec![1];
    chunk.bytes(&body);
    let sum = Sha256::digest(&chunk);
    [&[0, 0x85, 0x6f, 0x4a, 0x83][..], &sum[..4], &chunk].concat()
}

#[test]
#[cfg(feature = "guard-automerge")]
fn deltas_of_automerge_that_name_very_many_actors() {
    let structure = |bytes: &[u8]| reads("a delta", bytes.len(), || guard::structure(guard::Engine::Automerge, bytes));
    let writers: Vec<_> = (2..40_000_u64).map(|n| [&b"w"[..], &n.to_be_bytes()].concat()).collect();
    assert_eq!(structure(&naming(&writers)).map(|summary| summary.named.len()), Ok(writers.len()));
    // The shortest that are no two alike, and nobody's.
    let short: Vec<_> = (0..40_000_u16).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(structure(&naming(&short)), Err(GuardError::UnknownClock));
}

/// A document of so many keys of its own, and its whole state.
fn document(client: u64, keys: u64) -> Bytes {
    let options = Options { client_id: ClientID::new(client), offset_kind: OffsetKind::Utf16, ..Options::default() };
    let doc = Doc::with_options(options);
    let map = doc.get_or_insert_map("r");
    let mut transaction = doc.transact_mut();
    for key in 0..keys {
        map.insert(&mut transaction, format!("k{client}.{key}"), format!("{key}"));
    }
    drop(transaction);
    doc.transact().encode_state_as_update_v1(&StateVector::default()).into()
}

#[test]
fn a_merge_has_two_documents_at_one_time() {
    let halves = [document(1000, 10_000), document(2000, 10_000)];
    let id = SegmentId::default();
    let decode = |deltas: &[Bytes]| Segment::decode(id, EngineKind::Yrs, GenId::ZERO_YRS, 0, &[], deltas).unwrap();
    let (_, one) = counted(|| decode(&halves));
    let (merged, used) = counted(|| merge(EngineKind::Yrs, &[], &halves[..1], &halves[1]));
    assert!(matches!(merged, Ok(Merged::Adds { .. })));
    assert!(used < 2 * one, "{used} bytes at one time, and {one} for one document");
}
