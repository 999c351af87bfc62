//! The eswitch mode of a PF.

use model::{EswitchMode, PciAddress};
use netlink::devlink::{self, Handle};

use super::{Fault, Tools};

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
