//! Schedules (`tests/sim/schedule.rs`): the protocol under every fault, by seed. Goal: P1–P6, R2, R6, R11 for the machines and
//! the store that ship. Replay one: `COHEAP_SEED=n cargo test -p coheap-tests schedules`, or `cargo xtask soak --seed n --trace`.

use std::time::{Duration, Instant};

use coheap_tests::schedule::coverage::Fault;
use coheap_tests::schedule::plan::{Deed, FAULTS, FAULTS_MIN, Plan, STEPS_MIN, WaitFor};
use coheap_tests::schedule::shrink::shrink;
use coheap_tests::schedule::{Tally, replay, run, run_in};

/// How long the schedules of one test run may take: without optimisation they are for the machines' assertions, and
/// `cargo xtask test` runs very many more with it.
const WITHIN: Duration = Duration::from_secs(20);
/// Schedules of one test run, if they fit.
const SCHEDULES: u64 = 10_000;

/// Runs a schedule; one that fails is shortened and told.
fn check(seed: u64) -> Tally {
    let run = run(seed);
    let failure = match run.outcome {
        Ok(tally) => return tally,
        Err(failure) => failure,
    };
    let (steps, failure) = shrink(&Plan::of(seed), &run.steps, &failure);
    let steps: Vec<String> = steps.iter().map(|step| format!("    {step:?}")).collect();
    panic!("seed {seed} fails ({failure}); what is left of it:\n{}", steps.join("\n"));
}

#[test]
fn p1_to_p6_hold_in_as_many_schedules_as_fit() {
    if let Ok(seed) = std::env::var("COHEAP_SEED") {
        check(seed.parse().expect("COHEAP_SEED is a number"));
        return;
    }
    let (begun, mut sum) = (Instant::now(), Tally::default());
    for seed in 0..SCHEDULES {
        if begun.elapsed() > WITHIN {
            break;
        }
        sum += &check(seed);
    }
    println!("{sum}");
    // The schedules were worth it.
    assert!(sum.steps >= sum.schedules * STEPS_MIN as u64, "too short: {sum}");
    assert!(sum.faults >= sum.schedules * FAULTS_MIN as u64, "too quiet: {sum}");
    assert!(sum.schedules >= 50, "too few: {sum}");
    assert!(sum.repeated >= sum.schedules, "too few repeated frames: {sum}");
}

/// D4, D5. Most give the generations back that a disk has lost; one that is told of a conflict ends there (§14.3).
#[test]
fn d4_generations_come_back_to_disks_that_have_lost_them() {
    let mut sum = Tally::default();
    let losses = (0..).map(Plan::of).filter(|plan| plan.losses && !plan.automerge);
    for plan in losses.take(40) {
        let plan = Plan { rolls: true, ..plan };
        let run = run_in(&plan);
        match run.outcome {
            Ok(tally) => sum += &tally,
            Err(failure) => panic!("seed {} with rolls fails ({failure}): {:#?}", plan.seed, run.steps),
        }
    }
    println!("{sum}");
    assert!(sum.adopted >= 3 && sum.parted < 20, "{sum}");
}

#[test]
fn a_seed_decides_everything() {
    for seed in [1, 7, 2126] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.steps, second.steps, "seed {seed}");
        let tallies = [first.outcome, second.outcome, replay(&Plan::of(seed), &run(seed).steps)];
        let tallies: Vec<String> = tallies.iter().map(|tally| format!("{tally:?}")).collect();
        assert!(tallies.iter().all(|tally| *tally == tallies[0]), "seed {seed}: {tallies:?}");
    }
}

/// Schedules that failed once, shortened: a change of the generator does not change them.
fn stays_mended(heaps_of: &[usize], fold_bytes: Option<u64>, steps: &[Deed]) {
    stays_mended_in(heaps_of, fold_bytes, steps, false, Plan::of(114).rolls);
}

fn stays_mended_in(heaps_of: &[usize], fold_bytes: Option<u64>, steps: &[Deed], losses: bool, rolls: bool) {
    let heaps = heaps_of.iter().max().map_or(1, |heap| heap + 1);
    let (rights, clones, automerge) = (false, false, false);
    let plan = Plan {
        heaps,
        heaps_of: heaps_of.to_vec(),
        fold_bytes,
        rights,
        clones,
        losses,
        rolls,
        automerge,
        ..Plan::of(114)
    };
    let outcome = replay(&plan, steps);
    assert!(outcome.is_ok(), "{}", outcome.err().map(|failure| failure.to_string()).unwrap_or_default());
}

fn edit(at: u8, segments: u8) -> Deed {
    Deed::Edit { at, segments, pick: 16918, alloc: false, large: false }
}

fn connect(at: u8) -> Deed {
    Deed::Connect { at, can_write: true }
}

/// R2a, while what it repeats is not durable, and then beside a copy of the other of two that are under way.
#[test]
fn a_frame_that_is_there_twice_takes_effect_once() {
    let (up, down) = (|count| Deed::Up { at: 0, count }, |count| Deed::Down { at: 0, count });
    let repeat = |pick| Deed::Repeat { at: 0, pick };
    let steps = [edit(0, 1), repeat(0), up(2), down(2), edit(0, 1), edit(0, 1), repeat(1), repeat(0), up(4)];
    let plan = Plan { rights: false, clones: false, losses: false, ..Plan::of(114) };
    let tally = replay(&plan, &steps).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((tally.repeated, tally.refused), (3, 0), "{tally}");
}

#[test]
fn what_met_a_busy_goes_out_again_when_it_ends() {
    let full = Deed::Fault { fault: Fault::Full, at: 0, pick: 42280 };
    stays_mended(&[0; 6], Some(100), &[edit(0, 2), Deed::Up { at: 0, count: 3 }, full]);
}

#[test]
fn a_resend_that_meets_a_relay_still_reading_its_log_is_told_busy_again() {
    let full = Deed::Fault { fault: Fault::Full, at: 0, pick: 48256 };
    let (down, pass) = (Deed::Down { at: 0, count: 1 }, Deed::Pass { ms: 3549 });
    stays_mended(&[0, 1, 0, 1], None, &[edit(0, 2), Deed::Up { at: 0, count: 3 }, full, down, pass]);
}

#[test]
fn what_lies_behind_a_first_commit_that_met_a_busy_does_not_make_its_line_unknown() {
    let steps = [
        connect(1),
        Deed::Up { at: 1, count: 3 },
        Deed::Down { at: 1, count: 3 },
        Deed::Up { at: 1, count: 3 },
        Deed::Read { pick: 0 },
        Deed::Down { at: 1, count: 3 },
        edit(1, 1),
        edit(1, 1),
        Deed::Up { at: 1, count: 1 },
        Deed::Fault { fault: Fault::Full, at: 1, pick: 42280 },
        Deed::Read { pick: 0 },
        Deed::Up { at: 1, count: 1 },
    ];
    stays_mended(&[0; 4], None, &steps);
}

#[test]
fn a_version_of_a_life_that_began_since_a_connection_is_waited_for() {
    let steps = [
        Deed::Fault { fault: Fault::RelayCrash, at: 0, pick: 50295 },
        Deed::Start,
        Deed::Wait { at: 1, kind: WaitFor::Version, pick: 37702 },
        connect(1),
        Deed::Up { at: 1, count: 1 },
        Deed::Sync { count: 2 },
        Deed::Down { at: 1, count: 1 },
        Deed::Wait { at: 0, kind: WaitFor::Reach, pick: 3874 },
    ];
    stays_mended(&[0; 4], Some(32), &steps);
}

#[test]
fn a_segment_that_an_earlier_machine_has_folded_is_not_folded_without_end() {
    let edit = |at, segments, pick, alloc| Deed::Edit { at, segments, pick, alloc, large: false };
    let steps = [
        edit(0, 2, 65493, false),
        edit(1, 3, 16865, false),
        edit(1, 1, 33510, true),
        Deed::Up { at: 0, count: 1 },
        Deed::Up { at: 1, count: 3 },
        edit(1, 2, 14907, false),
        Deed::Up { at: 1, count: 1 },
        Deed::Sync { count: 3 },
        Deed::Fault { fault: Fault::SyncFails, at: 0, pick: 26734 },
    ];
    stays_mended(&[0, 1, 0], Some(100), &steps);
}

#[test]
fn a_machine_stays_loaded_while_its_epoch_is_on_its_way_to_the_disk() {
    let steps = [
        Deed::Fault { fault: Fault::RelayCrash, at: 1, pick: 12597 },
        Deed::Start,
        connect(2),
        Deed::Fault { fault: Fault::Late, at: 2, pick: 10555 },
        Deed::LateUp { pick: 45246 },
        Deed::Pass { ms: 40_000 },
    ];
    stays_mended(&[0, 1, 0], Some(32), &steps);
}

/// R8. An earlier machine had asked for the fold: it spared the log that its own streams needed, and the stream of the machine
/// that took its place began below that.
#[test]
fn a_stream_does_not_begin_where_the_fold_of_an_earlier_machine_is_about_to_drop_the_log() {
    let edit = |at, segments, pick, alloc| Deed::Edit { at, segments, pick, alloc, large: false };
    let (up, down) = (|at, count| Deed::Up { at, count }, |at, count| Deed::Down { at, count });
    let (fold, sync) = (Deed::Fold { pick: 0 }, |count| Deed::Sync { count });
    let steps = [
        connect(3),
        up(3, 2),
        down(3, 3),
        up(3, 1),
        Deed::Read { pick: 35509 },
        edit(0, 1, 43489, false),
        connect(1),
        up(1, 2),
        down(3, 3),
        down(1, 2),
        edit(3, 2, 60344, false),
        edit(3, 2, 30518, false),
        up(0, 2),
        edit(0, 3, 15859, false),
        edit(3, 3, 49825, true),
        up(3, 2),
        edit(3, 3, 57343, false),
        sync(1),
        Deed::Fault { fault: Fault::Cut, at: 1, pick: 59255 },
        fold,
        fold,
        up(0, 1),
        up(3, 3),
        sync(4),
        Deed::Fault { fault: Fault::SyncFails, at: 2, pick: 56452 },
        connect(1),
        fold,
        sync(4),
        up(1, 2),
        fold,
        Deed::Read { pick: 5535 },
    ];
    stays_mended(&[0; 5], Some(100), &steps);
}

/// The log stays for a stream as long as there is the stream: who is not there any more is not answered, and nobody complains.
#[test]
fn a_read_for_a_connection_that_has_gone_may_find_the_log_dropped() {
    let edit = |at, segments, pick, alloc| Deed::Edit { at, segments, pick, alloc, large: false };
    let (up, down) = (|at, count| Deed::Up { at, count }, |at, count| Deed::Down { at, count });
    let steps = [
        connect(5),
        up(5, 1),
        down(5, 1),
        edit(1, 2, 20450, false),
        up(5, 1),
        Deed::Read { pick: 27829 },
        up(1, 3),
        Deed::Sync { count: 1 },
        Deed::Fault { fault: Fault::RelayCrash, at: 5, pick: 54295 },
        Deed::Start,
        down(5, 3),
        edit(5, 3, 50169, true),
        connect(3),
        Deed::Sync { count: 3 },
        edit(5, 2, 6642, false),
        connect(5),
        up(5, 3),
        down(5, 1),
        up(5, 1),
        Deed::Sync { count: 6 },
        Deed::Fault { fault: Fault::ReplicaCrash, at: 5, pick: 65514 },
        Deed::LateUp { pick: 4959 },
        Deed::Fold { pick: 22433 },
        Deed::Fold { pick: 34621 },
        Deed::Fold { pick: 20597 },
        Deed::Fold { pick: 6250 },
    ];
    stays_mended(&[0, 1, 0, 1, 0, 1], Some(100), &steps);
}

/// C9. All that is here of a replica that was never connected it made itself; over a store that is not all that became of it.
#[test]
fn who_begins_over_the_store_of_a_process_that_had_not_connected_gets_what_that_did_later() {
    let edit = |at, segments, pick, alloc| Deed::Edit { at, segments, pick, alloc, large: false };
    let steps = [
        edit(3, 1, 63734, true),
        Deed::Store { at: 3 },
        connect(3),
        edit(3, 1, 45084, false),
        Deed::Up { at: 3, count: 2 },
        Deed::Down { at: 3, count: 3 },
        Deed::Up { at: 3, count: 2 },
        Deed::Sync { count: 2 },
        Deed::Fault { fault: Fault::Restart, at: 3, pick: 24026 },
    ];
    stays_mended(&[0; 4], Some(400), &steps);
}

/// D4, C10. It was made after the Hello, and is in the log by what was given back, not by the commit that made it.
#[test]
fn who_gives_back_a_segment_that_its_hello_did_not_name_follows_it() {
    let edit = |at, segments, pick, alloc| Deed::Edit { at, segments, pick, alloc, large: false };
    let (up, down) = (|at, count| Deed::Up { at, count }, |at, count| Deed::Down { at, count });
    let steps = [
        connect(1),
        up(1, 1),
        down(1, 1),
        Deed::Fault { fault: Fault::Wiped, at: 1, pick: 22590 },
        Deed::Start,
        down(1, 2),
        connect(1),
        up(1, 2),
        edit(1, 2, 46121, true),
        edit(2, 3, 18307, true),
        Deed::Load { at: 2, pick: 9232 },
        down(1, 2),
        connect(2),
        up(1, 1),
        Deed::Read { pick: 38490 },
        Deed::Sync { count: 2 },
        up(2, 2),
        down(2, 1),
        up(2, 3),
        Deed::Read { pick: 19115 },
        down(2, 2),
        edit(2, 3, 52784, false),
    ];
    stays_mended(&[0; 3], Some(100), &steps);
}

/// D4, G5. A Restored names a commit of a line of which the log has nothing else: that line has lost no end.
#[test]
fn a_line_that_the_log_knows_by_what_was_given_back_alone_has_not_lost_its_end() {
    let (up, down) = (|at, count| Deed::Up { at, count }, |at, count| Deed::Down { at, count });
    let steps = [
        connect(1),
        Deed::Edit { at: 1, segments: 1, pick: 20621, alloc: true, large: false },
        up(1, 2),
        down(1, 2),
        Deed::Fault { fault: Fault::Wiped, at: 3, pick: 42339 },
        Deed::Store { at: 1 },
        Deed::Start,
        Deed::Fault { fault: Fault::Restart, at: 1, pick: 15879 },
        connect(1),
        up(1, 3),
        down(1, 3),
        up(1, 3),
        Deed::Read { pick: 3449 },
        Deed::Sync { count: 1 },
        Deed::Read { pick: 50604 },
        down(1, 3),
        Deed::Fault { fault: Fault::Cut, at: 1, pick: 34536 },
    ];
    stays_mended(&[0; 4], Some(1 << 40), &steps);
}

#[test]
fn every_fault_has_its_row() {
    assert!(FAULTS.iter().all(|fault| Fault::ALL.contains(fault)));
}

#[test]
fn a_worker_that_dies_three_times_by_chance_makes_no_conflict() {
    let steps = [
        connect(3),
        Deed::Up { at: 3, count: 3 },
        Deed::Down { at: 3, count: 2 },
        Deed::Fault { fault: Fault::Wiped, at: 4, pick: 31937 },
        Deed::Start,
        Deed::Down { at: 3, count: 2 },
        Deed::Edit { at: 3, segments: 2, pick: 43894, alloc: true, large: false },
        connect(3),
        Deed::Up { at: 3, count: 1 },
        Deed::Down { at: 3, count: 1 },
        Deed::Up { at: 3, count: 3 },
        // Each of these is one that the worker dies over.
        Deed::Read { pick: 39061 },
        Deed::Down { at: 3, count: 3 },
        Deed::Pass { ms: 2491 },
        Deed::Up { at: 3, count: 1 },
        Deed::Read { pick: 26839 },
        Deed::Down { at: 3, count: 3 },
        Deed::Pass { ms: 1231 },
        Deed::Up { at: 3, count: 1 },
        Deed::Read { pick: 61309 },
    ];
    stays_mended_in(&[0; 5], Some(100), &steps, true, false);
}

/// §14.2: what others were shown of it goes, until its author has made it anew.
#[test]
fn a_generation_that_comes_back_after_an_older_one_takes_what_is_not_acknowledged_away_for_a_while() {
    let steps = [
        connect(4),
        Deed::Up { at: 4, count: 3 },
        Deed::Fault { fault: Fault::Cut, at: 0, pick: 6251 },
        Deed::Edit { at: 0, segments: 2, pick: 21865, alloc: false, large: false },
        Deed::Roll { pick: 65404 },
        Deed::Down { at: 4, count: 4 },
        Deed::Up { at: 4, count: 1 },
        Deed::Read { pick: 52565 },
        Deed::Sync { count: 5 },
        Deed::Down { at: 4, count: 2 },
        Deed::Fault { fault: Fault::Wiped, at: 3, pick: 62069 },
    ];
    stays_mended_in(&[0; 6], Some(32), &steps, true, true);
}

/// X25: its author had it in a generation that the log lost, and another process has given it back in the one before.
#[test]
fn a_commit_without_parts_is_one_that_the_log_was_given_back() {
    let steps = [
        connect(1),
        Deed::Up { at: 1, count: 2 },
        Deed::Down { at: 1, count: 2 },
        Deed::Up { at: 1, count: 3 },
        Deed::Read { pick: 52053 },
        Deed::Down { at: 1, count: 4 },
        connect(2),
        Deed::Up { at: 2, count: 2 },
        Deed::Down { at: 2, count: 3 },
        Deed::Up { at: 2, count: 3 },
        Deed::Read { pick: 20130 },
        Deed::Down { at: 2, count: 4 },
        Deed::Edit { at: 1, segments: 1, pick: 17880, alloc: false, large: false },
        Deed::Backup,
        Deed::Edit { at: 2, segments: 1, pick: 26988, alloc: false, large: false },
        Deed::Up { at: 1, count: 2 },
        Deed::Sync { count: 1 },
        Deed::Fault { fault: Fault::Cut, at: 1, pick: 39531 },
        Deed::Roll { pick: 43681 },
        Deed::Read { pick: 14227 },
        Deed::Sync { count: 2 },
        connect(1),
        Deed::Up { at: 1, count: 3 },
        Deed::Read { pick: 35992 },
        Deed::Down { at: 1, count: 1 },
        Deed::Fault { fault: Fault::RolledBack, at: 0, pick: 26875 },
    ];
    stays_mended_in(&[0; 6], Some(400), &steps, true, true);
}

/// T5. Nobody writes any more: a head that the disk had no room for would be waited for without end.
#[test]
fn a_sync_that_was_asked_when_the_disk_became_full_ends() {
    let steps = [
        connect(3),
        Deed::Edit { at: 0, segments: 1, pick: 58064, alloc: false, large: false },
        Deed::Up { at: 3, count: 1 },
        Deed::Down { at: 3, count: 2 },
        Deed::Wait { at: 3, kind: WaitFor::Sync, pick: 38840 },
        Deed::Up { at: 0, count: 1 },
        Deed::Fault { fault: Fault::Full, at: 3, pick: 58632 },
        Deed::Fault { fault: Fault::ReplicaCrash, at: 0, pick: 32270 },
    ];
    stays_mended_in(&[0; 4], Some(32), &steps, true, true);
}

/// R11, P5. What its number of the Busy stood for was acknowledged by what the log had been given back.
#[test]
fn what_is_sent_again_behind_an_acknowledged_commit_while_a_log_is_read_is_answered() {
    let edit = |at, segments, pick, alloc| Deed::Edit { at, segments, pick, alloc, large: false };
    let (up, down) = (|at, count| Deed::Up { at, count }, |at, count| Deed::Down { at, count });
    let steps = [
        edit(2, 1, 26244, true),
        edit(0, 3, 89, false),
        up(0, 2),
        Deed::Sync { count: 5 },
        Deed::Backup,
        Deed::Fault { fault: Fault::RolledBack, at: 0, pick: 19468 },
        Deed::LoadFrom { at: 0, pick: 44599 },
        Deed::Start,
        edit(0, 3, 51783, false),
        connect(2),
        Deed::Sync { count: 1 },
        up(2, 3),
        down(2, 3),
        down(0, 3),
        up(2, 2),
        connect(0),
        up(0, 2),
        Deed::Sync { count: 6 },
        Deed::Read { pick: 19427 },
        down(0, 4),
        Deed::Repeat { at: 0, pick: 7120 },
        up(0, 2),
        Deed::Fault { fault: Fault::Full, at: 2, pick: 56844 },
        down(0, 2),
        up(0, 3),
        down(0, 1),
        Deed::Pass { ms: 1896 },
    ];
    stays_mended_in(&[0, 1, 0, 1], Some(100), &steps, true, false);
}
