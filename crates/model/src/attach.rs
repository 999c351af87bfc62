//! What somebody who is given a VF asks for.

use crate::{Holder, IfName, InterfaceAddress, MacAddr, Mtu, NetnsTarget, PciAddress, VfSettings};

/// A VF for somebody: the same request from `virtfn attach`, CNI, Docker and DRA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// The VF.
    pub vf: PciAddress,
    /// Who gets it.
    pub holder: Holder,
    /// What the PF is to set for it.
    pub settings: VfSettings,
    /// How it becomes an interface of a namespace; `None` when it stays a device (VFIO).
    pub interface: Option<AttachInterface>,
    /// Does its RDMA device go to the interface's namespace too? RDMA must be in mode "exclusive".
    pub with_rdma: bool,
    /// The namespace with which a holder of a mere device ends; `None` when only a detach ends it.
    /// With an interface it is the interface's.
    pub lives_in: Option<NetnsTarget>,
}

/// How an attached VF looks in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachInterface {
    /// The namespace.
    pub netns: NetnsTarget,
    /// Its name there; `None` keeps the one that it has.
    pub name: Option<IfName>,
    /// Its hardware address; the PF's admin MAC is set to the same.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddress>,
}
