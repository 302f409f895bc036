//! Attempts against servers on loopback, judged by the outcomes and by what the servers got.

mod conversion;
mod security;

use std::ops::RangeInclusive;

use bytes::Bytes;
use std::net::SocketAddr;

use mailguard_core::config::model::{MailServer, Tls};
use mailguard_core::mail::{BodyType, ReversePath};
use mailguard_core::outcome::Report;
use mailguard_core::policy::check::verification::ProbeResult;
use mailguard_core::route::{NextHop, OriginalDestination};

use super::scripted::ScriptedServer;
use super::session::Identity;
use super::*;
use crate::lookup::dns::Dns;
use crate::lookup::dns_server::DnsServer;
use crate::store::body::BodyDirectory;

const OPENING: &str = "S: 220 mx.test ESMTP
    C: EHLO guard.test
    S: 250-mx.test
    S: 250-PIPELINING
    S: 250 SIZE 10000000";

/// Opening and one message of 7 octets to c@d.test, whose content is still to come.
fn envelope_accepted(size: usize) -> String {
    format!(
        "C: MAIL FROM:<a@b.test> SIZE={size}
        C: RCPT TO:<c@d.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 354 go"
    )
}

/// What follows the greeting of a server without extensions, and one message.
const STEPWISE: &str = "C: EHLO guard.test
    S: 250 mx.test
    C: MAIL FROM:<a@b.test>
    S: 250 ok
    C: RCPT TO:<c@d.test>
    S: 250 ok
    C: DATA
    S: 354 go
    ! data
    S: 250 2.0.0 queued";

fn one_message() -> String {
    format!("{}\n! data\nS: 250 2.0.0 queued", envelope_accepted(7))
}

fn envelope(recipients: &[&str]) -> Envelope {
    let path = |text: &&str| match *text {
        "postmaster" => Recipient::new(ForwardPath::Postmaster),
        text => Recipient::new(ForwardPath::Mailbox(Mailbox::parse(text).unwrap())),
    };
    Envelope {
        reverse_path: ReversePath::Mailbox(Mailbox::parse("a@b.test").unwrap()),
        recipients: recipients.iter().map(path).collect(),
        body: BodyType::SevenBit,
        smtputf8: false,
        dsn_return: None,
        envelope_id: None,
    }
}

fn plainly(next_hop: NextHop) -> Route {
    let named_by = NamedBy::Administrator;
    Route {
        next_hop,
        outgoing: None,
        tls: Tls::Off,
        smarthost: None,
        named_by,
        original_destination: OriginalDestination::NotAsked,
    }
}

fn to(server: SocketAddr) -> Route {
    plainly(NextHop::Address(server))
}

fn short_body() -> Body {
    Body::Memory(Bytes::from_static(b"hello\r\n"))
}

/// A sender with a resolver for `zone`.
struct Sender {
    delivery: Delivery,
    dns: Dns,
}

impl Sender {
    async fn new(zone: &[&str]) -> Self {
        let dns = Dns::new(&DnsServer::start(zone).await.config());
        let own = OwnListeners::new(vec!["127.0.0.1:10025".parse().unwrap()]);
        Self { delivery: Delivery::new(own), dns }
    }

    /// The outcomes as words and status codes.
    async fn attempt(&self, route: &Route, envelope: &Envelope, body: &Body) -> String {
        let own_name = Domain::parse("guard.test").unwrap();
        let postmaster = Mailbox::parse("boss@d.test").unwrap();
        let names = routing::look_up(&self.dns, &route.next_hop).await;
        let terms = Terms { own_name: &own_name, helo: Some(&own_name), postmaster: Some(&postmaster) };
        let outcomes = self.delivery.attempt_on(&terms, route, names.as_ref(), envelope, body).await;
        outcomes.iter().map(show).collect::<Vec<_>>().join(", ")
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

/// One attempt of one short message to one server that plays `scripts`; all of them are to be used.
async fn check(scripts: &[&str], outcome: &str, seen: &[&str]) {
    let server = ScriptedServer::start("127.0.0.1:0", scripts).await;
    let sender = Sender::new(&[]).await;
    let hop = to(server.address);
    assert_eq!(sender.attempt(&hop, &envelope(&["c@d.test"]), &short_body()).await, outcome);
    assert_eq!(
        (server.seen(), server.scripts_left()),
        (seen.iter().map(|text| (*text).to_owned()).collect(), 0)
    );
}

#[tokio::test]
async fn a_message() {
    check(&[&format!("{OPENING}\n{}", one_message())], "delivered 2.0.0", &["hello\r\n"]).await;
}

#[tokio::test]
async fn refusals() {
    check(&["S: 554 5.3.2 no mail here"], "failed 5.3.2", &[]).await;
    check(&["S: 421 4.3.2 busy"], "deferred 4.3.2", &[]).await;
    check(&["! close"], "deferred 4.4.2", &[]).await;
    // The administrator named it: its mail waits until he has mended that.
    check(&["S: 220 guard.test ESMTP"], "deferred 4.4.6", &[]).await;
    check(&[&format!("{OPENING}\n! close")], "deferred 4.4.2", &[]).await;
    check(
        &[&format!("{OPENING}\n{}\n! data\n! close", envelope_accepted(7))],
        "deferred 4.4.2",
        &["hello\r\n"],
    )
    .await;
}

#[tokio::test]
async fn nobody_there_and_ourselves_there() {
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sender = Sender::new(&[]).await;
    for (address, outcome) in
        [(unused, "deferred 4.4.1"), ("127.0.0.1:10025".parse().unwrap(), "deferred 4.4.6")]
    {
        let hop = to(address);
        assert_eq!(sender.attempt(&hop, &envelope(&["c@d.test"]), &short_body()).await, outcome);
    }
    sender.delivery.set_listeners(OwnListeners::new(vec![unused]));
    let hop = to(unused);
    assert_eq!(sender.attempt(&hop, &envelope(&["c@d.test"]), &short_body()).await, "deferred 4.4.6");
}

#[tokio::test]
async fn a_next_hop_says_who_it_is_without_login_or_mail() {
    let text = "hostname = \"guard.test\"\n[[zone]]\nname = \"lan\"\nkind = \"green\"\ninterfaces = [\"lo\"]\n\
                mode = \"active\"\n";
    let mut config =
        crate::config::parse_and_validate(&crate::config::Source::of_text("m.toml", text)).unwrap();
    config.dns = DnsServer::start(&["relay.test A 127.0.0.1"]).await.config();
    let refuses = "C: EHLO guard.test\nS: 550 5.7.1 not you\nC: HELO guard.test\nS: 550 5.7.1 not you";
    for (script, expect) in [
        (OPENING, Ok("another")),
        ("S: 554 5.3.2 no mail here", Ok("another")),
        (&format!("S: 220 mx.test ESMTP\n{refuses}"), Ok("another")),
        ("S: 220 Guard.test. ESMTP", Ok("ourselves")),
        ("S: 220 mx.test ESMTP\nC: EHLO guard.test\nS: 250-guard.test\nS: 250 SIZE", Ok("ourselves")),
        ("! close", Err("closed")),
    ] {
        let server = ScriptedServer::start("127.0.0.1:0", &[script]).await;
        let hop = plainly(NextHop::Host(Domain::parse("relay.test").unwrap(), server.address.port()));
        let delivery = Sender::new(&[]).await.delivery;
        let said = match delivery.greet(&config, &hop, Duration::from_secs(20)).await {
            Greeted::Another => Ok("another"),
            Greeted::Ourselves(_) => Ok("ourselves"),
            Greeted::Nobody(why) => Err(why),
        };
        assert_eq!((said.as_ref().err().is_some(), said.ok()), (expect.is_err(), expect.ok()), "{script}");
    }
    let hung = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hop = to(hung.local_addr().unwrap());
    let silent = Greeted::Nobody("no greeting within 0 seconds".to_owned());
    let delivery = Sender::new(&[]).await.delivery;
    assert_eq!(delivery.greet(&config, &hop, Duration::from_millis(50)).await, silent);
}

#[test]
fn a_loop_by_mail_fails_and_one_by_the_configuration_waits() {
    let looped = || Outcome::Failed(Report::ours(LOOP, "it greets with our own name"));
    let hop = to("192.0.2.1:25".parse().unwrap());
    assert_eq!(show(&as_routed(looped(), &hop)), "deferred 4.4.6");
    assert_eq!(show(&as_routed(looped(), &Route { named_by: NamedBy::Mail, ..hop.clone() })), "failed 5.4.6");
    let refused = Outcome::Failed(Report::ours(EnhancedStatus::new(5, 3, 2), "no mail here"));
    assert_eq!(show(&as_routed(refused, &hop)), "failed 5.3.2");
}

/// Two messages, one after the other.
async fn check_two(scripts: &[&str], outcomes: [&str; 2], messages_seen: usize) {
    let server = ScriptedServer::start("127.0.0.1:0", scripts).await;
    let sender = Sender::new(&[]).await;
    let hop = to(server.address);
    for outcome in outcomes {
        assert_eq!(sender.attempt(&hop, &envelope(&["c@d.test"]), &short_body()).await, outcome);
    }
    assert_eq!((server.seen(), server.scripts_left()), (vec!["hello\r\n".to_owned(); messages_seen], 0));
}

#[tokio::test]
async fn the_next_message_goes_by_the_same_session() {
    let both = format!("{OPENING}\n{}\n{}", one_message(), one_message());
    check_two(&[&both], ["delivered 2.0.0", "delivered 2.0.0"], 2).await;
}

#[tokio::test]
async fn a_waiting_session_that_died_costs_nothing() {
    let first = format!("{OPENING}\n{}", one_message());
    for death in [
        "! close",
        "S: 421 4.4.2 idle\n! drain",
        "C: MAIL FROM:<a@b.test> SIZE=7\n! close",
        "C: MAIL FROM:<a@b.test> SIZE=7\nS: 421 4.4.2 idle",
    ] {
        let dies = format!("{first}\n--\n{death}");
        check_two(&[&dies, &first], ["delivered 2.0.0", "delivered 2.0.0"], 2).await;
    }
}

#[tokio::test]
async fn a_server_is_asked_once_an_attempt() {
    let deferring = "C: MAIL FROM:<a@b.test> SIZE=7
        C: RCPT TO:<c@d.test>
        C: DATA
        S: 250 ok
        S: 450 4.2.1 later
        S: 503 no";
    let both = format!("{OPENING}\n{}\n{deferring}", one_message());
    let again = format!("{OPENING}\n{}", one_message());
    let server = ScriptedServer::start("127.0.0.1:0", &[&both, &again]).await;
    let sender = Sender::new(&[]).await;
    let hop = to(server.address);
    for outcome in ["delivered 2.0.0", "deferred 4.2.1"] {
        assert_eq!(sender.attempt(&hop, &envelope(&["c@d.test"]), &short_body()).await, outcome);
    }
    assert_eq!((server.seen().len(), server.scripts_left()), (1, 1));
}

/// Two servers of one name, asked in both orders. `contents`: how many contents they may have got together.
async fn check_pair(first: &[&str], second: &[&str], outcome: &str, contents: RangeInclusive<usize>) {
    for _ in 0..8 {
        let sender = Sender::new(&["relay.test A 127.0.0.1", "relay.test A 127.0.0.2"]).await;
        let one = ScriptedServer::start("127.0.0.1:0", first).await;
        let two = ScriptedServer::start(&format!("127.0.0.2:{}", one.address.port()), second).await;
        let hop = plainly(NextHop::Host(Domain::parse("relay.test").unwrap(), one.address.port()));
        assert_eq!(sender.attempt(&hop, &envelope(&["c@d.test"]), &short_body()).await, outcome);
        let seen = [one.seen(), two.seen()].concat();
        assert!(contents.contains(&seen.len()) && seen.iter().all(|text| text == "hello\r\n"), "{seen:?}");
    }
}

#[tokio::test]
async fn another_address_of_the_next_hop_helps_out() {
    let good = format!("{OPENING}\n{}", one_message());
    let mail_only = "C: MAIL FROM:<a@b.test> SIZE=7\nC: RCPT TO:<c@d.test>\nC: DATA";
    for bad in [
        "! close",
        "S: 554 5.3.2 no mail here",
        "S: 421 busy",
        &format!("{OPENING}\n{mail_only}\n! close"),
        &format!("{OPENING}\n{mail_only}\nS: 250 ok\nS: 451 4.3.0 no\nS: 503 no"),
    ] {
        check_pair(&[bad], &[&good], "delivered 2.0.0", 1..=1).await;
    }
    // The one that is asked first may have had the content and refused it.
    let late = format!("{OPENING}\n{}\n! data\nS: 451 4.3.0 no", envelope_accepted(7));
    check_pair(&[&late], &[&good], "delivered 2.0.0", 1..=2).await;
}

fn listed(servers: &[SocketAddr], balance: bool) -> Route {
    plainly(NextHop::Servers { servers: servers.iter().copied().map(MailServer::Address).collect(), balance })
}

#[tokio::test]
async fn the_next_server_of_a_list_is_tried_when_one_is_away() {
    let good = format!("{OPENING}\n{}", one_message());
    for away in ["! close", "S: 421 4.3.2 busy", "S: 554 5.3.2 no mail here"] {
        let first = ScriptedServer::start("127.0.0.1:0", &[away]).await;
        let second = ScriptedServer::start("127.0.0.1:0", &[&good]).await;
        let sender = Sender::new(&[]).await;
        let route = listed(&[first.address, second.address], false);
        assert_eq!(sender.attempt(&route, &envelope(&["c@d.test"]), &short_body()).await, "delivered 2.0.0");
        assert_eq!((first.seen().len(), second.seen().len(), first.scripts_left()), (0, 1, 0), "{away}");
    }
}

/// Though a session to one of them waits.
#[tokio::test]
async fn servers_that_take_turns_get_their_share() {
    const MESSAGES: usize = 24;
    let messages = format!("{OPENING}\n{}", vec![one_message(); MESSAGES].join("\n"));
    let servers = [
        ScriptedServer::start("127.0.0.1:0", &[&messages]).await,
        ScriptedServer::start("127.0.0.1:0", &[&messages]).await,
    ];
    let sender = Sender::new(&[]).await;
    let route = listed(&[servers[0].address, servers[1].address], true);
    for _ in 0..MESSAGES {
        assert_eq!(sender.attempt(&route, &envelope(&["c@d.test"]), &short_body()).await, "delivered 2.0.0");
    }
    let shares = servers.each_ref().map(|server| server.seen().len());
    // That one got none has a chance of two in 2^24.
    assert!(shares[0] > 0 && shares[1] > 0 && shares[0] + shares[1] == MESSAGES, "{shares:?}");
}

#[tokio::test]
async fn refusals_of_several_servers() {
    check_pair(&["S: 554 5.3.2 no"], &["S: 554 5.3.2 no"], "failed 5.3.2", 0..=0).await;
    check_pair(&["S: 554 5.3.2 no"], &["S: 421 4.3.2 busy"], "deferred 4.3.2", 0..=0).await;
    check_pair(&["S: 421 4.3.2 busy"], &["! close"], "deferred 4.3.2", 0..=0).await;
}

#[tokio::test]
async fn a_message_in_doubt_goes_to_one_server_only() {
    let lost = format!("{OPENING}\n{}\n! data\n! close", envelope_accepted(7));
    check_pair(&[&lost], &[&lost], "deferred 4.4.2", 1..=1).await;
}

#[tokio::test]
async fn mixed_recipients_and_the_postmaster() {
    let script = format!(
        "{OPENING}
        C: MAIL FROM:<a@b.test> SIZE=7
        C: RCPT TO:<boss@d.test>
        C: RCPT TO:<no@d.test>
        C: RCPT TO:<full@d.test>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 5.1.1 no
        S: 452 4.2.2 full
        S: 354 go
        ! data
        S: 250 queued"
    );
    let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
    let sender = Sender::new(&[]).await;
    let message = envelope(&["postmaster", "no@d.test", "full@d.test"]);
    let outcomes = sender.attempt(&to(server.address), &message, &short_body()).await;
    assert_eq!(outcomes, "delivered 2.0.0, failed 5.1.1, deferred 4.2.2");
    assert_eq!(server.seen(), ["hello\r\n"]);
}

#[tokio::test]
async fn more_recipients_than_a_transaction_holds() {
    let recipients: Vec<String> = (0..150).map(|n| format!("r{n}@d.test")).collect();
    let transaction = |part: &[String]| {
        let mut script = "C: MAIL FROM:<a@b.test> SIZE=7\n".to_owned();
        for (number, recipient) in part.iter().enumerate() {
            // A batch of pipelined commands is answered before the next one comes.
            if number == 63 {
                script.push_str(&format!("S: {}\n", vec!["250 ok"; 64].join("\nS: ")));
            }
            script.push_str(&format!("C: RCPT TO:<{recipient}>\n"));
        }
        let left = if part.len() > 63 { part.len() - 63 } else { part.len() + 1 };
        script.push_str(&format!(
            "C: DATA\nS: {}\nS: 354 go\n! data\nS: 250 ok\n",
            vec!["250 ok"; left].join("\nS: ")
        ));
        script
    };
    let script = format!("{OPENING}\n{}{}", transaction(&recipients[..100]), transaction(&recipients[100..]));
    let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
    let message = envelope(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let outcomes = Sender::new(&[]).await.attempt(&to(server.address), &message, &short_body()).await;
    assert_eq!(outcomes, vec!["delivered 2.0.0"; 150].join(", "));
    assert_eq!(server.seen(), ["hello\r\n", "hello\r\n"]);
}

async fn file_body(directory: &tempfile::TempDir, content: &[u8]) -> Body {
    let mut writer = BodyDirectory::new(directory.path().to_owned()).writer(1);
    for piece in content.chunks(10_000) {
        writer.push(piece).await.unwrap();
    }
    let body = writer.finish().await.unwrap();
    assert!(matches!(body, Body::File(_)));
    body
}

#[tokio::test]
async fn bodies_in_memory_and_in_files_are_stuffed() {
    let directory = tempfile::tempdir().unwrap();
    let small = ".first\r\nthen\r\n..\r\nno end";
    let large = format!("{}{small}", ".line of a large message\r\n".repeat(20_000));
    for (content, body) in [
        (small, Body::Memory(Bytes::from_static(small.as_bytes()))),
        (&large, file_body(&directory, large.as_bytes()).await),
    ] {
        let script = format!("{OPENING}\n{}\n! data\nS: 250 ok", envelope_accepted(content.len()));
        let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
        let sender = Sender::new(&[]).await;
        let outcome = sender.attempt(&to(server.address), &envelope(&["c@d.test"]), &body).await;
        assert_eq!(outcome, "delivered 2.0.0");
        let stuffed = format!("\r\n{content}\r\n").replace("\r\n.", "\r\n..");
        assert_eq!(server.seen(), [&stuffed[2..]]);
    }
}

#[tokio::test]
async fn a_refusal_amid_a_large_message_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let content = "line of a large message\r\n".repeat(200_000);
    let body = file_body(&directory, content.as_bytes()).await;
    let script = format!("{OPENING}\n{}\nS: 552 5.3.4 enough\n! drain", envelope_accepted(content.len()));
    let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
    let sender = Sender::new(&[]).await;
    let outcome = sender.attempt(&to(server.address), &envelope(&["c@d.test"]), &body).await;
    assert_eq!(outcome, "failed 5.3.4");
}

#[tokio::test]
async fn eight_bit_content_needs_a_server_that_takes_it() {
    let directory = tempfile::tempdir().unwrap();
    let plain = "line of a large message\r\n".repeat(20_000);
    let accented = format!("{plain}é\r\n");
    let short = Body::Memory(Bytes::from("é\r\n"));
    let takes = |parameter: &str| {
        format!(
            "S: 220 mx.test
            C: EHLO guard.test
            S: 250-mx.test
            S: 250-PIPELINING
            S: 250 8BITMIME
            C: MAIL FROM:<a@b.test>{parameter}
            C: RCPT TO:<c@d.test>
            C: DATA
            S: 250 ok
            S: 250 ok
            S: 354 go
            ! data
            S: 250 2.0.0 queued"
        )
    };
    let plain_body = file_body(&directory, plain.as_bytes()).await;
    let eight_bit_directory = tempfile::tempdir().unwrap();
    let eight_bit_body = file_body(&eight_bit_directory, accented.as_bytes()).await;
    let plain_script = format!("{OPENING}\n{}\n! data\nS: 250 ok", envelope_accepted(plain.len()));
    for (body, script, expect) in [
        (&short, OPENING.to_owned(), "failed 5.6.3"),
        (&eight_bit_body, OPENING.to_owned(), "failed 5.6.3"),
        (&plain_body, plain_script, "delivered 2.0.0"),
        (&short, takes(" BODY=8BITMIME"), "delivered 2.0.0"),
        (&short_body(), takes(""), "delivered 2.0.0"),
        (&eight_bit_body, takes(" BODY=8BITMIME"), "delivered 2.0.0"),
    ] {
        let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
        let sender = Sender::new(&[]).await;
        let outcome = sender.attempt(&to(server.address), &envelope(&["c@d.test"]), body).await;
        assert_eq!(outcome, expect, "{:?}", server.seen());
    }
}

#[tokio::test]
async fn we_may_greet_with_our_address() {
    let script = format!("{OPENING}\n{}", one_message()).replace("EHLO guard.test", "EHLO [127.0.0.1]");
    let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
    let Sender { delivery, .. } = Sender::new(&[]).await;
    let own_name = Domain::parse("guard.test").unwrap();
    let terms = Terms { own_name: &own_name, helo: None, postmaster: None };
    let hop = to(server.address);
    let outcomes = delivery.attempt_on(&terms, &hop, None, &envelope(&["c@d.test"]), &short_body()).await;
    assert_eq!(show(&outcomes[0]), "delivered 2.0.0");
}

#[tokio::test]
async fn waiting_sessions_are_bounded() {
    let scripts = vec![OPENING; MAX_IDLE_SESSIONS_A_HOP + 1];
    let server = ScriptedServer::start("127.0.0.1:0", &scripts).await;
    let destination = routing::Destination { name: None, address: server.address };
    let name = Domain::parse("guard.test").unwrap();
    let identity = Identity { helo: Some(name), own_names: Vec::new() };
    let (pool, hop) = (Pool::default(), to(server.address));
    let begin = Instant::now();
    for number in 0..=MAX_IDLE_SESSIONS_A_HOP {
        let session = Session::open(&destination, &hop, &identity, &Trusts::default()).await.unwrap();
        assert_eq!(pool.put(&hop, session).is_some(), number == MAX_IDLE_SESSIONS_A_HOP, "{number}");
    }
    assert_eq!(pool.take_idle_since(begin).len(), 0);
    assert!(pool.take(&hop, None).is_some());
    assert_eq!(pool.take_idle_since(Instant::now()).len(), MAX_IDLE_SESSIONS_A_HOP - 1);
    assert!(pool.take(&hop, None).is_none());
}

#[tokio::test]
async fn sessions_end_when_nobody_needs_them() {
    let script = format!("{OPENING}\n{}\nC: QUIT\nS: 221 bye\n! close", one_message());
    let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
    let sender = Sender::new(&[]).await;
    let hop = to(server.address);
    assert_eq!(sender.attempt(&hop, &envelope(&["c@d.test"]), &short_body()).await, "delivered 2.0.0");
    sender.delivery.close().await;
    assert!(sender.delivery.pool.take(&hop, None).is_none());
    assert_eq!(server.seen(), ["hello\r\n"]);
}

#[tokio::test]
async fn what_a_server_says_of_a_recipient_is_told_apart_from_what_else_it_says() {
    let opened = |replies: &str| {
        let opening = OPENING.replace("guard.test", "mailguard.test");
        format!("{opening}\nC: MAIL FROM:<>\nC: RCPT TO:<c@d.test>\nS: {replies}")
    };
    for (script, expect) in [
        (opened("250 ok\nS: 250 2.1.5 fine"), "taken 2.1.5"),
        (opened("250 ok\nS: 550 5.1.1 nobody"), "refused 5.1.1"),
        (opened("250 ok\nS: 450 4.2.1 later"), "nothing 4.2.1"),
        (opened("250 ok\nS: 421 4.3.2 closing"), "nothing 4.3.2"),
        (opened("550 5.7.1 not from you\nS: 503 5.5.1 no"), "nothing 5.7.1"),
        ("S: 554 5.3.2 no mail here".to_owned(), "gone 5.3.2"),
        ("S: 220 mailguard.test ESMTP".to_owned(), "gone 5.4.6"),
        ("! close".to_owned(), "gone 4.4.2"),
    ] {
        let server = ScriptedServer::start("127.0.0.1:0", &[&script]).await;
        let config = crate::spool::fixture::config(std::path::Path::new("/"));
        let recipient = &envelope(&["c@d.test"]).recipients[0].forward_path;
        let (word, report) = match Delivery::default().verify(&config, &to(server.address), recipient).await {
            ProbeResult::Accepted(report) => ("taken", report),
            ProbeResult::Rejected(report) => ("refused", report),
            ProbeResult::Unknown(report) => ("nothing", report),
            ProbeResult::Unreachable(report) => ("gone", report),
        };
        assert_eq!(format!("{word} {}", report.status), expect, "{script}");
        assert_eq!((server.seen(), server.scripts_left()), (vec![], 0));
    }
}

#[tokio::test]
async fn the_next_server_is_asked_about_a_recipient_when_one_is_away() {
    let opening = OPENING.replace("guard.test", "mailguard.test");
    let knows = format!("{opening}\nC: MAIL FROM:<>\nC: RCPT TO:<c@d.test>\nS: 250 ok\nS: 250 2.1.5 fine");
    let config = crate::spool::fixture::config(std::path::Path::new("/"));
    let recipient = &envelope(&["c@d.test"]).recipients[0].forward_path;
    for away in ["! close", "S: 421 4.3.2 busy"] {
        let first = ScriptedServer::start("127.0.0.1:0", &[away]).await;
        let second = ScriptedServer::start("127.0.0.1:0", &[&knows]).await;
        let route = listed(&[first.address, second.address], false);
        let word = Delivery::default().verify(&config, &route, recipient).await;
        assert!(matches!(word, ProbeResult::Accepted(_)), "{word:?}");
        let gone = Delivery::default()
            .verify(&config, &listed(&[first.address, second.address], false), recipient)
            .await;
        assert!(matches!(gone, ProbeResult::Unreachable(_)), "both are away: {gone:?}");
    }
}

#[tokio::test]
async fn questions_share_sessions_that_have_refused_nobody() {
    let opening = OPENING.replace("guard.test", "mailguard.test");
    let ask =
        |reset: &str, replies: &str| format!("{reset}C: MAIL FROM:<>\nC: RCPT TO:<c@d.test>\nS: {replies}\n");
    let first = format!(
        "{opening}\n{}{}{}C: QUIT",
        ask("", "250 ok\nS: 250 fine"),
        ask("C: RSET\n", "250 ok\nS: 250 ok\nS: 250 fine"),
        ask("C: RSET\n", "250 ok\nS: 250 ok\nS: 550 5.1.1 nobody")
    );
    let second = format!("{opening}\n{}", ask("", "250 ok\nS: 250 fine"));
    // One that has come to its end says nothing of the recipient.
    let ended = format!("{second}{}", ask("C: RSET\n", "250 ok\nS: 250 ok\nS: 421 4.3.2 enough"));
    let server = ScriptedServer::start("127.0.0.1:0", &[&first, &ended, &second]).await;
    let config = crate::spool::fixture::config(std::path::Path::new("/"));
    let recipient = &envelope(&["c@d.test"]).recipients[0].forward_path;
    let delivery = Delivery::default();
    for taken in [true, true, false, true, true] {
        let word = delivery.verify(&config, &to(server.address), recipient).await;
        assert_eq!(matches!(word, ProbeResult::Accepted(_)), taken, "{word:?}");
    }
    assert_eq!((server.seen(), server.scripts_left()), (vec![], 0));
}
