//! The wire: golden vectors of every frame, and decoders that are total over all byte strings.
//!
//! `golden/wire/frames.txt` has a line per frame: name, then the message in hex. Lines are only ever added to; a frame kind
//! that no line has fails the test. `COHEAP_GOLDEN=write` appends the lines that are missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coheap_core::commit::{ClaimOf, EngineKind};
use coheap_core::id::{EpochId, GenId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::log::{
    AuthorInfo, Created, LogEntry, RestoredSegment, StoredCommit, StoredPart, StoredQuarantine, StoredRestore,
    StoredRoll,
};
use coheap_core::segment::engine::Raw;
use coheap_core::segment::layout::{self, Slot};
use coheap_core::value::Value;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::down::{Asked, ClaimState, EntryFrame, Fate, Row, Welcome};
use coheap_core::wire::frame::restore::{HeldSegment, Restore, Restored, RestoredFrame, Verdict};
use coheap_core::wire::frame::roll::{GenerationHeader, Included, RollFrame};
use coheap_core::wire::frame::up::{CommitFrame, Have, Hello};
use coheap_core::wire::frame::{
    Bulk, Chunk, Down, PART_CREATE, PART_DELETE, PART_DELTA, PartFrame, SegRef, SegmentState, SegmentStatus, Up,
    new_message, split,
};
use proptest::prelude::*;

const ID: SegmentId = SegmentId(*b"0123456789abcdef");
const REPLICA: ReplicaId = ReplicaId(*b"replica 89abcdef");
const EPOCH: EpochId = EpochId { counter: 3, random: 0x0102_0304_0506_0708 };
const GENERATION: GenId = GenId(*b"generation89abcd");
const UID: Uid = Uid(0x1122_3344_5566_7788);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn parts() -> Vec<PartFrame> {
    vec![
        PartFrame {
            kind: PART_DELTA,
            segment: SegRef::Number(SegmentNumber(0)),
            generation: GenId::ZERO_YRS,
            create: None,
            bytes: bytes("delta"),
        },
        PartFrame {
            kind: PART_CREATE,
            segment: SegRef::Id(ID),
            generation: GenId::ZERO_AUTOMERGE,
            create: Some((EngineKind::Automerge, 1)),
            bytes: bytes("first"),
        },
        PartFrame {
            kind: PART_DELETE,
            segment: SegRef::Number(SegmentNumber(300)),
            generation: GenId(*b"generation89abcd"),
            create: None,
            bytes: Bytes::new(),
        },
        PartFrame {
            kind: 0x90,
            segment: SegRef::Number(SegmentNumber(1)),
            generation: GenId::ZERO_YRS,
            create: None,
            bytes: bytes("opaque"),
        },
    ]
}

fn ups() -> Vec<(&'static str, Up)> {
    let name = |text: &str| text.to_owned();
    vec![
        (
            "hello",
            Up::Hello(Hello {
                features: 5,
                fresh: true,
                restoring: false,
                must_exist: true,
                token: name("token"),
                name: name("näme"),
                heap: name("heap"),
                own: vec![(REPLICA, Seq(7)), (ReplicaId([1; 16]), Seq(0))],
                epoch: EPOCH,
                cut: Offset(1000),
                bulk: Bulk::whole(Bytes::from(Hello::encode_residents(&[(ID, GenId::ZERO_YRS)]))),
            }),
        ),
        (
            "commit",
            Up::Commit(CommitFrame {
                owner: 1,
                seq: Seq(8),
                uid: UID,
                prev: Some(Uid(9)),
                after: Some((0, Seq(3), Uid(4))),
                claim: Some(ClaimOf { group: name("g"), run: name("r"), key: name("k"), grant: 12 }),
                label: Some(name("label")),
                parts: parts().into(),
            }),
        ),
        (
            "commit-plain",
            Up::Commit(CommitFrame {
                owner: 0,
                seq: Seq(1),
                uid: UID,
                prev: None,
                after: None,
                claim: None,
                label: None,
                parts: Vec::new().into(),
            }),
        ),
        (
            "restore",
            Up::Restore(Bulk::whole(Bytes::from(
                Restore {
                    acked: vec![(0, Seq(7), UID)],
                    pending: vec![(0, Seq(8), Uid(9)), (1, Seq(300), Uid(10))],
                    segments: vec![HeldSegment {
                        id: ID,
                        engine: EngineKind::Automerge,
                        layout: 1,
                        generation: GenId::ZERO_AUTOMERGE,
                        header: bytes("header"),
                        state: bytes("state"),
                    }]
                    .into(),
                    known: Vec::new(),
                }
                .encode(),
            ))),
        ),
        (
            "restore-known",
            Up::Restore(Bulk::whole(Bytes::from(
                Restore {
                    acked: vec![(0, Seq(7), UID)],
                    known: vec![(0, Seq(6), Uid(9), 11), (0, Seq(7), UID, 12)],
                    ..Restore::default()
                }
                .encode(),
            ))),
        ),
        ("load", Up::Load { segment: SegRef::Id(ID), nonce: Nonce(2), have: None }),
        (
            "load-have",
            Up::Load {
                segment: SegRef::Number(SegmentNumber(5)),
                nonce: Nonce(2),
                have: Some(Have { epoch: EPOCH, position: Offset(1000), generation: GENERATION }),
            },
        ),
        ("unfollow", Up::Unfollow { segment: SegRef::Number(SegmentNumber(5)) }),
        ("sync", Up::Sync { nonce: Nonce(300) }),
        ("report", Up::Report { segment: SegRef::Number(SegmentNumber(5)), offset: Offset(70_000) }),
        ("chunk-up", Up::Chunk(Chunk { stream: 4, last: true, bytes: bytes("piece") })),
        (
            "join",
            Up::Join {
                nonce: Nonce(1),
                group: name("g"),
                run: name(""),
                total: 16,
                held: vec![(name("k"), 3)].into(),
                done: vec![name("d")].into(),
            },
        ),
        ("leave", Up::Leave { group: name("g"), run: name("r") }),
        ("claim", Up::Claim { nonce: Nonce(9), group: name("g"), run: name("r"), key: name("k") }),
        ("release", Up::Release { group: name("g"), run: name("r"), key: name("k"), grant: 5 }),
        ("presence", Up::Presence { group: name("g"), clear: false, state: bytes("state") }),
        ("ping", Up::Ping { nonce: Nonce(0) }),
    ]
}

fn downs() -> Vec<(&'static str, Down)> {
    let name = |text: &str| text.to_owned();
    let (group, run, key) = (name("g"), name("r"), name("k"));
    vec![
        (
            "ok",
            Down::Ok(Welcome {
                features: 1,
                exists: true,
                restore: false,
                catchup: true,
                time_ms: 1_700_000_000_000,
                lineage: EPOCH,
                epochs: vec![(EPOCH, Offset(0)), (EpochId { counter: 4, random: 1 }, Offset(500))],
                position: Offset(999),
                window: 256,
                ring: vec![(
                    0,
                    vec![
                        Row { seq: Seq(1), uid: UID, fate: Fate::Admitted(0xabcd) },
                        Row { seq: Seq(2), uid: UID, fate: Fate::Void(36) },
                    ],
                )],
                bulk: Bulk { stream: 3, bytes: bytes("catch-up") },
            }),
        ),
        (
            "entry",
            Down::Entry(EntryFrame {
                offset: Offset(77),
                yours: false,
                void: false,
                author: 2,
                seq: Seq(5),
                uid: UID,
                label: Some(name("label")),
                parts: parts().into(),
            }),
        ),
        (
            "entry-yours",
            Down::Entry(EntryFrame {
                offset: Offset(78),
                yours: true,
                void: true,
                author: 0,
                seq: Seq(6),
                uid: UID,
                label: None,
                parts: Vec::new().into(),
            }),
        ),
        (
            "restored",
            Down::Restored(RestoredFrame {
                offset: Offset(79),
                yours: true,
                position: Offset(80),
                bulk: Bulk::whole(Bytes::from(
                    Restored {
                        pending: vec![(REPLICA, Seq(8), Uid(9))],
                        acked: vec![(REPLICA, Seq(7), UID)],
                        segments: vec![(Verdict::Merged, state()), (Verdict::NotGiven, state())].into(),
                    }
                    .encode(),
                )),
            }),
        ),
        (
            "roll",
            Down::Roll(RollFrame {
                offset: Offset(79),
                header: header().encode().into(),
                bulk: Bulk { stream: 4, bytes: bytes("state") },
            }),
        ),
        ("advance", Down::Advance { position: Offset(1 << 40) }),
        ("ack", Down::Ack { owner: 0, seq: Seq(5), position: Offset(80) }),
        (
            "snapshot",
            Down::Snapshot {
                nonce: Nonce(1),
                position: Offset(80),
                bulk: Bulk::whole(bytes("state")),
                onto_copy: false,
            },
        ),
        (
            "snapshot-onto-copy",
            Down::Snapshot {
                nonce: Nonce(1),
                position: Offset(80),
                bulk: Bulk::whole(bytes("state")),
                onto_copy: true,
            },
        ),
        (
            "rebase",
            Down::Rebase {
                owner: 0,
                seq: Seq(5),
                segment: SegRef::Number(SegmentNumber(2)),
                generation: GenId(*b"generation89abcd"),
            },
        ),
        ("conflict", Down::Conflict { owner: 1, seq: Seq(5), uid: UID }),
        ("refused", Down::Refused { owner: 0, seq: Seq(5), uid: UID, code: 36, position: Offset(81) }),
        ("busy", Down::Busy { owner: 0, seq: Seq(6), code: 49, retry_ms: 250 }),
        ("unknown", Down::Unknown { owner: 3 }),
        ("sync-at", Down::SyncAt { nonce: Nonce(300), position: Offset(82) }),
        ("chunk-down", Down::Chunk(Chunk { stream: 3, last: false, bytes: bytes("piece") })),
        ("names", Down::Names(vec![(SegmentNumber(0), SegmentId::ROOT), (SegmentNumber(1), ID)])),
        ("author", Down::Author { number: 2, replica: REPLICA, name: name("näme"), subject: name("subject") }),
        ("joined", Down::Joined { nonce: Nonce(1), group: group.clone(), run: run.clone(), member: 2 }),
        (
            "group",
            Down::Group {
                group: group.clone(),
                run: run.clone(),
                members: vec![REPLICA],
                done: vec![name("d")].into(),
                held: vec![(key.clone(), 0)].into(),
            },
        ),
        (
            "claimed",
            Down::Claimed {
                nonce: Nonce(9),
                group: group.clone(),
                run: run.clone(),
                key: key.clone(),
                grant: 5,
                state: ClaimState::Held,
            },
        ),
        ("lost", Down::Lost { group: group.clone(), run, key, grant: 5 }),
        (
            "member",
            Down::Member {
                group,
                replica: REPLICA,
                gone: true,
                since_ms: 1234,
                name: name("n"),
                subject: name("s"),
                state: bytes("state"),
            },
        ),
        ("pong", Down::Pong { nonce: Nonce(0) }),
        (
            "quarantine",
            Down::Quarantine {
                offset: Offset(83),
                segment: SegRef::Id(ID),
                at: Offset(80),
                client: Some((1 << 52, 300)),
            },
        ),
        (
            "quarantine-of-nobody",
            Down::Quarantine {
                offset: Offset(84),
                segment: SegRef::Number(SegmentNumber(2)),
                at: Offset(81),
                client: None,
            },
        ),
        ("reload", Down::Reload { segment: SegRef::Id(ID), at: Offset(u64::MAX) }),
        ("declined", Down::Declined { asked: Asked::Load, nonce: Nonce(2), code: 38 }),
    ]
}

fn entries() -> Vec<(&'static str, LogEntry)> {
    let part = |kind, creates| StoredPart {
        segment: SegmentNumber(4),
        generation: GenId::ZERO_YRS,
        kind,
        creates,
        bytes: bytes("delta"),
    };
    let created = Created { id: ID, engine: EngineKind::Yrs, layout: 1 };
    vec![
        (
            "log-commit",
            LogEntry::Commit(StoredCommit {
                owner: REPLICA,
                author: Some(AuthorInfo { name: "n".into(), subject: "s".into() }),
                seq: Seq(1),
                uid: UID,
                label: Some("label".into()),
                parts: vec![part(1, Some(created)), part(0, None)].into(),
            }),
        ),
        ("log-void", LogEntry::Void { owner: REPLICA, seq: Seq(2), uid: UID, code: 36 }),
        (
            "log-restored",
            LogEntry::Restored(StoredRestore {
                by: REPLICA,
                pending: vec![(REPLICA, Seq(8), Uid(9))],
                acked: vec![(REPLICA, Seq(7), UID)],
                segments: vec![
                    RestoredSegment {
                        segment: SegmentNumber(4),
                        generation: GenId::ZERO_YRS,
                        creates: Some(created),
                        adopts: false,
                        header: Bytes::new(),
                        state: bytes("state"),
                    },
                    RestoredSegment {
                        segment: SegmentNumber(5),
                        generation: GenId::ZERO_AUTOMERGE,
                        creates: None,
                        adopts: false,
                        header: bytes("header"),
                        state: Bytes::new(),
                    },
                ]
                .into(),
                known: Vec::new(),
            }),
        ),
        (
            "log-restored-known",
            LogEntry::Restored(StoredRestore {
                by: REPLICA,
                pending: Vec::new(),
                acked: vec![(REPLICA, Seq(7), UID)],
                segments: Vec::new().into(),
                known: vec![(REPLICA, Seq(6), Uid(9), 11), (REPLICA, Seq(7), UID, 12)],
            }),
        ),
        (
            "log-restored-adopted",
            LogEntry::Restored(StoredRestore {
                by: REPLICA,
                pending: Vec::new(),
                acked: Vec::new(),
                segments: [None, Some(created)]
                    .into_iter()
                    .map(|creates| RestoredSegment {
                        segment: SegmentNumber(4),
                        generation: GenId([7; 16]),
                        creates,
                        adopts: true,
                        header: bytes("header"),
                        state: bytes("state"),
                    })
                    .collect(),
                known: Vec::new(),
            }),
        ),
        (
            "log-quarantine",
            LogEntry::Quarantine(StoredQuarantine {
                segment: SegmentNumber(4),
                generation: GenId::ZERO_AUTOMERGE,
                offset: Offset(300),
                client: Some((1 << 52, 3)),
                later: StoredQuarantine::behind(Offset(300), [Offset(301), Offset(1000)]),
            }),
        ),
        (
            "log-quarantine-of-nobody",
            LogEntry::Quarantine(StoredQuarantine {
                segment: SegmentNumber(4),
                generation: GenId::ZERO_YRS,
                offset: Offset(7),
                client: None,
                later: Vec::new().into(),
            }),
        ),
        (
            "log-roll",
            LogEntry::Roll(StoredRoll {
                segment: SegmentNumber(300),
                generation: GENERATION,
                parent: GenId::ZERO_YRS,
                header: header().encode().into(),
                snapshot: bytes("snapshot"),
            }),
        ),
    ]
}

fn state() -> SegmentState {
    SegmentState {
        id: ID,
        number: Some(SegmentNumber(7)),
        status: SegmentStatus::Alive,
        engine: EngineKind::Yrs,
        layout: 1,
        generation: GenId::ZERO_YRS,
        header: Bytes::new(),
        snapshot: bytes("snapshot"),
        deltas: vec![bytes("d1"), Bytes::new()].into(),
    }
}

/// A segment of a later generation.
fn rolled() -> SegmentState {
    SegmentState { generation: GENERATION, header: header().encode().into(), ..state() }
}

fn header() -> GenerationHeader {
    let line = |last, voids: &[u64]| Included { last: Seq(last), voids: voids.iter().copied().map(Uid).collect() };
    let included = BTreeMap::from([(ReplicaId([1; 16]), line(300, &[])), (REPLICA, line(7, &[0x1122, 9]))]).into();
    GenerationHeader { generation: GENERATION, parent: GenId::ZERO_YRS, partial: false, included }
}

/// All vectors as this version writes them.
fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let mut out = Vec::new();
    for (name, up) in ups() {
        let mut message = new_message();
        up.encode(&mut message);
        out.push((name, message));
    }
    for (name, down) in downs() {
        let mut message = new_message();
        down.encode(&mut message);
        out.push((name, message));
    }
    for (name, entry) in entries() {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        out.push((name, bytes));
    }
    let mut bytes = Vec::new();
    state().encode(&mut bytes);
    out.push(("segment-state", bytes));
    let mut bytes = Vec::new();
    rolled().encode(&mut bytes);
    out.push(("segment-state-rolled", bytes));
    out.push(("generation-header", header().encode()));
    out
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/wire/frames.txt")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes all");
        out
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).expect("hex") as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn stored() -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(' ').expect("a name and hex")).map(|(n, h)| (n.to_owned(), unhex(h))).collect()
}

#[test]
fn golden_frames_are_written_and_read_as_ever() {
    if std::env::var("COHEAP_GOLDEN").is_ok_and(|mode| mode == "write") {
        let known = stored();
        let mut text = std::fs::read_to_string(file()).unwrap_or_default();
        for (name, bytes) in vectors().iter().filter(|(name, _)| !known.contains_key(*name)) {
            writeln!(text, "{name} {}", hex(bytes)).expect("a string takes all");
        }
        std::fs::write(file(), text).expect("written");
    }
    let stored = stored();
    for (name, bytes) in vectors() {
        assert_eq!(stored.get(name).map(|b| hex(b)), Some(hex(&bytes)), "{name}");
    }
    for (name, up) in ups() {
        let frames = split(&Bytes::from(stored[name].clone())).expect("a message").collect::<Vec<_>>();
        assert_eq!(frames.len(), 1);
        assert_eq!(Up::decode(frames[0].0, &frames[0].1), Ok(Some(up)), "{name}");
    }
    for (name, down) in downs() {
        let frames = split(&Bytes::from(stored[name].clone())).expect("a message").collect::<Vec<_>>();
        assert_eq!(frames.len(), 1);
        assert_eq!(Down::decode(frames[0].0, &frames[0].1), Ok(Some(down)), "{name}");
    }
    for (name, entry) in entries() {
        let whole = Bytes::from(stored[name].clone());
        let mut reader = Reader::new(&whole);
        assert_eq!(LogEntry::decode(&whole, &mut reader), Ok(entry), "{name}");
        assert!(reader.is_empty());
    }
    let whole = Bytes::from(stored["segment-state"].clone());
    assert_eq!(SegmentState::decode(&whole, &mut Reader::new(&whole)), Ok(state()));
    let whole = Bytes::from(stored["segment-state-rolled"].clone());
    assert_eq!(SegmentState::decode(&whole, &mut Reader::new(&whole)), Ok(rolled()));
    assert_eq!(GenerationHeader::decode(&stored["generation-header"]), Ok(header()));
}

#[test]
fn every_required_frame_kind_has_a_golden_vector() {
    let kinds = |frames: Vec<Vec<u8>>| -> Vec<u8> { frames.iter().map(|message| message[1]).collect() };
    let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut message = new_message();
        encode(&mut message);
        message
    };
    let up = kinds(ups().iter().map(|(_, frame)| encoded(&|m| frame.encode(m))).collect());
    let down = kinds(downs().iter().map(|(_, frame)| encoded(&|m| frame.encode(m))).collect());
    for kind in 0..0x80_u8 {
        // A kind that is known at all refuses an empty body for another reason than its kind.
        let unknown = |error: String| error.contains("unknown kind");
        let known_up = !Up::decode(kind, &Bytes::new()).is_err_and(|e| unknown(e.to_string()));
        let known_down = !Down::decode(kind, &Bytes::new()).is_err_and(|e| unknown(e.to_string()));
        assert_eq!(known_up, up.contains(&kind), "up {kind:#x}");
        assert_eq!(known_down, down.contains(&kind), "down {kind:#x}");
    }
}

/// Shows all decoders a byte string; whatever reads must be written alike.
fn decode_everything(bytes: &Bytes) {
    if let Ok(frames) = split(bytes) {
        for (kind, body) in frames {
            decode_frame(kind, &body);
        }
    }
    for kind in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0x80, 0xff] {
        decode_frame(kind, bytes);
    }
    for kind in (0x41..=0x58).chain([0xc0]) {
        decode_frame(kind, bytes);
    }
    if let Ok(state) = SegmentState::decode(bytes, &mut Reader::new(bytes)) {
        let mut out = Vec::new();
        state.encode(&mut out);
        assert!(bytes.starts_with(&out));
    }
    let _ = SegmentState::decode_list(bytes);
    if let Ok(restore) = Restore::decode(bytes) {
        assert_eq!(&restore.encode(), bytes);
    }
    if let Ok(restored) = Restored::decode(bytes) {
        assert_eq!(&restored.encode(), bytes);
    }
    if let Ok(header) = GenerationHeader::decode(bytes) {
        assert_eq!(&header.encode(), bytes);
    }
    let _ = Hello::decode_residents(bytes);
    if let Ok(entry) = LogEntry::decode(bytes, &mut Reader::new(bytes)) {
        let mut out = Vec::new();
        entry.encode(&mut out);
        assert!(bytes.starts_with(&out));
    }
    if let Ok(value) = Value::decode_tagged(bytes) {
        let mut out = Vec::new();
        value.encode_tagged(&mut out);
        assert_eq!(Value::decode_tagged(&out), Ok(value));
    }
    let raw = Raw::Bytes(bytes.to_vec());
    if let Some(slot) = Slot::decode(&raw) {
        assert_eq!(Slot::decode(&slot.encode()), Some(slot));
    }
    layout::each_base_entry(&raw, &mut |_, value| {
        let _ = Value::decode_tagged(value);
        true
    });
    let _ = layout::value_of(raw);
    let text = String::from_utf8_lossy(bytes);
    for id in [ID, SegmentId::ROOT] {
        if let Some((object, sign, rest)) = layout::parse_name(id, &text) {
            assert_eq!(layout::name(&layout::prefix(id, object), sign, rest), text);
        }
    }
    let _ = layout::parse_short(&text);
    let _ = layout::life_key(&text);
    if let Some(member) = layout::member_of(&text) {
        assert!(layout::member_code(&member).is_some());
    }
}

fn decode_frame(kind: u8, body: &Bytes) {
    if let Ok(Some(frame)) = Up::decode(kind, body) {
        let mut message = new_message();
        frame.encode(&mut message);
        let frames = split(&Bytes::from(message)).expect("what is written reads").collect::<Vec<_>>();
        assert_eq!(Up::decode(frames[0].0, &frames[0].1), Ok(Some(frame)));
    }
    if let Ok(Some(frame)) = Down::decode(kind, body) {
        let mut message = new_message();
        frame.encode(&mut message);
        let frames = split(&Bytes::from(message)).expect("what is written reads").collect::<Vec<_>>();
        assert_eq!(Down::decode(frames[0].0, &frames[0].1), Ok(Some(frame)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoders_take_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_everything(&Bytes::from(bytes));
    }

    #[test]
    fn decoders_take_damaged_vectors(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let vectors = vectors();
        let mut bytes = vectors[pick.index(vectors.len())].1.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        decode_everything(&Bytes::from(bytes.clone()));
        // And as the body of its own kind.
        decode_everything(&Bytes::from(bytes.get(3..).unwrap_or_default().to_vec()));
    }
}
