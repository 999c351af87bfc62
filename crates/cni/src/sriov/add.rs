//! ADD: a container gets a VF.

use std::time::Duration;

use api::cni::{AddResult, Interface};
use host::{Addressing, AttachError, Attached, Checkpoint, Lock};
use model::{
    AttachInterface, AttachRequest, Function, Holder, HolderKind, IfName, MacAddr, Netdev,
    NetnsTarget, VfSettings,
};
use netlink::NewRoute;

use super::kept::{Seen, kept};
use super::wanted::Wanted;
use super::{foreign, forget_of, forget_owner, infiniband_lock, netns_of, take_back};
use crate::call::Call;
use crate::failure::Failure;
use crate::ipam::Ipam;
use crate::memo::{self, Memo};
use crate::place::{Machine, Place};
use crate::plugin::Plugin;

/// How long to wait for another plugin that works on the VF. A runtime tries again, so it is short.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<String, Failure> {
    let add = Add::read(call, place)?;
    add.make(place)
}

/// An ADD in which all that can be wrong without a look at the VF is right.
struct Add<'a> {
    call: &'a Call,
    wanted: Wanted,
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
        let wanted = Wanted::read(call)?;
        wanted.warn();
        let ipam = Ipam::of(call)?;
        AddResult::check_version(call.config.version, ipam.is_some())
            .map_err(|error| Failure::of(error.number(), &error))?;
        let (container, interface) = call.attachment()?;
        let netns_path = call.environment.netns.as_deref().unwrap_or_default();
        let driver = place.machine.driver_of(wanted.device());
        wanted.check(driver.as_ref())?;
        Ok(Self {
            holder: crate::call::holder(container, interface),
            interface: interface.clone(),
            netns: netns_of(call, place, netns_path)?,
            is_device: driver.is_some_and(|driver| driver.is_user_space()),
            call,
            wanted,
            ipam,
            netns_path,
        })
    }

    fn make<M: Machine>(&self, place: &mut Place<M>) -> Result<String, Failure> {
        let vf = self.wanted.device();
        let locked = place.files.lock(vf, PATIENCE);
        let lock = locked.map_err(|error| Failure::explained(&error))?;
        let _infiniband = infiniband_lock(self.call, place, vf, PATIENCE)?;
        foreign::settle(place, vf)?;
        if self.call.plugin == Plugin::IbSriov {
            foreign::forget_stale(place, vf);
        }
        let attached = self.attach(place)?;
        for note in &attached.notes {
            tracing::warn!(pci = %vf, %note, "vf attached with a note");
        }
        let answer = self.after(place, &attached, &lock);
        answer.map_err(|failure| match self.undo(place) {
            Ok(()) => failure,
            Err(undo) => failure.and(&undo),
        })
    }

    /// Gives the VF to the holder, anew when he has it from an ADD that was killed before its end.
    fn attach<M: Machine>(&self, place: &mut Place<M>) -> Result<Attached, Failure> {
        let request = self.request();
        let given = place.engine().attach(&request);
        let had_it_here = match &given {
            Ok(attached) if attached.already => true,
            Err(AttachError::InUse { holder, netns, .. }) if *holder == self.holder => {
                netns.as_ref() == Some(&self.netns)
            }
            Ok(_) | Err(_) => return given.map_err(|error| Failure::explained(&error)),
        };
        let vf = request.vf;
        if had_it_here && place.files.of_holder(&self.holder).is_some() {
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
        let given = place.engine().attach(&request);
        given.map_err(|error| Failure::explained(&error))
    }

    fn request(&self) -> AttachRequest {
        let mac = self.wanted.mac();
        let interface = (!self.is_device).then(|| AttachInterface {
            netns: self.netns.clone(),
            name: Some(self.interface.clone()),
            mac,
            mtu: None,
            addresses: Vec::new(),
        });
        AttachRequest {
            vf: self.wanted.device(),
            holder: self.holder.clone(),
            settings: VfSettings {
                mac: mac.filter(|_| self.is_device),
                ..self.wanted.settings()
            },
            interface,
            with_rdma: self.wanted.with_rdma() && !self.is_device,
            lives_in: Some(self.netns.clone()),
        }
    }

    /// Does what follows once the VF is there.
    fn after<M: Machine>(
        &self,
        place: &mut Place<M>,
        attached: &Attached,
        lock: &Lock,
    ) -> Result<String, Failure> {
        let vf = self.wanted.device();
        let seen = Seen::of(attached.seen.as_ref(), vf, attached.pf);
        self.wanted.check_guid(seen.vf)?;
        if let Some(former) = &attached.healed
            && former.kind == HolderKind::Cni
            && *former != self.holder
        {
            forget_of(place, former, vf);
        }
        if let Some(memo) = Memo::of(place, vf)? {
            memo.clear(place, vf)?;
        }
        let mut result = AddResult::default();
        if let Some(ipam) = &self.ipam {
            memo::keep(place, vf, self.call)?;
            place.passed(Checkpoint::Recorded);
            result = ipam.add(lock)?;
            place.passed(Checkpoint::StepMade);
        }
        if !self.is_device && self.ipam.is_some() {
            let machine = &place.machine;
            machine
                .address(vf, &self.netns, &self.interface, &addressing(&result))
                .map_err(|error| Failure::explained(&error))?;
        }
        self.describe(&mut result, &seen);
        let text = result
            .to_json(self.call.config.version)
            .map_err(|error| Failure::of(error.number(), &error))?
            .to_string();
        place.passed(Checkpoint::Unconfirmed);
        let files = &place.files;
        let owned = match self.call.plugin {
            Plugin::Sriov => files.set_owner(vf, self.netns_path),
            Plugin::IbSriov | Plugin::Rdma => Ok(()),
        };
        let what = kept(self.call, &self.wanted, self.is_device, &place.boot, &seen);
        let written = owned.and_then(|()| files.keep(&self.holder, &what));
        written.map_err(|error| {
            Failure::new(
                "state-not-accessible",
                format!("write the files of the sriov plugin: {error}"),
                "see that /var/lib/cni is a directory that root can write",
            )
        })?;
        place.passed(Checkpoint::Confirmed);
        Ok(text)
    }

    /// Takes back what was done, all of it whatever fails.
    fn undo<M: Machine>(&self, place: &mut Place<M>) -> Result<(), Failure> {
        let vf = self.wanted.device();
        let mut failures = Vec::new();
        // IPAM plugins may have reserved something even if they failed.
        if let Ok(Some(memo)) = Memo::of(place, vf)
            && memo.holder().is_ok_and(|holder| holder == self.holder)
        {
            failures.extend(memo.release(place, vf).err());
        }
        match take_back(place, vf, &self.holder) {
            Ok(_) => {
                forget_of(place, &self.holder, vf);
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
            mac: text(self.wanted.mac().or(mac)),
            // Upstream's ib-sriov says neither.
            mtu: mtu
                .filter(|_| self.call.plugin == Plugin::Sriov)
                .map_or(0, |netdev| netdev.mtu),
            sandbox: self.netns_path.to_owned(),
            socket_path: String::new(),
            pci_id: self.wanted.device().to_string(),
        }];
        for ip in &mut result.ips {
            ip.interface = Some(0);
        }
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
