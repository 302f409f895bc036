//! `cargo xtask build`: the eBPF object first, then the binary that embeds it.
//!
//! The object lies at `target/bpf/mailguard.bpf.o`, where mailguard's build script looks for it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::process::{repository, run as run_process};
use crate::setup::{EbpfCompiler, choose_compiler};

/// What the target's compiler is told. The debug information becomes the object's BTF.
const EBPF_FLAGS: &[&str] = &["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Clink-arg=--btf"];

/// Options of `build`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the kernel part
    #[arg(long)]
    ebpf_only: bool,
    /// How the binary is built
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    profile: Profile,
}

/// A profile of the workspace's Cargo.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Quick to build, with checks: for tests
    Dev,
    /// Optimised: for measuring
    Release,
    /// Optimised across crates: for installing
    Dist,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Dev => "dev",
            Profile::Release => "release",
            Profile::Dist => "dist",
        }
    }
}

/// Builds both parts.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let object = ebpf()?;
    println!("build: {}", object.display());
    if !arguments.ebpf_only {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(repository()).args(["build", "--package", "mailguard"]);
        run_process(cargo.args(["--profile", arguments.profile.name()]))?;
    }
    Ok(())
}

/// Builds both parts for tests.
pub(crate) fn debug() -> anyhow::Result<()> {
    run(&Arguments { ebpf_only: false, profile: Profile::Dev })
}

/// Builds both parts optimised and returns the binary.
pub(crate) fn release() -> anyhow::Result<PathBuf> {
    run(&Arguments { ebpf_only: false, profile: Profile::Release })?;
    Ok(repository().join("target/release/mailguard"))
}

/// Builds both parts as they are installed.
pub(crate) fn dist() -> anyhow::Result<()> {
    run(&Arguments { ebpf_only: false, profile: Profile::Dist })
}

/// Builds one of the programs in tests/examples that measure a part of mailguard by itself, optimised, with
/// the object that [`ebpf`] made, and returns it.
pub(crate) fn example(name: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository()).args(["build", "--quiet", "--release", "--package", "mailguard-tests"]);
    run_process(cargo.args(["--example", name]))?;
    Ok(repository().join("target/release/examples").join(name))
}

/// Builds the eBPF object and returns where it lies.
pub(crate) fn ebpf() -> anyhow::Result<PathBuf> {
    let (compiler, _) = choose_compiler();
    let source = repository().join("mailguard-ebpf");
    run_process(&mut compiler_command(compiler, &source.into_os_string()))
        .context("the eBPF crate didn't build; is everything there? cargo xtask setup")?;
    let built = repository().join("mailguard-ebpf/target/bpfel-unknown-none/release/mailguard");
    let object = repository().join("target/bpf/mailguard.bpf.o");
    std::fs::create_dir_all(repository().join("target/bpf"))?;
    let fresh = std::fs::read(&built).with_context(|| format!("no object at {}", built.display()))?;
    // Left alone when nothing changed, so that cargo doesn't embed it anew.
    if std::fs::read(&object).ok().as_ref() != Some(&fresh) {
        std::fs::write(&object, fresh)?;
    }
    Ok(object)
}

fn compiler_command(compiler: EbpfCompiler, folder: &OsStr) -> Command {
    let mut cargo = match compiler {
        EbpfCompiler::RustupNightly => {
            let mut cargo = Command::new("rustup");
            cargo.args(["run", "nightly", "cargo"]);
            cargo
        }
        EbpfCompiler::Debian => {
            let mut cargo = Command::new("/usr/bin/cargo");
            cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            cargo
        }
    };
    cargo.current_dir(folder);
    // Whatever the caller or the cargo that runs us has set would reach the other target, and can cost the
    // BTF.
    for name in
        ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"]
    {
        cargo.env_remove(name);
    }
    if compiler == EbpfCompiler::RustupNightly {
        cargo.env_remove("RUSTC");
    }
    cargo.env_remove("RUSTC_WRAPPER").env_remove("CARGO");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", EBPF_FLAGS.join("\x1f"));
    cargo.args(["build", "--quiet", "--release", "--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    cargo
}
