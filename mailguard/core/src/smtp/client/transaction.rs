//! One transaction of a client session: the commands to send, and what their replies mean for each recipient
//! (RFC 5321 §3.3, RFC 2920 for replies to commands sent ahead).
//!
//! Knows nothing of time or of the session around it: `client` sends what `next_batch` gives and acts on `Next`.

use std::io::Write as _;

use super::capabilities::Capabilities;
use super::stage::Stage;
use super::{ContentForm, Transaction};
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

#[derive(Debug, Clone, Copy)]
struct Step {
    stage: Stage,
    /// Which recipient, for RCPT.
    recipient: usize,
    /// Where the command ends in the text.
    end: usize,
}

/// The state of one transaction.
#[derive(Debug)]
pub(super) struct Progress {
    text: Vec<u8>,
    steps: Vec<Step>,
    sent: usize,
    answered: usize,
    results: Vec<Option<Outcome>>,
    accepted: usize,
    mail_taken: bool,
    stage: Stage,
    empty: bool,
    /// Nothing follows the recipients.
    asks_only: bool,
    /// Those whose senders want to hear of success, where the server can't be told.
    success_unreported: Vec<bool>,
}

impl Progress {
    /// Plans the commands. Recipients that the server can't be given are decided here.
    pub(super) fn new(
        transaction: &Transaction<'_>,
        offers: &Capabilities,
        reset: bool,
        remote: &str,
    ) -> Self {
        let recipients = transaction.recipients.len();
        let mut progress = Self {
            text: Vec::with_capacity(128 + recipients * 64),
            steps: Vec::with_capacity(recipients + 3),
            sent: 0,
            answered: 0,
            results: vec![None; recipients],
            accepted: 0,
            mail_taken: false,
            stage: if reset { Stage::Reset } else { Stage::Mail },
            empty: false,
            asks_only: transaction.content.is_none(),
            success_unreported: transaction
                .recipients
                .iter()
                .map(|r| wants_success(r) && !offers.dsn)
                .collect(),
        };
        if let Some(report) = obstacle(transaction, offers, remote) {
            progress.settle_rest(Outcome::Failed(report));
            return progress;
        }
        if reset {
            progress.command(Stage::Reset, 0, |text| text.extend_from_slice(b"RSET"));
        }
        let utf8 = speaks_utf8(transaction, offers);
        progress.command(Stage::Mail, 0, |text| write_mail(text, transaction, offers, utf8));
        for (index, recipient) in transaction.recipients.iter().enumerate() {
            let path = &recipient.forward_path;
            if path.mailbox().is_some_and(local_part_needs_utf8) && !offers.smtputf8 {
                let report = needs_smtputf8(path, remote);
                progress.results[index] = Some(Outcome::Failed(report));
                continue;
            }
            progress.command(Stage::Rcpt, index, |text| write_rcpt(text, recipient, offers, utf8));
        }
        if !progress.asks_only {
            progress.command(Stage::Data, 0, |text| text.extend_from_slice(b"DATA"));
        }
        progress
    }

    fn command(&mut self, stage: Stage, recipient: usize, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.text);
        self.text.extend_from_slice(b"\r\n");
        self.steps.push(Step { stage, recipient, end: self.text.len() });
    }

    /// The next commands to send together; nothing when there is no point in going on.
    pub(super) fn next_batch(&mut self, pipelining: bool) -> Option<Vec<u8>> {
        self.steps.get(self.sent)?;
        if self.results.iter().all(Option::is_some) {
            return None;
        }
        let most = if pipelining { MAX_PIPELINED_COMMANDS } else { 1 };
        let from = self.sent.checked_sub(1).map_or(0, |previous| self.steps[previous].end);
        self.sent = (self.sent + most).min(self.steps.len());
        let to = self.steps[self.sent - 1].end;
        self.stage = self.steps[self.answered].stage;
        Some(if (from, to) == (0, self.text.len()) {
            std::mem::take(&mut self.text)
        } else {
            self.text[from..to].to_vec()
        })
    }

    /// What the server is to do next.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the server has answered any command of this transaction.
    pub(super) fn heard(&self) -> bool {
        self.answered > 0
    }

    /// Whether a MAIL command of ours is in force at the server.
    pub(super) fn is_open(&self) -> bool {
        self.mail_taken
    }

    /// The content, with its final dot, is on its way.
    pub(super) fn content_sent(&mut self) {
        self.stage = Stage::EndOfData;
    }

    /// Takes the next reply.
    pub(super) fn on_reply(&mut self, reply: Reply, remote: &str) -> Next {
        if reply.code == ReplyCode::NOT_AVAILABLE {
            self.settle_rest(Outcome::Deferred(report(&reply, self.stage, remote)));
            return Next::Interrupted;
        }
        match self.stage {
            Stage::Content => self.on_early_final_reply(&reply, remote),
            Stage::EndOfData => self.on_final_reply(&reply, remote),
            _ => self.on_command_reply(&reply, remote),
        }
    }

    fn on_command_reply(&mut self, reply: &Reply, remote: &str) -> Next {
        let step = self.steps[self.answered];
        self.answered += 1;
        let severity = reply.code.severity();
        match (step.stage, severity) {
            (Stage::Reset, Severity::Completed) => {}
            (Stage::Mail, Severity::Completed) => self.mail_taken = true,
            (Stage::Rcpt, Severity::Completed) if self.asks_only && self.mail_taken => {
                self.results[step.recipient].get_or_insert(Outcome::Delivered(delivered(reply, remote)));
            }
            (Stage::Rcpt, Severity::Completed) => self.accepted += usize::from(self.mail_taken),
            (Stage::Rcpt, Severity::Transient | Severity::Permanent) => {
                let outcome = self.rcpt_refusal(reply, remote);
                self.results[step.recipient].get_or_insert(outcome);
            }
            (Stage::Data, Severity::Intermediate) if self.accepted > 0 => {
                self.stage = Stage::Content;
                return Next::Content;
            }
            (Stage::Data, Severity::Intermediate) => {
                self.stage = Stage::EndOfData;
                self.empty = true;
                return Next::EmptyContent;
            }
            // It says nothing about those who were asked about.
            (Stage::Mail, Severity::Transient | Severity::Permanent) if self.asks_only => {
                self.settle_rest(Outcome::Deferred(report(reply, step.stage, remote)));
            }
            (Stage::Mail | Stage::Data, Severity::Transient | Severity::Permanent) => {
                self.settle_rest(refusal(reply, step.stage, remote));
            }
            _ => return self.nonsense(reply, remote),
        }
        if let Some(next) = self.steps.get(self.answered) {
            self.stage = next.stage;
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

    /// A refusal before the final dot counts: without the dot the server can't have taken the message. Anything
    /// else is a reply to what it hasn't seen.
    fn on_early_final_reply(&mut self, reply: &Reply, remote: &str) -> Next {
        match reply.code.severity() {
            Severity::Transient | Severity::Permanent => {
                self.settle_rest(refusal(reply, Stage::Content, remote));
                Next::Interrupted
            }
            Severity::Completed | Severity::Intermediate => self.nonsense(reply, remote),
        }
    }

    fn on_final_reply(&mut self, reply: &Reply, remote: &str) -> Next {
        match reply.code.severity() {
            Severity::Completed if self.empty => {}
            Severity::Completed => {
                self.mail_taken = false;
                self.settle_delivered(delivered(reply, remote));
            }
            Severity::Transient | Severity::Permanent => {
                self.mail_taken = false;
                self.settle_rest(refusal(reply, Stage::EndOfData, remote));
            }
            Severity::Intermediate => return self.nonsense(reply, remote),
        }
        Next::Concluded
    }

    fn nonsense(&mut self, reply: &Reply, remote: &str) -> Next {
        let mut report = report(reply, self.stage, remote);
        report.status = EnhancedStatus::transient(Detail::OTHER_PROTOCOL);
        report.text = format!("the server broke the protocol: {}", report.text);
        self.settle_rest(Outcome::Deferred(report));
        Next::Interrupted
    }

    /// The server has the message for everyone who has no outcome yet.
    fn settle_delivered(&mut self, report: Report) {
        for (result, success_unreported) in self.results.iter_mut().zip(&self.success_unreported) {
            let outcome = if *success_unreported { Outcome::Relayed } else { Outcome::Delivered };
            result.get_or_insert_with(|| outcome(report.clone()));
        }
    }

    /// Gives every recipient without an outcome this one.
    pub(super) fn settle_rest(&mut self, outcome: Outcome) {
        for result in &mut self.results {
            result.get_or_insert_with(|| outcome.clone());
        }
    }

    /// The outcomes, in the order of the recipients.
    pub(super) fn into_outcomes(mut self, remote: &str) -> Vec<Outcome> {
        self.settle_rest(Outcome::Deferred(Report::ours(
            EnhancedStatus::transient(Detail::OTHER_PROTOCOL),
            remote.to_owned(),
            "the session ended before the server said anything of this recipient".to_owned(),
        )));
        self.results.into_iter().flatten().collect()
    }
}

/// Why this server can't be given the message at all.
fn obstacle(transaction: &Transaction<'_>, offers: &Capabilities, remote: &str) -> Option<Report> {
    let report = |status, text| Some(Report::ours(status, remote.to_owned(), text));
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
    Report::ours(
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

/// Whether SMTPUTF8 is asked for: where the sender asked for it, or an address can't do without. A server further on may not
/// offer it, so nothing is made to need it.
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
        remote: remote.to_owned(),
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
        remote: remote.to_owned(),
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
