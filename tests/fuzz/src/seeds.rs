//! Writes the first corpus, a folder per target: golden bytes, valid traffic, and what honest replicas would do next. The
//! fuzzer goes on from there; `cargo xtask fuzz --keep` minimises and packs what it has found.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use coheap_core::commit::EngineKind;
use coheap_core::id::SegmentId;
use coheap_core::segment::Segment;
use coheap_fuzz::input::{Piece, build};
use coheap_fuzz::talk::talk;
use coheap_fuzz::{STAGES, stage};

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds FOLDER");
        std::process::exit(2);
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/wire/frames.txt");
    frames(&folder.join("frames"), &std::fs::read_to_string(golden)?)?;
    guards(&folder.join("guard_yrs"), EngineKind::Yrs)?;
    guards(&folder.join("guard_automerge"), EngineKind::Automerge)?;
    let talk = talk();
    said(&folder.join("replica"), &talk.replica)?;
    said(&folder.join("relay"), &talk.relay)?;
    for (n, packed) in talk.packed.iter().enumerate() {
        put(&folder.join("packed"), &format!("{n}"), packed)?;
    }
    stores(&folder.join("store"))
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(name), bytes)
}

/// Golden vectors as what they are, and cut into everything else that is read.
fn frames(folder: &Path, golden: &str) -> std::io::Result<()> {
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, hex)) = line.split_once(' ') else { continue };
        let digits: Vec<u8> = hex.bytes().filter_map(|c| char::from(c).to_digit(16)).map(|d| d as u8).collect();
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        for what in 0..15_u8 {
            // The body of a frame is one of the other things, now and then.
            let skipped = if what < 2 { 0 } else { 3.min(bytes.len()) };
            put(folder, &format!("{name}-{what}"), &[&[what], &bytes[skipped..]].concat())?;
        }
    }
    for (n, piece) in talk().replica.iter().enumerate().filter(|(_, piece)| piece.tag == 2) {
        put(folder, &format!("down-{n}"), &[&[1], &piece.bytes[..]].concat())?;
    }
    for (n, piece) in talk().relay.iter().enumerate().filter(|(_, piece)| piece.tag & 7 == 1) {
        put(folder, &format!("up-{n}"), &[&[0], &piece.bytes[..]].concat())?;
    }
    let kinds = [EngineKind::Yrs, EngineKind::Automerge];
    for (n, stage) in kinds.iter().flat_map(|kind| (0..STAGES).map(|n| stage(*kind, n))).enumerate() {
        let mut table = vec![7];
        stage.clocks.encode(&mut table);
        put(folder, &format!("clocks-{n}"), &table)?;
    }
    for (n, (what, kind)) in (13_u8..).zip(kinds).flat_map(|of| (0..STAGES).map(move |n| (n, of))) {
        let document = Segment::decode(SegmentId::ROOT, kind, kind.generation_zero(), 1, &stage(kind, n).snapshot, &[]);
        let whole = document.expect("a stage").whole();
        put(folder, &format!("whole-{what}-{n}"), &[&[what], &whole[..]].concat())?;
    }
    // Lists of very many small items: parts of a commit, of an entry and of a stored one, states, names, deltas of a state; runs of a
    // clock table; items of a state; deltas of one of automerge.
    let runs = [&[1, 1][..], &[1; 16], &[0x81, 0x80, 2], &[0x81, 0x80, 2], &[0]].concat();
    let lists: [(u8, &[u8], &[u8], u16); 9] = [
        (0, &[0, 2, 0x8d, 0x80, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0x80, 0x20], &[2, 1, 0, 0], 4096),
        (1, &[0, 0x42, 0x8e, 0x80, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0x80, 0x20], &[2, 1, 0, 0], 4096),
        (0, &[0], &[0x80, 0], 60_000),
        (2, &[0x80, 0x80, 2], &[0; 23], 32_768),
        (3, &[0x80, 0x80, 2], &[0; 17], 32_768),
        (10, &[0, 0, 0x80, 0x80, 2], &[0; 21], 32_768),
        (7, &runs, &[5, 4], 16_384),
        (13, &[1, 0x80, 0x80, 4, 5, 0, 8, 1, 1, b'q', 1, 126], &[0x81, 5, 0, 1], 65_535),
        (14, &[0x80, 0], &[1, 0], 65_535),
    ];
    for (n, (what, head, piece, times)) in lists.into_iter().enumerate() {
        let [low, high] = times.to_le_bytes();
        let lengths = [what | 0x80, head.len() as u8, piece.len() as u8, low, high];
        // Nothing is deleted in a state.
        let tail: &[u8] = if what == 13 { &[0] } else { &[] };
        put(folder, &format!("list-{n}"), &[&lengths, head, piece, tail].concat())?;
    }
    put(folder, "value", &[&[9], &b"nAAAAAAAAAAAAAAAA"[..]].concat())
}

/// What the authors of every stage would have written next, one by one and together; deltas by themselves, and whole states.
fn guards(folder: &Path, kind: EngineKind) -> std::io::Result<()> {
    for number in 0..STAGES {
        let next = &stage(kind, number).next;
        let piece = |(author, delta): &(u8, Bytes)| Piece { tag: *author, bytes: delta.to_vec() };
        let pieces: Vec<Piece> = next.iter().map(piece).collect();
        for count in [1, 3, pieces.len()] {
            let some = pieces.get(..count).unwrap_or(&pieces);
            put(folder, &format!("next-{number}-{count}"), &build(number as u8, some))?;
        }
        for (n, piece) in pieces.iter().enumerate().take(4) {
            put(folder, &format!("delta-{number}-{n}"), &[&[0xff], &piece.bytes[..]].concat())?;
        }
        let stored = &stage(kind, number).snapshot;
        let document = Segment::decode(SegmentId::ROOT, kind, kind.generation_zero(), 1, stored, &[]);
        put(folder, &format!("state-{number}"), &[&[0xff], &document.expect("a stage").whole()[..]].concat())?;
    }
    Ok(())
}

/// What was said next, at every point of a conversation.
fn said(folder: &Path, all: &[Piece]) -> std::io::Result<()> {
    for at in 0..all.len() {
        for count in [1, 4] {
            put(folder, &format!("{at}-{count}"), &build(at as u8, &all[at..all.len().min(at + count)]))?;
        }
    }
    Ok(())
}

fn stores(folder: &Path) -> std::io::Result<()> {
    for kind in 0..10_u8 {
        put(folder, &format!("row-{kind}"), &[&[0, kind], &[0; 60][..]].concat())?;
        put(folder, &format!("sealed-{kind}"), &[1, kind, 0, 3, 0, 7, kind, 1, 0, 0x80, 9, kind, 2, 4, 0xc0, 0])?;
        put(folder, &format!("file-{kind}"), &[2, kind * 16, kind * 8, 0, 0, 1 << (kind % 8)])?;
    }
    Ok(())
}
