//! Machines with emulated SR-IOV devices, to try and test virtfn without the hardware.
//!
//! A [`Lab`] is one or more QEMU machines that run a stock kernel on the *host's own files*
//! (read-only below an overlay), so whatever runs on the host runs inside as it is. The program
//! `virtfn-lab` is a thin shell around this library; tests use the library:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = lab::Lab::boot(&lab::Topology::igb(2))?;
//! lab[0].run("ip link set eth0 up")?.check()?;
//! # Ok(())
//! # }
//! ```
//!
//! What would surprise you: a machine dies with the process that booted it, in whatever way
//! that ends (see [`Lab`]); nothing is written outside the cache; and the library prints nothing.

mod assets;
mod bundle;
mod disk;
mod hub;
mod lab;
mod machine;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the init, which uses the other half"
)]
mod proto;
mod topology;
pub mod up;

pub use crate::assets::{Assets, Choice, Kernel, Qemu};
pub use crate::lab::{Boot, Lab};
pub use crate::machine::{
    Command, Control, Event, KillSwitch, Machine, Output, Running, TimedOut, Timing,
};
pub use crate::proto::Exit;
pub use crate::topology::{Nic, Topology};
