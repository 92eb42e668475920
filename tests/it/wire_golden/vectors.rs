//! One value of every frame and of everything that is in one, with every field and every choice of it: what the golden vectors
//! are made of. Only added to.

use std::collections::BTreeMap;

use bytes::Bytes;
use coheap_core::commit::{ClaimOf, EngineKind};
use coheap_core::id::{EpochId, GenId, Nonce, Offset, ReplicaId, SegmentId, SegmentNumber, Seq, Uid};
use coheap_core::log::{
    AuthorInfo, Created, LogEntry, RestoredSegment, StoredCommit, StoredPart, StoredQuarantine, StoredRestore,
    StoredRoll,
};
use coheap_core::wire::frame::down::{Asked, ClaimState, EntryFrame, Fate, Row, Welcome};
use coheap_core::wire::frame::restore::{HeldSegment, Restore, Restored, RestoredFrame, Verdict};
use coheap_core::wire::frame::roll::{GenerationHeader, Included, RollFrame};
use coheap_core::wire::frame::up::{CommitFrame, Have, Hello};
use coheap_core::wire::frame::{
    Bulk, Chunk, Down, PART_CREATE, PART_DELETE, PART_DELTA, PartFrame, SegRef, SegmentState, SegmentStatus, Up,
    new_message,
};

pub(super) const ID: SegmentId = SegmentId(*b"0123456789abcdef");
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

/// What a replica says.
pub(super) fn ups() -> Vec<(&'static str, Up)> {
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

/// What a relay says.
pub(super) fn downs() -> Vec<(&'static str, Down)> {
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
                forgotten: Offset(0),
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
            "ok-forgotten",
            Down::Ok(Welcome {
                features: 0,
                exists: true,
                restore: false,
                catchup: false,
                time_ms: 1_700_000_000_000,
                lineage: EPOCH,
                epochs: vec![(EPOCH, Offset(0))],
                position: Offset(999),
                forgotten: Offset(300),
                window: 256,
                ring: Vec::new(),
                bulk: Bulk::default(),
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

/// What a log has.
pub(super) fn entries() -> Vec<(&'static str, LogEntry)> {
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

pub(super) fn state() -> SegmentState {
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
pub(super) fn rolled() -> SegmentState {
    SegmentState { generation: GENERATION, header: header().encode().into(), ..state() }
}

pub(super) fn header() -> GenerationHeader {
    let line = |last, voids: &[u64]| Included { last: Seq(last), voids: voids.iter().copied().map(Uid).collect() };
    let included = BTreeMap::from([(ReplicaId([1; 16]), line(300, &[])), (REPLICA, line(7, &[0x1122, 9]))]).into();
    GenerationHeader { generation: GENERATION, parent: GenId::ZERO_YRS, partial: false, included }
}

/// All vectors as this version writes them.
pub(super) fn vectors() -> Vec<(&'static str, Vec<u8>)> {
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
