//! Which server gets a recipient's mail: by the DNS, by incoming domains, by routes, and from where.

use mailguard_tests::netns::{FIREWALL4_WAN, SERVER4, SERVER6, WAN, port25};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::unbound::Unbound;

use super::*;

const DNS: &str = "[dns]\nservers = [\"127.0.0.1\"]\ntimeout = \"1s\"\n";

/// An address of the server's where nobody listens.
const CLOSED: &str = "198.51.100.3";

/// A second address of the firewall towards the server.
const SECOND: &str = "198.51.100.9";

fn dns(topology: &Topology, appliance: &Appliance<'_>, records: &[String]) -> Unbound {
    let records: Vec<_> = records.iter().map(String::as_str).collect();
    let firewall = |program: &str| topology.firewall.command(program);
    Unbound::start(&firewall, appliance.folder(), &records).expect("Unbound runs")
}

fn sink(topology: &Topology, appliance: &Appliance<'_>, listen: &str) -> SmtpSink {
    SmtpSink::start(&|program| topology.server.command(program), appliance.folder(), listen, true)
        .expect("smtp-sink runs")
}

#[test]
fn the_dns_decides_where_nothing_else_does() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &config(&format!("[delivery]\nretry_min = \"1s\"\n{DNS}")))
        .expect("mailguard runs");
    topology.server.ip(&format!("address add {CLOSED}/24 dev eth0")).expect("an address");
    let _dns = dns(
        &topology,
        &appliance,
        &[
            // The first exchanger refuses connections, the second takes mail.
            "first.example.net. MX 10 closed.example.net.".to_owned(),
            "first.example.net. MX 20 mx.example.net.".to_owned(),
            format!("closed.example.net. A {CLOSED}"),
            format!("mx.example.net. A {SERVER4}"),
            "alias.example.net. CNAME plain.example.net.".to_owned(),
            format!("plain.example.net. A {SERVER4}"),
            "six.example.net. MX 10 mx6.example.net.".to_owned(),
            format!("mx6.example.net. AAAA {SERVER6}"),
            "null.example.net. MX 0 .".to_owned(),
            "ours.example.net. MX 10 mailguard.example.test.".to_owned(),
            format!("mailguard.example.test. A {FIREWALL4}"),
        ],
    );
    let four = sink(&topology, &appliance, &port25(SERVER4));
    let six = sink(&topology, &appliance, &port25(SERVER6));
    for (domain, sink) in [
        ("first.example.net", &four),
        ("plain.example.net", &four),
        ("alias.example.net", &four),
        ("six.example.net", &six),
    ] {
        send(&topology, "", &format!("bob@{domain}"), domain);
        sink.wait_for(domain).expect("it arrives");
    }
    for (domain, status) in
        [("null.example.net", "5.1.10"), ("no.example.net", "5.1.2"), ("ours.example.net", "5.4.6")]
    {
        let recipient = format!("bob@{domain}");
        send(&topology, "", &recipient, domain);
        let attempt = &attempts(&appliance, &recipient)[0];
        assert_eq!(text(attempt, "outcome"), "failed", "{attempt}");
        let route = appliance.cli(&["route", &recipient]).expect("runs");
        let said = String::from_utf8_lossy(&route.stdout).into_owned();
        assert!(!route.status.success() && said.contains(&format!("problem   {status} ")), "{said}");
    }
    let ours = text(&attempts(&appliance, "bob@ours.example.net")[0], "text").to_owned();
    assert!(ours.starts_with("Mail for ours.example.net loops back to myself: "), "{ours}");
    let said = appliance.ok(&["route", "bob@first.example.net"]).expect("a route");
    assert!(said.contains("next hop  mx:first.example.net\nservers   closed.example.net["), "{said}");
}

#[test]
fn routes_by_domain_with_addresses_and_smarthosts_of_their_own() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    topology.firewall.ip(&format!("address add {SECOND}/24 dev {WAN}")).expect("an address");
    let routes = format!(
        "[[domain_route]]\ndirection = \"sender\"\ndomain = \"client.example.test\"\noutgoing_address = \"{SECOND}\"\n\
         [[domain_route]]\ndirection = \"recipient\"\ndomain = \"example.org\"\noutgoing_address = \"{WAN}\"\n\
         [domain_route.smarthost]\naddress = \"{SERVER4}\"\nport = 2525\n\
         [[incoming_domain]]\ndomain = \"inside.example.org\"\nserver = \"{SERVER4}:2526\"\n\
         [smarthost]\nenabled = true\naddress = \"{SERVER4}\"\n"
    );
    let appliance = Appliance::start(&firewall, &config(&routes)).expect("mailguard runs");
    let general = sink(&topology, &appliance, &port25(SERVER4));
    let own = sink(&topology, &appliance, &format!("{SERVER4}:2525"));
    let inside = sink(&topology, &appliance, &format!("{SERVER4}:2526"));
    for (sender, recipient, sink, client) in [
        ("a@elsewhere.test", "bob@example.net", &general, FIREWALL4_WAN.to_string()),
        ("a@client.example.test", "bob@example.net", &general, SECOND.to_owned()),
        ("a@client.example.test", "bob@deep.example.org", &own, FIREWALL4_WAN.to_string()),
        ("a@client.example.test", "bob@inside.example.org", &inside, FIREWALL4_WAN.to_string()),
    ] {
        let subject = format!("{sender} to {recipient}");
        send(&topology, sender, recipient, &subject);
        let received = sink.wait_for(&subject).expect("it arrives");
        assert_eq!(received.client, client, "{subject}");
    }
    let json =
        appliance.json(&["route", "bob@example.org", "--sender", "a@client.example.test"]).expect("a route");
    assert_eq!(text(&json, "next_hop"), format!("{SERVER4}:2525"));
    assert_eq!(text(&json, "outgoing_address"), WAN);
    let steps = json["steps"].as_array().expect("steps").len();
    assert_eq!(steps, 4, "{json}");
}

#[test]
fn what_waits_goes_by_the_configuration_of_the_moment() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let to = |port: u16| {
        config(&format!(
            "[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}:{port}\"\n\
             [delivery]\nretry_min = \"1s\"\nretry_max = \"1s\"\n"
        ))
    };
    let appliance = Appliance::start(&firewall, &to(2599)).expect("mailguard runs");
    send(&topology, "alice@client.example.test", "bob@inside.example.test", "rerouted");
    assert_eq!(text(&attempts(&appliance, "bob@inside.example.test")[0], "outcome"), "deferred");
    let sink = sink(&topology, &appliance, &port25(SERVER4));
    appliance.write_config(&to(25).replace("hostname =", "hostnme =")).expect("written");
    assert!(!appliance.cli(&["reload"]).expect("runs").status.success(), "refused whole");
    appliance.write_config(&to(25)).expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    sink.wait_for("rerouted").expect("it arrives");
}
