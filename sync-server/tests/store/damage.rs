//! E10: flipped bits and cut files. What a damaged store says of a heap is exactly what was there, or an error; never
//! something else.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use coheap_core::id::{EpochId, GenId, Offset, ReplicaId, SegmentNumber, Seq, Uid};
use coheap_core::log::{LogEntry, StoredCommit, StoredPart};
use coheap_core::relay::Append;
use coheap_sync_server::{Appended, HeapAppend, StoreError};
use coheap_tests::Draws;
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::Picture;

use crate::world::{HEAPS, World, each_of, open, pictures, times, whole};

/// What came of the trials.
#[derive(Default, Debug)]
struct Outcomes {
    exact: AtomicUsize,
    refused: AtomicUsize,
    halted: AtomicUsize,
    /// Of those with a heap that halted: another one was served.
    others_served: AtomicUsize,
}

impl Outcomes {
    /// Opens a store with these bytes and compares what it says; if asked, again after it has been written to, by which
    /// damage must not vanish.
    fn try_out(&self, medium: Vec<u8>, world: &World, expected: &[Picture], write: bool, what: &str) {
        let disk = SimDisk::of(1, medium);
        let store = match open(&disk) {
            Ok(store) => store,
            Err(StoreError::Damaged(_) | StoreError::Format(_) | StoreError::Failed(_)) => {
                self.refused.fetch_add(1, Relaxed);
                return;
            }
            Err(other) => panic!("{what}: {other:?}"),
        };
        let shown = pictures(&store);
        let served = self.compare(&shown, expected, what);
        match served {
            n if n == HEAPS.len() => self.exact.fetch_add(1, Relaxed),
            0 => self.halted.fetch_add(1, Relaxed),
            _ => {
                self.others_served.fetch_add(1, Relaxed);
                self.halted.fetch_add(1, Relaxed)
            }
        };
        if !write {
            return;
        }
        // Life goes on in the heaps that are whole, and not in the others.
        let appends: Vec<_> = world.growers.clone().iter_mut().map(|grower| grower.grow(1)).collect();
        let Ok(written) = store.append(&appends) else { return };
        drop(store);
        let Ok(store) = open(&disk) else { return };
        for (n, after) in pictures(&store).into_iter().enumerate() {
            let Ok(after) = after else { continue };
            let grown = usize::from(written[n] == Appended::Written);
            let before = after.log.len() - grown;
            assert_eq!(after.log[..before], expected[n].log, "{what}: {}", HEAPS[n]);
            let head = expected[n].recovered.head.0 + grown as u64;
            assert_eq!(after.recovered.head.0, head, "{what}: {}", HEAPS[n]);
        }
    }

    fn compare(&self, shown: &[Result<Picture, StoreError>], expected: &[Picture], what: &str) -> usize {
        let mut served = 0;
        for ((shown, expected), heap) in shown.iter().zip(expected).zip(HEAPS) {
            match shown {
                Ok(shown) if shown == expected => served += 1,
                Ok(shown) => panic!("{what}: heap {heap} is silently another\n{shown:?}\n{expected:?}"),
                Err(StoreError::Damaged(_) | StoreError::Failed(_)) => {}
                Err(other) => panic!("{what}: heap {heap}: {other:?}"),
            }
        }
        served
    }
}

/// Flips one bit at a time, anywhere that something is written.
#[test]
fn a_flipped_bit_is_harmless_or_noticed() {
    let begun = Instant::now();
    let world = World::new(7, 12);
    // Without the old copies of pages that lie about: a flip in one of those is harmless.
    open(&world.disk).unwrap().compact().unwrap();
    let medium = world.disk.medium();
    let expected = whole(&open(&SimDisk::of(1, medium.clone())).unwrap());
    let pages: Vec<usize> =
        (0..medium.len() / 4096).filter(|page| medium[page * 4096..][..4096].iter().any(|byte| *byte != 0)).collect();
    let (seed, flips) = (times("COHEAP_SEED", 11) as u64, times("COHEAP_FLIPS", 10_000));
    let outcomes = Outcomes::default();
    each_of(flips, |trial| {
        let mut draws = Draws(seed << 32 | trial as u64);
        let page = pages[draws.below(pages.len())];
        let bit = page * 4096 * 8 + draws.below(4096 * 8);
        let mut flipped = medium.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        outcomes.try_out(flipped, &world, &expected, trial % 8 == 0, &format!("bit {bit}"));
    });
    let took = begun.elapsed();
    eprintln!("{flips} flips over {} pages of {} bytes: {outcomes:?} in {took:?}", pages.len(), medium.len());
    let (halted, others) = (outcomes.halted.into_inner(), outcomes.others_served.into_inner());
    assert!(outcomes.exact.into_inner() > 0 && halted > flips / 100, "the sweep hits nothing");
    assert!(others > flips / 100, "damage to one heap stops all");
}

/// Cuts the file at every byte of its last three records, and at every page.
#[test]
fn a_file_that_was_cut_off_is_refused() {
    let mut world = World::new(7, 12);
    let store = open(&world.disk).unwrap();
    let mut entries = Vec::new();
    for _ in 0..3 {
        let append = world.growers[2].grow(1);
        entries.push(append.appends[0].entries[0].clone());
        assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
    }
    drop(store);
    let medium = world.disk.medium();
    let expected = whole(&open(&SimDisk::of(1, medium.clone())).unwrap());
    let mut cuts: Vec<usize> = (1..medium.len() / 4096).map(|page| page * 4096).collect();
    for entry in &entries {
        let places = medium.windows(entry.len()).enumerate().filter(|(_, bytes)| *bytes == &entry[..]);
        let before = cuts.len();
        // A record is an entry with its header and its chain value around it; of an old copy of its page as well.
        cuts.extend(places.flat_map(|(at, _)| at - 37..=at + entry.len() + 8));
        assert!(cuts.len() > before, "the record is in the file");
    }
    let outcomes = Outcomes::default();
    each_of(cuts.len(), |trial| {
        let mut cut = medium.clone();
        cut.truncate(cuts[trial]);
        outcomes.try_out(cut, &world, &expected, trial % 8 == 0, &format!("cut at {}", cuts[trial]));
    });
    eprintln!("{} cuts of {} bytes: {outcomes:?}", cuts.len(), medium.len());
    assert!(cuts.len() > 400);
}

/// One place of the file is damaged, also by whole pages of another day: `coheap_tests::damaged`.
#[test]
fn a_page_of_another_day_is_harmless_or_noticed() {
    each_of(times("COHEAP_FLIPS", 4_000), |trial| {
        coheap_tests::damaged::trial(trial as u64).unwrap_or_else(|failure| panic!("trial {trial}: {failure}"));
    });
}

/// What lies in pages that no row of ours is read through, or in bytes that none of them has, only the library's own check of every
/// page can see: that is what `store verify` asks it for.
#[test]
fn the_check_of_the_whole_file_sees_what_no_row_shows() {
    let world = World::new(7, 12);
    let medium = world.disk.medium();
    let expected = whole(&open(&SimDisk::of(1, medium.clone())).unwrap());
    assert!(open(&SimDisk::of(1, medium.clone())).unwrap().check_file().unwrap());
    let (by_rows, by_the_file) = (AtomicUsize::new(0), AtomicUsize::new(0));
    each_of(600, |trial| {
        let mut draws = Draws(trial as u64);
        let bit = draws.below(medium.len() * 8);
        let mut flipped = medium.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(store) = open(&SimDisk::of(1, flipped)) else { return };
        let rows = store
            .verify_names()
            .and_then(|()| HEAPS.iter().try_for_each(|heap| store.verify_heap(heap, |_| true).map(drop)));
        let file = store.check_file();
        let seen = match (rows, file) {
            (Err(_), _) => &by_rows,
            (Ok(()), Ok(false) | Err(_)) => &by_the_file,
            (Ok(()), Ok(true)) => {
                assert_eq!(whole(&store), expected, "bit {bit}");
                return;
            }
        };
        seen.fetch_add(1, Relaxed);
    });
    eprintln!("600 flips: {by_rows:?} seen by rows, {by_the_file:?} by the check of the file alone");
    assert!(by_rows.into_inner() > 0 && by_the_file.into_inner() > 0);
}

/// A page of the trees as it was an append ago. Over many of those the library panics, or says nothing of use, when it opens the file
/// as it stands; the check of the whole file, with which it is opened once more, says what is wrong.
#[test]
fn a_file_that_the_library_panics_over_is_refused_by_its_check_of_the_whole() {
    let mut world = World::new(7, 12);
    let earlier = world.disk.medium();
    let store = open(&world.disk).unwrap();
    let appends: Vec<_> = world.growers.iter_mut().map(|grower| grower.grow(1)).collect();
    store.append(&appends).unwrap();
    drop(store);
    let now = world.disk.medium();
    let pages = now.len().min(earlier.len()) / 4096;
    let changed: Vec<usize> =
        (1..pages).filter(|page| now[page * 4096..][..4096] != earlier[page * 4096..][..4096]).collect();
    let (opened, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    each_of(changed.len(), |trial| {
        let bytes = changed[trial] * 4096..(changed[trial] + 1) * 4096;
        let mut medium = now.clone();
        medium[bytes.clone()].copy_from_slice(&earlier[bytes]);
        match open(&SimDisk::of(1, medium)) {
            Ok(_) => opened.fetch_add(1, Relaxed),
            Err(StoreError::Damaged(why)) => {
                assert!(!why.starts_with("the database library gave up"), "page {}: {why}", changed[trial]);
                refused.fetch_add(1, Relaxed)
            }
            Err(other) => panic!("page {}: {other:?}", changed[trial]),
        };
    });
    eprintln!("{} pages as they were: {opened:?} opened, {refused:?} refused", changed.len());
    assert!(refused.into_inner() > 2);
}

/// A heap of one author whose commits are as long as the list says, an append each; the one at `other` has bytes of its own.
fn history(lens: &[usize], other: usize, salt: u8) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (disk, owner) = (SimDisk::new(3), ReplicaId([1; 16]));
    let store = open(&disk).unwrap();
    let mut entries = Vec::new();
    for (at, len) in (0..).zip(lens) {
        let bytes = vec![if at == other { salt } else { 0 }; *len].into();
        let (segment, generation) = (SegmentNumber(0), GenId::default());
        let parts = vec![StoredPart { segment, generation, kind: 0, creates: None, bytes }].into();
        let (seq, uid) = (Seq(at as u64 + 1), Uid(at as u64 + 1));
        let mut entry = Vec::new();
        LogEntry::Commit(StoredCommit { owner, author: None, seq, uid, label: None, parts }).encode(&mut entry);
        let epoch = (at == 0).then_some((EpochId { counter: 1, random: 7 }, Offset(0)));
        let first = Offset(at as u64);
        let append = Append { first, epoch, entries: vec![entry.clone().into()], ..Append::default() };
        let append = HeapAppend { heap: "long".into(), appends: vec![append] };
        assert_eq!(store.append(&[append]).unwrap(), [Appended::Written]);
        entries.push(entry);
    }
    drop(store);
    (disk.medium(), entries)
}

/// The log is verified in steps of 1 MiB. The last record of one of them is, whole and sealed, of another history, in which everything
/// before it was the same: that only the next record shows, which is read in the next step.
#[test]
fn a_record_of_another_history_at_the_seam_of_two_steps_of_verify_is_found() {
    const STEP: usize = 1 << 20;
    // As many records behind it as are checked whenever a heap is opened, and more.
    let (large, behind) = (8 << 10, 300);
    let mut lens = vec![large; STEP / large];
    let seam = lens.len() - 1;
    lens.extend(vec![40; behind]);
    let ((other, others), (medium, entries)) = (history(&lens[..=seam], seam, 1), history(&lens, seam, 2));
    let mut steps = Vec::new();
    let store = open(&SimDisk::of(1, medium.clone())).unwrap();
    let verified = store.verify_heap("long", |bytes| {
        steps.push(bytes as usize);
        true
    });
    assert_eq!(verified.unwrap().records as usize, entries.len());
    // Each entry has its length in front of it.
    let first: usize = entries[..=seam].iter().map(|entry| 4 + entry.len()).sum();
    assert!(steps.len() == 2 && steps[0] == first && first >= STEP, "the seam is not there: {steps:?}, {first}");
    // A record is an entry with its header and its chain value around it.
    let records = |medium: &[u8], entry: &[u8]| -> Vec<std::ops::Range<usize>> {
        let places = medium.windows(entry.len()).enumerate().filter(|(_, bytes)| *bytes == entry);
        places.map(|(at, _)| at - 37..at + entry.len() + 8).collect()
    };
    let record = records(&other, &others[seam]).pop().unwrap();
    let mut spoilt = medium.clone();
    let places = records(&medium, &entries[seam]);
    assert!(!places.is_empty());
    for place in places {
        spoilt[place].copy_from_slice(&other[record.clone()]);
    }
    let store = open(&SimDisk::of(1, spoilt)).unwrap();
    assert_eq!(store.recover("long").unwrap().head, Offset(entries.len() as u64));
    assert!(matches!(store.verify_heap("long", |_| true), Err(StoreError::Damaged(_))));
}
