//! The disk under a relay process: the store that ships, with all heaps in it, over a file of a simulated disk; and the queue
//! before it, where appends wait for the next transaction. THE seam between a schedule and what keeps the bytes.
//!
//! What is handed over waits until a step says that a transaction is made of the oldest of it, as the relay's commit thread
//! does; that transaction succeeds, fails, or the process dies in the middle of it. Everything that is found on the disk
//! afterwards is what the store's own recovery finds.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::log::LogEntry;
use coheap_core::relay::{Append, Recovered, StateOf, StoredState};
use coheap_sync_server::{Appended, FoldResult, HeapAppend, Store, StoreError};

use super::{Failure, fails};
use crate::disk_backend::SimDisk;

/// What became of a transaction.
#[derive(Debug)]
pub enum Written {
    /// It is on the disk: these appends are durable.
    Yes(Vec<(usize, Append)>),
    /// There was no room: nothing of these is on the disk.
    Full(Vec<(usize, Append)>),
    /// The store failed, and does not know what of these is on the disk.
    Failed(Vec<(usize, Append)>),
}

/// One disk, one store, all heaps.
#[derive(Debug)]
pub struct Platter {
    disk: SimDisk,
    /// `None` while no relay process runs.
    store: Option<Store>,
    names: Vec<Arc<str>>,
    /// Appends that were handed over, oldest first, by heap.
    queue: Vec<(usize, Append)>,
}

/// A disk with an empty store: every schedule begins with one, and making it takes as long as twenty commits.
fn empty_store() -> Vec<u8> {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let disk = SimDisk::new(0);
        drop(Store::open_on(Box::new(disk.clone()), 0).expect("a healthy disk takes a store"));
        disk.medium()
    };
    EMPTY.get_or_init(make).clone()
}

impl Platter {
    /// A disk with an empty store, opened.
    pub fn new(seed: u64, heaps: usize) -> Result<Platter, Failure> {
        let disk = SimDisk::of(seed, empty_store());
        let names = (0..heaps).map(|heap| Arc::from(format!("heap{heap}"))).collect();
        let mut platter = Platter { disk, store: None, names, queue: Vec::new() };
        platter.open()?;
        Ok(platter)
    }

    /// A relay process starts: the store is opened, and repairs what it finds.
    pub fn open(&mut self) -> Result<(), Failure> {
        match Store::open_on(Box::new(self.disk.clone()), 0) {
            Ok(store) => self.store = Some(store),
            Err(error) => return fails("P5", format!("the store does not open: {error}")),
        }
        Ok(())
    }

    /// Takes an append.
    pub fn append(&mut self, heap: usize, append: Append) {
        self.queue.push((heap, append));
    }

    /// How many appends wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// A transaction of the `count` oldest appends.
    pub fn write(&mut self, count: usize) -> Result<Written, Failure> {
        let count = count.min(self.queue.len());
        let taken: Vec<_> = self.queue.drain(..count).collect();
        self.transact(taken)
    }

    /// A transaction of all that waits meets a full disk; `tells`: the disk says beforehand that it is.
    pub fn write_on_full(&mut self, tells: bool) -> Result<Written, Failure> {
        self.disk.set_capacity(Some(if tells { 0 } else { self.disk.used() }), tells);
        let taken = std::mem::take(&mut self.queue);
        let written = self.transact(taken);
        self.disk.set_capacity(None, false);
        written
    }

    /// The `nth` sync of a transaction of all that waits fails.
    pub fn write_with_failing_sync(&mut self, nth: u64) -> Result<Written, Failure> {
        self.disk.fail_sync(nth);
        let taken = std::mem::take(&mut self.queue);
        let written = self.transact(taken);
        // A sync that was not reached fails nothing later.
        self.disk.forget_failures();
        written
    }

    fn transact(&mut self, taken: Vec<(usize, Append)>) -> Result<Written, Failure> {
        let Some(store) = &self.store else { return fails("P5", "appends without a relay") };
        let mut heaps: Vec<HeapAppend> = Vec::new();
        for (heap, append) in &taken {
            let name = &self.names[*heap];
            match heaps.iter_mut().find(|other| other.heap == *name) {
                Some(group) => group.appends.push(append.clone()),
                None => heaps.push(HeapAppend { heap: Arc::clone(name), appends: vec![append.clone()] }),
            }
        }
        match store.append(&heaps) {
            Ok(written) => match written.into_iter().find(|written| *written != Appended::Written) {
                None => Ok(Written::Yes(taken)),
                Some(other) => fails("P5", format!("the store does not take what follows: {other:?}")),
            },
            Err(StoreError::Full) => Ok(Written::Full(taken)),
            Err(StoreError::Failed(_)) => Ok(Written::Failed(taken)),
            Err(error) => fails("P5", format!("the store says of a healthy disk: {error}")),
        }
    }

    /// The relay process dies, and the power fails with it; `in_a_write`: in a transaction of what waits, at that operation
    /// of the disk.
    pub fn crash(&mut self, in_a_write: Option<u64>) {
        if let (Some(nth), false) = (in_a_write, self.queue.is_empty()) {
            self.disk.die_at(nth);
            let taken = std::mem::take(&mut self.queue);
            let _ = self.transact(taken);
        }
        // What the handle still would write at its end does not reach the disk of a dead process.
        self.disk.crash();
        self.store = None;
        self.queue.clear();
    }

    /// Keeps a copy of the disk, as a backup does.
    pub fn keep_copy(&self) {
        self.disk.keep_copy();
    }

    /// The disk is the copy that was kept; only while no relay runs.
    pub fn roll_back(&self) {
        self.disk.roll_back();
    }

    /// The disk is a new one; only while no relay runs.
    pub fn wipe(&self) {
        self.disk.wipe();
    }

    /// A heap as the store finds it.
    pub fn recover(&self, heap: usize) -> Result<Recovered, Failure> {
        let Some(store) = &self.store else { return fails("P5", "a read without a relay") };
        store.recover(&self.names[heap]).or_else(|error| fails("P5", format!("the store does not recover: {error}")))
    }

    /// Entries; `None`: the log does not reach back that far.
    pub fn log(&self, heap: usize, from: Offset, upto: Offset, bytes_max: usize) -> Option<Vec<(Offset, LogEntry)>> {
        self.store.as_ref()?.read_log(&self.names[heap], from, upto, bytes_max).ok()
    }

    /// States of segments.
    pub fn states<S: Copy + Into<StateOf>>(
        &self,
        heap: usize,
        position: Offset,
        segments: &[S],
        bytes_max: usize,
    ) -> Option<Vec<StoredState>> {
        self.store.as_ref()?.read_states(&self.names[heap], position, segments, bytes_max).ok()
    }

    /// The snapshot of a segment, and the deltas behind it with their entries.
    pub fn tail(&self, heap: usize, segment: SegmentNumber, position: Offset) -> Option<(Bytes, Vec<(Offset, Bytes)>)> {
        self.store.as_ref()?.read_tail(&self.names[heap], segment, position).ok()
    }

    /// Puts a snapshot in the place of deltas.
    pub fn fold(
        &self,
        heap: usize,
        segment: SegmentNumber,
        position: Offset,
        keep: Offset,
        snapshot: &[u8],
    ) -> Option<FoldResult> {
        self.store.as_ref()?.fold(&self.names[heap], segment, position, keep, snapshot).ok()
    }
}
