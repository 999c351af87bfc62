//! `virtfn agent` on real devices: what the kernel tells reaches the kubelet, which is played.

use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::fake_kubelet::{FakeKubelet, Known, sockets};
use crate::support::{
    Machine, PF0, VF0, VF1, eventually, netdev, pci, policy, run, set_num_vfs, virtfn_command,
};

/// Longest time from a change to the update of the kubelet: less than the minute after which the agent
/// looks anyhow. `cargo xtask bench agent` measures how soon it is.
const SOON: Duration = Duration::from_secs(30);

pub(crate) const POOLS: &str = r#"{"resourceList": [
    {"resourceName": "net", "selectors": {"drivers": ["igbvf"]}},
    {"resourceName": "user", "selectors": {"drivers": ["vfio-pci"]}}]}"#;

pub(crate) struct Agent {
    child: Child,
    dir: PathBuf,
}

impl Agent {
    /// Starts one in a fresh directory, with `pools` as its configuration.
    pub(crate) fn start(dir: &Path, pools: &str, more: &[&str]) -> Self {
        fs::create_dir_all(dir).expect("/tmp is writable");
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        fs::write(path("config.json"), pools).expect("/tmp is writable");
        let log = fs::File::create(path("agent.log")).expect("/tmp is writable");
        let mut command = virtfn_command(&["agent"]);
        command
            .args([
                "--config",
                &path("config.json"),
                "--kubelet-dir",
                &path("kubelet"),
            ])
            .args(["--device-plugin-dir", &path("kubelet/device-plugins")])
            .args([
                "--device-info-dir",
                &path("devinfo/dp"),
                "--cdi-dir",
                &path("cdi"),
            ])
            .args(more)
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            child: command.spawn().expect("virtfn starts"),
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ended");
    }

    /// Ends it in good order.
    pub(crate) fn end(mut self) {
        run("kill", &["-s", "TERM", &self.child.id().to_string()]);
        let status = self.child.wait().expect("it ended");
        assert!(status.success(), "{status}\n{}", self.log());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read(self.dir.join("agent.log")).unwrap_or_default();
            let _best_effort = std::io::stderr().write_all(&log);
        }
    }
}

/// Returns a directory that no other test has.
pub(crate) fn place(name: &str) -> PathBuf {
    let dir = PathBuf::from(format!("/tmp/agent-{}-{name}", std::process::id()));
    let _absent = fs::remove_dir_all(&dir);
    dir
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be started")
        .block_on(work)
}

pub(crate) fn healthy(known: &Known) -> usize {
    known.devices.values().filter(|healthy| **healthy).count()
}

/// Asserts that `wanted` comes true soon after `change`.
pub(crate) async fn soon(
    kubelet: &FakeKubelet,
    resource: &str,
    change: impl FnOnce(),
    wanted: impl Fn(&Known) -> bool,
) -> Known {
    let begun = Instant::now();
    change();
    let changed = begun.elapsed();
    let known = kubelet.until(resource, wanted).await;
    let took = begun.elapsed() - changed;
    assert!(took < SOON, "it took {took:?}");
    known
}

#[test]
fn the_kubelet_sees_what_becomes_of_vfs() {
    let machine = Machine::with_vfs(2);
    let dir = place("live");
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let _agent = Agent::start(&dir, POOLS, &[]);
        kubelet
            .until("intel.com/net", |known| healthy(known) == 2)
            .await;
        kubelet
            .until("intel.com/user", |known| known.devices.is_empty())
            .await;

        // Hot added and removed VFs.
        soon(
            &kubelet,
            "intel.com/net",
            || set_num_vfs(PF0, 0),
            |known| known.devices.is_empty(),
        )
        .await;
        soon(
            &kubelet,
            "intel.com/net",
            || set_num_vfs(PF0, 4),
            |known| healthy(known) == 4,
        )
        .await;

        // Another driver: from one pool to the other, with its device nodes.
        machine.apply(&policy("user", PF0, 4, "vfio-pci")).ok();
        let known = kubelet
            .until("intel.com/user", |known| healthy(known) == 4)
            .await;
        assert!(known.devices.contains_key(VF0));
        kubelet
            .until("intel.com/net", |known| known.devices.is_empty())
            .await;
        let answer = kubelet
            .allocate("intel.com/user", &[VF0])
            .await
            .expect("it is given");
        assert_eq!(answer.envs["PCIDEVICE_INTEL_COM_USER"], VF0);
        assert_eq!(answer.devices.len(), 2);
        for node in &answer.devices {
            assert!(Path::new(&node.host_path).exists(), "{}", node.host_path);
        }
        let info = dir.join(format!("devinfo/dp/intel.com-user-{VF0}-device.json"));
        assert!(
            fs::read_to_string(info)
                .expect("it was written")
                .contains(VF0)
        );

        // VFs that go from under a pod stay listed, and cannot be given away.
        kubelet.pod_has("intel.com/user", VF1);
        set_num_vfs(PF0, 0);
        let known = kubelet
            .until("intel.com/user", |known| {
                known.devices.len() == 2 && healthy(known) == 0
            })
            .await;
        assert!(known.devices.contains_key(VF0) && known.devices.contains_key(VF1));
        assert!(kubelet.allocate("intel.com/user", &[VF1]).await.is_err());
    });
}

#[test]
fn a_pool_follows_the_link_of_its_pf_when_it_asks_for_it() {
    let _machine = Machine::with_vfs(2);
    let dir = place("link");
    let pools = r#"{"resourceList": [{"resourceName": "net", "checkHealthOnPf": true,
        "selectors": {"drivers": ["igbvf"]}}]}"#;
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let _agent = Agent::start(&dir, pools, &[]);
        run("ip", &["link", "set", &netdev(PF0), "up"]);
        kubelet
            .until("intel.com/net", |known| healthy(known) == 2)
            .await;
        run("ip", &["link", "set", &netdev(PF0), "down"]);
        let known = kubelet
            .until("intel.com/net", |known| healthy(known) == 0)
            .await;
        assert_eq!(known.devices.len(), 2);
        run("ip", &["link", "set", &netdev(PF0), "up"]);
        kubelet
            .until("intel.com/net", |known| healthy(known) == 2)
            .await;
    });
}

/// How many watchers of files a user may have; put back as it was.
struct Watchers(String);

impl Watchers {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

    fn none() -> Self {
        let before = fs::read_to_string(Self::LIMIT).expect("every kernel has it");
        fs::write(Self::LIMIT, "0").expect("we are root");
        Self(before)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        fs::write(Self::LIMIT, &self.0).expect("we are root");
    }
}

#[test]
fn a_node_whose_watchers_others_have_is_served_and_watched_when_they_give_one_back() {
    let _machine = Machine::with_vfs(2);
    let dir = place("watchers");
    let none = Watchers::none();
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let agent = Agent::start(&dir, POOLS, &[]);
        kubelet
            .until("intel.com/net", |known| healthy(known) == 2)
            .await;
        assert!(agent.log().contains("files are not watched"));
        fs::write(dir.join("config.json"), POOLS.replace("net", "more")).expect("/tmp is writable");
        let hang_up = || run("kill", &["-s", "HUP", &agent.child.id().to_string()]);
        hang_up();
        kubelet
            .until("intel.com/more", |known| healthy(known) == 2)
            .await;
        drop(none);
        hang_up();
        eventually("files are watched", || {
            agent.log().contains("files are watched")
        });
        fs::write(dir.join("config.json"), POOLS.replace("net", "most")).expect("/tmp is writable");
        kubelet
            .until("intel.com/most", |known| healthy(known) == 2)
            .await;
    });
}

#[test]
fn a_killed_agent_is_followed_by_one_that_offers_the_same() {
    let machine = Machine::with_vfs(3);
    machine.apply(&policy("user", PF0, 3, "vfio-pci")).ok();
    assert!(pci(VF0).join("driver").exists());
    let dir = place("kill");
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        for _ in 0..3 {
            let mut agent = Agent::start(&dir, POOLS, &["--use-cdi"]);
            kubelet
                .until("intel.com/user", |known| healthy(known) == 3)
                .await;
            let answer = kubelet
                .allocate("intel.com/user", &[VF0])
                .await
                .expect("it is given");
            assert_eq!(answer.cdi_devices.len(), 1);
            agent.kill();
            kubelet
                .until("intel.com/user", |known| healthy(known) == 0)
                .await;
            let specification = dir.join("cdi/sriov-dp-intel.com-net-pci-user.yaml");
            let text = fs::read_to_string(specification).expect("it outlives the agent");
            assert!(text.contains(VF0), "{text}");
        }
        assert_eq!(sockets(&dir.join("kubelet/plugins_registry")).len(), 2);
    });
}
