//! Building what the demo and the lab tests run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Cargo profile of everything that runs in the lab.
const PROFILE: &str = "lab";

/// Tests that run inside a machine, as package and test target: the crates' own, from the lowest
/// layer up, then those of the whole.
const GUEST_TESTS: [(&str, &str); 7] = [
    ("netlink", "igb"),
    ("host", "observe_igb"),
    ("host", "change_igb"),
    ("host", "release_igb"),
    ("host", "switch_igb"),
    ("host", "vfio_igb"),
    ("lab", "guest"),
];

/// Programs that were built and are up to date.
pub(crate) struct Built {
    /// `virtfn`.
    pub(crate) virtfn: PathBuf,
    /// `virtfn-lab`.
    pub(crate) lab: PathBuf,
    /// `virtfn-cni`.
    pub(crate) cni: PathBuf,
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.virtfn.display(), self.lab.display())
    }
}

impl Built {
    /// Runs `virtfn-lab demo` with the `virtfn` that was built.
    pub(crate) fn demo(&self, arguments: &[String]) -> Result<()> {
        let mut demo = Command::new(&self.lab);
        demo.arg("demo")
            .arg("--virtfn")
            .arg(&self.virtfn)
            .args(arguments);
        run(&mut demo)
    }
}

/// Builds `virtfn`, `virtfn-lab` and `virtfn-cni`.
pub(crate) fn binaries() -> Result<Built> {
    let built = cargo_build(&[
        "build",
        "--package",
        "cli",
        "--package",
        "lab",
        "--package",
        "cni",
        "--bins",
    ])?;
    Ok(Built {
        virtfn: executable(&built, "virtfn")?,
        lab: executable(&built, "virtfn-lab")?,
        cni: executable(&built, "virtfn-cni")?,
    })
}

/// Runs `virtfn-lab bench` with the programs that were built.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let built = binaries()?;
    let which = arguments.first().context("name a bench")?;
    let mut bench = Command::new(&built.lab);
    bench.arg("bench").args(arguments);
    match which.as_str() {
        "cni" => {
            bench.arg("--plugin").arg(plugin()?);
            // Started for each call as the plugin is, so without a loader either.
            let floor = static_program(&["--package", "host", "--example", "cni_floor"])?;
            bench.arg("--floor").arg(floor.join("examples/cni_floor"));
        }
        // It is held against fixed numbers, so it is what is shipped that counts.
        "agent" => {
            let shipped = cargo_build_as("release", &["build", "--package", "cli"])?;
            bench.arg("--virtfn").arg(executable(&shipped, "virtfn")?);
        }
        which => {
            let floor = format!("{which}_floor");
            let floors = cargo_build(&["build", "--package", "host", "--example", &floor])?;
            bench.arg("--virtfn").arg(&built.virtfn);
            bench.arg("--floor").arg(executable(&floors, &floor)?);
        }
    }
    run(&mut bench)
}

/// The platform that plugins are built for: with its name given, rustc links build scripts as usual
/// and the plugin statically.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Most bytes of the CNI plugin as it is shipped: it is started for each call.
const PLUGIN_SIZE: u64 = 3_000_000;

/// Builds a program as the CNI plugin is shipped, static; returns the directory of such programs.
fn static_program(what: &[&str]) -> Result<PathBuf> {
    let flags = format!(
        "target.{PLATFORM}.rustflags=[\"-C\",\"target-feature=+crt-static\",\"-C\",\"relocation-model=static\"]"
    );
    let dir = root().join("target/static");
    let mut build = cargo();
    build
        .args(["build", "--release", "--target", PLATFORM])
        .args(what)
        // Names of functions are for backtraces, of which a plugin that aborts writes none by itself.
        .args(["--config", "profile.release.strip=\"symbols\""])
        .args(["--config", &flags, "--target-dir"])
        .arg(&dir);
    run(&mut build)?;
    Ok(dir.join(PLATFORM).join("release"))
}

/// Builds the CNI plugin as it is shipped: one static program.
pub(crate) fn plugin() -> Result<PathBuf> {
    let plugin = static_program(&["--package", "cni"])?.join("virtfn-cni");
    let size = plugin
        .metadata()
        .with_context(|| format!("see the size of {}", plugin.display()))?
        .len();
    ensure!(
        size <= PLUGIN_SIZE,
        "{} has {size} bytes, and may have {PLUGIN_SIZE}",
        plugin.display()
    );
    Ok(plugin)
}

/// The programs of the tests that run inside a machine.
pub(crate) struct GuestTests {
    /// libtest binaries; on the host their tests are ignored, or they are not run at all.
    pub(crate) tests: Vec<PathBuf>,
    /// A `virtfn` that kills itself where a test tells it to.
    pub(crate) virtfn: PathBuf,
    /// A CNI plugin that does the same.
    pub(crate) cni: PathBuf,
}

/// Builds the tests that run inside a machine, and the programs that they use.
pub(crate) fn guest_tests() -> Result<GuestTests> {
    let mut tests = Vec::new();
    for (package, test) in GUEST_TESTS {
        let built = cargo_build(&["test", "--no-run", "--package", package, "--test", test])?;
        tests.push(executable(&built, test)?);
    }
    let mortal = cargo_build(&[
        "build",
        "--package",
        "cli",
        "--package",
        "cni",
        "--features",
        "cli/kill-points,cni/kill-points",
        "--target-dir",
        &root().join("target/kill-points").to_string_lossy(),
    ])?;
    Ok(GuestTests {
        tests,
        virtfn: executable(&mortal, "virtfn")?,
        cni: executable(&mortal, "virtfn-cni")?,
    })
}

/// Returns the root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Returns cargo, run at the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end, with our own standard streams.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("start {program}"))?;
    let name = Path::new(&program)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let first = command
        .get_args()
        .next()
        .map(|argument| argument.to_string_lossy().into_owned())
        .unwrap_or_default();
    ensure!(status.success(), "{name} {first} ended with {status}");
    Ok(())
}

/// Runs a cargo build and returns its messages, one JSON value each.
fn cargo_build(arguments: &[&str]) -> Result<Vec<Value>> {
    cargo_build_as(PROFILE, arguments)
}

fn cargo_build_as(profile: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = cargo()
        .args(arguments)
        .args([
            "--profile",
            profile,
            "--message-format",
            "json-render-diagnostics",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(
        output.status.success(),
        "cargo {} failed",
        arguments.join(" ")
    );
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).context("read cargo's messages"))
        .collect()
}

/// Returns the path of the executable that cargo says it built for target `name`.
fn executable(messages: &[Value], name: &str) -> Result<PathBuf> {
    let path = messages
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str());
    match path {
        Some(path) => Ok(path.into()),
        None => bail!("cargo built no executable {name}"),
    }
}
