//! E2, E10, E11, E12: power failures, errors of syncs and writes, a full disk. Nothing that was reported as written is ever
//! missing, nothing is ever half there, and a store that does not sync is found out by the very same trials.

use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::segment::write::Draw;
use coheap_sync_server::{Appended, HeapAppend, Store, StoreError};
use coheap_tests::Draws;
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::{Grower, picture};

use crate::world::{HEAPS, World, each_of, open, pictures, times, whole};

/// The power fails at every step of an append, and of what was on its way each prefix is there, its last piece cut at many
/// places: the store shows the state before or the state after.
#[test]
fn a_torn_tail_is_the_state_before_or_after() {
    let mut world = World::new(5, 6);
    for _ in 0..3 {
        let medium = world.disk.medium();
        let before = whole(&open(&SimDisk::of(1, medium.clone())).unwrap());
        let appends: Vec<_> = world.growers.iter_mut().map(|grower| grower.grow(1)).collect();
        let after = {
            let store = open(&world.disk).unwrap();
            store.append(&appends).unwrap();
            whole(&store)
        };
        // Each step of it; `None`: it was written before the power failed.
        let (mut cuts, mut step) = (Vec::new(), 1);
        loop {
            let disk = SimDisk::of(1, medium.clone());
            let store = open(&disk).unwrap();
            disk.die_at(step);
            if store.append(&appends).is_ok() {
                break;
            }
            let unsynced = disk.unsynced();
            // The last of it, cut; an earlier step had the rest already. The header of the file is what a commit hangs on:
            // every byte of it.
            if let Some(len) = unsynced.last() {
                let places = (0..*len).filter(|byte| *len < 1024 || byte % 512 == 511);
                cuts.extend(places.map(|byte| (step, unsynced.len() - 1, byte)));
            }
            cuts.push((step, unsynced.len(), 0));
            step += 1;
        }
        assert!(step > 4 && cuts.len() > 300, "{step} steps, {} cuts", cuts.len());
        each_of(cuts.len(), |trial| {
            let (step, changes, bytes) = cuts[trial];
            let disk = SimDisk::of(1, medium.clone());
            let store = open(&disk).unwrap();
            disk.die_at(step);
            assert!(store.append(&appends).is_err());
            disk.crash_after(changes, bytes);
            drop(store);
            let shown = whole(&open(&disk).unwrap());
            assert!(shown == before || shown == after, "step {step}, {changes} changes and {bytes} bytes");
        });
    }
}

/// A life of a store under faults of every kind, beside a twin whose disk never fails.
struct Life {
    draws: Draws,
    disk: SimDisk,
    store: Option<Store>,
    sync: bool,
    twin: Store,
    growers: Vec<Grower>,
    /// What was not written, and is tried again.
    pending: Vec<HeapAppend>,
    crashes: usize,
    errors: usize,
}

impl Life {
    fn new(seed: u64, sync: bool) -> Life {
        Life {
            draws: Draws(seed),
            disk: SimDisk::new(seed),
            store: None,
            sync,
            twin: open(&SimDisk::new(0)).unwrap(),
            growers: (1..).zip(HEAPS).map(|(n, name)| Grower::new(name, seed + n, 3)).collect(),
            pending: Vec::new(),
            crashes: 0,
            errors: 0,
        }
    }

    /// Some steps; what was found wrong.
    fn live(&mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            self.open()?;
            match self.draws.below(10) {
                0 => self.disk.fail_sync(1 + self.draws.below(3) as u64),
                1 => self.disk.fail_write(1 + self.draws.below(12) as u64),
                2 => self.disk.die_at(1 + self.draws.below(16) as u64),
                3 => self.disk.set_capacity(Some(self.disk.used() + self.draws.below(3) as u64 * 4096), false),
                _ => {}
            }
            if self.draws.below(5) == 0 {
                self.fold()?;
            } else {
                self.append()?;
            }
            self.disk.set_capacity(None, false);
            if self.draws.below(4) == 0 {
                self.crash();
            }
        }
        self.crash();
        self.open()
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.disk.crash();
        self.store = None;
    }

    /// Opens the store if it is not open, and compares it with the twin.
    fn open(&mut self) -> Result<(), String> {
        for tries in 0.. {
            if self.store.is_some() {
                break;
            }
            let disk = Box::new(self.disk.clone());
            let opened = if self.sync { Store::open_on(disk, 0) } else { Store::open_without_sync(disk) };
            match opened {
                Ok(store) => self.store = Some(store),
                // A fault that was still to come, or the power.
                Err(StoreError::Failed(_) | StoreError::Full) if tries < 5 => self.crash(),
                Err(error) => return Err(format!("it does not open: {error}")),
            }
        }
        self.settle()
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// What was not reported as written is there as a whole, or not at all; and then all is as in the twin.
    fn settle(&mut self) -> Result<(), String> {
        let heads = |store: &Store| -> Result<Vec<Offset>, StoreError> {
            HEAPS.iter().map(|heap| Ok(store.recover(heap)?.head)).collect()
        };
        if !self.pending.is_empty() {
            let there = heads(self.store()).map_err(|error| error.to_string())?;
            if there != heads(&self.twin).unwrap() {
                self.twin.append(&std::mem::take(&mut self.pending)).unwrap();
            }
        }
        for (shown, expected) in pictures(self.store()).into_iter().zip(pictures(&self.twin)) {
            match shown {
                Ok(shown) if shown == expected.unwrap() => {}
                Ok(_) => return Err("a heap is another than was written".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), String> {
        if self.pending.is_empty() {
            let commits = 1 + self.draws.below(4);
            // Now and then lines are dropped (CORE-PROTOCOL §2).
            let grow = |grower: &mut Grower| {
                if grower.head().0 % 4 == 3 { grower.drop_and_grow(commits) } else { grower.grow(commits) }
            };
            self.pending = self.growers.iter_mut().map(grow).collect();
        }
        match self.store().append(&self.pending) {
            Ok(written) if written.iter().all(|appended| *appended == Appended::Written) => {
                self.twin.append(&std::mem::take(&mut self.pending)).unwrap();
                self.check_synced()
            }
            Ok(other) => Err(format!("{other:?}")),
            Err(StoreError::Failed(_) | StoreError::Full) => self.after_error(),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What was synced so far, and not a byte more, holds all that was reported as written.
    fn check_synced(&mut self) -> Result<(), String> {
        if self.sync && self.draws.below(3) == 0 {
            let synced = open(&SimDisk::of(0, self.disk.medium())).map_err(|error| error.to_string())?;
            if pictures(&synced).into_iter().zip(pictures(&self.twin)).any(|(shown, twin)| shown.ok() != twin.ok()) {
                return Err("it was reported as written before it was synced".to_owned());
            }
        }
        Ok(())
    }

    /// Goes on with the store if it has opened its file again, as the relay does.
    fn after_error(&mut self) -> Result<(), String> {
        self.errors += 1;
        if self.store().reopen().is_err() {
            self.crash();
            return Ok(());
        }
        self.settle()
    }

    fn fold(&mut self) -> Result<(), String> {
        let heap = self.draws.below(HEAPS.len());
        if self.growers[heap].segments() == 0 || !self.pending.is_empty() {
            return Ok(());
        }
        let segment = SegmentNumber(self.draws.draw() % self.growers[heap].segments());
        let (position, keep) = (self.growers[heap].head(), Offset(self.draws.below(200) as u64));
        let snapshot: Vec<u8> = (0..100).map(|_| self.draws.draw() as u8).collect();
        let folded = self.store().fold(HEAPS[heap], segment, position, keep, &snapshot);
        let there = match folded {
            Ok(_) => true,
            Err(StoreError::Failed(_) | StoreError::Full) => {
                self.errors += 1;
                // Whether it is there: what the state at the head is made of says so.
                while self.store.as_ref().is_none_or(|store| store.reopen().is_err()) {
                    self.crash();
                    let disk = Box::new(self.disk.clone());
                    self.store = if self.sync { Store::open_on(disk, 0) } else { Store::open_without_sync(disk) }.ok();
                }
                let shown = picture(self.store(), HEAPS[heap]).map_err(|error| error.to_string())?;
                shown != picture(&self.twin, HEAPS[heap]).unwrap()
            }
            Err(error) => return Err(error.to_string()),
        };
        if there {
            self.twin.fold(HEAPS[heap], segment, position, keep, &snapshot).unwrap();
        }
        self.settle()
    }
}

#[test]
fn whatever_the_disk_does_nothing_that_was_reported_as_written_is_lost() {
    let (seeds, from) = (times("COHEAP_SEEDS", 120), times("COHEAP_SEED", 0));
    let (crashes, errors) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
    each_of(seeds, |trial| {
        let mut life = Life::new((from + trial) as u64, true);
        if let Err(wrong) = life.live(40) {
            panic!("seed {}: {wrong}", from + trial);
        }
        crashes.fetch_add(life.crashes, std::sync::atomic::Ordering::Relaxed);
        errors.fetch_add(life.errors, std::sync::atomic::Ordering::Relaxed);
    });
    eprintln!("{seeds} lives: {crashes:?} crashes, {errors:?} errors");
    assert!(crashes.into_inner() > seeds * 5 && errors.into_inner() > seeds * 3);
}

/// The proof that the trials above can fail.
#[test]
fn a_store_that_does_not_sync_is_found_out_and_so_is_a_disk_that_does_not() {
    let found = |make: &dyn Fn(u64) -> Life| (0..20).filter(|seed| make(*seed).live(40).is_err()).count();
    assert!(found(&|seed| Life::new(seed, false)) >= 15, "commits without a sync pass");
    let lying = |seed| {
        let life = Life::new(seed, true);
        life.disk.ignore_syncs();
        life
    };
    assert!(found(&lying) >= 15, "a disk that ignores syncs passes");
}

#[test]
fn after_a_failed_sync_nothing_is_written_until_the_file_was_opened_again() {
    for nth in 1..=2 {
        let (disk, mut grower) = (SimDisk::new(nth), Grower::new("h", 1, 2));
        let store = open(&disk).unwrap();
        store.append(&[grower.grow(3)]).unwrap();
        let (next, opens) = (grower.grow(2), disk.counts().opens);
        disk.fail_sync(nth);
        if store.append(std::slice::from_ref(&next)).is_ok() {
            // An append has one sync only.
            assert!(nth > 1);
            continue;
        }
        assert_eq!(disk.counts().opens, opens + 1, "the handle was given up");
        let head = store.recover("h").unwrap().head;
        if head == Offset(3) {
            assert_eq!(store.append(&[next]).unwrap(), [Appended::Written]);
        }
        let shown = picture(&store, "h").unwrap();
        disk.crash();
        drop(store);
        assert_eq!(picture(&open(&disk).unwrap(), "h").unwrap(), shown);
    }
}

#[test]
fn a_file_that_cannot_be_opened_again_takes_nothing_until_it_can() {
    let (disk, mut grower) = (SimDisk::new(3), Grower::new("h", 1, 2));
    let store = open(&disk).unwrap();
    store.append(&[grower.grow(3)]).unwrap();
    let next = grower.grow(1);
    disk.die_at(1);
    assert!(matches!(store.append(std::slice::from_ref(&next)), Err(StoreError::Failed(_))));
    assert!(matches!(store.append(std::slice::from_ref(&next)), Err(StoreError::Failed(_))));
    assert!(matches!(store.recover("h"), Err(StoreError::Failed(_))));
    assert!(store.reopen().is_err());
    disk.crash();
    store.reopen().unwrap();
    assert_eq!(store.append(&[next]).unwrap(), [Appended::Written]);
    assert_eq!(store.recover("h").unwrap().head, Offset(4));
}

#[test]
fn a_full_disk_refuses_and_reading_goes_on_until_there_is_room() {
    for tells in [true, false] {
        let (disk, mut grower) = (SimDisk::new(4), Grower::new("h", 1, 2));
        let store = open(&disk).unwrap();
        store.append(&[grower.grow(3)]).unwrap();
        let shown = picture(&store, "h").unwrap();
        disk.set_capacity(Some(disk.used()), tells);
        // Redb writes over what it has freed first, so it takes some appends until room is missing.
        let (mut refused, mut last) = (None, shown);
        for _ in 0..200 {
            let next = grower.grow(40);
            match store.append(std::slice::from_ref(&next)) {
                Ok(_) => last = picture(&store, "h").unwrap(),
                Err(StoreError::Full) => {
                    refused = Some(next);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        let refused = refused.expect("the disk is full");
        for _ in 0..3 {
            assert!(matches!(store.append(std::slice::from_ref(&refused)), Err(StoreError::Full)));
            assert_eq!(picture(&store, "h").unwrap(), last, "reading goes on (tells: {tells})");
        }
        disk.set_capacity(None, tells);
        assert_eq!(store.append(&[refused]).unwrap(), [Appended::Written]);
        assert_eq!(store.recover("h").unwrap().head, grower.head());
    }
}
