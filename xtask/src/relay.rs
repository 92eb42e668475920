//! The relay's release binary.

use anyhow::Result;

use crate::run;
use crate::steps::Outcome;
use crate::workspace::Workspace;

const PACKAGE: &str = "coheap-sync-server";
const BIN: &str = "coheap-relay";

pub(crate) fn exists(workspace: &Workspace) -> bool {
    workspace.has_bin(PACKAGE, BIN)
}

pub(crate) fn build(workspace: &Workspace) -> Result<Outcome> {
    if !exists(workspace) {
        return Ok(Outcome::Skipped(format!("{PACKAGE} has no binary {BIN} yet")));
    }
    run::visibly(&mut workspace.cargo(&["build", "--locked", "--release", "--package", PACKAGE, "--bin", BIN]))?;
    Ok(Outcome::Done(workspace.shown(&workspace.relay())))
}
