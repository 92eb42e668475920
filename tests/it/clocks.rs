//! A replica whose relay does not keep to the rules. Goal: R10 at the replica (C4), on every engine: what does not fit is reported,
//! and nothing else is.

use coheap_core::commit::EngineKind;
use coheap_core::id::{ReplicaId, SegmentId};
use coheap_core::segment::Segment;
use coheap_tests::hostile::Writer;
use coheap_tests::liar;

#[test]
fn r10_a_replica_finds_the_one_commit_whose_clocks_do_not_fit() {
    for seed in 0..200 {
        if let Err(failure) = liar::trial(seed) {
            panic!("seed {seed}: {failure}");
        }
    }
}

/// R12: what passes the guard and is still not taken in counts for nothing: the document goes on without it, and so does its table.
#[test]
fn r12_a_document_goes_on_without_what_it_could_not_take_in() {
    let (id, engine) = (SegmentId([7; 16]), EngineKind::Automerge);
    let generation = engine.generation_zero();
    let [honest, hostile] = [1, 2].map(|owner| ReplicaId([owner; 16]));
    let (mut author, mut stranger) = (Writer::honest(id, 10), Writer::hostile(id, 20));
    let mut segment = Segment::decode(id, engine, generation, 30, &[], &[author.next("a")]).unwrap();
    segment.show();
    segment.apply_commit(honest, &[author.next("b")]).unwrap();
    let before = segment.encode();
    let failed = segment.apply_commit(hostile, &[stranger.next("x")]).unwrap_err();
    assert!(failed.to_string().contains("not here"), "{failed}");
    assert!(segment.clocks().is_none(), "the table does not go on with it");
    assert_eq!(segment.encode(), before);
    assert!(segment.apply_commit(hostile, &[stranger.next("y")]).is_err());
    assert_eq!(segment.apply_commit(honest, &[author.next("c")]).unwrap().len(), 1);
    let mut copy = Segment::decode(id, engine, generation, 31, &segment.encode(), &[]).unwrap();
    assert_eq!(copy.show().len(), segment.show().len());
}
