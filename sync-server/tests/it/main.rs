//! The relay as a process: started, spoken to over WebSockets, killed, started again.

mod client;
mod faults;
mod lifecycle;
mod process;
mod talk;
