//! `bypass.to_names`: the real program, a real name server, and a client whose connections pass or don't by
//! what that says.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{
    CLIENT4, CLIENT6, FIREWALL4, FIREWALL4_WAN, FIREWALL6_WAN, SERVER4, SERVER6, Topology,
};
use mailguard_tests::peers::unbound::Unbound;
use mailguard_tests::peers::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::firewall::{Answer, Session, ZONES};
use crate::servers::Server;

const NAME: &str = "mail.partner.test";

fn config(names: &str) -> String {
    format!(
        "hostname = \"mailguard.example.org\"\n{ZONES}[bypass]\nto_names = [{names}]\n\
         [[incoming_domain]]\ndomain = \"inside.test\"\nserver = \"192.0.2.25\"\n\
         [dns]\nservers = [\"127.0.0.1:53\"]\ntimeout = \"1s\"\n"
    )
}

/// A client, the real program and a name server on the firewall, and a server beyond it.
struct Scene<'a> {
    topology: &'a Topology,
    appliance: Appliance<'a>,
    name_server: Option<Unbound>,
}

impl Scene<'_> {
    /// Has the name server know these records only.
    fn serve(&mut self, records: &[&str]) {
        self.name_server = None;
        let place = |program: &str| self.topology.firewall.command(program);
        let records: Vec<String> = records.iter().map(|record| format!("{NAME}. 60 {record}")).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        self.name_server = Some(Unbound::start(&place, self.appliance.folder(), &records).expect("unbound"));
    }

    fn answer(&self, server: IpAddr) -> Answer {
        match Session::open(&self.topology.client, None, (server, 25).into()) {
            Ok(session) => session.answer,
            Err(answer) => answer,
        }
    }

    /// Waits until the client is answered so, over IPv4 and IPv6.
    #[track_caller]
    fn check(&self, what: &str, expect: [Answer; 2]) {
        let answers = || [self.answer(SERVER4.into()), self.answer(SERVER6.into())];
        let result = wait_until(what, || answers() == expect);
        result.unwrap_or_else(|error| panic!("{error}: {:?}", answers()));
    }

    /// What `mailguard bypass list` shows of the name.
    fn row(&self) -> serde_json::Value {
        self.appliance.json(&["bypass", "list", "to-name"]).unwrap()[0].clone()
    }

    fn problems(&self) -> String {
        self.appliance.json(&["status"]).unwrap()["problems"].to_string()
    }

    /// The resolver's process.
    fn resolver(&self) -> Pid {
        let datapath = self.appliance.process().expect("it runs").pid();
        let mut found = None;
        wait_until("there is a resolver", || {
            found = children(datapath).into_iter().find(|pid| name_of(*pid) == "mailguard-names");
            found.is_some()
        })
        .unwrap();
        found.unwrap()
    }
}

fn name_of(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// The children of every thread of a process.
fn children(pid: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |thread: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default()
    };
    let children: Vec<String> = threads.map(of).collect();
    let pids = children.iter().flat_map(|line| line.split_whitespace());
    pids.map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

fn with_scene(names: &str, records: &[&str], work: impl FnOnce(Scene<'_>)) {
    let topology = Topology::new().expect("namespaces");
    let _servers = Server::start(&topology.server, 25);
    let place = |program: &str| topology.firewall.command(program);
    let appliance = Appliance::prepare(&place, &config(names)).expect("a folder");
    let mut scene = Scene { topology: &topology, appliance, name_server: None };
    scene.serve(records);
    scene.appliance.run().expect("mailguard runs");
    work(scene);
}

const INTERCEPTED: [Answer; 2] = [Answer::Daemon, Answer::Daemon];

fn direct4() -> [Answer; 2] {
    [Answer::server(CLIENT4), Answer::Daemon]
}

fn direct6() -> [Answer; 2] {
    [Answer::Daemon, Answer::server(CLIENT6)]
}

#[test]
fn the_addresses_of_a_name_bypass_and_change_with_it() {
    let (a, aaaa) = (format!("A {SERVER4}"), format!("AAAA {SERVER6}"));
    with_scene("", &[&a], |mut scene| {
        scene.check("nothing bypasses", INTERCEPTED);
        scene.appliance.ok(&["bypass", "add", "to-name", NAME]).unwrap();
        scene.check("the name's address does", direct4());
        let row = scene.row();
        assert_eq!(row["value"], NAME);
        assert_eq!(row["addresses"], serde_json::json!([SERVER4.to_string()]));
        assert!(row["packets"].as_u64() >= Some(1), "{row}");
        assert!(scene.appliance.log().contains("bypass.to_names: other addresses bypass"));

        scene.serve(&[&aaaa]);
        scene.appliance.ok(&["reload"]).unwrap();
        scene.check("a reload asks anew", direct6());

        // Nobody answers: that isn't "no address", neither now nor after a restart.
        scene.name_server = None;
        scene.appliance.ok(&["reload"]).unwrap();
        wait_until("it is said", || scene.row()["note"].to_string().contains("no answer")).unwrap();
        scene.check("an outage changes nothing", direct6());
        scene.appliance.stop().unwrap();
        scene.appliance.run().unwrap();
        assert_eq!(scene.answer(SERVER6.into()), Answer::server(CLIENT6), "from the first packet on");
        scene.check("a restart without a name server changes nothing", direct6());

        // That there is none is an answer.
        scene.serve(&[]);
        scene.appliance.ok(&["reload"]).unwrap();
        scene.check("a name without addresses", INTERCEPTED);
        wait_until("it is a problem", || scene.problems().contains("it has no address")).unwrap();

        scene.serve(&[&a]);
        scene.appliance.ok(&["reload"]).unwrap();
        scene.check("it has one again", direct4());
        scene.appliance.ok(&["bypass", "remove", "to-name", NAME]).unwrap();
        assert_eq!([scene.answer(SERVER4.into()), scene.answer(SERVER6.into())], INTERCEPTED);
    });
}

/// The answers lead to this host, to a server behind it, or to more than one host; only one of them is
/// another's.
#[test]
fn answers_that_lead_to_us_do_not_bypass() {
    let evil = [
        format!("A {FIREWALL4}"),
        format!("A {FIREWALL4_WAN}"),
        "A 127.0.0.1".to_owned(),
        "A 192.0.2.25".to_owned(),
        "A 192.0.2.255".to_owned(),
        "A 192.0.2.99".to_owned(),
        format!("A {SERVER4}"),
        format!("AAAA {FIREWALL6_WAN}"),
        format!("AAAA ::ffff:{FIREWALL4_WAN}"),
        "AAAA 64:ff9b::192.0.2.25".to_owned(),
    ];
    let evil: Vec<&str> = evil.iter().map(String::as_str).collect();
    with_scene("", &evil, |scene| {
        // No interface has this one, but it is routed here.
        scene.topology.firewall.ip("route add local 192.0.2.99 dev lo").unwrap();
        scene.appliance.ok(&["bypass", "add", "to-name", NAME]).unwrap();
        scene.check("the one that is another's bypasses", direct4());
        let row = scene.row();
        assert_eq!(row["addresses"], serde_json::json!([SERVER4.to_string()]), "{row}");
        let note = row["note"].as_str().unwrap();
        assert_eq!(note.matches(" (").count(), evil.len() - 1, "{note}");
        for refused in ["127.0.0.1 (loopback)", "192.0.2.25 (the server", "192.0.2.255 (broadcast)"] {
            assert!(note.contains(refused), "{note}");
        }
        assert!(scene.appliance.log().contains("not every address may bypass"));
        // What becomes ours later bypasses no more.
        scene.topology.firewall.ip(&format!("address add {SERVER4}/32 dev lo")).unwrap();
        wait_until("it is refused", || scene.row()["addresses"] == serde_json::json!([])).unwrap();
        assert!(scene.problems().contains("none of its addresses may bypass"), "{}", scene.problems());
    });
}

#[test]
fn the_resolver_is_nobody_and_is_replaced_when_it_dies() {
    let a = format!("A {SERVER4}");
    with_scene(&format!("\"{NAME}\""), &[&a], |scene| {
        scene.check("it bypasses", direct4());
        let resolver = scene.resolver();
        let status = fs::read_to_string(format!("/proc/{resolver}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let ids = field("Uid:");
        assert!(ids.iter().all(|id| *id == ids[0] && id.parse::<u32>().unwrap() > 65_535), "{ids:?}");
        assert_eq!((field("Gid:"), field("Groups:")), (ids, Vec::new()));
        for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), ["1"]);
        // Who isn't dumpable is looked into by root only: its files in /proc are root's.
        let owner =
            std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{resolver}/mem")).unwrap());
        assert_eq!(owner, 0);

        // Nothing of the datapath process's: no map, no listener, no file.
        for entry in fs::read_dir(format!("/proc/{resolver}/fd")).unwrap() {
            let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
            let target = target.display().to_string();
            let own = ["pipe:", "socket:", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"];
            assert!(target.is_empty() || own.iter().any(|start| target.starts_with(start)), "{target}");
        }

        kill(resolver, Signal::SIGKILL).unwrap();
        wait_until("the log says so", || {
            scene.appliance.log().contains("resolver for bypass.to_names failed")
        })
        .unwrap();
        scene.appliance.ok(&["reload"]).unwrap();
        wait_until("there is another", || scene.resolver() != resolver).unwrap();
        // One that hangs keeps nobody waiting.
        kill(scene.resolver(), Signal::SIGSTOP).unwrap();
        scene.appliance.ok(&["reload"]).unwrap();
        let started = std::time::Instant::now();
        scene.appliance.ok(&["status"]).unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        scene.check("what was known holds", direct4());
    });
}

/// What a run remembers is removed with all else.
#[test]
fn unload_forgets_names() {
    let a = format!("A {SERVER4}");
    with_scene(&format!("\"{NAME}\""), &[&a], |mut scene| {
        scene.check("it bypasses", direct4());
        scene.appliance.stop().unwrap();
        assert_eq!(scene.answer(SERVER4.into()), Answer::server(CLIENT4), "a stop leaves rules in force");
        scene.appliance.ok(&["unload"]).unwrap();
        // With no name server the next run knows nothing.
        scene.name_server = None;
        scene.appliance.run().unwrap();
        wait_until("it is a problem", || scene.problems().contains("no name server answers")).unwrap();
        assert_eq!(scene.answer(SERVER4.into()), Answer::Daemon);
    });
}
