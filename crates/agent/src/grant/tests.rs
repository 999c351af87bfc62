use std::fmt::Write as _;
use std::path::Path;

use host::{Linux, Tree};
use model::{Host as _, Scope};
use policy::pool::{Held, offer};

use super::*;

/// Sees a recorded host.
pub(crate) fn recorded(name: &str) -> Inventory {
    let dir = tempfile::tempdir().unwrap();
    let text = fixtures::tree(name).unwrap();
    Tree::parse(text).unwrap().unpack(dir.path()).unwrap();
    observe(dir.path())
}

fn observe(dir: &Path) -> Inventory {
    Linux::recorded(dir).unwrap().observe(Scope::All).unwrap()
}

fn config(text: &str) -> Vec<Pool> {
    let config = api::deviceplugin::read_config(text.as_bytes(), "intel.com").unwrap();
    assert_eq!(config.refused, []);
    config.pools
}

/// Writes the offer of a host, and what a container with all of a pool's devices is given.
fn text(pools: &[Pool], seen: &Inventory, delivery: Delivery) -> String {
    let mut text = String::new();
    let offer = offer(pools, seen, &Held::default());
    for (pool, offered) in pools.iter().zip(&offer.pools) {
        let ids: Vec<String> = offered.devices.keys().map(ToString::to_string).collect();
        writeln!(text, "{}", pool.resource).unwrap();
        for (id, device) in &offered.devices {
            let numa = device.numa.map_or("-".to_owned(), |numa| numa.to_string());
            writeln!(text, "  {id} {} numa {numa}", device.health).unwrap();
        }
        let grant = match grant(pool, offered, seen, NodeHas { vhost_net: true }, &ids) {
            Ok(grant) => grant,
            Err(error) => {
                writeln!(text, "  error: {error}").unwrap();
                continue;
            }
        };
        let response = grant.response(pool, delivery);
        for (name, value) in &grant.environment {
            writeln!(text, "  env {name}={value}").unwrap();
        }
        for node in &response.devices {
            let (host, inside) = (&node.host_path, &node.container_path);
            writeln!(text, "  node {host} -> {inside} {}", node.permissions).unwrap();
        }
        for (key, value) in &response.annotations {
            writeln!(text, "  annotation {key}={value}").unwrap();
        }
        for (id, info) in &grant.infos {
            let name = api::device_info::file_name(&pool.resource, id).unwrap();
            writeln!(text, "  file {name} {}", info.to_json()).unwrap();
        }
    }
    text
}

#[test]
fn vfs_of_a_kernel_driver_bring_names_and_no_nodes() {
    let seen = recorded("igb-4-vfs");
    let pools = config(
        r#"{"resourceList": [{"resourceName": "sriov_a", "selectors": {"vendors": ["8086"], "devices": ["10ca"]},
            "additionalInfo": {"*": {"site": "a<b>&c", "rack": "1"}, "0000:01:10.2": {"rack": "2"}}}]}"#,
    );
    insta::assert_snapshot!(text(&pools, &seen, Delivery::Nodes));
}

#[test]
fn rdma_pools_bring_every_node_of_their_devices() {
    let seen = recorded("mlx5-legacy");
    let pools = config(
        r#"{"resourceList": [{"resourceName": "rdma-a", "resourcePrefix": "nvidia.com",
            "selectors": {"vendors": ["15b3"], "isRdma": true, "needVhostNet": true}}]}"#,
    );
    insta::assert_snapshot!(text(&pools, &seen, Delivery::Nodes));
    insta::assert_snapshot!(text(&pools, &seen, Delivery::Cdi));
}

/// Puts VF 0 of the recorded igb on a user space driver.
fn igb_with(change: impl Fn(&mut Function)) -> Inventory {
    let mut seen = recorded("igb-4-vfs");
    let vf = seen.functions.get_mut(&"0000:01:10.0".parse().unwrap());
    let vf = vf.unwrap();
    vf.netdevs.clear();
    change(vf);
    seen
}

const ONE: &str = r#"{"resourceList": [{"resourceName": "a", "iommufd": true, "excludeTopology": true,
    "selectors": {"pciAddresses": ["0000:01:10.0"]}}]}"#;

#[test]
fn vfio_brings_the_container_and_its_group() {
    let vfio = |group: &str, cdev: Option<&str>| {
        igb_with(|vf| {
            vf.driver = "vfio-pci".parse().ok();
            vf.vfio = Some(model::VfioNode {
                group: Some(group.to_owned()),
                cdev: cdev.map(str::to_owned),
            });
        })
    };
    let with_iommu = vfio("/dev/vfio/7", Some("/dev/vfio/devices/vfio0"));
    insta::assert_snapshot!(text(&config(ONE), &with_iommu, Delivery::Nodes));
    let without = vfio("/dev/vfio/noiommu-7", None);
    insta::assert_snapshot!(text(&config(ONE), &without, Delivery::Nodes));
}

#[test]
fn uio_brings_its_node() {
    let seen = igb_with(|vf| {
        vf.driver = "igb_uio".parse().ok();
        vf.uio = Some("/dev/uio3".to_owned());
    });
    insta::assert_snapshot!(text(&config(ONE), &seen, Delivery::Nodes));
}

#[test]
fn vdpa_brings_the_node_of_vhost_and_nothing_for_virtio() {
    let vdpa = |kind, node: Option<&str>| {
        igb_with(|vf| {
            vf.vdpa = vec![VdpaDevice {
                name: "vdpa0".to_owned(),
                kind: Some(kind),
                device_node: node.map(str::to_owned),
            }];
        })
    };
    let pools = |kind: &str| {
        config(&format!(
            r#"{{"resourceList": [{{"resourceName": "v", "selectors": {{"vdpaType": "{kind}"}}}}]}}"#
        ))
    };
    let vhost = vdpa(VdpaKind::Vhost, Some("/dev/vhost-vdpa-0"));
    insta::assert_snapshot!(text(&pools("vhost"), &vhost, Delivery::Nodes));
    let virtio = vdpa(VdpaKind::Virtio, None);
    insta::assert_snapshot!(text(&pools("virtio"), &virtio, Delivery::Nodes));
    let late = vdpa(VdpaKind::Vhost, None);
    assert!(text(&pools("vhost"), &late, Delivery::Nodes).contains("has no vhost-vdpa node"));
}

#[test]
fn devices_that_are_unknown_or_gone_are_refused() {
    let seen = recorded("igb-4-vfs");
    let pools = config(ONE);
    let offer_of = |seen: &Inventory, held: &Held| offer(&pools, seen, held).pools.remove(0);
    let ask = |offer: &PoolOffer, seen: &Inventory, id: &str| {
        let wanted = [id.to_owned()];
        grant(&pools[0], offer, seen, NodeHas::default(), &wanted).unwrap_err()
    };
    let all = offer_of(&seen, &Held::default());
    let error = ask(&all, &seen, "0000:01:10.2");
    assert_eq!(error.to_string(), "intel.com/a has no device 0000:01:10.2");
    assert!(matches!(
        ask(&all, &seen, "../x"),
        GrantError::Unknown { .. }
    ));
    let mut held = Held::default();
    let id: DeviceId = "0000:01:10.0".parse().unwrap();
    held.by_pods
        .entry(pools[0].resource.clone())
        .or_default()
        .insert(id);
    let mut gone = seen;
    gone.functions.remove(&"0000:01:10.0".parse().unwrap());
    let error = ask(&offer_of(&gone, &held), &gone, "0000:01:10.0");
    assert_eq!(
        error.to_string(),
        "0000:01:10.0 of intel.com/a cannot be given away: it is gone"
    );
}
