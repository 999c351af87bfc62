//! `virtfn apply` as a whole process: VFs on four NICs at once, against the slowest of them alone and
//! against the bare writes, also at once; and VFs on vfio-pci against the bare writes.
//!
//! What would surprise: in an emulated machine with few processors even the bare writes, made at once,
//! take several times as long as those for one NIC. So how far making PFs at once can help is told by
//! the bare writes (`floor_ratio_to_slowest`), and what virtfn adds to that by `ratio_to_all_floor`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use lab::{Lab, Machine, Nic, Topology};
use serde_json::json;

use super::{Race, percentile, program, race_on};

/// How many times the slowest PF alone all PFs together may take.
const PARALLEL_BUDGET: f64 = 1.5;

/// How many times the bare writes an apply may take.
const FLOOR_BUDGET: f64 = 1.2;

/// PFs of the machine, and the VFs that each can have.
const PFS: usize = 4;
const VFS: u16 = 7;

/// Brings the machine back to no VFs and no records, before each run.
const FORGET: &str = "for d in /sys/bus/pci/devices/*; do \
    [ ! -e $d/sriov_numvfs ] || { echo 0 > $d/sriov_numvfs; echo 1 > $d/sriov_drivers_autoprobe; }; \
    done; rm -rf /var/lib/virtfn/* /run/virtfn/* /etc/sriov-operator/*";

#[derive(Debug, Args)]
pub(crate) struct ApplyBench {
    /// The `virtfn` to measure
    #[arg(long, value_name = "PATH", default_value = "virtfn")]
    virtfn: PathBuf,
    /// The program that makes the bare writes only: the example `apply_floor` of the crate `host`
    #[arg(long, value_name = "PATH")]
    floor: PathBuf,
    /// How often each runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,
}

/// Measures and returns one JSON object; people read it as it is.
pub(crate) fn run(bench: &ApplyBench) -> Result<String> {
    ensure!(bench.runs > 0, "--runs 0 measures nothing");
    let virtfn = program(&bench.virtfn)?.to_string_lossy().into_owned();
    let floor = program(&bench.floor)?.to_string_lossy().into_owned();
    let mut topology = Topology::bare(1);
    for _pf in 0..PFS {
        topology = topology.nic(Nic::Igb { acs: true });
    }
    let lab = Lab::boot(&topology)?;
    let machine = &lab[0];
    machine
        .run("modprobe vfio-pci; for n in /sys/bus/pci/devices/*/net/*; do ip link set ${n##*/} up; done")?
        .check()?;
    let apply = |name: &str, pfs: &[usize], driver: &str| -> Result<Vec<String>> {
        let path = format!("/tmp/{name}.yaml");
        machine.write(&path, policy(name, pfs, driver).as_bytes())?;
        let words = [virtfn.as_str(), "apply", "-f", &path];
        Ok(words.map(str::to_owned).into())
    };
    let on = |programs| times(machine, bench.runs, programs);

    let all: Vec<usize> = (0..PFS).collect();
    let bare = |what: &str, pfs: &[usize]| {
        let mut words = vec![floor.clone(), what.to_owned(), VFS.to_string()];
        words.extend(pfs.iter().map(|pf| address(*pf)));
        words
    };
    let mut programs = vec![
        apply("all", &all, "netdevice")?,
        bare("netdevs", &all),
        bare("netdevs", &[0]),
    ];
    for pf in &all {
        programs.push(apply(&format!("pf{pf}"), &[*pf], "netdevice")?);
    }
    let parallel = on(programs)?;
    let vfio = on(vec![apply("vfio", &[0], "vfio-pci")?, bare("vfio", &[0])])?;
    let [together, all_bare, one_bare] = [0, 1, 2].map(|at| p50(&parallel, at));
    let alone = parallel.iter().skip(3);
    let slowest = alone.map(|times| percentile(times, 50)).fold(0.0, f64::max);
    let [ours, bare] = [0, 1].map(|at| p50(&vfio, at));
    let view = json!({
        "bench": "apply",
        "runs": bench.runs,
        "pfs": PFS,
        "vfs_per_pf": VFS,
        "all_pfs_p50_ms": rounded(together),
        "slowest_pf_p50_ms": rounded(slowest),
        "ratio_to_slowest": rounded(together / slowest),
        "ratio_to_slowest_budget": PARALLEL_BUDGET,
        "all_pfs_floor_p50_ms": rounded(all_bare),
        "one_pf_floor_p50_ms": rounded(one_bare),
        "floor_ratio_to_slowest": rounded(all_bare / one_bare),
        "ratio_to_all_floor": rounded(together / all_bare),
        "vfio_p50_ms": rounded(ours),
        "floor_p50_ms": rounded(bare),
        "ratio_to_floor": rounded(ours / bare),
        "ratio_to_floor_budget": FLOOR_BUDGET,
    });
    Ok(view.to_string())
}

fn times(machine: &Machine, runs: usize, programs: Vec<Vec<String>>) -> Result<Vec<Vec<f64>>> {
    let prepare = ["sh", "-c", FORGET].map(str::to_owned).into();
    race_on(
        machine,
        &Race {
            runs,
            prepare,
            programs,
        },
    )
}

/// Address of a NIC: each has a bus of its own.
fn address(pf: usize) -> String {
    format!("0000:{:02x}:00.0", pf + 1)
}

fn policy(name: &str, pfs: &[usize], driver: &str) -> String {
    let addresses: Vec<String> = pfs.iter().map(|pf| format!("'{}'", address(*pf))).collect();
    format!(
        "apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {{name: {name}}}
spec:
  resourceName: {name}
  nodeSelector: {{}}
  nicSelector: {{rootDevices: [{}]}}
  numVfs: {VFS}
  deviceType: {driver}
",
        addresses.join(", ")
    )
}

fn p50(times: &[Vec<f64>], at: usize) -> f64 {
    times
        .get(at)
        .map_or(f64::NAN, |times| percentile(times, 50))
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
