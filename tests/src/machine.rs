//! A Debian of its own that boots with systemd, in a container (systemd-nspawn) on a namespace's network:
//! where packages are installed and units run as they do for an administrator. Gone when dropped.
//!
//! How it starts: `debootstrap` makes the system once, in `target/machine`; each machine gets a copy. The
//! container is booted with all capabilities and a folder of the host's BPF file system, which outlives it as
//! a firewall's would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::netns::Namespace;
use crate::peers::{Process, wait_at_most};

/// Which Debian it is.
const SUITE: &str = "bookworm";
/// What it has beyond the least: an init system, and what a firewall has.
const PACKAGES: &str = "systemd-sysv,dbus,iproute2,nftables";
const MIRROR: &str = "http://deb.debian.org/debian";
/// Longest wait for it to boot or to halt.
const BOOT_TIME: Duration = Duration::from_secs(120);

/// A machine, running or halted.
pub struct Machine<'a> {
    network: &'a Namespace,
    /// The root directory.
    folder: TempDir,
    /// Its part of the BPF file system.
    pins: PathBuf,
    running: Option<Running>,
}

struct Running {
    container: Process,
    /// Process id of its init, here.
    init: i32,
}

impl<'a> Machine<'a> {
    /// A fresh Debian, booted on this network.
    pub fn boot(network: &'a Namespace) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mailguard-machine-").tempdir()?;
        let root = folder.path().join("root");
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(debian()?).arg(&root))?;
        let pins = PathBuf::from("/sys/fs/bpf").join(network.name());
        let mut machine = Self { network, folder, pins, running: None };
        machine.start()?;
        Ok(machine)
    }

    /// Boots it, with nothing pinned.
    pub fn start(&mut self) -> Result<()> {
        fs::create_dir_all(&self.pins)?;
        let log = File::options().create(true).append(true).open(self.folder.path().join("console"))?;
        let mut command = Command::new("systemd-nspawn");
        command.args([
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--capability=all",
        ]);
        command.args(["--system-call-filter=bpf perf_event_open @privileged", "--directory"]);
        command.arg(self.root()).arg(format!("--bind={}:/sys/fs/bpf", self.pins.display()));
        command.arg(format!("--network-namespace-path={}", self.network.path().display()));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let container =
            Process(command.spawn().context("can't start systemd-nspawn (package systemd-container)")?);
        let mut init = None;
        wait_at_most(BOOT_TIME, "the machine starts", || {
            init = init_below(container.pid().as_raw());
            init.is_some()
        })?;
        let init = init.context("the machine has no init")?;
        self.running = Some(Running { container, init });
        wait_at_most(BOOT_TIME, "the machine is up", || {
            let state = self.output("systemctl", &["is-system-running"]);
            state.is_ok_and(|state| matches!(text(&state).trim(), "running" | "degraded"))
        })
    }

    /// Halts it; what was pinned is gone, as with a real one.
    pub fn halt(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.container.signal(Signal::SIGTERM)?;
            wait_at_most(BOOT_TIME, "the machine halts", || {
                running.container.0.try_wait().is_ok_and(|status| status.is_some())
            })?;
        }
        remove_pins(&self.pins);
        Ok(())
    }

    /// Its root directory.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Where its BPF file system is, here.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// A command that runs on it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        if let Some(Running { init, .. }) = self.running {
            command.args(["--all", "--target", &init.to_string()]);
        }
        command.args(["--", "/usr/bin/env", "DEBIAN_FRONTEND=noninteractive", program]).stdin(Stdio::null());
        command
    }

    /// Runs a command on it, and how that went.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.command(program).args(arguments).output().with_context(|| format!("can't start {program}"))
    }

    /// Runs a command that must succeed, and what it printed.
    pub fn ok(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(program, arguments)?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{program} {}: {}{}{complaint}", arguments.join(" "), output.status, text(&output));
        }
        Ok(text(&output))
    }

    /// Has apt install a package file of the host's; what apt and its scripts said.
    pub fn install(&self, package: &Path) -> Result<String> {
        let name = package.file_name().context("a package has a name")?.to_string_lossy().into_owned();
        fs::copy(package, self.root().join(&name))
            .context("no package; cargo xtask test package makes them")?;
        let output =
            self.output("apt-get", &["install", "-y", "--no-install-recommends", &format!("/{name}")])?;
        let said = format!("{}{}", text(&output), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("apt-get install {name}: {said}");
        }
        Ok(said)
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, property: &str) -> Result<String> {
        let value = self.ok("systemctl", &["show", "--value", "--property", property, unit])?;
        Ok(value.trim().to_owned())
    }

    /// What a unit logged.
    pub fn journal(&self, unit: &str) -> String {
        self.ok("journalctl", &["--no-pager", "--output=cat", "--unit", unit]).unwrap_or_default()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let journal = self.journal("mailguard");
        // Without a line a message; shown by the test runner if the test fails.
        let lines: Vec<&str> = journal.lines().filter(|line| !line.contains(" event=session")).collect();
        eprintln!("── journal of mailguard ──\n{}", lines[lines.len().saturating_sub(100)..].join("\n"));
        if let Err(error) = self.halt() {
            eprintln!("{error}");
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The init system that systemd-nspawn started, once the processes before it are gone.
fn init_below(process: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    let child = children.split_whitespace().next()?.parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
    (name.trim() == "systemd").then_some(child)
}

/// Files on a BPF file system are what is pinned; two folders deep here.
fn remove_pins(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_pins(&entry.path());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// The system that machines are copies of, made if it isn't there.
fn debian() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/machine");
    let made = folder.join(SUITE);
    if !made.exists() {
        fs::create_dir_all(&folder)?;
        // Not there before it is whole.
        let unfinished = tempfile::Builder::new().prefix("unfinished-").tempdir_in(&folder)?;
        let root = unfinished.path().join("root");
        let mut command = Command::new("debootstrap");
        command
            .arg("--variant=minbase")
            .arg(format!("--include={PACKAGES}"))
            .arg(SUITE)
            .arg(&root)
            .arg(MIRROR);
        run(&mut command)?;
        fs::rename(root, &made)?;
    }
    Ok(made)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}{}", text(&output), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
