//! A client that speaks the wire by hand, with deltas of a real engine.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use coheap_core::id::*;
use coheap_core::wire::frame::down::Welcome;
use coheap_core::wire::frame::up::{CommitFrame, Hello};
use coheap_core::wire::frame::{Bulk, Down, PART_DELTA, PartFrame, SegRef, Up, message_of, split};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use yrs::{Doc, Map, OffsetKind, Options, ReadTxn, Transact};

use crate::process::Relay;

const PATIENCE: Duration = Duration::from_secs(10);

pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    queue: std::collections::VecDeque<Down>,
}

impl Client {
    /// A WebSocket, without a word said.
    pub async fn connect(url: &str) -> Client {
        let (socket, _) = connect_async(url).await.unwrap();
        Client { socket, queue: Default::default() }
    }

    /// A fresh replica of a heap, welcomed.
    pub async fn join(relay: &Relay, heap: &str, id: u8) -> (Client, Welcome) {
        Client::hello(&relay.heap(heap), hello_to(heap, id)).await
    }

    /// A replica that was welcomed.
    pub async fn hello(url: &str, hello: Hello) -> (Client, Welcome) {
        let mut client = Client::connect(url).await;
        client.send(&[Up::Hello(hello)]).await;
        match client.next().await {
            Down::Ok(welcome) => (client, welcome),
            other => panic!("{other:?}"),
        }
    }

    pub async fn send(&mut self, frames: &[Up]) {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        self.socket.send(Message::Binary(message_of(&bytes).into())).await.unwrap();
    }

    /// The next frame.
    pub async fn next(&mut self) -> Down {
        loop {
            if let Some(frame) = self.queue.pop_front() {
                return frame;
            }
            match self.message().await {
                Message::Binary(bytes) => {
                    for (kind, body) in split(&bytes).unwrap() {
                        self.queue.extend(Down::decode(kind, &body).unwrap());
                    }
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next frame; `None`: the connection was closed.
    pub async fn first(&mut self) -> Option<Down> {
        let Some(Ok(Message::Binary(bytes))) = timeout(PATIENCE, self.socket.next()).await.expect("in time") else {
            return None;
        };
        for (kind, body) in split(&bytes).unwrap() {
            self.queue.extend(Down::decode(kind, &body).unwrap());
        }
        self.queue.pop_front()
    }

    async fn message(&mut self) -> Message {
        timeout(PATIENCE, self.socket.next()).await.expect("an answer in time").expect("still open").unwrap()
    }

    /// The number of the newest commit that is acknowledged, once it is at least this; and the entries on the way.
    pub async fn acked(&mut self, wanted: u64) -> Vec<Down> {
        let mut seen = Vec::new();
        loop {
            let frame = self.next().await;
            if let Down::Ack { seq, .. } = frame
                && seq.0 >= wanted
            {
                return seen;
            }
            seen.push(frame);
        }
    }

    /// The next frame that this picks.
    pub async fn find<T>(&mut self, pick: impl Fn(Down) -> Option<T>) -> T {
        loop {
            let frame = self.next().await;
            if let Some(found) = pick(frame) {
                return found;
            }
        }
    }

    /// Waits for the close: its code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Ok(_)) => {}
                other => panic!("no close: {other:?}"),
            }
        }
    }
}

pub fn hello(id: u8) -> Hello {
    Hello {
        features: 0,
        fresh: true,
        restoring: false,
        must_exist: false,
        token: String::new(),
        name: format!("replica {id}"),
        heap: "h".into(),
        own: vec![(ReplicaId([id; 16]), Seq(0))],
        epoch: EpochId::default(),
        cut: Offset(0),
        bulk: Bulk::default(),
    }
}

/// The Hello of a fresh replica to a heap of this name.
pub fn hello_to(heap: &str, id: u8) -> Hello {
    Hello { heap: heap.into(), ..hello(id) }
}

/// The Hello of a replica that was here before, with the root.
pub fn back(id: u8, epoch: EpochId, cut: u64) -> Hello {
    let bulk = Bulk::whole(Hello::encode_residents(&[(SegmentId::ROOT, GenId::ZERO_YRS)]).into());
    Hello { fresh: false, epoch, cut: Offset(cut), bulk, ..hello(id) }
}

pub fn load(segment: SegmentId) -> Up {
    Up::Load { segment: SegRef::Id(segment), nonce: Nonce(1), have: None }
}

/// Makes the commits of one replica.
pub struct Writer {
    id: u8,
    seq: u64,
    prev: Uid,
    docs: BTreeMap<SegmentId, Doc>,
}

impl Writer {
    pub fn new(id: u8) -> Writer {
        Writer { id, seq: 0, prev: Uid::NONE, docs: BTreeMap::new() }
    }

    pub fn commit(&mut self, segment: SegmentId) -> Up {
        let size = 0;
        self.commit_of(segment, size)
    }

    pub fn commit_of(&mut self, segment: SegmentId, size: usize) -> Up {
        let client = u64::from(self.id) * 1000 + u64::from(segment.0[1]) + 1;
        let client_id = yrs::block::ClientID::new(client);
        let options = Options { client_id, offset_kind: OffsetKind::Utf16, ..Options::default() };
        let doc = self.docs.entry(segment).or_insert_with(|| Doc::with_options(options));
        let before = doc.transact().state_vector();
        let registers = doc.get_or_insert_map("r");
        registers.insert(&mut doc.transact_mut(), format!("k{}", self.seq % 50), "x".repeat(size));
        let delta = doc.transact().encode_diff_v1(&before);
        self.frame(segment, delta.into())
    }

    pub fn frame(&mut self, segment: SegmentId, bytes: Bytes) -> Up {
        self.seq += 1;
        let uid = Uid(u64::from(self.id) << 32 | self.seq);
        let prev = Some(std::mem::replace(&mut self.prev, uid));
        let generation = GenId::ZERO_YRS;
        let part = PartFrame { kind: PART_DELTA, segment: SegRef::Id(segment), generation, create: None, bytes };
        let (seq, parts) = (Seq(self.seq), vec![part].into());
        Up::Commit(CommitFrame { owner: 0, seq, uid, prev, after: None, claim: None, label: None, parts })
    }
}
