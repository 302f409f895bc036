//! Carrying out commands: their order (RFC 5321 §4.1.4), and who may send several at once (RFC 2920 §3.1).

use crate::mail::QueueId;
use crate::smtp::command::{Chunk, Command, CommandError, HeloName, RcptCommand, Strictness};
use crate::smtp::enhanced_status::Detail;
use crate::smtp::extension::{self, Extension};
use crate::smtp::line::Line;
use crate::smtp::refusal::Refusal;
use crate::smtp::reply::{Reply, ReplyCode};

use super::receiving::Reception;
use super::{
    Action, CloseReason, Emit, Greeting, MAX_IDLE_COMMANDS, MAX_NAMED_RECIPIENTS_TIMES, Progress, Question,
    Server, State, Transaction, Unwanted, ok,
};

/// What is said to a command that doesn't belong between two chunks.
const CHUNKS_ONLY: &str = "The message isn't complete: BDAT or RSET";

pub(super) fn bad_sequence(text: &str) -> Reply {
    Reply::new(ReplyCode::BAD_SEQUENCE, Detail::INVALID_COMMAND, text)
}

/// No error of its own: a client that sends in groups says DATA or BDAT before it knows.
fn no_recipients() -> Reply {
    let detail = Detail::INVALID_COMMAND;
    Reply::new(ReplyCode::TRANSACTION_FAILED, detail, "No valid recipients")
}

impl<R> Server<R> {
    /// Takes the next command from the input and carries it out.
    pub(super) fn next_command(&mut self) -> Progress {
        // A message that is on its way in chunks is finished before.
        if self.shutting_down && !matches!(self.state, State::BetweenChunks(..)) {
            let text = format!("{} is shutting down, try again later", self.settings.hostname.in_ascii());
            self.hang_up(CloseReason::ShutDown, ReplyCode::NOT_AVAILABLE, Detail::NOT_ACCEPTING_MESSAGES, &text);
            return Progress::Again;
        }
        let (done, line) = self.splitter.next_line(&self.input[self.used..]);
        let command = match line {
            None => {
                self.used += done;
                return Progress::Starved;
            }
            Some(Line::TooLong { chunk: false }) => Err(CommandError::TooLong),
            Some(Line::TooLong { chunk: true }) => Err(CommandError::Chunk),
            Some(Line::Complete(text)) => Command::parse_as(text, self.settings.strictness),
        };
        self.used += done;
        if self.used < self.input.len() && self.must_wait_after(&command) {
            let text = "Protocol error: you went on without waiting for the reply";
            self.hang_up(CloseReason::Unsynchronised, ReplyCode::TRANSACTION_FAILED, Detail::INVALID_COMMAND, text);
            return Progress::Again;
        }
        match command {
            Ok(command) => self.carry_out(command),
            Err(CommandError::Chunk) => {
                // How much of what follows is content can't be told.
                let text = CommandError::Chunk.to_string();
                let code = ReplyCode::PARAMETER_SYNTAX_ERROR;
                self.hang_up(CloseReason::BadChunk, code, Detail::SYNTAX_ERROR, &text);
                Progress::Again
            }
            Err(error) => {
                self.flush = true;
                self.refuse(&error.reply());
                Progress::Again
            }
        }
    }

    /// Whether the client had no leave to send anything before our reply. Without PIPELINING it never has;
    /// with it, the reply to EHLO may change everything, and data must wait for 354. A farewell is forgiven.
    /// Devices inside that say all at once are forgiven too; not so what begins with no command of ours: a browser
    /// can be led to send us HTTP with commands within.
    fn must_wait_after(&self, command: &Result<Command, CommandError>) -> bool {
        let lenient = self.settings.strictness == Strictness::Lenient;
        match command {
            Ok(Command::Data | Command::Auth(_)) => true,
            // What follows STARTTLS is thrown away.
            Ok(Command::Quit | Command::StartTls) => false,
            Ok(_) if lenient => false,
            Ok(Command::Ehlo(_) | Command::Helo(_)) => true,
            _ => !matches!(self.greeting, Greeting::Ehlo(_)),
        }
    }

    fn carry_out(&mut self, command: Command) -> Progress {
        match command {
            Command::Mail(mail) => match self.state {
                State::Ready => {
                    self.begin_anew();
                    self.state = State::JudgingMail;
                    self.smtputf8 = mail.smtputf8;
                    return Progress::Emit(Emit::Plain(Action::Judge(Question::Mail(mail))));
                }
                _ => self.out_of_order("MAIL was given already"),
            },
            Command::Rcpt(rcpt) => return self.rcpt(rcpt),
            Command::Data => return self.data(),
            Command::Bdat(chunk) => return self.bdat(chunk),
            Command::Ehlo(name) => return self.introduce(Greeting::Ehlo(name.clone()), &name),
            Command::Helo(name) => return self.introduce(Greeting::Helo(name.clone()), &name),
            Command::Rset => {
                let had_transaction = self.has_transaction();
                self.begin_anew();
                self.idle(&ok(Detail::UNDEFINED, "Ok"));
                if had_transaction {
                    return Progress::Emit(Emit::Plain(Action::Abandon));
                }
            }
            Command::Noop => {
                self.flush = true;
                self.idle(&ok(Detail::UNDEFINED, "Ok"));
            }
            Command::Help => {
                self.flush = true;
                let text = self.commands().join(" ");
                self.idle(&Reply::new(ReplyCode::HELP, Detail::UNDEFINED, text));
            }
            Command::Vrfy => {
                self.flush = true;
                let text = "Cannot verify, but will take a message and attempt delivery";
                self.idle(&Reply::new(ReplyCode::CANNOT_VERIFY, Detail::UNDEFINED, text));
            }
            Command::Quit => self.hang_up(CloseReason::Quit, ReplyCode::CLOSING, Detail::UNDEFINED, "Bye"),
            Command::StartTls => self.start_tls(),
            Command::Auth(auth) => return self.auth(auth),
        }
        Progress::Again
    }

    /// No transaction is there, and none was refused.
    fn begin_anew(&mut self) {
        self.state = State::Ready;
        (self.chunks_refused, self.mail_refused) = (false, None);
    }

    /// RFC 3207 §4. Commands that came in the clear must not be taken for encrypted ones: they are thrown away here, and
    /// what the socket still holds fails the handshake.
    fn start_tls(&mut self) {
        self.flush = true;
        if !self.settings.offers_tls {
            self.refuse(&CommandError::NotImplemented.reply());
        } else if self.encrypted {
            self.out_of_order("The session is encrypted already");
        } else {
            self.used = self.input.len();
            self.begin_anew();
            self.say(&Reply::new(ReplyCode::READY, Detail::UNDEFINED, "Ready to start TLS"));
            self.state = State::TlsDue;
        }
    }

    fn introduce(&mut self, greeting: Greeting, name: &HeloName) -> Progress {
        let had_transaction = self.has_transaction();
        self.begin_anew();
        self.flush = true;
        // Nobody has said SMTPUTF8 yet, and may ever (RFC 6531 §3.7.4.1).
        let name = name.as_str().replace(|c: char| !c.is_ascii(), "?");
        let name = if name.is_empty() { "you" } else { &name };
        let mut lines = vec![format!("{} greets {name}", self.settings.hostname.in_ascii())];
        if matches!(greeting, Greeting::Ehlo(_)) {
            lines.extend(self.offers().iter().map(ToString::to_string));
        }
        let again = !matches!(std::mem::replace(&mut self.greeting, greeting), Greeting::None);
        let reply = Reply::bare(ReplyCode::OK, lines);
        if again {
            self.idle(&reply)
        } else {
            self.say(&reply)
        }
        if had_transaction { Progress::Emit(Emit::Plain(Action::Abandon)) } else { Progress::Again }
    }

    /// What this client is offered now.
    fn offers(&self) -> Vec<Extension> {
        let mut offers = extension::offered_to_all(self.settings.max_message_octets).to_vec();
        if self.settings.offers_tls && !self.encrypted {
            offers.push(Extension::StartTls);
        }
        if self.may_authenticate() && self.user.is_none() {
            offers.push(Extension::Auth);
        }
        offers
    }

    /// What HELP names: the commands that would be carried out now.
    fn commands(&self) -> Vec<&'static str> {
        let offers = self.offers();
        let offered = [(Extension::StartTls, "STARTTLS"), (Extension::Auth, "AUTH")];
        let offered = offered.into_iter().filter(|(extension, _)| offers.contains(extension));
        let mut commands = vec!["HELO", "EHLO"];
        commands.extend(offered.map(|(_, command)| command));
        commands.extend(["MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "HELP", "VRFY", "QUIT"]);
        commands
    }

    fn rcpt(&mut self, RcptCommand { recipient, needs_utf8 }: RcptCommand) -> Progress {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Collecting(transaction)
                if transaction.recipients >= self.settings.max_recipients
                    || transaction.asked >= self.settings.max_recipients * MAX_NAMED_RECIPIENTS_TIMES =>
            {
                self.refuse_further_recipient(transaction);
                Progress::Again
            }
            State::Collecting(transaction) if needs_utf8 && !self.smtputf8 => {
                self.state = State::Collecting(transaction);
                self.refuse(&CommandError::NotAscii.reply());
                Progress::Again
            }
            State::Collecting(transaction) => {
                self.state = State::JudgingRcpt(transaction);
                Progress::Emit(Emit::Plain(Action::Judge(Question::Rcpt(recipient))))
            }
            other => {
                let between_chunks = matches!(other, State::BetweenChunks(..));
                self.state = other;
                self.out_of_transaction(if between_chunks { CHUNKS_ONLY } else { "MAIL comes first" });
                Progress::Again
            }
        }
    }

    /// Many are refused as they may come later (RFC 5321 §4.5.3.1.10); who goes on all the same makes errors.
    fn refuse_further_recipient(&mut self, mut transaction: Transaction) {
        let too_many = Refusal::TooManyRecipients(self.settings.max_recipients);
        let reply = self.told(&too_many, transaction.id);
        transaction.asked += 1;
        if transaction.asked > self.settings.max_recipients * MAX_NAMED_RECIPIENTS_TIMES {
            self.errors += 1;
        }
        self.state = State::Collecting(transaction);
        self.refuse(&reply);
    }

    fn data(&mut self) -> Progress {
        self.flush = true;
        match self.state {
            State::Collecting(Transaction { recipients: 0, .. }) => self.say(&no_recipients()),
            State::Collecting(Transaction { id, .. }) => {
                let text = "End data with <CR><LF>.<CR><LF>".to_owned();
                self.say(&Reply::bare(ReplyCode::START_MAIL_INPUT, vec![text]));
                let last_moment = self.now + self.settings.longest_reception();
                return self.begin_body(id, Reception::new(last_moment));
            }
            State::BetweenChunks(..) => self.out_of_order(CHUNKS_ONLY),
            _ => self.out_of_transaction("MAIL and RCPT come first"),
        }
        Progress::Again
    }

    /// RFC 3030 §2. The chunk follows at once, wanted or not.
    fn bdat(&mut self, chunk: Chunk) -> Progress {
        if !matches!(self.greeting, Greeting::Ehlo(_)) {
            // Not offered; what follows is content.
            self.hang_up(CloseReason::BadChunk, ReplyCode::BAD_SEQUENCE, Detail::INVALID_COMMAND, "EHLO comes first");
            return Progress::Again;
        }
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Collecting(Transaction { id, recipients, .. }) if recipients > 0 => {
                let mut reception = Reception::in_chunks(self.now + self.settings.longest_reception());
                reception.expect(chunk);
                return self.begin_body(id, reception);
            }
            State::BetweenChunks(id, mut reception) => {
                reception.expect(chunk);
                self.deadline = reception.last_moment.min(self.now + self.settings.data_timeout);
                self.state = State::Receiving(id, reception);
                return Progress::Again;
            }
            other => self.state = other,
        }
        let (reply, is_error) = if matches!(self.state, State::Collecting(_)) {
            (no_recipients(), false)
        } else if self.chunks_refused {
            // Counted once, with the first.
            (bad_sequence("The message was refused"), false)
        } else {
            (bad_sequence("MAIL and RCPT come first"), self.mail_refused.is_none())
        };
        let last_moment = self.now + self.settings.longest_reception();
        self.deadline = last_moment.min(self.now + self.settings.data_timeout);
        self.unwanted = Some(Unwanted { left: chunk.octets, reply, is_error, last_moment });
        Progress::Again
    }

    fn begin_body(&mut self, id: QueueId, reception: Reception) -> Progress {
        self.deadline = reception.last_moment.min(self.now + self.settings.data_timeout);
        self.state = State::Receiving(id, reception);
        Progress::Emit(Emit::Plain(Action::BeginBody))
    }

    fn has_transaction(&self) -> bool {
        matches!(self.state, State::Collecting(_) | State::BetweenChunks(..))
    }

    pub(super) fn out_of_order(&mut self, text: &str) {
        self.refuse(&bad_sequence(text));
    }

    /// As [`Server::out_of_order`], but no error where MAIL was refused: a client that sends in groups couldn't know.
    fn out_of_transaction(&mut self, text: &str) {
        match (&self.state, &mut self.mail_refused) {
            (State::Ready, Some(commands)) if *commands <= self.settings.max_recipients => {
                *commands += 1;
                self.say(&bad_sequence(text));
            }
            _ => self.out_of_order(text),
        }
    }

    /// Replies to a command that brings no message nearer.
    pub(super) fn idle(&mut self, reply: &Reply) {
        self.idle_commands = self.idle_commands.saturating_add(1);
        if self.idle_commands > MAX_IDLE_COMMANDS {
            self.errors += 1;
        }
        self.refuse(reply);
    }
}
