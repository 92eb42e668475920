//! Several replicas of one segment around one log, as a relay keeps it: one order, every replica applies it in that order and
//! skips its own entries. Every entry goes through the guard on its way into the log, and is never refused.

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::guard::{self, Clocks};
use coheap_core::id::{ReplicaId, SegmentId, Uid};
use coheap_core::segment::{Segment, fold};

use crate::Draws;
use crate::mirror::Mirror;
use crate::peer::Peer;
use crate::tree::Tree;

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who made it.
    pub author: usize,
    /// Its identity.
    pub uid: Uid,
    /// The change.
    pub delta: Bytes,
}

fn guard_of(engine: EngineKind) -> guard::Engine {
    match engine {
        EngineKind::Yrs => guard::Engine::Yrs,
        EngineKind::Automerge => guard::Engine::Automerge,
    }
}

/// Replicas and their log.
#[derive(Debug)]
pub struct World {
    /// The replicas.
    pub peers: Vec<Peer>,
    /// The one order.
    pub log: Vec<Entry>,
    /// How far each replica has come in the log.
    pub seen: Vec<usize>,
    /// What merges.
    pub engine: EngineKind,
    /// The segment.
    pub id: SegmentId,
    /// Where its chances come from.
    pub draws: Draws,
    /// Whose clocks stand where, at the end of the log.
    pub clocks: Clocks,
}

impl World {
    /// `count` replicas of an empty segment.
    pub fn new(engine: EngineKind, id: SegmentId, count: usize, seed: u64) -> Self {
        let mut draws = Draws(seed);
        let peers =
            (0..count).map(|i| Peer::new(engine, id, Draws(seed).below(1 << 40) as u64 + i as u64 * 7919)).collect();
        draws.below(2);
        World { peers, log: Vec::new(), seen: vec![0; count], engine, id, draws, clocks: Clocks::default() }
    }

    /// A replica sends its oldest unsent commits.
    pub fn send(&mut self, author: usize, count: usize) {
        let unsent = &mut self.peers[author].unsent;
        let count = count.min(unsent.len());
        for commit in unsent.drain(..count) {
            let owner = ReplicaId([author as u8; 16]);
            let summary = guard::structure(guard_of(self.engine), &commit.delta).expect("the guard reads every delta");
            self.clocks.check(owner, &summary).expect("the guard lets every delta pass");
            self.clocks.record(owner, &summary);
            self.log.push(Entry { author, uid: commit.uid, delta: commit.delta });
        }
    }

    /// The next entries that a replica has not seen, without its own; it has seen them then.
    fn next(&mut self, reader: usize, count: usize) -> Vec<Bytes> {
        let end = self.log.len().min(self.seen[reader] + count);
        let entries = &self.log[self.seen[reader]..end];
        self.seen[reader] = end;
        entries.iter().filter(|entry| entry.author != reader).map(|entry| entry.delta.clone()).collect()
    }

    /// A replica applies the next entries, `batch` at a time; `again`: some it has had come along once more.
    pub fn receive(&mut self, reader: usize, count: usize, batch: usize, again: usize) {
        let from = self.seen[reader].saturating_sub(again);
        let old: Vec<Bytes> = self.log[from..self.seen[reader]].iter().map(|entry| entry.delta.clone()).collect();
        let mut deltas = old;
        deltas.extend(self.next(reader, count));
        for deltas in deltas.chunks(batch.max(1)) {
            self.peers[reader].apply(deltas);
        }
    }

    /// A replica is put on the log's newest state; what it has not sent is redone there.
    pub fn reload(&mut self, reader: usize, folded: bool) {
        let (snapshot, deltas) = self.state(folded);
        self.seen[reader] = self.log.len();
        self.peers[reader].reload(&snapshot, &deltas);
    }

    /// A replica's process is started anew, on the log's newest state.
    pub fn restart(&mut self, reader: usize, folded: bool) {
        let (snapshot, deltas) = self.state(folded);
        self.seen[reader] = self.log.len();
        self.peers[reader].restart(&snapshot, &deltas);
    }

    /// The log as a snapshot of its older half and the deltas since, or as deltas alone.
    pub fn state(&self, folded: bool) -> (Vec<u8>, Vec<Bytes>) {
        let deltas: Vec<Bytes> = self.log.iter().map(|entry| entry.delta.clone()).collect();
        if !folded {
            return (Vec::new(), deltas);
        }
        let (old, new) = deltas.split_at(deltas.len() / 2);
        (fold(self.engine, &[], old).expect("a fold"), new.to_vec())
    }

    /// Everybody sends all, in an order of chance, and receives all. They then see the same; that is returned.
    pub fn meet(&mut self) -> Tree {
        while self.peers.iter().any(|peer| !peer.unsent.is_empty()) {
            let author = self.draws.below(self.peers.len());
            let count = 1 + self.draws.below(3);
            self.send(author, count);
        }
        for reader in 0..self.peers.len() {
            let batch = 1 + self.draws.below(4);
            self.receive(reader, usize::MAX / 2, batch, 0);
        }
        self.agree()
    }

    /// Asserts that all replicas see the same, and that whoever loads the log, folded or not, sees that too.
    pub fn agree(&mut self) -> Tree {
        let (value, nears) = (self.peers[0].value(), self.peers[0].mirror.nears());
        for peer in &mut self.peers {
            assert_eq!(value, peer.value(), "two replicas that have seen the same log");
            assert_eq!(nears, peer.mirror.nears(), "two replicas that have seen the same log: objects near others");
            peer.check();
        }
        for folded in [false, true] {
            let (snapshot, deltas) = self.state(folded);
            let generation = self.engine.generation_zero();
            let mut fresh = Segment::decode(self.id, self.engine, generation, 1, &snapshot, &deltas).expect("it loads");
            let fresh = Mirror::of(&fresh.show());
            assert_eq!(value, fresh.value(), "one who loads all afresh (folded: {folded})");
            assert_eq!(nears, fresh.nears(), "one who loads all afresh (folded: {folded})");
        }
        let deltas: Vec<Bytes> = self.log.iter().map(|entry| entry.delta.clone()).collect();
        let folded = fold(self.engine, &[], &deltas).expect("a fold says what was folded");
        let generation = self.engine.generation_zero();
        let mut fresh = Segment::decode(self.id, self.engine, generation, 1, &folded, &[]).expect("it loads");
        let fresh = Mirror::of(&fresh.show());
        assert_eq!(value, fresh.value(), "the fold of everything");
        assert_eq!(nears, fresh.nears(), "the fold of everything");
        value
    }
}
