//! Shortens a schedule that fails: steps are left out, many at a time first, as long as the same invariant goes on to fail.

use super::plan::{Deed, Plan};
use super::{Failure, replay};

/// Replays at most this many shorter schedules.
const TRIES_MAX: usize = 1_000;

/// The steps that matter, and how they fail.
pub fn shrink(plan: &Plan, steps: &[Deed], failure: &Failure) -> (Vec<Deed>, Failure) {
    let fails_alike = |steps: &[Deed]| replay(plan, steps).err().filter(|other| other.invariant == failure.invariant);
    let (mut steps, mut failure) = (steps.to_vec(), failure.clone());
    let mut tries = 0;
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        let before = steps.len();
        while at < steps.len() && tries < TRIES_MAX {
            tries += 1;
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match fails_alike(&fewer) {
                Some(other) => (steps, failure) = (fewer, other),
                None => at += size,
            }
        }
        // Single steps once more, as long as that helps.
        if size > 1 || steps.len() == before {
            size /= 2;
        }
    }
    (steps, failure)
}
