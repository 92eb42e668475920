//! The store over bytes that it did not write. The first byte of an input says which:
//!
//! ```text
//! 0      kind:1 row                    a row without its seal, or a record without its checksum
//! 1      (kind:1 nth:1 at:2 byte:1)*   rows of a good store changed, with their seals made right again
//! 2      (at:4 byte:1)*                bytes of a good store's file changed
//! ```
//!
//! A damaged store may say so; what it hands out after that is what it was given.

use std::sync::LazyLock;

use coheap_core::id::Offset;
use coheap_sync_server::{Store, StoreError};
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::{Grower, picture};

use crate::contained::forgiving;
use crate::count::reads;

const HEAPS: [&str; 2] = ["one", "other"];

/// The file of a good store, with folds, of several heaps.
pub fn image() -> &'static [u8] {
    static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let disk = SimDisk::new(1);
        let mut growers: Vec<Grower> = (1..).zip(HEAPS).map(|(n, name)| Grower::new(name, n, n + 1)).collect();
        let store = Store::open_on(Box::new(disk.clone()), 0).expect("an empty disk");
        for round in 0..6 {
            let appends: Vec<_> = growers.iter_mut().map(|grower| grower.grow(1 + round % 3)).collect();
            store.append(&appends).expect("room");
            if round == 3 {
                let segment = coheap_core::id::SegmentNumber(0);
                store.fold(HEAPS[0], segment, growers[0].head(), Offset(u64::MAX), b"snapshot").expect("a fold");
            }
        }
        drop(store);
        disk.medium()
    });
    &IMAGE
}

/// The target.
pub fn store(data: &[u8]) {
    match data.split_first() {
        #[cfg(fuzzing)]
        Some((0, rest)) => {
            let Some((kind, row)) = rest.split_first() else { return };
            reads("a row", row.len(), || coheap_sync_server::fuzz::read(*kind, row));
        }
        #[cfg(fuzzing)]
        Some((1, rest)) => {
            let disk = SimDisk::of(1, image().to_vec());
            {
                let store = Store::open_on(Box::new(disk.clone()), 0).expect("a good store");
                for change in rest.as_chunks::<5>().0.iter().take(8) {
                    let [kind, nth, low, high, byte] = *change;
                    let at = usize::from(u16::from_le_bytes([low, high]));
                    let put = coheap_sync_server::fuzz::put(&store, kind, nth.into(), &mut |row| poke(row, at, byte));
                    if put.is_err() {
                        break;
                    }
                }
            }
            look(&disk);
        }
        Some((_, rest)) => {
            let mut medium = image().to_vec();
            for change in rest.as_chunks::<5>().0 {
                let [at @ .., byte] = *change;
                let at = u32::from_le_bytes(at) as usize % medium.len();
                medium[at] ^= byte;
            }
            look(&SimDisk::of(1, medium));
        }
        None => {}
    }
}

/// A byte of a row becomes another, or the row becomes longer or shorter.
#[cfg(fuzzing)]
fn poke(row: &mut Vec<u8>, at: usize, byte: u8) {
    let len = row.len();
    match at >> 14 {
        0 | 1 if len > 0 => row[at % len] = byte,
        2 => row.insert(at % (len + 1), byte),
        _ => row.truncate(at % (len + 1)),
    }
}

/// All that a relay does with a store that it finds.
fn look(disk: &SimDisk) {
    forgiving("redb", || {
        let Ok(store) = Store::open_on(Box::new(disk.clone()), 0) else { return };
        let _ = store.verify_names();
        for heap in HEAPS {
            let _ = store.verify_heap(heap, |_| true);
            let Ok(recovered) = store.recover(heap) else { continue };
            // A head far beyond the log is found out, not walked to.
            let _ = store.read_log(heap, recovered.floor, recovered.head, 1 << 16);
            if recovered.head.0 < 1 << 10 {
                let _ = picture(&store, heap);
            }
        }
        let mut after: Option<String> = None;
        for _ in 0..16 {
            match store.next_heap(after.as_deref()) {
                Ok(Some(name)) => after = Some(name),
                Ok(None) | Err(_) => break,
            }
        }
        let mut grower = Grower::new("new", 9, 2);
        match store.append(&[grower.grow(1)]) {
            Ok(_) | Err(StoreError::Damaged(_) | StoreError::Failed(_)) => {}
            Err(other) => panic!("a disk that is well, and then: {other}"),
        }
    });
}
