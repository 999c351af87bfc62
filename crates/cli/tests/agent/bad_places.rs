//! Sockets and directories that are not what they should be.

use std::fs;
use std::os::unix::net::UnixListener;

use super::fake_kubelet::FakeKubelet;
use super::running::{Place, pools};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_where_a_socket_goes_is_replaced_unless_it_is_somebodys() {
    for (registration, dir) in [
        ("legacy", "device-plugins"),
        ("watcher", "plugins_registry"),
    ] {
        let place = Place::of("mlx5-switchdev").with(&["--registration", registration]);
        place.config(&pools(&["socket", "file", "empty", "full"]));
        let dir = place.kubelet().join(dir);
        fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| dir.join(format!("intel.com_{name}.sock"));
        drop(UnixListener::bind(path("socket")).unwrap());
        fs::write(path("file"), "x").unwrap();
        fs::create_dir(path("empty")).unwrap();
        fs::create_dir(path("full")).unwrap();
        fs::write(path("full").join("precious"), "x").unwrap();
        let kubelet = FakeKubelet::start(&place.kubelet());
        let agent = place.start();
        kubelet
            .until("intel.com/socket", |known| known.devices.len() == 3)
            .await;
        for name in ["intel.com/file", "intel.com/empty"] {
            kubelet.until(name, |known| known.devices.is_empty()).await;
        }
        let body = agent.page_until("/readyz", |status, body| {
            status == 503 && body.lines().count() == 1
        });
        assert!(body.starts_with("intel.com/full: replace "), "{body}");
        assert!(path("full").join("precious").exists());
        // Once it is out of the way the pool is served, without anything else.
        fs::remove_dir_all(path("full")).unwrap();
        kubelet
            .until("intel.com/full", |known| known.devices.is_empty())
            .await;
        agent.page_until("/readyz", |status, _| status == 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_place_of_a_directory_is_told_and_waited_for() {
    for (registration, name) in [
        ("legacy", "device-plugins"),
        ("watcher", "plugins_registry"),
    ] {
        let place = Place::of("mlx5-switchdev").with(&["--registration", registration]);
        place.config(&pools(&["a"]));
        fs::create_dir_all(place.kubelet()).unwrap();
        fs::write(place.kubelet().join(name), "x").unwrap();
        let agent = place.start();
        let body = agent.page_until("/readyz", |status, body| {
            status == 503 && body.contains(name)
        });
        assert!(body.contains("Not a directory"), "{body}");
        assert_eq!(agent.get("/healthz").0, 200);
        fs::remove_file(place.kubelet().join(name)).unwrap();
        let kubelet = FakeKubelet::start(&place.kubelet());
        kubelet
            .until("intel.com/a", |known| known.devices.len() == 3)
            .await;
        agent.page_until("/readyz", |status, _| status == 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_written_are_told_and_tried_again() {
    let place = Place::of("mlx5-switchdev");
    place.config(&pools(&["a"]));
    fs::write(place.path("devinfo"), "x").unwrap();
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    // The kubelet has the devices all the same.
    kubelet
        .until("intel.com/a", |known| known.devices.len() == 3)
        .await;
    let body = agent.page_until("/readyz", |status, body| {
        status == 503 && body.contains("devinfo/dp")
    });
    assert_eq!(body.lines().count(), 1, "{body}");
    let error = kubelet
        .allocate("intel.com/a", &["0000:08:00.2"])
        .await
        .unwrap_err();
    assert!(format!("{error:?}").contains("devinfo/dp"), "{error:?}");
    fs::remove_file(place.path("devinfo")).unwrap();
    agent.look_again();
    agent.page_until("/readyz", |status, _| status == 200);
    kubelet
        .allocate("intel.com/a", &["0000:08:00.2"])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_names_are_served_and_longer_ones_are_told() {
    let longest = "x".repeat(63);
    let place = Place::of("mlx5-switchdev").with(&["--resource-prefix", &prefix(244)]);
    place.config(&pools(&[&longest]));
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    let resource = format!("{}/{longest}", prefix(244));
    kubelet
        .until(&resource, |known| known.devices.len() == 3)
        .await;
    agent.page_until("/readyz", |status, _| status == 200);
    drop(agent);
    let place = Place::of("mlx5-switchdev");
    place.config(&pools(&["good"]));
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    kubelet
        .until("intel.com/good", |known| known.devices.len() == 3)
        .await;
    for bad in [format!("{longest}x"), "-a".to_owned(), "a.b".to_owned()] {
        place.config(&pools(&[&bad]));
        let body = agent.page_until("/readyz", |status, body| {
            status == 503 && body.contains(&bad)
        });
        assert!(body.contains("resourceList[0].resourceName: "), "{body}");
        // What was good stays.
        let known = kubelet.known("intel.com/good").unwrap();
        assert_eq!(known.devices.len(), 3);
    }
    let metrics = agent.get("/metrics").1;
    assert!(
        metrics.contains("virtfn_agent_config_problems 1"),
        "{metrics}"
    );
}

/// Returns a DNS name of a length.
fn prefix(length: usize) -> String {
    let mut name = "a.".repeat(length / 2);
    name.truncate(length - 1);
    name + "b"
}
