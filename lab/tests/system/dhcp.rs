//! Addresses of the `dhcp` plugin: its daemon asks a server over the VF itself, on the VF's VLAN.

use lab::{Lab, Topology};

use crate::support::{add_engines, eventually, install_plugin, make_vfs, run};

const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "blue", "type": "sriov",
    "deviceID": "0000:01:10.0", "vlan": 100, "ipam": {"type": "dhcp"}}"#;

/// It has one address to give.
const SERVER: &str = "start 192.0.2.50\nend 192.0.2.50\ninterface lan\nlease_file /root/leases\n\
    pidfile /root/udhcpd.pid\noption subnet 255.255.255.0\noption lease 600\n";

const HOME: &str = "ls /sys/bus/pci/devices/0000:01:10.0/net && ip link show dev eth0";

#[test]
fn an_address_of_a_dhcp_server_is_leased_and_given_back() {
    let lab = Lab::boot(&Topology::igb(1)).expect("these tests need the lab");
    let machine = &lab[0];
    // BusyBox, with its server, comes with them.
    add_engines(machine, "");
    make_vfs(machine, 2);
    install_plugin(machine);
    machine.write("/root/network", NETWORK.as_bytes()).unwrap();
    machine
        .write("/root/udhcpd.conf", SERVER.as_bytes())
        .unwrap();
    run(
        machine,
        "set -e; for n in blue server; do ip netns add $n; done; \
         ip link set eth0 vf 1 vlan 100; \
         ip link set $(ls /sys/class/net/eth0/device/virtfn1/net) netns server name lan; \
         ip -n server address add 192.0.2.1/24 dev lan; ip -n server link set lan up; \
         touch /root/leases; mkdir -p /run/cni; \
         (ip netns exec server busybox udhcpd -f /root/udhcpd.conf > /root/udhcpd.log 2>&1 &); \
         (/usr/lib/cni/dhcp daemon > /root/dhcp.log 2>&1 &)",
    );
    eventually(
        machine,
        "test -S /run/cni/dhcp.sock && test -s /root/udhcpd.pid",
    );
    let before = run(machine, HOME);
    let call = |command: &str| {
        let line = format!(
            "CNI_COMMAND={command} CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/blue CNI_IFNAME=net1 \
             CNI_PATH=/opt/cni/bin:/usr/lib/cni /opt/cni/bin/sriov < /root/network"
        );
        run(machine, &line)
    };
    let result = call("ADD");
    assert!(result.contains("192.0.2.50/24"), "{result}");
    let shown = run(machine, "ip -n blue address show dev net1");
    assert!(shown.contains("192.0.2.50/24"), "{shown}");
    call("DEL");
    assert_eq!(run(machine, HOME), before);
    // The server writes down what it leased when it is told to.
    eventually(
        machine,
        "kill -USR1 $(cat /root/udhcpd.pid) && busybox dumpleases -f /root/leases | grep expired",
    );
}
