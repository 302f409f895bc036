//! What the service manager is told (`Type=notify`, `WatchdogSec=`; sd_notify(3)): that mailguard serves, what is in force,
//! that it lives, that it ends. Without `NOTIFY_SOCKET` nobody is told anything.
//!
//! The watchdog hears of a life only while the mail process gives signs of its own, or is started: a firewall whose mail stands
//! still is started anew as a whole.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

/// The variables by which a service manager is found; no child of ours has anything to tell it.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// A sign of life is due so many times within the watchdog's limit: one or two may be late.
const SIGNS_PER_LIMIT: u32 = 3;

/// What the service manager knows of us.
pub(super) struct Notify {
    /// How often the watchdog wants a sign of life; none: nobody watches.
    every: Option<Duration>,
    /// When it had the last one.
    lived: Option<Instant>,
    /// It knows that we have served.
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
        Self { every, lived: None, ready: false, status: String::new(), unheard: false }
    }

    /// How long the caller may wait before [`Notify::lives`] is due again, at most `patience`.
    pub(super) fn due_within(&self, patience: Duration) -> Duration {
        let due =
            self.every.map(|every| every.saturating_sub(self.lived.map_or(every, |lived| lived.elapsed())));
        due.map_or(patience, |due| due.min(patience))
    }

    /// A mail process is started; the first one may take so long to begin.
    pub(super) fn starting(&mut self, patience: Duration) {
        if !self.ready {
            self.tell(NotifyState::ExtendTimeoutUsec(
                u32::try_from(patience.as_micros()).unwrap_or(u32::MAX),
            ));
        }
    }

    /// We live; `serves` once the mail process has given a sign of life, and `problem` is what is the matter with how it does, in
    /// one line. Says so no oftener than it must.
    pub(super) fn lives(&mut self, serves: bool, problem: Option<&str>) {
        if serves {
            self.is(problem.map_or_else(
                || "mail is served".to_owned(),
                |problem| format!("mail is served, but {problem}"),
            ));
        }
        if serves && !self.ready {
            self.ready = true;
            self.tell(NotifyState::Ready);
        }
        if self.every.is_some_and(|every| self.lived.is_none_or(|lived| lived.elapsed() >= every)) {
            self.lived = Some(Instant::now());
            self.tell(NotifyState::Watchdog);
        }
    }

    /// A mail process ended by itself, in this way, and the next one is started: one line for `systemctl status`.
    pub(super) fn starts_anew(&mut self, cause: &str) {
        self.is(format!("the mail process is started anew: the last one {cause}"));
    }

    /// We have started, do nothing, and end, for that is what the configuration says.
    pub(super) fn idle(&mut self, problem: Option<String>) {
        let mut status = "nothing is intercepted: the configuration says enabled = false".to_owned();
        problem.iter().for_each(|problem| status.extend(["; but ", problem]));
        self.is(status);
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
    fn a_sign_of_life_is_due_at_once_and_then_from_time_to_time() {
        let patience = Duration::from_secs(15);
        let unwatched =
            Notify { every: None, lived: None, ready: false, status: String::new(), unheard: false };
        assert_eq!(unwatched.due_within(patience), patience);
        let mut watched = Notify { every: Some(Duration::from_secs(10)), ..unwatched };
        assert_eq!(watched.due_within(patience), Duration::ZERO);
        watched.lived = Some(Instant::now());
        assert!(watched.due_within(patience) <= Duration::from_secs(10));
        assert!(watched.due_within(Duration::ZERO).is_zero());
    }
}
