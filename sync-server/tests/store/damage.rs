//! E10: flipped bits and cut files. What a damaged store says of a heap is exactly what was there, or an error; never
//! something else.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use coheap_sync_server::{Appended, StoreError};
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
