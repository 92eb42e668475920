//! The tests of coheap. Each module's header says its goal and method.
#![allow(clippy::print_stdout, reason = "statistics are worth seeing")]

mod cluster;
mod convergence;
mod golden;
mod near;
mod overruled;
mod schedules;
mod semantics;
mod tidy;
mod wire_golden;
