//! The same file, flipped bit by bit, shown to the library and to this reader: what the one finds, the other does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use redb::{Database, StorageBackend, TableDefinition};

use super::super::handle::contained;
use super::*;

const ROWS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("rows");
const NAMES: TableDefinition<'_, &str, u64> = TableDefinition::new("names");
const PAIRS: TableDefinition<'_, u64, u64> = TableDefinition::new("pairs");

/// A file in memory.
#[derive(Clone, Default, Debug)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let there = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..out.len()));
        out.copy_from_slice(there.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }
}

impl Look for Bytes {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        assert!(out.len() <= CHUNK);
        StorageBackend::read(self, offset, out)
    }
}

/// A file with trees of several levels, every kind of row, values of many pages, and pages that were freed; left in good order.
fn file() -> Vec<u8> {
    let bytes = Bytes::default();
    let database = Database::builder().create_with_backend(bytes.clone()).unwrap();
    for round in 0..12_u64 {
        let transaction = database.begin_write().unwrap();
        let mut rows = transaction.open_table(ROWS).unwrap();
        for n in 0..150 {
            rows.insert((n % 5, round * 150 + n), &vec![n as u8; 20 + (n * 37 % 900) as usize][..]).unwrap();
        }
        rows.insert((round, u64::MAX), &vec![round as u8; 30_000 * round as usize][..]).unwrap();
        for n in 0..round * 20 {
            rows.remove((n % 5, n)).unwrap();
        }
        let (mut names, mut pairs) = (transaction.open_table(NAMES).unwrap(), transaction.open_table(PAIRS).unwrap());
        for n in 0..100 {
            names.insert(&*format!("a name that is rather long, as names go: {}", n * round), n).unwrap();
            pairs.insert(n * 1000 + round, n).unwrap();
        }
        drop((rows, names, pairs));
        transaction.commit().unwrap();
    }
    drop(database);
    std::mem::take(&mut *bytes.0.lock().unwrap())
}

fn order(table: &str) -> Option<Order> {
    match table {
        "rows" => Some(<(u64, u64) as redb::Key>::compare),
        "names" => Some(<&str as redb::Key>::compare),
        "pairs" => Some(<u64 as redb::Key>::compare),
        _ => None,
    }
}

/// A file, and where it was looked at.
#[derive(Debug)]
struct Recorded(Bytes, Mutex<BTreeSet<u64>>);

impl Look for Recorded {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.lock().unwrap().insert(offset);
        Look::read(&self.0, offset, out)
    }
}

/// Everything that is found to be damaged, and how many pages were read, in steps.
fn found(bytes: &dyn Look, step_bytes: u64) -> (Vec<String>, u64) {
    let mut header = [0; HEADER];
    bytes.read(0, &mut header).unwrap();
    let header = match Header::decode(&header) {
        Ok(Ok(header)) => header,
        Ok(Err(what)) => return (vec![what], 0),
        Err(error) => return (vec![error.to_string()], 0),
    };
    let mut looking = Looking::new(bytes, header, u64::MAX);
    looking.system().unwrap();
    let (mut broken, mut pages) = (looking.broken, looking.pages);
    let mut place = Some(Place::default());
    while let Some(from) = place {
        let mut looking = Looking::new(bytes, header, step_bytes);
        place = looking.data(&from, order).unwrap();
        assert_ne!(place.as_ref(), Some(&from), "a step goes on");
        pages += looking.pages;
        broken.extend(looking.broken);
    }
    (broken.into_iter().map(|broken| broken.what).collect(), pages)
}

/// What the library says of the file.
fn library_finds(bytes: Vec<u8>) -> bool {
    let checked = contained(|| {
        let bytes = Bytes(Arc::new(Mutex::new(bytes)));
        let mut database = Database::builder().create_with_backend(bytes)?;
        let checked = database.check_integrity();
        drop(database);
        checked
    });
    !matches!(checked, Ok(Ok(true)))
}

#[test]
fn a_whole_file_is_whole_however_it_is_cut_into_steps() {
    assert!(!library_finds(file()));
    let bytes = Bytes(Arc::new(Mutex::new(file())));
    let look = |step_bytes| {
        let recorded = Recorded(bytes.clone(), Mutex::default());
        let (broken, pages) = found(&recorded, step_bytes);
        assert_eq!(broken, [""; 0]);
        (recorded.1.into_inner().unwrap(), pages)
    };
    let (once, pages) = look(u64::MAX);
    assert!(pages > 300, "{pages} pages");
    for step_bytes in [1, 4096, 50_000] {
        let (seen, again) = look(step_bytes);
        assert_eq!(seen, once, "what a step leaves out the next one looks at");
        assert!(again > pages);
    }
}

#[test]
fn of_the_library_s_own_trees_no_more_is_read_than_allowed() {
    let database = Bytes::default();
    let held = Database::builder().create_with_backend(database.clone()).unwrap();
    let write = |n: u64| {
        let transaction = held.begin_write().unwrap();
        let mut rows = transaction.open_table(ROWS).unwrap();
        for row in 0..200 {
            rows.insert((row * n % 7, row), &[n as u8; 2000][..]).unwrap();
        }
        drop(rows);
        transaction.commit().unwrap();
    };
    write(1);
    // Somebody reads for long: what was overwritten meanwhile is kept, and listed.
    let reader = redb::ReadableDatabase::begin_read(&held).unwrap();
    (0..40).for_each(write);
    let mut header = [0; HEADER];
    Look::read(&database, 0, &mut header).unwrap();
    let header = Header::decode(&header).unwrap().unwrap();
    let system = |most| {
        let mut looking = Looking::new(&database, header, most);
        let all = looking.system().unwrap();
        assert_eq!(looking.broken, []);
        (all, looking.bytes)
    };
    let (all, bytes) = system(u64::MAX);
    assert!(all && bytes > 60_000, "{bytes}");
    let (all, bytes) = system(30_000);
    assert!(!all && bytes < 30_000 + 2 * CHUNK as u64 && bytes < 60_000, "{bytes}");
    drop(reader);
}

#[test]
fn what_the_library_finds_is_found_and_nothing_else() {
    // The library's panics, which are contained, are not printed.
    std::panic::set_hook(Box::new(|panic| {
        if !panic.location().is_some_and(|at| at.file().contains("redb")) {
            eprintln!("{panic}");
        }
    }));
    let file = file();
    let (mut bad, mut branches) = (0, 0);
    let mut draw = 88_172_645_463_325_252_u64;
    for trial in 0..300 {
        // xorshift64
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        // Any bit of a page; every other time one of its first bytes, which tell of the others.
        let page = 1 + draw as usize % (file.len() / 4096 - 1);
        let within = if trial % 2 == 0 { (draw >> 32) as usize % 64 } else { (draw >> 32) as usize % 4096 };
        let mut flipped = file.clone();
        flipped[page * 4096 + within] ^= 1 << (draw >> 60 & 7);
        let expected = library_finds(flipped.clone());
        let step_bytes = if trial % 3 == 0 { 10_000 } else { u64::MAX };
        let (broken, _) = found(&Bytes(Arc::new(Mutex::new(flipped))), step_bytes);
        assert_eq!(!broken.is_empty(), expected, "page {page}, byte {within}: {broken:?}");
        bad += usize::from(expected);
        branches += usize::from(expected && file[page * 4096] == 2);
    }
    eprintln!("{bad} of 300 found, {branches} in branches");
    assert!(bad > 50 && bad < 280 && branches > 2, "{bad} {branches}");
}

#[test]
fn a_damaged_header_is_found() {
    let file = file();
    // The magic number, and the slot that counts.
    let slot = if file[9] & 1 == 0 { 64 } else { 192 };
    for byte in [0, 8, slot, slot + 1, slot + 10, slot + 40, slot + 104, slot + 127] {
        let mut flipped = file.clone();
        flipped[byte] ^= 4;
        assert!(!found(&Bytes(Arc::new(Mutex::new(flipped))), u64::MAX).0.is_empty(), "byte {byte}");
    }
    // The header shows the commit before: its pages are not kept any more.
    let mut flipped = file;
    flipped[9] = (flipped[9] ^ PRIMARY) & !TWO_PHASE;
    assert!(!found(&Bytes(Arc::new(Mutex::new(flipped))), u64::MAX).0.is_empty());
}

#[test]
fn a_commit_that_never_came_to_count_is_no_damage() {
    let file = file();
    let (primary, other) = if file[9] & PRIMARY == 0 { (64, 192) } else { (192, 64) };
    let mut newer = file.clone();
    newer.copy_within(primary..primary + SLOT, other);
    newer[other + 104] += 1;
    let sum = XxHash3_128::oneshot(&newer[other..other + SLOT - 16]).to_le_bytes();
    newer[other + SLOT - 16..other + SLOT].copy_from_slice(&sum);
    let is_whole = |bytes: &[u8]| found(&Bytes(Arc::new(Mutex::new(bytes.to_vec()))), u64::MAX).0.is_empty();
    // Its second phase never came.
    newer[9] |= TWO_PHASE;
    assert!(is_whole(&newer));
    // Without two phases it would count.
    newer[9] &= !TWO_PHASE;
    assert!(!is_whole(&newer));
    // But not if it is torn.
    newer[other + 20] ^= 1;
    assert!(is_whole(&newer));
}

#[test]
fn a_file_that_is_cut_off_is_found() {
    let file = file();
    let whole = Bytes(Arc::new(Mutex::new(file.clone())));
    assert!(found(&whole, u64::MAX).0.is_empty());
    let used = file.chunks(4096).rposition(|page| page.iter().any(|byte| *byte != 0)).unwrap();
    let cut = Bytes(Arc::new(Mutex::new(file[..used / 2 * 4096].to_vec())));
    assert!(!found(&cut, u64::MAX).0.is_empty());
}

/// A file with a sector that the disk has lost.
#[derive(Debug)]
struct Scratched(Bytes, u64);

impl Look for Scratched {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let touched = (offset..offset + out.len() as u64).contains(&self.1);
        if touched { Err(io::Error::from_raw_os_error(5)) } else { Look::read(&self.0, offset, out) }
    }
}

#[test]
fn a_page_that_the_disk_cannot_read_is_damaged_and_the_others_are_looked_at() {
    let bytes = Bytes(Arc::new(Mutex::new(file())));
    let mut header = [0; HEADER];
    Look::read(&bytes, 0, &mut header).unwrap();
    let header = Header::decode(&header).unwrap().unwrap();
    let look = |disk: &dyn Look| {
        let mut looking = Looking::new(disk, header, u64::MAX);
        assert_eq!(looking.data(&Place::default(), order).unwrap(), None);
        (looking.pages, looking.broken)
    };
    let (pages, broken) = look(&bytes);
    assert_eq!(broken, []);
    // Leaves, somewhere in the middle.
    let found: Vec<_> = (200..260).map(|page| look(&Scratched(bytes.clone(), page * 4096))).collect();
    let one = found.iter().find(|(same, broken)| *same == pages && broken.len() == 1).unwrap();
    assert!(one.1[0].what.ends_with("the disk cannot read it"), "{one:?}");
}

#[test]
fn a_large_page_that_the_disk_cannot_read_to_its_end_is_damaged() {
    let bytes = Bytes(Arc::new(Mutex::new(file())));
    let header = Header::read(&bytes).unwrap().unwrap();
    let recorded = Recorded(bytes.clone(), Mutex::default());
    assert_eq!(found(&recorded, u64::MAX).0, [""; 0]);
    // A leaf whose last row ends far behind, and how many there are.
    let rows = |at: u64| {
        let leaf = &bytes.0.lock().unwrap()[at as usize..];
        let rows = usize::from(leaf[2]);
        (leaf[0] == 1 && leaf[3] == 0 && small(leaf, 4 * rows) > 3 * CHUNK as u64).then_some((at, rows as u64))
    };
    let seen = recorded.1.into_inner().unwrap();
    let (large, rows) = seen.into_iter().filter(|at| at % 4096 == 0 && *at > 0).find_map(rows).unwrap();
    let look = |disk: &dyn Look| {
        let mut looking = Looking::new(disk, header, u64::MAX);
        assert_eq!(looking.data(&Place::default(), order).unwrap(), None);
        looking.broken
    };
    for behind in [CHUNK as u64, CHUNK as u64 + 5000, 2 * CHUNK as u64] {
        let broken = look(&Scratched(bytes.clone(), large + behind));
        assert!(matches!(&broken[..], [one] if one.what.ends_with("the disk cannot read it")), "{broken:?}");
    }
    // The same where it only says, wrongly, that something lies behind the first piece.
    bytes.0.lock().unwrap()[large as usize + 3] |= 0x40;
    let broken = look(&Scratched(bytes.clone(), large + CHUNK as u64 + 4 * rows));
    assert!(matches!(&broken[..], [one] if one.what.ends_with("the disk cannot read it")), "{broken:?}");
    // And if that lies behind the end of the file.
    let len = bytes.0.lock().unwrap().len().min(large as usize + CHUNK);
    bytes.0.lock().unwrap().truncate(len);
    assert!(look(&bytes).iter().any(|one| one.what.ends_with("the file ends before it")));
}
