//! What the agent tells of itself, metric by metric.

use super::fake_kubelet::FakeKubelet;
use super::running::{Place, pools};

const VF: &str = "0000:08:00.2";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_follows_what_happens() {
    let place = Place::of("mlx5-switchdev").with_kernel();
    place.config(&pools(&["a", "b"]));
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    agent.page_until("/readyz", |status, _| status == 200);
    for (metric, value) in [
        ("devices{resource=\"intel.com/a\",health=\"healthy\"}", 3),
        ("devices{resource=\"intel.com/b\",health=\"healthy\"}", 0),
        (
            "registrations_total{resource=\"intel.com/a\",result=\"ok\"}",
            1,
        ),
        (
            "registrations_total{resource=\"intel.com/a\",result=\"refused\"}",
            0,
        ),
        (
            "allocations_total{resource=\"intel.com/a\",result=\"ok\"}",
            0,
        ),
        ("updates_total{resource=\"intel.com/a\"}", 1),
        ("rescans_total{extent=\"functions\"}", 0),
        ("config_problems", 0),
    ] {
        agent.metric_until(metric, value);
    }
    assert!(kubelet.allocate("intel.com/a", &[VF]).await.is_ok());
    assert!(kubelet.allocate("intel.com/a", &["none"]).await.is_err());
    agent.metric_until(
        "allocations_total{resource=\"intel.com/a\",result=\"ok\"}",
        1,
    );
    agent.metric_until(
        "allocations_total{resource=\"intel.com/a\",result=\"failed\"}",
        1,
    );
    place.bind(VF, "vfio-pci");
    place.tell("bind", VF);
    agent.metric_until(
        "devices{resource=\"intel.com/a\",health=\"other-driver\"}",
        1,
    );
    agent.metric_until("devices{resource=\"intel.com/a\",health=\"healthy\"}", 2);
    agent.metric_until("updates_total{resource=\"intel.com/a\"}", 2);
    place.config("{");
    agent.page_until("/readyz", |status, body| {
        status == 503 && body.contains("no JSON")
    });
    agent.metric_until("config_problems", 1);
    agent.metric_until("devices{resource=\"intel.com/a\",health=\"healthy\"}", 2);
    place.config(&pools(&["a"]));
    agent.metric_until("config_problems", 0);
    let page = agent.page_until("/metrics", |_, body| !body.contains("intel.com/b"));
    assert_is_well_formed(&page);
    for time in ["rescan_seconds_total", "last_rescan_seconds"] {
        let prefix = format!("virtfn_agent_{time} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&prefix));
        let seconds: f64 = line.unwrap().parse().unwrap();
        assert!(seconds > 0.0 && seconds < 60.0, "{time} {seconds}");
    }
}

/// Is it Prometheus' text: before the samples of a family what it is, each family once?
#[track_caller]
fn assert_is_well_formed(page: &str) {
    let mut families: Vec<&str> = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(families.last(), Some(&name));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(families.last(), Some(&name), "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
