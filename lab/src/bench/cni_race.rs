//! Calls CNI plugins in turn and measures each: what runs inside the machine.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Rounds before any is measured, so that files are in memory.
const WARM_UP: usize = 2;

/// Largest description of a race.
const LIMIT: u64 = 1024 * 1024;

/// Plugins, and the VFs that each of them gives away at once.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CniRace {
    pub(crate) runs: usize,
    pub(crate) plugins: Vec<Plugin>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) mode: String,
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) program: String,
    /// Is it the floor, with what a plugin must keep?
    pub(crate) keeps: bool,
}

/// A VF, with the namespace that it is given to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) vf: String,
    pub(crate) index: usize,
    pub(crate) pf: String,
    pub(crate) name: String,
    pub(crate) netns: String,
}

impl CniRace {
    pub(crate) fn to_json(&self) -> String {
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the times of ADD and DEL of each plugin, in milliseconds.
    fn run(&self) -> Result<Vec<[Vec<f64>; 2]>> {
        let mut times = vec![[Vec::new(), Vec::new()]; self.plugins.len()];
        for round in 0..WARM_UP + self.runs {
            for (times, plugin) in times.iter_mut().zip(&self.plugins) {
                for (times, command) in times.iter_mut().zip(["ADD", "DEL"]) {
                    let measured = self.at_once(plugin, command)?;
                    if round >= WARM_UP {
                        times.extend(measured);
                    }
                }
            }
        }
        Ok(times)
    }

    fn at_once(&self, plugin: &Plugin, command: &str) -> Result<Vec<f64>> {
        thread::scope(|scope| {
            let calls: Vec<_> = self
                .slots
                .iter()
                .map(|slot| scope.spawn(move || self.one(plugin, command, slot)))
                .collect();
            let ended = calls.into_iter().map(|call| {
                call.join()
                    .map_err(|_| anyhow!("a thread that calls a plugin panicked"))?
            });
            ended.collect()
        })
    }

    fn one(&self, plugin: &Plugin, command: &str, slot: &Slot) -> Result<f64> {
        let config = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "sriov",
            "deviceID": slot.vf, "vlan": 100,
        });
        let mut process = Command::new(&plugin.program);
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("bench-{}", slot.index))
            .env("CNI_NETNS", &slot.netns)
            .env("CNI_IFNAME", "net1")
            .env("CNI_PATH", "/usr/lib/cni")
            .env("BENCH_MODE", &self.mode)
            .env("BENCH_PF", &slot.pf)
            .env("BENCH_VF", &slot.vf)
            .env("BENCH_INDEX", slot.index.to_string())
            .env("BENCH_NAME", &slot.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if plugin.keeps {
            process.env("BENCH_KEEPS", "1");
        }
        let begun = Instant::now();
        let mut child = process
            .spawn()
            .with_context(|| format!("start {}", plugin.program))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(config.to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let elapsed = begun.elapsed();
        let is_tolerated = !output.status.success() && tolerated(plugin, command, &self.mode);
        if is_tolerated {
            // It leaves the file that says who has the VF, and whoever is next would believe it.
            let file = format!("/var/lib/cni/sriov/pci/{}", slot.vf);
            std::fs::remove_file(&file).with_context(|| format!("remove {file}"))?;
        }
        ensure!(
            output.status.success() || is_tolerated,
            "{} {command} of {}: {}{}",
            plugin.name,
            slot.vf,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(elapsed.as_secs_f64() * 1000.0)
    }
}

/// Upstream's plugin fails every first DEL of a VFIO device, after it did the work.
fn tolerated(plugin: &Plugin, command: &str, mode: &str) -> bool {
    let is_known = matches!(plugin.name.as_str(), "virtfn" | "floor" | "floor+record");
    !is_known && command == "DEL" && mode == "vfio"
}

/// Reads a race from standard input and returns its times as JSON.
pub(crate) fn run() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(LIMIT)
        .read_to_string(&mut text)
        .context("read the race")?;
    let race: CniRace = serde_json::from_str(&text).context("read the race")?;
    Ok(serde_json::to_string(&race.run()?)?)
}
