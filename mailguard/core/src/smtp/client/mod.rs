//! The client's end of an SMTP session as a state machine (RFC 5321, RFC 2920, RFC 1870, RFC 6152).
//!
//! Stands between `delivery`, which owns the socket, and a next hop that isn't trusted: octets and time go
//! in, actions come out. One session carries any number of transactions, one after the other. Whatever the
//! server does, each recipient of a transaction gets exactly one outcome, and what we can't know is
//! transient.
//!
//! Left to others: which server (`mx`, `routing`), connecting, keeping and sharing sessions (`delivery`),
//! trying again (`queue`), and the TLS handshake itself, for which the driver is asked.

mod capabilities;
pub mod content;
mod opening;
mod reply_parser;
mod sasl;
mod stage;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

pub use capabilities::Capabilities;
pub use reply_parser::{MAX_LINE_OCTETS, MAX_REPLY_LINES, MAX_REPLY_OCTETS, ReplyError};
pub use stage::{
    AUTH_TIMEOUT, BLOCK_TIMEOUT, DATA_TIMEOUT, END_OF_DATA_TIMEOUT, GREETING_TIMEOUT, HANDSHAKE_TIMEOUT,
    HELLO_TIMEOUT, MAIL_TIMEOUT, QUIT_TIMEOUT, RCPT_TIMEOUT, Stage,
};
pub use transaction::{MAX_PIPELINED_COMMANDS, MAX_REPORTED_LINE_OCTETS, MAX_REPORTED_LINES};

use self::reply_parser::ReplyParser;
use self::sasl::Exchange;
use self::transaction::{Next, Progress};
use crate::config::model::Login;
use crate::mail::{Domain, Envelope, Host, Recipient};
use crate::outcome::{Outcome, Report, Transfer};
use crate::smtp::{Detail, EnhancedStatus, Reply, Severity};

/// What a session is told at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The argument of EHLO and HELO.
    pub helo: Host,
    /// A server that greets with one of these is ourselves.
    pub own_names: Vec<Domain>,
    /// The server, for reports: `mx.example[192.0.2.1]:25`.
    pub remote: String,
    /// The domain or address that we deliver to, for reports of loops.
    pub destination: String,
    /// Whether the session is to be encrypted.
    pub encryption: Encryption,
    /// Who we are to the server.
    pub login: Option<Login>,
    /// The server's name or address, for DIGEST-MD5.
    pub host: String,
    /// New for each session and not to be guessed, for DIGEST-MD5.
    pub cnonce: String,
}

/// Whether a session is to be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// No; a password may go in the clear.
    Off,
    /// No, though it would have been if the server could.
    Failed,
    /// If the server offers it.
    Offered,
    /// Yes, or the session doesn't come about.
    Required,
    /// It is, from the start.
    Established,
}

/// A message to hand over, or the question whether it would be taken.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// MAIL FROM and its parameters.
    pub envelope: &'a Envelope,
    /// RCPT TO, in place of the envelope's; at least one.
    pub recipients: &'a [&'a Recipient],
    /// What will follow DATA. None: nothing, the server is only asked about the recipients, and a recipient
    /// that it takes has the outcome of one that is delivered.
    pub content: Option<ContentForm>,
}

/// What the server must know of the content.
#[derive(Debug, Clone, Copy)]
pub struct ContentForm {
    /// Octets of the content, line ends included, before dot-stuffing (RFC 1870 §5).
    pub size: u64,
    /// The content holds octets above 127, or may.
    pub eight_bit: bool,
    /// The header holds such octets, which the server must be able to take (RFC 6532).
    pub utf8_header: bool,
}

/// What the driver shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these octets.
    Send(Vec<u8>),
    /// Write the content as `content` encodes it, calling [`Client::content_progress`] when a block is
    /// written and [`Client::content_sent`] after the last.
    SendContent,
    /// Do the TLS handshake and call [`Client::tls_established`], or [`Client::tls_failed`].
    StartTls,
    /// The session stands: [`Client::begin`] may be called.
    Ready,
    /// The session doesn't come about; this holds for each recipient of a message meant for it. A failure
    /// counts for this server only.
    Unusable(Outcome),
    /// The transaction is over.
    Concluded(Conclusion),
    /// Close the connection; no other action follows.
    Close,
}

/// The result of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// One for each recipient, in their order.
    pub outcomes: Vec<Outcome>,
    /// How it came to its end.
    pub ending: Ending,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With the server's replies; the session takes the next transaction.
    Settled,
    /// With the session, before the server had the message. Nothing forbids to try another server at once.
    Interrupted,
    /// As `Interrupted`, and before the server reacted to the transaction at all: a session that had been
    /// kept open had died meanwhile.
    Unanswered,
    /// With the session, while the server had the message and hadn't said what becomes of it: it may arrive
    /// twice if it is sent again (RFC 5321 §4.5.4.1).
    InDoubt,
}

#[derive(Debug)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    Auth(Exchange),
    Ready(LeftBehind),
    Transaction(Box<Progress>),
    Quitting,
    Closed,
}

/// What of a transaction is in force at the server when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeftBehind {
    /// Nothing: the next one may begin.
    Nothing,
    /// A MAIL without an end: RSET comes before the next one.
    OpenMail,
}

/// One session.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    state: State,
    parser: ReplyParser,
    offers: Capabilities,
    transfer: Transfer,
    deadline: Option<Instant>,
    actions: VecDeque<Action>,
}

impl Client {
    /// A session whose connection stands: the greeting comes first.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            state: State::Greeting,
            parser: ReplyParser::default(),
            offers: Capabilities::default(),
            transfer: Transfer::default(),
            deadline: Some(now + Stage::Greeting.timeout()),
            actions: VecDeque::with_capacity(4),
        }
    }

    /// What to do next, until there is nothing.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Client::handle_timeout`] if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// What the server offered.
    pub fn capabilities(&self) -> &Capabilities {
        &self.offers
    }

    /// Whether [`Client::begin`] may be called.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Whether the session is over: nothing may be written any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Starts a transaction. Outside of a ready session it is over at once, deferred.
    pub fn begin(&mut self, now: Instant, transaction: &Transaction<'_>) {
        let left = match self.state {
            State::Ready(left) => Some(left),
            _ => None,
        };
        let remote = &self.settings.remote;
        let before = left.unwrap_or(LeftBehind::Nothing);
        let mut progress = Box::new(Progress::new(transaction, &self.offers, before, remote));
        if left.is_none() {
            self.conclude(*progress, Ending::Unanswered);
            return;
        }
        match progress.next_batch(self.offers.pipelining) {
            None => self.conclude(*progress, Ending::Settled),
            Some(commands) => {
                self.send(now, progress.stage(), commands);
                self.state = State::Transaction(progress);
            }
        }
    }

    /// Ends the session: QUIT and a short wait for its reply. Only between transactions.
    pub fn quit(&mut self, now: Instant) {
        if self.is_ready() {
            self.state = State::Quitting;
            self.send(now, Stage::Quit, b"QUIT\r\n".to_vec());
        }
    }

    /// Takes what the server sent.
    pub fn handle_input(&mut self, now: Instant, octets: &[u8]) {
        self.parser.push(octets);
        while !matches!(self.state, State::Closed) {
            match self.parser.next_reply() {
                Ok(Some(reply)) => self.on_reply(now, reply),
                Ok(None) => break,
                Err(error) => {
                    return self
                        .break_off(EnhancedStatus::transient(Detail::OTHER_PROTOCOL), &error.to_string());
                }
            }
        }
        // Nothing was asked, so nothing may be on its way.
        if self.is_ready() && !self.parser.is_empty() {
            self.close();
        }
    }

    /// The server closed the connection, or it broke: `cause` in a few words.
    pub fn handle_lost(&mut self, cause: &str) {
        self.break_off(EnhancedStatus::transient(Detail::BAD_CONNECTION), cause);
    }

    /// The time of [`Client::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.break_off(EnhancedStatus::transient(Detail::BAD_CONNECTION), "timed out");
        }
    }

    /// A block of the content was written: the server has time for the next one.
    pub fn content_progress(&mut self, now: Instant) {
        if let State::Transaction(progress) = &self.state
            && progress.stage() == Stage::Content
        {
            self.deadline = Some(now + Stage::Content.timeout());
        }
    }

    /// The content is written, with its final dot.
    pub fn content_sent(&mut self, now: Instant) {
        if let State::Transaction(progress) = &mut self.state
            && progress.stage() == Stage::Content
        {
            progress.content_sent();
            self.deadline = Some(now + Stage::EndOfData.timeout());
        }
    }

    fn on_reply(&mut self, now: Instant, reply: Reply) {
        match &self.state {
            State::Greeting => self.on_greeting(now, &reply),
            State::Ehlo => self.on_ehlo(now, &reply),
            State::Helo => self.on_helo(now, &reply),
            State::StartTls => self.on_start_tls(now, &reply),
            State::Auth(_) => self.on_auth(now, &reply),
            State::Transaction(_) => self.on_transaction_reply(now, reply),
            // It came in the clear, and would be taken for what comes encrypted.
            State::Handshake => self.broken_ahead(),
            State::Ready(_) | State::Quitting => self.close(),
            State::Closed => {}
        }
    }

    fn on_transaction_reply(&mut self, now: Instant, reply: Reply) {
        let State::Transaction(progress) = &mut self.state else { return };
        let in_doubt =
            progress.stage() == Stage::EndOfData && reply.code.severity() == Severity::Intermediate;
        let unanswered = !progress.heard();
        let next = progress.on_reply(reply, &self.settings.remote);
        let stage = progress.stage();
        match next {
            Next::Await => self.deadline = Some(now + stage.timeout()),
            Next::Content => {
                self.deadline = Some(now + stage.timeout());
                self.actions.push_back(Action::SendContent);
            }
            Next::EmptyContent => self.send(now, stage, content::END_OF_DATA.to_vec()),
            Next::Continue => self.next_batch(now),
            Next::Concluded => self.take_conclusion(Ending::Settled),
            Next::Interrupted => {
                let ending = if in_doubt {
                    Ending::InDoubt
                } else if unanswered {
                    Ending::Unanswered
                } else {
                    Ending::Interrupted
                };
                self.take_conclusion(ending);
            }
        }
    }

    fn next_batch(&mut self, now: Instant) {
        let State::Transaction(progress) = &mut self.state else { return };
        match progress.next_batch(self.offers.pipelining) {
            None => self.take_conclusion(Ending::Settled),
            Some(commands) => {
                let stage = progress.stage();
                self.send_alone(now, stage, commands);
            }
        }
    }

    fn take_conclusion(&mut self, ending: Ending) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Transaction(progress) => {
                self.state = State::Ready(progress.left_behind());
                self.conclude(*progress, ending);
            }
            other => self.state = other,
        }
    }

    fn conclude(&mut self, progress: Progress, ending: Ending) {
        self.deadline = None;
        let mut outcomes = progress.into_outcomes(&self.settings.remote);
        for outcome in &mut outcomes {
            let report = outcome.report_mut();
            report.transfer = Transfer { converted: report.transfer.converted, ..self.transfer.clone() };
        }
        self.actions.push_back(Action::Concluded(Conclusion { outcomes, ending }));
        if ending != Ending::Settled {
            self.close();
        }
    }

    /// Ends the session, and the transaction in it, for a reason that the server didn't put into a reply.
    fn break_off(&mut self, status: EnhancedStatus, cause: &str) {
        let outcome = |stage: Stage| {
            let remote = self.settings.remote.clone();
            let text = format!("{cause} while waiting for the server ({stage})");
            Outcome::Deferred(Report::about(status, remote, text))
        };
        match &mut self.state {
            State::Greeting => self.give_up(outcome(Stage::Greeting)),
            State::Ehlo => self.give_up(outcome(Stage::Ehlo)),
            State::Helo => self.give_up(outcome(Stage::Helo)),
            State::StartTls => self.give_up(outcome(Stage::StartTls)),
            State::Handshake => self.give_up(outcome(Stage::Handshake)),
            State::Auth(_) => self.give_up(outcome(Stage::Auth)),
            State::Transaction(progress) => {
                let ending = match (progress.stage(), progress.heard()) {
                    (Stage::EndOfData, _) => Ending::InDoubt,
                    (_, true) => Ending::Interrupted,
                    (_, false) => Ending::Unanswered,
                };
                let outcome = outcome(progress.stage());
                progress.settle_rest(outcome);
                self.take_conclusion(ending);
            }
            State::Ready(_) | State::Quitting => self.close(),
            State::Closed => {}
        }
    }

    fn give_up(&mut self, mut outcome: Outcome) {
        outcome.report_mut().transfer = self.transfer.clone();
        self.actions.push_back(Action::Unusable(outcome));
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.deadline = None;
        self.actions.push_back(Action::Close);
    }

    fn send(&mut self, now: Instant, stage: Stage, octets: Vec<u8>) {
        self.deadline = Some(now + stage.timeout());
        self.actions.push_back(Action::Send(octets));
    }

    /// Sends what must follow all replies so far. Octets beyond them would be a reply to a command that the
    /// server hasn't seen.
    fn send_alone(&mut self, now: Instant, stage: Stage, octets: Vec<u8>) {
        if self.parser.is_empty() {
            self.send(now, stage, octets);
        } else {
            self.broken_ahead();
        }
    }

    fn broken_ahead(&mut self) {
        self.break_off(
            EnhancedStatus::transient(Detail::OTHER_PROTOCOL),
            "a reply to nothing that was asked",
        );
    }
}

/// The report of a next hop that is ourselves (RFC 3463: 5.4.6). `why` says how it was seen and what to
/// change.
pub fn loop_report(destination: &str, remote: Option<&str>, why: &str) -> Report {
    let text = format!("Mail for {destination} loops back to myself: {why}");
    let report = Report::ours(EnhancedStatus::permanent(Detail::ROUTING_LOOP), text);
    Report { remote: remote.map(str::to_owned), ..report }
}
