//! Which plugin is called: the name of the file that the runtime starts.

use std::ffi::OsStr;

/// A plugin that this program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugin {
    /// A VF for a container.
    Sriov,
    /// An InfiniBand VF for a container.
    IbSriov,
    /// The RDMA device of a VF for a container, chained behind one of the others.
    Rdma,
}

impl Plugin {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Sriov, Self::IbSriov, Self::Rdma];

    /// Returns the plugin of a file name; `None` when this program is not that plugin.
    pub(crate) fn of(name: &OsStr) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|plugin| name == OsStr::new(plugin.name()))
    }

    /// Returns the name of its file, which is the `type` of its configurations.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sriov => "sriov",
            Self::IbSriov => "ib-sriov",
            Self::Rdma => "rdma",
        }
    }

    /// Returns what the log calls it (`cniName`).
    pub(crate) fn log_name(self) -> &'static str {
        match self {
            Self::Sriov => "sriov-cni",
            Self::IbSriov => "ib-sriov-cni",
            Self::Rdma => "rdma-cni",
        }
    }
}
