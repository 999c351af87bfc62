//! What is kept of a call that addresses were reserved for, until they are given back.
//!
//! A runtime may never call DEL, and it may kill an ADD between the reservation and its answer.
//! Whoever finds the VF deserted afterwards calls the IPAM plugin with this, as that DEL would have.

use api::cni::{Command, Environment, SearchPath};
use model::{Holder, PciAddress};
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::failure::Failure;
use crate::ipam::Ipam;
use crate::place::{Machine, Place};
use crate::plugin::Plugin;

/// A call, as far as its IPAM plugin needs it again.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    container: String,
    interface: String,
    netns: String,
    args: String,
    path: Vec<String>,
    config: String,
}

/// A call that was kept.
pub(crate) struct Memo(Call);

impl Memo {
    /// Reads the memo of a VF; `None` when it has none, or one that cannot be used.
    pub(crate) fn of<M: Machine>(
        place: &Place<M>,
        vf: PciAddress,
    ) -> Result<Option<Self>, Failure> {
        let bytes = place.memos.read(vf);
        let Some(bytes) = bytes.map_err(|error| Failure::explained(&error))? else {
            return Ok(None);
        };
        let memo = parse(&bytes);
        if memo.is_none() {
            tracing::warn!(pci = %vf, "damaged memo removed, its addresses stay reserved");
            forget(place, vf)?;
        }
        Ok(memo)
    }

    /// Returns whose addresses they are.
    pub(crate) fn holder(&self) -> Result<Holder, Failure> {
        self.0.holder()
    }

    /// Are these the addresses that a DEL gives back, whose network may have been changed since?
    pub(crate) fn is_of(&self, del: &Call) -> bool {
        self.0.config.shares_addresses_with(&del.config)
    }

    /// Gives the addresses back for somebody else, who gets the VF.
    pub(crate) fn clear<M: Machine>(
        &self,
        place: &Place<M>,
        vf: PciAddress,
    ) -> Result<(), Failure> {
        let holder = self.holder()?;
        self.release(place, vf).map_err(|failure| {
            let way_out = format!(
                "or remove {}: the VF is free then, and these addresses stay reserved",
                place.memos.path(vf).display()
            );
            failure.during(
                &format!("give back the addresses of {holder}, who had VF {vf}"),
                &way_out,
            )
        })
    }

    /// Gives the addresses back, and forgets the call.
    pub(crate) fn release<M: Machine>(
        &self,
        place: &Place<M>,
        vf: PciAddress,
    ) -> Result<(), Failure> {
        let call = &self.0;
        match Ipam::of(call) {
            Ok(Some(ipam)) => ipam.call(Command::Del)?,
            Ok(None) => {}
            // Without its plugin nobody can give them back, and the VF must not wait for that.
            Err(failure) => tracing::warn!(pci = %vf, "{}", failure.message()),
        }
        tracing::info!(pci = %vf, holder = %self.holder()?, "addresses of a former holder released");
        forget(place, vf)
    }
}

/// Keeps a call, before addresses are reserved for it.
pub(crate) fn keep<M: Machine>(
    place: &Place<M>,
    vf: PciAddress,
    call: &Call,
) -> Result<(), Failure> {
    let environment = &call.environment;
    let text = |value: Option<String>| value.unwrap_or_default();
    let paths = environment.path.0.iter();
    let kept = Kept {
        container: text(environment.container.as_ref().map(ToString::to_string)),
        interface: text(environment.interface.as_ref().map(ToString::to_string)),
        netns: environment.netns.clone().unwrap_or_default(),
        args: environment.args.clone(),
        path: paths.map(|dir| dir.display().to_string()).collect(),
        config: String::from_utf8_lossy(&call.stdin).into_owned(),
    };
    // A struct of texts always has a JSON form.
    let bytes = serde_json::to_vec(&kept).unwrap_or_default();
    let written = place.memos.write(vf, &bytes);
    written.map_err(|error| Failure::explained(&error))
}

/// Forgets the call that was kept for a VF.
pub(crate) fn forget<M: Machine>(place: &Place<M>, vf: PciAddress) -> Result<(), Failure> {
    let removed = place.memos.remove(vf);
    removed.map_err(|error| Failure::explained(&error))
}

fn parse(bytes: &[u8]) -> Option<Memo> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    let environment = Environment {
        command: Command::Del,
        container: Some(kept.container.parse().ok()?),
        netns: Some(kept.netns).filter(|netns| !netns.is_empty()),
        interface: Some(kept.interface.parse().ok()?),
        args: kept.args,
        path: SearchPath(kept.path.into_iter().map(Into::into).collect()),
        allows_own_netns: true,
    };
    // Whichever it was: only its IPAM plugin is called.
    Call::new(Plugin::Sriov, environment, kept.config.into_bytes())
        .ok()
        .map(Memo)
}
