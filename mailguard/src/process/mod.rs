//! The composition root: the only place that constructs and wires. Two processes, started from one program.
//!
//! `supervisor` is the datapath process: root, reads the configuration, steers packets, keeps the listeners.
//! `mail` is the mail process: it does everything else, without a privilege. `ipc` is what they say to each
//! other. `root` and `adoption` join what an administrator asks and changes (`admin`) to the rest of each.
//! `start` chooses the configuration at a start. `trial` is a third process, for a moment: it tries what the
//! mail process will do.

mod adoption;
mod descriptors;
mod folders;
mod instance;
pub mod ipc;
mod last_words;
mod log;
mod log_queue;
pub mod mail;
mod names;
mod notify;
mod open_files;
mod privileged;
mod root;
mod pulse;
mod acceptors;
mod services;
mod spawn;
mod start;
pub mod supervisor;
pub mod trial;

use std::fmt;
use std::io;
use std::path::PathBuf;

use mailguard_core::config::Config;

pub use folders::FolderError;
use spawn::MailUser;
use trial::Extent;
pub use trial::TrialError;

use crate::config::{self, Located, Refused, Source};
use crate::control::{self, BindError};
use crate::datapath::DatapathError;
use crate::intercept::{self, ListenError};
use crate::routing::OwnListeners;

pub use instance::InstanceError;
#[cfg(test)]
pub(crate) use log::tests::heard as heard_log;

/// Why the datapath process can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not root.
    #[error("mailguard run needs root: it loads programs into the kernel and opens port 25")]
    NotRoot,
    /// Another instance is in the way.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// `user` doesn't exist.
    #[error("there is no user \"{0}\": create it (useradd --system --no-create-home {0}) or change `user`")]
    NoUser(String),
    /// `user` is root.
    #[error("`user` is root: mail is handled by an unprivileged user")]
    RootUser,
    /// A folder can't be given to its process.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The configuration is right, but the mail user can't do its work by it.
    #[error("{0}")]
    Trial(String),
    /// Whether it can isn't known.
    #[error(transparent)]
    Untried(#[from] TrialError),
    /// The first mail process ended before it served anybody.
    #[error("{0}")]
    MailFailed(MailFailed),
    /// Root's socket can't be opened.
    #[error(transparent)]
    Control(#[from] BindError),
    /// The configuration is refused, and no earlier one can be used instead.
    #[error(transparent)]
    Config(#[from] Refused),
    /// A listener can't be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel side failed.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Something of the operating system failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The exit code of `run` when it can't start before somebody changes the configuration or the machine:
/// EX_CONFIG of sysexits.h. A supervisor that starts programs anew need not try again.
pub const EXIT_CONFIG: u8 = 78;

impl RunError {
    /// Its exit code, if it isn't 1.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            RunError::NoUser(_) | RunError::RootUser | RunError::Config(_) | RunError::Trial(_) => {
                Some(EXIT_CONFIG)
            }
            RunError::Folder(error) => error.wants_somebody().then_some(EXIT_CONFIG),
            _ => None,
        }
    }
}

/// How a mail process ended, and what it said last.
#[derive(Debug)]
pub struct MailFailed {
    /// In words.
    pub cause: String,
    /// The last lines, oldest first.
    pub words: Vec<String>,
}

impl fmt::Display for MailFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mail process can't serve: it {}", self.cause)?;
        self.words.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What a configuration that can be used will surprise with: next hops that are this mailguard, and what is
/// probably meant otherwise.
pub fn warnings(source: &Source, config: &Config) -> Vec<Located> {
    let own = OwnListeners::new(intercept::wanted(config));
    let mut warnings = config::hops_to_ourselves(source, config, own.now());
    warnings.extend(config::doubts(source, config));
    warnings
}

/// Whether a configuration that is written rightly can be used, too: YARA rules compile, keys fit
/// certificates, and, for root, the mail user can work in its folders. Returns what couldn't be tried, a line
/// each.
pub fn validate(source: &Source, config: &Config) -> anyhow::Result<Vec<String>> {
    if !nix::unistd::geteuid().is_root() {
        services::CompiledConfig::validate(config)?;
        return Ok(vec!["not root: whether the mail user can do its work wasn't tried".to_owned()]);
    }
    let user = match MailUser::find(&config.user) {
        Ok(user) => user,
        Err(error @ RunError::NoUser(_)) => {
            services::CompiledConfig::validate(config)?;
            return Ok(vec![format!("{error}: what that user can do wasn't tried")]);
        }
        Err(error) => return Err(error.into()),
    };
    let missing: Vec<PathBuf> = [config.state_dir.clone(), control::mail_folder(&config.runtime_dir)]
        .into_iter()
        .filter(|folder| !folder.exists())
        .collect();
    let extent = if missing.is_empty() { Extent::Both } else { Extent::Content };
    root::tried(&user, source, extent)?;
    let untried = |folder: PathBuf| format!("{} is made at the start: not tried", folder.display());
    Ok(missing.into_iter().map(untried).collect())
}
