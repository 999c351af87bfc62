use super::*;
use crate::testing;

fn machine(name: &str) -> Machine {
    Machine {
        name: name.to_owned(),
        view: testing::view(name),
    }
}

/// Draws as a pipe would get it: without colours.
fn plain(machines: &[Machine], cables: &[&str], unicode: bool) -> String {
    let cables: Vec<Cable> = cables.iter().map(|text| text.parse().unwrap()).collect();
    testing::spoken(|ui| ui.result(&draw(machines, &cables, unicode).unwrap())).0
}

#[test]
fn one_machine_shows_who_holds_what() {
    insta::assert_snapshot!(plain(&[machine("worker-17")], &[], true));
}

#[test]
fn two_machines_are_joined_by_their_cables() {
    let machines = [machine("lab0"), machine("lab1")];
    let cables = ["lab0/ens1f0=lab1/ens1f0", "lab0/ens1f1=lab1/0000:3b:00.1"];
    insta::assert_snapshot!(plain(&machines, &cables, true));
}

#[test]
fn ascii_has_the_same_shape() {
    let machines = [machine("lab0"), machine("lab1")];
    let cables = ["lab0/ens1f0=lab1/ens1f0"];
    let ascii = plain(&machines, &cables, false);
    assert!(ascii.is_ascii());
    let unicode = plain(&machines, &cables, true);
    let widths = |text: &str| -> Vec<usize> { text.lines().map(|l| l.chars().count()).collect() };
    assert_eq!(widths(&ascii), widths(&unicode));
    insta::assert_snapshot!(ascii);
}

#[test]
fn machines_without_vfs_or_devices_are_drawn_too() {
    let mut bare = machine("b");
    bare.view.pfs = Some(Vec::new());
    insta::assert_snapshot!(plain(&[bare], &[], true), @r"
    ╭─ b ───────────────────╮
    │  no SR-IOV devices    │
    ╰───────────────────────╯
    ");
    let mut nvme = machine("c");
    nvme.view.pfs.as_mut().unwrap().drain(..2);
    insta::assert_snapshot!(plain(&[nvme], &[], true), @r"
    ╭─ c ───────────────────────────╮
    │             ┌──────────────┐  │
    │  no VFs     │ 0000:5e:00.0 │  │
    │             │ nvme         │  │
    │             │ 0 of 4 VFs   │  │
    │             └──────────────┘  │
    ╰───────────────────────────────╯
    ");
    let mut machine = machine("a-machine-with-a-long-name");
    machine.view.pfs = Some(Vec::new());
    insta::assert_snapshot!(plain(&[machine], &[], true), @r"
    ╭─ a-machine-with-a-long-name ────╮
    │  no SR-IOV devices              │
    ╰─────────────────────────────────╯
    ");
}

#[test]
fn cables_to_nowhere_say_what_there_is() {
    let machines = [machine("lab0"), machine("lab1")];
    let all: String = ["lab0/ens9=lab1/ens1f0", "lab0/ens1f0=lab7/ens1f0"]
        .iter()
        .map(|text| {
            let error = draw(&machines, &[text.parse().unwrap()], true).unwrap_err();
            format!("{error}; {}\n", error.remedy().unwrap())
        })
        .collect();
    insta::assert_snapshot!(all, @r#"
    cable to lab0/ens9: lab0 has no PF "ens9"; its PFs are ens1f0, ens1f1, 0000:5e:00.0
    cable to lab7/ens1f0: no machine is called "lab7"; machines are named by --from; there are lab0, lab1
    "#);
    for bad in ["", "lab0/ens1", "lab0=lab1", "/a=b/c", "a/=b/c"] {
        assert!(bad.parse::<Cable>().is_err(), "{bad:?} was accepted");
    }
}
