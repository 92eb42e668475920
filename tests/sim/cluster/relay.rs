//! The relay of a [`Cluster`] and what is under it: its process and its disk, what it sends and appends, and what it is told.

use bytes::Bytes;
use coheap_core::id::{Offset, Uid};
use coheap_core::limits;
use coheap_core::log::{LogEntry, StoredCommit};
use coheap_core::relay::{
    Config, ConnId, Input as RelayInput, Merge, Output as RelayOutput, REFUSES_AFTER, Relay, StoredState,
};
use coheap_core::replica::Input;
use coheap_core::segment::merge::{MergeError, Merged, adopt, merge};
use coheap_core::segment::write::Draw;
use coheap_core::time::{Millis, Time};
use coheap_core::wire::code::Code;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::message_of;

use super::Cluster;
use crate::disk::PlainDisk;

impl Cluster {
    /// The relay process starts over what is on the disk.
    pub fn start_relay(&mut self) {
        self.start_relay_admitting_from(Time(0));
    }

    /// The same over a backup that was put back on purpose: it takes restores, and no commits before this time (D7).
    pub fn start_relay_over_a_backup(&mut self, ms: u64) {
        self.start_relay_admitting_from(Time(self.now + ms));
    }

    fn start_relay_admitting_from(&mut self, admits_from: Time) {
        self.lives += 1;
        let config = Config {
            heap: "sim".into(),
            life: self.draws.draw(),
            entropy: self.draws.draw(),
            unix_ms: 0,
            idle: Millis(u64::MAX / 4),
            fold_bytes: Some(u64::MAX),
            refuses_after: REFUSES_AFTER,
            admits_from,
            rolls_from: Time(0),
            retention: Some(Millis(limits::ROW_RETENTION_MS)),
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
        let head = Offset(self.disk.len() as u64);
        self.places.retain(|_, place| *place < head);
        self.grants.forget();
        for at in 0..self.nodes.len() {
            self.disconnect(at);
        }
    }

    /// The relay process dies, and its disk turns out to be an older one, or empty: acknowledged commits are lost.
    pub fn lose_disk(&mut self, disk: PlainDisk) {
        self.change_disk(disk);
        self.start_relay();
    }

    /// The same; no relay begins yet.
    pub fn change_disk(&mut self, disk: PlainDisk) {
        self.kill_relay(0);
        let durable = self.disk.history();
        self.ledger.durable.extend(durable.iter().flat_map(|entry| match entry {
            LogEntry::Commit(commit) => vec![commit.uid],
            LogEntry::Restored(restore) => restore.pending.iter().map(|(_, _, uid)| *uid).collect(),
            _ => Vec::new(),
        }));
        self.disk = disk;
        self.disk.crash(0);
        // An older disk may be of another history than the one that was lost: what was at a place there says nothing here.
        let there = (0..).map(Offset).zip(self.disk.history());
        self.places = there.filter_map(|(place, entry)| Some((uid_of(&entry)?, place))).collect();
        self.ledger.losses += 1;
    }

    pub(super) fn relay_input(&mut self, input: RelayInput) {
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
                    let mut reached = Vec::new();
                    for (at, node) in self.nodes.iter_mut().enumerate() {
                        if node.conn.is_some_and(|conn| to.contains(&conn)) {
                            node.down.push_back(message.clone());
                            reached.push(at);
                        }
                    }
                    self.grants.down(self.now, &reached, &message);
                }
                RelayOutput::Close { conn, code, reason } => {
                    let at = self.nodes.iter().position(|node| node.conn == Some(conn));
                    if let Some(at) = at {
                        let replaced = code == Code::Replaced.close_code() && self.copied + self.restarts > 0;
                        if !replaced {
                            self.nodes[at].problems.push(format!("closed {code}: {reason}"));
                        }
                        // Whoever wants the same id is to have a chance.
                        self.nodes[at].rests_until = self.now + self.entropy.below(60) as u64;
                        self.nodes[at].conn = None;
                        self.nodes[at].up.clear();
                        self.nodes[at].down.clear();
                        self.nodes[at].online = false;
                        self.grants.closed(self.now, at);
                        self.input(at, if replaced { Input::Replaced } else { Input::Disconnected });
                    }
                }
                RelayOutput::Append(append) => {
                    let first = append.end().0 - append.entries.len() as u64;
                    for (place, bytes) in (first..).zip(&append.entries) {
                        let entry = LogEntry::decode(bytes, &mut Reader::new(bytes)).expect("an entry reads back");
                        self.judge(&entry, Offset(place));
                        self.appending.push(entry);
                    }
                    self.appending.clear();
                    self.disk.append(append);
                }
                read @ (RelayOutput::ReadLog { .. }
                | RelayOutput::ReadStates { .. }
                | RelayOutput::Merge { .. }
                | RelayOutput::Examine { .. }
                | RelayOutput::MakeRoll { .. }) => {
                    self.reads.push(read);
                }
                RelayOutput::Rolled { outcome, .. } => match outcome {
                    Ok(_) => self.rolled += 1,
                    Err(why) => *self.not_rolled.entry(format!("{why:?}")).or_default() += 1,
                },
                RelayOutput::Recover => {
                    let recovered = self.disk.recover();
                    self.relay_input(RelayInput::Recovered(recovered));
                }
                RelayOutput::Fold { .. } | RelayOutput::Idle | RelayOutput::Stopped => {}
            }
        }
    }

    /// The relay has given a commit its place, or its refusal: both have a reason that this world knows of.
    fn judge(&mut self, entry: &LogEntry, place: Offset) {
        let can_write = self.judging.and_then(|conn| self.rights.get(&conn)).copied();
        match entry {
            LogEntry::Commit(StoredCommit { uid, .. }) | LogEntry::Void { uid, .. }
                if self.ledger.hostile.contains(uid) =>
            {
                self.places.insert(*uid, place);
            }
            LogEntry::Quarantine(quarantine) => {
                let hostile = |at: Offset| self.ledger.hostile.iter().any(|uid| self.places.get(uid) == Some(&at));
                assert!(quarantine.skipped().all(hostile), "only what is hostile is left out: {quarantine:?}");
                self.left_out += quarantine.skipped().count();
            }
            LogEntry::Commit(commit) => {
                assert_eq!(can_write, Some(true), "a commit is admitted without the right to write");
                assert!(self.places.insert(commit.uid, place).is_none(), "P6: {:?} is admitted twice", commit.uid);
                let known = self.ledger.by_uid(commit.uid);
                assert!(known.is_some() || self.ledger.off, "a known commit");
                if let Some((by, ended)) = known.and_then(|(by, written)| Some((by, written.ended.as_ref()?))) {
                    self.grants.ended(self.now, by, ended);
                }
            }
            LogEntry::Void { uid, code, .. } => {
                let claims = self.ledger.by_uid(*uid).is_some_and(|(_, written)| written.ended.is_some());
                match Code::from_number(*code) {
                    Some(Code::NoRight) => assert_eq!(can_write, Some(false), "refused, and had the right to write"),
                    Some(Code::ClaimLost) => assert!(claims && can_write == Some(true), "a claim that was none"),
                    other => panic!("a commit is refused: {other:?}"),
                }
            }
            LogEntry::Roll(_) => self.is_of_now(entry, place),
            LogEntry::Restored(restore) => {
                assert_eq!(
                    self.rights.get(&self.conn_of(restore.by)),
                    Some(&true),
                    "restored without the right to write"
                );
                self.restores += 1;
            }
        }
    }

    fn conn_of(&self, id: coheap_core::id::ReplicaId) -> ConnId {
        // Copies of a process have its id until one of them finds that out.
        let mut of = self.nodes.iter().filter(|node| node.replica.id() == id);
        of.find_map(|node| node.conn).expect("a restore is taken from who is connected")
    }

    pub(super) fn sync(&mut self) {
        self.sync_some(usize::MAX);
    }

    /// The disk takes the first appends, at most so many, and the relay hears of it.
    pub fn sync_some(&mut self, most: usize) {
        if self.relay.is_some()
            && let Some(upto) = self.disk.sync_some(most)
        {
            self.relay_input(RelayInput::Durable { upto });
        }
    }

    /// The disk had no room for what is not synced, and says so.
    pub fn fill_disk(&mut self) {
        let Some(attempt) = self.relay.as_ref().map(Relay::attempt) else { return };
        self.filled = true;
        self.disk.crash(0);
        let head = Offset(self.disk.len() as u64);
        self.places.retain(|_, place| *place < head);
        self.relay_input(RelayInput::AppendFailed { attempt, full: true });
    }

    /// All that is durable is folded: a replica that is behind gets states, not entries.
    pub fn fold(&mut self) {
        let Some(floor) = self.relay.as_ref().map(Relay::durable) else { return };
        self.disk.fold(floor);
        self.relay_input(RelayInput::Floor { floor });
    }

    /// The store answers the oldest read.
    pub fn answer_read(&mut self) {
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
            RelayOutput::Merge { ticket, engine, segment, position, given, adopts } => {
                let states = self.disk.states(position, segment.as_slice());
                let (snapshot, deltas) = match states.into_iter().next() {
                    Some(StoredState::At { snapshot, deltas, .. }) => (snapshot, deltas),
                    _ => (Bytes::new(), Vec::new()),
                };
                let made = if adopts { adopt(engine, &given) } else { merge(engine, &snapshot, &deltas, &given) };
                let merge = match made {
                    Ok(Merged::Nothing) => Merge::Nothing,
                    Ok(Merged::Adds { state, clocks }) => Merge::Adds { state, clocks },
                    // Two processes have written under one identity.
                    Err(MergeError::Clashes(_)) if self.copied > 0 => Merge::Clashes,
                    Err(error) => panic!("what a replica holds is not merged: {error}"),
                };
                RelayInput::Merged { ticket, merge }
            }
            RelayOutput::Examine { ticket, segment, engine, upto, position } => {
                let examined = self.disk.examine(segment, engine, upto, position);
                RelayInput::Examined { ticket, examined }
            }
            RelayOutput::MakeRoll { ticket, segment, id, engine, position, generation } => {
                let states = self.disk.states(position, &[segment]);
                RelayInput::RollMade { ticket, roll: super::rolls::made(engine, id, states, generation) }
            }
            _ => return,
        };
        self.relay_input(input);
    }
}

/// Of the commit that has this place.
fn uid_of(entry: &LogEntry) -> Option<Uid> {
    match entry {
        LogEntry::Commit(StoredCommit { uid, .. }) => Some(*uid),
        _ => None,
    }
}
