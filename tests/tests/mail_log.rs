//! The mail log and the audit of a real run: every `grep` of docs/operations.md finds something in it,
//! fail2ban finds those whom it is to ban and nobody else, and the audit says who did what.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{CLIENT4, FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::dovecot::{self, Dovecot};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};
use mailguard_tests::peers::swaks::{self, Message, Outcome};
use mailguard_tests::peers::wait_until;
use nix::sys::signal::Signal;

const INSIDE: &str = "bob@inside.example.test";
const NOBODY: &str = "nobody@inside.example.test";
const FAR: &str = "bob@far.example.test";

/// A user name that would be a line with another client's address in it.
const FORGED: &str = "x\" client=198.51.100.77 \n2026-11-28T08:00:00.000001Z  INFO mail: id=1 event=login result=refused \
                      reason=wrong client=198.51.100.77 zone=red kind=red user=y";

/// The repository's file of this name.
fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn config(format: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"red\"\nkind = \"red\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"active\"\n[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n\
         [access]\nblacklist_recipients = [\"{NOBODY}\"]\nblacklist_clients = []\n[log]\nformat = \"{format}\"\nlevel = \"warn\"\n\
         [imap_auth]\nenabled = true\nserver = \"127.0.0.1\"\nport = {}\ntls = \"off\"\n",
        dovecot::IMAP_PORT
    )
}

fn send(topology: &Topology, recipients: &str, login: Option<(&str, &str)>) -> Outcome {
    let server = FIREWALL4.to_string();
    let message = Message {
        server: &server,
        sender: "alice@client.example.test",
        recipients,
        subject: "seen",
        body: "Good morning.",
        tls: login.is_some(),
        login,
        ..Message::default()
    };
    swaks::send(&|program| topology.client.command(program), &message).expect("swaks runs")
}

/// The value of a key in a line.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!(" {key}=")).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split(' ').next().unwrap_or_default()
}

/// The one line of the log with all of these, once it is there.
fn line(appliance: &Appliance<'_>, parts: &[&str]) -> String {
    lines(appliance, 1, parts)
}

/// As many lines as that, and the first of them.
fn lines(appliance: &Appliance<'_>, number: usize, parts: &[&str]) -> String {
    let is_it = |line: &&str| parts.iter().all(|part| line.contains(part));
    let found = || appliance.log().lines().filter(is_it).map(str::to_owned).collect::<Vec<_>>();
    let there = wait_until("the log has it", || found().len() >= number);
    there.unwrap_or_else(|error| panic!("{error}: {parts:?} in\n{}", appliance.log()));
    let found = found();
    assert_eq!(found.len(), number, "{parts:?} in\n{}", appliance.log());
    found[0].clone()
}

/// The commands of docs/operations.md.
fn examples() -> Vec<String> {
    let text = fs::read_to_string(file("docs/operations.md")).expect("docs/operations.md");
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

#[test]
fn the_log_tells_what_the_manual_says() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &config("text")).expect("a folder");
    let _dovecot = Dovecot::start(&firewall, appliance.folder()).expect("Dovecot runs");
    let sink = SmtpSink::of_server(&topology, appliance.folder()).expect("smtp-sink runs");
    appliance.run().expect("mailguard runs");

    assert!(send(&topology, INSIDE, None).accepted, "{}", appliance.log());
    sink.wait_for("seen").expect("it arrives");
    assert!(!send(&topology, NOBODY, None).accepted);
    assert!(!send(&topology, FAR, None).accepted);
    assert!(!send(&topology, INSIDE, Some((dovecot::USER, "wrong"))).accepted);
    assert!(!send(&topology, INSIDE, Some((FORGED, "wrong"))).accepted);

    let taken = line(&appliance, &["event=message result=taken", "to=<bob@inside.example.test>"]);
    let (id, session) = (value(&taken, "id"), value(&taken, "session"));
    let hop = format!("next_hop={}", port25(SERVER4));
    line(
        &appliance,
        &[&format!(" id={id} event=attempt result=delivered"), &hop, "to=<bob@inside.example.test>"],
    );
    line(&appliance, &[&format!(" id={session} event=session end=quit"), "taken=1 refused=0"]);
    let refused = line(
        &appliance,
        &["event=message result=refused", "recipients=0 refused_recipients=1", "check=recipient"],
    );
    assert_eq!(value(&refused, "client"), CLIENT4.to_string());
    line(&appliance, &["event=message result=refused", "check=relay-control"]);
    // One each by PLAIN and by LOGIN.
    lines(&appliance, 2, &["event=login result=refused reason=wrong", " user=alice"]);
    let forged = lines(
        &appliance,
        2,
        &["event=login result=refused reason=wrong", "user=\"x\\\" client\\u003d198.51.100.77"],
    );
    assert_eq!(value(&forged, "client"), CLIENT4.to_string());
    assert!(!appliance.log().contains("client=198.51.100.77"), "{}", appliance.log());
    // Each of the five sessions is over before the log is looked at as a whole.
    wait_until("the sessions are over", || appliance.log().matches("event=session").count() == 5)
        .expect("five");

    what_administrators_do_is_in_the_audit(&appliance, id);
    fail2ban_finds_whom_it_is_to_ban(&appliance);
    let log = appliance.folder().join("text.log");
    fs::write(&log, appliance.log()).expect("written");

    appliance.stop().expect("stopped");
    appliance.write_config(&config("json")).expect("written");
    appliance.run().expect("mailguard runs");
    assert!(!send(&topology, FAR, None).accepted);
    let json = appliance.folder().join("json.log");
    let there = wait_until("the line is there", || {
        let text = appliance.log();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
        fs::write(&json, lines.join("\n")).expect("written");
        lines.iter().any(|line| line.contains("\"event\":\"message\""))
    });
    there.unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));

    let examples = examples();
    assert!(examples.len() > 12, "{examples:?}");
    for example in examples {
        let mut shell = Command::new("sh");
        shell.args(["-c", &example]).env("LOG", &log).env("JSON", &json).env("ID", id);
        shell.env("SESSION", session).env("SERVER", port25(SERVER4));
        let output = shell.output().expect("sh runs");
        assert!(output.status.success() && !output.stdout.is_empty(), "nothing found by {example}");
    }
}

/// Messages of one load.
const MESSAGES: u64 = 250;
/// Loads until the log has more to say than may wait, at most.
const MAX_LOADS: u64 = 40;

#[test]
fn a_log_that_nobody_reads_stops_neither_mail_nor_signs_of_life() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let talkative = config("text").replace("level = \"warn\"", "level = \"trace\"");
    let mut appliance = Appliance::prepare(&firewall, &talkative).expect("a folder");
    let (reader, log) = std::io::pipe().expect("a pipe");
    appliance.log_to(log);
    let sink = SmtpSink::start(
        &|program| topology.server.command(program),
        appliance.folder(),
        &port25(SERVER4),
        false,
    )
    .expect("smtp-sink runs");
    appliance.run().expect("mailguard runs");
    let mail = appliance.mail_process().expect("it runs");

    let load = Load {
        server: &port25(FIREWALL4),
        helo: "client.example.test",
        kept: true,
        sessions: 10,
        messages: MESSAGES,
        octets: 100,
        recipients: 1,
        sender: "alice@client.example.test",
        recipient: INSIDE,
    };
    let mut loads = 0;
    let lost = |status: &serde_json::Value| status["problems"].to_string().contains("lines were left out");
    loop {
        smtp_source::run(&|program| topology.client.command(program), &load).expect("each is taken");
        loads += 1;
        wait_until("they arrive", || sink.count() >= loads * MESSAGES).expect("they do");
        let status = appliance.json(&["status"]).expect("it answers");
        let known = &status["processes"]["mail"];
        assert!(known["silent_milliseconds"].as_u64().is_some_and(|silent| silent < 3_000), "{status}");
        assert_eq!((&known["restarts"], &known["pid"]), (&0.into(), &mail.as_raw().into()), "{status}");
        if lost(&status) {
            break;
        }
        assert!(loads < MAX_LOADS, "nothing was ever lost: {status}");
    }

    // What waited comes first, then how much there isn't.
    let gap =
        BufReader::new(&reader).lines().map_while(Result::ok).find(|line| line.contains("the log has gaps"));
    let gap = gap.expect("the log goes on");
    let lines: u64 = value(&gap, "lines").parse().expect("a number");
    assert!(gap.contains("ERROR") && lines > 0, "{gap}");
    // Nobody reads on: it must be able to end.
    appliance.stop().expect("it ends");
}

/// One line for each order, with who gave it.
fn what_administrators_do_is_in_the_audit(appliance: &Appliance<'_>, id: &str) {
    let who = "uid=0 user=root pid=";
    appliance.ok(&["blacklist", "add", "client", "203.0.113.9"]).expect("added");
    line(
        appliance,
        &[
            "audit: verb=list-add outcome=done",
            who,
            " revision=2 ",
            "what=\"access.blacklist_clients: 203.0.113.9\"",
        ],
    );
    appliance.ok(&["ban", "add", "203.0.113.10", "--reason", "x uid=1 \n"]).expect("banned");
    line(appliance, &["audit: verb=ban outcome=done", who, "203.0.113.10 because x uid\\u003d1 \\n"]);
    appliance.ok(&["ban", "lift", "203.0.113.10"]).expect("lifted");
    line(appliance, &["audit: verb=ban-lift outcome=done", who, "what=203.0.113.10"]);
    assert!(!appliance.cli(&["ban", "lift", "203.0.113.11"]).expect("asked").status.success());
    line(appliance, &["audit: verb=ban-lift outcome=refused", who, "what=203.0.113.11 error="]);
    appliance.cli(&["queue", "retry", id]).expect("asked");
    line(appliance, &["audit: verb=queue-retry outcome=done", who, "messages=0", &format!("what={id}")]);
    appliance.cli(&["quarantine", "release", id]).expect("asked");
    line(
        appliance,
        &["audit: verb=quarantine-release outcome=done", who, "messages=0", &format!("what={id}")],
    );
    appliance.ok(&["reload"]).expect("reloaded");
    line(appliance, &["audit: verb=reload outcome=done", who, "revision=3"]);
    appliance.process().expect("it runs").signal(Signal::SIGHUP).expect("sent");
    line(appliance, &["audit: verb=reload outcome=done by=SIGHUP revision=4"]);
    // Looking changes nothing.
    appliance.ok(&["queue", "list"]).expect("listed");
    assert_eq!(appliance.log().matches(" audit: ").count(), 8, "{}", appliance.log());
}

/// By the filter that is shipped, and the real program.
fn fail2ban_finds_whom_it_is_to_ban(appliance: &Appliance<'_>) {
    let log = appliance.folder().join("fail2ban.log");
    let another =
        "2026-11-28T08:00:00.000001Z  INFO mail: id=1 event=login result=refused reason=for-another";
    let another = format!("{another} client={CLIENT4} zone=green kind=green user=alice\n");
    fs::write(&log, appliance.log() + &another).expect("written");
    let mut regex = Command::new("fail2ban-regex");
    regex.args(["-o", "<ip>"]).arg(&log).arg(file("docs/fail2ban/filter.conf"));
    let output = regex.output().expect("fail2ban-regex runs: cargo xtask setup");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    // Two refused messages, four logins, and one for somebody else.
    let client = CLIENT4.to_string();
    assert_eq!(found.lines().collect::<Vec<_>>(), [client.as_str(); 7], "{}", appliance.log());
}
