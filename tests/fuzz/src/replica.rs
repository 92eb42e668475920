//! A replica between a program and a relay, neither of which says what it should. Pieces of an input: calls of the edge, the tag
//! their operation; a message of the relay is the call `receive`. Stage: how much of the conversation comes before.

use coheap_core::commit::EngineKind;
use coheap_core::edge;
use coheap_core::guard::{self, GuardError};
use coheap_core::id::SegmentId;
use coheap_core::replica::packed::ImportError;
use coheap_core::replica::{Input, Replica};
use coheap_core::segment::Segment;

use crate::contained::forgiving;
use crate::count::applies;
use crate::input::parse;
use crate::talk::{options, replica_after, talk, timed};

/// The target.
pub fn replica(data: &[u8]) {
    let Some((stage, pieces)) = parse(data) else { return };
    let (mut replica, mut now) = replica_after(usize::from(stage) % (talk().replica.len() + 1));
    for piece in pieces {
        // Time comes from a clock.
        now += 1 + u64::from(piece.tag >> 5) * 1_000;
        let op = piece.tag & 31;
        let Ok((_, input)) = edge::read(op.into(), &timed(now, &piece.bytes)) else { continue };
        let size = piece.bytes.len() + asked(&input) + held(&mut replica);
        // What automerge panics over takes the instance along (`guard.rs`).
        let lives = forgiving("automerge", || applies("a call", size, || turn(&mut replica, now, input)));
        if lives.is_none() {
            return;
        }
    }
    let packed = replica.export();
    let mut again = match Replica::import(options(9), &packed) {
        Ok(again) => again,
        Err(ImportError::Engine(_)) if vouched_for_wrongly(&mut replica) => return,
        Err(error) => panic!("what was packed is not unpacked: {error}"),
    };
    while again.poll().is_some() {}
    assert_eq!((again.id(), again.cut(), again.unsaved()), (replica.id(), replica.cut(), replica.unsaved()));
}

/// A call that asks for a number of things makes them.
fn asked(input: &Input) -> usize {
    match input {
        Input::Derive { count, .. } => usize::try_from(*count).unwrap_or(usize::MAX).min(1 << 16),
        _ => 0,
    }
}

/// Whether each document here that does not come back is one whose items lie to one another as in no commit that the guard lets
/// through: that is judged of what other replicas write, and not of what the relay says that they wrote.
fn vouched_for_wrongly(replica: &mut Replica) -> bool {
    let mut wrong = false;
    for id in SEGMENTS {
        let Some(document) = replica.document(id) else { continue };
        let (kind, generation) = (document.engine(), document.generation());
        if Segment::decode(id, kind, generation, 1, &document.encode(), &[]).is_ok() {
            continue;
        }
        let engine = match kind {
            EngineKind::Yrs => guard::Engine::Yrs,
            EngineKind::Automerge => guard::Engine::Automerge,
        };
        match guard::whole(engine, &document.whole()) {
            Err(GuardError::TornItem | GuardError::Cycle | GuardError::UnknownClock) => wrong = true,
            verdict => {
                panic!("segment {id} does not come back, and the guard says {:?}", verdict.map(|_| "that it is well"))
            }
        }
    }
    wrong
}

/// Those of the conversation.
const SEGMENTS: [SegmentId; 3] = [SegmentId::ROOT, SegmentId([1; 16]), SegmentId([2; 16])];

/// What a replica that shows, loads or packs something has of its own.
fn held(replica: &mut Replica) -> usize {
    SEGMENTS.iter().filter_map(|id| replica.document(*id).map(|document| document.size())).sum()
}

/// One input, and all that comes of it as JavaScript gets it.
pub fn turn(replica: &mut Replica, now: u64, input: Input) {
    replica.handle(now, input);
    let mut out = Vec::new();
    while let Some(output) = replica.poll() {
        edge::write(&output, &mut out);
        out.clear();
    }
}
