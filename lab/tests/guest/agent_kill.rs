//! `virtfn agent` killed at every instant: the next one offers the same, and nothing stale is left.
//!
//! `--kill-at N` (only in a `virtfn` built with the feature `kill-points`) ends the process with SIGKILL
//! at its N-th checkpoint: around sockets, registrations, files and allocations.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::agent::{Agent, block_on, healthy, place};
use crate::fake_kubelet::{FakeKubelet, PATIENCE, sockets};
use crate::support::{Machine, VF0, VF1};

/// More checkpoints than an agent passes here; reaching it means that the counting is broken.
const MOST: u32 = 60;

/// Two pools, of which the second comes by an edit.
const POOLS: [&str; 2] = [
    r#"{"resourceList": [{"resourceName": "one", "selectors": {"rootDevices": ["0000:01:00.0#0"]}}]}"#,
    r#"{"resourceList": [
        {"resourceName": "one", "selectors": {"rootDevices": ["0000:01:00.0#0"]}},
        {"resourceName": "two", "selectors": {"rootDevices": ["0000:01:00.0#1"]}}]}"#,
];

/// Does with an agent all that it is there for; ends early when it dies.
async fn live(kubelet: &FakeKubelet, dir: &Path) {
    kubelet
        .until("intel.com/one", |known| healthy(known) == 1)
        .await;
    // It may die meanwhile, which is what this is about.
    let _answer = kubelet.allocate("intel.com/one", &[VF0]).await;
    fs::write(dir.join("config.json"), POOLS[1]).expect("/tmp is writable");
    kubelet
        .until("intel.com/two", |known| healthy(known) == 1)
        .await;
    let _answer = kubelet.allocate("intel.com/two", &[VF1]).await;
}

/// Gives a device to a container; the kubelet may not have seen yet that the agent before is dead.
async fn given(kubelet: &FakeKubelet, pool: &str, vf: &str) {
    while kubelet.allocate(pool, &[vf]).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
}

async fn died(agent: &mut Agent) {
    while !agent.has_ended() {
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn an_agent_killed_anywhere_is_followed_by_one_that_offers_the_same() {
    let _machine = Machine::with_vfs(2);
    block_on(async {
        for (registration, options) in [("legacy", "--use-cdi=false"), ("watcher", "--use-cdi")] {
            let dir = place(registration);
            let more = ["--registration", registration, options];
            for at in 1.. {
                assert!(at < MOST, "{MOST} checkpoints were passed");
                fs::create_dir_all(&dir).expect("/tmp is writable");
                let kubelet = FakeKubelet::start(&dir.join("kubelet"));
                let number = at.to_string();
                let mut mortal = Agent::start(
                    &dir,
                    POOLS[0],
                    &[&more[..], &["--kill-at", &number]].concat(),
                );
                let lived = tokio::select! {
                    () = live(&kubelet, &dir) => !mortal.has_ended(),
                    () = died(&mut mortal) => false,
                };
                if lived {
                    assert!(at > 8, "only {} checkpoints were passed", at - 1);
                    break;
                }
                let next = Agent::start(&dir, POOLS[1], &more);
                for (pool, vf) in [("intel.com/one", VF0), ("intel.com/two", VF1)] {
                    kubelet.until(pool, |known| healthy(known) == 1).await;
                    let given = timeout(PATIENCE, given(&kubelet, pool, vf)).await;
                    given.unwrap_or_else(|_| panic!("killed at {at}: {pool} is not given"));
                    let name = pool.replace('/', "-");
                    let info = dir.join(format!("devinfo/dp/{name}-{vf}-device.json"));
                    let text = fs::read_to_string(info).expect("it is written");
                    assert!(text.contains(vf), "killed at {at}: {text}");
                }
                next.end();
                for name in ["plugins_registry", "device-plugins"] {
                    let left = sockets(&dir.join("kubelet").join(name));
                    let ours = left.iter().filter(|path| !path.ends_with("kubelet.sock"));
                    assert_eq!(ours.count(), 0, "killed at {at}: {left:?}");
                }
                kubelet.kill().await;
                fs::remove_dir_all(&dir).expect("nobody is in it any more");
            }
        }
    });
}
