//! From the attributes of devlink answers to values.

use model::{EswitchMode, IfIndex, VfIndex};

use super::{
    ATTR_BUS_NAME, ATTR_DEV_NAME, ATTR_ESWITCH_MODE, ATTR_PARAM_TYPE, ATTR_PARAM_VALUE_CMODE,
    ATTR_PARAM_VALUE_DATA, Handle, Info, PARAM_TYPE_WORD, Port, PortFlavour, Version, VersionKind,
    WordParameter,
};
use crate::wire::{Attribute, Attributes};

const ATTR_PORT_INDEX: u16 = 3;
const ATTR_PORT_NETDEV_IFINDEX: u16 = 6;
const ATTR_PORT_NETDEV_NAME: u16 = 7;
const ATTR_PORT_IBDEV_NAME: u16 = 8;
const ATTR_PORT_FLAVOUR: u16 = 77;
const ATTR_PARAM: u16 = 80;
const ATTR_PARAM_VALUES_LIST: u16 = 84;
const ATTR_PARAM_VALUE: u16 = 85;
const ATTR_INFO_DRIVER_NAME: u16 = 98;
const ATTR_INFO_SERIAL_NUMBER: u16 = 99;
const ATTR_INFO_VERSION_FIXED: u16 = 100;
const ATTR_INFO_VERSION_RUNNING: u16 = 101;
const ATTR_INFO_VERSION_STORED: u16 = 102;
const ATTR_INFO_VERSION_NAME: u16 = 103;
const ATTR_INFO_VERSION_VALUE: u16 = 104;
const ATTR_PORT_PCI_PF_NUMBER: u16 = 127;
const ATTR_PORT_PCI_VF_NUMBER: u16 = 128;
const ATTR_PORT_CONTROLLER_NUMBER: u16 = 150;
const ATTR_PORT_PCI_SF_NUMBER: u16 = 164;

/// `NLA_FLAG`: the type of on/off parameters, whose value is "on" when the data are there.
const PARAM_TYPE_SWITCH: u8 = 6;

/// Most versions that are kept of one device; drivers report about ten.
const MOST_VERSIONS: usize = 256;

pub(super) fn handle(attributes: Attributes<'_>) -> Option<Handle> {
    Some(Handle {
        bus: attributes.find(ATTR_BUS_NAME)?.string()?,
        device: attributes.find(ATTR_DEV_NAME)?.string()?,
    })
}

pub(super) fn eswitch(attributes: Attributes<'_>) -> Option<EswitchMode> {
    match attributes.find(ATTR_ESWITCH_MODE)?.u16()? {
        0 => Some(EswitchMode::Legacy),
        // 2 is "switchdev, inactive" of newer kernels: the representors are there.
        1 | 2 => Some(EswitchMode::Switchdev),
        _ => None,
    }
}

pub(super) fn info(attributes: Attributes<'_>) -> Info {
    let mut info = Info::default();
    for attribute in attributes {
        let kind = match attribute.kind {
            ATTR_INFO_DRIVER_NAME => {
                info.driver = attribute.string();
                continue;
            }
            ATTR_INFO_SERIAL_NUMBER => {
                info.serial = attribute.string();
                continue;
            }
            ATTR_INFO_VERSION_FIXED => VersionKind::Fixed,
            ATTR_INFO_VERSION_RUNNING => VersionKind::Running,
            ATTR_INFO_VERSION_STORED => VersionKind::Stored,
            _ => continue,
        };
        if info.versions.len() < MOST_VERSIONS {
            info.versions.extend(version(kind, attribute));
        }
    }
    info
}

fn version(kind: VersionKind, attribute: Attribute<'_>) -> Option<Version> {
    let nested = attribute.nested();
    Some(Version {
        kind,
        name: nested.find(ATTR_INFO_VERSION_NAME)?.string()?,
        value: nested.find(ATTR_INFO_VERSION_VALUE)?.string()?,
    })
}

pub(super) fn port(attributes: Attributes<'_>) -> Option<Port> {
    let mut port = Port {
        device: handle(attributes)?,
        index: attributes.find(ATTR_PORT_INDEX)?.u32()?,
        flavour: flavour(attributes.find(ATTR_PORT_FLAVOUR)?.u16()?),
        controller: None,
        pf: None,
        vf: None,
        sf: None,
        netdev: None,
        netdev_index: None,
        rdma: None,
    };
    for attribute in attributes {
        match attribute.kind {
            ATTR_PORT_NETDEV_IFINDEX => {
                port.netdev_index = attribute.u32().and_then(IfIndex::new);
            }
            ATTR_PORT_NETDEV_NAME => {
                port.netdev = attribute.text().and_then(|name| name.parse().ok());
            }
            ATTR_PORT_IBDEV_NAME => port.rdma = attribute.string(),
            ATTR_PORT_PCI_PF_NUMBER => port.pf = attribute.u16(),
            ATTR_PORT_PCI_VF_NUMBER => port.vf = attribute.u16().map(VfIndex),
            ATTR_PORT_PCI_SF_NUMBER => port.sf = attribute.u32(),
            ATTR_PORT_CONTROLLER_NUMBER => port.controller = attribute.u32(),
            _ => {}
        }
    }
    Some(port)
}

fn flavour(number: u16) -> PortFlavour {
    match number {
        0 => PortFlavour::Physical,
        3 => PortFlavour::PciPf,
        4 => PortFlavour::PciVf,
        5 => PortFlavour::Virtual,
        7 => PortFlavour::PciSf,
        other => PortFlavour::Other(other),
    }
}

pub(super) fn switch_parameter(attributes: Attributes<'_>) -> Option<bool> {
    let first = first_value(attributes, PARAM_TYPE_SWITCH)?;
    Some(first.find(ATTR_PARAM_VALUE_DATA).is_some())
}

pub(super) fn word_parameter(attributes: Attributes<'_>) -> Option<WordParameter> {
    let first = first_value(attributes, PARAM_TYPE_WORD)?;
    Some(WordParameter {
        word: first.find(ATTR_PARAM_VALUE_DATA)?.string()?,
        when: first.find(ATTR_PARAM_VALUE_CMODE)?.u8()?,
    })
}

/// Returns the attributes of the first value of a parameter of a type.
fn first_value(attributes: Attributes<'_>, kind: u8) -> Option<Attributes<'_>> {
    let parameter = attributes.find(ATTR_PARAM)?.nested();
    if parameter.find(ATTR_PARAM_TYPE)?.u8()? != kind {
        return None;
    }
    let values = parameter.find(ATTR_PARAM_VALUES_LIST)?.nested();
    Some(values.find(ATTR_PARAM_VALUE)?.nested())
}

/// Decodes arbitrary bytes as the attributes of each kind of answer.
pub(crate) fn fuzz_devlink(data: &[u8]) {
    let attributes = Attributes::new(data);
    let versions = info(attributes).versions.len();
    assert!(versions <= MOST_VERSIONS, "an unbounded list of versions");
    let _answers = (
        handle(attributes),
        eswitch(attributes),
        port(attributes),
        switch_parameter(attributes),
        word_parameter(attributes),
    );
}

#[cfg(test)]
mod tests;
