use std::fs;
use std::os::unix::fs::PermissionsExt;

use host::persist::{BootApply, Kept as Keeping, StoredPolicy, install};
use host::{Call, End, HostRoot, LastPf, ProgramError, Programs, RecordedStep, StateDir};
use model::{Step, VfIndex};

use super::*;
use crate::testing;

const POLICY: &str = "\
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: rack-a}
spec:
  resourceName: fast
  nodeSelector: {rack: a}
  nicSelector: {pfNames: ['ens1f0#0-1']}
  numVfs: 5
  mtu: 9000
---
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: dpdk}
spec:
  resourceName: dpdk
  nodeSelector: {}
  nicSelector: {pfNames: ['ens1f0#2-4']}
  numVfs: 5
  deviceType: vfio-pci
";

/// No program is run for a root that is not `/`.
struct NoPrograms;

impl Programs for NoPrograms {
    fn run(&mut self, call: &Call<'_>) -> Result<Vec<u8>, ProgramError> {
        panic!("ran {}", call.program)
    }
}

/// A host that keeps the policies, seen as in `testing`.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        host.write("usr/bin/virtfn", "program");
        let program = host.path("usr/bin/virtfn");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        host.write("proc/sys/kernel/random/boot_id", "boot-2\n");
        fs::create_dir_all(host.path("etc")).unwrap();
        host
    }

    fn keeping() -> Self {
        let host = Self::new();
        let had = model::VfState {
            vlan: Some(None),
            mac: Some("02:00:00:00:10:01".parse().unwrap()),
            ..model::VfState::default()
        };
        let kept = Keeping {
            policies: vec![StoredPolicy {
                source: "p.yaml".to_owned(),
                text: POLICY.to_owned(),
            }],
            boot: BootApply {
                program: "/usr/bin/virtfn".into(),
                node_labels: [("rack".to_owned(), "a".to_owned())].into(),
                allow_default_route: false,
            },
            pfs: Vec::new(),
            vfs: [(pf(), [(VfIndex(1), had)].into())].into(),
            modules: Vec::new(),
        };
        install(&host.root(), &kept, &mut NoPrograms, &host::Uninterrupted).unwrap();
        host
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn root(&self) -> HostRoot {
        HostRoot::open(self.dir.path()).unwrap()
    }

    fn report(&self) -> Report {
        let mut report = Report {
            host: Some("worker-17".to_owned()),
            seen: testing::inventory(),
            ..Report::default()
        };
        let args = StatusArgs {
            files: Vec::new(),
            node_labels: Vec::new(),
            check: false,
            output: StatusOutput::Text,
            state: crate::args::StateArgs { recorded: None },
        };
        let root = self.root();
        let state = StateDir::new(self.path("var/lib/virtfn"), self.path("run/virtfn"));
        let mut wanted = None;
        let (_, err) = testing::spoken(|ui| {
            wanted = gather::kept(&mut report, &args, &root, ui);
        });
        assert_eq!(err, "");
        gather::remembered(&mut report, &root, &state);
        if let Some(wanted) = &wanted {
            gather::compare(&mut report, wanted, &root, &state, false);
        }
        // What the kernel offers is not what is tested here.
        if let Some(decision) = &mut report.decision {
            decision.kernel = policy::kernel::KernelNeeds::default();
        }
        report
            .findings
            .retain(|f| !f.code.as_str().starts_with("module"));
        report
            .findings
            .retain(|f| !f.code.as_str().starts_with("iommu"));
        report
    }

    fn shown(&self, report: &Report) -> String {
        let dir = self.dir.path().to_string_lossy();
        plain(report).replace(&*dir, "")
    }
}

/// Renders as a pipe gets it: without colours.
fn plain(report: &Report) -> String {
    testing::spoken(|ui| ui.result(&render::render(report))).0
}

fn pf() -> PciAddress {
    "0000:3b:00.0".parse().unwrap()
}

fn vf(index: u16) -> PciAddress {
    format!("0000:3b:10.{index}").parse().unwrap()
}

fn last(ended: Option<End>, failed: Option<&str>) -> Last {
    let step = |step| RecordedStep {
        step,
        undo: None,
        before: None,
    };
    let steps = vec![
        step(Step::SetNumVfs { pf: pf(), count: 5 }),
        step(Step::AwaitNetdev { function: vf(0) }),
    ];
    Last {
        apply: LastApply {
            boot: host::BootId::new("boot-2"),
            pid: 4711,
            began: 1_000,
            pfs: vec![LastPf {
                pf: pf(),
                made: if failed.is_some() || ended.is_none() {
                    1
                } else {
                    2
                },
                begun: ended.is_none(),
                failed: failed.map(|error| host::FailedStep {
                    at: 1,
                    error: error.to_owned(),
                }),
                steps,
            }],
            starved: BTreeMap::new(),
            ended,
        },
        is_here: true,
        runs: None,
        ago: 312,
    }
}

#[test]
fn a_host_that_drifted_is_told_vf_by_vf() {
    let host = Host::keeping();
    insta::assert_snapshot!("drift", host.shown(&host.report()));
}

#[test]
fn a_host_without_policies_is_told_as_it_is() {
    let host = Host::new();
    let report = host.report();
    assert!(report.is_well());
    insta::assert_snapshot!("no-policies", host.shown(&report));
}

#[test]
fn what_became_of_the_last_apply_is_told() {
    let end = |failed_pfs| {
        Some(End {
            at: 1_500,
            failed_pfs,
        })
    };
    let host = Host::new();
    let mut told = String::new();
    for (what, mut last) in [
        ("done", last(end(0), None)),
        (
            "failed",
            last(end(1), Some("wait for the netdev: not there after 120 s")),
        ),
        ("died", last(None, None)),
    ] {
        for is_here in [true, false] {
            last.is_here = is_here;
            let mut report = host.report();
            report.last = Some(Last {
                apply: last.apply.clone(),
                ..last
            });
            let sync = sync::sync(&report);
            let text = plain(&report);
            let lines = text.lines().skip(2).take_while(|line| !line.is_empty());
            let lines: Vec<&str> = lines.collect();
            told.push_str(&format!(
                "{what}, in this boot: {is_here}\n{}\n  {:?} {:?}, well: {}\n",
                lines.join("\n"),
                sync.status,
                sync.last_error,
                report.is_well()
            ));
        }
    }
    let mut running = last(None, None);
    running.runs = Some(4711);
    let mut report = host.report();
    report.last = Some(running);
    assert!(matches!(
        sync::sync(&report).status,
        api::crd::SyncStatus::InProgress
    ));
    told.push_str(&plain(&report));
    insta::assert_snapshot!("last-apply", told);
}

#[test]
fn damaged_files_are_told_and_hide_nothing_else() {
    let host = Host::keeping();
    host.write("var/lib/virtfn/journal/apply.jsonl", "\0\0\0");
    host.write(
        "var/lib/virtfn/reboots.json",
        "{\"version\": 1, \"asked\": {",
    );
    host.write("etc/sriov-operator/pci/0000:3b:00.0", "");
    host.write("etc/udev/rules.d/10-virtfn.rules", "# mine now\n");
    let report = host.report();
    assert!(!report.is_well());
    insta::assert_snapshot!("damaged", host.shown(&report));
    for path in [
        "var/lib/virtfn/journal/apply.jsonl",
        "var/lib/virtfn/reboots.json",
        "etc/sriov-operator/pci/0000:3b:00.0",
    ] {
        assert!(host.path(path).exists(), "{path} was moved");
    }
}

#[test]
fn bad_policies_and_a_half_made_installation_are_told() {
    let host = Host::keeping();
    host.write("etc/virtfn/policies.d/zz.yaml", "kind: [");
    fs::remove_file(
        host.path("etc/systemd/system/multi-user.target.wants/virtfn-pre-network.service"),
    )
    .unwrap();
    let report = host.report();
    assert!(!report.is_well());
    insta::assert_snapshot!("half-kept", host.shown(&report));
}

#[test]
fn a_pf_that_nobody_wants_any_more_is_told() {
    let host = Host::keeping();
    host.write(
        "etc/sriov-operator/pci/0000:3b:00.0",
        r#"{"pciAddress":"0000:3b:00.0","numVfs":5,"name":"ens1f0"}"#,
    );
    let policy = POLICY.replace("ens1f0", "ens1f1");
    host.write("etc/virtfn/policies.d/0001-p.yaml", &policy);
    insta::assert_snapshot!("unwanted", host.shown(&host.report()));
}

#[test]
fn pending_reboots_are_told_with_their_cause() {
    let host = Host::new();
    host.write(
        "var/lib/virtfn/reboots.json",
        r#"{"version":1,"asked":{"kernel argument intel_iommu=on":["boot-1","boot-2"],
            "kernel argument pci=realloc":["boot-1"]}}"#,
    );
    let report = host.report();
    assert!(!report.is_well());
    let text = plain(&report);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("reboot"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    reboot      pending, asked for kernel argument intel_iommu=on
    reboot      1 reboot asked for kernel argument pci=realloc before this boot
    ");
}

#[test]
fn upstreams_form_has_upstreams_words() {
    let host = Host::keeping();
    let mut report = host.report();
    report.last = Some(last(
        Some(End {
            at: 1,
            failed_pfs: 1,
        }),
        Some("busy"),
    ));
    let status = super::super::yaml(&upstreams(&report)).unwrap();
    insta::assert_snapshot!("upstream-yaml", status);
    let json = super::super::json(&upstreams(&report)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["syncStatus"], "Failed");
    assert_eq!(value["interfaces"][0]["Vfs"][1]["vfID"], 1);
}

#[test]
fn neighbours_that_differ_alike_are_one_line() {
    let mut report = Host::keeping().report();
    let differences = (0..64_u16).map(|vf| policy::Difference {
        vf: Some(VfIndex(vf)),
        what: "driver",
        wanted: "vfio-pci".to_owned(),
        seen: "igbvf".to_owned(),
    });
    report.standings[0].differences = differences.collect();
    let text = plain(&report);
    assert!(
        text.contains("ens1f0 vf 0-63: driver is igbvf, wanted vfio-pci\n"),
        "{text}"
    );
}
