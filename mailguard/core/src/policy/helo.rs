//! HELO and EHLO: whether the client introduced itself (S4, `server.require_helo`).

use crate::config::model::Server;
use crate::finding::{Check, Finding, Outcome};
use crate::smtp::{HeloName, Refusal};

/// Judges what the client said it is called, as MAIL begins a transaction.
pub fn judge(server: &Server, name: Option<&HeloName>) -> Vec<Finding> {
    let (outcome, reason) = match name {
        Some(name) => (Outcome::Pass, format!("introduced itself as {name}")),
        None if server.require_helo => {
            (Outcome::Refuse(Refusal::HeloRequired), "no HELO, and server.require_helo is set".to_owned())
        }
        None => (Outcome::Pass, "no HELO".to_owned()),
    };
    vec![Finding::new(Check::Helo, outcome, reason)]
}
