//! Builds the machine's init, a static binary, to be embedded in `virtfn-lab`.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() -> Result<(), Box<dyn Error>> {
    for path in [
        "init/src",
        "init/Cargo.toml",
        "init/Cargo.lock",
        "src/proto.rs",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    // A directory of its own: the outer cargo holds the lock of the other one.
    let target_dir = PathBuf::from(env::var("OUT_DIR")?).join("init");
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            "init/Cargo.toml",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // Set for the outer build: clippy's wrapper would check instead of build.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_TARGET_DIR");
    if !cargo.status()?.success() {
        return Err(
            "build of lab/init failed (its messages are above); it needs the static C library, \
             in Debian the package libc6-dev"
                .into(),
        );
    }
    let init = target_dir.join(TARGET).join("release/lab-init");
    println!("cargo::rustc-env=LAB_INIT={}", init.display());
    Ok(())
}
