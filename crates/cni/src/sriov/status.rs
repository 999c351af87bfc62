//! STATUS: could an ADD be served now?
//!
//! What is looked at is what every ADD needs: the ledger, upstream's files, the kernel's list of devices,
//! and a PF with VFs that is not down. It is asked often, so nothing is changed but two files that come
//! and go.

use api::cni::{Command, ErrorNumber};
use model::{Explain, Function, Host, Scope};

use crate::call::Call;
use crate::failure::Failure;
use crate::ipam::Ipam;
use crate::place::{Machine, Place};

pub(super) fn serve<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    ready(call, place).map_err(|failure| failure.with_number(ErrorNumber::NOT_AVAILABLE))?;
    match Ipam::of(call)? {
        Some(ipam) => ipam.call(Command::Status),
        None => Ok(()),
    }
}

fn ready<M: Machine>(call: &Call, place: &mut Place<M>) -> Result<(), Failure> {
    fn explained(error: &dyn Explain) -> Failure {
        Failure::explained(error)
    }
    let kept = place.state.check().and_then(|()| place.files.check());
    kept.map_err(|error| explained(&error))?;
    let named = call.config.device_id().and_then(|text| text.parse().ok());
    let (host, _) = place.machine.parts();
    let seen = host.observe(named.map_or(Scope::All, Scope::Function));
    let seen = seen.map_err(|error| explained(&error))?;
    let mut with_vfs = seen
        .pfs()
        .filter(|(_, facts)| !facts.vfs.is_empty())
        .map(|(function, _)| function)
        .peekable();
    if with_vfs.peek().is_none() {
        return Err(Failure::new(
            "no-vfs",
            "this host has no VFs".to_owned(),
            "make some with `virtfn apply`, or with the SR-IOV operator",
        ));
    }
    let mut pfs: Vec<&Function> = with_vfs.collect();
    pfs.retain(|pf| pf.netdev().is_none_or(|netdev| !netdev.admin_up));
    let all_down = pfs.len()
        == seen
            .pfs()
            .filter(|(_, facts)| !facts.vfs.is_empty())
            .count();
    match pfs.first() {
        Some(pf) if all_down => Err(Failure::new(
            "pf-down",
            format!(
                "PF {} is down or has no interface on the host, so its VFs have no link",
                pf.title()
            ),
            "set it up with `ip link set … up`, or with a policy",
        )),
        _ => Ok(()),
    }
}
