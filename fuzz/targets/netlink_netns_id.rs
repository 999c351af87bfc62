#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netlink::fuzz::fuzz_netns_id(data));
