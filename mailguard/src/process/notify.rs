//! What the service manager is told (`Type=notify`, `WatchdogSec=`; sd_notify(3)): that mailguard serves,
//! what is in force, that it lives, that it ends. Without `NOTIFY_SOCKET` nobody is told anything.
//!
//! The watchdog hears of a life only while the mail process gives signs of its own, or is started: a firewall
//! whose mail stands still is started anew as a whole.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

/// The variables by which a service manager is found; no child of ours has anything to tell it.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// A sign of life is due so many times within the watchdog's limit: one or two may be late.
const SIGNS_PER_LIMIT: u32 = 3;

/// How long a start may take before the service manager goes on without mail being served: less than it waits
/// by itself (DefaultTimeoutStartSec, 90 s), more than any start without a repair.
const READY_PATIENCE: Duration = Duration::from_secs(20);

/// What the service manager knows of us.
pub(super) struct Notify {
    /// How often the watchdog wants a sign of life; none: nobody watches.
    every: Option<Duration>,
    /// When it had the last one.
    lived: Option<Instant>,
    /// When the first mail process was started.
    starting: Option<Instant>,
    /// It knows that we serve, or will.
    ready: bool,
    /// What it was told last of how we are, in words.
    status: String,
    /// The last message didn't arrive.
    unheard: bool,
}

impl Notify {
    /// As the environment says.
    pub(super) fn new() -> Self {
        let every = sd_notify::watchdog_enabled().map(|limit| limit / SIGNS_PER_LIMIT);
        Self { every, lived: None, starting: None, ready: false, status: String::new(), unheard: false }
    }

    /// How long the caller may wait before [`Notify::lives`] is due again, at most `patience`.
    pub(super) fn due_within(&self, patience: Duration) -> Duration {
        let patience = if self.ready { patience } else { patience.min(READY_PATIENCE) };
        let due =
            self.every.map(|every| every.saturating_sub(self.lived.map_or(every, |lived| lived.elapsed())));
        due.map_or(patience, |due| due.min(patience))
    }

    /// A mail process is started, and the kernel side is in force. The first one may take long to begin, with
    /// a large queue after an unclean end: whatever waits for us, such as the network, does so for
    /// [`READY_PATIENCE`] at most.
    pub(super) fn starting(&mut self) {
        self.starting.get_or_insert_with(Instant::now);
    }

    /// We live; `serves` once the mail process has given a sign of life, and `problem` is what is the matter
    /// with how it does, in one line. Says so no oftener than it must.
    pub(super) fn lives(&mut self, serves: bool, problem: Option<&str>) {
        if serves {
            self.is(problem.map_or_else(
                || "mail is served".to_owned(),
                |problem| format!("mail is served, but {problem}"),
            ));
        }
        let is_long = self.starting.is_some_and(|since| since.elapsed() >= READY_PATIENCE);
        if !serves && !self.ready && is_long {
            self.is("port 25 is in our hand; the mail process is still starting".to_owned());
        }
        if !self.ready && (serves || is_long) {
            self.ready = true;
            self.tell(NotifyState::Ready);
        }
        if self.every.is_some_and(|every| self.lived.is_none_or(|lived| lived.elapsed() >= every)) {
            self.lived = Some(Instant::now());
            self.tell(NotifyState::Watchdog);
        }
    }

    /// A mail process ended by itself, in this way, and the next one is started: one line for
    /// `systemctl status`.
    pub(super) fn starts_anew(&mut self, cause: &str) {
        self.is(format!("the mail process is started anew: the last one {cause}"));
    }

    /// We have started, do nothing, and end, for that is what the configuration says.
    pub(super) fn idle(&mut self) {
        self.is("nothing is intercepted: the configuration says enabled = false".to_owned());
        self.tell(NotifyState::Ready);
    }

    /// How we are, in one line for `systemctl status`; each once.
    fn is(&mut self, status: String) {
        if self.status != status {
            // A line more would be another message.
            self.tell(NotifyState::Status(&status.replace(char::is_control, " ")));
            self.status = status;
        }
    }

    /// We end, as we were told to.
    pub(super) fn ends(&mut self) {
        self.tell(NotifyState::Stopping);
    }

    fn tell(&mut self, state: NotifyState<'_>) {
        match sd_notify::notify(&[state]) {
            Ok(()) => self.unheard = false,
            // Once, however often it is tried.
            Err(error) if !self.unheard => {
                self.unheard = true;
                warn!(%error, "the service manager (NOTIFY_SOCKET) doesn't hear how mailguard is");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_start_holds_up_nobody() {
        let mut notify = Notify::new();
        notify.lives(false, None);
        assert!(!notify.ready, "the kernel side isn't in force");
        notify.starting();
        notify.lives(false, None);
        assert!(!notify.ready, "most starts are short, and one that fails is told as that");
        assert!(notify.due_within(Duration::from_secs(600)) <= READY_PATIENCE, "it is looked at in time");
        notify.starting = Instant::now().checked_sub(READY_PATIENCE);
        notify.lives(false, None);
        assert!(notify.ready && notify.status.contains("still starting"));
        notify.lives(true, None);
        assert_eq!(notify.status, "mail is served");
    }

    #[test]
    fn a_sign_of_life_is_due_at_once_and_then_from_time_to_time() {
        let patience = Duration::from_secs(15);
        let unwatched = Notify {
            every: None,
            lived: None,
            starting: None,
            ready: false,
            status: String::new(),
            unheard: false,
        };
        assert_eq!(unwatched.due_within(patience), patience);
        let mut watched = Notify { every: Some(Duration::from_secs(10)), ..unwatched };
        assert_eq!(watched.due_within(patience), Duration::ZERO);
        watched.lived = Some(Instant::now());
        assert!(watched.due_within(patience) <= Duration::from_secs(10));
        assert!(watched.due_within(Duration::ZERO).is_zero());
    }
}
