//! What Linux says and takes over netlink, as far as SR-IOV goes: interfaces and the VFs of PFs,
//! addresses, devlink, vDPA, RDMA devices, and events.
//!
//! Codecs are pure functions between bytes and plain values; one blocking [`Socket`] carries them.
//! Every function is one request, unless it says otherwise, and keeps nothing between calls. This
//! crate knows Linux and not virtfn: it decides nothing.
//!
//! What it does not report is `None`, never "off" or zero. Values that are read can be written as
//! JSON and read again, so that a recorded host can be replayed.
//!
//! Where to look:
//!
//! | To | See |
//! |---|---|
//! | list interfaces, and the VFs that PFs report | [`links_with_vfs`], [`Link`], [`VfReport`] |
//! | set VLAN, MAC, trust … of a VF | [`set_vf`] |
//! | move, rename, set up an interface | [`change_link`] |
//! | know on what an interface in a container is | [`FarLower`], [`netns_id`] |
//! | give it addresses and routes, and tell the neighbours | [`add_address`], [`add_route`], [`announce`] |
//! | know by which interfaces the host reaches others | [`default_routes`], [`interface_towards`] |
//! | wait for something | [`Events`] |
//! | eswitch and firmware | [`devlink`], [`ethtool`] |

mod address;
mod announce;
mod error;
mod events;
mod generic;
mod link;
mod netns_id;
mod new_route;
mod route;
mod socket;
mod vf;
mod wire;

#[cfg(test)]
mod testing;

pub mod devlink;
pub mod ethtool;
pub mod rdma;
pub mod vdpa;

#[doc(hidden)]
pub mod fuzz;

pub use address::{
    DuplicateCheck, LinkAddress, add_address, addresses, all_addresses, remove_address,
};
pub use announce::announce;
pub use error::{Fault, Refusal, RequestError};
pub use events::{Event, Events, Uevent, UeventAction};
pub use link::{
    FarLower, Link, LinkChange, NetnsRef, VfList, add_alt_name, change_link, link_by_index,
    link_by_name, links, links_with_vfs, remove_alt_name,
};
pub use netns_id::netns_id;
pub use new_route::{NewRoute, add_route};
pub use route::{DefaultRoute, IpVersion, default_routes, interface_towards};
pub use socket::{Protocol, Socket};
pub use vf::{VfReport, set_vf};
