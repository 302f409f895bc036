//! The datapath process: reads the configuration, opens the listeners, steers packets to them, and keeps a
//! mail process alive behind them. It parses nothing that a stranger sent.

mod keeping;
mod orders;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use mailguard_core::config::Config;
use mailguard_core::config::resolve::DEFAULT_PIN_DIR;
use mailguard_core::subscriber::Subscriber;
use nix::sys::signal::{SigSet, Signal};
use tracing::{error, info, warn};

use super::RunError;
use super::folders;
use super::instance::{Instance, InstanceError};
use super::ipc::{Current, ToDatapath, ToMail};
use super::log::{self, Logging};
use super::names;
use super::notify::Notify;
use super::open_files;
use super::pulse::Vigil;
use super::root::{self, MAX_TOLD, Rest, Told};
use super::spawn::MailUser;
use super::start::{self, Start};
use super::trial::{self, Extent};
use crate::admin::root::{Changes, InForce, Order};
use crate::admin::{AdminError, ErrorKind, ProcessReport};
use crate::config::{self, Kept, LastApplied, Located, Source};
use crate::control::Signpost;
use crate::datapath::{self, Datapath, Hook, InterfaceStatus, Occasion, Unloaded};
use crate::doctor::FirewallWatch;
use crate::intercept::{ListenError, Listeners};
use crate::names::NamedServers;

use keeping::Mail;
use orders::Waiting;

/// How often it is looked whether it has.
const STOP_POLL: Duration = Duration::from_millis(20);
/// How long a start waits for ports that are still in use.
const START_PORTS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a change of zones does.
const PORTS_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before a mail process that ended by itself is started anew; doubles up to [`RESTART_MAX`] while they
/// keep ending within [`STABLE_AFTER`].
const RESTART_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A mail process that lived this long was healthy.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How long it may take to begin: after a crash it looks at everything that waits.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// How long it may be silent after that: its heartbeat comes each second.
const SILENCE_PATIENCE: Duration = Duration::from_secs(15);
/// Events that wait; whoever has more to say waits, too.
const MAX_WAITING_EVENTS: usize = 64;
/// Warnings of a configuration that are logged; the rest is counted.
const MAX_LOGGED_WARNINGS: usize = 20;

/// The last line of the log.
const STOPPED: &str = "stopped; rules and drops stay in force until `mailguard unload`";

/// Something the datapath process's one thread has to see to.
pub(super) enum Event {
    /// The mail process of this generation said something, then.
    Message(u64, Instant, ToDatapath),
    /// Its end of the channel is closed.
    Hangup(u64),
    Signal(Signal),
    /// Something of the kernel side may have changed.
    Kernel(Occasion),
    /// Other addresses bypass by their names.
    Names,
    /// An administrator wants something.
    Order(Order),
}

/// Why a mail process is no longer served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    /// We shall stop.
    ToTheEnd,
    /// It ended by itself.
    UntilItFailed,
    /// It hangs, or what it was told can't be told to its end: it must be killed.
    UntilItHung,
}

/// Runs until SIGTERM or SIGINT. The signals are answered by a thread of its own: all others are started
/// after.
pub fn run(path: &Path) -> Result<(), RunError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    let (events, inbox) = mpsc::sync_channel(MAX_WAITING_EVENTS);
    watch_signals(events.clone())?;
    let versions = LastApplied::of_this_machine();
    let Start { source, config, stand_in } = start::choose(path, &versions, content_problems)?;
    let (logging, _finish) =
        log::start(&config.log).map_err(|source| RunError::System { what: "start a thread", source })?;
    if let Some(stand_in) = &stand_in {
        start::tell(path, stand_in);
    }
    let kept = Arc::new(Kept::new(versions, stand_in));
    let user = MailUser::find(&config.user)?;
    let mut instance = Instance::claim()?;
    folders::prepare(&config, &user)?;
    instance.claim_runtime_dir(&config.runtime_dir)?;
    config::sweep(path);
    let _signpost = signpost(path, &config.runtime_dir);
    if !config.enabled {
        leave_nothing(instance, &config)?;
        kept.keep(&source);
        Notify::new().idle();
        return Ok(());
    }
    // Before anything is changed in the kernel.
    root::tried(&user, &source, Extent::Folders)?;
    open_files::raise(&config);
    let listeners = adapted(&Listeners::default(), &config, START_PORTS_PATIENCE)?;
    // Before the first look at the interfaces: none comes unseen.
    let kernel = events.clone();
    datapath::watch_kernel(move |occasion| kernel.send(Event::Kernel(occasion)).is_ok())
        .map_err(|source| RunError::System { what: "watch interfaces, rules and routes", source })?;
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
    log_warnings(&source, &config);
    let vigil = Vigil::new(datapath.pulse());
    let config = Arc::new(config);
    let in_force = InForce { source: source.clone(), config: config.clone(), revision: 1 };
    let in_force = Arc::new(Mutex::new(in_force));
    let known = {
        let (vigil, kept, report) = (vigil.clone(), kept.clone(), report(&source, &config));
        move || known(&report, &vigil, &kept)
    };
    let (events_of_rest, kept_of_rest, known) = (events.clone(), kept.clone(), Box::new(known));
    let rest = Rest { events: events_of_rest, user: user.clone(), kept: kept_of_rest, known };
    let changes = Changes::new(in_force.clone(), kept.clone(), Box::new(rest));
    let changes = Arc::new(changes);
    let (errands, told) = sync_channel(MAX_TOLD);
    root::follow(changes.clone(), told);
    root::serve(changes, &config.runtime_dir)?;
    let report = report(&source, &config);
    let firewall =
        FirewallWatch::start().map_err(|source| RunError::System { what: "start a thread", source })?;
    firewall.look(&source, &config);
    let mut supervisor = Supervisor {
        source,
        config,
        user,
        logging,
        listeners,
        lacking: None,
        datapath,
        names,
        events,
        generation: 0,
        revision: 1,
        firewall,
        in_force,
        kept,
        served: false,
        errands,
        report,
        vigil,
        notify: Notify::new(),
        waiting: Vec::new(),
        lifted: BTreeMap::new(),
    };
    supervisor.lift_whitelisted();
    supervisor.supervise(&inbox)
}

/// Says what mail won't get anywhere by this configuration.
fn log_warnings(source: &Source, config: &Config) {
    let warnings = super::warnings(source, config);
    for warning in warnings.iter().take(MAX_LOGGED_WARNINGS) {
        let Located { file, line, key, message, remedy, .. } = warning;
        warn!(remedy, "{}:{line}: {key}: {message}", file.display());
    }
    if let Some(more) = warnings.len().checked_sub(MAX_LOGGED_WARNINGS).filter(|more| *more > 0) {
        warn!("and {more} more next hops that are ourselves: mailguard check names them");
    }
}

/// Tells those who may not read the configuration where this daemon is found. Without it they are told to be
/// root.
fn signpost(config: &Path, runtime_dir: &Path) -> Option<Signpost> {
    let put = Signpost::put(config, runtime_dir);
    put.inspect_err(|error| warn!(%error, "who may not read the configuration won't find this daemon")).ok()
}

/// What doesn't change in a report while we run.
fn report(source: &Source, config: &Config) -> ProcessReport {
    ProcessReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: config.hostname.to_string(),
        config: source.path.clone(),
        pid: std::process::id(),
        started_at: SystemTime::now().into(),
        problems: Vec::new(),
        stand_in: None,
        mail: Default::default(),
        kernel: None,
    }
}

/// What is known of the processes and the configuration without the datapath process's thread.
fn known(report: &ProcessReport, vigil: &Vigil, kept: &Kept) -> ProcessReport {
    ProcessReport {
        mail: vigil.report(),
        stand_in: kept.stand_in(),
        problems: kept.problems(&report.config),
        ..report.clone()
    }
}

/// What the mail process would find wrong with a configuration, tried as the mail user. One that is switched
/// off is used by nobody.
fn content_problems(source: &Source, config: &Config) -> Result<Vec<String>, RunError> {
    if !config.enabled {
        return Ok(Vec::new());
    }
    Ok(trial::ask(&MailUser::find(&config.user)?, source, Extent::Content)?)
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

/// Removes everything from the kernel that is pinned in `pin_dir`, or goes with it, unless an instance runs
/// here.
pub fn unload(pin_dir: Option<&Path>) -> Result<Unloaded, RunError> {
    let instance = Instance::claim()?;
    let usual = Path::new(DEFAULT_PIN_DIR);
    let theirs = instance.pinned_elsewhere(pin_dir.unwrap_or(usual)).filter(|theirs| theirs.exists());
    let pin_dir = match (pin_dir, theirs) {
        (Some(asked), Some(theirs)) => {
            let (theirs, asked) = (theirs.to_owned(), asked.to_owned());
            return Err(InstanceError::OtherPins { theirs, asked }.into());
        }
        (asked, theirs) => asked.or(theirs).unwrap_or(usual).to_owned(),
    };
    names::forget();
    let unloaded = datapath::unload(&pin_dir)?;
    instance.forget()?;
    Ok(unloaded)
}

/// The listeners of `config`; waits a while for ports that a mail process is about to give up, and goes
/// around those that somebody else holds.
fn adapted(listeners: &Listeners, config: &Config, patience: Duration) -> Result<Listeners, ListenError> {
    let deadline = Instant::now() + patience;
    loop {
        match listeners.adapted(config) {
            Err(error) if error.is_in_use() && Instant::now() < deadline => thread::sleep(STOP_POLL),
            Err(error) if error.is_in_use() => {
                let elsewhere = listeners.adapted_elsewhere(config)?;
                warn!(%error, "another port is used instead; mailguard doctor says who has this one");
                return Ok(elsewhere);
            }
            result => return result,
        }
    }
}

struct Supervisor {
    source: Source,
    config: Arc<Config>,
    user: MailUser,
    logging: Logging,
    listeners: Listeners,
    /// Why there aren't all listeners that there should be, if that is so.
    lacking: Option<String>,
    datapath: Datapath,
    names: NamedServers,
    events: SyncSender<Event>,
    generation: u64,
    revision: u64,
    firewall: FirewallWatch,
    /// What was loaded, for those who change it.
    in_force: Arc<Mutex<InForce>>,
    kept: Arc<Kept>,
    /// A mail process has served, and those who keep what is in force know it.
    served: bool,
    /// Has another thread do what takes long.
    errands: SyncSender<Told>,
    /// What doesn't change in a report.
    report: ProcessReport,
    vigil: Vigil,
    /// Tells the service manager how we are.
    notify: Notify,
    /// Who waits until the mail process has taken something.
    waiting: Vec<Waiting>,
    /// Clients that were let in again, and the mail process hasn't said yet that it knows; with the number of
    /// the lift. At most as many as can be banned.
    lifted: BTreeMap<Subscriber, u64>,
}

impl Supervisor {
    fn supervise(mut self, inbox: &Receiver<Event>) -> Result<(), RunError> {
        let mut pause = RESTART_MIN;
        loop {
            let started = Instant::now();
            self.notify.starting();
            match self.start_mail() {
                Ok(mut mail) => {
                    let served = self.serve(inbox, &mut mail);
                    if served == Served::ToTheEnd {
                        self.stop(inbox, mail);
                        return Ok(());
                    }
                    // A mail process that never served won't the next time either, unless somebody changes
                    // something.
                    let never_served = self.generation == 1 && self.vigil.silence().is_none();
                    let failed = self.bury(mail, served);
                    if never_served {
                        self.datapath.proxy_down()?;
                        return Err(RunError::MailFailed(failed));
                    }
                    error!(
                        words = ?failed.words,
                        "the mail process {}; connections wait in the listeners for the next one", failed.cause
                    );
                    self.notify.starts_anew(&failed.cause);
                }
                Err(error) if self.generation == 1 => return Err(error),
                Err(error) => error!(%error, "a mail process can't be started now"),
            }
            pause = if started.elapsed() > STABLE_AFTER { RESTART_MIN } else { (pause * 2).min(RESTART_MAX) };
            if self.stopped_during(inbox, pause) {
                self.vigil.end();
                self.datapath.proxy_down()?;
                self.datapath.forget_closed();
                info!("{STOPPED}");
                return Ok(());
            }
        }
    }

    fn current(&self) -> Current {
        Current { source: self.source.clone(), revision: self.revision }
    }

    /// Serves one mail process, until something says that it is over.
    fn serve(&mut self, inbox: &Receiver<Event>, mail: &mut Mail) -> Served {
        let begun = Instant::now();
        loop {
            let (silence, patience) = match self.vigil.silence() {
                Some(silence) => (silence, SILENCE_PATIENCE),
                None => (begun.elapsed(), START_PATIENCE),
            };
            if silence >= patience {
                return Served::UntilItHung;
            }
            self.note_life();
            mail.hurry();
            let patience = self.notify.due_within((patience - silence).min(SILENCE_PATIENCE));
            match inbox.recv_timeout(patience) {
                Ok(Event::Signal(Signal::SIGHUP)) => self.reload(),
                Ok(Event::Kernel(occasion)) => {
                    self.look_after_kernel(occasion);
                    self.announce_listeners(mail);
                }
                Ok(Event::Names) => names::follow(&self.names, &mut self.datapath, &self.config),
                Ok(Event::Order(order)) => self.obey(order, Some(mail)),
                Ok(Event::Signal(_)) | Err(RecvTimeoutError::Disconnected) => return Served::ToTheEnd,
                Ok(Event::Hangup(generation)) if generation == self.generation => {
                    return Served::UntilItFailed;
                }
                Ok(Event::Message(generation, said, message)) if generation == self.generation => {
                    self.handle(mail, said, message);
                }
                Ok(Event::Hangup(_) | Event::Message(..)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Tells whoever has to know that we live, and whether mail is served.
    fn note_life(&mut self) {
        let serves = self.vigil.silence().is_some();
        let stand_in = self.kept.stand_in().map(|stand_in| stand_in.summary(&self.source.path));
        self.notify.lives(serves, stand_in.as_deref());
        if serves && !self.served {
            self.served = self.errands.try_send(Told::Served).is_ok();
        }
    }

    /// Serves the interfaces that are there now, and puts back what others removed.
    fn look_after_kernel(&mut self, occasion: Occasion) {
        // What is only looked at must not wait, or it would every few seconds.
        self.follow_interfaces(if occasion == Occasion::Event { PORTS_PATIENCE } else { Duration::ZERO });
        self.datapath.verify(occasion);
        if occasion == Occasion::Look {
            self.datapath.forget_closed();
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
            let InterfaceStatus { name, zone, leaving, problem, .. } = interface;
            match problem {
                Some(problem) => warn!(interface = name, zone, "not served: {problem}"),
                None if *leaving => info!(interface = name, zone, "serves only the sessions that are open"),
                None => info!(interface = name, zone, "served"),
            }
        }
    }

    /// Has the file read again, in another thread; one that waits for its turn is enough.
    fn reload(&self) {
        if let Err(TrySendError::Disconnected(_)) = self.errands.try_send(Told::Reload) {
            error!("reload refused: the thread that reads the configuration is gone, restart mailguard");
        }
    }

    fn handle(&mut self, mail: &mut Mail, said: Instant, message: ToDatapath) {
        match message {
            ToDatapath::Heartbeat { oldest_session } => {
                if let Err(error) = self.datapath.note_rates() {
                    error!(%error, "the kernel side's counters can't be read");
                }
                self.release_interfaces(oldest_session.and_then(|age| said.checked_sub(age)));
                if self.lacking.is_some() {
                    self.follow_interfaces(Duration::ZERO);
                    self.announce_listeners(mail);
                }
            }
            ToDatapath::Adopted { revision, result } => self.note_adopted(revision, &result),
            ToDatapath::Leaving(signal) => mail.leaves(signal),
            ToDatapath::Forgotten(clients) => self.note_forgotten(clients),
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

    fn adopt(&mut self, source: Source, config: Arc<Config>) -> Result<(), AdminError> {
        if let Some(what) = needs_restart(&self.config, &config) {
            let why = format!("{what} changed: restart needed, nothing was applied");
            return Err(AdminError::new(ErrorKind::Refused, why));
        }
        let listeners = adapted(&self.listeners, &config, PORTS_PATIENCE)
            .map_err(|error| AdminError::new(ErrorKind::Failed, error))?;
        if let Err(error) = self.datapath.apply(&config, &listeners) {
            if let Err(again) = self.datapath.apply(&self.config, &self.listeners) {
                error!(%again, "the configuration in force can't be restored");
            }
            self.listeners.give_up(&listeners);
            return Err(orders::of_kernel(error));
        }
        self.logging.set(&config.log);
        self.report.hostname = config.hostname.to_string();
        (self.source, self.config, self.listeners, self.lacking) = (source, config, listeners, None);
        self.names.adopt(&self.config, false);
        names::follow(&self.names, &mut self.datapath, &self.config);
        self.revision += 1;
        let (source, config) = (self.source.clone(), self.config.clone());
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) =
            InForce { source, config, revision: self.revision };
        self.lift_whitelisted();
        open_files::warn_of_shortage(&self.config);
        Ok(())
    }

    /// Puts the fail mode in force, then lets the mail process finish.
    fn stop(mut self, inbox: &Receiver<Event>, mail: Mail) {
        self.notify.ends();
        self.vigil.end();
        if let Err(error) = self.datapath.proxy_down() {
            error!(%error, "on_proxy_down can't be put in force");
        }
        self.finish(inbox, mail);
        self.datapath.forget_closed();
        info!("{STOPPED}");
    }

    /// Waits `pause`; true when a signal says to stop meanwhile.
    fn stopped_during(&mut self, inbox: &Receiver<Event>, pause: Duration) -> bool {
        let deadline = Instant::now() + pause;
        loop {
            self.notify.lives(false, None);
            match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Signal(Signal::SIGHUP)) => self.reload(),
                Ok(Event::Kernel(occasion)) => self.look_after_kernel(occasion),
                Ok(Event::Names) => names::follow(&self.names, &mut self.datapath, &self.config),
                Ok(Event::Order(order)) => self.obey(order, None),
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
