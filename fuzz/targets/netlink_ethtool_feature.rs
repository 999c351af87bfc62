#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netlink::fuzz::fuzz_ethtool_feature(data));
