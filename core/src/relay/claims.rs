//! Claims (`SEMANTICS` S27): who works on what, first come. Presence, not a lock: no write waits for it, nothing of it is in
//! the log, and it ends with its holder. A commit that carries a `done()` names its grant and is refused if that is no longer
//! current (R11), so a holder that slept too long undoes its result together with its `done()`.
//!
//! ```text
//!            Claim                 commit admitted        durable
//!   free ─────────────► held ─────────────────────► ending ───────► done
//!    ▲  Release, or its   │ connection lost            │ not written
//!    └── time is over ◄── reserved ── Join asserts ──► held
//! ```
//!
//! A restarted relay knows nothing of all this: for [`GRACE`] it grants nothing anew, and takes what members assert again.

use std::collections::{BTreeMap, BTreeSet};

use super::port::ConnId;
use crate::commit::ClaimOf;
use crate::id::{Nonce, Offset, ReplicaId};
use crate::time::{Millis, Time};
use crate::wire::frame::Down;
use crate::wire::frame::down::ClaimState;

/// After the start: nothing is granted anew. A group's life after its last member left.
const GRACE: Millis = Millis(3_000);
/// How long the claims of a lost connection wait for its replica.
const RESERVED: Millis = Millis(2_500);
/// At most one Group frame per group and member in this time.
const TELL_EVERY: Millis = Millis(50);
/// Bytes of keys that one group may keep: its Group frame has to fit into one message.
const GROUP_KEY_BYTES_MAX: usize = 1 << 20;
/// Groups one connection may be a member of.
const GROUPS_PER_CONN_MAX: usize = 64;
/// Claims that wait for the end of the grace time.
const DEFERRED_MAX: usize = 65_536;

/// A Join, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Join {
    pub nonce: Nonce,
    pub group: String,
    pub run: String,
    pub total: u64,
    pub held: Vec<(String, u64)>,
    pub done: Vec<String>,
}

/// A Claim, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub nonce: Nonce,
    pub group: String,
    pub run: String,
    pub key: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct RunOf {
    group: String,
    run: String,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    by: ReplicaId,
    grant: u64,
    /// A commit that ends it is in the log, and not yet durable.
    ending: bool,
}

#[derive(Debug, Default)]
struct Group {
    /// In the order they came; `None`: its connection is lost, its claims are reserved until then.
    members: Vec<(ReplicaId, Result<ConnId, Time>)>,
    held: BTreeMap<String, Held>,
    done: BTreeSet<String>,
    key_bytes: usize,
    total: u64,
    empty_since: Option<Time>,
    changed: bool,
    told: Option<Time>,
}

#[derive(Clone, Debug)]
enum Deferred {
    Join(Join),
    Claim(Ask),
}

#[derive(Debug)]
pub(super) struct Claims {
    groups: BTreeMap<RunOf, Group>,
    /// The run that members get who name none.
    default_runs: BTreeMap<String, String>,
    grace_until: Option<Time>,
    deferred: Vec<(ConnId, ReplicaId, Deferred)>,
    /// Claims that end when an entry is durable.
    endings: BTreeMap<Offset, (RunOf, String)>,
    random: u64,
    grants: u64,
    sends: Vec<(Vec<ConnId>, Down)>,
}

/// Default runs are named so that a relay that was restarted knows one when a member names it again.
const DEFAULT_RUN_MARK: char = '~';

impl Claims {
    pub fn new(entropy: u64, now: Time) -> Claims {
        let mut random = entropy;
        // Grants start at random, so that one of an earlier life is never mistaken for one of this; 53 bits suit JavaScript.
        let grants = next_random(&mut random) >> 12;
        Claims {
            groups: BTreeMap::new(),
            default_runs: BTreeMap::new(),
            grace_until: Some(now + GRACE),
            deferred: Vec::new(),
            endings: BTreeMap::new(),
            random,
            grants,
            sends: Vec::new(),
        }
    }

    /// Nobody is a member of anything.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.deferred.is_empty()
    }

    pub fn join(&mut self, now: Time, conn: ConnId, replica: ReplicaId, join: Join) {
        let Some(run) = self.run_for(now, &join.group, &join.run) else {
            if self.deferred.len() < DEFERRED_MAX {
                self.deferred.push((conn, replica, Deferred::Join(join)));
            }
            return;
        };
        let Some((of, member)) = self.enter(conn, replica, &join.group, &run) else { return };
        let (group, run) = (of.group.clone(), of.run.clone());
        self.sends.push((vec![conn], Down::Joined { nonce: join.nonce, group, run, member }));
        self.assert_again(conn, replica, &of, join);
    }

    /// The run a member means; `None` while that cannot be known yet.
    fn run_for(&mut self, now: Time, group: &str, run: &str) -> Option<String> {
        if group.is_empty() && run.is_empty() {
            return Some("-".to_owned());
        }
        if !run.is_empty() {
            if run.starts_with(DEFAULT_RUN_MARK) && !self.default_runs.contains_key(group) {
                self.default_runs.insert(group.to_owned(), run.to_owned());
            }
            return Some(run.to_owned());
        }
        if let Some(run) = self.default_runs.get(group) {
            return Some(run.clone());
        }
        // A member of before the restart may name the default run at any moment.
        if self.in_grace(now) {
            return None;
        }
        let run = format!("{DEFAULT_RUN_MARK}{:016x}", next_random(&mut self.random));
        self.default_runs.insert(group.to_owned(), run.clone());
        Some(run)
    }

    fn in_grace(&self, now: Time) -> bool {
        self.grace_until.is_some_and(|until| now < until)
    }

    /// Makes the connection a member; its index among them.
    fn enter(&mut self, conn: ConnId, replica: ReplicaId, group: &str, run: &str) -> Option<(RunOf, u64)> {
        let of = RunOf { group: group.to_owned(), run: run.to_owned() };
        let joined = self.groups.values().filter(|group| group.has(conn)).count();
        let known = self.groups.get(&of).is_some_and(|group| group.has(conn));
        if joined >= GROUPS_PER_CONN_MAX && !known {
            return None;
        }
        let group = self.groups.entry(of.clone()).or_default();
        group.empty_since = None;
        let at = match group.members.iter().position(|(id, _)| *id == replica) {
            Some(at) => at,
            None => {
                group.members.push((replica, Ok(conn)));
                group.changed = true;
                group.members.len() - 1
            }
        };
        if let Some(member) = group.members.get_mut(at) {
            group.changed |= member.1 != Ok(conn);
            member.1 = Ok(conn);
        }
        Some((of, at as u64))
    }

    /// Takes what a member says of before: keys that are done, and claims that it goes on with. Its other claims end.
    fn assert_again(&mut self, conn: ConnId, replica: ReplicaId, of: &RunOf, join: Join) {
        let Some(group) = self.groups.get_mut(of) else { return };
        group.total = group.total.max(join.total);
        for key in join.done {
            if !group.held.contains_key(&key) && group.has_room_for(&key) && group.done.insert(key.clone()) {
                group.key_bytes += key.len();
                group.changed = true;
            }
        }
        let asserted: BTreeMap<String, u64> = join.held.into_iter().collect();
        let given_up: Vec<String> = group
            .held
            .iter()
            .filter(|(key, held)| held.by == replica && !held.ending && !asserted.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in given_up {
            group.free(&key);
        }
        for (key, grant) in asserted {
            let mine = match group.held.get(&key) {
                Some(held) => held.by == replica && held.grant == grant,
                None => !group.done.contains(&key) && group.has_room_for(&key),
            };
            if !mine {
                let (group, run) = (of.group.clone(), of.run.clone());
                self.sends.push((vec![conn], Down::Lost { group, run, key, grant }));
            } else if !group.held.contains_key(&key) {
                group.hold(key, Held { by: replica, grant, ending: false });
            }
        }
    }

    pub fn leave(&mut self, now: Time, conn: ConnId, group: &str, run: &str) {
        let of = self.named(group, run);
        if let Some(group) = self.groups.get_mut(&of)
            && let Some(replica) = group.replica_of(conn)
        {
            group.remove(replica, now);
        }
    }

    pub fn claim(&mut self, now: Time, conn: ConnId, replica: ReplicaId, ask: Ask) {
        let of = self.named(&ask.group, &ask.run);
        if self.in_grace(now) {
            if self.deferred.len() < DEFERRED_MAX {
                self.deferred.push((conn, replica, Deferred::Claim(ask)));
            }
            return;
        }
        let Some((of, _)) = self.enter(conn, replica, &of.group, &of.run) else { return };
        let next_grant = self.grants + 1;
        let Some(group) = self.groups.get_mut(&of) else { return };
        let (grant, state) = if group.done.contains(&ask.key) {
            (0, ClaimState::Done)
        } else {
            match group.held.get(&ask.key) {
                // Asking twice for what one has is answered twice.
                Some(held) if held.by == replica => (held.grant, ClaimState::Granted),
                Some(_) => (0, ClaimState::Held),
                None if !group.has_room_for(&ask.key) => (0, ClaimState::Held),
                None => {
                    self.grants = next_grant;
                    group.hold(ask.key.clone(), Held { by: replica, grant: next_grant, ending: false });
                    (next_grant, ClaimState::Granted)
                }
            }
        };
        let answer = Down::Claimed { nonce: ask.nonce, group: of.group, run: of.run, key: ask.key, grant, state };
        self.sends.push((vec![conn], answer));
    }

    pub fn release(&mut self, conn: ConnId, group: &str, run: &str, key: &str, grant: u64) {
        let of = self.named(group, run);
        let Some(group) = self.groups.get_mut(&of) else { return };
        let replica = group.replica_of(conn);
        let current =
            group.held.get(key).is_some_and(|held| Some(held.by) == replica && held.grant == grant && !held.ending);
        if current {
            group.free(key);
        }
    }

    /// A connection is gone: its claims wait for a while for its replica to come back.
    pub fn closed(&mut self, conn: ConnId, now: Time) {
        self.deferred.retain(|(of, _, _)| *of != conn);
        for group in self.groups.values_mut() {
            let Some(replica) = group.replica_of(conn) else { continue };
            if group.held.values().any(|held| held.by == replica) {
                if let Some(member) = group.members.iter_mut().find(|(id, _)| *id == replica) {
                    member.1 = Err(now + RESERVED);
                }
            } else {
                group.remove(replica, now);
            }
        }
    }

    /// Whether a commit of one of these replicas may stand on this claim. In the grace time a commit asserts its claim
    /// again, as a Join would: what was in flight when the relay was killed is sent again before anything else.
    pub fn holds(&mut self, now: Time, own: &BTreeSet<ReplicaId>, claim: &ClaimOf) -> bool {
        let of = self.named(&claim.group, &claim.run);
        let in_grace = self.in_grace(now);
        let known = self.groups.get(&of);
        match known.and_then(|group| group.held.get(&claim.key)) {
            Some(held) => own.contains(&held.by) && held.grant == claim.grant && !held.ending,
            None => in_grace && known.is_none_or(|group| !group.done.contains(&claim.key)),
        }
    }

    /// A commit that ends a claim has its place in the log.
    pub fn ending(&mut self, claim: ClaimOf, by: ReplicaId, offset: Offset) {
        let of = self.named(&claim.group, &claim.run);
        let group = self.groups.entry(of.clone()).or_default();
        match group.held.get_mut(&claim.key) {
            Some(held) => held.ending = true,
            None => group.hold(claim.key.clone(), Held { by, grant: claim.grant, ending: true }),
        }
        self.endings.insert(offset, (of, claim.key));
    }

    /// A commit that ends a claim came again. If this machine does not know its end, it was admitted in an earlier life of the
    /// log and is durable: the key is done, whoever has been granted it since.
    pub fn ended_before(&mut self, claim: ClaimOf) {
        let of = self.named(&claim.group, &claim.run);
        let group = self.groups.entry(of).or_default();
        if group.held.get(&claim.key).is_some_and(|held| held.ending) || group.done.contains(&claim.key) {
            return;
        }
        group.free(&claim.key);
        group.key_bytes += claim.key.len();
        group.done.insert(claim.key);
        group.changed = true;
    }

    /// What ended below this position is done.
    pub fn durable(&mut self, upto: Offset) {
        while let Some(ended) = self.endings.first_entry()
            && *ended.key() < upto
        {
            let (of, key) = ended.remove();
            let Some(group) = self.groups.get_mut(&of) else { continue };
            group.free(&key);
            group.key_bytes += key.len();
            group.done.insert(key);
        }
    }

    /// What would have ended at or above this position goes on: the commits were not written.
    pub fn undo(&mut self, durable: Offset) {
        for (of, key) in self.endings.split_off(&durable).into_values() {
            if let Some(held) = self.groups.get_mut(&of).and_then(|group| group.held.get_mut(&key)) {
                held.ending = false;
            }
        }
    }

    /// What time brings: the end of the grace, of reservations and of groups; and one Group frame for all changes.
    pub fn settle(&mut self, now: Time) {
        if self.grace_until.is_some_and(|until| now >= until) {
            self.grace_until = None;
        }
        self.answer_deferred(now);
        for (of, group) in &mut self.groups {
            let over: Vec<ReplicaId> = group
                .members
                .iter()
                .filter(|(_, conn)| conn.is_err_and(|until| now >= until))
                .map(|(replica, _)| *replica)
                .collect();
            for replica in over {
                group.remove(replica, now);
            }
            if group.changed && group.told.is_none_or(|told| now >= told + TELL_EVERY) {
                let to: Vec<ConnId> = group.members.iter().filter_map(|(_, conn)| conn.ok()).collect();
                if !to.is_empty() {
                    self.sends.push((to, group.frame(of)));
                }
                group.changed = false;
                group.told = Some(now);
            }
        }
        let default_runs = &mut self.default_runs;
        self.groups.retain(|of, group| {
            let over = group.empty_since.is_some_and(|since| now >= since + GRACE);
            if over && default_runs.get(&of.group) == Some(&of.run) {
                default_runs.remove(&of.group);
            }
            !over
        });
    }

    fn answer_deferred(&mut self, now: Time) {
        if self.deferred.is_empty() {
            return;
        }
        for (conn, replica, deferred) in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Join(join) => self.join(now, conn, replica, join),
                Deferred::Claim(ask) => self.claim(now, conn, replica, ask),
            }
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        let grace = self.grace_until.filter(|_| !self.deferred.is_empty());
        let groups = self.groups.values().flat_map(|group| {
            let reserved = group.members.iter().filter_map(|(_, conn)| conn.err());
            let end = group.empty_since.map(|since| since + GRACE);
            let tell = group.told.filter(|_| group.changed).map(|told| told + TELL_EVERY);
            reserved.chain(end).chain(tell)
        });
        groups.chain(grace).min()
    }

    pub fn take_sends(&mut self) -> Vec<(Vec<ConnId>, Down)> {
        std::mem::take(&mut self.sends)
    }

    /// The group a frame names: with an empty run the default one, without a group's name the one for single objects.
    fn named(&self, group: &str, run: &str) -> RunOf {
        let run = match (group, run) {
            ("", "") => "-".to_owned(),
            (group, "") => self.default_runs.get(group).cloned().unwrap_or_default(),
            (_, run) => run.to_owned(),
        };
        RunOf { group: group.to_owned(), run }
    }
}

impl Group {
    fn has(&self, conn: ConnId) -> bool {
        self.replica_of(conn).is_some()
    }

    fn replica_of(&self, conn: ConnId) -> Option<ReplicaId> {
        self.members.iter().find(|(_, of)| *of == Ok(conn)).map(|(replica, _)| *replica)
    }

    fn has_room_for(&self, key: &str) -> bool {
        self.key_bytes + key.len() <= GROUP_KEY_BYTES_MAX
            && self.held.len() + self.done.len() < crate::limits::CLAIMS_MAX
    }

    fn hold(&mut self, key: String, held: Held) {
        self.key_bytes += key.len();
        self.held.insert(key, held);
        self.changed = true;
    }

    fn free(&mut self, key: &str) {
        if self.held.remove(key).is_some() {
            self.key_bytes = self.key_bytes.saturating_sub(key.len());
            self.changed = true;
        }
    }

    /// A member is gone for good, and its claims with it; one whose commit is under way stays until that is decided.
    fn remove(&mut self, replica: ReplicaId, now: Time) {
        self.members.retain(|(id, _)| *id != replica);
        let freed: Vec<String> = self
            .held
            .iter()
            .filter(|(_, held)| held.by == replica && !held.ending)
            .map(|(key, _)| key.clone())
            .collect();
        for key in freed {
            self.free(&key);
        }
        self.changed = true;
        if self.members.is_empty() {
            self.empty_since = Some(now);
        }
    }

    fn frame(&self, of: &RunOf) -> Down {
        let index = |replica: ReplicaId| self.members.iter().position(|(id, _)| *id == replica);
        Down::Group {
            group: of.group.clone(),
            run: of.run.clone(),
            members: self.members.iter().map(|(replica, _)| *replica).collect(),
            done: self.done.iter().cloned().collect(),
            held: self.held.iter().filter_map(|(key, held)| Some((key.clone(), index(held.by)? as u64))).collect(),
        }
    }
}

/// splitmix64: run names and the first grant need to differ, not to be secret.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
