#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::fuzz::fuzz_mstconfig(data));
