//! `virtfn-lab bench`: what programs cost as whole processes, against a floor beside them.
//!
//! A timing is taken inside the machine, by [`race`], which runs the programs in turn (A B A B …)
//! so that a busy host slows all of them alike: only the ratio means something.

mod agent;
mod apply;
mod cni;
mod cni_race;
mod list;
mod race;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::Machine;

pub(crate) use agent::{AgentBench, run as agent};
pub(crate) use apply::{ApplyBench, run as apply};
pub(crate) use cni::{CniBench, run as cni};
pub(crate) use cni_race::run as cni_race;
pub(crate) use list::{ListBench, run as list};
pub(crate) use race::{Race, run as race};

/// Runs programs in turn on `machine` and returns the times of each, in milliseconds, sorted.
fn race_on(machine: &Machine, race: &Race) -> Result<Vec<Vec<f64>>> {
    let ourselves = std::env::current_exe().context("find virtfn-lab's own file")?;
    let output = machine
        .command([ourselves.as_os_str(), "race".as_ref()])
        .stdin(race.to_json().as_bytes())
        .output()?
        .check()?;
    let mut times: Vec<Vec<f64>> =
        serde_json::from_str(&output).context("read the times that were measured")?;
    for times in &mut times {
        times.sort_unstable_by(f64::total_cmp);
    }
    Ok(times)
}

/// Returns the value below which `percent` of sorted `times` are.
fn percentile(times: &[f64], percent: usize) -> f64 {
    let at = times.len().saturating_sub(1) * percent / 100;
    times.get(at).copied().unwrap_or(f64::NAN)
}

/// Returns the absolute path of a program: machines see the host's files under the same names.
fn program(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("find {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let times = [1.0, 2.0, 3.0, 4.0, 50.0];
        assert!((percentile(&times, 50) - 3.0).abs() < f64::EPSILON);
        assert!((percentile(&times, 99) - 4.0).abs() < f64::EPSILON);
        assert!(percentile(&[], 50).is_nan());
    }
}
