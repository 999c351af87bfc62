//! Runs the built `virtfn agent` on recorded hosts, against a kubelet that is played.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that cannot go on fails its test"
)]

mod allocate;
mod bad_places;
mod config;
mod events;
mod explain;
mod fake_kubelet;
mod kinds;
mod metrics;
mod restart;
mod running;
mod trouble;
