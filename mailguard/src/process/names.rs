//! `bypass.to_names` within the datapath process: starts it with what this network namespace remembers.

use mailguard_core::config::Config;
use mailguard_core::names::NameStatus;
use tracing::{error, warn};

use super::RunError;
use crate::datapath::{self, Datapath};
use crate::names::{self, NamedServers};

/// Starts it. `changed` is called when other addresses bypass, until it returns false.
pub(super) fn start(
    config: &Config,
    changed: impl Fn() -> bool + Send + 'static,
) -> Result<NamedServers, RunError> {
    let namespace = datapath::netns_cookie()?;
    NamedServers::start(config, namespace, changed)
        .map_err(|source| RunError::System { what: "start looking up bypass.to_names", source })
}

/// Tells the kernel of other addresses that bypass by their names.
pub(super) fn follow(names: &NamedServers, datapath: &mut Datapath, config: &Config) {
    if let Err(error) = datapath.set_named(names.bypassed(), config) {
        error!(%error, "bypass.to_names: the kernel isn't told of other addresses; tried again at the next change");
    }
}

/// Removes what this network namespace remembers of names.
pub(super) fn forget() {
    let forgotten = datapath::netns_cookie().map_err(|error| error.to_string());
    let forgotten =
        forgotten.and_then(|namespace| names::forget(namespace).map_err(|error| error.to_string()));
    if let Err(error) = forgotten {
        warn!(error, "what is remembered of bypass.to_names can't be removed");
    }
}

/// What is the matter with names, a line each.
pub(super) fn problems(names: &[NameStatus]) -> Vec<String> {
    let line = |NameStatus { name, problem, .. }: &NameStatus| {
        problem.as_ref().map(|problem| format!("bypass.to_names: {name}: {problem}"))
    };
    names.iter().filter_map(line).collect()
}
