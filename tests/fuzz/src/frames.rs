//! Everything that is read from bytes without an engine: what reads, writes and reads again is the same.

use bytes::Bytes;
use coheap_core::admit::AdmitRow;
use coheap_core::guard::{self, Clocks};
use coheap_core::log::LogEntry;
use coheap_core::segment::engine::Raw;
use coheap_core::segment::layout;
use coheap_core::version::Version;
use coheap_core::wire::codec::Reader;
use coheap_core::wire::frame::restore::{Restore, Restored};
use coheap_core::wire::frame::roll::GenerationHeader;
use coheap_core::wire::frame::up::Hello;
use coheap_core::wire::frame::{Assembly, Bulk, Chunk, Down, SegmentState, Up, message_of, split};
use coheap_core::{edge, limits};

use crate::count::reads;

/// The longest input that one with a repeated piece stands for.
const REPEATED_BYTES_MAX: usize = 1 << 18;

/// The first byte says what the rest is to be. Its highest bit: the rest has a piece that is repeated, as only lists do that
/// show what a decoder allocates for each item.
///
/// ```text
/// input = what:1 bytes | what:1 (head:1 piece:1 times:2) bytes        head and piece: their lengths
/// ```
pub fn frames(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else { return };
    let repeated = if what & 0x80 == 0 { None } else { repeated(rest) };
    read(what & 0x7f, repeated.as_deref().unwrap_or(rest));
}

fn repeated(data: &[u8]) -> Option<Vec<u8>> {
    let ([head, piece, low, high], rest) = data.split_first_chunk::<4>()?;
    let (head, rest) = rest.split_at_checked((*head).into())?;
    let (piece, tail) = rest.split_at_checked((*piece).into())?;
    let times = usize::from(u16::from_le_bytes([*low, *high])).min(REPEATED_BYTES_MAX / piece.len().max(1));
    Some([head, &piece.repeat(times), tail].concat())
}

fn read(what: u8, rest: &[u8]) {
    let (bytes, len) = (Bytes::copy_from_slice(rest), rest.len());
    match what % 15 {
        0 => message(&bytes, Up::decode, Up::encode),
        1 => message(&bytes, Down::decode, Down::encode),
        2 => {
            let Ok(states) = reads("a list of states", len, || SegmentState::decode_list(&bytes)) else { return };
            for state in &states {
                let mut out = Vec::new();
                state.encode(&mut out);
                let out = Bytes::from(out);
                assert_eq!(SegmentState::decode(&out, &mut Reader::new(&out)).as_ref(), Ok(&state));
            }
        }
        3 => {
            let Ok(residents) = reads("residents", len, || Hello::decode_residents(&bytes)) else { return };
            let again = Hello::encode_residents(&residents);
            assert_eq!(Hello::decode_residents(&again), Ok(residents));
        }
        4 => long(&bytes),
        5 => {
            let entry = reads("an entry", len, || LogEntry::decode(&bytes, &mut Reader::new(&bytes)));
            let Ok(entry) = entry else { return };
            let mut out = Vec::new();
            entry.encode(&mut out);
            let out = Bytes::from(out);
            assert_eq!(LogEntry::decode(&out, &mut Reader::new(&out)), Ok(entry));
        }
        6 => {
            let Ok(row) = reads("a line", len, || AdmitRow::decode(&bytes)) else { return };
            let mut out = Vec::new();
            row.encode(&mut out);
            assert_eq!(AdmitRow::decode(&out), Ok(row));
        }
        7 => {
            let Ok(clocks) = reads("a clock table", len, || Clocks::decode(&bytes)) else { return };
            let mut out = Vec::new();
            clocks.encode(&mut out);
            assert_eq!(out, *bytes, "a table has one form");
        }
        8 => {
            let _ = reads("options", len, || edge::options(&bytes));
            let Ok(text) = std::str::from_utf8(&bytes) else { return };
            if let Some(version) = reads("a version", len, || Version::parse(text)) {
                assert_eq!(version.to_text(), text);
            }
        }
        9 => value(rest),
        10 => {
            let Ok(restore) = reads("what is given back", len, || Restore::decode(&bytes)) else { return };
            assert_eq!(restore.encode(), *bytes);
        }
        11 => {
            let Ok(restored) = reads("what was given back", len, || Restored::decode(&bytes)) else { return };
            assert_eq!(restored.encode(), *bytes);
        }
        12 => {
            let Ok(header) = reads("a header", len, || GenerationHeader::decode(rest)) else { return };
            assert_eq!(header.encode(), rest);
        }
        13 => whole(guard::Engine::Yrs, rest),
        _ => whole(guard::Engine::Automerge, rest),
    }
}

/// A whole message: all its frames, there and back.
fn message<F: PartialEq + std::fmt::Debug>(
    message: &Bytes,
    decode: impl Fn(u8, &Bytes) -> Result<Option<F>, coheap_core::wire::codec::Malformed>,
    encode: impl Fn(&F, &mut Vec<u8>),
) {
    let Ok(frames) = reads("a message", message.len(), || split(message)) else { return };
    for (kind, body) in frames {
        let Ok(Some(frame)) = reads("a frame", body.len(), || decode(kind, &body)) else { continue };
        let mut out = Vec::new();
        encode(&frame, &mut out);
        let again: Vec<_> = split(&Bytes::from(message_of(&out))).expect("what is written reads").into_iter().collect();
        let [(kind, body)] = &again[..] else { panic!("one frame became {}", again.len()) };
        assert_eq!(decode(*kind, body), Ok(Some(frame)));
    }
}

/// A whole state: the table that it comes to reads back.
fn whole(engine: guard::Engine, bytes: &[u8]) {
    let Ok(clocks) = reads("a whole state", bytes.len(), || guard::whole(engine, bytes)) else { return };
    let mut out = Vec::new();
    clocks.encode(&mut out);
    assert_eq!(Clocks::decode(&out), Ok(clocks));
}

/// Pieces of long messages: stream, flags and length in a byte each, then the piece.
fn long(bytes: &Bytes) {
    reads("long messages", bytes.len(), || {
        let (mut assembly, mut at) = (Assembly::new(), 0);
        while let Some(head) = bytes.get(at..at + 3) {
            let (stream, flags, len) = (u64::from(head[0] % 80), head[1], usize::from(head[2]));
            let end = (at + 3 + len).min(bytes.len());
            let piece = bytes.slice(at + 3..end);
            at = end;
            let done = if flags & 1 == 0 {
                assembly.head((), Bulk { stream, bytes: piece })
            } else {
                assembly.chunk(&Chunk { stream, last: flags & 2 != 0, bytes: piece })
            };
            match done {
                Ok(Some(((), whole))) => assert!(whole.len() <= limits::LONG_BYTES_MAX),
                Ok(None) => {}
                Err(_) => return,
            }
        }
    });
}

/// Values, names and members as engines keep them.
fn value(bytes: &[u8]) {
    reads("a value", bytes.len(), || {
        if let Some(value) = layout::value_of(Raw::Bytes(bytes.to_vec())) {
            let raw = layout::raw_of(&value);
            assert_eq!(layout::value_of(raw.clone()).map(|value| layout::raw_of(&value)), Some(raw));
        }
    });
    let raw = Raw::Bytes(bytes.to_vec());
    reads("a base", bytes.len(), || layout::each_base_entry(&raw, &mut |_, _| true));
    let _ = reads("a slot", bytes.len(), || layout::Slot::decode(&raw));
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(member) = reads("a member", bytes.len(), || layout::member_of(text)) {
            let code = layout::member_code(&member).expect("a member has a code");
            assert_eq!(layout::member_of(&code).and_then(|member| layout::member_code(&member)), Some(code));
        }
        let _ = layout::parse_name(coheap_core::id::SegmentId::ROOT, text);
        if let Some(number) = layout::parse_short(text) {
            assert_eq!(layout::short(number), text);
        }
    }
}
