use fixtures::{FakeHost, igb, inventory, mlx5, parsed};
use model::{Host, PfDesired, VfDriver, VfGroup, VfRange};

use super::*;
use crate::kernel::{CpuMaker, IommuTables, ModuleState};
use crate::testing::{perform, wanted_pf};
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

/// A PF that has 2 VFs, and had no memory space for 4.
fn starved(command_line: &str) -> (Inventory, Circumstances) {
    let seen = inventory([igb(PF, "ens1").with_vfs(2), igb("0000:5e:00.0", "ens2")]);
    let facts = KernelFacts {
        iommus: 1,
        iommu_groups: 9,
        bypassed: Some(true),
        command_line: command_line.split(' ').map(str::to_owned).collect(),
        ..intel_without_iommu()
    };
    let known = Circumstances {
        kernel: Some(facts),
        starved: [(parsed(PF), 4)].into(),
        ..Circumstances::default()
    };
    (seen, known)
}

#[test]
fn vfs_that_the_kernel_had_no_space_for_wait_for_a_reboot_and_those_there_are_stay() {
    let (seen, known) = starved("quiet");
    let other = on_vfio(wanted_pf("0000:5e:00.0", 1));
    let wanted = |count| Desired {
        pfs: [on_vfio(wanted_pf(PF, count)), other.clone()]
            .map(|pf| (pf.pf, pf))
            .into(),
        ..Desired::default()
    };
    let decision = decide(&seen, &wanted(4), &known);
    insta::assert_snapshot!(render_decision(&decision));
    let waits = |pf: &PfPlan| pf.steps.iter().all(|step| step.price.reboot.is_some());
    let [starved, other] = decision.plan.pfs.as_slice() else {
        panic!("{:#?}", decision.plan)
    };
    assert!(waits(starved), "VFs are removed for nothing");
    assert!(!other.steps.iter().any(|step| step.price.reboot.is_some()));
    // Fewer than there was no space for may do, and so may as many once they are there.
    for (count, has) in [(3, 2), (4, 4)] {
        let seen = inventory([igb(PF, "ens1").with_vfs(has)]);
        let wanted = desired(wanted_pf(PF, count));
        assert_eq!(decide(&seen, &wanted, &known).reboots(), [], "{count}");
    }
}

#[test]
fn vfs_without_space_are_tried_again_when_no_argument_would_help() {
    let (seen, known) = starved("quiet pci=realloc");
    let decision = decide(&seen, &desired(wanted_pf(PF, 4)), &known);
    assert_eq!(decision.reboots(), []);
    assert_eq!(decision.kernel.obstacles.len(), 1);
    let mut steps = decision.plan.steps();
    assert!(steps.all(|step| step.price.reboot.is_none()));
}

/// Performs a plan up to each of its steps, then what is decided then: in the end each VF has its driver,
/// and new ones get theirs by themselves.
#[track_caller]
fn check_stops(fresh: &FakeHost, wanted: &Desired, drivers: &[&str]) {
    let owned = Owned {
        original: Original::of(fresh.inventory().get(parsed(PF)).unwrap()),
        ..Owned::default()
    };
    let known = Circumstances {
        owned: [(parsed(PF), owned)].into(),
        ..Circumstances::default()
    };
    let first = decide(&fresh.inventory(), wanted, &known).plan;
    for stopped_at in 0..=first.steps().count() {
        let mut host = fresh.clone();
        for planned in first.steps().take(stopped_at) {
            host.perform(&planned.step).unwrap();
        }
        // A plan that is cut goes on in another one.
        for _round in 0..2 {
            let rest = decide(&host.inventory(), wanted, &known).plan;
            perform(&mut host, &rest);
        }
        let seen = host.inventory();
        let has = |vf: &Function| {
            vf.driver
                .as_ref()
                .map_or("none".to_owned(), ToString::to_string)
        };
        let found: Vec<_> = seen.vfs().map(|(vf, _)| has(vf)).collect();
        assert_eq!(found, drivers, "{stopped_at}");
        let pf = seen.get(parsed(PF)).unwrap().pf().unwrap();
        assert_eq!(pf.autoprobe, Some(true), "{stopped_at}");
        let left = decide(&seen, wanted, &known);
        assert!(left.is_empty(), "{stopped_at}: {}", render_decision(&left));
    }
}

#[test]
fn stopped_while_vfs_are_bound_one_by_one_each_gets_its_driver_in_the_end() {
    // VF 0 is for vfio-pci, VF 1 is to have its kernel driver, VF 2 is of no policy.
    let group = |at, driver| VfGroup {
        range: VfRange::new(at, at).unwrap(),
        driver,
        ..on_vfio(wanted_pf(PF, 1)).groups[0].clone()
    };
    let wanted = |eswitch| {
        desired(PfDesired {
            groups: vec![
                group(0, VfDriver::Named(parsed("vfio-pci"))),
                group(1, VfDriver::Kernel),
            ],
            eswitch,
            ..wanted_pf(PF, 3)
        })
    };
    let fresh = FakeHost::new(inventory([igb(PF, "ens1")]));
    check_stops(&fresh, &wanted(None), &["vfio-pci", "igbvf", "igbvf"]);
    let fresh = FakeHost::new(inventory([mlx5(PF, "ens1")]));
    let switchdev = wanted(Some(model::EswitchMode::Switchdev));
    check_stops(&fresh, &switchdev, &["vfio-pci", "mlx5_core", "mlx5_core"]);
}
