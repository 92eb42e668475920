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
//! A restarted relay knows nothing of all this: for [`GRACE`] it grants nothing anew, takes what members assert again, and puts off
//! what stands on a claim: its key may have been granted to another since, and be done, which its members come to say. (Who knows it
//! and stays away for longer is not heard: claims are presence.) A heap without an entry, or one that this process has had open
//! before, has nobody to wait for.

use std::collections::{BTreeMap, BTreeSet};

use super::port::ConnId;
use super::session::Room;
use crate::commit::ClaimOf;
use crate::id::{Nonce, Offset, ReplicaId};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::time::{Millis, Time};
use crate::wire::code::Code;
use crate::wire::frame::Down;
use crate::wire::frame::down::{Asked, ClaimState};
use crate::wire::list::List;

/// After the start: nothing is granted anew. A group's life after its last member left.
const GRACE: Millis = Millis(3_000);
/// How long the claims of a lost connection wait for its replica.
const RESERVED: Millis = Millis(2_500);
/// At most one Group frame per group and member in this time.
const TELL_EVERY: Millis = Millis(50);
/// Bytes of keys that one group may keep: its Group frame has to fit into one message.
const GROUP_KEY_BYTES_MAX: usize = 1 << 20;
/// What a key, a group or a claim costs beside its bytes, about.
const OVERHEAD: usize = 96;

/// A Join, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Join {
    pub nonce: Nonce,
    pub group: String,
    pub run: String,
    pub total: u64,
    pub held: List<(String, u64)>,
    pub done: List<String>,
}

impl Join {
    fn key_bytes(&self) -> usize {
        self.held.iter().map(|(key, _)| key.len() + OVERHEAD).sum::<usize>()
            + self.done.iter().map(|key| key.len() + OVERHEAD).sum::<usize>()
    }

    /// Over this, if every claim it names is another's.
    fn answer_bytes(&self, run: &str) -> usize {
        let names = self.group.len() + run.len() + 16;
        self.held.iter().map(|(key, _)| key.len() + names).sum()
    }
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

/// Whether a commit may stand on a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stands {
    Yes,
    /// Nobody knows before this much time has passed.
    Later(Millis),
    /// The claim is another's, or over.
    No,
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
    /// Connections that had no room for the newest Group frame.
    behind: BTreeSet<ConnId>,
}

#[derive(Clone, Debug)]
enum Deferred {
    Join(Join),
    Claim(Ask),
}

impl Deferred {
    fn asked(&self) -> (Asked, Nonce) {
        match self {
            Deferred::Join(join) => (Asked::Join, join.nonce),
            Deferred::Claim(ask) => (Asked::Claim, ask.nonce),
        }
    }

    fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                Deferred::Join(join) => join.group.len() + join.run.len() + join.key_bytes(),
                Deferred::Claim(ask) => ask.group.len() + ask.run.len() + ask.key.len(),
            }
    }
}

#[derive(Debug)]
pub(super) struct Claims {
    groups: BTreeMap<RunOf, Group>,
    /// Which groups a connection is a member of.
    joined: BTreeMap<ConnId, BTreeSet<RunOf>>,
    /// The run that members get who name none.
    default_runs: BTreeMap<String, String>,
    grace_until: Option<Time>,
    deferred: Vec<(ConnId, ReplicaId, Deferred)>,
    deferred_bytes: usize,
    /// A default run has been named: what was deferred for want of it can be answered.
    learned: bool,
    /// What the groups took when they were last settled, about.
    memory: usize,
    /// Something has changed since then.
    touched: bool,
    /// A member waits for a Group frame until it has room.
    behind: bool,
    /// When time brings something.
    due: Option<Time>,
    /// Claims that end when an entry is durable.
    endings: BTreeMap<Offset, (RunOf, String)>,
    random: u64,
    grants: u64,
    sends: Vec<(Vec<ConnId>, Down)>,
}

/// Default runs are named so that a relay that was restarted knows one when a member names it again.
const DEFAULT_RUN_MARK: char = '~';

impl Claims {
    /// `restarted`: members of an earlier life of the relay may be about to come back.
    pub fn new(entropy: u64, now: Time, restarted: bool) -> Claims {
        let mut random = entropy;
        // Grants start at random, so that one of an earlier life is never mistaken for one of this; 53 bits suit JavaScript.
        let grants = next_random(&mut random) >> 12;
        Claims {
            groups: BTreeMap::new(),
            joined: BTreeMap::new(),
            default_runs: BTreeMap::new(),
            grace_until: restarted.then_some(now + GRACE),
            deferred: Vec::new(),
            deferred_bytes: 0,
            learned: false,
            memory: 0,
            touched: true,
            behind: false,
            due: None,
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

    /// Answered with Joined, now or when the run is known, or with Declined.
    pub fn join(&mut self, now: Time, conn: ConnId, replica: ReplicaId, join: Join) {
        let Some(run) = self.run_for(now, &join.group, &join.run) else {
            return self.defer(conn, replica, Deferred::Join(join));
        };
        let nonce = join.nonce;
        if join.answer_bytes(&run) > limits::JOIN_ANSWER_BYTES_MAX {
            return self.decline(conn, Asked::Join, nonce, Code::TooMany);
        }
        let Some((of, member)) = self.enter(conn, replica, &join.group, &run) else {
            return self.decline(conn, Asked::Join, nonce, Code::TooMany);
        };
        let (group, run) = (of.group.clone(), of.run.clone());
        self.sends.push((vec![conn], Down::Joined { nonce: join.nonce, group, run, member }));
        self.assert_again(conn, replica, &of, &join);
    }

    /// The run a member means; `None` while that cannot be known yet.
    fn run_for(&mut self, now: Time, group: &str, run: &str) -> Option<String> {
        if group.is_empty() && run.is_empty() {
            return Some("-".to_owned());
        }
        if !run.is_empty() {
            return Some(run.to_owned());
        }
        if let Some(run) = self.default_runs.get(group) {
            return Some(run.clone());
        }
        // A member of before the restart may name the default run at any moment.
        if self.in_grace(now) {
            return None;
        }
        Some(format!("{DEFAULT_RUN_MARK}{:016x}", next_random(&mut self.random)))
    }

    fn defer(&mut self, conn: ConnId, replica: ReplicaId, deferred: Deferred) {
        let (bytes, (asked, nonce)) = (deferred.bytes(), deferred.asked());
        if self.deferred_bytes + bytes > limits::DEFERRED_BYTES_MAX {
            return self.decline(conn, asked, nonce, Code::Rate);
        }
        self.touched = true;
        self.deferred_bytes += bytes;
        self.deferred.push((conn, replica, deferred));
    }

    fn decline(&mut self, conn: ConnId, asked: Asked, nonce: Nonce, code: Code) {
        self.sends.push((vec![conn], Down::Declined { asked, nonce, code: u64::from(code.number()) }));
    }

    fn in_grace(&self, now: Time) -> bool {
        self.grace_until.is_some_and(|until| now < until)
    }

    /// Makes the connection a member; its index among them. `None`: it is in too many groups, or there are too many.
    fn enter(&mut self, conn: ConnId, replica: ReplicaId, group: &str, run: &str) -> Option<(RunOf, u64)> {
        let of = RunOf { group: group.to_owned(), run: run.to_owned() };
        if !self.groups.get(&of).is_some_and(|group| group.has(conn)) {
            let joined = self.joined.get(&conn).map_or(0, BTreeSet::len);
            if joined >= limits::GROUPS_PER_CONN_MAX || !self.has_room_for_group(&of) {
                return None;
            }
        }
        // Whoever names a default run, or is given one, makes it known for as long as its group lives.
        if run.starts_with(DEFAULT_RUN_MARK) && !self.default_runs.contains_key(group) {
            self.default_runs.insert(group.to_owned(), run.to_owned());
            self.learned = true;
        }
        self.touched = true;
        self.joined.entry(conn).or_default().insert(of.clone());
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
    fn assert_again(&mut self, conn: ConnId, replica: ReplicaId, of: &RunOf, join: &Join) {
        let room = self.has_room();
        let Some(group) = self.groups.get_mut(of) else { return };
        group.total = group.total.max(join.total);
        for key in &join.done {
            // Whoever says so has seen it durable: a claim of an earlier life that another has asserted again was not current.
            if group.held.get(&key).is_some_and(|held| held.ending) {
                continue;
            }
            if let Some(held) = group.held.get(&key).filter(|held| held.by != replica).copied() {
                let to = group.members.iter().find(|(id, _)| *id == held.by).and_then(|(_, conn)| conn.ok());
                let (group, run) = (of.group.clone(), of.run.clone());
                self.sends
                    .extend(to.map(|to| (vec![to], Down::Lost { group, run, key: key.clone(), grant: held.grant })));
            }
            group.free(&key);
            if room && group.has_room_for(&key) && group.done.insert(key.clone()) {
                group.key_bytes += key.len();
                group.changed = true;
            }
        }
        let asserted: BTreeMap<String, u64> = join.held.iter().collect();
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
                None => room && !group.done.contains(&key) && group.has_room_for(&key),
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
        if let Some(joined) = self.joined.get_mut(&conn) {
            joined.remove(&of);
        }
        if let Some(group) = self.groups.get_mut(&of)
            && let Some(replica) = group.replica_of(conn)
        {
            group.remove(replica, now);
            self.touched = true;
        }
    }

    /// Answered with Claimed, now or after the grace time, or with Declined.
    pub fn claim(&mut self, now: Time, conn: ConnId, replica: ReplicaId, ask: Ask) {
        let of = self.named(&ask.group, &ask.run);
        if self.in_grace(now) {
            return self.defer(conn, replica, Deferred::Claim(ask));
        }
        let Some((of, _)) = self.enter(conn, replica, &of.group, &of.run) else {
            return self.decline(conn, Asked::Claim, ask.nonce, Code::TooMany);
        };
        let (next_grant, room) = (self.grants + 1, self.has_room());
        let Some(group) = self.groups.get_mut(&of) else { return };
        let (grant, state) = if group.done.contains(&ask.key) {
            (0, ClaimState::Done)
        } else {
            match group.held.get(&ask.key) {
                // Asking twice for what one has is answered twice.
                Some(held) if held.by == replica => (held.grant, ClaimState::Granted),
                Some(_) => (0, ClaimState::Held),
                None if !(room && group.has_room_for(&ask.key)) => {
                    return self.decline(conn, Asked::Claim, ask.nonce, Code::TooMany);
                }
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
            self.touched = true;
        }
    }

    /// A connection is gone: its claims wait for a while for its replica to come back.
    pub fn closed(&mut self, conn: ConnId, now: Time) {
        self.deferred.retain(|(of, _, _)| *of != conn);
        self.deferred_bytes = self.deferred.iter().map(|(_, _, deferred)| deferred.bytes()).sum();
        self.touched = true;
        for of in self.joined.remove(&conn).unwrap_or_default() {
            let Some(group) = self.groups.get_mut(&of) else { continue };
            group.behind.remove(&conn);
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

    /// Whether a commit of one of these replicas may stand on this claim. In the grace time that is not known: what was in flight
    /// when the relay was killed comes again before anything else, and so does what was made on a claim that another has had since.
    pub fn stands(&self, now: Time, own: &BTreeSet<ReplicaId>, claim: &ClaimOf) -> Stands {
        let known = self.groups.get(&self.named(&claim.group, &claim.run));
        let held = known.and_then(|group| group.held.get(&claim.key));
        let may = match held {
            Some(held) => own.contains(&held.by) && held.grant == claim.grant && !held.ending,
            None if mutate::on(Mutation::LapsedClaim) => true,
            None => self.in_grace(now) && known.is_none_or(|group| !group.done.contains(&claim.key)),
        };
        match self.grace_until.filter(|until| now < *until) {
            _ if !may => Stands::No,
            Some(until) => Stands::Later(Millis(until.0.saturating_sub(now.0))),
            None => Stands::Yes,
        }
    }

    /// A commit that ends a claim has its place in the log. Where there is no room for one that only the commit has named,
    /// it is not remembered: whoever is granted it next finds in the data that it is done.
    pub fn ending(&mut self, claim: ClaimOf, by: ReplicaId, offset: Offset) {
        let of = self.named(&claim.group, &claim.run);
        let room = self.has_room_for_group(&of);
        if !room && !self.groups.contains_key(&of) {
            return;
        }
        let group = self.groups.entry(of.clone()).or_default();
        self.touched = true;
        let room = room && group.has_room_for(&claim.key);
        match group.held.get_mut(&claim.key) {
            Some(held) => held.ending = true,
            None if !room => return,
            None => group.hold(claim.key.clone(), Held { by, grant: claim.grant, ending: true }),
        }
        self.endings.insert(offset, (of, claim.key));
    }

    /// A commit that ends a claim came again. If this machine does not know its end, it was admitted in an earlier life of the
    /// log and is durable: the key is done, whoever has been granted it since.
    pub fn ended_before(&mut self, claim: ClaimOf) {
        let of = self.named(&claim.group, &claim.run);
        let room = self.has_room_for_group(&of);
        if !room && !self.groups.contains_key(&of) {
            return;
        }
        self.touched = true;
        let group = self.groups.entry(of).or_default();
        if group.held.get(&claim.key).is_some_and(|held| held.ending) || group.done.contains(&claim.key) {
            return;
        }
        group.free(&claim.key);
        if !(room && group.has_room_for(&claim.key)) {
            return;
        }
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
            self.touched = true;
            let Some(group) = self.groups.get_mut(&of) else { continue };
            group.free(&key);
            group.key_bytes += key.len();
            group.done.insert(key);
        }
    }

    /// What would have ended at or above this position goes on: the commits were not written. Whose time was over meanwhile, or who has
    /// left, holds nothing any more.
    pub fn undo(&mut self, durable: Offset) {
        for (of, key) in self.endings.split_off(&durable).into_values() {
            let Some(group) = self.groups.get_mut(&of) else { continue };
            let Some(held) = group.held.get_mut(&key) else { continue };
            held.ending = false;
            let by = held.by;
            if !group.members.iter().any(|(id, _)| *id == by) {
                group.free(&key);
            }
            self.touched = true;
        }
    }

    /// What time brings: the end of the grace, of reservations and of groups; and one Group frame for all changes, to each
    /// member as soon as it has room.
    pub fn settle(&mut self, now: Time, room: &mut Room<'_>) {
        if !self.touched && !self.behind && self.due.is_none_or(|due| now < due) {
            return;
        }
        if self.grace_until.is_some_and(|until| now >= until) {
            self.grace_until = None;
        }
        self.answer_deferred(now);
        (self.touched, self.behind) = (false, false);
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
            // One that only a commit has named so far ends like one whose members have left.
            if group.members.is_empty() && group.empty_since.is_none() {
                group.empty_since = Some(now);
            }
            if group.changed && group.told.is_none_or(|told| now >= told + TELL_EVERY) {
                group.behind = group.members.iter().filter_map(|(_, conn)| conn.ok()).collect();
                group.changed = false;
                group.told = Some(now);
            }
            if !group.behind.is_empty() {
                let bytes = group.frame_bytes();
                let to: Vec<ConnId> = group.behind.iter().copied().filter(|conn| room.take(*conn, bytes)).collect();
                group.behind.retain(|conn| !to.contains(conn));
                self.behind |= !group.behind.is_empty();
                if !to.is_empty() {
                    self.sends.push((to, group.frame(of)));
                }
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
        self.memory = self.groups.iter().map(|(of, group)| of.group.len() + of.run.len() + group.memory()).sum();
        self.due = self.next_due();
    }

    fn answer_deferred(&mut self, now: Time) {
        if self.deferred.is_empty() || (self.in_grace(now) && !self.learned) {
            return;
        }
        self.learned = false;
        self.deferred_bytes = 0;
        for (conn, replica, deferred) in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Join(join) => self.join(now, conn, replica, join),
                Deferred::Claim(ask) => self.claim(now, conn, replica, ask),
            }
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        self.due
    }

    fn next_due(&self) -> Option<Time> {
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

    /// What the claims of this heap take is within bounds.
    fn has_room(&self) -> bool {
        self.memory < limits::CLAIM_MEMORY_MAX
    }

    /// The same, and there may be one more group if this is one.
    fn has_room_for_group(&self, of: &RunOf) -> bool {
        self.has_room() && (self.groups.len() < limits::GROUPS_MAX || self.groups.contains_key(of))
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
        self.key_bytes + key.len() <= GROUP_KEY_BYTES_MAX && self.held.len() + self.done.len() < limits::CLAIMS_MAX
    }

    fn memory(&self) -> usize {
        self.key_bytes + OVERHEAD * (1 + self.members.len() + self.held.len() + self.done.len())
    }

    /// Its Group frame is about as long.
    fn frame_bytes(&self) -> usize {
        self.key_bytes + 16 * self.members.len() + 4 * (self.held.len() + self.done.len())
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
        if let Some(at) = self.members.iter().position(|(id, _)| *id == replica)
            && let (_, Ok(conn)) = self.members.remove(at)
        {
            self.behind.remove(&conn);
        }
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
