//! Moving a netdev to another namespace, naming it there and setting it up, in one message. One that
//! is set up tells its neighbours its addresses from then on (`arp_notify`), as upstream's plugin has it.
//!
//! The message is not atomic: when the name turns out to be taken, the netdev is there already,
//! under its old name. So after a failure, and only then, the namespace is looked into. Towards the
//! host a taken name is no failure: a VF that comes home under another
//! name is better than one that does not.
//!
//! A namespace that dies sends its hardware netdevs back to the host by itself, some time after its
//! last user left, with the name they had in it (or `dev<index>`).
//!
//! Whoever had it may have named it as they liked: with bytes that are no [`IfName`], or with an
//! alternative name that an interface of the host has, for which the kernel refuses the move
//! (since Linux 6.6). Neither keeps it from coming home.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use model::{IfName, NetnsTarget, PciAddress};
use netlink::{Events, Link, LinkChange, NetnsRef, Protocol, Socket, VfList};
use rustix::io::Errno;

use super::netdev::{among_all, at, is_on_host, link_on_host, missing, taken};
use super::reported::Known;
use super::{Fault, Tools};
use crate::netns::{NetnsError, OpenNetns};
use crate::wait;

/// The kernel takes namespaces down one after the other on one worker, with RCU grace periods
/// between; a second is usual, ten are seen when hundreds of pods end.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// Where a netdev goes.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) function: PciAddress,
    pub(super) from: &'a NetnsTarget,
    pub(super) to: &'a NetnsTarget,
    /// Its name there.
    pub(super) name: &'a IfName,
    /// Is it set up there?
    pub(super) up: bool,
}

pub(super) fn go(tools: &mut Tools<'_>, way: &Way<'_>) -> Result<(), Fault> {
    match (way.from, way.to) {
        (NetnsTarget::Host, NetnsTarget::Host) => arrive(tools, way),
        (_, NetnsTarget::Host) => home(tools, way),
        (_, NetnsTarget::Path { path, inode }) => {
            let into = OpenNetns::open_same(tools.root, path, *inode)?;
            away(tools, way, &into)
        }
    }
}

/// Gives a netdev that is there what it is to have there.
fn arrive(tools: &mut Tools<'_>, way: &Way<'_>) -> Result<(), Fault> {
    at(tools, way.function, way.to, |site| {
        site.rename(way.name)?;
        let up = LinkChange {
            up: Some(true),
            announces: true,
            ..LinkChange::default()
        };
        if way.up {
            site.change(&up)?;
        }
        Ok(())
    })
}

fn rename(
    tools: &mut Tools<'_>,
    function: PciAddress,
    netns: &NetnsTarget,
    name: &IfName,
) -> Result<(), Fault> {
    at(tools, function, netns, |site| site.rename(name))
}

/// What a namespace has that something could not be moved into.
enum Looked {
    OursIsThere,
    NameIsTaken(Box<Link>),
    Neither,
}

fn look(netns: &OpenNetns, function: PciAddress, name: &IfName) -> Result<Looked, Fault> {
    netns.run(|| {
        let mut socket = Socket::open(Protocol::Route)?;
        if among_all(&mut socket, function)?.is_some() {
            return Ok(Looked::OursIsThere);
        }
        let other = netlink::link_by_name(&mut socket, name, VfList::Omit)?;
        Ok(other.map_or(Looked::Neither, |other| {
            Looked::NameIsTaken(Box::new(other))
        }))
    })?
}

/// Moves into a container's namespace. Only when that fails it is looked into.
fn away(tools: &mut Tools<'_>, way: &Way<'_>, into: &OpenNetns) -> Result<(), Fault> {
    let Err(fault) = send(tools, way, into.as_fd(), &BTreeSet::new()) else {
        return Ok(());
    };
    match look(into, way.function, way.name) {
        // It was there before, or the message got it there under its old name.
        Ok(Looked::OursIsThere) => arrive(tools, way),
        // Somebody else's interface, which must not be touched.
        Ok(Looked::NameIsTaken(other)) => Err(taken(way.name, &other)),
        Ok(Looked::Neither) | Err(_) => Err(fault),
    }
}

/// Moves back to the host, from wherever it is.
fn home(tools: &mut Tools<'_>, way: &Way<'_>) -> Result<(), Fault> {
    let Way {
        function,
        from,
        name,
        ..
    } = *way;
    let mut events = Events::open()?;
    if is_on_host(tools.root, function) {
        return name_at_home(tools, function, name);
    }
    let host = own_netns()?;
    let arrival = Way {
        name: &free_name(tools, function, name)?,
        ..*way
    };
    let mut sent = send(tools, &arrival, host.as_fd(), &BTreeSet::new());
    if sent
        .as_ref()
        .is_err_and(|fault| fault.errno() == Some(Errno::EXIST))
    {
        // Whoever had it gave it an alternative name that is another interface's name here.
        let taken = names_on_host(tools)?;
        sent = send(tools, &arrival, host.as_fd(), &taken);
    }
    match sent {
        Ok(()) => {}
        // A dead namespace gives it back by itself; one that was just left by its last process too.
        Err(fault) if is_dead(tools, from) => {
            tracing::debug!(pci = %function, %fault, "waiting for the netdev of a dead namespace");
        }
        Err(fault) => {
            if !is_on_host(tools.root, function) {
                return Err(fault);
            }
        }
    }
    let root = tools.root;
    let back = wait::until(&mut events, RETURN_PATIENCE, || {
        is_on_host(root, function).then_some(())
    })?;
    if back.is_none() {
        let what = "the kernel did not give its netdev back";
        return Err(Fault::too_late("no-netdev", what, RETURN_PATIENCE).remedy(
            "some process or mount may still keep the namespace: see `lsns -t net` and `virtfn list vf`",
        ));
    }
    name_at_home(tools, function, name)
}

pub(super) fn is_dead(tools: &Tools<'_>, netns: &NetnsTarget) -> bool {
    match netns {
        NetnsTarget::Host => false,
        NetnsTarget::Path { path, inode } => OpenNetns::open_same(tools.root, path, *inode)
            .is_err_and(|error: NetnsError| error.is_gone()),
    }
}

/// Gives it its name in the host's namespace, or another one if that is taken.
pub(super) fn name_at_home(
    tools: &mut Tools<'_>,
    function: PciAddress,
    name: &IfName,
) -> Result<(), Fault> {
    let given = free_name(tools, function, name)?;
    if given != *name {
        tracing::warn!(pci = %function, wanted = %name, ifname = %given, "name taken on the host");
    }
    rename(tools, function, &NetnsTarget::Host, &given)
}

/// Returns `name` if no other interface of the host has it, and a name made of the address if so.
fn free_name(tools: &mut Tools<'_>, function: PciAddress, name: &IfName) -> Result<IfName, Fault> {
    let own = link_on_host(tools, function)?.map(|found| found.index);
    let found = netlink::link_by_name(tools.sockets.route()?, name, VfList::Omit)?;
    if found.is_none_or(|found| Some(found.index) == own) {
        return Ok(name.clone());
    }
    // At most 14 bytes: domains have up to 8 digits, routing ids 4.
    let spare = format!("vf{:x}{:04x}", function.domain(), function.routing_id());
    spare
        .parse()
        .map_err(|error: model::ParseError| Fault::new("interface-name-taken", error))
}

/// Returns all names that interfaces of the host have.
fn names_on_host(tools: &mut Tools<'_>) -> Result<BTreeSet<String>, Fault> {
    let links = netlink::links(tools.sockets.route()?)?;
    let names = links.into_iter().flat_map(|link| {
        let name = link.name.to_string();
        link.alt_names.into_iter().chain([name])
    });
    Ok(names.collect())
}

/// Sends the one message, from inside the namespace that the netdev is in; alternative names of it that
/// are `taken` where it goes are taken from it before.
fn send(
    tools: &mut Tools<'_>,
    way: &Way<'_>,
    into: rustix::fd::BorrowedFd<'_>,
    taken: &BTreeSet<String>,
) -> Result<(), Fault> {
    let Way {
        function,
        from,
        name,
        ..
    } = *way;
    let go = |socket: &mut Socket, link: &Known| -> Result<(), Fault> {
        let is_own = |alt: &&String| *alt == name.as_str();
        // An alternative name of its own travels with it, and would be in its name's way.
        let in_the_way = |alt: &&String| taken.contains(*alt) || is_own(alt);
        for alt in link.alt_names.iter().filter(in_the_way) {
            netlink::remove_alt_name(socket, link.index, alt)?;
        }
        let change = LinkChange {
            netns: Some(NetnsRef::Fd(into)),
            name: Some(name.clone()),
            up: way.up.then_some(true),
            announces: way.up,
            ..LinkChange::default()
        };
        Ok(netlink::change_link(socket, link.index, &change)?)
    };
    match from {
        NetnsTarget::Host => {
            let reported = tools.reported.as_mut();
            let link = match reported.and_then(|reported| reported.take_own(function)) {
                Some(link) => link,
                None => {
                    let found = link_on_host(tools, function)?;
                    Known::from(found.ok_or_else(|| missing(from))?)
                }
            };
            go(tools.sockets.route()?, &link)
        }
        NetnsTarget::Path { path, inode } => {
            let open = OpenNetns::open_same(tools.root, path, *inode)?;
            open.run(|| {
                let mut socket = Socket::open(Protocol::Route)?;
                let link = among_all(&mut socket, function)?.ok_or_else(|| missing(from))?;
                go(&mut socket, &link.into())
            })?
        }
    }
}

pub(super) fn own_netns() -> Result<File, Fault> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map_err(|source| {
        NetnsError::Open {
            path: path.to_owned(),
            source,
        }
        .into()
    })
}
