//! End-to-end tests that run inside a machine, on a real kernel with emulated SR-IOV devices.
//!
//! `cargo xtask test --lab [NAME]` boots a few machines with two igb NICs and an NVMe device each and
//! shares the tests of this binary among them; `$VIRTFN` names the `virtfn` under test. Every test
//! starts from a host without VFs ([`support::Machine::fresh`]), so in a machine they run one at a time,
//! and in any order.

#![expect(
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod agent;
mod agent_kill;
mod agent_ledger;
mod agent_pools;
mod apply;
mod attach;
mod cni;
mod cni_bad;
mod cni_chain;
mod cni_cost;
mod cni_install;
mod cni_kill;
mod cni_support;
#[path = "../../../crates/cli/tests/agent/fake_kubelet.rs"]
#[expect(
    clippy::unwrap_used,
    dead_code,
    reason = "a test helper that is shared with the tests of the command"
)]
mod fake_kubelet;
mod faults;
mod kept;
mod kernel;
mod kill;
mod kill_driver;
mod list;
mod persist;
mod policies;
mod rdma;
mod records;
mod refuse;
mod support;
mod surprise;
mod uppers;
