//! Carrying out commands: their order (RFC 5321 §4.1.4), and who may send several at once (RFC 2920 §3.1).

use crate::mail::ForwardPath;
use crate::smtp::command::{Command, CommandError, HeloName};
use crate::smtp::enhanced_status::EnhancedStatus;
use crate::smtp::extension;
use crate::smtp::line::Line;
use crate::smtp::refusal::Refusal;
use crate::smtp::reply::{Reply, ReplyCode};

use super::receiving::Reception;
use super::{
    Action, CloseReason, Emit, Greeting, MAX_IDLE_COMMANDS, Progress, Question, Server, State, Transaction,
    ok,
};

impl<R> Server<R> {
    /// Takes the next command from the input and carries it out.
    pub(super) fn next_command(&mut self) -> Progress {
        if self.shutting_down {
            let text = format!("{} is shutting down, try again later", self.settings.hostname);
            self.hang_up(CloseReason::ShutDown, ReplyCode::NOT_AVAILABLE, (4, 3, 2), &text);
            return Progress::Again;
        }
        let (done, line) = self.splitter.next_line(&self.input[self.used..]);
        let command = match line {
            None => {
                self.used += done;
                return Progress::Starved;
            }
            Some(Line::TooLong) => Err(CommandError::TooLong),
            Some(Line::Complete(text)) => Command::parse(text),
        };
        self.used += done;
        if self.used < self.input.len() && self.must_wait_after(&command) {
            let text = "Protocol error: you went on without waiting for the reply";
            self.hang_up(CloseReason::Unsynchronised, ReplyCode::TRANSACTION_FAILED, (5, 5, 1), text);
            return Progress::Again;
        }
        match command {
            Ok(command) => self.carry_out(command),
            Err(error) => {
                self.flush = true;
                self.refuse(&error.reply());
                Progress::Again
            }
        }
    }

    /// Whether the client had no leave to send anything before our reply. Without PIPELINING it never has;
    /// with it, the reply to EHLO may change everything, and data must wait for 354. A farewell is forgiven.
    fn must_wait_after(&self, command: &Result<Command, CommandError>) -> bool {
        match command {
            Ok(Command::Ehlo(_) | Command::Helo(_) | Command::Data) => true,
            Ok(Command::Quit) => false,
            _ => !matches!(self.greeting, Greeting::Ehlo(_)),
        }
    }

    fn carry_out(&mut self, command: Command) -> Progress {
        match command {
            Command::Mail(mail) => match self.state {
                State::Ready => {
                    self.state = State::JudgingMail;
                    return Progress::Emit(Emit::Plain(Action::Judge(Question::Mail(mail))));
                }
                _ => self.out_of_order("MAIL was given already"),
            },
            Command::Rcpt(forward_path) => return self.rcpt(forward_path),
            Command::Data => return self.data(),
            Command::Ehlo(name) => return self.introduce(Greeting::Ehlo(name.clone()), &name),
            Command::Helo(name) => return self.introduce(Greeting::Helo(name.clone()), &name),
            Command::Rset => {
                let had_transaction = matches!(self.state, State::Collecting(_));
                self.state = State::Ready;
                self.idle(&ok((2, 0, 0), "Ok"));
                if had_transaction {
                    return Progress::Emit(Emit::Plain(Action::Abandon));
                }
            }
            Command::Noop => {
                self.flush = true;
                self.idle(&ok((2, 0, 0), "Ok"));
            }
            Command::Help => {
                self.flush = true;
                let text = "HELO EHLO MAIL RCPT DATA RSET NOOP HELP VRFY QUIT";
                self.idle(&Reply::new(ReplyCode::HELP, EnhancedStatus::new(2, 0, 0), text));
            }
            Command::Vrfy => {
                self.flush = true;
                let text = "Cannot verify, but will take a message and attempt delivery";
                self.idle(&Reply::new(ReplyCode::CANNOT_VERIFY, EnhancedStatus::new(2, 0, 0), text));
            }
            Command::Quit => self.hang_up(CloseReason::Quit, ReplyCode::CLOSING, (2, 0, 0), "Bye"),
        }
        Progress::Again
    }

    fn introduce(&mut self, greeting: Greeting, name: &HeloName) -> Progress {
        let had_transaction = matches!(self.state, State::Collecting(_));
        self.state = State::Ready;
        self.flush = true;
        let mut lines = vec![format!("{} greets {name}", self.settings.hostname)];
        if matches!(greeting, Greeting::Ehlo(_)) {
            let offered = extension::offered(self.settings.max_message_octets);
            lines.extend(offered.iter().map(ToString::to_string));
        }
        self.greeting = greeting;
        self.say(&Reply::bare(ReplyCode::OK, lines));
        if had_transaction { Progress::Emit(Emit::Plain(Action::Abandon)) } else { Progress::Again }
    }

    fn rcpt(&mut self, forward_path: ForwardPath) -> Progress {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Collecting(transaction) if transaction.recipients >= self.settings.max_recipients => {
                let refusal = Refusal::TooManyRecipients(self.settings.max_recipients);
                let id = transaction.id;
                self.state = State::Collecting(transaction);
                self.refuse(&refusal.reply(id));
                Progress::Again
            }
            State::Collecting(transaction) => {
                self.state = State::JudgingRcpt(transaction);
                Progress::Emit(Emit::Plain(Action::Judge(Question::Rcpt(forward_path))))
            }
            other => {
                self.state = other;
                self.out_of_order("MAIL comes first");
                Progress::Again
            }
        }
    }

    fn data(&mut self) -> Progress {
        self.flush = true;
        match self.state {
            State::Collecting(Transaction { recipients: 0, .. }) => {
                // No error of its own: a client that sends in groups says DATA before it knows.
                let text = "No valid recipients";
                let status = EnhancedStatus::new(5, 5, 1);
                self.say(&Reply::new(ReplyCode::TRANSACTION_FAILED, status, text));
            }
            State::Collecting(Transaction { id, .. }) => {
                let text = "End data with <CR><LF>.<CR><LF>".to_owned();
                self.say(&Reply::bare(ReplyCode::START_MAIL_INPUT, vec![text]));
                let last_moment = self.now + self.settings.longest_reception();
                self.deadline = last_moment.min(self.now + self.settings.data_timeout);
                self.state = State::Receiving(id, Reception::new(last_moment));
                return Progress::Emit(Emit::Plain(Action::BeginBody));
            }
            _ => self.out_of_order("MAIL and RCPT come first"),
        }
        Progress::Again
    }

    fn out_of_order(&mut self, text: &str) {
        self.refuse(&Reply::new(ReplyCode::BAD_SEQUENCE, EnhancedStatus::new(5, 5, 1), text));
    }

    /// Replies to a command that brings no message nearer.
    fn idle(&mut self, reply: &Reply) {
        self.idle_commands = self.idle_commands.saturating_add(1);
        if self.idle_commands > MAX_IDLE_COMMANDS {
            self.errors += 1;
        }
        self.refuse(reply);
    }
}
