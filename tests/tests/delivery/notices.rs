//! Who hears of what: reports in the sender's mailbox, what the administrator is told, and the copies of
//! which nobody hears.

use std::net::SocketAddr;

use mailguard_tests::netns::SERVER4;
use mailguard_tests::peers::fickle::Fickle;
use mailguard_tests::peers::smtp_sink::SmtpSink;

use super::*;

fn domains(kind: &str, more: &str) -> String {
    config(&format!(
        "postmaster = \"boss@client.example.test\"\nlanguage = \"de\"\n\
         [[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}:2525\"\n\
         [[incoming_domain]]\ndomain = \"client.example.test\"\nserver = \"{SERVER4}\"\n{more}"
    ))
    .replace("kind = \"green\"", &format!("kind = \"{kind}\""))
}

struct Peers {
    sink: SmtpSink,
    fickle: Fickle,
}

fn peers(topology: &Topology, appliance: &Appliance<'_>) -> Peers {
    let sink = SmtpSink::of_server(topology, appliance.folder()).expect("smtp-sink runs");
    let namespace = std::fs::File::open(topology.server.path()).expect("a namespace");
    let fickle = Fickle::start(SocketAddr::new(SERVER4.into(), 2525), move || {
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("enters the namespace");
    })
    .expect("a server");
    Peers { sink, fickle }
}

/// The one message whose content holds this, once it has come.
fn arrived(sink: &SmtpSink, what: &str) -> mailguard_tests::peers::smtp_sink::Received {
    let find = || sink.received().into_iter().find(|message| message.content.contains(what));
    wait_until(what, || find().is_some()).expect("it arrives");
    find().expect("it is there")
}

#[test]
fn a_sender_inside_hears_of_failure_and_of_delay_in_the_language_of_the_house() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let slow = "[delivery]\nretry_min = \"2s\"\nretry_max = \"2s\"\ndelay_warning = \"1s\"\n";
    let appliance = Appliance::start(&firewall, &domains("green", slow)).expect("mailguard runs");
    let peers = peers(&topology, &appliance);
    send(&topology, "alice@client.example.test", "bad@inside.example.test", "refused");
    let report = arrived(&peers.sink, "Action: failed");
    assert_eq!((report.mail.as_str(), report.recipients[0].as_str()), ("<>", "<alice@client.example.test>"));
    for part in [
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Final-Recipient: rfc822; bad@inside.example.test\n",
        "Status: 5.1.1\n",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user",
        "Content-Type: message/rfc822\n",
        "Subject: refused\n",
        "Subject: Unzustellbar: Ihre Nachricht konnte nicht zugestellt werden\n",
    ] {
        assert!(report.content.contains(part), "{part}: {}", report.content);
    }
    // Nobody listens for the domain of the second message until later.
    appliance.write_config(&domains("green", slow).replace(":2525", ":2599")).expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    send(&topology, "alice@client.example.test", "good@inside.example.test", "late");
    let warning = arrived(&peers.sink, "Action: delayed");
    assert!(warning.content.contains("Will-Retry-Until: "), "{}", warning.content);
    assert!(!warning.content.contains("message/rfc822"), "{}", warning.content);
    appliance.write_config(&domains("green", slow)).expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    wait_until("the late one arrives", || peers.fickle.drain().iter().any(|taken| taken.subject == "late"))
        .expect("nothing was lost by it");
    let warnings =
        peers.sink.received().iter().filter(|message| message.content.contains("Action: delayed")).count();
    assert_eq!(warnings, 1, "once");
}

#[test]
fn nobody_is_told_but_the_administrator_where_the_sender_may_be_forged() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &domains("red", "")).expect("mailguard runs");
    let peers = peers(&topology, &appliance);
    send(&topology, "forged@client.example.test", "bad@inside.example.test", "from a stranger");
    let notice = arrived(&peers.sink, "Final-Recipient: rfc822; bad@inside.example.test");
    assert_eq!(notice.recipients, ["<boss@client.example.test>"]);
    let quarantined = appliance.json(&["quarantine", "list"]).expect("a list");
    let reason = text(&quarantined[0], "reason");
    assert!(reason.starts_with("undeliverable: 550 5.1.1 no such user"), "{reason}");
    assert_eq!(peers.sink.received().len(), 1, "and nobody else");
}

#[test]
fn copies_go_out_once_and_are_seen_by_nobody() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let copies = "[[mail_route]]\ndirection = \"recipient\"\naddress = \"good1@inside.example.test\"\n\
                  bcc = \"route@client.example.test\"\n[delivery]\nalways_bcc = \"all@client.example.test\"\n";
    let appliance = Appliance::start(&firewall, &domains("green", copies)).expect("mailguard runs");
    let peers = peers(&topology, &appliance);
    send(
        &topology,
        "alice@client.example.test",
        "good1@inside.example.test,good2@inside.example.test",
        "copied",
    );
    let copy = peers.sink.wait_for("copied").expect("the copies arrive");
    let mut recipients = copy.recipients.clone();
    recipients.sort();
    let never = |address: &str| format!("<{address}@client.example.test>");
    assert_eq!(recipients.len(), 2, "{recipients:?}");
    assert!(
        recipients[0].starts_with(&never("all")) && recipients[1].starts_with(&never("route")),
        "{recipients:?}"
    );
    assert!(!copy.content.contains("all@") && !copy.content.contains("route@"), "{}", copy.content);
    wait_until("the recipients have theirs", || {
        peers.fickle.drain().iter().any(|taken| taken.recipients.len() == 2)
    })
    .expect("they are served");
    assert_eq!(peers.sink.received().len(), 1, "one copy each");
}
