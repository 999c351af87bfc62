//! What a host was seen to have, at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::ParseError;

use crate::{
    AuxName, DeviceId, DriverName, EswitchMode, Guid, IfIndex, IfName, IommuGroup, LinkType,
    MacAddr, NumaNode, OperState, PciAddress, PciClass, PciId, SteeringMode, VdpaKind, VfIndex,
    VfState,
};

/// Every PCI function of a host that matters to virtfn, by address.
///
/// It holds all functions that have or are VFs, all network controllers, and the other members of
/// their IOMMU groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The functions, by address.
    pub functions: BTreeMap<PciAddress, Function>,
    /// Sub-functions of network controllers, by name. Seen with [`crate::Scope::All`] only.
    pub sub_functions: BTreeMap<AuxName, SubFunction>,
    /// What netdevs of the host's namespace do for the node itself, by index. Seen with
    /// [`crate::Scope::All`] only.
    pub node_uses: BTreeMap<IfIndex, NodeUse>,
    /// Who has what is no VF, or what the host needs it for. Of a VF its own facts tell.
    /// Complete with [`crate::Scope::All`] only.
    pub users: BTreeMap<DeviceId, Holder>,
    /// How RDMA devices relate to network namespaces; `None` when the kernel has no RDMA netlink.
    pub rdma_netns: Option<RdmaNetnsMode>,
    /// What could not be read, and why: the inventory is true but has a hole there.
    pub gaps: Vec<Gap>,
}

impl Inventory {
    /// Returns the functions that can have VFs, with their PF facts, by address.
    pub fn pfs(&self) -> impl Iterator<Item = (&Function, &PfFacts)> {
        self.functions
            .values()
            .filter_map(|function| Some((function, function.pf()?)))
    }

    /// Returns the functions that are VFs, with their VF facts, by address.
    pub fn vfs(&self) -> impl Iterator<Item = (&Function, &VfFacts)> {
        self.functions
            .values()
            .filter_map(|function| Some((function, function.vf()?)))
    }

    /// Returns the function at `address`.
    #[must_use]
    pub fn get(&self, address: PciAddress) -> Option<&Function> {
        self.functions.get(&address)
    }

    /// Returns VF `index` of the PF at `pf`.
    #[must_use]
    pub fn vf_of(&self, pf: PciAddress, index: VfIndex) -> Option<&Function> {
        let address = self.get(pf)?.pf()?.vfs.get(&index)?;
        self.get(*address)
    }

    /// Returns the PF whose own netdev has `name`, as its name or as an alternative name.
    #[must_use]
    pub fn pf_named(&self, name: &str) -> Option<&Function> {
        self.pfs().map(|(function, _)| function).find(|function| {
            function
                .netdev()
                .is_some_and(|netdev| netdev.is_called(name))
        })
    }

    /// Returns who has a device: a VF, or another one.
    #[must_use]
    pub fn holder_of(&self, device: &DeviceId) -> Option<&Holder> {
        let of_vf = match device {
            DeviceId::Pci(address) => self.get(*address).and_then(Function::vf),
            DeviceId::Aux(_) => None,
        };
        of_vf.map_or_else(|| self.users.get(device), |facts| facts.holder.as_ref())
    }

    /// Returns the members of an IOMMU group, by address.
    pub fn group_members(&self, group: IommuGroup) -> impl Iterator<Item = &Function> {
        self.functions
            .values()
            .filter(move |function| function.iommu_group == Some(group))
    }
}

/// One PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor and device, from sysfs (a VF's configuration space answers 0xffff).
    pub id: PciId,
    /// Subsystem vendor and device.
    pub subsystem: Option<PciId>,
    /// Class code.
    pub class: PciClass,
    /// Bound driver.
    pub driver: Option<DriverName>,
    /// The one driver that may bind, when somebody wrote `driver_override`.
    pub driver_override: Option<DriverName>,
    /// IOMMU group; `None` when the IOMMU is off.
    pub iommu_group: Option<IommuGroup>,
    /// NUMA node.
    pub numa: Option<NumaNode>,
    /// Index that the firmware gives to an on-board device (`acpi_index`).
    pub acpi_index: Option<String>,
    /// Netdevs on this function, the uplink first, then by name. Representors are on their PF.
    pub netdevs: Vec<Netdev>,
    /// RDMA devices on this function, by name.
    pub rdma: Vec<RdmaDevice>,
    /// vDPA devices on this function, by name.
    pub vdpa: Vec<VdpaDevice>,
    /// Device nodes of VFIO, while a VFIO driver is bound.
    pub vfio: Option<VfioNode>,
    /// Device node `/dev/uioN`, while a UIO driver is bound.
    pub uio: Option<String>,
    /// What SR-IOV makes of the function.
    pub role: Role,
}

impl Function {
    /// Returns the facts of a PF.
    #[must_use]
    pub fn pf(&self) -> Option<&PfFacts> {
        match &self.role {
            Role::Pf(facts) => Some(facts),
            Role::Vf(_) | Role::Plain => None,
        }
    }

    /// Returns the facts of a VF.
    #[must_use]
    pub fn vf(&self) -> Option<&VfFacts> {
        match &self.role {
            Role::Vf(facts) => Some(facts),
            Role::Pf(_) | Role::Plain => None,
        }
    }

    /// Returns the function's own netdev: the uplink, never a representor.
    #[must_use]
    pub fn netdev(&self) -> Option<&Netdev> {
        self.netdevs
            .first()
            .filter(|netdev| !netdev.is_representor())
    }

    /// Returns the name of the function's own netdev.
    #[must_use]
    pub fn netdev_name(&self) -> Option<&IfName> {
        self.netdev().map(|netdev| &netdev.name)
    }

    /// Returns the vDPA device that virtfn and the operator make of the function.
    #[must_use]
    pub fn own_vdpa(&self) -> Option<&VdpaDevice> {
        let name = vdpa_name(self.address);
        self.vdpa.iter().find(|device| device.name == name)
    }

    /// Names the function as people look for it: `ens1f0 (0000:3b:00.0)`.
    #[must_use]
    pub fn title(&self) -> String {
        self.netdev_name().map_or_else(
            || self.address.to_string(),
            |name| format!("{name} ({})", self.address),
        )
    }
}

/// What SR-IOV makes of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It can have VFs.
    Pf(PfFacts),
    /// It is a VF of a PF of this host.
    Vf(VfFacts),
    /// Neither. A VF that was passed into this machine looks like this too.
    Plain,
}

/// What only a PF has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PfFacts {
    /// Most VFs that it offers (`sriov_totalvfs`); may be 0 when firmware switched SR-IOV off.
    pub total_vfs: u16,
    /// VFs that it has (`sriov_numvfs`).
    pub num_vfs: u16,
    /// Do new VFs get a driver by themselves (`sriov_drivers_autoprobe`)?
    pub autoprobe: Option<bool>,
    /// Device id of its VFs; their vendor is the PF's.
    pub vf_device: Option<u16>,
    /// Routing id of VF 0 less that of the PF (`sriov_offset`).
    pub offset: Option<u16>,
    /// Routing id from one VF to the next (`sriov_stride`).
    pub stride: Option<u16>,
    /// Eswitch mode; `None` when the driver has no devlink eswitch.
    pub eswitch: Option<EswitchMode>,
    /// Does its netdev hand rules of tc to the hardware (`hw-tc-offload`)? `None` when it cannot, or
    /// there is no eswitch to hand them to.
    pub tc_offload: Option<bool>,
    /// How its eswitch steers packets; `None` when the driver does not let that be chosen.
    pub steering: Option<SteeringMode>,
    /// Running firmware, as devlink or else ethtool reports it.
    pub firmware: Option<String>,
    /// DDP package that it runs, which makes it parse other protocols; only Intel's drivers tell.
    pub ddp: Option<String>,
    /// Its VFs, from the `virtfnN` links.
    pub vfs: BTreeMap<VfIndex, PciAddress>,
    /// MACs that it reports of VFs which were not looked at themselves.
    pub unseen_macs: BTreeMap<VfIndex, MacAddr>,
    /// Is the PF looked after by somebody else (`externallyManaged` of a former policy)?
    pub externally_managed: bool,
}

/// What only a VF has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfFacts {
    /// Its PF.
    pub pf: PciAddress,
    /// Its number; `None` while the PF's `virtfnN` link is gone, as during removal.
    pub index: Option<VfIndex>,
    /// What the PF reports; `None` when the PF has no netdev here or left the VF out of its list.
    pub state: Option<VfState>,
    /// Its representor on the PF, in switchdev mode.
    pub representor: Option<IfName>,
    /// Who was given it.
    pub holder: Option<Holder>,
}

impl VfFacts {
    /// Does the VF belong to somebody other than the host, so that its netdev is theirs to set up?
    #[must_use]
    pub fn is_given_away(&self) -> bool {
        let holder = self.holder.as_ref();
        holder.is_some_and(|holder| holder.kind != HolderKind::Host)
    }
}

/// One netdev of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netdev {
    /// Name in its namespace.
    pub name: IfName,
    /// Index in its namespace.
    pub index: IfIndex,
    /// Namespace it is in.
    pub netns: Netns,
    /// Alternative names.
    pub alt_names: Vec<String>,
    /// Link layer.
    pub link_type: LinkType,
    /// Hardware address as text: 6 bytes on Ethernet, 20 on InfiniBand.
    pub address: Option<String>,
    /// Permanent hardware address as text.
    pub permanent_address: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Largest MTU that its driver takes, in bytes; `None` when that is not reported.
    pub max_mtu: Option<u32>,
    /// Is it up as the administrator wants it (`IFF_UP`)?
    pub admin_up: bool,
    /// Operational state.
    pub oper: OperState,
    /// Speed in Mbit/s; `None` while there is no link.
    pub speed_mbps: Option<u32>,
    /// Port number on the device (`dev_port`).
    pub dev_port: Option<u32>,
    /// Name of the port on its switch: `p0` is an uplink, `pf0vf3` a representor.
    pub phys_port_name: Option<String>,
    /// Id of the switch that the port belongs to, in switchdev mode.
    pub phys_switch_id: Option<String>,
    /// Upper device (bond, bridge, OVS) that enslaved it, by index.
    pub master: Option<IfIndex>,
}

impl Netdev {
    /// Is `name` its name or one of its alternative names?
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.as_str() == name || self.alt_names.iter().any(|alt| alt == name)
    }

    /// Does it stand for a VF or a sub-function on the switch, rather than for this function?
    #[must_use]
    pub fn is_representor(&self) -> bool {
        self.phys_switch_id.is_some()
            && self
                .phys_port_name
                .as_ref()
                .is_some_and(|port| !is_uplink_port(port))
    }

    /// Returns the hardware address when it is an Ethernet one.
    #[must_use]
    pub fn mac(&self) -> Option<MacAddr> {
        self.address.as_ref()?.parse().ok()
    }
}

/// Is a `phys_port_name` that of an uplink, `p` and digits, and not that of a representor?
#[must_use]
pub fn is_uplink_port(port: &str) -> bool {
    port.strip_prefix('p')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// A network namespace.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Netns {
    /// The one that virtfn itself works in, the host's.
    Host,
    /// Another one.
    Other {
        /// Inode of the namespace on nsfs, its identity until the next boot.
        inode: u64,
        /// A path by which it can be entered, such as `/run/netns/blue`.
        path: Option<String>,
    },
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("host"),
            Self::Other {
                path: Some(path), ..
            } => f.pad(path.strip_prefix("/run/netns/").unwrap_or(path)),
            Self::Other { inode, path: None } => f.pad(&format!("net:[{inode}]")),
        }
    }
}

/// One RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaDevice {
    /// Name, such as `mlx5_2`.
    pub name: String,
    /// Node GUID.
    pub node_guid: Option<Guid>,
    /// Character devices that a container needs, below `/dev/infiniband`.
    pub char_devices: Vec<String>,
    /// First partition key of port 1 as the kernel writes it, `0x8001`; only on InfiniBand.
    pub partition_key: Option<String>,
}

/// A sub-function: a part of a network controller that is a device on the auxiliary bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubFunction {
    /// Its name on the bus.
    pub name: AuxName,
    /// The function that it is a part of.
    pub parent: PciAddress,
    /// The number that it was made with (`sfnum`).
    pub number: u32,
    /// Its netdevs, by name.
    pub netdevs: Vec<Netdev>,
    /// Its RDMA devices, by name.
    pub rdma: Vec<RdmaDevice>,
}

/// What a netdev does for the node itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeUse {
    /// A default route of any routing table leads out of it.
    pub default_route: bool,
    /// It has an IP address that is neither link-local nor of the loopback network.
    pub address: bool,
}

/// How RDMA devices relate to network namespaces (`rdma system`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RdmaNetnsMode {
    /// Every namespace sees every RDMA device.
    Shared,
    /// An RDMA device is in one namespace, as a netdev is.
    Exclusive,
}

impl fmt::Display for RdmaNetnsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        })
    }
}

impl FromStr for RdmaNetnsMode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "shared" => Ok(Self::Shared),
            "exclusive" => Ok(Self::Exclusive),
            _ => Err(ParseError::new(
                text,
                "an RDMA namespace mode: shared or exclusive",
            )),
        }
    }
}

/// One vDPA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdpaDevice {
    /// Name on the vDPA bus.
    pub name: String,
    /// What its driver offers; `None` without a driver.
    pub kind: Option<VdpaKind>,
    /// `/dev/vhost-vdpa-N`, with `vhost_vdpa`.
    pub device_node: Option<String>,
}

/// Returns the name of the vDPA device that virtfn makes of a function, as the operator does. A device
/// by this name is theirs; any other is somebody else's.
#[must_use]
pub fn vdpa_name(function: PciAddress) -> String {
    format!("vdpa:{function}")
}

/// Device nodes through which user space reaches a function bound to VFIO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfioNode {
    /// `/dev/vfio/<group>`.
    pub group: Option<String>,
    /// `/dev/vfio/devices/vfio<n>`, with kernel 6.1 and later.
    pub cdev: Option<String>,
}

/// Who was given a VF, or has another device.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Holder {
    /// Through which door it was given.
    pub kind: HolderKind,
    /// Identity at that door: a container id, a claim, the namespace for a plain attach, or for the
    /// host the interface above, `default-route` or `address` when there is none, or what uses the disk. For
    /// somebody unknown, why that is so.
    pub id: String,
    /// Name of the interface that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<IfName>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            HolderKind::Unknown => write!(f, "somebody unknown ({})", self.id),
            kind => write!(f, "{kind} {}", self.id),
        }?;
        self.interface
            .as_ref()
            .map_or(Ok(()), |name| write!(f, " as {name}"))
    }
}

/// Through which door a VF was given away, or somebody came to have a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HolderKind {
    /// `virtfn attach`.
    Attach,
    /// The CNI plugin.
    Cni,
    /// The Docker driver.
    Docker,
    /// A DRA claim.
    Claim,
    /// A network namespace that it was moved to without virtfn.
    Namespace,
    /// A process has its VFIO device open.
    Vfio,
    /// A process has another device node of it open: vhost-vdpa or UIO.
    Device,
    /// The host itself uses its netdev: below a bond, a bridge or a VLAN, or with an address; or its disk. Or a
    /// container does, with a macvlan or the like on it.
    Host,
    /// Perhaps somebody has it: what is on record of it cannot be read.
    Unknown,
}

impl fmt::Display for HolderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Attach => "attach",
            Self::Cni => "cni",
            Self::Docker => "docker",
            Self::Claim => "claim",
            Self::Namespace => "namespace",
            Self::Vfio => "vfio",
            Self::Device => "device",
            Self::Host => "host",
            Self::Unknown => "unknown",
        })
    }
}

/// Something that discovery could not read, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The object, such as `0000:3b:00.2` or `devlink`.
    pub object: String,
    /// What was tried and what came back.
    pub reason: String,
}
