//! Shared work in a [`crate::cluster::Cluster`]: what `share()` of the JavaScript package does with joins, claims and `done()`s,
//! as one small step at a time, and what the relay may never do: have two holders of one key.
//!
//! ```text
//! enter ─► ask ─granted─► load ─► marked? ─no─► commit with done() ─Acked─► found
//!           ▲ └─held─► ask later     └─yes─► found      └─Refused, Lost─► ask again
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{Nonce, ReplicaId, SegmentId, Seq};
use coheap_core::replica::{Input, Output, Section, Target};
use coheap_core::wire::frame::down::ClaimState;
use coheap_core::wire::frame::{Down, Up, split};

use crate::cluster::Cluster;
use crate::ledger::{Ended, TOTAL, total_of};

/// The group of all.
pub const GROUP: &str = "work/default";
/// The keys of the work.
pub const KEYS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7"];
/// How long the relay keeps the claims of a lost connection, in milliseconds (`core/src/relay/claims.rs`).
const RESERVED_MS: u64 = 2_500;

/// The partition of a key: its id is derived, so nobody has to make it.
pub fn partition(key: &str) -> SegmentId {
    SegmentId::derive(SegmentId::ROOT, format!("work {key}").as_bytes())
}

/// Whether a segment is one of them.
pub fn is_partition(id: SegmentId) -> bool {
    KEYS.iter().any(|key| partition(key) == id)
}

#[derive(Clone, Copy, Debug)]
struct Holding {
    grant: u64,
    /// The commit that ends it.
    finishing: Option<Seq>,
}

/// One member.
#[derive(Debug)]
pub struct Sharer {
    /// Its run; empty: not known yet.
    pub run: String,
    joined: bool,
    /// To be said (again) what it holds and knows.
    announce: bool,
    /// Members in the relay's order.
    pub members: Vec<ReplicaId>,
    /// Keys the relay knows to be done.
    pub done: BTreeSet<String>,
    /// Keys that somebody holds.
    pub taken: BTreeSet<String>,
    held: BTreeMap<String, Holding>,
    asking: BTreeMap<u64, String>,
    /// Keys that it knows to be done.
    pub found: BTreeSet<String>,
    busy: BTreeSet<String>,
}

impl Sharer {
    fn new(run: &str, online: bool) -> Sharer {
        Sharer {
            run: run.to_owned(),
            joined: false,
            announce: online,
            members: Vec::new(),
            done: BTreeSet::new(),
            taken: BTreeSet::new(),
            held: BTreeMap::new(),
            asking: BTreeMap::new(),
            found: BTreeSet::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Whether all work is done, as far as this member knows.
    pub fn is_finished(&self) -> bool {
        KEYS.iter().all(|key| self.done.contains(*key) || self.found.contains(*key))
    }

    pub(crate) fn online(&mut self) {
        self.announce = true;
    }

    /// What the relay says of the group.
    pub(crate) fn hear(&mut self, output: &Output) {
        match output {
            Output::Joined { group, run, .. } if group == GROUP && (*run == self.run || self.run.is_empty()) => {
                self.run.clone_from(run);
                self.joined = true;
            }
            Output::Group { group, run, members, done, held } if group == GROUP && *run == self.run => {
                self.members.clone_from(members);
                self.done = done.iter().cloned().collect();
                self.taken = held.iter().map(|(key, _)| key.clone()).collect();
                self.busy.clear();
                let done = &self.done;
                self.held.retain(|key, holding| holding.finishing.is_none() || !done.contains(key));
            }
            Output::Claimed { ticket, key, grant, state, .. } => {
                let Some(asked) = self.asking.remove(ticket) else { return };
                assert_eq!(asked, *key, "an answer is to what was asked");
                match state {
                    ClaimState::Granted => {
                        self.held.insert(asked, Holding { grant: *grant, finishing: None });
                    }
                    ClaimState::Done => {
                        self.found.insert(asked);
                    }
                    ClaimState::Held => {
                        self.busy.insert(asked);
                    }
                }
            }
            Output::Lost { group, run, key, grant } if group == GROUP && *run == self.run => {
                self.held.retain(|held, holding| held != key || holding.grant != *grant);
            }
            _ => {}
        }
    }

    /// Commits up to this one are durable.
    pub(crate) fn acked(&mut self, upto: Seq) {
        let ended = |holding: &Holding| holding.finishing.is_some_and(|seq| seq <= upto);
        let ended: Vec<String> = self.held.iter().filter(|(_, h)| ended(h)).map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.held.remove(&key);
            self.found.insert(key);
        }
    }

    /// A commit was undone.
    pub(crate) fn refused(&mut self, seq: Seq) {
        self.held.retain(|_, holding| holding.finishing != Some(seq));
    }
}

impl Cluster {
    /// A process takes part in the work, under a run's name or the relay's.
    pub fn enter(&mut self, at: usize, run: &str) {
        if self.nodes[at].sharer.is_none() {
            let online = self.nodes[at].online;
            self.nodes[at].sharer = Some(Sharer::new(run, online));
            self.announce(at);
        }
    }

    /// A process that holds something is cut off for longer than its claims wait for it, and does not know it.
    pub fn sleep(&mut self) {
        let holds = |at: &usize| self.nodes[*at].sharer.as_ref().is_some_and(|sharer| !sharer.held.is_empty());
        let Some(at) = (0..self.nodes.len()).find(holds) else { return };
        self.disconnect(at);
        let ms = RESERVED_MS + self.draws.below(2_000) as u64;
        self.pass(ms);
    }

    /// A process takes part no longer; what it has not finished is given back.
    pub fn leave(&mut self, at: usize) {
        let Some(sharer) = self.nodes[at].sharer.take() else { return };
        if !self.nodes[at].online {
            return;
        }
        let run = sharer.run;
        for (key, holding) in sharer.held.iter().filter(|(_, holding)| holding.finishing.is_none()) {
            self.release(at, &run, key, holding.grant);
        }
        self.input(at, Input::Forward(Up::Leave { group: GROUP.to_owned(), run }));
    }

    /// Says what it holds and what it knows, if it is to; and asks again what it was asking.
    pub(crate) fn announce(&mut self, at: usize) {
        let Some(sharer) = self.nodes[at].sharer.as_mut().filter(|sharer| sharer.announce) else { return };
        sharer.announce = false;
        let (group, run) = (GROUP.to_owned(), sharer.run.clone());
        let held = sharer.held.iter().map(|(key, holding)| (key.clone(), holding.grant)).collect();
        let done = sharer.done.union(&sharer.found).cloned().collect();
        let asking = sharer.asking.clone();
        let total = KEYS.len() as u64;
        self.input(at, Input::Forward(Up::Join { nonce: Nonce(0), group, run: run.clone(), total, held, done }));
        for (ticket, key) in asking {
            self.ask(at, ticket, &run, key);
        }
    }

    fn ask(&mut self, at: usize, ticket: u64, run: &str, key: String) {
        let (group, run) = (GROUP.to_owned(), run.to_owned());
        self.input(at, Input::Forward(Up::Claim { nonce: Nonce(ticket), group, run, key }));
    }

    fn release(&mut self, at: usize, run: &str, key: &str, grant: u64) {
        let (group, run, key) = (GROUP.to_owned(), run.to_owned(), key.to_owned());
        self.input(at, Input::Forward(Up::Release { group, run, key, grant }));
    }

    /// The next small step of a member. False: it has nothing to do now.
    pub fn work(&mut self, at: usize) -> bool {
        let node = &self.nodes[at];
        let Some(sharer) = node.sharer.as_ref().filter(|sharer| sharer.joined) else { return false };
        let run = sharer.run.clone();
        let ready = sharer.held.iter().find(|(_, holding)| holding.finishing.is_none());
        if let Some((key, holding)) = ready.map(|(key, holding)| (key.clone(), *holding)) {
            return self.work_on(at, &run, &key, holding.grant);
        }
        if !node.online {
            return false;
        }
        let free = |key: &&&str| {
            let key = **key;
            let over = sharer.done.contains(key) || sharer.found.contains(key);
            let under_way = sharer.held.contains_key(key) || sharer.asking.values().any(|other| other == key);
            let waits =
                sharer.busy.contains(key) || self.ledger.is_ending(at, &run, key) || self.is_rebuilding(at, key);
            !over && !under_way && !waits
        };
        let free: Vec<&str> = KEYS.iter().filter(free).copied().collect();
        if free.is_empty() {
            return false;
        }
        let key = free[self.draws.below(free.len())].to_owned();
        self.tickets += 1;
        let ticket = self.tickets;
        if let Some(sharer) = &mut self.nodes[at].sharer {
            sharer.asking.insert(ticket, key.clone());
        }
        self.ask(at, ticket, &run, key);
        true
    }

    fn is_rebuilding(&self, at: usize, key: &str) -> bool {
        let node = &self.nodes[at];
        node.index(partition(key)).is_some_and(|index| node.rebuilding.contains(&index))
    }

    /// The next step with a key that is granted.
    fn work_on(&mut self, at: usize, run: &str, key: &str, grant: u64) -> bool {
        let id = partition(key);
        let node = &self.nodes[at];
        let Some(index) = node.index(id).filter(|index| node.mirrors.contains_key(index)) else {
            self.input(at, Input::Load(vec![(id, true)]));
            return !self.nodes[at].up.is_empty();
        };
        let mirror = &node.mirrors[&index];
        let marked = mirror.marks.get(GROUP).is_some_and(|marked| marked == run);
        let total = total_of(mirror);
        // Cut off, it goes on with what it holds; what it would say has to wait.
        if !node.online && marked {
            return false;
        }
        if marked || (node.online && self.draws.below(8) == 0) {
            if let Some(sharer) = &mut self.nodes[at].sharer {
                sharer.held.remove(key);
                if marked {
                    sharer.found.insert(key.to_owned());
                    sharer.announce = true;
                }
            }
            self.release(at, run, key, grant);
            self.announce(at);
            return true;
        }
        self.ledger.begin(at);
        self.ledger.ends(Ended { run: run.to_owned(), key: key.to_owned(), grant });
        let mut wishes = vec![Wish::Mark { group: GROUP.to_owned(), run: run.to_owned() }];
        if total.is_none() {
            wishes.push(Wish::Set { object: Handle(0), key: TOTAL.to_owned(), value: Literal::Counter(0.0) });
            self.ledger.makes_total(id);
        }
        let claim =
            coheap_core::commit::ClaimOf { group: GROUP.to_owned(), run: run.to_owned(), key: key.to_owned(), grant };
        let Some(mirror) = self.nodes[at].mirrors.get_mut(&index) else { return false };
        for wish in &wishes {
            mirror.wish(wish);
        }
        let marks = self.ledger.mark(id, mirror, 1.0);
        for wish in &marks {
            mirror.wish(wish);
        }
        wishes.extend(marks);
        let section = Section { target: Target::Here(index), claim: Some(claim), wishes };
        self.input(at, Input::Commit { label: "done".to_owned(), sections: vec![section], size: 0, entropy: 0 });
        let newest = self.ledger.commits.range((at, Seq(0))..(at + 1, Seq(0))).next_back().map(|((_, seq), _)| *seq);
        if let Some(holding) = self.nodes[at].sharer.as_mut().and_then(|sharer| sharer.held.get_mut(key)) {
            holding.finishing = newest;
        }
        true
    }
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    by: usize,
    grant: u64,
    /// Its holder's connection is lost: it is current until then.
    until: Option<u64>,
}

/// Who holds what, reckoned from the frames that pass the relay's door: what it is held to.
#[derive(Debug, Default)]
pub struct Grants {
    current: BTreeMap<(String, String), Grant>,
    /// How many were given.
    pub given: usize,
}

impl Grants {
    /// The relay's process ended, and what it knew.
    pub fn forget(&mut self) {
        self.current.clear();
    }

    /// A message of a member arrives.
    pub fn up(&mut self, by: usize, message: &Bytes) {
        for (kind, body) in split(message).expect("a replica's message") {
            match Up::decode(kind, &body) {
                Ok(Some(Up::Join { group, run, held, .. })) if group == GROUP => {
                    self.current.retain(|(of, key), grant| {
                        grant.by != by || *of != run || held.iter().any(|(other, _)| other == *key)
                    });
                    for (key, grant) in &held {
                        let held = Grant { by, grant, until: None };
                        let known = self.current.entry((run.clone(), key)).or_insert(held);
                        if known.by == by && known.grant == grant {
                            known.until = None;
                        }
                    }
                }
                Ok(Some(Up::Leave { group, run })) if group == GROUP => {
                    self.current.retain(|(of, _), grant| grant.by != by || *of != run);
                }
                Ok(Some(Up::Release { group, run, key, grant })) if group == GROUP => {
                    let of = (run, key);
                    if self.current.get(&of).is_some_and(|known| known.by == by && known.grant == grant) {
                        self.current.remove(&of);
                    }
                }
                _ => {}
            }
        }
    }

    /// The relay tells members something.
    pub fn down(&mut self, now: u64, to: &[usize], message: &Bytes) {
        for (kind, body) in split(message).expect("a relay's message") {
            match Down::decode(kind, &body) {
                Ok(Some(Down::Claimed { run, key, grant, state: ClaimState::Granted, .. })) => {
                    let &[by] = to else { panic!("a grant is for one") };
                    let of = (run, key);
                    let other = self.current.get(&of).filter(|known| known.by != by);
                    let other = other.filter(|known| known.until.is_none_or(|until| until > now));
                    assert!(other.is_none(), "{of:?} is granted to replica {by} while {other:?} is current");
                    self.given += 1;
                    self.current.insert(of, Grant { by, grant, until: None });
                }
                Ok(Some(Down::Lost { run, key, grant, .. })) => {
                    let of = (run, key);
                    let known = self.current.get(&of);
                    if known.is_some_and(|known| to.contains(&known.by) && known.grant == grant) {
                        self.current.remove(&of);
                    }
                }
                _ => {}
            }
        }
    }

    /// A member's connection is lost.
    pub fn closed(&mut self, now: u64, by: usize) {
        for grant in self.current.values_mut().filter(|grant| grant.by == by && grant.until.is_none()) {
            grant.until = Some(now + RESERVED_MS);
        }
    }

    /// A commit with a `done()` was admitted: nobody else may hold the key.
    pub fn ended(&self, now: u64, by: usize, ended: &Ended) {
        let of = (ended.run.clone(), ended.key.clone());
        let other = self.current.get(&of).filter(|known| known.by != by || known.grant != ended.grant);
        let other = other.filter(|known| known.until.is_none_or(|until| until > now));
        assert!(other.is_none(), "replica {by} ends {ended:?} while {other:?} is current");
    }
}
