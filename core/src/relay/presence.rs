//! Presence: what members of a group show of themselves. Relayed, kept in memory while a connection lasts, never stored.
//!
//! Whoever sends a Presence subscribes to its group. A state replaces the one before it; several within [`TELL_EVERY`] are
//! told as one, so that a fast sender costs its listeners a bounded rate.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::port::ConnId;
use super::session::Room;
use crate::id::ReplicaId;
use crate::limits;
use crate::log::AuthorInfo;
use crate::time::{Millis, Time};
use crate::wire::frame::Down;

/// What a Member frame has beside a state, at most about.
const MEMBER_BYTES: usize = 1024;
/// At most one Member frame per member and listener in this time.
const TELL_EVERY: Millis = Millis(50);

/// Who shows something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub replica: ReplicaId,
    pub author: AuthorInfo,
}

#[derive(Debug)]
struct Shown {
    member: Member,
    since: Time,
    state: Bytes,
}

#[derive(Debug, Default)]
struct Group {
    listeners: BTreeSet<ConnId>,
    shown: BTreeMap<ConnId, Shown>,
    /// Changed and not told yet.
    changed: BTreeSet<ConnId>,
    told: Option<Time>,
    /// Per listener those whose state it is to be told as soon as it has room; never empty.
    owed: BTreeMap<ConnId, BTreeSet<ConnId>>,
}

#[derive(Debug, Default)]
pub(super) struct Presence {
    groups: BTreeMap<String, Group>,
    sends: Vec<(Vec<ConnId>, Down)>,
}

impl Presence {
    /// A Presence frame. False if the connection is in too many groups.
    pub fn tell(&mut self, now: Time, conn: ConnId, member: Member, name: &str, clear: bool, state: &[u8]) -> bool {
        let listens = self.groups.get(name).is_some_and(|group| group.listeners.contains(&conn));
        if !listens {
            let in_groups = self.groups.values().filter(|group| group.listeners.contains(&conn)).count();
            if in_groups >= limits::GROUPS_PER_CONN_MAX {
                return false;
            }
        }
        let group = self.groups.entry(name.to_owned()).or_default();
        if group.listeners.insert(conn) && !group.shown.is_empty() {
            group.owed.insert(conn, group.shown.keys().copied().collect());
        }
        if clear {
            if let Some(shown) = group.shown.remove(&conn) {
                group.changed.remove(&conn);
                self.sends.push((others(&group.listeners, conn), frame(name, &shown, now, true)));
            }
            return true;
        }
        // A copy, so that a small state does not hold a large message.
        let state = Bytes::copy_from_slice(state);
        let shown = group.shown.entry(conn).or_insert(Shown { member, since: now, state: Bytes::new() });
        shown.state = state;
        group.changed.insert(conn);
        true
    }

    /// A connection is gone, and what it showed with it.
    pub fn closed(&mut self, conn: ConnId) {
        let sends = &mut self.sends;
        self.groups.retain(|name, group| {
            group.listeners.remove(&conn);
            group.owed.remove(&conn);
            group.changed.remove(&conn);
            if let Some(shown) = group.shown.remove(&conn) {
                let to = others(&group.listeners, conn);
                sends.push((to, frame(name, &shown, shown.since, true)));
            }
            !group.listeners.is_empty()
        });
    }

    /// Tells what has changed, if it is time, each listener as far as it has room.
    pub fn settle(&mut self, now: Time, room: &mut Room<'_>) {
        for (name, group) in &mut self.groups {
            if !group.changed.is_empty() && group.told.is_none_or(|told| now >= told + TELL_EVERY) {
                let changed = std::mem::take(&mut group.changed);
                for listener in &group.listeners {
                    let others = changed.iter().copied().filter(|conn| conn != listener);
                    group.owed.entry(*listener).or_default().extend(others);
                }
                group.told = Some(now);
            }
            let mut tell: BTreeMap<ConnId, Vec<ConnId>> = BTreeMap::new();
            group.owed.retain(|listener, owed| {
                while let Some(conn) = owed.first().copied() {
                    if let Some(shown) = group.shown.get(&conn) {
                        if !room.take(*listener, shown.state.len() + MEMBER_BYTES) {
                            return true;
                        }
                        tell.entry(conn).or_default().push(*listener);
                    }
                    owed.remove(&conn);
                }
                false
            });
            for (conn, to) in tell {
                if let Some(shown) = group.shown.get(&conn) {
                    self.sends.push((to, frame(name, shown, now, false)));
                }
            }
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        self.groups
            .values()
            .filter(|group| !group.changed.is_empty())
            .filter_map(|group| group.told.map(|told| told + TELL_EVERY))
            .min()
    }

    pub fn take_sends(&mut self) -> Vec<(Vec<ConnId>, Down)> {
        std::mem::take(&mut self.sends)
    }
}

fn others(listeners: &BTreeSet<ConnId>, conn: ConnId) -> Vec<ConnId> {
    listeners.iter().copied().filter(|listener| *listener != conn).collect()
}

fn frame(group: &str, shown: &Shown, now: Time, gone: bool) -> Down {
    Down::Member {
        group: group.to_owned(),
        replica: shown.member.replica,
        gone,
        since_ms: now.since(shown.since).0,
        name: shown.member.author.name.clone(),
        subject: shown.member.author.subject.clone(),
        state: if gone { Bytes::new() } else { shown.state.clone() },
    }
}
