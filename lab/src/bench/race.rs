//! Runs programs in turn and measures each: what runs inside the machine.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Runs of each program before any is measured, so that files are in memory.
const WARM_UP: usize = 3;

/// Largest description of a race.
const LIMIT: u64 = 1024 * 1024;

/// Programs, each with its arguments, and how often each runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Race {
    pub(crate) runs: usize,
    /// What runs before each program, outside the measured time; empty for nothing.
    pub(crate) prepare: Vec<String>,
    pub(crate) programs: Vec<Vec<String>>,
}

impl Race {
    pub(crate) fn to_json(&self) -> String {
        let (runs, prepare, programs) = (self.runs, &self.prepare, &self.programs);
        json!({"runs": runs, "prepare": prepare, "programs": programs}).to_string()
    }

    fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("read the race")?;
        let runs = value["runs"].as_u64().context("the race has no runs")?;
        Ok(Self {
            runs: usize::try_from(runs)?,
            prepare: serde_json::from_value(value["prepare"].clone())
                .context("the race has no preparation")?,
            programs: serde_json::from_value(value["programs"].clone())
                .context("the race has no programs")?,
        })
    }

    /// Returns the times of each program in milliseconds, in the order of its runs.
    fn run(&self) -> Result<Vec<Vec<f64>>> {
        let mut times = vec![Vec::with_capacity(self.runs); self.programs.len()];
        for round in 0..WARM_UP + self.runs {
            for (times, words) in times.iter_mut().zip(&self.programs) {
                if !self.prepare.is_empty() {
                    one(&self.prepare)?;
                }
                let milliseconds = one(words)?;
                if round >= WARM_UP {
                    times.push(milliseconds);
                }
            }
        }
        Ok(times)
    }
}

fn one(words: &[String]) -> Result<f64> {
    let (program, arguments) = words.split_first().context("a program has no name")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::inherit());
    let begun = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("start {program}"))?;
    let elapsed = begun.elapsed();
    ensure!(status.success(), "{program} ended with {status}");
    Ok(elapsed.as_secs_f64() * 1000.0)
}

/// Reads a race from standard input and returns its times as JSON.
pub(crate) fn run() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(LIMIT)
        .read_to_string(&mut text)
        .context("read the race")?;
    let times = Race::from_json(&text)?.run()?;
    Ok(serde_json::to_string(&times)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn race(programs: &[&str]) -> Race {
        Race {
            runs: 2,
            prepare: Vec::new(),
            programs: programs
                .iter()
                .map(|name| vec![(*name).to_owned()])
                .collect(),
        }
    }

    #[test]
    fn a_race_survives_the_way_into_the_machine() {
        let sent = race(&["true", "false"]);
        assert_eq!(Race::from_json(&sent.to_json()).unwrap(), sent);
        assert!(Race::from_json("{}").is_err());
    }

    #[test]
    fn every_program_is_measured_as_often_and_must_succeed() {
        let times = race(&["true", "true"]).run().unwrap();
        assert_eq!(times.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        let error = race(&["false"]).run().unwrap_err();
        assert!(error.to_string().starts_with("false ended with"), "{error}");
    }
}
