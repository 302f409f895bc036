//! The client's end of an SMTP session as a state machine (RFC 5321, RFC 2920, RFC 1870, RFC 6152).
//!
//! Stands between `delivery`, which owns the socket, and a next hop that is a stranger: octets and time go in,
//! actions come out. One session carries any number of transactions, one after the other. Whatever the server
//! does, each recipient of a transaction gets exactly one outcome, and what we can't know is transient.
//!
//! Left to others: which server (`mx`, `routing`), connecting, keeping and sharing sessions (`delivery`), trying
//! again (`queue`), TLS and authentication.

mod capabilities;
pub mod content;
mod reply_parser;
mod stage;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

pub use capabilities::Capabilities;
pub use reply_parser::{MAX_LINE_OCTETS, MAX_REPLY_LINES, MAX_REPLY_OCTETS, ReplyError};
pub use stage::{
    BLOCK_TIMEOUT, DATA_TIMEOUT, END_OF_DATA_TIMEOUT, GREETING_TIMEOUT, HELLO_TIMEOUT, MAIL_TIMEOUT,
    QUIT_TIMEOUT, RCPT_TIMEOUT, Stage,
};
pub use transaction::{MAX_PIPELINED_COMMANDS, MAX_REPORTED_LINE_OCTETS, MAX_REPORTED_LINES};

use self::reply_parser::ReplyParser;
use self::transaction::{Next, Progress, refusal};
use crate::mail::{Domain, Envelope, Host, Recipient};
use crate::outcome::{Outcome, Report};
use crate::smtp::{EnhancedStatus, Reply, Severity};

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
}

/// A message to hand over, or the question whether it would be taken.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// MAIL FROM and its parameters.
    pub envelope: &'a Envelope,
    /// RCPT TO, in place of the envelope's; at least one.
    pub recipients: &'a [Recipient],
    /// What will follow DATA. None: nothing, the server is only asked about the recipients, and a recipient that it
    /// takes has the outcome of one that is delivered.
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
    /// Write the content as `content` encodes it, calling [`Client::content_progress`] when a block is written
    /// and [`Client::content_sent`] after the last.
    SendContent,
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
    /// With the server's word; the session takes the next transaction.
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
    Ready,
    Transaction(Box<Progress>),
    Quitting,
    Closed,
}

/// One session.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    state: State,
    parser: ReplyParser,
    offers: Capabilities,
    /// A MAIL without an end is in force at the server: RSET comes before the next one.
    must_reset: bool,
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
            must_reset: false,
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
        matches!(self.state, State::Ready)
    }

    /// Whether the session is over: nothing may be written any more.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Starts a transaction. Outside of a ready session it is over at once, deferred.
    pub fn begin(&mut self, now: Instant, transaction: &Transaction<'_>) {
        let remote = &self.settings.remote;
        let mut progress = Box::new(Progress::new(transaction, &self.offers, self.must_reset, remote));
        if !self.is_ready() {
            self.conclude(*progress, Ending::Unanswered);
            return;
        }
        match progress.next_batch(self.offers.pipelining) {
            None => self.conclude(*progress, Ending::Settled),
            Some(commands) => {
                self.must_reset = false;
                self.send(now, progress.stage(), commands);
                self.state = State::Transaction(progress);
            }
        }
    }

    /// Takes leave: QUIT and a short wait for its reply. Only between transactions.
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
                Err(error) => return self.break_off(EnhancedStatus::new(4, 5, 0), &error.to_string()),
            }
        }
        // Nothing was asked, so nothing may be on its way.
        if self.is_ready() && !self.parser.is_empty() {
            self.close();
        }
    }

    /// The server closed the connection, or it broke: `cause` in a few words.
    pub fn handle_lost(&mut self, cause: &str) {
        self.break_off(EnhancedStatus::new(4, 4, 2), cause);
    }

    /// The time of [`Client::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.break_off(EnhancedStatus::new(4, 4, 2), "timed out");
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
            State::Helo => self.on_helo(&reply),
            State::Transaction(_) => self.on_transaction_reply(now, reply),
            State::Ready | State::Quitting => self.close(),
            State::Closed => {}
        }
    }

    fn on_greeting(&mut self, now: Instant, reply: &Reply) {
        match reply.code.severity() {
            Severity::Completed if self.greets_as_ourselves(reply) => self.loop_found(),
            Severity::Completed => {
                self.state = State::Ehlo;
                let hello = format!("EHLO {}\r\n", self.helo_argument());
                self.send_alone(now, Stage::Ehlo, hello.into_bytes());
            }
            _ => self.unusable(reply, Stage::Greeting),
        }
    }

    fn on_ehlo(&mut self, now: Instant, reply: &Reply) {
        match reply.code.severity() {
            Severity::Completed if self.greets_as_ourselves(reply) => self.loop_found(),
            Severity::Completed => {
                self.offers = Capabilities::of(reply);
                self.ready();
            }
            // A server from before RFC 1869.
            Severity::Permanent => {
                self.state = State::Helo;
                let hello = format!("HELO {}\r\n", self.helo_argument());
                self.send_alone(now, Stage::Helo, hello.into_bytes());
            }
            _ => self.unusable(reply, Stage::Ehlo),
        }
    }

    fn on_helo(&mut self, reply: &Reply) {
        match reply.code.severity() {
            Severity::Completed => self.ready(),
            _ => self.unusable(reply, Stage::Helo),
        }
    }

    fn ready(&mut self) {
        if !self.parser.is_empty() {
            return self.broken_ahead();
        }
        self.state = State::Ready;
        self.deadline = None;
        self.actions.push_back(Action::Ready);
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
        if let State::Transaction(progress) = std::mem::replace(&mut self.state, State::Ready) {
            self.must_reset = progress.is_open();
            self.conclude(*progress, ending);
        }
    }

    fn conclude(&mut self, progress: Progress, ending: Ending) {
        self.deadline = None;
        let outcomes = progress.into_outcomes(&self.settings.remote);
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
            Outcome::Deferred(Report { status, remote, reply: None, text })
        };
        match &mut self.state {
            State::Greeting => self.give_up(outcome(Stage::Greeting)),
            State::Ehlo => self.give_up(outcome(Stage::Ehlo)),
            State::Helo => self.give_up(outcome(Stage::Helo)),
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
            State::Ready | State::Quitting => self.close(),
            State::Closed => {}
        }
    }

    fn unusable(&mut self, reply: &Reply, stage: Stage) {
        self.give_up(refusal(reply, stage, &self.settings.remote));
    }

    fn loop_found(&mut self) {
        let Settings { remote, destination, .. } = &self.settings;
        self.give_up(Outcome::Failed(loop_report(
            destination,
            remote,
            "it greets with our own name. Change the route, or the name of one of the two",
        )));
    }

    fn give_up(&mut self, outcome: Outcome) {
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
        self.break_off(EnhancedStatus::new(4, 5, 0), "a reply to nothing that was asked");
    }

    fn helo_argument(&self) -> String {
        match &self.settings.helo {
            Host::Domain(domain) => domain.ascii().to_owned(),
            Host::Literal(literal) => literal.to_string(),
        }
    }

    /// The first word of a greeting or of the reply to EHLO is the server's name (RFC 5321 §4.2).
    fn greets_as_ourselves(&self, reply: &Reply) -> bool {
        let word =
            reply.lines.first().and_then(|line| line.split_ascii_whitespace().next()).unwrap_or_default();
        Domain::parse(word).is_ok_and(|name| self.settings.own_names.contains(&name))
    }
}

/// The report of a next hop that is ourselves (RFC 3463: 5.4.6). `why` says how it was seen and what to change.
pub fn loop_report(destination: &str, remote: &str, why: &str) -> Report {
    Report {
        status: EnhancedStatus::new(5, 4, 6),
        remote: remote.to_owned(),
        reply: None,
        text: format!("Mail for {destination} loops back to myself: {why}"),
    }
}
