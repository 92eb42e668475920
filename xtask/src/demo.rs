//! `cargo xtask demo`: the project's main job, run from the package as published.

use crate::steps::{Outcome, Steps};
use crate::{npm, pack, run};

/// The script that shows it, from the project's root.
const DEMO: &str = "examples/counter/demo.mjs";

pub(crate) fn plan(steps: &mut Steps) {
    pack::plan(steps);
    steps.add("install the package", npm::install_package);
    steps.add("demo", |workspace| {
        if !workspace.root().join(DEMO).exists() {
            return Ok(Outcome::Skipped(format!("there is no {DEMO} yet")));
        }
        run::visibly(&mut workspace.node(&[DEMO]))?;
        Ok(Outcome::done())
    });
}
