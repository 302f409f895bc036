//! What the DNS is asked about, and what the client is told.

use super::*;

#[tokio::test]
async fn domains_are_looked_up_where_the_decision_needs_it() {
    let server = server_with(GREEN, |config, _| {
        config.spam_prevention.reject_unknown_sender_domain = true;
        config.spam_prevention.reject_unknown_recipient_domain = true;
        config.access.whitelist_senders = vec![AddressPattern::Domain(Domain::parse("white.test").unwrap())];
    });
    let mut client = server.connect(b"").await;
    client.greet().await;
    for (id, sender, recipient, reply, asked) in [
        (11, "a@b.test", "c@d.test", "250 2.1.5 Recipient ok", &["b.test", "d.test"][..]),
        (12, "a@b.test", "c@here.test", "250 2.1.5 Recipient ok", &["b.test"]),
        (13, "", "c@d.test", "250 2.1.5 Recipient ok", &["d.test"]),
        (14, "a@white.test", "c@no.test", "250 2.1.5 Recipient ok", &[]),
        (15, "a@no.test", "c@d.test", "550 5.1.8 Sender domain not found (ref 15)", &["no.test"]),
        (
            16,
            "a@null.test",
            "c@d.test",
            "550 5.7.27 Sender domain takes no mail (null MX) (ref 16)",
            &["null.test"],
        ),
        (
            17,
            "a@down.test",
            "c@d.test",
            "450 4.1.8 Sender domain can't be looked up now, try later (ref 17)",
            &["down.test"],
        ),
        (
            18,
            "a@b.test",
            "c@no.test",
            "550 5.1.2 Recipient domain not found (ref 18)",
            &["b.test", "no.test"],
        ),
        (
            19,
            "a@b.test",
            "c@null.test",
            "556 5.1.10 Recipient domain takes no mail (null MX) (ref 19)",
            &["b.test", "null.test"],
        ),
    ] {
        client
            .play(&format!(
                "C: MAIL FROM:<{sender}>
                S: 250 2.1.0 Sender ok
                C: RCPT TO:<{recipient}>
                S: {reply}
                C: RSET
                S: 250 2.0.0 Ok"
            ))
            .await;
        let seen = std::mem::take(&mut *server.house.asked.lock().unwrap());
        assert_eq!(seen, asked, "{id}: {sender} {recipient}");
    }
    client.quit().await;
}
