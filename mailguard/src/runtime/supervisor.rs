//! The datapath process: reads the configuration, opens the listeners, steers packets to them, and keeps a mail
//! process alive behind them. It parses nothing that a stranger sent.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use mailguard_core::config::Config;
use nix::sys::signal::{SigSet, Signal};
use tracing::{error, info, warn};

use super::RunError;
use super::descriptors;
use super::instance::{Instance, InstanceError};
use super::ipc::{self, Answer, Current, HandedListener, Request, ToDatapath, ToMail};
use super::log;
use super::names;
use super::spawn::{self, MailUser};
use crate::config::{self, Source};
use crate::datapath::{self, Datapath, Hook, InterfaceStatus, Unloaded};
use crate::intercept::{ListenError, Listeners, ZoneListener};
use crate::names::NamedServers;

/// How long a mail process may take to finish what is under way after Stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const STOP_POLL: Duration = Duration::from_millis(20);
/// How long a start waits for ports that are still in use.
const START_PORTS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a change of zones does: less than it takes the kernel side to miss the heartbeat.
const PORTS_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before a mail process that ended by itself is started anew; doubles up to [`RESTART_MAX`] while they keep
/// ending within [`STABLE_AFTER`].
const RESTART_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A mail process that lived this long was healthy.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How long the mail process may take to read what it is told.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to begin: after a crash it looks at everything that waits.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// How long it may be silent after that: its heartbeat comes each second.
const SILENCE_PATIENCE: Duration = Duration::from_secs(15);
/// Events that wait; whoever has more to say waits, too.
const MAX_WAITING_EVENTS: usize = 64;
/// Open files the mail process may have: sessions, deliveries and bodies together.
const OPEN_FILES: u64 = 1 << 16;

enum Event {
    /// The mail process of this generation said something, then.
    Message(u64, Instant, ToDatapath),
    /// Its end of the channel is closed.
    Hangup(u64),
    Signal(Signal),
    /// An interface came, went or changed.
    Links,
    /// Other addresses bypass by their names.
    Names,
}

/// Why a mail process is no longer served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// We shall stop.
    ToTheEnd,
    /// It ended by itself, or hangs.
    UntilItFailed,
}

/// Runs until SIGTERM or SIGINT. The signals are answered by a thread of its own: all others are started after.
pub fn run(path: &Path) -> Result<(), RunError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    let (events, inbox) = mpsc::sync_channel(MAX_WAITING_EVENTS);
    watch_signals(events.clone())?;
    let (source, config) = read(path)?;
    let level = log::start(&config.log);
    let user = MailUser::find(&config.user)?;
    let mut instance = Instance::claim()?;
    prepare_folders(&config, &user)?;
    instance.claim_runtime_dir(&config.runtime_dir)?;
    if !config.enabled {
        return leave_nothing(instance, &config);
    }
    raise_open_files();
    let listeners = adapted(&Listeners::default(), &config, START_PORTS_PATIENCE)?;
    // Before the first look at the interfaces: none comes unseen.
    let links = events.clone();
    datapath::watch_links(move || links.send(Event::Links).is_ok())
        .map_err(|source| RunError::System { what: "watch the interfaces", source })?;
    let tell = events.clone();
    let names = names::start(&config, move || tell.send(Event::Names).is_ok())?;
    let named = names.bypassed();
    let datapath = Datapath::start_on(&config, &listeners, Hook::of_this_kernel(), named)?;
    if let Some(pin_dir) = instance.pinned_elsewhere(&config.kernel.pin_dir) {
        info!(pin_dir = %pin_dir.display(), "what an earlier run pinned there is removed");
        datapath::remove_old_pins(pin_dir)?;
    }
    instance.note_pins(&config.kernel.pin_dir)?;
    for interface in datapath.interfaces() {
        if let Some(problem) = &interface.problem {
            warn!(interface = interface.name, zone = interface.zone, "not served: {problem}");
        }
    }
    let supervisor = Supervisor {
        source,
        config,
        user,
        level,
        listeners,
        lacking: None,
        datapath,
        names,
        events,
        generation: 0,
        revision: 1,
    };
    supervisor.supervise(&inbox)
}

fn read(path: &Path) -> Result<(Source, Config), RunError> {
    let source = config::load(path).map_err(|error| RunError::Config(error.to_string()))?;
    let config = understand(&source).map_err(RunError::Config)?;
    Ok((source, config))
}

/// What the source means, if the mail process will be able to use it: YARA rules must compile, and keys fit certificates, too.
fn understand(source: &Source) -> Result<Config, String> {
    let config = config::parse(source).map_err(|errors| errors.to_string())?;
    super::examine(&config).map_err(|error| error.to_string())?;
    Ok(config)
}

/// SIGTERM, SIGINT and SIGHUP become events. Blocked here, before any other thread exists.
fn watch_signals(events: SyncSender<Event>) -> Result<(), RunError> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .map_err(|error| RunError::System { what: "block signals", source: error.into() })?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Makes the folders, owned by the mail user. A folder that is there already and somebody else's is left alone.
fn prepare_folders(config: &Config, user: &MailUser) -> Result<(), RunError> {
    for (folder, mode) in [(&config.state_dir, 0o700), (&config.runtime_dir, 0o755)] {
        let fail = |source| RunError::Directory { path: folder.clone(), source };
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) && !user.owns(folder) {
            return Err(RunError::ForeignDirectory { path: folder.clone(), user: config.user.clone() });
        }
        fs::create_dir_all(folder).map_err(fail)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(fail)?;
        user.own(folder)?;
    }
    Ok(())
}

/// `enabled = false`: removes what earlier runs left in the kernel.
fn leave_nothing(instance: Instance, config: &Config) -> Result<(), RunError> {
    if let Some(pin_dir) = instance.pinned_elsewhere(&config.kernel.pin_dir) {
        datapath::remove_old_pins(pin_dir)?;
    }
    names::forget();
    let removed = datapath::unload(&config.kernel.pin_dir)?;
    info!(?removed, "enabled = false: nothing is intercepted and nothing is left in the kernel");
    Ok(instance.forget()?)
}

/// Removes everything from the kernel that is pinned in `pin_dir`, or goes with it, unless an instance runs here.
pub fn unload(pin_dir: &Path) -> Result<Unloaded, RunError> {
    let instance = Instance::claim()?;
    if let Some(theirs) = instance.pinned_elsewhere(pin_dir).filter(|theirs| theirs.exists()) {
        let (theirs, asked) = (theirs.to_owned(), pin_dir.to_owned());
        return Err(InstanceError::OtherPins { theirs, asked }.into());
    }
    names::forget();
    let unloaded = datapath::unload(pin_dir)?;
    instance.forget()?;
    Ok(unloaded)
}

/// The listeners of `config`; waits a while for ports that a mail process is about to give up.
fn adapted(listeners: &Listeners, config: &Config, patience: Duration) -> Result<Listeners, ListenError> {
    let deadline = Instant::now() + patience;
    loop {
        match listeners.adapted(config) {
            Err(error) if error.is_in_use() && Instant::now() < deadline => thread::sleep(STOP_POLL),
            result => return result,
        }
    }
}

/// Raises the limit of open files as far as it goes, at most to [`OPEN_FILES`] if it is lower now.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = soft.max(OPEN_FILES).min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    });
    if let Err(error) = raised {
        warn!(%error, "the limit of open files stays as it was");
    }
}

struct Supervisor {
    source: Source,
    config: Config,
    user: MailUser,
    level: log::Level,
    listeners: Listeners,
    /// Why there aren't all listeners that there should be, if that is so.
    lacking: Option<String>,
    datapath: Datapath,
    names: NamedServers,
    events: SyncSender<Event>,
    generation: u64,
    revision: u64,
}

/// A running mail process.
struct Mail {
    child: Child,
    channel: UnixStream,
    /// Where listeners are handed over.
    descriptors: UnixStream,
    /// Numbers of those that it has.
    listeners: BTreeSet<u64>,
}

impl Supervisor {
    fn supervise(mut self, inbox: &Receiver<Event>) -> Result<(), RunError> {
        let mut pause = RESTART_MIN;
        loop {
            let started = Instant::now();
            match self.start_mail() {
                Ok(mut mail) => match self.serve(inbox, &mut mail) {
                    Served::ToTheEnd => {
                        self.stop(inbox, mail);
                        return Ok(());
                    }
                    Served::UntilItFailed => {
                        let status = mail.child.kill().and_then(|()| mail.child.wait());
                        error!(
                            ?status,
                            "the mail process ended; connections wait in the listeners for the next one"
                        );
                    }
                },
                Err(error) if self.generation == 1 => return Err(error),
                Err(error) => error!(%error, "a mail process can't be started now"),
            }
            pause = if started.elapsed() > STABLE_AFTER { RESTART_MIN } else { (pause * 2).min(RESTART_MAX) };
            if self.stopped_during(inbox, pause) {
                self.datapath.proxy_down()?;
                return Ok(());
            }
        }
    }

    fn start_mail(&mut self) -> Result<Mail, RunError> {
        let fail = |what| move |source| RunError::System { what, source };
        self.generation += 1;
        let channel = || spawn::channel().map_err(fail("make a channel to the mail process"));
        let ((channel, their_channel), (descriptors, their_descriptors)) = (channel()?, channel()?);
        for end in [&channel, &descriptors] {
            end.set_write_timeout(Some(WRITE_PATIENCE)).map_err(fail("set up the channels"))?;
        }
        self.watch_channel(&channel).map_err(fail("read from the mail process"))?;
        let number = their_descriptors.as_raw_fd();
        let child = spawn::mail_process(&self.user, their_channel, their_descriptors)
            .map_err(fail("start the mail process"))?;
        info!(pid = child.id(), "the mail process is started");
        let mut mail = Mail { child, channel, descriptors, listeners: BTreeSet::new() };
        let listeners = self.hand_over(&mut mail);
        self.tell(&mut mail, &ToMail::Start { current: self.current(), descriptors: number, listeners });
        Ok(mail)
    }

    /// Hands over the listeners that the mail process hasn't got.
    fn hand_over(&self, mail: &mut Mail) -> Vec<HandedListener> {
        let new: Vec<_> = self.listeners.iter().filter(|new| !mail.listeners.contains(&new.id)).collect();
        let sockets: Vec<_> = new.iter().map(|listener| listener.socket.as_fd()).collect();
        if let Err(error) = descriptors::send(&mail.descriptors, &sockets) {
            warn!(%error, "the mail process doesn't take its listeners and is ended");
            let _ = mail.child.kill();
        }
        mail.listeners.extend(new.iter().map(|listener| listener.id));
        let handed = |l: &ZoneListener| HandedListener { id: l.id, purpose: l.purpose.clone() };
        new.into_iter().map(handed).collect()
    }

    /// Tells the mail process of listeners that have come or gone, if there are any.
    fn announce_listeners(&self, mail: &mut Mail) {
        let kept: BTreeSet<u64> = self.listeners.iter().map(|listener| listener.id).collect();
        if kept != mail.listeners {
            self.announce(mail);
        }
    }

    /// Tells the mail process what is in force.
    fn announce(&self, mail: &mut Mail) {
        let kept: BTreeSet<u64> = self.listeners.iter().map(|listener| listener.id).collect();
        let closed = mail.listeners.difference(&kept).copied().collect();
        let opened = self.hand_over(mail);
        mail.listeners = kept;
        self.tell(mail, &ToMail::Changed { current: self.current(), opened, closed });
    }

    /// Turns what the mail process says into events, until it hangs up.
    fn watch_channel(&self, channel: &UnixStream) -> io::Result<()> {
        let (mut from, events, generation) = (channel.try_clone()?, self.events.clone(), self.generation);
        thread::Builder::new().name("channel".to_owned()).spawn(move || {
            while let Ok(message) = ipc::read(&mut from, ipc::MAX_REQUEST_OCTETS) {
                if events.send(Event::Message(generation, Instant::now(), message)).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::Hangup(generation));
        })?;
        Ok(())
    }

    fn current(&self) -> Current {
        Current { source: self.source.clone(), revision: self.revision }
    }

    /// Serves one mail process, until something says that it is over.
    fn serve(&mut self, inbox: &Receiver<Event>, mail: &mut Mail) -> Served {
        let (mut heard, mut patience) = (Instant::now(), START_PATIENCE);
        loop {
            let silence = heard.elapsed();
            if silence >= patience {
                error!(?silence, "the mail process hangs and is ended");
                return Served::UntilItFailed;
            }
            match inbox.recv_timeout(patience - silence) {
                Ok(Event::Signal(Signal::SIGHUP)) => {
                    if self.reload_or_say() {
                        self.announce(mail);
                    }
                }
                Ok(Event::Links) => {
                    self.follow_interfaces(PORTS_PATIENCE);
                    self.announce_listeners(mail);
                }
                Ok(Event::Names) => names::follow(&self.names, &mut self.datapath, &self.config),
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Disconnected) => return Served::ToTheEnd,
                Ok(Event::Hangup(generation)) if generation == self.generation => {
                    return Served::UntilItFailed;
                }
                Ok(Event::Message(generation, said, message)) if generation == self.generation => {
                    (heard, patience) = (Instant::now(), SILENCE_PATIENCE);
                    self.handle(mail, said, message);
                }
                Ok(Event::Hangup(_) | Event::Message(..)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Serves the interfaces that are there now. Waits for ports at most so long.
    fn follow_interfaces(&mut self, patience: Duration) {
        match adapted(&self.listeners, &self.config, patience) {
            Ok(listeners) => (self.listeners, self.lacking) = (listeners, None),
            Err(error) => {
                let why = Some(error.to_string());
                // Once, however often it is tried.
                if self.lacking != why {
                    error!(%error, "a zone isn't served on an interface that came; it is tried again");
                }
                self.lacking = why;
            }
        }
        match self.datapath.follow_interfaces(&self.config, &self.listeners) {
            Ok(true) => self.log_interfaces(),
            Ok(false) => {}
            Err(error) => error!(%error, "the interfaces that came or went can't be followed"),
        }
    }

    fn log_interfaces(&self) {
        for interface in self.datapath.interfaces() {
            let state = match &interface.problem {
                Some(problem) => problem,
                None if interface.leaving => "serves only the sessions that are open",
                None => "served",
            };
            info!(interface = interface.name, zone = interface.zone, "{state}");
        }
    }

    /// Reloads at SIGHUP; true when something new is in force.
    fn reload_or_say(&mut self) -> bool {
        match self.reload() {
            Ok(()) => true,
            Err(text) => {
                error!("reload refused, the old configuration stays in force: {text}");
                false
            }
        }
    }

    fn handle(&mut self, mail: &mut Mail, said: Instant, message: ToDatapath) {
        match message {
            ToDatapath::Heartbeat { oldest_session } => {
                if let Err(error) = self.datapath.heartbeat() {
                    error!(%error, "the kernel side can't be told that the mail process lives");
                }
                self.release_interfaces(oldest_session.and_then(|age| said.checked_sub(age)));
                if self.lacking.is_some() {
                    self.follow_interfaces(Duration::ZERO);
                    self.announce_listeners(mail);
                }
            }
            ToDatapath::Request { id, request } => {
                let result = self.perform(request);
                self.announce_listeners(mail);
                self.tell(mail, &ToMail::Answer { id, result });
            }
        }
    }

    /// Leaves interfaces alone whose zones have given them up, when their last session is over.
    fn release_interfaces(&mut self, oldest: Option<Instant>) {
        let now = Instant::now();
        match self.datapath.note_oldest_session(oldest, now, &self.config, &self.listeners) {
            Ok(true) => self.log_interfaces(),
            Ok(false) => {}
            Err(error) => error!(%error, "an interface that left its zone can't be left alone"),
        }
    }

    fn tell(&self, mail: &mut Mail, message: &ToMail) {
        if let Err(error) = ipc::write(&mut mail.channel, message) {
            warn!(%error, "the mail process doesn't listen and is ended");
            // Half a frame may be on its way: nothing more can be said on this channel.
            let _ = mail.child.kill();
        }
    }

    fn perform(&mut self, request: Request) -> Result<Answer, String> {
        match request {
            Request::Reload => {
                self.reload()?;
                Ok(Answer::Current { current: self.current(), notes: self.interface_notes() })
            }
            Request::Edit(change) => {
                let edited = config::edit(&self.source, &change).map_err(|error| error.to_string())?;
                let config = understand(&edited)?;
                let before = (self.source.clone(), self.config.clone());
                self.adopt(edited, config)?;
                // Only what is in force is written, and what can't be written isn't left in force.
                if let Err(error) = config::write(&before.0, &self.source) {
                    let (source, config) = before;
                    self.adopt(source, config)?;
                    return Err(error.to_string());
                }
                Ok(Answer::Current { current: self.current(), notes: Vec::new() })
            }
            Request::RuleCounts => {
                let rules = self.datapath.rule_counts().map_err(|error| error.to_string())?;
                Ok(Answer::RuleCounts { rules, names: self.names.status() })
            }
            Request::Status => {
                let kernel = self.datapath.status().map_err(|error| error.to_string())?;
                let kernel = serde_json::to_value(kernel).map_err(|error| error.to_string())?;
                Ok(Answer::Status { kernel, problems: names::problems(&self.names.status()) })
            }
            Request::Ban(bans) => {
                self.datapath.ban(&bans).map(|()| Answer::Done).map_err(|error| error.to_string())
            }
            Request::Lift(clients) => {
                self.datapath.lift(&clients).map(|_| Answer::Done).map_err(|error| error.to_string())
            }
            Request::Bans => self.datapath.bans().map(Answer::Bans).map_err(|error| error.to_string()),
        }
    }

    /// Reads the file again and applies it whole, or changes nothing. Names are asked for anew.
    fn reload(&mut self) -> Result<(), String> {
        let (source, config) = read(&self.source.path).map_err(|error| error.to_string())?;
        self.adopt(source, config)?;
        self.names.adopt(&self.config, true);
        Ok(())
    }

    fn adopt(&mut self, source: Source, config: Config) -> Result<(), String> {
        if let Some(what) = needs_restart(&self.config, &config) {
            return Err(format!("{what} changed: restart needed, nothing was applied"));
        }
        let listeners =
            adapted(&self.listeners, &config, PORTS_PATIENCE).map_err(|error| error.to_string())?;
        if let Err(error) = self.datapath.apply(&config, &listeners) {
            if let Err(again) = self.datapath.apply(&self.config, &self.listeners) {
                error!(%again, "the configuration in force can't be restored");
            }
            self.listeners.give_up(&listeners);
            return Err(error.to_string());
        }
        self.level.set(&config.log);
        (self.source, self.config, self.listeners, self.lacking) = (source, config, listeners, None);
        self.names.adopt(&self.config, false);
        names::follow(&self.names, &mut self.datapath, &self.config);
        self.revision += 1;
        Ok(())
    }

    /// A line for each interface that something is the matter with.
    fn interface_notes(&self) -> Vec<String> {
        let problem = |interface: &InterfaceStatus| {
            let InterfaceStatus { name, zone, problem, .. } = interface;
            problem.as_ref().map(|problem| format!("{name} (zone {zone}) isn't served: {problem}"))
        };
        self.datapath.interfaces().iter().filter_map(problem).collect()
    }

    /// Puts the fail mode in force, then lets the mail process finish.
    fn stop(mut self, inbox: &Receiver<Event>, mail: Mail) {
        if let Err(error) = self.datapath.proxy_down() {
            error!(%error, "on_proxy_down can't be put in force");
        }
        self.finish(inbox, mail);
        info!("stopped; rules and drops stay in force until `mailguard unload`");
    }

    /// Asks the mail process to finish and waits for its end, for [`STOP_PATIENCE`] at most, or until we are asked to stop
    /// once more.
    fn finish(&mut self, inbox: &Receiver<Event>, mut mail: Mail) {
        self.tell(&mut mail, &ToMail::Stop);
        let deadline = Instant::now() + STOP_PATIENCE;
        // A process that closes its stores has no channel any more: what counts is its end.
        while matches!(mail.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            match inbox.recv_timeout(STOP_POLL) {
                Ok(Event::Signal(Signal::SIGTERM | Signal::SIGINT)) | Err(RecvTimeoutError::Disconnected) => {
                    break;
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
        let _ = mail.child.kill();
        let status = mail.child.wait();
        info!(?status, "the mail process has ended");
    }

    /// Waits `pause`; true when a signal says to stop meanwhile.
    fn stopped_during(&mut self, inbox: &Receiver<Event>, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        loop {
            match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Signal(Signal::SIGHUP)) => {
                    self.reload_or_say();
                }
                Ok(Event::Links) => {
                    self.follow_interfaces(PORTS_PATIENCE);
                }
                Ok(Event::Names) => names::follow(&self.names, &mut self.datapath, &self.config),
                Ok(Event::Message(..) | Event::Hangup(_)) => {}
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

/// What can't be changed while we run: the keys that did change.
fn needs_restart(old: &Config, new: &Config) -> Option<String> {
    let changed: Vec<&str> = [
        ("enabled", old.enabled != new.enabled),
        ("state_dir", old.state_dir != new.state_dir),
        ("runtime_dir", old.runtime_dir != new.runtime_dir),
        ("user", old.user != new.user),
        ("kernel.pin_dir", old.kernel.pin_dir != new.kernel.pin_dir),
        ("kernel.proxy_port", old.kernel.proxy_port != new.kernel.proxy_port),
        ("log.format", old.log.format != new.log.format),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}
