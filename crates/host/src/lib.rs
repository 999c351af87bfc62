//! The only crate that reads or changes Linux.
//!
//! [`Linux`] is a real host. It reaches the host's files through a [`HostRoot`], so that the real
//! machine, a container's `/host` and a recording ([`record`]) are one code path, and the kernel
//! through netlink.

mod discover;
#[doc(hidden)]
pub mod fuzz;
mod linux;
mod pci_ids;
mod queries;
mod record;
mod root;

pub use discover::config;
pub use linux::Linux;
pub use pci_ids::{PciNames, pci_names};
pub use queries::QueryError;
pub use record::{RecordError, Tree, TreeError, UnpackError};
pub use root::{AccessError, HostRoot};
