//! Sessions as transcripts, in virtual time.
//!
//! `C:` lines that stand together are one write of the client's, each ended with CRLF; `S:` lines that stand
//! together are one write of ours, `--` parts two. `C| text` is written as it stands, with escapes. `= what` is
//! something else that the driver was told. `+ 30s` lets time pass, `! next write` parts two writes of the client's.
//!
//! The driver of these tests finds fault with local parts only, `refused` and `deferred`, and can't store a body
//! that begins with `full`.

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
                    let text = std::str::from_utf8(octets).unwrap();
                    if std::mem::replace(&mut wrote, true) {
                        self.seen.push("--".into());
                    }
                    let lines =
                        text.split_terminator("\r\n").map(|line| format!("S: {line}").trim_end().to_owned());
                    self.seen.extend(lines);
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

/// `text` with the escapes `\r`, `\n` and `\0`.
fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").into_bytes()
}

fn check_with(settings: Settings, transcript: &str) {
    let mut session = Session::new(settings);
    session.server.greet(session.now);
    session.perform();
    play(session, transcript);
}

fn play(mut session: Session, transcript: &str) {
    let mut expect = Vec::new();
    let mut sending = Vec::new();
    for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()).chain(["+ 0s"]) {
        expect.push(line.to_owned());
        if let Some(text) = line.strip_prefix("C:") {
            sending.push((line, [unescape(text.trim_start()), b"\r\n".to_vec()].concat()));
            continue;
        }
        if let Some(text) = line.strip_prefix("C| ") {
            sending.push((line, unescape(text)));
            continue;
        }
        if !sending.is_empty() {
            let (lines, octets): (Vec<_>, Vec<_>) = sending.drain(..).unzip();
            session.seen.extend(lines.into_iter().map(str::to_owned));
            session.input(&octets.concat());
        }
        if let Some(span) = line.strip_prefix("+ ") {
            session.seen.push(line.to_owned());
            session.now += Duration::from_secs(span.trim_end_matches('s').parse().unwrap());
            session.server.handle_timeout(session.now);
            session.perform();
        } else if line == "! shut down" {
            session.seen.push(line.to_owned());
            session.server.shut_down();
            session.perform();
        } else if line == "! next write" {
            session.seen.push(line.to_owned());
        }
    }
    let seen = session.seen.join("\n");
    assert_eq!(seen, expect.join("\n"), "\n--- seen:\n{seen}\n--- expected:\n{}\n", expect.join("\n"));
}

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
