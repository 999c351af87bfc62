//! The bare reads that a list of SR-IOV devices cannot avoid, as a whole process.
//!
//! It reads the attributes of each PCI function that `virtfn list` shows, dumps the links with
//! their VFs once, and reads the names of vendors and devices. It keeps, understands and prints
//! nothing, so it is no listing, only what one is measured against: `cargo xtask bench list`.

#![expect(clippy::unwrap_used, reason = "a floor that cannot read has no result")]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read as _;
use std::path::Path;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

/// `struct nlmsghdr`, `struct ifinfomsg` and `IFLA_EXT_MASK` with `RTEXT_FILTER_VF` and
/// `RTEXT_FILTER_SKIP_STATS` (linux/rtnetlink.h): a dump of all links with their VFs.
const DUMP_LINKS: [u32; 10] = [
    40,                  // nlmsg_len
    18 | (0x0301 << 16), // RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP
    1,                   // sequence number
    0,                   // port, set by the kernel
    0,
    0,
    0,
    0,              // ifinfomsg: any family, any link
    8 | (29 << 16), // attribute of 8 bytes, IFLA_EXT_MASK
    1 | 8,
];

/// `NLMSG_DONE`.
const DONE: u16 = 3;

fn read(buffer: &mut [u8], path: &Path) {
    if let Ok(mut file) = File::open(path) {
        black_box(file.read(buffer).is_ok());
    }
}

fn functions(buffer: &mut [u8]) {
    for entry in fs::read_dir("/sys/bus/pci/devices").unwrap() {
        let dir = entry.unwrap().path();
        read(buffer, &dir.join("uevent"));
        black_box(fs::read_link(dir.join("iommu_group")).is_ok());
        let is_vf = fs::read_link(dir.join("physfn")).is_ok();
        let is_pf = fs::exists(dir.join("sriov_totalvfs")).unwrap();
        if !is_vf && !is_pf {
            continue;
        }
        let ours: &[&str] = if is_pf {
            &[
                "sriov_totalvfs",
                "sriov_numvfs",
                "sriov_drivers_autoprobe",
                "sriov_offset",
            ]
        } else {
            &[]
        };
        for name in ["numa_node", "driver_override"].iter().chain(ours) {
            read(buffer, &dir.join(name));
        }
        for netdev in fs::read_dir(dir.join("net")).into_iter().flatten() {
            let netdev = netdev.unwrap().path();
            read(buffer, &netdev.join("speed"));
            read(buffer, &netdev.join("dev_port"));
        }
        for index in 0..64 {
            if !is_pf || fs::read_link(dir.join(format!("virtfn{index}"))).is_err() {
                break;
            }
        }
    }
}

fn links(buffer: &mut [u8]) {
    let route = socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
    let request: Vec<u8> = DUMP_LINKS
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    sendto(
        &route,
        &request,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )
    .unwrap();
    loop {
        let (length, _) = recv(&route, &mut *buffer, RecvFlags::empty()).unwrap();
        let kind = u16::from_ne_bytes([buffer[4], buffer[5]]);
        assert_ne!(kind, 2, "the kernel refused the dump");
        if length == 0 || kind == DONE {
            break;
        }
    }
}

fn main() {
    let mut buffer = vec![0; 256 * 1024];
    functions(&mut buffer);
    links(&mut buffer);
    black_box(fs::read("/usr/share/misc/pci.ids").is_ok());
}
