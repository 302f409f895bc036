//! The client: its address against the client lists (S8).
//!
//! With `kernel.blacklist_action` drop or reset a blacklisted client's packets rarely come this far; sessions that
//! were open when the entry was made do.

use std::net::IpAddr;

use crate::config::model::Access;
use crate::finding::{Check, Finding};
use crate::smtp::Refusal;

/// Judges the client's address.
pub fn judge(access: &Access, client: IpAddr) -> Vec<Finding> {
    let white = access.whitelist_clients.iter().any(|network| network.contains(&client));
    let black = access.blacklist_clients.iter().any(|network| network.contains(&client));
    let subject = format!("client {client}");
    vec![super::listed(Check::ClientAccess, &subject, white, black, Refusal::ClientListed)]
}
