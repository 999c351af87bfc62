//! Discovery against the bare reads that it cannot avoid, on 16 PFs with 64 VFs each.
//!
//! The tree is generated and unpacked; what the kernel would answer over netlink is recorded in it.
//! The *floor* opens each function's directory and reads, with as few system calls as there can be,
//! each attribute that an inventory holds, and decodes the recorded netlink answers, which stand for
//! the one link dump: it keeps and understands nothing. A second floor does not even decode. All run in turn in one process, so that
//! their ratio means something on a busy machine. The budget is 1.5, and 10 MB at the peak.

#![expect(clippy::print_stdout, reason = "the ratio is what it is for")]
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot read its tree has no result"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use host::{Linux, Tree};
use model::{Host, Scope};
use rustix::fs::{Mode, OFlags, ResolveFlags};

const PFS: usize = 16;
const VFS: usize = 64;
/// Bridges, disks and so on, which must be looked at to see that they are of no interest.
const BYSTANDERS: usize = 100;

fn generated_tree() -> String {
    let mut text = String::new();
    let mut index = 1;
    let mut group = 0;
    let mut function = |text: &mut String, path: &str, address: &str, uevent: &str| {
        group += 1;
        let climb = "../".repeat(path.matches('/').count() - 1);
        let _ = write!(
            text,
            "/sys/bus/pci/devices/{address} -> ../../..{}\n\
             /sys/kernel/iommu_groups/{group}/devices/{address} -> ../../../..{}\n\
             [{path}]\n\
             {uevent}\n\
             uevent = PCI_SLOT_NAME={address}\n\
             iommu_group -> {climb}kernel/iommu_groups/{group}\n\
             numa_node = 0\n\
             driver_override = (null)\n",
            &path[4..],
            &path[4..],
        );
    };
    for bystander in 0..BYSTANDERS {
        let address = format!("0000:{:02x}:{:02x}.0", bystander / 32, bystander % 32);
        let uevent =
            "uevent = DRIVER=pcieport\nuevent = PCI_CLASS=60400\nuevent = PCI_ID=8086:2030";
        function(
            &mut text,
            &format!("/sys/devices/pci0000:00/{address}"),
            &address,
            uevent,
        );
    }
    for pf in 0..PFS {
        let bus = 0x10 + pf;
        let port = format!("/sys/devices/pci0000:00/0000:00:{pf:02x}.1");
        let pf_address = format!("0000:{bus:02x}:00.0");
        let path = format!("{port}/{pf_address}");
        let uevent = "uevent = DRIVER=mlx5_core\nuevent = PCI_CLASS=20000\n\
                      uevent = PCI_ID=15B3:101D\nuevent = PCI_SUBSYS_ID=15B3:0016";
        function(&mut text, &path, &pf_address, uevent);
        let _ = write!(
            text,
            "sriov_totalvfs = 64\nsriov_numvfs = {VFS}\nsriov_drivers_autoprobe = 1\n\
             sriov_vf_device = 101e\nsriov_offset = 8\nsriov_stride = 1\n\
             net/ens{pf}/speed = 100000\nnet/ens{pf}/dev_port = 0\n\
             /sys/class/net/ens{pf} -> ../..{}/net/ens{pf}\n\
             /netlink/pfs = {{\"pf\":\"{pf_address}\",\"eswitch\":\"legacy\",\"firmware\":\"22.41\"}}\n",
            &path[4..],
        );
        let mut reports = Vec::new();
        let mut vfs = String::new();
        let mut links = String::new();
        index += 1;
        let pf_index = index;
        for vf in 0..VFS {
            let devfn = vf + 8;
            let address = format!("0000:{bus:02x}:{:02x}.{}", devfn / 8, devfn % 8);
            let _ = writeln!(text, "virtfn{vf} -> ../{address}");
            let uevent = "uevent = DRIVER=mlx5_core\nuevent = PCI_CLASS=20000\n\
                          uevent = PCI_ID=15B3:101E\nuevent = PCI_SUBSYS_ID=15B3:0016";
            function(&mut vfs, &format!("{port}/{address}"), &address, uevent);
            let _ = writeln!(vfs, "physfn -> ../{pf_address}");
            let mac = format!("02:00:00:00:{pf:02x}:{vf:02x}");
            reports.push(format!(
                "{{\"index\":{vf},\"state\":{{\"mac\":\"{mac}\",\"vlan\":\"none\",\
                 \"min_rate_mbps\":0,\"max_rate_mbps\":0,\"spoof_check\":false,\
                 \"link\":\"auto\",\"trust\":false}}}}"
            ));
            index += 1;
            links += &link(index, &format!("ens{pf}v{vf}"), &mac, &address, "");
        }
        let reports = format!(",\"num_vf\":{VFS},\"vfs\":[{}]", reports.join(","));
        let mac = format!("02:00:00:00:{pf:02x}:ff");
        text += &vfs;
        text += &link(pf_index, &format!("ens{pf}"), &mac, &pf_address, &reports);
        text += &links;
    }
    text
}

fn link(index: u32, name: &str, mac: &str, parent: &str, more: &str) -> String {
    format!(
        "/netlink/links = {{\"index\":{index},\"name\":\"{name}\",\"arphrd\":1,\"up\":true,\
         \"running\":true,\"oper\":\"up\",\"mtu\":1500,\"min_mtu\":68,\"max_mtu\":9978,\
         \"address\":\"{mac}\",\"permanent_address\":\"{mac}\",\"parent_bus\":\"pci\",\
         \"parent_dev\":\"{parent}\"{more}}}\n"
    )
}

/// The bare reads.
struct Floor {
    root: OwnedFd,
    buffer: Vec<u8>,
    /// Are netlink answers decoded, or only read?
    decodes: bool,
}

impl Floor {
    fn new(root: &Path, decodes: bool) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rustix::fs::open(root, flags, Mode::empty()).unwrap();
        Self {
            root,
            buffer: vec![0; 4096],
            decodes,
        }
    }

    fn open(&self, path: &str, flags: OFlags) -> OwnedFd {
        let resolve = ResolveFlags::IN_ROOT;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).unwrap()
    }

    fn read(&mut self, dir: &OwnedFd, name: &str) {
        let file = rustix::fs::openat(dir, name, OFlags::RDONLY, Mode::empty());
        if let Ok(file) = file {
            black_box(rustix::io::read(&file, &mut self.buffer).unwrap());
        }
    }

    fn read_link(&mut self, dir: &OwnedFd, name: &str) {
        let target = rustix::fs::readlinkat_raw(dir, name, self.buffer.as_mut_slice());
        black_box(target.is_ok());
    }

    fn run(&mut self) {
        let list = self.open("sys/bus/pci/devices", OFlags::RDONLY | OFlags::DIRECTORY);
        let mut names = Vec::with_capacity(2048);
        let mut space = Vec::with_capacity(32 * 1024);
        let mut entries = rustix::fs::RawDir::new(list.as_fd(), space.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        }
        for name in names.iter().filter(|name| !name.starts_with('.')) {
            let path = format!("sys/bus/pci/devices/{name}");
            let dir = self.open(&path, OFlags::PATH | OFlags::DIRECTORY);
            self.read(&dir, "uevent");
            self.read_link(&dir, "iommu_group");
            if name.starts_with("0000:0") {
                self.read_link(&dir, "physfn");
                self.read(&dir, "sriov_totalvfs");
                continue;
            }
            self.read(&dir, "numa_node");
            self.read(&dir, "driver_override");
            if name.ends_with(":00.0") {
                self.read_pf(&dir);
            }
        }
        for file in ["netlink/links", "netlink/pfs"] {
            let file = std::fs::File::from(self.open(file, OFlags::RDONLY));
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut &file, &mut text).unwrap();
            for line in text
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                if self.decodes {
                    black_box(serde_json::from_slice::<netlink::Link>(line).is_ok());
                }
            }
        }
        for pf in 0..PFS {
            let path = format!("sys/class/net/ens{pf}");
            let dir = self.open(&path, OFlags::PATH | OFlags::DIRECTORY);
            self.read(&dir, "speed");
            self.read(&dir, "dev_port");
        }
    }

    fn read_pf(&mut self, dir: &OwnedFd) {
        for name in [
            "sriov_totalvfs",
            "sriov_numvfs",
            "sriov_drivers_autoprobe",
            "sriov_vf_device",
            "sriov_offset",
            "sriov_stride",
            "acpi_index",
        ] {
            self.read(dir, name);
        }
        for vf in 0..VFS {
            self.read_link(dir, &format!("virtfn{vf}"));
        }
    }
}

/// Runs both in turn and returns their medians.
fn in_turn(mut one: impl FnMut(), mut other: impl FnMut()) -> (Duration, Duration) {
    let timed = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    let mut times: (Vec<_>, Vec<_>) = (0..101)
        .map(|_| (timed(&mut one), timed(&mut other)))
        .unzip();
    times.0.sort_unstable();
    times.1.sort_unstable();
    (times.0[50], times.1[50])
}

/// Returns a field of `/proc/self/status` in kB.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    Tree::parse(&generated_tree())
        .unwrap()
        .unpack(dir.path())
        .unwrap();
    let mut linux = Linux::recorded(dir.path()).unwrap();
    let mut floor = Floor::new(dir.path(), true);

    // Writing 5 sets the peak back to what is resident now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let inventory = linux.observe(Scope::All).unwrap();
    let peak = status("VmHWM");
    assert_eq!(inventory.vfs().count(), PFS * VFS);
    assert!(
        inventory
            .vfs()
            .all(|(f, vf)| vf.state.is_some() && f.netdev().is_some())
    );
    assert!(inventory.gaps.is_empty(), "{:?}", inventory.gaps);
    drop(inventory);

    println!(
        "peak memory of the process: {peak} kB, {} kB more than before (budget 10240 kB)",
        peak - before
    );
    for (decodes, what) in [(true, "reads and decoding"), (false, "reads alone")] {
        let mut floor = Floor::new(dir.path(), decodes);
        let (bare, ours) = in_turn(
            || floor.run(),
            || drop(black_box(linux.observe(Scope::All).unwrap())),
        );
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        println!("16 PFs x 64 VFs: {ours:?}, {what}: {bare:?}, ratio {ratio:.2} (budget 1.50)");
    }

    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("discover/floor", |b| b.iter(|| floor.run()));
    criterion.bench_function("discover/all", |b| {
        b.iter(|| linux.observe(Scope::All).unwrap());
    });
    let one = "0000:10:01.0".parse().unwrap();
    criterion.bench_function("discover/one function", |b| {
        b.iter(|| linux.observe(Scope::Function(one)).unwrap());
    });
    criterion.final_summary();
}
