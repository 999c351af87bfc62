//! From the wire form of a policy to its meaning.

use model::{
    EswitchMode, LinkType, Mtu, NetFilter, NodePolicy, Origin, PciAddress, PfNameSelector,
    VdpaKind, VfDriver, VfRange,
};

use super::{InvalidNodePolicy, NicSelector, SriovNetworkNodePolicy, SriovNetworkNodePolicySpec};
use crate::crd::schema::shorten;
use crate::field::{FieldPath, FieldProblem};

impl TryFrom<&SriovNetworkNodePolicy> for NodePolicy {
    type Error = InvalidNodePolicy;

    /// Gives the fields their meaning. The origin is left empty: an object does not know its file.
    fn try_from(object: &SriovNetworkNodePolicy) -> Result<Self, InvalidNodePolicy> {
        let spec = &object.spec;
        let mut found = Found::default();
        let driver = match given(spec.device_type.as_ref()) {
            None | Some("netdevice") => VfDriver::Kernel,
            Some(name) => match name.parse() {
                Ok(driver) => VfDriver::Named(driver),
                Err(error) => {
                    found.problem("deviceType", &error, "write netdevice or vfio-pci");
                    VfDriver::Kernel
                }
            },
        };
        let link_type = found.link_type(spec);
        let policy = NodePolicy {
            name: object.metadata.name.clone(),
            origin: Origin::default(),
            priority: found.priority(spec),
            resource: spec.resource_name.clone(),
            node_selector: spec.node_selector.clone(),
            nic: found.nic(&spec.nic_selector),
            num_vfs: found.num_vfs(spec),
            mtu: found.mtu(spec),
            is_rdma: spec.is_rdma.unwrap_or(false)
                || (link_type == Some(LinkType::InfiniBand) && driver == VfDriver::Kernel),
            need_vhost_net: spec.need_vhost_net.unwrap_or(false),
            link_type,
            eswitch: found.parsed::<EswitchMode>("eSwitchMode", spec.eswitch_mode.as_ref()),
            vdpa: found.parsed::<VdpaKind>("vdpaType", spec.vdpa_type.as_ref()),
            externally_managed: spec.externally_managed.unwrap_or(false),
            exclude_topology: spec.exclude_topology.unwrap_or(false),
            driver,
        };
        if found.0.is_empty() {
            Ok(policy)
        } else {
            Err(InvalidNodePolicy {
                name: policy.name,
                problems: found.0,
            })
        }
    }
}

/// An optional text, where upstream's empty text is "not given".
fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// Collects what is wrong with a spec while its fields are read; a wrong field reads as a default
/// that is never used.
#[derive(Default)]
struct Found(Vec<FieldProblem>);

impl Found {
    fn problem(&mut self, field: &str, problem: &dyn std::fmt::Display, remedy: &str) {
        self.at(FieldPath::from(["spec", field]), problem, remedy);
    }

    fn at(&mut self, path: FieldPath, problem: &dyn std::fmt::Display, remedy: &str) {
        self.0.push(FieldProblem {
            path,
            problem: problem.to_string(),
            remedy: remedy.to_owned(),
        });
    }

    fn parsed<T>(&mut self, field: &str, text: Option<&String>) -> Option<T>
    where
        T: std::str::FromStr<Err = model::ParseError>,
    {
        given(text)?
            .parse()
            .map_err(|error| self.problem(field, &error, "write one of the values that it names"))
            .ok()
    }

    fn priority(&mut self, spec: &SriovNetworkNodePolicySpec) -> u8 {
        const DEFAULT: i64 = 99;
        let priority = spec.priority.unwrap_or(DEFAULT);
        match u8::try_from(priority) {
            Ok(priority @ 0..=99) => priority,
            _ => {
                let problem = format!("{priority} is not a number from 0 to 99");
                self.problem(
                    "priority",
                    &problem,
                    "write a number from 0 (most important) to 99",
                );
                99
            }
        }
    }

    fn num_vfs(&mut self, spec: &SriovNetworkNodePolicySpec) -> u16 {
        u16::try_from(spec.num_vfs).unwrap_or_else(|_| {
            let problem = format!("{} is not a number of VFs from 0 to 65535", spec.num_vfs);
            self.problem(
                "numVfs",
                &problem,
                "write at most what the device offers (`virtfn list pf`)",
            );
            0
        })
    }

    fn mtu(&mut self, spec: &SriovNetworkNodePolicySpec) -> Option<Mtu> {
        let bytes = spec.mtu.filter(|bytes| *bytes != 0)?;
        let mtu = u32::try_from(bytes).ok().and_then(Mtu::new);
        if mtu.is_none() {
            let problem = format!("{bytes} is not an MTU from 68 to 65535 bytes");
            self.problem("mtu", &problem, "write for example 1500 or 9000");
        }
        mtu
    }

    fn link_type(&mut self, spec: &SriovNetworkNodePolicySpec) -> Option<LinkType> {
        match given(spec.link_type.as_ref())? {
            "eth" | "ETH" => Some(LinkType::Ethernet),
            "ib" | "IB" => Some(LinkType::InfiniBand),
            other => {
                let problem = format!("{:?} is not a link type", shorten(other));
                self.problem("linkType", &problem, "write eth or ib");
                None
            }
        }
    }

    fn nic(&mut self, nic: &NicSelector) -> model::NicSelector {
        let path = FieldPath::from(["spec", "nicSelector"]);
        let mut root_devices = Vec::new();
        for (index, text) in nic.root_devices.iter().enumerate() {
            match text.parse::<PciAddress>() {
                Ok(address) => root_devices.push(address),
                Err(error) => self.at(
                    path.key("rootDevices").index(index),
                    &error,
                    "write the PF's full address, with its domain (`virtfn list pf`)",
                ),
            }
        }
        let mut pf_names = Vec::new();
        for (index, text) in nic.pf_names.iter().enumerate() {
            match pf_name(text) {
                Ok(selector) => pf_names.push(selector),
                Err((problem, remedy)) => {
                    self.at(path.key("pfNames").index(index), &problem, &remedy);
                }
            }
        }
        model::NicSelector {
            vendor: self.hex(path.key("vendor"), nic.vendor.as_ref()),
            device: self.hex(path.key("deviceID"), nic.device_id.as_ref()),
            root_devices,
            pf_names,
            net_filter: self.net_filter(path.key("netFilter"), nic.net_filter.as_ref()),
        }
    }

    fn hex(&mut self, path: FieldPath, text: Option<&String>) -> Option<u16> {
        let text = given(text)?;
        let digits = text.len() == 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = digits.then(|| u16::from_str_radix(text, 16).ok()).flatten();
        if id.is_none() {
            let bare = text.trim_start_matches("0x");
            let remedy = if bare.len() == 4 && bare != text {
                format!("leave out the 0x: \"{}\"", shorten(bare))
            } else {
                "write it as `lspci -n` does, such as \"8086\"".to_owned()
            };
            let problem = format!(
                "{:?} is not a PCI id of four hexadecimal digits",
                shorten(text)
            );
            self.at(path, &problem, &remedy);
        }
        id
    }

    fn net_filter(&mut self, path: FieldPath, text: Option<&String>) -> Option<NetFilter> {
        let text = given(text)?;
        let parse = || {
            let (key, value) = text.split_once(':')?;
            let (key, value) = (key.trim(), value.trim());
            let plain = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace);
            (plain(key) && plain(value)).then(|| NetFilter {
                key: key.to_owned(),
                value: value.to_owned(),
            })
        };
        let filter = parse();
        if filter.is_none() {
            let problem = format!("{:?} is not a network filter `key:value`", shorten(text));
            self.at(
                path,
                &problem,
                "write for example openstack/NetworkID:<uuid>",
            );
        }
        filter
    }
}

/// Reads an entry of `pfNames`; on failure returns what is wrong and what to write.
fn pf_name(text: &str) -> Result<PfNameSelector, (String, String)> {
    let (name, range) = match text.split_once('#') {
        None => (text, None),
        Some((name, range)) => (name, Some(range)),
    };
    let quoted = shorten(text);
    if name.is_empty() {
        return Err((
            format!("{quoted:?} names no PF"),
            "write the PF's name before the `#`, such as ens1f0#0-3".to_owned(),
        ));
    }
    let range = match range {
        None => None,
        Some(range) => Some(range.parse::<VfRange>().map_err(|_| {
            (
                format!("{:?} in {quoted:?} is not a range of VFs", shorten(range)),
                range_remedy(&shorten(name), range),
            )
        })?),
    };
    Ok(PfNameSelector {
        name: name.to_owned(),
        range,
    })
}

/// Says what to write instead of a range, guessing what was meant.
fn range_remedy(name: &str, range: &str) -> String {
    let number = |text: &str| text.parse::<u16>().ok();
    if range.is_empty() {
        return format!("write {name} for all VFs, or {name}#0-3 for the first four");
    }
    if let Some(only) = number(range) {
        return format!("for one VF write {name}#{only}-{only}");
    }
    if let Some((first, last)) = range.split_once('-')
        && let (Some(first), Some(last)) = (number(first), number(last))
    {
        return format!("write the lower number first: {name}#{last}-{first}");
    }
    format!("write first and last VF, both included, such as {name}#0-3")
}
