//! Sessions as transcripts, in virtual time.
//!
//! `C:` lines that stand together are one write of the client's, each ended with CRLF; `S:` lines that stand
//! together are one write of ours, `--` parts two. `C| text` is written as it stands, with escapes. `= what` is
//! something else that the driver was told. `+ 30s` lets time pass, `! next write` parts two writes of the client's.
//!
//! The driver of these tests finds fault with local parts only, `refused` and `deferred`, and can't store a body
//! that begins with `full`.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::mail::Domain;

const SETTINGS: fn() -> Settings = || Settings {
    hostname: Domain::parse("mx.example").unwrap(),
    max_message_octets: 100,
    max_recipients: 3,
    hard_error_limit: 3,
    command_timeout: Duration::from_secs(300),
    data_timeout: Duration::from_secs(60),
    bare_line_ends: BareLineEnds::Normalise,
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
                    self.seen.extend(text.split_terminator("\r\n").map(|line| format!("S: {line}")));
                }
                Action::Judge(Question::Mail(mail)) => {
                    let sender = mail.reverse_path.mailbox().map(|mailbox| mailbox.local_part.as_str());
                    let verdict = verdict(sender.unwrap_or_default());
                    self.server.answer_mail(self.now, QueueId(33), verdict);
                }
                Action::Judge(Question::Rcpt(path)) => {
                    let name = path.mailbox().map(|mailbox| mailbox.local_part.as_str().to_owned());
                    self.server.answer_rcpt(self.now, verdict(&name.unwrap_or_default()));
                }
                Action::Judge(Question::Data) => {
                    self.seen.push(format!("= body {}", self.body.escape_ascii()));
                    let full = self.body.starts_with(b"full");
                    let verdict = if full { Err(Refusal::StorageFull) } else { Ok(Stored) };
                    self.server.answer_data(self.now, verdict);
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
    S: 250 ENHANCEDSTATUSCODES
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

#[test]
fn a_message_one_command_at_a_time() {
    check_greeted(
        "
        C: MAIL FROM:<a@client.example> SIZE=30 BODY=8BITMIME
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<b@mx.example>
        S: 250 2.1.5 Recipient ok
        C: DATA
        S: 354 End data with <CR><LF>.<CR><LF>
        C: Subject: x
        C:
        C: ..dot
        C: .
        = body Subject: x\\r\\n\\r\\n.dot\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        C: QUIT
        S: 221 2.0.0 Bye
        = close Quit
        ",
    );
}

#[test]
fn groups_of_commands_have_groups_of_replies() {
    check_greeted(
        "
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<b@mx.example>
        C: RCPT TO:<refused@mx.example>
        C: RCPT TO:<c@mx.example>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 250 2.1.5 Recipient ok
        S: 354 End data with <CR><LF>.<CR><LF>
        C: text
        C: .
        C: MAIL FROM:<a@client.example>
        C: RSET
        C: NOOP
        C: QUIT
        = body text\\r\\n
        = abandon
        S: 250 2.0.0 Ok: queued as 11
        S: 250 2.1.0 Sender ok
        S: 250 2.0.0 Ok
        S: 250 2.0.0 Ok
        --
        S: 221 2.0.0 Bye
        = close Quit
        ",
    );
}

#[test]
fn a_group_whose_recipients_are_all_refused_gets_no_354() {
    check_greeted(
        "
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<refused@mx.example>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 554 5.5.1 No valid recipients
        C: RSET
        = abandon
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn helo_offers_nothing() {
    check(
        "
        S: 220 mx.example ESMTP
        C: HELO client.example
        S: 250 mx.example greets client.example
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        ",
    );
}

#[test]
fn commands_out_of_order() {
    check_greeted(
        "
        C: RCPT TO:<b@mx.example>
        S: 503 5.5.1 MAIL comes first
        C: DATA
        S: 503 5.5.1 MAIL and RCPT come first
        C: MAIL FROM:<>
        S: 250 2.1.0 Sender ok
        C: MAIL FROM:<>
        S: 503 5.5.1 MAIL was given already
        C: EHLO client.example
        = abandon
        S: 250-mx.example greets client.example
        S: 250-PIPELINING
        S: 250-SIZE 100
        S: 250-8BITMIME
        S: 250 ENHANCEDSTATUSCODES
        C: DATA
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
        ",
    );
}

#[test]
fn a_refused_sender_begins_no_transaction() {
    check_greeted(
        "
        C: MAIL FROM:<deferred@client.example>
        C: RCPT TO:<b@mx.example>
        S: 452 4.3.1 Insufficient storage, try later (ref 11)
        S: 503 5.5.1 MAIL comes first
        ",
    );
}

#[test]
fn what_needs_no_transaction() {
    check(
        "
        S: 220 mx.example ESMTP
        C: NOOP
        S: 250 2.0.0 Ok
        C: HELP
        S: 214 2.0.0 HELO EHLO MAIL RCPT DATA RSET NOOP HELP VRFY QUIT
        C: VRFY postmaster
        S: 252 2.0.0 Cannot verify, but will take a message and attempt delivery
        C: EXPN staff
        S: 502 5.5.1 Command not implemented
        C: RSET
        S: 250 2.0.0 Ok
        ",
    );
}

#[test]
fn the_bare_postmaster_is_a_recipient() {
    check_greeted(
        "
        C: MAIL FROM:<>
        C: RCPT TO:<Postmaster>
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        ",
    );
}

#[test]
fn recipients_past_the_limit_are_deferred() {
    check_greeted(
        "
        C: MAIL FROM:<>
        C: RCPT TO:<a@mx.example>
        C: RCPT TO:<b@mx.example>
        C: RCPT TO:<c@mx.example>
        C: RCPT TO:<d@mx.example>
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 452 4.5.3 Too many recipients, the limit is 3 (ref 11)
        ",
    );
}

#[test]
fn past_the_error_limit_the_session_ends() {
    check_greeted(
        "
        C: MIAL
        S: 500 5.5.1 Command not recognised
        C: MAIL FROM:<a@client.example>
        C: RCPT TO:<refused@mx.example>
        C: RCPT TO:<b@>
        S: 250 2.1.0 Sender ok
        S: 554 5.7.1 Relay access denied (ref 11)
        S: 501 5.1.3 Bad recipient address: a domain name is empty
        C: RCPT TO:<refused@mx.example>
        C: RCPT TO:<b@mx.example>
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
        ",
    );
}

#[test]
fn deferrals_are_no_errors() {
    let deferred = "
        C: RCPT TO:<deferred@mx.example>
        S: 452 4.3.1 Insufficient storage, try later (ref 11)
    ";
    check_greeted(&format!("C: MAIL FROM:<>\nS: 250 2.1.0 Sender ok\n{}", deferred.repeat(10)));
}

#[test]
fn a_stored_message_clears_the_errors() {
    let wrong = "
        C: WRONG
        S: 500 5.5.1 Command not recognised
    ";
    let message = "
        C: x
        C: .
        = body x\\r\\n
        S: 250 2.0.0 Ok: queued as 11
    ";
    check_greeted(&format!("{0}{IN_DATA}{message}{0}", wrong.repeat(3)));
}

#[test]
fn idle_commands_without_end_are_errors() {
    let noop = "
        C: NOOP
        S: 250 2.0.0 Ok
    ";
    let count = MAX_IDLE_COMMANDS as usize + 3;
    let end = "
        C: NOOP
        S: 421 4.7.0 Too many errors, closing the connection
        = close TooManyErrors
    ";
    check_greeted(&format!("{}{end}", noop.repeat(count)));
}

#[test]
fn who_speaks_before_the_greeting_is_refused() {
    let mut session = Session::new(SETTINGS());
    session.input(b"EHLO bot.example\r\n");
    assert_eq!(
        session.seen,
        ["S: 554 5.5.1 Protocol error: you spoke before the greeting", "= close EarlyTalker"]
    );
}

#[test]
fn who_does_not_wait_for_a_reply_is_refused() {
    let refused = "
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised
    ";
    check(&format!("S: 220 mx.example ESMTP\nC: EHLO bot.example\nC: MAIL FROM:<>{refused}"));
    check(&format!("S: 220 mx.example ESMTP\nC: NOOP\nC: NOOP{refused}"));
    let helo = "
        S: 220 mx.example ESMTP
        C: HELO bot.example
        S: 250 mx.example greets bot.example
    ";
    check(&format!("{helo}\nC: MAIL FROM:<>\nC: RCPT TO:<a@mx.example>{refused}"));
    check_greeted(
        "
        C: MAIL FROM:<>
        C: RCPT TO:<a@mx.example>
        C: DATA
        C: text before 354
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 554 5.5.1 Protocol error: you went on without waiting for the reply
        = close Unsynchronised
        ",
    );
}

#[test]
fn only_crlf_ends_a_command() {
    check_greeted(
        "
        C| NOOP\\nNOOP\\r\\n
        S: 500 5.5.2 Command holds a control character or a bare CR or LF
        C| NOOP\\n
        + 299s
        + 1s
        S: 421 4.4.2 Timeout, closing the connection
        = close Timeout
        ",
    );
}

#[test]
fn overlong_commands() {
    let long = "x".repeat(5_000);
    check_greeted(&format!(
        "
        C: NOOP {long}
        S: 500 5.5.2 Line too long
        C: NOOP
        S: 250 2.0.0 Ok
        "
    ));
}

#[test]
fn only_crlf_dot_crlf_ends_data() {
    check_greeted(&format!(
        "{IN_DATA}
        C| a\\n.\\nMAIL FROM:<x@client.example>\\n.\\r\\nb\\r\\n.\\nc\\r.\\r\\n
        ! next write
        C: .
        = body a\\r\\n.\\r\\nMAIL FROM:<x@client.example>\\r\\n.\\r\\nb\\r\\n\\r\\nc\\r\\n.\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        "
    ));
}

#[test]
fn bare_line_ends_are_refused_in_red() {
    let settings = Settings { bare_line_ends: BareLineEnds::Refuse, ..SETTINGS() };
    check_with(
        settings,
        &format!(
            "{GREETED}{IN_DATA}
            C| a\\n.\\nMAIL FROM:<x@client.example>\\r\\nmore\\r\\n
            = refuse body BareLineEnd
            C: .
            S: 554 5.6.0 Message holds a bare CR or LF (ref 11)
            C: NOOP
            S: 250 2.0.0 Ok
            "
        ),
    );
}

#[test]
fn the_size_limit_counts_octets_without_stuffing() {
    let fits = format!("C: ..{}", "x".repeat(97));
    let content = fits[4..].to_owned();
    check_greeted(&format!(
        "{IN_DATA}
        {fits}
        C: .
        = body {content}\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        {IN_DATA}
        {fits}x
        = refuse body TooLarge(100)
        C: more
        C: .
        S: 552 5.3.4 Message exceeds the limit of 100 octets (ref 11)
        C: NOOP
        S: 250 2.0.0 Ok
        "
    ));
}

#[test]
fn memory_stays_bounded_whatever_is_sent() {
    let mut session = Session::new(SETTINGS());
    session.server.greet(session.now);
    session.perform();
    let flood = vec![b'x'; 10_000];
    let mut most = 0;
    let mut pour = |session: &mut Session, times: usize| {
        for _ in 0..times {
            session.input(&flood);
            most = most.max(session.server.input.len() - session.server.used + session.server.output.len());
        }
    };
    pour(&mut session, 100);
    session.input(b"\r\n");
    session.input(b"EHLO a\r\n");
    session.input(b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n");
    pour(&mut session, 100);
    assert!(session.seen.iter().any(|line| line == "= refuse body TooLarge(100)"), "{:?}", session.seen);
    assert!(session.octets_handed_out <= 100);
    assert!(most <= crate::smtp::line::MAX_LINE_OCTETS, "{most}");
}

#[test]
fn a_full_disk_at_the_end_of_data() {
    check_greeted(&format!(
        "{IN_DATA}
        C: full
        C: .
        = body full\\r\\n
        S: 452 4.3.1 Insufficient storage, try later (ref 11)
        "
    ));
}

#[test]
fn slow_clients() {
    let bye = "
        S: 421 4.4.2 Timeout, closing the connection
        = close Timeout
    ";
    check(&format!("S: 220 mx.example ESMTP\n+ 299s\n+ 1s\n{bye}"));
    // Octets that end no command win no time.
    check(&format!("S: 220 mx.example ESMTP\n+ 200s\nC| NO\n+ 100s\n{bye}"));
    check(&format!("S: 220 mx.example ESMTP\n+ 200s\nC: NOOP\nS: 250 2.0.0 Ok\n+ 299s\n+ 1s\n{bye}"));
    check_greeted(&format!("{IN_DATA}\n+ 59s\nC| a\n+ 59s\nC| b\n+ 60s\n{bye}"));
    // However steadily it trickles, there is an end.
    let trickle = "+ 59s\nC| a\n".repeat(6);
    check_greeted(&format!("{IN_DATA}\n{trickle}\n+ 6s\n{bye}"));
}

#[test]
fn shutting_down_waits_for_the_message() {
    let bye = "
        S: 421 4.3.2 mx.example is shutting down, try again later
        = close ShutDown
    ";
    check_greeted(&format!("! shut down{bye}"));
    check_greeted(&format!(
        "{IN_DATA}
        ! shut down
        C: text
        C: .
        = body text\\r\\n
        S: 250 2.0.0 Ok: queued as 11
        {}",
        bye.trim_start()
    ));
}

/// What a client may send in one go: a group ends where it must wait.
fn groups() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let line = proptest::sample::select(vec![
        "MAIL FROM:<a@b.example> SIZE=10",
        "MAIL FROM:<deferred@b.example>",
        "RCPT TO:<c@d.example>",
        "RCPT TO:<refused@d.example>",
        "RCPT TO:<",
        "RSET",
        "NOOP",
        "NO\nOP",
        "VRFY x",
        "",
    ]);
    let commands = proptest::collection::vec(line, 0..6);
    let data = "(\\.?[a\\r\\n]{0,30}\r\n){0,6}";
    let group = (commands, proptest::bool::ANY, data).prop_map(|(commands, message, data)| {
        let mut group: String = commands.iter().map(|line| format!("{line}\r\n")).collect();
        let mut groups = Vec::new();
        if message {
            group.push_str("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n");
            groups.push(std::mem::take(&mut group).into_bytes());
            groups.push(format!("{data}\r\n.\r\n").into_bytes());
        } else {
            groups.push(group.into_bytes());
        }
        groups
    });
    proptest::collection::vec(group, 1..4)
        .prop_map(|groups| [vec![b"EHLO a.example\r\n".to_vec()], groups.concat()].concat())
}

/// What comes of the groups, each given in pieces of these lengths: what was written, and what else was done.
fn run(groups: &[Vec<u8>], octets: &[usize]) -> (Vec<String>, Vec<String>) {
    let mut session = Session::new(Settings { hard_error_limit: 30, ..SETTINGS() });
    session.server.greet(session.now);
    session.perform();
    let mut lengths = octets.iter().cycle();
    for group in groups {
        let mut rest = group.as_slice();
        while !rest.is_empty() {
            let (piece, left) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
            session.input(piece);
            rest = left;
        }
    }
    session.seen.retain(|line| line != "--");
    session.seen.into_iter().partition(|line| line.starts_with("S: "))
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_actions(
        groups in groups(),
        lengths in proptest::collection::vec(1_usize..40, 1..6),
    ) {
        prop_assert_eq!(run(&groups, &lengths), run(&groups, &[usize::MAX]));
    }

    #[test]
    fn any_octets_are_survived(
        octets in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000),
        lengths in proptest::collection::vec(1_usize..80, 1..6),
    ) {
        run(&[b"EHLO a\r\n".to_vec(), octets], &lengths);
    }
}
