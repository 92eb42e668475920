//! A replica by itself: what it asks of a relay, and what it makes of answers that only a test gives.
#![cfg(feature = "yrs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adopt;
mod answers;
mod clocks;
mod commit_size;
mod copies;
mod desk;
mod dump;
mod lines;
mod loads;
#[cfg(not(feature = "automerge"))]
mod needs_full;
mod quarantine;
mod rest;
mod restore;
mod retention;
mod roll;
mod unknown;
