//! The clocks half of the guard at a replica (CORE-PROTOCOL R10): how far each client id has written in a document, and whose it is.
//!
//! ```text
//!   made, loaded, rolled, restored ──► no table ──first delta of somebody else──► the document's own table, kept with each
//!                                        ▲                                        delta from then on: others' and own
//!                                        └──────── another document in its place ────────┘
//! ```
//!
//! Nobody sends such a table: what the document holds says all of it but the owners, and first use binds those, as at a relay.
//! A document that is only read, or written here alone, needs none, and has none.
//!
//! What is written here is put by, and taken into the table when somebody else names it: most writes are never named, and
//! to judge them takes a good part of the time that it takes to write them. So the table has own commits that the log does not have
//! yet. One that stands ahead of the log finds copies where the log has what is new. What the log leaves out (R12) is in no document:
//! who goes on as such a client has a gap, and nothing here need be barred.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Segment;
use super::engine::EngineError;
use super::merge::guarded;
use crate::edit::Patch;
use crate::guard::{self, Clocks, Continuity, GuardError, UNBOUND};
use crate::id::ReplicaId;
use crate::mutate::{self, Mutation};

/// So much of what is written here is put by at most.
const OWN_BYTES_MAX: usize = 256 * 1024;

/// The clock table of a document.
pub(super) struct Table {
    clocks: Clocks,
    /// What was written here since: each delta behind its length in four bytes.
    own: Vec<u8>,
}

/// How far each client has written in a document, once that was asked (it takes as long as there are clients); nothing of an
/// engine that takes in nothing behind a gap.
#[derive(Default)]
pub(super) struct Reached(Option<Option<BTreeMap<u64, u32>>>);

impl Segment {
    /// Applies what one commit of `owner` does here, in one step, if both halves of the guard pass it. After an error the
    /// document is to be rebuilt; what only lacks what it builds on has left it as it was.
    pub fn apply_commit(&mut self, owner: ReplicaId, deltas: &[Bytes]) -> Result<Vec<Patch>, EngineError> {
        self.judge(owner, deltas)?;
        let applied = self.apply_judged(deltas);
        if applied.is_err() {
            // It says that this is here.
            self.table = None;
        }
        applied
    }

    /// As [`Segment::apply_commit`], before anybody is shown the document.
    pub fn go_on(&mut self, owner: ReplicaId, deltas: &[Bytes]) -> Result<(), EngineError> {
        self.judge(owner, deltas)?;
        self.extend_judged(deltas)
    }

    /// Of what somebody else has judged, whole states among it: the structure half, and that no client skips a clock. yrs takes in
    /// what stands behind a gap, says nothing, and encodes the document so that nobody can read it. What passes is in `reached`.
    pub(super) fn judge_vouched(&self, reached: &mut Reached, deltas: &[Bytes]) -> Result<(), EngineError> {
        let engine = guarded(self.engine());
        for delta in deltas {
            let claims = match guard::structure(engine, delta) {
                Ok(summary) => summary.own.map(|own| (own.client, own.start, own.end)).into_iter().collect(),
                Err(_) => {
                    guard::whole(engine, delta)?.iter().map(|(client, _, end)| (client, 0, end)).collect::<Vec<_>>()
                }
            };
            let Some(clocks) = reached.0.get_or_insert_with(|| self.engine.clocks()) else { continue };
            for (client, start, end) in claims {
                let clock = clocks.entry(client).or_insert(0);
                if start > *clock {
                    return Err(GuardError::ClockGap.into());
                }
                *clock = end.max(*clock);
            }
        }
        Ok(())
    }

    /// Both halves of the guard. What passes is in the table, and the engine has to get it next.
    fn judge(&mut self, owner: ReplicaId, deltas: &[Bytes]) -> Result<(), EngineError> {
        let engine = guarded(self.engine());
        if mutate::on(Mutation::ReplicaTakesAnyClock) {
            return Ok(deltas.iter().try_for_each(|delta| guard::structure(engine, delta).map(drop))?);
        }
        // Not put back until all is well: after an error there is none.
        let mut table = match self.table.take() {
            Some(table) => table,
            None => Table { clocks: guard::whole(engine, &self.engine.whole())?, own: Vec::new() },
        };
        for delta in deltas {
            let summary = guard::structure(engine, delta)?;
            let writes = summary.own.is_some_and(|own| own.client == self.writer);
            if writes || summary.named.iter().any(|(client, _)| *client == self.writer) {
                table.take_in_own(engine)?;
            }
            let continuity = table.clocks.check(owner, &summary)?;
            // What is written here is here: as this client nothing new can come from elsewhere, whoever says that it is its.
            if writes && continuity == Continuity::New {
                return Err(GuardError::ForeignClient.into());
            }
            table.clocks.record(owner, &summary);
        }
        self.table = Some(table);
        Ok(())
    }

    /// What was written here belongs into the table, if there is one.
    pub(super) fn note_own(&mut self, delta: &[u8]) {
        let Some(table) = &mut self.table else { return };
        table.own.extend_from_slice(&(delta.len() as u32).to_le_bytes());
        table.own.extend_from_slice(delta);
        // To read the whole document takes no longer than to read what was put by, when that is half of it.
        let read_anew = table.own.len() > self.size / 2;
        if read_anew || table.own.len() > OWN_BYTES_MAX && table.take_in_own(guarded(self.engine.kind())).is_err() {
            self.table = None;
        }
    }

    /// The clock table, if one was needed so far; without what was written here and nobody has named since.
    pub fn clocks(&self) -> Option<&Clocks> {
        self.table.as_ref().map(|table| &table.clocks)
    }
}

impl Table {
    /// Nobody else goes on as the client that writes here, so nobody need be its owner.
    fn take_in_own(&mut self, engine: guard::Engine) -> Result<(), GuardError> {
        let own = std::mem::take(&mut self.own);
        let mut rest = &own[..];
        while let Some((len, behind)) = rest.split_first_chunk() {
            let (delta, behind) =
                behind.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or(GuardError::Truncated)?;
            rest = behind;
            let summary = guard::structure(engine, delta)?;
            self.clocks.check(UNBOUND, &summary)?;
            self.clocks.record(UNBOUND, &summary);
        }
        Ok(())
    }
}
