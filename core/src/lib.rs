//! The coheap core.
pub mod guard;
pub mod id;
