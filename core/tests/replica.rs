//! A replica by itself: what it asks of a relay, and what it makes of answers that only a test gives.
#![cfg(feature = "yrs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::Bytes;
use coheap_core::commit::{EngineKind, LAYOUT};
use coheap_core::edit::{Literal, Wish};
use coheap_core::id::{EpochId, Nonce, Offset, SegmentId, Seq};
use coheap_core::limits::{FOLLOWS_MAX, FOLLOWS_MAX_REPLICA};
use coheap_core::replica::{Input, Options, Output, Replica, Section, Target, WaitError, WaitKind};
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::down::{Asked, Welcome};
use coheap_core::wire::frame::{Bulk, Down, SegmentState, SegmentStatus, Up, message_of, split};

/// A replica that has been welcomed to an empty heap.
fn online() -> Replica {
    let options = Options { seed: [7; 32], heap: "h".into(), name: "r".into(), must_exist: false, max_unsaved: 0 };
    let mut replica = Replica::new(options);
    give(&mut replica, Input::Connected { token: String::new() });
    let welcome = Welcome {
        features: 0,
        exists: false,
        restore: false,
        catchup: false,
        time_ms: 0,
        lineage: EpochId::default(),
        epochs: vec![(EpochId::default(), Offset(0))],
        position: Offset(0),
        window: 256,
        ring: Vec::new(),
        bulk: Bulk::default(),
    };
    tell(&mut replica, &Down::Ok(welcome));
    replica
}

fn give(replica: &mut Replica, input: Input) -> Vec<Output> {
    replica.handle(0, input);
    std::iter::from_fn(|| replica.poll()).collect()
}

fn tell(replica: &mut Replica, frame: &Down) -> Vec<Output> {
    let mut frames = Vec::new();
    frame.encode(&mut frames);
    give(replica, Input::Receive(Bytes::from(message_of(&frames))))
}

/// The nonces of all loads that were asked for.
fn loads(outputs: &[Output]) -> Vec<Nonce> {
    let messages =
        outputs.iter().filter_map(|output| if let Output::Send(bytes) = output { Some(bytes) } else { None });
    let frames = messages.flat_map(|bytes| split(bytes).unwrap());
    let ups = frames.filter_map(|(kind, body)| Up::decode(kind, &body).unwrap());
    ups.filter_map(|up| if let Up::Load { nonce, .. } = up { Some(nonce) } else { None }).collect()
}

fn seg(n: usize) -> SegmentId {
    let mut id = [9; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SegmentId(id)
}

fn errors(outputs: &[Output]) -> Vec<&'static str> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Error { code, .. } = output { Some(*code) } else { None })
        .collect()
}

fn problems(outputs: &[Output]) -> Vec<&'static str> {
    let codes =
        outputs.iter().filter_map(|output| if let Output::Problem { code, .. } = output { Some(*code) } else { None });
    codes.collect()
}

fn alloc(id: SegmentId) -> Input {
    let wishes = vec![Wish::Root { value: Literal::Map(Vec::new()) }];
    let sections = vec![Section { target: Target::New(id, EngineKind::Yrs), claim: None, wishes }];
    Input::Commit { label: String::new(), sections, size: 10 }
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
    tell(&mut replica, &Down::Ack { owner: 0, seq: coheap_core::id::Seq(1), position: Offset(1) });
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

/// R11: what was refused is shown until its segment has been made anew; nobody is told before that that all is seen.
#[test]
fn a_sync_ends_only_when_what_was_refused_is_undone() {
    let mut replica = online();
    let made = give(&mut replica, alloc(seg(1)));
    let commits = made.iter().filter_map(|output| if let Output::Send(bytes) = output { Some(bytes) } else { None });
    let frames = commits.flat_map(|bytes| split(bytes).unwrap()).collect::<Vec<_>>();
    let uid = frames.iter().find_map(|(kind, body)| match Up::decode(*kind, body).unwrap() {
        Some(Up::Commit(commit)) => Some(commit.uid),
        _ => None,
    });
    give(&mut replica, Input::Wait { ticket: 9, kind: WaitKind::Sync });
    let done = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Done { ticket: 9, .. }));
    let code = u64::from(Code::NoRight.number());
    let (seq, position) = (Seq(1), Offset(1));
    let told = tell(&mut replica, &Down::Refused { owner: 0, seq, uid: uid.unwrap(), code, position });
    assert!(told.iter().any(|output| matches!(output, Output::Refused { .. })), "{told:?}");
    let asked = loads(&told);
    tell(&mut replica, &Down::Advance { position });
    let told = tell(&mut replica, &Down::SyncAt { nonce: Nonce(9), position });
    assert!(!done(&told), "the refused commit is still shown: {told:?}");
    let state = SegmentState {
        id: seg(1),
        number: None,
        status: SegmentStatus::Unknown,
        engine: EngineKind::Yrs,
        layout: LAYOUT,
        generation: EngineKind::Yrs.generation_zero(),
        snapshot: Bytes::new(),
        deltas: Vec::new(),
    };
    let mut bulk = Vec::new();
    state.encode(&mut bulk);
    let bulk = Bulk::whole(Bytes::from(bulk));
    let told = tell(&mut replica, &Down::Snapshot { nonce: asked[0], position, bulk });
    assert!(done(&told), "{told:?}");
}
