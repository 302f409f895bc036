//! What follows from the outcomes of an attempt: done, again later, or the end, and then who is told. Pure.
//!
//! A failure or a long delay is reported to the sender only where its zone gets reports (`server.dsn_zones`), or where it had
//! logged in; from other zones the sender may be forged, so that a message that fails is quarantined, and the administrator, who
//! is told, decides. A report that fails
//! itself is dropped: reports about reports never end (RFC 5321 §4.5.5, §6.1; RFC 3461 §4.1).

use std::time::Duration;

use mailguard_core::attempt::Consequence;
use mailguard_core::config::Config;
use mailguard_core::dsn::{Action, wants_delay, wants_failure};
use mailguard_core::mail::{ReversePath, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::{Outcome, Report};
use mailguard_core::schedule::RetryPolicy;
use mailguard_core::smtp::{Detail, EnhancedStatus};

use crate::store::spool::{Ending, MessageRecord, Queued, Reason, RecipientState};

/// Delivery time expired (RFC 3463 §3.5).
const EXPIRED: EnhancedStatus = EnhancedStatus::transient(Detail::DELIVERY_TIME_EXPIRED);

/// What follows, for all recipients of an attempt.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// New states of those who aren't quarantined.
    pub(super) states: Vec<(usize, RecipientState)>,
    /// Those to be quarantined.
    pub(super) quarantine: Vec<(usize, Reason)>,
    /// Those of whom the sender is told.
    pub(super) reported: Vec<(usize, Action, Report)>,
    /// What the trace says, in the order of the outcomes.
    pub(super) consequences: Vec<Consequence>,
    /// When the first of them is due again.
    pub(super) next_due: Option<UnixTime>,
}

/// The configured pace of retries.
pub(super) fn retry_policy(config: &Config) -> RetryPolicy {
    RetryPolicy {
        min: config.delivery.retry_min,
        max: config.delivery.retry_max,
        give_up_after: config.delivery.max_queue_time,
    }
}

/// Judges the outcomes, given with their recipients' place in the envelope.
pub(super) fn judge(
    config: &Config,
    record: &MessageRecord,
    outcomes: &[(usize, Outcome)],
    now: UnixTime,
) -> Judgement {
    let mut judgement = Judgement::default();
    for (index, outcome) in outcomes {
        let RecipientState::Queued(queued) = &record.states[*index] else { continue };
        let consequence = match outcome {
            Outcome::Delivered(_) => judgement.ended(*index, Ending::Delivered, Consequence::Done),
            Outcome::Relayed(report) => judgement.relayed(config, record, *index, report),
            Outcome::Failed(report) => judgement.failed(config, record, *index, report.clone()),
            Outcome::Deferred(report) => {
                let attempts = queued.attempts.saturating_add(1);
                match retry_policy(config).next(record.received_at, attempts, now) {
                    Some(at) => {
                        let warned = warning_is_due(config, record, *index, now);
                        if warned {
                            judgement.reported.push((*index, Action::Delayed, report.clone()));
                        }
                        let state = Queued {
                            redirected_to: queued.redirected_to.clone(),
                            attempts,
                            next_attempt: at,
                            last: Some(report.clone()),
                            warned: queued.warned || warned,
                            ours: queued.ours,
                        };
                        judgement.again(*index, state)
                    }
                    None => judgement.failed(config, record, *index, expired(config, report)),
                }
            }
        };
        judgement.consequences.push(consequence);
    }
    judgement
}

impl Judgement {
    fn ended(&mut self, index: usize, ending: Ending, consequence: Consequence) -> Consequence {
        self.states.push((index, RecipientState::Ended(ending)));
        consequence
    }

    fn again(&mut self, index: usize, state: Queued) -> Consequence {
        let at = state.next_attempt;
        self.states.push((index, RecipientState::Queued(state)));
        self.next_due = Some(self.next_due.map_or(at, |due| due.min(at)));
        Consequence::Retry(at)
    }

    fn relayed(
        &mut self,
        config: &Config,
        record: &MessageRecord,
        index: usize,
        report: &Report,
    ) -> Consequence {
        let sender_gets_reports =
            sender_gets_reports(config, record, index) && record.envelope.reverse_path != ReversePath::Null;
        if sender_gets_reports {
            self.reported.push((index, Action::Relayed, report.clone()));
        }
        let consequence = if sender_gets_reports { Consequence::Report } else { Consequence::Done };
        self.ended(index, Ending::Delivered, consequence)
    }

    fn failed(
        &mut self,
        config: &Config,
        record: &MessageRecord,
        index: usize,
        report: Report,
    ) -> Consequence {
        let consequence = on_failure(config, record, index);
        match consequence {
            Consequence::Quarantine => {
                self.quarantine.push((index, Reason::Undeliverable(report)));
                return consequence;
            }
            Consequence::Report => self.reported.push((index, Action::Failed, report.clone())),
            _ => {}
        }
        self.ended(index, Ending::Failed(report), consequence)
    }
}

/// What is done when a recipient can't be reached for good.
fn on_failure(config: &Config, record: &MessageRecord, index: usize) -> Consequence {
    let Origin::Client(_) = &record.origin else { return Consequence::Drop };
    if record.is_copy(index) {
        return Consequence::Drop;
    }
    if !sender_gets_reports(config, record, index) {
        return Consequence::Quarantine;
    }
    if record.envelope.reverse_path == ReversePath::Null || !wants_failure(&record.envelope.recipients[index])
    {
        return Consequence::Drop;
    }
    Consequence::Report
}

/// Whether the sender is to be told now that the message waits for recipient `index`.
fn warning_is_due(config: &Config, record: &MessageRecord, index: usize, now: UnixTime) -> bool {
    let RecipientState::Queued(queued) = &record.states[index] else { return false };
    let after = config.delivery.delay_warning;
    !after.is_zero()
        && !queued.warned
        && now >= record.received_at.plus(after)
        && record.envelope.reverse_path != ReversePath::Null
        && wants_delay(&record.envelope.recipients[index])
        && sender_gets_reports(config, record, index)
}

/// When somebody is told if a message still waits for these recipients: its time is up, or its sender is warned.
pub(super) fn notify_at(config: &Config, record: &MessageRecord, recipients: &[usize]) -> UnixTime {
    let warned_at = record.received_at.plus(config.delivery.delay_warning);
    let expires = record.received_at.plus(config.delivery.max_queue_time);
    match recipients.iter().any(|&index| warning_is_due(config, record, index, warned_at)) {
        true => warned_at.min(expires),
        false => expires,
    }
}

/// Whether the sender is one to whom reports go. What was redirected to somebody else is not the sender's to hear of.
fn sender_gets_reports(config: &Config, record: &MessageRecord, index: usize) -> bool {
    let Origin::Client(client) = &record.origin else { return false };
    let redirected =
        matches!(&record.states[index], RecipientState::Queued(Queued { redirected_to: Some(_), .. }));
    !redirected && (client.user.is_some() || config.server.dsn_zones.contains(&client.zone))
}

fn expired(config: &Config, last: &Report) -> Report {
    let text = format!("not delivered within {}: {}", span(config.delivery.max_queue_time), last.text);
    Report {
        status: EXPIRED,
        remote: last.remote.clone(),
        reply: last.reply.clone(),
        text,
        transfer: last.transfer.clone(),
    }
}

/// `5 days`, `90 minutes`, `30 seconds`.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    for (unit, name) in [(86_400, "days"), (3_600, "hours"), (60, "minutes")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{} {name}", seconds / unit);
        }
    }
    format!("{seconds} seconds")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mailguard_core::mail::{Notify, QueueId};

    use super::*;
    use crate::spool::Body;
    use crate::spool::fixture::{client, config, mailbox, message};
    use crate::store::spool::{StoredBody, first_states};

    const DAY: u64 = 86_400_000_000;

    fn report(class: u8) -> Report {
        Report::ours(EnhancedStatus::new(class, 1, 1), "mx.test".to_owned(), "no".to_owned())
    }

    fn record() -> MessageRecord {
        let new = message(QueueId(1), &["a@b.test"], Body::Memory("".into()));
        MessageRecord::new(
            new.origin,
            new.envelope,
            UnixTime(0),
            StoredBody::Row { octets: 0 },
            first_states(&new.dispositions, UnixTime(0)),
        )
    }

    fn check(change: impl FnOnce(&mut MessageRecord), outcome: Outcome, now: u64, expect: Consequence) {
        let mut record = record();
        change(&mut record);
        let config = config(Path::new("/"));
        let judgement = judge(&config, &record, &[(0, outcome.clone())], UnixTime(now));
        let what = format!("{outcome:?} at {now} of {record:?}");
        assert_eq!(judgement.consequences, [expect], "{what}");
        assert_eq!(judgement.quarantine.len(), usize::from(expect == Consequence::Quarantine), "{what}");
        assert_eq!(judgement.reported.len(), usize::from(expect == Consequence::Report), "{what}");
        let again = matches!(judgement.states.first(), Some((0, RecipientState::Queued(_))));
        assert_eq!(again, matches!(expect, Consequence::Retry(_)), "{what}");
    }

    #[test]
    fn outcomes_and_what_follows() {
        let failed = || Outcome::Failed(report(5));
        let deferred = || Outcome::Deferred(report(4));
        check(|_| {}, Outcome::Delivered(report(2)), 1, Consequence::Done);
        check(|_| {}, deferred(), 0, Consequence::Retry(UnixTime(300_000_000)));
        check(|_| {}, deferred(), 5 * DAY, Consequence::Report);
        check(|_| {}, failed(), 1, Consequence::Report);
        check(|r| r.origin = client("red"), failed(), 1, Consequence::Quarantine);
        check(|r| r.origin = client("red"), deferred(), 5 * DAY, Consequence::Quarantine);
        check(|r| r.origin = Origin::Own, failed(), 1, Consequence::Drop);
        check(|r| r.origin = Origin::Own, deferred(), 1, Consequence::Retry(UnixTime(300_000_001)));
        check(|r| r.envelope.reverse_path = ReversePath::Null, failed(), 1, Consequence::Drop);
        let null_from_red = |r: &mut MessageRecord| {
            r.origin = client("red");
            r.envelope.reverse_path = ReversePath::Null;
        };
        check(null_from_red, failed(), 1, Consequence::Quarantine);
        let never = |r: &mut MessageRecord| r.envelope.recipients[0].notify = Some(Notify::NEVER);
        check(never, failed(), 1, Consequence::Drop);
        let redirected = |r: &mut MessageRecord| {
            let RecipientState::Queued(queued) = &mut r.states[0] else { panic!("queued") };
            queued.redirected_to = Some(mailbox("admin@y.test"));
        };
        check(redirected, failed(), 1, Consequence::Quarantine);
        let copy = |r: &mut MessageRecord| {
            r.origin = client("red");
            r.copy_to(vec![mailbox("bcc@b.test")], UnixTime(0));
            r.envelope.recipients.remove(0);
            r.states.remove(0);
        };
        check(copy, failed(), 1, Consequence::Drop);
        let logged_in = |r: &mut MessageRecord| {
            r.origin = client("red");
            let Origin::Client(client) = &mut r.origin else { panic!("a client") };
            client.user = Some("alice".to_owned());
        };
        check(logged_in, failed(), 1, Consequence::Report);
        let relayed = || Outcome::Relayed(report(2));
        check(|_| {}, relayed(), 1, Consequence::Report);
        check(|r| r.origin = client("red"), relayed(), 1, Consequence::Done);
        check(|r| r.origin = Origin::Own, relayed(), 1, Consequence::Done);
        check(|r| r.envelope.reverse_path = ReversePath::Null, relayed(), 1, Consequence::Done);
        check(redirected, relayed(), 1, Consequence::Done);
    }

    /// A warning is due once, when `delay_warning` has passed, to who gets reports and wants this one.
    #[test]
    fn a_delay_is_told_once() {
        const HOURS: u64 = 3_600_000_000;
        type Change = fn(&mut MessageRecord);
        let warned = |change: Change, now: u64| {
            let mut record = record();
            change(&mut record);
            let outcomes = [(0, Outcome::Deferred(report(4)))];
            let judgement = judge(&config(Path::new("/")), &record, &outcomes, UnixTime(now));
            let RecipientState::Queued(state) = &judgement.states[0].1 else { panic!("waits") };
            (judgement.reported.iter().map(|told| told.1).collect::<Vec<_>>(), state.warned)
        };
        let nobody: Change = |_| {};
        let already: Change = |r| {
            let RecipientState::Queued(queued) = &mut r.states[0] else { panic!("queued") };
            queued.warned = true;
        };
        let stranger: Change = |r| r.origin = client("red");
        let silent: Change = |r| r.envelope.recipients[0].notify = Some(Notify::NEVER);
        let null: Change = |r| r.envelope.reverse_path = ReversePath::Null;
        let own: Change = |r| r.origin = Origin::Own;
        assert_eq!(warned(nobody, 4 * HOURS - 1), (vec![], false));
        assert_eq!(warned(nobody, 4 * HOURS), (vec![Action::Delayed], true));
        assert_eq!(warned(already, 5 * HOURS), (vec![], true));
        for change in [stranger, silent, null, own] {
            assert_eq!(warned(change, 5 * HOURS), (vec![], false));
        }
    }

    #[test]
    fn expiry_says_how_long_and_what_was_last_heard() {
        let judgement = judge(
            &config(Path::new("/")),
            &record(),
            &[(0, Outcome::Deferred(report(4)))],
            UnixTime(6 * DAY),
        );
        let (_, _, report) = &judgement.reported[0];
        assert_eq!(report.status, EXPIRED);
        assert_eq!(report.text, "not delivered within 5 days: no");
    }

    #[test]
    fn spans_are_said_in_the_greatest_unit() {
        for (seconds, text) in
            [(432_000, "5 days"), (5_400, "90 minutes"), (7_200, "2 hours"), (61, "61 seconds")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
