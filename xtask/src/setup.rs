//! `cargo xtask setup`: installs what building and testing need, and only that.
//!
//! Idempotent and quick when everything is there. Every package that the project needs on a machine is named
//! here and nowhere else. The eBPF crate is compiled with its own standard library sources: a rustup nightly
//! with `rust-src` serves, else Debian's rustc-web with rust-web-src, which match each other.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::process::{self, on_path, output_of};

/// Debian packages of the demonstration: namespaces, and who speaks to whom in them.
const DEMO_PACKAGES: &[&str] = &[
    "dovecot-imapd",
    "iproute2",
    "libio-socket-inet6-perl",
    "libnet-ssleay-perl",
    "postfix",
    "swaks",
    "tcpdump",
    "unbound",
    "util-linux",
];
/// Debian packages of the tests and the benchmarks, beside those of the demonstration.
const TEST_PACKAGES: &[&str] = &["fail2ban", "iptables", "nftables"];
/// Debian packages that the package is made with.
const PACKAGE_PACKAGES: &[&str] = &["binutils", "dpkg-dev"];
/// Debian packages of the machine on which the package is tried.
const MACHINE_PACKAGES: &[&str] = &["debootstrap", "lintian", "systemd-container"];
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

/// Cargo tools of `cargo xtask ci` and `test`.
const CARGO_TOOLS: &[&str] = &["cargo-nextest", "cargo-deny", "cargo-fuzz"];
/// What makes the package: crate and version.
const CARGO_DEB: (&str, &str) = ("cargo-deb", "3.8.0");

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what `cargo xtask build` needs
    #[arg(long)]
    build_only: bool,
}

/// What a machine is set up for. All of them can build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `cargo xtask build`.
    Build,
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask package`.
    Package,
    /// Tests, benchmarks, the virtual machine.
    Everything,
    /// `cargo xtask test package`: everything, the package, and a machine to install it on.
    TestPackage,
}

impl Purpose {
    fn packages(self) -> Vec<&'static str> {
        let lists: &[&[&str]] = match self {
            Purpose::Build => &[],
            Purpose::Demo => &[DEMO_PACKAGES],
            Purpose::Package => &[PACKAGE_PACKAGES],
            Purpose::Everything => &[DEMO_PACKAGES, TEST_PACKAGES, VM_PACKAGES],
            Purpose::TestPackage => {
                &[DEMO_PACKAGES, TEST_PACKAGES, VM_PACKAGES, PACKAGE_PACKAGES, MACHINE_PACKAGES]
            }
        };
        [&[LINKER_PACKAGES], lists].concat().concat()
    }

    fn runs_tests(self) -> bool {
        matches!(self, Purpose::Everything | Purpose::TestPackage)
    }

    fn makes_packages(self) -> bool {
        matches!(self, Purpose::Package | Purpose::TestPackage)
    }
}

/// The compiler of the eBPF crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EbpfCompiler {
    /// `cargo +nightly`, with the component rust-src.
    RustupNightly,
    /// Debian's rustc-web and cargo-web.
    Debian,
}

/// Installs what `arguments` ask for.
pub(crate) fn asked(arguments: &Arguments) -> anyhow::Result<()> {
    run(if arguments.build_only { Purpose::Build } else { Purpose::Everything })
}

/// Installs what is missing for this purpose.
pub(crate) fn run(purpose: Purpose) -> anyhow::Result<()> {
    let (compiler, reason) = choose_compiler();
    println!("setup: eBPF compiler: {reason}");
    let mut packages = purpose.packages();
    if compiler == EbpfCompiler::Debian {
        packages.extend(COMPILER_PACKAGES);
    }
    install_packages(&packages)?;
    install_bpf_linker()?;
    if purpose.runs_tests() {
        for name in CARGO_TOOLS {
            install_cargo_tool(name, None)?;
        }
    }
    if purpose.makes_packages() {
        let (name, version) = CARGO_DEB;
        install_cargo_tool(name, Some(version))?;
    }
    println!("setup: everything is there");
    Ok(())
}

/// Installs everything that building and testing need.
pub(crate) fn everything() -> anyhow::Result<()> {
    run(Purpose::Everything)
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

/// Installs the program `name` of the crate of that name, where there is none, or another than this version.
fn install_cargo_tool(name: &str, version: Option<&str>) -> anyhow::Result<()> {
    let is_right = match version {
        Some(version) => output_of(Command::new(name).arg("--version"))
            .is_some_and(|said| said.split_whitespace().any(|word| word == version)),
        None => on_path(name),
    };
    if is_right {
        return Ok(());
    }
    println!("setup: building {name}");
    let mut command = Command::new("cargo");
    command.args(["install", "--locked", "--quiet", name]);
    process::run(command.args(version.map(|version| format!("--version={version}"))))
}
