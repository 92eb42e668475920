//! Reads what is stored before anybody needs it, on a thread of low priority: damage is found while replicas still have what it
//! took.
//!
//! A heap that is opened for the first time in a life of the relay is read as a whole, with our own checksums, while it is
//! served from what its opening has checked. Every page of the store's file and every heap are read again and again, slowly.
//! Pages are read from the disk, with the database library's checksums. One that is damaged makes the store suspect, which is
//! said; the heaps that are well go on. Then the heaps are read as always: a heap that does not pass is halted. What the library
//! has in its memory of them is not read from the disk again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::config::Scrub;
use crate::store::{Store, StoreError};

/// After so many bytes of pages there is a pause, and what was overwritten meanwhile can be used again.
const STEP_BYTES: u64 = 1 << 20;
/// Words of bits by which the heaps that are known grow at once: as many as 8 MiB hold.
const FAR: usize = 1 << 20;

/// Reads until the other end of `opened` is gone, which says what heaps are opened. `suspect`: pages are damaged.
pub(super) fn run(
    store: &Store,
    scrub: Scrub,
    suspect: &AtomicBool,
    opened: &Receiver<Arc<str>>,
    events: &UnboundedSender<Event>,
) {
    // Of this thread only, on Linux.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 15);
    let reader = Reader {
        store,
        scrub,
        opened,
        events,
        waiting: RefCell::default(),
        known: RefCell::default(),
        lost: Cell::new(false),
        ends: Cell::new(false),
    };
    while reader.sleep(scrub.every) {
        reader.lost.set(check_pages(&reader, suspect).unwrap_or(reader.lost.get()));
        if reader.lost.get() {
            continue;
        }
        if let Err(error @ StoreError::Damaged(_)) = store.verify_names() {
            eprintln!("coheap-relay: store: {error}");
        }
        let mut last = None;
        while let Ok(Some(heap)) = store.next_heap(last.as_deref()) {
            reader.verify(&heap, |bytes| reader.pace(bytes));
            // Many small heaps are not a burst either.
            if !reader.sleep(Duration::from_millis(1)) {
                return;
            }
            last = Some(heap);
        }
    }
}

/// What the thread works with.
struct Reader<'a> {
    store: &'a Store,
    scrub: Scrub,
    opened: &'a Receiver<Arc<str>>,
    events: &'a UnboundedSender<Event>,
    /// Heaps that were opened and are still to be read.
    waiting: RefCell<VecDeque<Arc<str>>>,
    /// A bit for each heap, by the store's number of it: read in this life, or being read.
    known: RefCell<Vec<u64>>,
    /// There are pages that the disk cannot read. The library gives up over one of those, and reads the whole file before it goes
    /// on: that would end all heaps, so none is read.
    lost: Cell<bool>,
    /// The other end is gone.
    ends: Cell<bool>,
}

impl Reader<'_> {
    /// Reads all of a heap, which is halted if it does not pass.
    fn verify(&self, heap: &str, pace: impl FnMut(u64) -> bool) {
        if let Err(error @ StoreError::Damaged(_)) = self.store.verify_heap(heap, pace) {
            let _ = self.events.send(Event::Scrubbed { heap: Arc::from(heap), error });
        }
    }

    /// A pause of a round, after so many bytes. False: it is time to end.
    fn pace(&self, bytes: u64) -> bool {
        self.sleep(Duration::from_secs_f64(bytes as f64 / self.scrub.bytes_per_s.max(1) as f64))
    }

    /// Meanwhile, heaps that are opened are read, however long that takes. False: it is time to end.
    fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now().checked_add(time);
        loop {
            self.read_opened();
            if self.ends.get() {
                return false;
            }
            let left = end.map_or(time, |end| end.saturating_duration_since(Instant::now()));
            match self.opened.recv_timeout(left) {
                Ok(heap) => self.waiting.borrow_mut().push_back(heap),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Reads the heaps that were opened, each the first time. No round goes on before that is done.
    fn read_opened(&self) {
        loop {
            self.hear();
            let Some(heap) = self.waiting.borrow_mut().pop_front() else { return };
            if self.ends.get() {
                return;
            }
            // What has no number has nothing on the disk yet.
            if self.lost.get() || !matches!(self.store.number_of_heap(&heap), Ok(Some(number)) if self.is_first(number))
            {
                continue;
            }
            self.verify(&heap, |bytes| {
                std::thread::sleep(Duration::from_secs_f64(bytes as f64 / self.scrub.opened_bytes_per_s.max(1) as f64));
                self.hear();
                !self.ends.get()
            });
        }
    }

    /// Takes in what was opened meanwhile.
    fn hear(&self) {
        loop {
            match self.opened.try_recv() {
                Ok(heap) => self.waiting.borrow_mut().push_back(heap),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.ends.set(true),
            }
        }
    }

    /// Whether this is the first time for a heap, of which that is noted.
    fn is_first(&self, number: u64) -> bool {
        let Ok(word) = usize::try_from(number / 64) else { return true };
        let mut known = self.known.borrow_mut();
        // The store numbers heaps one after another; a number far beyond is a damaged row, and is read each time.
        if word > known.len() + FAR {
            return true;
        }
        if known.len() <= word {
            known.resize(word + 1, 0);
        }
        let (bit, of) = (1 << (number % 64), &mut known[word]);
        let first = *of & bit == 0;
        *of |= bit;
        first
    }
}

/// Whether there are pages that the disk cannot read; `None`: that is not known.
fn check_pages(reader: &Reader<'_>, suspect: &AtomicBool) -> Option<bool> {
    let step = STEP_BYTES.min(reader.scrub.bytes_per_s);
    let (damaged, lost) = match reader.store.check_pages(step, |bytes, found| {
        reader.lost.set(reader.lost.get() || found.lost);
        reader.pace(bytes)
    }) {
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

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;

    use bytes::Bytes;
    use coheap_core::id::{EpochId, ReplicaId, Seq, Uid};
    use coheap_core::log::LogEntry;
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

    /// A store of its own in this process.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> (Folder, Arc<Store>) {
            let directory = std::env::temp_dir().join(format!("coheap-scrub-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&directory);
            let store = Arc::new(Store::open(&directory, 0).expect("a new store"));
            (Folder(directory), store)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// No round begins here.
    #[test]
    fn what_is_opened_is_read_once_in_its_turn_and_no_faster_than_is_said() {
        let (_folder, store) = Folder::new("opened");
        let epoch = Some((EpochId { counter: 1, random: 7 }, Default::default()));
        let mut entry = Vec::new();
        LogEntry::Void { owner: ReplicaId([1; 16]), seq: Seq(1), uid: Uid(1), code: 1 }.encode(&mut entry);
        let entries = vec![Bytes::from(entry); 4_000];
        let bytes = entries.iter().map(Bytes::len).sum::<usize>() as u64;
        let begins = |heap: &str, entries: &[Bytes]| HeapAppend {
            heap: heap.into(),
            appends: vec![Append { epoch, entries: entries.to_vec(), ..Append::default() }],
        };
        store
            .append(&[begins("long", &entries), begins("damaged", &[]), begins("never opened", &[])])
            .expect("written");
        assert!(store.verify_heap("long", |_| true).is_ok_and(|read| read.bytes >= bytes));
        store.lose("never opened", "damaged").expect("they were there");
        let ((opened, first), (events, mut told)) = (channel::<Arc<str>>(), unbounded_channel());
        // The long one takes half a second.
        let scrub = Scrub { opened_bytes_per_s: bytes * 2, ..Scrub::default() };
        let (begun, read) = (Instant::now(), Arc::clone(&store));
        let thread = std::thread::spawn(move || run(&read, scrub, &AtomicBool::new(false), &first, &events));
        for heap in ["not stored", "long", "damaged", "damaged", "long"] {
            opened.send(Arc::from(heap)).expect("it reads");
        }
        let found = told.blocking_recv();
        let took = begun.elapsed();
        assert!(matches!(found, Some(Event::Scrubbed { heap, .. }) if &*heap == "damaged"));
        assert!(took >= Duration::from_millis(450), "{took:?}");
        // It reads nothing twice, and has come to an end with these when it has come to this.
        std::thread::sleep(Duration::from_millis(100));
        drop(opened);
        thread.join().expect("it ends");
        assert!(told.blocking_recv().is_none() && begun.elapsed() < took + Duration::from_millis(400));
    }

    fn scrub_without_a_name() {
        let (_folder, store) = Folder::new("name");
        let epoch = Some((EpochId { counter: 1, random: 7 }, Default::default()));
        let begins =
            |heap: &str| HeapAppend { heap: heap.into(), appends: vec![Append { epoch, ..Append::default() }] };
        store.append(&["lost", "whole", "without meta"].map(begins)).expect("written");
        store.verify_names().expect("all are there");
        store.lose("lost", "without meta").expect("they were there");
        let ((end, stop), (events, mut told)) = (channel::<Arc<str>>(), unbounded_channel());
        let scrub = Scrub { every: Duration::from_millis(1), bytes_per_s: 1 << 30, ..Scrub::default() };
        let scrubbed = Arc::clone(&store);
        let thread = std::thread::spawn(move || run(&scrubbed, scrub, &AtomicBool::new(false), &stop, &events));
        // The names come first in each round, and then every heap that has one.
        let first = told.blocking_recv();
        assert!(matches!(first, Some(Event::Scrubbed { heap, .. }) if &*heap == "without meta"));
        drop(end);
        thread.join().expect("it ends");
    }
}
