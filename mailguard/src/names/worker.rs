//! The thread behind `bypass.to_names`: asks what is due, within limits; judges; tells the log, the memory
//! and the supervisor.
//!
//! Time, resolver and listeners are handed in: everything that can go wrong with the process is played in
//! tests.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailguard_core::config::model::Dns as DnsConfig;
use mailguard_core::names::{self, Budget, Change, Moment, Question, Remembered};
use tracing::{error, info, warn};

use super::frames::FromResolver;
use super::memory::Memory;
use super::process::{Process, Said};
use super::{State, lock, look_and_judge};

/// Questions under way at one time: so few that they all fit into the pipe to the resolver, which is never
/// waited for.
const MAX_UNDER_WAY: usize = 32;
/// How often the answers are judged anew: an address may become ours at any time.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// How much longer than the DNS may take the resolver may.
const ANSWER_SLACK: Duration = Duration::from_secs(10);
/// Tries that the DNS is given for a question, each with `dns.timeout`.
const DNS_TRIES: u32 = 4;
/// Pause before a resolver that ended is started anew; doubles up to [`PAUSE_MAX`] while they keep ending
/// within [`STABLE_AFTER`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A resolver that lived this long was healthy.
const STABLE_AFTER: Duration = Duration::from_secs(600);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Called with what a resolver says; false: nobody listens any more.
pub(super) type Heard = Box<dyn Fn(Said) -> bool + Send>;

/// What the thread wakes for.
pub(super) enum Input {
    /// Other names, servers or settings.
    Adopted,
    /// The resolver of this generation said something.
    Said(u64, Said),
}

/// Somebody who can be asked; ends when dropped.
pub(super) trait Ask {
    /// Takes a question. Doesn't wait.
    fn ask(&mut self, id: u32, question: Question) -> io::Result<()>;
}

impl Ask for Process {
    fn ask(&mut self, id: u32, question: Question) -> io::Result<()> {
        Process::ask(self, id, question)
    }
}

/// The thread's own.
pub(super) struct Worker<R, S, C, F> {
    state: Arc<Mutex<State>>,
    wake: SyncSender<Input>,
    start: S,
    clock: C,
    changed: F,
    memory: Option<Memory>,
    /// What it holds; nothing before it was written.
    written: Option<Vec<Remembered>>,
    resolver: Option<(R, DnsConfig)>,
    generation: u64,
    under_way: BTreeMap<u32, (Question, Moment)>,
    next_id: u32,
    pause: Duration,
    /// When the resolver was started last.
    started: Moment,
    /// Whether the last look around failed, which has been said then.
    blind: bool,
    /// Before then no resolver is started.
    rested: Moment,
    /// When the answers are judged next.
    look: Moment,
    budget: Budget,
    /// What was said of each name.
    complaints: BTreeMap<String, String>,
    /// Whether anybody listens still.
    heard: bool,
}

impl<R, S, C, F> Worker<R, S, C, F>
where
    R: Ask,
    S: FnMut(&DnsConfig, Heard) -> io::Result<R>,
    C: Fn() -> Moment,
    F: Fn() -> bool,
{
    /// `wake` leads to the receiver of [`Worker::run`].
    pub(super) fn new(
        state: Arc<Mutex<State>>,
        wake: SyncSender<Input>,
        start: S,
        clock: C,
        changed: F,
        memory: Option<Memory>,
    ) -> Self {
        Self {
            state,
            wake,
            start,
            clock,
            changed,
            memory,
            written: None,
            resolver: None,
            generation: 0,
            under_way: BTreeMap::new(),
            next_id: 0,
            pause: PAUSE_MIN,
            started: Moment::ZERO,
            blind: false,
            rested: Moment::ZERO,
            look: Moment::ZERO,
            budget: Budget::default(),
            complaints: BTreeMap::new(),
            heard: true,
        }
    }

    /// Works until nobody listens any more.
    pub(super) fn run(mut self, inbox: &Receiver<Input>) {
        while self.heard {
            let input = match self.turn() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => inbox.recv_timeout(wait),
            };
            match input {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(input) = inbox.try_recv() {
                self.take(input);
            }
        }
    }

    /// Does what is due; how long there is nothing to do, for ever if there are no names.
    fn turn(&mut self) -> Option<Duration> {
        let now = (self.clock)();
        let (dns, none) = {
            let mut state = lock(&self.state);
            if std::mem::take(&mut state.adopted) {
                self.look = now;
            }
            (state.dns.clone(), state.names.is_empty())
        };
        if none {
            self.resolver = None;
            self.under_way.clear();
        } else {
            self.keep_resolver(&dns, now);
            self.ask(now);
        }
        if self.look <= now {
            self.judge(now);
            self.look = now + LOOK_AROUND;
        }
        (!none).then(|| self.next(now).saturating_sub(now).max(Duration::from_millis(1)))
    }

    /// When there is something to do again.
    fn next(&self, now: Moment) -> Moment {
        let due = lock(&self.state).names.next_due();
        let due = match &self.resolver {
            None => due.map(|due| due.max(self.rested)),
            Some(_) if self.under_way.len() == MAX_UNDER_WAY => None,
            Some(_) => due,
        };
        let deadline = self.under_way.values().map(|(_, deadline)| *deadline).min();
        due.into_iter().chain(deadline).fold(self.look.max(now), Moment::min)
    }

    /// Ends a resolver that hangs or asks others than it should, and starts one where there is a question.
    fn keep_resolver(&mut self, dns: &DnsConfig, now: Moment) {
        if self.under_way.values().any(|(_, deadline)| *deadline <= now) {
            self.resolver_failed("it doesn't answer", now);
        }
        if self.resolver.as_ref().is_some_and(|(_, made_for)| made_for != dns) {
            self.resolver = None;
            self.under_way.clear();
            let mut state = lock(&self.state);
            state.names.lost("other name servers are asked", now);
            state.names.ask_again();
        }
        let due = lock(&self.state).names.next_due().is_some_and(|due| due <= now);
        if self.resolver.is_some() || !due || now < self.rested {
            return;
        }
        self.generation += 1;
        self.started = now;
        let (wake, generation) = (self.wake.clone(), self.generation);
        let heard = Box::new(move |said| wake.send(Input::Said(generation, said)).is_ok());
        match (self.start)(dns, heard) {
            Ok(resolver) => self.resolver = Some((resolver, dns.clone())),
            Err(error) => {
                let mut state = lock(&self.state);
                while state.names.ask(now).is_some() {}
                drop(state);
                self.resolver_failed(&format!("it can't be started: {error}"), now);
            }
        }
    }

    fn ask(&mut self, now: Moment) {
        while self.under_way.len() < MAX_UNDER_WAY {
            let Some((resolver, dns)) = &mut self.resolver else { return };
            let Some(question) = lock(&self.state).names.ask(now) else { return };
            self.next_id = self.next_id.wrapping_add(1);
            let deadline = now + dns.timeout * DNS_TRIES + ANSWER_SLACK;
            let asked = resolver.ask(self.next_id, question.clone());
            self.under_way.insert(self.next_id, (question, deadline));
            if let Err(error) = asked {
                self.resolver_failed(&format!("it can't be asked: {error}"), now);
            }
        }
    }

    /// Ends the resolver; the next one is started after a pause.
    fn resolver_failed(&mut self, why: &str, now: Moment) {
        if now.saturating_sub(self.started) >= STABLE_AFTER {
            self.pause = PAUSE_MIN;
        }
        error!(why, pause = ?self.pause, "the resolver for bypass.to_names failed and is started anew after a pause");
        self.resolver = None;
        self.under_way.clear();
        lock(&self.state).names.lost(&format!("the resolver failed: {why}"), now);
        self.rested = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.look = now;
    }

    fn take(&mut self, input: Input) {
        let now = (self.clock)();
        match input {
            Input::Said(generation, said) if generation == self.generation && self.resolver.is_some() => {
                match said {
                    Said::Answer(answer) => self.take_answer(answer, now),
                    Said::Ended(why) => self.resolver_failed(&why, now),
                }
            }
            // Of one that was ended.
            Input::Said(..) | Input::Adopted => {}
        }
    }

    fn take_answer(&mut self, FromResolver { id, answer }: FromResolver, now: Moment) {
        match self.under_way.remove(&id) {
            Some((question, _)) => {
                lock(&self.state).names.answered(&question, answer.taken(), now);
                self.look = now;
            }
            None => self.resolver_failed("it answers what it wasn't asked", now),
        }
    }

    /// Judges all answers, and tells what is different.
    fn judge(&mut self, now: Moment) {
        let changes = self.look_and_judge(now);
        let (told, statuses, remembered) = {
            let mut state = lock(&self.state);
            (std::mem::take(&mut state.told), state.names.status(), state.names.remembered())
        };
        for change in told.iter().chain(&changes) {
            self.log(change, now);
        }
        let complaints = statuses.into_iter().filter_map(|status| {
            let kept =
                || status.trouble.map(|cause| format!("there is no answer, the last one is kept: {cause}"));
            Some((status.name, status.problem.or_else(kept)?))
        });
        let before = std::mem::replace(&mut self.complaints, complaints.collect());
        let new: Vec<_> = self.complaints.iter().filter(|(name, _)| !before.contains_key(*name)).collect();
        for (name, complaint) in new {
            if let Some(unwritten) = self.budget.take(now) {
                warn!(name, unwritten, "bypass.to_names: {complaint}");
            }
        }
        self.remember(remembered);
        if !changes.is_empty() {
            self.heard = (self.changed)();
        }
    }

    fn look_and_judge(&mut self, now: Moment) -> Vec<Change> {
        let judged = look_and_judge(&self.state, now);
        let blind = judged.as_ref().err();
        if let Some(error) = blind.filter(|_| !self.blind) {
            warn!(%error, "bypass.to_names: the addresses of this host can't be listed; nothing changes until they can");
        }
        self.blind = blind.is_some();
        judged.unwrap_or_default()
    }

    fn log(&mut self, change: &Change, now: Moment) {
        let Some(unwritten) = self.budget.take(now) else { return };
        let Change { name, added, removed, refused } = change;
        let (added, removed, refused) = (
            joined(added),
            joined(removed),
            names::listed(refused.iter().map(|(address, why)| (address, why))),
        );
        if refused.is_empty() {
            info!(name, added, removed, unwritten, "bypass.to_names: other addresses bypass");
        } else {
            warn!(name, added, removed, refused, unwritten, "bypass.to_names: not every address may bypass");
        }
    }

    fn remember(&mut self, remembered: Vec<Remembered>) {
        let Some(memory) = &self.memory else { return };
        if self.written.as_ref() == Some(&remembered) {
            return;
        }
        if let Err(error) = memory.write(remembered.clone()) {
            // Once, as long as there is nothing else to write.
            warn!(%error, "bypass.to_names: the answers can't be kept: a restart will begin without them");
        }
        self.written = Some(remembered);
    }
}

fn joined(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}

#[cfg(test)]
mod tests;
