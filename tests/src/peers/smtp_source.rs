//! Postfix's `smtp-source`: a load of messages over many connections.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Place;

/// A load.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    /// `192.0.2.1:25` or `[2001:db8::1]:25`
    pub server: &'a str,
    /// What it calls itself.
    pub helo: &'a str,
    /// Whether a session goes on after a message; otherwise each message has one of its own.
    pub kept: bool,
    /// Connections at a time.
    pub sessions: u32,
    /// Messages in all.
    pub messages: u64,
    /// Octets of each message's text.
    pub octets: u32,
    /// Recipients of each message, told apart by a number before the name.
    pub recipients: u32,
    /// MAIL FROM.
    pub sender: &'a str,
    /// RCPT TO.
    pub recipient: &'a str,
}

impl<'a> Load<'a> {
    /// Messages of `octets` to one recipient each, a session a message.
    pub fn of_strangers(server: &'a str, sessions: u32, messages: u64, octets: u32) -> Self {
        Self {
            server,
            helo: "client.example.test",
            kept: false,
            sessions,
            messages,
            octets,
            recipients: 1,
            sender: "bench@client.example.test",
            recipient: "bench@server.example.test",
        }
    }
}

/// Sends the whole load, refusals notwithstanding; an error if the source gave up.
pub fn run(place: Place<'_>, load: &Load<'_>) -> Result<()> {
    let output = command(place, load).output().context(MISSING)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("smtp-source: {}: {}", output.status, said.lines().last().unwrap_or_default());
    }
    Ok(())
}

const MISSING: &str = "can't start smtp-source (package postfix)";

fn command(place: Place<'_>, load: &Load<'_>) -> Command {
    let mut command = place("smtp-source");
    command.args(["-s", &load.sessions.to_string(), "-m", &load.messages.to_string()]);
    command.args(["-A", "-M", load.helo]);
    if load.kept {
        command.arg("-d");
    }
    if load.recipients > 1 {
        command.args(["-r", &load.recipients.to_string()]);
    }
    command.args(["-l", &load.octets.to_string(), "-f", load.sender, "-t", load.recipient, load.server]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
