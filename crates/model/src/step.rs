//! One change to a host, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    DriverName, EswitchMode, IfName, InterfaceAddress, MacAddr, Mtu, Netns, PciAddress,
    SteeringMode, VdpaKind, VfAttr, VfIndex,
};

/// One change that [`crate::Host::perform`] can make.
///
/// A step names what it acts on by PCI address, because names move: the performer finds the netdev
/// of the function when the step's turn comes. Performing a step that is already so succeeds and
/// changes nothing. Steps are written to journals, so a variant is never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Step {
    /// Sets how many VFs a PF has and waits until they are there (or gone).
    ///
    /// The kernel refuses to go from one non-zero number to another: a plan has a step to 0 between.
    SetNumVfs {
        /// The PF.
        pf: PciAddress,
        /// How many.
        count: u16,
    },
    /// Says whether new VFs of a PF get a driver by themselves.
    SetAutoprobe {
        /// The PF.
        pf: PciAddress,
        /// Do they?
        on: bool,
    },
    /// Sets the mode of the embedded switch of a PF.
    SetEswitch {
        /// The PF.
        pf: PciAddress,
        /// The mode.
        mode: EswitchMode,
    },
    /// Says whether the netdev of a PF hands rules of tc to the hardware.
    SetTcOffload {
        /// The PF.
        pf: PciAddress,
        /// Does it?
        on: bool,
    },
    /// Sets how a PF's eswitch steers packets. A device that has only one way keeps it.
    SetSteering {
        /// The PF.
        pf: PciAddress,
        /// The way.
        mode: SteeringMode,
    },
    /// Sets one attribute of a VF through its PF.
    SetVf {
        /// The PF.
        pf: PciAddress,
        /// The VF.
        vf: VfIndex,
        /// The attribute and its value.
        attr: VfAttr,
    },
    /// Binds a function to a driver and verifies it.
    Bind {
        /// The function.
        function: PciAddress,
        /// To which driver.
        to: BindTarget,
    },
    /// Takes a function's driver away and gives it back, so that it reads its settings afresh.
    Rebind {
        /// The function.
        function: PciAddress,
    },
    /// Makes the vDPA device of a function ([`crate::vdpa_name`]) and gives it its driver, or
    /// removes it. vDPA devices by other names are left alone.
    SetVdpa {
        /// The function.
        function: PciAddress,
        /// What it is offered as; `None` removes it.
        kind: Option<VdpaKind>,
    },
    /// Waits until a function has a netdev.
    AwaitNetdev {
        /// The function.
        function: PciAddress,
    },
    /// Sets the MTU of a function's netdev.
    SetMtu {
        /// The function.
        function: PciAddress,
        /// Where its netdev is.
        netns: NetnsTarget,
        /// The MTU.
        mtu: Mtu,
    },
    /// Sets a function's netdev up or down.
    SetUp {
        /// The function.
        function: PciAddress,
        /// Where its netdev is.
        netns: NetnsTarget,
        /// Up or down.
        up: bool,
    },
    /// Sets the hardware address of a function's netdev.
    SetMac {
        /// The function.
        function: PciAddress,
        /// Where its netdev is.
        netns: NetnsTarget,
        /// The address.
        mac: MacAddr,
    },
    /// Renames a function's netdev where it is.
    Rename {
        /// The function.
        function: PciAddress,
        /// Where its netdev is.
        netns: NetnsTarget,
        /// Its new name.
        name: IfName,
    },
    /// Moves a function's netdev to another namespace, names it there and sets it up, in one message.
    Move {
        /// The function.
        function: PciAddress,
        /// Where its netdev is.
        from: NetnsTarget,
        /// Where it goes.
        to: NetnsTarget,
        /// Its name there.
        name: IfName,
        /// Is it set up there? It arrives down otherwise.
        #[serde(default, skip_serializing_if = "is_down")]
        up: bool,
    },
    /// Moves an RDMA device of a function to another namespace, while RDMA is in mode "exclusive".
    MoveRdma {
        /// The function.
        function: PciAddress,
        /// The device, whose name no other one has in any namespace.
        device: String,
        /// Where it is.
        from: NetnsTarget,
        /// Where it goes.
        to: NetnsTarget,
    },
    /// Gives a function's netdev an address.
    AddAddress {
        /// The function.
        function: PciAddress,
        /// Where its netdev is.
        netns: NetnsTarget,
        /// The address.
        address: InterfaceAddress,
    },
    /// Takes an address from a function's netdev.
    RemoveAddress {
        /// The function.
        function: PciAddress,
        /// Where its netdev is.
        netns: NetnsTarget,
        /// The address.
        address: InterfaceAddress,
    },
}

impl Step {
    /// Returns the function that the step changes.
    #[must_use]
    pub fn function(&self) -> PciAddress {
        match self {
            Self::SetNumVfs { pf, .. }
            | Self::SetAutoprobe { pf, .. }
            | Self::SetEswitch { pf, .. }
            | Self::SetTcOffload { pf, .. }
            | Self::SetSteering { pf, .. }
            | Self::SetVf { pf, .. } => *pf,
            Self::Bind { function, .. }
            | Self::Rebind { function }
            | Self::SetVdpa { function, .. }
            | Self::AwaitNetdev { function }
            | Self::SetMtu { function, .. }
            | Self::SetUp { function, .. }
            | Self::SetMac { function, .. }
            | Self::Rename { function, .. }
            | Self::Move { function, .. }
            | Self::MoveRdma { function, .. }
            | Self::AddAddress { function, .. }
            | Self::RemoveAddress { function, .. } => *function,
        }
    }

    /// Returns the step's kind in kebab case, for logs and journals.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SetNumVfs { .. } => "set-num-vfs",
            Self::SetAutoprobe { .. } => "set-autoprobe",
            Self::SetEswitch { .. } => "set-eswitch",
            Self::SetTcOffload { .. } => "set-tc-offload",
            Self::SetSteering { .. } => "set-steering",
            Self::SetVf { .. } => "set-vf",
            Self::Bind { .. } => "bind",
            Self::Rebind { .. } => "rebind",
            Self::SetVdpa { .. } => "set-vdpa",
            Self::AwaitNetdev { .. } => "await-netdev",
            Self::SetMtu { .. } => "set-mtu",
            Self::SetUp { .. } => "set-up",
            Self::SetMac { .. } => "set-mac",
            Self::Rename { .. } => "rename",
            Self::Move { .. } => "move",
            Self::MoveRdma { .. } => "move-rdma",
            Self::AddAddress { .. } => "add-address",
            Self::RemoveAddress { .. } => "remove-address",
        }
    }
}

impl fmt::Display for Step {
    /// Writes the change without the function, which a plan names once above its steps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetNumVfs { count, .. } => write!(f, "have {count} VFs"),
            Self::SetAutoprobe { on, .. } => {
                write!(
                    f,
                    "{} drivers to new VFs",
                    if *on { "give" } else { "give no" }
                )
            }
            Self::SetEswitch { mode, .. } => write!(f, "set eswitch mode {mode}"),
            Self::SetTcOffload { on, .. } => {
                write!(f, "set hw-tc-offload {}", if *on { "on" } else { "off" })
            }
            Self::SetSteering { mode, .. } => write!(f, "set flow_steering_mode {mode}"),
            Self::SetVf { vf, attr, .. } => write!(f, "{vf}: set {attr}"),
            Self::Bind { to, .. } => write!(f, "bind to {to}"),
            Self::Rebind { .. } => f.write_str("rebind the driver"),
            Self::SetVdpa {
                kind: Some(kind), ..
            } => write!(f, "have a {kind} vDPA device"),
            Self::SetVdpa { kind: None, .. } => f.write_str("remove the vDPA device"),
            Self::AwaitNetdev { .. } => f.write_str("wait for the netdev"),
            Self::SetMtu { mtu, netns, .. } => write!(f, "set mtu {mtu}{}", InNetns(netns)),
            Self::SetUp { up, netns, .. } => {
                write!(
                    f,
                    "set link {}{}",
                    if *up { "up" } else { "down" },
                    InNetns(netns)
                )
            }
            Self::SetMac { mac, netns, .. } => {
                write!(f, "set interface mac {mac}{}", InNetns(netns))
            }
            Self::Rename { name, netns, .. } => write!(f, "rename to {name}{}", InNetns(netns)),
            Self::Move { to, name, up, .. } => {
                let end = if *up { ", up" } else { "" };
                write!(f, "move to namespace {to} as {name}{end}")
            }
            Self::MoveRdma { device, to, .. } => {
                write!(f, "move RDMA device {device} to namespace {to}")
            }
            Self::AddAddress { address, netns, .. } => {
                write!(f, "add address {address}{}", InNetns(netns))
            }
            Self::RemoveAddress { address, netns, .. } => {
                write!(f, "remove address {address}{}", InNetns(netns))
            }
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_down(up: &bool) -> bool {
    !up
}

struct InNetns<'a>(&'a NetnsTarget);

impl fmt::Display for InNetns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NetnsTarget::Host => Ok(()),
            other @ NetnsTarget::Path { .. } => write!(f, " in namespace {other}"),
        }
    }
}

/// To which driver a function is bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindTarget {
    /// The kernel's own choice, with no `driver_override`.
    Default,
    /// This one, whatever ids it knows.
    Driver(DriverName),
    /// None.
    Nothing,
}

impl fmt::Display for BindTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("the kernel's driver"),
            Self::Driver(driver) => driver.fmt(f),
            Self::Nothing => f.pad("no driver"),
        }
    }
}

/// A namespace that a step acts in, with its identity: a path can come to name another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetnsTarget {
    /// The host's.
    Host,
    /// Another one.
    Path {
        /// How to enter it, such as `/run/netns/blue` or `/proc/4711/ns/net`.
        path: String,
        /// Its inode on nsfs when the plan was made; the performer refuses another one.
        inode: u64,
    },
}

impl NetnsTarget {
    /// Returns the namespace as an inventory names it.
    #[must_use]
    pub fn netns(&self) -> Netns {
        match self {
            Self::Host => Netns::Host,
            Self::Path { path, inode } => Netns::Other {
                inode: *inode,
                path: Some(path.clone()),
            },
        }
    }

    /// Is it one namespace, whatever the path to it?
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host, Self::Host) => true,
            (Self::Path { inode: one, .. }, Self::Path { inode: other, .. }) => one == other,
            (Self::Host, Self::Path { .. }) | (Self::Path { .. }, Self::Host) => false,
        }
    }
}

impl fmt::Display for NetnsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.netns().fmt(f)
    }
}
