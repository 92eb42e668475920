//! Connections: they open and end, messages go over them in both directions, some after their end.

use bytes::Bytes;
use coheap_core::id::ReplicaId;
use coheap_core::relay::{ConnId, Input as RelayInput};
use coheap_core::replica::Input;
use coheap_core::segment::write::Draw;
use coheap_core::wire::code::Code;

use super::super::process::{Link, cut};
use super::{Failure, World};

/// How long a process waits at most before it comes again that another connection displaced, while the world comes to rest.
const DISPLACED_RESTS_MS: usize = 60;

impl World {
    /// A connection opens, if there is a relay.
    pub(super) fn connect(&mut self, at: usize, can_write: bool) -> Result<(), Failure> {
        if !self.is_up || self.processes[at].link.is_some() || self.is_paused(at) {
            return Ok(());
        }
        self.conns += 1;
        let (conn, heap) = (ConnId(self.conns), self.heap_of(at));
        self.load_heap(heap)?;
        let process = &mut self.processes[at];
        process.link = Some(Link::new(conn, self.losses));
        self.relay(heap, RelayInput::Opened { conn, subject: String::new(), can_write })?;
        let entropy = [0; 4].map(|_: u64| self.draws.draw());
        self.input(at, Input::Connected { token: String::new(), entropy })
    }

    /// The replica's end of a connection is closed. Its messages that are still under way stay with the relay's end.
    pub(super) fn hang_up(&mut self, at: usize) -> Result<Option<Link>, Failure> {
        let process = &mut self.processes[at];
        process.online = false;
        let link = process.link.take();
        if let Some(link) = &link {
            for kind in link.between.iter().flatten() {
                *self.tally.torn.entry(*kind).or_default() += 1;
            }
            // As the npm package does (code 9, F4).
            let replaced = !link.relay_open && link.code == Some(Code::Replaced.close_code());
            process.displaced += u32::from(replaced);
            // Two that go by one id, and come again at the same time whenever they displaced each other, would do so for ever.
            process.rests_until = if replaced { self.now + self.draws.below(DISPLACED_RESTS_MS) as u64 } else { 0 };
            self.input(at, if replaced { Input::Replaced } else { Input::Disconnected })?;
        }
        Ok(link)
    }

    /// The relay's end of a connection learns that it is over.
    pub(super) fn closed(&mut self, heap: usize, link: &Link) -> Result<(), Failure> {
        self.heaps[heap].grants.closed(self.now, link.conn);
        if link.relay_open { self.relay(heap, RelayInput::Closed { conn: link.conn }) } else { Ok(()) }
    }

    /// A message reaches the relay.
    fn reaches_relay(&mut self, heap: usize, conn: ConnId, by: Option<ReplicaId>, bytes: &Bytes) {
        if let Some(by) = by.filter(|_| self.plan.claims) {
            self.heaps[heap].grants.up(self.now, conn, by, bytes);
        }
    }

    pub(super) fn up(&mut self, at: usize, count: u8) -> Result<(), Failure> {
        for _ in 0..count {
            let heap = self.heap_of(at);
            let Some(link) = &mut self.processes[at].link else { break };
            if link.silent || !link.relay_open {
                break;
            }
            let Some(bytes) = link.up.pop_front() else { break };
            if self.plan.long {
                link.gets(false, &bytes);
            }
            link.greeted = true;
            let (conn, by) = (link.conn, link.own.first().copied());
            if let Some((by, sight)) = link.arrives(&bytes) {
                self.heaps[heap].given.insert(by, sight);
            }
            self.reaches_relay(heap, conn, by, &bytes);
            self.relay(heap, RelayInput::Message { conn, bytes })?;
        }
        Ok(())
    }

    /// One of the messages of commits that are under way to the relay is there twice from here on.
    pub(super) fn repeat(&mut self, at: usize, pick: usize) {
        let Some(link) = &mut self.processes[at].link else { return };
        let commits: Vec<usize> = link.commits().collect();
        let Some(nth) = commits.get(pick % commits.len().max(1)).copied() else { return };
        link.up.insert(nth + 1, link.up[nth].clone());
        self.tally.repeated += 1;
        self.note(|| format!("message {nth} of process {at} is under way twice"));
    }

    /// What a replica had sent on a connection that it has given up arrives; behind the last of it, its end does.
    pub(super) fn late_up(&mut self, pick: u16) -> Result<(), Failure> {
        if self.late.is_empty() {
            return Ok(());
        }
        let at = usize::from(pick) % self.late.len();
        let (heap, link) = &mut self.late[at];
        let (heap, conn, by) = (*heap, link.conn, link.own.first().copied());
        if link.awaits_an_answer() {
            return Ok(());
        }
        if let (true, Some(bytes)) = (link.relay_open, link.up.pop_front()) {
            link.greeted = true;
            if let Some((by, sight)) = link.arrives(&bytes) {
                self.heaps[heap].given.insert(by, sight);
            }
            self.reaches_relay(heap, conn, by, &bytes);
            return self.relay(heap, RelayInput::Message { conn, bytes });
        }
        let (heap, link) = self.late.remove(at);
        self.closed(heap, &link)
    }

    pub(super) fn down(&mut self, at: usize, count: u8) -> Result<(), Failure> {
        for _ in 0..count {
            if self.is_paused(at) {
                break;
            }
            let heap = self.heap_of(at);
            let Some(link) = &mut self.processes[at].link else { break };
            if link.silent {
                break;
            }
            let (conn, relay_open) = (link.conn, link.relay_open);
            let Some(message) = link.down.pop_front() else {
                // The relay closed it, and this is the end of it.
                if !relay_open {
                    self.hang_up(at)?;
                }
                break;
            };
            if self.plan.long {
                link.gets(true, &message);
            }
            let bytes = message.len() - 1;
            self.input(at, Input::Receive(message))?;
            if relay_open {
                self.relay(heap, RelayInput::Written { conn, bytes })?;
            }
        }
        Ok(())
    }

    /// A replica finds that its connection is silent.
    pub(super) fn notice(&mut self, at: usize) -> Result<(), Failure> {
        if self.processes[at].link.as_ref().is_some_and(|link| link.silent) {
            let heap = self.heap_of(at);
            if let Some(mut link) = self.hang_up(at)? {
                link.up.clear();
                self.late.push((heap, link));
            }
        }
        Ok(())
    }
}

/// Cuts a link at a byte in each direction.
pub(super) fn cut_both(link: &mut Link, pick: u16) {
    cut(&mut link.up, pick);
    cut(&mut link.down, pick.rotate_left(7));
}
