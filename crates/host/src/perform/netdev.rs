//! The netdev of a function, in whichever namespace a step says that it is.
//!
//! In the host's namespace sysfs names it; in another one the kernel's list of interfaces does, by
//! the name of the device that each belongs to (`IFLA_PARENT_DEV_NAME`, kernel 5.14), and for
//! older kernels by what ethtool says.

use std::time::{Duration, Instant};

use model::{IfIndex, IfName, InterfaceAddress, MacAddr, Mtu, NetnsTarget, PciAddress};
use netlink::{DuplicateCheck, Events, Link, LinkChange, Protocol, RequestError, Socket, VfList};

use super::{Fault, Tools, device};
use crate::driver;
use crate::netns::OpenNetns;
use crate::root::HostRoot;
use crate::wait;

/// A VF driver makes its netdev within a second, unless the PF is slow to answer it.
const NETDEV_PATIENCE: Duration = Duration::from_secs(10);

/// How long a VF that resets is waited for: with 20 pods at once `iavf` needs some seconds.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);

/// How soon a busy VF is tried again when no event says that it may be done.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A netdev of the host's namespace, as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnHost {
    pub(crate) name: IfName,
    pub(crate) index: IfIndex,
}

/// Finds the netdev of a function in the host's namespace: the uplink, never a representor.
pub(crate) fn on_host(root: &HostRoot, function: PciAddress) -> Option<OnHost> {
    let dir = format!("{}/net", device(function));
    let names = root.list(&dir).ok()?;
    // While others change interfaces, the files that tell representors make their reader try again and
    // again; a VF has none.
    let is_plain = names.len() == 1 && root.exists(&format!("{}/physfn", device(function)));
    let mut uplinks = names.into_iter().filter(|name| {
        // Outside switchdev mode any port is the function's own.
        if is_plain || root.read(&format!("{dir}/{name}/phys_switch_id")).is_err() {
            return true;
        }
        let port = root.read_text(&format!("{dir}/{name}/phys_port_name"));
        port.map_or(true, |port| model::is_uplink_port(&port))
    });
    uplinks.find_map(|name| {
        let index = root.read_text(&format!("{dir}/{name}/ifindex")).ok()?;
        Some(OnHost {
            name: name.parse().ok()?,
            index: IfIndex::new(index.parse().ok()?)?,
        })
    })
}

/// Has a function a netdev in the host's namespace, by whatever name?
///
/// One that comes back from a container brings its name along, and not every name that the kernel
/// takes is an [`IfName`].
pub(crate) fn is_on_host(root: &HostRoot, function: PciAddress) -> bool {
    let is_odd = |name: &[u8]| {
        let name = std::str::from_utf8(name).ok();
        name.and_then(|name| name.parse::<IfName>().ok()).is_none()
    };
    on_host(root, function).is_some()
        || root.has_entry(&format!("{}/net", device(function)), is_odd)
}

/// Looks up the netdev of a function in the host's namespace, by whatever name.
pub(super) fn link_on_host(
    tools: &mut Tools<'_>,
    function: PciAddress,
) -> Result<Option<Link>, Fault> {
    let socket = tools.sockets.route()?;
    let found = match on_host(tools.root, function) {
        Some(found) => netlink::link_by_index(socket, found.index, VfList::Omit)?,
        None if is_on_host(tools.root, function) => among_all(socket, function)?,
        None => None,
    };
    Ok(found)
}

/// Finds the netdev of a function among all interfaces of the socket's namespace.
pub(super) fn among_all(
    socket: &mut Socket,
    function: PciAddress,
) -> Result<Option<Link>, RequestError> {
    let links = netlink::links(socket)?;
    let knows_parents = links.iter().any(|link| link.parent_bus.is_some());
    for link in links {
        let is_it = if knows_parents {
            link.parent_pci() == Some(function) && !link.is_representor()
        } else {
            // Hardware only: asking a software interface is a waste.
            link.kind.is_none()
                && netlink::ethtool::driver(socket, &link.name)
                    .ok()
                    .flatten()
                    .and_then(|driver| driver.bus_info?.parse().ok())
                    == Some(function)
        };
        if is_it {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// Waits for the netdev of a function in the host's namespace.
pub(super) fn wait(root: &HostRoot, function: PciAddress) -> Result<(), Fault> {
    let mut events = Events::open()?;
    if is_on_host(root, function) {
        return Ok(());
    }
    if !root.exists(&device(function)) {
        return Err(Fault::no_device());
    }
    if let Some(driver) = driver::bound(root, function).filter(model::DriverName::is_user_space) {
        let what = format!("driver {driver} makes no netdev");
        return Err(Fault::new("no-netdev", what).remedy(format!(
            "give it its kernel driver with `virtfn unbind {function}`"
        )));
    }
    let found = wait::until(&mut events, NETDEV_PATIENCE, || {
        is_on_host(root, function).then_some(())
    })?;
    if found.is_some() {
        return Ok(());
    }
    let fault = Fault::too_late("no-netdev", "no netdev appeared", NETDEV_PATIENCE);
    Err(fault.remedy(match driver::bound(root, function) {
        None => format!("load its driver, or let virtfn do it with `virtfn unbind {function}`"),
        Some(driver) => format!(
            "see whether it is in another namespace (`virtfn list vf`), and dmesg for what driver {driver} says"
        ),
    }))
}

/// A netdev and a socket in its namespace.
pub(crate) struct Site<'s> {
    socket: &'s mut Socket,
    link: Link,
}

/// Does `work` on the netdev of a function in a namespace.
pub(super) fn at(
    tools: &mut Tools<'_>,
    function: PciAddress,
    netns: &NetnsTarget,
    work: impl FnOnce(&mut Site<'_>) -> Result<(), Fault> + Send,
) -> Result<(), Fault> {
    match netns {
        NetnsTarget::Host => {
            let link = link_on_host(tools, function)?.ok_or_else(|| missing(netns))?;
            let socket = tools.sockets.route()?;
            work(&mut Site { socket, link })
        }
        NetnsTarget::Path { path, inode } => {
            let open = OpenNetns::open_same(tools.root, path, *inode)?;
            open.run(|| {
                let mut socket = Socket::open(Protocol::Route)?;
                let link = among_all(&mut socket, function)?.ok_or_else(|| missing(netns))?;
                work(&mut Site {
                    socket: &mut socket,
                    link,
                })
            })?
        }
    }
}

pub(crate) fn missing(netns: &NetnsTarget) -> Fault {
    Fault::new(
        "no-netdev",
        format!("it has no netdev in namespace {netns}"),
    )
    .remedy("see where it is with `virtfn list vf`")
}

impl Site<'_> {
    pub(super) fn set_mtu(&mut self, mtu: Mtu) -> Result<(), Fault> {
        if self.link.mtu == mtu.get() {
            return Ok(());
        }
        self.change(&LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        })
        .map_err(|error| {
            let most = self.link.max_mtu.filter(|most| mtu.get() > *most);
            let remedy = match most {
                Some(most) => format!("ask for at most {most} bytes"),
                None => "raise the MTU of the PF first: a VF takes no more than its PF".to_owned(),
            };
            let refused = error.is_invalid();
            let fault = Fault::from(error);
            if refused {
                fault.code("mtu-refused").remedy(remedy)
            } else {
                fault
            }
        })
    }

    pub(super) fn set_up(&mut self, up: bool) -> Result<(), Fault> {
        if self.link.up == up {
            return Ok(());
        }
        Ok(self.change(&LinkChange {
            up: Some(up),
            ..LinkChange::default()
        })?)
    }

    pub(super) fn set_mac(&mut self, mac: MacAddr) -> Result<(), Fault> {
        let wanted = mac.to_string();
        if self.link.address.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let change = LinkChange {
            mac: Some(mac),
            ..LinkChange::default()
        };
        self.change(&change).map_err(|error| {
            let code = if error.is_not_permitted() || error.is_invalid() || error.is_not_found() {
                "mac-refused"
            } else {
                return Fault::from(error);
            };
            Fault::from(error).code(code).remedy(
                "the PF has set this VF's MAC, and only a VF whose driver was bound again takes it: detach and attach it anew",
            )
        })?;
        // Some drivers only ask the PF for the address, and have it later or never.
        let mut events = Events::open()?;
        let Self { socket, link } = self;
        let taken = wait::until(&mut events, BUSY_PATIENCE, || {
            let now = netlink::link_by_index(socket, link.index, VfList::Omit).ok()??;
            (now.address.as_ref() == Some(&wanted)).then_some(())
        })?;
        taken.ok_or_else(|| {
            Fault::too_late(
                "mac-refused",
                "the driver did not take the MAC",
                BUSY_PATIENCE,
            )
            .remedy("set it through the PF only")
        })
    }

    pub(super) fn rename(&mut self, name: &IfName) -> Result<(), Fault> {
        if self.link.name == *name {
            return Ok(());
        }
        self.free_own_alt_name(name)?;
        if let Some(other) = self.other_called(name)? {
            return Err(taken(name, &other));
        }
        let rename = LinkChange {
            name: Some(name.clone()),
            ..LinkChange::default()
        };
        let was_up = self.link.up;
        match netlink::change_link(self.socket, self.link.index, &rename) {
            // Before kernel 6.2 an interface that is up keeps its name.
            Err(error) if error.is_busy() && was_up => {
                self.set_up(false)?;
                self.change(&rename)?;
                self.link.up = false;
                self.set_up(true)
            }
            outcome => Ok(outcome?),
        }
    }

    pub(super) fn add_address(&mut self, address: InterfaceAddress) -> Result<(), Fault> {
        let check = DuplicateCheck::AsConfigured;
        netlink::add_address(self.socket, self.link.index, address, check).map_err(|error| {
            let is_v6_off = address.address().is_ipv6() && error.is_not_permitted();
            let fault = Fault::from(error);
            if is_v6_off {
                fault.code("ipv6-off").remedy(
                    "IPv6 is switched off there: set net.ipv6.conf.all.disable_ipv6 to 0 in the namespace",
                )
            } else {
                fault
            }
        })
    }

    pub(super) fn remove_address(&mut self, address: InterfaceAddress) -> Result<(), Fault> {
        Ok(netlink::remove_address(
            self.socket,
            self.link.index,
            address,
        )?)
    }

    /// Takes an alternative name from the interface when it stands in the way of the same name.
    /// udev leaves such names behind, and the kernel counts them as taken.
    fn free_own_alt_name(&mut self, name: &IfName) -> Result<(), Fault> {
        if self.link.alt_names.iter().any(|alt| alt == name.as_str()) {
            netlink::remove_alt_name(self.socket, self.link.index, name.as_str())?;
        }
        Ok(())
    }

    /// Returns the other interface of the namespace that is called `name`.
    fn other_called(&mut self, name: &IfName) -> Result<Option<Link>, Fault> {
        let found = netlink::link_by_name(self.socket, name, VfList::Omit)?;
        Ok(found.filter(|found| found.index != self.link.index))
    }

    /// Changes the interface, and again while it is in the middle of a reset.
    pub(super) fn change(&mut self, change: &LinkChange<'_>) -> Result<(), RequestError> {
        let Err(error) = netlink::change_link(self.socket, self.link.index, change) else {
            return Ok(());
        };
        if !error.is_busy() {
            return Err(error);
        }
        let mut events = Events::open()?;
        let deadline = Instant::now() + BUSY_PATIENCE;
        loop {
            wait::pause(&mut events, Instant::now() + BUSY_PAUSE)?;
            match netlink::change_link(self.socket, self.link.index, change) {
                Err(error) if error.is_busy() && Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }
}

pub(super) fn taken(name: &IfName, other: &Link) -> Fault {
    let what = match other.parent_pci() {
        Some(function) => format!("interface {} of {function} has that name", other.name),
        None => format!("interface {} has that name", other.name),
    };
    Fault::new("interface-name-taken", what).remedy(format!(
        "choose another name than {name}, or remove that interface"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(files: &[(&str, &str)]) -> (tempfile::TempDir, HostRoot) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir
                .path()
                .join("sys/bus/pci/devices/0000:3b:00.0")
                .join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        let root = HostRoot::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn representors_are_not_the_netdev_of_a_pf() {
        let (_dir, root) = sysfs(&[
            ("net/enp59s0_0/ifindex", "9"),
            ("net/enp59s0_0/phys_port_name", "pf0vf0"),
            ("net/enp59s0_0/phys_switch_id", "b8ce"),
            ("net/ens1f0np0/ifindex", "4"),
            ("net/ens1f0np0/phys_port_name", "p0"),
            ("net/ens1f0np0/phys_switch_id", "b8ce"),
        ]);
        let found = on_host(&root, "0000:3b:00.0".parse().unwrap()).unwrap();
        assert_eq!((found.name.as_str(), found.index.get()), ("ens1f0np0", 4));
    }

    #[test]
    fn a_function_without_netdev_has_none() {
        let (_dir, root) = sysfs(&[("class", "0x010802")]);
        let function = "0000:3b:00.0".parse().unwrap();
        assert_eq!(on_host(&root, function), None);
        assert!(!is_on_host(&root, function));
    }

    #[test]
    fn a_netdev_with_an_odd_name_is_there_and_representors_alone_are_not() {
        let function = "0000:3b:00.0".parse().unwrap();
        let (_dir, root) = sysfs(&[("net/été/ifindex", "9")]);
        assert!(is_on_host(&root, function));
        let (_dir, root) = sysfs(&[
            ("net/enp59s0_0/ifindex", "9"),
            ("net/enp59s0_0/phys_port_name", "pf0vf0"),
            ("net/enp59s0_0/phys_switch_id", "b8ce"),
        ]);
        assert!(!is_on_host(&root, function));
    }
}
