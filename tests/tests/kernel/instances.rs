//! One mailguard a network namespace, whose pins outlive it: a second one is refused and changes nothing, and
//! none starts where its pins would go with it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mailguard_tests::appliance::{Appliance, program};
use mailguard_tests::netns::{CLIENT4, Namespace, SERVER4, Topology};
use mailguard_tests::peers::wait_until;

use crate::firewall::{Answer, Session, ZONES};
use crate::servers::Server;

fn config() -> String {
    format!("hostname = \"mailguard.example.org\"\n{ZONES}")
}

fn answer(topology: &Topology) -> Answer {
    Session::open(&topology.client, None, (SERVER4, 25).into())
        .map_or_else(|answer| answer, |session| session.answer)
}

#[track_caller]
fn check_served(topology: &Topology, what: &str) {
    wait_until(what, || answer(topology) == Answer::Daemon).unwrap();
}

/// What it says that fails.
#[track_caller]
fn refused(output: Output) -> String {
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "it isn't refused: {text}");
    text
}

/// Policy rules of both families.
fn rules(namespace: &Namespace) -> String {
    ["-4 rule", "-6 rule"].map(|words| namespace.ip_output(words).unwrap()).concat()
}

#[test]
fn a_second_instance_in_a_namespace_is_refused_and_changes_nothing() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let first = Appliance::start(&place, &config()).expect("mailguard runs");
    let pid = format!("(process {})", first.process().unwrap().pid());
    let before = rules(&topology.firewall);
    let inactive = config().replace("transparent", "inactive");
    for shared in [true, false] {
        let mut second = Appliance::prepare(&place, &inactive).unwrap();
        if shared {
            second.share_pins(&first);
            second.write_config(&inactive).unwrap();
        }
        for command in ["run", "unload"] {
            let error = refused(second.cli(&[command]).unwrap());
            assert!(error.contains(&pid), "{command}, the same pin_dir: {shared}: {error}");
        }
        assert_eq!(rules(&topology.firewall), before, "the same pin_dir: {shared}");
        check_served(&topology, "the first one serves");
        // The drop unloads; it is refused for as long as the first one runs.
        std::mem::forget(second);
    }
}

#[test]
fn unload_touches_nothing_of_a_dead_instance_with_another_pin_dir() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let mut first = Appliance::start(&place, &config()).expect("mailguard runs");
    let other = Appliance::prepare(&place, &config()).unwrap();
    check_served(&topology, "the first one serves");
    first.kill().unwrap();
    wait_until("on_proxy_down is in force", || answer(&topology) == Answer::Nobody).unwrap();
    let before = rules(&topology.firewall);
    let error = refused(other.cli(&["unload"]).unwrap());
    assert!(error.contains(&first.pin_dir().display().to_string()), "{error}");
    assert_eq!(rules(&topology.firewall), before);
    assert_eq!(answer(&topology), Answer::Nobody, "drops stay in force");
    first.ok(&["unload"]).unwrap();
    assert_eq!(answer(&topology), Answer::server(CLIENT4));
    assert!(!rules(&topology.firewall).contains("2525"), "{}", rules(&topology.firewall));
}

#[test]
fn a_changed_pin_dir_leaves_nothing_in_the_old_one() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let bypass = format!("{}[bypass]\nfrom_ips = [\"{CLIENT4}\"]\n", config());
    let mut first = Appliance::start(&place, &bypass).expect("mailguard runs");
    first.stop().unwrap();
    let second = Appliance::start(&place, &bypass).expect("it runs with other pins");
    assert_eq!(answer(&topology), Answer::server(CLIENT4), "no old program has a say");
    assert!(!first.pin_dir().exists());
    assert!(second.pin_dir().exists());
}

#[test]
fn two_namespaces_dont_share_a_runtime_dir_or_pins() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let mut first = Appliance::start(&place, &config()).expect("mailguard runs");
    let error = refused(in_another(&topology, &first, "run"));
    let pid = format!("(process {})", first.process().unwrap().pid());
    assert!(error.contains(&pid) && error.contains("runtime_dir"), "{error}");
    let error = refused(in_another(&topology, &first, "unload"));
    assert!(error.contains("another network namespace"), "{error}");
    check_served(&topology, "the first one serves");
    first.stop().unwrap();
    let error = refused(in_another(&topology, &first, "run"));
    assert!(error.contains("another network namespace"), "its pins hold programs there: {error}");
}

fn in_another(topology: &Topology, appliance: &Appliance<'_>, command: &str) -> Output {
    let mut started = topology.server.command(&program().to_string_lossy());
    started.arg("--config").arg(appliance.config()).arg(command).output().unwrap()
}

/// `script`, and then mailguard, in a mount namespace of its own within the firewall.
fn sandboxed(topology: &Topology, script: &str, appliance: &Appliance<'_>, command: &str) -> Command {
    let mut started = topology.firewall.command("unshare");
    let program = program();
    started.args(["--mount", "sh", "-ec", &format!("{script}; exec \"$0\" --config \"$1\" {command}")]);
    started.arg(program).arg(appliance.config());
    started
}

#[test]
fn pins_that_would_go_with_the_process_are_refused() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::prepare(&place, &config()).unwrap();
    for (what, script) in [
        ("a private one", "mount -t bpf bpf /sys/fs/bpf"),
        ("none", "umount /sys/fs/bpf"),
        ("another /sys, as ip netns exec mounts it", "umount -l /sys; mount -t sysfs sysfs /sys"),
    ] {
        for command in ["run", "unload"] {
            let error = refused(sandboxed(&topology, script, &appliance, command).output().unwrap());
            assert!(error.contains("nsenter --net="), "{what}, {command}: {error}");
        }
        assert!(!rules(&topology.firewall).contains("2525"), "{what}");
        assert_eq!(answer(&topology), Answer::server(CLIENT4), "{what}: nothing was begun");
    }
    let exec = Command::new("ip")
        .args(["netns", "exec", topology.firewall.name()])
        .arg(program())
        .arg("--config")
        .arg(appliance.config())
        .arg("run")
        .output();
    let error = refused(exec.unwrap());
    assert!(error.contains("nsenter --net="), "ip netns exec: {error}");
}

#[test]
fn a_mount_namespace_of_its_own_with_the_machines_bpf_file_system_will_do() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| {
        let mut command = topology.firewall.command("unshare");
        command.args(["--mount", program]);
        command
    };
    let mut appliance = Appliance::start(&place, &config()).expect("mailguard runs");
    check_served(&topology, "it serves");
    appliance.kill().unwrap();
    wait_until("what is pinned outlives it", || answer(&topology) == Answer::Nobody).unwrap();
}

/// The file of the locks that says who is the mailguard of this namespace.
fn lock_file(namespace: &Namespace) -> PathBuf {
    let inode = namespace.within(|| Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())).unwrap();
    Path::new("/run/mailguard-lock").join(format!("net-{inode}"))
}

#[test]
fn the_next_start_removes_what_an_instance_left_whose_namespace_is_gone() {
    let topology = Topology::new().expect("namespaces");
    let gone = Topology::new().expect("namespaces");
    let left = lock_file(&gone.firewall);
    let place = |program: &str| gone.firewall.command(program);
    let mut killed = Appliance::start(&place, &config()).expect("mailguard runs");
    let (run, pins) = (fs::metadata(killed.folder().join("run")).unwrap(), killed.pin_dir().to_owned());
    let left_for_folder = left.with_file_name(format!("runtime-{}-{}", run.dev(), run.ino()));
    killed.kill().unwrap();
    assert!(left.exists() && left_for_folder.exists(), "killed, it leaves its files");
    let start = || {
        let place = |program: &str| topology.firewall.command(program);
        Appliance::start(&place, &config()).expect("mailguard runs").stop().unwrap();
    };
    start();
    assert!(left.exists(), "its namespace is there, and its programs too");
    assert!(!left_for_folder.exists(), "nobody misses this one");
    // Unloading would remove the file itself.
    fs::remove_dir_all(killed.folder()).unwrap();
    // There only if it had the time to keep what it began with.
    let _ = fs::remove_file(killed.applied());
    std::mem::forget(killed);
    drop(gone);
    wait_until("the next start removes the file", || {
        start();
        !left.exists()
    })
    .unwrap();
    fs::remove_dir_all(pins).unwrap();
}
