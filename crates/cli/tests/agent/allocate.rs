use kubelet::CallError;

use super::fake_kubelet::FakeKubelet;
use super::running::{Place, names};

const TWO_POOLS: &str = r#"{"resourceList": [
    {"resourceName": "net", "selectors": {"drivers": ["igbvf"]}, "preferredAllocation": "packed"},
    {"resourceName": "user", "selectors": {"drivers": ["vfio-pci"]}}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_get_their_devices_and_files() {
    let place = Place::of("igb-4-vfs");
    place.config(TWO_POOLS);
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    let net = kubelet
        .until("intel.com/net", |known| known.devices.len() == 1)
        .await;
    assert!(net.devices.values().all(|healthy| *healthy) && net.preferred);
    let user = kubelet
        .until("intel.com/user", |known| known.devices.len() == 1)
        .await;
    assert!(user.devices["0000:01:10.6"] && !user.preferred);
    let answer = kubelet
        .allocate("intel.com/user", &["0000:01:10.6"])
        .await
        .unwrap();
    assert_eq!(answer.envs["PCIDEVICE_INTEL_COM_USER"], "0000:01:10.6");
    let state = agent.get("/debug/state").1;
    assert!(
        state.contains("0000:01:10.6 healthy, selector 0, numa -, held by a pod"),
        "{state}"
    );
    let nodes: Vec<&str> = answer
        .devices
        .iter()
        .map(|d| d.host_path.as_str())
        .collect();
    assert_eq!(nodes, ["/dev/vfio/vfio", "/dev/vfio/11"]);
    let infos = names(&place.path("devinfo/dp"));
    assert!(
        infos.contains(&"intel.com-user-0000:01:10.6-device.json".to_owned()),
        "{infos:?}"
    );
    let error = kubelet
        .allocate("intel.com/user", &["0000:01:10.0"])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CallError::Refused { source, .. } if source.code == kubelet::Code::NOT_FOUND)
    );
    agent.page_until("/readyz", |status, _| status == 200);
    let metrics = agent.get("/metrics").1;
    for line in [
        "virtfn_agent_allocations_total{resource=\"intel.com/user\",result=\"ok\"} 1",
        "virtfn_agent_allocations_total{resource=\"intel.com/user\",result=\"failed\"} 1",
        "virtfn_agent_devices{resource=\"intel.com/net\",health=\"healthy\"} 1",
        "virtfn_agent_config_problems 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_cdi_the_runtime_is_told_names_and_reads_a_specification() {
    let place = Place::of("igb-4-vfs").with(&["--use-cdi"]);
    place.config(TWO_POOLS);
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    kubelet
        .until("intel.com/user", |known| known.devices.len() == 1)
        .await;
    kubelet
        .until("intel.com/net", |known| known.devices.len() == 1)
        .await;
    let answer = kubelet
        .allocate("intel.com/user", &["0000:01:10.6"])
        .await
        .unwrap();
    assert_eq!(answer.devices, []);
    assert_eq!(answer.cdi_devices[0].name, "intel.com/net-pci=0000:01:10.6");
    assert_eq!(
        answer.annotations["cdi.k8s.io/intel.com_net-pci_user"],
        "intel.com/net-pci=0000:01:10.6"
    );
    // A pool without nodes works, and has no specification.
    let answer = kubelet
        .allocate("intel.com/net", &["0000:01:10.0"])
        .await
        .unwrap();
    assert!(answer.cdi_devices.is_empty() && answer.annotations.is_empty());
    assert_eq!(
        names(&place.path("cdi")),
        ["sriov-dp-intel.com-net-pci-user.yaml"]
    );
    agent.end();
    // Containers that restart meanwhile still need it.
    assert_eq!(
        names(&place.path("cdi")),
        ["sriov-dp-intel.com-net-pci-user.yaml"]
    );
}

const MLX5: &str = r#"{"resourceList": [
    {"resourceName": "net", "selectors": {"drivers": ["mlx5_core"]}, "preferredAllocation": "packed"}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_leaves_is_taken_off_the_list_unless_a_pod_has_it() {
    let place = Place::of("mlx5-switchdev");
    place.config(MLX5);
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    kubelet
        .until("intel.com/net", |known| known.devices.len() == 3)
        .await;
    kubelet
        .allocate("intel.com/net", &["0000:08:00.2"])
        .await
        .unwrap();
    kubelet.pod_has("intel.com/net", "0000:08:00.3");
    agent.look_again();
    let held = agent.page_until("/debug/state", |_, body| {
        body.contains("0000:08:00.3 healthy, selector 0, numa 1, held")
    });
    assert!(
        held.contains("0000:08:00.2 healthy, selector 0, numa 1, held"),
        "{held}"
    );
    for gone in ["0000:08:00.2", "0000:08:00.3", "0000:08:00.4"] {
        place.remove_function(gone);
    }
    agent.look_again();
    let known = kubelet
        .until("intel.com/net", |known| known.devices.len() == 2)
        .await;
    assert!(!known.devices["0000:08:00.2"] && !known.devices["0000:08:00.3"]);
    let error = kubelet
        .allocate("intel.com/net", &["0000:08:00.3"])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CallError::Refused { source, .. } if source.message.contains("it is gone")),
        "{error:?}"
    );
    // The pod ended; the other device may still be on its way into one.
    kubelet.no_pods();
    agent.look_again();
    let known = kubelet
        .until("intel.com/net", |known| known.devices.len() == 1)
        .await;
    assert!(known.devices.contains_key("0000:08:00.2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_is_told_which_devices_are_preferred() {
    let place = Place::of("mlx5-switchdev");
    place.config(MLX5);
    let kubelet = FakeKubelet::start(&place.kubelet());
    let _agent = place.start();
    let known = kubelet
        .until("intel.com/net", |known| known.devices.len() == 3)
        .await;
    assert!(known.preferred);
    let all = ["0000:08:00.2", "0000:08:00.3", "0000:08:00.4"];
    let chosen = kubelet.prefer("intel.com/net", &all, &all[2..], 2).await;
    assert!(
        chosen.contains(&all[2].to_owned()) && chosen.len() == 2,
        "{chosen:?}"
    );
}
