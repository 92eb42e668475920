//! The thread that writes. Group commit: at once when idle, and while one transaction syncs everything that queues up goes
//! into the next, up to a size. Nothing is reported as written before its transaction has returned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use coheap_core::relay::Append;
use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::store::{HeapAppend, Store, StoreError};

/// Bytes of entries in one transaction, so that the first of a long queue does not wait for all of it.
const GROUP_BYTES: usize = 8 << 20;
/// Between tries to open the store again after a failed write.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Writes until the driver is gone.
pub(super) fn run(store: &Store, queue: &Receiver<(Arc<str>, Append)>, events: &UnboundedSender<Event>) {
    while let Ok(first) = queue.recv() {
        let mut bytes = first.1.bytes();
        let mut heaps: BTreeMap<Arc<str>, Vec<Append>> = BTreeMap::new();
        heaps.entry(first.0).or_default().push(first.1);
        while bytes < GROUP_BYTES
            && let Ok((heap, append)) = queue.try_recv()
        {
            bytes += append.bytes();
            heaps.entry(heap).or_default().push(append);
        }
        let heaps: Vec<HeapAppend> = heaps.into_iter().map(|(heap, appends)| HeapAppend { heap, appends }).collect();
        let written = store.append(&heaps);
        let failure = written.as_ref().err().map(|error| matches!(error, StoreError::Full));
        for (at, heap) in heaps.into_iter().enumerate() {
            let done = written.as_ref().ok().and_then(|written| written.get(at)).copied().unwrap_or(false);
            report(events, heap, done, failure.unwrap_or(true));
        }
        if let Err(error) = written
            && !matches!(error, StoreError::Full)
        {
            eprintln!("coheap-relay: store: {error}");
            reopen(store);
        }
    }
}

fn report(events: &UnboundedSender<Event>, heap: HeapAppend, done: bool, full: bool) {
    let bytes = heap.appends.iter().map(Append::bytes).sum();
    let Some(last) = heap.appends.last() else { return };
    let (upto, attempt) = (last.end(), last.attempt);
    let name = heap.heap;
    let event = if done {
        Event::Committed { heap: name, upto, bytes }
    } else {
        Event::NotCommitted { heap: name, attempt, full, bytes }
    };
    let _ = events.send(event);
}

/// After a failed write the handle is not used again: what the system kept of it is unknown (a later sync may lie).
fn reopen(store: &Store) {
    for _ in 0..60 {
        match store.reopen() {
            Ok(()) => return,
            Err(error) => eprintln!("coheap-relay: store: {error}"),
        }
        std::thread::sleep(REOPEN_AFTER);
    }
}
