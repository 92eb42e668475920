//! What a replica says, frame by frame, and what comes of it at once. Commits are judged here, in order, at receipt (R2);
//! what they earn is sent when it is durable (`deliver.rs`).

use std::collections::BTreeSet;

use super::claims::Stands;
use super::port::ConnId;
use super::restore::RETRY_MS;
use super::sequencer::{Incoming, IncomingPart, Placed};
use super::session::Owed;
use super::{BUSY_RETRY_MS, Relay, Standing};
use crate::admit::{Candidate, Ignored};
use crate::commit::{After, LAYOUT};
use crate::id::{Nonce, SegmentId, Seq, Uid};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::time::Millis;
use crate::wire::code::Code;
use crate::wire::frame::down::Asked;
use crate::wire::frame::up::CommitFrame;
use crate::wire::frame::{Down, PART_CREATE, PART_DELTA, PART_OPTIONAL, PartFrame, SegRef, Up};

impl Relay {
    pub(super) fn frame(&mut self, id: ConnId, frame: Up) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let welcomed = conn.welcomed();
        match frame {
            Up::Hello(hello) => self.hello(id, hello),
            Up::Chunk(chunk) if welcomed => self.restore_chunk(id, &chunk),
            Up::Chunk(chunk) => self.hello_chunk(id, &chunk),
            Up::Ping { nonce } => self.answer(id, &Down::Pong { nonce }),
            // A relay that stops takes nothing more; the replica will send it again elsewhere.
            _ if self.standing == Standing::Stopping => {}
            _ if !welcomed => self.close(id, Code::BadFrame),
            Up::Restore(bulk) => self.restore(id, bulk),
            Up::Commit(commit) => self.commit(id, commit),
            Up::Load { segment, nonce, have } => match self.resolve(segment) {
                Some(segment) => self.load(id, segment, nonce, have),
                None => self.close(id, Code::BadFrame),
            },
            Up::Unfollow { segment } => match self.resolve(segment) {
                Some(segment) => self.unfollow(id, segment),
                None => self.close(id, Code::BadFrame),
            },
            Up::Sync { nonce } => self.head_for(id, nonce),
            Up::Report { segment, offset } => match self.resolve(segment) {
                Some(segment) => self.report(id, segment, offset),
                None => self.close(id, Code::BadFrame),
            },
            Up::Join { nonce, group, run, total, held, done } => {
                let Some(replica) = conn.replica() else { return };
                // It may wait, and the message that it came in must not.
                let (held, done) = (held.alone(), done.alone());
                let join = super::claims::Join { nonce, group, run, total, held, done };
                self.claims.join(self.now, id, replica, join);
                self.tell_claims();
            }
            Up::Leave { group, run } => self.claims.leave(self.now, id, &group, &run),
            Up::Claim { nonce, group, run, key } => {
                let Some(replica) = conn.replica() else { return };
                self.claims.claim(self.now, id, replica, super::claims::Ask { nonce, group, run, key });
                self.tell_claims();
            }
            Up::Release { group, run, key, grant } => self.claims.release(id, &group, &run, &key, grant),
            Up::Presence { group, clear, state } => {
                let Some(replica) = conn.replica() else { return };
                let member = super::presence::Member { replica, author: conn.author.clone() };
                if !self.presence.tell(self.now, id, member, &group, clear, &state) {
                    self.decline(id, Asked::Presence, Nonce(0), Code::TooMany);
                }
            }
        }
    }

    /// T5: the head at this moment, told when the stream has reached it, so that nobody waits for a head that is never written.
    /// While the log is read again, what is appended and not durable never was.
    fn head_for(&mut self, id: ConnId, nonce: Nonce) {
        let head = if self.standing == Standing::Recovering { self.log.durable } else { self.log.head };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.streaming() && conn.cursor >= head && conn.owed.is_empty() {
            self.tell_position(id);
            return self.answer(id, &Down::SyncAt { nonce, position: head });
        }
        if conn.owed.len() >= limits::OWED_MAX {
            return self.close(id, Code::SlowReader);
        }
        conn.owed.push_back((head, Owed::Head { nonce }));
    }

    /// The segment a frame names, if it can.
    pub(super) fn resolve(&self, segment: SegRef) -> Option<SegmentId> {
        match segment {
            SegRef::Id(id) => Some(id),
            SegRef::Number(number) => self.log.segment(number).map(|row| row.id),
        }
    }

    fn commit(&mut self, id: ConnId, frame: CommitFrame) {
        let Some(owner) = usize::try_from(frame.owner).ok() else { return };
        let incoming = match self.incoming(id, owner, &frame) {
            Ok(incoming) => incoming,
            Err(code) => return self.close(id, code),
        };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.owed.len() >= limits::OWED_MAX {
            return self.close(id, Code::SlowReader);
        }
        let Some(own) = conn.own.get_mut(owner) else { return };
        own.sent = Some(frame.uid);
        if self.standing == Standing::Recovering {
            return self.busy(id, frame.owner, frame.seq);
        }
        let author = conn.author.clone();
        if self.puts_off(id, &incoming.line, frame.owner) {
            return;
        }
        let mut refusal = self.refusal(id, &frame, &incoming);
        // D4: what a Restored shows, or knows to be acknowledged, is not refused, as far as its author may write.
        if !self.log.is_new(&incoming.line) {
            refusal = refusal.filter(|code| matches!(code, Code::NoRight | Code::Unsupported));
        }
        if refusal.is_none()
            && let Some(time) = self.waits_for_claims(id, &frame, &incoming.line)
        {
            return self.busy_for(id, frame.owner, frame.seq, Code::ClaimLost, time.0.max(1));
        }
        let unix_ms = self.config.unix_ms + self.now.0;
        let placed = self.log.place(incoming, &author, refusal, self.now < self.refuses_from, unix_ms);
        self.placed(id, owner, frame, placed);
    }

    /// What stands against a commit apart from its line, generations and guard (R11).
    fn refusal(&mut self, id: ConnId, frame: &CommitFrame, incoming: &Incoming) -> Option<Code> {
        let conn = self.conns.get(&id)?;
        let size: usize = frame.parts.iter().map(|part| part.bytes.len()).sum();
        let unknown = |part: PartFrame| {
            let kind = !matches!(part.kind, PART_DELTA | PART_CREATE | PART_OPTIONAL..);
            kind || part.create.is_some_and(|(_, layout)| layout != LAYOUT)
        };
        if !conn.can_write {
            return Some(Code::NoRight);
        }
        if size > limits::COMMIT_BYTES_MAX_RELAY {
            return Some(Code::TooLarge);
        }
        if frame.parts.iter().any(unknown) {
            return Some(Code::Unsupported);
        }
        // Who creates a segment follows it from then on (C10).
        let unborn = incoming.parts.iter().filter(|part| self.log.number(part.segment).is_none());
        let more = unborn.filter(|part| !self.interest.follows_id(id, part.segment, None)).count();
        if more > 0 && self.interest.count(id) + more > limits::FOLLOWS_MAX {
            return Some(Code::TooMany);
        }
        let own: BTreeSet<_> = conn.own.iter().map(|own| own.id).collect();
        let lost = frame.claim.as_ref().is_some_and(|claim| self.claims.stands(self.now, &own, claim) == Stands::No);
        lost.then_some(Code::ClaimLost)
    }

    /// S27: how long it takes until it is known whether the claim of a new commit is current. What a lost log had acknowledged
    /// stands on none any more.
    fn waits_for_claims(&self, id: ConnId, frame: &CommitFrame, line: &Candidate) -> Option<Millis> {
        let (conn, claim) = (self.conns.get(&id)?, frame.claim.as_ref()?);
        let own: BTreeSet<_> = conn.own.iter().map(|own| own.id).collect();
        match self.claims.stands(self.now, &own, claim) {
            Stands::Later(time) if self.log.is_new(line) => Some(time),
            _ => None,
        }
    }

    /// The commit with its references looked up; the code to close with if it cannot be one.
    fn incoming(&self, id: ConnId, owner: usize, frame: &CommitFrame) -> Result<Incoming, Code> {
        let conn = self.conns.get(&id).ok_or(Code::BadFrame)?;
        let own = conn.own.get(owner).ok_or(Code::BadFrame)?;
        let prev = match (frame.prev, own.sent, frame.seq) {
            (Some(prev), _, _) => prev,
            (None, _, Seq(1)) => Uid::NONE,
            (None, Some(sent), _) => sent,
            (None, None, _) => return Err(Code::BadFrame),
        };
        let after = match frame.after {
            None => None,
            Some((of, seq, uid)) => {
                let of = usize::try_from(of).ok().and_then(|of| conn.own.get(of)).ok_or(Code::BadFrame)?;
                Some(After { owner: of.id, seq, uid })
            }
        };
        let mut seen = BTreeSet::new();
        let mut parts = Vec::with_capacity(frame.parts.len());
        for part in &frame.parts {
            let part = self.incoming_part(part)?;
            if !seen.insert(part.segment) {
                return Err(Code::BadFrame);
            }
            parts.push(part);
        }
        let line = Candidate { owner: own.id, seq: frame.seq, uid: frame.uid, prev, after };
        Ok(Incoming { line, label: frame.label.clone(), parts })
    }

    fn incoming_part(&self, part: PartFrame) -> Result<IncomingPart, Code> {
        Ok(IncomingPart {
            segment: self.resolve(part.segment).ok_or(Code::BadFrame)?,
            kind: part.kind,
            generation: part.generation,
            create: part.create,
            bytes: part.bytes,
        })
    }

    /// Tells, now or when it is durable, what became of a commit.
    fn placed(&mut self, id: ConnId, owner: usize, frame: CommitFrame, placed: Placed) {
        let head = self.log.head;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(own) = conn.own.get_mut(owner) else { return };
        let (owner, seq, uid) = (frame.owner, frame.seq, frame.uid);
        let answer = match placed {
            Placed::Appended { offset, created } => {
                own.refused = false;
                conn.mine.insert(offset);
                conn.owed.push_back((offset.next(), Owed::Ack { owner, seq }));
                if let Some(claim) = frame.claim {
                    self.claims.ending(claim, own.id, offset);
                }
                for number in created {
                    let Some(row) = self.log.segment(number) else { continue };
                    // C10: who creates a segment follows it from here on.
                    if !mutate::on(Mutation::CreatorLeftOut) {
                        self.interest.follow(id, row.id, Some(number));
                    }
                    self.interest.born(row.id, number);
                }
                return;
            }
            // It is told in full, and so learns that its version does not count (F3).
            Placed::Bared { offset } => {
                own.refused = false;
                conn.owed.push_back((offset.next(), Owed::Ack { owner, seq }));
                if let Some(claim) = frame.claim {
                    self.claims.ending(claim, own.id, offset);
                }
                return;
            }
            Placed::Voided { offset, code } => {
                own.refused = true;
                conn.mine.insert(offset);
                let code = u64::from(code.number());
                return conn.owed.push_back((offset.next(), Owed::Refused { owner, seq, uid, code }));
            }
            // R3: not before it is durable, whenever it was appended; it is below the head.
            Placed::Duplicate => {
                let at = if mutate::on(Mutation::DuplicateAtOnce) { self.log.durable } else { head };
                conn.owed.push_back((at, Owed::Ack { owner, seq }));
                if let Some(claim) = frame.claim {
                    self.claims.ended_before(claim);
                }
                return;
            }
            Placed::Refused { code } => {
                own.refused = true;
                return conn.owed.push_back((head, Owed::Refused { owner, seq, uid, code }));
            }
            // If the Roll is never written, it has to come again as it is.
            Placed::Rebase { segment, generation } => {
                own.refused = true;
                return conn.owed.push_back((head, Owed::Rebase { owner, seq, segment, generation }));
            }
            // R2c: without a refusal before it, nothing of ours explains the gap.
            Placed::Ignored(Ignored::Gap) if !own.refused => return self.close(id, Code::BadFrame),
            Placed::Ignored(_) => {
                own.refused = true;
                return;
            }
            // Its first one was not admitted on this connection (R2d, R2e): the line is not unknown, it has not begun.
            Placed::Unknown if own.refused => return,
            Placed::Held => return self.busy_for(id, owner, seq, Code::Restoring, RETRY_MS),
            Placed::Conflict { uid } => Down::Conflict { owner, seq, uid },
            Placed::Unknown => Down::Unknown { owner },
        };
        own.refused = true;
        self.answer(id, &answer);
    }

    /// Says once per line: not now, from this number on. What is passed over behind that is told again when the log has been
    /// read (`recovered`): the number told may be acknowledged meanwhile, and its sender send what lies behind it alone.
    pub(super) fn busy(&mut self, id: ConnId, owner: u64, seq: Seq) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(own) = usize::try_from(owner).ok().and_then(|at| conn.own.get_mut(at)) else { return };
        own.refused = true;
        // The first of them again is a resend, and is told again: the log is still being read.
        if own.busy_from.is_some_and(|from| from < seq) {
            own.passed_over = Some(own.passed_over.map_or(seq, |first| first.min(seq)));
            return;
        }
        own.busy_from = Some(seq);
        own.passed_over = None;
        let code = u64::from(Code::DiskFull.number());
        self.send(id, &Down::Busy { owner, seq, code, retry_ms: BUSY_RETRY_MS });
    }
}
