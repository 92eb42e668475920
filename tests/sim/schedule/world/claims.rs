//! Claims in a schedule whose plan has them (S27, R11): programs join a group, claim its keys, and end each with a commit that stands on
//! the claim, as `share()` of the JavaScript package does. Who holds what is reckoned from the frames that reach the relay and leave it.
//!
//! ```text
//!   join ─► ask ─Granted─► root here, and its mark? ─no─► commit on the claim ─Acked─► found
//!            ▲ └─Held─► ask later       └─yes─► release, found       └─Refused, Lost─► ask again
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coheap_core::commit::ClaimOf;
use coheap_core::heap::Index;
use coheap_core::id::{Nonce, ReplicaId, Seq, Uid};
use coheap_core::relay::ConnId;
use coheap_core::replica::{Input, Output, Target};
use coheap_core::wire::frame::down::ClaimState;
use coheap_core::wire::frame::{Down, Up, split};

use super::super::history::{CommitNo, Touch};
use super::{Failure, World, fails};

/// The group of all.
const GROUP: &str = "work";
/// Its keys.
const KEYS: [&str; 4] = ["0", "1", "2", "3"];
/// How long the relay keeps the claims of a lost connection, in milliseconds (`core/src/relay/claims.rs`).
const RESERVED_MS: u64 = 2_500;

/// What a program knows of the group.
#[derive(Debug, Default)]
pub struct Labour {
    /// Empty: not known yet.
    run: String,
    /// It takes part, and has been told so on some connection.
    takes_part: bool,
    joined: bool,
    /// To be said (again) what it holds and knows.
    announce: bool,
    done: BTreeSet<String>,
    /// Grants, and the commits that end them.
    held: BTreeMap<String, (u64, Option<Seq>)>,
    asking: BTreeMap<u64, String>,
}

impl Labour {
    /// What its replica says of the group.
    pub fn hear(&mut self, output: &Output) {
        match output {
            Output::Online { .. } => self.announce = self.takes_part,
            Output::Joined { run, .. } if *run == self.run || self.run.is_empty() => {
                self.run.clone_from(run);
                self.joined = true;
            }
            Output::Group { run, done, .. } if *run == self.run => self.done.extend(done.iter().cloned()),
            Output::Claimed { ticket, grant, state, .. } => {
                let Some(key) = self.asking.remove(ticket) else { return };
                match state {
                    ClaimState::Granted => drop(self.held.insert(key, (*grant, None))),
                    ClaimState::Done => drop(self.done.insert(key)),
                    ClaimState::Held => {}
                }
            }
            Output::Lost { run, key, grant, .. } if *run == self.run => {
                self.held.retain(|held, (of, _)| held != key || of != grant);
            }
            Output::Acked { seq, .. } => {
                let ended = |(_, by): &(u64, Option<Seq>)| by.is_some_and(|by| by <= *seq);
                self.done.extend(self.held.iter().filter(|(_, held)| ended(held)).map(|(key, _)| key.clone()));
                self.held.retain(|_, held| !ended(held));
            }
            Output::Refused { seq, .. } => self.held.retain(|_, (_, by)| *by != Some(*seq)),
            _ => {}
        }
    }

    /// The relay did not answer a claim.
    pub fn declined(&mut self, ticket: u64) -> bool {
        self.asking.remove(&ticket).is_some()
    }
}

/// A commit that ends a key.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    commit: CommitNo,
    claim: ClaimOf,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    by: ReplicaId,
    grant: u64,
    /// On this connection, or its holder is away and it is current until then.
    on: Result<ConnId, u64>,
}

/// Who holds what in one heap.
#[derive(Debug, Default)]
pub(super) struct Grants {
    current: BTreeMap<(String, String), Grant>,
    /// The relay was told that time has passed, then: what has ended since it may not have noticed.
    pub woken: u64,
    /// Commits that end keys.
    pub endings: Vec<Ending>,
}

impl Grants {
    /// The relay's machine is gone, and what it knew.
    pub fn forget(&mut self) {
        self.current.clear();
    }

    /// A message reaches the relay, on this connection.
    pub fn up(&mut self, now: u64, conn: ConnId, by: ReplicaId, message: &Bytes) {
        // What nobody has come back for is free.
        let woken = self.woken;
        self.current.retain(|_, grant| grant.on.map_or_else(|until| until > woken, |_| true));
        for (kind, body) in split(message).into_iter().flatten() {
            match Up::decode(kind, &body) {
                Ok(Some(Up::Join { run, held, done, .. })) => {
                    self.current.retain(|(of, key), grant| {
                        grant.by != by || *of != run || held.iter().any(|(other, _)| other == *key)
                    });
                    // Whoever says so has seen it durable.
                    let is_done = |of: &str, key: &str| of == run && done.iter().any(|done| done == key);
                    self.current.retain(|(of, key), _| !is_done(of, key));
                    for (key, grant) in &held {
                        let asserted = Grant { by, grant, on: Ok(conn) };
                        let known = self.current.entry((run.clone(), key)).or_insert(asserted);
                        let is_over = known.on.is_err_and(|until| until <= now);
                        if is_over || (known.by == by && known.grant == grant) {
                            *known = asserted;
                        }
                    }
                }
                Ok(Some(Up::Leave { run, .. })) => self.current.retain(|(of, _), grant| grant.by != by || *of != run),
                Ok(Some(Up::Release { run, key, grant, .. })) => {
                    self.current.retain(|of, known| {
                        *of != (run.clone(), key.clone()) || known.by != by || known.grant != grant
                    });
                }
                _ => {}
            }
        }
    }

    /// A connection has ended.
    pub fn closed(&mut self, now: u64, conn: ConnId) {
        for grant in self.current.values_mut().filter(|grant| grant.on == Ok(conn)) {
            grant.on = Err(now + RESERVED_MS);
        }
    }

    /// The relay tells members something: nobody is given what another one has.
    pub fn down(&mut self, now: u64, to: &[(ConnId, ReplicaId)], frame: &Down) -> Result<(), Failure> {
        match frame {
            Down::Claimed { run, key, grant, state: ClaimState::Granted, .. } => {
                let &[(conn, by)] = to else { return Ok(()) };
                let of = (run.clone(), key.clone());
                let other = self.current.get(&of).filter(|known| known.by != by && known.on.is_err_and(|at| at > now));
                if let Some(other) = other.or(self.current.get(&of).filter(|known| known.by != by && known.on.is_ok()))
                {
                    return fails("S27", format!("{of:?} is granted to {by:?}, and {other:?} is current"));
                }
                self.current.insert(of, Grant { by, grant: *grant, on: Ok(conn) });
            }
            Down::Lost { run, key, grant, .. } => {
                self.current.retain(|of, known| {
                    let told = to.iter().any(|(_, by)| *by == known.by) && known.grant == *grant;
                    *of != (run.clone(), key.clone()) || !told
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn ending(&self, commit: CommitNo) -> Option<&Ending> {
        self.endings.iter().find(|ending| ending.commit == commit)
    }

    /// A commit has its place in the log: one that stands on a claim stands on a current one of its author's, `own`; or is refused.
    pub fn ends(&self, now: u64, commit: CommitNo, own: &[ReplicaId], void: bool) -> Result<(), Failure> {
        let Some(Ending { claim, .. }) = self.ending(commit) else { return Ok(()) };
        let of = (claim.run.clone(), claim.key.clone());
        let known = self.current.get(&of);
        let is = known.is_some_and(|known| {
            own.contains(&known.by) && known.grant == claim.grant && known.on.map_or_else(|until| until > now, |_| true)
        });
        // Its time has just come, and nobody has told the relay.
        if known.is_some_and(|known| known.on.is_err_and(|until| self.woken < until && until <= now)) {
            return Ok(());
        }
        match (is, void) {
            (true, true) => fails("S27", format!("commit {commit} is refused, and {claim:?} is current")),
            (false, false) => {
                fails("S27", format!("commit {commit} is admitted on {claim:?}, and {known:?} is current"))
            }
            _ => Ok(()),
        }
    }

    /// At the end: every key of a run was ended once at the most. `admitted`: whether a commit is in the log.
    pub fn rest(&self, admitted: impl Fn(CommitNo) -> bool) -> Result<u64, Failure> {
        let mut ended = BTreeMap::new();
        for ending in self.endings.iter().filter(|ending| admitted(ending.commit)) {
            let of = (&ending.claim.run, &ending.claim.key);
            if let Some(before) = ended.insert(of, ending.commit) {
                return fails("S27", format!("{of:?} is ended by commits {before} and {}", ending.commit));
            }
        }
        Ok(ended.len() as u64)
    }
}

impl World {
    /// The next small step of a member.
    pub(super) fn work(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        if !self.plan.claims || process.paused_until > self.at {
            return Ok(());
        }
        if !process.worker.takes_part {
            (process.worker.takes_part, process.worker.announce) = (true, process.online);
        }
        self.announce(at)?;
        let process = &self.processes[at];
        let worker = &process.worker;
        if !worker.joined {
            return Ok(());
        }
        let run = worker.run.clone();
        let ready = worker.held.iter().find(|(_, (_, ending))| ending.is_none());
        if let Some((key, grant)) = ready.map(|(key, (grant, _))| (key.clone(), *grant)) {
            return self.work_on(at, ClaimOf { group: GROUP.to_owned(), run, key, grant }, pick);
        }
        let key = KEYS[pick % KEYS.len()];
        let under_way = worker.held.contains_key(key) || worker.asking.values().any(|asked| asked == key);
        if !process.online || under_way || worker.done.contains(key) {
            return Ok(());
        }
        self.tickets += 1;
        self.processes[at].worker.asking.insert(self.tickets, key.to_owned());
        let (nonce, group) = (Nonce(self.tickets), GROUP.to_owned());
        self.input(at, Input::Forward(Up::Claim { nonce, group, run, key: key.to_owned() }))
    }

    /// A commit has its place in the log, or its refusal has: by the claim that it stands on.
    pub(super) fn stands(&mut self, heap: usize, owner: ReplicaId, uid: Uid, void: bool) -> Result<(), Failure> {
        let late = self.late.iter().map(|(_, link)| link);
        let mut links = self.processes.iter().filter_map(|process| process.link.as_ref()).chain(late);
        let own = links.find(|link| link.own.contains(&owner)).map_or(&[][..], |link| &link.own);
        let of = &self.heaps[heap];
        match of.oracle.by_uid(uid) {
            Some(commit) => of.grants.ends(self.now, commit, own, void),
            None => Ok(()),
        }
    }

    /// Says what a member holds and knows, if it is to; and asks again what it was asking.
    pub(super) fn announce(&mut self, at: usize) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        if !process.online || !std::mem::take(&mut process.worker.announce) {
            return Ok(());
        }
        let worker = &process.worker;
        let (group, run, total) = (GROUP.to_owned(), worker.run.clone(), KEYS.len() as u64);
        let held = worker.held.iter().map(|(key, (grant, _))| (key.clone(), *grant)).collect();
        let done = worker.done.iter().cloned().collect();
        let asking = worker.asking.clone();
        self.input(at, Input::Forward(Up::Join { nonce: Nonce(0), group, run: run.clone(), total, held, done }))?;
        for (ticket, key) in asking {
            let (nonce, group, run) = (Nonce(ticket), GROUP.to_owned(), run.clone());
            self.input(at, Input::Forward(Up::Claim { nonce, group, run, key }))?;
        }
        Ok(())
    }

    /// The next step with a key that is granted: the root says whether it is done already.
    fn work_on(&mut self, at: usize, claim: ClaimOf, pick: usize) -> Result<(), Failure> {
        let (of, process) = (&self.heaps[self.heap_of(at)], &self.processes[at]);
        let Some(root) = process.shown(0) else { return self.load(at, 0) };
        let of_key = |ending: &&Ending| ending.claim.run == claim.run && ending.claim.key == claim.key;
        let mut marks = of.grants.endings.iter().filter(of_key).map(|ending| ending.commit);
        let marked = marks.find(|commit| process.views[&root].marks.contains(*commit));
        if marked.is_some_and(|commit| process.open.contains(&commit)) {
            // Only what is durable counts: its own may be refused yet.
            return Ok(());
        }
        let process = &mut self.processes[at];
        if marked.is_some() || (process.online && pick.is_multiple_of(8)) {
            process.worker.held.remove(&claim.key);
            if marked.is_some() {
                process.worker.done.insert(claim.key.clone());
                process.worker.announce = true;
            }
            let ClaimOf { group, run, key, grant } = claim;
            return self.input(at, Input::Forward(Up::Release { group, run, key, grant }));
        }
        let adds = |index: &Index| i64::from(process.views[index].counter().is_some());
        let other = process.views.keys().find(|index| **index != root && pick.is_multiple_of(2));
        let (mut sections, mut places) = (Vec::new(), Vec::new());
        for index in [root].iter().chain(other) {
            let segment = process.segments[index];
            sections.push((Target::Here(*index), Vec::new()));
            places.push(Touch { segment, adds: adds(index), ..Touch::default() });
        }
        let commit = self.heaps[self.heap_of(at)].oracle.made.len();
        self.processes[at].committed = None;
        self.commit_on(at, sections, places, Some(&claim))?;
        let heap = self.heap_of(at);
        let process = &mut self.processes[at];
        if let (Some(seq), Some(held)) = (process.committed, process.worker.held.get_mut(&claim.key)) {
            held.1 = Some(seq);
        }
        if self.heaps[heap].oracle.made.len() > commit {
            self.heaps[heap].grants.endings.push(Ending { commit, claim });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_ended_twice_is_found() {
        let claim = |key: &str, grant| ClaimOf { group: GROUP.into(), run: "r".into(), key: key.into(), grant };
        let mut grants = Grants::default();
        for (commit, key) in [(0, "0"), (1, "1"), (2, "0")] {
            grants.endings.push(Ending { commit, claim: claim(key, commit as u64) });
        }
        assert_eq!(grants.rest(|commit| commit > 0), Ok(2));
        assert!(grants.rest(|_| true).is_err());
        let (one, other) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        grants.current.insert(("r".into(), "0".into()), Grant { by: one, grant: 2, on: Ok(ConnId(1)) });
        assert_eq!(grants.ends(0, 2, &[one], false), Ok(()));
        assert!(grants.ends(0, 2, &[one], true).is_err(), "it is current");
        assert!(grants.ends(0, 2, &[other], false).is_err(), "it is another's");
        grants.closed(0, ConnId(1));
        assert_eq!(grants.ends(RESERVED_MS, 2, &[one], false), Ok(()), "nobody has told the relay");
        grants.woken = RESERVED_MS;
        assert!(grants.ends(RESERVED_MS, 2, &[one], false).is_err(), "it has waited long enough");
    }
}
