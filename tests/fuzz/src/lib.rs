//! What the fuzz targets do with their bytes; `targets/` only hands them over. `cargo xtask fuzz` builds and runs them.
//!
//! ```text
//!   frames            messages, states, rows: decode, encode, decode                          ≤ 4 × input + 64 KiB
//!   guard_yrs         deltas, mutated or arbitrary: both halves, then an engine and an edit   the same, then ≤ 256 × input + 1 MiB
//!   guard_automerge   the same for automerge
//!   replica           calls of JavaScript and messages of a relay, in every phase             ≤ 256 × input + 1 MiB
//!   packed            a replica from bytes                                                    ≤ 256 × input + 1 MiB
//!   relay             messages of replicas, closes, time, in every phase                      ≤ 256 × input + 1 MiB
//!   store             rows and records, then a store with such rows in it, or with a damaged file
//! ```
//!
//! Panics, hangs and the sanitizer's finds are the fuzzer's to notice; what is too much memory says [`count`]. Panics of the
//! engines and of the database are looked at in [`contained`]. Seeds: `seeds.rs`.

pub mod contained;
pub mod count;
mod frames;
mod guard;
pub mod input;
mod packed;
mod relay;
mod replica;
mod store;
pub mod talk;

pub use coheap_core::commit::EngineKind;
pub use frames::frames;
pub use guard::{STAGES, Stage, guard, stage};
pub use packed::packed;
pub use relay::relay;
pub use replica::replica;
pub use store::{image, store};
