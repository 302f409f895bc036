//! What is remembered of one next hop: what waits for it, how it did lately, and what its names lead to.

use std::collections::VecDeque;
use std::time::Duration;

use super::Limits;
use crate::mail::UnixTime;
use crate::route::{NamedBy, NextHop, Route};

/// So many attempts at a next hop that wants fewer at once must be answered, for each that it gets, before it
/// gets one more.
const ANSWERS_BEFORE_MORE: usize = 10;

/// For how long an answer speaks for a next hop.
const ANSWERED_LATELY: Duration = Duration::from_secs(86_400);

/// How a next hop stands. Each standing has places of its own, so that those that don't answer hold up nobody
/// else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// An administrator named it: few, and the mail of those inside.
    Named,
    /// It answered lately.
    Answers,
    /// Nothing is known of it.
    New,
    /// It didn't answer the last time.
    Failing,
}

impl Standing {
    /// All of them, in the order in which they get places.
    pub(super) const ALL: [Standing; 4] =
        [Standing::Named, Standing::Answers, Standing::New, Standing::Failing];
}

/// What the DNS says of a next hop.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Names<N> {
    /// It is an address: nothing is to be asked.
    Needless,
    /// Not asked, or too long ago.
    Unknown,
    /// In line to be asked.
    InLine,
    /// Being asked, as one of that standing.
    Asked(Standing),
    /// This, until then.
    Known(N, UnixTime),
}

#[derive(Debug)]
pub(super) struct Hop<T, N> {
    pub(super) waiting: VecDeque<T>,
    pub(super) in_flight: usize,
    /// Of all that is in flight.
    pub(super) standing: Standing,
    pub(super) in_turn: bool,
    pub(super) names: Names<N>,
    pub(super) named_by: NamedBy,
    /// So many attempts at once, as it has shown.
    pub(super) allowed: usize,
    /// Since `allowed` changed.
    pub(super) answers: usize,
    pub(super) answered_at: Option<UnixTime>,
    /// In a row.
    pub(super) failures: u32,
    pub(super) backoff_until: UnixTime,
}

impl<T, N> Hop<T, N> {
    pub(super) fn new(route: &Route, limits: Limits) -> Self {
        let names = match route.next_hop {
            NextHop::Address(_) => Names::Needless,
            NextHop::Host(..) | NextHop::Mx(_) | NextHop::Servers { .. } => Names::Unknown,
        };
        let standing = match route.named_by {
            NamedBy::Administrator => Standing::Named,
            NamedBy::Mail => Standing::New,
        };
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
            standing,
            in_turn: false,
            names,
            named_by: route.named_by,
            allowed: limits.per_hop,
            answers: 0,
            answered_at: None,
            failures: 0,
            backoff_until: UnixTime(0),
        }
    }

    /// Nothing waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        let asked = matches!(self.names, Names::InLine | Names::Asked(_));
        self.waiting.is_empty() && self.in_flight == 0 && !self.in_turn && !asked
    }

    /// Whether a new one would be the same.
    pub(super) fn is_forgettable(&self, limits: Limits) -> bool {
        self.is_idle() && self.failures == 0 && self.allowed == limits.per_hop && self.answered_at.is_none()
    }

    /// One attempt tells whether a next hop that failed is back.
    pub(super) fn may_start(&self) -> bool {
        let allowed = if self.failures > 0 { 1 } else { self.allowed };
        !self.waiting.is_empty() && self.in_flight < allowed
    }

    /// How it stands now.
    pub(super) fn judged(&self, now: UnixTime) -> Standing {
        let lately = |at: UnixTime| now.since(at) <= ANSWERED_LATELY;
        match self.named_by {
            NamedBy::Administrator => Standing::Named,
            NamedBy::Mail if self.failures > 0 => Standing::Failing,
            NamedBy::Mail if self.answered_at.is_some_and(lately) => Standing::Answers,
            NamedBy::Mail => Standing::New,
        }
    }

    /// It answered.
    pub(super) fn answered(&mut self, now: UnixTime, limits: Limits) {
        self.failures = 0;
        self.backoff_until = UnixTime(0);
        self.answered_at = Some(now);
        self.answers += 1;
        if self.allowed < limits.per_hop && self.answers >= ANSWERS_BEFORE_MORE * self.allowed {
            self.allowed += 1;
            self.answers = 0;
        }
    }

    /// It turned one away while others are under way.
    pub(super) fn shrink(&mut self) {
        self.allowed = self.in_flight;
        self.answers = 0;
    }
}
