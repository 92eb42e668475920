//! What the checks of the simulator are worth: every rule of `coheap_core::mutate` is broken, one after another, and the first
//! schedule that notices is named. `cargo xtask mutate [NAME…] [--seeds N]`. Without a fault the same schedules must hold.
//!
//! Some rules have another behind them that holds in nearly every world: for those the traces that were written for them are
//! played if no schedule notices, and for no others, so that a check that has gone blind is not covered up.
#![allow(clippy::print_stdout, reason = "its table is what it is run for")]

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use coheap_core::mutate::{ALL, Mutation, set};
use coheap_tests::alone;
use coheap_tests::damaged;
use coheap_tests::liar;
use coheap_tests::schedule::{Failure, run};
use coheap_tests::trace;

const USAGE: &str = "usage: mutate [NAME…] [--seeds N]";
/// Schedules within which a broken rule has to be noticed.
const SEEDS: u64 = 2_000;
/// Schedules without a fault, which must hold.
const HEALTHY: u64 = 100;
/// What no schedule notices: `tests/README.md` says of each why.
const BY_TRACES: [Mutation; 2] = [Mutation::RedoIncluded, Mutation::AdoptedIsWhole];
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
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<_, Option<Noticed>>::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(fault) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let noticed = notice(*fault, if fault.is_some() { seeds } else { HEALTHY });
                    let Ok(mut found) = found.lock() else { return };
                    println!("{}", line(*fault, noticed.as_ref()));
                    found.insert(*fault, noticed);
                }
            });
        }
    });
    let Ok(found) = found.into_inner() else { return ExitCode::FAILURE };
    let wrong = found.iter().filter(|(fault, noticed)| fault.is_some() != noticed.is_some()).count();
    println!("\n| rule that is broken | noticed as | first seed |\n|---|---|---|");
    for (fault, noticed) in &found {
        match (fault, noticed) {
            (Some(fault), Some(Noticed::Schedule(seed, failure))) => {
                println!("| {fault:?} | {} | {seed} |", failure.invariant);
            }
            (Some(fault), Some(Noticed::Trace(name))) => println!("| {fault:?} | trace {name} | |"),
            _ => {}
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

/// Who noticed.
enum Noticed {
    Schedule(u64, Failure),
    Trace(String),
}

/// The first of these schedules that fails with this fault, or the first trace.
fn notice(fault: Option<Mutation>, seeds: u64) -> Option<Noticed> {
    set(fault);
    let noticed = (0..seeds).find_map(|seed| {
        let outcome = match fault {
            // What these would let pass, no power failure leaves behind.
            Some(Mutation::SkipChecksum | Mutation::SkipChain) => damaged::trial(seed),
            // No relay that ships passes it on.
            Some(Mutation::ReplicaTakesAnyClock) => liar::trial(seed),
            // Programs of schedules make no objects within objects.
            Some(Mutation::DeletionUnseen) => alone::trial(seed),
            _ => run(seed).outcome.map(drop),
        };
        Some((seed, outcome.err()?))
    });
    let noticed = noticed.map(|(seed, failure)| Noticed::Schedule(seed, failure));
    let traces = fault.is_none_or(|fault| BY_TRACES.contains(&fault));
    let noticed = noticed.or_else(|| traces.then(first_trace)?.map(Noticed::Trace));
    set(None);
    noticed
}

/// The first trace that fails, by name.
fn first_trace() -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/traces");
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut scripts: Vec<_> = files.map(|file| file.path()).collect();
    scripts.sort();
    scripts.into_iter().find_map(|path| {
        let (name, script) = (path.file_stem()?.to_string_lossy().into_owned(), fs::read_to_string(&path).ok()?);
        catch_unwind(|| trace::play(&name, &script)).is_err().then_some(name)
    })
}

fn line(fault: Option<Mutation>, noticed: Option<&Noticed>) -> String {
    let name = fault.map_or("no fault".to_owned(), |fault| format!("{fault:?}"));
    match noticed {
        Some(Noticed::Schedule(seed, failure)) => format!("{name}: seed {seed}: {failure}"),
        Some(Noticed::Trace(trace)) => format!("{name}: trace {trace}"),
        None => format!("{name}: nothing noticed"),
    }
}
