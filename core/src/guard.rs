//! The guard: every byte string that is going to reach an engine is judged here first, without an engine.
//!
//! yrs and automerge trust their input: mutated updates make them ask for terabytes, hang, panic, or poison every later
//! encode (`ENGINES` §7). The guard lets through what an honest replica of ours writes, and as little else as it can.
//! It never panics, is total over all byte strings, takes `n log n` time at worst and a small multiple of `n` in memory.
//!
//! ```text
//!   delta ──► structure() ──► Summary ──► Clocks::check ──► engine
//!             stateless:                  stateful, per (segment, generation):
//!             counts, lengths, shape      who owns a client id, where its clock stands,
//!             (connection and replica)    what may be named (admission and replica, CORE-PROTOCOL R10)
//!   state ──► whole() ──────► Clocks ───────────────────► engine
//! ```
//!
//! What it never does: allocate for a value, order or merge anything, repair bytes, keep text of a document.
//!
//! One thing more than clocks must be known of every item: which of the three name spaces of `SEGMENT.md` it lies in,
//! registers, sequences or texts. yrs does not care: an item goes where its neighbours are, whatever it holds. But one
//! between a list element and a register is linked into both chains, and values inside a text count in its length and
//! cannot be removed; from then on edits of *honest* replicas panic. So roots must bear the names that `SEGMENT.md` gives
//! them, an item must lie in the space of its neighbours, and the table keeps the spaces of all clocks, as runs.
//!
//! Next: `guard/yrs.rs` (how a v1 update is laid out), `guard/clocks.rs` (the clock table), `guard/whole.rs` (states).

mod agree;
#[cfg(feature = "guard-automerge")]
pub mod automerge;
mod clocks;
mod read;
mod space;
#[cfg(test)]
mod tests;
mod whole;
mod yrs;

use thiserror::Error;

pub use clocks::{BARRED, Clocks, Continuity, RELAY, UNBOUND};
pub use space::{Beside, Claim, Runs, Says, Space};

/// Client ids lie below this: a JavaScript number holds them, and yrs keeps no more bits.
pub const CLIENT_END: u64 = 1 << 53;
/// Clocks end here at the latest: in a snapshot yrs writes differences of clocks in 31 bits with their sign, and a clock beyond
/// comes back as another one.
pub const CLOCK_END: u32 = 1 << 30;
/// How deep arrays and maps may lie inside one value. A value without any has depth 0.
pub const VALUE_DEPTH_MAX: usize = 32;
/// Bytes in the name of a root type. Ours are ids or single letters; yrs keeps every name for the document's life.
pub const ROOT_NAME_MAX: usize = 255;

/// Which engine's bytes these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// A yrs update in encoding v1.
    Yrs,
    /// An automerge change.
    Automerge,
}

/// Why bytes were refused. Each one refuses the commit that carries them for good (CORE-PROTOCOL R11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The bytes end inside a field.
    #[error("the bytes end inside a field")]
    Truncated,
    /// Bytes follow the end of the update.
    #[error("bytes follow the end")]
    Trailing,
    /// A varint that is too big for its field, or longer than it need be.
    #[error("a number is too big or padded")]
    BadNumber,
    /// A count of things that cannot lie in the bytes that remain, or more to remember than so many bytes may need.
    #[error("a count exceeds the bytes that remain")]
    TooMany,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    BadString,
    /// A kind of struct, content or value that no replica of ours writes.
    #[error("content of a kind that is not in use")]
    BadContent,
    /// A value nested deeper than [`VALUE_DEPTH_MAX`].
    #[error("a value is nested too deep")]
    TooDeep,
    /// Something of length zero where engines count on at least one.
    #[error("something has length zero")]
    Empty,
    /// A root type that `SEGMENT.md` does not know, or whose name is longer than [`ROOT_NAME_MAX`].
    #[error("not a root type of ours")]
    BadRoot,
    /// An item inside another item: our documents have root types only.
    #[error("an item's parent is another item")]
    Nested,
    /// A client id of 2^53 or more.
    #[error("a client id is out of range")]
    BadClient,
    /// A clock beyond [`CLOCK_END`].
    #[error("a clock is out of range")]
    ClockOverflow,
    /// Delete ranges out of order or overlapping.
    #[error("delete ranges overlap or are out of order")]
    BadRange,
    /// One client in two sections.
    #[error("a client occurs in two sections")]
    RepeatedClient,
    /// A delta with structs of more than one client.
    #[error("structs of more than one client")]
    SeveralClients,
    /// The client id is bound to another owner.
    #[error("the client belongs to another owner")]
    ForeignClient,
    /// The client id, or what it builds on, is quarantined (CORE-PROTOCOL R12).
    #[error("the client is quarantined")]
    Quarantined,
    /// The structs start neither at the client's next clock nor lie wholly below it; or a state does not start at 0.
    #[error("the clocks do not continue")]
    ClockGap,
    /// It names a clock that does not exist yet.
    #[error("it names a clock that nobody has used")]
    UnknownClock,
    /// Structs of a state that wait for one another.
    #[error("structs wait for one another")]
    Cycle,
    /// An item that would lie in two name spaces at once, or in one that its content does not belong to.
    #[error("an item lies in two name spaces")]
    TornItem,
    /// A checksum that is not that of its bytes.
    #[error("a checksum differs")]
    BadSum,
    /// A clock table that its encoder could not have written.
    #[error("not a clock table")]
    BadTable,
    /// There is no guard for this engine yet.
    #[error("no guard for this engine")]
    UnsupportedEngine,
}

/// The clocks of a delta's own structs: `client` from `start` up to, not including, `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnRange {
    /// The engine's client id.
    pub client: u64,
    /// The first clock.
    pub start: u32,
    /// One past the last clock; always more than `start`.
    pub end: u32,
}

/// What [`structure`] learnt of a delta, in numbers only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// The structs; none in a delta that only deletes, or is empty.
    pub own: Option<OwnRange>,
    /// For every *other* client that origins or delete ranges name: one past the highest clock named, by client.
    /// What the delta names of its own client has been checked against its own structs.
    pub named: Vec<(u64, u32)>,
    /// The name spaces of its own clocks.
    pub spaces: Runs<Claim>,
    /// The items outside this delta that its items lie beside.
    pub beside: Vec<Beside>,
}

/// The structure half for a delta: stateless. `Ok` is only half the answer, [`Clocks::check`] is the other.
pub fn structure(engine: Engine, bytes: &[u8]) -> Result<Summary, GuardError> {
    match engine {
        Engine::Yrs => yrs::delta(bytes),
        #[cfg(feature = "guard-automerge")]
        Engine::Automerge => automerge::delta(bytes),
        #[cfg(not(feature = "guard-automerge"))]
        Engine::Automerge => Err(GuardError::UnsupportedEngine),
    }
}

/// Whether two whole segments that passed [`whole`] hold the same under every engine identity that both have, as far as content was
/// not lost: what copies of one process wrote does not, and is not to reach an engine together (CORE-PROTOCOL D4).
pub fn agree(engine: Engine, one: &[u8], other: &[u8]) -> Result<bool, GuardError> {
    match engine {
        Engine::Yrs => agree::states(one, other),
        Engine::Automerge => Ok(true),
    }
}

/// The structure half for a whole segment (restored or rolled), in the form in which it travels and lies in the log
/// (`Engine::whole`), and the clock table that it comes to: every client from clock 0, nothing named that is not in it, no structs
/// that wait for one another, no item torn between two name spaces. Its clients are bound to nobody: whoever goes on as one of
/// them first is its owner.
pub fn whole(engine: Engine, bytes: &[u8]) -> Result<Clocks, GuardError> {
    match engine {
        Engine::Yrs => whole::state(bytes),
        #[cfg(feature = "guard-automerge")]
        Engine::Automerge => {
            let mut clocks = Clocks::default();
            for delta in automerge::deltas_of(bytes) {
                let summary = automerge::delta(delta?)?;
                clocks.check(UNBOUND, &summary)?;
                clocks.record(UNBOUND, &summary);
            }
            Ok(clocks)
        }
        #[cfg(not(feature = "guard-automerge"))]
        Engine::Automerge => Err(GuardError::UnsupportedEngine),
    }
}
