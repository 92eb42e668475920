//! The engine `yrs`: registers in the root map `r`, a root array per sequence, a root text per text.
//!
//! Deltas are v1 updates of one transaction each; whole documents are v2 (`SEGMENT.md` §7). Changes are learnt from
//! observers, which stand still while this replica itself edits. It never sees bytes that the guard has not passed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use yrs::types::{Change, Delta, EntryChange};
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Any, Array, ArrayRef, ClientID, Doc, GetString, Map, MapRef, Number, Observable, OffsetKind, Options, Out, ReadTxn,
    StateVector, Text, TextRef, Transact, TransactionMut, Update, WriteTxn,
};

use super::engine::{Changes, Engine, EngineError, Raw, Read, Step, Write};
use crate::commit::EngineKind;
use crate::value::exact_integer;

/// What observers write down while deltas of others are applied; `None` while this replica edits.
type Notes = Rc<RefCell<Option<Changes>>>;

/// A yrs document.
pub struct YrsEngine {
    doc: Doc,
    registers: MapRef,
    sequences: BTreeMap<String, ArrayRef>,
    texts: BTreeMap<String, TextRef>,
    notes: Notes,
}

impl std::fmt::Debug for YrsEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("YrsEngine").field("client", &self.doc.client_id()).finish_non_exhaustive()
    }
}

impl YrsEngine {
    /// An empty document that writes as `writer` (53 bits).
    pub fn new(writer: u64) -> Self {
        let guid = Arc::from("");
        let mut options = Options::with_guid_and_client_id(guid, ClientID::new(writer));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let registers = doc.get_or_insert_map("r");
        let notes: Notes = Rc::new(RefCell::new(None));
        let sink = Rc::clone(&notes);
        registers.observe("coheap", move |txn, event| {
            let mut notes = sink.borrow_mut();
            let Some(changes) = notes.as_mut() else { return };
            for (key, change) in event.keys(txn) {
                let value = match change {
                    EntryChange::Inserted(out) | EntryChange::Updated(_, out) => raw_of(out),
                    EntryChange::Removed(_) => None,
                };
                changes.registers.insert(key.to_string(), value);
            }
        });
        YrsEngine { doc, registers, sequences: BTreeMap::new(), texts: BTreeMap::new(), notes }
    }

    /// A document from its encoding, writing as `writer`.
    pub fn decode(writer: u64, snapshot: &[u8]) -> Result<Self, EngineError> {
        let engine = YrsEngine::new(writer);
        let update = Update::decode_v2(snapshot).map_err(|e| EngineError::Decode(e.to_string()))?;
        let mut txn = engine.doc.try_transact_mut().map_err(|e| EngineError::Failed(e.to_string()))?;
        txn.apply_update(update).map_err(|e| EngineError::Failed(e.to_string()))?;
        complete(&txn)?;
        drop(txn);
        Ok(engine)
    }
}

/// yrs keeps what builds on what is not here for later, says nothing, and encodes it with everything else (R12).
fn complete(txn: &impl ReadTxn) -> Result<(), EngineError> {
    if txn.has_missing_updates() {
        return Err(EngineError::Failed("a change builds on changes that are not here".into()));
    }
    Ok(())
}

fn clocks_of(state: &StateVector) -> BTreeMap<u64, u32> {
    state.iter().map(|(client, clock)| (client.get(), *clock)).collect()
}

/// A scalar of ours as yrs keeps it.
fn any_of(value: Raw) -> Any {
    match value {
        Raw::Null => Any::Null,
        Raw::Bool(value) => Any::Bool(value),
        Raw::Int(value) => Any::Number(Number::Int(value)),
        Raw::Float(value) => Any::Number(Number::Float(value)),
        Raw::Str(value) => Any::String(Arc::from(value)),
        Raw::Bytes(value) => Any::Buffer(Arc::from(value)),
    }
}

/// A scalar of ours from what yrs keeps; `None` for what no coheap document holds.
fn raw_of(out: &Out) -> Option<Raw> {
    let Out::Any(any) = out else { return None };
    Some(match any {
        Any::Null => Raw::Null,
        Any::Bool(value) => Raw::Bool(*value),
        // yrs writes integers beyond 31 bits as doubles.
        Any::Number(Number::Int(value)) => Raw::Int(*value),
        Any::Number(Number::Float(value)) => match exact_integer(*value) {
            Some(integer) => Raw::Int(integer),
            None => Raw::Float(*value),
        },
        Any::String(value) => Raw::Str(value.to_string()),
        Any::Buffer(value) => Raw::Bytes(value.to_vec()),
        Any::Undefined | Any::Array(_) | Any::Map(_) => return None,
    })
}

/// An element that is none of ours keeps its place, so that indexes agree.
fn element_of(out: &Out) -> Raw {
    raw_of(out).unwrap_or(Raw::Null)
}

struct Txn<'a, 'doc> {
    txn: &'a mut TransactionMut<'doc>,
    registers: &'a MapRef,
    sequences: &'a BTreeMap<String, ArrayRef>,
    texts: &'a BTreeMap<String, TextRef>,
}

impl Read for Txn<'_, '_> {
    fn get(&self, key: &str) -> Option<Raw> {
        self.registers.get(&*self.txn, key).as_ref().and_then(raw_of)
    }
}

impl Write for Txn<'_, '_> {
    fn put(&mut self, key: &str, value: Raw) {
        self.registers.insert(self.txn, key, any_of(value));
    }

    fn remove(&mut self, key: &str) {
        self.registers.remove(self.txn, key);
    }

    fn insert(&mut self, sequence: &str, index: u32, values: Vec<Raw>) {
        let array = match self.sequences.get(sequence) {
            Some(array) => array.clone(),
            None => self.txn.get_or_insert_array(format!("q{sequence}")),
        };
        array.insert_range(self.txn, index, values.into_iter().map(any_of));
    }

    fn cut(&mut self, sequence: &str, index: u32, count: u32) {
        let array = match self.sequences.get(sequence) {
            Some(array) => array.clone(),
            None => self.txn.get_or_insert_array(format!("q{sequence}")),
        };
        array.remove_range(self.txn, index, count);
    }

    fn splice(&mut self, text: &str, index: u32, removed: u32, inserted: &str) {
        let text = match self.texts.get(text) {
            Some(text) => text.clone(),
            None => self.txn.get_or_insert_text(format!("t{text}")),
        };
        if removed > 0 {
            text.remove_range(self.txn, index, removed);
        }
        if !inserted.is_empty() {
            text.insert(self.txn, index, inserted);
        }
    }
}

struct ReadTxnOf<'a, T>(&'a T, &'a MapRef);

impl<T: ReadTxn> Read for ReadTxnOf<'_, T> {
    fn get(&self, key: &str) -> Option<Raw> {
        self.1.get(self.0, key).as_ref().and_then(raw_of)
    }
}

impl Engine for YrsEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Yrs
    }

    fn read(&self, reading: &mut dyn FnMut(&dyn Read)) {
        let txn = self.doc.transact();
        reading(&ReadTxnOf(&txn, &self.registers));
    }

    fn scan(&self, each: &mut dyn FnMut(&str, Raw)) {
        let txn = self.doc.transact();
        for (key, out) in self.registers.iter(&txn) {
            if let Some(raw) = raw_of(&out) {
                each(key, raw);
            }
        }
    }

    fn scan_runs(&self, each: &mut dyn FnMut(&str, Vec<Raw>)) {
        let txn = self.doc.transact();
        let names: Vec<String> = txn.root_refs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let run = match name.as_bytes().first() {
                Some(b'q') => txn.get_array(name.as_str()).map(|q| q.iter(&txn).map(|out| element_of(&out)).collect()),
                Some(b't') => txn.get_text(name.as_str()).map(|text| vec![Raw::Str(text.get_string(&txn))]),
                _ => None,
            };
            if let Some(run) = run {
                each(&name, run);
            }
        }
    }

    fn watch_sequence(&mut self, name: &str) -> Vec<Raw> {
        if !self.sequences.contains_key(name) {
            let array = self.doc.get_or_insert_array(format!("q{name}"));
            let (sink, note) = (Rc::clone(&self.notes), name.to_owned());
            array.observe("coheap", move |txn, event| {
                let mut notes = sink.borrow_mut();
                let Some(changes) = notes.as_mut() else { return };
                let steps = event.delta(txn).iter().map(|change| match change {
                    Change::Added(values) => Step::Insert(values.iter().map(element_of).collect()),
                    Change::Removed(count) => Step::Remove(*count),
                    Change::Retain(count) => Step::Keep(*count),
                });
                changes.sequences.insert(note.clone(), steps.collect());
            });
            self.sequences.insert(name.to_owned(), array);
        }
        let txn = self.doc.transact();
        self.sequences.get(name).map(|array| array.iter(&txn).map(|out| element_of(&out)).collect()).unwrap_or_default()
    }

    fn watch_text(&mut self, name: &str) -> String {
        if !self.texts.contains_key(name) {
            let text = self.doc.get_or_insert_text(format!("t{name}"));
            let (sink, note) = (Rc::clone(&self.notes), name.to_owned());
            text.observe("coheap", move |txn, event| {
                let mut notes = sink.borrow_mut();
                let Some(changes) = notes.as_mut() else { return };
                let steps = event.delta(txn).iter().map(|delta| match delta {
                    Delta::Inserted(out, _) => match out {
                        Out::Any(Any::String(text)) => Step::Insert(text.to_string()),
                        _ => Step::Insert("\u{fffc}".to_owned()),
                    },
                    Delta::Deleted(count) => Step::Remove(*count),
                    Delta::Retain(count, _) => Step::Keep(*count),
                });
                changes.texts.insert(note.clone(), steps.collect());
            });
            self.texts.insert(name.to_owned(), text);
        }
        let txn = self.doc.transact();
        self.texts.get(name).map(|text| text.get_string(&txn)).unwrap_or_default()
    }

    fn apply(&mut self, deltas: &[Bytes]) -> Result<Changes, EngineError> {
        let mut updates = Vec::with_capacity(deltas.len());
        for delta in deltas {
            updates.push(Update::decode_v1(delta).map_err(|e| EngineError::Decode(e.to_string()))?);
        }
        *self.notes.borrow_mut() = Some(Changes::default());
        let applied = (|| {
            let mut txn = self.doc.try_transact_mut().map_err(|e| EngineError::Failed(e.to_string()))?;
            for update in updates {
                txn.apply_update(update).map_err(|e| EngineError::Failed(e.to_string()))?;
            }
            complete(&txn)
        })();
        let changes = self.notes.borrow_mut().take().unwrap_or_default();
        applied.map(|()| changes)
    }

    fn transact(&mut self, editing: &mut dyn FnMut(&mut dyn Write)) -> Result<Bytes, EngineError> {
        let mut txn = self.doc.try_transact_mut().map_err(|e| EngineError::Failed(e.to_string()))?;
        editing(&mut Txn { txn: &mut txn, registers: &self.registers, sequences: &self.sequences, texts: &self.texts });
        Ok(Bytes::from(txn.encode_update_v1()))
    }

    fn encode(&self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v2(&StateVector::default())
    }

    fn whole(&self) -> Vec<u8> {
        self.doc.transact().encode_state_as_update_v1(&StateVector::default())
    }

    fn clocks(&self) -> Option<BTreeMap<u64, u32>> {
        Some(clocks_of(&self.doc.transact().state_vector()))
    }

    fn holds(&self) -> Vec<u8> {
        let snapshot = self.doc.transact().snapshot();
        let mut out = Vec::new();
        for (client, clock) in clocks_of(&snapshot.state_map) {
            out.extend_from_slice(&client.to_le_bytes());
            out.extend_from_slice(&clock.to_le_bytes());
        }
        out.extend_from_slice(&snapshot.delete_set.encode_v1());
        out
    }
}
