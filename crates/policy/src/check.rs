//! Whether a plan may be performed as it is: nobody's traffic stops unasked.

use std::fmt;

use model::{Code, Explain, Holder, HolderKind, PciAddress, Plan, VfIndex};

/// Refuses a plan that interrupts somebody, unless that is allowed.
pub fn check(plan: &Plan, allow_disrupt: bool) -> Result<(), InUse> {
    if allow_disrupt {
        return Ok(());
    }
    let mut interrupted: Vec<Interrupted> = Vec::new();
    for pf in &plan.pfs {
        for planned in &pf.steps {
            for (vf, holder) in &planned.price.interrupts {
                if interrupted.iter().any(|seen| seen.vf == *vf) {
                    continue;
                }
                interrupted.push(Interrupted {
                    pf: pf
                        .name
                        .as_ref()
                        .map_or_else(|| pf.pf.to_string(), |name| format!("{name} ({})", pf.pf)),
                    vf: *vf,
                    index: pf.vfs.get(vf).copied(),
                    holder: holder.clone(),
                    step: planned.step.to_string(),
                });
            }
        }
    }
    if interrupted.is_empty() {
        Ok(())
    } else {
        Err(InUse { interrupted })
    }
}

/// A plan would interrupt those who hold VFs. The text has one line a VF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The VFs, each with the first step that interrupts it; never empty.
    pub interrupted: Vec<Interrupted>,
}

/// A VF whose holder a plan would interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The PF, as people look for it.
    pub pf: String,
    /// The VF.
    pub vf: PciAddress,
    /// Its number.
    pub index: Option<VfIndex>,
    /// Who holds it.
    pub holder: Holder,
    /// What would be done.
    pub step: String,
}

impl std::error::Error for InUse {}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in self.interrupted.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            let Interrupted {
                pf,
                vf,
                index,
                holder,
                step,
            } = line;
            let index = index.map_or("VF".to_owned(), |index| index.to_string());
            write!(
                f,
                "PF {pf}: {index} ({vf}) is in use by {holder}, and \"{step}\" would interrupt it"
            )?;
        }
        Ok(())
    }
}

impl Explain for InUse {
    fn code(&self) -> Code {
        Code::new("vf-in-use")
    }

    fn remedy(&self) -> Option<String> {
        let Interrupted { vf, holder, .. } = self.interrupted.first()?;
        let how = match (holder.kind, &holder.interface) {
            (HolderKind::Host, Some(netdev)) => {
                format!("take {netdev} out of the host's own network configuration")
            }
            (HolderKind::Host, None) => format!("end the host's use of it ({})", holder.id),
            (HolderKind::Vfio | HolderKind::Device, _) => format!("end {}", holder.id),
            (HolderKind::Namespace, Some(netdev)) => {
                format!("move {netdev} out of namespace {}", holder.id)
            }
            (HolderKind::Attach | HolderKind::Unknown, _) => {
                format!("free it first with `virtfn detach {vf}`")
            }
            _ => format!("end the container that has it ({holder})"),
        };
        Some(format!(
            "{how}, or interrupt its holder with `virtfn apply --disrupt`"
        ))
    }
}

#[cfg(test)]
mod tests {
    use fixtures::{FakeHost, igb, inventory, parsed};

    use super::*;
    use crate::testing::wanted_pf;
    use crate::{plan, render};

    #[test]
    fn a_vf_that_the_host_itself_uses_is_not_removed_unasked() {
        let mut host = FakeHost::new(inventory([igb("0000:01:00.0", "ens1").with_vfs(2)]));
        let bond = Holder {
            kind: HolderKind::Host,
            id: "bond0".to_owned(),
            interface: Some(parsed("ens1v1")),
        };
        host.set_holder(parsed("0000:01:10.2"), Some(bond));
        let wanted = wanted_pf("0000:01:00.0", 4);
        let wanted = model::Desired {
            pfs: [(wanted.pf, wanted)].into(),
            ..model::Desired::default()
        };
        let plan = plan(&host.inventory(), &wanted);
        let price = &plan.pfs[0].steps[0].price;
        assert!(!price.needs_drain(), "no drain takes a bond away");
        assert!(
            render(&plan).contains("interrupts 1 VF in use, which is the host's own"),
            "{}",
            render(&plan)
        );
        let error = check(&plan, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "PF ens1 (0000:01:00.0): vf 1 (0000:01:10.2) is in use by host bond0 as ens1v1, and \"have 0 VFs\" would interrupt it"
        );
        let remedy = error.remedy().unwrap();
        assert!(
            remedy.starts_with("take ens1v1 out of the host's own"),
            "{remedy}"
        );
        assert_eq!(check(&plan, true), Ok(()));
    }

    #[test]
    fn the_way_to_free_a_vf_is_that_of_its_holder() {
        let remedy = |kind, id: &str| {
            let interrupted = Interrupted {
                pf: "ens1 (0000:01:00.0)".to_owned(),
                vf: parsed("0000:01:10.0"),
                index: None,
                holder: Holder {
                    kind,
                    id: id.to_owned(),
                    interface: (kind == HolderKind::Namespace).then(|| parsed("net1")),
                },
                step: "have 0 VFs".to_owned(),
            };
            let error = InUse {
                interrupted: vec![interrupted],
            };
            error.remedy().unwrap()
        };
        let told = [
            (HolderKind::Attach, "/run/netns/blue"),
            (HolderKind::Cni, "pod default/web"),
            (HolderKind::Namespace, "blue"),
            (HolderKind::Vfio, "qemu (pid 7)"),
            (HolderKind::Unknown, "its record is damaged"),
        ]
        .map(|(kind, id)| remedy(kind, id));
        insta::assert_snapshot!(told.join("\n"), @r"
        free it first with `virtfn detach 0000:01:10.0`, or interrupt its holder with `virtfn apply --disrupt`
        end the container that has it (cni pod default/web), or interrupt its holder with `virtfn apply --disrupt`
        move net1 out of namespace blue, or interrupt its holder with `virtfn apply --disrupt`
        end qemu (pid 7), or interrupt its holder with `virtfn apply --disrupt`
        free it first with `virtfn detach 0000:01:10.0`, or interrupt its holder with `virtfn apply --disrupt`
        ");
    }
}
