//! A far server that isn't easy, and remembers what it took: written for the tests, in plain threads, sharing
//! no code with mailguard. What it does to a recipient stands in the first letter of the address: `g`ood ones
//! are taken, `b`ad ones refused, `l`ate ones taken the second time; with a `d`ropped one it closes the
//! connection instead of answering the content, the first time.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// Longest wait for a client's next line.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest line that is read, octets.
const MAX_LINE_OCTETS: usize = 4096;

/// A message that was answered 250.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// MAIL FROM, without brackets; empty for a report.
    pub sender: String,
    /// The recipients that were taken, without brackets.
    pub recipients: Vec<String>,
    /// Lines of the content.
    pub lines: usize,
    /// The first Subject field.
    pub subject: String,
    /// Whom a report is about.
    pub reported: Vec<String>,
}

#[derive(Debug, Default)]
struct Memory {
    taken: Vec<Taken>,
    /// Addresses that were put off, or whose connection was closed.
    seen: HashSet<String>,
}

/// The server; its threads end with the process.
#[derive(Debug, Clone, Default)]
pub struct Fickle(Arc<Mutex<Memory>>);

impl Fickle {
    /// Listens on `address`. `enter` is called first in the thread that does, to go where the server belongs.
    pub fn start(address: SocketAddr, enter: impl FnOnce() + Send + 'static) -> Result<Self> {
        let server = Self::default();
        let shared = server.clone();
        let (ready, listening) = std::sync::mpsc::channel();
        thread::spawn(move || {
            enter();
            let listener = TcpListener::bind(address);
            let bound = listener.as_ref().map(drop).map_err(|error| format!("{address}: {error}"));
            let _ = ready.send(bound);
            let Ok(listener) = listener else { return };
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A client that goes away is what is being provoked.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        listening.recv()?.map_err(anyhow::Error::msg)?;
        Ok(server)
    }

    /// Everything that was answered 250 since the last call.
    pub fn drain(&self) -> Vec<Taken> {
        std::mem::take(&mut self.lock().taken)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the first time that the address is seen so.
    fn first(&self, address: &str) -> bool {
        self.lock().seen.insert(address.to_owned())
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes());
        say("220 far.example.test ESMTP")?;
        let (mut sender, mut recipients) = (String::new(), Vec::new());
        while let Some(line) = next_line(&mut lines)? {
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => say("250-far.example.test\r\n250-PIPELINING\r\n250 DSN")?,
                "MAIL" => {
                    (sender, recipients) = (address(&line), Vec::new());
                    say("250 2.1.0 ok")?;
                }
                "RCPT" => {
                    let address = address(&line);
                    let reply = match address.as_bytes().first() {
                        Some(b'b') => "550 5.1.1 no such user",
                        Some(b'l') if self.first(&address) => "451 4.2.0 later",
                        _ => "250 2.1.5 ok",
                    };
                    if reply.starts_with('2') {
                        recipients.push(address);
                    }
                    say(reply)?;
                }
                "DATA" if recipients.is_empty() => say("554 5.5.1 no recipients")?,
                "DATA" => {
                    say("354 go")?;
                    let Some(content) = content(&mut lines)? else { return Ok(()) };
                    let dropped = |address: &&String| address.starts_with('d');
                    if recipients.iter().filter(dropped).any(|address| self.first(address)) {
                        return Ok(());
                    }
                    let taken = Taken {
                        sender: std::mem::take(&mut sender),
                        recipients: std::mem::take(&mut recipients),
                        ..content
                    };
                    self.lock().taken.push(taken);
                    say("250 2.0.0 taken")?;
                }
                "RSET" | "NOOP" => say("250 2.0.0 ok")?,
                "QUIT" => return Ok(say("221 2.0.0 bye")?),
                _ => say("500 5.5.1 what?")?,
            }
        }
        Ok(())
    }
}

fn next_line(lines: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    std::io::Read::take(&mut *lines, MAX_LINE_OCTETS as u64).read_until(b'\n', &mut line)?;
    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
    Ok((line.ends_with(b"\n")).then_some(text))
}

/// What stands between the brackets.
fn address(line: &str) -> String {
    let inner = line.split_once('<').map_or("", |(_, rest)| rest);
    inner.split('>').next().unwrap_or_default().to_owned()
}

/// What stands in the content up to the final dot; none if the connection ends before it.
fn content(lines: &mut impl BufRead) -> Result<Option<Taken>> {
    let mut taken = Taken::default();
    while let Some(line) = next_line(lines)? {
        if line == "." {
            return Ok(Some(taken));
        }
        if let Some(text) = line.strip_prefix("Subject: ").filter(|_| taken.subject.is_empty()) {
            text.clone_into(&mut taken.subject);
        }
        if let Some(text) = line.strip_prefix("Final-Recipient: rfc822; ") {
            taken.reported.push(text.to_owned());
        }
        taken.lines += 1;
    }
    Ok(None)
}
