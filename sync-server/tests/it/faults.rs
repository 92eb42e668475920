//! SIGKILL, a full disk, a damaged store.

use coheap_core::id::*;
use coheap_core::wire::frame::{Down, Up};
use redb::ReadableTable;

use crate::client::{Client, Writer, back, hello, hello_to};
use crate::process::{Directory, Relay};

const ROOT: SegmentId = SegmentId::ROOT;

/// Kills the relay while commits are in flight, again and again; what was acknowledged is there, and each commit once.
#[tokio::test]
async fn a_killed_relay_keeps_every_acknowledged_commit_and_takes_each_once() {
    let directory = Directory::new();
    let mut writer = Writer::new(1);
    let mut pending: Vec<(u64, Up)> = Vec::new();
    let (mut made, mut acked) = (0_u64, 0_u64);
    let mut place: Option<(EpochId, u64)> = None;
    for round in 0..8_u64 {
        let relay = Relay::start(&directory);
        let greeting = match place {
            None => hello(1),
            Some((epoch, cut)) => back(1, epoch, cut),
        };
        let (mut client, welcome) = Client::hello(&relay.heap("h"), greeting).await;
        let newest = welcome.ring.first().and_then(|(_, rows)| rows.last()).map_or(0, |row| row.seq.0);
        assert!(newest >= acked, "round {round}: {acked} were acknowledged, {newest} are there");
        let mut cut = welcome.position.0;
        let again: Vec<Up> = pending.iter().map(|(_, commit)| commit.clone()).collect();
        for commit in again {
            client.send(&[commit]).await;
        }
        for _ in 0..100 {
            made += 1;
            let commit = writer.commit(ROOT);
            client.send(std::slice::from_ref(&commit)).await;
            pending.push((made, commit));
        }
        // Somewhere in the middle.
        let enough = acked + 30 + round * 7;
        while acked < enough {
            match client.next().await {
                Down::Ack { seq, .. } => acked = acked.max(seq.0),
                Down::Entry(entry) => cut = entry.offset.0 + 1,
                Down::Advance { position } => cut = position.0,
                Down::Author { .. } | Down::Names(_) => {}
                other => panic!("{other:?}"),
            }
        }
        pending.retain(|(seq, _)| *seq > acked);
        place = Some((welcome.epochs.last().unwrap().0, cut));
        relay.kill();
    }
    let relay = Relay::start(&directory);
    let (epoch, cut) = place.unwrap();
    let (mut client, _) = Client::hello(&relay.heap("h"), back(1, epoch, cut)).await;
    let rest: Vec<Up> = pending.into_iter().map(|(_, commit)| commit).collect();
    if !rest.is_empty() {
        client.send(&rest).await;
        client.acked(made).await;
    }
    // The log has each one once.
    let (_, welcome) = Client::join(&relay, "h", 2).await;
    assert_eq!(welcome.position, Offset(made));
}

#[tokio::test]
async fn a_full_disk_is_busy_and_reading_goes_on() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut a, _) = Client::join(&relay, "h", 1).await;
    let mut writer = Writer::new(1);
    let first = writer.commit(ROOT);
    a.send(&[first]).await;
    a.acked(1).await;
    drop(a);
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
    // More than any disk has: full from the start. Even the new life of the log cannot be written, so nobody is welcomed
    // until there is room; but nothing breaks.
    let relay = Relay::start_with(&directory, &["--min-free-mb", "1000000000"]);
    let (mut b, _) = Client::join(&relay, "new", 2).await;
    let commit = Writer::new(2).commit(ROOT);
    b.send(&[commit]).await;
    let busy =
        b.find(|frame| if let Down::Busy { code, retry_ms, .. } = frame { Some((code, retry_ms)) } else { None });
    assert_eq!(busy.await, (48, 1000));
    b.send(&[Up::Ping { nonce: Nonce(8) }]).await;
    b.find(|frame| (frame == Down::Pong { nonce: Nonce(8) }).then_some(())).await;
    relay.kill();
    let relay = Relay::start(&directory);
    let (_, welcome) = Client::join(&relay, "h", 3).await;
    assert_eq!(welcome.position, Offset(1));
}

/// One flipped byte in a record: the heap is not served, and says so; others are.
#[tokio::test]
async fn a_damaged_heap_is_closed_and_others_are_served() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    for (id, heap) in [(1, "good"), (2, "bad")] {
        let (mut client, _) = Client::join(&relay, heap, id).await;
        let commit = Writer::new(id).commit(ROOT);
        client.send(&[commit]).await;
        client.acked(1).await;
    }
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
    {
        let database = redb::Database::create(directory.0.join("relay.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = redb::TableDefinition::<(u64, u64), &[u8]>::new("log");
        let mut log = transaction.open_table(table).unwrap();
        let mut record = log.get((1, 0)).unwrap().unwrap().value().to_vec();
        let middle = record.len() / 2;
        record[middle] ^= 4;
        log.insert((1, 0), record.as_slice()).unwrap();
        drop(log);
        transaction.commit().unwrap();
    }
    let relay = Relay::start(&directory);
    let mut bad = Client::connect(&relay.heap("bad")).await;
    bad.send(&[Up::Hello(hello_to("bad", 3))]).await;
    assert_eq!(bad.closed().await.0, 4015);
    let (_, welcome) = Client::join(&relay, "good", 4).await;
    assert_eq!(welcome.position, Offset(1));
}
