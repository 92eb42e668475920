//! Whether a segment that a replica gives back is merged with what the log has, takes its place, or neither (CORE-PROTOCOL D4).
//!
//! ```text
//!   the log has           the replica holds
//!   nothing               generation 0 ─► merged          a later one ─► adopted
//!   the same generation   merged
//!   an earlier one        adopted, if all that the log has of the segment is from the log that the replica was in, and whoever
//!                         gave back commits with it that have no entry yet is there to make them anew
//!   a later one           stays; no conflict, if it was adopted from a replica of the same life of the lost log
//!   anything else         stays: a generation conflict
//! ```
//!
//! Documents of two generations cannot be compared: a fresh one has nothing of what was overwritten. What both sides know is the
//! log. A replica that is asked for what it holds shares the log up to a position with this one; a generation that it went over
//! to later was made of all that lies below that, and of what its own life had behind it. So if only replicas of that life have
//! changed the segment since, the document has everything, apart from their unacknowledged commits. Those that they gave back they
//! still hold, and send against the new generation: as long as they are there. Of one who is not, others may have seen such a
//! commit, and of one to several segments a part would stay. So it counts as an entry would, which it becomes a moment later where
//! its author is well: the earlier generation stays. Of a replica that was still in the earlier generation it is the other way about.
//!
//! The header comes with the lines of the giver only (G4). This log's own lines go into it too: what it has admitted of them, the
//! document has. Of any other line nobody can say what is in, so the header is *partial*: an author that may have been in is not to
//! make its commit again as if it were not (D4, X25). Admission is by this log's lines, which an adoption does not raise.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Relay;
use crate::commit::EngineKind;
use crate::guard::{Clocks, RELAY};
use crate::id::{EpochId, GenId, Offset, ReplicaId};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::wire::frame::restore::{HeldSegment, Verdict};
use crate::wire::frame::roll::{GenerationHeader, Included};

/// The lines of the log.
pub(super) type Lines = BTreeMap<ReplicaId, Included>;

/// What a line takes of a header, at least: its id, a number, how many commits of it are void.
const LINE_BYTES_MIN: usize = 18;

/// What becomes of a segment that was given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// It is merged with what the log has.
    Merges,
    /// It takes the place of what the log has.
    Adopts,
    /// What the log has stays, and nothing is added.
    No(Verdict),
}

/// Whether it comes with the header of its generation, and generation 0 without one.
pub(super) fn has_its_header(held: &HeldSegment) -> bool {
    if held.generation == held.engine.generation_zero() {
        return held.header.is_empty();
    }
    // An engine that keeps history is never rolled (G2).
    held.engine == EngineKind::Yrs
        && GenerationHeader::decode(&held.header).is_ok_and(|header| header.generation == held.generation)
}

impl Relay {
    /// `lost`: the life of a lost log that it is given back from, and up to where that is this log.
    pub(super) fn fit(&self, held: &HeldSegment, lost: (EpochId, Offset)) -> Fit {
        let (life, shared) = lost;
        // Of this very life nothing is lost (R4): a generation that it has not made is somebody's invention.
        let intact = self.log.epochs.last().is_some_and(|(epoch, _)| *epoch == life);
        let current = self.log.number(held.id).and_then(|number| self.log.segment(number)).map(|row| row.generation);
        if intact && !held.generation.is_zero() && current != Some(held.generation) {
            return Fit::No(Verdict::Conflict);
        }
        let Some(known) = self.log.standing(held.id, life) else {
            return match held.generation.is_zero() {
                true => Fit::Merges,
                false if mutate::on(Mutation::AdoptNothing) => Fit::No(Verdict::Conflict),
                false => Fit::Adopts,
            };
        };
        if known.engine != held.engine {
            return Fit::No(Verdict::Conflict);
        }
        if known.generation == held.generation {
            return Fit::Merges;
        }
        let parent = GenerationHeader::decode(&held.header).map_or(GenId::NONE, |header| header.parent);
        let known_to_it = known.written <= shared || mutate::on(Mutation::AdoptOverEntries);
        if descends(held.generation, parent, known.generation) && known_to_it && !mutate::on(Mutation::AdoptNothing) {
            // Nobody would make anew what others were shown of who is gone.
            if self.log.holds(held.id).any(|author| !self.ids.contains_key(&author)) {
                return Fit::No(Verdict::Conflict);
            }
            return Fit::Adopts;
        }
        let superseded = known.adopted.is_some_and(|parent| descends(known.generation, parent, held.generation));
        Fit::No(if superseded { Verdict::Nothing } else { Verdict::Conflict })
    }

    /// The lines of the log, if a header has room for them.
    pub(super) fn lines_for_headers(&self) -> Option<Lines> {
        let lines = self.log.included();
        let least: usize = lines.values().map(|line| LINE_BYTES_MIN + 8 * line.voids.len()).sum();
        (least <= limits::GENERATION_HEADER_BYTES_MAX).then_some(lines)
    }

    /// The header under which what was given is adopted, with these lines of the log, and how many bytes it took to make it. The clock
    /// table that came with it is the generation's from here on.
    pub(super) fn adopted_header(
        &self,
        held: &HeldSegment,
        lines: Option<&Lines>,
        clocks: &mut Clocks,
    ) -> (Bytes, usize) {
        let Ok(given) = GenerationHeader::decode(&held.header) else { return (held.header.clone(), held.header.len()) };
        clocks.bind_client(given.generation.writer(), RELAY);
        let partial = !mutate::on(Mutation::AdoptedIsWhole);
        let Some(lines) = lines else {
            return (GenerationHeader { partial: true, ..given }.encode().into(), held.header.len());
        };
        let mut all: BTreeMap<_, _> = given.included.iter().map(|(owner, line)| (owner, line.clone())).collect();
        for (owner, line) in lines {
            let of = all.entry(*owner).or_default();
            let voids: Vec<_> = line.voids.iter().filter(|uid| !of.voids.contains(uid)).copied().collect();
            of.voids.extend(voids);
            of.voids.truncate(limits::WINDOW);
            *of = Included { last: of.last.max(line.last), voids: std::mem::take(&mut of.voids) };
        }
        let all = GenerationHeader { partial, included: all.into(), ..given }.encode();
        let made = all.len();
        match made > limits::GENERATION_HEADER_BYTES_MAX {
            true => (GenerationHeader { partial: true, ..given }.encode().into(), made),
            false => (all.into(), made),
        }
    }
}

/// Whether a generation that was made of `parent` comes after `earlier`. Of those between, a header names none.
fn descends(generation: GenId, parent: GenId, earlier: GenId) -> bool {
    generation != earlier && (earlier.is_zero() || parent == earlier)
}
