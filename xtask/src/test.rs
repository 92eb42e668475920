//! `cargo xtask test`: every test that CI runs, those of Rust first because they fail soonest.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::steps::{Outcome, Steps};
use crate::workspace::{Workspace, files_below};
use crate::{bench, npm, pack, run, wasm};

/// So many schedules, or as many as fit: on two cores that nobody else uses, 10,000 take less than a minute.
const SCHEDULES: [&str; 4] = ["--seeds", "10200", "--seconds", "240"];

pub(crate) fn plan(steps: &mut Steps) {
    pack::plan(steps);
    steps.add("core alone", core_alone);
    steps.add("Rust tests", rust);
    bench::plan_mutate(steps, Vec::new());
    steps.add("TypeScript of the tests", |workspace| {
        npm::compile(workspace, "tsconfig.test.json", "dist-test", "dist-test/src/generated")
    });
    steps.add("JavaScript tests", |workspace| node(workspace, &workspace.js().join("dist-test/test"), ".test.js"));
    steps.add("install the package", npm::install_package);
    // The release builds of the core and of the relay are there by now, so this costs the compiler the tests alone; and a
    // schedule takes a tenth of what it takes without optimisation.
    bench::plan_soak(steps, "schedules", SCHEDULES.map(str::to_owned).to_vec());
    bench::plan_soak(steps, "small worlds", ["--world", "small"].map(str::to_owned).to_vec());
    steps.add("end-to-end tests", |workspace| node(workspace, &workspace.root().join("tests/e2e"), ".test.mjs"));
}

/// The core without any feature, natively and for wasm. A check of the whole workspace would pass a forbidden import,
/// because there the features of all members are joined.
fn core_alone(workspace: &Workspace) -> Result<Outcome> {
    wasm::ensure_target()?;
    let check = ["check", "--locked", "--package", "coheap-core", "--no-default-features"];
    run::visibly(&mut workspace.cargo(&check))?;
    run::visibly(workspace.cargo(&check).args(["--target", "wasm32-unknown-unknown"]))?;
    Ok(Outcome::done())
}

/// The core without automerge, as the small module has it: the workspace as a whole builds it with both engines.
const SMALL_MODULE: &[&str] = &["test", "--locked", "-p", "coheap-core", "--test", "replica"];

/// With nextest where it is installed; it is faster and says more, but does not run the examples in the documentation.
fn rust(workspace: &Workspace) -> Result<Outcome> {
    if !run::works(&mut workspace.cargo(&["nextest", "--version"])) {
        run::visibly(&mut workspace.cargo(&["test", "--locked", "--workspace"]))?;
        run::visibly(&mut workspace.cargo(SMALL_MODULE))?;
        return Ok(Outcome::Done("with cargo test".to_owned()));
    }
    run::visibly(&mut workspace.cargo(&["test", "--locked", "--workspace", "--doc"]))?;
    run::visibly(&mut workspace.cargo(&["nextest", "run", "--locked", "--workspace"]))?;
    run::visibly(&mut workspace.cargo(SMALL_MODULE))?;
    Ok(Outcome::Done("with cargo nextest".to_owned()))
}

/// Runs the test files of a folder. They are named one by one: what `node --test FOLDER` means differs by version.
fn node(workspace: &Workspace, folder: &Path, suffix: &str) -> Result<Outcome> {
    let files: Vec<PathBuf> = files_below(folder, suffix)?;
    if files.is_empty() {
        return Ok(Outcome::Skipped(format!("there is no *{suffix} in {} yet", workspace.shown(folder))));
    }
    let files: Vec<_> = files.iter().map(|file| workspace.shown(file)).collect();
    let mut node = workspace.node(&["--enable-source-maps", "--test", "--test-reporter=spec"]);
    // Every heap of every test, and of every process a test starts, compares its mirrors with their engines.
    run::visibly(node.env("COHEAP_DEBUG", "1").args(&files))?;
    Ok(Outcome::Done(format!("test files: {}", files.len())))
}
