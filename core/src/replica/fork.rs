//! When another process makes commits under an id of this replica: a copy of it, of its memory or of its store (CORE-PROTOCOL §10);
//! and when the relay no longer knows a line (G5).
//!
//! ```text
//! sign (F1)                                    what comes of it
//!   Conflict ───────────────────────┐
//!   an own entry not made here ─────┼─► fork (F2): another id; pending commits from there on go to a line apart;
//!   the same in an Ok's `ring` ─────┘             the connection is over, since its Hello declares the old id
//!   replaced twice (F4) ────────────────► another id for what comes; pending commits stay in their line
//!   own commit, other bytes in the log ─► the log's version counts (F3): documents are made anew without the own one
//!   own commit, void in `ring` ─────────► it is undone (R11) when those before it have ended, and what lies behind it made anew
//!   `ring` lacks a line, or its end that
//!     was acknowledged; Unknown ────────┐
//!   `ring` lacks a line that may have ──┴► what was ever sent is in doubt (G5), the rest goes to another id
//!     had some of that, and was dropped (§2)
//!   … one that had none of it ───────────► all goes to another id
//! ```
//!
//! Of a line of which anything is in doubt, all is that was ever sent, also what went out later than any entry of a line that was
//! dropped: a line that commits move to is named by the first of them, so a copy of this process's store that knew the line from
//! another commit on would count what moves once more, in a line of its own.
//!
//! While a relay gets back what it lost, nothing of a line that it lacks is taken back: it would be missing in what is given. What is in
//! doubt of it is told when the verdict is there, without what was given back whole: that is in the log, whatever was before.
//!
//! Nothing of an Ok or an entry that shows any of this is taken in: it comes again on the next connection, when it is another's, or
//! is in the states that all documents are made anew from in one step (C5). Two processes that hold the same commits see the
//! same rings, one after the other, and what a ring says is durable (R1): so each commit comes to the same in both, and whatever
//! either sends is made on the versions that the log has.
//!
//! The new id is drawn after the connection's fresh entropy was mixed in, so two copies of one memory do not draw the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::pending::Unsaved;
use super::{Doubtful, Output, Replica, WaitError};
use crate::heap::State;
use crate::id::{Offset, ReplicaId, SegmentId, Seq, Uid};
use crate::mutate::{self, Mutation};
use crate::wire::frame::down::{EntryFrame, Fate, Row, Welcome};
use crate::wire::frame::{PART_CREATE, PART_DELTA};

/// After so many connections that another one displaced, a replica takes another id (F4).
const DISPLACED_MAX: u32 = 2;

impl Replica {
    /// The relay knows another commit in that place (R2a, R2b). One that was moved away since is nobody's concern.
    pub(super) fn conflict(&mut self, owner: u64, seq: Seq) {
        let Some(owner) = self.lines.owner(owner) else { return };
        if self.pending.find(owner, seq).is_some() {
            self.fork(owner, seq, true);
        }
    }

    /// The connection was closed in favour of another one that declares an id of this replica (F4). A single time it may be
    /// the relay's late word about an own earlier one.
    pub(super) fn replaced(&mut self) {
        self.disconnected();
        self.lines.displaced += 1;
        if self.lines.displaced >= DISPLACED_MAX {
            self.fork(self.id, Seq(u64::MAX), true);
        }
    }

    /// The rings of an Ok against what this process made: F1, G5, F3, R11, before anything else of it is taken in. What they say
    /// is durable (R1). False: the replica, or a document of it, is another one now, and this Ok is not for it; the next Hello
    /// says so, and is answered with states in which all of it has happened. While `restoring`, what the log lacks is what it
    /// lost: only F1 and F3, and the verdict has the states.
    pub(super) fn compare_rings(&mut self, welcome: &Welcome, restoring: bool) -> bool {
        if !self.compare_dropped(welcome, restoring) {
            return false;
        }
        let mut changed = false;
        for (owner, acked, _) in self.own_lines() {
            let Some(at) = self.lines.place(owner) else { continue };
            let Some((_, rows)) = welcome.ring.iter().find(|(of, _)| *of == at) else {
                if restoring {
                    self.compare_lost(owner, &[]);
                    continue;
                }
                changed |= self.compare_versions(owner, &[]);
                continue;
            };
            // The whole ring: what the log has of a clone is not to pass for own commits with the same numbers [X38, X43].
            if let Some(from) = self.first_foreign(owner, rows).filter(|_| !mutate::on(Mutation::CopyUnseen)) {
                self.fork(owner, from, true);
                return false;
            }
            if restoring {
                self.compare_lost(owner, rows);
                continue;
            }
            // The log has lost the end of the line, and it is too late to give that back: who may not write was not asked for it.
            if rows.last().map_or(Seq(0), |row| row.seq) < acked {
                self.unknown(owner);
                return false;
            }
            changed |= self.compare_versions(owner, rows);
        }
        if changed {
            self.reconnect();
        }
        !changed
    }

    /// The lines that the log knows nothing of (G5). Of one of which nothing was ever acknowledged nothing may have come through. What was
    /// sent of it may also have been there, and the line have been idle for so long that it was dropped (§2): not what was sent
    /// first behind what the log has forgotten, since the line would be there. False: the replica has another id.
    fn compare_dropped(&mut self, welcome: &Welcome, restoring: bool) -> bool {
        let drops = welcome.forgotten > Offset(0) && self.goes_on_in(&welcome.epochs);
        let agreed = self.agrees_with(&welcome.epochs);
        let (mut gone, mut unknown, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, acked, _) in self.own_lines() {
            let Some(at) = self.lines.place(owner) else { continue };
            if welcome.ring.iter().any(|(of, _)| *of == at) {
                continue;
            }
            let is_forgotten =
                |one: &Unsaved| one.commit.owner == owner && one.may_be_forgotten(welcome.forgotten, agreed);
            if self.pending.iter().any(is_forgotten) && !mutate::on(Mutation::ForgetUnsaid) {
                forgotten.push(owner);
            } else if acked == Seq(0) {
                continue;
            }
            if acked > Seq(0) && !drops {
                unknown.push(owner);
            }
            gone.push((owner, Seq(0)));
        }
        if restoring {
            self.pending.is_forgotten(&forgotten);
            return true;
        }
        if gone.is_empty() {
            return true;
        }
        self.in_doubt_in(&gone, |one| {
            let owner = &one.commit.owner;
            one.offered && unknown.contains(owner) || one.offered_at.is_some() && forgotten.contains(owner)
        });
        false
    }

    /// What became of own commits, as the rows of a ring say: refused (R11), or admitted, as they are here or with other bytes
    /// (F3). True: documents have to be made anew for that.
    fn compare_versions(&mut self, owner: ReplicaId, rows: &[Row]) -> bool {
        let oldest = rows.first().map_or(Seq(0), |row| row.seq);
        let (mut voids, mut outdone, mut put_back) = (Vec::new(), Vec::new(), Vec::new());
        for one in self.pending.iter_mut().filter(|one| one.commit.owner == owner) {
            let (seq, uid) = (one.commit.seq, one.commit.uid);
            // What is to be made anew was not admitted as it is here.
            let anew = one.stale.contains(&true);
            one.meets(content_in(rows, oldest, seq));
            one.void = false;
            let (there, same) = match rows.iter().find(|row| row.seq == seq).map(|row| row.fate) {
                Some(Fate::Admitted(hash)) => (true, !anew && one.has_hash(hash)),
                Some(Fate::Void(code)) => {
                    one.void = true;
                    voids.push((seq, uid, code));
                    (false, false)
                }
                // A copy has gone on with the line until the relay forgot what this one was.
                None => (seq < oldest, false),
            };
            one.settled = there && same && !one.outdone;
            if there && !same && !one.outdone {
                outdone.push(seq);
            } else if one.outdone && !there {
                // The log has lost it.
                (one.outdone, one.told) = (false, false);
                put_back.extend(one.segments());
            }
        }
        for seq in &outdone {
            self.give_way(owner, *seq);
        }
        // Behind commits that are not acknowledged it is told when it comes again: were it to end before them, the line would
        // have a hole at a relay that loses this log [X13].
        let mut refused = false;
        for (seq, uid, code) in voids {
            let first = self.pending.iter().find(|one| one.commit.owner == owner);
            if first.is_some_and(|one| one.commit.seq == seq) {
                self.refused(owner, seq, uid, code);
                refused = true;
            }
        }
        for id in put_back {
            self.reload(id, false);
        }
        refused || !outdone.is_empty()
    }

    /// F3 where the log has lost some of it: what it has with other bytes must not be given back beside them, so segments with own
    /// versions are not given back at all, but made anew on the verdict.
    fn compare_lost(&mut self, owner: ReplicaId, rows: &[Row]) {
        let oldest = rows.first().map_or(Seq(0), |row| row.seq);
        let mut outdone = Vec::new();
        for one in self.pending.iter_mut().filter(|one| one.commit.owner == owner && !one.outdone) {
            let anew = one.stale.contains(&true);
            let content = content_in(rows, oldest, one.commit.seq);
            one.meets(content);
            one.forgotten &= content.is_none();
            let (other, same) = match rows.iter().find(|row| row.seq == one.commit.seq).map(|row| row.fate) {
                Some(Fate::Admitted(hash)) => (anew || !one.has_hash(hash), !anew && one.has_hash(hash)),
                Some(Fate::Void(_)) => (false, false),
                None => (one.commit.seq < oldest, false),
            };
            // It is not made anew behind one that gives way: it would be a duplicate, and what follows it builds on nothing.
            one.settled = same;
            outdone.extend(other.then_some(one.commit.seq));
        }
        for seq in outdone {
            self.give_way(owner, seq);
        }
    }

    /// F3: the log's version of an own commit counts. The own one leaves the documents when they are loaded anew.
    fn give_way(&mut self, owner: ReplicaId, seq: Seq) {
        for id in self.pending.give_way(owner, seq) {
            self.reload(id, true);
        }
    }

    /// F1 and F3 for an entry. False: it is not to be applied, and comes again.
    pub(super) fn own_entry(&mut self, owner: ReplicaId, entry: &EntryFrame) -> bool {
        if owner != self.id && self.pending.find(owner, entry.seq).is_none() {
            return true;
        }
        if !self.is_ours(owner, entry.seq, entry.uid) && !mutate::on(Mutation::CopyUnseen) {
            self.fork(owner, entry.seq, true);
            return false;
        }
        let Some(one) = self.pending.iter_mut().find(|one| (one.commit.owner, one.commit.seq) == (owner, entry.seq))
        else {
            return true;
        };
        (one.admitted, one.logged) = (Some(entry.offset), !entry.void);
        if entry.yours || entry.void {
            return true;
        }
        if one.outdone || !self.has_other_bytes(owner, entry) {
            return true;
        }
        // Nothing shows both [X40].
        self.give_way(owner, entry.seq);
        self.reconnect();
        false
    }

    fn has_other_bytes(&self, owner: ReplicaId, entry: &EntryFrame) -> bool {
        let Some(one) = self.pending.find(owner, entry.seq) else { return false };
        let ours = |id: SegmentId| -> Option<&Bytes> {
            one.commit.parts.iter().find(|part| part.segment == id).and_then(|part| part.body.delta())
        };
        let deltas = entry.parts.iter().filter(|part| matches!(part.kind, PART_DELTA | PART_CREATE));
        // D4: without its parts, where a state that was given back has another version of it.
        let named = |id: SegmentId| entry.parts.iter().any(|part| self.resolve(part.segment) == Some(id));
        one.stale.contains(&true)
            || entry.parts.is_empty() && one.segments().any(|id| !named(id))
            || deltas.into_iter().any(|part| self.resolve(part.segment).and_then(ours) != Some(&part.bytes))
    }

    /// F2: the replica takes a fresh id for what comes, and its pending commits of that line from `from` on go to a line of their
    /// own, the same one at every process that holds them. `copied`: since another process uses this one.
    fn fork(&mut self, owner: ReplicaId, from: Seq, copied: bool) {
        self.fork_all(&[(owner, from)], copied);
    }

    /// The same of several lines.
    fn fork_all(&mut self, lines: &[(ReplicaId, Seq)], copied: bool) {
        // What else comes on this connection is about ids that are not this replica's any more.
        self.disconnected();
        let id = self.entropy.replica();
        let (mut count, mut segments) = (0, BTreeSet::new());
        for (owner, from) in lines {
            let from = if mutate::on(Mutation::MoveWholeLine) { Seq(0) } else { *from };
            let (moved, of) = self.pending.move_line(*owner, from);
            count += moved;
            segments.extend(of);
        }
        self.lines.begin(self.id);
        (self.id, self.seq, self.last_uid) = (id, Seq(0), Uid::NONE);
        for id in segments {
            self.reload(id, true);
        }
        self.renew_writers();
        let moved = usize::try_from(count).unwrap_or(usize::MAX);
        self.out.push_back(Output::Forked { id, moved, copied });
    }

    /// Engine identities belong to the id that used them first (R10), and a copy of this process has them too: what is written
    /// from here on has fresh ones.
    fn renew_writers(&mut self) {
        let (mut failed, mut undoing) = (Vec::new(), Vec::new());
        for (index, slot) in self.heap.iter_mut() {
            let writer = self.entropy.writer();
            match &mut slot.state {
                State::Live(segment) => failed.extend(segment.renew(writer).is_err().then_some(slot.id)),
                // Commits made on it meanwhile are made anew.
                State::Loading { before: Some(_), redo, .. } => {
                    *redo = true;
                    undoing.push(index);
                }
                _ => {}
            }
        }
        for index in undoing {
            self.heap.undo(index);
        }
        for id in failed {
            self.reload(id, true);
        }
    }

    /// G5: the relay knows nothing of a line of which commits were acknowledged, so it cannot say which others it had. What was
    /// ever sent is told and not made again; what was not goes to a fresh id.
    pub(super) fn unknown(&mut self, owner: ReplicaId) {
        if self.own_lines().iter().all(|(id, acked, _)| *id != owner || *acked == Seq(0)) {
            // The line has not begun: its first commit was not admitted, and comes again.
            return;
        }
        self.in_doubt_in(&[(owner, Seq(0))], |one| one.offered);
    }

    /// D4: own commits of which a generation that was adopted does not say whether they are in it; G5: those of which the log that was
    /// given back does not. And what lies behind them in their lines.
    pub(super) fn doubt(&mut self) {
        let mut first = BTreeMap::new();
        for (owner, seq) in std::mem::take(&mut self.doubtful) {
            let least = first.entry(owner).or_insert(seq);
            *least = seq.min(*least);
        }
        let lines: Vec<_> = first.into_iter().collect();
        self.in_doubt_in(&lines, |one| one.offered);
    }

    /// What `may_be_there` of these lines, of each from this number on, is told and not made again; the rest goes to fresh ids.
    fn in_doubt_in(&mut self, lines: &[(ReplicaId, Seq)], may_be_there: impl Fn(&Unsaved) -> bool) {
        let (mut in_doubt, mut left) = (Vec::new(), Vec::new());
        for (owner, from) in lines {
            let of_line = self.pending.in_doubt(*owner, *from, &may_be_there);
            if of_line.is_empty() && *owner != self.id && self.pending.iter().all(|one| one.commit.owner != *owner) {
                continue;
            }
            in_doubt.extend(of_line);
            left.push((*owner, *from));
        }
        if left.is_empty() {
            return;
        }
        in_doubt.sort_by_key(|one| one.number);
        if let Some(first) = in_doubt.first() {
            self.fail_flushes(first.number, WaitError::InDoubt);
        }
        let mut told = Vec::new();
        for one in in_doubt {
            let segments: Vec<SegmentId> = one.segments().collect();
            for id in &segments {
                self.forget_creations(*id, one.commit.uid);
                self.reload(*id, true);
            }
            let label = one.commit.label.unwrap_or_default();
            told.push(Doubtful { seq: one.number, label, edits: segments.into_iter().zip(one.edits).collect() });
        }
        if !told.is_empty() {
            self.out.push_back(Output::InDoubt(told));
        }
        self.fork_all(&left, false);
    }

    /// The Hello of this connection does not do any more.
    pub(super) fn reconnect(&mut self) {
        self.disconnected();
        self.out.push_back(Output::Reconnect);
    }

    /// The identities of the commits that are not acknowledged, oldest first, for the books of tests.
    pub fn unsaved_uids(&self) -> Vec<Uid> {
        self.pending.iter().map(|one| one.commit.uid).collect()
    }
}

/// What a log with these rows of a line has of a commit: 0 where they begin behind it.
fn content_in(rows: &[Row], oldest: Seq, seq: Seq) -> Option<u64> {
    match rows.iter().find(|row| row.seq == seq).map(|row| row.fate) {
        Some(Fate::Admitted(hash)) => Some(hash),
        Some(Fate::Void(_)) => None,
        None => (seq < oldest).then_some(0),
    }
}
