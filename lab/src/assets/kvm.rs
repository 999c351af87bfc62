//! Whether KVM can be used.
//!
//! A `/dev/kvm` alone proves nothing: nested and paravirtual ones may give up in the middle of
//! a boot. So a kernel is booted as far as its panic for want of a root file system, once per
//! boot of the host.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Assets, write_atomic};
use crate::machine::{KillSwitch, Log, Process};

/// A kernel gets to its panic in two seconds with a working KVM.
const LIMIT: Duration = Duration::from_secs(15);

impl Assets {
    /// Whether this host's KVM boots this kernel; `VIRTFN_LAB_ACCEL=kvm` or `tcg` decides without trying.
    pub(crate) fn kvm_works(&self, say: &dyn Fn(&str)) -> bool {
        match std::env::var("VIRTFN_LAB_ACCEL").as_deref() {
            Ok("kvm") => return true,
            Ok("tcg") => return false,
            _ => {}
        }
        if fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return false;
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let answer = self.cache.path("kvm");
        let known = fs::read_to_string(&answer).unwrap_or_default();
        match known.split_once(' ') {
            Some((boot, works)) if boot == boot_id.trim() => return works.trim() == "works",
            _ => say("trying KVM"),
        }
        let works = self.boots_with_kvm().unwrap_or(false);
        if !works {
            say("KVM does not boot this kernel; machines are emulated, which is slower");
        }
        let text = format!(
            "{} {}\n",
            boot_id.trim(),
            if works { "works" } else { "fails" }
        );
        // Not kept, it is tried again.
        write_atomic(&answer, text.as_bytes(), 0o644).ok();
        works
    }

    fn boots_with_kvm(&self) -> Result<bool> {
        let mut command = Command::new(&self.leash);
        command
            .arg("leash")
            .arg(std::process::id().to_string())
            .arg(&self.qemu.program);
        command.args(self.qemu.firmware_args());
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ]);
        command.args([
            "-machine",
            "q35,kernel-irqchip=split",
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-smp",
            "2",
            "-m",
            "256M",
        ]);
        command
            .arg("-kernel")
            .arg(&self.kernel.image)
            .args(["-append", "console=ttyS0 panic=-1"]);
        if let Some(libraries) = self.qemu.library_path() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let process = Process::start(
            "kvm",
            command,
            Vec::new(),
            Log::default(),
            &KillSwitch::default(),
        )?;
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if process.await_end(Duration::from_millis(100)) {
                return Ok(process.serial().tail(200).contains("Kernel panic"));
            }
            // QEMU stops the machine then, and waits for a debugger that never comes.
            if process.errors().tail(200).contains("KVM internal error") {
                break;
            }
        }
        Ok(false)
    }
}
