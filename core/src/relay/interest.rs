//! Who follows what: per segment the connections that get its entries.
//!
//! A connection may follow a segment that the log does not know (an empty segment of generation 0, C10): it is kept by id
//! until a commit creates it. Next: `deliver.rs`, which reads this for every durable entry.

use std::collections::{BTreeMap, BTreeSet};

use super::port::ConnId;
use crate::id::{SegmentId, SegmentNumber};

#[derive(Debug, Default)]
pub(super) struct Interest {
    followers: BTreeMap<SegmentNumber, BTreeSet<ConnId>>,
    unborn: BTreeMap<SegmentId, BTreeSet<ConnId>>,
    by_conn: BTreeMap<ConnId, Follows>,
}

#[derive(Debug, Default)]
struct Follows {
    numbers: BTreeSet<SegmentNumber>,
    unborn: BTreeSet<SegmentId>,
}

impl Interest {
    /// Follows a segment; by number if the log knows it.
    pub fn follow(&mut self, conn: ConnId, id: SegmentId, number: Option<SegmentNumber>) {
        let follows = self.by_conn.entry(conn).or_default();
        match number {
            Some(number) => {
                follows.numbers.insert(number);
                self.followers.entry(number).or_default().insert(conn);
            }
            None => {
                follows.unborn.insert(id);
                self.unborn.entry(id).or_default().insert(conn);
            }
        }
    }

    /// Stops following it.
    pub fn unfollow(&mut self, conn: ConnId, id: SegmentId, number: Option<SegmentNumber>) {
        if let Some(follows) = self.by_conn.get_mut(&conn) {
            follows.unborn.remove(&id);
            if let Some(number) = number {
                follows.numbers.remove(&number);
            }
        }
        remove(&mut self.unborn, &id, conn);
        if let Some(number) = number {
            remove(&mut self.followers, &number, conn);
        }
    }

    /// A segment has been created: who followed it by id follows it by number.
    pub fn born(&mut self, id: SegmentId, number: SegmentNumber) {
        for conn in self.unborn.remove(&id).unwrap_or_default() {
            let follows = self.by_conn.entry(conn).or_default();
            follows.unborn.remove(&id);
            follows.numbers.insert(number);
            self.followers.entry(number).or_default().insert(conn);
        }
    }

    /// The creation of a segment has been forgotten (it was never written).
    pub fn unborn(&mut self, id: SegmentId, number: SegmentNumber) {
        for conn in self.followers.remove(&number).unwrap_or_default() {
            let follows = self.by_conn.entry(conn).or_default();
            follows.numbers.remove(&number);
            follows.unborn.insert(id);
            self.unborn.entry(id).or_default().insert(conn);
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, conn: ConnId) {
        let Some(follows) = self.by_conn.remove(&conn) else { return };
        for number in follows.numbers {
            remove(&mut self.followers, &number, conn);
        }
        for id in follows.unborn {
            remove(&mut self.unborn, &id, conn);
        }
    }

    /// Whether this connection follows that segment.
    pub fn follows(&self, conn: ConnId, number: SegmentNumber) -> bool {
        self.by_conn.get(&conn).is_some_and(|follows| follows.numbers.contains(&number))
    }

    /// The same for a segment that the log may not know.
    pub fn follows_id(&self, conn: ConnId, id: SegmentId, number: Option<SegmentNumber>) -> bool {
        let follows = self.by_conn.get(&conn);
        follows.is_some_and(|follows| number.map_or(follows.unborn.contains(&id), |n| follows.numbers.contains(&n)))
    }

    /// Who follows a segment.
    pub fn followers(&self, number: SegmentNumber) -> impl Iterator<Item = ConnId> + '_ {
        self.followers.get(&number).into_iter().flatten().copied()
    }

    /// What a connection follows: numbers, and the ids of what the log does not know.
    pub fn followed(&self, conn: ConnId) -> Vec<Result<SegmentNumber, SegmentId>> {
        let follows = self.by_conn.get(&conn);
        let numbers = follows.into_iter().flat_map(|follows| follows.numbers.iter().copied().map(Ok));
        numbers.chain(follows.into_iter().flat_map(|follows| follows.unborn.iter().copied().map(Err))).collect()
    }

    /// How many segments a connection follows.
    pub fn count(&self, conn: ConnId) -> usize {
        self.by_conn.get(&conn).map_or(0, |follows| follows.numbers.len() + follows.unborn.len())
    }
}

fn remove<K: Ord>(map: &mut BTreeMap<K, BTreeSet<ConnId>>, key: &K, conn: ConnId) {
    if let Some(set) = map.get_mut(key) {
        set.remove(&conn);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
