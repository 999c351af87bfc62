//! What upstream's `ib-sriov` did to a VF, and what takes it back.
//!
//! Upstream's files name the GUID that a VF had and the name of its interface, and say whether its RDMA
//! device went along; not the link state that it had, which upstream itself sets to auto.

use api::cni::IbSriovCache;
use host::{Before, RecordedStep};
use model::{Guid, LinkPolicy, NetnsTarget, Step, VfAttr};

use super::{Target, same};

pub(super) fn before(cache: &IbSriovCache) -> Before {
    Before {
        name: cache.host_name.parse().ok(),
        ..Before::default()
    }
}

/// Undone from the last to the first: the interface comes home, then the RDMA device, then the PF takes
/// its settings back, and the driver is bound once more to see them.
pub(super) fn steps(
    cache: &IbSriovCache,
    target: &Target,
    netns: &NetnsTarget,
) -> Vec<RecordedStep> {
    let function = target.vf;
    let name = cache.host_name.parse().ok();
    let mut steps = Vec::new();
    if cache.asks_for_guid() {
        if name.is_some() {
            steps.push(same(Step::Rebind { function }));
        }
        let had = cache.host_guid.parse::<Guid>().ok();
        let had = had.filter(|guid| !guid.is_zero()).unwrap_or(Guid::ONES);
        for attr in [VfAttr::NodeGuid(had), VfAttr::PortGuid(had)] {
            steps.push(target.set(attr, attr));
        }
    }
    if let Ok(link) = cache.link_state.parse::<LinkPolicy>() {
        steps.push(target.set(VfAttr::Link(link), VfAttr::Link(LinkPolicy::Auto)));
    }
    let Some(name) = name else {
        return steps;
    };
    if cache.moves_rdma && cache.rdma.parent().is_ok() {
        steps.push(same(Step::MoveRdma {
            function,
            device: cache.rdma.container_name.clone(),
            from: netns.clone(),
            to: NetnsTarget::Host,
        }));
    }
    steps.push(same(Step::Move {
        function,
        from: netns.clone(),
        to: NetnsTarget::Host,
        name,
        up: false,
    }));
    steps
}
