//! Answers that come too late: after the heap they are for was given up, or opened again. No socket, no threads but those
//! that read; what the commit thread would report is said by hand.

use std::path::PathBuf;

use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Bulk, Up, message_of};

use super::*;
use crate::auth::Grant;

const HEAP: &str = "h";

/// A driver, what is reported to it, and a directory that is gone with it.
struct Rig {
    driver: Driver,
    reports: mpsc::UnboundedReceiver<Event>,
    appends: std::sync::mpsc::Receiver<(Opening, Append)>,
    directory: PathBuf,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Rig {
    fn new(name: &str) -> Rig {
        let directory = std::env::temp_dir().join(format!("coheap-driver-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let store = Arc::new(Store::open(&directory, 0).expect("a new store"));
        let (events, reports) = mpsc::unbounded_channel();
        let (to_writer, appends) = std::sync::mpsc::channel();
        Rig {
            driver: Driver::new(store, events, to_writer, (None, std::sync::mpsc::channel().0), false),
            reports,
            appends,
            directory,
        }
    }

    /// Somebody comes to the heap; what it is told.
    fn connect(&mut self, conn: u64) -> mpsc::UnboundedReceiver<ToConn> {
        let (to, told) = mpsc::unbounded_channel();
        let grant = Grant { subject: String::new(), can_write: true };
        self.driver.command(Command::Open { conn: ConnId(conn), heap: HEAP.into(), grant, to });
        told
    }

    /// The heap is read, and open.
    async fn opened(&mut self) -> Opening {
        let Some(event @ Event::Opened { .. }) = self.reports.recv().await else { panic!("the heap is read") };
        self.driver.event(event);
        self.opening()
    }

    fn opening(&self) -> Opening {
        self.driver.heaps.get(HEAP).expect("it is there").0.clone()
    }

    fn relay(&self) -> &Relay {
        match self.driver.heaps.get(HEAP) {
            Some((_, Heap::Open(relay))) => relay,
            other => panic!("not open: {other:?}"),
        }
    }

    fn message(&mut self, conn: u64, frame: &Up) {
        let mut frames = Vec::new();
        frame.encode(&mut frames);
        self.driver.feed(&HEAP.into(), Input::Message { conn: ConnId(conn), bytes: message_of(&frames).into() });
    }
}

fn hello() -> Up {
    Up::Hello(Hello {
        features: 0,
        fresh: true,
        restoring: false,
        must_exist: false,
        token: String::new(),
        name: String::new(),
        heap: HEAP.into(),
        own: vec![(coheap_core::id::ReplicaId([1; 16]), coheap_core::id::Seq(0))],
        epoch: coheap_core::id::EpochId::default(),
        cut: Offset(0),
        bulk: Bulk::default(),
    })
}

#[tokio::test]
async fn what_an_earlier_opening_asked_for_does_not_reach_the_heap_that_was_opened_again() {
    let mut rig = Rig::new("late");
    let first = {
        let mut told = rig.connect(1);
        let first = rig.opened().await;
        // Its store fails.
        rig.driver.event(Event::NotCommitted { of: first.clone(), attempt: 0, why: NotWritten::Failed, bytes: 0 });
        assert!(matches!(told.recv().await, Some(ToConn::Close(4011, _))));
        assert!(rig.driver.heaps.is_empty());
        first
    };
    let mut told = rig.connect(2);
    let second = rig.opened().await;
    assert_ne!(first, second);
    rig.message(2, &hello());
    assert!(matches!(told.try_recv(), Ok(ToConn::Frames(_))), "it is welcome");
    let damaged = || StoreError::Damaged("late".to_owned());
    let late = [
        Event::Committed { of: first.clone(), attempt: 0, upto: Offset(5), bytes: 0 },
        Event::NotCommitted { of: first.clone(), attempt: 0, why: NotWritten::Failed, bytes: 0 },
        Event::NotCommitted { of: first.clone(), attempt: 0, why: NotWritten::Full, bytes: 0 },
        Event::Recovered { of: first.clone(), recovered: Err(damaged()) },
        Event::Opened { of: first.clone(), recovered: Err(damaged()) },
        Event::Log { of: first.clone(), ticket: Ticket(1), entries: Err(damaged()) },
        Event::States { of: first.clone(), ticket: Ticket(1), states: Err(damaged()) },
    ];
    for event in late {
        let what = format!("{event:?}");
        rig.driver.event(event);
        assert_eq!(rig.opening(), second, "{what}");
        assert_eq!((rig.relay().head(), rig.relay().durable()), (Offset(0), Offset(0)), "{what}");
        assert!(told.try_recv().is_err(), "{what}");
        assert!(rig.appends.try_recv().is_err(), "{what}");
    }
}

/// R8: an earlier machine's fold spares the log that its own streams need, and knows nothing of those that begin later.
#[tokio::test]
async fn no_stream_of_a_heap_that_was_opened_again_starts_where_an_earlier_fold_is_about_to_drop_the_log() {
    let mut rig = Rig::new("fold");
    let (folds, mut jobs) = mpsc::unbounded_channel();
    rig.driver.folds = Some(folds);
    let first = {
        let _told = rig.connect(1);
        let first = rig.opened().await;
        let fold = FoldJob {
            of: first.clone(),
            segment: coheap_core::id::SegmentNumber(0),
            engine: coheap_core::commit::EngineKind::Yrs,
            upto: Offset(9),
            keep: Offset(7),
        };
        rig.driver.fold(fold);
        rig.driver.event(Event::NotCommitted { of: first.clone(), attempt: 0, why: NotWritten::Failed, bytes: 0 });
        first
    };
    let _told = rig.connect(2);
    let second = rig.opened().await;
    assert_eq!(rig.relay().floor(), Offset(7), "the fold may drop that much at any moment");
    // The heap is read again while it is open.
    let again = Event::Recovered { of: second, recovered: Ok(Recovered::default()) };
    let recovered = |rig: &Rig| rig.driver.above_folds(&HEAP.into(), Recovered::default()).floor;
    rig.driver.event(again);
    assert_eq!(recovered(&rig), Offset(7));
    // It is over, and dropped less.
    let Ok(Job::Fold(job)) = jobs.try_recv() else { panic!("the fold was handed over") };
    assert_eq!(job.of, first);
    let result = FoldResult { folded: Default::default(), floor: Offset(3), holder: None };
    rig.driver.event(Event::Folded(Folded { job, result: Ok(result) }));
    assert_eq!(recovered(&rig), Offset(0), "nothing is under way any more");
    assert_eq!(rig.relay().floor(), Offset(7), "a floor that was told is not lowered");
}

#[tokio::test]
async fn what_another_attempt_left_in_the_queue_is_not_taken_for_this_one() {
    let mut rig = Rig::new("attempt");
    let _told = rig.connect(1);
    let of = rig.opened().await;
    rig.driver.event(Event::Committed { of, attempt: 7, upto: Offset(5), bytes: 0 });
    assert_eq!(rig.relay().durable(), Offset(0));
}

#[tokio::test]
async fn a_stop_while_a_heap_is_being_read_waits_for_nothing_and_leaves_nothing() {
    let mut rig = Rig::new("stop");
    let mut told = rig.connect(1);
    rig.message(1, &hello());
    assert!(rig.driver.waiting > 0);
    rig.driver.event(Event::Stop);
    assert!(matches!(told.recv().await, Some(ToConn::Close(1012, _))));
    assert!(rig.driver.heaps.is_empty());
    assert_eq!(rig.driver.waiting, 0);
    let Some(event @ Event::Opened { .. }) = rig.reports.recv().await else { panic!("the heap is read") };
    rig.driver.event(event);
    assert!(rig.driver.heaps.is_empty(), "nobody is left who would close it");
}

#[tokio::test]
async fn messages_for_a_heap_that_is_being_read_are_bounded() {
    let mut rig = Rig::new("waiting");
    let _told = rig.connect(1);
    let message = bytes::Bytes::from(vec![7; 1 << 20]);
    let mut taken = 0;
    while rig.driver.takes_messages() {
        rig.driver.feed(&HEAP.into(), Input::Message { conn: ConnId(1), bytes: message.clone() });
        taken += message.len();
    }
    assert_eq!(taken, UNWRITTEN_BYTES_MAX);
    rig.opened().await;
    assert!(rig.driver.takes_messages());
}

#[tokio::test]
async fn a_heap_that_an_append_finds_damaged_is_closed_with_its_own_code_and_stays_closed() {
    let mut rig = Rig::new("damaged");
    let mut told = rig.connect(1);
    let of = rig.opened().await;
    let why = NotWritten::Damaged("a row".to_owned());
    rig.driver.event(Event::NotCommitted { of, attempt: 0, why, bytes: 0 });
    assert!(matches!(told.recv().await, Some(ToConn::Close(4016, _))));
    assert!(rig.driver.heaps.is_empty());
    let mut told = rig.connect(2);
    assert!(matches!(told.recv().await, Some(ToConn::Close(4016, _))));
    assert!(rig.driver.heaps.is_empty() && rig.driver.conns.is_empty(), "nothing is read for it");
}
