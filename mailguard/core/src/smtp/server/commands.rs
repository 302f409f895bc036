//! Carrying out commands: their order (RFC 5321 §4.1.4), and who may send several at once (RFC 2920 §3.1).

use crate::smtp::command::{Chunk, Command, CommandError, HeloName, RcptCommand, Strictness};
use crate::smtp::enhanced_status::Detail;
use crate::smtp::extension::{self, Extension};
use crate::smtp::line::Line;
use crate::smtp::refusal::Refusal;
use crate::smtp::reply::{Reply, ReplyCode};

use super::receiving::Reception;
use super::state::{Aftermath, CountsAs, State, Transaction, UnwantedChunk};
use super::{
    Action, CloseReason, Emit, Greeting, MAX_IDLE_COMMANDS, MAX_NAMED_RECIPIENTS_TIMES, Progress, Question,
    Server, ok,
};

/// What is said to a command that doesn't belong between two chunks.
const CHUNKS_ONLY: &str = "The message isn't complete: BDAT or RSET";

pub(super) fn bad_sequence(text: &str) -> Reply {
    Reply::new(ReplyCode::BAD_SEQUENCE, Detail::INVALID_COMMAND, text)
}

/// Not counted as an error: a pipelining client sends DATA or BDAT before it knows.
fn no_recipients() -> Reply {
    let detail = Detail::INVALID_COMMAND;
    Reply::new(ReplyCode::TRANSACTION_FAILED, detail, "No valid recipients")
}

impl<R> Server<R> {
    /// Takes the next command from the input and carries it out.
    pub(super) fn next_command(&mut self) -> Progress {
        // A message that is on its way in chunks is finished before.
        if self.shutting_down && !matches!(self.state, State::BetweenChunks(_)) {
            let text = format!("{} is shutting down, try again later", self.settings.hostname.in_ascii());
            let reply = Reply::new(ReplyCode::NOT_AVAILABLE, Detail::NOT_ACCEPTING_MESSAGES, text);
            self.hang_up(CloseReason::ShutDown, &reply);
            return Progress::Again;
        }
        let command = match self.input.next_line() {
            None => return Progress::Starved,
            Some(Line::TooLong { chunk: false }) => Err(CommandError::TooLong),
            Some(Line::TooLong { chunk: true }) => Err(CommandError::Chunk),
            Some(Line::Complete(text)) => Command::parse_as(text, self.settings.strictness),
        };
        if !self.input.rest().is_empty() && self.must_wait_after(&command) {
            let text = "Protocol error: you went on without waiting for the reply";
            let reply = Reply::new(ReplyCode::TRANSACTION_FAILED, Detail::INVALID_COMMAND, text);
            self.hang_up(CloseReason::Unsynchronised, &reply);
            return Progress::Again;
        }
        match command {
            Ok(command) => self.carry_out(command),
            Err(error @ CommandError::Chunk) => {
                // How much of what follows is content can't be told.
                self.hang_up(CloseReason::BadChunk, &error.reply());
                Progress::Again
            }
            Err(error) => {
                self.replies.flush();
                self.refuse(&error.reply());
                Progress::Again
            }
        }
    }

    /// Whether the client must wait for the reply to this command before it sends anything more (RFC 2920
    /// §3.1). Without PIPELINING that is every command; with it EHLO, whose reply may offer something else,
    /// DATA, whose content waits for 354, and AUTH. QUIT is excepted. Inside, clients that send everything at
    /// once are tolerated, unless it begins with no SMTP command: a browser can be made to send HTTP with
    /// commands within.
    fn must_wait_after(&self, command: &Result<Command, CommandError>) -> bool {
        let lenient = self.settings.strictness == Strictness::Lenient;
        match command {
            Ok(Command::Data | Command::Auth(_)) => true,
            // What follows STARTTLS is discarded.
            Ok(Command::Quit | Command::StartTls) => false,
            Ok(_) if lenient => false,
            Ok(Command::Ehlo(_) | Command::Helo(_)) => true,
            _ => !matches!(self.introduction.greeting, Greeting::Ehlo(_)),
        }
    }

    fn carry_out(&mut self, command: Command) -> Progress {
        match command {
            Command::Mail(mail) => match self.state {
                State::Ready(_) => {
                    self.state = State::JudgingMail { smtputf8: mail.smtputf8 };
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
                self.state = State::READY;
                self.idle(&ok(Detail::UNDEFINED, "Ok"));
                if had_transaction {
                    return Progress::Emit(Emit::Plain(Action::Abandon));
                }
            }
            Command::Noop => {
                self.replies.flush();
                self.idle(&ok(Detail::UNDEFINED, "Ok"));
            }
            Command::Help => {
                self.replies.flush();
                let text = self.commands().join(" ");
                self.idle(&Reply::new(ReplyCode::HELP, Detail::UNDEFINED, text));
            }
            Command::Vrfy => {
                self.replies.flush();
                let text = "Cannot verify, but will take a message and attempt delivery";
                self.idle(&Reply::new(ReplyCode::CANNOT_VERIFY, Detail::UNDEFINED, text));
            }
            Command::Quit => {
                self.hang_up(CloseReason::Quit, &Reply::new(ReplyCode::CLOSING, Detail::UNDEFINED, "Bye"));
            }
            Command::StartTls => self.start_tls(),
            Command::Auth(auth) => return self.auth(auth),
        }
        Progress::Again
    }

    /// RFC 3207 §4. Commands that came in the clear must not be taken for encrypted ones: they are discarded
    /// here, and what the socket still holds fails the handshake.
    fn start_tls(&mut self) {
        self.replies.flush();
        if !self.settings.offers_tls {
            self.refuse(&CommandError::NotImplemented.reply());
        } else if self.introduction.encrypted {
            self.out_of_order("The session is encrypted already");
        } else {
            self.input.discard();
            self.state = State::TlsDue;
            self.say(&Reply::new(ReplyCode::READY, Detail::UNDEFINED, "Ready to start TLS"));
        }
    }

    fn introduce(&mut self, greeting: Greeting, name: &HeloName) -> Progress {
        let had_transaction = self.has_transaction();
        self.state = State::READY;
        self.replies.flush();
        // Nobody has said SMTPUTF8 yet, and may ever (RFC 6531 §3.7.4.1).
        let name = name.as_str().replace(|c: char| !c.is_ascii(), "?");
        let name = if name.is_empty() { "you" } else { &name };
        let mut lines = vec![format!("{} greets {name}", self.settings.hostname.in_ascii())];
        if matches!(greeting, Greeting::Ehlo(_)) {
            lines.extend(self.offers().iter().map(ToString::to_string));
        }
        let again = !matches!(std::mem::replace(&mut self.introduction.greeting, greeting), Greeting::None);
        let reply = Reply::bare(ReplyCode::OK, lines);
        if again {
            self.idle(&reply)
        } else {
            self.say(&reply)
        }
        if had_transaction { Progress::Emit(Emit::Plain(Action::Abandon)) } else { Progress::Again }
    }

    /// The extensions that the reply to EHLO offers now.
    fn offers(&self) -> Vec<Extension> {
        let mut offers = extension::offered_to_all(self.settings.max_message_octets).to_vec();
        if self.settings.offers_tls && !self.introduction.encrypted {
            offers.push(Extension::StartTls);
        }
        if self.may_authenticate() && self.introduction.user.is_none() {
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
                if transaction.accepted >= self.settings.max_recipients
                    || transaction.named >= self.settings.max_recipients * MAX_NAMED_RECIPIENTS_TIMES =>
            {
                self.refuse_further_recipient(transaction);
                Progress::Again
            }
            State::Collecting(transaction) if needs_utf8 && !transaction.reference.smtputf8 => {
                self.state = State::Collecting(transaction);
                self.refuse(&CommandError::NotAscii.reply());
                Progress::Again
            }
            State::Collecting(transaction) => {
                self.state = State::JudgingRcpt(transaction);
                Progress::Emit(Emit::Plain(Action::Judge(Question::Rcpt(recipient))))
            }
            other => {
                let between_chunks = matches!(other, State::BetweenChunks(_));
                self.state = other;
                self.out_of_transaction(if between_chunks { CHUNKS_ONLY } else { "MAIL comes first" });
                Progress::Again
            }
        }
    }

    /// Recipients past the limit are deferred, 452 (RFC 5321 §4.5.3.1.10); each past twice the limit counts
    /// as an error.
    fn refuse_further_recipient(&mut self, mut transaction: Transaction) {
        let too_many = Refusal::TooManyRecipients(self.settings.max_recipients);
        let reply = self.told(&too_many, transaction.reference);
        transaction.named += 1;
        if transaction.named > self.settings.max_recipients * MAX_NAMED_RECIPIENTS_TIMES {
            self.tally.errors += 1;
        }
        self.state = State::Collecting(transaction);
        self.refuse(&reply);
    }

    fn data(&mut self) -> Progress {
        self.replies.flush();
        match self.state {
            State::Collecting(Transaction { accepted: 0, .. }) => self.say(&no_recipients()),
            State::Collecting(Transaction { reference, .. }) => {
                let text = "End data with <CR><LF>.<CR><LF>".to_owned();
                self.say(&Reply::bare(ReplyCode::START_MAIL_INPUT, vec![text]));
                let last_moment = self.now + self.settings.longest_reception();
                return self.begin_body(Reception::new(reference, last_moment));
            }
            State::BetweenChunks(_) => self.out_of_order(CHUNKS_ONLY),
            _ => self.out_of_transaction("MAIL and RCPT come first"),
        }
        Progress::Again
    }

    /// RFC 3030 §2. The chunk follows the command at once, whatever the reply will be.
    fn bdat(&mut self, chunk: Chunk) -> Progress {
        if !matches!(self.introduction.greeting, Greeting::Ehlo(_)) {
            // Not offered; what follows is content.
            self.hang_up(CloseReason::BadChunk, &bad_sequence("EHLO comes first"));
            return Progress::Again;
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Collecting(Transaction { reference, accepted, .. }) if accepted > 0 => {
                let last_moment = self.now + self.settings.longest_reception();
                self.begin_body(Reception::in_chunks(reference, last_moment, chunk))
            }
            State::BetweenChunks(mut reception) => {
                reception.expect(chunk);
                self.deadline = reception.last_moment.min(self.now + self.settings.data_timeout);
                self.state = State::Receiving(reception);
                Progress::Again
            }
            then => {
                self.skip(chunk, then);
                Progress::Again
            }
        }
    }

    /// BDAT isn't allowed in this state: the chunk is read, discarded and answered, and the session goes on
    /// in that state.
    fn skip(&mut self, chunk: Chunk, then: State) {
        let (reply, counts) = match then {
            State::Collecting(_) => (no_recipients(), CountsAs::Idle),
            // Counted once, with the first.
            State::Ready(Aftermath::ChunkRefused) => {
                (bad_sequence("The message was refused"), CountsAs::Idle)
            }
            State::Ready(Aftermath::MailRefused { .. }) => {
                (bad_sequence("MAIL and RCPT come first"), CountsAs::Idle)
            }
            _ => (bad_sequence("MAIL and RCPT come first"), CountsAs::Error),
        };
        let last_moment = self.now + self.settings.longest_reception();
        self.deadline = last_moment.min(self.now + self.settings.data_timeout);
        let then = Box::new(then);
        self.state = State::Skipping(UnwantedChunk { left: chunk.octets, reply, counts, last_moment, then });
    }

    fn begin_body(&mut self, reception: Reception) -> Progress {
        self.deadline = reception.last_moment.min(self.now + self.settings.data_timeout);
        self.state = State::Receiving(reception);
        Progress::Emit(Emit::Plain(Action::BeginBody))
    }

    fn has_transaction(&self) -> bool {
        matches!(self.state, State::Collecting(_) | State::BetweenChunks(_))
    }

    pub(super) fn out_of_order(&mut self, text: &str) {
        self.refuse(&bad_sequence(text));
    }

    /// As [`Server::out_of_order`], but not counted as an error where MAIL was refused: a pipelining client
    /// couldn't know.
    fn out_of_transaction(&mut self, text: &str) {
        match &mut self.state {
            State::Ready(Aftermath::MailRefused { commands })
                if *commands <= self.settings.max_recipients =>
            {
                *commands += 1;
                self.say(&bad_sequence(text));
            }
            _ => self.out_of_order(text),
        }
    }

    /// Replies to an idle command (a junk command, as Postfix says): past [`MAX_IDLE_COMMANDS`] it is an
    /// error.
    pub(super) fn idle(&mut self, reply: &Reply) {
        self.tally.idle_commands = self.tally.idle_commands.saturating_add(1);
        if self.tally.idle_commands > MAX_IDLE_COMMANDS {
            self.tally.errors += 1;
        }
        self.refuse(reply);
    }
}
