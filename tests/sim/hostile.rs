//! Deltas that pass the guard and that no engine takes in: changes that name a change which nobody has (CORE-PROTOCOL R10, R12).
//! Made by the engine that ships; the first change is just kept back.

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{SegmentId, Uid};
use coheap_core::segment::Segment;
use coheap_core::value::Value;

use crate::Draws;

/// What one client id writes to a segment with history, change by change.
#[derive(Debug)]
pub struct Writer {
    segment: Segment,
    made: u64,
}

impl Writer {
    /// An honest one.
    pub fn honest(id: SegmentId, client: u64) -> Writer {
        Writer::of(EngineKind::Automerge, id, client)
    }

    /// An honest one, of any engine.
    pub fn of(engine: EngineKind, id: SegmentId, client: u64) -> Writer {
        Writer { segment: Segment::new(id, engine, client).expect("an empty document"), made: 0 }
    }

    /// From here on it builds on a change that it keeps to itself.
    pub fn keep_back(&mut self, id: SegmentId, client: u64) {
        let hidden = Writer::honest(id, client).next("hidden");
        self.segment.apply(&[hidden]).expect("what was just made");
    }

    /// One that builds on a change that it keeps to itself.
    pub fn hostile(id: SegmentId, client: u64) -> Writer {
        let hidden = Writer::honest(id, client + 1).next("hidden");
        let generation = EngineKind::Automerge.generation_zero();
        let segment = Segment::decode(id, EngineKind::Automerge, generation, client, &[], &[hidden]);
        Writer { segment: segment.expect("what was just made"), made: 0 }
    }

    /// Sets a key; the change.
    pub fn next(&mut self, key: &str) -> Bytes {
        self.made += 1;
        if self.made == 1 {
            self.segment.show();
        }
        let value = Literal::Scalar(Value::Number(self.made as f64));
        let wishes = vec![Wish::Set { object: Handle(0), key: key.to_owned(), value }];
        let edited = self.segment.edit(wishes, Uid(self.made), &mut Draws(self.made << 32));
        edited.expect("a key of a map is set").delta
    }
}
