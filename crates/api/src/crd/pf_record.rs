//! What upstream keeps of each PF that it configured: `/etc/sriov-operator/pci/<address>`.
//!
//! The file is one entry of `spec.interfaces` as compact JSON, and its presence is the proof that
//! the operator made the PF's VFs: a PF without one is never reset. virtfn reads and writes the same
//! files, so that either can take over from the other.
//!
//! Only what decides about a reset must be readable. A group with a range that means nothing does
//! not make the record worthless; another PF's address does.

use model::{EswitchMode, Mtu, PciAddress, PfDesired};

use super::node_state::Interface;

/// What is recorded of one PF.
#[derive(Clone, Debug, PartialEq)]
pub struct PfRecord {
    /// The PF.
    pub pf: PciAddress,
    /// What it was given.
    pub interface: Interface,
}

/// A record that cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum ParsePfRecordError {
    /// It is empty: upstream does not write it in one piece, and was killed meanwhile.
    #[error("the file is empty")]
    Empty,
    /// It is not JSON of an interface.
    #[error("the file is not what the operator writes")]
    NotAnInterface(#[source] serde_json::Error),
    /// It is about another PF.
    #[error("the file is about {:?}", found)]
    OtherPf {
        /// The address in it, cut to a bounded length.
        found: String,
    },
}

impl PfRecord {
    /// Reads the file that is named for `pf`.
    pub fn parse(pf: PciAddress, bytes: &[u8]) -> Result<Self, ParsePfRecordError> {
        if bytes.trim_ascii().is_empty() {
            return Err(ParsePfRecordError::Empty);
        }
        let interface: Interface =
            serde_json::from_slice(bytes).map_err(ParsePfRecordError::NotAnInterface)?;
        if interface.pci_address.parse() == Ok(pf) {
            Ok(Self { pf, interface })
        } else {
            Err(ParsePfRecordError::OtherPf {
                found: super::schema::shorten(&interface.pci_address),
            })
        }
    }

    /// Writes the file's content, as Go does: one line, what is zero left out, no line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A struct of texts, numbers and lists always has a JSON form.
        serde_json::to_string(&self.interface).unwrap_or_default()
    }

    /// Is the PF somebody else's, and only its VFs were configured?
    #[must_use]
    pub fn is_externally_managed(&self) -> bool {
        self.interface.externally_managed == Some(true)
    }

    /// Returns the MTU that the PF was given; `None` when it was left alone.
    #[must_use]
    pub fn mtu(&self) -> Option<Mtu> {
        u32::try_from(self.interface.mtu?).ok().and_then(Mtu::new)
    }

    /// Returns the eswitch mode that the PF was given; `None` stands for legacy.
    #[must_use]
    pub fn eswitch(&self) -> Option<EswitchMode> {
        self.interface.eswitch_mode.as_ref()?.parse().ok()
    }
}

impl From<&PfDesired> for PfRecord {
    fn from(pf: &PfDesired) -> Self {
        Self {
            pf: pf.pf,
            interface: Interface::from(pf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = r#"{"pciAddress":"0000:3b:00.0","numVfs":8,"mtu":9000,"name":"ens1f0","vfGroups":[{"resourceName":"fast","deviceType":"vfio-pci","vfRange":"0-7","policyName":"p1"}]}"#;

    fn pf() -> PciAddress {
        "0000:3b:00.0".parse().unwrap()
    }

    #[test]
    fn upstreams_file_is_written_back_byte_for_byte() {
        let record = PfRecord::parse(pf(), UPSTREAM.as_bytes()).unwrap();
        assert_eq!(record.to_json(), UPSTREAM);
        assert_eq!(record.mtu(), Mtu::new(9000));
        assert!(!record.is_externally_managed());
        let wanted = PfDesired::try_from(&record.interface).unwrap();
        assert_eq!(PfRecord::from(&wanted).to_json(), UPSTREAM);
    }

    #[test]
    fn a_field_of_a_later_upstream_does_not_make_a_record_worthless() {
        let text = r#"{"pciAddress":"0000:3b:00.0","newThing":{"a":1},"eSwitchMode":"switchdev",
            "externallyManaged":true,"vfGroups":[{"vfRange":"x"}]}"#;
        let record = PfRecord::parse(pf(), text.as_bytes()).unwrap();
        assert!(record.is_externally_managed());
        assert_eq!(record.eswitch(), Some(EswitchMode::Switchdev));
    }

    #[test]
    fn damaged_records_are_told_apart() {
        let error = |bytes: &[u8]| PfRecord::parse(pf(), bytes).unwrap_err();
        assert!(matches!(error(b""), ParsePfRecordError::Empty));
        assert!(matches!(
            error(b"\0\0\n"),
            ParsePfRecordError::NotAnInterface(_)
        ));
        assert!(matches!(
            error(&UPSTREAM.as_bytes()[..40]),
            ParsePfRecordError::NotAnInterface(_)
        ));
        assert!(matches!(
            error(br#"{"pciAddress":"0000:3b:00.1"}"#),
            ParsePfRecordError::OtherPf { .. }
        ));
    }
}
