//! What an administrator wrote, and what it means for one host.

use std::collections::BTreeMap;
use std::fmt;

use crate::{
    DriverName, EswitchMode, IfName, LinkType, Mtu, PciAddress, RdmaNetnsMode, VdpaKind, VfIndex,
    VfRange,
};

/// One `SriovNetworkNodePolicy`, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePolicy {
    /// Name of the object.
    pub name: String,
    /// Where it was read, for errors.
    pub origin: Origin,
    /// 0 to 99; 0 is the most important and is applied last.
    pub priority: u8,
    /// Resource that its VFs are offered as.
    pub resource: String,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Which PFs it is for.
    pub nic: NicSelector,
    /// How many VFs; 0 contributes nothing.
    pub num_vfs: u16,
    /// MTU of the PF and its VFs.
    pub mtu: Option<Mtu>,
    /// Driver of the VFs.
    pub driver: VfDriver,
    /// Are the VFs wanted with RDMA?
    pub is_rdma: bool,
    /// Do pods need `/dev/vhost-net`?
    pub need_vhost_net: bool,
    /// Link layer of the port.
    pub link_type: Option<LinkType>,
    /// Eswitch mode.
    pub eswitch: Option<EswitchMode>,
    /// vDPA devices on the VFs.
    pub vdpa: Option<VdpaKind>,
    /// Are the PFs configured by somebody else, so that only the VFs are ours?
    pub externally_managed: bool,
    /// Is the NUMA hint left out of what the kubelet is told?
    pub exclude_topology: bool,
}

/// Where a document was read: a file and the line on which it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file, as the user named it.
    pub file: String,
    /// Line in the file, from 1; 0 when there is none to name.
    pub line: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.pad(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Which PFs a policy is for: every criterion that is given must hold. None given selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicSelector {
    /// PCI vendor.
    pub vendor: Option<u16>,
    /// PCI device of the PF.
    pub device: Option<u16>,
    /// PFs by address.
    pub root_devices: Vec<PciAddress>,
    /// PFs by name, perhaps with a range of VFs.
    pub pf_names: Vec<PfNameSelector>,
    /// Network of a virtual platform.
    pub net_filter: Option<NetFilter>,
}

impl NicSelector {
    /// Is no criterion given?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A PF by name, and the VFs of it that a policy is for: `ens1f0#0-3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfNameSelector {
    /// Name or alternative name of the PF; not always a valid interface name, so it is text.
    pub name: String,
    /// The VFs; `None` for all.
    pub range: Option<VfRange>,
}

/// Key and value of a `netFilter`, such as `openstack/NetworkID` and a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetFilter {
    /// Text before the colon.
    pub key: String,
    /// Text behind the colon.
    pub value: String,
}

/// Driver that a policy wants its VFs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VfDriver {
    /// The kernel's own choice, so that the VF is a netdev (`deviceType: netdevice`).
    Kernel,
    /// This one (`deviceType: vfio-pci`).
    Named(DriverName),
}

impl fmt::Display for VfDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.pad("netdevice"),
            Self::Named(driver) => driver.fmt(f),
        }
    }
}

/// What one host should have: the policies, merged and resolved to PFs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The PFs that somebody wants something of, by address.
    pub pfs: BTreeMap<PciAddress, PfDesired>,
    /// How RDMA devices should relate to network namespaces; `None` for what the kernel starts with.
    pub rdma_netns: Option<RdmaNetnsMode>,
}

/// What one PF should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfDesired {
    /// The PF.
    pub pf: PciAddress,
    /// Its netdev's name when the policies were resolved.
    pub name: Option<IfName>,
    /// How many VFs.
    pub num_vfs: u16,
    /// MTU of the PF; only ever raised.
    pub mtu: Option<Mtu>,
    /// Link layer that the port must have.
    pub link_type: Option<LinkType>,
    /// Eswitch mode; `None` is legacy, as upstream has it.
    pub eswitch: Option<EswitchMode>,
    /// Is the PF configured by somebody else?
    pub externally_managed: bool,
    /// What is wanted of its VFs; no two ranges overlap, the most important group is first.
    pub groups: Vec<VfGroup>,
}

impl PfDesired {
    /// Returns the group that `vf` is in.
    #[must_use]
    pub fn group_of(&self, vf: VfIndex) -> Option<&VfGroup> {
        self.groups.iter().find(|group| group.range.contains(vf))
    }
}

/// What is wanted of some VFs of one PF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfGroup {
    /// Resource that they are offered as.
    pub resource: String,
    /// Policy that asks for it.
    pub policy: String,
    /// The VFs.
    pub range: VfRange,
    /// Their driver.
    pub driver: VfDriver,
    /// Their MTU, while they are netdevs.
    pub mtu: Option<Mtu>,
    /// Are they wanted with RDMA?
    pub is_rdma: bool,
    /// vDPA devices on them.
    pub vdpa: Option<VdpaKind>,
}
