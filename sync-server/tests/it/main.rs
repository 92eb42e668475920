//! The relay as a process: started, spoken to over WebSockets, killed, started again.

#![allow(clippy::unwrap_used, reason = "a test that finds something wrong panics")]

mod client;
mod faults;
mod lifecycle;
mod process;
mod talk;
