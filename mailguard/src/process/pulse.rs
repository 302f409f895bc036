//! The mail process seen from outside: its signs of life, which a thread of its own hands on to the kernel
//! however busy the supervisor is, and how it fares, for `status`.
//!
//! A sign of life is one octet on the socket by which listeners go the other way: nothing that the mail
//! process asks for, or is told, can be in front of it.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::error;

use super::last_words::cause;
use crate::admin::MailProcess;
use crate::datapath::Pulse;

/// Where signs of life go to and what they say.
#[derive(Clone)]
pub(super) struct Vigil(Arc<Mutex<Known>>);

struct Known {
    pulse: Pulse,
    /// Which mail process is heard: never one that another has replaced.
    generation: u64,
    /// Its last sign of life.
    heard: Option<Instant>,
    report: MailProcess,
}

impl Vigil {
    pub(super) fn new(pulse: Pulse) -> Self {
        let report = MailProcess::default();
        Self(Arc::new(Mutex::new(Known { pulse, generation: 0, heard: None, report })))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this mail process is heard, until `from` says no more.
    pub(super) fn begin(&self, generation: u64, pid: u32, from: &UnixStream) -> io::Result<()> {
        {
            let mut known = self.known();
            (known.generation, known.heard) = (generation, None);
            known.report.pid = Some(pid);
            known.report.started_at = Some(SystemTime::now().into());
        }
        let (mut from, vigil) = (from.try_clone()?, self.clone());
        thread::Builder::new().name("pulse".to_owned()).spawn(move || {
            // However many came meanwhile: they are one.
            let mut octets = [0; 64];
            while from.read(&mut octets).is_ok_and(|count| count > 0) {
                vigil.note(generation);
            }
        })?;
        Ok(())
    }

    fn note(&self, generation: u64) {
        let mut known = self.known();
        if known.generation != generation {
            return;
        }
        known.heard = Some(Instant::now());
        if let Err(error) = known.pulse.beat() {
            error!(%error, "the kernel side can't be told that the mail process lives");
        }
    }

    /// No mail process is heard any more.
    pub(super) fn end(&self) {
        let mut known = self.known();
        (known.generation, known.heard, known.report.pid) = (0, None, None);
    }

    /// It ended by itself; how, in words.
    pub(super) fn ended(
        &self,
        status: Option<ExitStatus>,
        killed: Option<&str>,
        words: Vec<String>,
    ) -> String {
        self.end();
        let how = match (killed, status) {
            (Some(why), _) => why.to_owned(),
            (None, Some(status)) => cause(status),
            (None, None) => "ended, nobody knows how".to_owned(),
        };
        let report = &mut self.known().report;
        report.restarts += 1;
        report.last_ended_at = Some(SystemTime::now().into());
        report.last_cause = Some(how.clone());
        report.last_words = words;
        how
    }

    /// How long ago it gave its last sign of life; none: it hasn't yet.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.known().heard.map(|heard| heard.elapsed())
    }

    /// How it fares.
    pub(super) fn report(&self) -> MailProcess {
        let known = self.known();
        let silence = known.heard.map(|heard| heard.elapsed().as_millis());
        let silent_milliseconds = silence.map(|silent| u64::try_from(silent).unwrap_or(u64::MAX));
        MailProcess { silent_milliseconds, ..known.report.clone() }
    }
}
