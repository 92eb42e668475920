//! One random life of a [`Cluster`], by seed: programs, faults, rest, and then the invariants. The suites and the soak run it.

use coheap_core::edit::{Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::replica::Input;
use coheap_core::segment::write::Draw;
use coheap_core::value::Value;

use crate::cluster::Cluster;
use crate::program::{Act, OPS, Seed, wish_of};
use crate::{Draws, ENGINES};

/// A random life of a world, and everything at rest.
pub fn live(seed: u64, replicas: usize, steps: usize, faults: bool) -> Cluster {
    let mut cluster = Cluster::new(seed, replicas);
    cluster.settle();
    for _ in 0..steps {
        if cluster.draws.below(4) == 0 {
            let at = cluster.draws.below(replicas);
            if cluster.draws.below(12) == 0 {
                let key = format!("seg{}", cluster.draws.below(5));
                // Heaps are mixed: a segment may be of any engine.
                let engine = ENGINES[cluster.draws.below(ENGINES.len())];
                cluster.alloc(at, engine, &key, Literal::Map(vec![("n".into(), Literal::Scalar(Value::Number(1.0)))]));
            } else {
                let sections = random_wishes(&mut cluster, at);
                cluster.commit(at, sections);
            }
        } else {
            cluster.step(faults);
        }
    }
    cluster.settle();
    // Everybody has everything in the end.
    for at in 0..replicas {
        for id in cluster.segments.clone() {
            let here = cluster.nodes[at].index(id).is_some_and(|i| cluster.nodes[at].mirrors.contains_key(&i));
            if !here {
                cluster.input(at, Input::Load(vec![(id, id == cluster.segments[0])]));
            }
        }
    }
    cluster.settle();
    cluster
}

/// Lives and checks; gives the entries of the log. A failure names its seed.
pub fn check(seed: u64, replicas: usize, steps: usize, faults: bool) -> usize {
    let outcome = std::panic::catch_unwind(|| {
        let mut cluster = live(seed, replicas, steps, faults);
        cluster.check();
        cluster.disk.len()
    });
    match outcome {
        Ok(entries) => entries,
        Err(panic) => {
            eprintln!("seed {seed} fails ({replicas} replicas, {steps} steps, faults {faults})");
            std::panic::resume_unwind(panic);
        }
    }
}

fn random_wishes(cluster: &mut Cluster, at: usize) -> Vec<(Index, Vec<Wish>)> {
    let here: Vec<Index> = cluster.nodes[at].mirrors.keys().copied().collect();
    let mut sections = Vec::new();
    let count = 1 + cluster.draws.below(2);
    for _ in 0..count.min(here.len()) {
        let index = here[cluster.draws.below(here.len())];
        if sections.iter().any(|(other, _)| *other == index) {
            continue;
        }
        let act = act(&mut cluster.draws);
        let (_, mut wish) = wish_of(&cluster.nodes[at].mirrors[&index], &act);
        if let Wish::Near { object, .. } = &mut wish {
            *object = cluster.draws.object();
        }
        sections.push((index, vec![wish]));
    }
    sections
}

fn act(draws: &mut Draws) -> Act {
    let op = OPS[draws.below(OPS.len())];
    let value = seed_value(draws, 0);
    Act {
        op,
        target: draws.below(1 << 16) as u16,
        a: draws.below(1 << 16) as u16,
        b: draws.below(1 << 16) as u16,
        value,
    }
}

fn seed_value(draws: &mut Draws, depth: usize) -> Seed {
    match draws.below(if depth > 1 { 4 } else { 6 }) {
        4 => Seed::Map((0..draws.below(3)).map(|_| (draws.below(8) as u8, seed_value(draws, depth + 1))).collect()),
        5 => Seed::List((0..draws.below(3)).map(|_| seed_value(draws, depth + 1)).collect()),
        _ => Seed::Scalar(draws.below(1 << 16) as u16),
    }
}
