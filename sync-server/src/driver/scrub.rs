//! Reads every heap again and again, slowly, on a thread of low priority: damage to what nobody reads is found while replicas
//! still have it. The database library keeps what it has read lately in memory, and that is not read from the disk again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::config::Scrub;
use crate::store::{Store, StoreError};

/// Reads until the other end of `stop` is gone.
pub(super) fn run(store: &Store, scrub: Scrub, stop: &Receiver<()>, events: &UnboundedSender<Event>) {
    // Of this thread only, on Linux.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 15);
    while sleep(stop, scrub.every) {
        if let Err(error @ StoreError::Damaged(_)) = store.verify_names() {
            eprintln!("coheap-relay: store: {error}");
        }
        let mut last = None;
        while let Ok(Some(heap)) = store.next_heap(last.as_deref()) {
            let pace =
                |bytes: u64| sleep(stop, Duration::from_secs_f64(bytes as f64 / scrub.bytes_per_s.max(1) as f64));
            if let Err(error @ StoreError::Damaged(_)) = store.verify_heap(&heap, pace) {
                let _ = events.send(Event::Scrubbed { heap: Arc::from(heap.as_str()), error });
            }
            // Many small heaps are not a burst either.
            if !sleep(stop, Duration::from_millis(1)) {
                return;
            }
            last = Some(heap);
        }
    }
}

/// False: it is time to end.
fn sleep(stop: &Receiver<()>, time: Duration) -> bool {
    matches!(stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}
