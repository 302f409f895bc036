//! Many SMTP sessions that are held open: clients that say nothing, and clients that say little.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Longest wait for one reply.
const PATIENCE: Duration = Duration::from_secs(30);

/// Files that are open beside the sessions, at most.
const OTHER_FILES: u64 = 500;

/// Sessions with one server.
pub struct Crowd(Vec<BufReader<TcpStream>>);

impl Crowd {
    /// Opens so many sessions, each of them greeted, from where the calling thread is.
    pub fn open(server: SocketAddr, sessions: usize) -> Result<Self> {
        raise_open_files(sessions as u64 + OTHER_FILES)?;
        let mut crowd = Self(Vec::with_capacity(sessions));
        for _ in 0..sessions {
            let stream = TcpStream::connect_timeout(&server, PATIENCE).context("a session")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            // Few octets: what a reader keeps is no part of what is measured, but of the machine.
            crowd.0.push(BufReader::with_capacity(512, stream));
        }
        crowd.hear("220")?;
        crowd.all("EHLO client.example.test", "250")?;
        Ok(crowd)
    }

    /// How many there are.
    pub fn sessions(&self) -> usize {
        self.0.len()
    }

    /// Each says `command`, and hears a reply with this code.
    pub fn all(&mut self, command: &str, code: &str) -> Result<()> {
        self.say(&format!("{command}\r\n"))?;
        self.hear(code)
    }

    /// Each says this, and hears nothing.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.0.iter_mut().try_for_each(|stream| Ok(stream.get_mut().write_all(text.as_bytes())?))
    }

    fn hear(&mut self, code: &str) -> Result<()> {
        self.0
            .iter_mut()
            .enumerate()
            .try_for_each(|(number, stream)| hear(stream, code).with_context(|| format!("session {number}")))
    }
}

fn hear(stream: &mut BufReader<TcpStream>, code: &str) -> Result<()> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        if !line.starts_with(code) {
            bail!("{code} was to come, not {line:?}");
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

fn raise_open_files(files: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < files {
        bail!("{files} open files are needed, {hard} are allowed: ulimit -Hn");
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.max(files), hard)?)
}
