//! The lines of commits that one replica sends: its own, which new commits join, and those of ids whose unacknowledged commits
//! it still holds (CORE-PROTOCOL C1, C9): one that it took over from a store, or gave up because another process used it too.
//!
//! ```text
//! pending, oldest first      Hello: own ids, the replica's own first    on the wire
//!   O 7   O 8   N 1   N 2    [(N, 0), (O, 6)]                            commit of N: owner 0, after (owner 1, 8, uid)
//! ```
//!
//! An id leaves the list when nothing of it is pending: with the next Hello, since the frames of a connection name ids by their
//! place in its Hello. Next: `fork.rs`, which decides when a replica takes another id.

use std::collections::VecDeque;

use super::Replica;
use super::pending::Unsaved;
use crate::commit::After;
use crate::id::{ReplicaId, Seq, Uid};
use crate::limits;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::frame::down::Row;

/// What a replica knows of its lines beside `pending`.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The ids of this connection's Hello, in its order.
    declared: Vec<ReplicaId>,
    /// Commits that this process sent and that have ended: the newest of them, oldest first. A relay remembers no more than half
    /// as many of a line.
    made: VecDeque<Ended>,
    /// How many of the last of these are not kept outside yet (`outside.rs`), and how many were since all of them were told.
    untold: usize,
    told: usize,
    /// What is kept outside is of no use: all of these are to be told.
    anew: bool,
    /// Up to which numbers the log of this connection has lines, without the commits that its rings name.
    settled: Vec<(ReplicaId, Seq)>,
    /// How often a connection of this id was closed because another one declares the id (F4).
    pub displaced: u32,
}

/// A commit that has ended: it is durable, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Whose line it is in, if that is not the replica's own.
    pub of: Option<ReplicaId>,
    pub seq: Seq,
    pub uid: Uid,
    /// Of its content, as the log had it (D4); 0: it was refused, or had other bytes there.
    pub hash: u64,
}

impl Ended {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.varint(self.seq.0);
        Write::u64(out, self.uid.0);
        Write::u64(out, self.hash);
        out.push(u8::from(self.of.is_some()));
        out.extend(self.of.iter().flat_map(|of| of.0));
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Ended, Malformed> {
        let (seq, uid, hash) = (Seq(r.varint()?), Uid(r.u64()?), r.u64()?);
        let of = if r.u8()? == 0 { None } else { Some(ReplicaId(r.array()?)) };
        Ok(Ended { of, seq, uid, hash })
    }
}

impl Lines {
    /// The id that a frame of this connection names.
    pub fn owner(&self, at: u64) -> Option<ReplicaId> {
        self.declared.get(usize::try_from(at).ok()?).copied()
    }

    /// How a frame of this connection names an id.
    pub fn place(&self, owner: ReplicaId) -> Option<u64> {
        (0..).zip(&self.declared).find(|(_, id)| **id == owner).map(|(at, _)| at)
    }

    /// What the rings of an Ok begin behind: the relay takes those commits for seen (R2a).
    pub fn settle(&mut self, rings: &[(u64, Vec<Row>)]) {
        let before = |rows: &[Row]| rows.first().map(|row| Seq(row.seq.0.saturating_sub(1)));
        let settled = rings.iter().filter_map(|(at, rows)| Some((self.owner(*at)?, before(rows)?)));
        self.settled = settled.collect();
    }

    /// Whether the log has this commit, which lies behind what a ring reaches back to.
    pub fn is_settled(&self, owner: ReplicaId, seq: Seq) -> bool {
        self.settled.iter().any(|(of, upto)| *of == owner && seq <= *upto)
    }

    /// A commit of this process has ended.
    pub fn ended(&mut self, ended: Ended) {
        if self.made.len() == limits::ENDED_MAX {
            self.made.pop_front();
        }
        self.made.push_back(ended);
        self.untold += 1;
    }

    /// These were made by another instance, which has told them.
    pub fn recall(&mut self, made: VecDeque<Ended>) {
        (self.untold, self.told, self.anew) = (0, made.len(), false);
        self.made = made;
    }

    /// What has to be told, and whether in the place of all that was told before.
    pub fn tell(&mut self) -> Option<(bool, impl ExactSizeIterator<Item = &Ended>)> {
        let anew = std::mem::take(&mut self.anew) || self.told + self.untold > 2 * limits::ENDED_MAX;
        let untold = std::mem::take(&mut self.untold);
        if !anew && untold == 0 {
            return None;
        }
        let known = if anew { 0 } else { self.made.len().saturating_sub(untold) };
        self.told = if anew { self.made.len() } else { self.told + untold };
        Some((anew, self.made.iter().skip(known)))
    }

    /// What is remembered, oldest first.
    pub fn made(&self) -> impl ExactSizeIterator<Item = &Ended> + Clone {
        self.made.iter()
    }

    /// The replica has another id, which has made nothing. Commits that have ended were in the line of this one.
    pub fn begin(&mut self, old: ReplicaId) {
        for made in &mut self.made {
            made.of.get_or_insert(old);
        }
        (self.untold, self.anew) = (0, true);
        self.displaced = 0;
    }
}

impl Replica {
    /// The own ids with what of each is known to be in the log: the replica's own first, then those of pending commits.
    pub fn own_lines(&self) -> Vec<(ReplicaId, Seq, Uid)> {
        let mut lines = vec![(self.id, self.seq, self.last_uid)];
        let mut met = Vec::new();
        for one in self.pending.iter() {
            let commit = &one.commit;
            if met.contains(&commit.owner) {
                continue;
            }
            met.push(commit.owner);
            // What lies before the oldest that is pending was acknowledged, or its refusal handled.
            let acked = (commit.owner, Seq(commit.seq.0.saturating_sub(1)), commit.prev);
            match lines.first_mut() {
                Some(own) if own.0 == commit.owner => *own = acked,
                _ => lines.push(acked),
            }
        }
        lines
    }

    /// What the Hello declares. What there is no room for waits until older ids have left the list.
    pub(super) fn declare_lines(&mut self) -> Vec<(ReplicaId, Seq)> {
        let own: Vec<_> =
            self.own_lines().into_iter().map(|(id, acked, _)| (id, acked)).take(limits::OWN_IDS_MAX).collect();
        self.lines.declared = own.iter().map(|(id, _)| *id).collect();
        own
    }

    /// C1: the newest pending commit of an older own id, which a new commit must come after [X32].
    pub(super) fn comes_after(&self) -> Option<After> {
        let Unsaved { commit, .. } = self.pending.newest_but(self.id)?;
        Some(After { owner: commit.owner, seq: commit.seq, uid: commit.uid })
    }

    /// F1: whether this process made that commit of an own id, as far as it remembers.
    pub(super) fn is_ours(&self, owner: ReplicaId, seq: Seq, uid: Uid) -> bool {
        if let Some(one) = self.pending.find(owner, seq) {
            return one.commit.uid == uid;
        }
        if owner != self.id {
            // Nothing is made under an id that was given up: what else is in its line is another's, or was acknowledged.
            return true;
        }
        let mut own = self.lines.made().filter(|made| made.of.is_none());
        match own.clone().find(|made| made.seq == seq) {
            Some(made) => made.uid == uid,
            None => seq <= self.seq && own.next().is_none_or(|oldest| seq < oldest.seq),
        }
    }

    /// F1, at reconnect: the first commit of a line in `ring` that this process did not make.
    pub(super) fn first_foreign(&self, owner: ReplicaId, rows: &[Row]) -> Option<Seq> {
        rows.iter().find(|row| !self.is_ours(owner, row.seq, row.uid)).map(|row| row.seq)
    }
}
