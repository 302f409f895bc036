//! Block lists, unknown domains and names of clients, asked of a real server of the DNS; recipients and
//! greylists as scripted.

use std::net::SocketAddr;

use arc_swap::ArcSwap;
use mailguard_core::mail::ForwardPath;
use mailguard_core::policy::MAX_TRANSACTION_FACTS;
use mailguard_core::policy::check::domain::MailDomainStatus;

use super::*;
use crate::delivery::Delivery;
use crate::greylist::Greylist;
use crate::lookup::dns::CurrentDns;
use crate::lookup::dns_server::DnsServer;
use crate::store::facts::FactsDb;
use crate::verification::Verification;

/// A server in the red zone that asks a DNS with this zone.
async fn asking(zone: &[&str], change: impl FnOnce(&mut Config)) -> Running {
    let dns = DnsServer::start(zone).await;
    let server = server_with(RED, |config, _| {
        config.dns = dns.config();
        change(config);
    });
    // The resolver answers by itself for addresses of loopback.
    Running { facts: looked_up(&server).await, seen_as: Some("192.0.2.7".parse().unwrap()), ..server }
}

/// Facts that are really looked up.
async fn looked_up(server: &Running) -> Arc<dyn Facts> {
    Arc::new(LookUps {
        config: Arc::new(ArcSwap::new(server.config.clone())),
        dns: Arc::new(CurrentDns::default()),
        verification: Arc::new(Verification::new(Arc::new(Delivery::default()))),
        greylist: Greylist::open(FactsDb::open(server.directory.path()).unwrap()).await.unwrap(),
    })
}

/// What a recipient's server and the greylist say, by the recipient's local part.
fn by_local_part(query: &Query) -> (Duration, Fact) {
    let local_part = |to: &ForwardPath| to.mailbox().unwrap().local_part.as_str().to_owned();
    match query {
        Query::Verification(route, to) => {
            let (time, opinion) = match local_part(to).as_str() {
                "nobody" => (0, Opinion::Refuse(Refusal::RecipientUnknown)),
                "hidden" => (0, Opinion::Defer(Refusal::RecipientUnverified)),
                "slow" => (100, Opinion::Pass),
                _ => (0, Opinion::Pass),
            };
            let reason = format!("{} says so", route.next_hop);
            let finding = Finding::new(Check::RecipientVerification, opinion, reason);
            (Duration::from_secs(time), Fact::Verification(finding))
        }
        Query::Greylist(_, _, to) => {
            let grey = local_part(to) == "grey";
            let opinion = if grey { Opinion::Defer(Refusal::Greylisted(300)) } else { Opinion::Pass };
            let finding = Finding::new(Check::Greylist, opinion, "as the test has it");
            (Duration::ZERO, Fact::Greylist(finding))
        }
        other => panic!("{other:?} is asked"),
    }
}

fn rbl(config: &mut Config) {
    let lists = r#"rbl = { enabled = true, ip_lists = ["ip.rbl.test"], domain_lists = ["names.rbl.test"] }"#;
    config.rbl = mailguard_core::testing::config(lists).rbl;
}

/// Gives MAIL and RCPT; `reply` answers RCPT.
async fn rcpt(server: &Running, sender: &str, recipient: &str, reply: &str) {
    let mut client = server.connect(b"").await;
    client.greet().await;
    client
        .play(&format!(
            "C: MAIL FROM:<{sender}>
            S: 250 2.1.0 Sender ok
            C: RCPT TO:<{recipient}>
            S: {reply}"
        ))
        .await;
    client.quit().await;
}

#[tokio::test]
async fn listed_clients_and_domains_are_refused_by_the_name_of_the_list() {
    let server = asking(&["7.2.0.192.ip.rbl.test A 127.0.0.2"], rbl).await;
    rcpt(&server, "a@client.test", "b@here.test", "554 5.7.1 Listed by ip.rbl.test (ref 11)").await;
    let records = server.records();
    let finding = records[0].findings.iter().find(|finding| finding.check == Check::Rbl).unwrap();
    assert_eq!(finding.reason, "ip.rbl.test lists 192.0.2.7: 127.0.0.2");
    // HELO says client.test.
    for listed in ["bad.test", "client.test", "mx.named.test"] {
        let record = format!("{listed}.names.rbl.test A 127.0.0.2");
        let pointer = ["7.2.0.192.in-addr.arpa PTR mx.named.test", "mx.named.test A 192.0.2.7", &record];
        let server = asking(&pointer, rbl).await;
        rcpt(&server, "a@bad.test", "b@here.test", "554 5.7.1 Listed by names.rbl.test (ref 11)").await;
    }
}

#[tokio::test]
async fn a_list_that_fails_blocks_nobody() {
    let broken = ["7.2.0.192.ip.rbl.test A SERVFAIL", "client.test.names.rbl.test A 127.255.255.254"];
    let server = asking(&broken, rbl).await;
    rcpt(&server, "a@client.test", "b@here.test", "250 2.1.5 Recipient ok").await;
}

#[tokio::test]
async fn lists_are_not_asked_about_whitelisted_senders() {
    let server = asking(&["7.2.0.192.ip.rbl.test A 127.0.0.2"], |config| {
        rbl(config);
        let white = Domain::parse("white.test").unwrap();
        config.access.whitelist_senders = vec![AddressPattern::Domain(white)];
    })
    .await;
    rcpt(&server, "a@white.test", "b@here.test", "250 2.1.5 Recipient ok").await;
    rcpt(&server, "a@grey.test", "b@here.test", "554 5.7.1 Listed by ip.rbl.test (ref 13)").await;
    rcpt(&server, "a@white.test", "b@far.test", "554 5.7.1 Relay access denied (ref 15)").await;
}

#[tokio::test]
async fn unknown_domains_of_senders_are_refused_and_an_outage_defers() {
    let zone = [
        "client.test MX 10 mx.client.test",
        "plain.test A 192.0.2.1",
        "null.test MX 0 .",
        "broken.test MX SERVFAIL",
    ];
    let server = asking(&zone, |config| config.spam_prevention.reject_unknown_sender_domain = true).await;
    for (sender, reply) in [
        ("a@client.test", "250 2.1.5 Recipient ok"),
        ("a@plain.test", "250 2.1.5 Recipient ok"),
        ("", "250 2.1.5 Recipient ok"),
        ("a@here.test", "250 2.1.5 Recipient ok"),
        ("a@gone.test", "550 5.1.8 Sender domain not found"),
        ("a@null.test", "550 5.7.27 Sender domain takes no mail (null MX)"),
        ("a@broken.test", "450 4.1.8 Sender domain can't be looked up now, try later"),
    ] {
        // One more than its session.
        let id = QueueId(server.house.ids.load(Ordering::Relaxed) + 1);
        let reference = if reply.starts_with('2') { String::new() } else { format!(" (ref {id})") };
        rcpt(&server, sender, "b@here.test", &format!("{reply}{reference}")).await;
    }
}

#[tokio::test]
async fn replies_to_what_came_before_do_not_wait_for_the_dns() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = silent.local_addr().unwrap();
    let mut server = server_with(RED, |config, _| {
        config.dns.servers = vec![address];
        config.dns.timeout = Duration::from_secs(1);
        config.spam_prevention.reject_unknown_sender_domain = true;
    });
    server.facts = looked_up(&server).await;
    let mut client = server.connect(b"").await;
    client.greet().await;
    let group = b"MAIL FROM:<a@silent.test>\r\nRCPT TO:<b@here.test>\r\nRCPT TO:<c@here.test>\r\n";
    client.stream.get_mut().write_all(group).await.unwrap();
    let began = std::time::Instant::now();
    client.play("S: 250 2.1.0 Sender ok").await;
    let early = began.elapsed();
    let deferred = "S: 450 4.1.8 Sender domain can't be looked up now, try later (ref 11)";
    client.play(&format!("{deferred}\n{deferred}")).await;
    // The second recipient hears what was found for the first.
    assert!(early * 2 < began.elapsed(), "{early:?}");
    client.quit().await;
}

#[tokio::test]
async fn clients_are_listed_by_names_that_lead_back_to_them() {
    let name = |config: &mut Config| {
        config.access.blacklist_client_names = vec![Domain::parse("dialup.test").unwrap()];
    };
    let pointer = "7.2.0.192.in-addr.arpa PTR host-7.dialup.test";
    let server = asking(&[pointer, "host-7.dialup.test A 192.0.2.7"], name).await;
    rcpt(&server, "a@client.test", "b@here.test", "554 5.7.1 Client is on the client blacklist (ref 11)")
        .await;
    let server = asking(&[pointer, "host-7.dialup.test A 192.0.2.1"], name).await;
    rcpt(&server, "a@client.test", "b@here.test", "250 2.1.5 Recipient ok").await;
    let server = asking(&[], name).await;
    rcpt(&server, "a@client.test", "b@here.test", "250 2.1.5 Recipient ok").await;
}

#[tokio::test]
async fn strangers_that_were_not_seen_before_come_again_and_it_is_no_error() {
    let on = |config: &mut Config| {
        config.greylist.enabled = true;
        config.server.hard_error_limit = 1;
    };
    let mut server = server_with(RED, |config, _| on(config));
    server.facts = Scripted::new(by_local_part);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play("C: MAIL FROM:<a@client.test>\nS: 250 2.1.0 Sender ok").await;
    for _ in 0..5 {
        client
            .play(
                "C: RCPT TO:<grey@here.test>
                S: 451 4.7.1 Greylisted, try again in 300 seconds (ref 11)",
            )
            .await;
    }
    client.play("C: RCPT TO:<b@here.test>\nS: 250 2.1.5 Recipient ok").await;
    client.quit().await;
    // Ours are never asked to come again.
    let server = server_with(GREEN, |config, _| on(config));
    rcpt(&server, "a@client.test", "grey@here.test", "250 2.1.5 Recipient ok").await;
}

#[tokio::test]
async fn recipients_of_more_domains_than_are_remembered_are_each_asked_about_once() {
    let domains: Vec<String> = (0..=MAX_TRANSACTION_FACTS).map(|number| format!("d{number}.test")).collect();
    let mut server = server_with(GREEN, |config, _| {
        config.spam_prevention.reject_unknown_recipient_domain = true;
        config.server.max_recipients = 2 * domains.len();
    });
    let facts = Scripted::new(|query| {
        let Query::MailDomain(domain) = query else { panic!("{query:?} is asked") };
        (Duration::ZERO, Fact::MailDomain(domain.clone(), MailDomainStatus::TakesMail))
    });
    server.facts = facts.clone();
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play("C: MAIL FROM:<a@client.test>\nS: 250 2.1.0 Sender ok").await;
    for user in ["b", "c"] {
        for domain in &domains {
            client.play(&format!("C: RCPT TO:<{user}@{domain}>\nS: 250 2.1.5 Recipient ok")).await;
        }
    }
    client.quit().await;
    // The one that isn't remembered is asked about for each of its recipients.
    assert_eq!(facts.asked.lock().unwrap().len(), domains.len() + 1);
}

#[tokio::test]
async fn servers_of_incoming_domains_are_asked_about_their_recipients() {
    let on = |config: &mut Config| {
        config.server.verify_recipients = true;
        config.server.hard_error_limit = 2;
    };
    let verifying = |zone| {
        let server = server_with(zone, |config, _| on(config));
        Running { facts: Scripted::new(by_local_part), ..server }
    };
    let server = verifying(RED);
    for (recipient, reply) in [
        ("b@here.test", "250 2.1.5 Recipient ok"),
        ("nobody@here.test", "550 5.1.1 Recipient unknown (ref 13)"),
        ("hidden@here.test", "450 4.1.1 Recipient can't be verified now, try later (ref 15)"),
    ] {
        rcpt(&server, "a@client.test", recipient, reply).await;
    }
    let records = server.records();
    let finding = records[0].findings.iter().find(|found| found.check == Check::RecipientVerification);
    assert_eq!(finding.unwrap().reason, "127.0.0.1:25 says so");
    // Of ours, too; but about nobody else's recipients.
    let server = verifying(GREEN);
    rcpt(&server, "a@client.test", "nobody@here.test", "550 5.1.1 Recipient unknown (ref 11)").await;
    rcpt(&server, "a@client.test", "nobody@far.test", "250 2.1.5 Recipient ok").await;
    // Who tries out names is soon told to go.
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play("C: MAIL FROM:<a@client.test>\nS: 250 2.1.0 Sender ok").await;
    for _ in 0..2 {
        client.play("C: RCPT TO:<nobody@here.test>\nS: 550 5.1.1 Recipient unknown (ref 15)").await;
    }
    client.play("C: RCPT TO:<nobody@here.test>\nS: 421 4.7.0 Too many errors, closing the connection").await;
}

#[tokio::test]
async fn a_transaction_waits_a_bounded_time_for_the_servers_of_its_recipients() {
    let mut server = server_with(RED, |config, _| config.server.verify_recipients = true);
    server.facts = Scripted::new(by_local_part);
    let mut client = server.connect(b"").await;
    client.greet().await;
    client.play("C: MAIL FROM:<a@client.test>\nS: 250 2.1.0 Sender ok").await;
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    client
        .play(
            "C: RCPT TO:<slow@here.test>
            S: 250 2.1.5 Recipient ok
            C: RCPT TO:<slow@here.test> NOTIFY=NEVER
            S: 450 4.1.1 Recipient can't be verified now, try later (ref 11)
            C: RCPT TO:<slow@here.test> NOTIFY=NEVER
            S: 450 4.1.1 Recipient can't be verified now, try later (ref 11)",
        )
        .await;
    assert_eq!(begin.elapsed().as_secs(), 120);
    tokio::time::resume();
    client.quit().await;
}
