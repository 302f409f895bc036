//! The package as an administrator meets it: installed by apt on a fresh Debian that is a firewall, booted,
//! upgraded under load, hung, misconfigured, removed, purged. `cargo xtask test package` makes the packages.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mailguard_tests::appliance::is_of_this_machine;
use mailguard_tests::machine::Machine;
use mailguard_tests::netns::{CLIENT4, FIREWALL4_WAN, LAN, SERVER4, Topology, WAN, port25};
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::smtp_source::{self, Load};
use mailguard_tests::peers::swaks::{self, Message, Outcome};
use mailguard_tests::peers::{wait_at_most, wait_until};

const UNIT: &str = "mailguard";
const FILE: &str = "etc/mailguard/mailguard.toml";
/// Longer than the unit's WatchdogSec.
const WATCHDOG_TIME: Duration = Duration::from_secs(90);

fn package(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    PathBuf::from(path.unwrap_or_else(|| panic!("{variable} names no package: cargo xtask test package")))
}

/// Zones and next hop of this firewall, put into the file that the package installed, as README says.
fn edit(machine: &Machine<'_>, change: impl FnOnce(&str) -> String) -> Result<()> {
    let path = machine.root().join(FILE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(fs::write(path, change(&text))?)
}

/// What an administrator of this firewall writes.
fn configured(installed: &str) -> String {
    let mut text = installed.replacen("\nenabled = false ", "\nenabled = true ", 1);
    // This firewall has no third zone.
    let (begin, end) = (text.find("[[zone]]\nname = \"orange\""), text.find("[[zone]]\nname = \"red\""));
    let (Some(begin), Some(end)) = (begin, end) else { panic!("the example has the zones orange and red") };
    text.replace_range(begin..end, "");
    for (of_example, ours) in [("\"eth0\"", LAN), ("\"eth2\"", WAN)] {
        assert!(text.contains(of_example), "{of_example}");
        text = text.replace(of_example, &format!("\"{ours}\""));
    }
    text + &format!("\n[[incoming_domain]]\ndomain = \"far.example.test\"\nserver = \"{SERVER4}\"\n")
}

fn send(topology: &Topology, subject: &str) -> Result<Outcome> {
    let server = SERVER4.to_string();
    let message = Message {
        server: &server,
        sender: "alice@client.example.test",
        recipients: "bob@far.example.test",
        subject,
        body: "Good morning.",
        ..Message::default()
    };
    swaks::send(&|program| topology.client.command(program), &message)
}

fn sink(topology: &Topology, machine: &Machine<'_>) -> Result<SmtpSink> {
    let folder = machine.root().parent().context("a machine has a folder")?.to_owned();
    SmtpSink::of_server(topology, &folder)
}

/// Installed, configured, started.
fn running<'a>(topology: &'a Topology) -> Result<Machine<'a>> {
    let machine = Machine::boot(&topology.firewall)?;
    machine.install(&package("MAILGUARD_DEB"))?;
    edit(&machine, configured)?;
    machine.ok("systemctl", &["restart", UNIT])?;
    Ok(machine)
}

fn is_active(machine: &Machine<'_>) -> bool {
    machine.output("systemctl", &["is-active", UNIT]).is_ok_and(|output| output.status.success())
}

#[test]
fn from_apt_install_to_the_first_intercepted_message_and_through_a_boot() -> Result<()> {
    let topology = Topology::new()?;
    let mut machine = Machine::boot(&topology.firewall)?;
    let said = machine.install(&package("MAILGUARD_DEB"))?;
    assert!(said.contains("systemctl restart mailguard"), "what to do next: {said}");
    assert_eq!(machine.ok("systemctl", &["is-enabled", UNIT])?.trim(), "enabled");
    assert_eq!(machine.ok("stat", &["-c", "%a %U", "/etc/mailguard/mailguard.toml"])?.trim(), "640 root");
    machine.ok("systemd-analyze", &["verify", "--man=no", "/lib/systemd/system/mailguard.service"])?;
    for page in ["man8/mailguard.8.gz", "man8/mailguard-bypass-add.8.gz", "man5/mailguard.toml.5.gz"] {
        assert!(machine.root().join("usr/share/man").join(page).exists(), "{page}");
    }
    // Switched off: it says that it is ready, ends, and isn't started again.
    machine.ok("systemctl", &["restart", UNIT])?;
    wait_until("it ends", || !is_active(&machine))?;
    for (property, value) in [("Result", "success"), ("SubState", "dead"), ("NRestarts", "0")] {
        assert_eq!(machine.property(UNIT, property)?, value, "{property}: {}", machine.journal(UNIT));
    }
    let sink = sink(&topology, &machine)?;
    assert!(send(&topology, "before")?.accepted);
    assert_eq!(
        sink.wait_for("before")?.client,
        CLIENT4.to_string(),
        "nothing is done before somebody said so"
    );

    edit(&machine, configured)?;
    machine.ok("mailguard", &["check"])?;
    machine.ok("systemctl", &["restart", UNIT])?;
    assert!(send(&topology, "after")?.accepted);
    assert_eq!(sink.wait_for("after")?.client, FIREWALL4_WAN.to_string(), "it came by way of us");
    assert!(machine.ok("mailguard", &["trace", "to:bob@far.example.test"])?.contains("delivered"));
    assert!(machine.journal(UNIT).contains("event=attempt"), "the mail log is in the journal");
    assert_eq!(machine.property(UNIT, "StatusText")?, "mail is served");
    the_unit_keeps_what_it_promises(&machine)?;
    the_file_can_be_edited_and_applied(&topology, &machine, &sink)?;

    machine.halt()?;
    machine.start()?;
    assert!(is_active(&machine), "it comes with the machine");
    assert!(send(&topology, "after a boot")?.accepted);
    assert_eq!(sink.wait_for("after a boot")?.client, FIREWALL4_WAN.to_string());
    assert_eq!(machine.property(UNIT, "NRestarts")?, "0");

    // A slip in the file opens no port at the next boot.
    edit(&machine, |text| text.replacen("\nmode = \"transparent\"", "\nmode = \"transparant\"", 1))?;
    machine.halt()?;
    machine.start()?;
    assert!(is_active(&machine), "it comes by what was applied last: {}", machine.journal(UNIT));
    assert!(send(&topology, "after a slip")?.accepted);
    assert_eq!(sink.wait_for("after a slip")?.client, FIREWALL4_WAN.to_string());
    assert!(
        machine
            .property(UNIT, "StatusText")?
            .contains("mailguard runs by the configuration that was applied at")
    );
    Ok(())
}

/// What `status` says is the matter.
fn problems(machine: &Machine<'_>) -> Result<Vec<String>> {
    let status = machine.ok("mailguard", &["status"])?;
    let told = |line: &&str| line.contains("PROBLEM") && !is_of_this_machine(line);
    Ok(status.lines().filter(told).map(str::to_owned).collect())
}

/// The sandbox is in force and costs no function.
fn the_unit_keeps_what_it_promises(machine: &Machine<'_>) -> Result<()> {
    let main: i32 = machine.property(UNIT, "MainPID")?.parse()?;
    let of = |pid: i32, field: &str| -> Result<String> {
        let status = machine.ok("cat", &[&format!("/proc/{pid}/status")])?;
        let line = status.lines().find(|line| line.starts_with(field)).context("no such field")?;
        Ok(line[field.len()..].trim_matches([':', '\t', ' ']).to_owned())
    };
    assert_eq!(of(main, "NoNewPrivs")?, "1");
    assert_eq!(of(main, "Seccomp")?, "2");
    let children = machine.ok("cat", &[&format!("/proc/{main}/task/{main}/children")])?;
    assert!(!children.trim().is_empty(), "a mail process runs");
    for child in children.split_whitespace() {
        assert_eq!(
            of(child.parse()?, "CapEff")?,
            "0000000000000000",
            "of a process that speaks with strangers"
        );
    }
    let log = machine.journal(UNIT);
    for word in ["denied", "not permitted", "Read-only", "ERROR"] {
        assert!(!log.contains(word), "the sandbox keeps it from something: {log}");
    }
    assert_eq!(problems(machine)?, Vec::<String>::new());
    let security = machine.ok("systemd-analyze", &["security", "--threshold=50", "--no-pager", UNIT])?;
    println!("{}", security.lines().last().unwrap_or_default());
    Ok(())
}

/// By the command line, which has the daemon write it, and by hand.
fn the_file_can_be_edited_and_applied(
    topology: &Topology,
    machine: &Machine<'_>,
    sink: &SmtpSink,
) -> Result<()> {
    let client = CLIENT4.to_string();
    machine.ok("mailguard", &["bypass", "add", "from-ip", &client])?;
    assert!(fs::read_to_string(machine.root().join(FILE))?.contains(&client), "it outlives a restart");
    assert!(send(topology, "bypassed")?.accepted);
    assert_eq!(sink.wait_for("bypassed")?.client, client);
    edit(machine, |text| text.replace(&format!("\"{client}\""), ""))?;
    machine.ok("systemctl", &["reload", UNIT])?;
    assert!(send(topology, "reloaded")?.accepted);
    assert_eq!(sink.wait_for("reloaded")?.client, FIREWALL4_WAN.to_string());
    edit(machine, |text| format!("{text}\nno_such_option = 1\n"))?;
    assert!(!machine.output("systemctl", &["reload", UNIT])?.status.success(), "a file that doesn't check");
    edit(machine, |text| text.replace("\nno_such_option = 1\n", ""))
}

#[test]
fn an_upgrade_under_load_loses_no_message_and_keeps_the_edited_file() -> Result<()> {
    const MESSAGES: u64 = 100;
    let topology = Topology::new()?;
    let machine = running(&topology)?;
    let sink = sink(&topology, &machine)?;
    let before = machine.property(UNIT, "MainPID")?;
    let load = Load {
        server: &port25(SERVER4),
        helo: "client.example.test",
        kept: false,
        sessions: 4,
        messages: MESSAGES,
        octets: 4_096,
        recipients: 1,
        sender: "alice@client.example.test",
        recipient: "bob@far.example.test",
    };
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| -> Result<u64> {
        let source = scope.spawn(|| -> Result<u64> {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                // It gives up if a connection is refused, and says so.
                smtp_source::run(&|program| topology.client.command(program), &load)?;
                sent += MESSAGES;
            }
            Ok(sent)
        });
        let upgraded = wait_at_most(WATCHDOG_TIME, "mail flows", || sink.count() > 20)
            .and_then(|()| machine.install(&package("MAILGUARD_UPGRADE_DEB")));
        let at_the_upgrade = sink.count();
        let goes_on =
            wait_at_most(WATCHDOG_TIME, "mail flows on", || sink.count() > at_the_upgrade + MESSAGES);
        over.store(true, Ordering::Relaxed);
        let sent = source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        upgraded?;
        goes_on?;
        sent
    })?;
    wait_at_most(WATCHDOG_TIME, "every message arrives", || sink.count() >= sent)?;
    assert_ne!(machine.property(UNIT, "MainPID")?, before, "the new program runs");
    assert!(machine.ok("dpkg-query", &["-W", "mailguard"])?.contains("0.0.2-1"));
    assert!(fs::read_to_string(machine.root().join(FILE))?.contains(LAN), "the edited file is kept");
    assert_eq!(machine.property(UNIT, "NRestarts")?, "0");
    Ok(())
}

#[test]
fn what_dies_or_hangs_is_started_anew_and_what_nobody_can_start_is_not() -> Result<()> {
    let topology = Topology::new()?;
    let machine = running(&topology)?;
    let sink = sink(&topology, &machine)?;
    for (signal, patience) in [("SIGKILL", WATCHDOG_TIME), ("SIGSTOP", WATCHDOG_TIME)] {
        let before = machine.property(UNIT, "MainPID")?;
        machine.ok("systemctl", &["kill", "--kill-whom=main", &format!("--signal={signal}"), UNIT])?;
        wait_at_most(patience, &format!("it is started anew after {signal}"), || {
            is_active(&machine)
                && machine.property(UNIT, "MainPID").is_ok_and(|pid| pid != before && pid != "0")
        })?;
        assert!(send(&topology, signal)?.accepted, "{signal}");
        assert_eq!(sink.wait_for(signal)?.client, FIREWALL4_WAN.to_string());
    }
    // What others take away is put back, in the unit's sandbox as elsewhere.
    let rules = || -> Result<Vec<String>> {
        let rules = machine.ok("ip", &["rule"])?;
        Ok(rules.lines().filter(|rule| rule.contains("fwmark")).map(str::to_owned).collect())
    };
    let ours = rules()?;
    for rule in &ours {
        let (priority, _) = rule.split_once(':').context("a rule has a number")?;
        machine.ok("ip", &["rule", "del", "priority", priority])?;
    }
    wait_until("the rules are put back", || rules().is_ok_and(|rules| !ours.is_empty() && rules == ours))?;
    // Everything that is pinned, programs and maps: what is attached by a pin goes with it.
    machine.ok("rm", &["-r", "/sys/fs/bpf/mailguard"])?;
    wait_until("programs and pins are put back", || {
        problems(&machine).is_ok_and(|problems| problems.is_empty())
            && machine.pins().join("mailguard/links").read_dir().is_ok_and(|links| links.count() > 2)
    })?;
    assert!(send(&topology, "mended")?.accepted);
    assert_eq!(sink.wait_for("mended")?.client, FIREWALL4_WAN.to_string());

    edit(&machine, |text| text.replace("user = \"mailguard\" ", "user = \"nobody-at-all\" "))?;
    assert!(!machine.output("systemctl", &["restart", UNIT])?.status.success());
    assert_eq!(machine.property(UNIT, "ExecMainStatus")?, "78");
    assert_eq!(machine.property(UNIT, "SubState")?, "failed", "it would fail again");
    assert!(machine.journal(UNIT).contains("nobody-at-all"), "the journal says why");
    assert!(!send(&topology, "shut")?.connected, "port 25 is shut meanwhile, not open");
    Ok(())
}

#[test]
fn a_removed_package_leaves_nothing_in_the_kernel_and_purge_keeps_messages() -> Result<()> {
    let topology = Topology::new()?;
    let machine = running(&topology)?;
    // Nobody answers at the server: the message waits.
    assert!(send(&topology, "waiting")?.accepted);
    machine.ok("apt-get", &["remove", "-y", "mailguard"])?;
    assert!(machine.ok("ip", &["rule"])?.lines().all(|rule| !rule.contains("fwmark")), "no policy rule");
    assert_eq!(fs::read_dir(machine.pins())?.count(), 0, "nothing is pinned");
    let sink = sink(&topology, &machine)?;
    assert!(send(&topology, "untouched")?.accepted);
    assert_eq!(sink.wait_for("untouched")?.client, CLIENT4.to_string(), "port 25 is as it was");
    let purged = machine.output("apt-get", &["purge", "-y", "mailguard"])?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&purged.stdout), String::from_utf8_lossy(&purged.stderr));
    assert!(purged.status.success() && said.contains("is kept"), "{said}");
    assert!(machine.root().join("var/lib/mailguard/spool.redb").exists(), "the message is there");
    assert!(!machine.root().join("etc/mailguard").exists());
    assert!(!machine.root().join("var/lib/mailguard-applied").exists(), "it holds passwords");

    machine.install(&package("MAILGUARD_DEB"))?;
    edit(&machine, configured)?;
    machine.ok("systemctl", &["restart", UNIT])?;
    machine.ok("mailguard", &["queue", "retry", "--to", &SERVER4.to_string()])?;
    sink.wait_for("waiting")?;
    wait_until("the queue is empty", || {
        machine.ok("mailguard", &["queue", "list", "--json"]).is_ok_and(|list| !list.contains("alice@"))
    })?;
    machine.ok("apt-get", &["purge", "-y", "mailguard"])?;
    assert!(!machine.root().join("var/lib/mailguard").exists(), "there was nothing to keep");
    Ok(())
}
