//! End-to-end tests that run inside a machine, on a real kernel with emulated SR-IOV devices.
//!
//! `cargo xtask test --lab [NAME]` boots one machine with two igb NICs and an NVMe device and runs
//! this binary in it; `$VIRTFN` names the `virtfn` under test. Every test starts from a host
//! without VFs ([`support::Machine::fresh`]), so they run one at a time and in any order.

#![expect(
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod apply;
mod attach;
mod cni;
mod cni_bad;
mod cni_kill;
mod cni_support;
mod faults;
mod kernel;
mod kill;
mod list;
mod persist;
mod policies;
mod refuse;
mod support;
mod surprise;
