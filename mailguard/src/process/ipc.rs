//! The protocol between the datapath process (root) and the mail process (no privileges): length-prefixed
//! JSON frames over a socket pair. Typed, small, and never a byte of foreign mail in it. What the mail
//! process can ask for opens nothing: `bans::asked` says how far it goes.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use mailguard_core::names::NameStatus;
use mailguard_core::subscriber::Subscriber;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::admin::AdminError;
use crate::config::Source;
use crate::datapath::{BanStatus, DatapathStatus, RuleCount};
use crate::intercept::Purpose;

/// Largest frame to the mail process in octets: a configuration with its list files fits well.
pub const MAX_FRAME_OCTETS: usize = 64 << 20;
/// Largest frame to the datapath process in octets: [`crate::bans::MAX_CLIENTS`] in one request fit, and
/// texts for an administrator.
pub const MAX_REQUEST_OCTETS: usize = 1 << 20;

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
        /// Clients that an administrator let in again, and no mail process has said yet that it knows.
        lifted: Vec<Subscriber>,
    },
    /// The answer to the request of this number.
    Answer {
        /// Its number.
        id: u64,
        /// What came of it, or why nothing did.
        result: Result<Answer, AdminError>,
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
    /// An administrator let these clients in again: they are no longer banned.
    Lifted(Vec<Subscriber>),
    /// Finish what is under way and end.
    Stop,
}

/// The configuration that is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Current {
    /// What it was read from.
    pub source: Source,
    /// Grows with each change: a later one is never replaced by an earlier one, whichever way each of them
    /// came.
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
    /// The configuration of this revision, or a later one, serves new sessions now.
    Adopted {
        /// Which.
        revision: u64,
        /// Whether that could be.
        result: Result<(), AdminError>,
    },
    /// Somebody has told this process to end, by the signal of this number: it does, in order.
    Leaving(i32),
    /// It is forgotten that these clients were banned.
    Forgotten(Vec<Subscriber>),
    /// Something only root can do.
    Request {
        /// Comes back with the answer.
        id: u64,
        /// What.
        request: Request,
    },
}

/// What the mail process may ask for: to see the kernel side, and to keep clients out. A mail process that
/// was taken over has no more than this, so nothing here lets anybody in or changes the configuration.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Counters, programs and map use.
    Status,
    /// How often each rule decided.
    RuleCounts,
    /// Keep these clients out for so long: all, or none. At most [`crate::bans::MAX_CLIENTS`].
    Ban(Vec<(IpAddr, Duration)>),
    /// Whom the kernel keeps out.
    Bans,
}

/// What the datapath process answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The state of the datapath process.
    Status {
        /// The kernel side.
        kernel: Box<DatapathStatus>,
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
    use crate::admin::ErrorKind;
    use crate::bans::MAX_CLIENTS;

    #[test]
    fn frames_survive_the_way_and_end_is_seen() {
        let mut wire = Vec::new();
        write(&mut wire, &ToDatapath::Heartbeat { oldest_session: None }).unwrap();
        write(&mut wire, &ToDatapath::Request { id: 7, request: Request::Bans }).unwrap();
        let mut from = wire.as_slice();
        assert!(matches!(
            read(&mut from, MAX_REQUEST_OCTETS),
            Ok(ToDatapath::Heartbeat { oldest_session: None })
        ));
        assert!(matches!(
            read(&mut from, MAX_REQUEST_OCTETS),
            Ok(ToDatapath::Request { id: 7, request: Request::Bans })
        ));
        let end = read::<ToDatapath>(&mut from, MAX_REQUEST_OCTETS).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// A reason that lost its kind on the way would end as a failure, whatever it was.
    #[test]
    fn a_reason_keeps_its_kind_on_the_way() {
        for kind in [
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::Refused,
            ErrorKind::Failed,
            ErrorKind::Unavailable,
        ] {
            let error = AdminError::new(kind, "why");
            let mut wire = Vec::new();
            write(&mut wire, &ToMail::Answer { id: 7, result: Err(error.clone()) }).unwrap();
            write(&mut wire, &ToDatapath::Adopted { revision: 2, result: Err(error.clone()) }).unwrap();
            let mut from = wire.as_slice();
            let answer = read(&mut from, MAX_FRAME_OCTETS);
            assert!(matches!(answer, Ok(ToMail::Answer { id: 7, result: Err(read) }) if read == error));
            let adopted = read(&mut from, MAX_REQUEST_OCTETS);
            assert!(matches!(adopted, Ok(ToDatapath::Adopted { result: Err(read), .. }) if read == error));
        }
    }

    /// A mail process that was taken over writes what it likes: these are not words of this protocol.
    #[test]
    fn nothing_that_opens_can_be_said_to_the_datapath_process() {
        for request in [
            r#""Reload""#,
            r#"{"Edit":{"list":"bypass-from-subnet","change":"add","values":["0.0.0.0/0"]}}"#,
            r#"{"Lift":["192.0.2.1"]}"#,
            r#"{"BanLift":{"clients":null}}"#,
        ] {
            let mut wire = Vec::new();
            let frame = format!(r#"{{"Request":{{"id":1,"request":{request}}}}}"#);
            wire.extend((frame.len() as u32).to_be_bytes());
            wire.extend(frame.as_bytes());
            let read = read::<ToDatapath>(&mut wire.as_slice(), MAX_REQUEST_OCTETS);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData, "{request}");
        }
    }

    #[test]
    fn as_many_clients_as_a_request_may_name_fit_into_it() {
        let client = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        let request = Request::Ban(vec![(client, Duration::new(31_536_000, 999_999_999)); MAX_CLIENTS]);
        let frame = encode(&ToDatapath::Request { id: u64::MAX, request }).unwrap();
        assert!(frame.len() < MAX_REQUEST_OCTETS, "{}", frame.len());
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let error = read::<ToDatapath>(&mut [0, 0x41, 0, 1].as_slice(), MAX_REQUEST_OCTETS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
