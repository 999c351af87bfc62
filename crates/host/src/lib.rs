//! The only crate that reads or changes Linux.
//!
//! Everything reaches the host's files through a [`HostRoot`], so that the real machine, a
//! container's `/host` and a recording are one code path.

mod root;

pub use root::{AccessError, HostRoot};
