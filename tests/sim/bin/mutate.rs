//! What the checks of the schedules are worth: every rule of `coheap_core::mutate` is broken, one after another, and the first
//! schedule that notices is named. `cargo xtask mutate [NAME…] [--seeds N]`. Without a fault the same schedules must hold.
#![allow(clippy::print_stdout, reason = "its table is what it is run for")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use coheap_core::mutate::{ALL, Mutation, set};
use coheap_tests::damaged;
use coheap_tests::schedule::{Failure, run};

const USAGE: &str = "usage: mutate [NAME…] [--seeds N]";
/// Schedules within which a broken rule has to be noticed.
const SEEDS: u64 = 2_000;
/// Schedules without a fault, which must hold.
const HEALTHY: u64 = 100;
/// Side by side.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let Some((chosen, seeds)) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // What the machines say when they fail is part of the result, and told in one line.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(fault) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let noticed = notice(*fault, if fault.is_some() { seeds } else { HEALTHY });
                    let Ok(mut found) = found.lock() else { return };
                    println!("{}", line(*fault, &noticed));
                    found.insert(*fault, noticed);
                }
            });
        }
    });
    let Ok(found) = found.into_inner() else { return ExitCode::FAILURE };
    let wrong = found.iter().filter(|(fault, noticed)| fault.is_some() != noticed.is_some()).count();
    println!("\n| rule that is broken | noticed as | first seed |\n|---|---|---|");
    for (fault, noticed) in &found {
        if let (Some(fault), Some((seed, failure))) = (fault, noticed) {
            println!("| {fault:?} | {} | {seed} |", failure.invariant);
        }
    }
    let faults = found.keys().flatten().count();
    println!("\n{faults} broken rules, {wrong} not as expected, {:.0} s", begun.elapsed().as_secs_f64());
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse() -> Option<(Vec<Option<Mutation>>, u64)> {
    let (mut chosen, mut seeds) = (Vec::new(), SEEDS);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--seeds" {
            seeds = args.next()?.parse().ok()?;
        } else {
            chosen.push(Some(*ALL.iter().find(|known| format!("{known:?}") == arg)?));
        }
    }
    if chosen.is_empty() {
        chosen = std::iter::once(None).chain(ALL.map(Some)).collect();
    }
    Some((chosen, seeds))
}

/// The first of these schedules that fails with this fault.
fn notice(fault: Option<Mutation>, seeds: u64) -> Option<(u64, Failure)> {
    set(fault);
    let noticed = (0..seeds).find_map(|seed| {
        let outcome = match fault {
            // What these would let pass, no power failure leaves behind.
            Some(Mutation::SkipChecksum | Mutation::SkipChain) => damaged::trial(seed),
            _ => run(seed).outcome.map(drop),
        };
        Some((seed, outcome.err()?))
    });
    set(None);
    noticed
}

fn line(fault: Option<Mutation>, noticed: &Option<(u64, Failure)>) -> String {
    let name = fault.map_or("no fault".to_owned(), |fault| format!("{fault:?}"));
    match noticed {
        Some((seed, failure)) => format!("{name}: seed {seed}: {failure}"),
        None => format!("{name}: nothing noticed"),
    }
}
