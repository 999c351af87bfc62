//! What the files say: pure functions from [`Kept`] to text.
//!
//! Order matters twice. The files are written in the order of [`files`], so whatever a file needs
//! is there before it; and the services are ordered within the boot, which the constants explain.

use std::path::Path;

use model::IfName;
use policy::kernel::ModuleName;

use super::{BootApply, Kept, KeptPf, PersistError, StoredPolicy, vfs};

/// How the first line of each file of ours begins.
pub(crate) const MARKER: &str = "# virtfn-persist:";

/// The directory of the stored policies. Whoever wants to may add files of his own.
pub(crate) const POLICIES: &str = "/etc/virtfn/policies.d";
/// The file of what VFs had.
pub(crate) const VF_SETTINGS: &str = "/etc/virtfn/vf-settings";
pub(crate) const UNIT_DIR: &str = "/etc/systemd/system";
pub(crate) const WANTS_DIR: &str = "/etc/systemd/system/multi-user.target.wants";
pub(crate) const PRE: &str = "virtfn-pre-network.service";
pub(crate) const POST: &str = "virtfn-post-network.service";
/// The two services, in the order of the boot.
pub(crate) const UNITS: [&str; 2] = [PRE, POST];
pub(crate) const UDEV: &str = "/etc/udev/rules.d/10-virtfn.rules";
pub(crate) const NETWORKD: &str = "/etc/systemd/network/00-virtfn-vf.network";
pub(crate) const MODULES: &str = "/etc/modules-load.d/virtfn.conf";

/// What must have happened before: file systems writable, PFs probed and named, and `sysctl` done,
/// because it may say what new interfaces start with. cloud-init renames interfaces in its first
/// stage.
const PRE_AFTER: &str = "local-fs.target systemd-udev-settle.service systemd-modules-load.service \
    systemd-sysctl.service systemd-sysusers.service cloud-init-local.service";

/// Everything that could take hold of a VF. `network-pre.target` is what systemd has for this;
/// upstream's service comes after it and so names each manager, and so do we, for those that do not
/// order themselves after the target.
const PRE_BEFORE: &str = "network-pre.target network.target NetworkManager.service \
    systemd-networkd.service networking.service wicked.service openvswitch-switch.service \
    ovsdb-server.service ovs-vswitchd.service";

/// Managers that may have changed a PF (its MTU, up or down) while they brought the network up.
const POST_AFTER: &str = "network.target systemd-networkd-wait-online.service \
    NetworkManager-wait-online.service openvswitch-switch.service ovs-vswitchd.service";

/// Everything that gives VFs to workloads.
const POST_BEFORE: &str = "kubelet.service containerd.service crio.service docker.service \
    podman.service k3s.service k3s-agent.service rke2-server.service rke2-agent.service \
    libvirtd.service virtqemud.service";

/// Longest run of a service: the kernel may take 2 minutes to make VFs, and a driver 2 minutes for
/// their netdevs. A boot never waits for longer.
const START_LIMIT: &str = "5min";

/// One file, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Returns all files, in the order in which they are written.
pub(crate) fn files(kept: &Kept) -> Result<Vec<File>, PersistError> {
    let mut files: Vec<File> = kept.policies.iter().enumerate().map(policy).collect();
    let head = marker("what the VFs had when the policies were kept: MACs, VLANs and more");
    files.push(File {
        path: VF_SETTINGS.to_owned(),
        text: vfs::text(&head, &kept.vfs)?,
    });
    if !kept.modules.is_empty() {
        files.push(File {
            path: MODULES.to_owned(),
            text: modules(&kept.modules),
        });
    }
    if !kept.pfs.is_empty() {
        files.push(File {
            path: NETWORKD.to_owned(),
            text: networkd(),
        });
        files.push(File {
            path: UDEV.to_owned(),
            text: udev(&kept.pfs),
        });
    }
    // The later one first: should a run end between the two, the earlier one finds what it names.
    for (unit, text) in [(POST, post(&kept.boot)?), (PRE, pre(&kept.boot)?)] {
        files.push(File {
            path: format!("{UNIT_DIR}/{unit}"),
            text,
        });
    }
    Ok(files)
}

/// Returns the links that switch the services on: path and target.
pub(crate) fn links() -> [(String, String); 2] {
    UNITS.map(|unit| (format!("{WANTS_DIR}/{unit}"), format!("{UNIT_DIR}/{unit}")))
}

fn marker(what: &str) -> String {
    format!("{MARKER} {what}; `virtfn apply --unpersist` removes it.\n")
}

/// Copies a file of policies behind the marker line.
///
/// The number keeps the order in which the files were given, and two of one name apart.
fn policy((at, policy): (usize, &StoredPolicy)) -> File {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let base = Path::new(&policy.source).file_stem();
    let base: String = base
        .and_then(|base| base.to_str())
        .unwrap_or("policy")
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(64)
        .collect();
    // Debug form: a source with a line break must not end the comment.
    let head = marker(&format!("copied from {:?}", policy.source));
    let text = policy.text.trim_start_matches('\u{feff}');
    File {
        path: format!("{POLICIES}/{:04}-{base}.yaml", at + 1),
        text: format!("{head}{text}"),
    }
}

fn modules(modules: &[ModuleName]) -> String {
    let mut text = marker("modules for VFs, loaded at boot");
    for module in modules {
        text.push_str(module.as_str());
        text.push('\n');
    }
    text
}

fn networkd() -> String {
    let head = marker("systemd-networkd leaves VFs alone");
    format!("{head}[Match]\nProperty=VIRTFN_VF=1\n\n[Link]\nUnmanaged=yes\n")
}

/// Rules that mark the VFs of each PF, for NetworkManager by its own property and for networkd by
/// one that the `.network` file matches.
///
/// A VF is told by the address in the `uevent` file of its PF, so no program is started for it. The
/// rules hold for every event but removal: a VF that comes back from a pod raises `move`, and the
/// properties of an event replace those of the event before.
fn udev(pfs: &[KeptPf]) -> String {
    let mut text = marker("NetworkManager and systemd-networkd leave VFs alone");
    text.push_str("SUBSYSTEM!=\"net\", GOTO=\"virtfn_end\"\n");
    text.push_str("ACTION==\"remove\", GOTO=\"virtfn_end\"\n");
    for pf in pfs {
        let name = pf.name.as_ref().map_or("no netdev", IfName::as_str);
        text.push_str(&format!(
            "\n# {name} at {address}\n\
             ATTR{{device/physfn/uevent}}==\"*PCI_SLOT_NAME={address}*\", \
             ENV{{VIRTFN_VF}}=\"1\", ENV{{NM_UNMANAGED}}=\"1\"\n",
            address = pf.address,
        ));
        if let (Some(name), Some(vfs)) = (&pf.name, pf.switchdev_vfs) {
            pin(&mut text, pf, name, vfs);
        }
    }
    text.push_str("\nLABEL=\"virtfn_end\"\n");
    text
}

/// Names the representors of a PF in switchdev mode after it, as upstream does, and the PF itself
/// as it was named when the policies were applied.
///
/// Both are on the PF's PCI device; only a representor has `pf` in its port name.
fn pin(text: &mut String, pf: &KeptPf, name: &IfName, vfs: u16) {
    let address = pf.address;
    for vf in 0..vfs {
        // A name that is too long for the kernel is left to systemd's own scheme.
        if let Ok(representor) = format!("{name}_{vf}").parse::<IfName>() {
            text.push_str(&format!(
                "ACTION==\"add|move\", KERNELS==\"{address}\", \
                 ATTR{{phys_port_name}}==\"pf*vf{vf}\", NAME=\"{representor}\"\n"
            ));
        }
    }
    text.push_str(&format!(
        "KERNELS==\"{address}\", ATTR{{phys_port_name}}==\"*pf*\", GOTO=\"virtfn_end\"\n"
    ));
    let port = pf.dev_port.map_or_else(String::new, |port| {
        format!("ATTR{{dev_port}}==\"{port}\", ")
    });
    text.push_str(&format!(
        "ACTION==\"add\", KERNELS==\"{address}\", DRIVERS==\"?*\", {port}NAME=\"{name}\"\n"
    ));
}

fn pre(boot: &BootApply) -> Result<String, PersistError> {
    let head = marker("applies the policies before the network comes up");
    let program = plain_path(&boot.program)?;
    let command = command(boot)?;
    Ok(format!(
        "{head}\
         # Start the kernel with virtfn=off to boot without it.\n\
         [Unit]\n\
         Description=SR-IOV virtual functions before the network\n\
         DefaultDependencies=no\n\
         ConditionKernelCommandLine=!virtfn=off\n\
         ConditionDirectoryNotEmpty={POLICIES}\n\
         RequiresMountsFor=/etc/virtfn /var/lib/virtfn {program}\n\
         Wants=network-pre.target systemd-udev-settle.service\n\
         After={PRE_AFTER}\n\
         Before={PRE_BEFORE}\n\
         Conflicts=shutdown.target\n\
         Before=shutdown.target\n\
         \n\
         {service}\
         {command}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        service = service(),
    ))
}

fn post(boot: &BootApply) -> Result<String, PersistError> {
    let head = marker("applies the policies again when the network is up");
    let program = plain_path(&boot.program)?;
    let command = command(boot)?;
    Ok(format!(
        "{head}\
         # Start the kernel with virtfn=off to boot without it.\n\
         [Unit]\n\
         Description=SR-IOV virtual functions after the network\n\
         ConditionKernelCommandLine=!virtfn=off\n\
         ConditionDirectoryNotEmpty={POLICIES}\n\
         RequiresMountsFor=/etc/virtfn /var/lib/virtfn {program}\n\
         Wants={PRE}\n\
         After={PRE} {POST_AFTER}\n\
         Before={POST_BEFORE}\n\
         \n\
         {service}\
         {command}\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        service = service(),
    ))
}

/// Without `RemainAfterExit` a later `systemctl isolate` would run it again.
fn service() -> String {
    format!(
        "[Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         TimeoutStartSec={START_LIMIT}\n\
         StandardOutput=journal+console\n"
    )
}

pub(crate) fn command(boot: &BootApply) -> Result<String, PersistError> {
    let mut line = format!(
        "ExecStart={} apply --file {POLICIES} --vf-settings {VF_SETTINGS}",
        plain_path(&boot.program)?
    );
    for (key, value) in &boot.node_labels {
        line.push_str(" --node-label ");
        line.push_str(&quoted(&format!("{key}={value}"))?);
    }
    if boot.allow_default_route {
        line.push_str(" --allow-default-route");
    }
    Ok(line)
}

/// Returns the path when systemd takes it as it is, in every place of a unit.
fn plain_path(path: &Path) -> Result<&str, PersistError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    path.to_str()
        .filter(|text| text.starts_with('/') && text.bytes().all(plain))
        .ok_or_else(|| not_for_unit(&path.to_string_lossy()))
}

/// Quotes an argument of `ExecStart` (systemd.service(5), "Command lines"): `%` and `$` stand for
/// themselves when doubled.
fn quoted(text: &str) -> Result<String, PersistError> {
    if text.chars().any(char::is_control) {
        return Err(not_for_unit(text));
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

fn not_for_unit(text: &str) -> PersistError {
    PersistError::NotForUnit {
        text: text.chars().take(200).collect(),
    }
}
