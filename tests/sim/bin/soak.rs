//! Many simulated lives, by command: `cargo xtask soak --seeds N [--from S]`. A seed that fails is named and stays replayable:
//! `COHEAP_SEED=n cargo test -p coheap-tests cluster`.
#![allow(clippy::print_stdout, reason = "a soak says how far it is")]

use std::process::ExitCode;

use coheap_tests::life::{Plan, Tally, check};

fn main() -> ExitCode {
    let (mut seeds, mut from) = (None, 0);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().and_then(|text| text.parse::<u64>().ok());
        match (flag.as_str(), value) {
            ("--seeds", Some(value)) => seeds = Some(value),
            ("--from", Some(value)) => from = value,
            _ => {
                eprintln!("usage: soak --seeds N [--from S]");
                return ExitCode::from(2);
            }
        }
    }
    let Some(seeds) = seeds else {
        eprintln!("usage: soak --seeds N [--from S]");
        return ExitCode::from(2);
    };
    let (mut failed, mut sum) = (Vec::new(), Tally::default());
    for (done, seed) in (from..from.saturating_add(seeds)).enumerate() {
        match std::panic::catch_unwind(|| check(seed, Plan::of(seed))) {
            Ok(tally) => sum += tally,
            Err(_) => failed.push(seed),
        }
        if (done + 1).is_multiple_of(100) {
            println!("{} of {seeds} seeds, {} log entries, {} failed", done + 1, sum.entries, failed.len());
        }
    }
    println!("{seeds} seeds from {from}: {sum:?}, {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
