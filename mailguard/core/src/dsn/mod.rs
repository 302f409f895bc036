//! Delivery status notifications for mail that failed, expired, is delayed, or went where nobody will report
//! its success (RFC 3461, RFC 3464, RFC 6522, RFC 3834), and what the administrator is told of mail that
//! nobody can be told of.
//!
//! Stands after the last attempt: `queue` decides that a report is due and commits what is composed here as a
//! new message. What comes from outside — addresses, replies, envelope ids, the message itself — can't add a
//! header field, a status field or a part: text is escaped, and the boundary occurs nowhere in the content.
//!
//! Left to others: whether this sender gets reports at all, and when one is due (`queue`). "Delivered" is the
//! word of servers that deliver into mailboxes; we never do.

mod field;
mod texts;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use self::field::{encoded_words, push_field, push_paragraph};
use crate::language::{Language, Texts, Wording};
use crate::mail::{
    BodyType, Domain, DsnReturn, Envelope, ForwardPath, Mailbox, QueueId, Recipient, ReversePath, UnixTime,
};
use crate::outcome::Report;
use crate::smtp::xtext;

/// Octets of a message that a report returns whole; of a larger one it returns the header, whatever RET says.
pub const MAX_RETURNED_OCTETS: usize = 256 * 1024;

/// Octets of a header that a report returns.
pub const MAX_RETURNED_HEADER_OCTETS: usize = 64 * 1024;

/// Octets of a text whose base64 is a line (RFC 2045 §6.8 ends them at 76 characters).
const BASE64_LINE_OCTETS: usize = 57;

/// What became of a recipient's message (RFC 3464 §2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It won't be delivered.
    Failed,
    /// It hasn't been delivered yet.
    Delayed,
    /// Another server took it, and won't report what becomes of it.
    Relayed,
}

/// What is told of one recipient.
#[derive(Debug, Clone, Copy)]
pub struct ReportedRecipient<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// What became of it.
    pub action: Action,
    /// The last word on it.
    pub report: &'a Report,
}

/// Whom a report is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    /// Whoever sent the message.
    Sender,
    /// The administrator: the message failed, is withheld, and its sender isn't told.
    Administrator(&'a Mailbox),
}

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct DsnRequest<'a> {
    /// Our name.
    pub reporting_mta: &'a Domain,
    /// Who the report is from, in its header.
    pub sender: &'a Mailbox,
    /// For whom it is.
    pub reader: Reader<'a>,
    /// In which language people are spoken to.
    pub language: Language,
    /// The message.
    pub id: QueueId,
    /// When it came.
    pub arrival: UnixTime,
    /// When the report is made.
    pub now: UnixTime,
    /// When attempts end for recipients that are delayed.
    pub retry_until: UnixTime,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// The recipients of the report; those that [`wants_failure`] and [`wants_success`] exclude left out.
    pub told: &'a [ReportedRecipient<'a>],
    /// The message, or at least its header with the empty line.
    pub original: &'a [u8],
    /// Whether the whole of `original` is returned or only its header.
    pub ret: DsnReturn,
}

/// Whether the recipient's sender wants to know of a failure (RFC 3461 §4.1).
pub fn wants_failure(recipient: &Recipient) -> bool {
    recipient.notify.is_none_or(|notify| notify.failure)
}

/// Whether the recipient's sender wants to know of success.
pub fn wants_success(recipient: &Recipient) -> bool {
    recipient.notify.is_some_and(|notify| notify.success)
}

/// Whether the recipient's sender wants to know of a delay; who said nothing does, for we choose so.
pub fn wants_delay(recipient: &Recipient) -> bool {
    recipient.notify.is_none_or(|notify| notify.delay)
}

/// How much of a message of `octets` its report returns.
pub fn returned(envelope: &Envelope, octets: usize) -> DsnReturn {
    if octets > MAX_RETURNED_OCTETS {
        return DsnReturn::Headers;
    }
    envelope.dsn_return.unwrap_or(DsnReturn::Full)
}

/// The envelope of a report whose content is `dsn`: null reverse-path, to the one who is to read it (RFC 3461
/// §6.1). Nothing when the message had no sender: there is nobody to tell.
pub fn envelope(reported: &Envelope, reader: Reader<'_>, dsn: &[u8]) -> Option<Envelope> {
    let to = match reader {
        Reader::Sender => reported.reverse_path.mailbox()?,
        Reader::Administrator(mailbox) => mailbox,
    };
    Some(Envelope {
        reverse_path: ReversePath::Null,
        recipients: vec![Recipient::new(ForwardPath::Mailbox(to.clone()))],
        body: if dsn.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime },
        smtputf8: false,
        dsn_return: None,
        envelope_id: None,
    })
}

/// Composes the report: explanation, status, and what is returned of the message, as one multipart/report.
pub fn compose(request: &DsnRequest<'_>) -> Vec<u8> {
    let explanation = explanation(request);
    let status = status(request);
    let (returned_type, returned) = returned_part(request);
    let boundary = boundary(request, &[&explanation, &status, returned]);
    let mut out = Vec::with_capacity(explanation.len() + status.len() + returned.len() + 1536);
    let eight_bit = !returned.is_ascii();
    push_header(request, &boundary, eight_bit, &mut out);
    out.extend_from_slice(b"This is a report in MIME format.\r\n");
    push_text(&boundary, &explanation, &mut out);
    push_part(&boundary, "message/delivery-status", &status, &mut out);
    push_part(&boundary, returned_type, returned, &mut out);
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

fn push_header(request: &DsnRequest<'_>, boundary: &str, eight_bit: bool, out: &mut Vec<u8>) {
    let DsnRequest { reporting_mta, sender, id, now, envelope, .. } = request;
    push_field("From", &format!("Mail Delivery System <{sender}>"), out);
    let to = match request.reader {
        Reader::Sender => envelope.reverse_path.mailbox(),
        Reader::Administrator(mailbox) => Some(mailbox),
    };
    if let Some(to) = to {
        push_field("To", &format!("<{}>", to.in_ascii().unwrap_or_else(|| to.to_string())), out);
    }
    let is_told = |action: &Action| request.told.iter().any(|told| told.action == *action);
    let weightiest = [Action::Failed, Action::Delayed, Action::Relayed].into_iter().find(is_told);
    let subject = match request.reader {
        Reader::Sender => texts::subject(weightiest.unwrap_or(Action::Relayed)),
        Reader::Administrator(_) => texts::WITHHELD_SUBJECT,
    };
    push_field("Subject", &encoded_words(&request.text(subject)), out);
    push_field("Date", &now.rfc5322().to_string(), out);
    push_field("Message-ID", &format!("<{id}.{}.dsn@{}>", now.0, reporting_mta.ascii()), out);
    push_field("Auto-Submitted", "auto-replied", out);
    push_field("MIME-Version", "1.0", out);
    let content_type = format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\"");
    push_field("Content-Type", &content_type, out);
    push_field("Content-Transfer-Encoding", if eight_bit { "8bit" } else { "7bit" }, out);
    out.extend_from_slice(b"\r\n");
}

fn push_part(boundary: &str, content_type: &str, content: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
    push_field("Content-Type", content_type, out);
    push_field("Content-Transfer-Encoding", if content.is_ascii() { "7bit" } else { "8bit" }, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(content);
}

/// A part for people: in base64 where it isn't ASCII, so that it passes everywhere.
fn push_text(boundary: &str, text: &[u8], out: &mut Vec<u8>) {
    let content_type = "text/plain; charset=utf-8";
    if text.is_ascii() {
        return push_part(boundary, content_type, text, out);
    }
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
    push_field("Content-Type", content_type, out);
    push_field("Content-Transfer-Encoding", "base64", out);
    for line in text.chunks(BASE64_LINE_OCTETS) {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(STANDARD.encode(line).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

impl DsnRequest<'_> {
    fn text(&self, texts: Texts) -> Cow<'static, str> {
        texts.of(Wording { language: self.language, utf8: true })
    }

    fn text_about(&self, texts: Texts, what: &str) -> String {
        self.text(texts).replace("{}", what)
    }
}

/// The part for people.
fn explanation(request: &DsnRequest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut say = |indent: &str, text: &str| push_paragraph(indent, text, &mut out);
    say("", &request.text_about(texts::INTRODUCTION, request.reporting_mta.as_str()));
    for action in [Action::Failed, Action::Delayed, Action::Relayed] {
        let mut told = request.told.iter().filter(|told| told.action == action).peekable();
        if told.peek().is_some() {
            say(
                "",
                &match request.reader {
                    Reader::Sender => {
                        request.text_about(texts::news(action), &request.retry_until.rfc5322().to_string())
                    }
                    Reader::Administrator(_) => request.text(texts::WITHHELD).into_owned(),
                },
            );
        }
        for ReportedRecipient { recipient, report, .. } in told {
            let text = match &report.remote {
                None => format!("{}: {}", recipient.forward_path, report.text),
                Some(remote) => format!("{}: {remote}: {}", recipient.forward_path, report.text),
            };
            say("    ", &text);
        }
    }
    let id = request.id.to_string();
    say(
        "",
        &request.text(match request.ret {
            DsnReturn::Full => texts::MESSAGE_RETURNED,
            DsnReturn::Headers => texts::HEADER_RETURNED,
        }),
    );
    say(
        "",
        &match request.reader {
            Reader::Sender => request.text_about(texts::REFERENCE, &id),
            Reader::Administrator(_) => request.text_about(texts::WHAT_TO_DO, &id),
        },
    );
    out
}

/// The part for programs (RFC 3464 §2).
fn status(request: &DsnRequest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    push_field("Reporting-MTA", &format!("dns; {}", request.reporting_mta.ascii()), &mut out);
    if let Some(id) = &request.envelope.envelope_id {
        push_field("Original-Envelope-Id", &xtext::decode(id).unwrap_or_else(|| id.clone()), &mut out);
    }
    push_field("Arrival-Date", &request.arrival.rfc5322().to_string(), &mut out);
    for ReportedRecipient { recipient, action, report } in request.told {
        out.extend_from_slice(b"\r\n");
        if let Some(original) = &recipient.original_recipient {
            push_field("Original-Recipient", &original_recipient(original), &mut out);
        }
        push_field("Final-Recipient", &final_recipient(&recipient.forward_path), &mut out);
        let word = match action {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Relayed => "relayed",
        };
        push_field("Action", word, &mut out);
        push_field("Status", &report.status.to_string(), &mut out);
        match &report.reply {
            Some(reply) => {
                if let Some(remote) = &report.remote {
                    push_field("Remote-MTA", &format!("dns; {}", mta_name(remote)), &mut out);
                }
                push_field("Diagnostic-Code", &format!("smtp; {reply}"), &mut out);
            }
            None => push_field("Diagnostic-Code", &format!("x-mailguard; {}", report.text), &mut out),
        }
        push_field("Last-Attempt-Date", &request.now.rfc5322().to_string(), &mut out);
        if *action == Action::Delayed {
            push_field("Will-Retry-Until", &request.retry_until.rfc5322().to_string(), &mut out);
        }
    }
    out
}

/// `addr-type;xtext` with the address decoded; as it is where it can't be (RFC 3464 §2.3.1).
fn original_recipient(orcpt: &str) -> String {
    match orcpt.split_once(';') {
        Some((kind, address)) => {
            format!("{kind}; {}", xtext::decode(address).as_deref().unwrap_or(address))
        }
        None => orcpt.to_owned(),
    }
}

/// An address that ASCII can't say has the type utf-8, and `push_field` gives it the ASCII form (RFC 6533
/// §3).
fn final_recipient(path: &ForwardPath) -> String {
    match path {
        ForwardPath::Postmaster => "rfc822; postmaster".to_owned(),
        ForwardPath::Mailbox(mailbox) => match mailbox.in_ascii() {
            Some(address) => format!("rfc822; {address}"),
            None => format!("utf-8; {mailbox}"),
        },
    }
}

/// The server's name out of `name[address]:port`, or its address in brackets where it has none.
fn mta_name(remote: &str) -> &str {
    match remote.split_once('[') {
        Some(("", _)) => remote.find(']').map_or(remote, |end| &remote[..=end]),
        Some((name, _)) => name,
        None => remote,
    }
}

fn returned_part<'a>(request: &DsnRequest<'a>) -> (&'static str, &'a [u8]) {
    if request.ret == DsnReturn::Full && request.original.len() <= MAX_RETURNED_OCTETS {
        return ("message/rfc822", request.original);
    }
    let end = memchr::memmem::find(request.original, b"\r\n\r\n").map_or(request.original.len(), |at| at + 2);
    let header = &request.original[..end];
    if header.len() <= MAX_RETURNED_HEADER_OCTETS {
        return ("text/rfc822-headers", header);
    }
    let cut = memchr::memmem::rfind(&header[..MAX_RETURNED_HEADER_OCTETS], b"\r\n").map_or(0, |at| at + 2);
    ("text/rfc822-headers", &header[..cut])
}

/// A boundary that none of `parts` holds. One of the numbers is free: each part holds finitely many.
fn boundary(request: &DsnRequest<'_>, parts: &[&[u8]]) -> String {
    let occurs = |boundary: &String| {
        let finder = memchr::memmem::Finder::new(boundary);
        parts.iter().any(|part| finder.find(part).is_some())
    };
    let mut number: u64 = 0;
    loop {
        let boundary = format!("=_{}.{}.{number}", request.id, request.now.0);
        if !occurs(&boundary) {
            return boundary;
        }
        number += 1;
    }
}
