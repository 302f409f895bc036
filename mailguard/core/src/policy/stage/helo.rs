//! HELO and EHLO: whether the client introduced itself, and by what name (S4, `server.require_helo`,
//! `server.reject_invalid_hostname`, `spam_prevention.reject_non_fqdn_helo`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::model::{Server, SpamPrevention};
use crate::finding::{Check, Finding, Opinion};
use crate::mail::Domain;
use crate::smtp::{HeloName, Refusal};

/// Judges what the client said it is called, as MAIL begins a transaction.
pub(super) fn judge(server: &Server, prevention: &SpamPrevention, name: Option<&HeloName>) -> Finding {
    let (outcome, reason) = match name {
        Some(name) => by_name(server, prevention, name),
        None if server.require_helo => {
            (Opinion::Refuse(Refusal::HeloRequired), "no HELO, and server.require_helo is set".to_owned())
        }
        None => (Opinion::Pass, "no HELO".to_owned()),
    };
    Finding::new(Check::Helo, outcome, reason)
}

fn by_name(server: &Server, prevention: &SpamPrevention, name: &HeloName) -> (Opinion, String) {
    let said = match name.as_str() {
        "" => "introduced itself without a name".to_owned(),
        name => format!("introduced itself as {name}"),
    };
    match kind(name.as_str()) {
        Kind::Neither if server.reject_invalid_hostname => (
            Opinion::Refuse(Refusal::HeloInvalid),
            format!("{said}, which is neither a host name nor an address literal"),
        ),
        Kind::Neither | Kind::Unqualified if prevention.reject_non_fqdn_helo => (
            Opinion::Refuse(Refusal::HeloNotQualified),
            format!("{said}, which is not a fully qualified name"),
        ),
        _ => (Opinion::Pass, said),
    }
}

/// What a client may call itself (RFC 5321 §4.1.2, §4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An address in brackets.
    Literal,
    /// A domain name of several labels.
    Qualified,
    /// One of a single label.
    Unqualified,
    /// Nothing of these; a bare address, too.
    Neither,
}

fn kind(name: &str) -> Kind {
    if let Some(literal) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return if is_literal(literal) { Kind::Literal } else { Kind::Neither };
    }
    match Domain::parse(name) {
        _ if !name.is_ascii() || name.ends_with('.') || name.parse::<IpAddr>().is_ok() => Kind::Neither,
        Ok(domain) if domain.is_fully_qualified() => Kind::Qualified,
        Ok(_) => Kind::Unqualified,
        Err(_) => Kind::Neither,
    }
}

fn is_literal(literal: &str) -> bool {
    const IPV6: &str = "IPv6:";
    match literal.split_at_checked(IPV6.len()) {
        Some((tag, address)) if tag.eq_ignore_ascii_case(IPV6) => address.parse::<Ipv6Addr>().is_ok(),
        _ => literal.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Command;
    use crate::testing::config;

    #[test]
    fn what_a_client_may_call_itself_in_helo() {
        for (name, expect) in [
            ("mx.client.example", Kind::Qualified),
            ("my_host.client.example", Kind::Qualified),
            ("laptop", Kind::Unqualified),
            ("[192.0.2.1]", Kind::Literal),
            ("[IPv6:2001:db8::1]", Kind::Literal),
            ("[ipv6:2001:DB8::1]", Kind::Literal),
            ("[2001:db8::1]", Kind::Neither),
            ("[192.0.2]", Kind::Neither),
            ("[192.0.2.1", Kind::Neither),
            ("[]", Kind::Neither),
            ("192.0.2.1", Kind::Neither),
            ("2001:db8::1", Kind::Neither),
            ("client.example.", Kind::Neither),
            ("my computer", Kind::Neither),
            ("-client.example", Kind::Neither),
            ("a..example", Kind::Neither),
            ("müller.example", Kind::Neither),
            (".", Kind::Neither),
        ] {
            assert_eq!(kind(name), expect, "{name}");
        }
    }

    #[test]
    fn helo_names_are_refused_as_far_as_that_is_asked_for() {
        for (name, invalid, unqualified, expect) in [
            ("mx.client.example", true, true, None),
            ("[192.0.2.1]", true, true, None),
            ("laptop", true, false, None),
            ("laptop", true, true, Some(Refusal::HeloNotQualified)),
            ("my computer", false, false, None),
            ("my computer", true, false, Some(Refusal::HeloInvalid)),
            ("my computer", false, true, Some(Refusal::HeloNotQualified)),
            ("my computer", true, true, Some(Refusal::HeloInvalid)),
        ] {
            let config = config(&format!(
                "server.reject_invalid_hostname = {invalid}\nspam_prevention.reject_non_fqdn_helo = {unqualified}"
            ));
            let Ok(Command::Ehlo(helo)) = Command::parse(format!("EHLO {name}").as_bytes()) else {
                panic!("{name}")
            };
            let finding = judge(&config.server, &config.spam_prevention, Some(&helo));
            assert_eq!(finding.objection().cloned(), expect, "{name} {invalid} {unqualified}");
        }
    }
}
