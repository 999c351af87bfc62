//! What upstream's admission webhook refuses, as far as one policy alone tells.
//!
//! A file is reviewed when it is read, so that `virtfn apply` refuses what the cluster would refuse.
//! What depends on the node or on other policies is not here: `policy::resolve` knows those. The
//! allow-list of NICs is not copied: whether a device can have VFs is seen, not looked up.

use model::{LinkType, NodePolicy, VfDriver};

use super::node_policy::SriovNetworkNodePolicy;
use crate::field::{FieldPath, FieldProblem};

/// Longest resource name, as the webhook has it.
const MAX_RESOURCE_NAME: usize = 63;

/// Returns all rules that a policy breaks; `policy` is the meaning of `object`.
///
/// A policy named `default` is one that upstream itself makes and never applies: it breaks none.
#[must_use]
pub fn review_node_policy(
    object: &SriovNetworkNodePolicy,
    policy: &NodePolicy,
) -> Vec<FieldProblem> {
    if policy.name == "default" {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let mut refuse = |path: FieldPath, problem: &str, remedy: &str| {
        broken.push(FieldProblem {
            path,
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        });
    };
    let spec = |field: &str| FieldPath::from(["spec", field]);
    let selector = spec("nicSelector");
    let nic = &policy.nic;

    if let Err((problem, remedy)) = resource_name(&policy.resource) {
        refuse(spec("resourceName"), &problem, remedy);
    }
    if nic.is_empty() {
        refuse(
            selector.clone(),
            "selects nothing",
            "give vendor, deviceID, rootDevices, pfNames or netFilter (`virtfn list pf` shows them)",
        );
    }
    if nic.net_filter.is_some() {
        let path = selector.key("netFilter");
        let alone = model::NicSelector {
            net_filter: None,
            ..nic.clone()
        };
        if !alone.is_empty() {
            refuse(
                path.clone(),
                "goes with no other selector",
                "leave the others out",
            );
        }
        if policy.eswitch.is_some() {
            refuse(
                path.clone(),
                "goes with no eSwitchMode",
                "leave out eSwitchMode",
            );
        }
        if policy.link_type == Some(LinkType::InfiniBand) {
            refuse(path, "goes with Ethernet only", "leave out linkType");
        }
    }
    for (index, entry) in nic.pf_names.iter().enumerate() {
        let Some(range) = entry.range else { continue };
        if policy.num_vfs > 0 && range.last().0 >= policy.num_vfs {
            refuse(
                selector.key("pfNames").index(index),
                &format!(
                    "{}#{range} ends beyond the {} VFs of numVfs",
                    entry.name, policy.num_vfs
                ),
                &format!(
                    "set numVfs to {} or more, or end the range earlier",
                    u32::from(range.last().0) + 1
                ),
            );
        }
    }
    let kernel = policy.driver == VfDriver::Kernel;
    if !kernel && object.spec.is_rdma == Some(true) {
        refuse(
            spec("isRdma"),
            &format!("goes with deviceType netdevice only, not {}", policy.driver),
            "leave out isRdma, or set deviceType to netdevice",
        );
    }
    let switchdev = policy.eswitch == Some(model::EswitchMode::Switchdev);
    if switchdev && policy.link_type == Some(LinkType::InfiniBand) {
        refuse(
            spec("eSwitchMode"),
            "switchdev goes with Ethernet only",
            "set linkType to eth",
        );
    }
    if policy.vdpa.is_some() && !kernel {
        refuse(
            spec("vdpaType"),
            "goes with deviceType netdevice only",
            "leave out vdpaType, or set deviceType to netdevice",
        );
    }
    if policy.vdpa.is_some() && !switchdev {
        refuse(
            spec("vdpaType"),
            "needs eSwitchMode switchdev",
            "set eSwitchMode to switchdev",
        );
    }
    if object
        .spec
        .bridge
        .as_ref()
        .is_some_and(|bridge| bridge.ovs.is_some())
    {
        let path = spec("bridge").key("ovs");
        if !switchdev {
            refuse(
                path.clone(),
                "needs eSwitchMode switchdev",
                "set eSwitchMode to switchdev",
            );
        }
        if policy.externally_managed {
            refuse(
                path,
                "goes with no externallyManaged",
                "leave out one of the two",
            );
        }
    }
    broken
}

/// Checks a resource name; on failure returns what is wrong and what to write.
fn resource_name(name: &str) -> Result<(), (String, &'static str)> {
    const REMEDY: &str = "write letters, digits, '_' and '-', such as intel_sriov";
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let bytes = name.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            if bytes.len() > MAX_RESOURCE_NAME {
                let problem = format!("is longer than {MAX_RESOURCE_NAME} characters");
                return Err((problem, "choose a shorter name"));
            }
            let fits = first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().copied().all(inner);
            fits.then_some(())
                .ok_or_else(|| (format!("{name:?} is not a resource name"), REMEDY))
        }
        _ => Err(("must not be empty".to_owned(), REMEDY)),
    }
}
