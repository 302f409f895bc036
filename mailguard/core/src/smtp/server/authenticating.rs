//! AUTH: when it is allowed, and the SASL exchange line by line (RFC 4954 §4). The driver checks the
//! credentials.

use std::time::Instant;

use crate::smtp::command::{AuthCommand, CommandError};
use crate::smtp::enhanced_status::Detail;
use crate::smtp::line::Line;
use crate::smtp::reply::{Reply, ReplyCode};
use crate::smtp::sasl::{Exchange, Step};

use super::state::State;
use super::{Action, AuthOffer, Emit, Progress, Question, Server};

/// Why a login is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRefused {
    /// Name or password is wrong.
    Wrong,
    /// The client gave an authorization identity other than its own. The reply is that to a wrong password.
    ForAnother,
    /// The IMAP server could not be asked.
    Unavailable,
    /// Too many failed logins from the client's address.
    TooMany,
}

impl LoginRefused {
    /// The reply (RFC 4954 §6).
    pub fn reply(self) -> Reply {
        let unavailable = ReplyCode::AUTHENTICATION_UNAVAILABLE;
        match self {
            LoginRefused::Wrong | LoginRefused::ForAnother => {
                let detail = Detail::CREDENTIALS_INVALID;
                Reply::new(ReplyCode::AUTHENTICATION_FAILED, detail, "Authentication credentials invalid")
            }
            LoginRefused::Unavailable => {
                let text = "Temporary authentication failure, try later";
                Reply::new(unavailable, Detail::OTHER_SECURITY, text)
            }
            LoginRefused::TooMany => {
                let text = "Too many failed authentications, try later";
                Reply::new(unavailable, Detail::OTHER_SECURITY, text)
            }
        }
    }
}

impl<R> Server<R> {
    /// Whether AUTH is offered as the session stands.
    pub(super) fn may_authenticate(&self) -> bool {
        match self.settings.auth {
            AuthOffer::Never => false,
            AuthOffer::Encrypted => self.introduction.encrypted,
            AuthOffer::Always => true,
        }
    }

    pub(super) fn auth(&mut self, AuthCommand { mechanism, initial }: AuthCommand) -> Progress {
        self.replies.flush();
        if self.settings.auth == AuthOffer::Never {
            self.refuse(&CommandError::NotImplemented.reply());
        } else if !self.may_authenticate() {
            let text = "Encryption is required: STARTTLS comes first";
            self.refuse(&Reply::new(ReplyCode::ENCRYPTION_REQUIRED, Detail::ENCRYPTION_REQUIRED, text));
        } else if self.introduction.user.is_some() {
            self.out_of_order("You are authenticated already");
        } else if !matches!(self.state, State::Ready(_)) {
            self.out_of_order("Not within a transaction");
        } else if self.introduction.greeting.name().is_none() {
            self.out_of_order("EHLO comes first");
        } else if let Some(exchange) = Exchange::begin(&mechanism) {
            return match initial {
                Some(response) => self.respond(exchange, response.as_bytes()),
                None => self.challenge(exchange.first_challenge(), exchange),
            };
        } else {
            let text = "Authentication mechanism not known: PLAIN and LOGIN are";
            let code = ReplyCode::PARAMETER_NOT_IMPLEMENTED;
            self.refuse(&Reply::new(code, Detail::INVALID_ARGUMENTS, text));
        }
        Progress::Again
    }

    /// Takes the client's next response from the input.
    pub(super) fn next_response(&mut self) -> Progress {
        let response = match self.input.next_line() {
            None => return Progress::Starved,
            Some(Line::TooLong { .. }) => Vec::new(),
            Some(Line::Complete(text)) => text.to_vec(),
        };
        match std::mem::replace(&mut self.state, State::READY) {
            State::Authenticating(exchange) => self.respond(exchange, &response),
            other => {
                self.state = other;
                Progress::Blocked
            }
        }
    }

    fn respond(&mut self, mut exchange: Exchange, response: &[u8]) -> Progress {
        self.replies.flush();
        let malformed = ReplyCode::PARAMETER_SYNTAX_ERROR;
        match exchange.respond(response) {
            Step::Challenge(challenge) => return self.challenge(challenge, exchange),
            Step::Complete(credentials) => {
                self.state = State::JudgingAuth { user: credentials.user.clone() };
                return Progress::Emit(Emit::Plain(Action::Judge(Question::Auth(credentials))));
            }
            // The password isn't checked: no user may act as another.
            Step::ForAnother { user } => {
                self.state = State::RefusingAuth;
                return Progress::Emit(Emit::Plain(Action::Judge(Question::AuthForAnother { user })));
            }
            Step::Cancelled => {
                self.refuse(&Reply::new(malformed, Detail::OTHER_SECURITY, "Authentication cancelled"));
            }
            Step::Malformed => {
                let text = "Authentication response can't be understood";
                self.refuse(&Reply::new(malformed, Detail::SYNTAX_ERROR, text));
            }
        }
        Progress::Again
    }

    fn challenge(&mut self, challenge: &str, exchange: Exchange) -> Progress {
        self.say(&Reply::bare(ReplyCode::GO_ON, vec![challenge.to_owned()]));
        self.state = State::Authenticating(exchange);
        Progress::Again
    }

    /// Answers [`Question::Auth`]. Without effect unless that was asked. A wrong password counts as an error
    /// (S5).
    pub fn answer_auth(&mut self, now: Instant, verdict: Result<(), LoginRefused>) {
        self.now = now;
        let user = match std::mem::replace(&mut self.state, State::READY) {
            State::JudgingAuth { user } => user,
            other => {
                self.state = other;
                return;
            }
        };
        self.replies.flush();
        match verdict {
            Ok(()) => {
                self.introduction.user = Some(user);
                let detail = Detail::OTHER_SECURITY;
                self.say(&Reply::new(ReplyCode::AUTHENTICATED, detail, "Authentication successful"));
            }
            Err(refused) => self.refuse_login(refused),
        }
    }

    /// Answers [`Question::AuthForAnother`]. Without effect unless that was asked.
    pub fn refuse_auth(&mut self, now: Instant, refused: LoginRefused) {
        self.now = now;
        if matches!(self.state, State::RefusingAuth) {
            self.state = State::READY;
            self.replies.flush();
            self.refuse_login(refused);
        }
    }

    fn refuse_login(&mut self, refused: LoginRefused) {
        // A client that goes on all the same makes errors, though the reply is 4yz.
        self.tally.errors += u32::from(refused == LoginRefused::TooMany);
        self.idle(&refused.reply());
    }
}
