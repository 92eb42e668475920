//! The relay's store: THE place the relay writes to disk. `STORE.md` says what lies there.
//!
//! ```text
//!   driver ──Append──► commit thread ──one transaction──► redb      (driver/commit.rs)
//!   driver ◄──states, log, heaps── blocking threads ◄──── redb      
//! ```
//!
//! Nothing here knows a connection or decides an order.

mod record;
mod recover;
mod redb;

use std::sync::Arc;

pub use self::redb::Store;

/// What one heap has to have written.
#[derive(Debug)]
pub struct HeapAppend {
    /// Which heap.
    pub heap: Arc<str>,
    /// In order.
    pub appends: Vec<coheap_core::relay::Append>,
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
    /// It was written by a later version.
    #[error("the data directory has format {0}, this relay knows up to {known}", known = self::redb::FORMAT)]
    Newer(u64),
    /// There is no room left: nothing was written, reading goes on.
    #[error("the disk is full")]
    Full,
    /// What is there is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The log below this was folded away.
    #[error("the log does not reach back that far")]
    Gone,
    /// The system or the database failed.
    #[error("{0}")]
    Failed(String),
}
