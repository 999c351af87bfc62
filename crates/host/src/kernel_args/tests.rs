use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::path::Path;

use model::RebootReason;
use policy::kernel::{CpuMaker, ModuleState};

use super::*;
use crate::program::ProgramFault;

mod editor;

fn arguments(text: &str) -> Vec<KernelArgument> {
    text.split(' ').map(|word| word.parse().unwrap()).collect()
}

/// A host of files; a text of `x` is an executable that nobody runs.
fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, HostRoot) {
    let temp = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let file = temp.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let root = HostRoot::open(temp.path()).unwrap();
    (temp, root)
}

type Act<'a> = Box<dyn FnMut() -> Result<String, &'static str> + 'a>;

/// Plays the programs of a host: what each call must be, and what it answers or does.
struct Play<'a> {
    script: VecDeque<(&'a str, Act<'a>)>,
}

impl<'a> Play<'a> {
    fn new() -> Self {
        Self {
            script: VecDeque::new(),
        }
    }

    fn then(mut self, call: &'a str, answer: impl Into<String>) -> Self {
        let answer = answer.into();
        self.script
            .push_back((call, Box::new(move || Ok(answer.clone()))));
        self
    }

    fn doing(
        mut self,
        call: &'a str,
        act: impl FnMut() -> Result<String, &'static str> + 'a,
    ) -> Self {
        self.script.push_back((call, Box::new(act)));
        self
    }
}

impl Programs for Play<'_> {
    fn run(&mut self, call: &Call<'_>) -> Result<Vec<u8>, ProgramError> {
        let words: Vec<&str> = std::iter::once(call.program)
            .chain(call.arguments.iter().copied())
            .collect();
        let (expected, mut act) = self
            .script
            .pop_front()
            .expect("a call that was not expected");
        assert_eq!(words.join(" | "), expected);
        act().map(String::into_bytes).map_err(|_| ProgramError {
            command: expected.to_owned(),
            fault: ProgramFault::Late(call.deadline),
        })
    }
}

impl Drop for Play<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(
                self.script.is_empty(),
                "{} calls were not made",
                self.script.len()
            );
        }
    }
}

#[test]
fn grubby_gets_what_any_kernel_lacks_and_is_asked_again() {
    let (_temp, root) = host(&[("/usr/sbin/grubby", "x"), ("/etc/default/grub", "")]);
    let before = "index=0\nargs=\"ro quiet intel_iommu=on\"\nindex=1\nargs=\"ro\"\n";
    let after = "args=\"ro intel_iommu=on iommu=pt\"\nargs=\"ro intel_iommu=on iommu=pt\"\n";
    let mut play = Play::new()
        .then("/usr/sbin/grubby | --info=ALL", before)
        .then(
            "/usr/sbin/grubby | --update-kernel=ALL | --args=intel_iommu=on iommu=pt",
            "",
        )
        .then("/usr/sbin/grubby | --info=ALL", after)
        .then("/usr/sbin/grubby | --info=ALL", after);
    let wanted = arguments("intel_iommu=on iommu=pt");
    let written = write_kernel_arguments(&root, &wanted, &mut play).unwrap();
    assert_eq!(written.added, wanted);
    let again = write_kernel_arguments(&root, &wanted, &mut play).unwrap();
    assert_eq!(again.added, []);
}

#[test]
fn rpm_ostree_wins_where_it_booted() {
    let (_temp, root) = host(&[
        ("/usr/bin/rpm-ostree", "x"),
        ("/usr/sbin/grubby", "x"),
        ("/run/ostree-booted", ""),
    ]);
    let mut play = Play::new()
        .then("/usr/bin/rpm-ostree | kargs", "ro quiet\n")
        .then(
            "/usr/bin/rpm-ostree | kargs | --append-if-missing=pci=realloc",
            "",
        )
        .then("/usr/bin/rpm-ostree | kargs", "ro quiet\n");
    let error = write_kernel_arguments(&root, &arguments("pci=realloc"), &mut play).unwrap_err();
    assert_eq!(error.code().as_str(), "kernel-argument-not-taken");
}

#[test]
fn what_somebody_wrote_is_not_overruled() {
    let (_temp, root) = host(&[("/usr/sbin/grubby", "x")]);
    let mut play = Play::new().then(
        "/usr/sbin/grubby | --info=ALL",
        "args=\"intel_iommu=off\"\n",
    );
    let error = write_kernel_arguments(&root, &arguments("intel_iommu=on"), &mut play).unwrap_err();
    assert_eq!(error.code().as_str(), "kernel-argument-contradicted");
}

#[test]
fn an_unknown_boot_loader_gets_advice_only() {
    for files in [
        &[("/etc/hostname", "")][..],
        // An image-based host whose grubby would be overwritten.
        &[("/run/ostree-booted", ""), ("/usr/sbin/grubby", "x")][..],
        // Nothing makes a grub.cfg of it.
        &[("/etc/default/grub", "")][..],
    ] {
        let (_temp, root) = host(files);
        let error = write_kernel_arguments(&root, &arguments("iommu=pt"), &mut Play::new());
        let error = error.unwrap_err();
        assert_eq!(error.code().as_str(), "boot-loader-unknown");
        assert!(error.remedy().unwrap().contains("`iommu=pt`"));
    }
}

const GRUB: &str = "# mine\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n";
const MADE: &str = "menuentry 'x' {\n\tlinux\t/vmlinuz root=UUID=1 ro quiet\n}\n";

/// A Debian host.
fn debian() -> (tempfile::TempDir, HostRoot) {
    host(&[
        ("/usr/sbin/update-grub", "x"),
        ("/etc/default/grub", GRUB),
        ("/boot/grub/grub.cfg", MADE),
    ])
}

fn read(host: &Path, path: &str) -> String {
    std::fs::read_to_string(host.join(path)).unwrap()
}

#[test]
fn debian_s_file_is_edited_and_grub_cfg_made() {
    let (temp, root) = debian();
    let made = temp.path().join("boot/grub/grub.cfg");
    let update = || {
        std::fs::write(&made, MADE.replace("quiet", "intel_iommu=on quiet")).unwrap();
        Ok(String::new())
    };
    let mut play = Play::new().doing("/usr/sbin/update-grub", update);
    let wanted = arguments("intel_iommu=on");
    let written = write_kernel_arguments(&root, &wanted, &mut play).unwrap();
    assert_eq!(written.added, wanted);
    assert_eq!(
        read(temp.path(), "etc/default/grub"),
        GRUB.replace("LINUX=\"\"", "LINUX=\"intel_iommu=on\"")
    );
    // All is there: no program is run.
    let again = write_kernel_arguments(&root, &wanted, &mut play).unwrap();
    assert_eq!(again.added, []);
}

#[test]
fn where_there_is_no_update_grub_grub_cfg_is_made_where_it_is() {
    for (program, config) in [
        ("/usr/sbin/grub2-mkconfig", "/boot/grub2/grub.cfg"),
        ("/usr/bin/grub-mkconfig", "/boot/grub/grub.cfg"),
    ] {
        let files = [(program, "x"), ("/etc/default/grub", GRUB), (config, MADE)];
        let (temp, root) = host(&files);
        let made = temp.path().join(config.trim_start_matches('/'));
        let update = || {
            std::fs::write(&made, MADE.replace("quiet", "intel_iommu=on quiet")).unwrap();
            Ok(String::new())
        };
        let call = format!("{program} | -o | {config}");
        let mut play = Play::new().doing(&call, update);
        let wanted = arguments("intel_iommu=on");
        let written = write_kernel_arguments(&root, &wanted, &mut play).unwrap();
        assert_eq!(written.added, wanted, "{call}");
    }
}

#[test]
fn a_run_killed_before_grub_cfg_was_made_is_completed() {
    let (temp, root) = debian();
    let edited = GRUB.replace("LINUX=\"\"", "LINUX=\"intel_iommu=on\"");
    std::fs::write(temp.path().join("etc/default/grub"), &edited).unwrap();
    let made = temp.path().join("boot/grub/grub.cfg");
    let update = || {
        std::fs::write(&made, MADE.replace("quiet", "intel_iommu=on quiet")).unwrap();
        Ok(String::new())
    };
    let mut play = Play::new().doing("/usr/sbin/update-grub", update);
    write_kernel_arguments(&root, &arguments("intel_iommu=on"), &mut play).unwrap();
    assert_eq!(read(temp.path(), "etc/default/grub"), edited);
}

#[test]
fn a_failing_update_leaves_the_file_as_it_was() {
    for answer in [Err("late"), Ok(String::new())] {
        let (temp, root) = debian();
        let mut play = Play::new().doing("/usr/sbin/update-grub", || answer.clone());
        let error =
            write_kernel_arguments(&root, &arguments("intel_iommu=on"), &mut play).unwrap_err();
        let code = error.code();
        assert!(["program-too-slow", "kernel-argument-not-taken"].contains(&code.as_str()));
        assert_eq!(read(temp.path(), "etc/default/grub"), GRUB);
    }
}

#[test]
fn a_file_that_is_not_understood_is_not_changed() {
    for (path, text, code) in [
        (
            "/etc/default/grub",
            "if true; then\nGRUB_CMDLINE_LINUX=x\nfi\n",
            "grub-file-not-understood",
        ),
        (
            "/etc/default/grub",
            "GRUB_CMDLINE_LINUX=\"x\n",
            "grub-file-not-understood",
        ),
        (
            "/etc/default/grub",
            "GRUB_CMDLINE_LINUX=\"intel_iommu=off\"\n",
            "kernel-argument-contradicted",
        ),
        // Sets the variable anew after the file.
        (
            "/etc/default/grub.d/50-cloud.cfg",
            "GRUB_CMDLINE_LINUX=\"console=ttyS0\"\n",
            "kernel-argument-not-taken",
        ),
        (
            "/etc/default/grub.d/50-cloud.cfg",
            "eval GRUB_CMDLINE_LINUX=x\n",
            "grub-file-not-understood",
        ),
    ] {
        let (temp, root) = debian();
        let file = temp.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        let before = read(temp.path(), "etc/default/grub");
        let error = write_kernel_arguments(&root, &arguments("intel_iommu=on"), &mut Play::new());
        let error = error.unwrap_err();
        assert_eq!(error.code().as_str(), code, "{text}");
        assert!(error.remedy().is_some());
        assert_eq!(read(temp.path(), "etc/default/grub"), before);
    }
}

#[test]
fn a_drop_in_that_adds_is_fine() {
    let (temp, root) = debian();
    std::fs::create_dir(temp.path().join("etc/default/grub.d")).unwrap();
    std::fs::write(
        temp.path().join("etc/default/grub.d/kdump.cfg"),
        "GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=384M intel_iommu=on\"\n",
    )
    .unwrap();
    std::fs::write(
        temp.path().join("boot/grub/grub.cfg"),
        MADE.replace("quiet", "quiet intel_iommu=on"),
    )
    .unwrap();
    let written =
        write_kernel_arguments(&root, &arguments("intel_iommu=on"), &mut Play::new()).unwrap();
    assert_eq!(written.added, []);
}

#[test]
fn facts_are_read_from_a_host() {
    let (_temp, root) = host(&[
        (
            "/proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\n",
        ),
        ("/proc/cmdline", "ro quiet  intel_iommu=on\n"),
        ("/proc/sys/kernel/osrelease", "6.12.1\n"),
        ("/sys/firmware/acpi/tables/DMAR", ""),
        ("/sys/class/iommu/dmar0/x", ""),
        ("/sys/kernel/iommu_groups/0/type", "DMA-FQ\n"),
        ("/sys/kernel/iommu_groups/1/type", "identity\n"),
        ("/sys/module/vhost_vdpa/initstate", "live\n"),
        ("/sys/module/pci_stub/parameters/ids", ""),
        (
            "/lib/modules/6.12.1/modules.dep",
            "kernel/drivers/vfio/pci/vfio-pci.ko.xz: x\nkernel/a/igb_uio.ko:\n",
        ),
        (
            "/lib/modules/6.12.1/modules.builtin",
            "kernel/drivers/x/mlx5_vfio_pci.ko\n",
        ),
        (
            "/etc/modprobe.d/a.conf",
            "blacklist vfio-pci\ninstall igb-uio /bin/false\n",
        ),
    ]);
    let names = [
        "vfio-pci",
        "vhost_vdpa",
        "pci-stub",
        "igb_uio",
        "mlx5_vfio_pci",
        "absent",
    ];
    let modules: BTreeSet<_> = names.iter().map(|name| name.parse().unwrap()).collect();
    let facts = kernel_facts(&root, &modules);
    assert_eq!(facts.cpu, CpuMaker::Intel);
    assert!(facts.has_iommu() && facts.tables.unwrap().dmar);
    assert_eq!(
        (facts.iommus, facts.iommu_groups, facts.bypassed),
        (1, 2, Some(true))
    );
    assert_eq!(facts.command_line, ["ro", "quiet", "intel_iommu=on"]);
    let states: Vec<String> = facts
        .modules
        .iter()
        .map(|(m, s)| format!("{m} {s:?}"))
        .collect();
    assert_eq!(
        states,
        [
            "absent Absent",
            "igb_uio Blocked",
            "mlx5_vfio_pci BuiltIn",
            "pci_stub BuiltIn",
            "vfio_pci Available",
            "vhost_vdpa Loaded",
        ]
    );
    let (_temp, empty) = host(&[]);
    let facts = kernel_facts(&empty, &modules);
    assert_eq!(facts.tables, None);
    assert!(
        facts
            .modules
            .values()
            .all(|state| *state == ModuleState::Absent)
    );
}

#[test]
fn reboots_are_counted_across_boots_and_damage_is_set_aside() {
    let (temp, root) = host(&[
        ("/proc/sys/kernel/random/boot_id", "boot-1\n"),
        ("/var/lib/x", ""),
    ]);
    let boot = |id: &str| {
        std::fs::write(temp.path().join("proc/sys/kernel/random/boot_id"), id).unwrap();
    };
    let reason = RebootReason::KernelArguments(vec!["intel_iommu=on".to_owned()]);
    let ask = || RebootLog::open(&root).unwrap().ask(&reason);
    for id in ["boot-1", "boot-1", "boot-2"] {
        boot(id);
        ask().unwrap();
    }
    let asked = asked_reboots(&root).unwrap();
    assert_eq!(asked.pending, ["kernel argument intel_iommu=on"]);
    boot("boot-3");
    let asked = asked_reboots(&root).unwrap();
    assert_eq!(asked.pending, [""; 0]);
    assert_eq!(
        asked.unsettled,
        [("kernel argument intel_iommu=on".to_owned(), 2)]
    );
    assert_eq!(ask().unwrap_err().code().as_str(), "reboot-budget-spent");
    RebootLog::open(&root).unwrap().settle().unwrap();
    ask().unwrap();

    let file = temp.path().join("var/lib/virtfn/reboots.json");
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap()
        .write_all(b"}")
        .unwrap();
    assert!(asked_reboots(&root).unwrap().is_damaged);
    assert!(file.exists(), "looking moves nothing");
    assert!(RebootLog::open(&root).unwrap().was_damaged);
    assert!(
        temp.path()
            .join("var/lib/virtfn/reboots.json.damaged")
            .exists()
    );
    assert!(!RebootLog::open(&root).unwrap().was_damaged);
}
