//! A conversation of two replicas through a relay, written down: always the same one. What an input does comes behind a part
//! of it, so that every phase of a session is met, with numbers, nonces and writers that are right.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use coheap_core::edge;
use coheap_core::id::SegmentId;
use coheap_core::replica::{Input, Options, Output, Replica};
use coheap_core::wire::codec::Write;
use coheap_core::wire::frame::message_of;

use crate::input::Piece;
use crate::relay::Desk;

/// What was said.
#[derive(Debug, Default)]
pub struct Talk {
    /// Every call of the first replica, as `replica.rs` reads them.
    pub replica: Vec<Piece>,
    /// Everything that happened to the relay, as `relay.rs` reads it.
    pub relay: Vec<Piece>,
    /// The first replica, packed now and then.
    pub packed: Vec<Bytes>,
}

/// The conversation.
pub fn talk() -> &'static Talk {
    static TALK: LazyLock<Talk> = LazyLock::new(hold);
    &TALK
}

/// How the replicas are opened.
pub fn options(seed: u8) -> Options {
    Options { seed: [seed; 32], heap: "h".into(), name: "r".into(), must_exist: false, max_unsaved: 0 }
}

/// Operations of the edge.
pub mod op {
    #![allow(missing_docs, reason = "`edge.rs` says what they are")]
    pub const TICK: u8 = 0;
    pub const COMMIT: u8 = 1;
    pub const RECEIVE: u8 = 2;
    pub const CONNECTED: u8 = 3;
    pub const DISCONNECTED: u8 = 4;
    pub const LOAD: u8 = 5;
    pub const EVICT: u8 = 6;
    pub const WAIT: u8 = 7;
    pub const DUMP: u8 = 9;
    pub const JOIN: u8 = 11;
    pub const LEAVE: u8 = 12;
    pub const CLAIM: u8 = 13;
    pub const RELEASE: u8 = 14;
    pub const PRESENCE: u8 = 15;
    pub const OBJECT: u8 = 16;
    pub const STATS: u8 = 18;
    pub const EXPORT: u8 = 19;
}

/// A call's bytes without its time.
fn record(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    build(&mut out);
    out
}

/// A commit that edits one segment, without its entropy.
fn commit(target: impl FnOnce(&mut Vec<u8>), edits: &[u8]) -> Vec<u8> {
    record(|out| {
        out.str("label");
        out.varint(1);
        target(out);
        out.push(0);
        out.bytes(edits);
    })
}

fn here(index: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |out| out.varint(index + 1)
}

fn new(id: u8, engine: u8) -> impl FnOnce(&mut Vec<u8>) {
    move |out| {
        out.push(0);
        out.extend_from_slice(&[id; 16]);
        out.push(engine);
    }
}

fn load(id: SegmentId) -> Vec<u8> {
    record(|out| {
        out.push(1);
        out.extend_from_slice(&id.0);
        out.push(1);
    })
}

/// Everything that the first object of a segment can be given: handles 1 list, 2 text, 3 counter, 4 set, 5 map.
fn furnish() -> Vec<u8> {
    record(|out| {
        out.extend_from_slice(&[1, 0, 1, b'l', 10, 1, 3, 4, 2, 5, 1, b'x', 0]);
        out.extend_from_slice(&[1, 0, 1, b't', 10, 2, 5, b'h', b'e', b'l', b'l', b'o']);
        out.extend_from_slice(&[1, 0, 1, b'c', 10, 3, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        out.extend_from_slice(&[1, 0, 1, b's', 10, 4, 1, 5, 1, b'm']);
        out.extend_from_slice(&[1, 0, 1, b'm', 10, 0, 1, 1, b'k', 4, 4]);
    })
}

/// An edit of each of those.
fn change() -> Vec<u8> {
    record(|out| {
        out.extend_from_slice(&[4, 1, 1, 2, 4, 6, 2, 7, 1, 0, 3, 6, 1, 1, 4, 8, 5, 1, 2, 1]);
        out.extend_from_slice(&[8, 2, 1, 3, 2, b'E', b'Y', 9, 3, 0, 0, 0, 0, 0, 0, 0, 0x40]);
        out.extend_from_slice(&[10, 4, 4, 9, 11, 4, 5, 1, b'm', 1, 5, 1, b'j', 8, 1, 7, 2, 5, 1, b'k']);
        out.extend_from_slice(&[14, 0, 1, b'd', 4, 2, 15, 1, b'g', 1, b'r']);
    })
}

/// Both replicas, their connections and the relay.
struct Hall {
    talk: Talk,
    replicas: [Replica; 2],
    desk: Desk,
    now: u64,
    drawn: u64,
    /// Calls to be made, by replica.
    calls: VecDeque<(usize, u8, Vec<u8>)>,
}

impl Hall {
    /// What the operating system would have drawn for a call.
    fn entropy(&mut self, words: u64) -> Vec<u8> {
        let from = self.drawn;
        self.drawn += words;
        (from..self.drawn).flat_map(|n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
    }

    /// A call, and all that comes of it on both sides.
    fn call(&mut self, who: usize, op: u8, bytes: Vec<u8>) {
        let bytes = match op {
            op::COMMIT => [self.entropy(1), bytes].concat(),
            op::CONNECTED => [self.entropy(4), bytes].concat(),
            _ => bytes,
        };
        self.calls.push_back((who, op, bytes));
        while let Some((who, op, bytes)) = self.calls.pop_front() {
            self.now += 1;
            if who == 0 {
                self.talk.replica.push(Piece { tag: op, bytes: bytes.clone() });
            }
            let (_, input) = edge::read(op.into(), &timed(self.now, &bytes)).expect("a call of ours");
            if op == op::CONNECTED {
                self.event(Piece { tag: Desk::tag(who, Desk::OPEN), bytes: Vec::new() });
            }
            self.replicas[who].handle(self.now, input);
            let mut sent = Vec::new();
            while let Some(output) = self.replicas[who].poll() {
                match output {
                    Output::Send(message) => sent.push(message.to_vec()),
                    Output::Error { code, message } => panic!("{code}: {message} after op {op} {bytes:?}"),
                    _ => {}
                }
            }
            for bytes in sent {
                self.event(Piece { tag: Desk::tag(who, Desk::MESSAGE), bytes });
            }
        }
        if self.talk.replica.len().is_multiple_of(5) {
            let packed = self.replicas[0].export();
            self.talk.packed.push(packed.into());
        }
    }

    fn event(&mut self, piece: Piece) {
        self.desk.event(&piece);
        self.talk.relay.push(piece);
        for (to, frames) in std::mem::take(&mut self.desk.sent) {
            for who in to {
                self.calls.push_back((who, op::RECEIVE, message_of(&frames)));
            }
        }
        for who in std::mem::take(&mut self.desk.closed) {
            self.calls.push_back((who, op::DISCONNECTED, Vec::new()));
        }
    }

    fn hang_up(&mut self, who: usize) {
        self.event(Piece { tag: Desk::tag(who, Desk::CLOSE), bytes: Vec::new() });
        self.call(who, op::DISCONNECTED, Vec::new());
    }
}

/// The bytes of a call with its time before them.
pub fn timed(now: u64, bytes: &[u8]) -> Vec<u8> {
    record(|out| {
        out.varint(now);
        out.extend_from_slice(bytes);
    })
}

fn name(group: &str, run: &str, key: &[&str]) -> Vec<u8> {
    record(|out| {
        for text in [group, run].iter().chain(key) {
            out.str(text);
        }
    })
}

fn hold() -> Talk {
    let replicas = [Replica::new(options(7)), Replica::new(options(8))];
    let mut hall =
        Hall { talk: Talk::default(), replicas, desk: Desk::new(), now: 0, drawn: 0, calls: VecDeque::new() };
    let token = || record(|out| out.str(""));
    let wait = |ticket: u64, kind: u8| record(|out| out.extend_from_slice(&[ticket as u8, kind]));
    for who in [0, 1] {
        hall.call(who, op::LOAD, load(SegmentId::ROOT));
        hall.call(who, op::CONNECTED, token());
    }
    hall.call(0, op::COMMIT, commit(here(0), &furnish()));
    hall.call(1, op::COMMIT, commit(here(0), &[1, 0, 1, b'z', 4, 8]));
    hall.call(0, op::WAIT, wait(1, 0));
    hall.call(0, op::COMMIT, commit(here(0), &change()));
    hall.call(1, op::WAIT, wait(2, 1));
    // A segment of each engine, filled by one and changed by the other.
    for (at, engine) in [(1_u8, 0_u8), (2, 1)] {
        hall.call(0, op::COMMIT, commit(new(at, engine), &[12, 10, 0, 1, 1, b'a', 4, 2]));
        hall.call(0, op::COMMIT, commit(here(at.into()), &furnish()));
        hall.call(1, op::LOAD, load(SegmentId([at; 16])));
        hall.call(1, op::COMMIT, commit(here(at.into()), &[1, 0, 1, b'b', 1]));
        hall.call(0, op::COMMIT, commit(here(at.into()), &change()));
        hall.call(0, op::DUMP, vec![at]);
    }
    // Work that is shared.
    for who in [0, 1] {
        let mut join = vec![9];
        join.extend(name("g", "", &[]));
        join.extend([2, 0, 0]);
        hall.call(who, op::JOIN, join);
        hall.call(
            who,
            op::PRESENCE,
            record(|out| {
                out.str("g");
                out.push(0);
                out.bytes(b"here");
            }),
        );
    }
    hall.call(0, op::CLAIM, [vec![10], name("g", "", &["job"])].concat());
    hall.call(1, op::CLAIM, [vec![11], name("g", "", &["job"])].concat());
    // One without a connection goes on writing, the other too; then they meet again.
    hall.hang_up(0);
    hall.call(0, op::COMMIT, commit(here(0), &[1, 0, 1, b'o', 10, 1, 1, 0, 5, 1, 0, 1]));
    hall.call(1, op::COMMIT, commit(here(0), &[1, 0, 1, b'o', 10, 2, 1, b'x']));
    hall.call(1, op::COMMIT, commit(here(1), &[2, 0, 1, b'a']));
    hall.call(0, op::CONNECTED, token());
    hall.call(0, op::WAIT, wait(3, 2));
    hall.call(0, op::OBJECT, vec![0, 1]);
    hall.call(0, op::EVICT, vec![1]);
    hall.call(0, op::LOAD, load(SegmentId([1; 16])));
    // It is asked for while it changes, and then not there.
    hall.call(0, op::EVICT, vec![2]);
    hall.hang_up(1);
    hall.call(1, op::COMMIT, commit(here(1), &[1, 0, 1, b'q', 4, 4]));
    hall.call(0, op::LEAVE, name("g", "", &[]));
    hall.call(1, op::CONNECTED, token());
    hall.call(0, op::TICK, Vec::new());
    hall.call(0, op::STATS, Vec::new());
    hall.talk
}

/// A replica after a part of the conversation.
pub fn replica_after(calls: usize) -> (Replica, u64) {
    let mut replica = Replica::new(options(7));
    let mut now = 0;
    for piece in talk().replica.iter().take(calls) {
        now += 1;
        let input = match edge::read(piece.tag.into(), &timed(now, &piece.bytes)) {
            Ok((_, input)) => input,
            Err(_) => Input::Tick,
        };
        replica.handle(now, input);
        while replica.poll().is_some() {}
    }
    (replica, now)
}
