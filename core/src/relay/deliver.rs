//! What connections are sent of the log, and when: THE place where a commit becomes visible to others and is acknowledged.
//!
//! Only what is durable is delivered, in offset order, filtered to what a connection follows (R4); what is owed to it (Ack,
//! Refused) comes behind every entry up to that position (R3, R11). A connection whose cursor is at `durable` is *live*: the
//! frames of a newly durable entry are encoded once and shared by all live ones that see the same parts of it. One that has
//! fallen behind is *pumped*: it gets entries from memory or from the store while it has room, and holds up nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::port::ConnId;
use super::restore::added_to;
use super::session::{Conn, Owed};
use super::timers::Timer;
use super::{FOLD_DELTAS, Output, Relay, Ticket};
use crate::guard::RELAY;
use crate::id::{Offset, ReplicaId, SegmentNumber};
use crate::limits;
use crate::log::{LogEntry, StoredCommit, StoredPart, StoredRestore};
use crate::mutate::{self, Mutation};
use crate::wire::frame::down::EntryFrame;
use crate::wire::frame::{Chunk, Down, PART_CREATE, PART_DELTA, PartFrame, SegRef};
use crate::wire::list::List;

/// Bytes of log read for one connection in one go.
const REPLAY_READ_BYTES: usize = 256 * 1024;

/// Which parts of an entry a connection sees: what frames are shared by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum View {
    /// Every part.
    Whole,
    /// Admitted on this connection: none.
    Yours,
    /// These, by their place in the commit.
    Parts(Vec<usize>),
}

impl Relay {
    /// The disk has followed: entries go out, then what is owed.
    pub(super) fn now_durable(&mut self, upto: Offset) {
        let from = self.log.durable;
        self.log.set_durable(upto);
        self.claims.durable(self.log.durable);
        for offset in from.0..self.log.durable.0 {
            let offset = Offset(offset);
            let Some(entry) = self.log.entry(offset).cloned() else { continue };
            match &*entry {
                LogEntry::Restored(_) | LogEntry::Roll(_) => self.fall_behind(offset, added_to(&entry)),
                LogEntry::Quarantine(quarantine) => {
                    self.log.skip(quarantine);
                    self.fall_behind(offset, std::iter::once(quarantine.segment));
                }
                _ => self.deliver_live(offset, &entry),
            }
            self.want_fold(&entry);
        }
        let durable = self.log.durable;
        let mut behind = Vec::new();
        for id in &self.live {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.cursor = durable;
            if conn.told < durable {
                conn.told = durable;
                behind.push(*id);
            }
        }
        // One Advance for all that passed it by.
        let mut frames = Vec::new();
        if !mutate::on(Mutation::NoAdvance) {
            Down::Advance { position: durable }.encode(&mut frames);
        }
        self.send_all(behind, Bytes::from(frames));
        for id in self.live.iter().copied().collect::<Vec<_>>() {
            self.settle(id);
        }
        self.log.trim();
        self.pump_behind();
        self.restored_durable();
        self.reports_durable();
        self.next_roll();
        self.release_waiting();
        self.next_fold();
    }

    /// Those that are behind but have room wait for nothing but the disk.
    pub(super) fn pump_behind(&mut self) {
        let durable = self.log.durable;
        let ready: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(id, conn)| conn.takes_entries() && conn.cursor < durable && !self.live.contains(*id))
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.pump(id);
        }
    }

    /// A Restored, or a Roll, may be long, and entries wait behind it; of a Quarantine there are few: whom one concerns is pumped
    /// from here on.
    fn fall_behind(&mut self, offset: Offset, segments: impl Iterator<Item = SegmentNumber>) {
        for segment in segments {
            for id in self.interest.followers(segment) {
                if self.live.remove(&id)
                    && let Some(conn) = self.conns.get_mut(&id)
                {
                    conn.cursor = if mutate::on(Mutation::RollPassedBy) { offset.next() } else { offset };
                }
            }
        }
    }

    /// One newly durable entry, to the live connections it concerns.
    fn deliver_live(&mut self, offset: Offset, entry: &Arc<LogEntry>) {
        let owner = owner_of(entry);
        let mut concerned: BTreeSet<ConnId> = self.ids.get(&owner).copied().into_iter().collect();
        // Read once: the parts lie in the entry's bytes, and there may be many connections.
        let touched = touched(entry);
        for segment in &touched {
            concerned.extend(self.interest.followers(*segment));
        }
        let mut groups: BTreeMap<View, Vec<ConnId>> = BTreeMap::new();
        for id in concerned {
            if !self.live.contains(&id) || (mutate::on(Mutation::SkipEntry) && offset.0 % 16 == 15) {
                continue;
            }
            let view = self.view(id, offset, entry, &touched);
            self.declare(id, owner, &touched, &view);
            groups.entry(view).or_default().push(id);
        }
        let author = self.author_number(owner);
        for (view, to) in groups {
            let frames = self.entry_frames(offset, entry, &view, author);
            for id in &to {
                let Some(conn) = self.conns.get_mut(id) else { continue };
                conn.cursor = offset.next();
                conn.told = offset.next();
                conn.mine.remove(&offset);
            }
            self.send_all(to.clone(), frames);
            for id in to {
                // Out of room: from here on it is pumped.
                if self.conns.get(&id).is_some_and(|conn| !conn.has_room()) {
                    self.live.remove(&id);
                    self.settle(id);
                }
            }
        }
    }

    /// What a connection sees of an entry that touches these segments.
    fn view(&self, id: ConnId, offset: Offset, entry: &LogEntry, touched: &[SegmentNumber]) -> View {
        let LogEntry::Commit(commit) = entry else { return View::Whole };
        if mutate::on(Mutation::SplitCommit) && touched.len() > 1 {
            return View::Parts(vec![0]);
        }
        if mutate::on(Mutation::OwnPartsLeftOut) && self.conns.get(&id).is_some_and(|conn| conn.owns(commit.owner)) {
            return View::Yours;
        }
        // R5: the parts are left out only if it was admitted on this very connection [X37].
        if self.conns.get(&id).is_some_and(|conn| conn.mine.contains(&offset)) {
            return View::Yours;
        }
        // R12: what is left out is not sent any more.
        let sees = |segment: SegmentNumber| self.interest.follows(id, segment) && !self.log.skips(segment, offset);
        if touched.iter().all(|segment| sees(*segment)) {
            return View::Whole;
        }
        View::Parts((0..).zip(touched).filter(|(_, segment)| sees(**segment)).map(|(at, _)| at).collect())
    }

    /// Declares the numbers that an entry's frame will use, to one connection, if they are new to it.
    fn declare(&mut self, id: ConnId, owner: ReplicaId, touched: &[SegmentNumber], view: &View) {
        let number = self.author_number(owner);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let mut frames = Vec::new();
        let mut names = Vec::new();
        for (at, segment) in touched.iter().enumerate() {
            let used = match view {
                // The author learns the numbers of what it created: shorter frames from here on.
                View::Whole | View::Yours => true,
                View::Parts(seen) => seen.contains(&at),
            };
            if (used || mutate::on(Mutation::NamedUnseen)) && conn.named.insert(*segment) {
                names.extend(self.log.segment(*segment).filter(|_| used).map(|row| (*segment, row.id)));
            }
        }
        if !names.is_empty() {
            Down::Names(names).encode(&mut frames);
        }
        if conn.authors.insert(number) {
            let author = self.log.line(owner).map(|line| line.author.clone()).unwrap_or_default();
            let (name, subject) = (author.name, author.subject);
            Down::Author { number, replica: owner, name, subject }.encode(&mut frames);
        }
        self.send_bytes(id, Bytes::from(frames));
    }

    fn author_number(&mut self, owner: ReplicaId) -> u64 {
        let next = self.authors.len() as u64;
        *self.authors.entry(owner).or_insert(next)
    }

    fn entry_frames(&self, offset: Offset, entry: &LogEntry, view: &View, author: u64) -> Bytes {
        let mut frame = EntryFrame {
            offset,
            yours: *view == View::Yours,
            void: false,
            author,
            seq: crate::id::Seq(0),
            uid: crate::id::Uid::NONE,
            label: None,
            parts: List::new(),
        };
        match entry {
            LogEntry::Void { seq, uid, .. } => {
                (frame.seq, frame.uid, frame.void) = (*seq, *uid, true);
            }
            // They have frames of their own.
            LogEntry::Restored(_) | LogEntry::Roll(_) | LogEntry::Quarantine(_) => {}
            LogEntry::Commit(commit) => {
                (frame.seq, frame.uid) = (commit.seq, commit.uid);
                frame.label.clone_from(&commit.label);
                frame.parts = match view {
                    View::Yours => List::new(),
                    View::Whole => commit.parts.iter().map(part_frame).collect(),
                    View::Parts(seen) => {
                        let parts = (0..).zip(&commit.parts).filter(|(at, _)| seen.binary_search(at).is_ok());
                        parts.map(|(_, part)| part_frame(part)).collect()
                    }
                };
            }
        }
        let mut frames = Vec::new();
        Down::Entry(frame).encode(&mut frames);
        Bytes::from(frames)
    }

    /// Sends what a connection is owed at the position its stream has reached.
    pub(super) fn settle(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.streaming() {
            return;
        }
        let position = if mutate::on(Mutation::AckBeforeSync) { self.log.head } else { conn.cursor };
        let mut frames = Vec::new();
        let mut acks = BTreeMap::new();
        while let Some((at, owed)) = conn.owed.front().copied()
            && at <= position
        {
            conn.owed.pop_front();
            match owed {
                Owed::Ack { owner, seq } => {
                    let newest = acks.entry(owner).or_insert(seq);
                    *newest = seq.max(*newest);
                }
                Owed::Refused { owner, seq, uid, code } => {
                    flush_acks(&mut acks, position, &mut frames);
                    Down::Refused { owner, seq, uid, code, position }.encode(&mut frames);
                }
                Owed::Rebase { owner, seq, segment, generation } => {
                    flush_acks(&mut acks, position, &mut frames);
                    Down::Rebase { owner, seq, segment: SegRef::Id(segment), generation }.encode(&mut frames);
                }
                Owed::Head { nonce } => {
                    flush_acks(&mut acks, position, &mut frames);
                    Down::SyncAt { nonce, position: at }.encode(&mut frames);
                }
            }
        }
        flush_acks(&mut acks, position, &mut frames);
        if !frames.is_empty() {
            // An Ack of a position is never ahead of what the replica knows the stream has reached.
            self.tell_position(id);
            self.send_bytes(id, Bytes::from(frames));
        }
    }

    /// Makes sure the replica knows how far its stream is.
    pub(super) fn tell_position(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.told < conn.cursor {
            conn.told = conn.cursor;
            let position = conn.cursor;
            self.send(id, &Down::Advance { position });
        }
    }

    /// So many bytes have left: there may be room again.
    pub(super) fn written(&mut self, id: ConnId, bytes: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.in_flight = conn.in_flight.saturating_sub(bytes);
        if conn.has_room() && conn.slow_since.take().is_some() {
            self.timers.clear(Timer::Slow(id));
        }
        self.pump(id);
    }

    /// Sends what waits for this connection, as far as there is room: pieces of long messages and entries, in turn.
    pub(super) fn pump(&mut self, id: ConnId) {
        let durable = self.log.durable;
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if !conn.streaming() || !conn.has_room() {
                return;
            }
            let piece = next_piece(conn);
            let moved = piece.is_some();
            if let Some(piece) = piece {
                self.send(id, &Down::Chunk(piece));
            }
            if !self.pump_entry(id) && !moved {
                break;
            }
        }
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.takes_entries() && conn.cursor == durable && !self.live.contains(&id) {
            self.live.insert(id);
            self.tell_position(id);
            self.settle(id);
        }
        self.pump_loads(id);
    }

    /// The next entry for a connection that is behind. False: there is none now.
    fn pump_entry(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        if !conn.takes_entries() || conn.cursor >= self.log.durable || conn.replaying.is_some() {
            return false;
        }
        let offset = conn.cursor;
        let entry = match self.log.entry(offset) {
            Some(entry) => {
                conn.replay.clear();
                entry.clone()
            }
            None => match conn.replay.pop_front() {
                Some((at, entry)) if at == offset => Arc::new(entry),
                _ => {
                    conn.replay.clear();
                    self.read_log(id, offset);
                    return false;
                }
            },
        };
        let (owner, touched) = (owner_of(&entry), touched(&entry));
        let shows = |segment: &SegmentNumber| !self.log.skips(*segment, offset) && self.interest.follows(id, *segment);
        let concerns = conn.owns(owner) || touched.iter().any(shows);
        if begins_generation(&entry) {
            // R11: a refusal is handled before G3.
            self.settle(id);
        }
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        conn.cursor = offset.next();
        if let LogEntry::Restored(restore) = &*entry {
            self.send_restored(id, offset, restore);
        } else if let LogEntry::Roll(roll) = &*entry {
            self.send_roll(id, offset, roll);
        } else if let LogEntry::Quarantine(quarantine) = &*entry {
            self.send_quarantine(id, offset, quarantine);
        } else if concerns {
            let view = self.view(id, offset, &entry, &touched);
            self.declare(id, owner, &touched, &view);
            let author = self.author_number(owner);
            let frames = self.entry_frames(offset, &entry, &view, author);
            self.send_bytes(id, frames);
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.told = offset.next();
                conn.mine.remove(&offset);
            }
        }
        // What is owed keeps its place even while the stream is behind.
        if self.conns.get(&id).is_some_and(|conn| conn.owed.front().is_some_and(|(at, _)| *at <= conn.cursor)) {
            self.settle(id);
        }
        true
    }

    fn read_log(&mut self, id: ConnId, from: Offset) {
        let ticket = self.ticket(id);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.replaying = Some(ticket);
        }
        let upto = self.log.durable;
        self.out.push_back(Output::ReadLog { ticket, from, upto, bytes_max: REPLAY_READ_BYTES });
    }

    /// A piece of the log is here.
    pub(super) fn log_read(&mut self, ticket: Ticket, mut entries: Vec<(Offset, LogEntry)>) {
        if mutate::on(Mutation::ReplayOutOfOrder)
            && let [.., (_, one), (_, other)] = &mut entries[..]
        {
            std::mem::swap(one, other);
        }
        let Some(id) = self.reads.remove(&ticket) else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.replaying = None;
        if entries.first().is_none_or(|(offset, _)| *offset != conn.cursor) {
            return self.close(id, crate::wire::code::Code::StoreFailed);
        }
        conn.replay = entries.into();
        self.pump(id);
    }

    /// Notes the segments whose deltas have become too many.
    fn want_fold(&mut self, entry: &LogEntry) {
        let Some(bytes_max) = self.config.fold_bytes else { return };
        for number in touched(entry).into_iter().chain(added_to(entry)) {
            let under_way = self.folding.is_some_and(|(segment, _)| segment == number);
            if !under_way && self.log.wants_fold(number, bytes_max, FOLD_DELTAS) {
                self.fold_wanted.insert(number);
            }
        }
    }
}

/// Whether a segment is of another generation from here on.
pub(super) fn begins_generation(entry: &LogEntry) -> bool {
    match entry {
        LogEntry::Roll(_) => true,
        LogEntry::Restored(restore) => restore.segments.iter().any(|part| part.adopts),
        LogEntry::Commit(_) | LogEntry::Void { .. } | LogEntry::Quarantine(_) => false,
    }
}

/// The segments that a commit has parts of, in their order; none of any other entry.
fn touched(entry: &LogEntry) -> Vec<SegmentNumber> {
    match entry {
        LogEntry::Commit(commit) => commit.parts.iter().map(|part| part.segment).collect(),
        LogEntry::Void { .. } | LogEntry::Restored(_) | LogEntry::Roll(_) | LogEntry::Quarantine(_) => Vec::new(),
    }
}

fn owner_of(entry: &LogEntry) -> ReplicaId {
    match entry {
        LogEntry::Commit(StoredCommit { owner, .. }) | LogEntry::Void { owner, .. } => *owner,
        LogEntry::Restored(StoredRestore { by, .. }) => *by,
        // Nobody's; they have frames of their own.
        LogEntry::Roll(_) | LogEntry::Quarantine(_) => RELAY,
    }
}

/// The first delta of a segment in the log creates it, whatever its author sent; a second one that says so is a delta.
fn part_frame(part: StoredPart) -> PartFrame {
    let (kind, create) = match part.creates {
        Some(created) if matches!(part.kind, PART_DELTA | PART_CREATE) => {
            (PART_CREATE, Some((created.engine, created.layout)))
        }
        _ if part.kind == PART_CREATE => (PART_DELTA, None),
        _ => (part.kind, None),
    };
    PartFrame { kind, segment: SegRef::Number(part.segment), generation: part.generation, create, bytes: part.bytes }
}

fn flush_acks(acks: &mut BTreeMap<u64, crate::id::Seq>, position: Offset, frames: &mut Vec<u8>) {
    for (owner, seq) in std::mem::take(acks) {
        Down::Ack { owner, seq, position }.encode(frames);
    }
}

fn next_piece(conn: &mut Conn) -> Option<Chunk> {
    let long = conn.long.front_mut()?;
    let bytes = long.rest.split_to(long.rest.len().min(limits::CHUNK_BYTES_MAX));
    let (stream, last) = (long.stream, long.rest.is_empty());
    if last {
        conn.long.pop_front();
    }
    Some(Chunk { stream, last, bytes })
}
