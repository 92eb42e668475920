//! Several replicas around one relay: the types that ship, with a simulated network, disk and processes between them.
//!
//! One seed decides everything: who edits what, which message arrives next, when the disk syncs, which connection breaks,
//! when the relay dies. [`Cluster::settle`] then lets everything arrive, and the invariants must hold. A failure prints its seed.
//! What happens to processes themselves is in `cluster/processes.rs`, the relay and its disk in `cluster/relay.rs`, new
//! generations of segments in `cluster/rolls.rs`, what strangers do in `cluster/harm.rs`.

mod harm;
mod processes;
mod relay;
mod rolls;

use std::collections::BTreeMap;

use coheap_core::commit::{ClaimOf, EngineKind};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{ObjectId, Offset, SegmentId, Seq, Uid};
use coheap_core::log::LogEntry;
use coheap_core::relay::{ConnId, Input as RelayInput, Output as RelayOutput, Relay};
use coheap_core::replica::{Input, Output, Section, Stats, Target, WaitKind};
use coheap_core::segment::write::Draw;
use coheap_core::value::{Ref, Value};

use self::harm::{HOSTILE, Stranger};
use crate::Draws;
use crate::disk::PlainDisk;
use crate::ledger::{Ended, Ledger, Outcome, is_kept};
use crate::mirror::Mirror;
use crate::node::{Node, Told};
use crate::program::Op;
use crate::sharer::{Grants, is_partition};

/// Timers further off than this are for worlds without end: nobody waits for them.
const FAR_MS: u64 = 3_600_000;

/// The world.
#[derive(Debug)]
pub struct Cluster {
    /// Where every choice comes from.
    pub draws: Draws,
    now: u64,
    relay: Option<Relay>,
    /// What the relay writes to.
    pub disk: PlainDisk,
    /// What the relay wants to read, the oldest first.
    pub(crate) reads: Vec<RelayOutput>,
    /// The processes.
    pub nodes: Vec<Node>,
    conns: u64,
    /// Segments that exist, or would if their commits had stood.
    pub segments: Vec<SegmentId>,
    lives: u64,
    /// How often a replica went on in another instance.
    pub moves: usize,
    /// Replicas whose instance was lost.
    pub losses: usize,
    /// What every commit has to come to.
    pub ledger: Ledger,
    /// Commits made while another process had commits that their author had not seen.
    pub concurrent: usize,
    /// What the programs did, for the tally.
    pub ops: BTreeMap<Op, usize>,
    /// The places that the relay gave to commits, as of the last time.
    places: BTreeMap<Uid, Offset>,
    /// Who holds what of the shared work.
    pub grants: Grants,
    /// Connections open without the right to write, now and then.
    pub rights_change: bool,
    rights: BTreeMap<ConnId, bool>,
    /// Processes are copied, and start again over their stores, now and then.
    pub copies: bool,
    /// How many processes were copied.
    pub copied: usize,
    /// How many processes went on from a store.
    pub restarts: usize,
    /// The entropy of the operating system, apart from the choices.
    entropy: Draws,
    /// Whose message the relay is working at.
    judging: Option<ConnId>,
    pub(crate) tickets: u64,
    /// Nothing is evicted.
    pub keeps: bool,
    /// How often a replica gave back what the log had lost.
    pub restores: usize,
    /// The disk has had no room: replicas are told that.
    pub filled: bool,
    /// Somebody commits what no engine takes in, now and then.
    pub harms: bool,
    /// Who has done so in a trace, and may go on.
    stranger: Option<Stranger>,
    /// Programs have made a segment that others may make with another engine (C10): who comes second makes it anew.
    pub rivals: bool,
    /// How many parts were left out of the log.
    pub left_out: usize,
    /// Segments get new generations, now and then.
    pub rolls: bool,
    /// How many did.
    pub rolled: usize,
    /// How many did not, by why.
    pub not_rolled: BTreeMap<String, usize>,
    /// The entries of an append before the one that is judged.
    appending: Vec<LogEntry>,
}

impl Cluster {
    /// A relay without a log, and replicas that are not connected.
    pub fn new(seed: u64, replicas: usize) -> Cluster {
        let mut draws = Draws(seed);
        let nodes = (0..replicas).map(|_| Node::new(&mut draws)).collect();
        let mut cluster = Cluster {
            draws,
            now: 1,
            relay: None,
            disk: PlainDisk::default(),
            reads: Vec::new(),
            nodes,
            conns: 0,
            segments: vec![SegmentId::ROOT],
            lives: 0,
            moves: 0,
            losses: 0,
            ledger: Ledger::default(),
            concurrent: 0,
            ops: BTreeMap::new(),
            places: BTreeMap::new(),
            grants: Grants::default(),
            rights_change: false,
            rights: BTreeMap::new(),
            copies: false,
            copied: 0,
            restarts: 0,
            entropy: Draws(seed ^ 0x5eed_5eed),
            judging: None,
            tickets: 1 << 32,
            keeps: false,
            restores: 0,
            filled: false,
            harms: false,
            stranger: None,
            rivals: false,
            left_out: 0,
            rolls: false,
            rolled: 0,
            not_rolled: BTreeMap::new(),
            appending: Vec::new(),
        };
        cluster.start_relay();
        for at in 0..replicas {
            cluster.input(at, Input::Load(vec![(SegmentId::ROOT, true)]));
        }
        cluster
    }

    /// A connection opens, if there is a relay.
    pub fn connect(&mut self, at: usize) {
        if self.relay.is_none() || self.nodes[at].conn.is_some() || self.nodes[at].dead {
            return;
        }
        self.conns += 1;
        let conn = ConnId(self.conns);
        self.nodes[at].conn = Some(conn);
        let can_write = self.nodes[at].can_write && (!self.rights_change || self.draws.below(3) > 0);
        self.rights.insert(conn, can_write);
        self.relay_input(RelayInput::Opened { conn, subject: String::new(), can_write });
        let entropy = [0; 4].map(|_: u64| self.entropy.draw());
        self.input(at, Input::Connected { token: String::new(), entropy });
    }

    /// A connection breaks: what was under way in both directions is lost.
    pub fn disconnect(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(conn) = node.conn.take() else { return };
        node.up.clear();
        node.down.clear();
        node.online = false;
        self.grants.closed(self.now, at);
        if self.relay.is_some() {
            self.relay_input(RelayInput::Closed { conn });
        }
        self.input(at, Input::Disconnected);
    }

    /// A process dies, and what only it had is gone.
    pub fn kill(&mut self, at: usize) {
        self.disconnect(at);
        let node = &mut self.nodes[at];
        node.dead = true;
        node.mirrors.clear();
        node.suspended.clear();
    }

    /// A further process opens the heap; its number.
    pub fn open(&mut self) -> usize {
        let node = Node::new(&mut self.draws);
        self.nodes.push(node);
        let at = self.nodes.len() - 1;
        self.input(at, Input::Load(vec![(SegmentId::ROOT, true)]));
        at
    }

    /// Gives an input to a replica and performs what comes of it.
    pub fn input(&mut self, at: usize, mut input: Input) {
        let now = self.now;
        if let Input::Commit { entropy, .. } = &mut input {
            *entropy = self.entropy.draw();
        }
        self.concurrent += usize::from(matches!(input, Input::Commit { .. }) && self.is_behind(at));
        let node = &mut self.nodes[at];
        node.kept.ask(&input);
        node.replica.handle(now, input);
        while let Some(output) = node.replica.poll() {
            node.perform(output);
        }
        // Where no disk is lost, a store that is behind what went out does (F3).
        if node.kept.made_anew() && self.keeps && node.stored.is_some() {
            self.store(at);
        }
        self.hear(at);
        if std::mem::take(&mut self.nodes[at].hangs_up) {
            self.disconnect(at);
        }
        self.announce(at);
    }

    /// What a program was told is noted.
    fn hear(&mut self, at: usize) {
        for told in std::mem::take(&mut self.nodes[at].told) {
            if let Some(sharer) = &mut self.nodes[at].sharer {
                match &told {
                    Told::Acked(upto) => sharer.acked(*upto),
                    Told::Refused(seq, _) => sharer.refused(*seq),
                    _ => {}
                }
            }
            self.ledger.hear(at, told);
        }
    }

    /// True while another process has a commit that this one's program does not see yet: one is on its way to the relay, or
    /// behind its cut.
    fn is_behind(&self, at: usize) -> bool {
        let cut = self.nodes[at].replica.cut();
        (0..self.nodes.len()).filter(|other| *other != at).any(|other| {
            let own = self.ledger.commits.range((other, Seq(0))..=(other, Seq(u64::MAX)));
            let newest = own.rev().find(|(_, written)| !matches!(written.fate, Outcome::Refused(_)));
            newest.is_some_and(|(_, written)| self.places.get(&written.uid).is_none_or(|place| *place >= cut))
        })
    }

    /// A program makes a commit: wishes on segments that are here.
    pub fn commit(&mut self, at: usize, sections: Vec<(Index, Vec<Wish>)>) {
        self.commit_on(at, sections, None);
    }

    /// The same, with a `done()` that stands on this claim.
    pub fn commit_on(&mut self, at: usize, sections: Vec<(Index, Vec<Wish>)>, claim: Option<&ClaimOf>) {
        self.ledger.begin(at);
        if let Some(ClaimOf { run, key, grant, .. }) = claim.cloned() {
            self.ledger.ends(Ended { run, key, grant });
        }
        let node = &mut self.nodes[at];
        let mut out = Vec::new();
        for (index, mut wishes) in sections {
            let Some(mirror) = node.mirrors.get_mut(&index) else { continue };
            wishes.retain(|wish| !is_kept(mirror, wish));
            let id = node.ids.get(&index).copied().expect("a mirror's segment has an id");
            let mut all = self.ledger.mark(id, mirror, (1 + self.draws.below(9)) as f64);
            all.extend(wishes);
            if all.is_empty() {
                continue;
            }
            for wish in &all {
                mirror.wish(wish);
            }
            out.push(Section { target: Target::Here(index), claim: claim.cloned(), wishes: all });
        }
        if !out.is_empty() {
            self.input(at, Input::Commit { label: String::new(), sections: out, size: 0, entropy: 0 });
        }
    }

    /// A program makes the root's total.
    pub fn begin_total(&mut self, at: usize) {
        self.ledger.begin(at);
        self.ledger.makes_total(SegmentId::ROOT);
        let (object, key) = (coheap_core::edit::Handle(0), crate::ledger::TOTAL.to_owned());
        let mut wishes = vec![Wish::Set { object, key, value: Literal::Counter(0.0) }];
        let Some(mirror) = self.nodes[at].mirrors.get_mut(&Index(0)) else { panic!("the root is here") };
        mirror.wish(&wishes[0]);
        let marks = self.ledger.mark(SegmentId::ROOT, mirror, 1.0);
        for wish in &marks {
            mirror.wish(wish);
        }
        wishes.extend(marks);
        let sections = vec![Section { target: Target::Here(Index(0)), claim: None, wishes }];
        self.input(at, Input::Commit { label: String::new(), sections, size: 0, entropy: 0 });
    }

    /// A program makes a segment of this id, whatever others make under it.
    pub fn make(&mut self, at: usize, id: SegmentId, engine: EngineKind, wishes: Vec<Wish>) {
        self.rivals = true;
        self.ledger.begin(at);
        let mut fresh = Mirror::new();
        let mut all = self.ledger.mark(id, &fresh, 1.0);
        all.extend(wishes);
        for wish in &all {
            fresh.wish(wish);
        }
        let sections = vec![Section { target: Target::New(id, engine), claim: None, wishes: all }];
        self.input(at, Input::Commit { label: String::new(), sections, size: 0, entropy: 0 });
        let node = &mut self.nodes[at];
        if let Some(index) = node.index(id) {
            node.mirrors.insert(index, fresh);
        }
    }

    /// A program makes a new segment, a map, and points to it from the root, in one commit.
    pub fn alloc(&mut self, at: usize, engine: EngineKind, key: &str, entries: Vec<(String, Literal)>) -> SegmentId {
        let ObjectId(id) = self.draws.object();
        let id = SegmentId(id);
        let target = Value::Ref(Ref { segment: id, object: id.first() });
        let point =
            Wish::Set { object: coheap_core::edit::Handle(0), key: key.to_owned(), value: Literal::Scalar(target) };
        self.ledger.begin(at);
        let root = Wish::Root { value: self.ledger.born(id, entries) };
        let node = &mut self.nodes[at];
        let mut sections = Vec::new();
        let mut fresh = Mirror::new();
        fresh.wish(&root);
        sections.push(Section { target: Target::New(id, engine), claim: None, wishes: vec![root] });
        if let Some(mirror) = node.mirrors.get_mut(&Index(0)) {
            let mut wishes = vec![point];
            wishes.extend(self.ledger.mark(SegmentId::ROOT, mirror, 1.0));
            for wish in &wishes {
                mirror.wish(wish);
            }
            sections.push(Section { target: Target::Here(Index(0)), claim: None, wishes });
        }
        self.input(at, Input::Commit { label: String::new(), sections, size: 0, entropy: 0 });
        let node = &mut self.nodes[at];
        if let Some(index) = node.index(id) {
            node.mirrors.insert(index, fresh);
        }
        self.segments.push(id);
        id
    }

    /// The next thing happens, whatever it is.
    pub fn step(&mut self, faults: bool) {
        self.now += 1;
        let at = self.draws.below(self.nodes.len());
        // Often enough that a life has a copy and some restarts, seldom enough that both go their ways for a while.
        if faults && self.copies && self.entropy.below(24) == 0 {
            return match self.entropy.below(8) {
                0 if self.nodes.len() <= 7 => drop(self.copy_process(at)),
                0 => {}
                1..3 => self.restart(at),
                _ => self.store(at),
            };
        }
        if self.harms && self.entropy.below(12) == 0 {
            self.harm();
        }
        if self.rolls && self.entropy.below(12) == 0 {
            let at = self.entropy.below(self.segments.len());
            return self.roll(self.segments[at]);
        }
        match self.draws.below(if faults { 42 } else { 30 }) {
            0..8 => self.deliver_up(at),
            8..18 => self.deliver_down(at),
            18..24 => self.sync(),
            24..28 => self.answer_read(),
            28..30 => self.connect(at),
            30..32 => self.disconnect(at),
            32 => {
                let kept = self.draws.below(3);
                self.kill_relay(kept);
                self.start_relay();
            }
            33..35 => self.load_one(at),
            // The programs of those worlds stay as they are: which of them fail is known (`tests/README.md`).
            35 if self.keeps && self.copies => {}
            35 if self.keeps => self.pack_one(at),
            35 if self.draws.below(2) == 0 => self.pack_one(at),
            35 => self.evict_one(at),
            36 => self.wait(at, WaitKind::Flush),
            37 => self.wait(at, WaitKind::Sync),
            38 => self.wait(at, WaitKind::Version),
            39 => {
                let ms = self.draws.below(3_000) as u64;
                self.pass(ms);
            }
            40 if self.now.is_multiple_of(2) => self.move_replica(at),
            40 => self.lose_instance(at),
            _ => self.connect(at),
        }
    }

    /// A program waits for something.
    pub fn wait(&mut self, at: usize, kind: WaitKind) {
        self.tickets += 1;
        self.ledger.wait(at, self.tickets, &kind);
        self.input(at, Input::Wait { ticket: self.tickets, kind });
    }

    /// Time passes, and wakes whom it is to wake.
    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        if self.relay.as_ref().and_then(Relay::deadline).is_some_and(|at| at.0 <= self.now) {
            self.relay_input(RelayInput::Wake);
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].replica.deadline().is_some_and(|at| at <= self.now) {
                self.input(at, Input::Tick);
            }
        }
    }

    fn load_one(&mut self, at: usize) {
        let id = self.segments[self.draws.below(self.segments.len())];
        let here = self.nodes[at].index(id).is_some_and(|index| self.nodes[at].mirrors.contains_key(&index));
        if !here {
            self.load(at, id);
        }
    }

    /// A program needs a segment.
    pub fn load(&mut self, at: usize, id: SegmentId) {
        let derived = id == SegmentId::ROOT || is_partition(id);
        self.input(at, Input::Load(vec![(id, derived)]));
    }

    fn evict_one(&mut self, at: usize) {
        let here: Vec<Index> = self.nodes[at].mirrors.keys().copied().filter(|index| index.0 > 0).collect();
        if !here.is_empty() {
            let index = here[self.draws.below(here.len())];
            self.input(at, Input::Evict(index));
        }
    }

    /// A segment is not needed for now: the program forgets what it shows of it, or keeps that.
    fn pack_one(&mut self, at: usize) {
        let here: Vec<Index> = self.nodes[at].mirrors.keys().copied().filter(|index| index.0 > 0).collect();
        if !here.is_empty() {
            let (segment, mirrored) = (here[self.draws.below(here.len())], self.draws.below(2) == 0);
            self.nodes[at].forgets = !mirrored;
            self.input(at, Input::Pack { segment, mirrored });
        }
    }

    /// The next message of a replica reaches the relay.
    pub fn deliver_up(&mut self, at: usize) {
        if let (Some(conn), Some(bytes)) = (self.nodes[at].conn, self.nodes[at].up.pop_front()) {
            self.grants.up(at, &bytes);
            self.judging = Some(conn);
            self.relay_input(RelayInput::Message { conn, bytes });
            self.judging = None;
        }
    }

    /// The next message of the relay reaches a replica.
    pub fn deliver_down(&mut self, at: usize) {
        let conn = self.nodes[at].conn;
        if let (Some(conn), Some(message)) = (conn, self.nodes[at].down.pop_front()) {
            let bytes = message.len() - 1;
            self.nodes[at].count_answers(&message);
            self.input(at, Input::Receive(message));
            self.relay_input(RelayInput::Written { conn, bytes });
        }
    }

    /// Everything arrives: connects everybody and lets the world run, time included, until nothing moves. Shared work is
    /// brought to its end.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 20_000, "the world does not come to rest");
            self.pass(1);
            let mut moved = self.round();
            for at in 0..self.nodes.len() {
                moved |= self.work(at);
            }
            if !moved && !self.pass_to_the_next_deadline() {
                return;
            }
        }
    }

    /// Everybody connects, and what is under way arrives. False: nothing was.
    pub fn round(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.nodes.len() {
            if self.nodes[at].conn.is_none() && !self.nodes[at].dead {
                if self.nodes[at].rests_until <= self.now {
                    self.connect(at);
                }
                moved = true;
            }
            while !self.nodes[at].up.is_empty() {
                self.deliver_up(at);
                moved = true;
            }
            while !self.nodes[at].down.is_empty() {
                self.deliver_down(at);
                moved = true;
            }
        }
        if self.disk.is_dirty() {
            self.sync();
            moved = true;
        }
        while !self.reads.is_empty() {
            self.answer_read();
            moved = true;
        }
        moved
    }

    fn pass_to_the_next_deadline(&mut self) -> bool {
        let replicas = self.nodes.iter().filter_map(|node| node.replica.deadline());
        let relay = self.relay.as_ref().and_then(Relay::deadline).map(|time| time.0);
        match replicas.chain(relay).min().filter(|at| *at < self.now + FAR_MS) {
            Some(at) => {
                self.pass(at.saturating_sub(self.now));
                true
            }
            None => false,
        }
    }

    /// What every program sees at this moment is what it may see.
    pub fn look(&mut self) {
        self.ledger.look(&self.nodes);
    }

    /// The invariants of a settled world: nothing unsaved, no problem, equal values in every segment two replicas have (P1),
    /// every mirror equal to its document, every commit that stands there exactly once, and none that was refused (P5, P6).
    pub fn check(&mut self) {
        let log = self.disk.history();
        self.ledger.bury(&log);
        self.look();
        for at in (0..self.nodes.len()).filter(|at| self.nodes[*at].dead) {
            self.ledger.died(at, &log);
        }
        self.ledger.check(&self.nodes, &log);
        let all = self.stats();
        let refusals: Vec<u64> = all.iter().map(|stats| stats.refused).collect();
        for (at, stats) in all.into_iter().enumerate() {
            let of = |fate: fn(&Outcome) -> bool| {
                let commits = self.ledger.commits.range((at, Seq(0))..(at + 1, Seq(0)));
                commits.filter(|(_, written)| fate(&written.fate)).count() as u64
            };
            if self.ledger.off || self.nodes[at].dead {
                continue;
            }
            assert_eq!(stats.commits + self.nodes[at].inherited, of(|_| true), "commits of replica {at}");
            assert_eq!(stats.refused, of(|fate| matches!(fate, Outcome::Refused(_))), "refusals of replica {at}");
            assert!(stats.quarantined == 0 || self.harms, "quarantines of replica {at}");
            let doubted = of(|fate| *fate == Outcome::InDoubt);
            let anew = stats.refused + doubted > 0 || self.copied + self.restarts > 0 || self.harms || self.rivals;
            let anew = anew || self.rolls && self.ledger.has_conflicts(at);
            assert!(anew || stats.rebuilds == 0, "replica {at} made segments anew without a refusal");
        }
        let mut values = BTreeMap::new();
        for (at, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| !node.dead) {
            assert_eq!(node.replica.unsaved(), 0, "replica {at} has unsaved commits");
            let refused = refusals.get(at).is_some_and(|count| *count > 0);
            if self.filled {
                node.problems.retain(|problem| !problem.starts_with("ERR_STORAGE_FULL"));
            }
            if self.harms {
                node.problems.retain(|problem| !problem.starts_with("ERR_QUARANTINED"));
            }
            if (self.copied > 0 || refused || self.rolls) && self.ledger.losses > 0 {
                // D4: copies of a process wrote under one identity, and the log that showed it was lost. Or a segment showed what
                // was refused, and could not be given back; or generations do not go together (§14.3). What may have gone with it
                // the ledger says.
                node.problems.retain(|problem| !problem.starts_with("ERR_CONFLICT: what was here of segment"));
            }
            assert!(node.problems.is_empty(), "replica {at}: {:?}", node.problems);
            // L6: who has a mirror of a packed segment is told nothing when it is decoded but that.
            for segment in node.mirrors.keys().copied().collect::<Vec<Index>>() {
                node.replica.handle(self.now, Input::Object { segment, handle: Handle(0) });
                while let Some(output) = node.replica.poll() {
                    let awake = matches!(output, Output::Awake(index) if index == segment);
                    assert!(
                        awake || matches!(output, Output::Object { handle: Some(_), .. } | Output::Keep(_)),
                        "{output:?}"
                    );
                    node.perform(output);
                }
            }
            for (index, mirror) in &node.mirrors {
                let id = node.ids.get(index).copied().unwrap_or(SegmentId::ROOT);
                let document = node.replica.document(id).expect("a mirror has a document");
                let bytes = document.encode();
                let engine = document.engine();
                let generation = document.generation();
                let mut copy = coheap_core::segment::Segment::decode(id, engine, generation, 1, &bytes, &[])
                    .expect("a document decodes");
                let fresh = Mirror::of(&copy.show());
                let whole = |mirror: &Mirror| (mirror.value(), mirror.nears(), mirror.marks.clone());
                let (seen, held) = (whole(mirror), whole(&fresh));
                assert_eq!(seen, held, "mirror of segment {index:?} at replica {at}");
                let value = format!("{seen:?}");
                assert!(!value.contains(HOSTILE), "what was left out is seen at replica {at}: {value}");
                let first = values.entry(id).or_insert_with(|| value.clone());
                assert_eq!(*first, value, "segment {id} at replica {at}");
            }
        }
    }

    /// The counters of every replica.
    pub fn stats(&mut self) -> Vec<Stats> {
        let mut all = Vec::new();
        for node in &mut self.nodes {
            node.replica.handle(self.now, Input::Stats);
            while let Some(output) = node.replica.poll() {
                if let Output::Stats(stats) = output {
                    all.push(stats);
                }
            }
        }
        all
    }
}
