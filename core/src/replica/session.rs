//! The connection: hello, the names it declares, and what each frame of the relay leads to. `WIRE.md` §8 has the picture.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::cut::{Answered, Long};
use super::lines::Ended;
use super::pending::Unsaved;
use super::restore::Frozen;
use super::{Author, Output, Replica, WaitError};
use crate::commit::{EngineKind, PartBody};
use crate::heap::{Slot, State};
use crate::id::{EpochId, GenId, Nonce, Offset, SegmentId, SegmentNumber, Seq};
use crate::limits;
use crate::mutate::{self, Mutation};
use crate::wire::code::Code;
use crate::wire::codec::Malformed;
use crate::wire::frame::down::{Asked, EntryFrame, Welcome};
use crate::wire::frame::up::{CommitFrame, Hello};
use crate::wire::frame::{
    Assembly, Bulk, Chunk, Down, PART_CREATE, PART_DELETE, PART_DELTA, PartFrame, SegRef, Up, message_of, split,
};

/// The phases of a connection; each holds only what that phase has.
#[derive(Debug)]
pub(super) enum Session {
    /// No connection.
    Offline,
    /// The Hello is sent; the answer, or pieces of it, is awaited.
    Greeting(Box<Assembly<Long>>),
    /// Entries come, commits go.
    Online(Box<Online>),
}

/// What belongs to one connection.
#[derive(Debug, Default)]
pub(super) struct Online {
    pub assembly: Assembly<Long>,
    names: BTreeMap<SegmentNumber, SegmentId>,
    numbers: BTreeMap<SegmentId, SegmentNumber>,
    authors: BTreeMap<u64, Author>,
    /// How many unacknowledged commits may be under way.
    window: u64,
    /// Below this position the log has forgotten lines; it was at least as long when it said so.
    forgotten: Offset,
    /// After a Busy: not before this time.
    retry_at: Option<u64>,
    /// What stands still is reported again, since the relay had not looked at it: not before this time (R12).
    pub(super) report_at: Option<u64>,
    /// The program has been told that the relay has no room, and nothing has been acknowledged since.
    no_room: bool,
    /// The relay wants back what it has lost: nothing of the stream counts until that is done.
    pub frozen: Option<Box<Frozen>>,
    /// Loads that the relay declined: asked for again when a segment has gone.
    declined: bool,
    /// Segments that were given up on this connection, and have not been loaded since: what still comes of them may be from before.
    given_up: BTreeSet<SegmentId>,
}

impl Session {
    /// When something is sent again.
    pub(super) fn again_at(&self) -> Option<u64> {
        match self {
            Session::Online(online) => online.retry_at.into_iter().chain(online.report_at).min(),
            _ => None,
        }
    }
}

impl Online {
    pub(super) fn segment(&self, segment: SegRef) -> Option<SegmentId> {
        match segment {
            SegRef::Id(id) => Some(id),
            SegRef::Number(number) => self.names.get(&number).copied(),
        }
    }

    pub(super) fn author(&self, number: u64) -> Author {
        self.authors.get(&number).cloned().unwrap_or_default()
    }

    fn name(&self, id: SegmentId) -> SegRef {
        self.numbers.get(&id).map_or(SegRef::Id(id), |number| SegRef::Number(*number))
    }
}

impl Replica {
    pub(super) fn connected(&mut self, token: String, entropy: [u64; 4]) {
        self.entropy.stir(entropy);
        let residents: Vec<_> = self
            .heap
            .iter()
            .filter_map(|(_, slot)| slot.generation().map(|generation| (slot, generation)))
            // F2: what a copy of this process wrote may have the engine identities of what is to be undone in this document, so
            // no entry can be applied to it: the relay answers with states, and C5 shows all of them in one step.
            .map(|(slot, generation)| match &slot.state {
                State::Loading { redo: true, .. } => (slot.id, GenId::NONE),
                _ => (slot.id, generation),
            })
            .collect();
        let bulk = Bytes::from(Hello::encode_residents(&residents));
        let (bulk, chunks) = in_pieces(bulk, 1);
        let hello = Hello {
            features: 0,
            fresh: self.fresh,
            restoring: self.restoring,
            must_exist: self.options.must_exist && self.fresh,
            token,
            name: self.options.name.clone(),
            heap: self.options.heap.clone(),
            own: self.declare_lines(),
            epoch: self.epochs.last().map(|(epoch, _)| *epoch).unwrap_or_default(),
            cut: self.cut,
            bulk,
        };
        self.session = Session::Greeting(Box::default());
        self.forward(&Up::Hello(hello));
        for chunk in chunks {
            self.forward(&Up::Chunk(chunk));
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.session = Session::Offline;
        self.waits.disconnected();
        // What was loading is asked again; its old answer is void.
        for (_, slot) in self.heap.iter_mut() {
            if let State::Loading { nonce, buffer, .. } = &mut slot.state {
                *nonce = None;
                buffer.clear();
            }
        }
        for (_, slot) in self.heap.iter_mut() {
            if let Some(broken) = &mut slot.broken {
                broken.told = false;
            }
        }
    }

    /// Sends one frame as it is, if there is a connection.
    pub(super) fn forward(&mut self, frame: &Up) {
        if matches!(self.session, Session::Offline) {
            return;
        }
        let mut frames = Vec::new();
        frame.encode(&mut frames);
        self.stats.bytes_out += frames.len() as u64;
        self.out.push_back(Output::Send(Bytes::from(message_of(&frames))));
    }

    pub(super) fn unfollow(&mut self, id: SegmentId) {
        if let Session::Online(online) = &mut self.session {
            online.given_up.insert(id);
            let segment = online.name(id);
            self.forward(&Up::Unfollow { segment });
        }
    }

    /// Whether entries of this segment may be missing from the stream: it was given up, and the relay may not have got so far as
    /// to follow it again.
    pub(super) fn was_given_up(&self, id: SegmentId) -> bool {
        matches!(&self.session, Session::Online(online) if online.given_up.contains(&id))
    }

    /// The relay has answered the newest load of it: the stream has it again from that position on.
    pub(super) fn is_followed_again(&mut self, id: SegmentId) {
        if let Session::Online(online) = &mut self.session
            && !mutate::on(Mutation::GivenUpForGood)
        {
            online.given_up.remove(&id);
        }
    }

    /// A segment has gone: what the relay declined for want of room may be had now.
    pub(super) fn ask_for_the_declined(&mut self) {
        if let Session::Online(online) = &mut self.session
            && std::mem::take(&mut online.declined)
        {
            self.ask_for_the_missing();
        }
    }

    /// The relay did not do what was asked for. A claim and a membership fail; a load goes on
    /// waiting, but says why.
    fn declined(&mut self, asked: Asked, nonce: Nonce, code: u64) {
        let text = Code::from_number(code).map_or("for a reason that is not known here", Code::text);
        match asked {
            Asked::Claim | Asked::Join => {
                self.out.push_back(Output::Failed { ticket: nonce.0, error: WaitError::Refused(code) });
            }
            // It stays frozen, and is reported again: soon if the relay can look at it, else on the next connection.
            Asked::Report => {
                if Code::from_number(code) == Some(Code::Rate) {
                    self.report_later(Offset(nonce.0));
                }
            }
            Asked::Presence => {
                self.problem(js_code(code), format!("the relay did not show this member to a group: {text}"));
            }
            Asked::Load => {
                let waits = |state: &State| matches!(state, State::Loading { nonce: Some(of), .. } if *of == nonce);
                let found = self.heap.iter().find(|(_, slot)| waits(&slot.state)).map(|(index, _)| index);
                let slot = found.and_then(|index| self.heap.slot_mut(index));
                let Some(State::Loading { nonce, buffer, .. }) = slot.map(|slot| &mut slot.state) else { return };
                *nonce = None;
                buffer.clear();
                if let Session::Online(online) = &mut self.session {
                    online.declined = true;
                }
                self.problem(js_code(code), format!("the relay did not send a segment: {text}"));
            }
        }
    }

    /// Asks for a segment, if there is a connection; the answer carries the nonce. L5: what was kept of it is named, but not to a
    /// relay that has lost its log (D2): that may be of what is lost.
    pub(super) fn ask(&mut self, id: SegmentId) -> Option<Nonce> {
        let Session::Online(online) = &self.session else { return None };
        let segment = online.name(id);
        let mut have = None;
        if let Some(State::Loading { copy, .. }) = self.heap.by_id_mut(id).map(|(_, slot)| &mut slot.state) {
            copy.take_if(|_| self.restoring);
            have = copy.as_ref().map(|copy| copy.have());
        }
        self.nonce += 1;
        let nonce = Nonce(self.nonce);
        self.forward(&Up::Load { segment, nonce, have });
        Some(nonce)
    }

    /// A message of the relay. One that does not parse ends the connection: the driver opens another.
    pub(super) fn receive(&mut self, message: &Bytes) {
        self.stats.bytes_in += message.len() as u64;
        let frames = match split(message) {
            Ok(frames) => frames,
            Err(error) => return self.garbled(error),
        };
        for (kind, body) in frames {
            match Down::decode(kind, &body) {
                Ok(Some(frame)) => {
                    if let Err(error) = self.frame(frame) {
                        return self.garbled(error);
                    }
                }
                Ok(None) => {}
                Err(error) => return self.garbled(error),
            }
        }
    }

    fn garbled(&mut self, error: Malformed) {
        self.disconnected();
        self.problem("ERR_PROTOCOL", format!("the relay sent what is no coheap message: {error}"));
    }

    fn frame(&mut self, frame: Down) -> Result<(), Malformed> {
        match (frame, &mut self.session) {
            (Down::Ok(welcome), Session::Greeting(assembly)) => {
                let bulk = welcome.bulk.clone();
                if let Some((Long::Ok(welcome), bulk)) = assembly.head(Long::Ok(Box::new(welcome)), bulk)? {
                    self.welcome(*welcome, &bulk)?;
                }
            }
            (Down::Chunk(chunk), Session::Greeting(assembly)) => {
                if let Some((Long::Ok(welcome), bulk)) = assembly.chunk(&chunk)? {
                    self.welcome(*welcome, &bulk)?;
                }
            }
            (frame, Session::Online(_)) => self.online(frame)?,
            (_, Session::Greeting(_)) => return Err(Malformed::Field("a frame before the answer to the hello")),
            (_, Session::Offline) => {}
        }
        Ok(())
    }

    fn online(&mut self, frame: Down) -> Result<(), Malformed> {
        let Session::Online(online) = &mut self.session else { return Ok(()) };
        match frame {
            Down::Names(names) => {
                for (number, id) in names {
                    online.names.insert(number, id);
                    online.numbers.insert(id, number);
                }
            }
            Down::Author { number, replica, name, subject } => {
                online.authors.insert(number, Author { replica, name, subject });
            }
            Down::Entry(entry) => self.entry(entry),
            Down::Roll(frame) => {
                let bulk = frame.bulk.clone();
                let whole = online.assembly.head(Long::Roll(frame.offset, frame.header), bulk)?;
                self.long(whole)?;
            }
            Down::Advance { .. } if online.frozen.is_some() => {}
            Down::Advance { position } => self.cut = self.cut.max(position),
            Down::Restored(frame) => {
                let bulk = frame.bulk.clone();
                let whole = online.assembly.head(Long::Restored(frame), bulk)?;
                self.long(whole)?;
            }
            Down::Ack { owner, seq, position } => self.acknowledged(owner, seq, position),
            Down::Snapshot { nonce, position, bulk, onto_copy } => {
                let head = Long::Snapshot(Answered { nonce, position, onto_copy });
                let whole = online.assembly.head(head, bulk)?;
                self.long(whole)?;
            }
            Down::Chunk(chunk) => {
                let whole = online.assembly.chunk(&chunk)?;
                self.long(whole)?;
            }
            Down::Refused { owner, seq, uid, code, position } => {
                self.waits.acked(position);
                if let Some(owner) = self.lines.owner(owner) {
                    self.refused(owner, seq, uid, code);
                }
            }
            Down::Busy { owner, seq, code, retry_ms } => {
                let retry_at = self.now_ms.saturating_add(retry_ms);
                online.retry_at = Some(retry_at);
                // Said once, however often it is tried again: this can last for hours. What else is busy passes soon.
                let no_room = Code::from_number(code) == Some(Code::DiskFull);
                if no_room && !std::mem::replace(&mut online.no_room, true) {
                    self.problem(js_code(code), "the relay's disk is full: what is written here stays unsaved, and is sent again until there is room");
                }
                if seq == Seq(0) {
                    self.restore_again();
                }
                if let Some(owner) = self.lines.owner(owner) {
                    self.pending.unsent_from(owner, seq);
                }
                self.out.extend(self.deadline().map(Output::Deadline));
            }
            Down::Conflict { owner, seq, .. } => self.conflict(owner, seq),
            Down::Unknown { owner } => {
                if let Some(owner) = self.lines.owner(owner) {
                    self.unknown(owner);
                }
            }
            Down::Rebase { segment, generation, .. } => self.rebased(segment, generation),
            Down::SyncAt { nonce, position } => self.waits.head(nonce, position),
            Down::Quarantine { offset, segment, client, .. } => self.quarantined(offset, segment, client),
            Down::Reload { segment, .. } => {
                if let Some(id) = self.resolve(segment) {
                    self.thaw(id);
                }
            }
            Down::Declined { asked, nonce, code } => self.declined(asked, nonce, code),
            Down::Joined { group, run, member, .. } => self.out.push_back(Output::Joined { group, run, member }),
            Down::Group { group, run, members, done, held } => {
                let (done, held) = (done.to_vec(), held.to_vec());
                self.out.push_back(Output::Group { group, run, members, done, held });
            }
            Down::Claimed { nonce, group, run, key, grant, state } => {
                self.out.push_back(Output::Claimed { ticket: nonce.0, group, run, key, grant, state });
            }
            Down::Lost { group, run, key, grant } => self.out.push_back(Output::Lost { group, run, key, grant }),
            Down::Member { group, replica, gone, since_ms, name, subject, state } => {
                self.out.push_back(Output::Member { group, replica, gone, since_ms, name, subject, state });
            }
            _ => {}
        }
        Ok(())
    }

    /// A long message, if it is whole.
    fn long(&mut self, whole: Option<(Long, Bytes)>) -> Result<(), Malformed> {
        match whole {
            Some((Long::Snapshot(answered), bulk)) => match self.put_aside(answered, bulk) {
                Some(bulk) => self.loaded(answered, &bulk),
                None => Ok(()),
            },
            Some((Long::Restored(frame), bulk)) => self.restored(&frame, &bulk),
            Some((Long::Roll(offset, header), bulk)) => self.rolled(offset, header, &bulk),
            Some((Long::Ok(_), _)) | None => Ok(()),
        }
    }

    /// C3: rings, epochs, position and catch-up in one step; then everything pending; then what was loading.
    fn welcome(&mut self, mut welcome: Welcome, bulk: &Bytes) -> Result<(), Malformed> {
        // What was given back to a log is lost with it. Before anything goes to another line.
        if welcome.restore || !self.goes_on_in(&welcome.epochs) {
            self.pending.iter_mut().for_each(Unsaved::is_not_given);
        }
        if !self.compare_rings(&welcome, welcome.restore && !self.fresh) {
            return Ok(());
        }
        self.lines.settle(&welcome.ring);
        let first = self.fresh;
        let epoch = welcome.epochs.last().map(|(epoch, _)| *epoch).unwrap_or_default();
        let (window, forgotten) = (welcome.window.max(1), welcome.forgotten);
        self.session = Session::Online(Box::new(Online { window, forgotten, ..Online::default() }));
        if welcome.restore && !first && !mutate::on(Mutation::GiveNothingBack) {
            self.pending.reconnected();
            self.out.push_back(Output::Online { exists: welcome.exists, time_ms: welcome.time_ms, epoch });
            self.freeze(&mut welcome);
            self.ask_for_the_missing();
            return Ok(());
        }
        if std::mem::take(&mut self.restoring) {
            // Who may not write cannot give anything back, and goes on from what the relay has.
            self.doubtful.extend(self.pending.still_forgotten());
            self.waits.new_log();
            self.out.push_back(Output::Restoring { begins: false });
        }
        self.goes_on_with(welcome.epochs, welcome.lineage);
        self.fresh = false;
        self.keep_lives();
        self.pending.reconnected();
        if welcome.catchup {
            let alone = first && welcome.ring.is_empty();
            self.catch_up(welcome.position, bulk, alone)?;
        }
        self.cut = welcome.position;
        self.out.push_back(Output::Online { exists: welcome.exists, time_ms: welcome.time_ms, epoch });
        self.ask_for_the_missing();
        self.send_reports();
        self.send_pending();
        self.ask_heads();
        Ok(())
    }

    /// Positions are those of the log with these lives from here on.
    pub(super) fn goes_on_with(&mut self, epochs: Vec<(EpochId, Offset)>, lineage: EpochId) {
        let agreed = self.agrees_with(&epochs);
        self.pending.known_up_to(agreed);
        (self.epochs, self.lineage) = (epochs, lineage);
    }

    /// Up to where a log of these lives is the one that this replica knows.
    pub(super) fn agrees_with(&self, epochs: &[(EpochId, Offset)]) -> Offset {
        // Before it lost anything, a life is the same in both, up to where either says that the next one began.
        let end =
            |lives: &[(EpochId, Offset)], at: usize| lives.get(at + 1).map_or(Offset(u64::MAX), |(_, start)| *start);
        let common = self.epochs.iter().enumerate().rev().find_map(|(here, (epoch, _))| {
            let there = epochs.iter().position(|(of, _)| of == epoch)?;
            Some(end(&self.epochs, here).min(end(epochs, there)))
        });
        common.unwrap_or(Offset(0))
    }

    /// Whether a log of these lives has all that this replica's cut covers.
    pub(super) fn goes_on_in(&self, epochs: &[(EpochId, Offset)]) -> bool {
        let Some((epoch, _)) = self.epochs.last() else { return false };
        let Some(at) = epochs.iter().position(|(of, _)| of == epoch) else { return false };
        epochs.get(at + 1).is_none_or(|(_, start)| self.cut <= *start)
    }

    /// Sends what is unacknowledged and not sent, in order, within the window. Nothing goes out while a refusal is being
    /// worked in: what lies behind it is made anew first (C7, C8).
    pub(super) fn send_pending(&mut self) {
        self.doubt();
        let Session::Online(online) = &mut self.session else { return };
        if online.retry_at.is_some_and(|at| at > self.now_ms) {
            return;
        }
        online.retry_at = None;
        if online.frozen.is_some() {
            return self.send_restore();
        }
        if self.heap.is_undoing() && !mutate::on(Mutation::SendUnmade) {
            return;
        }
        let mut frames = Vec::new();
        let mut messages = Vec::new();
        let (mut undeclared, mut refused) = (false, false);
        let mut offered = Vec::new();
        for (at, one) in self.pending.window_mut(online.window).enumerate() {
            // What lies behind a refused one is made anew first. Not even a line that a copy of this process has gone on with.
            if std::mem::replace(&mut refused, one.void) {
                break;
            }
            if one.sent {
                continue;
            }
            // R11, R12: nor does what is to be made anew in a segment that stands still, until that is to be had again.
            if one.to_redo().any(|id| self.heap.index(id).and_then(|i| self.heap.slot(i)).is_some_and(Slot::is_frozen))
            {
                break;
            }
            let commit = &one.commit;
            let Some(owner) = self.lines.place(commit.owner) else {
                // The Hello had no room for its id.
                undeclared = at == 0;
                break;
            };
            if !std::mem::replace(&mut one.offered, true) {
                one.offered_in = self.epochs.last().map(|(epoch, _)| *epoch);
                offered.push(one.number);
            }
            if one.offered_at.is_none() {
                one.offered_at = Some(self.cut.max(online.forgotten));
                offered.push(one.number);
            }
            one.sent = true;
            let parts = commit.parts.iter().map(|part| {
                let segment = online.name(part.segment);
                let generation = part.generation;
                match &part.body {
                    PartBody::Delta(delta) => {
                        PartFrame { kind: PART_DELTA, segment, generation, create: None, bytes: delta.clone() }
                    }
                    PartBody::Create { engine, layout, delta } => {
                        let create = Some((*engine, *layout));
                        PartFrame { kind: PART_CREATE, segment, generation, create, bytes: delta.clone() }
                    }
                    PartBody::Delete => {
                        PartFrame { kind: PART_DELETE, segment, generation, create: None, bytes: Bytes::new() }
                    }
                    PartBody::Opaque { kind, bytes } => {
                        PartFrame { kind: *kind, segment, generation, create: None, bytes: bytes.clone() }
                    }
                }
            });
            let frame = CommitFrame {
                owner,
                seq: commit.seq,
                uid: commit.uid,
                prev: Some(commit.prev),
                after: commit.after.and_then(|after| Some((self.lines.place(after.owner)?, after.seq, after.uid))),
                claim: commit.claim.clone(),
                label: commit.label.clone(),
                parts: parts.collect(),
            };
            let before = frames.len();
            Up::Commit(frame).encode(&mut frames);
            if before > 0 && frames.len() > limits::CHUNK_BYTES_MAX {
                let last = frames.split_off(before);
                messages.push(std::mem::replace(&mut frames, last));
            }
        }
        self.pending.changed(offered);
        if !frames.is_empty() {
            messages.push(frames);
            // C8: what was made anew is told outside before it goes out.
            self.keep_commits();
        }
        for frames in messages {
            self.stats.bytes_out += frames.len() as u64;
            self.out.push_back(Output::Send(Bytes::from(message_of(&frames))));
        }
        if undeclared {
            self.reconnect();
        }
    }

    fn acknowledged(&mut self, owner: u64, seq: Seq, position: crate::id::Offset) {
        self.waits.acked(position);
        if let Session::Online(online) = &mut self.session {
            online.no_room = false;
        }
        let Some(owner) = self.lines.owner(owner) else { return };
        let ended = self.pending.acknowledged(owner, seq);
        for one in &ended {
            let of = Some(one.commit.owner).filter(|owner| *owner != self.id);
            let (seq, uid) = (one.commit.seq, one.commit.uid);
            self.lines.ended(Ended { of, seq, uid, hash: one.hash_in_the_log().unwrap_or(0) });
            // What it was to create is in the log, whoever did.
            for part in one.commit.parts.iter().filter(|_| !one.void) {
                self.is_born(part.segment);
            }
        }
        // Lines are acknowledged apart; the program hears of commits in the order it made them.
        let oldest = self.pending.iter().next().map_or(self.number.next(), |one| one.number);
        for one in ended.iter().filter(|one| one.number > oldest) {
            self.keep_no_more(one.number);
        }
        if ended.iter().any(|one| one.number < oldest) {
            let seq = Seq(oldest.0 - 1);
            self.out.push_back(Output::Acked { seq, unsaved: self.pending.len(), unsaved_bytes: self.pending.bytes() });
        }
        self.send_pending();
    }

    /// X5: the segment's Roll is on its way, and says what was admitted before it; this does not. C10: two replicas have made it
    /// with different engines, and it is the other's: no Roll comes, and the relay need not send this one anything of it. What
    /// the log has is loaded, and G3 does the rest.
    fn rebased(&mut self, segment: SegRef, generation: GenId) {
        let Some(id) = self.resolve(segment) else { return };
        let slot = self.heap.index(id).and_then(|index| self.heap.slot(index));
        let Some(State::Live(document)) = slot.map(|slot| &slot.state) else { return };
        // What keeps history has no other generation (G2).
        let other = generation.is_zero() || document.engine() == EngineKind::Automerge;
        if other && document.generation() != generation {
            self.reload(id, false);
        }
    }

    fn entry(&mut self, entry: EntryFrame) {
        let Session::Online(online) = &self.session else { return };
        let author = online.author(entry.author);
        self.apply_entry(entry, author);
    }

    /// There is a connection, and its Hello was answered.
    pub(super) fn is_online(&self) -> bool {
        matches!(self.session, Session::Online(_))
    }

    pub(super) fn resolve(&self, segment: SegRef) -> Option<SegmentId> {
        match &self.session {
            Session::Online(online) => online.segment(segment),
            _ => None,
        }
    }
}

/// A bulk as head piece and chunks.
pub(super) fn in_pieces(bulk: Bytes, stream: u64) -> (Bulk, Vec<Chunk>) {
    if bulk.len() <= limits::CHUNK_BYTES_MAX {
        return (Bulk::whole(bulk), Vec::new());
    }
    let head = bulk.slice(..limits::CHUNK_BYTES_MAX);
    let mut chunks = Vec::new();
    let mut at = limits::CHUNK_BYTES_MAX;
    while at < bulk.len() {
        let end = (at + limits::CHUNK_BYTES_MAX).min(bulk.len());
        chunks.push(Chunk { stream, last: end == bulk.len(), bytes: bulk.slice(at..end) });
        at = end;
    }
    (Bulk { stream, bytes: head }, chunks)
}

/// The JS code of a relay's code (`WIRE.md` §7).
pub fn js_code(code: u64) -> &'static str {
    match Code::from_number(code) {
        Some(Code::TooLarge | Code::MessageTooLarge) => "ERR_TOO_LARGE",
        Some(Code::ClaimLost | Code::Replaced) => "ERR_CONFLICT",
        Some(Code::NoRight | Code::Forbidden) => "ERR_FORBIDDEN",
        Some(Code::Quarantined) => "ERR_QUARANTINED",
        Some(Code::TooMany) => "ERR_OVER_BUDGET",
        Some(Code::DiskFull) => "ERR_STORAGE_FULL",
        Some(Code::Rate) => "ERR_RATE_LIMITED",
        _ => "ERR_REFUSED",
    }
}
