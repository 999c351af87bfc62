//! `virtfn-cni install DIR [PLUGIN]…`: copies this program into the runtime's plugin directory, under
//! the name of each plugin that it is.
//!
//! Each copy is written beside its name and renamed onto it, because a runtime may be starting the
//! old one that very moment. The flags of upstream's install images are taken too: an operator's
//! init container passes `--no-sleep` alone and expects `/host/opt/cni/bin`. Each of upstream's images
//! has one plugin, and a flag that says which file that is: who passes such flags gets those plugins
//! and no others.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::plugin::Plugin;

/// Where upstream's images mount the host's directory.
const DEFAULT_DIR: &str = "/host/opt/cni/bin";

const USAGE: &str = "\
Usage: virtfn-cni install DIR [PLUGIN]...
       virtfn-cni [--cni-bin-dir DIR] [--no-sleep] [--sriov-bin-file FILE]
                  [--ib-sriov-cni-bin-file FILE] [--rdma-cni-bin-file FILE]

Installs the CNI plugins into DIR under the names that runtimes look for:
sriov, ib-sriov and rdma, or only those that are named. The second form is that
of upstream's images: DIR is /host/opt/cni/bin, a flag with a FILE names the
plugin (the FILE itself is not used), and without --no-sleep it then waits for
ever, as the container of a DaemonSet must.";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    dir: PathBuf,
    /// Empty for all of them.
    plugins: Vec<Plugin>,
    waits: bool,
}

/// Runs the command line of the program under its own name.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(wanted) = parse(words) else {
        tell(USAGE);
        return ExitCode::from(2);
    };
    for plugin in wanted.plugins() {
        let to = wanted.dir.join(plugin.name());
        if let Err(error) = install(&to) {
            tell(&format!(
                "error[not-installed]: install {}: {error}\nhelp: {}",
                to.display(),
                remedy(&error)
            ));
            return ExitCode::FAILURE;
        }
        tell(&format!("installed {}", to.display()));
    }
    if !wanted.waits {
        return ExitCode::SUCCESS;
    }
    loop {
        std::thread::park();
    }
}

impl Wanted {
    fn plugins(&self) -> &[Plugin] {
        if self.plugins.is_empty() {
            &Plugin::ALL
        } else {
            &self.plugins
        }
    }
}

fn parse(words: impl Iterator<Item = OsString>) -> Option<Wanted> {
    let mut wanted = Wanted {
        dir: DEFAULT_DIR.into(),
        plugins: Vec::new(),
        waits: true,
    };
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    let (mut is_install, mut has_dir) = (false, false);
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word.clone(), None),
        };
        match flag.trim_start_matches('-') {
            "install" if !is_install && !word.starts_with('-') => {
                is_install = true;
            }
            "no-sleep" if word.starts_with('-') => {
                wanted.waits = value.as_deref() == Some("false");
            }
            "cni-bin-dir" if word.starts_with('-') => {
                wanted.dir = value.or_else(|| words.next())?.into();
            }
            flag @ ("sriov-bin-file" | "ib-sriov-cni-bin-file" | "rdma-cni-bin-file")
                if word.starts_with('-') =>
            {
                // Which file upstream's image copies; ours is this one.
                wanted.plugins.push(match flag {
                    "sriov-bin-file" => Plugin::Sriov,
                    "rdma-cni-bin-file" => Plugin::Rdma,
                    _ => Plugin::IbSriov,
                });
                value.or_else(|| words.next())?;
            }
            name if has_dir && !word.starts_with('-') => {
                wanted.plugins.push(Plugin::of(name.as_ref())?);
            }
            _ if is_install && !word.starts_with('-') => {
                wanted.dir = word.into();
                wanted.waits = false;
                has_dir = true;
            }
            _ => return None,
        }
    }
    any.then_some(wanted)
}

fn install(to: &Path) -> io::Result<()> {
    let mut name = OsString::from(".virtfn-new-");
    name.push(to.file_name().unwrap_or_default());
    let new = to.with_file_name(name);
    let copied = copy(&new).and_then(|()| fs::rename(&new, to));
    if copied.is_err() {
        let _nothing_to_remove_is_fine = fs::remove_file(&new);
    }
    copied?;
    File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Says what to do about a copy that failed.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "name the directory in which the runtime looks for plugins; in a container mount it there"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "run it as root, with the directory mounted writable"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on the file system of the directory"
        }
        io::ErrorKind::IsADirectory => "remove the directory that has the plugin's name",
        _ => "see the kernel log (dmesg) for trouble of the file system",
    }
}

fn copy(new: &Path) -> io::Result<()> {
    let _left_by_a_kill = fs::remove_file(new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(new)?;
    io::copy(&mut File::open("/proc/self/exe")?, &mut file)?;
    // A file mode creation mask may have taken something from it.
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()
}

fn tell(text: &str) {
    let _nobody_reads = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(String, bool)> {
        let wanted = parse(line.split_whitespace().map(OsString::from))?;
        Some((wanted.dir.display().to_string(), wanted.waits))
    }

    #[test]
    fn the_flags_of_upstreams_images_are_taken() {
        let some = |dir: &str, waits| Some((dir.to_owned(), waits));
        assert_eq!(parsed("install /opt/cni/bin"), some("/opt/cni/bin", false));
        assert_eq!(parsed("--no-sleep"), some(DEFAULT_DIR, false));
        assert_eq!(
            parsed("--cni-bin-dir=/x --sriov-bin-file=/usr/bin/sriov"),
            some("/x", true)
        );
        assert_eq!(parsed("-cni-bin-dir /x --no-sleep=true"), some("/x", false));
        for bad in [
            "",
            "--help",
            "/opt",
            "--cni-bin-dir",
            "uninstall",
            "install /x bridge",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_names_plugins_gets_those_and_no_others() {
        let named = |line: &str| {
            let wanted = parse(line.split_whitespace().map(OsString::from)).unwrap();
            let names: Vec<_> = wanted
                .plugins()
                .iter()
                .map(|plugin| plugin.name())
                .collect();
            names.join(" ")
        };
        assert_eq!(named("--no-sleep"), "sriov ib-sriov rdma");
        assert_eq!(named("install /x"), "sriov ib-sriov rdma");
        assert_eq!(named("install /x rdma sriov"), "rdma sriov");
        assert_eq!(
            named("--no-sleep --ib-sriov-cni-bin-file /usr/bin/ib-sriov"),
            "ib-sriov"
        );
    }

    #[test]
    fn what_keeps_a_plugin_from_its_place_is_told_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let help = |to: &str| remedy(&install(&dir.path().join(to)).unwrap_err());
        fs::create_dir_all(dir.path().join("taken/sriov")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(help("missing/sriov").contains("name the directory"));
        assert!(help("file/sriov").contains("name the directory"));
        assert!(help("taken/sriov").contains("remove the directory"));
        // What was begun is gone.
        assert_eq!(fs::read_dir(dir.path().join("taken")).unwrap().count(), 1);
    }

    #[test]
    fn a_plugin_is_replaced_in_one_instant() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("sriov");
        fs::write(&to, "old").unwrap();
        fs::write(dir.path().join(".virtfn-new-sriov"), "half").unwrap();
        install(&to).unwrap();
        let ours = fs::metadata("/proc/self/exe").unwrap().len();
        assert_eq!(fs::metadata(&to).unwrap().len(), ours);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
