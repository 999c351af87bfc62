//! Calling the CNI plugin as a runtime does.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;

use serde_json::{Value, json};

use crate::support::*;

/// Where the plugin under test is installed, as runtimes look for it.
pub(crate) const BIN: &str = "/tmp/cni-bin";

/// Where Debian's containernetworking-plugins are.
pub(crate) const DEBIAN: &str = "/usr/lib/cni";

/// One CNI call, not made yet.
#[derive(Clone)]
pub(crate) struct Call {
    plugin: String,
    variables: Vec<(&'static str, String)>,
    config: Value,
}

/// How a call ended.
pub(crate) struct Answer {
    pub(crate) output: Output,
}

/// Calls a plugin for a container with the interface `net1`.
pub(crate) fn call(command: &str, container: &str, netns: &str, config: &Value) -> Call {
    install();
    let plugin = format!(
        "{BIN}/{}",
        config["type"].as_str().expect("a config has a type")
    );
    Call {
        plugin,
        variables: vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_NETNS", netns.to_owned()),
            ("CNI_IFNAME", "net1".to_owned()),
            ("CNI_PATH", format!("{BIN}:{DEBIAN}")),
        ],
        config: config.clone(),
    }
}

/// Installs the plugin under test by its own means.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::fs::create_dir_all(BIN).expect("/tmp is writable");
        let program = std::env::var("VIRTFN_CNI").expect("$VIRTFN_CNI names the plugin under test");
        run(&program, &["install", BIN]);
    });
}

impl Call {
    /// Sets one more variable.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Calls another plugin than the one that the configuration names.
    pub(crate) fn plugin(mut self, path: &str) -> Self {
        path.clone_into(&mut self.plugin);
        self
    }

    pub(crate) fn start(&self) -> Child {
        self.start_as(Command::new(&self.plugin))
    }

    /// Starts it with its streams open and nothing written.
    pub(crate) fn start_open(&self) -> Child {
        self.spawn(Command::new(&self.plugin))
    }

    /// Returns what the plugin is to read.
    pub(crate) fn stdin(&self) -> String {
        self.config.to_string()
    }

    /// Starts it behind another program, such as strace.
    pub(crate) fn start_as(&self, command: Command) -> Child {
        let mut child = self.spawn(command);
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A plugin may refuse the call before it reads the configuration.
        let _unread = stdin.write_all(self.config.to_string().as_bytes());
        child
    }

    fn spawn(&self, mut command: Command) -> Child {
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.plugin))
    }

    pub(crate) fn make(&self) -> Answer {
        let child = self.start();
        Answer {
            output: child.wait_with_output().expect("the plugin ends"),
        }
    }
}

impl Answer {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.output.status.signal() == Some(9)
    }

    /// Asserts success, and returns the result; `null` when there is none.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        let stderr = String::from_utf8_lossy(&self.output.stderr);
        assert!(self.output.status.success(), "{}{stderr}", self.stdout());
        if self.output.stdout.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout()))
    }

    /// Asserts failure with an error object of this number and virtfn's code.
    #[track_caller]
    pub(crate) fn refused(&self, number: u32, code: &str) -> Value {
        let stderr = String::from_utf8_lossy(&self.output.stderr);
        assert_eq!(
            self.output.status.code(),
            Some(1),
            "{}{stderr}",
            self.stdout()
        );
        let error: Value = serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout()));
        assert_eq!(error["code"], number, "{error}");
        let details = error["details"].as_str().unwrap_or_default();
        assert!(details.starts_with(code), "{error}");
        assert!(details.len() > code.len() + 5, "no remedy in {error}");
        error
    }
}

/// A configuration of the `sriov` plugin for [`VF0`], and what is added to it.
pub(crate) fn sriov(more: &Value) -> Value {
    let base = json!({"cniVersion": "1.1.0", "name": "blue", "type": "sriov", "deviceID": VF0});
    with(&base, more)
}

/// Adds fields to an object.
pub(crate) fn with(base: &Value, more: &Value) -> Value {
    let mut all = base.clone();
    for (key, value) in more.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    all
}

/// host-local, one address of a documentation network. Debian 12's speaks CNI up to 1.0.0.
pub(crate) fn host_local() -> Value {
    json!({"cniVersion": "1.0.0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]],
        "routes": [{"dst": "198.51.100.0/24"}]}})
}

/// A configuration for GC, whose list of valid attachments is empty.
pub(crate) fn gc() -> Value {
    sriov(&json!({"cni.dev/valid-attachments": []}))
}

/// Returns the addresses that host-local has reserved.
pub(crate) fn reserved() -> Vec<String> {
    let entries = std::fs::read_dir("/var/lib/cni/networks/blue").into_iter();
    let names = entries.flatten().flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
        .collect()
}

/// Binds a VF to a driver without virtfn.
pub(crate) fn bind(vf: &str, driver: &str) {
    run("modprobe", &[driver]);
    let device = pci(vf);
    std::fs::write(device.join("driver_override"), driver).expect("driver_override is writable");
    if device.join("driver").exists() {
        std::fs::write(device.join("driver/unbind"), vf).expect("a driver can be unbound");
    }
    std::fs::write("/sys/bus/pci/drivers_probe", vf).expect("drivers_probe is writable");
    eventually("the driver", || {
        std::fs::read_link(device.join("driver"))
            .is_ok_and(|link| link.file_name() == Some(driver.as_ref()))
    });
}

/// Asserts that nobody has a VF, in no file of virtfn's or upstream's.
#[track_caller]
pub(crate) fn assert_nothing_is_kept(why: &str) {
    let upstream = std::fs::read_dir("/var/lib/cni/sriov").into_iter();
    let left: Vec<_> = upstream
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_file())
        .collect();
    assert!(left.is_empty(), "{why}: {left:?}");
    for vf in [VF0, VF1] {
        let owner = format!("/var/lib/cni/sriov/pci/{vf}");
        assert!(!Path::new(&owner).exists(), "{why}: {owner}");
        let memo = format!("/var/lib/virtfn/memo/{vf}");
        assert!(!Path::new(&memo).exists(), "{why}: {memo}");
    }
    assert_eq!(reserved(), [""; 0], "{why}: addresses are still reserved");
}
