//! `ib-sriov`, on a machine that is played: GUIDs, RDMA devices that go along, upstream's files.

use api::cni::{CacheFile as _, IbSriovCache};
use fixtures::parsed;
use model::{Guid, LinkType, Netns, NetnsTarget, Step, VfAttr, VfIndex};
use serde_json::{Value, json};

use super::world::*;
use crate::call::holder;
use crate::upstream::Kept;

const GUID: &str = "00:02:c9:03:00:2f:b1:10";

fn ib(more: &Value) -> Value {
    let mut config = config(more);
    config["type"] = "ib-sriov".into();
    config
}

fn guids(world: &World) -> [Option<Guid>; 2] {
    let seen = world.host.inventory();
    let state = seen.get(parsed(VF)).unwrap().vf().unwrap().state.unwrap();
    [state.node_guid, state.port_guid]
}

/// Returns the name of the VF's RDMA device.
fn device(world: &World) -> String {
    let seen = world.host.inventory();
    seen.get(parsed(VF)).unwrap().rdma[0].name.clone()
}

#[test]
fn a_container_gets_an_infiniband_vf_with_its_guid_and_gives_it_back() {
    let mut world = World::infiniband();
    let before = world.seen();
    assert_eq!(world.vf_netdev().link_type, LinkType::InfiniBand);
    let config = ib(&json!({"runtimeConfig": {"infinibandGUID": GUID}, "link_state": "enable"}));
    let result = world.add(&config);
    assert_eq!(
        result["interfaces"],
        json!([{"name": "net1", "sandbox": "/run/netns/blue", "pciID": VF}]),
        "neither MAC nor MTU"
    );
    assert_eq!(guids(&world), [GUID.parse().ok(), GUID.parse().ok()]);
    let netdev = world.vf_netdev();
    assert!(
        netdev.address.unwrap().ends_with(GUID),
        "the driver read it"
    );
    assert!(matches!(netdev.netns, Netns::Other { .. }));
    let mut checked = config.clone();
    checked["prevResult"] = result;
    let call = world.call("CHECK", "c1", "/run/netns/blue", &checked);
    world.serve(&call).unwrap();
    world.del(&config);
    world.assert_free(&before, "after DEL");
    world.del(&config);
    world.assert_free(&before, "after a second DEL");
}

#[test]
fn the_rdma_device_goes_along_and_comes_back() {
    let mut world = World::infiniband();
    let before = world.seen();
    let device = device(&world);
    let config = ib(&json!({"rdmaIsolation": true, "args": {"cni": {"guid": GUID}}}));
    world.add(&config);
    let NetnsTarget::Path { inode, .. } = world.netns_target("/run/netns/blue") else {
        panic!("blue is a namespace");
    };
    assert_eq!(world.host.rdma_netns(&device), Some(inode));
    let found = world.files().of_vf(parsed(VF)).unwrap();
    let Kept::Infiniband(cache) = found.kept else {
        panic!("it is kept as sriov's");
    };
    assert_eq!(cache.rdma.container_name, device);
    assert_eq!((cache.vf, cache.host_name.as_str()), (0, "ib0v0"));
    world.del(&config);
    world.assert_free(&before, "after DEL");
    // The kernel brings it home when the namespace dies first.
    world.add(&config);
    world.destroy("/run/netns/blue");
    let call = world.call("DEL", "c1", "", &config);
    world.serve(&call).unwrap();
    world.assert_free(&before, "after a DEL without its namespace");
}

#[test]
fn what_cannot_be_given_is_refused_and_nothing_is_changed() {
    let mut world = World::infiniband();
    let before = world.seen();
    for (more, number, code) in [
        (json!({"args": {"cni": {"guid": "1"}}}), 7, "bad-config"),
        (json!({"ipam": {"type": "dhcp"}}), 7, "bad-config"),
        (json!({"link_state": "up"}), 7, "bad-config"),
        (json!({"vfioPciMode": true}), 7, "no-vfio"),
        (
            json!({"ibKubernetesEnabled": true}),
            11,
            "ib-kubernetes-not-ready",
        ),
        (
            json!({"cniVersion": "0.2.0", "ipam": {}}),
            7,
            "result-without-address",
        ),
        (json!({"deviceID": PF}), 7, "not-a-vf"),
    ] {
        let error = world.refused("ADD", "c1", &ib(&more));
        assert_eq!(error.code.0, number, "{more}: {error:?}");
        assert!(error.details.starts_with(code), "{more}: {error:?}");
        assert_eq!(world.seen(), before, "{more}");
    }
    world.assert_free(&before, "after all refusals");
    let mut shared = World::new();
    let error = shared.refused(
        "ADD",
        "c1",
        &ib(&json!({"rdmaIsolation": true, "args": {"cni": {"guid": GUID}}})),
    );
    assert!(
        error.details.starts_with("not-supported"),
        "an Ethernet PF: {error:?}"
    );
}

#[test]
fn a_vf_without_a_guid_of_its_own_needs_one() {
    let mut world = World::infiniband();
    // Its driver made one up, so it can go without.
    world.add(&ib(&json!({})));
    world.del(&ib(&json!({})));
    let zero = "00:00:00:00:fe:80:00:00:00:00:00:00:00:00:00:00:00:00:00:00";
    let mut seen = world.host.inventory();
    let function = seen.functions.get_mut(&parsed(VF)).unwrap();
    function.netdevs[0].address = Some(zero.to_owned());
    let mut world = World::on(seen);
    let before = world.seen();
    let error = world.refused("ADD", "c1", &ib(&json!({})));
    assert_eq!(error.code.0, 7);
    assert!(error.msg.contains("GUID is not valid"), "{error:?}");
    world.assert_free(&before, "after the refusal");
}

/// Does what upstream's ADD of container `c1` does.
fn given_by_upstream() -> World {
    let mut world = World::infiniband();
    let netns = world.netns_target("/run/netns/blue");
    let own = world.vf_netdev();
    let device = device(&world);
    let (function, pf, vf) = (parsed(VF), parsed(PF), VfIndex(0));
    let guid: Guid = GUID.parse().unwrap();
    let set = |attr| Step::SetVf { pf, vf, attr };
    world.host.perform_all(&[
        set(VfAttr::NodeGuid(guid)),
        set(VfAttr::PortGuid(guid)),
        Step::Rebind { function },
        Step::MoveRdma {
            function,
            device: device.clone(),
            from: NetnsTarget::Host,
            to: netns.clone(),
        },
    ]);
    world.hand_over(netns);
    let cache = json!({
        "cniVersion": "1.0.0", "name": "blue", "type": "ib-sriov", "ipam": {"type": "test-ipam"},
        "deviceID": VF, "Master": "ib0", "VFID": 0, "HostIFNames": own.name.to_string(),
        "HostIFGUID": "00:00:00:00:00:00:00:00", "ContIFNames": "net1", "pkey": "",
        "rdmaIsolation": true, "runtimeConfig": {"infinibandGUID": GUID}, "args": {"cni": {}},
        "RdmaNetState": {"version": "1.0", "deviceID": VF, "sandboxRdmaDevName": device,
            "containerRdmaDevName": device},
    });
    let cache = IbSriovCache::parse(cache.to_string().as_bytes()).unwrap();
    let holder = holder(&"c1".parse().unwrap(), &parsed("net1"));
    world
        .files()
        .keep(&holder, &Kept::Infiniband(cache))
        .unwrap();
    world
}

#[test]
fn a_pod_that_upstream_started_is_ended_by_virtfn() {
    let before = World::infiniband().seen();
    let mut world = given_by_upstream();
    let error = world.refused("ADD", "c2", &ib(&json!({})));
    assert_eq!(error.code.0, 11, "{error:?}");
    world.del(&ib(&json!({})));
    world.assert_free(&before, "after DEL");
    let mut world = given_by_upstream();
    world.destroy("/run/netns/blue");
    let call = world.call("DEL", "c1", "", &ib(&json!({})));
    world.serve(&call).unwrap();
    world.assert_free(&before, "after a DEL without its namespace");
}

#[test]
fn gc_under_one_name_leaves_the_living_of_the_other_alone() {
    let mut world = World::infiniband();
    world.add(&ib(&json!({"args": {"cni": {"guid": GUID}}})));
    let held = world.seen();
    let gc = config(&json!({"cni.dev/valid-attachments": []}));
    let call = world.call("GC", "c1", "", &gc);
    world.serve(&call).unwrap();
    assert_eq!(world.seen(), held);
}
