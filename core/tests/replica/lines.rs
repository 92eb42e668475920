//! Several lines of commits in one replica, and copies of a process (C1, C3, C9, F1–F4, G5), against a relay that only a test is.

use bytes::Bytes;
use coheap_core::commit::{EngineKind, content_hash};
use coheap_core::edit::{Handle, Literal, Wish};
use coheap_core::heap::Index;
use coheap_core::id::{GenId, Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::replica::{Input, Output, Replica, Section, Target, WaitError, WaitKind};
use coheap_core::value::Value;
use coheap_core::wire::frame::down::{EntryFrame, Fate, Row};
use coheap_core::wire::frame::up::{CommitFrame, Hello};
use coheap_core::wire::frame::{Down, PART_CREATE, PART_DELTA, PartFrame, SegRef, SegmentState, Up};

use crate::desk::{alive, errors, give, loads, ok, options, problems, snapshot, tell, unknown, ups};

const ONE: SegmentId = SegmentId([1; 16]);
const TWO: SegmentId = SegmentId([2; 16]);

fn alloc(replica: &mut Replica, id: SegmentId, entropy: u64) -> Vec<Output> {
    let wishes = vec![Wish::Root { value: Literal::Map(vec![("n".into(), Literal::Counter(0.0))]) }];
    let sections = vec![Section { target: Target::New(id, EngineKind::Yrs), claim: None, wishes }];
    give(replica, Input::Commit { label: "made".into(), sections, size: 10, entropy })
}

/// Sets a key of the first segment that was made.
fn set(replica: &mut Replica, value: f64, entropy: u64) -> Vec<Output> {
    let value = Literal::Scalar(Value::Number(value));
    let wishes = vec![Wish::Set { object: Handle(0), key: "k".into(), value }];
    let sections = vec![Section { target: Target::Here(Index(1)), claim: None, wishes }];
    give(replica, Input::Commit { label: String::new(), sections, size: 10, entropy })
}

fn hello(outputs: &[Output]) -> Option<Hello> {
    ups(outputs).into_iter().find_map(|up| if let Up::Hello(hello) = up { Some(hello) } else { None })
}

fn commits(outputs: &[Output]) -> Vec<CommitFrame> {
    ups(outputs).into_iter().filter_map(|up| if let Up::Commit(commit) = up { Some(commit) } else { None }).collect()
}

fn hash(frame: &CommitFrame) -> u64 {
    let id = |part: &PartFrame| if let SegRef::Id(id) = part.segment { id } else { panic!("no number was given") };
    content_hash(frame.parts.to_vec().iter().map(|part| (id(part), part.generation, &part.bytes[..])))
}

fn row(frame: &CommitFrame) -> Row {
    Row { seq: frame.seq, uid: frame.uid, fate: Fate::Admitted(hash(frame)) }
}

fn foreign(seq: u64) -> Row {
    Row { seq: Seq(seq), uid: Uid(77_777 + seq), fate: Fate::Admitted(1) }
}

fn dial(replica: &mut Replica, entropy: u64) -> Vec<Output> {
    give(replica, Input::Connected { token: String::new(), entropy: [entropy; 4] })
}

fn state(id: SegmentId, deltas: Vec<Bytes>) -> SegmentState {
    if deltas.is_empty() { unknown(id) } else { alive(id, deltas) }
}

/// Answers all loads with what the relay has, one state for each id.
fn answer(replica: &mut Replica, asked: &[Output], position: u64, deltas: &[(SegmentId, Vec<Bytes>)]) -> Vec<Output> {
    let mut out = Vec::new();
    let wanted: Vec<_> = ups(asked)
        .into_iter()
        .filter_map(
            |up| if let Up::Load { segment: SegRef::Id(id), nonce, .. } = up { Some((id, nonce)) } else { None },
        )
        .collect();
    for (id, nonce) in wanted {
        let of = deltas.iter().find(|(of, _)| *of == id).map(|(_, deltas)| deltas.clone()).unwrap_or_default();
        out.extend(tell(replica, &snapshot(nonce, position, &state(id, of))));
    }
    out
}

fn forks(outputs: &[Output]) -> Vec<(ReplicaId, usize)> {
    let forks = outputs
        .iter()
        .filter_map(|output| if let Output::Forked { id, moved, .. } = output { Some((*id, *moved)) } else { None });
    forks.collect()
}

/// A replica with a segment and a change of it, both sent and neither acknowledged; their frames.
fn with_two() -> (Replica, Vec<CommitFrame>) {
    let mut replica = Replica::new(options(7));
    dial(&mut replica, 1);
    tell(&mut replica, &ok(0, Vec::new(), &[]));
    let mut sent = commits(&alloc(&mut replica, ONE, 1));
    sent.extend(commits(&set(&mut replica, 1.0, 2)));
    assert_eq!(sent.len(), 2);
    (replica, sent)
}

/// Another process over what a replica stored.
fn reopened(replica: &Replica, seed: u8) -> Replica {
    let mut other = Replica::reopen(options(seed), &replica.export()).unwrap();
    while other.poll().is_some() {}
    other
}

#[test]
fn c9_x20_stored_commits_go_out_under_the_id_that_made_them() {
    let (first, sent) = with_two();
    let mut second = reopened(&first, 8);
    assert_ne!(second.id(), first.id());
    let hello = hello(&dial(&mut second, 2)).unwrap();
    assert_eq!(hello.own, [(second.id(), Seq(0)), (first.id(), Seq(0))]);
    let again = commits(&tell(&mut second, &ok(0, Vec::new(), &[])));
    let names = |frames: &[CommitFrame]| frames.iter().map(|one| (one.seq, one.uid, hash(one))).collect::<Vec<_>>();
    assert_eq!(names(&again), names(&sent));
    assert!(again.iter().all(|one| one.owner == 1), "{again:?}");
}

#[test]
fn c1_x32_new_commits_come_after_those_of_an_older_id_while_they_are_pending() {
    let (first, sent) = with_two();
    let mut second = reopened(&first, 8);
    dial(&mut second, 2);
    tell(&mut second, &ok(0, Vec::new(), &[]));
    let new = &commits(&set(&mut second, 2.0, 3))[0];
    assert_eq!((new.owner, new.seq, new.prev), (0, Seq(1), Some(Uid::NONE)));
    assert_eq!(new.after, Some((1, Seq(2), sent[1].uid)));
    // The older line is acknowledged: the program hears of commits in its order, and nothing names that line any more.
    let told = tell(&mut second, &Down::Ack { owner: 1, seq: Seq(2), position: Offset(2) });
    assert!(matches!(told[..], [Output::Acked { seq: Seq(2), unsaved: 1, .. }]), "{told:?}");
    give(&mut second, Input::Disconnected);
    assert_eq!(
        hello(&dial(&mut second, 3)).unwrap().own,
        [(second.id(), Seq(0))],
        "an id leaves when nothing of it is pending"
    );
    let again = commits(&tell(&mut second, &ok(2, Vec::new(), &[])));
    assert_eq!((again[0].uid, again[0].after), (new.uid, None));
}

#[test]
fn acks_of_lines_are_told_in_the_order_of_the_programs_commits() {
    let (first, _) = with_two();
    let mut second = reopened(&first, 8);
    dial(&mut second, 2);
    tell(&mut second, &ok(0, Vec::new(), &[]));
    set(&mut second, 2.0, 3);
    give(&mut second, Input::Wait { ticket: 5, kind: WaitKind::Flush });
    // One frame may hold the Acks of both lines, the newer line's first.
    let told = tell(&mut second, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(3) });
    assert!(told.is_empty(), "older commits are not acknowledged yet: {told:?}");
    let told = tell(&mut second, &Down::Ack { owner: 1, seq: Seq(2), position: Offset(3) });
    assert!(
        matches!(told[..], [Output::Acked { seq: Seq(3), unsaved: 0, .. }, Output::Done { ticket: 5, .. }]),
        "{told:?}"
    );
}

#[test]
fn f1_f2_x36_a_conflict_moves_the_line_to_a_fresh_id() {
    let (mut replica, sent) = with_two();
    let was = replica.id();
    let told = tell(&mut replica, &Down::Conflict { owner: 0, seq: Seq(2), uid: Uid(5) });
    assert_eq!(forks(&told), [(replica.id(), 1)]);
    assert_ne!(replica.id(), was);
    // What else comes on this connection is not for the replica that it is now.
    assert!(tell(&mut replica, &Down::Conflict { owner: 0, seq: Seq(1), uid: Uid(5) }).is_empty());
    let own = [(replica.id(), Seq(0)), (was, Seq(0)), (was.moved(sent[1].uid), Seq(0))];
    assert_eq!(hello(&dial(&mut replica, 2)).unwrap().own, own);
    let asked = tell(&mut replica, &ok(2, vec![(1, vec![row(&sent[0]), foreign(2)])], &[]));
    assert!(commits(&asked).is_empty(), "nothing goes out before it is made anew");
    let made: Vec<Bytes> = sent[0].parts.iter().map(|part| part.bytes.clone()).collect();
    let again = commits(&answer(&mut replica, &asked, 2, &[(ONE, made)]));
    // The first is in both copies, with the same uid, and stays where it is; the second is made anew.
    assert_eq!((again[0].owner, again[0].seq, again[0].uid, hash(&again[0])), (1, Seq(1), sent[0].uid, hash(&sent[0])));
    assert_eq!((again[1].owner, again[1].seq, again[1].uid), (2, Seq(1), sent[1].uid));
    assert_eq!((again[1].prev, again[1].after), (Some(Uid::NONE), Some((1, Seq(1), sent[0].uid))));
    assert_ne!(hash(&again[1]), hash(&sent[1]), "no engine identity is shared with the copy");
}

#[test]
fn f2_commits_behind_moved_ones_name_them_by_their_new_place() {
    let (first, sent) = with_two();
    let mut second = reopened(&first, 8);
    let was = second.id();
    dial(&mut second, 2);
    tell(&mut second, &ok(0, Vec::new(), &[]));
    set(&mut second, 2.0, 3);
    // A copy of the first process goes on with its line.
    tell(&mut second, &Down::Conflict { owner: 1, seq: Seq(1), uid: Uid(5) });
    let own = [(second.id(), Seq(0)), (first.id().moved(sent[0].uid), Seq(0)), (was, Seq(0))];
    assert_eq!(hello(&dial(&mut second, 4)).unwrap().own, own);
    let asked = tell(&mut second, &ok(0, Vec::new(), &[]));
    let again = commits(&answer(&mut second, &asked, 0, &[]));
    let places: Vec<_> = again.iter().map(|one| (one.owner, one.seq, one.prev, one.after)).collect();
    let expected = [
        (1, Seq(1), Some(Uid::NONE), None),
        (1, Seq(2), Some(sent[0].uid), None),
        (2, Seq(1), Some(Uid::NONE), Some((1, Seq(2), sent[1].uid))),
    ];
    assert_eq!(places, expected);
    // C1 from here on: behind the newest of the older ids.
    let new = &commits(&set(&mut second, 3.0, 4))[0];
    assert_eq!(
        (new.owner, new.seq, new.prev, new.after),
        (0, Seq(1), Some(Uid::NONE), Some((2, Seq(1), again[2].uid)))
    );
}

#[test]
fn f1_x38_a_ring_is_compared_before_anything_of_the_ok_is_taken_in() {
    let (mut replica, sent) = with_two();
    give(&mut replica, Input::Disconnected);
    dial(&mut replica, 2);
    let stranger = state(ONE, sent[0].parts.iter().map(|part| part.bytes.clone()).collect());
    let told = tell(&mut replica, &ok(9, vec![(0, vec![foreign(1)])], &[stranger]));
    assert_eq!(forks(&told), [(replica.id(), 2)]);
    assert!(told.iter().all(|output| !matches!(output, Output::Loaded { .. } | Output::Online { .. })), "{told:?}");
    assert_eq!(replica.cut(), Offset(0));
}

#[test]
fn f1_x43_the_whole_ring_is_compared() {
    let (mut replica, sent) = with_two();
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(2), position: Offset(2) });
    give(&mut replica, Input::Disconnected);
    // All is as this process left it.
    dial(&mut replica, 2);
    let own: Vec<Row> = sent.iter().map(row).collect();
    assert_eq!(forks(&tell(&mut replica, &ok(2, vec![(0, own.clone())], &[]))), []);
    give(&mut replica, Input::Disconnected);
    // Its next number is there, and it did not make it.
    dial(&mut replica, 3);
    let told = tell(&mut replica, &ok(3, vec![(0, [own, vec![foreign(3)]].concat())], &[]));
    assert_eq!(forks(&told), [(replica.id(), 0)]);
    // So is one of those that were acknowledged.
    dial(&mut replica, 4);
    tell(&mut replica, &ok(3, Vec::new(), &[]));
    set(&mut replica, 5.0, 5);
    tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(4) });
    give(&mut replica, Input::Disconnected);
    dial(&mut replica, 5);
    assert_eq!(forks(&tell(&mut replica, &ok(4, vec![(0, vec![foreign(1)])], &[]))).len(), 1);
}

#[test]
fn f1_x43_a_fork_begins_at_the_first_commit_that_is_another_ones() {
    let (mut replica, sent) = with_two();
    give(&mut replica, Input::Disconnected);
    dial(&mut replica, 2);
    let told = tell(&mut replica, &ok(3, vec![(0, vec![row(&sent[0]), foreign(2), foreign(3)])], &[]));
    assert_eq!(forks(&told), [(replica.id(), 1)]);
}

fn entry(offset: u64, seq: u64, uid: Uid, parts: Vec<PartFrame>) -> Down {
    let frame = EntryFrame {
        offset: Offset(offset),
        yours: false,
        void: false,
        author: 9,
        seq: Seq(seq),
        uid,
        label: None,
        parts: parts.into(),
    };
    Down::Entry(frame)
}

fn author(replica: ReplicaId) -> Down {
    Down::Author { number: 9, replica, name: String::new(), subject: String::new() }
}

#[test]
fn f1_an_entry_of_the_own_id_that_was_not_made_here_shows_a_copy_and_is_not_applied() {
    for (seq, moved) in [(2, 1), (3, 0)] {
        let (mut replica, _) = with_two();
        let was = replica.id();
        tell(&mut replica, &author(was));
        let told = tell(&mut replica, &entry(0, seq, Uid(5), Vec::new()));
        assert_eq!(forks(&told), [(replica.id(), moved)]);
        assert_eq!(replica.cut(), Offset(0), "it comes again on the next connection");
        // There it is another's.
        dial(&mut replica, 2);
        tell(&mut replica, &ok(0, Vec::new(), &[]));
        tell(&mut replica, &author(was));
        assert_eq!(forks(&tell(&mut replica, &entry(0, 3, Uid(5), Vec::new()))), []);
        assert_eq!(replica.cut(), Offset(1));
    }
}

#[test]
fn f2_a_document_with_moved_commits_is_made_anew_before_entries_reach_it() {
    let (mut replica, _) = with_two();
    let was = replica.id();
    tell(&mut replica, &author(was));
    assert_eq!(forks(&tell(&mut replica, &entry(0, 2, Uid(5), Vec::new()))).len(), 1);
    // The copy's commits have the engine identities of what is still shown here: replayed onto it they would undo it.
    let hello = hello(&dial(&mut replica, 2)).unwrap();
    let residents = Hello::decode_residents(&hello.bulk.bytes).unwrap();
    assert!(residents.contains(&(ONE, GenId::NONE)), "{residents:?}");
    let answered = tell(&mut replica, &ok(0, Vec::new(), &[state(ONE, Vec::new())]));
    assert!(!commits(&answered).is_empty(), "made anew and sent with the answer: {answered:?}");
    let hello = self::hello(&dial(&mut replica, 3)).unwrap();
    let residents = Hello::decode_residents(&hello.bulk.bytes).unwrap();
    assert_eq!(residents, [(ONE, GenId::ZERO_YRS)], "it is as any other again");
}

#[test]
fn f2_two_copies_of_one_memory_take_different_ids_and_draw_different_uids() {
    let (first, _) = with_two();
    let packed = first.export();
    // One packed replica and one seed: the two are alike to the last bit.
    let copies = [8, 9].map(|entropy| {
        let mut copy = Replica::import(options(5), &packed).unwrap();
        while copy.poll().is_some() {}
        (copy, entropy)
    });
    let ids = copies.map(|(mut copy, entropy)| {
        dial(&mut copy, entropy);
        tell(&mut copy, &ok(0, vec![(0, vec![foreign(1)])], &[]));
        copy.id()
    });
    assert_ne!(ids[0], ids[1]);
    assert!(!ids.contains(&first.id()));
    // Without a connection too: a uid that both drew would pass for one commit.
    let uids = [8, 9].map(|entropy| {
        let mut copy = Replica::import(options(5), &packed).unwrap();
        while copy.poll().is_some() {}
        set(&mut copy, 3.0, entropy);
        copy.unsaved_uids().pop()
    });
    assert_ne!(uids[0], uids[1]);
}

/// How the hello names this document; `None` generation: it is to be made anew.
fn named(outputs: &[Output], id: SegmentId) -> Option<GenId> {
    let residents = Hello::decode_residents(&hello(outputs).unwrap().bulk.bytes).unwrap();
    residents.into_iter().find(|(of, _)| *of == id).map(|(_, generation)| generation)
}

fn hangs_up(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Reconnect))
}

#[test]
fn f3_x40_where_the_log_has_other_bytes_its_version_counts() {
    // The ring says so; without one, the entry.
    for by_ring in [true, false] {
        let (mut replica, sent) = with_two();
        // A copy redid the second one: same id, number and uid, other bytes.
        let (mut copy, _) = with_two();
        let told = tell(&mut copy, &Down::Conflict { owner: 0, seq: Seq(2), uid: Uid(5) });
        assert_eq!(forks(&told).len(), 1);
        dial(&mut copy, 9);
        let asked = tell(&mut copy, &ok(0, Vec::new(), &[]));
        let made: Vec<Bytes> = sent[0].parts.iter().map(|part| part.bytes.clone()).collect();
        let redone = commits(&answer(&mut copy, &asked, 0, &[(ONE, made.clone())])).pop().unwrap();
        let theirs = redone.parts.to_vec()[0].bytes.clone();
        assert_ne!(theirs, sent[1].parts.to_vec()[0].bytes);
        let other = Row { seq: Seq(2), uid: sent[1].uid, fate: Fate::Admitted(hash(&redone)) };
        let states = [state(ONE, [made, vec![theirs]].concat())];
        let ring = vec![(0, vec![row(&sent[0]), other])];
        give(&mut replica, Input::Disconnected);
        dial(&mut replica, 2);
        let asked = if by_ring {
            tell(&mut replica, &ok(2, ring.clone(), &states))
        } else {
            tell(&mut replica, &ok(0, Vec::new(), &[]));
            let author = Down::Author { number: 0, replica: replica.id(), name: String::new(), subject: String::new() };
            tell(&mut replica, &author);
            let (seq, uid, parts) = (Seq(2), sent[1].uid, redone.parts.clone());
            let entry =
                EntryFrame { offset: Offset(1), yours: false, void: false, author: 0, seq, uid, label: None, parts };
            tell(&mut replica, &Down::Entry(entry))
        };
        assert_eq!((forks(&asked), errors(&asked), problems(&asked)), (vec![], vec![], vec![]));
        // Nothing of it counts but that: entries that are made on the log's version would meet the own one.
        assert!(hangs_up(&asked) && commits(&asked).is_empty(), "{asked:?}");
        assert_eq!(replica.cut(), Offset(0));
        assert_eq!(named(&dial(&mut replica, 3), ONE), Some(GenId::NONE));
        let told = tell(&mut replica, &ok(2, ring, &states));
        assert!(!hangs_up(&told) && loads(&told).is_empty(), "the catch-up is what the segment is made of: {told:?}");
        assert_eq!(commits(&told).len(), 2, "both wait for their Ack");
        // A document of both versions would hold one client more.
        let shown = replica.document(ONE).unwrap().encode();
        let generation = EngineKind::Yrs.generation_zero();
        let alone =
            coheap_core::segment::Segment::decode(ONE, EngineKind::Yrs, generation, 1, &[], &states[0].deltas.to_vec());
        assert_eq!(shown.len(), alone.unwrap().encode().len());
    }
}

/// What lies behind a commit of which the log has another version is made anew, but for what the log has as it is here: to make
/// that anew would show it twice.
#[test]
fn f3_what_the_log_has_as_it_is_here_is_not_made_anew() {
    let (mut replica, mut sent) = with_two();
    sent.extend(commits(&alloc(&mut replica, TWO, 3)));
    let wish =
        |key: &str| vec![Wish::Set { object: Handle(0), key: key.into(), value: Literal::Scalar(Value::Bool(true)) }];
    let mut edit = |sections: Vec<(u32, &str)>| {
        let section = |(index, key)| Section { target: Target::Here(Index(index)), claim: None, wishes: wish(key) };
        let sections = sections.into_iter().map(section).collect();
        sent.extend(commits(&give(
            &mut replica,
            Input::Commit { label: String::new(), sections, size: 10, entropy: 4 },
        )));
    };
    edit(vec![(1, "both"), (2, "both")]);
    edit(vec![(2, "behind")]);
    edit(vec![(1, "last")]);
    give(&mut replica, Input::Disconnected);
    // A copy had the second one refused, so its version of the fourth has another part in the first segment.
    let void = Row { seq: Seq(2), uid: sent[1].uid, fate: Fate::Void(36) };
    let other = Row { seq: Seq(4), uid: sent[3].uid, fate: Fate::Admitted(1) };
    let ring = vec![(0, vec![row(&sent[0]), void, row(&sent[2]), other, row(&sent[4])])];
    let bytes = |frame: &CommitFrame, at: usize| frame.parts.to_vec()[at].bytes.clone();
    let one = state(ONE, vec![bytes(&sent[0], 0)]);
    let two = state(TWO, vec![bytes(&sent[2], 0), bytes(&sent[3], 1), bytes(&sent[4], 0)]);
    dial(&mut replica, 2);
    let told = tell(&mut replica, &ok(5, ring.clone(), &[one.clone(), two.clone()]));
    assert!(hangs_up(&told) && commits(&told).is_empty(), "{told:?}");
    dial(&mut replica, 3);
    // The refusal comes when what is before it has ended, and what lies behind it waits.
    let again = commits(&tell(&mut replica, &ok(5, ring, &[one, two])));
    assert_eq!(again.iter().map(|one| one.seq.0).collect::<Vec<_>>(), [1, 2]);
    let position = Offset(5);
    assert!(commits(&tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position })).is_empty());
    let refused = Down::Refused { owner: 0, seq: Seq(2), uid: sent[1].uid, code: 36, position };
    let asked = tell(&mut replica, &refused);
    let again = commits(&answer(&mut replica, &asked, 5, &[(ONE, vec![bytes(&sent[0], 0)])]));
    let hashes: Vec<_> = again.iter().map(|one| (one.seq.0, hash(one))).collect();
    assert_eq!(hashes.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert_eq!((hashes[2].1, hashes[0].1), (hash(&sent[4]), hash(&sent[2])), "what the log has");
    assert_ne!(hashes[3].1, hash(&sent[5]), "it is not in the log, and was made on what is not there either");
}

/// What is here of a replica without a connection it made itself, unless the log knows it: then a copy of it has been there, and
/// others have written to what both made.
#[test]
fn f1_a_replica_that_is_new_to_a_relay_that_knows_its_line_takes_what_came_to_its_segments() {
    let mut first = Replica::new(options(7));
    let mut copy = Replica::new(options(7));
    alloc(&mut copy, ONE, 1);
    alloc(&mut first, ONE, 1);
    dial(&mut first, 1);
    let made = commits(&tell(&mut first, &ok(0, Vec::new(), &[]))).pop().unwrap();
    let mut other = Replica::new(options(9));
    dial(&mut other, 5);
    tell(&mut other, &ok(1, Vec::new(), &[]));
    let asked = give(&mut other, Input::Load(vec![(ONE, false)]));
    answer(&mut other, &asked, 1, &[(ONE, vec![made.parts.to_vec()[0].bytes.clone()])]);
    let theirs = commits(&set(&mut other, 8.0, 6)).pop().unwrap();
    let states = [state(ONE, vec![made.parts.to_vec()[0].bytes.clone(), theirs.parts.to_vec()[0].bytes.clone()])];
    assert!(hello(&dial(&mut copy, 3)).unwrap().fresh);
    let told = tell(&mut copy, &ok(2, vec![(0, vec![row(&made)])], &states));
    assert!(!hangs_up(&told), "{told:?}");
    let whole = other.document(ONE).unwrap().encode();
    assert_eq!(copy.document(ONE).unwrap().encode(), whole);
}

#[test]
fn f4_a_replica_that_is_displaced_again_takes_a_fresh_id_and_keeps_its_commits() {
    let (mut replica, sent) = with_two();
    let was = replica.id();
    assert!(give(&mut replica, Input::Replaced).is_empty());
    assert_eq!(replica.id(), was, "once may be an own connection of before");
    dial(&mut replica, 2);
    tell(&mut replica, &ok(0, Vec::new(), &[]));
    assert_eq!(forks(&give(&mut replica, Input::Replaced)), [(replica.id(), 0)]);
    assert_eq!(hello(&dial(&mut replica, 3)).unwrap().own, [(replica.id(), Seq(0)), (was, Seq(0))]);
    let again = commits(&tell(&mut replica, &ok(0, Vec::new(), &[])));
    assert_eq!(
        again.iter().map(|one| (one.owner, one.seq, hash(one))).collect::<Vec<_>>(),
        [(1, Seq(1), hash(&sent[0])), (1, Seq(2), hash(&sent[1]))]
    );
    let new = &commits(&set(&mut replica, 4.0, 4))[0];
    assert_eq!((new.owner, new.after), (0, Some((1, Seq(2), sent[1].uid))));
}

#[test]
fn g5_what_was_sent_of_a_line_that_the_relay_forgot_is_in_doubt_and_the_rest_moves() {
    for by_ring in [false, true] {
        let (mut replica, sent) = with_two();
        tell(&mut replica, &Down::Ack { owner: 0, seq: Seq(1), position: Offset(1) });
        give(&mut replica, Input::Wait { ticket: 4, kind: WaitKind::Flush });
        give(&mut replica, Input::Disconnected);
        // Made, and never sent.
        alloc(&mut replica, TWO, 6);
        let unsent = replica.unsaved_uids()[1];
        dial(&mut replica, 2);
        let told = if by_ring {
            tell(&mut replica, &ok(1, Vec::new(), &[]))
        } else {
            tell(&mut replica, &ok(1, vec![(0, vec![row(&sent[0])])], &[]));
            // It went out again, and so did the other.
            tell(&mut replica, &Down::Unknown { owner: 0 })
        };
        let doubtful: Vec<_> = told
            .iter()
            .filter_map(|output| if let Output::InDoubt(commits) = output { Some(commits) } else { None })
            .flatten()
            .map(|one| (one.seq, one.edits[0].0))
            .collect();
        let expected = if by_ring { vec![(Seq(2), ONE)] } else { vec![(Seq(2), ONE), (Seq(3), TWO)] };
        assert_eq!(doubtful, expected);
        assert!(
            told.iter().any(|one| matches!(one, Output::Failed { ticket: 4, error: WaitError::InDoubt })),
            "{told:?}"
        );
        assert_eq!(replica.unsaved_uids(), if by_ring { vec![unsent] } else { Vec::new() });
        assert_eq!(forks(&told), [(replica.id(), usize::from(by_ring))]);
    }
}

#[test]
fn g5_a_line_of_which_nothing_was_acknowledged_just_begins() {
    let (mut replica, sent) = with_two();
    let was = replica.id();
    // The relay says so of what comes behind a first one that it did not admit.
    assert!(tell(&mut replica, &Down::Unknown { owner: 0 }).is_empty());
    give(&mut replica, Input::Disconnected);
    dial(&mut replica, 2);
    let again = commits(&tell(&mut replica, &ok(0, Vec::new(), &[])));
    assert_eq!((again.len(), again[0].uid, replica.id()), (2, sent[0].uid, was));
}

#[test]
fn c7_what_lies_behind_a_commit_that_the_ring_has_as_refused_is_made_anew_before_it_goes_out() {
    let (mut replica, sent) = with_two();
    give(&mut replica, Input::Disconnected);
    dial(&mut replica, 2);
    let ring = vec![(0, vec![Row { seq: Seq(1), uid: sent[0].uid, fate: Fate::Void(36) }])];
    let told = tell(&mut replica, &ok(1, ring.clone(), &[]));
    assert!(hangs_up(&told) && commits(&told).is_empty(), "{told:?}");
    assert_eq!(named(&dial(&mut replica, 3), ONE), Some(GenId::NONE));
    let again = commits(&tell(&mut replica, &ok(1, ring, &[state(ONE, Vec::new())])));
    let places: Vec<_> = again.iter().map(|one| (one.seq, one.uid, one.prev)).collect();
    assert_eq!(places, [(Seq(2), sent[1].uid, Some(sent[0].uid.voided()))]);
    assert_ne!(hash(&again[0]), hash(&sent[1]));
}

#[test]
fn c9_reopened_segments_are_shown_to_a_program_that_knows_nothing_of_them() {
    let (first, _) = with_two();
    let mut second = Replica::reopen(options(8), &first.export()).unwrap();
    let told: Vec<Output> = std::iter::from_fn(|| second.poll()).collect();
    let named = told.iter().any(|one| matches!(one, Output::Indexed { segment: ONE, index: Index(1) }));
    let shown = told.iter().any(|one| matches!(one, Output::Loaded { segment: Index(1), reset: false, .. }));
    assert!(named && shown, "{told:?}");
    assert_eq!(second.unsaved(), 2);
    // A store that is cut short is no store.
    let packed = first.export();
    assert!(Replica::reopen(options(8), &packed[..packed.len() - 1]).is_err());
}

#[test]
fn f2_two_processes_with_the_same_commits_move_them_to_the_same_line() {
    // A store that is older than the fork, or a further copy: under two random ids the relay would admit both.
    let (mut first, sent) = with_two();
    let mut second = reopened(&first, 8);
    let lines = [(&mut first, 0), (&mut second, 1)].map(|(replica, owner)| {
        dial(replica, owner + 2);
        tell(replica, &ok(1, vec![(owner, vec![foreign(1)])], &[]));
        let hello = hello(&dial(replica, owner + 4)).unwrap();
        assert_eq!(hello.own[0].0, replica.id());
        hello.own[1..].to_vec()
    });
    assert_eq!(lines[0], lines[1]);
    assert_ne!(first.id(), second.id(), "what each makes from here on is its own");
    // The relay has the other one's version of the first.
    let version = Row { seq: Seq(1), uid: sent[0].uid, fate: Fate::Admitted(1) };
    assert_eq!(forks(&tell(&mut second, &ok(2, vec![(1, vec![version])], &[]))), []);
}

/// The parts of frames are as the wire has them.
#[test]
fn moved_commits_that_make_a_segment_still_make_it() {
    let (mut replica, _) = with_two();
    tell(&mut replica, &Down::Conflict { owner: 0, seq: Seq(1), uid: Uid(5) });
    dial(&mut replica, 2);
    let asked = tell(&mut replica, &ok(0, Vec::new(), &[]));
    let again = commits(&answer(&mut replica, &asked, 0, &[]));
    let kinds: Vec<u8> = again.iter().map(|one| one.parts.to_vec()[0].kind).collect();
    assert!(kinds == [PART_CREATE, PART_CREATE] || kinds == [PART_CREATE, PART_DELTA], "{kinds:?}");
}
