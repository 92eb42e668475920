//! What clients get to see: each other's commits, loads, resumption, and numbered answers to bad input.

use std::time::Duration;

use coheap_core::id::*;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Assembly, Bulk, Down, SegmentState, SegmentStatus, Up};
use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, Writer, back, hello, hello_to, load};
use crate::process::{Directory, Relay};

const ROOT: SegmentId = SegmentId::ROOT;

fn other(n: usize) -> SegmentId {
    SegmentId([0x40 + (n % 30) as u8; 16])
}

#[tokio::test]
async fn two_clients_see_each_others_commits_in_one_order() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut a, _) = Client::join(&relay, "h", 1).await;
    let (mut b, _) = Client::join(&relay, "h", 2).await;
    let (mut c, _) = Client::join(&relay, "h", 3).await;
    c.send(&[load(ROOT)]).await;
    c.find(|frame| matches!(frame, Down::Snapshot { .. }).then_some(())).await;
    let (mut wa, mut wb) = (Writer::new(1), Writer::new(2));
    for _ in 0..50 {
        let (x, y) = (wa.commit(ROOT), wb.commit(ROOT));
        a.send(&[x]).await;
        b.send(&[y]).await;
    }
    a.acked(50).await;
    b.acked(50).await;
    let (mut offsets, mut last) = (Vec::new(), [0; 2]);
    let mut authors = std::collections::BTreeMap::new();
    while offsets.len() < 100 {
        match c.next().await {
            Down::Author { number, replica, .. } => {
                authors.insert(number, replica.0[0]);
            }
            Down::Entry(entry) => {
                offsets.push(entry.offset.0);
                let author = usize::from(authors[&entry.author] - 1);
                assert_eq!(entry.seq.0, last[author] + 1, "a line in its own order");
                last[author] = entry.seq.0;
            }
            _ => {}
        }
    }
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_segment_is_loaded_with_all_its_deltas_and_comes_back_after_a_restart() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut a, _) = Client::join(&relay, "h", 1).await;
    let mut writer = Writer::new(1);
    let commits: Vec<_> = (0..20).map(|_| writer.commit_of(ROOT, 40_000)).collect();
    for commit in commits {
        a.send(&[commit]).await;
    }
    a.acked(20).await;
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
    let relay = Relay::start(&directory);
    let (mut b, _) = Client::join(&relay, "h", 2).await;
    b.send(&[load(ROOT), load(SegmentId([9; 16]))]).await;
    let mut assembly = Assembly::new();
    let mut states = Vec::new();
    while states.len() < 2 {
        let whole = match b.next().await {
            Down::Snapshot { position, bulk, .. } => assembly.head(position, bulk).unwrap(),
            Down::Chunk(chunk) => assembly.chunk(&chunk).unwrap(),
            _ => None,
        };
        if let Some((position, bulk)) = whole {
            assert_eq!(position, Offset(20));
            states.push(SegmentState::decode(&bulk, &mut Reader::new(&bulk)).unwrap());
        }
    }
    states.sort_by_key(|state| state.id != ROOT);
    // Folded already or not: all twenty values are there.
    let state = &states[0];
    assert_eq!(state.status, SegmentStatus::Alive);
    assert!(
        coheap_core::segment::fold(state.engine, &state.snapshot, &state.deltas.to_vec()).unwrap().len() > 20 * 40_000
    );
    assert_eq!(states[1].status, SegmentStatus::Unknown);
}

#[tokio::test]
async fn a_dropped_connection_resumes_where_it_was() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut a, _) = Client::join(&relay, "h", 1).await;
    let mut writer = Writer::new(1);
    let first = writer.commit(ROOT);
    a.send(&[first]).await;
    a.acked(1).await;
    let (mut b, welcome) = Client::join(&relay, "h", 2).await;
    assert_eq!((welcome.position, welcome.exists), (Offset(1), true));
    b.send(&[Up::Sync { nonce: Nonce(3) }]).await;
    assert_eq!(b.next().await, Down::SyncAt { nonce: Nonce(3), position: Offset(1) });
    drop(b);
    for n in 0..300 {
        // Over many segments, so that none is folded.
        let commit = writer.commit_of(other(n), 8_000);
        a.send(&[commit]).await;
    }
    a.acked(301).await;
    // More than the relay keeps in memory: it comes from the store.
    let epoch = welcome.epochs.last().unwrap().0;
    let residents: Vec<_> = (0..30).map(|n| (other(n), GenId::ZERO_YRS)).collect();
    let bulk = Bulk::whole(Hello::encode_residents(&residents).into());
    let resumed = Hello { bulk, ..back(2, epoch, 1) };
    let (mut b, welcome) = Client::hello(&relay.heap("h"), resumed).await;
    assert!(!welcome.catchup);
    for expected in 1..301 {
        let offset = b.find(|frame| if let Down::Entry(entry) = frame { Some(entry.offset.0) } else { None }).await;
        assert_eq!(offset, expected);
    }
}

/// The worker folds; what it made is loaded like anything else, and a replica from before gets the state whole.
#[tokio::test]
async fn a_segment_with_many_deltas_is_folded_by_the_worker() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut a, welcome) = Client::join(&relay, "h", 1).await;
    let mut writer = Writer::new(1);
    for _ in 0..600 {
        let commit = writer.commit_of(ROOT, 100);
        a.send(&[commit]).await;
    }
    a.acked(600).await;
    let mut folded = None;
    for id in 10..200 {
        let (mut b, _) = Client::join(&relay, "h", id).await;
        b.send(&[load(ROOT)]).await;
        let bulk = b.find(|frame| if let Down::Snapshot { bulk, .. } = frame { Some(bulk) } else { None }).await;
        let state = SegmentState::decode(&bulk.bytes, &mut Reader::new(&bulk.bytes)).unwrap();
        if !state.snapshot.is_empty() && state.deltas.len() < 300 {
            folded = Some(state);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let state = folded.expect("it is folded in time");
    let segment = coheap_core::segment::fold(state.engine, &state.snapshot, &state.deltas.to_vec());
    assert!(segment.unwrap().len() < 50 * 200, "fifty keys of a hundred bytes");
    // Its epoch is known, but the log no longer reaches back to its cut.
    let epoch = welcome.epochs[0].0;
    let (_, welcome) = Client::hello(&relay.heap("h"), back(9, epoch, 1)).await;
    assert!(welcome.catchup);
    // And writing goes on.
    let commit = writer.commit(ROOT);
    a.send(&[commit]).await;
    a.acked(601).await;
}

#[tokio::test]
async fn bad_input_is_answered_with_a_numbered_close_and_others_are_undisturbed() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut bystander, _) = Client::join(&relay, "h", 1).await;
    let mut writer = Writer::new(1);
    let before = writer.commit(ROOT);
    bystander.send(&[before]).await;
    bystander.acked(1).await;
    let closes = async |client: &mut Client, message: Message, expected: u16| {
        client.socket.send(message).await.unwrap();
        let (code, reason) = client.closed().await;
        assert_eq!(code, expected, "{reason}");
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
    };
    let frame = |up: &Up| {
        let mut message = vec![0];
        up.encode(&mut message);
        Message::binary(message)
    };
    // From one who is not welcome yet, and from one who is.
    let ever = [
        (Message::text("hello"), 4001),
        (Message::binary(Vec::new()), 4002),
        (Message::binary(vec![0xff; 40]), 4002),
        (Message::binary(vec![0, 1, 200]), 4002),
        (Message::binary(vec![0; (2 << 20) + 1]), 4004),
        (Message::binary(vec![0, 1, 5, b'c', b'h', b'p', 2, 0]), 4003),
    ];
    for (message, expected) in ever.clone() {
        closes(&mut Client::connect(&relay.heap("h")).await, message, expected).await;
    }
    for (message, expected) in ever {
        let (mut welcome, _) = Client::join(&relay, "h", 5).await;
        closes(&mut welcome, message, expected).await;
    }
    // Instead of a Hello.
    let first = [(frame(&Up::Ping { nonce: Nonce(1) }), 4002), (frame(&Up::Hello(hello_to("other", 2))), 4012)];
    for (message, expected) in first {
        closes(&mut Client::connect(&relay.heap("h")).await, message, expected).await;
    }
    let missing = frame(&Up::Hello(Hello { must_exist: true, ..hello_to("missing", 2) }));
    closes(&mut Client::connect(&relay.heap("missing")).await, missing, 4007).await;
    // Bytes that are no WebSocket frame: a reserved opcode, not masked.
    let mut raw = Client::connect(&relay.heap("h")).await;
    let MaybeTlsStream::Plain(socket) = raw.socket.get_mut() else { panic!("no TLS here") };
    socket.write_all(&[0x8b, 0x01, 0x00]).await.unwrap();
    assert_eq!(raw.closed().await.0, 1002);

    let mut late = Client::connect(&relay.heap("h")).await;
    let mut bad_name = Client::connect(&relay.heap("a/b")).await;
    assert_eq!(bad_name.closed().await.0, 4012);
    assert_eq!(late.closed().await.0, 4008);

    // Nothing is lost, and it goes on.
    let after = writer.commit(ROOT);
    bystander.send(&[after]).await;
    bystander.acked(2).await;
    let (_, welcome) = Client::join(&relay, "h", 7).await;
    assert_eq!(welcome.position, Offset(2));
}

/// A peer that asks without end and reads nothing: the others are served, and what it asked for is not kept for it.
#[tokio::test]
async fn who_asks_and_does_not_read_costs_little() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut bystander, _) = Client::join(&relay, "h", 1).await;
    let (mut deaf, _) = Client::join(&relay, "h", 2).await;
    let mut pings = vec![0];
    for _ in 0..100_000 {
        Up::Ping { nonce: Nonce(u64::MAX) }.encode(&mut pings);
    }
    let pings = Message::binary(pings);
    // 240 MB of them, and as many bytes of answers, unless it is closed before.
    let asking = async {
        for _ in 0..200 {
            if deaf.socket.send(pings.clone()).await.is_err() {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(20), asking).await;
    bystander.send(&[Up::Ping { nonce: Nonce(5) }]).await;
    bystander.find(|frame| (frame == Down::Pong { nonce: Nonce(5) }).then_some(())).await;
    let kib = relay.memory_kib();
    assert!(kib < 100_000, "{kib} KiB");
}

#[tokio::test]
async fn tokens_say_who_may_come_and_who_may_write() {
    let directory = Directory::new();
    let tokens = directory.0.join("tokens");
    std::fs::write(&tokens, "secret alice\nlooker bob ro\n").unwrap();
    let relay = Relay::start_with(&directory, &["--token-file", tokens.to_str().unwrap()]);
    let mut stranger = Client::connect(&relay.heap("h")).await;
    stranger.send(&[Up::Hello(Hello { token: "guess".into(), ..hello(1) })]).await;
    assert_eq!(stranger.closed().await.0, 4005);
    let (mut alice, _) = Client::hello(&relay.heap("h"), Hello { token: "secret".into(), ..hello(1) }).await;
    let (mut bob, _) = Client::hello(&relay.heap("h"), Hello { token: "looker".into(), ..hello(2) }).await;
    bob.send(&[load(ROOT)]).await;
    bob.find(|frame| matches!(frame, Down::Snapshot { .. }).then_some(())).await;
    let commit = Writer::new(1).commit(ROOT);
    alice.send(&[commit]).await;
    alice.acked(1).await;
    let subject = bob.find(|frame| if let Down::Author { subject, .. } = frame { Some(subject) } else { None }).await;
    assert_eq!(subject, "alice");
    let commit = Writer::new(2).commit(ROOT);
    bob.send(&[commit]).await;
    let code = bob.find(|frame| if let Down::Refused { code, .. } = frame { Some(code) } else { None }).await;
    assert_eq!(code, 36);
}

#[tokio::test]
async fn heaps_are_worlds_of_their_own() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let mut clients = Vec::new();
    for n in 0..20_u8 {
        let heap = format!("heap-{n}");
        let (mut client, welcome) = Client::join(&relay, &heap, n + 1).await;
        assert!(!welcome.exists);
        let commit = Writer::new(n + 1).commit(ROOT);
        client.send(&[commit]).await;
        clients.push(client);
    }
    for client in &mut clients {
        let seen = client.acked(1).await;
        let offsets: Vec<_> = seen
            .iter()
            .filter_map(|frame| if let Down::Entry(entry) = frame { Some(entry.offset) } else { None })
            .collect();
        assert_eq!(offsets, [Offset(0)]);
    }
}
