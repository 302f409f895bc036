//! What is taken from clients though it isn't quite right, and what becomes of it.

use super::*;

#[tokio::test]
async fn a_byte_order_mark_makes_no_text_of_the_header() {
    const MARK: &str = "\u{feff}";
    for (before, text) in [
        (MARK, "From: a@client.test\r\nDate: x\r\nMessage-ID: <y>\r\nSubject: seen\r\n\r\ntext\r\n"),
        ("\u{feff}\u{feff}", "Subject: seen\r\nDate: x\r\nMessage-ID: <y>\r\n\r\n\u{feff}text\r\n"),
    ] {
        for zone in [GREEN, RED] {
            let server = server(zone);
            let mut client = server.connect(b"").await;
            client.greet().await;
            client.send(&format!("{before}{text}"), "250 2.0.0 Ok: queued as 11").await;
            client.quit().await;
            let stored = server.message().1;
            let ours = stored.strip_suffix(text).unwrap_or_else(|| panic!("{stored}"));
            assert!(ours.starts_with("Received: ") && !ours.contains("\r\n\r\n"), "{stored}");
            assert!(!ours.contains("\r\nDate: "), "the header was read: {stored}");
            assert_eq!(server.records()[0].subject, "seen");
        }
    }
}

#[tokio::test]
async fn a_byte_order_mark_hides_nothing_that_policy_asks_about() {
    for (text, reply) in [
        ("\u{feff}From: x@black.test\r\n\r\n", "554 5.7.1 Sender is on the sender blacklist (ref 11)"),
        ("\u{feff}\r\nworm\r\n", "250 2.0.0 Ok: queued as 11"),
    ] {
        let server = server(RED);
        let mut client = server.connect(b"").await;
        client.greet().await;
        client.send(text, reply).await;
        client.quit().await;
    }
}

#[tokio::test]
async fn a_recipient_named_again_gets_one_message_and_each_rcpt_its_250() {
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play("C: MAIL FROM:<a@client.test>\nS: 250 2.1.0 Sender ok").await;
    for recipient in
        ["<b@here.test>", "<B@here.test>", "<b@HERE.test>", "<b@here.test>", "<b@here.test> NOTIFY=NEVER"]
    {
        client.play(&format!("C: RCPT TO:{recipient}\nS: 250 2.1.5 Recipient ok")).await;
    }
    client.play("C: DATA\nS: 354 End data with <CR><LF>.<CR><LF>\nC: .\nS: 250 2.0.0 Ok: queued as 11").await;
    client.quit().await;
    let (message, _) = server.message();
    let recipients = message.envelope.recipients.iter().map(|recipient| recipient.forward_path.to_string());
    // Only the server knows whether letter case tells mailboxes apart; other wishes are another recipient's.
    assert_eq!(recipients.collect::<Vec<_>>(), ["<b@here.test>", "<B@here.test>", "<b@here.test>"]);
    assert_eq!(message.dispositions.len(), 3);
}

#[tokio::test]
async fn inside_a_name_and_brackets_may_be_missing() {
    let server = server(GREEN);
    let mut client = server.connect(b"").await;
    client.play("S: 220 mailguard.test ESMTP").await;
    client.stream.get_mut().write_all(b"HELO\r\nMAIL FROM: a..b@docomo.test\r\n").await.unwrap();
    client
        .play(
            "S: 250 mailguard.test greets you
            S: 250 2.1.0 Sender ok
            C: RCPT TO:abc.@here.test
            S: 250 2.1.5 Recipient ok
            C: DATA
            S: 354 End data with <CR><LF>.<CR><LF>
            C: .
            S: 250 2.0.0 Ok: queued as 11",
        )
        .await;
    client.quit().await;
    let (message, stored) = server.message();
    assert!(stored.starts_with("Received: from [127.0.0.1]\r\n\tby mailguard.test"), "{stored}");
    assert_eq!(message.envelope.reverse_path.to_string(), "<a..b@docomo.test>");
    assert_eq!(message.envelope.recipients[0].forward_path.to_string(), "<abc.@here.test>");
}

#[tokio::test]
async fn a_stranger_keeps_to_the_rules() {
    let server = server(RED);
    let mut client = server.connect(b"").await;
    client.play("S: 220 mailguard.test ESMTP\nC: HELO\nS: 501 5.5.2 Syntax: HELO hostname").await;
    client.stream.get_mut().write_all(b"HELO\r\nMAIL FROM:<a@b.test>\r\n").await.unwrap();
    client.play("S: 554 5.5.1 Protocol error: you went on without waiting for the reply").await;
    client.closed().await;
}

/// The state machine asks about nothing outside of a transaction. If it did, that were a fault of ours: no
/// message may bounce for it.
#[tokio::test]
async fn rcpt_outside_of_a_transaction_is_a_bad_sequence_and_data_are_to_be_sent_again() {
    let server = server(GREEN);
    let address = "127.0.0.1:25".parse().unwrap();
    let peer = Peer { client: address, destination: address, destination_is_local: true, zone: GREEN };
    let (name, kind) = ("green", ZoneKind::Green);
    let log = SessionLog::begin(QueueId(32), peer, (name, kind), server.roles().journals);
    let zone = (name.to_owned(), kind);
    let (config, roles) = (server.config.clone(), server.roles().into());
    let mut transactions = transaction::Transactions::<House>::new(config, roles, peer, zone, log);
    let recipient = mailguard_core::mail::Recipient::new(mailguard_core::mail::ForwardPath::Postmaster);
    assert_eq!(transactions.rcpt(recipient).await, Err(Refusal::NoTransaction));
    assert_eq!(transactions.end_of_data().await.err(), Some(Refusal::Busy));
    assert_eq!(Refusal::NoTransaction.codes().0, ReplyCode::BAD_SEQUENCE);
    assert!(server.records().is_empty());
}
