//! The core of coheap: every decision, no I/O.
//!
//! A heap is a graph of objects in *segments*; each segment is one CRDT document. A [`replica`] holds some of them, turns a
//! program's edits into commits, and applies the commits of others at its *cut*. A [`relay`] gives commits their one order.
//! Both are machines without socket, clock, file or randomness: `handle` an input, `poll` outputs until there are none,
//! wake them at their `deadline`.
//!
//! ```text
//!   edits ──► replica ──Commit──► relay ──Append──► store
//!   patches ◄─ replica ◄──Entry── relay ◄─durable── store
//! ```
//!
//! Reading order: [`id`], [`value`], [`commit`], [`wire`], [`admit`], [`relay`]; then [`segment`], [`heap`], [`replica`].

pub mod admit;
pub mod commit;
#[cfg(feature = "replica")]
pub mod edge;
#[cfg(feature = "replica")]
pub mod edit;
pub mod guard;
#[cfg(feature = "replica")]
pub mod heap;
pub mod id;
pub mod limits;
pub mod log;
pub mod mutate;
pub mod relay;
#[cfg(feature = "replica")]
pub mod replica;
#[cfg(feature = "replica")]
pub mod segment;
pub mod time;
pub mod value;
pub mod version;
pub mod wire;
