//! Whether a host can have what is wanted of it at all, as far as is seen before the first step.
//!
//! [`resolve`](crate::resolve) says the same of policies, naming the policy; this is for what comes
//! resolved already, a `SriovNetworkNodeState`, and for what depends on all policies together: the
//! eswitch mode of a PF that somebody else looks after.

use crate::vendor::mellanox;
use model::{
    Code, Desired, EswitchMode, Explain, Function, Inventory, Mtu, PciAddress, PfDesired, VfDriver,
    VfGroup,
};

/// Something wanted of a PF that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PF {title}: {problem}")]
pub struct Misfit {
    /// The PF.
    pub pf: PciAddress,
    /// The PF as people look for it.
    pub title: String,
    /// What it cannot have.
    pub problem: MisfitProblem,
}

/// What a PF cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MisfitProblem {
    /// There is no such function.
    #[error("there is no such device")]
    NotSeen,
    /// The function cannot have VFs.
    #[error("the device has no SR-IOV")]
    NoSriov,
    /// More VFs than the device offers.
    #[error("{wanted} VFs are wanted, and the device offers {offered}")]
    TooManyVfs {
        /// How many are wanted.
        wanted: u16,
        /// How many it offers.
        offered: u16,
    },
    /// A larger MTU than the driver takes.
    #[error("mtu {wanted} is wanted, and its driver takes at most {most}")]
    MtuTooLarge {
        /// What is wanted.
        wanted: Mtu,
        /// The most that it takes.
        most: u32,
    },
    /// vDPA devices where there can be none.
    #[error("VFs {range} are wanted with vDPA devices, and {why}")]
    NoVdpa {
        /// The VFs.
        range: model::VfRange,
        /// Why there can be none.
        why: NoVdpa,
    },
    /// More VFs than somebody else made.
    #[error("{wanted} VFs made by somebody else are wanted, and there are {made}")]
    NotThatManyMade {
        /// How many are wanted.
        wanted: u16,
        /// How many there are.
        made: u16,
    },
    /// A larger MTU than somebody else set.
    #[error("mtu {wanted} set by somebody else is wanted, and it has {has}")]
    MtuNotSet {
        /// What is wanted.
        wanted: Mtu,
        /// What it has.
        has: u32,
    },
    /// Another eswitch mode than somebody else set.
    #[error("eswitch mode {wanted} set by somebody else is wanted, and it has {has}")]
    EswitchNotSet {
        /// What is wanted.
        wanted: EswitchMode,
        /// What it has.
        has: EswitchMode,
    },
}

/// Why VFs cannot have vDPA devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVdpa {
    /// The PF is wanted in legacy mode.
    #[error("the PF is wanted in legacy mode")]
    Legacy,
    /// The VFs are wanted on another driver than the kernel's own.
    #[error("their driver is not the kernel's own")]
    Driver,
}

impl NoVdpa {
    /// Says what the user can do.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Legacy => "set eSwitchMode to switchdev, or leave out vdpaType",
            Self::Driver => "set deviceType to netdevice, or leave out vdpaType",
        }
    }
}

/// Returns why VFs that are wanted with vDPA devices cannot have them.
pub(crate) fn why_no_vdpa(wanted: &PfDesired, group: &VfGroup) -> Option<NoVdpa> {
    group.vdpa?;
    if group.driver != VfDriver::Kernel {
        Some(NoVdpa::Driver)
    } else if wanted.eswitch != Some(EswitchMode::Switchdev) {
        Some(NoVdpa::Legacy)
    } else {
        None
    }
}

impl Explain for Misfit {
    fn code(&self) -> Code {
        Code::new(match self.problem {
            MisfitProblem::NotSeen => "no-such-pf",
            MisfitProblem::NoSriov => "no-sriov",
            MisfitProblem::TooManyVfs { .. } => "too-many-vfs",
            MisfitProblem::MtuTooLarge { .. } => "mtu-too-large",
            MisfitProblem::NoVdpa { .. } => "no-vdpa",
            MisfitProblem::NotThatManyMade { .. }
            | MisfitProblem::MtuNotSet { .. }
            | MisfitProblem::EswitchNotSet { .. } => "externally-managed",
        })
    }

    fn remedy(&self) -> Option<String> {
        Some(match &self.problem {
            MisfitProblem::NotSeen | MisfitProblem::NoSriov => {
                "name a PF of this host (`virtfn list pf`)".to_owned()
            }
            MisfitProblem::TooManyVfs { offered: 0, .. } => {
                "switch SR-IOV on in the device's firmware".to_owned()
            }
            MisfitProblem::TooManyVfs { offered, .. } => format!("set numVfs to {offered} or less"),
            MisfitProblem::MtuTooLarge { most, .. } => format!("set mtu to {most} or less"),
            MisfitProblem::NoVdpa { why, .. } => why.remedy().to_owned(),
            MisfitProblem::NotThatManyMade { made, .. } => make_more_vfs(*made),
            MisfitProblem::MtuNotSet { has, .. } => format!(
                "raise the MTU where the PF is managed, set mtu to {has} or less, or leave out \
                 externallyManaged"
            ),
            MisfitProblem::EswitchNotSet { has, .. } => format!(
                "set the mode where the PF is managed, set eSwitchMode to {has}, or leave out \
                 externallyManaged"
            ),
        })
    }
}

/// Says what to do when somebody else made fewer VFs than are asked for.
pub(crate) fn make_more_vfs(made: u16) -> String {
    let fewer = match made {
        0 => String::new(),
        made => format!(" set numVfs to {made} or less,"),
    };
    format!("make more VFs where the PF is managed,{fewer} or leave out externallyManaged")
}

/// Returns the largest MTU that is wanted of a PF or its VFs, and the most that the PF's driver takes,
/// when that is less. It is known before the first step, which may destroy VFs.
pub(crate) fn mtu_too_large(pf: &Function, wanted: &PfDesired) -> Option<(Mtu, u32)> {
    let most = pf.netdev()?.max_mtu?;
    let of_vfs = wanted.groups.iter().filter_map(|group| group.mtu);
    let largest = of_vfs.chain(wanted.mtu).max()?;
    (largest.get() > most).then_some((largest, most))
}

/// Returns what is wanted and cannot be had, by PF.
#[must_use]
pub fn misfits(seen: &Inventory, wanted: &Desired) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    for wanted in wanted.pfs.values() {
        let pf = seen.get(wanted.pf);
        let title = pf.map_or_else(|| wanted.pf.to_string(), Function::title);
        misfits.extend(problems(pf, wanted).into_iter().map(|problem| Misfit {
            pf: wanted.pf,
            title: title.clone(),
            problem,
        }));
    }
    misfits
}

fn problems(pf: Option<&Function>, wanted: &PfDesired) -> Vec<MisfitProblem> {
    let Some(pf) = pf else {
        return vec![MisfitProblem::NotSeen];
    };
    let Some(facts) = pf.pf() else {
        return vec![MisfitProblem::NoSriov];
    };
    let mut problems = Vec::new();
    for group in &wanted.groups {
        if let Some(why) = why_no_vdpa(wanted, group) {
            let range = group.range;
            problems.push(MisfitProblem::NoVdpa { range, why });
        }
    }
    if !wanted.externally_managed {
        if wanted.num_vfs > facts.total_vfs && !mellanox::can_offer_more(pf.id) {
            problems.push(MisfitProblem::TooManyVfs {
                wanted: wanted.num_vfs,
                offered: facts.total_vfs,
            });
        }
        if let Some((wanted, most)) = mtu_too_large(pf, wanted) {
            problems.push(MisfitProblem::MtuTooLarge { wanted, most });
        }
        return problems;
    }
    if wanted.num_vfs > facts.num_vfs {
        problems.push(MisfitProblem::NotThatManyMade {
            wanted: wanted.num_vfs,
            made: facts.num_vfs,
        });
    }
    if let (Some(mtu), Some(netdev)) = (wanted.mtu, pf.netdev())
        && mtu.get() > netdev.mtu
    {
        problems.push(MisfitProblem::MtuNotSet {
            wanted: mtu,
            has: netdev.mtu,
        });
    }
    let mode = wanted.eswitch.unwrap_or(EswitchMode::Legacy);
    let has = facts.eswitch.unwrap_or(EswitchMode::Legacy);
    if mode != has {
        problems.push(MisfitProblem::EswitchNotSet { wanted: mode, has });
    }
    problems
}

#[cfg(test)]
mod tests {
    use fixtures::{igb, inventory, mlx5};

    use super::*;
    use crate::testing::wanted_pf;

    fn told(seen: &Inventory, wanted: PfDesired) -> String {
        let desired = Desired {
            pfs: [(wanted.pf, wanted)].into(),
            ..Desired::default()
        };
        let misfits = misfits(seen, &desired);
        let lines = misfits.iter().map(|misfit| {
            format!(
                "error[{}]: {misfit}\n  {}",
                misfit.code(),
                misfit.remedy().unwrap()
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_somebody_else_set_must_be_enough() {
        let seen = inventory([mlx5("0000:3b:00.0", "ens1").with_vfs(4)]);
        let fine = PfDesired {
            externally_managed: true,
            mtu: Mtu::new(1500),
            ..wanted_pf("0000:3b:00.0", 4)
        };
        assert_eq!(told(&seen, fine.clone()), "");
        let wrong = PfDesired {
            num_vfs: 5,
            mtu: Mtu::new(9000),
            eswitch: Some(EswitchMode::Switchdev),
            ..fine
        };
        insta::assert_snapshot!(told(&seen, wrong), @r"
        error[externally-managed]: PF ens1 (0000:3b:00.0): 5 VFs made by somebody else are wanted, and there are 4
          make more VFs where the PF is managed, set numVfs to 4 or less, or leave out externallyManaged
        error[externally-managed]: PF ens1 (0000:3b:00.0): mtu 9000 set by somebody else is wanted, and it has 1500
          raise the MTU where the PF is managed, set mtu to 1500 or less, or leave out externallyManaged
        error[externally-managed]: PF ens1 (0000:3b:00.0): eswitch mode switchdev set by somebody else is wanted, and it has legacy
          set the mode where the PF is managed, set eSwitchMode to legacy, or leave out externallyManaged
        ");
    }

    #[test]
    fn a_driver_without_an_eswitch_is_in_legacy_mode() {
        let seen = inventory([igb("0000:01:00.0", "ens1").with_vfs(2)]);
        let legacy = PfDesired {
            externally_managed: true,
            eswitch: Some(EswitchMode::Legacy),
            ..wanted_pf("0000:01:00.0", 2)
        };
        assert_eq!(told(&seen, legacy), "");
    }

    #[test]
    fn what_the_host_does_not_have_is_said() {
        let ens1 = igb("0000:01:00.0", "ens1").netdev(|netdev| netdev.max_mtu = Some(9216));
        let seen = inventory([ens1]);
        insta::assert_snapshot!(told(&seen, wanted_pf("0000:09:00.0", 1)), @r"
        error[no-such-pf]: PF 0000:09:00.0: there is no such device
          name a PF of this host (`virtfn list pf`)
        ");
        insta::assert_snapshot!(told(&seen, wanted_pf("0000:01:00.0", 8)), @r"
        error[too-many-vfs]: PF ens1 (0000:01:00.0): 8 VFs are wanted, and the device offers 7
          set numVfs to 7 or less
        ");
        let with_mtu = |bytes| PfDesired {
            mtu: Mtu::new(bytes),
            ..wanted_pf("0000:01:00.0", 7)
        };
        insta::assert_snapshot!(told(&seen, with_mtu(9217)), @r"
        error[mtu-too-large]: PF ens1 (0000:01:00.0): mtu 9217 is wanted, and its driver takes at most 9216
          set mtu to 9216 or less
        ");
        assert_eq!(told(&seen, with_mtu(9216)), "");
    }
}
