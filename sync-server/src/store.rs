//! The relay's store: THE place the relay writes to disk. `STORE.md` says what lies there.
//!
//! ```text
//!   driver ──Append──► commit thread ──one transaction──► redb      (driver/commit.rs)
//!   driver ◄──states, log, heaps── blocking threads ◄──── redb
//! ```
//!
//! Nothing here knows a connection or decides an order. Reading order: `tables.rs`, `record.rs`, `handle.rs`, `append.rs`,
//! `recover.rs`, `read.rs`, `fold.rs`; `disk.rs` is what lies below (`overlay.rs`: to look at it only); `verify.rs`, `dump.rs` and `salvage.rs` are
//! the tools; `scrub.rs` looks at the pages of a file in use, which `pages.rs` reads.

mod append;
mod disk;
mod dump;
mod fold;
#[cfg(fuzzing)]
pub mod fuzz;
mod handle;
mod overlay;
mod pages;
mod read;
mod record;
mod recover;
mod salvage;
mod scrub;
mod tables;
mod verify;

use std::io::ErrorKind;
use std::sync::Arc;

pub use self::disk::{Disk, FileDisk, Look};
pub use self::handle::Store;
pub use self::salvage::{Salvaged, salvage};
pub use self::scrub::{PageDamage, PagesChecked};
pub use self::verify::Verified;

/// What one heap has to have written.
#[derive(Debug)]
pub struct HeapAppend {
    /// Which heap.
    pub heap: Arc<str>,
    /// In order.
    pub appends: Vec<coheap_core::relay::Append>,
}

/// What has become of one heap's appends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Appended {
    /// They are on the disk.
    Written,
    /// They do not begin at the heap's head: they follow some that failed, and are not written.
    Gap,
    /// What the heap has on the disk is not what was written there; these are not written.
    Damaged(String),
}

/// What a fold left behind.
#[derive(Clone, Copy, Debug)]
pub struct FoldResult {
    /// What the new snapshot covers.
    pub folded: coheap_core::relay::Folded,
    /// Below it, the log has been dropped.
    pub floor: coheap_core::id::Offset,
    /// The segment that keeps the floor from rising, if one does.
    pub holder: Option<coheap_core::id::SegmentNumber>,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("the data directory is in use by another relay")]
    InUse,
    /// It was written by another version.
    #[error("the data directory has format {0}, this relay reads and writes {reads}", reads = tables::FORMAT)]
    Format(u64),
    /// There is no room left: nothing was written, reading goes on.
    #[error("the disk is full")]
    Full,
    /// What is there is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The log below this was folded away, or there is no such heap.
    #[error("there is no such heap, or its log does not reach back that far")]
    Gone,
    /// The system or the database failed.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    fn io(error: std::io::Error) -> StoreError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
            // A file that is cut off, or is no database at all.
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => StoreError::Damaged(error.to_string()),
            _ => StoreError::Failed(error.to_string()),
        }
    }
}
