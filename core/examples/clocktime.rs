use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::{ReplicaId, SegmentId, Uid};
use coheap_core::segment::Segment;
use coheap_core::segment::write::Draw;
use coheap_core::value::Value;
use std::time::Instant;
struct D(u64);
impl Draw for D {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0
    }
}
fn set(key: String, n: usize) -> Vec<Wish> {
    vec![Wish::Set { object: Handle(0), key, value: Literal::Scalar(Value::Number(n as f64)) }]
}
fn new(e: EngineKind, w: u64) -> Segment {
    let mut s = Segment::new(SegmentId::ROOT, e, w).unwrap();
    s.show();
    s
}
fn main() {
    const N: usize = 1000;
    for e in [EngineKind::Yrs, EngineKind::Automerge] {
        println!("{e:?}");
        let mut best = [f64::MAX; 8];
        for round in 0..15_u64 {
            let mut other = new(e, 50 + round);
            let one = other.edit(set("o".into(), 1), Uid(1), &mut D(1)).unwrap().delta;
            // writes without, with a table
            for (k, with) in [(0, false), (1, true)] {
                for (off, many) in [(0, false), (2, true)] {
                    let mut s = new(e, 1);
                    if with {
                        s.apply_commit(ReplicaId([1; 16]), std::slice::from_ref(&one)).unwrap();
                    } else {
                        s.apply(std::slice::from_ref(&one)).unwrap();
                    }
                    let t = Instant::now();
                    for i in 0..N {
                        drop(
                            s.edit(
                                set(if many { format!("key{}", i % 100) } else { "k".into() }, i),
                                Uid(i as u64),
                                &mut D(3),
                            )
                            .unwrap(),
                        );
                    }
                    let us = t.elapsed().as_secs_f64() * 1e6 / N as f64;
                    best[k + off] = best[k + off].min(us);
                    assert_eq!(s.clocks().is_some(), with);
                }
            }
            // applies of 1000 commits of one key
            let mut a = new(e, 7);
            let deltas: Vec<Bytes> =
                (0..N).map(|i| a.edit(set("k".into(), i), Uid(i as u64), &mut D(3)).unwrap().delta).collect();
            let mut s = new(e, 1);
            let t = Instant::now();
            for d in &deltas {
                coheap_core::guard::structure(
                    if e == EngineKind::Yrs {
                        coheap_core::guard::Engine::Yrs
                    } else {
                        coheap_core::guard::Engine::Automerge
                    },
                    d,
                )
                .unwrap();
                drop(s.apply(std::slice::from_ref(d)).unwrap());
            }
            best[4] = best[4].min(t.elapsed().as_secs_f64() * 1e6 / N as f64);
            let mut s = new(e, 1);
            let t = Instant::now();
            for d in &deltas {
                drop(s.apply_commit(ReplicaId([1; 16]), std::slice::from_ref(d)).unwrap());
            }
            best[5] = best[5].min(t.elapsed().as_secs_f64() * 1e6 / N as f64);
        }
        println!("write one key: {:.2} -> {:.2} us ({:+.1} %)", best[0], best[1], 100. * (best[1] / best[0] - 1.));
        println!("write 100 keys: {:.2} -> {:.2} us ({:+.1} %)", best[2], best[3], 100. * (best[3] / best[2] - 1.));
        println!("apply one key: {:.2} -> {:.2} us ({:+.1} %)", best[4], best[5], 100. * (best[5] / best[4] - 1.));
        // deriving
        for n in [1_000, 20_000] {
            let mut a = new(e, 7);
            for chunk in 0..(n / 100) {
                a.edit(
                    (0..100).flat_map(|i| set(format!("key{}", chunk * 100 + i), i)).collect(),
                    Uid(chunk as u64 + 1),
                    &mut D(3),
                )
                .unwrap();
            }
            let stored = a.encode();
            let next = a.edit(set("k".into(), 1), Uid(9), &mut D(3)).unwrap().delta;
            let (mut dec, mut first, mut plain) = (f64::MAX, f64::MAX, f64::MAX);
            for _ in 0..7 {
                let t = Instant::now();
                let mut s = Segment::decode(SegmentId::ROOT, e, e.generation_zero(), 1, &stored, &[]).unwrap();
                s.show();
                dec = dec.min(t.elapsed().as_secs_f64() * 1e3);
                let t = Instant::now();
                s.apply_commit(ReplicaId([1; 16]), std::slice::from_ref(&next)).unwrap();
                first = first.min(t.elapsed().as_secs_f64() * 1e3);
                let mut s = Segment::decode(SegmentId::ROOT, e, e.generation_zero(), 1, &stored, &[]).unwrap();
                s.show();
                let t = Instant::now();
                s.apply(std::slice::from_ref(&next)).unwrap();
                plain = plain.min(t.elapsed().as_secs_f64() * 1e3);
            }
            println!(
                "{n} keys, {} bytes: load {dec:.2} ms, first foreign delta {plain:.3} -> {first:.3} ms",
                stored.len()
            );
        }
    }
}
