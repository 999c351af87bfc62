//! The questions that discovery asks over netlink, and who answers them.
//!
//! [`Live`] asks the kernel, [`Recorded`] reads what a live host answered once. Everything that a
//! file of sysfs says is read there and is no question here: vDPA and RDMA devices, speeds, and so
//! on. One link dump answers for all netdevs; where one VF matters, only it and its PF are asked for.

mod live;
mod namespaces;
mod recorded;

use std::collections::BTreeMap;
use std::error::Error;

use model::{
    EswitchMode, Function, IfIndex, IfName, NodeUse, PciAddress, RdmaNetnsMode, SteeringMode,
};
use netlink::{Link, RequestError, Socket};
use serde::{Deserialize, Serialize};

use crate::root::HostRoot;

pub(crate) use live::Live;
pub(crate) use recorded::{NodeUseAnswer, PfAnswers, Recorded};

/// Files of a recording that hold answers.
pub(crate) mod answers {
    pub(crate) use super::recorded::{ELSEWHERE, LINKS, NODE_USES, PFS, RDMA};
}

/// A question had no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The kernel refused, or did not answer.
    #[error(transparent)]
    Kernel(#[from] RequestError),
    /// The answer could not be got at.
    #[error("{attempt}")]
    Other {
        /// What was tried, naming the object.
        attempt: String,
        /// What came back.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl QueryError {
    pub(crate) fn new(
        attempt: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Other {
            attempt: attempt.into(),
            source: source.into(),
        }
    }
}

/// The netdevs of one other network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Elsewhere {
    /// Inode of the namespace.
    pub(crate) inode: u64,
    /// A path by which it can be entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// Its netdevs that have a parent device.
    pub(crate) links: Vec<Link>,
    /// What it has on netdevs of this namespace, such as a macvlan, by their index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) uppers: BTreeMap<IfIndex, IfName>,
}

/// What runs on a PF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Firmware {
    /// Its version.
    pub(crate) version: Option<String>,
    /// The DDP package, when one is loaded.
    pub(crate) ddp: Option<String>,
}

/// Who answers.
pub(crate) trait Queries: Send {
    /// The netdevs of this namespace, each PF's with what it reports of its VFs.
    fn links(&mut self) -> Result<Vec<Link>, QueryError>;

    /// The netdevs of this namespace without VF reports, which some drivers fetch slowly.
    fn links_without_vfs(&mut self) -> Result<Vec<Link>, QueryError>;

    /// One netdev with what it reports of its VFs; `None` when it is gone.
    fn link(&mut self, index: IfIndex) -> Result<Option<Link>, QueryError>;

    /// The netdevs on these functions, each PF's with what it reports of its VFs; `None` when only the
    /// list of all netdevs can tell.
    fn links_on(
        &mut self,
        root: &HostRoot,
        functions: &mut dyn Iterator<Item = &Function>,
    ) -> Result<Option<Vec<Link>>, QueryError>;

    /// The netdevs of every other network namespace that can be found.
    ///
    /// What could not be entered is told as the second part.
    fn elsewhere(&mut self, root: &HostRoot) -> (Vec<Elsewhere>, Vec<QueryError>);

    /// The eswitch mode of a PF; `None` when its driver has none.
    fn eswitch(&mut self, pf: PciAddress) -> Result<Option<EswitchMode>, QueryError>;

    /// How the eswitch of a PF steers packets; `None` when its driver does not let that be chosen.
    fn steering(&mut self, pf: PciAddress) -> Result<Option<SteeringMode>, QueryError>;

    /// Does the netdev of a PF hand rules of tc to the hardware? `None` when it cannot.
    fn tc_offload(&mut self, pf: PciAddress, netdev: IfIndex) -> Result<Option<bool>, QueryError>;

    /// The firmware that a PF runs; devlink is asked first, for its version then ethtool.
    fn firmware(&mut self, pf: PciAddress, netdev: Option<&IfName>)
    -> Result<Firmware, QueryError>;

    /// What netdevs of this namespace do for the node itself; those that do nothing are left out.
    fn node_uses(&mut self) -> Result<BTreeMap<IfIndex, NodeUse>, QueryError>;

    /// Gives its rtnetlink socket away, if it has one.
    fn take_route(&mut self) -> Option<Socket>;

    /// How RDMA devices relate to network namespaces; `None` without RDMA in the kernel.
    fn rdma_netns(&mut self) -> Result<Option<RdmaNetnsMode>, QueryError>;
}
