//! A disk below the store that ships: the same code opens it, repairs it and writes to it, and everything that a disk does on
//! bad days is decided by a seed.
//!
//! ```text
//!   store ── write ──► what reads show ── sync ──► what is on the medium
//!                          │                            │
//!                  crash: any of it, torn        kept copy, rolled back, wiped, flipped, cut
//! ```
//!
//! A failed sync is the worst kind: some of what was written is on the medium, the rest is not, and reads through the same
//! handle go on to show all of it; a later sync succeeds. Only opening the file again tells.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coheap_sync_server::{BackendError, Disk, Look, StorageBackend, StoreError};

use crate::Draws;

const BLOCK: u64 = 4096;
const SECTOR: usize = 512;

/// A disk with one file. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What a disk has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Times the file was opened.
    pub opens: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Errors that were given.
    pub faults: u64,
    /// Bytes that were looked at beside whoever has it open.
    pub looked: u64,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug)]
struct State {
    draws: Draws,
    medium: Vec<u8>,
    shown: Vec<u8>,
    unsynced: Vec<Change>,
    /// Handles of an earlier life are dead.
    life: u64,
    locked: bool,
    counts: Counts,
    fail_sync: Option<u64>,
    fail_write: Option<u64>,
    die: Option<u64>,
    dead: bool,
    capacity: Option<u64>,
    blocks: BTreeSet<u64>,
    tells_free: bool,
    ignores_sync: bool,
    lost: BTreeSet<u64>,
    copy: Vec<u8>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::of(seed, Vec::new())
    }

    /// A disk with these bytes on it.
    pub fn of(seed: u64, medium: Vec<u8>) -> SimDisk {
        let mut state = State {
            draws: Draws(seed),
            medium: Vec::new(),
            shown: Vec::new(),
            unsynced: Vec::new(),
            life: 0,
            locked: false,
            counts: Counts::default(),
            fail_sync: None,
            fail_write: None,
            die: None,
            dead: false,
            capacity: None,
            blocks: BTreeSet::new(),
            tells_free: true,
            ignores_sync: false,
            lost: BTreeSet::new(),
            copy: Vec::new(),
        };
        state.replace(medium);
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// What is on the medium.
    pub fn medium(&self) -> Vec<u8> {
        self.state().medium.clone()
    }

    /// True while something written has not been synced.
    pub fn is_dirty(&self) -> bool {
        !self.state().unsynced.is_empty()
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The power fails: of what was not synced, any part is there, in any order, one piece of it torn.
    pub fn crash(&self) {
        let mut state = self.state();
        let unsynced = std::mem::take(&mut state.unsynced);
        // A third of the crashes keep nothing, or all: the extremes are the likeliest to be thought through.
        let style = state.draws.below(6);
        let torn = state.draws.below(unsynced.len().max(1));
        for (at, change) in unsynced.into_iter().enumerate() {
            let kept = match style {
                0 => false,
                1 => true,
                _ => state.draws.below(2) == 0,
            };
            match change {
                Change::Write(start, mut bytes) if at == torn && style > 0 => {
                    let len = state.draws.below(bytes.len() + 1);
                    bytes.truncate(if style.is_multiple_of(2) { len } else { len / SECTOR * SECTOR });
                    state.persist(Change::Write(start, bytes));
                }
                change if kept => state.persist(change),
                _ => {}
            }
        }
        let medium = std::mem::take(&mut state.medium);
        state.replace(medium);
    }

    /// The power fails after the first of what was not synced, which is cut after so many bytes. For exhaustive tests.
    pub fn crash_after(&self, changes: usize, bytes_of_next: usize) {
        let mut state = self.state();
        for (at, change) in std::mem::take(&mut state.unsynced).into_iter().enumerate() {
            match change {
                change if at < changes => state.persist(change),
                Change::Write(start, mut bytes) if at == changes => {
                    bytes.truncate(bytes_of_next);
                    state.persist(Change::Write(start, bytes));
                }
                _ => break,
            }
        }
        let medium = std::mem::take(&mut state.medium);
        state.replace(medium);
    }

    /// The lengths of what was not synced, in order; a change of the file's length counts as 0.
    pub fn unsynced(&self) -> Vec<usize> {
        let length = |change: &Change| match change {
            Change::Write(_, bytes) => bytes.len(),
            Change::Length(_) => 0,
        };
        self.state().unsynced.iter().map(length).collect()
    }

    /// The process dies; the system lives and writes what it was given.
    pub fn kill(&self) {
        let mut state = self.state();
        for change in std::mem::take(&mut state.unsynced) {
            state.persist(change);
        }
        let medium = std::mem::take(&mut state.medium);
        state.replace(medium);
    }

    /// The power fails at the `nth` write, sync or change of length from now (1: the next): it and all after it fail, until a
    /// `crash` says what is left.
    pub fn die_at(&self, nth: u64) {
        self.state().die = Some(nth);
    }

    /// The `nth` sync from now fails (1: the next), once.
    pub fn fail_sync(&self, nth: u64) {
        self.state().fail_sync = Some(nth);
    }

    /// The `nth` write from now fails (1: the next), once.
    pub fn fail_write(&self, nth: u64) {
        self.state().fail_write = Some(nth);
    }

    /// What was to fail and has not been reached fails no more.
    pub fn forget_failures(&self) {
        let mut state = self.state();
        (state.fail_sync, state.fail_write, state.die) = (None, None, None);
    }

    /// The disk holds so many bytes; `None`: any number. `tells_free`: whether it says beforehand how many are left.
    pub fn set_capacity(&self, bytes: Option<u64>, tells_free: bool) {
        let mut state = self.state();
        (state.capacity, state.tells_free) = (bytes, tells_free);
    }

    /// Bytes that the file takes up on the disk.
    pub fn used(&self) -> u64 {
        self.state().blocks.len() as u64 * BLOCK
    }

    /// Syncs say that they are done and do nothing.
    pub fn ignore_syncs(&self) {
        self.state().ignores_sync = true;
    }

    /// Keeps a copy of the medium, as a backup does.
    pub fn keep_copy(&self) {
        let mut state = self.state();
        state.copy = state.medium.clone();
    }

    /// The copy that was kept takes the place of the disk.
    pub fn roll_back(&self) {
        let mut state = self.state();
        let copy = state.copy.clone();
        state.replace(copy);
    }

    /// A new disk takes its place.
    pub fn wipe(&self) {
        self.state().replace(Vec::new());
    }

    /// Flips a bit of the medium.
    pub fn flip(&self, bit: u64) {
        let mut state = self.state();
        let mut medium = std::mem::take(&mut state.medium);
        if let Some(byte) = medium.get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
        state.replace(medium);
    }

    /// Flips a bit of the medium under whoever has it open.
    pub fn rot(&self, bit: u64) {
        let mut state = self.state();
        let State { medium, shown, .. } = &mut *state;
        for bytes in [medium, shown] {
            if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The sector at this byte cannot be read any more, until something is written there.
    pub fn lose(&self, at: u64) {
        self.state().lost.insert(at / SECTOR as u64);
    }

    /// Cuts the file off.
    pub fn truncate(&self, len: usize) {
        let mut state = self.state();
        let mut medium = std::mem::take(&mut state.medium);
        medium.truncate(len);
        state.replace(medium);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn open(&self) -> Result<Box<dyn StorageBackend>, StoreError> {
        let mut state = self.state();
        if state.dead {
            return Err(StoreError::Failed("the simulated power has failed".to_owned()));
        }
        state.sync().map_err(|error| StoreError::Failed(error.to_string()))?;
        // What a failed sync left unwritten is no longer shown.
        let state = &mut *state;
        state.shown.clone_from(&state.medium);
        state.counts.opens += 1;
        Ok(Box::new(File { disk: self.clone(), life: state.life }))
    }

    fn look(&self) -> Result<Box<dyn Look>, StoreError> {
        Ok(Box::new(File { disk: self.clone(), life: self.state().life }))
    }

    fn free_bytes(&self) -> Option<u64> {
        let state = self.state();
        let used = state.blocks.len() as u64 * BLOCK;
        state.capacity.filter(|_| state.tells_free).map(|capacity| capacity.saturating_sub(used))
    }
}

impl State {
    /// Another medium, another life.
    fn replace(&mut self, medium: Vec<u8>) {
        // Reads come through what the next open shows.
        self.shown.clear();
        self.medium = medium;
        self.unsynced.clear();
        self.lost.clear();
        self.blocks = (0..self.medium.len() as u64).step_by(BLOCK as usize).map(|at| at / BLOCK).collect();
        self.life += 1;
        self.locked = false;
        (self.fail_sync, self.fail_write, self.die, self.dead) = (None, None, None, false);
    }

    fn persist(&mut self, change: Change) {
        match change {
            Change::Length(len) => self.medium.resize(len as usize, 0),
            Change::Write(at, bytes) => put(&mut self.medium, at, &bytes),
        }
    }

    fn sync(&mut self) -> std::io::Result<()> {
        if is_due(&mut self.fail_sync) {
            self.counts.faults += 1;
            for change in std::mem::take(&mut self.unsynced) {
                if self.draws.below(2) == 0 {
                    self.persist(change);
                }
            }
            return Err(Error::other("the simulated disk fails to sync"));
        }
        self.counts.syncs += 1;
        if !self.ignores_sync {
            for change in std::mem::take(&mut self.unsynced) {
                self.persist(change);
            }
        }
        Ok(())
    }

    fn write(&mut self, at: u64, data: &[u8]) -> std::io::Result<()> {
        if is_due(&mut self.fail_write) {
            self.counts.faults += 1;
            return Err(Error::other("the simulated disk fails to write"));
        }
        let touched = at / BLOCK..=(at + data.len().max(1) as u64 - 1) / BLOCK;
        let new = touched.clone().filter(|block| !self.blocks.contains(block)).count() as u64;
        if self.capacity.is_some_and(|capacity| new > 0 && (self.blocks.len() as u64 + new) * BLOCK > capacity) {
            self.counts.faults += 1;
            return Err(Error::from(ErrorKind::StorageFull));
        }
        self.blocks.extend(touched);
        self.lost.retain(|sector| !sectors(at, data.len()).contains(sector));
        self.counts.writes += 1;
        put(&mut self.shown, at, data);
        self.unsynced.push(Change::Write(at, data.to_vec()));
        Ok(())
    }
}

/// The sectors that so many bytes from there on lie in.
fn sectors(at: u64, len: usize) -> Range<u64> {
    at / SECTOR as u64..(at + len as u64).div_ceil(SECTOR as u64)
}

fn put(bytes: &mut Vec<u8>, at: u64, data: &[u8]) {
    let (at, end) = (at as usize, at as usize + data.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0 | 1) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// The file, opened.
#[derive(Debug)]
struct File {
    disk: SimDisk,
    life: u64,
}

impl File {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> std::io::Result<T>) -> std::io::Result<T> {
        let mut state = self.disk.state();
        if state.life != self.life {
            return Err(Error::other("the handle did not survive the crash"));
        }
        work(&mut state)
    }

    /// Something that does not happen without power.
    fn change<T>(&self, work: impl FnOnce(&mut State) -> std::io::Result<T>) -> std::io::Result<T> {
        self.with(|state| {
            state.dead |= is_due(&mut state.die);
            if state.dead { Err(Error::other("the simulated power has failed")) } else { work(state) }
        })
    }
}

impl Look for File {
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.disk.state().counts.looked += out.len() as u64;
        StorageBackend::read(self, offset, out)
    }
}

impl StorageBackend for File {
    fn len(&self) -> std::io::Result<u64> {
        self.with(|state| Ok(state.shown.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.with(|state| {
            if state.lost.range(sectors(offset, out.len())).next().is_some() {
                state.counts.faults += 1;
                // EIO
                return Err(Error::from_raw_os_error(5));
            }
            let end = usize::try_from(offset).ok().and_then(|start| Some((start, start.checked_add(out.len())?)));
            let bytes = end.and_then(|(start, end)| state.shown.get(start..end));
            out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.change(|state| {
            state.shown.resize(len as usize, 0);
            state.blocks.retain(|block| block * BLOCK < len);
            state.unsynced.push(Change::Length(len));
            Ok(())
        })
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.change(State::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.change(|state| state.write(offset, data))
    }

    // As a file without locks of ranges: the whole of it, or nothing.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if !matches!(start, Bound::Unbounded | Bound::Included(0)) || end != Bound::Unbounded {
            return Err(BackendError::Unsupported);
        }
        let mut state = self.disk.state();
        Ok(state.life == self.life && !std::mem::replace(&mut state.locked, true))
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if !matches!(start, Bound::Unbounded | Bound::Included(0)) || end != Bound::Unbounded {
            return Err(BackendError::Unsupported);
        }
        self.close().map_err(BackendError::Io)
    }

    fn close(&self) -> std::io::Result<()> {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
        Ok(())
    }
}
