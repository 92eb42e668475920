//! The engine behind a segment: three name spaces (registers, sequences, texts), nothing of objects. `SEGMENT.md` §1.
//!
//! The trait is small on purpose: every rule of the value model lives above it, once, so two engines cannot differ in it.
//! `segment.rs` is its only caller, and hands it only bytes that the guard has passed. Next: `yrs.rs`, then `layout.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::commit::EngineKind;
use crate::guard::GuardError;

/// A scalar as engines keep it. Each comes back as it was put in. Equal is what is stored alike, as with
/// [`Value`](crate::value::Value): NaN is NaN.
#[derive(Clone, Debug)]
pub enum Raw {
    /// null
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer within ±2⁵³.
    Int(i64),
    /// Any other double but −0.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Raw::Null, Raw::Null) => true,
            (Raw::Bool(a), Raw::Bool(b)) => a == b,
            (Raw::Int(a), Raw::Int(b)) => a == b,
            (Raw::Float(a), Raw::Float(b)) => a.to_bits() == b.to_bits(),
            (Raw::Str(a), Raw::Str(b)) => a == b,
            (Raw::Bytes(a), Raw::Bytes(b)) => a == b,
            _ => false,
        }
    }
}

/// One step of how a sequence or text changed, from its start.
#[derive(Clone, PartialEq, Debug)]
pub enum Step<T> {
    /// This many elements stay.
    Keep(u32),
    /// These come.
    Insert(T),
    /// This many go.
    Remove(u32),
}

/// What one application of deltas changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Registers: their new value, `None` where they went.
    pub registers: BTreeMap<String, Option<Raw>>,
    /// Watched sequences.
    pub sequences: BTreeMap<String, Vec<Step<Vec<Raw>>>>,
    /// Watched texts; lengths in UTF-16 units.
    pub texts: BTreeMap<String, Vec<Step<String>>>,
}

/// Why an engine did not do it. The segment it happened in is to be rebuilt or quarantined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The bytes are no document or delta of this engine.
    #[error("engine bytes do not decode: {0}")]
    Decode(String),
    /// The guard does not let the bytes through to the engine.
    #[error("the guard refuses a delta: {0}")]
    Refused(#[from] GuardError),
    /// The engine could not apply or edit.
    #[error("engine failed: {0}")]
    Failed(String),
}

/// Reads during a transaction.
pub trait Read {
    /// A register.
    fn get(&self, key: &str) -> Option<Raw>;
}

/// Reads and writes inside one transaction. Indexes are the caller's to check.
pub trait Write: Read {
    /// Sets a register.
    fn put(&mut self, key: &str, value: Raw);
    /// Removes a register, if it is there.
    fn remove(&mut self, key: &str);
    /// Inserts into a sequence; `index` ≤ its length.
    fn insert(&mut self, sequence: &str, index: u32, values: Vec<Raw>);
    /// Removes from a sequence; the range is within it.
    fn cut(&mut self, sequence: &str, index: u32, count: u32);
    /// Replaces in a text, UTF-16 units; the range is within it.
    fn splice(&mut self, text: &str, index: u32, removed: u32, inserted: &str);
}

/// One document.
pub trait Engine {
    /// Which engine.
    fn kind(&self) -> EngineKind;
    /// Reads registers.
    fn read(&self, reading: &mut dyn FnMut(&dyn Read));
    /// Every register, in no order.
    fn scan(&self, each: &mut dyn FnMut(&str, Raw));
    /// Every sequence that holds or held something, and every text (as one string), by name, in no order.
    fn scan_runs(&self, each: &mut dyn FnMut(&str, Vec<Raw>));
    /// A sequence's elements; from now on its changes are reported.
    fn watch_sequence(&mut self, name: &str) -> Vec<Raw>;
    /// A text; from now on its changes are reported.
    fn watch_text(&mut self, name: &str) -> String;
    /// Applies deltas in one transaction.
    fn apply(&mut self, deltas: &[Bytes]) -> Result<Changes, EngineError>;
    /// Edits in one transaction; gives its delta.
    fn transact(&mut self, editing: &mut dyn FnMut(&mut dyn Write)) -> Result<Bytes, EngineError>;
    /// The whole document.
    fn encode(&self) -> Vec<u8>;
    /// The whole document as a delta: whoever applies it, once or more often, holds what this one holds. The guard judges it
    /// as a state.
    fn whole(&self) -> Vec<u8>;
    /// How far each client id has written; `None` of an engine that takes in nothing that stands behind a gap.
    fn clocks(&self) -> Option<BTreeMap<u64, u32>>;
    /// What this document has taken in, be it shown or not: equal for documents that have taken in the same.
    fn holds(&self) -> Vec<u8>;
}
