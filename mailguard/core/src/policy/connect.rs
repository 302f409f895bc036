//! The client: its address and its name against the client lists (S8).
//!
//! With `kernel.blacklist_action` drop or reset a blacklisted client's packets rarely come this far; sessions that
//! were open when the entry was made do. A name is never the kernel's business.

use std::net::IpAddr;

use crate::config::model::Access;
use crate::finding::{Check, Finding, Opinion};
use crate::lookup::Lookup;
use crate::mail::Domain;
use crate::smtp::Refusal;

/// Judges the client's address.
pub fn judge(access: &Access, client: IpAddr) -> Vec<Finding> {
    let white = access.whitelist_clients.iter().any(|network| network.contains(&client));
    let black = access.blacklist_clients.iter().any(|network| network.contains(&client));
    let subject = format!("client {client}");
    vec![super::listed(Check::ClientAccess, &subject, white, black, Refusal::ClientListed)]
}

/// Judges the client's names: those of its address that have this address among theirs. A client that the DNS can't tell about is
/// on no list of names: an outage there must not refuse mail, nor let any through.
pub fn judge_names(access: &Access, client: IpAddr, names: &Lookup<Vec<Domain>>) -> Finding {
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
    super::listed(Check::ClientAccess, &subject, white, black, Refusal::ClientListed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_with_what_is_below_them() {
        let name = |name: &str| Domain::parse(name).unwrap();
        let access = Access {
            whitelist_client_names: vec![name("mx.white.example")],
            blacklist_client_names: vec![name("black.example"), name("white.example")],
            ..Access::default()
        };
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
