//! L6: a segment that is here as bytes is resident: at the cut, and what comes to it is there for who looks.

use bytes::Bytes;
use coheap_core::heap::Index;
use coheap_core::id::{EpochId, GenId, Offset, SegmentId, Seq};
use coheap_core::limits;
use coheap_core::replica::{Input, Keep, LoadStatus, Output, Replica, Target};
use coheap_core::wire::frame::down::Welcome;
use coheap_core::wire::frame::{Down, PART_CREATE, PART_DELTA, SegRef, Up};

use crate::desk::{connect_at, errors, give, loads, options, replica, snapshot, unknown, ups};
use crate::quarantine::{ONE, TWO, commit, entry, loaded, made, reports, set, value, with_both};

const FIRST: Index = Index(1);
const SECOND: Index = Index(2);

fn pack(replica: &mut Replica, segment: Index, mirrored: bool) -> bool {
    let told = give(replica, Input::Pack { segment, mirrored });
    assert!(told.len() < 2, "{told:?}");
    told.iter().any(|output| matches!(output, Output::AtRest(index) if *index == segment))
}

fn load(replica: &mut Replica, id: SegmentId) -> Vec<Output> {
    give(replica, Input::Load(vec![(id, false)]))
}

/// It has this value, as its mirror was told, and nobody was asked for it.
fn shows(told: &[Output], n: u32) {
    assert_eq!(loaded(told), [(FIRST, LoadStatus::There, false)]);
    assert!(ups(told).is_empty(), "{told:?}");
    assert!(format!("{told:?}").contains(&format!("Number({n}.0)")), "{told:?}");
}

/// What its program is shown of an entry that sets both segments to `n`.
fn both(replica: &mut Replica, made: &[Vec<Bytes>; 2], n: usize) -> Vec<Index> {
    let told = crate::desk::tell(replica, &entry(n as u64 + 1, &[(ONE, &made[0][n]), (TWO, &made[1][n])]));
    let applied = told.iter().filter_map(|output| match output {
        Output::Apply { segments, .. } => Some(segments.iter().map(|(index, _)| *index)),
        _ => None,
    });
    applied.flatten().collect()
}

#[test]
fn l06_a_packed_segment_takes_entries_as_bytes_and_shows_them_to_who_looks() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, false));
    assert!(!pack(&mut replica, FIRST, false), "it is packed already");
    for n in 1..=3 {
        // P3: the half that somebody sees is shown at once, and the cut covers both.
        assert_eq!(both(&mut replica, &made, n), [SECOND]);
        assert_eq!((replica.cut(), value(&mut replica, ONE)), (Offset(n as u64 + 2), None));
    }
    shows(&load(&mut replica, ONE), 3);
    // From here on it is like any other.
    assert!(errors(&commit(&mut replica, Target::Here(FIRST), set(9))).is_empty());
}

#[test]
fn l06_one_with_a_mirror_is_decoded_to_take_a_delta() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, true));
    assert_eq!(value(&mut replica, ONE), None);
    let told = crate::desk::tell(&mut replica, &entry(2, &[(ONE, &made[0][1]), (TWO, &made[1][1])]));
    assert!(
        matches!(&told[..], [Output::Awake(FIRST), Output::Apply { segments, .. }, ..] if segments.len() == 2),
        "{told:?}"
    );
    assert!(value(&mut replica, ONE).unwrap().contains("Number(1.0)"));
    // Its handles are those that the program knows, so it writes without looking again.
    assert!(pack(&mut replica, FIRST, true));
    let told = commit(&mut replica, Target::Here(FIRST), set(9));
    assert!(errors(&told).is_empty() && loaded(&told).is_empty(), "{told:?}");
}

#[test]
fn l06_a_packed_one_may_lose_its_mirror_and_takes_entries_as_bytes_from_then_on() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, true));
    assert!(pack(&mut replica, FIRST, false));
    assert!(!pack(&mut replica, FIRST, true), "nobody has a mirror to keep");
    assert_eq!(both(&mut replica, &made, 1), [SECOND]);
    shows(&load(&mut replica, ONE), 1);
}

#[test]
fn l06_a_queue_over_its_bound_is_merged() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, false));
    let size = |replica: &Replica| replica.export().len();
    let packed = size(&replica);
    // The same change, over and over: the document it comes to does not grow.
    let times = limits::PACKED_QUEUE_MAX as u64 + 1;
    let mut largest = 0;
    for n in 0..times {
        crate::desk::tell(&mut replica, &entry(2 + n, &[(ONE, &made[0][1])]));
        largest = largest.max(size(&replica));
    }
    let delta = made[0][1].len();
    assert!(largest > packed + limits::PACKED_QUEUE_MAX * delta, "{packed} {largest}");
    assert!(size(&replica) < packed + 2 * delta, "{packed} {}", size(&replica));
    assert_eq!(value(&mut replica, ONE), None, "it is packed still");
    shows(&load(&mut replica, ONE), 1);
}

#[test]
fn l06_what_is_needed_otherwise_is_not_packed() {
    let made = made();
    let mut replica = with_both(&made);
    commit(&mut replica, Target::Here(FIRST), set(7));
    assert!(!pack(&mut replica, FIRST, false), "L4: a commit that is not acknowledged touches it");
    assert!(pack(&mut replica, SECOND, false));
    // It is written all the same, if somebody does: decoded, and shown.
    let told = commit(&mut replica, Target::Here(SECOND), set(8));
    assert_eq!((loaded(&told), errors(&told)), (vec![(SECOND, LoadStatus::There, false)], Vec::new()));
}

#[test]
fn l06_it_is_resident_for_the_relay_until_it_is_evicted() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, false));
    give(&mut replica, Input::Disconnected);
    let said = ups(&give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] }));
    let [Up::Hello(hello)] = &said[..] else { panic!("{said:?}") };
    let residents = coheap_core::wire::frame::up::Hello::decode_residents(&hello.bulk.bytes).unwrap();
    let residents: Vec<(SegmentId, GenId)> = residents.into_iter().filter(|(id, _)| *id == ONE).collect();
    assert_eq!(residents, [(ONE, GenId::ZERO_YRS)]);
    connect_at(&mut replica, 2, &[]);
    let said = ups(&give(&mut replica, Input::Evict(FIRST)));
    assert!(matches!(said[..], [Up::Unfollow { segment: SegRef::Id(ONE) }]), "{said:?}");
    assert!(!ups(&load(&mut replica, ONE)).is_empty(), "it is asked for");
}

/// R12: what was queued is looked at when it is decoded; the entry that is not taken in is the one that is reported.
#[test]
fn l06_what_no_engine_takes_in_stops_it_when_it_is_decoded() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, false));
    assert_eq!(both(&mut replica, &made, 1), [SECOND]);
    // Set to 2 is missing.
    crate::desk::tell(&mut replica, &entry(3, &[(ONE, &made[0][3])]));
    crate::desk::tell(&mut replica, &entry(4, &[(TWO, &made[1][2])]));
    let told = load(&mut replica, ONE);
    assert_eq!(loaded(&told), [(FIRST, LoadStatus::Quarantined, false)]);
    assert_eq!(reports(&told), [(SegRef::Id(ONE), Offset(3))]);
    // The relay leaves the part out before anybody looks: then it is asked for again, and nothing stands still.
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, false));
    crate::desk::tell(&mut replica, &entry(2, &[(ONE, &made[0][3])]));
    let left_out =
        Down::Quarantine { offset: Offset(3), segment: SegRef::Id(ONE), at: Offset(2), client: Some((7, 0)) };
    let told = crate::desk::tell(&mut replica, &left_out);
    assert_eq!((loaded(&told), crate::desk::problems(&told)), (Vec::new(), Vec::new()));
    let told = crate::quarantine::answer(&mut replica, &told, 4, &[(ONE, &made[0][..2])]);
    shows(&told, 1);
}

/// D2: what is found when all is decoded to be given back is not reported to a relay whose places mean something else.
#[test]
fn d2_l06_what_no_engine_takes_in_is_not_reported_to_a_relay_that_has_lost_its_log() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, false));
    crate::desk::tell(&mut replica, &entry(2, &[(ONE, &made[0][3])]));
    give(&mut replica, Input::Disconnected);
    give(&mut replica, Input::Connected { token: String::new(), entropy: [0; 4] });
    let Down::Ok(welcome) = crate::desk::ok(0, Vec::new(), &[]) else { panic!() };
    let new = EpochId { counter: 7, random: 77 };
    let restore = Welcome { restore: true, lineage: new, epochs: vec![(new, Offset(0))], ..welcome };
    let told = crate::desk::tell(&mut replica, &Down::Ok(restore));
    assert_eq!(loaded(&told), [(FIRST, LoadStatus::Quarantined, false)]);
    let said = ups(&told);
    assert!(matches!(said[..], [Up::Restore(_)]), "{said:?}");
}

/// P4: in another instance, in another process that has its store, and where the instance is lost.
#[test]
fn l06_what_is_queued_goes_along() {
    let made = made();
    let begun = || {
        let mut replica = with_both(&made);
        assert!(pack(&mut replica, FIRST, false));
        both(&mut replica, &made, 1);
        replica
    };
    for reopens in [false, true] {
        let packed = begun().export();
        let other = if reopens { Replica::reopen(options(8), &packed) } else { Replica::import(options(8), &packed) };
        let mut other = other.unwrap();
        let told: Vec<Output> = std::iter::from_fn(|| other.poll()).collect();
        assert!(loaded(&told).iter().all(|(index, ..)| *index != FIRST), "it is packed there, too");
        assert_eq!(value(&mut other, ONE), None);
        shows(&load(&mut other, ONE), 1);
    }
    // A trap: all that there is was kept outside.
    let mut replica = with_both(&made);
    let mut kept = Vec::new();
    let mut keep = |replica: &mut Replica, input| {
        replica.handle(1, input);
        while let Some(output) = replica.poll() {
            if let Output::Keep(Keep::Segment { segment: FIRST, anew, kept: more }) = output {
                if anew {
                    kept.clear();
                }
                kept.extend(more);
            }
        }
    };
    keep(&mut replica, Input::Pack { segment: FIRST, mirrored: false });
    let mut frames = Vec::new();
    entry(2, &[(ONE, &made[0][1])]).encode(&mut frames);
    keep(&mut replica, Input::Receive(Bytes::from(coheap_core::wire::frame::message_of(&frames))));
    let good = kept.clone();
    // What the engine will not take in is looked at there, when somebody looks.
    let mut frames = Vec::new();
    entry(3, &[(ONE, &made[0][3])]).encode(&mut frames);
    let mut keep = |replica: &mut Replica, input| {
        replica.handle(1, input);
        while let Some(output) = replica.poll() {
            if let Output::Keep(Keep::Segment { segment: FIRST, anew, kept: more }) = output {
                assert!(!anew);
                kept.extend(more);
            }
        }
    };
    keep(&mut replica, Input::Receive(Bytes::from(coheap_core::wire::frame::message_of(&frames))));
    let mut other = Replica::new(options(8));
    resume(&mut other);
    assert!(give(&mut other, Input::Restore { segment: FIRST, kept: Bytes::from(kept) }).is_empty());
    let told = load(&mut other, ONE);
    assert_eq!(loaded(&told), [(FIRST, LoadStatus::Quarantined, false)]);
    let mut other = Replica::new(options(8));
    resume(&mut other);
    let told = give(&mut other, Input::Restore { segment: FIRST, kept: Bytes::from(good) });
    assert!(told.is_empty(), "{told:?}");
    shows(&load(&mut other, ONE), 1);
}

/// C9: a process that opens the store of another hands out what its own instance goes on from if that is lost: also of what is packed.
#[test]
fn l06_what_is_packed_in_a_store_is_kept_outside_by_who_opens_it() {
    let made = made();
    let mut replica = with_both(&made);
    assert!(pack(&mut replica, FIRST, false));
    both(&mut replica, &made, 1);
    let mut other = Replica::reopen(options(8), &replica.export()).unwrap();
    let kept: Vec<u8> = std::iter::from_fn(|| other.poll())
        .filter_map(|output| match output {
            Output::Keep(Keep::Segment { segment: FIRST, kept, .. }) => Some(kept),
            _ => None,
        })
        .flatten()
        .collect();
    let mut third = Replica::new(options(9));
    resume(&mut third);
    let told = give(&mut third, Input::Restore { segment: FIRST, kept: Bytes::from(kept) });
    assert!(told.is_empty(), "{told:?}");
    shows(&load(&mut third, ONE), 1);
}

/// A replica in another instance that knows the root and ONE.
fn resume(replica: &mut Replica) {
    use coheap_core::wire::codec::Write;
    let mut out = Vec::new();
    out.extend_from_slice(&[9; 16]);
    for _ in ["lives", "place", "made"] {
        Write::bytes(&mut out, &[]);
    }
    out.push(2);
    for id in [SegmentId::ROOT, ONE] {
        out.extend_from_slice(&id.0);
        out.push(0);
    }
    out.push(0);
    out.push(0);
    assert!(errors(&give(replica, Input::Resume(Bytes::from(out)))).is_empty());
}

/// Of which kinds the parts of the commits are that were sent.
fn parts(told: &[Output]) -> Vec<u8> {
    let commits = ups(told).into_iter().filter_map(|up| if let Up::Commit(commit) = up { Some(commit) } else { None });
    commits.flat_map(|commit| commit.parts.iter().map(|part| part.kind).collect::<Vec<_>>()).collect()
}

/// L6: what an own commit made of a derived segment is like any other once that is in the log.
#[test]
fn l06_a_segment_is_packed_once_what_made_it_here_is_acknowledged() {
    let mut replica = replica();
    connect_at(&mut replica, 0, &[]);
    let asked = loads(&give(&mut replica, Input::Load(vec![(ONE, true)])));
    crate::desk::tell(&mut replica, &snapshot(asked[0], 0, &unknown(ONE)));
    let told = commit(&mut replica, Target::Here(FIRST), set(7));
    assert_eq!(parts(&told), [PART_CREATE]);
    assert!(!pack(&mut replica, FIRST, false));
    crate::desk::tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
    assert!(pack(&mut replica, FIRST, false));
    shows(&load(&mut replica, ONE), 7);
    let told = commit(&mut replica, Target::Here(FIRST), set(8));
    assert_eq!(parts(&told), [PART_DELTA]);
}
