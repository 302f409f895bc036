//! RCPT: the answer to all that was found about client, HELO and reverse-path before, and about the
//! forward-path now.
//!
//! What takes its time is asked when the answer depends on it, and not before: [`needed`] says what.

use crate::config::Config;
use crate::finding::{Check, Finding, Opinion};
use crate::mail::ForwardPath;
use crate::policy::Trust;
use crate::policy::check::{access, domain, greylist, rbl, relay, verification};
use crate::policy::need::{About, AskingCheck, Known, Need, Subject};
use crate::smtp::Refusal;

/// A step on the way to the answer.
enum Step {
    /// What this check found without asking refuses.
    Refuse(Check),
    /// Whoever is whitelisted is taken: nothing after this is asked.
    Whitelists,
    /// Asked at one time. Then each refuses, in this order; one that whitelists ends it, too.
    Ask(&'static [AskingCheck]),
}

/// The order in which checks answer a recipient.
const ORDER: [Step; 12] = [
    // No whitelist opens a relay.
    Step::Refuse(Check::RelayControl),
    Step::Whitelists,
    // The last lists that could whitelist.
    Step::Ask(&[access::CLIENT_NAMES]),
    Step::Refuse(Check::ClientAccess),
    Step::Refuse(Check::SenderAccess),
    Step::Refuse(Check::RecipientAccess),
    Step::Refuse(Check::Helo),
    // What is wrong with the names as they are written needs no look-up.
    Step::Refuse(Check::SenderDomain),
    Step::Refuse(Check::RecipientDomain),
    Step::Ask(&[domain::SENDER, domain::RECIPIENT, rbl::LISTS]),
    Step::Ask(&[verification::RECIPIENT]),
    // The last one: it remembers those that would be taken.
    Step::Ask(&[greylist::TRIPLET]),
];

/// What is to be done about a recipient.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This is the answer.
    Answer(Judged),
    /// Ask all of these at one time, and come again with what was learned.
    Ask(Vec<Need>),
}

/// The answer to a recipient, and what it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The answer.
    pub verdict: Verdict,
    /// What was found about client and sender by asking. That of another recipient of the transaction is the
    /// same as far as it goes: the longest says all.
    pub about_sender: Vec<Finding>,
    /// What was found about the recipient.
    pub about_recipient: Vec<Finding>,
}

/// The answer to a recipient, by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody objects.
    Accepted,
    /// Client, sender or recipient is whitelisted.
    Whitelisted,
    /// This is the reply.
    Refused(Refusal),
}

/// The answer to a recipient, or what must be asked first: what is `known` is never asked again, and nothing
/// is asked where an earlier check decides. `before` is what was found about client, HELO and reverse-path.
pub fn needed(subject: &Subject<'_>, known: &Known, before: &[Finding]) -> Next {
    let Subject { config, trust, forward_path, .. } = subject;
    let mut findings =
        Findings { before, about_sender: Vec::new(), about_recipient: judge(config, *trust, forward_path) };
    for step in &ORDER {
        let verdict = match step {
            Step::Refuse(check) => findings.objection(*check).map(Verdict::Refused),
            Step::Whitelists => findings.whitelist().then_some(Verdict::Whitelisted),
            Step::Ask(checks) => match findings.hear(checks, subject, known) {
                Heard::Missing(needs) => return Next::Ask(needs),
                Heard::All(verdict) => verdict,
            },
        };
        if let Some(verdict) = verdict {
            return findings.answer(verdict);
        }
    }
    findings.answer(Verdict::Accepted)
}

/// What is found about the recipient without asking anybody.
fn judge(config: &Config, trust: Trust, forward_path: &ForwardPath) -> Vec<Finding> {
    let mut findings = vec![
        relay::judge(&config.incoming_domains, trust, forward_path),
        access::recipient(&config.access, forward_path),
    ];
    findings.extend(domain::recipient(config, forward_path));
    findings
}

/// What was found on the way to an answer.
struct Findings<'a> {
    before: &'a [Finding],
    about_sender: Vec<Finding>,
    about_recipient: Vec<Finding>,
}

/// What comes of checks that ask.
enum Heard {
    /// This isn't known yet.
    Missing(Vec<Need>),
    /// The answer, or that none of them decides.
    All(Option<Verdict>),
}

impl Findings<'_> {
    fn all(&self) -> impl Iterator<Item = &Finding> {
        self.before.iter().chain(&self.about_sender).chain(&self.about_recipient)
    }

    fn objection(&self, check: Check) -> Option<Refusal> {
        self.all().filter(|finding| finding.check == check).find_map(Finding::objection).cloned()
    }

    fn whitelist(&self) -> bool {
        self.all().any(|finding| finding.opinion == Opinion::Allow)
    }

    /// Hears each check that knows all it needs; the first that decides is the answer. If none does before
    /// one that has to ask, all are asked for what they need: what is independent takes its time together.
    fn hear(&mut self, checks: &[AskingCheck], subject: &Subject<'_>, known: &Known) -> Heard {
        let (mut missing, mut decided): (Vec<Need>, _) = (Vec::new(), None);
        for AskingCheck { needs, judge, about } in checks {
            let needs = needs(subject, known);
            if needs.is_empty() {
                let Some(finding) = judge(subject, known) else { continue };
                if decided.is_none() && missing.is_empty() {
                    decided = verdict(&finding);
                }
                match about {
                    About::Sender => self.about_sender.push(finding),
                    About::Recipient => self.about_recipient.push(finding),
                }
            }
            for need in needs {
                // Sender and recipient may be of one domain.
                if missing.iter().all(|other| other.query != need.query) {
                    missing.push(need);
                }
            }
        }
        if decided.is_none() && !missing.is_empty() { Heard::Missing(missing) } else { Heard::All(decided) }
    }

    fn answer(self, verdict: Verdict) -> Next {
        let Self { about_sender, about_recipient, .. } = self;
        Next::Answer(Judged { verdict, about_sender, about_recipient })
    }
}

/// What one finding decides by itself.
fn verdict(finding: &Finding) -> Option<Verdict> {
    match finding.opinion {
        Opinion::Allow => Some(Verdict::Whitelisted),
        _ => finding.objection().cloned().map(Verdict::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Access, ZoneKind};
    use crate::lookup::Lookup;
    use crate::mail::{Domain, Mailbox, ReversePath};
    use crate::policy::check::domain::MailDomainStatus;
    use crate::policy::need::{Fact, Holds, Query};
    use crate::policy::stage::{connect, mail};
    use crate::rbl::Listing;
    use crate::smtp::Command;

    /// Lists whose entries say where they stand. "here.example" and the subdomains of "sub.example" are
    /// incoming domains.
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

    /// What is asked for whatever can be asked.
    const CURIOUS: &str = r#"
        server.verify_recipients = true
        spam.greylist.enabled = true
        [spam_prevention]
        reject_unknown_sender_domain = true
        reject_unknown_recipient_domain = true
        reject_non_fqdn_sender = true
        [rbl]
        enabled = true
        ip_lists = ["ip.rbl.example"]
        domain_lists = ["names.rbl.example"]
    "#;

    fn curious() -> Config {
        let mut config = crate::testing::config(&format!("{CURIOUS}{CONFIG}"));
        config.access.whitelist_client_names = vec![domain("white.example")];
        config.access.blacklist_client_names = vec![domain("black.example")];
        config
    }

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    /// What is done about the recipient of a transaction; `known` is what was learned before.
    fn next(
        config: &Config,
        (zone, client): (&str, &str),
        name: &str,
        (sender, recipient): (&str, &str),
        known: &Known,
    ) -> String {
        let kind = if zone == "green" { ZoneKind::Green } else { ZoneKind::Red };
        let trust = Trust::of(kind, zone == "login");
        let client = client.parse().unwrap();
        let name = match Command::parse(format!("EHLO {name}").as_bytes()) {
            Ok(Command::Ehlo(text)) if text.as_str() != "-" => Some(text),
            _ => None,
        };
        let Ok(Command::Mail(command)) = Command::parse(format!("MAIL FROM:{sender}").as_bytes()) else {
            panic!("{sender}")
        };
        let Ok(Command::Rcpt(rcpt)) = Command::parse(format!("RCPT TO:{recipient}").as_bytes()) else {
            panic!("{recipient}")
        };
        let reverse_path: ReversePath = command.reverse_path;
        let mut before = connect::judge(&config.access, client);
        before.extend(mail::judge(config, name.as_ref(), &reverse_path));
        let helo = name.and_then(|name| Domain::parse(name.as_str()).ok());
        let forward_path = &rcpt.recipient.forward_path;
        let subject = Subject { config, trust, client, helo, reverse_path: &reverse_path, forward_path };
        in_words(&needed(&subject, known, &before))
    }

    fn in_words(next: &Next) -> String {
        match next {
            Next::Answer(Judged { verdict: Verdict::Accepted, .. }) => "accepted".to_owned(),
            Next::Answer(Judged { verdict: Verdict::Whitelisted, .. }) => "whitelisted".to_owned(),
            Next::Answer(Judged { verdict: Verdict::Refused(refusal), .. }) => refusal.to_string(),
            Next::Ask(needs) => {
                let asked = needs.iter().map(|need| match &need.query {
                    Query::ClientNames(_) => "names".to_owned(),
                    Query::MailDomain(domain) => domain.to_string(),
                    Query::BlockList(asked) => asked.query.clone(),
                    Query::Verification(..) => "verification".to_owned(),
                    Query::Greylist(..) => "greylist".to_owned(),
                });
                format!("ask {}", asked.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// What is known of 198.51.100.1, a client of the red zone that says it is mx.test, and of mail from and
    /// to this.
    fn known(words: &str) -> Known {
        let mut known = Known::default();
        for word in words.split_whitespace() {
            let (holds, facts) = match word {
                "nameless" => (Holds::Session, vec![Fact::ClientNames(Lookup::Absent)]),
                "a.white.example" | "a.black.example" | "mx.client" => {
                    (Holds::Session, vec![Fact::ClientNames(Lookup::Found(vec![domain(word)]))])
                }
                "exists" | "unknown" | "outage" => {
                    let status = match word {
                        "exists" => MailDomainStatus::TakesMail,
                        "unknown" => MailDomainStatus::Unknown,
                        _ => MailDomainStatus::Unavailable("timeout".to_owned()),
                    };
                    (Holds::Transaction, vec![Fact::MailDomain(domain("y.test"), status)])
                }
                "unlisted" | "listed" | "silent" => (Holds::Transaction, listings(word)),
                "verified" => {
                    (Holds::Recipient, vec![Fact::Verification(pass(Check::RecipientVerification))])
                }
                "nobody" => {
                    let opinion = Opinion::Refuse(Refusal::RecipientUnknown);
                    (
                        Holds::Recipient,
                        vec![Fact::Verification(Finding::new(Check::RecipientVerification, opinion, "no"))],
                    )
                }
                "seen" => (Holds::Recipient, vec![Fact::Greylist(pass(Check::Greylist))]),
                "grey" => {
                    let opinion = Opinion::Defer(Refusal::Greylisted(300));
                    (Holds::Recipient, vec![Fact::Greylist(Finding::new(Check::Greylist, opinion, "new"))])
                }
                other => panic!("nothing is known as {other}"),
            };
            facts.into_iter().for_each(|fact| known.learn(fact, holds));
        }
        known
    }

    fn pass(check: Check) -> Finding {
        Finding::new(check, Opinion::Pass, "as the test has it")
    }

    /// The answers of all lists that are asked about it.
    fn listings(word: &str) -> Vec<Fact> {
        let sender = ReversePath::Mailbox(Mailbox::parse("x@y.test").unwrap());
        let rbl = curious().rbl.unwrap();
        let client = "198.51.100.1".parse().unwrap();
        let asked = rbl::queries(&rbl, client, &sender, Some(&domain("mx.test")), &[domain("mx.client")]);
        let listing = |zone: &str| match (word, zone) {
            ("listed", "names.rbl.example") => Listing::Listed("spam".to_owned()),
            ("silent", "ip.rbl.example") => Listing::Unusable("timeout".to_owned()),
            _ => Listing::NotListed,
        };
        asked.into_iter().map(|query| Fact::BlockList(query.clone(), listing(&query.zone))).collect()
    }

    const LISTS: &str = "1.100.51.198.ip.rbl.example, y.test.names.rbl.example, mx.test.names.rbl.example";

    #[test]
    fn nothing_is_asked_that_the_answer_does_not_depend_on() {
        let config = curious();
        let check = |zone: &str, sender: &str, recipient: &str, learned: &str, expect: &str| {
            let (sender, recipient) = (format!("<{sender}>"), format!("<{recipient}>"));
            let seen =
                next(&config, (zone, "198.51.100.1"), "mx.test", (&sender, &recipient), &known(learned));
            assert_eq!(seen, expect, "{zone} {sender} {recipient}: {learned}");
        };
        let (from, to) = ("x@y.test", "u@here.example");
        let all_of_dns = format!("ask y.test, {LISTS}");
        for (learned, expect) in [
            // Names may whitelist, and the rest is spared.
            ("", "ask names"),
            ("a.white.example", "whitelisted"),
            ("a.black.example", "Client is on the client blacklist"),
            // What is independent is asked at one time.
            ("nameless", &all_of_dns),
            ("mx.client", &format!("{all_of_dns}, mx.client.names.rbl.example")),
            ("mx.client exists", &format!("ask {LISTS}, mx.client.names.rbl.example")),
            ("nameless unknown", "Sender domain not found"),
            ("nameless outage", "Sender domain can't be looked up now, try later"),
            ("mx.client unknown listed", "Sender domain not found"),
            ("mx.client exists listed", "Listed by names.rbl.example"),
            // An outage of a list blocks nobody.
            ("mx.client exists silent", "ask verification"),
            ("mx.client exists unlisted", "ask verification"),
            ("mx.client exists unlisted nobody", "Recipient unknown"),
            ("mx.client exists unlisted verified", "ask greylist"),
            ("mx.client exists unlisted verified grey", "Greylisted, try again in 300 seconds"),
            ("mx.client exists unlisted verified seen", "accepted"),
        ] {
            check("red", from, to, learned, expect);
        }
        check("red", from, "u@far.example", "", "Relay access denied");
        check("red", "x@white.example", "u@far.example", "a.white.example", "Relay access denied");
        check("red", "x@white.example", to, "", "whitelisted");
        check("red", "x@black.example", to, "", "ask names");
        check("red", "x@black.example", to, "nameless", "Sender is on the sender blacklist");
        check("red", "x@unqualified", to, "nameless", "Sender domain is not a fully qualified name");
        // Ours are asked about less; further recipients by what is known of the first.
        check("green", from, "u@far.example", "nameless", "ask y.test, far.example");
        check("green", from, "u@y.test", "nameless", "ask y.test");
        check("green", from, "u@far.example", "nameless exists", "ask far.example");
        check("green", from, "u@y.test", "nameless exists", "accepted");
        check("login", from, to, "nameless exists verified", "accepted");
    }

    /// The first query to the domain lists needn't wait for the client's names, and the rest of the lists
    /// does.
    #[test]
    fn block_lists_wait_for_names_only_where_they_are_asked_about_names() {
        let mut config = curious();
        config.access = Access::default();
        let ask = |config: &Config, learned: &str| {
            next(
                config,
                ("red", "198.51.100.1"),
                "mx.test",
                ("<x@y.test>", "<u@here.example>"),
                &known(learned),
            )
        };
        assert_eq!(ask(&config, ""), format!("ask y.test, names, {LISTS}"));
        config.rbl.as_mut().unwrap().domain_lists.clear();
        assert_eq!(ask(&config, ""), "ask y.test, 1.100.51.198.ip.rbl.example");
    }

    #[test]
    fn what_is_known_is_forgotten_with_its_recipient_or_transaction() {
        let mut known = known("mx.client exists unlisted verified seen");
        let config = curious();
        let ask = |known: &Known| {
            next(&config, ("red", "198.51.100.1"), "mx.test", ("<x@y.test>", "<u@here.example>"), known)
        };
        assert_eq!(ask(&known), "accepted");
        known.next_recipient();
        assert_eq!(ask(&known), "ask verification");
        known.next_transaction();
        assert_eq!(ask(&known), format!("ask y.test, {LISTS}, mx.client.names.rbl.example"));
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
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, zone, client, name, sender, recipient, expect, _] = cells[..] else { panic!("{row}") };
            let seen = next(&config, (zone, client), name, (sender, recipient), &Known::default());
            assert_eq!(seen, expect, "{row}");
        }
    }
}
