//! Specifications of the Container Device Interface, as far as device nodes go.
//!
//! A container runtime reads them when it starts a container, so what a device needs is looked up
//! then, and not replayed by the kubelet from a time before the last reboot.

use std::fmt::Write as _;

use model::{DeviceId, PoolKind, ResourceName};

/// Where specifications that do not outlive a boot are.
pub const DIRECTORY: &str = "/var/run/cdi";

/// Longest name of an annotation behind its slash.
const LONGEST_KEY: usize = 63;

/// Longest name of a file.
const LONGEST_NAME: usize = 255;

/// A device node for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path on the host.
    pub host: String,
    /// Path in the container.
    pub container: String,
}

/// What devices of one pool need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specification<'a> {
    /// The pool.
    pub resource: &'a ResourceName,
    /// Its kind.
    pub kind: PoolKind,
    /// Its devices. A device without nodes is left out: one makes the whole specification invalid.
    pub devices: Vec<(&'a DeviceId, &'a [DeviceNode])>,
}

/// Returns the class of a pool's devices.
fn class(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Net => "net-pci",
        PoolKind::Accelerator => "net-accel",
        PoolKind::SubFunction => "net-sf",
    }
}

/// Can `resource` be a vendor? It has to start with a letter, which the kubelet does not ask for.
#[must_use]
pub fn is_vendor(resource: &ResourceName) -> bool {
    resource
        .prefix()
        .starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Returns the full name of a device, `intel.com/net-pci=0000:3b:0a.2`.
#[must_use]
pub fn device_name(resource: &ResourceName, kind: PoolKind, device: &DeviceId) -> String {
    format!("{}/{}={device}", resource.prefix(), class(kind))
}

/// Returns the key of the annotation by which kubelets before 1.28 pass devices on.
///
/// Each resource has its own, because the kubelet keeps one value for a key.
#[must_use]
pub fn annotation_key(resource: &ResourceName, kind: PoolKind) -> String {
    let (prefix, name) = (resource.prefix(), resource.name());
    let full = format!("{prefix}_{}_{name}", class(kind));
    if full.len() <= LONGEST_KEY {
        return format!("cdi.k8s.io/{full}");
    }
    format!("cdi.k8s.io/{}_{:016x}", class(kind), hash(&full))
}

/// Returns the name of a pool's specification file; runtimes read any.
#[must_use]
pub fn file_name(resource: &ResourceName, kind: PoolKind) -> String {
    let full = format!("{}-{}-{}", resource.prefix(), class(kind), resource.name());
    if full.len() <= LONGEST_NAME - "sriov-dp-.yaml".len() {
        return format!("sriov-dp-{full}.yaml");
    }
    format!("sriov-dp-{}-{:016x}.yaml", class(kind), hash(&full))
}

/// FNV-1a: two long names differ, and nobody gains from making them equal on his own node.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Specification<'_> {
    /// Returns the file's content; `None` when no device has a node, so there is nothing to specify.
    #[must_use]
    pub fn to_yaml(&self) -> Option<String> {
        let mut devices = String::new();
        for (id, nodes) in self.devices.iter().filter(|(_, nodes)| !nodes.is_empty()) {
            // Quoted, because YAML 1.1 takes some PCI addresses for numbers. Writing to a string
            // cannot fail.
            let _always = writeln!(
                devices,
                "- name: \"{id}\"\n  containerEdits:\n    deviceNodes:"
            );
            for node in *nodes {
                let _always = writeln!(
                    devices,
                    "    - path: {:?}\n      hostPath: {:?}\n      permissions: rw",
                    node.container, node.host
                );
            }
        }
        let kind = format!("{}/{}", self.resource.prefix(), class(self.kind));
        (!devices.is_empty()).then(|| {
            format!("cdiVersion: 0.5.0\nkind: {kind}\ncontainerEdits: {{}}\ndevices:\n{devices}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_nodes_is_in_no_specification() {
        let resource: ResourceName = "intel.com/sriov_a".parse().unwrap();
        let [bare, vfio] = ["0000:00:00.0", "0000:3b:0a.2"].map(|id| id.parse().unwrap());
        let node = |path: &str, host: &str| DeviceNode {
            host: host.to_owned(),
            container: path.to_owned(),
        };
        let mut specification = Specification {
            resource: &resource,
            kind: PoolKind::Net,
            devices: vec![(&bare, &[])],
        };
        assert_eq!(specification.to_yaml(), None);
        let nodes = [
            node("/dev/vfio/vfio", "/dev/vfio/vfio"),
            node("/dev/vfio/7", "/dev/vfio/noiommu-7"),
        ];
        specification.devices.push((&vfio, &nodes));
        insta::assert_snapshot!(specification.to_yaml().unwrap(), @r#"
        cdiVersion: 0.5.0
        kind: intel.com/net-pci
        containerEdits: {}
        devices:
        - name: "0000:3b:0a.2"
          containerEdits:
            deviceNodes:
            - path: "/dev/vfio/vfio"
              hostPath: "/dev/vfio/vfio"
              permissions: rw
            - path: "/dev/vfio/7"
              hostPath: "/dev/vfio/noiommu-7"
              permissions: rw
        "#);
    }

    #[test]
    fn every_resource_has_its_own_annotation() {
        let key = |text: &str| annotation_key(&text.parse().unwrap(), PoolKind::Net);
        assert_eq!(key("intel.com/a"), "cdi.k8s.io/intel.com_net-pci_a");
        let long = |last: char| key(&format!("{}.example.com/{last}", "x".repeat(60)));
        assert_ne!(long('a'), long('b'));
        let file = |text: &str| file_name(&text.parse().unwrap(), PoolKind::Net);
        assert_eq!(file("intel.com/a"), "sriov-dp-intel.com-net-pci-a.yaml");
        let long_file = |last: char| file(&format!("{}b/{last}", "a.".repeat(121)));
        assert_ne!(long_file('a'), long_file('b'));
        assert!(long_file('a').len() <= LONGEST_NAME);
        assert_eq!(long('a').len(), "cdi.k8s.io/".len() + "net-pci_".len() + 16);
        assert!(!is_vendor(&"3com.com/a".parse().unwrap()));
    }
}
