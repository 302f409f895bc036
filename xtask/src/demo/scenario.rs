//! What is sent, what is expected, and how it is found out from outside.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{
    CLIENT4, CLIENT4_SECOND, CLIENT4_THIRD, CLIENT6, FIREWALL4_WAN, FIREWALL6_WAN, SERVER4, SERVER6, Topology,
};
use mailguard_tests::peers::smtp_sink::{Received, SmtpSink};
use mailguard_tests::peers::swaks::{self, Message};
use mailguard_tests::peers::wait_until;

use super::capture::Capture;

/// The client whose connections pass untouched.
pub(super) const BYPASSED: IpAddr = IpAddr::V4(CLIENT4_SECOND);
/// The client that is kept out.
pub(super) const BLACKLISTED: IpAddr = IpAddr::V4(CLIENT4_THIRD);
/// A port that is none of mailguard's business.
pub(super) const OTHER_PORT: u16 = 2525;

/// What is in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Clean,
    Eicar,
    Executable,
}

/// One message by one client.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
    pub(super) port: u16,
    pub(super) content: Content,
    pub(super) expected: Seen,
}

/// What became of it, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// What the client met.
    pub(super) client: Client,
    /// Whose connection brought the message to the server, if any did.
    pub(super) server: Option<Peer>,
    /// The message carries mailguard's Received field.
    pub(super) marked: bool,
    /// A connection request of the client itself was seen on the server's side.
    pub(super) direct: bool,
}

/// What the client met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Accepted,
    Refused,
    NoConnection,
}

/// Who delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Client,
    Firewall,
    Other,
}

const FILTERED: Seen =
    Seen { client: Client::Accepted, server: Some(Peer::Firewall), marked: true, direct: false };
const WITHHELD: Seen = Seen { client: Client::Accepted, server: None, marked: false, direct: false };
const DIRECT: Seen =
    Seen { client: Client::Accepted, server: Some(Peer::Client), marked: false, direct: true };
const DROPPED: Seen = Seen { client: Client::NoConnection, server: None, marked: false, direct: false };

const fn v4(name: &'static str, client: std::net::Ipv4Addr, content: Content, expected: Seen) -> Scenario {
    Scenario { name, client: IpAddr::V4(client), server: IpAddr::V4(SERVER4), port: 25, content, expected }
}

const fn v6(name: &'static str, content: Content, expected: Seen) -> Scenario {
    Scenario { name, client: IpAddr::V6(CLIENT6), server: IpAddr::V6(SERVER6), port: 25, content, expected }
}

/// The demonstration.
pub(super) const SCENARIOS: &[Scenario] = &[
    v4("clean, IPv4", CLIENT4, Content::Clean, FILTERED),
    v6("clean, IPv6", Content::Clean, FILTERED),
    v4("EICAR, IPv4", CLIENT4, Content::Eicar, WITHHELD),
    v6("EICAR, IPv6", Content::Eicar, WITHHELD),
    v4("attached .exe", CLIENT4, Content::Executable, WITHHELD),
    v4("EICAR, bypassed client", CLIENT4_SECOND, Content::Eicar, DIRECT),
    v4("clean, blacklisted client", CLIENT4_THIRD, Content::Clean, DROPPED),
    Scenario {
        name: "EICAR, port 2525",
        client: IpAddr::V4(CLIENT4),
        server: IpAddr::V4(SERVER4),
        port: OTHER_PORT,
        content: Content::Eicar,
        expected: DIRECT,
    },
];

impl Seen {
    /// What must be seen without mailguard, whatever the message.
    pub(super) fn delivered_directly(_: &Scenario) -> Self {
        DIRECT
    }
}

/// The surroundings in which scenarios are played.
pub(super) struct Run<'a> {
    pub(super) topology: &'a Topology,
    pub(super) folder: &'a Path,
    pub(super) sinks: &'a [SmtpSink; 3],
    pub(super) appliance: Option<&'a Appliance<'a>>,
}

impl Run<'_> {
    /// Sends the message and looks.
    pub(super) fn play(&self, scenario: &Scenario) -> Result<Seen> {
        let subject = format!("demo {}", scenario.name);
        let attachment = self.folder.join("setup.exe");
        if scenario.content == Content::Executable {
            fs::write(&attachment, b"MZ\x90\x00 not a real program")?;
        }
        let message = Message {
            server: &scenario.server.to_string(),
            port: Some(scenario.port),
            from_address: Some(&scenario.client.to_string()),
            sender: "alice@client.example.test",
            recipients: "bob@server.example.test",
            subject: &subject,
            body: match scenario.content {
                Content::Eicar => EICAR,
                Content::Clean | Content::Executable => "Good morning.",
            },
            attachment: (scenario.content == Content::Executable).then_some(attachment.as_path()),
            tls: false,
            login: None,
        };
        let capture = Capture::start(&self.topology.server, scenario.client, scenario.port, self.folder)?;
        let client = |program: &str| self.topology.client.command(program);
        let outcome = swaks::send(&client, &message)?;
        self.settle()?;
        let received = self.received(&subject);
        Ok(Seen {
            client: match (outcome.connected, outcome.accepted) {
                (false, _) => Client::NoConnection,
                (true, true) => Client::Accepted,
                (true, false) => Client::Refused,
            },
            server: received.as_ref().map(|message| peer(scenario, &message.client)),
            marked: received.is_some_and(|message| message.content.contains("by mailguard.example.test")),
            direct: capture.saw_syn()?,
        })
    }

    /// Waits until mailguard has nothing more to deliver.
    fn settle(&self) -> Result<()> {
        let Some(appliance) = self.appliance else { return Ok(()) };
        wait_until("mailguard's queue is empty", || {
            appliance.json(&["queue", "list"]).is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty))
        })
    }

    fn received(&self, subject: &str) -> Option<Received> {
        let line = format!("Subject: {subject}\n");
        self.sinks.iter().flat_map(SmtpSink::received).find(|message| message.content.contains(&line))
    }
}

fn peer(scenario: &Scenario, address: &str) -> Peer {
    let address: Option<IpAddr> = address.parse().ok();
    if address == Some(scenario.client) {
        Peer::Client
    } else if address == Some(IpAddr::V4(FIREWALL4_WAN)) || address == Some(IpAddr::V6(FIREWALL6_WAN)) {
        Peer::Firewall
    } else {
        Peer::Other
    }
}

/// The test file that every scanner knows, in two pieces so that no scanner finds it in this source.
const EICAR: &str = concat!("X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*");
