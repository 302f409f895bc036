//! The firewall under test: the kernel side of a configuration in a namespace, and the proxy behind it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mailguard::config::{Source, parse_and_validate};
use mailguard::datapath::{self, Datapath, DatapathStatus, Hook, Occasion};
use mailguard::intercept::Listeners;
use mailguard_core::config::Config;
use mailguard_tests::netns::{Namespace, Topology};
use socket2::{Domain, Protocol, Socket, Type};

use crate::servers::{Proxy, Server};

/// How long a client waits before it says that nobody answers: time for one retransmission, and less than it
/// takes the kernel side to miss the heartbeat.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How long it waits for large data.
const LONG_PATIENCE: Duration = Duration::from_secs(20);

/// A transparent zone towards the client, an active one towards the server.
pub(crate) const ZONES: &str = r#"
[[zone]]
name = "green"
kind = "green"
interfaces = ["lan0"]
mode = "transparent"
[[zone]]
name = "red"
kind = "red"
interfaces = ["wan0"]
mode = "active"
"#;

/// The TC hooks of the kernel that the tests run on: every one has clsact.
pub(crate) fn hooks() -> Vec<Hook> {
    match Hook::of_this_kernel() {
        Hook::Tcx => vec![Hook::Tcx, Hook::Clsact],
        Hook::Clsact => vec![Hook::Clsact],
    }
}

/// Who answered a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The proxy, and what it knows: zone, client, destination address, whether that is the firewall's.
    Proxy { zone: usize, client: IpAddr, destination: SocketAddr, ours: bool },
    /// The real server, or another MTA, which saw this client.
    Server(IpAddr),
    /// The real program.
    Daemon,
    /// A RST.
    Refused,
    /// Nobody.
    Nobody,
}

/// The three namespaces, and what runs in them.
pub(crate) struct Firewall {
    pub(crate) topology: Topology,
    datapath: RefCell<Option<Datapath>>,
    proxy_lives: bool,
    pub(crate) config: Config,
    listeners: Listeners,
    /// By the numbers of their listeners.
    proxies: BTreeMap<u64, Proxy>,
    servers: Vec<Server>,
    pin_dir: PathBuf,
}

impl Firewall {
    /// Namespaces and server, nothing on the firewall yet.
    pub(crate) fn idle(config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pin_dir = PathBuf::from(format!("/sys/fs/bpf/mgtest-{}-{number}", std::process::id()));
        let topology = Topology::new().expect("namespaces need root and iproute2");
        let servers = [25, 2525].map(|port| Server::start(&topology.server, port));
        let config = configuration(config, &pin_dir);
        let servers = servers.into_iter().flatten().collect();
        Self {
            topology,
            datapath: RefCell::new(None),
            proxy_lives: true,
            config,
            listeners: Listeners::default(),
            proxies: BTreeMap::new(),
            servers,
            pin_dir,
        }
    }

    /// All of it, with [`ZONES`] and these settings.
    pub(crate) fn new(settings: &str) -> Self {
        let mut firewall = Self::idle(&format!("{ZONES}{settings}"));
        firewall.start();
        firewall
    }

    /// Opens the listeners, unless they are open, and starts the kernel side.
    pub(crate) fn start(&mut self) {
        self.start_on(Hook::of_this_kernel());
    }

    /// [`Firewall::start`] at the given hook.
    pub(crate) fn start_on(&mut self, hook: Hook) {
        self.listen();
        let (config, listeners) = (&self.config, &self.listeners);
        let start = || Datapath::start_on(config, listeners, hook, BTreeSet::new()).context("start");
        self.datapath = RefCell::new(Some(self.topology.firewall.within(start).unwrap()));
    }

    fn listen(&mut self) {
        if self.proxies.is_empty() {
            self.listeners = self.adapted_listeners();
            self.serve_listeners();
        }
    }

    fn adapted_listeners(&self) -> Listeners {
        let (listeners, config) = (&self.listeners, &self.config);
        self.topology.firewall.within(|| Ok(listeners.adapted(config)?)).unwrap()
    }

    /// A proxy for each listener; those of listeners that are no longer wanted keep their sessions.
    fn serve_listeners(&mut self) {
        for listener in self.listeners.iter() {
            let zones = &self.config.zones;
            let zone = zones.iter().position(|zone| zone.name == listener.purpose.zone).unwrap();
            let start = || Proxy::start(&self.topology.firewall, zone, listener);
            self.proxies.entry(listener.id).or_insert_with(start);
        }
    }

    /// The proxy's process closes the listeners that are no longer wanted, with their sessions.
    pub(crate) fn close_unwanted(&mut self) {
        let wanted: Vec<u64> = self.listeners.iter().map(|listener| listener.id).collect();
        self.proxies.retain(|id, _| wanted.contains(id));
    }

    /// The proxy's process dies: listeners and sessions are closed.
    pub(crate) fn kill_proxy(&mut self) {
        self.proxies.clear();
        self.listeners = Listeners::default();
    }

    /// Replaces the configuration, as a reload does.
    pub(crate) fn reload(&mut self, settings: &str) -> datapath::Applied {
        self.reload_zones(&format!("{ZONES}{settings}"))
    }

    /// [`Firewall::reload`] with other zones.
    pub(crate) fn reload_zones(&mut self, zones_and_settings: &str) -> datapath::Applied {
        self.config = configuration(zones_and_settings, &self.pin_dir);
        self.listeners = self.adapted_listeners();
        self.serve_listeners();
        let (config, listeners) = (&self.config, &self.listeners);
        let datapath = self.datapath.get_mut().as_mut().unwrap();
        self.topology.firewall.within(|| Ok(datapath.apply(config, listeners)?)).unwrap()
    }

    /// So long after now no session is open any more.
    pub(crate) fn end_all_sessions(&mut self, later: Duration) {
        let (config, listeners) = (&self.config, &self.listeners);
        let datapath = self.datapath.get_mut().as_mut().unwrap();
        let note = || Ok(datapath.note_oldest_session(None, Instant::now() + later, config, listeners)?);
        self.topology.firewall.within(note).unwrap();
    }

    /// Removes the kernel side.
    pub(crate) fn unload(&mut self) -> datapath::Unloaded {
        self.stop();
        let pin_dir = &self.pin_dir;
        self.topology.firewall.within(|| Ok(datapath::unload(pin_dir)?)).unwrap()
    }

    /// Uses the pins of `other`.
    pub(crate) fn share_pins(&mut self, other: &Self) {
        self.pin_dir = other.pin_dir.clone();
        self.config.kernel.pin_dir = other.pin_dir.clone();
    }

    /// [`Firewall::start`], or why it fails.
    pub(crate) fn try_start(&mut self) -> Result<(), String> {
        self.listen();
        let (config, listeners) = (&self.config, &self.listeners);
        let start = || Ok(Datapath::start(config, listeners).map_err(|error| error.to_string()));
        let started = self.topology.firewall.within(start).unwrap()?;
        self.datapath = RefCell::new(Some(started));
        Ok(())
    }

    /// Looks after interfaces that came or went; whether there were any.
    pub(crate) fn follow_interfaces(&mut self) -> bool {
        self.listeners = self.adapted_listeners();
        self.serve_listeners();
        let (config, listeners) = (&self.config, &self.listeners);
        let datapath = self.datapath.get_mut().as_mut().unwrap();
        self.topology.firewall.within(|| Ok(datapath.follow_interfaces(config, listeners)?)).unwrap()
    }

    /// Has the kernel side looked at, and mended.
    pub(crate) fn verify(&mut self, occasion: Occasion) {
        let datapath = self.datapath.get_mut().as_mut().unwrap();
        let verify = || {
            datapath.verify(occasion);
            Ok(())
        };
        self.topology.firewall.within(verify).unwrap();
    }

    pub(crate) fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    pub(crate) fn datapath(&mut self) -> &mut Datapath {
        self.datapath.get_mut().as_mut().unwrap()
    }

    /// The datapath process ends; what it pinned stays.
    pub(crate) fn stop(&mut self) {
        *self.datapath.get_mut() = None;
    }

    pub(crate) fn status(&self) -> DatapathStatus {
        self.datapath.borrow().as_ref().unwrap().status().unwrap()
    }

    /// What is the matter, a line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.datapath.borrow().as_ref().unwrap().problems()
    }

    /// The heartbeat that the supervisor owes each second, unless the test has let it die. By our own account
    /// and not the kernel side's: a slow machine may have missed one.
    pub(crate) fn beat(&self) {
        if let Some(datapath) = self.datapath.borrow_mut().as_mut()
            && self.proxy_lives
        {
            datapath.heartbeat().unwrap();
        }
    }

    /// From here on the proxy gives no sign of life.
    pub(crate) fn silence(&mut self) {
        self.proxy_lives = false;
    }

    /// It gives one again, and goes on.
    pub(crate) fn revive(&mut self) {
        self.proxy_lives = true;
        self.beat();
    }

    /// Packets that were counted for `reason`.
    pub(crate) fn packets(&self, reason: &str) -> u64 {
        let status = self.status();
        let found = status.reasons.iter().find(|count| count.reason.name() == reason);
        found.unwrap_or_else(|| panic!("no reason {reason}")).packets
    }

    /// Packets that the rule `value` of `list` decided about.
    pub(crate) fn rule_packets(&self, list: &str, value: &str) -> u64 {
        let status = self.status();
        let found =
            status.rules.iter().find(|count| count.key.list().name() == list && count.key.value() == value);
        found.map_or(0, |count| count.packets)
    }

    /// Who answers the client that dials port 25 of `destination`.
    pub(crate) fn dial(&self, destination: impl Into<IpAddr>) -> Answer {
        self.beat();
        Session::open(&self.topology.client, None, (destination.into(), 25).into())
            .map_or_else(|answer| answer, |s| s.answer)
    }

    /// Who answers when it dials from `source`.
    pub(crate) fn dial_from(&self, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Answer {
        self.beat();
        let source = Some((source.into(), 0).into());
        Session::open(&self.topology.client, source, (destination.into(), 25).into())
            .map_or_else(|answer| answer, |s| s.answer)
    }

    /// A session of the client with port 25 of `destination`.
    pub(crate) fn session(&self, destination: impl Into<IpAddr>) -> Session {
        Session::open(&self.topology.client, None, (destination.into(), 25).into()).expect("somebody answers")
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        self.unload();
        self.proxies.clear();
        self.servers.clear();
    }
}

impl Answer {
    /// The proxy of the transparent zone, for an address that isn't the firewall's.
    pub(crate) fn intercepted(client: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        let destination = (destination.into(), 25).into();
        Self::Proxy { zone: 0, client: client.into(), destination, ours: false }
    }

    pub(crate) fn server(client: impl Into<IpAddr>) -> Self {
        Self::Server(client.into())
    }
}

fn configuration(text: &str, pin_dir: &Path) -> Config {
    let kernel = format!("[kernel]\npin_dir = \"{}\"\n", pin_dir.display());
    let text = match text.contains("[kernel]\n") {
        true => text.replace("[kernel]\n", &kernel),
        false => format!("{text}\n{kernel}"),
    };
    let text = format!("hostname = \"mailguard.example.org\"\n{text}");
    parse_and_validate(&Source::of_text("test.toml", text)).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A client's connection that was answered.
pub(crate) struct Session {
    pub(crate) answer: Answer,
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Dials `destination` in `namespace` and reads the greeting.
    pub(crate) fn open(
        namespace: &Namespace,
        source: Option<SocketAddr>,
        destination: SocketAddr,
    ) -> Result<Self, Answer> {
        Self::greeted(namespace.within(|| connect(source, destination)).expect("a socket can be made"))
    }

    /// [`Session::open`] by a thread that is in the client's namespace already.
    pub(crate) fn open_here(destination: SocketAddr) -> Result<Self, Answer> {
        Self::greeted(connect(None, destination).expect("a socket can be made"))
    }

    /// Whether a connection comes about, greeted or not.
    pub(crate) fn connects(namespace: &Namespace, destination: SocketAddr) -> bool {
        namespace.within(|| connect(None, destination)).expect("a socket can be made").is_ok()
    }

    fn greeted(connected: std::io::Result<TcpStream>) -> Result<Self, Answer> {
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Err(Answer::Refused);
            }
            Err(_) => return Err(Answer::Nobody),
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        match stream.read_line(&mut greeting) {
            Ok(octets) if octets > 0 => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(Answer::Refused),
            _ => return Err(Answer::Nobody),
        }
        let words: Vec<&str> = greeting.split_whitespace().collect();
        let answer = match words[..] {
            ["proxy", zone, client, destination, ours] => Answer::Proxy {
                zone: zone.parse().unwrap(),
                client: client.parse().unwrap(),
                destination: destination.parse().unwrap(),
                ours: ours.parse().unwrap(),
            },
            ["220", ..] => Answer::Daemon,
            ["server", client] => Answer::Server(client.parse().unwrap()),
            _ => panic!("{greeting}"),
        };
        Ok(Self { answer, stream })
    }

    /// Whether the other end still echoes.
    pub(crate) fn alive(&mut self) -> bool {
        self.echo(b"hello\n")
    }

    /// Whether this line comes back.
    pub(crate) fn echo(&mut self, line: &[u8]) -> bool {
        let mut answer = Vec::new();
        self.stream.get_mut().write_all(line).is_ok()
            && self.stream.read_until(b'\n', &mut answer).is_ok()
            && answer == line
    }

    /// What a server of SMTP says to this line: the first line of it.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let mut answer = String::new();
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.stream.read_line(&mut answer).unwrap();
        answer
    }

    /// [`Session::echo`] of so much that it takes a while, or a retransmission.
    pub(crate) fn echo_patiently(&mut self, line: &[u8]) -> bool {
        self.stream.get_ref().set_read_timeout(Some(LONG_PATIENCE)).unwrap();
        self.echo(line)
    }

    /// Ends a session of SMTP, and waits until the server has closed it; whether it did so politely.
    pub(crate) fn quit(mut self) -> bool {
        let mut rest = Vec::new();
        self.ask("QUIT").starts_with("221 ")
            && self.stream.read_until(b'\n', &mut rest).is_ok()
            && rest.is_empty()
    }

    /// The client's own address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().unwrap()
    }

    /// Asks the other end to close first, and waits until it did.
    pub(crate) fn ask_to_close(mut self) {
        let mut rest = Vec::new();
        self.stream.get_mut().write_all(b"close\n").unwrap();
        self.stream.read_until(b'\n', &mut rest).unwrap();
        assert!(rest.is_empty(), "closed without a word");
    }
}

/// Dials `destination`; the outer error is the test's, the inner one the connection's.
fn connect(source: Option<SocketAddr>, destination: SocketAddr) -> Result<std::io::Result<TcpStream>> {
    let socket = Socket::new(Domain::for_address(destination), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    Ok(socket.connect_timeout(&destination.into(), PATIENCE).map(|()| TcpStream::from(socket)))
}

/// Connects to each of `servers` all the time, and collects who answers.
pub(crate) struct Callers {
    calling: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Answer>>>,
}

impl Callers {
    /// One caller a server, in `namespace`.
    pub(crate) fn start(namespace: &Namespace, servers: [IpAddr; 2]) -> Self {
        let calling = Arc::new(AtomicBool::new(true));
        let caller = |server: IpAddr| {
            let (path, calling) = (namespace.path(), calling.clone());
            std::thread::spawn(move || {
                let namespace = std::fs::File::open(path).unwrap();
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let mut answers = Vec::new();
                while calling.load(Ordering::Relaxed) {
                    let session = Session::open_here((server, 25).into());
                    answers.push(session.map_or_else(|answer| answer, |session| session.answer));
                }
                answers
            })
        };
        let threads = servers.map(caller).into();
        Self { calling, threads }
    }

    /// Who answered; at least one call a caller.
    pub(crate) fn finish(self) -> Vec<Answer> {
        self.calling.store(false, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}
