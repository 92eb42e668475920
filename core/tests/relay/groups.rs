//! S27 and presence: what is not in the log.

use bytes::Bytes;
use coheap_core::commit::ClaimOf;
use coheap_core::id::*;
use coheap_core::relay::{ConnId, Input};
use coheap_core::wire::frame::Down;
use coheap_core::wire::frame::Up;
use coheap_core::wire::frame::down::ClaimState;

use crate::world::*;

/// A relay whose heap has an entry.
fn settled() -> World {
    let mut world = World::new();
    world.fill(50, seg(7), 1);
    world
}

fn join(run: &str) -> Up {
    Up::Join {
        nonce: Nonce(1),
        group: "g".into(),
        run: run.into(),
        total: 4,
        held: Vec::new().into(),
        done: Vec::new().into(),
    }
}

fn ask(run: &str, key: &str) -> Up {
    Up::Claim { nonce: Nonce(2), group: "g".into(), run: run.into(), key: key.into() }
}

fn claimed(frames: &[Down]) -> (u64, ClaimState) {
    let mut answers = frames.iter().filter_map(|frame| match frame {
        Down::Claimed { grant, state, .. } => Some((*grant, *state)),
        _ => None,
    });
    answers.next().expect("an answer to the claim")
}

fn run_of(frames: &[Down]) -> String {
    let mut runs = frames.iter().filter_map(|frame| match frame {
        Down::Joined { run, .. } => Some(run.clone()),
        _ => None,
    });
    runs.next().expect("an answer to the join")
}

type View = (Vec<ReplicaId>, Vec<String>, Vec<(String, u64)>);

fn group(frames: &[Down]) -> Option<View> {
    let groups = frames.iter().filter_map(|frame| match frame {
        Down::Group { members, done, held, .. } => Some((members.clone(), done.to_vec(), held.to_vec())),
        _ => None,
    });
    groups.last()
}

fn commit_with(writer: &mut Writer, run: &str, key: &str, grant: u64) -> Up {
    let mut commit = writer.frame(&[seg(0)]);
    commit.claim = Some(ClaimOf { group: "g".into(), run: run.into(), key: key.into(), grant });
    Up::Commit(commit)
}

/// A member of the default run with a claim on `k`.
fn holder(world: &mut World, id: u8) -> (ConnId, String, u64) {
    let conn = world.join(id);
    world.send(conn, &[join("")]);
    let run = run_of(&world.take(conn));
    world.send(conn, &[ask(&run, "k")]);
    let (grant, state) = claimed(&world.take(conn));
    assert_eq!(state, ClaimState::Granted);
    (conn, run, grant)
}

#[test]
fn s27_first_come_and_everybody_is_told() {
    let mut world = settled();
    let (a, run, _) = holder(&mut world, 1);
    let b = world.join(2);
    world.send(b, &[join("")]);
    assert_eq!(run_of(&world.take(b)), run, "the default run is one");
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Held);
    world.pass(100);
    let seen = (vec![replica(1), replica(2)], vec![], vec![("k".to_owned(), 0)]);
    assert_eq!(group(&world.links[&a].frames), Some(seen));
}

#[test]
fn s27_changes_are_told_at_most_once_in_fifty_milliseconds() {
    let mut world = settled();
    let (a, run, _) = holder(&mut world, 1);
    world.pass(100);
    world.take(a);
    for n in 0..20 {
        world.send(a, &[ask(&run, &format!("key{n}"))]);
    }
    let groups = |frames: &[Down]| frames.iter().filter(|frame| matches!(frame, Down::Group { .. })).count();
    assert!(groups(&world.take(a)) <= 1);
    world.pass(60);
    let frames = world.take(a);
    assert_eq!(groups(&frames), 1);
    assert_eq!(group(&frames).unwrap().2.len(), 21);
}

#[test]
fn s27_a_commit_with_done_ends_the_claim_when_it_is_durable() {
    let mut world = settled();
    let (a, run, grant) = holder(&mut world, 1);
    let b = world.join(2);
    world.send(b, &[join(&run)]);
    world.prompt = false;
    let commit = commit_with(&mut Writer::new(1), &run, "k", grant);
    world.send(a, &[commit]);
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Held);
    world.write_all();
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Done);
    world.pass(100);
    assert_eq!(group(&world.take(b)).unwrap().1, ["k"]);
}

#[test]
fn r11_a_commit_on_a_claim_that_is_no_longer_current_is_refused() {
    let mut world = settled();
    let (a, run, grant) = holder(&mut world, 1);
    let mut writer = Writer::new(1);
    world.send(a, &[Up::Release { group: "g".into(), run: run.clone(), key: "k".into(), grant }]);
    let b = world.join(2);
    world.send(b, &[join(&run), ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Granted);
    let commit = commit_with(&mut writer, &run, "k", grant);
    world.send(a, &[commit]);
    assert!(matches!(world.take(a).last(), Some(Down::Refused { code: 35, .. })));
}

#[test]
fn s27_a_lost_holder_has_a_while_to_come_back_with_its_grant() {
    let mut world = settled();
    let (a, run, grant) = holder(&mut world, 1);
    let b = world.join(2);
    world.send(b, &[join(&run)]);
    world.input(Input::Closed { conn: a });
    world.pass(2_000);
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Held);
    let a = world.join(1);
    let held = vec![("k".to_owned(), grant)];
    let again = Up::Join {
        nonce: Nonce(9),
        group: "g".into(),
        run: run.clone(),
        total: 4,
        held: held.into(),
        done: Vec::new().into(),
    };
    world.send(a, &[again]);
    world.pass(5_000);
    let commit = commit_with(&mut Writer::new(1), &run, "k", grant);
    world.send(a, &[commit]);
    assert_eq!(acked(&world.take(a)), Some(1));
}

#[test]
fn s27_a_holder_that_does_not_come_back_loses_its_claims() {
    let mut world = settled();
    let (a, run, grant) = holder(&mut world, 1);
    let b = world.join(2);
    world.send(b, &[join(&run)]);
    world.input(Input::Closed { conn: a });
    world.pass(2_600);
    assert_eq!(group(&world.take(b)).unwrap(), (vec![replica(2)], vec![], vec![]));
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Granted);
    // Too late.
    let a = world.join(1);
    let held = vec![("k".to_owned(), grant)];
    let again = Up::Join {
        nonce: Nonce(9),
        group: "g".into(),
        run: run.clone(),
        total: 4,
        held: held.into(),
        done: Vec::new().into(),
    };
    world.send(a, &[again]);
    assert!(world.take(a).contains(&Down::Lost { group: "g".into(), run, key: "k".into(), grant }));
}

/// Its commit was on its way to the disk when its time was over, and the disk did not take it: nobody holds the key then.
#[test]
fn s27_a_commit_that_is_not_written_keeps_no_claim_of_who_has_gone() {
    let mut world = settled();
    let (a, run, grant) = holder(&mut world, 1);
    let b = world.join(2);
    world.send(b, &[join(&run)]);
    world.prompt = false;
    world.send(a, &[commit_with(&mut Writer::new(1), &run, "k", grant)]);
    world.input(Input::Closed { conn: a });
    world.pass(2_600);
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Held, "until that is decided");
    world.fail(true);
    world.prompt = true;
    world.pass(10_000);
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Granted);
}

#[test]
fn s27_after_a_restart_nothing_is_granted_anew_for_a_while_but_what_was_held_goes_on() {
    let mut world = settled();
    let (_, run, grant) = holder(&mut world, 1);
    world.crash();
    let (b, c) = (world.join(2), world.join(3));
    world.send(b, &[ask(&run, "k")]);
    // Who names no run gets the one that a member of before names.
    world.send(c, &[join("")]);
    assert!(world.take(c).iter().all(|frame| !matches!(frame, Down::Joined { .. })));
    let a = world.join(1);
    let held = vec![("k".to_owned(), grant)];
    let again = Up::Join {
        nonce: Nonce(9),
        group: "g".into(),
        run: run.clone(),
        total: 4,
        held: held.into(),
        done: vec!["old".into()].into(),
    };
    world.send(a, &[again]);
    assert_eq!(run_of(&world.take(c)), run);
    world.pass(3_100);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Held);
    world.send(b, &[ask(&run, "old")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Done);
    world.send(b, &[ask(&run, "new")]);
    let (newer, state) = claimed(&world.take(b));
    assert_eq!(state, ClaimState::Granted);
    assert_ne!(newer, grant);
}

fn join_with(run: &str, held: &[(&str, u64)], done: &[&str]) -> Up {
    let held: Vec<_> = held.iter().map(|(key, grant)| ((*key).to_owned(), *grant)).collect();
    let done: Vec<_> = done.iter().map(|key| (*key).to_owned()).collect();
    let (group, run) = ("g".into(), run.into());
    Up::Join { nonce: Nonce(9), group, run, total: 4, held: held.into(), done: done.into() }
}

fn put_off(frames: &[Down]) -> Option<u64> {
    frames.iter().find_map(|frame| match frame {
        Down::Busy { code: 35, retry_ms, .. } => Some(*retry_ms),
        _ => None,
    })
}

#[test]
fn s27_in_the_grace_time_a_commit_on_a_claim_waits_and_what_was_held_goes_on() {
    let mut world = settled();
    let (_, run, grant) = holder(&mut world, 1);
    world.crash();
    let a = world.join(1);
    let commit = commit_with(&mut Writer::new(1), &run, "k", grant);
    world.send(a, std::slice::from_ref(&commit));
    let retry_ms = put_off(&world.take(a)).expect("nobody knows yet whether it is current");
    world.send(a, &[join_with(&run, &[("k", grant)], &[])]);
    world.pass(retry_ms);
    world.send(a, &[commit]);
    assert_eq!(acked(&world.take(a)), Some(1));
    let b = world.join(2);
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Done);
}

/// Its key was granted to another while it was away, and the relay that knew that has died: no key is done twice.
#[test]
fn s27_after_a_restart_a_done_of_a_claim_that_another_has_ended_is_refused() {
    for (asserts, early) in [(false, true), (true, true), (true, false)] {
        let mut world = settled();
        let (a, run, grant) = holder(&mut world, 1);
        world.input(Input::Closed { conn: a });
        world.pass(2_600);
        let b = world.join(2);
        world.send(b, &[join(&run), ask(&run, "k")]);
        let (newer, state) = claimed(&world.take(b));
        assert_eq!(state, ClaimState::Granted);
        let done = commit_with(&mut Writer::new(2), &run, "k", newer);
        world.send(b, &[done]);
        assert_eq!(acked(&world.take(b)), Some(1));
        world.crash();
        // It comes first, as what is pending does, and may say that it holds it.
        let a = world.join(1);
        let stale = commit_with(&mut Writer::new(1), &run, "k", grant);
        let held = [("k", grant)];
        let again = join_with(&run, if asserts { &held } else { &[] }, &[]);
        let b = world.join(2);
        if early {
            world.send(a, &[stale.clone(), again]);
            world.send(b, &[join_with(&run, &[], &["k"])]);
        } else {
            world.send(b, &[join_with(&run, &[], &["k"])]);
            world.send(a, &[stale.clone(), again]);
        }
        let told = world.take(a);
        assert_eq!(acked(&told), None);
        let lost = Down::Lost { group: "g".into(), run: run.clone(), key: "k".into(), grant };
        assert_eq!(told.contains(&lost), asserts, "{told:?}");
        world.pass(3_100);
        world.send(a, &[stale]);
        assert!(matches!(world.take(a).last(), Some(Down::Refused { code: 35, .. })), "{asserts} {early}");
    }
}

#[test]
fn s27_a_group_ends_three_seconds_after_its_last_member_left() {
    let mut world = settled();
    let (a, run, _) = holder(&mut world, 1);
    world.send(a, &[Up::Leave { group: "g".into(), run: run.clone() }]);
    world.pass(2_900);
    world.send(a, &[join("")]);
    assert_eq!(run_of(&world.take(a)), run);
    world.send(a, &[Up::Leave { group: "g".into(), run: run.clone() }]);
    world.pass(3_100);
    world.send(a, &[join("")]);
    assert_ne!(run_of(&world.take(a)), run);
}

#[test]
fn s27_a_single_object_is_claimed_without_a_group() {
    let mut world = settled();
    let (a, b) = (world.join(1), world.join(2));
    let single = || Up::Claim { nonce: Nonce(3), group: String::new(), run: String::new(), key: "ref".into() };
    world.send(a, &[single()]);
    world.send(b, &[single()]);
    assert_eq!(claimed(&world.take(a)).1, ClaimState::Granted);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Held);
}

#[test]
fn s27_a_new_heap_and_one_that_was_only_unloaded_grant_at_once() {
    let mut world = settled();
    world.unload();
    let (a, run, _) = holder(&mut world, 1);
    // A group that nobody is a member of ends, so that the heap can be unloaded.
    world.send(a, &[Up::Leave { group: "g".into(), run }]);
    let commit = commit_with(&mut Writer::new(1), "other", "k", 1);
    world.send(a, &[commit]);
    world.input(Input::Closed { conn: a });
    world.pass(62_000);
    assert!(world.idle);
}

#[test]
fn s27_a_done_of_an_earlier_life_is_remembered_when_its_commit_comes_again() {
    let mut world = settled();
    let (a, run, grant) = holder(&mut world, 1);
    let commit = commit_with(&mut Writer::new(1), &run, "k", grant);
    world.send(a, std::slice::from_ref(&commit));
    world.crash();
    let a = world.join(1);
    world.send(a, &[commit, join(&run)]);
    world.pass(3_100);
    let b = world.join(2);
    world.send(b, &[ask(&run, "k")]);
    assert_eq!(claimed(&world.take(b)).1, ClaimState::Done);
}

fn show(state: &'static str) -> Up {
    Up::Presence { group: "p".into(), clear: false, state: Bytes::from(state) }
}

fn members(frames: &[Down]) -> Vec<(ReplicaId, bool, Bytes)> {
    let members = frames.iter().filter_map(|frame| match frame {
        Down::Member { replica, gone, state, .. } => Some((*replica, *gone, state.clone())),
        _ => None,
    });
    members.collect()
}

#[test]
fn presence_is_told_to_the_others_and_to_those_who_come_later() {
    let mut world = World::new();
    let (a, b, c) = (world.join(1), world.join(2), world.join(3));
    world.send(a, &[show("one")]);
    world.send(b, &[show("two")]);
    world.pass(60);
    assert_eq!(members(&world.take(b)), [(replica(1), false, Bytes::from("one"))]);
    assert_eq!(members(&world.take(a)), [(replica(2), false, Bytes::from("two"))]);
    world.send(c, &[Up::Presence { group: "p".into(), clear: true, state: Bytes::new() }]);
    assert_eq!(members(&world.take(c)).len(), 2);
    world.input(Input::Closed { conn: a });
    assert_eq!(members(&world.take(c)), [(replica(1), true, Bytes::new())]);
    world.send(b, &[Up::Presence { group: "p".into(), clear: true, state: Bytes::new() }]);
    assert_eq!(members(&world.take(c)), [(replica(2), true, Bytes::new())]);
}

#[test]
fn presence_that_changes_fast_is_told_at_a_bounded_rate() {
    let mut world = World::new();
    let (a, b) = (world.join(1), world.join(2));
    world.send(b, &[Up::Presence { group: "p".into(), clear: true, state: Bytes::new() }]);
    for _ in 0..50 {
        world.send(a, &[show("x")]);
    }
    world.send(a, &[show("last")]);
    world.pass(60);
    let told = members(&world.take(b));
    assert!(told.len() <= 2, "{} frames", told.len());
    assert_eq!(told.last().unwrap().2, Bytes::from("last"));
}
