//! Pools of the kubelet's device plugin: which devices are offered under which resource name.
//!
//! A pool is what an administrator wrote, with meaning: it is made by `api::deviceplugin` and judged
//! by `policy::pool`. A value that can match nothing (`15B3` as a vendor) is not kept; its filter
//! stays, because a filter without values lets nothing pass, and an absent one everything.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::parse::{ParseError, digits, serde_as_text};
use crate::{ClassPrefix, PciAddress, VdpaKind};

/// Name of a resource with its prefix, `intel.com/sriov_a`, as the kubelet takes it.
///
/// The kubelet checks `requests.` and the prefix as one DNS name, so a prefix has at most 244
/// characters; the name behind the slash has at most 63.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    text: String,
    slash: usize,
}

impl ResourceName {
    /// Returns the whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part before the slash: `intel.com`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.text.get(..self.slash).unwrap_or_default()
    }

    /// Returns the part behind the slash: `sriov_a`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.get(self.slash + 1..).unwrap_or_default()
    }
}

impl FromStr for ResourceName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let good = |slash: &usize| {
            let (prefix, name) = (&text[..*slash], &text[*slash + 1..]);
            // `k8s.io/…` is not forbidden, and neither is what only starts like kubernetes.io.
            let reserved = text.contains("kubernetes.io/") || prefix.starts_with("requests.");
            is_dns_name(prefix) && is_qualified(name) && !reserved
        };
        match text.find('/').filter(good) {
            Some(slash) => Ok(Self {
                text: text.to_owned(),
                slash,
            }),
            None => Err(ParseError::new(
                text,
                "a resource name such as intel.com/sriov_a (a DNS name in lower case, a slash, and 1 to 63 \
                 letters, digits, '-', '_' or '.' with a letter or digit at both ends)",
            )),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Longest prefix: 253 characters of a DNS name without `requests.`.
const LONGEST_PREFIX: usize = 244;

fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        label.bytes().all(|b| plain(b) || b == b'-')
            && label.bytes().next().is_some_and(plain)
            && label.bytes().last().is_some_and(plain)
    };
    text.len() <= LONGEST_PREFIX && text.split('.').all(label)
}

fn is_qualified(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= 63
        && text.bytes().all(inner)
        && text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
        && text
            .bytes()
            .last()
            .is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Name of a device on the auxiliary bus, `mlx5_core.sf.4`: module, kind and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuxName(String);

impl AuxName {
    /// Returns the name as text; it is one path component.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the kind, the second part: `sf`, `eth`, `rdma`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0.split('.').nth(1).unwrap_or_default()
    }

    /// Returns the number at the end, which the bus gave out.
    fn number(&self) -> Option<u32> {
        digits(self.0.rsplit('.').next()?, 10)
    }
}

impl FromStr for AuxName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let name = Self(text.to_owned());
        let plain = |part: &str| {
            let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
            !part.is_empty() && part.bytes().all(word)
        };
        let fits = text.len() <= 63 && text.split('.').count() == 3 && text.split('.').all(plain);
        if fits && name.number().is_some() {
            Ok(name)
        } else {
            Err(ParseError::new(
                text,
                "the name of an auxiliary device such as mlx5_core.sf.4",
            ))
        }
    }
}

impl fmt::Display for AuxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What identifies a device towards the kubelet. PCI addresses come first, in their order, then
/// auxiliary devices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceId {
    /// A PCI function.
    Pci(PciAddress),
    /// A sub-function.
    Aux(AuxName),
}

impl FromStr for DeviceId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let pci = text.parse().map(Self::Pci).ok();
        pci.or_else(|| text.parse().map(Self::Aux).ok())
            .ok_or_else(|| ParseError::new(text, "a device such as 0000:3b:02.1 or mlx5_core.sf.4"))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => address.fmt(f),
            Self::Aux(name) => name.fmt(f),
        }
    }
}

/// Vendor or device id of a PCI function as selectors write it: four hex digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexId(pub u16);

impl FromStr for HexId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let plain = text.len() == 4 && !text.bytes().any(|b| b.is_ascii_uppercase());
        plain
            .then(|| digits(text, 16))
            .flatten()
            .and_then(|id| u16::try_from(id).ok())
            .map(Self)
            .ok_or_else(|| {
                ParseError::new(text, "a PCI id of four lower-case hex digits such as 15b3")
            })
    }
}

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

serde_as_text!(ResourceName, AuxName, DeviceId, HexId);

/// Devices that are offered under one resource name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The resource.
    pub resource: ResourceName,
    /// Which devices can be in it.
    pub kind: PoolKind,
    /// Classes of functions that a pool of accelerators can have; a pool of another kind has those
    /// of its kind.
    pub classes: Vec<ClassPrefix>,
    /// Which of them are, in order; a device belongs to the first selector that takes it.
    pub selectors: Vec<Selector>,
    /// Is the NUMA node kept from the kubelet?
    pub exclude_topology: bool,
    /// What is told to the container of every device; `None` differs from nothing to tell.
    pub extra: Option<Extra>,
    /// What makes a device unhealthy besides its absence.
    pub health: HealthChecks,
    /// Which devices are preferred for a container; `None` leaves it to the kubelet.
    pub preference: Option<Preference>,
    /// Does a device on VFIO also bring `/dev/iommu` and its own node?
    pub iommufd: bool,
    /// Are devices offered although the node itself uses them?
    pub offer_used_by_node: bool,
}

/// Which devices a pool can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKind {
    /// Network controllers, PCI base class 02.
    Net,
    /// Functions that are no network controllers: processing accelerators, PCI base class 12, unless
    /// the pool names other classes.
    Accelerator,
    /// Sub-functions of network controllers, on the auxiliary bus.
    SubFunction,
}

impl fmt::Display for PoolKind {
    /// Writes the word of the configuration file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Net => "netDevice",
            Self::Accelerator => "accelerator",
            Self::SubFunction => "auxNetDevice",
        })
    }
}

/// What is told to containers: the entries for every device, overlaid by those for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// For every device.
    pub all: BTreeMap<String, String>,
    /// For one PCI address; a sub-function has those of its parent.
    pub by_address: BTreeMap<PciAddress, BTreeMap<String, String>>,
}

/// What makes a device unhealthy besides its absence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthChecks {
    /// Its PF has no carrier.
    pub pf_link: bool,
}

/// Which devices are preferred for a container that wants some of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// Of one NUMA node, then of one PF, filling PFs that are in use already.
    Packed,
    /// Of one NUMA node, then from the PFs with the most free devices.
    Balanced,
}

/// Devices of a pool that pass every filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The filters, in the order in which they are tried.
    pub filters: Vec<Filter>,
    /// Do its devices bring `/dev/vhost-net` and `/dev/net/tun`?
    pub vhost_net: bool,
}

impl Selector {
    /// Do its devices bring their RDMA nodes?
    #[must_use]
    pub fn rdma(&self) -> bool {
        self.filters.contains(&Filter::Rdma)
    }

    /// Returns as what its devices are offered over vDPA.
    #[must_use]
    pub fn vdpa(&self) -> Option<VdpaKind> {
        self.filters.iter().find_map(|filter| match filter {
            Filter::Vdpa(kind) => *kind,
            _ => None,
        })
    }
}

/// One condition on a device. A list passes a device that meets one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Vendor of the PCI function.
    Vendors(Vec<HexId>),
    /// Device id of the PCI function.
    Devices(Vec<HexId>),
    /// Driver of the PCI function.
    Drivers(Vec<String>),
    /// Addresses of the devices themselves.
    PciAddresses(Vec<PciAddress>),
    /// Index that the firmware gave.
    AcpiIndexes(Vec<String>),
    /// PFs by name (or address), with function numbers.
    PfNames(Vec<PfItem>),
    /// PFs by address (or name), with function numbers.
    RootDevices(Vec<PfItem>),
    /// Link layer, in the words of `ip link`.
    LinkTypes(Vec<String>),
    /// Names of DDP packages.
    DdpProfiles(Vec<String>),
    /// First partition key, on InfiniBand.
    PKeys(Vec<String>),
    /// It can do RDMA.
    Rdma,
    /// It serves a vDPA device of this kind; `None` is a kind that does not exist.
    Vdpa(Option<VdpaKind>),
}

impl Filter {
    /// Returns the key in the configuration file.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Vendors(_) => "vendors",
            Self::Devices(_) => "devices",
            Self::Drivers(_) => "drivers",
            Self::PciAddresses(_) => "pciAddresses",
            Self::AcpiIndexes(_) => "acpiIndexes",
            Self::PfNames(_) => "pfNames",
            Self::RootDevices(_) => "rootDevices",
            Self::LinkTypes(_) => "linkTypes",
            Self::DdpProfiles(_) => "ddpProfiles",
            Self::PKeys(_) => "pKeys",
            Self::Rdma => "isRdma",
            Self::Vdpa(_) => "vdpaType",
        }
    }
}

impl fmt::Display for Filter {
    /// Writes the key and the values that can match.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(values: &[T]) -> String {
            let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("[{}]", texts.join(" "))
        }
        let values = match self {
            Self::Vendors(ids) | Self::Devices(ids) => list(ids),
            Self::PciAddresses(addresses) => list(addresses),
            Self::PfNames(items) | Self::RootDevices(items) => list(items),
            Self::Drivers(texts)
            | Self::AcpiIndexes(texts)
            | Self::LinkTypes(texts)
            | Self::DdpProfiles(texts)
            | Self::PKeys(texts) => list(texts),
            Self::Rdma => "true".to_owned(),
            Self::Vdpa(kind) => kind.map_or("[]".to_owned(), |kind| kind.to_string()),
        };
        write!(f, "{} {values}", self.key())
    }
}

/// A PF and some of its functions, written `ens1f0#0-3,7` or, for all of them, `ens1f0`.
///
/// Every text is an item, because upstream takes every text: what follows the first entry that is no
/// number or range is ignored, and [`PfItem::cut_at`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfItem {
    text: String,
    key: String,
    functions: Option<Vec<(u32, u32)>>,
    cut_at: Option<String>,
}

impl PfItem {
    /// Reads an item.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut item = Self {
            text: text.to_owned(),
            key: text.to_owned(),
            functions: None,
            cut_at: None,
        };
        let Some((key, entries)) = text.split_once('#') else {
            return item;
        };
        item.key = key.to_owned();
        let functions = item.functions.insert(Vec::new());
        for entry in entries.split(',') {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            match (digits(first, 10), digits(last, 10)) {
                (Some(first), Some(last)) => functions.push((first, last)),
                _ => {
                    item.cut_at = Some(entry.to_owned());
                    break;
                }
            }
        }
        item
    }

    /// Returns the name or address of the PF.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Is `name` the PF of this item? Case is ignored.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.key.eq_ignore_ascii_case(name)
    }

    /// Is function `index` of the PF among those of this item? One without a number is only among
    /// all.
    #[must_use]
    pub fn has(&self, index: Option<u32>) -> bool {
        match (&self.functions, index) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(functions), Some(index)) => functions
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&index)),
        }
    }

    /// Returns the entry that is no number or range, from which on the item was ignored.
    #[must_use]
    pub fn cut_at(&self) -> Option<&str> {
        self.cut_at.as_deref()
    }

    /// Does the item select nothing, whatever the host has?
    #[must_use]
    pub fn is_void(&self) -> bool {
        let functions = self.functions.as_ref();
        functions.is_some_and(|list| list.iter().all(|(first, last)| first > last))
    }
}

impl fmt::Display for PfItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests;
