//! The recipe: a topology as QEMU arguments.
//!
//! Measured with QEMU 10.0 and Linux 6.12 under emulation. What would surprise you:
//! * the IOMMU must come before the devices behind it, and `kernel-irqchip=split` belongs to
//!   interrupt remapping (`on` is refused under KVM);
//! * a NIC on the root bus would get its VFs 16 slots away, so each has a root port; the first
//!   NIC is always 01:00.0;
//! * sockets are inherited descriptors, so that there is no path to clean up and no port to
//!   choose, and they close when either side dies.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::assets::Assets;
use crate::proto::PORT;
use crate::topology::{Nic, Topology};

/// What differs between the machines of a lab.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Its number.
    pub(crate) index: usize,
    /// One end of its command channel.
    pub(crate) channel: &'a OwnedFd,
    /// One end of the wire of each NIC, where it has one.
    pub(crate) wires: &'a [Option<OwnedFd>],
    /// The disk on which it keeps what it writes.
    pub(crate) disk: Option<&'a Path>,
    /// Whether the processor does the work.
    pub(crate) kvm: bool,
}

/// The arguments of one machine.
pub(crate) fn args(topology: &Topology, assets: &Assets, place: &Place<'_>) -> Vec<OsString> {
    let mut args = Args(assets.qemu.firmware_args());
    args.add(
        "-name",
        format!("lab{0},process=virtfn-lab{0}", place.index),
    );
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        args.0.push(flag.into());
    }
    args.add("-display", "none");
    args.add(
        "-machine",
        "q35,kernel-irqchip=split,usb=off,vmport=off,smbus=off,graphics=off,dump-guest-core=off",
    );
    args.add(
        "-accel",
        if place.kvm {
            "kvm"
        } else {
            // One thread for all processors. With one for each, a processor that waits for another's
            // access to a device may find its own address map gone (QEMU 10.0): an interrupt that it
            // acknowledges stays pending for ever, or QEMU fails an assertion.
            "tcg,thread=single,tb-size=256"
        },
    );
    args.add("-cpu", if place.kvm { "host" } else { "max" });
    args.add("-smp", topology.cpus.to_string());
    args.add("-m", format!("{}M", topology.memory_mib));
    args.add("-device", "intel-iommu,intremap=on,caching-mode=on");
    args.add("-kernel", &assets.kernel.image);
    args.add("-initrd", &assets.initramfs);
    args.add("-append", command_line(topology, place.kvm));
    args.add("-chardev", "stdio,id=console,signal=off");
    args.add("-serial", "chardev:console");
    args.add("-device", "virtio-serial-pci,id=ports");
    args.add(
        "-chardev",
        format!("socket,id=channel,fd={}", place.channel.as_raw_fd()),
    );
    args.add(
        "-device",
        format!("virtserialport,bus=ports.0,chardev=channel,name={PORT}"),
    );
    args.add(
        "-fsdev",
        "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
    );
    args.add("-device", "virtio-9p-pci,fsdev=host,mount_tag=host");
    // File systems of their own: the kernel refuses layers that lie one inside the other.
    for (name, tree) in [("tools", &assets.tools), ("services", &assets.services)] {
        if let Some(tree) = tree {
            let mut device = OsString::from(format!(
                "local,id={name},security_model=none,readonly=on,multidevs=remap,path="
            ));
            device.push(comma_doubled(tree.as_os_str()));
            args.add("-fsdev", device);
            let device = format!("virtio-9p-pci,fsdev={name},mount_tag={name}");
            args.add("-device", device);
        }
    }
    if let Some(disk) = place.disk {
        // The host's page cache outlives QEMU, so waiting for the host's disk gains nothing.
        let mut drive = OsString::from("if=none,id=kept,format=raw,cache=unsafe,file=");
        drive.push(comma_doubled(disk.as_os_str()));
        args.add("-drive", drive);
        args.add("-device", "virtio-blk-pci,drive=kept");
    }
    args.add("-object", "rng-random,id=rng,filename=/dev/urandom");
    args.add("-device", "virtio-rng-pci,rng=rng");
    for (number, nic) in topology.nics.iter().enumerate() {
        args.nic(*nic, number, place);
    }
    if let Some(vfs) = topology.nvme_vfs {
        args.nvme(vfs, topology.nics.len());
    }
    args.0.extend(topology.qemu_args.iter().map(OsString::from));
    args.0
}

struct Args(Vec<OsString>);

impl Args {
    fn add(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn root_port(&mut self, id: &str, number: usize, more: &str) {
        // Chassis and slot only have to differ; the order of ports makes the bus numbers.
        let slot = number + 1;
        self.add(
            "-device",
            format!(
                "pcie-root-port,id={id},chassis={slot},slot={slot},addr=0x{:x}{more}",
                0x10 + number
            ),
        );
    }

    fn nic(&mut self, nic: Nic, number: usize, place: &Place<'_>) {
        let (net, port) = (format!("net{number}"), format!("port{number}"));
        let mac = mac(place.index, number);
        match nic {
            Nic::User => {
                self.root_port(&port, number, "");
                self.add("-netdev", format!("user,id={net}"));
                self.add(
                    "-device",
                    format!("virtio-net-pci,netdev={net},mac={mac},bus={port},romfile="),
                );
            }
            Nic::Igb { acs } => {
                self.root_port(&port, number, if acs { "" } else { ",disable-acs=on" });
                if let Some(wire) = place.wires.get(number).and_then(Option::as_ref) {
                    let wire = wire.as_raw_fd();
                    self.add(
                        "-netdev",
                        format!("stream,id={net},server=off,addr.type=fd,addr.str={wire}"),
                    );
                }
                self.add(
                    "-device",
                    format!("igb,netdev={net},mac={mac},bus={port},romfile="),
                );
            }
        }
    }

    fn nvme(&mut self, vfs: u8, number: usize) {
        self.root_port("nvmeport", number, "");
        self.add("-device", "nvme-subsys,id=subsystem");
        let (flexible, queues) = (2 * u16::from(vfs), 2 * u16::from(vfs) + 4);
        self.add(
            "-device",
            format!(
                "nvme,subsys=subsystem,bus=nvmeport,serial=virtfn,sriov_max_vfs={vfs},sriov_vq_flexible={flexible},\
                 sriov_vi_flexible={vfs},max_ioqpairs={queues},msix_qsize={}",
                queues - 3
            ),
        );
    }
}

/// What keeps systemd to the units that are there for the machine: nothing of the host's disks, no
/// login on consoles, no work that a first boot of a real installation has.
const SYSTEMD: [&str; 6] = [
    "systemd.unit=multi-user.target",
    "systemd.condition_needs_update=0",
    "systemd.firstboot=0",
    "systemd.getty_auto=0",
    "systemd.gpt_auto=0",
    "fstab=no",
];

fn command_line(topology: &Topology, kvm: bool) -> String {
    let mut words = vec![
        "console=ttyS0",
        // A panic ends QEMU (-no-reboot) instead of hanging until the deadline.
        "panic=-1",
        "oops=panic",
        "intel_iommu=on",
        "iommu=pt",
        // A machine that lives for seconds on an emulated processor is nobody's target.
        "mitigations=off",
        "random.trust_cpu=on",
        "no_timer_check",
        "audit=0",
        "cryptomgr.notests",
        "net.ifnames=1",
    ];
    if !kvm {
        // The kernel measures the processor's own counter while it boots. On a busy host it was once
        // eleven times too slow, and every deadline in the machine came eleven times too early.
        words.extend(["tsc=reliable", "clocksource=hpet"]);
    }
    if topology.systemd {
        words.extend(SYSTEMD);
    }
    words.extend(topology.append.iter().map(String::as_str));
    words.join(" ")
}

/// QEMU splits its options at commas, except at doubled ones.
fn comma_doubled(path: &OsStr) -> OsString {
    let mut bytes = Vec::new();
    for byte in path.as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

/// `52:54:00` is QEMU's own prefix; then the lab's mark, the machine and the NIC.
pub(crate) fn mac(machine: usize, nic: usize) -> String {
    format!("52:54:00:1a:{machine:02x}:{nic:02x}")
}
