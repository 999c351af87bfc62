//! Killed between two of the writes that bind a driver: neither a `driver_override` nor the
//! `sriov_drivers_autoprobe` of that moment stays, whoever comes next and whether he is killed too.

use std::fs;

use crate::kill::kill_at_each;
use crate::support::*;

fn autoprobe() -> String {
    let path = pci(PF0).join("sriov_drivers_autoprobe");
    let text = fs::read_to_string(path).expect("a PF has autoprobe");
    text.trim().to_owned()
}

fn set_autoprobe(on: &str) {
    fs::write(pci(PF0).join("sriov_drivers_autoprobe"), on).expect("autoprobe is writable");
}

/// Returns the driver of a VF, and the one driver that may bind, as sysfs says.
fn driver(vf: &str) -> (String, String) {
    let link = fs::read_link(pci(vf).join("driver")).unwrap_or_default();
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let only = fs::read_to_string(pci(vf).join("driver_override")).unwrap_or_default();
    (name.into_owned(), only.trim().to_owned())
}

fn pair(driver: &str, only: &str) -> (String, String) {
    (driver.to_owned(), only.to_owned())
}

/// Runs `virtfn` again, killed at another place than before; it may get through.
fn kill_again(arguments: &[&str], round: u32) {
    let number = (round * 5 % 13 + 1).to_string();
    let output = virtfn_command(&[&["--kill-at", &number], arguments].concat()).output();
    output.expect("virtfn starts");
}

/// VFs 0 and 1 of three, the first of which is to be on vfio-pci. VF 2 is of no policy.
fn mixed() -> String {
    let part = |name: &str, range: &str, driver: &str| {
        policy(name, PF0, 3, driver).replace(
            &format!("rootDevices: [\"{PF0}\"]"),
            &format!("pfNames: [\"{}#{range}\"]", netdev(PF0)),
        )
    };
    let user = part("user", "0-0", "vfio-pci");
    format!("{user}---\n{}", part("kernel", "1-1", "netdevice"))
}

fn no_vfs() {
    set_num_vfs(PF0, 0);
    set_autoprobe("1");
}

#[test]
fn autoprobe_that_was_off_while_vfs_were_bound_is_on_again() {
    Machine::fresh();
    let file = write_policy(&mixed());
    let arguments = ["apply", "-f", file.as_str()];
    kill_at_each(&arguments, no_vfs, |at| {
        kill_again(&arguments, at);
        virtfn(&arguments).ok();
        virtfn(&["plan", "--check", "-f", &file]).ok();
        assert_eq!(autoprobe(), "1", "killed at {at}");
        let drivers = [VF0, VF1, "0000:01:10.4"].map(driver);
        let wanted = [
            pair("vfio-pci", "vfio-pci"),
            pair("igbvf", "(null)"),
            pair("igbvf", "(null)"),
        ];
        assert_eq!(drivers, wanted, "killed at {at}");
    });
}

#[test]
fn autoprobe_is_on_again_where_the_operator_configured_the_pf_before() {
    Machine::fresh();
    let upstreams = format!(
        r#"{{"pciAddress":"{PF0}","numVfs":0,"name":"{}"}}"#,
        netdev(PF0)
    );
    let record = format!("/etc/sriov-operator/pci/{PF0}");
    let file = write_policy(&mixed());
    let arguments = ["apply", "-f", file.as_str()];
    let prepare = || {
        no_vfs();
        let _no_note_yet = fs::remove_dir_all("/var/lib/virtfn/pf");
        fs::create_dir_all("/etc/sriov-operator/pci").expect("/etc is writable");
        fs::write(&record, &upstreams).expect("/etc is writable");
    };
    // Only from the first step on there is anything to bring back.
    for at in [4_u32, 5, 6, 8, 11] {
        prepare();
        let number = at.to_string();
        let killed = [&["--kill-at", number.as_str()], &arguments[..]].concat();
        virtfn_command(&killed).output().expect("virtfn starts");
        virtfn(&arguments).ok();
        assert_eq!(autoprobe(), "1", "killed at {at}");
    }
}

#[test]
fn autoprobe_that_somebody_switched_off_stays_off() {
    Machine::fresh();
    let file = write_policy(&policy("kernel", PF0, 2, "netdevice"));
    let arguments = ["apply", "-f", file.as_str()];
    let prepare = || {
        set_num_vfs(PF0, 0);
        set_autoprobe("0");
    };
    kill_at_each(&arguments, prepare, |at| {
        kill_again(&arguments, at);
        virtfn(&arguments).ok();
        assert_eq!(autoprobe(), "0", "killed at {at}");
        assert_eq!(driver(VF1), pair("igbvf", "(null)"), "killed at {at}");
    });
    set_autoprobe("1");
}

#[test]
fn an_override_goes_with_the_policy_that_wanted_it() {
    let machine = Machine::with_vfs(2);
    let kernel = policy("vfs", PF0, 2, "netdevice");
    let user = "/tmp/policy-user.yaml";
    fs::write(user, policy("vfs", PF0, 2, "vfio-pci")).expect("/tmp is writable");
    let arguments = ["apply", "-f", user];
    kill_at_each(
        &arguments,
        || {
            machine.apply(&kernel).ok();
        },
        |at| {
            machine.apply(&kernel).ok();
            for vf in [VF0, VF1] {
                assert_eq!(driver(vf), pair("igbvf", "(null)"), "killed at {at}");
            }
            virtfn(&["plan", "--check", "-f", &write_policy(&kernel)]).ok();
        },
    );
    machine.apply(&kernel).ok();
}

#[test]
fn a_detach_killed_while_it_gives_the_driver_back_is_finished() {
    let machine = Machine::with_vfs(1);
    set_autoprobe("0");
    run("modprobe", &["vfio-pci"]);
    let blue = Namespace::new("blue");
    kill_at_each(
        &["detach", VF0],
        || {
            virtfn(&["attach", VF0, "--netns", blue.0]).ok();
            // As Kata does with a VF that it was given.
            run(
                "sh",
                &[
                    "-c",
                    &format!(
                        "cd /sys/bus/pci/devices/{VF0} && echo {VF0} > driver/unbind && \
                 echo vfio-pci > driver_override && echo {VF0} > /sys/bus/pci/drivers_probe"
                    ),
                ],
            );
            assert_eq!(driver(VF0).0, "vfio-pci");
        },
        |at| {
            kill_again(&["detach", VF0], at);
            let detached = virtfn(&["detach", VF0]);
            let was_done = detached.stderr().contains("not-attached");
            assert!(
                detached.code() == Some(0) || was_done,
                "{at}: {}",
                detached.stderr()
            );
            assert_eq!(autoprobe(), "0", "killed at {at}");
            assert_eq!(driver(VF0), pair("igbvf", "(null)"), "killed at {at}");
            let vf = machine.vf(VF0);
            assert!(
                vf["holder"].is_null() && netdev_or_none(VF0).is_some(),
                "{at}: {vf}"
            );
        },
    );
    set_autoprobe("1");
}
