//! Starts mail processes, tells them what is in force, and finds out how they ended.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::super::descriptors;
use super::super::ipc::{self, HandedListener, ToMail};
use super::super::last_words::{self, LastWords};
use super::super::spawn;
use super::super::{MailFailed, RunError};
use super::{Event, START_PATIENCE, STOP_POLL, Served, Supervisor};
use crate::intercept::ZoneListener;

/// How long a mail process may take to finish what is under way after Stop.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a mail process may take to end after it hung up: it may be writing a core file.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the mail process may take to read what it is told.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// A running mail process.
pub(super) struct Mail {
    child: Child,
    words: LastWords,
    channel: UnixStream,
    /// Where listeners are handed over.
    descriptors: UnixStream,
    /// Numbers of those that it has.
    listeners: BTreeSet<u64>,
    /// Why we killed it, if we did.
    killed: Option<&'static str>,
    /// When it said that somebody told it to end, and by which signal.
    leaving: Option<(Instant, String)>,
}

impl Mail {
    /// It can't go on: what it is told doesn't arrive. Its end is noticed as any other.
    fn kill(&mut self, why: &'static str) {
        self.killed.get_or_insert(why);
        // One that has ended already is what we want.
        let _ = self.child.kill();
    }

    /// Somebody else than we has told it to end: it finishes what is under way, and the next one is started.
    pub(super) fn leaves(&mut self, signal: i32) {
        if self.leaving.is_none() {
            let signal = last_words::signal_name(signal);
            // No warning: we may have been told the same, and hear of it next.
            info!(
                pid = self.child.id(),
                "the mail process was told to end by {signal}, not by mailguard: it does, in order"
            );
            self.leaving = Some((Instant::now(), signal));
        }
    }

    /// It has no more time to end than one that we told to.
    pub(super) fn hurry(&mut self) {
        if self.leaving.as_ref().is_some_and(|(since, _)| since.elapsed() > STOP_PATIENCE) {
            self.kill("was told to end by somebody else, and didn't come to an end: it was killed");
        }
    }

    /// How it ended where it did as somebody else told it to.
    fn left(&self, status: Option<ExitStatus>) -> Option<String> {
        let (_, signal) = self.leaving.as_ref().filter(|_| status.is_some_and(|status| status.success()))?;
        Some(format!("was told to end by {signal}, not by mailguard, and ended in order"))
    }
}

impl Supervisor {
    pub(super) fn start_mail(&mut self) -> Result<Mail, RunError> {
        let fail = |what| move |source| RunError::System { what, source };
        self.generation += 1;
        let channel = || spawn::channel().map_err(fail("make a channel to the mail process"));
        let ((channel, their_channel), (descriptors, their_descriptors)) = (channel()?, channel()?);
        for end in [&channel, &descriptors] {
            end.set_write_timeout(Some(WRITE_PATIENCE)).map_err(fail("set up the channels"))?;
        }
        self.watch_channel(&channel).map_err(fail("read from the mail process"))?;
        let number = their_descriptors.as_raw_fd();
        let mut child = spawn::mail_process(&self.user, their_channel, their_descriptors)
            .map_err(fail("start the mail process"))?;
        info!(pid = child.id(), "the mail process is started");
        let said = child.stderr.take().ok_or_else(|| io::Error::other("it has no standard error"));
        let logging = self.logging.clone();
        let words = said.and_then(|said| LastWords::hear(said, move |line| logging.pass_on(line)));
        let words = words.map_err(fail("hear the mail process"))?;
        self.vigil.begin(self.generation, child.id(), &descriptors).map_err(fail("hear the mail process"))?;
        let mut mail = Mail {
            child,
            words,
            channel,
            descriptors,
            listeners: BTreeSet::new(),
            killed: None,
            leaving: None,
        };
        let listeners = self.hand_over(&mut mail);
        let (current, lifted) = (self.current(), self.lifted.keys().copied().collect());
        self.tell(&mut mail, &ToMail::Start { current, descriptors: number, listeners, lifted });
        Ok(mail)
    }

    /// Hands over the listeners that the mail process hasn't got.
    fn hand_over(&self, mail: &mut Mail) -> Vec<HandedListener> {
        let new: Vec<_> = self.listeners.iter().filter(|new| !mail.listeners.contains(&new.id)).collect();
        let sockets: Vec<_> = new.iter().map(|listener| listener.socket.as_fd()).collect();
        if let Err(error) = descriptors::send(&mail.descriptors, &sockets) {
            warn!(%error, "the mail process doesn't take its listeners and is ended");
            mail.kill("didn't take its listeners: it was killed");
        }
        mail.listeners.extend(new.iter().map(|listener| listener.id));
        let handed = |l: &ZoneListener| HandedListener { id: l.id, purpose: l.purpose.clone() };
        new.into_iter().map(handed).collect()
    }

    /// Tells the mail process of listeners that have come or gone, if there are any.
    pub(super) fn announce_listeners(&self, mail: &mut Mail) {
        let kept: BTreeSet<u64> = self.listeners.iter().map(|listener| listener.id).collect();
        if kept != mail.listeners {
            self.announce(mail);
        }
    }

    /// Tells the mail process what is in force.
    pub(super) fn announce(&self, mail: &mut Mail) {
        let kept: BTreeSet<u64> = self.listeners.iter().map(|listener| listener.id).collect();
        let closed = mail.listeners.difference(&kept).copied().collect();
        let opened = self.hand_over(mail);
        mail.listeners = kept;
        self.tell(mail, &ToMail::Changed { current: self.current(), opened, closed });
    }

    /// Turns what the mail process says into events, until it hangs up.
    fn watch_channel(&self, channel: &UnixStream) -> io::Result<()> {
        let (mut from, events, generation) = (channel.try_clone()?, self.events.clone(), self.generation);
        thread::Builder::new().name("channel".to_owned()).spawn(move || {
            while let Ok(message) = ipc::read(&mut from, ipc::MAX_REQUEST_OCTETS) {
                if events.send(Event::Message(generation, Instant::now(), message)).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::Hangup(generation));
        })?;
        Ok(())
    }

    /// Waits for the end of a mail process that is no longer served, and finds out why it came.
    pub(super) fn bury(&mut self, mut mail: Mail, served: Served) -> MailFailed {
        self.waiting.clear();
        let silence = self.vigil.silence();
        let killed = match served {
            Served::UntilItHung => Some(match silence {
                Some(silence) => {
                    format!("hung, its last sign of life was {} s old: it was killed", silence.as_secs())
                }
                None => format!("didn't begin to serve within {} s: it was killed", START_PATIENCE.as_secs()),
            }),
            // Hanging up is the end, or nearly: killed now, it couldn't say why.
            _ => match ended_within(&mut mail.child, EXIT_PATIENCE) {
                Some(_) => None,
                None if mail.killed.is_some() => None,
                None => Some(format!(
                    "hung up and didn't end within {} s: it was killed",
                    EXIT_PATIENCE.as_secs()
                )),
            },
        };
        let killed = mail.killed.map(str::to_owned).or(killed);
        let _ = mail.child.kill();
        let status = mail.child.wait().ok();
        let killed = killed.or_else(|| mail.left(status));
        drop((mail.channel, mail.descriptors));
        let words = mail.words.all();
        MailFailed { cause: self.vigil.ended(status, killed.as_deref(), words.clone()), words }
    }

    pub(super) fn tell(&self, mail: &mut Mail, message: &ToMail) {
        if let Err(error) = ipc::write(&mut mail.channel, message) {
            warn!(%error, "the mail process doesn't listen and is ended");
            // Half a frame may be on its way: nothing more can be said on this channel.
            mail.kill("didn't listen: it was killed");
        }
    }

    /// Asks the mail process to finish and waits for its end, for [`STOP_PATIENCE`] at most, or until we are
    /// asked to stop once more.
    pub(super) fn finish(&mut self, inbox: &Receiver<Event>, mut mail: Mail) {
        self.tell(&mut mail, &ToMail::Stop);
        let deadline = Instant::now() + STOP_PATIENCE;
        // A process that closes its stores has no channel any more: what counts is its end.
        while matches!(mail.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            match inbox.recv_timeout(STOP_POLL) {
                Ok(Event::Signal(Signal::SIGTERM | Signal::SIGINT)) | Err(RecvTimeoutError::Disconnected) => {
                    break;
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
        let _ = mail.child.kill();
        let status = mail.child.wait();
        // They are in the log before we end, too.
        mail.words.all();
        info!(?status, "the mail process has ended");
    }
}

/// How the process ended, if it does within this time.
fn ended_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(STOP_POLL),
            _ => return None,
        }
    }
}
