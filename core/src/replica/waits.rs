//! The four waits: flush, sync, version, reach (CORE-PROTOCOL §8). Each is a ticket that ends in `Done` or `Failed`.

use super::session::Session;
use super::{Output, Replica};
use crate::id::{EpochId, Nonce, Offset, Seq};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::version::Version;
use crate::wire::codec::{Malformed, Reader, Write};
use crate::wire::frame::Up;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitKind {
    /// All that was written here before is durable.
    Flush,
    /// All that the relay had accepted when asked is seen here.
    Sync,
    /// A durable position that covers all written and seen here.
    Version,
    /// That position is seen here.
    Reach(String),
}

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The text is no version.
    #[error("that is not a version")]
    NotAVersion,
    /// The position can no longer be honoured.
    #[error("the relay's log no longer has that version")]
    VersionLost,
    /// A commit or claim waited for was refused, with this code.
    #[error("the relay refused it")]
    Refused(u64),
    /// The relay no longer knows the line of a commit waited for: whether it was saved is in doubt (G5).
    #[error("the relay cannot say whether it has it")]
    InDoubt,
}

#[derive(Debug)]
enum Wanted {
    /// Acknowledged up to the commit of this number (`pending.rs`).
    Saved(Seq),
    /// Nothing unacknowledged.
    Clean,
    /// Asked for the head on this connection; `None`: not asked yet.
    Head(Option<Offset>),
    Position(Version),
}

#[derive(Debug)]
struct Wait {
    ticket: u64,
    wanted: Wanted,
    asked: bool,
    /// The relay has answered since it was wanted: what its epochs do not hold, it has lost.
    answered: bool,
}

/// Everything that is waited for.
#[derive(Debug, Default)]
pub struct Waits {
    list: Vec<Wait>,
    /// The position of the newest Ack.
    acked: Offset,
}

impl Waits {
    pub(super) fn cancel(&mut self, ticket: u64) {
        self.list.retain(|wait| wait.ticket != ticket);
    }

    pub(super) fn acked(&mut self, position: Offset) {
        self.acked = self.acked.max(position);
    }

    /// The log is another one, or has lost its end: positions of before mean nothing, and what was asked of it is asked anew.
    pub(super) fn new_log(&mut self) {
        if !mutate::on(Mutation::AckedOfLostLog) {
            self.acked = Offset(0);
        }
        self.disconnected();
    }

    /// Appends `acked` and `waits` of a packed replica.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        out.varint(self.acked.0);
        out.varint(self.list.len() as u64);
        for wait in &self.list {
            out.varint(wait.ticket);
            match &wait.wanted {
                Wanted::Saved(seq) => {
                    out.push(0);
                    out.varint(seq.0);
                }
                Wanted::Clean => out.push(1),
                Wanted::Head(_) => out.push(2),
                Wanted::Position(version) => {
                    out.push(3);
                    out.str(&version.to_text());
                }
            }
        }
    }

    /// The position of the newest Ack.
    pub(super) fn position(&self) -> Offset {
        self.acked
    }

    /// Reads them; what needs the relay is asked anew.
    pub(super) fn unpack(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        self.acked = Offset(r.varint()?);
        self.unpack_list(r)
    }

    /// Reads `waits`.
    pub(super) fn unpack_list(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..r.count(limits::LONG_BYTES_MAX, 1, "waits")? {
            let ticket = r.varint()?;
            let wanted = match r.u8()? {
                0 => Wanted::Saved(Seq(r.varint()?)),
                1 => Wanted::Clean,
                2 => Wanted::Head(None),
                3 => Wanted::Position(
                    Version::parse(r.str(limits::KEY_BYTES_MAX, "version")?).ok_or(Malformed::Field("version"))?,
                ),
                other => return Err(Malformed::Kind(other)),
            };
            self.list.push(Wait { ticket, wanted, asked: false, answered: false });
        }
        Ok(())
    }

    /// A new connection has to be asked anew.
    pub(super) fn disconnected(&mut self) {
        for wait in &mut self.list {
            wait.asked = false;
            if let Wanted::Head(head) = &mut wait.wanted {
                *head = None;
            }
        }
    }

    pub(super) fn head(&mut self, nonce: Nonce, position: Offset) {
        for wait in &mut self.list {
            if wait.ticket == nonce.0 && wait.asked {
                wait.answered = true;
                if let Wanted::Head(head) = &mut wait.wanted {
                    *head = Some(position);
                }
            }
        }
    }
}

impl Replica {
    pub(super) fn wait(&mut self, ticket: u64, kind: WaitKind) {
        let wanted = match kind {
            WaitKind::Flush => Wanted::Saved(self.number),
            WaitKind::Sync => Wanted::Head(None),
            WaitKind::Version => Wanted::Clean,
            WaitKind::Reach(text) => match Version::parse(&text) {
                Some(version) => Wanted::Position(version),
                None => {
                    self.out.push_back(Output::Failed { ticket, error: WaitError::NotAVersion });
                    return;
                }
            },
        };
        self.waits.list.push(Wait { ticket, wanted, asked: false, answered: false });
        self.ask_heads();
    }

    /// Sends a Sync for every wait that has not been asked on this connection: for a head, and for a version of an epoch that
    /// is not known here. That may have begun since the Ok, at a relay that this connection does not lead to any more, so only
    /// an answer shows that the version is lost (T2).
    pub(super) fn ask_heads(&mut self) {
        if !matches!(self.session, Session::Online(_)) || self.restoring {
            return;
        }
        let mut nonces = Vec::new();
        for wait in &mut self.waits.list {
            let asks = match &wait.wanted {
                Wanted::Head(head) => head.is_none(),
                Wanted::Position(version) => !self.epochs.iter().any(|(epoch, _)| *epoch == version.epoch),
                Wanted::Saved(_) | Wanted::Clean => false,
            };
            if asks && !wait.asked {
                wait.asked = true;
                nonces.push(Nonce(wait.ticket));
            }
        }
        for nonce in nonces {
            self.forward(&Up::Sync { nonce });
        }
    }

    /// T1: what a version says: of which heap, in which life of its log, up to where.
    fn version_at(&self, position: Offset) -> Option<String> {
        let (epoch, _) = self.epochs.last()?;
        Some(Version { lineage: self.lineage, epoch: *epoch, position }.to_text())
    }

    /// A commit that is not to be saved ends the flushes that waited for it.
    pub(super) fn fail_flushes(&mut self, seq: Seq, error: WaitError) {
        let mut failed = Vec::new();
        self.waits.list.retain(|wait| match wait.wanted {
            Wanted::Saved(upto) if upto == seq || upto > seq && !mutate::on(Mutation::FlushPastRefusal) => {
                failed.push(wait.ticket);
                false
            }
            _ => true,
        });
        for ticket in failed {
            self.out.push_back(Output::Failed { ticket, error });
        }
    }

    /// Ends every wait that has what it wanted. T1: a version when nothing is pending, a flush with the Ack of what it waits for.
    pub(super) fn settle_waits(&mut self) {
        // No token counts while what it stands for is being given back (T2).
        if self.waits.list.is_empty() || self.fresh || self.restoring {
            return;
        }
        let counts = |one: &&super::pending::Unsaved| !(mutate::on(Mutation::FlushWhenSent) && one.sent);
        let oldest = self.pending.iter().find(counts).map(|one| one.number);
        // What was refused is still shown where its segment is being made anew: nobody is told that all is seen before that.
        let undoing = self.heap.is_undoing();
        let mut ended = Vec::new();
        let waits = std::mem::take(&mut self.waits.list);
        for wait in waits {
            let end = match &wait.wanted {
                Wanted::Saved(seq) if oldest.is_none_or(|oldest| oldest > *seq) => {
                    self.version_at(self.waits.acked.max(if oldest.is_none() { self.cut } else { Offset(0) })).map(Ok)
                }
                Wanted::Clean if oldest.is_none() && !undoing => {
                    self.version_at(self.cut.max(self.waits.acked)).map(Ok)
                }
                Wanted::Head(Some(head)) if self.cut >= *head && !undoing => self.version_at(self.cut).map(Ok),
                Wanted::Position(version) => match self.standing(version, wait.answered) {
                    Some(Ok(())) if undoing => None,
                    Some(Ok(())) => self.version_at(self.cut).map(Ok),
                    Some(Err(error)) => Some(Err(error)),
                    None => None,
                },
                _ => None,
            };
            match end {
                Some(end) => ended.push((wait.ticket, end)),
                None => self.waits.list.push(wait),
            }
        }
        for (ticket, end) in ended {
            self.out.push_back(match end {
                Ok(version) => Output::Done { ticket, version },
                Err(error) => Output::Failed { ticket, error },
            });
        }
    }

    /// T2, T3: whether a version is seen, will be, or is lost.
    fn standing(&self, version: &Version, answered: bool) -> Option<Result<(), WaitError>> {
        // Before anything was written: every log covers that. A relay keeps nothing of such a heap, so it goes under another
        // lineage from the next start on.
        if version.position == Offset(0) {
            return Some(Ok(()));
        }
        if version.lineage != self.lineage {
            return Some(Err(WaitError::VersionLost));
        }
        if mutate::on(Mutation::VersionWithoutEpoch) {
            return (self.cut >= version.position).then_some(Ok(()));
        }
        let at = self.epochs.iter().position(|(epoch, _): &(EpochId, Offset)| *epoch == version.epoch);
        let Some(at) = at else {
            // Newer or unknown: an Ok that we have not had may know it.
            let lost = answered || mutate::on(Mutation::LostUnasked);
            return if lost { Some(Err(WaitError::VersionLost)) } else { None };
        };
        let end = self.epochs.get(at + 1).map(|(_, next)| *next);
        if end.is_some_and(|end| version.position > end || mutate::on(Mutation::LostAtEnd) && version.position == end) {
            return Some(Err(WaitError::VersionLost));
        }
        if self.cut >= version.position { Some(Ok(())) } else { None }
    }
}
