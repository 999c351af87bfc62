//! A small host for tests of views and drawings: two Ethernet ports, one with VFs in every state
//! that a column or a line can show, and an NVMe device.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;

use host::PciNames;
use model::{
    Function, Gap, Holder, HolderKind, IfIndex, Inventory, IommuGroup, LinkPolicy, LinkType,
    Netdev, Netns, NumaNode, OperState, PciAddress, PciClass, Pcp, PfFacts, Role, VfFacts, VfIndex,
    VfState, VfioNode, VlanProto, VlanTag,
};

use crate::ui::Ui;
use crate::view::{HostView, Names, host_view};

/// Names that a `pci.ids` would give.
fn names() -> Names {
    let intel = |device: &str| PciNames {
        vendor: Some("Intel Corporation".to_owned()),
        device: Some(device.to_owned()),
    };
    Names::from([
        (
            "8086:10c9".parse().unwrap(),
            intel("82576 Gigabit Network Connection"),
        ),
        (
            "8086:10ca".parse().unwrap(),
            intel("82576 Virtual Function"),
        ),
    ])
}

/// Returns what is said on stdout and on stderr, as a pipe gets it: without colours.
pub(crate) fn spoken(say: impl FnOnce(&mut Ui)) -> (String, String) {
    let (out, err) = (Page::default(), Page::default());
    let mut ui = Ui::plain(Box::new(out.clone()), Box::new(err.clone()));
    say(&mut ui);
    ui.end().unwrap();
    drop(ui);
    (out.text(), err.text())
}

/// A stream that can be read afterwards.
#[derive(Clone, Default)]
struct Page(Rc<RefCell<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The view of [`inventory`] as the host `name`.
pub(crate) fn view(name: &str) -> HostView {
    host_view(&inventory(), Some(name.to_owned()), &names())
}

/// The host.
pub(crate) fn inventory() -> Inventory {
    let mut host = Inventory::default();
    let mut vfs = BTreeMap::new();
    for index in 0..5_u16 {
        let address = address(&format!("0000:3b:10.{index}"));
        vfs.insert(VfIndex(index), address);
        host.functions.insert(address, vf(address, index));
    }
    let mut pf = function("0000:3b:00.0", "8086:10c9", 0x02_0000, Some("igb"));
    pf.netdevs = vec![Netdev {
        alt_names: vec!["uplink-a".to_owned()],
        admin_up: true,
        oper: OperState::Up,
        speed_mbps: Some(10_000),
        mtu: 9000,
        ..netdev("ens1f0", 2, "02:00:00:00:3b:00")
    }];
    pf.numa = Some(NumaNode(1));
    pf.role = Role::Pf(PfFacts {
        total_vfs: 7,
        num_vfs: 5,
        firmware: Some("1.63, 0x800009fa".to_owned()),
        vfs,
        ..PfFacts::default()
    });
    host.functions.insert(pf.address, pf);

    let mut second = function("0000:3b:00.1", "8086:10c9", 0x02_0000, Some("igb"));
    second.netdevs = vec![netdev("ens1f1", 3, "02:00:00:00:3b:01")];
    second.role = Role::Pf(PfFacts {
        total_vfs: 7,
        ..PfFacts::default()
    });
    host.functions.insert(second.address, second);

    let mut nvme = function("0000:5e:00.0", "1b36:0010", 0x01_0802, Some("nvme"));
    nvme.role = Role::Pf(PfFacts {
        total_vfs: 4,
        ..PfFacts::default()
    });
    host.functions.insert(nvme.address, nvme);
    host.gaps.push(Gap {
        object: "devlink".to_owned(),
        reason: "the kernel has no such family".to_owned(),
    });
    host
}

fn vf(at: PciAddress, index: u16) -> Function {
    let mut vf = function(&at.to_string(), "8086:10ca", 0x02_0000, Some("igbvf"));
    vf.iommu_group = Some(IommuGroup(40 + u32::from(index)));
    vf.netdevs = vec![netdev(
        &format!("ens1f0v{index}"),
        10 + u32::from(index),
        &format!("02:00:00:00:10:0{index}"),
    )];
    let tag = |id: &str| VlanTag {
        id: id.parse().unwrap(),
        pcp: Pcp::default(),
        proto: VlanProto::Dot1q,
    };
    let mut state = VfState {
        mac: Some("00:00:00:00:00:00".parse().unwrap()),
        vlan: Some(None),
        min_rate_mbps: Some(0),
        max_rate_mbps: Some(0),
        spoof_check: Some(true),
        link: Some(LinkPolicy::Auto),
        ..VfState::default()
    };
    let mut holder = None;
    match index {
        0 => {
            state.mac = Some("02:00:5e:10:00:01".parse().unwrap());
            state.vlan = Some(Some(tag("100")));
            state.trust = Some(true);
            holder = Some(in_namespace(&mut vf, "blue", HolderKind::Attach));
        }
        1 => {
            state.vlan = Some(Some(VlanTag {
                pcp: Pcp::new(3).unwrap(),
                ..tag("200")
            }));
            state.max_rate_mbps = Some(500);
        }
        2 => {
            vf.driver = Some("vfio-pci".parse().unwrap());
            vf.netdevs.clear();
            vf.vfio = Some(VfioNode {
                group: Some("/dev/vfio/42".to_owned()),
                cdev: None,
            });
        }
        _ => {}
    }
    vf.role = Role::Vf(VfFacts {
        pf: address("0000:3b:00.0"),
        index: Some(VfIndex(index)),
        state: Some(state),
        representor: None,
        holder,
    });
    vf
}

fn in_namespace(vf: &mut Function, name: &str, kind: HolderKind) -> Holder {
    let path = format!("/run/netns/{name}");
    for netdev in &mut vf.netdevs {
        netdev.name = "net1".parse().unwrap();
        netdev.netns = Netns::Other {
            inode: 4_026_532_301,
            path: Some(path.clone()),
        };
    }
    Holder {
        kind,
        id: path,
        interface: Some("net1".parse().unwrap()),
    }
}

fn address(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn function(at: &str, id: &str, class: u32, driver: Option<&str>) -> Function {
    Function {
        address: address(at),
        id: id.parse().unwrap(),
        subsystem: None,
        class: PciClass::new(class),
        driver: driver.map(|name| name.parse().unwrap()),
        driver_override: None,
        iommu_group: None,
        numa: None,
        acpi_index: None,
        netdevs: Vec::new(),
        rdma: Vec::new(),
        vdpa: Vec::new(),
        vfio: None,
        uio: None,
        role: Role::Plain,
    }
}

fn netdev(name: &str, index: u32, mac: &str) -> Netdev {
    Netdev {
        name: name.parse().unwrap(),
        index: IfIndex::new(index).unwrap(),
        netns: Netns::Host,
        alt_names: Vec::new(),
        link_type: LinkType::Ethernet,
        address: Some(mac.to_owned()),
        permanent_address: None,
        mtu: 1500,
        max_mtu: None,
        admin_up: false,
        oper: OperState::Down,
        speed_mbps: None,
        dev_port: None,
        phys_port_name: None,
        phys_switch_id: None,
        master: None,
    }
}
