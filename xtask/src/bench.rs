//! `cargo xtask bench`, `soak` and `mutate`: the long runs, started but not understood here.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::steps::{Outcome, Steps};
use crate::workspace::{Target, TargetKind, Workspace, files_below};
use crate::{npm, pack, peers, run};

/// A cargo binary with this prefix is a benchmark by the rest of its name.
const BIN_PREFIX: &str = "bench-";

const SOAK_PACKAGE: &str = "coheap-tests";
const SOAK_BIN: &str = "soak";
const GUARD_BIN: &str = "guard-soak";
/// Wants the feature of the same name.
const MUTATE_BIN: &str = "mutate";

/// One benchmark: a script of `tests/bench/`, a binary `bench-NAME`, or a bench target of any package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bench {
    name: String,
    runner: Runner,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Runner {
    Script(PathBuf),
    Cargo(Target),
}

/// The benchmark of that name, or all of them. The error is one line, meant for the user.
pub(crate) fn select(workspace: &Workspace, name: Option<&str>) -> Result<Vec<Bench>, String> {
    let folder = workspace.root().join("tests/bench");
    let mut scripts = files_below(&folder, ".mjs").map_err(|error| error.to_string())?;
    // What lies deeper belongs to one of them.
    scripts.retain(|path| path.parent() == Some(&folder));
    choose(find(scripts, workspace.targets()), name)
}

fn find(scripts: Vec<PathBuf>, targets: &[Target]) -> Vec<Bench> {
    let mut found: Vec<_> = scripts
        .into_iter()
        .map(|path| Bench {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            runner: Runner::Script(path),
        })
        .chain(targets.iter().filter_map(|target| {
            let name = match target.kind {
                TargetKind::Bench => &target.name,
                TargetKind::Bin => target.name.strip_prefix(BIN_PREFIX)?,
            };
            Some(Bench { name: name.to_owned(), runner: Runner::Cargo(target.clone()) })
        }))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn choose(all: Vec<Bench>, name: Option<&str>) -> Result<Vec<Bench>, String> {
    let names = all.iter().map(|bench| bench.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        return if all.is_empty() { Err("there are no benches yet".to_owned()) } else { Ok(all) };
    };
    let chosen: Vec<_> = all.iter().filter(|bench| bench.name == name).cloned().collect();
    match chosen.is_empty() {
        false => Ok(chosen),
        true if all.is_empty() => Err(format!("no such bench `{name}`; there are none yet")),
        true => Err(format!("no such bench `{name}`; there are: {names}")),
    }
}

/// `flags` go to scripts.
pub(crate) fn plan(steps: &mut Steps, chosen: Vec<Bench>, flags: &[String]) {
    pack::plan(steps);
    steps.add("install the package", npm::install_package);
    if chosen.iter().any(|bench| matches!(bench.runner, Runner::Script(_))) {
        steps.add("install the peers", peers::install);
    }
    for bench in chosen {
        let flags = flags.to_vec();
        steps.add("bench", move |workspace| {
            println!("{}", bench.name);
            let mut command = match &bench.runner {
                Runner::Script(path) => {
                    let mut command = workspace.node(&["--expose-gc", &workspace.shown(path)]);
                    command.args(&flags).env("COHEAP_PEERS", workspace.own_target("peers"));
                    command
                }
                Runner::Cargo(Target { package, name, kind: TargetKind::Bench }) => {
                    workspace.cargo(&["bench", "--locked", "--package", package, "--bench", name])
                }
                Runner::Cargo(Target { package, name, kind: TargetKind::Bin }) => {
                    workspace.cargo(&["run", "--locked", "--release", "--package", package, "--bin", name])
                }
            };
            run::visibly(command.env("COHEAP_RELAY_BIN", workspace.relay()))?;
            Ok(Outcome::Done(bench.name))
        });
    }
}

pub(crate) fn plan_soak(steps: &mut Steps, name: &'static str, flags: Vec<String>) {
    steps.add(name, move |workspace| {
        let bin = if flags.iter().any(|flag| flag == "--guard") { GUARD_BIN } else { SOAK_BIN };
        ensure!(
            workspace.has_bin(SOAK_PACKAGE, bin),
            "there is nothing to soak yet: {SOAK_PACKAGE} has no binary {bin}"
        );
        let mut command =
            workspace.cargo(&["run", "--locked", "--release", "--package", SOAK_PACKAGE, "--bin", bin, "--"]);
        run::visibly(command.args(&flags))?;
        Ok(Outcome::Done(flags.join(" ")))
    });
}

/// The machines with one rule broken after another: the simulator's checks must notice each.
pub(crate) fn plan_mutate(steps: &mut Steps, flags: Vec<String>) {
    steps.add("broken rules are noticed", move |workspace| {
        let of = ["--package", SOAK_PACKAGE, "--features", MUTATE_BIN, "--bin", MUTATE_BIN];
        let mut command = workspace.cargo(&["run", "--locked", "--release"]);
        run::visibly(command.args(of).arg("--").args(&flags))?;
        Ok(Outcome::Done(flags.join(" ")))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: Option<&str>, expected: Result<&[&str], &str>) {
        let target = |name: &str, kind| Target { package: "p".to_owned(), name: name.to_owned(), kind };
        let targets = [
            target("bench-relay", TargetKind::Bin),
            target("coheap-relay", TargetKind::Bin),
            target("merge", TargetKind::Bench),
        ];
        let chosen = choose(find(vec![PathBuf::from("tests/bench/load.mjs")], &targets), name);
        let names = chosen.map(|benches| benches.into_iter().map(|bench| bench.name).collect::<Vec<_>>());
        assert_eq!(names, expected.map(|names| names.iter().map(ToString::to_string).collect()).map_err(str::to_owned));
    }

    #[test]
    fn a_bench_is_found_by_name_wherever_it_lives() {
        check(Some("load"), Ok(&["load"]));
        check(Some("relay"), Ok(&["relay"]));
        check(Some("merge"), Ok(&["merge"]));
        check(None, Ok(&["load", "merge", "relay"]));
    }

    #[test]
    fn an_unknown_bench_is_answered_with_those_there_are() {
        check(Some("coheap-relay"), Err("no such bench `coheap-relay`; there are: load, merge, relay"));
        assert_eq!(choose(Vec::new(), Some("x")), Err("no such bench `x`; there are none yet".to_owned()));
        assert_eq!(choose(Vec::new(), None), Err("there are no benches yet".to_owned()));
    }
}
