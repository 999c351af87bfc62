use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fake_kubelet::{FakeKubelet, sockets};
use super::running::Place;

const ONE_POOL: &str =
    r#"{"resourceList": [{"resourceName": "a", "selectors": {"drivers": ["mlx5_core"]}}]}"#;

fn place(registration: &str) -> Place {
    let place = Place::of("mlx5-switchdev").with(&["--registration", registration]);
    place.config(ONE_POOL);
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_the_kubelet_are_survived() {
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        // The agent is there first.
        fs::create_dir_all(place.kubelet().join("plugins_registry")).unwrap();
        fs::create_dir_all(place.kubelet().join("device-plugins")).unwrap();
        let agent = place.start();
        agent.page_until("/readyz", |_, body| {
            body.contains("has not registered it yet")
        });
        for _ in 0..3 {
            let kubelet = FakeKubelet::start(&place.kubelet());
            kubelet
                .until("intel.com/a", |known| known.devices.len() == 3)
                .await;
            assert_eq!(kubelet.known("intel.com/a").unwrap().times, 1);
            kubelet.kill().await;
        }
        agent.end();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_leaves_nothing_that_the_next_one_trips_over() {
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        let kubelet = FakeKubelet::start(&place.kubelet());
        for _ in 0..3 {
            let agent = place.start();
            kubelet
                .until("intel.com/a", |known| {
                    known.devices.values().filter(|h| **h).count() == 3
                })
                .await;
            agent.page_until("/readyz", |status, _| status == 200);
            agent.kill();
            kubelet
                .until("intel.com/a", |known| known.devices.values().all(|h| !*h))
                .await;
        }
        let agent = place.start();
        agent.page_until("/readyz", |status, _| status == 200);
        assert!(agent.end() < Duration::from_secs(15));
        let left =
            ["plugins_registry", "device-plugins"].map(|dir| sockets(&place.kubelet().join(dir)));
        let ours = left
            .concat()
            .into_iter()
            .filter(|path| !path.ends_with("kubelet.sock"));
        assert_eq!(ours.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_somebody_removed_comes_back() {
    for (registration, dir) in [
        ("legacy", "device-plugins"),
        ("watcher", "plugins_registry"),
    ] {
        let place = place(registration);
        let kubelet = FakeKubelet::start(&place.kubelet());
        let agent = place.start();
        kubelet
            .until("intel.com/a", |known| known.devices.len() == 3)
            .await;
        agent.page_until("/readyz", |status, _| status == 200);
        fs::remove_file(place.kubelet().join(dir).join("intel.com_a.sock")).unwrap();
        if registration == "legacy" {
            kubelet.until("intel.com/a", |known| known.times == 2).await;
        }
        kubelet
            .until("intel.com/a", |known| {
                known.devices.values().filter(|h| **h).count() == 3
            })
            .await;
        agent.page_until("/readyz", |status, _| status == 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_and_tried_again() {
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        let kubelet = FakeKubelet::start(&place.kubelet());
        kubelet.moods.refuses.store(true, Ordering::SeqCst);
        let agent = place.start();
        let body = agent.page_until("/readyz", |_, body| body.contains("not today"));
        assert!(body.starts_with("intel.com/a: "), "{body}");
        assert!(!kubelet.moods.refusals.lock().unwrap().is_empty());
        kubelet.moods.refuses.store(false, Ordering::SeqCst);
        kubelet
            .until("intel.com/a", |known| known.devices.len() == 3)
            .await;
        agent.page_until("/readyz", |status, _| status == 200);
        let metrics = agent.get("/metrics").1;
        assert!(
            metrics.contains("resource=\"intel.com/a\",result=\"refused\""),
            "{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_list_has_what_the_checkpoint_says_that_pods_have() {
    let place = place("legacy");
    let plugins = place.kubelet().join("device-plugins");
    fs::create_dir_all(&plugins).unwrap();
    let checkpoint = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c",
        "ResourceName":"intel.com/a","DeviceIDs":{"-1":["0000:08:00.2"]},"AllocResp":""}],
        "RegisteredDevices":{}},"Checksum":1}"#;
    fs::write(plugins.join("kubelet_internal_checkpoint"), checkpoint).unwrap();
    place.remove_function("0000:08:00.2");
    let agent = place.start();
    let state = agent.page_until("/debug/state", |_, body| body.contains("pool intel.com/a"));
    assert!(
        state.contains("0000:08:00.2 unhealthy: it is gone"),
        "{state}"
    );
}
