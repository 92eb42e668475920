//! The build driver: `cargo xtask build | demo | test | bench | soak | mutate | fuzz`.
//!
//! Turns a fresh clone into a tested package with nothing installed by hand but Rust and Node.js. Each command is a
//! list of steps, shown with its progress and its seconds; a step that has nothing to do says so and costs little.
//!
//! ```text
//! cargo ──► coheap_wasm.wasm ──bindgen──► js/src/generated ──tsc──► js/dist ──npm pack──► target/npm/coheap.tgz
//!       └─► target/release/coheap-relay                                      └─ installed ─► target/demo, node_modules
//! ```
//!
//! Owns no knowledge of what the project does: only how its parts are built, in which order, and how they are run.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bench;
mod demo;
mod fingerprint;
mod fuzz;
mod glue;
mod npm;
mod pack;
mod peers;
mod relay;
mod run;
mod steps;
mod test;
mod wasm;
mod workspace;

use std::process::ExitCode;

use args::Command;
use steps::Steps;
use workspace::Workspace;

/// The command line was wrong: nothing has been done.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(usage) => return refuse(&usage),
    };
    if command == Command::Help {
        println!("{}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    let workspace = match Workspace::find() {
        Ok(workspace) => workspace,
        Err(error) => return fail(&error),
    };
    let mut steps = Steps::default();
    match command {
        Command::Help => {}
        Command::Build => pack::plan(&mut steps),
        Command::Demo { flags } => demo::plan(&mut steps, flags),
        Command::Test => test::plan(&mut steps),
        Command::Bench { name, flags } => match bench::select(&workspace, name.as_deref()) {
            Ok(chosen) => bench::plan(&mut steps, chosen, &flags),
            Err(usage) => return refuse(&usage),
        },
        Command::Soak { flags } => bench::plan_soak(&mut steps, "soak", flags),
        Command::Mutate { flags } => bench::plan_mutate(&mut steps, flags),
        Command::Fuzz { target, seconds, seed, keep } => {
            fuzz::plan(&mut steps, target.as_deref(), fuzz::Fuzzing { seconds, seed, keep });
        }
    }
    match steps.run(&workspace) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn refuse(usage: &str) -> ExitCode {
    eprintln!("error: {usage}\n\n{}", args::USAGE);
    ExitCode::from(EXIT_USAGE)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
