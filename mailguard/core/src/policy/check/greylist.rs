//! Greylisting (RFC 6647 §2.4): who is not known is asked, at RCPT, to come again a little later; what only
//! sends and never tries again doesn't.
//!
//! Who is asked about, what is remembered and by which key, and what follows from it at a given time. Keeping
//! the rows, in memory and on disk, is left to the program.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::model::Greylist;
use crate::finding::{Check, Finding, Opinion};
use crate::mail::address::MAX_LOCAL_PART_OCTETS;
use crate::mail::domain::MAX_DOMAIN_OCTETS;
use crate::mail::{ForwardPath, Host, Mailbox, ReversePath, UnixTime};
use crate::policy::Trust;
use crate::policy::need::{About, AskingCheck, Fact, Holds, Known, Need, Query, Source, Subject};
use crate::smtp::Refusal;

/// Leading bits of an IPv4 address that make a client: the next attempt may come from another host of the
/// same farm (RFC 6647 §5).
pub const IPV4_CLIENT_BITS: u8 = 24;

/// Leading bits of an IPv6 address that make a client: a host has all the rest to itself (RFC 6647 §7).
pub const IPV6_CLIENT_BITS: u8 = 64;

/// Length of [`Triplet::client_key`], octets: an address as IPv6 has it.
pub const CLIENT_KEY_OCTETS: usize = size_of::<Ipv6Addr>();

/// Longest path in a key, octets. Lower case can be half as long again in UTF-8 (U+023A); no character's is
/// longer.
const MAX_PATH_OCTETS: usize = MAX_LOCAL_PART_OCTETS / 2 * 3 + 1 + MAX_DOMAIN_OCTETS;

/// Longest [`Triplet::key`], octets.
pub const MAX_KEY_OCTETS: usize = CLIENT_KEY_OCTETS + MAX_PATH_OCTETS + 1 + MAX_PATH_OCTETS;

/// What the greylist says of a recipient, to unauthenticated clients of red zones. It must be the last one to
/// be asked: it remembers those that would be taken.
pub(in crate::policy) const TRIPLET: AskingCheck = AskingCheck {
    needs: |subject, known| {
        let Subject { config, trust, client, reverse_path, forward_path, .. } = subject;
        let matters = config.greylist.enabled && *trust == Trust::Untrusted && said(known).is_none();
        let need = matters.then(|| Need {
            query: Query::Greylist(*client, (*reverse_path).clone(), (*forward_path).clone()),
            source: Source::Store,
            within: None,
            holds: Holds::Recipient,
            // A store that hangs is no reason to keep strangers waiting, and their places taken.
            unanswered: Fact::Greylist(unavailable("the greylist's store doesn't answer")),
        });
        need.into_iter().collect()
    },
    judge: |_, known| said(known).cloned(),
    about: About::Recipient,
};

fn said(known: &Known) -> Option<&Finding> {
    known.find(|fact| match fact {
        Fact::Greylist(finding) => Some(finding),
        _ => None,
    })
}

/// The finding where nobody can tell who was seen before, and why.
pub fn unavailable(cause: &str) -> Finding {
    Finding::new(Check::Greylist, Opinion::Unavailable(cause.to_owned()), cause)
}

/// Who sends from where to whom: what has to come a second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triplet {
    network: IpNet,
    sender: String,
    recipient: String,
}

impl Triplet {
    /// The triplet of one recipient of a transaction.
    pub fn new(client: IpAddr, reverse_path: &ReversePath, forward_path: &ForwardPath) -> Self {
        let sender = reverse_path.mailbox().map_or_else(String::new, |mailbox| {
            compared(&without_counters(&mailbox.local_part.comparison_key()), mailbox)
        });
        let recipient = match forward_path {
            ForwardPath::Postmaster => "postmaster".to_owned(),
            ForwardPath::Mailbox(mailbox) => compared(&mailbox.local_part.comparison_key(), mailbox),
        };
        Self { network: network_of(client), sender, recipient }
    }

    /// The network of the client.
    pub fn network(&self) -> IpNet {
        self.network
    }

    /// The key of the client's network.
    pub fn client_key(&self) -> [u8; CLIENT_KEY_OCTETS] {
        match self.network.addr() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    /// The key of the triplet, at most [`MAX_KEY_OCTETS`]: the same in every version and on every machine.
    pub fn key(&self) -> Vec<u8> {
        // No address holds a NUL: different triplets have different keys.
        [self.client_key().as_slice(), self.sender.as_bytes(), &[0], self.recipient.as_bytes()].concat()
    }
}

fn network_of(client: IpAddr) -> IpNet {
    let client = client.to_canonical();
    let bits = if client.is_ipv4() { IPV4_CLIENT_BITS } else { IPV6_CLIENT_BITS };
    IpNet::new(client, bits).unwrap_or_else(|_| IpNet::from(client)).trunc()
}

fn compared(local_part: &str, mailbox: &Mailbox) -> String {
    match &mailbox.host {
        Host::Domain(domain) => format!("{local_part}@{}", domain.ascii()),
        Host::Literal(literal) => format!("{local_part}@{literal}"),
    }
}

/// A local part without what changes from message to message. Mailing lists number their messages and
/// recipients in it (VERP), others sign it with the day (BATV: `prvs=TAG=user`, of some products
/// `msprvs1=TAG=user` and `btv1==TAG==user`): such a sender would be new each time, and all its mail late.
/// Two senders that become one here do no harm: client and recipient still have to be the same.
fn without_counters(local_part: &str) -> String {
    let mut kept = String::with_capacity(local_part.len());
    for c in without_signature(local_part).chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !kept.ends_with('#') {
            kept.push(c);
        }
    }
    kept
}

fn without_signature(local_part: &str) -> &str {
    [("prvs=", "="), ("msprvs1=", "="), ("btv1==", "==")]
        .into_iter()
        .find_map(|(tag, end)| local_part.strip_prefix(tag)?.split_once(end))
        .map_or(local_part, |(_signature, user)| user)
}

/// What is remembered of a triplet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The first attempt: what the delay counts from.
    #[serde(rename = "first")]
    pub first: UnixTime,
    /// When it first came through, if it has.
    #[serde(rename = "passed")]
    pub passed: Option<UnixTime>,
    /// When it last came through; as `first` while it hasn't.
    #[serde(rename = "last")]
    pub last: UnixTime,
}

impl Seen {
    fn begun(now: UnixTime) -> Self {
        Self { first: now, passed: None, last: now }
    }

    fn let_through(self, now: UnixTime) -> Self {
        Self { passed: Some(self.passed.unwrap_or(now)), last: now, ..self }
    }

    /// Whether it is as if the triplet had never been seen.
    pub fn is_over(&self, settings: &Greylist, now: UnixTime) -> bool {
        match self.passed {
            Some(_) => now.since(self.last) > settings.remember,
            None => now.since(self.first) > settings.retry_window,
        }
    }

    /// Whether the triplet was told to wait and the time isn't over.
    pub fn is_waiting(&self, settings: &Greylist, now: UnixTime) -> bool {
        self.passed.is_none() && now.since(self.first) < settings.delay
    }
}

/// What is remembered of a client network of which a triplet came through: it tries again, so new triplets of
/// it needn't show that any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownClient {
    /// When its first triplet came through.
    #[serde(rename = "passed")]
    pub passed: UnixTime,
    /// When one last did.
    #[serde(rename = "last")]
    pub last: UnixTime,
}

impl KnownClient {
    /// Whether it is as if the client had never been seen.
    pub fn is_over(&self, settings: &Greylist, now: UnixTime) -> bool {
        now.since(self.last) > settings.remember
    }
}

/// Why a recipient isn't deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It waited, so long after the first attempt.
    Waited(Duration),
    /// The triplet came through before, for the first time then.
    KnownTriplet(UnixTime),
    /// Another triplet of this network came through before, for the first time then.
    KnownClient(UnixTime),
}

/// What follows, and what is to be remembered from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Take the recipient.
    Pass {
        /// Why.
        reason: Reason,
        /// The triplet. None: it wasn't seen before and needn't be remembered, its network is known. A client
        /// that invents addresses shall not fill the list.
        store: Option<Seen>,
        /// The network.
        client: KnownClient,
    },
    /// Not now.
    Defer {
        /// The time left, whole seconds, at least one and at most the delay.
        wait: Duration,
        /// The triplet.
        store: Seen,
    },
}

/// Judges a recipient at a time, by what is remembered of its client network and its triplet. `retry_window`
/// is longer than `delay`: the configuration sees to it.
pub fn judge(
    settings: &Greylist,
    now: UnixTime,
    client: Option<&KnownClient>,
    seen: Option<&Seen>,
) -> Judgement {
    let client = client.copied().filter(|client| !client.is_over(settings, now));
    let seen = seen.copied().filter(|seen| !seen.is_over(settings, now));
    let pass = |reason, store: Option<Seen>| Judgement::Pass {
        reason,
        store: store.map(|seen| seen.let_through(now)),
        client: KnownClient { passed: client.map_or(now, |client| client.passed), last: now },
    };
    match (seen, client) {
        (Some(Seen { passed: Some(since), .. }), _) => pass(Reason::KnownTriplet(since), seen),
        (_, Some(client)) => pass(Reason::KnownClient(client.passed), seen),
        (Some(waited), None) if !waited.is_waiting(settings, now) => {
            pass(Reason::Waited(now.since(waited.first)), seen)
        }
        (waiting, None) => defer(settings, now, waiting),
    }
}

/// The delay counts from the first attempt, however often the client tries.
fn defer(settings: &Greylist, now: UnixTime, waiting: Option<Seen>) -> Judgement {
    // A first attempt in the future: the clock was put back. It would wait for the clock to come there again.
    let store = waiting.filter(|seen| seen.first <= now).unwrap_or_else(|| Seen::begun(now));
    let left = settings.delay.saturating_sub(now.since(store.first));
    Judgement::Defer { wait: whole_seconds(left), store }
}

/// Rounded up: who comes after what he was told has waited enough.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

impl Judgement {
    /// What the trace shows and the client is told.
    pub fn finding(&self, triplet: &Triplet, now: UnixTime) -> Finding {
        let (outcome, text) = match self {
            Judgement::Pass { reason, .. } => (Opinion::Pass, explained(*reason, triplet)),
            Judgement::Defer { wait, store } => {
                let (ago, left) = (now.since(store.first).as_secs(), wait.as_secs());
                let text = format!("first seen {ago} s ago, {left} s left");
                (Opinion::Defer(Refusal::Greylisted(left)), text)
            }
        };
        Finding::new(Check::Greylist, outcome, text)
    }
}

fn explained(reason: Reason, triplet: &Triplet) -> String {
    match reason {
        Reason::Waited(time) => format!("came again after {} s", time.as_secs()),
        Reason::KnownTriplet(since) => format!("known since {}", since.rfc3339()),
        Reason::KnownClient(since) => {
            format!("client network {} is known since {}", triplet.network, since.rfc3339())
        }
    }
}

/// Why this client or recipient is never greylisted, if that is so. It is exempt from nothing else.
pub fn is_exempt(settings: &Greylist, client: IpAddr, forward_path: &ForwardPath) -> Option<&'static str> {
    let client = client.to_canonical();
    let recipient = forward_path.mailbox();
    if settings.whitelist_clients.iter().any(|network| network.contains(&client)) {
        Some("the client is exempt from greylisting")
    } else if recipient
        .is_some_and(|mailbox| super::access::is_listed(&settings.whitelist_recipients, mailbox))
    {
        Some("the recipient is exempt from greylisting")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    const START: UnixTime = UnixTime(1_000_000_000_000_000);

    /// The defaults, shorter: 300 s, two hours, a day.
    fn settings() -> Greylist {
        let text = r#"
            [spam.greylist]
            enabled = true
            delay = "300s"
            retry_window = "2h"
            remember = "1d"
            whitelist_recipients = ["abuse@here.example", "quick.example"]
            whitelist_clients = ["192.0.2.0/25", "2001:db8:1::/48"]
        "#;
        config(text).greylist
    }

    fn forward(path: &str) -> ForwardPath {
        match path {
            "postmaster" => ForwardPath::Postmaster,
            mailbox => ForwardPath::Mailbox(Mailbox::parse(mailbox).unwrap()),
        }
    }

    fn triplet(client: &str, sender: &str, recipient: &str) -> Triplet {
        let sender = match sender {
            "" => ReversePath::Null,
            mailbox => ReversePath::Mailbox(Mailbox::parse(mailbox).unwrap()),
        };
        Triplet::new(client.parse().unwrap(), &sender, &forward(recipient))
    }

    fn at(milliseconds: i64) -> UnixTime {
        UnixTime(START.0.checked_add_signed(milliseconds * 1_000).unwrap())
    }

    /// Attempts of one triplet, each at so many milliseconds after the start, and what is said of them.
    fn check(attempts: &[(i64, &str)]) {
        let triplet = triplet("192.0.2.200", "a@x.example", "b@here.example");
        let (mut client, mut seen) = (None, None);
        for &(milliseconds, expect) in attempts {
            let now = at(milliseconds);
            let judgement = judge(&settings(), now, client.as_ref(), seen.as_ref());
            match judgement {
                Judgement::Pass { store, client: known, .. } => (seen, client) = (store, Some(known)),
                Judgement::Defer { wait, store } => {
                    assert!((1..=300).contains(&wait.as_secs()) && wait.subsec_nanos() == 0, "{wait:?}");
                    seen = Some(store);
                }
            }
            assert_eq!(judgement.finding(&triplet, now).reason, expect, "{milliseconds} of {attempts:?}");
        }
    }

    #[test]
    fn greylist_lets_through_who_comes_again_in_time() {
        const KNOWN: &str = "known since 2001-09-09T01:51:40Z";
        const WAIT: &str = "first seen 0 s ago, 300 s left";
        // Early ones don't begin anew.
        check(&[
            (0, WAIT),
            (1, WAIT),
            (120_000, "first seen 120 s ago, 180 s left"),
            (299_999, "first seen 299 s ago, 1 s left"),
            (300_000, "came again after 300 s"),
            (300_001, KNOWN),
        ]);
        // The window.
        check(&[(0, WAIT), (7_200_000, "came again after 7200 s")]);
        check(&[(0, WAIT), (7_200_001, WAIT), (7_500_001, "came again after 300 s")]);
        // Each use renews; a day without one ends it.
        check(&[
            (0, WAIT),
            (300_000, "came again after 300 s"),
            (86_700_000, KNOWN),
            (173_100_000, KNOWN),
            (259_500_001, WAIT),
        ]);
    }

    #[test]
    fn greylist_makes_nobody_wait_longer_when_the_clock_is_put_back() {
        const WAIT: &str = "first seen 0 s ago, 300 s left";
        check(&[
            (0, WAIT),
            (-50_000_000, WAIT),
            (-49_900_000, "first seen 100 s ago, 200 s left"),
            (-49_700_000, "came again after 300 s"),
        ]);
        check(&[
            (0, WAIT),
            (300_000, "came again after 300 s"),
            (-50_000_000, "known since 2001-09-09T01:51:40Z"),
        ]);
    }

    #[test]
    fn greylist_lets_a_known_client_pass_at_once_while_it_is_known() {
        let day = 86_400_000;
        let known = KnownClient { passed: at(-day), last: at(0) };
        let waiting = Seen::begun(at(0));
        let triplet = triplet("192.0.2.200", "a@x.example", "b@here.example");
        for (now, seen, passes, stored) in [
            (0, None, true, false),
            (day, None, true, false),
            (day + 1, None, false, true),
            (1, Some(waiting), true, true),
            (day, Some(waiting), true, false),
        ] {
            let judgement = judge(&settings(), at(now), Some(&known), seen.as_ref());
            let Judgement::Pass { store, client, .. } = judgement else {
                assert!(!passes && stored, "{now}");
                continue;
            };
            assert_eq!((passes, stored), (true, store.is_some()), "{now}");
            assert_eq!(client, KnownClient { passed: at(-day), last: at(now) }, "{now}");
            let reason = judgement.finding(&triplet, at(now)).reason;
            assert_eq!(reason, "client network 192.0.2.0/24 is known since 2001-09-08T01:46:40Z");
        }
    }

    #[test]
    fn greylist_tells_the_client_how_long_to_wait() {
        let triplet = triplet("192.0.2.200", "", "postmaster");
        let judgement = judge(&settings(), at(1), None, Some(&Seen::begun(at(0))));
        let finding = judgement.finding(&triplet, at(1));
        assert_eq!(finding.opinion, Opinion::Defer(Refusal::Greylisted(300)));
    }

    #[test]
    fn greylist_triplets_that_are_the_same_and_that_are_not() {
        let one = triplet("192.0.2.1", "A.B@X.example", "C@here.example");
        for (client, sender, recipient, same) in [
            ("192.0.2.254", "a.b@x.EXAMPLE", "c@here.example", true),
            ("::ffff:192.0.2.9", "\"a.b\"@x.example", "c@here.example", true),
            ("192.0.3.1", "a.b@x.example", "c@here.example", false),
            ("2001:db8::1", "a.b@x.example", "c@here.example", false),
            ("192.0.2.1", "b@x.example", "c@here.example", false),
            ("192.0.2.1", "", "c@here.example", false),
            ("192.0.2.1", "a.b@x.example", "d@here.example", false),
            ("192.0.2.1", "a.b@x.example", "postmaster", false),
        ] {
            let other = triplet(client, sender, recipient);
            assert_eq!(one.key() == other.key(), same, "{client} {sender} {recipient}");
        }
        let network = |client| triplet(client, "", "postmaster").network().to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(network("::ffff:192.0.2.9"), "192.0.2.0/24");
    }

    #[test]
    fn greylist_knows_senders_that_change_with_each_message() {
        for (local_part, expect) in [
            ("user", "user"),
            ("prvs=0123abcdef=user", "user"),
            ("msprvs1=17723a-=bounces-12345-6", "bounces-#-#"),
            ("btv1==123abcdef==user", "user"),
            ("list-bounces+4711-user=other.example", "list-bounces+#-user=other.example"),
            ("2026", "#"),
            ("a#1", "a#"),
            ("prvs=user", "prvs=user"),
            ("btv1==a=user", "btv#==a=user"),
        ] {
            assert_eq!(without_counters(local_part), expect, "{local_part}");
        }
        // The recipient is who it is.
        let recipient = |name| triplet("192.0.2.1", "", name).key();
        assert_ne!(recipient("u1@here.example"), recipient("u2@here.example"));
    }

    #[test]
    fn greylist_keys_are_bounded() {
        let domain = vec!["d".repeat(63); 4].join(".");
        for local_part in ["a".repeat(64), "Ⱥ".repeat(32), "İ".repeat(32), "ẞ".repeat(21)] {
            let mailbox = format!("{local_part}@{domain}");
            let octets = triplet("2001:db8::1", &mailbox, &mailbox).key().len();
            assert!(octets <= MAX_KEY_OCTETS, "{local_part}: {octets}");
        }
        let growth = |c: char| c.to_lowercase().map(char::len_utf8).sum::<usize>() * 2 > c.len_utf8() * 3;
        assert_eq!((char::MIN..=char::MAX).find(|c| growth(*c)), None);
    }

    #[test]
    fn greylist_exemptions() {
        for (client, recipient, expect) in [
            ("192.0.2.1", "u@here.example", Some("client")),
            ("::ffff:192.0.2.1", "u@here.example", Some("client")),
            ("2001:db8:1::1", "postmaster", Some("client")),
            ("192.0.2.128", "u@here.example", None),
            ("192.0.2.128", "postmaster", None),
            ("192.0.2.128", "Abuse@here.example", Some("recipient")),
            ("192.0.2.128", "u@a.quick.example", Some("recipient")),
        ] {
            let reason = is_exempt(&settings(), client.parse().unwrap(), &forward(recipient));
            let expect = expect.map(|who| format!("the {who} is exempt from greylisting"));
            assert_eq!(reason.map(str::to_owned), expect, "{client} {recipient}");
        }
    }

    #[test]
    fn greylist_rows_come_back() {
        let (seen, known) =
            (Seen::begun(at(0)).let_through(at(1)), KnownClient { passed: at(0), last: at(1) });
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen);
        let text = serde_json::to_string(&known).unwrap();
        assert_eq!(serde_json::from_str::<KnownClient>(&text).unwrap(), known);
    }
}
