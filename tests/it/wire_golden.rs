//! The wire: golden vectors of every frame, and decoders that are total over all byte strings.
//!
//! `golden/wire/frames.txt` has a line per frame: name, then the message in hex. Lines are only ever added to; a frame kind
//! that no line has fails the test. `COHEAP_GOLDEN=write` appends the lines that are missing.

mod vectors;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coheap_core::id::SegmentId;
use coheap_core::log::LogEntry;
use coheap_core::segment::engine::Raw;
use coheap_core::segment::layout::{self, Slot};
use coheap_core::value::Value;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::restore::{Restore, Restored};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Down, SegmentState, Up, new_message, split};
use proptest::prelude::*;

use self::vectors::{ID, downs, entries, header, rolled, state, ups, vectors};

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
