//! Entry points for fuzzing: one per parser of bytes from outside.
//!
//! A test runs each over the seeds in `corpus/<name>`. They assert what a caller relies on beyond
//! "does not panic": that output is bounded by input.

/// Hears arbitrary bytes as the kernel's answer to a request.
pub fn fuzz_conversation(data: &[u8]) {
    crate::socket::fuzz_conversation(data);
}

/// Decodes arbitrary bytes as an interface message, VF list included.
pub fn fuzz_link(data: &[u8]) {
    crate::link::fuzz_link(data);
}

/// Decodes arbitrary bytes as the number of a namespace.
pub fn fuzz_netns_id(data: &[u8]) {
    crate::netns_id::fuzz_netns_id(data);
}

/// Decodes arbitrary bytes as an address message.
pub fn fuzz_address(data: &[u8]) {
    crate::address::fuzz_address(data);
}

/// Decodes arbitrary bytes as a route message.
pub fn fuzz_route(data: &[u8]) {
    crate::route::fuzz_route(data);
}

/// Parses arbitrary bytes as a device event.
pub fn fuzz_uevent(data: &[u8]) {
    crate::events::fuzz_uevent(data);
}

/// Decodes arbitrary bytes as devlink answers.
pub fn fuzz_devlink(data: &[u8]) {
    crate::devlink::fuzz_devlink(data);
}

/// Decodes arbitrary bytes as the features of an interface.
pub fn fuzz_ethtool_feature(data: &[u8]) {
    crate::ethtool::fuzz_ethtool_feature(data);
}

/// Decodes arbitrary bytes as vDPA answers.
pub fn fuzz_vdpa(data: &[u8]) {
    crate::vdpa::fuzz_vdpa(data);
}

/// Decodes arbitrary bytes as RDMA answers.
pub fn fuzz_rdma(data: &[u8]) {
    crate::rdma::fuzz_rdma(data);
}
