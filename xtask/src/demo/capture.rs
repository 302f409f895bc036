//! A packet capture on the server's side: did the client itself get through?

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use mailguard_tests::netns::Namespace;
use mailguard_tests::peers::{Process, wait_until};
use nix::sys::signal::Signal;

/// A running `tcpdump` for connection requests from one client to one port.
pub(super) struct Capture {
    process: Process,
    lines: PathBuf,
}

impl Capture {
    pub(super) fn start(server: &Namespace, client: IpAddr, port: u16, folder: &Path) -> Result<Self> {
        let (lines, said) = (folder.join("capture.lines"), folder.join("capture.said"));
        // Byte 13 of a TCP header has the flags; `tcp[…]` knows IPv4 only.
        let syn = match client {
            IpAddr::V4(_) => "tcp[13] & 0x12 == 2",
            IpAddr::V6(_) => "ip6[53] & 0x12 == 2",
        };
        let mut tcpdump = server.command("tcpdump");
        tcpdump.args([
            "-n",
            "-l",
            "--immediate-mode",
            "-i",
            "eth0",
            &format!("src host {client} and dst port {port} and {syn}"),
        ]);
        tcpdump.stdin(Stdio::null()).stdout(File::create(&lines)?).stderr(File::create(&said)?);
        let process = Process(tcpdump.spawn().context("can't start tcpdump")?);
        wait_until("tcpdump listens", || {
            fs::read_to_string(&said).is_ok_and(|text| text.contains("listening on"))
        })?;
        Ok(Self { process, lines })
    }

    /// Ends the capture; whether any packet matched.
    pub(super) fn saw_syn(mut self) -> Result<bool> {
        self.process.signal(Signal::SIGINT)?;
        self.process.0.wait()?;
        Ok(!fs::read_to_string(&self.lines)?.trim().is_empty())
    }
}
