//! Which recipients of a message are tried now, and where: one group a next hop. Pure.
//!
//! Routing is asked anew for every attempt, so that a changed configuration holds for what waits already.

use mailguard_core::config::Config;
use mailguard_core::destination::Destination;
use mailguard_core::mail::{Envelope, ForwardPath, Notify, Recipient, RecipientIndex, UnixTime};
use mailguard_core::route::{NoRoute, Route};

use super::MAX_ATTEMPT_RECIPIENTS;
use crate::store::spool::MessageRecord;

/// What is done with a message that is due.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Attempts to be made.
    pub(super) groups: Vec<Group>,
    /// Recipients without a next hop.
    pub(super) unroutable: Vec<(RecipientIndex, NoRoute)>,
    /// When the next of the others is due; those in an attempt, and those whose destination is paused, aren't
    /// counted.
    pub(super) next_due: Option<UnixTime>,
}

/// What an administrator says of a message's attempts.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Orders<'a> {
    /// Try it now.
    pub(super) forced: bool,
    /// Make no attempt at these.
    pub(super) paused: &'a [Destination],
}

/// Recipients of one attempt.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    pub(super) route: Route,
    pub(super) recipients: Vec<RecipientIndex>,
}

/// Plans for the recipients that wait, aren't `busy`, and are due at `now`, or all of them where that is
/// ordered. One of a message that is on hold makes no plan.
pub(super) fn plan(
    config: &Config,
    record: &MessageRecord,
    busy: &[RecipientIndex],
    now: UnixTime,
    orders: Orders<'_>,
) -> Plan {
    let mut plan = Plan::default();
    if record.on_hold {
        return plan;
    }
    for (index, queued) in record.queued().filter(|(index, _)| !busy.contains(index)) {
        if queued.next_attempt > now && !orders.forced {
            let earliest = plan.next_due.map_or(queued.next_attempt, |due| due.min(queued.next_attempt));
            plan.next_due = Some(earliest);
            continue;
        }
        match record.route(config, index) {
            Ok(route) if is_paused(orders.paused, &record.destination(index), &route) => {}
            Ok(route) => plan.add(route, index),
            Err(no_route) => plan.unroutable.push((index, no_route)),
        }
    }
    plan
}

/// Whether no attempt is to be made for this recipient by this route.
pub(super) fn is_paused(paused: &[Destination], recipient: &ForwardPath, route: &Route) -> bool {
    paused.iter().any(|paused| paused.covers(recipient, route))
}

impl Plan {
    fn add(&mut self, route: Route, index: RecipientIndex) {
        // The last group first: it is the one that isn't full.
        let open = self
            .groups
            .iter_mut()
            .rev()
            .find(|group| group.route == route && group.recipients.len() < MAX_ATTEMPT_RECIPIENTS);
        match open {
            Some(group) => group.recipients.push(index),
            None => self.groups.push(Group { route, recipients: vec![index] }),
        }
    }
}

/// The envelope of an attempt for these recipients. Of a redirected message nobody but us gets reports.
pub(super) fn envelope(record: &MessageRecord, recipients: &[RecipientIndex]) -> Envelope {
    let recipient = |&index: &RecipientIndex| {
        let original = record.recipient(index);
        let forward_path = record.destination(index);
        if forward_path == original.forward_path {
            return original.clone();
        }
        Recipient { forward_path, notify: Some(Notify::NEVER), original_recipient: None }
    };
    Envelope {
        reverse_path: record.envelope.reverse_path.clone(),
        recipients: recipients.iter().map(recipient).collect(),
        body: record.envelope.body,
        smtputf8: record.envelope.smtputf8,
        dsn_return: record.envelope.dsn_return,
        envelope_id: record.envelope.envelope_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spool::Body;
    use crate::spool::fixture::{config, config_with, mailbox, message};
    use crate::store::spool::{Queued, RecipientState, StoredBody};

    const NOW: UnixTime = UnixTime(1_000);

    fn record(recipients: &[&str]) -> MessageRecord {
        let new = message(mailguard_core::mail::QueueId(1), recipients, Body::Memory("".into()));
        MessageRecord::new(
            new.origin,
            new.envelope,
            NOW,
            StoredBody::Row { octets: 0 },
            crate::store::spool::first_states(&new.dispositions, NOW),
        )
    }

    fn places(recipients: &[RecipientIndex]) -> Vec<usize> {
        recipients.iter().map(|index| index.get()).collect()
    }

    fn own_server(domain: &str) -> Config {
        let text = format!("incoming_domain = [{{ domain = {domain:?}, server = \"10.0.0.25\" }}]");
        config_with(Path::new("/"), &text)
    }

    #[test]
    fn recipients_are_grouped_by_next_hop() {
        let record = record(&["a@in.test", "b@out.test", "c@in.test", "d@OUT.test"]);
        let plan = plan(&own_server("in.test"), &record, &[], NOW, Orders::default());
        let groups: Vec<_> =
            plan.groups.iter().map(|g| (g.route.next_hop.to_string(), places(&g.recipients))).collect();
        assert_eq!(groups, [("10.0.0.25:25".to_owned(), vec![0, 2]), ("mx:out.test".to_owned(), vec![1, 3])]);
    }

    #[test]
    fn who_is_busy_or_not_due_is_left_out() {
        let mut record = record(&["a@x.test", "b@x.test", "c@x.test"]);
        let later = |at| {
            RecipientState::Queued(Queued {
                redirected_to: None,
                attempts: 1,
                next_attempt: UnixTime(at),
                last: None,
                warned: false,
                added_by_us: false,
            })
        };
        record.states[1] = later(3_000);
        record.states[2] = later(2_000);
        for (busy, forced, recipients, next_due) in [
            (vec![], false, Some(vec![0]), Some(2_000)),
            (vec![2], false, Some(vec![0]), Some(3_000)),
            (vec![0, 1, 2], false, None, None),
            (vec![0], true, Some(vec![1, 2]), None),
        ] {
            let indices: Vec<_> = busy.iter().copied().map(RecipientIndex::new).collect();
            let orders = Orders { forced, paused: &[] };
            let plan = plan(&config(Path::new("/")), &record, &indices, NOW, orders);
            assert_eq!(plan.groups.first().map(|group| places(&group.recipients)), recipients, "{busy:?}");
            assert_eq!(plan.next_due, next_due.map(UnixTime), "{busy:?}");
        }
    }

    #[test]
    fn what_is_held_or_paused_is_left_alone() {
        let mut record = record(&["a@in.test", "b@out.test"]);
        let config = own_server("in.test");
        let groups = |record: &MessageRecord, paused: &[&str]| -> Vec<String> {
            let paused: Vec<Destination> = paused.iter().map(|text| text.parse().unwrap()).collect();
            let plan = plan(&config, record, &[], NOW, Orders { forced: true, paused: &paused });
            plan.groups.iter().map(|group| group.route.next_hop.to_string()).collect()
        };
        assert_eq!(groups(&record, &["out.test"]), ["10.0.0.25:25"]);
        assert_eq!(groups(&record, &["10.0.0.25", "other.test"]), ["mx:out.test"]);
        assert!(groups(&record, &["all"]).is_empty());
        record.on_hold = true;
        assert!(groups(&record, &[]).is_empty());
    }

    #[test]
    fn no_attempt_has_more_recipients_than_every_server_takes() {
        let many: Vec<_> = (0..250).map(|n| format!("r{n}@x.test")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let plan = plan(&config(Path::new("/")), &record(&many), &[], NOW, Orders::default());
        assert_eq!(plan.groups.iter().map(|g| g.recipients.len()).collect::<Vec<_>>(), [100, 100, 50]);
    }

    #[test]
    fn a_redirected_recipient_is_replaced_and_asks_for_no_report() {
        let mut record = record(&["a@x.test", "b@x.test"]);
        record.envelope.recipients[0].original_recipient = Some("rfc822;a@x.test".to_owned());
        let RecipientState::Queued(queued) = &mut record.states[0] else { panic!("queued") };
        queued.redirected_to = Some(mailbox("admin@y.test"));
        let envelope = envelope(&record, &[0, 1].map(RecipientIndex::new));
        assert_eq!(envelope.recipients[0].forward_path.to_string(), "<admin@y.test>");
        assert_eq!(envelope.recipients[0].notify, Some(Notify::NEVER));
        assert_eq!(envelope.recipients[0].original_recipient, None);
        assert_eq!(envelope.recipients[1], record.envelope.recipients[1]);
    }
}
