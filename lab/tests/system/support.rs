//! What these tests share: the programs under test, commands in machines, and container engines.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::{Assets, Machine};

/// Until a container engine, emulated, has done something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const PODMAN: &str = r#"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
log_driver = "k8s-file"
"#;

/// Returns the `virtfn` under test: `$VIRTFN`, or the one that was built beside this test.
pub(crate) fn virtfn() -> PathBuf {
    program("VIRTFN", "virtfn")
}

/// Returns the CNI plugin under test: `$VIRTFN_CNI`, or the one that was built beside this test.
fn plugin() -> PathBuf {
    program("VIRTFN_CNI", "virtfn-cni")
}

fn program(variable: &str, name: &str) -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(Path::parent).unwrap().join(name)
    };
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    assert!(
        path.exists(),
        "no {}: build it with `cargo build -p cli -p cni`, or run `cargo xtask test --lab`",
        path.display()
    );
    path
}

#[track_caller]
pub(crate) fn run(machine: &Machine, line: &str) -> String {
    let command = machine.command(["sh", "-c", line]).limit(PATIENCE);
    command.output().unwrap().check().unwrap()
}

/// Waits until a command succeeds, and returns what it writes.
#[track_caller]
pub(crate) fn eventually(machine: &Machine, line: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = machine.run(line).unwrap();
        if output.exit.success() {
            return output.check().unwrap();
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "`{line}` did not succeed:\n{}", output.text());
        std::thread::park_timeout(Duration::from_millis(300));
    }
}

/// Makes containerd and podman runnable; `more` is for podman's configuration.
pub(crate) fn add_engines(machine: &Machine, more: &str) {
    let engines = Assets::container_engines(&|text| eprintln!("{text}")).unwrap();
    if let Some(engines) = engines {
        // Both are directories of the machine's one file system, and nothing is written there.
        let line = format!(
            "mount -t overlay overlay -o ro,lowerdir=/usr:{}/usr /usr",
            engines.display()
        );
        run(machine, &line);
    }
    run(
        machine,
        "mount --make-rshared / && mkdir -p /etc/containers",
    );
    let config = format!("{PODMAN}{more}");
    machine
        .write("/etc/containers/containers.conf", config.as_bytes())
        .unwrap();
}

/// Makes a root file system for a container at `/root/rootfs`, with one program.
pub(crate) fn make_rootfs(machine: &Machine, program: &str) {
    let line = format!(
        "cd /root && mkdir -p rootfs/bin rootfs/proc rootfs/sys rootfs/dev rootfs/etc rootfs/run rootfs/tmp && \
         cp $(command -v busybox) rootfs/bin/ && ln -s busybox rootfs/bin/{program}"
    );
    run(machine, &line);
}

/// Makes VFs of the machine's first NIC, and waits for the interface of each.
pub(crate) fn make_vfs(machine: &Machine, count: u16) {
    run(
        machine,
        &format!("ip link set eth0 up && echo {count} > /sys/class/net/eth0/device/sriov_numvfs"),
    );
    for index in 0..count {
        let netdev = format!("ls /sys/class/net/eth0/device/virtfn{index}/net/*/mtu");
        eventually(machine, &netdev);
    }
}

/// Installs the CNI plugin under test, beside those of Debian that the tests want.
pub(crate) fn install_plugin(machine: &Machine) {
    let install = format!(
        "mkdir -p /opt/cni/bin && {} install /opt/cni/bin && \
         ln -s /usr/lib/cni/host-local /usr/lib/cni/static /usr/lib/cni/tuning /opt/cni/bin",
        plugin().display()
    );
    run(machine, &install);
}
