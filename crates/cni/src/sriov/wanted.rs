//! What a network asks for, whichever of the two plugins it names.

use api::cni::{Arguments, ErrorNumber, IbSriovConfig, SriovConfig};
use model::{DriverName, Function, Guid, LinkType, MacAddr, PciAddress, VfSettings};

use crate::call::Call;
use crate::failure::Failure;
use crate::plugin::Plugin;

/// The configuration of a plugin.
pub(super) enum Wanted {
    Sriov(SriovConfig),
    Infiniband(IbSriovConfig),
}

impl Wanted {
    /// Reads it, with `CNI_ARGS`.
    pub(super) fn read(call: &Call) -> Result<Self, Failure> {
        let arguments = Arguments::parse(&call.environment.args)
            .map_err(|error| Failure::of(ErrorNumber::BAD_ENVIRONMENT, &error))?;
        let wanted = if call.plugin == Plugin::IbSriov {
            IbSriovConfig::read(&call.config).map(Self::Infiniband)
        } else {
            SriovConfig::read(&call.config, &arguments).map(Self::Sriov)
        };
        wanted.map_err(|error| Failure::of(error.number(), &error))
    }

    pub(super) fn device(&self) -> PciAddress {
        match self {
            Self::Sriov(config) => config.device,
            Self::Infiniband(config) => config.device,
        }
    }

    /// Returns what the PF is to set, without the MAC.
    pub(super) fn settings(&self) -> VfSettings {
        match self {
            Self::Sriov(config) => config.settings,
            Self::Infiniband(config) => VfSettings {
                link: config.link,
                node_guid: config.guid,
                port_guid: config.guid,
                ..VfSettings::default()
            },
        }
    }

    pub(super) fn mac(&self) -> Option<MacAddr> {
        match self {
            Self::Sriov(config) => config.mac,
            Self::Infiniband(_) => None,
        }
    }

    /// Does the RDMA device of an interface go along?
    pub(super) fn with_rdma(&self) -> bool {
        matches!(self, Self::Infiniband(config) if config.moves_rdma)
    }

    /// Says in the log what may not be meant.
    pub(super) fn warn(&self) {
        let Self::Sriov(config) = self else {
            return;
        };
        for (key, text) in [("spoofchk", &config.spoof_check), ("trust", &config.trust)] {
            if text.is_odd() {
                tracing::warn!(key, value = text.0, "neither on nor off, taken for off");
            }
        }
    }

    /// Refuses what the driver of the VF, or ib-kubernetes, is not ready for.
    pub(super) fn check(&self, driver: Option<&DriverName>) -> Result<(), Failure> {
        let Self::Infiniband(config) = self else {
            return Ok(());
        };
        let is_vfio = driver.is_some_and(DriverName::is_vfio);
        if config.must_be_vfio && !is_vfio {
            let driver = driver.map_or("no driver".to_owned(), ToString::to_string);
            return Err(Failure::new(
                "no-vfio",
                format!(
                    "vfioPciMode: VF {} is bound to {driver}, not to vfio-pci",
                    config.device
                ),
                "bind the VF to vfio-pci with `virtfn bind`, or leave vfioPciMode out",
            )
            .with_number(ErrorNumber::BAD_CONFIG));
        }
        if config.awaits_ib_kubernetes {
            return Err(Failure::new(
                "ib-kubernetes-not-ready",
                "ibKubernetesEnabled: mellanox.infiniband.app is not \"configured\" yet".to_owned(),
                "see whether ib-kubernetes runs, and what it says about this pod",
            ));
        }
        Ok(())
    }

    /// Refuses an InfiniBand VF whose own GUID is none, when the network gives it none either.
    pub(super) fn check_guid(&self, vf: Option<&Function>) -> Result<(), Failure> {
        let Self::Infiniband(config) = self else {
            return Ok(());
        };
        let found = vf.and_then(port_guid);
        let is_one = |guid: &Guid| !guid.is_zero() && *guid != Guid::ONES;
        if config.guid.is_some() || found.as_ref().is_some_and(is_one) {
            return Ok(());
        }
        Err(Failure::new(
            "bad-guid",
            format!("VF {} GUID is not valid", config.device),
            "give it one: in the pod's annotation (infinibandGUID), with ib-kubernetes, or with a policy",
        ))
    }
}

/// Returns the port GUID of a VF: what the PF reports, or the end of the address of its interface.
fn port_guid(vf: &Function) -> Option<Guid> {
    let reported = vf.vf()?.state.and_then(|state| state.port_guid);
    reported.filter(|guid| !guid.is_zero()).or_else(|| {
        let netdev = vf.netdev()?;
        let address = netdev.address.as_deref()?;
        let tail = address.len().checked_sub(8 * 3 - 1)?;
        let guid = address.get(tail..)?.parse().ok();
        guid.filter(|_| netdev.link_type == LinkType::InfiniBand)
    })
}
