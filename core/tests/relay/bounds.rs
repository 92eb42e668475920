//! What one connection may cost: follows, groups, and bytes that it does not read. Whoever goes past a bound is told so, or is
//! closed with a number; nobody waits for an answer that does not come.

use bytes::Bytes;
use coheap_core::commit::ClaimOf;
use coheap_core::id::*;
use coheap_core::limits::*;
use coheap_core::relay::{ConnId, Input};
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::down::Asked;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Bulk, Down, SegRef, Up};

use crate::world::*;

/// More segments than [`seg`] has names for; none of them is one of those.
fn far(n: usize) -> SegmentId {
    let mut id = [0xee; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SegmentId(id)
}

fn load(segment: SegmentId, nonce: u64) -> Up {
    Up::Load { segment: SegRef::Id(segment), nonce: Nonce(nonce), have: None }
}

fn declined(frames: &[Down]) -> Vec<(Asked, Nonce, u64)> {
    let declined = frames.iter().filter_map(|frame| match frame {
        Down::Declined { asked, nonce, code } => Some((*asked, *nonce, *code)),
        _ => None,
    });
    declined.collect()
}

fn code(code: Code) -> u64 {
    u64::from(code.number())
}

/// A connection that follows as much as one may.
fn full(world: &mut World, id: u8) -> ConnId {
    let residents: Vec<_> = (0..FOLLOWS_MAX).map(|n| (far(n), GenId::ZERO_YRS)).collect();
    let bytes = Bytes::from(Hello::encode_residents(&residents));
    let head = Bulk { stream: 1, bytes: bytes.slice(..CHUNK_BYTES_MAX) };
    let mut frames = vec![Up::Hello(Hello { bulk: head, ..hello(id) })];
    let mut rest = bytes.slice(CHUNK_BYTES_MAX..);
    while !rest.is_empty() {
        let bytes = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
        frames.push(Up::Chunk(coheap_core::wire::frame::Chunk { stream: 1, last: rest.is_empty(), bytes }));
    }
    let conn = world.open();
    for frame in frames {
        world.send(conn, &[frame]);
    }
    world.take(conn);
    conn
}

fn join_group(group: &str, run: &str, nonce: u64) -> Up {
    let (group, run) = (group.to_owned(), run.to_owned());
    Up::Join { nonce: Nonce(nonce), group, run, total: 1, held: Vec::new().into(), done: Vec::new().into() }
}

fn claim(group: &str, key: &str, nonce: u64) -> Up {
    Up::Claim { nonce: Nonce(nonce), group: group.into(), run: "r".into(), key: key.into() }
}

/// A key as long as one may be.
fn long_key(n: usize) -> String {
    format!("{n:0CLAIM_NAME_BYTES_MAX$}")
}

fn claimed(frames: &[Down]) -> usize {
    frames.iter().filter(|frame| matches!(frame, Down::Claimed { .. })).count()
}

#[test]
fn a_load_past_what_one_connection_may_follow_is_declined_and_the_connection_goes_on() {
    let mut world = World::new();
    let a = full(&mut world, 1);
    world.send(a, &[load(seg(5), 7), load(far(9), 8)]);
    let frames = world.take(a);
    assert_eq!(declined(&frames), [(Asked::Load, Nonce(7), code(Code::TooMany))]);
    assert!(frames.iter().any(|frame| matches!(frame, Down::Snapshot { nonce: Nonce(8), .. })), "it follows that one");
    // Declined is not followed.
    let mut writer = Writer::new(2);
    let b = world.join(2);
    let commit = writer.commit(&[seg(5)]);
    world.send(b, &[commit]);
    assert_eq!(offsets(&world.take(a)), [] as [u64; 0]);
    world.send(a, &[Up::Unfollow { segment: SegRef::Id(far(0)) }, load(seg(5), 9)]);
    assert!(world.take(a).iter().any(|frame| matches!(frame, Down::Snapshot { nonce: Nonce(9), .. })));
    assert_eq!(world.closed(a), None);
}

#[test]
fn loads_of_one_segment_past_the_bound_are_declined_while_the_others_wait() {
    let mut world = World::new();
    world.fill(2, seg(0), 1);
    let a = world.join(1);
    world.take(a);
    world.reads = false;
    // It has no room: everything it asks for waits.
    while world.links[&a].written < QUEUED_BYTES_MAX / 8 {
        world.send(a, &vec![Up::Sync { nonce: Nonce(u64::MAX) }; 10_000]);
    }
    world.take(a);
    for n in 0..=FOLLOWS_MAX as u64 / 4096 {
        world.send(a, &(0..4096).map(|at| load(seg(0), n * 4096 + at)).collect::<Vec<_>>());
    }
    let declined = declined(&world.take(a));
    assert_eq!((declined.len(), declined[0].1.0), (4096, FOLLOWS_MAX as u64));
    assert_eq!(world.closed(a), None);
}

#[test]
fn r11_a_commit_that_creates_more_segments_than_its_connection_may_follow_is_refused() {
    let mut world = World::new();
    let a = full(&mut world, 1);
    let mut writer = Writer::new(1);
    // One that it follows already, though nobody has made it, is no more than before.
    let known = writer.commit(&[far(3)]);
    world.send(a, &[known]);
    assert_eq!(acked(&world.take(a)), Some(1));
    let frame = writer.frame(&[seg(1)]);
    world.send(a, &[Up::Commit(frame.clone())]);
    let refused =
        Down::Refused { owner: 0, seq: Seq(2), uid: frame.uid, code: code(Code::TooMany), position: Offset(2) };
    assert_eq!(world.take(a).last(), Some(&refused));
    assert_eq!(world.disk.recovered.segments.len(), 1);
    // What is refused is not followed, and with room for it the line goes on.
    let mut again = writer.frame(&[seg(2)]);
    again.prev = Some(frame.uid.voided());
    world.send(a, &[Up::Unfollow { segment: SegRef::Id(far(0)) }, Up::Commit(again)]);
    assert_eq!(acked(&world.take(a)), Some(3));
}

#[test]
fn s27_a_join_or_a_claim_into_too_many_groups_is_declined_and_leaves_nothing_behind() {
    let mut world = World::new();
    let a = world.join(1);
    for n in 0..GROUPS_PER_CONN_MAX {
        world.send(a, &[join_group(&format!("g{n}"), "", n as u64)]);
    }
    assert_eq!(declined(&world.take(a)), []);
    world.send(a, &[join_group("more", "~mine", 100), claim("other", "k", 101)]);
    let too_many = code(Code::TooMany);
    let both = [(Asked::Join, Nonce(100), too_many), (Asked::Claim, Nonce(101), too_many)];
    assert_eq!(declined(&world.take(a)), both);
    // The run that it named is not the group's: it was never there.
    let b = world.join(2);
    world.take(b);
    world.send(b, &[join_group("more", "", 1)]);
    let frames = world.take(b);
    assert!(matches!(&frames[0], Down::Joined { run, .. } if run != "~mine"), "{frames:?}");
    // Those it is in go on, and room made is room.
    world.send(a, &[Up::Leave { group: "g0".into(), run: String::new() }, join_group("g1", "", 102)]);
    world.send(a, &[join_group("more", "", 103)]);
    assert_eq!(declined(&world.take(a)), []);
}

#[test]
fn s27_a_heap_keeps_a_bounded_number_of_groups() {
    let mut world = World::new();
    let rounds = GROUPS_MAX / GROUPS_PER_CONN_MAX;
    for round in 0..rounds {
        let conn = world.open();
        let own = ReplicaId([vec![1; 8], (round as u64).to_be_bytes().to_vec()].concat().try_into().unwrap());
        world.send(conn, &[Up::Hello(Hello { own: vec![(own, Seq(0))], ..hello(1) })]);
        let joins: Vec<_> = (0..GROUPS_PER_CONN_MAX).map(|n| join_group(&format!("{round}/{n}"), "r", 1)).collect();
        world.send(conn, &joins);
        assert_eq!(declined(&world.take(conn)), [], "round {round}");
    }
    let late = world.join(9);
    world.send(late, &[join_group("one more", "r", 5), join_group("0/0", "r", 6)]);
    let frames = world.take(late);
    assert_eq!(declined(&frames), [(Asked::Join, Nonce(5), code(Code::TooMany))]);
    assert!(frames.iter().any(|frame| matches!(frame, Down::Joined { nonce: Nonce(6), .. })));
}

#[test]
fn s27_a_claim_that_a_group_has_no_room_for_is_declined() {
    let mut world = World::new();
    let a = world.join(1);
    let asked = 3_000;
    for n in 0..asked {
        world.send(a, &[claim("g", &long_key(n), n as u64)]);
    }
    let frames = world.take(a);
    let declined = declined(&frames);
    assert_eq!(claimed(&frames), (1 << 20) / CLAIM_NAME_BYTES_MAX);
    assert_eq!(claimed(&frames) + declined.len(), asked);
    assert!(declined.iter().all(|(asked, _, why)| *asked == Asked::Claim && *why == code(Code::TooMany)));
}

#[test]
fn s27_a_join_whose_answer_could_not_be_sent_is_declined() {
    let mut world = World::new();
    let a = world.join(1);
    world.take(a);
    let (group, run) = (long_key(1), long_key(2));
    let held: Vec<_> = (0..8_000).map(|n| (n.to_string(), 1)).collect();
    world.send(a, &[Up::Join { nonce: Nonce(3), group, run, total: 1, held: held.into(), done: Vec::new().into() }]);
    assert_eq!(world.take(a), [Down::Declined { asked: Asked::Join, nonce: Nonce(3), code: code(Code::TooMany) }]);
}

#[test]
fn s27_what_waits_for_the_end_of_the_grace_time_is_bounded_and_all_of_it_is_answered() {
    let mut world = World::new();
    world.fill(50, seg(7), 1);
    world.crash();
    let a = world.join(1);
    world.take(a);
    let asked = 20_000;
    for n in (0..asked).step_by(1000) {
        let claims: Vec<_> = (n..n + 1000).map(|n| claim("g", &long_key(n), n as u64)).collect();
        world.send(a, &claims);
    }
    let at_once = declined(&world.take(a));
    assert!(!at_once.is_empty() && at_once.iter().all(|(_, _, why)| *why == code(Code::Rate)), "{}", at_once.len());
    assert!((asked - at_once.len()) * CLAIM_NAME_BYTES_MAX <= DEFERRED_BYTES_MAX);
    world.pass(3_100);
    let later = world.take(a);
    assert_eq!(at_once.len() + declined(&later).len() + claimed(&later), asked);
    assert!(claimed(&later) > 0);
}

#[test]
fn s27_claims_that_only_commits_name_are_remembered_as_far_as_there_is_room() {
    let mut world = World::new();
    world.fill(50, seg(7), 1);
    let a = world.join(1);
    let mut writer = Writer::new(1);
    let n_max = 2_100;
    let mut commits: Vec<_> = (0..n_max).map(|_| writer.frame(&[seg(0)])).collect();
    for chunk in commits.chunks(100) {
        let chunk: Vec<_> = chunk.iter().cloned().map(Up::Commit).collect();
        world.send(a, &chunk);
    }
    // They come again, to a relay that does not know what they ended.
    world.crash();
    let a = world.join(1);
    world.send(a, &[join_group("g", "r", 1)]);
    for (n, commit) in commits.iter_mut().enumerate() {
        commit.claim = Some(ClaimOf { group: "g".into(), run: "r".into(), key: long_key(n), grant: 1 });
    }
    for chunk in commits.chunks(100) {
        let chunk: Vec<_> = chunk.iter().cloned().map(Up::Commit).collect();
        world.send(a, &chunk);
    }
    world.pass(100);
    let frames = world.take(a);
    assert_eq!(acked(&frames), Some(n_max as u64));
    let done = frames.iter().filter_map(|frame| if let Down::Group { done, .. } = frame { Some(done) } else { None });
    // As many as a Group frame has room for.
    assert_eq!(done.last().unwrap().len(), (1 << 20) / CLAIM_NAME_BYTES_MAX);
}

/// Asks for answers without reading any, until it is closed; what waited for it then.
fn flood(world: &mut World, conn: ConnId, message: &[Up]) -> usize {
    world.reads = false;
    world.links.get_mut(&conn).unwrap().deaf = true;
    for _ in 0..200 {
        world.send(conn, message);
        if world.closed(conn).is_some() {
            break;
        }
    }
    assert_eq!(world.closed(conn), Some(4013));
    world.links[&conn].written
}

#[test]
fn who_asks_and_asks_and_never_reads_is_closed_before_much_waits_for_it() {
    let floods: [(&str, Vec<Up>); 4] = [
        ("pings", vec![Up::Ping { nonce: Nonce(u64::MAX) }; 100_000]),
        ("syncs", vec![Up::Sync { nonce: Nonce(u64::MAX) }; 100_000]),
        ("claims", vec![claim("g", &long_key(1), 1); 3_000]),
        ("joins", vec![join_group(&long_key(1), &long_key(2), 1); 1_500]),
    ];
    for (name, message) in floods {
        let mut world = World::new();
        let (a, other) = (world.join(1), world.join(2));
        let held = flood(&mut world, a, &message);
        assert!(held <= QUEUED_BYTES_MAX + FRAME_BYTES_MAX, "{name}: {held} bytes");
        world.reads = true;
        world.take(other);
        world.send(other, &[Up::Ping { nonce: Nonce(3) }]);
        assert_eq!(
            world.take(other).last(),
            Some(&Down::Pong { nonce: Nonce(3) }),
            "{name}: the others are not disturbed"
        );
    }
}

#[test]
fn what_is_asked_for_in_one_message_is_answered_in_few_pieces() {
    let mut world = World::new();
    let a = world.join(1);
    let before = world.sends;
    world.send(a, &vec![Up::Ping { nonce: Nonce(1) }; 100_000]);
    assert!(world.sends - before < 10, "{} pieces", world.sends - before);
    assert_eq!(world.take(a).iter().filter(|frame| matches!(frame, Down::Pong { .. })).count(), 100_000);
}

#[test]
fn who_sends_and_sends_while_nothing_is_written_is_closed() {
    let mut world = World::new();
    let a = world.join(1);
    world.prompt = false;
    let commit = Writer::new(1).commit(&[seg(0)]);
    let again = vec![commit; 4_096];
    for _ in 0..=OWED_MAX / 4_096 {
        world.send(a, &again);
    }
    assert_eq!(world.closed(a), Some(4013));
}

#[test]
fn loads_of_unknown_segments_wait_for_who_does_not_read() {
    let mut world = World::new();
    let a = world.join(1);
    world.take(a);
    world.reads = false;
    let asked = 60_000;
    for n in (0..asked).step_by(10_000) {
        world.send(a, &(n..n + 10_000).map(|n| load(far(n), n as u64)).collect::<Vec<_>>());
    }
    let held = world.links[&a].written;
    assert!(held < QUEUED_BYTES_MAX / 8, "{held} bytes wait");
    let mut seen = 0;
    loop {
        seen += world.take(a).iter().filter(|frame| matches!(frame, Down::Snapshot { .. })).count();
        if world.read(a) == 0 {
            break;
        }
    }
    assert_eq!((seen, world.closed(a)), (asked, None));
}

#[test]
fn s27_a_member_that_does_not_read_is_told_the_newest_state_of_its_group_when_it_does() {
    let mut world = World::new();
    let (a, slow) = (world.join(1), world.join(2));
    world.send(slow, &[join_group("g", "r", 1)]);
    world.pass(100);
    world.take(slow);
    world.reads = false;
    // The group grows, and each of its frames with it.
    let mut keys = 0;
    for _ in 0..100 {
        world.send(a, &(keys..keys + 20).map(|n| claim("g", &long_key(n), n as u64)).collect::<Vec<_>>());
        keys += 20;
        world.pass(60);
        world.read(a);
    }
    let held = world.links[&slow].written;
    assert!(held < QUEUED_BYTES_MAX / 4, "{held} bytes wait");
    while world.read(slow) > 0 {}
    let frames = world.take(slow);
    let newest =
        frames.iter().rev().find_map(|frame| if let Down::Group { held, .. } = frame { Some(held) } else { None });
    assert_eq!(newest.unwrap().len(), keys);
    assert_eq!(world.closed(slow), None);
}

#[test]
fn presence_in_too_many_groups_is_declined_and_the_connection_goes_on() {
    let mut world = World::new();
    let a = world.join(1);
    world.take(a);
    let show = |n: usize| Up::Presence { group: format!("p{n}"), clear: false, state: Bytes::from_static(b"x") };
    for n in 0..=GROUPS_PER_CONN_MAX {
        world.send(a, &[show(n)]);
    }
    assert_eq!(declined(&world.take(a)), [(Asked::Presence, Nonce(0), code(Code::TooMany))]);
    assert_eq!(world.closed(a), None);
}

#[test]
fn presence_of_many_comes_to_a_newcomer_as_fast_as_it_reads() {
    let mut world = World::new();
    let shows = |n: u8| Up::Presence { group: "p".into(), clear: false, state: vec![n; PRESENCE_BYTES_MAX].into() };
    let members: Vec<_> = (1..=120).map(|n| (n, world.join(n))).collect();
    for (n, member) in &members {
        world.send(*member, &[shows(*n)]);
    }
    world.pass(100);
    world.reads = false;
    let late = world.join(250);
    world.take(late);
    world.send(late, &[Up::Presence { group: "p".into(), clear: true, state: Bytes::new() }]);
    let held = world.links[&late].written;
    assert!(held < QUEUED_BYTES_MAX / 8, "{held} bytes wait");
    // One of those it has not been told of goes, and one changes.
    world.input(Input::Closed { conn: members[118].1 });
    world.send(members[119].1, &[shows(77)]);
    world.pass(100);
    while world.read(late) > 0 {}
    let mut seen = std::collections::BTreeMap::new();
    for frame in world.take(late) {
        if let Down::Member { replica, gone, state, .. } = frame {
            if gone {
                seen.remove(&replica)
            } else {
                seen.insert(replica, state[0])
            };
        }
    }
    assert_eq!(seen.len(), 119);
    assert_eq!(seen[&replica(120)], 77);
    assert!(seen.iter().all(|(replica, state)| *state == replica.0[0] || *state == 77));
}
