use std::fs;

use super::fake_kubelet::{FakeKubelet, sockets};
use super::running::{Place, begin, make_fifo, pools};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_take_effect_without_a_restart() {
    let place = Place::of("mlx5-switchdev");
    let (kubelet, agent) = begin(&place).await;
    place.config(&pools(&["a", "b"]));
    // The first pool has the devices, and a pool without any is told at once.
    kubelet
        .until("intel.com/b", |known| known.devices.is_empty())
        .await;
    place.config(&pools(&["b"]));
    kubelet.until_gone("intel.com/a").await;
    kubelet
        .until("intel.com/b", |known| known.devices.len() == 3)
        .await;
    let names = sockets(&place.kubelet().join("plugins_registry"));
    assert_eq!(
        names,
        [place.kubelet().join("plugins_registry/intel.com_b.sock")]
    );
    agent.end();
    assert!(sockets(&place.kubelet().join("plugins_registry")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_told_and_the_good_one_stays_in_force() {
    let place = Place::of("mlx5-switchdev");
    let (kubelet, agent) = begin(&place).await;
    agent.page_until("/readyz", |status, _| status == 200);
    place.config(r#"{"resourceList": [{"resourceName": "a", "selectors": {"vendors": 5}}]}"#);
    let body = agent.page_until("/readyz", |status, _| status == 503);
    assert!(
        body.contains("resourceList[0].selectors.vendors: it is a number"),
        "{body}"
    );
    assert!(
        agent
            .get("/metrics")
            .1
            .contains("virtfn_agent_config_problems 1")
    );
    assert_eq!(agent.get("/healthz").0, 200);
    assert_eq!(kubelet.known("intel.com/a").unwrap().devices.len(), 3);
    place.config(&pools(&["a"]));
    agent.page_until("/readyz", |status, _| status == 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_is_told_and_holds_nobody_up() {
    let place = Place::of("mlx5-switchdev");
    let (kubelet, agent) = begin(&place).await;
    let file = place.path("config/config.json");
    fs::remove_file(&file).unwrap();
    make_fifo(&file);
    agent.page_until("/readyz", |status, body| {
        status == 503 && body.contains("it is no file")
    });
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("missing", &file).unwrap();
    agent.page_until("/readyz", |_, body| body.contains("No such file"));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    agent.page_until("/readyz", |_, body| body.contains("it is no file"));
    assert_eq!(kubelet.known("intel.com/a").unwrap().devices.len(), 3);
    fs::remove_dir(&file).unwrap();
    place.config(&pools(&["a"]));
    agent.page_until("/readyz", |status, _| status == 200);
    agent.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_and_a_missing_directory_are_waited_for() {
    let place = Place::of("mlx5-switchdev").with(&["--registration", "watcher"]);
    let agent = place.start();
    let body = agent.page_until("/readyz", |status, body| {
        status == 503 && body.contains("config.json")
    });
    assert!(body.contains("read "), "{body}");
    place.config(&pools(&["a"]));
    agent.page_until("/readyz", |_, body| body.contains("plugins_registry/."));
    let kubelet = FakeKubelet::start(&place.kubelet());
    kubelet
        .until("intel.com/a", |known| known.devices.len() == 3)
        .await;
    agent.page_until("/readyz", |status, _| status == 200);
}
