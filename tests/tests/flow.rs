//! A message's whole way, from packets on an interface to a far server, with the commands that show it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{
    CLIENT4, CLIENT4_SECOND, FIREWALL4, FIREWALL4_WAN, LAN, SERVER4, SERVER6, Topology, port25,
};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::swaks::{self, Message, Outcome};
use mailguard_tests::peers::wait_until;
use serde_json::Value;

/// The test file that every scanner knows, in two pieces so that no scanner finds it in this source.
const EICAR: &str = concat!("X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*");

/// The client's side is intercepted; mail goes to its original destination.
fn transparent(more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\" # comments stay\n{more}\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"transparent\"\n[delivery]\ndefault = \"original\"\nretry_min = \"1s\"\n"
    )
}

/// The client's side is the uplink; mail for one domain goes to the server.
fn uplink(more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"red\"\nkind = \"red\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"active\"\n[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n{more}\n"
    )
}

fn message<'a>(server: &'a str, recipients: &'a str, subject: &'a str) -> Message<'a> {
    Message {
        server,
        sender: "alice@client.example.test",
        recipients,
        subject,
        body: "Good morning.",
        ..Message::default()
    }
}

fn send(topology: &Topology, message: &Message<'_>) -> Outcome {
    swaks::send(&|program| topology.client.command(program), message).expect("swaks runs")
}

fn sink(topology: &Topology, folder: &Path, listen: &str) -> SmtpSink {
    SmtpSink::start(&|program| topology.server.command(program), folder, listen, true)
        .expect("smtp-sink runs")
}

fn rows(appliance: &Appliance<'_>, what: &str) -> Vec<Value> {
    let list = appliance.json(&[what, "list"]).expect("a list");
    list.as_array().expect("an array").clone()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {key} in {row}"))
}

#[test]
fn a_clean_message_arrives_unchanged_over_both_families() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    for (server, subject) in [(SERVER4.to_string(), "clean four"), (SERVER6.to_string(), "clean six")] {
        let listen = if server.contains(':') { port25(SERVER6) } else { port25(SERVER4) };
        let sink = sink(&topology, appliance.folder(), &listen);
        let outcome = send(&topology, &message(&server, "bob@server.example.test", subject));
        assert!(outcome.accepted, "{}", outcome.transcript);
        let received = sink.wait_for(subject).expect("it arrives");
        let (ours, rest) = received.content.split_once("\nDate:").expect("a header of the client's");
        assert!(ours.starts_with("Received: from client.example.test"), "{ours}");
        assert!(ours.contains("by mailguard.example.test"), "{ours}");
        let sent: String = outcome
            .transcript
            .lines()
            .skip_while(|line| !line.contains("Date: "))
            .take_while(|line| *line != " -> .")
            .map(|line| format!("{}\n", line.trim_start_matches(" -> ")))
            .collect();
        assert_eq!(format!("Date:{rest}").trim_end(), sent.trim_end(), "octet for octet, our field apart");
    }
    let trace = appliance.ok(&["trace", "to:bob@server.example.test"]).expect("traces");
    assert!(trace.contains("alice@client.example.test"), "{trace}");
}

#[test]
fn a_virus_is_quarantined_shown_and_released() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    let sink = sink(&topology, appliance.folder(), &port25(SERVER4));
    let server = SERVER4.to_string();
    let infected = Message { body: EICAR, ..message(&server, "bob@server.example.test", "infected") };
    assert!(send(&topology, &infected).accepted);
    let quarantined = rows(&appliance, "quarantine");
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    let id = text(&quarantined[0], "id").to_owned();
    assert!(appliance.ok(&["quarantine", "show", &id]).expect("shown").contains("EICAR"));
    assert!(sink.with_subject("infected").is_none());
    assert!(rows(&appliance, "queue").is_empty());
    assert!(!appliance.cli(&["quarantine", "release", &id]).expect("runs").status.success(), "a virus");
    appliance.ok(&["quarantine", "release", "--with-virus", &id]).expect("released");
    sink.wait_for("infected").expect("it arrives");
    assert!(rows(&appliance, "quarantine").is_empty());

    assert!(send(&topology, &Message { subject: "again", ..infected }).accepted);
    let id = text(&rows(&appliance, "quarantine")[0], "id").to_owned();
    appliance.ok(&["quarantine", "delete", &id]).expect("deleted");
    assert!(rows(&appliance, "quarantine").is_empty());
    assert!(!appliance.cli(&["quarantine", "release", &id]).expect("runs").status.success());
}

/// Sends a message in these chunks, in one write after EHLO, and returns the last reply before the
/// farewell's.
fn send_in_chunks(topology: &Topology, chunks: &[&str]) -> String {
    let mut stream = topology
        .client
        .within(|| Ok(BufReader::new(TcpStream::connect((SERVER4, 25))?)))
        .expect("the proxy is reached");
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    // Who speaks before the banner is sent away.
    let mut line = String::new();
    stream.read_line(&mut line).expect("a banner");
    assert!(line.starts_with("220 "), "{line}");
    stream.get_mut().write_all(b"EHLO client.example.test\r\n").expect("written");
    while !line.starts_with("250 ") {
        line.clear();
        assert!(stream.read_line(&mut line).expect("a reply") > 0, "the connection is open");
    }
    assert_eq!(
        line, "250 SMTPUTF8\r\n",
        "without a configured certificate there is no STARTTLS under another server's address"
    );
    let mut group =
        "MAIL FROM:<alice@client.example.test>\r\nRCPT TO:<bob@server.example.test>\r\n".to_owned();
    for chunk in chunks {
        group.push_str(&format!("BDAT {}\r\n{chunk}", chunk.len()));
    }
    group.push_str("BDAT 0 LAST\r\nQUIT\r\n");
    stream.get_mut().write_all(group.as_bytes()).expect("written");
    let mut replies = String::new();
    stream.read_to_string(&mut replies).expect("closed after the farewell");
    replies.lines().rev().nth(1).expect("a reply before it").to_owned()
}

#[test]
fn chunks_are_delivered_and_hide_nothing() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    let sink = sink(&topology, appliance.folder(), &port25(SERVER4));
    let reply = send_in_chunks(&topology, &["Subject: in chu", "nks\r\n\r\n.dot\r\n.\r\nQUIT\r\nla", "st"]);
    assert!(reply.starts_with("250 2.0.0 Ok: queued as"), "{reply}");
    let received = sink.wait_for("in chunks").expect("it arrives");
    assert!(received.content.ends_with("\n\n.dot\n.\nQUIT\nlast\n"), "{}", received.content);
    let (one, other) = EICAR.split_at(30);
    let reply = send_in_chunks(&topology, &["Subject: infected\r\n\r\n", one, other, "\r\n"]);
    assert!(reply.starts_with("250 2.0.0 Ok: queued as"), "{reply}");
    let quarantined = rows(&appliance, "quarantine");
    assert_eq!(quarantined.len(), 1, "{quarantined:?}");
    assert!(sink.with_subject("infected").is_none());
}

#[test]
fn the_uplink_is_no_open_relay_and_lists_are_obeyed() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let lists = "[access]\nblacklist_senders = [\"foe.example.test\"]\nblacklist_recipients = \
                 [\"closed@inside.example.test\"]\nwhitelist_senders = [\"friend@foe.example.test\"]";
    let appliance = Appliance::start(&firewall, &uplink(lists)).expect("mailguard runs");
    let sink = sink(&topology, appliance.folder(), &port25(SERVER4));
    let gateway = FIREWALL4.to_string();
    let from = |sender: &str, recipient: &str, subject: &str| {
        send(&topology, &Message { sender, ..message(&gateway, recipient, subject) })
    };
    for (sender, recipient, reply) in [
        ("a@client.example.test", "bob@elsewhere.example.test", "554 5.7.1 Relay access denied"),
        ("friend@foe.example.test", "bob@elsewhere.example.test", "554 5.7.1 Relay access denied"),
        ("a@foe.example.test", "bob@inside.example.test", "554 5.7.1 Sender is on the sender blacklist"),
        (
            "a@client.example.test",
            "closed@inside.example.test",
            "554 5.7.1 Recipient is on the recipient blacklist",
        ),
    ] {
        let outcome = from(sender, recipient, "refused");
        assert!(outcome.last_reply().starts_with(reply), "{sender} {recipient}: {}", outcome.transcript);
    }
    let outcome = from("friend@foe.example.test", "bob@inside.example.test", "whitelisted");
    assert!(outcome.accepted, "{}", outcome.transcript);
    sink.wait_for("whitelisted").expect("it arrives");
    assert!(sink.with_subject("refused").is_none());
    let refused = appliance.ok(&["trace", "result:refused"]).expect("traces");
    assert!(refused.contains("elsewhere.example.test"), "{refused}");
}

/// The entry `value` has been hit, and not long ago; another entry of its list hasn't.
#[track_caller]
fn check_hits(appliance: &Appliance<'_>, list: &str, value: &str) {
    let (kind, idle) = if list == "bypass" { ("from-ip", "192.0.2.98") } else { ("client", "192.0.2.96/31") };
    appliance.ok(&[list, "add", kind, idle]).expect("added");
    let entries = appliance.json(&[list, "list", kind]).expect("the list");
    let entry = |value: &str| {
        let rows = entries.as_array().expect("rows").iter();
        rows.clone().find(|row| row["value"] == value).unwrap_or_else(|| panic!("{value} in {entries}"))
    };
    let hit = entry(value);
    assert!(hit["packets"].as_u64() > Some(0), "{hit}");
    assert!(hit["last_hit_seconds_ago"].as_u64() < Some(600), "{hit}");
    assert!(!hit["last_hit_seconds_ago"].is_null(), "{hit}");
    let idle = entry(idle);
    assert_eq!((idle["packets"].as_u64(), &idle["last_hit_seconds_ago"]), (Some(0), &Value::Null), "{idle}");
}

#[test]
fn bypass_and_blacklist_change_live_and_in_the_file() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    let sink = sink(&topology, appliance.folder(), &port25(SERVER4));
    let (server, client) = (SERVER4.to_string(), CLIENT4.to_string());
    let deliver = |subject: &str| {
        let outcome = send(&topology, &message(&server, "bob@server.example.test", subject));
        assert!(outcome.accepted, "{subject}: {}", outcome.transcript);
        sink.wait_for(subject).expect("it arrives").client
    };
    let by_firewall = FIREWALL4_WAN.to_string();
    assert_eq!(deliver("filtered"), by_firewall);
    appliance.ok(&["bypass", "add", "from-ip", &client]).expect("added");
    assert_eq!(deliver("bypassed"), client, "its own address is seen: the connection was direct");
    assert!(appliance.ok(&["bypass", "list"]).expect("listed").contains(&client));
    check_hits(&appliance, "bypass", &client);
    let file = fs::read_to_string(appliance.config()).expect("the file");
    assert!(file.contains("# comments stay") && file.contains(&client), "{file}");
    assert!(
        !appliance.cli(&["bypass", "add", "from-ip", &client]).expect("runs").status.success(),
        "is there"
    );
    appliance.ok(&["bypass", "remove", "from-ip", &client]).expect("removed");
    assert_eq!(deliver("filtered again"), by_firewall);

    let second = CLIENT4_SECOND.to_string();
    let blocked =
        Message { from_address: Some(&second), ..message(&server, "bob@server.example.test", "blocked") };
    appliance.ok(&["blacklist", "add", "client", &second]).expect("added");
    assert!(!send(&topology, &blocked).connected, "dropped in the kernel");
    check_hits(&appliance, "blacklist", &second);
    appliance.ok(&["blacklist", "remove", "client", &second]).expect("removed");
    assert!(send(&topology, &blocked).accepted);

    appliance.ok(&["blacklist", "add", "sender", "alice@client.example.test"]).expect("added");
    let outcome = send(&topology, &message(&server, "bob@server.example.test", "listed"));
    assert!(outcome.last_reply().contains("sender blacklist"), "{}", outcome.transcript);
}

#[test]
fn an_edit_of_a_file_that_somebody_changed_is_refused() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    let loaded = fs::read_to_string(appliance.config()).expect("the file");
    fs::write(appliance.config(), format!("{loaded}# edited meanwhile\n")).expect("written");
    let refused = appliance.cli(&["bypass", "add", "from-ip", "192.0.2.99"]).expect("runs");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("reload"), "{refused:?}");
    appliance.ok(&["reload"]).expect("reloaded");
    appliance.ok(&["bypass", "add", "from-ip", "192.0.2.99"]).expect("added");

    let good = fs::read_to_string(appliance.config()).expect("the file");
    fs::write(appliance.config(), good.replace("mode = \"transparent\"", "mode = \"opaque\""))
        .expect("written");
    let refused = appliance.cli(&["reload"]).expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("mode") && said.contains("transparent"), "{said}");
    assert!(appliance.ok(&["bypass", "list"]).expect("still served").contains("192.0.2.99"));
}

#[test]
fn mail_waits_for_a_server_that_is_down() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance =
        Appliance::start(&firewall, &uplink("[delivery]\nretry_min = \"1h\"")).expect("mailguard runs");
    let gateway = FIREWALL4.to_string();
    for subject in ["first", "second"] {
        assert!(send(&topology, &message(&gateway, "bob@inside.example.test", subject)).accepted);
    }
    wait_until("both were tried", || {
        rows(&appliance, "queue").len() == 2
            && appliance.ok(&["queue", "list"]).is_ok_and(|t| t.contains("refused"))
    })
    .expect("both wait");
    // They survive a restart, and go out when an administrator says so.
    appliance.stop().expect("stopped");
    appliance.run().expect("runs again");
    let waiting = rows(&appliance, "queue");
    assert_eq!(waiting.len(), 2);
    let sink = sink(&topology, appliance.folder(), &port25(SERVER4));
    let first = text(&waiting[0], "id").to_owned();
    appliance.ok(&["queue", "show", &first]).expect("shown");
    appliance.ok(&["queue", "remove", &first]).expect("removed");
    let second = text(&rows(&appliance, "queue")[0], "id").to_owned();
    appliance.ok(&["queue", "retry", &second]).expect("retried");
    sink.wait_for("second").expect("it arrives");
    assert!(sink.with_subject("first").is_none());
}

#[test]
fn a_permanent_failure_is_reported_to_a_sender_inside() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let config = format!(
        "{}[[incoming_domain]]\ndomain = \"client.example.test\"\nserver = \"{SERVER4}:2600\"\n",
        transparent("")
    );
    let appliance = Appliance::start(&firewall, &config).expect("mailguard runs");
    let mut refusing = topology.server.command("smtp-sink");
    refusing.args(["-u", "root", "-f", "RCPT", &port25(SERVER4), "100"]);
    let _refusing = mailguard_tests::peers::Process(refusing.spawn().expect("smtp-sink runs"));
    let reports = sink(&topology, appliance.folder(), &format!("{SERVER4}:2600"));
    let server = SERVER4.to_string();
    wait_until("smtp-sink answers", || {
        swaks::answers(&|program| topology.server.command(program), &server, "25")
    })
    .expect("it runs");
    assert!(send(&topology, &message(&server, "nobody@server.example.test", "unknown")).accepted);
    wait_until("the report arrives", || reports.count() == 1).unwrap_or_else(|error| {
        panic!("{error}: {}", appliance.ok(&["trace", "--full"]).expect("traces"));
    });
    let report = reports.received().remove(0);
    assert!(report.mail.starts_with("<>"), "a null reverse-path: {}", report.mail);
    assert_eq!(report.recipients.len(), 1);
    assert!(report.recipients[0].starts_with("<alice@client.example.test>"));
    for part in ["multipart/report", "Action: failed", "nobody@server.example.test", "Subject: unknown"] {
        assert!(report.content.contains(part), "{part} in {}", report.content);
    }
}

#[test]
fn limits_are_answered_and_nothing_is_kept() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let limits = "[server]\nmax_message_size = \"64KB\"\nmax_recipients = 100";
    let appliance = Appliance::start(&firewall, &uplink(limits)).expect("mailguard runs");
    let gateway = FIREWALL4.to_string();
    let large = "0123456789\n".repeat(7000);
    let outcome =
        send(&topology, &Message { body: &large, ..message(&gateway, "bob@inside.example.test", "large") });
    assert!(outcome.last_reply().starts_with("552 5.3.4"), "{}", outcome.last_reply());
    assert!(outcome.transcript.contains("SIZE 65536"));
    assert!(rows(&appliance, "queue").is_empty());
}

#[test]
fn a_full_disk_stops_acceptance_for_now() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let full = uplink("").replace("hostname", "min_free_disk = \"16000GB\"\nhostname");
    let _appliance = Appliance::start(&firewall, &full).expect("mailguard runs");
    let gateway = FIREWALL4.to_string();
    let outcome = send(&topology, &message(&gateway, "bob@inside.example.test", "no room"));
    assert!(outcome.last_reply().starts_with("452 4.3.1"), "{}", outcome.transcript);
}

fn mail_process(appliance: &Appliance<'_>) -> String {
    let parent = appliance.process().expect("it runs").pid().to_string();
    let child = Command::new("pgrep").args(["-P", &parent]).output().expect("pgrep runs");
    String::from_utf8_lossy(&child.stdout).trim().to_owned()
}

#[test]
fn the_mail_process_has_no_privilege_and_holds_nothing_of_the_kernel() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    let process = Path::new("/proc").join(mail_process(&appliance));
    let status = fs::read_to_string(process.join("status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
    };
    assert!(!field("Uid:").split_whitespace().any(|uid| uid == "0"), "{status}");
    assert!(!field("Gid:").split_whitespace().any(|gid| gid == "0"), "{status}");
    for capabilities in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(capabilities).trim_start_matches('0'), "", "{capabilities}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    for descriptor in fs::read_dir(process.join("fd")).expect("its descriptors").flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        assert!(!target.to_string_lossy().contains("bpf"), "it holds {}", target.display());
    }
}

#[test]
fn pins_that_others_could_have_made_are_refused_and_a_running_daemon_keeps_its_own() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    let unload = appliance.cli(&["unload"]).expect("runs");
    assert!(!unload.status.success(), "a daemon runs");
    assert!(String::from_utf8_lossy(&unload.stderr).contains("another mailguard is running"), "{unload:?}");
    let second = appliance.cli(&["run"]).expect("runs");
    assert!(!second.status.success(), "one daemon at a time");
    appliance.stop().expect("stopped");
    let mode =
        |mode| fs::set_permissions(appliance.pin_dir(), std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o777).expect("opened to all");
    let refused = appliance.cli(&["run"]).expect("runs");
    mode(0o700).expect("closed");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("others than root"), "{refused:?}");
}

#[test]
fn the_mail_process_dies_and_the_next_one_serves_the_same_listeners() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &transparent("")).expect("mailguard runs");
    let sink = sink(&topology, appliance.folder(), &port25(SERVER4));
    let pid = mail_process(&appliance);
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
    let server = SERVER4.to_string();
    let outcome = send(&topology, &message(&server, "bob@server.example.test", "after the kill"));
    assert!(outcome.accepted, "{}", outcome.transcript);
    sink.wait_for("after the kill").expect("it arrives");
}

#[test]
fn after_a_stop_port_25_follows_on_proxy_down_and_unload_leaves_nothing() {
    for (mode, passes) in [("block", false), ("bypass", true)] {
        let topology = Topology::new().expect("namespaces");
        let firewall = |program: &str| topology.firewall.command(program);
        let config = transparent("") + &format!("[kernel]\non_proxy_down = \"{mode}\"\n");
        let mut appliance = Appliance::start(&firewall, &config).expect("mailguard runs");
        let sink = sink(&topology, appliance.folder(), &port25(SERVER4));
        let server = SERVER4.to_string();
        let mail = |subject: &str| send(&topology, &message(&server, "bob@server.example.test", subject));
        assert!(mail("before").accepted);
        for stop in ["kill -9", "SIGTERM"] {
            match stop {
                "SIGTERM" => appliance.stop().expect("stopped"),
                _ => appliance.kill().expect("killed"),
            }
            assert_eq!(mail(stop).connected, passes, "{mode} after {stop}");
            appliance.run().expect("runs again");
            assert!(mail("restarted").accepted);
        }
        appliance.stop().expect("stopped");
        appliance.ok(&["unload"]).expect("unloaded");
        assert!(!appliance.pin_dir().exists(), "pins are left");
        for listing in ["rule show", "-6 rule show"] {
            let rules = topology.firewall.ip_output(listing).expect("rules");
            assert!(!rules.contains("fwmark"), "{rules}");
        }
        assert!(mail("unloaded").accepted, "direct");
        assert_eq!(sink.wait_for("unloaded").expect("it arrives").client, CLIENT4.to_string());
    }
}
