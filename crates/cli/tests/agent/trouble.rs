//! A kubelet that hangs, refuses or forgets, clients that do not read, a second agent, and one that is
//! left alone.

use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kubelet::deviceplugin::{Empty, LIST_AND_WATCH, ListAndWatchResponse};
use kubelet::subscribe;

use super::fake_kubelet::{FakeKubelet, Known, PATIENCE};
use super::running::{Place, names, pools};

fn place(registration: &str) -> Place {
    let place = Place::of("mlx5-switchdev").with(&["--registration", registration]);
    place.config(&pools(&["a"]));
    place
}

fn all_well(known: &Known) -> bool {
    known.devices.len() == 3 && known.devices.values().all(|healthy| *healthy)
}

/// Makes the directories of a kubelet in which every socket accepts and nothing ever answers.
pub(crate) fn hung_kubelet(place: &Place) -> [UnixListener; 2] {
    let sockets = ["device-plugins", "pod-resources"].map(|dir| {
        let dir = place.kubelet().join(dir);
        fs::create_dir_all(&dir).unwrap();
        dir.join("kubelet.sock")
    });
    fs::create_dir_all(place.kubelet().join("plugins_registry")).unwrap();
    sockets.map(|socket| UnixListener::bind(socket).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_hangs_is_replaced_by_one_that_does_not() {
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        let hung = hung_kubelet(&place);
        let agent = place.start();
        agent.page_until("/healthz", |status, _| status == 200);
        // The host is seen and a new file is read, whatever the kubelet does.
        agent.page_until("/debug/state", |_, body| {
            body.contains("pool intel.com/a netDevice: 3 devices")
        });
        place.config(&pools(&["b"]));
        let body = agent.page_until("/readyz", |status, body| {
            status == 503 && body.contains("intel.com/b: ")
        });
        assert!(!body.contains("intel.com/a"), "{body}");
        drop(hung);
        let kubelet = FakeKubelet::start(&place.kubelet());
        kubelet.until("intel.com/b", all_well).await;
        agent.page_until("/readyz", |status, _| status == 200);
        assert!(agent.end() < Duration::from_secs(15));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_is_given_up_and_tried_again() {
    let place = place("legacy");
    let kubelet = FakeKubelet::start(&place.kubelet());
    kubelet.moods.hangs.store(true, Ordering::SeqCst);
    let agent = place.start();
    // Only a call that was given up tells that.
    agent.page_until("/readyz", |_, body| body.contains("no answer in"));
    kubelet.moods.hangs.store(false, Ordering::SeqCst);
    kubelet.until("intel.com/a", all_well).await;
    agent.page_until("/readyz", |status, _| status == 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_refuses_is_asked_less_and_less_often() {
    let place = place("legacy");
    let kubelet = FakeKubelet::start(&place.kubelet());
    kubelet.moods.refuses.store(true, Ordering::SeqCst);
    let agent = place.start();
    agent.page_until("/readyz", |_, body| body.contains("not today"));
    // Whatever else happens beside the kubelet's socket is no reason to ask the same kubelet at once.
    fs::write(place.kubelet().join("device-plugins/other.sock"), "").unwrap();
    let refusals = || kubelet.moods.refusals.lock().unwrap().clone();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while refusals().len() < 4 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", refusals());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let times = refusals();
    let waits: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
    for (wait, least) in waits.iter().zip([500, 1000, 2000]) {
        // Both sides look at a clock of their own.
        assert!(*wait > Duration::from_millis(least - 50), "{waits:?}");
    }
    let refused = "registrations_total{resource=\"intel.com/a\",result=\"refused\"}";
    agent.metric_until(refused, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_the_kubelet_dropped_registers_again() {
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        let kubelet = FakeKubelet::start(&place.kubelet());
        let agent = place.start();
        kubelet.until("intel.com/a", all_well).await;
        agent.page_until("/readyz", |status, _| status == 200);
        kubelet.drop_client("intel.com/a");
        kubelet
            .until("intel.com/a", |known| {
                known.devices.values().all(|healthy| !healthy)
            })
            .await;
        kubelet.until("intel.com/a", all_well).await;
        agent.page_until("/readyz", |status, _| status == 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_read_holds_nobody_up() {
    let place = place("watcher");
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    let socket = kubelet.until("intel.com/a", all_well).await.socket;
    let mut slow = subscribe(&socket, LIST_AND_WATCH, &Empty {}, PATIENCE)
        .await
        .unwrap();
    for (gone, left) in [("0000:08:00.2", 2), ("0000:08:00.3", 1)] {
        place.remove_function(gone);
        agent.look_again();
        kubelet
            .until("intel.com/a", |known| known.devices.len() == left)
            .await;
    }
    // Whoever reads late gets to the present.
    let mut last = usize::MAX;
    while last != 1 {
        let list: ListAndWatchResponse = slow.next().await.unwrap();
        assert!(list.devices.len() < last);
        last = list.devices.len();
    }
    assert!(agent.end() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reconnects_leave_nothing_open() {
    let place = place("watcher");
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    let socket = kubelet.until("intel.com/a", all_well).await.socket;
    agent.page_until("/readyz", |status, _| status == 200);
    let before = agent.descriptors();
    for _ in 0..100 {
        let mut stream = subscribe(&socket, LIST_AND_WATCH, &Empty {}, PATIENCE)
            .await
            .unwrap();
        let list: ListAndWatchResponse = stream.next().await.unwrap();
        assert_eq!(list.devices.len(), 3);
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while agent.descriptors() > before {
        let now = agent.descriptors();
        assert!(
            tokio::time::Instant::now() < deadline,
            "{before}, now {now}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_waits_until_the_first_has_ended() {
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        let kubelet = FakeKubelet::start(&place.kubelet());
        let first = place.start();
        kubelet.until("intel.com/a", all_well).await;
        first.page_until("/readyz", |status, _| status == 200);
        let second = place.start_another();
        let body = second.page_until("/readyz", |_, body| body.contains("another agent"));
        assert!(body.starts_with("intel.com/a: "), "{body}");
        assert_eq!(kubelet.known("intel.com/a").unwrap().times, 1);
        first.page_until("/readyz", |status, _| status == 200);
        first.end();
        kubelet.until("intel.com/a", all_well).await;
        second.page_until("/readyz", |status, _| status == 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_any_order_end_well() {
    let orders = [
        ["kill agent", "kill kubelet", "start kubelet", "start agent"],
        ["kill agent", "kill kubelet", "start agent", "start kubelet"],
        ["kill kubelet", "kill agent", "start kubelet", "start agent"],
        ["kill kubelet", "kill agent", "start agent", "start kubelet"],
        ["kill kubelet", "start kubelet", "kill agent", "start agent"],
        ["kill agent", "start agent", "kill kubelet", "start kubelet"],
    ];
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        let mut kubelet = Some(FakeKubelet::start(&place.kubelet()));
        let mut agent = Some(place.start());
        for order in orders {
            for step in order {
                match step {
                    "kill agent" => agent.take().unwrap().kill(),
                    "start agent" => agent = Some(place.start()),
                    "kill kubelet" => kubelet.take().unwrap().kill().await,
                    _ => kubelet = Some(FakeKubelet::start(&place.kubelet())),
                }
            }
            kubelet
                .as_ref()
                .unwrap()
                .until("intel.com/a", all_well)
                .await;
            let agent = agent.as_ref().unwrap();
            agent.page_until("/readyz", |status, _| status == 200);
        }
        agent.unwrap().end();
        let left = ["plugins_registry", "device-plugins"]
            .map(|dir| names(&place.kubelet().join(dir)))
            .concat();
        let ours = left.iter().filter(|name| name.ends_with(".sock"));
        assert_eq!(ours.collect::<Vec<_>>(), ["kubelet.sock"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_a_replayed_answer_finds_the_new_group() {
    let place = Place::of("igb-4-vfs").with(&["--use-cdi", "--registration", "legacy"]);
    place.config(
        r#"{"resourceList": [{"resourceName": "user", "selectors": {"drivers": ["vfio-pci"]}}]}"#,
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    kubelet
        .until("intel.com/user", |known| known.devices.len() == 1)
        .await;
    let answer = kubelet
        .allocate("intel.com/user", &["0000:01:10.6"])
        .await
        .unwrap();
    assert_eq!(answer.cdi_devices[0].name, "intel.com/net-pci=0000:01:10.6");
    let specification = place.path("cdi/sriov-dp-intel.com-net-pci-user.yaml");
    let text = fs::read_to_string(&specification).unwrap();
    assert!(text.contains("\"/dev/vfio/11\""), "{text}");
    agent.kill();
    kubelet.kill().await;
    // /run is empty after a reboot, and the kernel counts groups as it likes.
    fs::remove_dir_all(place.path("cdi")).unwrap();
    let checkpoint = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c",
        "ResourceName":"intel.com/user","DeviceIDs":{"-1":["0000:01:10.6"]},"AllocResp":""}],
        "RegisteredDevices":{}},"Checksum":1}"#;
    let plugins = place.kubelet().join("device-plugins");
    fs::write(plugins.join("kubelet_internal_checkpoint"), checkpoint).unwrap();
    place.link(
        "sys/bus/pci/devices/0000:01:10.6/iommu_group",
        "../../../kernel/iommu_groups/77",
    );
    let agent = place.start();
    let kubelet = FakeKubelet::start(&place.kubelet());
    kubelet
        .until("intel.com/user", |known| {
            known.devices.get("0000:01:10.6") == Some(&true)
        })
        .await;
    // Nobody calls Allocate: the runtime reads the file when it starts the container.
    let text = fs::read_to_string(&specification).unwrap();
    assert!(text.contains("\"/dev/vfio/77\""), "{text}");
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_left_alone_sleeps() {
    for registration in ["legacy", "watcher"] {
        let place = place(registration);
        let kubelet = FakeKubelet::start(&place.kubelet());
        let agent = place.start();
        kubelet.until("intel.com/a", all_well).await;
        agent.page_until("/readyz", |status, _| status == 200);
        // One look a minute is allowed, so one of some stretches has to be without any. What goes on at
        // first ends in the first one.
        let mut woken = Vec::new();
        for _ in 0..8 {
            let before = agent.sleeps();
            tokio::time::sleep(Duration::from_secs(4)).await;
            woken.push(agent.sleeps() - before);
            if woken.last() == Some(&0) {
                break;
            }
        }
        assert_eq!(woken.last(), Some(&0), "{registration}: {woken:?}");
    }
}
