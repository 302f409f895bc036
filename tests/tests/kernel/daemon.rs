//! The real program, killed and hung: port 25 follows `on_proxy_down` while nobody is there, and is
//! intercepted again afterwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{
    CLIENT4, CLIENT4_SECOND, CLIENT4_THIRD, CLIENT6, FIREWALL4_WAN, FIREWALL6_WAN, LAN, SERVER4, SERVER6,
    Topology, WAN,
};
use mailguard_tests::peers::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::firewall::{Answer, Callers, Session, ZONES};
use crate::servers::Server;

/// A client, the real program on the firewall, and a server beyond it.
struct Scene<'a> {
    topology: &'a Topology,
    appliance: Appliance<'a>,
    /// What a client is answered while the proxy is down, over IPv4 and IPv6.
    down: [Answer; 2],
}

/// Who answers the client; a proxy that is connected to but says nothing counts as [`Answer::Daemon`].
fn dial(topology: &Topology, server: IpAddr) -> Answer {
    let destination = (server, 25).into();
    if !Session::connects(&topology.client, destination) {
        return Answer::Nobody;
    }
    match Session::open(&topology.client, None, destination) {
        Ok(session) => session.answer,
        Err(Answer::Nobody) => Answer::Daemon,
        Err(answer) => answer,
    }
}

impl Scene<'_> {
    /// Over both families at one time: whoever isn't answered waits.
    fn answers(&self) -> [Answer; 2] {
        let topology = self.topology;
        std::thread::scope(|scope| {
            let dial = |server: IpAddr| scope.spawn(move || dial(topology, server));
            [SERVER4.into(), SERVER6.into()].map(dial).map(|thread| thread.join().expect("a dialler"))
        })
    }

    #[track_caller]
    fn check_down(&self, what: &str) {
        let result = wait_until(what, || self.answers() == self.down);
        result.unwrap_or_else(|error| panic!("{error}: {:?}", self.answers()));
    }

    #[track_caller]
    fn check_up(&self, what: &str) {
        let greeted = || {
            let open = |server: IpAddr| Session::open(&self.topology.client, None, (server, 25).into());
            [SERVER4.into(), SERVER6.into()]
                .map(open)
                .into_iter()
                .all(|session| session.is_ok_and(|session| session.answer == Answer::Daemon))
        };
        wait_until(what, greeted).unwrap();
    }

    /// Both processes, the datapath process first.
    fn processes(&self) -> [Pid; 2] {
        let parent = self.appliance.process().expect("it runs").pid();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let child = children.trim().parse().unwrap_or_else(|_| panic!("one child: {children}"));
        [parent, Pid::from_raw(child)]
    }
}

fn with_scene(mode: &str, down: [Answer; 2], work: impl FnOnce(Scene<'_>)) {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let config =
        format!("hostname = \"mailguard.example.org\"\n{ZONES}[kernel]\non_proxy_down = \"{mode}\"\n");
    let appliance = Appliance::start(&place, &config).expect("mailguard runs");
    work(Scene { topology: &topology, appliance, down });
}

fn check(mode: &str, down: [Answer; 2]) {
    with_scene(mode, down, |mut scene| {
        scene.check_up("it answers");

        scene.appliance.kill().expect("killed");
        scene.check_down("kill -9");
        scene.appliance.run().expect("it runs again");
        scene.check_up("it answers after a restart");

        let [datapath, mail] = scene.processes();
        for (stopped, what) in [
            (&[mail][..], "the mail process hangs"),
            (&[datapath][..], "the datapath process hangs"),
            (&[datapath, mail][..], "both hang"),
        ] {
            for process in stopped {
                kill(*process, Signal::SIGSTOP).unwrap();
            }
            scene.check_down(what);
            for process in stopped {
                kill(*process, Signal::SIGCONT).unwrap();
            }
            scene.check_up(what);
        }
    });
}

/// The log, while the mail process hangs, says who was turned away, or let pass.
fn check_log(mode: &str, down: [Answer; 2], words: &str) {
    with_scene(mode, down, |scene| {
        scene.check_up("it answers");
        assert!(!scene.appliance.log().contains(words), "{}", scene.appliance.log());
        let [_, mail] = scene.processes();
        kill(mail, Signal::SIGSTOP).unwrap();
        scene.check_down("the mail process hangs");
        for (client, server) in
            [(format!("{CLIENT4}:"), SERVER4.into()), (format!("[{CLIENT6}]:"), SERVER6.into())]
        {
            let destination = SocketAddr::new(server, 25);
            let is_said = |line: &str| {
                [words, &format!("client={client}"), &format!("destination={destination}"), "interface=lan0"]
                    .iter()
                    .all(|part| line.contains(part))
            };
            // Two that dial at one time are one event.
            let said = wait_until("the log has it", || {
                dial(scene.topology, server);
                scene.appliance.log().lines().any(is_said)
            });
            said.unwrap_or_else(|error| panic!("{error}: {}", scene.appliance.log()));
        }
        kill(mail, Signal::SIGCONT).unwrap();
    });
}

#[test]
fn the_log_says_who_was_turned_away_while_the_proxy_was_down() {
    check_log("block", [Answer::Nobody, Answer::Nobody], "kernel: proxy down blocked");
}

#[test]
fn the_log_says_who_passed_while_the_proxy_was_down() {
    check_log("bypass", [Answer::server(CLIENT4), Answer::server(CLIENT6)], "kernel: proxy down passed");
}

#[test]
fn a_dead_or_hung_program_lets_nobody_pass() {
    check("block", [Answer::Nobody, Answer::Nobody]);
}

#[test]
fn a_dead_or_hung_program_is_gone_around() {
    check("bypass", [Answer::server(CLIENT4), Answer::server(CLIENT6)]);
}

#[test]
fn whoever_holds_the_loopback_ports_keeps_nobody_from_being_served() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let taken = || {
        let bind = |address: IpAddr| std::net::TcpListener::bind((address, 10_025));
        Ok([bind(Ipv4Addr::LOCALHOST.into())?, bind(Ipv6Addr::LOCALHOST.into())?])
    };
    let _squatters = topology.firewall.within(taken).expect("the ports");
    let config = format!("hostname = \"mailguard.example.org\"\n{ZONES}");
    let appliance = Appliance::start(&place, &config).expect("mailguard runs");
    assert!(appliance.log().contains("another port is used instead"), "{}", appliance.log());
    let scene = Scene { topology: &topology, appliance, down: [Answer::Nobody, Answer::Nobody] };
    scene.check_up("it answers");
}

#[test]
fn interfaces_that_come_and_go_are_served_by_the_running_program() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    topology.firewall.ip(&format!("link del {LAN}")).unwrap();
    let config = format!("hostname = \"mailguard.example.org\"\n{ZONES}");
    let appliance = Appliance::start(&place, &config).expect("mailguard runs without one of its interfaces");
    let scene = Scene { topology: &topology, appliance, down: [Answer::Nobody, Answer::Nobody] };
    for _ in 0..2 {
        topology.plug_client().unwrap();
        scene.check_up("the transparent zone's interface has come");
        topology.firewall.ip(&format!("link del {LAN}")).unwrap();
    }

    topology.plug_client().unwrap();
    scene.check_up("the transparent zone's interface has come for good");
    let mut session = Session::open(&topology.client, None, (SERVER4, 25).into()).unwrap();
    topology.firewall.ip(&format!("link del {WAN}")).unwrap();
    topology.plug_server().unwrap();
    let active = || {
        [FIREWALL4_WAN.into(), FIREWALL6_WAN.into()].iter().all(|address: &IpAddr| {
            let session = Session::open(&topology.server, None, (*address, 25).into());
            session.is_ok_and(|session| session.answer == Answer::Daemon)
        })
    };
    wait_until("the active zone's interface came anew and is listened on", active).unwrap();
    let reply = session.ask("NOOP");
    assert!(reply.starts_with("250 "), "an open session has nothing to do with it: {reply}");
}

#[test]
fn a_reload_changes_zones_under_open_sessions() {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let config = |zones: &str| format!("hostname = \"mailguard.example.org\"\n{zones}");
    let appliance = Appliance::start(&place, &config(ZONES)).expect("mailguard runs");
    let scene = Scene { topology: &topology, appliance, down: [Answer::Nobody, Answer::Nobody] };
    let processes = scene.processes();
    let open = |server: IpAddr| Session::open(&topology.client, None, (server, 25).into()).unwrap();
    let mut sessions = vec![open(SERVER4.into()), open(SERVER6.into())];
    let direct = [Answer::server(CLIENT4), Answer::server(CLIENT6)];
    let proxied = [Answer::Daemon, Answer::Daemon];
    let red_only = &ZONES[ZONES.rfind("[[zone]]").unwrap()..];
    let renamed = ZONES.replace("\"green\"\nkind", "\"office\"\nkind");
    assert_ne!(renamed, ZONES);
    for (what, zones, answers) in [
        ("the zone is gone", red_only.to_owned(), &direct),
        ("it is back, by another name", renamed.clone(), &proxied),
        ("it is inactive", renamed.replacen("transparent", "inactive", 1), &direct),
        ("it is back", ZONES.to_owned(), &proxied),
    ] {
        scene.appliance.write_config(&config(&zones)).unwrap();
        scene.appliance.ok(&["reload"]).unwrap();
        assert_eq!(&scene.answers(), answers, "{what}");
        for session in &mut sessions {
            let reply = session.ask("NOOP");
            assert!(reply.starts_with("250 "), "{what}: {reply}");
        }
        if answers == &proxied {
            sessions.extend([open(SERVER4.into()), open(SERVER6.into())]);
        }
    }
    for session in &mut sessions {
        assert!(session.ask("QUIT").starts_with("221 "));
    }
    assert_eq!(scene.processes(), processes, "they are the same");

    scene.appliance.write_config(&config(&ZONES.replace("lan0", "lan7"))).unwrap();
    let notes = scene.appliance.ok(&["reload"]).unwrap();
    assert!(notes.contains("lan7 (zone green) isn't served: there is no such interface now"), "{notes}");
    assert_eq!(scene.answers(), direct);
}

/// Restarts under load.
const RESTARTS: usize = 4;

/// Clients dial all the time while the program is stopped and started: whoever is connected is greeted, and
/// who isn't `otherwise`.
fn check_restarts(mode: &str, otherwise: [Answer; 2]) {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let bypassed = format!("[bypass]\nfrom_ips = [\"{CLIENT4_SECOND}\"]\n");
    let listed = format!("[access]\nblacklist_clients = [\"{CLIENT4_THIRD}\"]\n");
    let config = format!(
        "hostname = \"mailguard.example.org\"\n{ZONES}[kernel]\non_proxy_down = \"{mode}\"\n{bypassed}{listed}"
    );
    let mut appliance = Appliance::start(&place, &config).expect("mailguard runs");
    let from =
        |client: Ipv4Addr| Session::open(&topology.client, Some((client, 0).into()), (SERVER4, 25).into());
    let mut direct = from(CLIENT4_SECOND).expect("a bypassed client reaches the server");
    let callers = Callers::start(&topology.client, [SERVER4.into(), SERVER6.into()]);
    for _ in 0..RESTARTS {
        appliance.stop().expect("it stops");
        assert_eq!(from(CLIENT4_THIRD).err(), Some(Answer::Nobody), "the blacklist stays in force");
        appliance.run().expect("it runs");
        assert!(direct.alive(), "a flow that isn't ours");
        wait_until("clients are served again", || dial(&topology, SERVER4.into()) == Answer::Daemon).unwrap();
    }
    let answers = callers.finish();
    let greeted = answers.iter().filter(|answer| **answer == Answer::Daemon).count();
    assert!(greeted > 0, "some were served: {}", answers.len());
    let odd: Vec<_> = answers.iter().filter(|a| **a != Answer::Daemon && !otherwise.contains(*a)).collect();
    assert!(odd.is_empty(), "{} of {}: {odd:?}", odd.len(), answers.len());
}

#[test]
fn restarts_under_load_turn_nobody_away_and_let_nobody_pass() {
    check_restarts("block", [Answer::Nobody, Answer::Nobody]);
}

#[test]
fn restarts_under_load_are_gone_around() {
    check_restarts("bypass", [Answer::server(CLIENT4), Answer::server(CLIENT6)]);
}
