//! Timings of one segment: what grows with the document where it should not. `cargo run --release -p coheap-tests --example
//! segment-timings`; each line is a size, doubled: twice the time is linear, four times is quadratic.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::time::Instant;

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{SegmentId, Uid};
use coheap_core::segment::Segment;
use coheap_core::value::Value;
use coheap_tests::{Draws, ENGINES};

struct Bench {
    segment: Segment,
    draws: Draws,
    uid: u64,
    engine: EngineKind,
}

impl Bench {
    fn new(engine: EngineKind, writer: u64) -> Self {
        let segment = Segment::new(SegmentId::ROOT, engine, writer).expect("an empty segment");
        Bench { segment, draws: Draws(writer), uid: 0, engine }
    }

    fn edit(&mut self, wishes: Vec<Wish>) -> Bytes {
        self.uid += 1;
        self.segment.edit(wishes, Uid(self.uid), &mut self.draws).expect("an edit").delta
    }

    fn set(&mut self, key: &str, value: Literal) -> Bytes {
        self.edit(vec![Wish::Set { object: Handle(0), key: key.to_owned(), value }])
    }
}

fn number(n: usize) -> Literal {
    Literal::Scalar(Value::Number(n as f64))
}

fn set(object: u32, n: usize) -> Wish {
    Wish::Set { object: Handle(object), key: format!("key{n}"), value: number(n) }
}

fn insert(at: usize, n: usize) -> Wish {
    Wish::Insert { object: Handle(1), index: at as u32, values: vec![number(n)] }
}

/// A list of this many elements under `list`, handle 1.
fn list(bench: &mut Bench, length: usize) -> Bytes {
    bench.set("list", Literal::List((0..length).map(number).collect()))
}

fn time(name: &str, sizes: [usize; 2], mut run: impl FnMut(usize) -> f64) {
    let ms = sizes.map(&mut run);
    println!("{name:44} {:6}: {:9.1} ms   {:6}: {:9.1} ms   x{:.1}", sizes[0], ms[0], sizes[1], ms[1], ms[1] / ms[0]);
}

fn ms(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1000.0
}

fn main() {
    for engine in ENGINES {
        println!("{engine:?}");
        run(*engine);
    }
}

fn run(engine: EngineKind) {
    let new = |writer| Bench::new(engine, writer);
    time("map sets in one edit", [10_000, 20_000], |n| {
        let mut b = new(1);
        ms(|| drop(b.edit((0..n).map(|i| set(0, i)).collect())))
    });
    time("map sets one by one", [10_000, 20_000], |n| {
        let mut b = new(1);
        ms(|| (0..n).for_each(|i| drop(b.edit(vec![set(0, i)]))))
    });
    time("map sets one by one, over a literal of 1000", [5_000, 10_000], |n| {
        let mut b = new(1);
        let entries = (0..1000).map(|i| (format!("base{i}"), Literal::Scalar(Value::Str("x".repeat(30)))));
        b.set("map", Literal::Map(entries.collect()));
        ms(|| (0..n).for_each(|i| drop(b.edit(vec![set(1, i)]))))
    });
    time("pushes one by one", [10_000, 20_000], |n| {
        let mut b = new(1);
        list(&mut b, 0);
        ms(|| (0..n).for_each(|i| drop(b.edit(vec![insert(i, i)]))))
    });
    time("pushes in edits of 1000", [10_000, 20_000], |n| {
        let mut b = new(1);
        list(&mut b, 0);
        ms(|| (0..n).step_by(1000).for_each(|i| drop(b.edit((i..i + 1000).map(|i| insert(i, i)).collect()))))
    });
    time("1000 inserts in the middle of a list of", [10_000, 20_000], |n| {
        let mut b = new(1);
        list(&mut b, n);
        ms(|| (0..1000).for_each(|i| drop(b.edit(vec![insert(n / 2, i)]))))
    });
    time("1000 puts into a list of", [10_000, 20_000], |n| {
        let mut b = new(1);
        list(&mut b, n);
        let put = |i: usize| Wish::Put { object: Handle(1), index: (i * 7 % n) as u32, value: number(i) };
        ms(|| (0..1000).for_each(|i| drop(b.edit(vec![put(i)]))))
    });
    time("200 moves in a list of", [10_000, 20_000], |n| {
        let mut b = new(1);
        list(&mut b, n);
        let shift = |i: usize| Wish::Move { object: Handle(1), from: (i * 37 % n) as u32, to: (i * 91 % n) as u32 };
        ms(|| (0..200).for_each(|i| drop(b.edit(vec![shift(i)]))))
    });
    time("1000 removes at the start of a list of", [10_000, 20_000], |n| {
        let mut b = new(1);
        list(&mut b, n);
        ms(|| (0..1000).for_each(|_| drop(b.edit(vec![Wish::Remove { object: Handle(1), index: 0, count: 1 }]))))
    });
    time("apply of 1000 one-key deltas to a map of", [10_000, 20_000], |n| {
        let (mut a, mut b) = (new(1), new(2));
        let first = a.edit((0..n).map(|i| set(0, i)).collect());
        b.segment.apply(&[first]).expect("applies");
        let deltas: Vec<Bytes> = (0..1000).map(|i| a.edit(vec![set(0, i)])).collect();
        ms(|| deltas.into_iter().for_each(|delta| drop(b.segment.apply(&[delta]).expect("applies"))))
    });
    time("apply of 1000 pushes to a list of", [10_000, 20_000], |n| {
        let (mut a, mut b) = (new(1), new(2));
        let first = list(&mut a, n);
        b.segment.apply(&[first]).expect("applies");
        let deltas: Vec<Bytes> = (0..1000).map(|i| a.edit(vec![insert(n + i, i)])).collect();
        ms(|| deltas.into_iter().for_each(|delta| drop(b.segment.apply(&[delta]).expect("applies"))))
    });
    time("apply of 1000 puts to a list of", [10_000, 20_000], |n| {
        let (mut a, mut b) = (new(1), new(2));
        let first = list(&mut a, n);
        b.segment.apply(&[first]).expect("applies");
        let put = |i: usize| Wish::Put { object: Handle(1), index: (i * 7 % n) as u32, value: number(i) };
        let deltas: Vec<Bytes> = (0..1000).map(|i| a.edit(vec![put(i)])).collect();
        ms(|| deltas.into_iter().for_each(|delta| drop(b.segment.apply(&[delta]).expect("applies"))))
    });
    time("apply of one delta with a list of", [10_000, 20_000], |n| {
        let (mut a, mut b) = (new(1), new(2));
        b.segment.apply(&[list(&mut a, 0)]).expect("applies");
        let values = (0..n).map(number).collect();
        let delta = a.edit(vec![Wish::Insert { object: Handle(1), index: 0, values }]);
        ms(|| drop(b.segment.apply(&[delta]).expect("applies")))
    });
    let load = |b: &Bench| {
        let stored = b.segment.encode();
        let mut shown = 0;
        let took = ms(|| {
            let zero = b.engine.generation_zero();
            let mut copy = Segment::decode(SegmentId::ROOT, b.engine, zero, 9, &stored, &[]).expect("decodes");
            shown = copy.show().len();
        });
        assert!(shown > 0);
        took
    };
    time("load of a map of keys", [20_000, 40_000], |n| {
        let mut b = new(1);
        for i in (0..n).step_by(1000) {
            b.edit((i..i + 1000).map(|i| set(0, i)).collect());
        }
        load(&b)
    });
    time("load of a literal of keys", [1_000, 2_000], |n| {
        let mut b = new(1);
        b.set("map", Literal::Map((0..n).map(|i| (format!("k{i}"), number(i))).collect()));
        load(&b)
    });
    time("load of objects of 3 keys", [10_000, 20_000], |n| {
        let mut b = new(1);
        for i in 0..n {
            let entries = ["id", "name", "count"].map(|key| (key.to_owned(), number(i)));
            b.set(&format!("o{i}"), Literal::Map(entries.into()));
        }
        load(&b)
    });
    time("load of a list of", [20_000, 40_000], |n| {
        let mut b = new(1);
        list(&mut b, n);
        load(&b)
    });
    time("show of a map whose keys lived 50 times each", [1_000, 2_000], |n| {
        let mut b = new(1);
        for _ in 0..50 {
            b.edit((0..n).map(|i| set(0, i)).collect());
            b.edit((0..n).map(|i| Wish::Delete { object: Handle(0), key: format!("key{i}") }).collect());
        }
        b.edit((0..n).map(|i| set(0, i)).collect());
        load(&b)
    });
    time("text: 1000 characters typed into one of", [10_000, 20_000], |n| {
        let mut b = new(1);
        b.set("text", Literal::Text("x".repeat(n)));
        let splice = |i: usize| Wish::Splice {
            object: Handle(1),
            index: (n / 2 + i) as u32,
            removed: 0,
            inserted: "y".to_owned(),
        };
        ms(|| (0..1000).for_each(|i| drop(b.edit(vec![splice(i)]))))
    });
}
