//! The open database: one handle, shared by the commit thread and by readers, given up whenever it may lie and opened again.
//!
//! ```text
//!   read ──► shared ──► fine, damaged, gone
//!              └─ failed or panicked ──► alone: renew, once more ──► what it says then is so
//!   write ─► shared ──► committed
//!              └─ failed ──► alone: renew; the caller is told      (what it wrote is there as a whole, or not at all)
//! ```
//!
//! The library's promise for a damaged file is no more than that it may panic, so every use of it is contained here: a panic
//! costs the handle, and is damage if it comes again on a fresh one that nobody else uses.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use coheap_core::mutate::{self, Mutation};
use redb::{
    ConcurrencyMode, Database, DatabaseError, Durability, ReadOnlyDatabase, ReadTransaction, ReadableDatabase,
    ReadableTable, TableError, TableHandle, WriteTransaction,
};

use super::StoreError;
use super::disk::{Disk, FileDisk, Look, Opened};
use super::overlay::Overlay;
use super::tables::{
    ADMIT, CLOCKS, EPOCHS, FORMAT, HEAPS, LOG, META, NAMES, SEGIDX, SEGMENTS, SNAP, SNAPS, STORE, Sealed, TOTALS,
    Totals, damaged, failed, get_row, read_row,
};

/// redb's cache: enough for the leaves that appends touch; states are read seldom.
const CACHE_BYTES: usize = 32 << 20;
/// How long the lock of a killed relay may outlive it.
const LOCK_WITHIN: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// The file of a store in its directory.
pub(super) const FILE: &str = "relay.redb";

/// The store, opened. Shared by the commit thread and by readers.
#[derive(Debug)]
pub struct Store {
    pub(super) disk: Box<dyn Disk>,
    pub(super) min_free_bytes: u64,
    durability: Durability,
    how: How,
    /// What the library may keep in memory.
    cache_bytes: usize,
    /// `None`: given up, and not to be opened again so far.
    database: RwLock<Option<Handle>>,
}

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// To be used: what is missing would be made anew, so all must be there.
    Whole,
    /// To be salvaged, whatever is missing.
    Damaged,
    /// The same, without what the library would do first.
    AsItIs,
}

/// The database, open.
enum Handle {
    Whole(Database),
    AsItIs(ReadOnlyDatabase),
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        match self {
            Handle::Whole(database) => database.begin_read(),
            Handle::AsItIs(database) => database.begin_read(),
        }
        .map_err(failed)
    }

    /// The database for writing.
    fn whole(&self) -> Result<&Database, StoreError> {
        match self {
            Handle::Whole(database) => Ok(database),
            Handle::AsItIs(_) => Err(damaged("the file can only be read as it is")),
        }
    }
}

impl Store {
    /// Opens or creates the store of a data directory.
    pub fn open(directory: &Path, min_free_bytes: u64) -> Result<Store, StoreError> {
        std::fs::create_dir_all(directory).map_err(StoreError::io)?;
        let begun = Instant::now();
        loop {
            match Store::open_on(Box::new(FileDisk::new(directory.join(FILE))), min_free_bytes) {
                // A relay that was killed while it started its worker leaves the lock to it for a moment.
                Err(StoreError::InUse) if begun.elapsed() < LOCK_WITHIN => std::thread::sleep(LOCK_RETRY),
                other => return other,
            }
        }
    }

    /// Opens or creates the store of a disk.
    pub fn open_on(disk: Box<dyn Disk>, min_free_bytes: u64) -> Result<Store, StoreError> {
        Store::with(disk, min_free_bytes, Durability::Immediate, CACHE_BYTES)
    }

    /// A store of which nothing is in memory, as most of a large one is not. For tests.
    #[doc(hidden)]
    pub fn open_without_cache(disk: Box<dyn Disk>) -> Result<Store, StoreError> {
        Store::with(disk, 0, Durability::Immediate, 0)
    }

    /// A store that is wrong on purpose: its commits are not synced. Tests prove with it that they would notice.
    #[doc(hidden)]
    pub fn open_without_sync(disk: Box<dyn Disk>) -> Result<Store, StoreError> {
        Store::with(disk, 0, Durability::None, CACHE_BYTES)
    }

    fn with(
        disk: Box<dyn Disk>,
        min_free_bytes: u64,
        durability: Durability,
        cache_bytes: usize,
    ) -> Result<Store, StoreError> {
        let durability = if mutate::on(Mutation::NoSync) { Durability::None } else { durability };
        let how = How::Whole;
        let database = RwLock::new(Some(open_database(disk.as_ref(), how, cache_bytes)?));
        Ok(Store { disk, min_free_bytes, durability, how, cache_bytes, database })
    }

    /// Opens the store of a data directory to look at it, also if something is missing, or the library would not open it. The
    /// file is not changed, whatever is asked of it then.
    pub fn open_to_read(directory: &Path) -> Result<Store, StoreError> {
        let path = directory.join(FILE);
        let open = |how, as_it_is| {
            let disk: Box<dyn Disk> = Box::new(Overlay { path: path.clone(), as_it_is });
            let database = RwLock::new(Some(open_database(disk.as_ref(), how, CACHE_BYTES)?));
            let (durability, cache_bytes) = (Durability::Immediate, CACHE_BYTES);
            Ok(Store { disk, min_free_bytes: 0, durability, how, cache_bytes, database })
        };
        match open(How::Damaged, false) {
            Err(StoreError::Damaged(_)) => open(How::AsItIs, true),
            other => other,
        }
    }

    /// True if the library would not open the file.
    pub(super) fn is_as_it_is(&self) -> bool {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*slot, Some(Handle::AsItIs(_)))
    }

    /// Opens the store again if it had to be given up.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() { Ok(()) } else { self.renew(&mut slot) }
    }

    fn renew(&self, slot: &mut Option<Handle>) -> Result<(), StoreError> {
        give_up(slot);
        *slot = Some(open_database(self.disk.as_ref(), self.how, self.cache_bytes)?);
        Ok(())
    }

    /// Runs a read, again if the handle was at fault.
    pub(super) fn read<T>(&self, read: impl Fn(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let once = |handle: &Handle| contained(|| read(&handle.begin_read()?));
        {
            let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
            match once(slot.as_ref().ok_or_else(closed)?) {
                Ok(Err(StoreError::Failed(_) | StoreError::Full)) | Err(_) => {}
                Ok(result) => return result,
            }
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.renew(&mut slot)?;
        once(slot.as_ref().ok_or_else(closed)?).unwrap_or_else(|panic| {
            self.renew(&mut slot)?;
            Err(StoreError::Damaged(panic))
        })
    }

    /// Runs a transaction. `Ok`: it has been synced. Damage: it never was. Anything else: the handle was given up, and what is
    /// on the disk is the state before or the state after.
    pub(super) fn write<T>(&self, write: impl Fn(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let once = |handle: &Handle| {
            contained(|| {
                let mut transaction = handle.whole()?.begin_write().map_err(failed)?;
                transaction.set_durability(self.durability).map_err(failed)?;
                // Dropped without a commit, the transaction never was.
                let result = write(&transaction)?;
                transaction.commit().map_err(failed)?;
                Ok(result)
            })
        };
        {
            let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
            match once(slot.as_ref().ok_or_else(closed)?) {
                Ok(result @ (Ok(_) | Err(StoreError::Damaged(_) | StoreError::Gone))) => return result,
                Ok(Err(error)) => {
                    drop(slot);
                    let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
                    // What goes wrong with that shows at the next use.
                    let _ = self.renew(&mut slot);
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.renew(&mut slot)?;
        match once(slot.as_ref().ok_or_else(closed)?) {
            Ok(result @ (Ok(_) | Err(StoreError::Damaged(_) | StoreError::Gone))) => result,
            Ok(Err(error)) => {
                let _ = self.renew(&mut slot);
                Err(error)
            }
            Err(panic) => {
                self.renew(&mut slot)?;
                Err(StoreError::Damaged(panic))
            }
        }
    }

    /// Looks at the file beside the handle, at the newest commit: `first` looks, for the header, while nothing is written, so
    /// it must be quick; then `rest` looks at the commit's data, whose pages are kept from being overwritten meanwhile. The
    /// pages of what the library keeps for itself are so during `first` alone: a commit overwrites those of the one before.
    pub(super) fn beside<H, T>(
        &self,
        first: impl FnOnce(&dyn Look) -> Result<H, StoreError>,
        rest: impl FnOnce(&dyn Look, H, &ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !matches!(self.durability, Durability::Immediate) {
            return Err(StoreError::Failed("what is not synced is not on the disk".to_owned()));
        }
        let look = self.disk.look()?;
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let handle = slot.as_ref().ok_or_else(closed)?;
        let looked = contained(|| {
            let writer = handle.whole()?.begin_write().map_err(failed)?;
            let reader = handle.begin_read()?;
            let header = first(look.as_ref())?;
            writer.abort().map_err(failed)?;
            rest(look.as_ref(), header, &reader)
        });
        // What makes the library give up is met by whoever uses the handle next.
        looked.unwrap_or_else(|panic| Err(StoreError::Failed(panic)))
    }

    /// Uses the handle alone, as tools do.
    pub(super) fn alone<T>(&self, work: impl FnOnce(&mut Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let result = match slot.as_mut().ok_or_else(closed)? {
            Handle::Whole(database) => contained(|| work(database)),
            Handle::AsItIs(_) => Ok(Err(damaged("the file can only be read as it is"))),
        };
        let result = result.unwrap_or_else(|panic| Err(StoreError::Damaged(panic)));
        if result.is_err() {
            let _ = self.renew(&mut slot);
        }
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        give_up(self.database.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Runs something that may panic; what the panic said.
pub(super) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        format!("the database library gave up: {said}")
    })
}

fn give_up(slot: &mut Option<Handle>) {
    let database = slot.take();
    let _ = contained(|| drop(database));
}

fn closed() -> StoreError {
    StoreError::Failed("the store is closed".to_owned())
}

fn open_database(disk: &dyn Disk, how: How, cache_bytes: usize) -> Result<Handle, StoreError> {
    match open_once(disk, how, cache_bytes, false) {
        // What redb needs to write is damaged, or could not be made again: its check of the whole file makes it anew if the
        // trees are whole, and says what is wrong with them if not, where opening them as they stand may panic.
        Err(StoreError::Damaged(_)) if how != How::AsItIs => open_once(disk, how, cache_bytes, true),
        other => other,
    }
}

fn open_once(disk: &dyn Disk, how: How, cache_bytes: usize, whole_file: bool) -> Result<Handle, StoreError> {
    contained(|| {
        let backend = Opened(disk.open()?);
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes).set_check_integrity_on_open(whole_file);
        let in_use = |error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse,
            other => failed(other),
        };
        let handle = if how == How::AsItIs {
            // Beside a writer that may be at work, a reader asks for nothing but the trees.
            builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
            Handle::AsItIs(builder.open_read_only_with_backend(backend).map_err(in_use)?)
        } else {
            Handle::Whole(builder.create_with_backend(backend).map_err(in_use)?)
        };
        match format_of(&handle)? {
            Some(FORMAT) if how == How::Whole => check_whole(&handle)?,
            Some(FORMAT) => {}
            Some(other) => return Err(StoreError::Format(other)),
            None => create_tables(handle.whole()?)?,
        }
        Ok(handle)
    })
    .unwrap_or_else(|panic| Err(StoreError::Damaged(panic)))
}

/// What a store says its format is; `None`: it is new.
fn format_of(handle: &Handle) -> Result<Option<u64>, StoreError> {
    let transaction = handle.begin_read()?;
    let format = match transaction.open_table(STORE) {
        Ok(table) => table.get("format").map_err(failed)?.map(|value| value.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(failed(error)),
    };
    if format.is_none() && transaction.list_tables().map_err(failed)?.next().is_some() {
        return Err(damaged("the store does not say its format"));
    }
    Ok(format)
}

/// Every table is there, and every heap's name: one that could not be found would be a new heap.
fn check_whole(handle: &Handle) -> Result<(), StoreError> {
    let transaction = handle.begin_read()?;
    let names: Vec<String> = transaction.list_tables().map_err(failed)?.map(|table| table.name().to_owned()).collect();
    if let Some(missing) = NAMES.iter().find(|name| !names.iter().any(|there| there == *name)) {
        return Err(StoreError::Damaged(format!("the table {missing:?} is missing")));
    }
    check_heaps(&transaction)
}

/// The names of heaps are those that were given.
pub(super) fn check_heaps(transaction: &ReadTransaction) -> Result<(), StoreError> {
    let totals = get_row(transaction, TOTALS, 0, Totals::decode)?;
    let totals = totals.ok_or_else(|| damaged("the store's totals are missing"))?;
    let mut digest = 0_u64;
    for row in transaction.open_table(HEAPS).map_err(failed)?.iter().map_err(failed)? {
        let (name, value) = row.map_err(failed)?;
        digest = digest.wrapping_add(read_row(HEAPS, &name.value(), value.value(), number)?.1);
    }
    if digest == totals.digest { Ok(()) } else { Err(damaged("the names of heaps are not those that were given")) }
}

/// The number of a heap, of its row in `heaps`.
pub(super) fn number(rest: &[u8]) -> Result<u64, coheap_core::wire::codec::Malformed> {
    let mut r = coheap_core::wire::codec::Reader::new(rest);
    let number = r.u64()?;
    r.end()?;
    Ok(number)
}

fn create_tables(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    transaction.open_table(STORE).map_err(failed)?.insert("format", FORMAT).map_err(failed)?;
    Sealed::open(&transaction, TOTALS)?.put(&mut 0, 0, &Totals::default().encode())?;
    transaction.open_table(HEAPS).map_err(failed)?;
    transaction.open_table(META).map_err(failed)?;
    transaction.open_table(EPOCHS).map_err(failed)?;
    transaction.open_table(LOG).map_err(failed)?;
    transaction.open_table(ADMIT).map_err(failed)?;
    transaction.open_table(SEGMENTS).map_err(failed)?;
    transaction.open_table(CLOCKS).map_err(failed)?;
    transaction.open_table(SEGIDX).map_err(failed)?;
    transaction.open_table(SNAPS).map_err(failed)?;
    transaction.open_table(SNAP).map_err(failed)?;
    transaction.commit().map_err(failed)
}
