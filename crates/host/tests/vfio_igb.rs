//! A VF whose device a program has open through VFIO, as a VM has it.
//!
//! ```text
//! virtfn-lab run --nic igb -- target/debug/deps/vfio_igb-… --ignored
//! ```
#![expect(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test fails by panicking; VFIO is set up by ioctls with pointers"
)]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use host::Linux;
use model::{BindTarget, HolderKind, Host, PciAddress, Scope, Step, StepError};
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, ioctl};

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

/// `include/uapi/linux/vfio.h`.
const SET_IOMMU: Opcode = 0x3b66;
const GROUP_SET_CONTAINER: Opcode = 0x3b68;
const GROUP_GET_DEVICE_FD: Opcode = 0x3b6a;
const TYPE1_IOMMU: usize = 1;

/// `VFIO_GROUP_GET_DEVICE_FD` with the name of a device, which ends in a zero.
struct DeviceFd(Vec<u8>);

// SAFETY: The kernel reads a string that ends in a zero, and returns a descriptor of its own.
unsafe impl Ioctl for DeviceFd {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GROUP_GET_DEVICE_FD
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(
        fd: IoctlOutput,
        _name: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: The call succeeded, so this is a new descriptor that nobody else knows.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// What a VM keeps open.
struct Machine {
    device: OwnedFd,
    group: File,
    container: File,
}

impl Machine {
    fn with(vf: PciAddress, group: &str) -> Self {
        let (container, group) = (open("/dev/vfio/vfio"), open(group));
        let number: RawFd = container.as_raw_fd();
        // SAFETY: VFIO_GROUP_SET_CONTAINER reads the number of a descriptor.
        unsafe { ioctl(&group, Setter::<GROUP_SET_CONTAINER, _>::new(number)) }.unwrap();
        // SAFETY: VFIO_SET_IOMMU takes a number.
        unsafe {
            let kind = IntegerSetter::<SET_IOMMU>::new_usize(TYPE1_IOMMU);
            ioctl(&container, kind)
        }
        .unwrap();
        let name = format!("{vf}\0").into_bytes();
        // SAFETY: See `DeviceFd`.
        let device = unsafe { ioctl(&group, DeviceFd(name)) }.unwrap();
        Self {
            device,
            group,
            container,
        }
    }
}

fn open(path: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).open(path).unwrap()
}

fn perform(step: &Step) -> Result<(), StepError> {
    Linux::this_machine().unwrap().perform(step)
}

#[test]
#[ignore = "needs the lab's igb"]
fn a_vf_that_a_machine_has_is_in_use_and_comes_free_when_it_ends() {
    let (pf, vf): (PciAddress, PciAddress) = (PF.parse().unwrap(), VF.parse().unwrap());
    let bind = |to| perform(&Step::Bind { function: vf, to });
    for count in [0, 1] {
        perform(&Step::SetNumVfs { pf, count }).unwrap();
    }
    bind(BindTarget::Driver("vfio-pci".parse().unwrap())).unwrap();
    let seen = |vf| {
        let seen = Linux::this_machine().unwrap().observe(Scope::All).unwrap();
        seen.get(vf).unwrap().clone()
    };
    let node = seen(vf).vfio.unwrap();
    for path in [&node.group, &node.cdev].into_iter().flatten() {
        assert!(std::fs::exists(path).unwrap(), "there is no {path}");
    }

    let machine = Machine::with(vf, &node.group.unwrap());
    let one = Scope::Function(vf);
    let holder = || {
        let seen = Linux::this_machine().unwrap().observe(one).unwrap();
        seen.get(vf).unwrap().vf().unwrap().holder.clone()
    };
    assert_eq!(holder().unwrap().kind, HolderKind::Vfio);
    let error = bind(BindTarget::Default).unwrap_err();
    assert_eq!(error.code.as_str(), "device-in-use", "{error:?}");

    let Machine {
        device,
        group,
        container,
    } = machine;
    drop(device);
    drop((group, container));
    assert_eq!(holder(), None);
    bind(BindTarget::Default).unwrap();
    assert_eq!(seen(vf).driver.unwrap().as_str(), "igbvf");
    perform(&Step::SetNumVfs { pf, count: 0 }).unwrap();
}
