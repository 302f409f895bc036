//! The lines as they come out of the log, in both forms.

use mailguard_core::config::model::{Log, LogFormat};
use mailguard_core::finding::{Check, Finding, Opinion, Threat};
use mailguard_core::mail::UnixTime;
use mailguard_core::outcome::{Report, TlsUsed, Transfer};
use mailguard_core::smtp::{Detail, EnhancedStatus, ReplyCode};

use super::*;
use crate::spool::fixture::{client, mailbox};

/// What follows the target in each line.
fn lines(format: LogFormat, say: impl FnOnce()) -> Vec<String> {
    let log = Log { format, ..mailguard_core::testing::config("log.level = \"error\"").log };
    let (heard, _guard) = crate::process::heard_log(&log);
    say();
    let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
    let after = |line: &str| match format {
        LogFormat::Text => line.split_once(" INFO mail: ").expect("the target").1.to_owned(),
        LogFormat::Json => {
            let line: serde_json::Value = serde_json::from_str(line).expect("an object");
            assert_eq!((&line["level"], &line["target"]), (&"INFO".into(), &"mail".into()));
            line["fields"].to_string()
        }
    };
    text.lines().map(after).collect()
}

fn text(say: impl FnOnce()) -> String {
    lines(LogFormat::Text, say).join("\n")
}

fn record(result: TransactionResult) -> Record {
    let mut origin = client("red");
    if let Origin::Client(client) = &mut origin {
        client.helo = "mx.a.test".to_owned();
    }
    Record {
        id: QueueId(33),
        at: UnixTime(0),
        origin,
        reverse_path: Some(ReversePath::Mailbox(mailbox("alice@a.test"))),
        recipients: vec![ForwardPath::Mailbox(mailbox("bob@b.test")), ForwardPath::Postmaster],
        refused_recipients: Vec::new(),
        subject: String::new(),
        size: 4096,
        findings: vec![
            Finding::new(Check::Helo, Opinion::Pass, "a name"),
            Finding::new(Check::RelayControl, Opinion::Refuse(Refusal::RelayDenied), "not ours"),
        ],
        result,
        attempts: Vec::new(),
    }
}

fn refused(refusal: Refusal) -> TransactionResult {
    TransactionResult::Refused(refusal.reply(QueueId(33), ENGLISH))
}

const S: QueueId = QueueId(99);

#[test]
fn a_message_has_its_line_whatever_became_of_it() {
    let virus = Threat::Virus("Eicar".to_owned());
    let about = "client=192.0.2.1 zone=red kind=red session=33 size=4096 recipients=2 refused_recipients=0";
    let envelope = "from=<alice@a.test> to=<bob@b.test>,<postmaster> helo=mx.a.test";
    for (result, expect) in [
        (
            TransactionResult::Accepted { dispositions: vec![Disposition::Deliver; 2] },
            format!("id=11 event=message result=taken {about} disposition=deliver {envelope}"),
        ),
        (
            TransactionResult::Accepted { dispositions: vec![Disposition::Quarantine(virus); 2] },
            format!(
                "id=11 event=message result=taken {about} disposition=quarantine {envelope} why=\"virus Eicar\""
            ),
        ),
        (
            refused(Refusal::TooLarge(10)),
            format!(
                "id=11 event=message result=refused {about} {envelope} reply={}",
                reply(Refusal::TooLarge(10))
            ),
        ),
        (
            refused(Refusal::Greylisted(300)),
            format!(
                "id=11 event=message result=deferred {about} {envelope} reply={}",
                reply(Refusal::Greylisted(300))
            ),
        ),
    ] {
        assert_eq!(text(|| message(S, &record(result))), expect);
    }
}

fn reply(refusal: Refusal) -> String {
    mailguard_core::log_value::value(&refusal.reply(QueueId(33), ENGLISH).to_string()).into_owned()
}

#[test]
fn a_refused_recipient_has_a_line_of_its_own() {
    let mut record = record(TransactionResult::Accepted { dispositions: vec![Disposition::Deliver; 2] });
    record.refused_recipients = vec![RefusedRecipient {
        recipient: ForwardPath::Mailbox(mailbox("carol@c.test")),
        reply: Refusal::RelayDenied.reply(QueueId(33), ENGLISH),
    }];
    let refused = &record.refused_recipients[0];
    assert_eq!(
        text(|| recipient(S, &record, refused)),
        format!(
            "id=11 event=recipient result=refused client=192.0.2.1 zone=red kind=red session=33 check=relay-control \
             from=<alice@a.test> to=<carol@c.test> reply={}",
            reply(Refusal::RelayDenied)
        )
    );
    let said = text(|| message(S, &record));
    assert!(said.contains("event=message result=taken") && said.contains("refused_recipients=1"), "{said}");
}

#[test]
fn an_attempt_has_its_line() {
    let said = Reply::new(ReplyCode::OK, Detail::UNDEFINED, "queued as 7\nid=X event=login");
    let tls = TlsUsed { version: "TLSv1.3".to_owned(), cipher: "x".to_owned(), verified: true };
    let mut report = Report::about(EnhancedStatus::new(2, 0, 0), "mx.b.test", "sent");
    report.reply = Some(said);
    report.transfer = Transfer { tls: Some(tls), ..Transfer::default() };
    let unreachable = Report::ours(EnhancedStatus::new(4, 4, 1), "no answer");
    let mut attempted = Attempted {
        id: QueueId(33),
        at: UnixTime(0),
        recipient: ForwardPath::Mailbox(mailbox("bob@b.test")),
        next_hop: Some(mailguard_core::route::NextHop::Address("192.0.2.9:25".parse().unwrap())),
        outcome: Outcome::Delivered(report),
        consequence: Consequence::Done,
    };
    assert_eq!(
        text(|| attempt(&attempted)),
        "id=11 event=attempt result=delivered status=2.0.0 next=done next_hop=192.0.2.9:25 remote=mx.b.test \
         tls=TLSv1.3 to=<bob@b.test> reply=\"250 2.0.0 queued as 7\\nid\\u003dX event\\u003dlogin\""
    );
    attempted.outcome = Outcome::Deferred(unreachable);
    attempted.consequence = Consequence::Retry(UnixTime(0));
    assert_eq!(
        text(|| attempt(&attempted)),
        "id=11 event=attempt result=deferred status=4.4.1 next=retry retry_at=1970-01-01T00:00:00Z \
         next_hop=192.0.2.9:25 to=<bob@b.test> reply=\"no answer\""
    );
}

#[test]
fn a_login_that_failed_names_client_and_user_and_no_password() {
    let address = "192.0.2.1".parse().unwrap();
    assert_eq!(
        text(|| failed_login(S, address, ("lan", ZoneKind::Green), "alice", LoginRefused::Wrong)),
        "id=33 event=login result=refused reason=wrong client=192.0.2.1 zone=lan kind=green user=alice"
    );
    assert_eq!(
        text(|| failed_login(
            S,
            address,
            ("lan", ZoneKind::Green),
            "x client=192.0.2.2",
            LoginRefused::TooMany
        )),
        "id=33 event=login result=refused reason=too-many client=192.0.2.1 zone=lan kind=green \
         user=\"x client\\u003d192.0.2.2\""
    );
}

fn session_line<'a>(helo: &'a str, counts: &'a Counts) -> SessionLine<'a> {
    SessionLine {
        id: S,
        client: "192.0.2.1:40000".parse().unwrap(),
        destination: "203.0.113.5:25".parse().unwrap(),
        zone: ("red", ZoneKind::Red),
        lasted: Duration::from_millis(1_250),
        end: "quit",
        counts,
        encrypted: true,
        helo: Some(helo),
        user: None,
    }
}

#[test]
fn a_session_has_its_line_in_either_form() {
    let counts = Counts { taken: 2, refused: 1, ..Counts::default() };
    let said = text(|| session(&session_line("mx.a.test", &counts)));
    assert_eq!(
        said,
        "id=33 event=session end=quit client=192.0.2.1 port=40000 zone=red kind=red destination=203.0.113.5:25 \
         seconds=1.25 taken=2 refused=1 deferred=0 abandoned=0 failed_logins=0 tls=true helo=mx.a.test"
    );
    let said = lines(LogFormat::Json, || session(&session_line("a\n\"b", &counts)));
    let json: serde_json::Value = serde_json::from_str(&said.join("")).unwrap();
    assert_eq!((&json["id"], &json["seconds"], &json["taken"]), (&"33".into(), &1.25.into(), &2.into()));
    assert_eq!(json["helo"], "a\n\"b");
}

#[test]
fn whatever_a_client_says_its_line_is_one_and_short() {
    let evil = "\n\u{1b}=\"".repeat(10_000);
    let said = text(|| session(&session_line(&evil, &Counts::default())));
    assert!(!said.contains('\n') && said.len() < 6 * MAX_SHOWN_OCTETS + 400, "{said}");
    let mut many = record(refused(Refusal::TooLarge(10)));
    many.recipients = vec![many.recipients[0].clone(); 1_000];
    let said = text(|| message(S, &many));
    assert!(said.contains("recipients=1000") && said.contains("<bob@b.test>,... helo"), "{said}");
    assert!(said.len() < 2_000, "{said}");
}
