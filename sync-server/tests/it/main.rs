//! The relay as a process: started, spoken to over WebSockets, killed, started again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod client;
mod disks;
mod faults;
mod lifecycle;
mod peer;
mod process;
mod quarantine;
mod restore;
mod salvage;
mod talk;
mod tools;
