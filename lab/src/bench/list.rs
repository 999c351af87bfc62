//! `virtfn list` as a whole process, on two igb NICs with all their VFs and an NVMe controller.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use lab::{Lab, Nic, Topology};
use serde_json::json;

use super::{Race, percentile, program, race_on};

/// How many times the floor `virtfn list` may take.
const BUDGET: f64 = 3.0;

/// Creates every VF that there can be.
const ALL_VFS: &str = "for d in /sys/bus/pci/devices/*; do \
    [ ! -e $d/sriov_totalvfs ] || cat $d/sriov_totalvfs > $d/sriov_numvfs || exit 1; done";

#[derive(Debug, Args)]
pub(crate) struct ListBench {
    /// The `virtfn` to measure
    #[arg(long, value_name = "PATH", default_value = "virtfn")]
    virtfn: PathBuf,
    /// The program that makes the bare reads only: the example `list_floor` of the crate `host`
    #[arg(long, value_name = "PATH")]
    floor: PathBuf,
    /// How often each runs
    #[arg(long, value_name = "N", default_value_t = 50)]
    runs: usize,
}

/// Measures and returns one JSON object; people read it as it is.
pub(crate) fn run(bench: &ListBench) -> Result<String> {
    ensure!(bench.runs > 0, "--runs 0 measures nothing");
    let words = |path: &PathBuf, arguments: &[&str]| -> Result<Vec<String>> {
        let program = program(path)?.to_string_lossy().into_owned();
        let arguments = arguments.iter().map(ToString::to_string);
        Ok(std::iter::once(program).chain(arguments).collect())
    };
    let race = Race {
        runs: bench.runs,
        prepare: Vec::new(),
        programs: vec![
            words(&bench.virtfn, &["list"])?,
            words(&bench.floor, &[])?,
            vec!["true".to_owned()],
        ],
    };
    let nic = || Nic::Igb { acs: true };
    let lab = Lab::boot(&Topology::bare(1).nic(nic()).nic(nic()).nvme(4))?;
    lab[0].run(ALL_VFS)?.check()?;
    let times = race_on(&lab[0], &race)?;
    let [ours, floor, nothing] = [0, 1, 2].map(|at| percentile(&times[at], 50));
    let view = json!({
        "bench": "list",
        "pfs": 3,
        "vfs": 18,
        "runs": bench.runs,
        "list_p50_ms": rounded(ours),
        "floor_p50_ms": rounded(floor),
        "exec_p50_ms": rounded(nothing),
        "ratio_to_floor": rounded(ours / floor),
        "budget": BUDGET,
    });
    Ok(view.to_string())
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
