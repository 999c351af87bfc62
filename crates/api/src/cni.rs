//! The CNI protocol (0.1.0 to 1.1.0), and the configurations and files of the SR-IOV, InfiniBand SR-IOV
//! and RDMA CNI plugins.
//!
//! | Comes in or goes out | See |
//! |---|---|
//! | environment variables, `CNI_ARGS` | [`Environment`], [`Arguments`] |
//! | the network configuration on stdin | [`NetworkConfig`], [`SriovConfig`], [`IbSriovConfig`], [`RdmaConfig`] |
//! | results, of ours and of IPAM plugins | [`AddResult`] |
//! | errors | [`ErrorObject`] |
//! | the files that upstream's plugins keep below `/var/lib/cni` | [`SriovCache`], [`IbSriovCache`], [`RdmaState`] |
//!
//! What would surprise: plugins in the field are written in Go, and configurations rely on how Go
//! reads JSON. Keys are compared without case, the last of several equal ones wins, `null` is as
//! good as absent, and numbers are never texts.

mod arguments;
mod cache;
mod config;
mod environment;
mod error;
mod ib_sriov;
mod json;
mod rdma;
mod result;
mod sriov;
mod version;

pub use arguments::{Arguments, ArgumentsError};
pub use cache::{CacheFile, CachedIpam, CachedRuntime, OrigVfState, ParseCacheError, SriovCache};
pub use config::{Attachment, ConfigError, NetworkConfig, STDIN_LIMIT};
pub use environment::{Command, ContainerId, Environment, EnvironmentError, SearchPath};
pub use error::{ErrorNumber, ErrorObject};
pub use ib_sriov::{IbArguments, IbCniArguments, IbRuntime, IbSriovCache, IbSriovConfig};
pub use rdma::{RdmaConfig, RdmaParent, RdmaState};
pub use result::{AddResult, Dns, Interface, Ip, ResultError, Route};
pub use sriov::{LogLevel, SriovConfig, SwitchText};
pub use version::{CniVersion, versions_json};
