//! A generated host of 16 PFs with 64 VFs each, as a recording: for this bench and that of the agent.

use std::fmt::Write as _;

/// PFs of the host.
pub(crate) const PFS: usize = 16;

/// VFs of each of them.
pub(crate) const VFS: usize = 64;

/// Bridges, disks and so on, which must be looked at to see that they are of no interest.
const BYSTANDERS: usize = 100;

/// Returns the recording of the host.
pub(crate) fn generated_tree() -> String {
    let mut text = String::new();
    let mut index = 1;
    let mut group = 0;
    let mut function = |text: &mut String, path: &str, address: &str, uevent: &str| {
        group += 1;
        let climb = "../".repeat(path.matches('/').count() - 1);
        let _ = write!(
            text,
            "/sys/bus/pci/devices/{address} -> ../../..{}\n\
             /sys/kernel/iommu_groups/{group}/devices/{address} -> ../../../..{}\n\
             [{path}]\n\
             {uevent}\n\
             uevent = PCI_SLOT_NAME={address}\n\
             iommu_group -> {climb}kernel/iommu_groups/{group}\n\
             numa_node = 0\n\
             driver_override = (null)\n",
            &path[4..],
            &path[4..],
        );
    };
    for bystander in 0..BYSTANDERS {
        let address = format!("0000:{:02x}:{:02x}.0", bystander / 32, bystander % 32);
        let uevent =
            "uevent = DRIVER=pcieport\nuevent = PCI_CLASS=60400\nuevent = PCI_ID=8086:2030";
        function(
            &mut text,
            &format!("/sys/devices/pci0000:00/{address}"),
            &address,
            uevent,
        );
    }
    for pf in 0..PFS {
        let bus = 0x10 + pf;
        let port = format!("/sys/devices/pci0000:00/0000:00:{pf:02x}.1");
        let pf_address = format!("0000:{bus:02x}:00.0");
        let path = format!("{port}/{pf_address}");
        let uevent = "uevent = DRIVER=mlx5_core\nuevent = PCI_CLASS=20000\n\
                      uevent = PCI_ID=15B3:101D\nuevent = PCI_SUBSYS_ID=15B3:0016";
        function(&mut text, &path, &pf_address, uevent);
        let _ = write!(
            text,
            "sriov_totalvfs = 64\nsriov_numvfs = {VFS}\nsriov_drivers_autoprobe = 1\n\
             sriov_vf_device = 101e\nsriov_offset = 8\nsriov_stride = 1\n\
             net/ens{pf}/speed = 100000\nnet/ens{pf}/dev_port = 0\n\
             /sys/class/net/ens{pf} -> ../..{}/net/ens{pf}\n\
             /netlink/pfs = {{\"pf\":\"{pf_address}\",\"eswitch\":\"legacy\",\"firmware\":\"22.41\"}}\n",
            &path[4..],
        );
        let mut reports = Vec::new();
        let mut vfs = String::new();
        let mut links = String::new();
        index += 1;
        let pf_index = index;
        for vf in 0..VFS {
            let devfn = vf + 8;
            let address = format!("0000:{bus:02x}:{:02x}.{}", devfn / 8, devfn % 8);
            let _ = writeln!(text, "virtfn{vf} -> ../{address}");
            let uevent = "uevent = DRIVER=mlx5_core\nuevent = PCI_CLASS=20000\n\
                          uevent = PCI_ID=15B3:101E\nuevent = PCI_SUBSYS_ID=15B3:0016";
            function(&mut vfs, &format!("{port}/{address}"), &address, uevent);
            let _ = writeln!(vfs, "physfn -> ../{pf_address}");
            let mac = format!("02:00:00:00:{pf:02x}:{vf:02x}");
            reports.push(format!(
                "{{\"index\":{vf},\"state\":{{\"mac\":\"{mac}\",\"vlan\":\"none\",\
                 \"min_rate_mbps\":0,\"max_rate_mbps\":0,\"spoof_check\":false,\
                 \"link\":\"auto\",\"trust\":false}}}}"
            ));
            index += 1;
            links += &link(index, &format!("ens{pf}v{vf}"), &mac, &address, "");
        }
        let reports = format!(",\"num_vf\":{VFS},\"vfs\":[{}]", reports.join(","));
        let mac = format!("02:00:00:00:{pf:02x}:ff");
        text += &vfs;
        text += &link(pf_index, &format!("ens{pf}"), &mac, &pf_address, &reports);
        text += &links;
    }
    text
}

fn link(index: u32, name: &str, mac: &str, parent: &str, more: &str) -> String {
    format!(
        "/netlink/links = {{\"index\":{index},\"name\":\"{name}\",\"arphrd\":1,\"up\":true,\
         \"running\":true,\"oper\":\"up\",\"mtu\":1500,\"min_mtu\":68,\"max_mtu\":9978,\
         \"address\":\"{mac}\",\"permanent_address\":\"{mac}\",\"parent_bus\":\"pci\",\
         \"parent_dev\":\"{parent}\"{more}}}\n"
    )
}
