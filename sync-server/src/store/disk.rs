//! Where the bytes of the store lie. A file is one disk; tests bring others, with the faults that a file has only on bad days.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::StoreError;

/// Opens the one file of a store.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens it, creating it if it is missing. Called at the start and again after every failure: what the system still has in
    /// memory of the time before, and may never have reached the medium, is not to be seen through what is returned.
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError>;

    /// A second handle of the same file, to look at what lies there beside the one that writes it.
    fn look(&self) -> Result<Box<dyn Look>, StoreError>;

    /// Bytes that may still be written; `None`: unknown.
    fn free_bytes(&self) -> Option<u64>;
}

/// A file that is only read, while somebody else writes it.
pub trait Look: Debug {
    /// Reads from there on; `UnexpectedEof` if the file ends before. What the medium has is read again, if the system can be
    /// made to.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// A file of a file system.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
}

impl FileDisk {
    /// This file.
    pub fn new(path: PathBuf) -> FileDisk {
        FileDisk { path }
    }
}

impl Disk for FileDisk {
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path);
        let file = file.map_err(StoreError::io)?;
        forget_cached(&file).map_err(StoreError::io)?;
        let backend = FileBackend::new(file).map_err(super::tables::failed)?;
        Ok(Box::new(backend))
    }

    fn look(&self) -> Result<Box<dyn Look>, StoreError> {
        let file = OpenOptions::new().read(true).open(&self.path).map_err(StoreError::io)?;
        Ok(Box::new(FileLook { file }))
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Takes no lock, and has none to lose: those of the first handle are its own.
#[derive(Debug)]
struct FileLook {
    file: File,
}

impl Look for FileLook {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // What was synced is read from the medium, not from the system's memory of it.
        let len = std::num::NonZeroU64::new(out.len() as u64);
        let _ = rustix::fs::fadvise(&self.file, offset, len, rustix::fs::Advice::DontNeed);
        self.file.read_exact_at(out, offset)
    }
}

/// After a failed write the system may show pages as written that are not. They are clean to it, and so it lets go of them;
/// those that it still has to write it writes first. A system without such advice (tmpfs) has no other copy either.
fn forget_cached(file: &File) -> io::Result<()> {
    file.sync_data()?;
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// A boxed backend as one of a type.
#[derive(Debug)]
pub(super) struct Opened(pub Box<dyn StorageBackend>);

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
