//! Outputs shaped as users have published them (no such NIC was at hand), and what follows.

use fixtures::{igb, inventory, mlx5, parsed};
use model::{Desired, Explain, Inventory, LinkType, PfDesired, RebootReason};
use proptest::prelude::*;

use super::*;

const OFF: &str = include_str!("../../../corpus/mstconfig/connectx6dx-off.txt");
const PENDING: &str = include_str!("../../../corpus/mstconfig/connectx6-vpi-pending.txt");
const DPU: &str = include_str!("../../../corpus/mstconfig/bluefield2-dpu.txt");
const NO_DEVICE: &str = include_str!("../../../corpus/mstconfig/no-device.txt");
const NEXT_ONLY: &str = include_str!("../../../corpus/mstconfig/next-boot-only.txt");

fn report(output: &str) -> FirmwareReport {
    FirmwareReport::parse(output).unwrap()
}

fn nic(num_vfs: u16) -> WantedNic {
    WantedNic {
        nic: parsed("0000:3b:00.0"),
        ports: Vec::new(),
        num_vfs,
        externally_managed: false,
    }
}

fn port(index: usize, link: LinkType, seen: LinkType) -> NicPort {
    NicPort {
        pf: parsed(&format!("0000:3b:00.{index}")),
        port: Some(index),
        link: Some(link),
        seen: Some(seen),
    }
}

/// Says what would be run and why a reboot is needed.
fn told(change: &FirmwareChange) -> String {
    let command = change
        .command()
        .map_or("-".to_owned(), |run| run.to_string());
    let reboot = change
        .reboot()
        .map_or(String::new(), |reason| format!("; reboot for {reason}"));
    command + &reboot
}

#[test]
fn a_report_has_both_states() {
    let report = report(PENDING);
    assert_eq!(
        (report.current.num_vfs, report.next.num_vfs),
        (Some(8), Some(16))
    );
    assert_eq!(
        (report.current.sriov, report.next.sriov),
        (Some(true), Some(true))
    );
    let [p1, p2] = report.next.links;
    assert_eq!(
        (p1, p2),
        (Some(PortLink::InfiniBand), Some(PortLink::Ethernet))
    );
    assert_eq!(report.current.links[1], Some(PortLink::InfiniBand));
}

#[test]
fn output_that_does_not_tell_is_an_error_that_quotes_it() {
    let error = |text: &str| FirmwareReport::parse(text).unwrap_err().to_string();
    insta::assert_snapshot!(error(NO_DEVICE), @r#"mstconfig printed no settings but "-E- Failed to open the device : 0000:3b:00.0. No such file or directory""#);
    insta::assert_snapshot!(error(""), @r#"mstconfig printed no settings but "nothing""#);
    insta::assert_snapshot!(error(NEXT_ONLY), @r#"mstconfig printed the columns "Next Boot", not Default, Current and Next Boot"#);
    insta::assert_snapshot!(error(&PENDING.replace("0               8 ", "0 8 9 ")), @r#"mstconfig printed "*        NUM_OF_VFS                                      0 8 9               16", which has not three values"#);
    insta::assert_snapshot!(error(&OFF.replace("False(0)", "Perhaps(2)")), @r#"mstconfig printed "Perhaps(2)" for SRIOV_EN"#);
    insta::assert_snapshot!(error(&OFF.replace("MEMIC_BAR_SIZE", "SRIOV_EN")), @"mstconfig printed SRIOV_EN twice");
    insta::assert_snapshot!(error(&OFF.replace("SRIOV_EN ", "NUM_OF_VFS ")), @"mstconfig printed NUM_OF_VFS twice");
}

#[test]
fn vfs_are_switched_on_with_a_reboot() {
    let change = change(&nic(8), &report(OFF), Fit::Enough).unwrap();
    insta::assert_snapshot!(told(&change), @"mstconfig -d 0000:3b:00.0 -y set SRIOV_EN=True NUM_OF_VFS=8; reboot for firmware setting SRIOV_EN=True NUM_OF_VFS=8 of 0000:3b:00.0");
    assert!(matches!(change.reboot(), Some(RebootReason::Firmware(_))));
}

#[test]
fn firmware_with_enough_vfs_is_left_alone_unless_asked_exactly() {
    let decided = |count, fit| told(&change(&nic(count), &report(PENDING), fit).unwrap());
    assert_eq!(decided(8, Fit::Enough), "-");
    assert_eq!(decided(4, Fit::Enough), "-");
    assert_eq!(decided(0, Fit::Enough), "-");
    insta::assert_snapshot!(decided(8, Fit::Exact), @"mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=8");
    insta::assert_snapshot!(decided(4, Fit::Exact), @"mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=4; reboot for firmware setting NUM_OF_VFS=4 of 0000:3b:00.0");
    insta::assert_snapshot!(decided(0, Fit::Exact), @"mstconfig -d 0000:3b:00.0 -y set SRIOV_EN=False NUM_OF_VFS=0; reboot for firmware setting SRIOV_EN=False NUM_OF_VFS=0 of 0000:3b:00.0");
}

#[test]
fn what_the_next_boot_brings_is_not_written_again() {
    let change = change(&nic(16), &report(PENDING), Fit::Enough).unwrap();
    insta::assert_snapshot!(told(&change), @"-; reboot for firmware setting NUM_OF_VFS=16 of 0000:3b:00.0");
}

#[test]
fn what_the_next_boot_would_take_away_is_kept_without_a_reboot() {
    let text = PENDING.replace("8               16", "8               4 ");
    let change = change(&nic(8), &report(&text), Fit::Enough).unwrap();
    insta::assert_snapshot!(told(&change), @"mstconfig -d 0000:3b:00.0 -y set NUM_OF_VFS=8");
}

#[test]
fn the_link_type_of_a_port_is_set() {
    let wanted = WantedNic {
        ports: vec![
            port(0, LinkType::Ethernet, LinkType::InfiniBand),
            port(1, LinkType::Ethernet, LinkType::InfiniBand),
        ],
        ..nic(8)
    };
    let change = change(&wanted, &report(PENDING), Fit::Enough).unwrap();
    insta::assert_snapshot!(told(&change), @"mstconfig -d 0000:3b:00.0 -y set LINK_TYPE_P1=ETH; reboot for firmware setting LINK_TYPE_P1=ETH LINK_TYPE_P2=ETH of 0000:3b:00.0");
}

#[test]
fn a_port_that_cannot_be_set_must_have_the_link_already() {
    let wants = |link, seen| WantedNic {
        ports: vec![port(0, link, seen)],
        ..nic(0)
    };
    let fits = wants(LinkType::Ethernet, LinkType::Ethernet);
    assert!(
        change(&fits, &report(OFF), Fit::Enough)
            .unwrap()
            .is_nothing()
    );
    let error = change(
        &wants(LinkType::InfiniBand, LinkType::Ethernet),
        &report(OFF),
        Fit::Enough,
    )
    .unwrap_err();
    insta::assert_snapshot!(error, @"firmware of NIC 0000:3b:00.0: the link type of port 1 cannot be set, and is not infiniband");
    assert_eq!(error.code().as_str(), "firmware-link-type");
    let vpi = PENDING.replace("IB(1)", "VPI(3)");
    let unclear = wants(LinkType::InfiniBand, LinkType::Ethernet);
    let error = change(&unclear, &report(&vpi), Fit::Enough).unwrap_err();
    assert_eq!(error.problem, FirmwareProblem::UnknownLink { port: 0 });
}

#[test]
fn two_functions_of_a_port_must_agree() {
    let mut other = port(0, LinkType::InfiniBand, LinkType::Ethernet);
    other.pf = parsed("0000:3b:00.2");
    let wanted = WantedNic {
        ports: vec![port(0, LinkType::Ethernet, LinkType::Ethernet), other],
        ..nic(0)
    };
    let error = change(&wanted, &report(PENDING), Fit::Enough).unwrap_err();
    assert_eq!(error.problem, FirmwareProblem::TwoLinks { port: 0 });
}

#[test]
fn a_dpu_in_charge_of_itself_is_refused_only_when_something_must_change() {
    assert!(
        change(&nic(16), &report(DPU), Fit::Enough)
            .unwrap()
            .is_nothing()
    );
    let error = change(&nic(17), &report(DPU), Fit::Enough).unwrap_err();
    assert_eq!(error.problem, FirmwareProblem::DpuMode);
    let host = DPU.replace("ECPF(0)", "EXT_HOST_PF(1)");
    assert!(change(&nic(17), &report(&host), Fit::Enough).is_ok());
}

#[test]
fn nothing_is_written_to_an_externally_managed_nic() {
    let external = |count| WantedNic {
        externally_managed: true,
        ..nic(count)
    };
    assert!(
        change(&external(8), &report(PENDING), Fit::Exact)
            .unwrap()
            .is_nothing()
    );
    let error = change(&external(16), &report(PENDING), Fit::Enough).unwrap_err();
    insta::assert_snapshot!(error, @"firmware of NIC 0000:3b:00.0: NUM_OF_VFS=16 is wanted, but the NIC is externally managed");
    assert_eq!(error.code().as_str(), "externally-managed");
}

#[test]
fn a_nic_that_nobody_wants_gives_sriov_back_at_the_next_boot() {
    let change = give_back(parsed("0000:3b:00.0"), &report(PENDING));
    insta::assert_snapshot!(told(&change), @"mstconfig -d 0000:3b:00.0 -y set SRIOV_EN=False NUM_OF_VFS=0");
    assert!(give_back(parsed("0000:3b:00.0"), &report(OFF)).is_nothing());
}

#[test]
fn commands_are_argument_lists() {
    assert_eq!(
        query(parsed("0000:3b:00.0")).arguments,
        ["-e", "-d", "0000:3b:00.0", "query"]
    );
    assert_eq!(
        firmware_reset(parsed("0000:3b:00.0")).to_string(),
        "mstfwreset -d 0000:3b:00.0 --skip_driver -l 3 -y reset"
    );
}

#[test]
fn lockdown_is_told_by_its_brackets() {
    assert!(is_locked_down("none [integrity] confidentiality\n"));
    assert!(!is_locked_down("[none] integrity confidentiality\n"));
}

fn pf(address: &str, num_vfs: u16, link_type: Option<LinkType>) -> PfDesired {
    PfDesired {
        pf: parsed(address),
        name: None,
        num_vfs,
        mtu: None,
        link_type,
        eswitch: None,
        externally_managed: false,
        groups: Vec::new(),
    }
}

fn desired(pfs: impl IntoIterator<Item = PfDesired>) -> Desired {
    Desired {
        pfs: pfs.into_iter().map(|pf| (pf.pf, pf)).collect(),
        ..Desired::default()
    }
}

fn two_ports() -> Inventory {
    inventory([
        igb("0000:01:00.0", "a"),
        mlx5("0000:3b:00.0", "b"),
        mlx5("0000:3b:00.1", "c"),
        mlx5("0000:5e:00.0", "d").netdev(|netdev| netdev.phys_port_name = Some("p1".to_owned())),
        mlx5("0000:5e:00.3", "e"),
    ])
}

#[test]
fn the_functions_of_a_device_share_one_firmware() {
    let wanted = desired([
        pf("0000:01:00.0", 7, None),
        pf("0000:3b:00.1", 16, Some(LinkType::Ethernet)),
        pf("0000:3b:00.0", 4, None),
        pf("0000:5e:00.0", 1, None),
        pf("0000:5e:00.3", 2, None),
        pf("0000:99:00.0", 2, None),
    ]);
    let nics = nics(&two_ports(), &wanted);
    let [first, second] = nics.as_slice() else {
        panic!("{nics:?}")
    };
    assert_eq!((first.nic, first.num_vfs), (parsed("0000:3b:00.0"), 16));
    let ports: Vec<_> = first.ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [Some(0), Some(1)]);
    let ports: Vec<_> = second.ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [Some(1), None], "a function number of 3 is no port");
}

#[test]
fn the_other_port_of_a_nic_is_enough_to_reach_it() {
    let wanted = desired([pf("0000:3b:00.1", 16, None)]);
    assert_eq!(nics(&two_ports(), &wanted)[0].nic, parsed("0000:3b:00.0"));
}

/// What the firmware has after the settings were written and it started anew.
fn restarted(report: &FirmwareReport, settings: &[Setting]) -> FirmwareReport {
    let mut next = report.next.clone();
    for setting in settings {
        match *setting {
            Setting::Sriov(on) => next.sriov = Some(on),
            Setting::NumVfs(count) => next.num_vfs = Some(count),
            Setting::Link { port, ethernet } => {
                next.links[port] = Some(if ethernet {
                    PortLink::Ethernet
                } else {
                    PortLink::InfiniBand
                });
            }
        }
    }
    FirmwareReport {
        current: next.clone(),
        next,
    }
}

fn settings() -> impl Strategy<Value = FirmwareSettings> {
    let link = prop_oneof![Just(PortLink::Ethernet), Just(PortLink::InfiniBand)];
    (0_u32..20, any::<bool>(), link).prop_map(|(count, sriov, link)| FirmwareSettings {
        num_vfs: Some(count),
        sriov: Some(sriov),
        links: [Some(link), None],
        internal_cpu: InternalCpu::default(),
    })
}

proptest! {
    #[test]
    fn after_the_reboot_nothing_is_left_to_do(
        current in settings(), next in settings(), count in 0_u16..20, exact: bool, ethernet: bool,
    ) {
        let fit = if exact { Fit::Exact } else { Fit::Enough };
        let link = if ethernet { LinkType::Ethernet } else { LinkType::InfiniBand };
        let wanted = WantedNic {
            ports: vec![port(0, link, LinkType::Ethernet)],
            ..nic(count)
        };
        let report = FirmwareReport { current, next };
        let first = change(&wanted, &report, fit).unwrap();
        let after = restarted(&report, &first.settings);
        prop_assert!(change(&wanted, &after, fit).unwrap().is_nothing());
    }

    #[test]
    fn no_text_makes_it_panic(text in "(Configurations: Default Current Next Boot\n)?([*A-Z_ ]{0,20}[a-z0-9() \n]{0,20}){0,20}") {
        crate::fuzz::fuzz_mstconfig(text.as_bytes());
    }
}
