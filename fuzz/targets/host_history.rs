#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| host::fuzz::fuzz_history(data));
