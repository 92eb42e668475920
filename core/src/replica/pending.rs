//! What is not acknowledged yet: every own commit both as the deltas that were sent and as anchored edits (CORE-PROTOCOL C1–C3,
//! C7). The deltas are sent again after a reconnect; the edits are what a redo works from. What is resent is decided here.

use std::collections::VecDeque;

use crate::commit::Commit;
use crate::edit::Edit;
use crate::id::{Offset, SegmentId, Seq, Uid};

/// One unacknowledged commit.
#[derive(Debug)]
pub struct Unsaved {
    /// As it was (or will be) sent.
    pub commit: Commit,
    /// What it means, segment by segment, in the order of its parts.
    pub edits: Vec<Vec<Edit>>,
    /// Its place in the log, once its entry came by on the stream.
    pub admitted: Option<Offset>,
    /// It went out on this connection.
    pub sent: bool,
    /// Bytes of its deltas.
    pub bytes: usize,
}

/// The list of them, oldest first.
#[derive(Debug, Default)]
pub struct Pending {
    list: VecDeque<Unsaved>,
    bytes: usize,
}

impl Pending {
    /// Appends a commit.
    pub fn push(&mut self, commit: Commit, edits: Vec<Vec<Edit>>) {
        let bytes = commit.parts.iter().filter_map(|part| part.body.delta()).map(bytes::Bytes::len).sum();
        self.bytes += bytes;
        self.list.push_back(Unsaved { commit, edits, admitted: None, sent: false, bytes });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when everything is saved.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of their deltas.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Unsaved> {
        self.list.iter()
    }

    /// Oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Unsaved> {
        self.list.iter_mut()
    }

    /// Forgets what an Ack covers (C2: only on an Ack).
    pub fn acknowledged(&mut self, seq: Seq) -> bool {
        let before = self.list.len();
        while let Some(first) = self.list.front() {
            if first.commit.seq > seq {
                break;
            }
            self.bytes -= first.bytes;
            self.list.pop_front();
        }
        before != self.list.len()
    }

    /// Takes a refused commit out and lets the line go on from its voided uid (R11). What lies behind it has to be sent again (C7).
    pub fn refused(&mut self, seq: Seq, uid: Uid) -> Option<Unsaved> {
        let at = self.list.iter().position(|one| one.commit.seq == seq && one.commit.uid == uid)?;
        let refused = self.list.remove(at)?;
        self.bytes -= refused.bytes;
        if let Some(next) = self.list.get_mut(at) {
            next.commit.prev = uid.voided();
        }
        for later in self.list.iter_mut().skip(at) {
            later.sent = false;
            later.admitted = None;
        }
        Some(refused)
    }

    /// A new connection: everything goes out again (C3).
    pub fn reconnected(&mut self) {
        for one in &mut self.list {
            one.sent = false;
        }
    }

    /// True while an unacknowledged commit touches the segment (L4: it is not evicted).
    pub fn touches(&self, segment: SegmentId) -> bool {
        self.list.iter().any(|one| one.commit.parts.iter().any(|part| part.segment == segment))
    }

    /// Replaces a delta that was made anew, keeping the bytes right.
    pub fn recount(&mut self) {
        self.bytes = 0;
        for one in &mut self.list {
            one.bytes = one.commit.parts.iter().filter_map(|part| part.body.delta()).map(bytes::Bytes::len).sum();
            self.bytes += one.bytes;
        }
    }
}
