//! The pages of a store in use, looked at a step at a time: every page of redb's trees has the checksum that redb gave it.
//!
//! A step reads the header and begins a read transaction while nobody writes, which takes as long as reading some pages; redb
//! then keeps that commit's pages of data from being used again until the step is done. The trees that redb keeps for itself
//! are not kept so; they are small, and are looked at in the first of these moments. The next step begins where the last one
//! ended, by key, in the trees as they are then: so pages that are overwritten are not held up for longer than a step, and one
//! that is not is seen. `STORE.md` §5.

use redb::{Key, ReadTransaction, ReadableTable, TableHandle};

use super::StoreError;
use super::handle::{Store, contained};
use super::pages::{Broken, HEADER, Header, LOST, Looking, Order, Place};
use super::read::meta_of;
use super::tables::{ADMIT, CLOCKS, EPOCHS, HEAPS, LOG, META, Rows, SEGIDX, SEGMENTS, SNAP, SNAPS, TOTALS};

/// Of the library's own trees so much is read at most, since nobody writes meanwhile. What they hold are the pages that were
/// freed and may not be used yet: a few dozen, unless somebody reads for long.
const SYSTEM_BYTES_MAX: u64 = 1 << 20;
/// Damage that is told of; the rest is counted.
const TOLD_MAX: usize = 16;
/// Heaps that are named.
const NAMED_MAX: usize = 8;

/// What became of a look at all pages.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PagesChecked {
    /// Pages that were read, some of them more than once.
    pub pages: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Pages that are not as they were written, the first of them.
    pub damage: Vec<PageDamage>,
    /// How many more there are.
    pub more: u64,
    /// Some of them the disk cannot read: whoever asks the library for those ends its use of the whole file.
    pub lost: bool,
    /// Why the rest was not looked at, if it was not.
    pub left: Option<String>,
}

/// A page that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageDamage {
    /// The table that it belongs to; `None`: all that is in the store.
    pub table: Option<String>,
    /// Heaps of which it may hold rows, or lead to them; empty: any, or none.
    pub heaps: Vec<String>,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for PageDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        if let Some(table) = &self.table {
            write!(f, ", of the table {table:?}")?;
        }
        match self.heaps.as_slice() {
            [] => Ok(()),
            heaps => write!(f, ", rows of {heaps:?}"),
        }
    }
}

impl PagesChecked {
    fn found(&mut self, damage: PageDamage) {
        self.lost |= damage.what.contains(LOST);
        if self.damage.len() < TOLD_MAX {
            self.damage.push(damage);
        } else {
            self.more += 1;
        }
    }
}

impl Store {
    /// Reads every page of the file that is in use, beside those who read and write, and checks it. After about `step_bytes`,
    /// `read` hears how many bytes were read since the last time, and what was found so far, and may take its time; false: stop.
    pub fn check_pages(
        &self,
        step_bytes: u64,
        mut read: impl FnMut(u64, &PagesChecked) -> bool,
    ) -> Result<PagesChecked, StoreError> {
        let mut checked = PagesChecked::default();
        let mut place = Some(Place::default());
        while let Some(from) = place {
            let is_first = checked.pages == 0;
            let before = checked.bytes;
            place = match self.step(&mut checked, &from, step_bytes, is_first) {
                // What was found before is damaged all the same.
                Err(error) if !checked.damage.is_empty() => {
                    checked.left = Some(error.to_string());
                    break;
                }
                next => next?,
            };
            if !read(checked.bytes - before, &checked) {
                break;
            }
        }
        Ok(checked)
    }

    /// One step. The place where the next begins.
    fn step(
        &self,
        checked: &mut PagesChecked,
        from: &Place,
        step_bytes: u64,
        is_first: bool,
    ) -> Result<Option<Place>, StoreError> {
        let checked = std::cell::RefCell::new(checked);
        let all = |what| PageDamage { table: None, heaps: Vec::new(), what };
        self.beside(
            |look| {
                let checked = &mut **checked.borrow_mut();
                checked.bytes += HEADER as u64;
                let header = match Header::read(look)? {
                    Ok(header) => header,
                    Err(what) => {
                        checked.found(all(what));
                        return Ok(None);
                    }
                };
                if is_first {
                    let mut looking = Looking::new(look, header, SYSTEM_BYTES_MAX);
                    looking.system()?;
                    (checked.pages, checked.bytes) = (checked.pages + looking.pages, checked.bytes + looking.bytes);
                    for broken in looking.broken {
                        checked.found(all(format!("{}, of the library's own tables", broken.what)));
                    }
                }
                Ok(Some(header))
            },
            |look, header, transaction| {
                let checked = &mut **checked.borrow_mut();
                let Some(header) = header else { return Ok(None) };
                let mut looking = Looking::new(look, header, step_bytes);
                let next = looking.data(from, order)?;
                (checked.pages, checked.bytes) = (checked.pages + looking.pages, checked.bytes + looking.bytes);
                // Then not all tables are known.
                let next = next.filter(|_| looking.broken.iter().all(|broken| broken.table.is_some()));
                let lost = checked.lost || looking.broken.iter().any(|broken| broken.what.ends_with(LOST));
                for broken in looking.broken {
                    // The library may panic over what is damaged, which is told all the same. What is lost it is not asked for.
                    let named = || if lost { Vec::new() } else { heaps_of(transaction, &broken) };
                    let heaps = contained(named).unwrap_or_default();
                    checked.found(PageDamage { table: broken.table, heaps, what: broken.what });
                }
                Ok(next)
            },
        )
    }
}

/// How the keys of a table of ours are ordered.
fn order(table: &str) -> Option<Order> {
    fn of<K: Key + 'static>(_: Rows<K>) -> Order {
        K::compare
    }
    let orders = [
        (TOTALS.name(), of(TOTALS)),
        (HEAPS.name(), of(HEAPS)),
        (META.name(), of(META)),
        (EPOCHS.name(), of(EPOCHS)),
        (LOG.name(), of(LOG)),
        (ADMIT.name(), of(ADMIT)),
        (SEGMENTS.name(), of(SEGMENTS)),
        (CLOCKS.name(), of(CLOCKS)),
        (SEGIDX.name(), of(SEGIDX)),
        (SNAPS.name(), of(SNAPS)),
        (SNAP.name(), of(SNAP)),
    ];
    orders.iter().find(|(name, _)| *name == table).map(|(_, order)| *order)
}

/// The heaps that a damaged page may have rows of: those between the keys that lead to it. Their numbers begin the keys.
fn heaps_of(transaction: &ReadTransaction, broken: &Broken) -> Vec<String> {
    let by_heap = [META.name(), EPOCHS.name(), LOG.name(), ADMIT.name(), SEGMENTS.name(), CLOCKS.name(), SEGIDX.name()];
    let by_heap = by_heap.iter().chain(&[SNAPS.name(), SNAP.name()]).any(|name| broken.table.as_deref() == Some(*name));
    let number = |key: &Option<Vec<u8>>| key.as_deref()?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let last = || Some(transaction.open_table(META).ok()?.last().ok()??.0.value());
    let (behind, up_to) =
        (number(&broken.keys.0).unwrap_or(0), number(&broken.keys.1).or_else(last).unwrap_or(u64::MAX));
    if !by_heap || up_to.saturating_sub(behind) >= NAMED_MAX as u64 {
        return Vec::new();
    }
    // One that cannot be read goes unnamed.
    (behind..=up_to).filter_map(|heap| meta_of(transaction, heap).ok()).map(|meta| meta.name).collect()
}
