use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fixtures::{igb, inventory, mlx5, parsed};
use model::{Desired, Inventory};

use super::*;

const UPSTREAM: &str = r#"{"pciAddress":"0000:3b:00.0","numVfs":8,"mtu":9000,"name":"ens1f0","vfGroups":[{"resourceName":"fast","deviceType":"vfio-pci","vfRange":"0-7","policyName":"p1"}]}"#;
const RECORD: &str = "/etc/sriov-operator/pci/0000:3b:00.0";

/// A host with a state directory, both empty.
struct Machine {
    dir: tempfile::TempDir,
    root: HostRoot,
    state: StateDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = HostRoot::open(dir.path()).unwrap();
        let state = StateDir::new(dir.path().join("var/lib/virtfn"), dir.path().join("run"));
        Self { dir, root, state }
    }

    fn ledger(&self) -> PfLedger<'_> {
        PfLedger::new(&self.root, &self.state)
    }

    fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = in_root(self.dir.path(), path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(in_root(self.dir.path(), path)).ok()
    }
}

fn in_root(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn pf() -> PciAddress {
    parsed("0000:3b:00.0")
}

fn seen(mtu: u32) -> Inventory {
    inventory([mlx5("0000:3b:00.0", "ens1f0").netdev(|netdev| netdev.mtu = mtu)])
}

fn wanted(text: &str) -> PfDesired {
    let record = PfRecord::parse(pf(), text.as_bytes()).unwrap();
    PfDesired::try_from(&record.interface).unwrap()
}

#[test]
fn a_host_without_records_owns_nothing() {
    let machine = Machine::new();
    let owned = machine.ledger().read().unwrap();
    assert!(owned.pfs.is_empty() && owned.damaged.is_empty());
}

#[test]
fn what_upstream_configured_is_owned_and_given_back_to_what_it_noted() {
    let machine = Machine::new();
    machine.write(RECORD, UPSTREAM);
    machine.write(
        "/tmp/sno-initial-node-state.json",
        r#"{"metadata":{"creationTimestamp":null},"spec":{"bridges":{},"system":{}},"status":
            {"interfaces":[{"name":"ens1f0","pciAddress":"0000:3b:00.0","mtu":4000,"eSwitchMode":"legacy",
            "Vfs":[{"pciAddress":"0000:3b:00.2","vfID":0}]},{"pciAddress":"odd","mtu":-1}],"bridges":{},"system":{}}}"#,
    );
    let owned = machine.ledger().read().unwrap();
    let release = policy::release(&seen(9000), &Desired::default(), &owned.owned());
    let steps: Vec<_> = release.plans[0]
        .steps
        .iter()
        .map(|s| s.step.to_string())
        .collect();
    assert_eq!(steps, ["set mtu 4000"]);
}

#[test]
fn a_note_that_everybody_could_have_written_is_not_believed() {
    let machine = Machine::new();
    machine.write(RECORD, UPSTREAM);
    let note = r#"{"status":{"interfaces":[{"pciAddress":"0000:3b:00.0","mtu":68}]}}"#;
    let path = machine.write("/tmp/sno-initial-node-state.json", note);
    let original = || machine.ledger().read().unwrap().pfs[&pf()].original.mtu;
    assert_eq!(original(), Mtu::new(68));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(original(), None);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(machine.write("/home/x", note), &path).unwrap();
    assert_eq!(original(), None, "a link was followed");
}

#[test]
fn a_record_is_written_as_upstream_writes_it_and_only_when_it_changes() {
    let machine = Machine::new();
    let ledger = machine.ledger();
    ledger.own(&wanted(UPSTREAM)).unwrap();
    assert_eq!(machine.text(RECORD).as_deref(), Some(UPSTREAM));
    let path = in_root(machine.dir.path(), RECORD);
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    ledger.own(&wanted(UPSTREAM)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    let fewer = PfDesired {
        num_vfs: 4,
        ..wanted(UPSTREAM)
    };
    ledger.own(&fewer).unwrap();
    assert!(machine.text(RECORD).unwrap().contains("\"numVfs\":4"));
}

#[test]
fn what_a_pf_had_at_first_is_noted_once() {
    let machine = Machine::new();
    let ledger = machine.ledger();
    ledger.note_original(seen(4000).get(pf()).unwrap()).unwrap();
    ledger.own(&wanted(UPSTREAM)).unwrap();
    ledger.note_original(seen(9000).get(pf()).unwrap()).unwrap();
    let original = ledger.read().unwrap().pfs[&pf()].original;
    assert_eq!(original.mtu, Mtu::new(4000));
    assert_eq!(original.autoprobe, Some(true));
}

#[test]
fn of_a_pf_that_upstream_configured_only_autoprobe_is_noted() {
    let machine = Machine::new();
    machine.write(RECORD, UPSTREAM);
    let ledger = machine.ledger();
    let note = r#"{"status":{"interfaces":[{"pciAddress":"0000:3b:00.0","mtu":4000}]}}"#;
    machine.write("/tmp/sno-initial-node-state.json", note);
    ledger.note_original(seen(9000).get(pf()).unwrap()).unwrap();
    let noted = Original {
        mtu: Mtu::new(4000),
        autoprobe: Some(true),
        ..Original::default()
    };
    assert_eq!(ledger.read().unwrap().pfs[&pf()].original, noted);
}

#[test]
fn a_forgotten_pf_leaves_nothing() {
    let machine = Machine::new();
    let ledger = machine.ledger();
    ledger.note_original(seen(4000).get(pf()).unwrap()).unwrap();
    ledger.own(&wanted(UPSTREAM)).unwrap();
    ledger.disown(pf()).unwrap();
    ledger.disown(pf()).unwrap();
    assert!(ledger.read().unwrap().pfs.is_empty());
    assert!(!machine.state.original(pf()).exists());
}

#[test]
fn a_damaged_record_is_no_proof_and_is_kept_aside_when_asked() {
    let machine = Machine::new();
    let ledger = machine.ledger();
    for (text, reason) in [
        ("", "the file is empty"),
        (&UPSTREAM[..30], "the file is not what the operator writes"),
        (
            r#"{"pciAddress":"0000:3b:00.1"}"#,
            "the file is about \"0000:3b:00.1\"",
        ),
    ] {
        machine.write(RECORD, text);
        let owned = ledger.read().unwrap();
        assert!(owned.pfs.is_empty());
        let [damaged] = owned.damaged.as_slice() else {
            panic!("{:?}", owned.damaged)
        };
        assert_eq!(damaged.to_string(), format!("record {RECORD} of a PF"));
        assert_eq!(damaged.source.to_string(), reason);
        assert_eq!(
            machine.text(RECORD).as_deref(),
            Some(text),
            "reading changed it"
        );
        let kept = ledger.keep_aside(damaged).unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), text);
        let owned = ledger.read().unwrap();
        assert!(owned.damaged.is_empty() && owned.pfs.is_empty());
    }
}

#[test]
fn a_damaged_record_of_a_wanted_pf_is_replaced() {
    let machine = Machine::new();
    machine.write(RECORD, "{");
    machine.ledger().own(&wanted(UPSTREAM)).unwrap();
    assert_eq!(machine.text(RECORD).as_deref(), Some(UPSTREAM));
}

#[test]
fn what_is_no_record_is_passed_over() {
    let machine = Machine::new();
    machine.write(RECORD, UPSTREAM);
    machine.write(&format!("{RECORD}.new"), "half");
    machine.write("/etc/sriov-operator/pci/README", "x");
    let owned = machine.ledger().read().unwrap();
    assert_eq!((owned.pfs.len(), owned.damaged.len()), (1, 0));
}

#[test]
fn a_directory_that_cannot_be_read_is_not_an_empty_one() {
    let machine = Machine::new();
    machine.write("/etc/sriov-operator/pci", "a file");
    // Not a directory: nothing there can be a record.
    assert!(machine.ledger().read().unwrap().pfs.is_empty());
    let machine = Machine::new();
    fs::create_dir_all(in_root(machine.dir.path(), "/etc")).unwrap();
    std::os::unix::fs::symlink("loop", in_root(machine.dir.path(), "/etc/loop")).unwrap();
    std::os::unix::fs::symlink("loop", in_root(machine.dir.path(), "/etc/sriov-operator")).unwrap();
    let error = machine.ledger().read().unwrap_err();
    assert_eq!(error.code(), Code::new("pf-records-unreadable"));
}

#[test]
fn the_lab_nic_is_owned_and_released_in_full() {
    let machine = Machine::new();
    let ledger = machine.ledger();
    let before = inventory([igb("0000:01:00.0", "ens1")]);
    let address: PciAddress = parsed("0000:01:00.0");
    ledger.note_original(before.get(address).unwrap()).unwrap();
    let wanted = PfDesired {
        pf: address,
        num_vfs: 7,
        ..wanted(UPSTREAM)
    };
    ledger.own(&wanted).unwrap();
    let after = inventory([igb("0000:01:00.0", "ens1")
        .with_vfs(7)
        .netdev(|netdev| netdev.mtu = 9000)]);
    let owned = ledger.read().unwrap().owned();
    let release = policy::release(&after, &Desired::default(), &owned);
    let steps: Vec<_> = release.plans[0]
        .steps
        .iter()
        .map(|s| s.step.to_string())
        .collect();
    assert_eq!(steps, ["have 0 VFs", "set mtu 1500"]);
}
