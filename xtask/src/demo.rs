//! `cargo xtask demo`: the project's main job, run from the package as published.

use crate::steps::{Outcome, Steps};
use crate::{npm, pack, run};

/// The scripts that show it, from the project's root: the smallest heap, then the main job.
const COUNTER: &str = "examples/counter/demo.mjs";
const CITIES: &str = "examples/cities/demo.mjs";

/// `flags` go to the main job.
pub(crate) fn plan(steps: &mut Steps, flags: Vec<String>) {
    pack::plan(steps);
    steps.add("install the package", npm::install_package);
    steps.add("demo: counter", |workspace| {
        run::visibly(&mut workspace.node(&[COUNTER]))?;
        Ok(Outcome::done())
    });
    steps.add("demo: cities", move |workspace| {
        run::visibly(workspace.node(&[CITIES]).args(&flags))?;
        Ok(Outcome::done())
    });
}
