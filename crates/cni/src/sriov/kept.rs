//! An ADD in the words of upstream's plugins, whose files they read to take a VF back.

use api::cni::{
    CachedIpam, CachedRuntime, IbRuntime, IbSriovCache, IbSriovConfig, OrigVfState, RdmaParent,
    RdmaState, SriovCache, SriovConfig, SwitchText,
};
use host::BootId;
use model::{Function, Inventory, LinkPolicy, Netdev, PciAddress, VfState};

use super::wanted::Wanted;
use crate::call::Call;
use crate::upstream::Kept;

/// What was seen of a VF before it was given away.
pub(super) struct Seen<'a> {
    pub(super) vf: Option<&'a Function>,
    pub(super) pf: Option<&'a Function>,
}

impl<'a> Seen<'a> {
    pub(super) fn of(seen: Option<&'a Inventory>, vf: PciAddress, pf: PciAddress) -> Self {
        let get = |address| seen.and_then(|seen| seen.get(address));
        Self {
            vf: get(vf),
            pf: get(pf),
        }
    }

    pub(super) fn state(&self) -> Option<VfState> {
        self.vf?.vf()?.state
    }

    fn index(&self) -> i64 {
        let index = self.vf.and_then(|function| function.vf()?.index);
        index.map_or(0, |index| i64::from(index.0))
    }

    fn master(&self) -> String {
        let name = self.pf.and_then(Function::netdev_name);
        name.map(ToString::to_string).unwrap_or_default()
    }
}

/// Says what was done for a call.
pub(super) fn kept(
    call: &Call,
    wanted: &Wanted,
    is_device: bool,
    boot: &BootId,
    seen: &Seen<'_>,
) -> Kept {
    let ipam = call.config.ipam().ok().flatten().unwrap_or_default();
    let ipam = CachedIpam {
        plugin: ipam.to_owned(),
    };
    match wanted {
        Wanted::Sriov(config) => Kept::Sriov(SriovCache {
            ipam,
            ..sriov(call, config, is_device, boot, seen)
        }),
        Wanted::Infiniband(config) => Kept::Infiniband(IbSriovCache {
            ipam,
            ..infiniband(call, config, is_device, boot, seen)
        }),
    }
}

fn sriov(
    call: &Call,
    config: &SriovConfig,
    is_device: bool,
    boot: &BootId,
    seen: &Seen<'_>,
) -> SriovCache {
    let settings = &config.settings;
    let tag = settings.vlan.flatten();
    let has_vlan = settings.vlan.is_some();
    let netdev = seen.vf.and_then(Function::netdev).filter(|_| !is_device);
    let rate = |rate: Option<Option<model::Mbps>>| rate.map(number);
    let mac = config.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let own = netdev.and_then(Netdev::mac).map(|mac| mac.to_string());
    let mtu = netdev.or_else(|| seen.pf.and_then(Function::netdev));
    let SwitchText(spoofchk) = config.spoof_check.clone();
    let SwitchText(trust) = config.trust.clone();
    SriovCache {
        cni_version: call.config.version.to_string(),
        name: call.config.name.clone(),
        plugin: "sriov".to_owned(),
        ipam: CachedIpam::default(),
        device_id: config.device.to_string(),
        master: seen.master(),
        vf: seen.index(),
        mac: mac.clone(),
        mtu: mtu.map(|netdev| i64::from(netdev.mtu)),
        vlan: has_vlan.then(|| tag.map_or(0, |tag| i64::from(tag.id.get()))),
        vlan_qos: has_vlan.then(|| tag.map_or(0, |tag| i64::from(tag.pcp.get()))),
        vlan_proto: has_vlan.then(|| {
            let proto = tag.map(|tag| tag.proto).unwrap_or_default();
            proto.to_string().to_ascii_lowercase()
        }),
        min_tx_rate: rate(settings.min_rate),
        max_tx_rate: rate(settings.max_rate),
        spoofchk,
        trust,
        link_state: settings.link.map(link_text).unwrap_or_default().to_owned(),
        runtime: CachedRuntime { mac },
        before: OrigVfState {
            host_if_name: netdev.map(|n| n.name.to_string()).unwrap_or_default(),
            effective_mac: own.unwrap_or_default(),
            mtu: netdev.map_or(0, |netdev| netdev.mtu),
            ..OrigVfState::from(&seen.state().unwrap_or_default())
        },
        is_dpdk: false,
        virtfn_boot: Some(boot.as_str().to_owned()),
    }
}

fn infiniband(
    call: &Call,
    config: &IbSriovConfig,
    is_device: bool,
    boot: &BootId,
    seen: &Seen<'_>,
) -> IbSriovCache {
    let netdev = seen.vf.and_then(Function::netdev).filter(|_| !is_device);
    let former = seen.state().and_then(|state| state.port_guid);
    let of_address = netdev.and_then(|netdev| {
        let address = netdev.address.as_deref()?;
        address.get(address.len().checked_sub(8 * 3 - 1)?..)
    });
    let host_guid = match (of_address, former) {
        (Some(text), _) => text.to_owned(),
        (None, Some(guid)) => guid.to_string(),
        // What upstream writes for a device of user space.
        (None, None) => model::Guid::ONES.to_string(),
    };
    let guid = config.guid.map(|guid| guid.to_string());
    let moved = seen.vf.and_then(|vf| vf.rdma.first());
    let moved = moved.filter(|_| config.moves_rdma && !is_device);
    IbSriovCache {
        cni_version: call.config.version.to_string(),
        name: call.config.name.clone(),
        plugin: "ib-sriov".to_owned(),
        ipam: CachedIpam::default(),
        device_id: config.device.to_string(),
        master: seen.master(),
        vf: seen.index(),
        host_name: netdev.map(|n| n.name.to_string()).unwrap_or_default(),
        host_guid,
        container_name: netdev
            .and(call.environment.interface.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        pkey: config.partition_key.clone().unwrap_or_default(),
        link_state: config.link.map(link_text).unwrap_or_default().to_owned(),
        moves_rdma: moved.is_some(),
        ib_kubernetes: config.ib_kubernetes,
        is_vfio: is_device,
        rdma: moved.map_or_else(RdmaState::default, |device| {
            RdmaState::moved(&RdmaParent::Function(config.device), &device.name)
        }),
        runtime: IbRuntime {
            guid: guid.unwrap_or_default(),
        },
        args: api::cni::IbArguments::default(),
        virtfn_boot: Some(boot.as_str().to_owned()),
    }
}

fn number(rate: Option<model::Mbps>) -> i64 {
    rate.map_or(0, |rate| i64::from(rate.get()))
}

fn link_text(link: LinkPolicy) -> &'static str {
    match link {
        LinkPolicy::Auto => "auto",
        LinkPolicy::Enable => "enable",
        LinkPolicy::Disable => "disable",
    }
}
