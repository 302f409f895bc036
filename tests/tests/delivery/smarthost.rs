//! A smarthost that is Postfix, with logins by Dovecot: every mechanism, every way to encrypt.

use mailguard_tests::peers::dovecot::{Dovecot, PASSWORD, USER};
use mailguard_tests::peers::mail_server::{Access, MailServer};
use mailguard_tests::peers::open_folder;
use mailguard_tests::peers::unbound::Unbound;

use super::*;
use mailguard_tests::netns::SERVER4;

/// What a client of `relay.example.test` must know.
struct House<'a> {
    folder: tempfile::TempDir,
    topology: &'a Topology,
}

impl House<'_> {
    fn new(topology: &Topology) -> House<'_> {
        let folder = open_folder("relay-").expect("a folder");
        House { folder, topology }
    }

    fn relay(&self, access: Access) -> MailServer {
        let server = |program: &str| self.topology.server.command(program);
        let host = SERVER4.to_string();
        MailServer::start(&server, self.folder.path(), &host, "relay.example.test", access)
            .expect("Postfix runs")
    }

    fn dns(&self) -> Unbound {
        let firewall = |program: &str| self.topology.firewall.command(program);
        let relay = format!("relay.example.test. A {SERVER4}");
        let other = format!("other.example.test. A {SERVER4}");
        Unbound::start(&firewall, self.folder.path(), &[&relay, &other]).expect("Unbound runs")
    }
}

const DNS: &str = "[dns]\nservers = [\"127.0.0.1\"]\n";

#[test]
fn every_mechanism_and_the_strongest_of_all() {
    let topology = Topology::new().expect("namespaces");
    let house = House::new(&topology);
    let server = |program: &str| topology.server.command(program);
    let _dovecot = Dovecot::start(&server, house.folder.path()).expect("Dovecot runs");
    let relay = house.relay(Access::Login);
    let firewall = |program: &str| topology.firewall.command(program);
    let password = house.folder.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).expect("written");
    let smarthost = |methods: &str| {
        config(&format!(
            "[smarthost]\nenabled = true\naddress = \"{SERVER4}\"\ntls = \"off\"\nusername = \"{USER}\"\n\
             password_file = \"{}\"\n{methods}[delivery]\nretry_min = \"1s\"\n",
            password.display()
        ))
    };
    let appliance = Appliance::start(&firewall, &smarthost("")).expect("mailguard runs");
    for (methods, mechanism) in [
        ("", "DIGEST-MD5"),
        ("methods = [\"CRAM-MD5\", \"LOGIN\"]\n", "CRAM-MD5"),
        ("methods = [\"PLAIN\"]\n", "PLAIN"),
        ("methods = [\"LOGIN\"]\n", "LOGIN"),
    ] {
        appliance.write_config(&smarthost(methods)).expect("written");
        appliance.ok(&["reload"]).expect("reloaded");
        let recipient = format!("{}@example.net", mechanism.to_lowercase());
        send(&topology, "alice@client.example.test", &recipient, mechanism);
        let message = relay.wait_for(mechanism).expect("it arrives");
        assert!(message.contains("(Authenticated sender: alice)"), "{message}");
        let attempt = &attempts(&appliance, &recipient)[0];
        assert_eq!(text(attempt, "transfer"), format!("AUTH {mechanism}"));
    }
    // A wrong password fails no mail: it waits, and says what to look at.
    std::fs::write(&password, "wrong\n").expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    send(&topology, "alice@client.example.test", "wrong@example.net", "wrong");
    let attempt = &attempts(&appliance, "wrong@example.net")[0];
    assert_eq!(text(attempt, "outcome"), "deferred");
    let said = text(attempt, "text");
    assert!(said.contains("535") && said.contains("Look at username and password"), "{said}");
    assert!(!appliance.log().contains("wrong\\n") && !said.contains(PASSWORD));
    std::fs::write(&password, PASSWORD).expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    appliance.ok(&["queue", "retry", "--to", "example.net"]).expect("retried");
    relay.wait_for("wrong").expect("nothing was lost by it");
}

#[test]
fn every_way_to_encrypt() {
    let topology = Topology::new().expect("namespaces");
    let house = House::new(&topology);
    let relay = house.relay(Access::Open);
    let _dns = house.dns();
    let firewall = |program: &str| topology.firewall.command(program);
    let smarthost = |name: &str, tls: &str, trust: bool| {
        let ca = if trust { relay.certificate.display().to_string() } else { String::new() };
        config(&format!(
            "[smarthost]\nenabled = true\naddress = \"{name}\"\ntls = \"{tls}\"\nca_file = \"{ca}\"\n\
             [delivery]\nretry_min = \"1s\"\n{DNS}"
        ))
    };
    let appliance =
        Appliance::start(&firewall, &smarthost("relay.example.test", "off", false)).expect("mailguard runs");
    for (tls, trust, encrypted, verified) in [
        ("off", false, false, false),
        ("opportunistic", false, true, false),
        ("required", true, true, true),
        ("implicit", true, true, true),
    ] {
        appliance.write_config(&smarthost("relay.example.test", tls, trust)).expect("written");
        appliance.ok(&["reload"]).expect("reloaded");
        let recipient = format!("{tls}@example.net");
        send(&topology, "alice@client.example.test", &recipient, tls);
        let message = relay.wait_for(tls).expect("it arrives");
        assert_eq!(message.contains("using TLSv1.3 with cipher"), encrypted, "{message}");
        let attempt = &attempts(&appliance, &recipient)[0];
        let transfer = text(attempt, "transfer");
        assert_eq!(transfer.starts_with("TLSv1.3 TLS13_"), encrypted, "{transfer}");
        assert_eq!(transfer.ends_with(", verified"), verified, "{transfer}");
    }
    // Neither a certificate that nobody trusts nor one of another name will do.
    for (name, tls, trust, recipient) in [
        ("relay.example.test", "required", false, "untrusted@example.net"),
        ("other.example.test", "implicit", true, "misnamed@example.net"),
    ] {
        appliance.write_config(&smarthost(name, tls, trust)).expect("written");
        appliance.ok(&["reload"]).expect("reloaded");
        send(&topology, "alice@client.example.test", recipient, recipient);
        let attempt = &attempts(&appliance, recipient)[0];
        assert_eq!(text(attempt, "outcome"), "deferred");
        assert!(text(attempt, "text").contains("invalid peer certificate"), "{attempt}");
    }
    let bad = appliance.folder().join("ca.pem");
    std::fs::write(&bad, "no certificate").expect("written");
    let text = smarthost("relay.example.test", "required", true);
    let refused = text.replace(&relay.certificate.display().to_string(), &bad.display().to_string());
    appliance.write_config(&refused).expect("written");
    let output = appliance.cli(&["check"]).expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("smarthost.ca_file: the file holds no certificate"), "{said}");
}
