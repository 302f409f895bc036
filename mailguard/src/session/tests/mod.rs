//! Sessions over loopback sockets, as transcripts: `C:` what the client sends, `S:` the line that must come.

mod chunks;
mod client;
mod crowded;
mod encryption;
mod lines;
mod lookups;
mod odd_clients;
mod reloads;
mod senders;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use mailguard_core::config::model::AddressPattern;
use mailguard_core::credentials::Credentials;
use mailguard_core::disposition::Disposition;
use mailguard_core::finding::{Check, Finding, Opinion, Threat};
use mailguard_core::language::Language;
use mailguard_core::mail::{Domain, QueueId};
use mailguard_core::origin::Origin;
use mailguard_core::policy::{Fact, Query};
use mailguard_core::smtp::server::LoginRefused;
use mailguard_core::smtp::{Refusal, ReplyCode};
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use client::Client;

use super::journal::SessionSoFar;
use super::*;
use crate::spool::{Body, BodyWriter, NewMessage, fixture};
use crate::store::body::BodyDirectory;
use crate::tls::Identity;
use crate::trace::{Record, TransactionResult};

/// The rest of the house: keeps what it is given.
struct House {
    directory: BodyDirectory,
    ids: AtomicU64,
    full: bool,
    commit: Result<(), Refusal>,
    committed: Mutex<Vec<(NewMessage, String)>>,
    records: Mutex<Vec<Record>>,
    abusers: Mutex<Vec<(IpAddr, String)>>,
    identity: Identity,
    config: Mutex<Arc<Config>>,
}

/// A receipt of this house.
struct Kept;

impl Sink for House {
    type Receipt = Kept;

    fn mint(&self) -> QueueId {
        QueueId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn storage_available(&self) -> Result<(), Refusal> {
        if self.full { Err(Refusal::StorageFull) } else { Ok(()) }
    }

    fn body_writer(&self) -> BodyWriter {
        self.directory.writer(self.mint().0 << 32)
    }

    async fn commit(&self, message: NewMessage) -> Result<Kept, Refusal> {
        self.commit.clone()?;
        let text = text(&message.body).await;
        self.committed.lock().unwrap().push((message, text));
        Ok(Kept)
    }
}

impl InForce for House {
    fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap().clone()
    }

    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.identity.server_config())
    }
}

impl Content for House {
    fn scan<'a>(&'a self, body: &'a Body) -> BoxFuture<'a, Vec<Finding>> {
        let worm = || Finding::new(Check::Signatures, Opinion::Found(Threat::Virus("Worm".into())), "a worm");
        Box::pin(async move { text(body).await.contains("worm").then(worm).into_iter().collect() })
    }
}

impl Journal for House {
    fn transaction<'a>(&'a self, _: &'a SessionSoFar, record: &'a Record) -> BoxFuture<'a, ()> {
        self.records.lock().unwrap().push(record.clone());
        Box::pin(async {})
    }

    fn abused<'a>(&'a self, client: IpAddr, reason: &'a str) -> BoxFuture<'a, ()> {
        self.abusers.lock().unwrap().push((client, reason.to_owned()));
        Box::pin(async {})
    }
}

impl Logins for House {
    fn login(&self, _: IpAddr, credentials: Credentials) -> BoxFuture<'_, Result<(), LoginRefused>> {
        let Credentials { user, password } = credentials;
        let known = (user.as_str(), password.as_str()) == ("alice", "secret");
        Box::pin(async move { if known { Ok(()) } else { Err(LoginRefused::Wrong) } })
    }

    fn login_for_another(&self, _: IpAddr) -> LoginRefused {
        LoginRefused::ForAnother
    }
}

/// Facts as a test has them: how long each takes, and what it is.
type Script = fn(&Query) -> (Duration, Fact);

struct Scripted {
    script: Script,
    asked: Mutex<Vec<Query>>,
}

impl Scripted {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { script, asked: Mutex::default() })
    }
}

impl Facts for Scripted {
    fn ask<'a>(&'a self, _: &'a Config, query: &'a Query) -> BoxFuture<'a, Fact> {
        self.asked.lock().unwrap().push(query.clone());
        let (time, fact) = (self.script)(query);
        Box::pin(async move {
            tokio::time::sleep(time).await;
            fact
        })
    }
}

async fn text(body: &Body) -> String {
    String::from_utf8_lossy(&body.head(usize::MAX >> 1).await.unwrap()).into_owned()
}

/// A server with a green zone and a red one, and what its sessions left behind.
struct Running {
    config: Arc<Config>,
    house: Arc<House>,
    facts: Arc<dyn Facts>,
    limits: Arc<Limits>,
    zone: usize,
    /// Clients dial an address of ours, not a server's.
    dials_us: bool,
    stop: watch::Sender<bool>,
    /// Where clients seem to come from; nothing: where they do.
    seen_as: Option<IpAddr>,
    directory: TempDir,
}

const GREEN: usize = 0;
const RED: usize = 1;

const CONFIG: &str = r#"
    server.max_message_size = "1MB"
    access.blacklist_senders = ["black.test"]
    incoming_domain = [{ domain = "here.test", server = "127.0.0.1" }]
"#;

/// A server whose sessions come from this zone.
fn server(zone: usize) -> Running {
    server_with(zone, |_, _| ())
}

fn server_with(zone: usize, change: impl FnOnce(&mut Config, &mut House)) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let mut config = fixture::config_with(directory.path(), CONFIG);
    let identity = Identity::serving(&fixture::config(tempfile::tempdir().unwrap().path())).unwrap();
    let mut house = House {
        identity,
        directory: BodyDirectory::new(directory.path().to_owned()),
        // The session is 32, its first transaction 33.
        ids: AtomicU64::new(32),
        full: false,
        commit: Ok(()),
        committed: Mutex::default(),
        records: Mutex::default(),
        abusers: Mutex::default(),
        config: Mutex::new(config.clone().into()),
    };
    change(&mut config, &mut house);
    let config = Arc::new(config);
    house.config = Mutex::new(config.clone());
    let stop = watch::Sender::new(false);
    Running {
        config,
        house: house.into(),
        facts: Scripted::new(|query| panic!("{query:?} is asked")),
        limits: Arc::default(),
        zone,
        dials_us: true,
        stop,
        seen_as: None,
        directory,
    }
}

impl Running {
    /// Connects; `early` is sent before the server knows of the connection.
    async fn connect(&self, early: &[u8]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let destination = listener.local_addr().unwrap();
        let mut stream = TcpStream::connect(destination).await.unwrap();
        stream.write_all(early).await.unwrap();
        let (accepted, mut client) = listener.accept().await.unwrap();
        if let Some(address) = self.seen_as {
            client.set_ip(address);
        }
        if !early.is_empty() {
            // Not a matter of time: it is there when this returns.
            accepted.readable().await.unwrap();
        }
        let peer = Peer { client, destination, destination_is_local: self.dials_us, zone: self.zone };
        let context = SessionContext {
            config: self.config.clone(),
            roles: self.roles().into(),
            limits: self.limits.clone(),
            stop: self.stop.subscribe(),
        };
        let session = tokio::spawn(serve(accepted, peer, context));
        Client { stream: BufReader::new(stream), session }
    }

    fn roles(&self) -> Roles<House> {
        Roles {
            in_force: self.house.clone(),
            facts: self.facts.clone(),
            logins: self.house.clone(),
            content: self.house.clone(),
            sink: self.house.clone(),
            journals: Journals::new(vec![Arc::new(MailLines::default()), self.house.clone()]).into(),
        }
    }

    fn records(&self) -> Vec<Record> {
        self.house.records.lock().unwrap().clone()
    }

    /// The one message that was stored.
    fn message(&self) -> (NewMessage, String) {
        let mut committed = self.house.committed.lock().unwrap();
        assert_eq!(committed.len(), 1, "messages stored");
        committed.pop().unwrap()
    }

    fn nothing_was_stored(&self) {
        assert!(self.house.committed.lock().unwrap().is_empty());
    }

    /// The one refusal that was recorded.
    fn refusal(&self) -> String {
        match &self.records()[..] {
            [Record { result: TransactionResult::Refused(reply), .. }] => reply.to_string(),
            other => panic!("{other:#?}"),
        }
    }
}

/// The reply to a recipient elsewhere, and what the trace says of it.
async fn relay_denied(language: Language, parameter: &str) -> [String; 2] {
    let server = server_with(RED, |config, _| config.language = language);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play(&format!("C: MAIL FROM:<a@b.test>{parameter}\nS: 250 2.1.0 Sender ok")).await;
    client.stream.get_mut().write_all(b"RCPT TO:<c@far.test>\r\n").await.unwrap();
    let mut reply = String::new();
    client.stream.read_line(&mut reply).await.unwrap();
    client.quit().await;
    [reply.trim_end().to_owned(), server.refusal()]
}

#[tokio::test]
async fn refusals_are_said_in_the_configured_language() {
    for (language, parameter, reply) in [
        (Language::German, "", "554 5.7.1 Weiterleitung verweigert (ref 11)"),
        (Language::Italian, "", "554 5.7.1 Inoltro negato (ref 11)"),
        (Language::Japanese, "", "554 5.7.1 Relay access denied (ref 11)"),
        (Language::Japanese, " SMTPUTF8", "554 5.7.1 中継は許可されていません (ref 11)"),
    ] {
        assert_eq!(relay_denied(language, parameter).await, [reply, reply]);
    }
}

#[tokio::test]
async fn a_message_is_stored_as_it_was_sent_below_our_field() {
    let server = server(RED);
    let mut client = server.connect(b"").await;
    client.greet().await;
    let text = "From: a@client.test\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n\r\n..one\r\n\r\nt\u{f6}o\r\n";
    client.send(text, "250 2.0.0 Ok: queued as 11").await;
    client.quit().await;
    let (message, stored) = server.message();
    let (received, rest) = stored.split_at(stored.find("From:").unwrap());
    assert!(
        received.starts_with("Received: from client.test ([127.0.0.1])\r\n\tby mailguard.test"),
        "{received}"
    );
    assert!(received.contains("with ESMTP id 11\r\n\tfor <b@here.test>; "), "{received}");
    assert_eq!(rest, text.replace("..one", ".one"), "nothing else is added in a red zone");
    assert_eq!(message.envelope.recipients.len(), 1);
    assert_eq!(message.dispositions, [Disposition::Deliver]);
    let records = server.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].result, TransactionResult::Accepted { dispositions: vec![Disposition::Deliver] });
    assert_eq!(records[0].subject, "café");
    assert_eq!(records[0].size, text.len() as u64 - 1);
    let Origin::Client(origin) = &records[0].origin else { panic!("a client brought it") };
    assert_eq!((origin.zone.as_str(), origin.helo.as_str()), ("red", "client.test"));
}

#[tokio::test]
async fn date_and_message_id_are_added_where_they_are_missing() {
    for (text, date, message_id, separator) in [
        ("Subject: x\r\n\r\ntext\r\n", true, true, false),
        ("DATE: x\r\nmessage-id: y\r\n\r\ntext\r\n", false, false, false),
        ("\r\ntext\r\n", true, true, false),
        ("no header at all\r\n", true, true, true),
        ("", true, true, true),
    ] {
        let server = server(GREEN);
        let mut client = server.connect(b"").await;
        client.greet().await;
        client.send(text, "250 2.0.0 Ok: queued as 11").await;
        client.quit().await;
        let stored = server.message().1;
        assert_eq!(stored.contains("\r\nDate: "), date, "{stored}");
        assert_eq!(stored.contains("\r\nMessage-ID: <11@mailguard.test>\r\n"), message_id, "{stored}");
        assert_eq!(stored.ends_with(&format!("\r\n\r\n{text}")), separator, "{stored}");
        assert!(stored.ends_with(text), "{stored}");
    }
}

#[tokio::test]
async fn a_red_client_may_not_relay() {
    let server = server(RED);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client
        .play(
            "C: MAIL FROM:<a@here.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@far.test>
            S: 554 5.7.1 Relay access denied (ref 11)
            C: DATA
            S: 554 5.5.1 No valid recipients",
        )
        .await;
    client.quit().await;
    server.nothing_was_stored();
    assert_eq!(server.refusal(), "554 5.7.1 Relay access denied (ref 11)");
}

#[tokio::test]
async fn what_the_header_says_can_refuse_the_message() {
    let loops = "Received: x\r\n".repeat(51) + "\r\ntext\r\n";
    let endless = "X: y\r\n".repeat(60_000);
    for (text, reply) in [
        (loops.as_str(), "554 5.4.6 Too many hops, this looks like a mail loop (ref 11)"),
        ("From: x@black.test\r\n\r\n", "554 5.7.1 Sender is on the sender blacklist (ref 11)"),
        (endless.as_str(), "552 5.3.4 Message header exceeds the limit of 262144 octets (ref 11)"),
    ] {
        let server = server(GREEN);
        let mut client = server.connect(b"").await;
        client.greet().await;
        client.send(text, reply).await;
        client.quit().await;
        server.nothing_was_stored();
        assert_eq!(server.refusal(), reply);
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_session_goes_on() {
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client
        .play(
            "C: MAIL FROM:<a@client.test> SIZE=1048577
            S: 552 5.3.4 Message exceeds the limit of 1048576 octets (ref 11)",
        )
        .await;
    let text = "x\r\n".repeat(500_000);
    client.send(&text, "552 5.3.4 Message exceeds the limit of 1048576 octets (ref 12)").await;
    server.nothing_was_stored();
    assert_eq!(server.records().len(), 2);
    client.send("x\r\n", "250 2.0.0 Ok: queued as 14").await;
    client.quit().await;
    let left = std::fs::read_dir(server.directory.path()).unwrap().count();
    assert_eq!(left, 0, "files of refused bodies");
}

#[tokio::test]
async fn what_a_scanner_finds_decides_the_disposition() {
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.send("\r\nworm\r\n", "250 2.0.0 Ok: queued as 11").await;
    client.quit().await;
    assert_eq!(server.message().0.dispositions, [Disposition::Quarantine(Threat::Virus("Worm".into()))]);
    let checks: Vec<Check> = server.records()[0].findings.iter().map(|finding| finding.check).collect();
    let expect = [
        Check::ClientAccess,
        Check::Helo,
        Check::SenderAccess,
        Check::RelayControl,
        Check::RecipientAccess,
        Check::Loop,
        Check::Signatures,
    ];
    assert_eq!(checks, expect);
}

#[tokio::test]
async fn without_room_nothing_is_taken() {
    let server = server_with(GREEN, |_, house| house.full = true);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play("C: MAIL FROM:<a@client.test>\nS: 452 4.3.1 Insufficient storage, try later (ref 11)").await;
    client.quit().await;

    let server = server_with(GREEN, |_, house| house.commit = Err(Refusal::StorageFailed));
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.send("x\r\n", "452 4.3.0 Storage failed, try later (ref 11)").await;
    client.quit().await;
    assert_eq!(server.refusal(), "452 4.3.0 Storage failed, try later (ref 11)");
}

#[tokio::test]
async fn sessions_of_one_client_are_limited() {
    let server = server_with(RED, |config, _| config.server.max_sessions_per_client = 1);
    let mut first = server.connect(b"").await;
    first.greet().await;
    let mut second = server.connect(b"").await;
    second.play("S: 421 4.7.0 Too many sessions from your address, try again later").await;
    second.closed().await;
    first.quit().await;
    let mut third = server.connect(b"").await;
    third.greet().await;
    third.quit().await;
    assert_eq!(server.limits.sessions(), 0);
}

#[tokio::test]
async fn who_speaks_before_the_greeting_is_refused() {
    let server = server(RED);
    let mut client = server.connect(b"EHLO bot.test\r\n").await;
    client.play("S: 554 5.5.1 Protocol error: you spoke before the greeting").await;
    client.closed().await;
}

#[tokio::test]
async fn clients_of_red_zones_wait_for_the_greeting_if_they_are_to() {
    let delayed =
        |zone, delay| server_with(zone, |config, _| config.server.greet_delay = Duration::from_millis(delay));
    let server = delayed(RED, 60_000);
    let mut client = server.connect(b"").await;
    // The session has begun, and holds its greeting back.
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.stream.get_mut().write_all(b"EHLO bot.test\r\n").await.unwrap();
    client.play("S: 554 5.5.1 Protocol error: you spoke before the greeting").await;
    client.closed().await;
    let Client { stream, session } = server.connect(b"").await;
    drop(stream);
    session.await.unwrap();
    for server in [delayed(RED, 1), delayed(GREEN, 60_000)] {
        let mut client = server.connect(b"").await;
        client.greet().await;
        client.quit().await;
    }
}

#[tokio::test]
async fn a_shutdown_ends_idle_sessions_at_once() {
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.greet().await;
    server.stop.send(true).unwrap();
    client.play("S: 421 4.3.2 mailguard.test is shutting down, try again later").await;
    client.closed().await;
}

/// The clock stands still until nobody has anything to do, and then goes on to the next deadline.
#[tokio::test(start_paused = true)]
async fn an_idle_client_is_told_so() {
    let server = server(GREEN);
    let start = tokio::time::Instant::now();
    let mut client = server.connect(b"").await;
    client.play("S: 220 mailguard.test ESMTP\nS: 421 4.4.2 Timeout, closing the connection").await;
    assert!(start.elapsed() >= Duration::from_secs(300));
    client.closed().await;
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing() {
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.begin_data().await;
    client.stream.get_mut().write_all(&b"x\r\n".repeat(200_000)).await.unwrap();
    let Client { stream, session } = client;
    drop(stream);
    session.await.unwrap();
    server.nothing_was_stored();
    assert_eq!(server.records(), []);
    assert_eq!(std::fs::read_dir(server.directory.path()).unwrap().count(), 0, "files of lost bodies");
}

#[test]
fn limits_have_replies_that_mean_later() {
    for limit in [limits::LimitReached::Total, limits::LimitReached::Client] {
        assert_eq!(limit.reply().code, ReplyCode::NOT_AVAILABLE);
    }
}

#[tokio::test]
async fn a_red_client_over_the_error_limit_is_reported_and_no_other() {
    for (zone, limit, expect) in [(RED, 1, 1), (GREEN, 1, 0), (RED, 2, 0)] {
        let server = server_with(zone, |config, _| config.server.hard_error_limit = limit);
        let mut client = server.connect(b"").await;
        client.greet().await;
        client.play("C: NONSENSE\nS: 500 5.5.1 Command not recognised\nC: NONSENSE").await;
        if limit == 1 {
            client.play("S: 421 4.7.0 Too many errors, closing the connection").await;
            client.closed().await;
        } else {
            client.play("S: 500 5.5.1 Command not recognised").await;
            client.quit().await;
        }
        let reported = std::mem::take(&mut *server.house.abusers.lock().unwrap());
        let reason = "2 errors in a session, 1 allowed".to_owned();
        assert_eq!(reported, vec![("127.0.0.1".parse().unwrap(), reason); expect], "{zone} {limit}");
    }
}
