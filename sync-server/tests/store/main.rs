//! The store over disks that fail: what it says afterwards is exactly what was there, or an error with a name. Every test
//! opens the store as the relay does; only what lies below is simulated (`tests/sim/disk_backend.rs`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod crash;
mod damage;
mod generations;
mod pages;
mod salvage;
mod world;
