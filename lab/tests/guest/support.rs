//! What tests inside a machine share: the machine, the command under test, and namespaces.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The two NICs of the machine, joined to nothing.
pub(crate) const PF0: &str = "0000:01:00.0";
pub(crate) const PF1: &str = "0000:02:00.0";

/// VFs of an Intel 82576 are at offset 128, stride 2: VF 0 and VF 1 of [`PF0`].
pub(crate) const VF0: &str = "0000:01:10.0";
pub(crate) const VF1: &str = "0000:01:10.2";

/// Longest wait for anything in a machine that is emulated in software.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where virtfn, the operator and upstream's CNI plugin keep what they know.
const STATE: [&str; 4] = [
    "/var/lib/virtfn",
    "/run/virtfn",
    "/etc/sriov-operator/pci",
    "/var/lib/cni",
];

/// The machine that the tests run in, brought back to a host without VFs.
pub(crate) struct Machine;

impl Machine {
    /// Removes what the test before left: namespaces, VFs, state files.
    pub(crate) fn fresh() -> Self {
        assert_eq!(
            fs::read_to_string(pci(PF0).join("device"))
                .unwrap_or_default()
                .trim(),
            "0x10c9",
            "no emulated igb at {PF0}: these tests run inside a machine, with `cargo xtask test --lab`",
        );
        for line in run("ip", &["netns", "list"]).lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            run("ip", &["netns", "delete", name]);
        }
        for pf in [PF0, PF1] {
            set_num_vfs(pf, 0);
            run("ip", &["link", "set", &netdev(pf), "down", "mtu", "1500"]);
        }
        empty(&STATE);
        Self
    }

    /// A fresh machine with `count` VFs on [`PF0`], their netdevs there, and the PF up.
    pub(crate) fn with_vfs(count: u16) -> Self {
        let machine = Self::fresh();
        machine.apply(&policy("vfs", PF0, count, "netdevice")).ok();
        machine
    }

    /// Runs `virtfn apply` on a policy given as text.
    pub(crate) fn apply(&self, policy: &str) -> Outcome {
        virtfn(&["apply", "-f", &write_policy(policy)])
    }

    /// Returns what `virtfn list -o json` says.
    pub(crate) fn seen(&self) -> Value {
        virtfn(&["list", "-o", "json"]).ok().json()
    }

    /// Returns what `virtfn list -o json` says, less what comes and goes by itself: the state of a
    /// link, and the permanent MAC of a VF, which igbvf takes to be the last one that was set.
    pub(crate) fn settled(&self) -> Value {
        let mut view = self.seen();
        for pf in view["pfs"].as_array_mut().into_iter().flatten() {
            settle(&mut pf["netdev"]);
            for vf in pf["vfs"].as_array_mut().into_iter().flatten() {
                settle(&mut vf["netdev"]);
                if let Some(permanent) = vf["netdev"].get_mut("permanentMac") {
                    permanent.take();
                }
            }
        }
        view
    }

    /// Returns what `virtfn list vf -o json` says of one VF.
    pub(crate) fn vf(&self, address: &str) -> Value {
        let view = virtfn(&["list", "vf", "-o", "json"]).ok().json();
        find(&view["vfs"], address)
    }

    /// Returns what the kernel itself reports of the VFs of [`PF0`], apart from virtfn's eyes.
    pub(crate) fn kernel_vfs(&self) -> Value {
        let link = run("ip", &["-json", "link", "show", "dev", &netdev(PF0)]);
        let link: Value = serde_json::from_str(&link).expect("ip writes JSON");
        link[0]["vfinfo_list"].clone()
    }
}

/// Removes what is in directories; they themselves may be mounts.
pub(crate) fn empty(dirs: &[&str]) {
    for dir in dirs {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let _removed_as_one = fs::remove_file(entry.path());
            let _removed_as_other = fs::remove_dir_all(entry.path());
        }
    }
}

fn settle(netdev: &mut Value) {
    if netdev.is_object() {
        netdev["state"].take();
        netdev["speedMbps"].take();
    }
}

/// Returns the element of a list of views that has `address`.
#[track_caller]
pub(crate) fn find(list: &Value, address: &str) -> Value {
    list.as_array()
        .into_iter()
        .flatten()
        .find(|item| item["address"] == address)
        .unwrap_or_else(|| panic!("no {address} in {list:#}"))
        .clone()
}

/// How a run of `virtfn` ended.
pub(crate) struct Outcome {
    command: String,
    output: Output,
}

impl Outcome {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Returns the exit status; `None` when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.command, self.stdout()))
    }

    /// Asserts that it did what it was asked.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ended(0)
    }

    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "{}\n{}{}",
            self.command,
            self.stdout(),
            self.stderr()
        );
        self
    }

    /// Asserts that it failed with this status and that stderr holds each of `texts`.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, texts: &[&str]) -> Self {
        let outcome = self.ended(code);
        let stderr = outcome.stderr();
        for text in texts {
            assert!(stderr.contains(text), "{text:?} is not in:\n{stderr}");
        }
        outcome
    }
}

/// Runs the `virtfn` under test to its end.
pub(crate) fn virtfn(arguments: &[&str]) -> Outcome {
    let output = virtfn_command(arguments).output().expect("virtfn starts");
    Outcome {
        command: format!("virtfn {}", arguments.join(" ")),
        output,
    }
}

/// Returns the `virtfn` under test, not yet started, with no input and its streams piped.
pub(crate) fn virtfn_command(arguments: &[&str]) -> Command {
    let program = std::env::var_os("VIRTFN").expect("$VIRTFN names the virtfn under test");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program that must succeed, and returns what it wrote.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Does one echo request come back, from a namespace to an address?
pub(crate) fn pings(netns: &str, address: &str) -> bool {
    Command::new("ip")
        .args([
            "netns", "exec", netns, "ping", "-c", "3", "-i", "0.3", "-W", "3", address,
        ])
        .output()
        .expect("ip starts")
        .status
        .success()
}

/// A `SriovNetworkNodePolicy` for one PF.
pub(crate) fn policy(name: &str, pf: &str, count: u16, device_type: &str) -> String {
    format!(
        "apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata:
  name: {name}
  namespace: sriov-network-operator
spec:
  resourceName: {name}
  nodeSelector: {{}}
  priority: 50
  numVfs: {count}
  deviceType: {device_type}
  nicSelector:
    rootDevices: [\"{pf}\"]
"
    )
}

/// Returns a node state with two VFs: the first has a driver, the second is on `vfio-pci`.
pub(crate) fn node_state(driver: &str) -> String {
    format!(
        "apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodeState
metadata: {{name: worker-1, namespace: sriov-network-operator}}
spec:
  interfaces:
  - pciAddress: \"{PF0}\"
    numVfs: 2
    name: {}
    vfGroups:
    - {{resourceName: a, deviceType: {driver}, vfRange: 0-0, policyName: a}}
    - {{resourceName: b, deviceType: vfio-pci, vfRange: 1-1, policyName: b}}
",
        netdev(PF0)
    )
}

/// A policy for the VFs of all NICs of the machine.
pub(crate) fn policy_for_all(count: u16, device_type: &str) -> String {
    policy("nics", PF0, count, device_type).replace(
        &format!("rootDevices: [\"{PF0}\"]"),
        "vendor: \"8086\"\n    deviceID: \"10c9\"",
    )
}

/// Writes a policy to a file and returns its path.
pub(crate) fn write_policy(text: &str) -> String {
    let path = format!("/tmp/policy-{}.yaml", std::process::id());
    fs::write(&path, text).expect("/tmp is writable");
    path
}

/// Returns the sysfs directory of a PCI function.
pub(crate) fn pci(address: &str) -> std::path::PathBuf {
    Path::new("/sys/bus/pci/devices").join(address)
}

/// Returns the name of the netdev of a function in this namespace.
#[track_caller]
pub(crate) fn netdev(address: &str) -> String {
    netdev_or_none(address).unwrap_or_else(|| panic!("{address} has no netdev here"))
}

pub(crate) fn netdev_or_none(address: &str) -> Option<String> {
    let entry = fs::read_dir(pci(address).join("net")).ok()?.next()?.ok()?;
    entry.file_name().into_string().ok()
}

/// Returns how many VFs the kernel says a PF has.
pub(crate) fn num_vfs(pf: &str) -> String {
    let text = fs::read_to_string(pci(pf).join("sriov_numvfs")).expect("a PF has sriov_numvfs");
    text.trim().to_owned()
}

/// Sets the number of VFs without virtfn, and waits until their netdevs are there.
pub(crate) fn set_num_vfs(pf: &str, count: u16) {
    if num_vfs(pf) == count.to_string() {
        return;
    }
    fs::write(pci(pf).join("sriov_numvfs"), count.to_string()).expect("sriov_numvfs is writable");
    eventually("the netdevs of all VFs", || {
        (0..count).all(|index| pci(pf).join(format!("virtfn{index}/net")).exists())
    });
}

/// Waits for a condition with a deadline.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Makes an interface above a VF that is up, such as a VLAN.
///
/// A VLAN of a VF is asked of the PF. `igbvf` says EINVAL when the PF does not answer within a second,
/// as in a busy machine, or has not heard the VF begin anew (`e1000_set_vfta_vf` in its vf.c); its
/// watchdog then begins anew by itself.
pub(crate) fn make_above(netdev: &str, what: &[&str]) {
    eventually(&format!("{what:?} is made on {netdev}"), || {
        let mut add = Command::new("ip");
        let made = add
            .args(["link", "add", "link", netdev])
            .args(what)
            .output();
        made.is_ok_and(|made| made.status.success())
    });
}

/// Creates a network namespace that goes away with the value.
pub(crate) struct Namespace(pub(crate) &'static str);

impl Namespace {
    pub(crate) fn new(name: &'static str) -> Self {
        run("ip", &["netns", "add", name]);
        Self(name)
    }

    /// Runs `ip` inside.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", self.0];
        all.extend(arguments);
        run("ip", &all)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The test may have deleted it already.
        let _gone = Command::new("ip")
            .args(["netns", "delete", self.0])
            .output();
    }
}
