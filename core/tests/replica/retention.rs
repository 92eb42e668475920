//! G5, §14.5: a log that has dropped idle lines, and what a replica makes of that. The relay is a test.

use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{EpochId, Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::replica::{Input, Output, Replica, Section, Target};
use coheap_core::value::Value;
use coheap_core::wire::frame::up::CommitFrame;
use coheap_core::wire::frame::{Down, Up};

use crate::desk::{give, ok, options, tell, ups};

const ONE: SegmentId = SegmentId([1; 16]);
const LIFE: EpochId = EpochId { counter: 0, random: 0 };
const NEXT: EpochId = EpochId { counter: 1, random: 5 };

fn make(replica: &mut Replica) -> Vec<Output> {
    let wishes = vec![Wish::Root { value: Literal::Map(vec![("n".into(), Literal::Counter(0.0))]) }];
    let sections = vec![Section { target: Target::New(ONE, EngineKind::Yrs), claim: None, wishes }];
    give(replica, Input::Commit { label: "made".into(), sections, size: 10, entropy: 1 })
}

fn change(replica: &mut Replica, value: f64) -> Vec<Output> {
    let value = Literal::Scalar(Value::Number(value));
    let wishes = vec![Wish::Set { object: Handle(0), key: "k".into(), value }];
    let sections = vec![Section { target: Target::Here(Index(1)), claim: None, wishes }];
    give(replica, Input::Commit { label: String::new(), sections, size: 10, entropy: 2 })
}

/// Another connection, to a log that has none of its lines, stands there and has forgotten what is below.
fn meets(replica: &mut Replica, position: u64, forgotten: u64) -> Vec<Output> {
    meets_in(replica, position, forgotten, vec![(LIFE, Offset(0))])
}

fn meets_in(replica: &mut Replica, position: u64, forgotten: u64, epochs: Vec<(EpochId, Offset)>) -> Vec<Output> {
    give(replica, Input::Disconnected);
    give(replica, Input::Connected { token: String::new(), entropy: [3; 4] });
    let Down::Ok(mut welcome) = ok(position, Vec::new(), &[]) else { panic!("an Ok") };
    (welcome.forgotten, welcome.epochs) = (Offset(forgotten), epochs);
    tell(replica, &Down::Ok(welcome))
}

fn sent(outputs: &[Output]) -> Vec<Uid> {
    frames(outputs).iter().map(|one| one.uid).collect()
}

fn frames(outputs: &[Output]) -> Vec<CommitFrame> {
    ups(outputs).into_iter().filter_map(|up| if let Up::Commit(commit) = up { Some(commit) } else { None }).collect()
}

fn doubts(outputs: &[Output]) -> Vec<Seq> {
    let told = outputs.iter().filter_map(|one| if let Output::InDoubt(told) = one { Some(told) } else { None });
    told.flatten().map(|one| one.seq).collect()
}

fn forks(outputs: &[Output]) -> Vec<(ReplicaId, usize)> {
    let forks = outputs.iter();
    forks
        .filter_map(|one| if let Output::Forked { id, moved, .. } = one { Some((*id, *moved)) } else { None })
        .collect()
}

/// A replica that was at this position when it first sent its first commit, and knows nothing more of that; the commit.
fn sent_at(position: u64, forgotten: u64) -> (Replica, Uid) {
    let mut replica = Replica::new(options(7));
    meets(&mut replica, position, forgotten);
    let uids = sent(&make(&mut replica));
    (replica, uids[0])
}

#[test]
fn g5_a_first_commit_that_was_sent_below_what_the_log_has_forgotten_is_in_doubt_once() {
    let (mut replica, _) = sent_at(5, 0);
    let was = replica.id();
    let told = meets(&mut replica, 20, 6);
    assert_eq!((doubts(&told), sent(&told), replica.unsaved()), (vec![Seq(1)], vec![], 0));
    assert_ne!(replica.id(), was);
    let told = meets(&mut replica, 20, 6);
    assert_eq!((doubts(&told), sent(&told), forks(&told)), (vec![], vec![], vec![]));
}

#[test]
fn g5_one_that_was_sent_behind_that_just_did_not_come_through() {
    for (position, forgotten) in [(6, 0), (6, 6), (0, 6), (2, 6)] {
        let (mut replica, uid) = sent_at(position, forgotten);
        let was = replica.id();
        let told = meets(&mut replica, 20, 6);
        assert_eq!((doubts(&told), sent(&told), replica.id()), (vec![], vec![uid], was), "{position}, {forgotten}");
        // It counts where it was sent first.
        let told = meets(&mut replica, 30, 7);
        assert_eq!((doubts(&told), sent(&told)), (vec![Seq(1)], vec![]));
    }
}

#[test]
fn g5_what_was_never_sent_goes_out_whatever_the_log_has_forgotten() {
    let mut replica = Replica::new(options(7));
    make(&mut replica);
    let told = meets(&mut replica, 20, 9);
    assert_eq!((doubts(&told), sent(&told).len()), (vec![], 1));
    // Behind one that is in doubt it goes to the line of another id, made anew.
    let (mut replica, _) = sent_at(5, 0);
    give(&mut replica, Input::Disconnected);
    change(&mut replica, 2.0);
    let told = meets(&mut replica, 20, 6);
    assert_eq!((doubts(&told), forks(&told)), (vec![Seq(1)], vec![(replica.id(), 1)]));
}

#[test]
fn g5_what_was_sent_later_in_a_line_of_which_something_is_in_doubt_is_too() {
    // Of two copies of a store one may know the line from its second commit on, and move it under another name.
    let (mut replica, _) = sent_at(5, 0);
    tell(&mut replica, &Down::Advance { position: Offset(9) });
    assert_eq!(sent(&change(&mut replica, 2.0)).len(), 1);
    give(&mut replica, Input::Disconnected);
    // What never went out moves.
    change(&mut replica, 3.0);
    let told = meets(&mut replica, 20, 6);
    assert_eq!((doubts(&told), forks(&told)), (vec![Seq(1), Seq(2)], vec![(replica.id(), 1)]));
}

#[test]
fn g5_an_id_that_was_idle_is_given_up_without_a_word() {
    let (mut replica, _) = sent_at(5, 0);
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(6) });
    let was = replica.id();
    let told = meets(&mut replica, 20, 6);
    assert_eq!((doubts(&told), forks(&told)), (vec![], vec![(replica.id(), 0)]));
    assert_ne!(replica.id(), was);
    let told = meets(&mut replica, 20, 6);
    assert!(forks(&told).is_empty());
    // What it sent behind that, and the log cannot have, moves.
    let (mut replica, _) = sent_at(5, 0);
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(6) });
    tell(&mut replica, &Down::Advance { position: Offset(8) });
    let uid = sent(&change(&mut replica, 2.0))[0];
    let told = meets(&mut replica, 20, 7);
    assert_eq!((doubts(&told), forks(&told)), (vec![], vec![(replica.id(), 1)]));
    assert_eq!(replica.unsaved_uids(), [uid]);
}

#[test]
fn g5_positions_count_as_far_as_the_log_is_the_one_that_was_known() {
    // The next life began at 10: whatever was said behind that was lost.
    for (began, forgotten, is_doubt) in [(10, 10, false), (10, 11, true), (60, 11, false), (60, 51, true)] {
        let (mut replica, _) = sent_at(50, 0);
        tell(&mut replica, &Down::Advance { position: Offset(50) });
        let told = meets_in(&mut replica, began, forgotten, vec![(LIFE, Offset(0)), (NEXT, Offset(began))]);
        assert_eq!(!doubts(&told).is_empty(), is_doubt, "{began}, {forgotten}");
        if !is_doubt && began == 10 {
            // From here on its numbers are those of this life.
            let told = meets_in(&mut replica, 70, 11, vec![(LIFE, Offset(0)), (NEXT, Offset(began))]);
            assert_eq!(doubts(&told), [Seq(1)]);
        }
    }
    let (mut replica, _) = sent_at(50, 0);
    assert_eq!(doubts(&meets_in(&mut replica, 70, 1, vec![(NEXT, Offset(0))])), [Seq(1)], "nothing is known of it");
}

#[test]
fn g5_c9_a_store_knows_where_its_commits_were_sent_or_where_it_was_made() {
    let reopened = |replica: &Replica| {
        let mut other = Replica::reopen(options(8), &replica.export()).unwrap();
        while other.poll().is_some() {}
        other
    };
    // It was sent before it was stored.
    let (mut replica, uid) = sent_at(5, 0);
    tell(&mut replica, &Down::Advance { position: Offset(30) });
    for (forgotten, is_doubt) in [(5, false), (6, true)] {
        let mut other = reopened(&replica);
        let told = meets(&mut other, 40, forgotten);
        assert_eq!((doubts(&told).len(), sent(&told).contains(&uid)), (usize::from(is_doubt), !is_doubt));
        // So does another instance.
        let mut other = Replica::import(options(9), &replica.export()).unwrap();
        while other.poll().is_some() {}
        assert_eq!(doubts(&meets(&mut other, 40, forgotten)).len(), usize::from(is_doubt));
    }
    // It may have been sent after it was stored.
    let mut replica = Replica::new(options(7));
    meets(&mut replica, 30, 0);
    give(&mut replica, Input::Disconnected);
    make(&mut replica);
    for (forgotten, is_doubt) in [(30, false), (31, true)] {
        assert_eq!(doubts(&meets(&mut reopened(&replica), 40, forgotten)).len(), usize::from(is_doubt));
    }
    // Another process over the same store may have moved it already, since its line was gone, and have sent it so.
    let (mut replica, _) = sent_at(5, 0);
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(6) });
    tell(&mut replica, &Down::Advance { position: Offset(8) });
    give(&mut replica, Input::Disconnected);
    change(&mut replica, 2.0);
    let mut other = reopened(&replica);
    let told = meets(&mut other, 20, 7);
    assert_eq!((doubts(&told), forks(&told).len()), (vec![], 1));
    assert_eq!(doubts(&meets(&mut other, 30, 21)).len(), 1);
}

#[test]
fn x32_what_is_acknowledged_is_not_named_by_what_comes_after_it() {
    let (first, uid) = sent_at(5, 0);
    let mut second = Replica::reopen(options(8), &first.export()).unwrap();
    while second.poll().is_some() {}
    meets(&mut second, 5, 0);
    let named =
        |outputs: &[Output]| frames(outputs).iter().map(|one| one.after.map(|(_, _, uid)| uid)).collect::<Vec<_>>();
    assert_eq!(named(&change(&mut second, 2.0)), [Some(uid)]);
    tell(&mut second, &Down::Ack { owner: 1, seq: Seq(1), position: Offset(6) });
    // Its line may be dropped from here on.
    assert_eq!(named(&meets(&mut second, 6, 0)), [None]);
}
