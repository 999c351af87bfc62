//! Recorded hosts: what is seen of them, what of a damaged one, and of one that changes meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fixtures::{TREES, inventory_text};
use model::{DeviceId, Holder, HolderKind, Host, Inventory, Role, Scope};

use crate::{Linux, Tree};

#[derive(Debug)]
struct Recording {
    dir: tempfile::TempDir,
}

impl Recording {
    fn of(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Tree::parse(text).unwrap().unpack(dir.path()).unwrap();
        Self { dir }
    }

    fn named(name: &str) -> Self {
        Self::of(fixtures::tree(name).unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn linux(&self) -> Linux {
        Linux::recorded(self.dir.path()).unwrap()
    }

    fn observe(&self) -> Inventory {
        self.linux().observe(Scope::All).unwrap()
    }
}

#[test]
fn every_tree_is_seen_as_its_golden_says() {
    for (name, text) in TREES {
        let inventory = Recording::of(text).observe();
        insta::assert_snapshot!(*name, inventory_text(&inventory));
    }
}

#[test]
fn a_recording_of_a_recording_is_seen_the_same() {
    for (name, text) in TREES {
        let recording = Recording::of(text);
        let tree = recording.linux().record().unwrap();
        let again = Recording::of(&tree.to_string()).observe();
        let first = recording.observe();
        assert_eq!(inventory_text(&again), inventory_text(&first), "{name}");
        assert_eq!(again, first, "{name}");
    }
}

#[test]
fn one_function_is_seen_as_in_the_whole_but_for_what_devlink_says_and_its_pf_in_part() {
    for (name, text) in TREES {
        let recording = Recording::of(text);
        let mut whole = recording.observe();
        for function in whole.functions.values_mut() {
            if let Role::Pf(facts) = &mut function.role {
                (facts.firmware, facts.ddp) = (None, None);
                (facts.steering, facts.tc_offload) = (None, None);
                (facts.eswitch, facts.externally_managed) = (None, false);
            }
        }
        for (address, function) in &whole.functions {
            let mut linux = recording.linux();
            let mut part = linux.observe(Scope::Function(*address)).unwrap();
            let mut function = function.clone();
            (function.numa, function.acpi_index) = (None, None);
            function.driver_override = None;
            if part.get(*address).is_some_and(|part| part.vfio.is_none()) {
                function.vfio = None;
            }
            for function in part.functions.values_mut() {
                if let Role::Pf(facts) = &mut function.role {
                    facts.unseen_macs.clear();
                }
            }
            assert_eq!(part.get(*address), Some(&function), "{address} of {name}");
            if let Some(facts) = function.vf() {
                let of_pf = |seen: &Inventory| {
                    let pf = seen.get(facts.pf)?;
                    let netdev = pf.netdev().map(|netdev| (netdev.index, netdev.mtu));
                    let vfs = pf.pf().map(|facts| (facts.num_vfs, facts.vfs.clone()));
                    Some((pf.driver.clone(), netdev, vfs))
                };
                assert_eq!(of_pf(&part), of_pf(&whole), "PF of {address} of {name}");
            }
        }
    }
}

#[test]
fn a_function_that_is_not_there_is_not_seen_and_no_error() {
    let recording = Recording::named("ice");
    let mut linux = recording.linux();
    let absent = "0000:ff:1f.7".parse().unwrap();
    assert!(
        linux
            .observe(Scope::Function(absent))
            .unwrap()
            .functions
            .is_empty()
    );
}

#[test]
fn what_the_ledger_knows_comes_before_what_is_found() {
    let recording = Recording::named("bnxt");
    let vf = "0000:41:02.0".parse().unwrap();
    let holder = Holder {
        kind: HolderKind::Cni,
        id: "3f6b".to_owned(),
        interface: None,
    };
    let ledger = BTreeMap::from([(vf, holder.clone())]);
    let inventory = recording.linux().observe_with(Scope::All, &ledger).unwrap();
    let facts = inventory.get(vf).unwrap().vf().unwrap();
    assert_eq!(facts.holder, Some(holder));
}

#[test]
fn a_vf_with_an_address_or_a_route_of_the_host_is_in_use_and_a_link_local_address_is_none() {
    let recording = Recording::named("mlx5-legacy");
    let vf = "0000:3b:00.2".parse().unwrap();
    let held = |uses: &str| {
        std::fs::write(recording.path("/netlink/node-uses"), uses).unwrap();
        let holder = recording.observe().get(vf)?.vf()?.holder.clone()?;
        Some(holder.to_string())
    };
    // The kernel told of a link-local address, which is no use: see `queries::Live`.
    assert_eq!(held(r#"{"index":9,"use":{}}"#), None);
    assert_eq!(held(r#"{"index":5,"use":{"address":true}}"#), None);
    let address = held(r#"{"index":9,"use":{"address":true}}"#);
    assert_eq!(address.unwrap(), "host address as ens1f0v0");
    let route = held(r#"{"index":9,"use":{"address":true,"default_route":true}}"#);
    assert_eq!(route.unwrap(), "host default-route as ens1f0v0");
}

#[test]
fn what_virtfn_gave_away_is_not_the_hosts_own() {
    let recording = Recording::named("ice");
    let vf = "10000:e1:01.0".parse().unwrap();
    let holder = Holder {
        kind: HolderKind::Attach,
        id: "host".to_owned(),
        interface: None,
    };
    let ledger = BTreeMap::from([(vf, holder.clone())]);
    let inventory = recording.linux().observe_with(Scope::All, &ledger).unwrap();
    let facts = inventory.get(vf).unwrap().vf().unwrap();
    assert_eq!(facts.holder, Some(holder));
}

/// Files of a function that discovery reads whatever the kind of function.
const ATTRIBUTES: [&str; 8] = [
    "uevent",
    "numa_node",
    "driver_override",
    "sriov_totalvfs",
    "sriov_numvfs",
    "sriov_drivers_autoprobe",
    "sriov_offset",
    "sriov_vf_device",
];

#[test]
fn a_damaged_attribute_is_a_gap_that_names_it_and_spares_the_rest() {
    for damage in [&b"\xff\xfe\n"[..], b"cut sh", b"-7\n"] {
        for attribute in ATTRIBUTES {
            let recording = Recording::named("mlx5-legacy");
            let whole = recording.observe();
            let pf = "0000:3b:00.0".parse().unwrap();
            let path = format!("/sys/devices/pci0000:3a/0000:3a:00.0/{pf}/{attribute}");
            std::fs::write(recording.path(&path), damage).unwrap();
            let inventory = recording.observe();
            // A driver may have any name, so not every damage can be told from one.
            let tells = attribute != "driver_override" || damage[0] == 0xff;
            let gap = inventory
                .gaps
                .iter()
                .any(|gap| gap.object == "0000:3b:00.0" && gap.reason.starts_with(attribute));
            assert!(
                gap || !tells,
                "{attribute} {damage:?}: {:?}",
                inventory.gaps
            );
            for (address, function) in &whole.functions {
                if *address != pf {
                    assert_eq!(inventory.get(*address), Some(function), "{attribute}");
                }
            }
            // Without `uevent` the single files tell the same.
            let (now, before) = (inventory.get(pf).unwrap(), whole.get(pf).unwrap());
            assert_eq!(
                (now.id, &now.driver),
                (before.id, &before.driver),
                "{attribute}"
            );
        }
    }
}

#[test]
fn no_file_is_needed_for_the_pass_to_succeed() {
    for (name, text) in TREES {
        let recording = Recording::of(text);
        for file in files_below(&recording.path("/sys")) {
            let metadata = std::fs::symlink_metadata(&file).unwrap();
            if metadata.is_symlink() {
                let target = std::fs::read_link(&file).unwrap();
                std::fs::remove_file(&file).unwrap();
                recording.observe();
                for bad in ["/", "..", "nowhere/\u{e9}", "../0000:00:00.0"] {
                    std::os::unix::fs::symlink(bad, &file).unwrap();
                    recording.observe();
                    std::fs::remove_file(&file).unwrap();
                }
                std::os::unix::fs::symlink(target, &file).unwrap();
            } else {
                let content = std::fs::read(&file).unwrap();
                for bad in [&b""[..], b"\n", b"\xff\xff", &content[..content.len() / 2]] {
                    std::fs::write(&file, bad).unwrap();
                    recording.observe();
                }
                std::fs::remove_file(&file).unwrap();
                recording.observe();
                std::fs::write(&file, content).unwrap();
            }
        }
        assert_eq!(recording.observe(), Recording::of(text).observe(), "{name}");
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.append(&mut files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

#[test]
fn a_device_that_left_after_it_was_listed_is_not_seen_and_no_gap() {
    let recording = Recording::named("mlx5-legacy");
    let vf = recording.path("/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.3");
    std::fs::remove_dir_all(vf).unwrap();
    let inventory = recording.observe();
    assert!(inventory.get("0000:3b:00.3".parse().unwrap()).is_none());
    assert!(inventory.gaps.is_empty(), "{:?}", inventory.gaps);
    assert_eq!(inventory.functions.len(), 3);
}

/// Removes functions one after the other while they are observed.
#[test]
fn surprise_removal_during_the_pass_never_fails_it() {
    for (name, text) in TREES {
        let recording = Recording::of(text);
        let whole = recording.observe();
        let mut linux = recording.linux();
        let devices: Vec<PathBuf> = whole
            .functions
            .keys()
            .map(|address| recording.path(&format!("/sys/bus/pci/devices/{address}")))
            .filter_map(|link| link.canonicalize().ok())
            .collect();
        std::thread::scope(|scope| {
            let removal = scope.spawn(|| {
                for device in devices {
                    // Its parent may have gone before, with it.
                    drop(std::fs::remove_dir_all(device));
                }
            });
            while !removal.is_finished() {
                let inventory = linux.observe(Scope::All).unwrap();
                assert!(inventory.functions.len() <= whole.functions.len(), "{name}");
            }
        });
        assert!(
            linux.observe(Scope::All).unwrap().functions.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn a_host_without_pci_is_an_error_that_names_the_directory() {
    let recording = Recording::of("/netlink/rdma = shared");
    let error = recording.linux().observe(Scope::All).unwrap_err();
    assert_eq!(error.to_string(), "list /sys/bus/pci/devices");
    assert_eq!(error.code.as_str(), "sysfs-unreadable");
}

#[test]
fn a_damaged_answer_is_an_error_that_names_file_and_line() {
    let links = "/netlink/links = {}\n[/sys/bus/pci/devices]\n0000:00:00.0/";
    let error = Recording::of(links)
        .linux()
        .observe(Scope::All)
        .unwrap_err();
    let source = error.source.to_string();
    assert_eq!(source, "read /netlink/links, line 1");
}

/// Looking is made visible by an answer that cannot be read.
#[test]
fn other_namespaces_are_looked_at_only_when_a_netdev_is_missing() {
    let bnxt = fixtures::tree("bnxt").unwrap();
    let broken = |text: &str| format!("{text}\n/netlink/elsewhere = broken");
    assert!(names_elsewhere(&Recording::of(&broken(bnxt)).observe()));
    let ice = fixtures::tree("ice").unwrap();
    assert!(!names_elsewhere(&Recording::of(&broken(ice)).observe()));
}

/// VF 0 of a host, up, with a macvlan on it in another namespace.
fn with_macvlan() -> String {
    let text = fixtures::tree("igb-4-vfs").unwrap();
    let up = text.replace(
        r#""name":"eth1","arphrd":1,"#,
        r#""name":"eth1","up":true,"arphrd":1,"#,
    );
    let on = r#""path":"/run/netns/blue","uppers":{"3":"mac0"},"#;
    up.replace(r#""path":"/run/netns/blue","#, on)
}

fn holder_of_vf_0(text: &str) -> Option<String> {
    let seen = Recording::of(text).observe();
    let vf = seen.get("0000:01:10.0".parse().unwrap()).unwrap();
    vf.vf().unwrap().holder.as_ref().map(ToString::to_string)
}

/// A NIC without VFs, up, and what is above it here and in other namespaces.
fn nic_below(more: &str) -> Recording {
    let nic = r#"{"index":2,"name":"eth0","arphrd":1,"up":true,"oper":"up","mtu":1500,"parent_bus":"pci","parent_dev":"0000:01:00.0"}"#;
    Recording::of(&format!(
        "[/sys/bus/pci/devices/0000:01:00.0]\nsriov_totalvfs = 7\nsriov_numvfs = 0\n\
         uevent = DRIVER=igb\nuevent = PCI_CLASS=20000\nuevent = PCI_ID=8086:10C9\n\
         [/netlink]\nlinks = {nic}\n{more}"
    ))
}

#[test]
fn what_the_host_has_on_a_nic_is_its_user_as_it_is_of_a_vf() {
    let vlan = r#"links = {"index":7,"name":"vlan5","arphrd":1,"oper":"up","mtu":1500,"kind":"vlan","lower":2}"#;
    let macvlan =
        r#"elsewhere = {"inode":7,"path":"/run/netns/blue","links":[],"uppers":{"2":"mac0"}}"#;
    for (more, user) in [
        ("", None),
        (vlan, Some("host vlan5 as eth0")),
        (macvlan, Some("host mac0 in blue as eth0")),
    ] {
        let recording = nic_below(more);
        let seen = recording.observe();
        let nic = seen.functions.keys().next().unwrap();
        let device = DeviceId::Pci(*nic);
        let found = seen.holder_of(&device).map(ToString::to_string);
        assert_eq!(found.as_deref(), user);
        let changed = BTreeSet::from([*nic]);
        let mut linux = recording.linux();
        let again = linux.renew(&seen, &changed).unwrap().unwrap();
        assert_eq!(again, seen);
    }
}

/// What is in other namespaces is looked for only where it would count.
#[test]
fn a_nic_that_cannot_be_given_away_is_no_reason_to_look_into_other_namespaces() {
    let free = "elsewhere = broken";
    let vlan = r#"links = {"index":7,"name":"vlan5","arphrd":1,"oper":"up","mtu":1500,"kind":"vlan","lower":2}"#;
    let address = r#"node-uses = {"index":2,"use":{"address":true}}"#;
    assert!(names_elsewhere(&nic_below(free).observe()));
    for used in [vlan, address] {
        let used = nic_below(&format!("{free}\n{used}"));
        assert!(!names_elsewhere(&used.observe()), "{used:?}");
    }
}

#[test]
fn a_vf_that_a_container_has_something_on_is_in_use() {
    let text = with_macvlan();
    assert_eq!(
        holder_of_vf_0(&text).as_deref(),
        Some("host mac0 in blue as eth1")
    );
    let other = text.replace(r#"{"3":"mac0"}"#, r#"{"2":"mac0"}"#);
    assert_eq!(holder_of_vf_0(&other), None);
}

/// One attach must not search the namespaces of all pods because of the VFs that they have.
#[test]
fn the_siblings_of_one_function_are_not_searched_for() {
    let text = fixtures::tree("igb-4-vfs").unwrap();
    let broken = text.replace("\nelsewhere = ", "\nelsewhere = broken");
    let recording = Recording::of(&broken);
    let mut linux = recording.linux();
    let mut of = |address: &str| {
        let scope = Scope::Function(address.parse().unwrap());
        names_elsewhere(&linux.observe(scope).unwrap())
    };
    assert!(!of("0000:01:10.0"));
    assert!(of("0000:01:10.2"));
}

/// VF 3 is open in a process, whose descriptors say so, and its driver says whether it can be.
#[test]
fn a_device_that_is_not_enabled_is_not_looked_for_in_processes() {
    let recording = Recording::named("igb-4-vfs");
    let vf = "0000:01:10.6".parse().unwrap();
    let holder = |scope| {
        let seen = recording.linux().observe(scope).unwrap();
        let holder = seen.get(vf).unwrap().vf().unwrap().holder.clone();
        holder.map(|holder| holder.kind)
    };
    let one = Scope::Function(vf);
    assert_eq!(holder(one), Some(HolderKind::Vfio), "no file tells");
    let enable = recording.path("/sys/bus/pci/devices/0000:01:10.6/enable");
    std::fs::write(&enable, "1\n").unwrap();
    assert_eq!(holder(one), Some(HolderKind::Vfio));
    std::fs::write(&enable, "0\n").unwrap();
    assert_eq!(holder(one), None);
    assert_eq!(holder(Scope::All), Some(HolderKind::Vfio));
}

fn names_elsewhere(inventory: &Inventory) -> bool {
    inventory
        .gaps
        .iter()
        .any(|gap| gap.object == "network namespaces")
}
