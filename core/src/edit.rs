//! The three words for change. A [`Wish`] is what a program did, in its own terms (handles, indexes). An [`Edit`] is the same
//! anchored: object and element ids, so that it still means something on another state of the segment; it is what `pending`
//! keeps. A [`Patch`] is what a mirror has to do. Wishes and patches cross the [`crate::edge`]; edits never leave the core.

use crate::id::ObjectId;
use crate::value::{Identity, Kind, Value};

/// Names an object of one segment towards JavaScript; 0 is the first object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Handle(pub u32);

/// A list element's own identity, drawn at its insertion, kept by moves and redos.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ElementId(pub u64);

/// A value as a program wrote it: containers as literals.
#[derive(Clone, PartialEq, Debug)]
pub enum Literal {
    /// A scalar.
    Scalar(Value),
    /// Entries in the order they were written.
    Map(Vec<(String, Literal)>),
    /// Elements.
    List(Vec<Literal>),
    /// Characters.
    Text(String),
    /// A counter's base.
    Counter(f64),
    /// Members, scalars all.
    Set(Vec<Value>),
}

impl Literal {
    /// The kind of container it makes, if it makes one.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Literal::Scalar(_) => None,
            Literal::Map(_) => Some(Kind::Map),
            Literal::List(_) => Some(Kind::List),
            Literal::Text(_) => Some(Kind::Text),
            Literal::Counter(_) => Some(Kind::Counter),
            Literal::Set(_) => Some(Kind::Set),
        }
    }
}

/// One thing a program did to one segment.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "the fields are those of `edge`, which documents them")]
pub enum Wish {
    /// A key of a map gets a value.
    Set { object: Handle, key: String, value: Literal },
    /// A key of a map goes.
    Delete { object: Handle, key: String },
    /// Elements come into a list.
    Insert { object: Handle, index: u32, values: Vec<Literal> },
    /// Elements leave a list.
    Remove { object: Handle, index: u32, count: u32 },
    /// An element is replaced.
    Put { object: Handle, index: u32, value: Literal },
    /// An element moves within its list.
    Move { object: Handle, from: u32, to: u32 },
    /// A text changes.
    Splice { object: Handle, index: u32, removed: u32, inserted: String },
    /// A counter counts.
    Add { object: Handle, by: f64 },
    /// A set gets a member.
    Include { object: Handle, member: Value },
    /// A set loses a member.
    Exclude { object: Handle, member: Value },
    /// What a new segment's first object is.
    Root { value: Literal },
    /// `initial`: a key gets a default, if it has neither value nor default.
    Default { object: Handle, key: String, value: Literal },
    /// The work on this segment is done, for this run.
    Mark { group: String, run: String },
    /// An object that nothing holds, under an id that is fresh.
    Near { object: ObjectId, value: Literal },
}

/// A value in an edit: containers with the identity they were given.
#[derive(Clone, PartialEq, Debug)]
pub enum New {
    /// A scalar.
    Scalar(Value),
    /// A container and what it is created with.
    Container(Identity, Content),
}

/// What a container is created with.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// Entries.
    Map(Vec<(String, New)>),
    /// Elements.
    List(Vec<(ElementId, New)>),
    /// Characters.
    Text(String),
    /// A base.
    Counter(f64),
    /// Members.
    Set(Vec<Value>),
}

impl Content {
    /// The kind of container it fills.
    pub fn kind(&self) -> Kind {
        match self {
            Content::Map(_) => Kind::Map,
            Content::List(_) => Kind::List,
            Content::Text(_) => Kind::Text,
            Content::Counter(_) => Kind::Counter,
            Content::Set(_) => Kind::Set,
        }
    }
}

/// A wish, anchored.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "as in Wish; ids instead of handles, elements instead of indexes")]
pub enum Edit {
    /// A key of a map gets a value.
    Set { object: ObjectId, key: String, value: New },
    /// A key of a map goes.
    Delete { object: ObjectId, key: String },
    /// Elements come behind `after` (`None`: at the start).
    Insert { list: ObjectId, after: Option<ElementId>, values: Vec<(ElementId, New)> },
    /// Elements go.
    Remove { list: ObjectId, elements: Vec<ElementId> },
    /// An element is replaced.
    Put { list: ObjectId, element: ElementId, value: New },
    /// An element moves behind `after`, into the slot drawn for it.
    Move { list: ObjectId, element: ElementId, after: Option<ElementId>, slot: u64 },
    /// A text changes.
    Splice { text: ObjectId, index: u32, removed: u32, inserted: String },
    /// A counter counts.
    Add { counter: ObjectId, by: f64 },
    /// A set gets a member.
    Include { set: ObjectId, member: Value },
    /// A set loses a member.
    Exclude { set: ObjectId, member: Value },
    /// What the segment's first object is.
    Root { content: Content },
    /// A default, for a key that has neither value nor default.
    Default { object: ObjectId, key: String, value: New },
    /// The work on this segment is done, for this run.
    Mark { group: String, run: String },
    /// An object that nothing holds.
    Near { object: ObjectId, content: Content },
}

/// A value as a mirror shows it.
#[derive(Clone, PartialEq, Debug)]
pub enum Shown {
    /// A scalar (never a container).
    Scalar(Value),
    /// An object of the segment.
    Object(Kind, Handle),
}

/// What a mirror has to do, in order.
#[derive(Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "the fields are those of `edge`, which documents them")]
pub enum Patch {
    /// A key of a map shows a value.
    Set { object: Handle, key: String, value: Shown },
    /// A key of a map is absent.
    Delete { object: Handle, key: String },
    /// Elements come.
    Insert { object: Handle, index: u32, values: Vec<Shown> },
    /// Elements go.
    Remove { object: Handle, index: u32, count: u32 },
    /// An element shows another value.
    Put { object: Handle, index: u32, value: Shown },
    /// An element moves; `to` is its index afterwards.
    Move { object: Handle, from: u32, to: u32 },
    /// A text changes; UTF-16 units.
    Splice { object: Handle, index: u32, removed: u32, inserted: String },
    /// A counter's value.
    Total { object: Handle, value: f64 },
    /// A set has a member.
    Include { object: Handle, member: Value },
    /// A set has a member no longer.
    Exclude { object: Handle, member: Value },
    /// The kind of the first object.
    Root { kind: Kind },
    /// The content is forgotten; all of it follows.
    Clear { object: Handle },
    /// The work on this segment is done for this run.
    Mark { group: String, run: String },
    /// An object is there although nothing holds it.
    Near { id: ObjectId, kind: Kind, object: Handle },
}
