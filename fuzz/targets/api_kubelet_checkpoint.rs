#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::fuzz::fuzz_kubelet_checkpoint(data));
