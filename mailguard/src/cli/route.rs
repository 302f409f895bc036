//! `mailguard route`: where mail goes, rule by rule.

use mailguard_core::mail::Mailbox;

use super::Printed;
use super::args::Output;
use super::daemon::Daemon;
use super::terminal::plain;
use crate::admin::{RouteRow, request};

pub(super) fn route(
    daemon: &mut Daemon,
    recipient: Mailbox,
    sender: Option<Mailbox>,
    output: Output,
) -> anyhow::Result<Printed> {
    let row = daemon.ask(request::Route { recipient, sender })?;
    let printed = Printed::result(output, &row, || print(&row))?;
    Ok(Printed { failed: row.problem.is_some(), ..printed })
}

fn print(row: &RouteRow) -> String {
    let RouteRow { recipient, sender, steps, .. } = row;
    let mut text = format!("{} from {}\n", plain(recipient), plain(sender));
    for step in steps {
        text.push_str(&format!("  - {}\n", plain(step)));
    }
    let facts = [
        ("next hop", row.next_hop.clone()),
        ("servers", Some(row.servers.join(", ")).filter(|servers| !servers.is_empty())),
        ("from", row.outgoing_address.clone()),
        ("tls", row.tls.clone()),
        ("login", row.username.clone()),
        ("problem", row.problem.clone()),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            text.push_str(&format!("{name:<9} {}\n", plain(&fact)));
        }
    }
    text
}
