//! Unbound as a name server with zones of the test's own.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::{Place, Process, wait_until};

/// Where it listens, on loopback of its place.
pub const PORT: u16 = 53;

/// A running name server; ends with its owner.
pub struct Unbound {
    _process: Process,
}

impl Unbound {
    /// Starts one that knows these records, `name. A 192.0.2.1`, and nothing else.
    pub fn start(place: Place<'_>, folder: &Path, records: &[&str]) -> Result<Self> {
        let folder = folder.join("unbound");
        fs::create_dir_all(&folder)?;
        let config = folder.join("unbound.conf");
        let data: String = records.iter().map(|record| format!("  local-data: \"{record}\"\n")).collect();
        let text = format!(
            "server:\n  interface: 127.0.0.1@{PORT}\n  username: \"\"\n  chroot: \"\"\n  directory: \"{0}\"\n  \
             pidfile: \"{0}/unbound.pid\"\n  logfile: \"{0}/unbound.log\"\n  use-syslog: no\n  do-daemonize: no\n  \
             module-config: \"iterator\"\n  local-zone: \".\" static\n  local-zone: \"2.0.192.in-addr.arpa.\" transparent\n{data}\
             remote-control:\n  control-enable: no\n",
            folder.display()
        );
        fs::write(&config, text)?;
        let mut command = place("unbound");
        command.arg("-d").arg("-c").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process(command.spawn().context("can't start unbound: install the package")?);
        wait_until("Unbound listens", || {
            let found = place("ss").args(["-Hlun", &format!("sport = :{PORT}")]).output();
            found.is_ok_and(|output| !output.stdout.is_empty())
        })?;
        Ok(Self { _process: process })
    }
}
