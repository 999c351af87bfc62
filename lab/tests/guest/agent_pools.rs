//! Pools of `virtfn agent` on real devices: NVMe, what pods have, preferences, edits, bad places.

use std::fs;
use std::path::{Path, PathBuf};

use crate::agent::{Agent, POOLS, block_on, healthy, place, soon};
use crate::fake_kubelet::FakeKubelet;
use crate::support::{
    Machine, Namespace, PF0, PF1, VF0, VF1, eventually, netdev, pci, run, set_num_vfs,
};

/// The NVMe device of the machine, brought back to one without VFs when the test ends.
struct Nvme(String);

impl Nvme {
    fn find(machine: &Machine) -> Self {
        let view = machine.seen();
        let pfs = view["pfs"].as_array().into_iter().flatten();
        let mut nvme = pfs.filter(|pf| pf["class"]["name"] == "nvme");
        let nvme = nvme.next().expect("the machine has an NVMe device");
        Self(
            nvme["address"]
                .as_str()
                .expect("it has an address")
                .to_owned(),
        )
    }

    fn write(&self, name: &str, value: &str) {
        fs::write(pci(&self.0).join(name), value)
            .unwrap_or_else(|error| panic!("write {value} to {name} of {}: {error}", self.0));
    }

    /// Makes VFs that no driver takes, and returns their addresses.
    fn with_vfs(&self, count: usize) -> Vec<String> {
        self.write("sriov_drivers_autoprobe", "0");
        self.write("sriov_numvfs", &count.to_string());
        let vf = |index| {
            let target = fs::read_link(pci(&self.0).join(format!("virtfn{index}")));
            let target = target.expect("a new VF has its link");
            let name = target.file_name().expect("the link leads to a function");
            name.to_string_lossy().into_owned()
        };
        (0..count).map(vf).collect()
    }
}

impl Drop for Nvme {
    fn drop(&mut self) {
        // What fails here fails the next test that looks.
        let _removed = fs::write(pci(&self.0).join("sriov_numvfs"), "0");
        let _probed = fs::write(pci(&self.0).join("sriov_drivers_autoprobe"), "1");
    }
}

fn bind_to_vfio(address: &str) {
    fs::write(pci(address).join("driver_override"), "vfio-pci").expect("it can be overridden");
    fs::write("/sys/bus/pci/drivers_probe", address).expect("the kernel looks for a driver");
    let driver = fs::read_link(pci(address).join("driver")).expect("it has a driver");
    assert!(driver.ends_with("vfio-pci"), "{}", driver.display());
}

#[test]
fn vfs_of_an_nvme_device_are_given_with_their_group() {
    let machine = Machine::fresh();
    let nvme = Nvme::find(&machine);
    let dir = place("nvme");
    let pools = r#"{"resourceList": [
        {"resourceName": "acc", "deviceType": "accelerator", "selectors": {}},
        {"resourceName": "disk", "deviceType": "accelerator", "pciClasses": ["0108"], "selectors": {"drivers": ["vfio-pci"]}}]}"#;
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let _agent = Agent::start(&dir, pools, &[]);
        kubelet
            .until("intel.com/disk", |known| known.devices.is_empty())
            .await;
        let vfs = nvme.with_vfs(2);
        for vf in &vfs {
            bind_to_vfio(vf);
        }
        let known = kubelet
            .until("intel.com/disk", |known| healthy(known) == 2)
            .await;
        assert!(known.devices.keys().eq(&vfs), "{known:?}, not {vfs:?}");
        let answer = kubelet
            .allocate("intel.com/disk", &[&vfs[1]])
            .await
            .expect("it is given");
        assert_eq!(answer.envs["PCIDEVICE_INTEL_COM_DISK"], vfs[1]);
        assert_eq!(answer.devices.len(), 2);
        for node in &answer.devices {
            assert!(Path::new(&node.host_path).exists(), "{}", node.host_path);
        }
        let group = fs::read_link(pci(&vfs[1]).join("iommu_group")).expect("it has a group");
        let group = group
            .file_name()
            .expect("groups have numbers")
            .to_string_lossy();
        assert_eq!(answer.devices[1].host_path, format!("/dev/vfio/{group}"));
        // No pool has them unless it names their class, and none has the PF.
        assert!(
            kubelet
                .known("intel.com/acc")
                .is_some_and(|known| known.devices.is_empty())
        );
        nvme.write("sriov_numvfs", "0");
        kubelet
            .until("intel.com/disk", |known| healthy(known) == 0)
            .await;
        // The one that was given stays listed: its pod may still be on its way.
        let known = kubelet.known("intel.com/disk").expect("it is known");
        assert!(known.devices.keys().eq([&vfs[1]]), "{known:?}");
    });
}

#[test]
fn a_device_in_a_pod_stays_listed_also_by_the_next_agent() {
    let _machine = Machine::with_vfs(2);
    let dir = place("pod");
    let blue = Namespace::new("blue");
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let mut agent = Agent::start(&dir, POOLS, &[]);
        kubelet
            .until("intel.com/net", |known| healthy(known) == 2)
            .await;
        let answer = kubelet.allocate("intel.com/net", &[VF0]).await;
        answer.expect("it is given");
        kubelet.pod_has("intel.com/net", VF0);
        let moved = netdev(VF0);
        run("ip", &["link", "set", &moved, "netns", blue.0]);
        // Something that certainly comes after it.
        let name = netdev(VF1);
        run("ip", &["link", "set", &name, "netns", blue.0]);
        let known = kubelet
            .until("intel.com/net", |known| !known.devices.contains_key(VF1))
            .await;
        assert_eq!(known.devices.get(VF0), Some(&true), "{known:?}");
        agent.kill();
        kubelet
            .until("intel.com/net", |known| healthy(known) == 0)
            .await;
        let _next = Agent::start(&dir, POOLS, &[]);
        kubelet
            .until("intel.com/net", |known| {
                known.devices.len() == 1 && known.devices.get(VF0) == Some(&true)
            })
            .await;
        blue.ip(&["link", "show", &moved]);
    });
}

#[test]
fn an_edit_adds_a_pool_and_a_bad_one_takes_none_away() {
    let _machine = Machine::with_vfs(2);
    let dir = place("edit");
    let one = r#"{"resourceList": [{"resourceName": "one", "selectors": {"rootDevices": ["0000:01:00.0#0"]}}]}"#;
    let both = r#"{"resourceList": [
        {"resourceName": "one", "selectors": {"rootDevices": ["0000:01:00.0#0"]}},
        {"resourceName": "two", "selectors": {"rootDevices": ["0000:01:00.0"]}}]}"#;
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let agent = Agent::start(&dir, one, &[]);
        kubelet
            .until("intel.com/one", |known| healthy(known) == 1)
            .await;
        let write = |text: &str| fs::write(dir.join("config.json"), text).expect("it is writable");
        // A new pool cannot be looked up before the kubelet found it: that is the kubelet's second.
        write(both);
        kubelet
            .until("intel.com/two", |known| healthy(known) == 1)
            .await;
        let first = kubelet.known("intel.com/one").expect("it stays");
        assert_eq!((healthy(&first), first.times), (1, 1));
        // Both claim VF 0, and the log says who has it.
        eventually("the log to tell", || {
            let log = agent.log();
            log.contains("two pools claim the same devices") && log.contains("intel.com/two")
        });
        write("{");
        eventually("the log to tell", || agent.log().contains("no JSON"));
        assert_eq!(
            healthy(&kubelet.known("intel.com/two").expect("it stays")),
            1
        );
        // Of pools that the kubelet knows an edit takes effect within a second.
        let none = both.replace("0000:01:00.0\"", "0000:02:00.0\"");
        soon(
            &kubelet,
            "intel.com/two",
            || write(&none),
            |known| known.devices.is_empty(),
        )
        .await;
    });
}

#[test]
fn preferences_reach_the_kubelet() {
    let _machine = Machine::with_vfs(2);
    set_num_vfs(PF1, 2);
    let pools = r#"{"resourceList": [
        {"resourceName": "net", "preferredAllocation": "PREFERENCE", "selectors": {"drivers": ["igbvf"]}}]}"#;
    block_on(async {
        for (preference, pfs) in [("packed", 1), ("balanced", 2)] {
            let dir = place(preference);
            let kubelet = FakeKubelet::start(&dir.join("kubelet"));
            let pools = pools.replace("PREFERENCE", preference);
            let _agent = Agent::start(&dir, &pools, &[]);
            let known = kubelet
                .until("intel.com/net", |known| healthy(known) == 4)
                .await;
            assert!(known.preferred);
            let all: Vec<&str> = known.devices.keys().map(String::as_str).collect();
            let chosen = kubelet.prefer("intel.com/net", &all, &[], 2).await;
            assert_eq!(chosen.len(), 2);
            let mut found: Vec<PathBuf> = chosen
                .iter()
                .map(|vf| fs::canonicalize(pci(vf).join("physfn")).expect("it is a VF"))
                .collect();
            found.sort();
            found.dedup();
            assert_eq!(found.len(), pfs, "{preference}: {chosen:?}");
            // What must be in is in.
            let chosen = kubelet.prefer("intel.com/net", &all, &[VF1], 1).await;
            assert_eq!(chosen, [VF1]);
        }
    });
}

#[test]
fn a_directory_that_cannot_be_written_is_waited_for() {
    let _machine = Machine::with_vfs(1);
    let dir = place("read-only");
    let plugins = dir.join("kubelet/device-plugins");
    fs::create_dir_all(&plugins).expect("/tmp is writable");
    let path = plugins.to_string_lossy().into_owned();
    run("mount", &["-t", "tmpfs", "-o", "ro", "none", &path]);
    block_on(async {
        let agent = Agent::start(&dir, POOLS, &["--registration", "legacy"]);
        eventually("the log to tell", || {
            agent.log().contains("Read-only file system")
        });
        run("mount", &["-o", "remount,rw", &path]);
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        kubelet
            .until("intel.com/net", |known| healthy(known) == 1)
            .await;
        drop(kubelet);
        drop(agent);
    });
    run("umount", &["--lazy", &path]);
}

#[test]
fn the_link_of_a_pf_changes_the_health_of_its_own_vfs_only() {
    let _machine = Machine::with_vfs(2);
    set_num_vfs(PF1, 2);
    let dir = place("two-links");
    let pools = r#"{"resourceList": [{"resourceName": "net", "checkHealthOnPf": true,
        "selectors": {"drivers": ["igbvf"]}}]}"#;
    for pf in [PF0, PF1] {
        run("ip", &["link", "set", &netdev(pf), "up"]);
    }
    block_on(async {
        let kubelet = FakeKubelet::start(&dir.join("kubelet"));
        let _agent = Agent::start(&dir, pools, &[]);
        kubelet
            .until("intel.com/net", |known| healthy(known) == 4)
            .await;
        let known = soon(
            &kubelet,
            "intel.com/net",
            || drop(run("ip", &["link", "set", &netdev(PF0), "down"])),
            |known| healthy(known) == 2,
        )
        .await;
        assert_eq!(known.devices.get(VF0), Some(&false));
        assert_eq!(known.devices.len(), 4);
        soon(
            &kubelet,
            "intel.com/net",
            || drop(run("ip", &["link", "set", &netdev(PF0), "up"])),
            |known| healthy(known) == 4,
        )
        .await;
    });
}
