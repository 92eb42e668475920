//! R12 with a real relay and its worker process: what no engine takes in is found, left out and stays so.

use std::time::{Duration, Instant};

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::*;
use coheap_core::replica::{Input, LoadStatus, Options, Output, Replica, Section, Target};
use coheap_core::value::Value;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Down, PART_CREATE, PartFrame, SegRef, SegmentState, Up};
use coheap_tests::hostile;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{Client, hello_to, load};
use crate::process::{Directory, Relay, program};

const X: SegmentId = SegmentId([0x77; 16]);

/// The commits of one line, each of one part of a segment with history.
struct Line {
    id: u8,
    seq: u64,
    prev: Uid,
}

impl Line {
    fn commit(&mut self, bytes: Bytes) -> Up {
        self.seq += 1;
        let uid = Uid(u64::from(self.id) << 32 | self.seq);
        let prev = Some(std::mem::replace(&mut self.prev, uid));
        let part = PartFrame {
            kind: PART_CREATE,
            segment: SegRef::Id(X),
            generation: EngineKind::Automerge.generation_zero(),
            create: Some((EngineKind::Automerge, LAYOUT)),
            bytes,
        };
        let (seq, parts) = (Seq(self.seq), vec![part].into());
        Up::Commit(CommitFrame { owner: 0, seq, uid, prev, after: None, claim: None, label: None, parts })
    }
}

/// The deltas that a load gives.
async fn deltas(client: &mut Client) -> usize {
    client.send(&[load(X)]).await;
    let bulk = client.find(|frame| if let Down::Snapshot { bulk, .. } = frame { Some(bulk) } else { None }).await;
    SegmentState::decode(&bulk.bytes, &mut Reader::new(&bulk.bytes)).unwrap().deltas.len()
}

#[tokio::test]
async fn r12_what_the_worker_cannot_take_in_either_is_left_out_for_good() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut bad, _) = Client::join(&relay, "h", 1).await;
    let (mut good, _) = Client::join(&relay, "h", 2).await;
    let (mut writer, mut line) = (hostile::Writer::hostile(X, 100), Line { id: 1, seq: 0, prev: Uid::NONE });
    let (mut honest, mut other) = (hostile::Writer::honest(X, 200), Line { id: 2, seq: 0, prev: Uid::NONE });
    bad.send(&[line.commit(writer.next("a"))]).await;
    bad.acked(1).await;
    good.send(&[other.commit(honest.next("b"))]).await;
    good.acked(1).await;
    bad.send(&[line.commit(writer.next("c"))]).await;
    bad.acked(2).await;
    assert_eq!(deltas(&mut good).await, 3);
    // What is whole is whole for the worker, too.
    good.send(&[Up::Report { segment: SegRef::Id(X), offset: Offset(2) }]).await;
    let (mut quarantined, mut reloads) = (None, 0);
    while quarantined.is_none() || reloads == 0 {
        match good.next().await {
            Down::Quarantine { offset, at, client, .. } => quarantined = Some((offset, at, client)),
            Down::Reload { at, .. } => {
                assert_eq!(at, Offset(2));
                reloads += 1;
            }
            _ => {}
        }
    }
    assert_eq!(quarantined, Some((Offset(3), Offset(0), Some((100, 0)))), "the first that fails, not the one reported");
    assert_eq!(deltas(&mut good).await, 1);
    // Its author is told, and does not go on so.
    bad.find(|frame| matches!(frame, Down::Quarantine { .. }).then_some(())).await;
    bad.send(&[line.commit(writer.next("d"))]).await;
    let code = bad.find(|frame| if let Down::Refused { code, .. } = frame { Some(code) } else { None }).await;
    assert_eq!(code, 37);
    relay.kill();
    let relay = Relay::start(&directory);
    let (mut third, _) = Client::hello(&relay.heap("h"), hello_to("h", 3)).await;
    assert_eq!(deltas(&mut third).await, 1);
    // The rest is taken in.
    third.send(&[Up::Report { segment: SegRef::Id(X), offset: Offset(u64::MAX) }]).await;
    let at = third.find(|frame| if let Down::Reload { at, .. } = frame { Some(at) } else { None }).await;
    assert_eq!(at, Offset(u64::MAX));
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
    let tool = |arguments: &[&str]| {
        let output = program().arg("store").args(arguments).arg(&directory.0).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, out) = tool(&["dump"]);
    let line = r#""offset":3,"kind":"quarantine","segment":0,"at":0,"client":"100","clock":0,"later":[2]}"#;
    assert!(code == Some(0) && out.contains(line), "{out}");
    let (code, out) = tool(&["verify"]);
    assert_eq!(code, Some(0), "{out}");
}

/// Nobody reports anything: the relay's own fold fails over it.
#[tokio::test]
async fn r12_a_fold_finds_what_it_fails_on_and_goes_on_without_it() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let (mut bad, _) = Client::join(&relay, "h", 1).await;
    let (mut writer, mut line) = (hostile::Writer::hostile(X, 100), Line { id: 1, seq: 0, prev: Uid::NONE });
    bad.send(&[line.commit(writer.next("a"))]).await;
    bad.acked(1).await;
    let (mut good, _) = Client::join(&relay, "h", 2).await;
    let (mut honest, mut other) = (hostile::Writer::honest(X, 200), Line { id: 2, seq: 0, prev: Uid::NONE });
    deltas(&mut good).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut told = false;
    let mut made = 0;
    loop {
        made += 1;
        good.send(&[other.commit(honest.next("b"))]).await;
        let seen = good.acked(made).await;
        told |= seen.iter().any(|frame| matches!(frame, Down::Quarantine { at: Offset(0), .. }));
        if told && made > 300 && deltas(&mut good).await < 256 {
            break;
        }
        assert!(Instant::now() < deadline, "it is folded without it; told: {told}, {made} commits");
        if made > 300 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A replica with its connection.
struct Peer {
    replica: Replica,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    told: Vec<Output>,
}

impl Peer {
    async fn open(relay: &Relay, seed: u8) -> Peer {
        let (seed, heap, name) = ([seed; 32], "h".into(), String::new());
        let options = Options { seed, heap, name, must_exist: false, max_unsaved: 0 };
        let (socket, _) = connect_async(relay.heap("h")).await.unwrap();
        let mut peer = Peer { replica: Replica::new(options), socket, told: Vec::new() };
        peer.input(Input::Connected { token: String::new(), entropy: [0; 4] }).await;
        peer.until(|output| matches!(output, Output::Online { .. })).await;
        peer
    }

    async fn input(&mut self, input: Input) {
        self.replica.handle(1, input);
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Send(bytes) => self.socket.send(Message::Binary(bytes)).await.unwrap(),
                other => self.told.push(other),
            }
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Output) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(at) = self.told.iter().position(&wanted) {
                self.told.drain(..=at);
                return;
            }
            assert!(Instant::now() < deadline, "it was not told: {:?}", self.told);
            if let Ok(Some(Ok(Message::Binary(bytes)))) = timeout(Duration::from_millis(50), self.socket.next()).await {
                self.input(Input::Receive(bytes)).await;
            }
        }
    }

    fn values(&mut self) -> String {
        let document = self.replica.document(X).expect("it is here");
        let (bytes, engine, generation) = (document.encode(), document.engine(), document.generation());
        let mut copy = coheap_core::segment::Segment::decode(X, engine, generation, 1, &bytes, &[]).unwrap();
        format!("{:?}", copy.show())
    }
}

/// Replicas with the engines that ship: they stop over it, the relay finds it, they go on without it.
#[tokio::test]
async fn r12_replicas_stop_over_what_their_engine_cannot_take_in_and_go_on_when_the_relay_has_left_it_out() {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let mut peers = [Peer::open(&relay, 1).await, Peer::open(&relay, 2).await];
    for peer in &mut peers {
        peer.input(Input::Load(vec![(X, true)])).await;
        peer.until(|output| matches!(output, Output::Loaded { status: LoadStatus::There, .. })).await;
    }
    let (mut good, _) = Client::join(&relay, "h", 3).await;
    let (mut honest, mut other) = (hostile::Writer::honest(X, 200), Line { id: 3, seq: 0, prev: Uid::NONE });
    good.send(&[other.commit(honest.next("before"))]).await;
    good.acked(1).await;
    for peer in &mut peers {
        // It was taken for an empty segment of the other engine.
        peer.until(|output| matches!(output, Output::Loaded { status: LoadStatus::There, .. })).await;
    }
    let (mut bad, _) = Client::join(&relay, "h", 4).await;
    let (mut writer, mut line) = (hostile::Writer::hostile(X, 100), Line { id: 4, seq: 0, prev: Uid::NONE });
    bad.send(&[line.commit(writer.next("bad"))]).await;
    for peer in &mut peers {
        peer.until(|output| matches!(output, Output::Loaded { status: LoadStatus::Quarantined, .. })).await;
        peer.until(|output| matches!(output, Output::Loaded { status: LoadStatus::There, reset: true, .. })).await;
    }
    let set = |key: &str| {
        let value = Literal::Scalar(Value::Bool(true));
        let wishes = vec![Wish::Set { object: Handle(0), key: key.into(), value }];
        let index = coheap_core::heap::Index(1);
        let sections = vec![Section { target: Target::Here(index), claim: None, wishes }];
        Input::Commit { label: String::new(), sections, size: 30, entropy: 0 }
    };
    let [first, second] = &mut peers;
    first.input(set("after")).await;
    first.until(|output| matches!(output, Output::Acked { .. })).await;
    second.until(|output| matches!(output, Output::Apply { .. })).await;
    let (one, two) = (first.values(), second.values());
    assert_eq!(one, two);
    assert!(one.contains("before") && one.contains("after") && !one.contains("bad"), "{one}");
}
