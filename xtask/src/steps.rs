//! A command as a list of steps: says which one runs, how far it is, and at the end where the time went.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// How a step ended, if it did not fail.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It did its work; the text says what came of it, in a few words, or is empty.
    Done(String),
    /// There was nothing to do; the text says why.
    Skipped(String),
}

impl Outcome {
    pub(crate) fn done() -> Self {
        Self::Done(String::new())
    }
}

type Work = Box<dyn FnOnce(&Workspace) -> Result<Outcome>>;

/// The steps of one command, in order. The first that fails ends it.
#[derive(Default)]
pub(crate) struct Steps {
    planned: Vec<(&'static str, Work)>,
}

impl Steps {
    pub(crate) fn add(&mut self, name: &'static str, work: impl FnOnce(&Workspace) -> Result<Outcome> + 'static) {
        self.planned.push((name, Box::new(work)));
    }

    /// Runs every step, then prints the table, also when one failed.
    pub(crate) fn run(self, workspace: &Workspace) -> Result<()> {
        let total = self.planned.len();
        let started = Instant::now();
        let mut rows = Vec::with_capacity(total);
        let mut failure = None;
        for (number, (name, work)) in (1..).zip(self.planned) {
            println!("\n[{number}/{total}] {name}");
            let step = Instant::now();
            let outcome = work(workspace);
            let seconds = step.elapsed();
            let note = match &outcome {
                Ok(Outcome::Done(note)) => note.clone(),
                Ok(Outcome::Skipped(why)) => format!("skipped: {why}"),
                Err(_) => "FAILED".to_owned(),
            };
            println!("[{number}/{total}] {name}: {:.1} s{}{note}", seconds.as_secs_f64(), separator(&note));
            rows.push((name, seconds, note));
            if let Err(error) = outcome {
                failure = Some(error.context(format!("step {number} of {total}, {name}")));
                break;
            }
        }
        print_table(&rows, started.elapsed());
        failure.map_or(Ok(()), Err)
    }
}

fn separator(note: &str) -> &'static str {
    if note.is_empty() { "" } else { ", " }
}

fn print_table(rows: &[(&str, Duration, String)], total: Duration) {
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max("total".len());
    println!("\n{:<width$}  seconds", "step");
    for (name, seconds, note) in rows {
        println!("{}", format!("{name:<width$}  {:>7.1}  {note}", seconds.as_secs_f64()).trim_end());
    }
    println!("{:<width$}  {:>7.1}", "total", total.as_secs_f64());
}

/// True when the user vouches for what is built.
pub(crate) fn build_is_trusted() -> bool {
    std::env::var("COHEAP_SKIP_BUILD").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// Fails with the way out when something a trusted build should have left is not there.
pub(crate) fn expect_built(workspace: &Workspace, paths: &[std::path::PathBuf]) -> Result<()> {
    paths.iter().find(|path| !path.exists()).map_or(Ok(()), |missing| {
        Err(anyhow::anyhow!("{} is not there", workspace.shown(missing)))
            .context("COHEAP_SKIP_BUILD is set, but the build is not complete; run `cargo xtask build`")
    })
}
