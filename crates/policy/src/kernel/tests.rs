use model::{Code, Explain, PfDesired, VfGroup, VfRange};
use proptest::prelude::*;

use super::*;

const PF: &str = "0000:3b:00.0";

fn wanted(driver: &str, vdpa: Option<VdpaKind>) -> Desired {
    let pf: PciAddress = PF.parse().unwrap();
    let driver = match driver {
        "netdevice" => VfDriver::Kernel,
        named => VfDriver::Named(named.parse().unwrap()),
    };
    let group = VfGroup {
        resource: "fast".to_owned(),
        policy: "rack-a".to_owned(),
        range: VfRange::all(4).unwrap(),
        driver,
        mtu: None,
        is_rdma: false,
        vdpa,
    };
    let desired = PfDesired {
        pf,
        name: None,
        num_vfs: 4,
        mtu: None,
        link_type: None,
        eswitch: None,
        externally_managed: false,
        groups: vec![group],
    };
    Desired {
        pfs: [(pf, desired)].into(),
        ..Desired::default()
    }
}

fn facts(command_line: &str) -> KernelFacts {
    KernelFacts {
        cpu: CpuMaker::Intel,
        tables: Some(IommuTables {
            dmar: true,
            ..IommuTables::default()
        }),
        command_line: command_line.split(' ').map(str::to_owned).collect(),
        modules: [("vfio_pci".parse().unwrap(), ModuleState::Available)].into(),
        ..KernelFacts::default()
    }
}

fn with_iommu(command_line: &str) -> KernelFacts {
    KernelFacts {
        iommus: 2,
        iommu_groups: 80,
        bypassed: Some(true),
        ..facts(command_line)
    }
}

/// One line for each need, in order.
fn text(needs: &KernelNeeds) -> String {
    let arguments = needs.arguments.iter().map(ToString::to_string);
    let modules = needs.modules.iter().map(|module| format!("load {module}"));
    let obstacles = needs
        .obstacles
        .iter()
        .map(|obstacle| format!("{}: {obstacle}", obstacle.code()));
    let lines: Vec<String> = arguments.chain(modules).chain(obstacles).collect();
    lines.join("\n")
}

fn vfio_needs(facts: &KernelFacts) -> String {
    text(&needs(&wanted("vfio-pci", None), facts, &BTreeSet::new()))
}

#[test]
fn netdevs_need_nothing() {
    let needs = needs(
        &wanted("netdevice", None),
        &facts("quiet"),
        &BTreeSet::new(),
    );
    assert_eq!(needs, KernelNeeds::default());
    assert_eq!(needs.reboot(), None);
}

#[test]
fn vfio_without_groups_needs_the_iommu() {
    insta::assert_snapshot!(vfio_needs(&facts("quiet")), @"
    intel_iommu=on (needed: VFs for vfio-pci need the IOMMU, and there are no IOMMU groups)
    iommu=pt (advised: the host's own devices are faster when they bypass the IOMMU)
    load vfio_pci
    ");
    let needs = needs(&wanted("vfio-pci", None), &facts(""), &BTreeSet::new());
    let only_needed = RebootReason::KernelArguments(vec!["intel_iommu=on".to_owned()]);
    assert_eq!(needs.reboot(), Some(only_needed));
}

#[test]
fn groups_decide_and_not_the_command_line() {
    // Built with CONFIG_INTEL_IOMMU_DEFAULT_ON: works with no word on the command line.
    assert_eq!(vfio_needs(&with_iommu("quiet")), "load vfio_pci");
    assert_eq!(
        vfio_needs(&with_iommu("intel_iommu=on,sm_on")),
        "load vfio_pci"
    );
}

#[test]
fn an_argument_without_effect_is_never_asked_for_again() {
    for line in [
        "intel_iommu=on",
        "intel_iommu=on,sm_on iommu=pt",
        "intel-iommu=on",
    ] {
        let text = vfio_needs(&facts(line));
        assert!(
            text.contains("kernel-argument-without-effect"),
            "{line}: {text}"
        );
        assert!(!text.contains("needed"), "{line}: {text}");
    }
}

#[test]
fn what_somebody_turned_off_is_not_overruled() {
    insta::assert_snapshot!(vfio_needs(&facts("quiet intel_iommu=off")), @"
    load vfio_pci
    kernel-argument-contradicted: the kernel was started with intel_iommu=off
    ");
    let turned = vfio_needs(&with_iommu("intel_iommu=on iommu=nopt"));
    assert_eq!(turned, "load vfio_pci", "advice overruled iommu=nopt");
}

#[test]
fn amd_is_never_asked_for_an_argument_that_does_not_exist() {
    let amd = KernelFacts {
        cpu: CpuMaker::Amd,
        tables: Some(IommuTables {
            ivrs: true,
            ..IommuTables::default()
        }),
        ..facts("quiet")
    };
    insta::assert_snapshot!(vfio_needs(&amd), @"
    load vfio_pci
    iommu-unused: the kernel does not use the machine's IOMMU
    ");
    let off = KernelFacts {
        command_line: vec!["amd_iommu=off".to_owned()],
        ..amd
    };
    assert!(vfio_needs(&off).contains("started with amd_iommu=off"));
}

#[test]
fn the_firmware_s_table_decides_before_the_processor() {
    // A virtual machine with Intel's IOMMU on an AMD processor.
    let guest = KernelFacts {
        cpu: CpuMaker::Amd,
        ..facts("quiet")
    };
    assert!(vfio_needs(&guest).contains("intel_iommu=on (needed"));
    let switched_off = KernelFacts {
        tables: Some(IommuTables::default()),
        ..facts("quiet")
    };
    let text = vfio_needs(&switched_off);
    assert!(
        text.contains("iommu-off-in-firmware") && !text.contains("needed"),
        "{text}"
    );
}

#[test]
fn starved_vfs_need_reallocation_once() {
    let starved = [PF.parse().unwrap()].into();
    let wanted = wanted("netdevice", None);
    let asked = needs(&wanted, &facts("quiet pci=noaer"), &starved);
    assert_eq!(
        text(&asked),
        "pci=realloc (needed: the firmware left no memory space for the VFs)"
    );
    for given in ["pci=realloc", "pci=noaer,realloc", "pci=realloc=on"] {
        let needs = needs(&wanted, &facts(given), &starved);
        assert_eq!(needs.reboot(), None, "{given}");
        assert!(text(&needs).contains("no-memory-space"), "{given}");
    }
}

#[test]
fn modules_follow_drivers_and_vdpa() {
    let wanted = wanted("mlx5_vfio_pci", Some(VdpaKind::Vhost));
    let mut facts = with_iommu("");
    facts.modules = [
        ("mlx5_vfio_pci".parse().unwrap(), ModuleState::BuiltIn),
        ("vhost-vdpa".parse().unwrap(), ModuleState::Blocked),
    ]
    .into();
    insta::assert_snapshot!(text(&needs(&wanted, &facts, &BTreeSet::new())), @"
    module-blocked: modprobe is configured not to load vhost_vdpa
    ");
}

#[test]
fn the_last_word_counts() {
    let on = KernelArgument::intel_iommu();
    let of = |line: &str| presence(line.split(' '), &on);
    assert_eq!(of("intel_iommu=off intel_iommu=on"), Presence::Present);
    let off = Presence::Contradicted("intel_iommu=off".to_owned());
    assert_eq!(of("intel_iommu=on intel_iommu=off"), off);
    assert_eq!(
        of("intel_iommu xintel_iommu=on intel_iommu=once"),
        Presence::Absent
    );
}

#[test]
fn a_cause_gets_two_reboots_and_no_third() {
    let reason = RebootReason::KernelArguments(vec!["intel_iommu=on".to_owned()]);
    let mut reboots = Reboots::default();
    for boot in ["a", "a", "b", "b"] {
        reboots.ask(&reason, boot).unwrap();
    }
    let more =
        RebootReason::KernelArguments(vec!["pci=realloc".to_owned(), "intel_iommu=on".to_owned()]);
    let before = reboots.clone();
    let refused = reboots.ask(&more, "c").unwrap_err();
    assert_eq!(refused.times, 2);
    assert_eq!(refused.code(), Code::new("reboot-budget-spent"));
    assert_eq!(reboots, before, "a refusal was counted");
    reboots.ask(&reason, "b").unwrap();
    reboots.settle();
    reboots.ask(&more, "c").unwrap();
}

proptest! {
    #[test]
    fn no_sequence_of_causes_makes_a_loop(
        asks in prop::collection::vec(prop::collection::vec(0..3_usize, 1..3), 1..40)
    ) {
        let names = ["intel_iommu=on", "iommu=pt", "pci=realloc"];
        let mut reboots = Reboots::default();
        let granted = asks.iter().enumerate().filter(|(boot, ask)| {
            let arguments = ask.iter().map(|at| names[*at].to_owned()).collect();
            reboots.ask(&RebootReason::KernelArguments(arguments), &boot.to_string()).is_ok()
        });
        prop_assert!(granted.count() <= names.len() * MAX_REBOOTS);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text: String) {
        drop(text.parse::<KernelArgument>());
        drop(text.parse::<ModuleName>());
        presence(text.split(' '), &KernelArgument::pci_realloc());
    }
}
