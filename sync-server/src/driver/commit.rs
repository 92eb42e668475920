//! The thread that writes. Group commit: at once when idle, and while one transaction syncs everything that queues up goes
//! into the next, up to a size. Nothing is reported as written before its transaction has returned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use coheap_core::id::Offset;
use coheap_core::relay::Append;
use tokio::sync::mpsc::UnboundedSender;

use super::{Event, NotWritten, Opening};
use crate::store::{Appended, HeapAppend, Store, StoreError};

/// Bytes of entries in one transaction, so that the first of a long queue does not wait for all of it.
const GROUP_BYTES: usize = 8 << 20;
/// Between tries to open the store again after a failed write.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Writes until the driver is gone.
pub(super) fn run(store: &Store, queue: &Receiver<(Opening, Append)>, events: &UnboundedSender<Event>) {
    while let Ok(first) = queue.recv() {
        let mut bytes = first.1.bytes();
        // What one machine appended in one attempt is written whole or not at all.
        let mut groups: BTreeMap<(Opening, u32), Vec<Append>> = BTreeMap::new();
        groups.entry((first.0, first.1.attempt)).or_default().push(first.1);
        while bytes < GROUP_BYTES
            && let Ok((of, append)) = queue.try_recv()
        {
            bytes += append.bytes();
            groups.entry((of, append.attempt)).or_default().push(append);
        }
        let (of, heaps): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .map(|((of, attempt), appends)| {
                let heap = Arc::clone(&of.heap);
                ((of, attempt), HeapAppend { heap, appends })
            })
            .unzip();
        let written = store.append(&heaps);
        for (at, ((of, attempt), heap)) in of.into_iter().zip(heaps).enumerate() {
            let why = match &written {
                Ok(written) => match written.get(at) {
                    Some(Appended::Written) => None,
                    Some(Appended::Damaged(what)) => Some(NotWritten::Damaged(what.clone())),
                    Some(Appended::Gap) | None => Some(NotWritten::Full),
                },
                Err(StoreError::Full) => Some(NotWritten::Full),
                Err(_) => Some(NotWritten::Failed),
            };
            let bytes = heap.appends.iter().map(Append::bytes).sum();
            let upto = heap.appends.last().map_or(Offset(0), Append::end);
            let _ = events.send(match why {
                None => Event::Committed { of, attempt, upto, bytes },
                Some(why) => Event::NotCommitted { of, attempt, why, bytes },
            });
        }
        if let Err(error) = &written {
            if !matches!(error, StoreError::Full) {
                eprintln!("coheap-relay: store: {error}");
            }
            reopen(store);
        }
    }
}

/// After a failed write the store has given its handle up, because what the system kept of it is unknown (a later sync may
/// lie), and opened the file again. If that failed too, nothing is written, and so nothing acknowledged, until it does.
fn reopen(store: &Store) {
    for _ in 0..60 {
        match store.reopen() {
            Ok(()) => return,
            Err(error) => eprintln!("coheap-relay: store: {error}"),
        }
        std::thread::sleep(REOPEN_AFTER);
    }
}
