//! Device-info files: what a device is, for the CNI plugins of its pod (device-info-spec 1.1.0).
//!
//! `/var/run/k8s.cni.cncf.io/devinfo/dp/intel.com-sriov_a-0000:3b:0a.2-device.json`, written when a
//! device is given to a container. Multus hands a copy to the plugins; ovn-kubernetes reads it itself.

use model::{DeviceId, PciAddress, ResourceName, VdpaKind};
use serde::Serialize;

/// Where the files of device plugins are.
pub const DIRECTORY: &str = "/var/run/k8s.cni.cncf.io/devinfo/dp";

/// Version of the specification.
const VERSION: &str = "1.1.0";

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceInfo {
    /// A PCI function.
    Pci {
        /// Where it is.
        address: PciAddress,
        /// Its RDMA devices.
        rdma: Vec<String>,
        /// The PF of a VF.
        pf: Option<PciAddress>,
        /// The representor of a VF, in switchdev mode.
        representor: Option<String>,
    },
    /// A vDPA device.
    Vdpa {
        /// Its name on the vDPA bus.
        name: String,
        /// As what it is offered.
        kind: VdpaKind,
        /// `/dev/vhost-vdpa-N`.
        path: Option<String>,
        /// The function that serves it.
        address: PciAddress,
    },
}

/// Longest name of a file.
const LONGEST_NAME: usize = 255;

/// Returns the name of the file for `device` of `resource`; `None` when no file can have it. Whoever
/// reads the file makes up the name by himself, so there is no other.
#[must_use]
pub fn file_name(resource: &ResourceName, device: &DeviceId) -> Option<String> {
    let resource = resource.as_str().replace('/', "-");
    let name = format!("{resource}-{device}-device.json");
    (name.len() <= LONGEST_NAME).then_some(name)
}

/// Can the devices of `resource` have files?
#[must_use]
pub fn has_names(resource: &ResourceName) -> bool {
    let device = PciAddress::new(0, 0, 0, 0).map(DeviceId::Pci);
    device.is_some_and(|device| file_name(resource, &device).is_some())
}

#[derive(Serialize)]
struct File<'a> {
    r#type: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pci: Option<Pci<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vdpa: Option<Vdpa<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Pci<'a> {
    pci_address: PciAddress,
    #[serde(skip_serializing_if = "String::is_empty")]
    rdma_device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pf_pci_address: Option<PciAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    representor_device: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Vdpa<'a> {
    parent_device: &'a str,
    driver: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    pci_address: PciAddress,
}

impl DeviceInfo {
    /// Returns the content of the file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut file = File {
            r#type: "pci",
            version: VERSION,
            pci: None,
            vdpa: None,
        };
        match self {
            Self::Pci {
                address,
                rdma,
                pf,
                representor,
            } => {
                file.pci = Some(Pci {
                    pci_address: *address,
                    rdma_device: rdma.join(","),
                    pf_pci_address: *pf,
                    representor_device: representor.as_deref(),
                });
            }
            Self::Vdpa {
                name,
                kind,
                path,
                address,
            } => {
                file.r#type = "vdpa";
                file.vdpa = Some(Vdpa {
                    parent_device: name,
                    driver: kind.to_string(),
                    path: path.as_deref(),
                    pci_address: *address,
                });
            }
        }
        // Strings under fixed keys can always be written.
        serde_json::to_string(&file).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_keys_of_the_specification_in_its_order() {
        let address: PciAddress = "0000:3b:0a.2".parse().unwrap();
        let pci = DeviceInfo::Pci {
            address,
            rdma: vec!["mlx5_3".to_owned(), "mlx5_4".to_owned()],
            pf: "0000:3b:00.0".parse().ok(),
            representor: Some("eth3".to_owned()),
        };
        assert_eq!(
            pci.to_json(),
            r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:3b:0a.2","rdma-device":"mlx5_3,mlx5_4","pf-pci-address":"0000:3b:00.0","representor-device":"eth3"}}"#
        );
        let vdpa = DeviceInfo::Vdpa {
            name: "vdpa2".to_owned(),
            kind: VdpaKind::Vhost,
            path: Some("/dev/vhost-vdpa-0".to_owned()),
            address,
        };
        assert_eq!(
            vdpa.to_json(),
            r#"{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa2","driver":"vhost","path":"/dev/vhost-vdpa-0","pci-address":"0000:3b:0a.2"}}"#
        );
        let resource = "intel.com/sriov_a".parse().unwrap();
        assert_eq!(
            file_name(&resource, &DeviceId::Pci(address)).as_deref(),
            Some("intel.com-sriov_a-0000:3b:0a.2-device.json")
        );
        let long = format!("{}b/a", "a.".repeat(120)).parse().unwrap();
        assert_eq!(file_name(&long, &DeviceId::Pci(address)), None);
    }
}
