//! An outage as mail meets it: many domains of strangers whose servers swallow every packet, or whose names
//! nobody answers for, beside a server inside and strangers that are up.
//!
//! The packets go a real way and nobody says that they were dropped: what is unreachable is refused at once,
//! and holds up nobody.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::appliance::Appliance;
use crate::netns::{FIREWALL4, LAN, SERVER4, Topology, port25};
use crate::peers::smtp_sink::SmtpSink;
use crate::peers::unbound::Unbound;
use crate::peers::{wait_at_most, wait_until};

/// Domains that don't answer.
pub const DEAD: usize = 1_000;

/// New domains that are up.
pub const NEW: usize = 20;

/// Longest wait for a message that goes out, and for a reply: an outage may be waited for here, it isn't
/// there.
const PATIENCE: Duration = Duration::from_secs(600);

/// Every packet to these is dropped behind the firewall.
const VOID: &str = "203.0.113.0/24";

/// What doesn't answer for the dead domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silent {
    /// Their servers, which the DNS knows.
    Servers,
    /// The name server, when it is asked for them.
    NameServer,
}

/// The configuration: mail for `inside.example.test` goes to the server, all else where the DNS says.
pub fn config() -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"active\"\n\
         [[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n\
         [dns]\nservers = [\"127.0.0.1\"]\n[delivery]\nretry_min = \"1h\"\n"
    )
}

/// The others of an outage, around the firewall of a topology.
pub struct Outage {
    silent: Silent,
    /// The server inside, and that of the new domains.
    pub sink: SmtpSink,
    _names: Unbound,
}

impl Outage {
    /// Makes them; their files are in `folder`.
    pub fn begin(topology: &Topology, folder: &Path, silent: Silent) -> Result<Self> {
        topology.firewall.ip(&format!("route replace {VOID} via {SERVER4}"))?;
        topology.server.ip(&format!("route replace blackhole {VOID}"))?;
        if silent == Silent::NameServer {
            swallow_questions(topology)?;
        }
        let mut records = vec![format!("mx.up.example.net. A {SERVER4}")];
        records.extend((0..NEW).map(|number| format!("up{number}.example.net. MX 10 mx.up.example.net.")));
        for number in 0..DEAD {
            let domain = dead(silent, number);
            records.push(format!("{domain}. MX 10 mx.{domain}."));
            records.push(format!("mx.{domain}. A 203.0.113.{}", 1 + number % 250));
        }
        let records: Vec<_> = records.iter().map(String::as_str).collect();
        let names = Unbound::start(&|program| topology.firewall.command(program), folder, &records)?;
        let server = |program: &str| topology.server.command(program);
        let sink = SmtpSink::start(&server, folder, &port25(SERVER4), false)?;
        Ok(Self { silent, sink, _names: names })
    }

    /// Has a client send a message to each of the domains that don't answer.
    pub fn send_to_the_dead(&self, topology: &Topology) -> Result<()> {
        let recipients: Vec<_> =
            (0..DEAD).map(|number| format!("bob@{}", dead(self.silent, number))).collect();
        topology.client.within(|| {
            let mut client = Client::connect()?;
            recipients.iter().try_for_each(|recipient| client.send(recipient))
        })
    }

    /// Has a client send a message to `recipient`, who is up, and how long after its 250 the server had it.
    pub fn time(&self, topology: &Topology, recipient: &str) -> Result<Duration> {
        let before = self.sink.count();
        topology.client.within(|| Client::connect()?.send(recipient))?;
        let taken = Instant::now();
        wait_at_most(PATIENCE, recipient, &mut || self.sink.count() > before)?;
        Ok(taken.elapsed())
    }
}

/// A recipient at the server inside.
pub const INSIDE: &str = "bob@inside.example.test";

/// A recipient at a domain that is up, and new for each number below [`NEW`].
pub fn up(number: usize) -> String {
    format!("bob@up{number}.example.net")
}

/// Waits until so many messages wait, and gives how many of them have had an attempt that ended. A server has
/// a message before it is crossed off here.
pub fn wait_for(appliance: &Appliance<'_>, messages: usize) -> Result<usize> {
    let mut found = (0, 0);
    wait_until(&format!("{messages} messages wait"), || {
        found = waiting(appliance).unwrap_or_default();
        found.0 == messages
    })
    .with_context(|| format!("{} do", found.0))?;
    Ok(found.1)
}

/// How many messages wait, and how many of them have had an attempt that ended.
fn waiting(appliance: &Appliance<'_>) -> Result<(usize, usize)> {
    let limit = (2 * DEAD).to_string();
    let rows = appliance.json(&["queue", "list", "--limit", &limit])?;
    let rows = rows.as_array().context("rows")?;
    let ended = |row: &&Value| row["attempts"].as_u64().is_some_and(|attempts| attempts > 0);
    Ok((rows.len(), rows.iter().filter(ended).count()))
}

fn dead(silent: Silent, number: usize) -> String {
    match silent {
        Silent::Servers => format!("dead{number}.example.net"),
        // The first label is what questions are told apart by.
        Silent::NameServer => format!("silent{number}.example.net"),
    }
}

/// Drops the questions whose name begins with `silent`, and those over TCP; where they arrive, for who sends
/// is told otherwise.
fn swallow_questions(topology: &Topology) -> Result<()> {
    // Behind the headers of UDP and DNS, and the length of the first label.
    let rules = "table inet outage {\nchain questions {\ntype filter hook input priority 0\n\
                 udp dport 53 @th,168,48 0x73696c656e74 drop\ntcp dport 53 drop\n}\n}";
    let output = topology.firewall.command("nft").arg(rules).output().context("can't start nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A client with one session for all that it sends.
struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Client {
    fn connect() -> Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(FIREWALL4.into(), 25), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let replies = BufReader::new(stream.try_clone()?);
        let mut client = Self { stream, replies };
        client.expect("220")?;
        client.say("EHLO client.example.test\r\n", &["250"])?;
        Ok(client)
    }

    fn send(&mut self, recipient: &str) -> Result<()> {
        let envelope = format!("MAIL FROM:<alice@client.example.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
        self.say(&envelope, &["250", "250", "354"]).with_context(|| recipient.to_owned())?;
        self.say("Subject: outage\r\n\r\nGood morning.\r\n.\r\n", &["250"])
    }

    fn say(&mut self, text: &str, codes: &[&str]) -> Result<()> {
        self.stream.write_all(text.as_bytes())?;
        codes.iter().try_for_each(|code| self.expect(code))
    }

    fn expect(&mut self, code: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.replies.read_line(&mut line).context("no reply")? > 0, "the connection ended");
            ensure!(line.starts_with(code), "{code} expected: {line}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(());
            }
        }
    }
}
