//! Looks at the firewall's rules when the daemon starts and after each reload, on a thread of its own: the programs that
//! list them may take long, and nothing waits for them. What it finds is logged; `mailguard doctor` says more.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mailguard_core::config::Config;
use tracing::{error, info, warn};

use crate::config::Source;
use crate::doctor::{self, Finding, Severity};

/// Calls that wait: while one is being answered, any number more are one.
const MAX_WAITING_CALLS: usize = 1;

/// Has the rules looked at.
pub(super) struct FirewallWatch {
    /// The configuration that is to be looked at next.
    next: Arc<Mutex<Option<(Source, Config)>>>,
    calls: SyncSender<()>,
}

impl FirewallWatch {
    /// Starts the thread; it ends with this.
    pub(super) fn start() -> io::Result<Self> {
        let next = Arc::new(Mutex::new(None));
        let (calls, called) = mpsc::sync_channel(MAX_WAITING_CALLS);
        let theirs = next.clone();
        thread::Builder::new().name("firewall".to_owned()).spawn(move || watch(&called, &theirs))?;
        Ok(Self { next, calls })
    }

    /// Looks at the rules soon, for this configuration. Never waits.
    pub(super) fn look(&self, source: &Source, config: &Config) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((source.clone(), config.clone()));
        // If a call waits already, whoever answers it finds this configuration.
        let _ = self.calls.try_send(());
    }
}

fn watch(called: &Receiver<()>, next: &Mutex<Option<(Source, Config)>>) {
    while called.recv().is_ok() {
        let wanted = next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((source, config)) = wanted else { continue };
        let findings = doctor::examine_firewall(&source, &config);
        findings.iter().for_each(say);
        if !findings.iter().any(|finding| finding.severity == Severity::Error) {
            info!("no rule of the firewall is known to stop mail");
        }
    }
}

fn say(finding: &Finding) {
    let Finding { check, what, why, commands, .. } = finding;
    let remedy = commands.join("; ");
    match finding.severity {
        Severity::Error => error!(check, remedy, "firewall: {what}. {why}"),
        Severity::Warning => warn!(check, remedy, "firewall: {what}. {why}"),
        Severity::Ok => {}
    }
}
