//! What a holder did to its interface does not stay.

use model::{Host, Mtu, Step};

use super::*;

/// Changes the interface in its namespace, as a privileged container or a chained plugin does.
fn changed_inside(world: &mut World) {
    let (function, netns) = (parsed(VF), world.blue.clone());
    let steps = [
        Step::SetMtu {
            function,
            netns: netns.clone(),
            mtu: Mtu::new(1400).unwrap(),
        },
        Step::SetMac {
            function,
            netns,
            mac: parsed("02:00:00:00:00:66"),
        },
    ];
    for step in steps {
        world.host.perform(&step).unwrap();
    }
}

fn plain(netns: &NetnsTarget) -> AttachRequest {
    let mut request = request(netns);
    request.settings = VfSettings::default();
    if let Some(interface) = &mut request.interface {
        interface.mac = None;
        interface.mtu = None;
    }
    request
}

#[test]
fn mtu_and_mac_are_as_before_whatever_was_done_inside() {
    let mut world = World::new();
    let before = world.seen();
    world.attach(&plain(&world.blue.clone())).unwrap();
    changed_inside(&mut world);
    assert_ne!(world.seen(), before);
    world.detach().unwrap();
    assert_eq!(world.seen(), before);
}

#[test]
fn mtu_and_mac_are_as_before_when_the_namespace_went_first() {
    let mut world = World::new();
    let before = world.seen();
    world.attach(&plain(&world.blue.clone())).unwrap();
    changed_inside(&mut world);
    world.destroy(&world.blue.clone());
    world.detach().unwrap();
    assert_eq!(world.seen(), before);
}
