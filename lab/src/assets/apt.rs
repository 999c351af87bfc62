//! Packages from the Debian mirror that the host already uses, without touching the host.
//!
//! apt runs with directories of its own below the cache. Its one sources.list is derived from
//! the host's entries (both formats), so mirror, proxy and keyrings are the host's choice; the
//! backports suite, which lies on the same mirror, is added. The state file of the host's dpkg
//! is read, so that only what is missing is fetched. Nothing is installed.

mod sources;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::{Cache, os_release};
use sources::Source;

/// A private apt; it fetches lists at its first use.
pub(crate) struct Apt<'a> {
    dir: PathBuf,
    leash: &'a Path,
    say: &'a dyn Fn(&str),
    updated: bool,
}

/// Where a package comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// The host's own release.
    Release,
    /// The backports for it.
    Backports,
}

impl<'a> Apt<'a> {
    pub(crate) fn new(cache: &Cache, leash: &'a Path, say: &'a dyn Fn(&str)) -> Self {
        Self {
            dir: cache.path("apt"),
            leash,
            say,
            updated: false,
        }
    }

    /// Whether packages can be had at all.
    pub(crate) fn usable() -> bool {
        os_release("ID").as_deref() == Some("debian")
            && ["apt-get", "apt-cache", "dpkg-deb"]
                .iter()
                .all(|tool| super::on_host(tool).is_some())
    }

    /// The suite with new enough emulator and kernel: Debian 12 needs its backports.
    pub(crate) fn suite_for_lab() -> Suite {
        let version = os_release("VERSION_ID").and_then(|version| version.parse().ok());
        if version.is_some_and(|version: u32| version <= 12) {
            Suite::Backports
        } else {
            Suite::Release
        }
    }

    /// Tells the user that something slow happens.
    pub(crate) fn say(&self, text: &str) {
        (self.say)(text);
    }

    /// Fetches packages with all that they need and the host lacks, and unpacks them into `root`.
    pub(crate) fn unpack(&mut self, packages: &[&str], suite: Suite, root: &Path) -> Result<()> {
        self.update()?;
        let archives = self.dir.join("cache/archives");
        empty(&archives)?;
        let args = [
            "install",
            "--download-only",
            "--no-install-recommends",
            "--yes",
            "--quiet",
        ];
        self.run("apt-get", suite, &[&args[..], packages].concat())?;
        self.unpack_archives(&archives, root)
    }

    /// Fetches one package alone and unpacks it into `root`.
    pub(crate) fn unpack_alone(&mut self, package: &str, suite: Suite, root: &Path) -> Result<()> {
        self.update()?;
        let archives = self.dir.join("alone");
        empty(&archives)?;
        self.run_in(
            &archives,
            "apt-get",
            suite,
            &["download", "--quiet", package],
        )?;
        self.unpack_archives(&archives, root)
    }

    /// The packages that `package` depends on, by name.
    pub(crate) fn dependencies(&mut self, package: &str, suite: Suite) -> Result<Vec<String>> {
        self.update()?;
        let text = self.run("apt-cache", suite, &["show", "--no-all-versions", package])?;
        let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
        let names = depends
            .unwrap_or_default()
            .split(',')
            .filter_map(|one| one.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Removes what apt downloaded; the trees stay.
    pub(crate) fn clean(&self) {
        if self.updated {
            // Left behind it costs space, no more.
            fs::remove_dir_all(&self.dir).ok();
        }
    }

    fn update(&mut self) -> Result<()> {
        if self.updated {
            return Ok(());
        }
        ensure!(Self::usable(), "this host is no Debian with apt and dpkg");
        let codename =
            os_release("VERSION_CODENAME").context("/etc/os-release names no VERSION_CODENAME")?;
        let source = Source::of_host(&codename)?;
        empty(&self.dir)?;
        for dir in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.dir.join(dir)).with_context(|| format!("make apt's {dir}"))?;
        }
        let mut list = source.line(&codename);
        if Self::suite_for_lab() == Suite::Backports {
            list.push_str(&source.line(&format!("{codename}-backports")));
        }
        fs::write(self.dir.join("sources.list"), list).context("write apt's sources.list")?;
        self.say("reading the package lists of the host's Debian mirror");
        self.updated = true;
        self.run(
            "apt-get",
            Suite::Release,
            &["update", "--quiet", "--error-on=any"],
        )?;
        Ok(())
    }

    fn unpack_archives(&self, archives: &Path, root: &Path) -> Result<()> {
        for entry in
            fs::read_dir(archives).with_context(|| format!("list {}", archives.display()))?
        {
            let deb = entry?.path();
            if deb.extension() != Some(OsStr::new("deb")) {
                continue;
            }
            let args = [OsStr::new("--extract"), deb.as_os_str(), root.as_os_str()];
            output(
                Command::new(self.leash)
                    .args(["leash", &own_pid(), "dpkg-deb"])
                    .args(args),
            )
            .with_context(|| format!("unpack {}", deb.display()))?;
        }
        usr_merge(root)
    }

    fn run(&self, program: &str, suite: Suite, args: &[&str]) -> Result<String> {
        self.run_in(Path::new("/"), program, suite, args)
    }

    fn run_in(&self, cwd: &Path, program: &str, suite: Suite, args: &[&str]) -> Result<String> {
        let dir = self.dir.display();
        let mut command = Command::new(self.leash);
        command
            .args(["leash", &own_pid(), program])
            .current_dir(cwd)
            .env("LC_ALL", "C");
        for option in [
            format!("Dir::State={dir}/state"),
            format!("Dir::Cache={dir}/cache"),
            "Dir::State::status=/var/lib/dpkg/status".to_owned(),
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            // The lab's own lock guards these directories; the host's dpkg is only read.
            "Debug::NoLocking=true".to_owned(),
            // The sandbox user cannot write below a private home.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        if suite == Suite::Backports {
            let codename = os_release("VERSION_CODENAME").unwrap_or_default();
            command.args(["-t", &format!("{codename}-backports")]);
        }
        output(command.args(args)).with_context(|| format!("{program} {}", args.join(" ")))
    }
}

/// On a host whose /bin is a link into /usr, unpacked trees must have the same shape, or laying
/// them under the host's files would hide them.
fn usr_merge(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let here = root.join(name);
        if Path::new("/").join(name).is_symlink() && here.is_dir() && !here.is_symlink() {
            let target = Path::new("usr").join(name);
            merge(&here, &root.join(&target))?;
            std::os::unix::fs::symlink(&target, &here)
                .with_context(|| format!("link {}", here.display()))?;
        }
    }
    Ok(())
}

/// Moves all that is in one directory into another.
fn merge(from: &Path, into: &Path) -> Result<()> {
    if into.symlink_metadata().is_err() {
        if let Some(parent) = into.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        return fs::rename(from, into).with_context(|| format!("move {}", from.display()));
    }
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let (from, into) = entry.map(|entry| (entry.path(), into.join(entry.file_name())))?;
        if from.is_dir() && !from.is_symlink() {
            merge(&from, &into)?;
        } else {
            fs::rename(&from, &into).with_context(|| format!("move {}", from.display()))?;
        }
    }
    fs::remove_dir(from).with_context(|| format!("remove {}", from.display()))
}

/// Runs to the end and returns standard output; the error carries what the program said.
fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = said.lines().rev().take(12).collect();
        bail!(
            "{}: {}",
            output.status,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn own_pid() -> String {
    std::process::id().to_string()
}

fn empty(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir)
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
        .and_then(|()| fs::create_dir_all(dir))
        .with_context(|| format!("empty {}", dir.display()))
}
