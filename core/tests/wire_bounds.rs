//! Every length that a frame says has a maximum (`limits.rs`): so long is read, one more is no frame, however much of it is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bytes::Bytes;
use coheap_core::commit::ClaimOf;
use coheap_core::id::{EpochId, GenId, Nonce, Offset, ReplicaId, SegmentId, Seq, Uid};
use coheap_core::limits;
use coheap_core::wire::codec::Malformed;
use coheap_core::wire::frame::up::{CommitFrame, Hello};
use coheap_core::wire::frame::{Assembly, Bulk, Chunk, PART_DELETE, PartFrame, SegRef, Up, message_of, split};

fn read(frame: &Up) -> Result<(), Malformed> {
    let mut frames = Vec::new();
    frame.encode(&mut frames);
    let (kind, body) = split(&Bytes::from(message_of(&frames))).unwrap().next().unwrap();
    let read = Up::decode(kind, &body)?;
    assert_eq!(read.as_ref(), Some(frame));
    Ok(())
}

fn text(len: usize) -> String {
    "x".repeat(len)
}

fn hello() -> Hello {
    Hello {
        features: 0,
        fresh: true,
        restoring: false,
        must_exist: false,
        token: String::new(),
        name: String::new(),
        heap: text(1),
        own: vec![(ReplicaId([1; 16]), Seq(0))],
        epoch: EpochId::default(),
        cut: Offset(0),
        bulk: Bulk::default(),
    }
}

fn commit() -> CommitFrame {
    let (owner, seq, uid, parts) = (0, Seq(1), Uid(1), Vec::new().into());
    CommitFrame { owner, seq, uid, prev: None, after: None, claim: None, label: None, parts }
}

fn part(n: usize) -> PartFrame {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(n as u64).to_le_bytes());
    let (segment, generation) = (SegRef::Id(SegmentId(id)), GenId::ZERO_YRS);
    PartFrame { kind: PART_DELETE, segment, generation, create: None, bytes: Bytes::new() }
}

#[test]
fn what_is_longer_than_it_may_be_is_no_frame() {
    let (group, run) = (String::new, String::new);
    let claim =
        |group, run, key| Up::Commit(CommitFrame { claim: Some(ClaimOf { group, run, key, grant: 1 }), ..commit() });
    type Of = Box<dyn Fn(usize) -> Up>;
    let name = limits::CLAIM_NAME_BYTES_MAX;
    let fields: Vec<(&str, usize, Of)> = vec![
        ("token", limits::TOKEN_BYTES_MAX, Box::new(|n| Up::Hello(Hello { token: text(n), ..hello() }))),
        ("name", limits::NAME_BYTES_MAX, Box::new(|n| Up::Hello(Hello { name: text(n), ..hello() }))),
        ("heap", limits::HEAP_NAME_BYTES_MAX, Box::new(|n| Up::Hello(Hello { heap: text(n), ..hello() }))),
        (
            "own ids",
            limits::OWN_IDS_MAX,
            Box::new(|n| {
                Up::Hello(Hello { own: (0..n).map(|n| (ReplicaId([n as u8; 16]), Seq(0))).collect(), ..hello() })
            }),
        ),
        ("label", limits::LABEL_BYTES_MAX, Box::new(|n| Up::Commit(CommitFrame { label: Some(text(n)), ..commit() }))),
        (
            "parts",
            limits::PARTS_MAX,
            Box::new(|n| Up::Commit(CommitFrame { parts: (0..n).map(part).collect(), ..commit() })),
        ),
        ("claim", name, Box::new(move |n| claim(text(n), run(), text(1)))),
        ("claim", name, Box::new(move |n| claim(group(), text(n), text(1)))),
        ("claim", name, Box::new(move |n| claim(group(), run(), text(n)))),
        ("name", name, Box::new(move |n| Up::Leave { group: text(n), run: run() })),
        ("name", name, Box::new(move |n| Up::Claim { nonce: Nonce(1), group: group(), run: run(), key: text(n) })),
        (
            "presence",
            limits::PRESENCE_BYTES_MAX,
            Box::new(move |n| Up::Presence { group: group(), clear: false, state: vec![0; n].into() }),
        ),
        (
            "chunk",
            limits::CHUNK_BYTES_MAX,
            Box::new(|n| Up::Chunk(Chunk { stream: 1, last: false, bytes: vec![0; n].into() })),
        ),
    ];
    for (what, most, of) in fields {
        assert_eq!(read(&of(most)), Ok(()), "{what}");
        assert_eq!(read(&of(most + 1)), Err(Malformed::Limit(what)), "{what}");
    }
    let message = |len: usize| split(&vec![0; len].into()).map(drop);
    assert_eq!(message(limits::FRAME_BYTES_MAX + 1), Err(Malformed::Limit("message")));
    assert_ne!(message(limits::FRAME_BYTES_MAX), Err(Malformed::Limit("message")));
}

/// Who opens one long message after another, or goes on with one without an end, is not put up with.
#[test]
fn long_messages_are_so_many_and_so_long_and_no_longer() {
    let piece = Bytes::from(vec![0; limits::CHUNK_BYTES_MAX]);
    let mut assembly = Assembly::new();
    let open = |stream| Bulk { stream, bytes: piece.slice(..1) };
    for stream in 1..=limits::LONG_STREAMS_MAX as u64 {
        assert_eq!(assembly.head(stream, open(stream)), Ok(None));
    }
    assert_eq!(assembly.head(0, open(1 << 40)), Err(Malformed::Limit("streams")));
    let chunk = |last, bytes: &Bytes| Chunk { stream: 1, last, bytes: bytes.clone() };
    for _ in 0..limits::LONG_BYTES_MAX / piece.len() - 1 {
        assert_eq!(assembly.chunk(&chunk(false, &piece)), Ok(None));
    }
    let rest = piece.slice(1..);
    assert_eq!(assembly.chunk(&chunk(false, &rest)), Ok(None));
    assert_eq!(assembly.chunk(&chunk(true, &piece.slice(..1))), Err(Malformed::Limit("long message")));
    let whole = assembly.chunk(&chunk(true, &Bytes::new())).unwrap().map(|(_, bytes)| bytes.len());
    assert_eq!(whole, Some(limits::LONG_BYTES_MAX));
}
