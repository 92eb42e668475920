//! A store's file in which one place is not what was written: a flipped bit, or a page as it was earlier, or as it would be had
//! the heap gone on in another way after a copy of the disk was put back. What the store says of it is exactly what was there,
//! or an error; never something else.

use std::sync::OnceLock;

use coheap_sync_server::{Store, StoreError};

use crate::Draws;
use crate::disk_backend::SimDisk;
use crate::schedule::{Failure, fails};
use crate::stored::{Grower, Picture, picture};

const HEAP: &str = "heap";
const PAGE: usize = 4096;
/// Commits until the two histories part, and in each of them then.
const ROUNDS: usize = 30;

/// The same file at three points.
#[derive(Debug)]
struct Files {
    /// When the histories parted.
    earlier: Vec<u8>,
    /// At the end.
    now: Vec<u8>,
    /// At the end of the other history, which is as long.
    other: Vec<u8>,
    expected: Picture,
}

/// Damages one place and reads everything. Which place, and how, the number decides.
pub fn trial(seed: u64) -> Result<(), Failure> {
    static FILES: OnceLock<Files> = OnceLock::new();
    let files = FILES.get_or_init(Files::new);
    let mut draws = Draws(seed);
    let mut medium = files.now.clone();
    let what = match draws.below(3) {
        0 => {
            let bit = draws.below(medium.len() * 8);
            medium[bit / 8] ^= 1 << (bit % 8);
            format!("bit {bit} is flipped")
        }
        n => {
            // The first page says which of two states of all others counts: with another one, that is a disk that was put back
            // as it was earlier. Nothing on the disk can tell, and the replicas do (D1).
            let (from, when) = if n == 1 { (&files.earlier, "earlier") } else { (&files.other, "in another history") };
            let page = 1 + draws.below(medium.len().min(from.len()) / PAGE - 1);
            let bytes = page * PAGE..(page + 1) * PAGE;
            medium[bytes.clone()].copy_from_slice(&from[bytes]);
            format!("page {page} is as it was {when}")
        }
    };
    let store = match Store::open_on(Box::new(SimDisk::of(1, medium)), 0) {
        Ok(store) => store,
        Err(StoreError::Damaged(_) | StoreError::Format(_) | StoreError::Failed(_)) => return Ok(()),
        Err(other) => return fails("store", format!("{what}: {other:?}")),
    };
    match picture(&store, HEAP) {
        Ok(shown) if shown == files.expected => Ok(()),
        Ok(_) => fails("store", format!("{what}, and the heap is silently another")),
        Err(StoreError::Damaged(_) | StoreError::Failed(_)) => Ok(()),
        Err(other) => fails("store", format!("{what}: {other:?}")),
    }
}

impl Files {
    fn new() -> Files {
        let disk = SimDisk::new(7);
        let mut grower = Grower::new(HEAP, 7, 3);
        grow(&disk, &mut grower, ROUNDS);
        let earlier = disk.medium();
        let other = SimDisk::of(7, earlier.clone());
        let mut another = grower.clone();
        another.turn(8);
        grow(&disk, &mut grower, ROUNDS);
        grow(&other, &mut another, ROUNDS);
        let now = disk.medium();
        let store = Store::open_on(Box::new(SimDisk::of(1, now.clone())), 0).expect("a whole store");
        let expected = picture(&store, HEAP).expect("a whole heap");
        Files { earlier, now, other: other.medium(), expected }
    }
}

fn grow(disk: &SimDisk, grower: &mut Grower, rounds: usize) {
    let store = Store::open_on(Box::new(disk.clone()), 0).expect("a whole store");
    for _ in 0..rounds {
        store.append(&[grower.grow(2)]).expect("a healthy disk");
    }
}
