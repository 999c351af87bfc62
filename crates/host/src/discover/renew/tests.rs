//! Recorded hosts that change: what is seen of the changed functions, put into what was seen before, is
//! what a look at the whole host sees.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use fixtures::{TREES, inventory_text};
use model::{Host, Inventory, PciAddress, Scope};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::{Linux, Tree};

/// A recorded host that is changed.
struct Changing {
    dir: tempfile::TempDir,
    linux: Linux,
    /// What was seen of the whole before, or put together since.
    seen: Inventory,
}

/// One change: its kind, and which of the things that there are for it.
type Change = (u8, usize);

/// How many kinds of changes there are.
const KINDS: u8 = 8;

impl Changing {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Tree::parse(text).unwrap().unpack(dir.path()).unwrap();
        let mut linux = Linux::recorded(dir.path()).unwrap();
        let seen = linux.observe(Scope::All).unwrap();
        Self { dir, linux, seen }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn function(&self, which: usize) -> PciAddress {
        let functions = &self.seen.functions;
        *functions.keys().nth(which % functions.len()).unwrap()
    }

    /// Makes a change, and returns the function that the kernel's event would name; `None` when it names
    /// none.
    fn change(&self, (kind, which): Change) -> Option<PciAddress> {
        match kind {
            0 => self.bind(
                which,
                &["vfio-pci", "mlx5_core", "igb_uio"][which % 3..][..1],
            ),
            1 => self.bind(which, &[]),
            2 => self.edit_link(which, |link| {
                link["up"] = json!(link["up"] != true);
                link["oper"] = json!(if link["oper"] == "up" { "down" } else { "up" });
            }),
            3 => self.edit_link(which, |link| {
                link["name"] = json!(format!("renamed{which}"));
            }),
            4 => self.move_link(which),
            5 => self.edit_link(which, |link| {
                if let Some(vf) = link["vfs"].as_array_mut().and_then(|vfs| vfs.last_mut()) {
                    let was = vf["state"]["trust"] == true;
                    vf["state"]["trust"] = json!(!was);
                }
            }),
            6 => {
                let function = self.function(which);
                let path = format!("sys/bus/pci/devices/{function}/driver_override");
                let path = self.path(&path);
                path.exists()
                    .then(|| fs::write(path, format!("driver{which}\n")).unwrap())?;
                Some(function)
            }
            _ => {
                let function = self.function(which);
                let path = self.path(&format!("sys/bus/pci/devices/{function}"));
                // An earlier change of the same burst may have removed it.
                let _gone = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(path));
                Some(function)
            }
        }
    }

    /// Binds a function to another driver, or to none; what its interfaces were goes with the old one.
    fn bind(&self, which: usize, driver: &[&str]) -> Option<PciAddress> {
        let function = self.function(which);
        let path = self.path(&format!("sys/bus/pci/devices/{function}/uevent"));
        let text = fs::read_to_string(&path).ok()?;
        let kept = text.lines().filter(|line| !line.starts_with("DRIVER="));
        let lines = driver.iter().map(|driver| format!("DRIVER={driver}"));
        let lines = lines.chain(kept.map(str::to_owned));
        fs::write(path, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
        let own = |link: &Value| link["parent_dev"] == function.to_string();
        let mut links = self.lines("netlink/links");
        links.retain(|link| !own(link));
        self.write("netlink/links", &links);
        let mut elsewhere = self.lines("netlink/elsewhere");
        elsewhere.retain(|namespace| !own(&namespace["links"][0]));
        self.write("netlink/elsewhere", &elsewhere);
        Some(function)
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn write(&self, name: &str, lines: &[Value]) {
        let lines = lines.iter().map(|line| line.to_string() + "\n");
        fs::write(self.path(name), lines.collect::<String>()).unwrap();
    }

    fn edit_link(&self, which: usize, edit: impl Fn(&mut Value)) -> Option<PciAddress> {
        let mut links = self.lines("netlink/links");
        let count = links.len().max(1);
        let link = links.get_mut(which % count)?;
        edit(link);
        let index = link["index"].as_u64();
        self.write("netlink/links", &links);
        self.owner(index?)
    }

    /// Moves an interface to another namespace, or back.
    fn move_link(&self, which: usize) -> Option<PciAddress> {
        let mut links = self.lines("netlink/links");
        let mut elsewhere = self.lines("netlink/elsewhere");
        let owner = if which.is_multiple_of(2)
            && let Some(namespace) = elsewhere.pop()
        {
            let mut link = namespace["links"][0].clone();
            // The kernel gives it another index where its own is taken.
            let taken = || links.iter().filter_map(|link| link["index"].as_u64());
            if taken().any(|index| link["index"] == index) {
                link["index"] = json!(taken().max()? + 1);
            }
            // The event of one that comes back names its function.
            let owner = link["parent_dev"].as_str()?.parse().ok();
            links.push(link);
            owner
        } else {
            let at = which.checked_rem(links.len())?;
            let link = links.remove(at);
            let owner = self.owner(link["index"].as_u64()?);
            elsewhere.push(json!({"inode": 7, "path": "/run/netns/x", "links": [link]}));
            owner
        };
        self.write("netlink/links", &links);
        self.write("netlink/elsewhere", &elsewhere);
        owner
    }

    /// Returns the function that an interface is known to be on.
    fn owner(&self, index: u64) -> Option<PciAddress> {
        let mut functions = self.seen.functions.values();
        let on = |function: &&model::Function| {
            let mut own = function.netdevs.iter();
            own.any(|netdev| {
                netdev.netns == model::Netns::Host && u64::from(netdev.index.get()) == index
            })
        };
        functions.find(on).map(|function| function.address)
    }

    /// Renews what was seen, and says whether a part was enough.
    fn renew(&mut self, changed: &BTreeSet<PciAddress>, all_named: bool) -> bool {
        let part = self.linux.renew(&self.seen, changed).unwrap();
        let whole = self.linux.observe(Scope::All).unwrap();
        let enough = all_named && part.is_some();
        if let Some(part) = part.filter(|_| all_named) {
            assert_eq!(inventory_text(&part), inventory_text(&whole));
            assert_eq!(part, whole);
        }
        self.seen = whole;
        enough
    }
}

#[test]
fn a_part_put_into_the_whole_is_the_whole() {
    let changes =
        prop::collection::vec(prop::collection::vec((0..KINDS, 0..1000_usize), 1..4), 1..6);
    let mut parts = 0;
    let mut rounds = 0;
    for (_, text) in TREES {
        let mut runner = TestRunner::new(Config::with_cases(16));
        let counts = std::cell::Cell::new((0, 0));
        let run = |bursts: Vec<Vec<Change>>| {
            let mut host = Changing::new(text);
            for burst in bursts {
                let named: Vec<Option<PciAddress>> = burst
                    .into_iter()
                    .map(|change| host.change(change))
                    .collect();
                let all_named = named.iter().all(Option::is_some);
                let enough = host.renew(&named.into_iter().flatten().collect(), all_named);
                let (parts, rounds) = counts.get();
                counts.set((parts + i32::from(enough), rounds + 1));
                if host.seen.functions.is_empty() {
                    break;
                }
            }
            Ok(())
        };
        runner.run(&changes, run).unwrap();
        parts += counts.get().0;
        rounds += counts.get().1;
    }
    // Otherwise a part that is never enough would pass.
    assert!(parts * 5 > rounds, "{parts} of {rounds}");
}

/// The events that are frequent on a node: a driver comes, a link flaps, an interface goes to a pod.
#[test]
fn what_happens_often_needs_no_look_at_the_whole() {
    let vf: PciAddress = "0000:3b:00.2".parse().unwrap();
    let pf: PciAddress = "0000:3b:00.0".parse().unwrap();
    for (change, function) in [
        ((0, 2), vf),
        ((1, 2), vf),
        ((2, 1), pf),
        ((3, 3), vf),
        ((4, 3), vf),
    ] {
        let mut host = Changing::new(fixtures::tree("mlx5-legacy").unwrap());
        let before = host.seen.clone();
        let named = host.change(change);
        assert_eq!(named, Some(function), "{change:?}");
        assert!(host.renew(&BTreeSet::from([function]), true), "{change:?}");
        assert_ne!(host.seen, before, "{change:?}");
    }
}

#[test]
fn a_function_that_comes_or_goes_needs_a_look_at_the_whole() {
    let mut host = Changing::new(fixtures::tree("mlx5-legacy").unwrap());
    let gone = host.change((7, 2)).unwrap();
    assert!(!host.renew(&BTreeSet::from([gone]), true));
    assert!(!host.seen.functions.contains_key(&gone));
    assert!(!host.renew(&BTreeSet::from([gone]), true));
}

#[test]
fn what_could_not_be_read_needs_a_look_at_the_whole() {
    let mut host = Changing::new(fixtures::tree("mlx5-legacy").unwrap());
    let vf: PciAddress = "0000:3b:00.2".parse().unwrap();
    let numa = host.path(&format!("sys/bus/pci/devices/{vf}/numa_node"));
    fs::write(&numa, "x").unwrap();
    for _ in 0..2 {
        assert!(!host.renew(&BTreeSet::from([vf]), true));
        assert_eq!(host.seen.gaps.len(), 1);
    }
    fs::write(&numa, "1").unwrap();
    assert!(!host.renew(&BTreeSet::from([vf]), true), "the gap has gone");
    assert!(host.renew(&BTreeSet::from([vf]), true));
}
