//! What policies want of the firmware of each NIC.

use std::collections::BTreeMap;

use model::{Desired, Function, Inventory, LinkType, PciAddress};

use super::VENDOR;
use crate::release::Owned;
use crate::vendor::known_nic;

/// One NIC, which has one firmware for all of its functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedNic {
    /// The function to reach it by, the lowest that is seen.
    pub nic: PciAddress,
    /// The functions that something is wanted of, with the link layer that their ports must have.
    pub ports: Vec<NicPort>,
    /// VFs of the function that wants most: the firmware has one number for all.
    pub num_vfs: u16,
    /// Is one of its functions configured by somebody else, so that nothing may be written?
    pub externally_managed: bool,
}

/// A function of a NIC that something is wanted of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicPort {
    /// The function.
    pub pf: PciAddress,
    /// Index of its port: 0 for `P1`; `None` when it cannot be told.
    pub port: Option<usize>,
    /// Link layer that it must have.
    pub link: Option<LinkType>,
    /// Link layer that its netdev has.
    pub seen: Option<LinkType>,
}

/// Returns the NICs whose firmware matters to what is wanted, by address.
#[must_use]
pub fn nics(seen: &Inventory, wanted: &Desired) -> Vec<WantedNic> {
    let mut nics: BTreeMap<(u32, u16), WantedNic> = BTreeMap::new();
    for pf in wanted.pfs.values() {
        let Some(function) = seen.get(pf.pf).filter(|found| found.id.vendor == VENDOR) else {
            continue;
        };
        if function.pf().is_none() {
            continue;
        }
        let nic = nics.entry(device_of(pf.pf)).or_insert_with(|| WantedNic {
            nic: lowest(seen, pf.pf),
            ports: Vec::new(),
            num_vfs: 0,
            externally_managed: false,
        });
        nic.num_vfs = nic.num_vfs.max(pf.num_vfs);
        nic.externally_managed |= pf.externally_managed;
        nic.ports.push(NicPort {
            pf: pf.pf,
            port: port(function),
            link: pf.link_type,
            seen: function.netdev().map(|netdev| netdev.link_type),
        });
    }
    nics.into_values().collect()
}

/// Returns the NICs whose firmware must be changed before what is wanted can be had, as far as the
/// kernel sees it: more VFs than a port offers, or another link layer.
///
/// The others are not asked, which would take seconds each.
#[must_use]
pub fn lacking(seen: &Inventory, wanted: &Desired) -> Vec<WantedNic> {
    let mut all = nics(seen, wanted);
    all.retain(|nic| {
        nic.ports.iter().any(|port| {
            let offered = seen.get(port.pf).and_then(Function::pf);
            let has = offered.map_or(0, |facts| facts.total_vfs);
            let asked = wanted.pfs.get(&port.pf).map_or(0, |pf| pf.num_vfs);
            asked > has || port.link.is_some_and(|link| port.seen != Some(link))
        })
    });
    all
}

/// Returns the NICs that were configured and of which nobody wants anything any more, as long as none of
/// their functions is somebody else's: their firmware may stop offering VFs.
#[must_use]
pub fn unwanted(
    seen: &Inventory,
    wanted: &Desired,
    owned: &BTreeMap<PciAddress, Owned>,
) -> Vec<PciAddress> {
    let mut nics = Vec::new();
    for pf in owned.keys() {
        let nic = lowest(seen, *pf);
        let of_nic = |other: &PciAddress| is_same_device(*other, nic);
        let is_ours = seen
            .get(nic)
            .is_some_and(|found| found.id.vendor == VENDOR && known_nic(found.id).is_some());
        let offers = seen
            .pfs()
            .any(|(function, facts)| of_nic(&function.address) && facts.total_vfs > 0);
        let mut records = owned.iter().filter(|(pf, _)| of_nic(pf));
        let is_free =
            !wanted.pfs.keys().any(of_nic) && records.all(|(_, owned)| !owned.externally_managed);
        if is_ours && offers && is_free && !nics.contains(&nic) {
            nics.push(nic);
        }
    }
    nics
}

/// Are two functions of one device?
#[must_use]
pub fn is_same_device(a: PciAddress, b: PciAddress) -> bool {
    device_of(a) == device_of(b)
}

/// The functions of one device share domain, bus and device number. VFs do too, with ARI, but a VF
/// is never wanted.
fn device_of(address: PciAddress) -> (u32, u16) {
    (address.domain(), address.routing_id() >> 3)
}

/// Returns the lowest PF of the same device that is seen.
fn lowest(seen: &Inventory, pf: PciAddress) -> PciAddress {
    seen.pfs()
        .map(|(function, _)| function.address)
        .find(|address| device_of(*address) == device_of(pf))
        .unwrap_or(pf)
}

/// Tells the port from its name on the switch (`p1`), or else from the function number, which is the
/// port on a NIC with one function a port.
fn port(function: &Function) -> Option<usize> {
    let named = function
        .netdev()
        .and_then(|netdev| netdev.phys_port_name.as_deref());
    match named {
        Some("p0") => Some(0),
        Some("p1") => Some(1),
        Some(_) => None,
        None => Some(usize::from(function.address.routing_id() & 7)).filter(|port| *port < 2),
    }
}
