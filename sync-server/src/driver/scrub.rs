//! Reads every page of the store's file and every heap again and again, slowly, on a thread of low priority: damage to what
//! nobody reads is found while replicas still have it.
//!
//! Pages are read from the disk, with the database library's checksums. One that is damaged makes the store suspect, which is
//! said; the heaps that are well go on. Then the heaps are read as always, with our own checksums: a heap that does not pass
//! is halted. What the library has in its memory of them is not read from the disk again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::config::Scrub;
use crate::store::{Store, StoreError};

/// After so many bytes of pages there is a pause, and what was overwritten meanwhile can be used again.
const STEP_BYTES: u64 = 1 << 20;

/// Reads until the other end of `stop` is gone. `suspect`: pages are damaged.
pub(super) fn run(
    store: &Store,
    scrub: Scrub,
    suspect: &AtomicBool,
    stop: &Receiver<()>,
    events: &UnboundedSender<Event>,
) {
    // Of this thread only, on Linux.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 15);
    let pace = |bytes: u64| sleep(stop, Duration::from_secs_f64(bytes as f64 / scrub.bytes_per_s.max(1) as f64));
    let mut lost = false;
    while sleep(stop, scrub.every) {
        lost = check_pages(store, scrub, suspect, pace).unwrap_or(lost);
        // The library gives up over what the disk cannot read, and reads the whole file before it goes on: that would end all heaps.
        if lost {
            continue;
        }
        if let Err(error @ StoreError::Damaged(_)) = store.verify_names() {
            eprintln!("coheap-relay: store: {error}");
        }
        let mut last = None;
        while let Ok(Some(heap)) = store.next_heap(last.as_deref()) {
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

/// Whether there are pages that the disk cannot read; `None`: that is not known.
fn check_pages(store: &Store, scrub: Scrub, suspect: &AtomicBool, pace: impl FnMut(u64) -> bool) -> Option<bool> {
    let (damaged, lost) = match store.check_pages(STEP_BYTES.min(scrub.bytes_per_s), pace) {
        Ok(checked) => {
            for damage in &checked.damage {
                eprintln!("coheap-relay: store: damaged: {damage}");
            }
            if checked.more > 0 {
                eprintln!("coheap-relay: store: damaged: {} more pages", checked.more);
            }
            if let Some(why) = &checked.left {
                eprintln!("coheap-relay: store: not all pages could be checked: {why}");
            }
            if checked.lost {
                eprintln!("coheap-relay: store: heaps are not looked at while the disk cannot read some pages");
            }
            // What was known stays so where not all was looked at.
            (!checked.damage.is_empty(), (checked.lost || checked.left.is_none()).then_some(checked.lost))
        }
        Err(error @ StoreError::Damaged(_)) => {
            eprintln!("coheap-relay: store: {error}");
            (true, None)
        }
        // What was known stays so.
        Err(error) => {
            eprintln!("coheap-relay: store: its pages could not be checked: {error}");
            return None;
        }
    };
    if damaged {
        eprintln!(
            "coheap-relay: store: stop the relay and run `coheap-relay store verify`; heaps that are whole go on"
        );
    }
    suspect.store(damaged, Ordering::Relaxed);
    lost
}

/// False: it is time to end.
fn sleep(stop: &Receiver<()>, time: Duration) -> bool {
    matches!(stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;

    use coheap_core::id::EpochId;
    use coheap_core::relay::Append;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::store::HeapAppend;

    /// Set in the process whose stderr is read.
    const CHILD: &str = "COHEAP_TEST_SCRUB";
    const NAME: &str = "driver::scrub::tests::a_missing_name_is_told_on_stderr_and_all_other_heaps_are_read";

    /// Nobody asks for a heap that nobody knows of, and a new one by its name would be empty: only this line says it.
    #[test]
    fn a_missing_name_is_told_on_stderr_and_all_other_heaps_are_read() {
        if std::env::var_os(CHILD).is_some() {
            return scrub_without_a_name();
        }
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        let child = child.args([NAME, "--exact", "--nocapture"]).env(CHILD, "1").output().expect("it runs");
        let [out, told] = [child.stdout, child.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(child.status.success() && out.contains("1 passed"), "{out}{told}");
        let line = "coheap-relay: store: damaged: the names of heaps are not those that were given";
        assert!(told.lines().any(|said| said == line), "{told}");
    }

    fn scrub_without_a_name() {
        let directory = std::env::temp_dir().join(format!("coheap-scrub-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let store = Arc::new(Store::open(&directory, 0).expect("a new store"));
        let epoch = Some((EpochId { counter: 1, random: 7 }, Default::default()));
        let begins =
            |heap: &str| HeapAppend { heap: heap.into(), appends: vec![Append { epoch, ..Append::default() }] };
        store.append(&["lost", "whole", "without meta"].map(begins)).expect("written");
        store.verify_names().expect("all are there");
        store.lose("lost", "without meta").expect("they were there");
        let ((end, stop), (events, mut told)) = (channel(), unbounded_channel());
        let scrub = Scrub { every: Duration::from_millis(1), bytes_per_s: 1 << 30 };
        let scrubbed = Arc::clone(&store);
        let thread = std::thread::spawn(move || run(&scrubbed, scrub, &AtomicBool::new(false), &stop, &events));
        // The names come first in each round, and then every heap that has one.
        let first = told.blocking_recv();
        assert!(matches!(first, Some(Event::Scrubbed { heap, .. }) if &*heap == "without meta"));
        drop(end);
        thread.join().expect("it ends");
        drop(store);
        let _ = std::fs::remove_dir_all(&directory);
    }
}
