//! The composition root: the only place that constructs and wires. Two processes, started from one program.
//!
//! `supervisor` is the datapath process: root, reads the configuration, steers packets, keeps the listeners.
//! `mail` is the mail process: it does everything else, without a privilege. `ipc` is what they say to each other.

mod bans;
mod descriptors;
mod handler;
mod instance;
pub mod ipc;
mod log;
pub mod mail;
mod names;
mod privileged;
mod reception;
mod rows;
mod services;
mod spawn;
pub mod supervisor;

use std::io;
use std::path::PathBuf;

use mailguard_core::config::Config;

use crate::datapath::DatapathError;
use crate::intercept::ListenError;

pub use instance::InstanceError;

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
    /// A folder is in use by somebody else.
    #[error(
        "{path} holds files and isn't {user}'s: name a folder of mailguard's own, or give this one to {user}"
    )]
    ForeignDirectory {
        /// Which.
        path: PathBuf,
        /// Who should own it.
        user: String,
    },
    /// A folder can't be made or given to the user.
    #[error("{path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration is refused; the text names every error.
    #[error("{0}")]
    Config(String),
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

/// Whether a configuration that is written rightly can be used, too: YARA rules compile, keys fit certificates.
pub fn examine(config: &Config) -> anyhow::Result<()> {
    services::Made::examine(config)
}
