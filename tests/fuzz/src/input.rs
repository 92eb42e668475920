//! An input as a list of pieces, so that one that the fuzzer has cut or spliced still is a list.
//!
//! ```text
//! input = stage:1 piece*
//! piece = tag:1 length:2 (little-endian) bytes          the last one may be cut off: it is as long as there are bytes
//! ```

/// One piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// What it is, to its target.
    pub tag: u8,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Takes an input apart: its stage and its pieces.
pub fn parse(data: &[u8]) -> Option<(u8, Vec<Piece>)> {
    let (stage, mut rest) = data.split_first()?;
    let mut pieces = Vec::new();
    while let Some((&[tag, low, high], tail)) = rest.split_first_chunk::<3>() {
        let (bytes, tail) = tail.split_at(usize::from(u16::from_le_bytes([low, high])).min(tail.len()));
        pieces.push(Piece { tag, bytes: bytes.to_vec() });
        rest = tail;
    }
    Some((*stage, pieces))
}

/// Puts one together; pieces that are too long are left out.
pub fn build(stage: u8, pieces: &[Piece]) -> Vec<u8> {
    let mut out = vec![stage];
    for piece in pieces {
        if let Ok(len) = u16::try_from(piece.bytes.len()) {
            out.push(piece.tag);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&piece.bytes);
        }
    }
    out
}
