//! devlink: the eswitch, firmware versions, switch ports and parameters of NICs.
//!
//! Many drivers, igb among them, know nothing of devlink. That is `None`, as is a kernel without
//! devlink or a device that is gone: only what must be reported to somebody is an error.

mod decode;

use std::fmt;

use model::{EswitchMode, IfIndex, IfName, PciAddress, VfIndex};
use serde::{Deserialize, Serialize};

use crate::error::RequestError;
use crate::generic::Family;
use crate::socket::Socket;
use crate::wire::{Attributes, Request};

pub(crate) use decode::fuzz_devlink;

const FAMILY: &str = "devlink";

const CMD_GET: u8 = 1;
const CMD_PORT_GET: u8 = 5;
const CMD_ESWITCH_GET: u8 = 29;
const CMD_ESWITCH_SET: u8 = 30;
const CMD_PARAM_GET: u8 = 38;
const CMD_PARAM_SET: u8 = 39;
const CMD_INFO_GET: u8 = 51;

const ATTR_BUS_NAME: u16 = 1;
const ATTR_DEV_NAME: u16 = 2;
const ATTR_ESWITCH_MODE: u16 = 25;
const ATTR_PARAM_NAME: u16 = 81;
const ATTR_PARAM_TYPE: u16 = 83;
const ATTR_PARAM_VALUE_DATA: u16 = 86;
const ATTR_PARAM_VALUE_CMODE: u16 = 87;

/// `NLA_STRING`: the type of parameters whose values are words.
const PARAM_TYPE_WORD: u8 = 5;

/// Name of a device in devlink, written `pci/0000:3b:00.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handle {
    /// Bus, such as `pci` or `auxiliary`.
    pub bus: String,
    /// Name on the bus.
    pub device: String,
}

impl Handle {
    /// Names a PCI function.
    #[must_use]
    pub fn pci(address: PciAddress) -> Self {
        Self {
            bus: "pci".to_owned(),
            device: address.to_string(),
        }
    }

    /// Returns the PCI function that it names.
    #[must_use]
    pub fn address(&self) -> Option<PciAddress> {
        if self.bus == "pci" {
            self.device.parse().ok()
        } else {
            None
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bus, self.device)
    }
}

/// What a device says of its driver, serial number and versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Info {
    /// Name of the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Serial number of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Versions, in the driver's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

/// One version of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Where it is.
    pub kind: VersionKind,
    /// Name of the component, such as `fw.mgmt`.
    pub name: String,
    /// The version.
    pub value: String,
}

/// Where a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionKind {
    /// In the hardware; it cannot change.
    Fixed,
    /// Running now.
    Running,
    /// In flash, for the next start.
    Stored,
}

impl Info {
    /// Returns the name of the DDP package that is loaded (`fw.app.name`; ice, Linux 5.10).
    #[must_use]
    pub fn ddp(&self) -> Option<&str> {
        self.running("fw.app.name")
    }

    fn running(&self, name: &str) -> Option<&str> {
        self.versions
            .iter()
            .find(|version| version.kind == VersionKind::Running && version.name == name)
            .map(|version| version.value.as_str())
    }

    /// Returns the running firmware in one word.
    ///
    /// There are as many names as vendors. `fw` is meant to be the version of the whole (bnxt,
    /// mlx5), `fw.version` is mlx5's older name for it, and `fw.mgmt` is the version of the
    /// management processor (ice, nfp), which is what their release notes go by.
    #[must_use]
    pub fn firmware(&self) -> Option<&str> {
        let names = ["fw", "fw.version", "fw.mgmt"];
        names.into_iter().find_map(|name| self.running(name))
    }
}

/// One port of the switch of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Device that the port is on.
    pub device: Handle,
    /// Number of the port on the device.
    pub index: u32,
    /// What the port is.
    pub flavour: PortFlavour,
    /// Controller (host) that the function is of; 0 is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<u32>,
    /// Number of the PF that it stands for, or whose VF it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pf: Option<u16>,
    /// Number of the VF that it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<VfIndex>,
    /// Number of the sub-function that it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sf: Option<u32>,
    /// Name of its netdev; for a VF that is the representor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<IfName>,
    /// Index of its netdev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev_index: Option<IfIndex>,
    /// Name of its RDMA device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma: Option<String>,
}

/// What a port is (`enum devlink_port_flavour`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortFlavour {
    /// The plug: an uplink.
    Physical,
    /// It stands for a PF.
    PciPf,
    /// It stands for a VF.
    PciVf,
    /// It stands for a sub-function.
    PciSf,
    /// It is virtual: the port of a VF or sub-function itself.
    Virtual,
    /// Any other number.
    Other(u16),
}

/// Lists all devices; `None` when this kernel has no devlink.
pub fn devices(socket: &mut Socket) -> Result<Option<Vec<Handle>>, RequestError> {
    list(
        socket,
        CMD_GET,
        format_args!("list devlink devices"),
        decode::handle,
    )
}

/// Lists all ports of all devices; `None` when this kernel has no devlink.
pub fn ports(socket: &mut Socket) -> Result<Option<Vec<Port>>, RequestError> {
    list(
        socket,
        CMD_PORT_GET,
        format_args!("list devlink ports"),
        decode::port,
    )
}

/// Returns the mode of a device's eswitch; `None` when it has none.
///
/// The kernel answers only with `CAP_NET_ADMIN`.
pub fn eswitch(socket: &mut Socket, device: &Handle) -> Result<Option<EswitchMode>, RequestError> {
    one(
        socket,
        CMD_ESWITCH_GET,
        device,
        format_args!("read the eswitch mode of {device}"),
        |_| {},
        decode::eswitch,
    )
}

/// Sets the mode of a device's eswitch. Most drivers want the PF to have no VFs meanwhile, or take
/// and re-create its netdevs.
pub fn set_eswitch(
    socket: &mut Socket,
    device: &Handle,
    mode: EswitchMode,
) -> Result<(), RequestError> {
    let operation = format_args!("set the eswitch mode of {device} to {mode}");
    let family = Family::need(socket, FAMILY, operation)?;
    let mut request = about(family, CMD_ESWITCH_SET, device);
    let number = match mode {
        EswitchMode::Legacy => 0,
        EswitchMode::Switchdev => 1,
    };
    request.u16(ATTR_ESWITCH_MODE, number);
    socket.change(operation, &mut request)
}

/// Returns driver, serial number and versions of a device; `None` when it does not say.
///
/// Some drivers ask their firmware for it, which takes milliseconds.
pub fn info(socket: &mut Socket, device: &Handle) -> Result<Option<Info>, RequestError> {
    one(
        socket,
        CMD_INFO_GET,
        device,
        format_args!("read the versions of {device}"),
        |_| {},
        |attributes| Some(decode::info(attributes)),
    )
}

/// A value of a parameter that is a word, such as `smfs` of `flow_steering_mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordParameter {
    /// The word.
    pub word: String,
    /// When a value of this kind takes effect: 0 at once, 1 when the driver starts anew, 2 for ever.
    pub when: u8,
}

/// Returns a parameter of a device that is a word; `None` when it has none of that name. Of several
/// values it is the first, as everybody reads it.
pub fn word_parameter(
    socket: &mut Socket,
    device: &Handle,
    name: &str,
) -> Result<Option<WordParameter>, RequestError> {
    parameter(socket, device, name, decode::word_parameter)
}

/// Sets a parameter of a device that is a word.
pub fn set_word_parameter(
    socket: &mut Socket,
    device: &Handle,
    name: &str,
    value: &WordParameter,
) -> Result<(), RequestError> {
    let operation = format_args!("set parameter {name} of {device} to {}", value.word);
    let family = Family::need(socket, FAMILY, operation)?;
    let mut request = about(family, CMD_PARAM_SET, device);
    fill_word(&mut request, name, value);
    socket.change(operation, &mut request)
}

fn fill_word(request: &mut Request, name: &str, value: &WordParameter) {
    request
        .text(ATTR_PARAM_NAME, name)
        .u8(ATTR_PARAM_TYPE, PARAM_TYPE_WORD)
        .u8(ATTR_PARAM_VALUE_CMODE, value.when)
        .text(ATTR_PARAM_VALUE_DATA, &value.word);
}

/// Returns an on/off parameter of a device, such as `enable_rdma`; `None` when it has none of that
/// name. Of several values (running, next boot) it is the first, as everybody reads it.
pub fn switch_parameter(
    socket: &mut Socket,
    device: &Handle,
    name: &str,
) -> Result<Option<bool>, RequestError> {
    parameter(socket, device, name, decode::switch_parameter)
}

fn parameter<T>(
    socket: &mut Socket,
    device: &Handle,
    name: &str,
    read: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    let outcome = one(
        socket,
        CMD_PARAM_GET,
        device,
        format_args!("read parameter {name} of {device}"),
        |request| {
            request.text(ATTR_PARAM_NAME, name);
        },
        read,
    );
    match outcome {
        // The answer for a name that the driver did not register.
        Err(error) if error.is_invalid() => Ok(None),
        outcome => outcome,
    }
}

fn list<T>(
    socket: &mut Socket,
    command: u8,
    operation: fmt::Arguments<'_>,
    read: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Option<Vec<T>>, RequestError> {
    let Some(family) = Family::find(socket, FAMILY)? else {
        return Ok(None);
    };
    socket
        .collect(operation, &mut family.dump(command), |message| {
            read(family.attributes(message)?)
        })
        .map(Some)
}

fn one<T>(
    socket: &mut Socket,
    command: u8,
    device: &Handle,
    operation: fmt::Arguments<'_>,
    add: impl FnOnce(&mut Request),
    read: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    let Some(family) = Family::find(socket, FAMILY)? else {
        return Ok(None);
    };
    let mut request = about(family, command, device);
    add(&mut request);
    let outcome = socket.collect(operation, &mut request, |message| {
        read(family.attributes(message)?)
    });
    match outcome {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.is_not_supported() || error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn about(family: Family, command: u8, device: &Handle) -> Request {
    let mut request = family.request(command);
    request
        .text(ATTR_BUS_NAME, &device.bus)
        .text(ATTR_DEV_NAME, &device.device);
    request
}
