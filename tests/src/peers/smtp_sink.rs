//! Postfix's `smtp-sink`: takes mail as fast as it comes, counts it, and can keep every message with the address of
//! the client that brought it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::{Place, Process, swaks, wait_until};

/// A running sink.
#[derive(Debug)]
pub struct SmtpSink {
    counters: PathBuf,
    mailbox: PathBuf,
    _process: Process,
}

/// A message that a sink kept.
#[derive(Debug, Clone)]
pub struct Received {
    /// Address of whoever delivered it.
    pub client: String,
    /// MAIL FROM as it came, with brackets and parameters.
    pub mail: String,
    /// RCPT TO as they came.
    pub recipients: Vec<String>,
    /// The message with LF line ends, without the sink's own header lines.
    pub content: String,
}

impl SmtpSink {
    /// Starts a sink on `listen` (`192.0.2.1:25`, `[2001:db8::1]:25`), its files in `folder`. `keep`: messages are
    /// written down; otherwise only counted.
    pub fn start(place: Place<'_>, folder: &Path, listen: &str, keep: bool) -> Result<Self> {
        let name = listen.replace([':', '[', ']', '.'], "_");
        let counters = folder.join(format!("{name}.count"));
        let mailbox = folder.join(format!("{name}.mbox"));
        let said = folder.join(format!("{name}.said"));
        let mut command = place("smtp-sink");
        command.args(["-u", "root", "-c"]);
        if keep {
            command.arg("-D").arg(&mailbox);
        }
        command.args([listen, "1000"]);
        command.stdin(Stdio::null()).stdout(File::create(&counters)?).stderr(File::create(&said)?);
        let process = Process(command.spawn().context("can't start smtp-sink (package postfix)")?);
        let sink = Self { counters, mailbox, _process: process };
        let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "25"));
        wait_until("smtp-sink answers", || swaks::answers(place, host.trim_matches(['[', ']']), port))
            .with_context(|| fs::read_to_string(&said).unwrap_or_default())?;
        Ok(sink)
    }

    /// How many messages came, by the sink's own counter.
    pub fn count(&self) -> u64 {
        self.counter("mesg=")
    }

    /// How many sessions there were, by the sink's own counter.
    pub fn sessions(&self) -> u64 {
        self.counter("sess=")
    }

    fn counter(&self, name: &str) -> u64 {
        let text = fs::read_to_string(&self.counters).unwrap_or_default();
        let last = text.rsplit(name).next().unwrap_or_default();
        last.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
    }

    /// The messages that came, oldest first. Only for a sink that keeps them.
    pub fn received(&self) -> Vec<Received> {
        let text = fs::read(&self.mailbox).unwrap_or_default();
        parse(&String::from_utf8_lossy(&text))
    }
}

/// The sink heads each message with X- lines and a Received field of three lines, and ends it with an empty line.
fn parse(text: &str) -> Vec<Received> {
    const FIRST: &str = "X-Client-Addr: ";
    let mut messages: Vec<Received> = Vec::new();
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if let Some(client) = line.strip_prefix(FIRST) {
            messages.push(own_header(client.trim_end(), &mut lines));
        } else if let Some(message) = messages.last_mut() {
            message.content.push_str(line);
        }
    }
    for message in &mut messages {
        message.content.truncate(message.content.trim_end_matches('\n').len());
        message.content.push('\n');
    }
    messages
}

fn own_header<'a>(client: &str, lines: &mut impl Iterator<Item = &'a str>) -> Received {
    let mut message = Received {
        client: client.to_owned(),
        mail: String::new(),
        recipients: Vec::new(),
        content: String::new(),
    };
    for line in lines.by_ref() {
        let line = line.trim_end();
        if let Some(mail) = line.strip_prefix("X-Mail-Args: ") {
            message.mail = mail.to_owned();
        } else if let Some(recipient) = line.strip_prefix("X-Rcpt-Args: ") {
            message.recipients.push(recipient.to_owned());
        } else if line.starts_with("Received: ") {
            break;
        }
    }
    for _ in 0..2 {
        lines.next();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_from_what_the_sink_adds() {
        let text = "X-Client-Addr: 192.0.2.2\nX-Client-Proto: ESMTP\nX-Helo-Args: vm\nX-Mail-Args: <a@b.test>\n\
            X-Rcpt-Args: <c@d.test>\nX-Rcpt-Args: <e@d.test>\nReceived: from vm ([192.0.2.2])\n\tby smtp-sink\n\
            \tdate\nReceived: from x\nSubject: s\n\nbody\n\n\nX-Client-Addr: 192.0.2.3\nReceived: a\n\tb\n\tc\n\nx\n\n";
        let messages = parse(text);
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].client, "192.0.2.2");
        assert_eq!(messages[0].recipients, ["<c@d.test>", "<e@d.test>"]);
        assert_eq!(messages[0].content, "Received: from x\nSubject: s\n\nbody\n");
        assert_eq!(messages[1].content, "\nx\n");
    }
}
