//! The eswitch of a PF: its mode, how it steers packets, and whether it takes rules of tc.

use model::{EswitchMode, PciAddress, SteeringMode};
use netlink::devlink::{self, Handle, WordParameter};
use netlink::ethtool;

use super::netdev;
use super::{Fault, Tools};

/// The devlink parameter that says how an eswitch steers packets.
pub(crate) const STEERING: &str = "flow_steering_mode";

/// The feature of a netdev that says whether it hands rules of tc to the hardware.
pub(crate) const TC_OFFLOAD: &str = "hw-tc-offload";

pub(super) fn set(tools: &mut Tools<'_>, pf: PciAddress, mode: EswitchMode) -> Result<(), Fault> {
    let socket = tools.sockets.generic()?;
    let device = Handle::pci(pf);
    let has = devlink::eswitch(socket, &device)?;
    if has == Some(mode) {
        return Ok(());
    }
    if has.is_none() {
        // A PF without an eswitch behaves as one in legacy mode.
        return match mode {
            EswitchMode::Legacy => Ok(()),
            EswitchMode::Switchdev => Err(Fault::new(
                "no-eswitch",
                "its driver has no eswitch that can be set",
            )
            .remedy("leave eSwitchMode out for this NIC")),
        };
    }
    devlink::set_eswitch(socket, &device, mode)?;
    match devlink::eswitch(socket, &device)? {
        Some(now) if now == mode => Ok(()),
        now => {
            let now = now.map_or("none".to_owned(), |now| now.to_string());
            Err(Fault::new(
                "not-taken",
                format!("its mode is {now} afterwards"),
            ))
        }
    }
}

/// Sets how an eswitch steers packets, to take effect as the value that is there does.
pub(super) fn set_steering(
    tools: &mut Tools<'_>,
    pf: PciAddress,
    mode: SteeringMode,
) -> Result<(), Fault> {
    let socket = tools.sockets.generic()?;
    let device = Handle::pci(pf);
    let word = mode.to_string();
    // A device without the parameter, or with one way only, keeps what it has: it works all the same.
    let Some(has) = devlink::word_parameter(socket, &device, STEERING)? else {
        return Ok(());
    };
    if has.word == word {
        return Ok(());
    }
    let value = WordParameter { word, ..has };
    match devlink::set_word_parameter(socket, &device, STEERING, &value) {
        Err(error) if error.is_not_supported() => {
            tracing::debug!(%pf, %error, "steering mode kept");
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

/// Switches rules in hardware on or off, as far as the driver takes it.
pub(super) fn set_tc_offload(tools: &mut Tools<'_>, pf: PciAddress, on: bool) -> Result<(), Fault> {
    let netdev = netdev::on_host(tools.root, pf)
        .ok_or_else(|| netdev::missing(&model::NetnsTarget::Host))?;
    let socket = tools.sockets.generic()?;
    // A driver without it has nothing to switch.
    let has = ethtool::feature(socket, netdev.index, TC_OFFLOAD)?;
    if has.is_none_or(|has| has == on) {
        return Ok(());
    }
    ethtool::set_feature(socket, netdev.index, TC_OFFLOAD, on)?;
    if ethtool::feature(socket, netdev.index, TC_OFFLOAD)? != Some(on) {
        // The switch works all the same, with rules in software.
        tracing::warn!(%pf, on, "the driver did not take {TC_OFFLOAD}");
    }
    Ok(())
}
