//! The datapath process: reads the configuration, opens the listeners, steers packets to them, and keeps a mail
//! process alive behind them. It parses nothing that a stranger sent.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use mailguard_core::config::Config;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use tracing::{error, info, warn};

use super::RunError;
use super::ipc::{self, Answer, Current, InheritedListener, Request, ToDatapath, ToMail};
use super::log;
use super::spawn::{self, MailUser};
use crate::config::{self, Source};
use crate::datapath::{self, Datapath, Unloaded};
use crate::intercept::{self, ZoneListener};
use crate::scan::Scanner;

/// How long a mail process may take to finish what is under way after Stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const STOP_POLL: Duration = Duration::from_millis(20);
/// How long a start waits for ports that are still in use.
const LISTEN_PATIENCE: Duration = Duration::from_secs(5);
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
    /// The mail process of this generation said something.
    Message(u64, ToDatapath),
    /// Its end of the channel is closed.
    Hangup(u64),
    Signal(Signal),
    /// An interface came, went or changed.
    Links,
}

/// Why a mail process is no longer served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// We shall stop.
    ToTheEnd,
    /// It ended by itself, or hangs.
    UntilItFailed,
    /// The listeners are others now: the next one takes them over.
    UntilListenersChanged,
}

/// Runs until SIGTERM or SIGINT. The signals are answered by a thread of its own: all others are started after.
pub fn run(path: &Path) -> Result<(), RunError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    let (events, inbox) = mpsc::sync_channel(MAX_WAITING_EVENTS);
    watch_signals(events.clone())?;
    let (source, config) = read(path)?;
    log::start(&config.log);
    let user = MailUser::find(&config.user)?;
    let _lock = prepare_folders(&config, &user)?;
    if !config.enabled {
        let removed = datapath::unload(&config.kernel.pin_dir)?;
        info!(?removed, "enabled = false: nothing is intercepted and nothing is left in the kernel");
        return Ok(());
    }
    raise_open_files();
    let listeners = open_listeners(&config)?;
    // Before the first look at the interfaces: none comes unseen.
    let links = events.clone();
    datapath::watch_links(move || links.send(Event::Links).is_ok())
        .map_err(|source| RunError::System { what: "watch the interfaces", source })?;
    let datapath = Datapath::start(&config, &listeners)?;
    for interface in datapath.interfaces() {
        if let Some(problem) = &interface.problem {
            warn!(interface = interface.name, zone = interface.zone, "not served: {problem}");
        }
    }
    let supervisor =
        Supervisor { source, config, user, listeners, datapath, events, generation: 0, revision: 1 };
    supervisor.supervise(&inbox)
}

fn read(path: &Path) -> Result<(Source, Config), RunError> {
    let source = config::load(path).map_err(|error| RunError::Config(error.to_string()))?;
    let config = understand(&source).map_err(RunError::Config)?;
    Ok((source, config))
}

/// What the source means, if the mail process will be able to use it: YARA rules must compile, too.
fn understand(source: &Source) -> Result<Config, String> {
    let config = config::parse(source).map_err(|errors| errors.to_string())?;
    Scanner::new(&config).map_err(|error| error.to_string())?;
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

/// Makes the folders, owned by the mail user, and takes the lock that keeps a second instance out. A folder that is there
/// already and somebody else's is left alone.
fn prepare_folders(config: &Config, user: &MailUser) -> Result<Flock<File>, RunError> {
    for (folder, mode) in [(&config.state_dir, 0o700), (&config.runtime_dir, 0o755)] {
        let fail = |source| RunError::Directory { path: folder.clone(), source };
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) && !user.owns(folder) {
            return Err(RunError::ForeignDirectory { path: folder.clone(), user: config.user.clone() });
        }
        fs::create_dir_all(folder).map_err(fail)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(fail)?;
        user.own(folder)?;
    }
    lock(&config.runtime_dir)
}

/// Takes the lock of the one instance with this `runtime_dir`. It is on the folder itself: a file in it would be within
/// the mail user's reach.
fn lock(runtime_dir: &Path) -> Result<Flock<File>, RunError> {
    let folder = File::open(runtime_dir)
        .map_err(|source| RunError::Directory { path: runtime_dir.to_owned(), source })?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock)
        .map_err(|_| RunError::AlreadyRunning(runtime_dir.to_owned()))
}

/// Removes everything from the kernel, unless an instance runs.
pub fn unload(runtime_dir: &Path, pin_dir: &Path) -> Result<Unloaded, RunError> {
    let _lock = runtime_dir.exists().then(|| lock(runtime_dir)).transpose()?;
    Ok(datapath::unload(pin_dir)?)
}

/// Opens the listeners; waits a while for a predecessor whose mail process is still on its way out.
fn open_listeners(config: &Config) -> Result<Vec<ZoneListener>, RunError> {
    let deadline = Instant::now() + LISTEN_PATIENCE;
    loop {
        match intercept::open_listeners(config) {
            Err(error) if error.is_in_use() && Instant::now() < deadline => thread::sleep(STOP_POLL),
            result => return Ok(result?),
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
    listeners: Vec<ZoneListener>,
    datapath: Datapath,
    events: SyncSender<Event>,
    generation: u64,
    revision: u64,
}

/// A running mail process.
struct Mail {
    child: Child,
    channel: UnixStream,
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
                    Served::UntilListenersChanged => {
                        info!("the interfaces of an active zone changed: the next mail process takes over");
                        if self.succeed(inbox, mail) {
                            self.datapath.proxy_down()?;
                            return Ok(());
                        }
                        continue;
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
        let (mut channel, theirs) = spawn::channel().map_err(fail("make the channel to the mail process"))?;
        let fds: Vec<RawFd> = self.listeners.iter().map(|listener| listener.socket.as_raw_fd()).collect();
        channel.set_write_timeout(Some(WRITE_PATIENCE)).map_err(fail("set up the channel"))?;
        self.watch_channel(&channel).map_err(fail("read from the mail process"))?;
        let child = spawn::mail_process(&self.user, theirs, &fds).map_err(fail("start the mail process"))?;
        let listeners = self.listeners.iter().map(|listener| InheritedListener {
            fd: listener.socket.as_raw_fd(),
            zone: listener.zone,
            family: listener.family,
            role: listener.role.clone(),
        });
        let start = ToMail::Start { current: self.current(), listeners: listeners.collect() };
        if let Err(error) = ipc::write(&mut channel, &start) {
            warn!(%error, "the mail process ended before it began");
        }
        info!(pid = child.id(), "the mail process is started");
        Ok(Mail { child, channel })
    }

    /// Turns what the mail process says into events, until it hangs up.
    fn watch_channel(&self, channel: &UnixStream) -> io::Result<()> {
        let (mut from, events, generation) = (channel.try_clone()?, self.events.clone(), self.generation);
        thread::Builder::new().name("channel".to_owned()).spawn(move || {
            while let Ok(message) = ipc::read(&mut from, ipc::MAX_REQUEST_OCTETS) {
                if events.send(Event::Message(generation, message)).is_err() {
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
                        self.tell(mail, &ToMail::Reloaded(self.current()));
                    }
                }
                Ok(Event::Links) => {
                    if self.follow_interfaces() {
                        return Served::UntilListenersChanged;
                    }
                }
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Disconnected) => return Served::ToTheEnd,
                Ok(Event::Hangup(generation)) if generation == self.generation => {
                    return Served::UntilItFailed;
                }
                Ok(Event::Message(generation, message)) if generation == self.generation => {
                    (heard, patience) = (Instant::now(), SILENCE_PATIENCE);
                    self.handle(mail, message);
                }
                Ok(Event::Hangup(_) | Event::Message(..)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Serves the interfaces that are there now; true when an active zone has other listeners than before.
    fn follow_interfaces(&mut self) -> bool {
        match self.datapath.follow_interfaces(&self.config) {
            Ok(true) => {
                for interface in self.datapath.interfaces() {
                    let problem = interface.problem.as_deref().unwrap_or("served");
                    info!(interface = interface.name, zone = interface.zone, "{problem}");
                }
            }
            Ok(false) => {}
            Err(error) => error!(%error, "the interfaces that came or went can't be followed"),
        }
        intercept::follow_interfaces(&self.config, &mut self.listeners).unwrap_or_else(|error| {
            error!(%error, "an active zone isn't served on an interface that came");
            false
        })
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

    fn handle(&mut self, mail: &mut Mail, message: ToDatapath) {
        match message {
            ToDatapath::Heartbeat => {
                if let Err(error) = self.datapath.heartbeat() {
                    error!(%error, "the kernel side can't be told that the mail process lives");
                }
            }
            ToDatapath::Request { id, request } => {
                let result = self.perform(request);
                self.tell(mail, &ToMail::Answer { id, result });
            }
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
            Request::Reload => self.reload().map(|()| Answer::Current(self.current())),
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
                Ok(Answer::Current(self.current()))
            }
            Request::RuleCounts => {
                self.datapath.rule_counts().map(Answer::RuleCounts).map_err(|error| error.to_string())
            }
            Request::Status => {
                let status = self.datapath.status().map_err(|error| error.to_string())?;
                serde_json::to_value(status).map(Answer::Status).map_err(|error| error.to_string())
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

    /// Reads the file again and applies it whole, or changes nothing.
    fn reload(&mut self) -> Result<(), String> {
        let (source, config) = read(&self.source.path).map_err(|error| error.to_string())?;
        self.adopt(source, config)
    }

    fn adopt(&mut self, source: Source, config: Config) -> Result<(), String> {
        if let Some(what) = needs_restart(&self.config, &config) {
            return Err(format!("{what} changed: restart needed, nothing was applied"));
        }
        if let Err(error) = self.datapath.apply(&config) {
            if let Err(again) = self.datapath.apply(&self.config) {
                error!(%again, "the rules of the configuration in force can't be restored");
            }
            return Err(error.to_string());
        }
        (self.source, self.config) = (source, config);
        self.revision += 1;
        Ok(())
    }

    /// Puts the fail mode in force, then lets the mail process finish.
    fn stop(mut self, inbox: &Receiver<Event>, mail: Mail) {
        if let Err(error) = self.datapath.proxy_down() {
            error!(%error, "on_proxy_down can't be put in force");
        }
        self.finish(inbox, mail, |_| ());
        info!("stopped; rules and drops stay in force until `mailguard unload`");
    }

    /// Lets the mail process finish while new connections wait in the listeners for the next one; true when a signal
    /// says to stop meanwhile.
    fn succeed(&mut self, inbox: &Receiver<Event>, mail: Mail) -> bool {
        let signalled = self.finish(inbox, mail, |supervisor| {
            // Somebody will take them: the fail mode must not come into force for that moment.
            if let Err(error) = supervisor.datapath.heartbeat() {
                error!(%error, "the kernel side can't be told that a mail process will follow");
            }
        });
        // What came or went meanwhile was overheard; the next one starts with what is there now.
        self.follow_interfaces();
        signalled
    }

    /// Asks the mail process to finish and waits for its end, for [`STOP_PATIENCE`] at most; `meanwhile` is called all
    /// the time. True when a signal asked us to stop, which also ends the patience.
    fn finish(&mut self, inbox: &Receiver<Event>, mut mail: Mail, meanwhile: impl Fn(&mut Self)) -> bool {
        self.tell(&mut mail, &ToMail::Stop);
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut signalled = false;
        // A process that closes its stores has no channel any more: what counts is its end.
        while matches!(mail.child.try_wait(), Ok(None)) && Instant::now() < deadline && !signalled {
            meanwhile(self);
            match inbox.recv_timeout(STOP_POLL) {
                // While we stop it was asked twice: at once.
                Ok(Event::Signal(Signal::SIGTERM | Signal::SIGINT)) => signalled = true,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let _ = mail.child.kill();
        let status = mail.child.wait();
        info!(?status, "the mail process has ended");
        signalled
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
                    self.follow_interfaces();
                }
                Ok(Event::Message(..) | Event::Hangup(_)) => {}
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

/// What can't be changed under running sessions: the keys that did change.
fn needs_restart(old: &Config, new: &Config) -> Option<String> {
    let listeners = |config: &Config| {
        config.zones.iter().map(|z| (z.name.clone(), z.mode, z.interfaces.clone())).collect::<Vec<_>>()
    };
    let changed: Vec<&str> = [
        ("enabled", old.enabled != new.enabled),
        ("state_dir", old.state_dir != new.state_dir),
        ("runtime_dir", old.runtime_dir != new.runtime_dir),
        ("user", old.user != new.user),
        ("kernel.xdp", old.kernel.xdp != new.kernel.xdp),
        ("kernel.pin_dir", old.kernel.pin_dir != new.kernel.pin_dir),
        ("kernel.proxy_port", old.kernel.proxy_port != new.kernel.proxy_port),
        ("a zone", listeners(old) != listeners(new)),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect();
    (!changed.is_empty()).then(|| changed.join(", "))
}
