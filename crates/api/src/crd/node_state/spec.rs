//! Between `spec` and [`Desired`].

use std::str::FromStr;

use model::{
    Desired, DriverName, EswitchMode, IfName, LinkType, Mtu, PciAddress, PfDesired, RdmaNetnsMode,
    VdpaKind, VfDriver, VfRange,
};

use super::{Interface, SriovNetworkNodeStateSpec, System, VfGroup};
use crate::crd::schema::shorten;
use crate::field::{FieldPath, FieldProblem};

/// A `spec` with values that mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} fields of a node state cannot be used", problems.len())]
pub struct InvalidNodeState {
    /// Everything that is wrong, in the order of the fields.
    pub problems: Vec<FieldProblem>,
}

impl TryFrom<&SriovNetworkNodeStateSpec> for Desired {
    type Error = InvalidNodeState;

    /// Gives the fields their meaning. Bridges are not part of [`Desired`].
    fn try_from(spec: &SriovNetworkNodeStateSpec) -> Result<Self, InvalidNodeState> {
        let mut found = Found::default();
        let mut desired = Self::default();
        for (index, wire) in spec.interfaces.iter().enumerate() {
            let path = FieldPath::from(["spec", "interfaces"]).index(index);
            let pf = found.interface(wire, &path);
            let Some(pf) = pf else { continue };
            if desired.pfs.contains_key(&pf.pf) {
                let problem = format!("{} is there twice", pf.pf);
                found.problem(path.key("pciAddress"), problem, "keep one of the two");
                continue;
            }
            desired.pfs.insert(pf.pf, pf);
        }
        desired.rdma_netns = found.parsed::<RdmaNetnsMode>(
            FieldPath::from(["spec", "system", "rdmaMode"]),
            spec.system.rdma_mode.as_ref(),
            "write shared or exclusive, or leave it out",
        );
        found.into_result(desired)
    }
}

impl TryFrom<&Interface> for PfDesired {
    type Error = InvalidNodeState;

    fn try_from(wire: &Interface) -> Result<Self, InvalidNodeState> {
        let mut found = Found::default();
        match found.interface(wire, &FieldPath::default()) {
            Some(pf) => found.into_result(pf),
            None => Err(InvalidNodeState { problems: found.0 }),
        }
    }
}

impl From<&Desired> for SriovNetworkNodeStateSpec {
    /// Writes it as upstream's controller would, PFs by address.
    fn from(desired: &Desired) -> Self {
        Self {
            interfaces: desired.pfs.values().map(Interface::from).collect(),
            system: System {
                rdma_mode: desired.rdma_netns.map(|mode| mode.to_string()),
            },
            ..Self::default()
        }
    }
}

impl From<&PfDesired> for Interface {
    fn from(pf: &PfDesired) -> Self {
        Self {
            pci_address: pf.pf.to_string(),
            num_vfs: Some(i64::from(pf.num_vfs)).filter(|count| *count != 0),
            mtu: pf.mtu.map(|mtu| i64::from(mtu.get())),
            name: pf.name.as_ref().map(ToString::to_string),
            link_type: pf.link_type.and_then(|link| match link {
                LinkType::Ethernet => Some("ETH".to_owned()),
                LinkType::InfiniBand => Some("IB".to_owned()),
                LinkType::Other(_) => None,
            }),
            eswitch_mode: pf.eswitch.map(|mode| mode.to_string()),
            vf_groups: pf.groups.iter().map(VfGroup::from).collect(),
            externally_managed: pf.externally_managed.then_some(true),
        }
    }
}

impl From<&model::VfGroup> for VfGroup {
    fn from(group: &model::VfGroup) -> Self {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            resource_name: text(&group.resource),
            device_type: Some(group.driver.to_string()),
            vf_range: Some(group.range.to_string()),
            policy_name: text(&group.policy),
            mtu: group.mtu.map(|mtu| i64::from(mtu.get())),
            is_rdma: group.is_rdma.then_some(true),
            vdpa_type: group.vdpa.map(|kind| kind.to_string()),
        }
    }
}

/// An optional text, where Go's empty text is "not given".
fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// Collects what is wrong while fields are read; a wrong field reads as one that is not given.
#[derive(Default)]
struct Found(Vec<FieldProblem>);

impl Found {
    fn into_result<T>(self, value: T) -> Result<T, InvalidNodeState> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(InvalidNodeState { problems: self.0 })
        }
    }

    fn problem(&mut self, path: FieldPath, problem: String, remedy: &str) {
        self.0.push(FieldProblem {
            path,
            problem,
            remedy: remedy.to_owned(),
        });
    }

    fn parsed<T>(&mut self, path: FieldPath, text: Option<&String>, remedy: &str) -> Option<T>
    where
        T: FromStr<Err = model::ParseError>,
    {
        given(text)?
            .parse()
            .map_err(|error: model::ParseError| self.problem(path, error.to_string(), remedy))
            .ok()
    }

    /// Reads one PF; `None` when not even its address can be read.
    fn interface(&mut self, wire: &Interface, path: &FieldPath) -> Option<PfDesired> {
        let pf: Option<PciAddress> = wire
            .pci_address
            .parse()
            .map_err(|error: model::ParseError| {
                let remedy = "write the PF's full address, with its domain (`virtfn list pf`)";
                self.problem(path.key("pciAddress"), error.to_string(), remedy);
            })
            .ok();
        let num_vfs = u16::try_from(wire.num_vfs.unwrap_or(0)).unwrap_or_else(|_| {
            let problem = format!(
                "{} is not a number of VFs from 0 to 65535",
                wire.num_vfs.unwrap_or(0)
            );
            let remedy = "write at most what the device offers (`virtfn list pf`)";
            self.problem(path.key("numVfs"), problem, remedy);
            0
        });
        let name = self.parsed::<IfName>(
            path.key("name"),
            wire.name.as_ref(),
            "write the PF's name, or leave it out",
        );
        let mtu = self.mtu(path.key("mtu"), wire.mtu);
        let link_type = self.link_type(path.key("linkType"), wire.link_type.as_ref());
        let eswitch = self.parsed::<EswitchMode>(
            path.key("eSwitchMode"),
            wire.eswitch_mode.as_ref(),
            "write legacy or switchdev",
        );
        let groups = self.groups(&wire.vf_groups, &path.key("vfGroups"));
        Some(PfDesired {
            pf: pf?,
            name,
            num_vfs,
            mtu,
            link_type,
            eswitch,
            externally_managed: wire.externally_managed.unwrap_or(false),
            groups,
        })
    }

    fn groups(&mut self, wire: &[VfGroup], path: &FieldPath) -> Vec<model::VfGroup> {
        let mut groups: Vec<model::VfGroup> = Vec::new();
        for (index, group) in wire.iter().enumerate() {
            let path = path.index(index);
            let Some(group) = self.group(group, &path) else {
                continue;
            };
            let twice = groups
                .iter()
                .position(|other| other.range.overlaps(group.range));
            if let Some(other) = twice {
                let problem = format!("{} shares VFs with group {other}", group.range);
                let remedy = "give each VF to one group";
                self.problem(path.key("vfRange"), problem, remedy);
            }
            groups.push(group);
        }
        groups
    }

    fn group(&mut self, wire: &VfGroup, path: &FieldPath) -> Option<model::VfGroup> {
        let driver = match given(wire.device_type.as_ref()) {
            None | Some("netdevice") => VfDriver::Kernel,
            Some(_) => VfDriver::Named(self.parsed::<DriverName>(
                path.key("deviceType"),
                wire.device_type.as_ref(),
                "write netdevice or vfio-pci",
            )?),
        };
        let mtu = self.mtu(path.key("mtu"), wire.mtu);
        let vdpa = self.parsed::<VdpaKind>(
            path.key("vdpaType"),
            wire.vdpa_type.as_ref(),
            "write virtio or vhost",
        );
        let remedy = "write first and last VF, both included, such as 0-3";
        if given(wire.vf_range.as_ref()).is_none() {
            self.problem(path.key("vfRange"), "is required".to_owned(), remedy);
        }
        let range = self.parsed::<VfRange>(path.key("vfRange"), wire.vf_range.as_ref(), remedy)?;
        Some(model::VfGroup {
            resource: wire.resource_name.clone().unwrap_or_default(),
            policy: wire.policy_name.clone().unwrap_or_default(),
            range,
            driver,
            mtu,
            is_rdma: wire.is_rdma.unwrap_or(false),
            vdpa,
        })
    }

    fn mtu(&mut self, path: FieldPath, bytes: Option<i64>) -> Option<Mtu> {
        let bytes = bytes.filter(|bytes| *bytes != 0)?;
        let mtu = u32::try_from(bytes).ok().and_then(Mtu::new);
        if mtu.is_none() {
            let problem = format!("{bytes} is not an MTU from 68 to 65535 bytes");
            self.problem(path, problem, "write for example 1500 or 9000");
        }
        mtu
    }

    fn link_type(&mut self, path: FieldPath, text: Option<&String>) -> Option<LinkType> {
        let text = given(text)?;
        if text.eq_ignore_ascii_case("eth") {
            Some(LinkType::Ethernet)
        } else if text.eq_ignore_ascii_case("ib") {
            Some(LinkType::InfiniBand)
        } else {
            let problem = format!("{:?} is not a link type", shorten(text));
            self.problem(path, problem, "write ETH or IB");
            None
        }
    }
}
