//! ADD: a container gets a VF.

use std::time::Duration;

use api::cni::{
    AddResult, Arguments, CachedIpam, CachedRuntime, ErrorNumber, Interface, OrigVfState,
    SriovCache, SriovConfig, SwitchText,
};
use host::{Addressing, Attached, BootId, Checkpoint, Lock, Stage};
use model::{
    AttachInterface, AttachRequest, Function, Holder, HolderKind, IfName, Inventory, LinkPolicy,
    MacAddr, Netdev, NetnsTarget, VfSettings,
};
use netlink::NewRoute;

use super::{foreign, forget, forget_owner, netns_of, take_back};
use crate::call::Call;
use crate::failure::Failure;
use crate::ipam::Ipam;
use crate::memo::{self, Memo};
use crate::place::{Machine, Place};

/// How long to wait for another plugin that works on the VF. A runtime tries again, so it is short.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<String, Failure> {
    let add = Add::read(call, place)?;
    add.make(place)
}

/// An ADD in which all that can be wrong without a look at the VF is right.
struct Add<'a> {
    call: &'a Call,
    config: SriovConfig,
    ipam: Option<Ipam<'a>>,
    holder: Holder,
    interface: IfName,
    /// The namespace as the runtime names it.
    netns_path: &'a str,
    netns: NetnsTarget,
    /// Does the VF stay a device, for a program in user space?
    is_device: bool,
}

impl<'a> Add<'a> {
    fn read<M: Machine>(call: &'a Call, place: &Place<M>) -> Result<Self, Failure> {
        let arguments = Arguments::parse(&call.environment.args)
            .map_err(|error| Failure::of(ErrorNumber::BAD_ENVIRONMENT, &error))?;
        let config = SriovConfig::read(&call.config, &arguments)
            .map_err(|error| Failure::of(error.number(), &error))?;
        for (key, text) in [("spoofchk", &config.spoof_check), ("trust", &config.trust)] {
            if text.is_odd() {
                tracing::warn!(key, value = text.0, "neither on nor off, taken for off");
            }
        }
        let ipam = Ipam::of(call)?;
        AddResult::check_version(call.config.version, ipam.is_some())
            .map_err(|error| Failure::of(error.number(), &error))?;
        let (container, interface) = call.attachment()?;
        let netns_path = call.environment.netns.as_deref().unwrap_or_default();
        Ok(Self {
            holder: crate::call::holder(container, interface),
            interface: interface.clone(),
            netns: netns_of(call, place, netns_path)?,
            is_device: place
                .machine
                .driver_of(config.device)
                .is_some_and(|driver| driver.is_user_space()),
            call,
            config,
            ipam,
            netns_path,
        })
    }

    fn make<M: Machine>(&self, place: &mut Place<M>) -> Result<String, Failure> {
        let vf = self.config.device;
        let locked = place.files.lock(vf, PATIENCE);
        let _lock: Lock = locked.map_err(|error| Failure::explained(&error))?;
        self.settle(place)?;
        let attached = place.engine().attach(&self.request());
        let attached = attached.map_err(|error| Failure::explained(&error))?;
        for note in &attached.notes {
            tracing::warn!(pci = %vf, %note, "vf attached with a note");
        }
        let answer = self.after(place, &attached);
        answer.map_err(|failure| match self.undo(place) {
            Ok(()) => failure,
            Err(undo) => failure.and(&undo),
        })
    }

    /// Brings order into what others left of the VF, and refuses it when it is somebody's.
    fn settle<M: Machine>(&self, place: &mut Place<M>) -> Result<(), Failure> {
        let vf = self.config.device;
        let record = place.ledger.look(vf);
        // A damaged record is for the engine to set aside.
        let claim = record.ok().flatten().and_then(|record| record.claim);
        if let Some(claim) = claim.filter(|claim| claim.holder == self.holder) {
            let is_same =
                claim.stage == Stage::Attached && claim.netns.as_ref() == Some(&self.netns);
            if is_same && place.files.of_holder(&self.holder).is_some() {
                return Err(Failure::new(
                    "vf-in-use",
                    format!(
                        "VF {vf} is already allocated: {} has it, and this ADD is its second",
                        self.holder
                    ),
                    "let the runtime call DEL before it calls ADD again",
                ));
            }
            take_back(place, vf, &self.holder)?;
        }
        foreign::settle(place, vf)
    }

    fn request(&self) -> AttachRequest {
        let mac = self.config.mac;
        let interface = (!self.is_device).then(|| AttachInterface {
            netns: self.netns.clone(),
            name: Some(self.interface.clone()),
            mac,
            mtu: None,
            addresses: Vec::new(),
        });
        AttachRequest {
            vf: self.config.device,
            holder: self.holder.clone(),
            settings: VfSettings {
                mac: mac.filter(|_| self.is_device),
                ..self.config.settings
            },
            interface,
            lives_in: Some(self.netns.clone()),
        }
    }

    /// Does what follows once the VF is there.
    fn after<M: Machine>(
        &self,
        place: &mut Place<M>,
        attached: &Attached,
    ) -> Result<String, Failure> {
        let vf = self.config.device;
        if let Some(former) = &attached.healed
            && former.kind == HolderKind::Cni
            && *former != self.holder
        {
            forget(place, former);
        }
        if let Some(memo) = Memo::of(place, vf)? {
            memo.release(place, vf)?;
        }
        let mut result = AddResult::default();
        if let Some(ipam) = &self.ipam {
            memo::keep(place, vf, self.call)?;
            place.passed(Checkpoint::Recorded);
            result = ipam.add()?;
            place.passed(Checkpoint::StepMade);
        }
        if !self.is_device {
            let machine = &place.machine;
            machine
                .address(vf, &self.netns, &self.interface, &addressing(&result))
                .map_err(|error| Failure::explained(&error))?;
        }
        let seen = Seen::of(attached, vf);
        self.describe(&mut result, &seen);
        let text = result
            .to_json(self.call.config.version)
            .map_err(|error| Failure::of(error.number(), &error))?
            .to_string();
        place.passed(Checkpoint::Unconfirmed);
        let kept = place.files.set_owner(vf, self.netns_path).and_then(|()| {
            place
                .files
                .keep(&self.holder, &self.cache(&place.boot, &seen))
        });
        kept.map_err(|error| {
            Failure::new(
                "state-not-accessible",
                format!("write the files of the sriov plugin: {error}"),
                "see that /var/lib/cni/sriov is a directory that root can write",
            )
        })?;
        place.passed(Checkpoint::Confirmed);
        Ok(text)
    }

    /// Takes back what was done, all of it whatever fails.
    fn undo<M: Machine>(&self, place: &mut Place<M>) -> Result<(), Failure> {
        let vf = self.config.device;
        let mut failures = Vec::new();
        // IPAM plugins may have reserved something even if they failed.
        if let Ok(Some(memo)) = Memo::of(place, vf)
            && memo.holder().is_ok_and(|holder| holder == self.holder)
        {
            failures.extend(memo.release(place, vf).err());
        }
        match take_back(place, vf, &self.holder) {
            Ok(_) => {
                forget(place, &self.holder);
                forget_owner(place, vf);
            }
            Err(failure) => failures.push(failure),
        }
        Failure::join(failures).map_or(Ok(()), Err)
    }

    /// Adds the interface to what IPAM said.
    fn describe(&self, result: &mut AddResult, seen: &Seen<'_>) {
        let text = |mac: Option<MacAddr>| mac.map(|mac| mac.to_string()).unwrap_or_default();
        let netdev = seen.vf.and_then(Function::netdev);
        let (mac, mtu) = if self.is_device {
            let admin = seen.state().and_then(|state| state.mac);
            let pf = seen.pf.and_then(Function::netdev);
            (admin.filter(|mac| !mac.is_zero()), pf)
        } else {
            (netdev.and_then(Netdev::mac), netdev)
        };
        result.interfaces = vec![Interface {
            name: self.interface.to_string(),
            mac: text(self.config.mac.or(mac)),
            mtu: mtu.map_or(0, |netdev| netdev.mtu),
            sandbox: self.netns_path.to_owned(),
            socket_path: String::new(),
            pci_id: self.config.device.to_string(),
        }];
        for ip in &mut result.ips {
            ip.interface = Some(0);
        }
    }

    /// Says the same in the words of upstream's plugin.
    fn cache(&self, boot: &BootId, seen: &Seen<'_>) -> SriovCache {
        let Self { call, config, .. } = self;
        let settings = &config.settings;
        let tag = settings.vlan.flatten();
        let has_vlan = settings.vlan.is_some();
        let netdev = seen
            .vf
            .and_then(Function::netdev)
            .filter(|_| !self.is_device);
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
            ipam: CachedIpam {
                plugin: self
                    .ipam
                    .as_ref()
                    .map(Ipam::name)
                    .unwrap_or_default()
                    .to_owned(),
            },
            device_id: config.device.to_string(),
            master: seen
                .pf
                .and_then(Function::netdev_name)
                .map(ToString::to_string)
                .unwrap_or_default(),
            vf: seen
                .vf
                .and_then(|function| function.vf()?.index)
                .map_or(0, |index| i64::from(index.0)),
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

/// What was seen of a VF before it was given away.
struct Seen<'a> {
    vf: Option<&'a Function>,
    pf: Option<&'a Function>,
}

impl<'a> Seen<'a> {
    fn of(attached: &'a Attached, vf: model::PciAddress) -> Self {
        let get = |address| {
            attached
                .seen
                .as_ref()
                .and_then(|seen: &Inventory| seen.get(address))
        };
        Self {
            vf: get(vf),
            pf: get(attached.pf),
        }
    }

    fn state(&self) -> Option<model::VfState> {
        self.vf?.vf()?.state
    }
}

/// Takes what IPAM gave as what the interface is to have. A route without a next hop goes through the
/// first gateway of its family.
fn addressing(result: &AddResult) -> Addressing {
    let gateway = |is_v6: bool| {
        let mut gateways = result.ips.iter().filter_map(|ip| ip.gateway);
        gateways.find(|gateway| gateway.is_ipv6() == is_v6)
    };
    let routes = result.routes.iter().map(|route| NewRoute {
        to: route.dst,
        via: route.gw.or_else(|| gateway(route.dst.address().is_ipv6())),
        priority: Some(route.priority).filter(|priority| *priority != 0),
        table: route.table,
        scope: route.scope.unwrap_or(0),
        mtu: Some(route.mtu).filter(|mtu| *mtu != 0),
        advmss: Some(route.advmss).filter(|advmss| *advmss != 0),
    });
    Addressing {
        addresses: result.ips.iter().map(|ip| ip.address).collect(),
        routes: routes.collect(),
        awaits_ipv6: gateway(true).is_some(),
    }
}
