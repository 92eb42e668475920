//! From damage in the middle of a log to a heap that has everything again: it alone halts, salvage keeps the beginning, and
//! the replicas that hold the rest give it back (CORE-PROTOCOL §9).

use std::collections::BTreeMap;

use coheap_core::commit::EngineKind;
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{EpochId, Offset, SegmentId};
use coheap_core::replica::{Target, WaitError, WaitKind};
use coheap_core::value::Value;

use crate::client::Client;
use crate::peer::{COUNTER, Peer, counted};
use crate::process::{Directory, Relay};
use crate::tools::{damage, tool};

const ROOT: SegmentId = SegmentId::ROOT;
/// Made in the part of the log that is kept.
const OLD: SegmentId = SegmentId([0x11; 16]);
/// Made in the part that is lost.
const NEW: SegmentId = SegmentId([0x22; 16]);
/// All entries: the one that makes root's counter and OLD, and 40 that count.
const ENTRIES: u64 = 41;
/// The entry whose record is damaged, and so the first that is lost.
const DAMAGED: u64 = 25;

const BOTH: &[(Index, SegmentId)] = &[(Index(0), ROOT), (Index(1), OLD)];
const LATER: &[(Index, SegmentId)] = &[(Index(0), ROOT), (Index(2), NEW)];

/// What segments show: each key that was counted, and the counter.
type Shown = BTreeMap<SegmentId, BTreeMap<String, Value>>;

/// A heap of four replicas: its log is damaged in the middle, salvaged, and not served yet.
struct Salvaged {
    directory: Directory,
    /// Made nothing, and holds everything.
    keeper: Peer,
    /// All have commits that were not acknowledged. The first made most of the log, its last entry without hearing that it was
    /// saved, and does not hold NEW; the second has been away since before the damaged entry; the third came behind it, so the
    /// log knows nothing of it any more.
    authors: [Peer; 3],
    /// What everybody is to see when all is back that the log had.
    whole: Shown,
    /// And with what was not acknowledged.
    all: Shown,
    /// The lives of the log before it was salvaged.
    epochs: Vec<(EpochId, Offset)>,
    /// Versions of before and behind the damaged entry.
    versions: [String; 2],
}

/// One commit over several segments: the key, and one more on the counter, in each.
async fn count(peer: &mut Peer, key: &str, segments: &[(Index, SegmentId)], whole: &mut Shown) {
    let sections = segments.iter().map(|(index, _)| (Target::Here(*index), counted(key))).collect();
    peer.commit(sections).await;
    for (_, segment) in segments {
        note(whole, *segment, key);
    }
}

fn note(whole: &mut Shown, segment: SegmentId, key: &str) {
    let shown = whole.entry(segment).or_default();
    shown.insert(key.to_owned(), Value::Bool(true));
    let counted = shown.keys().filter(|key| *key != COUNTER).count();
    shown.insert(COUNTER.to_owned(), Value::Number(counted as f64));
}

/// What of `segments` it shows.
fn shown(peer: &mut Peer, segments: &[SegmentId]) -> Shown {
    segments.iter().map(|segment| (*segment, peer.seen(*segment))).collect()
}

/// What somebody sees who was never there before, and loads all segments.
async fn loaded(seed: u8, relay: &Relay) -> Shown {
    let mut peer = Peer::open(seed, &relay.heap("bad")).await;
    peer.load(OLD).await;
    peer.load(NEW).await;
    shown(&mut peer, &[ROOT, OLD, NEW])
}

async fn salvaged() -> Salvaged {
    let directory = Directory::new();
    let relay = Relay::start(&directory);
    let mut good = Peer::open(8, &relay.heap("good")).await;
    let counter = || Literal::Counter(0.0);
    good.write(vec![Wish::Set { object: Handle(0), key: COUNTER.into(), value: counter() }]).await;
    good.count("before").await;
    good.wait(WaitKind::Flush).await;

    let url = relay.heap("bad");
    let mut whole = Shown::new();
    // A flush behind each commit: each has a record of its own.
    let mut first = Peer::open(2, &url).await;
    let with_counter = || Literal::Map(vec![(COUNTER.into(), counter())]);
    first
        .commit(vec![
            (Target::Here(Index(0)), vec![Wish::Set { object: Handle(0), key: COUNTER.into(), value: counter() }]),
            (Target::New(OLD, EngineKind::Yrs), vec![Wish::Root { value: with_counter() }]),
        ])
        .await;
    first.wait(WaitKind::Flush).await;
    for n in 0..17 {
        count(&mut first, &format!("first {n}"), BOTH, &mut whole).await;
        first.wait(WaitKind::Flush).await;
    }
    let mut keeper = Peer::open(1, &url).await;
    keeper.load(OLD).await;
    let mut early = Peer::open(3, &url).await;
    early.load(OLD).await;
    for n in 0..3 {
        count(&mut early, &format!("early {n}"), BOTH, &mut whole).await;
        early.wait(WaitKind::Flush).await;
    }
    let before = early.wait(WaitKind::Version).await;
    early.lose().await;
    for n in 17..24 {
        count(&mut first, &format!("first {n}"), BOTH, &mut whole).await;
        first.wait(WaitKind::Flush).await;
    }
    let mut late = Peer::open(4, &url).await;
    late.load(OLD).await;
    late.commit(vec![
        (Target::Here(Index(0)), counted("late 0")),
        (Target::New(NEW, EngineKind::Yrs), [vec![Wish::Root { value: with_counter() }], counted("late 0")].concat()),
    ])
    .await;
    late.wait(WaitKind::Flush).await;
    note(&mut whole, ROOT, "late 0");
    note(&mut whole, NEW, "late 0");
    keeper.load(NEW).await;
    for n in 1..8 {
        count(&mut late, &format!("late {n}"), LATER, &mut whole).await;
        late.wait(WaitKind::Flush).await;
    }
    for n in 24..28 {
        count(&mut first, &format!("first {n}"), BOTH, &mut whole).await;
        first.wait(WaitKind::Flush).await;
    }
    let behind = first.wait(WaitKind::Version).await;
    let versions = [before, behind];
    let (_, welcome) = Client::join(&relay, "bad", 99).await;
    assert_eq!(welcome.position, Offset(ENTRIES - 1));
    // In the log, and the keeper has it; its author never hears so.
    count(&mut first, "first 28", BOTH, &mut whole).await;
    keeper.shows(OLD, "first 28").await;
    first.lose().await;
    assert_eq!(first.replica.unsaved(), 1);
    keeper.wait(WaitKind::Sync).await;
    assert_eq!(shown(&mut keeper, &[ROOT, OLD, NEW]), whole);
    for peer in [&mut keeper, &mut late, &mut good] {
        peer.lose().await;
    }
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));

    damage(&directory, 1, DAMAGED);
    let relay = Relay::start(&directory);
    good.connect(&relay.heap("good")).await;
    for (n, peer) in [&mut keeper, &mut late, &mut first].into_iter().enumerate() {
        // ERR_CORRUPT.
        assert_eq!(peer.rejected(&relay.heap("bad")).await, 4016);
        good.count(&format!("meanwhile {n}")).await;
        good.wait(WaitKind::Flush).await;
    }
    let mut other = Peer::open(9, &relay.heap("good")).await;
    assert_eq!(other.seen(ROOT), good.seen(ROOT));
    assert_eq!(other.seen(ROOT)[COUNTER], Value::Number(4.0));
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));

    let (code, out, err) = tool(&["salvage"], &directory);
    assert_eq!(code, Some(0), "{out}{err}");
    let kept = format!("kept up to entry {DAMAGED}\n");
    let lost = format!("lost: entries {DAMAGED} to {ENTRIES}\n");
    assert!(out.contains(&kept) && out.contains(&lost) && !out.contains("heap \"good\""), "{out}");
    assert_eq!(tool(&["verify"], &directory).0, Some(0));
    let mut all = whole.clone();
    for n in 0..2 {
        count(&mut early, &format!("early away {n}"), BOTH, &mut all).await;
        count(&mut late, &format!("late away {n}"), LATER, &mut all).await;
    }
    count(&mut first, "first away", BOTH, &mut all).await;
    Salvaged { directory, keeper, authors: [first, early, late], whole, all, epochs: welcome.epochs, versions }
}

/// Everybody is there: what was not acknowledged is, each commit once, and all see the same.
async fn all_are_back(salvaged: &mut Salvaged, relay: &Relay, seed: u8) {
    let Salvaged { keeper, authors, all, .. } = salvaged;
    let [first, early, late] = authors;
    let mut peers = [first, early, late, keeper];
    for peer in &mut peers {
        peer.wait(WaitKind::Flush).await;
        assert_eq!(peer.replica.unsaved(), 0);
    }
    for peer in &mut peers {
        for segment in [OLD, NEW] {
            if peer.replica.document(segment).is_none() {
                peer.load(segment).await;
            }
        }
        peer.wait(WaitKind::Sync).await;
        assert_eq!(shown(peer, &[ROOT, OLD, NEW]), *all);
    }
    assert_eq!(loaded(seed, relay).await, *all);
    let counters = [ROOT, OLD, NEW].map(|segment| &all[&segment][COUNTER]);
    assert_eq!(counters, [45.0, 35.0, 10.0].map(Value::Number).each_ref());
    assert_eq!(peers.map(|peer| peer.gave_back), [1, 0, 1, 1], "who has no more than was kept gives nothing back");
}

#[tokio::test]
async fn what_the_log_lost_is_given_back_by_one_replica_that_has_all_of_it() {
    let mut salvaged = salvaged().await;
    let Salvaged { directory, keeper, whole, epochs, versions, .. } = &mut salvaged;
    let relay = Relay::start(directory);
    let url = relay.heap("bad");
    // The log ends where it was kept, and lives begin there: of the salvage, and of this relay.
    let (_, welcome) = Client::join(&relay, "bad", 98).await;
    let (old, new) = welcome.epochs.split_at(epochs.len());
    assert_eq!((old, welcome.position), (&epochs[..], Offset(DAMAGED)));
    assert_eq!(new.iter().map(|(_, start)| *start).collect::<Vec<_>>(), [Offset(DAMAGED); 2]);
    let last = epochs.last().map(|(id, _)| id.counter);
    assert!(new.iter().all(|(id, _)| Some(id.counter) > last), "{new:?} after {old:?}");
    let mut fresh = Peer::open(20, &url).await;
    assert_eq!(fresh.seen(ROOT)[COUNTER], Value::Number((DAMAGED - 1) as f64));

    keeper.connect(&url).await;
    keeper.wait(WaitKind::Sync).await;
    assert_eq!(keeper.gave_back, 1);
    assert_eq!(shown(keeper, &[ROOT, OLD, NEW]), *whole);
    assert_eq!(loaded(21, &relay).await, *whole);
    fresh.wait(WaitKind::Sync).await;
    assert_eq!(fresh.seen(ROOT), whole[&ROOT], "who was there already is told of it");
    assert!(new.iter().any(|(id, _)| *id == keeper.epoch) && keeper.epoch == fresh.epoch);
    let [before, behind] = versions;
    assert!(keeper.ended(WaitKind::Reach(before.clone())).await.is_ok());
    assert_eq!(keeper.ended(WaitKind::Reach(behind.clone())).await, Err(WaitError::VersionLost));

    // Again, and once more with another relay: there is nothing that the log lacks.
    keeper.lose().await;
    keeper.connect(&url).await;
    keeper.wait(WaitKind::Sync).await;
    assert_eq!((keeper.gave_back, shown(keeper, &[ROOT, OLD, NEW])), (1, whole.clone()));
    keeper.lose().await;
    relay.terminate();
    assert_eq!(relay.wait(), Some(0));
    let (code, out, _) = tool(&["verify"], directory);
    assert_eq!(code, Some(0), "{out}");
    let relay = Relay::start(directory);
    let url = relay.heap("bad");
    keeper.connect(&url).await;
    keeper.wait(WaitKind::Sync).await;
    assert_eq!((keeper.gave_back, shown(keeper, &[ROOT, OLD, NEW])), (1, whole.clone()));
    assert_eq!(loaded(22, &relay).await, *whole);

    for author in &mut salvaged.authors {
        author.connect(&url).await;
    }
    all_are_back(&mut salvaged, &relay, 23).await;
}

/// Nobody but those who wrote it: each has a part, and what is in two of them counts once.
#[tokio::test]
async fn what_the_log_lost_is_given_back_by_those_who_wrote_it() {
    let mut salvaged = salvaged().await;
    let relay = Relay::start(&salvaged.directory);
    let url = relay.heap("bad");
    for author in salvaged.authors.iter_mut().rev() {
        author.connect(&url).await;
    }
    for author in &mut salvaged.authors {
        author.wait(WaitKind::Flush).await;
    }
    assert_eq!(loaded(21, &relay).await, salvaged.all);
    salvaged.keeper.connect(&url).await;
    all_are_back(&mut salvaged, &relay, 22).await;
    for author in &mut salvaged.authors {
        author.lose().await;
        author.connect(&url).await;
    }
    all_are_back(&mut salvaged, &relay, 23).await;
}
