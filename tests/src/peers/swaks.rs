//! `swaks`: one message by one real client, with the transcript of the session.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::Place;

/// What one message shall be.
#[derive(Debug, Clone, Default)]
pub struct Message<'a> {
    /// Address to dial.
    pub server: &'a str,
    /// Port, 25 if absent.
    pub port: Option<u16>,
    /// Local address to dial from.
    pub from_address: Option<&'a str>,
    /// MAIL FROM.
    pub sender: &'a str,
    /// RCPT TO, separated by commas.
    pub recipients: &'a str,
    /// Subject.
    pub subject: &'a str,
    /// Text; a line of its own for each part of it.
    pub body: &'a str,
    /// Go on encrypted, with STARTTLS.
    pub tls: bool,
    /// Name and password for AUTH.
    pub login: Option<(&'a str, &'a str)>,
    /// A file to attach, under its own name.
    pub attachment: Option<&'a Path>,
}

/// How the session went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The server took the message.
    pub accepted: bool,
    /// A connection came about at all.
    pub connected: bool,
    /// Every line of the session: `->` ours, `<-` the server's.
    pub transcript: String,
}

impl Outcome {
    /// The server's last reply but that to QUIT.
    pub fn last_reply(&self) -> &str {
        // `<~` is one that came encrypted.
        let marks = ["<-", "<*", "<~"];
        let replies = self.transcript.lines().filter(|line| marks.iter().any(|mark| line.starts_with(mark)));
        let mut replies = replies.map(|line| line[2..].trim_start_matches(['*', '-', '~', ' ']));
        replies.rfind(|line| !line.starts_with("221")).unwrap_or_default()
    }
}

/// Seconds after which a client gives up.
pub const TIMEOUT_SECONDS: u32 = 4;

/// Sends `message` and waits for the end of the session.
pub fn send(place: Place<'_>, message: &Message<'_>) -> Result<Outcome> {
    let mut command = place("swaks");
    command.args(["--server", message.server, "--from", message.sender, "--to", message.recipients]);
    command.args(["--header", &format!("Subject: {}", message.subject), "--body", message.body]);
    command.args(["--timeout", &TIMEOUT_SECONDS.to_string(), "--helo", "client.example.test"]);
    if let Some(port) = message.port {
        command.args(["--port", &port.to_string()]);
    }
    if let Some(address) = message.from_address {
        command.args(["--local-interface", address]);
    }
    if message.tls {
        command.arg("--tls");
    }
    if let Some((user, password)) = message.login {
        command.args(["--auth", "PLAIN,LOGIN", "--auth-user", user, "--auth-password", password]);
    }
    if let Some(path) = message.attachment {
        command.arg("--attach").arg(format!("@{}", path.display()));
    }
    let output = command.stdin(Stdio::null()).output().context("can't start swaks")?;
    let transcript = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Outcome { accepted: output.status.success(), connected: transcript.contains("\n<"), transcript })
}

/// Whether something at `host` and `port` answers with a banner.
pub fn answers(place: Place<'_>, host: &str, port: &str) -> bool {
    let mut command = place("swaks");
    command.args([
        "--quit-after",
        "CONNECT",
        "--silent",
        "3",
        "--timeout",
        "2",
        "--server",
        host,
        "--port",
        port,
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
