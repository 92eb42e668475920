//! The relay machine, driven by hand: one test per rule of CORE-PROTOCOL, named after it.
#![cfg(feature = "yrs")]

mod admission;
mod groups;
mod hello;
mod stream;
mod world;
