//! Finding the other network namespaces of a host, the netdevs in them, and what they have on netdevs of
//! this one.
//!
//! A namespace has no list to be looked up in: it lives as long as a mount, a process or a
//! descriptor keeps it. Those that people name are mounted in `/run/netns` (iproute2, CNI runtimes)
//! or `/run/docker/netns`; the others are found through the processes in them. One that only a
//! descriptor keeps is not found.
//!
//! A thread enters the namespaces one after the other and ends; the caller's thread stays where it
//! is. Entering needs `CAP_SYS_ADMIN`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use model::{IfIndex, IfName, PciAddress};
use netlink::{Link, Protocol, Socket};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Elsewhere, QueryError};
use crate::discover::LOOPBACK;
use crate::root::HostRoot;

/// Where named namespaces are mounted.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Most namespaces entered: a node runs at most some 500 pods, a build host some 1,000 containers.
const MOST_NAMESPACES: usize = 4096;

/// `NSFS_MAGIC`: a file in `/run/netns` that is not of this file system is a leftover, no namespace.
const NSFS: i64 = 0x6e73_6673;

/// Lists the netdevs on PCI functions in every other namespace.
///
/// A namespace that cannot be entered is told in the second part and does not end the search.
pub(super) fn links_of_all(root: &HostRoot) -> (Vec<Elsewhere>, Vec<QueryError>) {
    // The thread is needed, not the time: `setns` moves the calling thread.
    let outcome = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespaces".to_owned());
        let thread = thread.spawn_scoped(scope, || {
            let mut search = Search::up_to(MOST_NAMESPACES);
            search.run(root);
            (search.found, search.errors)
        });
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    match outcome {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => {
            let source = io::Error::other("the thread ended early");
            (Vec::new(), vec![QueryError::new(ATTEMPT, source)])
        }
        Err(source) => (Vec::new(), vec![QueryError::new(ATTEMPT, source)]),
    }
}

const ATTEMPT: &str = "look into the other network namespaces";

struct Search {
    most: usize,
    is_cut: bool,
    seen: BTreeSet<u64>,
    /// This namespace, as others are asked for their number of it.
    own: Option<OwnedFd>,
    found: Vec<Elsewhere>,
    errors: Vec<QueryError>,
}

impl Search {
    fn up_to(most: usize) -> Self {
        Self {
            most,
            is_cut: false,
            seen: BTreeSet::new(),
            own: None,
            found: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn run(&mut self, root: &HostRoot) {
        let own = File::open("/proc/thread-self/ns/net");
        match own.and_then(|own| Ok((own.metadata()?.ino(), own))) {
            Ok((inode, own)) => {
                self.seen.insert(inode);
                self.own = Some(own.into());
            }
            Err(source) => return self.errors.push(QueryError::new(ATTEMPT, source)),
        }
        for directory in NAMED {
            for name in root.list(directory).unwrap_or_default() {
                let path = format!("{directory}/{name}");
                // Something else may be there, and opening a pipe would wait for its other end.
                if let Ok(namespace) = root.open_file(&path, OFlags::RDONLY | OFlags::NONBLOCK) {
                    self.look_into(&namespace, path);
                }
            }
        }
        for pid in root.list("/proc").unwrap_or_default() {
            if pid.bytes().all(|byte| byte.is_ascii_digit()) {
                self.look_into_process(root, &pid);
            }
        }
    }

    fn look_into_process(&mut self, root: &HostRoot, pid: &str) {
        let Ok(dir) = root.dir(&format!("/proc/{pid}/ns")) else {
            return;
        };
        // `net:[4026531840]`: most processes are in a namespace that was seen.
        let mut buffer = Vec::new();
        let target = dir.link_target("net", &mut buffer).ok();
        let inode = target.and_then(|target| std::str::from_utf8(target).ok());
        let inode = inode.and_then(|text| text.strip_prefix("net:[")?.strip_suffix(']'));
        if inode
            .and_then(|text| text.parse().ok())
            .is_some_and(|inode| self.seen.contains(&inode))
        {
            return;
        }
        if let Ok(namespace) = dir.open_magic_link("net") {
            self.look_into(&namespace, format!("/proc/{pid}/ns/net"));
        }
    }

    fn look_into(&mut self, namespace: &OwnedFd, path: String) {
        let is_namespace = rustix::fs::fstatfs(namespace).is_ok_and(|fs| fs.f_type == NSFS);
        let Ok(stat) = rustix::fs::fstat(namespace) else {
            return;
        };
        if !is_namespace || self.seen.contains(&stat.st_ino) {
            return;
        }
        if self.seen.len() >= self.most {
            // What is not looked into may have VFs: that must be said, and once is enough.
            if !std::mem::replace(&mut self.is_cut, true) {
                let source = format!("there are more than {}", self.most);
                self.errors.push(QueryError::new(ATTEMPT, source));
            }
            return;
        }
        self.seen.insert(stat.st_ino);
        match links_in(namespace, self.own.as_ref()) {
            Ok((links, uppers)) => self.found.push(Elsewhere {
                inode: stat.st_ino,
                path: Some(path),
                links,
                uppers,
            }),
            Err(error) => self.errors.push(error.into_query(&path)),
        }
    }
}

/// Why a namespace could not be looked into.
enum Refused {
    Enter(Errno),
    Ask(netlink::RequestError),
}

impl Refused {
    fn into_query(self, path: &str) -> QueryError {
        match self {
            Self::Enter(errno) => QueryError::new(
                format!("enter network namespace {path}"),
                io::Error::from(errno),
            ),
            Self::Ask(error) => QueryError::new(format!("look into {path}"), error),
        }
    }
}

/// Netdevs on PCI functions, and what is on netdevs of the host.
type Found = (Vec<Link>, BTreeMap<IfIndex, IfName>);

/// Moves this thread into the namespace and lists what is of interest there; `own` is the host's.
fn links_in(namespace: &OwnedFd, own: Option<&OwnedFd>) -> Result<Found, Refused> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(Refused::Enter)?;
    let mut socket = Socket::open(Protocol::Route).map_err(Refused::Ask)?;
    let mut links = netlink::links(&mut socket).map_err(Refused::Ask)?;
    if links.iter().all(|link| link.parent_bus.is_none()) {
        ask_for_parents(&mut links, |name| {
            // An interface that says nothing is on no PCI function.
            let driver = netlink::ethtool::driver(&mut socket, name).ok().flatten();
            driver.and_then(|driver| driver.bus_info?.parse().ok())
        });
    }
    let far = links
        .iter()
        .filter_map(|link| Some((link, link.far_lower?)));
    let far: Vec<_> = far.collect();
    let mut uppers = BTreeMap::new();
    if let Some(own) = own.filter(|_| !far.is_empty()) {
        let host = netlink::netns_id(&mut socket, own.as_fd()).map_err(Refused::Ask)?;
        for (link, lower) in far.iter().filter(|(_, lower)| Some(lower.netns) == host) {
            // One is enough to be in use.
            let upper = uppers.entry(lower.index);
            upper.or_insert_with(|| link.name.clone());
        }
    }
    links.retain(|link| link.parent_pci().is_some());
    Ok((links, uppers))
}

/// Asks hardware interfaces for their parents, as kernels before 5.14 do not tell them in the list. On
/// later ones this is for namespaces without hardware, where nothing but the loopback is left to ask.
fn ask_for_parents(links: &mut [Link], mut ask: impl FnMut(&IfName) -> Option<PciAddress>) {
    let hardware = |link: &&mut Link| link.kind.is_none() && link.arphrd != LOOPBACK;
    for link in links.iter_mut().filter(hardware) {
        if let Some(parent) = ask(&link.name) {
            link.parent_bus = Some("pci".to_owned());
            link.parent_dev = Some(parent.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_is_cut_short_says_so_once() {
        let root = HostRoot::this_machine().unwrap();
        let mut search = Search::up_to(0);
        let own = root.dir("/proc/self/ns").unwrap();
        for _twice in 0..2 {
            let namespace = own.open_magic_link("net").unwrap();
            search.look_into(&namespace, "/proc/self/ns/net".to_owned());
        }
        assert_eq!((search.found.len(), search.errors.len()), (0, 1));
        let said = model::with_causes(&search.errors[0]);
        assert!(said.contains("more than 0"), "{said}");
    }

    #[test]
    fn a_kernel_that_tells_no_parents_is_asked_for_those_of_hardware() {
        let link = |index: u32, arphrd: u16, kind: Option<&str>| -> Link {
            let mut link: Link = serde_json::from_str(&format!(
                r#"{{"index":{index},"name":"n{index}","arphrd":{arphrd},"oper":"up","mtu":1500}}"#
            ))
            .unwrap();
            link.kind = kind.map(str::to_owned);
            link
        };
        let mut links = [
            link(1, LOOPBACK, None),
            link(2, 1, Some("veth")),
            link(3, 1, None),
            link(4, 1, None),
        ];
        let vf = "0000:3b:02.1".parse().unwrap();
        let mut asked = Vec::new();
        ask_for_parents(&mut links, |name| {
            asked.push(name.to_string());
            (name.as_str() == "n3").then_some(vf)
        });
        assert_eq!(asked, ["n3", "n4"]);
        let parents = links.map(|link| link.parent_pci());
        assert_eq!(parents, [None, None, Some(vf), None]);
    }
}
