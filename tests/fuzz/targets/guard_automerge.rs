#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coheap_fuzz::guard(coheap_fuzz::EngineKind::Automerge, data));
