//! Records that cannot be read.

use super::*;

#[test]
fn a_damaged_record_does_not_give_a_held_vf_away() {
    let mut world = World::new();
    world.attach(&request(&world.blue.clone())).unwrap();
    std::fs::write(world.state.record(parsed(VF)), b"{\"version\":1,").unwrap();
    let red = world.host.add_netns("red");
    let error = world.attach(&request(&red)).unwrap_err();
    assert_eq!(error.code().as_str(), "vf-in-use");
}

#[test]
fn a_vf_whose_record_is_damaged_is_brought_home_from_where_it_is_seen() {
    let mut world = World::new();
    world.attach(&request(&world.blue.clone())).unwrap();
    std::fs::write(world.state.record(parsed(VF)), b"").unwrap();
    let look = world.ledger.look(parsed(VF)).unwrap_err();
    assert_eq!(look.code().as_str(), "record-damaged");
    let detached = world.detach().unwrap();
    assert!(detached.damage.unwrap().kept.exists());
    assert_eq!(world.netns_of_vf(), Netns::Host);
    let seen = world.seen();
    let state = seen.get(parsed(VF)).unwrap().vf().unwrap().state.unwrap();
    assert_eq!(state.vlan, Some(None));
    assert!(world.detach().is_err(), "it is detached twice");
}

#[test]
fn a_damaged_record_is_not_forgotten_before_its_vf_is_home() {
    let mut world = World::new();
    world.attach(&request(&world.blue.clone())).unwrap();
    std::fs::write(world.state.record(parsed(VF)), b"").unwrap();
    let red = world.host.add_netns("red");
    // As every apply does, and whoever wants the VF meanwhile.
    assert!(world.engine(&crate::Uninterrupted).heal().is_empty());
    world.attach(&request(&red)).unwrap_err();
    assert!(!world.ledger.holders().gaps.is_empty());
    world.detach().unwrap();
    assert_eq!(world.netns_of_vf(), Netns::Host);
    assert!(world.ledger.holders().gaps.is_empty());
}

#[test]
fn a_damaged_record_of_a_vf_at_home_ends_with_a_detach() {
    let mut world = World::new();
    let path = world.state.record(parsed(VF));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"{").unwrap();
    let detached = world.detach().unwrap();
    assert_eq!(detached.holder.kind, HolderKind::Unknown);
    assert!(detached.undone.is_empty() && detached.damage.unwrap().kept.exists());
    assert!(world.ledger.holders().gaps.is_empty());
    let error = world.detach().unwrap_err();
    assert_eq!(error.code().as_str(), "vf-not-attached");
}

#[test]
fn a_vf_at_home_whose_record_is_damaged_is_given_to_nobody_before_it_is_detached() {
    let mut world = World::new();
    let blue = world.blue.clone();
    world.attach(&request(&blue)).unwrap();
    world.detach().unwrap();
    let path = world.state.record(parsed(VF));
    std::fs::write(&path, b"{").unwrap();
    for _twice in 0..2 {
        let error = world.attach(&request(&blue)).unwrap_err();
        assert_eq!(error.code().as_str(), "vf-in-use");
        assert!(error.remedy().unwrap().contains("virtfn detach"));
        assert!(world.engine(&crate::Uninterrupted).heal().is_empty());
    }
    world.detach().unwrap();
    world.attach(&request(&blue)).unwrap();
}

#[test]
fn a_damaged_record_of_a_former_boot_keeps_nobody_from_the_vf() {
    for with_heal in [false, true] {
        let mut world = World::new();
        let path = world.state.record(parsed(VF));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Nobody locked the VF since the host started.
        std::fs::write(&path, b"\0\0\0").unwrap();
        if with_heal {
            let healed = world.engine(&crate::Uninterrupted).heal();
            assert!(matches!(healed[0].outcome, Ok(crate::Mended::Void(_))));
        }
        let blue = world.blue.clone();
        let attached = world.attach(&request(&blue)).unwrap();
        assert_eq!(attached.damage.is_some(), !with_heal);
        assert!(path.with_extension("json.damaged").exists());
    }
}
