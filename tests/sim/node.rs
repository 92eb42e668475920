//! One process of a [`crate::cluster::Cluster`]: a replica, its end of a connection, and what its program sees and is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coheap_core::heap::Index;
use coheap_core::id::{SegmentId, Seq, Uid};
use coheap_core::relay::ConnId;
use coheap_core::replica::{LoadStatus, Options, Output, Replica, WaitError};
use coheap_core::segment::write::Draw;
use coheap_core::wire::frame::{Down, split};

use crate::Draws;
use crate::keeper::Keeper;
use crate::ledger::markers_of;
use crate::mirror::{Mirror, Node as Shown};
use crate::sharer::Sharer;

/// What a program hears of its commits and waits, in the order it hears it.
#[derive(Clone, Debug)]
pub enum Told {
    /// A commit got this number; what it is known by everywhere.
    Committed(Seq, Uid),
    /// Commits up to this one are durable.
    Acked(Seq),
    /// A commit was undone, with this code.
    Refused(Seq, u64),
    /// Nobody can say whether the log has these commits; they are not made again (G5).
    InDoubt(Vec<Seq>),
    /// What is shown of a segment, these markers, does not go with what the relay has: from here on it is the program's copy (§14.3).
    Conflict(SegmentId, BTreeSet<String>),
    /// A wait ended with what it waited for.
    Done(u64),
    /// A wait ended without.
    Failed(u64, WaitError),
}

/// One process with a heap open.
#[derive(Debug)]
pub struct Node {
    /// The machine.
    pub replica: Replica,
    pub(crate) conn: Option<ConnId>,
    pub(crate) up: VecDeque<Bytes>,
    pub(crate) down: VecDeque<Bytes>,
    /// What its program sees, of every segment that is here.
    pub mirrors: BTreeMap<Index, Mirror>,
    /// Mirrors of segments that stand still (R12): their last good values, and the handles that may go on.
    pub(crate) suspended: BTreeMap<Index, Mirror>,
    pub(crate) ids: BTreeMap<Index, SegmentId>,
    /// Segments of refused commits, which show them until they are made anew.
    pub rebuilding: BTreeSet<Index>,
    /// Everything that went wrong.
    pub problems: Vec<String>,
    /// Commits visible here, in order: what P2 and P6 are judged by.
    pub seen: Vec<u64>,
    /// News that the ledger has not heard yet.
    pub(crate) told: Vec<Told>,
    /// The number of its newest commit.
    pub committed: Seq,
    /// Commits up to this one are durable, as its program was told.
    pub acked: Seq,
    /// Commits that were refused, with the code.
    pub refused: BTreeMap<Seq, u64>,
    /// Commits that are in doubt.
    pub doubted: BTreeSet<Seq>,
    /// Waits that have ended: with a version, or without.
    pub ended: BTreeMap<u64, Result<String, WaitError>>,
    /// The process is gone, and with it what only it had. What it wrote is judged all the same.
    pub dead: bool,
    /// Counts what its program saw or was told.
    pub changes: u64,
    /// Its connections are opened with the right to write.
    pub can_write: bool,
    /// Entries are coming: the hello was answered.
    pub(crate) online: bool,
    /// Own creations that another kind won over (S2).
    pub overruled: usize,
    /// It keeps nothing of the segment that it packs.
    pub(crate) forgets: bool,
    /// How often it packed one.
    pub packed: usize,
    /// How often a segment was quarantined here.
    pub quarantines: usize,
    /// Its part in the shared work.
    pub sharer: Option<Sharer>,
    /// What it goes on from when its instance is lost.
    pub(crate) kept: Keeper,
    /// How often it took another id.
    pub forks: usize,
    /// Commits that it took over from a store: others made them.
    pub inherited: u64,
    /// What its store holds, which may be older than the replica, and what was being made anew then.
    pub(crate) stored: Option<(Vec<u8>, BTreeSet<Index>)>,
    /// Not to be connected before this time: another connection had its place.
    pub(crate) rests_until: u64,
    /// The replica wants another connection.
    pub(crate) hangs_up: bool,
    /// Copies of what it evicted, newest last, until somebody puts them somewhere.
    pub(crate) copied: Vec<Bytes>,
    /// How many answers to loads went on from a copy; counted from the first load that named one.
    pub(crate) onto_copies: Option<usize>,
}

pub(crate) fn options(draws: &mut Draws) -> Options {
    let mut seed = [0; 32];
    for chunk in seed.chunks_mut(8) {
        chunk.copy_from_slice(&draws.draw().to_le_bytes());
    }
    Options { seed, heap: "sim".into(), name: String::new(), must_exist: false, max_unsaved: 0 }
}

impl Node {
    pub(crate) fn new(draws: &mut Draws) -> Node {
        Node::of(Replica::new(options(draws)))
    }

    pub(crate) fn of(replica: Replica) -> Node {
        Node {
            replica,
            conn: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            mirrors: BTreeMap::new(),
            suspended: BTreeMap::new(),
            ids: BTreeMap::from([(Index(0), SegmentId::ROOT)]),
            rebuilding: BTreeSet::new(),
            problems: Vec::new(),
            seen: Vec::new(),
            told: Vec::new(),
            committed: Seq(0),
            acked: Seq(0),
            refused: BTreeMap::new(),
            doubted: BTreeSet::new(),
            ended: BTreeMap::new(),
            dead: false,
            changes: 0,
            can_write: true,
            online: false,
            overruled: 0,
            forgets: false,
            packed: 0,
            quarantines: 0,
            sharer: None,
            kept: Keeper::default(),
            forks: 0,
            inherited: 0,
            stored: None,
            rests_until: 0,
            hangs_up: false,
            copied: Vec::new(),
            onto_copies: None,
        }
    }

    /// The index of a segment.
    pub fn index(&self, id: SegmentId) -> Option<Index> {
        self.ids.iter().find(|(_, other)| **other == id).map(|(index, _)| *index)
    }

    /// What its program sees of a segment, if it is here.
    pub fn mirror(&self, id: SegmentId) -> Option<&Mirror> {
        self.mirrors.get(&self.index(id)?)
    }

    /// The segments that are here, with what its program sees of them.
    pub fn resident(&self) -> impl Iterator<Item = (SegmentId, Index, &Mirror)> {
        self.mirrors.iter().filter_map(|(index, mirror)| Some((*self.ids.get(index)?, *index, mirror)))
    }

    /// A message of the relay has come.
    pub(crate) fn count_answers(&mut self, message: &Bytes) {
        let Some(count) = &mut self.onto_copies else { return };
        for (kind, body) in split(message).expect("the relay's frames can be read") {
            let frame = Down::decode(kind, &body).expect("the relay's frames can be read");
            *count += usize::from(matches!(frame, Some(Down::Snapshot { onto_copy: true, .. })));
        }
    }

    pub(crate) fn perform(&mut self, output: Output) {
        self.kept.hear(&output, &self.ids);
        self.changes += u64::from(!matches!(output, Output::Send(_)));
        match output {
            Output::Send(message) => self.up.push_back(message),
            Output::Indexed { segment, index } => {
                self.ids.insert(index, segment);
            }
            Output::Apply { offset, segments, .. } => {
                assert!(
                    self.seen.last().is_none_or(|last| *last < offset.0),
                    "P2: entries come in the order of the log"
                );
                self.seen.push(offset.0);
                for (index, patches) in segments {
                    if let Some(mirror) = self.mirrors.get_mut(&index) {
                        mirror.apply(&patches);
                    }
                }
            }
            Output::Loaded { segment, status: LoadStatus::There, reset, patches, .. } => {
                self.rebuilding.remove(&segment);
                let stood_still = self.suspended.remove(&segment);
                if reset {
                    // Handles stay: they are those of the mirror that is here, or was when it came to stand still.
                    if let Some(mirror) = stood_still {
                        self.mirrors.insert(segment, mirror);
                    }
                    let mirror = self.mirrors.get_mut(&segment).expect("a reset is for a mirror that there is");
                    mirror.reset(&patches);
                } else {
                    let before = self.mirrors.insert(segment, Mirror::of(&patches));
                    assert!(before.is_none(), "{segment:?} is shown under other handles than before");
                }
            }
            Output::Loaded { segment, status: LoadStatus::Quarantined, .. } => {
                self.quarantines += 1;
                self.rebuilding.remove(&segment);
                if let Some(mirror) = self.mirrors.remove(&segment) {
                    self.suspended.insert(segment, mirror);
                }
            }
            Output::Loaded { segment, .. } => {
                self.rebuilding.remove(&segment);
                self.mirrors.remove(&segment);
                self.suspended.remove(&segment);
            }
            Output::Committed { seq, corrections, .. } => {
                for (index, patches) in corrections {
                    if let Some(mirror) = self.mirrors.get_mut(&index) {
                        mirror.apply(&patches);
                    }
                }
                let uid = self.replica.unsaved_uids().pop().expect("a commit is not acknowledged when it is made");
                self.committed = seq;
                self.told.push(Told::Committed(seq, uid));
            }
            Output::Acked { seq, .. } => {
                self.acked = self.acked.max(seq);
                self.told.push(Told::Acked(seq));
            }
            Output::Refused { seq, code, segments, .. } => {
                self.rebuilding.extend(segments);
                self.refused.insert(seq, code);
                self.told.push(Told::Refused(seq, code));
            }
            Output::Copied(_, copy) => self.copied.push(copy),
            Output::Evicted(index) => {
                self.mirrors.remove(&index);
            }
            Output::AtRest(index) => {
                self.packed += 1;
                if self.forgets {
                    self.mirrors.remove(&index);
                }
            }
            Output::Overruled(index, told) => {
                let mirror = self.mirrors.get(&index).expect("a segment that is here");
                assert!(matches!(mirror.node(told.parent), Shown::Map(_)), "{told:?}");
                assert_ne!(mirror.node(told.lost).kind(), told.kept);
                self.overruled += 1;
            }
            Output::Online { .. } => {
                self.online = true;
                if let Some(sharer) = &mut self.sharer {
                    sharer.online();
                }
            }
            Output::Forked { .. } => (self.forks, self.hangs_up) = (self.forks + 1, true),
            Output::Reconnect => self.hangs_up = true,
            Output::InDoubt(commits) => {
                self.doubted.extend(commits.iter().map(|one| one.seq));
                self.told.push(Told::InDoubt(commits.iter().map(|one| one.seq).collect()));
            }
            Output::Conflict(index) => {
                if let (Some(id), Some(mirror)) = (self.ids.get(&index), self.mirrors.get(&index)) {
                    self.told.push(Told::Conflict(*id, markers_of(mirror)));
                }
                self.problems.push(format!(
                    "ERR_CONFLICT: what was here of segment {index:?} does not go with what the relay has"
                ));
            }
            // The log begins anew, or from an earlier place.
            Output::Restoring { .. } => self.seen.clear(),
            Output::Done { ticket, version } => {
                self.ended.insert(ticket, Ok(version));
                self.told.push(Told::Done(ticket));
            }
            Output::Failed { ticket, error } => {
                self.ended.insert(ticket, Err(error));
                self.told.push(Told::Failed(ticket, error));
            }
            Output::Problem { code, message } => self.problems.push(format!("{code}: {message}")),
            Output::Error { code, message } => self.problems.push(format!("error {code}: {message}")),
            other => {
                if let Some(sharer) = &mut self.sharer {
                    sharer.hear(&other);
                }
            }
        }
    }
}
