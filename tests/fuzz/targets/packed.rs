#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coheap_fuzz::packed(data));
