//! From an inventory to `status`.
//!
//! What is shown: network controllers that are no VF, have a driver, and have a netdev in the host's
//! namespace. A PF that was moved into a pod's namespace or bound to a user-space driver vanishes
//! from the status, as upstream has it.

use model::{
    EswitchMode, Function, Inventory, LinkType, Netdev, Netns, PciId, PfFacts, VdpaKind, VfIndex,
};

use super::{InterfaceStatus, SriovNetworkNodeStateStatus, System, VfStatus};

/// How the last attempt to give a node its `spec` went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncResult {
    /// The outcome.
    pub status: SyncStatus,
    /// What went wrong, with its cause; upstream keeps the former one while a new attempt runs.
    pub last_error: Option<String>,
}

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncStatus {
    /// There was none yet.
    #[default]
    Unknown,
    /// It is under way.
    InProgress,
    /// The node has what it should have.
    Succeeded,
    /// It does not.
    Failed,
}

impl SyncStatus {
    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::InProgress => "InProgress",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

impl SriovNetworkNodeStateStatus {
    /// Tells of a host what upstream's daemon would tell of it.
    ///
    /// `is_shown` says which NICs are, by the id of the device: upstream has a table
    /// (`policy::vendor::known_nic`), and shows all with `DEV_MODE=TRUE`.
    #[must_use]
    pub fn of(
        inventory: &Inventory,
        is_shown: impl Fn(PciId) -> bool,
        result: &SyncResult,
    ) -> Self {
        let shown = inventory
            .functions
            .values()
            .filter(|function| function.class.is_network() && function.vf().is_none())
            .filter(|function| is_shown(function.id));
        Self {
            interfaces: shown
                .filter_map(|function| interface(inventory, function))
                .collect(),
            system: System {
                rdma_mode: inventory.rdma_netns.map(|mode| mode.to_string()),
            },
            sync_status: result.status.word().to_owned(),
            last_sync_error: result.last_error.clone().unwrap_or_default(),
            ..Self::default()
        }
    }
}

fn interface(inventory: &Inventory, function: &Function) -> Option<InterfaceStatus> {
    let driver = function.driver.as_ref()?.to_string();
    let netdev = host_netdev(function)?;
    let status = InterfaceStatus {
        name: Some(netdev.name.to_string()),
        alt_names: netdev.alt_names.clone(),
        mac: netdev.address.clone(),
        driver: Some(driver),
        pci_address: function.address.to_string(),
        vendor: Some(id_text(function.id.vendor)),
        device_id: Some(id_text(function.id.device)),
        mtu: number(netdev.mtu),
        link_speed: link_speed(netdev),
        link_type: link_type(netdev.link_type),
        link_admin_state: Some(if netdev.admin_up { "up" } else { "down" }.to_owned()),
        ..InterfaceStatus::default()
    };
    let Some(facts) = function.pf() else {
        return Some(status);
    };
    Some(InterfaceStatus {
        num_vfs: number(facts.num_vfs),
        total_vfs: number(facts.total_vfs),
        // A driver without a devlink eswitch is in legacy mode in all but name.
        eswitch_mode: Some(facts.eswitch.unwrap_or(EswitchMode::Legacy).to_string()),
        externally_managed: facts.externally_managed.then_some(true),
        vfs: vfs(inventory, facts),
        ..status
    })
}

fn vfs(inventory: &Inventory, facts: &PfFacts) -> Vec<VfStatus> {
    let mut links: Vec<_> = facts.vfs.iter().collect();
    links.sort_by_key(|(index, _)| index.0.to_string());
    let status = |(index, address): (&VfIndex, &model::PciAddress)| {
        let known = inventory.get(*address);
        VfStatus {
            pci_address: address.to_string(),
            vf_id: i64::from(index.0),
            ..known.map_or_else(VfStatus::default, |function| vf(function, facts))
        }
    };
    links.into_iter().map(status).collect()
}

/// Tells of a VF what its own function says.
fn vf(function: &Function, pf: &PfFacts) -> VfStatus {
    let netdev = host_netdev(function);
    let representor = function.vf().and_then(|facts| facts.representor.as_ref());
    VfStatus {
        driver: function.driver.as_ref().map(ToString::to_string),
        vendor: Some(id_text(function.id.vendor)),
        device_id: Some(id_text(function.id.device)),
        name: netdev.map(|netdev| netdev.name.to_string()),
        mac: netdev.and_then(|netdev| netdev.address.clone()),
        mtu: netdev.and_then(|netdev| number(netdev.mtu)),
        vdpa_type: vdpa_type(function),
        representor_name: representor
            .filter(|_| pf.eswitch == Some(EswitchMode::Switchdev))
            .map(ToString::to_string),
        guid: match function.rdma.as_slice() {
            [only] => only.node_guid.map(model::Guid::sysfs_text),
            _ => None,
        },
        ..VfStatus::default()
    }
}

/// Returns the function's own netdev that is in the host's namespace, the uplink first.
fn host_netdev(function: &Function) -> Option<&Netdev> {
    function
        .netdevs
        .iter()
        .find(|netdev| netdev.netns == Netns::Host && !netdev.is_representor())
}

/// Writes what `speed` of sysfs says: −1 while an interface is up without a link, and nothing at all
/// while it is down, when reading it fails.
fn link_speed(netdev: &Netdev) -> Option<String> {
    match netdev.speed_mbps {
        Some(mbps) => Some(format!("{mbps} Mb/s")),
        None => netdev.admin_up.then(|| "-1 Mb/s".to_owned()),
    }
}

fn link_type(link: LinkType) -> Option<String> {
    match link {
        LinkType::Ethernet => Some("ETH".to_owned()),
        LinkType::InfiniBand => Some("IB".to_owned()),
        LinkType::Other(_) => None,
    }
}

/// Upstream makes one vDPA device of a VF, under this name, and knows no other.
fn vdpa_type(function: &Function) -> Option<String> {
    let device = function.own_vdpa()?;
    device.kind.map(|kind: VdpaKind| kind.to_string())
}

fn id_text(id: u16) -> String {
    format!("{id:04x}")
}

/// Go leaves a zero out.
fn number(value: impl Into<i64>) -> Option<i64> {
    Some(value.into()).filter(|value| *value != 0)
}
