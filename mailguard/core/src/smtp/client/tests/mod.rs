//! Sessions with servers good, odd and hostile, as transcripts in virtual time.
//!
//! `! begin` (see [`Harness::begin`]), `! lost`, `! quit`, `! sent`, `! block`, `! encrypted` and `! failed`
//! are what the driver tells; `=` is what else the client asks of it.

mod broken;
mod opening;
mod parameters;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::mail::{AddressLiteral, BodyType, DsnReturn, ForwardPath, Mailbox, Notify, ReversePath};
use crate::outcome::TlsUsed;
use crate::testing::transcript::{self, End, Tried, written};

struct Harness {
    client: Client,
    now: Instant,
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
        Self { client: Client::new(settings, now), now }
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
}

impl Tried for Harness {
    fn hear(&mut self, octets: &[u8]) {
        self.client.handle_input(self.now, octets);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
    }

    fn told(&mut self, what: &str) {
        let mut words = what.split(' ');
        match words.next() {
            Some("begin") => self.begin(words),
            Some("encrypted") => {
                let (version, cipher) = ("TLSv1.3".to_owned(), "AES".to_owned());
                self.client.tls_established(self.now, TlsUsed { version, cipher, verified: false });
            }
            Some("failed") => self.client.tls_failed("no certificate"),
            Some("lost") => self.client.handle_lost("connection reset"),
            Some("quit") => self.client.quit(self.now),
            Some("sent") => self.client.content_sent(self.now),
            Some("block") => self.client.content_progress(self.now),
            other => panic!("nobody can be told: {other:?}"),
        }
    }

    fn did(&mut self) -> Vec<String> {
        let mut did = Vec::new();
        while let Some(action) = self.client.poll_action() {
            match action {
                Action::Send(octets) => did.extend(written(End::Client, &octets)),
                Action::SendContent => did.push("= content".to_owned()),
                Action::StartTls => did.push("= handshake".to_owned()),
                Action::Ready => did.push("= ready".to_owned()),
                Action::Close => did.push("= close".to_owned()),
                Action::Unusable(outcome) => did.push(format!("= unusable {}", show(&outcome))),
                Action::Concluded(conclusion) => {
                    let outcomes: Vec<String> = conclusion.outcomes.iter().map(show).collect();
                    did.push(format!("= {:?}: {}", conclusion.ending, outcomes.join(", ")));
                }
            }
        }
        did
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

#[track_caller]
fn check_with(settings: Settings, script: &str) {
    transcript::check(&mut Harness::new(settings), End::Server, script);
}

#[track_caller]
fn check(script: &str) {
    check_with(settings(), script);
}

/// A session with PIPELINING, SIZE and 8BITMIME has been opened; then `script`.
fn check_open(script: &str) {
    check(&format!("{OPENING}\n{script}"));
}

const OPENING: &str = "S: 220 mx.test ESMTP
    C: EHLO guard.test
    S: 250-mx.test
    S: 250-PIPELINING
    S: 250-SIZE 1000
    S: 250 8BITMIME
    = ready";

const ENVELOPE: &str = "! begin a@b.test c@d.test
    C: MAIL FROM:<a@b.test> SIZE=100
    C: RCPT TO:<c@d.test>
    C: DATA";

#[test]
fn pipelining_sends_a_message_in_two_round_trips() {
    check_open(
        "! begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        = content
        ! sent
        S: 250 2.6.0 queued
        = Settled: delivered 2.6.0
        ! begin - postmaster c@d.test 8bit
        C: MAIL FROM:<> SIZE=100 BODY=8BITMIME
        C: RCPT TO:<postmaster>
        C: RCPT TO:<c@d.test>
        C: DATA
        S: 250 ok
        --
        S: 250 ok
        S: 251 will forward
        --
        S: 354 go
        = content
        ! sent
        S: 250 queued
        = Settled: delivered 2.0.0, delivered 2.0.0
        ! quit
        C: QUIT
        S: 221 bye
        = close",
    );
}

#[test]
fn a_server_without_pipelining_and_other_extensions() {
    check(
        "S: 220-mx.test
        S: 220 says much
        C: EHLO guard.test
        S: 502 what?
        C: HELO guard.test
        S: 250 mx.test
        = ready
        ! begin a@b.test c@d.test e@d.test
        C: MAIL FROM:<a@b.test>
        S: 250 ok
        C: RCPT TO:<c@d.test>
        S: 450 4.2.1 later
        C: RCPT TO:<e@d.test>
        S: 250 ok
        C: DATA
        S: 354 go
        = content
        ! sent
        S: 250 ok
        = Settled: deferred 4.2.1, delivered 2.0.0
        ! begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test>
        S: 250 ok
        C: RCPT TO:<c@d.test>
        S: 550 no
        = Settled: failed 5.0.0
        ! begin a@b.test c@d.test
        C: RSET
        S: 250 ok
        C: MAIL FROM:<a@b.test>
        S: 552 5.2.2 no
        = Settled: failed 5.2.2
        ! begin a@b.test c@d.test
        C: MAIL FROM:<a@b.test>",
    );
}

#[test]
fn the_helo_name_we_give() {
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
        ("S: 250 ok\nS: 550 5.1.1 no\nS: 554 none", "= Settled: failed 5.1.1"),
        ("S: 250 ok\nS: 450 4.2.1 no\nS: 503 5.5.1 none", "= Settled: deferred 4.2.1"),
        ("S: 250 ok\nS: 550 5.1.1 no\nS: 354 go", "C: .\nS: 250 queued\n= Settled: failed 5.1.1"),
        ("S: 550 5.7.1 no\nS: 503 5.5.1 no\nS: 503 5.5.1 no", "= Settled: failed 5.7.1"),
        ("S: 451 no\nS: 250 ok\nS: 354 go", "C: .\nS: 554 no\n= Settled: deferred 4.0.0"),
        ("S: 250 ok\nS: 250 ok\nS: 451 4.3.0 no", "= Settled: deferred 4.3.0"),
        ("S: 250 ok\nS: 250 ok\nS: 554 5.3.0 no", "= Settled: failed 5.3.0"),
    ] {
        check_open(&format!("{ENVELOPE}\n{replies}\n{rest}"));
    }
    check_open(
        "! begin a@b.test c@d.test e@d.test f@d.test
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: RCPT TO:<e@d.test>
        C: RCPT TO:<f@d.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 5.1.1 no
        S: 452 4.5.3 too many
        S: 354 go
        = content
        ! sent
        S: 554 5.7.1 spam
        = Settled: failed 5.7.1, failed 5.1.1, deferred 4.5.3",
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
            "! begin a@b.test c@d.test e@d.test
            C: MAIL FROM:<a@b.test> SIZE=100
            C: RCPT TO:<c@d.test>
            C: RCPT TO:<e@d.test>
            C: DATA
            S: 250 ok
            S: 250 ok
            S: {reply}
            S: 354 go
            = content
            ! sent
            S: 250 ok
            = Settled: delivered 2.0.0, {outcome}"
        ));
    }
}

#[test]
fn rset_comes_before_the_next_message() {
    check_open(&format!(
        "{ENVELOPE}
        S: 250 ok
        S: 550 no
        S: 554 none
        = Settled: failed 5.0.0
        ! begin a@b.test c@d.test
        C: RSET
        C: MAIL FROM:<a@b.test> SIZE=100
        C: RCPT TO:<c@d.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 go
        = content
        ! sent
        S: 250 ok
        = Settled: delivered 2.0.0
        {ENVELOPE}"
    ));
}

#[test]
fn pipelining_sends_many_recipients_in_batches() {
    let recipients: Vec<String> = (0..MAX_PIPELINED_COMMANDS + 5).map(|n| format!("r{n}@d.test")).collect();
    let commands: Vec<String> = recipients.iter().map(|path| format!("RCPT TO:<{path}>")).collect();
    let (first, second) = commands.split_at(MAX_PIPELINED_COMMANDS - 1);
    let outcomes = vec!["delivered 2.0.0"; recipients.len()].join(", ");
    check_open(&format!(
        "! begin a@b.test {}
        C: MAIL FROM:<a@b.test> SIZE=100
        C: {}
        S: {}
        C: {}
        C: DATA
        S: {}
        S: 354 go
        = content
        ! sent
        S: 250 ok
        = Settled: {outcomes}",
        recipients.join(" "),
        first.join("\nC: "),
        vec!["250 ok"; MAX_PIPELINED_COMMANDS].join("\nS: "),
        second.join("\nC: "),
        vec!["250 ok"; second.len()].join("\nS: "),
    ));
}

#[test]
fn what_exceeds_size_or_needs_8bitmime_is_not_sent() {
    check_open(
        "! begin a@b.test c@d.test e@d.test size=1001
        = Settled: failed 5.3.4, failed 5.3.4
        ! begin jörg@b.test c@d.test
        = Settled: failed 5.6.7
        ! begin a@bücher.test ü@d.test c@bücher.test size=1000
        C: MAIL FROM:<a@xn--bcher-kva.test> SIZE=1000
        C: RCPT TO:<c@xn--bcher-kva.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go
        = content
        ! sent
        S: 250 ok
        = Settled: failed 5.6.7, delivered 2.0.0",
    );
    check(
        "S: 220 mx
        C: EHLO guard.test
        S: 250-mx
        S: 250 SMTPUTF8
        = ready
        ! begin a@b.test c@d.test 8bit
        = Settled: failed 5.6.3
        ! begin jörg@b.test c@bücher.test
        C: MAIL FROM:<jörg@b.test> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<c@bücher.test>",
    );
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
            let (mut harness, mut did) = (Harness::new(settings()), Vec::new());
            for (index, turn) in turns.iter().enumerate() {
                for piece in turn.as_bytes().chunks(size) {
                    harness.client.handle_input(harness.now, piece);
                }
                did.extend(harness.did());
                match index {
                    1 => harness.told("begin a@b.test c@d.test e@d.test"),
                    2 => harness.told("sent"),
                    _ => {}
                }
                did.extend(harness.did());
            }
            did
        };
        let whole = play(1000);
        prop_assert_eq!(whole.last().map(String::as_str), Some("= Settled: deferred 4.2.1, delivered 2.0.0"));
        prop_assert_eq!(play(size), whole);
    }

    /// Whatever the server says, the transaction concludes once, with one outcome a recipient.
    #[test]
    fn every_recipient_gets_one_outcome(
        replies in prop::collection::vec("(2|3|4|5)[0-5][0-9][ -][a-z.0-9]{0,5}", 0..12),
        recipients in 1usize..4,
    ) {
        let mut harness = Harness::new(settings());
        harness.hear(b"220 mx\r\n");
        harness.hear(b"250-mx\r\n250 PIPELINING\r\n");
        let paths = vec!["c@d.test"; recipients].join(" ");
        harness.told(&format!("begin a@b.test {paths}"));
        for reply in &replies {
            harness.hear(format!("{reply}\r\n").as_bytes());
            harness.told("sent");
        }
        harness.told("lost");
        let did = harness.did();
        let conclusions: Vec<_> = did.iter().filter(|line| line.contains(": d") || line.contains(": f")).collect();
        prop_assert_eq!(conclusions.len(), 1);
        prop_assert_eq!(conclusions[0].split(", ").count(), recipients);
    }
}
