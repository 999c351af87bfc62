//! A real SR-IOV NIC: Intel 82576 (`igb`), as the lab emulates it.
//!
//! ```text
//! virtfn-lab run --nic igb -- target/debug/deps/igb-… --ignored
//! ```
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{IfIndex, LinkPolicy, LinkType, PciAddress, Pcp, VfAttr, VfIndex, VlanId, VlanProto};
use model::{Mbps, RdmaNetnsMode, VlanTag};
use netlink::{
    Event, Events, Link, LinkChange, NetnsRef, Protocol, Socket, UeventAction, VfList, change_link,
    devlink, ethtool, link_by_index, links, links_with_vfs, rdma, set_vf, vdpa,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The tests share one NIC.
static NIC: Mutex<()> = Mutex::new(());

const PATIENCE: Duration = Duration::from_secs(30);

/// The PF, as long as one test has it.
struct Pf {
    index: IfIndex,
    address: PciAddress,
    device: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Pf {
    /// Takes the first PF of the machine, without VFs, and sets it up.
    fn take() -> Self {
        let alone = NIC.lock().unwrap_or_else(PoisonError::into_inner);
        let mut socket = route();
        let pf = links(&mut socket)
            .unwrap()
            .into_iter()
            .filter_map(|link| Some((link.index, link.parent_pci()?)))
            .find(|(_, address)| device(*address).join("sriov_totalvfs").exists());
        let (index, address) = pf.expect("this test needs an SR-IOV NIC: run it in the lab");
        let pf = Self {
            index,
            address,
            device: device(address),
            _alone: alone,
        };
        pf.set_num_vfs(0);
        change_link(&mut socket, index, &up()).unwrap();
        pf
    }

    fn set_num_vfs(&self, count: u16) {
        fs::write(self.device.join("sriov_numvfs"), count.to_string()).unwrap();
    }

    fn link(&self) -> Link {
        link_by_index(&mut route(), self.index, VfList::Include)
            .unwrap()
            .unwrap()
    }

    fn state(&self, vf: VfIndex) -> model::VfState {
        let vfs = self.link().vfs.unwrap();
        vfs.into_iter()
            .find(|found| found.index == vf)
            .unwrap()
            .state
    }

    fn set(&self, vf: VfIndex, attributes: &[VfAttr]) -> Result<(), netlink::RequestError> {
        set_vf(&mut route(), self.index, vf, attributes)
    }

    fn vf_address(&self, vf: VfIndex) -> PciAddress {
        let link = fs::read_link(self.device.join(format!("virtfn{}", vf.0))).unwrap();
        link.file_name().unwrap().to_str().unwrap().parse().unwrap()
    }
}

impl Drop for Pf {
    fn drop(&mut self) {
        let _the_test_has_failed_already = fs::write(self.device.join("sriov_numvfs"), "0");
    }
}

fn device(address: PciAddress) -> PathBuf {
    PathBuf::from(format!("/sys/bus/pci/devices/{address}"))
}

fn route() -> Socket {
    Socket::open(Protocol::Route).unwrap()
}

fn up() -> LinkChange<'static> {
    LinkChange {
        up: Some(true),
        ..LinkChange::default()
    }
}

/// Waits until the function at `address` has a netdev in the socket's namespace.
fn await_netdev(events: &mut Events, socket: &mut Socket, address: PciAddress) -> Link {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = links(socket)
            .unwrap()
            .into_iter()
            .find(|link| link.parent_pci() == Some(address));
        if let Some(link) = found {
            return link;
        }
        assert!(
            events.wait(until).unwrap().is_some(),
            "no netdev of {address}"
        );
    }
}

/// Runs `body` here with a namespace that is new and empty; it ends with the last use.
fn in_new_netns<T>(body: impl FnOnce(fs::File) -> T) -> T {
    let namespace = std::thread::spawn(|| {
        #[expect(
            unsafe_code,
            reason = "rustix marks unshare unsafe for another flag's sake"
        )]
        // SAFETY: only the flag FILES can leave descriptors dangling, and it is not used.
        let entered = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        entered.unwrap();
        fs::File::open("/proc/thread-self/ns/net").unwrap()
    });
    body(namespace.join().unwrap())
}

/// Runs `body` on a thread in `namespace`.
fn within<T: Send>(namespace: &fs::File, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            body()
        });
        inside.join().unwrap()
    })
}

fn vlan(id: u16, proto: VlanProto) -> VlanTag {
    VlanTag {
        id: VlanId::new(id).unwrap(),
        pcp: Pcp::new(3).unwrap(),
        proto,
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_pf_reports_all_its_vfs_in_one_list() {
    let pf = Pf::take();
    assert_eq!(
        (pf.link().num_vf, pf.link().vfs.map(|vfs| vfs.len())),
        (Some(0), Some(0))
    );
    pf.set_num_vfs(7);
    let all = links_with_vfs(&mut route()).unwrap();
    let link = all.iter().find(|link| link.index == pf.index).unwrap();
    assert_eq!(link.link_type(), LinkType::Ethernet);
    assert_eq!(link.parent_pci(), Some(pf.address));
    assert_eq!(link.permanent_address, link.address);
    assert!(link.address.is_some() && link.max_mtu.is_some());
    assert_eq!((link.num_vf, link.vfs_truncated), (Some(7), false));
    let vfs = link.vfs.as_ref().unwrap();
    let indices: Vec<u16> = vfs.iter().map(|vf| vf.index.0).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5, 6]);
    for vf in vfs {
        assert_eq!(vf.state.spoof_check, Some(true));
        assert_eq!(vf.state.trust, Some(false));
        assert_eq!(vf.state.vlan, Some(None));
        assert_eq!(
            (vf.state.min_rate_mbps, vf.state.max_rate_mbps),
            (Some(0), Some(0))
        );
        // igb has no such operation, and the kernel does not tell that from "auto".
        assert_eq!(vf.state.link, Some(LinkPolicy::Auto));
        assert_eq!(vf.state.rss_query, None, "igb does not report it");
        assert_eq!((vf.state.node_guid, vf.state.port_guid), (None, None));
    }
    let without = links(&mut route()).unwrap();
    let link = without.iter().find(|link| link.index == pf.index).unwrap();
    assert_eq!((link.num_vf, &link.vfs), (None, &None));
}

#[test]
#[ignore = "needs the lab's igb"]
fn attributes_set_in_one_message_are_read_back() {
    let pf = Pf::take();
    pf.set_num_vfs(4);
    let vf = VfIndex(3);
    let tag = vlan(100, VlanProto::Dot1q);
    let mac = "02:00:5e:10:00:03".parse().unwrap();
    let before = pf.state(VfIndex(2));
    pf.set(
        vf,
        &[
            VfAttr::Vlan(Some(tag)),
            VfAttr::Mac(mac),
            VfAttr::SpoofCheck(false),
            VfAttr::Trust(true),
        ],
    )
    .unwrap();
    let state = pf.state(vf);
    assert_eq!((state.mac, state.vlan), (Some(mac), Some(Some(tag))));
    assert_eq!((state.spoof_check, state.trust), (Some(false), Some(true)));
    pf.set(vf, &[VfAttr::Vlan(None)]).unwrap();
    pf.set(vf, &[VfAttr::Trust(false)]).unwrap();
    pf.set(vf, &[VfAttr::SpoofCheck(true)]).unwrap();
    let state = pf.state(vf);
    assert_eq!((state.spoof_check, state.trust), (Some(true), Some(false)));
    assert_eq!((state.mac, state.vlan), (Some(mac), Some(None)));
    assert_eq!(pf.state(VfIndex(2)), before, "another VF changed");
}

#[test]
#[ignore = "needs the lab's igb"]
fn what_igb_cannot_do_is_refused_by_name() {
    let pf = Pf::take();
    pf.set_num_vfs(1);
    let vf = VfIndex(0);
    let refusal = |attribute| pf.set(vf, &[attribute]).unwrap_err();
    let link_state = refusal(VfAttr::Link(LinkPolicy::Enable));
    assert!(link_state.is_not_supported());
    assert_eq!(
        link_state.to_string(),
        format!("set link-state enable of vf 0 on interface {}", pf.index)
    );
    let service_tag = vlan(100, VlanProto::Dot1ad);
    assert!(refusal(VfAttr::Vlan(Some(service_tag))).is_not_supported());
    assert!(refusal(VfAttr::RssQuery(true)).is_not_supported());
    let rate = VfAttr::Rate {
        min: Mbps::new(100),
        max: Mbps::new(200),
    };
    assert!(refusal(rate).is_invalid(), "igb takes no lower bound");
    let error = pf.set(VfIndex(9), &[VfAttr::Trust(true)]).unwrap_err();
    assert!(error.is_invalid(), "{error:?}");
    let jumbo = LinkChange {
        mtu: model::Mtu::new(60_000),
        ..LinkChange::default()
    };
    let error = change_link(&mut route(), pf.index, &jumbo).unwrap_err();
    assert_eq!(
        error.kernel_message(),
        Some("mtu greater than device maximum")
    );
}

#[test]
#[ignore = "needs the lab's igb"]
fn the_creation_of_vfs_is_heard() {
    let pf = Pf::take();
    let mut events = Events::open().unwrap();
    pf.set_num_vfs(2);
    let first = await_netdev(&mut events, &mut route(), pf.vf_address(VfIndex(0)));
    let second = await_netdev(&mut events, &mut route(), pf.vf_address(VfIndex(1)));
    // Everything that led here was announced by now, or is about to be.
    let until = Instant::now() + PATIENCE;
    let mut heard = Vec::new();
    let wanted = [
        format!("/{}", pf.vf_address(VfIndex(0))),
        format!("/net/{}", first.name),
        format!("/net/{}", second.name),
    ];
    while !wanted
        .iter()
        .all(|end| heard.iter().any(|path: &String| path.ends_with(end)))
    {
        let event = events.wait(until).unwrap().expect("events for all of it");
        if let Event::Device(event) = event
            && event.action == UeventAction::Add
        {
            assert!(event.subsystem.is_some());
            heard.push(event.devpath);
        }
    }
}

#[test]
#[ignore = "needs the lab's igb"]
fn one_message_moves_a_vf_names_it_and_sets_it_up() {
    let pf = Pf::take();
    let mut events = Events::open().unwrap();
    pf.set_num_vfs(1);
    let address = pf.vf_address(VfIndex(0));
    let vf = await_netdev(&mut events, &mut route(), address);
    let home = fs::File::open("/proc/thread-self/ns/net").unwrap();
    let namespace = in_new_netns({
        let index = vf.index;
        move |namespace| {
            let change = LinkChange {
                netns: Some(NetnsRef::Fd(namespace.as_fd())),
                name: Some("net1".parse().unwrap()),
                ..up()
            };
            change_link(&mut route(), index, &change).unwrap();
            namespace
        }
    });
    let there = within(&namespace, || links(&mut route()).unwrap());
    let of_vf = |link: &&Link| link.parent_pci() == Some(address);
    assert_eq!(links(&mut route()).unwrap().iter().find(of_vf), None);
    let moved = there.iter().find(of_vf).unwrap();
    assert_eq!((moved.name.as_str(), moved.up), ("net1", true));
    assert_eq!(moved.index, vf.index, "an index that is free is kept");

    let back = LinkChange {
        netns: Some(NetnsRef::Fd(home.as_fd())),
        name: Some(vf.name.clone()),
        ..LinkChange::default()
    };
    within(&namespace, || {
        change_link(&mut route(), vf.index, &back).unwrap();
    });
    let home_again = await_netdev(&mut events, &mut route(), address);
    assert_eq!((home_again.name, home_again.up), (vf.name, false));
}

#[test]
#[ignore = "needs the lab's igb"]
fn driver_and_firmware_are_told() {
    let pf = Pf::take();
    let link = pf.link();
    let driver = ethtool::driver(&mut route(), &link.name).unwrap().unwrap();
    assert_eq!(driver.name, "igb");
    assert_eq!(driver.bus_info, Some(pf.address.to_string()));
    assert!(driver.firmware.is_some());
    let nobody = "nobody0".parse().unwrap();
    assert_eq!(ethtool::driver(&mut route(), &nobody).unwrap(), None);
}

#[test]
#[ignore = "needs the lab's igb"]
fn families_that_know_nothing_of_igb_say_so() {
    let pf = Pf::take();
    let mut generic = Socket::open(Protocol::Generic).unwrap();
    let handle = devlink::Handle::pci(pf.address);
    assert_eq!(devlink::devices(&mut generic).unwrap(), Some(vec![]));
    assert_eq!(devlink::ports(&mut generic).unwrap(), Some(vec![]));
    assert_eq!(devlink::eswitch(&mut generic, &handle).unwrap(), None);
    assert_eq!(devlink::info(&mut generic, &handle).unwrap(), None);
    assert_eq!(
        devlink::switch_parameter(&mut generic, &handle, "enable_rdma").unwrap(),
        None
    );
    let error =
        devlink::set_eswitch(&mut generic, &handle, model::EswitchMode::Switchdev).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    let vdpa = vdpa::devices(&mut generic).unwrap();
    assert!(vdpa.is_none_or(|devices| devices.is_empty()));
}

#[test]
#[ignore = "needs the lab's igb"]
fn an_rdma_device_is_seen_and_moved() {
    let pf = Pf::take();
    // RDMA in software (RoCE) on the Ethernet port; the tools are those of the lab's host.
    let run = |line: &str| {
        let mut words = line.split(' ');
        let status = Command::new(words.next().unwrap()).args(words).status();
        assert!(status.unwrap().success(), "{line}");
    };
    run("modprobe rdma_rxe");
    let mut rdma = Socket::open_if_supported(Protocol::Rdma).unwrap().unwrap();
    assert_eq!(
        rdma::netns_mode(&mut rdma).unwrap(),
        Some(RdmaNetnsMode::Shared)
    );
    // A namespace of another test may still be on its way out, and is then one too many.
    let until = Instant::now() + PATIENCE;
    while let Err(error) = rdma::set_netns_mode(&mut rdma, RdmaNetnsMode::Exclusive) {
        assert!(error.is_busy() && Instant::now() < until, "{error:?}");
        std::thread::yield_now();
    }
    assert_eq!(
        rdma::netns_mode(&mut rdma).unwrap(),
        Some(RdmaNetnsMode::Exclusive)
    );
    let name = pf.link().name;
    run(&format!("rdma link add rxe0 type rxe netdev {name}"));
    let devices = rdma::devices(&mut rdma).unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].name, "rxe0");
    assert!(devices[0].node_guid.is_some());
    let ports = rdma::ports(&mut rdma, devices[0].index).unwrap();
    assert_eq!((ports.len(), ports[0].netdev), (1, Some(pf.index)));

    in_new_netns(|namespace| {
        // rxe is one of the drivers that cannot leave their namespace, and the kernel says so.
        let error = rdma::move_device(&mut rdma, devices[0].index, namespace.as_fd()).unwrap_err();
        assert!(error.is_not_supported(), "{error:?}");
    });
    let error = rdma::ports(&mut rdma, 4711).unwrap_err();
    assert!(error.is_invalid() || error.is_not_found(), "{error:?}");
    run("rdma link delete rxe0");
    assert_eq!(rdma::devices(&mut rdma).unwrap(), []);
    rdma::set_netns_mode(&mut rdma, RdmaNetnsMode::Shared).unwrap();
}
