//! What can be saved of a damaged store: written to a new file, heap by heap, which then takes the old one's place. The old
//! file stays beside it, so nothing that was taken out is lost.
//!
//! ```text
//!   heap that is whole ──── copied, row by row
//!   damaged heap ────────── longest whole beginning of its log, whole snapshots, lines as that log has them
//!                           + a new epoch at its end: replicas that have more put it back (CORE-PROTOCOL §9)
//! ```
//!
//! What a salvaged heap shows until its replicas come back may hold half of a later commit: a snapshot that was taken later
//! than the log now ends is kept, since nothing else has what is in it.

mod kept;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use coheap_core::id::Offset;
use redb::{Key, ReadTransaction, WriteTransaction};

use self::kept::Kept;
use super::StoreError;
use super::disk::FileDisk;
use super::handle::{FILE, Store, contained, number};
use super::read::number_of;
use super::tables::{
    ADMIT, CLOCKS, EPOCHS, HEAPS, LOG, META, Meta, Rows, SEGIDX, SEGMENTS, SNAP, SNAPS, Sealed, TOTALS, Totals, failed,
    read_row,
};

/// What became of one heap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Salvaged {
    /// Its name.
    pub heap: String,
    /// What was wrong with it.
    pub damage: String,
    /// The position after the last entry that was kept.
    pub head: Offset,
    /// What could not be kept, a line each.
    pub lost: Vec<String>,
}

/// Salvages the store of a directory: what became of each damaged heap, and where the old file is now. Nothing is touched if
/// no heap is damaged, or if one is that was not asked for. `random` makes the new epochs' bits.
pub fn salvage(
    directory: &Path,
    only: Option<&str>,
    mut random: impl FnMut() -> u64,
) -> Result<(Vec<Salvaged>, Option<PathBuf>), StoreError> {
    let path = directory.join(FILE);
    let old = Store::open_to_read(directory)?;
    let heaps = names(&old)?;
    let mut damage = BTreeMap::new();
    for (number, name) in &heaps {
        let known = old.read(|transaction| number_of(transaction, name));
        if !known.is_ok_and(|known| known == Some(*number)) {
            damage.insert(*number, "its name was lost".to_owned());
        } else if let Err(error) = old.verify_heap(name, |_| true) {
            damage.insert(*number, error.to_string());
        }
    }
    let names_lost = old.verify_names().is_err();
    if let Some(other) = only.and_then(|only| damage.keys().map(|number| &heaps[number]).find(|name| *name != only)) {
        return Err(StoreError::Damaged(format!("heap {other:?} too; salvage without --heap")));
    }
    // A file that its library does not open is written anew, even if all heaps in it are whole.
    if damage.is_empty() && !names_lost && !old.is_as_it_is() {
        return Ok((Vec::new(), None));
    }
    let beside = directory.join(format!("{FILE}.salvage"));
    let _ = std::fs::remove_file(&beside);
    let new = Store::open_on(Box::new(FileDisk::new(beside.clone())), 0)?;
    let mut salvaged = Vec::new();
    for (heap, name) in &heaps {
        match damage.remove(heap) {
            None => copy(&old, &new, *heap)?,
            Some(what) => {
                let kept = Kept::read(&old, *heap, name)?;
                kept.write(&old, &new, random())?;
                salvaged.push(Salvaged { heap: name.clone(), damage: what, head: kept.meta.head, lost: kept.lost });
            }
        }
    }
    put_names(&new, &heaps)?;
    for name in heaps.values() {
        new.verify_heap(name, |_| true)?;
    }
    drop(new);
    let aside = (1_u32..).map(|n| directory.join(format!("{FILE}.damaged-{n}"))).find(|path| !path.exists());
    let aside = aside.unwrap_or_default();
    // The old file has a second name before it loses its first, which is never missing.
    std::fs::hard_link(&path, &aside).map_err(StoreError::io)?;
    std::fs::rename(&beside, &path).map_err(StoreError::io)?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(StoreError::io)?;
    drop(old);
    Ok((salvaged, Some(aside)))
}

/// The heaps that there are, by number: of `heaps`, and where a row there is damaged, of `meta`. A number whose name nobody
/// knows any more gets one.
fn names(old: &Store) -> Result<BTreeMap<u64, String>, StoreError> {
    let mut names = BTreeMap::new();
    // Of the least trustworthy source first.
    let mut numbers = BTreeSet::new();
    whole_rows(old, LOG, (0, 0)..=(u64::MAX, u64::MAX), |key, _| {
        numbers.insert(key.0);
    })?;
    for heap in numbers {
        names.insert(heap, format!("lost-{heap}"));
    }
    whole_rows(old, META, 0..=u64::MAX, |heap, value| {
        if let Ok((meta, _)) = read_row(META, heap, value, Meta::decode) {
            names.insert(*heap, meta.name);
        }
    })?;
    let mut seen = BTreeMap::new();
    old.read(|transaction| {
        let heaps = transaction.open_table(HEAPS).map_err(failed)?;
        let mut rows = BTreeMap::new();
        for row in heaps.range::<&str>(..).map_err(failed)? {
            let Ok((name, value)) = row else { break };
            if let Ok((heap, _)) = read_row(HEAPS, &name.value(), value.value(), number) {
                rows.insert(heap, name.value().to_owned());
            }
        }
        Ok(rows)
    })
    .map(|rows| seen = rows)
    .unwrap_or_default();
    names.extend(seen);
    Ok(names)
}

/// The rows of a range that can be read at all, from its beginning and then from its end.
fn whole_rows<K: Key + 'static>(
    old: &Store,
    definition: Rows<K>,
    range: RangeInclusive<K::SelfType<'static>>,
    mut show: impl FnMut(&K::SelfType<'_>, &[u8]),
) -> Result<(), StoreError>
where
    K::SelfType<'static>: Clone,
{
    let show = std::cell::RefCell::new(&mut show);
    for backwards in [false, true] {
        let all = old.read(|transaction| {
            let table = transaction.open_table(definition).map_err(failed)?;
            let mut rows = table.range::<K::SelfType<'static>>(range.clone()).map_err(failed)?;
            loop {
                // A row that cannot be read ends this direction, and so does a panic of the library.
                match contained(|| if backwards { rows.next_back() } else { rows.next() }) {
                    Ok(Some(Ok((key, value)))) => show.borrow_mut()(&key.value(), value.value()),
                    Ok(None) => return Ok(true),
                    Ok(Some(Err(_))) | Err(_) => return Ok(false),
                }
            }
        });
        match all {
            Ok(true) => return Ok(()),
            Ok(false) | Err(StoreError::Damaged(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// Copies a heap that is whole.
fn copy(old: &Store, new: &Store, heap: u64) -> Result<(), StoreError> {
    old.read(|from| {
        new.write(|to| {
            let (all, two) = ((heap, 0)..=(heap, u64::MAX), (heap, 0, 0)..=(heap, u64::MAX, u64::MAX));
            copy_rows(from, to, META, heap..=heap)?;
            copy_rows(from, to, EPOCHS, all.clone())?;
            copy_rows(from, to, ADMIT, (heap, [0; 16])..=(heap, [0xff; 16]))?;
            copy_rows(from, to, SEGMENTS, all.clone())?;
            copy_rows(from, to, CLOCKS, all.clone())?;
            copy_rows(from, to, SEGIDX, two)?;
            copy_rows(from, to, SNAPS, all.clone())?;
            copy_rows(from, to, SNAP, all.clone())?;
            copy_rows(from, to, LOG, all)
        })
    })
}

fn copy_rows<K: Key + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    definition: Rows<K>,
    range: RangeInclusive<K::SelfType<'static>>,
) -> Result<(), StoreError>
where
    K::SelfType<'static>: Clone,
{
    let table = from.open_table(definition).map_err(failed)?;
    let mut target = to.open_table(definition).map_err(failed)?;
    for row in table.range::<K::SelfType<'static>>(range).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        target.insert(key.value(), value.value()).map_err(failed)?;
    }
    Ok(())
}

fn put_names(new: &Store, heaps: &BTreeMap<u64, String>) -> Result<(), StoreError> {
    new.write(|transaction| {
        let count = heaps.last_key_value().map_or(0, |(last, _)| last + 1);
        let mut totals = Totals { heaps: count, digest: 0 };
        let mut table = Sealed::open(transaction, HEAPS)?;
        for (heap, name) in heaps {
            table.put(&mut totals.digest, name.as_str(), &heap.to_le_bytes())?;
        }
        Sealed::open(transaction, TOTALS)?.put(&mut 0, 0, &totals.encode())
    })
}
