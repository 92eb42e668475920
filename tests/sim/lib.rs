//! Worlds to test coheap in: what programs see ([`tree`]), the mirror they see it through ([`mirror`]), one replica's
//! segment with its mirror ([`peer`]), several of them around one log ([`world`]), and random programs ([`program`]). Then whole replicas around a relay
//! ([`cluster`]), at random ([`life`]) or by hand ([`stage`], [`trace`]).
//!
//! Nothing here knows engines or layouts: everything goes through `coheap_core::segment::Segment`, as a replica does.
#![allow(clippy::missing_panics_doc, reason = "a test that finds something wrong panics")]

pub mod alone;
pub mod choices;
pub mod cluster;
pub mod damaged;
pub mod disk;
pub mod disk_backend;
pub mod hostile;
pub mod keeper;
pub mod ledger;
pub mod liar;
pub mod life;
pub mod mirror;
pub mod node;
pub mod peer;
pub mod program;
pub mod schedule;
pub mod sharer;
pub mod small_worlds;
pub mod stage;
pub mod stored;
pub mod trace;
pub mod tree;
pub mod witness;
pub mod world;

use coheap_core::commit::EngineKind;
use coheap_core::segment::write::Draw;

/// Every engine that the suites run on. A new engine is one more entry here.
pub const ENGINES: &[EngineKind] = &[EngineKind::Yrs, EngineKind::Automerge];

/// Random numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Draws(pub u64);

impl Draws {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % (end.max(1) as u64)) as usize
    }
}

impl Draw for Draws {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
