//! E2, E10, E11, E12: power failures, errors of syncs and writes, a full disk. Nothing that was reported as written is ever
//! missing, and nothing is ever half there.
