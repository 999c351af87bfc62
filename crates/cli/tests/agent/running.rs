//! An agent that runs on a recorded host.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::fake_kubelet::{FakeKubelet, PATIENCE};

/// Everything that an agent of a test has.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    more: Vec<String>,
}

impl Place {
    /// Unpacks a recorded host.
    pub(crate) fn of(tree: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = fixtures::tree(tree).unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        host::Tree::parse(text).unwrap().unpack(&root).unwrap();
        // Whoever had VFIO devices open is gone.
        for process in names(&root.join("proc")) {
            let _had_none = fs::remove_dir_all(root.join("proc").join(process).join("fd"));
        }
        Self {
            dir,
            more: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.more.extend(arguments.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn kubelet(&self) -> PathBuf {
        self.path("kubelet")
    }

    /// Writes the configuration as a ConfigMap volume does: a new directory, then a link to it.
    pub(crate) fn config(&self, text: &str) {
        let dir = self.path("config");
        fs::create_dir_all(&dir).unwrap();
        let version = (0..)
            .map(|n| format!("..v{n}"))
            .find(|v| !dir.join(v).exists());
        let version = version.unwrap();
        fs::create_dir(dir.join(&version)).unwrap();
        fs::write(dir.join(&version).join("config.json"), text).unwrap();
        std::os::unix::fs::symlink(&version, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        if !dir.join("config.json").exists() {
            std::os::unix::fs::symlink("..data/config.json", dir.join("config.json")).unwrap();
        }
    }

    /// Takes a file of the recorded host away; the agent is told with [`Running::look_again`].
    pub(crate) fn remove_function(&self, address: &str) {
        let link = self.path("root/sys/bus/pci/devices").join(address);
        let target = fs::canonicalize(&link);
        fs::remove_file(&link).unwrap_or_else(|_| fs::remove_dir_all(&link).unwrap());
        if let Ok(target) = target.filter_dir() {
            fs::remove_dir_all(target).unwrap();
        }
    }

    /// Changes a file of the recorded host.
    pub(crate) fn edit(&self, name: &str, change: impl Fn(&str) -> String) {
        let path = self.path("root").join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(&text)).unwrap();
    }

    /// Lets tests play the kernel of the recorded host; said before an agent starts.
    pub(crate) fn with_kernel(self) -> Self {
        make_fifo(&self.path("root/netlink/events"));
        self
    }

    /// Tells an event of a function, as the kernel does.
    pub(crate) fn tell(&self, action: &str, address: &str) {
        let root = fs::canonicalize(self.path("root/sys")).unwrap();
        let function = fs::canonicalize(root.join("bus/pci/devices").join(address)).unwrap();
        let function = function.strip_prefix(root).unwrap().display();
        let event = format!("{action}@/{function}\0SUBSYSTEM=pci\n");
        let fifo = self.path("root/netlink/events");
        let mut kernel = fs::File::options().append(true).open(fifo).unwrap();
        kernel.write_all(event.as_bytes()).unwrap();
    }

    /// Makes a file of the recorded host that there was not.
    pub(crate) fn add(&self, name: &str, text: &str) {
        let path = self.path("root").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }

    /// Makes a link of the recorded host, in place of the one that there may be.
    pub(crate) fn link(&self, name: &str, target: &str) {
        let path = self.path("root").join(name);
        let _absent = fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path).unwrap();
    }

    /// Removes a file or link of the recorded host.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path("root").join(name)).unwrap();
    }

    /// Binds a function of the recorded host to a driver.
    pub(crate) fn bind(&self, address: &str, driver: &str) {
        let uevent = format!("sys/bus/pci/devices/{address}/uevent");
        self.edit(&uevent, |text| {
            let lines = text.lines().filter(|line| !line.starts_with("DRIVER="));
            let rest: Vec<&str> = lines.collect();
            format!("DRIVER={driver}\n{}\n", rest.join("\n"))
        });
    }

    /// Starts an agent.
    pub(crate) fn start(&self) -> Running {
        self.start_with_log("agent.log")
    }

    /// Starts an agent beside the first.
    pub(crate) fn start_another(&self) -> Running {
        self.start_with_log("another.log")
    }

    fn start_with_log(&self, log: &str) -> Running {
        let path = |name: &str| self.path(name).to_string_lossy().into_owned();
        let child = Command::new(env!("CARGO_BIN_EXE_virtfn"))
            .args(["agent", "--recorded", &path("root")])
            .args(["--config", &path("config/config.json")])
            .args(["--kubelet-dir", &path("kubelet")])
            .args(["--device-plugin-dir", &path("kubelet/device-plugins")])
            .args(["--device-info-dir", &path("devinfo/dp")])
            .args(["--cdi-dir", &path("cdi")])
            // A port that nobody has; the log says which.
            .args(["--listen", "127.0.0.1:0"])
            .args(&self.more)
            .stdin(Stdio::null())
            .stderr(fs::File::create(self.path(log)).unwrap())
            .spawn()
            .unwrap();
        Running {
            child,
            address: OnceLock::new(),
            log: self.path(log),
        }
    }
}

pub(crate) fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Returns a configuration with pools of these names, all of the same devices.
pub(crate) fn pools(names: &[&str]) -> String {
    let pool = |name: &&str| {
        format!(r#"{{"resourceName": "{name}", "selectors": {{"drivers": ["mlx5_core"]}}}}"#)
    };
    let pools: Vec<String> = names.iter().map(pool).collect();
    format!(r#"{{"resourceList": [{}]}}"#, pools.join(","))
}

/// Starts a kubelet and an agent with one pool, and waits until the one knows the three devices of the
/// other.
pub(crate) async fn begin(place: &Place) -> (FakeKubelet, Running) {
    place.config(&pools(&["a"]));
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    kubelet
        .until("intel.com/a", |known| known.devices.len() == 3)
        .await;
    (kubelet, agent)
}

trait OnlyDir {
    fn filter_dir(self) -> std::io::Result<PathBuf>;
}

impl OnlyDir for std::io::Result<PathBuf> {
    fn filter_dir(self) -> std::io::Result<PathBuf> {
        self.and_then(|path| {
            if path.is_dir() {
                Ok(path)
            } else {
                Err(std::io::ErrorKind::NotADirectory.into())
            }
        })
    }
}

/// An agent that runs; it is killed when the test ends.
pub(crate) struct Running {
    child: Child,
    /// Where it listens, once its log said so.
    address: OnceLock<SocketAddr>,
    log: PathBuf,
}

impl Running {
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Says that something changed, which a recorded host cannot say.
    pub(crate) fn look_again(&self) {
        self.signal("HUP");
    }

    /// Kills it as the kernel does when memory is short.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in good order and returns how long that took.
    pub(crate) fn end(mut self) -> Duration {
        let begun = Instant::now();
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
        begun.elapsed()
    }

    /// Returns how many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let fds = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(fds).unwrap().count()
    }

    /// Returns how often its threads went to sleep.
    pub(crate) fn sleeps(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let count = |task: std::io::Result<fs::DirEntry>| -> u64 {
            let text = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse().unwrap()
        };
        tasks.map(count).sum()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Returns where it listens; `None` before its log says so.
    fn address(&self) -> Option<SocketAddr> {
        if self.address.get().is_none() {
            let log = self.log();
            let told = |line: &str| line.split_once("listening address=")?.1.parse().ok();
            self.address.set(log.lines().find_map(told)?).ok();
        }
        self.address.get().copied()
    }

    /// Gets a page: the status and the body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub(crate) fn metric_until(&self, metric: &str, value: u64) {
        let line = format!("virtfn_agent_{metric} {value}");
        self.page_until("/metrics", |_, body| {
            body.lines().any(|found| found == line)
        });
    }

    /// Waits until a page is as wanted.
    #[track_caller]
    pub(crate) fn page_until(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.address().map(|_| self.get(path));
            if let Some((status, body)) = page.clone()
                && wanted(status, &body)
            {
                return body;
            }
            assert!(
                Instant::now() < deadline,
                "{path}: {page:?}\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Returns the names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
