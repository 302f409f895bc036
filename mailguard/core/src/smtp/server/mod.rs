//! The receiving end of an SMTP session as a state machine: octets and time go in, actions come out (RFC 5321
//! §3, §4).
//!
//! The driver owns the socket, the clock and the envelope. It gives what it reads to [`Server::handle_input`]
//! and performs what [`Server::poll_action`] hands out until that returns nothing; only then does it read on.
//! After a question (is this MAIL, this RCPT, this message accepted?) nothing more comes out until it is
//! answered. What we want is decided elsewhere (`policy`, `disposition`); here is what the protocol demands:
//! the order of commands, framing, limits, the grouping of replies (RFC 2920), the counting of errors.
//! `state` says where a session stands, `commands` and `authenticating` carry out lines, `receiving` takes
//! data.
//!
//! `R` is the receipt for a message that is safely stored. The only 250 to the end of data is in
//! [`Server::answer_data`], and it takes an `R`.

mod action;
mod authenticating;
mod commands;
mod input;
mod receiving;
mod replies;
mod settings;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::time::Instant;

use super::command::HeloName;
use super::enhanced_status::Detail;
use super::refusal::Refusal;
use super::reply::{Reply, ReplyCode, Severity};
use crate::language::Wording;
use crate::mail::QueueId;

pub use action::{Action, CloseReason, Question};
pub use authenticating::LoginRefused;
pub use settings::{AuthOffer, Settings, UncleanData};

use input::Input;
use replies::Replies;
use state::{Aftermath, Reference, State, Transaction};

/// Most idle commands between two messages: NOOP, RSET, HELP, VRFY, EHLO again, BDAT without content (junk
/// commands, as Postfix says). Each one more counts as an error.
pub const MAX_IDLE_COMMANDS: u32 = 100;

/// A transaction may name this many times `max_recipients`, refused ones included. Each recipient past that
/// is refused without asking policy, and counts as an error.
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

/// What is known of the client since the connection was accepted or, after STARTTLS, since the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// How it introduced itself.
    pub greeting: Greeting,
    /// Whether the session is encrypted.
    pub encrypted: bool,
    /// The authenticated user.
    pub user: Option<String>,
}

impl Introduction {
    /// Nothing was said yet.
    const fn of_stranger(encrypted: bool) -> Self {
        Self { greeting: Greeting::None, encrypted, user: None }
    }
}

/// Errors and idle commands since the last stored message.
#[derive(Debug, Default)]
struct Tally {
    errors: u32,
    /// See [`MAX_IDLE_COMMANDS`].
    idle_commands: u32,
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
    introduction: Introduction,
    input: Input,
    replies: Replies,
    tally: Tally,
    shutting_down: bool,
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
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl<R> Server<R> {
    /// A session whose connection was just accepted. The driver says when to greet; a client that sends
    /// before that is an early talker, and the session ends.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            deadline: now + settings.command_timeout,
            settings,
            state: State::Connected,
            introduction: Introduction::of_stranger(false),
            input: Input::default(),
            replies: Replies::default(),
            tally: Tally::default(),
            shutting_down: false,
            now,
            receipt: PhantomData,
        }
    }

    /// Greets the client: 220.
    pub fn greet(&mut self, now: Instant) {
        self.now = now;
        if matches!(self.state, State::Connected) {
            self.state = State::READY;
            self.say(&Reply::bare(
                ReplyCode::READY,
                vec![format!("{} ESMTP", self.settings.hostname.in_ascii())],
            ));
        }
    }

    /// Replaces the settings. TLS and authentication stay as they are.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Errors that the client made since its last message.
    pub fn errors(&self) -> u32 {
        self.tally.errors
    }

    /// EHLO name, TLS and authenticated user.
    pub fn introduction(&self) -> &Introduction {
        &self.introduction
    }

    /// The TLS handshake is done: what the client said before is discarded (RFC 3207 §4.2).
    /// Without effect unless [`Action::StartTls`] was given.
    pub fn tls_established(&mut self, now: Instant) {
        self.now = now;
        if matches!(self.state, State::StartingTls) {
            self.state = State::READY;
            self.introduction = Introduction::of_stranger(true);
            self.deadline = now + self.settings.command_timeout;
        }
    }

    /// Replies that wait, to be written before a question is answered that takes its time.
    /// [`Server::poll_action`] hands them out otherwise.
    pub fn take_replies(&mut self) -> Vec<u8> {
        self.replies.take()
    }

    /// Takes what was read. To be called only when `poll_action` has nothing more: then at most one
    /// unfinished command line is kept besides `octets`.
    pub fn handle_input(&mut self, now: Instant, octets: &[u8]) {
        // Timeouts hold for a client that never stops sending, too.
        self.handle_timeout(now);
        let last_moment = match &self.state {
            State::Connected => {
                let text = "Protocol error: you spoke before the greeting";
                let reply = Reply::new(ReplyCode::TRANSACTION_FAILED, Detail::INVALID_COMMAND, text);
                return self.hang_up(CloseReason::EarlyTalker, &reply);
            }
            State::Closing(_) | State::Closed => return,
            State::Receiving(reception) => Some(reception.last_moment),
            State::Skipping(chunk) => Some(chunk.last_moment),
            _ => None,
        };
        if let Some(last_moment) = last_moment {
            self.deadline = last_moment.min(now + self.settings.data_timeout);
        }
        self.input.push(octets);
    }

    /// Advances the clock. Past the deadline the reply is 421, and the session ends.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            let text = "Timeout, closing the connection";
            let reply = Reply::new(ReplyCode::NOT_AVAILABLE, Detail::BAD_CONNECTION, text);
            self.hang_up(CloseReason::Timeout, &reply);
        }
    }

    /// When to call [`Server::handle_timeout`]; nothing while the client waits for us.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Ready(_)
            | State::Authenticating(_)
            | State::Collecting(_)
            | State::Receiving(_)
            | State::BetweenChunks(_)
            | State::Skipping(_) => Some(self.deadline),
            _ => None,
        }
    }

    /// Ends the session at the next command: 421. A message that is on its way, all its chunks, is finished
    /// before.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action<'_>> {
        self.replies.forget_written();
        let emit = loop {
            if self.replies.are_due() {
                break Emit::Write;
            }
            match self.advance() {
                Progress::Again => {}
                Progress::Emit(emit) => break emit,
                Progress::Starved if self.replies.wait() => break Emit::Write,
                Progress::Starved | Progress::Blocked => return None,
            }
        };
        Some(match emit {
            Emit::Write => Action::Write(self.replies.hand_out()),
            Emit::Content(range) => Action::Body(self.input.at(range)),
            Emit::Plain(action) => action,
        })
    }

    fn advance(&mut self) -> Progress {
        match self.state {
            State::Ready(_) | State::Collecting(_) | State::BetweenChunks(_) => self.next_command(),
            State::Skipping(_) => self.skip_chunk(),
            State::Authenticating(_) => self.next_response(),
            State::Receiving(_) => self.receive(),
            State::TlsDue => {
                self.state = State::StartingTls;
                Progress::Emit(Emit::Plain(Action::StartTls))
            }
            State::Closing(reason) => {
                self.state = State::Closed;
                Progress::Emit(Emit::Plain(Action::Close(reason)))
            }
            State::Connected
            | State::JudgingMail { .. }
            | State::JudgingRcpt(_)
            | State::JudgingAuth { .. }
            | State::RefusingAuth
            | State::StartingTls
            | State::JudgingData(_)
            | State::Closed => Progress::Blocked,
        }
    }

    /// Answers [`Question::Mail`]; `id` names the transaction from now on. Without effect unless that was
    /// asked.
    pub fn answer_mail(&mut self, now: Instant, id: QueueId, verdict: Result<(), Refusal>) {
        self.now = now;
        let State::JudgingMail { smtputf8 } = self.state else { return };
        let reference = Reference { id, smtputf8 };
        match verdict {
            Ok(()) => {
                self.state = State::Collecting(Transaction::new(reference));
                self.say(&ok(Detail::OTHER_ADDRESS, "Sender ok"));
            }
            Err(refusal) => {
                self.state = State::Ready(Aftermath::MailRefused { commands: 0 });
                self.idle(&self.told(&refusal, reference));
            }
        }
    }

    /// Answers [`Question::Rcpt`]. Without effect unless that was asked. What is wrong with the sender counts
    /// as one error a transaction, however many recipients hear of it.
    pub fn answer_rcpt(&mut self, now: Instant, verdict: Result<(), Refusal>) {
        self.now = now;
        let mut transaction = match std::mem::replace(&mut self.state, State::Closed) {
            State::JudgingRcpt(transaction) => transaction,
            other => {
                self.state = other;
                return;
            }
        };
        transaction.named += 1;
        transaction.accepted += usize::from(verdict.is_ok());
        let refused = verdict.map_err(|refusal| {
            let reply = self.told(&refusal, transaction.reference);
            (reply, refusal.is_about_sender() && transaction.sender.was_counted())
        });
        self.state = State::Collecting(transaction);
        match refused {
            Ok(()) => self.say(&ok(Detail::DESTINATION_VALID, "Recipient ok")),
            Err((reply, true)) => self.say(&reply),
            Err((reply, false)) => self.refuse(&reply),
        }
    }

    /// Answers [`Question::Data`]: the receipt of the stored message, or why there is none. Without effect
    /// unless that was asked. A stored message clears the count of errors.
    pub fn answer_data(&mut self, now: Instant, verdict: Result<R, Refusal>) {
        self.now = now;
        let State::JudgingData(reference) = self.state else { return };
        self.state = State::READY;
        match verdict {
            Ok(_receipt) => {
                self.tally = Tally::default();
                self.say(&ok(Detail::UNDEFINED, &format!("Ok: queued as {}", reference.id)));
            }
            Err(refusal) => self.refuse(&self.told(&refusal, reference)),
        }
    }

    /// The reply to what is refused.
    fn told(&self, refusal: &Refusal, Reference { id, smtputf8 }: Reference) -> Reply {
        refusal.reply(id, Wording { language: self.settings.language, utf8: smtputf8 })
    }

    /// Sends a reply; the command timeout starts again.
    fn say(&mut self, reply: &Reply) {
        self.replies.push(reply);
        self.deadline = self.now + self.settings.command_timeout;
        if let State::BetweenChunks(reception) = &self.state {
            self.deadline = self.deadline.min(reception.last_moment);
        }
    }

    /// Replies with what may be an error of the client's: 5yz counts. Past the limit the session ends.
    fn refuse(&mut self, reply: &Reply) {
        if reply.code.severity() == Severity::Permanent {
            self.tally.errors += 1;
        }
        if self.tally.errors > self.settings.hard_error_limit {
            let text = "Too many errors, closing the connection";
            let reply = Reply::new(ReplyCode::NOT_AVAILABLE, Detail::OTHER_SECURITY, text);
            self.hang_up(CloseReason::TooManyErrors, &reply);
        } else {
            self.say(reply);
        }
    }

    /// Sends the last reply; the connection is closed after it.
    fn hang_up(&mut self, reason: CloseReason, reply: &Reply) {
        self.say(reply);
        self.replies.flush();
        self.state = State::Closing(reason);
    }
}

fn ok(detail: Detail, text: &str) -> Reply {
    Reply::new(ReplyCode::OK, detail, text)
}
