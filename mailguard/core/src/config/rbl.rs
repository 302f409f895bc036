//! `[rbl]`: which block lists are asked, from names of lists, families and "all".

use super::model::Rbl;
use super::section::Section;
use super::syntax;
use crate::rbl::{self, Kind, List};

/// Most lists of a kind: each is a query a client.
const MAX_BLOCK_LISTS: usize = 64;

/// `ip_lists`, where it isn't written.
pub const DEFAULT_IP_LISTS: &[&str] = &["zen.spamhaus.org", "bl.spamcop.net"];

/// `domain_lists`, where it isn't written.
pub const DEFAULT_DOMAIN_LISTS: &[&str] = &["dbl.spamhaus.org"];

/// The section; nothing when it isn't enabled.
pub(super) fn rbl(section: &mut Section<'_>) -> Option<Rbl> {
    let enabled = section.flag("enabled", false);
    let ip_lists = lists(section, "ip_lists", DEFAULT_IP_LISTS, Kind::Ip, enabled);
    let domain_lists = lists(section, "domain_lists", DEFAULT_DOMAIN_LISTS, Kind::Domain, enabled);
    let timeout = section.seconds("timeout", 5, 1..=30);
    enabled.then_some(Rbl { ip_lists, domain_lists, timeout })
}

fn lists(
    section: &mut Section<'_>,
    key: &'static str,
    default: &[&str],
    kind: Kind,
    enabled: bool,
) -> Vec<String> {
    let named = section.list(key, &syntax::BLOCK_LIST, MAX_BLOCK_LISTS);
    let named = named.unwrap_or_else(|| default.iter().map(|&name| name.to_owned()).collect());
    let mut zones = Vec::new();
    for name in named {
        for (zone, known) in meant(&name, kind) {
            match (rbl::retired(&zone), known) {
                // One that answers at all lists everybody.
                (Some(why), _) if enabled => {
                    section.note_inactive(key, format!("{zone} isn't asked: {why}"));
                }
                (Some(_), _) => {}
                (None, Some(list)) if list.kind != kind => {
                    let other = if kind == Kind::Ip { "domain_lists" } else { "ip_lists" };
                    section.conflict(
                        key,
                        format!("{zone} is no list of this kind"),
                        format!("write it into {other}"),
                    );
                }
                _ if zones.contains(&zone) => {}
                _ => zones.push(zone),
            }
        }
    }
    zones
}

/// The lists of this kind that a name stands for, with what the catalogue says of them. A name that isn't in
/// it is the zone of a list of somebody's own.
fn meant(name: &str, kind: Kind) -> Vec<(String, Option<&'static List>)> {
    let of_catalogue = |list: &'static List| (list.zone.to_owned(), Some(list));
    if name == "all" {
        return rbl::living(kind).map(of_catalogue).collect();
    }
    let family: Vec<_> = rbl::family(name).filter(|list| list.kind == kind).collect();
    // Where one list holds the others, that one answers for all.
    let living = |list: &&List| list.retired.is_none() && list.part_of.is_none();
    match family.iter().copied().filter(living).collect::<Vec<_>>() {
        living if !living.is_empty() => living.into_iter().map(of_catalogue).collect(),
        _ if !family.is_empty() => family.into_iter().map(of_catalogue).collect(),
        _ => vec![(name.to_owned(), rbl::find(name))],
    }
}
