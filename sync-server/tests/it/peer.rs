//! A real replica with its connection to a real relay.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coheap_core::edit::{Handle, Literal, Patch, Shown, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{EpochId, SegmentId};
use coheap_core::replica::{Input, LoadStatus, Options, Output, Replica, Section, Target, WaitError, WaitKind};
use coheap_core::value::Value;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_secs(30);
/// The key of the counter that a segment has; it is the segment's only container, so its handle is 1.
pub const COUNTER: &str = "count";

/// A replica with its connection.
pub struct Peer {
    pub replica: Replica,
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
    begun: Instant,
    /// What it was told since the last look.
    told: Vec<Output>,
    /// The life of the log that the relay told it of last.
    pub epoch: EpochId,
    /// How often it gave back what the relay had lost.
    pub gave_back: u32,
}

impl Peer {
    /// One of the heap that this URL names, with the root.
    pub async fn open(seed: u8, url: &str) -> Peer {
        let heap = url.rsplit('/').next().unwrap_or_default().to_owned();
        let options = Options { seed: [seed; 32], heap, name: String::new(), must_exist: false, max_unsaved: 0 };
        let (replica, begun) = (Replica::new(options), Instant::now());
        let mut peer = Peer { replica, socket: None, begun, told: Vec::new(), epoch: EpochId::default(), gave_back: 0 };
        peer.connect(url).await;
        peer.load(SegmentId::ROOT).await;
        peer
    }

    pub async fn connect(&mut self, url: &str) {
        let (socket, _) = connect_async(url).await.unwrap();
        self.socket = Some(socket);
        self.input(Input::Connected { token: String::new(), entropy: [0; 4] }).await;
        self.until(|output| matches!(output, Output::Online { .. })).await;
    }

    /// Connects to a relay that does not take it in: with which code it is sent away.
    pub async fn rejected(&mut self, url: &str) -> u16 {
        let (socket, _) = connect_async(url).await.unwrap();
        self.socket = Some(socket);
        self.input(Input::Connected { token: String::new(), entropy: [0; 4] }).await;
        let socket = self.socket.as_mut().expect("it is connected");
        let code = loop {
            match timeout(PATIENCE, socket.next()).await.expect("an answer in time") {
                Some(Ok(Message::Close(Some(frame)))) => break frame.code.into(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no close: {other:?}"),
            }
        };
        self.lose().await;
        code
    }

    pub async fn lose(&mut self) {
        self.socket = None;
        self.input(Input::Disconnected).await;
    }

    pub async fn load(&mut self, segment: SegmentId) {
        self.input(Input::Load(vec![(segment, segment == SegmentId::ROOT)])).await;
        self.until(|output| match output {
            Output::Loaded { status, .. } => {
                assert_eq!(*status, LoadStatus::There);
                true
            }
            _ => false,
        })
        .await;
    }

    async fn input(&mut self, input: Input) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        self.replica.handle(now, input);
        while let Some(output) = self.replica.poll() {
            match output {
                Output::Send(bytes) => {
                    let Some(socket) = &mut self.socket else { continue };
                    socket.send(Message::Binary(bytes)).await.unwrap();
                }
                Output::Problem { code, message } | Output::Error { code, message } => panic!("{code}: {message}"),
                Output::Refused { .. } | Output::InDoubt(_) | Output::Conflict(_) | Output::Forked { .. } => {
                    panic!("nothing is refused, in doubt or given up: {output:?}")
                }
                other => {
                    match &other {
                        Output::Online { epoch, .. } => self.epoch = *epoch,
                        Output::Restoring { begins: false } => self.gave_back += 1,
                        _ => {}
                    }
                    self.told.push(other);
                }
            }
        }
    }

    /// Reads on until it is told this, which it gives.
    async fn until(&mut self, wanted: impl Fn(&Output) -> bool) -> Output {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.told.iter().position(&wanted) {
                let found = self.told.swap_remove(at);
                self.told.clear();
                return found;
            }
            assert!(Instant::now() < deadline, "it was not told: {:?}", self.told);
            let socket = self.socket.as_mut().expect("it is connected");
            match timeout(Duration::from_millis(50), socket.next()).await {
                Ok(Some(Ok(Message::Binary(bytes)))) => self.input(Input::Receive(bytes)).await,
                Ok(Some(Ok(_))) => {}
                Ok(other) => panic!("the connection ends: {other:?}"),
                Err(_) => self.input(Input::Tick).await,
            }
        }
    }

    /// One commit over several segments.
    pub async fn commit(&mut self, sections: Vec<(Target, Vec<Wish>)>) {
        let sections = sections.into_iter().map(|(target, wishes)| Section { target, claim: None, wishes }).collect();
        self.input(Input::Commit { label: String::new(), sections, size: 0, entropy: 0 }).await;
    }

    /// A commit to the root.
    pub async fn write(&mut self, wishes: Vec<Wish>) {
        self.commit(vec![(Target::Here(Index(0)), wishes)]).await;
    }

    /// `root[key] = true; root.count.add(1)`
    pub async fn count(&mut self, key: &str) {
        self.write(counted(key)).await;
    }

    /// Waits for this: the version it gives, if it is one that does.
    pub async fn wait(&mut self, kind: WaitKind) -> String {
        self.ended(kind).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// How waiting for this ends.
    pub async fn ended(&mut self, kind: WaitKind) -> Result<String, WaitError> {
        self.input(Input::Wait { ticket: 1, kind }).await;
        let ended =
            |output: &Output| matches!(output, Output::Done { ticket: 1, .. } | Output::Failed { ticket: 1, .. });
        match self.until(ended).await {
            Output::Done { version, .. } => Ok(version),
            Output::Failed { error, .. } => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// Reads on until it shows this.
    pub async fn shows(&mut self, segment: SegmentId, key: &str) {
        while !self.seen(segment).contains_key(key) {
            self.until(|output| matches!(output, Output::Apply { .. })).await;
        }
    }

    /// All that a segment's document says.
    pub fn values(&mut self, segment: SegmentId) -> String {
        format!("{:?}", self.replica.document(segment).expect("it is here").values())
    }

    /// All that the first object of a segment shows: scalars, and what counters come to.
    pub fn seen(&mut self, segment: SegmentId) -> BTreeMap<String, Value> {
        let patches = self.replica.document(segment).expect("it is here").dump();
        let total = |counter: Handle| {
            let of = |patch: &Patch| match patch {
                Patch::Total { object, value } if *object == counter => Some(*value),
                _ => None,
            };
            Value::Number(patches.iter().find_map(of).expect("a counter has a total"))
        };
        let shown = patches.iter().filter_map(|patch| match patch {
            Patch::Set { object: Handle(0), key, value: Shown::Scalar(value) } => Some((key.clone(), value.clone())),
            Patch::Set { object: Handle(0), key, value: Shown::Object(_, handle) } => {
                Some((key.clone(), total(*handle)))
            }
            _ => None,
        });
        shown.collect()
    }
}

/// `object[key] = true; object.count.add(1)`, of the first object of a segment.
pub fn counted(key: &str) -> Vec<Wish> {
    let value = Literal::Scalar(Value::Bool(true));
    vec![Wish::Set { object: Handle(0), key: key.into(), value }, Wish::Add { object: Handle(1), by: 1.0 }]
}
