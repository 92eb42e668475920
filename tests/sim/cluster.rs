//! Several replicas around one relay: the types that ship, with a simulated network, disk and processes between them.
//!
//! One seed decides everything: who edits what, which message arrives next, when the disk syncs, which connection breaks,
//! when the relay dies. [`Cluster::settle`] then lets everything arrive, and the invariants must hold. A failure prints its seed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{ObjectId, SegmentId};
use coheap_core::relay::{Config, ConnId, Input as RelayInput, Output as RelayOutput, Relay};
use coheap_core::replica::{Input, LoadStatus, Options, Output, Replica, Section, Target, WaitKind};
use coheap_core::segment::write::Draw;
use coheap_core::time::{Millis, Time};
use coheap_core::value::{Ref, Value};
use coheap_core::wire::frame::message_of;

use crate::Draws;
use crate::disk::Disk;
use crate::mirror::{Mirror, Node as Shown};

/// One process with a heap open.
#[derive(Debug)]
pub struct Node {
    /// The machine.
    pub replica: Replica,
    conn: Option<ConnId>,
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    /// What its program sees, of every segment that is here.
    pub mirrors: BTreeMap<Index, Mirror>,
    ids: BTreeMap<Index, SegmentId>,
    /// Versions that waits ended with.
    pub versions: Vec<(u64, String)>,
    /// Everything that went wrong.
    pub problems: Vec<String>,
    /// Commits visible here, in order: what P2 and P6 are judged by.
    pub seen: Vec<u64>,
    /// Own creations that another kind won over (S2).
    pub overruled: usize,
}

/// The world.
#[derive(Debug)]
pub struct Cluster {
    /// Where every choice comes from.
    pub draws: Draws,
    now: u64,
    relay: Option<Relay>,
    /// What the relay writes to.
    pub disk: Disk,
    reads: Vec<RelayOutput>,
    /// The processes.
    pub nodes: Vec<Node>,
    conns: u64,
    /// Segments that exist.
    pub segments: Vec<SegmentId>,
    lives: u64,
    /// How often a replica went on in another instance.
    pub moves: usize,
}

impl Cluster {
    /// A relay without a log, and replicas that are not connected.
    pub fn new(seed: u64, replicas: usize) -> Cluster {
        let mut draws = Draws(seed);
        let nodes = (0..replicas).map(|_| Node::new(&mut draws)).collect();
        let mut cluster = Cluster {
            draws,
            now: 1,
            relay: None,
            disk: Disk::default(),
            reads: Vec::new(),
            nodes,
            conns: 0,
            segments: vec![SegmentId::ROOT],
            lives: 0,
            moves: 0,
        };
        cluster.start_relay();
        for at in 0..replicas {
            cluster.input(at, Input::Load(vec![(SegmentId::ROOT, true)]));
        }
        cluster
    }

    /// The relay process starts over what is on the disk.
    pub fn start_relay(&mut self) {
        self.lives += 1;
        let config = Config {
            heap: "sim".into(),
            life: self.draws.draw(),
            entropy: self.draws.draw(),
            unix_ms: 0,
            idle: Millis(u64::MAX / 4),
            fold_bytes: None,
        };
        let relay = Relay::new(config, self.disk.recover(), Time(self.now));
        self.relay = Some(relay);
        self.drain_relay();
    }

    /// The relay process dies; the first `kept` appends that were not synced had reached the disk all the same.
    pub fn kill_relay(&mut self, kept: usize) {
        self.relay = None;
        self.reads.clear();
        self.disk.crash(kept);
        for at in 0..self.nodes.len() {
            self.disconnect(at);
        }
    }

    /// A connection opens, if there is a relay.
    pub fn connect(&mut self, at: usize) {
        if self.relay.is_none() || self.nodes[at].conn.is_some() {
            return;
        }
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.nodes[at].conn = Some(conn);
        self.relay_input(RelayInput::Opened { conn, subject: String::new(), can_write: true });
        self.input(at, Input::Connected { token: String::new() });
    }

    /// A connection breaks: what was under way in both directions is lost.
    pub fn disconnect(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(conn) = node.conn.take() else { return };
        node.up.clear();
        node.down.clear();
        if self.relay.is_some() {
            self.relay_input(RelayInput::Closed { conn });
        }
        self.input(at, Input::Disconnected);
    }

    /// Gives an input to a replica and performs what comes of it.
    pub fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        let node = &mut self.nodes[at];
        node.replica.handle(now, input);
        while let Some(output) = node.replica.poll() {
            if let Output::Indexed { segment, index } = &output {
                node.ids.insert(*index, *segment);
            }
            node.perform(output);
        }
    }

    fn relay_input(&mut self, input: RelayInput) {
        if let Some(relay) = &mut self.relay {
            relay.handle(Time(self.now), input);
        }
        self.drain_relay();
    }

    fn drain_relay(&mut self) {
        while let Some(output) = self.relay.as_mut().and_then(Relay::poll) {
            match output {
                RelayOutput::Send { to, frames } => {
                    let message = Bytes::from(message_of(&frames));
                    for node in &mut self.nodes {
                        if node.conn.is_some_and(|conn| to.contains(&conn)) {
                            node.down.push_back(message.clone());
                        }
                    }
                }
                RelayOutput::Close { conn, code, reason } => {
                    let at = self.nodes.iter().position(|node| node.conn == Some(conn));
                    if let Some(at) = at {
                        self.nodes[at].problems.push(format!("closed {code}: {reason}"));
                        self.nodes[at].conn = None;
                        self.nodes[at].up.clear();
                        self.nodes[at].down.clear();
                        self.input(at, Input::Disconnected);
                    }
                }
                RelayOutput::Append(append) => self.disk.append(append),
                read @ (RelayOutput::ReadLog { .. } | RelayOutput::ReadStates { .. }) => self.reads.push(read),
                RelayOutput::Recover => {
                    let recovered = self.disk.recover();
                    self.relay_input(RelayInput::Recovered(recovered));
                }
                RelayOutput::Fold { .. } | RelayOutput::Idle | RelayOutput::Stopped => {}
            }
        }
    }

    /// A program makes a commit: wishes on segments that are here.
    pub fn commit(&mut self, at: usize, sections: Vec<(Index, Vec<Wish>)>) {
        let node = &mut self.nodes[at];
        let mut out = Vec::new();
        for (index, wishes) in sections {
            let Some(mirror) = node.mirrors.get_mut(&index) else { continue };
            for wish in &wishes {
                mirror.wish(wish);
            }
            out.push(Section { target: Target::Here(index), claim: None, wishes });
        }
        if !out.is_empty() {
            self.input(at, Input::Commit { label: String::new(), sections: out, size: 0 });
        }
    }

    /// A program makes a new segment and points to it from the root, in one commit.
    pub fn alloc(&mut self, at: usize, engine: EngineKind, key: &str, value: Literal) -> SegmentId {
        let ObjectId(id) = self.draws.object();
        let id = SegmentId(id);
        let target = Value::Ref(Ref { segment: id, object: id.first() });
        let point =
            Wish::Set { object: coheap_core::edit::Handle(0), key: key.to_owned(), value: Literal::Scalar(target) };
        let root = Wish::Root { value };
        let node = &mut self.nodes[at];
        if let Some(mirror) = node.mirrors.get_mut(&Index(0)) {
            mirror.wish(&point);
        }
        let mut fresh = Mirror::new();
        fresh.wish(&root);
        let sections = vec![
            Section { target: Target::New(id, engine), claim: None, wishes: vec![root] },
            Section { target: Target::Here(Index(0)), claim: None, wishes: vec![point] },
        ];
        self.input(at, Input::Commit { label: String::new(), sections, size: 0 });
        let node = &mut self.nodes[at];
        if let Some(index) = node.index(id) {
            node.mirrors.insert(index, fresh);
        }
        self.segments.push(id);
        id
    }

    /// The next thing happens, whatever it is.
    pub fn step(&mut self, faults: bool) {
        self.now += 1;
        let at = self.draws.below(self.nodes.len());
        match self.draws.below(if faults { 42 } else { 30 }) {
            0..8 => self.deliver_up(at),
            8..18 => self.deliver_down(at),
            18..24 => self.sync(),
            24..28 => self.answer_read(),
            28..30 => self.connect(at),
            30..32 => self.disconnect(at),
            32 => {
                let kept = self.draws.below(3);
                self.kill_relay(kept);
                self.start_relay();
            }
            33..35 => self.load_one(at),
            35 => self.evict_one(at),
            36 => self.input(at, Input::Wait { ticket: self.now, kind: WaitKind::Flush }),
            37 => self.input(at, Input::Wait { ticket: self.now, kind: WaitKind::Sync }),
            38 => self.input(at, Input::Wait { ticket: self.now, kind: WaitKind::Version }),
            40 => self.move_replica(at),
            _ => self.connect(at),
        }
    }

    /// A replica goes on in another instance, as after a trap: its connection is lost, its program notices nothing.
    pub fn move_replica(&mut self, at: usize) {
        self.disconnect(at);
        self.moves += 1;
        let packed = self.nodes[at].replica.export();
        let (id, unsaved) = (self.nodes[at].replica.id(), self.nodes[at].replica.unsaved());
        let before: BTreeMap<Index, _> =
            self.nodes[at].mirrors.iter().map(|(i, mirror)| (*i, mirror.value())).collect();
        let options = options(&mut self.draws);
        self.nodes[at].replica = Replica::import(options.clone(), &packed).expect("a replica reads what one wrote");
        let node = &mut self.nodes[at];
        assert_eq!((node.replica.id(), node.replica.unsaved()), (id, unsaved));
        assert_eq!(node.replica.export().len(), packed.len(), "nothing is lost on the way");
        while let Some(output) = node.replica.poll() {
            node.perform(output);
        }
        for (index, mirror) in &node.mirrors {
            assert_eq!(Some(&mirror.value()), before.get(index), "what a program sees does not change by it");
        }
        for end in [0, packed.len() / 2, packed.len() - 1] {
            assert!(Replica::import(options.clone(), &packed[..end]).is_err(), "cut at {end}");
        }
    }

    fn load_one(&mut self, at: usize) {
        let id = self.segments[self.draws.below(self.segments.len())];
        let here = self.nodes[at].index(id).is_some_and(|index| self.nodes[at].mirrors.contains_key(&index));
        if !here {
            self.input(at, Input::Load(vec![(id, id == SegmentId::ROOT)]));
        }
    }

    fn evict_one(&mut self, at: usize) {
        let here: Vec<Index> = self.nodes[at].mirrors.keys().copied().filter(|index| index.0 > 0).collect();
        if !here.is_empty() {
            let index = here[self.draws.below(here.len())];
            self.input(at, Input::Evict(index));
        }
    }

    fn deliver_up(&mut self, at: usize) {
        if let (Some(conn), Some(bytes)) = (self.nodes[at].conn, self.nodes[at].up.pop_front()) {
            self.relay_input(RelayInput::Message { conn, bytes });
        }
    }

    fn deliver_down(&mut self, at: usize) {
        let conn = self.nodes[at].conn;
        if let (Some(conn), Some(message)) = (conn, self.nodes[at].down.pop_front()) {
            let bytes = message.len() - 1;
            self.input(at, Input::Receive(message));
            self.relay_input(RelayInput::Written { conn, bytes });
        }
    }

    fn sync(&mut self) {
        if self.relay.is_some()
            && let Some(upto) = self.disk.sync()
        {
            self.relay_input(RelayInput::Durable { upto });
        }
    }

    fn answer_read(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let input = match self.reads.remove(0) {
            RelayOutput::ReadLog { ticket, from, upto, bytes_max } => {
                RelayInput::Log { ticket, entries: self.disk.log(from, upto, bytes_max) }
            }
            RelayOutput::ReadStates { ticket, position, segments, .. } => {
                RelayInput::States { ticket, states: self.disk.states(position, &segments) }
            }
            _ => return,
        };
        self.relay_input(input);
    }

    /// Everything arrives: connects everybody and lets the world run until nothing moves.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "the world does not come to rest");
            self.now += 1;
            let mut moved = false;
            for at in 0..self.nodes.len() {
                if self.nodes[at].conn.is_none() {
                    self.connect(at);
                    moved = true;
                }
                while !self.nodes[at].up.is_empty() {
                    self.deliver_up(at);
                    moved = true;
                }
                while !self.nodes[at].down.is_empty() {
                    self.deliver_down(at);
                    moved = true;
                }
            }
            if self.disk.is_dirty() {
                self.sync();
                moved = true;
            }
            while !self.reads.is_empty() {
                self.answer_read();
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// The invariants of a settled world: nothing unsaved, no problem, equal values in every segment two replicas have (P1),
    /// every mirror equal to its document.
    pub fn check(&mut self) {
        let mut values = BTreeMap::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            assert_eq!(node.replica.unsaved(), 0, "replica {at} has unsaved commits");
            assert!(node.problems.is_empty(), "replica {at}: {:?}", node.problems);
            for (index, mirror) in &node.mirrors {
                let id = node.ids.get(index).copied().unwrap_or(SegmentId::ROOT);
                let document = node.replica.document(id).expect("a mirror has a document");
                let bytes = document.encode();
                let engine = document.engine();
                let generation = document.generation();
                let mut copy = coheap_core::segment::Segment::decode(id, engine, generation, 1, &bytes, &[])
                    .expect("a document decodes");
                let fresh = Mirror::of(&copy.show());
                assert_eq!(mirror.value(), fresh.value(), "mirror of segment {index:?} at replica {at}");
                assert_eq!(mirror.nears(), fresh.nears(), "objects near others in segment {index:?} at replica {at}");
                let value = format!("{:?} {:?}", mirror.value(), mirror.nears());
                let first = values.entry(id).or_insert_with(|| value.clone());
                assert_eq!(*first, value, "segment {id} at replica {at}");
            }
        }
    }
}

fn options(draws: &mut Draws) -> Options {
    let mut seed = [0; 32];
    for chunk in seed.chunks_mut(8) {
        chunk.copy_from_slice(&draws.draw().to_le_bytes());
    }
    Options { seed, heap: "sim".into(), name: String::new(), must_exist: false, max_unsaved: 0 }
}

impl Node {
    fn new(draws: &mut Draws) -> Node {
        Node {
            replica: Replica::new(options(draws)),
            conn: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            mirrors: BTreeMap::new(),
            ids: BTreeMap::from([(Index(0), SegmentId::ROOT)]),
            versions: Vec::new(),
            problems: Vec::new(),
            seen: Vec::new(),
            overruled: 0,
        }
    }

    /// The index of a segment.
    pub fn index(&self, id: SegmentId) -> Option<Index> {
        self.ids.iter().find(|(_, other)| **other == id).map(|(index, _)| *index)
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(message) => self.up.push_back(message),
            Output::Apply { offset, segments, .. } => {
                assert!(
                    self.seen.last().is_none_or(|last| *last < offset.0),
                    "P2: entries come in the order of the log"
                );
                self.seen.push(offset.0);
                for (index, patches) in segments {
                    if let Some(mirror) = self.mirrors.get_mut(&index) {
                        mirror.apply(&patches);
                    }
                }
            }
            Output::Loaded { segment, status: LoadStatus::There, reset, patches, .. } => {
                let mirror = self.mirrors.entry(segment).or_default();
                if !reset {
                    *mirror = Mirror::new();
                }
                mirror.near.clear();
                mirror.apply(&patches);
            }
            Output::Loaded { status, .. } => assert_ne!(status, LoadStatus::Quarantined),
            Output::Committed { corrections, .. } => {
                for (index, patches) in corrections {
                    if let Some(mirror) = self.mirrors.get_mut(&index) {
                        mirror.apply(&patches);
                    }
                }
            }
            Output::Evicted(index) => {
                self.mirrors.remove(&index);
            }
            Output::Overruled(index, told) => {
                let mirror = self.mirrors.get(&index).expect("a segment that is here");
                assert!(matches!(mirror.node(told.parent), Shown::Map(_)), "{told:?}");
                assert_ne!(mirror.node(told.lost).kind(), told.kept);
                self.overruled += 1;
            }
            Output::Done { ticket, version } => self.versions.push((ticket, version)),
            Output::Problem { code, message } => self.problems.push(format!("{code}: {message}")),
            Output::Error { code, message } => self.problems.push(format!("error {code}: {message}")),
            Output::Failed { ticket, error } => self.problems.push(format!("wait {ticket}: {error}")),
            _ => {}
        }
    }
}
