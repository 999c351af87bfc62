use fixtures::{igb, inventory, mlx5, parsed};
use model::{PfDesired, VfDriver, VfGroup, VfRange};

use super::*;
use crate::kernel::{CpuMaker, IommuTables, ModuleState};
use crate::testing::wanted_pf;
use crate::vendor::mellanox::FirmwareSettings;
use crate::{Original, render_decision};

const PF: &str = "0000:3b:00.0";

fn desired(pf: PfDesired) -> Desired {
    Desired {
        pfs: [(pf.pf, pf)].into(),
        ..Desired::default()
    }
}

fn on_vfio(pf: PfDesired) -> PfDesired {
    let group = VfGroup {
        resource: "r".to_owned(),
        policy: "p".to_owned(),
        range: VfRange::all(pf.num_vfs).unwrap(),
        driver: VfDriver::Named(parsed("vfio-pci")),
        mtu: None,
        is_rdma: false,
        vdpa: None,
    };
    PfDesired {
        groups: vec![group],
        ..pf
    }
}

fn intel_without_iommu() -> KernelFacts {
    KernelFacts {
        cpu: CpuMaker::Intel,
        tables: Some(IommuTables {
            dmar: true,
            ..IommuTables::default()
        }),
        modules: [("vfio-pci".parse().unwrap(), ModuleState::Loaded)].into(),
        ..KernelFacts::default()
    }
}

fn report(num_vfs: u32) -> FirmwareReport {
    let settings = FirmwareSettings {
        num_vfs: Some(num_vfs),
        sriov: Some(true),
        ..FirmwareSettings::default()
    };
    FirmwareReport {
        current: settings.clone(),
        next: settings,
    }
}

#[test]
fn vfio_waits_for_the_iommu_and_the_vfs_do_not() {
    let seen = inventory([igb(PF, "ens1")]);
    let known = Circumstances {
        kernel: Some(intel_without_iommu()),
        ..Circumstances::default()
    };
    let wanted = desired(on_vfio(wanted_pf(PF, 2)));
    let decision = decide(&seen, &wanted, &known);
    insta::assert_snapshot!(render_decision(&decision));
    let again = Circumstances {
        kernel: Some(KernelFacts {
            iommus: 1,
            iommu_groups: 9,
            bypassed: Some(true),
            ..intel_without_iommu()
        }),
        ..Circumstances::default()
    };
    let decision = decide(&seen, &wanted, &again);
    assert!(
        decision
            .plan
            .steps()
            .all(|step| step.price.reboot.is_none())
    );
    assert_eq!(decision.reboots(), []);
}

#[test]
fn firmware_that_offers_too_few_is_changed_first() {
    let seen = inventory([mlx5(PF, "ens1")
        .with_vfs(2)
        .facts(|facts| facts.total_vfs = 4)]);
    let known = |firmware| Circumstances {
        firmware,
        ..Circumstances::default()
    };
    let wanted = desired(wanted_pf(PF, 8));
    let told = known([(parsed(PF), Ok(report(4)))].into());
    let decision = decide(&seen, &wanted, &told);
    insta::assert_snapshot!(render_decision(&decision));
    assert!(!decision.is_empty());
    // What was written waits; it is not written twice.
    let mut written = report(4);
    written.next.num_vfs = Some(8);
    let told = known([(parsed(PF), Ok(written))].into());
    let change = decide(&seen, &wanted, &told).firmware[0].change.clone();
    let change = change.unwrap();
    assert!(change.command().is_none() && change.reboot().is_some());
    let enough = decide(&seen, &desired(wanted_pf(PF, 4)), &Circumstances::default());
    assert_eq!(enough.firmware, []);
}

#[test]
fn a_dpu_in_charge_of_itself_is_an_error_of_its_own() {
    let seen = inventory([mlx5(PF, "ens1").facts(|facts| facts.total_vfs = 0)]);
    let mut report = report(0);
    let cpu = &mut report.current.internal_cpu;
    let word = |word: &str| Some(word.to_owned());
    cpu.model = word("EMBEDDED_CPU");
    cpu.page_supplier = word("ECPF");
    cpu.eswitch_manager = word("ECPF");
    cpu.ib_vport0 = word("ECPF");
    cpu.offload_engine = word("ENABLED");
    let known = Circumstances {
        firmware: [(parsed(PF), Ok(report))].into(),
        ..Circumstances::default()
    };
    let decision = decide(&seen, &desired(wanted_pf(PF, 8)), &known);
    assert!(decision.firmware[0].change.is_err());
}

#[test]
fn pfs_to_configure_and_to_give_back_are_one_plan() {
    let other = "0000:5e:00.0";
    let seen = inventory([igb(PF, "ens1").with_vfs(3), igb(other, "ens2").with_vfs(1)]);
    let owned = Owned {
        original: Original {
            mtu: model::Mtu::new(1500),
            ..Original::default()
        },
        ..Owned::default()
    };
    let known = Circumstances {
        owned: [(parsed(PF), owned), (parsed(other), owned)].into(),
        ..Circumstances::default()
    };
    let decision = decide(&seen, &desired(wanted_pf(other, 2)), &known);
    insta::assert_snapshot!(render_decision(&decision));
    assert_eq!(decision.released, BTreeSet::from([parsed(PF)]));
}

#[test]
fn a_pf_that_no_policy_could_select_now_keeps_its_vfs() {
    let seen = inventory([igb(PF, "ens1")
        .with_vfs(3)
        .function(|function| function.netdevs.clear())]);
    let known = Circumstances {
        owned: [(parsed(PF), Owned::default())].into(),
        ..Circumstances::default()
    };
    let decision = decide(&seen, &Desired::default(), &known);
    assert!(decision.is_empty() && decision.forget.is_empty());
}

#[test]
fn autoprobe_that_a_kill_left_off_is_put_back_and_nobodys_own_choice_is_not() {
    let seen = inventory([igb(PF, "ens1")
        .facts(|facts| facts.autoprobe = Some(false))
        .with_vfs(2)]);
    let with = |autoprobe| Circumstances {
        owned: BTreeMap::from([(
            parsed(PF),
            Owned {
                original: Original {
                    autoprobe,
                    ..Original::default()
                },
                ..Owned::default()
            },
        )]),
        ..Circumstances::default()
    };
    let wanted = desired(wanted_pf(PF, 2));
    let mended = decide(&seen, &wanted, &with(Some(true)));
    insta::assert_snapshot!(render_decision(&mended), @r"
    pf ens1 0000:3b:00.0   traffic kept, no drain
      1-2  vf 0-1: bind to the kernel's driver   was no driver
      3    give drivers to new VFs               was off
    ");
    for original in [Some(false), None] {
        assert!(decide(&seen, &wanted, &with(original)).is_empty());
    }
}
