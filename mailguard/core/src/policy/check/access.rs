//! The lists of `[access]` (S8): client, names of the client, sender and recipient, each against its
//! whitelist and its blacklist. The whitelist wins.
//!
//! With `kernel.blacklist_action` drop or reset a blacklisted client's packets rarely come this far; sessions
//! that were open when the entry was made do. A name is never the kernel's business.

use std::net::IpAddr;

use crate::config::model::{Access, AddressPattern};
use crate::finding::{Check, Finding, Opinion};
use crate::lookup::Lookup;
use crate::mail::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::policy::need::{
    About, AskingCheck, Fact, Holds, Known, NO_ANSWER_IN_TIME, Need, Query, Source, Subject,
};
use crate::smtp::Refusal;

/// Judges the client's address.
pub(in crate::policy) fn client(access: &Access, client: IpAddr) -> Finding {
    let white = access.whitelist_clients.iter().any(|network| network.contains(&client));
    let black = access.blacklist_clients.iter().any(|network| network.contains(&client));
    listed(Check::ClientAccess, &format!("client {client}"), white, black, Refusal::ClientListed)
}

/// The client's names against the lists of names.
pub(in crate::policy) const CLIENT_NAMES: AskingCheck = AskingCheck {
    needs: |subject, known| {
        let matters = subject.config.access.asks_for_names() && known_names(known).is_none();
        matters.then(|| names_of(subject.client)).into_iter().collect()
    },
    judge: |Subject { config, client, .. }, known| {
        let names = known_names(known).filter(|_| config.access.asks_for_names())?;
        Some(judge_names(&config.access, *client, names))
    },
    about: About::Sender,
};

/// The need for the client's names.
pub(super) fn names_of(client: IpAddr) -> Need {
    Need {
        query: Query::ClientNames(client),
        source: Source::Dns,
        within: None,
        holds: Holds::Session,
        unanswered: Fact::ClientNames(Lookup::Unavailable(NO_ANSWER_IN_TIME.to_owned())),
    }
}

/// The client's names, once they were asked for.
pub(super) fn known_names(known: &Known) -> Option<&Lookup<Vec<Domain>>> {
    known.find(|fact| match fact {
        Fact::ClientNames(names) => Some(names),
        _ => None,
    })
}

/// Judges the client's names: those of its address that have this address among theirs. A client that the DNS
/// can't tell about is on no list of names: an outage there must not refuse mail, nor let any through.
fn judge_names(access: &Access, client: IpAddr, names: &Lookup<Vec<Domain>>) -> Finding {
    let names = match names {
        Lookup::Found(names) => names,
        Lookup::Absent => {
            let reason = format!("client {client} has no name that leads back to it");
            return Finding::new(Check::ClientAccess, Opinion::Pass, reason);
        }
        Lookup::Unavailable(cause) => {
            let reason = format!("the name of client {client} can't be looked up: {cause}");
            return Finding::new(Check::ClientAccess, Opinion::Unavailable(cause.clone()), reason);
        }
    };
    let on = |list: &[Domain]| names.iter().any(|name| list.iter().any(|listed| name.is_within(listed)));
    let (white, black) = (on(&access.whitelist_client_names), on(&access.blacklist_client_names));
    let written: Vec<&str> = names.iter().map(Domain::as_str).collect();
    let subject = format!("client {}", written.join(", "));
    listed(Check::ClientAccess, &subject, white, black, Refusal::ClientListed)
}

/// Judges the reverse-path. The null one is nobody's, and on no list.
pub(in crate::policy) fn sender(access: &Access, reverse_path: &ReversePath) -> Finding {
    let on = |patterns| reverse_path.mailbox().is_some_and(|sender| is_listed(patterns, sender));
    let (white, black) = (on(&access.whitelist_senders), on(&access.blacklist_senders));
    let subject = format!("reverse-path {reverse_path}");
    listed(Check::SenderAccess, &subject, white, black, Refusal::SenderListed)
}

/// Judges the forward-path.
pub(in crate::policy) fn recipient(access: &Access, forward_path: &ForwardPath) -> Finding {
    let on = |patterns| forward_path.mailbox().is_some_and(|recipient| is_listed(patterns, recipient));
    let (white, black) = (on(&access.whitelist_recipients), on(&access.blacklist_recipients));
    let subject = format!("forward-path {forward_path}");
    listed(Check::RecipientAccess, &subject, white, black, Refusal::RecipientListed)
}

/// Judges the authors of a message, if one of them is blacklisted.
pub(in crate::policy) fn authors(access: &Access, from: &[Mailbox]) -> Option<Finding> {
    let listed = from.iter().find(|from| is_listed(&access.blacklist_senders, from))?;
    let reason = format!("From <{listed}> is blacklisted");
    Some(Finding::new(Check::SenderAccess, Opinion::Refuse(Refusal::SenderListed), reason))
}

/// Whether one of the patterns is this mailbox's.
pub(super) fn is_listed(patterns: &[AddressPattern], mailbox: &Mailbox) -> bool {
    patterns.iter().any(|pattern| pattern.matches(mailbox))
}

/// The opinion of a pair of lists: whitelisted, blacklisted or neither.
fn listed(check: Check, subject: &str, white: bool, black: bool, refusal: Refusal) -> Finding {
    if white {
        Finding::new(check, Opinion::Allow, format!("{subject} is whitelisted"))
    } else if black {
        Finding::new(check, Opinion::Refuse(refusal), format!("{subject} is blacklisted"))
    } else {
        Finding::new(check, Opinion::Pass, format!("{subject} is on no list"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_lists_hold_names_with_what_is_below_them() {
        let name = |name: &str| Domain::parse(name).unwrap();
        let text = r#"
            [access]
            whitelist_clients = ["mx.white.example"]
            blacklist_clients = ["black.example", "white.example"]
        "#;
        let access = crate::testing::config(text).access;
        let check = |names: Lookup<Vec<Domain>>, expect: &str| {
            let finding = judge_names(&access, "192.0.2.1".parse().unwrap(), &names);
            assert_eq!(finding.opinion.to_string(), expect, "{names:?}");
        };
        let found = |names: &[&str]| Lookup::Found(names.iter().map(|text| name(text)).collect());
        check(found(&["mx.white.example"]), "allow");
        check(found(&["other.white.example"]), "refuse: Client is on the client blacklist");
        check(found(&["dsl-7.Black.example"]), "refuse: Client is on the client blacklist");
        check(found(&["notblack.example"]), "pass");
        check(found(&["a.example", "mx.white.example"]), "allow");
        check(Lookup::Absent, "pass");
        check(Lookup::Unavailable("timeout".to_owned()), "unavailable: timeout");
    }
}
