//! The disk under a relay process: all its heaps in one store, with what goes wrong under it. THE seam between a schedule
//! and whatever keeps the bytes.

use bytes::Bytes;
use coheap_core::id::{Offset, SegmentNumber};
use coheap_core::log::LogEntry;
use coheap_core::relay::{Append, Folded, Recovered, StoredState};

use crate::disk::Disk;

/// What a fold left behind: what it covers, the floor, and who holds the floor.
pub type FoldedTo = (Folded, Offset, Option<SegmentNumber>);

/// One store for all heaps.
#[derive(Clone, Debug)]
pub struct Platter {
    heaps: Vec<Disk>,
    /// Appends that were handed over, in order, and are not durable.
    queue: Vec<(usize, Append)>,
}

impl Platter {
    /// An empty one.
    pub fn new(heaps: usize) -> Platter {
        Platter { heaps: vec![Disk::default(); heaps], queue: Vec::new() }
    }

    /// Takes an append.
    pub fn append(&mut self, heap: usize, append: Append) {
        self.queue.push((heap, append));
    }

    /// True while something is not durable.
    pub fn is_dirty(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Writes the `count` oldest appends, whole, in one transaction, and syncs: the appends that are durable now.
    pub fn sync(&mut self, count: usize) -> Vec<(usize, Append)> {
        let count = count.min(self.queue.len());
        let done: Vec<_> = self.queue.drain(..count).collect();
        for (heap, append) in &done {
            self.heaps[*heap].append(append.clone());
        }
        for disk in &mut self.heaps {
            disk.sync();
        }
        done
    }

    /// A sync fails for want of room: nothing of what was handed over is written.
    pub fn fill(&mut self) -> Vec<(usize, Append)> {
        std::mem::take(&mut self.queue)
    }

    /// A sync fails, or the process dies: the `kept` oldest appends are on the disk all the same, and the rest is not.
    pub fn fail(&mut self, kept: usize) -> Vec<(usize, Append)> {
        let queue = self.queue.clone();
        self.sync(kept);
        self.queue.clear();
        queue
    }

    /// How many appends are under way.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// A heap as it is found.
    pub fn recover(&self, heap: usize) -> Recovered {
        self.heaps[heap].recover()
    }

    /// Entries; `None`: the log does not reach back that far.
    pub fn log(&self, heap: usize, from: Offset, upto: Offset, bytes_max: usize) -> Option<Vec<(Offset, LogEntry)>> {
        Some(self.heaps[heap].log(from, upto, bytes_max)).filter(|entries| !entries.is_empty())
    }

    /// States of segments.
    pub fn states(&self, heap: usize, position: Offset, segments: &[SegmentNumber]) -> Vec<StoredState> {
        self.heaps[heap].states(position, segments)
    }

    /// Puts a snapshot in the place of deltas.
    pub fn fold(
        &mut self,
        heap: usize,
        segment: SegmentNumber,
        position: Offset,
        keep: Offset,
        snapshot: Vec<u8>,
    ) -> FoldedTo {
        self.heaps[heap].fold(segment, position, keep, Bytes::from(snapshot))
    }
}
