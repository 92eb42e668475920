//! G1, G2, G4, R2e, D6 at the relay: a segment goes over to another generation.

use bytes::Bytes;
use coheap_core::guard::RELAY;
use coheap_core::id::*;
use coheap_core::log::LogEntry;
use coheap_core::relay::{Config, ConnId, Examined, Failing, Input, NotRolled, Output};
use coheap_core::segment::Segment;
use coheap_core::time::Time;
use coheap_core::wire::code::Code;
use coheap_core::wire::frame::roll::{GenerationHeader, RollFrame};
use coheap_core::wire::frame::up::{CommitFrame, Hello};
use coheap_core::wire::frame::{Down, SegRef, SegmentState, Up};

use crate::world::*;

fn rolls(frames: &[Down]) -> Vec<RollFrame> {
    let rolls = frames.iter().filter_map(|frame| if let Down::Roll(roll) = frame { Some(roll.clone()) } else { None });
    rolls.collect()
}

fn rebases(frames: &[Down]) -> Vec<(u64, GenId)> {
    let rebases = frames.iter().filter_map(|frame| match frame {
        Down::Rebase { seq, generation, .. } => Some((seq.0, *generation)),
        _ => None,
    });
    rebases.collect()
}

fn state(bulk: &Bytes) -> SegmentState {
    SegmentState::decode(bulk, &mut coheap_core::wire::codec::Reader::new(bulk)).unwrap()
}

/// Replica 1 has written three commits to a segment, and is connected; replica 2 follows it.
fn begun() -> (World, Writer, ConnId, ConnId) {
    let mut world = World::new();
    let mut writer = Writer::new(1);
    let a = world.join(1);
    for _ in 0..3 {
        let commit = writer.commit(&[seg(0)]);
        world.send(a, &[commit]);
    }
    let b = world.join(2);
    world.send(b, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    world.take(a);
    world.take(b);
    (world, writer, a, b)
}

fn roll(world: &mut World) {
    world.input(Input::Roll { segment: seg(0) });
}

/// A commit against this generation, of an engine that begins there.
fn against(writer: &mut Writer, generation: GenId) -> CommitFrame {
    let mut frame = writer.frame(&[seg(0)]);
    change_part(&mut frame, |part| part.generation = generation);
    frame
}

#[test]
fn w6_a_roll_is_one_transaction_and_is_told_when_it_is_durable_with_the_lines_of_own_ids() {
    let (mut world, writer, a, b) = begun();
    world.prompt = false;
    roll(&mut world);
    assert_eq!(world.unwritten.len(), 1);
    let append = &world.unwritten[0];
    assert_eq!(
        (append.entries.len(), append.generations.len(), append.segments.len(), append.clocks.len()),
        (1, 1, 1, 1)
    );
    assert_eq!(append.generations[0].position, Offset(4));
    let generation = append.segments[0].1.generation;
    assert!(!generation.is_zero());
    assert!(rolls(&world.take(a)).is_empty() && rolls(&world.take(b)).is_empty() && world.rolled.is_empty());
    world.write_all();
    assert_eq!(world.rolled, [Ok(generation)]);
    let LogEntry::Roll(entry) = world.disk.entry(3) else { panic!("no roll") };
    let whole = GenerationHeader::decode(&entry.header).unwrap();
    assert_eq!((whole.generation, whole.parent), (generation, GenId::ZERO_YRS));
    assert_eq!(whole.included.iter().map(|(owner, _)| owner).collect::<Vec<_>>(), [replica(1)]);
    // G4: each is sent its own lines.
    let (to_a, to_b) = (rolls(&world.take(a)).remove(0), rolls(&world.take(b)).remove(0));
    let header = GenerationHeader::decode(&to_a.header).unwrap();
    assert!(header.includes(replica(1), Seq(3), writer.prev) && !header.includes(replica(1), Seq(4), Uid(7)));
    assert!(GenerationHeader::decode(&to_b.header).unwrap().included.is_empty());
    let sent = state(&to_b.bulk.bytes);
    assert_eq!((sent.id, sent.generation, sent.deltas.len()), (seg(0), generation, 0));
    // What it shows is what was written.
    let values = |snapshot: &[u8], deltas: &[Bytes]| {
        let engine = coheap_core::commit::EngineKind::Yrs;
        Segment::decode(seg(0), engine, GenId::ZERO_YRS, 1, snapshot, deltas).unwrap().values()
    };
    assert_eq!(values(&sent.snapshot, &[]), values(&[], &[writer.whole(seg(0))]));
}

#[test]
fn r2e_the_old_generation_gets_rebase_but_what_was_admitted_is_a_duplicate() {
    let (mut world, mut writer, a, _) = begun();
    let mut again = Writer::new(1);
    let third = (0..3).map(|_| again.frame(&[seg(0)])).last().unwrap();
    roll(&mut world);
    let generation = world.rolled[0].unwrap();
    world.take(a);
    // R2a comes first: a resend of what was admitted is no matter of generations.
    world.send(a, &[Up::Commit(third)]);
    let frames = world.take(a);
    assert_eq!((acked(&frames), rebases(&frames)), (Some(3), vec![]));
    let head = world.relay.head();
    let fourth = writer.frame(&[seg(0)]);
    let fifth = writer.commit(&[seg(1)]);
    world.send(a, &[Up::Commit(fourth.clone()), fifth.clone()]);
    let frames = world.take(a);
    assert_eq!((rebases(&frames), acked(&frames)), (vec![(4, generation)], None));
    assert_eq!((world.relay.head(), world.closed(a)), (head, None), "nothing is admitted, the gap is no error");
    // Made again, with the same number and uid, it is admitted, and so is what lies behind it.
    let mut fresh = Writer::new(9);
    let mut redone = CommitFrame { parts: against(&mut fresh, generation).parts, ..fourth };
    redone.prev = Some(Uid(1_000_003));
    world.send(a, &[Up::Commit(redone), fifth]);
    assert_eq!(acked(&world.take(a)), Some(5));
}

#[test]
fn r10_nobody_goes_on_as_the_writer_of_a_generation_and_nobody_is_called_as_relays_are() {
    let (mut world, _, a, _) = begun();
    roll(&mut world);
    let generation = world.rolled[0].unwrap();
    let (_, of, table) = world.disk.recover().clocks.remove(0);
    let clocks = coheap_core::guard::Clocks::decode(&table).unwrap();
    let clients: Vec<_> = clocks.iter().map(|(client, owner, _)| (client, owner)).collect();
    assert_eq!((of, clients), (generation, vec![(generation.writer(), RELAY)]));
    assert!(world.closed(a).is_none());
    let conn = world.open();
    world.send(conn, &[Up::Hello(Hello { own: vec![(RELAY, Seq(0))], ..hello(5) })]);
    assert_eq!(world.closed(conn), Some(Code::BadFrame.close_code()));
}

#[test]
fn g1_a_commit_that_comes_first_is_in_the_generation() {
    let (mut world, mut writer, a, b) = begun();
    world.slow = true;
    roll(&mut world);
    assert_eq!(world.made.len(), 1);
    let fourth = writer.commit(&[seg(0)]);
    world.send(a, &[fourth]);
    let (ticket, made) = world.made.remove(0);
    world.input(Input::RollMade { ticket, roll: made });
    assert!(world.rolled.is_empty() && world.made.len() == 1, "it is made again");
    // A late answer to what was asked first means nothing.
    let (again, made) = world.made.remove(0);
    world.input(Input::RollMade { ticket, roll: made.clone() });
    assert!(world.rolled.is_empty());
    world.input(Input::RollMade { ticket: again, roll: made });
    assert!(world.rolled[0].is_ok());
    let roll = rolls(&world.take(b)).remove(0);
    assert_eq!(roll.offset, Offset(4));
    assert!(format!("{:?}", world.disk.entry(4)).contains("Roll"));
    let LogEntry::Roll(entry) = world.disk.entry(4) else { panic!("no roll") };
    assert!(GenerationHeader::decode(&entry.header).unwrap().includes(replica(1), Seq(4), Uid(1_000_004)));
}

#[test]
fn g1_a_segment_that_is_written_to_all_the_time_is_left_alone() {
    let (mut world, mut writer, a, _) = begun();
    world.slow = true;
    roll(&mut world);
    for _ in 0..20 {
        let Some((ticket, made)) = world.made.pop() else { break };
        let commit = writer.commit(&[seg(0)]);
        world.send(a, &[commit]);
        world.input(Input::RollMade { ticket, roll: made });
    }
    assert_eq!(world.rolled, [Err(NotRolled::Busy)]);
    assert!(world.made.is_empty());
}

#[test]
fn g1_the_generation_is_there_after_a_restart_for_loads_and_catch_ups() {
    let (mut world, mut writer, a, _) = begun();
    roll(&mut world);
    let generation = world.rolled[0].unwrap();
    let epoch = world.disk.recovered.epochs[0].0;
    world.take(a);
    world.crash();
    // A replica that still has the old one gets states, with the lines of its ids.
    let back_again = world.open();
    world.send(back_again, &[Up::Hello(back(1, epoch, 3, &[seg(0)]))]);
    let (welcome, states) = world.welcome(back_again);
    assert!(welcome.catchup && !welcome.restore);
    assert_eq!(states[0].generation, generation);
    assert!(GenerationHeader::decode(&states[0].header).unwrap().includes(replica(1), Seq(3), writer.prev));
    let c = world.join(3);
    world.take(c);
    world.send(c, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
    let frames = world.take(c);
    let Some(Down::Snapshot { bulk, .. }) = frames.first() else { panic!("{frames:?}") };
    let loaded = state(&bulk.bytes);
    assert_eq!((loaded.generation, loaded.deltas.len()), (generation, 0));
    assert!(GenerationHeader::decode(&loaded.header).unwrap().included.is_empty());
    // And commits are judged by it.
    let fourth = writer.commit(&[seg(0)]);
    world.send(back_again, &[fourth]);
    assert_eq!(rebases(&world.take(back_again)), [(4, generation)]);
}

#[test]
fn g2_what_is_not_rolled_says_why() {
    let (mut world, ..) = begun();
    world.input(Input::Roll { segment: seg(9) });
    world.merges = Merges::Fail;
    roll(&mut world);
    world.merges = Merges::Never;
    roll(&mut world);
    roll(&mut world);
    assert_eq!(world.rolled, [Err(NotRolled::Unknown), Err(NotRolled::Failed), Err(NotRolled::Busy)]);
    let mut lists = World::new();
    let a = lists.join(1);
    let mut segment = Segment::new(seg(0), coheap_core::commit::EngineKind::Yrs, 77).unwrap();
    let value = coheap_core::edit::Literal::List(Vec::new());
    let wish = coheap_core::edit::Wish::Set { object: coheap_core::edit::Handle(0), key: "l".into(), value };
    let delta = segment.edit(vec![wish], Uid(5), &mut One).unwrap().delta;
    let frame = Writer::new(1).frame_of(vec![create(seg(0), delta)]);
    lists.send(a, &[Up::Commit(frame)]);
    roll(&mut lists);
    assert_eq!(lists.rolled, [Err(NotRolled::Sequences)]);
}

struct One;

impl coheap_core::segment::write::Draw for One {
    fn draw(&mut self) -> u64 {
        1
    }
}

#[test]
fn d6_no_roll_soon_after_a_start_nor_after_a_restore() {
    let (mut world, ..) = begun();
    world.config = |config: Config| Config { rolls_from: Time(600_000), ..config };
    world.crash();
    roll(&mut world);
    world.pass(600_000);
    roll(&mut world);
    assert_eq!(world.rolled[0], Err(NotRolled::Held));
    assert!(world.rolled[1].is_ok(), "{:?}", world.rolled);
    // A replica that is asked for what the log has lost: what it gives back is in nobody's line [X15].
    let (mut world, _, _, _) = begun();
    let epoch = world.disk.recovered.epochs[0].0;
    world.roll_back(1);
    let a = world.open();
    world.send(a, &[Up::Hello(back(1, epoch, 3, &[seg(0)]))]);
    assert!(world.welcome(a).0.restore);
    roll(&mut world);
    assert_eq!(world.rolled, [Err(NotRolled::Held)]);
}

#[test]
fn r8_a_fold_and_a_roll_of_one_segment_do_not_meet() {
    let (mut world, mut writer, a, _) = begun();
    let big = "x".repeat(300_000);
    let delta = writer.delta_with(seg(0), &big);
    let frame = writer.frame_of(vec![part(seg(0), delta)]);
    world.send(a, &[Up::Commit(frame)]);
    assert_eq!(world.folds.len(), 1, "a fold is under way");
    roll(&mut world);
    assert!(world.rolled.is_empty(), "the roll waits for it");
    let (segment, _) = world.folds[0];
    world.input(Input::Folded { segment, folded: None, floor: Offset(0), holder: None });
    assert!(world.rolled[0].is_ok());
}

fn report(at: u64) -> Up {
    Up::Report { segment: SegRef::Id(seg(0)), offset: Offset(at) }
}

fn reload(at: u64) -> Down {
    Down::Reload { segment: SegRef::Id(seg(0)), at: Offset(at) }
}

/// The offsets of the entries that came with a part, or as a Quarantine or a Roll.
fn came(frames: &[Down]) -> Vec<u64> {
    let offsets = frames.iter().filter_map(|frame| match frame {
        Down::Entry(entry) => (!entry.parts.is_empty()).then_some(entry.offset.0),
        Down::Quarantine { offset, .. } => Some(offset.0),
        Down::Roll(roll) => Some(roll.offset.0),
        _ => None,
    });
    offsets.collect()
}

#[test]
fn r12_the_next_generation_is_without_what_was_left_out_and_bars_nobody() {
    let (mut world, mut writer, a, b) = begun();
    let c = world.join(3);
    let foreign = Writer::new(3).commit(&[seg(0)]);
    world.send(c, &[foreign]);
    world.replays = Replays::FailsAt(1);
    world.send(b, &[report(1)]);
    world.replays = Replays::Well;
    let next = writer.commit(&[seg(0)]);
    world.send(a, &[next]);
    assert!(matches!(world.take(a)[..], [.., Down::Refused { seq: Seq(4), code: 37, .. }]));
    let epoch = world.relay_epoch();
    roll(&mut world);
    let generation = world.rolled[0].unwrap();
    let LogEntry::Roll(entry) = world.disk.entry(6) else { panic!("{:?}", world.disk.entry(6)) };
    let with = |deltas: &[Bytes], generation: GenId, snapshot: &[u8]| {
        let engine = coheap_core::commit::EngineKind::Yrs;
        let document = Segment::decode(seg(0), engine, generation, 1, snapshot, deltas).unwrap();
        format!("{:?}", document.values())
    };
    let left = [Writer::new(1).delta(seg(0)), Writer::new(3).delta(seg(0))];
    assert_eq!(with(&[], generation, &entry.snapshot), with(&left, GenId::ZERO_YRS, &[]));
    // Whoever was barred writes again, under whatever client id, and begins anew.
    let mut fresh = Writer::new(1);
    let mut again = writer.frame(&[seg(0)]);
    again.prev = Some(Uid(1_000_004).voided());
    again.parts = against(&mut fresh, generation).parts;
    world.send(a, &[Up::Commit(again)]);
    assert_eq!(acked(&world.take(a)), Some(5));
    // What was left out of entries stays out of them, for who is behind.
    world.crash();
    let (_, of, table) = world.disk.recover().clocks.remove(0);
    let clocks = coheap_core::guard::Clocks::decode(&table).unwrap();
    let owners: Vec<_> = clocks.iter().map(|(_, owner, _)| owner).collect();
    assert_eq!((of, clocks.len(), clocks.skipped().collect()), (generation, 2, vec![Offset(1), Offset(2)]));
    assert!(owners.contains(&RELAY) && owners.contains(&replica(1)), "{owners:?}");
    let d = world.open();
    world.send(d, &[Up::Hello(back(9, epoch, 1, &[seg(0)]))]);
    let (welcome, states) = world.welcome(d);
    assert!(welcome.catchup && states[0].generation == generation && states[0].deltas.len() == 1);
}

#[test]
fn r12_a_report_of_an_entry_below_the_generation_is_answered_with_reload() {
    let (mut world, mut writer, a, b) = begun();
    roll(&mut world);
    let generation = world.rolled[0].unwrap();
    let mut fourth = writer.frame(&[seg(0)]);
    fourth.parts = against(&mut Writer::new(4), generation).parts;
    world.send(a, &[Up::Commit(fourth)]);
    world.take(b);
    world.replays = Replays::Waits;
    world.send(b, &[report(2)]);
    assert_eq!((world.take(b), world.examined.len()), (vec![reload(2)], 0));
    // Of the generation's own entries, the worker is asked.
    world.send(b, &[report(4)]);
    assert_eq!((world.take(b), world.examined.len()), (vec![], 1));
}

#[test]
fn r12_what_fails_in_a_generation_that_is_over_is_not_left_out_of_the_next() {
    let (mut world, _, _, b) = begun();
    world.replays = Replays::Waits;
    world.send(b, &[report(0)]);
    let Some(Output::Examine { ticket, .. }) = world.waiting.take() else { panic!("nothing is replayed") };
    roll(&mut world);
    assert!(world.rolled[0].is_ok());
    world.take(b);
    let parts = (0..3).map(|offset| (Offset(offset), 10)).collect();
    let examined = Examined::Fails(Failing { client: Some((1112, 0)), parts });
    world.input(Input::Examined { ticket, examined });
    assert_eq!((world.relay.head(), world.take(b)), (Offset(4), vec![]));
    world.pass(10_000);
    world.answer_examine(Replays::Well);
    assert_eq!(world.take(b), [reload(0)]);
}

#[test]
fn r12_a_quarantine_that_comes_first_is_in_the_generation() {
    let (mut world, _, _, b) = begun();
    world.slow = true;
    roll(&mut world);
    world.replays = Replays::FailsAt(1);
    world.send(b, &[report(1)]);
    let (ticket, made) = world.made.remove(0);
    world.input(Input::RollMade { ticket, roll: made });
    assert!(world.rolled.is_empty() && world.made.len() == 1, "it is made again");
    let (ticket, made) = world.made.remove(0);
    world.input(Input::RollMade { ticket, roll: made });
    assert!(world.rolled[0].is_ok());
    assert_eq!(came(&world.take(b)), [3, 4]);
}

#[test]
fn r12_a_generation_that_the_worker_cannot_make_is_looked_into() {
    let (mut world, ..) = begun();
    world.merges = Merges::Fail;
    roll(&mut world);
    assert_eq!(world.rolled, [Err(NotRolled::Failed)]);
    assert_eq!(world.examined, [(SegmentNumber(0), Offset(3))]);
}

/// X5: who is told Rebase waits for the Roll, so it is told when there is one.
#[test]
fn x5_a_commit_that_met_a_roll_that_was_never_written_comes_again_as_it_is() {
    for full in [false, true] {
        let mut world = World::new();
        world.fill(1, seg(0), 2);
        let mut writer = Writer::new(2);
        let conn = world.join(2);
        world.send(conn, &[Up::Load { segment: SegRef::Id(seg(0)), nonce: Nonce(1), have: None }]);
        world.take(conn);
        world.prompt = false;
        roll(&mut world);
        let commit = writer.commit(&[seg(0)]);
        world.send(conn, std::slice::from_ref(&commit));
        fn rebase(frame: &Down) -> bool {
            matches!(frame, Down::Rebase { .. })
        }
        assert!(!world.take(conn).iter().any(rebase), "the Roll may never be written");
        if full {
            world.fail(true);
            let frames = world.take(conn);
            assert!(frames.iter().any(|frame| matches!(frame, Down::Busy { seq: Seq(1), .. })), "{frames:?}");
            world.prompt = true;
            world.pass(1_000);
            world.send(conn, &[commit]);
            assert_eq!(acked(&world.take(conn)), Some(1));
        } else {
            world.write_all();
            let frames = world.take(conn);
            let place = |of: fn(&Down) -> bool| frames.iter().position(of);
            let (rolled, told) = (place(|frame| matches!(frame, Down::Roll(_))), place(rebase));
            assert!(rolled.is_some() && rolled < told, "{frames:?}");
        }
    }
}
