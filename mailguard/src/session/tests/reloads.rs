//! What an open session makes of another configuration (Q5).

use super::*;

impl Running {
    /// Puts a changed configuration into force.
    fn reload(&self, change: impl FnOnce(&mut Config)) {
        let mut config = Config::clone(&self.house.config());
        change(&mut config);
        *self.house.config.lock().unwrap() = config.into();
    }
}

fn domain(name: &str) -> AddressPattern {
    AddressPattern::Domain(Domain::parse(name).unwrap())
}

#[tokio::test]
async fn an_open_session_takes_the_new_configuration_at_its_next_mail() {
    let server = server(RED);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play("C: MAIL FROM:<a@client.test>\nS: 250 2.1.0 Sender ok").await;
    server.reload(|config| {
        config.access.blacklist_senders.push(domain("client.test"));
        config.server.max_recipients = 1;
    });
    client
        .play(
            "C: RCPT TO:<b@here.test>
            S: 250 2.1.5 Recipient ok
            C: RCPT TO:<c@here.test>
            S: 250 2.1.5 Recipient ok
            C: RSET
            S: 250 2.0.0 Ok
            C: MAIL FROM:<a@client.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@here.test>",
        )
        .await;
    let mut reply = String::new();
    client.stream.read_line(&mut reply).await.unwrap();
    assert!(reply.starts_with('5'), "listed by now: {reply}");
    client
        .play(
            "C: RSET
            S: 250 2.0.0 Ok
            C: MAIL FROM:<a@other.test>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<b@here.test>
            S: 250 2.1.5 Recipient ok
            C: RCPT TO:<c@here.test>",
        )
        .await;
    reply.clear();
    client.stream.read_line(&mut reply).await.unwrap();
    assert!(reply.starts_with("452 4.5.3"), "the protocol's limits, too: {reply}");
    client.quit().await;
}

#[tokio::test]
async fn a_session_whose_zone_is_gone_goes_on_by_what_it_had() {
    let server = server(RED);
    let mut client = server.connect(b"").await;
    client.greet().await;
    server.reload(|config| {
        config.zones.truncate(RED);
        config.access.blacklist_senders.push(domain("client.test"));
    });
    client.send("Subject: x\r\n\r\nx\r\n", "250 2.0.0 Ok: queued as 11").await;
    client.quit().await;
}
