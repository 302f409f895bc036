//! Sessions with servers good, odd and hostile, as transcripts in virtual time.
//!
//! Inputs are `S:` (the server's octets of one read, `|` between lines, CRLF at the end), `> begin ...`, `> wait`,
//! `> lost`, `> quit`, `> sent`, `> block`, `> encrypted`, `> failed`; every other line is what the client does in answer.

mod opening;
mod parameters;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::mail::{AddressLiteral, BodyType, DsnReturn, ForwardPath, Mailbox, Notify, ReversePath};
use crate::outcome::TlsUsed;

struct Harness {
    client: Client,
    now: Instant,
    transcript: Vec<String>,
}

fn settings() -> Settings {
    Settings {
        helo: Host::Domain(Domain::parse("guard.test").unwrap()),
        own_names: vec![Domain::parse("guard.test").unwrap()],
        remote: "mx.test[192.0.2.1]:25".to_owned(),
        destination: "d.test".to_owned(),
        encryption: Encryption::Off,
        login: None,
        host: "mx.test".to_owned(),
        cnonce: "OA6MHXh6VqTrRk".to_owned(),
    }
}

impl Harness {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self { client: Client::new(settings, now), now, transcript: Vec::new() }
    }

    fn input(&mut self, line: &str) {
        let mut words = line.strip_prefix("> ").unwrap_or(line).split(' ');
        match words.next() {
            Some("S:") => {
                let octets = format!("{}\r\n", line[3..].replace('|', "\r\n"));
                self.client.handle_input(self.now, octets.as_bytes());
            }
            Some("begin") => self.begin(words),
            Some("wait") => {
                self.now += Duration::from_secs(words.next().unwrap().parse().unwrap());
                self.client.handle_timeout(self.now);
            }
            Some("encrypted") => {
                let (version, cipher) = ("TLSv1.3".to_owned(), "AES".to_owned());
                self.client.tls_established(self.now, TlsUsed { version, cipher, verified: false });
            }
            Some("failed") => self.client.tls_failed("no certificate"),
            Some("lost") => self.client.handle_lost("connection reset"),
            Some("quit") => self.client.quit(self.now),
            Some("sent") => self.client.content_sent(self.now),
            Some("block") => self.client.content_progress(self.now),
            other => panic!("no such input: {other:?}"),
        }
    }

    /// `begin FROM TO... [size=N] [8bit]`, FROM `-` for the null reverse-path; `ask`: without content.
    fn begin<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let (mut paths, mut asks_only) = (Vec::new(), false);
        let (mut size, mut eight_bit, mut utf8_header) = (100, false, false);
        let (mut smtputf8, mut notify, mut original_recipient) = (false, None, None);
        let (mut dsn_return, mut envelope_id) = (None, None);
        for word in words {
            match word.split_once('=') {
                Some(("size", octets)) => size = octets.parse().unwrap(),
                Some(("envid", id)) => envelope_id = Some(id.to_owned()),
                Some(("orcpt", original)) => original_recipient = Some(original.to_owned()),
                _ if word == "8bit" => eight_bit = true,
                _ if word == "utf8" => smtputf8 = true,
                _ if word == "ask" => asks_only = true,
                _ if word == "utf8-header" => utf8_header = true,
                _ if word == "hdrs" => dsn_return = Some(DsnReturn::Headers),
                _ if word == "never" => notify = Some(Notify::NEVER),
                _ if word == "success" => {
                    notify = Some(Notify { success: true, delay: true, ..Notify::NEVER })
                }
                _ => paths.push(word),
            }
        }
        let reverse_path = match paths[0] {
            "-" => ReversePath::Null,
            sender => ReversePath::Mailbox(Mailbox::parse(sender).unwrap()),
        };
        let mut recipients: Vec<Recipient> = paths[1..]
            .iter()
            .map(|path| match *path {
                "postmaster" => Recipient::new(ForwardPath::Postmaster),
                path => Recipient::new(ForwardPath::Mailbox(Mailbox::parse(path).unwrap())),
            })
            .collect();
        for recipient in &mut recipients {
            (recipient.notify, recipient.original_recipient) = (notify, original_recipient.clone());
        }
        let envelope = Envelope {
            reverse_path,
            recipients: recipients.clone(),
            body: BodyType::SevenBit,
            smtputf8,
            dsn_return,
            envelope_id,
        };
        let content = (!asks_only).then_some(ContentForm { size, eight_bit, utf8_header });
        let recipients: Vec<&Recipient> = recipients.iter().collect();
        let transaction = Transaction { envelope: &envelope, recipients: &recipients, content };
        self.client.begin(self.now, &transaction);
    }

    fn collect(&mut self) {
        while let Some(action) = self.client.poll_action() {
            match action {
                Action::Send(octets) => {
                    let text = String::from_utf8(octets).unwrap();
                    self.transcript.push(format!("C: {}", text.trim_end().replace("\r\n", "|")));
                }
                Action::SendContent => self.transcript.push("content".to_owned()),
                Action::StartTls => self.transcript.push("handshake".to_owned()),
                Action::Ready => self.transcript.push("ready".to_owned()),
                Action::Close => self.transcript.push("close".to_owned()),
                Action::Unusable(outcome) => self.transcript.push(format!("unusable {}", show(&outcome))),
                Action::Concluded(conclusion) => {
                    let outcomes: Vec<String> = conclusion.outcomes.iter().map(show).collect();
                    self.transcript.push(format!("{:?}: {}", conclusion.ending, outcomes.join(", ")));
                }
            }
        }
    }
}

fn show(outcome: &Outcome) -> String {
    let word = match outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Relayed(_) => "relayed",
        Outcome::Deferred(_) => "deferred",
        Outcome::Failed(_) => "failed",
    };
    format!("{word} {}", outcome.report().status)
}

/// Plays the inputs of `script`; what comes out must be the whole of it.
fn check_with(settings: Settings, script: &str) {
    let expect: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut harness = Harness::new(settings);
    for line in expect.iter().filter(|line| line.starts_with("S:") || line.starts_with('>')) {
        harness.transcript.push((*line).to_owned());
        harness.input(line);
        harness.collect();
    }
    assert_eq!(harness.transcript.join("\n"), expect.join("\n"));
}

fn check(script: &str) {
    check_with(settings(), script);
}

/// A session with PIPELINING, SIZE and 8BITMIME has been opened; then `script`.
fn check_open(script: &str) {
    check(&format!("{OPENING}\n{script}"));
}

const OPENING: &str = "S: 220 mx.test ESMTP
    C: EHLO guard.test
    S: 250-mx.test|250-PIPELINING|250-SIZE 1000|250 8BITMIME
    ready";

const ENVELOPE: &str = "> begin a@b.test c@d.test
    C: MAIL FROM:<a@b.test> SIZE=100|RCPT TO:<c@d.test>|DATA";

#[test]
fn one_message_in_two_round_trips() {
    check_open(
        "> begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test> SIZE=100|RCPT TO:<c@d.test>|DATA
        S: 250 ok|250 ok|354 go
        content
        > sent
        S: 250 2.6.0 queued
        Settled: delivered 2.6.0
        > begin - postmaster c@d.test 8bit
        C: MAIL FROM:<> SIZE=100 BODY=8BITMIME|RCPT TO:<postmaster>|RCPT TO:<c@d.test>|DATA
        S: 250 ok
        S: 250 ok|251 will forward
        S: 354 go
        content
        > sent
        S: 250 queued
        Settled: delivered 2.0.0, delivered 2.0.0
        > quit
        C: QUIT
        S: 221 bye
        close",
    );
}

#[test]
fn a_server_without_extensions() {
    check(
        "S: 220-mx.test|220 says much
        C: EHLO guard.test
        S: 502 what?
        C: HELO guard.test
        S: 250 mx.test
        ready
        > begin a@b.test c@d.test e@d.test
        C: MAIL FROM:<a@b.test>
        S: 250 ok
        C: RCPT TO:<c@d.test>
        S: 450 4.2.1 later
        C: RCPT TO:<e@d.test>
        S: 250 ok
        C: DATA
        S: 354 go
        content
        > sent
        S: 250 ok
        Settled: deferred 4.2.1, delivered 2.0.0
        > begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test>
        S: 250 ok
        C: RCPT TO:<c@d.test>
        S: 550 no
        Settled: failed 5.0.0
        > begin a@b.test c@d.test
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@b.test>
        S: 552 5.2.2 no
        Settled: failed 5.2.2
        > begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test>",
    );
}

#[test]
fn the_name_we_give() {
    let literal = Host::Literal(AddressLiteral("2001:db8::1".parse().unwrap()));
    check_with(
        Settings { helo: literal, ..settings() },
        "S: 220 mx
        C: EHLO [IPv6:2001:db8::1]",
    );
}

#[test]
fn refused_recipients() {
    // None is left: DATA that was sent ahead is refused, or answered 354 and ended without content.
    for (replies, rest) in [
        ("S: 250 ok|550 5.1.1 no|554 none", "Settled: failed 5.1.1"),
        ("S: 250 ok|450 4.2.1 no|503 5.5.1 none", "Settled: deferred 4.2.1"),
        ("S: 250 ok|550 5.1.1 no|354 go", "C: .\nS: 250 queued\nSettled: failed 5.1.1"),
        ("S: 550 5.7.1 no|503 5.5.1 no|503 5.5.1 no", "Settled: failed 5.7.1"),
        ("S: 451 no|250 ok|354 go", "C: .\nS: 554 no\nSettled: deferred 4.0.0"),
        ("S: 250 ok|250 ok|451 4.3.0 no", "Settled: deferred 4.3.0"),
        ("S: 250 ok|250 ok|554 5.3.0 no", "Settled: failed 5.3.0"),
    ] {
        check_open(&format!("{ENVELOPE}\n{replies}\n{rest}"));
    }
    check_open(
        "> begin a@b.test c@d.test e@d.test f@d.test
        C: MAIL FROM:<a@b.test> SIZE=100|RCPT TO:<c@d.test>|RCPT TO:<e@d.test>|RCPT TO:<f@d.test>|DATA
        S: 250 ok|250 ok|550 5.1.1 no|452 4.5.3 too many|354 go
        content
        > sent
        S: 554 5.7.1 spam
        Settled: failed 5.7.1, failed 5.1.1, deferred 4.5.3",
    );
}

#[test]
fn too_many_recipients_is_transient_even_as_552() {
    for (reply, outcome) in [
        ("552 too many recipients", "deferred 4.5.3"),
        ("552 5.5.3 too many", "deferred 4.5.3"),
        ("552 5.2.2 mailbox full", "failed 5.2.2"),
    ] {
        check_open(&format!(
            "> begin a@b.test c@d.test e@d.test
            C: MAIL FROM:<a@b.test> SIZE=100|RCPT TO:<c@d.test>|RCPT TO:<e@d.test>|DATA
            S: 250 ok|250 ok|{reply}|354 go
            content
            > sent
            S: 250 ok
            Settled: delivered 2.0.0, {outcome}"
        ));
    }
}

#[test]
fn reset_before_the_next_message() {
    check_open(&format!(
        "{ENVELOPE}
        S: 250 ok|550 no|554 none
        Settled: failed 5.0.0
        > begin a@b.test c@d.test
        C: RSET|MAIL FROM:<a@b.test> SIZE=100|RCPT TO:<c@d.test>|DATA
        S: 250 ok|250 ok|250 ok|354 go
        content
        > sent
        S: 250 ok
        Settled: delivered 2.0.0
        {ENVELOPE}"
    ));
}

#[test]
fn many_recipients_go_in_batches() {
    let recipients: Vec<String> = (0..MAX_PIPELINED_COMMANDS + 5).map(|n| format!("r{n}@d.test")).collect();
    let commands: Vec<String> = recipients.iter().map(|path| format!("RCPT TO:<{path}>")).collect();
    let (first, second) = commands.split_at(MAX_PIPELINED_COMMANDS - 1);
    let outcomes = vec!["delivered 2.0.0"; recipients.len()].join(", ");
    check_open(&format!(
        "> begin a@b.test {}
        C: MAIL FROM:<a@b.test> SIZE=100|{}
        S: {}
        C: {}|DATA
        S: {}|354 go
        content
        > sent
        S: 250 ok
        Settled: {outcomes}",
        recipients.join(" "),
        first.join("|"),
        vec!["250 ok"; MAX_PIPELINED_COMMANDS].join("|"),
        second.join("|"),
        vec!["250 ok"; second.len()].join("|"),
    ));
}

#[test]
fn what_the_server_cannot_take_is_not_sent() {
    check_open(
        "> begin a@b.test c@d.test e@d.test size=1001
        Settled: failed 5.3.4, failed 5.3.4
        > begin jörg@b.test c@d.test
        Settled: failed 5.6.7
        > begin a@bücher.test ü@d.test c@bücher.test size=1000
        C: MAIL FROM:<a@xn--bcher-kva.test> SIZE=1000|RCPT TO:<c@xn--bcher-kva.test>|DATA
        S: 250 ok|250 ok|354 go
        content
        > sent
        S: 250 ok
        Settled: failed 5.6.7, delivered 2.0.0",
    );
    check(
        "S: 220 mx
        C: EHLO guard.test
        S: 250-mx|250 SMTPUTF8
        ready
        > begin a@b.test c@d.test 8bit
        Settled: failed 5.6.3
        > begin jörg@b.test c@bücher.test
        C: MAIL FROM:<jörg@b.test> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<c@bücher.test>",
    );
}

#[test]
fn sessions_that_do_not_come_about() {
    for (replies, outcome) in [
        ("S: 554 5.3.2 no mail here", "unusable failed 5.3.2"),
        ("S: 421 4.3.2 busy", "unusable deferred 4.3.2"),
        ("S: 450 later", "unusable deferred 4.0.0"),
        ("S: 354 go", "unusable deferred 4.0.0"),
        ("S: 220 guard.test ESMTP", "unusable failed 5.4.6"),
        ("S: SSH-2.0-OpenSSH_9.2", "unusable deferred 4.5.0"),
        ("> wait 300", "unusable deferred 4.4.2"),
        ("> lost", "unusable deferred 4.4.2"),
    ] {
        check(&format!("{replies}\n{outcome}\nclose"));
    }
    for (replies, outcome) in [
        ("S: 421 4.3.2 busy", "deferred 4.3.2"),
        ("S: 450 later", "deferred 4.0.0"),
        ("S: 250-mx|251 no", "deferred 4.5.0"),
        ("S: 250 mx|250 ok", "deferred 4.5.0"),
        ("S: 250 GUARD.TEST at your service", "failed 5.4.6"),
        ("> wait 300", "deferred 4.4.2"),
        ("> lost", "deferred 4.4.2"),
        ("S: 500 no\nC: HELO guard.test\nS: 550 no", "failed 5.0.0"),
        ("S: 500 no\nC: HELO guard.test\nS: 421 no", "deferred 4.0.0"),
        ("S: 500 no\nC: HELO guard.test\n> lost", "deferred 4.4.2"),
    ] {
        check(&format!("S: 220 mx\nC: EHLO guard.test\n{replies}\nunusable {outcome}\nclose"));
    }
}

#[test]
fn replies_ahead_of_commands_end_the_session() {
    // A greeting that brings the reply to EHLO along; the same within a transaction and after it.
    check("S: 220 mx|250 mx\nunusable deferred 4.5.0\nclose");
    check(
        "S: 220 mx
        C: EHLO guard.test
        S: 250 mx
        ready
        > begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test>
        S: 250 ok|250 ok
        Interrupted: deferred 4.5.0
        close",
    );
    check_open(&format!(
        "{ENVELOPE}
        S: 250 ok|250 ok|354 go|250 queued
        content
        Interrupted: deferred 4.5.0
        close"
    ));
    check_open(&format!(
        "{ENVELOPE}
        S: 250 ok|250 ok|354 go
        content
        > sent
        S: 250 queued|250 more
        Settled: delivered 2.0.0
        close
        > begin a@b.test c@d.test
        Unanswered: deferred 4.5.0
        close"
    ));
}

/// A session that breaks at each stage of a transaction.
#[test]
fn breaks() {
    let endings = [
        ("> lost", "deferred 4.4.2"),
        ("S: 421 4.3.2 shutting down", "deferred 4.3.2"),
        ("S: nonsense", "deferred 4.5.0"),
    ];
    for (event, outcome) in endings {
        check_open(&format!("{ENVELOPE}\n{event}\nUnanswered: {outcome}\nclose"));
        check_open(&format!("{ENVELOPE}\nS: 250 ok\n{event}\nInterrupted: {outcome}\nclose"));
        check_open(&format!("{ENVELOPE}\nS: 250 ok|250 ok\n{event}\nInterrupted: {outcome}\nclose"));
        let content = format!("{ENVELOPE}\nS: 250 ok|250 ok|354 go\ncontent");
        check_open(&format!("{content}\n{event}\nInterrupted: {outcome}\nclose"));
        // After the final dot only the server's own word is certain.
        let ending = if event.starts_with("S: 421") { "Interrupted" } else { "InDoubt" };
        check_open(&format!("{content}\n> sent\n{event}\n{ending}: {outcome}\nclose"));
    }
    // What was decided before stays.
    check_open(
        "> begin a@b.test c@d.test e@d.test
        C: MAIL FROM:<a@b.test> SIZE=100|RCPT TO:<c@d.test>|RCPT TO:<e@d.test>|DATA
        S: 250 ok|550 5.1.1 no
        > lost
        Interrupted: failed 5.1.1, deferred 4.4.2
        close",
    );
}

#[test]
fn replies_that_make_no_sense() {
    for (replies, ending) in [
        ("S: 354 go", "Unanswered"),
        ("S: 250 ok|354 go", "Interrupted"),
        ("S: 250 ok|250 ok|250 ok", "Interrupted"),
        ("S: 250 ok|250 ok|354 go\ncontent\n> sent\nS: 354 go", "InDoubt"),
    ] {
        check_open(&format!("{ENVELOPE}\n{replies}\n{ending}: deferred 4.5.0\nclose"));
    }
}

#[test]
fn a_refusal_before_the_end_of_the_content_counts() {
    for (reply, outcome) in [("552 5.3.4 too large", "failed 5.3.4"), ("452 4.3.1 full", "deferred 4.3.1")] {
        check_open(&format!(
            "{ENVELOPE}
            S: 250 ok|250 ok|354 go
            content
            > block
            S: {reply}
            Interrupted: {outcome}
            close"
        ));
    }
}

#[test]
fn timeouts() {
    check_open(&format!(
        "{ENVELOPE}
        > wait 299
        S: 250 ok
        > wait 299
        S: 250 ok
        > wait 119
        S: 354 go
        content
        > wait 179
        > block
        > wait 179
        > sent
        > wait 599
        > wait 1
        InDoubt: deferred 4.4.2
        close"
    ));
    for (replies, seconds, ending) in [
        ("", 300, "Unanswered"),
        ("S: 250 ok", 300, "Interrupted"),
        ("S: 250 ok|250 ok", 120, "Interrupted"),
        ("S: 250 ok|250 ok|354 go\ncontent", 180, "Interrupted"),
    ] {
        check_open(&format!(
            "{ENVELOPE}\n{replies}\n> wait {}\n> wait 1\n{ending}: deferred 4.4.2\nclose",
            seconds - 1
        ));
    }
    check_open("> wait 100000\n> quit\nC: QUIT\n> wait 5\nclose");
}

#[test]
fn the_loop_report_says_what_to_do() {
    let mut client = Client::new(settings(), Instant::now());
    client.handle_input(Instant::now(), b"220 guard.test ESMTP\r\n");
    let Some(Action::Unusable(Outcome::Failed(report))) = client.poll_action() else {
        panic!("no loop seen")
    };
    assert!(report.text.starts_with("Mail for d.test loops back to myself: "), "{}", report.text);
}

#[test]
fn reports_are_bounded() {
    let mut client = Client::new(settings(), Instant::now());
    let line = format!("554-{}\r\n", "é".repeat(700));
    client.handle_input(Instant::now(), format!("{}554 end\r\n", line.repeat(10)).as_bytes());
    let Some(Action::Unusable(Outcome::Failed(report))) = client.poll_action() else { panic!("not refused") };
    let lines = report.reply.unwrap().lines;
    assert_eq!(lines.len(), MAX_REPORTED_LINES);
    assert!(lines.iter().all(|line| line.len() == MAX_REPORTED_LINE_OCTETS));
}

proptest! {
    /// How the octets of the server's turns are cut makes no difference.
    #[test]
    fn chunks_change_nothing(size in 1usize..30) {
        let turns = [
            "220-mx\r\n220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "250 ok\r\n450 4.2.1 no\r\n250 ok\r\n354 go\r\n",
            "250-2.0.0 queued\r\n250 2.0.0 as 1\r\n",
        ];
        let play = |size: usize| {
            let mut harness = Harness::new(settings());
            for (index, turn) in turns.iter().enumerate() {
                for piece in turn.as_bytes().chunks(size) {
                    harness.client.handle_input(harness.now, piece);
                }
                harness.collect();
                match index {
                    1 => harness.input("> begin a@b.test c@d.test e@d.test"),
                    2 => harness.input("> sent"),
                    _ => {}
                }
                harness.collect();
            }
            harness.transcript
        };
        let whole = play(1000);
        prop_assert_eq!(whole.last().map(String::as_str), Some("Settled: deferred 4.2.1, delivered 2.0.0"));
        prop_assert_eq!(play(size), whole);
    }

    /// Whatever the server says, the transaction concludes once, with one outcome a recipient.
    #[test]
    fn every_recipient_gets_one_outcome(
        replies in prop::collection::vec("(2|3|4|5)[0-5][0-9][ -][a-z.0-9]{0,5}", 0..12),
        recipients in 1usize..4,
    ) {
        let mut harness = Harness::new(settings());
        harness.input("S: 220 mx");
        harness.input("S: 250-mx|250 PIPELINING");
        harness.collect();
        let paths = vec!["c@d.test"; recipients].join(" ");
        harness.input(&format!("> begin a@b.test {paths}"));
        for reply in &replies {
            harness.client.handle_input(harness.now, format!("{reply}\r\n").as_bytes());
            harness.input("> sent");
        }
        harness.client.handle_lost("gone");
        harness.collect();
        let conclusions: Vec<_> = harness.transcript.iter().filter(|line| line.contains(": d") || line.contains(": f")).collect();
        prop_assert_eq!(conclusions.len(), 1);
        prop_assert_eq!(conclusions[0].split(", ").count(), recipients);
    }
}
