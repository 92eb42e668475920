//! What replicas give back of a log that was lost becomes an entry of this one (CORE-PROTOCOL D4): states that were merged, lines
//! that are raised, and how far each segment is from what the replicas of a life know. Who gives what, and whether it fits, is
//! `relay/restore.rs`'s to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Sequencer;
use crate::admit::AdmitRow;
use crate::commit::EngineKind;
use crate::guard::Clocks;
use crate::id::{EpochId, GenId, Offset, ReplicaId, SegmentId, SegmentNumber, Uid};
use crate::log::{AuthorInfo, Created, LogEntry, RestoredSegment, StoredRestore};
use crate::mutate::{self, Mutation};
use crate::relay::port::GenerationBegins;
use crate::wire::frame::restore::{Content, Place};
use crate::wire::frame::roll::GenerationHeader;

/// A segment that a replica gave back, looked at: it is of the current generation, and what the log has of it was merged
/// with it.
#[derive(Debug)]
pub(in crate::relay) struct GivenBack {
    pub id: SegmentId,
    pub engine: EngineKind,
    pub layout: u8,
    pub generation: GenId,
    pub header: Bytes,
    /// What it adds; `None` if the log has all of it.
    pub adds: Option<(Bytes, Clocks)>,
    /// It takes the place of what the log has.
    pub adopts: bool,
}

/// Who gives something back, and what it says of its lines (`StoredRestore`).
#[derive(Debug)]
pub(in crate::relay) struct Giver {
    pub by: ReplicaId,
    /// The life of the log that it comes from.
    pub life: EpochId,
    pub pending: Vec<Place<ReplicaId>>,
    pub acked: Vec<Place<ReplicaId>>,
    pub known: Vec<Content<ReplicaId>>,
    /// Lines of which the states may hold commits that have no entry; also where `pending` is for a later entry to say.
    pub holds: BTreeSet<ReplicaId>,
}

/// What is known of a segment for who gives it back (D4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::relay) struct Standing {
    pub engine: EngineKind,
    pub generation: GenId,
    /// The position after the last entry with something that a replica of that life may lack.
    pub written: Offset,
    /// Its generation was adopted from a replica of that life, and this one is its parent.
    pub adopted: Option<GenId>,
}

impl Sequencer {
    /// D4: what a replica gave back becomes an entry; its lines go on from where it knows them to be, in the same batch [X13].
    /// The segments that it creates.
    pub fn restore(
        &mut self,
        giver: Giver,
        given: Vec<GivenBack>,
        author: &AuthorInfo,
        unix_ms: u64,
        roll_hold_ms: u64,
    ) -> (Offset, Vec<SegmentNumber>) {
        let offset = self.head;
        let Giver { by, life, pending, acked, known, holds } = giver;
        let (mut created, mut segments, mut begins) = (Vec::new(), Vec::new(), Vec::new());
        let lists: Arc<[ReplicaId]> = holds.into_iter().collect();
        for held in given {
            let (number, creates) = match (self.number(held.id), &held.adds) {
                (Some(number), _) => (number, None),
                // Nobody ever wrote to it.
                (None, None) => continue,
                (None, Some(_)) => {
                    let number = self.create(held.id, held.engine, held.layout, offset);
                    created.push(number);
                    (number, Some(Created { id: held.id, engine: held.engine, layout: held.layout }))
                }
            };
            let (generation, header, adopts) = (held.generation, held.header, held.adopts);
            let parent = GenerationHeader::decode(&header).ok().filter(|_| adopts).map(|header| header.parent);
            let mut state = Bytes::new();
            if let Some((bytes, clocks)) = held.adds {
                if adopts {
                    self.begin_generation(number, generation, bytes.len() as u64, clocks);
                    begins.push(segments.len());
                } else if let Some(segment) = self.segment_mut(number) {
                    if !mutate::on(Mutation::RestoredUncounted) {
                        segment.clocks.merge(clocks);
                    }
                    segment.row.tail.deltas += 1;
                    segment.row.tail.bytes += bytes.len() as u64;
                }
                if let Some(segment) = self.segment_mut(number) {
                    segment.give_back(offset, life, parent, &lists);
                }
                self.touched_segments.insert(number);
                state = bytes;
            }
            segments.push(RestoredSegment { segment: number, generation, creates, adopts, header, state });
        }
        for (owner, seq, uid) in &acked {
            if let Some(line) = self.admit.raise(*owner, (*seq, *uid), &known, offset, unix_ms) {
                line.author.clone_from(author);
                self.touched_lines.insert(*owner);
            }
        }
        let contents: BTreeMap<Uid, u64> = known.iter().map(|(_, _, uid, hash)| (*uid, *hash)).collect();
        for (owner, seq, uid) in &pending {
            if let Some(line) = self.admit.list(*owner, (*seq, *uid), contents.get(uid).copied().unwrap_or(0)) {
                line.author.clone_from(author);
                self.touched_lines.insert(*owner);
            }
        }
        self.push(&LogEntry::Restored(StoredRestore { by, pending, acked, segments: segments.into(), known }));
        // The bytes that stay in memory, not those that came from the worker.
        if let Some(LogEntry::Restored(restore)) = self.tail.back().map(|last| &*last.entry) {
            let all = (0..).zip(&restore.segments);
            let parts = all.filter(|(at, _)| begins.binary_search(at).is_ok()).map(|(_, part)| part);
            self.batch.generations.extend(parts.map(|part| GenerationBegins {
                segment: part.segment,
                position: offset.next(),
                header: part.header,
                snapshot: part.state,
            }));
        }
        let adopted: Vec<SegmentNumber> = self.batch.generations.iter().map(|begins| begins.segment).collect();
        self.note_created(&created);
        self.note_created(&adopted);
        self.roll_hold_ms = self.roll_hold_ms.max(roll_hold_ms);
        self.batch.roll_hold_ms = Some(self.roll_hold_ms);
        self.restored_below = offset.next();
        (offset, created)
    }

    /// A segment as it stands to what replicas of this life give back.
    pub fn standing(&self, id: SegmentId, life: EpochId) -> Option<Standing> {
        let number = usize::try_from(self.number(id)?.0).ok()?;
        let segment = self.segments.get(number)?;
        let same = segment.given.is_none_or(|given| given == life);
        Some(Standing {
            engine: segment.row.engine,
            generation: segment.row.generation,
            written: if same { segment.written } else { segment.changed },
            adopted: segment.adopted.filter(|_| same),
        })
    }

    /// The lines of which the log's states of a segment may hold commits that have no entry.
    pub fn holds(&self, id: SegmentId) -> impl Iterator<Item = ReplicaId> + '_ {
        let at = self.number(id).and_then(|number| usize::try_from(number.0).ok());
        let holds = at.and_then(|at| self.segments.get(at)).into_iter().flat_map(|segment| &segment.holds);
        let lists = |owner: &ReplicaId| self.admit.get(*owner).is_some_and(AdmitRow::lists_any);
        holds.flat_map(|lines| lines.iter().copied()).filter(lists)
    }

    /// Whether the log has one of these commits with other content.
    pub fn has_otherwise(&self, known: &[Content<ReplicaId>]) -> bool {
        known.iter().any(|content| self.admit.has_otherwise(content))
    }
}
