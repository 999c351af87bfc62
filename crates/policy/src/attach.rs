//! Giving one VF to somebody: the checks, then the steps.
//!
//! `virtfn attach`, CNI, Docker and DRA all come here. The order of the steps is chosen so that their
//! undos, run backwards from any point, lead back to what was observed:
//!
//! 1. the VF's netdev down;
//! 2. through the PF: VLAN, MAC, rates, spoof check, trust, link state, each only when it was asked
//!    for and is not so already;
//! 3. the VF's MTU, while it is in the host's namespace, so that the undo needs no namespace that may
//!    be gone by then;
//! 4. into the namespace, with its new name and up in the same message; addresses. Its RDMA device goes
//!    first, when it is asked for, because the kernel makes an IPoIB interface anew on the host when
//!    its RDMA device moves.
//!
//! What would surprise is the MAC. Most PF drivers refuse a VF another MAC once the PF set one, and
//! a running VF driver often does not take what the PF sets. So the PF first takes its own back,
//! then the VF sets the new one, then the PF sets the same and thereby pins it; backwards the same
//! way. No driver is bound again, which would cost a new netdev and a fraction of a second.
//! (Measured with `igb` on Linux 6.12: the VF keeps the MAC over down and up, and passes traffic.)
//! Where the PF reports the VF's own MAC as the admin MAC, taking it back leaves that MAC pinned:
//! the two cannot be told apart, and lifting a MAC that an administrator pinned would be worse.

mod refused;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use model::{
    AttachInterface, AttachRequest, Function, Inventory, LinkType, MacAddr, Mtu, Netdev,
    NetnsTarget, PciAddress, PfPlan, Plan, PlannedStep, Price, RdmaNetnsMode, Step, VfFacts,
    VfIndex,
};

use crate::drivers::{PfDriver, pf_driver};
pub use refused::AttachRefused;
use refused::reserved;

/// What is done to give a VF away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPlan {
    /// The PF.
    pub pf: PciAddress,
    /// The VF.
    pub vf: PciAddress,
    /// Its number.
    pub index: VfIndex,
    /// The steps.
    pub steps: Vec<PlannedStep>,
    /// What may not be as its new holder expects.
    pub notes: Vec<AttachNote>,
}

impl AttachPlan {
    /// Returns what takes all steps back, in the order to do it.
    #[must_use]
    pub fn undo(&self) -> Vec<Step> {
        let backwards = self.steps.iter().rev();
        backwards.filter_map(|step| step.undo.clone()).collect()
    }

    /// Returns the same as a plan of its PF, to show it.
    #[must_use]
    pub fn as_plan(&self, seen: &Inventory) -> Plan {
        Plan {
            pfs: vec![PfPlan {
                pf: self.pf,
                name: seen.get(self.pf).and_then(|pf| pf.netdev_name().cloned()),
                steps: self.steps.clone(),
                vfs: BTreeMap::from([(self.vf, self.index)]),
                is_cut: false,
            }],
        }
    }
}

/// Something about an attached VF that its holder may not expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachNote {
    /// The PF is down, so the VF has no link.
    PfDown {
        /// The PF.
        pf: String,
    },
    /// The VF is to have a larger MTU than its PF.
    MtuAbovePf {
        /// The PF.
        pf: String,
        /// The PF's MTU in bytes.
        has: u32,
    },
    /// Another VF of the PF has the same MAC.
    SameMac {
        /// The other VF.
        other: PciAddress,
        /// The MAC.
        mac: MacAddr,
    },
}

impl fmt::Display for AttachNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PfDown { pf } => write!(
                f,
                "PF {pf} is down, so the VF has no link; a policy sets it up, or `ip link set … up`"
            ),
            Self::MtuAbovePf { pf, has } => {
                write!(
                    f,
                    "PF {pf} has mtu {has}, and larger frames may not pass it"
                )
            }
            Self::SameMac { other, mac } => write!(
                f,
                "VF {other} has MAC {mac} too; on one VLAN the two cannot both be reached"
            ),
        }
    }
}

/// Plans how the VF of a request is given to its holder, or says why it is not.
pub fn attach(seen: &Inventory, request: &AttachRequest) -> Result<AttachPlan, AttachRefused> {
    let target = Target::find(seen, request.vf)?;
    let wanted = settings::wanted(&target, request)?;
    let mut planner = Planner {
        pf: target.pf.address,
        vf: target.vf.address,
        index: target.index,
        steps: Vec::new(),
    };
    let netdev = match &request.interface {
        None => None,
        Some(interface) => {
            let name = interface.name.iter();
            if let Some(name) = name.into_iter().find(|name| reserved(name).is_some()) {
                return Err(AttachRefused::BadInterfaceName { name: name.clone() });
            }
            Some(target.netdev()?)
        }
    };
    if netdev.is_some_and(|netdev| netdev.admin_up) {
        planner.up(&NetnsTarget::Host, false);
    }
    settings::plan(&mut planner, &target, &wanted, netdev);
    let mut notes = notes(seen, &target, wanted.mac);
    if let (Some(interface), Some(netdev)) = (&request.interface, netdev) {
        if request.with_rdma {
            let device = rdma_device(seen, target.vf)?;
            planner
                .steps
                .extend(move_rdma(target.vf.address, device, &interface.netns));
            if netdev.link_type == LinkType::InfiniBand {
                planner.wait();
            }
        }
        planner.interface(interface, netdev);
        notes.extend(target.mtu_note(interface.mtu));
    }
    Ok(AttachPlan {
        pf: planner.pf,
        vf: planner.vf,
        index: planner.index,
        steps: planner.steps,
        notes,
    })
}

/// Plans how the RDMA device of a function is moved to a namespace, for whoever has the function
/// already.
pub fn attach_rdma(
    seen: &Inventory,
    function: PciAddress,
    netns: &NetnsTarget,
) -> Result<PlannedStep, AttachRefused> {
    let found = seen.get(function);
    let found = found.ok_or(AttachRefused::NoSuchDevice { vf: function })?;
    let device = rdma_device(seen, found)?;
    Ok(
        move_rdma(function, device, netns).unwrap_or_else(|| PlannedStep {
            // It is to stay where it is.
            step: Step::MoveRdma {
                function,
                device: device.to_owned(),
                from: NetnsTarget::Host,
                to: NetnsTarget::Host,
            },
            before: None,
            undo: None,
            price: Price::default(),
        }),
    )
}

/// Returns the one RDMA device of a function that can be moved.
fn rdma_device<'a>(seen: &Inventory, function: &'a Function) -> Result<&'a str, AttachRefused> {
    match function.rdma.as_slice() {
        [_] if seen.rdma_netns != Some(RdmaNetnsMode::Exclusive) => {
            Err(AttachRefused::RdmaNotExclusive {
                vf: function.address,
                mode: seen.rdma_netns,
            })
        }
        [device] => Ok(&device.name),
        devices => Err(AttachRefused::NotOneRdma {
            vf: function.address,
            devices: devices.iter().map(|device| device.name.clone()).collect(),
        }),
    }
}

fn move_rdma(function: PciAddress, device: &str, netns: &NetnsTarget) -> Option<PlannedStep> {
    let step = |from: &NetnsTarget, to: &NetnsTarget| Step::MoveRdma {
        function,
        device: device.to_owned(),
        from: from.clone(),
        to: to.clone(),
    };
    let host = NetnsTarget::Host;
    (*netns != host).then(|| PlannedStep {
        step: step(&host, netns),
        before: Some(format!("{device} on the host")),
        undo: Some(step(netns, &host)),
        price: Price::default(),
    })
}

/// A VF that may be given away.
struct Target<'a> {
    vf: &'a Function,
    facts: &'a VfFacts,
    index: VfIndex,
    pf: &'a Function,
    driver: PfDriver,
}

impl<'a> Target<'a> {
    fn find(seen: &'a Inventory, vf: PciAddress) -> Result<Self, AttachRefused> {
        let function = seen.get(vf).ok_or(AttachRefused::NoSuchDevice { vf })?;
        let Some(facts) = function.vf() else {
            return Err(AttachRefused::NotAVf {
                title: function.title(),
                is_pf: function.pf().is_some(),
            });
        };
        if let Some(holder) = &facts.holder {
            return Err(AttachRefused::InUse {
                vf,
                holder: holder.clone(),
            });
        }
        let (Some(index), Some(pf)) = (facts.index, seen.get(facts.pf)) else {
            return Err(AttachRefused::Vanishing { vf });
        };
        Ok(Self {
            vf: function,
            facts,
            index,
            pf,
            driver: pf_driver(pf.driver.as_ref()),
        })
    }

    /// Returns the VF's netdev, which must be in the host's namespace.
    fn netdev(&self) -> Result<&'a Netdev, AttachRefused> {
        let vf = self.vf.address;
        let driver = self.vf.driver.clone();
        match self.vf.netdev() {
            None => Err(AttachRefused::NoNetdev { vf, driver }),
            Some(netdev) if netdev.netns != NetnsTarget::Host.netns() => {
                Err(AttachRefused::Elsewhere {
                    vf,
                    netns: netdev.netns.clone(),
                })
            }
            Some(netdev) => Ok(netdev),
        }
    }

    fn mtu_note(&self, mtu: Option<Mtu>) -> Option<AttachNote> {
        let has = self.pf.netdev()?.mtu;
        (mtu?.get() > has).then(|| AttachNote::MtuAbovePf {
            pf: self.pf.title(),
            has,
        })
    }
}

fn notes(seen: &Inventory, target: &Target<'_>, mac: Option<MacAddr>) -> Vec<AttachNote> {
    let mut notes = Vec::new();
    if target.pf.netdev().is_some_and(|netdev| !netdev.admin_up) {
        notes.push(AttachNote::PfDown {
            pf: target.pf.title(),
        });
    }
    let siblings = target
        .pf
        .pf()
        .into_iter()
        .flat_map(|facts| facts.vfs.iter().map(move |(index, vf)| (facts, index, vf)));
    for (facts, index, other) in siblings.filter(|(_, _, other)| **other != target.vf.address) {
        let has = match seen.get(*other) {
            None => facts.unseen_macs.get(index).copied(),
            Some(other) => other.vf().and_then(|facts| {
                let reported = facts.state.and_then(|state| state.mac);
                reported.or_else(|| other.netdev()?.mac())
            }),
        };
        if let Some(mac) = mac.filter(|mac| has == Some(*mac)) {
            notes.push(AttachNote::SameMac { other: *other, mac });
        }
    }
    notes
}

/// The steps so far.
struct Planner {
    pf: PciAddress,
    vf: PciAddress,
    index: VfIndex,
    steps: Vec<PlannedStep>,
}

impl Planner {
    fn step(&mut self, step: Step, before: Option<String>, undo: Option<Step>) {
        self.steps.push(PlannedStep {
            step,
            before,
            undo,
            price: Price::default(),
        });
    }

    fn wait(&mut self) {
        let function = self.vf;
        self.step(Step::AwaitNetdev { function }, None, None);
    }

    fn up(&mut self, netns: &NetnsTarget, up: bool) {
        let function = self.vf;
        let set = |up| Step::SetUp {
            function,
            netns: netns.clone(),
            up,
        };
        let before = if up { "down" } else { "up" };
        self.step(set(up), Some(before.to_owned()), Some(set(!up)));
    }

    fn interface(&mut self, wanted: &AttachInterface, netdev: &Netdev) {
        let function = self.vf;
        let host = NetnsTarget::Host;
        if let Some(mtu) = wanted.mtu.filter(|mtu| mtu.get() != netdev.mtu) {
            let set = |mtu| Step::SetMtu {
                function,
                netns: host.clone(),
                mtu,
            };
            let before = format!("mtu {}", netdev.mtu);
            self.step(set(mtu), Some(before), Mtu::new(netdev.mtu).map(set));
        }
        let name = wanted.name.as_ref().unwrap_or(&netdev.name);
        let there = &wanted.netns;
        if *there != host {
            let go = Step::Move {
                function,
                from: host.clone(),
                to: there.clone(),
                name: name.clone(),
                up: true,
            };
            let back = Step::Move {
                function,
                from: there.clone(),
                to: host.clone(),
                name: netdev.name.clone(),
                up: false,
            };
            self.step(go, Some(format!("{} on the host", netdev.name)), Some(back));
        } else if *name != netdev.name {
            let rename = |name: &model::IfName| Step::Rename {
                function,
                netns: host.clone(),
                name: name.clone(),
            };
            let before = netdev.name.to_string();
            self.step(rename(name), Some(before), Some(rename(&netdev.name)));
        }
        for address in &wanted.addresses {
            let (netns, address) = (there.clone(), *address);
            let undo = Step::RemoveAddress {
                function,
                netns: netns.clone(),
                address,
            };
            let add = Step::AddAddress {
                function,
                netns,
                address,
            };
            self.step(add, None, Some(undo));
        }
        if *there == host {
            self.up(there, true);
        }
    }
}
