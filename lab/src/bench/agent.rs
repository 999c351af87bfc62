//! `virtfn agent` with 1,024 VFs in 8 pools, on a recorded host and against a kubelet that is played.
//!
//! Nothing here needs a machine: what is measured is the agent, not the kernel. An *event* is a VF
//! that loses or gets its driver in the recording, and its uevent, which the bench plays: the agent looks
//! at that function, decides, and tells the kubelet. A *rescan* is the same change followed by SIGHUP,
//! upon which the agent looks at the whole host. Times of calls include a new connection for each, which
//! the real kubelet does not need. `idle_wakeups` counts how often any of the agent's threads woke up
//! while it was left alone: the one timer of every minute wakes the thread that looks, and then the one
//! that decides.

#[path = "../../../crates/host/benches/discover/many_vfs.rs"]
mod many_vfs;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use host::Tree;
use kubelet::deviceplugin::{
    ALLOCATE, AllocateRequest, AllocateResponse, ContainerAllocateRequest, Empty, LIST_AND_WATCH,
    ListAndWatchResponse,
};
use kubelet::{Subscription, call, subscribe};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{percentile, program};

/// Pools, each with the VFs of two PFs.
const POOLS: usize = 8;

/// Devices of all pools.
const DEVICES: usize = many_vfs::PFS * many_vfs::VFS;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rest between events, longer than the agent waits for more of them.
const REST: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(crate) struct AgentBench {
    /// The `virtfn` to measure
    #[arg(long, value_name = "PATH", default_value = "virtfn")]
    virtfn: PathBuf,
    /// How many containers are given a device
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    allocations: usize,
    /// How often a VF changes
    #[arg(long, value_name = "N", default_value_t = 50)]
    events: usize,
    /// How many seconds the agent is left alone, to count how often it wakes up
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle: u64,
    /// Form of the result; there is one
    #[arg(short, long, value_name = "FORM", default_value = "json")]
    output: String,
}

/// Measures and returns one JSON object.
pub(crate) fn run(bench: &AgentBench) -> Result<String> {
    ensure!(
        bench.output == "json",
        "-o {}: only json is known",
        bench.output
    );
    ensure!(
        bench.allocations > 0 && bench.events > 0,
        "0 measures nothing"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(bench))
}

async fn measure(bench: &AgentBench) -> Result<String> {
    let place = Place::new()?;
    let agent = place.start(&program(&bench.virtfn)?)?;
    let mut pools = Vec::new();
    for pool in 0..POOLS {
        pools.push(Pool::open(&place, pool).await?);
    }
    let devices: usize = pools.iter().map(|pool| pool.devices.len()).sum();
    ensure!(devices == DEVICES, "the agent offers {devices} devices");
    let mut allocations = Vec::with_capacity(bench.allocations);
    for at in 0..bench.allocations {
        let pool = &pools[at % POOLS];
        let device = &pool.devices[at / POOLS % pool.devices.len()];
        allocations.push(pool.allocate(device).await?);
    }
    let events = pools[0]
        .updates(&place, &agent, Word::Uevent, bench.events)
        .await?;
    let rescans = pools[0]
        .updates(&place, &agent, Word::Signal, bench.events)
        .await?;
    tokio::time::sleep(REST).await;
    let awake = agent.wakeups()?;
    tokio::time::sleep(Duration::from_secs(bench.idle)).await;
    let awake = agent.wakeups()?.saturating_sub(awake);
    allocations.sort_unstable_by(f64::total_cmp);
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let view = json!({
        "bench": "agent",
        "devices": devices,
        "rss_mb": rounded(agent.rss_mb()?),
        "allocate_p99_ms": rounded(percentile(&allocations, 99)),
        "event_to_update_ms": rounded(percentile(&events.times, 50)),
        "rescan_ms": rounded(rescans.cpu),
        "idle_s": bench.idle,
        "idle_wakeups": awake,
        "allocations": bench.allocations,
        "event_to_update_p99_ms": rounded(percentile(&events.times, 99)),
        "event_cpu_ms": rounded(events.cpu),
        "rescan_to_update_ms": rounded(percentile(&rescans.times, 50)),
    });
    Ok(view.to_string())
}

/// The recorded host and the directories of the kubelet.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        // In memory as sysfs is: from a disk the agent would wait for files that nobody read of late.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let place = Self { dir };
        fs::create_dir_all(place.path("kubelet/plugins_registry"))?;
        fs::create_dir(place.path("root"))?;
        Tree::parse(&many_vfs::generated_tree())?.unpack(&place.path("root"))?;
        let kernel = place.path("root/netlink/events");
        mknodat(CWD, &kernel, FileType::Fifo, Mode::RWXU, 0).context("make a FIFO")?;
        let pool = |at: usize| {
            let pfs = json!([format!("ens{}", 2 * at), format!("ens{}", 2 * at + 1)]);
            json!({"resourceName": format!("pool{at}"), "selectors": {"pfNames": pfs}})
        };
        let pools: Vec<_> = (0..POOLS).map(pool).collect();
        fs::write(
            place.path("config.json"),
            json!({"resourceList": pools}).to_string(),
        )?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, virtfn: &Path) -> Result<Agent> {
        let child = Command::new(virtfn)
            .args([
                "agent".as_ref(),
                "--recorded".as_ref(),
                self.path("root").as_os_str(),
            ])
            .args(["--config".as_ref(), self.path("config.json").as_os_str()])
            .args(["--kubelet-dir".as_ref(), self.path("kubelet").as_os_str()])
            .args([
                "--device-plugin-dir".as_ref(),
                self.path("kubelet").as_os_str(),
            ])
            .args([
                "--device-info-dir".as_ref(),
                self.path("devinfo/dp").as_os_str(),
            ])
            .args(["--cdi-dir".as_ref(), self.path("cdi").as_os_str()])
            .stdin(Stdio::null())
            .stderr(fs::File::create(self.path("log"))?)
            .spawn()
            .context("start the agent")?;
        Ok(Agent { child })
    }

    /// Plays the kernel, which tells what happened to a function.
    fn play(&self, function: &Path, action: &str) -> Result<()> {
        let path = function.canonicalize()?;
        let path = path.strip_prefix(self.path("root/sys").canonicalize()?)?;
        let event = format!("{action}@/{}\0SUBSYSTEM=pci\n", path.display());
        // Read and write, so that it does not wait for an agent that is gone.
        let mut kernel = fs::File::options()
            .read(true)
            .write(true)
            .open(self.path("root/netlink/events"))?;
        Ok(kernel.write_all(event.as_bytes())?)
    }

    /// Returns the directory of one of the VFs of the first pool.
    fn vf(&self, at: usize) -> PathBuf {
        let devfn = 8 + at % many_vfs::VFS;
        let name = format!("0000:10:{:02x}.{}", devfn / 8, devfn % 8);
        self.path("root/sys/bus/pci/devices").join(name)
    }
}

/// How the agent learns that something changed.
#[derive(Clone, Copy)]
enum Word {
    /// The kernel says which function.
    Uevent,
    /// Somebody says "look again".
    Signal,
}

/// What updates cost.
struct Updates {
    /// From the word to the list, in milliseconds, sorted.
    times: Vec<f64>,
    /// Milliseconds of processor time for each.
    cpu: f64,
}

/// One pool, as the kubelet has it.
struct Pool {
    socket: PathBuf,
    stream: Subscription,
    devices: Vec<String>,
}

impl Pool {
    /// Waits for its socket and for the first list.
    async fn open(place: &Place, at: usize) -> Result<Self> {
        let name = format!("kubelet/plugins_registry/intel.com_pool{at}.sock");
        let socket = place.path(&name);
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match subscribe(&socket, LIST_AND_WATCH, &Empty {}, PATIENCE).await {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let list: ListAndWatchResponse = stream.next().await.context("no list came")?;
        Ok(Self {
            socket,
            stream,
            devices: list.devices.into_iter().map(|device| device.id).collect(),
        })
    }

    /// Gives a device to a container and returns how long that took, in milliseconds.
    async fn allocate(&self, device: &str) -> Result<f64> {
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                devices_ids: vec![device.to_owned()],
            }],
        };
        let begun = Instant::now();
        let answer: AllocateResponse = call(&self.socket, ALLOCATE, &request, PATIENCE).await?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        ensure!(
            answer.container_responses[0]
                .envs
                .values()
                .any(|value| value == device),
            "{device} was not given"
        );
        Ok(took)
    }

    /// Lets VFs lose their drivers and get them back, and returns what each update cost.
    async fn updates(
        &mut self,
        place: &Place,
        agent: &Agent,
        word: Word,
        count: usize,
    ) -> Result<Updates> {
        let mut times = Vec::with_capacity(count);
        let before = agent.cpu()?;
        for at in 0..count {
            tokio::time::sleep(REST).await;
            // Every second change undoes the one before.
            let vf = place.vf(at / 2);
            times.push(self.update(place, agent, word, &vf, at % 2 == 1).await?);
        }
        let cpu = agent.cpu()?.saturating_sub(before).as_secs_f64() * 1000.0;
        times.sort_unstable_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let cpu = cpu / count as f64;
        Ok(Updates { times, cpu })
    }

    /// Gives a VF its driver, or takes it, and returns how long it took until the list came.
    async fn update(
        &mut self,
        place: &Place,
        agent: &Agent,
        word: Word,
        vf: &Path,
        bound: bool,
    ) -> Result<f64> {
        let path = vf.join("uevent");
        let text = fs::read_to_string(&path)?;
        let kept = text.lines().filter(|line| !line.starts_with("DRIVER="));
        let mut lines: Vec<&str> = kept.collect();
        if bound {
            lines.insert(0, "DRIVER=mlx5_core");
        }
        fs::write(&path, lines.join("\n") + "\n")?;
        let begun = Instant::now();
        match word {
            Word::Signal => agent.signal()?,
            Word::Uevent => place.play(vf, if bound { "bind" } else { "unbind" })?,
        }
        let list = tokio::time::timeout(PATIENCE, self.stream.next::<ListAndWatchResponse>());
        let list = list
            .await
            .context("no update came")?
            .context("the stream ended")?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        let name = vf.file_name().unwrap_or_default().to_string_lossy();
        let healthy = list
            .devices
            .iter()
            .any(|device| device.id == name && device.health == "Healthy");
        ensure!(healthy == bound, "the update says the opposite of {name}");
        Ok(took)
    }
}

/// The agent; it is killed when this goes.
struct Agent {
    child: Child,
}

impl Agent {
    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    /// Says that something changed.
    fn signal(&self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(
            pid.context("the agent has no process id")?,
            Signal::HUP,
        )?)
    }

    /// Returns the processor time of all its threads.
    fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(self.proc("task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().unwrap_or_default();
            nanos += first.parse::<u64>().context("read schedstat")?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Returns how often its threads went to sleep: each went as often as it woke up.
    fn wakeups(&self) -> Result<u64> {
        let mut all = 0;
        for task in fs::read_dir(self.proc("task"))? {
            let text = fs::read_to_string(task?.path().join("status"))?;
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let count = line.and_then(|line| line.trim().parse::<u64>().ok());
            all += count.context("read voluntary_ctxt_switches")?;
        }
        Ok(all)
    }

    /// Returns the resident memory.
    fn rss_mb(&self) -> Result<f64> {
        let text = fs::read_to_string(self.proc("status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
        Ok(kilobytes.context("read VmRSS")? / 1024.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}
