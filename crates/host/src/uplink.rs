//! What this host uses its interfaces for: the facts for [`policy::check_uplinks`].
//!
//! | Use | Where it is read |
//! |---|---|
//! | default routes | the kernel's routes, all tables |
//! | API server | `server` in the kubelet's kubeconfig, then the kernel's way to that address |
//! | NFS | `/proc/1/mounts`: what is mounted where the system runs from, by its `addr=` |
//! | iSCSI | `/sys/class/iscsi_connection/*/address`, every session: which disk is whose is not told |
//! | what is below | `/sys/class/net/*/lower_*`, which bonds, bridges, VLANs and teams all have |
//!
//! What would surprise: an internal port of Open vSwitch (`br-ex`) has nothing below it in sysfs; all
//! ports of the datapath are taken for it. A name of an API server is looked up in `/etc/hosts` only:
//! asking DNS can hang exactly when the network is broken. What could not be told is a [`Gap`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use api::kubeconfig::{ApiServer, api_servers};
use model::{Code, Explain, Gap, IfIndex, IfName};
use netlink::{
    DefaultRoute, IpVersion, Link, Protocol, RequestError, Socket, default_routes,
    interface_towards, links,
};
use policy::{Purpose, UplinkFacts, UplinkUse};

use crate::root::HostRoot;

#[cfg(test)]
mod tests;

/// Kubeconfigs of kubelets: kubeadm, OpenShift, others by hand, k3s, RKE2, MicroK8s.
const KUBECONFIGS: [&str; 6] = [
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/kubeconfig",
    "/var/lib/kubelet/kubeconfig",
    "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
    "/var/lib/rancher/rke2/agent/kubelet.kubeconfig",
    "/var/snap/microk8s/current/credentials/kubelet.config",
];

/// Where the system runs from; losing another file system hurts less than the network that an
/// administrator asked to change.
const SYSTEM_MOUNTS: [&str; 7] = ["/", "/boot", "/etc", "/opt", "/sysroot", "/usr", "/var"];

/// Longest list of mounts that is read: a node with 10,000 of them has about 3 MiB.
const MOUNTS_LIMIT: usize = 8 << 20;

/// What a host uses its interfaces for, as far as could be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenUplinks {
    /// The uses.
    pub facts: UplinkFacts,
    /// What could not be told.
    pub gaps: Vec<Gap>,
}

/// It could not be told what the host needs, so that nothing protects it.
#[derive(Debug, thiserror::Error)]
#[error("find out which interfaces the host itself needs")]
pub struct UplinksError(#[source] RequestError);

impl Explain for UplinksError {
    fn code(&self) -> Code {
        Code::new("uplinks-unknown")
    }

    fn remedy(&self) -> Option<String> {
        Some("give --allow-default-route to go on without that protection".to_owned())
    }
}

/// Finds out what the host uses its interfaces for.
///
/// `root` has the host's files; the routes are those of the calling thread's network namespace, which
/// must be the host's. `more_servers` are API servers that the caller knows of.
pub fn see_uplinks(root: &HostRoot, more_servers: &[IpAddr]) -> Result<SeenUplinks, UplinksError> {
    let mut kernel = Kernel::open().map_err(UplinksError)?;
    gather(root, more_servers, &mut kernel).map_err(UplinksError)
}

/// What the kernel is asked.
trait Ways {
    /// Lists interfaces.
    fn links(&mut self) -> Result<Vec<Interface>, RequestError>;
    /// Lists default routes.
    fn default_routes(&mut self, version: IpVersion) -> Result<Vec<DefaultRoute>, RequestError>;
    /// Finds the way to an address.
    fn towards(&mut self, address: IpAddr) -> Result<Option<IfIndex>, RequestError>;
}

/// As much of an interface as matters here.
#[derive(Clone, Debug)]
struct Interface {
    index: IfIndex,
    name: IfName,
    is_ovs: bool,
}

struct Kernel(Socket);

impl Kernel {
    fn open() -> Result<Self, RequestError> {
        Socket::open(Protocol::Route).map(Self)
    }
}

impl Ways for Kernel {
    fn links(&mut self) -> Result<Vec<Interface>, RequestError> {
        let interface = |link: Link| Interface {
            index: link.index,
            name: link.name,
            is_ovs: link.kind.as_deref() == Some("openvswitch"),
        };
        Ok(links(&mut self.0)?.into_iter().map(interface).collect())
    }

    fn default_routes(&mut self, version: IpVersion) -> Result<Vec<DefaultRoute>, RequestError> {
        default_routes(&mut self.0, version)
    }

    fn towards(&mut self, address: IpAddr) -> Result<Option<IfIndex>, RequestError> {
        interface_towards(&mut self.0, address)
    }
}

fn gather(
    root: &HostRoot,
    more_servers: &[IpAddr],
    ways: &mut impl Ways,
) -> Result<SeenUplinks, RequestError> {
    let interfaces = ways.links()?;
    let mut seen = SeenUplinks::default();
    for (version, purpose) in [
        (IpVersion::V4, Purpose::DefaultRouteV4),
        (IpVersion::V6, Purpose::DefaultRouteV6),
    ] {
        for route in ways.default_routes(version)? {
            for index in route.interfaces {
                seen.add(&interfaces, purpose.clone(), index);
            }
        }
    }
    let mut remote: Vec<(Purpose, IpAddr)> = Vec::new();
    let known = seen.api_servers(root);
    let servers = more_servers.iter().copied().chain(known);
    remote.extend(servers.map(|address| (Purpose::ApiServer(address), address)));
    remote.extend(seen.nfs(root));
    remote.extend(seen.iscsi(root));
    for (purpose, address) in remote {
        if let Some(index) = ways.towards(address)? {
            seen.add(&interfaces, purpose, index);
        }
    }
    seen.look_below(root, &interfaces);
    Ok(seen)
}

impl SeenUplinks {
    fn add(&mut self, interfaces: &[Interface], purpose: Purpose, index: IfIndex) {
        let found = interfaces.iter().find(|interface| interface.index == index);
        // An interface that appeared a moment ago carries nothing that is older.
        let Some(Interface { name, .. }) = found else {
            return;
        };
        let used = UplinkUse {
            purpose,
            interface: name.clone(),
        };
        if !self.facts.uses.contains(&used) {
            self.facts.uses.push(used);
        }
    }

    fn gap(&mut self, object: &str, reason: &dyn fmt::Display) {
        self.gaps.push(Gap {
            object: object.to_owned(),
            reason: reason.to_string(),
        });
    }

    /// Returns the addresses of the API servers that kubelets of this host are told of.
    fn api_servers(&mut self, root: &HostRoot) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        for path in KUBECONFIGS {
            let text = match root.read_text(path) {
                Ok(text) => text,
                Err(error) if error.is_gone() => continue,
                Err(error) => {
                    self.gap(path, &error.source);
                    continue;
                }
            };
            match api_servers(&text) {
                Err(error) => self.gap(path, &error),
                Ok(servers) => {
                    for server in servers {
                        match server {
                            ApiServer::Address(address) => {
                                addresses.insert(address);
                            }
                            ApiServer::Name(name) => {
                                let found = hosts_entry(root, &name);
                                if found.is_empty() {
                                    let why = format!(
                                        "the API server {name} is not in /etc/hosts, so it is not \
                                         known by which interface it is reached"
                                    );
                                    self.gap(path, &why);
                                }
                                addresses.extend(found);
                            }
                        }
                    }
                }
            }
        }
        addresses
    }

    fn nfs(&mut self, root: &HostRoot) -> Vec<(Purpose, IpAddr)> {
        // In a container, process 1 of the host has the host's mounts and this one has not.
        let mounts = root
            .read_bounded("/proc/1/mounts", MOUNTS_LIMIT)
            .or_else(|_| root.read_bounded("/proc/self/mounts", MOUNTS_LIMIT));
        let mounts = match mounts {
            Ok(mounts) => mounts,
            Err(error) => {
                self.gap("mounts", &error.source);
                return Vec::new();
            }
        };
        let found = nfs_mounts(&String::from_utf8_lossy(&mounts));
        let purpose = |(server, mount)| (Purpose::NfsMount { server, mount }, server);
        found.into_iter().map(purpose).collect()
    }

    fn iscsi(&mut self, root: &HostRoot) -> Vec<(Purpose, IpAddr)> {
        const CLASS: &str = "/sys/class/iscsi_connection";
        let connections = root.list(CLASS).unwrap_or_default();
        let mut found = Vec::new();
        for connection in connections {
            // A connection can end while it is looked at.
            let Ok(text) = root.read_text(&format!("{CLASS}/{connection}/address")) else {
                continue;
            };
            match address(&text) {
                Some(address) => found.push((Purpose::Iscsi(address), address)),
                None => self.gap(&connection, &format!("{text:?} is not an address")),
            }
        }
        found
    }

    /// Follows `lower_*` from the interfaces that are used down to the hardware.
    fn look_below(&mut self, root: &HostRoot, interfaces: &[Interface]) {
        let ovs = || interfaces.iter().filter(|interface| interface.is_ovs);
        let mut next: Vec<IfName> = self
            .facts
            .uses
            .iter()
            .map(|used| used.interface.clone())
            .collect();
        let mut lower = BTreeMap::new();
        while let Some(name) = next.pop() {
            if lower.contains_key(&name) {
                continue;
            }
            let mut below = lowers(root, &name);
            if ovs().any(|interface| interface.name == name) {
                for other in ovs().filter(|interface| interface.name != name) {
                    below.extend(lowers(root, &other.name));
                }
                below.retain(|port| *port != name);
            }
            next.extend(below.iter().cloned());
            lower.insert(name, below.into_iter().collect());
        }
        lower.retain(|_, below: &mut Vec<IfName>| !below.is_empty());
        self.facts.lower = lower;
    }
}

/// Returns what is right below an interface.
fn lowers(root: &HostRoot, name: &IfName) -> BTreeSet<IfName> {
    let names = root.list(&format!("/sys/class/net/{name}"));
    let below = names.unwrap_or_default();
    below
        .iter()
        .filter_map(|entry| entry.strip_prefix("lower_")?.parse().ok())
        .collect()
}

/// Returns the addresses that `/etc/hosts` has for a name.
fn hosts_entry(root: &HostRoot, name: &str) -> Vec<IpAddr> {
    let text = root.read_text("/etc/hosts").unwrap_or_default();
    let of_line = |line: &str| {
        let line = line.split('#').next()?;
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words
            .any(|word| word.eq_ignore_ascii_case(name))
            .then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

/// Returns servers and places of the NFS file systems that the system runs from.
fn nfs_mounts(mounts: &str) -> Vec<(IpAddr, String)> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let [_source, place, kind, options] =
            [words.next()?, words.next()?, words.next()?, words.next()?];
        if !matches!(kind, "nfs" | "nfs4") || !SYSTEM_MOUNTS.contains(&place) {
            return None;
        }
        let server = options
            .split(',')
            .find_map(|option| option.strip_prefix("addr="))?;
        Some((address(server)?, place.to_owned()))
    };
    mounts.lines().filter_map(of_line).collect()
}

/// Reads an address, perhaps with the zone that link-local IPv6 addresses have.
fn address(text: &str) -> Option<IpAddr> {
    match text.split_once('%') {
        Some((address, _zone)) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Reads bytes as a list of mounts.
pub(crate) fn fuzz_mounts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for (_, place) in nfs_mounts(&text) {
        assert!(SYSTEM_MOUNTS.contains(&place.as_str()));
    }
}
