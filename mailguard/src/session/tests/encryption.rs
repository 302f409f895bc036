//! STARTTLS and AUTH (RFC 3207, RFC 4954), with a real client of TLS.

use mailguard_core::config::model::{ImapAuth, TlsIdentity};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::tls::verifying;

const OFFERS: &str = "S: 250-mailguard.test greets client.test
    S: 250-PIPELINING
    S: 250-SIZE 1048576
    S: 250-8BITMIME
    S: 250-ENHANCEDSTATUSCODES
    S: 250-CHUNKING
    S: 250-DSN";

/// A server with a certificate that the client knows.
fn server_of(zone: usize, auth: bool) -> (Running, String) {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::serving(&fixture::config(folder.path())).unwrap();
    let pem = std::fs::read_to_string(folder.path().join("self-signed-mailguard.test.pem")).unwrap();
    let server = server_with(zone, |config, house| {
        house.identity = identity;
        config.imap_auth = auth.then(imap_auth);
    });
    (server, pem)
}

/// Nobody is asked there: what the `Logins` of these tests say counts.
pub(super) fn imap_auth() -> ImapAuth {
    mailguard_core::testing::config("imap_auth.enabled = true").imap_auth.unwrap()
}

/// Says EHLO and STARTTLS; `ahead` is sent in the same write as STARTTLS.
async fn start_tls(client: &mut Client, ahead: &str) {
    client.play(&format!("S: 220 mailguard.test ESMTP\nC: EHLO client.test\n{OFFERS}")).await;
    client.play("S: 250-SMTPUTF8\nS: 250 STARTTLS").await;
    client.stream.get_mut().write_all(format!("STARTTLS\r\n{ahead}").as_bytes()).await.unwrap();
    client.play("S: 220 2.0.0 Ready to start TLS").await;
}

#[tokio::test]
async fn no_client_of_another_server_is_offered_a_certificate_of_our_own_making() {
    let (mut server, pem) = server_of(0, false);
    server.dials_us = false;
    let mut client = server.connect(b"").await;
    client
        .play(&format!("S: 220 mailguard.test ESMTP\nC: EHLO client.test\n{OFFERS}\nS: 250 SMTPUTF8"))
        .await;
    client.play("C: STARTTLS\nS: 502 5.5.1 Command not implemented").await;

    // One that somebody issued for this appliance is.
    let mut config = Config::clone(&server.config);
    config.server.tls = Some(TlsIdentity { certificates: pem.clone(), key: pem });
    server.config = config.into();
    let mut client = server.connect(b"").await;
    client.play(&format!("S: 220 mailguard.test ESMTP\nC: EHLO client.test\n{OFFERS}")).await;
    client.play("S: 250-SMTPUTF8\nS: 250 STARTTLS").await;
}

async fn handshake(client: Client, pem: &str) -> Encrypted {
    let connector = TlsConnector::from(Arc::new(verifying(Some(pem)).unwrap()));
    let name = ServerName::try_from("mailguard.test").unwrap();
    let stream = connector.connect(name, client.stream.into_inner()).await.unwrap();
    Encrypted { stream: BufReader::new(stream) }
}

struct Encrypted {
    stream: BufReader<TlsStream<TcpStream>>,
}

impl Encrypted {
    async fn play(&mut self, transcript: &str) {
        client::play(&mut self.stream, transcript).await;
    }
}

const TRANSACTION: &str = "
    C: MAIL FROM:<a@client.test>
    S: 250 2.1.0 Sender ok
    C: RCPT TO:<b@far.test>
    S: 250 2.1.5 Recipient ok
    C: DATA
    S: 354 End data with <CR><LF>.<CR><LF>
    C: Subject: x
    C:
    C: x
    C: .
    S: 250 2.0.0 Ok: queued as 11
    C: QUIT
    S: 221 2.0.0 Bye";

#[tokio::test]
async fn a_message_comes_encrypted_and_its_field_says_so() {
    let (server, pem) = server_of(GREEN, false);
    let mut client = server.connect(b"").await;
    start_tls(&mut client, "").await;
    let mut client = handshake(client, &pem).await;
    client.play(&format!("C: EHLO client.test\n{OFFERS}\nS: 250 SMTPUTF8\n{TRANSACTION}")).await;
    let (_, stored) = server.message();
    assert!(stored.contains("with ESMTPS id 11"), "{stored}");
}

#[tokio::test]
async fn nothing_that_was_said_before_the_handshake_is_believed() {
    let (server, pem) = server_of(GREEN, false);
    let mut client = server.connect(b"").await;
    // An attacker who writes into the connection before it is encrypted (RFC 3207 §6).
    start_tls(&mut client, "EHLO attacker.test\r\nMAIL FROM:<attacker@far.test>\r\nRCPT TO:<b@far.test>\r\n")
        .await;
    let mut client = handshake(client, &pem).await;
    client
        .play(
            "C: RCPT TO:<b@far.test>
            S: 503 5.5.1 MAIL comes first
            C: STARTTLS
            S: 503 5.5.1 The session is encrypted already
            C: MAIL FROM:<a@client.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@far.test>
            S: 503 5.5.1 Send HELO or EHLO first (ref 11)",
        )
        .await;
}

#[tokio::test]
async fn garbage_for_a_handshake_ends_the_session_only() {
    let (server, pem) = server_of(GREEN, false);
    let mut client = server.connect(b"").await;
    start_tls(&mut client, "").await;
    client.stream.get_mut().write_all(b"MAIL FROM:<a@client.test>\r\n").await.unwrap();
    let Client { mut stream, session } = client;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"2"), "{}", rest.escape_ascii());
    session.await.unwrap();
    let mut client = server.connect(b"").await;
    start_tls(&mut client, "").await;
    handshake(client, &pem).await;
}

#[tokio::test]
async fn who_has_shown_who_he_is_may_send_anywhere() {
    let (server, pem) = server_of(RED, true);
    let mut client = server.connect(b"").await;
    start_tls(&mut client, "").await;
    let mut client = handshake(client, &pem).await;
    client
        .play(&format!(
            "C: EHLO client.test
            {OFFERS}
            S: 250-SMTPUTF8
            S: 250 AUTH PLAIN LOGIN
            C: AUTH PLAIN AGFsaWNlAHdyb25n
            S: 535 5.7.8 Authentication credentials invalid
            C: AUTH LOGIN
            S: 334 VXNlcm5hbWU6
            C: YWxpY2U=
            S: 334 UGFzc3dvcmQ6
            C: c2VjcmV0
            S: 235 2.7.0 Authentication successful
            C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
            S: 503 5.5.1 You are authenticated already
            {TRANSACTION}"
        ))
        .await;
    let (_, stored) = server.message();
    assert!(stored.contains("with ESMTPSA id 11"), "{stored}");
    let records = server.records();
    let finding = records[0].findings.iter().find(|finding| finding.check == Check::Authentication).unwrap();
    assert_eq!(finding.reason, "the client is alice");
}

#[tokio::test]
async fn in_red_no_password_is_taken_in_the_clear() {
    let (server, _) = server_of(RED, true);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client
        .play(
            "C: AUTH PLAIN AGFsaWNlAHNlY3JldA==
            S: 538 5.7.11 Encryption is required: STARTTLS comes first
            C: MAIL FROM:<a@client.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@far.test>
            S: 554 5.7.1 Relay access denied (ref 11)",
        )
        .await;
    client.quit().await;
}
