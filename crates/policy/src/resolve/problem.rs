//! What policies ask for and this host cannot have.

use std::fmt;

use model::{Code, DriverName, Explain, Mtu, NodePolicy, Origin};

use super::note::Place;
use crate::fit::{NoVdpa, make_more_vfs};

/// Policies ask for something that this host cannot have. The text has one line a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// The problems, in the order of the policies; never empty.
    pub problems: Vec<ResolveProblem>,
}

/// One thing that a policy asks for and this host cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveProblem {
    /// Name of the policy.
    pub policy: String,
    /// Where it was read.
    pub origin: Origin,
    /// What.
    pub trouble: Trouble,
}

/// What cannot be. PFs are named as [`model::Function::title`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Two policies have one name.
    NameTwice {
        /// Where the one that counts was read.
        other: Origin,
    },
    /// No PF has the name or the address.
    NoSuchPf {
        /// The name or the address.
        name: String,
        /// The PFs that there are.
        has: Vec<String>,
    },
    /// What has the name or the address is not a PF that policies are for.
    NotUsable {
        /// The function.
        pf: String,
        /// Why not.
        why: String,
    },
    /// The PF is named, but does not meet another criterion of the policy, which selects nothing.
    NotSelected {
        /// The PF.
        pf: String,
        /// The criterion, and what the PF has instead.
        unmet: String,
    },
    /// More VFs than the device offers.
    TooManyVfs {
        /// The PF.
        pf: String,
        /// How many are asked for.
        asked: u16,
        /// How many the device offers.
        total: u16,
    },
    /// A larger MTU than the PF's driver takes.
    MtuTooLarge {
        /// The PF.
        pf: String,
        /// The MTU that is asked for.
        asked: Mtu,
        /// The most that it takes, in bytes.
        most: u32,
    },
    /// The PF's driver has no eswitch that could be switched.
    NoSwitchdev {
        /// The PF.
        pf: String,
        /// Its driver.
        driver: Option<DriverName>,
    },
    /// vDPA devices are asked for where there can be none.
    NoVdpa {
        /// The PF.
        pf: String,
        /// The policy that asks for them; another one may have decided about the PF.
        asker: String,
        /// Why there can be none.
        why: NoVdpa,
    },
    /// The PF is managed by somebody else, who made fewer VFs.
    NotThatManyMade {
        /// The PF.
        pf: String,
        /// How many are asked for.
        asked: u16,
        /// How many there are.
        made: u16,
    },
    /// The PF is managed by somebody else, who gave it a smaller MTU.
    MtuNotOurs {
        /// The PF.
        pf: String,
        /// The MTU that is asked for.
        asked: Mtu,
        /// The MTU that it has, in bytes.
        has: u32,
    },
}

impl ResolveProblem {
    pub(super) fn new(policy: &NodePolicy, trouble: Trouble) -> Self {
        Self {
            policy: policy.name.clone(),
            origin: policy.origin.clone(),
            trouble,
        }
    }
}

impl std::error::Error for ResolveError {}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Explain for ResolveError {
    fn code(&self) -> Code {
        match self.problems.as_slice() {
            [only] => only.code(),
            _ => Code::new("policies-impossible"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self.problems.as_slice() {
            [only] => only.remedy(),
            many => {
                let mut lines: Vec<String> = many
                    .iter()
                    .filter_map(|p| Some(format!("policy {}: {}", p.policy, p.remedy()?)))
                    .collect();
                // Of a policy for many PFs, one way out may be that of all.
                lines.dedup();
                (!lines.is_empty()).then(|| lines.join("\n"))
            }
        }
    }
}

impl std::error::Error for ResolveProblem {}

impl fmt::Display for ResolveProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Place(&self.origin))?;
        let policy = &self.policy;
        match &self.trouble {
            Trouble::NameTwice { other } => {
                write!(
                    f,
                    "policy {policy}: the name is that of the policy in {other} too"
                )
            }
            Trouble::NoSuchPf { name, .. } => {
                write!(
                    f,
                    "PF {name}: policy {policy} names it, and this host has no such PF"
                )
            }
            Trouble::NotUsable { pf, why } => {
                write!(f, "PF {pf}: policy {policy} names it, but {why}")
            }
            Trouble::NotSelected { pf, unmet } => {
                write!(f, "PF {pf}: policy {policy} names it, but asks for {unmet}")
            }
            Trouble::TooManyVfs { pf, asked, total } => write!(
                f,
                "PF {pf}: policy {policy} asks for {asked} VFs, the device offers {total}"
            ),
            Trouble::MtuTooLarge { pf, asked, most } => write!(
                f,
                "PF {pf}: policy {policy} asks for mtu {asked}, and its driver takes at most {most}"
            ),
            Trouble::NoSwitchdev { pf, driver } => {
                write!(
                    f,
                    "PF {pf}: policy {policy} asks for eSwitchMode switchdev, which "
                )?;
                match driver {
                    Some(driver) => write!(f, "driver {driver} does not have"),
                    None => f.write_str("the PF does not have"),
                }
            }
            Trouble::NoVdpa { pf, asker, why } => {
                write!(
                    f,
                    "PF {pf}: policy {asker} asks for vDPA devices, and {why}"
                )?;
                if asker == policy {
                    Ok(())
                } else {
                    write!(f, " as policy {policy} decides")
                }
            }
            Trouble::NotThatManyMade { pf, asked, made } => write!(
                f,
                "PF {pf}: policy {policy} asks for {asked} VFs made by somebody else, and there are \
                 {made}"
            ),
            Trouble::MtuNotOurs { pf, asked, has } => write!(
                f,
                "PF {pf}: policy {policy} asks for mtu {asked} of a PF that somebody else looks \
                 after, and it has {has}"
            ),
        }
    }
}

impl Explain for ResolveProblem {
    fn code(&self) -> Code {
        Code::new(match &self.trouble {
            Trouble::NameTwice { .. } => "policy-name-twice",
            Trouble::NoSuchPf { .. } => "no-such-pf",
            Trouble::NotUsable { .. } => "pf-not-usable",
            Trouble::NotSelected { .. } => "pf-not-selected",
            Trouble::TooManyVfs { .. } => "too-many-vfs",
            Trouble::MtuTooLarge { .. } => "mtu-too-large",
            Trouble::NoSwitchdev { .. } => "no-switchdev",
            Trouble::NoVdpa { .. } => "no-vdpa",
            Trouble::NotThatManyMade { .. } | Trouble::MtuNotOurs { .. } => "externally-managed",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match &self.trouble {
            Trouble::NameTwice { .. } => "give each policy its own metadata.name".to_owned(),
            Trouble::NoSuchPf { has, .. } if has.is_empty() => {
                "this host has no PF at all; `virtfn list` shows what it has".to_owned()
            }
            Trouble::NoSuchPf { has, .. } => {
                format!("name one of this host's PFs: {}", has.join(", "))
            }
            Trouble::NotUsable { .. } => {
                "name another PF (`virtfn list pf` shows them all)".to_owned()
            }
            Trouble::NotSelected { .. } => {
                "make the criteria of nicSelector fit one PF, or leave some out".to_owned()
            }
            Trouble::TooManyVfs { total: 0, .. } => {
                "switch SR-IOV on in the device's firmware, then reboot".to_owned()
            }
            Trouble::TooManyVfs { total, .. } => format!("set numVfs to {total} or less"),
            Trouble::MtuTooLarge { most, .. } => format!("set mtu to {most} or less"),
            Trouble::NoSwitchdev { .. } => "leave out eSwitchMode, or set it to legacy".to_owned(),
            Trouble::NoVdpa { why, .. } => why.remedy().to_owned(),
            Trouble::NotThatManyMade { made, .. } => make_more_vfs(*made),
            Trouble::MtuNotOurs { has, .. } => format!(
                "raise the MTU where the PF is managed, set mtu to {has} or less, or leave out \
                 externallyManaged"
            ),
        })
    }
}
