//! What no honest replica sends, in a schedule whose plan has it: commits whose bytes the guard refuses (R10, R11), under way in the
//! place of an honest process's, and changes of strangers that pass the guard and that no engine takes in (R12).
//!
//! ```text
//!   a stranger:  good, good, ─hidden─ bad, bad, …      one client id, to a segment with history
//!                 seen         kept    frozen wherever it arrives, until the Quarantine; then seen nowhere
//!                              back
//! ```

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::guard::{Engine, structure};
use coheap_core::id::{EpochId, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::relay::{Examined, Failing, Input as RelayInput};
use coheap_core::segment::replay::replay;
use coheap_core::segment::write::Draw;
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::up::{CommitFrame, Hello};
use coheap_core::wire::frame::{Bulk, PART_CREATE, PART_DELTA, PartFrame, SegRef, Up, split};

use super::super::history::{Event, ProcessNo, SegmentNo, Touch};
use super::super::marks::MARKS_MAX;
use super::super::oracle::label;
use super::super::process::Link;
use super::relay::WORKER_DIES;
use super::{ConnId, Failure, OneHeap, World, fails, message};
use crate::hostile::Writer;

/// Changes that a stranger sends on one connection, at most.
const CHANGES_MAX: usize = 4;
/// One of so many steps of strangers is another stranger's.
const STRANGERS: u16 = 3;

/// Who writes what no engine takes in, under one replica id and one client id.
#[derive(Debug)]
pub(super) struct Stranger {
    id: ReplicaId,
    number: ProcessNo,
    segment: SegmentNo,
    client: u64,
    writer: Writer,
    /// From here on it builds on what it keeps back.
    turned: bool,
}

impl World {
    /// A stranger comes, commits one to four changes, and goes: one that has been here goes on where the log has it, or a new one.
    pub(super) fn harm(&mut self, pick: u16) -> Result<(), Failure> {
        let heap = usize::from(pick) % self.heaps.len();
        if !self.is_up || !self.plan.hostile {
            return Ok(());
        }
        let pick = pick / 4;
        let before = self.heaps[heap].stranger.as_ref().map(|stranger| stranger.id);
        if self.late.iter().any(|(_, link)| before.is_some_and(|id| link.own.contains(&id))) {
            return Ok(());
        }
        if pick.is_multiple_of(STRANGERS) || before.is_none() {
            let Some(stranger) = self.stranger(heap, usize::from(pick)) else { return Ok(()) };
            self.heaps[heap].stranger = Some(stranger);
        }
        let changes = 1 + usize::from(pick / STRANGERS) % CHANGES_MAX;
        self.harms(heap, changes, pick)
    }

    /// Somebody new, who writes to one of the segments with history that the log knows.
    fn stranger(&mut self, heap: usize, pick: usize) -> Option<Stranger> {
        let of = &self.heaps[heap];
        let with_history: Vec<SegmentNo> =
            of.oracle.segments().iter().copied().filter(|segment| of.with_history.contains(segment)).collect();
        let segment = *with_history.get(pick % with_history.len().max(1))?;
        let (mut id, number) = ([0; 16], of.processes);
        self.heaps[heap].processes += 1;
        id[..8].copy_from_slice(&self.draws.draw().to_le_bytes());
        let client = (self.draws.draw() >> 11).max(1);
        let writer = Writer::honest(self.heaps[heap].segments[segment], client);
        Some(Stranger { id: ReplicaId(id), number, segment, client, writer, turned: false })
    }

    fn harms(&mut self, heap: usize, changes: usize, pick: u16) -> Result<(), Failure> {
        self.load_heap(heap)?;
        let Some(mut stranger) = self.heaps[heap].stranger.take() else { return Ok(()) };
        let of = &self.heaps[heap];
        let (mut seq, mut prev) = of.oracle.line(stranger.id).unwrap_or((Seq(0), Uid::NONE));
        // Nobody goes on from what is not durable.
        if of.oracle.reaches(stranger.id, seq).is_some_and(|upto| upto > of.synced) {
            self.heaps[heap].stranger = Some(stranger);
            return Ok(());
        }
        let mut link = Link::new(self.connection(), self.losses);
        (link.own, link.strange) = (vec![stranger.id], true);
        link.up.push_back(say(&Up::Hello(hello(format!("heap{heap}"), stranger.id, seq))));
        for nth in 0..changes {
            let of = &mut self.heaps[heap];
            let commit = of.oracle.made.len();
            if commit >= MARKS_MAX {
                break;
            }
            if !stranger.turned && (usize::from(pick) + nth) % 3 == 0 {
                stranger.turned = true;
                stranger.writer.keep_back(of.segments[stranger.segment], stranger.client + 1);
            }
            let id = of.segments[stranger.segment];
            let (uid, bytes) = (Uid(self.draws.draw()), stranger.writer.next(&label(commit)));
            let touch = Touch { segment: stranger.segment, ..Touch::default() };
            let places = if stranger.turned { Vec::new() } else { vec![touch] };
            of.oracle.make_strange(uid, places.clone(), (stranger.segment, stranger.client));
            of.history.push(Event::Made { process: stranger.number, commit, places });
            of.history.push(Event::Ended { process: stranger.number });
            let create = Some((EngineKind::Automerge, LAYOUT));
            let generation = EngineKind::Automerge.generation_zero();
            let part = PartFrame { kind: PART_CREATE, segment: SegRef::Id(id), generation, create, bytes };
            (seq, prev) = (seq.next(), {
                let (prev, label) = (Some(prev), Some(label(commit)));
                let parts = vec![part].into();
                let commit =
                    CommitFrame { owner: 0, seq: seq.next(), uid, prev, after: None, claim: None, label, parts };
                link.up.push_back(say(&Up::Commit(commit)));
                uid
            });
        }
        self.tally.harmed += changes as u64;
        self.note(|| format!("a stranger comes to heap {heap}: {stranger:?}"));
        let conn = link.conn;
        self.heaps[heap].stranger = Some(stranger);
        self.late.push((heap, link));
        self.relay(heap, RelayInput::Opened { conn, subject: String::new(), can_write: true })
    }

    fn connection(&mut self) -> ConnId {
        self.conns += 1;
        ConnId(self.conns)
    }

    /// One of the commits that are under way to the relay has other bytes from here on: such that no guard takes them.
    pub(super) fn forge(&mut self, at: usize, pick: usize) -> Result<(), Failure> {
        let heap = self.heap_of(at);
        let Some(link) = &mut self.processes[at].link else { return Ok(()) };
        let commits: Vec<usize> = link.commits().collect();
        let Some(nth) = commits.get(pick % commits.len().max(1)).copied() else { return Ok(()) };
        let frames = split(&link.up[nth]).or_else(|error| fails("P8", format!("a replica says {error}")))?;
        let (mut out, mut forged) = (Vec::new(), None);
        for (kind, body) in frames {
            let frame = Up::decode(kind, &body).or_else(|error| fails("P8", format!("a replica says {error}")))?;
            let Some(Up::Commit(mut commit)) = frame else { continue };
            let mut parts: Vec<PartFrame> = commit.parts.iter().collect();
            let with_delta = parts.iter_mut().find(|part| matches!(part.kind, PART_DELTA | PART_CREATE));
            if let (Some(part), None) = (with_delta, &forged) {
                let engine =
                    part.create.map_or_else(|| self.heaps[heap].engine_of(&part.segment), |(engine, _)| engine);
                part.bytes = if pick & 64 == 0 { Bytes::from_static(&[0xff; 3]) } else { skips_a_change(engine, pick) };
                forged = Some((commit.uid, part.bytes.clone()));
                commit.parts = parts.into();
            }
            Up::Commit(commit).encode(&mut out);
        }
        if let Some((uid, bytes)) = forged {
            link.up[nth] = message(&out);
            self.note(|| format!("message {nth} of process {at} is forged: {uid:?}"));
            self.tally.forged += 1;
            self.heaps[heap].oracle.forge(uid, &bytes);
        }
        Ok(())
    }

    /// R11: a commit is refused for what is wrong with it.
    pub(super) fn may_refuse(&self, heap: usize, uid: Uid, code: u64) -> Result<(), Failure> {
        let oracle = &self.heaps[heap].oracle;
        let Some(commit) = oracle.by_uid(uid) else { return Ok(()) };
        let (forged, strange) = (oracle.is_forged(commit), oracle.made[commit].strange);
        let may = match Code::from_number(code) {
            Some(Code::NoRight) => self.plan.rights,
            Some(Code::ClaimLost) => oracle.claimed.contains(commit),
            Some(Code::GuardStructure) => forged,
            // Of a stranger, what came before it may be lost.
            Some(Code::GuardClocks) => forged || strange.is_some(),
            Some(Code::Quarantined) => strange.is_some_and(|of| oracle.is_barred(of)),
            _ => false,
        };
        if may {
            Ok(())
        } else {
            fails("R11", format!("commit {commit} is refused by {code}: {:?}", oracle.made[commit]))
        }
    }

    /// What the worker finds when it replays a segment, delta by delta, as sync-server's does. Now and then it dies over it.
    pub(super) fn examine(
        &self,
        heap: usize,
        (segment, engine): (SegmentNumber, EngineKind),
        (upto, position): (Offset, Offset),
        pick: usize,
    ) -> Examined {
        let Some((snapshot, deltas)) = self.platter.tail(heap, segment, position) else { return Examined::Unknown };
        if pick % WORKER_DIES == 1 {
            return Examined::Unknown;
        }
        let wanted = deltas.partition_point(|(offset, _)| *offset < upto);
        let bytes: Vec<Bytes> = deltas.iter().take(wanted).map(|(_, bytes)| bytes.clone()).collect();
        let Err((at, _)) = replay(engine, &snapshot, &bytes, |_| {}) else { return Examined::Well };
        let Some((_, first)) = deltas.get(at).filter(|_| at < wanted) else { return Examined::Unknown };
        let own = |bytes: &[u8]| structure(guarded(engine), bytes).ok().and_then(|summary| summary.own);
        let first = own(first);
        let of_it = |bytes: &[u8]| first.is_some_and(|first| own(bytes).is_some_and(|own| own.client == first.client));
        let parts = deltas.iter().enumerate().skip(at).filter(|(n, (_, delta))| *n == at || of_it(delta));
        let parts = parts.map(|(_, (offset, delta))| (*offset, delta.len() as u64)).collect();
        Examined::Fails(Failing { client: first.map(|own| (own.client, own.start)), parts })
    }
}

impl OneHeap {
    fn engine_of(&self, segment: &SegRef) -> EngineKind {
        let segment = match segment {
            SegRef::Id(id) => self.segments.iter().position(|known| known == id),
            SegRef::Number(number) => self.oracle.segments().get(number.0 as usize).copied(),
        };
        let keeps_history = segment.is_some_and(|segment| self.with_history.contains(&segment));
        if keeps_history { EngineKind::Automerge } else { EngineKind::Yrs }
    }
}

/// The second change of a client whose first one nobody has.
fn skips_a_change(engine: EngineKind, pick: usize) -> Bytes {
    let mut writer = Writer::of(engine, SegmentId::ROOT, 1 << 40 | pick as u64);
    writer.next("first");
    writer.next("second")
}

fn guarded(engine: EngineKind) -> Engine {
    match engine {
        EngineKind::Yrs => Engine::Yrs,
        EngineKind::Automerge => Engine::Automerge,
    }
}

fn say(frame: &Up) -> Bytes {
    let mut frames = Vec::new();
    frame.encode(&mut frames);
    message(&frames)
}

fn hello(heap: String, id: ReplicaId, acked: Seq) -> Hello {
    Hello {
        features: 0,
        fresh: true,
        restoring: false,
        must_exist: false,
        token: String::new(),
        name: String::new(),
        heap,
        own: vec![(id, acked)],
        epoch: EpochId::default(),
        cut: Offset(0),
        bulk: Bulk::default(),
    }
}
