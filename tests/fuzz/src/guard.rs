//! The guard before an engine: deltas of a hostile author on top of what honest ones wrote. What passes both halves is
//! applied, and then an honest replica goes on.
//!
//! Pieces of an input: a delta each, the tag its author. Stages: documents of random programs, with their clock tables.

use std::sync::OnceLock;

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Literal, Wish};
use coheap_core::guard::{self, Clocks};
use coheap_core::id::{ReplicaId, SegmentId, Uid};
use coheap_core::segment::Segment;
use coheap_core::segment::engine::EngineError;
use coheap_core::value::Value;
use coheap_tests::Draws;
use coheap_tests::mirror::{Mirror, Node};
use coheap_tests::program::{Statistics, Turn, walk};
use coheap_tests::world::World;

use crate::contained::forgiving;
use crate::count::{applies, reads};
use crate::input::parse;

/// How many stages an engine has.
pub const STAGES: usize = 12;

/// A document that honest replicas wrote.
#[derive(Clone, Debug)]
pub struct Stage {
    /// As it is stored.
    pub snapshot: Vec<u8>,
    /// Whose clocks stand where in it.
    pub clocks: Clocks,
    /// What its authors would have written next.
    pub next: Vec<(u8, Bytes)>,
}

/// The owner of a piece with this tag.
fn owner(tag: u8) -> ReplicaId {
    ReplicaId([tag % 4; 16])
}

fn engine_of(kind: EngineKind) -> guard::Engine {
    match kind {
        EngineKind::Yrs => guard::Engine::Yrs,
        EngineKind::Automerge => guard::Engine::Automerge,
    }
}

/// A stage of an engine, always the same one; the first is an empty document. It takes a while, so it is made when it is met.
pub fn stage(kind: EngineKind, number: usize) -> &'static Stage {
    static YRS: [OnceLock<Stage>; STAGES] = [const { OnceLock::new() }; STAGES];
    static AUTOMERGE: [OnceLock<Stage>; STAGES] = [const { OnceLock::new() }; STAGES];
    let stages = match kind {
        EngineKind::Yrs => &YRS,
        EngineKind::Automerge => &AUTOMERGE,
    };
    let number = number % STAGES;
    stages[number].get_or_init(|| make(kind, number as u64, number * 3))
}

fn make(kind: EngineKind, seed: u64, steps: usize) -> Stage {
    let mut world = World::new(kind, SegmentId::ROOT, 3, seed);
    for peer in &mut world.peers {
        peer.is_checked = false;
    }
    let mut draws = Draws(seed ^ 0x57a6e);
    let program: Vec<Turn> = (0..steps).map(|_| Turn::draw(&mut draws)).collect();
    walk(&mut world, &program, &mut Statistics::default());
    world.meet();
    let (snapshot, clocks, seen) = (world.peers[0].stored(), world.clocks.clone(), world.log.len());
    let program: Vec<Turn> = (0..12).map(|_| Turn::draw(&mut draws)).collect();
    walk(&mut world, &program, &mut Statistics::default());
    world.meet();
    let next = world.log[seen..].iter().map(|entry| (entry.author as u8, entry.delta.clone())).collect();
    Stage { snapshot, clocks, next }
}

/// The target. A stage of 255 is bytes for the structure half alone, as a delta and as a state.
pub fn guard(kind: EngineKind, data: &[u8]) {
    let engine = engine_of(kind);
    if let Some((0xff, bytes)) = data.split_first() {
        let _ = reads("a delta", bytes.len(), || guard::structure(engine, bytes));
        if reads("a state", bytes.len(), || guard::whole(engine, bytes)).is_ok() {
            match kind {
                EngineKind::Yrs => adopted(kind, bytes),
                EngineKind::Automerge => _ = forgiving("automerge", || adopted(kind, bytes)),
            }
        }
        return;
    }
    let Some((number, pieces)) = parse(data) else { return };
    let stage = stage(kind, number.into());
    let mut clocks = stage.clocks.clone();
    let mut passed: Vec<Bytes> = Vec::new();
    for piece in pieces {
        let summary = reads("a delta", piece.bytes.len(), || guard::structure(engine, &piece.bytes));
        let Ok(summary) = summary else { continue };
        let verdict = reads("its clocks", piece.bytes.len(), || clocks.check(owner(piece.tag), &summary));
        if verdict.is_ok() {
            clocks.record(owner(piece.tag), &summary);
            passed.push(piece.bytes.into());
        }
    }
    if !passed.is_empty() {
        match kind {
            EngineKind::Yrs => live(kind, stage, &clocks, &passed),
            // The guard has no table of elements and of changes: over one that is not there automerge panics, which takes its
            // instance or worker along, and the segment is quarantined.
            EngineKind::Automerge => _ = forgiving("automerge", || live(kind, stage, &clocks, &passed)),
        }
    }
}

const WRITER: u64 = (1 << 53) - 7;

fn decode(kind: EngineKind, snapshot: &[u8], deltas: &[Bytes]) -> Result<Segment, EngineError> {
    Segment::decode(SegmentId::ROOT, kind, kind.generation_zero(), WRITER, snapshot, deltas)
}

/// What becomes of a whole state that has passed: it is stored, and loaded by others.
fn adopted(kind: EngineKind, state: &[u8]) {
    let state = Bytes::copy_from_slice(state);
    let made = applies("a state that passed", state.len(), || decode(kind, &[], std::slice::from_ref(&state)));
    match made {
        Ok(mut made) => {
            made.show();
            decode(kind, &made.encode(), &[]).expect("a state that was taken is stored and read").show();
        }
        // The relay adopts nothing that the engine refuses.
        Err(error) if kind == EngineKind::Automerge => drop(error),
        Err(error) => panic!("yrs refuses a state that the guard passed: {error}"),
    }
}

/// What a replica goes through with deltas that have passed.
fn live(kind: EngineKind, stage: &Stage, clocks: &Clocks, deltas: &[Bytes]) {
    let mut segment = decode(kind, &stage.snapshot, &[]).expect("a stage");
    let mut mirror = Mirror::of(&segment.show());
    for delta in deltas {
        let patches = match applies("a delta that passed", delta.len(), || segment.apply(std::slice::from_ref(delta))) {
            Ok(patches) => patches,
            // The replica gives the segment up. The guard knows all that yrs can refuse.
            Err(error) if kind == EngineKind::Automerge => return drop(error),
            Err(error) => panic!("yrs refuses what the guard passed: {error}"),
        };
        mirror.apply(&patches);
    }
    let mut draws = Draws(1);
    let edited = segment.edit(wishes(&mirror), Uid(3), &mut draws).expect("an honest edit");
    let summary = guard::structure(engine_of(kind), &edited.delta).expect("an honest delta is well formed");
    clocks.check(ReplicaId([77; 16]), &summary).expect("an honest delta continues its clocks");
    let stored = segment.encode();
    let mut copy = decode(kind, &stored, &[]).expect("what was encoded decodes");
    let shown = Mirror::of(&copy.show());
    assert!(shown.reachable().len() <= 1 << 20);
    // One who loads the log.
    let deltas: Vec<Bytes> = deltas.iter().cloned().chain([edited.delta]).collect();
    let total = stage.snapshot.len() + deltas.iter().map(Bytes::len).sum::<usize>();
    let loaded = applies("a load", total, || decode(kind, &stage.snapshot, &deltas));
    loaded.expect("one who loads it all").show();
}

/// An edit of everything there is, the kind of edit that trips over what an engine should not have taken.
fn wishes(mirror: &Mirror) -> Vec<Wish> {
    let number = || Literal::Scalar(Value::Number(1.0));
    let mut wishes = Vec::new();
    for object in mirror.reachable().into_iter().take(24) {
        match mirror.node(object) {
            Node::Map(entries) => {
                if let Some(key) = entries.keys().next() {
                    wishes.push(Wish::Delete { object, key: key.clone() });
                }
                wishes.push(Wish::Set { object, key: "k".into(), value: number() });
            }
            Node::List(values) => {
                let len = values.len() as u32;
                if len > 1 {
                    wishes.push(Wish::Move { object, from: len - 1, to: 0 });
                    wishes.push(Wish::Put { object, index: len / 2, value: number() });
                    wishes.push(Wish::Remove { object, index: 0, count: len / 2 });
                }
                wishes.push(Wish::Insert { object, index: 0, values: vec![number()] });
            }
            Node::Text(units) => {
                let removed = units.len() as u32;
                wishes.push(Wish::Splice { object, index: 0, removed, inserted: "x".into() });
            }
            Node::Counter { .. } => wishes.push(Wish::Add { object, by: 1.0 }),
            Node::Set(_) => wishes.push(Wish::Include { object, member: Value::Bool(true) }),
        }
    }
    wishes
}
