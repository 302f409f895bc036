//! A start with a configuration file that doesn't check: the real program goes on with what was applied last,
//! says so wherever somebody looks, and ends where it can't. And one that is switched off.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{CLIENT4, CLIENT4_SECOND, CLIENT4_THIRD, LAN, SERVER4, Topology, port25};
use mailguard_tests::peers::service_manager::ServiceManager;
use mailguard_tests::peers::smtp_sink::SmtpSink;
use mailguard_tests::peers::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::Value;

/// What a slip makes of "transparent".
const SLIP: &str = "transparant";

/// A zone whose clients are intercepted, whomever they dial.
fn config(more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n[[zone]]\nname = \"green\"\nkind = \"green\"\ninterfaces = [\"{LAN}\"]\n\
         mode = \"transparent\"\n{more}\n"
    )
}

/// Waits until what is in force is kept.
fn kept(appliance: &Appliance<'_>) -> Value {
    let mut kept = Value::Null;
    let came = wait_until("it is kept", || {
        let octets = fs::read(appliance.applied()).unwrap_or_default();
        kept = serde_json::from_slice(&octets).unwrap_or_default();
        !kept.is_null()
    });
    came.unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
    kept
}

/// As a machine that was switched off: nothing is in the kernel.
fn switch_off(appliance: &mut Appliance<'_>) {
    appliance.stop().expect("it stops");
    appliance.ok(&["unload"]).expect("nothing is left");
}

/// Puts a slip into the file; the line in which it stands.
fn spoil(appliance: &Appliance<'_>) -> usize {
    let text = fs::read_to_string(appliance.config()).expect("it is there").replace("transparent", SLIP);
    fs::write(appliance.config(), &text).expect("written");
    1 + text.lines().position(|line| line.contains(SLIP)).expect("it has the mode in it")
}

/// Who greets a client that dials the server from this address.
fn greeting(topology: &Topology, from: impl Into<IpAddr>) -> String {
    let from = from.into();
    let greeted = topology.client.within(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&std::net::SocketAddr::new(from, 0).into())?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.connect(&port25(SERVER4).parse::<std::net::SocketAddr>()?.into())?;
        let mut line = String::new();
        BufReader::new(std::net::TcpStream::from(socket)).read_line(&mut line)?;
        Ok(line)
    });
    greeted.expect("somebody answers")
}

fn fails(appliance: &Appliance<'_>, arguments: &[&str], why: &str) {
    let output = appliance.cli(arguments).expect("it runs");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
}

/// The problems that `status` shows, to root and, as they come from the mail process, to everybody.
fn problems(appliance: &Appliance<'_>) -> [String; 2] {
    let status = appliance.json(&["status"]).expect("a status");
    [&status["problems"], &status["processes"]["problems"]].map(Value::to_string)
}

#[test]
fn a_boot_with_a_slip_in_the_file_intercepts_by_what_was_applied_last() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, "").expect("a folder");
    let _sink = SmtpSink::of_server(&topology, appliance.folder()).expect("smtp-sink runs");
    let list = appliance.folder().join("partners.txt");
    fs::write(&list, format!("{CLIENT4_THIRD}\n")).expect("written");
    appliance
        .write_config(&config(&format!("[bypass]\nfrom_ips = [\"@{}\"]\n", list.display())))
        .expect("written");
    appliance.run().expect("mailguard runs");
    kept(&appliance);
    appliance.ok(&["bypass", "add", "from-ip", &CLIENT4_SECOND.to_string()]).expect("an edit");
    let applied_at = kept(&appliance)["applied_at"].clone();
    switch_off(&mut appliance);
    assert!(!greeting(&topology, CLIENT4).contains("mailguard"), "nobody intercepts");

    let line = spoil(&appliance);
    // What the named files hold is as it was applied, too.
    fs::write(&list, "").expect("written");
    let spoilt = fs::read_to_string(appliance.config()).expect("it is there");
    appliance.run().expect("mailguard runs by what was applied last");
    assert!(greeting(&topology, CLIENT4).contains("mailguard.example.test"));
    for bypassed in [CLIENT4_SECOND, CLIENT4_THIRD] {
        assert!(!greeting(&topology, bypassed).contains("mailguard"), "{bypassed}");
    }
    let where_it_is = format!("{}:{line}: zone[0].mode: ", appliance.config().display());
    let error = appliance.log().lines().any(|line| line.contains("ERROR") && line.contains(&where_it_is));
    assert!(error, "{}", appliance.log());
    for problems in problems(&appliance) {
        assert!(problems.contains(&where_it_is) && problems.contains("mailguard reload"), "{problems}");
    }
    let status = appliance.json(&["status"]).expect("a status");
    assert_eq!(status["processes"]["stand_in"]["applied_at"], applied_at, "{status}");
    fails(&appliance, &["doctor"], "the daemon starts with what was applied at");

    fails(&appliance, &["bypass", "add", "from-ip", "192.0.2.9"], "nothing was changed: mailguard runs by");
    fails(&appliance, &["reload"], "zone[0].mode");
    assert_eq!(fs::read_to_string(appliance.config()).expect("it is there"), spoilt);
    // The next mail process has the same.
    let mail =
        appliance.json(&["status"]).expect("a status")["processes"]["mail"]["pid"].as_i64().expect("one");
    kill(Pid::from_raw(mail as i32), Signal::SIGKILL).expect("killed");
    let anew =
        || appliance.json(&["status"]).is_ok_and(|status| status["processes"]["mail"]["restarts"] == 1);
    wait_until("another one serves", anew).unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
    assert!(appliance.ok(&["bypass", "list"]).expect("a list").contains(&CLIENT4_THIRD.to_string()));

    fs::write(appliance.config(), spoilt.replace(SLIP, "transparent")).expect("mended");
    let output = appliance.cli(&["doctor"]).expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("configuration-in-force"), "mended and not reloaded: {said}");
    appliance.ok(&["reload"]).expect("it is right again");
    for problems in problems(&appliance) {
        assert!(!problems.contains("applied"), "{problems}");
    }
    appliance.ok(&["bypass", "add", "from-ip", "192.0.2.9"]).expect("edits are made again");
    assert!(greeting(&topology, CLIENT4_THIRD).contains("mailguard"), "the list is empty by now");
    assert!(kept(&appliance)["source"]["text"].as_str().expect("a text").contains("192.0.2.9"));
}

#[test]
fn a_daemon_whose_file_is_gone_runs_and_is_found() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::start(&firewall, &config("")).expect("mailguard runs");
    kept(&appliance);
    let aside = appliance.folder().join("aside");
    switch_off(&mut appliance);
    fs::rename(appliance.config(), &aside).expect("moved");
    appliance.run().expect("mailguard runs by what was applied last");
    for problems in problems(&appliance) {
        assert!(problems.contains("No such file"), "{problems}");
    }
    fails(&appliance, &["reload"], "No such file");
    fs::rename(&aside, appliance.config()).expect("moved back");
    appliance.ok(&["reload"]).expect("it is there again");
    // Rules that don't compile are found by the process that tries them.
    let rules = appliance.folder().join("rules");
    fs::create_dir(&rules).expect("made");
    fs::write(rules.join("own.yar"), "rule Own {\n condition: $x }\n").expect("written");
    let more = format!("[virus.signatures]\nenabled = true\nrules_dir = \"{}\"\n", rules.display());
    appliance.write_config(&config(&more)).expect("written");
    switch_off(&mut appliance);
    appliance.run().expect("mailguard runs by what was applied last");
    for problems in problems(&appliance) {
        assert!(problems.contains("own.yar:2:"), "{problems}");
    }
}

#[test]
fn a_kept_version_that_can_not_be_used_is_named_beside_the_slip() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let mut appliance = Appliance::prepare(&firewall, &config("")).expect("a folder");
    spoil(&appliance);
    let ends = |appliance: &Appliance<'_>, expect: &[&str]| {
        let (code, said) = appliance.run_to_its_end().expect("it ends");
        assert!(code == Some(78) && expect.iter().all(|expect| said.contains(expect)), "{code:?}: {said}");
        said
    };
    assert!(!ends(&appliance, &["zone[0].mode: "]).contains("applied"), "none is kept");
    appliance.write_config(&config("")).expect("written");
    appliance.run().expect("mailguard runs");
    let whole = kept(&appliance).to_string();
    appliance.stop().expect("it stops");
    spoil(&appliance);
    for (text, why) in [
        (whole[..whole.len() / 2].to_owned(), "is damaged"),
        (whole.replace("hostname", "host_name"), "host_name"),
        (whole.replace("\"form\":1", "\"form\":7"), "in the form 7"),
    ] {
        fs::write(appliance.applied(), text).expect("written");
        ends(&appliance, &["zone[0].mode: ", "can't be used instead", why]);
    }
}

#[test]
fn the_mail_user_has_no_part_in_what_mailguard_starts_with() {
    let topology = Topology::new().expect("namespaces");
    let firewall = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::start(&firewall, &config("")).expect("mailguard runs");
    let before = kept(&appliance);
    let file = appliance.applied();
    let facts = |path: &Path| {
        fs::metadata(path).map(|facts| (facts.uid(), facts.mode() & 0o777)).expect("it is there")
    };
    assert_eq!(facts(&file), (0, 0o600), "it holds passwords");
    let (folder, rights) = (file.parent().expect("a folder"), facts(file.parent().expect("a folder")));
    assert!(rights.0 == 0 && rights.1 & 0o022 == 0, "{rights:?}");
    let user = User::from_name("nobody").expect("users").expect("every Debian has it");
    for script in [
        "cat \"$0\"",
        "echo x >\"$0\"",
        "rm -f \"$0\"",
        "mv \"$0\" \"$0.old\"",
        "ln -s /etc/passwd \"$1/x\"",
        "mv \"$1\" \"$1.old\"",
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&file).arg(folder);
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        let output = command.output().expect("sh runs");
        assert!(!output.status.success(), "{script}");
    }
    assert_eq!(kept(&appliance), before);
}

#[test]
fn a_disk_that_is_full_keeps_no_version_and_hinders_nothing_else() {
    let topology = Topology::new().expect("namespaces");
    // A full disk of the daemon's own, in the place of the folder where versions are kept.
    let full = "mkdir -p /var/lib/mailguard-applied && mount -t tmpfs -o size=4k,mode=0700 none /var/lib/mailguard-applied && \
                head -c 4096 /dev/zero >/var/lib/mailguard-applied/full && exec \"$0\" \"$@\"";
    let firewall = |program: &str| {
        let mut command = topology.firewall.command("unshare");
        command.args(["--mount", "sh", "-c", full, program]);
        command
    };
    let mut appliance = Appliance::start(&firewall, &config("")).expect("mailguard runs");
    let unkept = || {
        problems(&appliance).iter().all(|text| text.contains("isn't kept") && text.contains("No space left"))
    };
    wait_until("it says so", unkept).unwrap_or_else(|error| panic!("{error}: {}", appliance.log()));
    assert!(appliance.log().contains("isn't kept"), "{}", appliance.log());
    appliance.ok(&["bypass", "add", "from-ip", "192.0.2.9"]).expect("an edit is made all the same");
    assert!(appliance.ok(&["bypass", "list"]).expect("a list").contains("192.0.2.9"));
    appliance.ok(&["reload"]).expect("and a reload");
    assert!(greeting(&topology, CLIENT4).contains("mailguard"));
    appliance.stop().expect("it stops");
}

#[test]
fn the_service_manager_hears_by_what_mail_is_served_and_that_a_switched_off_mailguard_is_no_failure() {
    let topology = Topology::new().expect("namespaces");
    let manager = ServiceManager::new().expect("it listens");
    let hears = |wanted: &[&str]| manager.hears(wanted).expect("a message");
    let firewall = |program: &str| {
        let mut command = topology.firewall.command(program);
        manager.manages(&mut command);
        command
    };
    let mut appliance = Appliance::start(&firewall, &config("")).expect("mailguard runs");
    assert_eq!(hears(&["STATUS"]), "STATUS=mail is served");
    kept(&appliance);
    switch_off(&mut appliance);
    spoil(&appliance);
    appliance.run().expect("mailguard runs by what was applied last");
    let status = hears(&["STATUS"]);
    let expect = [
        "mail is served, but mailguard runs by the configuration that was applied at",
        "which can't be used (1 error)",
    ];
    assert!(expect.iter().all(|expect| status.contains(expect)), "{status}");
    hears(&["READY"]);
    appliance.write_config(&config("")).expect("mended");
    appliance.ok(&["reload"]).expect("it is right again");
    assert_eq!(hears(&["STATUS"]), "STATUS=mail is served");

    appliance.stop().expect("it stops");
    hears(&["STOPPING"]);
    appliance.write_config(&format!("enabled = false\n{}", config(""))).expect("written");
    let (code, said) = appliance.run_to_its_end().expect("it ends");
    assert!(code == Some(0) && said.contains("nothing is left in the kernel"), "{code:?}: {said}");
    let said = [hears(&["STATUS", "READY"]), hears(&["STATUS", "READY"])];
    assert_eq!(said, ["STATUS=nothing is intercepted: the configuration says enabled = false", "READY=1"]);
    // That nothing was in force last stands in for no file: whoever switches it on with a slip in it hears of
    // that.
    spoil(&appliance);
    let (code, said) = appliance.run_to_its_end().expect("it ends");
    let expect = ["zone[0].mode: ", "isn't used instead: it says enabled = false"];
    assert!(code == Some(78) && expect.iter().all(|expect| said.contains(expect)), "{code:?}: {said}");
}
