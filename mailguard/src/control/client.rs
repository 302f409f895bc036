//! The command line's end of the control socket. Blocking: a command asks, waits and prints.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{MAX_ANSWER_OCTETS, MAX_REQUEST_OCTETS};
use crate::admin::{AdminError, Answer, Ask, OtherAnswer, Process, Reply, Request};

/// The daemon answers within this time; longer than it takes to handle a request.
const ANSWER_TIME: Duration = Duration::from_secs(90);

/// How often whoever asks says whether to go on waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("mailguard is not running: nobody answers on {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket isn't for this user.
    #[error(
        "no permission to use {}: run this as root{}", .0.display(),
        if *.1 == Process::Mail { " or as a member of its group" } else { "" }
    )]
    Permission(PathBuf, Process),
    /// The connection failed.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The daemon closed without an answer, or what it said is none: two versions, most likely.
    #[error("the daemon on {} gave no answer: {cause}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What it said instead.
        cause: String,
    },
    /// Another question was answered.
    #[error(transparent)]
    Other(#[from] OtherAnswer),
    /// More than a request may hold.
    #[error("too much at once: a request holds at most {MAX_REQUEST_OCTETS} octets")]
    TooLong,
    /// The daemon's own words.
    #[error(transparent)]
    Refused(#[from] AdminError),
}

impl Client {
    /// Connects to the socket at `path`, which is this process's.
    pub fn connect(path: &Path, process: Process) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(path.to_owned())
            }
            io::ErrorKind::PermissionDenied => ClientError::Permission(path.to_owned(), process),
            _ => ClientError::Io { path: path.to_owned(), cause },
        })?;
        let set =
            stream.set_read_timeout(Some(POLL_INTERVAL)).and(stream.set_write_timeout(Some(ANSWER_TIME)));
        set.map_err(|cause| ClientError::Io { path: path.to_owned(), cause })?;
        Ok(Self { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Asks, and waits for the answer.
    pub fn ask<A: Ask>(&mut self, question: A) -> Result<A::Answer, ClientError> {
        self.ask_while(question, || true)
    }

    /// Asks, and waits for the answer as long as `go_on`, which is asked a few times a second, says so.
    pub fn ask_while<A: Ask>(
        &mut self,
        question: A,
        go_on: impl FnMut() -> bool,
    ) -> Result<A::Answer, ClientError> {
        Ok(self.exchange(&question.into(), go_on)?.try_into()?)
    }

    fn exchange(
        &mut self,
        request: &Request,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Answer, ClientError> {
        let no_answer = |cause: String| ClientError::NoAnswer { path: self.path.clone(), cause };
        let mut line = serde_json::to_vec(request).map_err(|error| no_answer(error.to_string()))?;
        line.push(b'\n');
        if line.len() > MAX_REQUEST_OCTETS {
            return Err(ClientError::TooLong);
        }
        let mut answer = Vec::new();
        let exchange = self.stream.get_mut().write_all(&line);
        let exchange = exchange.and_then(|()| read_line(&mut self.stream, &mut answer, &mut go_on));
        match exchange {
            Ok(0) => Err(no_answer("it closed the connection".to_owned())),
            Ok(_) => match serde_json::from_slice(&answer).map_err(|error| no_answer(error.to_string()))? {
                Reply::Ok(answer) => Ok(*answer),
                Reply::Error(error) => Err(ClientError::Refused(error)),
            },
            Err(cause) if cause.kind() == io::ErrorKind::TimedOut => Err(no_answer("it hangs".to_owned())),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                Err(no_answer(format!("it takes no question within {} seconds", ANSWER_TIME.as_secs())))
            }
            Err(cause) => Err(ClientError::Io { path: self.path.clone(), cause }),
        }
    }
}

/// Reads a line of at most [`MAX_ANSWER_OCTETS`]; `TimedOut` when it isn't there within [`ANSWER_TIME`] or
/// `go_on` says no.
fn read_line(
    stream: &mut BufReader<UnixStream>,
    line: &mut Vec<u8>,
    go_on: &mut impl FnMut() -> bool,
) -> io::Result<usize> {
    let deadline = Instant::now() + ANSWER_TIME;
    loop {
        let left = (MAX_ANSWER_OCTETS + 1).saturating_sub(line.len());
        match (&mut *stream).take(left as u64).read_until(b'\n', line) {
            // What came is in `line` already.
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline || !go_on() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(cause) => return Err(cause),
            Ok(_) => return Ok(line.len()),
        }
    }
}
