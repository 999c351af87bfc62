//! From the initramfs to a system that looks like the host.
//!
//! ```text
//! initramfs: /modules/FILE.ko /modules/order
//!   /host   9p of the host's /, read-only
//!   /tools  9p of a tree of tools that the host lacks, read-only; /services likewise
//!   /rw     tmpfs, or the machine's disk, for everything that is written
//!   /root   overlay of the three, becomes /
//! ```
//!
//! The host says over the port what to mount, so one initramfs serves every machine.
//! Device drivers load in a thread of their own while the file systems are mounted: an igb
//! takes longer to probe than all mounts together.

use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_move,
};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, sendto,
    socket_with,
};
use rustix::process::WaitOptions;
use rustix::system::RebootCommand;

use crate::proto::{Config, Frame, Kind, PORT};
use crate::systemd;

/// Fresh in every machine, so that state of the host's own services does not leak in, and
/// container engines find a file system that may carry overlays.
const FRESH: &[&str] = &["cni", "containerd", "docker", "kubelet", "virtfn"];

/// How long the port may take to get its name: milliseconds, but every device of a loaded host is
/// emulated slowly.
const PORT_DEADLINE: Duration = Duration::from_secs(20);

/// Boots, serves, and powers off. Never returns.
pub(crate) fn run() -> ! {
    if let Err(error) = live() {
        say(&format!("boot failed: {error}"));
    }
    power_off();
    // Should power-off be refused, ending process 1 panics the kernel, and that ends QEMU too.
    std::process::exit(1)
}

/// Powers off, with all that was written on its disk.
pub(crate) fn power_off() {
    rustix::fs::sync();
    rustix::system::reboot(RebootCommand::PowerOff).ok();
}

fn live() -> io::Result<()> {
    kernel_file_systems()?;
    let mut port = open_port()?;
    let booted = boot(&mut port);
    if let Err(error) = &booted {
        Frame::new(Kind::Failed, 0, error.to_string()).write_to(&mut port)?;
        // The reason is under way until the host has read it and closes the port.
        Frame::read_from(&mut port).ok();
    }
    let config = booted?;
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    Frame::new(
        Kind::Ready,
        0,
        uptime.split_whitespace().next().unwrap_or_default(),
    )
    .write_to(&mut port)?;
    let server = Command::new("/proc/self/exe")
        .args(["serve", if config.forget { "forget" } else { "keep" }])
        // Nobody powers off for it when process 1 is another program.
        .args(config.systemd.then_some("alone"))
        .stdin(Stdio::from(port))
        .spawn()?;
    if config.systemd {
        // The server stays its child, which it does not know and leaves alone until shutdown.
        let error = Command::new(systemd::PROGRAM).env_clear().exec();
        return Err(io::Error::other(format!("become systemd: {error}")));
    }
    reap_until(server.id())
}

fn kernel_file_systems() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for (kind, target, flags, options) in [
        ("proc", "/proc", flags, None),
        ("sysfs", "/sys", flags, None),
        ("devtmpfs", "/dev", MountFlags::NOSUID, Some(c"mode=0755")),
    ] {
        mount_as(kind, target, flags, options)?;
    }
    Ok(())
}

/// Opens the port by the name that QEMU gave it, which the driver learns some time after it found
/// the device, and then tells in an event.
fn open_port() -> io::Result<File> {
    let events = device_events()?;
    let deadline = Instant::now() + PORT_DEADLINE;
    loop {
        if let Some(device) = port_device() {
            return OpenOptions::new().read(true).write(true).open(device);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&left))? == 0 {
            let problem = format!("no virtio port is named {PORT}");
            return Err(io::Error::other(problem));
        }
        // What it says does not matter; an overrun is one more reason to look again.
        recv(&events, &mut [0_u8; 4096], RecvFlags::DONTWAIT).ok();
    }
}

fn port_device() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let port = ports.flatten().find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT)
    })?;
    Some(Path::new("/dev").join(port.file_name()))
}

/// Hears of devices from now on.
fn device_events() -> io::Result<OwnedFd> {
    let events = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    // Group 1 is the kernel's own voice.
    bind(&events, &SocketAddrNetlink::new(0, 1))?;
    Ok(events)
}

fn boot(port: &mut File) -> io::Result<Config> {
    let frame = Frame::read_from(port)?.filter(|frame| frame.kind == Kind::Config);
    let config = frame.and_then(|frame| Config::decode(&frame.payload));
    let config = config.ok_or_else(|| io::Error::other("first frame is no configuration"))?;
    for module in ["9p", "9pnet_virtio", "overlay"] {
        load(&images(module)?)?;
    }
    // Read now: the thread's root changes with everybody's.
    let drivers = config
        .load
        .iter()
        .map(|module| images(module))
        .collect::<io::Result<Vec<_>>>()?
        .concat();
    let drivers = thread::spawn(move || load(&drivers));
    loopback_up()?;
    rustix::system::sethostname(config.hostname.as_bytes())?;
    root_file_system(&config)?;
    enter_root()?;
    dress(&config)?;
    let loaded = drivers.join();
    loaded.map_err(|_| io::Error::other("thread that loads drivers died"))??;
    Ok(config)
}

/// A module in memory: its name and image.
type Image = (String, Vec<u8>);

/// Reads a module and what it needs, in the order of loading.
///
/// `/modules/order` says what that is, one line `NAME: FILE…`; the line of a module that is built
/// into the kernel names no file.
fn images(module: &str) -> io::Result<Vec<Image>> {
    let order = fs::read_to_string("/modules/order")?;
    let files = order
        .lines()
        .find_map(|line| line.strip_prefix(module)?.strip_prefix(':'));
    let files = files
        .ok_or_else(|| io::Error::other(format!("module {module} is not in the initramfs")))?;
    files
        .split_whitespace()
        .map(|name| Ok((name.to_owned(), fs::read(format!("/modules/{name}"))?)))
        .collect()
}

fn load(images: &[Image]) -> io::Result<()> {
    for (name, image) in images {
        match rustix::system::init_module(image, c"") {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(io::Error::other(format!("load module {name}: {error}"))),
        }
    }
    Ok(())
}

fn root_file_system(config: &Config) -> io::Result<()> {
    mount_9p("host")?;
    if config.keep {
        mount_disk()?;
    } else {
        mount_as("tmpfs", "/rw", MountFlags::empty(), Some(c"mode=0755"))?;
    }
    make("/rw/upper")?;
    make("/rw/work")?;
    if config.systemd {
        systemd::hide_configuration(Path::new("/rw/upper"))?;
    }
    let mut layers = String::from("lowerdir=/host");
    for (name, is_there) in [("tools", config.tools), ("services", config.services)] {
        if is_there {
            mount_9p(name)?;
            layers.push_str(&format!(":/{name}"));
        }
    }
    layers.push_str(",upperdir=/rw/upper,workdir=/rw/work,xino=off");
    if !config.keep {
        // It refuses a second boot, and is quicker.
        layers.push_str(",volatile");
    }
    let layers = CString::new(layers)?;
    mount_as("overlay", "/root", MountFlags::empty(), Some(&layers))?;
    if config.keep {
        // As the tmpfs of a machine that keeps nothing: no overlay, and nothing of the host's.
        for name in FRESH {
            let (kept, target) = (format!("/rw/kept/{name}"), format!("/root/var/lib/{name}"));
            make(&kept)?;
            make(&target)?;
            mount_bind(&kept, &target).map_err(doing(&format!("bind {kept} to {target}")))?;
        }
    }
    Ok(())
}

/// Mounts the machine's disk, the only one that it has.
fn mount_disk() -> io::Result<()> {
    load(&images("virtio_blk")?)?;
    // Not in every kernel: see where the initramfs is built.
    if let Ok(images) = images("crc32c_generic") {
        load(&images)?;
    }
    load(&images("ext4")?)?;
    make("/rw")?;
    mount("/dev/vda", "/rw", "ext4", MountFlags::NOATIME, None)
        .map_err(doing("mount the machine's disk"))
}

/// Mounts files of the host, cached for good: see `forget_host` for those that change.
fn mount_9p(name: &str) -> io::Result<()> {
    // Big messages: under emulation each round trip costs more than its bytes.
    let options = c"trans=virtio,version=9p2000.L,msize=512000,access=any,cache=loose";
    let target = format!("/{name}");
    make(&target)?;
    mount(name, &target, "9p", MountFlags::RDONLY, options)
        .map_err(doing(&format!("mount the files of {name}")))
}

fn enter_root() -> io::Result<()> {
    for name in ["proc", "sys", "dev"] {
        let target = format!("/root/{name}");
        make(&target)?;
        mount_move(format!("/{name}"), &target).map_err(doing(&format!("move /{name}")))?;
    }
    std::env::set_current_dir("/root")?;
    mount_move(".", "/").map_err(doing("move the root"))?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    // As systemd does; container engines and `ip netns` count on it.
    mount_change(
        "/",
        MountPropagationFlags::SHARED | MountPropagationFlags::REC,
    )?;
    Ok(())
}

fn dress(config: &Config) -> io::Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    let strict = quiet | MountFlags::NOEXEC;
    mount_as("tmpfs", "/run", quiet, Some(c"mode=0755"))?;
    mount_as(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"mode=0620,ptmxmode=0666,gid=5"),
    )?;
    mount_as("tmpfs", "/dev/shm", quiet, Some(c"mode=1777"))?;
    mount_as("cgroup2", "/sys/fs/cgroup", strict, None)?;
    // Kernels built without one of these are fine.
    for (kind, target) in [
        ("mqueue", "/dev/mqueue"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        ("securityfs", "/sys/kernel/security"),
        ("configfs", "/sys/kernel/config"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        mount_as(kind, target, strict, None).ok();
    }
    for name in FRESH.iter().filter(|_| !config.keep) {
        mount_as(
            "tmpfs",
            &format!("/var/lib/{name}"),
            MountFlags::empty(),
            Some(c"mode=0755"),
        )?;
    }
    for (link, target) in [
        ("fd", ""),
        ("stdin", "/0"),
        ("stdout", "/1"),
        ("stderr", "/2"),
    ] {
        std::os::unix::fs::symlink(format!("/proc/self/fd{target}"), format!("/dev/{link}")).ok();
    }
    for name in ["/run/lock", "/run/netns", "/run/user"] {
        make(name)?;
    }
    let release = rustix::system::uname();
    let modules = format!("/lib/modules/{}", release.release().to_string_lossy());
    make(&modules)?;
    mount_bind(&config.modules, &modules)
        .map_err(doing(&format!("bind {} to {modules}", config.modules)))?;
    fs::write("/etc/hostname", format!("{}\n", config.hostname))?;
    fs::write(
        "/etc/hosts",
        format!(
            "127.0.0.1 localhost {0}\n::1 localhost {0}\n",
            config.hostname
        ),
    )
}

/// Sets interface 1 up: one netlink message, so that no tool is needed.
fn loopback_up() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST: u16 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port
    message.extend([0; 4]); // family and type
    message.extend(1i32.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes()); // flags
    message.extend(IFF_UP.to_ne_bytes()); // which of them count
    let socket: OwnedFd = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sendto(
        &socket,
        &message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    Ok(())
}

/// Waits for whoever ends, until `server` does.
fn reap_until(server: u32) -> io::Result<()> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get().unsigned_abs() == server => {
                return Ok(());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn mount_as(kind: &str, target: &str, flags: MountFlags, options: Option<&CStr>) -> io::Result<()> {
    make(target)?;
    mount(kind, target, kind, flags, options).map_err(doing(&format!("mount {kind} on {target}")))
}

fn make(directory: &str) -> io::Result<()> {
    fs::create_dir_all(directory)
        .map_err(|error| io::Error::new(error.kind(), format!("make {directory}: {error}")))
}

fn doing(what: &str) -> impl FnOnce(rustix::io::Errno) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

/// Writes to the kernel log, which reaches the serial log.
fn say(text: &str) {
    let log = OpenOptions::new().write(true).open("/dev/kmsg");
    match log.and_then(|mut log| writeln!(log, "lab: {text}")) {
        Ok(()) => {}
        Err(_) => drop(writeln!(io::stderr(), "lab: {text}")),
    }
}
