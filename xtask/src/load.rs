//! `cargo xtask load IFACE` and `unload IFACE`: the kernel part on one interface, for trying by hand.
//!
//! It is mailguard itself that attaches, with a small configuration of its own in `/run/mailguard-try-IFACE`:
//! one transparent zone, new connections pass while no proxy runs. Programs, maps and routes are pinned and
//! stay when it ends; `unload` removes them.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mailguard_tests::appliance::applied;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{self, output_of, repository};
use crate::{build, setup};

/// Longest wait for mailguard to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Options of `load`.
#[derive(clap::Args)]
pub(crate) struct LoadArguments {
    /// The interface
    interface: String,
    /// Keep the proxy running in the foreground too, so that connections are intercepted
    #[arg(long)]
    serve: bool,
}

/// Options of `unload`.
#[derive(clap::Args)]
pub(crate) struct UnloadArguments {
    /// The interface
    interface: String,
}

/// Attaches, shows the status, and ends; with `--serve` it ends when interrupted.
pub(crate) fn load(arguments: &LoadArguments) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "only root may load programs into the kernel");
    setup::everything()?;
    build::debug()?;
    let config = write_config(&arguments.interface)?;
    println!("load: configuration: {}", config.display());
    let mut run = mailguard(&arguments.interface);
    run.arg("run");
    if arguments.serve {
        return process::run(&mut run);
    }
    let mut child = run.spawn().context("cannot start mailguard")?;
    let attached = wait_for_status(&mut child, &arguments.interface);
    if child.try_wait()?.is_none() {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
        child.wait()?;
    }
    println!("{}", attached?);
    println!(
        "load: attached and pinned; without a proxy every new connection passes. Remove: cargo xtask unload {}",
        arguments.interface
    );
    Ok(())
}

/// Removes everything that `load` left.
pub(crate) fn unload(arguments: &UnloadArguments) -> Result<()> {
    build::debug()?;
    let folder = folder(&arguments.interface);
    ensure!(folder.exists(), "nothing of `load {}` is here", arguments.interface);
    process::run(mailguard(&arguments.interface).arg("unload"))?;
    // None, if mail was never served.
    let _ = fs::remove_file(applied(&folder.join("mailguard.toml")));
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn folder(interface: &str) -> PathBuf {
    PathBuf::from(format!("/run/mailguard-try-{interface}"))
}

fn mailguard(interface: &str) -> Command {
    let mut command = Command::new(repository().join("target/debug/mailguard"));
    command.arg("--config").arg(folder(interface).join("mailguard.toml"));
    command
}

/// Writes the configuration, unless an earlier `load` did: it may have been edited since.
fn write_config(interface: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_@:".contains(c);
    ensure!(!interface.is_empty() && interface.chars().all(plain), "{interface:?} is no interface's name");
    let folder = folder(interface);
    fs::create_dir_all(&folder)?;
    let path = folder.join("mailguard.toml");
    if !path.exists() {
        let (folder, pin) = (folder.display(), interface.replace('.', "-"));
        let text = format!(
            "hostname = \"mailguard.example.org\"\nstate_dir = \"{folder}/state\"\nruntime_dir = \"{folder}/run\"\n\
             user = \"nobody\"\n\n[[zone]]\nname = \"try\"\nkind = \"green\"\ninterfaces = [\"{interface}\"]\n\
             mode = \"transparent\"\n\n[kernel]\non_proxy_down = \"bypass\"\n\
             pin_dir = \"/sys/fs/bpf/mailguard-try-{pin}\"\n"
        );
        fs::write(&path, text)?;
    }
    Ok(path)
}

fn wait_for_status(child: &mut Child, interface: &str) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            bail!("mailguard ended: {status}");
        }
        if let Some(status) = output_of(mailguard(interface).arg("status")) {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("mailguard didn't answer within {} s", PATIENCE.as_secs())
}
