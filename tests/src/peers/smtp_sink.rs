//! Postfix's `smtp-sink`: takes mail as fast as it comes, counts it, and can keep every message with the
//! address of the client that brought it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::{Place, Process, swaks, wait_until};
use crate::netns::{SERVER4, Topology, port25};

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
    /// Starts a sink that is the server behind the firewall, on port 25, and keeps what comes; its files in
    /// `folder`.
    pub fn of_server(topology: &Topology, folder: &Path) -> Result<Self> {
        Self::start(&|program| topology.server.command(program), folder, &port25(SERVER4), true)
    }

    /// Starts a sink on `listen` (`192.0.2.1:25`, `[2001:db8::1]:25`), its files in `folder`. `keep`:
    /// messages are written down; otherwise only counted.
    pub fn start(place: Place<'_>, folder: &Path, listen: &str, keep: bool) -> Result<Self> {
        let name = listen.replace([':', '[', ']', '.'], "_");
        let counters = folder.join(format!("{name}.count"));
        let mailbox = folder.join(format!("{name}.messages"));
        let said = folder.join(format!("{name}.said"));
        let mut command = place("smtp-sink");
        command.args(["-u", "root", "-c"]);
        if keep {
            // A file a message: one file for all of them is written to by all sessions at once.
            fs::create_dir_all(&mailbox)?;
            command.arg("-d").arg(mailbox.join("message."));
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

    /// The messages that came, in no order; also what is there of one whose session broke. Only for a sink
    /// that keeps them.
    pub fn received(&self) -> Vec<Received> {
        let Ok(files) = fs::read_dir(&self.mailbox) else { return Vec::new() };
        let texts = files.flatten().filter_map(|file| fs::read(file.path()).ok());
        texts.filter_map(|text| parse(&String::from_utf8_lossy(&text))).collect()
    }

    /// The message with this subject, if it came.
    pub fn with_subject(&self, subject: &str) -> Option<Received> {
        let line = format!("Subject: {subject}\n");
        self.received().into_iter().find(|message| message.content.contains(&line))
    }

    /// Waits for the message with this subject.
    pub fn wait_for(&self, subject: &str) -> Result<Received> {
        wait_until(&format!("\"{subject}\" arrives"), || self.with_subject(subject).is_some())?;
        self.with_subject(subject).with_context(|| format!("\"{subject}\" went again"))
    }
}

/// The sink heads each message with X- lines and a Received field of three lines.
fn parse(text: &str) -> Option<Received> {
    let mut lines = text.split_inclusive('\n');
    let client = lines.next()?.strip_prefix("X-Client-Addr: ")?;
    let mut message = Received {
        client: client.trim_end().trim_start_matches("ipv6:").to_owned(),
        mail: String::new(),
        recipients: Vec::new(),
        content: String::new(),
    };
    for line in lines.by_ref() {
        if let Some(mail) = line.strip_prefix("X-Mail-Args: ") {
            message.mail = mail.trim_end().to_owned();
        } else if let Some(recipient) = line.strip_prefix("X-Rcpt-Args: ") {
            message.recipients.push(recipient.trim_end().to_owned());
        } else if line.starts_with("Received: ") {
            break;
        }
    }
    message.content = lines.skip(2).collect::<String>().trim_end_matches('\n').to_owned() + "\n";
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_from_what_the_sink_adds() {
        let text = "X-Client-Addr: 192.0.2.2\nX-Client-Proto: ESMTP\nX-Helo-Args: vm\nX-Mail-Args: <a@b.test>\n\
            X-Rcpt-Args: <c@d.test>\nX-Rcpt-Args: <e@d.test>\nReceived: from vm ([192.0.2.2])\n\tby smtp-sink\n\
            \tdate\nReceived: from x\nSubject: s\n\nbody\n\n\n";
        let message = parse(text).unwrap();
        assert_eq!(message.client, "192.0.2.2");
        assert_eq!(message.recipients, ["<c@d.test>", "<e@d.test>"]);
        assert_eq!(message.content, "Received: from x\nSubject: s\n\nbody\n");
    }
}
