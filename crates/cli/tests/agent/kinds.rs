//! Every kind of pool from its configuration to what a container is given.

use std::fs;

use kubelet::deviceplugin::ContainerAllocateResponse;

use super::fake_kubelet::FakeKubelet;
use super::running::{Place, names};

fn nodes(answer: &ContainerAllocateResponse) -> Vec<String> {
    let nodes = answer.devices.iter();
    nodes
        .map(|node| format!("{} -> {}", node.host_path, node.container_path))
        .collect()
}

fn ids(kubelet: &FakeKubelet, resource: &str) -> Vec<String> {
    kubelet
        .known(resource)
        .unwrap()
        .devices
        .into_keys()
        .collect()
}

fn of_class(place: &Place, address: &str, class: &str) {
    place.edit(&format!("sys/bus/pci/devices/{address}/uevent"), |text| {
        text.replace("PCI_CLASS=10802", &format!("PCI_CLASS={class}"))
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accelerators_are_offered_with_their_pf() {
    let place = Place::of("nvme");
    for address in ["0000:02:00.0", "0000:02:00.1", "0000:02:00.2"] {
        of_class(&place, address, "120000");
    }
    place.bind("0000:02:00.1", "vfio-pci");
    place.config(
        r#"{"resourceList": [{"resourceName": "acc", "deviceType": "accelerator", "selectors": {}}]}"#,
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let _agent = place.start();
    kubelet
        .until("intel.com/acc", |known| known.devices.len() == 2)
        .await;
    // The other VF has no driver.
    assert_eq!(
        ids(&kubelet, "intel.com/acc"),
        ["0000:02:00.0", "0000:02:00.1"]
    );
    let answer = kubelet
        .allocate("intel.com/acc", &["0000:02:00.1"])
        .await
        .unwrap();
    assert_eq!(answer.envs["PCIDEVICE_INTEL_COM_ACC"], "0000:02:00.1");
    assert_eq!(nodes(&answer).len(), 2);
    assert!(names(&place.path("devinfo/dp")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vfs_of_an_nvme_device_are_a_pool_of_their_class() {
    let place = Place::of("nvme").with(&["--use-cdi"]);
    place.bind("0000:02:00.1", "vfio-pci");
    place.config(
        r#"{"resourceList": [
            {"resourceName": "acc", "deviceType": "accelerator", "selectors": {}},
            {"resourceName": "disk", "deviceType": "accelerator", "pciClasses": ["0108"], "selectors": {}}]}"#,
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let _agent = place.start();
    kubelet
        .until("intel.com/disk", |known| known.devices.len() == 1)
        .await;
    // Not the PF, which manages its VFs; and nothing without the class.
    assert_eq!(ids(&kubelet, "intel.com/disk"), ["0000:02:00.1"]);
    kubelet
        .until("intel.com/acc", |known| known.devices.is_empty())
        .await;
    let answer = kubelet
        .allocate("intel.com/disk", &["0000:02:00.1"])
        .await
        .unwrap();
    assert_eq!(
        answer.cdi_devices[0].name,
        "intel.com/net-accel=0000:02:00.1"
    );
    let specification = place.path("cdi/sriov-dp-intel.com-net-accel-disk.yaml");
    let text = fs::read_to_string(specification).unwrap();
    assert!(text.contains("hostPath: \"/dev/vfio/vfio\""), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sub_functions_are_offered_by_their_auxiliary_name() {
    let place = Place::of("mlx5-switchdev");
    place.add("sys/class/misc/vhost-net/dev", "10:238\n");
    place.add("sys/class/misc/tun/dev", "10:200\n");
    place.config(
        r#"{"resourceList": [{"resourceName": "sf", "deviceType": "auxNetDevice",
            "additionalInfo": {"0000:08:00.0": {"rail": "7"}},
            "selectors": {"auxTypes": ["sf"], "rootDevices": ["0000:08:00.0#80-90"], "needVhostNet": true}}]}"#,
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let _agent = place.start();
    kubelet
        .until("intel.com/sf", |known| known.devices.len() == 1)
        .await;
    let answer = kubelet
        .allocate("intel.com/sf", &["mlx5_core.sf.4"])
        .await
        .unwrap();
    assert_eq!(answer.envs["PCIDEVICE_INTEL_COM_SF"], "mlx5_core.sf.4");
    assert_eq!(
        answer.envs["PCIDEVICE_INTEL_COM_SF_INFO"],
        r#"{"mlx5_core.sf.4":{"extra":{"rail":"7"},"generic":{"deviceID":"mlx5_core.sf.4"},"vhost":{"net-mount":"/dev/vhost-net","tun-mount":"/dev/net/tun"}}}"#
    );
    assert_eq!(
        nodes(&answer),
        [
            "/dev/vhost-net -> /dev/vhost-net",
            "/dev/net/tun -> /dev/net/tun"
        ]
    );
    assert!(names(&place.path("devinfo/dp")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rdma_device_in_a_pod_stays_what_it_was() {
    for (options, cdi) in [(&[][..], false), (&["--use-cdi"], true)] {
        // This host has RDMA in exclusive mode.
        let place = Place::of("mlx5-infiniband").with(options);
        place.config(
            r#"{"resourceList": [{"resourceName": "ib",
                "selectors": {"IsRdma": true, "rootDevices": ["0000:81:00.0"], "linkTypes": ["infiniband"]}}]}"#,
        );
        let vf = "0000:81:00.2";
        let kubelet = FakeKubelet::start(&place.kubelet());
        let agent = place.start();
        kubelet
            .until("intel.com/ib", |known| known.devices.contains_key(vf))
            .await;
        let answer = kubelet.allocate("intel.com/ib", &[vf]).await.unwrap();
        let told = &answer.envs["PCIDEVICE_INTEL_COM_IB_INFO"];
        assert!(
            told.contains(r#""rdma":{"issm":"/dev/infiniband/issm3","rdma_cm":"/dev/infiniband/rdma_cm","rdma_dev":"mlx5_2","umad":"/dev/infiniband/umad3","uverbs":"/dev/infiniband/uverbs2"}"#),
            "{told}"
        );
        assert_eq!(answer.devices.len(), if cdi { 0 } else { 4 });
        let info = place.path(&format!("devinfo/dp/intel.com-ib-{vf}-device.json"));
        let info = || fs::read_to_string(&info).unwrap();
        assert!(info().contains(r#""rdma-device":"mlx5_2""#), "{}", info());

        // The pod has it now, and nothing of it is seen from here.
        kubelet.pod_has("intel.com/ib", vf);
        for name in [
            "infiniband/mlx5_2",
            "infiniband_mad/issm3",
            "infiniband_mad/umad3",
            "infiniband_verbs/uverbs2",
        ] {
            place.remove(&format!("sys/class/{name}"));
        }
        place.edit("netlink/links", |text| {
            let lines = text
                .lines()
                .filter(|line| !line.contains(&format!("\"parent_dev\":\"{vf}\"")));
            lines.map(|line| format!("{line}\n")).collect()
        });
        agent.look_again();
        let is_held = |_: u16, body: &str| {
            body.contains(&format!("{vf} healthy")) && body.contains("held by a pod")
        };
        agent.page_until("/debug/state", is_held);
        assert!(info().contains(r#""rdma-device":"mlx5_2""#), "{}", info());
        if cdi {
            let specification = place.path("cdi/sriov-dp-intel.com-net-pci-ib.yaml");
            let text = fs::read_to_string(specification).unwrap();
            assert!(text.contains("/dev/infiniband/uverbs2"), "{text}");
        }
        // Also by an agent that never saw it whole.
        agent.kill();
        let agent = place.start();
        agent.page_until("/debug/state", is_held);
        kubelet
            .until("intel.com/ib", |known| known.devices.get(vf) == Some(&true))
            .await;
        assert!(info().contains(r#""rdma-device":"mlx5_2""#), "{}", info());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vdpa_devices_are_offered_by_what_they_are_bound_to() {
    let place = Place::of("mlx5-switchdev");
    place.config(
        r#"{"resourceList": [
            {"resourceName": "vhost", "selectors": {"vdpaType": "vhost"}},
            {"resourceName": "virtio", "selectors": {"vdpaType": "virtio"}}]}"#,
    );
    let vf = "0000:08:00.4";
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    kubelet
        .until("intel.com/vhost", |known| known.devices.len() == 1)
        .await;
    let answer = kubelet.allocate("intel.com/vhost", &[vf]).await.unwrap();
    assert_eq!(nodes(&answer), ["/dev/vhost-vdpa-0 -> /dev/vhost-vdpa-0"]);
    let info = place.path(&format!("devinfo/dp/intel.com-vhost-{vf}-device.json"));
    assert_eq!(
        fs::read_to_string(info).unwrap(),
        r#"{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"vdpa:0000:08:00.4","driver":"vhost","path":"/dev/vhost-vdpa-0","pci-address":"0000:08:00.4"}}"#
    );
    agent.end();
    drop(kubelet);
    place.link(
        "sys/bus/vdpa/devices/vdpa:0000:08:00.4/driver",
        "../../../../../../bus/vdpa/drivers/virtio_vdpa",
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let _agent = place.start();
    kubelet
        .until("intel.com/virtio", |known| known.devices.len() == 1)
        .await;
    let answer = kubelet.allocate("intel.com/virtio", &[vf]).await.unwrap();
    assert!(nodes(&answer).is_empty());
    let told = &answer.envs["PCIDEVICE_INTEL_COM_VIRTIO_INFO"];
    assert!(told.contains(r#""vdpa":{}"#), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_iommu_the_group_has_another_name_on_the_host() {
    let place = Place::of("igb-4-vfs");
    place.add("sys/kernel/iommu_groups/11/name", "vfio-noiommu\n");
    place.config(
        r#"{"resourceList": [{"resourceName": "user", "selectors": {"drivers": ["vfio-pci"]}}]}"#,
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let _agent = place.start();
    kubelet
        .until("intel.com/user", |known| known.devices.len() == 1)
        .await;
    let answer = kubelet
        .allocate("intel.com/user", &["0000:01:10.6"])
        .await
        .unwrap();
    assert_eq!(
        nodes(&answer),
        [
            "/dev/vfio/vfio -> /dev/vfio/vfio",
            "/dev/vfio/noiommu-11 -> /dev/vfio/11"
        ]
    );
    let told = &answer.envs["PCIDEVICE_INTEL_COM_USER_INFO"];
    assert!(
        told.contains(r#""vfio":{"dev-mount":"/dev/vfio/11","mount":"/dev/vfio/vfio"}"#),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_chosen_by_the_ddp_package_of_the_pf() {
    let place = Place::of("ice");
    place.config(
        r#"{"resourceList": [
            {"resourceName": "gtp", "selectors": {"ddpProfiles": ["E810 Wireless Edge"]}},
            {"resourceName": "comms", "selectors": {"ddpProfiles": ["ICE COMMS Package"]}}]}"#,
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let agent = place.start();
    kubelet
        .until("intel.com/gtp", |known| known.devices.is_empty())
        .await;
    // The first is in a bond of the node, the second below a VLAN of it, the last has no driver.
    kubelet
        .until("intel.com/comms", |known| {
            known.devices.keys().eq(["10000:e1:01.2"])
        })
        .await;
    place.edit("netlink/pfs", |text| {
        text.replace("ICE COMMS Package", "E810 Wireless Edge")
    });
    agent.kill();
    let _agent = place.start();
    kubelet
        .until("intel.com/gtp", |known| known.devices.len() == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_numa_node_is_told_unless_the_pool_keeps_it() {
    let place = Place::of("mlx5-switchdev");
    place.config(
        r#"{"resourceList": [
            {"resourceName": "told", "selectors": {"pciAddresses": ["0000:08:00.2"]}},
            {"resourceName": "kept", "excludeTopology": true, "selectors": {"pciAddresses": ["0000:08:00.3"]}}]}"#,
    );
    let kubelet = FakeKubelet::start(&place.kubelet());
    let _agent = place.start();
    let told = kubelet
        .until("intel.com/told", |known| known.devices.len() == 1)
        .await;
    assert_eq!(told.numa["0000:08:00.2"], 1);
    let kept = kubelet
        .until("intel.com/kept", |known| known.devices.len() == 1)
        .await;
    assert!(kept.numa.is_empty());
}
