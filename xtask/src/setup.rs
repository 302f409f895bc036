//! `cargo xtask setup`: installs what building and testing need, and only that.
//!
//! Idempotent and quick when everything is there. Every package that the project needs on a machine is named
//! here and nowhere else. The eBPF crate is compiled with its own standard library sources: a rustup nightly with
//! `rust-src` serves, else Debian's rustc-web with rust-web-src, which match each other.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::process::{self, on_path, output_of};

/// Debian packages of the tests, the demonstration and the benchmarks.
const TEST_PACKAGES: &[&str] = &[
    "dovecot-imapd",
    "fail2ban",
    "iproute2",
    "iptables",
    "libio-socket-inet6-perl",
    "libnet-ssleay-perl",
    "nftables",
    "postfix",
    "swaks",
    "tcpdump",
    "unbound",
    "util-linux",
];
/// Debian packages of the virtual machine of `cargo xtask vm`, beside the kernel, which isn't installed.
const VM_PACKAGES: &[&str] = &["busybox-static", "cpio", "kmod", "procps", "qemu-system-x86", "xz-utils"];
/// Debian packages that bpf-linker is built with.
const LINKER_PACKAGES: &[&str] =
    &["build-essential", "libpolly-22-dev", "libxml2-dev", "libzstd-dev", "llvm-22-dev", "zlib1g-dev"];
/// Debian packages of the eBPF compiler, where there is no rustup nightly with sources.
const COMPILER_PACKAGES: &[&str] = &["cargo-web", "rust-web-src", "rustc-web"];

/// Where Debian's LLVM lies, for bpf-linker's build.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The LLVM that bpf-linker is built with; it cannot read the bitcode of a later one.
const LLVM_MAJOR: u32 = 22;
const BPF_LINKER_VERSION: &str = "0.13.0";

/// Cargo tools of `cargo xtask ci` and `test`: program, crate.
const CARGO_TOOLS: &[(&str, &str)] =
    &[("cargo-nextest", "cargo-nextest"), ("cargo-deny", "cargo-deny"), ("cargo-fuzz", "cargo-fuzz")];

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what `cargo xtask build` needs
    #[arg(long)]
    build_only: bool,
}

/// The compiler of the eBPF crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EbpfCompiler {
    /// `cargo +nightly`, with the component rust-src.
    RustupNightly,
    /// Debian's rustc-web and cargo-web.
    Debian,
}

/// Installs what is missing.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let build_only = arguments.build_only;
    let (compiler, reason) = choose_compiler();
    println!("setup: eBPF compiler: {reason}");
    let mut packages = LINKER_PACKAGES.to_vec();
    if compiler == EbpfCompiler::Debian {
        packages.extend(COMPILER_PACKAGES);
    }
    if !build_only {
        packages.extend(TEST_PACKAGES);
        packages.extend(VM_PACKAGES);
    }
    install_packages(&packages)?;
    install_bpf_linker()?;
    if !build_only {
        for (program, name) in CARGO_TOOLS {
            install_cargo_tool(program, name)?;
        }
    }
    println!("setup: everything is there");
    Ok(())
}

/// Installs everything that building and testing need.
pub(crate) fn everything() -> anyhow::Result<()> {
    run(&Arguments { build_only: false })
}

/// Which compiler builds the eBPF crate on this machine, and why.
pub(crate) fn choose_compiler() -> (EbpfCompiler, String) {
    let sysroot = output_of(Command::new("rustc").args(["+nightly", "--print", "sysroot"]));
    let Some(sysroot) = sysroot else {
        return (EbpfCompiler::Debian, "Debian's rustc-web (no rustup nightly)".to_owned());
    };
    if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir() {
        return (EbpfCompiler::Debian, "Debian's rustc-web (the rustup nightly has no rust-src)".to_owned());
    }
    match nightly_llvm() {
        Some(major) if major <= LLVM_MAJOR => {
            (EbpfCompiler::RustupNightly, "the rustup nightly (it has rust-src)".to_owned())
        }
        llvm => {
            let llvm = llvm.map_or("unknown".to_owned(), |major| major.to_string());
            let reason = format!(
                "Debian's rustc-web (the nightly's LLVM is {llvm}, bpf-linker's {LLVM_MAJOR} can't read its output)"
            );
            (EbpfCompiler::Debian, reason)
        }
    }
}

fn nightly_llvm() -> Option<u32> {
    let version = output_of(Command::new("rustc").args(["+nightly", "--version", "--verbose"]))?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

fn install_packages(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: installing {}", missing.join(" "));
    if !nix::unistd::geteuid().is_root() {
        bail!("these packages are missing, and only root may install them: {}", missing.join(" "));
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        // Postfix would ask what kind of mail server this is.
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    process::run(apt().arg("update")).context("cannot refresh the list of packages")?;
    process::run(apt().args(["install", "-y", "--no-install-recommends"]).args(missing))
}

fn is_installed(package: &str) -> bool {
    let status = output_of(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]));
    status.is_some_and(|status| status == "installed")
}

fn install_bpf_linker() -> anyhow::Result<()> {
    let version = output_of(Command::new("bpf-linker").arg("--version"));
    if version.is_some_and(|version| version.trim().ends_with(BPF_LINKER_VERSION)) {
        return Ok(());
    }
    println!("setup: building bpf-linker {BPF_LINKER_VERSION}");
    let mut command = Command::new("cargo");
    command.env("LLVM_PREFIX", LLVM_PREFIX).args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION]);
    command.args(["--locked", "--no-default-features", "--features", "llvm-22"]);
    process::run(&mut command)
}

fn install_cargo_tool(program: &str, name: &str) -> anyhow::Result<()> {
    if on_path(program) {
        return Ok(());
    }
    println!("setup: building {name}");
    process::run(Command::new("cargo").args(["install", "--locked", "--quiet", name]))
}
