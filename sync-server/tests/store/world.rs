//! A small store with several heaps: logs of many records, lines, clock tables, snapshots, a raised floor.

use coheap_core::id::{Offset, SegmentNumber};
use coheap_sync_server::{Appended, Store, StoreError};
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::{Grower, Picture, picture};

pub const HEAPS: [&str; 3] = ["first", "second/äö", "third"];

pub fn open(disk: &SimDisk) -> Result<Store, StoreError> {
    Store::open_on(Box::new(disk.clone()), 0)
}

/// Three heaps on a disk, and how they go on.
pub struct World {
    pub disk: SimDisk,
    pub growers: Vec<Grower>,
}

impl World {
    /// `rounds` group commits over all heaps, with folds between them, and a clean end.
    pub fn new(seed: u64, rounds: usize) -> World {
        let disk = SimDisk::new(seed);
        let mut growers: Vec<Grower> = (1..).zip(HEAPS).map(|(n, name)| Grower::new(name, seed + n, n + 1)).collect();
        let store = open(&disk).unwrap();
        for round in 0..rounds {
            let appends: Vec<_> = growers.iter_mut().map(|grower| grower.grow(1 + round % 3)).collect();
            assert_eq!(store.append(&appends).unwrap(), [Appended::Written, Appended::Written, Appended::Written]);
            // The last heap keeps its whole log.
            for (name, grower) in HEAPS.iter().zip(&growers).take(2) {
                if round % 4 == 3 {
                    let segment = SegmentNumber(round as u64 / 4 % grower.segments());
                    let snapshot: Vec<u8> = (0..200 + round * 40).map(|n| (n * 7 + round) as u8).collect();
                    store.fold(name, segment, grower.head(), Offset(u64::MAX), &snapshot).unwrap();
                }
            }
        }
        World { disk, growers }
    }
}

/// What a store says of each heap.
pub fn pictures(store: &Store) -> Vec<Result<Picture, StoreError>> {
    HEAPS.iter().map(|heap| picture(store, heap)).collect()
}

/// What it says when all is well.
pub fn whole(store: &Store) -> Vec<Picture> {
    pictures(store).into_iter().collect::<Result<_, _>>().unwrap()
}

/// How often a sweep is made, of an environment variable.
pub fn times(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().map_or(otherwise, |number| number.parse().unwrap())
}

thread_local! {
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs something without printing the database library's panics, which the store contains.
pub fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let library = panic.location().is_some_and(|at| at.file().contains("redb"));
            if !(library && QUIET.get()) {
                before(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let done = work();
    QUIET.set(before);
    done
}

/// Runs trials on every core, each as its number, quietly.
pub fn each_of(trials: usize, work: impl Fn(usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                quietly(|| {
                    loop {
                        let trial = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if trial >= trials {
                            return;
                        }
                        work(trial);
                    }
                });
            });
        }
    });
}
