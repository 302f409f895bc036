//! The lines of the mail log that sessions leave.

use super::*;

/// What the mail log got from what is done meanwhile, in this thread.
struct Heard {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

fn listen() -> Heard {
    let log = mailguard_core::testing::config("log.level = \"error\"").log;
    let (text, _guard) = crate::process::heard_log(&log);
    Heard { text, _guard }
}

impl Heard {
    /// The lines, without their times.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        text.lines().filter_map(|line| Some(line.split_once(" INFO mail: ")?.1.to_owned())).collect()
    }

    /// The one line with all of these.
    #[track_caller]
    fn one(&self, parts: &[&str]) -> String {
        let lines = self.lines();
        let found: Vec<_> =
            lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).collect();
        assert_eq!(found.len(), 1, "{parts:?} in {lines:#?}");
        found[0].clone()
    }
}

#[tokio::test]
async fn every_message_that_is_refused_or_taken_has_its_line() {
    let heard = listen();
    let server = server(RED);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client
        .play(
            "C: MAIL FROM:<a@client.test> SIZE=1048577
            S: 552 5.3.4 Message exceeds the limit of 1048576 octets (ref 11)
            C: MAIL FROM:<a@client.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@far.test>
            S: 554 5.7.1 Relay access denied (ref 12)
            C: RSET
            S: 250 2.0.0 Ok
            C: MAIL FROM:<a@client.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@here.test>
            S: 250 2.1.5 Recipient ok
            C: RSET
            S: 250 2.0.0 Ok",
        )
        .await;
    client.send("x\r\n", "250 2.0.0 Ok: queued as 14").await;
    client.quit().await;
    let about = "client=127.0.0.1 zone=red kind=red session=10";
    heard.one(&["id=11 event=message result=refused", about, "check=message-size", "reply=\"552 5.3.4 "]);
    heard.one(&["id=12 event=message result=refused", about, "check=relay-control", "from=<a@client.test>"]);
    heard.one(&["id=12 event=recipient result=refused", about, "to=<b@far.test> reply=\"554 5.7.1 "]);
    heard.one(&["id=14 event=message result=taken", about, "to=<b@here.test>", "helo=client.test"]);
    let counts = "taken=1 refused=2 deferred=0 abandoned=1 failed_logins=0 tls=false helo=client.test";
    heard.one(&["id=10 event=session end=quit client=127.0.0.1", counts]);
    assert_eq!(heard.lines().len(), 5);
}

#[tokio::test]
async fn a_name_that_looks_like_keys_stays_in_its_own() {
    let heard = listen();
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.play("S: 220 mailguard.test ESMTP").await;
    let name = "x \" event=login result=refused client=192.0.2.9";
    client.play(&format!("C: HELO {name}\nS: 250 mailguard.test greets {name}")).await;
    client.quit().await;
    let line = heard.one(&["event=session"]);
    assert_eq!(heard.lines().len(), 1);
    let shown = r#"helo="x \" event\u003dlogin result\u003drefused client\u003d192.0.2.9""#;
    assert!(line.ends_with(shown), "{line}");
}

#[tokio::test]
async fn who_would_act_for_somebody_else_has_a_line_and_is_counted() {
    let heard = listen();
    let server = server_with(GREEN, |config, _| config.imap_auth = Some(encryption::imap_auth()));
    let mut client = server.connect(b"").await;
    client
        .play(
            "S: 220 mailguard.test ESMTP
            C: HELO client.test
            S: 250 mailguard.test greets client.test
            C: AUTH PLAIN Ym9iAGFsaWNlAHNlY3JldA==
            S: 535 5.7.8 Authentication credentials invalid",
        )
        .await;
    client.quit().await;
    heard.one(&["event=login result=refused reason=for-another client=127.0.0.1", "user=alice"]);
    heard.one(&["event=session", "failed_logins=1"]);
}

#[tokio::test]
async fn sessions_have_their_line_however_they_end() {
    let heard = listen();
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.greet().await;
    drop(client.stream);
    client.session.await.unwrap();
    heard.one(&["event=session end=hung-up"]);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.session.abort();
    let _ = client.session.await;
    heard.one(&["event=session end=broken-off"]);
    let client = server.connect(b"EHLO early\r\n").await;
    client.session.await.unwrap();
    heard.one(&["event=session end=early-talker"]);
    let server = server_with(GREEN, |config, _| config.server.max_sessions_per_client = 1);
    let mut first = server.connect(b"").await;
    first.greet().await;
    let second = server.connect(b"").await;
    second.session.await.unwrap();
    heard.one(&["event=session end=too-many-of-client"]);
    first.quit().await;
}
