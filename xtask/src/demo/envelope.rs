//! The uplink's side: mail from strangers, and from our own users out there, to a mailguard that knows its
//! domain. What each client is told is compared with what it should be; the DNS and the IMAP server are real
//! ones on the firewall.

use anyhow::Result;
use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT4_THIRD, FIREWALL4, LAN, SERVER4, Topology};
use mailguard_tests::peers::dovecot::{self, Dovecot};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::swaks::{self, Message};
use mailguard_tests::peers::unbound::{self, Unbound};

use super::table::Table;

/// One client, and what it should be told at last.
struct Attempt {
    name: &'static str,
    client: std::net::Ipv4Addr,
    sender: &'static str,
    recipient: &'static str,
    /// Encrypted, and with this password.
    login: Option<&'static str>,
    reply: &'static str,
}

const ALICE: &str = "alice@client.example.test";
const INSIDE: &str = "bob@inside.example.test";
const FAR: &str = "carol@far.example.test";
const TAKEN: &str = "250 2.0.0 Ok: queued as ";

const fn attempt(
    name: &'static str,
    client: std::net::Ipv4Addr,
    sender: &'static str,
    recipient: &'static str,
    reply: &'static str,
) -> Attempt {
    Attempt { name, client, sender, recipient, login: None, reply }
}

const ATTEMPTS: &[Attempt] = &[
    attempt("to our domain", CLIENT4, ALICE, INSIDE, TAKEN),
    attempt("to elsewhere", CLIENT4, ALICE, FAR, "554 5.7.1 Relay access denied"),
    Attempt {
        login: Some(dovecot::PASSWORD),
        ..attempt("to elsewhere, by a user of ours", CLIENT4, ALICE, FAR, TAKEN)
    },
    Attempt {
        login: Some("guessed"),
        ..attempt(
            "with a wrong password",
            CLIENT4,
            ALICE,
            FAR,
            "535 5.7.8 Authentication credentials invalid",
        )
    },
    attempt("from a listed client", CLIENT4_SECOND, ALICE, INSIDE, "554 5.7.1 Listed by rbl.example.test"),
    attempt(
        "from a domain that isn't there",
        CLIENT4,
        "x@gone.example.test",
        INSIDE,
        "550 5.1.8 Sender domain not found",
    ),
    attempt(
        "from a blacklisted sender",
        CLIENT4,
        "spam@black.example.test",
        INSIDE,
        "554 5.7.1 Sender is on the sender blacklist",
    ),
    attempt(
        "by a client never seen before",
        CLIENT4_THIRD,
        ALICE,
        INSIDE,
        "451 4.7.1 Greylisted, try again in ",
    ),
];

/// Plays them all.
pub(super) fn play(table: &mut Table) -> Result<()> {
    println!("demo: starting mailguard on the uplink, with Unbound and Dovecot beside it");
    let topology = Topology::new()?;
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &config(""))?;
    let dovecot = Dovecot::start(&firewall, appliance.folder())?;
    let _unbound = Unbound::start(&firewall, appliance.folder(), &records())?;
    appliance.write_config(&config(&dovecot.certificate.display().to_string()))?;
    appliance.run()?;
    let _sink = SmtpSink::of_server(&topology, appliance.folder())?;
    for Attempt { name, client, sender, recipient, login, reply } in ATTEMPTS {
        let message = Message {
            server: &FIREWALL4.to_string(),
            from_address: Some(&client.to_string()),
            sender,
            recipients: recipient,
            subject: name,
            body: "Good morning.",
            tls: login.is_some(),
            login: login.map(|password| (dovecot::USER, password)),
            ..Message::default()
        };
        let outcome = swaks::send(&|program| topology.client.command(program), &message)?;
        table.add_reply("uplink", name, reply, outcome.last_reply());
    }
    println!("\n── mailguard trace result:refused ──\n{}", appliance.ok(&["trace", "result:refused"])?);
    Ok(())
}

fn config(ca_file: &str) -> String {
    format!(
        r#"hostname = "mailguard.example.test"

[[zone]]
name = "red"
kind = "red"
interfaces = ["{LAN}"]
mode = "active"

[[incoming_domain]]
domain = "inside.example.test"
server = "{SERVER4}"

[smarthost]
enabled = true
address = "{SERVER4}"

[imap_auth]
enabled = true
server = "127.0.0.1"
port = {imap}
tls = "starttls"
ca_file = "{ca_file}"

[dns]
servers = ["127.0.0.1:{dns}"]

[rbl]
enabled = true
ip_lists = ["rbl.example.test"]
domain_lists = []

[access]
blacklist_senders = ["black.example.test"]

[spam_prevention]
reject_unknown_sender_domain = true

[spam.greylist]
enabled = true
whitelist_clients = ["{CLIENT4}", "{CLIENT4_SECOND}"]
"#,
        imap = dovecot::IMAP_PORT,
        dns = unbound::PORT,
    )
}

fn records() -> [&'static str; 2] {
    // CLIENT4_SECOND is 192.0.2.3.
    ["client.example.test. A 192.0.2.2", "3.2.0.192.rbl.example.test. A 127.0.0.2"]
}
