//! The core as one class for JavaScript.
//!
//! Owns nothing but the crossing: every method takes whole batches as bytes, hands them to `coheap-core`, and hands
//! bytes back. No logic lives here, and no method calls JavaScript while the replica is borrowed.
//!
//! ```text
//! js/src/driver.ts  ──bytes──►  Replica::call  ──►  coheap-core
//!                   ◄─bytes──                  ◄──
//! ```
//!
//! Each open heap has a wasm instance of its own (`js/src/wasm.ts`), so a trap here costs one replica, which is
//! rebuilt, and never its neighbours.

mod error;
mod replica;

pub use replica::Replica;
