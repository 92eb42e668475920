//! Millions of valid updates through both halves of the guard, by command: `cargo xtask soak --guard N [--from S]`. None may be
//! refused. A seed that is refused one is named, and stays replayable: `--guard 1 --from SEED`.
//!
//! Every seed is a world of a few replicas and one engine that do all kinds of edits at once, receive in any order, reload with
//! what they have not sent, and start anew; now and then one with long texts and lists.
#![allow(clippy::print_stdout, reason = "a soak says how far it is")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::id::SegmentId;
use coheap_core::value::Value;
use coheap_tests::Draws;
use coheap_tests::program::{Statistics, Turn, walk};
use coheap_tests::world::World;

/// Steps of one world. Longer ones make fewer updates in a second: a mirror is walked for every edit.
const STEPS: usize = 80;

fn main() -> ExitCode {
    let (mut updates, mut from) = (None, 0);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().and_then(|text| text.parse::<u64>().ok());
        match (flag.as_str(), value) {
            ("--guard", Some(value)) => updates = Some(value),
            ("--from", Some(value)) => from = value,
            _ => return usage(),
        }
    }
    let Some(updates) = updates else { return usage() };
    let (next, made, bytes, automerge) =
        (AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (failed, begun) = (std::sync::Mutex::new(Vec::new()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while made.load(Ordering::Relaxed) < updates {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    match std::panic::catch_unwind(|| live(seed)) {
                        Ok((engine, count, size)) => {
                            bytes.fetch_add(size, Ordering::Relaxed);
                            if engine == EngineKind::Automerge {
                                automerge.fetch_add(count, Ordering::Relaxed);
                            }
                            let before = made.fetch_add(count, Ordering::Relaxed);
                            if before / 100_000 != (before + count) / 100_000 {
                                let rate = (before + count) as f64 / begun.elapsed().as_secs_f64();
                                println!("{} of {updates} updates, {rate:.0} a second", before + count);
                            }
                        }
                        Err(_) => {
                            println!("seed {seed} failed");
                            failed.lock().expect("no thread panics with it").push(seed);
                        }
                    }
                }
            });
        }
    });
    let (made, bytes, automerge) = (made.into_inner(), bytes.into_inner(), automerge.into_inner());
    let (failed, seconds) = (failed.into_inner().expect("no thread panics with it"), begun.elapsed().as_secs_f64());
    let seeds = next.into_inner() - from;
    println!(
        "{made} valid updates ({automerge} of automerge) of {bytes} bytes, {seeds} seeds from {from}, {seconds:.0} s, {:.0} a \
         second: {} seeds failed {failed:?}",
        made as f64 / seconds,
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: guard-soak --guard N [--from SEED]");
    ExitCode::from(2)
}

/// One world: its engine, how many updates it made, and their bytes. Panics if one is refused.
fn live(seed: u64) -> (EngineKind, u64, u64) {
    let mut draws = Draws(seed);
    // One in eight keeps history: automerge is slower by far.
    let engine = if seed % 8 == 7 { EngineKind::Automerge } else { EngineKind::Yrs };
    let peers = 2 + draws.below(3);
    let mut world = World::new(engine, SegmentId::ROOT, peers, seed);
    for peer in &mut world.peers {
        peer.is_checked = false;
    }
    if draws.below(20) == 0 {
        furnish(&mut world, &mut draws);
    }
    let program: Vec<Turn> = (0..STEPS).map(|_| Turn::draw(&mut draws)).collect();
    walk(&mut world, &program, &mut Statistics::default());
    for author in 0..peers {
        world.send(author, usize::MAX);
    }
    (engine, world.log.len() as u64, world.log.iter().map(|entry| entry.delta.len() as u64).sum())
}

/// A long text and a long list, for edits in their midst.
fn furnish(world: &mut World, draws: &mut Draws) {
    let long = "0123456789 é 漢 😀 ".repeat(20 + draws.below(400));
    let values = (0..50 + draws.below(500)).map(|n| Literal::Scalar(Value::Number(n as f64))).collect();
    for (key, value) in [("a", Literal::Text(long)), ("b", Literal::List(values))] {
        world.peers[0].wish(Wish::Set { object: Handle(0), key: key.to_owned(), value });
    }
}
