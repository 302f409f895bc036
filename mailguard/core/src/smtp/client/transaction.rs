//! One transaction of a client session: the commands to send, and what their replies mean for each recipient
//! (RFC 5321 §3.3, RFC 2920 for replies to commands sent ahead).
//!
//! Knows nothing of time or of the session around it: `client` sends what `next_batch` gives and acts on
//! `Next`.

use std::io::Write as _;

use super::capabilities::Capabilities;
use super::stage::Stage;
use super::{ContentForm, LeftBehind, Transaction};
use crate::dsn::wants_success;
use crate::mail::{DsnReturn, ForwardPath, Mailbox, Notify, Recipient, ReversePath};
use crate::outcome::{Outcome, Report, Transfer};
use crate::smtp::{Detail, EnhancedStatus, Reply, ReplyCode, Severity};

/// Most commands sent ahead of their replies: their replies, at 512 octets each, stay within the smallest
/// usual receive window, so that neither side blocks on writing (RFC 2920 §3.1).
pub const MAX_PIPELINED_COMMANDS: usize = 64;

/// Most lines of a reply that a report keeps.
pub const MAX_REPORTED_LINES: usize = 8;

/// Most octets of each such line.
pub const MAX_REPORTED_LINE_OCTETS: usize = 512;

/// What a reply leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More replies are due.
    Await,
    /// Everything sent is answered: send the next batch.
    Continue,
    /// The server waits for the content.
    Content,
    /// The server waits for content that has no recipient: end it at once (RFC 2920 §3.1).
    EmptyContent,
    /// The transaction is over.
    Concluded,
    /// The session is over: 421, or a reply that makes no sense here. The rest was deferred.
    Interrupted,
}

/// A command, and whom it is about.
#[derive(Debug, Clone, Copy)]
enum Command {
    Reset,
    Mail,
    /// The recipient at this place.
    Rcpt(usize),
    Data,
}

impl Command {
    const fn stage(self) -> Stage {
        match self {
            Command::Reset => Stage::Reset,
            Command::Mail => Stage::Mail,
            Command::Rcpt(_) => Stage::Rcpt,
            Command::Data => Stage::Data,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Step {
    command: Command,
    /// Where the command ends in the text.
    end: usize,
}

/// How far the transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Commands and their replies.
    Commands,
    /// The content is being written.
    Content,
    /// The final dot behind it is, or was.
    EndOfData,
    /// The final dot of content that has no recipient is.
    EndOfNothing,
}

/// What the transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To hand over a message.
    Delivery,
    /// To hear whether the recipients would be taken: nothing follows them.
    Probe,
}

/// What is known of one recipient.
#[derive(Debug)]
struct Addressee {
    /// The first that decides; no other one changes it.
    outcome: Option<Outcome>,
    /// Its sender wants to hear of success, and the server can't be told.
    success_unreported: bool,
}

impl Addressee {
    fn settle(&mut self, outcome: impl FnOnce() -> Outcome) {
        self.outcome.get_or_insert_with(outcome);
    }
}

/// The state of one transaction.
#[derive(Debug)]
pub(super) struct Progress {
    text: Vec<u8>,
    steps: Vec<Step>,
    sent: usize,
    answered: usize,
    phase: Phase,
    purpose: Purpose,
    /// In the order of the transaction's recipients.
    addressees: Vec<Addressee>,
    /// RCPT commands that the server took.
    accepted: usize,
    /// What of MAIL is in force at the server.
    left: LeftBehind,
}

impl Progress {
    /// Plans the commands, after one that ends what is in force at the server. Recipients that the server
    /// can't be given are decided here.
    pub(super) fn new(
        transaction: &Transaction<'_>,
        offers: &Capabilities,
        left: LeftBehind,
        remote: &str,
    ) -> Self {
        let recipients = transaction.recipients.len();
        let addressee = |recipient: &&Recipient| Addressee {
            outcome: None,
            success_unreported: wants_success(recipient) && !offers.dsn,
        };
        let mut progress = Self {
            text: Vec::with_capacity(128 + recipients * 64),
            steps: Vec::with_capacity(recipients + 3),
            sent: 0,
            answered: 0,
            phase: Phase::Commands,
            purpose: if transaction.content.is_some() { Purpose::Delivery } else { Purpose::Probe },
            addressees: transaction.recipients.iter().map(addressee).collect(),
            accepted: 0,
            left: LeftBehind::Nothing,
        };
        if let Some(report) = obstacle(transaction, offers, remote) {
            progress.settle_rest(Outcome::Failed(report));
            return progress;
        }
        if left == LeftBehind::OpenMail {
            progress.command(Command::Reset, |text| text.extend_from_slice(b"RSET"));
        }
        let utf8 = speaks_utf8(transaction, offers);
        progress.command(Command::Mail, |text| write_mail(text, transaction, offers, utf8));
        for (index, recipient) in transaction.recipients.iter().enumerate() {
            let path = &recipient.forward_path;
            if path.mailbox().is_some_and(local_part_needs_utf8) && !offers.smtputf8 {
                progress.addressees[index].settle(|| Outcome::Failed(needs_smtputf8(path, remote)));
                continue;
            }
            progress.command(Command::Rcpt(index), |text| write_rcpt(text, recipient, offers, utf8));
        }
        if progress.purpose == Purpose::Delivery {
            progress.command(Command::Data, |text| text.extend_from_slice(b"DATA"));
        }
        progress
    }

    fn command(&mut self, command: Command, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.text);
        self.text.extend_from_slice(b"\r\n");
        self.steps.push(Step { command, end: self.text.len() });
    }

    /// The next commands to send together; nothing when there is no point in going on.
    pub(super) fn next_batch(&mut self, pipelining: bool) -> Option<Vec<u8>> {
        self.steps.get(self.sent)?;
        if self.addressees.iter().all(|addressee| addressee.outcome.is_some()) {
            return None;
        }
        let most = if pipelining { MAX_PIPELINED_COMMANDS } else { 1 };
        let from = self.sent.checked_sub(1).map_or(0, |previous| self.steps[previous].end);
        self.sent = (self.sent + most).min(self.steps.len());
        let to = self.steps[self.sent - 1].end;
        Some(if (from, to) == (0, self.text.len()) {
            std::mem::take(&mut self.text)
        } else {
            self.text[from..to].to_vec()
        })
    }

    /// What the server is to do next.
    pub(super) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Commands => {
                let step = self.steps.get(self.answered).or(self.steps.last());
                step.map_or(Stage::Mail, |step| step.command.stage())
            }
            Phase::Content => Stage::Content,
            Phase::EndOfData | Phase::EndOfNothing => Stage::EndOfData,
        }
    }

    /// Whether the server has answered any command of this transaction.
    pub(super) fn heard(&self) -> bool {
        self.answered > 0
    }

    /// What is in force at the server.
    pub(super) fn left_behind(&self) -> LeftBehind {
        self.left
    }

    /// The content, with its final dot, is on its way.
    pub(super) fn content_sent(&mut self) {
        self.phase = Phase::EndOfData;
    }

    /// Takes the next reply.
    pub(super) fn on_reply(&mut self, reply: Reply, remote: &str) -> Next {
        if reply.code == ReplyCode::NOT_AVAILABLE {
            self.settle_rest(Outcome::Deferred(report(&reply, self.stage(), remote)));
            return Next::Interrupted;
        }
        match self.phase {
            Phase::Commands => self.on_command_reply(&reply, remote),
            Phase::Content => self.on_early_final_reply(&reply, remote),
            Phase::EndOfData | Phase::EndOfNothing => self.on_final_reply(&reply, remote),
        }
    }

    fn on_command_reply(&mut self, reply: &Reply, remote: &str) -> Next {
        let command = self.steps[self.answered].command;
        self.answered += 1;
        let severity = reply.code.severity();
        let in_force = self.left == LeftBehind::OpenMail;
        match (command, severity) {
            (Command::Reset, Severity::Completed) => {}
            (Command::Mail, Severity::Completed) => self.left = LeftBehind::OpenMail,
            (Command::Rcpt(index), Severity::Completed) if self.purpose == Purpose::Probe && in_force => {
                self.addressees[index].settle(|| Outcome::Delivered(delivered(reply, remote)));
            }
            (Command::Rcpt(_), Severity::Completed) => self.accepted += usize::from(in_force),
            (Command::Rcpt(index), Severity::Transient | Severity::Permanent) => {
                let outcome = self.rcpt_refusal(reply, remote);
                self.addressees[index].settle(|| outcome);
            }
            (Command::Data, Severity::Intermediate) if self.accepted > 0 => {
                self.phase = Phase::Content;
                return Next::Content;
            }
            (Command::Data, Severity::Intermediate) => {
                self.phase = Phase::EndOfNothing;
                return Next::EmptyContent;
            }
            // It says nothing about those who were asked about.
            (Command::Mail, Severity::Transient | Severity::Permanent) if self.purpose == Purpose::Probe => {
                self.settle_rest(Outcome::Deferred(report(reply, command.stage(), remote)));
            }
            (Command::Mail | Command::Data, Severity::Transient | Severity::Permanent) => {
                self.settle_rest(refusal(reply, command.stage(), remote));
            }
            _ => return self.nonsense(reply, command.stage(), remote),
        }
        match self.answered {
            answered if answered == self.steps.len() => Next::Concluded,
            answered if answered == self.sent => Next::Continue,
            _ => Next::Await,
        }
    }

    /// "Too many recipients" must be 452, but 552 was once said for it (RFC 5321 §4.5.3.1.10).
    fn rcpt_refusal(&self, reply: &Reply, remote: &str) -> Outcome {
        let too_many = reply.code == ReplyCode::EXCEEDED_STORAGE
            && match reply.status {
                Some(status) => status == EnhancedStatus::permanent(Detail::TOO_MANY_RECIPIENTS),
                None => self.accepted > 0,
            };
        if too_many {
            let mut report = report(reply, Stage::Rcpt, remote);
            report.status = EnhancedStatus::transient(Detail::TOO_MANY_RECIPIENTS);
            return Outcome::Deferred(report);
        }
        refusal(reply, Stage::Rcpt, remote)
    }

    /// A refusal before the final dot counts: without the dot the server can't have taken the message.
    /// Anything else is a reply to what it hasn't seen.
    fn on_early_final_reply(&mut self, reply: &Reply, remote: &str) -> Next {
        match reply.code.severity() {
            Severity::Transient | Severity::Permanent => {
                self.settle_rest(refusal(reply, Stage::Content, remote));
                Next::Interrupted
            }
            Severity::Completed | Severity::Intermediate => self.nonsense(reply, Stage::Content, remote),
        }
    }

    fn on_final_reply(&mut self, reply: &Reply, remote: &str) -> Next {
        match reply.code.severity() {
            Severity::Completed if self.phase == Phase::EndOfNothing => {}
            Severity::Completed => {
                self.left = LeftBehind::Nothing;
                self.settle_delivered(delivered(reply, remote));
            }
            Severity::Transient | Severity::Permanent => {
                self.left = LeftBehind::Nothing;
                self.settle_rest(refusal(reply, Stage::EndOfData, remote));
            }
            Severity::Intermediate => return self.nonsense(reply, Stage::EndOfData, remote),
        }
        Next::Concluded
    }

    fn nonsense(&mut self, reply: &Reply, stage: Stage, remote: &str) -> Next {
        let mut report = report(reply, stage, remote);
        report.status = EnhancedStatus::transient(Detail::OTHER_PROTOCOL);
        report.text = format!("the server broke the protocol: {}", report.text);
        self.settle_rest(Outcome::Deferred(report));
        Next::Interrupted
    }

    /// The server has the message for everyone who has no outcome yet.
    fn settle_delivered(&mut self, report: Report) {
        for addressee in &mut self.addressees {
            let outcome = if addressee.success_unreported { Outcome::Relayed } else { Outcome::Delivered };
            addressee.settle(|| outcome(report.clone()));
        }
    }

    /// Gives every recipient without an outcome this one.
    pub(super) fn settle_rest(&mut self, outcome: Outcome) {
        for addressee in &mut self.addressees {
            addressee.settle(|| outcome.clone());
        }
    }

    /// The outcomes, in the order of the recipients.
    pub(super) fn into_outcomes(self, remote: &str) -> Vec<Outcome> {
        let unsaid = || {
            Outcome::Deferred(Report::about(
                EnhancedStatus::transient(Detail::OTHER_PROTOCOL),
                remote.to_owned(),
                "the session ended before the server said anything of this recipient".to_owned(),
            ))
        };
        self.addressees.into_iter().map(|addressee| addressee.outcome.unwrap_or_else(unsaid)).collect()
    }
}

/// Why this server can't be given the message at all.
fn obstacle(transaction: &Transaction<'_>, offers: &Capabilities, remote: &str) -> Option<Report> {
    let report = |status, text| Some(Report::about(status, remote.to_owned(), text));
    if let Some(ContentForm { size, eight_bit, .. }) = transaction.content {
        if offers.excludes_size(size) {
            let limit = offers.size.unwrap_or_default();
            let text = format!("the message has {size} octets, the server takes at most {limit}");
            return report(EnhancedStatus::permanent(Detail::MESSAGE_TOO_BIG), text);
        }
        if eight_bit && !offers.eight_bit_mime {
            let text = "the message has 8-bit content and the server doesn't offer 8BITMIME".to_owned();
            return report(EnhancedStatus::permanent(Detail::CONVERSION_REQUIRED), text);
        }
    }
    if offers.smtputf8 {
        return None;
    }
    if transaction.content.is_some_and(|content| content.utf8_header) {
        return Some(needs_smtputf8("the header", remote));
    }
    let sender = transaction.envelope.reverse_path.mailbox();
    sender.filter(|sender| local_part_needs_utf8(sender)).map(|sender| needs_smtputf8(sender, remote))
}

fn needs_smtputf8(address: impl std::fmt::Display, remote: &str) -> Report {
    Report::about(
        EnhancedStatus::permanent(Detail::NON_ASCII_ADDRESSES),
        remote.to_owned(),
        format!("{address} needs SMTPUTF8 and the server doesn't offer it"),
    )
}

/// A domain can be written in A-labels, a local part can't.
fn local_part_needs_utf8(mailbox: &Mailbox) -> bool {
    !mailbox.local_part.as_str().is_ascii()
}

fn write_mail(text: &mut Vec<u8>, transaction: &Transaction<'_>, offers: &Capabilities, utf8: bool) {
    text.extend_from_slice(b"MAIL FROM:");
    let envelope = transaction.envelope;
    match &envelope.reverse_path {
        ReversePath::Null => text.extend_from_slice(b"<>"),
        ReversePath::Mailbox(mailbox) => write_path(text, mailbox, utf8),
    }
    if let Some(content) = transaction.content {
        if offers.size.is_some() {
            // Writing to a Vec never fails.
            let _ = write!(text, " SIZE={}", content.size);
        }
        if content.eight_bit {
            text.extend_from_slice(b" BODY=8BITMIME");
        }
    }
    if utf8 {
        text.extend_from_slice(b" SMTPUTF8");
    }
    // What a server without DSN can't be told stays here (RFC 3461 §5.2).
    if offers.dsn {
        if let Some(ret) = envelope.dsn_return {
            let ret: &[u8] = if ret == DsnReturn::Full { b" RET=FULL" } else { b" RET=HDRS" };
            text.extend_from_slice(ret);
        }
        if let Some(id) = &envelope.envelope_id {
            let _ = write!(text, " ENVID={id}");
        }
    }
}

/// Whether SMTPUTF8 is asked for: where the sender asked for it, or an address can't do without. A server
/// further on may not offer it, so nothing is made to need it.
fn speaks_utf8(transaction: &Transaction<'_>, offers: &Capabilities) -> bool {
    let envelope = transaction.envelope;
    let paths = transaction.recipients.iter().filter_map(|recipient| recipient.forward_path.mailbox());
    let mut all = paths.chain(envelope.reverse_path.mailbox());
    offers.smtputf8 && (envelope.smtputf8 || all.any(local_part_needs_utf8))
}

fn write_rcpt(text: &mut Vec<u8>, recipient: &Recipient, offers: &Capabilities, utf8: bool) {
    text.extend_from_slice(b"RCPT TO:");
    match &recipient.forward_path {
        ForwardPath::Postmaster => text.extend_from_slice(b"<postmaster>"),
        ForwardPath::Mailbox(mailbox) => write_path(text, mailbox, utf8),
    }
    if !offers.dsn {
        return;
    }
    if let Some(Notify { success, failure, delay }) = recipient.notify {
        let events = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
        let wanted: Vec<&str> = events.iter().filter(|event| event.0).map(|event| event.1).collect();
        let wanted = if wanted.is_empty() { "NEVER".to_owned() } else { wanted.join(",") };
        // Writing to a Vec never fails.
        let _ = write!(text, " NOTIFY={wanted}");
    }
    let original = recipient.original_recipient.as_ref();
    if let Some(original) = original.filter(|original| utf8 || original.is_ascii()) {
        let _ = write!(text, " ORCPT={original}");
    }
}

fn write_path(text: &mut Vec<u8>, mailbox: &Mailbox, utf8: bool) {
    let local_part = mailbox.local_part.as_str();
    // Writing to a Vec never fails.
    let _ = match mailbox.domain() {
        Some(domain) if !utf8 && !domain.as_str().is_ascii() => {
            write!(text, "<{local_part}@{}>", domain.ascii())
        }
        _ => write!(text, "<{mailbox}>"),
    };
}

/// The outcome of a 4yz or 5yz reply.
pub(super) fn refusal(reply: &Reply, stage: Stage, remote: &str) -> Outcome {
    let report = report(reply, stage, remote);
    match reply.code.severity() {
        Severity::Permanent => Outcome::Failed(report),
        _ => Outcome::Deferred(report),
    }
}

/// A report of what the server took.
fn delivered(reply: &Reply, remote: &str) -> Report {
    let kept = bounded(reply);
    let status = reply.status.unwrap_or(EnhancedStatus::success(Detail::UNDEFINED));
    Report {
        status,
        remote: Some(remote.to_owned()),
        text: kept.to_string(),
        reply: Some(kept),
        transfer: Transfer::default(),
    }
}

/// A report of what the server refused.
fn report(reply: &Reply, stage: Stage, remote: &str) -> Report {
    let severity = match reply.code.severity() {
        Severity::Permanent => Severity::Permanent,
        _ => Severity::Transient,
    };
    let kept = bounded(reply);
    let status = reply.status.filter(|status| status.is_of(severity));
    Report {
        status: status.unwrap_or(EnhancedStatus::of(severity, Detail::UNDEFINED)),
        remote: Some(remote.to_owned()),
        text: format!("{kept} (in reply to {stage})"),
        reply: Some(kept),
        transfer: Transfer::default(),
    }
}

/// The reply as far as a report keeps it, which is as long as the message and for each of its recipients.
fn bounded(reply: &Reply) -> Reply {
    let mut kept = reply.clone();
    kept.lines.truncate(MAX_REPORTED_LINES);
    for line in &mut kept.lines {
        line.truncate(line.floor_char_boundary(MAX_REPORTED_LINE_OCTETS));
    }
    kept
}
