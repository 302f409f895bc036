//! Sessions as transcripts, in virtual time.
//!
//! `! shut down` is what the driver tells, `=` what else it is told.
//!
//! The driver of these tests finds fault with local parts only, `refused` and `deferred`, and can't store a
//! body that begins with `full`.

mod authentication;
mod chunks;
mod odd_clients;
mod properties;
mod transcripts;

use std::time::{Duration, Instant};

use super::*;
use crate::language::Language;
use crate::mail::Domain;
use crate::smtp::command::Strictness;
use crate::testing::transcript::{self, End, Tried, written};

const SETTINGS: fn() -> Settings = || Settings {
    hostname: Domain::parse("mx.example").unwrap(),
    language: Language::English,
    max_message_octets: 100,
    max_recipients: 3,
    hard_error_limit: 3,
    command_timeout: Duration::from_secs(300),
    data_timeout: Duration::from_secs(60),
    unclean_data: UncleanData::Repair,
    strictness: Strictness::Strict,
    offers_tls: false,
    auth: AuthOffer::Never,
};

/// A message that the driver stored; only it makes one.
struct Stored;

/// A session with its driver.
struct Session {
    server: Server<Stored>,
    now: Instant,
    body: Vec<u8>,
    /// What happened, in the transcript's form.
    seen: Vec<String>,
    octets_handed_out: usize,
}

impl Session {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let server = Server::new(settings, now);
        Self { server, now, body: vec![], seen: vec![], octets_handed_out: 0 }
    }

    fn input(&mut self, octets: &[u8]) {
        self.server.handle_input(self.now, octets);
        self.perform();
    }

    fn perform(&mut self) {
        let mut wrote = false;
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Write(octets) => {
                    if std::mem::replace(&mut wrote, true) {
                        self.seen.push("--".into());
                    }
                    self.seen.extend(written(End::Server, octets));
                }
                Action::Judge(Question::Mail(mail)) => {
                    let sender = mail.reverse_path.mailbox().map(|mailbox| mailbox.local_part.as_str());
                    let verdict = verdict(sender.unwrap_or_default());
                    self.server.answer_mail(self.now, QueueId(33), verdict);
                }
                Action::Judge(Question::Rcpt(recipient)) => {
                    let name = recipient
                        .forward_path
                        .mailbox()
                        .map(|mailbox| mailbox.local_part.as_str().to_owned());
                    self.server.answer_rcpt(self.now, verdict(&name.unwrap_or_default()));
                }
                Action::Judge(Question::Data) => {
                    self.seen.push(format!("= body {}", self.body.escape_ascii()));
                    let full = self.body.starts_with(b"full");
                    let verdict = if full { Err(Refusal::StorageFull) } else { Ok(Stored) };
                    self.server.answer_data(self.now, verdict);
                }
                Action::Judge(Question::Auth(credentials)) => {
                    let verdict = match (credentials.user.as_str(), credentials.password.as_str()) {
                        ("alice", "secret") => Ok(()),
                        ("nobody", _) => Err(LoginRefused::Unavailable),
                        _ => Err(LoginRefused::Wrong),
                    };
                    self.server.answer_auth(self.now, verdict);
                }
                Action::Judge(Question::AuthForAnother { user }) => {
                    self.seen.push(format!("= {user} for another"));
                    self.server.refuse_auth(self.now, LoginRefused::ForAnother);
                }
                Action::StartTls => {
                    self.seen.push("= handshake".into());
                    self.server.tls_established(self.now);
                }
                Action::BeginBody => self.body.clear(),
                Action::Body(octets) => {
                    self.octets_handed_out += octets.len();
                    self.body.extend_from_slice(octets);
                }
                Action::Abandon => self.seen.push("= abandon".into()),
                Action::RefuseBody(refusal) => self.seen.push(format!("= refuse body {refusal:?}")),
                Action::Close(reason) => self.seen.push(format!("= close {reason:?}")),
            }
        }
    }
}

fn verdict(local_part: &str) -> Result<(), Refusal> {
    match local_part {
        "refused" => Err(Refusal::RelayDenied),
        "deferred" => Err(Refusal::StorageFull),
        _ => Ok(()),
    }
}

impl Tried for Session {
    fn hear(&mut self, octets: &[u8]) {
        self.input(octets);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.server.handle_timeout(self.now);
        self.perform();
    }

    fn told(&mut self, what: &str) {
        assert_eq!(what, "shut down");
        self.server.shut_down();
        self.perform();
    }

    fn did(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }
}

#[track_caller]
fn check_with(settings: Settings, transcript: &str) {
    let mut session = Session::new(settings);
    session.server.greet(session.now);
    session.perform();
    transcript::check(&mut session, End::Client, transcript);
}

#[track_caller]
fn check(transcript: &str) {
    check_with(SETTINGS(), transcript);
}

/// A transcript that begins after EHLO.
fn check_greeted(transcript: &str) {
    check(&format!("{GREETED}{transcript}"));
}

const GREETED: &str = "
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250-mx.example greets client.example
    S: 250-PIPELINING
    S: 250-SIZE 100
    S: 250-8BITMIME
    S: 250-ENHANCEDSTATUSCODES
    S: 250-CHUNKING
    S: 250-DSN
    S: 250 SMTPUTF8
";

/// Goes on after [`GREETED`]: data may follow.
const IN_DATA: &str = "
    C: MAIL FROM:<a@client.example>
    C: RCPT TO:<b@mx.example>
    C: DATA
    S: 250 2.1.0 Sender ok
    S: 250 2.1.5 Recipient ok
    S: 354 End data with <CR><LF>.<CR><LF>
";
