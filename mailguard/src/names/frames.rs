//! What the datapath process and its resolver say to each other: a line of JSON each, short and typed. Names
//! and limits go one way, addresses and times the other; never a message of the DNS.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mailguard_core::config::model::Dns as DnsConfig;
use mailguard_core::lookup::Lookup;
use mailguard_core::names::{Addresses, MAX_ANSWERED, Question};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest line, octets: as many addresses as are looked at take a fifth of it.
const MAX_LINE_OCTETS: u64 = 16 << 10;

/// Longest text that says why there is no answer, characters.
const MAX_CAUSE_CHARACTERS: usize = 200;

/// To the resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToResolver {
    /// First of all: whom to ask.
    Start {
        /// `dns.servers`
        servers: Vec<SocketAddr>,
        /// `dns.timeout`
        timeout: Duration,
    },
    /// Ask this.
    Ask {
        /// Comes back with the answer.
        id: u32,
        /// What.
        question: Question,
    },
}

/// From the resolver: the answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FromResolver {
    /// The question's number.
    pub(super) id: u32,
    /// What the DNS says.
    pub(super) answer: Answer,
}

/// A [`Lookup`], as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// These.
    Found(Addresses),
    /// None.
    Absent,
    /// Nobody knows right now.
    Unavailable(String),
}

impl Answer {
    /// As it is sent: no longer than a line holds.
    pub(super) fn of(lookup: Lookup<Addresses>) -> Self {
        match lookup {
            Lookup::Found(Addresses { mut addresses, ttl }) => {
                addresses.sort_unstable();
                addresses.truncate(MAX_ANSWERED);
                Answer::Found(Addresses { addresses, ttl })
            }
            Lookup::Absent => Answer::Absent,
            Lookup::Unavailable(cause) => Answer::Unavailable(printable(&cause)),
        }
    }

    /// As it is taken, whoever wrote it.
    pub(super) fn taken(self) -> Lookup<Addresses> {
        match self {
            Answer::Found(addresses) => Lookup::Found(addresses),
            Answer::Absent => Lookup::Absent,
            Answer::Unavailable(cause) => Lookup::Unavailable(printable(&cause)),
        }
    }
}

/// What of a text may be shown: one line, not too long.
pub(super) fn printable(text: &str) -> String {
    let shown = text.trim().chars().take(MAX_CAUSE_CHARACTERS);
    shown.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What the resolver is told first.
pub(super) fn start(dns: &DnsConfig) -> ToResolver {
    ToResolver::Start { servers: dns.servers.clone(), timeout: dns.timeout }
}

/// Writes one message.
pub(super) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads one message; none when the other process is gone.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.by_ref().take(MAX_LINE_OCTETS).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end")),
    }
}

#[cfg(test)]
mod tests {
    use mailguard_core::names::Family;

    use super::*;

    #[test]
    fn the_longest_messages_fit() {
        let name = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        let ask = ToResolver::Ask { id: u32::MAX, question: Question { name, family: Family::V4 } };
        let addresses =
            (0..200).map(|n| format!("2001:db8:aaaa:bbbb:cccc:dddd:eeee:1{n:03}").parse().unwrap());
        let found = Lookup::Found(Addresses { addresses: addresses.collect(), ttl: u32::MAX });
        let answers = [
            Answer::of(found),
            Answer::of(Lookup::Unavailable("\u{1}é".repeat(100_000))),
            Answer::of(Lookup::Absent),
        ];
        let mut wire = Vec::new();
        write(&mut wire, &ask).unwrap();
        for answer in &answers {
            write(&mut wire, &FromResolver { id: 7, answer: answer.clone() }).unwrap();
        }
        let mut from = wire.as_slice();
        assert_eq!(read(&mut from).unwrap(), Some(ask));
        for answer in answers {
            assert_eq!(read(&mut from).unwrap(), Some(FromResolver { id: 7, answer }));
        }
        assert_eq!(read::<FromResolver>(&mut from).unwrap(), None);
    }

    #[test]
    fn what_does_not_fit_is_no_message() {
        let endless = vec![b'['; 1 << 20];
        for wire in [&endless[..], b"{}\n", b"{\"id\":1,\"answer\":\"Absent\"}"] {
            assert!(read::<FromResolver>(&mut &*wire).is_err());
        }
    }
}
