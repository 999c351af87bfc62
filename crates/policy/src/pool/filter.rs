//! Does a device pass a filter? If not, what does it have instead?

use std::fmt;

use model::{Filter, HexId, LinkType, PfItem};

use super::candidate::Candidate;

/// The first filter of a selector that a device does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The filter.
    pub filter: Filter,
    /// What the device has instead, as text; `None` when it has nothing of the kind.
    pub has: Option<String>,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.has {
            Some(has) => write!(f, "{}: it has {has}", self.filter),
            None => write!(f, "{}: it has none", self.filter),
        }
    }
}

/// Returns the first filter that `candidate` does not pass.
pub(super) fn first_miss(filters: &[Filter], candidate: &Candidate<'_>) -> Option<Miss> {
    let filter = filters.iter().find(|filter| !passes(filter, candidate))?;
    Some(Miss {
        filter: filter.clone(),
        has: fact(filter, candidate),
    })
}

/// Does `candidate` pass?
pub(super) fn passes(filter: &Filter, candidate: &Candidate<'_>) -> bool {
    let function = candidate.function;
    let among = |texts: &[String], text: Option<&str>| {
        text.is_some_and(|text| texts.iter().any(|wanted| wanted == text))
    };
    match filter {
        Filter::Vendors(ids) => ids.contains(&HexId(function.id.vendor)),
        Filter::Devices(ids) => ids.contains(&HexId(function.id.device)),
        Filter::Drivers(names) => among(
            names,
            function.driver.as_ref().map(model::DriverName::as_str),
        ),
        Filter::PciAddresses(addresses) => addresses.contains(&function.address),
        Filter::AcpiIndexes(texts) => among(texts, function.acpi_index.as_deref()),
        Filter::PfNames(items) => {
            let netdev = candidate.pf.and_then(|pf| pf.netdev());
            first_of(items, |item| {
                netdev.is_some_and(|netdev| {
                    item.names(netdev.name.as_str())
                        || netdev.alt_names.iter().any(|name| item.names(name))
                })
            })
            .is_some_and(|item| item.has(candidate.index))
        }
        Filter::RootDevices(items) => {
            let address = candidate.pf.map(|pf| pf.address.to_string());
            first_of(items, |item| {
                address.as_ref().is_some_and(|address| item.names(address))
            })
            .is_some_and(|item| item.has(candidate.index))
        }
        Filter::LinkTypes(texts) => {
            let link = candidate.netdev_or_pfs();
            among(
                texts,
                link.map(|netdev| netdev.link_type.to_string()).as_deref(),
            )
        }
        Filter::DdpProfiles(texts) => among(texts, candidate.ddp()),
        Filter::PKeys(texts) => among(texts, partition_key(candidate)),
        Filter::Rdma => !candidate.rdma().is_empty(),
        Filter::Vdpa(kind) => {
            let has = function.vdpa.first().and_then(|device| device.kind);
            kind.is_some() && has == *kind
        }
    }
}

/// Only the first item that names the PF counts, as upstream has it.
fn first_of(items: &[PfItem], names: impl Fn(&PfItem) -> bool) -> Option<&PfItem> {
    items.iter().find(|item| names(item))
}

fn partition_key<'a>(candidate: &Candidate<'a>) -> Option<&'a str> {
    let link = candidate.netdev_or_pfs()?.link_type;
    let device = candidate.rdma().first()?;
    (link == LinkType::InfiniBand)
        .then_some(device.partition_key.as_deref())
        .flatten()
}

/// Returns what the device has of what a filter is about.
fn fact(filter: &Filter, candidate: &Candidate<'_>) -> Option<String> {
    let function = candidate.function;
    match filter {
        Filter::Vendors(_) => Some(HexId(function.id.vendor).to_string()),
        Filter::Devices(_) => Some(HexId(function.id.device).to_string()),
        Filter::Drivers(_) => function.driver.as_ref().map(ToString::to_string),
        Filter::PciAddresses(_) => Some(function.address.to_string()),
        Filter::AcpiIndexes(_) => function.acpi_index.clone(),
        Filter::PfNames(_) => {
            let pf = candidate.pf?;
            let name = pf.netdev_name().map(ToString::to_string);
            let name = name.unwrap_or_else(|| format!("{} without a netdev", pf.address));
            Some(numbered(name, candidate.index))
        }
        Filter::RootDevices(_) => {
            let pf = candidate.pf?;
            Some(numbered(pf.address.to_string(), candidate.index))
        }
        Filter::LinkTypes(_) => {
            let link = candidate.netdev_or_pfs()?;
            Some(link.link_type.to_string())
        }
        Filter::DdpProfiles(_) => candidate.ddp().map(str::to_owned),
        Filter::PKeys(_) => partition_key(candidate).map(str::to_owned),
        Filter::Rdma => None,
        Filter::Vdpa(_) => {
            let device = function.vdpa.first()?;
            let kind = device.kind.map(|kind| kind.to_string());
            Some(kind.unwrap_or_else(|| "one without a driver".to_owned()))
        }
    }
}

fn numbered(pf: String, index: Option<u32>) -> String {
    match index {
        Some(index) => format!("{pf}#{index}"),
        None => pf,
    }
}
