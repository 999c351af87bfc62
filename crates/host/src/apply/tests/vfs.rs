//! Claims about VFs that fail, move or wait.

use model::{BindTarget, RebootReason};

use super::*;

#[test]
fn a_vf_that_fails_stops_neither_its_neighbours_nor_other_pfs() {
    let world = World::new();
    world.host.0.lock().unwrap().lacks_vf_netdevs = true;
    let (applied, events) = world.apply();
    assert!(!applied.is_complete());
    for pf in &applied.pfs {
        assert!(pf.outcome.is_ok(), "{pf:#?}");
        // VF 0 and 1 want a netdev; VF 2 is for vfio-pci and has what it needs.
        let faults: Vec<_> = pf.vfs.iter().map(|fault| fault.index.unwrap().0).collect();
        assert_eq!(faults, [0, 1]);
        let bound = pf.made.iter().any(|made| made.step.kind() == "bind");
        assert!(bound, "VF 2 was not bound");
    }
    let failed = events
        .iter()
        .filter(|event| matches!(event, Event::PfEnded { failed: true, .. }));
    assert_eq!(failed.count(), 2);
    let last = last_apply(&world.state).unwrap().unwrap();
    assert_eq!(last.ended.unwrap().failed_pfs, 2);
    assert!(last.pfs.iter().all(|pf| pf.failed.is_some()));
}

#[test]
fn vfs_that_are_not_where_they_were_predicted_are_planned_again() {
    let mut world = World::new();
    world.host.1 = Surprise::VfsMove;
    let shown = world.plan();
    let predicted = shown.pfs[1].vfs.keys().next().copied().unwrap();
    let (applied, _) = world.apply_shown(Some(&shown));
    assert!(applied.is_complete(), "{applied:#?}");
    let seen = world.host.clone().observe(Scope::All).unwrap();
    assert!(seen.get(predicted).is_none(), "nothing moved");
    let third = seen.vf_of(parsed(PF1), model::VfIndex(2)).unwrap();
    assert_eq!(third.driver, Some(parsed("vfio-pci")));
}

fn is_for_vfio(step: &Step) -> bool {
    matches!(
        step,
        Step::Bind {
            to: BindTarget::Driver(_),
            ..
        }
    )
}

#[test]
fn steps_that_wait_for_a_reboot_are_left_out() {
    let world = World::new();
    let reason = RebootReason::KernelArguments(vec!["intel_iommu=on".to_owned()]);
    let decide = |seen: &Inventory| {
        let mut decision = world.decide(seen);
        let steps = decision.plan.pfs.iter_mut().flat_map(|pf| &mut pf.steps);
        for planned in steps.filter(|planned| is_for_vfio(&planned.step)) {
            planned.price.reboot = Some(reason.clone());
        }
        Ok(decision)
    };
    let open = || Ok(world.host.clone());
    let context = world.context(&Uninterrupted);
    let applied = apply(context, &open, &decide, None, &mut |_| {}).unwrap();
    assert!(applied.waits_for_reboot(), "{applied:#?}");
    let left: Vec<_> = applied.remaining.steps().collect();
    assert!(left.iter().all(|planned| is_for_vfio(&planned.step)));
    assert_eq!(left.len(), 2);
}

#[test]
fn a_pf_that_vanished_is_told_and_stops_nobody() {
    let world = World::new();
    let shown = world.plan();
    world.host.0.lock().unwrap().remove(parsed(PF0));
    let (applied, _) = world.apply_shown(Some(&shown));
    let outcomes: Vec<_> = applied.pfs.iter().map(|pf| &pf.outcome).collect();
    assert!(matches!(outcomes.as_slice(), [Err(PfFault::Gone), Ok(())]));
    assert!(!applied.is_complete());
}

#[test]
fn a_pf_without_space_for_its_vfs_waits_for_a_reboot_from_the_next_plan_on() {
    let mut world = World::new();
    world.host.1 = Surprise::NoSpace(parsed(PF1));
    let (applied, _) = world.apply();
    let starved = crate::starved_pfs(&applied);
    assert_eq!(starved, [parsed(PF1)].into());
    let autoprobe = |world: &World| {
        let seen = world.host.clone().observe(Scope::All).unwrap();
        seen.get(parsed(PF1)).unwrap().pf().unwrap().autoprobe
    };
    assert_eq!(autoprobe(&world), Some(true), "it was left off");
    let seen = world.host.clone().observe(Scope::All).unwrap();
    let next = world.decide(&seen);
    assert_eq!(next.kernel.arguments[0].argument.to_string(), "pci=realloc");
    // It is not tried again, and remembered all the same.
    for _twice in 0..2 {
        let made = world.made();
        let (applied, _) = world.apply();
        assert!(applied.waits_for_reboot(), "{applied:#?}");
        assert_eq!(world.made(), made);
    }
    // The next boot has the space.
    world.boot = BootId::new("next");
    world.host.1 = Surprise::None;
    assert!(world.apply().0.is_complete());
}
