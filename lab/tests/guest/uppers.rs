//! What containers have on a VF that stays with the host: a macvlan, an ipvlan, a VLAN. The kernel tells
//! nothing of it on the host's side.

use std::fs;

use crate::support::*;

/// Is a link to something above an interface in its directory?
fn has_upper(netdev: &str) -> bool {
    let entries = fs::read_dir(format!("/sys/class/net/{netdev}"));
    let mut names = entries.expect("it is there").flatten();
    names.any(|entry| entry.file_name().to_string_lossy().starts_with("upper_"))
}

#[test]
fn a_vf_with_something_of_a_container_on_it_is_in_use() {
    let machine = Machine::with_vfs(4);
    let blue = Namespace::new("blue");
    let kinds = [&["macvlan"][..], &["ipvlan"], &["vlan", "id", "40"]];
    let file = write_policy(&policy("vfs", PF0, 2, "netdevice"));
    for (number, kind) in kinds.into_iter().enumerate() {
        let vf = format!("0000:01:10.{}", number * 2);
        let on = netdev(&vf);
        run("ip", &["link", "set", &on, "up"]);
        make_above(
            &on,
            &[&["name", "over", "netns", blue.0, "type"], kind].concat(),
        );
        assert!(
            !has_upper(&on),
            "the kernel tells of {kind:?}: it need not be searched for"
        );
        let holder = machine.vf(&vf)["holder"].clone();
        assert_eq!(holder["kind"], "host", "{kind:?}");
        assert_eq!(holder["id"], "over in blue", "{kind:?}");
        let plan = virtfn(&["plan", "-f", &file]).ok().stdout();
        let price = format!("interrupts vf {number} in use by host over in blue as {on}");
        assert!(plan.contains(&price), "{plan}");
        virtfn(&["apply", "-f", &file]).refused(4, &["error[vf-in-use]", &vf]);
        blue.ip(&["link", "delete", "over"]);
        assert_eq!(machine.vf(&vf)["holder"], serde_json::Value::Null);
        run("ip", &["link", "set", &on, "down"]);
    }
    assert_eq!(num_vfs(PF0), "4");
}
