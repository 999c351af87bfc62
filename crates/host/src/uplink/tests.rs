use std::fs;
use std::path::Path;

use super::*;

/// A kernel that is told what to say.
#[derive(Default)]
struct Told {
    interfaces: Vec<Interface>,
    routes: Vec<DefaultRoute>,
    ways: Vec<(IpAddr, u32)>,
}

fn index(number: u32) -> IfIndex {
    IfIndex::new(number).unwrap()
}

impl Told {
    fn new(names: &[&str]) -> Self {
        let numbered = names.iter().zip(1..);
        let interface = |(name, number): (&&str, u32)| Interface {
            index: index(number),
            name: name.trim_end_matches(" ovs").parse().unwrap(),
            is_ovs: name.ends_with(" ovs"),
        };
        Self {
            interfaces: numbered.map(interface).collect(),
            ..Self::default()
        }
    }

    fn route(mut self, version: IpVersion, interfaces: &[u32]) -> Self {
        self.routes.push(DefaultRoute {
            version,
            interfaces: interfaces.iter().map(|number| index(*number)).collect(),
            table: 254,
            metric: 100,
        });
        self
    }

    fn way(mut self, to: &str, by: u32) -> Self {
        self.ways.push((to.parse().unwrap(), by));
        self
    }
}

impl Ways for Told {
    fn links(&mut self) -> Result<Vec<Interface>, RequestError> {
        Ok(self.interfaces.clone())
    }

    fn default_routes(&mut self, version: IpVersion) -> Result<Vec<DefaultRoute>, RequestError> {
        let routes = self.routes.iter().filter(|route| route.version == version);
        Ok(routes.cloned().collect())
    }

    fn towards(&mut self, address: IpAddr) -> Result<Option<IfIndex>, RequestError> {
        let way = self.ways.iter().find(|(to, _)| *to == address);
        Ok(way.map(|(_, by)| index(*by)))
    }
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn below(root: &Path, above: &str, lower: &[&str]) {
    for name in lower {
        write(
            root,
            &format!("/sys/class/net/{above}/lower_{name}/ifindex"),
            "1",
        );
    }
}

/// Writes what was seen, one line a fact.
fn told(seen: &SeenUplinks) -> String {
    let uses = seen
        .facts
        .uses
        .iter()
        .map(|used| format!("{}: {}", used.interface, used.purpose));
    let lower = seen.facts.lower.iter().map(|(name, below)| {
        let below: Vec<_> = below.iter().map(ToString::to_string).collect();
        format!("{name} > {}", below.join(" "))
    });
    let gaps = seen
        .gaps
        .iter()
        .map(|gap| format!("gap {}: {}", gap.object, gap.reason));
    uses.chain(lower).chain(gaps).collect::<Vec<_>>().join("\n")
}

fn look(dir: &tempfile::TempDir, mut kernel: Told, more: &[IpAddr]) -> String {
    let root = HostRoot::open(dir.path()).unwrap();
    told(&gather(&root, more, &mut kernel).unwrap())
}

#[test]
fn a_bond_with_a_vlan_is_followed_down() {
    let dir = tempfile::tempdir().unwrap();
    below(dir.path(), "bond0.100", &["bond0"]);
    below(dir.path(), "bond0", &["ens1", "ens2"]);
    write(dir.path(), "/proc/self/mounts", "");
    let kernel = Told::new(&["lo", "ens1", "ens2", "bond0", "bond0.100"])
        .route(IpVersion::V4, &[5])
        .route(IpVersion::V6, &[5]);
    insta::assert_snapshot!(look(&dir, kernel, &[]), @r"
    bond0.100: the IPv4 default route
    bond0.100: the IPv6 default route
    bond0 > ens1 ens2
    bond0.100 > bond0
    ");
}

#[test]
fn below_open_vswitch_is_every_port_of_the_datapath() {
    let dir = tempfile::tempdir().unwrap();
    below(dir.path(), "ovs-system", &["ens1", "veth0"]);
    write(dir.path(), "/proc/self/mounts", "");
    let kernel = Told::new(&["lo", "ens1", "ovs-system ovs", "br-ex ovs", "veth0"])
        .route(IpVersion::V4, &[4]);
    insta::assert_snapshot!(look(&dir, kernel, &[]), @r"
    br-ex: the IPv4 default route
    br-ex > ens1 veth0
    ");
}

#[test]
fn the_api_server_and_the_storage_are_found() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "/etc/kubernetes/kubelet.conf",
        "clusters: [{cluster: {server: 'https://api.example:6443'}}]",
    );
    write(
        dir.path(),
        "/var/lib/kubelet/kubeconfig",
        "clusters: [{cluster: {server: 'https://elsewhere:6443'}}]",
    );
    write(dir.path(), "/etc/kubernetes/kubeconfig", "clusters: {}");
    write(
        dir.path(),
        "/etc/hosts",
        "# api.example\n10.0.0.1 lb API.example # x\n",
    );
    write(
        dir.path(),
        "/proc/1/mounts",
        include_str!("../../corpus/mounts/nfsroot"),
    );
    let connection = "/sys/class/iscsi_connection/connection1:0/address";
    write(dir.path(), connection, "fe80::9%ens2\n");
    let kernel = Told::new(&["lo", "ens1", "ens2", "ens3"])
        .way("10.0.0.1", 2)
        .way("10.0.0.5", 3)
        .way("fe80::9", 3)
        .way("10.9.9.9", 4);
    let more = "10.9.9.9".parse().unwrap();
    insta::assert_snapshot!(look(&dir, kernel, &[more]), @r"
    ens3: the way to the API server 10.9.9.9
    ens1: the way to the API server 10.0.0.1
    ens2: the NFS file system of 10.0.0.5 on /
    ens2: the iSCSI disk of fe80::9
    gap /etc/kubernetes/kubeconfig: no clusters[].cluster.server is the URL of an API server
    gap /var/lib/kubelet/kubeconfig: the API server elsewhere is not in /etc/hosts, so it is not known by which interface it is reached
    ");
}

#[test]
fn only_what_the_system_runs_from_counts_as_storage() {
    let mounts = include_str!("../../corpus/mounts/nfsroot");
    let found: Vec<_> = nfs_mounts(mounts)
        .into_iter()
        .map(|(_, place)| place)
        .collect();
    assert_eq!(found, ["/"]);
    assert_eq!(nfs_mounts(include_str!("../../corpus/mounts/plain")), []);
}

/// Reads only: the routes of the namespace that the test runs in.
#[test]
fn this_machine_is_looked_at_without_an_error() {
    let seen = see_uplinks(&HostRoot::this_machine().unwrap(), &[]).unwrap();
    let table = fs::read_to_string("/proc/net/route").unwrap();
    for line in table.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[1] == "00000000" && words[7] == "00000000" {
            let found = seen.facts.uses.iter().any(|used| {
                used.purpose == Purpose::DefaultRouteV4 && used.interface.as_str() == words[0]
            });
            assert!(found, "{line}");
        }
    }
}
