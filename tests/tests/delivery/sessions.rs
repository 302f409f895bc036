//! Delivery to a server that we didn't write: Postfix's smtp-sink, judged by what it received and counted.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use mailguard::config::{Source, parse_and_validate};
use mailguard::delivery::Delivery;
use mailguard::routing::OwnListeners;
use mailguard::spool::Body;
use mailguard_core::config::Config;
use mailguard_core::config::model::MailServer;
use mailguard_core::mail::{BodyType, Envelope, ForwardPath, Mailbox, Recipient, ReversePath};
use mailguard_core::outcome::Outcome;
use mailguard_core::route;
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::wait_until;

const CONFIG: &str = "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
                      interfaces = [\"lan\"]\nmode = \"active\"\n";

fn config() -> Config {
    parse_and_validate(&Source::of_text("mailguard.toml", CONFIG)).expect("the configuration is right")
}

fn envelope(recipient: &str) -> Envelope {
    let mailbox = |text: &str| Mailbox::parse(text).expect("an address");
    Envelope {
        reverse_path: ReversePath::Mailbox(mailbox("alice@client.example.test")),
        recipients: vec![Recipient::new(ForwardPath::Mailbox(mailbox(recipient)))],
        body: BodyType::SevenBit,
        smtputf8: false,
        dsn_return: None,
        envelope_id: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_over_few_sessions() {
    const LANES: usize = 5;
    const MESSAGES_A_LANE: usize = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let sink = SmtpSink::start(&|program| Command::new(program), folder.path(), &address.to_string(), true)
        .expect("smtp-sink runs");
    let (delivery, config) = (Arc::new(Delivery::new(OwnListeners::default())), Arc::new(config()));
    let route = route::to_servers(&config, &[MailServer::Address(address)], false);
    let lanes = (0..LANES).map(|lane| {
        let (delivery, config, route) = (delivery.clone(), config.clone(), route.clone());
        tokio::spawn(async move {
            for number in 0..MESSAGES_A_LANE {
                let content = format!("Subject: {lane}-{number}\r\n\r\n.dot\r\n..\r\n.\r\nlast line\r\n");
                let body = Body::Memory(Bytes::from(content));
                let to = envelope("bob@server.example.test");
                let outcomes = delivery.attempt(&config, &route, None, &to, &body).await;
                assert!(matches!(outcomes.as_slice(), [Outcome::Delivered(_)]), "{outcomes:?}");
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.expect("a lane of messages");
    }
    delivery.close().await;
    let all = (LANES * MESSAGES_A_LANE) as u64;
    wait_until("the sink has counted", || sink.count() == all).expect("every message arrives once");
    let received = sink.received();
    for lane in 0..LANES {
        for number in 0..MESSAGES_A_LANE {
            let content = format!("Subject: {lane}-{number}\n\n.dot\n..\n.\nlast line\n");
            let found = received.iter().filter(|message| message.content == content).count();
            assert_eq!(found, 1, "{content}");
        }
    }
    // One for each lane, one for the look whether the sink is up.
    let sessions = sink.sessions();
    assert!((1..=LANES as u64 + 1).contains(&sessions), "{sessions} sessions");
}
