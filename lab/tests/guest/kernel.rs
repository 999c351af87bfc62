//! What the kernel lacks: arguments are named, written when that is asked for, and a reboot is asked
//! for a bounded number of times. The machine has all it needs, so what it lacks is played by mounts.

use std::fs;
use std::process::Command;

use crate::support::*;

/// Files that stand where others are, for as long as the value lives.
struct Played(Vec<&'static str>);

impl Played {
    /// A machine whose firmware has an IOMMU that the kernel was not told to use, and Debian's grub.
    fn without_iommu() -> Self {
        let mut played = Self(Vec::new());
        for dir in ["/sys/kernel/iommu_groups", "/sys/class/iommu"] {
            run("mount", &["-t", "tmpfs", "tmpfs", dir]);
            played.0.push(dir);
        }
        played.file("/proc/cmdline", "root=/dev/sda1 ro quiet\n");
        for dir in ["/etc/default", "/boot/grub"] {
            fs::create_dir_all(dir).expect("a directory can be made");
        }
        let script = "#!/bin/sh\n. /etc/default/grub\n\
            printf \"menuentry 'x' {\\n\\tlinux\\t/vmlinuz ro $GRUB_CMDLINE_LINUX\\n}\\n\" \
            > /boot/grub/grub.cfg\n";
        fs::write("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"quiet\"\n").expect("/etc is writable");
        fs::write("/usr/sbin/update-grub", script).expect("/usr is writable");
        run("chmod", &["755", "/usr/sbin/update-grub"]);
        run("update-grub", &[]);
        played
    }

    fn file(&mut self, path: &'static str, content: &str) {
        let stands_in = format!("/tmp/played-{}", self.0.len());
        fs::write(&stands_in, content).expect("/tmp is writable");
        run("mount", &["--bind", &stands_in, path]);
        self.0.push(path);
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _gone = Command::new("umount").arg(path).output();
        }
    }
}

#[test]
fn kernel_arguments_are_written_when_asked_for_and_never_for_ever() {
    let machine = Machine::fresh();
    let file = write_policy(&policy("user", PF0, 2, "vfio-pci"));
    let mut played = Played::without_iommu();
    let plan = virtfn(&["plan", "--check", "-f", &file]).ended(3).stdout();
    assert!(
        plan.contains("intel_iommu=on   needed") && plan.contains("iommu=pt"),
        "{plan}"
    );
    let status = virtfn(&["status", "--check", "-f", &file])
        .ended(3)
        .stdout();
    assert!(
        status.contains("needed for kernel arguments intel_iommu=on"),
        "{status}"
    );
    let arguments = ["apply", "-f", file.as_str()];
    virtfn(&arguments).refused(
        1,
        &["error[reboot-needed]", "--kernel-args", "after a reboot"],
    );
    assert_eq!(num_vfs(PF0), "2", "what needs no reboot was not done");
    let grub = || fs::read_to_string("/etc/default/grub").expect("it was written above");
    assert!(!grub().contains("intel_iommu"), "{}", grub());

    let with = ["apply", "--kernel-args", "-f", file.as_str()];
    let written = virtfn(&with).refused(3, &["intel_iommu=on written", "a reboot is needed"]);
    assert!(!written.stderr().contains("error["), "{}", written.stderr());
    assert!(grub().contains("intel_iommu=on iommu=pt"), "{}", grub());
    let made = fs::read_to_string("/boot/grub/grub.cfg").expect("update-grub made it");
    assert!(made.contains("intel_iommu=on"), "{made}");
    virtfn(&with).refused(3, &["a reboot is needed"]);

    // Reboots that do not bring the argument: after the second one it is given up.
    let boot = |number| format!("{number:08}-0000-4000-8000-000000000000\n");
    played.file("/proc/sys/kernel/random/boot_id", &boot(1));
    virtfn(&with).ended(3);
    played.file("/proc/sys/kernel/random/boot_id", &boot(2));
    virtfn(&with).refused(1, &["error[reboot-budget-spent]", "intel_iommu=on"]);
    drop(played);

    // The next boot has it.
    virtfn(&arguments).ok();
    assert_eq!(machine.vf(VF1)["driver"], "vfio-pci");
    virtfn(&["plan", "--check", "-f", &file]).ok();
}
