//! The relay over disks that fail: what clients are told, and that nothing is acknowledged that is not on the medium. The
//! relay runs in this process, over a simulated disk; clients come over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coheap_core::id::*;
use coheap_core::wire::frame::{Down, Up};
use coheap_sync_server::auth::Auth;
use coheap_sync_server::config::{Config, Scrub};
use coheap_sync_server::{Store, run};
use coheap_tests::disk_backend::SimDisk;
use coheap_tests::stored::Grower;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Client, Writer, back, hello, hello_to, load};

const ROOT: SegmentId = SegmentId::ROOT;

/// A relay of this process.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    relay: JoinHandle<()>,
}

impl Served {
    async fn over(store: Store, scrub: Option<Scrub>) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let data = "nowhere".into();
        let config =
            Config { listen: address, data, auth: Auth::None, min_free_bytes: 0, worker: None, scrub, restored: false };
        let (stop, stopped) = oneshot::channel();
        let relay = tokio::spawn(async move {
            run(listener, config, Arc::new(store), async { drop(stopped.await) }).await.unwrap();
        });
        Served { address, stop: Some(stop), relay }
    }

    async fn start(disk: &SimDisk) -> Served {
        Served::over(open(disk), None).await
    }

    fn heap(&self, name: &str) -> String {
        format!("ws://{}/heap/{name}", self.address)
    }

    async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.relay.await.unwrap();
    }
}

fn open(disk: &SimDisk) -> Store {
    Store::open_on(Box::new(disk.clone()), 0).unwrap()
}

/// Of one author's commits, acknowledged one by one or in bursts, how many were not on the medium when the acknowledgement
/// came.
async fn acknowledged_too_early(disk: &SimDisk, store: Store) -> usize {
    let relay = Served::over(store, None).await;
    let (mut client, _) = Client::hello(&relay.heap("h"), hello(1)).await;
    let (mut writer, mut early, mut sent) = (Writer::new(1), 0, 0);
    for burst in [1, 1, 5, 1, 20, 3, 1, 9] {
        let commits: Vec<Up> = (0..burst).map(|_| writer.commit(ROOT)).collect();
        sent += burst;
        client.send(&commits).await;
        loop {
            let acked = client.find(|frame| if let Down::Ack { seq, .. } = frame { Some(seq.0) } else { None }).await;
            // All that has been synced by now, and nothing else.
            let synced = Store::open_on(Box::new(SimDisk::of(0, disk.medium())), 0);
            let head = synced.and_then(|synced| synced.recover("h")).map_or(Offset(0), |recovered| recovered.head);
            early += usize::from(head.0 < acked);
            if acked == sent {
                break;
            }
        }
    }
    drop(client);
    relay.stop().await;
    early
}

#[tokio::test]
async fn no_acknowledgement_leaves_before_the_sync_that_covers_it() {
    let disk = SimDisk::new(1);
    assert_eq!(acknowledged_too_early(&disk, open(&disk)).await, 0);
    // And without the sync it would have been noticed.
    let disk = SimDisk::new(2);
    let unsynced = Store::open_without_sync(Box::new(disk.clone())).unwrap();
    assert!(acknowledged_too_early(&disk, unsynced).await >= 8);
}

/// EIO: nobody is told that it is written; everybody reconnects and sends it again; it is there once.
#[tokio::test]
async fn a_failed_sync_closes_connections_and_what_was_not_acknowledged_is_taken_once() {
    for nth in 1..4 {
        let disk = SimDisk::new(nth);
        let relay = Served::start(&disk).await;
        let (mut client, welcome) = Client::hello(&relay.heap("h"), hello(1)).await;
        let mut writer = Writer::new(1);
        let first = writer.commit(ROOT);
        client.send(std::slice::from_ref(&first)).await;
        client.acked(1).await;
        let again = writer.commit(ROOT);
        if nth == 3 {
            disk.fail_write(1);
        } else {
            disk.fail_sync(1);
        }
        client.send(std::slice::from_ref(&again)).await;
        assert_eq!(client.closed().await.0, 4011);
        let epoch = welcome.epochs.last().map_or(EpochId::default(), |(epoch, _)| *epoch);
        let (mut client, welcome) = Client::hello(&relay.heap("h"), back(1, epoch, 0)).await;
        assert!(welcome.epochs.len() > 1, "what was recovered is synced by a new life");
        client.send(&[again]).await;
        client.acked(2).await;
        disk.crash();
        relay.stop().await;
        assert_eq!(open(&disk).recover("h").unwrap().head, Offset(2));
    }
}

#[tokio::test]
async fn a_disk_that_is_gone_is_waited_for_and_nothing_is_acknowledged_meanwhile() {
    let disk = SimDisk::new(5);
    let relay = Served::start(&disk).await;
    let (mut client, _) = Client::hello(&relay.heap("h"), hello(1)).await;
    let mut writer = Writer::new(1);
    let commit = writer.commit(ROOT);
    disk.die_at(1);
    client.send(std::slice::from_ref(&commit)).await;
    assert_eq!(client.closed().await.0, 4011);
    // Whoever comes now is sent away until the disk is back.
    let mut waiting = Client::connect(&relay.heap("h")).await;
    waiting.send(&[Up::Hello(hello(1))]).await;
    assert_eq!(waiting.closed().await.0, 4011);
    disk.crash();
    let mut tries = 0;
    let mut client = loop {
        let mut client = Client::connect(&relay.heap("h")).await;
        client.send(&[Up::Hello(hello(1)), commit.clone()]).await;
        match client.first().await {
            Some(Down::Ok(_)) => break client,
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
        tries += 1;
        assert!(tries < 50, "the disk is back for ten seconds");
    };
    client.acked(1).await;
    relay.stop().await;
}

/// ENOSPC in the middle of a commit, on a disk that says nothing beforehand: authors are told Busy and wait, who reads goes on
/// reading, and all goes on by itself when there is room.
#[tokio::test]
async fn a_disk_that_fills_up_is_busy_and_recovers_without_a_restart() {
    let disk = SimDisk::new(6);
    let relay = Served::start(&disk).await;
    let (mut client, _) = Client::hello(&relay.heap("h"), hello(1)).await;
    let mut writer = Writer::new(1);
    disk.set_capacity(Some(disk.used() + (200 << 10)), false);
    let (mut sent, mut acked) = (Vec::new(), 0);
    let busy = loop {
        let commit = writer.commit_of(ROOT, 20_000);
        sent.push(commit.clone());
        client.send(&[commit]).await;
        let answer = client.find(|frame| match frame {
            Down::Ack { seq, .. } => Some(Ok(seq.0)),
            Down::Busy { seq, code, retry_ms, .. } => Some(Err((seq.0, code, retry_ms))),
            _ => None,
        });
        match answer.await {
            Ok(seq) => acked = seq,
            Err(busy) => break busy,
        }
        assert!(sent.len() < 100, "the disk is full");
    };
    assert_eq!(busy, (acked + 1, 48, 1000));
    let (mut reader, welcome) = Client::hello(&relay.heap("h"), hello(2)).await;
    assert_eq!(welcome.position, Offset(acked));
    reader.send(&[load(ROOT)]).await;
    reader.find(|frame| matches!(frame, Down::Snapshot { .. }).then_some(())).await;
    let retry = || tokio::time::sleep(Duration::from_millis(busy.2));
    retry().await;
    // Still none, or only what the refused transaction has left.
    client.send(&sent[acked as usize..]).await;
    client.find(|frame| matches!(frame, Down::Busy { code: 48, .. } | Down::Ack { .. }).then_some(())).await;
    disk.set_capacity(None, false);
    retry().await;
    client.send(&sent[acked as usize..]).await;
    client.acked(sent.len() as u64).await;
    let last = Offset(sent.len() as u64 - 1);
    reader.find(|frame| matches!(frame, Down::Entry(entry) if entry.offset == last).then_some(())).await;
    disk.crash();
    relay.stop().await;
    assert_eq!(open(&disk).recover("h").unwrap().head, Offset(sent.len() as u64));
}

/// Two heaps, one of them with a flipped bit in a record that is far from the end of its log.
fn with_an_old_record_damaged() -> SimDisk {
    let disk = SimDisk::new(7);
    let store = open(&disk);
    let (mut good, mut bad) = (Grower::new("good", 1, 1), Grower::new("bad", 2, 1));
    let mut entry = None;
    for n in 0..300 {
        let append = bad.grow(1);
        if n == 5 {
            entry = append.appends[0].entries.first().cloned();
        }
        store.append(&[good.grow(1), append]).unwrap();
    }
    drop(store);
    let (medium, entry) = (disk.medium(), entry.unwrap());
    // Old copies of a page lie about; all of them.
    let places = medium.windows(entry.len()).enumerate().filter(|(_, bytes)| *bytes == &entry[..]);
    for (at, _) in places {
        disk.rot(at as u64 * 8 + 3);
    }
    disk
}

#[tokio::test]
async fn damage_that_a_load_meets_halts_that_heap_alone() {
    let relay = Served::start(&with_an_old_record_damaged()).await;
    let (mut client, _) = Client::hello(&relay.heap("bad"), hello_to("bad", 1)).await;
    let (mut other, _) = Client::hello(&relay.heap("good"), hello_to("good", 2)).await;
    let segment = Grower::new("bad", 2, 1).grow(1).appends[0].segments[0].1.id;
    client.send(&[load(segment)]).await;
    assert_eq!(client.closed().await.0, 4016);
    let mut again = Client::connect(&relay.heap("bad")).await;
    again.send(&[Up::Hello(hello_to("bad", 3))]).await;
    assert_eq!(again.closed().await.0, 4016);
    other.send(&[Up::Ping { nonce: Nonce(8) }]).await;
    other.find(|frame| (frame == Down::Pong { nonce: Nonce(8) }).then_some(())).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_heap_is_read_as_a_whole_when_it_is_opened_for_the_first_time() {
    // No round begins within this test.
    let relay = Served::over(open(&with_an_old_record_damaged()), Some(Scrub::default())).await;
    let (_, welcome) = Client::hello(&relay.heap("good"), hello_to("good", 2)).await;
    assert!(welcome.position >= Offset(300));
    let mut client = Client::connect(&relay.heap("bad")).await;
    client.send(&[Up::Hello(hello_to("bad", 1))]).await;
    assert_eq!(client.closed().await.0, 4016);
    let (_, welcome) = Client::hello(&relay.heap("good"), hello_to("good", 3)).await;
    assert!(welcome.position >= Offset(300));
    relay.stop().await;
}

#[tokio::test]
async fn the_scrub_finds_damage_that_nobody_has_met() {
    let scrub = Scrub { every: Duration::from_millis(50), bytes_per_s: 100 << 20, ..Scrub::default() };
    let relay = Served::over(open(&with_an_old_record_damaged()), Some(scrub)).await;
    let mut client = Client::connect(&relay.heap("bad")).await;
    client.send(&[Up::Hello(hello_to("bad", 1))]).await;
    assert_eq!(client.closed().await.0, 4016);
    let (_, welcome) = Client::hello(&relay.heap("good"), hello_to("good", 2)).await;
    assert!(welcome.position >= Offset(300));
    relay.stop().await;
}

/// What the health page says.
async fn health(relay: &Served) -> String {
    let mut http = TcpStream::connect(relay.address).await.unwrap();
    http.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    http.read_to_string(&mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    page
}

#[tokio::test]
async fn the_scrub_finds_a_damaged_page_of_the_library_and_heaps_go_on() {
    let disk = SimDisk::new(5);
    let mut heap = Grower::new("heap", 2, 1);
    let store = open(&disk);
    for _ in 0..300 {
        store.append(&[heap.grow(1)]).unwrap();
    }
    let scrub = Scrub { every: Duration::from_millis(50), bytes_per_s: 100 << 20, ..Scrub::default() };
    let relay = Served::over(store, Some(scrub)).await;
    let (mut client, _) = Client::hello(&relay.heap("heap"), hello_to("heap", 1)).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(health(&relay).await.ends_with("\r\n\r\nok\n"));
    // One bit in every branch: the library has read them all, so nobody meets it.
    let medium = disk.medium();
    for page in (1..medium.len() / 4096).filter(|page| medium[page * 4096] == 2) {
        disk.rot(page as u64 * 4096 * 8 + 100);
    }
    let begun = std::time::Instant::now();
    while !health(&relay).await.ends_with("\nok\nstore: damaged, see the log\n") {
        assert!(begun.elapsed() < Duration::from_secs(20), "not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.send(&[Up::Ping { nonce: Nonce(8) }]).await;
    client.find(|frame| (frame == Down::Pong { nonce: Nonce(8) }).then_some(())).await;
    relay.stop().await;
}

#[tokio::test]
async fn the_scrub_ends_nothing_over_a_sector_that_the_disk_has_lost() {
    let disk = SimDisk::new(5);
    let (mut heap, mut entry) = (Grower::new("heap", 2, 1), None);
    let store = open(&disk);
    for n in 0..300 {
        let append = heap.grow(1);
        if n == 150 {
            entry = append.appends[0].entries.first().cloned();
        }
        store.append(&[append]).unwrap();
    }
    drop(store);
    let scrub = Scrub { every: Duration::from_millis(20), bytes_per_s: 100 << 20, ..Scrub::default() };
    let store = Store::open_without_cache(Box::new(disk.clone())).unwrap();
    let (medium, entry) = (disk.medium(), entry.unwrap());
    for (at, _) in medium.windows(entry.len()).enumerate().filter(|(_, bytes)| *bytes == &entry[..]) {
        disk.lose(at as u64);
    }
    let relay = Served::over(store, Some(scrub)).await;
    let begun = std::time::Instant::now();
    while !health(&relay).await.ends_with("\nok\nstore: damaged, see the log\n") {
        assert!(begun.elapsed() < Duration::from_secs(20), "not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Some rounds later another heap is written to as ever.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut client, _) = Client::hello(&relay.heap("h"), hello(1)).await;
    client.send(&[Writer::new(1).commit(ROOT)]).await;
    client.find(|frame| matches!(frame, Down::Ack { .. }).then_some(())).await;
    relay.stop().await;
}

#[tokio::test]
async fn the_scrub_reads_no_faster_than_it_says() {
    let disk = SimDisk::new(5);
    let mut heap = Grower::new("heap", 2, 1);
    let store = open(&disk);
    for _ in 0..300 {
        store.append(&[heap.grow(1)]).unwrap();
    }
    let bytes_per_s = 64 << 10;
    let begun = std::time::Instant::now();
    let relay =
        Served::over(store, Some(Scrub { every: Duration::from_millis(10), bytes_per_s, ..Scrub::default() })).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (looked, took) = (disk.counts().looked, begun.elapsed().as_secs_f64());
    relay.stop().await;
    // A step is a second's worth; then there are the pages on the way to where it begins, and the library's own.
    let most = bytes_per_s as f64 * (took + 1.0) + f64::from(128 << 10);
    assert!(looked > bytes_per_s && looked as f64 <= most, "{looked} bytes in {took} s");
}
