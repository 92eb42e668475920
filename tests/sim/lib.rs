//! Deterministic simulation of heaps.
