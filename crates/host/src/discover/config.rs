//! PCI configuration space: the few registers that sysfs does not always tell.
//!
//! Pure: bytes of `/sys/bus/pci/devices/*/config` in, capabilities out. Without `CAP_SYS_ADMIN` in
//! the first user namespace the kernel hands out 64 bytes only; the extended capabilities are then
//! *unknown*, [`ConfigError::Short`], and not absent.
//!
//! Offsets are those of the PCI Express base specification 6.0, sections 7.8.4 (ARI), 7.7.11 (ACS)
//! and 9.3.3 (SR-IOV).

/// First byte of the extended capabilities.
const EXTENDED: usize = 0x100;

/// Most extended capabilities that fit: (4096 - 256) bytes of at least 4 bytes each.
const MOST_EXTENDED: usize = 960;

const ID_ACS: u16 = 0x000d;
const ID_ARI: u16 = 0x000e;
const ID_SRIOV: u16 = 0x0010;

/// Configuration space that does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The bytes end before the extended capabilities, or within one.
    #[error("the configuration space ends after {0} bytes")]
    Short(usize),
    /// All ones: the function is powered off or gone.
    #[error("the function does not answer")]
    NoAnswer,
    /// The list of capabilities does not end.
    #[error("the list of extended capabilities is a circle")]
    Circle,
}

/// The SR-IOV extended capability of a PF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SriovCapability {
    /// VFs that the device has at first (`InitialVFs`).
    pub initial_vfs: u16,
    /// Most VFs (`TotalVFs`); drivers may offer fewer in sysfs.
    pub total_vfs: u16,
    /// VFs that were asked for (`NumVFs`).
    pub num_vfs: u16,
    /// Routing id of VF 0 less that of the PF; changes with `NumVFs` and with ARI.
    pub first_vf_offset: u16,
    /// Routing id from one VF to the next.
    pub vf_stride: u16,
    /// Device id of the VFs.
    pub vf_device: u16,
    /// Are the VFs switched on (`VF Enable`)?
    pub enabled: bool,
    /// Does the hierarchy above forward ARI (`ARI Capable Hierarchy`), so that more than 8
    /// functions per bus number can be reached?
    pub ari_hierarchy: bool,
}

/// Returns the SR-IOV capability; `Ok(None)` when the function has none.
pub fn sriov(config: &[u8]) -> Result<Option<SriovCapability>, ConfigError> {
    let Some(at) = find(config, ID_SRIOV)? else {
        return Ok(None);
    };
    let word = |offset: usize| u16_at(config, at + offset);
    let control = word(0x08)?;
    Ok(Some(SriovCapability {
        initial_vfs: word(0x0c)?,
        total_vfs: word(0x0e)?,
        num_vfs: word(0x10)?,
        first_vf_offset: word(0x14)?,
        vf_stride: word(0x16)?,
        vf_device: word(0x1a)?,
        enabled: control & 1 != 0,
        ari_hierarchy: control & 1 << 4 != 0,
    }))
}

/// Returns the next function number of the ARI capability; `Ok(None)` when there is none.
pub fn ari_next_function(config: &[u8]) -> Result<Option<u8>, ConfigError> {
    let Some(at) = find(config, ID_ARI)? else {
        return Ok(None);
    };
    let [_, next] = u16_at(config, at + 4)?.to_le_bytes();
    Ok(Some(next))
}

/// The access control services of a port or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcsCapability {
    /// What it can do.
    pub capability: u16,
    /// What is switched on.
    pub control: u16,
}

impl AcsCapability {
    /// Source validation, P2P request and completion redirect, upstream forwarding: what Linux asks
    /// for before it splits IOMMU groups (`REQ_ACS_FLAGS`).
    pub const ISOLATING: u16 = 0x1d;

    /// Does it keep the functions behind it apart, as far as Linux is concerned?
    #[must_use]
    pub fn isolates(self) -> bool {
        self.control & Self::ISOLATING == Self::ISOLATING
    }
}

/// Returns the access control services; `Ok(None)` when there are none.
pub fn acs(config: &[u8]) -> Result<Option<AcsCapability>, ConfigError> {
    let Some(at) = find(config, ID_ACS)? else {
        return Ok(None);
    };
    Ok(Some(AcsCapability {
        capability: u16_at(config, at + 4)?,
        control: u16_at(config, at + 6)?,
    }))
}

/// Returns where the extended capability `id` begins.
fn find(config: &[u8], id: u16) -> Result<Option<usize>, ConfigError> {
    if config.len() < EXTENDED && config.iter().all(|byte| *byte == 0xff) && !config.is_empty() {
        return Err(ConfigError::NoAnswer);
    }
    // A conventional PCI function has 256 bytes and no extended capabilities.
    if config.len() == EXTENDED {
        return Ok(None);
    }
    let mut at = EXTENDED;
    for _ in 0..MOST_EXTENDED {
        let header = u32_at(config, at)?;
        match header {
            0 => return Ok(None),
            u32::MAX => return Err(ConfigError::NoAnswer),
            _ => {}
        }
        let [id_low, id_high, ..] = header.to_le_bytes();
        if u16::from_le_bytes([id_low, id_high]) == id {
            return Ok(Some(at));
        }
        // Bits 31:20; the two lowest of them are reserved.
        let next = usize::try_from(header >> 20 & 0xffc).unwrap_or(0);
        if next < EXTENDED {
            return Ok(None);
        }
        at = next;
    }
    Err(ConfigError::Circle)
}

fn u16_at(config: &[u8], at: usize) -> Result<u16, ConfigError> {
    let bytes = config.get(at..).and_then(|rest| rest.first_chunk::<2>());
    let bytes = bytes.ok_or(ConfigError::Short(config.len()))?;
    Ok(u16::from_le_bytes(*bytes))
}

fn u32_at(config: &[u8], at: usize) -> Result<u32, ConfigError> {
    let bytes = config.get(at..).and_then(|rest| rest.first_chunk::<4>());
    let bytes = bytes.ok_or(ConfigError::Short(config.len()))?;
    Ok(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The 82576 of QEMU 10.0.2 with two VFs, one of the VFs, and the root port above, as Linux 6.12
    /// read them.
    const IGB: &[u8] = include_bytes!("../../corpus/pci_config/igb");
    const IGB_VF: &[u8] = include_bytes!("../../corpus/pci_config/igb-vf");
    const ROOT_PORT: &[u8] = include_bytes!("../../corpus/pci_config/root-port");

    #[test]
    fn an_igb_has_its_vfs_at_offset_128_stride_2() {
        let capability = sriov(IGB).unwrap().unwrap();
        assert_eq!(capability.total_vfs, 8);
        assert_eq!((capability.first_vf_offset, capability.vf_stride), (128, 2));
        assert_eq!(capability.vf_device, 0x10ca);
        assert!(capability.enabled && capability.ari_hierarchy);
        assert_eq!(ari_next_function(IGB), Ok(Some(0)));
        assert_eq!(acs(IGB), Ok(None));
    }

    #[test]
    fn what_an_unprivileged_reader_gets_is_unknown_not_absent() {
        assert_eq!(sriov(&IGB[..64]), Err(ConfigError::Short(64)));
        assert_eq!(sriov(&[]), Err(ConfigError::Short(0)));
        assert_eq!(sriov(&IGB[..0x165]), Err(ConfigError::Short(0x165)));
        assert_eq!(sriov(&IGB[..256]), Ok(None));
        assert_eq!(sriov(&[0xff; 4096]), Err(ConfigError::NoAnswer));
    }

    #[test]
    fn a_list_that_bites_its_tail_ends() {
        let mut config = vec![0; 4096];
        config[0x100..0x104].copy_from_slice(&0x1001_0001_u32.to_le_bytes());
        assert_eq!(sriov(&config), Err(ConfigError::Circle));
    }

    #[test]
    fn a_vf_has_no_vfs_and_a_root_port_isolates() {
        assert_eq!(sriov(IGB_VF), Ok(None));
        assert_eq!(sriov(ROOT_PORT), Ok(None));
        let port = acs(ROOT_PORT).unwrap().unwrap();
        assert_eq!((port.capability, port.control), (0x5f, 0x1d));
        assert!(port.isolates());
        let control = 0x1c;
        assert!(!AcsCapability { control, ..port }.isolates());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(config in proptest::collection::vec(any::<u8>(), 0..5000)) {
            crate::fuzz::fuzz_pci_config(&config);
        }
    }
}
