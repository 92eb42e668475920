//! The coheap core.
