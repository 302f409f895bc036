//! Clients that come again from the port of a session that the firewall remembers (TIME_WAIT), where packets
//! pass without mailguard: none of them waits until it forgets.

use std::io::Read;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{CLIENT4, CLIENT6, FIREWALL4, FIREWALL6, SERVER4, SERVER6, Topology};
use mailguard_tests::peers::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::firewall::{Answer, Session, ZONES};
use crate::servers::Server;

/// The client's ports in use, the first of them.
const PORT: u16 = 40_301;
/// A mail process that gave no sign of life for so long is down, and isn't killed as one that hangs yet.
const SILENCE: Duration = Duration::from_secs(4);
/// How long a client may be kept waiting: much less than TIME_WAIT.
const PATIENCE: Duration = Duration::from_secs(15);

fn families() -> [(IpAddr, IpAddr); 2] {
    [(CLIENT4.into(), SERVER4.into()), (CLIENT6.into(), SERVER6.into())]
}

/// The firewall's closed sessions with the client's ports.
fn remembered(topology: &Topology) -> usize {
    let filter = ["-Htan", "state", "time-wait", "sport = :25"];
    let output = topology.firewall.command("ss").args(filter).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().count()
}

/// A session of each family with the appliance, which closes it first.
fn close_sessions(topology: &Topology) {
    for (client, server) in families() {
        let source = Some((client, PORT).into());
        wait_until("it greets", || {
            let session = Session::open(&topology.client, source, (server, 25).into());
            session.is_ok_and(Session::quit)
        })
        .unwrap();
    }
    wait_until("the firewall remembers both", || remembered(topology) >= 2).unwrap();
}

/// Both dial again from the same ports and reach the server soon.
#[track_caller]
fn check_passes(topology: &Topology, what: &str) {
    for (client, server) in families() {
        let deadline = Instant::now() + PATIENCE;
        let source = Some((client, PORT).into());
        let answer = loop {
            let session = Session::open(&topology.client, source, (server, 25).into());
            match session.map_or_else(|answer| answer, |session| session.answer) {
                Answer::Nobody | Answer::Refused if Instant::now() < deadline => {}
                answer => break answer,
            }
        };
        assert_eq!(answer, Answer::server(client), "{what}");
    }
}

fn with_appliance(mode: &str, work: impl FnOnce(&Topology, Appliance<'_>)) {
    let topology = Topology::new().expect("namespaces");
    topology.firewall.sysctl("net.ipv4.ip_early_demux", "1").unwrap();
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let config =
        format!("hostname = \"mailguard.example.org\"\n{ZONES}[kernel]\non_proxy_down = \"{mode}\"\n");
    let appliance = Appliance::start(&place, &config).expect("mailguard runs");
    work(&topology, appliance);
}

#[test]
fn after_a_stop_and_unload_a_client_comes_again_from_its_port_at_once() {
    with_appliance("block", |topology, mut appliance| {
        close_sessions(topology);
        appliance.stop().unwrap();
        let removed = appliance.ok(&["unload"]).unwrap();
        assert!(removed.contains("2 closed sessions"), "{removed}");
        assert_eq!(remembered(topology), 0);
        check_passes(topology, "unloaded");
    });
}

#[test]
fn with_bypass_a_client_comes_again_from_its_port_at_once_however_mailguard_ended() {
    with_appliance("bypass", |topology, mut appliance| {
        close_sessions(topology);
        appliance.stop().unwrap();
        assert_eq!(remembered(topology), 0, "what may be met without a program is forgotten");
        check_passes(topology, "stopped");

        appliance.run().unwrap();
        close_sessions(topology);
        let parent = appliance.process().unwrap().pid();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let mail = Pid::from_raw(children.trim().parse().unwrap());
        kill(mail, Signal::SIGSTOP).unwrap();
        // Until then clients are taken, and wait in the listener for the next mail process.
        thread::sleep(SILENCE);
        check_passes(topology, "the mail process hangs");
        wait_until("its closed sessions are forgotten", || remembered(topology) == 0).unwrap();
        // It may have been killed as one that hangs, by now.
        let _ = kill(mail, Signal::SIGCONT);

        close_sessions(topology);
        appliance.kill().unwrap();
        check_passes(topology, "kill -9: nobody can have it forget, and the program leads around");
    });
}

#[test]
fn a_client_that_was_bypassed_while_the_programs_were_gone_comes_again_at_once() {
    with_appliance("block", |topology, mut appliance| {
        close_sessions(topology);
        appliance.stop().unwrap();
        let config = std::fs::read_to_string(appliance.config()).unwrap();
        let bypass = format!("\n[bypass]\nfrom_ips = [\"{CLIENT4}\", \"{CLIENT6}\"]\n");
        std::fs::write(appliance.config(), config + &bypass).unwrap();
        appliance.ok(&["unload"]).unwrap();
        check_passes(topology, "the programs are gone");
        appliance.run().unwrap();
        check_passes(topology, "bypassed");
    });
}

#[test]
fn what_the_firewalls_own_server_remembers_is_left_alone() {
    let topology = Topology::new().expect("namespaces");
    for (client, server) in
        [(IpAddr::from(CLIENT4), IpAddr::from(FIREWALL4)), (CLIENT6.into(), FIREWALL6.into())]
    {
        // A server that closes first: that end remembers.
        let listener = topology.firewall.within(|| Ok(TcpListener::bind((server, 25))?)).unwrap();
        let dial = || Ok(TcpStream::connect((server, 25))?);
        let mut dialled = topology.client.within(dial).unwrap();
        assert_eq!(dialled.peer_addr().unwrap().ip(), server, "{client}");
        drop(listener.accept().unwrap());
        assert_eq!(dialled.read(&mut [0]).unwrap(), 0);
    }
    wait_until("the firewall remembers both", || remembered(&topology) == 2).unwrap();
    let place = |program: &str| topology.firewall.command(program);
    let config = format!("hostname = \"mailguard.example.org\"\n{ZONES}");
    let appliance = Appliance::prepare(&place, &config).unwrap();
    let removed = appliance.ok(&["unload"]).unwrap();
    assert!(!removed.contains("closed sessions"), "{removed}");
    assert_eq!(remembered(&topology), 2);
}
