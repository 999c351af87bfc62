//! `virtfn-lab demo`: one VF on each of two machines, from a policy file to a ping.
//!
//! Every line that it prints as done was checked, with eyes other than those that did it where
//! there are any: a ping for a cable, the kernel's own count for VFs. What did not happen ends the
//! demo with an error.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Machine, Topology};
use serde_json::Value;

const POLICY: &str = include_str!("../demo/policy.yaml");
const POLICY_FILE: &str = "/tmp/policy.yaml";

/// First NIC of every machine; NICs of one number are joined.
const PF: &str = "0000:01:00.0";

/// One VF that the demo gives away.
struct Given {
    machine: usize,
    vf: u16,
    netns: &'static str,
    vlan: u16,
    address: &'static str,
}

const GIVEN: [Given; 3] = [
    Given {
        machine: 0,
        vf: 0,
        netns: "blue",
        vlan: 100,
        address: "192.0.2.1",
    },
    Given {
        machine: 1,
        vf: 0,
        netns: "blue",
        vlan: 100,
        address: "192.0.2.2",
    },
    Given {
        machine: 1,
        vf: 1,
        netns: "red",
        vlan: 200,
        address: "192.0.2.3",
    },
];

/// Runs the demo with the `virtfn` at `virtfn`.
pub(crate) fn run(virtfn: &Path) -> Result<()> {
    let begun = Instant::now();
    let virtfn = virtfn.canonicalize().with_context(|| {
        format!(
            "find {}; build it, or name another with --virtfn",
            virtfn.display()
        )
    })?;
    let mut stage = Stage::new();
    stage.say("boot two machines, joined back to back on one SR-IOV NIC each")?;
    let lab = Lab::boot(&Topology::igb(2))?;
    let nodes: Vec<Node<'_>> = [0, 1]
        .map(|number| Node {
            machine: &lab[number],
            virtfn: virtfn.clone(),
        })
        .into();
    for node in &nodes {
        let seconds = node.machine.timing().ready.as_secs_f32();
        stage.done(&format!("{} is up after {seconds:.1} s", node.name()))?;
    }

    stage.say("what SR-IOV devices are there?")?;
    let offered = nodes[0].pf()?["totalVfs"].as_u64().unwrap_or_default();
    ensure!(offered > 0, "the PF offers no VFs");
    stage.show("virtfn list", &nodes[0].virtfn(&["list"])?)?;
    stage.done(&format!("{PF} offers {offered} VFs and has none"))?;

    stage.say("what would this policy change?")?;
    for node in &nodes {
        node.machine.write(POLICY_FILE, POLICY.as_bytes())?;
    }
    stage.show("policy.yaml", POLICY)?;
    let plan = nodes[0].virtfn(&["plan", "-f", POLICY_FILE])?;
    stage.show("virtfn plan -f policy.yaml", &plan)?;
    ensure!(nodes[0].num_vfs()? == 0, "virtfn plan changed the host");
    stage.done("planned; nothing was changed")?;

    stage.say("apply it on both machines")?;
    let applied = in_parallel(&nodes, |node| node.virtfn(&["apply", "-f", POLICY_FILE]))?;
    stage.show("virtfn apply -f policy.yaml", &applied[0])?;
    for node in &nodes {
        ensure!(
            node.num_vfs()? == 2,
            "{} has {} VFs",
            node.name(),
            node.num_vfs()?
        );
        node.virtfn(&["plan", "--check", "-f", POLICY_FILE])
            .with_context(|| format!("{} is not as the policy wants it", node.name()))?;
        stage.done(&format!(
            "{} has 2 VFs; a second plan is empty",
            node.name()
        ))?;
    }
    let before = [nodes[0].settled()?, nodes[1].settled()?];

    stage.say("give VFs to network namespaces")?;
    for given in &GIVEN {
        let command = nodes[given.machine].give(given)?;
        stage.done(&format!("{}: {command}", nodes[given.machine].name()))?;
    }

    stage.say("who has what now?")?;
    stage.show("virtfn topology", &draw(&nodes)?)?;

    stage.say("do they reach each other across the machines?")?;
    let [sender, receiver, stranger] = &GIVEN;
    ensure!(
        nodes[0].pings(sender, receiver)?,
        "no reply from {} over VLAN {}",
        receiver.address,
        receiver.vlan
    );
    stage.done(&format!(
        "{} answers {} over VLAN {}",
        receiver.address, sender.address, sender.vlan
    ))?;
    ensure!(
        !nodes[0].pings(sender, stranger)?,
        "{} answered although it is in VLAN {}",
        stranger.address,
        stranger.vlan
    );
    stage.done(&format!(
        "{} in VLAN {} hears nothing of VLAN {}",
        stranger.address, stranger.vlan, sender.vlan
    ))?;

    stage.say("take the VFs back")?;
    for given in &GIVEN {
        let node = &nodes[given.machine];
        node.virtfn(&["detach", &node.vf(given)?])?;
    }
    for (node, before) in nodes.iter().zip(&before) {
        let after = node.settled()?;
        ensure!(
            after == *before,
            "{} differs: {after:#} was {before:#}",
            node.name()
        );
        stage.done(&format!("{}: every VF is as it was before", node.name()))?;
    }
    drop(lab);
    stage.say(&format!(
        "all of it happened, in {} s",
        begun.elapsed().as_secs()
    ))
}

/// A machine with `virtfn` on it.
struct Node<'a> {
    machine: &'a Machine,
    virtfn: PathBuf,
}

impl Node<'_> {
    fn name(&self) -> &str {
        self.machine.name()
    }

    /// Runs `virtfn`, which must succeed, and returns what it wrote, progress included.
    fn virtfn(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        Ok(format!("{}{}", output.0, output.1))
    }

    fn output(&self, arguments: &[&str]) -> Result<(String, String)> {
        let program = self.virtfn.to_string_lossy();
        let argv = std::iter::once(program.as_ref()).chain(arguments.iter().copied());
        let output = self
            .machine
            .command(argv)
            .output()?
            .checked()
            .with_context(|| format!("{}: virtfn {}", self.name(), arguments.join(" ")))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&output.stdout), text(&output.stderr)))
    }

    /// What `virtfn list` sees, less the links, which come up in their own time.
    fn settled(&self) -> Result<Value> {
        let mut view = self.seen()?;
        let pfs = view["pfs"].as_array_mut().into_iter().flatten();
        for pf in pfs {
            for vf in pf["vfs"].as_array_mut().into_iter().flatten() {
                forget_link(&mut vf["netdev"]);
            }
            forget_link(&mut pf["netdev"]);
        }
        Ok(view)
    }

    /// What `virtfn list` sees.
    fn seen(&self) -> Result<Value> {
        let (view, _) = self.output(&["list", "-o", "json"])?;
        serde_json::from_str(&view).context("read the output of virtfn list -o json")
    }

    fn pf(&self) -> Result<Value> {
        let mut view = self.seen()?;
        let pfs = view["pfs"]
            .as_array_mut()
            .context("virtfn list shows no PFs")?;
        let position = pfs.iter().position(|pf| pf["address"] == PF);
        Ok(pfs.swap_remove(position.with_context(|| format!("virtfn list does not show {PF}"))?))
    }

    /// What the kernel itself says.
    fn num_vfs(&self) -> Result<u32> {
        let file = format!("/sys/bus/pci/devices/{PF}/sriov_numvfs");
        let text = String::from_utf8(self.machine.read(&file)?)?;
        text.trim().parse().with_context(|| format!("read {file}"))
    }

    fn pf_name(&self) -> Result<String> {
        let pf = self.pf()?;
        Ok(pf["netdev"]["name"]
            .as_str()
            .context("the PF has no netdev")?
            .to_owned())
    }

    /// Names a VF as people do.
    fn vf(&self, given: &Given) -> Result<String> {
        Ok(format!("{}#{}", self.pf_name()?, given.vf))
    }

    fn give(&self, given: &Given) -> Result<String> {
        self.machine
            .run(&format!("ip netns add {}", given.netns))?
            .checked()?;
        let (vf, vlan) = (self.vf(given)?, given.vlan.to_string());
        let address = format!("{}/24", given.address);
        let arguments = [
            "attach",
            &vf,
            "--netns",
            given.netns,
            "--name",
            "net1",
            "--vlan",
            &vlan,
            "--address",
            &address,
        ];
        self.output(&arguments)?;
        Ok(format!("virtfn {}", arguments.join(" ")))
    }

    fn pings(&self, from: &Given, to: &Given) -> Result<bool> {
        let command = format!(
            "ip netns exec {} ping -c 3 -i 0.3 -W 3 {} >/dev/null",
            from.netns, to.address
        );
        Ok(self.machine.run(&command)?.exit.success())
    }
}

fn forget_link(netdev: &mut Value) {
    if let Some(netdev) = netdev.as_object_mut() {
        netdev.remove("state");
        netdev.remove("speedMbps");
    }
}

/// Draws both machines with the cable between them, on the first one.
fn draw(nodes: &[Node<'_>]) -> Result<String> {
    let mut arguments = vec!["topology".to_owned()];
    let mut ends = Vec::new();
    for node in nodes {
        let file = format!("/tmp/{}.json", node.name());
        let (view, _) = node.output(&["list", "-o", "json"])?;
        nodes[0].machine.write(&file, view.as_bytes())?;
        arguments.push(format!("--from={}={file}", node.name()));
        ends.push(format!("{}/{}", node.name(), node.pf_name()?));
    }
    arguments.push(format!("--join={}", ends.join("=")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Ok(nodes[0].output(&arguments)?.0)
}

/// Does the same on all machines at once.
fn in_parallel<T: Send>(
    nodes: &[Node<'_>],
    work: impl Fn(&Node<'_>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let running: Vec<_> = nodes
            .iter()
            .map(|node| scope.spawn(|| work(node)))
            .collect();
        running
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("a thread of the demo panicked"),
            })
            .collect()
    })
}

/// Where the demo speaks: numbered questions, indented answers.
struct Stage {
    out: std::io::Stdout,
    number: usize,
}

impl Stage {
    fn new() -> Self {
        Self {
            out: std::io::stdout(),
            number: 0,
        }
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.number += 1;
        Ok(writeln!(self.out, "\n[{}] {text}", self.number)?)
    }

    fn show(&mut self, title: &str, text: &str) -> Result<()> {
        writeln!(self.out, "    $ {title}")?;
        for line in text.trim_end().lines() {
            writeln!(self.out, "    {line}")?;
        }
        Ok(())
    }

    fn done(&mut self, text: &str) -> Result<()> {
        Ok(writeln!(self.out, "  ✓ {text}")?)
    }
}
