//! The receiving end of an SMTP session as a state machine: octets and time go in, actions come out (RFC 5321 §3, §4).
//!
//! The driver owns the socket, the clock and the envelope. It gives what it reads to [`Server::handle_input`] and
//! performs what [`Server::poll_action`] hands out until that returns nothing; only then does it read on. After a
//! question (may this MAIL, this RCPT, this message be?) nothing more comes out until it is answered.
//! What we want is decided elsewhere (`policy`, `disposition`); here is what the protocol demands: the order of
//! commands, framing, limits, the grouping of replies (RFC 2920), the counting of errors.
//!
//! `R` is the receipt for a message that is safely stored. The only 250 to the end of data is in
//! [`Server::answer_data`], and it takes an `R`.

mod action;
mod authenticating;
mod commands;
mod receiving;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Instant;

use super::command::HeloName;
use super::enhanced_status::Detail;
use super::line::Splitter;
use super::refusal::Refusal;
use super::reply::{Reply, ReplyCode, Severity};
use super::sasl::Exchange;
use crate::language::Wording;
use crate::mail::QueueId;

pub use action::{Action, CloseReason, Question};
pub use authenticating::LoginRefused;
pub use settings::{AuthOffer, Settings, UncleanData};

use receiving::Reception;

/// Commands that bring no message nearer (NOOP, RSET, HELP, VRFY, EHLO, BDAT without content) and aren't errors,
/// between two messages; each one more counts as an error.
pub const MAX_IDLE_COMMANDS: u32 = 100;

/// So many times its limit of recipients may a transaction name, refused ones included; each one more is not asked about, and
/// counts as an error.
const MAX_NAMED_RECIPIENTS_TIMES: usize = 2;

/// How the client introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// Not yet.
    None,
    /// HELO: no extensions.
    Helo(HeloName),
    /// EHLO: those that were offered.
    Ehlo(HeloName),
}

impl Greeting {
    /// What the client says it is called.
    pub fn name(&self) -> Option<&HeloName> {
        match self {
            Greeting::None => None,
            Greeting::Helo(name) | Greeting::Ehlo(name) => Some(name),
        }
    }
}

/// Where the session stands.
#[derive(Debug)]
enum State {
    /// Connected, not greeted yet.
    Opening,
    /// No transaction.
    Ready,
    /// MAIL was given, and waits for its answer.
    JudgingMail,
    /// AUTH was given; the client's next response is due.
    Authenticating(Exchange),
    /// The client said who it is, and waits for the answer.
    JudgingAuth { user: String },
    /// The client would be somebody else, and waits for the refusal.
    RefusingAuth,
    /// STARTTLS was given; once the reply is written, the driver is told.
    TlsDue,
    /// The driver does the handshake.
    StartingTls,
    /// In a transaction; recipients may be given, or data.
    Collecting(Transaction),
    /// RCPT was given, and waits for its answer.
    JudgingRcpt(Transaction),
    /// Data are coming.
    Receiving(QueueId, Reception),
    /// A chunk of the data came, and was not the last.
    BetweenChunks(QueueId, Reception),
    /// All data came; the message waits for its answer.
    JudgingData(QueueId),
    /// The last reply is to be written.
    Closing(CloseReason),
    /// Over.
    Closed,
}

/// What the protocol must know of a transaction; the envelope is the driver's.
#[derive(Debug)]
struct Transaction {
    id: QueueId,
    recipients: usize,
    /// Recipients that were asked about, whatever the answer.
    asked: usize,
    /// Recipients that were refused for who the sender is.
    sender_refused: usize,
}

/// A chunk that is thrown away, and answered when it has come (RFC 3030 §2).
#[derive(Debug)]
struct Unwanted {
    /// Octets that are still to come.
    left: u64,
    reply: Reply,
    /// Whether the reply counts as an error; else as a command that brings no message nearer.
    is_error: bool,
    /// When all of it must be here.
    last_moment: Instant,
}

/// What `advance` came to.
enum Progress {
    /// Something changed.
    Again,
    /// Something is to be done; octets are still where they lie.
    Emit(Emit),
    /// The input is used up.
    Starved,
    /// A question is open, or the session is over.
    Blocked,
}

enum Emit {
    Write,
    Content(Range<usize>),
    Plain(Action<'static>),
}

/// One session.
pub struct Server<R> {
    settings: Settings,
    state: State,
    greeting: Greeting,
    /// What the client sent; the part up to `used` is done with.
    input: Vec<u8>,
    used: usize,
    splitter: Splitter,
    /// Replies that wait to be written together.
    output: Vec<u8>,
    /// They must not wait for those to later commands (RFC 2920 §3.2).
    flush: bool,
    /// They were handed out.
    written: bool,
    errors: u32,
    idle_commands: u32,
    shutting_down: bool,
    /// A chunk that nobody wants.
    unwanted: Option<Unwanted>,
    /// A chunk was refused, and with it those that the client sent before it knew.
    chunks_refused: bool,
    /// MAIL was refused, and with it so many commands that the client sent for that transaction before it knew.
    mail_refused: Option<usize>,
    encrypted: bool,
    /// Who the client has shown to be.
    user: Option<String>,
    /// The last MAIL said SMTPUTF8.
    smtputf8: bool,
    /// The latest time that the driver told.
    now: Instant,
    /// When the client must have sent its next command, or some more data.
    deadline: Instant,
    receipt: PhantomData<fn(R)>,
}

/// What the client sent may be a password: it isn't shown.
impl<R> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("state", &self.state)
            .field("errors", &self.errors)
            .finish_non_exhaustive()
    }
}

impl<R> Server<R> {
    /// A session whose connection was just accepted. The driver says when to greet; a word from the client
    /// before that ends the session.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            deadline: now + settings.command_timeout,
            settings,
            state: State::Opening,
            greeting: Greeting::None,
            input: Vec::new(),
            used: 0,
            splitter: Splitter::default(),
            output: Vec::new(),
            flush: false,
            written: false,
            errors: 0,
            idle_commands: 0,
            shutting_down: false,
            unwanted: None,
            chunks_refused: false,
            mail_refused: None,
            encrypted: false,
            user: None,
            smtputf8: false,
            now,
            receipt: PhantomData,
        }
    }

    /// Greets the client: 220.
    pub fn greet(&mut self, now: Instant) {
        self.now = now;
        if matches!(self.state, State::Opening) {
            self.state = State::Ready;
            self.say(&Reply::bare(
                ReplyCode::READY,
                vec![format!("{} ESMTP", self.settings.hostname.in_ascii())],
            ));
        }
    }

    /// Goes by these from now on. What the client was offered before stays true of the session: whether it is encrypted, who
    /// it is.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Errors that the client made since its last message.
    pub fn errors(&self) -> u32 {
        self.errors
    }

    /// How the client introduced itself.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Whether the session is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Who the client has shown to be.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The TLS handshake is done: the session begins anew, and nothing is believed that was said before (RFC 3207 §4.2).
    /// Without effect unless [`Action::StartTls`] was given.
    pub fn tls_established(&mut self, now: Instant) {
        self.now = now;
        if matches!(self.state, State::StartingTls) {
            self.state = State::Ready;
            self.encrypted = true;
            self.greeting = Greeting::None;
            self.user = None;
            self.deadline = now + self.settings.command_timeout;
        }
    }

    /// Replies that wait, to be written before a question is answered that takes its time. [`Server::poll_action`] hands
    /// them out otherwise.
    pub fn take_replies(&mut self) -> Vec<u8> {
        if std::mem::take(&mut self.written) {
            self.output.clear();
        }
        std::mem::take(&mut self.output)
    }

    /// Takes what was read. To be called only when `poll_action` has nothing more: then at most one
    /// unfinished command line is kept besides `octets`.
    pub fn handle_input(&mut self, now: Instant, octets: &[u8]) {
        // A client that never pauses has its deadlines, too.
        self.handle_timeout(now);
        match &self.state {
            State::Opening => {
                let text = "Protocol error: you spoke before the greeting";
                self.hang_up(CloseReason::EarlyTalker, ReplyCode::TRANSACTION_FAILED, Detail::INVALID_COMMAND, text);
            }
            State::Closing(_) | State::Closed => {}
            state => {
                let content = match (state, &self.unwanted) {
                    (State::Receiving(_, reception), _) => Some(reception.last_moment),
                    (_, unwanted) => unwanted.as_ref().map(|unwanted| unwanted.last_moment),
                };
                if let Some(last_moment) = content {
                    self.deadline = last_moment.min(now + self.settings.data_timeout);
                }
                self.input.drain(..self.used);
                self.used = 0;
                self.input.extend_from_slice(octets);
            }
        }
    }

    /// Tells the time. A client that is late is told so, and the session ends.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            let text = "Timeout, closing the connection";
            self.hang_up(CloseReason::Timeout, ReplyCode::NOT_AVAILABLE, Detail::BAD_CONNECTION, text);
        }
    }

    /// When to call [`Server::handle_timeout`]; nothing while the client waits for us.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Ready
            | State::Authenticating(_)
            | State::Collecting(_)
            | State::Receiving(..)
            | State::BetweenChunks(..) => Some(self.deadline),
            _ => None,
        }
    }

    /// Ends the session at the next command: 421. A message that is on its way, all its chunks, is finished before.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action<'_>> {
        if std::mem::take(&mut self.written) {
            self.output.clear();
        }
        let emit = loop {
            if self.flush && !self.output.is_empty() {
                break Emit::Write;
            }
            match self.advance() {
                Progress::Again => {}
                Progress::Emit(emit) => break emit,
                Progress::Starved if !self.output.is_empty() => break Emit::Write,
                Progress::Starved | Progress::Blocked => return None,
            }
        };
        Some(match emit {
            Emit::Write => {
                (self.flush, self.written) = (false, true);
                Action::Write(&self.output)
            }
            Emit::Content(range) => Action::Body(&self.input[range]),
            Emit::Plain(action) => action,
        })
    }

    fn advance(&mut self) -> Progress {
        match self.state {
            State::Ready | State::Collecting(_) | State::BetweenChunks(..) if self.unwanted.is_some() => {
                self.skip_unwanted()
            }
            State::Ready | State::Collecting(_) | State::BetweenChunks(..) => self.next_command(),
            State::Authenticating(_) => self.next_response(),
            State::Receiving(..) => self.receive(),
            State::TlsDue => {
                self.state = State::StartingTls;
                Progress::Emit(Emit::Plain(Action::StartTls))
            }
            State::Closing(reason) => {
                self.state = State::Closed;
                Progress::Emit(Emit::Plain(Action::Close(reason)))
            }
            State::Opening
            | State::JudgingMail
            | State::JudgingRcpt(_)
            | State::JudgingAuth { .. }
            | State::RefusingAuth
            | State::StartingTls
            | State::JudgingData(_)
            | State::Closed => Progress::Blocked,
        }
    }

    /// Throws a chunk away that nobody wants.
    fn skip_unwanted(&mut self) -> Progress {
        let Some(mut unwanted) = self.unwanted.take() else { return Progress::Again };
        let here = self.input.len() - self.used;
        let skipped = usize::try_from(unwanted.left).map_or(here, |left| left.min(here));
        self.used += skipped;
        unwanted.left -= skipped as u64;
        if unwanted.left > 0 {
            self.unwanted = Some(unwanted);
            return Progress::Starved;
        }
        self.idle_commands = self.idle_commands.saturating_add(1);
        if unwanted.is_error || self.idle_commands > MAX_IDLE_COMMANDS {
            self.refuse(&unwanted.reply);
        } else {
            self.say(&unwanted.reply);
        }
        Progress::Again
    }

    /// Answers [`Question::Mail`]; `id` names the transaction from now on. Without effect unless that was asked.
    pub fn answer_mail(&mut self, now: Instant, id: QueueId, verdict: Result<(), Refusal>) {
        self.now = now;
        let State::JudgingMail = self.state else { return };
        self.state = State::Ready;
        match verdict {
            Ok(()) => {
                let none_yet = Transaction { id, recipients: 0, asked: 0, sender_refused: 0 };
                self.state = State::Collecting(none_yet);
                self.say(&ok(Detail::OTHER_ADDRESS, "Sender ok"));
            }
            Err(refusal) => {
                self.mail_refused = Some(0);
                self.idle(&self.told(&refusal, id));
            }
        }
    }

    /// Answers [`Question::Rcpt`]. Without effect unless that was asked. What is wrong with the sender counts as one error
    /// a transaction, however many recipients hear of it.
    pub fn answer_rcpt(&mut self, now: Instant, verdict: Result<(), Refusal>) {
        self.now = now;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::JudgingRcpt(mut transaction) => {
                let id = transaction.id;
                transaction.asked += 1;
                transaction.recipients += usize::from(verdict.is_ok());
                self.state = State::Collecting(transaction);
                match verdict {
                    Ok(()) => self.say(&ok(Detail::DESTINATION_VALID, "Recipient ok")),
                    Err(refusal) => self.refuse_rcpt(id, &refusal),
                }
            }
            other => self.state = other,
        }
    }

    fn refuse_rcpt(&mut self, id: QueueId, refusal: &Refusal) {
        let counted = match &mut self.state {
            State::Collecting(transaction) if refusal.is_about_sender() => {
                transaction.sender_refused += 1;
                transaction.sender_refused > 1
            }
            _ => false,
        };
        let reply = self.told(refusal, id);
        if counted { self.say(&reply) } else { self.refuse(&reply) }
    }

    /// Answers [`Question::Data`]: the receipt of the stored message, or why there is none. Without effect unless
    /// that was asked. A stored message clears the count of errors.
    pub fn answer_data(&mut self, now: Instant, verdict: Result<R, Refusal>) {
        self.now = now;
        let State::JudgingData(id) = self.state else { return };
        self.state = State::Ready;
        match verdict {
            Ok(_receipt) => {
                (self.errors, self.idle_commands) = (0, 0);
                self.say(&ok(Detail::UNDEFINED, &format!("Ok: queued as {id}")));
            }
            Err(refusal) => self.refuse(&self.told(&refusal, id)),
        }
    }

    /// What the client is told of a refusal.
    fn told(&self, refusal: &Refusal, id: QueueId) -> Reply {
        refusal.reply(id, Wording { language: self.settings.language, utf8: self.smtputf8 })
    }

    /// Replies, and waits for what comes next.
    fn say(&mut self, reply: &Reply) {
        reply.encode(&mut self.output);
        self.deadline = self.now + self.settings.command_timeout;
        if let State::BetweenChunks(_, reception) = &self.state {
            self.deadline = self.deadline.min(reception.last_moment);
        }
    }

    /// Replies with what may be an error of the client's: 5yz counts. Past the limit the session ends.
    fn refuse(&mut self, reply: &Reply) {
        if reply.code.severity() == Severity::Permanent {
            self.errors += 1;
        }
        if self.errors > self.settings.hard_error_limit {
            let text = "Too many errors, closing the connection";
            self.hang_up(CloseReason::TooManyErrors, ReplyCode::NOT_AVAILABLE, Detail::OTHER_SECURITY, text);
        } else {
            self.say(reply);
        }
    }

    /// Says the last word.
    fn hang_up(&mut self, reason: CloseReason, code: ReplyCode, detail: Detail, text: &str) {
        self.say(&Reply::new(code, detail, text));
        self.flush = true;
        self.state = State::Closing(reason);
    }
}

fn ok(detail: Detail, text: &str) -> Reply {
    Reply::new(ReplyCode::OK, detail, text)
}
