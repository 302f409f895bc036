//! The receiving server with real peers: encryption, logins at a real IMAP server, block lists and domains
//! asked of a real name server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, FIREWALL4, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::dovecot::{self, Dovecot};
use mailguard_tests::peers::nul_dropper::{Heard, NulDropper};
use mailguard_tests::peers::postfix::Postfix;
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::swaks::{self, Message, Outcome};
use mailguard_tests::peers::unbound::{self, Unbound};
use mailguard_tests::peers::wait_until;

/// The client's side is the uplink; mail for one domain goes to the server, other mail to the server as a
/// smarthost.
fn uplink(more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n{more}\n[[zone]]\nname = \"red\"\nkind = \"red\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"active\"\n[[incoming_domain]]\ndomain = \"inside.example.test\"\nserver = \"{SERVER4}\"\n\
         [smarthost]\nenabled = true\naddress = \"{SERVER4}\"\n"
    )
}

fn message<'a>(recipients: &'a str, subject: &'a str) -> Message<'a> {
    Message {
        server: "192.0.2.1",
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

fn sink(topology: &Topology, folder: &Path) -> SmtpSink {
    SmtpSink::of_server(topology, folder).expect("smtp-sink runs")
}

const FAR: &str = "bob@far.example.test";
const INSIDE: &str = "bob@inside.example.test";

#[test]
fn users_show_who_they_are_by_their_imap_password() {
    assert_eq!(FIREWALL4.to_string(), message(FAR, "").server);
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &uplink("")).expect("a folder");
    let dovecot = Dovecot::start(&firewall, appliance.folder()).expect("Dovecot runs");
    let sink = sink(&topology, appliance.folder());
    let section = |tls: &str, port: u16| {
        let ca = dovecot.certificate.display();
        uplink(&format!(
            "[imap_auth]\nenabled = true\nserver = \"127.0.0.1\"\nport = {port}\ntls = \"{tls}\"\nca_file = \"{ca}\"\n"
        ))
    };
    let right = Some((dovecot::USER, dovecot::PASSWORD));
    for (index, (tls, port)) in
        [("off", dovecot::IMAP_PORT), ("starttls", dovecot::IMAP_PORT), ("implicit", dovecot::IMAPS_PORT)]
            .into_iter()
            .enumerate()
    {
        appliance.write_config(&section(tls, port)).expect("written");
        if index == 0 {
            appliance.run().expect("mailguard runs");
        } else {
            appliance.ok(&["reload"]).expect("reloaded");
        }
        let subject = format!("login {tls}");
        let login = Message { tls: true, login: right, ..message(FAR, &subject) };
        let outcome = send(&topology, &login);
        assert!(outcome.accepted, "{tls}: {}\n{}", outcome.transcript, appliance.log());
        let content = sink.wait_for(&subject).expect("it arrives").content;
        assert!(content.contains("with ESMTPSA id "), "{content}");
        let wrong = send(&topology, &Message { login: Some((dovecot::USER, "secret")), ..login });
        assert!(
            wrong.transcript.contains("535 5.7.8 Authentication credentials invalid"),
            "{}",
            wrong.transcript
        );
    }
    let stranger = send(&topology, &Message { tls: true, ..message(FAR, "no login") });
    assert!(stranger.last_reply().starts_with("554 5.7.1 Relay access denied"), "{}", stranger.transcript);
    let clear = send(&topology, &Message { login: right, ..message(FAR, "in the clear") });
    assert!(!clear.accepted && !clear.transcript.contains("AUTH PLAIN LOGIN"), "{}", clear.transcript);

    dovecot.stop().expect("stopped");
    let down = send(&topology, &Message { tls: true, login: right, ..message(FAR, "no server") });
    assert!(down.transcript.contains("454 4.7.0 Temporary authentication failure"), "{}", down.transcript);
    let log = appliance.log();
    assert!(log.contains("the IMAP server can't be asked"), "{log}");
    // As it is, and as it goes over the wire.
    assert!(!log.contains(dovecot::PASSWORD) && !log.contains("AGFsaWNlAHNlY3JldCAiMSI"), "{log}");
}

#[test]
fn strangers_are_asked_about_and_ours_are_not() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let dns = format!("[dns]\nservers = [\"127.0.0.1:{}\"]\n", unbound::PORT);
    let checks = format!(
        "{dns}[rbl]\nenabled = true\nip_lists = [\"rbl.example.test\"]\ndomain_lists = [\"names.example.test\"]\n\
         [spam_prevention]\nreject_unknown_sender_domain = true\n[access]\nblacklist_clients = [\"dialup.example.test\"]\n"
    );
    let appliance = Appliance::prepare(&firewall, &uplink(&checks)).expect("a folder");
    let reversed = |address: std::net::Ipv4Addr| {
        let [a, b, c, d] = address.octets();
        format!("{d}.{c}.{b}.{a}")
    };
    let records = [
        "client.example.test. A 192.0.2.2".to_owned(),
        "other.example.test. A 192.0.2.3".to_owned(),
        "null.example.test. MX 0 .".to_owned(),
        format!("{}.rbl.example.test. A 127.0.0.2", reversed(CLIENT4)),
        "bad.example.test.names.example.test. A 127.0.0.2".to_owned(),
        "bad.example.test. A 192.0.2.9".to_owned(),
        format!("{}.in-addr.arpa. PTR host-3.dialup.example.test.", reversed(CLIENT4_SECOND)),
        "host-3.dialup.example.test. A 192.0.2.3".to_owned(),
    ];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let _unbound = Unbound::start(&firewall, appliance.folder(), &records).expect("Unbound runs");
    let mut appliance = appliance;
    appliance.run().expect("mailguard runs");
    let sink = sink(&topology, appliance.folder());

    let second = CLIENT4_SECOND.to_string();
    let from = |address: Option<&str>, sender: &str| {
        let sent = Message { sender, ..message(INSIDE, "asked about") };
        send(&topology, &Message { from_address: None.or(address.map(|_| second.as_str())), ..sent })
            .last_reply()
            .to_owned()
    };
    let listed = from(None, "alice@client.example.test");
    assert!(listed.starts_with("554 5.7.1 Listed by rbl.example.test (ref "), "{listed}");
    let said = |subject: &str| {
        let output = appliance.cli(&["rbl", "check", subject]).expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (clean, answers) = said(&CLIENT4.to_string());
    assert!(!clean && answers.contains("rbl.example.test  listed: 127.0.0.2"), "{answers}");
    let (clean, answers) = said("other.example.test");
    assert!(clean && answers.contains("names.example.test  not listed"), "{answers}");
    let lists = appliance.json(&["rbl", "list"]).expect("lists");
    let asked: Vec<_> = lists.as_array().expect("rows").iter().filter(|row| row["asked"] == true).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    appliance.ok(&["rbl", "disable", "ip", "rbl.example.test"]).expect("disabled");
    let passed = from(None, "alice@client.example.test");
    assert!(passed.starts_with("250 2.0.0 Ok"), "{passed}");
    appliance.ok(&["rbl", "enable", "ip", "rbl.example.test"]).expect("enabled");
    let listed = from(None, "alice@client.example.test");
    assert!(listed.starts_with("554 5.7.1 Listed by rbl.example.test"), "{listed}");
    let named = from(Some(&second), "alice@client.example.test");
    assert!(named.starts_with("554 5.7.1 Client is on the client blacklist"), "{named}");
    let trace = appliance.ok(&["trace", "from:alice@client.example.test"]).expect("traces");
    assert!(trace.contains("Listed by rbl.example.test"), "{trace}");

    // Without the list of names the second client is only what its sender says.
    let checks = checks.replace("dialup.example.test", "elsewhere.example.test");
    appliance.write_config(&uplink(&checks)).expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    for (sender, reply) in [
        ("alice@client.example.test", "250 2.0.0 Ok: queued as "),
        ("alice@gone.example.test", "550 5.1.8 Sender domain not found"),
        ("alice@null.example.test", "550 5.7.27 Sender domain takes no mail"),
        ("alice@bad.example.test", "554 5.7.1 Listed by names.example.test"),
    ] {
        let seen = from(Some(&second), sender);
        assert!(seen.starts_with(reply), "{sender}: {seen}");
    }
    sink.wait_for("asked about").expect("it arrives");

    appliance
        .write_config(&uplink(&format!("{dns}[spam.greylist]\nenabled = true\ndelay = \"30s\"\n")))
        .expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    let grey = from(None, "alice@client.example.test");
    assert!(grey.starts_with("451 4.7.1 Greylisted, try again in 30 seconds"), "{grey}");
    appliance.stop().expect("stopped");
    // The time left is said in whole seconds.
    std::thread::sleep(Duration::from_millis(1_100));
    appliance.run().expect("mailguard runs again");
    let again = from(None, "alice@client.example.test");
    let less = again.starts_with("451 4.7.1 Greylisted, try again in 2") && !again.contains(" in 2 ");
    assert!(less, "remembered over a restart: {again}");
}

#[test]
fn the_certificate_is_ours_or_the_given_one_and_a_reload_changes_it() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &uplink("")).expect("a folder");
    appliance.run().expect("mailguard runs");
    let _sink = sink(&topology, appliance.folder());
    let shown = || {
        let outcome = send(&topology, &Message { tls: true, ..message(INSIDE, "encrypted") });
        assert!(outcome.accepted, "{}", outcome.transcript);
        outcome.transcript
    };
    assert!(shown().contains("CN=mailguard.example.test"), "{}", shown());

    let (certificate, key) = (appliance.folder().join("c.pem"), appliance.folder().join("k.pem"));
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        fs::write(&certificate, made.cert.pem()).expect("written");
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    };
    write("first.example.test");
    let section = format!(
        "[server]\ntls_certificate = \"{}\"\ntls_key = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    appliance.write_config(&uplink(&section)).expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    let before = shown();
    assert!(!before.contains("CN=mailguard.example.test"), "{before}");

    // A key that isn't the certificate's is refused, and the one in force stays.
    let other = rcgen::generate_simple_self_signed(["other.example.test".to_owned()]).expect("a certificate");
    fs::write(&key, other.signing_key.serialize_pem()).expect("written");
    let refused = appliance.cli(&["reload"]).expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("can't be used together"), "{said}");
    shown();
}

#[test]
fn the_server_of_a_domain_says_whom_it_knows() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let server = |program: &str| topology.server.command(program);
    let appliance =
        Appliance::start(&firewall, &uplink("[server]\nverify_recipients = true\n")).expect("mailguard runs");
    let answer = |recipient: &str| send(&topology, &message(recipient, "verified")).last_reply().to_owned();
    let nobody_there = answer(INSIDE);
    let unverified = "450 4.1.1 Recipient can't be verified now, try later";
    assert!(nobody_there.starts_with(unverified), "{nobody_there}");

    let host = SERVER4.to_string();
    let sink =
        SmtpSink::start(&server, appliance.folder(), &format!("{host}:2525"), true).expect("smtp-sink runs");
    let users = format!(
        "relay_domains = inside.example.test\nrelay_recipient_maps = inline:{{ {{ {INSIDE} = x }} }}\n\
         relayhost = [{host}]:2525\nlocal_recipient_maps =\nsmtpd_peername_lookup = no\n"
    );
    let _postfix = Postfix::start(&server, appliance.folder(), &host, 25, &users).expect("Postfix runs");
    // The server that wasn't there would be left alone for a while.
    appliance.ok(&["reload"]).expect("reloaded");
    let unknown = answer("nobody@inside.example.test");
    assert!(unknown.starts_with("550 5.1.1 Recipient unknown (ref "), "{unknown}\n{}", appliance.log());
    let known = answer(INSIDE);
    assert!(known.starts_with("250 2.0.0 Ok: queued as "), "{known}\n{}", appliance.log());
    sink.wait_for("verified").expect("it arrives");
    let (_, id) = unknown.trim_end_matches(')').split_once("(ref ").expect("an id");
    let trace = appliance.ok(&["trace", id]).expect("a trace");
    assert!(trace.contains("Recipient address rejected"), "{trace}");
}

/// Line ends with a dot between them that only a NUL hides, one for each place where a NUL can stand.
const HIDDEN_ENDS: [&str; 5] = ["\r\n\0.\r\n", "\r\n.\0\r\n", "\r\n\0\0.\r\n", "\r\0\n.\r\n", "\r\n.\r\0\n"];

/// A message that is two where `end` is read as the end of data.
fn two_in_one(end: &str) -> String {
    format!(
        "Subject: one\r\n\r\nseen{end}MAIL FROM:<mallory@client.example.test>\r\nRCPT TO:<{INSIDE}>\r\nDATA\r\n\
         Subject: two\r\n\r\nhidden\r\n"
    )
}

/// Sends `content` to `server`, by DATA or in one chunk; the answer to it.
fn send_octets(topology: &Topology, server: std::net::Ipv4Addr, content: &str, in_a_chunk: bool) -> String {
    let converse = || {
        let mut session = BufReader::new(TcpStream::connect(port25(server))?);
        session.get_ref().set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut answer = String::new();
        let mut say = |octets: &str| -> anyhow::Result<String> {
            session.get_mut().write_all(octets.as_bytes())?;
            loop {
                answer.clear();
                session.read_line(&mut answer)?;
                if answer.as_bytes().get(3) != Some(&b'-') {
                    return Ok(answer.trim_end().to_owned());
                }
            }
        };
        say("")?;
        say("EHLO client.example.test\r\n")?;
        say("MAIL FROM:<alice@client.example.test>\r\n")?;
        say(&format!("RCPT TO:<{INSIDE}>\r\n"))?;
        if in_a_chunk {
            return say(&format!("BDAT {} LAST\r\n{content}", content.len()));
        }
        say("DATA\r\n")?;
        say(&format!("{content}.\r\n"))
    };
    topology.client.within(converse).expect("a session")
}

#[test]
fn no_nul_reaches_a_server_that_drops_it_and_sees_another_end() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let listener =
        topology.server.within(|| Ok(TcpListener::bind(port25(SERVER4))?)).expect("port 25 is free");
    let server = NulDropper::serve(listener);
    // The control: connected to directly, it takes the one for two.
    send_octets(&topology, SERVER4, &two_in_one(HIDDEN_ENDS[0]), false);
    wait_until("both come", || server.count() == 2).expect("it is such a server");
    assert_eq!(server.take().messages[1], ["Subject: two", "", "hidden"]);

    let green = uplink("").replace("kind = \"red\"", "kind = \"green\"");
    let appliance = Appliance::start(&firewall, &green).expect("mailguard runs");
    let ways = HIDDEN_ENDS.iter().flat_map(|end| [(end, false), (end, true)]);
    for (end, in_a_chunk) in ways.clone() {
        let what = format!("{end:?} {}", if in_a_chunk { "BDAT" } else { "DATA" });
        let answer = send_octets(&topology, FIREWALL4, &two_in_one(end), in_a_chunk);
        assert!(answer.starts_with("250 2.0.0 Ok: queued as "), "{what}: {answer}");
        wait_until("it arrives", || server.count() > 0)
            .unwrap_or_else(|error| panic!("{what}: {error}: {}", appliance.log()));
        // The next message comes after whatever this one has brought.
        let answer = send_octets(&topology, FIREWALL4, "Subject: last\r\n\r\nbye\r\n", false);
        assert!(answer.starts_with("250 2.0.0 Ok: queued as "), "{what}: {answer}");
        let last = |message: &Vec<String>| message.iter().any(|line| line == "Subject: last");
        let mut heard = Heard::default();
        wait_until("the last one arrives", || {
            let more = server.take();
            heard.messages.extend(more.messages);
            heard.nuls += more.nuls;
            heard.messages.iter().any(last)
        })
        .unwrap_or_else(|error| panic!("{what}: {error}: {}", appliance.log()));
        assert_eq!((heard.messages.len(), heard.nuls), (2, 0), "{what}: {heard:#?}");
        let one = heard.messages.iter().find(|message| !last(message)).expect("there is another");
        for line in ["Subject: one", "seen", "DATA", "hidden"] {
            assert!(one.iter().any(|found| found == line), "{what}: {line}: {one:#?}");
        }
    }

    appliance.write_config(&uplink("")).expect("written");
    appliance.ok(&["reload"]).expect("reloaded");
    for (end, in_a_chunk) in ways {
        let answer = send_octets(&topology, FIREWALL4, &two_in_one(end), in_a_chunk);
        assert!(answer.starts_with("554 5.6.0"), "{end:?} {in_a_chunk}: {answer}");
    }
    let answer = send_octets(&topology, FIREWALL4, "Subject: last\r\n\r\nbye\r\n", false);
    assert!(answer.starts_with("250 2.0.0 Ok: queued as "), "{answer}");
    wait_until("it arrives", || server.count() > 0).expect("it does");
    let heard = server.take();
    assert_eq!((heard.messages.len(), heard.nuls), (1, 0), "none of those that were refused: {heard:#?}");
}
