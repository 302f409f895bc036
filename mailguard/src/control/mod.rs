//! The control socket: how the command line speaks with the running daemon.
//!
//! `runtime_dir/control.sock`, mode 0660: whoever may open it may do everything. One line of JSON is a request,
//! one line its answer, as many after one another as the client likes. `protocol` is what is said, `server` and
//! `client` are the two ends. What a request does is up to the [`Handler`], which `runtime` provides.

mod client;
mod protocol;
mod server;

pub use client::{Client, ClientError};
pub use protocol::*;
pub use server::{BindError, Handler, bind, serve};

use std::path::{Path, PathBuf};

/// Longest request line, octets: an edit that fills a list of 65,536 networks, 46 octets each at most, fits.
pub const MAX_REQUEST_OCTETS: usize = 4 << 20;
/// Longest answer line, octets: the entries of full lists with their counts fit.
pub const MAX_ANSWER_OCTETS: usize = 64 << 20;
/// Rows that one answer lists at most; a client asks again for more.
pub const MAX_ROWS: u32 = 1_000;

/// The socket of the daemon with this `runtime_dir`.
pub fn socket_path(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("control.sock")
}

#[cfg(test)]
mod tests;
