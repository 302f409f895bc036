//! The kernel side in `mailguard status`: what is attached first, then what was done, then how full it is.
//! The columns stand in the order in which people read: what it is, what it does, how much, what is wrong.

use std::fmt::Write;
use std::time::Duration;

use super::terminal::{Table, span};
use crate::datapath::{DatapathStatus, InterfaceStatus, MapUse, MendCount, ReasonCount, RuleCount};

/// How far the tables are indented.
const INDENT: &str = "    ";

/// Appends it, a blank line before.
pub(super) fn print(text: &mut String, kernel: &DatapathStatus) {
    let DatapathStatus { proxy_alive, on_proxy_down, mended, interfaces, maps, reasons, rules } = kernel;
    text.push_str("\nkernel\n");
    let mut state = Table::lines();
    state.row(["proxy alive".to_owned(), yes_or_no(*proxy_alive).to_owned()]);
    state.row(["on proxy down".to_owned(), on_proxy_down.name().to_owned()]);
    state.print(text, "  ");
    let headings = ["NAME", "ZONE", "INTERCEPTS", "TC", "XDP", "PROBLEM"];
    section(text, "interfaces", headings, interfaces.iter().map(interface));
    section(text, "put back", ["WHAT", "TIMES", "LAST"], mended.iter().map(mend));
    section(text, "packets", ["REASON", "PACKETS", "OCTETS", "PER SECOND"], reasons.iter().map(reason));
    section(text, "rules", ["LIST", "VALUE", "PACKETS", "LAST HIT"], rules.iter().map(rule));
    section(text, "maps", ["NAME", "ENTRIES", "LIMIT"], maps.iter().map(map));
}

/// A table under its name, unless it has no row.
fn section<const N: usize>(
    text: &mut String,
    name: &str,
    headings: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) {
    if rows.len() == 0 {
        return;
    }
    let mut table = Table::new(&headings);
    rows.for_each(|row| table.row(row));
    let _ = writeln!(text, "  {name}");
    table.print(text, INDENT);
}

fn interface(interface: &InterfaceStatus) -> [String; 6] {
    let InterfaceStatus { name, zone, intercepts, leaving, xdp, tc, problem } = interface;
    let intercepts = if *leaving { "open sessions only" } else { yes_or_no(*intercepts) };
    let problem = problem.clone().unwrap_or_default();
    [name.clone(), zone.clone(), intercepts.to_owned(), tc.name().to_owned(), xdp.name().to_owned(), problem]
}

fn mend(mended: &MendCount) -> [String; 3] {
    let MendCount { what, times, last_seconds_ago } = mended;
    [what.clone(), times.to_string(), seconds_ago(*last_seconds_ago)]
}

fn reason(count: &ReasonCount) -> [String; 4] {
    let ReasonCount { reason, packets, octets, per_second } = count;
    [reason.name().to_owned(), packets.to_string(), octets.to_string(), format!("{per_second:.1}")]
}

fn rule(count: &RuleCount) -> [String; 4] {
    let RuleCount { key, packets, last_hit_seconds_ago } = count;
    let list = key.list().to_string();
    [list, key.value().to_owned(), packets.to_string(), seconds_ago(*last_hit_seconds_ago)]
}

fn map(map: &MapUse) -> [String; 3] {
    let MapUse { name, entries, limit } = map;
    [name.clone(), entries.to_string(), limit.to_string()]
}

fn yes_or_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn seconds_ago(seconds: u64) -> String {
    format!("{} ago", span(Duration::from_secs(seconds)))
}
