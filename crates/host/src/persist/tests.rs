use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::checkpoint::Uninterrupted;
use crate::program::Call;

/// No program is run for a root that is not `/`.
struct NoPrograms;

impl Programs for NoPrograms {
    fn run(&mut self, call: &Call<'_>) -> Result<Vec<u8>, ProgramError> {
        panic!("ran {}", call.program)
    }
}

fn kept() -> Kept {
    let state = model::VfState {
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        vlan: Some(None),
        ..model::VfState::default()
    };
    let vfs = [(model::VfIndex(0), state)].into();
    let policy = |source: &str, text: &str| StoredPolicy {
        source: source.to_owned(),
        text: text.to_owned(),
    };
    Kept {
        policies: vec![
            policy(
                "/root/rack a.yaml",
                "\u{feff}kind: SriovNetworkNodePolicy\n",
            ),
            policy("b/policy.json", "{\"kind\": \"SriovNetworkNodePolicy\"}\n"),
        ],
        boot: BootApply {
            program: "/usr/bin/virtfn".into(),
            node_labels: [("rack", "a"), ("role/sriov", "100% \"x\" $y")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            allow_default_route: false,
        },
        pfs: vec![
            KeptPf {
                address: "0000:3b:00.0".parse().unwrap(),
                name: Some("ens1f0".parse().unwrap()),
                dev_port: None,
                switchdev_vfs: None,
            },
            KeptPf {
                address: "10000:e1:00.1".parse().unwrap(),
                name: Some("ens2f1np1".parse().unwrap()),
                dev_port: Some(1),
                switchdev_vfs: Some(2),
            },
        ],
        vfs: [("0000:3b:00.0".parse().unwrap(), vfs)].into(),
        modules: vec!["vfio-pci".parse().unwrap()],
    }
}

fn without_pfs() -> Kept {
    Kept {
        policies: kept().policies.into_iter().take(1).collect(),
        pfs: Vec::new(),
        modules: Vec::new(),
        ..kept()
    }
}

/// A host with files of others, some of them with names like ours.
fn host() -> (tempfile::TempDir, HostRoot) {
    let temp = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("usr/bin/virtfn", "program"),
        ("etc/systemd/system/kubelet.service", "[Unit]\n"),
        ("etc/systemd/system/virtfn-exporter.service", "[Unit]\n"),
        ("etc/udev/rules.d/70-other.rules", "# x\n"),
        ("etc/machine-id", "0\n"),
    ] {
        let file = temp.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let program = temp.path().join("usr/bin/virtfn");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let root = HostRoot::open(temp.path()).unwrap();
    (temp, root)
}

/// Every path beneath a directory with its mode, and its content or its target.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_dir() {
                open.push(path.clone());
                String::new()
            } else if meta.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else {
                std::fs::read_to_string(&path).unwrap()
            };
            let mode = meta.permissions().mode();
            tree.insert(path.display().to_string(), format!("{mode:o} {content}"));
        }
    }
    tree
}

fn said(changes: &[Change]) -> String {
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn the_files_say_what_is_documented() {
    for file in render::files(&kept()).unwrap() {
        let name = file.path.rsplit('/').next().unwrap();
        insta::assert_snapshot!(format!("file-{name}"), file.text);
    }
}

#[test]
fn the_services_are_switched_on_last_and_a_second_time_changes_nothing() {
    let (temp, root) = host();
    let preview = preview(&root, &kept()).unwrap();
    assert_eq!(installed(&root).unwrap(), Installed::Absent);
    let done = install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
    assert_eq!(done.changes, preview);
    insta::assert_snapshot!(said(&done.changes), @"
    create /etc/virtfn/persist.dirs
    create /etc/virtfn/policies.d/0001-rack_a.yaml
    create /etc/virtfn/policies.d/0002-policy.yaml
    create /etc/virtfn/vf-settings
    create /etc/modules-load.d/virtfn.conf
    create /etc/systemd/network/00-virtfn-vf.network
    create /etc/udev/rules.d/10-virtfn.rules
    create /etc/systemd/system/virtfn-post-network.service
    create /etc/systemd/system/virtfn-pre-network.service
    enable /etc/systemd/system/multi-user.target.wants/virtfn-pre-network.service
    enable /etc/systemd/system/multi-user.target.wants/virtfn-post-network.service
    ");
    assert_eq!(installed(&root).unwrap(), Installed::Enabled);
    let before = tree(temp.path());
    let again = install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
    assert_eq!(again.changes, []);
    assert_eq!(tree(temp.path()), before);
    let mode = before
        .iter()
        .find(|(path, _)| path.ends_with("rack_a.yaml"))
        .unwrap();
    assert!(mode.1.starts_with("100644 "), "{mode:?}");
}

#[test]
fn uninstalling_leaves_the_host_as_it_was() {
    let (temp, root) = host();
    let before = tree(temp.path());
    install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
    install(&root, &without_pfs(), &mut NoPrograms, &Uninterrupted).unwrap();
    let gone = uninstall(&root, &mut NoPrograms, &Uninterrupted).unwrap();
    insta::assert_snapshot!(said(&gone.changes), @"
    disable /etc/systemd/system/multi-user.target.wants/virtfn-pre-network.service
    disable /etc/systemd/system/multi-user.target.wants/virtfn-post-network.service
    remove /etc/systemd/system/virtfn-post-network.service
    remove /etc/systemd/system/virtfn-pre-network.service
    remove /etc/virtfn/policies.d/0001-rack_a.yaml
    remove /etc/virtfn/vf-settings
    remove /etc/virtfn/persist.dirs
    ");
    assert_eq!(tree(temp.path()), before);
    assert!(
        uninstall(&root, &mut NoPrograms, &Uninterrupted)
            .unwrap()
            .changes
            .is_empty()
    );
}

#[test]
fn fewer_policies_remove_what_is_wanted_no_more() {
    let (temp, root) = host();
    install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
    let done = install(&root, &without_pfs(), &mut NoPrograms, &Uninterrupted).unwrap();
    insta::assert_snapshot!(said(&done.changes), @"
    disable /etc/systemd/system/multi-user.target.wants/virtfn-pre-network.service
    disable /etc/systemd/system/multi-user.target.wants/virtfn-post-network.service
    remove /etc/udev/rules.d/10-virtfn.rules
    remove /etc/systemd/network/00-virtfn-vf.network
    remove /etc/modules-load.d/virtfn.conf
    remove /etc/virtfn/policies.d/0002-policy.yaml
    enable /etc/systemd/system/multi-user.target.wants/virtfn-pre-network.service
    enable /etc/systemd/system/multi-user.target.wants/virtfn-post-network.service
    ");
    assert!(temp.path().join("etc/udev/rules.d/70-other.rules").exists());
}

#[test]
fn a_policy_that_somebody_put_there_stays() {
    let (temp, root) = host();
    let own = temp.path().join("etc/virtfn/policies.d/zz-own.yaml");
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    std::fs::write(&own, "kind: SriovNetworkNodePolicy\n").unwrap();
    install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
    uninstall(&root, &mut NoPrograms, &Uninterrupted).unwrap();
    assert!(own.exists());
}

/// Refuses `kept()` on a host that `prepare` changed, and changes nothing.
#[track_caller]
fn check_refused(prepare: impl FnOnce(&Path), wanted: &Kept, code: &str) -> PersistError {
    let (temp, root) = host();
    prepare(temp.path());
    let before = tree(temp.path());
    let error = install(&root, wanted, &mut NoPrograms, &Uninterrupted).unwrap_err();
    assert_eq!(model::Explain::code(&error).as_str(), code, "{error}");
    assert!(model::Explain::remedy(&error).is_some(), "{error}");
    assert_eq!(tree(temp.path()), before);
    error
}

#[test]
fn files_of_others_are_never_touched() {
    let unit = "etc/systemd/system/virtfn-pre-network.service";
    let foreign = |host: &Path| std::fs::write(host.join(unit), "[Unit]\n").unwrap();
    let error = check_refused(foreign, &kept(), "file-in-the-way");
    assert_eq!(
        error.to_string(),
        "/etc/systemd/system/virtfn-pre-network.service is in the way: it is a file that virtfn did \
         not write"
    );
    let masked = |host: &Path| symlink("/dev/null", host.join(unit)).unwrap();
    let error = check_refused(masked, &kept(), "file-in-the-way");
    assert!(model::Explain::remedy(&error).unwrap().contains("unmask"));
    let wants = "etc/systemd/system/multi-user.target.wants";
    let elsewhere = |host: &Path| {
        std::fs::create_dir(host.join(wants)).unwrap();
        let link = format!("{wants}/virtfn-pre-network.service");
        symlink("/opt/x.service", host.join(link)).unwrap();
    };
    check_refused(elsewhere, &kept(), "file-in-the-way");
    let dir =
        |host: &Path| std::fs::create_dir(host.join("etc/udev/rules.d/10-virtfn.rules")).unwrap();
    check_refused(dir, &kept(), "file-in-the-way");
}

#[test]
fn a_file_that_somebody_made_his_own_stays_and_is_told() {
    let (temp, root) = host();
    install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
    let rules = temp.path().join("etc/udev/rules.d/10-virtfn.rules");
    let text = std::fs::read_to_string(&rules).unwrap();
    let (_marker, mine) = text.split_once('\n').unwrap();
    std::fs::write(&rules, mine).unwrap();
    let again = install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap_err();
    assert_eq!(model::Explain::code(&again).as_str(), "file-in-the-way");
    assert_eq!(look(&root).unwrap().edited.len(), 1);
    let gone = uninstall(&root, &mut NoPrograms, &Uninterrupted).unwrap();
    assert_eq!(gone.left, ["/etc/udev/rules.d/10-virtfn.rules"]);
    assert_eq!(std::fs::read_to_string(&rules).unwrap(), mine);
    assert_eq!(installed(&root).unwrap(), Installed::Absent);
}

#[test]
fn a_program_that_others_can_replace_is_not_run_at_boot() {
    let program = |mode: u32| {
        move |host: &Path| {
            let path = host.join("usr/bin/virtfn");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    check_refused(program(0o775), &kept(), "not-for-boot");
    check_refused(program(0o644), &kept(), "not-for-boot");
    for path in [
        "/usr/bin/absent",
        "/tmp/virtfn",
        "/usr/bin",
        "virtfn",
        "/usr/bin/virt fn",
    ] {
        let mut wanted = kept();
        wanted.boot.program = path.into();
        check_refused(|_| {}, &wanted, "not-for-boot");
    }
    let mut wanted = kept();
    wanted.boot.node_labels = [("a".to_owned(), "b\nExecStart=/bin/sh".to_owned())].into();
    check_refused(|_| {}, &wanted, "not-for-boot");
    wanted.policies.clear();
    check_refused(|_| {}, &wanted, "nothing-to-keep");
}

/// Runs `install` and dies at the n-th write, rename, link, removal or new directory; `None` when
/// it came through.
fn killed_install(root: &HostRoot, wanted: &Kept, at: u32) -> Option<()> {
    let files = Files::new(root);
    let edits = edit::to_install(&files, wanted).unwrap();
    files.killed_at.set(Some(at));
    edit::perform(&files, &edits, &Uninterrupted)
        .is_err()
        .then_some(())
}

#[test]
fn a_run_killed_anywhere_is_harmless_and_completed_by_the_next() {
    let (wanted_temp, wanted_root) = host();
    install(
        &wanted_root,
        &without_pfs(),
        &mut NoPrograms,
        &Uninterrupted,
    )
    .unwrap();
    let strip = |temp: &tempfile::TempDir| {
        let root = temp.path().display().to_string();
        let tree = tree(temp.path());
        let relative = |(path, what): (String, String)| (path.replace(&root, ""), what);
        let mut tree: BTreeMap<_, _> = tree.into_iter().map(relative).collect();
        // Directories of the first installation are still noted.
        tree.retain(|path, _| !path.contains("persist.dirs"));
        tree
    };
    for at in 0.. {
        // First onto an empty host …
        let (temp, root) = host();
        let before = tree(temp.path());
        let first = killed_install(&root, &kept(), at);
        if first.is_some() {
            assert_ne!(installed(&root).unwrap(), Installed::Enabled, "at {at}");
        }
        uninstall(&root, &mut NoPrograms, &Uninterrupted).unwrap();
        assert_eq!(tree(temp.path()), before, "killed at {at}, uninstalled");
        killed_install(&root, &kept(), at);
        install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
        assert_eq!(installed(&root).unwrap(), Installed::Enabled);
        // … then from one set of policies to another.
        let second = killed_install(&root, &without_pfs(), at);
        install(&root, &without_pfs(), &mut NoPrograms, &Uninterrupted).unwrap();
        let left = strip(&temp);
        for (path, what) in strip(&wanted_temp) {
            assert_eq!(left.get(&path), Some(&what), "{path}, killed at {at}");
        }
        let litter = left.keys().find(|path| path.contains("virtfn-new"));
        assert_eq!(litter, None, "killed at {at}");
        if first.is_none() && second.is_none() {
            assert!(at > 15, "only {at} places to be killed at");
            return;
        }
    }
}

#[test]
fn a_removal_killed_anywhere_leaves_no_trace_after_the_next() {
    for at in 0.. {
        let (temp, root) = host();
        let before = tree(temp.path());
        install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
        let files = Files::new(&root);
        let edits = edit::to_uninstall(&files, &mut Vec::new());
        files.killed_at.set(Some(at));
        let is_killed = edit::perform(&files, &edits, &Uninterrupted).is_err();
        uninstall(&root, &mut NoPrograms, &Uninterrupted).unwrap();
        assert_eq!(tree(temp.path()), before, "killed at {at}");
        if !is_killed {
            assert!(at > 10, "only {at} places to be killed at");
            return;
        }
    }
}

#[test]
fn a_file_that_cannot_be_removed_does_not_keep_the_others() {
    let (temp, root) = host();
    install(&root, &kept(), &mut NoPrograms, &Uninterrupted).unwrap();
    // A directory in the place of a list: it cannot be read as one.
    let dirs = temp.path().join("etc/modules-load.d");
    std::fs::remove_dir_all(&dirs).unwrap();
    symlink("modules-load.d", &dirs).unwrap();
    let error = uninstall(&root, &mut NoPrograms, &Uninterrupted).unwrap_err();
    assert!(!error.failures.is_empty());
    assert!(error.outcome.changes.len() >= 7, "{error}");
    assert!(!temp.path().join("etc/virtfn/policies.d").exists());
}

#[test]
fn only_pfs_of_ours_are_kept() {
    let pf = |address: &str, num_vfs, externally_managed| model::PfDesired {
        pf: address.parse().unwrap(),
        name: Some("ens1f0".parse().unwrap()),
        num_vfs,
        mtu: None,
        link_type: None,
        eswitch: Some(EswitchMode::Switchdev),
        externally_managed,
        groups: Vec::new(),
    };
    let pfs = [
        pf("0000:3b:00.0", 4, false),
        pf("0000:3b:00.1", 4, true),
        pf("0000:3b:00.2", 0, false),
    ];
    let wanted = Desired {
        pfs: pfs.into_iter().map(|pf| (pf.pf, pf)).collect(),
        ..Desired::default()
    };
    let kept = kept_pfs(&wanted, &Inventory::default());
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].switchdev_vfs, Some(4));
}

/// systemd itself, where it is installed, has nothing to say against the units.
#[test]
fn systemd_accepts_the_units() {
    let Ok(version) = std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output()
    else {
        return;
    };
    assert!(version.status.success());
    let temp = tempfile::tempdir().unwrap();
    let mut wanted = kept();
    wanted.boot.program = "/bin/true".into();
    let mut units = Vec::new();
    for file in render::files(&wanted).unwrap() {
        if let Some(name) = file.path.strip_prefix("/etc/systemd/system/") {
            let path = temp.path().join(name);
            std::fs::write(&path, file.text).unwrap();
            units.push(path);
        }
    }
    assert_eq!(units.len(), 2);
    let verified = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(units)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&verified.stderr);
    let about_ours: Vec<&str> = words
        .lines()
        .filter(|line| line.contains("virtfn"))
        .collect();
    assert!(
        verified.status.success() && about_ours.is_empty(),
        "{words}"
    );
}
