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

use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use host::{Linux, Tree};
use model::{Host, Scope};
use rustix::fs::{Mode, OFlags, ResolveFlags};

#[path = "discover/many_vfs.rs"]
mod many_vfs;

use many_vfs::{PFS, VFS, generated_tree};

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
