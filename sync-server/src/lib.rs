//! The relay around `coheap_core::relay`.
