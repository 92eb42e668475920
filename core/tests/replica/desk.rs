//! What all these tests do with a replica: give it inputs and frames, and look through what it puts out.

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::id::{EpochId, Nonce, Offset, SegmentId, SegmentNumber};
use coheap_core::replica::{Input, Options, Output, Replica};
use coheap_core::wire::frame::down::{Row, Welcome};
use coheap_core::wire::frame::{Bulk, Down, SegmentState, SegmentStatus, Up, message_of, split};

pub(crate) fn options(seed: u8) -> Options {
    Options { seed: [seed; 32], heap: "h".into(), name: "r".into(), must_exist: false, max_unsaved: 0 }
}

pub(crate) fn replica() -> Replica {
    Replica::new(options(7))
}

/// What comes of an input, without what is only to be kept outside.
pub(crate) fn give(replica: &mut Replica, input: Input) -> Vec<Output> {
    give_at(replica, 1, input)
}

pub(crate) fn give_at(replica: &mut Replica, now_ms: u64, input: Input) -> Vec<Output> {
    replica.handle(now_ms, input);
    std::iter::from_fn(|| replica.poll()).filter(|output| !matches!(output, Output::Keep(_))).collect()
}

pub(crate) fn tell(replica: &mut Replica, frame: &Down) -> Vec<Output> {
    let mut frames = Vec::new();
    frame.encode(&mut frames);
    give(replica, Input::Receive(Bytes::from(message_of(&frames))))
}

/// A connection to an empty heap.
pub(crate) fn connect(replica: &mut Replica) -> Vec<Output> {
    connect_at(replica, 0, &[])
}

/// A connection to a heap that stands at this position, with the states of a catch-up.
pub(crate) fn connect_at(replica: &mut Replica, position: u64, catch_up: &[SegmentState]) -> Vec<Output> {
    connect_after(replica, position, catch_up, Vec::new())
}

/// As [`connect_at`], to a relay whose log has these commits of the replica.
pub(crate) fn connect_after(
    replica: &mut Replica,
    position: u64,
    catch_up: &[SegmentState],
    own: Vec<Row>,
) -> Vec<Output> {
    give(replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let ring = if own.is_empty() { Vec::new() } else { vec![(0, own)] };
    tell(replica, &ok(position, ring, catch_up))
}

/// The Ok of a relay that stands at this position and has these commits of the replica's lines, with the states of a catch-up.
pub(crate) fn ok(position: u64, ring: Vec<(u64, Vec<Row>)>, catch_up: &[SegmentState]) -> Down {
    let mut bulk = vec![catch_up.len() as u8];
    for state in catch_up {
        state.encode(&mut bulk);
    }
    Down::Ok(Welcome {
        features: 0,
        exists: position > 0,
        restore: false,
        catchup: !catch_up.is_empty(),
        time_ms: 0,
        lineage: EpochId::default(),
        epochs: vec![(EpochId::default(), Offset(0))],
        position: Offset(position),
        forgotten: Offset(0),
        window: 256,
        ring,
        bulk: if catch_up.is_empty() { Bulk::default() } else { Bulk::whole(Bytes::from(bulk)) },
    })
}

/// A segment that the relay has never heard of.
pub(crate) fn unknown(id: SegmentId) -> SegmentState {
    SegmentState {
        id,
        number: None,
        status: SegmentStatus::Unknown,
        engine: EngineKind::Yrs,
        layout: LAYOUT,
        generation: EngineKind::Yrs.generation_zero(),
        header: Bytes::new(),
        snapshot: Bytes::new(),
        deltas: Vec::new().into(),
    }
}

/// One that has these deltas.
pub(crate) fn alive(id: SegmentId, deltas: Vec<Bytes>) -> SegmentState {
    SegmentState { number: Some(SegmentNumber(0)), status: SegmentStatus::Alive, deltas: deltas.into(), ..unknown(id) }
}

/// The answer to a load.
pub(crate) fn snapshot(nonce: Nonce, position: u64, state: &SegmentState) -> Down {
    let mut bulk = Vec::new();
    state.encode(&mut bulk);
    Down::Snapshot { nonce, position: Offset(position), bulk: Bulk::whole(Bytes::from(bulk)), onto_copy: false }
}

/// The frames that were sent.
pub(crate) fn ups(outputs: &[Output]) -> Vec<Up> {
    let messages =
        outputs.iter().filter_map(|output| if let Output::Send(bytes) = output { Some(bytes) } else { None });
    let frames = messages.flat_map(|bytes| split(bytes).unwrap());
    frames.filter_map(|(kind, body)| Up::decode(kind, &body).unwrap()).collect()
}

/// The nonces of all loads that were asked for.
pub(crate) fn loads(outputs: &[Output]) -> Vec<Nonce> {
    ups(outputs).into_iter().filter_map(|up| if let Up::Load { nonce, .. } = up { Some(nonce) } else { None }).collect()
}

pub(crate) fn errors(outputs: &[Output]) -> Vec<&'static str> {
    let codes =
        outputs.iter().filter_map(|output| if let Output::Error { code, .. } = output { Some(*code) } else { None });
    codes.collect()
}

pub(crate) fn problems(outputs: &[Output]) -> Vec<&'static str> {
    let codes =
        outputs.iter().filter_map(|output| if let Output::Problem { code, .. } = output { Some(*code) } else { None });
    codes.collect()
}
