//! One segment and the mirrors over it: a program of chance, by seed. Schedules write few kinds of values; here is every kind,
//! and after every step each mirror must show what its document holds.

use crate::program::{Statistics, Turn, run};
use crate::schedule::{Failure, guarded};
use crate::world::World;
use crate::{Draws, ENGINES};
use coheap_core::id::SegmentId;

/// Steps of a program.
const STEPS: usize = 80;

/// Runs the program of a seed.
pub fn trial(seed: u64) -> Result<(), Failure> {
    let mut draws = Draws(seed ^ 0xa10e);
    let engine = ENGINES[draws.below(ENGINES.len())];
    let peers = 2 + draws.below(4);
    let mut world = World::new(engine, SegmentId([7; 16]), peers, seed);
    let steps: Vec<Turn> = (0..STEPS).map(|_| Turn::draw(&mut draws)).collect();
    let program = || {
        run(&mut world, &steps, &mut Statistics::default());
        Ok(())
    };
    guarded(program).map_err(|failure| Failure { invariant: "values", ..failure })
}
