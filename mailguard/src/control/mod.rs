//! The control sockets: how the command line speaks with the running daemon.
//!
//! There are two, for there are two processes. `runtime_dir/control.sock` is the datapath process's, root's
//! alone, in a folder of root's: whatever changes the configuration or lets somebody in goes there.
//! `runtime_dir/mail/control.sock` is the mail process's, mode 0660: who may open it may see and do what that
//! process can, which is everything about messages. One line of JSON is a request, one line its answer, as
//! many after one another as the client likes. `server` and `client` are the two ends; a `signpost` leads
//! those who may not read the configuration to the sockets.
//!
//! An adapter and no more: what can be asked, by whom, and what comes of it is `admin`'s.

mod client;
mod server;
mod signpost;

pub use client::{Client, ClientError};
pub use server::{BindError, bind, serve};
pub use signpost::{Signpost, signposted};

use std::path::{Path, PathBuf};

/// Longest request line, octets: an edit that fills a list of 65,536 networks, 46 octets each at most, fits.
pub const MAX_REQUEST_OCTETS: usize = 4 << 20;
/// Longest answer line, octets: the entries of full lists with their counts fit.
pub const MAX_ANSWER_OCTETS: usize = 64 << 20;

/// Mode of the datapath process's socket.
pub const ROOT_MODE: u32 = 0o600;
/// Mode of the mail process's socket: owner and group may speak, nobody else.
pub const MAIL_MODE: u32 = 0o660;

/// The socket of the datapath process with this `runtime_dir`.
pub fn root_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

/// The folder in `runtime_dir` that is the mail user's.
pub fn mail_folder(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("mail")
}

/// The socket of the mail process with this `runtime_dir`.
pub fn mail_socket(runtime_dir: &Path) -> PathBuf {
    mail_folder(runtime_dir).join("control.sock")
}

#[cfg(test)]
mod tests;
