//! What the kernel says changed is looked at, and no more.

use super::running::{Place, begin};

const VF: &str = "0000:08:00.3";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_makes_the_agent_look_at_the_function_that_it_names() {
    let place = Place::of("mlx5-switchdev").with_kernel();
    let (kubelet, agent) = begin(&place).await;
    // The other one changes too, and nobody says so.
    place.bind("0000:08:00.2", "vfio-pci");
    place.bind(VF, "vfio-pci");
    place.tell("bind", VF);
    let known = kubelet
        .until("intel.com/a", |known| known.devices.len() < 3)
        .await;
    assert!(known.devices.keys().eq(["0000:08:00.2", "0000:08:00.4"]));
    agent.metric_until("rescans_total{extent=\"functions\"}", 1);
    // What comes or goes is no change of one function.
    place.tell("add", VF);
    kubelet
        .until("intel.com/a", |known| known.devices.len() == 1)
        .await;
    agent.metric_until("rescans_total{extent=\"functions\"}", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_looked_at_before_it_is_given() {
    let place = Place::of("mlx5-switchdev");
    let (kubelet, agent) = begin(&place).await;
    place.bind(VF, "vfio-pci");
    agent.look_again();
    kubelet
        .until("intel.com/a", |known| known.devices.len() == 2)
        .await;
    // It is as it was again, and no event came; the pool has it back when it is asked for.
    place.bind(VF, "mlx5_core");
    assert!(kubelet.allocate("intel.com/a", &[VF]).await.is_ok());
    agent.metric_until("rescans_total{extent=\"functions\"}", 1);
}
