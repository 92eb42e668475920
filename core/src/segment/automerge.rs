//! The engine `automerge`: registers are scalars at keys of the document root, sequences and texts objects there that every
//! replica makes in the same way. It keeps every change for good.
//!
//! ```text
//! transact ──► what is written is gathered ──► objects that are not there yet ──► one automerge transaction ──► delta
//! apply    ──► the delta's objects, then its change ──► patches, composed to one list of steps for each object
//! ```
//!
//! Gathered first, because an object is made by a change of its own (`SEGMENT.md` §7), and because a key that is written
//! twice is written once then. Three things that automerge does are mended here: it leaves out a write that changes nothing
//! (which then does not beat a concurrent removal); it takes changes whose predecessors it does not have, for later; and it
//! orders what two writers put at one place by time alone, which mixes them where they write backwards. Therefore whatever
//! comes into a sequence brings an *anchor*, an element that is not shown, and comes behind it; what later comes before it
//! lies behind that anchor too, so all of it stays together.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use automerge::{
    ActorId, Automerge, Change, ChangeHash, LoadOptions, ObjId, ObjType, PatchAction, PatchLog, Prop, ROOT, ReadDoc,
    ScalarValue, TextEncoding, Value, VerificationMode,
};
use bytes::Bytes;

use super::engine::{Changes, Engine, EngineError, Raw, Read, Step, Write};
use crate::commit::EngineKind;
use crate::guard::automerge::{Delta, canonical, deltas_of, object_key, whole_of, writer_actor};

const MISSING: &str = "a change builds on changes that are not here";

/// An automerge document.
pub struct AutomergeEngine {
    doc: Automerge,
    /// Root keys of the sequences and texts whose changes are reported.
    watched: BTreeSet<String>,
    /// Sequences by root key, as far as they were needed: which elements are shown (the rest are anchors).
    shown: BTreeMap<String, Vec<bool>>,
}

impl std::fmt::Debug for AutomergeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AutomergeEngine").field("actor", self.doc.get_actor()).finish_non_exhaustive()
    }
}

impl AutomergeEngine {
    /// An empty document that writes as `writer` (53 bits).
    pub fn new(writer: u64) -> Self {
        let doc = Automerge::new_with_encoding(TextEncoding::Utf16CodeUnit);
        AutomergeEngine { doc: doc.with_actor(actor(writer)), watched: BTreeSet::new(), shown: BTreeMap::new() }
    }

    /// A document from its encoding, writing as `writer`.
    pub fn decode(writer: u64, snapshot: &[u8]) -> Result<Self, EngineError> {
        let options =
            LoadOptions::new().text_encoding(TextEncoding::Utf16CodeUnit).verification_mode(VerificationMode::Check);
        let doc = Automerge::load_with_options(snapshot, options).map_err(|e| EngineError::Decode(e.to_string()))?;
        let engine =
            AutomergeEngine { doc: doc.with_actor(actor(writer)), watched: BTreeSet::new(), shown: BTreeMap::new() };
        engine.complete()?;
        Ok(engine)
    }

    /// Automerge keeps a change whose predecessors are missing for later, and says nothing.
    fn complete(&self) -> Result<(), EngineError> {
        if self.doc.get_missing_deps(&[]).is_empty() { Ok(()) } else { Err(EngineError::Failed(MISSING.into())) }
    }

    /// R12: what is kept for later is saved with everything else, and what was saved could not be read again. So changes that
    /// build on what is neither here nor among them are not given to the document at all: it stays as it is, and goes on.
    fn continues(&self, changes: &[Change]) -> Result<(), EngineError> {
        let among: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
        let deps: Vec<ChangeHash> = changes.iter().flat_map(Change::deps).copied().collect();
        if self.doc.get_missing_deps(&deps).iter().all(|hash| among.contains(hash)) {
            Ok(())
        } else {
            Err(EngineError::Failed(MISSING.into()))
        }
    }
}

fn actor(writer: u64) -> ActorId {
    ActorId::from(writer_actor(writer))
}

fn sequence_key(name: &str) -> String {
    format!("q{name}")
}

fn text_key(name: &str) -> String {
    format!("t{name}")
}

/// The object that the canonical change of a root key makes.
fn object(key: &str) -> ObjId {
    ObjId::Id(1, ActorId::from(key.as_bytes()), 0)
}

/// The root key whose canonical change made this object.
fn key_of(object: &ObjId) -> Option<&str> {
    match object {
        ObjId::Id(1, actor, _) => std::str::from_utf8(actor.to_bytes()).ok(),
        _ => None,
    }
}

/// A scalar of ours as automerge keeps it.
fn scalar_of(value: Raw) -> ScalarValue {
    match value {
        Raw::Null => ScalarValue::Null,
        Raw::Bool(value) => ScalarValue::Boolean(value),
        Raw::Int(value) => ScalarValue::Int(value),
        Raw::Float(value) => ScalarValue::F64(value),
        Raw::Str(value) => ScalarValue::Str(value.into()),
        Raw::Bytes(value) => ScalarValue::Bytes(value),
    }
}

/// A scalar of ours from what automerge keeps; `None` for what no coheap document holds.
fn raw_of(value: &Value<'_>) -> Option<Raw> {
    let Value::Scalar(scalar) = value else { return None };
    Some(match scalar.as_ref() {
        ScalarValue::Null => Raw::Null,
        ScalarValue::Boolean(value) => Raw::Bool(*value),
        ScalarValue::Int(value) => Raw::Int(*value),
        ScalarValue::F64(value) => Raw::Float(*value),
        ScalarValue::Str(value) => Raw::Str(value.to_string()),
        ScalarValue::Bytes(value) => Raw::Bytes(value.clone()),
        ScalarValue::Uint(_) | ScalarValue::Counter(_) | ScalarValue::Timestamp(_) | ScalarValue::Unknown { .. } => {
            return None;
        }
    })
}

/// What an anchor holds: no scalar of ours is one of these.
const ANCHOR: ScalarValue = ScalarValue::Uint(0);

/// An element, `None` for an anchor. One that is none of ours keeps its place.
fn element_of(value: &Value<'_>) -> Option<Raw> {
    match value {
        Value::Scalar(scalar) if matches!(scalar.as_ref(), ScalarValue::Uint(_)) => None,
        _ => Some(raw_of(value).unwrap_or(Raw::Null)),
    }
}

/// The place of the `index`-th element that is shown; behind everything if there are not so many.
fn place(shown: &[bool], index: usize) -> usize {
    let mut before = 0;
    for (at, shown) in shown.iter().enumerate() {
        if *shown {
            if before == index {
                return at;
            }
            before += 1;
        }
    }
    shown.len()
}

/// The elements of a sequence, anchors too.
fn elements<'a>(doc: &'a Automerge, key: &str) -> impl Iterator<Item = Option<Raw>> + 'a {
    doc.values(object(key)).map(|(value, _)| element_of(&value))
}

fn register(doc: &impl ReadDoc, key: &str) -> Option<Raw> {
    doc.get(ROOT, key).ok().flatten().and_then(|(value, _)| raw_of(&value))
}

impl Read for Automerge {
    fn get(&self, key: &str) -> Option<Raw> {
        register(self, key)
    }
}

/// A change to the object at a root key.
enum Splice {
    List { key: String, index: u32, removed: u32, values: Vec<Raw> },
    Text { key: String, index: u32, removed: u32, inserted: String },
}

impl Splice {
    fn key(&self) -> &str {
        match self {
            Splice::List { key, .. } | Splice::Text { key, .. } => key,
        }
    }
}

/// What one transaction writes, until it is written.
struct Gathered<'a> {
    doc: &'a Automerge,
    registers: BTreeMap<String, Option<Raw>>,
    splices: Vec<Splice>,
}

impl Read for Gathered<'_> {
    fn get(&self, key: &str) -> Option<Raw> {
        match self.registers.get(key) {
            Some(value) => value.clone(),
            None => register(self.doc, key),
        }
    }
}

impl Write for Gathered<'_> {
    fn put(&mut self, key: &str, value: Raw) {
        self.registers.insert(key.to_owned(), Some(value));
    }

    fn remove(&mut self, key: &str) {
        self.registers.insert(key.to_owned(), None);
    }

    fn insert(&mut self, sequence: &str, index: u32, values: Vec<Raw>) {
        let sequence = sequence_key(sequence);
        match self.splices.last_mut() {
            // What is appended piece by piece is one run.
            Some(Splice::List { key, index: start, values: run, .. })
                if *key == sequence && !run.is_empty() && *start + run.len() as u32 == index =>
            {
                run.extend(values);
            }
            _ => self.splices.push(Splice::List { key: sequence, index, removed: 0, values }),
        }
    }

    fn cut(&mut self, sequence: &str, index: u32, count: u32) {
        self.splices.push(Splice::List { key: sequence_key(sequence), index, removed: count, values: Vec::new() });
    }

    fn splice(&mut self, text: &str, index: u32, removed: u32, inserted: &str) {
        self.splices.push(Splice::Text { key: text_key(text), index, removed, inserted: inserted.to_owned() });
    }
}

/// Sets or removes a register.
fn write_register(tx: &mut impl Transactable, key: String, value: Option<Raw>) -> Result<(), EngineError> {
    let Some(value) = value else { return tx.delete(ROOT, key).map_err(failed) };
    // Automerge would leave out a write of what is there already; it has to count as a write (S5).
    if register(tx, &key).as_ref() == Some(&value) {
        tx.delete(ROOT, key.as_str()).map_err(failed)?;
    }
    tx.put(ROOT, key, scalar_of(value)).map_err(failed)
}

fn write_splice(
    tx: &mut impl Transactable,
    splice: Splice,
    shown: &mut BTreeMap<String, Vec<bool>>,
) -> Result<(), EngineError> {
    let object = object(splice.key());
    match splice {
        Splice::List { key, index, removed, values } => {
            let shown = shown.entry(key).or_default();
            let at = place(shown, index as usize);
            for _ in 0..removed {
                // Each goes with the anchor before it, and what lies between is of others.
                let end = place(shown, index as usize);
                let start = if end > 0 && shown.get(end - 1) == Some(&false) { end - 1 } else { end };
                tx.splice(&object, start, (end + 1 - start) as isize, std::iter::empty::<ScalarValue>())
                    .map_err(failed)?;
                shown.drain(start..=end.min(shown.len().saturating_sub(1)));
            }
            if !values.is_empty() {
                shown.splice(at..at, std::iter::once(false).chain(values.iter().map(|_| true)));
                let values = std::iter::once(ANCHOR).chain(values.into_iter().map(scalar_of));
                tx.splice(object, at, 0, values).map_err(failed)?;
            }
            Ok(())
        }
        Splice::Text { index, removed, inserted, .. } => {
            tx.splice_text(object, index as usize, removed as isize, &inserted).map_err(failed)
        }
    }
}

fn failed(error: impl std::error::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

/// A change from its chunk. Automerge does not compare the checksum by itself.
fn change_of(chunk: &[u8]) -> Result<Change, EngineError> {
    let change = Change::try_from(chunk).map_err(|e| EngineError::Decode(e.to_string()))?;
    if chunk.get(4..8) == change.hash().0.get(..4) {
        Ok(change)
    } else {
        Err(EngineError::Decode("a change's checksum differs".into()))
    }
}

impl Engine for AutomergeEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Automerge
    }

    fn read(&self, reading: &mut dyn FnMut(&dyn Read)) {
        reading(&self.doc);
    }

    fn scan(&self, each: &mut dyn FnMut(&str, Raw)) {
        for item in self.doc.map_range(ROOT, ..) {
            if let Some(raw) = raw_of(&item.value.into_value()) {
                each(&item.key, raw);
            }
        }
    }

    fn scan_runs(&self, each: &mut dyn FnMut(&str, Vec<Raw>)) {
        let names: Vec<String> = self.doc.keys(ROOT).collect();
        for name in names {
            match self.doc.object_type(object(&name)) {
                Ok(ObjType::List) => {
                    each(&name, self.doc.values(object(&name)).filter_map(|(value, _)| element_of(&value)).collect());
                }
                Ok(ObjType::Text) => each(&name, vec![Raw::Str(self.doc.text(object(&name)).unwrap_or_default())]),
                _ => {}
            }
        }
    }

    fn watch_sequence(&mut self, name: &str) -> Vec<Raw> {
        let key = sequence_key(name);
        let elements: Vec<Option<Raw>> = elements(&self.doc, &key).collect();
        self.shown.insert(key.clone(), elements.iter().map(Option::is_some).collect());
        self.watched.insert(key);
        elements.into_iter().flatten().collect()
    }

    fn watch_text(&mut self, name: &str) -> String {
        let key = text_key(name);
        let text = self.doc.text(object(&key)).unwrap_or_default();
        self.watched.insert(key);
        text
    }

    fn apply(&mut self, deltas: &[Bytes]) -> Result<Changes, EngineError> {
        let mut list = Vec::with_capacity(deltas.len());
        for delta in deltas {
            for delta in deltas_of(delta) {
                let delta = delta.and_then(Delta::parse).map_err(|e| EngineError::Decode(e.to_string()))?;
                for key in &delta.objects {
                    list.push(change_of(&canonical(key))?);
                }
                if !delta.change.is_empty() {
                    list.push(change_of(delta.change)?);
                }
            }
        }
        self.continues(&list)?;
        let mut log = PatchLog::active();
        self.doc.apply_changes_log_patches(list, &mut log).map_err(failed)?;
        self.complete()?;
        let mut changes = Changes::default();
        let mut sequences: BTreeMap<String, Draft<Option<Raw>>> = BTreeMap::new();
        let mut texts: BTreeMap<String, Draft<u16>> = BTreeMap::new();
        for patch in self.doc.make_patches(&mut log) {
            if patch.obj == ROOT {
                // What a key holds is asked for once all is known: patches speak of states in between.
                if let Some(key) = key_in(patch.action) {
                    changes.registers.insert(key, None);
                }
            } else if let Some(key) = key_of(&patch.obj) {
                if self.shown.contains_key(key) {
                    list_patch(sequences.entry(key.to_owned()).or_default(), &patch.action);
                } else if self.watched.contains(key) {
                    text_patch(texts.entry(key.to_owned()).or_default(), &patch.action);
                }
            }
        }
        changes.registers.retain(|key, value| {
            let now = ReadDoc::get(&self.doc, ROOT, key.as_str()).ok().flatten();
            *value = now.as_ref().and_then(|(value, _)| raw_of(value));
            !matches!(now, Some((Value::Object(_), _)))
        });
        for (key, draft) in sequences {
            let Some(shown) = self.shown.get_mut(&key) else { continue };
            let steps = without_anchors(draft, shown);
            if let Some(name) = key.get(1..).filter(|_| self.watched.contains(&key)) {
                changes.sequences.insert(name.to_owned(), steps);
            }
        }
        for (key, draft) in texts {
            let name = key.get(1..).unwrap_or_default().to_owned();
            changes.texts.insert(name, draft.steps(|units| String::from_utf16_lossy(&units)));
        }
        Ok(changes)
    }

    fn transact(&mut self, editing: &mut dyn FnMut(&mut dyn Write)) -> Result<Bytes, EngineError> {
        let mut gathered = Gathered { doc: &self.doc, registers: BTreeMap::new(), splices: Vec::new() };
        editing(&mut gathered);
        let Gathered { registers, splices, .. } = gathered;

        let objects: BTreeSet<String> = splices.iter().map(|splice| splice.key().to_owned()).collect();
        let missing = objects.iter().filter(|key| self.doc.object_type(object(key)).is_err());
        let missing = missing.map(|key| change_of(&canonical(key))).collect::<Result<Vec<_>, _>>()?;
        if !missing.is_empty() {
            self.doc.apply_changes(missing).map_err(failed)?;
        }

        for key in objects.iter().filter(|key| key.starts_with('q')) {
            if !self.shown.contains_key(key) {
                let shown = elements(&self.doc, key).map(|element| element.is_some()).collect();
                self.shown.insert(key.clone(), shown);
            }
        }
        let mut tx = self.doc.transaction();
        for (key, value) in registers {
            write_register(&mut tx, key, value)?;
        }
        for splice in splices {
            write_splice(&mut tx, splice, &mut self.shown)?;
        }
        let (hash, _) = tx.commit();
        let mut chunk = Vec::new();
        if let Some(hash) = hash {
            let change = self.doc.get_change_by_hash(&hash).filter(|change| change.hash() == hash);
            let change = change.ok_or_else(|| EngineError::Failed("a change was not kept".into()))?;
            chunk.extend_from_slice(change.raw_bytes());
        }
        let objects = objects.iter().map(String::as_str).collect();
        Ok(Bytes::from(Delta { objects, change: &chunk }.encode()))
    }

    fn encode(&self) -> Vec<u8> {
        self.doc.save()
    }

    fn whole(&self) -> Vec<u8> {
        let changes = self.doc.get_changes(&[]);
        let deltas = changes.iter().map(|change| {
            let actor = change.actor_id().to_bytes();
            // What makes an object is a function of its key.
            if let Some(key) = object_key(actor) {
                return Delta { objects: vec![key], change: &[] }.encode();
            }
            let mut objects: Vec<&str> =
                change.other_actor_ids().iter().filter_map(|actor| object_key(actor.to_bytes())).collect();
            objects.sort_unstable();
            Delta { objects, change: change.raw_bytes() }.encode()
        });
        whole_of(&deltas.collect::<Vec<_>>())
    }

    fn clocks(&self) -> Option<BTreeMap<u64, u32>> {
        None
    }

    fn holds(&self) -> Vec<u8> {
        self.doc.get_heads().iter().flat_map(|hash| hash.0).collect()
    }
}

/// The key that a patch to the root speaks of.
fn key_in(action: PatchAction) -> Option<String> {
    match action {
        PatchAction::PutMap { key, .. } | PatchAction::DeleteMap { key } => Some(key),
        PatchAction::Conflict { prop: Prop::Map(key) } | PatchAction::Increment { prop: Prop::Map(key), .. } => {
            Some(key)
        }
        _ => None,
    }
}

fn list_patch(draft: &mut Draft<Option<Raw>>, action: &PatchAction) {
    match action {
        PatchAction::Insert { index, values } => {
            draft.splice(*index, 0, values.iter().map(|(value, ..)| element_of(value)).collect());
        }
        PatchAction::DeleteSeq { index, length } => draft.splice(*index, *length, Vec::new()),
        PatchAction::PutSeq { index, value: (value, _), .. } => draft.splice(*index, 1, vec![element_of(value)]),
        _ => {}
    }
}

/// The steps of what is shown; `shown` is brought up to date.
fn without_anchors(draft: Draft<Option<Raw>>, shown: &mut Vec<bool>) -> Vec<Step<Vec<Raw>>> {
    let before = std::mem::take(shown);
    let mut rest = before.as_slice();
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at(count.min(rest.len()));
        rest = tail;
        (head, head.iter().filter(|shown| **shown).count() as u32)
    };
    let mut steps = Vec::new();
    for piece in draft.0 {
        match piece {
            Piece::Keep(count) => {
                let (kept, visible) = take(count);
                shown.extend_from_slice(kept);
                if visible > 0 {
                    steps.push(Step::Keep(visible));
                }
            }
            Piece::Remove(count) => {
                let (_, visible) = take(count);
                if visible > 0 {
                    steps.push(Step::Remove(visible));
                }
            }
            Piece::Insert(elements) => {
                shown.extend(elements.iter().map(Option::is_some));
                let values: Vec<Raw> = elements.into_iter().flatten().collect();
                if !values.is_empty() {
                    steps.push(Step::Insert(values));
                }
            }
        }
    }
    shown.extend_from_slice(rest);
    steps
}

fn text_patch(draft: &mut Draft<u16>, action: &PatchAction) {
    match action {
        PatchAction::SpliceText { index, value, .. } => {
            draft.splice(*index, 0, value.make_string().encode_utf16().collect());
        }
        PatchAction::DeleteSeq { index, length } => draft.splice(*index, *length, Vec::new()),
        // An object in a text is none of ours; it takes one unit.
        PatchAction::Insert { index, values } => draft.splice(*index, 0, vec![0xfffc; values.len()]),
        _ => {}
    }
}

/// Steps under construction: each splice speaks of the state after those before it, the steps of the state before all.
#[derive(Debug)]
struct Draft<E>(Vec<Piece<E>>);

#[derive(Debug, PartialEq)]
enum Piece<E> {
    Keep(usize),
    Insert(Vec<E>),
    Remove(usize),
}

impl<E> Default for Draft<E> {
    fn default() -> Self {
        Draft(Vec::new())
    }
}

impl<E> Draft<E> {
    /// `index` and what follows count what is kept or came; all behind the last piece is kept.
    fn splice(&mut self, index: usize, removed: usize, inserted: Vec<E>) {
        let mut at = self.cut(index);
        let end = self.cut(index + removed);
        let mut gone = 0;
        for piece in self.0.splice(at..end, []) {
            match piece {
                Piece::Keep(count) | Piece::Remove(count) => gone += count,
                Piece::Insert(_) => {}
            }
        }
        if !inserted.is_empty() {
            self.0.insert(at, Piece::Insert(inserted));
            at += 1;
        }
        if gone > 0 {
            self.0.insert(at, Piece::Remove(gone));
        }
    }

    /// The first place among the pieces where `index` elements lie before it; a piece across it is cut.
    fn cut(&mut self, index: usize) -> usize {
        let mut before = 0;
        for at in 0..self.0.len() {
            let left = index - before;
            let Some(piece) = self.0.get_mut(at) else { break };
            let (length, rest) = match piece {
                _ if left == 0 => return at,
                Piece::Remove(_) => (0, None),
                Piece::Keep(count) if *count > left => {
                    let rest = *count - left;
                    *count = left;
                    (left, Some(Piece::Keep(rest)))
                }
                Piece::Keep(count) => (*count, None),
                Piece::Insert(values) if values.len() > left => (left, Some(Piece::Insert(values.split_off(left)))),
                Piece::Insert(values) => (values.len(), None),
            };
            if let Some(rest) = rest {
                self.0.insert(at + 1, rest);
                return at + 1;
            }
            before += length;
        }
        if before < index {
            self.0.push(Piece::Keep(index - before));
        }
        self.0.len()
    }

    fn steps<T>(self, text: impl Fn(Vec<E>) -> T) -> Vec<Step<T>> {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let step = |piece| match piece {
            Piece::Keep(count) => Step::Keep(number(count)),
            Piece::Remove(count) => Step::Remove(number(count)),
            Piece::Insert(values) => Step::Insert(text(values)),
        };
        self.0.into_iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use automerge::ObjType;

    use super::*;

    /// SplitMix64.
    fn draw(state: &mut u64, end: usize) -> usize {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    #[test]
    fn splices_compose_to_steps_from_the_start() {
        let state = &mut 1;
        for _ in 0..2000 {
            let start: Vec<u32> = (0..draw(state, 12) as u32).collect();
            let (mut now, mut draft, mut fresh) = (start.clone(), Draft::default(), 100);
            for _ in 0..draw(state, 8) {
                let index = draw(state, now.len() + 1);
                let removed = draw(state, now.len() - index + 1);
                let inserted: Vec<u32> = (fresh..fresh + draw(state, 3) as u32).collect();
                fresh += 3;
                now.splice(index..index + removed, inserted.clone());
                draft.splice(index, removed, inserted);
            }
            let (mut out, mut rest) = (Vec::new(), start.as_slice());
            for step in draft.steps(|values| values) {
                match step {
                    Step::Keep(count) => {
                        out.extend_from_slice(&rest[..count as usize]);
                        rest = &rest[count as usize..];
                    }
                    Step::Remove(count) => rest = &rest[count as usize..],
                    Step::Insert(values) => out.extend(values),
                }
            }
            out.extend_from_slice(rest);
            assert_eq!(out, now);
        }
    }

    #[test]
    fn r12_what_builds_on_what_is_not_here_leaves_the_document_as_it_was() {
        let mut author = AutomergeEngine::new(1);
        let mut write = |n: i64| author.transact(&mut |tx| tx.put("n", Raw::Int(n))).unwrap();
        let deltas = [write(1), write(2), write(3)];
        let mut engine = AutomergeEngine::new(2);
        engine.apply(&deltas[..1]).unwrap();
        let before = engine.encode();
        assert!(engine.apply(&deltas[2..]).is_err());
        assert_eq!(engine.encode(), before);
        // It can be read again, and takes in what comes next, in whatever order.
        AutomergeEngine::decode(3, &before).unwrap();
        let changes = engine.apply(&[deltas[2].clone(), deltas[1].clone()]).unwrap();
        assert_eq!(changes.registers.len(), 1);
        assert_eq!(engine.holds(), author.holds());
    }

    #[test]
    fn the_canonical_change_is_what_automerge_makes() {
        for (key, kind) in [("q", ObjType::List), ("tAAAAAAAAAAAAAAAAAAAAAA", ObjType::Text)] {
            let mut doc = Automerge::new().with_actor(ActorId::from(key.as_bytes()));
            let mut tx = doc.transaction();
            assert_eq!(tx.put_object(ROOT, key, kind).unwrap(), object(key));
            let hash = tx.commit().0.unwrap();
            let change = doc.get_change_by_hash(&hash).unwrap();
            assert_eq!(canonical(key), change.raw_bytes(), "{key}");
        }
    }
}
