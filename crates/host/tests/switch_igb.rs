//! What only NICs with a switch have, as far as a machine without one can show it: features of the real
//! `igb`, and vDPA devices of the kernel's own `vduse`, under the name that a VF's would have.
//!
//! ```text
//! virtfn-lab run --nic igb -- target/debug/deps/switch_igb-… --ignored
//! ```
#![expect(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test fails by panicking; vduse is set up by ioctls with pointers"
)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use host::Linux;
use model::{Host, PciAddress, Step, StepError, VdpaKind, vdpa_name};
use netlink::vdpa::{self, Parent};
use netlink::{Protocol, Socket, ethtool};
use rustix::ioctl::{Opcode, Setter, ioctl};

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";
const DEVICES: &str = "/sys/bus/vdpa/devices";
const PATIENCE: Duration = Duration::from_secs(60);

fn perform(step: &Step) -> Result<(), StepError> {
    Linux::this_machine().unwrap().perform(step)
}

fn set_vdpa(kind: Option<VdpaKind>) -> Result<(), StepError> {
    let function = VF.parse().unwrap();
    perform(&Step::SetVdpa { function, kind })
}

#[test]
#[ignore = "needs the lab's igb"]
fn features_are_switched_on_and_off_where_the_driver_has_them() {
    let pf: PciAddress = PF.parse().unwrap();
    let dir = std::fs::read_dir(format!("/sys/bus/pci/devices/{pf}/net")).unwrap();
    let name = dir.flatten().next().unwrap().path();
    let index = std::fs::read_to_string(name.join("ifindex")).unwrap();
    let index = model::IfIndex::new(index.trim().parse().unwrap()).unwrap();
    let mut socket = Socket::open(Protocol::Generic).unwrap();
    for on in [false, false, true, true, false, true] {
        ethtool::set_feature(&mut socket, index, "rx-hashing", on).unwrap();
        let now = ethtool::feature(&mut socket, index, "rx-hashing").unwrap();
        assert_eq!(now, Some(on));
    }
    // igb has the second one and lets nobody switch it.
    for name in ["no-such-feature", "rx-vlan-filter", "hw-tc-offload"] {
        let found = ethtool::feature(&mut socket, index, name).unwrap();
        assert_eq!(found, None, "{name}");
    }
    perform(&Step::SetTcOffload { pf, on: true }).unwrap();
}

/// `struct vduse_dev_config` of a network device with a configuration of 16 bytes.
#[repr(C)]
struct DeviceConfig {
    name: [u8; 256],
    vendor: u32,
    device: u32,
    features: u64,
    queues: u32,
    align: u32,
    reserved: [u32; 13],
    size: u32,
    config: [u8; 16],
}

/// `struct vduse_vq_config`.
#[repr(C)]
struct QueueConfig {
    index: u32,
    max_size: u16,
    reserved: [u16; 13],
}

/// The sizes in these numbers are those of the structs without the configuration.
const CREATE_DEV: Opcode = 0x4150_8102;
const DESTROY_DEV: Opcode = 0x4100_8103;
const VQ_SETUP: Opcode = 0x4020_8114;

fn open(path: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).open(path).unwrap()
}

fn name_bytes(name: &str) -> [u8; 256] {
    let mut bytes = [0; 256];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

/// A device that this program serves, which nothing but its name ties to a VF.
struct Served {
    control: File,
    name: String,
}

/// Grants whatever the kernel asks of a device, as a program that serves one does.
fn grant_all(mut device: File) {
    // `struct vduse_dev_request`: a type, an id, and what it is about; the answer begins with the id.
    let mut request = [0; 152];
    while device.read_exact(&mut request).is_ok() {
        let mut response = [0; 152];
        response[..4].copy_from_slice(&request[4..8]);
        if device.write_all(&response).is_err() {
            return;
        }
    }
}

impl Served {
    fn new(name: &str) -> Self {
        let loaded = Command::new("modprobe").arg("vduse").status().unwrap();
        assert!(loaded.success());
        let control = open("/dev/vduse/control");
        let config = DeviceConfig {
            name: name_bytes(name),
            vendor: 0,
            device: 1,
            // VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM.
            features: 3 << 32,
            queues: 2,
            align: 4096,
            reserved: [0; 13],
            size: 16,
            config: [0; 16],
        };
        // SAFETY: VDUSE_CREATE_DEV reads a `struct vduse_dev_config` and `size` bytes behind it.
        unsafe { ioctl(&control, Setter::<CREATE_DEV, _>::new(config)) }.unwrap();
        let device = open(&format!("/dev/vduse/{name}"));
        for index in [0, 1] {
            let queue = QueueConfig {
                index,
                max_size: 256,
                reserved: [0; 13],
            };
            // SAFETY: VDUSE_VQ_SETUP reads a `struct vduse_vq_config`.
            unsafe { ioctl(&device, Setter::<VQ_SETUP, _>::new(queue)) }.unwrap();
        }
        std::thread::spawn(move || grant_all(device));
        Self {
            control,
            name: name.to_owned(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let name = name_bytes(&self.name);
        // It is refused while the device is open, and the machine ends soon in any case.
        // SAFETY: VDUSE_DESTROY_DEV reads a name of 256 bytes.
        let _outcome = unsafe { ioctl(&self.control, Setter::<DESTROY_DEV, _>::new(name)) };
    }
}

#[test]
#[ignore = "needs the lab's kernel"]
fn a_vdpa_device_gets_its_driver_and_is_removed_once_nobody_has_it() {
    let name = vdpa_name(VF.parse().unwrap());
    let path = format!("{DEVICES}/{name}");
    let served = Served::new(&name);
    let mut socket = Socket::open(Protocol::Generic).unwrap();
    let parent = Parent::Software("vduse".to_owned());
    let error = vdpa::create(&mut socket, &name, &parent, Some(32)).unwrap_err();
    assert!(error.is_not_supported(), "{error:?}");
    vdpa::create(&mut socket, &name, &parent, None).unwrap();
    let devices = vdpa::devices(&mut socket).unwrap().unwrap();
    let ours: Vec<_> = devices
        .iter()
        .filter(|device| device.name == name)
        .collect();
    assert_eq!((ours.len(), ours[0].virtio_id), (1, Some(1)));

    for _twice in 0..2 {
        set_vdpa(Some(VdpaKind::Vhost)).unwrap();
        let driver = std::fs::read_link(format!("{path}/driver")).unwrap();
        assert!(driver.ends_with("vhost_vdpa"), "{driver:?}");
    }
    let entries = std::fs::read_dir(&path).unwrap().flatten();
    let node = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .find(|entry| entry.starts_with("vhost-vdpa-"))
        .unwrap();

    let machine = open(&format!("/dev/{node}"));
    let error = set_vdpa(None).unwrap_err();
    assert_eq!(error.code.as_str(), "device-in-use", "{error:?}");
    assert!(Path::new(&path).exists());
    drop(machine);
    // The kernel's own waiter goes on as soon as the device is closed.
    let until = Instant::now() + PATIENCE;
    while let Err(error) = set_vdpa(None) {
        assert!(Instant::now() < until, "{error:?}");
    }
    assert!(!Path::new(&path).exists());
    set_vdpa(None).unwrap();
    drop(served);

    // A VF of igb makes none.
    let error = set_vdpa(Some(VdpaKind::Vhost)).unwrap_err();
    assert_eq!(error.code.as_str(), "no-vdpa", "{error:?}");
    assert!(error.remedy.unwrap().contains("switchdev"));
}
