//! `virtfn plan` and `virtfn apply` on the real drivers.

use crate::support::*;

#[test]
fn a_policy_becomes_vfs_and_a_second_run_does_nothing() {
    let machine = Machine::fresh();
    let file = write_policy(&policy("rack", PF0, 4, "netdevice"));
    let plan = virtfn(&["plan", "--check", "-f", &file]).ended(3).stdout();
    assert!(plan.contains(PF0), "{plan}");
    assert_eq!(num_vfs(PF0), "0", "a plan changed the host");
    virtfn(&["apply", "-f", &file]).ok();
    assert_eq!(num_vfs(PF0), "4");
    assert_eq!(machine.kernel_vfs().as_array().map(Vec::len), Some(4));
    assert_eq!(find(&machine.seen()["pfs"], PF0)["netdev"]["adminUp"], true);
    virtfn(&["plan", "--check", "-f", &file]).ok();
    let before = machine.settled();
    virtfn(&["apply", "-f", &file]).ok();
    assert_eq!(machine.settled(), before);
    assert_eq!(num_vfs(PF1), "0", "a PF that no policy names was touched");
}

#[test]
fn on_a_terminal_the_step_that_runs_is_shown_until_it_is_made() {
    Machine::fresh();
    let file = write_policy(&policy("rack", PF0, 2, "netdevice"));
    let program = std::env::var("VIRTFN").expect("$VIRTFN names the virtfn under test");
    let apply = format!("TERM=xterm {program} apply -f {file}");
    // It gives the command a terminal.
    let said = run("script", &["-qec", &apply, "/dev/null"]);
    let running = said.find("have 2 VFs\r\u{1b}[K").expect(&said);
    let made = said.rfind("have 2 VFs").expect(&said);
    assert!(running < made, "{said}");
    assert_eq!(num_vfs(PF0), "2");
}

#[test]
fn a_dry_run_changes_nothing() {
    Machine::fresh();
    let file = write_policy(&policy("rack", PF0, 4, "netdevice"));
    virtfn(&["apply", "--dry-run", "-f", &file]).ok();
    assert_eq!(num_vfs(PF0), "0");
}

#[test]
fn another_count_goes_through_zero() {
    let machine = Machine::with_vfs(2);
    machine.apply(&policy("vfs", PF0, 5, "netdevice")).ok();
    assert_eq!(num_vfs(PF0), "5");
    machine.apply(&policy("vfs", PF0, 1, "netdevice")).ok();
    assert_eq!(num_vfs(PF0), "1");
}

#[test]
fn two_pfs_are_configured_by_one_policy() {
    Machine::fresh();
    let file = write_policy(&policy_for_all(3, "netdevice"));
    virtfn(&["apply", "-f", &file]).ok();
    assert_eq!((num_vfs(PF0).as_str(), num_vfs(PF1).as_str()), ("3", "3"));
}

#[test]
fn ranges_of_one_pf_get_their_own_drivers() {
    let machine = Machine::fresh();
    let pf = netdev(PF0);
    let part = |name: &str, range: &str, driver: &str| {
        policy(name, PF0, 4, driver).replace(
            &format!("rootDevices: [\"{PF0}\"]"),
            &format!("pfNames: [\"{pf}#{range}\"]"),
        )
    };
    let text = format!(
        "{}---\n{}",
        part("kernel", "0-1", "netdevice"),
        part("user", "2-3", "vfio-pci")
    );
    machine.apply(&text).ok();
    let drivers: Vec<_> = (0..4)
        .map(|index| machine.vf(&format!("0000:01:10.{}", index * 2))["driver"].clone())
        .collect();
    assert_eq!(drivers, ["igbvf", "igbvf", "vfio-pci", "vfio-pci"]);
    machine.apply(&text.replace("vfio-pci", "netdevice")).ok();
    assert_eq!(
        machine.vf("0000:01:10.6")["driver"],
        "igbvf",
        "the override stayed"
    );
}

#[test]
fn an_mtu_reaches_the_pf_and_its_vfs() {
    let machine = Machine::fresh();
    machine
        .apply(
            &policy("jumbo", PF0, 2, "netdevice").replace("  priority", "  mtu: 9000\n  priority"),
        )
        .ok();
    assert_eq!(find(&machine.settled()["pfs"], PF0)["netdev"]["mtu"], 9000);
    assert_eq!(machine.vf(VF1)["netdev"]["mtu"], 9000);
}

#[test]
fn an_mtu_above_the_drivers_own_is_refused_before_any_vf_goes() {
    let machine = Machine::with_vfs(2);
    let before = machine.settled();
    let text = policy("huge", PF0, 4, "netdevice");
    machine
        .apply(&text.replace("  priority", "  mtu: 9217\n  priority"))
        .refused(2, &["error[mtu-too-large]", PF0, "set mtu to 9216 or less"]);
    assert_eq!(machine.settled(), before);
}

#[test]
fn held_vfs_are_not_destroyed_unless_told() {
    let machine = Machine::with_vfs(2);
    let blue = Namespace::new("blue");
    virtfn(&["attach", VF0, "--netns", blue.0]).ok();
    let more = policy("vfs", PF0, 4, "netdevice");
    machine
        .apply(&more)
        .refused(4, &["error[", VF0, "blue", "--disrupt"]);
    assert_eq!(num_vfs(PF0), "2");
    virtfn(&["apply", "--disrupt", "-f", &write_policy(&more)]).ok();
    assert_eq!(num_vfs(PF0), "4");
}

#[test]
fn two_applies_at_once_both_end_well() {
    Machine::fresh();
    let file = write_policy(&policy("vfs", PF0, 3, "netdevice"));
    let mut both: Vec<_> = (0..2)
        .map(|_| {
            virtfn_command(&["apply", "-f", &file])
                .spawn()
                .expect("virtfn starts")
        })
        .collect();
    for child in &mut both {
        assert!(child.wait().expect("virtfn ends").success());
    }
    assert_eq!(num_vfs(PF0), "3");
}
