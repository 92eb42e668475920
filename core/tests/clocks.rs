//! Clocks that yrs would lose without a word: those too high for a snapshot, and those behind a gap.
#![cfg(feature = "yrs")]

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::guard::{CLOCK_END, Clocks, Engine, GuardError, structure};
use coheap_core::id::{ReplicaId, SegmentId};
use coheap_core::segment::Segment;
use coheap_core::segment::engine::EngineError;
use coheap_core::segment::merge::{MergeError, Merged, merge};
use coheap_core::segment::replay::replay;
use yrs::updates::decoder::Decode;
use yrs::{Doc, ReadTxn, StateVector, Transact, Update};

const YRS: EngineKind = EngineKind::Yrs;

fn empty() -> Segment {
    Segment::new(SegmentId::ROOT, YRS, 77).expect("an empty one")
}

/// A segment that is made of this one's snapshot.
fn stored_and_read(segment: &Segment) -> Segment {
    Segment::decode(SegmentId::ROOT, YRS, YRS.generation_zero(), 78, &segment.encode(), &[])
        .expect("a snapshot is read")
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Structs of one client from this clock on.
fn structs(client: u64, start: u64, structs: &[Vec<u8>]) -> Bytes {
    let mut out = vec![1, structs.len() as u8];
    put(&mut out, client);
    put(&mut out, start);
    out.extend(structs.concat());
    out.push(0);
    out.into()
}

/// Behind so many deleted clocks a value; another client's value before that one, and one amid what is deleted.
fn far(deleted: u64) -> [Bytes; 2] {
    let numbered = |head: &[u8], numbers: &[u64], tail: &[u8]| {
        let mut out = head.to_vec();
        numbers.iter().for_each(|number| put(&mut out, *number));
        out.extend(tail);
        out
    };
    let gone = numbered(&[1, 1, 1, b'q'], &[deleted], &[]);
    let behind = numbered(&[0x88], &[5, deleted - 1], &[1, 126]);
    let before = numbered(&[0x48], &[5, deleted], &[1, 120]);
    let amid = numbered(&[0xc8], &[5, 0, 5, 1], &[1, 121]);
    [structs(5, 0, &[gone, behind]), structs(6, 0, &[before, amid])]
}

#[test]
fn clocks_that_the_guard_passes_come_back_from_a_snapshot() {
    let end = u64::from(CLOCK_END);
    for deleted in [100, end / 2, end / 2 + 1, end - 2, end - 1] {
        let (mut segment, mut clocks) = (empty(), Clocks::default());
        for (n, delta) in far(deleted).iter().enumerate() {
            let (owner, summary) =
                (ReplicaId([n as u8 + 1; 16]), structure(Engine::Yrs, delta).expect("it is well formed"));
            clocks.check(owner, &summary).expect("it continues");
            clocks.record(owner, &summary);
            segment.apply_commit(owner, std::slice::from_ref(delta)).expect("and is taken");
        }
        assert_eq!(stored_and_read(&segment).whole(), segment.whole(), "{deleted} deleted");
    }
    assert_eq!(structure(Engine::Yrs, &far(end)[0]).unwrap_err(), GuardError::ClockOverflow);
}

/// Should this fail, [`CLOCK_END`] can be higher.
#[test]
fn yrs_writes_no_snapshot_of_higher_clocks() {
    let document = Doc::new();
    let deltas = far(u64::from(CLOCK_END) + 1);
    for delta in &deltas {
        document.transact_mut().apply_update(Update::decode_v1(delta).unwrap()).unwrap();
    }
    let stored = document.transact().encode_state_as_update_v2(&StateVector::default());
    let copy = Doc::new();
    copy.transact_mut().apply_update(Update::decode_v2(&stored).unwrap()).unwrap();
    assert_ne!(copy.transact().state_vector(), document.transact().state_vector());
}

/// One value of one client.
fn value(clock: u64) -> Bytes {
    structs(5, clock, &[vec![8, 1, 1, b'q', 1, 126]])
}

/// R12: the delta behind the gap is to blame, though nothing is wrong with its bytes, and with none before it.
#[test]
fn r12_a_replay_finds_the_delta_behind_a_gap() {
    let deltas = [0, 1, 1, 3, 4].map(value);
    let (at, error) = replay(YRS, &[], &deltas, |_| {}).unwrap_err();
    assert_eq!((at, error), (3, EngineError::from(GuardError::ClockGap)));
    replay(YRS, &[], &deltas[..3], |_| {}).expect("nothing is wrong with those");
    // What the snapshot has counts.
    let mut segment = empty();
    segment.extend(&deltas[..2]).unwrap();
    replay(YRS, &segment.encode(), &[value(2), value(3)], |_| {}).expect("they go on");
    assert_eq!(replay(YRS, &segment.encode(), &[value(2), value(4)], |_| {}).unwrap_err().0, 1);
}

/// D4: a log that cannot be read is not the fault of who gives something back.
#[test]
fn d4_a_gap_in_the_log_is_not_blamed_on_what_is_given() {
    let given = structs(6, 0, &[vec![8, 1, 1, b'q', 1, 126]]);
    assert!(matches!(merge(YRS, &[], &[value(0)], &given), Ok(Merged::Adds { .. })));
    let error = merge(YRS, &[], &[value(1)], &given).unwrap_err();
    assert!(matches!(error, MergeError::Stored(_)), "{error}");
    let error = merge(YRS, &[], &[value(0)], &value(1)).unwrap_err();
    assert!(matches!(error, MergeError::Guard(GuardError::ClockGap)), "{error}");
}

#[test]
fn a_gap_in_what_the_relay_vouches_for_is_refused() {
    for (clocks, gap) in [(vec![1], true), (vec![0, 2], true), (vec![1, 0], true), (vec![0, 1, 1, 2], false)] {
        let deltas: Vec<Bytes> = clocks.iter().map(|clock| value(*clock)).collect();
        let refused = gap.then(|| EngineError::from(GuardError::ClockGap));
        assert_eq!(empty().apply(&deltas).err(), refused, "{clocks:?}");
        assert_eq!(empty().extend(&deltas).err(), refused, "{clocks:?}");
    }
    // What is here already counts, and a refusal changes nothing.
    let mut segment = empty();
    segment.extend(&[value(0)]).unwrap();
    let before = segment.whole();
    assert!(segment.extend(&[value(2)]).is_err());
    assert_eq!(segment.whole(), before);
    segment.extend(&[value(1), value(2)]).unwrap();
    assert_eq!(stored_and_read(&segment).whole(), segment.whole());
}
