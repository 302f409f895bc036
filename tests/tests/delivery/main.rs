//! How mail leaves: by which way, encrypted how, as whom, and what becomes of it; each judged by peers that
//! we didn't write.

mod notices;
mod orders;
mod outage;
mod routing;
mod sessions;
mod smarthost;

use mailguard_tests::appliance::Appliance;
use mailguard_tests::netns::{FIREWALL4, LAN, Topology};
use mailguard_tests::peers::swaks::{self, Message};
use mailguard_tests::peers::wait_until;
use serde_json::Value;

/// The client's side is a zone of ours that takes mail at the firewall's own address; `more` may begin with
/// keys of the root.
fn config(more: &str) -> String {
    format!(
        "hostname = \"mailguard.example.test\"\n{more}\n[[zone]]\nname = \"green\"\nkind = \"green\"\n\
         interfaces = [\"{LAN}\"]\nmode = \"active\"\n"
    )
}

/// Has the client send a message, which must be taken.
fn send(topology: &Topology, sender: &str, recipients: &str, subject: &str) {
    let server = FIREWALL4.to_string();
    let message =
        Message { server: &server, sender, recipients, subject, body: "Good morning.", ..Message::default() };
    let outcome = swaks::send(&|program| topology.client.command(program), &message).expect("swaks runs");
    assert!(outcome.accepted, "{}", outcome.transcript);
}

/// The attempts that the trace of the message with this recipient tells, the last one first; waits for the
/// first.
fn attempts(appliance: &Appliance<'_>, recipient: &str) -> Vec<Value> {
    let mut found = Vec::new();
    wait_until(&format!("an attempt for {recipient}"), || {
        let traces = appliance.json(&["trace", &format!("to:{recipient}"), "--full"]).expect("traces");
        let rows = traces.as_array().expect("rows").iter();
        found = rows.flat_map(|row| row["attempts"].as_array().cloned().unwrap_or_default()).collect();
        found.retain(|attempt: &Value| attempt["recipient"] == recipient);
        !found.is_empty()
    })
    .expect("an attempt");
    found.reverse();
    found
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("no text {key} in {row}"))
}
