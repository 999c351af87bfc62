//! The vocabulary of virtfn: what a host has, what it should have, and the steps between.
//!
//! Everything here is a plain value. This crate does no I/O, knows no file format and has no
//! async; the one trait, [`Host`], is the seam between logic and Linux.
//!
//! The words, used with one meaning everywhere:
//!
//! | Word | Meaning |
//! |---|---|
//! | PF | physical function: a PCI function that can have VFs |
//! | VF | virtual function of a PF, numbered from 0 by the PF ([`VfIndex`]) |
//! | inventory | what a host was seen to have, at one moment ([`Inventory`]) |
//! | policy | what an administrator wrote ([`NodePolicy`]) |
//! | desired | what the policies mean for one host ([`Desired`]) |
//! | step | one change that [`Host::perform`] can make ([`Step`]) |
//! | plan | ordered steps with the undo and the price of each ([`Plan`]) |
//! | holder | who was given a VF ([`Holder`]) |
//! | pool | devices that the kubelet is offered under one resource name ([`Pool`]) |
//!
//! "Not reported" is `None` and never "off"; "leave alone" is `None` and never zero. That is why
//! [`VfState`] (seen) and [`VfSettings`] (wanted) are two types.

mod attach;
mod desired;
mod explain;
mod guids;
mod host;
mod ids;
mod inventory;
mod net;
mod node_pool;
mod parse;
mod pci;
mod plan;
mod pool;
mod step;
mod vf;

pub use attach::{AttachInterface, AttachRequest};
pub use desired::{
    Desired, NetFilter, NicSelector, NodePolicy, Origin, PfDesired, PfNameSelector, VfDriver,
    VfGroup,
};
pub use explain::{Code, Explain, with_causes};
pub use guids::{GuidPf, GuidPool, GuidRule};
pub use host::{DiscoverError, Host, Scope, StepError};
pub use ids::{DriverName, Guid, IfIndex, IfName, IommuGroup, MacAddr, NumaNode};
pub use inventory::{
    Function, Gap, Holder, HolderKind, Inventory, Netdev, Netns, NodeUse, PfFacts, RdmaDevice,
    RdmaNetnsMode, Role, SubFunction, VdpaDevice, VfFacts, VfioNode, is_uplink_port, vdpa_name,
};
pub use net::{EswitchMode, InterfaceAddress, LinkType, Mtu, OperState, SteeringMode, VdpaKind};
pub use node_pool::{LabelCondition, LabelExpression, LabelSelector, NodePool};
pub use parse::ParseError;
pub use pci::{ClassPrefix, PciAddress, PciClass, PciId};
pub use plan::{PfPlan, Plan, PlannedStep, Price, RebootReason};
pub use pool::{
    AuxName, DeviceId, Extra, Filter, HealthChecks, HexId, PfItem, Pool, PoolKind, Preference,
    ResourceName, Selector,
};
pub use step::{BindTarget, NetnsTarget, Step};
pub use vf::{
    LinkPolicy, Mbps, Pcp, VfAttr, VfIndex, VfRange, VfSettings, VfState, VlanId, VlanProto,
    VlanTag,
};
