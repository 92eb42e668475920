//! A store that is only looked at: what the database library writes while it opens, repairs or checks the file stays in memory
//! and is gone with the handle. So looking at damage changes nothing, and a file can be opened that its library would not.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

use super::StoreError;
use super::disk::{Disk, FileDisk, Look};

const BLOCK: u64 = 4096;
/// The byte of redb's header that says how the file was left.
const STATE_AT: usize = 9;
/// Its bits for a file that is to be repaired before use, and for a commit whose first half alone was synced.
const TO_REPAIR: u8 = 2 | 8;

/// A file that is not written to.
#[derive(Debug)]
pub(super) struct Overlay {
    /// The file.
    pub path: PathBuf,
    /// Shows it as one that needs no repair: the library then takes it as it is, and what is damaged in it shows when it is
    /// read.
    pub as_it_is: bool,
}

impl Disk for Overlay {
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        let below = FileDisk::new(self.path.clone()).open()?;
        if let Ok(false) = below.try_lock_range(Bound::Unbounded, Bound::Unbounded) {
            return Err(StoreError::InUse);
        }
        let len = below.len().map_err(StoreError::io)?;
        let layer = Layer { below, over: Mutex::new(Over { len, below: len, blocks: BTreeMap::new() }) };
        if self.as_it_is {
            let mut state = [0];
            layer.read(STATE_AT as u64, &mut state).map_err(StoreError::io)?;
            layer.write(STATE_AT as u64, &[state[0] & !TO_REPAIR]).map_err(StoreError::io)?;
        }
        Ok(Box::new(layer))
    }

    fn look(&self) -> Result<Box<dyn Look>, StoreError> {
        // What was written here is not in the file.
        Err(StoreError::Failed("what is looked at only has no second handle".to_owned()))
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

#[derive(Debug)]
struct Layer {
    below: Box<dyn StorageBackend>,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    len: u64,
    /// What of the file below still counts.
    below: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Layer {
    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is now.
    fn block(&self, over: &Over, number: u64) -> io::Result<Vec<u8>> {
        if let Some(block) = over.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = vec![0; BLOCK as usize];
        let there = over.below.saturating_sub(number * BLOCK).min(BLOCK) as usize;
        if let Some(there) = block.get_mut(..there).filter(|there| !there.is_empty()) {
            self.below.read(number * BLOCK, there)?;
        }
        Ok(block)
    }
}

/// The pieces of a range, by block: number, first byte in it, first byte in the range, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK) as usize;
        let piece = (len - done).min(BLOCK as usize - within);
        let this = (at / BLOCK, within, done, piece);
        done += piece;
        (piece > 0).then_some(this)
    })
}

impl StorageBackend for Layer {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > over.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, at, len) in pieces(offset, out.len()) {
            let block = self.block(&over, number)?;
            out[at..at + len].copy_from_slice(&block[within..within + len]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        // What is cut off is zero if it comes back.
        over.blocks.retain(|number, _| number * BLOCK < len);
        over.below = over.below.min(len);
        over.len = len;
        let last = len / BLOCK;
        if let Some(block) = over.blocks.get_mut(&last) {
            block[(len % BLOCK) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        for (number, within, at, len) in pieces(offset, data.len()) {
            let mut block = self.block(&over, number)?;
            block[within..within + len].copy_from_slice(&data[at..at + len]);
            over.blocks.insert(number, block);
        }
        over.len = over.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }

    // The whole file below is locked already.
    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
