//! What policies mean for recorded hosts, and what is done there: the lab has no NIC with a switch.
//!
//! Each plan is then made on a played host that looks like the recorded one, until nothing is left.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use api::crd::read_policies;
use fixtures::FakeHost;
use host::{Linux, Tree};
use model::{Host, Inventory, NodePolicy, Scope};
use policy::{plan, render, resolve};

fn recorded(name: &str) -> Inventory {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::parse(fixtures::tree(name).unwrap()).unwrap();
    tree.unpack(dir.path()).unwrap();
    let mut host = Linux::recorded(dir.path()).unwrap();
    host.observe(Scope::All).unwrap()
}

fn policies(specs: &[&str]) -> Vec<NodePolicy> {
    let document = |(at, spec): (usize, &&str)| {
        format!(
            "apiVersion: sriovnetwork.openshift.io/v1\nkind: SriovNetworkNodePolicy\n\
             metadata: {{name: p{at}}}\nspec: {{resourceName: r{at}, nodeSelector: {{}}, {spec}}}\n"
        )
    };
    let documents: Vec<String> = specs.iter().enumerate().map(document).collect();
    let read = read_policies(&documents.join("---\n"), "p.yaml").unwrap();
    read.policies
}

/// Shows the plan, and makes it.
fn planned(tree: &str, specs: &[&str]) -> String {
    let seen = recorded(tree);
    let (wanted, _notes) = resolve(&seen, &policies(specs), &BTreeMap::new())
        .accept()
        .unwrap();
    let first = plan(&seen, &wanted);
    let mut host = FakeHost::new(seen);
    for planned in first.steps() {
        host.perform(&planned.step).unwrap();
    }
    let rest = plan(&host.inventory(), &wanted);
    assert_eq!(render(&rest), "nothing to do\n");
    render(&first)
}

#[test]
fn an_mlx5_switch_keeps_its_vfs_and_changes_their_vdpa_devices() {
    let pf = "nicSelector: {pfNames: ['enp8s0f0np0";
    let switch = "numVfs: 3, eSwitchMode: switchdev";
    let first = format!("{pf}#0-1']}}, {switch}, vdpaType: vhost");
    let last = format!("{pf}#2-2']}}, {switch}, vdpaType: virtio");
    insta::assert_snapshot!(planned("mlx5-switchdev", &[&first, &last]), @r"
    pf enp8s0f0np0 0000:08:00.0   interrupts 1 VF in use, drain first
      1-2  vf 0-1: have a vhost vDPA device   was no vDPA device
      3    vf 2: have a virtio vDPA device    was a vhost vDPA device, interrupts vf 2 in use by device qemu-kvm (pid 5001)
    ");
}

#[test]
fn an_mlx5_goes_to_switchdev_mode_with_its_vfs_in_legacy_mode() {
    let wanted = "nicSelector: {rootDevices: ['0000:3b:00.0']}, numVfs: 4, eSwitchMode: switchdev, \
                  mtu: 9000, vdpaType: vhost";
    insta::assert_snapshot!(planned("mlx5-legacy", &[wanted]), @r"
    pf ens1f0np0 0000:3b:00.0   all its VFs are made anew, none is in use, no drain
      1      have 0 VFs                            was 2 VFs, destroys all its VFs
      2      set hw-tc-offload on                  was off
      3      set flow_steering_mode smfs           was flow_steering_mode dmfs
      4      give no drivers to new VFs            was on
      5      have 4 VFs                            was 0 VFs
      6      set eswitch mode switchdev            was legacy
      7      vf 0: set mac 5a:00:00:00:00:01
      8-11   vf 0-3: bind to the kernel's driver
      12-15  vf 0-3: wait for the netdev
      16-19  vf 0-3: set mtu 9000
      20-23  vf 0-3: have a vhost vDPA device
      24     give drivers to new VFs               was off
    ");
}

#[test]
fn an_e810_goes_to_switchdev_mode_without_vfs() {
    let wanted = "nicSelector: {rootDevices: ['10000:e1:00.0']}, numVfs: 4, eSwitchMode: switchdev";
    insta::assert_snapshot!(planned("ice", &[wanted]), @r"
    pf ens785f0 10000:e1:00.0   interrupts 2 VFs in use, which is the host's own
      1      have 0 VFs                            was 4 VFs, destroys all its VFs, interrupts vf 0 in use by host bond0 as ens785f0v0, interrupts vf 1 in use by host ens785f0v1.40 as ens785f0v1
      2      set hw-tc-offload on                  was off
      3      set eswitch mode switchdev            was legacy
      4      give no drivers to new VFs            was on
      5      have 4 VFs                            was 0 VFs
      6-9    vf 0-3: set their macs
      10-13  vf 0-3: bind to the kernel's driver
      14-17  vf 0-3: wait for the netdev
      18     give drivers to new VFs               was off
    ");
}
