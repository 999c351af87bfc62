//! Runs the built `virtfn agent` on recorded hosts, against a kubelet that is played.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that cannot go on fails its test"
)]

mod allocate;
mod config;
mod fake_kubelet;
mod restart;
mod running;
