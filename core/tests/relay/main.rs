//! The relay machine, driven by hand: one test per rule of CORE-PROTOCOL, named after it.
#![cfg(feature = "yrs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admission;
mod adopt;
mod bounds;
mod copies;
mod groups;
mod hello;
mod large;
mod quarantine;
mod restore;
mod retention;
mod roll;
mod shared_log;
mod shown;
mod stream;
mod world;
mod writer;
