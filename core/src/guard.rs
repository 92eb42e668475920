//! Bounded checks of engine bytes.
