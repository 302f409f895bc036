//! Real peers, each in a folder of its own and in the namespace where it belongs: how each starts without an
//! init system, and how it is stopped again, by its own process id.

pub mod dovecot;
pub mod fickle;
pub mod mail_server;
pub mod nul_dropper;
pub mod postfix;
pub mod service_manager;
pub mod smtp_sink;
pub mod smtp_source;
pub mod swaks;
pub mod unbound;

use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longest wait for a peer to come up, or to go.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a command that runs where the peer belongs: `&|program| namespace.command(program)`.
pub type Place<'a> = &'a dyn Fn(&str) -> std::process::Command;

/// Looks every few milliseconds until `ready` says yes; an error naming `what` when [`PATIENCE`] is over.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    wait_at_most(PATIENCE, what, &mut ready)
}

/// [`wait_until`] with a patience of its own.
pub fn wait_at_most(patience: Duration, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !ready() {
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A folder of a test's own that peers of other users may enter.
pub fn open_folder(prefix: &str) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir()?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

/// A process of ours that ends with its owner.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Sends `signal` to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
