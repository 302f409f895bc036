//! Looks at the firewall's rules when the daemon starts and after each reload, on a thread of its own: the
//! programs that list them may take long, and nothing waits for them. What it finds is logged, and errors are
//! problems of `status`; `mailguard doctor` says more.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mailguard_core::config::Config;
use tracing::{error, info, warn};

use super::{Finding, Severity, check_firewall};
use crate::config::Source;

/// Calls that wait: while one is being answered, any number more are one.
const MAX_WAITING_CALLS: usize = 1;

/// Has the rules looked at.
pub struct FirewallWatch {
    /// The configuration that is to be looked at next.
    next: Arc<Mutex<Option<(Source, Config)>>>,
    calls: SyncSender<()>,
    /// The errors of the last look.
    errors: Arc<Mutex<Vec<String>>>,
}

impl FirewallWatch {
    /// Starts the thread; it ends with this.
    pub fn start() -> io::Result<Self> {
        let next = Arc::new(Mutex::new(None));
        let (calls, called) = mpsc::sync_channel(MAX_WAITING_CALLS);
        let errors = Arc::default();
        let theirs = (next.clone(), Arc::clone(&errors));
        thread::Builder::new()
            .name("firewall".to_owned())
            .spawn(move || watch(&called, &theirs.0, &theirs.1))?;
        Ok(Self { next, calls, errors })
    }

    /// What the last look found to stop mail, a line each.
    pub fn problems(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the rules soon, for this configuration. Never waits.
    pub fn look(&self, source: &Source, config: &Config) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((source.clone(), config.clone()));
        // If a call waits already, whoever answers it finds this configuration.
        let _ = self.calls.try_send(());
    }
}

fn watch(called: &Receiver<()>, next: &Mutex<Option<(Source, Config)>>, errors: &Mutex<Vec<String>>) {
    while called.recv().is_ok() {
        let wanted = next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((source, config)) = wanted else { continue };
        let findings = check_firewall(&source, &config);
        findings.iter().for_each(say);
        let bad = findings.iter().filter(|finding| finding.severity == Severity::Error);
        let bad: Vec<String> =
            bad.map(|finding| format!("firewall: {} (mailguard doctor)", finding.what)).collect();
        let stops_none = bad.is_empty();
        *errors.lock().unwrap_or_else(PoisonError::into_inner) = bad;
        if stops_none {
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
