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
//! Own commits that the log does not have yet are in the document and so in its table. One that stands ahead of the log finds
//! copies where the log has what is new. What the log leaves out (R12) is in no document: who goes on as such a client has a
//! gap, and nothing here need be barred.

use bytes::Bytes;

use super::Segment;
use super::engine::EngineError;
use super::merge::guarded;
use crate::edit::Patch;
use crate::guard::{self, Clocks, Continuity, GuardError, UNBOUND};
use crate::id::ReplicaId;
use crate::mutate::{self, Mutation};

impl Segment {
    /// Applies what one commit of `owner` does here, in one step, if both halves of the guard pass it. After an error the
    /// document is to be rebuilt.
    pub fn apply_commit(&mut self, owner: ReplicaId, deltas: &[Bytes]) -> Result<Vec<Patch>, EngineError> {
        self.judge(owner, deltas)?;
        self.apply_judged(deltas)
    }

    /// As [`Segment::apply_commit`], before anybody is shown the document.
    pub fn go_on(&mut self, owner: ReplicaId, deltas: &[Bytes]) -> Result<(), EngineError> {
        self.judge(owner, deltas)?;
        self.extend_judged(deltas)
    }

    /// Both halves of the guard. What passes is in the table, and the engine has to get it next.
    fn judge(&mut self, owner: ReplicaId, deltas: &[Bytes]) -> Result<(), EngineError> {
        let engine = guarded(self.engine());
        let refused = |error: GuardError| EngineError::Refused(error);
        if mutate::on(Mutation::ReplicaTakesAnyClock) {
            return deltas.iter().try_for_each(|delta| guard::structure(engine, delta).map(drop)).map_err(refused);
        }
        // Not in the table until all is well: after an error there is none.
        let mut clocks = match self.clocks.take() {
            Some(clocks) => clocks,
            None => guard::whole(engine, &self.engine.whole()).map_err(refused)?,
        };
        for delta in deltas {
            let summary = guard::structure(engine, delta).map_err(refused)?;
            let continuity = clocks.check(owner, &summary).map_err(refused)?;
            // What is written here is here: as this client nothing new can come from elsewhere, whoever says that it is its.
            if continuity == Continuity::New && summary.own.is_some_and(|own| own.client == self.writer) {
                return Err(refused(GuardError::ForeignClient));
            }
            clocks.record(owner, &summary);
        }
        self.clocks = Some(clocks);
        Ok(())
    }

    /// The table, if there is one, goes on with what was written here. Nobody else goes on as this client, so nobody need be
    /// its owner.
    pub(super) fn note_own(&mut self, delta: &[u8]) {
        let Some(clocks) = &mut self.clocks else { return };
        match guard::structure(guarded(self.engine.kind()), delta) {
            Ok(summary) if clocks.check(UNBOUND, &summary).is_ok() => clocks.record(UNBOUND, &summary),
            // What others may name of it, a table of the document says.
            _ => self.clocks = None,
        }
    }

    /// The clock table, if it was needed so far.
    pub fn clocks(&self) -> Option<&Clocks> {
        self.clocks.as_ref()
    }
}
