//! How the mail process takes over a configuration that the datapath process has put in force: all of it or
//! nothing, and for new sessions and attempts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use mailguard_core::config::Config;

use super::ipc::Current;
use super::log::Logging;
use super::services::{CompiledConfig, MailServices};
use crate::admin::{AdminError, ErrorKind, LoadedConfig};
use crate::bans::Bans;
use crate::config;
use crate::queue::QueueHandle;

/// What goes by the configuration.
pub(super) struct Adoption {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) in_force: Arc<ArcSwap<LoadedConfig>>,
    pub(super) services: Arc<MailServices>,
    pub(super) queue: QueueHandle,
    pub(super) bans: Bans,
    pub(super) logging: Logging,
    /// Held over each: sessions get scanner and configuration of one revision, and the latest.
    pub(super) one_at_a_time: Mutex<()>,
}

/// What a process uses from now on.
pub(super) fn in_force(Current { source, revision }: Current) -> LoadedConfig {
    LoadedConfig { source, revision, since: SystemTime::now().into() }
}

fn refused(error: impl ToString) -> AdminError {
    AdminError::new(ErrorKind::Refused, error)
}

impl Adoption {
    /// Uses this, unless what is used is later. An error says why it can't be.
    pub(super) fn adopt(&self, current: Current) -> Result<(), AdminError> {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if current.revision <= self.in_force.load().revision {
            return Ok(());
        }
        let config = config::parse_and_validate(&current.source).map_err(refused)?;
        let (before, old) = (self.services.compiled(), self.config.load_full());
        let compiled = CompiledConfig::of(&config, Some((&before, &old))).map_err(refused)?;
        self.logging.set(&config.log);
        self.services.set_compiled(compiled);
        self.config.store(Arc::new(config));
        self.bans.config_changed();
        self.queue.config_changed();
        self.in_force.store(Arc::new(in_force(current)));
        Ok(())
    }
}
