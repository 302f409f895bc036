//! `bypass.to_names` at work, in the datapath process: a thread that has names asked for and answers judged,
//! and says when the kernel should know of other addresses. Nothing else waits for it.
//!
//! Three parts, for what the DNS answers is an attacker's word and what comes of it opens the firewall:
//! [`resolver`] asks the DNS and is nobody; `core::names` judges, and is pure; here is the clock, the process
//! and the log between them.

mod frames;
mod memory;
mod process;
pub mod resolver;
mod surroundings;
mod worker;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mailguard_core::config::Config;
use mailguard_core::config::model::Dns as DnsConfig;
use mailguard_core::names::{self, Change, Moment, NameStatus, Names};
use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use memory::Memory;
use process::Process;
use surroundings::Host;
use worker::{Input, Worker};

/// Events that the thread hasn't looked at yet; the resolver waits when there are more.
const MAX_WAITING_EVENTS: usize = 64;

/// The names of the configuration in force.
pub struct NamedServers {
    state: Arc<Mutex<State>>,
    wake: SyncSender<Input>,
}

/// What the thread and those who ask share.
struct State {
    names: Names,
    host: Host,
    servers: Vec<IpAddr>,
    dns: DnsConfig,
    /// Something was adopted that the thread hasn't looked at.
    adopted: bool,
    /// What became different with it.
    told: Vec<Change>,
}

impl NamedServers {
    /// Begins with what an earlier run of this network namespace remembers. `changed` is called when other
    /// addresses bypass, from a thread of its own, until it returns false.
    pub fn start(
        config: &Config,
        namespace: u64,
        changed: impl Fn() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let memory = Memory::of(namespace);
        let mut names = Names::default();
        names.set(&config.bypass.to_names, &names::guarded(&config.incoming_domains));
        match memory.read() {
            Ok(remembered) => names.recall(remembered, now()),
            Err(error) => warn!(%error, "bypass.to_names: what an earlier run knew can't be read"),
        }
        let state = Arc::new(Mutex::new(State::new(names, config)));
        // What fails now is tried, and told, by the thread.
        let known = look_and_judge(&state, now()).unwrap_or_default();
        lock(&state).told.extend(known);
        let (wake, inbox) = mpsc::sync_channel(MAX_WAITING_EVENTS);
        let start = |dns: &DnsConfig, heard: worker::Heard| Process::start(dns, heard);
        let worker = Worker::new(state.clone(), wake.clone(), start, now, changed, Some(memory));
        thread::Builder::new().name("names".to_owned()).spawn(move || worker.run(&inbox))?;
        Ok(Self { state, wake })
    }

    /// The addresses that bypass by their names.
    pub fn bypassed(&self) -> BTreeSet<IpAddr> {
        lock(&self.state).names.bypassed()
    }

    /// Takes the names of another configuration, which is in force from now on; the caller asks what bypasses
    /// by them. `anew`: the DNS is asked for those that stay, too.
    pub fn adopt(&self, config: &Config, anew: bool) {
        {
            let mut state = lock(&self.state);
            let guarded = names::guarded(&config.incoming_domains);
            let gone = state.names.set(&config.bypass.to_names, &guarded);
            state.told.extend(gone);
            state.servers = surroundings::servers(config);
            state.dns = config.dns.clone();
            state.adopted = true;
            let changes = state.judge(now());
            state.told.extend(changes);
            if anew {
                state.names.ask_again();
            }
        }
        // Where there is no room it has enough to wake for.
        let _ = self.wake.try_send(Input::Adopted);
    }

    /// Each name, with what came of it.
    pub fn status(&self) -> Vec<NameStatus> {
        lock(&self.state).names.status()
    }
}

/// Forgets what the run in this network namespace remembers.
pub fn forget(namespace: u64) -> io::Result<()> {
    Memory::of(namespace).forget()
}

impl State {
    fn new(names: Names, config: &Config) -> Self {
        Self {
            names,
            host: Host::default(),
            servers: surroundings::servers(config),
            dns: config.dns.clone(),
            adopted: true,
            told: Vec::new(),
        }
    }

    /// Judges all answers by what was seen of the host last.
    fn judge(&mut self, now: Moment) -> Vec<Change> {
        let servers: Vec<IpAddr> = self.servers.iter().copied().chain(self.names.guarded()).collect();
        let surroundings = self.host.surroundings(&servers, &self.names.answers());
        self.names.judge(&surroundings, now)
    }
}

/// Looks around and judges all answers. Where nothing can be seen nothing changes.
fn look_and_judge(state: &Mutex<State>, now: Moment) -> io::Result<Vec<Change>> {
    let answers = lock(state).names.answers();
    // Without the lock: whoever waits for it has more to do.
    let host = Host::look(answers)?;
    let mut state = lock(state);
    state.host = host;
    Ok(state.judge(now))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Since the machine was started, sleep included: a TTL doesn't stop meanwhile.
fn now() -> Moment {
    // It fails only for clocks that don't exist; nothing ever ends then.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Moment::ZERO, |now| {
        Duration::new(now.tv_sec().unsigned_abs(), u32::try_from(now.tv_nsec()).unwrap_or(0))
    })
}
