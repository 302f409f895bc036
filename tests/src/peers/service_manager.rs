//! A service manager, as far as a service talks to it (sd_notify(3)): hears what is said, and does nothing
//! about it.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

/// Longest wait for a message: a start may take its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest message, octets.
const MAX_MESSAGE_OCTETS: usize = 4_096;

/// Listens to a service.
pub struct ServiceManager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl ServiceManager {
    /// Begins to listen.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = UnixDatagram::bind(folder.path().join("notify"))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self { folder, socket })
    }

    /// Has whom `command` starts talk to it.
    pub fn manages(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
    }

    /// The next message that has one of `wanted` in it.
    pub fn hears(&self, wanted: &[&str]) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut message = [0; MAX_MESSAGE_OCTETS];
        while Instant::now() < deadline {
            let Ok(length) = self.socket.recv(&mut message) else { continue };
            let text = String::from_utf8_lossy(&message[..length]).trim_end().to_owned();
            if wanted.iter().any(|wanted| text.contains(wanted)) {
                return Ok(text);
            }
        }
        bail!("none of {wanted:?} within {} s", PATIENCE.as_secs())
    }
}
