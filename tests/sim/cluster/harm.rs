//! Somebody who is no process of a [`Cluster`] writes what no engine takes in (R12).

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::id::{EpochId, Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::relay::{ConnId, Input as RelayInput};
use coheap_core::segment::write::Draw;
use coheap_core::wire::frame::up::{CommitFrame, Hello};
use coheap_core::wire::frame::{Bulk, PART_CREATE, PartFrame, SegRef, Up, message_of};

use super::Cluster;
use crate::hostile::Writer;

/// The key that is written and must be seen nowhere.
pub(super) const HOSTILE: &str = "hostile";

/// Who writes that, under one replica id and one client id.
#[derive(Debug)]
pub(super) struct Stranger {
    id: ReplicaId,
    segment: SegmentId,
    writer: Writer,
    seq: Seq,
    prev: Uid,
}

impl Cluster {
    /// A connection comes, commits one to three changes under one client id to a segment with history, and goes.
    pub fn harm(&mut self) {
        let segments = self.segments.clone();
        let with_history: Vec<SegmentId> = segments.into_iter().filter(|id| self.has_history(*id)).collect();
        if with_history.is_empty() || self.relay.is_none() {
            return;
        }
        let segment = with_history[self.entropy.below(with_history.len())];
        let mut stranger = self.stranger_to(segment);
        let changes = 1 + self.entropy.below(3);
        self.harms_as(&mut stranger, changes);
    }

    /// The same, to this segment; who has harmed it before goes on.
    pub fn harm_again(&mut self, segment: SegmentId, changes: usize) {
        let before = self.stranger.take().filter(|before| before.segment == segment);
        let mut stranger = before.unwrap_or_else(|| self.stranger_to(segment));
        self.harms_as(&mut stranger, changes);
        self.stranger = Some(stranger);
    }

    fn stranger_to(&mut self, segment: SegmentId) -> Stranger {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.entropy.draw().to_le_bytes());
        let writer = Writer::hostile(segment, (self.entropy.draw() >> 11).max(1));
        Stranger { id: ReplicaId(id), segment, writer, seq: Seq(0), prev: Uid::NONE }
    }

    fn harms_as(&mut self, stranger: &mut Stranger, changes: usize) {
        let Stranger { id, segment, .. } = *stranger;
        let hello = Hello {
            features: 0,
            fresh: true,
            restoring: false,
            must_exist: false,
            token: String::new(),
            name: String::new(),
            heap: "sim".into(),
            own: vec![(id, stranger.seq)],
            epoch: EpochId::default(),
            cut: Offset(0),
            bulk: Bulk::default(),
        };
        let mut frames = Vec::new();
        Up::Hello(hello).encode(&mut frames);
        for _ in 0..changes {
            let uid = Uid(self.entropy.draw());
            self.ledger.hostile.insert(uid);
            let part = PartFrame {
                kind: PART_CREATE,
                segment: SegRef::Id(segment),
                generation: EngineKind::Automerge.generation_zero(),
                create: Some((EngineKind::Automerge, LAYOUT)),
                bytes: stranger.writer.next(HOSTILE),
            };
            stranger.seq = stranger.seq.next();
            let (owner, seq, parts) = (0, stranger.seq, vec![part].into());
            let prev = Some(std::mem::replace(&mut stranger.prev, uid));
            let commit = CommitFrame { owner, seq, uid, prev, after: None, claim: None, label: None, parts };
            Up::Commit(commit).encode(&mut frames);
        }
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.rights.insert(conn, true);
        self.relay_input(RelayInput::Opened { conn, subject: String::new(), can_write: true });
        let bytes = Bytes::from(message_of(&frames));
        self.judging = Some(conn);
        self.relay_input(RelayInput::Message { conn, bytes });
        self.judging = None;
        self.relay_input(RelayInput::Closed { conn });
    }

    fn has_history(&mut self, id: SegmentId) -> bool {
        let engine = |node: &mut crate::node::Node| node.replica.document(id).map(|document| document.engine());
        self.nodes.iter_mut().any(|node| engine(node) == Some(EngineKind::Automerge))
    }
}
