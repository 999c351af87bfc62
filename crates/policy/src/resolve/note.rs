//! What has no effect, or another one than it seems.

use std::fmt;

use model::{LinkType, NodePolicy, Origin, VfRange};

/// Something about a policy that its author may not expect; nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Name of the policy.
    pub policy: String,
    /// Where it was read.
    pub origin: Origin,
    /// What.
    pub kind: NoteKind,
}

/// What a note is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// The policy is for nodes with a label that this one does not have.
    OtherNodes {
        /// The label.
        key: String,
        /// The value that it must have.
        value: String,
    },
    /// No PF of this host is selected.
    SelectsNothing,
    /// One of the PFs that are named is not on this host; others are.
    NoSuchPf {
        /// The name or the address.
        pf: String,
    },
    /// The PF's firmware offers fewer VFs, and must be told to offer more before.
    FirmwareOffersFewer {
        /// The PF.
        pf: String,
        /// How many are asked for.
        asked: u16,
        /// How many the device offers.
        total: u16,
    },
    /// `numVfs` is 0: the policy contributes nothing.
    NoVfs,
    /// A PF is named twice; only the first entry counts.
    SecondEntry {
        /// The PF.
        pf: String,
        /// The entry that does not count.
        entry: String,
    },
    /// The policy takes the place of a less important one, or of an earlier one by name.
    Replaces {
        /// The PF.
        pf: String,
        /// The other policy.
        policy: String,
        /// The VFs that the other one asked for.
        range: VfRange,
        /// The resource that both offer; `None` when they share VFs instead.
        same_resource: Option<String>,
    },
    /// VFs are asked for that the PF will not have.
    BeyondNumVfs {
        /// The PF.
        pf: String,
        /// The policy that asks for them.
        policy: String,
        /// The VFs that it asks for.
        range: VfRange,
        /// How many VFs the PF will have.
        num_vfs: u16,
    },
    /// A port is wanted with another link layer than it has; only its firmware can change that.
    OtherLinkType {
        /// The PF.
        pf: String,
        /// What it has.
        has: LinkType,
        /// What is wanted.
        wanted: LinkType,
    },
    /// VFs are wanted on a VFIO driver, and the IOMMU is off.
    NoIommu {
        /// The PF.
        pf: String,
    },
}

impl Note {
    pub(super) fn new(policy: &NodePolicy, kind: NoteKind) -> Self {
        Self {
            policy: policy.name.clone(),
            origin: policy.origin.clone(),
            kind,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}policy {}: {}",
            Place(&self.origin),
            self.policy,
            self.kind
        )
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherNodes { key, value } => {
                write!(
                    f,
                    "it is for nodes with label {key}={value}, which this one does not have"
                )
            }
            Self::SelectsNothing => f.write_str("it selects no PF of this host"),
            Self::NoSuchPf { pf } => {
                write!(f, "it names PF {pf}, which this host does not have")
            }
            Self::FirmwareOffersFewer { pf, asked, total } => write!(
                f,
                "it asks for {asked} VFs of PF {pf}, whose firmware offers {total} until it is changed"
            ),
            Self::NoVfs => f.write_str("numVfs is 0, so it has no effect"),
            Self::SecondEntry { pf, entry } => {
                write!(
                    f,
                    "{entry} has no effect: an earlier entry is for PF {pf} too"
                )
            }
            Self::Replaces {
                pf,
                policy,
                range,
                same_resource,
            } => {
                write!(
                    f,
                    "on PF {pf} it takes the place of VFs {range} of policy {policy}, "
                )?;
                match same_resource {
                    Some(resource) => write!(f, "which offers resource {resource} too"),
                    None => f.write_str("with which it shares VFs"),
                }
            }
            Self::BeyondNumVfs {
                pf,
                policy,
                range,
                num_vfs,
            } => write!(
                f,
                "policy {policy} asks for VFs {range} of PF {pf}, which will have only {num_vfs}"
            ),
            Self::OtherLinkType { pf, has, wanted } => write!(
                f,
                "linkType has no effect: PF {pf} is {has}, and only its firmware can make it {wanted}"
            ),
            Self::NoIommu { pf } => write!(
                f,
                "PF {pf} has no IOMMU group, so no VF of it will bind to vfio-pci: switch the IOMMU \
                 on in the firmware, and on Intel start the kernel with intel_iommu=on"
            ),
        }
    }
}

/// Writes `rack.yaml:3: `, or nothing for a policy that was not read from a file.
pub(super) struct Place<'a>(pub(super) &'a Origin);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.file.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.0)
        }
    }
}
