//! The control sockets: how the command line speaks with the running daemon.
//!
//! There are two, for there are two processes. `runtime_dir/control.sock` is the datapath process's, root's alone, in a
//! folder of root's: whatever changes the configuration or lets somebody in goes there. `runtime_dir/mail/control.sock`
//! is the mail process's, mode 0660: who may open it may see and do what that process can, which is everything about
//! messages. [`Request::asks`] says which is asked what. One line of JSON is a request, one line its answer, as many
//! after one another as the client likes. `protocol` is what is said, `server` and `client` are the two ends, `audit` tells the
//! log who changed what; a `signpost` leads those who may not read the configuration to the sockets. What a
//! request does is up to the [`Handler`], which `process` provides.

mod audit;
mod client;
mod processes;
mod protocol;
mod server;
mod signpost;

pub use audit::{AUDIT, VERBS_OF_ROOT, reloaded_by_signal};
pub use client::{Client, ClientError};
pub use processes::{MailProcess, Process, ProcessReport, StandIn};
pub use protocol::*;
pub use server::{BindError, Handler, bind, serve};
pub use signpost::{Signpost, signposted};

use std::path::{Path, PathBuf};

/// How a problem of `status` begins that lies in the machine around mailguard: `doctor` tells of it, too.
pub const SYSTEM_PROBLEM: &str = "system: ";

/// Longest request line, octets: an edit that fills a list of 65,536 networks, 46 octets each at most, fits.
pub const MAX_REQUEST_OCTETS: usize = 4 << 20;
/// Longest answer line, octets: the entries of full lists with their counts fit.
pub const MAX_ANSWER_OCTETS: usize = 64 << 20;
/// Rows that one answer lists at most; a client asks again for more.
pub const MAX_ROWS: u32 = 1_000;

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
