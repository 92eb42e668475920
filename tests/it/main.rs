//! The tests of coheap. Each module's header says its goal and method.
#![allow(clippy::print_stdout, reason = "statistics are worth seeing")]

mod clocks;
mod cluster;
mod convergence;
mod golden;
mod schedules;
mod semantics;
mod small_worlds;
mod tidy;
mod traces;
mod wire_golden;
