//! `cargo xtask build`: everything that ships, and the beginning of every other command.

use crate::steps::{Outcome, Steps, build_is_trusted, expect_built};
use crate::{npm, relay, wasm};

/// Adds the build, or, when the user vouches for it, a look that it is there.
pub(crate) fn plan(steps: &mut Steps) {
    if build_is_trusted() {
        steps.add("build", |workspace| {
            let mut products = npm::products(workspace);
            if relay::exists(workspace) {
                products.push(workspace.relay());
            }
            expect_built(workspace, &products)?;
            Ok(Outcome::Skipped("COHEAP_SKIP_BUILD is set".to_owned()))
        });
        return;
    }
    wasm::plan(steps);
    npm::plan(steps);
    steps.add("relay", relay::build);
}
