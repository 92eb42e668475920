//! Many simulated lives, by command: `cargo xtask soak --seeds N [--from S] [--world schedules|deep] [--with rolls,losses]`;
//! and `--world small`: all of the small worlds (`sim/small_worlds.rs`), which have no seeds.
//! Schedules are many and small (`sim/schedule.rs`); the deep world has rich values and shared work (`sim/life.rs`). A seed that
//! fails is named and stays replayable: `COHEAP_SEED=n`, or `--seed n --trace` here.
#![allow(clippy::print_stdout, reason = "a soak says how far it is")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coheap_tests::life;
use coheap_tests::schedule::plan::{Deed, Plan};
use coheap_tests::schedule::shrink::shrink;
use coheap_tests::schedule::{Failure, Tally, replay, run, trace};
use coheap_tests::small_worlds::FAMILIES;

const USAGE: &str = "usage: soak --seeds N [--from S] [--seconds T] [--world schedules|deep] [--with rolls,losses,…] \
                     | soak --seed N [--trace] | soak --world small";
/// Schedules side by side.
const THREADS: usize = 2;
/// Failing seeds after which a soak ends.
const FAILURES_MAX: usize = 20;
/// Of so many schedules one may end early, with a conflict of generations or something in doubt, and a few more.
const PARTED_ONE_IN: u64 = 100;
const PARTED_SPARED: u64 = 20;
/// Who asks for as many as fit is told if that is next to nothing.
const SCHEDULES_MIN: u64 = 5_000;

#[derive(Debug, Default)]
struct Args {
    seeds: Option<u64>,
    from: u64,
    /// No schedule begins later than that.
    seconds: Option<u64>,
    seed: Option<u64>,
    trace: bool,
    deep: bool,
    small: bool,
    /// Every life of the deep world has these, and faults, and nothing else.
    with: Option<life::Plan>,
}

fn parse() -> Option<Args> {
    let mut parsed = Args::default();
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
        match flag.as_str() {
            "--seeds" => parsed.seeds = Some(number()?),
            "--from" => parsed.from = number()?,
            "--seconds" => parsed.seconds = Some(number()?),
            "--seed" => parsed.seed = Some(number()?),
            "--trace" => parsed.trace = true,
            "--with" => parsed.with = Some(life::Plan::with(&args.next()?)?),
            "--world" => match args.next()?.as_str() {
                "deep" => parsed.deep = true,
                "small" => parsed.small = true,
                "schedules" => {}
                _ => return None,
            },
            _ => return None,
        }
    }
    let kinds = [parsed.seeds.is_some(), parsed.seed.is_some(), parsed.small];
    (kinds.into_iter().filter(|kind| *kind).count() == 1).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(args) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if args.small {
        return if small() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let fine = match (args.seed, args.seeds.unwrap_or(1), args.deep) {
        (Some(seed), _, true) => deep(1, seed, args.with),
        (None, seeds, true) => deep(seeds, args.from, args.with),
        (Some(seed), _, false) => one(seed, args.trace),
        (None, seeds, false) => schedules(seeds, args.from, Duration::from_secs(args.seconds.unwrap_or(u64::MAX))),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Schedules of so many seeds, side by side, as many as fit into that time.
fn schedules(seeds: u64, from: u64, within: Duration) -> bool {
    std::panic::set_hook(Box::new(|_| {}));
    let (next, begun) = (AtomicU64::new(from), Instant::now());
    let sum = Mutex::new((Tally::default(), Vec::new()));
    let end = from.saturating_add(seeds);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let outcome = if seed < end && begun.elapsed() < within { run(seed).outcome } else { return };
                    let Ok(mut sum) = sum.lock() else { return };
                    match outcome {
                        Ok(tally) => sum.0 += &tally,
                        Err(failure) => {
                            println!("seed {seed}: {failure}");
                            sum.1.push((seed, failure));
                        }
                    }
                    let done = sum.0.schedules + sum.0.parted + sum.1.len() as u64;
                    if done.is_multiple_of(1_000) {
                        println!("{done} of {seeds} schedules, {:.0} a second", rate(done, begun));
                    }
                    if sum.1.len() >= FAILURES_MAX {
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let Ok((tally, mut failed)) = sum.into_inner() else { return false };
    let done = tally.schedules + tally.parted + failed.len() as u64;
    println!("{tally}\n{done} schedules from {from}, {:.1} a second, {} failed", rate(done, begun), failed.len());
    let thin = tally.coverage.thin(done);
    for (fault, phase, count, least) in &thin {
        println!("{} strikes {} {count} times, and should {least} times", fault.name(), phase.name());
    }
    let parted = tally.parted > PARTED_SPARED + done / PARTED_ONE_IN;
    if parted {
        println!("{} ended early, which one in {PARTED_ONE_IN} may", tally.parted);
    }
    let few = seeds >= SCHEDULES_MIN && done < SCHEDULES_MIN && failed.is_empty();
    if few {
        println!("{done} schedules fitted into {within:?}: too few to say anything");
    }
    failed.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, failure)) = failed.first() {
        explain(*seed, &run(*seed).steps, failure);
    }
    failed.is_empty() && thin.is_empty() && !parted && !few
}

fn rate(done: u64, begun: Instant) -> f64 {
    done as f64 / begun.elapsed().as_secs_f64().max(0.001)
}

/// One schedule; a failing one is shortened.
fn one(seed: u64, all: bool) -> bool {
    std::panic::set_hook(Box::new(|_| {}));
    let run = run(seed);
    if all {
        println!("{:?}", Plan::of(seed));
        let ended = trace(&Plan::of(seed), &run.steps, |line| println!("{line}"));
        println!("{ended:?}");
    }
    match run.outcome {
        Ok(tally) => println!("{tally}"),
        Err(failure) => {
            println!("seed {seed}: {failure}");
            explain(seed, &run.steps, &failure);
            return false;
        }
    }
    true
}

/// The steps that matter of a schedule that failed.
fn explain(seed: u64, steps: &[Deed], failure: &Failure) {
    let plan = Plan::of(seed);
    if replay(&plan, steps).is_ok() {
        println!("seed {seed} does not fail when its steps are replayed: something here is not decided by the seed");
        return;
    }
    let (steps, failure) = shrink(&plan, steps, failure);
    println!("\nseed {seed}, shortened to {} steps of {plan:?}:", steps.len());
    let _ = trace(&plan, &steps, |line| println!("{line}"));
    println!("{failure}\nreplay: cargo xtask soak --seed {seed} --trace");
}

/// All small worlds, family by family, side by side.
fn small() -> bool {
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let fine = std::thread::scope(|scope| {
        let play = || {
            while let Some(family) = FAMILIES.get(next.fetch_add(1, Ordering::Relaxed)) {
                family.play(true);
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(play)).collect();
        threads.into_iter().all(|thread| thread.join().is_ok())
    });
    println!("small worlds: {}, in {:.0?}", if fine { "all hold" } else { "not all hold" }, begun.elapsed());
    fine
}

/// Lives in the deep world.
fn deep(seeds: u64, from: u64, with: Option<life::Plan>) -> bool {
    let (mut failed, mut sum) = (Vec::new(), life::Tally::default());
    for (done, seed) in (from..from.saturating_add(seeds)).enumerate() {
        let plan = with.map_or_else(|| life::Plan::of(seed), |plan| plan.sized(seed));
        match std::panic::catch_unwind(|| life::check(seed, plan)) {
            Ok(tally) => sum += tally,
            Err(_) => failed.push(seed),
        }
        if (done + 1).is_multiple_of(100) {
            println!("{} of {seeds} seeds, {} log entries, {} failed", done + 1, sum.entries, failed.len());
        }
    }
    println!("{seeds} seeds from {from}: {sum:?}, {} failed {failed:?}", failed.len());
    failed.is_empty()
}
