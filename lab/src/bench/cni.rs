//! The CNI plugin as a runtime calls it: one process per ADD and per DEL, on an igb NIC with all its
//! VFs, alone and several at once.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use lab::{Lab, Machine, Nic, Topology};
use serde_json::{Value, json};

use super::cni_race::{CniRace, Plugin, Slot};
use super::{percentile, program};

/// How many times the floor an ADD may take, alone and without IPAM.
pub(super) const BUDGET: f64 = 1.3;

/// How many VFs the emulated NIC has, and how many ADDs are made at once.
const VFS: usize = 7;
const PARALLEL: [usize; 3] = [1, 4, VFS];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct CniBench {
    /// The plugin to measure
    #[arg(long, value_name = "PATH", default_value = "virtfn-cni")]
    plugin: PathBuf,
    /// The program that sends the bare messages only: the example `cni_floor` of the crate `host`
    #[arg(long, value_name = "PATH")]
    floor: PathBuf,
    /// Another plugin, measured beside them; may be given more than once
    #[arg(long, value_name = "PATH")]
    against: Vec<PathBuf>,
    /// How often each runs
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// Measures and returns the result in the form that was asked for.
pub(crate) fn run(bench: &CniBench) -> Result<String> {
    ensure!(bench.runs > 0, "--runs 0 measures nothing");
    let mut plugins = vec![
        plugin("virtfn", &bench.plugin)?,
        plugin("floor", &bench.floor)?,
        Plugin {
            keeps: true,
            ..plugin("floor+record", &bench.floor)?
        },
    ];
    for path in &bench.against {
        plugins.push(plugin(&path.to_string_lossy(), path)?);
    }
    let nic = Nic::Igb { acs: true };
    let lab = Lab::boot(&Topology::bare(1).nic(nic))?;
    let machine = &lab[0];
    for (at, plugin) in plugins.iter_mut().enumerate() {
        // A plugin is what it is called: `sriov`.
        let dir = format!("/tmp/bench-{at}");
        let line = format!("mkdir -p {dir} && cp {} {dir}/sriov", plugin.program);
        machine.run(&line)?.check()?;
        plugin.program = format!("{dir}/sriov");
    }
    let mut cases = Vec::new();
    for mode in ["netdev", "vfio"] {
        let slots = prepare(machine, mode)?;
        for parallel in PARALLEL {
            let race = CniRace {
                runs: bench.runs,
                plugins: plugins.clone(),
                slots: slots[..parallel].to_vec(),
                mode: mode.to_owned(),
            };
            cases.extend(measure(machine, &race, parallel)?);
        }
    }
    Ok(match bench.output {
        Output::Json => json!({"bench": "cni", "cases": cases}).to_string(),
        Output::Table => table(&cases),
    })
}

fn plugin(name: &str, path: &std::path::Path) -> Result<Plugin> {
    Ok(Plugin {
        name: name.to_owned(),
        program: program(path)?.to_string_lossy().into_owned(),
        keeps: false,
    })
}

/// Makes the VFs afresh, with a namespace for each.
fn prepare(machine: &Machine, mode: &str) -> Result<Vec<Slot>> {
    let driver = if mode == "vfio" { "vfio-pci" } else { "igbvf" };
    let line = format!(
        "set -e; mkdir -p /var/lib/virtfn-bench; modprobe {driver}; cd /sys/bus/pci/devices/0000:01:00.0; \
         echo 0 > sriov_numvfs; echo 0 > sriov_drivers_autoprobe; echo {VFS} > sriov_numvfs; \
         ip link set $(ls net) up; \
         for i in 0 1 2 3 4 5 6; do \
           v=$(basename $(readlink virtfn$i)); d=/sys/bus/pci/devices/$v; \
           echo {driver} > $d/driver_override; echo $v > /sys/bus/pci/drivers_probe; \
           [ -e /run/netns/p$i ] || ip netns add p$i; \
           n=; [ {mode} = vfio ] || until n=$(ls $d/net 2>/dev/null) && [ -n \"$n\" ]; do :; done; \
           echo $v $(ls net) ${{n:--}}; done"
    );
    let output = machine.run(&line)?.check()?;
    let slots = output.lines().enumerate().map(|(index, line)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [vf, pf, name] = words[..] else {
            anyhow::bail!("the machine said {line:?} of a VF");
        };
        Ok(Slot {
            vf: vf.to_owned(),
            pf: pf.to_owned(),
            name: name.to_owned(),
            index,
            netns: format!("/run/netns/p{index}"),
        })
    });
    let slots: Vec<Slot> = slots.collect::<Result<_>>()?;
    ensure!(slots.len() == VFS, "the machine has {} VFs", slots.len());
    Ok(slots)
}

fn measure(machine: &Machine, race: &CniRace, parallel: usize) -> Result<Vec<Value>> {
    let ourselves = std::env::current_exe().context("find virtfn-lab's own file")?;
    let output = machine
        .command([ourselves.as_os_str(), "cni-race".as_ref()])
        .stdin(race.to_json().as_bytes())
        .output()?
        .check()?;
    let measured: Vec<[Vec<f64>; 2]> =
        serde_json::from_str(&output).context("read the times that were measured")?;
    let sorted = |times: &Vec<f64>| {
        let mut times = times.clone();
        times.sort_unstable_by(f64::total_cmp);
        times
    };
    let measured: Vec<_> = measured
        .iter()
        .map(|[add, del]| (sorted(add), sorted(del)))
        .collect();
    let floor = measured
        .get(1)
        .map_or(f64::NAN, |(add, _)| percentile(add, 50));
    let cases = race
        .plugins
        .iter()
        .zip(&measured)
        .map(|(plugin, (add, del))| {
            json!({
                "plugin": plugin.name,
                "mode": race.mode,
                "parallel": parallel,
                "add_p50_ms": rounded(percentile(add, 50)),
                "add_p99_ms": rounded(percentile(add, 99)),
                "del_p50_ms": rounded(percentile(del, 50)),
                "ratio_to_floor": rounded(percentile(add, 50) / floor),
            })
        });
    Ok(cases.collect())
}

/// Writes the cases for people.
fn table(cases: &[Value]) -> String {
    let mut lines = vec![format!(
        "{:<24} {:<7} {:>8} {:>9} {:>9} {:>9} {:>8}",
        "PLUGIN", "MODE", "PARALLEL", "ADD P50", "ADD P99", "DEL P50", "X FLOOR"
    )];
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| format!("{:.2}", case[key].as_f64().unwrap_or(f64::NAN));
        lines.push(format!(
            "{:<24} {:<7} {:>8} {:>9} {:>9} {:>9} {:>8}",
            text("plugin"),
            text("mode"),
            case["parallel"].to_string(),
            number("add_p50_ms"),
            number("add_p99_ms"),
            number("del_p50_ms"),
            number("ratio_to_floor"),
        ));
    }
    lines.push(format!(
        "times in milliseconds; the budget of virtfn is {BUDGET} x floor"
    ));
    lines.join("\n")
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
