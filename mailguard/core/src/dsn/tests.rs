//! Reports as a mail program takes them apart.

use proptest::prelude::*;

use super::*;
use crate::mail::Notify;
use crate::smtp::{Detail, EnhancedStatus, Reply, ReplyCode};

const ORIGINAL: &[u8] = b"From: a@b.test\r\nSubject: hello\r\n\r\nbody\r\n.\r\nlast line\r\n";

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

fn recipient(text: &str) -> Recipient {
    Recipient::new(ForwardPath::Mailbox(mailbox(text)))
}

fn report(text: &str) -> Report {
    let detail = Detail::BAD_DESTINATION_MAILBOX;
    let reply = Reply::new(ReplyCode::MAILBOX_UNAVAILABLE, detail, text);
    Report {
        status: EnhancedStatus::permanent(detail),
        remote: Some("mx.d.test[192.0.2.1]:25".to_owned()),
        text: reply.to_string(),
        reply: Some(reply),
        transfer: Default::default(),
    }
}

fn sent_by(sender: &str) -> Envelope {
    Envelope {
        reverse_path: ReversePath::Mailbox(mailbox(sender)),
        recipients: vec![recipient("c@d.test")],
        body: BodyType::SevenBit,
        smtputf8: false,
        dsn_return: None,
        envelope_id: None,
    }
}

fn compose_for(
    envelope: &Envelope,
    failed: &[(&Recipient, &Report)],
    original: &[u8],
    ret: DsnReturn,
) -> Vec<u8> {
    let failed = failed.iter().map(|(recipient, report)| ReportedRecipient {
        recipient,
        action: Action::Failed,
        report,
    });
    compose_of(envelope, &failed.collect::<Vec<_>>(), original, ret)
}

fn compose_of(
    envelope: &Envelope,
    told: &[ReportedRecipient<'_>],
    original: &[u8],
    ret: DsnReturn,
) -> Vec<u8> {
    compose(&DsnRequest {
        reporting_mta: &Domain::parse("guard.test").unwrap(),
        sender: &mailbox("postmaster@guard.test"),
        reader: Reader::Sender,
        language: Language::English,
        retry_until: UnixTime(1_795_930_236_000_000),
        id: QueueId(1_795_498_176_000_000),
        arrival: UnixTime(1_795_498_176_000_000),
        now: UnixTime(1_795_498_236_000_000),
        envelope,
        told,
        original,
        ret,
    })
}

/// Header fields, unfolded, and the content after the empty line.
fn split(entity: &[u8]) -> (Vec<String>, Vec<u8>) {
    let at = entity.windows(4).position(|w| w == b"\r\n\r\n").expect("an empty line");
    let header = String::from_utf8(entity[..at].to_vec()).unwrap();
    let fields = header.replace("\r\n\t", " ").split("\r\n").map(str::to_owned).collect();
    (fields, entity[at + 4..].to_vec())
}

/// The three parts by RFC 2046 §5.1.1, each as fields and content.
fn parts(dsn: &[u8]) -> Vec<(Vec<String>, Vec<u8>)> {
    let (header, body) = split(dsn);
    let content_type =
        header.iter().find(|field| field.starts_with("Content-Type: multipart/report;")).unwrap();
    let boundary = content_type.split('"').nth(1).unwrap();
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.as_slice();
    let mut found = Vec::new();
    while let Some(at) = memchr::memmem::find(rest, delimiter.as_bytes()) {
        found.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n");
    found[1..].iter().map(|part| split(part.strip_prefix(b"\r\n").unwrap())).collect()
}

fn text(content: &[u8]) -> String {
    String::from_utf8(content.to_vec()).unwrap().replace("\r\n\t", " ")
}

#[test]
fn a_whole_report() {
    let mut original = recipient("c@d.test");
    original.original_recipient = Some("rfc822;Carl+2BX@d.test".to_owned());
    let mut envelope = sent_by("a@b.test");
    envelope.envelope_id = Some("QQ+2B1".to_owned());
    let unreachable = Report::ours(EnhancedStatus::new(4, 4, 1), "connection refused".to_owned());
    let failed = [(&original, &report("no such user")), (&recipient("e@d.test"), &unreachable)];
    let dsn = compose_for(&envelope, &failed, ORIGINAL, DsnReturn::Full);
    assert!(dsn.is_ascii());
    let (header, _) = split(&dsn);
    for field in [
        "From: Mail Delivery System <postmaster@guard.test>",
        "To: <a@b.test>",
        "Subject: Undeliverable: your message could not be delivered",
        "Date: Tue, 24 Nov 2026 05:30:36 +0000",
        "Message-ID: <1K0ZJEGT00000.1795498236000000.dsn@guard.test>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Transfer-Encoding: 7bit",
    ] {
        let name = field.split(':').next().unwrap();
        let found: Vec<_> = header.iter().filter(|line| line.starts_with(&format!("{name}:"))).collect();
        if name == "Message-ID" {
            assert!(found.len() == 1 && found[0].ends_with(".1795498236000000.dsn@guard.test>"), "{found:?}");
        } else {
            assert_eq!(found, [field]);
        }
    }
    let parts = parts(&dsn);
    assert_eq!(parts.len(), 3);
    assert!(parts[0].0.contains(&"Content-Type: text/plain; charset=utf-8".to_owned()));
    let explanation = text(&parts[0].1);
    assert!(explanation.contains("<c@d.test>: mx.d.test[192.0.2.1]:25: 550 5.1.1"), "{explanation}");
    assert!(explanation.contains("<e@d.test>: connection refused"), "{explanation}");
    assert!(parts[1].0.contains(&"Content-Type: message/delivery-status".to_owned()));
    assert_eq!(
        text(&parts[1].1),
        "Reporting-MTA: dns; guard.test\r\n\
         Original-Envelope-Id: QQ+1\r\n\
         Arrival-Date: Tue, 24 Nov 2026 05:29:36 +0000\r\n\
         \r\n\
         Original-Recipient: rfc822; Carl+X@d.test\r\n\
         Final-Recipient: rfc822; c@d.test\r\n\
         Action: failed\r\n\
         Status: 5.1.1\r\n\
         Remote-MTA: dns; mx.d.test\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n\
         Last-Attempt-Date: Tue, 24 Nov 2026 05:30:36 +0000\r\n\
         \r\n\
         Final-Recipient: rfc822; e@d.test\r\n\
         Action: failed\r\n\
         Status: 4.4.1\r\n\
         Diagnostic-Code: x-mailguard; connection refused\r\n\
         Last-Attempt-Date: Tue, 24 Nov 2026 05:30:36 +0000\r\n"
    );
    assert!(parts[2].0.contains(&"Content-Type: message/rfc822".to_owned()));
    assert_eq!(parts[2].1, ORIGINAL);
}

#[test]
fn what_was_passed_on_is_told_apart_from_what_failed() {
    let (here, there) = (recipient("c@d.test"), recipient("e@d.test"));
    let (no, yes) = (report("no"), Report { status: EnhancedStatus::new(2, 0, 0), ..report("yes") });
    let relayed = ReportedRecipient { recipient: &there, action: Action::Relayed, report: &yes };
    let failed = ReportedRecipient { recipient: &here, action: Action::Failed, report: &no };
    let composed =
        |told: &[ReportedRecipient<'_>]| compose_of(&sent_by("a@b.test"), told, ORIGINAL, DsnReturn::Headers);
    let (subject, both) = (composed(&[relayed]), composed(&[failed, relayed]));
    assert!(split(&subject).0.contains(&"Subject: Relayed: your message was passed on".to_owned()));
    assert!(split(&both).0.iter().any(|field| field.starts_with("Subject: Undeliverable")));
    let explanation = text(&parts(&both)[0].1);
    let at = |what: &str| explanation.find(what).unwrap_or_else(|| panic!("{what}: {explanation}"));
    assert!(at("could not be delivered") < at("<c@d.test>") && at("<c@d.test>") < at("passed on"));
    assert!(at("passed on") < at("<e@d.test>"));
    assert!(!text(&parts(&subject)[0].1).contains("could not be delivered"));
    let status = text(&parts(&both)[1].1);
    let relayed = "Final-Recipient: rfc822; e@d.test\r\nAction: relayed\r\nStatus: 2.0.0\r\n";
    assert!(status.contains(relayed) && status.matches("Action: failed").count() == 1, "{status}");
}

#[test]
fn a_delay_says_until_when() {
    let (to, report) = (recipient("c@d.test"), Report::ours(EnhancedStatus::new(4, 4, 1), "nobody answers"));
    let told = [ReportedRecipient { recipient: &to, action: Action::Delayed, report: &report }];
    let dsn = compose_of(&sent_by("a@b.test"), &told, ORIGINAL, DsnReturn::Headers);
    assert!(split(&dsn).0.contains(&"Subject: Delayed: your message has not been delivered yet".to_owned()));
    let explanation = text(&parts(&dsn)[0].1).replace("\r\n", " ");
    assert!(explanation.contains("attempts go on until Sun, 29 Nov 2026 05:30:36 +0000."), "{explanation}");
    let status = text(&parts(&dsn)[1].1);
    assert!(status.contains("Action: delayed\r\nStatus: 4.4.1\r\n"), "{status}");
    assert!(status.ends_with("Will-Retry-Until: Sun, 29 Nov 2026 05:30:36 +0000\r\n"), "{status}");
    for (notify, expect) in [
        (None, true),
        (Some(Notify::NEVER), false),
        (Some(Notify { failure: true, ..Notify::NEVER }), false),
        (Some(Notify { delay: true, ..Notify::NEVER }), true),
    ] {
        assert_eq!(wants_delay(&Recipient { notify, ..recipient("c@d.test") }), expect, "{notify:?}");
    }
}

/// What people read is in their language; what programs read isn't, and all of it is ASCII on the wire.
#[test]
fn every_language_for_the_sender_and_the_administrator() {
    let (to, no, boss) = (recipient("c@d.test"), report("no such user"), mailbox("boss@guard.test"));
    let told = [Action::Failed, Action::Delayed, Action::Relayed].map(|action| ReportedRecipient {
        recipient: &to,
        action,
        report: &no,
    });
    for (language, failed, withheld) in [
        (Language::English, "could not be delivered", "withheld in the quarantine"),
        (Language::German, "konnte den folgenden Empfängern", "in der Quarantäne"),
        (Language::Italian, "non è stato consegnato ai", "in quarantena"),
        (Language::Japanese, "再試行は行いません", "隔離されています"),
    ] {
        for (reader, expect) in [(Reader::Sender, failed), (Reader::Administrator(&boss), withheld)] {
            let envelope_of = sent_by("a@b.test");
            let dsn = compose(&DsnRequest {
                reporting_mta: &Domain::parse("guard.test").unwrap(),
                sender: &mailbox("postmaster@guard.test"),
                reader,
                language,
                id: QueueId(1_795_498_176_000_000),
                arrival: UnixTime(1_795_498_176_000_000),
                now: UnixTime(1_795_498_236_000_000),
                retry_until: UnixTime(1_795_930_236_000_000),
                envelope: &envelope_of,
                told: if reader == Reader::Sender { &told } else { &told[..1] },
                original: ORIGINAL,
                ret: DsnReturn::Headers,
            });
            assert!(dsn.is_ascii());
            let (fields, content) = parts(&dsn).swap_remove(0);
            let content = match fields.iter().any(|field| field.ends_with("base64")) {
                true => STANDARD.decode(String::from_utf8(content).unwrap().replace("\r\n", "")).unwrap(),
                false => content,
            };
            let content = String::from_utf8(content).unwrap().replace("\r\n", " ");
            assert!(
                content.contains(expect) && content.contains(&QueueId(1_795_498_176_000_000).to_string()),
                "{language:?}: {content}"
            );
            assert!(!content.contains("{}"), "{content}");
            let status = text(&parts(&dsn)[1].1);
            assert!(status.contains("Action: failed"), "{status}");
            let to = if reader == Reader::Sender { "a@b.test" } else { "boss@guard.test" };
            assert!(split(&dsn).0.contains(&format!("To: <{to}>")));
            let recipients = envelope(&envelope_of, reader, &dsn).unwrap().recipients;
            assert_eq!(recipients, [recipient(to)]);
        }
    }
}

#[test]
fn what_is_returned() {
    let (to, no) = (recipient("c@d.test"), report("no"));
    let envelope = sent_by("a@b.test");
    let third = |original: &[u8], ret| {
        let dsn = compose_for(&envelope, &[(&to, &no)], original, ret);
        let (fields, content) = parts(&dsn).pop().unwrap();
        (fields[0].clone(), content)
    };
    let header = b"From: a@b.test\r\nSubject: hello\r\n".to_vec();
    let headers = "Content-Type: text/rfc822-headers".to_owned();
    assert_eq!(third(ORIGINAL, DsnReturn::Headers), (headers.clone(), header.clone()));
    let large = [ORIGINAL, &b"x\r\n".repeat(MAX_RETURNED_OCTETS)].concat();
    assert_eq!(third(&large, DsnReturn::Full), (headers.clone(), header));
    let endless = b"X-Y: z\r\n".repeat(MAX_RETURNED_HEADER_OCTETS);
    let (kind, content) = third(&endless, DsnReturn::Headers);
    assert_eq!(
        (kind, content.len() <= MAX_RETURNED_HEADER_OCTETS, content.ends_with(b"z\r\n")),
        (headers, true, true)
    );
    for (ret, octets, expect) in [
        (None, 10, DsnReturn::Full),
        (Some(DsnReturn::Headers), 10, DsnReturn::Headers),
        (Some(DsnReturn::Full), MAX_RETURNED_OCTETS + 1, DsnReturn::Headers),
    ] {
        assert_eq!(returned(&Envelope { dsn_return: ret, ..sent_by("a@b.test") }, octets), expect);
    }
}

#[test]
fn eight_bit_content_is_declared() {
    let (to, no) = (recipient("c@d.test"), report("no"));
    let dsn =
        compose_for(&sent_by("a@b.test"), &[(&to, &no)], "X: é\r\n\r\né\r\n".as_bytes(), DsnReturn::Full);
    let declared = "Content-Transfer-Encoding: 8bit".to_owned();
    assert!(split(&dsn).0.contains(&declared));
    let parts = parts(&dsn);
    assert!(parts[2].0.contains(&declared) && !parts[1].0.contains(&declared));
    assert_eq!(envelope(&sent_by("a@b.test"), Reader::Sender, &dsn).unwrap().body, BodyType::EightBitMime);
}

#[test]
fn addresses_outside_ascii() {
    let (to, no) = (recipient("jörg@d.test"), report("unbekannt: ö"));
    let dsn = compose_for(&sent_by("a@b.test"), &[(&to, &no)], ORIGINAL, DsnReturn::Full);
    let status = text(&parts(&dsn)[1].1);
    assert!(status.contains("Final-Recipient: utf-8; j\\x{F6}rg@d.test\r\n"), "{status}");
    assert!(status.contains("unbekannt: \\x{F6}\r\n"), "{status}");
    // Where a domain in A-labels will do, nothing else is written.
    let to = recipient("c@bücher.test");
    let dsn = compose_for(&sent_by("a@bücher.test"), &[(&to, &no)], ORIGINAL, DsnReturn::Full);
    assert!(split(&dsn).0.contains(&"To: <a@xn--bcher-kva.test>".to_owned()));
    let status = text(&parts(&dsn)[1].1);
    assert!(status.contains("Final-Recipient: rfc822; c@xn--bcher-kva.test\r\n"), "{status}");
}

#[test]
fn a_message_that_guesses_the_boundary() {
    let (to, no) = (recipient("c@d.test"), report("no"));
    let boundary = |dsn: &[u8]| {
        let (header, _) = split(dsn);
        let field = header.iter().find(|field| field.contains("boundary=")).unwrap();
        field.split('"').nth(1).unwrap().to_owned()
    };
    let guessed = boundary(&compose_for(&sent_by("a@b.test"), &[(&to, &no)], ORIGINAL, DsnReturn::Full));
    let original = format!("X: y\r\n\r\n--{guessed}\r\n\r\nevil\r\n");
    let dsn = compose_for(&sent_by("a@b.test"), &[(&to, &no)], original.as_bytes(), DsnReturn::Full);
    assert_ne!(boundary(&dsn), guessed);
    assert_eq!(parts(&dsn)[2].1, original.as_bytes());
}

#[test]
fn the_envelope_of_a_report() {
    let to_sender = envelope(&sent_by("a@b.test"), Reader::Sender, b"x").unwrap();
    assert_eq!((&to_sender.reverse_path, to_sender.body), (&ReversePath::Null, BodyType::SevenBit));
    assert_eq!(to_sender.recipients, [recipient("a@b.test")]);
    assert_eq!(
        envelope(&Envelope { reverse_path: ReversePath::Null, ..sent_by("a@b.test") }, Reader::Sender, b"x"),
        None
    );
    for (notify, expect) in [
        (None, true),
        (Some(Notify::NEVER), false),
        (Some(Notify { success: true, ..Notify::NEVER }), false),
        (Some(Notify { failure: true, ..Notify::NEVER }), true),
    ] {
        assert_eq!(wants_failure(&Recipient { notify, ..recipient("c@d.test") }), expect, "{notify:?}");
    }
}

proptest! {
    /// Whatever a server or a client said, the report keeps its fields, its parts and the original.
    #[test]
    fn nothing_can_be_injected(
        said in "([a-z é]|\r\n|\0|\r\n--=_|: ){0,60}",
        orcpt in "([a-z;+]|\\+0D\\+0A|\r\n){0,30}",
        envid in "([a-z+]|\\+0D\\+0AX: y|\r\n){0,20}",
        original in "([a-z]|: |\r\n|--=_|é){0,80}",
    ) {
        let mut to = recipient("c@d.test");
        to.original_recipient = Some(orcpt);
        let mut from = sent_by("a@b.test");
        from.envelope_id = Some(envid);
        let original = format!("X: y\r\n\r\n{original}\r\n");
        let dsn = compose_for(&from, &[(&to, &report(&said))], original.as_bytes(), DsnReturn::Full);
        prop_assert_eq!(split(&dsn).0.len(), 9);
        let parts = parts(&dsn);
        prop_assert_eq!(parts.len(), 3);
        let status = text(&parts[1].1);
        prop_assert_eq!(status.lines().count(), 3 + 1 + 7);
        prop_assert_eq!(&parts[2].1, original.as_bytes());
    }
}
