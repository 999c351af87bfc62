//! vDPA devices: virtio in hardware, each made from a management device such as a VF.
//!
//! A kernel without vDPA is `None`. What would surprise: removing a device that a VM uses waits
//! for the VM.

use std::fmt;

use model::PciAddress;
use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::generic::Family;
use crate::socket::Socket;
use crate::wire::{Attributes, Request};

const FAMILY: &str = "vdpa";

const CMD_DEV_NEW: u8 = 3;
const CMD_DEV_DEL: u8 = 4;
const CMD_DEV_GET: u8 = 5;

const ATTR_MGMTDEV_BUS_NAME: u16 = 1;
const ATTR_MGMTDEV_DEV_NAME: u16 = 2;
const ATTR_DEV_NAME: u16 = 4;
const ATTR_DEV_ID: u16 = 5;
const ATTR_DEV_MAX_VQS: u16 = 7;
const ATTR_DEV_NET_CFG_MAX_VQP: u16 = 12;

/// One vDPA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name on the vDPA bus, such as `vdpa:0000:65:00.2`.
    pub name: String,
    /// Bus of the device that it is made from; software simulators have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_bus: Option<String>,
    /// Name of the device that it is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_dev: Option<String>,
    /// Virtio device id; 1 is a network device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtio_id: Option<u32>,
    /// Most virtqueues that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_virtqueues: Option<u32>,
}

impl Device {
    /// Returns the PCI function that it is made from.
    #[must_use]
    pub fn parent_pci(&self) -> Option<PciAddress> {
        if self.parent_bus.as_deref() != Some("pci") {
            return None;
        }
        self.parent_dev.as_ref()?.parse().ok()
    }
}

/// Lists all vDPA devices; `None` when this kernel has no vDPA.
pub fn devices(socket: &mut Socket) -> Result<Option<Vec<Device>>, RequestError> {
    let Some(family) = Family::find(socket, FAMILY)? else {
        return Ok(None);
    };
    socket
        .collect(
            format_args!("list vDPA devices"),
            &mut family.dump(CMD_DEV_GET),
            |message| decode(family.attributes(message)?),
        )
        .map(Some)
}

/// What vDPA devices are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// A PCI function.
    Pci(PciAddress),
    /// A part of the kernel, such as `vduse`, whose devices are served by programs.
    Software(String),
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(address) => address.fmt(f),
            Self::Software(name) => f.pad(name),
        }
    }
}

/// Makes a vDPA device, with at most `queue_pairs` pairs of queues, or as many as the driver likes.
/// Not every driver lets the number be chosen.
pub fn create(
    socket: &mut Socket,
    name: &str,
    parent: &Parent,
    queue_pairs: Option<u16>,
) -> Result<(), RequestError> {
    let operation = format_args!("create vDPA device {name} from {parent}");
    let family = Family::need(socket, FAMILY, operation)?;
    let mut request = family.request(CMD_DEV_NEW);
    fill_new(&mut request, name, parent, queue_pairs);
    socket.change(operation, &mut request)
}

fn fill_new(request: &mut Request, name: &str, parent: &Parent, queue_pairs: Option<u16>) {
    request.text(ATTR_DEV_NAME, name);
    if matches!(parent, Parent::Pci(_)) {
        request.text(ATTR_MGMTDEV_BUS_NAME, "pci");
    }
    request.text(ATTR_MGMTDEV_DEV_NAME, &parent.to_string());
    if let Some(pairs) = queue_pairs {
        request.u16(ATTR_DEV_NET_CFG_MAX_VQP, pairs);
    }
}

/// Removes a vDPA device.
pub fn delete(socket: &mut Socket, name: &str) -> Result<(), RequestError> {
    let operation = format_args!("delete vDPA device {name}");
    let family = Family::need(socket, FAMILY, operation)?;
    let mut request = family.request(CMD_DEV_DEL);
    request.text(ATTR_DEV_NAME, name);
    socket.change(operation, &mut request)
}

fn decode(attributes: Attributes<'_>) -> Option<Device> {
    let text = |kind| attributes.find(kind).and_then(|found| found.string());
    let number = |kind| attributes.find(kind).and_then(|found| found.u32());
    Some(Device {
        name: text(ATTR_DEV_NAME)?,
        parent_bus: text(ATTR_MGMTDEV_BUS_NAME),
        parent_dev: text(ATTR_MGMTDEV_DEV_NAME),
        virtio_id: number(ATTR_DEV_ID),
        max_virtqueues: number(ATTR_DEV_MAX_VQS),
    })
}

/// Decodes arbitrary bytes as the attributes of a vDPA device.
pub(crate) fn fuzz_vdpa(data: &[u8]) {
    if let Some(device) = decode(Attributes::new(data)) {
        assert!(!device.name.is_empty() && device.name.len() < data.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::attribute;

    fn attributes(fill: impl FnOnce(&mut Request)) -> Vec<u8> {
        let mut request = Request::new(0, &[]);
        fill(&mut request);
        request.payload().to_vec()
    }

    #[test]
    fn a_device_names_the_function_it_is_made_from() {
        let bytes = attributes(|device| {
            device
                .text(ATTR_DEV_NAME, "vdpa:0000:65:00.2")
                .text(ATTR_MGMTDEV_BUS_NAME, "pci")
                .text(ATTR_MGMTDEV_DEV_NAME, "0000:65:00.2")
                .u32(ATTR_DEV_ID, 1)
                .u32(ATTR_DEV_MAX_VQS, 33);
        });
        let device = decode(Attributes::new(&bytes)).unwrap();
        assert_eq!(device.parent_pci().unwrap().to_string(), "0000:65:00.2");
        assert_eq!(
            (device.virtio_id, device.max_virtqueues),
            (Some(1), Some(33))
        );
        let json = serde_json::to_string(&device).unwrap();
        assert_eq!(serde_json::from_str::<Device>(&json).unwrap(), device);
    }

    /// `VDPA_ATTR_*` of Linux's `include/uapi/linux/vdpa.h`.
    #[test]
    fn a_new_device_is_asked_for_as_the_kernel_reads_it() {
        let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), &[0]].concat());
        let asked = |parent: Parent, pairs| {
            let mut request = Request::new(0, &[]);
            fill_new(&mut request, "vdpa:0000:65:00.2", &parent, pairs);
            request.payload().to_vec()
        };
        let pci = Parent::Pci("0000:65:00.2".parse().unwrap());
        let wanted = [
            text(4, "vdpa:0000:65:00.2"),
            text(1, "pci"),
            text(2, "0000:65:00.2"),
            attribute(12, &32_u16.to_ne_bytes()),
        ];
        assert_eq!(asked(pci, Some(32)), wanted.concat());
        let software = Parent::Software("vduse".to_owned());
        let wanted = [text(4, "vdpa:0000:65:00.2"), text(2, "vduse")];
        assert_eq!(asked(software, None), wanted.concat());
    }

    #[test]
    fn a_simulator_has_no_bus() {
        let bytes = attributes(|device| {
            device
                .text(ATTR_DEV_NAME, "sim0")
                .text(ATTR_MGMTDEV_DEV_NAME, "vdpasim_net");
        });
        let device = decode(Attributes::new(&bytes)).unwrap();
        assert_eq!(device.parent_pci(), None);
        assert!(decode(Attributes::new(&[])).is_none());
    }
}
