#![doc = include_str!("../SEGMENT.md")]

#[cfg(feature = "automerge")]
pub mod automerge;
mod clocks;
pub mod copy;
mod creations;
pub mod engine;
pub mod layout;
pub mod list;
pub mod merge;
pub mod objects;
pub(crate) mod outside;
pub mod packed;
pub mod replay;
pub mod roll;
mod shell;
mod show;
mod values;
pub mod write;
#[cfg(feature = "yrs")]
pub mod yrs;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::clocks::{Reached, Table};
use self::creations::Creations;
pub use self::creations::Overruled;
use self::engine::{Engine, EngineError};
use self::objects::Objects;
use self::write::{Draw, WishError};
use crate::commit::EngineKind;
use crate::edit::{Edit, Handle, Patch, Wish};
use crate::id::{GenId, ObjectId, SegmentId, Uid};
use crate::mutate::{self, Mutation};
use crate::value::Kind;

/// One CRDT document and what is known of its objects. The only caller of engines.
pub struct Segment {
    id: SegmentId,
    generation: GenId,
    /// Of that generation, as the relay sent it; empty for generation 0 (G4).
    header: Bytes,
    engine: Box<dyn Engine>,
    /// The client id it writes as.
    writer: u64,
    objects: Objects,
    /// Its clock table, once somebody else's delta was to be judged by it (`clocks.rs`).
    table: Option<Table>,
    /// Bytes that came in as snapshot and deltas: its packed size, until it is encoded anew.
    size: usize,
    /// No log knows it yet: the next commit creates it.
    unborn: bool,
    /// The handles below this one are kept outside.
    told: usize,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Whether this module can read documents of an engine.
pub fn is_built_in(kind: EngineKind) -> bool {
    match kind {
        EngineKind::Yrs => cfg!(feature = "yrs"),
        EngineKind::Automerge => cfg!(feature = "automerge"),
    }
}

/// What local edits came to.
#[derive(Debug)]
pub struct Edited {
    /// The engine's change.
    pub delta: Bytes,
    /// The edits, anchored.
    pub edits: Vec<Edit>,
    /// Where the result is not what the wishes said.
    pub corrections: Vec<Patch>,
}

/// A segment before local edits, for [`Segment::restore`].
#[derive(Debug)]
pub struct Kept {
    document: Vec<u8>,
    size: usize,
    handles: usize,
    first: Kind,
    creations: Creations,
}

fn blank(kind: EngineKind, writer: u64) -> Result<Box<dyn Engine>, EngineError> {
    match kind {
        #[cfg(feature = "yrs")]
        EngineKind::Yrs => Ok(Box::new(yrs::YrsEngine::new(writer))),
        #[cfg(feature = "automerge")]
        EngineKind::Automerge => Ok(Box::new(automerge::AutomergeEngine::new(writer))),
        #[allow(unreachable_patterns, reason = "engines that were not built in")]
        _ => Err(EngineError::Decode(format!("this module has no engine {kind:?}"))),
    }
}

/// A document from its stored form (empty bytes: an empty one).
fn document(kind: EngineKind, writer: u64, snapshot: &[u8]) -> Result<Box<dyn Engine>, EngineError> {
    if snapshot.is_empty() {
        return blank(kind, writer);
    }
    let payload = open_snapshot(snapshot)?;
    match kind {
        #[cfg(feature = "yrs")]
        EngineKind::Yrs => Ok(Box::new(yrs::YrsEngine::decode(writer, payload)?)),
        #[cfg(feature = "automerge")]
        EngineKind::Automerge => Ok(Box::new(automerge::AutomergeEngine::decode(writer, payload)?)),
        #[allow(unreachable_patterns, reason = "engines that were not built in")]
        _ => Err(EngineError::Decode(format!("this module has no engine {kind:?}"))),
    }
}

/// Snapshots are ours alone; their checksum goes with them from the worker that made them to the replica that reads them.
const SNAPSHOT_FORMAT: u8 = 1;

fn seal_snapshot(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 9);
    out.push(SNAPSHOT_FORMAT);
    out.extend_from_slice(&checksum(payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn open_snapshot(bytes: &[u8]) -> Result<&[u8], EngineError> {
    let (format, rest) = bytes.split_first().ok_or_else(|| EngineError::Decode("empty snapshot".into()))?;
    let (sum, payload) =
        rest.split_first_chunk::<8>().ok_or_else(|| EngineError::Decode("snapshot ends early".into()))?;
    if *format != SNAPSHOT_FORMAT {
        return Err(EngineError::Decode(format!("snapshot of format {format}")));
    }
    if u64::from_le_bytes(*sum) != checksum(payload) {
        return Err(EngineError::Decode("snapshot checksum differs".into()));
    }
    Ok(payload)
}

/// FNV-1a, eight bytes a step: enough to tell damage, no defence against malice (the guard is).
fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        hash ^= hash >> 29;
    }
    hash
}

impl Segment {
    /// An empty segment.
    pub fn new(id: SegmentId, kind: EngineKind, writer: u64) -> Result<Self, EngineError> {
        let mut segment = Segment::decode(id, kind, kind.generation_zero(), writer, &[], &[])?;
        segment.objects.nothing_to_show();
        Ok(segment)
    }

    /// A segment from its stored snapshot and the deltas since. [`Segment::show`] comes next, or [`Segment::redo`].
    pub fn decode(
        id: SegmentId,
        kind: EngineKind,
        generation: GenId,
        writer: u64,
        snapshot: &[u8],
        deltas: &[Bytes],
    ) -> Result<Self, EngineError> {
        let mut engine = document(kind, writer, snapshot)?;
        if !deltas.is_empty() {
            engine.apply(deltas)?;
        }
        let size = snapshot.len() + deltas.iter().map(Bytes::len).sum::<usize>();
        let (header, objects) = (Bytes::new(), Objects::new(id, writer));
        Ok(Segment { id, generation, header, engine, writer, objects, table: None, size, unborn: false, told: 1 })
    }

    /// Puts another document of the same segment in the place of this one. Handles stay. [`Segment::redo`] or
    /// [`Segment::show`] comes next.
    pub fn replace(
        &mut self,
        generation: GenId,
        writer: u64,
        snapshot: &[u8],
        deltas: &[Bytes],
    ) -> Result<(), EngineError> {
        self.take_over(Segment::decode(self.id, self.engine.kind(), generation, writer, snapshot, deltas)?);
        Ok(())
    }

    /// As [`Segment::replace`], by a document that nobody was shown yet.
    pub fn take_over(&mut self, other: Segment) {
        self.engine = other.engine;
        self.writer = other.writer;
        if self.generation != other.generation {
            self.header = other.header;
        }
        self.generation = other.generation;
        self.table = other.table;
        self.size = other.size;
        self.objects.forget();
        self.objects.set_writer(self.writer);
    }

    /// Its id.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Its generation.
    pub fn generation(&self) -> GenId {
        self.generation
    }

    /// The header of its generation; empty for generation 0.
    pub fn header(&self) -> &Bytes {
        &self.header
    }

    /// Notes the header of its generation.
    pub fn set_header(&mut self, header: Bytes) {
        self.header = header;
    }

    /// What merges it.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// The client id it writes as.
    pub fn writer(&self) -> u64 {
        self.writer
    }

    /// Bytes of snapshot and deltas it was made of.
    pub fn size(&self) -> usize {
        self.size
    }

    /// True if nothing was ever written to it.
    pub fn holds_nothing(&self) -> bool {
        blank(self.engine.kind(), 0).is_ok_and(|blank| blank.holds() == self.engine.holds())
    }

    /// True while no log knows it.
    pub fn is_unborn(&self) -> bool {
        self.unborn
    }

    /// Notes whether a log knows it.
    pub fn set_unborn(&mut self, unborn: bool) {
        self.unborn = unborn;
    }

    /// The kind of its first object.
    pub fn first_kind(&self) -> Kind {
        self.objects.first_kind()
    }

    /// Everything it shows, for a mirror that holds nothing of it (or forgets what it held).
    pub fn show(&mut self) -> Vec<Patch> {
        self.objects.show_all(self.engine.as_mut())
    }

    /// Everything the document holds, found anew in it and under handles of its own. What is known of its objects here is neither
    /// asked nor changed. It takes as long as what is shown is large, not as all that ever happened.
    pub fn dump(&mut self) -> Vec<Patch> {
        Objects::new(self.id, self.writer).show_all(self.engine.as_mut())
    }

    /// Applies deltas of others, in one step: whole states that were merged elsewhere, or what somebody else has judged, and the
    /// guard looks at once more as far as that goes without their owners. For a commit of the log there is [`Segment::apply_commit`].
    pub fn apply(&mut self, deltas: &[Bytes]) -> Result<Vec<Patch>, EngineError> {
        self.judge_vouched(&mut Reached::default(), deltas)?;
        self.table = None;
        self.apply_judged(deltas)
    }

    /// THE place where a delta is applied.
    fn apply_judged(&mut self, deltas: &[Bytes]) -> Result<Vec<Patch>, EngineError> {
        let changes = self.engine.apply(deltas)?;
        self.size += deltas.iter().map(Bytes::len).sum::<usize>();
        Ok(self.objects.show_changes(self.engine.as_mut(), &changes))
    }

    /// As [`Segment::apply`], before anybody is shown the document.
    pub fn extend(&mut self, deltas: &[Bytes]) -> Result<(), EngineError> {
        if deltas.is_empty() {
            return Ok(());
        }
        self.judge_vouched(&mut Reached::default(), deltas)?;
        self.table = None;
        self.extend_judged(deltas)
    }

    fn extend_judged(&mut self, deltas: &[Bytes]) -> Result<(), EngineError> {
        self.engine.apply(deltas)?;
        self.size += deltas.iter().map(Bytes::len).sum::<usize>();
        Ok(())
    }

    /// Performs a program's wishes in one engine transaction. On an error the document is half edited: it has to be rebuilt
    /// ([`Segment::replace`]); the handles that the wishes took are free again.
    pub fn edit(&mut self, wishes: Vec<Wish>, uid: Uid, draw: &mut dyn Draw) -> Result<Edited, EditError> {
        let (mut edits, mut failed, mut doubtful) = (Vec::with_capacity(wishes.len()), None, Vec::new());
        let objects = &mut self.objects;
        let handles = objects.handles();
        let mut wishes = Some(wishes);
        let delta = self.engine.transact(&mut |tx| {
            for wish in wishes.take().into_iter().flatten() {
                if let Wish::Default { object, key, .. } = &wish {
                    doubtful.push((*object, key.clone()));
                }
                match objects.resolve(tx, wish, draw) {
                    Ok(edit) => {
                        objects.perform(tx, &edit, uid);
                        edits.push(edit);
                    }
                    Err(error) => {
                        failed = Some(error);
                        return;
                    }
                }
            }
        })?;
        if let Some(error) = failed {
            self.objects.truncate(handles);
            return Err(EditError::Wish(error));
        }
        for edit in &edits {
            self.objects.creations.note(edit, uid);
        }
        self.size += delta.len();
        self.note_own(&delta);
        let mut corrections = self.objects.adopt(self.engine.as_mut(), handles);
        corrections.extend(self.objects.show_keys(self.engine.as_mut(), &doubtful));
        let mut counted = BTreeMap::new();
        for edit in &edits {
            if let Edit::Add { counter, by } = edit {
                *counted.entry(*counter).or_default() |= by.trunc() != *by;
            }
        }
        corrections.extend(self.objects.show_totals(self.engine.as_ref(), &counted));
        Ok(Edited { delta, edits, corrections })
    }

    /// Performs edits again, on another state: after [`Segment::decode`] or [`Segment::replace`], as often as there are
    /// commits to redo. [`Segment::show`] then tells a mirror what came of it.
    pub fn redo(&mut self, edits: &[Edit], uid: Uid) -> Result<Bytes, EngineError> {
        self.objects.prepare(self.engine.as_mut(), edits);
        let objects = &mut self.objects;
        let delta = self.engine.transact(&mut |tx| {
            for edit in edits {
                objects.perform(tx, edit, uid);
            }
        })?;
        self.size += delta.len();
        self.note_own(&delta);
        Ok(delta)
    }

    /// What it takes to undo local edits that nobody has heard of.
    pub fn keep(&self) -> Kept {
        Kept {
            document: self.encode(),
            size: self.size,
            handles: self.objects.handles(),
            first: self.first_kind(),
            creations: self.objects.creations.clone(),
        }
    }

    /// Undoes all local edits since [`Segment::keep`]; nothing else may have happened since. A mirror that undid them too shows
    /// this document already. The writer must be a new one: the old one's clock has gone on, and nobody must miss what it made.
    pub fn restore(&mut self, kept: Kept, writer: u64) -> Result<(), EngineError> {
        self.replace(self.generation, writer, &kept.document, &[])?;
        self.size = kept.size;
        self.objects.truncate(kept.handles);
        self.objects.set_first_kind(kept.first);
        self.objects.creations = kept.creations;
        self.show();
        // What a mirror shows has a handle; a new one here would be one that it never hears of.
        if self.objects.handles() != kept.handles {
            return Err(EngineError::Failed("a restored document shows what it did not show before".into()));
        }
        Ok(())
    }

    /// Goes on under another writer between two redos; [`Segment::show`] still comes next.
    pub fn redo_as(&mut self, writer: u64) -> Result<(), EngineError> {
        self.engine = document(self.engine.kind(), writer, &self.encode())?;
        (self.writer, self.table) = (writer, None);
        self.objects.set_writer(writer);
        Ok(())
    }

    /// Goes on under another writer. What it shows, and its handles, stay.
    pub fn renew(&mut self, writer: u64) -> Result<(), EngineError> {
        let (document, size, handles) = (self.encode(), self.size, self.objects.handles());
        self.replace(self.generation, writer, &document, &[])?;
        self.size = size;
        self.show();
        if self.objects.handles() != handles {
            return Err(EngineError::Failed(
                "a document under another writer shows what it did not show before".into(),
            ));
        }
        Ok(())
    }

    /// Compares all that this replica put under absent keys with what is there: after the document was replaced and shown.
    pub fn check_creations(&mut self) {
        self.objects.check_creations(self.engine.as_ref(), None);
    }

    /// What this replica made and others have won over since it was last asked; each is told once.
    pub fn take_overruled(&mut self) -> Vec<Overruled> {
        std::mem::take(&mut self.objects.overruled)
    }

    /// An own commit did not happen after all: what it made is no loss.
    pub fn undone(&mut self, uid: Uid) {
        self.objects.creations.undone(uid);
    }

    /// The whole document in its stored form.
    pub fn encode(&self) -> Vec<u8> {
        seal_snapshot(&self.engine.encode())
    }

    /// The object of a handle.
    pub fn object(&self, handle: Handle) -> Option<(ObjectId, Kind)> {
        self.objects.object(handle).map(|object| (object.id, object.kind))
    }

    /// The handle of an object.
    pub fn find(&self, object: ObjectId) -> Option<(Handle, Kind)> {
        let handle = self.objects.find(object)?;
        self.objects.object(handle).map(|object| (handle, object.kind))
    }
}

/// Why an edit did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The wish means nothing here.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Folds deltas into a snapshot, and proves that the result says the same: it is decoded and compared, value by value, with
/// what was folded. For the relay's worker process.
pub fn fold(kind: EngineKind, snapshot: &[u8], deltas: &[Bytes]) -> Result<Vec<u8>, EngineError> {
    let deltas = match deltas {
        [rest @ .., _] if mutate::on(Mutation::FoldLoses) => rest,
        _ => deltas,
    };
    let folded = fold_unchecked(kind, snapshot, deltas)?;
    check_fold(kind, snapshot, deltas, &folded)?;
    Ok(folded)
}

/// Folds deltas into a snapshot that somebody else checks ([`check_fold`]).
pub fn fold_unchecked(kind: EngineKind, snapshot: &[u8], deltas: &[Bytes]) -> Result<Vec<u8>, EngineError> {
    Ok(Segment::decode(SegmentId::default(), kind, kind.generation_zero(), 0, snapshot, deltas)?.encode())
}

/// Whether a folded snapshot is what was folded: replays that once more, and compares value by value, and which changes are in
/// it.
pub fn check_fold(kind: EngineKind, snapshot: &[u8], deltas: &[Bytes], folded: &[u8]) -> Result<(), EngineError> {
    let id = SegmentId::default();
    let before = Segment::decode(id, kind, kind.generation_zero(), 0, snapshot, deltas)?;
    let after = Segment::decode(id, kind, kind.generation_zero(), 0, folded, &[])?;
    if before.values() != after.values() || before.engine.holds() != after.engine.holds() {
        return Err(EngineError::Failed("a folded snapshot does not say what was folded".into()));
    }
    Ok(())
}
