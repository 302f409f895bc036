//! The fields that we add to a header: Received, and Date and Message-ID where they are missing (RFC 5321
//! §4.4, RFC 5322 §3.6; S13).
//!
//! They are ASCII whatever was said: a message that any server takes must not need SMTPUTF8 for what we write
//! about it.

use std::fmt::Write;
use std::net::IpAddr;

use mailguard_core::config::model::ZoneKind;
use mailguard_core::mail::header::Summary;
use mailguard_core::mail::{AddressLiteral, Domain, ForwardPath, Host, QueueId, UnixTime};
use mailguard_core::smtp::server::Greeting;

use super::Introduction;

/// Most characters of an unusable HELO argument that Received shows.
const SHOWN_HELO_CHARACTERS: usize = 64;

/// What the fields are made of.
#[derive(Debug)]
pub(super) struct TraceFields {
    pub(super) id: QueueId,
    pub(super) hostname: Domain,
    pub(super) client: IpAddr,
    pub(super) zone: ZoneKind,
    pub(super) introduction: Introduction,
    /// MAIL said SMTPUTF8.
    pub(super) smtputf8: bool,
    /// Shown where there is but one, for the others must not learn of each other (RFC 5321 §7.6), and where
    /// ASCII can say it.
    pub(super) only_recipient: Option<ForwardPath>,
    pub(super) at: UnixTime,
}

impl TraceFields {
    /// The lines that go before a header that says this, each with its CRLF.
    pub(super) fn lines(&self, header: &Summary) -> String {
        let mut lines = self.received();
        if self.zone != ZoneKind::Red {
            // Mail programs leave these to their first server. Strangers' omissions are theirs, and evidence.
            if !header.date {
                let _ = write!(lines, "Date: {}\r\n", self.at.rfc5322());
            }
            if !header.message_id {
                let _ = write!(lines, "Message-ID: <{}@{}>\r\n", self.id, self.hostname.ascii());
            }
        }
        lines
    }

    fn received(&self) -> String {
        let address = AddressLiteral(self.client);
        let name = self.introduction.greeting.name().filter(|name| !name.as_str().is_empty());
        let mut lines = match name.map(|name| (name, Host::parse(name.as_str()))) {
            None => format!("Received: from {address}"),
            Some((_, Ok(Host::Domain(domain)))) => {
                format!("Received: from {} ({address})", domain.in_ascii())
            }
            Some((_, Ok(Host::Literal(literal)))) => format!("Received: from {literal} ({address})"),
            Some((name, Err(_))) => {
                format!("Received: from {address} (helo {})", presentable(name.as_str()))
            }
        };
        let (hostname, protocol) = (self.hostname.in_ascii(), self.protocol());
        let _ = write!(lines, "\r\n\tby {hostname} (mailguard) with {protocol} id {}", self.id);
        if let Some(recipient) = self.only_recipient.as_ref().and_then(path_in_ascii) {
            let _ = write!(lines, "\r\n\tfor {recipient}");
        }
        let _ = write!(lines, "; {}\r\n", self.at.rfc5322());
        lines
    }
}

impl TraceFields {
    /// The name of the protocol as it was spoken (RFC 3848, RFC 6531 §4.3).
    fn protocol(&self) -> String {
        let Introduction { greeting, encrypted, user } = &self.introduction;
        let base = match greeting {
            Greeting::Ehlo(_) if self.smtputf8 => "UTF8SMTP",
            Greeting::Ehlo(_) => "ESMTP",
            _ => return "SMTP".to_owned(),
        };
        let (s, a) = (if *encrypted { "S" } else { "" }, if user.is_some() { "A" } else { "" });
        format!("{base}{s}{a}")
    }
}

/// The path, if ASCII can say it.
fn path_in_ascii(path: &ForwardPath) -> Option<String> {
    match path {
        ForwardPath::Postmaster => Some(path.to_string()),
        ForwardPath::Mailbox(mailbox) => mailbox.in_ascii().map(|address| format!("<{address}>")),
    }
}

/// Text that can stand in a comment.
fn presentable(text: &str) -> String {
    let fit = |c: char| c.is_ascii_graphic() && !matches!(c, '(' | ')' | '\\');
    text.chars().take(SHOWN_HELO_CHARACTERS).map(|c| if fit(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use mailguard_core::mail::Mailbox;
    use mailguard_core::smtp::Command;

    use super::*;

    fn check(command: &str, client: &str, zone: ZoneKind, header: &str, expect: &str) {
        let greeting = match Command::parse(command.as_bytes()) {
            Ok(Command::Ehlo(name)) => Greeting::Ehlo(name),
            Ok(Command::Helo(name)) => Greeting::Helo(name),
            _ => Greeting::None,
        };
        let fields = TraceFields {
            id: QueueId(33),
            hostname: Domain::parse("mx.example").unwrap(),
            client: client.parse().unwrap(),
            zone,
            introduction: Introduction { greeting, encrypted: false, user: None },
            smtputf8: false,
            only_recipient: client.contains('.').then_some(ForwardPath::Postmaster),
            at: UnixTime(0),
        };
        let lines = fields.lines(&mailguard_core::mail::header::summarise(header.as_bytes()));
        let start = "\r\n\tby mx.example (mailguard) with";
        let date = "Thu, 1 Jan 1970 00:00:00 +0000";
        assert_eq!(lines, expect.replace("BY", start).replace("DATE", date));
    }

    #[test]
    fn received_is_ascii_whatever_client_and_recipient_are_called() {
        let received = |command: &str, recipient: &str, smtputf8: bool| {
            let Ok(Command::Ehlo(name)) = Command::parse(command.as_bytes()) else { panic!("{command}") };
            let fields = TraceFields {
                id: QueueId(33),
                hostname: Domain::parse("größe.example").unwrap(),
                client: "192.0.2.1".parse().unwrap(),
                zone: ZoneKind::Red,
                introduction: Introduction { greeting: Greeting::Ehlo(name), encrypted: false, user: None },
                smtputf8,
                only_recipient: Some(ForwardPath::Mailbox(Mailbox::parse(recipient).unwrap())),
                at: UnixTime(0),
            };
            fields
                .lines(&Summary::default())
                .replace("\r\n\t", " ")
                .replace("; Thu, 1 Jan 1970 00:00:00 +0000\r\n", "")
        };
        let by = "by xn--gre-6ka8i.example (mailguard) with ESMTP id 11";
        assert_eq!(
            received("EHLO bücher.example", "b@bücher.example", false),
            format!("Received: from xn--bcher-kva.example ([192.0.2.1]) {by} for <b@xn--bcher-kva.example>")
        );
        assert_eq!(
            received("EHLO Client.example", "B@[192.0.2.2]", false),
            format!("Received: from Client.example ([192.0.2.1]) {by} for <B@[192.0.2.2]>")
        );
        assert_eq!(
            received("EHLO bü cher", "jörg@bücher.example", true),
            format!("Received: from [192.0.2.1] (helo b??cher) {by}").replace("ESMTP", "UTF8SMTP")
        );
    }

    #[test]
    fn received_date_and_message_id() {
        let complete = "Date: x\r\nMessage-ID: y\r\n";
        check(
            "EHLO client.example",
            "192.0.2.1",
            ZoneKind::Green,
            complete,
            "Received: from client.example ([192.0.2.1])BY ESMTP id 11\r\n\tfor <postmaster>; DATE\r\n",
        );
        check(
            "HELO [IPv6:2001:db8::1]",
            "2001:db8::2",
            ZoneKind::Green,
            complete,
            "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::2])BY SMTP id 11; DATE\r\n",
        );
        check(
            "EHLO a (b) \\c",
            "192.0.2.1",
            ZoneKind::Red,
            "",
            "Received: from [192.0.2.1] (helo a??b???c)BY ESMTP id 11\r\n\tfor <postmaster>; DATE\r\n",
        );
        check(
            "",
            "2001:db8::2",
            ZoneKind::Orange,
            "",
            "Received: from [IPv6:2001:db8::2]BY SMTP id 11; DATE\r\nDate: DATE\r\nMessage-ID: <11@mx.example>\r\n",
        );
    }
}
