//! The scrub's look at redb's pages, while others write all the time: it finds what the check of the whole file finds when
//! nobody does, and never anything else; it holds nobody up for long, and reads no more at once than it says.

use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coheap_core::id::{Offset, SegmentNumber};
use coheap_sync_server::{Appended, Disk, Look, StorageBackend, Store, StoreError};
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::Grower;

use crate::world::{HEAPS, World, open, quietly, times, whole};

/// A disk on which it takes time to look at a page, so that many commits come between two of them.
#[derive(Debug)]
struct Watched {
    disk: SimDisk,
    seen: Arc<Seen>,
}

/// What was looked at.
#[derive(Default, Debug)]
struct Seen {
    /// So long each look takes.
    slow_us: AtomicU64,
    bytes: AtomicU64,
    largest: AtomicU64,
}

#[derive(Debug)]
struct WatchedLook(Box<dyn Look>, Arc<Seen>);

impl Disk for Watched {
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        self.disk.open()
    }

    fn look(&self) -> Result<Box<dyn Look>, StoreError> {
        Ok(Box::new(WatchedLook(self.disk.look()?, Arc::clone(&self.seen))))
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes()
    }
}

impl Look for WatchedLook {
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        std::thread::sleep(Duration::from_micros(self.1.slow_us.load(Relaxed)));
        self.1.bytes.fetch_add(out.len() as u64, Relaxed);
        self.1.largest.fetch_max(out.len() as u64, Relaxed);
        self.0.read(offset, out)
    }
}

fn watched(disk: &SimDisk) -> (Store, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let disk = Watched { disk: disk.clone(), seen: Arc::clone(&seen) };
    (Store::open_on(Box::new(disk), 0).unwrap(), seen)
}

/// Heaps that are written to until the end: commits of several sizes and, if `folds`, folds of snapshots that grow and shrink,
/// and a compaction now and then. `counts` has how many there were; an error ends it.
fn write_until(
    store: &Store,
    growers: &mut [(usize, Grower)],
    end: &AtomicBool,
    folds: bool,
    counts: &AtomicU64,
) -> Result<(), StoreError> {
    while !end.load(Relaxed) {
        let commits = counts.load(Relaxed);
        let appends: Vec<_> = growers.iter_mut().map(|(_, grower)| grower.grow(1 + commits as usize % 5)).collect();
        if !store.append(&appends)?.iter().all(|written| *written == Appended::Written) {
            return Err(StoreError::Gone);
        }
        if folds && commits % 8 == 7 {
            for (n, grower) in growers.iter() {
                let snapshot = vec![commits as u8; 1 << (commits / 8 % 18)];
                let segment = SegmentNumber(commits / 8 % grower.segments());
                store.fold(HEAPS[*n], segment, grower.head(), Offset(u64::MAX), &snapshot)?;
            }
        }
        if folds && commits % 64 == 63 {
            store.compact()?;
        }
        counts.store(commits + 1, Relaxed);
    }
    Ok(())
}

#[test]
fn a_whole_store_is_never_taken_for_damaged_whoever_writes() {
    let World { disk, growers } = World::new(7, 12);
    let (store, seen) = watched(&disk);
    let (end, counts) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut growers: Vec<_> = growers.into_iter().enumerate().collect();
    let rounds = times("COHEAP_SCRUBS", 200);
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&store, &mut growers, &end, true, &counts));
        let mut pages = 0;
        for round in 0..rounds {
            // A commit between two pages, now and then ten.
            seen.slow_us.store(if round % 15 == 0 { 4000 } else { 200 }, Relaxed);
            // In one step, a few pages at a time, and page by page.
            let step_bytes = [u64::MAX, 64 << 10, 1][round % 3];
            let checked = store.check_pages(step_bytes, |_, _| true).unwrap();
            // Before the test fails, the other thread has to end.
            end.store(!checked.damage.is_empty(), Relaxed);
            assert_eq!(checked.damage, [], "round {round}");
            pages += checked.pages;
        }
        end.store(true, Relaxed);
        writer.join().unwrap().unwrap();
        eprintln!("{rounds} scrubs of {pages} pages beside {counts:?} commits in {:?}", begun.elapsed());
    });
    let commits = counts.into_inner();
    assert!(commits > rounds as u64 / 2, "{commits}: nobody wrote");
    drop(store);
    assert!(open(&disk).unwrap().check_file().unwrap());
}

#[test]
fn a_store_whose_relay_lost_its_power_is_whole() {
    let medium = World::new(7, 4).disk.medium();
    let growers = World::new(7, 4).growers;
    let mut cut = 0;
    for trial in 0..120_u64 {
        let disk = SimDisk::of(trial, medium.clone());
        let store = open(&disk).unwrap();
        let mut growers = growers.clone();
        // The first commit after a clean end is unlike later ones.
        for _ in 0..trial % 3 {
            store.append(&[growers[0].grow(2)]).unwrap();
        }
        disk.die_at(1 + trial / 3);
        cut += usize::from(store.append(&[growers[0].grow(2)]).is_err());
        drop(store);
        disk.crash();
        let store = open(&disk).unwrap();
        let checked = store.check_pages(u64::MAX, |_, _| true).unwrap();
        assert_eq!(checked.damage, [], "trial {trial}, opened again");
        // Another one writes on.
        store.append(&[Grower::new("another", trial, 1).grow(1)]).unwrap();
        let checked = store.check_pages(u64::MAX, |_, _| true).unwrap();
        assert_eq!(checked.damage, [], "trial {trial}, written to");
    }
    assert!(cut > 10, "{cut}: the power never failed");
}

#[test]
fn what_a_step_reads_is_kept_until_it_is_done() {
    let World { disk, growers } = World::new(7, 12);
    // With hardly a page that is not in use, one that is let go of is overwritten at once.
    open(&disk).unwrap().compact().unwrap();
    let (store, seen) = watched(&disk);
    let (end, counts) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut growers: Vec<_> = growers.into_iter().enumerate().collect();
    seen.slow_us.store(2000, Relaxed);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&store, &mut growers, &end, false, &counts));
        let checked: Vec<_> = (0..2).map(|_| store.check_pages(u64::MAX, |_, _| true)).collect();
        end.store(true, Relaxed);
        writer.join().unwrap().unwrap();
        for checked in checked {
            assert_eq!(checked.unwrap().damage, []);
        }
    });
    assert!(counts.into_inner() > 50, "nobody wrote");
}

#[test]
fn a_damaged_page_is_found_while_others_write_if_the_check_of_the_whole_file_finds_it() {
    let mut world = World::new(7, 4);
    let store = open(&world.disk).unwrap();
    // Logs of many pages, and snapshots that have some of their own; nobody writes to these heaps later.
    for _ in 0..80 {
        let appends: Vec<_> = world.growers[..2].iter_mut().map(|grower| grower.grow(5)).collect();
        store.append(&appends).unwrap();
    }
    for segment in 0..world.growers[1].segments() {
        let head = world.growers[1].head();
        store.fold(HEAPS[1], SegmentNumber(segment), head, Offset(0), &vec![segment as u8; 3000]).unwrap();
    }
    store.compact().unwrap();
    drop(store);
    let medium = world.disk.medium();
    let used: Vec<usize> = (1..medium.len() / 4096).filter(|page| matches!(medium[page * 4096], 1 | 2)).collect();
    let (mut found, mut branches, mut named) = (0, 0, 0);
    for (n, page) in used.iter().enumerate().filter(|(n, page)| n % 4 == 0 || medium[**page * 4096] == 2) {
        let disk = SimDisk::of(1, medium.clone());
        let (store, _) = watched(&disk);
        let (end, counts) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut grower = vec![(2, world.growers[2].clone())];
        // The library has all of it in its cache, so that nobody but the scrub meets the damage.
        whole(&store);
        let damage = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_until(&store, &mut grower, &end, false, &counts));
            while counts.load(Relaxed) < 3 && !writer.is_finished() {
                std::thread::yield_now();
            }
            disk.rot((page * 4096 * 8 + 40 + n % 500) as u64);
            let checked = store.check_pages(64 << 10, |_, _| true);
            end.store(true, Relaxed);
            // Should it have met it all the same, that ended it.
            drop(writer.join());
            checked.map_or_else(|_| Vec::new(), |checked| checked.damage)
        });
        drop(store);
        // The page may have been overwritten, or be one that nobody uses.
        let check = || open(&disk).is_ok_and(|store| store.check_file().is_ok_and(|whole| whole));
        let is_whole = quietly(check);
        assert!(is_whole || !damage.is_empty(), "page {page} is damaged, and was not found");
        if !is_whole {
            found += 1;
            branches += usize::from(medium[page * 4096] == 2);
            named += usize::from(damage.iter().any(|damage| !damage.heaps.is_empty()));
        }
    }
    eprintln!(
        "{found} of {} pages found, {branches} of them branches, {named} with the heaps that they belong to",
        used.len()
    );
    assert!(found > 5 && branches > 0 && named > 5, "{found} {branches} {named}");
}

#[test]
fn memory_and_the_time_between_pauses_are_bounded() {
    let World { disk, growers } = World::new(7, 12);
    let (store, seen) = watched(&disk);
    // A page of 8 MiB.
    let large = vec![7; 5 << 20];
    store.fold(HEAPS[0], SegmentNumber(0), growers[0].head(), Offset(u64::MAX), &large).unwrap();
    let told = Mutex::new(Vec::new());
    let step_bytes = 32 << 10;
    let checked = store
        .check_pages(step_bytes, |bytes, _| {
            told.lock().unwrap().push(bytes);
            true
        })
        .unwrap();
    assert_eq!(checked.damage, []);
    let told = told.into_inner().unwrap();
    // All that was read is told, so that a pause can follow it.
    assert_eq!(told.iter().sum::<u64>(), seen.bytes.load(Relaxed));
    assert!(checked.bytes > large.len() as u64);
    assert!(seen.largest.load(Relaxed) <= 64 << 10, "{seen:?}");
    // But for the large one, a step ends within a page or two.
    let long: Vec<u64> = told.iter().copied().filter(|bytes| *bytes > step_bytes + (64 << 10)).collect();
    assert_eq!(long.len(), 1, "{told:?}");
    // It ends when it is told to.
    let mut steps = 0;
    store
        .check_pages(1, |_, _| {
            steps += 1;
            steps < 3
        })
        .unwrap();
    assert_eq!(steps, 3);
}

#[test]
fn a_file_is_looked_at_beside_its_lock() {
    let directory = std::env::temp_dir().join(format!("coheap-pages-{}", std::process::id()));
    let store = Store::open(&directory, 0).unwrap();
    let mut grower = Grower::new("heap", 3, 2);
    for _ in 0..40 {
        store.append(&[grower.grow(3)]).unwrap();
    }
    assert_eq!(store.check_pages(1 << 20, |_, _| true).unwrap().damage, []);
    // The look's own handle is closed, and the store is nobody else's all the same.
    assert!(matches!(Store::open(&directory, 0), Err(StoreError::InUse)));
    // One bit in every leaf, under whoever has it open.
    let path = directory.join("relay.redb");
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for page in (1..bytes.len() / 4096).filter(|page| bytes[page * 4096] == 1) {
        let at = page * 4096 + 100;
        std::os::unix::fs::FileExt::write_all_at(&file, &[bytes[at] ^ 16], at as u64).unwrap();
    }
    let checked = store.check_pages(1 << 20, |_, _| true).unwrap();
    assert!(!checked.damage.is_empty(), "{checked:?}");
    drop(store);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Pages of branches and leaves, each by its first byte.
fn pages_of(medium: &[u8]) -> Vec<u64> {
    let kinds = medium.chunks(4096).enumerate().skip(1);
    kinds.filter(|(_, page)| matches!(page[0], 1 | 2)).map(|(n, _)| n as u64 * 4096).collect()
}

#[test]
fn a_damaged_page_is_told_also_if_the_library_panics_over_it() {
    let medium = World::new(7, 12).disk.medium();
    let (mut found, mut of_heaps) = (0, 0);
    quietly(|| {
        for page in pages_of(&medium) {
            // Of no kind; of many more rows; with rows behind its end.
            for byte in [0, 3, 6] {
                let disk = SimDisk::of(1, medium.clone());
                // To close what is damaged may take the process with it.
                let store = ManuallyDrop::new(Store::open_without_cache(Box::new(disk.clone())).unwrap());
                disk.rot((page + byte) * 8 + 7);
                let checked = store.check_pages(64 << 10, |_, _| true).unwrap();
                found += usize::from(!checked.damage.is_empty());
                // Which the names of heaps are read from.
                of_heaps += usize::from(checked.damage.iter().any(|damage| damage.table.as_deref() == Some("meta")));
            }
        }
    });
    assert!(found > 30 && of_heaps > 2, "{found} {of_heaps}");
}

#[test]
fn what_was_found_is_told_also_if_the_rest_cannot_be_looked_at() {
    let World { disk, mut growers } = World::new(7, 12);
    let mut told = 0;
    for page in pages_of(&disk.medium()) {
        let disk = SimDisk::of(1, disk.medium());
        let store = open(&disk).unwrap();
        disk.rot(page * 8 + 7);
        // The first table of all, so that there are further steps.
        let whole = store.check_pages(1, |_, _| true).unwrap();
        if whole.damage.first().and_then(|damage| damage.table.as_deref()) != Some("admit") {
            continue;
        }
        let mut steps = 0;
        let checked = store.check_pages(1, |_, _| {
            steps += 1;
            if steps == 1 {
                // The store is given up, and cannot be opened again.
                disk.die_at(1);
                store.append(&[growers[0].grow(1)]).unwrap_err();
            }
            true
        });
        let checked = checked.unwrap();
        assert_eq!((steps, &checked.damage), (1, &whole.damage));
        assert!(whole.left.is_none() && checked.left.is_some(), "{checked:?}");
        told += 1;
    }
    assert!(told > 0);
}

#[test]
fn a_header_that_cannot_be_read_is_damage() {
    let disk = World::new(7, 4).disk;
    let store = open(&disk).unwrap();
    disk.lose(0);
    let checked = store.check_pages(1 << 20, |_, _| true).unwrap();
    assert!(checked.damage[0].what.contains("the disk cannot read it"), "{checked:?}");
}

#[test]
fn a_sector_that_the_disk_has_lost_is_told_in_every_round() {
    let medium = World::new(7, 12).disk.medium();
    let (mut told, mut of_heaps) = (0, 0);
    for page in pages_of(&medium) {
        let disk = SimDisk::of(1, medium.clone());
        let store = Store::open_without_cache(Box::new(disk.clone())).unwrap();
        disk.lose(page);
        // Without some of its own tables the library does not begin.
        let Ok(first) = store.check_pages(4096, |_, _| true) else { continue };
        assert_eq!(store.check_pages(4096, |_, _| true).unwrap(), first, "the page at {page}");
        assert_eq!((first.lost, &first.left), (!first.damage.is_empty(), &None));
        told += usize::from(first.lost);
        // Which the names of heaps are read from.
        of_heaps += usize::from(first.damage.iter().any(|damage| damage.table.as_deref() == Some("meta")));
    }
    assert!(told > 10 && of_heaps > 0, "{told} {of_heaps}");
}
