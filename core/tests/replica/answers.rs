//! Bounds, answers that decline or refuse, and what nobody is told too early.

use coheap_core::commit::EngineKind;
use coheap_core::edit::{Literal, Wish};
use coheap_core::id::{EpochId, Nonce, Offset, SegmentId, Seq, Uid};
use coheap_core::limits::{FOLLOWS_MAX, FOLLOWS_MAX_REPLICA};
use coheap_core::replica::{Input, Output, Replica, Section, Target, WaitError, WaitKind};
use coheap_core::version::Version;
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::down::{Asked, Fate, Row, Welcome};
use coheap_core::wire::frame::{Down, Up};

use crate::desk::{
    connect, connect_after, errors, give, loads, ok, options, problems, replica, snapshot, tell, unknown, ups,
};

/// A replica that has been welcomed to an empty heap.
fn online() -> Replica {
    let mut replica = replica();
    connect(&mut replica);
    replica
}

fn seg(n: usize) -> SegmentId {
    let mut id = [9; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SegmentId(id)
}

fn alloc(id: SegmentId) -> Input {
    let wishes = vec![Wish::Root { value: Literal::Map(Vec::new()) }];
    let sections = vec![Section { target: Target::New(id, EngineKind::Yrs), claim: None, wishes }];
    Input::Commit { label: String::new(), sections, size: 10, entropy: 0 }
}

/// The commits that were sent: number and uid.
fn commits(outputs: &[Output]) -> Vec<(Seq, Uid)> {
    let sent = ups(outputs).into_iter();
    sent.filter_map(|up| if let Up::Commit(commit) = up { Some((commit.seq, commit.uid)) } else { None }).collect()
}

#[test]
fn no_more_segments_are_asked_for_or_made_than_a_relay_lets_one_connection_follow() {
    const { assert!(FOLLOWS_MAX_REPLICA < FOLLOWS_MAX) };
    let mut replica = online();
    let all: Vec<_> = (0..FOLLOWS_MAX_REPLICA).map(|n| (seg(n), false)).collect();
    assert_eq!(loads(&give(&mut replica, Input::Load(all.clone()))).len(), FOLLOWS_MAX_REPLICA);
    // What is here, or on its way, may be asked for again.
    assert_eq!(errors(&give(&mut replica, Input::Load(all[..5].to_vec()))), [] as [&str; 0]);
    let refused = give(&mut replica, Input::Load(vec![(seg(FOLLOWS_MAX), false)]));
    assert_eq!((errors(&refused), loads(&refused).len()), (vec!["ERR_OVER_BUDGET"], 0));
    let refused = give(&mut replica, alloc(seg(FOLLOWS_MAX + 1)));
    assert_eq!((errors(&refused), replica.unsaved()), (vec!["ERR_OVER_BUDGET"], 0));
}

#[test]
fn a_load_that_the_relay_declines_is_told_and_asked_again_when_a_segment_has_gone() {
    let mut replica = online();
    let made = give(&mut replica, alloc(seg(1)));
    let Some(Output::Indexed { index, .. }) = made.iter().find(|output| matches!(output, Output::Indexed { .. }))
    else {
        panic!("{made:?}")
    };
    let index = *index;
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    let nonce = loads(&give(&mut replica, Input::Load(vec![(seg(2), false)])))[0];
    let code = u64::from(Code::TooMany.number());
    let told = tell(&mut replica, &Down::Declined { asked: Asked::Load, nonce, code });
    assert_eq!(problems(&told), ["ERR_OVER_BUDGET"]);
    // Another's answer, or an old one, is nothing.
    assert_eq!(tell(&mut replica, &Down::Declined { asked: Asked::Load, nonce, code }).len(), 0);
    let again = loads(&give(&mut replica, Input::Evict(index)));
    assert_eq!(again.len(), 1);
    assert_ne!(again[0], nonce);
}

#[test]
fn a_claim_or_a_join_that_the_relay_declines_fails_with_its_code() {
    let mut replica = online();
    let code = u64::from(Code::TooMany.number());
    for asked in [Asked::Claim, Asked::Join] {
        let told = tell(&mut replica, &Down::Declined { asked, nonce: Nonce(8), code });
        assert!(
            matches!(told[..], [Output::Failed { ticket: 8, error: WaitError::Refused(told) }] if told == code),
            "{told:?}"
        );
    }
}

#[test]
fn r11_a_relay_without_room_is_told_to_the_program_once_and_what_was_written_is_sent_again() {
    let mut replica = online();
    let first = commits(&give(&mut replica, alloc(seg(1))));
    let busy = |code: Code, retry_ms| Down::Busy { owner: 0, seq: Seq(1), code: u64::from(code.number()), retry_ms };
    // What passes by itself in seconds is nobody's affair.
    assert_eq!(problems(&tell(&mut replica, &busy(Code::Restoring, 9))), [] as [&str; 0]);
    assert_eq!(problems(&tell(&mut replica, &busy(Code::DiskFull, 9))), ["ERR_STORAGE_FULL"]);
    // A timer that fires early is set again: who asks only once would wait for ever.
    replica.handle(9, Input::Tick);
    let early: Vec<Output> = std::iter::from_fn(|| replica.poll()).collect();
    assert!(matches!(early[..], [Output::Deadline(10)]), "{early:?}");
    let mut again = |now, answer: &Down| {
        replica.handle(now, Input::Tick);
        let outputs: Vec<Output> = std::iter::from_fn(|| replica.poll()).collect();
        assert_eq!(commits(&outputs), first);
        problems(&tell(&mut replica, answer)).len()
    };
    assert_eq!(again(10, &busy(Code::DiskFull, 9)), 0);
    assert_eq!(again(10, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) }), 0);
    assert_eq!(replica.unsaved(), 0);
    // It had room, and now it has none again: that is news.
    give(&mut replica, alloc(seg(2)));
    let told = tell(&mut replica, &Down::Busy { owner: 0, seq: Seq(2), code: 48, retry_ms: 9 });
    assert_eq!(problems(&told), ["ERR_STORAGE_FULL"]);
}

/// C1: what the relay keeps of a line is as long as the window; more than that does not go out before an Ack.
#[test]
fn c1_no_more_goes_out_than_the_window_before_an_ack_makes_room() {
    let mut replica = replica();
    give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let Down::Ok(welcome) = ok(0, Vec::new(), &[]) else { panic!() };
    tell(&mut replica, &Down::Ok(Welcome { window: 3, ..welcome }));
    let mut sent: Vec<Seq> = Vec::new();
    let went = |outputs: &[Output]| commits(outputs).into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
    for n in 1..=9 {
        sent.extend(went(&give(&mut replica, alloc(seg(n)))));
    }
    assert_eq!(sent, [1, 2, 3].map(Seq));
    let ack = |seq| Down::Ack { owner: 0, seq: Seq(seq), position: Offset(seq) };
    assert_eq!(went(&tell(&mut replica, &ack(2))), [4, 5].map(Seq));
    assert_eq!(went(&tell(&mut replica, &ack(5))), [6, 7, 8].map(Seq));
}

/// T2, T3: whether a version of a life of the log that is not known here is lost, an answer of the relay shows, and nothing else.
#[test]
fn t3_a_version_of_a_life_that_the_relay_does_not_know_is_lost_when_it_has_answered() {
    let mut replica = online();
    let epoch = EpochId { counter: 9, random: 9 };
    let version = Version { lineage: EpochId::default(), epoch, position: Offset(1) };
    let told = give(&mut replica, Input::Wait { ticket: 7, kind: WaitKind::Reach(version.to_text()) });
    assert!(matches!(ups(&told)[..], [Up::Sync { nonce: Nonce(7) }]), "{told:?}");
    let ended =
        |told: &[Output]| told.iter().any(|output| matches!(output, Output::Failed { .. } | Output::Done { .. }));
    assert!(!ended(&told) && !ended(&tell(&mut replica, &Down::Advance { position: Offset(5) })));
    let told = tell(&mut replica, &Down::SyncAt { nonce: Nonce(7), position: Offset(5) });
    assert!(matches!(told[..], [Output::Failed { ticket: 7, error: WaitError::VersionLost }]), "{told:?}");
}

/// R11: what was refused is shown until its segment has been made anew; nobody is told before that that all is seen.
#[test]
fn a_sync_ends_only_when_what_was_refused_is_undone() {
    let mut replica = online();
    let made = give(&mut replica, alloc(seg(1)));
    let uid = commits(&made)[0].1;
    give(&mut replica, Input::Wait { ticket: 9, kind: WaitKind::Sync });
    let done = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Done { ticket: 9, .. }));
    let code = u64::from(Code::NoRight.number());
    let (seq, position) = (Seq(1), Offset(1));
    let told = tell(&mut replica, &Down::Refused { owner: 0, seq, uid, code, position });
    assert!(told.iter().any(|output| matches!(output, Output::Refused { .. })), "{told:?}");
    let asked = loads(&told);
    tell(&mut replica, &Down::Advance { position });
    let told = tell(&mut replica, &Down::SyncAt { nonce: Nonce(9), position });
    assert!(!done(&told), "the refused commit is still shown: {told:?}");
    let told = tell(&mut replica, &snapshot(asked[0], 1, &unknown(seg(1))));
    assert!(done(&told), "{told:?}");
}

/// C7: nothing goes out while what was refused is being undone, in whatever instance.
#[test]
fn what_lies_behind_a_refusal_waits_for_its_undoing_in_another_instance_too() {
    let mut replica = online();
    let (seq, uid) = commits(&give(&mut replica, alloc(seg(1))))[0];
    let behind = commits(&give(&mut replica, alloc(seg(2))));
    let code = u64::from(Code::NoRight.number());
    let told = tell(&mut replica, &Down::Refused { owner: 0, seq, uid, code, position: Offset(1) });
    assert_eq!((loads(&told).len(), commits(&told)), (1, vec![]));
    give(&mut replica, Input::Disconnected);
    let mut moved = Replica::import(options(8), &replica.export()).unwrap();
    while moved.poll().is_some() {}
    for replica in [&mut replica, &mut moved] {
        let told = connect_after(replica, 1, &[], vec![Row { seq, uid, fate: Fate::Void(code) }]);
        assert_eq!(commits(&told), []);
        assert_eq!(commits(&tell(replica, &snapshot(loads(&told)[0], 1, &unknown(seg(1))))), behind);
    }
}

/// R11: the relay ended before it said Refused. Its ring says so too, and for good: the commit is undone, it is not sent again,
/// and what lies behind it waits for the next connection, which is answered with states in which that has happened.
#[test]
fn r11_a_refusal_that_only_the_ring_tells_of_is_handled_before_anything_else() {
    let mut replica = online();
    let (seq, uid) = commits(&give(&mut replica, alloc(seg(1))))[0];
    let behind = commits(&give(&mut replica, alloc(seg(2))))[0];
    give(&mut replica, Input::Wait { ticket: 9, kind: WaitKind::Flush });
    give(&mut replica, Input::Disconnected);
    let code = u64::from(Code::NoRight.number());
    let ring = vec![Row { seq, uid, fate: Fate::Void(code) }];
    let told = connect_after(&mut replica, 1, &[], ring.clone());
    assert_eq!((commits(&told), replica.unsaved()), (vec![], 1));
    assert!(told.iter().any(|output| matches!(output, Output::Refused { seq: Seq(1), .. })), "{told:?}");
    let failed = |output: &Output| matches!(output, Output::Failed { ticket: 9, error: WaitError::Refused(with) } if *with == code);
    assert!(told.iter().any(failed), "{told:?}");
    assert!(matches!(told.last(), Some(Output::Reconnect)), "{told:?}");
    let told = connect_after(&mut replica, 1, &[unknown(seg(1)), unknown(seg(2))], ring);
    let sent: Vec<_> =
        ups(&told).into_iter().filter_map(|up| if let Up::Commit(one) = up { Some(one) } else { None }).collect();
    let places: Vec<_> = sent.iter().map(|one| (one.seq, one.uid, one.prev)).collect();
    assert_eq!(places, [(behind.0, behind.1, Some(uid.voided()))]);
    assert!(loads(&told).is_empty() && replica.unsaved() == 1, "{told:?}");
}
