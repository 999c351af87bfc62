//! virtfn beside what Debian brings: systemd with udev and systemd-networkd, containerd and podman.
//!
//! They fail, rather than skip, where the lab cannot be set up or where `virtfn` was not built.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests may panic as tests may"
)]

mod cdi;
mod containers;
mod dhcp;
mod reboot;
mod support;
