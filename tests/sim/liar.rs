//! A relay that passes on what it should have refused: among the commits of honest writers one whose clocks do not fit what lies
//! before it (CORE-PROTOCOL R10), which an engine would take in. The replica that ships takes in the honest ones, and reports
//! that one, wherever it is.

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{EpochId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::replica::{Input, Options, Output, Replica};
use coheap_core::segment::Segment;
use coheap_core::value::Value;
use coheap_core::wire::frame::down::{EntryFrame, Welcome};
use coheap_core::wire::frame::{
    Bulk, Down, PART_DELTA, PartFrame, SegRef, SegmentState, SegmentStatus, Up, message_of, split,
};

use crate::schedule::{Failure, fails};
use crate::{Draws, ENGINES};

const X: SegmentId = SegmentId([7; 16]);
const WRITERS: usize = 4;
const COMMITS: usize = 40;

/// A replica's share of the segment.
struct Writer {
    segment: Segment,
    /// How many commits of the log it has.
    knows: usize,
}

/// One log and who writes to it.
struct World {
    engine: EngineKind,
    draws: Draws,
    writers: Vec<Writer>,
    /// Writer and delta.
    log: Vec<(usize, Bytes)>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut draws = Draws(seed);
        let engine = ENGINES[draws.below(ENGINES.len())];
        let writers = (1..=WRITERS as u64).map(|client| {
            let mut segment = Segment::new(X, engine, client).expect("an empty document");
            segment.show();
            Writer { segment, knows: 0 }
        });
        World { engine, draws, writers: writers.collect(), log: Vec::new() }
    }

    /// One of them writes, when it has taken in what there is.
    fn writes(&mut self, writer: usize) -> Bytes {
        let one = &mut self.writers[writer];
        for (by, delta) in &self.log[one.knows..] {
            if *by != writer {
                one.segment.apply(std::slice::from_ref(delta)).expect("an honest delta");
            }
        }
        one.knows = self.log.len();
        let (key, value) = (format!("key{}", self.draws.below(3)), Value::Number(self.draws.below(1000) as f64));
        let wishes = vec![Wish::Set { object: Handle(0), key, value: Literal::Scalar(value) }];
        let edited = one.segment.edit(wishes, Uid(self.draws.0), &mut self.draws);
        edited.expect("a key of a map is set").delta
    }

    fn commits(&mut self) {
        let writer = self.draws.below(WRITERS);
        let delta = self.writes(writer);
        self.log.push((writer, delta));
    }
}

/// The replica at its end of the relay.
struct Reader(Replica);

impl Reader {
    fn handle(&mut self, input: Input) -> Vec<Output> {
        self.0.handle(1, input);
        std::iter::from_fn(|| self.0.poll()).collect()
    }

    fn tell(&mut self, frame: &Down) -> Vec<Output> {
        let mut frames = Vec::new();
        frame.encode(&mut frames);
        self.handle(Input::Receive(Bytes::from(message_of(&frames))))
    }

    fn entry(&mut self, world: &World, at: usize, by: usize, delta: &Bytes) -> Vec<Output> {
        let generation = world.engine.generation_zero();
        let part =
            PartFrame { kind: PART_DELTA, segment: SegRef::Id(X), generation, create: None, bytes: delta.clone() };
        let (offset, seq, uid, author) = (Offset(at as u64), Seq(at as u64 + 1), Uid(at as u64 + 1), by as u64);
        let (yours, void, label) = (false, false, None);
        self.tell(&Down::Entry(EntryFrame { offset, yours, void, author, seq, uid, label, parts: vec![part].into() }))
    }

    fn loaded(&mut self, world: &World, nonce: Nonce, position: usize) -> Vec<Output> {
        let state = SegmentState {
            id: X,
            number: Some(SegmentNumber(0)),
            status: SegmentStatus::Alive,
            engine: world.engine,
            layout: LAYOUT,
            generation: world.engine.generation_zero(),
            header: Bytes::new(),
            snapshot: Bytes::new(),
            deltas: world.log.iter().map(|(_, delta)| delta.clone()).collect::<Vec<_>>().into(),
        };
        let mut bulk = Vec::new();
        state.encode(&mut bulk);
        self.tell(&Down::Snapshot {
            nonce,
            position: Offset(position as u64),
            bulk: Bulk::whole(bulk.into()),
            onto_copy: false,
        })
    }
}

fn ups(told: &[Output]) -> impl Iterator<Item = Up> {
    let messages = told.iter().filter_map(|output| if let Output::Send(bytes) = output { Some(bytes) } else { None });
    let frames = messages.flat_map(|bytes| split(bytes).expect("whole frames"));
    frames.filter_map(|(kind, body)| Up::decode(kind, &body).expect("a frame"))
}

fn asked(told: &[Output]) -> Option<Nonce> {
    ups(told).find_map(|up| if let Up::Load { nonce, .. } = up { Some(nonce) } else { None })
}

fn reported(told: &[Output]) -> Option<Offset> {
    ups(told).find_map(|up| if let Up::Report { offset, .. } = up { Some(offset) } else { None })
}

fn greeting() -> Down {
    let (lineage, position) = (EpochId::default(), Offset(0));
    Down::Ok(Welcome {
        features: 0,
        exists: true,
        restore: false,
        catchup: false,
        time_ms: 0,
        lineage,
        epochs: vec![(lineage, position)],
        position,
        forgotten: Offset(0),
        window: 256,
        ring: Vec::new(),
        bulk: Bulk::default(),
    })
}

/// A log with one commit that does not fit, told entry by entry. Which one it is, and what is wrong with it, the number decides.
pub fn trial(seed: u64) -> Result<(), Failure> {
    let mut world = World::new(seed);
    let options = Options { seed: [3; 32], heap: "h".into(), name: String::new(), must_exist: false, max_unsaved: 0 };
    let mut reader = Reader(Replica::new(options));
    reader.handle(Input::Connected { token: String::new(), entropy: [seed; 4] });
    reader.tell(&greeting());
    for by in 0..WRITERS {
        let (replica, name, subject) = (ReplicaId([by as u8 + 1; 16]), String::new(), String::new());
        reader.tell(&Down::Author { number: by as u64, replica, name, subject });
    }
    let Some(nonce) = asked(&reader.handle(Input::Load(vec![(X, false)]))) else {
        return fails("R10", "a load is not asked for");
    };
    reader.loaded(&world, nonce, 0);
    // Everybody has written before, so that every client is somebody's.
    let at = WRITERS + world.draws.below(COMMITS - WRITERS);
    for offset in 0..COMMITS {
        if offset == at {
            let (by, delta, what) = unfit(&mut world);
            let told = reader.entry(&world, offset, by, &delta);
            if reported(&told) != Some(Offset(at as u64)) {
                return fails("R10", format!("a replica takes in {what}"));
            }
            let reload = reader.tell(&Down::Reload { segment: SegRef::Id(X), at: Offset(at as u64) });
            let Some(nonce) = asked(&reload) else { return fails("R12", "what was reported is not loaded anew") };
            reader.loaded(&world, nonce, offset + 1);
            continue;
        }
        if offset < WRITERS {
            let delta = world.writes(offset);
            world.log.push((offset, delta));
        } else {
            world.commits();
        }
        let Some((by, delta)) = world.log.last().cloned() else { continue };
        let told = reader.entry(&world, offset, by, &delta);
        if let Some(Output::Problem { message, .. }) = told.iter().find(|told| matches!(told, Output::Problem { .. })) {
            return fails("R10", format!("an honest commit is refused: {message}"));
        }
    }
    let deltas: Vec<Bytes> = world.log.iter().map(|(_, delta)| delta.clone()).collect();
    let all = Segment::decode(X, world.engine, world.engine.generation_zero(), 99, &[], &deltas);
    let shown = reader.0.document(X).map(|document| document.values());
    if shown != all.ok().map(|all| all.values()) {
        return fails("P1", "a replica does not show what is in the log");
    }
    Ok(())
}

/// A commit that does not fit, and that no log will ever hold: whose it is said to be, its delta, what is wrong with it.
fn unfit(world: &mut World) -> (usize, Bytes, &'static str) {
    let writer = world.draws.below(WRITERS);
    let foreign = world.draws.below(2) == 0;
    let first = world.writes(writer);
    let (by, delta, what) = match foreign {
        true => ((writer + 1) % WRITERS, first, "what another replica's client wrote"),
        false => (writer, world.writes(writer), "what goes on from what it does not have"),
    };
    // Nothing of it was ever written: the writer goes on from the log, as another client.
    let deltas: Vec<Bytes> = world.log.iter().map(|(_, delta)| delta.clone()).collect();
    let (engine, client) = (world.engine, (WRITERS + 1) as u64);
    let segment = Segment::decode(X, engine, engine.generation_zero(), client, &[], &deltas);
    let mut segment = segment.expect("an honest log");
    segment.show();
    world.writers[writer] = Writer { segment, knows: world.log.len() };
    (by, delta, what)
}
