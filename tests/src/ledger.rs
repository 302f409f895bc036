//! An independent witness: a small SMTP client that writes down, and syncs, every message that was answered
//! 250.
//!
//! It shares no code with mailguard. What its ledger holds must reach the far server, whatever is killed
//! meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest wait for one reply.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a connection that failed.
const PAUSE: Duration = Duration::from_millis(20);

/// Sends messages over several connections until it is told to stop.
pub struct Witness {
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    threads: Vec<JoinHandle<()>>,
}

/// What is sent: `{}` in an address is the message's number.
#[derive(Debug, Clone, Copy)]
pub struct Letter {
    /// Octets of text.
    pub octets: usize,
    /// The number of the first message.
    pub first: u64,
    /// MAIL FROM, without brackets.
    pub sender: &'static str,
    /// RCPT TO, without brackets.
    pub recipients: &'static [&'static str],
}

struct Ledger {
    file: Mutex<File>,
    path: PathBuf,
    next: AtomicU64,
    letter: Letter,
}

impl Witness {
    /// Starts `connections` clients of `server`. `enter` is called first in each thread, to go where the
    /// clients belong. Each message has the subject `ledger-N`.
    pub fn start(
        folder: &Path,
        server: SocketAddr,
        connections: usize,
        letter: Letter,
        enter: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self> {
        let path = folder.join("ledger");
        let file = File::options().create(true).append(true).open(&path)?;
        let ledger =
            Arc::new(Ledger { file: Mutex::new(file), path, next: AtomicU64::new(letter.first), letter });
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..connections)
            .map(|_| {
                let (stop, ledger, enter) = (stop.clone(), ledger.clone(), enter.clone());
                std::thread::spawn(move || {
                    enter();
                    while !stop.load(Ordering::Relaxed) {
                        // A session that ends early is what is being provoked; what it sent without a 250
                        // isn't owed.
                        if session(server, &ledger, &stop).is_err() {
                            std::thread::sleep(PAUSE);
                        }
                    }
                })
            })
            .collect();
        Ok(Self { stop, ledger, threads })
    }

    /// How many messages were answered 250 so far.
    pub fn acknowledged(&self) -> Result<usize> {
        Ok(read(&self.ledger.path)?.len())
    }

    /// Stops sending; the numbers of all messages that were answered 250.
    pub fn finish(self) -> Result<BTreeSet<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                bail!("a client of the witness panicked");
            }
        }
        read(&self.ledger.path)
    }
}

fn read(path: &Path) -> Result<BTreeSet<u64>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| line.parse().context("a line of the ledger")).collect()
}

fn session(server: SocketAddr, ledger: &Ledger, stop: &AtomicBool) -> Result<()> {
    let stream = TcpStream::connect_timeout(&server, REPLY_PATIENCE)?;
    stream.set_read_timeout(Some(REPLY_PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    expect(&mut replies, "220")?;
    command(&mut stream, &mut replies, "EHLO witness.example.test", "250")?;
    while !stop.load(Ordering::Relaxed) {
        let number = ledger.next.fetch_add(1, Ordering::Relaxed);
        let Letter { octets, sender, recipients, .. } = ledger.letter;
        let address = |text: &str| text.replace("{}", &number.to_string());
        command(&mut stream, &mut replies, &format!("MAIL FROM:<{}>", address(sender)), "250")?;
        for recipient in recipients {
            command(&mut stream, &mut replies, &format!("RCPT TO:<{}>", address(recipient)), "250")?;
        }
        command(&mut stream, &mut replies, "DATA", "354")?;
        stream.write_all(text(number, octets).as_bytes())?;
        expect(&mut replies, "250")?;
        let mut file = ledger.file.lock().map_err(|_| anyhow::anyhow!("the ledger is poisoned"))?;
        file.write_all(format!("{number}\n").as_bytes())?;
        file.sync_data()?;
    }
    command(&mut stream, &mut replies, "QUIT", "221")
}

/// Each line of a message's text.
const LINE: &str = "0123456789 abcdefghijklmnopqrstuvwxyz\r\n";

/// Whether a message of `octets` of text, with whatever line ends, is there to its last line.
pub fn is_complete(content: &str, octets: usize) -> bool {
    content.lines().filter(|line| *line == LINE.trim_end()).count() == lines_of(octets)
}

/// Lines of a text of `octets`.
pub fn lines_of(octets: usize) -> usize {
    octets.div_ceil(LINE.len())
}

fn text(number: u64, octets: usize) -> String {
    let body = LINE.repeat(lines_of(octets));
    format!("Subject: ledger-{number}\r\nFrom: <witness@client.example.test>\r\n\r\n{body}.\r\n")
}

fn command(to: &mut TcpStream, replies: &mut impl BufRead, line: &str, code: &str) -> Result<()> {
    to.write_all(format!("{line}\r\n").as_bytes())?;
    expect(replies, code)
}

fn expect(replies: &mut impl BufRead, code: &str) -> Result<()> {
    loop {
        let mut line = String::new();
        if replies.read_line(&mut line)? == 0 {
            bail!("the connection ended");
        }
        if !line.starts_with(code) {
            bail!("{code} expected: {line}");
        }
        if line.as_bytes().get(3) == Some(&b' ') {
            return Ok(());
        }
    }
}
