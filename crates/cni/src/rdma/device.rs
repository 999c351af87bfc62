//! The RDMA device that is to move: of a PCI function, or of a device on the auxiliary bus.

use api::cni::RdmaParent;
use model::{
    Function, Host, Inventory, MacAddr, Netdev, NetnsTarget, PciAddress, RdmaNetnsMode, Scope, Step,
};

use super::explained;
use crate::call::Call;
use crate::failure::Failure;
use crate::place::{Machine, Place};

/// An RDMA device on the host.
pub(super) struct Device {
    /// What it is on.
    pub(super) parent: RdmaParent,
    /// Its name.
    pub(super) name: String,
    function: PciAddress,
}

impl Device {
    /// Finds the one RDMA device of something.
    pub(super) fn find<M: Machine>(
        place: &mut Place<M>,
        parent: RdmaParent,
    ) -> Result<Self, Failure> {
        let (function, devices) = match &parent {
            RdmaParent::Function(function) => {
                let seen = observe(place, Scope::Function(*function))?;
                // It says better what is wrong than a look at the names.
                let planned = policy::attach_rdma(&seen, *function, &NetnsTarget::Host);
                planned.map_err(|error| explained(&error))?;
                let found = seen.get(*function).map(|found| found.rdma.clone());
                let names = found.unwrap_or_default().into_iter();
                (*function, names.map(|device| device.name).collect())
            }
            RdmaParent::Auxiliary(name) => {
                let Some((function, devices)) = place.machine.auxiliary_rdma(name) else {
                    return Err(no_rdma(format!("there is no device {name}")));
                };
                let seen = observe(place, Scope::Function(function))?;
                if seen.rdma_netns != Some(RdmaNetnsMode::Exclusive) {
                    let error = policy::AttachRefused::RdmaNotExclusive {
                        vf: function,
                        mode: seen.rdma_netns,
                    };
                    return Err(explained(&error));
                }
                (function, devices)
            }
        };
        match <[String; 1]>::try_from(devices) {
            Ok([name]) => Ok(Self {
                parent,
                name,
                function,
            }),
            Err(devices) if devices.is_empty() => {
                Err(no_rdma(format!("no RDMA devices found for {parent}")))
            }
            Err(devices) => Err(no_rdma(format!(
                "{parent} has several RDMA devices, and only one can be moved: {}",
                devices.join(", ")
            ))),
        }
    }

    /// Finds the RDMA device of the VF that the plugin before this one gave, by its MAC.
    pub(super) fn of_result<M: Machine>(
        call: &Call,
        place: &mut Place<M>,
    ) -> Result<Self, Failure> {
        let previous = call
            .config
            .prev_result()
            .map_err(|error| Failure::of(error.number(), &error))?;
        let interfaces = previous.map(|result| result.interfaces).unwrap_or_default();
        let mac: Option<MacAddr> = match interfaces.as_slice() {
            [interface] => interface.mac.parse().ok(),
            _ => None,
        };
        let remedy = "annotate the NetworkAttachmentDefinition with k8s.v1.cni.cncf.io/resourceName, so that deviceID is filled in";
        let Some(mac) = mac else {
            let what = "deviceID is missing, and the result of the plugin before names no one MAC";
            return Err(Failure::new("no-rdma", what.to_owned(), remedy));
        };
        let seen = observe(place, Scope::All)?;
        match vfs_with(&seen, mac).as_slice() {
            [vf] => Self::find(place, RdmaParent::Function(*vf)),
            vfs => {
                let what = format!("deviceID is missing, and {} VFs have MAC {mac}", vfs.len());
                Err(Failure::new("no-rdma", what, remedy))
            }
        }
    }

    /// Returns the step that moves it, for a device of which virtfn has no record.
    pub(super) fn step(&self, netns: &NetnsTarget) -> Step {
        Step::MoveRdma {
            function: self.function,
            device: self.name.clone(),
            from: NetnsTarget::Host,
            to: netns.clone(),
        }
    }
}

fn observe<M: Machine>(place: &mut Place<M>, scope: Scope) -> Result<Inventory, Failure> {
    let (host, _) = place.machine.parts();
    host.observe(scope).map_err(|error| explained(&error))
}

fn vfs_with(seen: &Inventory, mac: MacAddr) -> Vec<PciAddress> {
    let has = |function: &Function| {
        let admin = function.vf().and_then(|facts| facts.state?.mac);
        admin == Some(mac) || function.netdev().and_then(Netdev::mac) == Some(mac)
    };
    let vfs = seen.vfs().map(|(function, _)| function);
    vfs.filter(|function| has(function))
        .map(|function| function.address)
        .collect()
}

fn no_rdma(message: String) -> Failure {
    Failure::new(
        "no-rdma",
        message,
        "see the RDMA devices of this host with `rdma dev`, and dmesg for what the driver says",
    )
}
