//! Postfix's `smtp-source`: a load of messages over many connections.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::{Place, Process};

/// A load.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    /// `192.0.2.1:25` or `[2001:db8::1]:25`
    pub server: &'a str,
    /// Connections at a time.
    pub sessions: u32,
    /// Messages in all.
    pub messages: u64,
    /// Octets of each message's text.
    pub octets: u32,
    /// MAIL FROM.
    pub sender: &'a str,
    /// RCPT TO.
    pub recipient: &'a str,
}

/// Sends the whole load; an error if the source gave up.
pub fn run(place: Place<'_>, load: &Load<'_>) -> Result<()> {
    let mut process = start(place, load)?;
    let status = process.0.wait()?;
    if !status.success() {
        bail!("smtp-source ended with {status}");
    }
    Ok(())
}

/// Starts sending.
pub fn start(place: Place<'_>, load: &Load<'_>) -> Result<Process> {
    let mut command = place("smtp-source");
    command.args(["-s", &load.sessions.to_string(), "-m", &load.messages.to_string()]);
    command.args(["-l", &load.octets.to_string(), "-f", load.sender, "-t", load.recipient, load.server]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Process(command.spawn().context("can't start smtp-source (package postfix)")?))
}
