//! The protocol between the datapath process (root) and the mail process (no privileges): length-prefixed JSON
//! frames over a socket pair. Typed, small, and never a byte of foreign mail in it.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use mailguard_core::names::NameStatus;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::{Edit, Source};
use crate::control;
use crate::datapath::{BanStatus, RuleCount};
use crate::intercept::Purpose;

/// Largest frame to the mail process in octets: a configuration with its list files fits well.
pub const MAX_FRAME_OCTETS: usize = 64 << 20;
/// Largest frame to the datapath process in octets: an edit of a list, as the control socket takes it, in its frame.
pub const MAX_REQUEST_OCTETS: usize = control::MAX_REQUEST_OCTETS + (64 << 10);
/// Clients in one request: far fewer octets than it may have.
pub const MAX_CLIENTS: usize = 4_096;

/// From the datapath process to the mail process.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToMail {
    /// First of all: what to serve.
    Start {
        /// The configuration as it was read.
        current: Current,
        /// The number of the inherited socket by which listeners come.
        descriptors: i32,
        /// The listeners that came by it.
        listeners: Vec<HandedListener>,
    },
    /// The answer to the request of this number.
    Answer {
        /// Its number.
        id: u64,
        /// What came of it; the error is a text for the administrator.
        result: Result<Answer, String>,
    },
    /// The configuration, or the interfaces of its zones, have changed.
    Changed {
        /// The configuration: what the listeners are for is found there.
        current: Current,
        /// Listeners that came meanwhile.
        opened: Vec<HandedListener>,
        /// Numbers of those that nothing is expected from any more.
        closed: Vec<u64>,
    },
    /// Finish what is under way and end.
    Stop,
}

/// The configuration that is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Current {
    /// What it was read from.
    pub source: Source,
    /// Grows with each change: a later one is never replaced by an earlier one, whichever way each of them came.
    pub revision: u64,
}

/// A listening socket that is handed to the mail process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandedListener {
    /// Its number.
    pub id: u64,
    /// What it is for.
    pub purpose: Purpose,
}

/// From the mail process to the datapath process.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToDatapath {
    /// Connections are being accepted, and the process is alive: sent each second.
    Heartbeat {
        /// The age of the oldest session that is open.
        oldest_session: Option<Duration>,
    },
    /// Something only root can do.
    Request {
        /// Comes back with the answer.
        id: u64,
        /// What.
        request: Request,
    },
}

/// What the mail process may ask for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Read the configuration file again; apply it whole or refuse it.
    Reload,
    /// Change one list of the configuration file and apply it.
    Edit(Edit),
    /// Counters, programs and map use.
    Status,
    /// How often each rule decided.
    RuleCounts,
    /// Keep these clients out for so long: all, or none. At most [`MAX_CLIENTS`].
    Ban(Vec<(IpAddr, Duration)>),
    /// Let these in again. At most [`MAX_CLIENTS`].
    Lift(Vec<IpAddr>),
    /// Whom the kernel keeps out.
    Bans,
}

/// What the datapath process answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// What is in force now.
    Current {
        /// The configuration.
        current: Current,
        /// What an administrator should know, a line each.
        notes: Vec<String>,
    },
    /// The state of the datapath process.
    Status {
        /// The kernel side, as [`crate::datapath::DatapathStatus`] is written.
        kernel: serde_json::Value,
        /// What isn't as it should be, a line each.
        problems: Vec<String>,
    },
    /// The rules that decided about any packet, and the addresses that names stand for.
    RuleCounts {
        /// The rules.
        rules: Vec<RuleCount>,
        /// The names.
        names: Vec<NameStatus>,
    },
    /// It is done.
    Done,
    /// The bans in force.
    Bans(Vec<BanStatus>),
}

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME_OCTETS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a frame of {length} octets is too large"),
        ));
    }
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

fn frame_length(prefix: [u8; 4], limit: usize) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} octets is too large"),
        ));
    }
    Ok(length)
}

/// Writes one message.
pub fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// Reads one message of at most `limit` octets; `UnexpectedEof` when the other process is gone.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, limit: usize) -> io::Result<T> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix)?;
    let mut frame = vec![0; frame_length(prefix, limit)?];
    from.read_exact(&mut frame)?;
    Ok(serde_json::from_slice(&frame)?)
}

/// [`write`], without blocking the thread.
pub async fn write_async(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    to.write_all(&encode(message)?).await
}

/// [`read`] with [`MAX_FRAME_OCTETS`], without blocking the thread.
pub async fn read_async<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).await?;
    let mut frame = vec![0; frame_length(prefix, MAX_FRAME_OCTETS)?];
    from.read_exact(&mut frame).await?;
    Ok(serde_json::from_slice(&frame)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way_and_end_is_seen() {
        let mut wire = Vec::new();
        write(&mut wire, &ToDatapath::Heartbeat { oldest_session: None }).unwrap();
        write(&mut wire, &ToDatapath::Request { id: 7, request: Request::Reload }).unwrap();
        let mut from = wire.as_slice();
        assert!(matches!(
            read(&mut from, MAX_REQUEST_OCTETS),
            Ok(ToDatapath::Heartbeat { oldest_session: None })
        ));
        assert!(matches!(
            read(&mut from, MAX_REQUEST_OCTETS),
            Ok(ToDatapath::Request { id: 7, request: Request::Reload })
        ));
        let end = read::<ToDatapath>(&mut from, MAX_REQUEST_OCTETS).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let error = read::<ToDatapath>(&mut [0, 0x41, 0, 1].as_slice(), MAX_REQUEST_OCTETS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
