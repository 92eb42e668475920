//! Everything that is tested against the types that ship, in one binary.

mod cluster;
