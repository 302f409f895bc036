//! RCPT: relay control (S3), the forward-path against the recipient lists (S8), and the answer to all that was found
//! about client, HELO and reverse-path before.
//!
//! What takes its time is asked when the answer depends on it, and not before: [`next`] says what.

use crate::config::model::{Access, IncomingDomain};
use crate::finding::{Check, Finding, Opinion};
use crate::mail::ForwardPath;
use crate::policy::{Trust, check};
use crate::smtp::Refusal;

/// The checks that a whitelist ends, in the order in which they refuse, and what must be asked before each of them.
const AFTER_WHITELISTS: [(Check, Option<Need>); 11] = [
    (Check::ClientAccess, None),
    (Check::SenderAccess, None),
    (Check::RecipientAccess, None),
    (Check::Helo, None),
    // What is wrong with the names as they are written needs no look-up.
    (Check::SenderDomain, None),
    (Check::RecipientDomain, None),
    (Check::SenderDomain, Some(Need::Dns)),
    (Check::RecipientDomain, Some(Need::Dns)),
    (Check::Rbl, Some(Need::Dns)),
    (Check::RecipientVerification, Some(Need::Verification)),
    (Check::Greylist, Some(Need::Greylist)),
];

/// What can be asked about a recipient's transaction, of others or of what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The client's names.
    ClientName,
    /// The domains of sender and recipient, and the block lists.
    Dns,
    /// Whether the recipient's server takes mail for it.
    Verification,
    /// Whether client, sender and recipient were seen before. The last one: it remembers those that would be taken.
    Greylist,
}

/// What is to be done about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This is the answer.
    Answer(Verdict),
    /// Ask, and come again with what was found.
    Ask(Need),
}

/// The answer to a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody objects.
    Accepted,
    /// Client, sender or recipient is whitelisted.
    Whitelisted,
    /// This is the reply.
    Refused(Refusal),
}

/// Judges the recipient: relay control and the recipient lists.
pub fn judge(
    access: &Access,
    incoming: &[IncomingDomain],
    trust: Trust,
    forward_path: &ForwardPath,
) -> Vec<Finding> {
    vec![check::relay::judge(incoming, trust, forward_path), check::access::recipient(access, forward_path)]
}

/// The answer, from the findings about client, HELO, reverse-path and this forward-path. The order:
///
/// 1. relay control: no whitelist opens a relay;
/// 2. whitelists, any of them: they end the checks after them;
/// 3. blacklists: client, sender, recipient;
/// 4. HELO;
/// 5. the domains of sender and recipient, block lists;
/// 6. recipient verification;
/// 7. greylisting.
///
/// `unasked` is what can still be asked: an inquiry is due only where nothing before it in the order decides.
pub fn next<'a>(findings: impl Iterator<Item = &'a Finding> + Clone, unasked: &[Need]) -> Next {
    let objection = |check| {
        findings.clone().filter(|finding| finding.check == check).find_map(Finding::objection).cloned()
    };
    if let Some(refusal) = objection(Check::RelayControl) {
        return Next::Answer(Verdict::Refused(refusal));
    }
    if findings.clone().any(|finding| finding.opinion == Opinion::Allow) {
        return Next::Answer(Verdict::Whitelisted);
    }
    if unasked.contains(&Need::ClientName) {
        return Next::Ask(Need::ClientName);
    }
    for (check, inquiry) in AFTER_WHITELISTS {
        if let Some(inquiry) = inquiry.filter(|inquiry| unasked.contains(inquiry)) {
            return Next::Ask(inquiry);
        }
        if let Some(refusal) = objection(check) {
            return Next::Answer(Verdict::Refused(refusal));
        }
    }
    Next::Answer(Verdict::Accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::model::ZoneKind;
    use crate::mail::ReversePath;
    use crate::policy::stage::{connect, helo, mail};
    use crate::smtp::{Command, DomainFault};

    /// Lists whose entries say where they stand. "here.example" and the subdomains of "sub.example" are incoming domains.
    const CONFIG: &str = r#"
        [access]
        whitelist_senders = ["white.example", "friend@black.example"]
        blacklist_senders = ["black.example", "foe@white.example"]
        whitelist_recipients = ["open@here.example", "white-to.example"]
        blacklist_recipients = ["closed@here.example", "open@here.example"]
        whitelist_clients = ["192.0.2.1", "2001:db8:1::/48"]
        blacklist_clients = ["192.0.2.0/24", "2001:db8::/32"]
        [[incoming_domain]]
        domain = "here.example"
        server = "192.0.2.25"
        [[incoming_domain]]
        domain = ".sub.example"
        server = "192.0.2.25"
    "#;

    /// One row: zone, client, HELO ("-": none), MAIL, RCPT, answer.
    fn check(config: &Config, row: &str) {
        let Config { access, server, spam_prevention, incoming_domains, .. } = config;
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, zone, client, name, sender, recipient, expect, _] = cells[..] else { panic!("{row}") };
        let kind = match zone {
            "red" => ZoneKind::Red,
            "green" => ZoneKind::Green,
            "login" => ZoneKind::Red,
            other => panic!("zone {other}"),
        };
        let trust = Trust::of(kind, zone == "login");
        let Ok(Command::Mail(command)) = Command::parse(format!("MAIL FROM:{sender}").as_bytes()) else {
            panic!("{sender}")
        };
        let Ok(Command::Rcpt(rcpt)) = Command::parse(format!("RCPT TO:{recipient}").as_bytes()) else {
            panic!("{recipient}")
        };
        let name = match Command::parse(format!("EHLO {name}").as_bytes()) {
            Ok(Command::Ehlo(text)) if text.as_str() != "-" => Some(text),
            _ => None,
        };
        let reverse_path: ReversePath = command.reverse_path;
        let findings = [
            connect::judge(access, client.parse().unwrap()),
            helo::judge(server, spam_prevention, name.as_ref()),
            mail::judge(access, &reverse_path),
            judge(access, incoming_domains, trust, &rcpt.recipient.forward_path),
        ]
        .concat();
        assert_eq!(in_words(&next(findings.iter(), &[])), expect, "{row}\n{findings:#?}");
    }

    fn in_words(next: &Next) -> String {
        match next {
            Next::Answer(Verdict::Accepted) => "accepted".to_owned(),
            Next::Answer(Verdict::Whitelisted) => "whitelisted".to_owned(),
            Next::Answer(Verdict::Refused(refusal)) => refusal.to_string(),
            Next::Ask(inquiry) => format!("{inquiry:?}?"),
        }
    }

    /// What was found so far; what can be asked; what is asked next, or the answer.
    #[test]
    #[rustfmt::skip]
    fn nothing_is_asked_that_the_answer_does_not_depend_on() {
        for (found, unasked, expect) in [
            ("",                "ClientName, Dns", "ClientName?"),
            ("relay",           "ClientName, Dns", "Relay access denied"),
            ("white",           "ClientName, Dns", "whitelisted"),
            ("white, relay",    "ClientName, Dns", "Relay access denied"),
            ("black",           "ClientName, Dns", "ClientName?"),
            ("black",           "Dns",             "Client is on the client blacklist"),
            ("white, black",    "ClientName, Dns", "whitelisted"),
            ("helo",            "Dns",             "Send HELO or EHLO first"),
            ("unqualified",     "Dns",             "Sender domain is not a fully qualified name"),
            ("",                "Dns",             "Dns?"),
            ("outage",          "Greylist",        "Greylist?"),
            ("listed",          "Greylist",        "Listed by rbl.example"),
            ("",                "Dns, Greylist",   "Dns?"),
            ("white",           "Greylist",        "whitelisted"),
            ("",                "Dns, Verification", "Dns?"),
            ("listed",          "Verification",    "Listed by rbl.example"),
            ("",                "Verification, Greylist", "Verification?"),
            ("nobody",          "Greylist",        "Recipient unknown"),
            ("white",           "Verification",    "whitelisted"),
            ("grey",            "",                "Greylisted, try again in 300 seconds"),
            ("outage",          "",                "accepted"),
            ("listed",          "",                "Listed by rbl.example"),
            ("unknown, listed", "",                "Sender domain not found"),
        ] {
            let words = |text: &'static str| text.split(", ").filter(|word| !word.is_empty());
            let findings: Vec<Finding> = words(found).map(finding).collect();
            let all = [Need::ClientName, Need::Dns, Need::Verification, Need::Greylist];
            let unasked: Vec<_> =
                all.into_iter().filter(|i| words(unasked).any(|word| word == format!("{i:?}"))).collect();
            assert_eq!(in_words(&next(findings.iter(), &unasked)), expect, "{found}; {unasked:?}");
        }
    }

    fn finding(word: &str) -> Finding {
        let (check, outcome) = match word {
            "relay" => (Check::RelayControl, Opinion::Refuse(Refusal::RelayDenied)),
            "white" => (Check::RecipientAccess, Opinion::Allow),
            "black" => (Check::ClientAccess, Opinion::Refuse(Refusal::ClientListed)),
            "helo" => (Check::Helo, Opinion::Refuse(Refusal::HeloRequired)),
            "unqualified" => {
                (Check::SenderDomain, Opinion::Refuse(Refusal::SenderDomain(DomainFault::NotQualified)))
            }
            "unknown" => (Check::SenderDomain, Opinion::Refuse(Refusal::SenderDomain(DomainFault::Unknown))),
            "listed" => (Check::Rbl, Opinion::Refuse(Refusal::BlockListed("rbl.example".to_owned()))),
            "outage" => (Check::Rbl, Opinion::Unavailable("timeout".to_owned())),
            "nobody" => (Check::RecipientVerification, Opinion::Refuse(Refusal::RecipientUnknown)),
            "grey" => (Check::Greylist, Opinion::Defer(Refusal::Greylisted(300))),
            other => panic!("no finding is called {other}"),
        };
        Finding::new(check, outcome, word)
    }

    /// Who may send what to whom.
    #[test]
    fn the_order_at_rcpt() {
        let config = crate::testing::config(CONFIG);
        for row in "
        | red   | 198.51.100.1   | a | <x@y.example>          | <u@here.example>       | accepted |
        | red   | 198.51.100.1   | a | <>                     | <u@here.example>       | accepted |
        | red   | 198.51.100.1   | a | <>                     | <postmaster>           | accepted |
        | red   | 198.51.100.1   | a | <x@y.example>          | <u@a.sub.example>      | accepted |
        | red   | 198.51.100.1   | a | <x@y.example>          | <u@sub.example>        | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <u@a.here.example>     | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <u@far.example>        | Relay access denied |
        | red   | 198.51.100.1   | a | <u@here.example>       | <u@far.example>        | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <u@[192.0.2.25]>       | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <u%far.example@here.example>     | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <far.example!u@here.example>     | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <\"u@far.example\"@here.example> | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <@here.example:u@far.example>    | Relay access denied |
        | green | 198.51.100.1   | a | <x@y.example>          | <u@far.example>        | accepted |
        | login | 198.51.100.1   | a | <x@y.example>          | <u@far.example>        | accepted |
        | login | 192.0.2.2      | a | <x@y.example>          | <u@far.example>        | Client is on the client blacklist |
        | green | 198.51.100.1   | a | <x@y.example>          | <u%far.example@here.example>     | accepted |

        | red   | 192.0.2.1      | a | <x@y.example>          | <u@here.example>       | whitelisted |
        | red   | 192.0.2.1      | a | <x@y.example>          | <u@far.example>        | Relay access denied |
        | red   | 198.51.100.1   | a | <x@white.example>      | <u@far.example>        | Relay access denied |
        | red   | 198.51.100.1   | a | <x@y.example>          | <u@white-to.example>   | Relay access denied |
        | red   | 192.0.2.2      | a | <x@y.example>          | <u@here.example>       | Client is on the client blacklist |
        | red   | 2001:db8:2::1  | a | <x@y.example>          | <u@here.example>       | Client is on the client blacklist |
        | red   | 2001:db8:1::1  | a | <x@y.example>          | <u@here.example>       | whitelisted |
        | green | 192.0.2.2      | a | <x@y.example>          | <u@far.example>        | Client is on the client blacklist |
        | red   | 192.0.2.2      | a | <x@white.example>      | <u@here.example>       | whitelisted |
        | red   | 192.0.2.2      | a | <x@y.example>          | <open@here.example>    | whitelisted |

        | red   | 198.51.100.1   | a | <x@black.example>      | <u@here.example>       | Sender is on the sender blacklist |
        | red   | 198.51.100.1   | a | <x@a.black.example>    | <u@here.example>       | Sender is on the sender blacklist |
        | red   | 198.51.100.1   | a | <x@notblack.example>   | <u@here.example>       | accepted |
        | red   | 198.51.100.1   | a | <FRIEND@Black.example> | <u@here.example>       | whitelisted |
        | red   | 198.51.100.1   | a | <foe@white.example>    | <u@here.example>       | whitelisted |
        | green | 198.51.100.1   | a | <x@black.example>      | <u@far.example>        | Sender is on the sender blacklist |
        | green | 198.51.100.1   | a | <x@black.example>      | <u@white-to.example>   | whitelisted |

        | red   | 198.51.100.1   | a | <x@y.example>          | <closed@here.example>  | Recipient is on the recipient blacklist |
        | red   | 198.51.100.1   | a | <x@y.example>          | <\"Closed\"@here.example> | Recipient is on the recipient blacklist |
        | red   | 198.51.100.1   | a | <x@white.example>      | <closed@here.example>  | whitelisted |
        | red   | 198.51.100.1   | a | <x@y.example>          | <open@here.example>    | whitelisted |
        | red   | 192.0.2.2      | a | <x@black.example>      | <closed@here.example>  | Client is on the client blacklist |
        | red   | 198.51.100.1   | - | <x@black.example>      | <closed@here.example>  | Sender is on the sender blacklist |

        | red   | 198.51.100.1   | - | <x@y.example>          | <u@here.example>       | Send HELO or EHLO first |
        | green | 198.51.100.1   | - | <x@y.example>          | <u@far.example>        | Send HELO or EHLO first |
        | red   | 192.0.2.1      | - | <x@y.example>          | <u@here.example>       | whitelisted |
        "
        .lines()
        .map(str::trim)
        .filter(|row| !row.is_empty())
        {
            check(&config, row);
        }
    }
}
