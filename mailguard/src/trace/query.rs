//! What can be asked of the traces, and its one syntax for every place where it is typed ([`SYNTAX`]).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use mailguard_core::disposition::Disposition;
use mailguard_core::mail::{QueueId, UnixTime};
use mailguard_core::origin::Origin;
use mailguard_core::outcome::Outcome;
use mailguard_core::smtp::Severity;
use serde::{Deserialize, Serialize};

use super::{Record, TransactionResult};

/// How a query is written: shown by the command line's help and by its errors.
pub const SYNTAX: &str = "\
A query is a queue id, or words KEY:VALUE that must all hold; without a query the newest traces are shown.
  from:TEXT     part of the reverse-path, any case; from:<> is the null one
  to:TEXT       part of a forward-path, also of one that was refused
  client:ADDR   the client's address, or a network as 192.0.2.0/24
  result:WORD   refused (5yz), deferred (4yz), accepted, quarantined, redirected, discarded, delivered, failed
  since:TIME    30m, 12h or 7d ago, or a time as 2026-11-24 or 2026-11-24T05:29:36Z
  limit:N       at most so many, newest first";

/// Traces shown unless a limit is given.
pub const DEFAULT_LIMIT: usize = 50;

/// Most traces that one query shows.
pub const MAX_LIMIT: usize = 1000;

/// A question; empty: the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// This one.
    pub id: Option<QueueId>,
    /// Part of the reverse-path, lower case.
    pub from: Option<String>,
    /// Part of a forward-path, lower case.
    pub to: Option<String>,
    /// The client.
    pub client: Option<IpNet>,
    /// What became of it.
    pub result: Option<ResultFilter>,
    /// Not older.
    pub since: Option<UnixTime>,
    /// At most so many, up to [`MAX_LIMIT`].
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { id: None, from: None, to: None, client: None, result: None, since: None, limit: DEFAULT_LIMIT }
    }
}

/// What became of a message, as one asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultFilter {
    /// Refused for good.
    Refused,
    /// Refused for now.
    Deferred,
    /// Answered 250.
    Accepted,
    /// Quarantined for a recipient.
    Quarantined,
    /// Sent elsewhere for a recipient.
    Redirected,
    /// Dropped for a recipient.
    Discarded,
    /// Taken by a next hop for a recipient.
    Delivered,
    /// Given up for a recipient.
    Failed,
}

const RESULTS: [(&str, ResultFilter); 8] = [
    ("refused", ResultFilter::Refused),
    ("deferred", ResultFilter::Deferred),
    ("accepted", ResultFilter::Accepted),
    ("quarantined", ResultFilter::Quarantined),
    ("redirected", ResultFilter::Redirected),
    ("discarded", ResultFilter::Discarded),
    ("delivered", ResultFilter::Delivered),
    ("failed", ResultFilter::Failed),
];

impl fmt::Display for ResultFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = RESULTS.iter().find(|(_, filter)| filter == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Neither an id nor KEY:VALUE.
    #[error(
        "\"{0}\" is neither a queue id nor KEY:VALUE with a KEY of from, to, client, result, since, limit"
    )]
    Word(String),
    /// A key that says nothing.
    #[error("{0}: needs a value")]
    Empty(&'static str),
    /// Two words of one key, or an id and more.
    #[error("{0} stands twice; each key stands once, and a queue id alone")]
    Twice(&'static str),
    /// No address.
    #[error("client:{0}: not an address or network; write client:192.0.2.1 or client:2001:db8::/32")]
    Client(String),
    /// No result.
    #[error(
        "result:{0}: not one of refused, deferred, accepted, quarantined, redirected, discarded, delivered, failed"
    )]
    Result(String),
    /// No time.
    #[error(
        "since:{0}: not a time; write since:30m, since:12h, since:7d, since:2026-11-24 or since:2026-11-24T05:29:36Z"
    )]
    Since(String),
    /// No number, or too great a one.
    #[error("limit:{0}: not a number from 1 to {MAX_LIMIT}")]
    Limit(String),
}

impl Query {
    /// Reads [`SYNTAX`]; `now` is where spans count back from.
    pub fn parse(text: &str, now: UnixTime) -> Result<Self, QueryError> {
        let mut query = Self::default();
        let mut limit = None;
        let mut words = 0;
        for word in text.split_whitespace() {
            words += 1;
            match word.split_once(':') {
                None => {
                    let id = QueueId::from_str(word).map_err(|_| QueryError::Word(word.to_owned()))?;
                    set(&mut query.id, id, "the queue id")?;
                }
                Some((_, "")) if key(word).is_some() => {
                    return Err(QueryError::Empty(key(word).unwrap_or("")));
                }
                Some(("from", value)) => set(&mut query.from, value.to_lowercase(), "from")?,
                Some(("to", value)) => set(&mut query.to, value.to_lowercase(), "to")?,
                Some(("client", value)) => set(&mut query.client, network(value)?, "client")?,
                Some(("result", value)) => set(&mut query.result, result(value)?, "result")?,
                Some(("since", value)) => set(&mut query.since, time(value, now)?, "since")?,
                Some(("limit", value)) => set(&mut limit, number(value)?, "limit")?,
                Some(_) => return Err(QueryError::Word(word.to_owned())),
            }
        }
        if query.id.is_some() && words > 1 {
            return Err(QueryError::Twice("something beside a queue id"));
        }
        query.limit = limit.unwrap_or(DEFAULT_LIMIT);
        Ok(query)
    }

    /// Whether the answer depends on the attempts.
    pub(super) fn needs_attempts(&self) -> bool {
        matches!(self.result, Some(ResultFilter::Delivered | ResultFilter::Failed))
    }

    /// Whether a row could match, without decoding it. Only a "no" is certain.
    pub(super) fn may_match(&self, row: &[u8]) -> bool {
        [&self.from, &self.to].into_iter().flatten().all(|text| !is_literal(text) || contains(row, text))
    }

    /// Whether a trace matches.
    pub(super) fn matches(&self, record: &Record) -> bool {
        let from = |text: &str| {
            let path = record.reverse_path.as_ref().map_or(String::new(), ToString::to_string);
            path.to_lowercase().contains(text)
        };
        let to = |text: &str| {
            let refused = record.refused_recipients.iter().map(|refused| &refused.recipient);
            record.recipients.iter().chain(refused).any(|path| path.to_string().to_lowercase().contains(text))
        };
        let client = |network: &IpNet| match &record.origin {
            Origin::Client(client) => network.contains(&client.client),
            Origin::Internal => false,
        };
        self.id.is_none_or(|id| record.id == id)
            && self.from.as_deref().is_none_or(from)
            && self.to.as_deref().is_none_or(to)
            && self.client.as_ref().is_none_or(client)
            && self.result.is_none_or(|result| result.holds(record))
            && self.since.is_none_or(|since| record.at >= since)
    }
}

/// Of a word whose key is known, the key.
fn key(word: &str) -> Option<&'static str> {
    let keys = ["from", "to", "client", "result", "since", "limit"];
    keys.into_iter().find(|key| word.split(':').next() == Some(key))
}

fn set<T>(place: &mut Option<T>, value: T, key: &'static str) -> Result<(), QueryError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(QueryError::Twice(key)),
    }
}

fn network(text: &str) -> Result<IpNet, QueryError> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| QueryError::Client(text.to_owned()))
}

fn result(text: &str) -> Result<ResultFilter, QueryError> {
    let found = RESULTS.iter().find(|(name, _)| *name == text);
    found.map(|(_, filter)| *filter).ok_or_else(|| QueryError::Result(text.to_owned()))
}

fn number(text: &str) -> Result<usize, QueryError> {
    let number = text.parse().ok().filter(|number| (1..=MAX_LIMIT).contains(number));
    number.ok_or_else(|| QueryError::Limit(text.to_owned()))
}

fn time(text: &str, now: UnixTime) -> Result<UnixTime, QueryError> {
    let refuse = || QueryError::Since(text.to_owned());
    if let Some(time) = UnixTime::parse_rfc3339(text) {
        return Ok(time);
    }
    let unit = text.chars().next_back().ok_or_else(refuse)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(refuse()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| refuse())?;
    Ok(now.minus(Duration::from_secs(count.saturating_mul(seconds))))
}

/// Whether a text stands in JSON as it is.
fn is_literal(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'"' | b'\\' | b'<' | b'>'))
}

/// Whether `row` contains the lower-case ASCII `text` in any case.
fn contains(row: &[u8], text: &str) -> bool {
    let Some(first) = text.as_bytes().first() else { return true };
    let candidates = memchr::memchr2_iter(*first, first.to_ascii_uppercase(), row);
    candidates
        .filter_map(|at| row.get(at..at + text.len()))
        .any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
}

impl ResultFilter {
    fn holds(self, record: &Record) -> bool {
        let dispositions = match &record.result {
            TransactionResult::Accepted { dispositions } => dispositions.as_slice(),
            TransactionResult::Refused(_) => &[],
        };
        let refused_as = |severity| match &record.result {
            TransactionResult::Refused(reply) => reply.code.severity() == severity,
            _ => false,
        };
        let disposed = |holds: fn(&Disposition) -> bool| dispositions.iter().any(holds);
        let attempted =
            |holds: fn(&Outcome) -> bool| record.attempts.iter().any(|attempt| holds(&attempt.outcome));
        match self {
            ResultFilter::Refused => refused_as(Severity::Permanent),
            ResultFilter::Deferred => refused_as(Severity::Transient),
            ResultFilter::Accepted => matches!(record.result, TransactionResult::Accepted { .. }),
            ResultFilter::Quarantined => disposed(|d| matches!(d, Disposition::Quarantine(_))),
            ResultFilter::Redirected => disposed(|d| matches!(d, Disposition::Redirect(_))),
            ResultFilter::Discarded => disposed(|d| matches!(d, Disposition::Discard(_))),
            ResultFilter::Delivered => {
                attempted(|outcome| matches!(outcome, Outcome::Delivered(_) | Outcome::Relayed(_)))
            }
            ResultFilter::Failed => attempted(|outcome| matches!(outcome, Outcome::Failed(_))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_795_498_176_000_000);

    #[track_caller]
    fn check(text: &str, expect: Query) {
        assert_eq!(Query::parse(text, NOW), Ok(expect), "{text}");
    }

    #[track_caller]
    fn check_error(text: &str, expect: &str) {
        let error = Query::parse(text, NOW).unwrap_err().to_string();
        assert!(error.contains(expect), "{text}: {error}");
    }

    #[test]
    fn queries() {
        let empty = Query::default;
        check("", empty());
        check(" 1J5K9 ", Query { id: Some(QueueId::from_str("1J5K9").unwrap()), ..empty() });
        check(
            "from:Alice@ to:b.test",
            Query { from: Some("alice@".into()), to: Some("b.test".into()), ..empty() },
        );
        check("client:192.0.2.7", Query { client: Some("192.0.2.7/32".parse().unwrap()), ..empty() });
        check("client:2001:db8::/32", Query { client: Some("2001:db8::/32".parse().unwrap()), ..empty() });
        check(
            "since:2h limit:7",
            Query { since: Some(UnixTime(NOW.0 - 7_200_000_000)), limit: 7, ..empty() },
        );
        check("since:2026-11-24", Query { since: Some(UnixTime(1_795_478_400_000_000)), ..empty() });
        for (name, filter) in RESULTS {
            check(&format!("result:{name}"), Query { result: Some(filter), ..empty() });
            assert!(SYNTAX.contains(name) && filter.to_string() == name);
        }
    }

    #[test]
    fn errors_say_what_would_do() {
        check_error("alice@example.com", "neither a queue id nor KEY:VALUE");
        check_error("sender:x", "KEY of from, to");
        check_error("from:", "from: needs a value");
        check_error("from:a from:b", "from stands twice");
        check_error("1J5K9 from:a", "a queue id alone");
        check_error("client:x", "client:192.0.2.1");
        check_error("result:lost", "not one of refused");
        check_error("since:yesterday", "write since:30m");
        check_error("since:5µ", "write since:30m");
        check_error("limit:0", "from 1 to 1000");
        check_error("limit:1001", "from 1 to 1000");
    }

    #[test]
    fn rows_are_passed_over_undecoded_only_when_they_cannot_match() {
        let row = br#"{"reverse_path":{"Mailbox":"Alice@Example.COM"}}"#;
        for (text, expect) in [
            ("from:alice@example", true),
            ("from:bob", false),
            ("from:<>", true),
            ("from:ä", true),
            ("from:alice to:bob", false),
            ("", true),
        ] {
            assert_eq!(Query::parse(text, NOW).unwrap().may_match(row), expect, "{text}");
        }
    }
}
