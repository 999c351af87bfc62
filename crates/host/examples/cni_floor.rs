//! The netlink messages that a CNI ADD or DEL of one VF cannot avoid, as a whole process.
//!
//! ADD sets the VLAN through the PF, then moves, names and sets up the interface in one message; DEL
//! does the same backwards. It records nothing, checks nothing and can undo nothing, so it is no
//! plugin, only what one is measured against: `cargo xtask bench cni`. It is told by the environment
//! what a plugin has to find out.
//!
//! With `BENCH_KEEPS` it also does what no plugin that loses nothing can do without, all of it decided
//! beforehand: a lock, one look at what the VF is and at its PF, a record on the disk before the first
//! change, a mark behind it afterwards, and the two files that upstream's plugin would read.

#![expect(
    clippy::unwrap_used,
    reason = "a floor that cannot do its work has no result"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `RTM_GETLINK`, `RTM_SETLINK`, `NLM_F_REQUEST`, `NLM_F_ACK`, `NLMSG_ERROR` (linux/netlink.h,
/// linux/rtnetlink.h).
const GET: u16 = 18;
const SET: u16 = 19;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
/// `IFF_UP`.
const UP: u32 = 1;

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 4).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends one request about a link and returns the answer.
fn ask(kind: u16, index: u32, flags: u32, change: u32, attributes: &[u8]) -> Vec<u8> {
    let route = socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
    let length = u32::try_from(32 + attributes.len()).unwrap();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | if kind == SET { ACK } else { 0 }).to_ne_bytes());
    for word in [1, 0, 0, index, flags, change] {
        message.extend(u32::to_ne_bytes(word));
    }
    message.extend(attributes);
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&route, &message, SendFlags::empty(), &kernel).unwrap();
    let mut answer = vec![0; 64 * 1024];
    let (length, _) = recv(&route, &mut *answer, RecvFlags::empty()).unwrap();
    answer.truncate(length);
    if u16::from_ne_bytes([answer[4], answer[5]]) == ERROR {
        let errno = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        assert_eq!(errno, 0, "the kernel refused the request");
    }
    answer
}

fn name(name: &str) -> Vec<u8> {
    attribute(3, format!("{name}\0").as_bytes())
}

/// `IFLA_VFINFO_LIST` with one `IFLA_VF_INFO` with one `IFLA_VF_VLAN`.
fn vlan(pf: u32, vf: u32, id: u32) {
    let words: Vec<u8> = [vf, id, 0]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let list = attribute(22 | 0x8000, &attribute(1 | 0x8000, &attribute(2, &words)));
    ask(SET, pf, 0, 0, &list);
}

/// Where what is kept goes; it is there.
const KEPT: &str = "/var/lib/virtfn-bench";
/// About as long as a record, and as upstream's file of a configuration.
const RECORD: [u8; 660] = [b'x'; 660];
const CACHE: [u8; 480] = [b'x'; 480];
/// `IFLA_EXT_MASK` with `RTEXT_FILTER_VF` and `RTEXT_FILTER_SKIP_STATS`.
const VFS_ONLY: (u16, u32) = (29, 1 | 8);

/// The files of one VF.
struct Files {
    vf: String,
    _lock: File,
}

impl Files {
    fn lock(vf: String) -> Self {
        let lock = File::create(format!("{KEPT}/{vf}.lock")).unwrap();
        lock.lock().unwrap();
        Self { vf, _lock: lock }
    }

    fn path(&self, ending: &str) -> PathBuf {
        PathBuf::from(format!("{KEPT}/{}.{ending}", self.vf))
    }

    /// Looks, and records; the caller changes something afterwards.
    fn record(&self, pf: u32, netns: &str) {
        let device = format!("/sys/bus/pci/devices/{}", self.vf);
        let record = self.path("json");
        assert!(File::open(&record).is_err(), "somebody has the VF");
        fs::read_link(format!("{device}/driver")).unwrap();
        fs::read_link(format!("{device}/physfn")).unwrap();
        fs::read("/proc/sys/kernel/random/boot_id").unwrap();
        fs::metadata(netns).unwrap();
        let (kind, mask) = VFS_ONLY;
        ask(GET, pf, 0, 0, &attribute(kind, &mask.to_ne_bytes()));
        let new = self.path("json.new");
        let mut file = File::create(&new).unwrap();
        file.write_all(&RECORD).unwrap();
        file.sync_all().unwrap();
        fs::rename(new, record).unwrap();
        File::open(KEPT).unwrap().sync_all().unwrap();
    }

    fn confirm(&self, netns: &str) {
        let mut options = OpenOptions::new();
        let mut record = options.append(true).open(self.path("json")).unwrap();
        record.write_all(b"\n{\"stage\":\"attached\"}").unwrap();
        fs::write(self.path("owner"), netns).unwrap();
        fs::write(self.path("cache"), CACHE).unwrap();
    }

    fn remove(&self) {
        for ending in ["cache", "owner", "json"] {
            fs::remove_file(self.path(ending)).unwrap();
        }
    }
}

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let index_of = |name: &str| -> u32 {
        let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).unwrap();
        text.trim().parse().unwrap()
    };
    let mut stdin = Vec::new();
    std::io::stdin().read_to_end(&mut stdin).unwrap();
    let is_add = variable("CNI_COMMAND") == "ADD";
    let is_device = variable("BENCH_MODE") == "vfio";
    let pf = index_of(&variable("BENCH_PF"));
    let vf: u32 = variable("BENCH_INDEX").parse().unwrap();
    let home = variable("BENCH_NAME");
    let interface = variable("CNI_IFNAME");
    let netns = variable("CNI_NETNS");
    let files = std::env::var_os("BENCH_KEEPS").map(|_| Files::lock(variable("BENCH_VF")));
    let fd = |file: &File| attribute(28, &file.as_raw_fd().to_ne_bytes());
    if is_add {
        files.iter().for_each(|files| files.record(pf, &netns));
        vlan(pf, vf, 100);
        if !is_device {
            let there = File::open(&netns).unwrap();
            let attributes = [fd(&there), name(&interface)].concat();
            ask(SET, index_of(&home), UP, UP, &attributes);
        }
        files.iter().for_each(|files| files.confirm(&netns));
        let answer = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"net1"}]}"#;
        std::io::stdout().write_all(answer.as_bytes()).unwrap();
    } else {
        if !is_device {
            let host = File::open("/proc/self/ns/net").unwrap();
            let there = File::open(&netns).unwrap();
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&there),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
            let link = ask(GET, 0, 0, 0, &name(&interface));
            let index = u32::from_ne_bytes(link[20..24].try_into().unwrap());
            let attributes = [fd(&host), name(&home)].concat();
            ask(SET, index, 0, UP, &attributes);
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&host),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
        }
        vlan(pf, vf, 0);
        files.iter().for_each(Files::remove);
    }
}
