//! Chooses what happens next, with an eye on the world: what can happen, what the plan wants struck, and what is rare. All its
//! chance comes from the seed, so a seed's steps are always the same.

use coheap_core::segment::write::Draw;

use super::coverage::{Fault, Phase};
use super::plan::{Deed, FAULTS_MIN, Plan, STEPS_MIN, WaitFor};
use super::process::Link;
use super::world::World;
use crate::Draws;

/// Steps between two faults, about.
const BETWEEN_FAULTS: usize = 45;

/// Steps for which somebody is away who has no answer, about, until lines are dropped.
const AWAY_FOR: usize = 12;

/// One of so many steps in which messages of a replica would arrive repeats a frame, if one with commits is under way.
const REPEATS: u16 = 8;

/// Of so many steps one is a stranger's, where there are any; in two more an honest process's commits are forged, if some are under way.
const HARMS: usize = 30;

/// Of so many steps one is of the shared work, where there is any.
const WORKS: usize = 6;

/// The source of a schedule's steps.
#[derive(Debug)]
pub struct Generator {
    draws: Draws,
    /// What is not in every plan, by draws of its own.
    odd: Draws,
    steps: usize,
    rights: bool,
    long: bool,
    processes: usize,
    losses: bool,
    hostile: bool,
    claims: bool,
    rolls: bool,
    forgets: bool,
    faults: Vec<Fault>,
    targets: Vec<(Fault, Phase)>,
}

impl Generator {
    /// For a plan.
    pub fn new(plan: &Plan) -> Generator {
        Generator {
            draws: Draws(plan.seed ^ 0x9e37_79b9),
            odd: Draws(plan.seed ^ 0x0dd5_0dd5),
            steps: plan.steps.max(STEPS_MIN),
            rights: plan.rights,
            long: plan.long,
            processes: plan.processes(),
            losses: plan.losses,
            hostile: plan.hostile,
            claims: plan.claims,
            rolls: plan.rolls,
            forgets: plan.forgets,
            faults: plan.faults(),
            targets: plan.targets.clone(),
        }
    }

    /// The next step; `None`: enough has happened.
    pub fn next(&mut self, world: &World) -> Option<Deed> {
        if world.at >= self.steps {
            return None;
        }
        if self.forgets && world.has_somebody_away() && self.draws.below(AWAY_FOR) == 0 {
            return Some(Deed::Age);
        }
        let odd = if self.hostile && world.is_up { self.harm(world) } else { None };
        let odd = odd.or_else(|| self.work());
        Some(odd.or_else(|| self.fault(world)).unwrap_or_else(|| self.usual(world)))
    }

    /// Now and then somebody sends what no honest replica does.
    fn harm(&mut self, world: &World) -> Option<Deed> {
        let pick = self.odd.draw() as u16;
        match self.odd.below(HARMS) {
            0 => Some(Deed::Harm { pick }),
            1 | 2 => {
                let at = self.odd.below(self.processes);
                let link = world.processes[at].link.as_ref();
                link.is_some_and(has_commits).then_some(Deed::Forge { at: at as u8, pick })
            }
            _ => None,
        }
    }

    /// Now and then somebody does something of the shared work.
    fn work(&mut self) -> Option<Deed> {
        if !self.claims || self.odd.below(WORKS) > 0 {
            return None;
        }
        let at = self.odd.below(self.processes) as u8;
        Some(Deed::Work { at, pick: self.odd.draw() as u16 })
    }

    /// What the plan wants struck is struck as soon as it can be; and now and then, something is.
    fn fault(&mut self, world: &World) -> Option<Deed> {
        for nth in 0..self.targets.len() {
            let (fault, phase) = self.targets[nth];
            let start = self.draws.below(self.processes);
            for at in (0..self.processes).map(|at| (at + start) % self.processes) {
                let fits = world.can_strike(fault, at) && world.struck(fault, at).contains(phase);
                if fits && self.draws.below(4) == 0 {
                    self.targets.swap_remove(nth);
                    return Some(self.strike(fault, at));
                }
            }
        }
        let left = self.steps - world.at;
        let due = FAULTS_MIN.saturating_sub(world.faults as usize) * 8 >= left;
        if !due && self.draws.below(BETWEEN_FAULTS) > 0 {
            return None;
        }
        let (fault, at) = (self.faults[self.draws.below(self.faults.len())], self.draws.below(self.processes));
        world.can_strike(fault, at).then(|| self.strike(fault, at))
    }

    fn strike(&mut self, fault: Fault, at: usize) -> Deed {
        Deed::Fault { fault, at: at as u8, pick: self.draws.draw() as u16 }
    }

    fn usual(&mut self, world: &World) -> Deed {
        let pick = self.draws.draw() as u16;
        let at = self.draws.below(self.processes) as u8;
        let process = &world.processes[usize::from(at)];
        if !world.is_up {
            return if self.draws.below(4) == 0 { Deed::Start } else { self.program(world, at, pick) };
        }
        // What waits for the relay or the disk goes on more often than programs act, or nothing would ever arrive.
        for _ in 0..8 {
            match self.draws.below(20) {
                0..3 => return self.program(world, at, pick),
                // Without a draw of its own: what no repeated frame comes before is as it was without them.
                3..7 if pick.is_multiple_of(REPEATS) && process.link.as_ref().is_some_and(has_commits) => {
                    return Deed::Repeat { at, pick: pick / REPEATS };
                }
                3..7 if process.link.as_ref().is_some_and(|link| !link.up.is_empty() && !link.silent) => {
                    return Deed::Up { at, count: 1 + self.draws.below(3) as u8 };
                }
                7..12
                    if process
                        .link
                        .as_ref()
                        .is_some_and(|link| !link.silent && (!link.relay_open || !link.down.is_empty())) =>
                {
                    return Deed::Down { at, count: 1 + self.draws.below(4) as u8 };
                }
                12..14 if world.platter.queued() > 0 => return Deed::Sync { count: 1 + self.draws.below(6) as u8 },
                14..16 if world.heaps.iter().any(|heap| !heap.reads.is_empty()) => return Deed::Read { pick },
                16 if world.heaps.iter().any(|heap| !heap.folds.is_empty()) => return Deed::Fold { pick },
                17 if !world.late.is_empty() => return Deed::LateUp { pick },
                18 | 19 if process.link.is_none() => {
                    let can_write = !self.rights || self.draws.below(3) > 0;
                    return Deed::Connect { at, can_write };
                }
                19 if process.link.as_ref().is_some_and(|link| link.silent) && self.draws.below(3) == 0 => {
                    return Deed::Notice { at };
                }
                _ => {}
            }
        }
        self.program(world, at, pick)
    }

    /// A program does something, or time passes.
    fn program(&mut self, world: &World, at: u8, pick: u16) -> Deed {
        let _ = world;
        match self.draws.below(30) {
            0..12 => {
                let large = self.long && self.draws.below(12) == 0;
                let alloc = self.draws.below(8) == 0;
                Deed::Edit { at, segments: 1 + self.draws.below(3) as u8, pick, alloc, large }
            }
            15 if self.rolls => Deed::Roll { pick },
            // The choice among segments is by the rest of a small division; this one is by what that leaves.
            12..16 if pick >= 1 << 14 => Deed::LoadFrom { at, pick },
            12..16 | 28 | 29 => Deed::Load { at, pick },
            16..18 if pick >= 1 << 14 => Deed::EvictKeeping { at, pick },
            16..18 => Deed::Evict { at, pick },
            18 => Deed::Wait { at, kind: WaitFor::Flush, pick },
            19 => Deed::Wait { at, kind: WaitFor::Sync, pick },
            20 => Deed::Wait { at, kind: WaitFor::Version, pick },
            21 => Deed::Wait { at, kind: WaitFor::Reach, pick },
            22 => Deed::Pass { ms: pick % 4_000 },
            23 => Deed::Store { at },
            24 if self.losses => Deed::Backup,
            24 if self.forgets => Deed::Age,
            26..28 => Deed::Pack { at, pick },
            _ => Deed::Pass { ms: if pick.is_multiple_of(8) { 40_000 } else { pick % 100 } },
        }
    }
}

/// Whether a frame that can be repeated is under way.
fn has_commits(link: &Link) -> bool {
    !link.silent && link.commits().next().is_some()
}
