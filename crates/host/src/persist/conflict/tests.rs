use super::*;

fn pf() -> KeptPf {
    KeptPf {
        address: "0000:3b:00.0".parse().unwrap(),
        name: Some("ens1f0".parse().unwrap()),
        dev_port: None,
        switchdev_vfs: None,
    }
}

/// What is said of a host with this one file.
fn said(path: &str, text: &str) -> String {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join(path.trim_start_matches('/'));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
    let root = HostRoot::open(temp.path()).unwrap();
    let found = conflicts(&root, &[pf()]);
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn systemd_link_files_are_told_by_path_and_name() {
    let path = "/etc/systemd/network/10-ens.link";
    let text =
        |matching: &str| format!("[Match]\n{matching}\n\n[Link]\nSR-IOVVirtualFunctions=4\n");
    assert_eq!(
        said(path, &text("Path=pci-0000:3b:00.0")),
        "/etc/systemd/network/10-ens.link:5: systemd-udevd makes VFs too, for PF 0000:3b:00.0"
    );
    assert!(said(path, &text("OriginalName=eno* ens*")).contains("for PF 0000:3b:00.0"));
    assert_eq!(said(path, &text("Path=pci-0000:5e:00.0")), "");
    assert!(said(path, &text("Driver=mlx5_core")).contains("perhaps"));
    assert_eq!(said(path, "[Match]\nDriver=*\n[Link]\nMTUBytes=9000\n"), "");
    let sections = "[Match]\nName=ens1f?\n[SR-IOV]\nVirtualFunction=0\nTrust=yes\n";
    assert!(said("/etc/systemd/network/a.network", sections).contains("a.network:4"));
}

#[test]
fn network_manager_is_told_by_its_interface() {
    let path = "/etc/NetworkManager/system-connections/ens1f0.nmconnection";
    let text = |name: &str| format!("[connection]\ninterface-name={name}\n[sriov]\ntotal-vfs=8\n");
    assert_eq!(
        said(path, &text("ens1f0")),
        format!("{path}:4: NetworkManager makes VFs too, for PF 0000:3b:00.0")
    );
    assert_eq!(said(path, &text("ens2f0")), "");
    let device = "[device-x]\nmatch-device=interface-name:ens1*\nsriov-num-vfs=2\n";
    assert!(said("/etc/NetworkManager/conf.d/a.conf", device).contains("a.conf:3"));
}

#[test]
fn scripts_netplan_and_modules_are_found() {
    assert_eq!(
        said(
            "/etc/rc.local",
            "#!/bin/sh\n# sriov_numvfs\necho 4 > /sys/class/net/ens1f0/device/sriov_numvfs\n"
        ),
        "/etc/rc.local:3: sriov_numvfs is written here too, for PF 0000:3b:00.0"
    );
    let rule = "ACTION==\"add\", KERNEL==\"ens9\", ATTR{device/sriov_numvfs}=\"4\"\n";
    assert!(said("/etc/udev/rules.d/70-vf.rules", rule).contains("perhaps"));
    let plan =
        "network:\n  ethernets:\n    ens1f0:\n      mtu: 9000\n\n      virtual-function-count: 8\n";
    assert!(said("/etc/netplan/a.yaml", plan).contains("a.yaml:6: netplan makes VFs too, for PF"));
    assert!(said("/etc/modprobe.d/a.conf", "options ixgbe max_vfs=8\n").contains("a.conf:1"));
    let ifcfg = "DEVICE=\"ens1f0\"\nSRIOV_TOTAL_VFS=8\n";
    assert!(said("/etc/sysconfig/network-scripts/ifcfg-ens1f0", ifcfg).contains(":2: the network"));
}

#[test]
fn the_operator_counts_when_its_service_is_on() {
    let wants = "/etc/systemd/system/multi-user.target.wants/sriov-config.service";
    let said_of = said(wants, "");
    assert!(said_of.contains("operator's boot service"), "{said_of}");
    assert_eq!(
        said("/etc/systemd/system/sriov-config.service", "[Unit]\n"),
        ""
    );
}

#[test]
fn our_own_files_are_no_rivals() {
    let text = format!("{MARKER} x\nsriov_numvfs\n");
    assert_eq!(said("/etc/udev/rules.d/10-virtfn.rules", &text), "");
}

#[test]
fn patterns_match_as_in_a_shell() {
    for (pattern, text, is) in [
        ("ens1f0", "ens1f0", true),
        ("ens*f?", "ens1f0", true),
        ("*", "x", true),
        ("**a", "bca", true),
        ("ens*g", "ens1f0", false),
        ("ens1f0?", "ens1f0", false),
        ("", "x", false),
        ("*", "", false),
    ] {
        assert_eq!(matches(pattern, text), is, "{pattern} {text}");
    }
}
