//! The mail process: builds everything between a client's connection and a far server's, and takes it down
//! again in an order that loses nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use mailguard_core::config::Config;
use mailguard_core::subscriber::Subscriber;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::{oneshot, watch};
use tracing::info;

use super::acceptors::{self, AcceptContext, Acceptors};
use super::adoption::{self, Adoption};
use super::ipc::{self, Current, HandedListener, ToDatapath, ToMail};
use super::log::{self, Logging};
use super::privileged::{Notice, Notices, Privileged};
use super::services::{self, CompiledConfig, RoleParts, SpoolSink};
use crate::admin::{MailAdmin, Parts};
use crate::bans::Bans;
use crate::config;
use crate::control;
use crate::datapath;
use crate::delivery::Delivery;
use crate::greylist::Greylist;
use crate::intercept::OwnAddresses;
use crate::quarantine::QuarantineHandle;
use crate::queue::{Queue, QueueContext};
use crate::routing::OwnListeners;
use crate::session::{Limits, Roles};
use crate::spool::{IdMint, Spool};
use crate::store::facts::FactsDb;
use crate::store::spool::SpoolDb;
use crate::trace::Recorder;
use crate::verification::Verification;

/// How often it is looked whether the spool still works.
const SPOOL_WATCH: Duration = Duration::from_millis(500);
/// How long sessions may go on after a stop was asked for; each is told 421 at its next command.
const SESSION_GRACE: Duration = Duration::from_secs(5);

/// Runs the mail process on the inherited channel until it is told to stop.
pub fn run(channel: RawFd) -> Result<()> {
    // Else `ps` and `top` show the name by which the program was started, "exe".
    nix::sys::prctl::set_name(c"mailguard-mail")?;
    let told = told_to_end().context("the signals")?;
    let mut channel =
        inherited(channel).map(UnixStream::from).context("the channel to the datapath process")?;
    let start: ToMail =
        ipc::read(&mut channel, ipc::MAX_FRAME_OCTETS).context("the datapath process said nothing")?;
    let ToMail::Start { current, descriptors, listeners, lifted } = start else {
        bail!("the datapath process began with something else")
    };
    let descriptors =
        inherited(descriptors).map(UnixStream::from).context("the socket by which listeners come")?;
    let config = config::parse_and_validate(&current.source).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let (logging, _finish) = log::start(&config.log).context("the thread that writes the log")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("mail").build()?;
    let channels = Channels { channel, descriptors, told, logging, lifted };
    runtime.block_on(serve(current, config, channels, listeners))
}

/// Waits for SIGTERM, which by itself would end us in the middle of everything. SIGINT and SIGHUP, which a
/// terminal sends to all its processes, are the datapath process's to answer, and stay blocked as they were
/// there.
fn told_to_end() -> io::Result<oneshot::Receiver<Signal>> {
    let signals = SigSet::from(Signal::SIGTERM);
    // Before there is another thread.
    signals.thread_block()?;
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Ok(signal) = signals.wait() {
            let _ = tell.send(signal);
        }
    })?;
    Ok(told)
}

/// Takes a descriptor over that the datapath process left open for us.
fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number was passed to this process for this purpose and nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// What connects the process with the outside.
struct Channels {
    /// To the datapath process.
    channel: UnixStream,
    /// By which listeners come from it.
    descriptors: UnixStream,
    /// Says which signal told us to end.
    told: oneshot::Receiver<Signal>,
    logging: Logging,
    /// Clients that were let in again while no mail process took notice.
    lifted: Vec<Subscriber>,
}

async fn serve(
    current: Current,
    config: Config,
    channels: Channels,
    listeners: Vec<HandedListener>,
) -> Result<()> {
    let Channels { channel, descriptors, told, logging, lifted } = channels;
    channel.set_nonblocking(true)?;
    let (privileged, notices) = Privileged::new(tokio::net::UnixStream::from_std(channel)?);
    let runtime_dir = config.runtime_dir.clone();
    let listeners = acceptors::receive(&descriptors, listeners).context("the listeners")?;
    let own = listeners.iter().map(|(_, listener)| listener.address()).collect();
    let process = MailProcess::build(current, config, privileged.clone(), own, logging).await?;
    // The kernel has forgotten them if the machine was started anew.
    process.bans.forget_lifted(lifted).await;
    process.bans.restore().await;
    tokio::spawn(process.bans.clone().run_maintenance());
    let control = control::bind(&control::mail_socket(&runtime_dir), control::MAIL_MODE)?;
    let control = tokio::spawn(control::serve(control, process.admin.clone()));
    let (stop, stopped) = watch::channel(false);
    let pulse = descriptors.try_clone().context("the socket for signs of life")?;
    let own_addresses = OwnAddresses::default();
    tokio::task::block_in_place(|| datapath::keep_own_addresses(&own_addresses));
    let mut acceptors = Acceptors::new(process.context(own_addresses, stopped), descriptors);
    acceptors.open(listeners);
    let limits = process.limits.clone();
    let heartbeat = tokio::spawn(async move { privileged.keep_alive(&limits, &pulse).await });
    info!(listeners = acceptors.addresses().len(), "mail is served");
    // The datapath process starts the next one, which recovers; connections wait in the listeners meanwhile.
    let signal = tokio::select! {
        ended = process.run_until_stopped(&notices, &mut acceptors) => ended.map(|()| None)?,
        cause = process.spool_failed() => bail!("the spool can't be written any more: {cause}"),
        Ok(signal) = told => Some(signal),
    };
    info!("stopping: sessions end at their next command, deliveries under way are finished");
    match signal {
        // The next one takes what waits in the listeners: until then we count as alive, or the kernel would
        // let nobody wait.
        Some(signal) => drop(process.privileged.say(ToDatapath::Leaving(signal as i32)).await),
        None => heartbeat.abort(),
    }
    stop.send_replace(true);
    acceptors.finish().await;
    process.close().await;
    control.abort();
    Ok(())
}

/// Everything that lives as long as the process.
struct MailProcess {
    config: Arc<ArcSwap<Config>>,
    admin: Arc<MailAdmin>,
    adoption: Adoption,
    roles: Arc<Roles<SpoolSink>>,
    limits: Arc<Limits>,
    db: SpoolDb,
    queue: Queue,
    delivery: Arc<Delivery>,
    traces: Recorder,
    bans: Bans,
    privileged: Privileged,
}

impl MailProcess {
    /// Opens the stores, recovers what a crash left, and starts what delivers it.
    async fn build(
        current: Current,
        config: Config,
        privileged: Privileged,
        own: Vec<SocketAddr>,
        logging: Logging,
    ) -> Result<Self> {
        let state_dir = config.state_dir.clone();
        let compiled = CompiledConfig::of(&config, None)?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        // Both look at everything that they hold.
        let (db, recovered) = tokio::task::block_in_place(|| SpoolDb::open(&state_dir))?;
        let facts = tokio::task::block_in_place(|| FactsDb::open(&state_dir))?;
        let traces = Recorder::new(facts.clone(), config.clone());
        let greylist = Greylist::open(facts.clone()).await?;
        tokio::spawn(greylist.clone().run_maintenance(config.clone()));
        let bans = Bans::open(facts, Arc::new(privileged.clone()), config.clone()).await?;
        let ids = Arc::new(IdMint::above(recovered.greatest));
        let spool = Spool::new(db.clone(), config.clone(), ids.clone());
        let scratch = spool.clone();
        let delivery =
            Delivery::new(OwnListeners::new(own)).with_scratch(Arc::new(move || scratch.body_writer()));
        let delivery = Arc::new(delivery);
        let parts = RoleParts {
            spool: spool.clone(),
            ids: ids.clone(),
            traces: traces.clone(),
            bans: bans.clone(),
            greylist,
            verification: Verification::new(delivery.clone()),
            config: config.clone(),
        };
        let (roles, services) = services::roles(compiled, parts);
        let surroundings = QueueContext {
            db: db.clone(),
            config: config.clone(),
            ids,
            deliver: delivery.clone(),
            observer: Arc::new(traces.clone()),
        };
        let queue = Queue::start(surroundings, &recovered);
        let quarantine = QuarantineHandle::new(db.clone(), config.clone());
        let limits = Arc::new(Limits::default());
        tokio::spawn(quarantine.clone().run_maintenance());
        tokio::spawn(traces.clone().run_maintenance());
        let maintained = delivery.clone();
        tokio::spawn(async move { maintained.run_maintenance().await });
        let in_force = Arc::new(ArcSwap::from_pointee(adoption::in_force(current)));
        let log = logging.clone();
        let admin = Arc::new(MailAdmin::new(Parts {
            config: config.clone(),
            in_force: in_force.clone(),
            spool,
            queue: queue.handle(),
            delivery: delivery.clone(),
            quarantine,
            traces: traces.clone(),
            limits: limits.clone(),
            bans: bans.clone(),
            kernel: Arc::new(privileged.clone()),
            log_problem: Box::new(move || log.problem()),
        }));
        let adoption = Adoption {
            config: config.clone(),
            in_force,
            services,
            queue: queue.handle(),
            bans: bans.clone(),
            logging,
            one_at_a_time: Mutex::default(),
        };
        Ok(Self { config, admin, adoption, roles, limits, db, queue, delivery, traces, bans, privileged })
    }

    fn context(&self, own_addresses: OwnAddresses, stop: watch::Receiver<bool>) -> AcceptContext {
        AcceptContext {
            config: self.config.clone(),
            roles: self.roles.clone(),
            limits: self.limits.clone(),
            own_addresses,
            stop,
        }
    }

    /// Follows what the datapath process says until that is to stop.
    async fn run_until_stopped(&self, notices: &Notices, acceptors: &mut Acceptors) -> Result<()> {
        loop {
            let notice = tokio::select! {
                notice = notices.next() => notice,
                () = acceptors.failed() => bail!("a task that accepts connections ended"),
            };
            let (current, opened, closed) = match notice {
                Notice::Changed { current, opened, closed } => (current, opened, closed),
                Notice::Lifted(clients) => {
                    self.bans.forget_lifted(clients).await;
                    continue;
                }
                Notice::Stop => return Ok(()),
            };
            let before = self.config.load_full();
            let revision = current.revision;
            // New rules may take long to compile.
            let result = tokio::task::block_in_place(|| self.adoption.adopt(current));
            self.privileged.say(ToDatapath::Adopted { revision, result }).await;
            if !(opened.is_empty() && closed.is_empty()) {
                acceptors.take(opened).context("the listeners that came")?;
                acceptors.close(&closed, &before);
                self.delivery.set_listeners(OwnListeners::new(acceptors.addresses()));
            }
        }
    }

    /// Waits until a write to the spool has failed, and says why.
    async fn spool_failed(&self) -> Arc<str> {
        loop {
            if let Some(cause) = self.db.failure() {
                return cause;
            }
            tokio::time::sleep(SPOOL_WATCH).await;
        }
    }

    /// Lets sessions and attempts end, then closes the stores.
    async fn close(self) {
        let deadline = tokio::time::Instant::now() + SESSION_GRACE;
        while self.limits.sessions() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.queue.stop().await;
        self.delivery.close().await;
        self.traces.close().await;
        self.db.close().await;
    }
}
