//! Which VF the user means: a PCI address, a PF and an index, or the name of a netdev.

use std::fmt;

use model::{Code, Explain, Function, Inventory, PciAddress, VfIndex};

/// A VF as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VfName {
    /// `0000:3b:10.1`.
    Address(PciAddress),
    /// `ens1f0#3` or `ens1f0:3`; the PF may be an address too.
    OfPf {
        /// The PF.
        pf: String,
        /// The index.
        index: VfIndex,
    },
    /// `ens1f0v3`.
    Netdev(String),
}

impl VfName {
    /// Reads what the user typed; every text names something, which may not exist.
    #[must_use]
    pub(crate) fn read(text: &str) -> Self {
        if let Ok(address) = text.parse() {
            return Self::Address(address);
        }
        let split = text.rsplit_once('#').or_else(|| text.rsplit_once(':'));
        if let Some((pf, digits)) = split
            && digits.bytes().all(|b| b.is_ascii_digit())
            && let Ok(index) = digits.parse()
        {
            return Self::OfPf {
                pf: pf.to_owned(),
                index: VfIndex(index),
            };
        }
        Self::Netdev(text.to_owned())
    }

    /// Finds the VF.
    pub(crate) fn find<'a>(&self, inventory: &'a Inventory) -> Result<&'a Function, VfNameError> {
        match self {
            Self::Address(address) => vf_at(inventory, *address),
            Self::OfPf { pf, index } => vf_of(inventory, pf, *index),
            Self::Netdev(name) => vf_called(inventory, name),
        }
    }
}

impl fmt::Display for VfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::OfPf { pf, index } => write!(f, "{pf}#{}", index.0),
            Self::Netdev(name) => f.pad(name),
        }
    }
}

/// No VF, or no single VF, is what the user named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VfNameError {
    /// No PCI function has the address, or none that matters.
    #[error("no VF at {address}")]
    NoFunction {
        /// The address.
        address: PciAddress,
    },
    /// The function is no VF.
    #[error("{title} is not a VF")]
    NotVf {
        /// The function.
        title: String,
        /// Is it a PF?
        is_pf: bool,
    },
    /// No PF is called so.
    #[error("no PF {name:?}")]
    NoPf {
        /// The name.
        name: String,
        /// The PFs that there are.
        known: Vec<String>,
    },
    /// The PF has no such VF.
    #[error("no VF {name}#{}", .index.0)]
    NoIndex {
        /// The PF, as the user named it.
        name: String,
        /// The PF.
        pf: String,
        /// The index.
        index: VfIndex,
        /// VFs that it has.
        num_vfs: u16,
        /// Most that it can have.
        total_vfs: u16,
    },
    /// No VF has a netdev of the name.
    #[error("no VF has a netdev {name:?}")]
    NoNetdev {
        /// The name.
        name: String,
    },
    /// Several VFs have netdevs of the name, in different namespaces.
    #[error("netdevs of several VFs are called {name:?}: {}", join(.vfs))]
    Ambiguous {
        /// The name.
        name: String,
        /// The VFs.
        vfs: Vec<PciAddress>,
    },
}

impl Explain for VfNameError {
    fn code(&self) -> Code {
        Code::new(match self {
            Self::NoFunction { .. } | Self::NoIndex { .. } | Self::NoNetdev { .. } => "no-such-vf",
            Self::NotVf { .. } => "not-a-vf",
            Self::NoPf { .. } => "no-such-pf",
            Self::Ambiguous { .. } => "ambiguous-vf",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::NoPf { known, .. } if known.is_empty() => {
                "this host has no PF; see `virtfn list`".to_owned()
            }
            Self::NoPf { known, .. } => format!("the PFs are {}", known.join(", ")),
            Self::NoIndex {
                pf,
                num_vfs: 0,
                total_vfs,
                ..
            } => format!(
                "{pf} has no VFs yet and can have {total_vfs}; create them with `virtfn apply`"
            ),
            Self::NoIndex { pf, num_vfs, .. } => {
                let last = num_vfs.saturating_sub(1);
                format!("{pf} has vf 0 to vf {last}; see `virtfn list vf`")
            }
            Self::NotVf { is_pf: true, .. } => {
                "name one of its VFs, such as PF#0; see `virtfn list vf`".to_owned()
            }
            Self::Ambiguous { .. } => "name it by its PCI address".to_owned(),
            Self::NoFunction { .. } | Self::NotVf { .. } | Self::NoNetdev { .. } => {
                "`virtfn list vf` shows the VFs of this host".to_owned()
            }
        })
    }
}

fn join(addresses: &[PciAddress]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn vf_at(inventory: &Inventory, address: PciAddress) -> Result<&Function, VfNameError> {
    let function = inventory
        .get(address)
        .ok_or(VfNameError::NoFunction { address })?;
    if function.vf().is_some() {
        Ok(function)
    } else {
        Err(VfNameError::NotVf {
            title: function.title(),
            is_pf: function.pf().is_some(),
        })
    }
}

fn vf_of<'a>(
    inventory: &'a Inventory,
    name: &str,
    index: VfIndex,
) -> Result<&'a Function, VfNameError> {
    let by_address = || inventory.get(name.parse().ok()?);
    let found = inventory.pf_named(name).or_else(by_address);
    let Some((pf, facts)) = found.and_then(|pf| Some((pf, pf.pf()?))) else {
        return Err(VfNameError::NoPf {
            name: name.to_owned(),
            known: inventory.pfs().map(|(pf, _)| short(pf)).collect(),
        });
    };
    inventory
        .vf_of(pf.address, index)
        .ok_or_else(|| VfNameError::NoIndex {
            name: name.to_owned(),
            pf: pf.title(),
            index,
            num_vfs: facts.num_vfs,
            total_vfs: facts.total_vfs,
        })
}

fn vf_called<'a>(inventory: &'a Inventory, name: &str) -> Result<&'a Function, VfNameError> {
    let mut matches = inventory
        .vfs()
        .map(|(vf, _)| vf)
        .filter(|vf| vf.netdev().is_some_and(|netdev| netdev.is_called(name)));
    match (matches.next(), matches.next()) {
        (Some(vf), None) => Ok(vf),
        (Some(first), Some(second)) => Err(VfNameError::Ambiguous {
            name: name.to_owned(),
            vfs: [first, second]
                .into_iter()
                .chain(matches)
                .map(|vf| vf.address)
                .collect(),
        }),
        (None, _) => Err(match inventory.pf_named(name) {
            Some(pf) => VfNameError::NotVf {
                title: pf.title(),
                is_pf: true,
            },
            None => VfNameError::NoNetdev {
                name: name.to_owned(),
            },
        }),
    }
}

fn short(pf: &Function) -> String {
    pf.netdev_name()
        .map_or_else(|| pf.address.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_vf_is_named_in_three_ways() {
        let host = testing::inventory();
        for (text, address) in [
            ("0000:3b:10.0", "0000:3b:10.0"),
            ("ens1f0#1", "0000:3b:10.1"),
            ("ens1f0:1", "0000:3b:10.1"),
            ("uplink-a#1", "0000:3b:10.1"),
            ("0000:3b:00.0#1", "0000:3b:10.1"),
            ("0000:3b:00.0:1", "0000:3b:10.1"),
            ("ens1f0v1", "0000:3b:10.1"),
        ] {
            let vf = VfName::read(text).find(&host);
            assert_eq!(vf.unwrap().address.to_string(), address, "{text}");
        }
    }

    #[test]
    fn a_wrong_name_says_what_there_is() {
        let host = testing::inventory();
        let all: String = [
            "0000:ff:00.0",
            "0000:3b:00.0",
            "ens1f0",
            "ens1f0#63",
            "ens1f1#0",
            "eth9#0",
            "net9",
            "",
            "ens1f0#70000",
        ]
        .iter()
        .map(|text| {
            let error = VfName::read(text).find(&host).unwrap_err();
            format!(
                "{text:?}: [{}] {error}; {}\n",
                error.code(),
                error.remedy().unwrap()
            )
        })
        .collect();
        insta::assert_snapshot!(all);
    }
}
